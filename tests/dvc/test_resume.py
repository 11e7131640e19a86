"""A run that is stopped anywhere and goes on from its checkpoint ends bit for bit where it would have ended."""

import pytest
import torch
from torch import nn

from dvc import Parameter, Pipeline
from dvc.checkpoint import load_checkpoint, save_checkpoint
from dvc.losses import Objective, Term
from dvc.optimize import Phase, optimize


class Bend(nn.Module):
    def forward(self, a, b, horizon, shift=None):
        t = torch.linspace(0.0, 1.0, horizon)
        r = 8.0 * (torch.sin(a[:, None] * t) + b[:, :1] * t - b[:, 1:] * t**2 - 0.3 * torch.cos(5.0 * t))
        return r if shift is None else r + shift


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(1, 4), nn.Linear(4, 1)
        with torch.no_grad():
            for i, p in enumerate(self.parameters()):
                p.copy_(torch.linspace(-0.5, 0.7, p.numel()).reshape(p.shape) + 0.1 * i)

    def forward(self, horizon):
        t = torch.linspace(0.0, 1.0, horizon)[:, None]
        return self.last(torch.tanh(self.first(t)))[:, 0][None]


def pipeline(learned: bool) -> Pipeline:
    stages = {"a": Parameter(1.0, 0.1, 6.0, explore=[0.5, 5.0]), "b": Parameter([0.1, -0.2], prior_std=[1.0, 1.0]), "r": Bend()}
    wiring = {"r": {"a": "a", "b": "b", "horizon": "$horizon"}}
    if learned:
        stages["net"] = Net()
        wiring |= {"net": {"horizon": "$horizon"}}
        wiring["r"]["shift"] = "net"
    return Pipeline(stages, wiring)


SCHEDULES = {
    "gauss_newton": [Phase("near", steps=3, context={"horizon": 6}, train=["a"], survivors=2),
                     Phase("far", steps=5, context={"horizon": 20}, survivors=1, refresh=2, tolerance=1e-9)],
    "adam with weights": [Phase("near", steps=2, context={"horizon": 6}, survivors=2),
                          Phase("learn", "adam", steps=6, context={"horizon": 20}, weights=True, schedule="cosine")],
    "lbfgs": [Phase("near", steps=2, context={"horizon": 6}, survivors=1),
              Phase("lbfgs", "lbfgs", steps=6, lr=0.3, context={"horizon": 20}, options={"max_iter": 3, "history_size": 4}),
              Phase("lbfgs with weights", "lbfgs", steps=3, lr=0.5, weights=True, context={"horizon": 20},
                    options={"max_iter": 2, "line_search_fn": "strong_wolfe"})],
}  # fmt: skip
STARTS = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.3, 0.2], [-1.0, 1.0, 0.0]])


class Interrupted(Exception):
    pass


def run(phases, learned, folder=None, every=1, stop_at=None, restored=None):
    graph = pipeline(learned)

    def on_step(step, name, x, loss):
        if step == stop_at:
            raise Interrupted

    checkpoint = None if folder is None else lambda state: save_checkpoint(folder, state)
    objective = Objective({"r": Term("r", robust=2.0)})
    return graph, optimize(graph, objective, phases, starts=STARTS, on_step=on_step, checkpoint=checkpoint,
                           checkpoint_every=every, restored=restored)  # fmt: skip


def same(a, b) -> bool:
    (graph_a, fit_a), (graph_b, fit_b) = a, b
    weights = all(torch.equal(graph_a.weights()[n], w) for n, w in graph_b.weights().items())
    explored = torch.equal(fit_a.explored, fit_b.explored) and torch.equal(fit_a.explored_loss, fit_b.explored_loss) \
        if fit_a.explored is not None else fit_b.explored is None  # fmt: skip
    ends = list(fit_a.ends) == list(fit_b.ends) and all(torch.equal(e["x"], fit_b.ends[n]["x"]) for n, e in fit_a.ends.items())
    return (
        torch.equal(fit_a.x, fit_b.x)
        and torch.equal(fit_a.loss, fit_b.loss)
        and fit_a.steps == fit_b.steps
        and weights
        and explored
        and ends
    )


@pytest.mark.parametrize("name", SCHEDULES)
def test_stopped_at_any_step(name, tmp_path):
    phases, learned = SCHEDULES[name], name != "gauss_newton"
    whole = run(phases, learned)
    assert same(run(phases, learned), whole)
    for k in range(1, whole[1].steps + 1):
        folder = tmp_path / f"stopped_{k}"
        with pytest.raises(Interrupted):
            run(phases, learned, folder, stop_at=k)
        restored = load_checkpoint(folder)
        assert (restored is None) == (k == 1)  # each step is saved once it is reported
        assert same(run(phases, learned, restored=restored), whole), f"stopped at step {k}"


def test_stopped_twice_and_with_rare_checkpoints(tmp_path):
    phases = SCHEDULES["adam with weights"]
    whole = run(phases, True)
    with pytest.raises(Interrupted):
        run(phases, True, tmp_path, every=3, stop_at=5)
    with pytest.raises(Interrupted):
        run(phases, True, tmp_path, every=3, stop_at=7, restored=load_checkpoint(tmp_path))
    assert same(run(phases, True, tmp_path, every=3, restored=load_checkpoint(tmp_path)), whole)


def test_a_finished_run_goes_on_to_its_end_at_once(tmp_path):
    phases = SCHEDULES["gauss_newton"]
    whole = run(phases, False, tmp_path)
    again = run(phases, False, stop_at=whole[1].steps, restored=load_checkpoint(tmp_path))  # no step is taken: nothing stops it
    assert same(again, whole)
    assert torch.equal(again[0](["a"])["a"], whole[0](["a"])["a"])


def test_a_state_does_not_change_after_it_was_handed_over():
    kept, copies = [], []

    def checkpoint(state):
        kept.append(state)
        copies.append((state["x"].clone(), state["loss"].clone()))

    optimize(
        pipeline(True),
        Objective({"r": Term("r")}),
        SCHEDULES["adam with weights"],
        starts=STARTS,
        checkpoint=checkpoint,
        checkpoint_every=1,
    )
    assert all(torch.equal(s["x"], x) and torch.equal(s["loss"], loss) for s, (x, loss) in zip(kept, copies, strict=True))
