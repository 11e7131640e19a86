"""Free particle (a ball without spin): gravity, drag, a wall.

    v' = g + f / m - damping v - quadratic_drag |v| v

A wall is a plane with unit normal n pointing into it; the gap of a ball of radius r is `offset - n . x - r`. An impact at
normal speed u = n . v keeps `restitution_at(u)` of it, reversed, and loses the fraction `tangential_loss` of the
tangential velocity. `offset` in the parameter vector has the radius already taken off.
"""

import warp as wp

state6 = wp.types.vector(length=6, dtype=float)
particle_parameters = wp.types.vector(length=12, dtype=float)
# layout: 0-2 acceleration of gravity and force, 3 damping, 4 quadratic drag, 5 restitution, 6 its slope, 7 tangential loss,
#         8-10 wall normal, 11 wall offset
SPEED_FLOOR = wp.constant(1.0e-12)
REFERENCE_SPEED = wp.constant(1.0)  # [m/s], where `restitution` is quoted


@wp.func
def restitution_at(speed: float, restitution: float, slope: float):
    """Coefficient of restitution at an incoming normal speed [m/s]; linear about 1 m/s, kept in [0, 1]."""
    return wp.clamp(restitution + slope * (speed - REFERENCE_SPEED), 0.0, 1.0)


@wp.func
def speed_of(v: wp.vec3):
    """|v|, with a finite derivative at rest."""
    return wp.sqrt(wp.dot(v, v) + SPEED_FLOOR)


@wp.func
def particle_position(x: state6):
    return wp.vec3(x[0], x[1], x[2])


@wp.func
def particle_velocity(x: state6):
    return wp.vec3(x[3], x[4], x[5])


@wp.func
def particle_state(position: wp.vec3, velocity: wp.vec3):
    return state6(position[0], position[1], position[2], velocity[0], velocity[1], velocity[2])


@wp.func
def particle_normal(p: particle_parameters):
    return wp.vec3(p[8], p[9], p[10])


@wp.func
def particle_rate(x: state6, p: particle_parameters):
    v = particle_velocity(x)
    a = wp.vec3(p[0], p[1], p[2]) - v * (p[3] + p[4] * speed_of(v))
    return particle_state(v, a)


@wp.func
def particle_renormalise(x: state6):
    return x


@wp.func
def particle_gap(x: state6, p: particle_parameters):
    return p[11] - wp.dot(particle_normal(p), particle_position(x))


@wp.func
def particle_gap_rate(x: state6, p: particle_parameters):
    return -wp.dot(particle_normal(p), particle_velocity(x))


@wp.func
def particle_impact(x: state6, p: particle_parameters):
    n = particle_normal(p)
    v = particle_velocity(x)
    u = wp.dot(n, v)
    e = restitution_at(u, p[5], p[6])
    return particle_state(particle_position(x), (v - n * u) * (1.0 - p[7]) - n * (e * u))


@wp.func
def particle_rest(x: state6, p: particle_parameters):
    n = particle_normal(p)
    v = particle_velocity(x)
    position = particle_position(x) + n * wp.min(particle_gap(x, p), 0.0)
    return particle_state(position, v - n * wp.max(wp.dot(n, v), 0.0))


PARTICLE = (
    state6,
    particle_rate,
    particle_renormalise,
    particle_gap,
    particle_gap_rate,
    particle_impact,
    particle_rest,
    particle_parameters,
)
