"""Textures that are computed: checks and noise.

Noise is value noise: random numbers at the nodes of a grid that repeats, blended in between by u^2 (3 - 2 u), summed over
octaves of twice the frequency and half the weight (Perlin 1985, "An image synthesizer").
"""

from typing import Any

import torch
from torch import Tensor

from render.value_checks import LIGHT, Intake, whole_number


def _colours(name: str, *colours: Any) -> list[Tensor]:
    intake = Intake(torch.device("cpu"), "a texture that is computed")
    found = [
        intake.constant(f"{name}.{which}", c, (3,), grey=True, **LIGHT)[0] for which, c in zip(("first", "second"), colours)
    ]
    intake.settle()
    return found


def checker(columns: int, rows: int, first: Tensor, second: Tensor, texels: int = 32) -> Tensor:
    """Checks of two colours (3,), `texels` a cell, the first one at the bottom left: (1, row, column, 3)."""
    for name, count in (("columns", columns), ("rows", rows), ("texels", texels)):
        whole_number(f"checker.{name}", count, 1)
    first, second = _colours("checker", first, second)
    column = torch.arange(columns * texels) // texels
    row = torch.arange(rows * texels - 1, -1, -1) // texels
    even = ((row[:, None] + column[None, :]) % 2 == 0)[..., None]
    return torch.where(even, first, second)[None]


def noise(cells: int, first: Tensor, second: Tensor, octaves: int = 4, resolution: int = 256, seed: int = 0) -> Tensor:
    """Value noise of `cells` cells a side that blends two colours (3,): (1, resolution, resolution, 3), without a seam."""
    for name, count in (("cells", cells), ("octaves", octaves), ("resolution", resolution)):
        whole_number(f"noise.{name}", count, 1)
    first, second = _colours("noise", first, second)
    generator = torch.Generator().manual_seed(seed)
    total, weight = torch.zeros(resolution, resolution), 0.0
    for octave in range(octaves):
        count = cells * 2**octave
        grid = torch.rand(count, count, generator=generator)
        place = (torch.arange(resolution) + 0.5) * (count / resolution)
        low = place.floor().long()
        u = place - low
        blend = u * u * (3.0 - 2.0 * u)
        low, high = low % count, (low + 1) % count
        rows = grid[low] * (1.0 - blend[:, None]) + grid[high] * blend[:, None]
        total += (rows[:, low] * (1.0 - blend) + rows[:, high] * blend) / 2**octave
        weight += 1.0 / 2**octave
    share = (total / weight)[..., None].clamp(0.0, 1.0)
    return (first * (1.0 - share) + second * share)[None]
