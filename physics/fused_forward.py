r"""All substeps of a call of the articulated step in one kernel: a thread steps a block of worlds, one world a lane.

The algorithm is that of `physics.articulated_step` (outward pass at zero acceleration, composite bodies, Newton's method as in
`physics.mass_matrix`, update), on the same laws. What it does not do is go through memory between kernels: the numbers of a
block stay in the cache, and worlds are the lanes of vector instructions. Lanes decide for themselves when Newton's method ends
for them, so that a world's motion does not depend on its neighbours. Only states and accelerations are kept, by node.
"""

import warp as wp

from physics.articulation import actuator_vector, dof_vector, link_vector
from physics.lane_forces import FORCES_TEXT
from physics.lane_steps import STEPS_TEXT
from physics.lane_tree import TREE_TEXT
from physics.lanes import COMPILER_FLAGS, LANES_TEXT

wp.set_module_options({"cpu_compiler_flags": COMPILER_FLAGS})

NEWTON_TEXT = """
    auto evaluate = [&](A x, A v, A a, float h, bool still) -> F {  // the residual at a, and its merit
        for (int i = 0; i < nv; ++i) residual[i] = bias[i];
        for (int j = 0; !still && j < nv; ++j) {
            F sum = residual[j] + H[j * nv + j] * a[j];
            const F own = a[j];
            each_above(j, [&](int i) {
                sum += H[j * nv + i] * a[i];
                residual[i] += H[j * nv + i] * own;
            });
            residual[j] = sum;
        }
        subtract_forces(x, v, a, h, residual);
        F merit = zero;
        for (int i = 0; i < nv; ++i) merit += residual[i] * residual[i] / H[i * nv + i];
        return merit;
    };
    auto accelerate = [&](A x, A v, A a, float h) {
        for (int i = 0; i < nv; ++i) a[i] = zero;
        outward(x, v, a, false);
        mass_matrix(true);
        const F start = evaluate(x, v, a, h, true);
        F merit = start;
        B active = one > 0.0f;
        for (int iteration = 0; iteration < 20; ++iteration) {
            slopes(x, v, a, h, fresh_diagonal, fresh_blocks);
            F change = zero;
            for (int i = 0; iteration > 0 && i < nv; ++i)
                change = largest(change, absolute(fresh_diagonal[i] - diagonal[i])
                                             / (H[i * nv + i] + absolute(fresh_diagonal[i])));
            const B renew = iteration == 0 ? active : active & (change > 1.0e-5f);
            if (any(renew)) {
                for (int i = 0; i < nv; ++i) diagonal[i] = renew ? fresh_diagonal[i] : diagonal[i];
                for (int i = 0; i < 3 * nv; ++i) blocks[i] = renew ? fresh_blocks[i] : blocks[i];
                assemble_and_factorise(h > 0.0f);
            }
            for (int i = 0; i < nv; ++i) step[i] = residual[i];
            solve(step);
            B moves = zero > 1.0f;
            for (int i = 0; i < nv; ++i) {
                step[i] = active ? step[i] : zero;
                a[i] -= step[i];
                moves |= absolute(step[i]) * h > 1.0e-5f * (1.0e-3f + absolute(v[i] + h * a[i]));
            }
            if (iteration > 0) active &= renew & moves;  // not renewed: linear as far as it matters, this step ends it
            if (!any(active)) break;
            F trial = evaluate(x, v, a, h, false);
            F fraction = one;
            for (int halvings = 0; halvings < 8; ++halvings) {
                const B worse = active & (trial > merit) & (trial > 1.0e-10f * start);
                if (!any(worse)) break;
                fraction = worse ? 0.5f * fraction : fraction;
                for (int i = 0; i < nv; ++i) a[i] = worse ? a[i] + fraction * step[i] : a[i];
                const F again = evaluate(x, v, a, h, false);
                trial = worse ? again : trial;
            }
            merit = active ? trial : merit;
        }
    };
"""

FORWARD_TEXT = """
    const int stages = runge_kutta ? 4 : 1, nodes = frames * substeps * stages;
    const A kept = memory(history.data, (nodes + 1) * (nq + 2 * nv));
    const A X = kept, Y = X + (nodes + 1) * nq, Z = Y + (nodes + 1) * nv;  // coordinates, rates, accelerations by node
    gather_inputs();
    gather(first.data, nq, 0, nq, X);
    gather(first_rates.data, nv, 0, nv, Y);
    for (int s = 0; s < nodes; ++s) {
        const int frame = s / (substeps * stages), k = s % stages;
        const A x = X + s * nq, v = Y + s * nv, a = Z + s * nv;
        if (s % (substeps * stages) == 0) gather_frame(frame);
        accelerate(x, v, a, h);
        if (stages == 1) {
            update(x, v, a, x + nq, v + nv);
        } else if (k < 3) {
            const A x0 = X + (s - k) * nq, v0 = Y + (s - k) * nv;
            stage(x0, v0, x, v, a, k < 2 ? 0.5f * dt : dt, x + nq, v + nv);
        } else {
            close(X + (s - 3) * nq, Y + (s - 3) * nv, Z + (s - 3) * nv);
        }
        if ((s + 1) % (substeps * stages) == 0) {
            scatter(x + nq, nq, coordinates.data, frames * nq, frame * nq, false);
            scatter(v + nv, nv, rates.data, frames * nv, frame * nv, false);
        }
    }
"""


@wp.func_native(LANES_TEXT + TREE_TEXT + FORCES_TEXT + STEPS_TEXT + NEWTON_TEXT + FORWARD_TEXT)
def run_forward(  # type: ignore[empty-body]
    block: int, first: wp.array2d(dtype=float), first_rates: wp.array2d(dtype=float), links: wp.array2d(dtype=link_vector),
    dof_numbers: wp.array2d(dtype=dof_vector), actuators: wp.array2d(dtype=actuator_vector),
    controls: wp.array3d(dtype=float), wrenches: wp.array3d(dtype=wp.spatial_vector), gravity: wp.array(dtype=wp.vec3),
    tree: wp.array2d(dtype=int), dofs: wp.array2d(dtype=int), drives: wp.array2d(dtype=int), dt: float, h: float,
    runge_kutta: int, substeps: int, frames: int, work_size: int, work: wp.array(dtype=float),
    history: wp.array(dtype=float), coordinates: wp.array3d(dtype=float), rates: wp.array3d(dtype=float),
):  # fmt: skip
    ...


@wp.kernel(enable_backward=False)
def fused_forward_kernel(
    first: wp.array2d(dtype=float),
    first_rates: wp.array2d(dtype=float),
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
    coordinates: wp.array3d(dtype=float),
    rates: wp.array3d(dtype=float),
):
    """One thread a block of worlds; coordinates and rates at the ends of frames."""
    run_forward(
        wp.tid(), first, first_rates, links, dof_numbers, actuators, controls, wrenches, gravity, tree, dofs, drives, dt, h,
        runge_kutta, substeps, frames, work_size, work, history, coordinates, rates,
    )  # fmt: skip
