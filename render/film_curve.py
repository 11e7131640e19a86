r"""Curves on the film across which a picture jumps: where a sample of one lands, and how it enters the gradient.

A pixel is the radiance integrated with the pixel filter. Where the radiance jumps across a curve x(s), moving the curve adds

    d loss = integral over the curve  h (L_inner - L_outer) N . dx  ds

(Li et al. 2018, "Differentiable Monte Carlo ray tracing through edge sampling"): N = perp(dx/ds) is the curve's normal by its
length element, on the outer side, and h the loss's derivative by the image, convolved with the filter, at x. So a sample is a
pseudo-loss `weight . film point` with the weight held fixed; its derivative serves vertices, poses and camera alike, distortion
included. `render.primary_boundary`, `render.shadow_boundary` and those of balls sample such curves.

What is seen at the place u in the exposure is seen at x = P(s, t(x)): with a readout skew the time depends on where it lands.
The equation is solved by fixed-point iteration; perp(B v) = det(B) B^-T perp(v) makes the integrand that of P with the weight
divided by det = 1 - t_x' . P_t. Motion that outruns the readout (det near 0) is counted in `refused`.
"""

import warp as wp

from render.camera_projection import camera_vector, unfolded
from render.gradient_sink import FORWARD, PILOT, Sink, collect, near_film, splat, splat_plate
from render.pixel_filter import adjoint_at, plate_adjoint_at
from render.scene_data import FilmPlan, SceneNumbers

READOUT_STEPS = wp.constant(6)  # fixed-point steps for the relation of row and time; each gains a factor 1 - det
SMALLEST_DETERMINANT = wp.constant(0.05)
UNSETTLED = wp.constant(0.01)  # last fixed-point step of a point that runs away, in frame heights
SHORTEST = wp.constant(1.0e-9)  # length of a curve's element on the film [px] below which it is none


@wp.struct
class Landing:
    """Where on the film a sample lands."""

    counts: int  # whether any pixel feels it
    pixel: wp.vec2  # [film px]
    h: wp.vec3  # the loss's derivative there; forward mode: 0


@wp.func
def film_pixel(film: FilmPlan, at: wp.vec2):
    """Film coordinates of a full-resolution point [film px]."""
    return (at - film.origin) * film.scale


@wp.func
def readout_slope(film: FilmPlan, readout: wp.vec2):
    """t_x [s/px]."""
    return wp.vec2(readout[0] / film.frame[0], readout[1] / film.frame[1])


@wp.func
def landing_at(
    film: FilmPlan, camera: camera_vector, view: int, adjoint: wp.array3d(dtype=wp.vec3),
    derivative: wp.array3d(dtype=wp.vec3), refused: wp.array(dtype=int), point: wp.vec3, at: wp.vec2, determinant: float,
    last_step: float,
):  # fmt: skip
    """The landing of a point that the camera would see at `at`; what outruns the readout is counted.

    last_step: of the fixed-point iteration [px]; a point that still runs is refused wherever it got to.
    """
    landing = Landing()
    runs = determinant < SMALLEST_DETERMINANT
    if runs and last_step > UNSETTLED * film.frame[1]:
        wp.atomic_add(refused, 0, 1)
        return landing
    landing.pixel = film_pixel(film, at)
    if adjoint.shape[0] > 0:
        landing.h = adjoint_at(adjoint, view, landing.pixel, film.filter_kind, film.filter_size)
        if wp.dot(landing.h, landing.h) == 0.0:
            return landing
    elif not near_film(derivative, landing.pixel, film.filter_kind, film.filter_size):
        return landing
    if not unfolded(point, at, camera):
        return landing
    if runs:
        wp.atomic_add(refused, 0, 1)
        return landing
    landing.counts = 1
    return landing


@wp.func
def outer_normal(along: wp.vec2, outwards: wp.vec2):
    """N from dx/ds and from any film velocity to the outer side; 0 where the curve has no length."""
    normal = wp.vec2(along[1], -along[0])
    if wp.length(normal) < SHORTEST:
        return wp.vec2(0.0, 0.0)
    return normal * wp.where(wp.dot(normal, outwards) > 0.0, 1.0, -1.0)


@wp.func
def jump_weight(
    scene: SceneNumbers, film: FilmPlan, view: int, adjoint: wp.array3d(dtype=wp.vec3), landing: Landing, jump: wp.vec3,
    on_plate: int,
):  # fmt: skip
    """h . (L_inner - L_outer) by the film's area unit, `jump` being without the plate; 1 for h . jump in forward mode."""
    value = float(1.0)
    if adjoint.shape[0] > 0:
        value = wp.dot(jump, landing.h)
        if on_plate != 0:
            value -= plate_adjoint_at(adjoint, scene.plate, view, landing.pixel, film.filter_kind, film.filter_size)
    return value * film.scale * film.scale


@wp.func
def splat_jump(
    scene: SceneNumbers, film: FilmPlan, sink: Sink, view: int, index: int, adjoint: wp.array3d(dtype=wp.vec3),
    derivative: wp.array3d(dtype=wp.vec3), landing: Landing, jump: wp.vec3, on_plate: int,
):  # fmt: skip
    """What sample `index` has put into the sink goes to the image of derivatives, or to the pilots' scores."""
    if sink.forward == FORWARD:
        moved = collect(sink)
        splat(derivative, view, landing.pixel, film.filter_kind, film.filter_size, jump * moved)
        if on_plate != 0:
            splat_plate(derivative, scene.plate, view, landing.pixel, film.filter_kind, film.filter_size, -moved)
    elif sink.forward == PILOT:
        size = wp.abs(collect(sink))
        if adjoint.shape[0] == 0:
            size = size * wp.length(jump)
        sink.scores[view, index] = size
