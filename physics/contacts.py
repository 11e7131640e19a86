r"""Contacts of one node: which there are, where they touch, what forces they give, and their Jacobians.

Found without gradient (`find_kernel`), attached again (`touch_kernel`, `push_kernel`): gap, normal, arms and material follow
poses, sizes and offsets; the force is taken at the velocities of the end of the step,

    u = (v_a + w_a x r_a) - (v_b + w_b x r_b),     u = J (rates + h a)

and enters the equations of motion as (f, r_a x f) on link a and (-f, -r_b x f) on link b. Friction, dissipation, exponent and
width of a pair are the means of its shapes', stiffness is the harmonic mean, 2 k_a k_b / (k_a + k_b): equal ones stay. A
feature that has only a share of a contact (`contact_edges`) has that share of the stiffness.
"""

import warp as wp

from physics.articulation import link_vector
from physics.contact_anchor import anchored_force
from physics.contact_law import material_vector
from physics.contact_shapes import POINTS, shape_vector, touch_with_share
from physics.inverse_dynamics import motion_vector
from physics.inverse_dynamics import turn_of as motion_turn
from physics.kinematics import joint_slide, joint_spin

REACH = wp.constant(100.0)  # [m/s^2], acceleration that contacts are looked ahead for


@wp.kernel
def twist_kernel(
    rates: wp.array3d(dtype=float),
    accelerations: wp.array3d(dtype=float),
    links: wp.array2d(dtype=link_vector),
    tree: wp.array2d(dtype=int),
    motions: wp.array2d(dtype=motion_vector),
    arms: wp.array2d(dtype=wp.vec3),
    s: int,
    h: float,
    ends: wp.array3d(dtype=float),
    turns: wp.array2d(dtype=wp.quat),
    places: wp.array2d(dtype=wp.vec3),
    turning: wp.array2d(dtype=wp.vec3),
    moving: wp.array2d(dtype=wp.vec3),
):
    """Rates at the end of the step, (world, 1, nv), orientations, origins [m], angular velocities and those of
    the origins, by slot."""
    w = wp.tid()
    for i in range(rates.shape[2]):
        ends[w, 0, i] = rates[w, s, i] + h * accelerations[w, s, i]
    turns[w, 0] = wp.quat(0.0, 0.0, 0.0, 1.0)
    places[w, 0] = wp.vec3(0.0, 0.0, 0.0)
    turning[w, 0] = wp.vec3(0.0, 0.0, 0.0)
    moving[w, 0] = wp.vec3(0.0, 0.0, 0.0)
    for b in range(tree.shape[0]):
        p = links[w, b]
        above = tree[b, 0]
        kind = tree[b, 1]
        turn = motion_turn(motions[w, b + 1])
        arm = arms[w, b + 1]
        turns[w, b + 1] = turn
        places[w, b + 1] = places[w, above] + arm
        turning[w, b + 1] = turning[w, above] + joint_spin(kind, p, turn, ends, w, 0, tree[b, 3])
        moving[w, b + 1] = (
            moving[w, above] + wp.cross(turning[w, above], arm) + joint_slide(kind, p, turn, ends, w, 0, tree[b, 3])
        )


@wp.func
def point_of(kind: int, points: wp.array2d(dtype=wp.vec3), w: int, index: int):
    point = wp.vec3(0.0, 0.0, 0.0)
    if kind == POINTS:
        point = points[w, index]
    return point


@wp.kernel(enable_backward=False)
def find_kernel(
    shape_numbers: wp.array2d(dtype=shape_vector),
    points: wp.array2d(dtype=wp.vec3),
    values: wp.array4d(dtype=float),
    frame: wp.array(dtype=wp.vec4),
    shapes: wp.array2d(dtype=int),
    features: wp.array2d(dtype=int),
    near: wp.array2d(dtype=wp.vec2i),
    near_count: wp.array(dtype=int),
    turns: wp.array2d(dtype=wp.quat),
    places: wp.array2d(dtype=wp.vec3),
    turning: wp.array2d(dtype=wp.vec3),
    moving: wp.array2d(dtype=wp.vec3),
    s: int,
    h: float,
    found: wp.array3d(dtype=wp.vec3i),
    count: wp.array2d(dtype=int),
):
    """Contacts (shape a, feature, shape b) that may touch within this step, into found[w, s]; all are counted."""
    w = wp.tid()
    total = int(0)
    for i in range(wp.min(near_count[w], near.shape[1])):
        for side in range(2):
            a = near[w, i][side]
            b = near[w, i][1 - side]
            slot_a = shapes[a, 0]
            slot_b = shapes[b, 0]
            for k in range(features[a, b]):
                gap, n, arm_a, arm_b, share = touch_with_share(
                    shape_numbers[w, a], shape_numbers[w, b], shapes[a, 1], shapes[b, 1], k,
                    point_of(shapes[a, 1], points, w, shapes[a, 2] + k),
                    turns[w, slot_a], turns[w, slot_b], places[w, slot_a], places[w, slot_b], values, frame[0], w,
                )  # fmt: skip
                u = moving[w, slot_a] + wp.cross(turning[w, slot_a], arm_a)
                u = u - moving[w, slot_b] - wp.cross(turning[w, slot_b], arm_b)
                if share > 0.0 and gap < 2.0 * h * wp.length(u) + h * h * REACH and wp.dot(n, n) > 0.5:
                    if total < found.shape[2]:
                        found[w, s, total] = wp.vec3i(a, k, b)
                    total = total + 1
    count[w, s] = total


@wp.func
def mixed(a: shape_vector, b: shape_vector):
    stiffness = float(0.0)
    if a[11] + b[11] > 0.0:
        stiffness = 2.0 * a[11] * b[11] / (a[11] + b[11])
    return material_vector(
        stiffness, 0.5 * (a[12] + b[12]), 0.5 * (a[13] + b[13]), 0.5 * (a[14] + b[14]), 0.5 * (a[15] + b[15])
    )


@wp.kernel
def touch_kernel(
    shape_numbers: wp.array2d(dtype=shape_vector),
    points: wp.array2d(dtype=wp.vec3),
    values: wp.array4d(dtype=float),
    frame: wp.array(dtype=wp.vec4),
    shapes: wp.array2d(dtype=int),
    found: wp.array3d(dtype=wp.vec3i),
    count: wp.array2d(dtype=int),
    s: int,
    turns: wp.array2d(dtype=wp.quat),
    places: wp.array2d(dtype=wp.vec3),
    gaps: wp.array2d(dtype=float),
    normals: wp.array2d(dtype=wp.vec3),
    arms_a: wp.array2d(dtype=wp.vec3),
    arms_b: wp.array2d(dtype=wp.vec3),
    materials: wp.array2d(dtype=material_vector),
):
    w, c = wp.tid()
    if c >= count[w, s]:
        return
    a = found[w, s, c][0]
    k = found[w, s, c][1]
    b = found[w, s, c][2]
    gap, n, arm_a, arm_b, share = touch_with_share(
        shape_numbers[w, a], shape_numbers[w, b], shapes[a, 1], shapes[b, 1], k,
        point_of(shapes[a, 1], points, w, shapes[a, 2] + k),
        turns[w, shapes[a, 0]], turns[w, shapes[b, 0]], places[w, shapes[a, 0]], places[w, shapes[b, 0]], values, frame[0], w,
    )  # fmt: skip
    gaps[w, c] = gap
    normals[w, c] = n
    arms_a[w, c] = arm_a
    arms_b[w, c] = arm_b
    m = mixed(shape_numbers[w, a], shape_numbers[w, b])
    materials[w, c] = material_vector(share * m[0], m[1], m[2], m[3], m[4])


@wp.kernel
def push_kernel(
    shapes: wp.array2d(dtype=int),
    found: wp.array3d(dtype=wp.vec3i),
    count: wp.array2d(dtype=int),
    s: int,
    h: float,
    gaps: wp.array2d(dtype=float),
    normals: wp.array2d(dtype=wp.vec3),
    arms_a: wp.array2d(dtype=wp.vec3),
    arms_b: wp.array2d(dtype=wp.vec3),
    materials: wp.array2d(dtype=material_vector),
    stretches: wp.array2d(dtype=wp.vec3),
    grips: wp.array(dtype=wp.vec2),
    turning: wp.array2d(dtype=wp.vec3),
    moving: wp.array2d(dtype=wp.vec3),
    loads: wp.array2d(dtype=wp.spatial_vector),
):
    """Takes the contacts' forces off `loads`, what links need from their joints (force, moment about the origin)."""
    w, c = wp.tid()
    if c >= count[w, s]:
        return
    a = shapes[found[w, s, c][0], 0]
    b = shapes[found[w, s, c][2], 0]
    u = moving[w, a] + wp.cross(turning[w, a], arms_a[w, c]) - moving[w, b] - wp.cross(turning[w, b], arms_b[w, c])
    f = anchored_force(materials[w, c], gaps[w, c], normals[w, c], u, h, stretches[w, c], grips[w])
    ta = wp.cross(arms_a[w, c], f)
    tb = wp.cross(arms_b[w, c], f)
    wp.atomic_add(loads, w, a, wp.spatial_vector(-f[0], -f[1], -f[2], -ta[0], -ta[1], -ta[2]))
    wp.atomic_add(loads, w, b, wp.spatial_vector(f[0], f[1], f[2], tb[0], tb[1], tb[2]))


@wp.kernel(enable_backward=False)
def contact_jacobian_kernel(
    shapes: wp.array2d(dtype=int),
    found: wp.array3d(dtype=wp.vec3i),
    count: wp.array2d(dtype=int),
    s: int,
    tree: wp.array2d(dtype=int),
    dofs: wp.array2d(dtype=int),
    axes: wp.array2d(dtype=wp.vec3),
    places: wp.array2d(dtype=wp.vec3),
    arms_a: wp.array2d(dtype=wp.vec3),
    arms_b: wp.array2d(dtype=wp.vec3),
    jacobian: wp.array3d(dtype=wp.vec3),
):
    """u = sum over rates of jacobian[w, c, rate] * rate."""
    w, c = wp.tid()
    if c >= count[w, s]:
        return
    rates = dofs.shape[0]
    for i in range(rates):
        jacobian[w, c, i] = wp.vec3(0.0, 0.0, 0.0)
    for side in range(2):
        slot = shapes[found[w, s, c][0], 0]
        arm = arms_a[w, c]
        sign = float(1.0)
        if side == 1:
            slot = shapes[found[w, s, c][2], 0]
            arm = arms_b[w, c]
            sign = -1.0
        at = places[w, slot] + arm
        while slot > 0:
            i = tree[slot - 1, 3]
            while i < rates and dofs[wp.min(i, rates - 1), 0] == slot:
                e = axes[w, i] * sign
                if dofs[i, 1] == 0:
                    e = wp.cross(e, at - places[w, slot])
                jacobian[w, c, i] = jacobian[w, c, i] + e
                i = i + 1
            slot = tree[slot - 1, 0]
