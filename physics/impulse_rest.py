r"""Contacts on which something rests or slides: impulses that end a segment without approach (Moreau's time stepping).

In a segment with the time rho left, from the accelerations a without them and A = dR/da of `physics.mass_matrix`:

    R(a') = J^T p / rho,   u' = J (v + rho a'),   u'_n >= b,   b = min(-FEEDBACK gap / h, rest_speed)

with Coulomb's law for the rest of u' (`physics.impulse_solve`). b is the speed with which the gap closes, so that what comes
near slowly lands and what is inside comes out; an overlap gives speed to a body for one step only, and never more than
rest_speed. a' = a + A^-1 J^T p / rho is the solution where R is linear in a (everything but limits and dry friction while they
bend within a substep).

(Moreau, "Unilateral contact and dry friction in finite freedom dynamics", 1988; Stewart and Trinkle, "An implicit time-stepping
scheme for rigid body dynamics with inelastic collisions and Coulomb friction", 1996.)
"""

import warp as wp

from physics.contact_law import material_vector
from physics.impulse_motion import meeting_velocity
from physics.impulse_solve import cone_impulses, cone_multipliers, row
from physics.lu_factors import solve, solve_transposed

FEEDBACK = wp.constant(0.2)  # of a gap, a substep
SOFT_NORMAL, SOFT_ACROSS = wp.constant(1.0e-2), wp.constant(1.0e-4)  # compliance, share of a contact's own

FRICTION = wp.constant(3)  # its place in a material_vector


@wp.func
def relative_to(w: int, c: int, i: int, jacobian: wp.array3d(dtype=wp.vec3), k: int):
    return wp.float64(jacobian[w, c, i][k])


@wp.func
def couple(
    w: int, s: int, m: int, listed: wp.array3d(dtype=int), jacobian: wp.array3d(dtype=wp.vec3),
    response: wp.array3d(dtype=wp.float64), coupling: wp.array3d(dtype=wp.float64),
):  # fmt: skip
    """W of the responses M^-1 J^T."""
    for i in range(m):
        for j in range(3 * m):
            for k in range(3):
                total = wp.float64(0.0)
                for d in range(jacobian.shape[2]):
                    total = total + wp.float64(jacobian[w, listed[w, s, i], d][k]) * response[w, j, d]
                coupling[w, 3 * i + k, j] = total


@wp.func
def describe(
    w: int, i: int, n: wp.vec3, b: float, mu: float, soft_normal: float, soft_across: float,
    coupling: wp.array3d(dtype=wp.float64), normals: wp.array2d(dtype=wp.float64), scalars: wp.array3d(dtype=wp.float64),
    sizes: wp.array2d(dtype=wp.vec3),
):  # fmt: skip
    """Normal and scalars of contact i of the cone problem; compliances and r in single precision, too."""
    trace = coupling[w, 3 * i, 3 * i] + coupling[w, 3 * i + 1, 3 * i + 1] + coupling[w, 3 * i + 2, 3 * i + 2]
    trace = wp.max(trace, wp.float64(1.0e-12))
    own = float(trace) / 3.0
    sizes[w, i] = wp.vec3(soft_normal * own, soft_across * own, float(wp.float64(1.0) / trace))
    for k in range(3):
        normals[w, 3 * i + k] = wp.float64(n[k])
    scalars[w, i, 0] = wp.float64(b)
    scalars[w, i, 1] = wp.float64(mu)
    for k in range(3):
        scalars[w, i, 2 + k] = wp.float64(sizes[w, i][k])


@wp.func
def wanted(gap: float, h: float, rest_speed: float):
    return wp.min(-FEEDBACK * gap / h, rest_speed)


@wp.kernel(enable_backward=False)
def rest_problem_kernel(
    listed: wp.array3d(dtype=int),
    listed_count: wp.array2d(dtype=int),
    s: int,
    h: float,
    rest_speed: float,
    gaps: wp.array2d(dtype=float),
    contact_normals: wp.array2d(dtype=wp.vec3),
    materials: wp.array2d(dtype=material_vector),
    jacobian: wp.array3d(dtype=wp.vec3),
    factors: wp.array4d(dtype=float),
    right: wp.array2d(dtype=float),
    response: wp.array3d(dtype=wp.float64),
    coupling: wp.array3d(dtype=wp.float64),
    normals: wp.array2d(dtype=wp.float64),
    scalars: wp.array3d(dtype=wp.float64),
    sizes: wp.array2d(dtype=wp.vec3),
):
    w = wp.tid()
    rates = jacobian.shape[2]
    m = wp.min(listed_count[w, s], listed.shape[2])
    for i in range(m):
        for k in range(3):
            for d in range(rates):
                right[w, d] = jacobian[w, listed[w, s, i], d][k]
            solve(w, s, rates, factors, right)
            for d in range(rates):
                response[w, 3 * i + k, d] = wp.float64(right[w, d])
    couple(w, s, m, listed, jacobian, response, coupling)
    for i in range(m):
        c = listed[w, s, i]
        b = wanted(gaps[w, c], h, rest_speed)
        describe(
            w,
            i,
            contact_normals[w, c],
            b,
            materials[w, c][FRICTION],
            SOFT_NORMAL,
            SOFT_ACROSS,
            coupling,
            normals,
            scalars,
            sizes,
        )


@wp.kernel(enable_backward=False)
def rest_solve_kernel(
    v: wp.array3d(dtype=float),
    left: wp.array2d(dtype=float),
    listed: wp.array3d(dtype=int),
    listed_count: wp.array2d(dtype=int),
    s: int,
    tree: wp.array2d(dtype=int),
    dofs: wp.array2d(dtype=int),
    jacobian: wp.array3d(dtype=wp.vec3),
    response: wp.array3d(dtype=wp.float64),
    coupling: wp.array3d(dtype=wp.float64),
    normals: wp.array2d(dtype=wp.float64),
    scalars: wp.array3d(dtype=wp.float64),
    start: wp.array2d(dtype=wp.float64),
    solution: wp.array2d(dtype=wp.float64),
    states_now: wp.array2d(dtype=int),
    matrix: wp.array3d(dtype=wp.float64),
    vectors: wp.array3d(dtype=wp.float64),
    accelerations: wp.array3d(dtype=float),
    impulses: wp.array3d(dtype=wp.vec3),
    states: wp.array3d(dtype=int),
    pushed: wp.array3d(dtype=int),
    remainder: wp.array2d(dtype=float),
):
    """The impulses, and `accelerations` with them; joints that they push."""
    w = wp.tid()
    rates = jacobian.shape[2]
    m = wp.min(listed_count[w, s], listed.shape[2])
    for b in range(tree.shape[0]):
        pushed[w, s, b] = 0
    remainder[w, s] = 0.0
    if m > 0:
        rho = wp.float64(left[w, s])
        for i in range(m):
            for k in range(3):
                total = wp.float64(0.0)
                for d in range(rates):
                    speed = wp.float64(v[w, s, d]) + rho * wp.float64(accelerations[w, s, d])
                    total = total + wp.float64(jacobian[w, listed[w, s, i], d][k]) * speed
                start[w, 3 * i + k] = total
        remainder[w, s] = float(cone_impulses(w, m, coupling, normals, scalars, start, solution, states_now, matrix, vectors))
        for i in range(m):
            states[w, s, i] = states_now[w, i]
            impulses[w, s, i] = wp.vec3(float(solution[w, 3 * i]), float(solution[w, 3 * i + 1]), float(solution[w, 3 * i + 2]))
        for d in range(rates):
            total = wp.float64(0.0)
            for i in range(3 * m):
                total = total + response[w, i, d] * solution[w, i]
            if total != wp.float64(0.0):
                pushed[w, s, dofs[d, 0] - 1] = 1
                accelerations[w, s, d] = float(wp.float64(accelerations[w, s, d]) + total / rho)


@wp.kernel(enable_backward=False)
def rest_multiplier_kernel(
    v: wp.array3d(dtype=float),
    left: wp.array2d(dtype=float),
    listed: wp.array3d(dtype=int),
    listed_count: wp.array2d(dtype=int),
    s: int,
    factors: wp.array4d(dtype=float),
    jacobian: wp.array3d(dtype=wp.vec3),
    coupling: wp.array3d(dtype=wp.float64),
    normals: wp.array2d(dtype=wp.float64),
    scalars: wp.array3d(dtype=wp.float64),
    start: wp.array2d(dtype=wp.float64),
    solution: wp.array2d(dtype=wp.float64),
    states_now: wp.array2d(dtype=int),
    matrix: wp.array3d(dtype=wp.float64),
    vectors: wp.array3d(dtype=wp.float64),
    accelerations: wp.array3d(dtype=float),
    impulses: wp.array3d(dtype=wp.vec3),
    states: wp.array3d(dtype=int),
    gradients: wp.array3d(dtype=float),
    right: wp.array2d(dtype=float),
    knowns: wp.array2d(dtype=wp.float64),
    multipliers: wp.array2d(dtype=float),
    row_multipliers: wp.array2d(dtype=wp.vec3),
):
    """Multipliers of R and of the contacts' rows: N^T k = -J A^-T g / rho,  l = -A^-T (g + rho J^T (dF/du)^T k)."""
    w = wp.tid()
    rates = jacobian.shape[2]
    m = wp.min(listed_count[w, s], listed.shape[2])
    for i in range(row_multipliers.shape[1]):
        row_multipliers[w, i] = wp.vec3(0.0, 0.0, 0.0)
    for d in range(rates):
        multipliers[w, d] = -gradients[w, s, d]
    if m > 0:
        rho = left[w, s]
        for d in range(rates):
            right[w, d] = gradients[w, s, d]
        solve_transposed(w, s, rates, factors, right)
        for i in range(m):
            states_now[w, i] = states[w, s, i]
            c = listed[w, s, i]
            for k in range(3):
                solution[w, 3 * i + k] = wp.float64(impulses[w, s, i][k])
                speed = wp.float64(0.0)
                total = wp.float64(0.0)
                for d in range(rates):
                    along = wp.float64(jacobian[w, c, d][k])
                    speed = speed + along * (wp.float64(v[w, s, d]) + wp.float64(rho) * wp.float64(accelerations[w, s, d]))
                    total = total + along * wp.float64(right[w, d])
                vectors[w, 0, 3 * i + k] = speed
                knowns[w, 3 * i + k] = -total / wp.float64(rho)
        cone_multipliers(w, m, coupling, normals, scalars, start, solution, states_now, matrix, vectors, knowns)
        for i in range(m):
            c = listed[w, s, i]
            row_multipliers[w, i] = wp.vec3(float(knowns[w, 3 * i]), float(knowns[w, 3 * i + 1]), float(knowns[w, 3 * i + 2]))
            back = wp.vec3(float(vectors[w, 1, 3 * i]), float(vectors[w, 1, 3 * i + 1]), float(vectors[w, 1, 3 * i + 2]))
            for d in range(rates):
                multipliers[w, d] = multipliers[w, d] - rho * wp.dot(jacobian[w, c, d], back)
    solve_transposed(w, s, rates, factors, multipliers)


@wp.kernel
def ends_kernel(
    v: wp.array3d(dtype=float),
    accelerations: wp.array3d(dtype=float),
    left: wp.array2d(dtype=float),
    s: int,
    ends: wp.array3d(dtype=float),
):
    """Rates at the end of the time left, (world, 1, nv)."""
    w = wp.tid()
    for i in range(v.shape[2]):
        ends[w, 0, i] = v[w, s, i] + left[w, s] * accelerations[w, s, i]


@wp.kernel
def rest_rows_kernel(
    shapes: wp.array2d(dtype=int),
    found: wp.array3d(dtype=wp.vec3i),
    listed: wp.array3d(dtype=int),
    listed_count: wp.array2d(dtype=int),
    states: wp.array3d(dtype=int),
    impulses: wp.array3d(dtype=wp.vec3),
    sizes: wp.array2d(dtype=wp.vec3),
    s: int,
    h: float,
    rest_speed: float,
    gaps: wp.array2d(dtype=float),
    normals: wp.array2d(dtype=wp.vec3),
    arms_a: wp.array2d(dtype=wp.vec3),
    arms_b: wp.array2d(dtype=wp.vec3),
    materials: wp.array2d(dtype=material_vector),
    turning: wp.array2d(dtype=wp.vec3),
    moving: wp.array2d(dtype=wp.vec3),
    rows: wp.array2d(dtype=wp.vec3),
):
    """F of the contacts at the end of the segment."""
    w, i = wp.tid()
    if i >= listed_count[w, s] or states[w, s, i] == 0:
        return
    c = listed[w, s, i]
    a = shapes[found[w, s, c][0], 0]
    b = shapes[found[w, s, c][2], 0]
    u = meeting_velocity(w, a, b, arms_a[w, c], arms_b[w, c], turning, moving)
    size = sizes[w, i]
    target = wanted(gaps[w, c], h, rest_speed)
    rows[w, i] = row(
        states[w, s, i], u, impulses[w, s, i], normals[w, c], target, materials[w, c][FRICTION], size[0], size[1], size[2]
    )


@wp.kernel
def rest_push_kernel(
    shapes: wp.array2d(dtype=int),
    found: wp.array3d(dtype=wp.vec3i),
    listed: wp.array3d(dtype=int),
    listed_count: wp.array2d(dtype=int),
    impulses: wp.array3d(dtype=wp.vec3),
    left: wp.array2d(dtype=float),
    s: int,
    arms_a: wp.array2d(dtype=wp.vec3),
    arms_b: wp.array2d(dtype=wp.vec3),
    loads: wp.array2d(dtype=wp.spatial_vector),
):
    """Takes the contacts' mean forces off `loads`, what links need from their joints."""
    w, i = wp.tid()
    if i >= listed_count[w, s]:
        return
    c = listed[w, s, i]
    a = shapes[found[w, s, c][0], 0]
    b = shapes[found[w, s, c][2], 0]
    f = impulses[w, s, i] / left[w, s]
    ta = wp.cross(arms_a[w, c], f)
    tb = wp.cross(arms_b[w, c], f)
    wp.atomic_add(loads, w, a, wp.spatial_vector(-f[0], -f[1], -f[2], -ta[0], -ta[1], -ta[2]))
    wp.atomic_add(loads, w, b, wp.spatial_vector(f[0], f[1], f[2], tb[0], tb[1], tb[2]))
