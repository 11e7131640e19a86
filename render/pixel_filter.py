r"""Pixel filters: how the radiance around a pixel's centre makes its value. Kernel functions.

A pixel is the integral of the radiance L over the film, weighted by a density w that is centred on the pixel,

    I_ij = integral w(p - c_ij) L(p) dp,        integral w = 1,        w(x, y) = w_1(x) w_1(y),

estimated from samples of its own: p = c_ij + `filter_sample`, each with weight 1 (importance sampling of the filter; Ernst et
al. 2006, "Filter importance sampling"). Film points p and offsets are in film pixels. `size` says how wide:

    BOX       w_1 = 1 / (2 size) for -size <= x < size; size 0.5 is the pixel's own square
    TENT      w_1 = (1 - |x| / size) / size for |x| < size
    GAUSSIAN  w_1 = exp(-x^2 / (2 size^2)) for |x| < `CUT` size, divided by its integral; size is the standard deviation

Boundary terms need what the loss says about a film point p, not about a pixel: `adjoint_at`, the image's adjoint convolved with
the filter, h(p) = sum over pixels of (d loss / d I_ij) w(p - c_ij). Each pixel has its own samples, so a pixel's value does not
depend on how many pixels there are beside it, and weights are not normalised at the film's border: pixels beyond the border
are not in the sum, and a point up to `filter_reach` outside the film counts for the pixels that reach it. Whoever culls points
outside the film must leave that margin. Where densities are meant per square pixel of the full frame, multiply by scale^2.

The filters are not differentiated: film points are held fixed.
"""

import warp as wp

from dvc.errors import UserError

BOX = wp.constant(0)
TENT = wp.constant(1)
GAUSSIAN = wp.constant(2)
FILTERS = {"box": 0, "tent": 1, "gaussian": 2}
DEFAULT_SIZES = {"box": 0.5, "tent": 1.0, "gaussian": 0.5}  # film pixels

CUT = wp.constant(4.0)  # standard deviations at which a Gaussian ends
INSIDE = wp.constant(0.9999366575163338)  # its integral up to there, erf(CUT / sqrt(2))
ROOT_TWO = wp.constant(1.4142135623730951)
GAUSSIAN_PEAK = wp.constant(0.3989422804014327 / 0.9999366575163338)


@wp.func
def filter_reach(kind: int, size: float):
    """Largest offset along either axis that a pixel feels."""
    if kind == GAUSSIAN:
        return CUT * size
    return size


@wp.func
def offset_of(kind: int, size: float, u: float):
    """Inverse of the cumulative distribution of w_1 at u in [0, 1]."""
    centred = 2.0 * u - 1.0
    side = wp.sign(centred)
    if kind == TENT:
        return size * side * (1.0 - wp.sqrt(wp.max(0.0, 1.0 - wp.abs(centred))))
    if kind == GAUSSIAN:
        return wp.clamp(size * ROOT_TWO * wp.erfinv(INSIDE * centred), -CUT * size, CUT * size)
    return size * centred


@wp.func
def density_of(kind: int, size: float, x: float):
    """w_1(x)."""
    if kind == TENT:
        return wp.max(0.0, 1.0 - wp.abs(x) / size) / size
    if kind == GAUSSIAN:
        z = x / size
        if wp.abs(z) >= CUT:
            return 0.0
        return GAUSSIAN_PEAK * wp.exp(-0.5 * z * z) / size
    if x >= -size and x < size:
        return 0.5 / size
    return 0.0


@wp.func
def filter_sample(kind: int, size: float, u: wp.vec2):
    """Offset from the pixel's centre, distributed like the filter; u uniform in the unit square."""
    return wp.vec2(offset_of(kind, size, u[0]), offset_of(kind, size, u[1]))


@wp.func
def filter_value(kind: int, size: float, offset: wp.vec2):
    """w(offset), per square film pixel."""
    return density_of(kind, size, offset[0]) * density_of(kind, size, offset[1])


@wp.func
def first_pixel(at: float, reach: float):
    """First pixel of an axis that feels a film coordinate; pixel i has its centre at i + 1/2."""
    return wp.max(0, int(wp.ceil(at - reach - 0.5)))


@wp.func
def end_pixel(at: float, reach: float, count: int):
    """The pixel behind the last one, of `count`."""
    return wp.min(count, int(wp.floor(at + reach + 0.5)))


@wp.func
def adjoint_at(image_adjoint: wp.array3d(dtype=wp.vec3), view: int, film: wp.vec2, kind: int, size: float):
    """h at the film point `film`, in film pixels from the film's top left corner; image_adjoint (view, row, column)."""
    reach = filter_reach(kind, size)
    total = wp.vec3()
    for row in range(first_pixel(film[1], reach), end_pixel(film[1], reach, image_adjoint.shape[1])):
        by_row = density_of(kind, size, film[1] - (float(row) + 0.5))
        if by_row > 0.0:
            for column in range(first_pixel(film[0], reach), end_pixel(film[0], reach, image_adjoint.shape[2])):
                by_column = density_of(kind, size, film[0] - (float(column) + 0.5))
                total += image_adjoint[view, row, column] * (by_row * by_column)
    return total


@wp.func
def plate_adjoint_at(
    image_adjoint: wp.array3d(dtype=wp.vec3), plate: wp.array3d(dtype=wp.vec3), view: int, film: wp.vec2, kind: int, size: float
):
    """sum over pixels of (d loss / d I_ij) . plate_ij w(p - c_ij): a plate is a number a pixel, whatever the filter reaches."""
    reach = filter_reach(kind, size)
    total = float(0.0)
    for row in range(first_pixel(film[1], reach), end_pixel(film[1], reach, image_adjoint.shape[1])):
        by_row = density_of(kind, size, film[1] - (float(row) + 0.5))
        for column in range(first_pixel(film[0], reach), end_pixel(film[0], reach, image_adjoint.shape[2])):
            by_column = density_of(kind, size, film[0] - (float(column) + 0.5))
            total += wp.dot(image_adjoint[view, row, column], plate[view, row, column]) * (by_row * by_column)
    return total


def filter_option(name: str, kind: str, size: float | None = None) -> tuple[int, float]:
    """(kind, size) for the kernels from a filter's name, and its size [film px], or the customary one.

    Raises: UserError for a filter that does not exist, or a size that is not positive.
    """
    if kind not in FILTERS:
        raise UserError(f"{name}: expected a filter of {', '.join(FILTERS)}, got {kind!r}")
    size = DEFAULT_SIZES[kind] if size is None else float(size)
    if not 0.0 < size < 64.0:
        raise UserError(f"{name}: expected a size between 0 and 64 film pixels, got {size}")
    return FILTERS[kind], size
