"""Whether a robot's description makes sense: a tree of links, numbers that a body can have, nothing that moves without mass.

A joint moves something with mass where, in the configuration in which every coordinate is zero, the links beyond it have a
positive generalized inertia about it: mass for a sliding joint, n . I n + m |n x d|^2 about the axis for a turning one,
or an armature. Links without mass are allowed between others (several joints in a row).
"""

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

import numpy as np
from scipy.spatial.transform import Rotation

from dvc.errors import Unsupported, UserError
from physics.robot_mass import about, inertial_of_link, volume
from physics.robot_spec import (
    ACTUATOR_KINDS,
    JOINT_KINDS,
    SHAPE_KINDS,
    JointSpec,
    LinkSpec,
    Quaternion,
    RobotSpec,
    ShapeSpec,
    Vector,
)

SIZES = {"sphere": 1, "capsule": 2, "box": 3, "rounded_box": 4, "ellipsoid": 3, "cylinder": 2, "plane": 0, "mesh": 3}
AXIS_KINDS = ("revolute", "prismatic")
TYPES: dict[Any, str] = {
    float: "a number",
    float | None: "a number or none",
    str: "a name",
    str | None: "a name or none",
    Vector: "3 numbers",
    Quaternion: "4 numbers",
    tuple[float, ...]: "a list of numbers",
    tuple[Vector, Vector, Vector]: "3 rows of 3 numbers",
}
_SMALLEST = 1e-18  # [kg] or [kg m^2]: what rounding leaves of zero


def check_spec(spec: RobotSpec) -> None:
    """Refuse a description that cannot be simulated.

    Raises: UserError, one line that names the link, joint or actuator: names met twice; a joint tree with a cycle, with a
        link that two joints carry or none; unknown kinds; NaN and infinite numbers; negative mass, density, damping;
        an inertia that is not symmetric and positive; a shape without volume; a mesh whose file is missing; a zero axis;
        limits in the wrong order; a joint beyond which nothing has mass; an actuator of an unknown joint; a value of another
        type than its field. Unsupported as `check_tree`.
    """
    order = check_tree(spec)
    _finite(f"robot {spec.name!r}", gravity=spec.gravity)
    for link in spec.links:
        _check_link(link)
    for number, shape in enumerate(spec.ground):
        _check_shape(f"ground: shape {number} ({shape.kind})", shape, massive=False)
    for joint in spec.joints:
        _check_joint(joint)
    for actuator in spec.actuators:
        place = f"actuator {actuator.name!r}"
        _finite(place, gear=actuator.gear)
        _ordered(place, actuator.lower, actuator.upper)
        _not_negative(place, kp=actuator.kp, kd=actuator.kd, limit=actuator.limit)
    _check_moving_mass(spec, order)


def check_tree(spec: RobotSpec) -> list[JointSpec]:
    """The joints, those above a link before it, of a description whose links form a tree; numbers are not looked at.

    Raises: UserError that names the link, joint or actuator: names met twice; a cycle, a link with two joints or none; unknown
        kinds, links and joints; a value of another type than its field. Unsupported for an actuator of a joint without one
        degree of freedom.
    """
    _unique("link", (link.name for link in spec.links))
    _unique("joint", (joint.name for joint in spec.joints))
    _unique("actuator", (actuator.name for actuator in spec.actuators))
    if not spec.links:
        raise UserError(f"robot {spec.name!r}: expected at least one link, got none")
    for link in spec.links:
        _check_types(f"link {link.name!r}", link)
    for joint in spec.joints:
        place = f"joint {joint.name!r}"
        _check_types(place, joint)
        if joint.kind not in JOINT_KINDS:
            raise UserError(f"{place}: kind: expected one of {', '.join(JOINT_KINDS)}, got {joint.kind!r}")
    order = _order(spec)
    _check_actuators(spec)
    return order


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value has the type that a field declares; whole numbers are numbers."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is UnionType:
        return any(_fits(value, part) for part in parts)
    if origin is tuple:
        parts = parts[:1] * len(value) if isinstance(value, tuple) and parts[-1] is Ellipsis else parts
        return isinstance(value, tuple) and len(value) == len(parts) and all(map(_fits, value, parts))
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, kind)


def _check_types(place: str, record: Any) -> None:
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if not _fits(value, field.type):
            raise UserError(f"{place}: {field.name}: expected {TYPES.get(field.type, field.type)}, got {value!r}")
        if dataclasses.is_dataclass(value):
            _check_types(f"{place}: {field.name}", value)
        elif isinstance(value, tuple):
            for number, item in enumerate(value):
                if dataclasses.is_dataclass(item):
                    _check_types(f"{place}: shape {number}", item)


def _unique(noun: str, names: Iterable[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise UserError(f"{noun} {name!r}: expected names that differ, got this one {count} times")
        if not name:
            raise UserError(f"{noun}: expected a name, got an empty one")


def _finite(place: str, **values: object) -> None:
    for name, value in values.items():
        if value is not None and not np.all(np.isfinite(np.asarray(value, dtype=float))):
            raise UserError(f"{place}: {name}: expected finite numbers, got {value}")


def _not_negative(place: str, **values: float | None) -> None:
    _finite(place, **values)
    for name, value in values.items():
        if value is not None and value < 0.0:
            raise UserError(f"{place}: {name}: expected a number >= 0, got {value:g}")


def _pose(place: str, position: tuple[float, ...], rotation: tuple[float, ...]) -> None:
    _finite(place, position=position, rotation=rotation)
    if abs(math.hypot(*rotation) - 1.0) > 1e-3:
        raise UserError(f"{place}: rotation: expected a unit quaternion (x, y, z, w), got {rotation}")


def _ordered(place: str, lower: float | None, upper: float | None) -> None:
    _finite(place, lower=lower, upper=upper)
    if lower is not None and upper is not None and lower > upper:
        raise UserError(f"{place}: expected lower <= upper, got {lower:g} and {upper:g}")


def _check_link(link: LinkSpec) -> None:
    place = f"link {link.name!r}"
    if link.inertial is not None:
        given = link.inertial
        _not_negative(place, mass=given.mass)
        _finite(place, center_of_mass=given.center_of_mass, inertia=given.inertia)
        inertia = np.array(given.inertia)
        scale = np.abs(inertia).max()
        if np.abs(inertia - inertia.T).max() > 1e-6 * scale or np.linalg.eigvalsh(inertia).min() < -1e-6 * scale:
            raise UserError(f"{place}: inertia: expected a symmetric positive matrix, got {inertia.tolist()}")
        if given.mass == 0.0 and scale > 0.0:
            raise UserError(f"{place}: expected no inertia without mass, got mass 0 and inertia {inertia.tolist()}")
    for number, shape in enumerate(link.shapes):
        massive = shape.massive and link.inertial is None
        _check_shape(f"{place}: shape {number} ({shape.kind})", shape, massive)


def _check_shape(place: str, shape: ShapeSpec, massive: bool) -> None:
    if shape.kind not in SHAPE_KINDS:
        raise UserError(f"{place}: expected one of {', '.join(SHAPE_KINDS)}")
    _pose(place, shape.position, shape.rotation)
    _finite(place, size=shape.size)
    _not_negative(place, density=shape.density, friction=shape.friction)
    if len(shape.size) != SIZES[shape.kind] and not (shape.kind == "mesh" and shape.size == ()):
        raise UserError(f"{place}: size: expected {SIZES[shape.kind]} numbers, got {len(shape.size)}")
    if shape.kind == "mesh":
        if shape.file is None or not Path(shape.file).is_file():
            raise UserError(f"{place}: mesh file {shape.file!r}: expected a file, got nothing there")
        if 0.0 in shape.size:
            raise UserError(f"{place}: scale: expected numbers other than 0, got {shape.size}")
        return
    if shape.kind == "plane":
        if massive:
            raise UserError(f"{place}: a plane has no volume; remedy: massive=False, or put it into the ground")
        return
    if min(shape.size) < 0.0 or volume(shape) == 0.0:
        raise UserError(f"{place}: expected a volume, got size {shape.size}")
    if shape.kind == "rounded_box" and shape.size[3] > min(shape.size[:3]):
        raise UserError(f"{place}: expected an edge radius within the half extents, got size {shape.size}")


def _check_joint(joint: JointSpec) -> None:
    place = f"joint {joint.name!r}"
    _pose(place, joint.position, joint.rotation)
    _finite(place, axis=joint.axis, rest=joint.rest, start=joint.start)
    _ordered(place, joint.lower, joint.upper)
    _not_negative(place, damping=joint.damping, friction=joint.friction, armature=joint.armature, stiffness=joint.stiffness)
    if joint.kind in AXIS_KINDS and not math.hypot(*joint.axis) > 1e-6:
        raise UserError(f"{place}: axis: expected a vector that is not zero, got {joint.axis}")


def _order(spec: RobotSpec) -> list[JointSpec]:
    """The joints, parents first."""
    names = {link.name for link in spec.links}
    carried: dict[str, JointSpec] = {}
    for joint in spec.joints:
        for end, name in (("parent", joint.parent), ("child", joint.child)):
            if name not in names and not (end == "parent" and name is None):
                raise UserError(f"joint {joint.name!r}: {end}: expected a link, got {name!r}")
        if joint.child in carried:
            both = f"{carried[joint.child].name!r} and {joint.name!r}"
            raise UserError(f"link {joint.child!r}: expected one joint that carries it, got {both}: the joints form a loop")
        carried[joint.child] = joint
    order: list[JointSpec] = []
    done: set[str | None] = {None}
    for link in spec.links:
        chain: list[JointSpec] = []
        name: str | None = link.name
        while name not in done:
            joint_of_link = carried.get(str(name))
            if joint_of_link is None:
                raise UserError(f"link {name!r}: expected a joint that carries it (a parent of None is the world), got none")
            if joint_of_link in chain:
                around = " -> ".join(repr(joint.name) for joint in reversed(chain[chain.index(joint_of_link) :]))
                raise UserError(f"link {name!r}: the joints form a cycle ({around}); expected a tree that hangs on the world")
            chain.append(joint_of_link)
            name = joint_of_link.parent
        order += reversed(chain)
        done.update(joint.child for joint in chain)
    return order


def _check_actuators(spec: RobotSpec) -> None:
    kinds = {joint.name: joint.kind for joint in spec.joints}
    for actuator in spec.actuators:
        place = f"actuator {actuator.name!r}"
        _check_types(place, actuator)
        if actuator.kind not in ACTUATOR_KINDS:
            raise UserError(f"{place}: kind: expected one of {', '.join(ACTUATOR_KINDS)}, got {actuator.kind!r}")
        if actuator.joint not in kinds:
            raise UserError(f"{place}: joint: expected one of {', '.join(kinds)}, got {actuator.joint!r}")
        if kinds[actuator.joint] not in AXIS_KINDS:
            raise Unsupported(
                f"{place}: expected a {' or '.join(AXIS_KINDS)} joint, got the {kinds[actuator.joint]} joint "
                f"{actuator.joint!r}; remedy: an external wrench, or a chain of revolute joints"
            )


def _check_moving_mass(spec: RobotSpec, order: list[JointSpec]) -> None:
    links = {link.name: link for link in spec.links}
    turns: dict[str | None, Rotation] = {None: Rotation.identity()}
    origins: dict[str | None, np.ndarray] = {None: np.zeros(3)}
    beyond: dict[str, list[str]] = {}
    for joint in order:
        turns[joint.child] = turns[joint.parent] * Rotation.from_quat(joint.rotation)
        origins[joint.child] = origins[joint.parent] + turns[joint.parent].apply(joint.position)
    for joint in reversed(order):
        beyond[joint.child] = [joint.child] + [n for j in order if j.parent == joint.child for n in beyond[j.child]]
        if joint.kind == "fixed" or joint.armature > 0.0:
            continue
        mass, inertia, known = 0.0, np.zeros((3, 3)), True
        for name in beyond[joint.child]:
            given = inertial_of_link(links[name])
            if given is None:
                known = False
                break
            turn = turns[name].as_matrix()
            offset = origins[name] + turn @ given.center_of_mass - origins[joint.child]
            mass += given.mass
            inertia += about(given.mass, offset, turn @ np.array(given.inertia) @ turn.T)
        turn = turns[joint.child].as_matrix()
        if known and not _moves_mass(joint, mass, turn.T @ inertia @ turn):
            what = "mass" if joint.kind == "prismatic" or mass == 0.0 else "inertia about it"
            raise UserError(
                f"joint {joint.name!r}: what moves with link {joint.child!r} has no {what}; remedy: a shape with volume and "
                "density, an inertial, or an armature"
            )


def _moves_mass(joint: JointSpec, mass: float, inertia: np.ndarray) -> bool:
    if joint.kind == "prismatic":
        return mass > _SMALLEST
    least = max(_SMALLEST, 1e-12 * float(np.trace(inertia)))
    if joint.kind == "revolute":
        axis = np.array(joint.axis) / math.hypot(*joint.axis)
        return float(axis @ inertia @ axis) > least
    return float(np.linalg.eigvalsh(inertia).min()) > least
