r"""The adjoint of `physics.fused_forward` in one kernel: from the last node to the first, from the states that it kept.

At each node: gradients of the update; A at the solution and its factors; multipliers lambda = -A^-T a_grad; then the gradient
of lambda . R(a), which is that of the virtual power of all links, the forces along joints taken off:

    sum over links (V . F + W . N),      W = W_p + sum e lambda,  V = V_p + W_p x r + sum e lambda

F and N a link's own load and (W, V) its motion under the virtual rates lambda (linear ones in V, angular ones in W). The sum
over links makes the inward pass its own adjoint; what is differentiated by hand is the outward recursion of
`physics.inverse_dynamics`, the rotation of links, and the laws. Nothing is taped or stored beside the states.
"""

import warp as wp

from physics.articulation import actuator_vector, dof_vector, link_vector
from physics.lane_forces import FORCE_GRADIENTS_TEXT, FORCES_TEXT
from physics.lane_steps import STEP_GRADIENTS_TEXT, STEPS_TEXT
from physics.lane_tree import TREE_TEXT
from physics.lanes import COMPILER_FLAGS, LANES_TEXT

wp.set_module_options({"cpu_compiler_flags": COMPILER_FLAGS})

GRADIENT_MEMORY_TEXT = """
    const int stages = runge_kutta ? 4 : 1, nodes = frames * substeps * stages;
    const A P_grad = take(26 * links_count), D_grad = take(4 * nv), T_grad = take(6 * na), G_grad = take(3);
    const A U_grad = take(na), W_grad = take(6 * links_count);
    const A turn_grads = take(9 * slots), spin_grads = take(3 * slots), spin_rate_grads = take(3 * slots);
    const A linear_grads = take(3 * slots), virtual_spins = take(3 * slots), virtual_linear = take(3 * slots);
    const A x_grads = take((stages + 1) * nq), v_grads = take((stages + 1) * nv), a_grads = take((stages + 1) * nv);
    const A incoming = take(nq + nv);
    auto clear = [&](A p, int count) { for (int k = 0; k < count; ++k) p[k] = zero; };
"""

POWER_TEXT = """
    // gradient of the virtual power of all links under the rates `multipliers`; loads were carried to the root before
    auto power_gradients = [&](A x, A v, A a, A multipliers, A x_grad, A v_grad) {
        put_vector(virtual_spins, nothing);
        put_vector(virtual_linear, nothing);
        for (int b = 0; b < links_count; ++b) {
            const int above = tree_rows[4 * b], kind = tree_rows[4 * b + 1], i = tree_rows[4 * b + 3];
            V spin = vector_at(virtual_spins + 3 * above);
            V moving = vector_at(virtual_linear + 3 * above) + cross(spin, vector_at(arms + 3 * (b + 1)));
            for (int k = 0; k < rate_count(kind); ++k)
                (is_linear(kind, k) ? moving : spin) += vector_at(axes + 3 * (i + k)) * multipliers[i + k];
            put_vector(virtual_spins + 3 * (b + 1), spin);
            put_vector(virtual_linear + 3 * (b + 1), moving);
        }
        clear(turn_grads, 9 * slots);
        const A sums[] = {spin_grads, spin_rate_grads, linear_grads};
        for (A sum : sums) clear(sum, 3 * slots);
        const V g = vector_at(G);
        for (int b = links_count - 1; b >= 0; --b) {
            const int above = tree_rows[4 * b], kind = tree_rows[4 * b + 1], j = tree_rows[4 * b + 2], i = tree_rows[4 * b + 3];
            const A p = P + 26 * b, p_grad = P_grad + 26 * b;
            const M turn = matrix_at(turns + 9 * (b + 1)), base = matrix_at(turns + 9 * above);
            const V w = vector_at(spins + 3 * (b + 1)), alpha = vector_at(spin_rates + 3 * (b + 1));
            const V c = vector_at(centers + 3 * (b + 1)), W_own = vector_at(virtual_spins + 3 * (b + 1));
            const S around = symmetric_at(inertias + 6 * (b + 1)), own = symmetric_at(p + 4);

            // force: m (acc + alpha x c + w x (w x c) - g) - push, moment: I alpha + w x I w + c x force - twist
            const V wc = cross(w, c);
            const V acceleration = vector_at(linear + 3 * (b + 1)) + cross(alpha, c) + cross(w, wc) - g;
            const V force = acceleration * p[0] - vector_at(W + 6 * b);
            const V center = vector_at(virtual_linear + 3 * (b + 1)) + cross(W_own, c);
            const V pull = center * p[0];
            p_grad[0] += dot(center, acceleration);
            add_vector(G_grad, -pull);
            add_vector(W_grad + 6 * b, -center);
            add_vector(W_grad + 6 * b + 3, -W_own);
            const V pull_w = cross(pull, w), spin_w = cross(W_own, w);
            const V of_acc = vector_at(linear_grads + 3 * (b + 1)) + pull;
            const V of_alpha = vector_at(spin_rate_grads + 3 * (b + 1)) + cross(c, pull) + around * W_own;
            const V of_w = vector_at(spin_grads + 3 * (b + 1)) + cross(wc, pull) + cross(c, pull_w) + cross(around * w, W_own)
                           + around * spin_w;
            const V of_c = cross(force, W_own) + cross(pull, alpha) + cross(pull_w, w);
            M of_turn = matrix_at(turn_grads + 9 * (b + 1));
            const V u1 = turn.back(W_own), u2 = turn.back(alpha), u3 = turn.back(spin_w), u4 = turn.back(w);
            p_grad[4] += u1.x * u2.x + u3.x * u4.x;
            p_grad[5] += u1.y * u2.y + u3.y * u4.y;
            p_grad[6] += u1.z * u2.z + u3.z * u4.z;
            p_grad[7] += u1.y * u2.z + u1.z * u2.y + u3.y * u4.z + u3.z * u4.y;
            p_grad[8] += u1.z * u2.x + u1.x * u2.z + u3.z * u4.x + u3.x * u4.z;
            p_grad[9] += u1.x * u2.y + u1.y * u2.x + u3.x * u4.y + u3.y * u4.x;
            of_turn.add_outer(W_own, own * u2);
            of_turn.add_outer(alpha, own * u1);
            of_turn.add_outer(spin_w, own * u4);
            of_turn.add_outer(w, own * u3);
            of_turn.add_outer(of_c, vector_at(p + 1));
            add_vector(p_grad + 1, turn.back(of_c));

            // recursion from the parent
            const V w0 = vector_at(spins + 3 * above), alpha0 = vector_at(spin_rates + 3 * above);
            const V arm = vector_at(arms + 3 * (b + 1)), all_force = vector_at(forces + 3 * (b + 1));
            const V all_moment = vector_at(moments + 3 * (b + 1));
            V s = nothing, l = nothing;
            for (int k = 0; k < rate_count(kind); ++k)
                (is_linear(kind, k) ? l : s) += vector_at(axes + 3 * (i + k)) * v[i + k];
            const V acc_w = cross(of_acc, w0);
            const V of_arm = cross(all_force, vector_at(virtual_spins + 3 * above)) + cross(of_acc, alpha0) + cross(acc_w, w0);
            const V of_s = of_w + cross(of_alpha, w0), of_l = acc_w * each(2.0f);
            add_vector(linear_grads + 3 * above, of_acc);
            add_vector(spin_rate_grads + 3 * above, of_alpha + cross(arm, of_acc));
            add_vector(spin_grads + 3 * above, of_w + cross(s, of_alpha) + cross(cross(w0, arm) + l * each(2.0f), of_acc)
                                                   + cross(arm, acc_w));
            for (int k = 0; k < rate_count(kind); ++k) {
                const bool along = is_linear(kind, k);
                const V e = vector_at(axes + 3 * (i + k));
                v_grad[i + k] += dot(along ? of_l : of_s, e);
                V of_e = (along ? of_l : of_s) * v[i + k] + (along ? of_acc : of_alpha) * a[i + k]
                         + (along ? all_force : all_moment) * multipliers[i + k];
                if (kind == 2 || kind == 3) {
                    if (along) {
                        of_e += of_arm * x[j];
                        x_grad[j] += dot(of_arm, e);
                    }
                    of_turn.add_outer(of_e, vector_at(p + 17));
                    add_vector(p_grad + 17, turn.back(of_e));
                } else if (!along) {
                    const int column = kind == 1 ? k - 3 : k;
                    (column == 0 ? of_turn.x : column == 1 ? of_turn.y : of_turn.z) += of_e;
                }
            }
            if (kind == 1) add_vector(x_grad + j, of_arm);
            add_vector(p_grad + 10, base.back(of_arm));

            // rotation: turn = base matrix(q), q = offset * joint
            const Q offset = quaternion_at(p + 13);
            Q joint = {zero, zero, zero, one};
            const bool turned = kind == 1 || kind == 2 || kind == 4;
            if (turned) joint = joint_quaternion(kind, p, x + j);
            const Q q = offset * joint;
            const M local = matrix_of(q);
            M of_base = {of_turn.x * local.x.x + of_turn.y * local.y.x + of_turn.z * local.z.x,
                         of_turn.x * local.x.y + of_turn.y * local.y.y + of_turn.z * local.z.y,
                         of_turn.x * local.x.z + of_turn.y * local.y.z + of_turn.z * local.z.z};
            of_base.add_outer(of_arm, vector_at(p + 10));
            if (above > 0) add_matrix(turn_grads + 9 * above, of_base);
            const Q of_q = from_matrix({base.back(of_turn.x), base.back(of_turn.y), base.back(of_turn.z)}, q);
            add_quaternion(p_grad + 13, of_q * joint.turned_back());
            if (!turned) continue;
            const Q of_joint = offset.turned_back() * of_q;
            if (kind == 2) {
                F sine, cosine;
                sine_cosine(0.5f * x[j], sine, cosine);
                add_vector(p_grad + 17, of_joint.vector() * sine);
                x_grad[j] += 0.5f * (dot(of_joint.vector(), vector_at(p + 17)) * cosine - of_joint.w * sine);
            } else {
                const int o = kind == 1 ? 3 : 0;
                F scale;
                unit(quaternion_at(x + j + o), scale);
                add_quaternion(x_grad + j + o, from_unit(of_joint, joint, scale));
            }
        }
    };
"""

ADJOINT_TEXT = """
    const A kept = memory(history.data, (nodes + 1) * (nq + 2 * nv));
    const A X = kept, Y = X + (nodes + 1) * nq, Z = Y + (nodes + 1) * nv;
    auto node_gradients = [&](int s, int k) {
        const A x = X + s * nq, v = Y + s * nv, a = Z + s * nv, x_grad = x_grads + k * nq, v_grad = v_grads + k * nv;
        outward(x, v, a, true);
        mass_matrix(false);
        slopes(x, v, a, h, diagonal, blocks);
        assemble_and_factorise(h > 0.0f);
        for (int i = 0; i < nv; ++i) step[i] = -a_grads[k * nv + i];
        solve_transposed(step);
        power_gradients(x, v, a, step, x_grad, v_grad);
        subtract_force_gradients(x, v, a, h, step, x_grad, v_grad);
    };
    gather_inputs();
    clear(P_grad, 26 * links_count);
    clear(D_grad, 4 * nv);
    clear(T_grad, 6 * na);
    clear(G_grad, 3);
    clear(x_grads, (stages + 1) * nq);
    clear(v_grads, (stages + 1) * nv);
    const A x_last = x_grads + stages * nq, v_last = v_grads + stages * nv;
    for (int t = frames * substeps - 1; t >= 0; --t) {
        const int frame = t / substeps, s = t * stages;
        const A x = X + s * nq, v = Y + s * nv;
        if ((t + 1) % substeps == 0) {
            gather_frame(frame);
            clear(U_grad, na);
            clear(W_grad, 6 * links_count);
            gather(of_coordinates.data, frames * nq, frame * nq, nq, incoming);
            gather(of_rates.data, frames * nv, frame * nv, nv, incoming + nq);
            for (int j = 0; j < nq; ++j) x_last[j] += incoming[j];
            for (int i = 0; i < nv; ++i) v_last[i] += incoming[nq + i];
        }
        if (stages == 1) {
            update_gradients(x, x + nq, v + nv, x_last, v_last, x_grads, v_grads, a_grads);
            node_gradients(s, 0);
        } else {
            close_gradients(x, v, x_grads, v_grads, a_grads);
            for (int k = 3; k >= 0; --k) {
                const A of_x = x_grads + k * nq, of_v = v_grads + k * nv, of_a = a_grads + k * nv;
                const float part = k < 2 ? 0.5f * dt : dt;
                if (k < 3)
                    stage_gradients(x + k * nq, v + k * nv, part, of_x + nq, of_v + nv, x_grads, v_grads, of_x, of_v, of_a);
                node_gradients(s + k, k);
            }
        }
        for (int j = 0; j < nq; ++j) x_last[j] = x_grads[j];
        for (int i = 0; i < nv; ++i) v_last[i] = v_grads[i];
        clear(x_grads, stages * nq);
        clear(v_grads, stages * nv);
        if (t % substeps == 0) {
            const int of_controls = frame % controls.shape[1], of_wrenches = frame % wrenches.shape[1];
            scatter(U_grad, na, controls_grad.data, (size_t)controls.shape[1] * na, of_controls * na, true);
            scatter(W_grad, 6 * links_count, (float*)wrenches_grad.data, (size_t)wrenches.shape[1] * 6 * links_count,
                    of_wrenches * 6 * links_count, true);
        }
    }
    scatter(x_last, nq, first_grad.data, nq, 0, true);
    scatter(v_last, nv, first_rates_grad.data, nv, 0, true);
    scatter(P_grad, 26 * links_count, (float*)links_grad.data, 26 * links_count, 0, true);
    scatter(D_grad, 4 * nv, (float*)dof_grad.data, 4 * nv, 0, true);
    scatter(T_grad, 6 * na, (float*)actuators_grad.data, 6 * na, 0, true);
    scatter(G_grad, 3, (float*)gravity_grad.data, 3, 0, true);
"""


@wp.func_native(
    LANES_TEXT + TREE_TEXT + FORCES_TEXT + STEPS_TEXT + GRADIENT_MEMORY_TEXT + FORCE_GRADIENTS_TEXT + STEP_GRADIENTS_TEXT
    + POWER_TEXT + ADJOINT_TEXT
)  # fmt: skip
def run_adjoint(  # type: ignore[empty-body]
    block: int, first: wp.array2d(dtype=float), links: wp.array2d(dtype=link_vector),
    dof_numbers: wp.array2d(dtype=dof_vector), actuators: wp.array2d(dtype=actuator_vector),
    controls: wp.array3d(dtype=float), wrenches: wp.array3d(dtype=wp.spatial_vector), gravity: wp.array(dtype=wp.vec3),
    tree: wp.array2d(dtype=int), dofs: wp.array2d(dtype=int), drives: wp.array2d(dtype=int), dt: float, h: float,
    runge_kutta: int, substeps: int, frames: int, work_size: int, work: wp.array(dtype=float),
    history: wp.array(dtype=float), of_coordinates: wp.array3d(dtype=float), of_rates: wp.array3d(dtype=float),
    first_grad: wp.array2d(dtype=float), first_rates_grad: wp.array2d(dtype=float),
    links_grad: wp.array2d(dtype=link_vector), dof_grad: wp.array2d(dtype=dof_vector),
    actuators_grad: wp.array2d(dtype=actuator_vector), controls_grad: wp.array3d(dtype=float),
    wrenches_grad: wp.array3d(dtype=wp.spatial_vector), gravity_grad: wp.array(dtype=wp.vec3),
):  # fmt: skip
    ...


@wp.kernel(enable_backward=False)
def fused_adjoint_kernel(
    first: wp.array2d(dtype=float),
    links: wp.array2d(dtype=link_vector),
    dof_numbers: wp.array2d(dtype=dof_vector),
    actuators: wp.array2d(dtype=actuator_vector),
    controls: wp.array3d(dtype=float),
    wrenches: wp.array3d(dtype=wp.spatial_vector),
    gravity: wp.array(dtype=wp.vec3),
    tree: wp.array2d(dtype=int),
    dofs: wp.array2d(dtype=int),
    drives: wp.array2d(dtype=int),
    dt: float,
    h: float,
    runge_kutta: int,
    substeps: int,
    frames: int,
    work_size: int,
    work: wp.array(dtype=float),
    history: wp.array(dtype=float),
    of_coordinates: wp.array3d(dtype=float),
    of_rates: wp.array3d(dtype=float),
    first_grad: wp.array2d(dtype=float),
    first_rates_grad: wp.array2d(dtype=float),
    links_grad: wp.array2d(dtype=link_vector),
    dof_grad: wp.array2d(dtype=dof_vector),
    actuators_grad: wp.array2d(dtype=actuator_vector),
    controls_grad: wp.array3d(dtype=float),
    wrenches_grad: wp.array3d(dtype=wp.spatial_vector),
    gravity_grad: wp.array(dtype=wp.vec3),
):
    """One thread a block of worlds; adds to the gradients of the inputs."""
    run_adjoint(
        wp.tid(), first, links, dof_numbers, actuators, controls, wrenches, gravity, tree, dofs, drives, dt, h, runge_kutta,
        substeps, frames, work_size, work, history, of_coordinates, of_rates, first_grad, first_rates_grad, links_grad,
        dof_grad, actuators_grad, controls_grad, wrenches_grad, gravity_grad,
    )  # fmt: skip
