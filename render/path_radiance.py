r"""The image of a scene: radiance along rays through the film (`render.path_trace`). Its gradient: `render.path_adjoint`."""

import warp as wp

from render.camera_projection import origin_of, ray_found, undistort
from render.intersector import Intersector
from render.path_trace import PathHistory, trace_path
from render.pixel_filter import filter_sample
from render.scene_data import FilmPlan, Hit, Moment, SceneNumbers, SceneTables, sample_moment

R3_COLUMN = wp.constant(wp.uint32(3518319155))  # powers of 0.8191725 (1 / the real root of x^4 = x + 1), times 2^32
R3_ROW = wp.constant(wp.uint32(2882110345))
R3_TIME = wp.constant(wp.uint32(2360945575))
UNIT = wp.constant(1.0 / 4294967296.0)  # 2^-32


@wp.func
def radiance(
    scene: SceneNumbers, tables: SceneTables, film: FilmPlan, tracer: Intersector, view: int, world: int, moment: Moment,
    first: Hit, first_o: wp.vec3, first_d: wp.vec3, first_depth: int, lamps: int, seed: wp.uint32,
):  # fmt: skip
    """Radiance against a ray that has met `first`, see `render.path_trace`."""
    total, _count = trace_path(
        scene, tables, film, tracer, view, world, moment, first, 1, first_o, first_d, first_depth, lamps,
        scene.environment[world], seed, PathHistory(),
    )  # fmt: skip
    return total


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
        value, _count = trace_path(
            scene, tables, film, tracer, view, world, moment, Hit(), 0, o, d, 1, 1, background, wp.rand_init(int(state), k),
            PathHistory(),
        )  # fmt: skip
        total += value
    images[view, row, column] = total / float(film.samples)
