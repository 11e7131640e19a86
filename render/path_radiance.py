r"""The image of a scene: radiance along rays through the film (`render.path_trace`). Its gradient: `render.path_adjoint`."""

import warp as wp

from render.film_rays import film_ray
from render.intersector import Intersector
from render.path_trace import PathHistory, trace_path
from render.scene_data import FilmPlan, Hit, Moment, SceneNumbers, SceneTables


@wp.func
def radiance(
    scene: SceneNumbers, tables: SceneTables, film: FilmPlan, tracer: Intersector, view: int, world: int, moment: Moment,
    first: Hit, first_o: wp.vec3, first_d: wp.vec3, first_depth: int, lamps: int, seed: wp.uint32,
):  # fmt: skip
    """Radiance against a ray that has met `first`, see `render.path_trace`."""
    total, _count = trace_path(
        scene, tables, film, tracer, view, world, moment, first, 1, first_o, first_d, first_depth, lamps, 0,
        wp.vec3(0.0, 0.0, 0.0), seed, PathHistory(),
    )  # fmt: skip
    return total


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
    has_plate = int(0)
    plate = wp.vec3(0.0, 0.0, 0.0)
    if scene.plate.shape[1] > 0:
        has_plate = int(1)
        plate = scene.plate[view, row, column]
    total = wp.vec3(0.0, 0.0, 0.0)
    for k in range(film.samples):
        ray = film_ray(scene, film, view, row, column, shift, k)
        value, _count = trace_path(
            scene, tables, film, tracer, view, world, ray.moment, Hit(), 0, ray.o, ray.d, 1, 1, has_plate, plate,
            wp.rand_init(int(state), k), PathHistory(),
        )  # fmt: skip
        total += value
    images[view, row, column] = total / float(film.samples)
