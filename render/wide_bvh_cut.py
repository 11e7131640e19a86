"""The shapes of 8-wide trees over triangles: which faces share a row, which rows and nodes share a node.

1. A binary tree from the top: each range of faces is cut where the surface area heuristic, over 16 bins in each axis, is least
   (Wald 2007, "On fast construction of SAH-based bounding volume hierarchies").
2. Nodes of eight children and leaves of rows of eight triangles are picked from it by dynamic programming (Ylitie, Karras,
   Laine 2017, "Efficient incoherent ray traversal on GPUs through compressed wide BVHs", section 3.2). With the surface A(n) of
   a subtree's box and its number of faces P(n), a forest of at most i nodes for it costs

       C(n, 1) = min(A(n) ceil(P(n) / 8) ROW_COST,  A(n) NODE_COST + min_k C(left, k) + C(right, 8 - k))
       C(n, i) = min(C(n, i - 1),  min_k C(left, k) + C(right, i - k))

Native code on the host, one tree after the other; called by wide_bvh_build.
"""

import warp as wp

NODE_COST = 2.0  # of testing the boxes of a node and ordering its children; measured in whole pictures
ROW_COST = 1.0  # of testing a row of triangles, which it is relative to
LEAF_FACES = 2  # binary nodes with so few faces are not cut
DEPTH_LIMIT = 32  # of cuts by the heuristic; halving comes to at most 27 more: STACK_SIZE > 7 (32 + 27)
LARGEST = wp.constant(1.0e15)  # coordinates beyond it count as not finite: their products overflow
EMPTY = wp.constant(1.0e38)  # least coordinate of the box of nothing

BOX = wp.types.vector(length=8, dtype=wp.float32)  # least x, y, z, face (bits), greatest x, y, z, cost


@wp.func
def usable(a: wp.vec3) -> bool:
    """Whether a vertex is finite."""
    return wp.abs(a[0]) < LARGEST and wp.abs(a[1]) < LARGEST and wp.abs(a[2]) < LARGEST


@wp.kernel(enable_backward=False)
def bound_faces(
    vertices: wp.array2d(dtype=wp.vec3),
    faces: wp.array2d(dtype=int),
    order: wp.array(dtype=int),
    boxes: wp.array2d(dtype=BOX),
):
    """Boxes of the faces in the order of their instances; the box of a face that is not finite is empty."""
    world, place = wp.tid()
    face = order[place]
    a = vertices[world, faces[face, 0]]
    b = vertices[world, faces[face, 1]]
    c = vertices[world, faces[face, 2]]
    box = BOX()
    low = wp.vec3(EMPTY, EMPTY, EMPTY)
    high = -low
    if usable(a) and usable(b) and usable(c):
        low = wp.min(a, wp.min(b, c))
        high = wp.max(a, wp.max(b, c))
    for k in range(3):
        box[k] = low[k]
        box[4 + k] = high[k]
    box[3] = wp.cast(face, float)
    boxes[world, place] = box


@wp.func_native("""
    struct Box { float low[3]; int face; float high[3]; int spare; };
    struct Node { float low[3]; int first; float high[3]; int count; };
    Box* const box = (Box*)boxes.data;
    Node* const node = (Node*)nodes.data;
    struct Costs { float at[8]; };
    Costs* const best = (Costs*)costs.data;
    struct Bounds {
        float low[3], high[3];
        void clear() { for (int k = 0; k < 3; ++k) { low[k] = 1e38f; high[k] = -1e38f; } }
        void add(const float* l, const float* h) {
            for (int k = 0; k < 3; ++k) { low[k] = l[k] < low[k] ? l[k] : low[k]; high[k] = h[k] > high[k] ? h[k] : high[k]; }
        }
        float area() const {
            const float x = high[0] - low[0], y = high[1] - low[1], z = high[2] - low[2];
            return x * y + y * z + z * x;
        }
    };
    // faces without a box go to the end
    int end = stop;
    for (int i = start; i < end;) {
        if (box[i].low[0] > box[i].high[0]) { const Box other = box[--end]; box[end] = box[i]; box[i] = other; }
        else ++i;
    }
    if (end == start) return 0;
    const int base = 2 * start;  // a binary tree over n faces has fewer than 2 n nodes
    int used = 1;
    node[base].first = start;
    node[base].count = end - start;
    left.data[base] = 0;
    // depth first, so that what is cut next is in the cache; children come after their parents
    struct Item { int at, depth; } waiting[64];
    int open = 1;
    waiting[0].at = waiting[0].depth = 0;
    while (open) {
        const int at = waiting[--open].at, depth = waiting[open].depth;
        Node& parent = node[base + at];
        const int first = parent.first, count = parent.count;
        Bounds whole, centers;
        whole.clear();
        centers.clear();
        for (int i = first; i < first + count; ++i) {
            whole.add(box[i].low, box[i].high);
            float c[3];
            for (int k = 0; k < 3; ++k) c[k] = box[i].low[k] + box[i].high[k];
            centers.add(c, c);
        }
        for (int k = 0; k < 3; ++k) { parent.low[k] = whole.low[k]; parent.high[k] = whole.high[k]; }
        left.data[base + at] = 0;
        if (count <= leaf_faces) continue;
        const int bin_count = 16;
        float least = 3e38f;
        int axis = -1, cut = 0;
        if (depth < depth_limit) {
            Bounds bins[3][16];
            int counts[3][16];
            float scale[3];
            for (int k = 0; k < 3; ++k) {
                const float extent = centers.high[k] - centers.low[k];
                scale[k] = extent > 0.0f ? 0.9999f * bin_count / extent : 0.0f;
                if (!(scale[k] < 1e30f)) scale[k] = 0.0f;
                for (int j = 0; j < bin_count; ++j) { bins[k][j].clear(); counts[k][j] = 0; }
            }
            for (int i = first; i < first + count; ++i) {
                for (int k = 0; k < 3; ++k) {
                    const int j = (int)((box[i].low[k] + box[i].high[k] - centers.low[k]) * scale[k]);
                    bins[k][j].add(box[i].low, box[i].high);
                    ++counts[k][j];
                }
            }
            for (int k = 0; k < 3; ++k) {
                if (scale[k] == 0.0f) continue;
                float right[16];
                Bounds sum;
                sum.clear();
                int n = 0;
                for (int j = bin_count - 1; j > 0; --j) {
                    sum.add(bins[k][j].low, bins[k][j].high);
                    n += counts[k][j];
                    right[j] = n ? sum.area() * n : 0.0f;
                }
                sum.clear();
                n = 0;
                for (int j = 1; j < bin_count; ++j) {
                    sum.add(bins[k][j - 1].low, bins[k][j - 1].high);
                    n += counts[k][j - 1];
                    if (n == 0 || n == count) continue;
                    const float cost = sum.area() * n + right[j];
                    if (cost < least) { least = cost; axis = k; cut = j; }
                }
            }
            if (axis >= 0) {
                int i = first, j = first + count - 1;
                while (i <= j) {
                    const int bin = (int)((box[i].low[axis] + box[i].high[axis] - centers.low[axis]) * scale[axis]);
                    if (bin < cut) ++i;
                    else { const Box other = box[j]; box[j] = box[i]; box[i] = other; --j; }
                }
                cut = i - first;
            }
        }
        if (axis < 0) cut = count / 2;  // all in one place, or too deep: any half will do
        const int child = used;
        used += 2;
        left.data[base + at] = child;
        node[base + child].first = first;
        node[base + child].count = cut;
        node[base + child + 1].first = first + cut;
        node[base + child + 1].count = count - cut;
        waiting[open].at = child + 1;
        waiting[open++].depth = depth + 1;
        waiting[open].at = child;
        waiting[open++].depth = depth + 1;
    }
    for (int at = used - 1; at >= 0; --at) {
        const Node& n = node[base + at];
        Bounds b;
        for (int k = 0; k < 3; ++k) { b.low[k] = n.low[k]; b.high[k] = n.high[k]; }
        const float area = b.area();
        float* const c = best[base + at].at;
        const int row_count = (n.count + 7) / 8;
        const float leaf = row_count < 16 ? area * row_count * row_cost : 3e38f;
        const int l = left.data[base + at];
        c[0] = 1.0f;  // a leaf
        if (!l) {
            for (int i = 1; i < 8; ++i) c[i] = leaf;
            continue;
        }
        const float* const x = best[base + l].at;
        const float* const y = best[base + l + 1].at;
        float apart[9];
        for (int i = 2; i <= 8; ++i) {
            apart[i] = 3e38f;
            for (int k = 1; k < i; ++k) {
                const float cost = x[k] + y[i - k];
                if (cost < apart[i]) apart[i] = cost;
            }
        }
        const float inner = apart[8] + area * node_cost;
        c[0] = leaf <= inner ? 1.0f : 0.0f;
        c[1] = leaf <= inner ? leaf : inner;
        for (int i = 2; i < 8; ++i) c[i] = apart[i] < c[i - 1] ? apart[i] : c[i - 1];
    }
    return end - start;
""")
def _cut(  # type: ignore[empty-body]
    start: int,
    stop: int,
    boxes: wp.array(dtype=BOX),
    nodes: wp.array(dtype=BOX),
    left: wp.array(dtype=int),
    costs: wp.array(dtype=BOX),
    leaf_faces: int,
    depth_limit: int,
    node_cost: float,
    row_cost: float,
) -> int: ...


# Writes a tree's nodes and rows from `node_at` and `row_at` on (or only counts them), breadth first.
@wp.func_native("""
    struct Box { float low[3]; int face; float high[3]; int spare; };
    struct Node { float low[3]; int first; float high[3]; int count; };
    const Box* const box = (const Box*)boxes.data;
    const Node* const node = (const Node*)binary.data;
    struct Costs { float at[8]; };
    const Costs* const best = (const Costs*)costs.data;
    const int base = 2 * start;
    int row_end = row_at;
    struct Rows {
        static int put(const Box* box, const Node& n, int row, int* faces) {
            for (int i = 0; i < n.count; ++i) faces[size_t(row) * 8 + i] = box[n.first + i].face;
            for (int i = n.count; i & 7; ++i) faces[size_t(row) * 8 + i] = -1;
            return (n.count + 7) / 8;
        }
    };
    if (best[base].at[0] != 0.0f) {
        const int count = (node[base].count + 7) / 8;
        if (write) Rows::put(box, node[base], row_end, row_faces.data);
        sizes.data[2 * tree] = 0;
        sizes.data[2 * tree + 1] = count;
        return (row_at << 4) | count;
    }
    // origin[k]: the binary node that became node k of this tree
    origin.data[base] = 0;
    level.data[base] = 0;
    int made = 1;
    for (int at = 0; at < made; ++at) {
        int picked[8], share[8], kept = 0, open = 1;
        int done[8];
        picked[0] = origin.data[base + at];
        share[0] = 8;  // an open entry becomes that many children
        while (open) {
            const int n = picked[--open];
            int s = share[open];
            const bool root = n == origin.data[base + at];
            if (!root) while (s > 1 && best[base + n].at[s] == best[base + n].at[s - 1]) --s;
            if (s == 1) { done[kept++] = n; continue; }
            const int l = left.data[base + n];
            const float* const x = best[base + l].at;
            const float* const y = best[base + l + 1].at;
            int k_best = 1;
            for (int k = 2; k < s; ++k) if (x[k] + y[s - k] < x[k_best] + y[s - k_best]) k_best = k;
            picked[open] = l; share[open++] = k_best;
            picked[open] = l + 1; share[open++] = s - k_best;
        }
        int* const codes = write ? (int*)(nodes.data + size_t(node_at + at) * 64 + 48) : nullptr;
        for (int i = 0; i < kept; ++i) {
            const Node& n = node[base + done[i]];
            if (best[base + done[i]].at[0] != 0.0f) {
                const int count = (n.count + 7) / 8;
                if (write) { Rows::put(box, n, row_end, row_faces.data); codes[i] = (row_end << 4) | count; }
                row_end += count;
            } else {
                if (write) codes[i] = (node_at + made) << 4;
                level.data[base + made] = level.data[base + at] + 1;
                origin.data[base + made++] = done[i];
            }
        }
        if (write) {
            for (int i = kept; i < 8; ++i) codes[i] = -1;
            node_level.data[node_at + at] = level.data[base + at];
            node_tree.data[node_at + at] = tree;
        }
    }
    sizes.data[2 * tree] = made;
    sizes.data[2 * tree + 1] = row_end - row_at;
    return node_at << 4;
""")
def _widen(  # type: ignore[empty-body]
    write: bool,
    tree: int,
    start: int,
    node_at: int,
    row_at: int,
    boxes: wp.array(dtype=BOX),
    binary: wp.array(dtype=BOX),
    left: wp.array(dtype=int),
    costs: wp.array(dtype=BOX),
    origin: wp.array(dtype=int),
    level: wp.array(dtype=int),
    sizes: wp.array(dtype=int),
    nodes: wp.array(dtype=float),
    row_faces: wp.array(dtype=int),
    node_level: wp.array(dtype=int),
    node_tree: wp.array(dtype=int),
) -> int: ...


@wp.kernel(enable_backward=False)
def cut_trees(
    starts: wp.array(dtype=int),
    boxes: wp.array(dtype=BOX),
    binary: wp.array(dtype=BOX),
    left: wp.array(dtype=int),
    costs: wp.array(dtype=BOX),
    leaf_faces: int,
    depth_limit: int,
    node_cost: float,
    row_cost: float,
    counts: wp.array(dtype=int),
):
    tree = wp.tid()
    counts[tree] = _cut(
        starts[tree], starts[tree + 1], boxes, binary, left, costs, leaf_faces, depth_limit, node_cost, row_cost
    )  # fmt: skip


@wp.kernel(enable_backward=False)
def widen_trees(
    write: bool,
    starts: wp.array(dtype=int),
    counts: wp.array(dtype=int),
    node_starts: wp.array(dtype=int),
    row_starts: wp.array(dtype=int),
    boxes: wp.array(dtype=BOX),
    binary: wp.array(dtype=BOX),
    left: wp.array(dtype=int),
    costs: wp.array(dtype=BOX),
    origin: wp.array(dtype=int),
    level: wp.array(dtype=int),
    sizes: wp.array(dtype=int),
    nodes: wp.array(dtype=float),
    row_faces: wp.array(dtype=int),
    node_level: wp.array(dtype=int),
    node_tree: wp.array(dtype=int),
    roots: wp.array(dtype=int),
):
    tree = wp.tid()
    roots[tree] = -1
    if counts[tree] > 0:
        roots[tree] = _widen(
            write, tree, starts[tree], node_starts[tree], row_starts[tree], boxes, binary, left, costs, origin, level,
            sizes, nodes, row_faces, node_level, node_tree,
        )  # fmt: skip
