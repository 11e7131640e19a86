r"""Impacts: the change of a tree's rates at the time at which one or several contacts strike.

With the rates v before and the mass matrix H (armature included) where the tree is,

    H dv = J^T p,   u+ = J (v + dv),   0 <= p_n  and  u+_n + e u_n >= 0, one of them zero (Newton's restitution),

and Coulomb's law between the impulse and u+ across the normal, for all contacts that touch at that time together
(`physics.impulse_solve`). Below rest_speed an impact is without restitution, between it and twice that e sets in linearly.

Newton's restitution together with friction may raise the energy of a body that is struck off its centre (Kane and Levinson,
"Dynamics", 1985); with either alone it does not.

Adjoint: multipliers l = -H^-1 (g + J^T (dF/du)^T k) with N^T k = -J H^-1 g, then the adjoint of the attached residual: momenta
of the links from dv, impulses taken off at arms that follow the shapes, summed along the joints.
"""

import warp as wp

from physics.articulation import dof_vector, link_vector
from physics.contact_law import material_vector
from physics.impulse_motion import meeting_velocity
from physics.impulse_rest import FRICTION, couple, describe
from physics.impulse_search import SHARE
from physics.impulse_solve import cholesky_solve, cone_impulses, cone_multipliers, row
from physics.inverse_dynamics import inertia_of
from physics.kinematics import FREE_JOINT, PRISMATIC_JOINT, axis_of, has_quaternion, is_single

SOFT = wp.constant(1.0e-7)  # compliance, share of a contact's own
RESTITUTION = wp.constant(2)  # its place in a material_vector


@wp.func
def returning(before: float, e: float, rest_speed: float):
    """The demanded normal velocity after an impact with the one before."""
    speed = -before
    return e * wp.clamp(speed / rest_speed - 1.0, 0.0, 1.0) * wp.max(speed, 0.0)


@wp.kernel(enable_backward=False)
def strike_list_kernel(
    hit: wp.array2d(dtype=int),
    found_count: wp.array2d(dtype=int),
    s: int,
    skin: float,
    gaps: wp.array2d(dtype=float),
    materials: wp.array2d(dtype=material_vector),
    listed: wp.array3d(dtype=int),
    listed_count: wp.array2d(dtype=int),
):
    """The contacts that touch where something strikes."""
    w = wp.tid()
    total = int(0)
    if hit[w, s] >= 0:
        for c in range(wp.min(found_count[w, s], gaps.shape[1])):
            if (gaps[w, c] < skin and materials[w, c][SHARE] >= 0.5) or c == hit[w, s]:
                if total < listed.shape[2]:
                    listed[w, s, total] = c
                total = total + 1
    listed_count[w, s] = total


@wp.kernel(enable_backward=False)
def strike_problem_kernel(
    before: wp.array3d(dtype=float),
    listed: wp.array3d(dtype=int),
    listed_count: wp.array2d(dtype=int),
    s: int,
    rest_speed: float,
    contact_normals: wp.array2d(dtype=wp.vec3),
    materials: wp.array2d(dtype=material_vector),
    jacobian: wp.array3d(dtype=wp.vec3),
    mass: wp.array3d(dtype=wp.float64),
    response: wp.array3d(dtype=wp.float64),
    coupling: wp.array3d(dtype=wp.float64),
    normals: wp.array2d(dtype=wp.float64),
    scalars: wp.array3d(dtype=wp.float64),
    sizes: wp.array2d(dtype=wp.vec3),
    start: wp.array2d(dtype=wp.float64),
):
    w = wp.tid()
    rates = jacobian.shape[2]
    m = wp.min(listed_count[w, s], listed.shape[2])
    for i in range(m):
        for k in range(3):
            total = wp.float64(0.0)
            for d in range(rates):
                along = wp.float64(jacobian[w, listed[w, s, i], d][k])
                response[w, 3 * i + k, d] = along
                total = total + along * wp.float64(before[w, s + 1, d])
            start[w, 3 * i + k] = total
            cholesky_solve(w, rates, mass, response, 3 * i + k)
    couple(w, s, m, listed, jacobian, response, coupling)
    for i in range(m):
        c = listed[w, s, i]
        n = contact_normals[w, c]
        u = wp.vec3(float(start[w, 3 * i]), float(start[w, 3 * i + 1]), float(start[w, 3 * i + 2]))
        b = returning(wp.dot(n, u), materials[w, c][RESTITUTION], rest_speed)
        describe(w, i, n, b, materials[w, c][FRICTION], SOFT, SOFT, coupling, normals, scalars, sizes)


@wp.kernel(enable_backward=False)
def strike_solve_kernel(
    listed_count: wp.array2d(dtype=int),
    s: int,
    response: wp.array3d(dtype=wp.float64),
    coupling: wp.array3d(dtype=wp.float64),
    normals: wp.array2d(dtype=wp.float64),
    scalars: wp.array3d(dtype=wp.float64),
    start: wp.array2d(dtype=wp.float64),
    solution: wp.array2d(dtype=wp.float64),
    states_now: wp.array2d(dtype=int),
    matrix: wp.array3d(dtype=wp.float64),
    vectors: wp.array3d(dtype=wp.float64),
    change: wp.array3d(dtype=float),
    impulses: wp.array3d(dtype=wp.vec3),
    states: wp.array3d(dtype=int),
    remainder: wp.array2d(dtype=float),
):
    w = wp.tid()
    rates = response.shape[2]
    m = wp.min(listed_count[w, s], states.shape[2])
    for d in range(rates):
        change[w, s, d] = 0.0
    if m > 0:
        left = float(cone_impulses(w, m, coupling, normals, scalars, start, solution, states_now, matrix, vectors))
        remainder[w, s] = wp.max(remainder[w, s], left)
        for i in range(m):
            states[w, s, i] = states_now[w, i]
            impulses[w, s, i] = wp.vec3(float(solution[w, 3 * i]), float(solution[w, 3 * i + 1]), float(solution[w, 3 * i + 2]))
        for d in range(rates):
            total = wp.float64(0.0)
            for i in range(3 * m):
                total = total + response[w, i, d] * solution[w, i]
            change[w, s, d] = float(total)


@wp.kernel(enable_backward=False)
def strike_multiplier_kernel(
    before: wp.array3d(dtype=float),
    change: wp.array3d(dtype=float),
    listed: wp.array3d(dtype=int),
    listed_count: wp.array2d(dtype=int),
    s: int,
    jacobian: wp.array3d(dtype=wp.vec3),
    mass: wp.array3d(dtype=wp.float64),
    coupling: wp.array3d(dtype=wp.float64),
    normals: wp.array2d(dtype=wp.float64),
    scalars: wp.array3d(dtype=wp.float64),
    start: wp.array2d(dtype=wp.float64),
    solution: wp.array2d(dtype=wp.float64),
    states_now: wp.array2d(dtype=int),
    matrix: wp.array3d(dtype=wp.float64),
    vectors: wp.array3d(dtype=wp.float64),
    impulses: wp.array3d(dtype=wp.vec3),
    states: wp.array3d(dtype=int),
    gradients: wp.array3d(dtype=float),
    response: wp.array3d(dtype=wp.float64),
    knowns: wp.array2d(dtype=wp.float64),
    multipliers: wp.array2d(dtype=float),
    row_multipliers: wp.array2d(dtype=wp.vec3),
):
    w = wp.tid()
    rates = jacobian.shape[2]
    m = wp.min(listed_count[w, s], listed.shape[2])
    for i in range(row_multipliers.shape[1]):
        row_multipliers[w, i] = wp.vec3(0.0, 0.0, 0.0)
    for d in range(rates):
        multipliers[w, d] = 0.0
    if m > 0:
        for d in range(rates):
            response[w, 0, d] = wp.float64(gradients[w, s, d])
        cholesky_solve(w, rates, mass, response, 0)
        for i in range(m):
            states_now[w, i] = states[w, s, i]
            c = listed[w, s, i]
            for k in range(3):
                solution[w, 3 * i + k] = wp.float64(impulses[w, s, i][k])
                speed = wp.float64(0.0)
                total = wp.float64(0.0)
                for d in range(rates):
                    along = wp.float64(jacobian[w, c, d][k])
                    speed = speed + along * (wp.float64(before[w, s + 1, d]) + wp.float64(change[w, s, d]))
                    total = total + along * response[w, 0, d]
                vectors[w, 0, 3 * i + k] = speed
                knowns[w, 3 * i + k] = -total
        cone_multipliers(w, m, coupling, normals, scalars, start, solution, states_now, matrix, vectors, knowns)
        for d in range(rates):
            response[w, 0, d] = wp.float64(gradients[w, s, d])
        for i in range(m):
            c = listed[w, s, i]
            row_multipliers[w, i] = wp.vec3(float(knowns[w, 3 * i]), float(knowns[w, 3 * i + 1]), float(knowns[w, 3 * i + 2]))
            for d in range(rates):
                for k in range(3):
                    response[w, 0, d] = response[w, 0, d] + wp.float64(jacobian[w, c, d][k]) * vectors[w, 1, 3 * i + k]
        cholesky_solve(w, rates, mass, response, 0)
        for d in range(rates):
            multipliers[w, d] = -float(response[w, 0, d])


@wp.kernel
def strike_rows_kernel(
    shapes: wp.array2d(dtype=int),
    found: wp.array3d(dtype=wp.vec3i),
    listed: wp.array3d(dtype=int),
    listed_count: wp.array2d(dtype=int),
    states: wp.array3d(dtype=int),
    impulses: wp.array3d(dtype=wp.vec3),
    sizes: wp.array2d(dtype=wp.vec3),
    s: int,
    rest_speed: float,
    normals: wp.array2d(dtype=wp.vec3),
    arms_a: wp.array2d(dtype=wp.vec3),
    arms_b: wp.array2d(dtype=wp.vec3),
    materials: wp.array2d(dtype=material_vector),
    turning: wp.array2d(dtype=wp.vec3),
    moving: wp.array2d(dtype=wp.vec3),
    turning_change: wp.array2d(dtype=wp.vec3),
    moving_change: wp.array2d(dtype=wp.vec3),
    rows: wp.array2d(dtype=wp.vec3),
):
    w, i = wp.tid()
    if i >= listed_count[w, s] or states[w, s, i] == 0:
        return
    c = listed[w, s, i]
    a = shapes[found[w, s, c][0], 0]
    b = shapes[found[w, s, c][2], 0]
    n = normals[w, c]
    u = meeting_velocity(w, a, b, arms_a[w, c], arms_b[w, c], turning, moving)
    du = meeting_velocity(w, a, b, arms_a[w, c], arms_b[w, c], turning_change, moving_change)
    m = materials[w, c]
    target = returning(wp.dot(n, u), m[RESTITUTION], rest_speed)
    size = sizes[w, i]
    rows[w, i] = row(states[w, s, i], u + du, impulses[w, s, i], n, target, m[FRICTION], size[0], size[1], size[2])


@wp.kernel
def momentum_kernel(
    listed_count: wp.array2d(dtype=int),
    s: int,
    links: wp.array2d(dtype=link_vector),
    tree: wp.array2d(dtype=int),
    turns: wp.array2d(dtype=wp.quat),
    turning: wp.array2d(dtype=wp.vec3),
    moving: wp.array2d(dtype=wp.vec3),
    loads: wp.array2d(dtype=wp.spatial_vector),
):
    """Change of each link's momentum and of its angular momentum about its own origin."""
    w = wp.tid()
    if listed_count[w, s] == 0:
        return
    loads[w, 0] = wp.spatial_vector(0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    for b in range(tree.shape[0]):
        p = links[w, b]
        turn = turns[w, b + 1]
        c = wp.quat_rotate(turn, wp.vec3(p[1], p[2], p[3]))
        spin = turning[w, b + 1]
        linear = p[0] * (moving[w, b + 1] + wp.cross(spin, c))
        angular = wp.quat_rotate(turn, inertia_of(p) * wp.quat_rotate_inv(turn, spin)) + wp.cross(c, linear)
        loads[w, b + 1] = wp.spatial_vector(linear[0], linear[1], linear[2], angular[0], angular[1], angular[2])


@wp.kernel
def strike_push_kernel(
    shapes: wp.array2d(dtype=int),
    found: wp.array3d(dtype=wp.vec3i),
    listed: wp.array3d(dtype=int),
    listed_count: wp.array2d(dtype=int),
    impulses: wp.array3d(dtype=wp.vec3),
    s: int,
    arms_a: wp.array2d(dtype=wp.vec3),
    arms_b: wp.array2d(dtype=wp.vec3),
    loads: wp.array2d(dtype=wp.spatial_vector),
):
    """Takes the contacts' impulses off `loads`."""
    w, i = wp.tid()
    if i >= listed_count[w, s]:
        return
    c = listed[w, s, i]
    a = shapes[found[w, s, c][0], 0]
    b = shapes[found[w, s, c][2], 0]
    f = impulses[w, s, i]
    ta = wp.cross(arms_a[w, c], f)
    tb = wp.cross(arms_b[w, c], f)
    wp.atomic_add(loads, w, a, wp.spatial_vector(-f[0], -f[1], -f[2], -ta[0], -ta[1], -ta[2]))
    wp.atomic_add(loads, w, b, wp.spatial_vector(f[0], f[1], f[2], tb[0], tb[1], tb[2]))


@wp.kernel
def gather_kernel(
    listed_count: wp.array2d(dtype=int),
    s: int,
    links: wp.array2d(dtype=link_vector),
    dof_numbers: wp.array2d(dtype=dof_vector),
    tree: wp.array2d(dtype=int),
    turns: wp.array2d(dtype=wp.quat),
    places: wp.array2d(dtype=wp.vec3),
    change: wp.array3d(dtype=float),
    loads: wp.array2d(dtype=wp.spatial_vector),
    residual: wp.array2d(dtype=float),
):
    """H dv - J^T p, from the leaves to the root, in place."""
    w = wp.tid()
    if listed_count[w, s] == 0:
        return
    count = tree.shape[0]
    for k in range(count):
        b = count - 1 - k
        load = loads[w, b + 1]
        force = wp.vec3(load[0], load[1], load[2])
        moment = wp.vec3(load[3], load[4], load[5])
        about = moment + wp.cross(places[w, b + 1] - places[w, tree[b, 0]], force)
        wp.atomic_add(loads, w, tree[b, 0], wp.spatial_vector(force[0], force[1], force[2], about[0], about[1], about[2]))
        kind = tree[b, 1]
        i = tree[b, 3]
        turn = turns[w, b + 1]
        if is_single(kind):
            along = moment
            if kind == PRISMATIC_JOINT:
                along = force
            residual[w, i] = wp.dot(wp.quat_rotate(turn, axis_of(links[w, b])), along) + dof_numbers[w, i][0] * change[w, s, i]
        n = i
        if kind == FREE_JOINT:
            for m in range(3):
                residual[w, i + m] = force[m] + dof_numbers[w, i + m][0] * change[w, s, i + m]
            n = i + 3
        if has_quaternion(kind):
            own = wp.quat_rotate_inv(turn, moment)
            for m in range(3):
                residual[w, n + m] = own[m] + dof_numbers[w, n + m][0] * change[w, s, n + m]
