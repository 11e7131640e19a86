r"""LU factors of one small dense matrix a world and node, and the two solutions with them: A x = b and A^T x = -g.

Without pivoting: A is a mass matrix plus what damping, springs and contacts add, whose symmetric part is positive definite
(Golub and Van Loan, "Matrix Computations", 2013, 4.1.3 and 4.2). The unit lower triangle and the upper one share the place of
A, with the inverses of the pivots on the diagonal. Zeros, of which branched trees have many, are passed over. The loops are
plain C over rows, which compilers turn into vector instructions; arrays must be whole (not strided). Without gradient.
"""

import warp as wp


@wp.func_native("""
    const int n = matrix.shape[1];
    const float* row = matrix.data + ((size_t)w * n + i) * n;
    const float* x = vectors.data + ((size_t)w * vectors.shape[1] + s) * n;
    float a = 0.0f, b = 0.0f, c = 0.0f, d = 0.0f;
    int j = 0;
    for (; j + 4 <= n; j += 4) {
        a += row[j] * x[j];
        b += row[j + 1] * x[j + 1];
        c += row[j + 2] * x[j + 2];
        d += row[j + 3] * x[j + 3];
    }
    for (; j < n; ++j) a += row[j] * x[j];
    return (a + b) + (c + d);
""")
def row_times(matrix: wp.array3d(dtype=float), vectors: wp.array3d(dtype=float), w: int, s: int, i: int) -> float:  # type: ignore[empty-body]
    """Row i of matrix[w] times vectors[w, s]."""
    ...


@wp.func_native("""
    const int n = matrix.shape[1];
    const size_t size = (size_t)n * n;
    const float* from = matrix.data + (size_t)w * size;
    float* to = factors.data + ((size_t)w * factors.shape[1] + s) * size;
    for (size_t k = 0; k < size; ++k) to[k] = from[k];
""")
def copy_matrix(matrix: wp.array3d(dtype=float), w: int, s: int, factors: wp.array4d(dtype=float)):
    """factors[w, s] = matrix[w]."""
    ...


@wp.func_native("""
    const int n = count;
    float* a = factors.data + ((size_t)w * factors.shape[1] + s) * n * n;
    for (int k = 0; k < n; ++k) {
        const float* top = a + (size_t)k * n;
        const float pivot = 1.0f / top[k];
        a[(size_t)k * n + k] = pivot;
        for (int i = k + 1; i < n; ++i) {
            float* row = a + (size_t)i * n;
            const float ratio = row[k] * pivot;
            if (ratio != 0.0f) {
                row[k] = ratio;
                for (int j = k + 1; j < n; ++j) row[j] -= ratio * top[j];
            }
        }
    }
""")
def factorise(w: int, s: int, count: int, factors: wp.array4d(dtype=float)):
    """factors[w, s], a matrix, in place."""
    ...


@wp.func_native("""
    const int n = count;
    const float* a = factors.data + ((size_t)w * factors.shape[1] + s) * n * n;
    float* x = right.data + (size_t)w * n;
    for (int i = 0; i < n; ++i) {
        const float* row = a + (size_t)i * n;
        float p = x[i], q = 0.0f;
        int j = 0;
        for (; j + 2 <= i; j += 2) {
            p -= row[j] * x[j];
            q -= row[j + 1] * x[j + 1];
        }
        for (; j < i; ++j) p -= row[j] * x[j];
        x[i] = p + q;
    }
    for (int i = n - 1; i >= 0; --i) {
        const float* row = a + (size_t)i * n;
        float p = x[i], q = 0.0f;
        int j = i + 1;
        for (; j + 2 <= n; j += 2) {
            p -= row[j] * x[j];
            q -= row[j + 1] * x[j + 1];
        }
        for (; j < n; ++j) p -= row[j] * x[j];
        x[i] = (p + q) * row[i];
    }
""")
def solve(w: int, s: int, count: int, factors: wp.array4d(dtype=float), right: wp.array2d(dtype=float)):
    """right[w] becomes the solution x of A x = right."""
    ...


@wp.func_native("""
    const int n = count;
    const float* a = factors.data + ((size_t)w * factors.shape[1] + s) * n * n;
    float* x = right.data + (size_t)w * n;
    for (int i = 0; i < n; ++i) {
        const float* row = a + (size_t)i * n;
        const float value = x[i] * row[i];
        x[i] = value;
        for (int j = i + 1; j < n; ++j) x[j] -= row[j] * value;
    }
    for (int i = n - 1; i >= 0; --i) {
        const float* row = a + (size_t)i * n;
        const float value = x[i];
        for (int j = 0; j < i; ++j) x[j] -= row[j] * value;
    }
""")
def solve_transposed(w: int, s: int, count: int, factors: wp.array4d(dtype=float), right: wp.array2d(dtype=float)):
    """right[w] becomes the solution x of A^T x = right."""
    ...


@wp.kernel(enable_backward=False)
def transpose_solve_kernel(
    factors: wp.array4d(dtype=float),
    gradients: wp.array3d(dtype=float),
    s: int,
    multipliers: wp.array2d(dtype=float),
):
    """multipliers = -A^-T gradients[:, s]."""
    w = wp.tid()
    count = multipliers.shape[1]
    for i in range(count):
        multipliers[w, i] = -gradients[w, s, i]
    solve_transposed(w, s, count, factors, multipliers)
