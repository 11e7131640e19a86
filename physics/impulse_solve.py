r"""Impulses of contacts that act at once: a small cone problem a world, solved in double precision, and its adjoint.

With the impulses p, the relative velocities u = u0 + W p, W = J M^-1 J^T, the normals n and the demanded normal velocity b:

    0 <= p_n  and  u_n - b + eps_n p_n >= 0, one of them zero;   |p_t| <= mu p_n, p_t against u_t + eps_t p_t where it slides

as the natural map with a length r a contact, y = p_n - r (u_n - b + eps_n p_n), z = p_t - r (u_t + eps_t p_t):

    off    y <= 0         p = 0
    stick  |z| <= mu p_n  u_n - b + eps_n p_n = 0,   u_t + eps_t p_t = 0
    slide  otherwise      u_n - b + eps_n p_n = 0,   p_t = mu p_n z / |z|

(Alart and Curnier, "A mixed formulation for frictional contact problems prone to Newton like solution methods", 1991). The
small compliance eps makes the impulses of redundant contacts (four corners of a box) unique. Projected Gauss-Seidel sweeps
give the active set, Newton's method on it the solution; where Newton's method fails, more sweeps follow. The adjoint is taken
at the solution on its active set (implicit function theorem): N^T k = g with N = dF/dp + dF/du W. Nothing is unrolled.
"""

import warp as wp

STICK = wp.constant(1)  # 0: off, 2: slide
# scalars of a contact: 0 demanded normal velocity b, 1 friction mu, 2 eps_n, 3 eps_t, 4 r


@wp.func
def row(state: int, u: wp.vec3, p: wp.vec3, n: wp.vec3, b: float, mu: float, eps_n: float, eps_t: float, r: float):
    """F of one contact that is not off, [m/s]."""
    un = wp.dot(n, u)
    pn = wp.dot(n, p)
    drag = (u - n * un) + (p - n * pn) * eps_t
    out = n * (un - b + eps_n * pn)
    if state == STICK:
        out = out + drag
    else:
        pt = p - n * pn
        z = pt - drag * r
        square = wp.dot(z, z)
        if square > 1.0e-30:
            pt = pt - z * (mu * pn / wp.sqrt(square))
        out = out + pt / r
    return out


_COMMON = """
    const int m = count, d = 3 * count, S = coupling.shape[1], C = S / 3;
    const double* W = coupling.data + (size_t)w * S * S;
    double* B = matrix.data + (size_t)w * S * S;
    const double* normal = normals.data + (size_t)w * S;
    const double* scalar = scalars.data + (size_t)w * C * 5;
    double* P = impulses.data + (size_t)w * S;
    int* state = states.data + (size_t)w * C;
    double* u = vectors.data + (size_t)w * 3 * S;
    double* F = u + S;
    auto larger = [](double a, double b) { return a > b ? a : b; };

    // dF/dp and dF/du of contact c, (3, 3) each
    auto slopes = [&](int c, double* dp, double* du) {
        const double *n = normal + 3 * c, *q = scalar + 5 * c, *p = P + 3 * c, *v = u + 3 * c;
        const double un = v[0] * n[0] + v[1] * n[1] + v[2] * n[2];
        const double pn = p[0] * n[0] + p[1] * n[1] + p[2] * n[2];
        double z[3] = {0.0, 0.0, 0.0}, size = 0.0;
        for (int k = 0; k < 3; ++k) {
            const double t = p[k] - n[k] * pn;
            z[k] = t - q[4] * (v[k] - n[k] * un + q[3] * t);
            size += z[k] * z[k];
        }
        size = sqrt(size);
        const double part = size > 1e-15 ? 1.0 / size : 0.0;
        for (int i = 0; i < 3; ++i)
            for (int j = 0; j < 3; ++j) {
                const double nij = n[i] * n[j], t = (i == j) - nij;
                if (state[c] == 0) {
                    dp[3 * i + j] = (i == j) / q[4];
                    du[3 * i + j] = 0.0;
                } else if (state[c] == 1) {
                    dp[3 * i + j] = nij * q[2] + t * q[3];
                    du[3 * i + j] = (i == j);
                } else {
                    const double bend = q[1] * pn * part * (t - z[i] * z[j] * part * part);
                    dp[3 * i + j] = nij * q[2] + (t - q[1] * part * z[i] * n[j] - bend * (1.0 - q[4] * q[3])) / q[4];
                    du[3 * i + j] = nij + bend;
                }
            }
    };
    auto velocities = [&](const double* u0) {
        for (int i = 0; i < d; ++i) {
            const double* line = W + (size_t)i * S;
            double sum = u0[i];
            for (int j = 0; j < d; ++j) sum += line[j] * P[j];
            u[i] = sum;
        }
    };
    // x becomes B^-1 x
    auto eliminate = [&](double* x) {
        for (int k = 0; k < d; ++k) {
            int best = k;
            for (int i = k + 1; i < d; ++i)
                if (fabs(B[(size_t)i * S + k]) > fabs(B[(size_t)best * S + k])) best = i;
            if (best != k) {
                for (int j = k; j < d; ++j) {
                    const double t = B[(size_t)k * S + j];
                    B[(size_t)k * S + j] = B[(size_t)best * S + j];
                    B[(size_t)best * S + j] = t;
                }
                const double t = x[k]; x[k] = x[best]; x[best] = t;
            }
            const double pivot = 1.0 / B[(size_t)k * S + k];
            for (int i = k + 1; i < d; ++i) {
                const double ratio = B[(size_t)i * S + k] * pivot;
                if (ratio != 0.0) {
                    for (int j = k + 1; j < d; ++j) B[(size_t)i * S + j] -= ratio * B[(size_t)k * S + j];
                    x[i] -= ratio * x[k];
                }
            }
        }
        for (int i = d - 1; i >= 0; --i) {
            double sum = x[i];
            for (int j = i + 1; j < d; ++j) sum -= B[(size_t)i * S + j] * x[j];
            x[i] = sum / B[(size_t)i * S + i];
        }
    };
"""


@wp.func_native(
    _COMMON
    + """    const double* u0 = start.data + (size_t)w * S;
    double* Q = F + S;
    double scale = 1e-9;
    for (int c = 0; c < m; ++c) scale = larger(scale, fabs(scalar[5 * c]));
    for (int i = 0; i < d; ++i) {
        scale = larger(scale, fabs(u0[i]));
        P[i] = 0.0;
    }
    // states and F, of the velocities as they are; returns the largest F, relative
    auto judge = [&]() {
        double largest = 0.0;
        for (int c = 0; c < m; ++c) {
            const double *n = normal + 3 * c, *q = scalar + 5 * c, *p = P + 3 * c, *v = u + 3 * c;
            double* f = F + 3 * c;
            const double un = v[0] * n[0] + v[1] * n[1] + v[2] * n[2];
            const double pn = p[0] * n[0] + p[1] * n[1] + p[2] * n[2];
            const double gap = un - q[0] + q[2] * pn;
            double z[3], drag[3], size = 0.0;
            for (int k = 0; k < 3; ++k) {
                const double t = p[k] - n[k] * pn;
                drag[k] = v[k] - n[k] * un + q[3] * t;
                z[k] = t - q[4] * drag[k];
                size += z[k] * z[k];
            }
            size = sqrt(size);
            if (pn - q[4] * gap <= 0.0) {
                state[c] = 0;
                for (int k = 0; k < 3; ++k) f[k] = p[k] / q[4];
            } else {
                const double limit = q[1] * (pn > 0.0 ? pn : 0.0);
                state[c] = limit > 0.0 && size <= limit ? 1 : 2;
                for (int k = 0; k < 3; ++k) {
                    f[k] = n[k] * gap + drag[k];
                    if (state[c] == 2)
                        f[k] = n[k] * gap + (p[k] - n[k] * pn - (size > 1e-15 ? z[k] / size : 0.0) * q[1] * pn) / q[4];
                }
            }
            for (int k = 0; k < 3; ++k) largest = larger(largest, fabs(f[k]));
        }
        return largest / scale;
    };
    for (int round = 0; round < 16; ++round) {
        for (int sweep = 0; sweep < 25; ++sweep) {
            double change = 0.0;
            for (int c = 0; c < m; ++c) {
                const double *n = normal + 3 * c, *q = scalar + 5 * c;
                double* p = P + 3 * c;
                double v[3], a[3], old[3], z[3];
                for (int k = 0; k < 3; ++k) {
                    const double* line = W + (size_t)(3 * c + k) * S;
                    double sum = u0[3 * c + k];
                    for (int j = 0; j < d; ++j) sum += line[j] * P[j];
                    v[k] = sum;
                    a[k] = line[3 * c] * n[0] + line[3 * c + 1] * n[1] + line[3 * c + 2] * n[2];
                    old[k] = p[k];
                }
                const double un = v[0] * n[0] + v[1] * n[1] + v[2] * n[2];
                const double pn = p[0] * n[0] + p[1] * n[1] + p[2] * n[2];
                const double ann = a[0] * n[0] + a[1] * n[1] + a[2] * n[2];
                const double next = larger(0.0, pn - (un - q[0] + q[2] * pn) / (ann + q[2]));
                for (int k = 0; k < 3; ++k) v[k] += a[k] * (next - pn);
                const double along = v[0] * n[0] + v[1] * n[1] + v[2] * n[2];
                double size = 0.0;
                for (int k = 0; k < 3; ++k) {
                    const double t = p[k] - n[k] * pn;
                    z[k] = t - q[4] * (v[k] - n[k] * along + q[3] * t);
                    size += z[k] * z[k];
                }
                size = sqrt(size);
                const double limit = q[1] * next;
                const double part = size > limit ? limit / size : 1.0;
                for (int k = 0; k < 3; ++k) {
                    p[k] = n[k] * next + z[k] * part;
                    change = larger(change, fabs(p[k] - old[k]) / q[4]);
                }
            }
            if (change < 1e-10 * scale) break;
        }
        for (int i = 0; i < d; ++i) Q[i] = P[i];
        for (int step = 0; step < 10; ++step) {
            velocities(u0);
            const double left = judge();
            if (left < 1e-11) return left;
            if (!(left < 1e6)) break;
            for (int c = 0; c < m; ++c) {
                double dp[9], du[9];
                slopes(c, dp, du);
                for (int i = 0; i < 3; ++i)
                    for (int j = 0; j < d; ++j) {
                        double sum = j / 3 == c ? dp[3 * i + j % 3] : 0.0;
                        for (int k = 0; k < 3; ++k) sum += du[3 * i + k] * W[(size_t)(3 * c + k) * S + j];
                        B[(size_t)(3 * c + i) * S + j] = sum;
                    }
            }
            eliminate(F);
            for (int i = 0; i < d; ++i) P[i] -= F[i];
        }
        for (int i = 0; i < d; ++i) P[i] = Q[i];
    }
    velocities(u0);
    return judge();
"""
)
def cone_impulses(
    w: int,
    count: int,
    coupling: wp.array3d(dtype=wp.float64),
    normals: wp.array2d(dtype=wp.float64),
    scalars: wp.array3d(dtype=wp.float64),
    start: wp.array2d(dtype=wp.float64),
    impulses: wp.array2d(dtype=wp.float64),
    states: wp.array2d(dtype=int),
    matrix: wp.array3d(dtype=wp.float64),
    vectors: wp.array3d(dtype=wp.float64),
) -> wp.float64:  # type: ignore[empty-body]
    """The impulses, the states (0 off, 1 stick, 2 slide) and the largest residual, relative to the velocities.

    By world, contacts one after the other: coupling W (3 C, 3 C), normals (3 C), scalars (C, 5), start u0 (3 C); work: matrix
    (3 C, 3 C), vectors (3, 3 C).
    """
    ...


@wp.func_native(
    _COMMON
    + """    double* k = right.data + (size_t)w * S;
    for (int c = 0; c < m; ++c) {
        double dp[9], du[9];
        slopes(c, dp, du);
        for (int i = 0; i < 3; ++i)
            for (int j = 0; j < d; ++j) {
                double sum = j / 3 == c ? dp[3 * i + j % 3] : 0.0;
                for (int l = 0; l < 3; ++l) sum += du[3 * i + l] * W[(size_t)(3 * c + l) * S + j];
                B[(size_t)j * S + 3 * c + i] = sum;  // transposed
            }
    }
    eliminate(k);
    for (int c = 0; c < m; ++c) {
        double dp[9], du[9];
        slopes(c, dp, du);
        for (int j = 0; j < 3; ++j) {
            F[3 * c + j] = 0.0;
            for (int i = 0; i < 3; ++i) F[3 * c + j] += du[3 * i + j] * k[3 * c + i];
        }
    }
"""
)
def cone_multipliers(
    w: int,
    count: int,
    coupling: wp.array3d(dtype=wp.float64),
    normals: wp.array2d(dtype=wp.float64),
    scalars: wp.array3d(dtype=wp.float64),
    start: wp.array2d(dtype=wp.float64),
    impulses: wp.array2d(dtype=wp.float64),
    states: wp.array2d(dtype=int),
    matrix: wp.array3d(dtype=wp.float64),
    vectors: wp.array3d(dtype=wp.float64),
    right: wp.array2d(dtype=wp.float64),
):
    """right g becomes k with N^T k = g, and vectors[w, 1] becomes (dF/du)^T k, at the impulses and states given
    and the velocities in vectors[w, 0]."""
    ...


@wp.func_native("""
    const int n = count;
    double* a = matrix.data + (size_t)w * matrix.shape[1] * matrix.shape[1];
    for (int j = 0; j < n; ++j) {
        double sum = a[j * n + j];
        for (int k = 0; k < j; ++k) sum -= a[j * n + k] * a[j * n + k];
        const double pivot = sqrt(sum);
        a[j * n + j] = pivot;
        for (int i = j + 1; i < n; ++i) {
            double value = a[i * n + j];
            for (int k = 0; k < j; ++k) value -= a[i * n + k] * a[j * n + k];
            a[i * n + j] = value / pivot;
        }
    }
""")
def cholesky(w: int, count: int, matrix: wp.array3d(dtype=wp.float64)):
    """The lower triangle of matrix[w], symmetric and positive definite, becomes its Cholesky factor."""
    ...


@wp.func_native("""
    const int n = count;
    const double* a = matrix.data + (size_t)w * matrix.shape[1] * matrix.shape[1];
    double* x = vectors.data + ((size_t)w * vectors.shape[1] + index) * vectors.shape[2];
    for (int i = 0; i < n; ++i) {
        double sum = x[i];
        for (int k = 0; k < i; ++k) sum -= a[i * n + k] * x[k];
        x[i] = sum / a[i * n + i];
    }
    for (int i = n - 1; i >= 0; --i) {
        double sum = x[i];
        for (int k = i + 1; k < n; ++k) sum -= a[k * n + i] * x[k];
        x[i] = sum / a[i * n + i];
    }
""")
def cholesky_solve(w: int, count: int, matrix: wp.array3d(dtype=wp.float64), vectors: wp.array3d(dtype=wp.float64), index: int):
    """vectors[w, index] becomes the solution with the factor."""
    ...
