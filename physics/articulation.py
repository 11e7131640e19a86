"""Trees of rigid bodies: what is static (`Topology`) and what carries gradients (`Linkage`).

Links are sorted so that parents come first. Joint coordinates follow that order, joint after joint:

    fixed      none
    free       position [m] (3), unit quaternion (4)      rates: linear (3, world axes), angular (3, body axes)
    revolute   angle [rad]                                rate [rad/s]
    prismatic  shift [m]                                  rate [m/s]
    spherical  unit quaternion (4)                        angular velocity (3, body axes)

(the convention of MuJoCo, with quaternions x, y, z, w). A link's frame is its joint's frame.
"""

from typing import NamedTuple

import torch
import warp as wp
from torch import Tensor

from dvc.errors import Unsupported, UserError
from dvc.records import expand_worlds, world_count
from physics.robot_check import check_tree
from physics.robot_spec import ACTUATOR_KINDS, JOINT_KINDS, RobotSpec

FIXED, FREE, REVOLUTE, PRISMATIC, SPHERICAL = 0, 1, 2, 3, 4
COORDINATES = (0, 7, 1, 1, 4)
RATES = (0, 6, 1, 1, 3)
FAR = 1.0e9  # a limit that is not there

link_vector = wp.types.vector(length=26, dtype=float)
# layout: 0 mass, 1-3 centre of mass, 4-9 inertia xx yy zz yz zx xy about it, 10-12 position, 13-16 rotation, 17-19 axis,
#         20 stiffness, 21 rest, 22 lower, 23 upper, 24 limit stiffness, 25 limit damping
dof_vector = wp.types.vector(length=4, dtype=float)
# layout: 0 armature, 1 damping, 2 dry friction, 3 rate over which dry friction is smoothed
actuator_vector = wp.types.vector(length=6, dtype=float)
# layout: 0 gear, 1 kp, 2 kd, 3 lower and 4 upper bound of the control, 5 largest force


class Topology(NamedTuple):
    """The static part of a tree. Links are in order: parents first."""

    name: str
    links: tuple[str, ...]
    joints: tuple[str, ...]  # the joint above each link
    parents: tuple[int, ...]  # index of the parent link, -1: the world
    kinds: tuple[int, ...]  # FIXED, FREE, REVOLUTE, PRISMATIC, SPHERICAL
    actuators: tuple[str, ...] = ()
    actuator_links: tuple[int, ...] = ()  # the link whose joint is driven
    actuator_kinds: tuple[int, ...] = ()  # index into robot_spec.ACTUATOR_KINDS

    @property
    def first_coordinates(self) -> tuple[int, ...]:
        return tuple(sum(COORDINATES[k] for k in self.kinds[:b]) for b in range(len(self.kinds)))

    @property
    def first_rates(self) -> tuple[int, ...]:
        return tuple(sum(RATES[k] for k in self.kinds[:b]) for b in range(len(self.kinds)))

    @property
    def coordinate_count(self) -> int:
        return sum(COORDINATES[k] for k in self.kinds)

    @property
    def rate_count(self) -> int:
        return sum(RATES[k] for k in self.kinds)


class Linkage(NamedTuple):
    """The numbers of a tree; every tensor has a leading world axis (1: shared). Order as in the Topology.

    `axis` is made unit length where it is used, in the child's frame; so is `rotation`. Springs and limits belong to joints of
    one degree of freedom and to spherical ones, whose coordinate is the rotation vector: the spring pulls to no rotation
    (`rest` is not used), `upper` bounds the angle.
    """

    mass: Tensor  # [kg], (world, link)
    center_of_mass: Tensor  # in the link's frame [m], (world, link, 3)
    inertia: Tensor  # about the centre of mass, link's axes [kg m^2], (world, link, 3, 3)
    position: Tensor  # of the link's frame in its parent's where the coordinates are zero [m], (world, link, 3)
    rotation: Tensor  # likewise, quaternion, (world, link, 4)
    axis: Tensor  # (world, link, 3)
    stiffness: Tensor  # of the joint's spring [N m/rad] or [N/m], (world, link)
    rest: Tensor  # coordinate at which it is slack [rad] or [m], (world, link)
    lower: Tensor  # limits [rad] or [m], (world, link); FAR: none
    upper: Tensor
    limit_stiffness: Tensor  # [N m/rad] or [N/m], (world, link)
    limit_damping: Tensor  # [N m s/rad] or [N s/m], (world, link)
    armature: Tensor  # inertia added to a degree of freedom [kg m^2] or [kg], (world, rate)
    damping: Tensor  # viscous [N m s/rad] or [N s/m], (world, rate)
    friction: Tensor  # dry [N m] or [N], (world, rate)
    friction_width: Tensor  # rate over which dry friction is smoothed [rad/s] or [m/s], (world, rate)
    gear: Tensor  # (world, actuator)
    kp: Tensor  # [N m/rad] or [N/m], (world, actuator)
    kd: Tensor  # [N m s/rad] or [N s/m], (world, actuator)
    control_lower: Tensor  # (world, actuator); FAR: none
    control_upper: Tensor
    force_limit: Tensor  # [N m] or [N], (world, actuator); FAR: none


def topology(spec: RobotSpec) -> Topology:
    """Sort the links of a robot, parents first, and check the tree.

    Raises: as `physics.robot_check.check_tree`; UserError where every joint is fixed; Unsupported for a free joint below a
    link, and for a spring or limits of a free joint. The message names the link or joint.
    """
    joints = check_tree(spec)
    for joint in joints:
        if joint.kind == "free" and joint.parent is not None:
            raise Unsupported(f"joint {joint.name!r}: a free joint hangs on the world, got the parent {joint.parent!r}")
        if joint.kind == "free" and (joint.stiffness or joint.lower is not None or joint.upper is not None):
            raise Unsupported(f"joint {joint.name!r}: a free joint has no spring and no limits; remedy: leave them out")
    kinds = [JOINT_KINDS.index(joint.kind) for joint in joints]
    if not any(RATES[k] for k in kinds):
        raise UserError(f"robot {spec.name!r}: expected at least one joint that moves, got fixed ones only")
    order = [joint.child for joint in joints]
    names = [joint.name for joint in joints]
    return Topology(
        spec.name,
        tuple(order),
        tuple(names),
        tuple(-1 if joint.parent is None else order.index(joint.parent) for joint in joints),
        tuple(kinds),
        tuple(actuator.name for actuator in spec.actuators),
        tuple(names.index(actuator.joint) for actuator in spec.actuators),
        tuple(ACTUATOR_KINDS.index(actuator.kind) for actuator in spec.actuators),
    )


def unit(vector: Tensor) -> Tensor:
    """Vectors over the last axis made unit length, with gradient; one shorter than 1e-10 stays as it is."""
    square = (vector * vector).sum(-1, keepdim=True)
    return vector * torch.where(square > 1e-20, square.clamp_min(1e-20).rsqrt(), 1.0)


def pack_links(linkage: Linkage) -> Tensor:
    """(world, link, 26), laid out as `link_vector`."""
    i = 0.5 * (linkage.inertia + linkage.inertia.mT)
    inertia = torch.stack([i[..., 0, 0], i[..., 1, 1], i[..., 2, 2], i[..., 1, 2], i[..., 2, 0], i[..., 0, 1]], dim=-1)
    parts = [
        linkage.mass[..., None], linkage.center_of_mass, inertia, linkage.position, unit(linkage.rotation), unit(linkage.axis),
        *(t[..., None] for t in (linkage.stiffness, linkage.rest, linkage.lower, linkage.upper)),
        linkage.limit_stiffness[..., None], linkage.limit_damping[..., None],
    ]  # fmt: skip
    return _joined(parts)


def pack_dofs(linkage: Linkage) -> Tensor:
    """(world, rate, 4), laid out as `dof_vector`."""
    return _joined([t[..., None] for t in (linkage.armature, linkage.damping, linkage.friction, linkage.friction_width)])


def pack_actuators(linkage: Linkage) -> Tensor:
    """(world, actuator, 6), laid out as `actuator_vector`."""
    return _joined([t[..., None] for t in linkage[-6:]])


def pack(tree: Topology, linkage: Linkage) -> tuple[Tensor, Tensor, Tensor]:
    """Links, rates and actuators, packed. Raises: UserError for a linkage that is not of this tree."""
    check_shapes(tree, linkage)
    return pack_links(linkage), pack_dofs(linkage), pack_actuators(linkage)


def _joined(parts: list[Tensor]) -> Tensor:
    worlds = world_count(*parts)
    return torch.cat([expand_worlds(part, worlds) for part in parts], dim=-1)


class Tables(NamedTuple):
    """The topology as integer tensors for the kernels. Slot 0 is the world, slot i + 1 is link i."""

    tree: Tensor  # (link, 4): slot of the parent, kind, first coordinate, first rate
    dofs: Tensor  # (rate, 4): slot of the link, 1 where the rate is linear, the rate before it on the way to the root or -1,
    #               the first of the rates that lead to it one by one
    drives: Tensor  # (actuator, 2): index of the link, kind


def tables(tree: Topology, device: torch.device | str = "cpu") -> Tables:
    rows = zip(tree.parents, tree.kinds, tree.first_coordinates, tree.first_rates, strict=True)
    dofs: list[tuple[int, int, int, int]] = []
    last = [-1]  # rate of each slot or, where it has none, of what it hangs on
    for link, kind in enumerate(tree.kinds):
        before = last[tree.parents[link] + 1]
        for k in range(RATES[kind]):
            rate = len(dofs)
            run = dofs[before][3] if before >= 0 and before == rate - 1 else rate
            dofs.append((link + 1, int(kind == PRISMATIC or (kind == FREE and k < 3)), before, run))
            before = rate
        last.append(before)
    drives = list(zip(tree.actuator_links, tree.actuator_kinds, strict=True))

    def table(values: list, columns: int) -> Tensor:
        return torch.tensor(values, dtype=torch.int32, device=device).reshape(-1, columns)

    return Tables(table([(p + 1, k, q, v) for p, k, q, v in rows], 4), table(dofs, 4), table(drives, 2))


def check_shapes(tree: Topology, linkage: Linkage) -> None:
    """Raise UserError where a field has another shape than the tree asks for, or other numbers than float32."""
    links, rates, drives = len(tree.links), tree.rate_count, len(tree.actuators)
    for field in Linkage._fields:
        tensor = getattr(linkage, field)
        count = rates if field in ("armature", "damping", "friction", "friction_width") else links
        count = drives if field in Linkage._fields[-6:] else count
        inner = {"center_of_mass": (3,), "inertia": (3, 3), "position": (3,), "rotation": (4,), "axis": (3,)}.get(field, ())
        if tensor.dim() != 2 + len(inner) or tuple(tensor.shape[1:]) != (count, *inner):
            expected = ", ".join(map(str, ("world", count, *inner)))
            raise UserError(f"robot {tree.name!r}: {field}: expected shape ({expected}), got {tuple(tensor.shape)}")
        if tensor.dtype != torch.float32:
            raise UserError(f"robot {tree.name!r}: {field}: expected torch.float32, got {tensor.dtype}; remedy: .float()")


def _owner(tree: Topology, field: str, wrong: Tensor) -> str:
    """Robot and link, joint or actuator of the first number of a field that is wrong (world, item)."""
    number = int(wrong.any(0).nonzero()[0])
    if field in ("armature", "damping", "friction", "friction_width"):
        number = max(b for b, first in enumerate(tree.first_rates) if first <= number and RATES[tree.kinds[b]])
    noun, names = "joint", tree.joints
    if field in ("mass", "center_of_mass", "inertia"):
        noun, names = "link", tree.links
    elif field in Linkage._fields[-6:]:
        noun, names = "actuator", tree.actuators
    return f"robot {tree.name!r}: {noun} {names[number]!r}"


def check_linkage(tree: Topology, linkage: Linkage) -> None:
    """Raise UserError, naming link or joint, where shapes or values cannot be stepped. Reads values on the host."""
    check_shapes(tree, linkage)
    links = len(tree.links)
    mass = linkage.mass.detach().amin(0)
    for name, value in zip(tree.links, mass.tolist(), strict=True):
        if not 0.0 <= value < float("inf"):
            raise UserError(
                f"robot {tree.name!r}: link {name!r} has the mass {value:.4g} kg; expected a finite one of at least 0"
            )
    for field in Linkage._fields:
        values = getattr(linkage, field).detach()
        wrong = ~torch.isfinite(values)[..., None].flatten(2).all(-1)
        if bool(wrong.any()):
            raise UserError(f"{_owner(tree, field, wrong)}: {field}: expected finite numbers, got one that is not")
    for field in ("armature", "damping", "friction", "friction_width", "limit_stiffness", "limit_damping"):
        values = getattr(linkage, field).detach()
        if bool((values < 0.0).any()):
            least = float(values.amin())
            raise UserError(f"{_owner(tree, field, values < 0.0)}: {field} {least:.4g}, expected at least 0")
    wrong = (linkage.friction > 0.0) & (linkage.friction_width == 0.0)
    if bool(wrong.any()):
        raise UserError(f"{_owner(tree, 'friction_width', wrong)}: friction_width: expected a number above 0, got 0")
    wrong = linkage.lower > linkage.upper
    if bool(wrong.any()):
        raise UserError(f"{_owner(tree, 'lower', wrong)}: expected lower <= upper")
    below = mass.tolist()
    for b in reversed(range(links)):
        rate = tree.first_rates[b]
        if RATES[tree.kinds[b]] and not below[b] > 0.0 and not float(linkage.armature[:, rate].detach().amin()) > 0.0:
            raise UserError(
                f"robot {tree.name!r}: joint {tree.joints[b]!r} moves link {tree.links[b]!r} and what hangs on it, which "
                "have no mass; remedy: a shape with a density, an inertial, or an armature"
            )
        if tree.parents[b] >= 0:
            below[tree.parents[b]] += below[b]
