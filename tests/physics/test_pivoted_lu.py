"""Pivoted LU: solutions with A and its transpose against NumPy."""

import numpy as np
import pytest
import warp as wp

from physics.pivoted_lu import pivoted_factorise, pivoted_multiplier_kernel, pivoted_solve

wp.init()


@wp.kernel(enable_backward=False)
def solve_kernel(factors: wp.array4d(dtype=float), order: wp.array3d(dtype=int), right: wp.array2d(dtype=float)):
    w = wp.tid()
    count = right.shape[1]
    pivoted_factorise(w, 1, count, factors, order)
    pivoted_solve(w, 1, count, factors, order, right)


@pytest.mark.parametrize("count", [1, 2, 6, 17])
def test_solutions_agree_with_numpy_where_leading_pivots_vanish(count):
    rng = np.random.default_rng(count)
    a = rng.normal(size=(3, 2, count, count)).astype(np.float32)
    if count > 1:
        a[:, :, 0, 0] = 0.0
    b = rng.normal(size=(3, count)).astype(np.float32)
    factors = wp.array(a, dtype=float, device="cpu")
    order = wp.zeros((3, 2, count), dtype=int, device="cpu")
    right = wp.array(b, dtype=float, device="cpu")
    wp.launch(solve_kernel, 3, [factors, order, right], device="cpu")
    gradients = np.stack([np.zeros_like(b), b], axis=1)
    multipliers = wp.zeros((3, count), dtype=float, device="cpu")
    wp.launch(
        pivoted_multiplier_kernel, 3, [factors, order, wp.array(gradients, dtype=float, device="cpu"), 1], [multipliers],
        device="cpu",
    )  # fmt: skip
    for w in range(3):
        exact = a[w, 1].astype(np.float64)
        scale = 1e-5 * np.linalg.cond(exact)
        for got, want in (
            (right.numpy()[w], np.linalg.solve(exact, b[w])),
            (multipliers.numpy()[w], -np.linalg.solve(exact.T, b[w])),
        ):
            assert np.abs(got - want).max() < scale * np.abs(want).max()
