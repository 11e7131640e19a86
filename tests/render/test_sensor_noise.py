"""Sensor noise: moments against the model, gradients of mean and variance against exact derivatives, quantisation, seeds."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dvc.errors import UserError
from dvc.gradient_check import gradient_check
from render.response import FilmResponse, exposed
from render.sensor_noise import SHOTS, SensorNoise, noise_variance
from tests.physics.scenes import assert_certified

PIXELS = 400_000


def flat(level: float, pixels: int = PIXELS) -> Tensor:
    return torch.full((1, pixels, 1), level)


def within(found: float, expected: float, error: float, limit: float = 4.5) -> None:
    assert abs(found - expected) <= limit * error, (found, expected, error)


@pytest.mark.parametrize("shot", SHOTS)
@pytest.mark.parametrize("level", [0.0, 0.0002, 0.01, 0.5, 1.2])
def test_mean_and_variance_are_those_of_the_model(shot: str, level: float) -> None:
    well, read = torch.tensor([2000.0]), torch.tensor([3.0])
    signal = SensorNoise(shot)(flat(level), well, read, seed=1).double()
    variance = level / 2000.0 + (3.0 / 2000.0) ** 2
    within(float(signal.mean()), level, math.sqrt(variance / PIXELS))
    excess = (level / 2000.0**3) / variance**2 if shot == "poisson" else 0.0  # kurtosis of what is counted
    within(float(signal.var()), variance, variance * math.sqrt((2.0 + excess) / PIXELS))
    assert float(noise_variance(flat(level, 1), well, read)) == pytest.approx(variance, rel=1e-5)


def test_counts_are_whole_and_skewed_as_poisson() -> None:
    counts = SensorNoise()(flat(0.004), 1000.0, seed=3).double() * 1000.0
    assert float((counts - counts.round()).abs().max()) < 1e-3 and float(counts.min()) > -1e-3
    central = counts - counts.mean()
    within(float((central**3).mean()), 4.0, math.sqrt(15.0 * 4.0**3 / PIXELS) * 3.0)  # third moment of Poisson(4)
    share = float((counts.round() == 0.0).double().mean())
    within(share, math.exp(-4.0), math.sqrt(math.exp(-4.0) / PIXELS))


@pytest.mark.parametrize("shot", SHOTS)
def test_gradients_of_mean_and_variance_are_exact(shot: str) -> None:
    """d/dy, d/dF, d/dr of E z and of E (z - y0)^2, whose derivative at y0 = y is that of the variance."""
    y, f, r = 0.02, 800.0, 2.0
    level = torch.full((1, PIXELS, 1), y, dtype=torch.float64, requires_grad=True)
    well, read = (torch.tensor([value], dtype=torch.float64, requires_grad=True) for value in (f, r))
    signal = SensorNoise(shot)(level, well, read, seed=2)
    of_mean = torch.autograd.grad(signal.mean(), [level, well, read], retain_graph=True)
    of_variance = torch.autograd.grad(((signal - y) ** 2).mean(), [level, well, read])
    exact_mean, exact_variance = (1.0, 0.0, 0.0), (1.0 / f, -y / f**2 - 2.0 * r**2 / f**3, 2.0 * r / f**2)
    variance = y / f + (r / f) ** 2
    spread = math.sqrt(variance / PIXELS)
    # standard errors of the estimates, from the terms that fluctuate
    errors_mean = (spread / (2.0 * y), spread / f, spread / r)
    for found, expected, error in zip(of_mean, exact_mean, errors_mean):
        within(float(found.sum()), expected, error)
    some = math.sqrt(6.0 / PIXELS)
    errors_variance = (some * variance / y + 2.0 * spread, some * 2.0 * variance / f, some * 2.0 * variance / r)
    for found, expected, error in zip(of_variance, exact_variance, errors_variance):
        within(float(found.sum()), expected, error)
    assert errors_variance[1] < 0.01 * abs(exact_variance[1]) and errors_variance[2] < 0.02 * abs(exact_variance[2])


def test_what_the_gradient_leaves_out_is_as_large_as_said() -> None:
    level = torch.full((1, PIXELS, 1), 0.004, dtype=torch.float64, requires_grad=True)
    signal = SensorNoise()(level, 1000.0, seed=3)
    (gradient,) = torch.autograd.grad(((signal - level) ** 3).mean(), level)
    assert float(gradient.sum()) * 1000.0**2 == pytest.approx(1.5, abs=0.1)  # the third central moment's is 1


def test_gradient_of_every_argument_with_its_random_numbers_held() -> None:
    stage = SensorNoise("gaussian")
    images = torch.rand(2, 4, 5, 3, generator=torch.Generator().manual_seed(0)) * 0.9 + 0.05
    rows = gradient_check(
        lambda x, well, read: stage(x, well, read, seed=4),
        [t.requires_grad_() for t in (images, torch.tensor([50.0, 80.0]), torch.tensor([2.0, 1.0]))],
        ["images", "full_well", "read_noise"],
    )
    assert_certified(rows)


@pytest.mark.parametrize("shot", SHOTS)
def test_gradients_are_finite_without_light_and_without_read_noise(shot: str) -> None:
    images = torch.tensor([-0.1, 0.0, 1e-30, 1e-6, 0.5, 2.0]).reshape(1, 1, 2, 3).requires_grad_()
    well, read = torch.tensor([1000.0], requires_grad=True), torch.tensor([0.0], requires_grad=True)
    signal = SensorNoise(shot)(images, well, read)
    signal.sum().backward()
    assert float(signal.detach().flatten()[0]) == pytest.approx(-0.1) and float(signal.detach().flatten()[1]) == 0.0
    for leaf in (images, well, read):
        assert leaf.grad is not None and bool(torch.isfinite(leaf.grad).all())


def test_quantisation_has_its_levels_its_variance_and_its_black() -> None:
    level = 0.3217
    read = 2.0 / 255.0 * 1000.0  # two levels
    signal = SensorNoise(bits=8, black=0.1)(flat(level), 1000.0, read, seed=5).double()
    steps = (signal * 0.9 + 0.1) * 255.0
    assert float((steps - steps.round()).abs().max()) < 1e-3
    variance = level / 1000.0 + (2.0 / 255.0) ** 2 + (1.0 / (0.9 * 255.0)) ** 2 / 12.0
    within(float(signal.mean()), level, math.sqrt(variance / PIXELS))
    within(float(signal.var()), variance, variance * math.sqrt(2.0 / PIXELS))
    dark = SensorNoise(bits=8, black=0.1)(flat(0.0), 1000.0, read, seed=6).double()
    within(float(dark.mean()), 0.0, float(dark.std()) / math.sqrt(PIXELS))  # without a black level the dark would be cut
    assert float(SensorNoise(bits=8)(flat(0.0), 1000.0, read, seed=6).mean()) > 0.003
    bright = SensorNoise(bits=8, black=0.1)(flat(2.0), 1000.0, seed=7)
    assert bool((bright == 1.0).all())


def test_gradient_passes_rounding_but_not_the_ends() -> None:
    level = 0.2
    leaf = flat(level).requires_grad_()
    signal = SensorNoise(bits=6)(leaf, 1e9, 0.5e9 / 63.0, seed=8)  # half a level of noise
    (gradient,) = torch.autograd.grad(signal.mean(), leaf)
    step = 0.25 / 63.0
    ahead, behind = (SensorNoise(bits=6)(flat(level + s), 1e9, 0.5e9 / 63.0, seed=8).mean() for s in (step, -step))
    assert float(gradient.sum()) == pytest.approx(1.0, abs=1e-3)
    assert float(ahead - behind) / (2.0 * step) == pytest.approx(1.0, abs=0.03)
    ends = torch.tensor([-0.5, 0.5, 1.5]).reshape(1, 1, 3).requires_grad_()
    SensorNoise(bits=8)(ends, 1e12).sum().backward()
    assert ends.grad is not None and ends.grad.flatten().tolist() == pytest.approx([0.0, 1.0, 0.0], abs=1e-4)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31 - 1), st.sampled_from(SHOTS))
def test_a_view_has_the_noise_of_its_seed_alone(seed: int, shot: str) -> None:
    stage, images = SensorNoise(shot), torch.full((3, 4, 5, 3), 0.3)
    first = stage(images, 100.0, 1.0, seed=seed)
    assert torch.equal(first, stage(images, 100.0, 1.0, seed=seed))
    assert torch.equal(first[:1], stage(images[:1], 100.0, 1.0, seed=seed)) and not torch.equal(first[0], first[1])
    same = stage(images, 100.0, 1.0, seed=torch.tensor([7, 8, 7]))
    assert torch.equal(same[0], same[2]) and not torch.equal(same[0], same[1])


def test_numbers_by_view_and_channel_and_the_chain_of_a_photograph() -> None:
    images = torch.full((2, 200, 200, 3), 0.1)
    wells = torch.tensor([[100.0, 400.0, 1600.0], [200.0, 800.0, 3200.0]])
    spread = SensorNoise()(exposed(images, torch.tensor([1.0])), wells, seed=9).var(dim=(1, 2))
    assert torch.allclose(spread, 0.2 / wells, rtol=0.05)
    photograph = FilmResponse("srgb", clip=True)(SensorNoise(bits=12, black=0.0625)(images, 5000.0, 3.0, seed=1))
    assert photograph.shape == images.shape and float(photograph.min()) >= 0.0 and float(photograph.max()) <= 1.0


def test_wrong_arguments_are_named() -> None:
    images = torch.ones(2, 3, 4, 3)
    for make, expected in (
        (lambda: SensorNoise("photon"), r"SensorNoise\.shot: expected one of poisson, gaussian, got 'photon'"),
        (lambda: SensorNoise(bits=0), r"SensorNoise\.bits"),
        (lambda: SensorNoise(black=0.1), r"SensorNoise\.black"),
        (
            lambda: SensorNoise()(images, 0.0),
            r"SensorNoise\.full_well: expected finite numbers of electrons above 0, got \[0\.0\]",
        ),
        (
            lambda: SensorNoise()(images, 10.0, -1.0),
            r"SensorNoise\.read_noise: expected finite numbers of electrons of at least 0",
        ),
        (
            lambda: SensorNoise()(images, torch.ones(5)),
            r"SensorNoise\.full_well: expected shape \(2,\) or \(2, 3\), got \(5,\)",
        ),
        (lambda: SensorNoise()(images * math.nan, 1.0), r"SensorNoise\.images: expected finite"),
        (lambda: SensorNoise()(images.int(), 1.0), r"SensorNoise\.images: expected floats"),
        (lambda: SensorNoise()(images, 1.0, seed=torch.zeros(3).int()), r"SensorNoise\.seed"),
    ):
        with pytest.raises(UserError, match=expected):
            make()
