r"""C++ text of the fused step, third part: forces along joint coordinates, their slopes, and their gradients.

The laws are those of `physics.joint_forces`, at v^ = v + h a and q^ = q (+) h v^. For a spherical joint with rotation vector
r = log(q exp(h v^)): dr = Jr^-1(r) (h Jr(h v^) dv^ + exp(h v^)^T d), d the turn of q in its own axes; so a gradient g of r
becomes y = Jr^-T(r) g, then h Jr^T(h v^) y for v^ and exp(h v^) y for d (Sola et al., 2018, eq. 67 to 71, 143, 144).
"""

FORCES_TEXT = """
    auto ramp = [&](F x) -> F {
        const F t = bounded(x * 1.0e2f, zero, one);
        return x > 1.0e-2f ? x - 0.5e-2f : 1.0e-2f * t * t * t * (1.0f - 0.5f * t);
    };
    auto ramp_slope = [&](F x) -> F {
        const F t = bounded(x * 1.0e2f, zero, one);
        return t * t * (3.0f - 2.0f * t);
    };
    auto ramp_bend = [&](F x) -> F {
        const F t = bounded(x * 1.0e2f, zero, one);
        return 6.0e2f * t * (1.0f - t);
    };
    auto acts = [&](A p, F q) -> bool { return any((p[20] != 0.0f) | (q < p[22]) | (q > p[23])); };
    auto limited_force = [&](A p, F q, F v) -> F {
        const F low = p[22] - q, high = q - p[23];
        return p[20] * (p[21] - q) + p[24] * (ramp(low) - ramp(high)) - p[25] * (ramp_slope(low) + ramp_slope(high)) * v;
    };
    auto limited_slopes = [&](A p, F q, F v, F& of_v) -> F {
        const F low = p[22] - q, high = q - p[23], engaged = ramp_slope(low) + ramp_slope(high);
        of_v = -p[25] * engaged;
        return -p[20] - p[24] * engaged - p[25] * (ramp_bend(high) - ramp_bend(low)) * v;
    };
    auto smoothing = [&](A d) -> F { return largest(d[3], each(1.0e-6f)); };
    auto friction_slope = [&](A d, F v) -> F {
        const F width = smoothing(d), size = root(v * v + width * width), part = width / size;
        return -d[1] - d[2] * part * part / size;
    };
    auto actuator_raw = [&](int kind, A d, F control, F q, F v) -> F {
        const F u = bounded(control, d[3], d[4]);
        return kind == 1 ? d[1] * (u - q) - d[2] * v : kind == 2 ? d[2] * (u - v) : d[0] * u;
    };
    auto actuator_slopes = [&](int kind, A d, F control, F q, F v, F& of_v) -> F {
        const B free = absolute(actuator_raw(kind, d, control, q, v)) < d[5];
        of_v = free && kind != 0 ? -d[2] : zero;
        return free && kind == 1 ? -d[1] : zero;
    };
    auto has_ball_law = [&](A p) -> bool { return any((p[20] != 0.0f) | (p[23] < 5.0e8f)); };
    struct Ball {  // a spherical joint's place and cone
        V r, n, spin;
        F angle, over;
        B cone;
    };
    auto ball_at = [&](A p, A x, V spin, float h) -> Ball {
        F scale;
        Ball at;
        at.r = logarithm(unit(quaternion_at(x), scale) * exponential(spin * each(h)));
        at.spin = spin;
        const F square = dot(at.r, at.r);
        at.cone = (p[23] < 5.0e8f) & (square > 1.0e-10f);
        at.angle = root(largest(square, each(1.0e-10f)));
        at.n = at.r * (1.0f / at.angle);
        at.over = at.angle - p[23];
        return at;
    };
    auto ball_force = [&](A p, const Ball& at) -> V {
        const F push = at.cone ? p[24] * ramp(at.over) / at.angle : zero, drag = at.cone ? p[25] * ramp_slope(at.over) : zero;
        return at.r * (-p[20] - push) - at.spin * drag;
    };
    auto ball_along = [&](A p, const Ball& at, V y, bool transposed) -> V {  // derivative in r, times y
        const F push = at.cone ? p[24] * ramp(at.over) / at.angle : zero;
        const F stiff = at.cone ? p[24] * ramp_slope(at.over) : zero, bend = at.cone ? p[25] * ramp_bend(at.over) : zero;
        const F part = dot(at.n, y);
        const V rest = y * (-p[20] - push) - at.n * (part * (stiff - push));
        return transposed ? rest - at.n * (dot(at.spin, y) * bend) : rest - at.spin * (part * bend);
    };
    auto ball_rate_slope = [&](A p, const Ball& at) -> F { return at.cone ? -p[25] * ramp_slope(at.over) : zero; };
    auto end_rate = [&](A v, A a, int i, float h) -> F { return v[i] + h * a[i]; };
    auto end_spin = [&](A v, A a, int i, float h) -> V { return vector_at(v + i) + vector_at(a + i) * each(h); };

    // takes the forces at the end of the step off `to`
    auto subtract_forces = [&](A x, A v, A a, float h, A to) {
        for (int b = 0; b < links_count; ++b) {
            const int kind = tree_rows[4 * b + 1], j = tree_rows[4 * b + 2], i = tree_rows[4 * b + 3];
            const A p = P + 26 * b;
            if (kind == 2 || kind == 3) {
                const F rate = end_rate(v, a, i, h), place = x[j] + h * rate;
                if (acts(p, place)) to[i] -= limited_force(p, place, rate);
            } else if (kind == 4 && has_ball_law(p)) {
                add_vector(to + i, -ball_force(p, ball_at(p, x + j, end_spin(v, a, i, h), h)));
            }
        }
        for (int i = 0; i < nv; ++i) {
            const A d = D + 4 * i;
            const F rate = end_rate(v, a, i, h);
            to[i] += d[1] * rate;
            if (!any(d[2] != 0.0f)) continue;
            const F width = smoothing(d);
            to[i] += d[2] * rate / root(rate * rate + width * width);  // apart: the same bits where it is zero
        }
        for (int m = 0; m < na; ++m) {
            const int b = drives.data[2 * m], kind = drives.data[2 * m + 1], i = tree_rows[4 * b + 3];
            const A d = T + 6 * m;
            const F rate = end_rate(v, a, i, h), place = x[tree_rows[4 * b + 2]] + h * rate;
            to[i] -= bounded(actuator_raw(kind, d, U[m], place, rate), -d[5], d[5]);
        }
    };

    // -dtau/da: on the diagonal, and the blocks of spherical joints, row by row
    auto slopes = [&](A x, A v, A a, float h, A on_diagonal, A in_blocks) {
        for (int i = 0; i < nv; ++i) on_diagonal[i] = zero;
        if (h == 0.0f) return;
        for (int i = 0; i < nv; ++i) {
            const A d = D + 4 * i;
            on_diagonal[i] = any(d[2] != 0.0f) ? -h * friction_slope(d, end_rate(v, a, i, h)) : h * d[1];
        }
        for (int b = 0; b < links_count; ++b) {
            const int kind = tree_rows[4 * b + 1], j = tree_rows[4 * b + 2], i = tree_rows[4 * b + 3];
            const A p = P + 26 * b;
            if (kind == 2 || kind == 3) {
                const F rate = end_rate(v, a, i, h), place = x[j] + h * rate;
                if (!acts(p, place)) continue;
                F of_v;
                const F of_q = limited_slopes(p, place, rate, of_v);
                on_diagonal[i] -= h * (of_v + h * of_q);
            } else if (kind == 4) {
                for (int k = 0; k < 9; ++k) in_blocks[3 * i + k] = zero;
                if (!has_ball_law(p)) continue;
                const Ball at = ball_at(p, x + j, end_spin(v, a, i, h), h);
                for (int k = 0; k < 3; ++k) {
                    const V e = {k == 0 ? one : zero, k == 1 ? one : zero, k == 2 ? one : zero};
                    const V turn = right_jacobian_inverse(at.r, right_jacobian(at.spin * each(h), e, 1.0f), 1.0f);
                    const V column = (ball_along(p, at, turn, false) * each(h) + e * ball_rate_slope(p, at)) * each(-h);
                    in_blocks[3 * i + k] = column.x;
                    in_blocks[3 * i + 3 + k] = column.y;
                    in_blocks[3 * i + 6 + k] = column.z;
                    on_diagonal[i + k] += k == 0 ? column.x : k == 1 ? column.y : column.z;
                }
            }
        }
        for (int m = 0; m < na; ++m) {
            const int b = drives.data[2 * m], kind = drives.data[2 * m + 1], i = tree_rows[4 * b + 3];
            const F rate = end_rate(v, a, i, h), place = x[tree_rows[4 * b + 2]] + h * rate;
            F of_v;
            const F of_q = actuator_slopes(kind, T + 6 * m, U[m], place, rate, of_v);
            on_diagonal[i] -= h * (of_v + h * of_q);
        }
    };
"""

FORCE_GRADIENTS_TEXT = """
    // adds the gradient of -multipliers . tau to those of states and numbers
    auto subtract_force_gradients = [&](A x, A v, A a, float h, A multipliers, A x_grad, A v_grad) {
        auto of_end = [&](int i, int j, F of_q, F of_v) {
            x_grad[j] += of_q;
            v_grad[i] += of_v + h * of_q;
        };
        for (int b = 0; b < links_count; ++b) {
            const int kind = tree_rows[4 * b + 1], j = tree_rows[4 * b + 2], i = tree_rows[4 * b + 3];
            const A p = P + 26 * b, g = P_grad + 26 * b;
            if (kind == 2 || kind == 3) {
                const F t = -multipliers[i], rate = end_rate(v, a, i, h), place = x[j] + h * rate;
                const F low = p[22] - place, high = place - p[23];
                g[20] += t * (p[21] - place);
                g[21] += t * p[20];
                if (any((low > 0.0f) | (high > 0.0f))) {
                    g[22] += t * (p[24] * ramp_slope(low) - p[25] * ramp_bend(low) * rate);
                    g[23] += t * (p[24] * ramp_slope(high) + p[25] * ramp_bend(high) * rate);
                    g[24] += t * (ramp(low) - ramp(high));
                    g[25] -= t * (ramp_slope(low) + ramp_slope(high)) * rate;
                }
                if (!acts(p, place)) continue;
                F of_v;
                const F of_q = limited_slopes(p, place, rate, of_v);
                of_end(i, j, t * of_q, t * of_v);
            } else if (kind == 4) {
                const V t = -vector_at(multipliers + i), spin = end_spin(v, a, i, h);
                const Ball at = ball_at(p, x + j, spin, h);
                g[20] -= dot(t, at.r);
                if (any(at.cone)) {
                    const F along = dot(at.n, t), slipping = dot(spin, t);
                    g[23] += at.cone ? along * p[24] * ramp_slope(at.over) + slipping * p[25] * ramp_bend(at.over) : zero;
                    g[24] -= at.cone ? along * ramp(at.over) : zero;
                    g[25] -= at.cone ? slipping * ramp_slope(at.over) : zero;
                }
                if (!has_ball_law(p)) continue;
                const V turn = right_jacobian_inverse(at.r, ball_along(p, at, t, true), -1.0f);
                const V of_spin = right_jacobian(spin * each(h), turn, -1.0f) * each(h) + t * ball_rate_slope(p, at);
                add_vector(v_grad + i, of_spin);
                F scale;
                const Q q = unit(quaternion_at(x + j), scale);
                const V of_turn = matrix_of(exponential(spin * each(h))) * turn;
                add_quaternion(x_grad + j, scaled(q * Q{of_turn.x, of_turn.y, of_turn.z, zero}, 2.0f * scale));
            }
        }
        for (int i = 0; i < nv; ++i) {
            const A d = D + 4 * i, g = D_grad + 4 * i;
            const F t = -multipliers[i], rate = end_rate(v, a, i, h), width = smoothing(d);
            const F size = root(rate * rate + width * width);
            g[0] -= t * a[i];
            g[1] -= t * rate;
            g[2] -= t * rate / size;
            g[3] += d[3] > 1.0e-6f ? t * d[2] * rate * width / (size * size * size) : zero;
            v_grad[i] += t * friction_slope(d, rate);
        }
        for (int m = 0; m < na; ++m) {
            const int b = drives.data[2 * m], kind = drives.data[2 * m + 1], j = tree_rows[4 * b + 2], i = tree_rows[4 * b + 3];
            const A d = T + 6 * m, g = T_grad + 6 * m;
            const F rate = end_rate(v, a, i, h), place = x[j] + h * rate, control = U[m];
            const F raw = actuator_raw(kind, d, control, place, rate), u = bounded(control, d[3], d[4]);
            const F t = -multipliers[i];
            g[5] += raw > d[5] ? t : raw < -d[5] ? -t : zero;
            const F free = ((raw > d[5]) | (raw < -d[5])) ? zero : t;
            const F of_u = free * (kind == 1 ? d[1] : kind == 2 ? d[2] : d[0]);
            g[3] += control < d[3] ? of_u : zero;
            g[4] += control > d[4] ? of_u : zero;
            U_grad[m] += ((control < d[3]) | (control > d[4])) ? zero : of_u;
            if (kind == 0) {
                g[0] += free * u;
            } else if (kind == 1) {
                g[1] += free * (u - place);
                g[2] -= free * rate;
                of_end(i, j, -free * d[1], -free * d[2]);
            } else {
                g[2] += free * (u - rate);
                of_end(i, j, zero, -free * d[2]);
            }
        }
    };
"""
