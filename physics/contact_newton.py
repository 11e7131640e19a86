r"""Accelerations of a tree with contacts, found by Newton's method. No gradient passes through anything here.

    R(a) = H a + armature a + c - tau(q^, v^) - sum over contacts J^T f(J v^) = 0,     v^ = v + h a
    A    = dR/da = H + armature - h dtau/dv - h^2 dtau/dq - h sum J^T (df/du) J

Steps go along -A^-1 R and are halved until the sum of R_i^2 / H_ii falls. Where that takes a step too small, friction enters A
as a damper of its present strength (`secant`): a lagged iteration that does not overshoot where sliding turns into sticking. At
the end A is that of the solution, exactly, for the adjoint.
"""

import warp as wp

from physics.articulation import actuator_vector, dof_vector, link_vector
from physics.contact_anchor import anchored_force, anchored_slope
from physics.contact_law import material_vector
from physics.mass_matrix import assemble, evaluate, renew_slopes
from physics.pivoted_lu import pivoted_factorise, pivoted_solve

ITERATIONS = wp.constant(40)
HALVINGS = wp.constant(6)
LEAST_GAIN = wp.constant(0.9)  # of the merit in one step; below it the next step is lagged
PRECISION = wp.constant(1.0e-6)  # of a rate, or of the least rate that counts
ROUGH = wp.constant(1.0e-4)  # the same, where the merit is noise already
LEAST_RATE = wp.constant(1.0e-2)  # [rad/s] or [m/s]
ROUNDING = wp.constant(1.0e-11)  # share of the merit at the start below which it is noise


@wp.func
def relative_velocity(
    w: int, s: int, c: int, h: float, rates: wp.array3d(dtype=float), accelerations: wp.array3d(dtype=float),
    jacobian: wp.array3d(dtype=wp.vec3),
):  # fmt: skip
    u = wp.vec3(0.0, 0.0, 0.0)
    for i in range(jacobian.shape[2]):
        u = u + jacobian[w, c, i] * (rates[w, s, i] + h * accelerations[w, s, i])
    return u


@wp.func
def merit_with_contacts(
    w: int, s: int, h: float, contacts: int,
    rates: wp.array3d(dtype=float), accelerations: wp.array3d(dtype=float), matrix: wp.array3d(dtype=float),
    gaps: wp.array2d(dtype=float), normals: wp.array2d(dtype=wp.vec3), materials: wp.array2d(dtype=material_vector),
    stretches: wp.array2d(dtype=wp.vec3), grips: wp.array(dtype=wp.vec2), jacobian: wp.array3d(dtype=wp.vec3),
    residual: wp.array2d(dtype=float),
):  # fmt: skip
    """Takes J^T f off the residual; returns the merit."""
    for c in range(contacts):
        u = relative_velocity(w, s, c, h, rates, accelerations, jacobian)
        f = anchored_force(materials[w, c], gaps[w, c], normals[w, c], u, h, stretches[w, c], grips[w])
        for i in range(jacobian.shape[2]):
            residual[w, i] = residual[w, i] - wp.dot(jacobian[w, c, i], f)
    merit = float(0.0)
    for i in range(jacobian.shape[2]):
        merit += residual[w, i] * residual[w, i] / matrix[w, i, i]
    return merit


@wp.func
def add_contacts(
    w: int, s: int, h: float, contacts: int, secant: float,
    rates: wp.array3d(dtype=float), accelerations: wp.array3d(dtype=float),
    gaps: wp.array2d(dtype=float), normals: wp.array2d(dtype=wp.vec3), materials: wp.array2d(dtype=material_vector),
    stretches: wp.array2d(dtype=wp.vec3), grips: wp.array(dtype=wp.vec2), jacobian: wp.array3d(dtype=wp.vec3),
    factors: wp.array4d(dtype=float),
):  # fmt: skip
    """Their part of A."""
    count = jacobian.shape[2]
    for c in range(contacts):
        u = relative_velocity(w, s, c, h, rates, accelerations, jacobian)
        slope = anchored_slope(materials[w, c], gaps[w, c], normals[w, c], u, h, secant, stretches[w, c], grips[w])
        slope = slope * (-h)
        if wp.ddot(slope, slope) > 0.0:
            for j in range(count):
                column = jacobian[w, c, j]
                if wp.dot(column, column) > 0.0:
                    column = slope * column
                    for i in range(count):
                        factors[w, s, i, j] = factors[w, s, i, j] + wp.dot(jacobian[w, c, i], column)


@wp.kernel(enable_backward=False)
def contact_newton_kernel(
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
    found_count: wp.array2d(dtype=int),
    gaps: wp.array2d(dtype=float),
    normals: wp.array2d(dtype=wp.vec3),
    materials: wp.array2d(dtype=material_vector),
    stretches: wp.array2d(dtype=wp.vec3),
    grips: wp.array(dtype=wp.vec2),
    jacobian: wp.array3d(dtype=wp.vec3),
    s: int,
    frame: int,
    h: float,
    residual: wp.array2d(dtype=float),
    step: wp.array2d(dtype=float),
    before: wp.array2d(dtype=float),
    slopes: wp.array2d(dtype=float),
    accelerations: wp.array3d(dtype=float),
    factors: wp.array4d(dtype=float),
    order: wp.array3d(dtype=int),
    remainder: wp.array2d(dtype=float),
):
    """From `accelerations` as they are to those with R = 0, and A there, factorised; the last change of a rate, relative."""
    w = wp.tid()
    count = dof_numbers.shape[1]
    contacts = wp.min(found_count[w, s], gaps.shape[1])
    evaluate(
        w, s, frame, h, 0, coordinates, rates, accelerations, links, dof_numbers, actuators, controls, tree, drives, bias,
        matrix, residual,
    )  # fmt: skip
    merit = merit_with_contacts(
        w, s, h, contacts, rates, accelerations, matrix, gaps, normals, materials, stretches, grips, jacobian, residual
    )
    start = float(merit)
    secant = float(0.0)
    done = int(0)
    for _ in range(ITERATIONS):
        if done == 0:
            renew_slopes(
                w, s, frame, h, coordinates, rates, accelerations, links, dof_numbers, actuators, controls, tree, drives,
                matrix, before, slopes,
            )  # fmt: skip
            assemble(w, s, h, coordinates, rates, accelerations, links, tree, slopes, matrix, factors)
            add_contacts(
                w, s, h, contacts, secant, rates, accelerations, gaps, normals, materials, stretches, grips, jacobian, factors
            )
            pivoted_factorise(w, s, count, factors, order)
            for i in range(count):
                step[w, i] = residual[w, i]
            pivoted_solve(w, s, count, factors, order, step)
            largest = float(0.0)
            for i in range(count):
                a = accelerations[w, s, i] - step[w, i]
                accelerations[w, s, i] = a
                largest = wp.max(largest, wp.abs(step[w, i]) * h / (LEAST_RATE + wp.abs(rates[w, s, i] + h * a)))
            remainder[w, s] = largest
            small = wp.where(largest > PRECISION, 0, 1)
            evaluate(
                w, s, frame, h, 0, coordinates, rates, accelerations, links, dof_numbers, actuators, controls, tree, drives,
                bias, matrix, residual,
            )  # fmt: skip
            trial = merit_with_contacts(
                w, s, h, contacts, rates, accelerations, matrix, gaps, normals, materials, stretches, grips, jacobian, residual
            )
            fraction = float(1.0)
            for _half in range(HALVINGS):
                if trial > LEAST_GAIN * merit and trial > ROUNDING * start and small == 0:
                    fraction = 0.5 * fraction
                    for i in range(count):
                        accelerations[w, s, i] = accelerations[w, s, i] + fraction * step[w, i]
                    evaluate(
                        w, s, frame, h, 0, coordinates, rates, accelerations, links, dof_numbers, actuators, controls, tree,
                        drives, bias, matrix, residual,
                    )  # fmt: skip
                    trial = merit_with_contacts(
                        w,
                        s,
                        h,
                        contacts,
                        rates,
                        accelerations,
                        matrix,
                        gaps,
                        normals,
                        materials,
                        stretches,
                        grips,
                        jacobian,
                        residual,
                    )
            if secant == 0.0 and (small == 1 or (trial <= ROUNDING * start and largest < ROUGH)):
                done = 1
            secant = wp.where(trial > LEAST_GAIN * merit and secant == 0.0 and trial > ROUNDING * start, 1.0, 0.0)
            merit = trial
    if merit != merit:  # NaN, which a maximum does not keep
        remainder[w, s] = merit
    renew_slopes(
        w, s, frame, h, coordinates, rates, accelerations, links, dof_numbers, actuators, controls, tree, drives, matrix,
        before, slopes,
    )  # fmt: skip
    assemble(w, s, h, coordinates, rates, accelerations, links, tree, slopes, matrix, factors)
    add_contacts(w, s, h, contacts, 0.0, rates, accelerations, gaps, normals, materials, stretches, grips, jacobian, factors)
    pivoted_factorise(w, s, count, factors, order)
