"""Response curves: known values, inverses, monotony, gradients, saturation."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dvc import UserError
from dvc.gradient_check import gradient_check
from render.response import (
    TOE,
    FilmResponse,
    gamma_curve,
    monotone_inverse,
    monotone_polynomial,
    srgb_curve,
    srgb_inverse,
)
from tests.physics.scenes import assert_certified

SHAPE = torch.tensor([[0.8, -0.5, 0.3, 1.1], [-1.0, 0.2, 0.4, -0.6]])


def radiance(low: float = 0.02, high: float = 0.95, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.rand(2, 5, 4, 3, generator=torch.Generator().manual_seed(0), dtype=dtype) * (high - low) + low


def parameters(curve: str) -> dict[str, Tensor]:
    more: dict[str, dict[str, Tensor]] = {"gamma": {"gamma": torch.tensor([2.2, 1.8])}, "polynomial": {"shape": SHAPE}}
    return {"stops": torch.tensor([0.5, -1.0]), **more.get(curve, {})}


def test_known_values() -> None:
    x = torch.tensor([0.0, 0.001, 0.0031308, 0.18, 1.0], dtype=torch.float64)
    expected = torch.tensor([0.0, 0.01292, 0.0404499, 0.4613561, 1.0], dtype=torch.float64)
    torch.testing.assert_close(srgb_curve(x), expected, atol=2e-7, rtol=0.0)
    torch.testing.assert_close(srgb_inverse(expected), x, atol=1e-7, rtol=0.0)
    y = gamma_curve(torch.tensor([[0.25, 1.0, 4.0]]), torch.tensor([2.0]))
    torch.testing.assert_close(y, torch.tensor([[0.5, 1.0, 2.0]]))
    stops = FilmResponse("linear")(torch.ones(1, 1, 1, 3), torch.tensor([[0.0, 1.0, -2.0]]))
    assert stops.flatten().tolist() == [1.0, 2.0, 0.25]


def test_no_shape_is_the_straight_line() -> None:
    x = torch.linspace(-0.5, 1.5, 41)[None]
    torch.testing.assert_close(monotone_polynomial(x, torch.zeros(1, 5)), x, atol=3e-7, rtol=0.0)
    shaped = FilmResponse("polynomial")(radiance(), shape=torch.zeros(1, 3))
    torch.testing.assert_close(shaped, FilmResponse("srgb")(radiance()), atol=3e-7, rtol=0.0)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-3.0, 3.0), min_size=1, max_size=7))
def test_a_polynomial_rises_from_zero_to_one_whatever_its_shape(shape: list[float]) -> None:
    x = torch.linspace(-0.3, 1.3, 300, dtype=torch.float64)[None].requires_grad_()
    y = monotone_polynomial(x, torch.tensor([shape], dtype=torch.float64))
    assert (y.diff() > 0).all()
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert (slope > 0).all()  # and is the slope of what was computed:
    torch.testing.assert_close(slope[:, 1:-1], (y[:, 2:] - y[:, :-2]) / (x[:, 2:] - x[:, :-2]), atol=0.12, rtol=0.05)
    ends = monotone_polynomial(torch.tensor([[0.0, 1.0]]).double(), torch.tensor([shape]).double())
    torch.testing.assert_close(ends, torch.tensor([[0.0, 1.0]]).double())
    torch.testing.assert_close(monotone_inverse(y, torch.tensor([shape], dtype=torch.float64)), x, atol=1e-6, rtol=0.0)


@pytest.mark.parametrize("curve", ["linear", "gamma", "srgb", "polynomial"])
def test_the_inverse_undoes_the_curve_below_zero_and_above_one_too(curve: str) -> None:
    stage, given_ = FilmResponse(curve), {name: t.double() for name, t in parameters(curve).items()}
    for low, high in ((0.02, 0.95), (-0.2, 3.0), (-TOE, 2 * TOE)):
        x = radiance(low, high, torch.float64)
        y = stage(x, **given_)
        torch.testing.assert_close(stage.inverse(y, **given_), x, atol=1e-6 * high, rtol=2e-6)


@pytest.mark.parametrize("curve", ["linear", "gamma", "srgb", "polynomial"])
@pytest.mark.parametrize("inverse", [False, True])
def test_gradient_of_every_argument(curve: str, inverse: bool) -> None:
    stage = FilmResponse(curve)
    given_ = parameters(curve)
    names = list(given_)
    function = stage.inverse if inverse else stage
    rows = gradient_check(
        lambda x, *values: function(x, **dict(zip(names, values))),
        [t.clone().requires_grad_() for t in (radiance(0.1, 1.6), *given_.values())],
        ["images", *names],
    )
    assert_certified(rows)


def test_gradients_are_finite_at_and_below_zero() -> None:
    x = torch.tensor([-1.0, 0.0, TOE, 1e-30, 1.0, 2.0]).reshape(1, 1, 2, 3)
    for curve in ("gamma", "srgb", "polynomial"):
        leaf = x.clone().requires_grad_()
        values = {name: t[:1].clone().requires_grad_() for name, t in parameters(curve).items()}
        FilmResponse(curve)(leaf, **values).sum().backward()
        assert leaf.grad is not None and torch.isfinite(leaf.grad).all() and (leaf.grad > 0).all()
        assert all(t.grad is not None and torch.isfinite(t.grad).all() for t in values.values())


def test_clipping_stops_the_gradient_of_cut_pixels_and_warns_where_nothing_is_left() -> None:
    stage = FilmResponse("linear", clip=True)
    x = torch.tensor([0.2, 0.9, 1.7]).reshape(1, 1, 1, 3).requires_grad_()
    y = stage(x)
    assert y.flatten().tolist() == pytest.approx([0.2, 0.9, 1.0])
    y.sum().backward()
    assert x.grad is not None and x.grad.flatten().tolist() == [1.0, 1.0, 0.0]
    with pytest.warns(UserWarning, match="view 0 is cut"):
        stage(torch.full((1, 2, 2, 3), 3.0, requires_grad=True))


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(UserError, match=r"FilmResponse\.curve: expected one of linear, gamma, srgb, polynomial, got 'log'"):
        FilmResponse("log")
    with pytest.raises(UserError, match="expected gamma with the curve 'gamma'"):
        FilmResponse("gamma")(radiance())
    with pytest.raises(UserError, match="expected no shape with the curve 'srgb'"):
        FilmResponse("srgb")(radiance(), shape=SHAPE)
    with pytest.raises(UserError, match=r"gamma: expected positive"):
        FilmResponse("gamma")(radiance(), gamma=torch.tensor([-1.0]))
    with pytest.raises(UserError, match=r"exposed\.stops: expected shape \(2,\) or \(2, 3\), got \(3,\)"):
        FilmResponse("srgb")(radiance(), torch.zeros(3))
