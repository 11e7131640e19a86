r"""C++ text that the fused step of a tree begins with: numbers in lanes, one lane a world, and small geometry on them.

On the CPU a number is a vector of `LANES` floats (clang's vector extension) and a thread steps that many worlds at once: the
tree is the same in all, so that branches on it are too, and what differs (limits, actuators at their bound, Newton's method) is
a choice between lanes. On CUDA a number is one float and a thread one world. Work memory is laid out accordingly: lanes
together on the CPU, worlds together on CUDA.

    M, Q       rotation matrix by columns, quaternion (x, y, z, w)
    sine_cosine       Cody and Waite's reduction by pi/2 and minimax polynomials (Moshier, Cephes, sinf); 2 ulp up to 8192
    exponential, right_jacobian      of a rotation vector: Sola et al., "A micro Lie theory", 2018, eq. 143 and 144
"""

LANES = 8
COMPILER_FLAGS = "-march=native"  # without Warp's inlining threshold: as fast, and compiled in a third of the time

LANES_TEXT = """
#if defined(__clang__)
#pragma clang fp contract(fast)
#endif
#if defined(__CUDA_ARCH__)
    constexpr int L = 1;
    typedef float F;
    typedef int B;
    struct A {  // numbers in work memory
        float* data;
        size_t stride;
        CUDA_CALLABLE float& operator[](int k) const { return data[k * stride]; }
        CUDA_CALLABLE A operator+(int k) const { return {data + k * stride, stride}; }
    };
    auto any = [](B m) { return m != 0; };
    auto largest = [](F a, F b) -> F { return fmaxf(a, b); };
    auto least = [](F a, F b) -> F { return fminf(a, b); };
    auto absolute = [](F a) -> F { return fabsf(a); };
    auto root = [](F a) -> F { return sqrtf(a); };
    auto sine_cosine = [](F x, F& sine, F& cosine) { sine = sinf(x); cosine = cosf(x); };
#else
    constexpr int L = LANE_COUNT;
    typedef float F __attribute__((ext_vector_type(LANE_COUNT)));
    typedef int B __attribute__((ext_vector_type(LANE_COUNT)));
    struct A {
        F* data;
        F& operator[](int k) const { return data[k]; }
        A operator+(int k) const { return {data + k}; }
    };
    auto any = [](B m) { return __builtin_reduce_or(m) != 0; };
    auto largest = [](F a, F b) -> F { return __builtin_elementwise_max(a, b); };
    auto least = [](F a, F b) -> F { return __builtin_elementwise_min(a, b); };
    auto absolute = [](F a) -> F { return __builtin_elementwise_abs(a); };
    auto root = [](F a) -> F { return __builtin_elementwise_sqrt(a); };
    auto sine_cosine = [&](F x, F& sine, F& cosine) {
        const F turns = __builtin_elementwise_roundeven(x * 0.636619772f);
        const B n = __builtin_convertvector(turns, B);
        const F y = ((x - turns * 1.5703125f) - turns * 4.837512969970703e-4f) - turns * 7.549789948768648e-8f;
        const F z = y * y;
        const F s = y + y * z * (-1.6666654611e-1f + z * (8.3321608736e-3f - z * 1.9515295891e-4f));
        const F fourth = 4.166664568298827e-2f + z * (-1.388731625493765e-3f + z * 2.443315711809948e-5f);
        const F c = 1.0f - 0.5f * z + z * z * fourth;
        const B odd = (n & 1) != 0;
        const F first = odd ? c : s, second = odd ? s : c;
        sine = (n & 2) != 0 ? -first : first;
        cosine = ((n + 1) & 2) != 0 ? -second : second;
        if (!any((absolute(x) <= 8192.0f) == 0)) return;
        for (int l = 0; l < L; ++l) {
            if (absolute(x)[l] <= 8192.0f) continue;
            sine[l] = wp::sin((float)x[l]);
            cosine[l] = wp::cos((float)x[l]);
        }
    };
#endif
    auto each = [](float x) -> F { return F(x); };
    auto bounded = [&](F x, F low, F high) -> F { return least(largest(low, x), high); };
    auto arc = [](F y, F x) -> F {
        F angle;
        for (int l = 0; l < L; ++l) ((float*)&angle)[l] = wp::atan2(((float*)&y)[l], ((float*)&x)[l]);
        return angle;
    };
    struct V {
        F x, y, z;
        CUDA_CALLABLE V operator+(V b) const { return {x + b.x, y + b.y, z + b.z}; }
        CUDA_CALLABLE V operator-(V b) const { return {x - b.x, y - b.y, z - b.z}; }
        CUDA_CALLABLE V operator-() const { return {-x, -y, -z}; }
        CUDA_CALLABLE V operator*(F s) const { return {x * s, y * s, z * s}; }
        CUDA_CALLABLE void operator+=(V b) { x += b.x; y += b.y; z += b.z; }
    };
    struct Q {
        F x, y, z, w;
        CUDA_CALLABLE Q operator*(Q b) const {
            return {w * b.x + x * b.w + y * b.z - z * b.y, w * b.y - x * b.z + y * b.w + z * b.x,
                    w * b.z + x * b.y - y * b.x + z * b.w, w * b.w - x * b.x - y * b.y - z * b.z};
        }
        CUDA_CALLABLE Q turned_back() const { return {-x, -y, -z, w}; }
        CUDA_CALLABLE V vector() const { return {x, y, z}; }
    };
    struct M {
        V x, y, z;
        CUDA_CALLABLE V operator*(V v) const { return x * v.x + y * v.y + z * v.z; }
        CUDA_CALLABLE M operator*(M b) const { return {*this * b.x, *this * b.y, *this * b.z}; }
        CUDA_CALLABLE V back(V v) const {
            return {x.x * v.x + x.y * v.y + x.z * v.z, y.x * v.x + y.y * v.y + y.z * v.z, z.x * v.x + z.y * v.y + z.z * v.z};
        }
        CUDA_CALLABLE void add_outer(V a, V b) { x += a * b.x; y += a * b.y; z += a * b.z; }
    };
    struct S {  // symmetric
        F xx, yy, zz, yz, zx, xy;
        CUDA_CALLABLE V operator*(V v) const {
            return {xx * v.x + xy * v.y + zx * v.z, xy * v.x + yy * v.y + yz * v.z, zx * v.x + yz * v.y + zz * v.z};
        }
    };
    const F zero = each(0.0f), one = each(1.0f);
    const V nothing = {zero, zero, zero};
    auto dot = [](V a, V b) -> F { return a.x * b.x + a.y * b.y + a.z * b.z; };
    auto cross = [](V a, V b) -> V { return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x}; };
    auto vector_at = [](A p) -> V { return {p[0], p[1], p[2]}; };
    auto put_vector = [](A p, V v) { p[0] = v.x; p[1] = v.y; p[2] = v.z; };
    auto add_vector = [](A p, V v) { p[0] += v.x; p[1] += v.y; p[2] += v.z; };
    auto matrix_at = [&](A p) -> M { return {vector_at(p), vector_at(p + 3), vector_at(p + 6)}; };
    auto put_matrix = [&](A p, M m) { put_vector(p, m.x); put_vector(p + 3, m.y); put_vector(p + 6, m.z); };
    auto add_matrix = [&](A p, M m) { add_vector(p, m.x); add_vector(p + 3, m.y); add_vector(p + 6, m.z); };
    auto symmetric_at = [](A p) -> S { return {p[0], p[1], p[2], p[3], p[4], p[5]}; };
    auto put_symmetric = [](A p, S s) { p[0] = s.xx; p[1] = s.yy; p[2] = s.zz; p[3] = s.yz; p[4] = s.zx; p[5] = s.xy; };
    auto quaternion_at = [](A p) -> Q { return {p[0], p[1], p[2], p[3]}; };
    auto put_quaternion = [](A p, Q q) { p[0] = q.x; p[1] = q.y; p[2] = q.z; p[3] = q.w; };
    auto add_quaternion = [](A p, Q q) { p[0] += q.x; p[1] += q.y; p[2] += q.z; p[3] += q.w; };
    auto scaled = [](Q q, F s) -> Q { return {q.x * s, q.y * s, q.z * s, q.w * s}; };
    auto inner = [](Q a, Q b) -> F { return a.x * b.x + a.y * b.y + a.z * b.z + a.w * b.w; };
    auto unit = [&](Q q, F& scale) -> Q {  // of no length: no rotation, and the scale of its gradient is zero
        const F square = inner(q, q);
        const B some = square > 1.0e-20f;
        scale = some ? 1.0f / root(largest(square, each(1.0e-20f))) : zero;
        Q u = scaled(q, scale);
        u.w = some ? u.w : one;
        return u;
    };
    auto from_unit = [&](Q of, Q u, F scale) -> Q {  // gradient of q, from that of u = q / |q|
        const F along = inner(of, u);
        return scaled({of.x - u.x * along, of.y - u.y * along, of.z - u.z * along, of.w - u.w * along}, scale);
    };
    auto matrix_of = [&](Q q) -> M {
        const F xx = q.x * q.x, yy = q.y * q.y, zz = q.z * q.z, xy = q.x * q.y, yz = q.y * q.z, zx = q.z * q.x;
        const F wx = q.w * q.x, wy = q.w * q.y, wz = q.w * q.z;
        return {{1.0f - 2.0f * (yy + zz), 2.0f * (xy + wz), 2.0f * (zx - wy)},
                {2.0f * (xy - wz), 1.0f - 2.0f * (zz + xx), 2.0f * (yz + wx)},
                {2.0f * (zx + wy), 2.0f * (yz - wx), 1.0f - 2.0f * (xx + yy)}};
    };
    auto from_matrix = [&](M g, Q q) -> Q {  // gradient of q, from that of its matrix
        const F sxy = g.x.y + g.y.x, syz = g.y.z + g.z.y, szx = g.z.x + g.x.z;
        const F dx = g.y.z - g.z.y, dy = g.z.x - g.x.z, dz = g.x.y - g.y.x;
        return {2.0f * (sxy * q.y + szx * q.z + dx * q.w) - 4.0f * q.x * (g.y.y + g.z.z),
                2.0f * (sxy * q.x + syz * q.z + dy * q.w) - 4.0f * q.y * (g.z.z + g.x.x),
                2.0f * (szx * q.x + syz * q.y + dz * q.w) - 4.0f * q.z * (g.x.x + g.y.y),
                2.0f * (dx * q.x + dy * q.y + dz * q.z)};
    };
    auto exponential = [&](V x) -> Q {
        const F square = dot(x, x);
        const B large = square > 1.0e-4f;
        F s = 0.5f - square / 48.0f, c = 1.0f - square / 8.0f + square * square / 384.0f;
        if (any(large)) {
            const F angle = root(largest(square, each(1.0e-4f)));
            F sine, cosine;
            sine_cosine(0.5f * angle, sine, cosine);
            s = large ? sine / angle : s;
            c = large ? cosine : c;
        }
        return {x.x * s, x.y * s, x.z * s, c};
    };
    auto logarithm = [&](Q q) -> V {
        const B over = q.w < 0.0f;
        const V x = {over ? -q.x : q.x, over ? -q.y : q.y, over ? -q.z : q.z};
        const F c = absolute(q.w), square = dot(x, x);
        const B large = square > 1.0e-5f;
        F factor = 2.0f / c - 2.0f / 3.0f * square / (c * c * c);
        const F sine = root(largest(square, each(1.0e-5f)));
        factor = large ? 2.0f * arc(sine, c) / sine : factor;
        return x * factor;
    };
    auto right_jacobian = [&](V x, V y, float sign) -> V {  // times y; sign -1: its transpose
        const F square = dot(x, x);
        const B large = square > 1.0e-2f;
        F a = 0.5f - square / 24.0f, b = 1.0f / 6.0f - square / 120.0f;
        if (any(large)) {
            const F guarded = largest(square, each(1.0e-2f)), angle = root(guarded);
            F sine, cosine;
            sine_cosine(angle, sine, cosine);
            a = large ? (1.0f - cosine) / guarded : a;
            b = large ? (angle - sine) / (guarded * angle) : b;
        }
        const V k = cross(x, y);
        return y - k * (a * sign) + cross(x, k) * b;
    };
    auto right_jacobian_inverse = [&](V x, V y, float sign) -> V {
        const F square = dot(x, x);
        const B large = square > 1.0e-2f;
        F b = 1.0f / 12.0f + square / 720.0f;
        if (any(large)) {
            const F guarded = largest(square, each(1.0e-2f)), angle = root(guarded);
            F sine, cosine;
            sine_cosine(0.5f * angle, sine, cosine);
            b = large ? 1.0f / guarded - 0.5f * cosine / (angle * sine) : b;
        }
        const V k = cross(x, y);
        return y + k * each(0.5f * sign) + cross(x, k) * b;
    };
""".replace("LANE_COUNT", str(LANES))
