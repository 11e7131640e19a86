r"""How an image changes because edges move on the film: explicit sampling of rims and creases that the camera sees.

A pixel is the radiance integrated with the pixel filter. Where the radiance jumps across a curve x(s), moving the curve adds

    d loss = integral over the curve  h (L_minus - L_plus)  N . dx  ds

(Li et al. 2018, "Differentiable Monte Carlo ray tracing through edge sampling"): N = perp(dx/ds) is the curve's normal by its
length element, L_plus the radiance on the side that N points to, h the loss's derivative by the image, convolved with the
filter,
at x. So a sample is a pseudo-loss `weight . film point` with the weight held fixed; its derivative serves vertices, poses and
camera alike, distortion included.

A point of an edge, at the place u in the exposure, is seen at x = P(s, t(x)): with a readout skew the time depends on where
it lands. The equation is solved by fixed-point iteration; perp(B v) = det(B) B^-T perp(v) makes the integrand that of P with
the weight divided by det = 1 - t_x' . P_t. Motion that outruns the readout (det near 0) is counted in `refused`.

Left out: curves where surfaces cut through each other. Edges that are seen by way of other surfaces: `render.shadow_boundary`.
"""

import warp as wp

from render.aov_value import RADIANCE, shown_value
from render.camera_projection import (
    NEAR,
    camera_vector,
    depth_of,
    film_of,
    film_velocity,
    origin_of,
    ray_of,
    undistort,
    unfolded,
)
from render.edge_guide import EdgeDraw, guided_place
from render.edge_sampling import CREASE, NOTHING, add_edge_gradient, choose_edge, edge_at, sight_of
from render.gradient_sink import FORWARD, PILOT, Sink, collect, deposit, near_film, splat, splat_plate
from render.hits import barycentric, closest
from render.intersector import Intersector
from render.path_adjoint import add_time_gradient
from render.path_radiance import radiance
from render.pixel_filter import adjoint_at, plate_adjoint_at
from render.placing import point_velocity, to_world
from render.reversible import reversible
from render.scene_data import (
    FACE,
    MISSED,
    FilmPlan,
    Hit,
    Moment,
    SceneNumbers,
    SceneTables,
    moment_at,
    sample_time,
)

READOUT_STEPS = wp.constant(6)  # fixed-point steps for the relation of row and time; each gains a factor 1 - det
SMALLEST_DETERMINANT = wp.constant(0.05)
UNSETTLED = wp.constant(0.01)  # last fixed-point step of a point that runs away, in frame heights
INWARD = wp.constant(1.0e-3)  # of the way to a face's middle


@reversible
@wp.func
def film_along(point: wp.vec3, camera: camera_vector, weight: wp.vec2):
    return wp.dot(weight, film_of(point, camera))


@wp.func
def sight_line(camera: camera_vector, at: wp.vec2, point: wp.vec3):
    """Where the ray to a point that is seen at `at` begins, and the way from there to the point."""
    o = origin_of(at, camera, undistort(at, camera), 0.0)
    return o, point - o


@wp.func
def seen_face(scene: SceneNumbers, tables: SceneTables, view: int, world: int, moment: Moment, face: int, point: wp.vec3):
    """A hit on a face, at t = 1, a little inside from a point of its edge; and that place. On the edge itself, the face that
    meets it there would stand in the way of light."""
    hit = Hit()
    hit.kind = FACE
    hit.index = face
    hit.t = 1.0
    instance = tables.face_table[face, 0]
    a = to_world(scene, view, moment, instance, scene.vertices[world, tables.faces[face, 0]])
    b = to_world(scene, view, moment, instance, scene.vertices[world, tables.faces[face, 1]])
    c = to_world(scene, view, moment, instance, scene.vertices[world, tables.faces[face, 2]])
    uv = barycentric(point, a, b, c)
    hit.u = wp.clamp(uv[0], 0.0, 1.0)
    hit.v = wp.clamp(uv[1], 0.0, 1.0 - hit.u)
    hit.u += (1.0 / 3.0 - hit.u) * INWARD
    hit.v += (1.0 / 3.0 - hit.v) * INWARD
    return hit, a * (1.0 - hit.u - hit.v) + b * hit.u + c * hit.v


@wp.func
def sees_plate(scene: SceneNumbers, film: FilmPlan, hit: Hit):
    return wp.where(film.shows == RADIANCE and hit.kind == MISSED and scene.plate.shape[1] > 0, 1, 0)


@wp.func
def side_radiance(
    scene: SceneNumbers, tables: SceneTables, film: FilmPlan, tracer: Intersector, view: int, world: int, moment: Moment,
    hit: Hit, o: wp.vec3, d: wp.vec3, seed: wp.uint32,
):  # fmt: skip
    """What the camera sees at a hit, or behind everything: radiance, or what `film.shows` says; 0 for the plate, which is not
    one value but one a pixel (`sees_plate`)."""
    value = wp.vec3(0.0, 0.0, 0.0)
    if film.shows != RADIANCE:
        value = shown_value(scene, tables, film, view, world, moment, hit, o, d)
    elif sees_plate(scene, film, hit) == 0:
        value = radiance(scene, tables, film, tracer, view, world, moment, hit, o, d, 1, 1, seed)
    return value


@wp.func
def readout_determinant(film: FilmPlan, readout: wp.vec2, drift: wp.vec2):
    """1 - t_x' . P_t for a film velocity `drift` [px/s]."""
    return 1.0 - readout[0] / film.frame[0] * drift[0] - readout[1] / film.frame[1] * drift[1]


@wp.func
def film_pixel(film: FilmPlan, at: wp.vec2):
    """Film coordinates of a full-resolution point [film px]."""
    return (at - film.origin) * film.scale


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
        determinant = readout_determinant(film, readout, film_velocity(point, velocity, camera))
        if determinant < SMALLEST_DETERMINANT and step > UNSETTLED * film.frame[1]:  # it runs away, from wherever it is seen
            wp.atomic_add(refused, 0, 1)
            return
    pixel = film_pixel(film, at)
    h = wp.vec3(0.0, 0.0, 0.0)
    if adjoint.shape[0] > 0:
        h = adjoint_at(adjoint, view, pixel, film.filter_kind, film.filter_size)
        if wp.dot(h, h) == 0.0:
            return
    elif not near_film(derivative, pixel, film.filter_kind, film.filter_size):
        return
    if not unfolded(point, at, camera):
        return
    if determinant < SMALLEST_DETERMINANT:
        wp.atomic_add(refused, 0, 1)
        return

    # 2. what the edge is, and whether it is seen
    edge = edge_at(scene, tables, view, world, moment, chosen)
    o, toward = sight_line(camera, at, point)
    sight = sight_of(edge, point, toward)
    along = film_velocity(point, edge.b - edge.a, camera)
    length = wp.length(along)
    if sight.kind == NOTHING or length < 1.0e-9:
        return
    normal = wp.vec2(along[1], -along[0]) / length
    side = wp.where(wp.dot(normal, film_velocity(point, sight.outward, camera)) > 0.0, 1.0, -1.0)
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
        beside = at + normal * (side * offset)
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
    jump = float(1.0)
    if adjoint.shape[0] > 0:
        jump = wp.dot(inner - outer, h)
        if on_plate != 0:
            jump -= plate_adjoint_at(adjoint, scene.plate, view, pixel, film.filter_kind, film.filter_size)
    # (minus side) - (plus side), outer being on the plus side if side > 0
    weight = normal * (jump * side * length * film.scale * film.scale / (density * float(draw.count) * determinant))
    sink.slot = wp.tid() % sink.totals.shape[0]
    g_point, g_camera, _w = wp.grad(film_along)(point, camera, weight)
    deposit(sink, sink.numbers.cameras, view, g_camera)
    at_blend = add_edge_gradient(scene, tables, sink, view, world, moment, instance, chosen, g_point * (1.0 - s), g_point * s)
    add_time_gradient(sink, film, view, at, u, at_blend)
    if sink.forward == FORWARD:
        moved = collect(sink)
        splat(derivative, view, pixel, film.filter_kind, film.filter_size, (inner - outer) * moved)
        if on_plate != 0:
            splat_plate(derivative, scene.plate, view, pixel, film.filter_kind, film.filter_size, -moved)
    elif sink.forward == PILOT:
        size = wp.abs(collect(sink))
        if adjoint.shape[0] == 0:
            size = size * wp.length(inner - outer)
        sink.scores[view, index] = size
