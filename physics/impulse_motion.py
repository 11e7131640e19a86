r"""Kernels of a flight between impacts: where a tree is at a time, and when it strikes.

A segment of a substep starts at (q, v) with the time rho left in the substep and takes the constant acceleration a, found at
the place q (+) rho v / 2 (at q where something rests on something):

    v(t) = v + t a,    q(t) = q (+) t (v + t a / 2),    and q(t) = q (+) t v(t) for joints that resting contacts push

so that a flight under constant forces is exact, wherever it is cut. `physics.impulse_search` finds the time of
impact t0 without gradient; `time_kernel` attaches it by one Newton step, t = t0 - (g - [g]) / g', whose value
is t0 and whose derivative is that of the time of impact ([.]: without gradient).
"""

import warp as wp

from physics.articulation import link_vector
from physics.joint_forces import exponential
from physics.kinematics import FREE_JOINT, has_quaternion, joint_place, joint_slide, joint_spin, joint_turn, unit_quaternion

SLOPE = wp.constant(1.0e-6)  # [m/s], slower contacts have no time of impact to differentiate


@wp.func
def displace(
    w: int, s: int, to: int, t: float, part: float, kind: int, j: int, i: int,
    x: wp.array3d(dtype=float), v: wp.array3d(dtype=float), a: wp.array3d(dtype=float), out: wp.array3d(dtype=float),
):  # fmt: skip
    """out[w, to] = x[w, s] (+) t (v + part a) for one joint."""
    m = j
    n = i
    if kind == FREE_JOINT:
        for k in range(3):
            out[w, to, j + k] = x[w, s, j + k] + t * (v[w, s, i + k] + part * a[w, s, i + k])
        m = j + 3
        n = i + 3
    if has_quaternion(kind):
        spin = wp.vec3(
            v[w, s, n] + part * a[w, s, n], v[w, s, n + 1] + part * a[w, s, n + 1], v[w, s, n + 2] + part * a[w, s, n + 2]
        )
        q = unit_quaternion(x[w, s, m], x[w, s, m + 1], x[w, s, m + 2], x[w, s, m + 3]) * exponential(spin * t)
        r = unit_quaternion(q[0], q[1], q[2], q[3])
        for k in range(4):
            out[w, to, m + k] = r[k]
    elif kind > 0:
        out[w, to, j] = x[w, s, j] + t * (v[w, s, i] + part * a[w, s, i])


@wp.func
def move(
    w: int, s: int, to: int, t: float,
    x: wp.array3d(dtype=float), v: wp.array3d(dtype=float), a: wp.array3d(dtype=float), pushed: wp.array3d(dtype=int),
    tree: wp.array2d(dtype=int), out: wp.array3d(dtype=float), out_rates: wp.array3d(dtype=float),
):  # fmt: skip
    for i in range(v.shape[2]):
        out_rates[w, to, i] = v[w, s, i] + t * a[w, s, i]
    for b in range(tree.shape[0]):
        part = 0.5 * t
        if pushed[w, s, b] == 1:
            part = t
        displace(w, s, to, t, part, tree[b, 1], tree[b, 2], tree[b, 3], x, v, a, out)


@wp.func
def place_links(
    w: int, x: wp.array3d(dtype=float), v: wp.array3d(dtype=float), links: wp.array2d(dtype=link_vector),
    tree: wp.array2d(dtype=int), at: int, moving_at: int,
    turns: wp.array2d(dtype=wp.quat), places: wp.array2d(dtype=wp.vec3), turning: wp.array2d(dtype=wp.vec3),
    moving: wp.array2d(dtype=wp.vec3),
):  # fmt: skip
    turns[w, 0] = wp.quat(0.0, 0.0, 0.0, 1.0)
    places[w, 0] = wp.vec3(0.0, 0.0, 0.0)
    turning[w, 0] = wp.vec3(0.0, 0.0, 0.0)
    moving[w, 0] = wp.vec3(0.0, 0.0, 0.0)
    for b in range(tree.shape[0]):
        p = links[w, b]
        above = tree[b, 0]
        kind = tree[b, 1]
        base = turns[w, above]
        turn = base * wp.quat(p[13], p[14], p[15], p[16]) * joint_turn(kind, p, x, w, at, tree[b, 2])
        arm = wp.quat_rotate(base, joint_place(kind, p, x, w, at, tree[b, 2]))
        turns[w, b + 1] = turn
        places[w, b + 1] = places[w, above] + arm
        turning[w, b + 1] = turning[w, above] + joint_spin(kind, p, turn, v, w, moving_at, tree[b, 3])
        moving[w, b + 1] = (
            moving[w, above] + wp.cross(turning[w, above], arm) + joint_slide(kind, p, turn, v, w, moving_at, tree[b, 3])
        )


@wp.kernel
def pose_kernel(
    x: wp.array3d(dtype=float),
    v: wp.array3d(dtype=float),
    links: wp.array2d(dtype=link_vector),
    tree: wp.array2d(dtype=int),
    at: int,
    moving_at: int,
    turns: wp.array2d(dtype=wp.quat),
    places: wp.array2d(dtype=wp.vec3),
    turning: wp.array2d(dtype=wp.vec3),
    moving: wp.array2d(dtype=wp.vec3),
):
    """Orientations, origins [m], angular velocities and those of the origins, by slot, of x[:, at] and v[:, moving_at]."""
    w = wp.tid()
    place_links(w, x, v, links, tree, at, moving_at, turns, places, turning, moving)


@wp.func
def meeting_velocity(
    w: int, a: int, b: int, arm_a: wp.vec3, arm_b: wp.vec3, turning: wp.array2d(dtype=wp.vec3),
    moving: wp.array2d(dtype=wp.vec3),
):  # fmt: skip
    return moving[w, a] + wp.cross(turning[w, a], arm_a) - moving[w, b] - wp.cross(turning[w, b], arm_b)


@wp.kernel
def middle_kernel(
    x: wp.array3d(dtype=float),
    v: wp.array3d(dtype=float),
    left: wp.array2d(dtype=float),
    share: wp.array2d(dtype=float),
    tree: wp.array2d(dtype=int),
    s: int,
    middle: wp.array3d(dtype=float),
):
    """Where the forces of the segment are taken."""
    w = wp.tid()
    t = share[w, s] * left[w, s]
    for b in range(tree.shape[0]):
        displace(w, s, s, t, 0.0, tree[b, 1], tree[b, 2], tree[b, 3], x, v, v, middle)


@wp.kernel
def near_kernel(
    x: wp.array3d(dtype=float),
    v: wp.array3d(dtype=float),
    a: wp.array3d(dtype=float),
    pushed: wp.array3d(dtype=int),
    tree: wp.array2d(dtype=int),
    time: wp.array2d(dtype=float),
    s: int,
    near: wp.array3d(dtype=float),
    near_rates: wp.array3d(dtype=float),
):
    """The state at the detached time of impact."""
    w = wp.tid()
    move(w, s, 0, time[w, s], x, v, a, pushed, tree, near, near_rates)


@wp.kernel(enable_backward=False)
def reference_kernel(hit: wp.array2d(dtype=int), s: int, gaps: wp.array2d(dtype=float), reference: wp.array2d(dtype=float)):
    w = wp.tid()
    reference[w, s] = 0.0
    if hit[w, s] >= 0:
        reference[w, s] = gaps[w, hit[w, s]]


@wp.kernel
def time_kernel(
    shapes: wp.array2d(dtype=int),
    found: wp.array3d(dtype=wp.vec3i),
    hit: wp.array2d(dtype=int),
    time: wp.array2d(dtype=float),
    done: wp.array2d(dtype=int),
    reference: wp.array2d(dtype=float),
    gaps: wp.array2d(dtype=float),
    normals: wp.array2d(dtype=wp.vec3),
    arms_a: wp.array2d(dtype=wp.vec3),
    arms_b: wp.array2d(dtype=wp.vec3),
    turning: wp.array2d(dtype=wp.vec3),
    moving: wp.array2d(dtype=wp.vec3),
    s: int,
    h: float,
    substeps: int,
    fresh: int,
    left: wp.array2d(dtype=float),
    length: wp.array(dtype=float),
):
    """How long the segment is, and the time left after it; a substep that ends is followed by a whole one, or by none."""
    w = wp.tid()
    t = left[w, s]
    rest = float(0.0)
    c = hit[w, s]
    if c >= 0:
        t = time[w, s]
        a = shapes[found[w, s, c][0], 0]
        b = shapes[found[w, s, c][2], 0]
        slope = wp.dot(normals[w, c], meeting_velocity(w, a, b, arms_a[w, c], arms_b[w, c], turning, moving))
        if slope < -SLOPE:
            t = time[w, s] - (gaps[w, c] - reference[w, s]) / slope
        if fresh == 0:
            rest = left[w, s] - t
    elif done[w, s + 1] < substeps:
        rest = h
    if fresh == 1:
        rest = h
    length[w] = t
    left[w, s + 1] = rest


@wp.kernel
def arrive_kernel(
    x: wp.array3d(dtype=float),
    v: wp.array3d(dtype=float),
    a: wp.array3d(dtype=float),
    pushed: wp.array3d(dtype=int),
    tree: wp.array2d(dtype=int),
    length: wp.array(dtype=float),
    s: int,
    ends: wp.array3d(dtype=float),
    before: wp.array3d(dtype=float),
):
    """The state at the end of the segment: coordinates at node s + 1 and the rates before the impact."""
    w = wp.tid()
    move(w, s, s + 1, length[w], x, v, a, pushed, tree, ends, before)


@wp.kernel
def add_kernel(before: wp.array3d(dtype=float), change: wp.array3d(dtype=float), s: int, rates: wp.array3d(dtype=float)):
    """Rates after the impact at node s + 1."""
    w = wp.tid()
    for i in range(rates.shape[2]):
        rates[w, s + 1, i] = before[w, s + 1, i] + change[w, s, i]
