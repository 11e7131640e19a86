"""Intervals that hold what they promise: coverage on simulated data, correlated residuals, priors, Monte Carlo noise."""

import math

import pytest
import torch
from torch import nn

from dvc import Parameter, Pipeline, UserError
from dvc.losses import Objective, Term
from dvc.parameter_vector import ParameterVector
from dvc.uncertainty import derived_interval, estimate, intervals, t_quantile, weakly_told

FRAMES, PIXELS = 60, 6


class Linear(nn.Module):
    """Residuals design . p - data, (world, frame, pixel); `jitter` adds noise to the design that depends on the seed."""

    def __init__(self, design: torch.Tensor, jitter: float = 0.0):
        super().__init__()
        self.design, self.data, self.jitter = design, torch.zeros(design.shape[:-1]), jitter

    def forward(self, p, seed=0):
        design = self.design
        if self.jitter:
            design = design + self.jitter * torch.randn(design.shape, generator=torch.Generator().manual_seed(int(seed)))
        return torch.einsum("...k,wk->w...", design, p) - self.data


class Square(nn.Module):
    def forward(self, p):
        return (p[:, 0] ** 2 + 3.0 * p[:, 1], p[:, 0])[0]


def toy(design: torch.Tensor, jitter: float = 0.0, **settings) -> Pipeline:
    stages = {"p": Parameter([0.0] * design.shape[-1], **settings), "r": Linear(design, jitter), "derived": Square()}
    return Pipeline(stages, {"r": {"p": "p", "seed": "$seed"}, "derived": {"p": "p"}})


def random_design(seed: int = 0, columns: int = 3) -> torch.Tensor:
    design = torch.randn(FRAMES, PIXELS, columns, generator=torch.Generator().manual_seed(seed))
    design[..., 0] = 1.0
    return design


@pytest.fixture(autouse=True)
def one_thread():
    """Many tiny matrices: a second thread only waits, for long where the machine is busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


OBJECTIVE = Objective({"r": Term("r")})


def segments(count: int) -> torch.Tensor:
    return torch.arange(FRAMES) * count // FRAMES


def coverage(errors, count: int, repeats: int = 300) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Share of data sets whose interval holds the truth, for the sandwich and for the naive one, and its mean half."""
    design = random_design()
    pipeline, truth = toy(design), torch.tensor([0.5, -1.0, 2.0])
    vector = ParameterVector(pipeline)
    flat = design.reshape(-1, 3)
    inverse = torch.linalg.inv(flat.T @ flat)
    generator = torch.Generator().manual_seed(1)
    held, naive, width = torch.zeros(3), torch.zeros(3), 0.0
    for _ in range(repeats):
        pipeline.stages["r"].data = design @ truth + errors(generator)
        x = inverse @ (flat.T @ pipeline.stages["r"].data.flatten())
        _, low, high = intervals(vector, x, estimate(pipeline, OBJECTIVE, x, segments(count), context={}))["p"]
        held += ((low <= truth) & (truth <= high)).float()
        width += float((high - low)[0]) / 2 / repeats
        rest = pipeline.stages["r"].data - design @ x
        half = 1.96 * torch.sqrt(rest.pow(2).sum() / (rest.numel() - 3) * torch.diagonal(inverse))
        naive += ((x - truth).abs() <= half).float()
    return held / repeats, naive / repeats, width


@pytest.mark.slow
@pytest.mark.parametrize("count", [12, 20])
def test_coverage_with_independent_errors(count):
    held, _, width = coverage(lambda g: torch.randn(FRAMES, PIXELS, generator=g), count)
    assert ((held >= 0.90) & (held <= 0.985)).all(), held
    assert width == pytest.approx(t_quantile(count - 1) / math.sqrt(FRAMES * PIXELS), rel=0.15)


@pytest.mark.slow
def test_coverage_with_errors_that_segments_share():
    def errors(g):
        shared = torch.randn(12, 1, generator=g)[segments(12)]
        return shared + 0.3 * torch.randn(FRAMES, PIXELS, generator=g)

    held, naive, _ = coverage(errors, 12)
    assert (held >= 0.88).all(), held
    assert naive[0] < 0.5  # what it would be if pixels were independent


def test_known_covariance():
    design = random_design(3)
    pipeline = toy(design)
    flat = design.reshape(-1, 3)
    expected = torch.linalg.inv(flat.T @ flat)
    mean, generator = torch.zeros(3, 3), torch.Generator().manual_seed(5)
    for _ in range(40):
        pipeline.stages["r"].data = torch.randn(FRAMES, PIXELS, generator=generator)
        x = expected @ flat.T @ pipeline.stages["r"].data.flatten()
        result = estimate(pipeline, OBJECTIVE, x, segments(20), context={})
        mean += result.covariance / 40
    scale = torch.sqrt(torch.diagonal(expected))
    assert ((mean - expected) / scale / scale[:, None]).abs().max() < 0.3
    assert not result.weak.any() and result.clusters == 20 and result.residual_count == FRAMES * PIXELS
    assert 0.3 < result.effective_samples / result.residual_count < 3.0


def test_effective_samples_of_repeated_pixels():
    """Each error is seen by all pixels of a segment: they tell as much as one."""
    design = torch.ones(FRAMES, PIXELS, 1)
    pipeline, g = toy(design), torch.Generator().manual_seed(0)
    counts = []
    for _ in range(20):
        data = torch.randn(20, 1, generator=g)[segments(20)].expand(FRAMES, PIXELS)
        pipeline.stages["r"].data = data
        counts.append(estimate(pipeline, OBJECTIVE, data.mean()[None], segments(20), context={}).effective_samples)
    assert 10.0 < sorted(counts)[10] < 40.0


def test_what_is_known_from_its_prior_only_is_weak():
    design = random_design()
    design[..., 2] *= 1e-3
    pipeline = toy(design, prior_std=[100.0, 100.0, 0.5])
    pipeline.stages["r"].data = torch.randn(FRAMES, PIXELS, generator=torch.Generator().manual_seed(0))
    result = estimate(pipeline, OBJECTIVE, torch.zeros(3), segments(12), context={})
    assert result.weak.tolist() == [False, False, True]
    assert result.covariance[2, 2].item() == pytest.approx(0.25, rel=0.05)  # the prior's


def test_what_nothing_depends_on_is_weak_and_wide_not_an_error():
    design = random_design()
    design[..., 1] = 0.0
    pipeline = toy(design, lower=-1.0, upper=4.0)
    pipeline.stages["r"].data = torch.randn(FRAMES, PIXELS, generator=torch.Generator().manual_seed(0))
    vector = ParameterVector(pipeline)
    x = vector.gather()[0]
    result = estimate(pipeline, OBJECTIVE, x, segments(12), context={})
    _, low, high = intervals(vector, x, result)["p"]
    assert result.weak.tolist() == [False, True, False]
    assert low[1].item() == pytest.approx(-1.0) and high[1].item() == pytest.approx(4.0)
    assert high[0] - low[0] < 1.0 and high[2] - low[2] < 1.0


def test_what_a_single_segment_tells_is_weak_and_not_too_narrow():
    design = random_design()
    design[10:, :, 1] = 0.0  # seen in the first of six segments
    pipeline = toy(design)
    pipeline.stages["r"].data = torch.randn(FRAMES, PIXELS, generator=torch.Generator().manual_seed(0))
    flat = design.reshape(-1, 3)
    inverse = torch.linalg.inv(flat.T @ flat)
    x = inverse @ flat.T @ pipeline.stages["r"].data.flatten()
    result = estimate(pipeline, OBJECTIVE, x, segments(6), context={})
    assert torch.isfinite(result.covariance).all() and result.weak.tolist() == [False, True, False]
    assert result.covariance[1, 1] > 0.8 * inverse[1, 1]


def test_noise_in_the_jacobian_does_not_count_as_information():
    design = random_design()
    design[..., 2] *= 0.1
    exact, noisy = toy(design), toy(design, jitter=0.3)
    for pipeline in (exact, noisy):
        pipeline.stages["r"].data = torch.randn(FRAMES, PIXELS, generator=torch.Generator().manual_seed(7))
    x = torch.zeros(3)
    truth = estimate(exact, OBJECTIVE, x, segments(20), context={}).covariance[2, 2]
    two = estimate(noisy, OBJECTIVE, x, segments(20), context={}, seeds=(1, 2)).covariance[2, 2]
    one = estimate(noisy, OBJECTIVE, x, segments(20), context={}, seeds=(1, 1)).covariance[2, 2]
    assert one < 0.3 * truth  # information that is not there: the noise's square
    assert two > 0.6 * truth


def test_robust_terms_look_past_outliers():
    design = random_design()
    pipeline = toy(design)
    data = torch.randn(FRAMES, PIXELS, generator=torch.Generator().manual_seed(2))
    data[7, 3] += 300.0
    pipeline.stages["r"].data = data
    wide = estimate(pipeline, OBJECTIVE, torch.zeros(3), segments(12), context={})
    robust = estimate(pipeline, Objective({"r": Term("r", robust=2.0)}), torch.zeros(3), segments(12), context={})
    assert robust.covariance[0, 0] < 0.2 * wide.covariance[0, 0]


@pytest.mark.parametrize("shape", ["frames", "pixels", "rows and columns"])
def test_residuals_of_any_shape_behind_the_frames(shape):
    design = {
        "frames": random_design()[:, 0],
        "pixels": random_design(),
        "rows and columns": random_design().reshape(FRAMES, 2, 3, 3),
    }[shape]
    pipeline = toy(design)
    pipeline.stages["r"].data = torch.randn(design.shape[:-1], generator=torch.Generator().manual_seed(7))
    result = estimate(pipeline, OBJECTIVE, torch.zeros(3), segments(12), context={})
    assert torch.isfinite(result.covariance).all() and (torch.diagonal(result.covariance) > 0).all()


def test_intervals_stay_inside_the_bounds_and_carry_the_bijection():
    design = random_design() * 0.05
    pipeline = toy(design, lower=[-0.5, -0.1, -0.2], upper=0.5)
    pipeline.stages["r"].data = torch.randn(FRAMES, PIXELS, generator=torch.Generator().manual_seed(7))
    vector = ParameterVector(pipeline)
    x = vector.gather()[0]
    value, low, high = intervals(vector, x, estimate(pipeline, OBJECTIVE, x, segments(12), context={}))["p"]
    assert (low < value).all() and (value < high).all()
    assert (low >= torch.tensor([-0.5, -0.1, -0.2])).all() and (high <= 0.5).all()
    upper_only = toy(design, upper=0.5)
    upper_only.stages["r"].data = pipeline.stages["r"].data
    vector = ParameterVector(upper_only)
    value, low, high = intervals(vector, x * 0 - 0.7, estimate(upper_only, OBJECTIVE, x * 0 - 0.7, segments(12), context={}))[
        "p"
    ]
    assert (low < value).all() and (value < high).all() and (high < 0.5).all()


def test_derived_numbers_by_the_delta_method():
    design = random_design()
    pipeline = toy(design)
    pipeline.stages["r"].data = torch.randn(FRAMES, PIXELS, generator=torch.Generator().manual_seed(7))
    vector, x = ParameterVector(pipeline), torch.tensor([0.7, -0.2, 0.1])
    result = estimate(pipeline, OBJECTIVE, x, segments(12), context={})
    value, half, _ = derived_interval(pipeline, vector, x, result, ["derived"], {})["derived"]
    slope = torch.tensor([1.4, 3.0, 0.0])
    assert value.item() == pytest.approx(0.49 - 0.6, abs=1e-5) and value.shape == half.shape == ()
    assert half.item() == pytest.approx(result.quantile * math.sqrt(float(slope @ result.covariance @ slope)), rel=1e-2)


def test_a_derived_number_that_hangs_on_a_prior_is_weak():
    """The data see p0 + p1 only; a prior holds p1. What is derived from p0 alone is known from the prior."""
    design = random_design(columns=2)
    design[..., 1] = design[..., 0]
    pipeline = toy(design, prior_std=[1e3, 0.1])
    pipeline.stages["r"].data = torch.randn(FRAMES, PIXELS, generator=torch.Generator().manual_seed(7))
    vector, x = ParameterVector(pipeline), torch.tensor([0.7, -0.2])
    result = estimate(pipeline, OBJECTIVE, x, segments(12), context={})
    assert result.weak.tolist() == [True, True]
    assert not bool(weakly_told(result.told, torch.tensor([[1.0], [1.0]])))  # the sum is what the data tell
    assert bool(derived_interval(pipeline, vector, x, result, ["derived"], {})["derived"][2])


def test_segment_numbers_may_have_gaps():
    """Fewer frames than segments: numbers that no frame has are no segments."""
    design = random_design()
    pipeline = toy(design)
    pipeline.stages["r"].data = torch.randn(FRAMES, PIXELS, generator=torch.Generator().manual_seed(7))
    plain = estimate(pipeline, OBJECTIVE, torch.zeros(3), segments(10), context={})
    gaps = estimate(pipeline, OBJECTIVE, torch.zeros(3), segments(10) * 7 + 3, context={})
    assert (
        gaps.clusters == 10 and gaps.quantile == plain.quantile and torch.allclose(gaps.covariance, plain.covariance, rtol=1e-4)
    )


def test_what_is_refused():
    pipeline = toy(random_design())
    with pytest.raises(UserError, match="at least 3 segments, got 2"):
        estimate(pipeline, OBJECTIVE, torch.zeros(3), segments(2), context={})
    with pytest.raises(UserError, match=r"residual 'r' has shape .*expected \(world, 59 frames"):
        estimate(pipeline, OBJECTIVE, torch.zeros(3), segments(12)[:-1], context={})


def test_quantiles():
    assert t_quantile(1) == 12.71 and t_quantile(11) == 2.23 and t_quantile(19) == 2.13 and t_quantile(1000) == 2.0
    assert t_quantile(0) == 12.71
