r"""How an image changes because shadows move: rims of surfaces between what is seen and what lights it.

For a fixed light point y, the shadow's border of an edge is a curve on the film: a point e of the edge, the receiver's point x where
the line from y through e goes on to, and its film point x(s) = P(x). So each fixed y gives a boundary term like that of
`render.primary_boundary`, with the light that x receives from y as the jump, and they are integrated over y: a lamp's points are
fixed on their triangles, as in `render.lights`, point lights and directions are what they are.

Whatever does not come from lamps and lights (`sources` = 1) arrives from directions, which are fixed: for each, the radiance that an edge
hides from x jumps between that of its near face and that of what lies beyond, path traced. So does the environment's.

The samples begin at the edge and the light, and are connected to the receiver and the camera, which only few miss. Between the
receiver and the camera there is nothing but a straight line: shadows that are seen by way of another surface are left out, and so
are curves where surfaces cut through each other.
"""

import warp as wp

from render.bsdf import bsdf_cos
from render.camera_projection import NEAR, camera_vector, depth_of, film_of, film_velocity, origin_of, undistort, unfolded
from render.edge_sampling import CREASE, NOTHING, RIM, choose_edge, edge_at, sight_of, stratum
from render.gradient_sink import Sink, collect, deposit, near_film, splat
from render.hits import FAR, blocked, closest, hit_point, offset_origin
from render.intersector import Intersector
from render.lights import LightSample, choose_lamp, fill_light, lamp_share, light_value
from render.path_adjoint import add_time_gradient
from render.path_radiance import radiance
from render.pixel_filter import adjoint_at
from render.placing import add_vertex_gradient
from render.primary_boundary import film_pixel, seen_face
from render.reversible import reversible
from render.scene_data import (
    DIRECTIONAL,
    ENVIRONMENT,
    FACE,
    LAMP,
    MISSED,
    POINT,
    FilmPlan,
    Moment,
    SceneNumbers,
    SceneTables,
    light_vector,
    moment_at,
    sample_time,
)
from render.surface import Surface, add_corner_gradients, surface_of

SIDE = wp.constant(1.0e-4)  # how far beside an edge a ray passes, relative to its way


@reversible
@wp.func
def light_ray(light: int, a: wp.vec3, b: wp.vec3, c: wp.vec3, u: float, v: float, e: wp.vec3):
    """Origin and direction of the line from a light's point through e; the origin is e itself where the light is a direction."""
    o = e
    d = a
    if light == LAMP:
        o = a * (1.0 - u - v) + b * u + c * v
        d = e - o
    elif light == POINT:
        o = a
        d = e - o
    elif light == ENVIRONMENT:
        d = -a
    return o, d


@reversible
@wp.func
def shadow_film_along(
    light: int, a: wp.vec3, b: wp.vec3, c: wp.vec3, u: float, v: float, e0: wp.vec3, e1: wp.vec3, s: float, kind: int,
    ra: wp.vec3, rb: wp.vec3, rc: wp.vec3, camera: camera_vector, weight: wp.vec2,
):  # fmt: skip
    """weight . film point of the shadow that the edge's point throws on the receiver with corners ra, rb, rc."""
    e = e0 + (e1 - e0) * s
    o, d = light_ray(light, a, b, c, u, v, e)
    return wp.dot(weight, film_of(hit_point(kind, o, d, ra, rb, rc), camera))


@wp.func
def shadow_velocity(o: wp.vec3, e: wp.vec3, x: wp.vec3, n: wp.vec3, direction: wp.vec3, parallel: int, v: wp.vec3):
    """Velocity of the shadow point x on the plane with normal n while e moves with v; `direction` is that of the light's travel."""
    stretch = float(1.0)
    if parallel == 0:
        stretch = wp.length(x - o) / wp.max(wp.length(e - o), 1.0e-30)
    return (v - direction * (wp.dot(n, v) / wp.dot(n, direction))) * stretch


@wp.func
def draw_source(
    scene: SceneNumbers, tables: SceneTables, view: int, world: int, moment: Moment, sources: int, u0: float, u1: float,
    u2: float,
):  # fmt: skip
    """A lamp's point, a light, or (sources = 1) a direction, with `weight` = 1 / density."""
    sample = LightSample()
    sample.kind = -1
    if sources == 1:
        z = 1.0 - 2.0 * u1
        r = wp.sqrt(wp.max(0.0, 1.0 - z * z))
        direction = wp.vec3(r * wp.cos(2.0 * wp.PI * u2), r * wp.sin(2.0 * wp.PI * u2), z)
        sample = fill_light(scene, tables, view, world, moment, ENVIRONMENT, 0, 0.0, 0.0, direction)
        sample.weight = 4.0 * wp.PI
        return sample
    has_lamps = wp.where(tables.lamps.shape[0] > 0, 1, 0)
    groups = has_lamps + tables.light_kinds.shape[0]
    place = u0 * float(groups)
    group = wp.min(int(place), groups - 1)
    if group < has_lamps:
        lamp = choose_lamp(tables, world, place - float(group))
        root = wp.sqrt(u1)
        sample = fill_light(
            scene, tables, view, world, moment, LAMP, tables.lamps[lamp], root * (1.0 - u2), root * u2, wp.vec3()
        )
        sample.weight = float(groups) / lamp_share(tables, world, lamp)
    else:
        index = group - has_lamps
        sample = fill_light(scene, tables, view, world, moment, tables.light_kinds[index], index, 0.0, 0.0, wp.vec3())
        sample.weight = float(groups)
    return sample


@wp.kernel(enable_backward=False)
def shadow_boundary_kernel(
    scene: SceneNumbers,
    tables: SceneTables,
    film: FilmPlan,
    tracer: Intersector,
    seed: wp.array(dtype=int),
    view: int,
    first: int,
    count: int,
    sources: int,
    sums: wp.array(dtype=wp.float64),
    adjoint: wp.array3d(dtype=wp.vec3),
    refused: wp.array(dtype=int),
    sink: Sink,
    derivative: wp.array3d(dtype=wp.vec3),
):
    """Samples first, first + 1, ... of `count` of one view; sources: 0 lamps and lights, 1 directions."""
    index = wp.tid() + first
    world = view / film.views_per_world
    state = wp.rand_init(seed[view] + 0x5BD1E995 + sources, view * count + index)
    chosen, s, density = choose_edge(sums, stratum(index, count, wp.randf(state)))
    u = wp.randf(state) - 0.5
    if density <= 0.0:
        return
    camera = scene.cameras[view]
    moment = moment_at(scene.positions.shape[2], film.node_interval, scene.exposure[view] * film.frame_interval * u)

    # 1. the edge's point, the light's, and what the edge is, seen from the light
    edge = edge_at(scene, tables, view, world, moment, chosen)
    e = edge.a + (edge.b - edge.a) * s
    source = draw_source(scene, tables, view, world, moment, sources, wp.randf(state), wp.randf(state), wp.randf(state))
    o, d = light_ray(source.kind, source.a, source.b, source.c, source.u, source.v, e)
    parallel = wp.where(source.kind == DIRECTIONAL or source.kind == ENVIRONMENT, 1, 0)
    way = wp.length(d)
    if way <= 0.0:
        return
    direction = d / way
    if source.kind == LAMP:
        if wp.dot(wp.cross(source.b - source.a, source.c - source.a), direction) <= 0.0:
            return
    toward = direction
    if sources == 1:
        toward = -direction
    sight = sight_of(edge, e, toward)
    if sight.kind == NOTHING or (sight.kind == CREASE and sources == 0):
        return

    # 2. the receiver, by a ray that passes beside the edge, and where the film sees it
    size = wp.length(edge.b - edge.a)
    beside = e + sight.outward * (SIDE * size)
    if sight.kind == CREASE:
        middle = wp.normalize(edge.n0 + edge.n1)
        beside = e + middle * (SIDE * size)
    receiver = closest(scene, tables, tracer, view, world, moment, beside, direction)
    if receiver.kind == MISSED:
        return
    if receiver.t < 10.0 * SIDE * size:
        return
    at_receiver = surface_of(scene, tables, view, world, moment, receiver, beside, direction)
    n = at_receiver.normal
    x = hit_point(receiver.kind, o, d, at_receiver.a, at_receiver.b, at_receiver.c)
    if camera[21] == 0.0 and depth_of(x, camera) <= NEAR:
        return
    at = film_of(x, camera)
    pixel = film_pixel(film, at)
    h = wp.vec3(0.0, 0.0, 0.0)
    if sink.forward == 0:
        h = adjoint_at(adjoint, view, pixel, film.filter_kind, film.filter_size)
        if wp.dot(h, h) == 0.0:
            return
    elif not near_film(derivative, pixel, film.filter_kind, film.filter_size):
        return
    if not unfolded(x, at, camera):
        return
    eye = origin_of(at, camera, undistort(at, camera), 0.0)
    to_eye = eye - x
    distance = wp.length(to_eye)
    wi = to_eye / distance
    if at_receiver.two_sided == 0 and wp.dot(n, wi) <= 0.0:
        return
    start = offset_origin(x, n, wi)
    if blocked(scene, tables, tracer, view, world, moment, start, wi, distance):
        return

    # 3. the jump of what x sends to the camera
    lit = wp.vec3(0.0, 0.0, 0.0)  # what it sends on the outward side, less what it sends on the other
    if sources == 0:
        lit = light_value(
            source.kind, at_receiver.kind, at_receiver.two_sided, at_receiver.schlick, at_receiver.albedo, at_receiver.alpha, n,
            x, wi, source.a, source.b, source.c, source.u, source.v, source.radiance,
        )  # fmt: skip
        if wp.dot(lit, lit) == 0.0:
            return
        back = FAR
        from_edge = beside
        if parallel == 0:
            back = way * (1.0 - 2.0 * SIDE)
        if blocked(scene, tables, tracer, view, world, moment, from_edge, -direction, back):
            return
    else:
        f = bsdf_cos(
            at_receiver.kind, at_receiver.two_sided, at_receiver.schlick, at_receiver.albedo, at_receiver.alpha, n, wi, toward
        )
        if wp.dot(f, f) == 0.0:
            return
        near = seen_face(scene, tables, view, world, moment, sight.near_face, e)
        near_seed = wp.rand_init(int(state), 1)
        inner = radiance(scene, tables, film, tracer, view, world, moment, near, e - toward, toward, 2, 0, near_seed)
        outer = wp.vec3(0.0, 0.0, 0.0)
        if sight.kind == CREASE:
            far = seen_face(scene, tables, view, world, moment, sight.far_face, e)
            outer = radiance(scene, tables, film, tracer, view, world, moment, far, e - toward, toward, 2, 0, near_seed)
        else:
            behind = closest(scene, tables, tracer, view, world, moment, beside, toward)
            outer = radiance(
                scene, tables, film, tracer, view, world, moment, behind, beside, toward, 2, 0, wp.rand_init(int(state), 2)
            )
        lit = wp.cw_mul(f, outer - inner)

    # 4. the weight, and the gradient of weight . film point
    along = film_velocity(x, shadow_velocity(o, e, x, n, direction, parallel, edge.b - edge.a), camera)
    length = wp.length(along)
    if length < 1.0e-9:
        return
    normal = wp.vec2(along[1], -along[0]) / length
    outwards = film_velocity(x, shadow_velocity(o, e, x, n, direction, parallel, sight.outward), camera)
    side = wp.where(wp.dot(normal, outwards) > 0.0, 1.0, -1.0)
    jump = float(1.0)
    if sink.forward == 0:
        jump = wp.dot(lit, h)
    # (minus side) - (plus side)
    weight = normal * (-jump * side * source.weight * length * film.scale * film.scale / (density * float(count)))
    sink.slot = wp.tid() % sink.totals.shape[0]
    _l, ga, gb, gc, _u, _v, ge0, ge1, _s, _k, gra, grb, grc, g_camera, _w = wp.grad(shadow_film_along)(
        source.kind, source.a, source.b, source.c, source.u, source.v, edge.a, edge.b, s, receiver.kind, at_receiver.a,
        at_receiver.b, at_receiver.c, camera, weight,
    )  # fmt: skip
    deposit(sink, sink.numbers.cameras, view, g_camera)
    ia = tables.edges[chosen, 0]
    ib = tables.edges[chosen, 1]
    at_blend = add_vertex_gradient(scene, tables, sink, view, world, moment, edge.instance, ia, ge0)
    at_blend += add_vertex_gradient(scene, tables, sink, view, world, moment, edge.instance, ib, ge1)
    at_blend += add_corner_gradients(scene, tables, sink, view, world, moment, receiver.kind, receiver.index, gra, grb, grc)
    if source.kind == LAMP:
        at_blend += add_corner_gradients(scene, tables, sink, view, world, moment, FACE, source.index, ga, gb, gc)
    elif source.kind == POINT or source.kind == DIRECTIONAL:
        zero = float(0.0)
        deposit(sink, sink.numbers.lights, world, source.index, light_vector(ga[0], ga[1], ga[2], zero, zero, zero))
    add_time_gradient(sink, film, view, at, u, at_blend)
    if sink.forward != 0:
        splat(derivative, view, pixel, film.filter_kind, film.filter_size, lit * collect(sink))
