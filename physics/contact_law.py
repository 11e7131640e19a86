r"""The force of one contact: compliant along the normal, Coulomb's law smoothed across it.

With the gap g, the normal n (towards the body that is pushed), its velocity u against the other, u_n = n.u, u_t = u - n u_n,
all at the end of the step (g_end = g + h u_n), penetration d = -g_end and d' = -u_n:

    f_n = k d^p ramp(1 + c d'),   d > 0                       (Hunt and Crossley, "Coefficient of restitution interpreted as
                                                               damping in vibroimpact", 1975)
    f   = n f_n - mu f_n u_t / sqrt(u_t . u_t + e^2)

ramp(y) is max(0, y) with a corner rounded over |y| < BEND: y beyond it, (y + BEND)^2 / (4 BEND) within. So f is continuously
differentiable, at touch-down too, for p > 1; it never pulls, and at rest the penetration is that of f_n = k d^p exactly.
Because friction is smooth, a contact creeps: at the fraction q of the cone with the speed e q / sqrt(1 - q^2).
"""

import warp as wp

BEND = wp.constant(0.25)

material_vector = wp.types.vector(length=5, dtype=float)
# layout: 0 stiffness k [N/m^p], 1 exponent p, 2 dissipation c [s/m], 3 friction mu, 4 width e [m/s]


@wp.func
def rounded_ramp(y: float):
    t = wp.clamp(y + BEND, 0.0, 2.0 * BEND)
    value = t * t / (4.0 * BEND)
    if y > BEND:
        value = y
    return value


@wp.func
def ramp_slope(y: float):
    return wp.clamp((y + BEND) / (2.0 * BEND), 0.0, 1.0)


@wp.func
def normal_force(m: material_vector, penetration: float, rate: float):
    """f_n of d and d' [N]."""
    force = float(0.0)
    if penetration > 0.0:
        force = m[0] * wp.pow(penetration, m[1]) * rounded_ramp(1.0 + m[2] * rate)
    return force


@wp.func
def normal_slope(m: material_vector, penetration: float, rate: float, h: float):
    """df_n/du_n, in which d changes by -h and d' by -1."""
    slope = float(0.0)
    if penetration > 0.0:
        power = m[0] * wp.pow(penetration, m[1] - 1.0)
        y = 1.0 + m[2] * rate
        slope = -power * (h * m[1] * rounded_ramp(y) + penetration * m[2] * ramp_slope(y))
    return slope


@wp.func
def contact_force(m: material_vector, gap: float, n: wp.vec3, u: wp.vec3, h: float):
    """f [N]; `gap` at the start of the step, u at its end."""
    along = wp.dot(n, u)
    f = normal_force(m, -(gap + h * along), -along)
    across = u - n * along
    return n * f - across * (m[3] * f / wp.sqrt(wp.dot(across, across) + m[4] * m[4]))


@wp.func
def contact_slope(m: material_vector, gap: float, n: wp.vec3, u: wp.vec3, h: float, secant: float):
    """df/du. `secant` = 1: friction as if it were a damper of the present strength, which Newton's method survives anywhere."""
    along = wp.dot(n, u)
    penetration = -(gap + h * along)
    f = normal_force(m, penetration, -along)
    slope = normal_slope(m, penetration, -along, h)
    across = u - n * along
    root = wp.sqrt(wp.dot(across, across) + m[4] * m[4])
    t = across / root
    sliding = (wp.identity(n=3, dtype=float) - wp.outer(n, n) - wp.outer(t, t) * (1.0 - secant)) * (m[3] * f / root)
    return wp.outer(n - t * (m[3] * (1.0 - secant)), n) * slope - sliding
