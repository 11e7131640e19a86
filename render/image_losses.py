r"""Losses between images (view, row, column, channel), one number a view, in torch.

    multi-scale        sum over levels l of w_l mean |P_l(I - T)|^p,   p = 1 or 2, P_l the l-th level of a pyramid of means
    gradient domain    mean |D_x(I - T)|^p + mean |D_y(I - T)|^p,      D the difference of neighbouring pixels
    SSIM               mean of (2 mu_I mu_T + C1)(2 cov + C2) / ((mu_I^2 + mu_T^2 + C1)(var_I + var_T + C2)) over all windows,
                       Gaussian of 11 x 11 pixels and sigma 1.5, C1 = (0.01 peak)^2, C2 = (0.03 peak)^2
                       (Wang et al. 2004, "Image quality assessment: from error visibility to structural similarity")
    MS-SSIM            product over levels of the contrast term (2 cov + C2) / (var_I + var_T + C2) to powers, of SSIM on the
                       coarsest (Wang et al. 2003, "Multi-scale structural similarity for image quality assessment")
    soft IoU           sum a b / sum (a + b - a b) of two masks in [0, 1]
    PSNR               10 log10(peak^2 / mean (I - T)^2)

**Noise.** A Monte Carlo image is I = mean + noise, and a loss that is not linear in it does not have the expectation of the
loss of the mean: E mean (I - T)^2 = mean (E I - T)^2 + mean var I. Three cases:

- The gradient is taken through the very samples of the image (same seed): it contains d var / d theta, and descends towards
  dark, smooth, noiseless scenes. Finite differences with common seeds *agree* with it, and do not uncover it.
- The adjoint (I - T) is multiplied with a gradient of independent samples, as this project's renderers do in their backward
  pass: the gradient is unbiased, the value is too large by the variance.
- `unbiased_l2(A, B, T) = mean (A - T)(B - T)` of two independent renders: value and gradient are those of the mean image,
  whether the backward pass of A uses A's samples or new ones (not B's). It may be negative.

Only squares have this cure. Absolute values, SSIM, IoU and PSNR of noisy images keep a bias that falls with the samples.
Gradients are those of torch: |x| has 0 at x = 0; PSNR is infinite and has no gradient for equal images.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from dvc.errors import UserError

BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)  # Burt and Adelson 1983
WINDOW, WINDOW_SIGMA = 11, 1.5
MS_POWERS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang et al. 2003
K1, K2 = 0.01, 0.03
PYRAMIDS, NORMS = ("box", "gaussian"), {"l1": 1, "l2": 2}


def _same(name: str, images: Tensor, target: Tensor) -> None:
    if images.dim() != 4 or images.shape[1:] != target.shape[1:] or target.shape[0] not in (1, images.shape[0]):
        raise UserError(
            f"{name}: expected images (view, row, column, channel) and a target of their shape, or of one view, "
            f"got {tuple(images.shape)} and {tuple(target.shape)}"
        )


def _norm(name: str, norm: str) -> int:
    if norm not in NORMS:
        raise UserError(f"{name}: expected a norm of {', '.join(NORMS)}, got {norm!r}")
    return NORMS[norm]


def _power(x: Tensor, p: int) -> Tensor:
    return x.abs() if p == 1 else x * x


def _along(images: Tensor, taps: Tensor, stride: int = 1, padding: bool = False) -> Tensor:
    """Separable filter of planes (n, 1, row, column); with padding, means over the pixels that exist."""
    n = taps.numel()
    for shape, pad in (((1, 1, n, 1), (n // 2, 0)), ((1, 1, 1, n), (0, n // 2))):
        step = (stride, 1) if pad[0] else (1, stride)
        kernel = taps.reshape(shape)
        if padding:
            share = functional.conv2d(torch.ones_like(images[:1]), kernel, stride=step, padding=pad)
            images = functional.conv2d(images, kernel, stride=step, padding=pad) / share
        else:
            images = functional.conv2d(images, kernel)
    return images


def image_pyramid(images: Tensor, levels: int, kind: str = "box") -> list[Tensor]:
    """Images (view, row, column, channel) at full, half, quarter ... resolution; odd sizes round up.

    box: means of 2 x 2 pixels (fewer at the border of odd sizes). gaussian: every second pixel of the image filtered by the
    binomial (1, 4, 6, 4, 1) / 16 along both axes, normalised over the pixels that exist at the border. A constant stays itself.
    """
    if kind not in PYRAMIDS:
        raise UserError(f"image_pyramid: expected a pyramid of {', '.join(PYRAMIDS)}, got {kind!r}")
    if levels < 1 or min(images.shape[1:3]) < 2 ** (levels - 1):
        raise UserError(
            f"image_pyramid: expected between 1 level and as many as halve {tuple(images.shape[1:3])} pixels, got {levels}"
        )
    views, channels = images.shape[0], images.shape[3]
    planes = images.permute(0, 3, 1, 2).reshape(views * channels, 1, *images.shape[1:3])
    result = [images]
    for _ in range(levels - 1):
        if kind == "box":
            planes = functional.avg_pool2d(planes, 2, ceil_mode=True, count_include_pad=False)
        else:
            planes = _along(planes, planes.new_tensor(BINOMIAL), stride=2, padding=True)
        result.append(planes.reshape(views, channels, *planes.shape[2:]).permute(0, 2, 3, 1))
    return result


def _weights(name: str, weights: tuple[float, ...] | None, levels: int) -> tuple[float, ...]:
    if weights is None:
        return (1.0 / levels,) * levels
    if len(weights) != levels or not all(w >= 0.0 for w in weights) or not any(weights):
        raise UserError(f"{name}: expected {levels} weights from 0, one above, got {list(weights)}")
    return tuple(map(float, weights))


def multiscale_loss(
    images: Tensor,
    target: Tensor,
    *,
    norm: str = "l2",
    levels: int = 4,
    pyramid: str = "box",
    weights: tuple[float, ...] | None = None,
) -> Tensor:
    """sum_l w_l mean |P_l(images - target)|^p, (view,); weights from fine to coarse, equal and of sum 1 where left out.

    Coarse levels see a thing that lies beside its target before the two overlap. levels=1: plain L1 or L2.
    """
    _same("multiscale_loss", images, target)
    p = _norm("multiscale_loss", norm)
    shares = _weights("multiscale_loss", weights, levels)
    parts = [w * _power(d, p).flatten(1).mean(1) for w, d in zip(shares, image_pyramid(images - target, levels, pyramid))]
    return torch.stack(parts).sum(0)


def unbiased_l2(
    image_a: Tensor,
    image_b: Tensor,
    target: Tensor,
    *,
    levels: int = 1,
    pyramid: str = "box",
    weights: tuple[float, ...] | None = None,
) -> Tensor:
    """(Multi-scale) L2 loss of the mean image from two independent renders of the same scene: sum_l w_l mean P_l(A-T) P_l(B-T).

    Value and gradient are unbiased where A and B have seeds of their own (see the module's docstring); with the same seed
    in both this is the plain, biased loss. The value's noise is about the image's; it may be negative. (view,).
    """
    _same("unbiased_l2", image_a, target)
    _same("unbiased_l2", image_b, target)
    if image_a is image_b:
        raise UserError("unbiased_l2: expected two renders of different seeds, got the same image twice")
    shares = _weights("unbiased_l2", weights, levels)
    a, b = (image_pyramid(image - target, levels, pyramid) for image in (image_a, image_b))
    return torch.stack([w * (x * y).flatten(1).mean(1) for w, x, y in zip(shares, a, b)]).sum(0)


def gradient_loss(images: Tensor, target: Tensor, *, norm: str = "l1") -> Tensor:
    """Mean |difference of neighbouring pixels|^p of images - target, both axes, (view,): edges count, offsets do not."""
    _same("gradient_loss", images, target)
    p = _norm("gradient_loss", norm)
    if min(images.shape[1:3]) < 2:
        raise UserError(f"gradient_loss: expected at least 2 x 2 pixels, got {tuple(images.shape[1:3])}")
    d = images - target
    return _power(d.diff(dim=2), p).flatten(1).mean(1) + _power(d.diff(dim=1), p).flatten(1).mean(1)


def ssim(images: Tensor, target: Tensor, *, peak: float = 1.0) -> Tensor:
    """Structural similarity, 1 for equal images, (view,): windows that lie inside the image, mean over channels.

    peak: the range of values. Made for values of photographs: linear radiance far above `peak` hardly counts.
    The loss is 1 - ssim.
    """
    similar, _ = _similarity("ssim", images, target, peak)
    return similar.flatten(1).mean(1)


def ms_ssim(images: Tensor, target: Tensor, *, peak: float = 1.0, powers: tuple[float, ...] = MS_POWERS) -> Tensor:
    """Multi-scale structural similarity, (view,), the mean over channels of the product over levels (box pyramid).

    The five powers of the paper need 176 x 176 pixels; fewer powers, taken from the front, are raised to the same sum of 1.
    Raises UserError where a level's mean contrast term is not positive (images that are anticorrelated), where powers have no
    value: the loss 1 - ms_ssim is for images that already resemble each other; begin with `ssim` or `multiscale_loss`.
    """
    _same("ms_ssim", images, target)
    shares = [power / sum(powers) for power in powers]
    levels = zip(
        *(image_pyramid(t, len(shares), "box") for t in (images, target.expand_as(images))),
        strict=True,
    )
    product = torch.ones_like(images[:, 0, 0])
    for level, ((x, y), share) in enumerate(zip(levels, shares)):
        similar, contrast = _similarity("ms_ssim", x, y, peak)
        mean = (similar if level == len(shares) - 1 else contrast).mean(2)
        if not bool((mean.detach() > 0.0).all()):
            raise UserError(f"ms_ssim: expected images that resemble each other, got a similarity of {float(mean.min()):.3g}")
        product = product * mean**share
    return product.mean(1)


def _similarity(name: str, images: Tensor, target: Tensor, peak: float) -> tuple[Tensor, Tensor]:
    """SSIM of every window, and its contrast term alone, each (view, channel, window)."""
    _same(name, images, target)
    views, rows, columns, channels = images.shape
    if min(rows, columns) < WINDOW:
        raise UserError(f"{name}: expected at least {WINDOW} x {WINDOW} pixels, got {rows} x {columns}")
    x, y = (t.permute(0, 3, 1, 2).reshape(-1, 1, rows, columns) for t in (images, target.expand_as(images)))
    # variances do not depend on an offset; without it float32 keeps more of them
    offset = y.detach().mean(dim=(2, 3), keepdim=True)
    x, y = x - offset, y - offset
    at = torch.arange(WINDOW, dtype=images.dtype, device=images.device) - WINDOW // 2
    taps = torch.exp(-0.5 * (at / WINDOW_SIGMA) ** 2)
    means = _along(torch.cat([x, y, x * x, y * y, x * y]), taps / taps.sum()).chunk(5)
    c1, c2 = (K1 * peak) ** 2, (K2 * peak) ** 2
    mx, my = means[0], means[1]
    variances = means[2] - mx * mx + means[3] - my * my
    contrast = (2.0 * (means[4] - mx * my) + c2) / (variances + c2)
    mx, my = mx + offset, my + offset
    similar = (2.0 * mx * my + c1) / (mx * mx + my * my + c1) * contrast
    return similar.reshape(views, channels, -1), contrast.reshape(views, channels, -1)


def silhouette_iou(mask: Tensor, target: Tensor) -> Tensor:
    """Soft intersection over union of masks (view, row, column) in [0, 1], (view,); the loss is 1 - silhouette_iou.

    The share of pixels for masks of 0 and 1. Two empty masks are equal: 1. Where the two do not overlap at all it is 0 and its
    gradient by `mask` is that of growing towards the target; where a model is not in the picture, there is none.
    """
    if mask.dim() != 3 or mask.shape[1:] != target.shape[1:] or target.shape[0] not in (1, mask.shape[0]):
        raise UserError(
            "silhouette_iou: expected masks (view, row, column) of one shape, "
            f"got {tuple(mask.shape)} and {tuple(target.shape)}"
        )
    for name, values in (("mask", mask.detach()), ("target", target.detach())):
        low, high = torch.aminmax(values)
        if not (float(low) >= -1e-3 and float(high) <= 1.0 + 1e-3):
            raise UserError(f"silhouette_iou.{name}: expected values in [0, 1], got {float(low):.4g} to {float(high):.4g}")
    both = (mask * target).flatten(1).sum(1)
    either = (mask + target - mask * target).flatten(1).sum(1)
    empty = either <= 0.0
    return torch.where(empty, torch.ones_like(both), both / torch.where(empty, torch.ones_like(either), either))


def psnr(images: Tensor, target: Tensor, *, peak: float = 1.0) -> Tensor:
    """Peak signal-to-noise ratio [dB], (view,); infinite for equal images."""
    _same("psnr", images, target)
    error = (images - target).square().flatten(1).mean(1)
    return 10.0 * torch.log10(peak * peak / error)


class MultiscaleResidual(nn.Module):
    """The multi-scale L2 loss as a residual, for objectives that sum squares (`dvc.losses.Objective`).

    Arguments: levels, pyramid, weights: as in `multiscale_loss`; sigma: expected error of a pixel.
    Forward: images (view, row, column, channel), target -> (view, n), sum of squares = multiscale_loss / sigma^2 times the
        number of values of a full-resolution image.
    """

    def __init__(
        self, levels: int = 4, pyramid: str = "box", weights: tuple[float, ...] | None = None, sigma: float = 0.02
    ) -> None:
        super().__init__()
        if not sigma > 0.0:
            raise UserError(f"MultiscaleResidual.sigma: expected a positive number, got {sigma}")
        self.levels, self.pyramid, self.sigma = int(levels), pyramid, float(sigma)
        self.weights = _weights("MultiscaleResidual", None if weights is None else tuple(weights), self.levels)

    def forward(self, images: Tensor, target: Tensor) -> Tensor:
        _same("MultiscaleResidual", images, target)
        parts = [d.flatten(1) for d in image_pyramid(images - target, self.levels, self.pyramid)]
        count = parts[0].shape[1]
        return torch.cat([d * ((w * count / d.shape[1]) ** 0.5 / self.sigma) for w, d in zip(self.weights, parts)], dim=1)
