"""Gradients by forward sensitivities against reverse mode, how a phase chooses, and that a resumed run keeps the choice."""

from copy import deepcopy

import pytest
import torch
from torch import nn

import dvc.forward_gradient
from dvc import Parameter, Pipeline, UserError
from dvc.descent import Problem
from dvc.forward_gradient import GradientChoice, choose_gradient
from dvc.losses import Objective, Term
from dvc.optimize import Phase, optimize
from dvc.parameter_vector import ParameterVector
from dvc.records import State
from physics.articulated_rollout import ArticulatedRollout
from physics.articulation import REVOLUTE
from tests.physics.trees import plain_linkage, tree_of

TREE = tree_of([REVOLUTE, REVOLUTE], [-1, 0])


class Swing(nn.Module):
    """Angles of a double pendulum, (world, frame, 2), less those of another one."""

    def __init__(self, frames: int):
        super().__init__()
        self.rollout = ArticulatedRollout(TREE, frame_rate=50.0, frame_count=frames, substeps=2, integrator="rk4")
        self.observed = self.angles(torch.tensor([0.25]), torch.tensor([[0.9, 0.7]])).detach()

    def angles(self, damping, length):
        zero = torch.zeros_like(length[:, 0])
        place = torch.stack([torch.zeros_like(length[:, :1]).expand(-1, 3), torch.stack([zero, zero, -length[:, 0]], -1)], 1)
        com = torch.stack([torch.zeros_like(length), torch.zeros_like(length), -length], -1)
        linkage = plain_linkage(TREE, center_of_mass=com, position=place, damping=damping[:, None].expand(-1, 2))
        return self.rollout(State(torch.tensor([[0.6, -0.3]]), torch.zeros(1, 2)), linkage).coordinates

    def forward(self, damping, length):
        return (self.angles(damping, length) - self.observed) / 0.05


class Constant(nn.Module):
    def forward(self):
        return torch.full((1, 3), 0.5)


def swing(frames: int = 50) -> Pipeline:
    parameters = {
        "damping": Parameter(0.2, 0.0, 2.0, prior_std=0.1, prior_mean=0.3),
        "length": Parameter([1.0, 0.8], 0.2, 2.0),
    }
    stages = {**parameters, "r": Swing(frames), "still": Constant()}
    return Pipeline(stages, {"r": {"damping": "damping", "length": "length"}})


OBJECTIVE = Objective({"angles": Term("r", robust=2.0, weight=0.3), "still": Term("still")})


def problem(pipeline: Pipeline, active=None, **options) -> Problem:
    return Problem(pipeline, OBJECTIVE, ParameterVector(pipeline), {}, active, **options)


X = torch.tensor([[-2.0, -0.2, 0.1], [-1.6, 0.3, -0.4], [-2.5, 0.0, 0.2]])


@pytest.mark.parametrize(("step", "worlds"), [(1e-2, 16), (1e-3, 16), (1e-3, 2), (3e-4, 16)])
def test_double_pendulum_agrees_with_reverse_mode(step, worlds):
    p, alive = problem(swing(), step=step, worlds_at_once=worlds), torch.tensor([True, True, True])
    loss, forward, good = p.forward(X, alive)
    expected_loss, reverse, expected_good = p.reverse(X, alive)
    torch.testing.assert_close(loss, expected_loss, rtol=1e-5, atol=1e-5)
    assert torch.equal(good, expected_good)
    bound = {1e-2: 5e-4, 1e-3: 2e-3, 3e-4: 6e-3}[step]  # rounding grows as the step falls
    assert float((forward - reverse).norm()) < bound * float(reverse.norm()), (forward, reverse)


def test_numbers_that_do_not_move_and_worlds_that_are_not_finite():
    p = problem(swing(5), torch.tensor([0.0, 1.0, 0.0]))
    x = torch.cat([X, torch.tensor([[torch.nan, 0.0, 0.0]])])
    loss, gradient, good = p.forward(x, torch.tensor([True, True, False, True]))
    assert good.tolist() == [True, True, False, False] and torch.isinf(loss[2:]).all()
    assert (gradient[:, [0, 2]] == 0.0).all() and (gradient[2:] == 0.0).all() and (gradient[:2, 1] != 0.0).all()


@pytest.mark.parametrize("mode", ["reverse", "forward", "auto"])
@pytest.mark.parametrize("optimizer", ["gauss_newton", "adam", "lbfgs"])
def test_every_descent_finds_the_pendulum_either_way(mode, optimizer):
    options = {"gauss_newton": {"steps": 15}, "adam": {"steps": 60, "lr": 0.05}, "lbfgs": {"steps": 5, "lr": 0.5}}[optimizer]
    notes = []
    fit = optimize(
        swing(30), Objective({"angles": Term("r")}), [Phase("p", optimizer, gradient=mode, **options)], on_retire=notes.append
    )
    assert fit.loss.item() < 1.0  # it begins at about 100
    taken = fit.ends["p"]["gradient"]
    assert taken.startswith(mode if mode != "auto" else ("reverse", "forward"))
    assert notes == ([] if mode == "reverse" else [f"p: gradient: {taken}"])


def slowed(monkeypatch, name: str, seconds: float) -> None:
    """A clock by which one way of taking the gradient takes `seconds`, the other 0.5 s."""
    clock = [0.0]
    monkeypatch.setattr(dvc.forward_gradient.time, "perf_counter", lambda: clock[0])
    for mode in ("reverse", "forward"):
        method = getattr(Problem, mode)

        def timed(self, x, alive, method=method, mode=mode):
            clock[0] += seconds if mode == name else 0.5
            return method(self, x, alive)

        monkeypatch.setattr(Problem, mode, timed)


@pytest.mark.parametrize(("slow", "expected"), [("reverse", "forward"), ("forward", "reverse")])
def test_the_faster_way_is_taken(monkeypatch, slow, expected):
    slowed(monkeypatch, slow, 2.0)
    choice = choose_gradient(problem(swing(5)), X, torch.ones(3, dtype=torch.bool))
    assert choice.mode == expected and "2e+03 ms" in choice.why and "differ by" in choice.why


def test_differences_that_are_not_exact_are_not_taken(monkeypatch):
    slowed(monkeypatch, "reverse", 2.0)
    choice = choose_gradient(problem(swing(50), step=0.9), X, torch.ones(3, dtype=torch.bool))
    assert choice.mode == "reverse" and "not exact enough" in choice.why


def test_learned_weights_take_reverse_mode():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.tensor([0.5]))

        def forward(self, damping):
            return damping[:, None] * self.weight

    pipeline = Pipeline({"damping": Parameter(0.2), "r": Net()}, {"r": {"damping": "damping"}})
    fit = optimize(pipeline, Objective({"r": Term("r")}), [Phase("p", "adam", steps=1, weights=True, gradient="auto")])
    assert fit.ends["p"]["gradient"] == "reverse (learned weights move)"


class Stop(Exception):
    pass


@pytest.mark.parametrize("optimizer", ["gauss_newton", "adam"])
def test_a_resumed_run_keeps_the_choice_and_takes_the_same_steps(monkeypatch, optimizer):
    phases = [Phase("p", optimizer, steps=4, gradient="auto")]
    objective = Objective({"angles": Term("r")})

    def go(stop_at=None, restored=None, choice=None):
        if choice is not None:
            monkeypatch.setattr("dvc.optimize.choose_gradient", lambda *a: GradientChoice(choice, "measured"))
        states = []

        def on_step(step, *rest):
            if step == stop_at:
                raise Stop

        try:
            fit = optimize(
                swing(20), objective, phases, on_step=on_step, checkpoint=lambda s: states.append(deepcopy(s)),
                checkpoint_every=1, restored=restored,
            )  # fmt: skip
        except Stop:
            return states[-1]
        return fit

    whole = go(choice="forward")
    for stop_at in (1, 3):  # 1: only the choice itself has been saved
        state = go(stop_at, choice="forward")
        assert state["inner"]["gradient"] == ("forward", "measured") and state["inner"]["start"] == stop_at - 1
        resumed = go(restored=state, choice="reverse")  # what a second measurement would say does not matter
        assert torch.equal(resumed.x, whole.x) and resumed.ends["p"]["gradient"] == "forward (measured)"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gradient": "sideways"}, "gradient: expected one of reverse, forward, auto, got 'sideways'"),
        ({"gradient": "forward", "weights": True, "optimizer": "adam"}, "gradient: forward moves declared parameters only"),
        ({"difference_step": 0.0}, "difference_step: expected a number between 0 and 1"),
    ],
)
def test_what_is_refused(settings, message):
    with pytest.raises(UserError, match=message):
        Phase("p", **settings)


def test_auto_without_a_finite_start():
    with pytest.raises(UserError, match="no start has a finite gradient"):
        choose_gradient(problem(swing(5)), torch.full((1, 3), torch.nan), torch.ones(1, dtype=torch.bool))
