"""Derivatives of random scenes by reverse mode and by central differences, each with its standard error.

Every world of a render is one independent estimate: `GROUP` of them for reverse mode, whose numbers t (world, name) each have a
gradient of their own, and `GROUP` for each name and side of the differences; both sides share their random numbers.
"""

import math
import time
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from tests.render.random_scenes import RandomScene

GROUP = 16  # independent estimates at a time: enough for a standard error
SMALL = 0.03  # standard error over the derivative
CANCELLING = 0.25  # derivative over its scale below which pixels cancel: errors are then relative to that share of the scale
NOTHING = 1.0e-6  # what rounding does to images of 0.01 to 1, whose numbers have units that change them by about as much
LIMIT = 3.0  # standard errors


class Comparison(NamedTuple):
    scene: int
    name: str
    found: float  # reverse mode
    found_error: float
    expected: float  # differences
    expected_error: float
    scale: float  # sum over pixels of |weight d image|, a lower estimate

    @property
    def error(self) -> float:
        return math.hypot(self.found_error, self.expected_error)

    @property
    def z(self) -> float:
        return (self.found - self.expected) / self.error if self.error > 0.0 else 0.0

    @property
    def silent(self) -> bool:
        """Nothing changes the picture: no light falls there, or it is not seen."""
        return max(abs(self.found), abs(self.expected), self.error) < NOTHING

    @property
    def small_error(self) -> bool:
        return self.error <= SMALL * abs(self.expected)

    @property
    def cancelling(self) -> bool:
        """What some pixels win, others lose."""
        return abs(self.expected) < CANCELLING * self.scale

    @property
    def settled(self) -> bool:
        """As `small_error`, but relative to a quarter of the scale where the derivative cancels."""
        return self.error <= SMALL * max(abs(self.expected), CANCELLING * self.scale)


def reverse(scene: RandomScene, samples: int, seed: int, boundary_samples: int | tuple | None = None) -> np.ndarray:
    """Derivatives of the weighted mean of the image along each number: independent estimates, (GROUP, name)."""
    t = torch.zeros(GROUP, len(scene.names), requires_grad=True)
    images = scene.render(samples, boundary_samples)(**scene.build(t), **scene.call, seed=seed)
    (images * scene.weights).sum().backward()
    return t.grad.double().numpy().copy()


def differences(scene: RandomScene, columns: list[int], samples: int, seed: int, shrink: float = 1.0) -> Tensor:
    """Central differences of the weighted pixels, (GROUP, column, pixel and channel); shrink: of the steps."""
    render = scene.render(samples)
    chosen = torch.zeros(len(columns), len(scene.names))
    steps = scene.steps[columns] * shrink
    chosen[torch.arange(len(columns)), columns] = steps
    sides = []
    for sign in (1.0, -1.0):
        t = (sign * chosen)[None].expand(GROUP, -1, -1).reshape(-1, len(scene.names))
        with torch.no_grad():
            images = render(**scene.build(t), **scene.call, seed=seed)
        sides.append((images.double() * scene.weights).reshape(GROUP, len(columns), -1))
    return (sides[0] - sides[1]) / (2.0 * steps.double()[:, None])


class Estimate:
    """Mean and standard error from groups of independent values, each group of so many samples."""

    def __init__(self) -> None:
        self.samples: list[int] = []
        self.means: list[float] = []
        self.squares: list[float] = []  # of the means' standard errors

    def add(self, samples: int, values: np.ndarray) -> None:
        self.samples.append(samples)
        self.means.append(float(values.mean()))
        self.squares.append(float(values.var(ddof=1)) / len(values))

    @property
    def mean(self) -> float:
        return float(np.average(self.means, weights=self.samples)) if self.samples else math.nan

    @property
    def error(self) -> float:
        share = np.array(self.samples) / sum(self.samples) if self.samples else np.full(1, math.nan)
        return float(np.sqrt((share**2 * np.array(self.squares)).sum())) if self.samples else math.nan


def compare_scene(
    scene: RandomScene, samples: int = 128, most: int = 4, seed: int = 0, shrink: float = 1.0, names: list[str] | None = None,
    boundary_samples: int | tuple | None = None, seconds: float = math.inf,
) -> list[Comparison]:  # fmt: skip
    """Every number of a scene, or those named. Doubles the samples up to `most` times where errors are not small, but begins
    no further round that would last beyond so many seconds.

    Whichever of the two has the larger error is doubled; the scale comes from pixels of one half of the estimates, with the
    signs of the other.
    """
    wanted = list(range(len(scene.names))) if names is None else [scene.names.index(name) for name in names]
    found, expected = ([Estimate() for _ in scene.names] for _ in range(2))
    halves = torch.zeros(len(scene.names), 2, scene.weights.numel(), dtype=torch.float64)
    calls, begin, last = 1000 * seed, time.monotonic(), time.monotonic()
    counts = [samples, samples]  # of the next round: reverse mode, differences
    across = list(wanted)
    rows: list[Comparison] = []

    def compared(k: int) -> Comparison:
        r, d = found[k], expected[k]
        scale = float((halves[k, 0].sign() * halves[k, 1]).sum()) / max(1, sum(d.samples))
        return Comparison(scene.seed, scene.names[k], r.mean, r.error, d.mean, d.error, scale)

    for level in range(most + 1):
        calls += 1
        if counts[0]:
            for estimate, values in zip(found, reverse(scene, counts[0], 2 * calls, boundary_samples).T):
                estimate.add(counts[0], values)
        if across:
            parts = differences(scene, across, counts[1], 2 * calls + 1, shrink)
            for j, k in enumerate(across):
                expected[k].add(counts[1], parts[:, j].sum(dim=1).numpy())
                halves[k] += counts[1] * parts[:, j].reshape(2, GROUP // 2, -1).mean(dim=1)
        rows = [compared(k) for k in wanted]
        open_rows = [(k, row) for k, row in zip(wanted, rows) if not row.silent and not row.settled]
        if not open_rows or level == most or not _time_for_another(begin, last, seconds):
            break
        last = time.monotonic()
        worse = [row.found_error > row.expected_error for _, row in open_rows]
        counts = [sum(found[0].samples) if any(worse) else 0, samples * 2**level]
        across = [k for (k, _), w in zip(open_rows, worse) if not w]
    return rows


def _time_for_another(begin: float, last: float, seconds: float) -> bool:
    """Whether a round, twice as long as the last one, ends before the time is up."""
    now = time.monotonic()
    return now + 2.0 * (now - last) < begin + seconds


def recheck(
    scene: RandomScene, row: Comparison, samples: int, seconds: float, shrink: float = 0.25, attempt: int = 0
) -> Comparison:
    """The same comparison with other seeds (others again for each attempt), more samples, and smaller steps: what is left of a
    step's own error is not ours."""
    more = samples * round(2.0 / shrink) * 2**attempt
    return compare_scene(scene, more, 10, 50 + row.scene % 50 + 50 * attempt, shrink, [row.name], seconds=seconds)[0]
