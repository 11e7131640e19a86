r"""How an image changes because the shadows of balls move: `render.shadow_boundary` with points of outlines, seen from the
light (`render.ball_outline`), for points of edges. Left out: what it leaves out.
"""

import warp as wp

from render.ball_outline import BESIDE, on_ball, outline_point, outline_tangent, seen_ball
from render.boundary_walk import instance_of, material_velocity, met_point, pull_point
from render.bsdf import bsdf_cos
from render.camera_projection import NEAR, depth_of, film_of, film_velocity, origin_of, undistort, weighted_film
from render.film_curve import (
    READOUT_STEPS,
    jump_weight,
    landing_at,
    outer_normal,
    readout_slope,
    splat_jump,
)
from render.gradient_sink import Sink, deposit
from render.hits import closest
from render.intersector import Intersector
from render.lights import LightSample, add_light_gradient
from render.path_adjoint import add_time_gradient
from render.path_radiance import radiance
from render.placing import to_world
from render.reversible import calls_gradients, reversible
from render.scene_data import (
    DIRECTIONAL,
    ENVIRONMENT,
    LAMP,
    MISSED,
    POINT,
    SPHERE,
    FilmPlan,
    Hit,
    Moment,
    SceneNumbers,
    SceneTables,
    moment_at,
    sample_time,
)
from render.shadow_border import draw_source, light_past, radiance_past, seen_along, shadow_velocity
from render.surface import Surface, add_corner_gradients, surface_of


@reversible
@wp.func
def outline_ray(
    light: int, a: wp.vec3, b: wp.vec3, c: wp.vec3, u: float, v: float, center: wp.vec3, radius: float, phi: float
):  # fmt: skip
    """Origin and direction of the line from a light's point along the ball's outline; the origin is there for directions."""
    viewpoint = a
    parallel = int(1)
    if light == LAMP:
        viewpoint = a * (1.0 - u - v) + b * u + c * v
        parallel = 0
    elif light == POINT:
        parallel = 0
    elif light == ENVIRONMENT:
        viewpoint = -a
    e = outline_point(parallel, viewpoint, center, radius, phi)
    o = e
    d = viewpoint
    if parallel == 0:
        o = viewpoint
        d = e - viewpoint
    return o, d


@reversible
@wp.func
def outline_ray_along(
    light: int, a: wp.vec3, b: wp.vec3, c: wp.vec3, u: float, v: float, center: wp.vec3, radius: float, phi: float,
    of_origin: wp.vec3, of_direction: wp.vec3,
):  # fmt: skip
    o, d = outline_ray(light, a, b, c, u, v, center, radius, phi)
    return wp.dot(of_origin, o) + wp.dot(of_direction, d)


@wp.struct
class BallBorder:
    """A place of the border of a ball's shadow."""

    found: int
    moment: Moment
    center: wp.vec3
    source: LightSample
    viewpoint: wp.vec3
    parallel: int
    e: wp.vec3
    beside: wp.vec3
    o: wp.vec3  # of the line from the light along the outline
    d: wp.vec3
    direction: wp.vec3  # unit
    hit: Hit
    receiver: Surface
    x: wp.vec3
    at: wp.vec2  # where on the film


@wp.func
def ball_border_at(
    scene: SceneNumbers, tables: SceneTables, tracer: Intersector, view: int, world: int, moment: Moment, sources: int,
    ball: int, phi: float, u0: float, u1: float, u2: float,
):  # fmt: skip
    """The border's place for given random numbers, at a moment; whether it is seen is not asked."""
    border = BallBorder()
    border.moment = moment
    numbers = scene.spheres[world, ball]
    radius = numbers[3]
    center = to_world(scene, view, moment, tables.sphere_table[ball, 0], wp.vec3(numbers[0], numbers[1], numbers[2]))
    source = draw_source(scene, tables, view, world, moment, sources, u0, u1, u2)
    if source.kind < 0:
        return border
    parallel = wp.where(source.kind == DIRECTIONAL or source.kind == ENVIRONMENT, 1, 0)
    viewpoint = source.a
    if source.kind == LAMP:
        viewpoint = source.a * (1.0 - source.u - source.v) + source.b * source.u + source.c * source.v
    elif source.kind == ENVIRONMENT:
        viewpoint = -source.a
    if parallel == 0 and wp.length(center - viewpoint) <= radius:
        return border
    o, d = outline_ray(source.kind, source.a, source.b, source.c, source.u, source.v, center, radius, phi)
    e = outline_point(parallel, viewpoint, center, radius, phi)
    direction = wp.normalize(d)
    front = wp.cross(source.b - source.a, source.c - source.a)
    if source.kind == LAMP and wp.dot(front, direction) <= 0.0:
        return border
    beside = e + (e - center) * BESIDE
    hit = closest(scene, tables, tracer, view, world, moment, beside, direction)
    if hit.kind == MISSED or (hit.kind == SPHERE and hit.index == ball):
        return border
    receiver = surface_of(scene, tables, view, world, moment, hit, beside, direction)
    camera = scene.cameras[view]
    x = met_point(hit.kind, receiver, o, d)
    if camera[21] == 0.0 and depth_of(x, camera) <= NEAR:
        return border
    border.center = center
    border.source = source
    border.viewpoint = viewpoint
    border.parallel = parallel
    border.e = e
    border.beside = beside
    border.o = o
    border.d = d
    border.direction = direction
    border.hit = hit
    border.receiver = receiver
    border.x = x
    border.at = film_of(x, camera)
    border.found = 1
    return border


@calls_gradients
@wp.func
def ball_border_drift(
    scene: SceneNumbers, tables: SceneTables, view: int, world: int, ball: int, phi: float, border: BallBorder,
    node_interval: float, slope: wp.vec2,
):  # fmt: skip
    """slope . velocity of the border on the film while time passes: of the ball, the lamp and the receiver."""
    moment = border.moment
    source = border.source
    n = border.receiver.normal
    g_x, _c, _w = wp.grad(weighted_film)(border.x, scene.cameras[view], slope)
    lean = wp.dot(border.d, g_x) / wp.dot(n, border.d)
    g_o = g_x - n * lean
    t = wp.dot(border.x - border.o, border.d) / wp.dot(border.d, border.d)
    _l, ga, gb, gc, _u, _v, g_center, _r, _p, _go, _gd = wp.grad(outline_ray_along)(
        source.kind, source.a, source.b, source.c, source.u, source.v, border.center, scene.spheres[world, ball][3], phi, g_o,
        g_o * t,
    )  # fmt: skip
    own = material_velocity(
        scene, view, moment, instance_of(tables, border.hit.kind, border.hit.index), node_interval, border.x
    )
    instance = tables.sphere_table[ball, 0]
    drift = lean * wp.dot(n, own)
    drift += wp.dot(g_center, material_velocity(scene, view, moment, instance, node_interval, border.center))
    if source.kind == LAMP:
        lamp = tables.face_table[source.index, 0]
        drift += wp.dot(ga, material_velocity(scene, view, moment, lamp, node_interval, source.a))
        drift += wp.dot(gb, material_velocity(scene, view, moment, lamp, node_interval, source.b))
        drift += wp.dot(gc, material_velocity(scene, view, moment, lamp, node_interval, source.c))
    return drift


@wp.kernel(enable_backward=False)
def ball_shadow_kernel(
    scene: SceneNumbers,
    tables: SceneTables,
    film: FilmPlan,
    tracer: Intersector,
    seed: wp.array(dtype=int),
    view: int,
    first: int,
    per_ball: int,
    sources: int,
    adjoint: wp.array3d(dtype=wp.vec3),
    refused: wp.array(dtype=int),
    sink: Sink,
    derivative: wp.array3d(dtype=wp.vec3),
):
    """Samples first, first + 1, ...: `per_ball` of each ball in one view; sources: 0 lamps and lights, 1 directions."""
    index = wp.tid() + first
    ball = index / per_ball
    world = view / film.views_per_world
    state = wp.rand_init(seed[view] + 0x165667B1 + sources, view * per_ball * tables.sphere_table.shape[0] + index)
    phi = 2.0 * wp.PI * (float(index - ball * per_ball) + wp.randf(state)) / float(per_ball)
    u = wp.randf(state) - 0.5
    u0 = wp.randf(state)
    u1 = wp.randf(state)
    u2 = wp.randf(state)
    camera = scene.cameras[view]
    readout = scene.readout[view]

    # 1. the outline's point, seen from the light; the receiver, and where and when the film sees it
    steps = int(1)
    if (readout[0] != 0.0 or readout[1] != 0.0) and scene.positions.shape[2] > 1:
        steps = READOUT_STEPS
    border = BallBorder()
    border.at = film.frame * 0.5
    step = float(0.0)
    for _step in range(steps):
        before = border.at
        time = sample_time(film, scene.exposure[view], readout, before, u)
        moment = moment_at(scene.positions.shape[2], film.node_interval, time)
        border = ball_border_at(scene, tables, tracer, view, world, moment, sources, ball, phi, u0, u1, u2)
        if border.found == 0:
            return
        step = wp.length(border.at - before)
    at = border.at
    determinant = float(1.0)
    if steps > 1:
        slope = readout_slope(film, readout)
        determinant = 1.0 - ball_border_drift(scene, tables, view, world, ball, phi, border, film.node_interval, slope)
    x = border.x
    landing = landing_at(film, camera, view, adjoint, derivative, refused, x, at, determinant, step)
    if landing.counts == 0:
        return

    # 2. whether the camera sees it
    receiver = border.receiver
    eye = origin_of(at, camera, undistort(at, camera), 0.0)
    wi = seen_along(scene, tables, tracer, view, world, border.moment, receiver, x, eye)
    if wp.dot(wi, wi) == 0.0:
        return

    # 3. the jump of what x sends to the camera
    source = border.source
    direction = border.direction
    radius = scene.spheres[world, ball][3]
    lit = wp.vec3(0.0, 0.0, 0.0)
    if sources == 0:
        lit = light_past(
            scene, tables, tracer, view, world, border.moment, source, receiver, x, wi, border.beside, border.o, direction,
            border.parallel,
        )  # fmt: skip
    else:
        toward = -direction
        rim = on_ball(border.e, border.center, radius, -toward)
        seed_past = wp.rand_init(int(state), 1)
        outer = radiance_past(scene, tables, film, tracer, view, world, border.moment, border.beside, toward, 2, seed_past)
        inner = radiance(
            scene, tables, film, tracer, view, world, border.moment, seen_ball(ball), rim - toward, toward, 2, 0,
            wp.rand_init(int(seed_past), 2),
        )  # fmt: skip
        lit = wp.cw_mul(
            outer - inner,
            bsdf_cos(
                receiver.kind,
                receiver.two_sided,
                receiver.schlick,
                receiver.albedo,
                receiver.alpha,
                receiver.normal,
                wi,
                toward,
            ),
        )
    if wp.dot(lit, lit) == 0.0:
        return

    # 4. the weight, and the gradient of weight . film point
    tangent = outline_tangent(border.parallel, border.viewpoint, border.center, radius, phi)
    outward = (border.e - border.center) / radius
    n = receiver.normal
    along = shadow_velocity(border.o, border.e, x, n, direction, border.parallel, tangent)
    outwards = shadow_velocity(border.o, border.e, x, n, direction, border.parallel, outward)
    normal = outer_normal(film_velocity(x, along, camera), film_velocity(x, outwards, camera))
    if wp.length(normal) == 0.0:
        return
    jump = -lit
    share = 2.0 * wp.PI / (float(per_ball) * determinant)
    weight = normal * (jump_weight(scene, film, view, adjoint, landing, jump, 0) * source.weight * share)
    sink.slot = wp.tid() % sink.totals.shape[0]
    g_x, g_camera, _w = wp.grad(weighted_film)(x, camera, weight)
    deposit(sink, sink.numbers.cameras, view, g_camera)
    g_o, g_d, at_blend = pull_point(
        scene, tables, sink, view, world, border.moment, border.hit.kind, border.hit.index, receiver, border.o, border.d, x, g_x
    )
    _l, ga, gb, gc, _u, _v, g_center, g_radius, _phi, _go, _gd = wp.grad(outline_ray_along)(
        source.kind, source.a, source.b, source.c, source.u, source.v, border.center, radius, phi, g_o, g_d
    )
    at_blend += add_corner_gradients(
        scene, tables, sink, view, world, border.moment, SPHERE, ball, g_center, wp.vec3(g_radius, 0.0, 0.0), wp.vec3()
    )
    nothing = wp.vec3(0.0, 0.0, 0.0)
    if sources == 0:
        at_blend += add_light_gradient(
            scene,
            tables,
            sink,
            view,
            world,
            border.moment,
            source.kind,
            source.index,
            source.u,
            source.v,
            direction,
            ga,
            gb,
            gc,
            nothing,
        )
    add_time_gradient(sink, film, view, at, u, at_blend)
    splat_jump(scene, film, sink, view, index, adjoint, derivative, landing, jump, 0)
