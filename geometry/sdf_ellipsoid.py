"""Exact distance to an ellipsoid: closest boundary point by a root search without gradient, then gradients attached.

The boundary point closest to p is y = r u with |u| = 1 (products by component) and p - y parallel to the normal, so

    u_i = r_i p_i / (t + r_i^2),    F(t) = u . u - 1 = 0,    t > -min(r)^2,

after Eberly, "Distance from a Point to an Ellipse, an Ellipsoid, or a Hyperellipsoid" (2013). F falls and is convex: Newton's
steps from the left of the root are monotone. With t = s - min(r)^2 nothing cancels; the search runs in double precision.

Value: d = n . (p - r u), whose gradients follow from the envelope theorem (u and n held): dd/dp = n, dd/dr_i = -n_i u_i.
Normal: n along u / r; with w_i = 1 / (t + r_i^2), a the adjoint of u and L = (sum a_i u_i w_i) / (sum u_i^2 w_i), implicit
differentiation of F = 0 gives the adjoints

    p_i: (a_i - L u_i) r_i w_i,    r_i: (a_i - L u_i) u_i (1 / r_i - 2 r_i w_i).

Where several boundary points are closest (the inner part of the plane across the shortest axis) one is taken; the normal
jumps there and its gradient is kept finite by a floor under t + r_i^2.
"""

import warp as wp

NEWTON_STEPS = wp.constant(60)
FLATTEST = wp.constant(1.0e-6)  # least (t + min(r)^2) / min(r)^2 in the gradient of the normal


@wp.func
def held(v: wp.vec3) -> wp.vec3:
    """v, without a gradient."""
    return wp.vec3(v[0], v[1], v[2])


@wp.func_grad(held)
def adj_held(v: wp.vec3, adj_ret: wp.vec3):
    wp.adjoint[v] += wp.vec3(0.0, 0.0, 0.0)


@wp.func
def shortest(r: wp.vec3) -> int:
    """The shortest axis."""
    k = int(0)  # a variable of the kernel, not a constant
    if r[1] < r[k]:
        k = 1
    if r[2] < r[k]:
        k = 2
    return k


@wp.func
def axis_gap(r: wp.vec3, k: int) -> wp.vec3d:
    """r_i^2 - r_k^2 without cancellation."""
    x = wp.vec3d(wp.float64(r[0]), wp.float64(r[1]), wp.float64(r[2]))
    m = x[k]
    return wp.vec3d((x[0] - m) * (x[0] + m), (x[1] - m) * (x[1] + m), (x[2] - m) * (x[2] + m))


@wp.func
def over(a: wp.float64, b: wp.float64) -> wp.float64:
    """a / b, and zero for a = 0 whatever b is."""
    if a == wp.float64(0.0):
        return wp.float64(0.0)
    return a / b


@wp.func
def ellipsoid_root(p: wp.vec3, r: wp.vec3) -> wp.float64:
    """s = t + min(r)^2 of the closest point; 0 where p lies on the plane on which it is not unique."""
    e = axis_gap(r, shortest(r))
    g = wp.vec3d(
        wp.float64(r[0]) * wp.float64(wp.abs(p[0])),
        wp.float64(r[1]) * wp.float64(wp.abs(p[1])),
        wp.float64(r[2]) * wp.float64(wp.abs(p[2])),
    )
    zero = wp.float64(0.0)
    s = wp.max(wp.max(wp.max(g[0] - e[0], g[1] - e[1]), g[2] - e[2]), zero)
    for _step in range(NEWTON_STEPS):
        u = wp.vec3d(over(g[0], s + e[0]), over(g[1], s + e[1]), over(g[2], s + e[2]))
        f = wp.dot(u, u) - wp.float64(1.0)
        if f <= wp.float64(1.0e-15):
            break
        slope = over(u[0] * u[0], s + e[0]) + over(u[1] * u[1], s + e[1]) + over(u[2] * u[2], s + e[2])
        s += f / (wp.float64(2.0) * slope)
    return s


@wp.func
def ellipsoid_direction(p: wp.vec3, r: wp.vec3) -> wp.vec3:
    """Unit u such that r u is a boundary point closest to p."""
    k = shortest(r)
    e = axis_gap(r, k)
    s = ellipsoid_root(p, r)
    x = over(wp.float64(r[0]) * wp.float64(p[0]), s + e[0])
    y = over(wp.float64(r[1]) * wp.float64(p[1]), s + e[1])
    z = over(wp.float64(r[2]) * wp.float64(p[2]), s + e[2])
    if s <= wp.float64(0.0):  # p on that plane: the rest of the unit length is along the shortest axis
        rest = wp.sqrt(wp.max(wp.float64(1.0) - x * x - y * y - z * z, wp.float64(0.0)))
        if k == 0:
            x = rest
        elif k == 1:
            y = rest
        else:
            z = rest
    u = wp.vec3(wp.float32(x), wp.float32(y), wp.float32(z))
    return u / wp.length(u)


@wp.func_grad(ellipsoid_direction)
def adj_ellipsoid_direction(p: wp.vec3, r: wp.vec3, adj_ret: wp.vec3):
    k = shortest(r)
    e = axis_gap(r, k)
    u = ellipsoid_direction(p, r)
    s = wp.float32(ellipsoid_root(p, r))
    s = wp.max(s, FLATTEST * r[k] * r[k])
    w = wp.vec3(1.0 / (s + wp.float32(e[0])), 1.0 / (s + wp.float32(e[1])), 1.0 / (s + wp.float32(e[2])))
    uw = wp.cw_mul(u, w)
    b = adj_ret - u * (wp.dot(adj_ret, uw) / wp.dot(u, uw))
    wp.adjoint[p] += wp.cw_mul(b, wp.cw_mul(r, w))
    c = wp.vec3(1.0 / r[0] - 2.0 * r[0] * w[0], 1.0 / r[1] - 2.0 * r[1] * w[1], 1.0 / r[2] - 2.0 * r[2] * w[2])
    wp.adjoint[r] += wp.cw_mul(wp.cw_mul(b, u), c)


@wp.func
def ellipsoid_distance(p: wp.vec3, radii: wp.vec3) -> wp.vec4:
    """(distance, its gradient in p); semi-axes along x, y, z."""
    u = ellipsoid_direction(p, radii)
    n = wp.normalize(wp.cw_div(u, radii))  # u is a unit vector: not zero
    d = wp.dot(held(n), p - wp.cw_mul(radii, held(u)))
    return wp.vec4(d, n[0], n[1], n[2])
