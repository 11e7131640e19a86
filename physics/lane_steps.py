r"""C++ text of the fused step, fourth part: how states go from node to node, and the gradients of that.

The rules are those of `physics.state_update`. Where a quaternion is turned, q+ = q exp(dt w), a gradient g of q+ is that of a
turn of q+ in its own axes, y = vec(q+* g) / 2; then dt Jr^T(dt w) y belongs to w, and exp(dt w) y to a turn of q.
"""

STEPS_TEXT = """
    auto turn_of = [](int kind) { return kind == 1 ? 3 : 0; };  // where a joint's quaternion and spin begin
    auto has_quaternion = [](int kind) { return kind == 1 || kind == 4; };
    auto linear_count = [](int kind) { return kind == 1 ? 3 : kind == 2 || kind == 3 ? 1 : 0; };
    auto half_spin = [&](A v) -> Q { return {0.5f * v[0], 0.5f * v[1], 0.5f * v[2], zero}; };

    // Euler: x+ = x (+) dt v+, v+ = v + dt a
    auto update = [&](A x, A v, A a, A x_end, A v_end) {
        for (int i = 0; i < nv; ++i) v_end[i] = v[i] + dt * a[i];
        for (int b = 0; b < links_count; ++b) {
            const int kind = tree_rows[4 * b + 1], j = tree_rows[4 * b + 2], i = tree_rows[4 * b + 3];
            for (int k = 0; k < linear_count(kind); ++k) x_end[j + k] = x[j + k] + dt * v_end[i + k];
            if (!has_quaternion(kind)) continue;
            const int o = turn_of(kind);
            F scale;
            const Q q = unit(quaternion_at(x + j + o), scale) * exponential(vector_at(v_end + i + o) * each(dt));
            put_quaternion(x_end + j + o, unit(q, scale));
        }
    };
    // Runge-Kutta: `last` stages on, from `first` by the rates at the stage before; then the end
    auto stage = [&](A x, A v, A x_last, A v_last, A a_last, float part, A x_end, A v_end) {
        for (int i = 0; i < nv; ++i) v_end[i] = v[i] + part * a_last[i];
        for (int b = 0; b < links_count; ++b) {
            const int kind = tree_rows[4 * b + 1], j = tree_rows[4 * b + 2], i = tree_rows[4 * b + 3];
            for (int k = 0; k < linear_count(kind); ++k) x_end[j + k] = x[j + k] + part * v_last[i + k];
            if (!has_quaternion(kind)) continue;
            const int o = turn_of(kind);
            const Q rate = quaternion_at(x_last + j + o) * half_spin(v_last + i + o);
            put_quaternion(x_end + j + o, quaternion_at(x + j + o));
            add_quaternion(x_end + j + o, scaled(rate, each(part)));
        }
    };
    auto mean_rate = [&](A x, A v, int j, int i) -> Q {  // sum of the four, weighted 1, 2, 2, 1
        Q sum = quaternion_at(x + j) * half_spin(v + i);
        for (int k = 1; k < 4; ++k) {
            const Q rate = scaled(quaternion_at(x + k * nq + j) * half_spin(v + k * nv + i), each(k < 3 ? 2.0f : 1.0f));
            sum = {sum.x + rate.x, sum.y + rate.y, sum.z + rate.z, sum.w + rate.w};
        }
        return sum;
    };
    auto closed = [&](A x, A v, int j, int i) -> Q {
        const Q sum = mean_rate(x, v, j, i), q = quaternion_at(x + j);
        const float part = dt / 6.0f;
        return {q.x + part * sum.x, q.y + part * sum.y, q.z + part * sum.z, q.w + part * sum.w};
    };
    auto close = [&](A x, A v, A a) {
        const float part = dt / 6.0f;
        for (int i = 0; i < nv; ++i) v[4 * nv + i] = v[i] + part * (a[i] + 2.0f * (a[nv + i] + a[2 * nv + i]) + a[3 * nv + i]);
        for (int b = 0; b < links_count; ++b) {
            const int kind = tree_rows[4 * b + 1], j = tree_rows[4 * b + 2], i = tree_rows[4 * b + 3];
            for (int k = 0; k < linear_count(kind); ++k) {
                const A w = v + i + k;
                x[4 * nq + j + k] = x[j + k] + part * (w[0] + 2.0f * (w[nv] + w[2 * nv]) + w[3 * nv]);
            }
            if (!has_quaternion(kind)) continue;
            const int o = turn_of(kind);
            F scale;
            put_quaternion(x + 4 * nq + j + o, unit(closed(x, v, j + o, i + o), scale));
        }
    };
"""

STEP_GRADIENTS_TEXT = """
    // gradients x_grad, v_grad of the end become those of the start, and a_grad
    auto update_gradients = [&](A x, A x_end, A v_end, A of_x_end, A of_v_end, A x_grad, A v_grad, A a_grad) {
        for (int i = 0; i < nv; ++i) v_grad[i] += of_v_end[i];
        for (int b = 0; b < links_count; ++b) {
            const int kind = tree_rows[4 * b + 1], j = tree_rows[4 * b + 2], i = tree_rows[4 * b + 3];
            for (int k = 0; k < linear_count(kind); ++k) {
                x_grad[j + k] += of_x_end[j + k];
                v_grad[i + k] += dt * of_x_end[j + k];
            }
            if (!has_quaternion(kind)) continue;
            const int o = turn_of(kind);
            F scale;
            const Q q = unit(quaternion_at(x + j + o), scale);
            const V turn = vector_at(v_end + i + o) * each(dt);
            const V y = (quaternion_at(x_end + j + o).turned_back() * quaternion_at(of_x_end + j + o)).vector() * each(0.5f);
            add_vector(v_grad + i + o, right_jacobian(turn, y, -1.0f) * each(dt));
            const V of_start = matrix_of(exponential(turn)) * y;
            add_quaternion(x_grad + j + o, scaled(q * Q{of_start.x, of_start.y, of_start.z, zero}, 2.0f * scale));
        }
        for (int i = 0; i < nv; ++i) a_grad[i] = dt * v_grad[i];
    };
    auto rate_gradients = [&](Q of_rate, A x, A v, A x_grad, A v_grad) {
        add_quaternion(x_grad, of_rate * half_spin(v).turned_back());
        add_vector(v_grad, (quaternion_at(x).turned_back() * of_rate).vector() * each(0.5f));
    };
    auto stage_gradients = [&](A x_last, A v_last, float part, A of_x_end, A of_v_end, A x_grad, A v_grad, A of_x_last,
                               A of_v_last, A of_a_last) {
        for (int i = 0; i < nv; ++i) {
            v_grad[i] += of_v_end[i];
            of_a_last[i] += part * of_v_end[i];
        }
        for (int b = 0; b < links_count; ++b) {
            const int kind = tree_rows[4 * b + 1], j = tree_rows[4 * b + 2], i = tree_rows[4 * b + 3];
            for (int k = 0; k < linear_count(kind); ++k) {
                x_grad[j + k] += of_x_end[j + k];
                of_v_last[i + k] += part * of_x_end[j + k];
            }
            if (!has_quaternion(kind)) continue;
            const int o = turn_of(kind);
            const Q g = quaternion_at(of_x_end + j + o);
            add_quaternion(x_grad + j + o, g);
            rate_gradients(scaled(g, each(part)), x_last + j + o, v_last + i + o, of_x_last + j + o, of_v_last + i + o);
        }
    };
    auto close_gradients = [&](A x, A v, A of_x, A of_v, A of_a) {  // by stage, the end's gradients at stage 4
        const float part = dt / 6.0f;
        for (int k = 0; k < 4; ++k)
            for (int i = 0; i < nv; ++i) of_a[k * nv + i] = (k % 3 ? 2.0f * part : part) * of_v[4 * nv + i];
        for (int i = 0; i < nv; ++i) of_v[i] += of_v[4 * nv + i];
        for (int b = 0; b < links_count; ++b) {
            const int kind = tree_rows[4 * b + 1], j = tree_rows[4 * b + 2], i = tree_rows[4 * b + 3];
            for (int n = 0; n < linear_count(kind); ++n) {
                const F g = of_x[4 * nq + j + n];
                of_x[j + n] += g;
                for (int k = 0; k < 4; ++k) of_v[k * nv + i + n] += (k % 3 ? 2.0f * part : part) * g;
            }
            if (!has_quaternion(kind)) continue;
            const int o = turn_of(kind);
            F scale;
            const Q q = unit(closed(x, v, j + o, i + o), scale);
            const Q g = from_unit(quaternion_at(of_x + 4 * nq + j + o), q, scale);
            add_quaternion(of_x + j + o, g);
            for (int k = 0; k < 4; ++k) {
                const int at_x = k * nq + j + o, at_v = k * nv + i + o;
                rate_gradients(scaled(g, each(k % 3 ? 2.0f * part : part)), x + at_x, v + at_v, of_x + at_x, of_v + at_v);
            }
        }
    };
"""
