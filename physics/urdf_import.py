"""Robots from URDF, by yourdfpy: links, joints, <inertial> and <collision>.

What yourdfpy would accept without a word (a link met twice, an inertia without all six entries, a number that is none, a
tag that it does not know) is checked on the XML first, so that the message names the link or joint. <visual> is for looks only
and is not read. A link without <inertial> has no mass, as the format says. The root link hangs on the world by a fixed joint.
"""

import io
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
from scipy.spatial.transform import Rotation

from dvc.errors import Unsupported, UserError
from physics.robot_mass import inertial, quaternion, vector
from physics.robot_spec import InertialSpec, JointSpec, LinkSpec, RobotSpec, ShapeSpec
from physics.robot_xml import LOOKS, LeftOut, label, numbers, read_xml

_KINDS = {
    "fixed": "fixed",
    "floating": "free",
    "revolute": "revolute",
    "continuous": "revolute",
    "prismatic": "prismatic",
}
_GEOMETRY = {
    "box": (("size", 3),),
    "sphere": (("radius", 1),),
    "cylinder": (("radius", 1), ("length", 1)),
    "mesh": (),
}
_INERTIA = ("ixx", "ixy", "ixz", "iyy", "iyz", "izz")
_WHY = {
    "visual": LOOKS,
    "material": LOOKS,
    "mimic": "the joint moves by itself",
    "transmission": "the file's actuators are not read; give the robot actuators of its own",
    "gazebo": "settings of another simulator",
    "safety_controller": "controllers are the caller's",
    "calibration": "joints read zero at zero",
}
_NO_RECORD = "there is no record for it"


def read_urdf(path: Path) -> RobotSpec:
    """The robot of a URDF file. Not yet checked: `physics.robot_import.read_robot` does.

    Raises: UserError, one line that names the link or joint, for what is missing or wrong; Unsupported for a planar joint or a
        geometry that there is no record for.
    """
    root = read_xml(path)
    left_out = LeftOut()
    _survey(root, left_out)
    robot = _parse(root)
    joints = [_joint(joint, left_out) for joint in robot.joints]
    links = tuple(_link(link, path.parent) for link in robot.links)
    return RobotSpec(
        name=robot.name,
        links=links,
        joints=(*_root_joint(links, joints), *joints),
        not_understood=left_out.lines(),
    )


def _parse(root: Element) -> Any:
    try:
        from yourdfpy import URDF
    except ImportError as error:
        raise UserError(f"URDF needs yourdfpy ({error}); remedy: pip install 'diffvc[robots]'") from error
    for link in root.findall("link"):
        for visual in link.findall("visual"):
            link.remove(visual)
    for material in root.findall("material"):
        root.remove(material)
    text = io.BytesIO(ElementTree.tostring(root))
    try:
        return URDF.load(text, build_scene_graph=False, load_meshes=False).robot
    except (ValueError, KeyError, IndexError, AttributeError, TypeError) as error:
        raise UserError(f"yourdfpy cannot read it: {type(error).__name__}: {' '.join(str(error).split())}") from error


def _survey(root: Element, left_out: LeftOut) -> None:
    """Check what yourdfpy does not, and note what is not read."""
    if not root.get("name"):
        raise UserError("<robot>: expected a name, got none")
    for element in root:
        if element.tag in ("link", "joint") and not element.get("name"):
            raise UserError(f"<{element.tag}>: expected a name, got none")
        if element.tag == "link":
            _survey_link(element, left_out)
        elif element.tag == "joint":
            _survey_joint(element, left_out)
        else:
            left_out.add(
                f"<{element.tag}>", _WHY.get(element.tag, _NO_RECORD), element.get("name", element.get("reference", ""))
            )


def _note_others(element: Element, known: Iterable[str], left_out: LeftOut) -> None:
    for child in element:
        if child.tag not in known:
            left_out.add(f"<{element.tag}> {child.tag}", _WHY.get(child.tag, _NO_RECORD), element.get("name", ""))


def _survey_link(link: Element, left_out: LeftOut) -> None:
    place = label(link)
    _note_others(link, ("inertial", "collision"), left_out)
    if (given := link.find("inertial")) is not None:
        _survey_origin(given, place)
        mass = numbers(_child(given, "mass", place), "value", 1, place)[0]
        inertia = given.find("inertia")
        if inertia is None and mass > 0.0:
            raise UserError(f"{place}: expected <inertia> in <inertial>, got none")
        for key in _INERTIA if inertia is not None else ():
            numbers(inertia, key, 1, place)  # type: ignore[arg-type]
    for collision in link.findall("collision"):
        _survey_origin(collision, place)
        _note_others(collision, ("origin", "geometry"), left_out)
        shapes = list(_child(collision, "geometry", place))
        if len(shapes) != 1:
            raise UserError(f"{place}: <geometry>: expected one shape, got {len(shapes)}")
        (shape,) = shapes
        if shape.tag not in _GEOMETRY:
            raise Unsupported(f"{place}: <{shape.tag}>: expected a geometry among {', '.join(_GEOMETRY)}")
        for key, count in _GEOMETRY[shape.tag]:
            numbers(shape, key, count, place)
        if shape.tag == "mesh":
            if not shape.get("filename"):
                raise UserError(f"{place}: <mesh>: expected a filename, got none")
            if (scale := shape.get("scale")) is not None:
                numbers(shape, "scale", 1 if len(scale.split()) == 1 else 3, place)


def _survey_joint(joint: Element, left_out: LeftOut) -> None:
    place, name, kind = label(joint), joint.get("name", ""), joint.get("type")
    if kind not in _KINDS:
        raise Unsupported(f"{place}: type: expected one of {', '.join(_KINDS)}, got {kind!r}")
    _note_others(joint, ("parent", "child", "origin", "axis", "limit", "dynamics"), left_out)
    _survey_origin(joint, place)
    for end in ("parent", "child"):
        if not _child(joint, end, place).get("link"):
            raise UserError(f"{place}: <{end}>: expected a link, got none")
    if (axis := joint.find("axis")) is not None:
        numbers(axis, "xyz", 3, place)
    for tag in ("limit", "dynamics"):
        if (element := joint.find(tag)) is not None:
            for key in element.attrib:
                numbers(element, key, 1, place)
                if key in ("effort", "velocity"):
                    why = "the file does not say which joints are driven; `limit` of an actuator takes it"
                    left_out.add(f"<limit> {key}", why if key == "effort" else "speeds have no limit", name)
                elif key not in ("lower", "upper", "damping", "friction"):
                    left_out.add(f"<{tag}> {key}", _NO_RECORD, name)
    limit = joint.find("limit")
    if kind in ("revolute", "prismatic") and (limit is None or not {"lower", "upper"} & limit.attrib.keys()):
        left_out.add(f"<joint> type {kind} without lower and upper", "taken as a joint without limits", name)


def _survey_origin(element: Element, place: str) -> None:
    if (origin := element.find("origin")) is not None:
        for key in ("xyz", "rpy"):
            if origin.get(key) is not None:
                numbers(origin, key, 3, place)


def _child(element: Element, tag: str, place: str) -> Element:
    child = element.find(tag)
    if child is None:
        raise UserError(f"{place}: expected <{tag}> in <{element.tag}>, got none")
    return child


def _root_joint(links: tuple[LinkSpec, ...], joints: list[JointSpec]) -> list[JointSpec]:
    """A joint to the world; none where every link is carried: `check_spec` then names the cycle."""
    children = {joint.child for joint in joints}
    roots = list(dict.fromkeys(link.name for link in links if link.name not in children))
    if len(roots) > 1:
        raise UserError(f"expected one link without a parent, got {', '.join(map(repr, roots))}; remedy: a joint between them")
    taken = {joint.name for joint in joints}
    return [JointSpec(_free_name("root", taken), "fixed", None, name) for name in roots]


def _free_name(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "_"
    return name


def _pose(origin: np.ndarray | None) -> tuple[np.ndarray, Rotation]:
    if origin is None:
        return np.zeros(3), Rotation.identity()
    return origin[:3, 3], Rotation.from_matrix(origin[:3, :3])


def _joint(joint: Any, left_out: LeftOut) -> JointSpec:
    position, turn = _pose(joint.origin)
    kind = _KINDS[joint.type]
    length = float(np.linalg.norm(joint.axis))
    moves = kind in ("revolute", "prismatic")
    if moves and length < 1e-9:
        raise UserError(f"joint {joint.name!r}: axis: expected a vector that is not zero, got {joint.axis}")
    limit = joint.limit if joint.type in ("revolute", "prismatic") else None
    lower, upper = (None, None) if limit is None else (limit.lower, limit.upper)
    if (lower is None) != (upper is None):
        # The format's default for either is zero.
        lower, upper = lower or 0.0, upper or 0.0
    dynamics = joint.dynamics
    return JointSpec(
        name=joint.name,
        kind=kind,
        parent=joint.parent,
        child=joint.child,
        position=vector(position),
        rotation=quaternion(turn),
        axis=vector(joint.axis / length) if moves else (0.0, 0.0, 1.0),
        lower=lower,
        upper=upper,
        damping=float(dynamics.damping or 0.0) if dynamics else 0.0,
        friction=float(dynamics.friction or 0.0) if dynamics else 0.0,
    )


def _link(link: Any, folder: Path) -> LinkSpec:
    shapes = tuple(_shape(collision, link.name, folder) for collision in link.collisions)
    given = link.inertial
    if given is None:
        return LinkSpec(link.name, shapes, InertialSpec(0.0))
    position, turn = _pose(given.origin)
    inertia = np.zeros((3, 3)) if given.inertia is None else given.inertia
    rotated = turn.as_matrix() @ inertia @ turn.as_matrix().T
    return LinkSpec(link.name, shapes, inertial(given.mass, position, rotated))


def _shape(collision: Any, link: str, folder: Path) -> ShapeSpec:
    position, turn = _pose(collision.origin)
    geometry, file = collision.geometry, None
    size: tuple[float, ...]
    if geometry.box is not None:
        kind, size = "box", tuple(float(length) / 2.0 for length in geometry.box.size)
    elif geometry.sphere is not None:
        kind, size = "sphere", (geometry.sphere.radius,)
    elif geometry.cylinder is not None:
        kind, size = "cylinder", (geometry.cylinder.radius, geometry.cylinder.length / 2.0)
    else:
        scale = 1.0 if geometry.mesh.scale is None else geometry.mesh.scale
        kind, size = "mesh", vector(np.broadcast_to(scale, 3))
        file = str(_mesh_file(geometry.mesh.filename, link, folder))
    return ShapeSpec(kind, size, vector(position), quaternion(turn), massive=False, file=file)


def _mesh_file(name: str, link: str, folder: Path) -> Path:
    """A path relative to the robot's file; `package://NAME/...` is looked for beside the file and in the folders above."""
    scheme, _, rest = name.rpartition("://")
    if scheme == "package":
        tails = [rest, rest.partition("/")[2]]
        candidates = [above / tail for above in (folder, *folder.parents) for tail in tails]
    elif scheme in ("", "file"):
        candidates = [folder / rest]
    else:
        raise Unsupported(f"link {link!r}: mesh {name!r}: expected a path, file:// or package://")
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise UserError(f"link {link!r}: mesh {name!r}: expected a file, got nothing at {candidates[0]}")
