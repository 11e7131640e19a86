"""Phases of descent: every kind of optimiser, selection, retirement, and what is refused."""

import pytest
import torch
from torch import nn

from dvc import Parameter, Pipeline, UserError
from dvc.losses import Objective, Term
from dvc.optimize import Phase, optimize
from dvc.parameter_vector import ParameterVector


class Line(nn.Module):
    """Residuals of a line through data; from a slope above `limit` on NaN (in value, or in the gradient only)."""

    def __init__(self, limit: float = torch.inf, gradient_only: bool = False):
        super().__init__()
        self.limit, self.gradient_only = limit, gradient_only
        self.t = torch.linspace(0.0, 1.0, 12)

    def forward(self, slope, offset, shift=None, scale: float = 1.0):
        r = scale * (slope[:, None] * self.t + offset[:, None] - (2.0 * self.t + 0.5))
        beyond = (slope > self.limit)[:, None]
        if self.gradient_only:  # sqrt has a finite value and an infinite slope at 0
            one = torch.ones_like(slope)
            r = (
                r
                + (torch.sqrt(torch.where(beyond[:, 0], slope - slope, one)) - torch.where(beyond[:, 0], 0.0 * one, one))[
                    :, None
                ]
            )
        else:
            r = r * torch.where(beyond, torch.nan, 1.0)
        return r if shift is None else r + shift


class Learned(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([0.3, -0.2]))

    def forward(self, slope):
        t = torch.linspace(0.0, 1.0, 12)
        return 0.1 * slope[:, None] * (self.weight[0] * t + self.weight[1] * t * t)


def line(limit: float = torch.inf, learned: bool = False, gradient_only: bool = False) -> Pipeline:
    stages = {
        "slope": Parameter(0.0),
        "offset": Parameter(0.0, -3.0, 3.0, explore=[-2.0, 2.0]),
        "r": Line(limit, gradient_only),
    }
    wiring = {"r": {"slope": "slope", "offset": "offset", "scale": "$scale"}}
    if learned:
        stages["net"] = Learned()
        wiring |= {"net": {"slope": "slope"}}
        wiring["r"]["shift"] = "net"
    return Pipeline(stages, wiring)


OBJECTIVE = Objective({"r": Term("r")})
CONTEXT = {"scale": 10.0}


@pytest.mark.parametrize("phase", [
    Phase(steps=20, tolerance=1e-6),
    Phase(optimizer="adam", lr=0.2, schedule="cosine", steps=300),
    Phase(optimizer="LBFGS", lr=1.0, steps=10, options={"line_search_fn": "strong_wolfe"}),
], ids=["gauss_newton", "adam", "lbfgs"])  # fmt: skip
def test_each_kind_finds_the_line(phase):
    pipeline, steps = line(), []
    fit = optimize(pipeline, OBJECTIVE, [phase], context=CONTEXT, on_step=lambda *a: steps.append(a))
    values = pipeline(["slope", "offset"])
    assert values["slope"].item() == pytest.approx(2.0, abs=0.01) and values["offset"].item() == pytest.approx(0.5, abs=0.01)
    assert fit.alive.all() and fit.steps == len(steps) and [s[0] for s in steps] == list(range(1, fit.steps + 1))
    assert fit.loss.item() < 1e-2 and steps[-1][3].item() < 0.01 * steps[0][3].item() + 1e-6
    assert torch.equal(ParameterVector(pipeline).gather(), fit.x)


def test_phases_in_order_with_their_own_context_terms_and_parameters():
    pipeline = line()
    seen = {}
    phases = [Phase("offset first", steps=8, train=["offset"], context={"scale": 1.0}), Phase("both", steps=15, tolerance=1e-6)]

    def on_step(step, name, x, loss):
        seen.setdefault(name, []).append((x.clone(), loss.clone()))

    fit = optimize(pipeline, OBJECTIVE, phases, context=CONTEXT, on_step=on_step)
    assert list(seen) == ["offset first", "both"] == list(fit.ends)
    assert all(x[0, 0] == 0.0 for x, _ in seen["offset first"])  # the slope was not named
    assert fit.ends["offset first"]["x"][1] != 0.0
    assert fit.loss.item() < 1e-3
    # the scale of the first phase is 10 times smaller: so is its loss, 100 times
    assert seen["offset first"][0][1].item() < 0.1 * 100


def test_worlds_survive_selection_best_first():
    pipeline = line()
    starts = torch.tensor([[0.0, 0.0], [40.0, 0.0], [1.9, 0.3], [-60.0, 1.0]])
    phases = [Phase("explore", steps=1, survivors=2), Phase("descend", steps=20, tolerance=1e-6, survivors=1)]
    counts = []
    fit = optimize(
        pipeline, OBJECTIVE, phases, starts=starts, context=CONTEXT, on_step=lambda s, n, x, loss: counts.append((n, len(x)))
    )
    assert set(counts) == {("explore", 4), ("descend", 2)}
    assert fit.x.shape == (1, 2) and fit.loss.item() < 1e-3
    assert fit.explored.shape == (4, 2) and fit.explored_loss.shape == (4,)
    assert fit.explored_loss.argmin() in (0, 2) and torch.isfinite(fit.explored_loss).all()


def test_without_selection_nothing_is_recorded_and_worlds_are_sorted():
    fit = optimize(
        line(), OBJECTIVE, [Phase(steps=1)], starts=torch.tensor([[30.0, 0.0], [1.0, 0.0], [-9.0, 0.0]]), context=CONTEXT
    )
    assert fit.explored is None and (fit.loss[1:] >= fit.loss[:-1]).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": 0.1}, "lr is not an option of optimizer 'gauss_newton'"),
        ({"schedule": "cosine"}, "schedule is not an option"),
        ({"optimizer": "adam", "refresh": 3}, "refresh is not an option of optimizer 'adam'"),
        ({"optimizer": "adam", "lr": 0.0}, "lr > 0"),
        ({"refresh": 0}, "refresh and worlds_at_once >= 1"),
    ],
)
def test_options_that_would_be_ignored_or_are_out_of_range(settings, message):
    with pytest.raises(UserError, match=message):
        Phase("descend", **settings)


def test_phases_of_one_name_would_hide_each_other():
    with pytest.raises(UserError, match="expected different names, got 'descend' twice"):
        optimize(line(), OBJECTIVE, [Phase(), Phase()], context=CONTEXT)


@pytest.mark.parametrize("gradient_only", [False, True], ids=["loss", "gradient"])
@pytest.mark.parametrize("optimizer", ["gauss_newton", "adam"])
def test_a_world_that_is_not_finite_is_retired_and_reported(optimizer, gradient_only):
    starts = torch.tensor([[0.0, 0.0], [50.0, 0.0], [1.0, -0.5]])
    own = {"tolerance": 1e-6, "steps": 25} if optimizer == "gauss_newton" else {"lr": 0.1, "schedule": "cosine", "steps": 250}
    phase = Phase("descend", optimizer, **own)
    notes = []
    fit = optimize(
        line(20.0, gradient_only=gradient_only), OBJECTIVE, [phase], starts=starts, context=CONTEXT, on_retire=notes.append
    )
    assert notes == ["descend: start [1] retired, its loss or gradient is not finite"]
    assert fit.alive.tolist() == [True, True, False]
    sound = optimize(line(), OBJECTIVE, [phase], starts=starts[[0, 2]], context=CONTEXT)
    assert torch.allclose(fit.x[:2], sound.x, atol=1e-3) and fit.loss[:2].max() < 0.02


@pytest.mark.parametrize("gradient_only", [False, True], ids=["loss", "gradient"])
def test_shared_weights_do_not_see_a_retired_world(gradient_only):
    starts = torch.tensor([[0.5, 0.0], [50.0, 0.0], [1.0, -0.5]])
    phase = Phase("learn", "adam", steps=40, lr=0.02, weights=True)
    pipeline, sound = line(20.0, True, gradient_only), line(learned=True)
    fit = optimize(pipeline, OBJECTIVE, [phase], starts=starts, context=CONTEXT)
    assert fit.alive.tolist() == [True, True, False]
    optimize(sound, OBJECTIVE, [phase], starts=starts[[0, 2]], context=CONTEXT)
    weight = pipeline.stages["net"].weight
    assert torch.isfinite(weight).all() and not torch.equal(weight, torch.tensor([0.3, -0.2]))
    assert torch.allclose(weight, sound.stages["net"].weight, atol=1e-4)  # as if the bad world had never been there


class Poisoned(nn.Module):
    """A weight whose gradient is not finite, though loss and parameters' gradients are."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, slope):
        return torch.sqrt(self.weight) + 0.0 * slope[:, None]


def test_a_gradient_of_a_shared_weight_that_is_not_finite_stops_and_names_it():
    pipeline = Pipeline({"slope": Parameter(0.0), "offset": Parameter(0.0), "net": Poisoned(), "r": Line()},
                        {"net": {"slope": "slope"}, "r": {"slope": "slope", "offset": "offset", "shift": "net"}})  # fmt: skip
    with pytest.raises(UserError, match=r"'net\.weight' is not finite"):
        optimize(pipeline, OBJECTIVE, [Phase(optimizer="adam", steps=3, weights=True)])


@pytest.mark.parametrize("optimizer", ["gauss_newton", "adam"])
def test_all_retired(optimizer):
    steps = []
    with pytest.raises(UserError, match="every start was retired"):
        optimize(
            line(-5.0), OBJECTIVE, [Phase(optimizer=optimizer, steps=50)], context=CONTEXT, on_step=lambda *a: steps.append(a)
        )
    assert not steps


def test_weights_alone():
    pipeline = line(learned=True)
    pipeline.set_values({"slope": torch.tensor([2.0]), "offset": torch.tensor([0.5])})
    phase = Phase("network", "adam", steps=150, lr=0.05, train=[], weights=True)
    fit = optimize(pipeline, OBJECTIVE, [Phase("before", steps=0), phase], context=CONTEXT)
    values = pipeline(["slope", "offset"])
    assert values["slope"].item() == pytest.approx(2.0) and fit.loss.item() < 1e-2
    assert fit.ends["before"]["weights"]["net.weight"].tolist() == pytest.approx([0.3, -0.2])
    assert fit.ends["network"]["weights"]["net.weight"].abs().max() < 0.2


def test_gauss_newton_leaves_weights_alone():
    pipeline = line(learned=True)
    before = pipeline.stages["net"].weight.detach().clone()
    optimize(pipeline, OBJECTIVE, [Phase(steps=5)], context=CONTEXT)
    assert torch.equal(pipeline.stages["net"].weight, before)


def test_a_phase_of_no_steps_measures_the_loss():
    fit = optimize(line(), OBJECTIVE, [Phase(steps=0)], context=CONTEXT)
    assert torch.isfinite(fit.loss).all() and fit.steps == 0


@pytest.mark.parametrize(("phase", "worlds", "message"), [
    (Phase(terms=["pixel"]), 1, "no term 'pixel'; terms: r"),
    (Phase(train=["slop"]), 1, "no declared parameter 'slop'"),
    (Phase(train=[]), 1, "nothing to train"),
    (Phase(optimizer="adam", train=[]), 1, "nothing to train"),
    (Phase(optimizer="adamm"), 1, "expected gauss_newton or one of torch.optim"),
    (Phase(weights=True), 1, "gauss_newton moves declared parameters only"),
    (Phase(optimizer="lbfgs"), 3, "lbfgs: expected one world, got 3"),
])  # fmt: skip
def test_phases_that_are_refused(phase, worlds, message):
    with pytest.raises(UserError, match=message) as caught:
        optimize(line(), OBJECTIVE, [phase], starts=torch.zeros(worlds, 2), context=CONTEXT)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("bad", [{"steps": -1}, {"lr": 0.0}, {"lr": float("nan")}, {"schedule": "linear"}, {"survivors": 0}])
def test_settings_of_a_phase_that_are_refused(bad):
    with pytest.raises(UserError, match="phase 'descend'"):
        Phase(**bad)


def test_two_runs_give_the_same_numbers():
    a, b = (
        optimize(line(), OBJECTIVE, [Phase(steps=4)], starts=torch.tensor([[0.0, 0.0], [3.0, 1.0]]), context=CONTEXT)
        for _ in range(2)
    )
    assert torch.equal(a.x, b.x) and torch.equal(a.loss, b.loss)
