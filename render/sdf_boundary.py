r"""How an image changes because the outline and the shadows of an SDF move: from rays that pass by it closely.

With phi* the least distance along a ray before it ends, the outline on the film is the curve phi* = 0, which moves outwards by
-d phi* / |grad phi*|. A curve is the limit of a band (coarea formula):

    d loss = integral over the curve  h (L_in - L_out) v_n  ds
           = lim  integral over 0 < phi* < eps  w(phi*) h (L_out - L_in) d phi*,        w(s) = (4 - 6 s / eps) / eps

so every sample of a pixel that passes by within eps adds `w h (L_out - L_in)` times the derivative of phi at its nearest point
x* (t* minimises phi: its own motion does not count). Cf. Wang et al. 2024, "A simple approach to differentiable rendering of
SDFs", where w = 1 / eps; the first moment of ours is 0, which takes away what is of first order in eps.
The same holds for the way from a seen point to a light, where L_in = 0.

Bias: of order eps^2; eps is `band` film pixels at the distance of x* (on the way to a light: of the seen point), and at most
one cell of the grid.
Left out: outlines seen by way of other surfaces, and where the solid cuts other bodies.
"""

import warp as wp

from render.boundary_side import sees_plate, side_radiance
from render.camera_projection import camera_vector, depth_of
from render.film_rays import film_ray
from render.gradient_sink import Sink, collect
from render.hits import closest
from render.intersector import Intersector
from render.lights import add_light_gradient, light_value, sample_light
from render.path_adjoint import pull_ray
from render.path_trace import facing_normal, shadow_ray
from render.reversible import calls_gradients
from render.scene_data import (
    DIRECTIONAL,
    ENVIRONMENT,
    LAMP,
    MISSED,
    POINT,
    SDF,
    FilmPlan,
    Hit,
    Moment,
    SceneNumbers,
    SceneTables,
)
from render.sdf_hits import add_sdf_gradient, march_sdf, sdf_at, sdf_ray, to_world_axes
from render.surface import Surface, add_surface_gradient, surface_of

BAND_CELLS = wp.constant(1.0)  # widest band
RIM_DEPTH = wp.constant(0.02)  # of a cell: how far inside the outline its radiance is taken
BEYOND = wp.constant(1.1)  # times the least distance to the outline, which is curved
LEAST_SLOPE = wp.constant(0.1)  # guards a division where the field is flat


@wp.func
def band_width(film: FilmPlan, camera: camera_vector, band: float, cell: float, x: wp.vec3):
    """eps at a point: so many film pixels, but no more than the field is close to its tangent for."""
    width = band / (film.scale * camera[12])
    if camera[21] == 0.0:
        width = width * wp.max(depth_of(x, camera), 0.0)
    return wp.min(width, BAND_CELLS * cell)


@wp.func
def band_weight(least: float, width: float):
    """w of the band: its integral is 1 and its first moment 0."""
    return (4.0 - 6.0 * least / width) / width


@calls_gradients
@wp.func
def pull_passing(
    scene: SceneNumbers, tables: SceneTables, sink: Sink, view: int, world: int, moment: Moment, o: wp.vec3, d: wp.vec3, t:
    float, weight: float,
):  # fmt: skip
    """The gradient weight . d phi at o + t d with t fixed; returns those of o, d and the blend."""
    y = sdf_ray(scene, tables, view, moment, o + d * t, 1)
    at_x, at_blend = add_sdf_gradient(scene, tables, sink, view, world, moment, y, weight, wp.vec3(0.0, 0.0, 0.0))
    return at_x, at_x * t, at_blend


@calls_gradients
@wp.func
def pull_shadow(
    scene: SceneNumbers, tables: SceneTables, sink: Sink, view: int, world: int, moment: Moment, hit: Hit, s: Surface,
    o: wp.vec3, d: wp.vec3, light: int, index: int, u: float, v: float, end: wp.vec3, t: float, weight: float,
):  # fmt: skip
    """The same on the way from a seen point to a light's point `end`; returns the gradients of the camera's ray and blend.

    For lights that are directions `end` is the direction.
    """
    x = s.position
    along = end
    if light == LAMP or light == POINT:
        along = end - x
    x_bar, along_bar, at_blend = pull_passing(scene, tables, sink, view, world, moment, x, along, t, weight)
    if light == LAMP or light == POINT:
        x_bar = x_bar - along_bar
    nothing = wp.vec3(0.0, 0.0, 0.0)
    ga = along_bar
    gb = nothing
    gc = nothing
    if light == LAMP:
        ga = along_bar * (1.0 - u - v)
        gb = along_bar * u
        gc = along_bar * v
    elif light == DIRECTIONAL:
        numbers = scene.lights[world, index]
        raw = wp.vec3(numbers[0], numbers[1], numbers[2])
        size = wp.length(raw)
        ga = -(along_bar - raw * (wp.dot(raw, along_bar) / (size * size))) / size
    if light != ENVIRONMENT:
        at_blend += add_light_gradient(scene, tables, sink, view, world, moment, light, index, u, v, end, ga, gb, gc, nothing)
    o_bar, d_bar, more = add_surface_gradient(
        scene, tables, sink, view, world, moment, hit, s, o, d, x_bar, nothing, nothing, 0.0, wp.vec2(0.0, 0.0)
    )
    return o_bar, d_bar, at_blend + more


@wp.kernel(enable_backward=False)
def sdf_boundary_kernel(
    scene: SceneNumbers,
    tables: SceneTables,
    film: FilmPlan,
    tracer: Intersector,
    seed: wp.array(dtype=int),
    view: int,
    first: int,
    band: float,
    shadows: int,
    adjoint: wp.array3d(dtype=wp.vec3),
    sink: Sink,
    derivative: wp.array3d(dtype=wp.vec3),
):
    """Pixels first, first + 1, ... of one view; shadows: whether lights are looked for, too."""
    pixel = wp.tid() + first
    row = pixel / film.width
    column = pixel - row * film.width
    world = view / film.views_per_world
    share = 1.0 / float(film.samples)
    h = wp.vec3(share, share, share)
    if sink.forward == 0:
        h = adjoint[view, row, column] * share
        if wp.dot(h, h) == 0.0:
            return
    state = wp.rand_init(seed[view] + 0x2545F491, view * film.width * film.height + pixel)
    shift = wp.vec3(wp.randf(state), wp.randf(state), wp.randf(state))
    camera = scene.cameras[view]
    sink.slot = wp.tid() % sink.totals.shape[0]
    cell = tables.sdf_frame[3]
    total = wp.vec3(0.0, 0.0, 0.0)
    for k in range(film.samples):
        ray = film_ray(scene, film, view, row, column, shift, k)
        moment = ray.moment
        o = ray.o
        d = ray.d
        hit = closest(scene, tables, tracer, view, world, moment, o, d)

        # 1. the camera's ray
        passed = march_sdf(
            scene, tables, world, sdf_ray(scene, tables, view, moment, o, 1), sdf_ray(scene, tables, view, moment, d, 0), hit.t
        )
        near = o + d * passed.t_least
        width = band_width(film, camera, band, cell, near)
        if passed.least < width:
            at_near = sdf_at(scene, tables, world, sdf_ray(scene, tables, view, moment, near, 1))
            slope = to_world_axes(scene, tables, view, moment, wp.vec3(at_near[1], at_near[2], at_near[3]))
            steep = wp.max(wp.length(slope), LEAST_SLOPE)  # 1 if the values were exact distances
            depth_inside = passed.least * BEYOND / steep + RIM_DEPTH * cell
            inside = near - slope * (depth_inside / steep) - o
            rim = closest(scene, tables, tracer, view, world, moment, o, inside)
            if rim.kind == SDF:
                outer = side_radiance(
                    scene, tables, film, tracer, view, world, moment, hit, o, d, wp.rand_init(int(state), 4 * k + 1)
                )
                if sees_plate(scene, film, hit) != 0:
                    outer = scene.plate[view, row, column]
                inner = side_radiance(
                    scene, tables, film, tracer, view, world, moment, rim, o, inside, wp.rand_init(int(state), 4 * k + 2)
                )
                weight = share * band_weight(passed.least, width)
                if sink.forward == 0:
                    weight = wp.dot(outer - inner, h) * band_weight(passed.least, width)
                o_bar, d_bar, at_blend = pull_passing(scene, tables, sink, view, world, moment, o, d, passed.t_least, weight)
                pull_ray(scene, film, sink, view, ray, o_bar, d_bar, at_blend)
                if sink.forward != 0:
                    total += (outer - inner) * collect(sink)

        # 2. the way from there to a light
        if shadows != 0 and hit.kind != MISSED:
            s = surface_of(scene, tables, view, world, moment, hit, o, d)
            wi = -wp.normalize(d)
            lottery = wp.rand_init(int(state), 4 * k + 3)
            sample = sample_light(
                scene, tables, view, world, moment, s.position, facing_normal(s.normal, wi), wp.randf(lottery),
                wp.randf(lottery), wp.randf(lottery),
            )  # fmt: skip
            if sample.kind >= 0:
                value = sample.weight * light_value(
                    sample.kind, s.kind, s.two_sided, s.schlick, s.albedo, s.alpha, s.normal, s.position, wi, sample.a,
                    sample.b, sample.c, sample.u, sample.v, sample.radiance,
                )  # fmt: skip
                start, toward, reach = shadow_ray(s.position, s.normal, sample)
                if wp.dot(value, value) > 0.0:
                    passing = march_sdf(
                        scene, tables, world, sdf_ray(scene, tables, view, moment, start, 1),
                        sdf_ray(scene, tables, view, moment, toward, 0), reach,
                    )  # fmt: skip
                    gap = band_width(film, camera, band, cell, s.position)
                    if passing.least < gap and passing.t > reach:
                        free = closest(scene, tables, tracer, view, world, moment, start, toward)
                        if free.t > reach:
                            end = sample.direction
                            t = passing.t_least
                            if sample.kind == LAMP or sample.kind == POINT:
                                end = s.position + sample.direction * sample.distance
                                t = t / sample.distance
                            weight = share * band_weight(passing.least, gap)
                            if sink.forward == 0:
                                weight = wp.dot(value, h) * band_weight(passing.least, gap)
                            o_bar, d_bar, at_blend = pull_shadow(
                                scene, tables, sink, view, world, moment, hit, s, o, d, sample.kind, sample.index,
                                sample.u, sample.v, end, t, weight,
                            )  # fmt: skip
                            pull_ray(scene, film, sink, view, ray, o_bar, d_bar, at_blend)
                            if sink.forward != 0:
                                total += value * collect(sink)
    if sink.forward != 0:
        derivative[view, row, column] = derivative[view, row, column] + total
