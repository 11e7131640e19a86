"""Residuals between pictures, robust penalties, and the objective that sums them.

An objective is a sum of terms, each `sum_i rho(r_i)` over a residual r that some stage returns, in units of its expected
error. Least-squares form is kept throughout, because curvature (J^T W J) and uncertainty are built from it.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import warp as wp
from torch import Tensor, nn

from dvc.errors import UserError
from dvc.pipeline import Pipeline
from dvc.records import Frames
from dvc.warp_op import scratch, warp_op

# luminance, red-green and yellow-blue, each of unit length
OPPONENT = ((0.57735, 0.57735, 0.57735), (0.70711, -0.70711, 0.0), (0.40825, 0.40825, -0.81650))


@wp.kernel
def opponent_difference(
    model: wp.array3d(dtype=wp.vec3),
    frame: wp.array(dtype=int),
    observed: wp.array3d(dtype=wp.vec3),
    transform: wp.array(dtype=wp.mat33),
    residual: wp.array3d(dtype=wp.vec3),
):
    v, y, x = wp.tid()
    residual[v, y, x] = transform[0] * (model[v, y, x] - observed[frame[v], y, x])


@warp_op(shared=("observed", "transform"), threads=None, trace_limit=48)
def pixel_difference(
    model: wp.array3d(dtype=wp.vec3),
    frame: wp.array(dtype=int),
    observed: wp.array3d(dtype=wp.vec3),
    transform: wp.array(dtype=wp.mat33),
):
    """transform (model - observed[frame]) for views (view, row, column); every world sees the same observed frames."""
    residual = scratch(model.shape, wp.vec3)
    wp.launch(opponent_difference, model.shape, [model, frame, observed, transform], [residual])
    return residual


class PixelResidual(nn.Module):
    """(model - observed) in opponent colours, over the expected error.

    Arguments: weights: of luminance, red-green and yellow-blue. Shadows and white things change the luminance alone, so
        a small first weight looks past them. sigma: expected error of a pixel value, in units of the clip's [0, 1].
    Forward: model, observed: Frames -> (world, frame, row, column, channel).
    """

    def __init__(self, weights: Sequence[float] = (1.0, 1.0, 1.0), sigma: float = 0.02):
        super().__init__()
        if len(weights) != 3 or not all(0 <= w < math.inf for w in weights) or not any(weights) or not 0 < sigma < math.inf:
            raise UserError(
                f"PixelResidual: expected three weights from 0, one above, and sigma > 0, got {list(weights)} and {sigma}"
            )
        rows = torch.tensor(OPPONENT) * torch.tensor([float(w) for w in weights])[:, None] / float(sigma)
        self.register_buffer("transform", rows[None].contiguous(), persistent=False)

    def forward(self, model: Frames, observed: Frames) -> Tensor:
        if observed.images.shape[0] != 1:
            raise UserError(f"PixelResidual: expected one world of observed frames, got {observed.images.shape[0]}")
        if model.images.shape[1:] != observed.images.shape[1:]:
            shapes = f"{tuple(model.images.shape)} and {tuple(observed.images.shape)}"
            raise UserError(f"PixelResidual: expected frames of one shape, got {shapes}")
        worlds, frames = model.images.shape[:2]
        index = torch.arange(frames, dtype=torch.int32, device=model.images.device).repeat(worlds)
        views = pixel_difference(model.images.flatten(0, 1), index, observed.images[0], self.transform)
        return views.unflatten(0, (worlds, frames))


class MomentResidual(nn.Module):
    """Where the coloured thing is, from first moments of what differs from the plate: a wide basin for far-off starts.

    The mass of a film pixel is how far it differs from the plate towards `color`, less `threshold`. The residual is the
    distance between the model's and the clip's centre of mass, a frame, in units of `sigma` full pixels. Frames where the
    clip shows less than `least` film pixels of it do not count; where the model shows none, its centre is the film's.

    Arguments: color: direction in RGB that marks the thing (for a red ball on grey: [1, -1, 0]); threshold in [0, 1].
    Forward: model, observed: Frames -> (world, frame, 2).
    """

    color: Tensor

    def __init__(
        self, color: Sequence[float] = (1.0, -1.0, 0.0), threshold: float = 0.05, sigma: float = 2.0, least: float = 2.0
    ):
        super().__init__()
        self.register_buffer("color", torch.tensor([float(c) for c in color]), persistent=False)
        self.threshold, self.sigma, self.least = float(threshold), float(sigma), float(least)
        if len(color) != 3 or not 0.0 <= self.threshold < 1.0 or not 0.0 < self.sigma < math.inf:
            raise UserError(
                "MomentResidual: expected three numbers, a threshold in [0, 1) and sigma > 0, "
                f"got {list(color)}, {threshold} and {sigma}"
            )

    def _centres(self, frames: Frames) -> tuple[Tensor, Tensor]:
        """Centres of mass [px] from the film's middle, (world, frame, 2), and the mass itself, (world, frame)."""
        mass = torch.relu((frames.images - frames.background) @ self.color - self.threshold)
        film = frames.film
        # from the film's middle, so that float32 holds small displacements of far-off films
        x = (torch.arange(film.columns, device=mass.device) + 0.5 - 0.5 * film.columns) / film.scale
        y = (torch.arange(film.rows, device=mass.device) + 0.5 - 0.5 * film.rows) / film.scale
        total = mass.sum((-2, -1))
        floor = 0.02 * self.threshold + 1e-6
        cx = (mass.sum(-2) * x).sum(-1) / (total + floor)
        cy = (mass.sum(-1) * y).sum(-1) / (total + floor)
        return torch.stack([cx, cy], dim=-1), total

    def forward(self, model: Frames, observed: Frames) -> Tensor:
        with torch.no_grad():
            there, seen = self._centres(observed)
        here, _ = self._centres(model)
        counts = (seen > self.least * self.threshold).to(here.dtype)[..., None]
        return (here - there) * (counts / self.sigma)


class Term(NamedTuple):
    """One sum of an objective: which output holds the residual (world, cluster..., ...), and the penalty.

    robust: scale c of the Charbonnier penalty 2 c^2 (sqrt(1 + (r/c)^2) - 1); None: r^2. weight: of the whole sum. For
    correlated pixels a weight below one says how many of them count as independent.
    """

    residual: str
    robust: float | None = None
    weight: float = 1.0


def term(residual: str, robust: float | None = None, weight: float = 1.0) -> Term:
    """A `Term`, for YAML."""
    return Term(residual, robust, weight)


def penalty(r: Tensor, robust: float | None) -> Tensor:
    """rho(r), elementwise; written so that small residuals do not drown in rounding."""
    if robust is None:
        return r * r
    return 2.0 * r * r / (1.0 + torch.sqrt(1.0 + (r / robust) ** 2))


def influence(r: Tensor, robust: float | None) -> Tensor:
    """rho'(r) / (2 r): the weight of a residual in iteratively reweighted least squares."""
    return torch.ones_like(r) if robust is None else 1.0 / torch.sqrt(1.0 + (r / robust) ** 2)


class Objective:
    """Sum of terms and of the priors of declared parameters.

    Arguments: terms: name -> Term.
    `loss(values, pipeline)` -> (world,): half the sum of penalties, so that its curvature is J^T W J.
    """

    def __init__(self, terms: Mapping[str, Term]):
        if not terms:
            raise UserError("objective: expected at least one term")
        for name, t in terms.items():
            if t.robust is not None and not 0.0 < t.robust < math.inf:
                raise UserError(f"term {name!r}: robust: expected a positive number or none, got {t.robust}")
            if not 0.0 <= t.weight < math.inf:
                raise UserError(f"term {name!r}: weight: expected a number from 0, got {t.weight}")
        self.terms = dict(terms)

    @property
    def outputs(self) -> list[str]:
        """Pipeline outputs that the terms read."""
        return [t.residual for t in self.terms.values()]

    def loss(self, values: Mapping[str, Any], priors: Tensor | None = None) -> Tensor:
        total: Tensor | None = None
        for t in self.terms.values():
            part = 0.5 * t.weight * penalty(values[t.residual], t.robust).flatten(1).sum(1)
            total = part if total is None else total + part
        assert total is not None
        return total if priors is None else total + 0.5 * (priors * priors).sum(1)


def prior_residuals(pipeline: Pipeline, raw: Mapping[str, Tensor]) -> Tensor | None:
    """(world, n) prior residuals of declared parameters at unbounded values, or None where there are none."""
    rows = []
    for name, parameter in pipeline.declared().items():
        r = parameter.prior_residual(parameter.to_value(raw.get(name, parameter.raw)))
        if r is not None:
            rows.append(r)
    if not rows:
        return None
    worlds = max(r.shape[0] for r in rows)
    return torch.cat([r.expand(worlds, -1) for r in rows], dim=1)
