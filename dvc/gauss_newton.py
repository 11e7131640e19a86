r"""Gauss-Newton with trust region, over the world axis: gradient by reverse mode, curvature by one-sided differences.

    (A + lambda diag A) delta = -g,     A = J^T W J + priors

g is the gradient of the loss through the tape, so the stationary point is the tape's; A only shapes the way there. Each
world has its own lambda, and accepts a step only if its own loss falls (Levenberg 1944, Marquardt 1963).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from dvc.jvp import Evaluate, jacobians_of
from dvc.losses import Objective, influence

LARGEST_DAMPING = 1e7
AGED = 0.99  # a curvature serves until the loss has fallen below this part of what it was there


class GaussNewtonState(NamedTuple):
    """What must be kept between steps (and in a checkpoint). One row a world."""

    damping: Tensor  # lambda, (world,)
    curvature: Tensor  # A, (world, size, size)
    step: Tensor  # finite-difference steps, (world, size)
    stalled: Tensor  # steps in a row without progress, int32 (world,)
    measured: Tensor  # loss where the curvature was measured; infinite where it is to be measured anew, (world,)


def start_state(worlds: int, size: int) -> GaussNewtonState:
    """Before the first step."""
    return GaussNewtonState(
        torch.full((worlds,), 1e-2),
        torch.zeros(worlds, size, size),
        torch.full((worlds, size), 1e-3),
        torch.zeros(worlds, dtype=torch.int32),
        torch.full((worlds,), torch.inf),
    )


def residual_weights(objective: Objective, values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Square roots of the weights of every residual, at the current point."""
    return {t.residual: torch.sqrt(t.weight * influence(values[t.residual], t.robust)) for t in objective.terms.values()}


def prior_curvature(prior: Callable[[Tensor], Tensor | None], x: Tensor) -> Tensor:
    """J^T J of the prior residuals at x (size,)."""
    size = len(x)
    eye = 1e-3 * torch.eye(size)
    priors = prior(torch.cat([x + eye, x - eye]))
    if priors is None:
        return torch.zeros(size, size)
    jacobian = (priors[:size] - priors[size:]) / 2e-3
    return jacobian @ jacobian.T


def curvature_at(
    evaluate: Evaluate,
    objective: Objective,
    x: Tensor,
    step: Tensor,
    active: Tensor,
    prior: Callable[[Tensor], Tensor | None],
    worlds_at_once: int,
) -> Tensor:
    """A at one point x (size,), without damping; rows of numbers that are not `active` hold the priors only."""
    values = evaluate(x[None])
    weights = residual_weights(objective, values)
    moving = torch.nonzero(active)[:, 0]
    jacobians = jacobians_of(evaluate, x, torch.eye(len(x))[moving], step[moving], worlds_at_once, at_base=values)
    total = prior_curvature(prior, x)
    for name, weight in weights.items():
        rows = jacobians[name].rows * weight.flatten()[jacobians[name].columns]
        total[moving[:, None], moving] += rows @ rows.T
    return total


def adapted_step(curvature: Tensor, largest: float = 1e-2, smallest: float = 1e-5, target: float = 0.3) -> Tensor:
    """Difference steps that move the residual vector by about `target`: far above rounding, far below the noise."""
    return (target / torch.sqrt(torch.diagonal(curvature, dim1=-2, dim2=-1).clamp(min=1e-12))).clamp(smallest, largest)


def due(state: GaussNewtonState, loss: Tensor) -> Tensor:
    """Worlds whose curvature no longer serves: the loss has fallen by a hundredth since, or it
    misjudged the last step (world,)."""
    return torch.isinf(state.measured) | (loss < AGED * state.measured)


def proposal(state: GaussNewtonState, gradient: Tensor, active: Tensor) -> Tensor:
    """Steps delta (world, size); numbers that are not `active` (size,) stay."""
    a = state.curvature.double()
    diagonal = torch.diagonal(a, dim1=-2, dim2=-1)
    floor = 1e-9 * diagonal.amax(-1, keepdim=True) + 1e-12
    damped = a + torch.diag_embed(state.damping.double()[:, None] * (diagonal + floor) + floor)
    mask = active.double()
    damped = damped * mask[:, None] * mask[None, :] + torch.diag_embed((1.0 - mask).expand(len(a), -1))
    delta = -torch.linalg.solve(damped, (gradient.double() * mask)[..., None])[..., 0]
    # one unit of an unbounded number is a large part of its range: no step is longer
    delta = delta / torch.clamp(delta.abs().amax(-1, keepdim=True), min=1.0)
    return delta.float()


def predicted_decrease(state: GaussNewtonState, gradient: Tensor, delta: Tensor) -> Tensor:
    """What the quadratic model promises of a step delta (world, size): -(g . delta + delta . A delta / 2), (world,)."""
    d, g, a = delta.double(), gradient.double(), state.curvature.double()
    return -((g * d).sum(-1) + 0.5 * torch.einsum("wi,wij,wj->w", d, a, d)).float()


def updated(state: GaussNewtonState, accepted: Tensor, gain: Tensor, progress: Tensor) -> GaussNewtonState:
    """Damping after a step: by its gain, the decrease over what was promised (Nielsen 1999, with a steeper fall), heavier
    where it was not accepted. `progress` (world,) counts as moving."""
    factor = torch.where(gain > 0.75, 0.04, torch.where(gain > 0.25, 0.3, 2.0))
    damping = (state.damping * torch.where(accepted, factor, torch.full_like(factor, 5.0))).clamp(1e-9, LARGEST_DAMPING)
    stalled = torch.where(accepted & progress, torch.zeros_like(state.stalled), state.stalled + 1)
    measured = torch.where(accepted & (gain > 0.25), state.measured, torch.full_like(state.measured, torch.inf))
    return state._replace(damping=damping, stalled=stalled, measured=measured)
