r"""The sweep along a path for scenes of which nothing moves: gradient in materials, textures, vertex values and environment.

Lengths, cosines, densities and weights are then numbers, so the sweep

    L_k = E_k + N_k + F_k L_{k+1}

over the vertices of `render.path_trace` needs no geometry; E, N and F are linear in emission, light and reflectance: no
division by what may be zero. `render.path_adjoint` is the same with geometry, and slower.
"""

import warp as wp

from render.bsdf import CONDUCTOR, bsdf_along, bsdf_cos
from render.environment import add_sky_gradient
from render.film_rays import FilmRay
from render.gradient_sink import Sink
from render.interior import interior_kernel_of
from render.lights import light_share
from render.path_trace import PathHistory
from render.reversible import calls_gradients
from render.scene_data import ENVIRONMENT, FACE, LAMP, MISSED, FilmPlan, SceneNumbers, SceneTables
from render.surface import Surface, add_emission_gradient, add_reflectance_gradient


@wp.func(inline=False)
def rough_gradient(s: Surface, wi: wp.vec3, wo: wp.vec3, g: wp.vec3):
    """Gradients of g . bsdf_cos in albedo and alpha."""
    _k, _t, _s, ga, gl, _gn, _gw, _wo, _w = wp.grad(bsdf_along)(
        s.kind, s.two_sided, s.schlick, s.albedo, s.alpha, s.normal, wi, wo, g
    )
    return ga, gl


@calls_gradients
@wp.func
def reflectance_gradient(s: Surface, wi: wp.vec3, wo: wp.vec3, g: wp.vec3):
    """The same, cheaper for what is albedo times a number."""
    at_albedo = wp.vec3(0.0, 0.0, 0.0)
    at_alpha = float(0.0)
    if s.kind == CONDUCTOR:
        at_albedo, at_alpha = rough_gradient(s, wi, wo, g)
    else:
        one = wp.vec3(1.0, 1.0, 1.0)
        at_albedo = wp.cw_mul(g, bsdf_cos(s.kind, s.two_sided, s.schlick, one, s.alpha, s.normal, wi, wo))
    return at_albedo, at_alpha


@calls_gradients
@wp.func
def sweep_materials(
    scene: SceneNumbers, tables: SceneTables, film: FilmPlan, sink: Sink, view: int, world: int, ray: FilmRay, count: int,
    history: PathHistory, adjoint: wp.vec3,
):  # fmt: skip
    """Adds the gradient of adjoint . radiance of the path."""
    arriving = wp.vec3(0.0, 0.0, 0.0)  # radiance along the vertex's wo
    k = int(count - 1)
    while k >= 0:
        vertex = history.vertices[history.slot, k]
        at_vertex = wp.cw_mul(adjoint, vertex.throughput)
        hit = vertex.hit
        s = vertex.s
        if hit.kind == MISSED:
            _d = add_sky_gradient(scene, tables, sink, world, vertex.d, at_vertex * vertex.arrived)
        else:
            g_albedo = wp.vec3(0.0, 0.0, 0.0)
            g_alpha = float(0.0)
            light = vertex.light
            wi = -wp.normalize(vertex.d)
            if light.kind >= 0:
                share = light_share(light) * vertex.light_weight
                ga, gl = reflectance_gradient(s, wi, light.direction, wp.cw_mul(at_vertex, light.radiance) * share)
                g_albedo += ga
                g_alpha += gl
                f = bsdf_cos(
                    s.kind, s.two_sided, s.schlick, s.albedo, s.alpha, s.normal, wi, light.direction
                )  # fmt: skip
                at_light = wp.cw_mul(at_vertex, f) * share
                if light.kind == LAMP:
                    lamp = tables.face_table[light.index, 1]
                    _uv = add_emission_gradient(scene, tables, sink, world, lamp, FACE, light.index, light.u, light.v, at_light)
                elif light.kind == ENVIRONMENT:
                    _d = add_sky_gradient(scene, tables, sink, world, light.direction, at_light)
            if vertex.go_on > 0.0:
                ga, gl = reflectance_gradient(s, wi, vertex.wo, wp.cw_mul(at_vertex, arriving) * vertex.go_on)
                g_albedo += ga
                g_alpha += gl
            if light.kind >= 0 or vertex.go_on > 0.0:
                _uv = add_reflectance_gradient(scene, tables, sink, world, hit, s.material, g_albedo, g_alpha)
            if vertex.arrived > 0.0:
                _uv = add_emission_gradient(
                    scene, tables, sink, world, s.material, hit.kind, hit.index, hit.u, hit.v, at_vertex * vertex.arrived
                )
        arriving = vertex.emitted + vertex.lit + wp.cw_mul(vertex.passed, arriving)
        k -= 1


material_kernel = interior_kernel_of(sweep_materials)
