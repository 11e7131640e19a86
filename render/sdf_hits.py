r"""Rays against an SDF grid: found by sphere tracing without gradient, attached by the implicit function theorem.

The surface is the zero set of the tricubic interpolant phi (`geometry.sdf_grid`), whose normals are continuous. A ray steps
by 0.9 of the distance (Hart 1996, "Sphere tracing"), never less than a fiftieth of a cell; a change of sign is closed in
on by bisection, so that values need not be exact distances. With x = o + t d held on the ray, phi(y(x)) = 0 gives

    dx = d dt,    dt = -(d phi + grad phi . (do + t dd)) / (grad phi . d),

y the point in the body's own frame. Outside the grid's box there is nothing.
"""

import warp as wp

from geometry.sdf_grid import axis_weights, cell_of, grid_hessian, grid_sample
from render.gradient_sink import Sink, deposit
from render.placing import add_pose_gradient, add_turn_gradient, instance_orientation
from render.reversible import calls_gradients
from render.scene_data import Moment, SceneNumbers, SceneTables

STEPS = wp.constant(256)
HALVINGS = wp.constant(24)
SAFETY = wp.constant(0.9)
SHORTEST = wp.constant(0.02)  # of a cell
TOUCHING = wp.constant(1.0e-4)  # of a cell
NOTHING_MET = wp.constant(1.0e30)


@wp.struct
class SdfMarch:
    t: float  # of the hit; NOTHING_MET
    least: float  # least distance at which the ray passes by the surface before that [m]; NOTHING_MET where it never turns away
    t_least: float


@wp.func
def grid_units(tables: SceneTables, y: wp.vec3):
    """A point of the body's frame, in cells from the grid's first node."""
    return (y - wp.vec3(tables.sdf_frame[0], tables.sdf_frame[1], tables.sdf_frame[2])) / tables.sdf_frame[3]


@wp.func
def sdf_at(scene: SceneNumbers, tables: SceneTables, world: int, y: wp.vec3):
    """phi [m] and its gradient at a point of the body's frame, inside the box."""
    units = grid_units(tables, y)
    last = wp.vec3(float(scene.sdf.shape[1] - 1), float(scene.sdf.shape[2] - 1), float(scene.sdf.shape[3] - 1))
    s = grid_sample(scene.sdf, world, wp.max(wp.vec3(0.0, 0.0, 0.0), wp.min(units, last)), 1)
    h = 1.0 / tables.sdf_frame[3]
    return wp.vec4(s[0], s[1] * h, s[2] * h, s[3] * h)


@wp.func
def box_span(scene: SceneNumbers, tables: SceneTables, o: wp.vec3, d: wp.vec3, t_max: float):
    """The part of a ray in the grid's box; empty where its end is not beyond its beginning."""
    low = float(0.0)
    high = t_max
    for k in range(3):
        least = tables.sdf_frame[k]
        most = least + tables.sdf_frame[3] * float(scene.sdf.shape[k + 1] - 1)
        if wp.abs(d[k]) > 1.0e-30:
            one = (least - o[k]) / d[k]
            other = (most - o[k]) / d[k]
            low = wp.max(low, wp.min(one, other))
            high = wp.min(high, wp.max(one, other))
        elif o[k] < least or o[k] > most:
            high = -1.0
    return wp.vec2(low, high)


@wp.func
def march_sdf(scene: SceneNumbers, tables: SceneTables, world: int, o: wp.vec3, d: wp.vec3, t_max: float):
    """Where the ray o + t d of the body's frame meets the surface, and how near it has come before."""
    found = SdfMarch()
    found.t = NOTHING_MET
    found.least = NOTHING_MET
    span = box_span(scene, tables, o, d, t_max)
    if span[1] <= span[0]:
        return found
    speed = wp.length(d)
    t = span[0]
    before = t
    s = sdf_at(scene, tables, world, o + d * t)
    side = wp.where(s[0] >= 0.0, 1.0, -1.0)
    value = s[0] * side
    slope = side * (s[1] * d[0] + s[2] * d[1] + s[3] * d[2])
    for _step in range(STEPS):
        if value < TOUCHING * tables.sdf_frame[3] and slope < 0.0:
            found.t = t
            break
        before = t
        slope_before = slope
        t = t + wp.max(SAFETY * value, SHORTEST * tables.sdf_frame[3]) / speed
        if t >= span[1]:
            break
        s = sdf_at(scene, tables, world, o + d * t)
        value = s[0] * side
        slope = side * (s[1] * d[0] + s[2] * d[1] + s[3] * d[2])
        if value <= 0.0:
            low = before
            high = t
            for _half in range(HALVINGS):
                middle = 0.5 * (low + high)
                at = sdf_at(scene, tables, world, o + d * middle)
                if at[0] * side > 0.0:
                    low = middle
                else:
                    high = middle
            found.t = high
            break
        if slope_before < 0.0 and slope >= 0.0:
            nearest = before + (t - before) * slope_before / (slope_before - slope)
            at = sdf_at(scene, tables, world, o + d * nearest)
            if at[0] * side < found.least:
                found.least = wp.max(at[0] * side, 0.0)
                found.t_least = nearest
    return found


@wp.func
def sdf_ray(scene: SceneNumbers, tables: SceneTables, view: int, moment: Moment, v: wp.vec3, point: int):
    """A world point (point = 1) or direction (0) in the body's frame."""
    result = v
    if tables.sdf_table[0] > 0:
        row = tables.sdf_table[0] - 1
        if point != 0:
            p0 = scene.positions[view, row, moment.node]
            p1 = scene.positions[view, row, moment.next]
            result = v - (p0 + (p1 - p0) * moment.blend)
        result = wp.quat_rotate_inv(instance_orientation(scene, view, moment, tables.sdf_table[0]), result)
    return result


@wp.func
def to_world_axes(scene: SceneNumbers, tables: SceneTables, view: int, moment: Moment, v: wp.vec3):
    result = v
    if tables.sdf_table[0] > 0:
        result = wp.quat_rotate(instance_orientation(scene, view, moment, tables.sdf_table[0]), v)
    return result


@wp.func
def deposit_sdf(
    scene: SceneNumbers, tables: SceneTables, sink: Sink, world: int, y: wp.vec3, to_value: float, to_slope: wp.vec3
):
    """Adds to the grid's values the gradients at phi(y) and at its gradient."""
    units = grid_units(tables, y)
    h = to_slope / tables.sdf_frame[3]
    nx = scene.sdf.shape[1]
    ny = scene.sdf.shape[2]
    nz = scene.sdf.shape[3]
    x0 = axis_weights(units[0], nx, 1, 0)
    y0 = axis_weights(units[1], ny, 1, 0)
    z0 = axis_weights(units[2], nz, 1, 0)
    x1 = axis_weights(units[0], nx, 1, 1)
    y1 = axis_weights(units[1], ny, 1, 1)
    z1 = axis_weights(units[2], nz, 1, 1)
    i = cell_of(units[0], nx) - 1
    j = cell_of(units[1], ny) - 1
    k = cell_of(units[2], nz) - 1
    for a in range(4):
        for b in range(4):
            flat = to_value * x0[a] * y0[b] + h[0] * x1[a] * y0[b] + h[1] * x0[a] * y1[b]
            for c in range(4):
                share = flat * z0[c] + h[2] * x0[a] * y0[b] * z1[c]
                if share != 0.0:
                    deposit(
                        sink, sink.numbers.sdf, world, wp.clamp(i + a, 0, nx - 1), wp.clamp(j + b, 0, ny - 1),
                        wp.clamp(k + c, 0, nz - 1), share,
                    )  # fmt: skip


@calls_gradients
@wp.func
def add_sdf_gradient(
    scene: SceneNumbers, tables: SceneTables, sink: Sink, view: int, world: int, moment: Moment, y: wp.vec3, to_value: float,
    to_slope: wp.vec3,
):  # fmt: skip
    """Adds the gradients at phi and at its gradient, in the body's axes, at a point y; returns those of the world point that y
    is, held fixed in the world, and of the blend."""
    deposit_sdf(scene, tables, sink, world, y, to_value, to_slope)
    s = sdf_at(scene, tables, world, y)
    units = grid_units(tables, y)
    bent = grid_hessian(scene.sdf, world, units, 1) * to_slope / (tables.sdf_frame[3] * tables.sdf_frame[3])
    at_y = wp.vec3(s[1], s[2], s[3]) * to_value + bent
    at_x = to_world_axes(scene, tables, view, moment, at_y)
    _local, at_blend = add_pose_gradient(scene, sink, view, moment, tables.sdf_table[0], y, -at_x)
    return at_x, at_blend


@calls_gradients
@wp.func
def pull_sdf_hit(
    scene: SceneNumbers, tables: SceneTables, sink: Sink, view: int, world: int, moment: Moment, t: float, o: wp.vec3, d:
    wp.vec3, x_bar: wp.vec3, n_bar: wp.vec3,
):  # fmt: skip
    """Gradients at a hit's world position and unit normal, to values and pose; returns those of o, d and the blend."""
    x = o + d * t
    y = sdf_ray(scene, tables, view, moment, x, 1)
    s = sdf_at(scene, tables, world, y)
    g = wp.vec3(s[1], s[2], s[3])
    size = wp.max(wp.length(g), 1.0e-12)
    m = g / size
    m_bar = sdf_ray(scene, tables, view, moment, n_bar, 0)
    at_blend = add_turn_gradient(scene, sink, view, moment, tables.sdf_table[0], m, n_bar)
    at_x, more = add_sdf_gradient(scene, tables, sink, view, world, moment, y, 0.0, (m_bar - m * wp.dot(m, m_bar)) / size)
    at_blend += more
    total = x_bar + at_x
    across = wp.dot(to_world_axes(scene, tables, view, moment, g), d)
    if wp.abs(across) > 1.0e-6 * wp.length(d):
        at_value = -wp.dot(total, d) / across
        at_x, more = add_sdf_gradient(scene, tables, sink, view, world, moment, y, at_value, wp.vec3(0.0, 0.0, 0.0))
        at_blend += more
        total += at_x
    return total, total * t, at_blend
