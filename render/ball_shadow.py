r"""How an image changes because the shadows of balls move: `render.shadow_boundary` with points of outlines, seen from the
light (`render.ball_outline`), for points of edges. Left out: what it leaves out.
"""

import warp as wp

from render.ball_outline import BESIDE, on_ball, outline_point, outline_tangent, seen_ball
from render.bsdf import bsdf_cos
from render.camera_projection import NEAR, camera_vector, depth_of, film_of, film_velocity, origin_of, undistort, unfolded
from render.gradient_sink import Sink, collect, deposit, near_film, splat
from render.hits import FAR, blocked, closest, hit_point, offset_origin
from render.intersector import Intersector
from render.lights import light_value
from render.path_adjoint import add_time_gradient
from render.path_radiance import radiance
from render.pixel_filter import adjoint_at
from render.placing import to_world
from render.primary_boundary import film_pixel
from render.reversible import reversible
from render.scene_data import (
    DIRECTIONAL,
    ENVIRONMENT,
    FACE,
    LAMP,
    MISSED,
    POINT,
    SPHERE,
    FilmPlan,
    Moment,
    SceneNumbers,
    SceneTables,
    light_vector,
    moment_at,
)
from render.shadow_border import SIDE, draw_source, shadow_velocity
from render.surface import add_corner_gradients, surface_of


@reversible
@wp.func
def outline_shadow_along(
    light: int, a: wp.vec3, b: wp.vec3, c: wp.vec3, u: float, v: float, center: wp.vec3, radius: float, phi: float, kind: int,
    ra: wp.vec3, rb: wp.vec3, rc: wp.vec3, camera: camera_vector, weight: wp.vec2,
):  # fmt: skip
    """weight . film point of the outline's shadow on the receiver with corners ra, rb, rc."""
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
    return wp.dot(weight, film_of(hit_point(kind, o, d, ra, rb, rc), camera))


@wp.func
def light_jump(
    scene: SceneNumbers, tables: SceneTables, film: FilmPlan, tracer: Intersector, view: int, world: int, moment: Moment,
    sources: int, ball: int, beside: wp.vec3, rim: wp.vec3, direction: wp.vec3, toward: wp.vec3, back: float,
    seed: wp.uint32,
):  # fmt: skip
    """sources = 1: radiance from past the outline less that of the ball beside it; 0: (1, 1, 1) where the light comes past."""
    jump = wp.vec3(0.0, 0.0, 0.0)
    if sources == 0:
        if not blocked(scene, tables, tracer, view, world, moment, beside, -direction, back):
            jump = wp.vec3(1.0, 1.0, 1.0)
    else:
        behind = closest(scene, tables, tracer, view, world, moment, beside, toward)
        jump = radiance(scene, tables, film, tracer, view, world, moment, behind, beside, toward, 2, 0, seed)
        inner = radiance(
            scene, tables, film, tracer, view, world, moment, seen_ball(ball), rim - toward, toward, 2, 0,
            wp.rand_init(int(seed), 2),
        )  # fmt: skip
        jump = jump - inner
    return jump


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
    camera = scene.cameras[view]
    moment = moment_at(scene.positions.shape[2], film.node_interval, scene.exposure[view] * film.frame_interval * u)
    numbers = scene.spheres[world, ball]
    radius = numbers[3]
    center = to_world(scene, view, moment, tables.sphere_table[ball, 0], wp.vec3(numbers[0], numbers[1], numbers[2]))

    # 1. the outline's point, seen from the light
    source = draw_source(scene, tables, view, world, moment, sources, wp.randf(state), wp.randf(state), wp.randf(state))
    parallel = wp.where(source.kind == DIRECTIONAL or source.kind == ENVIRONMENT, 1, 0)
    viewpoint = source.a
    if source.kind == LAMP:
        viewpoint = source.a * (1.0 - source.u - source.v) + source.b * source.u + source.c * source.v
    elif source.kind == ENVIRONMENT:
        viewpoint = -source.a
    if parallel == 0 and wp.length(center - viewpoint) <= radius:
        return
    e = outline_point(parallel, viewpoint, center, radius, phi)
    direction = viewpoint
    if parallel == 0:
        direction = e - viewpoint
    way = wp.length(direction)
    direction = direction / way
    front = wp.cross(source.b - source.a, source.c - source.a)
    if source.kind == LAMP and wp.dot(front, direction) <= 0.0:
        return
    toward = direction
    if sources == 1:
        toward = -direction

    # 2. the receiver, and where the film sees it
    outward = (e - center) / radius
    beside = e + outward * (BESIDE * radius)
    receiver = closest(scene, tables, tracer, view, world, moment, beside, direction)
    if receiver.kind == MISSED or (receiver.kind == SPHERE and receiver.index == ball):
        return
    at_receiver = surface_of(scene, tables, view, world, moment, receiver, beside, direction)
    n = at_receiver.normal
    o = e
    if parallel == 0:
        o = viewpoint
    x = hit_point(receiver.kind, o, direction, at_receiver.a, at_receiver.b, at_receiver.c)
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
    to_eye = origin_of(at, camera, undistort(at, camera), 0.0) - x
    distance = wp.length(to_eye)
    wi = to_eye / distance
    if at_receiver.two_sided == 0 and wp.dot(n, wi) <= 0.0:
        return
    if blocked(scene, tables, tracer, view, world, moment, offset_origin(x, n, wi), wi, distance):
        return

    # 3. the jump of what x sends to the camera
    from_light = light_jump(
        scene, tables, film, tracer, view, world, moment, sources, ball, beside,
        on_ball(e, center, radius, -toward), direction, toward,
        wp.where(parallel == 0, way * (1.0 - SIDE), FAR), wp.rand_init(int(state), 1),
    )  # fmt: skip
    lit = wp.vec3(0.0, 0.0, 0.0)
    if sources == 1:
        lit = wp.cw_mul(
            from_light,
            bsdf_cos(
                at_receiver.kind,
                at_receiver.two_sided,
                at_receiver.schlick,
                at_receiver.albedo,
                at_receiver.alpha,
                n,
                wi,
                toward,
            ),
        )
    elif from_light[0] > 0.0:
        lit = light_value(
            source.kind, at_receiver.kind, at_receiver.two_sided, at_receiver.schlick, at_receiver.albedo, at_receiver.alpha, n,
            x, wi, source.a, source.b, source.c, source.u, source.v, source.radiance,
        )  # fmt: skip
    if wp.dot(lit, lit) == 0.0:
        return

    # 4. the weight, and the gradient of weight . film point
    tangent = outline_tangent(parallel, viewpoint, center, radius, phi)
    along = film_velocity(x, shadow_velocity(o, e, x, n, direction, parallel, tangent), camera)
    length = wp.length(along)
    if length < 1.0e-9:
        return
    normal = wp.vec2(along[1], -along[0]) / length
    outwards = film_velocity(x, shadow_velocity(o, e, x, n, direction, parallel, outward), camera)
    side = wp.where(wp.dot(normal, outwards) > 0.0, 1.0, -1.0)
    jump = float(1.0)
    if sink.forward == 0:
        jump = wp.dot(lit, h)
    share = 2.0 * wp.PI / float(per_ball)
    weight = normal * (-jump * side * source.weight * length * share * film.scale * film.scale)
    sink.slot = wp.tid() % sink.totals.shape[0]
    _l, ga, gb, gc, _u, _v, g_center, g_radius, _phi, _k, gra, grb, grc, g_camera, _w = wp.grad(outline_shadow_along)(
        source.kind, source.a, source.b, source.c, source.u, source.v, center, radius, phi, receiver.kind, at_receiver.a,
        at_receiver.b, at_receiver.c, camera, weight,
    )  # fmt: skip
    deposit(sink, sink.numbers.cameras, view, g_camera)
    at_blend = add_corner_gradients(
        scene, tables, sink, view, world, moment, SPHERE, ball, g_center, wp.vec3(g_radius, 0.0, 0.0), wp.vec3()
    )
    at_blend += add_corner_gradients(scene, tables, sink, view, world, moment, receiver.kind, receiver.index, gra, grb, grc)
    if source.kind == LAMP:
        at_blend += add_corner_gradients(scene, tables, sink, view, world, moment, FACE, source.index, ga, gb, gc)
    elif source.kind == POINT or source.kind == DIRECTIONAL:
        zero = float(0.0)
        deposit(sink, sink.numbers.lights, world, source.index, light_vector(ga[0], ga[1], ga[2], zero, zero, zero))
    add_time_gradient(sink, film, view, at, u, at_blend)
    if sink.forward != 0:
        splat(derivative, view, pixel, film.filter_kind, film.filter_size, lit * collect(sink))
