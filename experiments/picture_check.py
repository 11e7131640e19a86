"""A gradient certificate for Monte Carlo losses: reverse mode against differences, both with their standard errors.

One directional derivative at a time, of a value that is linear in the picture, so that its mean over seeds is that of the mean
picture. Both sides of a difference use the same seed, reverse mode others.
"""

import math
from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from dvc.gradient_check import TOLERANCE, CheckRow

SEEDS = 12
DEVIATIONS = 3.0  # standard errors that are granted
LARGEST_ERROR = 0.1  # relative standard error above which nothing is certified


def ramp(columns: int) -> Tensor:
    """Weights of a square picture, (1, row, column, 1): 1 in the middle, rising to the right and downwards by 2 each."""
    rise = 2.0 * (torch.arange(columns) + 0.5) / columns - 1.0
    return (1.0 + rise[:, None] + rise)[None, :, :, None]


def ways_of(vertices: Tensor) -> dict[str, Tensor]:
    """Growth of a shape about the origin along each axis alone, as velocities of its vertices [(world, vertex, 3)]."""
    return {f"growth along {axis}": vertices * torch.eye(3)[k] for k, axis in enumerate("xyz")}


def check_pictures(
    value: Callable[[Tensor, int], Tensor],
    x: Tensor,
    directions: Mapping[str, Tensor],
    step: float,
    name: str,
    seeds: int = SEEDS,
) -> list[CheckRow]:
    """A row for each direction (of x's shape): derivative of value(x, seed), a number, while x moves along it by up to `step`.

    A row passes where the two agree within `TOLERANCE` and three standard errors, and both are known to a tenth.
    """
    gradients = []
    for seed in range(seeds):
        leaf = x.detach().clone().requires_grad_(True)
        value(leaf, 5000 + seed).backward()
        gradients.append(torch.zeros_like(leaf) if leaf.grad is None else leaf.grad)
    rows = []
    for label, way in directions.items():
        reverse = torch.stack([(g.double() * way).sum() for g in gradients])
        with torch.no_grad():
            pairs = [[float(value(x + s * step * way, seed)) for s in (1.0, -1.0)] for seed in range(seeds)]
        differences = torch.tensor([(up - down) / (2.0 * step) for up, down in pairs], dtype=torch.float64)
        a, d = float(reverse.mean()), float(differences.mean())
        noise = math.hypot(*(float(t.std()) / math.sqrt(seeds) for t in (reverse, differences)))
        size = max(abs(a), abs(d), 1e-30)
        known = noise < LARGEST_ERROR * size
        passed = known and abs(a - d) <= TOLERANCE * size + DEVIATIONS * noise
        note = f"standard error {noise / size:.1%}" if known else f"standard error {noise / size:.0%}: too large to say"
        rows.append(CheckRow(f"{name}: {label}", "rendered", a, d, abs(a - d) / size, step, bool(passed), note))
    return rows
