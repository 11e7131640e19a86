"""The certificate: wrong gradients fail, right ones pass, kinks are excluded and counted."""

import math

import pytest
import torch
import warp as wp
from torch import nn

from dvc import Parameter, Pipeline
from dvc.gradient_check import (
    STEPS,
    CheckRow,
    certified,
    check_parameters,
    check_weights,
    compare,
    format_table,
    gradient_check,
)
from dvc.losses import Objective, Term
from dvc.warp_op import scratch, warp_op


def differences(function, at: float, rounding: float = 0.0) -> list[float]:
    """Central differences, in float64 but for a rounding error of alternating sign."""
    return [(function(at + h) - function(at - h)) / (2 * h) + (-1) ** i * rounding / h for i, h in enumerate(STEPS)]


FUNCTIONS = {
    "sine": (math.sin, math.cos),
    "cube": (lambda x: x**3, lambda x: 3 * x * x),
    "line": (lambda x: 40.0 * x, lambda x: 40.0),
}


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("factor", [1.0, 1.005])
def test_right_gradients_pass(name, factor):
    f, slope = FUNCTIONS[name]
    row = compare(factor * slope(0.7), differences(f, 0.7), STEPS, abs(f(0.7)), "x", "op")
    assert row.passed and row.error < 0.02 and not row.note


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("factor", [1.05, 0.95, 0.5, -1.0, 0.0, math.nan, math.inf])
def test_wrong_gradients_fail(name, factor):
    f, slope = FUNCTIONS[name]
    row = compare(factor * slope(0.7), differences(f, 0.7), STEPS, abs(f(0.7)), "x", "op")
    assert not row.passed and not certified([row])


@pytest.mark.parametrize("factor", [1.05, -1.0, 0.0])
@pytest.mark.parametrize("scale", [1.0, 30.0, 300.0])
def test_noise_at_small_steps_does_not_let_a_wrong_gradient_pass(factor, scale):
    """The loss is much larger than its change: at h = 1e-4 anything would agree, at h = 1e-2 nothing but the right one."""
    numeric = differences(math.sin, 0.7, rounding=1e-7 * scale)
    assert compare(math.cos(0.7), numeric, STEPS, scale, "x", "op").passed
    assert not compare(factor * math.cos(0.7), numeric, STEPS, scale, "x", "op").passed


def test_zero_passes_only_where_the_differences_are_zero():
    row = compare(0.0, [1e-9, -2e-9, 1e-9, 0.0, 3e-8, -1e-7], STEPS, 1.0, "x", "op")
    assert row.passed and row.note == "zero, as are the differences"
    row = compare(0.0, [1e-2] * 6, STEPS, 1.0, "x", "op")
    assert not row.passed and "but the differences are not" in row.note


def test_what_is_not_smooth_is_excluded_and_counted():
    numeric = [50.0, -20.0, 300.0, 7.0, -900.0, 4000.0]
    row = compare(1.0, numeric, STEPS, 1.0, "x", "op")
    assert row.passed and row.note.startswith("excluded")
    good = compare(math.cos(0.7), differences(math.sin, 0.7), STEPS, 1.0, "y", "op")
    assert certified([row, good, good, good])
    assert not certified([row, row, good, good])  # half of them say nothing
    assert "1 excluded" in format_table([row, good, good, good]) and "25 %" in format_table([row, good, good, good])
    # not even excluded: a gradient that is not finite
    assert not compare(math.nan, numeric, STEPS, 1.0, "x", "op").passed


def test_table():
    rows = [
        CheckRow("length", "parameter", 1.0, 1.01, 0.01, 1e-3, True),
        CheckRow("mass", "op", 0.0, 1.0, 1.0, 1e-2, False, "why"),
    ]
    lines = format_table(rows).splitlines()
    assert len(lines) == 4 and "pass" in lines[1] and "FAIL (why)" in lines[2] and "2 gradients, 1 failed" in lines[3]
    assert certified([]) and format_table([])


# -- pipelines --------------------------------------------------------------------------------------------------------
@wp.kernel
def cubes(x: wp.array2d(dtype=float), out: wp.array2d(dtype=float)):
    i, j = wp.tid()
    out[i, j] = x[i, j] * x[i, j] * x[i, j]


@wp.kernel
def cubes_adjoint(
    x: wp.array2d(dtype=float), out_grad: wp.array2d(dtype=float), factor: float, x_grad: wp.array2d(dtype=float)
):
    i, j = wp.tid()
    x_grad[i, j] = x_grad[i, j] + factor * 3.0 * x[i, j] * x[i, j] * out_grad[i, j]


@warp_op
def cube(x: wp.array2d(dtype=float), *, factor: float):
    out = scratch(x.shape, float)
    wp.launch(cubes, x.shape, [x], [out])
    return out


@cube.adjoint
def _(inputs, outputs, *, factor):
    wp.launch(cubes_adjoint, inputs.x.shape, [inputs.x, outputs.grad, factor], [inputs.x.grad])


class Cube(nn.Module):
    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, a, b):
        return cube(torch.cat([a[:, None] * torch.ones(1, 3), b + 0.0 * a[:, None]], dim=1), factor=self.factor)


def cubic(factor: float) -> Pipeline:
    stages = {"a": Parameter(1.2, 0.1, 3.0), "b": Parameter([0.7, -0.6]), "idle": Parameter(1.0), "r": Cube(factor)}
    return Pipeline(stages, {"r": {"a": "a", "b": "b"}})


OBJECTIVE = Objective({"r": Term("r", robust=3.0)})


def test_every_element_of_every_parameter_of_a_pipeline():
    rows = check_parameters(cubic(1.0), OBJECTIVE, {})
    assert [r.name for r in rows] == ["a", "b[0]", "b[1]", "idle"] and certified(rows)
    assert rows[3].note == "zero, as are the differences"
    assert all(r.error < 0.01 for r in rows[:3])
    assert [r.passed for r in check_parameters(cubic(1.0), OBJECTIVE, {}, worlds_at_once=1)] == [True] * 4


@pytest.mark.parametrize("factor", [1.05, -1.0, 0.0, math.nan])
def test_a_wrong_adjoint_by_hand_fails(factor):
    rows = check_parameters(cubic(factor), OBJECTIVE, {})
    assert [r.passed for r in rows[:3]] == [False] * 3
    assert not certified(rows)
    op_rows = gradient_check(lambda x: cube(x, factor=factor), [torch.randn(2, 3).requires_grad_(True)], ["x"])
    assert [r.name for r in op_rows] == ["x"] and not certified(op_rows)


class StepFunction(nn.Module):
    def forward(self, a):
        return torch.floor(a * 1000.0)[:, None] + torch.sin(a * 1e4)[:, None]


def test_a_pipeline_that_jumps_is_not_certified():
    rows = check_parameters(
        Pipeline({"a": Parameter(1.2345), "r": StepFunction()}, {"r": {"a": "a"}}), Objective({"r": Term("r")}), {}
    )
    assert not certified(rows)


class Learned(nn.Module):
    def __init__(self, wrong: bool):
        super().__init__()
        self.wrong = wrong
        self.first, self.last = nn.Linear(2, 5), nn.Linear(5, 3)
        with torch.no_grad():
            for i, p in enumerate(self.parameters()):
                p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))

    def forward(self, b):
        hidden = torch.tanh(self.first(b))
        return self.last(hidden.detach() if self.wrong else hidden) + 2.0


@pytest.mark.parametrize("wrong", [False, True])
def test_weights(wrong):
    pipeline = Pipeline({"b": Parameter([0.7, -0.6]), "r": Learned(wrong)}, {"r": {"b": "b"}})
    before = {n: w.detach().clone() for n, w in pipeline.weights().items()}
    rows = check_weights(pipeline, OBJECTIVE, {}, torch.Generator().manual_seed(0))
    assert [r.name for r in rows] == ["r.first.weight", "r.first.bias", "r.last.weight", "r.last.bias"]
    assert [r.passed for r in rows] == [not wrong, not wrong, True, True]
    assert all(torch.equal(before[n], w) for n, w in pipeline.weights().items())


def test_ops_with_several_inputs_and_outputs():
    def function(x, index, y):
        return x[:, index] * y.exp(), x.sin().sum(1)

    inputs = [torch.randn(3, 4, requires_grad=True), torch.tensor([2]), torch.randn(3, 1, requires_grad=True)]
    rows = gradient_check(function, inputs, ["x", "index", "y"])
    assert [r.name for r in rows] == ["x", "y"] and certified(rows)
    blocked = gradient_check(lambda x: x.detach() * x, [torch.randn(3, 4, requires_grad=True)])
    assert [r.passed for r in blocked] == [False]
