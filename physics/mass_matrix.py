r"""The mass matrix of a tree by composite bodies, and the solution of its equations of motion for the accelerations.

Composite of link b: mass m, first moment k and inertia I about the link's origin, of b and all that hangs on it; towards the
parent by the arm r: m, k + m r, I + m (r.r 1 - r r^T) + 2 (r.k) 1 - r k^T - k r^T. A unit rate along a rotation axis e gives
the momentum (e x k, I e), along a line (m e, k x e); H_ij is its part along the axis of j, j on the way to the root
(Featherstone, "Rigid Body Dynamics Algorithms", 2008, ch. 6).

    R(a) = H a + armature a + c - tau(q^, v^) = 0,     A = dR/da = H + armature - h dtau/dv - h^2 dtau/dq

is solved by Newton's method with step halving (R is that of a convex function where tau is that of one); A is kept as its LU
factors, without pivoting: H is positive definite, and damping adds to it. No gradient passes through anything here.
"""

import warp as wp

from physics.articulation import actuator_vector, dof_vector, link_vector
from physics.inverse_dynamics import inertia_of, motion_vector, turn_of
from physics.joint_forces import (
    actuator_force,
    actuator_slopes,
    ball_force,
    ball_slope_place,
    ball_slope_rate,
    dof_force,
    dof_slope,
    joint_force,
    joint_slopes,
    right_jacobian,
    right_jacobian_inverse,
    turned_vector,
)
from physics.kinematics import (
    FREE_JOINT,
    SPHERICAL_JOINT,
    axis_of,
    has_quaternion,
    is_single,
)
from physics.lu_factors import copy_matrix, factorise, row_times, solve

ITERATIONS = wp.constant(20)
HALVINGS = wp.constant(8)
SAME = wp.constant(1.0e-5)  # change of A's diagonal, relative, that leaves its factors as they are
ROUNDING = wp.constant(1.0e-10)  # share of the merit at the start below which it may rise
PRECISION = wp.constant(1.0e-5)  # of a rate, or of the least rate that counts
LEAST_RATE = wp.constant(1.0e-3)  # [rad/s] or [m/s]


@wp.kernel(enable_backward=False)
def mass_matrix_kernel(
    links: wp.array2d(dtype=link_vector),
    dof_numbers: wp.array2d(dtype=dof_vector),
    tree: wp.array2d(dtype=int),
    dofs: wp.array2d(dtype=int),
    motions: wp.array2d(dtype=motion_vector),
    arms: wp.array2d(dtype=wp.vec3),
    loads: wp.array2d(dtype=wp.spatial_vector),
    composite_mass: wp.array2d(dtype=float),
    first_moment: wp.array2d(dtype=wp.vec3),
    second_moment: wp.array2d(dtype=wp.mat33),
    axes: wp.array2d(dtype=wp.vec3),
    bias: wp.array2d(dtype=float),
    matrix: wp.array3d(dtype=float),
):
    """From the outward pass at zero acceleration: bias c (world, rate) and H + armature (world, rate, rate)."""
    w = wp.tid()
    count = tree.shape[0]
    identity = wp.identity(n=3, dtype=float)
    for b in range(count):
        p = links[w, b]
        turn = wp.quat_to_matrix(turn_of(motions[w, b + 1]))
        c = turn * wp.vec3(p[1], p[2], p[3])
        composite_mass[w, b + 1] = p[0]
        first_moment[w, b + 1] = c * p[0]
        second_moment[w, b + 1] = turn * inertia_of(p) * wp.transpose(turn) + (identity * wp.dot(c, c) - wp.outer(c, c)) * p[0]
        kind = tree[b, 1]
        i = tree[b, 3]
        if is_single(kind):
            axes[w, i] = turn * axis_of(p)
        if kind == FREE_JOINT:
            for k in range(3):
                e = wp.vec3(0.0, 0.0, 0.0)
                e[k] = 1.0
                axes[w, i + k] = e
            i = i + 3
        if has_quaternion(kind):
            for k in range(3):
                axes[w, i + k] = wp.vec3(turn[0, k], turn[1, k], turn[2, k])
    for k in range(count):
        b = count - 1 - k
        above = tree[b, 0]
        r = arms[w, b + 1]
        load = loads[w, b + 1]
        shifted = wp.cross(r, wp.vec3(load[0], load[1], load[2]))
        loads[w, above] = loads[w, above] + load + wp.spatial_vector(0.0, 0.0, 0.0, shifted[0], shifted[1], shifted[2])
        if above > 0:
            m = composite_mass[w, b + 1]
            first = first_moment[w, b + 1]
            composite_mass[w, above] = composite_mass[w, above] + m
            first_moment[w, above] = first_moment[w, above] + first + r * m
            second_moment[w, above] = (
                second_moment[w, above]
                + second_moment[w, b + 1]
                + identity * (m * wp.dot(r, r) + 2.0 * wp.dot(r, first))
                - wp.outer(r, r * m + first)
                - wp.outer(first, r)
            )
    for j in range(dofs.shape[0]):
        slot = dofs[j, 0]
        e = axes[w, j]
        force = wp.cross(e, first_moment[w, slot])
        moment = second_moment[w, slot] * e
        load = loads[w, slot]
        bias[w, j] = wp.dot(e, wp.vec3(load[3], load[4], load[5]))
        if dofs[j, 1] == 1:
            force = e * composite_mass[w, slot]
            moment = wp.cross(first_moment[w, slot], e)
            bias[w, j] = wp.dot(e, wp.vec3(load[0], load[1], load[2]))
        for i in range(j):
            matrix[w, i, j] = 0.0
            matrix[w, j, i] = 0.0
        i = int(j)
        while slot > 0:
            while i >= 0 and dofs[i, 0] == slot:
                value = wp.dot(axes[w, i], moment)
                if dofs[i, 1] == 1:
                    value = wp.dot(axes[w, i], force)
                matrix[w, i, j] = value
                matrix[w, j, i] = value
                i = i - 1
            moment = moment + wp.cross(arms[w, slot], force)
            slot = tree[slot - 1, 0]
            if slot > 0:
                i = tree[slot - 1, 3]
                extra = tree[slot - 1, 1]
                if extra == FREE_JOINT:
                    i = i + 5
                elif extra == SPHERICAL_JOINT:
                    i = i + 2
                elif not is_single(extra):
                    i = -1
        matrix[w, j, j] = matrix[w, j, j] + dof_numbers[w, j][0]


@wp.func
def acts(p: link_vector, q: float):
    """Whether a joint's spring or limits give any force."""
    return p[20] != 0.0 or q < p[22] or q > p[23]


@wp.func
def evaluate(
    w: int, s: int, frame: int, h: float, still: int,
    coordinates: wp.array3d(dtype=float), rates: wp.array3d(dtype=float), accelerations: wp.array3d(dtype=float),
    links: wp.array2d(dtype=link_vector), dof_numbers: wp.array2d(dtype=dof_vector),
    actuators: wp.array2d(dtype=actuator_vector), controls: wp.array3d(dtype=float),
    tree: wp.array2d(dtype=int), drives: wp.array2d(dtype=int),
    bias: wp.array2d(dtype=float), matrix: wp.array3d(dtype=float), residual: wp.array2d(dtype=float),
):  # fmt: skip
    """R(a) into `residual`; returns the merit: the sum of R_i^2 / H_ii. `still`: a is zero."""
    count = dof_numbers.shape[1]
    for i in range(count):
        a = accelerations[w, s, i]
        p = dof_numbers[w, i]
        total = bias[w, i] + p[1] * (rates[w, s, i] + h * a)
        if p[2] != 0.0:
            total = bias[w, i] - dof_force(p, rates[w, s, i] + h * a)
        if still == 0:
            total += row_times(matrix, accelerations, w, s, i)
        residual[w, i] = total
    for b in range(tree.shape[0]):
        kind = tree[b, 1]
        j = tree[b, 2]
        i = tree[b, 3]
        if is_single(kind):
            v = rates[w, s, i] + h * accelerations[w, s, i]
            q = coordinates[w, s, j] + h * v
            if acts(links[w, b], q):
                residual[w, i] = residual[w, i] - joint_force(links[w, b], q, v)
        if kind == SPHERICAL_JOINT:
            spin = spin_of(rates, accelerations, w, s, i, h)
            torque = ball_force(links[w, b], turned_vector(quaternion_of(coordinates, w, s, j), spin, h), spin)
            for k in range(3):
                residual[w, i + k] = residual[w, i + k] - torque[k]
    for m in range(drives.shape[0]):
        b = drives[m, 0]
        i = tree[b, 3]
        v = rates[w, s, i] + h * accelerations[w, s, i]
        q = coordinates[w, s, tree[b, 2]] + h * v
        u = controls[w, frame % controls.shape[1], m]
        residual[w, i] = residual[w, i] - actuator_force(drives[m, 1], actuators[w, m], u, q, v)
    merit = float(0.0)
    for i in range(count):
        merit += residual[w, i] * residual[w, i] / matrix[w, i, i]
    return merit


@wp.func
def spin_of(rates: wp.array3d(dtype=float), accelerations: wp.array3d(dtype=float), w: int, s: int, i: int, h: float):
    return wp.vec3(
        rates[w, s, i] + h * accelerations[w, s, i],
        rates[w, s, i + 1] + h * accelerations[w, s, i + 1],
        rates[w, s, i + 2] + h * accelerations[w, s, i + 2],
    )


@wp.func
def quaternion_of(coordinates: wp.array3d(dtype=float), w: int, s: int, j: int):
    return wp.quat(coordinates[w, s, j], coordinates[w, s, j + 1], coordinates[w, s, j + 2], coordinates[w, s, j + 3])


@wp.func
def renew_slopes(
    w: int, s: int, frame: int, h: float,
    coordinates: wp.array3d(dtype=float), rates: wp.array3d(dtype=float), accelerations: wp.array3d(dtype=float),
    links: wp.array2d(dtype=link_vector), dof_numbers: wp.array2d(dtype=dof_vector),
    actuators: wp.array2d(dtype=actuator_vector), controls: wp.array3d(dtype=float),
    tree: wp.array2d(dtype=int), drives: wp.array2d(dtype=int),
    matrix: wp.array3d(dtype=float), before: wp.array2d(dtype=float), slopes: wp.array2d(dtype=float),
):  # fmt: skip
    """-dtau/da on the diagonal into `slopes`, the last ones into `before`; returns the largest change, relative to A."""
    count = dof_numbers.shape[1]
    for i in range(count):
        before[w, i] = slopes[w, i]
        slopes[w, i] = h * dof_numbers[w, i][1]
        if dof_numbers[w, i][2] != 0.0:
            slopes[w, i] = -h * dof_slope(dof_numbers[w, i], rates[w, s, i] + h * accelerations[w, s, i])
    for b in range(tree.shape[0]):
        kind = tree[b, 1]
        j = tree[b, 2]
        i = tree[b, 3]
        if is_single(kind):
            v = rates[w, s, i] + h * accelerations[w, s, i]
            q = coordinates[w, s, j] + h * v
            if acts(links[w, b], q):
                of_joint = joint_slopes(links[w, b], q, v)
                slopes[w, i] = slopes[w, i] - h * (of_joint[1] + h * of_joint[0])
        if kind == SPHERICAL_JOINT:
            block = ball_block(w, s, i, j, h, coordinates, rates, accelerations, links[w, b])
            for k in range(3):
                slopes[w, i + k] = slopes[w, i + k] + block[k, k]
    for m in range(drives.shape[0]):
        b = drives[m, 0]
        i = tree[b, 3]
        v = rates[w, s, i] + h * accelerations[w, s, i]
        q = coordinates[w, s, tree[b, 2]] + h * v
        u = controls[w, frame % controls.shape[1], m]
        of_drive = actuator_slopes(drives[m, 1], actuators[w, m], u, q, v)
        slopes[w, i] = slopes[w, i] - h * (of_drive[1] + h * of_drive[0])
    change = float(0.0)
    for i in range(count):
        change = wp.max(change, wp.abs(slopes[w, i] - before[w, i]) / (matrix[w, i, i] + wp.abs(slopes[w, i])))
    return change


@wp.func
def ball_block(
    w: int, s: int, i: int, j: int, h: float,
    coordinates: wp.array3d(dtype=float), rates: wp.array3d(dtype=float), accelerations: wp.array3d(dtype=float),
    p: link_vector,
):  # fmt: skip
    """-dtau/da of a spherical joint's spring and cone, (3, 3)."""
    spin = spin_of(rates, accelerations, w, s, i, h)
    r = turned_vector(quaternion_of(coordinates, w, s, j), spin, h)
    place = ball_slope_place(p, r, spin) * right_jacobian_inverse(r) * right_jacobian(spin * h)
    return (place * h + wp.identity(n=3, dtype=float) * ball_slope_rate(p, r)) * (-h)


@wp.func
def assemble(
    w: int, s: int, h: float,
    coordinates: wp.array3d(dtype=float), rates: wp.array3d(dtype=float), accelerations: wp.array3d(dtype=float),
    links: wp.array2d(dtype=link_vector), tree: wp.array2d(dtype=int),
    slopes: wp.array2d(dtype=float), matrix: wp.array3d(dtype=float),
    factors: wp.array4d(dtype=float),
):  # fmt: skip
    """A into factors[w, s]."""
    count = matrix.shape[1]
    copy_matrix(matrix, w, s, factors)
    for i in range(count):
        factors[w, s, i, i] = factors[w, s, i, i] + slopes[w, i]
    if h > 0.0:
        for b in range(tree.shape[0]):
            if tree[b, 1] == SPHERICAL_JOINT:
                i = tree[b, 3]
                block = ball_block(w, s, i, tree[b, 2], h, coordinates, rates, accelerations, links[w, b])
                for k in range(3):
                    for m in range(3):
                        if k != m:
                            factors[w, s, i + k, i + m] = factors[w, s, i + k, i + m] + block[k, m]


@wp.kernel(enable_backward=False)
def newton_kernel(
    coordinates: wp.array3d(dtype=float),
    rates: wp.array3d(dtype=float),
    links: wp.array2d(dtype=link_vector),
    dof_numbers: wp.array2d(dtype=dof_vector),
    actuators: wp.array2d(dtype=actuator_vector),
    controls: wp.array3d(dtype=float),
    tree: wp.array2d(dtype=int),
    drives: wp.array2d(dtype=int),
    bias: wp.array2d(dtype=float),
    matrix: wp.array3d(dtype=float),
    s: int,
    frame: int,
    h: float,
    residual: wp.array2d(dtype=float),
    step: wp.array2d(dtype=float),
    before: wp.array2d(dtype=float),
    slopes: wp.array2d(dtype=float),
    accelerations: wp.array3d(dtype=float),
    factors: wp.array4d(dtype=float),
):
    """From `accelerations` as they are to those with R = 0, and A there, factorised."""
    w = wp.tid()
    count = dof_numbers.shape[1]
    still = int(1)
    for i in range(count):
        if accelerations[w, s, i] != 0.0:
            still = 0
    start = evaluate(
        w, s, frame, h, still, coordinates, rates, accelerations, links, dof_numbers, actuators, controls, tree, drives, bias,
        matrix, residual,
    )  # fmt: skip
    merit = float(start)
    done = int(0)
    iteration = int(0)
    while done == 0 and iteration < ITERATIONS:
        change = renew_slopes(
            w, s, frame, h, coordinates, rates, accelerations, links, dof_numbers, actuators, controls, tree, drives,
            matrix, before, slopes,
        )  # fmt: skip
        if iteration == 0 or change > SAME:
            assemble(w, s, h, coordinates, rates, accelerations, links, tree, slopes, matrix, factors)
            factorise(w, s, count, factors)
        elif iteration > 0:
            done = 1  # R is linear as far as it matters: this step ends it
        for i in range(count):
            step[w, i] = residual[w, i]
        solve(w, s, count, factors, step)
        small = int(1)
        for i in range(count):
            a = accelerations[w, s, i] - step[w, i]
            accelerations[w, s, i] = a
            if wp.abs(step[w, i]) * h > PRECISION * (LEAST_RATE + wp.abs(rates[w, s, i] + h * a)):
                small = 0
        if small == 1 and iteration > 0:
            done = 1
        if done == 0:
            trial = evaluate(
                w, s, frame, h, 0, coordinates, rates, accelerations, links, dof_numbers, actuators, controls, tree, drives,
                bias, matrix, residual,
            )  # fmt: skip
            fraction = float(1.0)
            halvings = int(0)
            while trial > merit and trial > ROUNDING * start and halvings < HALVINGS:
                halvings += 1
                fraction = 0.5 * fraction
                for i in range(count):
                    accelerations[w, s, i] = accelerations[w, s, i] + fraction * step[w, i]
                trial = evaluate(
                        w, s, frame, h, 0, coordinates, rates, accelerations, links, dof_numbers, actuators, controls, tree,
                        drives, bias, matrix, residual,
                    )  # fmt: skip
            merit = trial
        iteration += 1
