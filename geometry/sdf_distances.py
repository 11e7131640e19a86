"""Signed distances of the primitives, each at its own origin: (distance, gradient of the distance in p) as one vec4.

The gradient is written by hand, so that the adjoint of these functions also differentiates normals. All are exact, inside and
out, but for a torus whose tube is thicker than its ring (inside it the depth is under-estimated) and an over-rounded box.
Formulas: boxes and cylinders by the part of p beyond each side (their interior by the nearest side), bodies of revolution in
the half plane (rho, z), rho = sqrt(x^2 + y^2); the tapered capsule, the convex hull of two balls, by the tangent that touches
both: with sine b = (r_low - r_high) / length and cosine a, the point k = (-b, a) . (rho, z + h) along the tangent says
whether a ball or the tangent is nearest.

Where a distance has a kink (an axis, a centre, an inner diagonal) one of its one-sided gradients is given, or zero: never NaN.
"""

import warp as wp

from geometry.sdf_ellipsoid import ellipsoid_distance

LEAST = wp.constant(1.0e-30)  # least square of a length that has a direction

SPHERE = wp.constant(0)
ELLIPSOID = wp.constant(1)
BOX = wp.constant(2)
ROUNDED_BOX = wp.constant(3)
CAPSULE = wp.constant(4)
TAPERED_CAPSULE = wp.constant(5)
CYLINDER = wp.constant(6)
TORUS = wp.constant(7)
PLANE = wp.constant(8)
HALF_SPACE = wp.constant(9)


@wp.func
def reach(v: wp.vec3) -> wp.vec4:
    """(|v|, v / |v|), zeros at zero."""
    square = wp.dot(v, v)
    if square < LEAST:
        return wp.vec4(0.0, 0.0, 0.0, 0.0)
    length = wp.sqrt(square)
    return wp.vec4(length, v[0] / length, v[1] / length, v[2] / length)


@wp.func
def side(x: float) -> float:
    return wp.where(x < 0.0, -1.0, 1.0)


@wp.func
def sphere_distance(p: wp.vec3, radius: float) -> wp.vec4:
    return reach(p) - wp.vec4(radius, 0.0, 0.0, 0.0)


@wp.func
def box_distance(p: wp.vec3, h: wp.vec3) -> wp.vec4:
    sx = side(p[0])
    sy = side(p[1])
    sz = side(p[2])
    x = sx * p[0] - h[0]
    y = sy * p[1] - h[1]
    z = sz * p[2] - h[2]
    if wp.max(x, wp.max(y, z)) > 0.0:
        m = reach(wp.vec3(wp.max(x, 0.0), wp.max(y, 0.0), wp.max(z, 0.0)))
        return wp.vec4(m[0], sx * m[1], sy * m[2], sz * m[3])
    if x >= y and x >= z:
        return wp.vec4(x, sx, 0.0, 0.0)
    if y >= z:
        return wp.vec4(y, 0.0, sy, 0.0)
    return wp.vec4(z, 0.0, 0.0, sz)


@wp.func
def rounded_box_distance(p: wp.vec3, h: wp.vec3, rounding: float) -> wp.vec4:
    """h includes the rounding, which is at most the least of h."""
    return box_distance(p, h - wp.vec3(rounding, rounding, rounding)) - wp.vec4(rounding, 0.0, 0.0, 0.0)


@wp.func
def capsule_distance(p: wp.vec3, half_length: float, radius: float) -> wp.vec4:
    z = wp.max(side(p[2]) * p[2] - half_length, 0.0) * side(p[2])
    return reach(wp.vec3(p[0], p[1], z)) - wp.vec4(radius, 0.0, 0.0, 0.0)


@wp.func
def tapered_capsule_distance(p: wp.vec3, half_length: float, low: float, high: float) -> wp.vec4:
    difference = low - high
    length = 2.0 * half_length
    if wp.abs(difference) >= length:  # one ball holds the other
        if low >= high:
            return reach(wp.vec3(p[0], p[1], p[2] + half_length)) - wp.vec4(low, 0.0, 0.0, 0.0)
        return reach(wp.vec3(p[0], p[1], p[2] - half_length)) - wp.vec4(high, 0.0, 0.0, 0.0)
    b = difference / length
    a = wp.sqrt((length - difference) * (length + difference)) / length
    rho = reach(wp.vec3(p[0], p[1], 0.0))
    z = p[2] + half_length
    k = a * z - b * rho[0]
    if k <= 0.0:
        return reach(wp.vec3(p[0], p[1], z)) - wp.vec4(low, 0.0, 0.0, 0.0)
    if k >= a * length:
        return reach(wp.vec3(p[0], p[1], p[2] - half_length)) - wp.vec4(high, 0.0, 0.0, 0.0)
    return wp.vec4(a * rho[0] + b * z - low, a * rho[1], a * rho[2], b)


@wp.func
def cylinder_distance(p: wp.vec3, half_length: float, radius: float) -> wp.vec4:
    rho = reach(wp.vec3(p[0], p[1], 0.0))
    s = side(p[2])
    x = rho[0] - radius
    z = s * p[2] - half_length
    if wp.max(x, z) > 0.0:
        m = reach(wp.vec3(wp.max(x, 0.0), 0.0, wp.max(z, 0.0)))
        return wp.vec4(m[0], m[1] * rho[1], m[1] * rho[2], s * m[3])
    if x >= z:
        return wp.vec4(x, rho[1], rho[2], 0.0)
    return wp.vec4(z, 0.0, 0.0, s)


@wp.func
def torus_distance(p: wp.vec3, ring: float, tube: float) -> wp.vec4:
    rho = reach(wp.vec3(p[0], p[1], 0.0))
    m = reach(wp.vec3(rho[0] - ring, 0.0, p[2]))
    return wp.vec4(m[0] - tube, m[1] * rho[1], m[1] * rho[2], m[3])


@wp.func
def plane_distance(p: wp.vec3, half_thickness: float) -> wp.vec4:
    s = side(p[2])
    return wp.vec4(s * p[2] - half_thickness, 0.0, 0.0, s)


@wp.func
def half_space_distance(p: wp.vec3) -> wp.vec4:
    return wp.vec4(p[2], 0.0, 0.0, 1.0)


@wp.func
def primitive_distance(kind: int, size: wp.vec4, p: wp.vec3) -> wp.vec4:
    """(distance, gradient in p) of one primitive; what the four numbers of `size` mean is said in sdf_shapes."""
    if kind == SPHERE:
        return sphere_distance(p, size[0])
    if kind == ELLIPSOID:
        return ellipsoid_distance(p, wp.vec3(size[0], size[1], size[2]))
    if kind == BOX:
        return box_distance(p, wp.vec3(size[0], size[1], size[2]))
    if kind == ROUNDED_BOX:
        return rounded_box_distance(p, wp.vec3(size[0], size[1], size[2]), size[3])
    if kind == CAPSULE:
        return capsule_distance(p, size[0], size[1])
    if kind == TAPERED_CAPSULE:
        return tapered_capsule_distance(p, size[0], size[1], size[2])
    if kind == CYLINDER:
        return cylinder_distance(p, size[0], size[1])
    if kind == TORUS:
        return torus_distance(p, size[0], size[1])
    if kind == PLANE:
        return plane_distance(p, size[0])
    return half_space_distance(p)
