r"""Where two shapes touch: feature points with a radius on one, the signed distance of the other.

A contact is (shape a, feature, shape b). The feature is a point y of a, with a radius: gap = phi_b(y) - radius, normal
n = grad phi_b, pushing a away from b. Distances and normals come from `geometry.sdf_distances`, whose adjoints differentiate
the normal too: it follows poses, sizes and the shape under it.

    sphere        its centre
    capsule       the ends of its axis; against a capsule the closest points of the two axes (Ericson, "Real-Time Collision
                  Detection", 2005, 5.1.9)
    box           its corners; against a half space exactly, else balls of INSET times its least half extent in the corners, so
                  that a corner above an edge has a normal that is defined
    rounded box   the corners of the box inside, with the rounding
    cylinder      the deepest point of each rim and rings it can stand on (`contact_rims`), with shares of the stiffness
    ellipsoid     against a half space: the point farthest along -n, y = -r (r R^T n) / |r R^T n|
    points        each point of a mesh

Edges of boxes, and shafts, also cross edges (`contact_edges`): such a feature is a pair of lines and has a *share* of the
stiffness. Lines across a cylinder's rim have none: a bar across an upright cylinder narrower than it is not felt until a corner
or a point of a ring is inside. The pairs that have features, and on which side, are in `pair_features`.
"""

import warp as wp

from dvc.errors import Unsupported
from geometry.sdf_distances import BOX, CAPSULE, CYLINDER, ELLIPSOID, HALF_SPACE, ROUNDED_BOX, SPHERE, primitive_distance
from physics.contact_edges import crossing
from physics.contact_grid import grid_distance
from physics.contact_rims import RIM_POINTS, rim_end, rim_point

INSET = wp.constant(0.02)
ENDLESS = wp.constant(1.0e9)
GRID = wp.constant(10)
POINTS = wp.constant(11)
KINDS = {
    "sphere": int(SPHERE), "ellipsoid": int(ELLIPSOID), "box": int(BOX), "rounded_box": int(ROUNDED_BOX),
    "capsule": int(CAPSULE), "cylinder": int(CYLINDER), "half_space": int(HALF_SPACE), "grid": int(GRID), "points": int(POINTS),
}  # fmt: skip
SOLIDS = ("box", "rounded_box")
FLAT = ("half_space", "grid")  # against these every shape with features has all that it needs

shape_vector = wp.types.vector(length=16, dtype=float)
# layout: 0-3 size (as in geometry.sdf_distances), 4-6 position, 7-10 rotation in the link's frame, 11-15 material_vector


def feature_count(kind: str, target: str, points: int = 0) -> int:
    """Points of a shape of `kind` that are tested against the distance of a `target`; 0: none."""
    if target == "points" or kind in FLAT:
        return 0
    if kind == "points":
        return points
    if kind == "sphere":
        return 1
    if kind == "capsule":
        return {"sphere": 0, "ellipsoid": 0, "capsule": 1}.get(target, 2)
    if kind == "cylinder":
        return {"sphere": 0, "ellipsoid": 0, "capsule": 2}.get(target, int(RIM_POINTS))
    if kind in SOLIDS:
        return 8 if target in (*FLAT, *SOLIDS, "capsule", "cylinder") else 0
    return 1 if kind == "ellipsoid" and target == "half_space" else 0


def crossing_count(first: str, second: str) -> int:
    """Pairs of edges, or shafts; those of two capsules are features of their own."""
    lines = {"box": 12, "rounded_box": 12, "capsule": 1, "cylinder": 1}
    return 0 if first == second == "capsule" else lines.get(first, 0) * lines.get(second, 0)


def pair_features(first: str, second: str, points: tuple[int, int] = (0, 0)) -> tuple[int, int]:
    """(features of the first against the second, features of the second against the first).

    Raises: Unsupported where neither has any: two flat ones, an ellipsoid and another without corners or centre.
    """
    forward = feature_count(first, second, points[0])
    backward = feature_count(second, first, points[1])
    if first == second and first in ("sphere", "capsule"):
        backward = 0  # the same contact, seen from the other side
    if forward + backward == 0 or {first, second} == {"ellipsoid", "cylinder"}:
        raise Unsupported(f"contact between {first} and {second}: not supported; remedy: points of a mesh for one of them")
    return forward + crossing_count(first, second), backward


@wp.func
def corner(k: int):
    x = float(1.0)
    y = float(1.0)
    z = float(1.0)
    if (k & 1) == 0:
        x = -1.0
    if (k & 2) == 0:
        y = -1.0
    if (k & 4) == 0:
        z = -1.0
    return wp.vec3(x, y, z)


@wp.func
def axis_parameter(r: wp.vec3, a: wp.vec3, b: wp.vec3, half_a: float, half_b: float):
    """Where on the segment of direction a its closest point to that of direction b lies; r from b's centre to a's, all unit."""
    along = wp.dot(a, b)
    ra = wp.dot(r, a)
    rb = wp.dot(r, b)
    steep = 1.0 - along * along
    s = float(0.0)
    if steep > 1.0e-6:
        s = wp.clamp((along * rb - ra) / steep, -half_a, half_a)
    t = s * along + rb
    if t > half_b:
        s = wp.clamp(along * half_b - ra, -half_a, half_a)
    elif t < -half_b:
        s = wp.clamp(-along * half_b - ra, -half_a, half_a)
    return s


@wp.func
def feature_point(
    kind: int, size: wp.vec4, k: int, target: int, target_size: wp.vec4, r: wp.vec3, turn: wp.mat33, point: wp.vec3
):
    """(point, radius) in the frame of a. r: from b's centre to a's, turn: b to a, both in a's axes."""
    out = wp.vec4(0.0, 0.0, 0.0, 0.0)
    if kind == SPHERE:
        out = wp.vec4(0.0, 0.0, 0.0, size[0])
    elif kind == CAPSULE:
        s = size[0]
        if k == 0:
            s = -size[0]
        if target == CAPSULE:
            s = axis_parameter(r, wp.vec3(0.0, 0.0, 1.0), wp.vec3(turn[0, 2], turn[1, 2], turn[2, 2]), size[0], target_size[0])
        out = wp.vec4(0.0, 0.0, s, size[1])
    elif kind == BOX or kind == ROUNDED_BOX:  # noqa: SIM109
        radius = size[3]
        if kind == BOX:
            radius = 0.0
            if target != HALF_SPACE:
                radius = INSET * wp.min(size[0], wp.min(size[1], size[2]))
        e = corner(k)
        out = wp.vec4(e[0] * (size[0] - radius), e[1] * (size[1] - radius), e[2] * (size[2] - radius), radius)
    elif kind == ELLIPSOID:
        m = wp.vec3(size[0] * turn[0, 2], size[1] * turn[1, 2], size[2] * turn[2, 2])
        y = wp.cw_mul(wp.vec3(size[0], size[1], size[2]), m) * (-1.0 / wp.sqrt(wp.dot(m, m)))
        out = wp.vec4(y[0], y[1], y[2], 0.0)
    else:
        out = wp.vec4(point[0], point[1], point[2], 0.0)
    return out


@wp.func
def turn_of(p: shape_vector):
    return wp.quat(p[7], p[8], p[9], p[10])


@wp.func
def size_of(p: shape_vector):
    return wp.vec4(p[0], p[1], p[2], p[3])


@wp.func
def point_count(kind: int):
    """Features of a shape that are points; those that follow are crossings of its edges with the other's."""
    count = int(1)
    if kind == CAPSULE:
        count = 2
    elif kind == BOX or kind == ROUNDED_BOX:  # noqa: SIM109
        count = 8
    elif kind == CYLINDER:
        count = RIM_POINTS
    return count


@wp.func
def distance_of(kind: int, p: shape_vector, z: wp.vec3, values: wp.array4d(dtype=float), frame: wp.vec4, w: int):
    """(distance, normal) in the shape's frame."""
    phi = wp.vec4(0.0, 0.0, 0.0, 0.0)
    if kind == GRID:
        phi = grid_distance(values, frame, w, z)
    else:
        phi = primitive_distance(kind, size_of(p), z)
    return phi


@wp.func
def rim_feature(
    a: shape_vector, b: shape_vector, kind_b: int, k: int, between: wp.vec3, qa: wp.quat, qb: wp.quat,
    values: wp.array4d(dtype=float), frame: wp.vec4, w: int,
):  # fmt: skip
    """(point, radius) in the frame of a, and its share."""
    rounding = float(0.0)
    if kind_b != HALF_SPACE:
        rounding = INSET * wp.min(a[0], a[1])
    middle = wp.quat_rotate(qa, wp.vec3(0.0, 0.0, rim_end(size_of(a), k)))
    phi = distance_of(kind_b, b, wp.quat_rotate_inv(qb, between + middle), values, frame, w)
    m = wp.quat_rotate_inv(qa, wp.quat_rotate(qb, wp.vec3(phi[1], phi[2], phi[3])))
    y, share = rim_point(size_of(a), k, m, rounding)
    return wp.vec4(y[0], y[1], y[2], rounding), share


@wp.func
def touch_with_share(
    a: shape_vector, b: shape_vector, kind_a: int, kind_b: int, k: int, point: wp.vec3,
    turn_a: wp.quat, turn_b: wp.quat, place_a: wp.vec3, place_b: wp.vec3,
    values: wp.array4d(dtype=float), frame: wp.vec4, w: int,
):  # fmt: skip
    """(gap, normal, arm from a's link, arm from b's link, share of the stiffness), world axes; turn and place: of the links."""
    qa = turn_a * turn_of(a)
    qb = turn_b * turn_of(b)
    centre_a = wp.quat_rotate(turn_a, wp.vec3(a[4], a[5], a[6]))
    centre_b = wp.quat_rotate(turn_b, wp.vec3(b[4], b[5], b[6]))
    between = (place_a - place_b) + centre_a - centre_b
    gap = float(0.0)
    n = wp.vec3(0.0, 0.0, 0.0)
    y = wp.vec3(0.0, 0.0, 0.0)
    radius = float(0.0)
    share = float(1.0)
    if kind_a != POINTS and k >= point_count(kind_a):
        gap, n, y, radius, share = crossing(kind_a, kind_b, size_of(a), size_of(b), k - point_count(kind_a), qa, qb, between)
    else:
        f = wp.vec4(0.0, 0.0, 0.0, 0.0)
        if kind_a == CYLINDER:
            f, share = rim_feature(a, b, kind_b, k, between, qa, qb, values, frame, w)
        else:
            turn = wp.quat_to_matrix(wp.quat_inverse(qa) * qb)
            f = feature_point(kind_a, size_of(a), k, kind_b, size_of(b), wp.quat_rotate_inv(qa, between), turn, point)
        radius = f[3]
        y = wp.quat_rotate(qa, wp.vec3(f[0], f[1], f[2]))
        phi = distance_of(kind_b, b, wp.quat_rotate_inv(qb, between + y), values, frame, w)
        n = wp.quat_rotate(qb, wp.vec3(phi[1], phi[2], phi[3]))
        gap = phi[0] - radius
    back = n * (radius + 0.5 * gap)
    arm_a = centre_a + y - back
    arm_b = arm_a + (place_a - place_b)
    return gap, n, arm_a, arm_b, share


@wp.func
def touch(
    a: shape_vector, b: shape_vector, kind_a: int, kind_b: int, k: int, point: wp.vec3,
    turn_a: wp.quat, turn_b: wp.quat, place_a: wp.vec3, place_b: wp.vec3,
    values: wp.array4d(dtype=float), frame: wp.vec4, w: int,
):  # fmt: skip
    """(gap, normal, arm from a's link, arm from b's link), world axes, for laws without shares: where a feature has less than
    half of its share, it is ENDLESS away."""
    gap, n, arm_a, arm_b, share = touch_with_share(
        a, b, kind_a, kind_b, k, point, turn_a, turn_b, place_a, place_b, values, frame, w
    )
    if share < 0.5:
        gap = ENDLESS
    return gap, n, arm_a, arm_b
