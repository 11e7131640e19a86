r"""The residual of a tree's equations of motion, by the recursive Newton-Euler algorithm.

    R(a) = RNEA(q, v, a) + armature a - tau(q^, v^),    v^ = v + h a,   q^ = q (+) h v^      (h = 0: tau at the start)

From the root outwards, each about its own origin and in world axes (r the arm from the parent, s' a joint's linear rate):

    alpha = alpha_p + alpha_rel + w_p x w_rel
    a     = a_p + alpha_p x r + w_p x (w_p x r) + 2 w_p x s' + s''
    F     = m (a + alpha x c + w x (w x c) - g) - f,     N = I alpha + w x I w + c x F - t

and back: F_p += F, N_p += N + r x F; the force along a joint is the part of (F, N) along its axis (Featherstone, "Rigid Body
Dynamics Algorithms", 2008, ch. 5). (f, t) is the external force through the centre of mass and the torque, world axes.

Nothing here is solved. A step finds a with R(a) = 0 without gradient; the adjoint of these kernels, seeded with
-A^-T da, A = dR/da, is then the gradient of a in everything that R depends on (implicit function theorem).
"""

import warp as wp

from physics.articulation import actuator_vector, dof_vector, link_vector
from physics.joint_forces import actuator_force, ball_force, dof_force, joint_force, turned_vector
from physics.kinematics import (
    FREE_JOINT,
    PRISMATIC_JOINT,
    REVOLUTE_JOINT,
    SPHERICAL_JOINT,
    axis_of,
    is_single,
    unit_quaternion,
)

motion_vector = wp.types.vector(length=13, dtype=float)
# layout: 0-3 orientation, 4-6 angular velocity, 7-9 its rate, 10-12 acceleration of the origin; world axes


@wp.func
def inertia_of(p: link_vector):
    return wp.mat33(p[4], p[9], p[8], p[9], p[5], p[7], p[8], p[7], p[6])


@wp.func
def packed_motion(turn: wp.quat, spin: wp.vec3, rate: wp.vec3, linear: wp.vec3):
    return motion_vector(
        turn[0], turn[1], turn[2], turn[3], spin[0], spin[1], spin[2], rate[0], rate[1], rate[2],
        linear[0], linear[1], linear[2],
    )  # fmt: skip


@wp.func
def turn_of(m: motion_vector):
    return wp.quat(m[0], m[1], m[2], m[3])


@wp.kernel
def outward_kernel(
    coordinates: wp.array3d(dtype=float),
    rates: wp.array3d(dtype=float),
    accelerations: wp.array3d(dtype=float),
    links: wp.array2d(dtype=link_vector),
    tree: wp.array2d(dtype=int),
    gravity: wp.array(dtype=wp.vec3),
    wrenches: wp.array3d(dtype=wp.spatial_vector),
    s: int,
    frame: int,
    motions: wp.array2d(dtype=motion_vector),
    arms: wp.array2d(dtype=wp.vec3),
    loads: wp.array2d(dtype=wp.spatial_vector),
):
    """One thread a world; s is the node. Slot 0 is the world, slot b + 1 link b."""
    w = wp.tid()
    zero = wp.vec3(0.0, 0.0, 0.0)
    motions[w, 0] = packed_motion(wp.quat(0.0, 0.0, 0.0, 1.0), zero, zero, zero)
    loads[w, 0] = wp.spatial_vector(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    for b in range(tree.shape[0]):
        p = links[w, b]
        above = tree[b, 0]
        kind = tree[b, 1]
        j = tree[b, 2]
        i = tree[b, 3]
        m = motions[w, above]
        base = turn_of(m)
        spin_above = wp.vec3(m[4], m[5], m[6])
        rate_above = wp.vec3(m[7], m[8], m[9])
        turn = base * wp.quat(p[13], p[14], p[15], p[16])
        arm = wp.quat_rotate(base, wp.vec3(p[10], p[11], p[12]))
        spin = zero  # of the joint alone, then of the link
        rate = zero
        slide = zero
        linear = zero
        if kind == REVOLUTE_JOINT:
            half = 0.5 * coordinates[w, s, j]
            sine = wp.sin(half)
            turn = turn * wp.quat(p[17] * sine, p[18] * sine, p[19] * sine, wp.cos(half))
            hinge = wp.quat_rotate(turn, axis_of(p))
            spin = hinge * rates[w, s, i]
            rate = hinge * accelerations[w, s, i]
        elif kind == PRISMATIC_JOINT:
            line = wp.quat_rotate(turn, axis_of(p))
            arm = arm + line * coordinates[w, s, j]
            slide = line * rates[w, s, i]
            linear = line * accelerations[w, s, i]
        elif kind == SPHERICAL_JOINT:
            turn = turn * unit_quaternion(
                coordinates[w, s, j], coordinates[w, s, j + 1], coordinates[w, s, j + 2], coordinates[w, s, j + 3]
            )
            spin = wp.quat_rotate(turn, wp.vec3(rates[w, s, i], rates[w, s, i + 1], rates[w, s, i + 2]))
            rate = wp.quat_rotate(turn, wp.vec3(accelerations[w, s, i], accelerations[w, s, i + 1], accelerations[w, s, i + 2]))
        elif kind == FREE_JOINT:
            turn = turn * unit_quaternion(
                coordinates[w, s, j + 3], coordinates[w, s, j + 4], coordinates[w, s, j + 5], coordinates[w, s, j + 6]
            )
            arm = arm + wp.vec3(coordinates[w, s, j], coordinates[w, s, j + 1], coordinates[w, s, j + 2])
            slide = wp.vec3(rates[w, s, i], rates[w, s, i + 1], rates[w, s, i + 2])
            linear = wp.vec3(accelerations[w, s, i], accelerations[w, s, i + 1], accelerations[w, s, i + 2])
            spin = wp.quat_rotate(turn, wp.vec3(rates[w, s, i + 3], rates[w, s, i + 4], rates[w, s, i + 5]))
            rate = wp.quat_rotate(
                turn, wp.vec3(accelerations[w, s, i + 3], accelerations[w, s, i + 4], accelerations[w, s, i + 5])
            )
        rate = rate_above + rate + wp.cross(spin_above, spin)
        spin = spin_above + spin
        linear = (
            wp.vec3(m[10], m[11], m[12])
            + linear
            + wp.cross(rate_above, arm)
            + wp.cross(spin_above, wp.cross(spin_above, arm) + 2.0 * slide)
        )
        c = wp.quat_rotate(turn, wp.vec3(p[1], p[2], p[3]))
        push = wrenches[w, frame % wrenches.shape[1], b]
        force = p[0] * (linear + wp.cross(rate, c) + wp.cross(spin, wp.cross(spin, c)) - gravity[w]) - wp.vec3(
            push[0], push[1], push[2]
        )
        inertia = inertia_of(p)
        own_spin = wp.quat_rotate_inv(turn, spin)
        own = inertia * wp.quat_rotate_inv(turn, rate) + wp.cross(own_spin, inertia * own_spin)
        total = wp.quat_rotate(turn, own) + wp.cross(c, force) - wp.vec3(push[3], push[4], push[5])
        motions[w, b + 1] = packed_motion(turn, spin, rate, linear)
        arms[w, b + 1] = arm
        loads[w, b + 1] = wp.spatial_vector(force[0], force[1], force[2], total[0], total[1], total[2])


@wp.kernel
def inward_kernel(
    coordinates: wp.array3d(dtype=float),
    rates: wp.array3d(dtype=float),
    accelerations: wp.array3d(dtype=float),
    links: wp.array2d(dtype=link_vector),
    dof_numbers: wp.array2d(dtype=dof_vector),
    actuators: wp.array2d(dtype=actuator_vector),
    controls: wp.array3d(dtype=float),
    tree: wp.array2d(dtype=int),
    drives: wp.array2d(dtype=int),
    s: int,
    frame: int,
    h: float,
    motions: wp.array2d(dtype=motion_vector),
    arms: wp.array2d(dtype=wp.vec3),
    loads: wp.array2d(dtype=wp.spatial_vector),
    residual: wp.array2d(dtype=float),
):
    """Adds the links' forces up towards the root, in place (children come last, so each is whole when it is read)."""
    w = wp.tid()
    count = tree.shape[0]
    for k in range(count):
        b = count - 1 - k
        load = loads[w, b + 1]
        force = wp.vec3(load[0], load[1], load[2])
        moment = wp.vec3(load[3], load[4], load[5])
        about = moment + wp.cross(arms[w, b + 1], force)
        wp.atomic_add(loads, w, tree[b, 0], wp.spatial_vector(force[0], force[1], force[2], about[0], about[1], about[2]))
        kind = tree[b, 1]
        j = tree[b, 2]
        i = tree[b, 3]
        p = links[w, b]
        turn = turn_of(motions[w, b + 1])
        if is_single(kind):
            along = force
            if kind == REVOLUTE_JOINT:
                along = moment
            speed = rates[w, s, i] + h * accelerations[w, s, i]
            law = joint_force(p, coordinates[w, s, j] + h * speed, speed)
            residual[w, i] = wp.dot(wp.quat_rotate(turn, axis_of(p)), along) - law
        if kind == SPHERICAL_JOINT:
            q = wp.quat(coordinates[w, s, j], coordinates[w, s, j + 1], coordinates[w, s, j + 2], coordinates[w, s, j + 3])
            spin = wp.vec3(
                rates[w, s, i] + h * accelerations[w, s, i],
                rates[w, s, i + 1] + h * accelerations[w, s, i + 1],
                rates[w, s, i + 2] + h * accelerations[w, s, i + 2],
            )
            own = wp.quat_rotate_inv(turn, moment) - ball_force(p, turned_vector(q, spin, h), spin)
            residual[w, i] = own[0]
            residual[w, i + 1] = own[1]
            residual[w, i + 2] = own[2]
        if kind == FREE_JOINT:
            body = wp.quat_rotate_inv(turn, moment)
            residual[w, i] = force[0]
            residual[w, i + 1] = force[1]
            residual[w, i + 2] = force[2]
            residual[w, i + 3] = body[0]
            residual[w, i + 4] = body[1]
            residual[w, i + 5] = body[2]
    for d in range(dof_numbers.shape[1]):
        a = accelerations[w, s, d]
        wp.atomic_add(residual, w, d, dof_numbers[w, d][0] * a - dof_force(dof_numbers[w, d], rates[w, s, d] + h * a))
    for m in range(drives.shape[0]):
        n = tree[drives[m, 0], 3]
        driven_rate = rates[w, s, n] + h * accelerations[w, s, n]
        driven = coordinates[w, s, tree[drives[m, 0], 2]] + h * driven_rate
        u = controls[w, frame % controls.shape[1], m]
        wp.atomic_add(residual, w, n, -actuator_force(drives[m, 1], actuators[w, m], u, driven, driven_rate))
