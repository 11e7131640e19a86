"""Robots with named parameters: from Python and YAML, masses inside the graph, errors that name the link."""

import math

import pytest
import torch
import yaml

from dvc.errors import UserError
from dvc.gradient_check import format_table, gradient_check
from physics.articulated_rollout import ArticulatedRollout
from physics.articulation import Linkage
from physics.robot import Robot, evaluate
from physics.robot_spec import ActuatorSpec, InertialSpec, JointSpec, LinkSpec, RobotSpec, ShapeSpec

WRITTEN = """
links:
  body: {shapes: [{kind: box, size: [0.1, 0.1, wide], density: density}]}
  upper: {shapes: [{kind: capsule, size: [radius, length / 2], position: [0, 0, -length / 2], density: density}]}
  lower: {shapes: [{kind: capsule, size: [radius, 0.4 * length], position: [0, 0, -0.4 * length], density: density}]}
joints:
  hip: {kind: revolute, parent: body, child: upper, axis: [0, 1, 0], damping: damping, lower: -1.0, upper: 1.0}
  knee: {kind: revolute, parent: upper, child: lower, axis: [0, 1, 0], position: [0, 0, -length], armature: 0.01, start: 0.3}
  rail: {kind: prismatic, parent: null, child: body, axis: [1, 0, 0]}
actuators:
  motor: {joint: knee, kind: position, kp: 20 * strength, kd: strength, limit: 30}
parameters: {length: 0.5, radius: 0.03, density: 1000, damping: 0.1, wide: 0.2, strength: 1.0}
"""


def written() -> Robot:
    return Robot(**yaml.safe_load(WRITTEN))


def test_a_robot_of_fifteen_lines():
    assert len(WRITTEN.strip().splitlines()) <= 15
    robot = written()
    assert robot.topology.links == ("body", "upper", "lower") and robot.topology.actuators == ("motor",)
    linkage = robot()
    rod = math.pi * 0.03**2 * (0.5 + 4 / 3 * 0.03)
    assert linkage.mass[0].tolist() == pytest.approx(
        [8 * 0.1 * 0.1 * 0.2 * 1000, rod * 1000, (rod - math.pi * 0.03**2 * 0.1) * 1000]
    )
    assert linkage.center_of_mass[0, 1].tolist() == pytest.approx([0, 0, -0.25])
    assert linkage.position[0, 2].tolist() == pytest.approx([0, 0, -0.5])
    assert linkage.lower[0].tolist() == pytest.approx([-1e9, -1.0, -1e9]) and linkage.force_limit.tolist() == [[30.0]]
    state = robot.start(2)
    assert state.position.shape == (2, 3) and state.position[0].tolist() == pytest.approx([0.0, 0.0, 0.3])


def test_parameters_by_world_have_gradients_through_the_motion():
    robot = written()
    rollout = ArticulatedRollout(robot.topology, frame_rate=50.0, frame_count=4, substeps=4)
    names = list(robot.parameters_by_name)
    values = [torch.tensor([v, 1.1 * v], requires_grad=True) for v in robot.parameters_by_name.values()]

    def motion(*tensors):
        path = rollout(robot.start(2), robot(**dict(zip(names, tensors, strict=True))))
        return path.coordinates, path.positions

    assert motion(*values)[0].shape == (2, 5, 3)
    rows = gradient_check(motion, values, names)
    assert all(row.passed and row.analytic for row in rows), "\n" + format_table(rows)


def test_an_imported_robot_takes_parameters_by_edits():
    inertia = ((0.1, 0.0, 0.0), (0.0, 0.2, 0.0), (0.0, 0.0, 0.3))
    spec = RobotSpec(
        "arm",
        (LinkSpec("a", inertial=InertialSpec(2.0, (0.0, 0.0, 0.1), inertia)), LinkSpec("b", (ShapeSpec("sphere", (0.1,)),))),
        (JointSpec("j1", "free", None, "a"), JointSpec("j2", "spherical", "a", "b", position=(0.0, 0.0, 1.0))),
    )
    edits = {"links.a.inertial.mass": "2 * m", "joints.j2.position": [0, 0, "reach"], "links.b.shapes.0.size": ["r"]}
    robot = Robot(spec=spec, parameters={"m": 1.5, "reach": 0.7, "r": 0.2}, edits=edits)
    linkage = robot(m=torch.tensor(2.5))
    assert linkage.mass[0].tolist() == pytest.approx([5.0, 4 / 3 * math.pi * 0.2**3 * 1000])
    assert linkage.position[0, 1].tolist() == pytest.approx([0, 0, 0.7])
    assert torch.allclose(linkage.inertia[0, 0], torch.tensor(inertia))
    assert robot.start().position.tolist() == [[0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1]]
    assert isinstance(Robot(spec=spec)(), Linkage)


def test_the_mass_of_a_mesh_follows_its_scale(tmp_path):
    corners = [(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)]
    faces = ["1 2 4 3", "5 7 8 6", "1 5 6 2", "3 4 8 7", "1 3 7 5", "2 6 8 4"]
    file = tmp_path / "cube.obj"
    file.write_text("\n".join([f"v {x} {y} {z}" for x, y, z in corners] + [f"f {face}" for face in faces]))
    links = {
        "a": {"shapes": [{"kind": "mesh", "file": str(file), "size": ["s", "s", 1], "position": [1, 0, 0], "density": 10}]}
    }
    robot = Robot(links, {"j": {"kind": "free", "parent": None, "child": "a"}}, parameters={"s": 2.0})
    s = torch.tensor([2.0], requires_grad=True)
    linkage = robot(s=s)
    assert float(linkage.mass) == pytest.approx(40.0) and linkage.center_of_mass[0, 0].tolist() == pytest.approx(
        [2.0, 1.0, 0.5]
    )
    assert float(torch.autograd.grad(linkage.mass.sum(), s)[0]) == pytest.approx(40.0, rel=1e-4)
    with pytest.raises(UserError, match=r"link 'a': shape 0 \(mesh\): mesh file '.*missing.obj'"):
        Robot(
            {"a": {"shapes": [{"kind": "mesh", "file": str(tmp_path / "missing.obj")}]}},
            {"j": {"kind": "free", "parent": None, "child": "a"}},
        )


JOINT = {"j": {"kind": "revolute", "parent": None, "child": "a"}}


def ball(**fields):
    return {"a": {"shapes": [{"kind": "sphere", "size": [0.1], **fields}]}}


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"links": ball(size=[0.0])}, r"link 'a': shape 0 \(sphere\): expected a volume, got size \(0.0,\)"),
        ({"links": ball(kind="box")}, r"link 'a': shape 0 \(box\): size: expected 3 numbers, got 1"),
        ({"links": ball(kind="cone")}, r"link 'a': shape 0 \(cone\): expected one of sphere"),
        ({"links": ball(density=-5.0)}, r"link 'a': shape 0 \(sphere\): density: expected a number >= 0, got -5"),
        ({"links": ball(size=0.1)}, "link 'a': shape 0: size: expected a list of numbers, got 0.1"),
        ({"links": ball(size=["1 / 0"])}, "expected a number or an expression that has a value, got '1 / 0'"),
        ({"links": ball(size=["(-1) ** 0.5"])}, "expected a real number"),
        ({"links": ball(position=[0, 0, math.nan])}, r"link 'a': shape 0 \(sphere\): position: expected finite"),
        ({"links": ball(rotation=[1, 0, 0])}, "link 'a': shape 0: rotation: expected 4 numbers"),
        ({"links": {"a": {"inertial": {"mass": 1.0}}}}, "joint 'j': what moves with link 'a' has no inertia about it"),
        ({"links": ball(), "joints": {"j": JOINT["j"] | {"lower": 1, "upper": -1}}}, "joint 'j': expected lower <= upper"),
        ({"links": ball(), "edits": {"links.a.shapes.7": 1}}, "expected one of 0 in place of '7'"),
        ({"links": [{"shapes": []}]}, "expected a name for each link"),
        ({"links": [{"name": "a"}, {"name": "a"}]}, "expected names that differ, got 'a', 'a'"),
        ({"links": ball(), "parameters": {"r": "0.1"}}, "'r': expected a number, its default, got '0.1'"),
        ({"links": ball(size=["raduis"]), "parameters": {"radius": 1.0}}, "'raduis', expected one of the parameters radius"),
        ({"links": ball(size=["radius +"])}, r"expected a number or an expression that has a value, got 'radius \+'"),
        ({"links": ball(size=["__import__('os')"])}, "expected numbers, parameters and"),
        ({"links": ball(colour=1)}, "link 'a': expected fields among .*got 'colour'"),
        ({"links": {"a": {}}}, "joint 'j': what moves with link 'a' has no mass"),
        ({"links": ball(), "edits": {"joints.k.axis": [0, 0, 1]}}, "'joints.k.axis': expected one of j in place of 'k'"),
    ],
)
def test_what_cannot_be_is_named(arguments, match):
    with pytest.raises(UserError, match=match) as caught:
        Robot(**({"joints": JOINT} | arguments))()
    assert "\n" not in str(caught.value)


def test_an_unknown_parameter_is_named():
    with pytest.raises(UserError, match=r"expected parameters among length.*got 'lenght'"):
        written()(lenght=torch.tensor(1.0))
    with pytest.raises(UserError, match=r"length: expected a number, \(\) or \(world,\), got the shape \(1, 2\)"):
        written()(length=torch.ones(1, 2))
    with pytest.raises(UserError, match="world axes differ"):
        written()(length=torch.ones(2), radius=torch.ones(3))
    assert torch.equal(written()(length=1.0).mass, written()(length=torch.tensor(1.0)).mass)
    with pytest.raises(UserError, match="expected either links and joints, or spec, got neither"):
        Robot()


def test_actuators_and_numbers_of_specs_are_kept():
    joint = JointSpec("j", "revolute", None, "a", lower=-1.0)
    motor = ActuatorSpec("m", "j", "velocity", kd=3.0, lower=-2.0)
    spec = RobotSpec("one", (LinkSpec("a", (ShapeSpec("sphere", (0.1,)),)),), (joint,), (motor,))
    linkage = Robot(spec=spec)()
    assert linkage.kd.tolist() == [[3.0]] and linkage.control_lower.tolist() == [[-2.0]] and linkage.lower.tolist() == [[-1.0]]


def test_expressions():
    values = {"a": 2.0, "b": torch.tensor([1.0, 4.0])}
    assert evaluate("-a ** 2 + 3 * (a - 0.5)", values, "x") == pytest.approx(0.5)
    assert evaluate("a / b", values, "x").tolist() == [2.0, 0.5]
