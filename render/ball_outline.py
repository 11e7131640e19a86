r"""The outline of a ball: where lines from a viewpoint touch it.

A ball with centre c and radius r, seen from o, ends in the circle of points where lines through o are tangents,

    e = c - D r^2 / |D|^2 + r sqrt(1 - r^2 / |D|^2) (t_1 cos phi + t_2 sin phi),    D = c - o,

t_1, t_2 perpendicular to D and to each other; seen along a direction, the circle of radius r about c.
"""

import warp as wp

from render.reversible import reversible
from render.scene_data import SPHERE, Hit

BESIDE = wp.constant(1.0e-3)  # how far beside the outline a ray passes, relative to the ball's radius
TILT = wp.constant(1.0e-3)  # [rad], how far from the outline, along the ball, its radiance is taken: it is seen from there


@reversible
@wp.func
def tangent_to(axis: wp.vec3):
    """A unit vector perpendicular to an axis, that turns with it."""
    other = wp.vec3(1.0, 0.0, 0.0)
    if wp.abs(axis[0]) > 0.8 * wp.length(axis):
        other = wp.vec3(0.0, 1.0, 0.0)
    across = other - axis * (wp.dot(other, axis) / wp.dot(axis, axis))
    return across / wp.length(across)


@reversible
@wp.func
def outline_point(parallel: int, viewpoint: wp.vec3, center: wp.vec3, radius: float, phi: float):
    """Point of the outline, seen from a viewpoint, or (parallel = 1) along `viewpoint` as a direction."""
    axis = viewpoint
    shrink = float(1.0)
    middle = center
    if parallel == 0:
        axis = center - viewpoint
        part = radius * radius / wp.dot(axis, axis)
        middle = center - axis * part
        shrink = wp.sqrt(wp.max(1.0 - part, 1.0e-12))
    t1 = tangent_to(axis)
    t2 = wp.cross(axis, t1) / wp.length(axis)
    return middle + (t1 * wp.cos(phi) + t2 * wp.sin(phi)) * (radius * shrink)


@wp.func
def outline_tangent(parallel: int, viewpoint: wp.vec3, center: wp.vec3, radius: float, phi: float):
    """Derivative of the point in phi."""
    ahead = outline_point(parallel, viewpoint, center, radius, phi + 0.5 * wp.PI)
    behind = outline_point(parallel, viewpoint, center, radius, phi - 0.5 * wp.PI)
    return (ahead - behind) * 0.5


@wp.func
def on_ball(e: wp.vec3, center: wp.vec3, radius: float, toward_viewer: wp.vec3):
    """A point of the ball a little inside its outline at e."""
    return center + wp.normalize((e - center) / radius + wp.normalize(toward_viewer) * TILT) * radius


@wp.func
def seen_ball(ball: int):
    """A hit on a ball at t = 1."""
    hit = Hit()
    hit.kind = SPHERE
    hit.index = ball
    hit.t = 1.0
    hit.u = 1.0
    return hit
