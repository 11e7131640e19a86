r"""Noise of an image sensor: photons that are counted, an amplifier that adds its own, and a converter to whole numbers.

    z = k / F + r xi / F,        k ~ Poisson(F y),  xi ~ N(0, 1)
    E z = y,        Var z = y / F + (r / F)^2 = a y + b

with the signal y (linear, 1 at full well), the full well F [electrons] and the read noise r [electrons]: the Poisson-Gaussian
model of Foi, Trimeche, Katkovnik and Egiazarian 2008 ("Practical Poissonian-Gaussian noise modeling and fitting for
single-image raw-data", section II), whose a = 1 / F and b = (r / F)^2 can be read off a photograph. `shot="gaussian"` puts
sqrt(a y + b) xi in its place, as the paper does where it fits, which is close from some ten electrons on.

**Place.** Photons arrive before the response curve and after the exposure, so a photograph is

    FilmResponse("srgb", clip=True)(SensorNoise()(exposed(images, stops), full_well, read_noise, seed))

**Quantisation.** With `bits`, z is stored as one of 2^bits levels: from `black` of the range, which is what darkness becomes,
to the whole of it, which is y = 1. What lies outside is cut, then the black level is taken away again. Rounding adds 1/12 of a
squared level to the variance where noise spans half a level or more.

**Gradient**, by reparametrisation. Gaussian: exact for any function of z. Poisson: k - F y is held fixed in units of its
standard deviation, so that derivatives of expectations of z and of its square (mean, variance, squared losses) are exact and
without bias. What changes in the shape of the distribution is left out: the third central moment, y / F^2, seems to rise one
and a half times as fast as it does. Pixels without signal have no shot noise, and none of its gradient. Rounding passes
gradients on as they are, which is right in the mean where noise spans half a level or more (2 exp(-2 pi^2 s^2) off at s
levels: 1.4 % at half a level); what is cut has none.
"""

import torch
from torch import Tensor, nn

from dvc.errors import UserError
from render.response import per_image

SHOTS = ("poisson", "gaussian")
STRIDE = 0x2545F491  # between the seeds of views
MOST_SEED = 2**31


def noise_variance(images: Tensor, full_well: Tensor | float, read_noise: Tensor | float | None = None) -> Tensor:
    """a y + b: the variance of each pixel before quantisation; arguments as `SensorNoise`, with gradient to all."""
    well, read = _numbers(images, full_well, read_noise)
    return images.clamp_min(0.0) / well + (read / well) ** 2


class SensorNoise(nn.Module):
    """Photon shot noise, read noise and quantisation of linear images; see the module's docstring.

    Arguments: shot: "poisson" or "gaussian". bits: of the converter; None: none. black: what darkness is stored as, as a share
        of the converter's range, in [0, 1).
    Forward: images (view, ..., channel), linear and exposed: 1 fills the well; full_well, read_noise [electrons], (view,), (1,)
        or (view, channel), or one number for all, read_noise None: 0; seed: an int, from which each view gets noise of its
        own, or ints (view,): views of the same seed have the same random numbers -> images, same shape.
    Values below 0 have no shot noise. Raises: UserError for shapes and numbers that do not fit.
    """

    def __init__(self, shot: str = "poisson", *, bits: int | None = None, black: float = 0.0):
        super().__init__()
        if shot not in SHOTS:
            raise UserError(f"SensorNoise.shot: expected one of {', '.join(SHOTS)}, got {shot!r}")
        if bits is not None and (not isinstance(bits, int) or isinstance(bits, bool) or not 1 <= bits <= 24):
            raise UserError(f"SensorNoise.bits: expected a whole number from 1 to 24, got {bits!r}")
        if not 0.0 <= black < 1.0 or (bits is None and black > 0.0):
            raise UserError(f"SensorNoise.black: expected a share in [0, 1), and 0 without bits, got {black!r}")
        self.shot, self.bits, self.black = shot, bits, float(black)

    def forward(
        self, images: Tensor, full_well: Tensor | float, read_noise: Tensor | float | None = None, seed: int | Tensor = 0
    ) -> Tensor:
        well, read = _numbers(images, full_well, read_noise)
        generators = _generators(seed, images)
        electrons = images.clamp_min(0.0) * well
        if self.shot == "gaussian":
            variance = electrons + read**2
            still = variance.detach() == 0.0  # where the root's slope is infinite
            spread = torch.where(still, 0.0, torch.where(still, 1.0, variance).sqrt())
            noise = spread * _normal(images, generators)
        else:
            noise = _shot(electrons, generators) + read * _normal(images, generators)
        signal = images + noise / well
        return signal if self.bits is None else self._stored(signal)

    def _stored(self, signal: Tensor) -> Tensor:
        levels = 2 ** int(self.bits or 0) - 1
        stored = (self.black + (1.0 - self.black) * signal).clamp(0.0, 1.0)
        rounded = (stored.detach() * levels).round() / levels
        return (stored + (rounded - stored.detach()) - self.black) / (1.0 - self.black)


def _shot(electrons: Tensor, generators: list[torch.Generator]) -> Tensor:
    """k - F y, which keeps its place in the distribution, in standard deviations, while F y moves."""
    rates = electrons.detach().double()
    counts = torch.stack([torch.poisson(rate, generator=generator) for rate, generator in zip(rates, generators)])
    fixed = (counts - rates).to(electrons.dtype)
    lit = electrons.detach() > 0.0
    share = torch.where(lit, electrons, torch.ones_like(electrons)) / torch.where(lit, electrons.detach(), 1.0)
    return fixed * share.sqrt()


def _normal(images: Tensor, generators: list[torch.Generator]) -> Tensor:
    parts = [torch.randn(images.shape[1:], generator=g, device=images.device, dtype=images.dtype) for g in generators]
    return torch.stack(parts)


def _numbers(images: Tensor, full_well: Tensor | float, read_noise: Tensor | float | None) -> tuple[Tensor, Tensor]:
    """Full well and read noise, shaped to go with images. Raises: UserError."""
    if images.dim() < 3 or not images.is_floating_point():
        raise UserError(f"SensorNoise.images: expected floats (view, ..., channel), got {images.dtype} {tuple(images.shape)}")
    full_well, read_noise = (
        value if isinstance(value, Tensor) else images.new_tensor([0.0 if value is None else float(value)])
        for value in (full_well, read_noise)
    )
    for name, value in (("full_well", full_well), ("read_noise", read_noise)):
        numbers = value.detach()
        large_enough = numbers > 0.0 if name == "full_well" else numbers >= 0.0
        if not bool((large_enough & torch.isfinite(numbers)).all()):
            bounds = "above 0" if name == "full_well" else "of at least 0"
            raise UserError(f"SensorNoise.{name}: expected finite numbers of electrons {bounds}, got {numbers.tolist()}")
    if not bool(torch.isfinite(images.detach()).all()):
        raise UserError("SensorNoise.images: expected finite numbers, got some that are not")
    return per_image("SensorNoise.full_well", full_well, images), per_image("SensorNoise.read_noise", read_noise, images)


def _generators(seed: int | Tensor, images: Tensor) -> list[torch.Generator]:
    """One a view."""
    views = images.shape[0]
    if isinstance(seed, Tensor):
        if seed.is_floating_point() or tuple(seed.shape) not in ((views,), (1,)):
            raise UserError(f"SensorNoise.seed: expected an int, or ints ({views},), got {seed.dtype} {tuple(seed.shape)}")
        seeds = seed.expand(views).tolist()
    else:
        seeds = [(int(seed) + STRIDE * view) % MOST_SEED for view in range(views)]
    return [torch.Generator(images.device).manual_seed(int(value) % MOST_SEED) for value in seeds]
