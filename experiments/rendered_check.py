r"""The gradient certificate where residuals are Monte Carlo pictures: means over seeds, judged by their standard errors.

The loss of a noisy picture has a bias of its own, so that what is compared is linear in the picture: with the residual r0 of a
seed of its own held fixed, the gradient of r0 . r(x) is that of half the sum of squares, up to noise. Reverse mode, and central
differences with common seeds, are taken over several seeds; a number passes where the two means agree within `ALLOWED`
standard errors and `SLACK` of their size.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch

from dvc.gradient_check import CheckRow
from dvc.parameter_vector import ParameterVector
from dvc.pipeline import Pipeline

ALLOWED, SLACK = 4.0, 0.02
VAGUE = 0.5  # a standard error beyond this share of the number says so in the note
FIRST_SEED = 50


def check_rendered(
    pipeline: Pipeline, output: str, context: Mapping[str, Any], *, seeds: int = 8, step: float = 0.03,
    steps: Mapping[str, float] | None = None,
) -> list[CheckRow]:  # fmt: skip
    """Every number of every declared parameter.

    Arguments: output: the residual; step: of the differences, in unbounded numbers; steps: by label, where a number moves the
        picture so little that within `step` hardly a sample meets something else: few seeds then show neither the difference
        nor its noise.
    """
    vector = ParameterVector(pipeline)
    sizes = [(steps or {}).get(label, step) for label in vector.labels]
    point = vector.gather()[:1]
    with torch.no_grad():
        fixed = pipeline([output], context={**context, "seed": FIRST_SEED - 1})[output].double()

    def contracted(x: torch.Tensor, seed: int) -> torch.Tensor:
        value = pipeline([output], context={**context, "seed": seed}, raw=vector.split(x))[output]
        return (fixed * value.double()).flatten(1).sum(1)

    analytic, numeric = torch.zeros(seeds, vector.size), torch.zeros(seeds, vector.size)
    for s in range(seeds):
        leaf = point.clone().requires_grad_(True)
        contracted(leaf, FIRST_SEED + s).sum().backward()
        analytic[s] = leaf.grad[0] if leaf.grad is not None else 0.0
        with torch.no_grad():
            for j in range(vector.size):
                width = sizes[j]
                along = width * torch.eye(vector.size)[j]
                sides = [contracted(point + sign * along, FIRST_SEED + seeds + s) for sign in (1.0, -1.0)]
                numeric[s, j] = float(sides[0] - sides[1]) / (2.0 * width)
    rows = []
    for j, label in enumerate(vector.labels):
        a, n = float(analytic[:, j].mean()), float(numeric[:, j].mean())
        spread = float(torch.hypot(analytic[:, j].std(), numeric[:, j].std())) / math.sqrt(seeds)
        size = max(abs(a), abs(n), 1e-30)
        passed = math.isfinite(a) and abs(a - n) <= ALLOWED * spread + SLACK * size and not (a == 0.0 and n != 0.0)
        note = f"standard error {spread / size:.0%}" if spread > VAGUE * size else ""
        rows.append(CheckRow(label, "parameter", a, n, abs(a - n) / size, sizes[j], passed, note))
    return rows
