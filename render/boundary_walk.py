r"""From where a shadow's border lies back to the camera, by way of other surfaces: the light-traced part of boundary terms.

A path sees its surfaces x_1 (by the camera), x_2, ..., x_k, each from the one before along a direction that stays fixed while
the scene moves (see `render.path_adjoint`). Where what lights x_k jumps, the film's integrand jumps at the film point P(x_1) of

    x_k -> x_(k-1) -> ... -> x_1,       x_(j-1) = where the line from x_j along -w_(j-1) first meets a surface,

so a curve that x_k runs along is carried, hop by hop, to a curve on the film, and its velocities with it. The directions are
drawn here, uniformly in the half space that x_j is lit from; a hop weighs what is carried with f_(j-1) |cos| 2 pi. Without a
hop, x_k = x_1.
"""

import warp as wp

from render.bsdf import bsdf_cos
from render.gradient_sink import Sink
from render.hits import closest, hit_point, offset_origin
from render.intersector import Intersector
from render.placing import instance_orientation, instance_position, point_velocity
from render.reversible import calls_gradients
from render.scene_data import MISSED, SDF, SPHERE, Hit, Moment, SceneNumbers, SceneTables
from render.sdf_hits import pull_sdf_hit
from render.surface import Surface, add_corner_gradients, emits, hit_point_along, surface_of

MOST_HOPS = wp.constant(8)  # by way of more surfaces, a boundary is left out
points_type = wp.types.matrix(shape=(9, 3), dtype=float)
numbers_type = wp.types.vector(length=9, dtype=int)


@wp.struct
class Walk:
    """Points 0 (the shadow's) to `hops` (what the camera sees)."""

    ended: int  # 1: it came to nothing
    hops: int
    points: points_type
    directions: points_type  # of travel to a point; row 0 is not used
    kinds: numbers_type
    indices: numbers_type
    sides: points_type  # barycentric weights or side of the hits
    last: Surface  # that of the last point
    first_wi: wp.vec3  # in which point 0 is looked at; for no hop: to be given
    throughput: wp.vec3  # of points 1 to hops - 1, and of all directions' densities


@wp.func
def unsampled_emission(tables: SceneTables):
    """Whether anything but lamps' faces emits: the environment, balls, planes, the SDF."""
    found = tables.has_environment
    for i in range(tables.sphere_table.shape[0]):
        if emits(tables, tables.sphere_table[i, 1]):
            found = 1
    for i in range(tables.planes.shape[0]):
        if emits(tables, tables.face_table[tables.planes[i], 1]):
            found = 1
    if tables.sdf_table.shape[0] > 0:  # noqa: SIM102 (kernels evaluate both sides of `and`)
        if emits(tables, tables.sdf_table[1]):
            found = 1
    return found


@wp.func
def hop_share(hops: int, most: int):
    """Probability with which a walk takes so many hops: 1/2, 1/4, ..., the last as the one before it."""
    share = wp.pow(0.5, float(hops + 1))
    if hops == most:
        share = wp.pow(0.5, float(most))
    return share


@wp.func
def draw_hops(most: int, place: wp.float64):
    """Hops for a place in [0, 1), and the place among those with as many."""
    half = wp.float64(0.5)
    hops = int(0)
    rest = wp.float64(place)
    while hops < most and rest < half:
        hops += 1
        rest = rest / half
    if hops < most:
        rest = (rest - half) / half
    return hops, rest


@wp.func
def instance_of(tables: SceneTables, kind: int, index: int):
    instance = int(0)
    if kind == SDF:
        instance = tables.sdf_table[0]
    elif kind == SPHERE:
        instance = tables.sphere_table[index, 0]
    else:
        instance = tables.face_table[index, 0]
    return instance


@wp.func
def met_point(kind: int, s: Surface, o: wp.vec3, d: wp.vec3):
    """Where a line meets a surface that a ray close to it has met; what is curved, to first order."""
    x = s.position
    if kind == SDF:
        x = o + d * (wp.dot(s.normal, s.position - o) / wp.dot(s.normal, d))
    else:
        x = hit_point(kind, o, d, s.a, s.b, s.c)
    return x


@calls_gradients
@wp.func
def pull_point(
    scene: SceneNumbers, tables: SceneTables, sink: Sink, view: int, world: int, moment: Moment, kind: int, index: int,
    s: Surface, o: wp.vec3, d: wp.vec3, x: wp.vec3, g: wp.vec3,
):  # fmt: skip
    """Adds the gradient g at the point x where a line meets a surface; returns those of o, d and the blend."""
    g_o = wp.vec3(0.0, 0.0, 0.0)
    g_d = wp.vec3(0.0, 0.0, 0.0)
    at_blend = float(0.0)
    if kind == SDF:
        t = wp.dot(x - o, d) / wp.dot(d, d)
        g_o, g_d, at_blend = pull_sdf_hit(scene, tables, sink, view, world, moment, t, o, d, g, wp.vec3(0.0, 0.0, 0.0))
    else:
        _k, g_o, g_d, ga, gb, gc, _w = wp.grad(hit_point_along)(kind, o, d, s.a, s.b, s.c, g)
        at_blend = add_corner_gradients(scene, tables, sink, view, world, moment, kind, index, ga, gb, gc)
    return g_o, g_d, at_blend


@wp.func
def material_velocity(
    scene: SceneNumbers, view: int, moment: Moment, instance: int, node_interval: float, x: wp.vec3
):  # fmt: skip
    """World velocity of an instance's point that is at x now [m/s]."""
    velocity = wp.vec3(0.0, 0.0, 0.0)
    if instance > 0:
        local = wp.quat_rotate_inv(
            instance_orientation(scene, view, moment, instance), x - instance_position(scene, view, moment, instance)
        )
        velocity = point_velocity(scene, view, moment, instance, node_interval, local)
    return velocity


@wp.func
def on_plane(velocity: wp.vec3, surface_velocity: wp.vec3, n: wp.vec3, direction: wp.vec3):
    """Velocity of the point where a line along `direction`, which moves with `velocity`, meets a surface with normal n."""
    return velocity - direction * (wp.dot(n, velocity - surface_velocity) / wp.dot(n, direction))


@wp.func
def hit_of_walk(walk: Walk, i: int):
    hit = Hit()
    hit.kind = walk.kinds[i]
    hit.index = walk.indices[i]
    hit.u = walk.sides[i, 0]
    hit.v = walk.sides[i, 1]
    hit.t = 1.0
    return hit


@wp.func
def walk_to_film(
    scene: SceneNumbers, tables: SceneTables, tracer: Intersector, view: int, world: int, moment: Moment, hit: Hit,
    surface: Surface, x: wp.vec3, to_light: wp.vec3, hops: int, first: wp.vec2, seed: wp.uint32,
):  # fmt: skip
    """A walk of `hops` hops from x on `surface`, which is lit from the direction `to_light`; first: of random numbers, in
    [0, 1)^2."""
    state = wp.uint32(seed)
    walk = Walk()
    walk.hops = hops
    walk.throughput = wp.vec3(1.0, 1.0, 1.0)
    walk.last = surface
    walk.kinds[0] = hit.kind
    walk.indices[0] = hit.index
    walk.sides[0, 0] = hit.u
    walk.sides[0, 1] = hit.v
    for k in range(3):
        walk.points[0, k] = x[k]
    at = x
    lit_from = to_light
    i = int(0)
    while i < hops and walk.ended == 0:
        n = walk.last.normal
        side = wp.where(wp.dot(n, lit_from) > 0.0, 1.0, -1.0)
        pair = first
        if i > 0:
            pair = wp.vec2(wp.randf(state), wp.randf(state))
        z = 2.0 * pair[0] - 1.0
        angle = 2.0 * wp.PI * pair[1]
        r = wp.sqrt(wp.max(0.0, 1.0 - z * z))
        v = wp.vec3(r * wp.cos(angle), r * wp.sin(angle), z)
        if wp.dot(v, n) * side < 0.0:
            v = -v
        if i == 0:
            walk.first_wi = v
        else:
            f = bsdf_cos(
                walk.last.kind, walk.last.two_sided, walk.last.schlick, walk.last.albedo, walk.last.alpha, n, v, lit_from
            )
            walk.throughput = wp.cw_mul(walk.throughput, f)
        found = closest(scene, tables, tracer, view, world, moment, offset_origin(at, n, v), v)
        walk.ended = 1
        if found.kind != MISSED:
            walk.last = surface_of(scene, tables, view, world, moment, found, at, v)
            at = walk.last.position
            if walk.last.two_sided != 0 or wp.dot(walk.last.normal, v) < 0.0:
                walk.ended = 0
            i += 1
            walk.kinds[i] = found.kind
            walk.indices[i] = found.index
            walk.sides[i, 0] = found.u
            walk.sides[i, 1] = found.v
            for k in range(3):
                walk.points[i, k] = at[k]
                walk.directions[i, k] = v[k]
            walk.throughput = walk.throughput * (2.0 * wp.PI)
            lit_from = -v
    return walk


@wp.func
def carried(
    scene: SceneNumbers, tables: SceneTables, view: int, world: int, moment: Moment, walk: Walk, node_interval: float,
    timed: int, velocity: wp.vec3,
):  # fmt: skip
    """Velocity of a walk's last point while point 0 moves with `velocity`; timed = 1: and the surfaces with theirs."""
    result = velocity
    for i in range(1, walk.hops + 1):
        o = wp.vec3(walk.points[i - 1, 0], walk.points[i - 1, 1], walk.points[i - 1, 2])
        x = wp.vec3(walk.points[i, 0], walk.points[i, 1], walk.points[i, 2])
        d = wp.vec3(walk.directions[i, 0], walk.directions[i, 1], walk.directions[i, 2])
        s = surface_of(scene, tables, view, world, moment, hit_of_walk(walk, i), o, x - o)
        own = wp.vec3(0.0, 0.0, 0.0)
        if timed != 0:
            own = material_velocity(scene, view, moment, instance_of(tables, walk.kinds[i], walk.indices[i]), node_interval, x)
        result = on_plane(result, own, s.normal, d)
    return result


@calls_gradients
@wp.func
def pull_walk(
    scene: SceneNumbers, tables: SceneTables, sink: Sink, view: int, world: int, moment: Moment, walk: Walk, g: wp.vec3
):  # fmt: skip
    """Adds the gradient g at a walk's last point to the surfaces on the way; returns those of point 0 and of the blend."""
    g_point = g
    at_blend = float(0.0)
    i = int(walk.hops)
    while i > 0:
        o = wp.vec3(walk.points[i - 1, 0], walk.points[i - 1, 1], walk.points[i - 1, 2])
        x = wp.vec3(walk.points[i, 0], walk.points[i, 1], walk.points[i, 2])
        d = wp.vec3(walk.directions[i, 0], walk.directions[i, 1], walk.directions[i, 2])
        s = surface_of(scene, tables, view, world, moment, hit_of_walk(walk, i), o, x - o)
        g_o, _g_d, g_blend = pull_point(
            scene, tables, sink, view, world, moment, walk.kinds[i], walk.indices[i], s, o, d, x, g_point
        )
        at_blend += g_blend
        g_point = g_o
        i -= 1
    return g_point, at_blend
