r"""Forces along joint coordinates: springs, limits, damping, dry friction, actuators; and their derivatives.

    spring     k (rest - q)                            a spherical joint: -k r, r the rotation vector of its quaternion
    limits     k_l (ramp(lower - q) - ramp(q - upper)) - c_l (ramp' + ramp') q',
               ramp(x) = w (t^3 - t^4 / 2), t = x / w from 0 to 1, beyond it x - w / 2
    damping    -d q'
    friction   -f q' / sqrt(q'^2 + e^2)                Coulomb's law, smoothed over the rate e
    actuator   torque: g u;  position: kp (u - q) - kd q';  velocity: kd (u - q');  u and the result clamped

They are taken at the end of the step where the step is implicit: v = v0 + h a, q = q0 + h v (quaternions: q0 exp(h v)), so that
their derivative in the acceleration a is h df/dv + h^2 df/dq. For r = log(q0 exp(h v)) it is dr/dv = h Jr^-1(r) Jr(h v), Jr the
right Jacobian of the exponential map (Sola et al., "A micro Lie theory", 2018, eq. 143 and 144).
"""

import warp as wp

from physics.articulation import FAR, actuator_vector, dof_vector, link_vector
from physics.kinematics import unit_quaternion

LIMIT_WIDTH = wp.constant(1.0e-2)  # [rad] or [m], over which a limit's stiffness sets in
LEAST_WIDTH = wp.constant(1.0e-6)  # [rad/s] or [m/s]
BOUND = wp.constant(0.5 * FAR)


@wp.func
def ramp(x: float):
    t = wp.clamp(x / LIMIT_WIDTH, 0.0, 1.0)
    y = LIMIT_WIDTH * t * t * t * (1.0 - 0.5 * t)
    if x > LIMIT_WIDTH:
        y = x - 0.5 * LIMIT_WIDTH
    return y


@wp.func
def ramp_slope(x: float):
    t = wp.clamp(x / LIMIT_WIDTH, 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)


@wp.func
def ramp_bend(x: float):
    t = wp.clamp(x / LIMIT_WIDTH, 0.0, 1.0)
    return 6.0 * t * (1.0 - t) / LIMIT_WIDTH


@wp.func
def joint_force(p: link_vector, q: float, v: float):
    """Spring and limits of a joint of one degree of freedom."""
    low = p[22] - q
    high = q - p[23]
    return p[20] * (p[21] - q) + p[24] * (ramp(low) - ramp(high)) - p[25] * (ramp_slope(low) + ramp_slope(high)) * v


@wp.func
def joint_slopes(p: link_vector, q: float, v: float):
    """Its derivatives in q and v."""
    low = p[22] - q
    high = q - p[23]
    engaged = ramp_slope(low) + ramp_slope(high)
    bend = ramp_bend(high) - ramp_bend(low)
    return wp.vec2(-p[20] - p[24] * engaged - p[25] * bend * v, -p[25] * engaged)


@wp.func
def dof_force(p: dof_vector, v: float):
    """Damping and dry friction."""
    width = wp.max(p[3], LEAST_WIDTH)
    return -p[1] * v - p[2] * v / wp.sqrt(v * v + width * width)


@wp.func
def dof_slope(p: dof_vector, v: float):
    width = wp.max(p[3], LEAST_WIDTH)
    root = wp.sqrt(v * v + width * width)
    return -p[1] - p[2] * (width / root) * (width / root) / root


@wp.func
def actuator_force(kind: int, p: actuator_vector, control: float, q: float, v: float):
    """kind: 0 torque, 1 position, 2 velocity."""
    u = wp.clamp(control, p[3], p[4])
    force = p[0] * u
    if kind == 1:
        force = p[1] * (u - q) - p[2] * v
    elif kind == 2:
        force = p[2] * (u - v)
    return wp.clamp(force, -p[5], p[5])


@wp.func
def actuator_slopes(kind: int, p: actuator_vector, control: float, q: float, v: float):
    slopes = wp.vec2(0.0, 0.0)
    if wp.abs(actuator_force(kind, p, control, q, v)) < p[5]:
        if kind == 1:
            slopes = wp.vec2(-p[1], -p[2])
        elif kind == 2:
            slopes = wp.vec2(0.0, -p[2])
    return slopes


@wp.func
def exponential(x: wp.vec3):
    """Unit quaternion of a rotation vector."""
    square = wp.dot(x, x)
    s = 0.5 - square / 48.0
    c = 1.0 - square / 8.0 + square * square / 384.0
    if square > 1.0e-4:
        angle = wp.sqrt(square)
        s = wp.sin(0.5 * angle) / angle
        c = wp.cos(0.5 * angle)
    return wp.quat(x[0] * s, x[1] * s, x[2] * s, c)


@wp.func
def logarithm(q: wp.quat):
    """Rotation vector of a unit quaternion, of an angle up to pi."""
    x = wp.vec3(q[0], q[1], q[2])
    c = q[3]
    if c < 0.0:
        x = -x
        c = -c
    square = wp.dot(x, x)
    factor = 2.0 / c - 2.0 / 3.0 * square / (c * c * c)
    if square > 1.0e-5:
        sine = wp.sqrt(square)
        factor = 2.0 * wp.atan2(sine, c) / sine
    return x * factor


@wp.func
def turned_vector(q: wp.quat, spin: wp.vec3, h: float):
    """Rotation vector of a joint after it turned for the time h."""
    unit = unit_quaternion(q[0], q[1], q[2], q[3])
    return logarithm(unit * exponential(spin * h))


@wp.func
def ball_force(p: link_vector, r: wp.vec3, spin: wp.vec3):
    """Torque of the spring and the cone of a spherical joint, body axes."""
    torque = r * (-p[20])
    if p[23] < BOUND:
        square = wp.dot(r, r)
        if square > 1.0e-10:
            angle = wp.sqrt(square)
            over = angle - p[23]
            torque = torque - r * (p[24] * ramp(over) / angle) - spin * (p[25] * ramp_slope(over))
    return torque


@wp.func
def ball_slope_place(p: link_vector, r: wp.vec3, spin: wp.vec3):
    """Its derivative in r."""
    slope = wp.identity(n=3, dtype=float) * (-p[20])
    if p[23] < BOUND:
        square = wp.dot(r, r)
        if square > 1.0e-10:
            angle = wp.sqrt(square)
            over = angle - p[23]
            n = r / angle
            along = wp.outer(n, n)
            slope = slope - along * (p[24] * ramp_slope(over))
            slope = slope - (wp.identity(n=3, dtype=float) - along) * (p[24] * ramp(over) / angle)
            slope = slope - wp.outer(spin, n) * (p[25] * ramp_bend(over))
    return slope


@wp.func
def ball_slope_rate(p: link_vector, r: wp.vec3):
    """Its derivative in the spin, a multiple of the unit matrix."""
    slope = float(0.0)
    if p[23] < BOUND:
        slope = -p[25] * ramp_slope(wp.length(r) - p[23])
    return slope


@wp.func
def right_jacobian(x: wp.vec3):
    square = wp.dot(x, x)
    a = 0.5 - square / 24.0
    b = 1.0 / 6.0 - square / 120.0
    if square > 1.0e-2:
        angle = wp.sqrt(square)
        a = (1.0 - wp.cos(angle)) / square
        b = (angle - wp.sin(angle)) / (square * angle)
    k = wp.skew(x)
    return wp.identity(n=3, dtype=float) - k * a + k * k * b


@wp.func
def right_jacobian_inverse(x: wp.vec3):
    square = wp.dot(x, x)
    b = 1.0 / 12.0 + square / 720.0
    if square > 1.0e-2:
        angle = wp.sqrt(square)
        b = 1.0 / square - 0.5 * wp.cos(0.5 * angle) / (angle * wp.sin(0.5 * angle))
    k = wp.skew(x)
    return wp.identity(n=3, dtype=float) + k * 0.5 + k * k * b
