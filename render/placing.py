"""Where the points of an instance are at a moment, and how a gradient at such a point goes back to vertices, poses and time.

Between two nodes the position is linear in time and the orientation is the normalised linear blend of the two quaternions (the
shorter way round); outside the node window the first or last interval goes on.
"""

import warp as wp

from render.gradient_sink import Sink, deposit
from render.reversible import calls_gradients, reversible
from render.scene_data import Moment, SceneNumbers, SceneTables


@reversible
@wp.func
def blend_orientation(q0: wp.quat, q1: wp.quat, blend: float):
    sign = 1.0
    if wp.dot(q0, q1) < 0.0:
        sign = -1.0
    return wp.normalize(q0 * (1.0 - blend) + q1 * (sign * blend))


@reversible
@wp.func
def placed(p0: wp.vec3, p1: wp.vec3, q0: wp.quat, q1: wp.quat, blend: float, point: wp.vec3):
    return p0 + (p1 - p0) * blend + wp.quat_rotate(blend_orientation(q0, q1, blend), point)


@reversible
@wp.func
def placed_along(p0: wp.vec3, p1: wp.vec3, q0: wp.quat, q1: wp.quat, blend: float, point: wp.vec3, weight: wp.vec3):
    """weight . placed: the pseudo-loss whose gradient is taken."""
    return wp.dot(weight, placed(p0, p1, q0, q1, blend, point))


@wp.func
def instance_position(scene: SceneNumbers, view: int, moment: Moment, instance: int):
    p0 = scene.positions[view, instance - 1, moment.node]
    p1 = scene.positions[view, instance - 1, moment.next]
    return p0 + (p1 - p0) * moment.blend


@wp.func
def instance_orientation(scene: SceneNumbers, view: int, moment: Moment, instance: int):
    return blend_orientation(
        scene.orientations[view, instance - 1, moment.node], scene.orientations[view, instance - 1, moment.next], moment.blend
    )


@wp.func(inline=False)
def moved_point(
    positions: wp.array3d(dtype=wp.vec3), orientations: wp.array3d(dtype=wp.quat), view: int, moment: Moment, instance: int,
    point: wp.vec3,
):  # fmt: skip
    """`to_world` of an instance > 0; with `carried_ray` out of line, as most of a scene stands still."""
    row = instance - 1
    p0 = positions[view, row, moment.node]
    p1 = positions[view, row, moment.next]
    q = blend_orientation(orientations[view, row, moment.node], orientations[view, row, moment.next], moment.blend)
    return p0 + (p1 - p0) * moment.blend + wp.quat_rotate(q, point)


@wp.func(inline=False)
def carried_ray(
    positions: wp.array3d(dtype=wp.vec3), orientations: wp.array3d(dtype=wp.quat), view: int, moment: Moment, instance: int,
    o: wp.vec3, d: wp.vec3,
):  # fmt: skip
    """Origin and direction of a ray in the frame of an instance > 0."""
    row = instance - 1
    p0 = positions[view, row, moment.node]
    p1 = positions[view, row, moment.next]
    q = blend_orientation(orientations[view, row, moment.node], orientations[view, row, moment.next], moment.blend)
    return wp.quat_rotate_inv(q, o - (p0 + (p1 - p0) * moment.blend)), wp.quat_rotate_inv(q, d)


@wp.func
def to_world(scene: SceneNumbers, view: int, moment: Moment, instance: int, point: wp.vec3):
    """World point of a point in an instance's frame."""
    result = point
    if instance > 0:
        result = moved_point(scene.positions, scene.orientations, view, moment, instance, point)
    return result


@wp.func
def corner(scene: SceneNumbers, tables: SceneTables, view: int, world: int, moment: Moment, face: int, k: int):
    """World position of corner k of a face."""
    return to_world(scene, view, moment, tables.face_table[face, 0], scene.vertices[world, tables.faces[face, k]])


@wp.func
def point_velocity(scene: SceneNumbers, view: int, moment: Moment, instance: int, node_interval: float, point: wp.vec3):
    """World velocity [m/s] of a point given in its instance's frame."""
    result = wp.vec3(0.0, 0.0, 0.0)
    if instance > 0 and moment.next != moment.node:
        q0 = scene.orientations[view, instance - 1, moment.node]
        q1 = scene.orientations[view, instance - 1, moment.next]
        if wp.dot(q0, q1) < 0.0:
            q1 = -q1
        mixed = q0 * (1.0 - moment.blend) + q1 * moment.blend
        rate = q1 - q0
        q = wp.normalize(mixed)
        rate = (rate - q * wp.dot(q, rate)) / wp.length(mixed)
        spin = rate * wp.quat_inverse(q)
        omega = wp.vec3(2.0 * spin[0], 2.0 * spin[1], 2.0 * spin[2])
        linear = scene.positions[view, instance - 1, moment.next] - scene.positions[view, instance - 1, moment.node]
        result = (linear + wp.cross(omega, wp.quat_rotate(q, point))) / node_interval
    return result


@wp.func
def add_pose_gradient(scene: SceneNumbers, sink: Sink, view: int, moment: Moment, instance: int, local: wp.vec3, g: wp.vec3):
    """Adds the gradient g at the world point of `local` to its instance's pose; returns those of `local` and of the blend."""
    at_local = g
    at_blend = float(0.0)
    if instance > 0:
        row = instance - 1
        g0, g1, gq0, gq1, gblend, glocal, _weight = wp.grad(placed_along)(
            scene.positions[view, row, moment.node],
            scene.positions[view, row, moment.next],
            scene.orientations[view, row, moment.node],
            scene.orientations[view, row, moment.next],
            moment.blend,
            local,
            g,
        )
        deposit(sink, sink.numbers.positions, view, row, moment.node, g0)
        deposit(sink, sink.numbers.orientations, view, row, moment.node, gq0)
        if moment.next != moment.node:
            deposit(sink, sink.numbers.positions, view, row, moment.next, g1)
            deposit(sink, sink.numbers.orientations, view, row, moment.next, gq1)
            at_blend = gblend
        at_local = glocal
    return at_local, at_blend


@wp.func
def add_turn_gradient(
    scene: SceneNumbers, sink: Sink, view: int, moment: Moment, instance: int, direction: wp.vec3, g: wp.vec3
):
    """Adds the gradient g at the world direction of `direction` to its instance's orientation; returns that of the blend."""
    at_blend = float(0.0)
    if instance > 0:
        row = instance - 1
        zero = wp.vec3(0.0, 0.0, 0.0)
        _g0, _g1, gq0, gq1, gblend, _direction, _weight = wp.grad(placed_along)(
            zero, zero, scene.orientations[view, row, moment.node], scene.orientations[view, row, moment.next], moment.blend,
            direction, g,
        )  # fmt: skip
        deposit(sink, sink.numbers.orientations, view, row, moment.node, gq0)
        if moment.next != moment.node:
            deposit(sink, sink.numbers.orientations, view, row, moment.next, gq1)
            at_blend = gblend
    return at_blend


@calls_gradients
@wp.func
def add_vertex_gradient(
    scene: SceneNumbers, tables: SceneTables, sink: Sink, view: int, world: int, moment: Moment, instance: int,
    vertex: int, g: wp.vec3,
):  # fmt: skip
    """Adds the gradient g at a vertex's world position; returns the gradient of the blend."""
    at_local, at_blend = add_pose_gradient(scene, sink, view, moment, instance, scene.vertices[world, vertex], g)
    deposit(sink, sink.numbers.vertices, world, vertex, at_local)
    return at_blend
