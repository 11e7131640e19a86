"""The profile of a loss: one parameter is held at several values, all others are fitted anew at each.

A quadratic approximation at the minimum says how well a parameter is known where the loss is nearly quadratic. Where it is flat
over decades, with shallow minima, only the profile tells (Venzon and Moolgavkar, "A method for computing
profile-likelihood-based confidence intervals", 1988): values whose loss is within q^2 / 2 of the least are not excluded, for a
loss that is minus the logarithm of the likelihood and q a quantile of Student's t.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dvc.losses import Objective
from dvc.optimize import Phase, optimize
from dvc.parameter_vector import ParameterVector
from dvc.pipeline import Pipeline
from dvc.result import Estimate


class Profile(NamedTuple):
    """Rows in the order of the values; those that were not finite are left out."""

    values: Tensor  # at which the parameter was held, (row,)
    x: Tensor  # unbounded values of all parameters, (row, size)
    loss: Tensor  # (row,)


def loss_profile(
    pipeline: Pipeline, objective: Objective, x: Tensor, name: str, values: Sequence[float], context: Mapping[str, Any],
    steps: int = 5,
) -> Profile:  # fmt: skip
    """Hold `name`, a number, at these values; fit all others from x (size,), every value a world.

    The parameters of the pipeline are left at x. Raises: UserError as `optimize`.
    """
    vector = ParameterVector(pipeline)
    held, parameter = vector.slices[name], vector.parameters[name]
    starts = x.repeat(len(values), 1)
    starts[:, held] = parameter.to_raw(torch.tensor([[float(v)] for v in values]).to(parameter.raw.device))
    others = [n for n in vector.names if n != name]
    fit = optimize(pipeline, objective, [Phase(name="profile", steps=steps, train=others)], starts=starts, context=context)
    vector.scatter(x[None])
    order = torch.argsort(fit.x[:, held][:, 0])
    order = order[fit.alive[order]]
    return Profile(parameter.to_value(fit.x[order, held][:, 0]), fit.x[order], fit.loss[order])


def widened(
    estimates: Mapping[str, Estimate], vector: ParameterVector, profile: Profile, loss: float, quantile: float
) -> dict[str, Estimate]:
    """Intervals that hold, besides what they held, all rows of the profile that are not excluded; `loss`: at the estimates."""
    least = min(loss, float(profile.loss.min()))
    rows = vector.values(profile.x[profile.loss <= least + 0.5 * quantile**2])
    found = {}
    for name, e in estimates.items():
        values = [float(v) for v in rows[name]]
        found[name] = Estimate(e.value, min([e.low, *values]), max([e.high, *values]), e.unit, e.weak)
    return found
