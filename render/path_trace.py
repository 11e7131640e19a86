r"""Paths: what each vertex of one emits, reflects of a light's sample, and passes on.

    L_k = E_k + N_k + F_k L_{k+1}

is the radiance that leaves vertex k against the ray that met it: emission E, the radiance N reflected from one light sample
(`render.lights`), and F = f / (p q) for a direction that the material samples with density p, if the path goes on, which it
does with probability q. E and N carry the weights of multiple importance sampling. `render.path_radiance` wants the sum from
the first vertex on; the gradients (`render.path_adjoint`, `render.material_adjoint`) keep the vertices and go back from the
last.

`depth` counts as in Mitsuba: 1 is emission only, 2 adds direct light, 3 one bounce. From `roulette_depth` on q is below 1.
"""

import warp as wp

from render.bsdf import bsdf_cos, bsdf_pdf, bsdf_sample
from render.environment import sky_radiance
from render.hits import blocked, closest, offset_origin
from render.intersector import Intersector
from render.lights import LightSample, environment_density, heuristic, lamp_density, light_share, sample_light
from render.scene_data import FACE, LAMP, MISSED, POINT, FilmPlan, Hit, Moment, SceneNumbers, SceneTables
from render.surface import Surface, emission_of, emits, surface_of

SHADOW_END = wp.constant(0.9998)  # of the distance to a light: the light itself does not block
LARGEST_SURVIVAL = wp.constant(0.95)
LEAST_SURVIVAL = wp.constant(0.1)


@wp.struct
class PathVertex:
    """What a sweep backwards needs to know of a vertex."""

    o: wp.vec3  # of the ray [m]
    d: wp.vec3
    hit: Hit
    s: Surface  # not for a miss
    throughput: wp.vec3  # F_0 F_1 ... F_{k-1}
    arrived: float  # weight of what the hit emits against the ray, or of the background
    emitted: wp.vec3  # E [W/(m^2 sr)]
    light: LightSample  # kind -1: none arrives
    light_weight: float  # of multiple importance sampling
    lit: wp.vec3  # N [W/(m^2 sr)]
    wo: wp.vec3
    go_on: float  # 1 / (p q); 0: the path ends here
    passed: wp.vec3  # F


@wp.struct
class PathHistory:
    """Where vertices are kept; as it is made, nowhere."""

    vertices: wp.array2d(dtype=PathVertex)  # (slot, depth)
    slot: int


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
def is_lamp(tables: SceneTables, hit: Hit, s: Surface):
    """Whether a hit is on what `sample_light` can choose."""
    return hit.kind == FACE and emits(tables, s.material)


@wp.func
def trace_path(
    scene: SceneNumbers, tables: SceneTables, film: FilmPlan, tracer: Intersector, view: int, world: int, moment: Moment,
    first: Hit, is_known: int, first_o: wp.vec3, first_d: wp.vec3, first_depth: int, lamps: int, has_plate: int,
    plate: wp.vec3, seed: wp.uint32, history: PathHistory,
):  # fmt: skip
    """Radiance against the ray first_o + t first_d, and how many vertices its path has.

    is_known: the first hit is `first`; 0: it is still to be found (in one place with all others: a call that a kernel has once
    is made part of it, and the scene's arrays are not copied for it). first_depth: of the first vertex. lamps = 0 leaves out
    what a lamp emits there. has_plate: where the first ray meets nothing, `plate` is seen. Vertices that are kept are found out
    about also where they are black: derivatives by what is 0 need them.
    """
    keeps = wp.where(history.vertices.shape[0] > 0, 1, 0)
    state = wp.uint32(seed)
    known = int(is_known)
    hit = first
    o = first_o
    d = first_d
    wi = -wp.normalize(first_d)
    n_before = wp.vec3(0.0, 0.0, 0.0)
    density = float(-1.0)  # with which the material sampled d; below 0: the path begins here
    total = wp.vec3(0.0, 0.0, 0.0)
    throughput = wp.vec3(1.0, 1.0, 1.0)
    depth = int(first_depth)
    going = wp.where(depth <= film.depth, 1, 0)
    while going != 0:
        going = int(0)
        if known == 0:
            hit = closest(scene, tables, tracer, view, world, moment, o, d)
        known = 0
        vertex = PathVertex()
        vertex.o = o
        vertex.d = d
        vertex.hit = hit
        vertex.throughput = throughput
        vertex.light.kind = -1
        if hit.kind == MISSED:
            arrived = float(1.0)
            if density >= 0.0:
                arrived = heuristic(density, environment_density(tables, world, n_before, d))
            emitted = sky_radiance(scene, tables, world, d) * arrived
            if density < 0.0 and has_plate != 0:
                emitted = plate
            total += wp.cw_mul(throughput, emitted)
            vertex.arrived = arrived
            vertex.emitted = emitted
        else:
            s = surface_of(scene, tables, view, world, moment, hit, o, d)
            vertex.s = s
            if emits(tables, s.material) and wp.dot(s.normal, d) < 0.0:
                weight = float(1.0)
                if hit.kind == FACE:
                    if density >= 0.0:
                        other = lamp_density(tables, world, hit.index, d, hit.t, wp.cross(s.b - s.a, s.c - s.a))
                        weight = heuristic(density, other)
                    elif lamps == 0:
                        weight = 0.0
                emission = weight * emission_of(scene, tables, world, s.material, hit.kind, hit.index, hit.u, hit.v)
                total += wp.cw_mul(throughput, emission)
                vertex.arrived = weight
                vertex.emitted = emission
            if depth < film.depth and (s.two_sided != 0 or wp.dot(s.normal, wi) > 0.0):
                n = facing_normal(s.normal, wi)
                n_before = n
                sample = sample_light(
                    scene, tables, view, world, moment, s.position, n, wp.randf(state), wp.randf(state), wp.randf(state)
                )
                if sample.kind >= 0:
                    f = bsdf_cos(s.kind, s.two_sided, s.schlick, s.albedo, s.alpha, s.normal, wi, sample.direction)
                    value = wp.cw_mul(f, sample.radiance) * light_share(sample)
                    if keeps != 0 or wp.dot(value, value) > 0.0:
                        own = bsdf_pdf(s.kind, s.two_sided, s.schlick, s.albedo, s.alpha, s.normal, wi, sample.direction)
                        weight = float(1.0)
                        if sample.density > 0.0:
                            weight = heuristic(sample.density, own)
                        if own > 0.0:  # the material reflects from there
                            start, toward, reach = shadow_ray(s.position, s.normal, sample)
                            if not blocked(scene, tables, tracer, view, world, moment, start, toward, reach):
                                value = value * weight
                                total += wp.cw_mul(throughput, value)
                                vertex.light = sample
                                vertex.light_weight = weight
                                vertex.lit = value
                wo = bsdf_sample(
                    s.kind, s.two_sided, s.schlick, s.albedo, s.alpha, s.normal, wi, wp.randf(state), wp.randf(state)
                )
                density = bsdf_pdf(s.kind, s.two_sided, s.schlick, s.albedo, s.alpha, s.normal, wi, wo)
                f = bsdf_cos(s.kind, s.two_sided, s.schlick, s.albedo, s.alpha, s.normal, wi, wo)
                if density > 0.0 and (keeps != 0 or wp.max(wp.max(f[0], f[1]), f[2]) > 0.0):
                    share = 1.0 / density
                    going = int(1)
                    if depth >= film.roulette_depth:
                        q = survival(wp.cw_mul(throughput, f) * share)
                        share = share / q
                        if wp.randf(state) >= q:
                            going = int(0)
                    if going != 0:
                        vertex.wo = wo
                        vertex.go_on = share
                        vertex.passed = f * share
                        throughput = wp.cw_mul(throughput, f) * share
                        o = offset_origin(s.position, s.normal, wo)
                        d = wo
                        wi = -wo
        if keeps != 0:
            history.vertices[history.slot, depth - first_depth] = vertex
        depth += 1
    return total, depth - first_depth
