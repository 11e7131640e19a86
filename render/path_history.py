r"""The vertices of a path, kept for a sweep backwards: see `path_adjoint`."""

import warp as wp

from render.bsdf import bsdf_cos, bsdf_pdf, bsdf_sample
from render.hits import blocked, closest, offset_origin
from render.intersector import Intersector
from render.lights import environment_density, fill_light, heuristic, lamp_density, sample_light
from render.path_radiance import facing_normal, shadow_ray, survival
from render.scene_data import FACE, LAMP, MISSED, FilmPlan, Hit, Moment, SceneNumbers, SceneTables
from render.surface import emits, surface_of


@wp.struct
class PathVertex:
    """A vertex as the sweep needs it."""

    o: wp.vec3
    d: wp.vec3
    hit: Hit
    throughput: wp.vec3  # before the vertex
    wo: wp.vec3
    go_on: float  # 1 / (density of wo, probability of going on); 0: the path ends here
    light: int  # kind of the light sample; -1: none
    light_index: int
    light_u: float
    light_v: float
    light_direction: wp.vec3
    light_weight: float
    met: float  # weight of this hit's emission, seen from the vertex before, in light_value's measure; for a miss: as radiance


@wp.func
def lamp_weight(
    scene: SceneNumbers, tables: SceneTables, view: int, world: int, moment: Moment, hit: Hit, d: wp.vec3, x: wp.vec3,
    density: float, go_on: float,
):  # fmt: skip
    """Weight of the lamp that a ray from x along d has met, in light_value's measure."""
    weight = float(0.0)
    lamp = fill_light(scene, tables, view, world, moment, LAMP, hit.index, hit.u, hit.v, d)
    raw = wp.cross(lamp.b - lamp.a, lamp.c - lamp.a)
    to_light = lamp.a * (1.0 - hit.u - hit.v) + lamp.b * hit.u + lamp.c * hit.v - x
    squared = wp.dot(to_light, to_light)
    facing = -0.5 * wp.dot(raw, d)
    if facing > 0.0:
        weight = heuristic(density, lamp_density(tables, world, hit.index, d, wp.sqrt(squared), raw))
        weight *= go_on * squared / facing
    return weight


@wp.func
def trace_path(
    scene: SceneNumbers, tables: SceneTables, film: FilmPlan, tracer: Intersector, view: int, world: int, moment: Moment,
    first_o: wp.vec3, first_d: wp.vec3, seed: wp.uint32, slot: int, history: wp.array2d(dtype=PathVertex),
):  # fmt: skip
    """Writes the vertices of one path; returns how many there are."""
    state = wp.uint32(seed)
    o = first_o
    d = first_d
    throughput = wp.vec3(1.0, 1.0, 1.0)
    hidden = wp.vec3(1.0, 1.0, 1.0)  # throughput as far as the end by chance goes by it
    density_before = float(-1.0)  # of the vertex before, with those below; less than 0: the path begins here
    go_on_before = float(0.0)
    x_before = wp.vec3(0.0, 0.0, 0.0)
    n_before = wp.vec3(0.0, 0.0, 0.0)
    count = int(0)
    while count < film.depth:
        hit = closest(scene, tables, tracer, view, world, moment, o, d)
        met = float(1.0)
        if density_before >= 0.0:
            if hit.kind == MISSED:
                met = heuristic(density_before, environment_density(tables, n_before, d))
            elif hit.kind == FACE:
                if emits(tables, tables.face_table[hit.index, 1]):
                    met = lamp_weight(scene, tables, view, world, moment, hit, d, x_before, density_before, go_on_before)
        vertex = PathVertex()
        vertex.o = o
        vertex.d = d
        vertex.hit = hit
        vertex.throughput = throughput
        vertex.light = -1
        vertex.go_on = 0.0
        vertex.met = met
        if hit.kind == MISSED or count == film.depth - 1:
            history[slot, count] = vertex
            count += 1
            break
        s = surface_of(scene, tables, view, world, moment, hit, o, d)
        wi = -wp.normalize(d)
        if s.two_sided == 0 and wp.dot(s.normal, wi) <= 0.0:
            history[slot, count] = vertex
            count += 1
            break
        n = facing_normal(s.normal, wi)
        sample = sample_light(
            scene, tables, view, world, moment, s.position, n, wp.randf(state), wp.randf(state), wp.randf(state)
        )
        if sample.kind >= 0:
            start, toward, reach = shadow_ray(s.position, s.normal, sample)
            if s.two_sided != 0 or wp.dot(s.normal, sample.direction) > 0.0:
                if not blocked(scene, tables, tracer, view, world, moment, start, toward, reach):
                    vertex.light = sample.kind
                    vertex.light_index = sample.index
                    vertex.light_u = sample.u
                    vertex.light_v = sample.v
                    vertex.light_direction = sample.direction
                    vertex.light_weight = sample.weight
                    if sample.density > 0.0:
                        own = bsdf_pdf(s.kind, s.two_sided, s.schlick, s.albedo, s.alpha, s.normal, wi, sample.direction)
                        vertex.light_weight = sample.weight * heuristic(sample.density, own)
        wo = bsdf_sample(s.kind, s.two_sided, s.schlick, s.albedo, s.alpha, s.normal, wi, wp.randf(state), wp.randf(state))
        density = bsdf_pdf(s.kind, s.two_sided, s.schlick, s.albedo, s.alpha, s.normal, wi, wo)
        if density <= 0.0:
            history[slot, count] = vertex
            count += 1
            break
        f = bsdf_cos(s.kind, s.two_sided, s.schlick, s.albedo, s.alpha, s.normal, wi, wo)
        q = float(1.0)
        hidden = wp.cw_mul(hidden, f) / density
        if count + 1 >= film.roulette_depth:
            q = survival(hidden)
            hidden = hidden / q
        if wp.randf(state) >= q:
            history[slot, count] = vertex
            count += 1
            break
        vertex.wo = wo
        vertex.go_on = 1.0 / (density * q)
        history[slot, count] = vertex
        count += 1
        throughput = wp.cw_mul(throughput, f) * vertex.go_on
        o = offset_origin(s.position, s.normal, wo)
        d = wo
        density_before = density
        go_on_before = vertex.go_on
        x_before = s.position
        n_before = n
    return count
