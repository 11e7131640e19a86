r"""Radiance along a ray by path tracing, and the image of a scene. No gradient passes through anything here: see
`path_adjoint`.

    L = E + N + f L' / p

at each vertex: emission, one light sample (`render.lights`), and the radiance L' along one direction that the material samples
with density p. `depth` counts as in Mitsuba: 1 is emission only, 2 adds direct light, 3 one bounce. From `roulette_depth` on
a path ends with the probability 1 - q and is weighted by 1 / q.
"""

import warp as wp

from render.bsdf import bsdf_cos, bsdf_pdf, bsdf_sample
from render.camera_projection import origin_of, ray_found, undistort
from render.hits import blocked, closest, offset_origin
from render.intersector import Intersector
from render.lights import LightSample, environment_density, heuristic, lamp_density, light_share, sample_light
from render.pixel_filter import filter_sample
from render.scene_data import (
    FACE,
    LAMP,
    MISSED,
    POINT,
    FilmPlan,
    Hit,
    Moment,
    SceneNumbers,
    SceneTables,
    sample_moment,
)
from render.surface import Surface, emission_of, emits, surface_of

SHADOW_END = wp.constant(0.9998)  # of the distance to a light: the light itself does not block
LARGEST_SURVIVAL = wp.constant(0.95)
LEAST_SURVIVAL = wp.constant(0.1)
R3_COLUMN = wp.constant(wp.uint32(3518319155))  # powers of 0.8191725 (1 / the real root of x^4 = x + 1), times 2^32
R3_ROW = wp.constant(wp.uint32(2882110345))
R3_TIME = wp.constant(wp.uint32(2360945575))
UNIT = wp.constant(1.0 / 4294967296.0)  # 2^-32


@wp.func
def facing_normal(n: wp.vec3, wi: wp.vec3):
    """The normal on the side of wi."""
    return n * wp.where(wp.dot(n, wi) >= 0.0, 1.0, -1.0)


@wp.func
def shadow_ray(x: wp.vec3, n: wp.vec3, sample: LightSample):
    """Origin, direction and length of the ray that asks whether a light is seen: from beside the surface, aimed anew at the
    light's point, so that it ends short of it also where it arrives at a grazing angle."""
    start = offset_origin(x, n, sample.direction)
    toward = sample.direction
    reach = sample.distance
    if sample.kind == LAMP or sample.kind == POINT:
        way = x + sample.direction * sample.distance - start
        reach = wp.length(way)
        toward = way / reach
    return start, toward, reach * SHADOW_END


@wp.func
def survival(throughput: wp.vec3):
    """Probability with which a path goes on; never so small that what a dark material hides is lost."""
    return wp.clamp(wp.max(wp.max(throughput[0], throughput[1]), throughput[2]), LEAST_SURVIVAL, LARGEST_SURVIVAL)


@wp.func
def lamp_emission(scene: SceneNumbers, tables: SceneTables, world: int, hit: Hit, s: Surface, d: wp.vec3):
    """Radiance that a hit emits against the ray; zero from behind."""
    value = wp.vec3(0.0, 0.0, 0.0)
    if emits(tables, s.material) and wp.dot(s.normal, d) < 0.0:
        value = emission_of(scene, tables, world, s.material, hit.kind, hit.index, hit.u, hit.v)
    return value


@wp.func
def is_lamp(tables: SceneTables, hit: Hit, s: Surface):
    """Whether a hit is on what `sample_light` can choose."""
    return hit.kind == FACE and emits(tables, s.material)


@wp.func
def path_radiance(
    scene: SceneNumbers, tables: SceneTables, film: FilmPlan, tracer: Intersector, view: int, world: int, moment: Moment,
    first: Hit, is_known: int, first_o: wp.vec3, first_d: wp.vec3, first_depth: int, lamps: int, background: wp.vec3,
    seed: wp.uint32,
):  # fmt: skip
    """Radiance against the ray first_o + t first_d, whose first hit is a vertex of depth `first_depth` of its path.

    is_known: that hit is `first`; 0: it is still to be found (in one place with all others: a call that a kernel has once
    is made part of it, and the scene's arrays are not copied for it). lamps = 0 leaves out what a lamp emits at that vertex.
    background: radiance where the first ray meets nothing.
    """
    state = wp.uint32(seed)
    known = int(is_known)
    hit = first
    o = first_o
    d = first_d
    total = wp.vec3(0.0, 0.0, 0.0)
    throughput = wp.vec3(1.0, 1.0, 1.0)
    density = float(-1.0)  # with which the material sampled d; below 0: the path begins here
    n_before = wp.vec3(0.0, 0.0, 0.0)
    depth = int(first_depth)
    wi = -wp.normalize(first_d)
    while depth <= film.depth:
        if known == 0:
            hit = closest(scene, tables, tracer, view, world, moment, o, d)
        known = 0
        if hit.kind == MISSED:
            if density < 0.0:
                total = background
            else:
                weight = heuristic(density, environment_density(tables, n_before, d))
                total += wp.cw_mul(throughput, scene.environment[world]) * weight
            break
        s = surface_of(scene, tables, view, world, moment, hit, o, d)
        emission = lamp_emission(scene, tables, world, hit, s, d)
        if wp.dot(emission, emission) > 0.0:
            weight = float(1.0)
            if is_lamp(tables, hit, s):
                if density >= 0.0:
                    other = lamp_density(tables, world, hit.index, d, hit.t, wp.cross(s.b - s.a, s.c - s.a))
                    weight = heuristic(density, other)
                elif lamps == 0:
                    weight = 0.0
            total += wp.cw_mul(throughput, emission) * weight
        if depth == film.depth:
            break
        n = facing_normal(s.normal, wi)
        if s.two_sided == 0 and wp.dot(s.normal, wi) <= 0.0:
            break
        sample = sample_light(
            scene, tables, view, world, moment, s.position, n, wp.randf(state), wp.randf(state), wp.randf(state)
        )
        if sample.kind >= 0:
            f = bsdf_cos(s.kind, s.two_sided, s.schlick, s.albedo, s.alpha, s.normal, wi, sample.direction)
            value = wp.cw_mul(wp.cw_mul(throughput, f), sample.radiance) * light_share(sample)
            if wp.dot(value, value) > 0.0:
                if sample.density > 0.0:
                    own = bsdf_pdf(s.kind, s.two_sided, s.schlick, s.albedo, s.alpha, s.normal, wi, sample.direction)
                    value = value * heuristic(sample.density, own)
                start, toward, reach = shadow_ray(s.position, s.normal, sample)
                if not blocked(scene, tables, tracer, view, world, moment, start, toward, reach):
                    total += value
        wo = bsdf_sample(s.kind, s.two_sided, s.schlick, s.albedo, s.alpha, s.normal, wi, wp.randf(state), wp.randf(state))
        density = bsdf_pdf(s.kind, s.two_sided, s.schlick, s.albedo, s.alpha, s.normal, wi, wo)
        f = bsdf_cos(s.kind, s.two_sided, s.schlick, s.albedo, s.alpha, s.normal, wi, wo)
        if density <= 0.0 or wp.max(wp.max(f[0], f[1]), f[2]) <= 0.0:
            break
        throughput = wp.cw_mul(throughput, f) / density
        if depth >= film.roulette_depth:
            q = survival(throughput)
            if wp.randf(state) >= q:
                break
            throughput = throughput / q
        n_before = n
        o = offset_origin(s.position, s.normal, wo)
        d = wo
        wi = -wo
        depth += 1
    return total


@wp.func
def radiance(
    scene: SceneNumbers, tables: SceneTables, film: FilmPlan, tracer: Intersector, view: int, world: int, moment: Moment,
    first: Hit, first_o: wp.vec3, first_d: wp.vec3, first_depth: int, lamps: int, seed: wp.uint32,
):  # fmt: skip
    """`path_radiance` against a ray that has met `first`."""
    return path_radiance(
        scene, tables, film, tracer, view, world, moment, first, 1, first_o, first_d, first_depth, lamps,
        scene.environment[world], seed,
    )  # fmt: skip


@wp.func
def film_sample(shift: wp.vec3, sample: int):
    """Point `sample` of a three-dimensional additive recurrence (Roberts 2018, R3), shifted: column, row, time in [0, 1).

    The products wrap around in 32-bit integers, which keeps their fractions exact for any count.
    """
    k = wp.uint32(sample)
    x = float(k * R3_COLUMN) * UNIT
    y = float(k * R3_ROW) * UNIT
    z = float(k * R3_TIME) * UNIT
    return wp.vec3(wp.frac(shift[0] + x), wp.frac(shift[1] + y), wp.frac(shift[2] + z))


@wp.func
def film_point(film: FilmPlan, row: int, column: int, u: wp.vec3):
    """Full-resolution pixel that a sample of a film pixel looks through, chosen with the filter's density."""
    offset = filter_sample(film.filter_kind, film.filter_size, wp.vec2(u[0], u[1]))
    return film.origin + (wp.vec2(float(column) + 0.5, float(row) + 0.5) + offset) / film.scale


@wp.kernel(enable_backward=False)
def render_kernel(
    scene: SceneNumbers,
    tables: SceneTables,
    film: FilmPlan,
    tracer: Intersector,
    seed: wp.array(dtype=int),
    view: int,
    first: int,
    images: wp.array3d(dtype=wp.vec3),
):
    """Pixels first, first + 1, ... of one view, row by row."""
    pixel = wp.tid() + first
    row = pixel / film.width
    column = pixel - row * film.width
    world = view / film.views_per_world
    state = wp.rand_init(seed[view], view * film.width * film.height + pixel)
    shift = wp.vec3(wp.randf(state), wp.randf(state), wp.randf(state))
    camera = scene.cameras[view]
    background = scene.environment[world]
    if scene.plate.shape[1] > 0:
        background = scene.plate[view, row, column]
    total = wp.vec3(0.0, 0.0, 0.0)
    for k in range(film.samples):
        u = film_sample(shift, k)
        at = film_point(film, row, column, u)
        moment = sample_moment(film, scene.exposure[view], scene.readout[view], scene.positions.shape[2], at, u[2] - 0.5)
        plane = undistort(at, camera)
        o = origin_of(at, camera, plane, 0.0)
        d = ray_found(at, camera, plane)
        total += path_radiance(
            scene, tables, film, tracer, view, world, moment, Hit(), 0, o, d, 1, 1, background, wp.rand_init(int(state), k)
        )
    images[view, row, column] = total / float(film.samples)
