r"""Images of what the camera's rays meet: depth, position, normal, albedo, mask, motion; and their gradient.

    A_ij = integral w(p - c_ij) a(p) dp

is estimated as radiance is (`render.pixel_filter`); `render.aov_value` says what a(p) is. The gradient has two parts: the
interior one, where the hit is found again without gradient and attached (`render.surface`), and that of edges and outlines,
whose sides are those of radiance (`render.primary_boundary` and its like), with the jump of a in its place.
"""

from types import SimpleNamespace

import torch
import warp as wp

from dvc.warp_op import scratch, warp_op
from render.aov_value import (
    FORM,
    GROUPS,
    MOTION,
    add_motion_gradient,
    depth_along,
    group_value,
    moves_on_film,
    surface_instance,
)
from render.camera_projection import camera_vector
from render.edge_guide import random_direction
from render.film_rays import FilmRay, film_ray, ray_through
from render.gradient_sink import PILOT, REVERSE, Sink, deposit
from render.hits import closest
from render.intersector import Intersector
from render.path_adjoint import pull_ray
from render.path_op import NUMBERS, SHARED, PathJob
from render.reversible import calls_gradients
from render.scene_data import (
    MISSED,
    SDF,
    SPHERE,
    FilmPlan,
    Hit,
    SceneNumbers,
    SceneTables,
    light_vector,
    material_vector,
)
from render.surface import add_surface_gradient, surface_of
from render.tiles import launch_parts, thread_count


@wp.kernel(enable_backward=False)
def aov_kernel(
    scene: SceneNumbers,
    tables: SceneTables,
    film: FilmPlan,
    tracer: Intersector,
    seed: wp.array(dtype=int),
    view: int,
    first: int,
    form: wp.array3d(dtype=wp.vec3),
    position: wp.array3d(dtype=wp.vec3),
    normal: wp.array3d(dtype=wp.vec3),
    albedo: wp.array3d(dtype=wp.vec3),
    motion: wp.array3d(dtype=wp.vec3),
    found: wp.array3d(dtype=int),
):
    """Pixels first, first + 1, ... of one view, row by row."""
    pixel = wp.tid() + first
    row = pixel / film.width
    column = pixel - row * film.width
    world = view / film.views_per_world
    state = wp.rand_init(seed[view], view * film.width * film.height + pixel)
    shift = wp.vec3(wp.randf(state), wp.randf(state), wp.randf(state))
    sum_form = wp.vec3(0.0, 0.0, 0.0)
    sum_position = wp.vec3(0.0, 0.0, 0.0)
    sum_normal = wp.vec3(0.0, 0.0, 0.0)
    sum_albedo = wp.vec3(0.0, 0.0, 0.0)
    sum_motion = wp.vec3(0.0, 0.0, 0.0)
    for k in range(film.samples):
        ray = film_ray(scene, film, view, row, column, shift, k)
        hit = closest(scene, tables, tracer, view, world, ray.moment, ray.o, ray.d)
        if hit.kind != MISSED:
            s = surface_of(scene, tables, view, world, ray.moment, hit, ray.o, ray.d)
            sum_form += group_value(FORM, scene, tables, film, view, ray.moment, hit, s)
            sum_position += s.position
            sum_normal += s.normal
            sum_albedo += s.albedo
            sum_motion += group_value(MOTION, scene, tables, film, view, ray.moment, hit, s)
    share = 1.0 / float(film.samples)
    form[view, row, column] = sum_form * share
    position[view, row, column] = sum_position * share
    normal[view, row, column] = sum_normal * share
    albedo[view, row, column] = sum_albedo * share
    motion[view, row, column] = sum_motion * share
    middle = film.origin + wp.vec2(float(column) + 0.5, float(row) + 0.5) / film.scale
    through = ray_through(scene, film, view, middle, 0.0)
    centre = closest(scene, tables, tracer, view, world, through.moment, through.o, through.d)
    place = int(-1)
    if centre.kind == SDF:
        place = tables.faces.shape[0] + tables.sphere_table.shape[0]
    elif centre.kind == SPHERE:
        place = tables.faces.shape[0] + centre.index
    elif centre.kind != MISSED:
        place = centre.index
    found[view, row, column] = place


@calls_gradients
@wp.func
def pull_aov_sample(
    scene: SceneNumbers, tables: SceneTables, film: FilmPlan, sink: Sink, view: int, world: int, hit: Hit, ray: FilmRay,
    at_form: wp.vec3, at_position: wp.vec3, at_normal: wp.vec3, at_albedo: wp.vec3, at_motion: wp.vec3,
):  # fmt: skip
    """Hands the gradient of one sample to the sink."""
    moment = ray.moment
    s = surface_of(scene, tables, view, world, moment, hit, ray.o, ray.d)
    camera = scene.cameras[view]
    x_bar, camera_bar, _weight = wp.grad(depth_along)(s.position, camera, at_form[0])
    deposit(sink, sink.numbers.cameras, view, camera_bar)
    x_bar += at_position
    at_blend = float(0.0)
    instance = surface_instance(tables, hit)
    if (at_motion[0] != 0.0 or at_motion[1] != 0.0) and moves_on_film(scene, film, view, moment, instance, s.position):
        weight = wp.vec2(at_motion[0], at_motion[1])
        by_motion, of_motion = add_motion_gradient(scene, film, sink, view, moment, instance, s.position, weight)
        x_bar += by_motion
        at_blend += of_motion
    o_bar, d_bar, of_hit = add_surface_gradient(
        scene, tables, sink, view, world, moment, hit, s, ray.o, ray.d, x_bar, at_normal, at_albedo, 0.0, wp.vec2(0.0, 0.0)
    )
    pull_ray(scene, film, sink, view, ray, o_bar, d_bar, at_blend + of_hit)


@wp.kernel(enable_backward=False)
def aov_interior_kernel(
    scene: SceneNumbers,
    tables: SceneTables,
    film: FilmPlan,
    tracer: Intersector,
    seed: wp.array(dtype=int),
    view: int,
    first: int,
    form: wp.array3d(dtype=wp.vec3),
    position: wp.array3d(dtype=wp.vec3),
    normal: wp.array3d(dtype=wp.vec3),
    albedo: wp.array3d(dtype=wp.vec3),
    motion: wp.array3d(dtype=wp.vec3),
    sink: Sink,
):
    """Pixels first, first + 1, ... of one view: hands the gradient of their samples to the sink."""
    pixel = wp.tid() + first
    row = pixel / film.width
    column = pixel - row * film.width
    world = view / film.views_per_world
    share = 1.0 / float(film.samples)
    at_form = form[view, row, column] * share
    at_position = position[view, row, column] * share
    at_normal = normal[view, row, column] * share
    at_albedo = albedo[view, row, column] * share
    at_motion = motion[view, row, column] * share
    asked = wp.dot(at_position, at_position) + wp.dot(at_normal, at_normal) + wp.dot(at_albedo, at_albedo)
    if asked + wp.dot(at_motion, at_motion) + at_form[0] * at_form[0] == 0.0:
        return
    state = wp.rand_init(seed[view] + 0x1B873593, view * film.width * film.height + pixel)
    shift = wp.vec3(wp.randf(state), wp.randf(state), wp.randf(state))
    sink.slot = wp.tid() % sink.totals.shape[0]
    for k in range(film.samples):
        ray = film_ray(scene, film, view, row, column, shift, k)
        hit = closest(scene, tables, tracer, view, world, ray.moment, ray.o, ray.d)
        if hit.kind != MISSED:
            pull_aov_sample(
                scene, tables, film, sink, view, world, hit, ray, at_form, at_position, at_normal, at_albedo, at_motion
            )


@warp_op(capture=False, seeds=("seed",), shared=SHARED)
def render_aovs(
    cameras: wp.array(dtype=camera_vector),
    vertices: wp.array2d(dtype=wp.vec3),
    positions: wp.array3d(dtype=wp.vec3),
    orientations: wp.array3d(dtype=wp.quat),
    exposure: wp.array(dtype=float),
    readout: wp.array(dtype=wp.vec2),
    materials: wp.array2d(dtype=material_vector),
    texels: wp.array2d(dtype=wp.vec3),
    vertex_values: wp.array3d(dtype=wp.vec3),
    spheres: wp.array2d(dtype=wp.vec4),
    sdf: wp.array4d(dtype=float),
    lights: wp.array2d(dtype=light_vector),
    environment: wp.array(dtype=wp.vec3),
    plate: wp.array3d(dtype=wp.vec3),
    seed: wp.array(dtype=int),
    faces: wp.array2d(dtype=int),
    face_table: wp.array2d(dtype=int),
    corner_uv: wp.array2d(dtype=wp.vec2),
    material_table: wp.array2d(dtype=int),
    sphere_table: wp.array2d(dtype=int),
    planes: wp.array(dtype=int),
    lamps: wp.array(dtype=int),
    lamp_cdf: wp.array2d(dtype=float),
    light_kinds: wp.array(dtype=int),
    edges: wp.array2d(dtype=int),
    sdf_frame: wp.array(dtype=float),
    sdf_table: wp.array(dtype=int),
    sky_cdf: wp.array3d(dtype=float),
    texture_table: wp.array2d(dtype=int),
    *,
    film: tuple,
    instances: int,
    tree_faces: int,
    has_environment: bool,
    meshes: bool,
    boundary_samples: tuple,
    side_offset: float,
    wanted: tuple,
):
    """Images (view, row, column, 3): (depth, mask, 0), position, normal, albedo, (motion, 0); and what the pixels' centres show
    (view, row, column): the face, or the count of faces plus the sphere (the SDF comes behind them); -1: nothing."""
    job = PathJob(
        SimpleNamespace(**locals()), film=film, instances=instances, tree_faces=tree_faces, has_environment=has_environment,
        meshes=meshes,
    )  # fmt: skip
    shape = (job.views, job.film.height, job.film.width)
    images = [scratch(shape, wp.vec3, zero=False) for _ in GROUPS]
    found = scratch(shape, int, zero=False)
    launch_parts(
        aov_kernel, job.views, job.pixels, lambda t, view, first: [*job.common, view, first, *images, found], job.device
    )
    return (*images, found)


@render_aovs.adjoint(recompute=False)
def _render_aovs_adjoint(
    inputs, outputs, *, film, instances, tree_faces, has_environment, meshes, boundary_samples, side_offset, wanted
):
    job = PathJob(inputs, film=film, instances=instances, tree_faces=tree_faces, has_environment=has_environment, meshes=meshes)
    own = [{name: getattr(inputs, name).grad for name in NUMBERS}]
    own += [{name: wp.zeros_like(array) for name, array in own[0].items()} for _ in range(thread_count(job.device) - 1)]
    sinks = job.sinks(own, REVERSE)
    pilots = job.sinks([random_direction(own[0], wanted)] * len(own), PILOT)
    adjoints = [outputs[group - 1].grad for group in GROUPS]
    launch_parts(
        aov_interior_kernel, job.views, job.pixels,
        lambda t, view, first: [*job.common, view, first, *adjoints, sinks[t]], job.device,
    )  # fmt: skip
    nothing = [wp.empty((0, 0, 0), dtype=wp.vec3, device=job.device)] * len(sinks)
    for group, adjoint in zip(GROUPS, adjoints, strict=True):
        if bool(torch.any(wp.to_torch(adjoint, requires_grad=False) != 0.0)):
            job.film.shows = group
            job.boundaries(sinks, pilots, nothing, adjoint, boundary_samples, side_offset)
    job.film.shows = 0
    for arrays in own[1:]:
        for name, array in arrays.items():
            if array.size:
                wp.to_torch(own[0][name], requires_grad=False).add_(wp.to_torch(array, requires_grad=False))
