"""Forests of 8-wide trees over triangles (traversed by wide_bvh): building on the host, refitting on the device.

The shapes of the trees come from wide_bvh_cut, on the host. Boxes and corners are then written from the leaves up. This step
alone is a refit: vertices have moved, the faces are the same.

There is a tree for each (world, instance). Nothing here is differentiated or captured.

Faces with a vertex that is not finite are in no tree. Degenerate faces (area below 1e-7 of the square of the longest edge:
indistinguishable from a segment in float32) are in the tree but are never met, until a refit gives them an area.
Boxes of leaves are larger than their triangles by 1e-6 of their size, so that rounding in the test of a triangle cannot carry a
hit out of its box.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import warp as wp

from dvc.errors import UserError
from render.wide_bvh import NODE_SIZE, ROW_SIZE, WIDTH, Forest
from render.wide_bvh_cut import (
    BOX,
    DEPTH_LIMIT,
    EMPTY,
    LEAF_FACES,
    NODE_COST,
    ROW_COST,
    bound_faces,
    cut_trees,
    usable,
    widen_trees,
)  # fmt: skip

REBUILD_RATIO = 1.5  # of the cost after a refit to the cost after building, above which a forest is built anew
MARGIN = wp.constant(1.0e-6)  # of a leaf's box, relative to its longest edge
DEGENERATE = wp.constant(1.0e-7)  # twice the area over the longest edge squared


@wp.kernel(enable_backward=False)
def write_rows(
    vertices: wp.array2d(dtype=wp.vec3),
    faces: wp.array2d(dtype=int),
    row_faces: wp.array(dtype=int),
    row_world: wp.array(dtype=int),
    rows: wp.array(dtype=float),
    low: wp.array(dtype=wp.vec3),
    high: wp.array(dtype=wp.vec3),
):
    """Corners and box of each row. A face that cannot be met has three corners at the origin."""
    row = wp.tid()
    least = wp.vec3(EMPTY, EMPTY, EMPTY)
    greatest = -least
    for lane in range(wp.static(WIDTH)):
        face = row_faces[row * wp.static(WIDTH) + lane]
        a = wp.vec3()
        b = wp.vec3()
        c = wp.vec3()
        if face >= 0:
            world = row_world[row]
            p = vertices[world, faces[face, 0]]
            q = vertices[world, faces[face, 1]]
            r = vertices[world, faces[face, 2]]
            if usable(p) and usable(q) and usable(r):
                least = wp.min(least, wp.min(p, wp.min(q, r)))
                greatest = wp.max(greatest, wp.max(p, wp.max(q, r)))
                longest = wp.max(wp.length_sq(q - p), wp.max(wp.length_sq(r - q), wp.length_sq(p - r)))
                if wp.length(wp.cross(q - p, r - p)) > DEGENERATE * longest:
                    a = p
                    b = q
                    c = r
        for k in range(3):
            at = row * wp.static(ROW_SIZE) + k * wp.static(WIDTH) + lane
            rows[at] = a[k]
            rows[at + 24] = b[k]
            rows[at + 48] = c[k]
    low[row] = least
    high[row] = greatest


@wp.kernel(enable_backward=False)
def write_nodes(
    order: wp.array(dtype=int),
    first: int,
    low: wp.array(dtype=wp.vec3),
    high: wp.array(dtype=wp.vec3),
    node_tree: wp.array(dtype=int),
    nodes: wp.array(dtype=float),
    node_low: wp.array(dtype=wp.vec3),
    node_high: wp.array(dtype=wp.vec3),
    costs: wp.array(dtype=float),
):
    """Boxes of the children of one level's nodes, and what testing them costs a ray that meets the world at random."""
    node = order[first + wp.tid()]
    least = wp.vec3(EMPTY, EMPTY, EMPTY)
    greatest = -least
    cost = float(0.0)
    for lane in range(wp.static(WIDTH)):
        at = node * wp.static(NODE_SIZE) + lane
        code = wp.cast(nodes[at + wp.static(6 * WIDTH)], int)
        a = wp.vec3(EMPTY, EMPTY, EMPTY)
        b = -a
        price = float(0.0)
        if code >= 0:
            place = code >> 4
            count = code & 15
            if count == 0:
                a = node_low[place]
                b = node_high[place]
                price = wp.static(NODE_COST)
            else:
                for row in range(place, place + count):
                    a = wp.min(a, low[row])
                    b = wp.max(b, high[row])
                price = wp.static(ROW_COST) * float(count)
                if a[0] <= b[0]:
                    margin = wp.max(b - a) * MARGIN
                    a -= wp.vec3(margin, margin, margin)
                    b += wp.vec3(margin, margin, margin)
        if a[0] <= b[0]:
            e = b - a
            cost += price * (e[0] * e[1] + e[1] * e[2] + e[2] * e[0])
            least = wp.min(least, a)
            greatest = wp.max(greatest, b)
        for k in range(3):
            nodes[at + k * wp.static(WIDTH)] = a[k]
            nodes[at + (k + 3) * wp.static(WIDTH)] = b[k]
    node_low[node] = least
    node_high[node] = greatest
    wp.atomic_add(costs, node_tree[node], cost)


@wp.kernel(enable_backward=False)
def divide_by_root(
    roots: wp.array(dtype=int),
    node_low: wp.array(dtype=wp.vec3),
    node_high: wp.array(dtype=wp.vec3),
    costs: wp.array(dtype=float),
):
    tree = wp.tid()
    code = roots[tree]
    if code >= 0 and (code & 15) == 0:
        e = node_high[code >> 4] - node_low[code >> 4]
        area = e[0] * e[1] + e[1] * e[2] + e[2] * e[0]
        costs[tree] = wp.where(area > 0.0, costs[tree] / area, 0.0)


@wp.kernel(enable_backward=False)
def count_recovered(
    vertices: wp.array2d(dtype=wp.vec3),
    faces: wp.array2d(dtype=int),
    left_out: wp.array2d(dtype=int),
    count: wp.array(dtype=int),
):
    """How many of the faces that were left out have become finite."""
    i = wp.tid()
    world = left_out[i, 0]
    face = left_out[i, 1]
    a = vertices[world, faces[face, 0]]
    b = vertices[world, faces[face, 1]]
    c = vertices[world, faces[face, 2]]
    if usable(a) and usable(b) and usable(c):
        wp.atomic_add(count, 0, 1)


@dataclass
class ForestHolder:
    """A forest and what keeps it alive: hold on to this as long as kernels use `forest`. Made by `build_forest`."""

    forest: Forest
    faces: wp.array  # (face, 3)
    face_instance: wp.array  # (face,)
    instance_count: int
    row_world: wp.array
    node_tree: wp.array
    node_order: wp.array  # nodes from the deepest level up
    level_ends: list[int]  # where in it the levels end
    left_out: wp.array  # faces with a vertex that is not finite: world, face
    costs: np.ndarray  # after building: expected node and row tests of a ray that meets the root's box, (world * instance,)
    scratch: tuple[wp.array, ...]
    rebuild_count: int = 0

    @property
    def row_count(self) -> int:
        return len(self.row_world)

    @property
    def node_count(self) -> int:
        return len(self.node_tree)


def _host_array(count: int, dtype: type) -> wp.array:
    """On the host, at a multiple of 64 bytes. NumPy asks the system for large pages, Warp does not."""
    raw = np.empty(4 * count + 64, np.uint8)
    start = -raw.ctypes.data % 64
    numbers = raw[start : start + 4 * count].view(np.float32 if dtype is float else np.int32)
    return wp.array(numbers, dtype=dtype, device="cpu", copy=False)


def _write(holder: ForestHolder, vertices: wp.array) -> np.ndarray:
    """Write boxes and corners; the cost of each tree."""
    forest = holder.forest
    low, high, node_low, node_high, costs = holder.scratch
    costs.zero_()
    with wp.ScopedDevice(vertices.device):
        wp.launch(write_rows, holder.row_count, [vertices, holder.faces, forest.row_faces, holder.row_world],
                  [forest.rows, low, high])  # fmt: skip
        first = 0
        for end in holder.level_ends:
            wp.launch(write_nodes, end - first, [holder.node_order, first, low, high, holder.node_tree],
                      [forest.nodes, node_low, node_high, costs])  # fmt: skip
            first = end
        wp.launch(divide_by_root, len(costs), [forest.roots.flatten(), node_low, node_high], [costs])
    return costs.numpy().copy()


def build_forest(vertices: wp.array, faces: wp.array, face_instance: wp.array, instance_count: int) -> ForestHolder:
    """A tree for each (world, instance).

    vertices [m], vec3, (world, vertex), each in the frame of its instance; faces, int, (face, 3); face_instance, int, (face,).
    The trees are cut on the host, whatever the device; everything is on the vertices' device afterwards.
    """
    face_count = len(faces)
    worlds = vertices.shape[0]
    instance = face_instance.numpy()
    if faces.shape != (face_count, 3) or instance.shape != (face_count,):
        raise UserError(
            f"faces, face_instance: expected shapes (face, 3) and (face,), got {faces.shape} and {face_instance.shape}"
        )
    if face_count and (instance.min() < 0 or instance.max() >= instance_count):
        raise UserError(
            f"face_instance: expected numbers from 0 to {instance_count - 1}, got {instance.min()} to {instance.max()}"
        )
    corners = faces.numpy()
    if face_count and (corners.min() < 0 or corners.max() >= vertices.shape[1]):
        raise UserError(f"faces: expected vertices from 0 to {vertices.shape[1] - 1}, got {corners.min()} to {corners.max()}")
    total = worlds * face_count
    if total * 2 >= 2**27:
        raise UserError(f"faces: expected fewer than {2**26} faces in all worlds together, got {total}")
    device = vertices.device
    order = np.argsort(instance, kind="stable").astype(np.int32)
    per_world = np.searchsorted(instance[order], np.arange(instance_count))
    starts = np.append((np.arange(worlds)[:, None] * face_count + per_world).ravel(), total).astype(np.int32)
    trees = worlds * instance_count
    with wp.ScopedDevice("cpu"):
        boxes = wp.empty((worlds, face_count), dtype=BOX)
        wp.launch(bound_faces, (worlds, face_count), [vertices.to("cpu"), faces.to("cpu"), wp.array(order, dtype=int)], [boxes])
        boxes = boxes.flatten()
        binary, costs = wp.empty(2 * total, dtype=BOX), wp.empty(2 * total, dtype=BOX)
        left, origin, level = (wp.empty(2 * total, dtype=int) for _ in range(3))
        counts, roots = wp.zeros(trees, dtype=int), wp.empty(trees, dtype=int)
        sizes = wp.zeros(2 * trees, dtype=int)
        begin = wp.array(starts, dtype=int)
        wp.launch(cut_trees, trees, [begin, boxes, binary, left, costs, LEAF_FACES, DEPTH_LIMIT, NODE_COST, ROW_COST], [counts])
        nothing, none = wp.empty(0, dtype=float), wp.empty(0, dtype=int)
        zeros = wp.zeros(trees, dtype=int)
        wp.launch(widen_trees, trees, [False, begin, counts, zeros, zeros, boxes, binary, left, costs, origin, level, sizes,
                                       nothing, none, none, none, roots])  # fmt: skip
        size = sizes.numpy().reshape(trees, 2)
        ends = size.cumsum(axis=0)
        node_count, row_count = (int(n) for n in ends[-1]) if trees else (0, 0)
        node_starts, row_starts = (wp.array((ends - size)[:, i].astype(np.int32), dtype=int) for i in range(2))
        nodes, row_faces = _host_array(node_count * NODE_SIZE, float), _host_array(row_count * WIDTH, int)
        node_level, node_tree = wp.empty(node_count, dtype=int), wp.empty(node_count, dtype=int)
        wp.launch(widen_trees, trees, [True, begin, counts, node_starts, row_starts, boxes, binary, left, costs, origin, level,
                                       sizes, nodes, row_faces, node_level, node_tree, roots])  # fmt: skip
        levels = node_level.numpy()
        node_order = np.argsort(-levels, kind="stable").astype(np.int32)
        level_ends = np.flatnonzero(np.diff(-levels[node_order], append=1)) + 1
        row_world = np.repeat(np.arange(trees) // instance_count, size[:, 1]).astype(np.int32)
        filled = counts.numpy()
        place = np.arange(total) - np.repeat(starts[:-1], np.diff(starts))
        left_out = np.flatnonzero(place >= np.repeat(filled, np.diff(starts)))
        missing = np.stack([left_out // face_count, boxes.numpy()[left_out, 3].view(np.int32)], axis=1)
    forest = Forest()
    forest.nodes, forest.row_faces = nodes.to(device), row_faces.to(device)
    forest.rows = _host_array(row_count * ROW_SIZE, float).to(device)
    forest.roots = roots.reshape((worlds, instance_count)).to(device)
    with wp.ScopedDevice(device):
        scratch = (*(wp.empty(row_count, dtype=wp.vec3) for _ in range(2)),
                   *(wp.empty(node_count, dtype=wp.vec3) for _ in range(2)), wp.zeros(trees, dtype=float))  # fmt: skip
        holder = ForestHolder(
            forest, faces, face_instance, instance_count, wp.array(row_world, dtype=int), node_tree.to(device),
            wp.array(node_order, dtype=int), [int(end) for end in level_ends],
            wp.array(missing.astype(np.int32), dtype=int, ndim=2), np.zeros(trees, np.float32), scratch,
        )  # fmt: skip
    holder.costs = _write(holder, vertices)
    return holder


def refit_forest(holder: ForestHolder, vertices: wp.array) -> bool:
    """Carry a forest along with vertices that moved, (world, vertex), in place.

    A tree keeps its shape, so that queries slow down as neighbours move apart. It is built anew (`rebuild_count` counts that)
    where the cost of a tree has grown by REBUILD_RATIO, or where a face has become finite that was not.

    Returns whether it was built anew. The struct then names new arrays: a struct that `holder.forest` was copied into (Warp
    copies on assignment) needs it again.
    """
    recovered = 0
    if len(holder.left_out):
        with wp.ScopedDevice(vertices.device):
            count = wp.zeros(1, dtype=int)
            wp.launch(count_recovered, len(holder.left_out), [vertices, holder.faces, holder.left_out], [count])
            recovered = int(count.numpy()[0])
    if not recovered and bool((_write(holder, vertices) <= REBUILD_RATIO * holder.costs + 1e-30).all()):
        return False
    fresh = build_forest(vertices, holder.faces, holder.face_instance, holder.instance_count)
    for name in ("nodes", "rows", "row_faces", "roots"):
        setattr(holder.forest, name, getattr(fresh.forest, name))
    fresh.forest, fresh.rebuild_count = holder.forest, holder.rebuild_count + 1
    holder.__dict__.update(fresh.__dict__)
    return True
