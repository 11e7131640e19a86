"""Image losses: twins in double precision, properties, gradients, and bias over many noisy renders."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dvc import UserError
from dvc.gradient_check import gradient_check
from render.image_losses import (
    MultiscaleResidual,
    gradient_loss,
    image_pyramid,
    ms_ssim,
    multiscale_loss,
    psnr,
    silhouette_iou,
    ssim,
    unbiased_l2,
)
from tests.physics.scenes import assert_certified


def picture(seed: int, rows: int = 24, columns: int = 19, views: int = 2) -> Tensor:
    return torch.rand(views, rows, columns, 3, generator=torch.Generator().manual_seed(seed))


# --- pyramids and norms ---


def block_means(image: np.ndarray) -> np.ndarray:
    rows, columns = (n + n % 2 for n in image.shape[:2])
    padded = np.full((rows, columns, image.shape[2]), np.nan)
    padded[: image.shape[0], : image.shape[1]] = image
    return np.nanmean(padded.reshape(rows // 2, 2, columns // 2, 2, -1), axis=(1, 3))


def binomial_means(image: np.ndarray) -> np.ndarray:
    taps = np.array([1, 4, 6, 4, 1]) / 16
    result = np.zeros(((image.shape[0] + 1) // 2, (image.shape[1] + 1) // 2, image.shape[2]))
    for r in range(result.shape[0]):
        for c in range(result.shape[1]):
            total, share = np.zeros(image.shape[2]), 0.0
            for i in range(5):
                for j in range(5):
                    y, x = 2 * r + i - 2, 2 * c + j - 2
                    if 0 <= y < image.shape[0] and 0 <= x < image.shape[1]:
                        total += taps[i] * taps[j] * image[y, x]
                        share += taps[i] * taps[j]
            result[r, c] = total / share
    return result


@pytest.mark.parametrize("kind,twin", [("box", block_means), ("gaussian", binomial_means)])
@pytest.mark.parametrize("size", [(8, 16), (13, 9)])
def test_a_pyramid_is_that_of_plain_loops(kind: str, twin, size: tuple[int, int]) -> None:
    image = picture(0, *size)
    levels = image_pyramid(image, 4, kind)
    for view in range(2):
        expected = image[view].double().numpy()
        for level in levels:
            np.testing.assert_allclose(level[view].numpy(), expected, rtol=0, atol=3e-7)
            expected = twin(expected)


@settings(max_examples=20, deadline=None)
@given(st.integers(4, 20), st.integers(4, 20), st.sampled_from(["box", "gaussian"]), st.floats(0.1, 5.0))
def test_a_constant_offset_counts_the_same_at_every_level(rows: int, columns: int, kind: str, offset: float) -> None:
    image = picture(1, rows, columns)
    loss = multiscale_loss(image + offset, image, levels=3, pyramid=kind)
    torch.testing.assert_close(loss, torch.full((2,), offset**2), rtol=2e-5, atol=0.0)
    assert torch.equal(multiscale_loss(image, image, norm="l1", levels=3, pyramid=kind), torch.zeros(2))
    torch.testing.assert_close(gradient_loss(image + offset, image), torch.zeros(2), atol=2e-6, rtol=0.0)


def test_losses_by_hand() -> None:
    a = torch.zeros(1, 2, 2, 1)
    b = torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(1, 2, 2, 1)
    assert float(multiscale_loss(a, b, levels=1)) == pytest.approx(7.5)
    assert float(multiscale_loss(a, b, norm="l1", levels=2)) == pytest.approx(2.5)
    assert float(multiscale_loss(a, b, levels=2, weights=(1.0, 2.0))) == pytest.approx(7.5 + 2 * 6.25)
    assert float(gradient_loss(a, b)) == pytest.approx(1.0 + 2.0)
    assert float(gradient_loss(a, b, norm="l2")) == pytest.approx(1.0 + 4.0)
    assert float(psnr(a, b, peak=5.0)) == pytest.approx(10 * np.log10(25 / 7.5))
    assert float(unbiased_l2(a, 2 * b, b)) == pytest.approx(-7.5)


def test_coarse_levels_see_what_lies_beside() -> None:
    """A spot that moves away from its target: fine L2 is flat once they do not overlap, the pyramid's is not."""

    def spot(at: int) -> Tensor:
        image = torch.zeros(1, 32, 32, 3)
        image[:, 14:16, at : at + 2] = 1.0
        return image

    target = spot(4)
    fine = [float(multiscale_loss(spot(at), target, levels=1)) for at in (8, 12, 16)]
    coarse = [float(multiscale_loss(spot(at), target, levels=5)) for at in (4, 6, 10, 22)]
    assert fine[0] == fine[1] == fine[2]
    assert coarse == sorted(coarse) and coarse[0] < coarse[1] < coarse[2] < coarse[3]


def test_the_residual_s_squares_are_the_loss() -> None:
    a, b = picture(0), picture(1)
    residual = MultiscaleResidual(levels=3, pyramid="gaussian", weights=(0.5, 1.0, 2.0), sigma=0.1)(a, b)
    expected = multiscale_loss(a, b, levels=3, pyramid="gaussian", weights=(0.5, 1.0, 2.0)) / 0.01 * a[0].numel()
    torch.testing.assert_close((residual**2).sum(1), expected)


# --- structure, silhouettes, noise ---


@pytest.mark.parametrize("offset,contrast", [(0.0, 1.0), (0.7, 0.1), (0.0, 0.02)])
def test_ssim_is_that_of_scikit_image(offset: float, contrast: float) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    a = offset + contrast * picture(0, 40, 33)
    b = (a + 0.2 * contrast * (picture(1, 40, 33) - 0.5)).clamp(0, 1)
    ours = ssim(a, b)
    for view in range(2):
        expected = metrics.structural_similarity(
            a[view].double().numpy(), b[view].double().numpy(), gaussian_weights=True, sigma=1.5, win_size=11,
            use_sample_covariance=False, data_range=1.0, channel_axis=-1,
        )  # fmt: skip
        assert float(ours[view]) == pytest.approx(expected, abs=2e-5)
        noise_ratio = metrics.peak_signal_noise_ratio(a[view].double().numpy(), b[view].double().numpy(), data_range=1.0)
        assert float(psnr(a, b)[view]) == pytest.approx(noise_ratio, abs=1e-3)
    torch.testing.assert_close(ssim(a, a), torch.ones(2), atol=1e-5, rtol=0.0)
    torch.testing.assert_close(ssim(255 * a, 255 * b, peak=255.0), ours, atol=2e-5, rtol=0.0)


def ssim_twin(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means by channel of SSIM and of its contrast term, window by window, in double precision (equations 9, 12, 13)."""
    at = np.arange(11) - 5
    w = np.exp(-(at[:, None] ** 2 + at**2) / (2 * 1.5**2))
    w /= w.sum()
    values = []
    for r in range(a.shape[0] - 10):
        for c in range(a.shape[1] - 10):
            for k in range(a.shape[2]):
                x, y = a[r : r + 11, c : c + 11, k], b[r : r + 11, c : c + 11, k]
                mx, my = (w * x).sum(), (w * y).sum()
                vx, vy, cov = (w * (x - mx) ** 2).sum(), (w * (y - my) ** 2).sum(), (w * (x - mx) * (y - my)).sum()
                c1, c2 = 1e-4, 9e-4
                contrast = (2 * cov + c2) / (vx + vy + c2)
                values.append(((2 * mx * my + c1) / (mx**2 + my**2 + c1) * contrast, contrast))
    similar, contrast = np.reshape(values, (-1, a.shape[2], 2)).mean(0).T
    return similar, contrast


def test_ssim_is_that_of_plain_loops() -> None:
    a, b = picture(0, 14, 13, 1), picture(1, 14, 13, 1)
    similar, _ = ssim_twin(a[0].double().numpy(), b[0].double().numpy())
    assert float(ssim(a, b)) == pytest.approx(similar.mean(), abs=1e-6)


def test_ms_ssim_is_the_product_over_levels() -> None:
    a = picture(0, 26, 23, 1)
    b = (a + 0.5 * (picture(1, 26, 23, 1) - 0.5)).clamp(0, 1)
    x, y = (t[0].double().numpy() for t in (a, b))
    _, fine = ssim_twin(x, y)
    coarse, _ = ssim_twin(block_means(x), block_means(y))
    expected = (fine**0.25 * coarse**0.75).mean()
    assert float(ms_ssim(a, b, powers=(1.0, 3.0))) == pytest.approx(expected, abs=1e-6)
    assert float(ms_ssim(a, a, powers=(1.0, 3.0))) == pytest.approx(1.0, abs=1e-5)
    with pytest.raises(UserError, match="ms_ssim: expected images that resemble each other, got a similarity of -"):
        ms_ssim(a, 1 - a, powers=(1.0, 3.0))
    with pytest.raises(UserError, match="ms_ssim: expected at least 11 x 11 pixels"):
        ms_ssim(a, a, powers=(1.0, 1.0, 1.0))
    assert ms_ssim(picture(0, 176, 176, 1), picture(0, 176, 176, 1)).shape == (1,)


def test_iou_is_the_share_of_pixels_for_hard_masks() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (
        (torch.rand(3, 10, 12, generator=generator) > 0.4).float(),
        (torch.rand(3, 10, 12, generator=generator) > 0.6).float(),
    )
    expected = [float((x.bool() & y.bool()).sum() / (x.bool() | y.bool()).sum()) for x, y in zip(a, b)]
    assert silhouette_iou(a, b).tolist() == pytest.approx(expected)
    assert silhouette_iou(torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)).tolist() == [1.0]
    mask = torch.zeros(1, 4, 4, requires_grad=True)
    target = torch.zeros(1, 4, 4)
    target[:, :2] = 1.0
    (slope,) = torch.autograd.grad(silhouette_iou(mask, target).sum(), mask)
    assert (slope[:, :2] > 0).all() and not slope[:, 2:].any()
    both_empty = torch.zeros(1, 4, 4, requires_grad=True)
    (slope,) = torch.autograd.grad(silhouette_iou(both_empty, torch.zeros(1, 4, 4)).sum(), both_empty)
    assert torch.isfinite(slope).all()


# --- gradients ---

LOSSES = {
    "l1": lambda a, b: multiscale_loss(a, b, norm="l1", levels=3),
    "l2": lambda a, b: multiscale_loss(a, b, levels=3, pyramid="gaussian", weights=(1.0, 0.5, 2.0)),
    "gradient l1": gradient_loss,
    "gradient l2": lambda a, b: gradient_loss(a, b, norm="l2"),
    "ssim": ssim,
    "ms_ssim": lambda a, b: ms_ssim(a, 0.5 * a + b, powers=(1.0, 2.0)),
    "iou": lambda a, b: silhouette_iou(a[..., 0], b[..., 0]),
    "psnr": psnr,
    "residual": MultiscaleResidual(3),
}


@pytest.mark.parametrize("name", LOSSES)
def test_gradient_of_every_loss_in_both_images(name: str) -> None:
    # inside [0, 1] for the masks; for |x|, every pixel and every mean is away from its kink
    a = 0.3 + 0.1 * picture(0)
    b = 0.6 + 0.1 * picture(1)
    if name == "ms_ssim":
        a, b = 0.3 + 0.1 * picture(0, 26, 23), 0.3 + 0.1 * picture(1, 26, 23)
    if name == "gradient l1":
        ramp = torch.arange(24.0)[:, None, None] + 2 * torch.arange(19.0)[:, None]
        a = a + 0.2 * ramp
    rows = gradient_check(LOSSES[name], [a.requires_grad_(), b.requires_grad_()], ["images", "target"])
    assert_certified(rows)


def test_gradient_of_the_unbiased_loss() -> None:
    inputs = [picture(i).requires_grad_() for i in range(3)]
    rows = gradient_check(lambda a, b, t: unbiased_l2(a, b, t, levels=3), inputs, ["image_a", "image_b", "target"])
    assert_certified(rows)


# --- bias ---


def noisy(theta: Tensor, scene: Tensor, seeds: int, seed: int) -> Tensor:
    """Synthetic renders (seed, row, column, 3) whose mean is theta^2 scene and whose noise grows with theta."""
    noise = torch.randn(seeds, *scene.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return theta * theta * scene + theta * noise


@pytest.mark.parametrize("levels,pyramid", [(1, "box"), (3, "box"), (2, "gaussian")])
def test_two_renders_give_the_loss_of_the_mean_image_and_one_does_not(levels: int, pyramid: str) -> None:
    seeds = 6000
    generator = torch.Generator().manual_seed(9)
    scene, target = (torch.rand(8, 8, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    theta = torch.tensor(1.2, dtype=torch.float64)
    options = {"levels": levels, "pyramid": pyramid}

    leaf = theta.clone().requires_grad_()
    true = multiscale_loss((leaf * leaf * scene)[None], target[None], **options)[0]
    (true_slope,) = torch.autograd.grad(true, leaf)

    def estimates(loss) -> tuple[Tensor, Tensor]:
        """Value and derivative for each seed: d/dtheta is taken for all seeds at once, one theta a seed."""
        leaves = theta.repeat(seeds).reshape(-1, 1, 1, 1).requires_grad_()
        values = loss(leaves)
        (slopes,) = torch.autograd.grad(values.sum(), leaves)
        return values.detach(), slopes.flatten()

    def far(samples: Tensor, truth: Tensor) -> float:
        return float((samples.mean() - truth.detach()) / (samples.std() / seeds**0.5))

    values, slopes = estimates(
        lambda t: unbiased_l2(noisy(t, scene, seeds, 1), noisy(t, scene, seeds, 2), target[None], **options)
    )
    assert abs(far(values, true)) < 4 and abs(far(slopes, true_slope)) < 4
    # the same samples in value and gradient: both off, by the variance and by its derivative
    values, slopes = estimates(lambda t: multiscale_loss(noisy(t, scene, seeds, 1), target[None], **options))
    assert far(values, true) > 20 and far(slopes, true_slope) > 20
    # an adjoint from one render times the gradient of another: the gradient alone is right
    _, slopes = estimates(
        lambda t: multiscale_loss(
            noisy(t, scene, seeds, 1).detach() + (x := noisy(t, scene, seeds, 2)) - x.detach(), target[None], **options
        )
    )
    assert abs(far(slopes, true_slope)) < 4


def test_wrong_arguments_are_named() -> None:
    a = picture(0)
    with pytest.raises(UserError, match=r"multiscale_loss: expected images.*\(2, 24, 19, 3\) and \(2, 24, 18, 3\)"):
        multiscale_loss(a, a[:, :, :18])
    with pytest.raises(UserError, match="norm of l1, l2, got 'l3'"):
        multiscale_loss(a, a, norm="l3")
    with pytest.raises(UserError, match="pyramid of box, gaussian"):
        multiscale_loss(a, a, pyramid="laplace")
    with pytest.raises(UserError, match="image_pyramid: expected between 1 level"):
        multiscale_loss(a, a, levels=7)
    with pytest.raises(UserError, match="expected 4 weights"):
        multiscale_loss(a, a, weights=(1.0, 1.0))
    with pytest.raises(UserError, match="at least 11 x 11"):
        ssim(a[:, :10], a[:, :10])
    with pytest.raises(UserError, match=r"silhouette_iou\.mask: expected values in \[0, 1\], got -1.999 to"):
        silhouette_iou(a[..., 0] - 2.0, a[..., 0])
    with pytest.raises(UserError, match="got the same image twice"):
        unbiased_l2(a, a, a)
