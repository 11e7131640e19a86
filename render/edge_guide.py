r"""Where edge samples go: importance learned from pilot samples, so that edges that change nothing take few of them.

All edges of a view lie one after the other on [0, 1), each as long as its importance (`render.edge_sampling`), once for each
cell of what else is drawn with them (hops, lights, directions: `render.shadow_boundary`). A guide is a map
u(v) of [0, 1) onto itself, linear between knots; a sample at a uniform v has the density dv/du times that of the importance. As
in VEGAS (Lepage 1978, "A new algorithm for adaptive multidimensional integration"), pilot rounds measure the root mean square
of what samples add in each of the map's intervals, and the knots move until all intervals add alike. A share of the samples
stays as it was, so that nothing is lost that the pilots did not see, and what they saw is not used again: the estimate stays
unbiased.

What a sample adds is a gradient with many numbers; its size is taken along one random direction, which is zero where nothing
is wanted: edges, receivers and lights that do not move then ask for no samples. In forward mode the direction is the given one.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import warp as wp
from torch import Tensor

from render.edge_sampling import stratum
from render.scene import Body, SdfBody
from render.tiles import launch_parts

ROUNDS = 2
MOST_PILOTS = 8192  # samples of a round
FEWEST_PILOTS = 512
PILOTS_PER_KNOT = 4
PRIOR = 32.0  # samples
CLIP = 10.0
KEPT = 0.25  # share of the samples that stay with the importance
MOVING = ("cameras", "vertices", "positions", "orientations", "exposure", "readout", "spheres", "sdf", "lights")


@wp.struct
class EdgeDraw:
    """How the edge samples of a view are drawn."""

    sums: wp.array(dtype=wp.float64)  # running sums of the edges' importance
    knots: wp.array(dtype=wp.float64)  # u at v = 0, 1 / n, ..., 1
    count: int
    round: int  # 0: the estimate, 1 and more: pilots


@wp.func
def guided_place(draw: EdgeDraw, index: int, jitter: float):
    """u in [0, 1) of sample `index`, and its density."""
    intervals = draw.knots.shape[0] - 1
    v = stratum(index, draw.count, jitter) * float(intervals)
    k = wp.min(int(v), intervals - 1)
    low = draw.knots[k]
    width = draw.knots[k + 1] - low
    density = float(0.0)
    if width > wp.float64(0.0):
        density = float(wp.float64(1.0) / (wp.float64(intervals) * width))
    return low + wp.float64(v - float(k)) * width, density


@wp.func
def cell_of(place: wp.float64, cells: int):
    """Which of the cells that share [0, 1) evenly, and the place in it."""
    scaled = place * wp.float64(float(cells))
    cell = wp.min(int(scaled), cells - 1)
    return cell, scaled - wp.float64(float(cell))


def wanted_motion(ordered: list, numbers: dict[str, Tensor]) -> tuple:
    """What wants gradient: ((name, ranges along the axis of vertices or instances, or None for all), ...).

    ordered: the bodies in the order of packing; numbers: as packed.
    """
    ranges: dict[str, list[tuple[int, int]]] = {"vertices": [], "positions": [], "orientations": []}
    first = instance = 0
    for body in sorted(ordered, key=lambda b: (not isinstance(b, Body), isinstance(b, SdfBody))):  # meshes, balls, SDFs
        if isinstance(body, Body):
            end = first + body.mesh.vertices.shape[1]
            if body.mesh.vertices.requires_grad:
                ranges["vertices"].append((first, end))
            first = end
        if getattr(body, "poses", None) is not None:
            for name in ("positions", "orientations"):
                if getattr(body.poses, name).requires_grad:
                    ranges[name].append((instance, instance + 1))
            instance += 1
    planes = numbers["vertices"].shape[1]
    if planes > first:
        ranges["vertices"].append((first, planes))
    return tuple((name, tuple(ranges[name]) if name in ranges else None) for name in MOVING if numbers[name].requires_grad)


def random_direction(arrays: dict[str, wp.array], wanted: tuple) -> dict[str, wp.array]:
    """Normal random numbers for what is wanted, zeros for the rest, in arrays of the same layout."""
    if not wanted:  # no pilot will ask
        return arrays
    generator = torch.Generator().manual_seed(1978)
    made = {name: wp.zeros_like(array, requires_grad=False) for name, array in arrays.items()}
    for name, ranges in wanted:
        target = wp.to_torch(made[name], requires_grad=False)
        axis = target.shape[1] if ranges is not None else 0
        for begin, end in ((0, axis),) if ranges is None else ranges:
            part = target if ranges is None else target[:, begin:end]
            part.copy_(torch.randn(part.shape, generator=generator))
    return made


def even_knots(count: int) -> np.ndarray:
    return np.linspace(0.0, 1.0, count + 1)


def moved_knots(knots: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Knots between which all intervals, 2^k of them, add alike; sizes: of what each pilot sample added, in their order.

    Few samples say little of an interval: its mean square is drawn towards that of the two intervals of which it is a half,
    and so on up to the whole, each with the weight of `PRIOR` samples. No sample counts for more than `CLIP` times the mean of
    those that are not zero.
    """
    intervals = len(knots) - 1
    added = sizes > 0.0
    if not added.any() or not np.isfinite(sizes).all():
        return even_knots(intervals)
    squares = np.square(np.minimum(sizes, CLIP * sizes[added].mean())).reshape(intervals, -1)
    levels = [squares.sum(axis=1)]
    while len(levels[-1]) > 1:
        levels.append(levels[-1].reshape(-1, 2).sum(axis=1))
    mean = levels.pop() / sizes.size
    while levels:
        total = levels.pop()
        count = sizes.size / len(total)
        mean = (total + PRIOR * np.repeat(mean, 2)) / (count + PRIOR)
    size = np.sqrt(mean)
    mass = (1.0 - KEPT) * np.concatenate([[0.0], np.cumsum(size)]) / size.sum() + KEPT * knots
    mass[-1] = 1.0
    moved = np.interp(np.linspace(0.0, 1.0, intervals + 1), mass, knots)
    moved[0], moved[-1] = 0.0, 1.0
    return moved


def guided_draws(
    kernel: Any, sums: list[wp.array], count: int, sinks: list, arguments: Callable, device: Any
) -> list[EdgeDraw]:
    """Draws of `count` samples for each view, after pilot rounds of the kernel.

    arguments(thread, view, first, draw): the kernel's inputs with the pilots' sinks.
    """
    views = len(sums)
    intervals = 1 << int(np.log2(min(max(count // 4, FEWEST_PILOTS), MOST_PILOTS) // PILOTS_PER_KNOT))
    pilots = intervals * PILOTS_PER_KNOT
    knots = [even_knots(intervals) for _ in range(views)]

    def draws(size: int, number: int) -> list[EdgeDraw]:
        made = []
        for view in range(views):
            draw = EdgeDraw()
            draw.sums, draw.count, draw.round = sums[view], size, number
            draw.knots = wp.array(knots[view], dtype=wp.float64, device=device)
            made.append(draw)
        return made

    for number in range(1, ROUNDS + 1):
        scores = wp.zeros((views, pilots), dtype=float, device=device)
        for sink in sinks:
            sink.scores = scores
        current = draws(pilots, number)

        def of_pilots(thread: int, view: int, first: int, current: list = current) -> list:
            return arguments(thread, view, first, current[view])

        launch_parts(kernel, views, pilots, of_pilots, device)
        found = scores.numpy().astype(np.float64)
        knots = [moved_knots(knots[view], found[view]) for view in range(views)]
    return draws(count, 0)
