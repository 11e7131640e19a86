r"""LU factors with row pivoting of one small dense matrix a world and node, and the solutions of A x = b and A^T x = b.

For steps with contact: sliding friction makes A so unsymmetric that `physics.lu_factors`, which takes pivots as they come, may
meet one near zero. P A = L U; the unit lower triangle and the upper one share a place, inverses of the pivots on the diagonal;
`order` holds the row that was brought to each place (Golub and Van Loan, "Matrix Computations", 2013, 3.4). Loops in plain C;
without gradient.
"""

import warp as wp


@wp.func_native("""
    const int n = count;
    float* a = factors.data + ((size_t)w * factors.shape[1] + s) * n * n;
    int* p = order.data + ((size_t)w * order.shape[1] + s) * n;
    for (int k = 0; k < n; ++k) {
        int best = k;
        float size = fabsf(a[(size_t)k * n + k]);
        for (int i = k + 1; i < n; ++i) {
            const float other = fabsf(a[(size_t)i * n + k]);
            if (other > size) { size = other; best = i; }
        }
        p[k] = best;
        if (best != k)
            for (int j = 0; j < n; ++j) {
                const float t = a[(size_t)k * n + j];
                a[(size_t)k * n + j] = a[(size_t)best * n + j];
                a[(size_t)best * n + j] = t;
            }
        const float* top = a + (size_t)k * n;
        const float pivot = 1.0f / top[k];
        a[(size_t)k * n + k] = pivot;
        for (int i = k + 1; i < n; ++i) {
            float* row = a + (size_t)i * n;
            const float ratio = row[k] * pivot;
            row[k] = ratio;
            if (ratio != 0.0f)
                for (int j = k + 1; j < n; ++j) row[j] -= ratio * top[j];
        }
    }
""")
def pivoted_factorise(w: int, s: int, count: int, factors: wp.array4d(dtype=float), order: wp.array3d(dtype=int)):
    """factors[w, s], a matrix, in place."""
    ...


@wp.func_native("""
    const int n = count;
    const float* a = factors.data + ((size_t)w * factors.shape[1] + s) * n * n;
    const int* p = order.data + ((size_t)w * order.shape[1] + s) * n;
    float* x = right.data + (size_t)w * n;
    for (int i = 0; i < n; ++i) {
        const float t = x[p[i]];
        x[p[i]] = x[i];
        x[i] = t;
    }
    for (int i = 0; i < n; ++i) {
        float sum = x[i];
        for (int j = 0; j < i; ++j) sum -= a[(size_t)i * n + j] * x[j];
        x[i] = sum;
    }
    for (int i = n - 1; i >= 0; --i) {
        float sum = x[i];
        for (int j = i + 1; j < n; ++j) sum -= a[(size_t)i * n + j] * x[j];
        x[i] = sum * a[(size_t)i * n + i];
    }
""")
def pivoted_solve(
    w: int, s: int, count: int, factors: wp.array4d(dtype=float), order: wp.array3d(dtype=int), right: wp.array2d(dtype=float)
):
    """right[w] becomes the solution x of A x = right."""
    ...


@wp.func_native("""
    const int n = count;
    const float* a = factors.data + ((size_t)w * factors.shape[1] + s) * n * n;
    const int* p = order.data + ((size_t)w * order.shape[1] + s) * n;
    float* x = right.data + (size_t)w * n;
    for (int i = 0; i < n; ++i) {
        x[i] *= a[(size_t)i * n + i];
        const float value = x[i];
        for (int j = i + 1; j < n; ++j) x[j] -= a[(size_t)i * n + j] * value;
    }
    for (int i = n - 1; i >= 0; --i) {
        const float value = x[i];
        for (int j = 0; j < i; ++j) x[j] -= a[(size_t)i * n + j] * value;
    }
    for (int i = n - 1; i >= 0; --i) {
        const float t = x[p[i]];
        x[p[i]] = x[i];
        x[i] = t;
    }
""")
def pivoted_solve_transposed(
    w: int, s: int, count: int, factors: wp.array4d(dtype=float), order: wp.array3d(dtype=int), right: wp.array2d(dtype=float)
):
    """right[w] becomes the solution x of A^T x = right."""
    ...


@wp.kernel(enable_backward=False)
def pivoted_multiplier_kernel(
    factors: wp.array4d(dtype=float),
    order: wp.array3d(dtype=int),
    gradients: wp.array3d(dtype=float),
    s: int,
    multipliers: wp.array2d(dtype=float),
):
    """multipliers = -A^-T gradients[:, s]."""
    w = wp.tid()
    count = multipliers.shape[1]
    for i in range(count):
        multipliers[w, i] = -gradients[w, s, i]
    pivoted_solve_transposed(w, s, count, factors, order, multipliers)
