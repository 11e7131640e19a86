r"""Gauss and Newton's method, and intervals, where residuals are Monte Carlo pictures.

Differences of sampled pictures are useless as derivatives: a sample that crosses an edge jumps by its whole colour, and the
smaller the step the rarer and the larger the jumps in the quotient. So the Jacobian J here is that of the renderer's forward
mode (`PathRender.derivative`), edges included, drawn with seeds of its own. Every step has new seeds:

    (A + lambda diag) delta = -g,     A = sym(J_a^T J_b) + P,     g by reverse mode through the whole graph, P of the priors,

and is taken if the loss, seen with the same seed before and after, falls. The damping follows `dvc.gauss_newton`.

J_a and J_b have seeds of their own: the noise of one would enter A as its square, and stiffen what is hardly determined.
All columns of one J have the same seed: along a direction that hardly moves the picture their noise then cancels as they do.

The covariance is that of `dvc.uncertainty`, A^-1 (B + P) A^-1, where B is the sum of outer products of the scores of clusters
(tiles or frames), residuals and Jacobians again of different seeds.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dvc.descent import Problem
from dvc.errors import UserError
from dvc.gauss_newton import prior_curvature
from dvc.optimize import Phase
from dvc.parameter_vector import ParameterVector
from dvc.uncertainty import Uncertainty, t_quantile, weakly_told

Columns = Callable[[Tensor, int], Tensor]  # x (size,), seed -> J as rows (size, cluster, value)
LEAST = 1e-7  # curvature along a direction, of that of its numbers
SEEDS_APART = 97  # between the seeds of one step


def check_newton(phases: Sequence[Phase]) -> None:
    """Raises: UserError for what `descend` would not look at: of a phase it takes name, steps, train and context."""
    plain = Phase()
    for phase in phases:
        for name in ("optimizer", "terms", "weights", "refresh", "worlds_at_once", "tolerance", "survivors", "gradient"):
            if getattr(phase, name) != getattr(plain, name):
                raise UserError(
                    f"phase {phase.name!r}: {name} is not looked at here, where pictures are noisy; remedy: leave it out, "
                    "name, steps, train and context are"
                )


def active_numbers(vector: ParameterVector, phase: Phase) -> Tensor:
    """1 for the unbounded numbers that a phase moves, (size,)."""
    active = torch.zeros(vector.size)
    for name in vector.names if phase.train is None else phase.train:
        active[vector.slices[name]] = 1.0
    return active


def descend(
    problem_at: Callable[[int], Problem],
    columns: Columns,
    x: Tensor,
    active: Tensor,
    steps: int,
    first_seed: int,
    on_step: Callable[[Tensor, float], None],
    tolerance: float = 1e-4,
) -> tuple[Tensor, float]:
    """Steps from x (size,); numbers that are not `active` (size,) stay. Returns x and its loss with the last seed.

    Arguments: problem_at(seed): loss and gradient; on_step(x, loss). Ends early after three steps that gain less than
        `tolerance` of the loss.
    Raises: UserError where the loss or its gradient is not finite.
    """
    damping, stalled, value = 1e-2, 0, float("nan")
    for k in range(steps):
        seed = first_seed + k * SEEDS_APART
        problem = problem_at(seed)
        loss, gradient, good = problem.gradient(x[None], torch.ones(1, dtype=torch.bool))
        if not bool(good.all()):
            raise UserError("descent: expected a finite loss and gradient, got others; remedy: bounds, first guesses")
        one, two = (columns(x, seed + 1 + i).flatten(1).double() for i in range(2))
        a = _positive(0.5 * (one @ two.T + two @ one.T) + prior_curvature(problem.priors, x).double())
        mask = active.double()
        value, accepted = float(loss), False
        for _ in range(6):
            diagonal = torch.diagonal(a)
            damped = a + torch.diag(damping * diagonal + 1e-9 * diagonal.max() + 1e-12)
            damped = damped * mask[:, None] * mask + torch.diag(1.0 - mask)
            delta = -torch.linalg.solve(damped, gradient[0].double() * mask)
            delta = (delta / delta.abs().max().clamp(min=1.0)).float()
            trial = float(problem.loss_only((x + delta)[None]))
            if trial < value:
                promised = -float(gradient[0].double() @ delta.double() + 0.5 * delta.double() @ a @ delta.double())
                gain = (value - trial) / max(promised, 1e-12)
                damping = max(1e-6, damping * (0.1 if gain > 0.5 else 1.0 if gain > 0.2 else 2.0))
                stalled = stalled + 1 if value - trial < tolerance * value else 0
                x, value, accepted = x + delta, trial, True
                break
            damping = min(1e6, 5.0 * damping)
        stalled = stalled if accepted else stalled + 1
        on_step(x, value)
        if stalled >= 3:
            break
    return x, value


def _positive(a: Tensor) -> Tensor:
    """The nearest matrix, in the scale of its diagonal, without negative or vanishing directions."""
    scale = torch.sqrt(torch.diagonal(a).clamp(min=1e-12))
    spectrum, axes = torch.linalg.eigh(a / scale[:, None] / scale)
    return (axes * spectrum.clamp(min=LEAST)) @ axes.T * scale[:, None] * scale


def rendered_uncertainty(
    problem_at: Callable[[int], Problem], output: str, columns: Columns, x: Tensor, seeds: tuple[int, int]
) -> Uncertainty:
    """Covariance at the answer x (size,), clusters those of the residual `output` (world, cluster, value). See the module."""
    with torch.no_grad():
        residuals = [problem_at(seed).evaluate(x[None])[output][0].double() for seed in seeds]
    one, two = (columns(x, seed + 1).double() for seed in seeds)
    count, size = one.shape[1], len(x)
    if count < 3:
        raise UserError(f"uncertainty: expected at least 3 clusters, got {count}; remedy: more frames or tiles")
    prior = prior_curvature(problem_at(seeds[0]).priors, x).double() + 1e-6 * torch.eye(size).double()
    cross = torch.einsum("pcv,qcv->cpq", one, two)
    parts = 0.5 * (cross + cross.transpose(1, 2))
    scores = 0.5 * (torch.einsum("pcv,cv->cp", one, residuals[1]) + torch.einsum("pcv,cv->cp", two, residuals[0]))
    inverse = torch.linalg.inv(_positive(parts.sum(0) + prior))
    centred = scores - scores.mean(0)
    spread = centred.T @ centred * count / (count - 1)
    covariance = inverse @ (spread + prior) @ inverse
    number = residuals[0].numel()
    variance = float(residuals[0].square().sum()) / max(1, number - size)
    independent = variance * torch.diagonal(inverse @ parts.sum(0) @ inverse)
    told = inverse @ torch.cat([parts, prior[None]]) @ inverse
    weak = weakly_told(told, torch.eye(size, dtype=torch.float64))
    shrink = independent / torch.diagonal(covariance).clamp(min=1e-30)
    return Uncertainty(
        covariance.float(), t_quantile(count - 1), weak, number * float(shrink.median()), number, count, torch.zeros(size),
        told.float(),
    )  # fmt: skip
