"""One body on a joint to the world: revolute and spherical.

Spherical (Euler's equations in body axes, q: body to world, c: pivot to centre of mass, I: inertia about the pivot):

    I w' = c x R^T (m g + f_drag) + R^T torque - w x I w - damping I w,     q' = q (w, 0) / 2

Revolute about the axis a through the pivot (the same law projected on a). Drag `f = -m k |v| v` acts at the centre of
mass with velocity v; `damping` is the decay rate of the joint's own velocity [1/s].

The ball that meets the wall sits at the centre of mass. With n the wall's normal (into the wall) in body axes, J = c x n
is the Jacobian of its normal velocity, u = J . w. An impact without friction changes w along I^-1 J only, so that
u+ = -e u; what is left of w is the tangential motion (orthogonal to it in the metric I) and loses `tangential_loss`.
"""

import warp as wp

from physics.particle import restitution_at, speed_of

state7 = wp.types.vector(length=7, dtype=float)
state2 = wp.types.vector(length=2, dtype=float)
spherical_parameters = wp.types.vector(length=36, dtype=float)
revolute_parameters = wp.types.vector(length=22, dtype=float)
# spherical: 0-2 c, 3-5 m g + f (world), 6-8 torque (world), 9 m k, 10 damping, 11 restitution, 12 slope, 13 loss, 14-16 n,
#            17 wall offset from the pivot (radius taken off), 18-26 I, 27-35 I^-1
# revolute:  0-2 c at angle 0 (world), 3-5 m g + f, 6-8 torque, 9 m k, 10 damping, 11 restitution, 12 slope, 13 loss, 14-16 n,
#            17 wall offset, 18-20 axis, 21 inertia about the axis


@wp.func
def matrix_at_18(p: spherical_parameters):
    return wp.mat33(p[18], p[19], p[20], p[21], p[22], p[23], p[24], p[25], p[26])


@wp.func
def matrix_at_27(p: spherical_parameters):
    return wp.mat33(p[27], p[28], p[29], p[30], p[31], p[32], p[33], p[34], p[35])


@wp.func
def orientation(x: state7):
    return wp.quat(x[0], x[1], x[2], x[3])


@wp.func
def angular_velocity(x: state7):
    return wp.vec3(x[4], x[5], x[6])


@wp.func
def spherical_state(q: wp.quat, w: wp.vec3):
    return state7(q[0], q[1], q[2], q[3], w[0], w[1], w[2])


@wp.func
def spherical_rate(x: state7, p: spherical_parameters):
    q = orientation(x)
    w = angular_velocity(x)
    c = wp.vec3(p[0], p[1], p[2])
    v = wp.cross(w, c)
    force = wp.quat_rotate_inv(q, wp.vec3(p[3], p[4], p[5])) - v * (p[9] * speed_of(v))
    torque = wp.cross(c, force) + wp.quat_rotate_inv(q, wp.vec3(p[6], p[7], p[8]))
    dw = matrix_at_27(p) * (torque - wp.cross(w, matrix_at_18(p) * w)) - w * p[10]
    dq = q * wp.quat(w[0], w[1], w[2], 0.0)
    return state7(0.5 * dq[0], 0.5 * dq[1], 0.5 * dq[2], 0.5 * dq[3], dw[0], dw[1], dw[2])


@wp.func
def spherical_renormalise(x: state7):
    n = 1.0 / wp.sqrt(x[0] * x[0] + x[1] * x[1] + x[2] * x[2] + x[3] * x[3])
    return state7(x[0] * n, x[1] * n, x[2] * n, x[3] * n, x[4], x[5], x[6])


@wp.func
def spherical_gap(x: state7, p: spherical_parameters):
    return p[17] - wp.dot(wp.vec3(p[14], p[15], p[16]), wp.quat_rotate(orientation(x), wp.vec3(p[0], p[1], p[2])))


@wp.func
def spherical_jacobian(x: state7, p: spherical_parameters):
    n = wp.quat_rotate_inv(orientation(x), wp.vec3(p[14], p[15], p[16]))
    return wp.cross(wp.vec3(p[0], p[1], p[2]), n)


@wp.func
def spherical_gap_rate(x: state7, p: spherical_parameters):
    return -wp.dot(spherical_jacobian(x, p), angular_velocity(x))


@wp.func
def spherical_impact(x: state7, p: spherical_parameters):
    jacobian = spherical_jacobian(x, p)
    w = angular_velocity(x)
    u = wp.dot(jacobian, w)
    e = restitution_at(u, p[11], p[12])
    response = matrix_at_27(p) * jacobian
    normal = response * (u / wp.dot(jacobian, response))
    return spherical_state(orientation(x), (w - normal) * (1.0 - p[13]) - normal * e)


@wp.func
def spherical_rest(x: state7, p: spherical_parameters):
    jacobian = spherical_jacobian(x, p)
    response = matrix_at_27(p) * jacobian
    response = response / wp.dot(jacobian, response)
    q = orientation(x)
    w = angular_velocity(x)
    turn = response * (0.5 * wp.min(spherical_gap(x, p), 0.0))
    moved = spherical_state(q + q * wp.quat(turn[0], turn[1], turn[2], 0.0), w - response * wp.max(wp.dot(jacobian, w), 0.0))
    return spherical_renormalise(moved)


SPHERICAL = (
    state7,
    spherical_rate,
    spherical_renormalise,
    spherical_gap,
    spherical_gap_rate,
    spherical_impact,
    spherical_rest,
    spherical_parameters,
)


# -- revolute ---------------------------------------------------------------------------------------------------------
@wp.func
def revolute_axis(p: revolute_parameters):
    return wp.vec3(p[18], p[19], p[20])


@wp.func
def revolute_arm(x: state2, p: revolute_parameters):
    """Pivot to centre of mass in the world (Rodrigues' formula)."""
    a = revolute_axis(p)
    c = wp.vec3(p[0], p[1], p[2])
    s = wp.sin(x[0])
    k = wp.cos(x[0])
    return c * k + wp.cross(a, c) * s + a * (wp.dot(a, c) * (1.0 - k))


@wp.func
def revolute_rate(x: state2, p: revolute_parameters):
    a = revolute_axis(p)
    arm = revolute_arm(x, p)
    v = wp.cross(a * x[1], arm)
    force = wp.vec3(p[3], p[4], p[5]) - v * (p[9] * speed_of(v))
    torque = wp.dot(a, wp.cross(arm, force) + wp.vec3(p[6], p[7], p[8]))
    return state2(x[1], torque / p[21] - p[10] * x[1])


@wp.func
def revolute_renormalise(x: state2):
    return x


@wp.func
def revolute_gap(x: state2, p: revolute_parameters):
    return p[17] - wp.dot(wp.vec3(p[14], p[15], p[16]), revolute_arm(x, p))


@wp.func
def revolute_jacobian(x: state2, p: revolute_parameters):
    return wp.dot(wp.vec3(p[14], p[15], p[16]), wp.cross(revolute_axis(p), revolute_arm(x, p)))


@wp.func
def revolute_gap_rate(x: state2, p: revolute_parameters):
    return -revolute_jacobian(x, p) * x[1]


@wp.func
def revolute_impact(x: state2, p: revolute_parameters):
    e = restitution_at(revolute_jacobian(x, p) * x[1], p[11], p[12])
    return state2(x[0], -e * x[1])


@wp.func
def revolute_rest(x: state2, p: revolute_parameters):
    jacobian = revolute_jacobian(x, p)
    rate = x[1]
    if jacobian * rate > 0.0:
        rate = 0.0
    return state2(x[0] + wp.min(revolute_gap(x, p), 0.0) / jacobian, rate)


REVOLUTE = (
    state2,
    revolute_rate,
    revolute_renormalise,
    revolute_gap,
    revolute_gap_rate,
    revolute_impact,
    revolute_rest,
    revolute_parameters,
)
