r"""C++ text of the fused step, second part: a tree's work memory, its motion and loads, its mass matrix and factors.

The equations are those of `physics.inverse_dynamics` and `physics.mass_matrix`, in world axes, with a rotation matrix for each
link. Every rate has an axis e, so that joints differ only in the axes that they put in (s and l: a joint's spin and slide):

    s = sum e v, l = sum e v over the angular and the linear rates of the joint

The factors of A are A = U L, eliminated from the last rate to the first: no entry outside the ancestors of a rate is
touched (Featherstone, "Rigid Body Dynamics Algorithms", 2008, ch. 6.5, there for symmetric matrices). `up(k)` is the rate
before k on the way to the root, -1 at its end.
"""


def work_size(links: int, rates: int, actuators: int, coordinates: int, stages: int) -> int:
    """Numbers of work memory that a world needs; `take` stops the program when the text below asks for more."""
    slots = links + 1
    inputs = 26 * links + 4 * rates + 6 * actuators + 3 + actuators + 6 * links
    node = slots * 46 + 3 * rates + 2 * rates * rates + 11 * rates
    adjoint = slots * 24 + (stages + 1) * (coordinates + 2 * rates) + coordinates + rates
    return inputs + node + inputs + adjoint


TREE_TEXT = """
    const int links_count = tree.shape[0], nv = dofs.shape[0], nq = first.shape[1], na = drives.shape[0];
    const int worlds = first.shape[0], slots = links_count + 1;
    const int* const tree_rows = tree.data;
    const int* const dof_rows = dofs.data;
    auto up = [&](int k) { return dof_rows[4 * k + 2]; };
    auto each_above = [&](int k, auto act) {  // for all rates on the way to the root: in runs, which are most of them
        for (int j = up(k); j >= 0; j = up(j + 1))
            for (const int run = dof_rows[4 * j + 3]; j >= run; --j) act(j);
    };
    auto memory = [&](float* data, int size) -> A {  // of this block
#if defined(__CUDA_ARCH__)
        return {data + block, (size_t)worlds};
#else
        return {(F*)(((size_t)data + 63) / 64 * 64) + (size_t)block * size};
#endif
    };
    auto world_of = [&](int l) { return block * L + l < worlds ? block * L + l : worlds - 1; };
    auto gather = [&](const float* data, size_t size, int offset, int count, A to) {  // rows of worlds into lanes
        for (int l = 0; l < L; ++l) {
            const float* row = data + world_of(l) * size + offset;
            for (int k = 0; k < count; ++k) ((float*)&to[k])[l] = row[k];
        }
    };
    auto scatter = [&](A from, int count, float* data, size_t size, int offset, bool add) {
        for (int l = 0; l < L && block * L + l < worlds; ++l) {
            float* row = data + (size_t)(block * L + l) * size + offset;
            for (int k = 0; k < count; ++k) row[k] = (add ? row[k] : 0.0f) + ((float*)&from[k])[l];
        }
    };
    A free_memory = memory(work.data, work_size);
    int left = work_size;
    auto take = [&](int count) -> A {
        A taken = free_memory;
        free_memory = free_memory + count;
        left -= count;
        if (left < 0) { printf("fused step: work memory is too small\\n"); assert(false); }
        return taken;
    };
    const A P = take(26 * links_count), D = take(4 * nv), T = take(6 * na), G = take(3);
    const A U = take(na), W = take(6 * links_count);
    const A turns = take(9 * slots), arms = take(3 * slots), spins = take(3 * slots), spin_rates = take(3 * slots);
    const A linear = take(3 * slots), centers = take(3 * slots), inertias = take(6 * slots);
    const A masses = take(slots), firsts = take(3 * slots), seconds = take(6 * slots);
    const A forces = take(3 * slots), moments = take(3 * slots), axes = take(3 * nv);
    const A H = take(nv * nv), factors = take(nv * nv);
    const A residual = take(nv), bias = take(nv), step = take(nv), diagonal = take(nv), blocks = take(3 * nv);
    const A fresh_diagonal = take(nv), fresh_blocks = take(3 * nv);

    auto gather_inputs = [&]() {
        gather((const float*)links.data, 26 * links_count, 0, 26 * links_count, P);
        gather((const float*)dof_numbers.data, 4 * nv, 0, 4 * nv, D);
        gather((const float*)actuators.data, 6 * na, 0, 6 * na, T);
        gather((const float*)gravity.data, 3, 0, 3, G);
    };
    auto gather_frame = [&](int frame) {
        const int of_controls = frame % controls.shape[1], of_wrenches = frame % wrenches.shape[1];
        gather(controls.data, (size_t)controls.shape[1] * na, of_controls * na, na, U);
        gather((const float*)wrenches.data, (size_t)wrenches.shape[1] * 6 * links_count, of_wrenches * 6 * links_count,
               6 * links_count, W);
    };
    auto rate_count = [](int kind) { return kind == 0 ? 0 : kind == 1 ? 6 : kind == 4 ? 3 : 1; };
    auto is_linear = [](int kind, int k) { return kind == 3 || (kind == 1 && k < 3); };
    auto joint_quaternion = [&](int kind, A p, A x) -> Q {
        if (kind == 2) {
            F sine, cosine;
            sine_cosine(0.5f * x[0], sine, cosine);
            return {p[17] * sine, p[18] * sine, p[19] * sine, cosine};
        }
        F scale;
        return unit(quaternion_at(kind == 1 ? x + 3 : x), scale);
    };

    // motion and loads of all links, each load its own; moving: with accelerations a
    auto outward = [&](A x, A v, A a, bool moving) {
        put_matrix(turns, {{one, zero, zero}, {zero, one, zero}, {zero, zero, one}});
        const A starts[] = {arms, spins, spin_rates, linear, forces, moments};
        for (A start : starts) put_vector(start, nothing);
        const V g = vector_at(G);
        for (int b = 0; b < links_count; ++b) {
            const int above = tree_rows[4 * b], kind = tree_rows[4 * b + 1], j = tree_rows[4 * b + 2], i = tree_rows[4 * b + 3];
            const A p = P + 26 * b;
            const M base = matrix_at(turns + 9 * above);
            Q q = quaternion_at(p + 13);
            if (kind == 1 || kind == 2 || kind == 4) q = q * joint_quaternion(kind, p, x + j);
            const M turn = base * matrix_of(q);
            V arm = base * vector_at(p + 10);
            if (kind == 2 || kind == 3) put_vector(axes + 3 * i, turn * vector_at(p + 17));
            if (kind == 1) put_matrix(axes + 3 * i, {{one, zero, zero}, {zero, one, zero}, {zero, zero, one}});
            if (kind == 1 || kind == 4) put_matrix(axes + 3 * (kind == 1 ? i + 3 : i), turn);
            if (kind == 3) arm += vector_at(axes + 3 * i) * x[j];
            if (kind == 1) arm += vector_at(x + j);
            V s = nothing, l = nothing, s_rate = nothing, l_rate = nothing;
            for (int k = 0; k < rate_count(kind); ++k) {
                const V e = vector_at(axes + 3 * (i + k));
                if (is_linear(kind, k)) {
                    l += e * v[i + k];
                    if (moving) l_rate += e * a[i + k];
                } else {
                    s += e * v[i + k];
                    if (moving) s_rate += e * a[i + k];
                }
            }
            const V w0 = vector_at(spins + 3 * above), alpha0 = vector_at(spin_rates + 3 * above);
            const V w = w0 + s, alpha = alpha0 + s_rate + cross(w0, s);
            const V acc = vector_at(linear + 3 * above) + l_rate + cross(alpha0, arm)
                          + cross(w0, cross(w0, arm) + l * each(2.0f));
            const V c = turn * vector_at(p + 1);
            const S own = symmetric_at(p + 4);
            const V cx = {own.xx, own.xy, own.zx}, cy = {own.xy, own.yy, own.yz}, cz = {own.zx, own.yz, own.zz};
            const M half = {turn * cx, turn * cy, turn * cz};  // R I
            const S around = {
                half.x.x * turn.x.x + half.y.x * turn.y.x + half.z.x * turn.z.x,
                half.x.y * turn.x.y + half.y.y * turn.y.y + half.z.y * turn.z.y,
                half.x.z * turn.x.z + half.y.z * turn.y.z + half.z.z * turn.z.z,
                half.x.y * turn.x.z + half.y.y * turn.y.z + half.z.y * turn.z.z,
                half.x.z * turn.x.x + half.y.z * turn.y.x + half.z.z * turn.z.x,
                half.x.x * turn.x.y + half.y.x * turn.y.y + half.z.x * turn.z.y};
            const V push = vector_at(W + 6 * b), twist = vector_at(W + 6 * b + 3);
            const V force = (acc + cross(alpha, c) + cross(w, cross(w, c)) - g) * p[0] - push;
            put_matrix(turns + 9 * (b + 1), turn);
            put_vector(arms + 3 * (b + 1), arm);
            put_vector(spins + 3 * (b + 1), w);
            put_vector(spin_rates + 3 * (b + 1), alpha);
            put_vector(linear + 3 * (b + 1), acc);
            put_vector(centers + 3 * (b + 1), c);
            put_symmetric(inertias + 6 * (b + 1), around);
            put_vector(forces + 3 * (b + 1), force);
            put_vector(moments + 3 * (b + 1), around * alpha + cross(w, around * w) + cross(c, force) - twist);
        }
    };

    // loads and composite bodies, from the leaves to the root; then the mass matrix of ancestors, with armature
    auto mass_matrix = [&](bool with_bias) {
        for (int b = 1; b < slots; ++b) {
            const V c = vector_at(centers + 3 * b);
            const F m = P[26 * (b - 1)];
            S s = symmetric_at(inertias + 6 * b);
            s.xx += m * (c.y * c.y + c.z * c.z);
            s.yy += m * (c.z * c.z + c.x * c.x);
            s.zz += m * (c.x * c.x + c.y * c.y);
            s.yz -= m * c.y * c.z;
            s.zx -= m * c.z * c.x;
            s.xy -= m * c.x * c.y;
            masses[b] = m;
            put_vector(firsts + 3 * b, c * m);
            put_symmetric(seconds + 6 * b, s);
        }
        for (int b = slots - 1; b > 0; --b) {
            const int above = tree_rows[4 * (b - 1)];
            const V r = vector_at(arms + 3 * b), force = vector_at(forces + 3 * b);
            add_vector(forces + 3 * above, force);
            add_vector(moments + 3 * above, vector_at(moments + 3 * b) + cross(r, force));
            if (above == 0) continue;
            const F m = masses[b];
            const V k = vector_at(firsts + 3 * b), d = r * m + k, n = k;
            const S s = symmetric_at(seconds + 6 * b);
            const A to = seconds + 6 * above;
            masses[above] += m;
            add_vector(firsts + 3 * above, d);
            to[0] += s.xx + r.y * d.y + r.z * d.z + n.y * r.y + n.z * r.z;
            to[1] += s.yy + r.z * d.z + r.x * d.x + n.z * r.z + n.x * r.x;
            to[2] += s.zz + r.x * d.x + r.y * d.y + n.x * r.x + n.y * r.y;
            to[3] += s.yz - r.y * d.z - n.y * r.z;
            to[4] += s.zx - r.z * d.x - n.z * r.x;
            to[5] += s.xy - r.x * d.y - n.x * r.y;
        }
        for (int j = 0; j < nv; ++j) {
            int slot = dof_rows[4 * j];
            const bool along = dof_rows[4 * j + 1] == 1;
            const V e = vector_at(axes + 3 * j), k = vector_at(firsts + 3 * slot);
            if (with_bias) bias[j] = dot(e, vector_at((along ? forces : moments) + 3 * slot));
            const V force = along ? e * masses[slot] : cross(e, k);
            V moment = along ? cross(k, e) : symmetric_at(seconds + 6 * slot) * e;
            for (int i = j; i >= 0; i = up(i)) {
                while (slot != dof_rows[4 * i]) {
                    moment += cross(vector_at(arms + 3 * slot), force);
                    slot = tree_rows[4 * (slot - 1)];
                }
                H[j * nv + i] = dot(vector_at(axes + 3 * i), dof_rows[4 * i + 1] == 1 ? force : moment);
            }
            H[j * nv + j] += D[4 * j];
        }
    };

    auto assemble_and_factorise = [&](bool with_blocks) {
        for (int k = 0; k < nv; ++k) {
            each_above(k, [&](int i) { factors[k * nv + i] = factors[i * nv + k] = H[k * nv + i]; });
            factors[k * nv + k] = H[k * nv + k] + diagonal[k];
        }
        for (int b = 0; with_blocks && b < links_count; ++b) {
            if (tree_rows[4 * b + 1] != 4) continue;
            const int i = tree_rows[4 * b + 3];
            for (int k = 0; k < 9; ++k)
                if (k % 4) factors[(i + k / 3) * nv + i + k % 3] += blocks[3 * i + k];
        }
        for (int k = nv - 1; k >= 0; --k) {
            const A row = factors + k * nv;
            const F pivot = 1.0f / row[k];
            row[k] = pivot;
            each_above(k, [&](int i) {
                const A other = factors + i * nv;
                const F ratio = other[k] * pivot;
                other[k] = ratio;
                each_above(k, [&](int j) { other[j] -= ratio * row[j]; });
            });
        }
    };
    auto solve = [&](A y) {
        for (int k = nv - 1; k >= 0; --k) {
            const F value = y[k];
            each_above(k, [&](int i) { y[i] -= factors[i * nv + k] * value; });
        }
        for (int k = 0; k < nv; ++k) {
            F value = y[k];
            each_above(k, [&](int j) { value -= factors[k * nv + j] * y[j]; });
            y[k] = value * factors[k * nv + k];
        }
    };
    auto solve_transposed = [&](A y) {
        for (int k = nv - 1; k >= 0; --k) {
            const F value = y[k] * factors[k * nv + k];
            y[k] = value;
            each_above(k, [&](int j) { y[j] -= factors[k * nv + j] * value; });
        }
        for (int k = 0; k < nv; ++k) {
            F value = y[k];
            each_above(k, [&](int i) { value -= factors[i * nv + k] * y[i]; });
            y[k] = value;
        }
    };
"""
