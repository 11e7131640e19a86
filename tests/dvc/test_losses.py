"""Residuals and penalties against their formulas, and the objective."""

import math

import pytest
import torch

from dvc import Parameter, Pipeline, UserError
from dvc.losses import MomentResidual, Objective, PixelResidual, Term, influence, penalty, prior_residuals, term
from dvc.records import Film, Frames


# -- penalties --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("c", [None, 0.5, 2.0, 30.0])
def test_penalty_is_its_formula_down_to_tiny_residuals(c):
    r = torch.tensor([0.0, 1e-5, -1e-3, 0.1, -1.0, 7.0, -300.0])
    exact = r.double() ** 2 if c is None else 2 * c**2 * torch.expm1(0.5 * torch.log1p((r.double() / c) ** 2))
    assert torch.allclose(penalty(r, c).double(), exact, rtol=1e-5, atol=0.0)


@pytest.mark.parametrize("c", [None, 0.5, 2.0])
def test_influence_is_half_the_slope_over_the_residual(c):
    r = torch.tensor([-9.0, -1.0, 0.01, 0.3, 4.0], dtype=torch.float64, requires_grad=True)
    penalty(r, c).sum().backward()
    assert torch.allclose(influence(r.detach(), c), r.grad / (2 * r.detach()), rtol=1e-9)
    assert influence(torch.zeros(1), c).item() == 1.0


# -- the objective ----------------------------------------------------------------------------------------------------
def test_objective_is_half_the_weighted_sum_a_world():
    r, s = torch.randn(3, 4, 2), torch.randn(1, 5)
    objective = Objective({"a": Term("r", None, 0.5), "b": term("s", robust=2.0)})
    assert objective.outputs == ["r", "s"]
    expected = 0.25 * (r**2).sum((1, 2)) + 0.5 * penalty(s, 2.0).sum()
    assert torch.allclose(objective.loss({"r": r, "s": s}), expected)
    priors = torch.ones(3, 2)
    assert torch.allclose(objective.loss({"r": r, "s": s}, priors), expected + 1.0)


@pytest.mark.parametrize(("terms", "message"), [
    ({}, "at least one term"),
    ({"a": Term("r", robust=0.0)}, "term 'a': robust"),
    ({"a": Term("r", robust=-1.0)}, "term 'a': robust"),
    ({"a": Term("r", robust=math.nan)}, "term 'a': robust"),
    ({"a": Term("r", weight=-1.0)}, "term 'a': weight"),
    ({"a": Term("r", weight=math.nan)}, "term 'a': weight"),
])  # fmt: skip
def test_objectives_that_are_refused(terms, message):
    with pytest.raises(UserError, match=message):
        Objective(terms)


def test_prior_residuals_of_a_pipeline():
    pipeline = Pipeline(
        {"a": Parameter(1.0, prior_std=0.5), "b": Parameter(2.0), "c": Parameter([0.0, 1.0], prior_std=[1.0, 2.0])}
    )
    rows = prior_residuals(pipeline, {"a": torch.tensor([0.0, 1.0])})  # unbounded: initial + raw
    assert torch.allclose(rows, torch.tensor([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0]]))
    assert prior_residuals(Pipeline({"b": Parameter(2.0)}), {}) is None


# -- pixels -----------------------------------------------------------------------------------------------------------
def frames_of(
    images: torch.Tensor, background: torch.Tensor | None = None, scale: float = 0.5, left: float = 10.0, top: float = 20.0
) -> Frames:
    rows, columns = images.shape[2:4]
    film = Film(200, 100, left, top, columns, rows, scale)
    return Frames(images, torch.zeros(rows, columns, 3) if background is None else background, film)


def test_pixel_residual_is_in_opponent_colours_over_sigma():
    model, observed = torch.rand(2, 3, 4, 5, 3), torch.rand(1, 3, 4, 5, 3)
    r = PixelResidual([1.0, 1.0, 1.0], sigma=0.1)(frames_of(model), frames_of(observed))
    assert r.shape[:4] == (2, 3, 4, 5)
    # the axes are orthonormal: lengths are kept
    assert torch.allclose((r**2).sum(-1), ((model - observed) ** 2).sum(-1) / 0.01, rtol=1e-3, atol=1e-4)


def test_pixel_weights_look_past_the_luminance():
    observed = torch.full((1, 1, 2, 2, 3), 0.5)
    shadow, red = observed - 0.2, observed + torch.tensor([0.1, -0.1, 0.0])
    residual = PixelResidual([0.0, 1.0, 0.5], sigma=0.1)
    assert residual(frames_of(shadow), frames_of(observed)).abs().max() < 1e-4
    r = residual(frames_of(red), frames_of(observed))
    assert float((r**2).sum() / 4) == pytest.approx(0.02 / 0.01, rel=1e-3)  # all of it is red against green
    half = PixelResidual([0.0, 0.5, 0.5], sigma=0.1)(frames_of(red), frames_of(observed))
    assert float((half**2).sum() / (r**2).sum()) == pytest.approx(0.25, rel=1e-3)


def test_pixel_residual_carries_the_gradient_of_every_world():
    model, observed = torch.rand(2, 3, 4, 5, 3, requires_grad=True), torch.rand(1, 3, 4, 5, 3)
    residual = PixelResidual([0.5, 1.0, 0.5], sigma=0.1)
    (0.5 * residual(frames_of(model), frames_of(observed)) ** 2).sum().backward()
    axes = torch.tensor([[1, 1, 1], [1, -1, 0], [1, 1, -2]]) / torch.tensor([3.0, 2.0, 6.0]).sqrt()[:, None]
    m = torch.tensor([0.5, 1.0, 0.5])[:, None] * axes / 0.1
    expected = (model.detach() - observed) @ (m.T @ m)
    assert torch.allclose(model.grad, expected, rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize(("weights", "sigma"), [
    ([1.0, 1.0], 0.1), ([0.0, 0.0, 0.0], 0.1), ([1.0, -1.0, 1.0], 0.1), ([1.0, math.nan, 1.0], 0.1),
    ([1.0, 1.0, 1.0], 0.0), ([1.0, 1.0, 1.0], math.nan),
])  # fmt: skip
def test_pixel_residuals_that_are_refused(weights, sigma):
    with pytest.raises(UserError, match="PixelResidual: expected"):
        PixelResidual(weights, sigma)


# -- moments ----------------------------------------------------------------------------------------------------------
def blob(
    x: torch.Tensor, y: torch.Tensor, columns: int = 40, rows: int = 30, scale: float = 0.5, amount: float = 0.5
) -> torch.Tensor:
    """Red blobs centred at full pixels (x, y), (world, frame) -> images."""
    px = 10.0 + (torch.arange(columns) + 0.5) / scale
    py = 20.0 + (torch.arange(rows) + 0.5) / scale
    d2 = (px - x[..., None, None]) ** 2 + (py[:, None] - y[..., None, None]) ** 2
    return amount * torch.exp(-d2 / (2 * 6.0**2))[..., None] * torch.tensor([1.0, 0.2, 0.2])


def test_moments_of_known_blobs():
    x, y = torch.tensor([[40.0, 61.3]]), torch.tensor([[47.0, 52.5]])
    moment = MomentResidual(sigma=2.0)
    observed = frames_of(blob(torch.tensor([[50.0, 50.0]]), torch.tensor([[50.0, 50.0]])))
    r = moment(frames_of(blob(x, y)), observed)
    assert r.shape == (1, 2, 2)
    expected = torch.stack([x - 50.0, y - 50.0], -1) / 2.0
    assert torch.allclose(r, expected, atol=0.05)


def test_moments_look_at_what_differs_from_the_plate():
    plate = torch.rand(30, 40, 3, generator=torch.Generator().manual_seed(0)) * 0.5
    x = torch.tensor([[60.0]])
    moment = MomentResidual(sigma=1.0)
    with_plate = moment(frames_of(plate + blob(x, x), plate), frames_of(plate + blob(x + 8.0, x), plate))
    assert torch.allclose(with_plate, torch.tensor([[[-8.0, 0.0]]]), atol=0.1)


def test_gradient_of_the_moments_points_to_the_clip():
    shift = torch.zeros(3, 1, requires_grad=True)
    base = torch.tensor([[40.0], [50.0], [60.0]])
    observed = frames_of(blob(torch.full((1, 1), 50.0), torch.full((1, 1), 50.0)))
    r = MomentResidual(sigma=1.0)(frames_of(blob(base + shift, torch.full((3, 1), 50.0))), observed)
    r[..., 0].sum().backward()
    assert torch.allclose(shift.grad, torch.ones(3, 1), atol=0.05)


@pytest.mark.parametrize("threshold", [0.05, 0.0])
def test_empty_frames_do_not_count_and_give_no_nan(threshold):
    there, nothing = blob(torch.full((1, 1), 40.0), torch.full((1, 1), 50.0)), torch.zeros(1, 1, 30, 40, 3)
    observed = frames_of(torch.cat([there, nothing, there], dim=1))
    model = torch.cat([there, there, nothing], dim=1).requires_grad_(True)
    moment = MomentResidual(threshold=threshold, sigma=1.0)
    r = moment(frames_of(model), observed)
    r.pow(2).sum().backward()
    assert torch.isfinite(r).all() and torch.isfinite(model.grad).all()
    assert r[0, 1].abs().max() == 0.0 and model.grad[0, 1].abs().max() == 0.0
    assert r[0, 0].abs().max() < 1e-4
    # where the model shows nothing its centre is the film's: (10 + 40, 20 + 30)
    assert torch.allclose(r[0, 2], torch.tensor([10.0, 0.0]), atol=0.5)
