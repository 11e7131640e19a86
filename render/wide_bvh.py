"""Rays against forests of 8-wide trees of boxes with 8 triangles to a leaf row: the nearest hit, or any hit.

A node holds the boxes of up to eight children, coordinate by coordinate, a row the corners of up to eight triangles, so that
one ray is tested against eight boxes or triangles at a time (Wald, Benthin, Boulos 2008, "Getting rid of packets"; Dammertz,
Hanika, Keller 2008). Children are visited from the nearest to the farthest.

Boxes are tested by slabs with the far end moved out by a few roundings (Ize 2013, "Robust BVH ray traversal"). Triangles are
tested in coordinates that are moved to the ray's origin and sheared so that the ray is an axis (Woop, Benthin, Wald 2013,
"Watertight ray/triangle intersection"): with the corners A, B, C there,

    U = C x B,  V = A x C,  W = B x A,   hit where none is < 0 or none is > 0,   t = (U Az + V Bz + W Cz) / (U + V + W) / dz

Products are rounded one by one, never fused, so that the two triangles of an edge find exactly opposite values for it: a ray
through a shared edge or vertex meets one of them. Degenerate triangles (see wide_bvh_build) are never met.

On the CPU a snippet uses Clang's vectors of eight numbers; on CUDA the same text loops over the eight lanes.
Queries carry no gradient: find the face detached, recompute the hit from its corners attached.

Self-intersection: a hit needs 0 < t < t_max, nothing else is left out. The hit point o + t d is off its triangle by some 3e-7
of the largest of |o|, |t d| and the triangle's edges; a ray that starts at one should start moved by about 1e-5 of the largest
coordinate in play along the face's normal, to the side the ray leaves to. Shadow rays: end short of the light by as much.
"""

import warp as wp

FAR = wp.constant(1.0e30)  # t of a ray that meets nothing
WIDTH = 8  # boxes of a node, triangles of a row
NODE_SIZE = 64  # floats of a node: least x, y, z, greatest x, y, z, eight each; codes of the children; eight unused
ROW_SIZE = 72  # floats of a row: x, y, z of the first, second, third corners, eight each
STACK_SIZE = 448  # children that wait; wide_bvh_build bounds the depth accordingly


@wp.struct
class Forest:
    """Trees of all worlds and instances.

    A code is a place times 16 plus a number of rows: 0 for a node, 1 to 15 for a leaf with that many rows.
    """

    nodes: wp.array(dtype=float)  # NODE_SIZE numbers a node
    rows: wp.array(dtype=float)  # ROW_SIZE numbers a row
    row_faces: wp.array(dtype=int)  # the faces of a row, eight each, -1 where there is none
    roots: wp.array2d(dtype=int)  # code of the root, (world, instance); -1: no faces


@wp.struct
class TreeHit:
    """Where a ray first meets a tree."""

    t: float  # along the ray, in units of the direction's length; FAR where there is none
    face: int  # index into the scene's faces; -1: none
    u: float  # the point is (1 - u - v) a + u b + v c
    v: float


# One text for both queries and both compilers. A row of eight is one vector under Clang and a loop over lanes elsewhere.
_SOURCE = """
#undef RAY_VECTORS
#if @SCALAR@ || !defined(__clang__) || defined(__CUDA_ARCH__)
#define RAY_VECTORS 0
#else
#define RAY_VECTORS 1
#pragma clang fp contract(off)
    typedef float V __attribute__((ext_vector_type(8)));
    typedef int VI __attribute__((ext_vector_type(8)));
    typedef bool VB __attribute__((ext_vector_type(8)));
    typedef float VU __attribute__((ext_vector_type(8), aligned(4)));
#define RAY_LOAD(p) (V)(*(const VU*)(p))
#if defined(__AVX__)
    typedef float VG __attribute__((vector_size(32)));
#define RAY_MASK(m) unsigned(__builtin_ia32_movmskps256((VG)(m)))
#else
#define RAY_MASK(m) unsigned(__builtin_bit_cast(unsigned char, __builtin_convertvector(m, VB)))
#endif
#define RAY_FMA(a, b, c) __builtin_elementwise_fma(V(a), V(b), V(c))
#endif
#if defined(__CUDA_ARCH__)
#define RAY_LOWEST_BIT(m) (__ffs(m) - 1)
#define RAY_MUL(a, b) __fmul_rn(a, b)
#define RAY_SUB(a, b) __fsub_rn(a, b)
#else
#define RAY_LOWEST_BIT(m) __builtin_ctz(m)
#define RAY_MUL(a, b) ((a) * (b))
#define RAY_SUB(a, b) ((a) - (b))
#endif
#if defined(__CUDACC__)
#define RAY_FETCH(code)
#else
#define RAY_FETCH(code) { \\
        const float* const z = (code) & 15u ? rows.data + size_t((code) >> 4) * 72 : nodes.data + size_t((code) >> 4) * 64; \\
        for (int line = 0; line < 4; ++line) __builtin_prefetch(z + line * 16); }
#endif
#define RAY_LEAST(a, b) ((a) < (b) ? (a) : (b))
#define RAY_GREATEST(a, b) ((a) > (b) ? (a) : (b))
    union Word { float f; int i; };
    const float ox = origin[0], oy = origin[1], oz = origin[2];
    const float lx = fabsf(direction[0]), ly = fabsf(direction[1]), lz = fabsf(direction[2]);
    const int axis = lx >= ly ? (lx >= lz ? 0 : 2) : (ly >= lz ? 1 : 2);
    const float along = direction[axis];
    const bool sound = fabsf(ox) + fabsf(oy) + fabsf(oz) < 1e30f && lx + ly + lz < 1e30f && fabsf(along) > 1e-30f;
    if (root < 0 || !sound || !(t_max > 0.0f)) @MISS@
    // a finite reciprocal of zero: (box - origin) * reciprocal is never NaN
    const float ix = lx > 1e-36f ? 1.0f / direction[0] : direction[0] < 0.0f ? -1e36f : 1e36f;
    const float iy = ly > 1e-36f ? 1.0f / direction[1] : direction[1] < 0.0f ? -1e36f : 1e36f;
    const float iz = lz > 1e-36f ? 1.0f / direction[2] : direction[2] < 0.0f ? -1e36f : 1e36f;
    const int nx = ix < 0.0f ? 24 : 0, ny = iy < 0.0f ? 32 : 8, nz = iz < 0.0f ? 40 : 16;  // near planes of a node
    const int fx = 24 - nx, fy = 40 - ny, fz = 56 - nz;  // far planes
    const int kz = axis * 8, kx = kz == 16 ? 0 : kz + 8, ky = kz == 0 ? 16 : kz - 8;
    const float sz = 1.0f / along;
    const float sx = -direction[kx >> 3] * sz, sy = -direction[ky >> 3] * sz;
    const float px = origin[kx >> 3], py = origin[ky >> 3], pz = origin[axis];
    float best = t_max;
    int slot = -1;
#if RAY_VECTORS
    float us[8], vs[8];
#else
    float best_u = 0.0f, best_v = 0.0f;
#endif
    unsigned long long stack[@STACK@];
    int waiting = 0;
    unsigned code = unsigned(root);
    for (;;) {
        unsigned count = code & 15u;
        if (count == 0) {
            const float* const n = nodes.data + size_t(code >> 4) * 64;
            unsigned entered = 0;
            float in[8];
#if RAY_VECTORS
            const V x0 = (RAY_LOAD(n + nx) - ox) * ix, x1 = (RAY_LOAD(n + fx) - ox) * ix;
            const V y0 = (RAY_LOAD(n + ny) - oy) * iy, y1 = (RAY_LOAD(n + fy) - oy) * iy;
            const V z0 = (RAY_LOAD(n + nz) - oz) * iz, z1 = (RAY_LOAD(n + fz) - oz) * iz;
            const V xy0 = RAY_GREATEST(x0, y0), xy1 = RAY_LEAST(x1, y1), zero = 0.0f, limit = best;
            const V z2 = RAY_GREATEST(z0, zero), begin = RAY_GREATEST(xy0, z2);
            const V xyz1 = RAY_LEAST(xy1, z1) * 1.000001f, end = RAY_LEAST(xyz1, limit);
            entered = RAY_MASK(begin <= end);
            *(VU*)in = begin;
#else
            for (int i = 0; i < 8; ++i) {
                const float x0 = (n[nx + i] - ox) * ix, x1 = (n[fx + i] - ox) * ix;
                const float y0 = (n[ny + i] - oy) * iy, y1 = (n[fy + i] - oy) * iy;
                const float z0 = (n[nz + i] - oz) * iz, z1 = (n[fz + i] - oz) * iz;
                const float xy0 = RAY_GREATEST(x0, y0), xy1 = RAY_LEAST(x1, y1), z2 = RAY_GREATEST(z0, 0.0f);
                in[i] = RAY_GREATEST(xy0, z2);
                const float xyz1 = RAY_LEAST(xy1, z1) * 1.000001f, end = RAY_LEAST(xyz1, best);
                entered |= unsigned(in[i] <= end) << i;
            }
#endif
            const int* const codes = (const int*)(n + 48);
#if @ANY@
            while (entered) {
                const unsigned child = unsigned(codes[RAY_LOWEST_BIT(entered)]);
                RAY_FETCH(child)
                stack[waiting++] = child;
                entered &= entered - 1u;
            }
#else
            if (entered) {
                // the nearest child is next, the others wait, the nearer the later
                int i = RAY_LOWEST_BIT(entered);
                entered &= entered - 1u;
                if (!entered) {
                    code = unsigned(codes[i]);
                    continue;
                }
                const int first = waiting;
                for (;;) {
                    Word w;
                    w.f = in[i];
                    const unsigned long long item = ((unsigned long long)(unsigned)w.i << 32) | (unsigned)codes[i];
                    RAY_FETCH((unsigned)codes[i])
                    int at = waiting++;
                    while (at > first && stack[at - 1] < item) {
                        stack[at] = stack[at - 1];
                        --at;
                    }
                    stack[at] = item;
                    if (!entered) break;
                    i = RAY_LOWEST_BIT(entered);
                    entered &= entered - 1u;
                }
                code = unsigned(stack[--waiting]);
                continue;
            }
#endif
        }
        for (size_t row = code >> 4; count > 0; --count, ++row) {
            const float* const p = rows.data + row * 72;
#if RAY_VECTORS
            const V az = RAY_LOAD(p + kz) - pz, bz = RAY_LOAD(p + 24 + kz) - pz, cz = RAY_LOAD(p + 48 + kz) - pz;
            const V ax = RAY_FMA(sx, az, RAY_LOAD(p + kx) - px), ay = RAY_FMA(sy, az, RAY_LOAD(p + ky) - py);
            const V bx = RAY_FMA(sx, bz, RAY_LOAD(p + 24 + kx) - px), by = RAY_FMA(sy, bz, RAY_LOAD(p + 24 + ky) - py);
            const V cx = RAY_FMA(sx, cz, RAY_LOAD(p + 48 + kx) - px), cy = RAY_FMA(sy, cz, RAY_LOAD(p + 48 + ky) - py);
            const V a = cx * by - cy * bx, b = ax * cy - ay * cx, c = bx * ay - by * ax, det = a + b + c;
            const V ab0 = RAY_LEAST(a, b), ab1 = RAY_GREATEST(a, b), abc0 = RAY_LEAST(ab0, c), abc1 = RAY_GREATEST(ab1, c);
            const VI inside = ((abc0 >= 0.0f) | (abc1 <= 0.0f)) & (det != 0.0f);
            const V scale = 1.0f / det, u = b * scale, v = c * scale;
            const V t = (a * scale * az + u * bz + v * cz) * sz;
            const VI met = inside & (t > 0.0f) & (t < best);
            const unsigned hits = RAY_MASK(met);
            if (!hits) continue;
#if @ANY@
            return true;
#else
            // positive numbers are ordered as their bits are, and integers have no NaN to look after
            Word w;
            w.f = best;
            const VI bits = met ? (VI)t : VI(w.i);
            w.i = __builtin_reduce_min(bits);
            best = w.f;
            slot = (int)row * 8 + RAY_LOWEST_BIT(RAY_MASK(bits == w.i));
            *(VU*)us = u;
            *(VU*)vs = v;
#endif
#else
            for (int i = 0; i < 8; ++i) {
                const float az = p[kz + i] - pz, bz = p[24 + kz + i] - pz, cz = p[48 + kz + i] - pz;
                const float ax = fmaf(sx, az, p[kx + i] - px), ay = fmaf(sy, az, p[ky + i] - py);
                const float bx = fmaf(sx, bz, p[24 + kx + i] - px), by = fmaf(sy, bz, p[24 + ky + i] - py);
                const float cx = fmaf(sx, cz, p[48 + kx + i] - px), cy = fmaf(sy, cz, p[48 + ky + i] - py);
                const float a = RAY_SUB(RAY_MUL(cx, by), RAY_MUL(cy, bx));
                const float b = RAY_SUB(RAY_MUL(ax, cy), RAY_MUL(ay, cx));
                const float c = RAY_SUB(RAY_MUL(bx, ay), RAY_MUL(by, ax));
                const float det = a + b + c;
                if (!((a >= 0.0f && b >= 0.0f && c >= 0.0f) || (a <= 0.0f && b <= 0.0f && c <= 0.0f)) || det == 0.0f) continue;
                const float scale = 1.0f / det, u = b * scale, v = c * scale;
                const float t = (a * scale * az + u * bz + v * cz) * sz;
                if (!(t > 0.0f && t < best)) continue;
#if @ANY@
                return true;
#else
                best = t;
                slot = (int)row * 8 + i;
                best_u = u;
                best_v = v;
#endif
            }
#endif
        }
        // what waits behind the nearest hit is left out
#if @ANY@
        if (waiting == 0) return false;
        code = unsigned(stack[--waiting]);
#else
        Word w;
        do {
            if (waiting == 0) goto done;
            --waiting;
            w.i = (int)(stack[waiting] >> 32);
        } while (w.f > best);
        code = unsigned(stack[waiting]);
#endif
    }
#if !@ANY@
done:
    if (slot < 0) @MISS@
    Word face;
    face.i = row_faces.data[slot];
#if RAY_VECTORS
    const float best_u = us[slot & 7], best_v = vs[slot & 7];
#endif
    return wp::vec_t<4, wp::float32>(best, face.f, best_u, best_v);
#endif
"""
_MISS = "{ Word none; none.i = -1; return wp::vec_t<4, wp::float32>(1e30f, none.f, 0.0f, 0.0f); }"


def query_source(any_hit: bool, scalar: bool = False) -> str:
    """The snippet of a query; `scalar` takes the loop over lanes under Clang, too."""
    words: dict[str, object] = {"@ANY@": int(any_hit), "@SCALAR@": int(scalar), "@STACK@": STACK_SIZE}
    words["@MISS@"] = "return false;" if any_hit else _MISS
    source = _SOURCE
    for word, value in words.items():
        source = source.replace(word, str(value))
    return source


@wp.func_native(query_source(any_hit=False))
def _closest(
    nodes: wp.array(dtype=float),
    rows: wp.array(dtype=float),
    row_faces: wp.array(dtype=int),
    root: int,
    origin: wp.vec3,
    direction: wp.vec3,
    t_max: float,
) -> wp.vec4: ...  # type: ignore[empty-body]


@wp.func_native(query_source(any_hit=True))
def _any(  # type: ignore[empty-body]
    nodes: wp.array(dtype=float),
    rows: wp.array(dtype=float),
    root: int,
    origin: wp.vec3,
    direction: wp.vec3,
    t_max: float,
) -> bool: ...


@wp.func
def closest_in_tree(forest: Forest, root: int, origin: wp.vec3, direction: wp.vec3, t_max: float) -> TreeHit:
    """The nearest hit with 0 < t < t_max. `root` is one of `forest.roots`.

    The direction's largest component is above 1e-30; a ray with NaN or without direction meets nothing.
    """
    found = _closest(forest.nodes, forest.rows, forest.row_faces, root, origin, direction, t_max)
    hit = TreeHit()
    hit.t = found[0]
    hit.face = wp.cast(found[1], int)
    hit.u = found[2]
    hit.v = found[3]
    return hit


@wp.func
def any_in_tree(forest: Forest, root: int, origin: wp.vec3, direction: wp.vec3, t_max: float) -> bool:
    """Whether there is a hit with 0 < t < t_max."""
    return _any(forest.nodes, forest.rows, root, origin, direction, t_max)
