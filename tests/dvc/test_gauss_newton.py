"""Gauss-Newton: convergence, trust regions that do not see one another, and proposals that stay finite."""

import pytest
import torch
from torch import nn

from dvc import Parameter, Pipeline
from dvc.descent import GaussNewtonDescent, Problem
from dvc.gauss_newton import GaussNewtonState, adapted_step, curvature_at, proposal, start_state
from dvc.losses import Objective, Term
from dvc.parameter_vector import ParameterVector


class Rosenbrock(nn.Module):
    """Residuals (10 (b - a^2), 1 - a); NaN where a is above `cliff`."""

    def __init__(self, cliff: float = torch.inf):
        super().__init__()
        self.cliff = cliff

    def forward(self, a, b, c=None):
        r = torch.stack([10.0 * (b - a * a), 1.0 - a], dim=1)
        r = torch.where(a[:, None] > self.cliff, torch.full_like(r, torch.nan), r)
        return r if c is None else torch.cat([r, (c - 3.0 + a)[:, None]], dim=1)


def problem_of(cliff: float = torch.inf, three: bool = False) -> Problem:
    stages = {"a": Parameter(-1.2), "b": Parameter(1.0), "r": Rosenbrock(cliff)}
    wiring = {"r": {"a": "a", "b": "b"}}
    if three:
        stages["c"] = Parameter(0.0)
        wiring["r"]["c"] = "c"
    pipeline = Pipeline(stages, wiring)
    return Problem(pipeline, Objective({"r": Term("r")}), ParameterVector(pipeline), {})


def descend(problem: Problem, x: torch.Tensor, active: torch.Tensor | None = None, steps: int = 60):
    active = torch.ones(problem.vector.size) if active is None else active
    alive = torch.ones(len(x), dtype=torch.bool)
    descent = GaussNewtonDescent(problem, len(x), active, refresh=1, tolerance=1e-6)
    losses = []
    for _ in range(steps):
        step, alive = descent.step(x, alive)
        x = step.x
        losses.append(step.loss)
        if step.done:
            break
    return x, torch.stack(losses), alive


def test_rosenbrock_from_several_starts():
    problem = problem_of()
    starts = torch.tensor([[0.0, 0.0], [2.0, 3.0], [-1.0, -4.0], [3.2, 5.0]])  # raw: value - first guess
    x, losses, alive = descend(problem, starts)
    values = problem.vector.values(x)
    assert alive.all() and losses[-1].max() < 1e-6
    assert torch.allclose(values["a"], torch.ones(4), atol=2e-3) and torch.allclose(values["b"], torch.ones(4), atol=4e-3)
    assert (losses[1:] <= losses[:-1]).all()  # no world ever climbs


def test_the_answer_of_a_world_does_not_depend_on_its_neighbours():
    starts = torch.tensor([[0.0, 0.0], [2.0, 3.0], [3.2, 5.0]])
    together, _, _ = descend(problem_of(), starts, steps=4)
    alone = torch.cat([descend(problem_of(), s[None], steps=4)[0] for s in starts])
    assert torch.allclose(together, alone, atol=1e-4)


def test_a_bad_world_does_not_stop_the_others():
    starts = torch.tensor([[0.0, 0.0], [9.0, 0.0], [2.0, 3.0]])  # the second begins beyond the cliff: a = 7.8
    x, losses, alive = descend(problem_of(cliff=5.0), starts)
    assert alive.tolist() == [True, False, True]
    assert losses[-1][[0, 2]].max() < 1e-6 and torch.isfinite(x).all()


def test_steps_over_the_cliff_are_refused():
    _, losses, alive = descend(problem_of(cliff=1.05), torch.tensor([[0.0, 0.0]]), steps=80)
    assert alive.all() and torch.isfinite(losses).all() and losses[-1].max() < 1e-4


def test_inactive_numbers_do_not_move_not_even_through_the_coupling():
    problem = problem_of(three=True)
    start = torch.tensor([[0.3, 0.2, 0.7]])
    x, losses, _ = descend(problem, start.clone(), torch.tensor([1.0, 0.0, 1.0]))
    assert x[0, 1].item() == start[0, 1].item() and x[0, 0] != start[0, 0] and x[0, 2] != start[0, 2]
    # and what moves goes to the minimum with the rest held, as if it were not there
    b = problem.vector.values(x)["b"].item()
    a = torch.linspace(-2, 2, 400001, dtype=torch.float64)
    best = 0.5 * (100.0 * (b - a * a) ** 2 + (1.0 - a) ** 2)
    assert losses[-1].item() == pytest.approx(float(best[a < 0].min()), rel=1e-3) or losses[-1].item() == pytest.approx(
        float(best.min()), rel=1e-3
    )


def state(curvature: torch.Tensor, damping: float = 1e-2) -> GaussNewtonState:
    return start_state(len(curvature), curvature.shape[-1])._replace(
        curvature=curvature, damping=torch.full((len(curvature),), damping)
    )


def test_a_proposal_is_the_newton_step_where_nothing_is_damped():
    a = torch.tensor([[[4.0, 1.0], [1.0, 3.0]]])
    g = torch.tensor([[0.4, -0.2]])
    delta = proposal(state(a, 1e-9), g, torch.ones(2))
    assert torch.allclose(delta[0], -torch.linalg.solve(a[0], g[0]), atol=1e-6)
    masked = proposal(state(a, 1e-9), g, torch.tensor([1.0, 0.0]))
    assert masked[0].tolist() == pytest.approx([-0.1, 0.0], abs=1e-6)


@pytest.mark.parametrize("damping", [1e-9, 1e-2, 1e7])
def test_a_proposal_is_finite_with_zero_curvature(damping):
    rows = torch.tensor([[[4.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]])
    delta = proposal(state(rows, damping), torch.tensor([[1.0, 1.0], [1e20, 0.0], [1.0, -1.0]]), torch.ones(2))
    assert torch.isfinite(delta).all() and delta.abs().max() <= 1.0 + 1e-6


def test_curvature_holds_robust_weights_and_priors():
    pipeline = Pipeline(
        {"a": Parameter(0.0, prior_std=0.5), "b": Parameter(1.0), "r": Rosenbrock()}, {"r": {"a": "a", "b": "b"}}
    )
    vector = ParameterVector(pipeline)
    problem = Problem(pipeline, Objective({"r": Term("r", robust=2.0, weight=0.3)}), vector, {})
    x = torch.tensor([0.4, -0.5])
    a, b = 0.4, 0.5
    residual = torch.tensor([10.0 * (b - a * a), 1.0 - a])
    jacobian = torch.tensor([[-20.0 * a, 10.0], [-1.0, 0.0]])
    weight = 0.3 / torch.sqrt(1.0 + (residual / 2.0) ** 2)
    expected = jacobian.T @ torch.diag(weight) @ jacobian + torch.tensor([[4.0, 0.0], [0.0, 0.0]])
    found = curvature_at(problem.evaluate, problem.objective, x, torch.full((2,), 1e-3), torch.ones(2), problem.priors, 16)
    assert torch.allclose(found, expected, rtol=5e-3, atol=5e-3)
    half = curvature_at(
        problem.evaluate, problem.objective, x, torch.full((2,), 1e-3), torch.tensor([0.0, 1.0]), problem.priors, 16
    )
    assert half[0].tolist() == pytest.approx([4.0, 0.0], rel=1e-2) and half[1, 1].item() == pytest.approx(
        expected[1, 1].item(), rel=5e-3
    )


def test_difference_steps_are_within_their_limits():
    steps = adapted_step(torch.diag(torch.tensor([0.0, 1e4, 1e12])))
    assert steps.tolist() == pytest.approx([1e-2, 3e-3, 1e-5])
