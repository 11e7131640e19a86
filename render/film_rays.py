"""Rays of a film pixel: points of the film, chosen with the pixel filter's density, and moments of the exposure."""

import warp as wp

from render.camera_projection import origin_of, ray_found, undistort
from render.pixel_filter import filter_sample
from render.scene_data import FilmPlan, Moment, SceneNumbers, sample_moment

R3_COLUMN = wp.constant(wp.uint32(3518319155))  # powers of 0.8191725 (1 / the real root of x^4 = x + 1), times 2^32
R3_ROW = wp.constant(wp.uint32(2882110345))
R3_TIME = wp.constant(wp.uint32(2360945575))
UNIT = wp.constant(1.0 / 4294967296.0)  # 2^-32


@wp.struct
class FilmRay:
    at: wp.vec2  # full-resolution film point [px]
    u: float  # place in the exposure, in [-1/2, 1/2]
    moment: Moment
    plane: wp.vec2  # the film point on the image plane, undistorted
    o: wp.vec3  # [m]
    d: wp.vec3  # unit


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


@wp.func
def ray_through(scene: SceneNumbers, film: FilmPlan, view: int, at: wp.vec2, u: float):
    """Ray of a film point at a place in the exposure, without gradient."""
    camera = scene.cameras[view]
    ray = FilmRay()
    ray.at = at
    ray.u = u
    ray.moment = sample_moment(film, scene.exposure[view], scene.readout[view], scene.positions.shape[2], at, u)
    ray.plane = undistort(at, camera)
    ray.o = origin_of(at, camera, ray.plane, 0.0)
    ray.d = ray_found(at, camera, ray.plane)
    return ray


@wp.func
def film_ray(scene: SceneNumbers, film: FilmPlan, view: int, row: int, column: int, shift: wp.vec3, sample: int):
    """Ray `sample` of a pixel; `shift` is random, one for each pixel."""
    u = film_sample(shift, sample)
    return ray_through(scene, film, view, film_point(film, row, column, u), u[2] - 0.5)
