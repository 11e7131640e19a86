r"""Gradient of path-traced pixels in what materials, textures, vertex values, the environment and the plate are.

Nothing moves, so that lengths, cosines, densities and weights are numbers: a path is traced with random numbers of its own,
each vertex keeps the factors of what it adds, and a sweep from the last vertex to the first needs no geometry. With the
radiance L_k that leaves vertex k along the path, its emission E_k with weight m_k, its light sample of radiance R_k with
weight r_k, and the direction that was sampled with density p_k,

    L_k = m_k E_k + r_k f_k(light) R_k + f_k(sampled) L_{k+1} / p_k,

linear in E_k, R_k and f_k: no division by what may be zero. `render.path_adjoint` is the same with geometry, and slower.
"""

import warp as wp

from render.bsdf import CONDUCTOR, bsdf_along, bsdf_cos, bsdf_pdf, bsdf_sample
from render.camera_projection import origin_of, ray_found, undistort
from render.gradient_sink import Sink, collect, deposit
from render.hits import blocked, closest, offset_origin
from render.intersector import Intersector
from render.lights import environment_density, heuristic, lamp_density, light_share, sample_light
from render.path_radiance import facing_normal, film_point, film_sample, is_lamp, shadow_ray, survival
from render.reversible import calls_gradients
from render.scene_data import (
    ALBEDO,
    ALPHA,
    ENVIRONMENT,
    FACE,
    LAMP,
    MISSED,
    FilmPlan,
    Hit,
    Moment,
    SceneNumbers,
    SceneTables,
    sample_moment,
)
from render.surface import add_emission_gradient, add_material, add_parameter_gradient, emission_of, emits, surface_of


@wp.struct
class MaterialVertex:
    """A vertex as the sweep needs it."""

    hit: Hit
    throughput: wp.vec3  # before the vertex
    arrived: float  # weight of what the hit emits, or of the background
    material: int
    kind: int
    two_sided: int
    schlick: int
    albedo: wp.vec3
    alpha: float
    normal: wp.vec3
    wi: wp.vec3
    wo: wp.vec3
    go_on: float  # 1 / (density of wo, probability of going on); 0: the path ends here
    light: int  # kind of the light sample; -1: none
    light_index: int
    light_u: float
    light_v: float
    light_direction: wp.vec3
    light_radiance: wp.vec3
    light_weight: float  # the sample adds light_weight f light_radiance


@wp.func
def trace_materials(
    scene: SceneNumbers, tables: SceneTables, film: FilmPlan, tracer: Intersector, view: int, world: int, moment: Moment,
    first_o: wp.vec3, first_d: wp.vec3, seed: wp.uint32, slot: int, history: wp.array2d(dtype=MaterialVertex),
):  # fmt: skip
    """Writes the vertices of one path; returns how many there are."""
    state = wp.uint32(seed)
    o = first_o
    d = first_d
    throughput = wp.vec3(1.0, 1.0, 1.0)
    hidden = wp.vec3(1.0, 1.0, 1.0)  # throughput as far as the end by chance goes by it
    density = float(-1.0)  # with which the material sampled d; below 0: the path begins here
    n_before = wp.vec3(0.0, 0.0, 0.0)
    wi = -wp.normalize(first_d)
    count = int(0)
    while count < film.depth:
        hit = closest(scene, tables, tracer, view, world, moment, o, d)
        vertex = MaterialVertex()
        vertex.hit = hit
        vertex.throughput = throughput
        vertex.arrived = 1.0
        vertex.light = -1
        vertex.go_on = 0.0
        if hit.kind == MISSED:
            if density >= 0.0:
                vertex.arrived = heuristic(density, environment_density(tables, n_before, d))
            history[slot, count] = vertex
            count += 1
            break
        s = surface_of(scene, tables, view, world, moment, hit, o, d)
        vertex.material = s.material
        vertex.kind = s.kind
        vertex.two_sided = s.two_sided
        vertex.schlick = s.schlick
        vertex.albedo = s.albedo
        vertex.alpha = s.alpha
        vertex.normal = s.normal
        vertex.wi = wi
        if not emits(tables, s.material) or wp.dot(s.normal, d) >= 0.0:
            vertex.arrived = 0.0
        elif is_lamp(tables, hit, s) and density >= 0.0:
            other = lamp_density(tables, world, hit.index, d, hit.t, wp.cross(s.b - s.a, s.c - s.a))
            vertex.arrived = heuristic(density, other)
        if count == film.depth - 1 or (s.two_sided == 0 and wp.dot(s.normal, wi) <= 0.0):
            history[slot, count] = vertex
            count += 1
            break
        n = facing_normal(s.normal, wi)
        sample = sample_light(
            scene, tables, view, world, moment, s.position, n, wp.randf(state), wp.randf(state), wp.randf(state)
        )
        if sample.kind >= 0:
            own = bsdf_pdf(s.kind, s.two_sided, s.schlick, s.albedo, s.alpha, s.normal, wi, sample.direction)
            if own > 0.0:  # the material reflects from there
                start, toward, reach = shadow_ray(s.position, s.normal, sample)
                if not blocked(scene, tables, tracer, view, world, moment, start, toward, reach):
                    vertex.light = sample.kind
                    vertex.light_index = sample.index
                    vertex.light_u = sample.u
                    vertex.light_v = sample.v
                    vertex.light_direction = sample.direction
                    vertex.light_radiance = sample.radiance
                    vertex.light_weight = light_share(sample)
                    if sample.density > 0.0:
                        vertex.light_weight *= heuristic(sample.density, own)
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
        n_before = n
        o = offset_origin(s.position, s.normal, wo)
        d = wo
        wi = -wo
    return count


@wp.func(inline=False)
def rough_gradient(vertex: MaterialVertex, wo: wp.vec3, g: wp.vec3):
    """Gradients of g . bsdf_cos in albedo and alpha."""
    _k, _t, _s, ga, gl, _gn, _gw, _wo, _w = wp.grad(bsdf_along)(
        vertex.kind, vertex.two_sided, vertex.schlick, vertex.albedo, vertex.alpha, vertex.normal, vertex.wi, wo, g
    )
    return ga, gl


@calls_gradients
@wp.func
def reflected(vertex: MaterialVertex, wo: wp.vec3, incoming: wp.vec3, adjoint: wp.vec3):
    """What the vertex reflects of radiance from wo, and the gradients of adjoint . it in albedo, alpha and `incoming`."""
    f = bsdf_cos(
        vertex.kind, vertex.two_sided, vertex.schlick, vertex.albedo, vertex.alpha, vertex.normal, vertex.wi, wo
    )  # fmt: skip
    g = wp.cw_mul(adjoint, incoming)
    at_albedo = wp.vec3(0.0, 0.0, 0.0)
    at_alpha = float(0.0)
    if vertex.kind == CONDUCTOR:
        at_albedo, at_alpha = rough_gradient(vertex, wo, g)
    else:  # f is albedo times this
        one = wp.vec3(1.0, 1.0, 1.0)
        at_albedo = wp.cw_mul(
            g, bsdf_cos(vertex.kind, vertex.two_sided, vertex.schlick, one, vertex.alpha, vertex.normal, vertex.wi, wo)
        )
    return wp.cw_mul(f, incoming), at_albedo, at_alpha, wp.cw_mul(adjoint, f)


@calls_gradients
@wp.func
def sweep_materials(
    scene: SceneNumbers, tables: SceneTables, sink: Sink, view: int, world: int, row: int, column: int, slot: int, count: int,
    history: wp.array2d(dtype=MaterialVertex), adjoint: wp.vec3,
):  # fmt: skip
    """Adds the gradient of adjoint . radiance of the path."""
    arriving = wp.vec3(0.0, 0.0, 0.0)  # radiance along the vertex's wo
    k = int(count - 1)
    while k >= 0:
        vertex = history[slot, k]
        at_vertex = wp.cw_mul(adjoint, vertex.throughput)
        if vertex.hit.kind == MISSED:
            if k == 0 and scene.plate.shape[1] > 0:
                deposit(sink, sink.numbers.plate, view, row, column, at_vertex)
            else:
                deposit(sink, sink.numbers.environment, world, at_vertex * vertex.arrived)
                arriving = scene.environment[world] * vertex.arrived
        else:
            leaving = wp.vec3(0.0, 0.0, 0.0)
            g_albedo = wp.vec3(0.0, 0.0, 0.0)
            g_alpha = float(0.0)
            if vertex.light >= 0:
                value, ga, gl, at_light = reflected(
                    vertex, vertex.light_direction, vertex.light_radiance * vertex.light_weight, at_vertex
                )
                leaving += value
                g_albedo += ga
                g_alpha += gl
                at_light = at_light * vertex.light_weight
                if vertex.light == LAMP:
                    lamp = tables.face_table[vertex.light_index, 1]
                    _uv = add_emission_gradient(
                        scene, tables, sink, world, lamp, FACE, vertex.light_index, vertex.light_u, vertex.light_v, at_light
                    )
                elif vertex.light == ENVIRONMENT:
                    deposit(sink, sink.numbers.environment, world, at_light)
            if vertex.go_on > 0.0:
                value, ga, gl, _at = reflected(vertex, vertex.wo, arriving * vertex.go_on, at_vertex)
                leaving += value
                g_albedo += ga
                g_alpha += gl
            if vertex.light >= 0 or vertex.go_on > 0.0:
                numbers = scene.materials[world, vertex.material]
                at_albedo, _uv = add_parameter_gradient(
                    scene, tables, sink, world, vertex.material, ALBEDO, vertex.hit.kind, vertex.hit.index, vertex.hit.u,
                    vertex.hit.v, wp.vec3(numbers[0], numbers[1], numbers[2]), g_albedo,
                )  # fmt: skip
                at_alpha, _uv = add_parameter_gradient(
                    scene, tables, sink, world, vertex.material, ALPHA, vertex.hit.kind, vertex.hit.index, vertex.hit.u,
                    vertex.hit.v, wp.vec3(numbers[3], 0.0, 0.0), wp.vec3(g_alpha, 0.0, 0.0),
                )  # fmt: skip
                add_material(sink, world, vertex.material, at_albedo, at_alpha[0], wp.vec3(0.0, 0.0, 0.0))
            if vertex.arrived > 0.0:
                leaving += vertex.arrived * emission_of(
                    scene, tables, world, vertex.material, vertex.hit.kind, vertex.hit.index, vertex.hit.u, vertex.hit.v
                )
                _uv = add_emission_gradient(
                    scene, tables, sink, world, vertex.material, vertex.hit.kind, vertex.hit.index, vertex.hit.u,
                    vertex.hit.v, at_vertex * vertex.arrived,
                )  # fmt: skip
            arriving = leaving
        k -= 1


@wp.kernel(enable_backward=False)
def material_kernel(
    scene: SceneNumbers,
    tables: SceneTables,
    film: FilmPlan,
    tracer: Intersector,
    seed: wp.array(dtype=int),
    view: int,
    first: int,
    slots: int,
    adjoint: wp.array3d(dtype=wp.vec3),
    history: wp.array2d(dtype=MaterialVertex),
    sink: Sink,
    derivative: wp.array3d(dtype=wp.vec3),
):
    """As `path_adjoint.interior_kernel`, for scenes of which nothing moves."""
    pixel = wp.tid() + first
    row = pixel / film.width
    column = pixel - row * film.width
    world = view / film.views_per_world
    share = 1.0 / float(film.gradient_samples)
    at_pixel = wp.vec3(share, share, share)
    channels = int(3)
    if sink.forward == 0:
        channels = 1
        at_pixel = adjoint[view, row, column] * share
        if wp.dot(at_pixel, at_pixel) == 0.0:
            return
    state = wp.rand_init(seed[view] + 0x1B873593, view * film.width * film.height + pixel)
    shift = wp.vec3(wp.randf(state), wp.randf(state), wp.randf(state))
    camera = scene.cameras[view]
    slot = wp.tid() % slots
    sink.slot = slot
    total = wp.vec3(0.0, 0.0, 0.0)
    for k in range(film.gradient_samples):
        u = film_sample(shift, k)
        at = film_point(film, row, column, u)
        moment = sample_moment(film, scene.exposure[view], scene.readout[view], scene.positions.shape[2], at, u[2] - 0.5)
        plane = undistort(at, camera)
        o = origin_of(at, camera, plane, 0.0)
        d = ray_found(at, camera, plane)
        count = trace_materials(
            scene, tables, film, tracer, view, world, moment, o, d, wp.rand_init(int(state), k), slot, history
        )
        for c in range(channels):
            along = at_pixel
            if channels == 3:
                along = wp.vec3(0.0, 0.0, 0.0)
                along[c] = share
            sweep_materials(scene, tables, sink, view, world, row, column, slot, count, history, along)
            if channels == 3:
                total[c] = total[c] + collect(sink)
    if sink.forward != 0:
        derivative[view, row, column] = total
