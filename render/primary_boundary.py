r"""How an image changes because edges move on the film: explicit sampling of rims and creases that the camera sees.

The curves of `render.film_curve` are edges, x(s) the film point of the edge's point at s. Left out: curves where surfaces cut
through each other. Edges that are seen by way of other surfaces: `render.shadow_boundary`.
"""

import warp as wp

from render.boundary_side import seen_face, sees_plate, side_radiance
from render.camera_projection import (
    NEAR,
    camera_vector,
    depth_of,
    film_of,
    film_velocity,
    origin_of,
    ray_of,
    undistort,
    weighted_film,
)
from render.edge_guide import EdgeDraw, guided_place
from render.edge_sampling import CREASE, NOTHING, add_edge_gradient, choose_edge, edge_at, sight_of
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
from render.path_adjoint import add_time_gradient
from render.placing import point_velocity, to_world
from render.scene_data import FACE, FilmPlan, Moment, SceneNumbers, SceneTables, moment_at, sample_time


@wp.func
def sight_line(camera: camera_vector, at: wp.vec2, point: wp.vec3):
    """Where the ray to a point that is seen at `at` begins, and the way from there to the point."""
    o = origin_of(at, camera, undistort(at, camera), 0.0)
    return o, point - o


@wp.kernel(enable_backward=False)
def primary_boundary_kernel(
    scene: SceneNumbers,
    tables: SceneTables,
    film: FilmPlan,
    tracer: Intersector,
    seed: wp.array(dtype=int),
    view: int,
    first: int,
    draw: EdgeDraw,
    side_offset: float,
    adjoint: wp.array3d(dtype=wp.vec3),
    refused: wp.array(dtype=int),
    sink: Sink,
    derivative: wp.array3d(dtype=wp.vec3),
):
    """Edge samples first, first + 1, ... of `draw.count` in one view."""
    index = wp.tid() + first
    world = view / film.views_per_world
    state = wp.rand_init(seed[view] + 0x3C6EF372 + 0x1F123BB5 * draw.round, view * draw.count + index)
    place, guided = guided_place(draw, index, wp.randf(state))
    chosen, s, density = choose_edge(draw.sums, place)
    density = density * guided
    u = wp.randf(state) - 0.5
    if density <= 0.0:
        return
    camera = scene.cameras[view]
    readout = scene.readout[view]

    # 1. where the film sees the point, and when
    at = film.frame * 0.5
    point = wp.vec3()
    moment = Moment()
    steps = int(1)
    if readout[0] != 0.0 or readout[1] != 0.0:
        steps = READOUT_STEPS
    ia = tables.edges[chosen, 0]
    ib = tables.edges[chosen, 1]
    local = scene.vertices[world, ia] * (1.0 - s) + scene.vertices[world, ib] * s
    instance = tables.face_table[tables.edges[chosen, 2], 0]
    step = float(0.0)
    for _step in range(steps):
        before = at
        time = sample_time(film, scene.exposure[view], readout, at, u)
        moment = moment_at(scene.positions.shape[2], film.node_interval, time)
        point = to_world(scene, view, moment, instance, local)
        if camera[21] == 0.0 and depth_of(point, camera) <= NEAR:
            return
        at = film_of(point, camera)
        step = wp.length(at - before)
    determinant = float(1.0)
    if steps > 1:
        velocity = point_velocity(scene, view, moment, instance, film.node_interval, local)
        determinant = 1.0 - wp.dot(readout_slope(film, readout), film_velocity(point, velocity, camera))
    landing = landing_at(film, camera, view, adjoint, derivative, refused, point, at, determinant, step)
    if landing.counts == 0:
        return

    # 2. what the edge is, and whether it is seen
    edge = edge_at(scene, tables, view, world, moment, chosen)
    o, toward = sight_line(camera, at, point)
    sight = sight_of(edge, point, toward)
    if sight.kind == NOTHING:
        return
    normal = outer_normal(film_velocity(point, edge.b - edge.a, camera), film_velocity(point, sight.outward, camera))
    length = wp.length(normal)
    if length == 0.0:
        return
    slack = 1.0e-4 + 1.0e-2 * wp.length(edge.b - edge.a) / wp.length(toward)
    on_plate = int(0)
    light_seed = wp.rand_init(int(state), 1)
    near, near_place = seen_face(scene, tables, view, world, moment, sight.near_face, point)
    outer = wp.vec3(0.0, 0.0, 0.0)
    if sight.kind == CREASE:
        front = closest(scene, tables, tracer, view, world, moment, o, toward)
        if front.t < 1.0 - slack and not (front.kind == FACE and (front.index == edge.face0 or front.index == edge.face1)):
            return
        far, far_place = seen_face(scene, tables, view, world, moment, sight.far_face, point)
        outer = side_radiance(scene, tables, film, tracer, view, world, moment, far, o, far_place - o, light_seed)
    else:
        offset = wp.max(side_offset * wp.min(1.0 / film.scale, length), 1.0e-6 * camera[12])
        beside = at + normal * (offset / length)
        plane = undistort(beside, camera)
        o_beside = origin_of(beside, camera, plane, 0.0)
        d_beside = ray_of(beside, camera, plane) * wp.length(toward)
        behind = closest(scene, tables, tracer, view, world, moment, o_beside, d_beside)
        if behind.t < 1.0 - slack:
            return
        on_plate = sees_plate(scene, film, behind)
        outer = side_radiance(
            scene, tables, film, tracer, view, world, moment, behind, o_beside, d_beside,
            wp.rand_init(int(state), 2),
        )  # fmt: skip
    inner = side_radiance(scene, tables, film, tracer, view, world, moment, near, o, near_place - o, light_seed)

    # 3. the weight, and the gradient of weight . film point
    jump = inner - outer
    share = density * float(draw.count) * determinant
    weight = normal * (jump_weight(scene, film, view, adjoint, landing, jump, on_plate) / share)
    sink.slot = wp.tid() % sink.totals.shape[0]
    g_point, g_camera, _w = wp.grad(weighted_film)(point, camera, weight)
    deposit(sink, sink.numbers.cameras, view, g_camera)
    at_blend = add_edge_gradient(scene, tables, sink, view, world, moment, instance, chosen, g_point * (1.0 - s), g_point * s)
    add_time_gradient(sink, film, view, at, u, at_blend)
    splat_jump(scene, film, sink, view, index, adjoint, derivative, landing, jump, on_plate)
