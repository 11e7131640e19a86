r"""How well the data determine each parameter.

Near the answer the residuals are linear in the unbounded parameters, r = r0 + J d. With the weights W of the robust
penalty and the priors P (their J^T J), the curvature is A = sym(J_a^T W J_b) + P. J_a and J_b come from two independent
seeds: Monte Carlo noise in one J would enter A as its square and make every interval too narrow.

Pixel residuals are correlated, within a frame and from frame to frame, so their number says nothing. The covariance is
the sandwich A^-1 (B + P) A^-1, clustered by segments of the clip (Liang and Zeger 1986): B = sum_c g_c g_c^T with the
score g_c = sum_{i in c} J_i W_i r_i. Few clusters bias B downwards, by the clusters' own leverage: g_c is taken with the
residuals of a fit that did not see c, r_c -> (1 - H_c)^-1 r_c, which in score space is g_c -> (1 - A_c A^-1)^-1 g_c
(the jackknife; Bell and McCaffrey 2002, CR3). Quantiles are Student's t with clusters - 1 degrees of freedom.

Intervals hold in the linearised, unbounded space and are carried through the bijection, so they never leave the bounds.
What they do not cover: errors of the model that are the same in every segment.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dvc.errors import UserError
from dvc.gauss_newton import adapted_step, prior_curvature, residual_weights
from dvc.jvp import Evaluate, Jacobian, evaluator, jacobians_of, jvp_of
from dvc.losses import Objective, prior_residuals
from dvc.parameter_vector import ParameterVector
from dvc.pipeline import Pipeline

T_QUANTILE = {1: 12.71, 2: 4.30, 3: 3.18, 4: 2.78, 5: 2.57, 6: 2.45, 7: 2.36, 8: 2.31, 9: 2.26, 10: 2.23, 12: 2.18, 15: 2.13,
              20: 2.09, 30: 2.04, 60: 2.00, 10**9: 1.96}  # fmt: skip
WEAK_SHARE = 0.5  # weak: the prior holds more than this share of the parameter's information
LONE_SHARE = 0.9  # weak too: one segment holds more than this share of it
VAGUE = 1e-6  # precision of a prior on every unbounded number, so that one on which nothing depends is weak, not an error


class Uncertainty(NamedTuple):
    """Covariance of the unbounded parameters, and what was seen on the way."""

    covariance: Tensor  # (size, size)
    quantile: float  # of Student's t, 97.5 %
    weak: Tensor  # bool (size,): mostly known from its prior, or from a single segment
    effective_samples: float  # residuals that would tell as much if they were independent
    residual_count: int
    clusters: int
    step: Tensor  # difference steps that were used, (size,)
    told: Tensor  # A^-1 X A^-1 for X the information of each segment, then that of the priors: (clusters + 1, size, size)


def weakly_told(told: Tensor, direction: Tensor) -> Tensor:
    """Whether a linear combination of the parameters, `direction` (size, n), is mostly known from the priors or from a
    single segment: its variance is split over them. (n,)"""
    shares = torch.einsum("pi,cpq,qi->ci", direction, told, direction).clamp(min=0.0)
    shares = shares / shares.sum(0).clamp(min=1e-30)
    return (shares[-1] > WEAK_SHARE) | (shares[:-1].amax(0) > LONE_SHARE)


def t_quantile(degrees: int) -> float:
    """97.5 % quantile of Student's t (table, next smaller number of degrees of freedom)."""
    return T_QUANTILE[max(k for k in T_QUANTILE if k <= max(1, degrees))]


class _Half(NamedTuple):
    """What one seed says of one term."""

    jacobian: Jacobian  # weighted
    residual: Tensor  # weighted, flat


def _half(evaluate: Evaluate, objective: Objective, x: Tensor, step: Tensor, frames: int, worlds_at_once: int) -> list[_Half]:
    """Weighted Jacobians and residuals of every term."""
    base = evaluate(x[None])
    weights = residual_weights(objective, base)
    jacobians = jacobians_of(evaluate, x, torch.eye(len(x)), step, worlds_at_once)
    halves = []
    for name, weight in weights.items():
        r = base[name]
        if r.dim() < 2 or r.shape[1] != frames:
            raise UserError(
                f"uncertainty: residual {name!r} has shape {tuple(r.shape)}; expected (world, {frames} frames, ...)"
            )
        columns, rows = jacobians.pop(name)
        rows *= weight.flatten()[columns]
        halves.append(_Half(Jacobian(columns, rows), (r * weight).flatten()))
    return halves


def _rough(pipeline: Pipeline, vector: ParameterVector, objective: Objective, x: Tensor, step: Tensor, frames: int,
           context: Mapping[str, Any], worlds_at_once: int) -> list[_Half]:  # fmt: skip
    """A first Jacobian that only sets the size of difference steps; a part of the clip is enough, where it has a horizon."""
    if "horizon" in context:
        frames = max(min(frames, 8), frames // 4)
        context = {**context, "horizon": frames}
    return _half(evaluator(pipeline, vector, objective.outputs, context), objective, x, step, frames, worlds_at_once)


def _without_negative(data: Tensor, prior: Tensor) -> Tensor:
    """The nearest matrix without negative information: two seeds' noise can leave some along what is not determined."""
    scale = torch.sqrt(torch.diagonal(data + prior).clamp(min=VAGUE))
    values, axes = torch.linalg.eigh(data / scale[:, None] / scale)
    return (axes * values.clamp(min=0.0)) @ axes.T * scale[:, None] * scale


def _unseen(own: Tensor, turn: Tensor, scores: Tensor) -> Tensor:
    """(1 - H_c)^-1 g_c for every segment; a leverage of one, where only c tells, is held just below it."""
    turned = torch.einsum("cij,ci->cj", turn, scores) / (1.0 - own.clamp(max=0.98))
    return torch.einsum("cij,cj->ci", turn, turned)


def estimate(
    pipeline: Pipeline,
    objective: Objective,
    x: Tensor,
    clusters: Sequence[int] | Tensor,
    *,
    context: Mapping[str, Any],
    seeds: tuple[int, int] = (1, 2),
    worlds_at_once: int = 16,
) -> Uncertainty:
    """Covariance at the answer x (size,).

    Arguments: clusters: for each frame, the number of its segment; context: what the objective was evaluated in; its
        "seed" is replaced by each of `seeds`.
    Raises: UserError for fewer than three clusters, or a residual without a frame axis.
    """
    vector = ParameterVector(pipeline)
    segments, labels = torch.unique(torch.as_tensor(clusters), return_inverse=True)
    count = len(segments)
    if count < 3:
        raise UserError(f"uncertainty: expected at least 3 segments, got {count}; remedy: a longer window or shorter segments")

    def priors(v: Tensor) -> Tensor | None:
        return prior_residuals(pipeline, vector.split(v))

    step = torch.full((vector.size,), 1e-3)
    halves = []
    for i, seed in enumerate(seeds):
        evaluate = evaluator(pipeline, vector, objective.outputs, {**context, "seed": seed})
        if i == 0:
            rough = _rough(pipeline, vector, objective, x, step, len(labels), {**context, "seed": seed}, worlds_at_once)
            step = adapted_step(
                sum((h.jacobian.rows @ h.jacobian.rows.T for h in rough), torch.zeros(vector.size, vector.size))
            )
            del rough
        halves.append(_half(evaluate, objective, x, step, len(labels), worlds_at_once))
    size = vector.size
    prior = prior_curvature(priors, x).double() + VAGUE * torch.eye(size, dtype=torch.float64)
    parts = torch.zeros(count, size, size, dtype=torch.float64)
    scores = torch.zeros(count, size, dtype=torch.float64)
    for one, two in zip(*halves, strict=True):
        columns = torch.unique(torch.cat([one.jacobian.columns, two.jacobian.columns]))
        segment = labels[columns // (len(one.residual) // len(labels))]
        for c in range(count):
            inside = columns[segment == c]
            fa, fb = one.jacobian.on(inside), two.jacobian.on(inside)
            cross = (fa @ fb.T).double()
            parts[c] += 0.5 * (cross + cross.T)
            # the residual of one seed against the Jacobian of the other
            scores[c] += 0.5 * (fa @ two.residual[inside] + fb @ one.residual[inside]).double()
    data = _without_negative(parts.sum(0), prior)
    inverse = torch.linalg.inv(data + prior)
    spectrum, axes = torch.linalg.eigh(inverse)
    root = axes * torch.sqrt(spectrum.clamp(min=1e-30))  # inverse = root root^T
    own, turn = torch.linalg.eigh(root.T @ parts @ root)  # leverage of each segment, in [0, 1]
    left_out = torch.linalg.solve(root.T, _unseen(own, turn, scores @ root).T).T
    mean = left_out.mean(0)
    spread = (left_out - mean).T @ (left_out - mean) * (count - 1) / count
    covariance = inverse @ (spread + prior) @ inverse
    residuals = [half.residual for half in halves[0]]
    residual_count = sum(r.numel() for r in residuals)
    variance = sum(float((r * r).sum()) for r in residuals) / max(1, residual_count - size)
    independent = variance * (inverse @ data @ inverse)
    told = inverse @ torch.cat([parts, prior[None]]) @ inverse
    # what a single segment tells has no spread between segments: weak, and no narrower than if samples were independent
    variances = torch.diagonal(inverse)
    lone = (torch.diagonal(told[:-1], dim1=1, dim2=2) / variances).amax(0) > LONE_SHARE
    widen = torch.sqrt((torch.diagonal(independent) / torch.diagonal(covariance).clamp(min=1e-30)).clamp(min=1.0))
    widen = torch.where(lone, widen, torch.ones_like(widen))
    covariance = widen[:, None] * covariance * widen
    shrink = torch.diagonal(independent) / torch.diagonal(inverse @ spread @ inverse).clamp(min=1e-30)
    weak = weakly_told(told, torch.eye(size, dtype=torch.float64))
    return Uncertainty(
        covariance.float(), t_quantile(count - 1), weak, residual_count * float(shrink.median()), residual_count, count, step,
        told.float(),
    )  # fmt: skip


def intervals(vector: ParameterVector, x: Tensor, result: Uncertainty) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """name -> (value, low, high), each of the parameter's shape: 95 %, in physical units."""
    half = result.quantile * torch.sqrt(torch.diagonal(result.covariance).clamp(min=0.0))
    for name, parameter in vector.parameters.items():
        if parameter.lower is not None or parameter.upper is not None:  # 60 reaches the bounds; more would overflow
            half[vector.slices[name]] = half[vector.slices[name]].clamp(max=60.0)
    values, lows, highs = (vector.values(v[None]) for v in (x, x - half, x + half))
    return {
        n: (values[n][0], torch.minimum(lows[n][0], highs[n][0]), torch.maximum(lows[n][0], highs[n][0])) for n in vector.names
    }


def derived_interval(
    pipeline: Pipeline,
    vector: ParameterVector,
    x: Tensor,
    result: Uncertainty,
    outputs: Sequence[str],
    context: Mapping[str, Any],
    worlds_at_once: int = 16,
) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """output -> (value, half-width of its 95 % interval by the delta method, whether it is weak), for numbers a world."""
    evaluate = evaluator(pipeline, vector, outputs, context)
    base = evaluate(x[None])
    gradient = jvp_of(evaluate, x, torch.eye(vector.size), result.step, worlds_at_once)
    found = {}
    for name in outputs:
        g = gradient[name].reshape(vector.size, -1)
        half = result.quantile * torch.sqrt(torch.einsum("pi,pq,qi->i", g, result.covariance, g).clamp(min=0.0))
        found[name] = (base[name][0], half.reshape(base[name][0].shape), weakly_told(result.told, g))
    return found
