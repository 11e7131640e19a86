r"""Which pairs of shapes may touch: bounding balls against each other, all pairs or through a bounding volume hierarchy.

Few shapes: all pairs of a world are compared. Many: a `wp.Bvh` over the boxes of all worlds' balls, a group a world, rebuilt at
each step (Warp's builder; O(n log n)); half spaces, which have no bounds, are compared with all. Pairs are found without
gradient: a pair that is not near gives no force, so nothing is lost.
"""

import warp as wp

from dvc.warp_op import keep, scratch
from geometry.sdf_distances import BOX, CAPSULE, CYLINDER, ELLIPSOID, HALF_SPACE, ROUNDED_BOX
from physics.contact_shapes import ENDLESS, shape_vector
from physics.contacts import REACH

FEW = 24  # shapes; up to so many, all pairs are compared


@wp.func
def bounding_radius(kind: int, p: shape_vector):
    """About the shape's own origin [m]. Grids and points: size[0]."""
    radius = p[0]
    if kind == BOX or kind == ROUNDED_BOX:  # noqa: SIM109
        radius = wp.length(wp.vec3(p[0], p[1], p[2]))
    elif kind == ELLIPSOID:
        radius = wp.max(p[0], wp.max(p[1], p[2]))
    elif kind == CAPSULE:
        radius = p[0] + p[1]
    elif kind == CYLINDER:
        radius = wp.sqrt(p[0] * p[0] + p[1] * p[1])
    elif kind == HALF_SPACE:
        radius = ENDLESS
    return radius


@wp.kernel(enable_backward=False)
def ball_kernel(
    shape_numbers: wp.array2d(dtype=shape_vector),
    shapes: wp.array2d(dtype=int),
    turns: wp.array2d(dtype=wp.quat),
    places: wp.array2d(dtype=wp.vec3),
    turning: wp.array2d(dtype=wp.vec3),
    moving: wp.array2d(dtype=wp.vec3),
    h: float,
    balls: wp.array2d(dtype=wp.vec4),
    lower: wp.array(dtype=wp.vec3),
    upper: wp.array(dtype=wp.vec3),
):
    """Bounding balls that hold the shape through the step."""
    w, a = wp.tid()
    p = shape_numbers[w, a]
    slot = shapes[a, 0]
    arm = wp.quat_rotate(turns[w, slot], wp.vec3(p[4], p[5], p[6]))
    centre = places[w, slot] + arm
    radius = bounding_radius(shapes[a, 1], p)
    speed = wp.length(moving[w, slot]) + wp.length(turning[w, slot]) * (wp.length(arm) + wp.min(radius, 1.0e3))
    reach = radius + 2.0 * h * speed + h * h * REACH
    balls[w, a] = wp.vec4(centre[0], centre[1], centre[2], reach)
    if lower.shape[0] > 0:
        size = wp.where(shapes[a, 1] == HALF_SPACE, 0.0, reach)
        box = wp.vec3(size, size, size)
        lower[w * shapes.shape[0] + a] = centre - box
        upper[w * shapes.shape[0] + a] = centre + box


@wp.func
def apart(a: wp.vec4, b: wp.vec4):
    d = wp.length(wp.vec3(a[0] - b[0], a[1] - b[1], a[2] - b[2]))
    return d > a[3] + b[3]


@wp.kernel(enable_backward=False)
def all_pairs_kernel(
    features: wp.array2d(dtype=int),
    balls: wp.array2d(dtype=wp.vec4),
    near: wp.array2d(dtype=wp.vec2i),
    count: wp.array(dtype=int),
):
    w = wp.tid()
    total = int(0)
    shapes = features.shape[0]
    for a in range(shapes):
        for b in range(a + 1, shapes):
            if features[a, b] + features[b, a] > 0 and not apart(balls[w, a], balls[w, b]):
                if total < near.shape[1]:
                    near[w, total] = wp.vec2i(a, b)
                total = total + 1
    count[w] = total


@wp.kernel(enable_backward=False)
def tree_pairs_kernel(
    hierarchy: wp.uint64,
    shapes: wp.array2d(dtype=int),
    features: wp.array2d(dtype=int),
    balls: wp.array2d(dtype=wp.vec4),
    lower: wp.array(dtype=wp.vec3),
    upper: wp.array(dtype=wp.vec3),
    near: wp.array2d(dtype=wp.vec2i),
    count: wp.array(dtype=int),
):
    w, a = wp.tid()
    shape_count = shapes.shape[0]
    if shapes[a, 1] == HALF_SPACE:
        for b in range(shape_count):
            if features[a, b] + features[b, a] > 0:
                place = wp.atomic_add(count, w, 1)
                if place < near.shape[1]:
                    near[w, place] = wp.vec2i(a, b)
        return
    root = wp.bvh_get_group_root(hierarchy, w)
    query = wp.bvh_query_aabb(hierarchy, lower[w * shape_count + a], upper[w * shape_count + a], root)
    item = int(0)
    while wp.bvh_query_next(query, item):
        b = item - w * shape_count
        allowed = b > a and shapes[b, 1] != HALF_SPACE and features[a, b] + features[b, a] > 0
        if allowed and not apart(balls[w, a], balls[w, b]):
            place = wp.atomic_add(count, w, 1)
            if place < near.shape[1]:
                near[w, place] = wp.vec2i(a, b)


class BroadPhase:
    """Work arrays of the search and its launches. Made in the body of an op."""

    def __init__(self, worlds: int, shapes: int, capacity: int, device: object, tree: bool):
        def array(shape: int | tuple[int, ...], dtype: object) -> wp.array:
            return scratch(shape, dtype, requires_grad=False)

        boxes = worlds * shapes if tree else 0
        self.worlds, self.shapes, self.tree = worlds, shapes, tree
        self.balls = array((worlds, shapes), wp.vec4)
        self.lower, self.upper = array(boxes, wp.vec3), array(boxes, wp.vec3)
        self.near, self.count = array((worlds, capacity), wp.vec2i), array(worlds, wp.int32)
        self.hierarchy = None
        if tree:
            groups = keep(
                lambda: wp.array([w for w in range(worlds) for _ in range(shapes)], dtype=wp.int32, device=device)  # type: ignore[arg-type]
            )
            self.hierarchy = keep(lambda: wp.Bvh(self.lower, self.upper, groups=groups))

    def launch(self, shape_numbers: wp.array, table: wp.array, features: wp.array, motion: list, h: float) -> None:
        """motion: turns, places, angular velocities, velocities by slot."""
        wp.launch(
            ball_kernel, (self.worlds, self.shapes), [shape_numbers, table, *motion, h], [self.balls, self.lower, self.upper]
        )
        if self.hierarchy is None:
            wp.launch(all_pairs_kernel, self.worlds, [features, self.balls], [self.near, self.count])
            return
        self.hierarchy.rebuild()
        self.count.zero_()
        wp.launch(
            tree_pairs_kernel, (self.worlds, self.shapes),
            [self.hierarchy.id, table, features, self.balls, self.lower, self.upper], [self.near, self.count],
        )  # fmt: skip
