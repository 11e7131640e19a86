r"""Where an edge crosses an edge, or a shaft: the vertices of a contact's polygon that are no corners.

Lines p_a + s a and p_b + t b, directions of unit length; n = +-(a x b) / |a x b|, from b to a. With the radii of the lines
(shafts, rounded edges) and r = p_a - p_b,

    gap = n . r - radius_a - radius_b,    s = ((a.b)(r.b) - r.a) / (1 - (a.b)^2),    t = s (a.b) + r.b

(Ericson, "Real-Time Collision Detection", 2005, 5.1.8; n is the separating axis of two edges, Gottschalk, Lin and Manocha,
"OBBTree", 1996). An edge has faces f on its sides: n must lie between b's, and -n between a's, which says which of the parallel
edges meet. The force is a *share* of that of a corner, the product of four smooth steps, so that it is C1 and no vertex of the
polygon is felt twice:

    end      zero where the crossing is at an end of its edge, whole from the depth d inwards (d rounded below by EDGE times the
             least half extent): there the corner is felt, by the distance of the other shape
    angle    of sin^2 between the lines, whole from SKEW on: parallel edges meet in their corners
    faces    zero where n leans beyond a face by more than LEAN (a sine), whole where it lies between the faces
    depth    whole while d is below half of the way through both shapes along n, zero at all of it

So a box upon a face, or two boxes of one size in a stack, have corners only; two crossed bars have four crossings and no
corner; in between the sum of shares goes smoothly from one to the other. Close to an end the corner and the crossing are felt,
and where a face lies almost on a face (n within LEAN of it) the next edge too: up to twice the stiffness.
"""

import warp as wp

from geometry.sdf_distances import BOX, CAPSULE, CYLINDER, ROUNDED_BOX

EDGE = wp.constant(0.02)
SKEW = wp.constant(0.04)
LEAN = wp.constant(0.1)
LEAST_SINE = wp.constant(1.0e-5)  # squared; nearer to parallel, lines have no crossing

edge_vector = wp.types.vector(length=15, dtype=float)
# layout: 0-2 place of its middle, 3-5 direction, 6-8 and 9-11 faces' normals, all in world axes about the shape's centre;
# 12 half length, 13 radius, 14 least half extent of the shape


@wp.func
def smooth_step(x: float):
    """0 below 0, 1 above 1, twice differentiable."""
    t = wp.clamp(x, 0.0, 1.0)
    return t * t * t * (10.0 + t * (6.0 * t - 15.0))


@wp.func
def has_faces(kind: int):
    return wp.where(kind == BOX, True, kind == ROUNDED_BOX)


@wp.func
def line_count(kind: int):
    """Edges, or shafts, of a shape."""
    count = int(0)
    if has_faces(kind):
        count = 12
    elif kind == CAPSULE or kind == CYLINDER:  # noqa: SIM109
        count = 1
    return count


@wp.func
def axis(i: int):
    return wp.vec3(wp.where(i == 0, 1.0, 0.0), wp.where(i == 1, 1.0, 0.0), wp.where(i == 2, 1.0, 0.0))


@wp.func
def line_of(kind: int, size: wp.vec4, e: int, q: wp.quat):
    """Edge or shaft e; edges 4 i to 4 i + 3 run along axis i."""
    p = wp.vec3(0.0, 0.0, 0.0)
    along = wp.vec3(0.0, 0.0, 1.0)
    first = wp.vec3(0.0, 0.0, 0.0)
    second = wp.vec3(0.0, 0.0, 0.0)
    half = size[0]
    radius = size[1]
    least = size[1]
    if has_faces(kind):
        i = e / 4
        radius = float(0.0)
        if kind == ROUNDED_BOX:
            radius = size[3]
        x = wp.vec3(size[0] - radius, size[1] - radius, size[2] - radius)
        along = axis(i)
        first = axis((i + 1) % 3) * wp.where((e & 1) == 0, -1.0, 1.0)
        second = axis((i + 2) % 3) * wp.where((e & 2) == 0, -1.0, 1.0)
        p = wp.cw_mul(first + second, x)
        half = wp.dot(along, x)
        least = wp.min(size[0], wp.min(size[1], size[2]))
        first = wp.quat_rotate(q, first)
        second = wp.quat_rotate(q, second)
    p = wp.quat_rotate(q, p)
    along = wp.quat_rotate(q, along)
    return edge_vector(
        p[0], p[1], p[2], along[0], along[1], along[2], first[0], first[1], first[2], second[0], second[1], second[2],
        half, radius, least,
    )  # fmt: skip


@wp.func
def lean_share(sine: float):
    return smooth_step(1.0 + sine / LEAN)


@wp.func
def crossing(kind_a: int, kind_b: int, size_a: wp.vec4, size_b: wp.vec4, k: int, qa: wp.quat, qb: wp.quat, between: wp.vec3):
    """(gap, normal, point on a's line about a's centre, radius of a's line, share), world axes; between: b's centre to a's."""
    nothing = wp.vec3(0.0, 0.0, 0.0)
    lines = line_count(kind_b)
    a = line_of(kind_a, size_a, k / lines, qa)
    b = line_of(kind_b, size_b, k % lines, qb)
    ua = wp.vec3(a[3], a[4], a[5])
    ub = wp.vec3(b[3], b[4], b[5])
    n = wp.cross(ua, ub)
    sine = wp.dot(n, n)
    if sine < LEAST_SINE:
        return 1.0, nothing, nothing, 0.0, 0.0
    pa = wp.vec3(a[0], a[1], a[2])
    pb = wp.vec3(b[0], b[1], b[2])
    fa = wp.vec3(a[6], a[7], a[8])
    ga = wp.vec3(a[9], a[10], a[11])
    fb = wp.vec3(b[6], b[7], b[8])
    gb = wp.vec3(b[9], b[10], b[11])
    out = fb + gb - fa - ga
    if not has_faces(kind_a) and not has_faces(kind_b):
        out = between
    root = wp.sqrt(sine)
    if wp.dot(n, out) < 0.0:
        root = -root
    n = n / root
    share = smooth_step(sine / SKEW) * lean_share(wp.dot(n, fb)) * lean_share(wp.dot(n, gb))
    share = share * lean_share(-wp.dot(n, fa)) * lean_share(-wp.dot(n, ga))
    if share <= 0.0:
        return 1.0, nothing, nothing, 0.0, 0.0
    r = between + pa - pb
    ra = wp.dot(r, ua)
    rb = wp.dot(r, ub)
    c = wp.dot(ua, ub)
    s = (c * rb - ra) / sine
    t = s * c + rb
    gap = wp.dot(n, r) - a[13] - b[13]
    least = EDGE * wp.min(a[14], b[14])
    depth = 0.5 * (wp.sqrt(gap * gap + least * least) - gap)
    share = share * smooth_step((a[12] - wp.abs(s)) / depth) * smooth_step((b[12] - wp.abs(t)) / depth)
    through = a[13] + b[13] + wp.dot(n, pb - pa)
    share = share * smooth_step(2.0 + 2.0 * gap / wp.max(through, least))
    return gap, n, pa + ua * s, a[13], share
