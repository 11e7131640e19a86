r"""How an image changes because the outlines of balls move on the film: `render.primary_boundary` with points of outlines
(`render.ball_outline`) for points of edges, phi for the place along the curve. Left out: what it leaves out.
"""

import warp as wp

from render.ball_outline import BESIDE, on_ball, outline_point, outline_tangent, seen_ball
from render.camera_projection import NEAR, camera_vector, depth_of, film_of, film_velocity, origin_of, undistort, unfolded
from render.gradient_sink import Sink, collect, deposit, near_film, splat, splat_plate
from render.hits import closest
from render.intersector import Intersector
from render.path_adjoint import add_time_gradient
from render.pixel_filter import adjoint_at, plate_adjoint_at
from render.placing import point_velocity, to_world
from render.primary_boundary import READOUT_STEPS, SMALLEST_DETERMINANT, UNSETTLED, film_pixel, sees_plate, side_radiance
from render.reversible import reversible
from render.scene_data import (
    SPHERE,
    FilmPlan,
    Moment,
    SceneNumbers,
    SceneTables,
    moment_at,
    sample_time,
)
from render.surface import add_corner_gradients


@reversible
@wp.func
def outline_film_along(camera: camera_vector, center: wp.vec3, radius: float, phi: float, weight: wp.vec2):
    """weight . film point of the outline that the camera sees."""
    viewpoint = wp.vec3(camera[0], camera[1], camera[2])
    parallel = int(0)
    if camera[21] != 0.0:
        viewpoint = wp.vec3(camera[9], camera[10], camera[11])
        parallel = 1
    return wp.dot(weight, film_of(outline_point(parallel, viewpoint, center, radius, phi), camera))


@wp.kernel(enable_backward=False)
def ball_primary_kernel(
    scene: SceneNumbers,
    tables: SceneTables,
    film: FilmPlan,
    tracer: Intersector,
    seed: wp.array(dtype=int),
    view: int,
    first: int,
    per_ball: int,
    adjoint: wp.array3d(dtype=wp.vec3),
    refused: wp.array(dtype=int),
    sink: Sink,
    derivative: wp.array3d(dtype=wp.vec3),
):
    """Outline samples first, first + 1, ...: `per_ball` of each ball in one view."""
    index = wp.tid() + first
    ball = index / per_ball
    world = view / film.views_per_world
    state = wp.rand_init(seed[view] + 0x27220A95, view * per_ball * tables.sphere_table.shape[0] + index)
    phi = 2.0 * wp.PI * (float(index - ball * per_ball) + wp.randf(state)) / float(per_ball)
    u = wp.randf(state) - 0.5
    camera = scene.cameras[view]
    readout = scene.readout[view]
    numbers = scene.spheres[world, ball]
    local = wp.vec3(numbers[0], numbers[1], numbers[2])
    radius = numbers[3]
    instance = tables.sphere_table[ball, 0]
    viewpoint = wp.vec3(camera[0], camera[1], camera[2])
    parallel = int(0)
    if camera[21] != 0.0:
        viewpoint = wp.vec3(camera[9], camera[10], camera[11])
        parallel = 1
    at = film.frame * 0.5
    center = wp.vec3()
    e = wp.vec3()
    moment = Moment()
    steps = wp.where(readout[0] != 0.0 or readout[1] != 0.0, READOUT_STEPS, 1)
    step = float(0.0)
    for _step in range(steps):
        before = at
        time = sample_time(film, scene.exposure[view], readout, at, u)
        moment = moment_at(scene.positions.shape[2], film.node_interval, time)
        center = to_world(scene, view, moment, instance, local)
        if parallel == 0 and wp.length(center - viewpoint) <= radius:
            return
        e = outline_point(parallel, viewpoint, center, radius, phi)
        if parallel == 0 and depth_of(e, camera) <= NEAR:
            return
        at = film_of(e, camera)
        step = wp.length(at - before)
    determinant = float(1.0)
    if steps > 1:
        velocity = point_velocity(scene, view, moment, instance, film.node_interval, local)
        slope = wp.vec2(readout[0] / film.frame[0], readout[1] / film.frame[1])
        _c, by_center, _r, _p, _w = wp.grad(outline_film_along)(camera, center, radius, phi, slope)
        determinant = 1.0 - wp.dot(by_center, velocity)
        if determinant < SMALLEST_DETERMINANT and step > UNSETTLED * film.frame[1]:
            wp.atomic_add(refused, 0, 1)
            return
    pixel = film_pixel(film, at)
    h = wp.vec3(0.0, 0.0, 0.0)
    if sink.forward == 0:
        h = adjoint_at(adjoint, view, pixel, film.filter_kind, film.filter_size)
        if wp.dot(h, h) == 0.0:
            return
    elif not near_film(derivative, pixel, film.filter_kind, film.filter_size):
        return
    if not unfolded(e, at, camera):
        return
    if determinant < SMALLEST_DETERMINANT:
        wp.atomic_add(refused, 0, 1)
        return
    along = film_velocity(e, outline_tangent(parallel, viewpoint, center, radius, phi), camera)
    length = wp.length(along)
    if length < 1.0e-9:
        return
    normal = wp.vec2(along[1], -along[0]) / length
    side = wp.where(wp.dot(normal, film_velocity(e, e - center, camera)) > 0.0, 1.0, -1.0)
    plane = undistort(at, camera)
    o = origin_of(at, camera, plane, 0.0)
    distance = wp.length(e - o)
    beside = (e - center) * BESIDE
    rim = on_ball(e, center, radius, o - e)
    front = closest(scene, tables, tracer, view, world, moment, o, rim - o)
    if front.t < 1.0 - BESIDE:
        return
    behind = closest(scene, tables, tracer, view, world, moment, o, e + beside - o)
    if behind.t * distance < distance - radius:
        return
    inner = side_radiance(
        scene, tables, film, tracer, view, world, moment, seen_ball(ball), o, rim - o, wp.rand_init(int(state), 1)
    )
    outer = side_radiance(
        scene, tables, film, tracer, view, world, moment, behind, o, e + beside - o, wp.rand_init(int(state), 2)
    )
    on_plate = sees_plate(scene, film, behind)
    jump = float(1.0)
    if sink.forward == 0:
        jump = wp.dot(inner - outer, h)
        if on_plate != 0:
            jump -= plate_adjoint_at(adjoint, scene.plate, view, pixel, film.filter_kind, film.filter_size)
    share = 2.0 * wp.PI / float(per_ball)
    weight = normal * (jump * side * length * share * film.scale * film.scale / determinant)
    sink.slot = wp.tid() % sink.totals.shape[0]
    g_camera, g_center, g_radius, _phi, _weight = wp.grad(outline_film_along)(camera, center, radius, phi, weight)
    deposit(sink, sink.numbers.cameras, view, g_camera)
    at_blend = add_corner_gradients(
        scene, tables, sink, view, world, moment, SPHERE, ball, g_center, wp.vec3(g_radius, 0.0, 0.0), wp.vec3()
    )
    add_time_gradient(sink, film, view, at, u, at_blend)
    if sink.forward != 0:
        moved = collect(sink)
        splat(derivative, view, pixel, film.filter_kind, film.filter_size, (inner - outer) * moved)
        if on_plate != 0:
            splat_plate(derivative, scene.plate, view, pixel, film.filter_kind, film.filter_size, -moved)
