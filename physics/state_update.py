"""Kernels that carry the states of a tree from node to node: (+) is the exponential map for quaternions.

symplectic, implicit    v+ = v + dt a,  q+ = q (+) dt v+
rk4                     stages with q' and v' of the stage before, quaternions as four numbers, unit length at the end
"""

import warp as wp

from physics.joint_forces import exponential
from physics.kinematics import FREE_JOINT, SPHERICAL_JOINT, has_quaternion, is_single, unit_quaternion


@wp.func
def turned(x: wp.array3d(dtype=float), w: int, s: int, j: int, spin: wp.vec3, dt: float):
    """The quaternion at coordinate j, normalised, turned by spin for dt."""
    q = unit_quaternion(x[w, s, j], x[w, s, j + 1], x[w, s, j + 2], x[w, s, j + 3]) * exponential(spin * dt)
    return unit_quaternion(q[0], q[1], q[2], q[3])


@wp.func
def quaternion_rate(x: wp.array3d(dtype=float), v: wp.array3d(dtype=float), w: int, s: int, j: int, i: int):
    """q' = q (w, 0) / 2 at node s."""
    q = wp.quat(x[w, s, j], x[w, s, j + 1], x[w, s, j + 2], x[w, s, j + 3])
    return q * wp.quat(0.5 * v[w, s, i], 0.5 * v[w, s, i + 1], 0.5 * v[w, s, i + 2], 0.0)


@wp.kernel
def start_kernel(
    first: wp.array2d(dtype=float), first_rates: wp.array2d(dtype=float), x: wp.array3d(dtype=float), v: wp.array3d(dtype=float)
):
    w = wp.tid()
    for j in range(first.shape[1]):
        x[w, 0, j] = first[w, j]
    for i in range(first_rates.shape[1]):
        v[w, 0, i] = first_rates[w, i]


@wp.kernel
def update_kernel(
    a: wp.array3d(dtype=float),
    tree: wp.array2d(dtype=int),
    s: int,
    dt: float,
    x: wp.array3d(dtype=float),
    v: wp.array3d(dtype=float),
):
    """Node s to s + 1 by the accelerations at s."""
    w = wp.tid()
    for i in range(v.shape[2]):
        v[w, s + 1, i] = v[w, s, i] + dt * a[w, s, i]
    for b in range(tree.shape[0]):
        kind = tree[b, 1]
        j = tree[b, 2]
        i = tree[b, 3]
        if kind == SPHERICAL_JOINT:
            ball = turned(x, w, s, j, wp.vec3(v[w, s + 1, i], v[w, s + 1, i + 1], v[w, s + 1, i + 2]), dt)
            for k in range(4):
                x[w, s + 1, j + k] = ball[k]
        elif kind == FREE_JOINT:
            body = turned(x, w, s, j + 3, wp.vec3(v[w, s + 1, i + 3], v[w, s + 1, i + 4], v[w, s + 1, i + 5]), dt)
            for k in range(3):
                x[w, s + 1, j + k] = x[w, s, j + k] + dt * v[w, s + 1, i + k]
            for k in range(4):
                x[w, s + 1, j + 3 + k] = body[k]
        elif kind > 0:
            x[w, s + 1, j] = x[w, s, j] + dt * v[w, s + 1, i]


@wp.kernel
def stage_kernel(
    a: wp.array3d(dtype=float),
    tree: wp.array2d(dtype=int),
    first: int,
    last: int,
    dt: float,
    x: wp.array3d(dtype=float),
    v: wp.array3d(dtype=float),
):
    """A stage of Runge-Kutta: node last + 1 is `first` moved on for dt by the rates at `last`."""
    w = wp.tid()
    for i in range(v.shape[2]):
        v[w, last + 1, i] = v[w, first, i] + dt * a[w, last, i]
    for b in range(tree.shape[0]):
        kind = tree[b, 1]
        j = tree[b, 2]
        i = tree[b, 3]
        if kind == SPHERICAL_JOINT:
            ball = quaternion_rate(x, v, w, last, j, i)
            for k in range(4):
                x[w, last + 1, j + k] = x[w, first, j + k] + dt * ball[k]
        elif kind == FREE_JOINT:
            body = quaternion_rate(x, v, w, last, j + 3, i + 3)
            for k in range(3):
                x[w, last + 1, j + k] = x[w, first, j + k] + dt * v[w, last, i + k]
            for k in range(4):
                x[w, last + 1, j + 3 + k] = x[w, first, j + 3 + k] + dt * body[k]
        elif kind > 0:
            x[w, last + 1, j] = x[w, first, j] + dt * v[w, last, i]


@wp.kernel
def close_kernel(
    a: wp.array3d(dtype=float),
    tree: wp.array2d(dtype=int),
    s: int,
    dt: float,
    x: wp.array3d(dtype=float),
    v: wp.array3d(dtype=float),
):
    """Node s + 4 from the four stages s to s + 3."""
    w = wp.tid()
    h = dt / 6.0
    for i in range(v.shape[2]):
        v[w, s + 4, i] = v[w, s, i] + h * (a[w, s, i] + 2.0 * a[w, s + 1, i] + 2.0 * a[w, s + 2, i] + a[w, s + 3, i])
    for b in range(tree.shape[0]):
        kind = tree[b, 1]
        j = tree[b, 2]
        i = tree[b, 3]
        linear = int(0)
        if kind == FREE_JOINT:
            linear = 3
        elif is_single(kind):
            linear = 1
        for k in range(linear):
            x[w, s + 4, j + k] = x[w, s, j + k] + h * (
                v[w, s, i + k] + 2.0 * v[w, s + 1, i + k] + 2.0 * v[w, s + 2, i + k] + v[w, s + 3, i + k]
            )
        if has_quaternion(kind):
            k1 = quaternion_rate(x, v, w, s, j + linear, i + linear)
            k2 = quaternion_rate(x, v, w, s + 1, j + linear, i + linear)
            k3 = quaternion_rate(x, v, w, s + 2, j + linear, i + linear)
            k4 = quaternion_rate(x, v, w, s + 3, j + linear, i + linear)
            g = (k1 + k2 * 2.0 + k3 * 2.0 + k4) * h
            m = j + linear
            q = unit_quaternion(x[w, s, m] + g[0], x[w, s, m + 1] + g[1], x[w, s, m + 2] + g[2], x[w, s, m + 3] + g[3])
            for k in range(4):
                x[w, s + 4, m + k] = q[k]


@wp.kernel
def frames_kernel(
    x: wp.array3d(dtype=float),
    v: wp.array3d(dtype=float),
    nodes: int,
    coordinates: wp.array3d(dtype=float),
    rates: wp.array3d(dtype=float),
):
    """The nodes at the ends of frames, `nodes` apart."""
    w, f = wp.tid()
    for j in range(x.shape[2]):
        coordinates[w, f, j] = x[w, (f + 1) * nodes, j]
    for i in range(v.shape[2]):
        rates[w, f, i] = v[w, (f + 1) * nodes, i]
