"""Parameter: the bijection, its checks, priors and random starts."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dvc import Parameter, UserError

BOUNDS = {"both": (-2.0, 5.0), "lower": (-2.0, None), "upper": (None, 5.0), "none": (None, None)}


@pytest.mark.parametrize("kind", BOUNDS)
@given(share=st.floats(1e-3, 1 - 1e-3))
def test_round_trip(kind, share):
    lower, upper = BOUNDS[kind]
    parameter = Parameter(1.0, lower, upper, scale=3.0)
    value = torch.tensor([-2.0 + 7.0 * share])
    assert torch.allclose(parameter.to_value(parameter.to_raw(value)), value, rtol=1e-4, atol=1e-5)
    raw = torch.tensor([8.0 * share - 4.0])
    assert torch.allclose(parameter.to_raw(parameter.to_value(raw)), raw, atol=2e-3)


@pytest.mark.parametrize("kind", BOUNDS)
def test_a_new_parameter_is_its_first_guess_and_stays_in_its_bounds(kind):
    lower, upper = BOUNDS[kind]
    parameter = Parameter(1.0, lower, upper)
    assert parameter().shape == (1,) and parameter().item() == pytest.approx(1.0, rel=1e-5)
    with torch.no_grad():
        for raw in (-50.0, 50.0):
            value = parameter.to_value(torch.tensor([raw])).item()
            assert (lower is None or value >= lower) and (upper is None or value <= upper)
    parameter().sum().backward()
    assert parameter.raw.grad.item() != 0.0


def test_vectors_with_a_bound_for_each_element():
    parameter = Parameter(
        [1.0, 10.0], [0.0, 5.0], [2.0, 20.0], unit="m", prior_std=[1.0, 2.0], explore=[[0.5, 6.0], [1.5, 19.0]]
    )
    assert parameter.size == 2 and torch.allclose(parameter(), torch.tensor([[1.0, 10.0]]), rtol=1e-5)
    drawn = parameter.sample(500, torch.Generator().manual_seed(0))
    assert drawn.shape == (500, 2)
    assert (drawn >= torch.tensor([0.5, 6.0])).all() and (drawn <= torch.tensor([1.5, 19.0])).all()
    assert drawn[:, 1].std() > 2.0
    residual = parameter.prior_residual(torch.tensor([[2.0, 14.0], [1.0, 10.0]]))
    assert torch.allclose(residual, torch.tensor([[1.0, 2.0], [0.0, 0.0]]))
    scalar_bounds = Parameter([0.75, 0.2, 0.15], lower=0.0, upper=1.5)
    assert torch.allclose(scalar_bounds(), torch.tensor([[0.75, 0.2, 0.15]]), rtol=1e-5)


def test_prior_with_its_own_mean_and_none():
    assert Parameter(1.0, prior_std=0.5, prior_mean=2.0).prior_residual(torch.tensor([1.0, 3.0])).tolist() == [[-2.0], [2.0]]
    assert Parameter(1.0).prior_residual(torch.tensor([1.0])) is None


def test_starts_without_a_box_keep_the_first_guess_and_are_repeatable():
    parameter = Parameter(0.5, 0.1, 3.0)
    assert parameter.sample(4, torch.Generator()).tolist() == [0.5] * 4
    boxed = Parameter(0.5, 0.1, 3.0, explore=[0.2, 1.5])
    a, b = (boxed.sample(9, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(a, b) and torch.isfinite(boxed.to_raw(a)).all()


@pytest.mark.parametrize(("value", "lower", "upper"), [
    (1e-30, 0.0, 1.0), (99.99999, 0.0, 100.0), (2.9999998, 0.0, 3.0), (1e-20, 0.0, None), (-0.9999999, -1.0, 1e6),
])  # fmt: skip
def test_a_value_extremely_near_its_bound_keeps_a_finite_gradient(value, lower, upper):
    parameter = Parameter(value, lower, upper)
    assert torch.isfinite(parameter.raw).all()
    out = parameter()
    out.sum().backward()
    assert torch.isfinite(out).all() and torch.isfinite(parameter.raw.grad).all()
    assert out.item() == pytest.approx(value, rel=1e-4)
    # rounded onto the bound and back: still a number
    assert torch.isfinite(parameter.to_raw(parameter.to_value(torch.tensor([80.0, -80.0])))).all()


@pytest.mark.parametrize(("arguments", "message"), [
    ({"initial": math.nan}, "initial: expected finite"),
    ({"initial": "red"}, "initial: expected a number"),
    ({"initial": [1.0, math.inf]}, "initial: expected finite"),
    ({"initial": 1.0, "lower": 2.0}, "strictly inside its bounds"),
    ({"initial": 1.0, "lower": 1.0}, "strictly inside its bounds"),
    ({"initial": [1.0, 4.0], "upper": 3.0}, "strictly inside its bounds"),
    ({"initial": 1.0, "lower": 2.0, "upper": 2.0}, "lower < upper"),
    ({"initial": 1.0, "lower": 3.0, "upper": 2.0}, "lower < upper"),
    ({"initial": 1.0, "lower": math.nan}, "lower: expected finite"),
    ({"initial": 1.0, "prior_std": 0.0}, "prior_std: expected positive"),
    ({"initial": 1.0, "prior_std": -1.0}, "prior_std: expected positive"),
    ({"initial": 1.0, "prior_std": math.nan}, "prior_std: expected finite"),
    ({"initial": 1.0, "prior_std": 1.0, "prior_mean": math.nan}, "prior_mean: expected finite"),
    ({"initial": [1.0, 2.0, 3.0], "lower": [0.0, 0.0]}, "lower: expected one number or the shape"),
    ({"initial": 1.0, "upper": [2.0, 3.0]}, "upper: expected one number or the shape"),
    ({"initial": 1.0, "lower": 0.0, "upper": 2.0, "explore": [0.5, 3.0]}, "explore: expected low <= high"),
    ({"initial": 1.0, "explore": [2.0, 1.0]}, "explore: expected low <= high"),
    ({"initial": 1.0, "explore": [1.0]}, "explore: expected"),
    ({"initial": 1.0, "scale": 0.0}, "scale: expected a positive"),
])  # fmt: skip
def test_what_is_refused(arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        Parameter(**arguments)
    assert "\n" not in str(caught.value)


def test_values_for_worlds():
    parameter = Parameter([0.5, 0.5], 0.0, 1.0)
    values = torch.tensor([[0.1, 0.2], [0.3, 0.9]])
    parameter.set_worlds(values)
    assert torch.allclose(parameter(), values, atol=1e-6)
    for bad in (torch.tensor([[0.1, 1.2]]), torch.tensor([[0.1, math.nan]]), torch.tensor([0.1, 0.2, 0.3]), torch.tensor(0.1)):
        with pytest.raises(UserError, match="value: expected"):
            parameter.set_worlds(bad)


def test_fixed_ones_have_no_gradient():
    parameter = Parameter(9.81, fixed=True)
    assert not parameter().requires_grad
    parameter.set_worlds(torch.tensor([9.0]))
    assert not parameter.raw.requires_grad
