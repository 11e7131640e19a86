r"""Friction that sticks: each contact has an anchor, which it drags along only where the cone is reached.

z is how far the contact has been displaced from its anchor [m], in the tangent plane, at the start of a step; u_t the
tangential velocity at its end; k_t a stiffness [N/m], c a damping time, and r(x) = psi(x) / x. As Cundall and Strack ("A
discrete numerical model for granular assemblies", 1979), with the elastic range of Dupont et al. ("Single state elastoplastic
friction models", 2002):

    f_t = -k_t r(|y| / s) y,    y = z + (h + c) u_t,    s = mu f_n / k_t, the displacement at which it slips
    z+  = r(|y| / s) y,         y = z + h u_t

psi(x) is min(x, 1) with a corner rounded over |x - 1| < ROUND: below the part 1 - ROUND of the cone the anchor stays where it
is, exactly, so that a contact does not creep; the force is C1, never beyond the cone, and where a contact loses touch z has
gone to zero with f_n. Anchors are kept by slot, one for each feature of each pair of shapes: a contact that is found again
finds its own. A deepest point (of a sphere, a capsule's end, a rim) is one feature: as the body rolls, the point moves on and
z stays.

Gradient: complete, through the displacements of all steps.
"""

import warp as wp

from physics.contact_law import contact_force, contact_slope, material_vector, normal_force, normal_slope

ROUND = wp.constant(0.02)
LEAST_SLIP = wp.constant(1.0e-9)  # [m]; with less there is no friction


@wp.func
def held_share(x: float):
    """r = psi / x."""
    low = 1.0 - ROUND
    share = float(1.0)
    if x > 1.0 + ROUND:
        share = 1.0 / x
    elif x > low:
        share = 1.0 - (x - low) * (x - low) / (4.0 * ROUND * x)
    return share


@wp.func
def held_bend(x: float):
    """r' / x = (psi' - r) / x^2."""
    bend = float(0.0)
    if x > 1.0 + ROUND:
        bend = -1.0 / (x * x * x)
    elif x > 1.0 - ROUND:
        bend = (1.0 - (x - 1.0 + ROUND) / (2.0 * ROUND) - held_share(x)) / (x * x)
    return bend


@wp.func
def extent(v: wp.vec3):
    """|v|, with a gradient of zero at zero."""
    square = wp.dot(v, v)
    length = float(0.0)
    if square > 1.0e-30:
        length = wp.sqrt(square)
    return length


@wp.func
def across(v: wp.vec3, n: wp.vec3):
    return v - n * wp.dot(n, v)


@wp.func
def slip_at(m: material_vector, f: float, grip: wp.vec2):
    return m[3] * f / grip[0]


@wp.func
def anchored_force(m: material_vector, gap: float, n: wp.vec3, u: wp.vec3, h: float, z: wp.vec3, grip: wp.vec2):
    """f [N]; grip: k_t, c; k_t = 0: the law without anchors (`contact_law`)."""
    if grip[0] <= 0.0:
        return contact_force(m, gap, n, u, h)
    along = wp.dot(n, u)
    f = normal_force(m, -(gap + h * along), -along)
    force = n * f
    s = slip_at(m, f, grip)
    if s > LEAST_SLIP:
        y = across(z + u * (h + grip[1]), n)
        force = n * f - y * (grip[0] * held_share(extent(y) / s))
    return force


@wp.func
def anchored_slope(
    m: material_vector, gap: float, n: wp.vec3, u: wp.vec3, h: float, secant: float, z: wp.vec3, grip: wp.vec2
):  # fmt: skip
    """df/du, see `contact_slope`."""
    if grip[0] <= 0.0:
        return contact_slope(m, gap, n, u, h, secant)
    along = wp.dot(n, u)
    penetration = -(gap + h * along)
    f = normal_force(m, penetration, -along)
    slope = normal_slope(m, penetration, -along, h)
    s = slip_at(m, f, grip)
    result = wp.outer(n, n) * slope
    if s > LEAST_SLIP:
        x = across(z + u * (h + grip[1]), n) / s
        length = extent(x)
        bend = held_bend(length) * (1.0 - secant)
        stiff = (wp.identity(n=3, dtype=float) - wp.outer(n, n)) * held_share(length) + wp.outer(x, x) * bend
        result = wp.outer(n + x * (m[3] * bend * length * length), n) * slope - stiff * (grip[0] * (h + grip[1]))
    return result


@wp.kernel
def first_anchor_kernel(first: wp.array2d(dtype=wp.vec3), anchors: wp.array3d(dtype=wp.vec3)):
    w, i = wp.tid()
    anchors[w, 0, i] = first[w, i]


@wp.kernel
def stretch_kernel(
    anchors: wp.array3d(dtype=wp.vec3),
    slots: wp.array2d(dtype=int),
    found: wp.array3d(dtype=wp.vec3i),
    count: wp.array2d(dtype=int),
    s: int,
    stretches: wp.array2d(dtype=wp.vec3),
):
    """z of each contact of node s."""
    w, c = wp.tid()
    if c >= count[w, s]:
        return
    pair = found[w, s, c]
    stretches[w, c] = anchors[w, s, slots[pair[0], pair[2]] + pair[1]]


@wp.kernel(enable_backward=False)
def forget_kernel(s: int, anchors: wp.array3d(dtype=wp.vec3)):
    w, i = wp.tid()
    anchors[w, s + 1, i] = wp.vec3(0.0, 0.0, 0.0)


@wp.kernel
def anchor_kernel(
    shapes: wp.array2d(dtype=int),
    slots: wp.array2d(dtype=int),
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
    anchors: wp.array3d(dtype=wp.vec3),
):
    """z+ of each contact that has a force, at node s + 1."""
    w, c = wp.tid()
    if c >= count[w, s]:
        return
    pair = found[w, s, c]
    a = shapes[pair[0], 0]
    b = shapes[pair[2], 0]
    u = moving[w, a] + wp.cross(turning[w, a], arms_a[w, c]) - moving[w, b] - wp.cross(turning[w, b], arms_b[w, c])
    n = normals[w, c]
    along = wp.dot(n, u)
    slip = slip_at(materials[w, c], normal_force(materials[w, c], -(gaps[w, c] + h * along), -along), grips[w])
    if slip > LEAST_SLIP:
        y = across(stretches[w, c] + u * h, n)
        anchors[w, s + 1, slots[pair[0], pair[2]] + pair[1]] = y * held_share(extent(y) / slip)


@wp.kernel
def last_anchor_kernel(anchors: wp.array3d(dtype=wp.vec3), node: int, last: wp.array2d(dtype=wp.vec3)):
    w, i = wp.tid()
    last[w, i] = anchors[w, node, i]
