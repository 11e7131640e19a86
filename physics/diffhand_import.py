"""Robots from DiffHand's XML (root element <redmax>; Xu et al., "An End-to-End Differentiable Framework for Contact-Aware Robot
Design", RSS 2021), as its released program reads it.

A <link> has one <joint>, in whose frame its one <body> lies; quaternions there are (w, x, y, z). The unit is "cm-g" (cm, g, s)
where <option unit> does not say "m-kg"; everything is turned into SI units. <default> gives what an element leaves out. A motor
with ctrl="force" maps a control in [-1, 1] to its ctrl_range. Only bodies named in <contact> touch anything.
"""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element

import numpy as np
from scipy.spatial.transform import Rotation

from dvc.errors import Unsupported, UserError
from physics.robot_mass import inertial, quaternion, vector
from physics.robot_spec import ActuatorSpec, JointSpec, LinkSpec, RobotSpec, ShapeSpec
from physics.robot_xml import LOOKS, LeftOut, label, numbers, read_xml

_KINDS = {
    "fixed": "fixed",
    "revolute": "revolute",
    "prismatic": "prismatic",
    "free3d": "free",
    "free3d-euler": "free",
    "free3d-exp": "free",
    "spherical": "spherical",
    "spherical-euler": "spherical",
    "spherical-exp": "spherical",
}
_BODIES = ("cuboid", "sphere", "capsule", "cylinder", "abstract")
_KNOWN = {
    "redmax": {"model"},
    "option": {"gravity", "unit"},
    "ground": {"pos", "normal"},
    "link": {"name"},
    "joint": {"name", "type", "axis", "pos", "quat", "frame", "damping", "lim"},
    "body": {"name", "type", "size", "radius", "length", "pos", "quat", "density", "mass", "inertia"},
    "motor": {"joint", "ctrl", "ctrl_range", "P", "D"},
    "ground_contact": {"body", "mu"},
    "general_primitive_contact": {"general_body", "primitive_body"},
}
_SECTIONS = {"robot", "default", "actuator", "contact"}
_WHY = {
    "timestep": "the caller chooses it",
    "integrator": "the caller chooses it",
    "virtual": LOOKS,
    "rgba": LOOKS,
    "texture": LOOKS,
    "variable": "quantities for an objective",
    "endeffector": "quantities for an objective",
    "solver_option": "settings of another solver",
    "design_params": "name parameters of the description instead",
    "lim_stiffness": "the stiffness of limits is an argument of the simulation",
}
_CONTACT = dict.fromkeys(("kn", "kt", "damping"), "stiffness and damping of contacts are arguments of the simulation")
_BODY_MU = "the format's own program takes friction from <contact>"


class _Unit(NamedTuple):
    length: float
    mass: float

    @property
    def density(self) -> float:
        return self.mass / self.length**3

    def effort(self, kind: str) -> float:
        """Of a force or a torque; the same for damping and stiffness, per m or rad and their rates."""
        return self.mass * self.length if kind == "prismatic" else self.mass * self.length**2


_UNITS = {"cm-g": _Unit(0.01, 0.001), "m-kg": _Unit(1.0, 1.0)}


def read_diffhand(path: Path) -> RobotSpec:
    """The robot of a DiffHand file. Not yet checked: `physics.robot_import.read_robot` does.

    Raises: UserError, one line that names the link or joint, for what is missing or wrong; Unsupported for a joint or body that
        there is no record for.
    """
    root = read_xml(path)
    left_out = LeftOut()
    _census(root, left_out, "")
    return _Reader(root, left_out).spec(root.get("model", path.stem))


def _census(element: Element, left_out: LeftOut, place: str) -> None:
    tag = element.tag
    place = element.get("name", place)
    if tag not in _KNOWN and tag not in _SECTIONS:
        left_out.add(f"<{tag}>", _WHY.get(tag, "there is no record for it"))
        return
    contact = tag.endswith("_contact")
    for key in element.attrib:
        if key not in _KNOWN.get(tag, set()):
            why = _CONTACT.get(key) if contact else _BODY_MU if (tag, key) == ("body", "mu") else _WHY.get(key)
            left_out.add(f"<{tag}> {key}", why or "there is no record for it", "" if why == LOOKS else place)
    for child in element:
        _census(child, left_out, tag if tag == "default" else place)


class _Reader:
    """Goes down the links; `default` is the file's <default>."""

    def __init__(self, root: Element, left_out: LeftOut) -> None:
        self.root, self.left_out = root, left_out
        self.default = root.find("default")
        option = root.find("option")
        unit = "cm-g" if option is None else option.get("unit", "cm-g")
        if unit not in _UNITS:
            raise UserError(f"<option> unit: expected one of {', '.join(_UNITS)}, got {unit!r}")
        self.unit = _UNITS[unit]
        self.gravity = (0.0, 0.0, -980.0)  # what the format's own program has
        if option is not None and option.get("gravity") is not None:
            self.gravity = numbers(option, "gravity", 3, "robot")  # type: ignore[assignment]
        self.friction = self._contacts()
        self.links: list[LinkSpec] = []
        self.joints: list[JointSpec] = []

    def spec(self, name: str) -> RobotSpec:
        for robot in self.root.findall("robot"):
            for link in robot.findall("link"):
                self._read_link(link, None, np.zeros(3), Rotation.identity())
        return RobotSpec(
            name=name,
            links=tuple(self.links),
            joints=tuple(self.joints),
            actuators=self._actuators(),
            ground=tuple(self._ground(ground) for ground in self.root.findall("ground")[:1]),
            gravity=vector(self.unit.length * np.array(self.gravity)),
            not_understood=self.left_out.lines(),
        )

    def _get(self, element: Element, key: str) -> Element:
        """The element that holds an attribute: itself, or its default."""
        default = None if self.default is None else self.default.find(element.tag)
        return element if default is None or element.get(key) is not None or default.get(key) is None else default

    def _number(self, element: Element, key: str, otherwise: float, place: str) -> float:
        source = self._get(element, key)
        return otherwise if source.get(key) is None else numbers(source, key, 1, place)[0]

    def _pose(self, element: Element, place: str) -> tuple[np.ndarray, Rotation]:
        quat = np.array(numbers(element, "quat", 4, place))
        if not np.any(quat):
            raise UserError(f"{place}: quat of <{element.tag}>: expected a quaternion, got zeros")
        position = self.unit.length * np.array(numbers(element, "pos", 3, place))
        return position, Rotation.from_quat(np.roll(quat, -1))

    def _contacts(self) -> dict[str, float | None]:
        """Friction of each body that touches anything; None where the pair's is not a body's own."""
        found: dict[str, float | None] = {}
        for contact in self.root.iterfind("contact/*"):
            if contact.tag == "ground_contact":
                found[contact.get("body", "")] = self._number(contact, "mu", 0.0, f"contact of body {contact.get('body')!r}")
            else:
                for key in ("general_body", "primitive_body"):
                    found.setdefault(contact.get(key, ""), None)
        return found

    def _ground(self, ground: Element) -> ShapeSpec:
        normal = np.array(numbers(ground, "normal", 3, "ground"))
        if not np.any(normal):
            raise UserError("ground: normal: expected a vector that is not zero, got zeros")
        turn = Rotation.align_vectors(normal[None] / np.linalg.norm(normal), [[0.0, 0.0, 1.0]])[0]
        position = self.unit.length * np.array(numbers(ground, "pos", 3, "ground"))
        return ShapeSpec("plane", (), vector(position), quaternion(turn), density=0.0, massive=False)

    def _read_link(self, link: Element, parent: str | None, origin: np.ndarray, axes: Rotation) -> None:
        """`origin`, `axes`: the parent's frame in the world where every coordinate is zero."""
        place = label(link)
        element, body = link.find("joint"), link.find("body")
        if element is None or body is None:
            raise UserError(f"{place}: expected a <joint> and a <body>, got {', '.join(c.tag for c in link) or 'none'}")
        name = link.get("name") or element.get("name") or f"link{len(self.links)}"
        joint, position, turn = self._joint(element, name, parent)
        world = element.get("frame", "LOCAL")
        if world not in ("LOCAL", "WORLD"):
            raise UserError(f"{label(element)}: frame: expected LOCAL or WORLD, got {world!r}")
        if world == "WORLD":
            position, turn = axes.inv().apply(position - origin), axes.inv() * turn
            joint = replace(joint, axis=vector((axes * turn).inv().apply(joint.axis)))
        self.joints.append(replace(joint, position=vector(position), rotation=quaternion(turn)))
        self.links.append(self._body(body, name, place))
        for child in link.findall("link"):
            self._read_link(child, name, origin + axes.apply(position), axes * turn)

    def _joint(self, element: Element, child: str, parent: str | None) -> tuple[JointSpec, np.ndarray, Rotation]:
        name, written = element.get("name") or f"{child}_joint", element.get("type", "")
        place = f"joint {name!r}"
        kind = _KINDS.get(written)
        if kind is None:
            raise Unsupported(f"{place}: type: expected one of {', '.join(_KINDS)}, got {written!r}")
        position, turn = self._pose(element, place)
        axis = np.array([0.0, 0.0, 1.0])
        lower = upper = None
        if kind in ("revolute", "prismatic"):
            axis = np.array(numbers(element, "axis", 3, place))
            if not np.any(axis):
                raise UserError(f"{place}: axis: expected a vector that is not zero, got zeros")
            if element.get("lim") is not None:
                factor = self.unit.length if kind == "prismatic" else 1.0
                lower, upper = (factor * value for value in numbers(element, "lim", 2, place))
        damping = 0.0 if kind == "fixed" else self._number(element, "damping", 0.0, place)
        if damping and kind in ("free", "spherical"):
            self.left_out.add(f"<joint> damping of type {written}", "its unit differs between its coordinates", name)
            damping = 0.0
        damping *= self.unit.effort(kind) / (self.unit.length if kind == "prismatic" else 1.0)
        joint = JointSpec(
            name, kind, parent, child, axis=vector(axis / np.linalg.norm(axis)), lower=lower, upper=upper, damping=damping
        )
        return joint, position, turn

    def _body(self, body: Element, link: str, place: str) -> LinkSpec:
        kind = body.get("type", "")
        position, turn = self._pose(body, place)
        length, density = self.unit.length, self.unit.density * self._number(body, "density", 1.0, place)
        if kind == "abstract":
            mass = self.unit.mass * numbers(body, "mass", 1, place)[0]
            moments = self.unit.mass * length**2 * np.array(numbers(body, "inertia", 3, place))
            axes = turn.as_matrix()
            self.left_out.add("<body> of type abstract: contact points", "shapes touch, points do not", link)
            return LinkSpec(link, (), inertial(mass, position, (axes * moments) @ axes.T))
        size: tuple[float, ...]
        if kind == "cuboid":
            kind, size = "box", tuple(0.5 * length * value for value in numbers(body, "size", 3, place))
        elif kind == "sphere":
            size = (length * numbers(body, "radius", 1, place)[0],)
        elif kind in ("capsule", "cylinder"):
            size = tuple(
                factor * length * numbers(body, key, 1, place)[0] for key, factor in (("radius", 1.0), ("length", 0.5))
            )
        else:
            raise Unsupported(f"{place}: <body> type: expected one of {', '.join(_BODIES)}, got {kind!r}")
        touches = body.get("name", "") in self.friction
        shape = ShapeSpec(kind, size, vector(position), quaternion(turn), density, collides=touches)
        return LinkSpec(link, (replace(shape, friction=self.friction.get(body.get("name", ""))),))

    def _actuators(self) -> tuple[ActuatorSpec, ...]:
        kinds = {joint.name: joint.kind for joint in self.joints}
        return tuple(self._motor(motor, kinds) for motor in self.root.iterfind("actuator/motor"))

    def _motor(self, motor: Element, kinds: dict[str, str]) -> ActuatorSpec:
        joint, control = motor.get("joint", ""), motor.get("ctrl")
        place = f"motor of joint {joint!r}"
        if joint not in kinds:
            raise UserError(f"{place}: expected one of {', '.join(kinds)}")
        if control not in ("force", "position"):
            raise UserError(f"{place}: ctrl: expected force or position, got {control!r}")
        unit = self.unit.effort(kinds[joint])
        source = self._get(motor, "ctrl_range")
        limit = None
        if source.get("ctrl_range") is not None:
            low, high = numbers(source, "ctrl_range", 2, place)
            if low != -high:
                raise Unsupported(f"{place}: ctrl_range: expected a symmetric range, got {low:g} to {high:g}")
            limit = unit * high
        name = f"{joint}_{control}"
        if control == "force":
            if limit is None:
                raise UserError(f"{place}: expected a ctrl_range, got none")
            return ActuatorSpec(name, joint, "torque", gear=limit, lower=-1.0, upper=1.0)
        gain = unit / (self.unit.length if kinds[joint] == "prismatic" else 1.0)
        kp, kd = (gain * self._number(motor, key, 0.0, place) for key in ("P", "D"))
        return ActuatorSpec(name, joint, "position", kp=kp, kd=kd, limit=limit)
