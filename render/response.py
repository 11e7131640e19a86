r"""From linear radiance to the numbers of a photograph, and back: exposure, and the response curve of a camera.

    value = f(2^stops radiance)

    gamma        f(x) = x^(1/gamma)
    sRGB         f(x) = 12.92 x below 0.0031308, else 1.055 x^(1/2.4) - 0.055                         (IEC 61966-2-1)
    polynomial   f(x) = sum_i b_i binom(n, i) s^i (1 - s)^(n - i),  s = sRGB(x),  b_i = p_1 + .. + p_i,  p = softmax(shape, 0)

Measured response curves lie near a mean curve and differ from it along few directions (Grossberg and Nayar 2004, "Modeling the
space of camera response functions"). Here the mean is sRGB, and the rest a polynomial in Bernstein's basis with rising
coefficients: it rises everywhere (its slope is a mean of the p_i > 0, times n), runs from 0 to 1, and shape = 0 leaves sRGB.

**Beyond [0, 1].** All curves rise on the whole line, so that each has an inverse and a gradient everywhere: below 0 they go on
as straight lines (gamma from `TOE` on, where its own slope would be infinite), above 1 gamma and sRGB go on as powers and the
polynomial as a straight line. `clip` cuts the result to [0, 1], as sensors and files do. A pixel that is cut has the gradient
zero, because the photograph does not change: it says no more than that the radiance is above a bound, and a picture that is cut
everywhere gives no descent at all (a warning says so). Fit without `clip` where the start may be over-exposed.
"""

import math
import warnings

import torch
from torch import Tensor, nn

from dvc.errors import UserError

TOE = 1e-4  # radiance below which a gamma curve is a straight line to 0
BISECTIONS = 30
CURVES = ("linear", "gamma", "srgb", "polynomial")


def per_image(name: str, value: Tensor, images: Tensor) -> Tensor:
    """A number a view, (view,) or (1,), or one a view and channel, (view, channel), shaped to go with images."""
    rows, channels = images.shape[0], images.shape[-1]
    if value.dim() not in (1, 2) or value.shape[0] not in (1, rows) or (value.dim() == 2 and value.shape[1] != channels):
        raise UserError(f"{name}: expected shape ({rows},) or ({rows}, {channels}), got {tuple(value.shape)}")
    return value.reshape(value.shape[0], *([1] * (images.dim() - 2)), -1)


def exposed(images: Tensor, stops: Tensor) -> Tensor:
    """images 2^stops; stops (view,), or (view, channel), which holds the white balance, too."""
    return images * torch.exp2(per_image("exposed.stops", stops, images))


def gamma_curve(images: Tensor, gamma: Tensor) -> Tensor:
    """x^(1/gamma) from `TOE` on, a straight line to and beyond 0 below it; gamma > 0, (view,) or (view, channel)."""
    power = 1.0 / per_image("gamma_curve.gamma", gamma, images)
    return torch.where(images > TOE, images.clamp(min=TOE) ** power, images * TOE ** (power - 1.0))


def gamma_inverse(values: Tensor, gamma: Tensor) -> Tensor:
    power = per_image("gamma_inverse.gamma", gamma, values)
    toe = TOE ** (1.0 / power)
    return torch.where(values > toe, torch.maximum(values, toe) ** power, values * (TOE / toe))


def srgb_curve(images: Tensor) -> Tensor:
    return torch.where(images > 0.0031308, 1.055 * images.clamp(min=0.0031308) ** (1.0 / 2.4) - 0.055, 12.92 * images)


def srgb_inverse(values: Tensor) -> Tensor:
    return torch.where(values > 0.04045, ((values.clamp(min=0.04045) + 0.055) / 1.055) ** 2.4, values / 12.92)


def monotone_polynomial(x: Tensor, shape: Tensor) -> Tensor:
    """The rising polynomial of [0, 1] onto itself, straight lines outside: x (view, ..., channel), shape (view, n - 1)."""
    rise = _rises(x, shape)
    inside = x.clamp(0.0, 1.0)
    slope = len(rise) * torch.where(x > 1.0, rise[-1], rise[0])
    return _bernstein(inside, rise) + slope * (x - inside)


def monotone_inverse(y: Tensor, shape: Tensor) -> Tensor:
    """The x with monotone_polynomial(x, shape) = y: bisection without gradient, then one Newton step that carries it."""
    rise = _rises(y, shape)
    with torch.no_grad():
        low, high = torch.zeros_like(y), torch.ones_like(y)
        for _ in range(BISECTIONS):
            middle = 0.5 * (low + high)
            below = _bernstein(middle, rise) < y
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        start = 0.5 * (low + high)
        start = torch.where(y > 1.0, 1.0 + (y - 1.0) / (len(rise) * rise[-1]), start)
        start = torch.where(y < 0.0, y / (len(rise) * rise[0]), start)
        slope = _bernstein_slope(start.clamp(0.0, 1.0), rise)
    return start - (monotone_polynomial(start, shape) - y) / slope


def _rises(x: Tensor, shape: Tensor) -> list[Tensor]:
    """p_1 .. p_n, each shaped to go with x."""
    if shape.dim() != 2 or shape.shape[0] not in (1, x.shape[0]) or shape.shape[1] < 1:
        raise UserError(f"response.shape: expected shape ({x.shape[0]}, numbers), got {tuple(shape.shape)}")
    p = torch.softmax(torch.cat([shape, torch.zeros_like(shape[:, :1])], dim=1), dim=1)
    return [p[:, i].reshape(-1, *([1] * (x.dim() - 1))) for i in range(p.shape[1])]


def _bernstein(x: Tensor, rise: list[Tensor]) -> Tensor:
    n, total, level = len(rise), torch.zeros_like(x), torch.zeros_like(rise[0])
    for i in range(1, n + 1):
        level = level + rise[i - 1]
        total = total + level * (math.comb(n, i) * x**i * (1.0 - x) ** (n - i))
    return total


def _bernstein_slope(x: Tensor, rise: list[Tensor]) -> Tensor:
    n, total = len(rise), torch.zeros_like(x)
    for i in range(n):
        total = total + rise[i] * (n * math.comb(n - 1, i) * x**i * (1.0 - x) ** (n - 1 - i))
    return total


class FilmResponse(nn.Module):
    """Exposure and response curve of a camera; see the module's docstring for the curves and for what `clip` does.

    Arguments: curve: linear, gamma, srgb or polynomial. clip: cut to [0, 1].
    Forward: images of linear radiance (view, ..., channel); stops (view,) or (view, channel), else 0; gamma (view,) or
        (view, channel) for the curve gamma; shape (view, numbers) for polynomial -> values of a photograph, same shape.
    `inverse` takes the same arguments back to radiance. It cannot know what was cut: 1 becomes the least radiance that gives 1.
    """

    def __init__(self, curve: str = "srgb", *, clip: bool = False):
        super().__init__()
        if curve not in CURVES:
            raise UserError(f"FilmResponse.curve: expected one of {', '.join(CURVES)}, got {curve!r}")
        self.curve, self.clip = curve, bool(clip)

    def forward(
        self, images: Tensor, stops: Tensor | None = None, gamma: Tensor | None = None, shape: Tensor | None = None
    ) -> Tensor:
        self._check(gamma, shape)
        values = images if stops is None else exposed(images, stops)
        if gamma is not None:
            values = gamma_curve(values, gamma)
        elif self.curve in ("srgb", "polynomial"):
            values = srgb_curve(values)
        if shape is not None:
            values = monotone_polynomial(values, shape)
        if not self.clip:
            return values
        if values.requires_grad:
            self._warn_of_saturation(values.detach())
        return values.clamp(0.0, 1.0)

    def inverse(
        self, values: Tensor, stops: Tensor | None = None, gamma: Tensor | None = None, shape: Tensor | None = None
    ) -> Tensor:
        self._check(gamma, shape)
        if shape is not None:
            values = monotone_inverse(values, shape)
        if gamma is not None:
            values = gamma_inverse(values, gamma)
        elif self.curve in ("srgb", "polynomial"):
            values = srgb_inverse(values)
        return values if stops is None else exposed(values, -stops)

    def _check(self, gamma: Tensor | None, shape: Tensor | None) -> None:
        for name, value, curve in (("gamma", gamma, "gamma"), ("shape", shape, "polynomial")):
            if (value is not None) != (self.curve == curve):
                wanted = "expected" if self.curve == curve else "expected no"
                raise UserError(f"FilmResponse: {wanted} {name} with the curve {self.curve!r}")
        if gamma is not None and not bool((gamma.detach() > 0.0).all()):
            raise UserError(f"FilmResponse.gamma: expected positive numbers, got {gamma.detach().tolist()}")

    @staticmethod
    def _warn_of_saturation(values: Tensor) -> None:
        cut = ((values <= 0.0) | (values >= 1.0)).flatten(1).all(1)
        if bool(cut.any()):
            warnings.warn(
                f"FilmResponse: view {int(cut.nonzero()[0, 0])} is cut to [0, 1] everywhere, its gradient is zero; "
                "remedy: clip=False, or another exposure",
                stacklevel=3,
            )
