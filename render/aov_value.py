r"""What a ray shows besides radiance: depth, position, normal, albedo, mask and motion of the surface that it meets first.

They come in groups of three numbers, so that what is made for radiance serves them as it is; `FilmPlan.shows` says which. A
ray that meets nothing shows 0 in all of them.

Motion is where the film sees the same point of the surface a while later, less where it sees it now,

    P(X(t + T)) - P(X(t)),

P the camera's film point [px of the full frame], X the point, carried along by its instance. The camera stands still.
"""

import warp as wp

from render.camera_projection import NEAR, camera_vector, depth_of, film_of, position_of, turned_to_camera
from render.gradient_sink import Sink, deposit
from render.placing import blend_orientation, placed
from render.reversible import reversible
from render.scene_data import MISSED, SDF, SPHERE, FilmPlan, Hit, Moment, SceneNumbers, SceneTables
from render.surface import Surface, surface_of

RADIANCE, FORM, POSITION, NORMAL, REFLECTANCE, MOTION = (wp.constant(i) for i in range(6))  # FORM: depth, mask, 0
GROUPS = (1, 2, 3, 4, 5)  # FORM to MOTION


@reversible
@wp.func
def depth_along(point: wp.vec3, camera: camera_vector, weight: float):
    return weight * turned_to_camera(point - position_of(camera), camera)[2]


@reversible
@wp.func
def carried(
    p0: wp.vec3, p1: wp.vec3, q0: wp.quat, q1: wp.quat, blend: float, later_p0: wp.vec3, later_p1: wp.vec3, later_q0: wp.quat,
    later_q1: wp.quat, later_blend: float, x: wp.vec3,
):  # fmt: skip
    """Where the point of a body that is at x now is later."""
    local = wp.quat_rotate_inv(blend_orientation(q0, q1, blend), x - (p0 + (p1 - p0) * blend))
    return placed(later_p0, later_p1, later_q0, later_q1, later_blend, local)


@reversible
@wp.func
def carried_film_along(
    p0: wp.vec3, p1: wp.vec3, q0: wp.quat, q1: wp.quat, blend: float, later_p0: wp.vec3, later_p1: wp.vec3, later_q0: wp.quat,
    later_q1: wp.quat, later_blend: float, x: wp.vec3, camera: camera_vector, weight: wp.vec2,
):  # fmt: skip
    """weight . later film point; the film point of now is that of the ray, and held fixed."""
    point = carried(p0, p1, q0, q1, blend, later_p0, later_p1, later_q0, later_q1, later_blend, x)
    return wp.dot(weight, film_of(point, camera))


@wp.func
def surface_instance(tables: SceneTables, hit: Hit):
    """Instance that a hit belongs to."""
    instance = int(0)
    if hit.kind == SDF:
        instance = tables.sdf_table[0]
    elif hit.kind == SPHERE:
        instance = tables.sphere_table[hit.index, 0]
    else:
        instance = tables.face_table[hit.index, 0]
    return instance


@wp.func
def motion_span(scene: SceneNumbers, film: FilmPlan, view: int):
    """T [s]: as given, or (below 0) the exposure."""
    span = film.motion_time
    if span < 0.0:
        span = scene.exposure[view] * film.frame_interval
    return span


@wp.func
def later_moment(scene: SceneNumbers, film: FilmPlan, view: int, moment: Moment):
    later = Moment()
    nodes = scene.positions.shape[2]
    if nodes > 1:
        place = float(moment.node) + moment.blend + motion_span(scene, film, view) / film.node_interval
        later.node = wp.clamp(int(wp.floor(place)), 0, nodes - 2)
        later.next = later.node + 1
        later.blend = place - float(later.node)
    return later


@wp.func
def carried_point(scene: SceneNumbers, film: FilmPlan, view: int, moment: Moment, instance: int, x: wp.vec3):
    later = later_moment(scene, film, view, moment)
    row = instance - 1
    return carried(
        scene.positions[view, row, moment.node], scene.positions[view, row, moment.next],
        scene.orientations[view, row, moment.node], scene.orientations[view, row, moment.next], moment.blend,
        scene.positions[view, row, later.node], scene.positions[view, row, later.next],
        scene.orientations[view, row, later.node], scene.orientations[view, row, later.next], later.blend, x,
    )  # fmt: skip


@wp.func
def moves_on_film(scene: SceneNumbers, film: FilmPlan, view: int, moment: Moment, instance: int, x: wp.vec3):
    """Whether motion is defined: the body may move, and is still in front of the camera later."""
    result = bool(False)
    if instance > 0 and moment.next != moment.node:
        camera = scene.cameras[view]
        result = camera[21] != 0.0 or depth_of(carried_point(scene, film, view, moment, instance, x), camera) > NEAR
    return result


@wp.func
def group_value(
    group: int, scene: SceneNumbers, tables: SceneTables, film: FilmPlan, view: int, moment: Moment, hit: Hit, s: Surface
):
    """One group of a surface."""
    value = wp.vec3(0.0, 0.0, 0.0)
    camera = scene.cameras[view]
    if group == FORM:
        value = wp.vec3(depth_of(s.position, camera), 1.0, 0.0)
    elif group == POSITION:
        value = s.position
    elif group == NORMAL:
        value = s.normal
    elif group == REFLECTANCE:
        value = s.albedo
    else:
        instance = surface_instance(tables, hit)
        if moves_on_film(scene, film, view, moment, instance, s.position):
            later = film_of(carried_point(scene, film, view, moment, instance, s.position), camera)
            shift = later - film_of(s.position, camera)
            value = wp.vec3(shift[0], shift[1], 0.0)
    return value


@wp.func
def shown_value(
    scene: SceneNumbers, tables: SceneTables, film: FilmPlan, view: int, world: int, moment: Moment, hit: Hit, o: wp.vec3,
    d: wp.vec3,
):  # fmt: skip
    """The group `film.shows` at the hit of the ray o + t d."""
    value = wp.vec3(0.0, 0.0, 0.0)
    if hit.kind != MISSED:
        s = surface_of(scene, tables, view, world, moment, hit, o, d)
        value = group_value(film.shows, scene, tables, film, view, moment, hit, s)
    return value


@wp.func
def add_motion_gradient(
    scene: SceneNumbers, film: FilmPlan, sink: Sink, view: int, moment: Moment, instance: int, x: wp.vec3, weight: wp.vec2
):
    """Adds the gradient of weight . motion to camera, poses and exposure; returns those of x and of the blend."""
    later = later_moment(scene, film, view, moment)
    row = instance - 1
    g0, g1, gq0, gq1, gblend, h0, h1, hq0, hq1, hblend, gx, gcamera, _w = wp.grad(carried_film_along)(
        scene.positions[view, row, moment.node], scene.positions[view, row, moment.next],
        scene.orientations[view, row, moment.node], scene.orientations[view, row, moment.next], moment.blend,
        scene.positions[view, row, later.node], scene.positions[view, row, later.next],
        scene.orientations[view, row, later.node], scene.orientations[view, row, later.next], later.blend, x,
        scene.cameras[view], weight,
    )  # fmt: skip
    deposit(sink, sink.numbers.positions, view, row, moment.node, g0)
    deposit(sink, sink.numbers.positions, view, row, moment.next, g1)
    deposit(sink, sink.numbers.orientations, view, row, moment.node, gq0)
    deposit(sink, sink.numbers.orientations, view, row, moment.next, gq1)
    deposit(sink, sink.numbers.positions, view, row, later.node, h0)
    deposit(sink, sink.numbers.positions, view, row, later.next, h1)
    deposit(sink, sink.numbers.orientations, view, row, later.node, hq0)
    deposit(sink, sink.numbers.orientations, view, row, later.next, hq1)
    deposit(sink, sink.numbers.cameras, view, gcamera)
    if film.motion_time < 0.0:
        deposit(sink, sink.numbers.exposure, view, hblend / film.node_interval * film.frame_interval)
    return gx, gblend + hblend
