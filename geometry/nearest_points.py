"""Nearest neighbours between sets of points: an implicit bounding-box tree in Hilbert order, searched with a warm start.

    i(x) = argmin_j |x - y_j|

The points are sorted along a Hilbert curve of 21 bits an axis and cut into 2^k leaves of nearly equal size. Node i of the tree
has the children 2i and 2i + 1, so neither pointers nor a stack are needed: a bit a level says whether the sibling is still to
be visited (the trail of Laine 2010, Restart Trail for Stackless BVH Traversal). Queries run along the curve too, and each takes
the answer of the one before as its first bound. That is what keeps distant sets fast: seen from afar all boxes are nearly
equally far, and only a bound that is nearly the answer leaves most of them out. On the CPU eight neighbouring queries walk the
tree together, compared by their common box, unless they are far away, where it tells them apart too little.

Everything here is a search, without gradient; `geometry.point_losses` attaches the gradient to what was found.
"""

from typing import NamedTuple

import torch
import warp as wp
from torch import Tensor

from dvc.errors import UserError
from dvc.records import world_count
from dvc.warp_op import scratch, warp_op
from geometry.hilbert_curve import curve_order

LEAF_SIZE = 25  # most points of a leaf
CHUNK = 512  # queries of one unit of work
RUN_CPU, RUN_CUDA = 512, 8  # queries that one thread asks in turn
GROUP_CPU, GROUP_CUDA = 8, 1  # neighbouring queries that walk the tree together
INTERLEAVE = 16  # neighbouring chunks go to different threads: distant regions are dearer than near ones
LARGEST = 1e18  # [m], the square of a greater coordinate leaves float32
FAR = wp.constant(400.0)  # squared distance over squared extent, above which neighbouring queries part


class NearestPoints(NamedTuple):
    """The nearest of a set of points to each query."""

    nearest: Tensor  # number of the nearest point, int64, (world, query)
    square: Tensor  # squared distance [m^2], without gradient, (world, query)


@wp.func
def box_square(boxes: wp.array2d(dtype=wp.vec3), tree: int, node: int, p: wp.vec3):
    """Squared distance to a node's box, rounded as that to a point is: it never exceeds the one to a point inside."""
    low = boxes[tree, 2 * node]
    high = boxes[tree, 2 * node + 1]
    x = wp.max(wp.max(low[0] - p[0], p[0] - high[0]), 0.0)
    y = wp.max(wp.max(low[1] - p[1], p[1] - high[1]), 0.0)
    z = wp.max(wp.max(low[2] - p[2], p[2] - high[2]), 0.0)
    return x * x + y * y + z * z


@wp.func
def point_square(p: wp.vec3, q: wp.vec3):
    x = q[0] - p[0]
    y = q[1] - p[1]
    z = q[2] - p[2]
    return x * x + y * y + z * z


@wp.func
def leaf_start(leaf: int, leaves: int, count: int):
    return int((wp.int64(leaf) * wp.int64(count)) / wp.int64(leaves))


@wp.func
def gap_square(boxes: wp.array2d(dtype=wp.vec3), tree: int, node: int, low: wp.vec3, high: wp.vec3):
    """Squared distance of a node's box to another box, rounded likewise."""
    a = boxes[tree, 2 * node]
    b = boxes[tree, 2 * node + 1]
    x = wp.max(wp.max(a[0] - high[0], low[0] - b[0]), 0.0)
    y = wp.max(wp.max(a[1] - high[1], low[1] - b[1]), 0.0)
    z = wp.max(wp.max(a[2] - high[2], low[2] - b[2]), 0.0)
    return x * x + y * y + z * z


@wp.func
def search_group(
    asked: wp.array2d(dtype=wp.vec3),
    points: wp.array2d(dtype=wp.vec3),
    boxes: wp.array2d(dtype=wp.vec3),
    chunk: int,
    first_query: int,
    last_query: int,
    tree: int,
    guess: int,
    found: wp.array2d(dtype=int),
    square: wp.array2d(dtype=float),
):
    """Nearest rows of a tree for neighbouring queries, which walk the tree together; the search starts from the row `guess`."""
    count = points.shape[1]
    leaves = boxes.shape[1] / 4
    low = asked[chunk, first_query]
    high = low
    bound = float(0.0)
    start = points[tree, guess]
    for k in range(first_query, last_query):
        p = asked[chunk, k]
        low = wp.min(low, p)
        high = wp.max(high, p)
        best = point_square(p, start)
        square[chunk, k] = best
        found[chunk, k] = guess
        bound = wp.max(bound, best)
    node = wp.int32(1)
    trail = wp.int32(0)
    going = bool(True)
    while going:
        back = bool(True)
        if node >= leaves:
            first = leaf_start(node - leaves, leaves, count)
            last = leaf_start(node - leaves + 1, leaves, count)
            bound = float(0.0)
            for k in range(first_query, last_query):
                p = asked[chunk, k]
                best = float(square[chunk, k])
                if box_square(boxes, tree, node, p) < best:
                    row = wp.int32(-1)
                    for i in range(first, last):
                        s = point_square(p, points[tree, i])
                        if s < best:
                            best = s
                            row = i
                    if row >= 0:
                        square[chunk, k] = best
                        found[chunk, k] = row
                bound = wp.max(bound, best)
        else:
            left = gap_square(boxes, tree, 2 * node, low, high)
            right = gap_square(boxes, tree, 2 * node + 1, low, high)
            if wp.min(left, right) < bound:
                back = False
                trail = trail * 2 + wp.where(wp.max(left, right) < bound, 1, 0)
                node = 2 * node + wp.where(right < left, 1, 0)
        while back:
            if trail == 0:
                going = False
                back = False
            else:
                while (trail & 1) == 0:
                    trail = trail >> 1
                    node = node >> 1
                trail = trail ^ 1
                node = node ^ 1
                back = gap_square(boxes, tree, node, low, high) >= bound
    return found[chunk, last_query - 1]


@wp.kernel(enable_backward=False)
def leaf_kernel(
    points: wp.array2d(dtype=wp.vec3),
    order: wp.array2d(dtype=int),
    leaves: int,
    placed: wp.array2d(dtype=wp.vec3),
    boxes: wp.array2d(dtype=wp.vec3),
):
    world, leaf = wp.tid()
    first = leaf_start(leaf, leaves, points.shape[1])
    last = leaf_start(leaf + 1, leaves, points.shape[1])
    low = points[world, order[world, first]]
    high = low
    for i in range(first, last):
        p = points[world, order[world, i]]
        placed[world, i] = p
        low = wp.min(low, p)
        high = wp.max(high, p)
    boxes[world, 2 * (leaves + leaf)] = low
    boxes[world, 2 * (leaves + leaf) + 1] = high


@wp.kernel(enable_backward=False)
def level_kernel(nodes: int, boxes: wp.array2d(dtype=wp.vec3)):
    """Boxes of the nodes of one level from those of the level below, other rows of the same array."""
    world, i = wp.tid()
    node = nodes + i
    boxes[world, 2 * node] = wp.min(boxes[world, 4 * node], boxes[world, 4 * node + 2])
    boxes[world, 2 * node + 1] = wp.max(boxes[world, 4 * node + 1], boxes[world, 4 * node + 3])


@wp.kernel(enable_backward=False)
def gather_kernel(
    row: wp.array2d(dtype=int), cloud: wp.array(dtype=int), queries: wp.array2d(dtype=wp.vec3), asked: wp.array2d(dtype=wp.vec3)
):
    chunk, i = wp.tid()
    asked[chunk, i] = queries[cloud[chunk], row[chunk, i]]


@wp.kernel(enable_backward=False)
def search_kernel(
    asked: wp.array2d(dtype=wp.vec3),
    tree: wp.array(dtype=int),
    points: wp.array2d(dtype=wp.vec3),
    boxes: wp.array2d(dtype=wp.vec3),
    run: int,
    group: int,
    found: wp.array2d(dtype=int),
    square: wp.array2d(dtype=float),
):
    chunk, part = wp.tid()
    guess = points.shape[1] / 2
    for first in range(part * run, (part + 1) * run, group):
        # seen from afar, a distance is known far better than a group is small: each query by itself
        p = asked[chunk, first]
        extent = point_square(p, asked[chunk, first + group - 1])
        step = wp.where(point_square(p, points[tree[chunk], guess]) > FAR * extent, 1, group)
        for i in range(first, first + group, step):
            guess = search_group(asked, points, boxes, chunk, i, i + step, tree[chunk], guess, found, square)


@wp.kernel(enable_backward=False)
def name_kernel(
    found: wp.array2d(dtype=int), tree: wp.array(dtype=int), order: wp.array2d(dtype=int), index: wp.array2d(dtype=int)
):
    chunk, i = wp.tid()
    index[chunk, i] = order[tree[chunk], found[chunk, i]]


@warp_op(threads=None, enable_backward=False, verify=False)
def build_boxes(points: wp.array2d(dtype=wp.vec3), order: wp.array2d(dtype=int), *, leaves: int):
    """points (world, point, 3), order (world, point) -> points in that order, boxes (world, 4 leaves, 3): low, high a node."""
    worlds = points.shape[0]
    placed = scratch(points.shape, wp.vec3, zero=False)
    boxes = scratch((worlds, 4 * leaves), wp.vec3, zero=False)
    wp.launch(leaf_kernel, (worlds, leaves), [points, order, leaves], [placed, boxes])
    nodes = leaves // 2
    while nodes >= 1:
        wp.launch(level_kernel, (worlds, nodes), [nodes], [boxes])
        nodes //= 2
    return placed, boxes


@warp_op(threads=None, enable_backward=False, verify=False, shared=("queries", "points", "boxes", "order"))
def search_chunks(
    row: wp.array2d(dtype=int),
    cloud: wp.array(dtype=int),
    tree: wp.array(dtype=int),
    queries: wp.array2d(dtype=wp.vec3),
    points: wp.array2d(dtype=wp.vec3),
    boxes: wp.array2d(dtype=wp.vec3),
    order: wp.array2d(dtype=int),
    *,
    run: int,
    group: int,
):
    """Rows of queries (chunk, query), their worlds and those of their trees (chunk,) -> nearest points, squared distances."""
    index = scratch(row.shape, int, zero=False)
    square = scratch(row.shape, float, zero=False, requires_grad=False)
    asked = scratch(row.shape, wp.vec3, zero=False)
    found = scratch(row.shape, int, zero=False)
    wp.launch(gather_kernel, row.shape, [row, cloud, queries], [asked])
    inputs = [asked, tree, points, boxes, run, group]
    wp.launch(search_kernel, (row.shape[0], row.shape[1] // run), inputs, [found, square])
    wp.launch(name_kernel, row.shape, [found, tree, order], [index])
    return index, square


class PointTree:
    """Search trees of a set of points, one a world, of the points as they are now; build anew when they move.

    points: [m], (world, point, 3), at least one a world. Repeated points are welcome.
    Raises: UserError for another shape, no points, coordinates that are not finite or greater than 1e18.
    """

    def __init__(self, points: Tensor, name: str = "PointTree.points"):
        with torch.no_grad():
            self.points, self.order = _sorted_rows(points.detach(), name)
            count = self.points.shape[1]
            leaves = 1 << max(0, (count - 1) // LEAF_SIZE).bit_length()
            self.placed, self.boxes = build_boxes(self.points, self.order, leaves=leaves)
        self.worlds, self.count = self.points.shape[0], count


def _sorted_rows(points: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """The points, float32 and contiguous, and their rows in Hilbert order (world, point) int32."""
    if points.dim() != 3 or points.shape[2] != 3:
        raise UserError(f"{name}: expected shape (world, point, 3), got {tuple(points.shape)}")
    if points.shape[0] == 0 or points.shape[1] == 0:
        raise UserError(
            f"{name}: expected at least one point a world, got shape {tuple(points.shape)}; remedy: drop empty sets"
        )
    if points.dtype != torch.float32:
        raise UserError(f"{name}: expected float32, got {points.dtype}; remedy: points.float()")
    points = points.contiguous()
    low, high = points.amin(dim=1), points.amax(dim=1)
    if not bool((torch.maximum(high.abs(), low.abs()) < LARGEST).all()):  # false for NaN too
        raise UserError(f"{name}: expected finite coordinates below {LARGEST:g} m, got NaN, infinity or more")
    return points, curve_order(points, low, (high - low).amax(dim=1))


def nearest_points(queries: Tensor | PointTree, points: Tensor | PointTree) -> NearestPoints:
    """The nearest of `points` to each of `queries`: exact up to the rounding of float32. Without gradient.

    Args:
        queries, points: [m], (world, query, 3) and (world, point, 3) on one device, or `PointTree`s of them where they are
            asked more than once or in both directions; a world axis of one is repeated.
    Returns: NearestPoints. Among points equally near any one is returned.
    Raises: UserError as `PointTree`, for worlds or devices that differ.
    """
    tree = points if isinstance(points, PointTree) else PointTree(points, "nearest_points.points")
    with torch.no_grad():
        if isinstance(queries, PointTree):
            asked, order = queries.points, queries.order
        else:
            asked, order = _sorted_rows(queries.detach(), "nearest_points.queries")
        device = asked.device
        if device != tree.points.device:
            raise UserError(f"nearest_points: expected both sets on one device, got {device} and {tree.points.device}")
        worlds, count = world_count(asked, tree.points), asked.shape[1]
        chunks = -(-count // CHUNK)
        row = torch.cat([order, order[:, -1:].expand(-1, chunks * CHUNK - count)], dim=1).reshape(-1, chunks, CHUNK)
        shuffle = torch.cat([torch.arange(first, chunks, INTERLEAVE) for first in range(min(INTERLEAVE, chunks))]).to(device)
        row = row[:, shuffle].expand(worlds, -1, -1).reshape(worlds * chunks, CHUNK)
        world = torch.arange(worlds, dtype=torch.int32, device=device).repeat_interleave(chunks)
        first = torch.zeros_like(world)
        index, square = search_chunks(
            row,
            world if asked.shape[0] > 1 else first,
            world if tree.worlds > 1 else first,
            asked,
            tree.placed,
            tree.boxes,
            tree.order,
            run=RUN_CPU if device.type == "cpu" else RUN_CUDA,
            group=GROUP_CPU if device.type == "cpu" else GROUP_CUDA,
        )
        place = row.reshape(worlds, -1).long()
        result = torch.empty(worlds, count, dtype=torch.int64, device=device)
        result.scatter_(1, place, index.reshape(worlds, -1).long())
        squares = torch.empty(worlds, count, device=device).scatter_(1, place, square.reshape(worlds, -1))
    return NearestPoints(result, squares)
