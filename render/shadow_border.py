"""A place of a shadow's border: a point of an edge, a point of a light, the receiver behind them, and its way to the film.

See `render.shadow_boundary`, which integrates over these places.
"""

import warp as wp

from render.boundary_walk import (
    Walk,
    carried,
    instance_of,
    material_velocity,
    met_point,
    on_plane,
    walk_to_film,
)
from render.camera_projection import NEAR, depth_of, film_of, origin_of, undistort
from render.edge_sampling import CREASE, NOTHING, Edge, Sight, edge_at, sight_of
from render.environment import has_panorama, panorama_density, sample_panorama
from render.hits import FAR, blocked, closest, offset_origin
from render.intersector import Intersector
from render.lights import LightSample, choose_lamp, fill_light, lamp_share, light_value
from render.path_radiance import radiance
from render.reversible import reversible
from render.scene_data import (
    DIRECTIONAL,
    ENVIRONMENT,
    LAMP,
    MISSED,
    POINT,
    FilmPlan,
    Moment,
    SceneNumbers,
    SceneTables,
)
from render.surface import Surface, surface_of

SIDE = wp.constant(1.0e-4)  # how far beside an edge a ray passes, relative to its way


@reversible
@wp.func
def light_ray(light: int, a: wp.vec3, b: wp.vec3, c: wp.vec3, u: float, v: float, e: wp.vec3):
    """Origin and direction of the line from a light's point through e; the origin is e where the light is a direction."""
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
def light_ray_along(
    light: int, a: wp.vec3, b: wp.vec3, c: wp.vec3, u: float, v: float, e: wp.vec3, of_origin: wp.vec3, of_direction: wp.vec3
):
    o, d = light_ray(light, a, b, c, u, v, e)
    return wp.dot(of_origin, o) + wp.dot(of_direction, d)


@wp.func
def shadow_velocity(o: wp.vec3, e: wp.vec3, x: wp.vec3, n: wp.vec3, direction: wp.vec3, parallel: int, v: wp.vec3):
    """Velocity of the shadow point x on the plane with normal n while e moves with v; the light travels along `direction`."""
    stretch = float(1.0)
    if parallel == 0:
        stretch = wp.length(x - o) / wp.max(wp.length(e - o), 1.0e-30)
    return (v - direction * (wp.dot(n, v) / wp.dot(n, direction))) * stretch


@wp.func
def light_past(
    scene: SceneNumbers, tables: SceneTables, tracer: Intersector, view: int, world: int, moment: Moment, source: LightSample,
    receiver: Surface, x: wp.vec3, wi: wp.vec3, beside: wp.vec3, o: wp.vec3, direction: wp.vec3, parallel: int,
):  # fmt: skip
    """What the receiver's point x sends along wi of a source's light that comes past what casts the shadow, at `beside`."""
    lit = light_value(
        source.kind, receiver.kind, receiver.two_sided, receiver.schlick, receiver.albedo, receiver.alpha, receiver.normal, x,
        wi, source.a, source.b, source.c, source.u, source.v, source.radiance,
    )  # fmt: skip
    if wp.dot(lit, lit) == 0.0:
        return lit
    back = -direction
    reach = float(FAR)
    if parallel == 0:
        way = o - beside
        length = wp.length(way)
        back = way / length
        reach = length * (1.0 - 2.0 * SIDE)  # short of the light
    if blocked(scene, tables, tracer, view, world, moment, beside, back, reach):
        return wp.vec3(0.0, 0.0, 0.0)
    return lit


@wp.func
def radiance_past(
    scene: SceneNumbers, tables: SceneTables, film: FilmPlan, tracer: Intersector, view: int, world: int, moment: Moment,
    beside: wp.vec3, toward: wp.vec3, depth: int, seed: wp.uint32,
):  # fmt: skip
    """Radiance from along `toward`, without lamps, that comes past what casts the shadow."""
    behind = closest(scene, tables, tracer, view, world, moment, beside, toward)
    return radiance(scene, tables, film, tracer, view, world, moment, behind, beside, toward, depth, 0, seed)


@wp.func
def seen_along(
    scene: SceneNumbers, tables: SceneTables, tracer: Intersector, view: int, world: int, moment: Moment, s: Surface,
    x: wp.vec3, eye: wp.vec3,
):  # fmt: skip
    """Direction in which a point x of a surface is seen from `eye`; 0 where it is not."""
    to_eye = eye - x
    distance = wp.length(to_eye)
    wi = to_eye / distance
    if s.two_sided == 0 and wp.dot(s.normal, wi) <= 0.0:
        return wp.vec3(0.0, 0.0, 0.0)
    if blocked(scene, tables, tracer, view, world, moment, offset_origin(x, s.normal, wi), wi, distance):
        return wp.vec3(0.0, 0.0, 0.0)
    return wi


@wp.func
def source_groups(tables: SceneTables):
    """All lamps together, and each light."""
    return wp.where(tables.lamps.shape[0] > 0, 1, 0) + tables.light_kinds.shape[0]


@wp.func
def draw_source(
    scene: SceneNumbers, tables: SceneTables, view: int, world: int, moment: Moment, sources: int, u0: float, u1: float,
    u2: float,
):  # fmt: skip
    """A lamp's point, a light, or (sources = 1) a direction, with `weight` = 1 / density; kind -1: there is none."""
    sample = LightSample()
    sample.kind = -1
    if sources == 1:
        z = 1.0 - 2.0 * u1
        r = wp.sqrt(wp.max(0.0, 1.0 - z * z))
        direction = wp.vec3(r * wp.cos(2.0 * wp.PI * u2), r * wp.sin(2.0 * wp.PI * u2), z)
        density = 1.0 / (4.0 * wp.PI)
        if has_panorama(tables):  # half of the directions by what the panorama sends
            if u0 < 0.5:
                direction = sample_panorama(tables, world, u1, u2)
            density = 0.5 * (density + panorama_density(tables, world, direction))
        sample = fill_light(scene, tables, view, world, moment, ENVIRONMENT, 0, 0.0, 0.0, direction)
        sample.weight = 1.0 / density
        return sample
    has_lamps = wp.where(tables.lamps.shape[0] > 0, 1, 0)
    groups = source_groups(tables)
    if groups == 0:
        return sample
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


@wp.struct
class Border:
    """A place of a shadow's border, and the way on which the camera sees it."""

    found: int
    moment: Moment
    edge: Edge
    sight: Sight
    e: wp.vec3
    beside: wp.vec3  # a point beside e that is not in the shadow
    source: LightSample
    o: wp.vec3  # of the line from the light through e
    d: wp.vec3
    direction: wp.vec3  # of the light's travel
    parallel: int
    receiver: Surface
    walk: Walk
    x: wp.vec3  # the shadow
    last: wp.vec3  # what the camera sees
    eye: wp.vec3
    at: wp.vec2  # where on the film


@wp.func
def border_at(
    scene: SceneNumbers, tables: SceneTables, film: FilmPlan, tracer: Intersector, view: int, world: int, moment: Moment,
    sources: int, chosen: int, s: float, u0: float, u1: float, u2: float, hops: int, first_hop: wp.vec2,
    seed: wp.uint32,
):  # fmt: skip
    """The border's place for given random numbers, at a moment; whether it is seen is not asked."""
    border = Border()
    border.moment = moment
    edge = edge_at(scene, tables, view, world, moment, chosen)
    e = edge.a + (edge.b - edge.a) * s
    source = draw_source(scene, tables, view, world, moment, sources, u0, u1, u2)
    if source.kind < 0:
        return border
    o, d = light_ray(source.kind, source.a, source.b, source.c, source.u, source.v, e)
    way = wp.length(d)
    if way <= 0.0:
        return border
    direction = d / way
    if source.kind == LAMP:  # noqa: SIM102 (kernels evaluate both sides of `and`)
        if wp.dot(wp.cross(source.b - source.a, source.c - source.a), direction) <= 0.0:
            return border
    toward = direction
    if sources == 1:
        toward = -direction
    sight = sight_of(edge, e, toward)
    if sight.kind == NOTHING or (sight.kind == CREASE and sources == 0):
        return border
    aside = sight.outward
    if sight.kind == CREASE:
        n0 = edge.n0 * wp.where(wp.dot(edge.n0, toward) < 0.0, 1.0, -1.0)
        n1 = edge.n1 * wp.where(wp.dot(edge.n1, toward) < 0.0, 1.0, -1.0)
        aside = wp.normalize(n0 + n1)
    size = wp.length(edge.b - edge.a)
    beside = e + aside * (SIDE * size)
    hit = closest(scene, tables, tracer, view, world, moment, beside, direction)
    if hit.kind == MISSED:
        return border
    if hit.t < 10.0 * SIDE * size:
        return border
    receiver = surface_of(scene, tables, view, world, moment, hit, beside, direction)
    x = met_point(hit.kind, receiver, o, d)
    if receiver.two_sided == 0 and wp.dot(receiver.normal, direction) >= 0.0:
        return border
    walk = walk_to_film(scene, tables, tracer, view, world, moment, hit, receiver, x, -direction, hops, first_hop, seed)
    if walk.ended != 0:
        return border
    camera = scene.cameras[view]
    last = wp.vec3(walk.points[hops, 0], walk.points[hops, 1], walk.points[hops, 2])
    if camera[21] == 0.0 and depth_of(last, camera) <= NEAR:
        return border
    border.edge = edge
    border.sight = sight
    border.e = e
    border.beside = beside
    border.source = source
    border.o = o
    border.d = d
    border.direction = direction
    border.parallel = wp.where(source.kind == DIRECTIONAL or source.kind == ENVIRONMENT, 1, 0)
    border.receiver = receiver
    border.walk = walk
    border.x = x
    border.last = last
    border.at = film_of(last, camera)
    border.eye = origin_of(border.at, camera, undistort(border.at, camera), 0.0)
    border.found = 1
    return border


@wp.func
def border_velocity(
    scene: SceneNumbers, tables: SceneTables, view: int, world: int, border: Border, node_interval: float, velocity: wp.vec3
):  # fmt: skip
    """Velocity of what the camera sees of the border while the edge's point moves with `velocity` and all else stands."""
    at_x = shadow_velocity(border.o, border.e, border.x, border.receiver.normal, border.direction, border.parallel, velocity)
    return carried(scene, tables, view, world, border.moment, border.walk, node_interval, 0, at_x)


@wp.func
def border_drift(scene: SceneNumbers, tables: SceneTables, view: int, world: int, border: Border, node_interval: float):
    """Its velocity while time passes."""
    moment = border.moment
    line = material_velocity(scene, view, moment, border.edge.instance, node_interval, border.e)
    if border.parallel == 0:
        of_light = wp.vec3(0.0, 0.0, 0.0)
        if border.source.kind == LAMP:
            of_light = material_velocity(
                scene, view, moment, tables.face_table[border.source.index, 0], node_interval, border.o
            )
        line = of_light + (line - of_light) * (wp.length(border.x - border.o) / wp.max(wp.length(border.e - border.o), 1.0e-30))
    own = material_velocity(
        scene, view, moment, instance_of(tables, border.walk.kinds[0], border.walk.indices[0]), node_interval, border.x
    )
    at_x = on_plane(line, own, border.receiver.normal, border.direction)
    return carried(scene, tables, view, world, moment, border.walk, node_interval, 1, at_x)
