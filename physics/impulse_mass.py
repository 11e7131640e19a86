"""The mass matrix of a tree where something strikes, H = sum over links of m Jv^T Jv + Jw^T I Jw, in double precision.

Only worlds with an impact pay for it. Without gradient: `physics.impulse_strike` differentiates the momenta instead.
"""

import warp as wp

from physics.articulation import dof_vector, link_vector
from physics.impulse_solve import cholesky
from physics.inverse_dynamics import inertia_of
from physics.kinematics import FREE_JOINT, axis_of, has_quaternion, is_single


@wp.func
def world_axes(
    w: int, links: wp.array2d(dtype=link_vector), tree: wp.array2d(dtype=int), turns: wp.array2d(dtype=wp.quat),
    axes: wp.array2d(dtype=wp.vec3),
):  # fmt: skip
    """The axis of each rate."""
    for b in range(tree.shape[0]):
        kind = tree[b, 1]
        i = tree[b, 3]
        turn = turns[w, b + 1]
        if is_single(kind):
            axes[w, i] = wp.quat_rotate(turn, axis_of(links[w, b]))
        if kind == FREE_JOINT:
            axes[w, i] = wp.vec3(1.0, 0.0, 0.0)
            axes[w, i + 1] = wp.vec3(0.0, 1.0, 0.0)
            axes[w, i + 2] = wp.vec3(0.0, 0.0, 1.0)
            i = i + 3
        if has_quaternion(kind):
            axes[w, i] = wp.quat_rotate(turn, wp.vec3(1.0, 0.0, 0.0))
            axes[w, i + 1] = wp.quat_rotate(turn, wp.vec3(0.0, 1.0, 0.0))
            axes[w, i + 2] = wp.quat_rotate(turn, wp.vec3(0.0, 0.0, 1.0))


@wp.kernel(enable_backward=False)
def axes_kernel(
    links: wp.array2d(dtype=link_vector),
    tree: wp.array2d(dtype=int),
    turns: wp.array2d(dtype=wp.quat),
    axes: wp.array2d(dtype=wp.vec3),
):
    world_axes(wp.tid(), links, tree, turns, axes)


@wp.kernel(enable_backward=False)
def strike_mass_kernel(
    hit: wp.array2d(dtype=int),
    s: int,
    links: wp.array2d(dtype=link_vector),
    dof_numbers: wp.array2d(dtype=dof_vector),
    tree: wp.array2d(dtype=int),
    dofs: wp.array2d(dtype=int),
    turns: wp.array2d(dtype=wp.quat),
    places: wp.array2d(dtype=wp.vec3),
    axes: wp.array2d(dtype=wp.vec3),
    lines: wp.array2d(dtype=wp.vec3),
    chain: wp.array2d(dtype=int),
    mass: wp.array3d(dtype=wp.float64),
):
    """H where something strikes, as its Cholesky factor; axes of all rates in world axes."""
    w = wp.tid()
    if hit[w, s] < 0:
        return
    rates = dofs.shape[0]
    world_axes(w, links, tree, turns, axes)
    for i in range(rates):
        for j in range(rates):
            mass[w, i, j] = wp.float64(0.0)
        mass[w, i, i] = wp.float64(dof_numbers[w, i][0])
    for b in range(tree.shape[0]):
        p = links[w, b]
        turn = turns[w, b + 1]
        at = places[w, b + 1] + wp.quat_rotate(turn, wp.vec3(p[1], p[2], p[3]))
        rotation = wp.quat_to_matrix(turn)
        inertia = rotation * inertia_of(p) * wp.transpose(rotation)
        total = int(0)
        slot = b + 1
        while slot > 0:
            i = tree[slot - 1, 3]
            while i < rates and dofs[wp.min(i, rates - 1), 0] == slot:
                chain[w, total] = i
                if dofs[i, 1] == 1:
                    lines[w, i] = axes[w, i]
                else:
                    lines[w, i] = wp.cross(axes[w, i], at - places[w, slot])
                total = total + 1
                i = i + 1
            slot = tree[slot - 1, 0]
        for k in range(total):
            i = chain[w, k]
            for m in range(total):
                j = chain[w, m]
                value = p[0] * wp.dot(lines[w, i], lines[w, j])
                if dofs[i, 1] == 0 and dofs[j, 1] == 0:
                    value = value + wp.dot(axes[w, i], inertia * axes[w, j])
                mass[w, i, j] = mass[w, i, j] + wp.float64(value)
    cholesky(w, rates, mass)
