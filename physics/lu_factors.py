r"""LU factors of one small dense matrix a world and node, and the two solutions with them: A x = b and A^T x = -g.

Without pivoting: A is a mass matrix plus what damping, springs and contacts add, whose symmetric part is positive definite
(Golub and Van Loan, "Matrix Computations", 2013, 4.1.3 and 4.2). The unit lower triangle and the upper one share the place of A, with
the inverses of the pivots on the diagonal. Zeros, of which branched trees have many, are passed over. Without gradient.
"""

import warp as wp


@wp.func
def factorise(w: int, s: int, count: int, factors: wp.array4d(dtype=float)):
    """LU in place, unit lower triangle, the pivots' inverses on the diagonal; zeros of branched trees are passed over."""
    for k in range(count):
        pivot = 1.0 / factors[w, s, k, k]
        factors[w, s, k, k] = pivot
        for i in range(k + 1, count):
            ratio = factors[w, s, i, k] * pivot
            if ratio != 0.0:
                factors[w, s, i, k] = ratio
                for j in range(k + 1, count):
                    factors[w, s, i, j] = factors[w, s, i, j] - ratio * factors[w, s, k, j]


@wp.func
def solve(w: int, s: int, count: int, factors: wp.array4d(dtype=float), right: wp.array2d(dtype=float)):
    """A x = right, in place."""
    for i in range(count):
        value = right[w, i]
        for j in range(i):
            value -= factors[w, s, i, j] * right[w, j]
        right[w, i] = value
    for k in range(count):
        i = count - 1 - k
        value = right[w, i]
        for j in range(i + 1, count):
            value -= factors[w, s, i, j] * right[w, j]
        right[w, i] = value * factors[w, s, i, i]


@wp.kernel(enable_backward=False)
def transpose_solve_kernel(
    factors: wp.array4d(dtype=float),
    gradients: wp.array3d(dtype=float),
    s: int,
    multipliers: wp.array2d(dtype=float),
):
    """multipliers = -A^-T gradients[:, s], by the factors: U^T y = g, L^T x = y."""
    w = wp.tid()
    count = multipliers.shape[1]
    for i in range(count):
        multipliers[w, i] = -gradients[w, s, i]
    for i in range(count):
        value = multipliers[w, i] * factors[w, s, i, i]
        multipliers[w, i] = value
        if value != 0.0:
            for j in range(i + 1, count):
                multipliers[w, j] = multipliers[w, j] - factors[w, s, i, j] * value
    for k in range(count):
        i = count - 1 - k
        value = multipliers[w, i]
        if value != 0.0:
            for j in range(i):
                multipliers[w, j] = multipliers[w, j] - factors[w, s, i, j] * value
