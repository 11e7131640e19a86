r"""The gradient certificate where values are Monte Carlo pictures: means over seeds, judged by their standard errors.

Reverse mode and central differences are estimated with seeds of their own (both sides of a difference share one). What is
compared is linear in the picture, so that its mean over seeds is that of the mean picture: the loss of a noisy picture has a
bias of its own. Seeds are added, up to `MOST_SEEDS`, where the error of the two is more than `WANTED` of the number. A row
fails where the two differ by more than `DEVIATIONS` standard errors and the certificate's tolerance; one that is then still not
known to `LARGEST` of itself is reported as excluded. A row with a standard error of e is certified to within 4 e, at most to
within the number itself: its note says e.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dvc.gradient_check import TOLERANCE, CheckRow
from dvc.parameter_vector import ParameterVector
from dvc.pipeline import Pipeline

DEVIATIONS = 4.0  # standard errors, of few seeds
WANTED, LARGEST = 0.1, 0.25  # standard error over the number
SEEDS, MOST_SEEDS = 16, 128
FIRST_SEED = 50
OF_REVERSE = 5000  # first seed


def _judge(reverse: Tensor, differences: Tensor, name: str, kind: str, step: float) -> tuple[CheckRow, float]:
    """The row of one number from its estimates, each (seed,); and its relative standard error."""
    a, d = float(reverse.mean()), float(differences.mean())
    error = math.hypot(*(float(t.std()) / math.sqrt(len(t)) for t in (reverse, differences)))
    size = max(abs(a), abs(d), 1e-30)
    passed = math.isfinite(a) and math.isfinite(d) and abs(a - d) <= TOLERANCE * size + DEVIATIONS * error
    note = f"standard error {error / size:.2g}" if error > 0.0 else ""
    if a == 0.0:
        passed, note = d == 0.0, "zero, as are the differences" if d == 0.0 else "zero, but the differences are not"
    elif passed and error > LARGEST * size:
        note = f"excluded: standard error {error / size:.2g}, at most {LARGEST:g}"
    return CheckRow(name, kind, a, d, abs(a - d) / size, step, passed, note), error / size


def compare_estimates(
    names: Sequence[str], kind: str, steps: Sequence[float], reverse: Callable[[int], Tensor],
    difference: Callable[[int, int], float], seeds: int = SEEDS, most: int = MOST_SEEDS,
) -> list[CheckRow]:  # fmt: skip
    """A row for each name.

    Arguments: reverse(seed): the derivatives by reverse mode, (name,); difference(seed, k): that of name k, by central
        differences of steps[k].
    """
    found: list[Tensor] = []
    expected: list[list[float]] = [[] for _ in names]
    rows: list[CheckRow] = []
    errors: list[float] = []
    asked = list(range(len(names)))
    while asked and len(found) < max(seeds, most):
        count = min(max(seeds, 2 * len(found)), max(seeds, most))
        for seed in range(len(found), count):
            found.append(reverse(OF_REVERSE + seed).detach().double())
            for k in asked:
                expected[k].append(difference(FIRST_SEED + seed, k))
        judged = [
            _judge(torch.stack(found)[:, k], torch.tensor(expected[k], dtype=torch.float64), name, kind, steps[k])
            for k, name in enumerate(names)
        ]
        rows, errors = [row for row, _ in judged], [error for _, error in judged]
        asked = [k for k in asked if errors[k] > WANTED]
    return rows


def ramp(columns: int) -> Tensor:
    """Weights of a square picture, (1, row, column, 1): 1 in the middle, rising to the right and downwards by 2 each."""
    rise = 2.0 * (torch.arange(columns) + 0.5) / columns - 1.0
    return (1.0 + rise[:, None] + rise)[None, :, :, None]


def ways_of(vertices: Tensor) -> dict[str, Tensor]:
    """Growth of a shape about the origin along each axis alone, as velocities of its vertices [(world, vertex, 3)]."""
    return {f"growth along {axis}": vertices * torch.eye(3)[k] for k, axis in enumerate("xyz")}


def check_pictures(
    value: Callable[[Tensor, int], Tensor], x: Tensor, directions: Mapping[str, Tensor], step: float, name: str,
    seeds: int = SEEDS,
) -> list[CheckRow]:  # fmt: skip
    """A row for each direction (of x's shape): derivative of value(x, seed), a number that is linear in a picture, while x
    moves along it by up to `step`."""
    ways = list(directions.values())

    def reverse(seed: int) -> Tensor:
        leaf = x.detach().clone().requires_grad_(True)
        value(leaf, seed).backward()
        gradient = torch.zeros_like(leaf) if leaf.grad is None else leaf.grad
        return torch.stack([(gradient.double() * way).sum() for way in ways])

    def difference(seed: int, k: int) -> float:
        with torch.no_grad():
            up, down = (float(value(x + sign * step * ways[k], seed)) for sign in (1.0, -1.0))
        return (up - down) / (2.0 * step)

    names = [f"{name}: {label}" for label in directions]
    return compare_estimates(names, "rendered", [step] * len(names), reverse, difference, seeds)


def check_rendered(
    pipeline: Pipeline, output: str, context: Mapping[str, Any], *, seeds: int = SEEDS, step: float = 0.03
) -> list[CheckRow]:
    """Every number of every declared parameter, by half the sum of squares of residuals: with the residual r0 of a seed of its
    own held fixed, the gradient of r0 . r(x) is that of the loss, up to noise.

    Arguments: output: the residual; step: of the differences, in unbounded numbers.
    """
    vector = ParameterVector(pipeline)
    point = vector.gather()[:1]
    unit = torch.eye(vector.size)
    with torch.no_grad():
        fixed = pipeline([output], context={**context, "seed": FIRST_SEED - 1})[output].double()

    def contracted(x: Tensor, seed: int) -> Tensor:
        value = pipeline([output], context={**context, "seed": seed}, raw=vector.split(x))[output]
        return (fixed * value.double()).flatten(1).sum(1)

    def reverse(seed: int) -> Tensor:
        leaf = point.clone().requires_grad_(True)
        contracted(leaf, seed).sum().backward()
        return torch.zeros(vector.size) if leaf.grad is None else leaf.grad[0]

    def difference(seed: int, k: int) -> float:
        with torch.no_grad():
            up, down = (float(contracted(point + sign * step * unit[k], seed)) for sign in (1.0, -1.0))
        return (up - down) / (2.0 * step)

    return compare_estimates(vector.labels, "parameter", [step] * vector.size, reverse, difference, seeds)
