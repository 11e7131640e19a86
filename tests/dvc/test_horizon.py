"""Gradients against the horizon: exact growth, a chaotic and a damped double pendulum, what is not trusted, what is written."""

import csv
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from dvc import Parameter, Pipeline, UserError
from dvc.horizon import (
    fit_growth,
    format_report,
    horizon_report,
    pipeline_report,
    save_report,
    spread_horizons,
    summary,
    verdict,
)
from dvc.losses import Objective, Term
from dvc.records import State
from physics.articulated_rollout import ArticulatedRollout
from physics.articulation import REVOLUTE
from tests.physics.trees import plain_linkage, tree_of

G, RATE, SUBSTEPS = 9.81, 25.0, 10
DOUBLE = tree_of([REVOLUTE, REVOLUTE], [-1, 0])
WEIGHTS = (1.0, 0.7)


def end_of_double_pendulum(damping: float, rate: float):
    """x (world, 2), the first angles -> a linear function of the last ones. Point masses of 1 kg on rods of 1 m."""
    linkage = plain_linkage(
        DOUBLE,
        center_of_mass=torch.tensor([[[0.0, 0.0, -1.0]] * 2]),
        position=torch.tensor([[[0.0, 0.0, 0.0], [0.0, 0.0, -1.0]]]),
        damping=torch.full((1, 2), damping),
    )

    def loss(x: Tensor, horizon: int) -> Tensor:
        rollout = ArticulatedRollout(DOUBLE, frame_rate=RATE, frame_count=horizon, substeps=SUBSTEPS, integrator="rk4")
        path = rollout(State(x, torch.full((1, 2), rate)), linkage)
        return (path.coordinates[:, -1] * torch.tensor(WEIGHTS)).sum(1)

    return loss


def accurate_gradient_norms(start: tuple[float, float], rate: float, seconds: np.ndarray) -> np.ndarray:
    """The same, by complex steps through an integration in double precision, absolute angles."""
    from scipy.integrate import solve_ivp

    def rates(y):
        a, b, u, v = y
        c, s = np.cos(a - b), np.sin(a - b)
        mass = np.array([[2.0 + 0j, c], [c, 1.0]])
        force = np.array([-2.0 * G * np.sin(a) - s * v * v, -G * np.sin(b) + s * u * u])
        return np.array([u, v, *np.linalg.solve(mass, force)])

    columns = []
    for j in range(2):
        y = np.array([start[0], start[0] + start[1], rate, 2.0 * rate], complex)
        y[j:2] += 1e-30j  # the second angle is relative to the first

        def real(t, z):
            d = rates(z[:4] + 1e-30j * z[4:])
            return np.concatenate([d.real, 1e30 * d.imag])

        z = solve_ivp(
            real, (0, seconds[-1]), np.concatenate([y.real, 1e30 * y.imag]), "DOP853", seconds, rtol=1e-11, atol=1e-12
        ).y
        columns.append((WEIGHTS[0] - WEIGHTS[1]) * z[4] + WEIGHTS[1] * z[5])
    return np.linalg.norm(columns, axis=0)


def test_growth_of_a_chaotic_double_pendulum():
    start, horizons = (2.9, 0.5), list(range(20, 141, 20))
    report = horizon_report(end_of_double_pendulum(0.0, 0.0), torch.tensor(start), horizons, interval=1.0 / RATE)
    count = horizons.index(report.useful) + 1
    assert count >= 5, format_report(report)
    exact = accurate_gradient_norms(start, 0.0, report.seconds[:count])
    np.testing.assert_allclose(report.norms()[:count], exact, rtol=0.02)
    slope = float(np.polyfit(report.seconds[:count], np.log(exact), 1)[0])
    assert report.growth.rate == pytest.approx(slope, rel=0.02) and 1.0 < slope < 2.5
    assert report.growth.kind == "exponential" and "Lyapunov" in summary(report)[1], format_report(report)


def test_decay_of_a_damped_double_pendulum():
    damping, horizons = 40.0, [100, 125, 150, 175]
    report = horizon_report(end_of_double_pendulum(damping, 0.0), torch.tensor([0.05, 0.03]), horizons, interval=1.0 / RATE)
    assert report.useful == horizons[-1] and "the longest one asked" in format_report(report)
    mass, spring = np.array([[5.0, 2.0], [2.0, 1.0]]), G * np.array([[3.0, 1.0], [1.0, 1.0]])
    flow = np.block([[np.zeros((2, 2)), np.eye(2)], [-np.linalg.solve(mass, spring), -damping * np.linalg.inv(mass)]])
    slowest = np.linalg.eigvals(flow).real.max()
    assert report.growth.kind == "exponential" and report.growth.rate == pytest.approx(slowest, rel=0.05)
    assert "no exponential growth" in summary(report)[1]


def test_exact_growth_and_the_horizon_at_which_differences_end():
    """sin(A e^t x): linear while A e^t is small; at the end no step of the differences is small enough."""

    def loss(x: Tensor, horizon: int) -> Tensor:
        return torch.sin(1e-3 * math.exp(0.5 * horizon) * x).sum(1) + 0.1

    report = horizon_report(loss, torch.tensor([0.3]), list(range(1, 13, 2)), interval=0.25)
    assert report.growth.kind == "exponential" and report.growth.rate == pytest.approx(2.0, rel=0.02)
    report = horizon_report(loss, torch.tensor([0.3]), list(range(1, 50, 4)), interval=0.25)
    assert report.useful is not None and 13 <= report.useful < 40
    assert verdict(report.rows[-1]).startswith(("not smooth", "disagree"))


@pytest.mark.parametrize(("wrong", "word"), [(0.0, "disagree"), (1.3, "disagree"), (math.nan, "not finite")])
def test_a_wrong_gradient_is_not_useful(wrong, word):
    class Faulty(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, horizon):
            ctx.horizon = horizon
            return (x * x).sum(1) * horizon

        @staticmethod
        def backward(ctx, g):
            factor = 1.0 if ctx.horizon < 3 else wrong
            return factor * 2.0 * ctx.horizon * g[:, None] * torch.tensor([[0.7, -0.2]]), None

    report = horizon_report(Faulty.apply, torch.tensor([0.7, -0.2]), [1, 2, 3, 4])
    assert report.useful == 2 and verdict(report.rows[2]).startswith(word)
    assert report.growth is None and "not fitted" in summary(report)[1]


def test_powers_are_not_taken_for_exponentials():
    t = np.arange(1.0, 9.0)
    assert fit_growth(t, 3.0 * t**2).kind == "power" and fit_growth(t, 3.0 * t**2).power == pytest.approx(2.0)
    exponential = fit_growth(t, 0.1 * np.exp(0.7 * t))
    assert exponential.kind == "exponential" and exponential.rate == pytest.approx(0.7) and exponential.rate_error < 1e-9
    np.testing.assert_allclose(exponential.norm(t), 0.1 * np.exp(0.7 * t))
    assert fit_growth(t[:3], t[:3]) is None and fit_growth(t, np.zeros(8)) is None


class Fall(nn.Module):
    def forward(self, speed, gravity, frames: int):
        t = torch.arange(1, frames + 1) / 30.0
        return speed[:, None] * t - 0.5 * gravity[:, None] * t * t


def fall() -> Pipeline:
    stages = {"speed": Parameter(1.0), "gravity": Parameter(9.0, 1.0, 20.0), "r": Fall()}
    return Pipeline(stages, {"r": {"speed": "speed", "gravity": "gravity", "frames": "$horizon"}})


def test_pipelines_and_files(tmp_path):
    report = pipeline_report(fall(), Objective({"r": Term("r")}), {}, [4, 8, 16, 32, 64], interval=1.0 / 30.0)
    assert report.labels == ["speed", "gravity"] and report.useful == 64 and report.growth.kind == "power"
    text = format_report(report)
    assert text.splitlines()[-2].startswith("useful horizon: 64 (2.133 s)") and "like a power of the time" in text
    table, plot = save_report(report, tmp_path / "new")
    rows = list(csv.DictReader(table.open()))
    assert (
        len(rows) == 10 and {r["verdict"] for r in rows} == {"agree"} and {r["parameter"] for r in rows} == {"speed", "gravity"}
    )
    assert float(rows[-2]["gradient"]) == pytest.approx(report.rows[-1][0].analytic)
    assert plot.read_bytes().startswith(b"\x89PNG") and plot.stat().st_size > 5000
    only = pipeline_report(fall(), Objective({"r": Term("r")}), {}, [4, 8], train=["gravity"])
    assert only.labels == ["gravity"]
    assert spread_horizons(200)[-1] == 200 and spread_horizons(3) == [1, 2, 3] and spread_horizons(1) == [1]


def quadratic(x: Tensor, horizon: int) -> Tensor:
    return (x * x).sum(1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"horizons": []}, "horizons: expected rising whole numbers"),
        ({"horizons": [4, 2]}, "horizons: expected rising whole numbers"),
        ({"horizons": [0, 2]}, "horizons: expected rising whole numbers"),
        ({"interval": 0.0}, "interval: expected"),
        ({"steps": (1e-3, 1e-2, 1e-1)}, "steps: expected at least three falling"),
        ({"x": torch.zeros(1, 2)}, r"x: expected shape \(size,\)"),
        ({"labels": ["a"]}, "labels: expected 2, got 1"),
        ({"loss": lambda x, h: x}, r"loss: expected shape \(world,\), got \(1, 2\)"),
        ({"loss": lambda x, h: quadratic(x, h) * math.nan}, "loss: expected a finite number at horizon 1"),
    ],
)
def test_what_is_refused(change, message):
    settings = {"loss": quadratic, "x": torch.ones(2), "horizons": [1, 2], **change}
    with pytest.raises(UserError, match=message):
        horizon_report(settings.pop("loss"), settings.pop("x"), settings.pop("horizons"), **settings)


def test_a_pipeline_without_that_context_is_refused():
    with pytest.raises(UserError, match=r"no stage is wired to \$frames; context values: horizon"):
        pipeline_report(fall(), Objective({"r": Term("r")}), {"horizon": 3}, [1, 2], name="frames")
