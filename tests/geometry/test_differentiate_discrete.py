import doctest
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import geometry.differentiate_discrete as module
from dvc.errors import Unsupported, UserError
from dvc.gradient_check import certified, format_table, gradient_check
from geometry.differentiate_discrete import replaced_gradient, smoothed, soft_max, soft_min, soft_occupancy
from geometry.point_losses import chamfer


def test_the_examples_of_the_docstrings():
    result = doctest.testmod(module)
    assert result.attempted >= 15 and result.failed == 0


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "function", [lambda v: soft_min(v, 0.3), lambda v: soft_max(v, 0.3, dim=0), lambda v: soft_occupancy(v, 0.4)]
)
def test_gradient_at_several_steps(function):
    rows = gradient_check(function, [random(3, 5).requires_grad_()], ["values"])
    assert certified(rows) and not rows[0].note, format_table(rows)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=9), st.sampled_from([1e-6, 1e-2, 1.0, 1e3]))
def test_bounds_of_the_soft_minimum(values, temperature):
    v = torch.tensor(values, requires_grad=True)
    low, high = soft_min(v, temperature), soft_max(v, temperature)
    slack = 1e-6 * (float(v.detach().abs().max()) + temperature)
    assert -slack <= float((v.min() - low).detach()) <= temperature * math.log(len(values)) + slack
    assert -slack <= float((high - v.max()).detach()) <= temperature * math.log(len(values)) + slack
    weights = torch.autograd.grad(low, v)[0]
    assert bool((weights >= 0).all()) and float(weights.sum()) == pytest.approx(1.0, abs=1e-5)
    assert bool(torch.isfinite(torch.autograd.grad(soft_occupancy(v, temperature).sum(), v)[0]).all())


def gradient(function, x, **options):
    x = x.clone().requires_grad_()
    value = smoothed(function, x, **options)
    return value.detach(), torch.autograd.grad(value.sum(), x)[0]


def test_a_quadratic_keeps_its_gradient_and_gains_its_trace():
    x, weight = random(2, 3), torch.tensor([1.0, 2.0, -1.0])
    value, slope = gradient(lambda rows: (weight * rows * rows).sum(1), x, seed=1, sigma=0.5, pairs=20_000)
    assert torch.allclose(value, (weight * x * x).sum(1) + 0.25 * weight.sum(), atol=0.05)
    assert torch.allclose(slope, 2.0 * weight * x, atol=0.02)


def test_a_staircase_has_the_slope_of_its_ramp():
    _, slope = gradient(lambda rows: rows.floor().sum(1), random(3, 2), seed=2, sigma=1.0, pairs=20_000)
    assert torch.allclose(slope, torch.ones(3, 2), atol=0.03)


def test_the_gradient_is_unbiased_and_the_control_variate_lowers_its_scatter():
    def function(rows):
        return (rows > 0.3).float().sum(1) + 2.0 * rows[:, 0] - rows[:, 1] * rows[:, 2]

    x, sigma, draws = torch.tensor([[0.2, -0.4, 0.6]]), 0.3, 4000
    step = torch.exp(-0.5 * ((0.3 - x) / sigma) ** 2) / (sigma * math.sqrt(2.0 * math.pi))
    truth = step + torch.tensor([[2.0, -0.6, 0.4]])
    scatter = {}
    for control in (False, True):
        # worlds draw their own numbers
        samples = gradient(function, x.expand(draws, 3), seed=0, sigma=sigma, pairs=32, control_variate=control)[1].double()
        error = samples.mean(0) - truth[0]
        assert bool((error.abs() < 4.0 * samples.std(0) / math.sqrt(draws)).all())
        scatter[control] = float(samples.var(0).sum())
    assert scatter[True] < 0.8 * scatter[False]


def test_the_control_variate_takes_a_linear_function_almost_exactly():
    weight = random(10, seed=5)
    scatter = {}
    for control in (False, True):
        errors = [
            gradient(lambda rows: rows @ weight, random(1, 10), seed=s, sigma=0.1, pairs=400, control_variate=control)[1]
            - weight
            for s in range(20)
        ]
        scatter[control] = float(torch.stack(errors).square().mean())
    assert scatter[True] < 0.2 * scatter[False]


def test_outputs_of_any_shape_and_worlds_that_do_not_meet():
    x = random(2, 2, 3)
    x_one = x[:1].clone()

    def function(rows):
        return torch.stack([rows.sum((1, 2)), rows[:, 0, 0] * rows[:, 1, 1]], dim=1)[:, None]

    x.requires_grad_()
    value = smoothed(function, x, seed=0, sigma=0.2, pairs=4000)
    assert value.shape == (2, 1, 2)
    weight = torch.tensor([1.0, -3.0])
    slope = torch.autograd.grad((value * weight).sum(), x)[0]
    expected = torch.autograd.grad((function(x) * weight).sum(), x)[0]
    assert torch.allclose(slope, expected, atol=0.1)
    alone = torch.autograd.grad(smoothed(function, x, seed=0, sigma=0.2, pairs=4000)[0, 0, 0], x)[0]
    assert float(alone[1].abs().max()) == 0.0
    assert smoothed(function, x_one, seed=0, sigma=0.2).shape == (1, 1, 2)


def test_seeds_decide():
    options = {"sigma": 0.3, "pairs": 8}
    first, again, other = (gradient(lambda rows: rows.sign().sum(1), random(2, 3), seed=s, **options) for s in (1, 1, 2))
    assert torch.equal(first[1], again[1]) and not torch.equal(first[1], other[1])


def test_descent_through_a_count():
    # the number of points inside a box, as a function of its size, until half of them are
    points = random(500, 2)
    size = torch.tensor([[2.0]])
    for step in range(60):
        _, slope = gradient(
            lambda rows: ((points.abs().amax(1) < rows).float().mean(1) - 0.5) ** 2, size, seed=step, sigma=0.1, pairs=32
        )
        size = size - slope
    assert float((points.abs().amax(1) < size).float().mean()) == pytest.approx(0.5, abs=0.05)


def test_a_stage_of_kernels_as_black_box():
    target, shape = random(1, 40, 3, seed=1), random(1, 30, 3, seed=2)
    offset = torch.tensor([[0.5, 0.0, -1.0]])
    _, slope = gradient(
        lambda rows: chamfer(shape + rows[:, None], target, squared=True), offset, seed=3, sigma=0.02, pairs=200
    )
    direct = offset.clone().requires_grad_()
    expected = torch.autograd.grad(chamfer(shape + direct[:, None], target, squared=True).sum(), direct)[0]
    assert torch.allclose(slope, expected, rtol=0.1, atol=0.1)


def test_replaced_gradient_reaches_the_weights_of_the_stand_in():
    stand_in = torch.nn.Linear(3, 1)
    x = random(4, 3).requires_grad_()
    value = replaced_gradient(lambda v: v.sum(1, keepdim=True).round(), stand_in, x)
    value.sum().backward()
    assert torch.equal(value.detach(), x.detach().sum(1, keepdim=True).round())
    assert torch.allclose(x.grad, stand_in.weight.detach().expand(4, 3)) and stand_in.weight.grad is not None
    with pytest.raises(UserError, match="one shape"):
        replaced_gradient(lambda v: v.sum(1), stand_in, x)


def test_bad_input_is_named():
    x = torch.zeros(1, 2, requires_grad=True)

    def total(rows):
        return rows.sum(1)

    for name, call in {
        r"sigma: expected a positive": lambda: smoothed(total, x, seed=0, sigma=0.0),
        r"pairs: expected at least 2": lambda: smoothed(total, x, seed=0, sigma=1.0, pairs=1),
        r"seed": lambda: smoothed(total, x, seed=-1, sigma=1.0),
        r"function: expected 128 rows": lambda: smoothed(lambda rows: rows.sum(), x, seed=0, sigma=1.0),
        r"function: expected finite": lambda: smoothed(lambda rows: rows[:, 0].sqrt(), x, seed=0, sigma=1.0),
        r"x: expected": lambda: smoothed(total, torch.zeros(0, 2), seed=0, sigma=1.0),
        r"width": lambda: soft_occupancy(x, -1.0),
        r"soft_max\.temperature": lambda: soft_max(x, 0.0),
        r"soft_min\.temperature": lambda: soft_min(x, float("nan")),
    }.items():
        with pytest.raises(UserError, match=name):
            call()
    with pytest.raises(Unsupported, match="sigma"):
        smoothed(total, x, seed=0, sigma=torch.tensor(1.0, requires_grad=True))


def test_a_second_derivative_raises():
    x = torch.zeros(1, 2, requires_grad=True)
    slope = torch.autograd.grad(smoothed(lambda rows: rows.sum(1), x, seed=0, sigma=1.0).sum(), x, create_graph=True)[0]
    with pytest.raises(RuntimeError):
        slope.sum().backward()
