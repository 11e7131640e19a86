"""Robots from MuJoCo's MJCF. MuJoCo's own parser resolves classes, angles, frames, includes and masses; this reads the result.

Frames. MuJoCo turns a body about an anchor (`pos` of the joint) that need not be the body's origin; here a joint turns its
child about the child's origin. So a link's frame is its body's frame moved to the anchor of the body's last turning
joint, and what hangs on it (shapes, masses, further bodies) is given from there.

Several joints in one body become a chain of links in MuJoCo's order; all but the last have no mass and are named
`body/joint`. Coordinates are MuJoCo's own, `ref` included, except of a free joint: zero there is the pose in the file.

Masses. Where MuJoCo computed a body's mass from shapes that have closed forms, the shapes carry densities that give the
same mass, so that they are parameters; otherwise (an <inertial>, meshes, shells) the link has the compiled values.

An actuator on a transmission with gear g: force g f(control, g q, g q'). `position` and `velocity` become gains about the
joint's own coordinate, kp g^2 and kv g^2, and the control is divided by g.
"""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from dvc.errors import Unsupported, UserError
from physics.mjcf_actuators import read_actuators
from physics.mjcf_census import census
from physics.robot_mass import inertial, inertial_of_shapes, quaternion, vector, volume
from physics.robot_spec import InertialSpec, JointSpec, LinkSpec, RobotSpec, ShapeSpec
from physics.robot_xml import LeftOut, place_of_line, read_xml

# mjtGeom and mjtJoint.
_GEOMS = {0: "plane", 2: "sphere", 3: "capsule", 4: "ellipsoid", 5: "cylinder", 6: "box", 7: "mesh"}
_SIZES = {"plane": 0, "sphere": 1, "capsule": 2, "ellipsoid": 3, "cylinder": 2, "box": 3}
_JOINTS = {0: "free", 1: "spherical", 2: "prismatic", 3: "revolute"}
_SAME_MASS = 1e-6


def read_mjcf(path: Path) -> RobotSpec:
    """The robot of an MJCF file. Not yet checked: `physics.robot_import.read_robot` does.

    Raises: UserError, one line, for what MuJoCo's compiler refuses and for a missing mesh; Unsupported for a mesh that has no
        file or a reference frame of its own.
    """
    root = read_xml(path)
    left_out = LeftOut()
    census(root, path.parent, left_out)
    mujoco, parsed, model = _compile(path)
    reader = _Reader(path, parsed, model, left_out)
    for body in range(1, model.nbody):
        reader.read_body(body)
    weightless = model.opt.disableflags & int(mujoco.mjtDisableBit.mjDSBL_GRAVITY)
    return RobotSpec(
        name=root.get("model", path.stem),
        links=tuple(reader.links),
        joints=tuple(reader.joints),
        actuators=read_actuators(model, reader.joint_names, left_out),
        ground=reader.shapes_of(0, np.zeros(3)),
        gravity=(0.0, 0.0, 0.0) if weightless else vector(model.opt.gravity),
        not_understood=left_out.lines(),
    )


def _mujoco() -> Any:
    try:
        import mujoco
    except ImportError as error:
        raise UserError(f"MJCF needs mujoco ({error}); remedy: pip install 'diffvc[robots]'") from error
    return mujoco


def _compile(path: Path) -> tuple[Any, Any, Any]:
    """mujoco, what its parser read, and the compiled model."""
    mujoco = _mujoco()
    try:
        parsed = mujoco.MjSpec.from_file(str(path))
        _check_meshes(parsed, path)
        # Either would leave bodies or shapes out, which this importer then could not name.
        parsed.compiler.fusestatic = False
        parsed.compiler.discardvisual = False
        return mujoco, parsed, parsed.compile()
    except (UserError, Unsupported):
        raise
    except (ValueError, mujoco.FatalError) as error:
        raise UserError(_one_line(str(error), path)) from error


def _one_line(message: str, path: Path) -> str:
    """MuJoCo's message, with the body or joint that it is about."""
    line = re.search(r"line (\d+)", message)
    tag = re.search(r"Element '(\w+)'", message)
    name = re.search(r"Element name '([^']+)'", message)
    place = place_of_line(path, int(line[1]), tag[1] if tag else "", name[1] if name else "") if line else ""
    text = " ".join(message.replace("XML Error:", "").replace("Error:", "").split())
    return f"{place}: {text} (MuJoCo)" if place else f"{text} (MuJoCo)"


def _check_meshes(parsed: Any, path: Path) -> None:
    users: dict[str, str] = {}
    for geom in parsed.geoms:
        if geom.meshname:
            users.setdefault(geom.meshname, f"link {geom.parent.name!r}")
    for mesh in parsed.meshes:
        name = mesh.name or Path(mesh.file).stem
        place = f"{users.get(name, 'asset')}: mesh {name!r}"
        if not mesh.file:
            raise Unsupported(f"{place}: a mesh without a file is not read; remedy: save it as a file")
        if np.any(mesh.refpos) or not np.allclose(mesh.refquat, [1.0, 0.0, 0.0, 0.0]):
            raise Unsupported(f"{place}: refpos and refquat are not read; remedy: give the pose to the geom")
        file = _mesh_file(parsed, mesh.file, path)
        if not file.is_file():
            raise UserError(f"{place}: expected a file, got nothing at {file}")


def _mesh_file(parsed: Any, file: str, path: Path) -> Path:
    folder = getattr(parsed.compiler, "meshdir", "") or getattr(parsed, "meshdir", "")
    return path.parent / folder / (Path(file).name if getattr(parsed, "strippath", False) else file)


class _Reader:
    """Goes through a compiled model, body by body."""

    def __init__(self, path: Path, parsed: Any, model: Any, left_out: LeftOut) -> None:
        self.path, self.model, self.left_out = path, model, left_out
        self.geoms = {geom.id: geom for geom in parsed.geoms}
        self.explicit = {body.id: bool(body.explicitinertial) for body in parsed.bodies}
        self.always_from_geoms = int(parsed.compiler.inertiafromgeom) == 1
        self.groups = tuple(parsed.compiler.inertiagrouprange)
        self.mesh_files = {mesh.id: _mesh_file(parsed, mesh.file, path) for mesh in parsed.meshes}
        self.links: list[LinkSpec] = []
        self.joints: list[JointSpec] = []
        self.joint_names: dict[int, str] = {}
        self.link_names: dict[int, str | None] = {0: None}
        self.anchors = {0: np.zeros(3)}  # of a link's frame in its body's frame, whose axes it has

    def read_body(self, body: int) -> None:
        """One link for a body, and links without mass for all but the last of its joints."""
        model = self.model
        name = model.body(body).name or f"body{body}"
        parent = int(model.body_parentid[body])
        if model.body_mocapid[body] >= 0:
            self.left_out.add("<body> mocap", "the body is fixed where the file puts it", name)
        at = model.body_pos[body] - self.anchors[parent]
        turn = _rotation(model.body_quat[body])
        anchor = np.zeros(3)
        above = self.link_names[parent]
        first = int(model.body_jntadr[body])
        numbers = range(first, first + int(model.body_jntnum[body]))
        for number in numbers:
            joint = self._joint(number, name)
            here = model.jnt_pos[number].copy() if joint.kind in ("revolute", "spherical") else np.zeros(3)
            child = name if number == numbers[-1] else f"{name}/{joint.name}"
            offset = at + turn.apply(here - anchor)
            self.joints.append(_placed(replace(joint, parent=above, child=child), offset, turn))
            if child != name:
                self.links.append(LinkSpec(child, inertial=InertialSpec(0.0)))
            at, turn, anchor, above = np.zeros(3), Rotation.identity(), here, child
        if not numbers:
            self.joints.append(JointSpec(f"{name}_fixed", "fixed", above, name, vector(at), quaternion(turn)))
        self.link_names[body], self.anchors[body] = name, anchor
        self.links.append(self._link(body, name, anchor))

    def _joint(self, number: int, body: str) -> JointSpec:
        """A joint without its place in the tree."""
        model = self.model
        kind = _JOINTS[int(model.jnt_type[number])]
        name = model.joint(number).name or f"{body}_joint{number - int(model.body_jntadr[model.jnt_bodyid[number]])}"
        self.joint_names[number] = name
        dof, address = int(model.jnt_dofadr[number]), int(model.jnt_qposadr[number])
        for key in ("jnt_stiffnesspoly", "dof_dampingpoly"):
            terms = getattr(model, key, None)
            if terms is not None and np.any(terms[number if key.startswith("jnt") else dof]):
                self.left_out.add(f"<joint> {key[4:-4]}: terms beyond the linear one", "springs and dampers are linear", name)
        limited = bool(model.jnt_limited[number])
        if limited and kind == "spherical":
            self.left_out.add("<joint> range of a ball joint", "spherical joints have no limits", name)
        single = kind in ("prismatic", "revolute")
        lower, upper = (float(value) for value in model.jnt_range[number])
        return JointSpec(
            name=name,
            kind=kind,
            parent=None,
            child=body,
            axis=vector(model.jnt_axis[number]) if single else (0.0, 0.0, 1.0),
            lower=lower if limited and single else None,
            upper=upper if limited and single else None,
            damping=float(model.dof_damping[dof]),
            friction=float(model.dof_frictionloss[dof]),
            armature=float(model.dof_armature[dof]),
            stiffness=float(model.jnt_stiffness[number]),
            rest=float(model.qpos_spring[address]) if single else 0.0,
            start=float(model.qpos0[address]) if single else 0.0,
        )

    def _link(self, body: int, name: str, anchor: np.ndarray) -> LinkSpec:
        model = self.model
        turn = _rotation(model.body_iquat[body]).as_matrix()
        given = inertial(model.body_mass[body], model.body_ipos[body] - anchor, (turn * model.body_inertia[body]) @ turn.T)
        shapes = self.shapes_of(body, anchor)
        if not self.explicit.get(body, False) or self.always_from_geoms:
            scaled = _with_mass(shapes, given)
            if scaled is not None:
                return LinkSpec(name, scaled)
        return LinkSpec(name, tuple(replace(shape, massive=False) for shape in shapes), given)

    def shapes_of(self, body: int, anchor: np.ndarray) -> tuple[ShapeSpec, ...]:
        """The shapes of a body in its link's frame."""
        first = int(self.model.body_geomadr[body])
        shapes = [self._shape(geom, anchor) for geom in range(first, first + int(self.model.body_geomnum[body]))]
        return tuple(shape for shape in shapes if shape is not None)

    def _shape(self, number: int, anchor: np.ndarray) -> ShapeSpec | None:
        model, source = self.model, self.geoms[number]
        place = model.geom(number).name or model.body(int(model.geom_bodyid[number])).name
        kind = _GEOMS.get(int(model.geom_type[number]))
        if kind is None:
            self.left_out.add("<geom> of type hfield or sdf", "there is no record for its shape", place)
            return None
        position, turn = model.geom_pos[number], _rotation(model.geom_quat[number])
        size: tuple[float, ...]
        file = None
        if kind == "mesh":
            mesh = int(model.geom_dataid[number])
            # MuJoCo moves a mesh to its centre and principal axes; the file is where it was before.
            back = turn * _rotation(model.mesh_quat[mesh]).inv()
            position = position - back.apply(model.mesh_pos[mesh])
            turn = back
            size, file = vector(model.mesh_scale[mesh]), str(self.mesh_files[mesh])
        else:
            size = tuple(float(value) for value in model.geom_size[number][: _SIZES[kind]])
        shape = ShapeSpec(
            kind=kind,
            size=size,
            position=vector(position - anchor),
            rotation=quaternion(turn),
            density=0.0,
            collides=bool(model.geom_contype[number] or model.geom_conaffinity[number]),
            massive=False,
            friction=float(model.geom_friction[number][0]),
            file=file,
            category=int(model.geom_contype[number]),
            mask=int(model.geom_conaffinity[number]),
        )
        space = volume(shape)
        if kind == "plane" or not self.groups[0] <= int(source.group) <= self.groups[1] or source.mass == 0.0:
            return shape
        by_mass = not math.isnan(source.mass) and space
        return replace(shape, massive=True, density=float(source.mass / space if by_mass else source.density))


def _rotation(quaternion_wxyz: np.ndarray) -> Rotation:
    return Rotation.from_quat(np.roll(quaternion_wxyz, -1))


def _placed(joint: JointSpec, position: np.ndarray, turn: Rotation) -> JointSpec:
    """The frame where the coordinate is zero, from the one where it is `start`: the one that the file draws."""
    axis = np.array(joint.axis)
    if joint.kind == "prismatic":
        position = position - joint.start * turn.apply(axis)
    elif joint.kind == "revolute":
        turn = turn * Rotation.from_rotvec(-joint.start * axis)
    return replace(joint, position=vector(position), rotation=quaternion(turn))


def _with_mass(shapes: tuple[ShapeSpec, ...], given: InertialSpec) -> tuple[ShapeSpec, ...] | None:
    """Shapes with densities by which they have the given mass properties; None where no common factor does that."""
    own = inertial_of_shapes(shapes)
    if own is None or own.mass <= 0.0:
        return None
    factor = given.mass / own.mass
    length = float(np.sqrt(np.trace(own.inertia) / own.mass))
    same_center = np.allclose(own.center_of_mass, given.center_of_mass, rtol=0.0, atol=_SAME_MASS * length)
    tolerance = _SAME_MASS * float(np.trace(given.inertia))
    if not same_center or not np.allclose(factor * np.array(own.inertia), given.inertia, rtol=0.0, atol=tolerance):
        return None
    return tuple(replace(shape, density=factor * shape.density) for shape in shapes)
