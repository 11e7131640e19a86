r"""How an image changes because the outlines of balls move on the film: the curves of `render.film_curve` are outlines
(`render.ball_outline`), x(phi) the film point of the outline's point at phi. Left out: what
`render.primary_boundary` leaves out.
"""

import warp as wp

from render.ball_outline import BESIDE, on_ball, outline_point, outline_tangent, seen_ball
from render.boundary_side import sees_plate, side_radiance
from render.camera_projection import NEAR, camera_vector, depth_of, film_of, film_velocity, origin_of, undistort
from render.film_curve import READOUT_STEPS, jump_weight, landing_at, outer_normal, readout_slope, splat_jump
from render.gradient_sink import Sink, deposit
from render.hits import closest
from render.intersector import Intersector
from render.path_adjoint import add_time_gradient
from render.placing import point_velocity, to_world
from render.reversible import reversible
from render.scene_data import SPHERE, FilmPlan, Moment, SceneNumbers, SceneTables, moment_at, sample_time
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
        _c, by_center, _r, _p, _w = wp.grad(outline_film_along)(camera, center, radius, phi, readout_slope(film, readout))
        determinant = 1.0 - wp.dot(by_center, velocity)
    landing = landing_at(film, camera, view, adjoint, derivative, refused, e, at, determinant, step)
    if landing.counts == 0:
        return
    normal = outer_normal(
        film_velocity(e, outline_tangent(parallel, viewpoint, center, radius, phi), camera),
        film_velocity(e, e - center, camera),
    )
    if wp.length(normal) == 0.0:
        return
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
    jump = inner - outer
    share = 2.0 * wp.PI / (float(per_ball) * determinant)
    weight = normal * (jump_weight(scene, film, view, adjoint, landing, jump, on_plate) * share)
    sink.slot = wp.tid() % sink.totals.shape[0]
    g_camera, g_center, g_radius, _phi, _weight = wp.grad(outline_film_along)(camera, center, radius, phi, weight)
    deposit(sink, sink.numbers.cameras, view, g_camera)
    at_blend = add_corner_gradients(
        scene, tables, sink, view, world, moment, SPHERE, ball, g_center, wp.vec3(g_radius, 0.0, 0.0), wp.vec3()
    )
    add_time_gradient(sink, film, view, at, u, at_blend)
    splat_jump(scene, film, sink, view, index, adjoint, derivative, landing, jump, on_plate)
