"""Functions keep their reverse where forward code has called them first."""

import pytest
import warp as wp

from render.reversible import reversible


@reversible
@wp.func
def square(x: float):
    return x * x


@reversible
@wp.func
def through(x: float):
    return square(x) + x


@wp.func
def weighted(x: float, weight: float):
    return weight * through(x)


@wp.kernel(enable_backward=False)
def call_then_differentiate(x: wp.array(dtype=float), out: wp.array(dtype=float)):
    # in one kernel: Warp builds kernels in the order of their hashes
    out[0] = through(x[0]) + square(x[0])
    by_x, by_weight = wp.grad(weighted)(x[0], 3.0)
    out[1] = by_x
    out[2] = by_weight


def test_the_gradient_of_a_function_that_was_called_before() -> None:
    x, out = wp.array([2.0], dtype=float, device="cpu"), wp.zeros(3, dtype=float, device="cpu")
    wp.launch(call_then_differentiate, 1, [x], [out], device="cpu")
    assert out.numpy().tolist() == pytest.approx([10.0, 15.0, 6.0])


def test_another_warp_is_noticed() -> None:
    class Function:
        adj = object()

    with pytest.raises(RuntimeError, match="force_adjoint_codegen"):
        reversible(Function())
