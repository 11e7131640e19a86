r"""Gradient of path-traced pixels with visibility held fixed: everything but the motion of boundaries.

What stays fixed while parameters move: film points, times, the directions in which materials send paths on (in world axes), and
the place of a light's point on its lamp. Hits are found again without gradient and attached: a vertex is where the ray of the
vertex before it meets the plane of its face. Densities and weights are detached.

A path is traced with random numbers of its own and its vertices are kept (memory: depth, not samples). The sweep goes from the
last vertex to the first with the radiance L that arrives along the path,

    L_k = E_k + N_k + F_k L_{k+1}

(`render.path_trace`); no division by what may be zero. The light E of a lamp that a sampled ray has met is attached with the
vertex before it, as N is. Each term's derivative is that of a small function (`wp.grad`), and what a vertex's position receives
is handed on to the vertex before it.

Left out: where visibility changes (`render.primary_boundary`, `render.shadow_boundary`), textures' coordinates, the
probabilities with which lamps are chosen.
"""

import warp as wp

from render.bsdf import bsdf_along
from render.camera_projection import weighted_ray
from render.environment import add_sky_gradient
from render.film_rays import FilmRay
from render.gradient_sink import Sink, deposit
from render.interior import interior_kernel_of
from render.lights import add_light_gradient, fill_light, light_value, light_value_along
from render.path_trace import PathHistory, PathVertex, is_lamp
from render.reversible import calls_gradients
from render.scene_data import (
    LAMP,
    MISSED,
    FilmPlan,
    Moment,
    SceneNumbers,
    SceneTables,
)
from render.surface import (
    Surface,
    add_emission_gradient,
    add_surface_gradient,
)


@wp.func
def add_light(
    scene: SceneNumbers, tables: SceneTables, sink: Sink, view: int, world: int, moment: Moment, s: Surface,
    wi: wp.vec3, light: int, index: int, u: float, v: float, direction: wp.vec3, weight: float, adjoint: wp.vec3,
):  # fmt: skip
    """Adds the gradient of one light's share; returns its value and those of albedo, alpha, normal, position, wi, and blend."""
    sample = fill_light(scene, tables, view, world, moment, light, index, u, v, direction)
    value = light_value(
        light, s.kind, s.two_sided, s.schlick, s.albedo, s.alpha, s.normal, s.position, wi, sample.a, sample.b, sample.c, u, v,
        sample.radiance,
    )  # fmt: skip
    scaled = adjoint * weight
    _l, _k, _t, _s, g_albedo, g_alpha, g_normal, g_position, g_wi, ga, gb, gc, _u, _v, g_radiance, _w = wp.grad(
        light_value_along
    )(
        light, s.kind, s.two_sided, s.schlick, s.albedo, s.alpha, s.normal, s.position, wi, sample.a, sample.b, sample.c, u, v,
        sample.radiance, scaled,
    )  # fmt: skip
    at_blend = add_light_gradient(
        scene, tables, sink, view, world, moment, light, index, u, v, direction, ga, gb, gc, g_radiance
    )  # fmt: skip
    return value * weight, g_albedo, g_alpha, g_normal, g_position, g_wi, at_blend


@wp.func
def lamp_weight(vertex: PathVertex, met: PathVertex):
    """Weight in `light_value`'s measure of a lamp that a ray from `vertex` has met."""
    weight = float(0.0)
    u = met.hit.u
    v = met.hit.v
    to_light = met.s.a * (1.0 - u - v) + met.s.b * u + met.s.c * v - vertex.s.position
    facing = -0.5 * wp.dot(wp.cross(met.s.b - met.s.a, met.s.c - met.s.a), met.d)
    if facing > 0.0:
        weight = met.arrived * vertex.go_on * wp.dot(to_light, to_light) / facing
    return weight


@wp.func
def sweep_path(
    scene: SceneNumbers, tables: SceneTables, sink: Sink, view: int, world: int, moment: Moment, count: int,
    history: PathHistory, adjoint: wp.vec3,
):  # fmt: skip
    """Adds the gradient of adjoint . radiance of the path; returns those of the first ray's origin and direction, and blend."""
    arriving = wp.vec3(0.0, 0.0, 0.0)  # radiance along the vertex's wo, without lamps
    from_next = wp.vec3(0.0, 0.0, 0.0)  # gradient at the position, through the next vertex
    d_bar = wp.vec3(0.0, 0.0, 0.0)
    at_blend = float(0.0)
    on_lamp = int(0)  # whether the next vertex lies on a lamp
    k = int(count - 1)
    while k >= 0:
        vertex = history.vertices[history.slot, k]
        at_vertex = wp.cw_mul(adjoint, vertex.throughput)
        if vertex.hit.kind == MISSED:
            d_bar = add_sky_gradient(scene, tables, sink, world, vertex.d, at_vertex * vertex.arrived)
            arriving = vertex.emitted
        else:
            s = vertex.s
            wi = -wp.normalize(vertex.d)
            g_albedo = wp.vec3(0.0, 0.0, 0.0)
            g_alpha = float(0.0)
            g_normal = wp.vec3(0.0, 0.0, 0.0)
            g_position = from_next
            g_wi = wp.vec3(0.0, 0.0, 0.0)
            leaving = vertex.lit + wp.cw_mul(vertex.passed, arriving)
            for source in range(2):  # the light's sample, and the lamp that the next vertex lies on
                light = vertex.light.kind
                index = vertex.light.index
                u = vertex.light.u
                v = vertex.light.v
                direction = vertex.light.direction
                weight = vertex.light.weight * vertex.light_weight
                if source == 1:
                    light = -1
                if source == 1 and on_lamp != 0:
                    met = history.vertices[history.slot, k + 1]
                    light = LAMP
                    index = met.hit.index
                    u = met.hit.u
                    v = met.hit.v
                    direction = vertex.wo
                    weight = lamp_weight(vertex, met)
                if light >= 0 and weight > 0.0:
                    value, ga, gl, gn, gx, gw, gt = add_light(
                        scene, tables, sink, view, world, moment, s, wi, light, index, u, v, direction, weight, at_vertex
                    )
                    if source == 1:
                        leaving += value
                    g_albedo += ga
                    g_alpha += gl
                    g_normal += gn
                    g_position += gx
                    g_wi += gw
                    at_blend += gt
            if vertex.go_on > 0.0:
                _k, _t, _s, ga, gl, gn, gw, _wo, _w = wp.grad(bsdf_along)(
                    s.kind, s.two_sided, s.schlick, s.albedo, s.alpha, s.normal, wi, vertex.wo,
                    wp.cw_mul(at_vertex, arriving) * vertex.go_on,
                )  # fmt: skip
                g_albedo += ga
                g_alpha += gl
                g_normal += gn
                g_wi += gw
            g_uv = wp.vec2(0.0, 0.0)
            on_lamp = int(0)
            if vertex.arrived > 0.0:
                if is_lamp(tables, vertex.hit, s) and k > 0:
                    on_lamp = int(1)
                else:
                    leaving += vertex.emitted
                    g_uv = add_emission_gradient(
                        scene, tables, sink, world, s.material, vertex.hit.kind, vertex.hit.index, vertex.hit.u,
                        vertex.hit.v, at_vertex,
                    )  # fmt: skip
            o_bar, gd, gt = add_surface_gradient(
                scene, tables, sink, view, world, moment, vertex.hit, s, vertex.o, vertex.d, g_position, g_normal, g_albedo,
                g_alpha, g_uv,
            )  # fmt: skip
            at_blend += gt
            arriving = leaving
            from_next = o_bar
            d_bar = gd - (g_wi - wi * wp.dot(wi, g_wi)) / wp.length(vertex.d)
        k -= 1
    return from_next, d_bar, at_blend


@wp.func
def add_time_gradient(sink: Sink, film: FilmPlan, view: int, at: wp.vec2, u: float, at_blend: float):
    """The gradient of a place between nodes, to the shutter."""
    if at_blend != 0.0:
        at_time = at_blend / film.node_interval
        deposit(sink, sink.numbers.exposure, view, at_time * film.frame_interval * u)
        skew = wp.vec2(at[0] / film.frame[0] - 0.5, at[1] / film.frame[1] - 0.5)
        deposit(sink, sink.numbers.readout, view, skew * at_time)


@calls_gradients
@wp.func
def pull_ray(scene: SceneNumbers, film: FilmPlan, sink: Sink, view: int, ray: FilmRay, o_bar: wp.vec3, d_bar: wp.vec3,
             at_blend: float):  # fmt: skip
    """Hands the gradients of a ray's origin, direction and moment to camera and shutter."""
    add_time_gradient(sink, film, view, ray.at, ray.u, at_blend)
    if wp.dot(o_bar, o_bar) + wp.dot(d_bar, d_bar) != 0.0:  # which NaN is, too
        _f, at_camera, _p, _s, _o, _d = wp.grad(weighted_ray)(ray.at, scene.cameras[view], ray.plane, 0.0, o_bar, d_bar)
        deposit(sink, sink.numbers.cameras, view, at_camera)


@calls_gradients
@wp.func
def pull_path(
    scene: SceneNumbers, tables: SceneTables, film: FilmPlan, sink: Sink, view: int, world: int, ray: FilmRay, count: int,
    history: PathHistory, adjoint: wp.vec3,
):  # fmt: skip
    """Hands the gradient of adjoint . radiance of a path to the sink."""
    o_bar, d_bar, at_blend = sweep_path(scene, tables, sink, view, world, ray.moment, count, history, adjoint)
    pull_ray(scene, film, sink, view, ray, o_bar, d_bar, at_blend)


interior_kernel = interior_kernel_of(pull_path)
