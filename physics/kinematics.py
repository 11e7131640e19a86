"""Where the links of a tree are and how they move, from joint coordinates (forward kinematics).

With parent p, joint offset (o, S), joint turn Q(q) and shift s(q), arm r from the parent's origin to the link's:

    R = R_p S Q,   r = R_p (o + s),   x = x_p + r,   w = w_p + w_rel,   v = v_p + w_p x r + v_rel

(Featherstone, "Rigid Body Dynamics Algorithms", 2008, ch. 4), in world axes and about each link's own origin, so that nothing
cancels far from the world's. Quaternions of joints count by their direction; one of no length is no rotation.
"""

from typing import NamedTuple

import warp as wp
from torch import Tensor

from dvc.warp_op import scratch, warp_op
from physics.articulation import FREE, PRISMATIC, REVOLUTE, SPHERICAL, Linkage, Topology, link_vector, pack_links, tables

FREE_JOINT = wp.constant(FREE)
REVOLUTE_JOINT = wp.constant(REVOLUTE)
PRISMATIC_JOINT = wp.constant(PRISMATIC)
SPHERICAL_JOINT = wp.constant(SPHERICAL)


@wp.func
def is_single(kind: int):
    """Whether the joint has one coordinate and one rate."""
    return kind > FREE_JOINT and kind < SPHERICAL_JOINT


@wp.func
def has_quaternion(kind: int):
    return kind > 0 and not is_single(kind)


@wp.func
def unit_quaternion(x: float, y: float, z: float, w: float):
    square = x * x + y * y + z * z + w * w
    result = wp.quat(0.0, 0.0, 0.0, 1.0)
    if square > 1.0e-20:
        n = 1.0 / wp.sqrt(square)
        result = wp.quat(x * n, y * n, z * n, w * n)
    return result


@wp.func
def axis_of(p: link_vector):
    return wp.vec3(p[17], p[18], p[19])


@wp.func
def joint_turn(kind: int, p: link_vector, q: wp.array3d(dtype=float), w: int, s: int, i: int):
    """Rotation of the joint alone; i is the joint's first coordinate."""
    turn = wp.quat(0.0, 0.0, 0.0, 1.0)
    if kind == REVOLUTE_JOINT:
        half = 0.5 * q[w, s, i]
        sine = wp.sin(half)
        turn = wp.quat(p[17] * sine, p[18] * sine, p[19] * sine, wp.cos(half))
    if kind == SPHERICAL_JOINT:
        turn = unit_quaternion(q[w, s, i], q[w, s, i + 1], q[w, s, i + 2], q[w, s, i + 3])
    if kind == FREE_JOINT:
        turn = unit_quaternion(q[w, s, i + 3], q[w, s, i + 4], q[w, s, i + 5], q[w, s, i + 6])
    return turn


@wp.func
def joint_place(kind: int, p: link_vector, q: wp.array3d(dtype=float), w: int, s: int, i: int):
    """Offset and shift, in the parent's axes [m]."""
    place = wp.vec3(p[10], p[11], p[12])
    if kind == PRISMATIC_JOINT:
        place = place + wp.quat_rotate(wp.quat(p[13], p[14], p[15], p[16]), axis_of(p)) * q[w, s, i]
    if kind == FREE_JOINT:
        place = place + wp.vec3(q[w, s, i], q[w, s, i + 1], q[w, s, i + 2])
    return place


@wp.func
def joint_spin(kind: int, p: link_vector, turn: wp.quat, v: wp.array3d(dtype=float), w: int, s: int, i: int):
    """Angular part of joint rates (or of their derivatives) in world axes; turn is the link's orientation."""
    spin = wp.vec3(0.0, 0.0, 0.0)
    if kind == REVOLUTE_JOINT:
        spin = wp.quat_rotate(turn, axis_of(p)) * v[w, s, i]
    if kind == SPHERICAL_JOINT:
        spin = wp.quat_rotate(turn, wp.vec3(v[w, s, i], v[w, s, i + 1], v[w, s, i + 2]))
    if kind == FREE_JOINT:
        spin = wp.quat_rotate(turn, wp.vec3(v[w, s, i + 3], v[w, s, i + 4], v[w, s, i + 5]))
    return spin


@wp.func
def joint_slide(kind: int, p: link_vector, turn: wp.quat, v: wp.array3d(dtype=float), w: int, s: int, i: int):
    """Linear part of joint rates (or of their derivatives) in world axes; a prismatic joint does not turn its axis."""
    slide = wp.vec3(0.0, 0.0, 0.0)
    if kind == PRISMATIC_JOINT:
        slide = wp.quat_rotate(turn, axis_of(p)) * v[w, s, i]
    if kind == FREE_JOINT:
        slide = wp.vec3(v[w, s, i], v[w, s, i + 1], v[w, s, i + 2])
    return slide


@wp.kernel
def motion_kernel(
    coordinates: wp.array3d(dtype=float),
    rates: wp.array3d(dtype=float),
    links: wp.array2d(dtype=link_vector),
    tree: wp.array2d(dtype=int),
    turns: wp.array3d(dtype=wp.quat),
    places: wp.array3d(dtype=wp.vec3),
    spins: wp.array3d(dtype=wp.vec3),
    velocities: wp.array3d(dtype=wp.vec3),
):
    """One thread a world and node. Slot 0 is the world."""
    w, s = wp.tid()
    turns[w, s, 0] = wp.quat(0.0, 0.0, 0.0, 1.0)
    places[w, s, 0] = wp.vec3(0.0, 0.0, 0.0)
    spins[w, s, 0] = wp.vec3(0.0, 0.0, 0.0)
    velocities[w, s, 0] = wp.vec3(0.0, 0.0, 0.0)
    for b in range(tree.shape[0]):
        p = links[w, b]
        above = tree[b, 0]
        kind = tree[b, 1]
        base = turns[w, s, above]
        turn = base * wp.quat(p[13], p[14], p[15], p[16]) * joint_turn(kind, p, coordinates, w, s, tree[b, 2])
        arm = wp.quat_rotate(base, joint_place(kind, p, coordinates, w, s, tree[b, 2]))
        turns[w, s, b + 1] = turn
        places[w, s, b + 1] = places[w, s, above] + arm
        spins[w, s, b + 1] = spins[w, s, above] + joint_spin(kind, p, turn, rates, w, s, tree[b, 3])
        velocities[w, s, b + 1] = (
            velocities[w, s, above] + wp.cross(spins[w, s, above], arm) + joint_slide(kind, p, turn, rates, w, s, tree[b, 3])
        )


@warp_op(shared=("tree",), threads=None, trace_limit=24)
def motion_op(
    coordinates: wp.array3d(dtype=float),
    rates: wp.array3d(dtype=float),
    links: wp.array2d(dtype=link_vector),
    tree: wp.array2d(dtype=int),
):
    """coordinates (world, node, nq), rates (world, node, nv) -> orientations, places, spins, velocities by slot."""
    shape = (coordinates.shape[0], coordinates.shape[1], tree.shape[0] + 1)
    turns, places = scratch(shape, wp.quat), scratch(shape, wp.vec3)
    spins, velocities = scratch(shape, wp.vec3), scratch(shape, wp.vec3)
    wp.launch(motion_kernel, shape[:2], [coordinates, rates, links, tree], [turns, places, spins, velocities])
    return turns, places, spins, velocities


class LinkMotion(NamedTuple):
    """How the links of a tree are placed and move, at nodes in time; the frame of a link is that of its joint."""

    positions: Tensor  # of the links' origins [m], (world, node, link, 3)
    orientations: Tensor  # link to world, (world, node, link, 4)
    velocities: Tensor  # of the links' origins [m/s], (world, node, link, 3)
    spins: Tensor  # angular velocities, world axes [rad/s], (world, node, link, 3)


def link_motion(tree: Topology, linkage: Linkage, coordinates: Tensor, rates: Tensor) -> LinkMotion:
    """Forward kinematics of coordinates (world, node, nq) and rates (world, node, nv). Gradient: complete."""
    return motion_of(coordinates, rates, pack_links(linkage), tables(tree, coordinates.device).tree)


def motion_of(coordinates: Tensor, rates: Tensor, links: Tensor, tree: Tensor) -> LinkMotion:
    """The same from tensors that are packed already: see `pack_links` and `Tables.tree`."""
    turns, places, spins, velocities = motion_op(coordinates, rates, links, tree)
    return LinkMotion(places[:, :, 1:], turns[:, :, 1:], velocities[:, :, 1:], spins[:, :, 1:])
