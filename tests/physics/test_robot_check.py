"""physics/robot_check.py: what a description must not be, one change at a time; physics/robot_mass.py against samples."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dvc.errors import Unsupported, UserError
from physics.robot_check import check_spec
from physics.robot_mass import inertial_of_shapes, volume
from physics.robot_spec import ActuatorSpec, InertialSpec, JointSpec, LinkSpec, RobotSpec, ShapeSpec

BALL = ShapeSpec("sphere", (0.1,))
ROBOT = RobotSpec(
    "toy",
    links=(LinkSpec("a", (BALL,)), LinkSpec("b"), LinkSpec("c", (BALL,))),
    joints=(
        JointSpec("ja", "free", None, "a"),
        JointSpec("jb", "prismatic", "a", "b", lower=-1.0, upper=1.0),
        JointSpec("jc", "revolute", "b", "c"),
    ),
    actuators=(ActuatorSpec("m", "jc"),),
    ground=(ShapeSpec("plane", massive=False),),
)
POINT = InertialSpec(1.0)
NAN = float("nan")


def link(number: int, **changes: object) -> RobotSpec:
    links = list(ROBOT.links)
    links[number] = replace(links[number], **changes)
    return replace(ROBOT, links=tuple(links))


def joint(number: int, **changes: object) -> RobotSpec:
    joints = list(ROBOT.joints)
    joints[number] = replace(joints[number], **changes)
    return replace(ROBOT, joints=tuple(joints))


def shape(**changes: object) -> RobotSpec:
    return link(2, shapes=(replace(BALL, **changes),))


def motor(**changes: object) -> RobotSpec:
    return replace(ROBOT, actuators=(replace(ROBOT.actuators[0], **changes),))


def test_good_descriptions_pass() -> None:
    check_spec(ROBOT)
    check_spec(replace(ROBOT, joints=ROBOT.joints[::-1], links=ROBOT.links[::-1]))  # any order
    check_spec(link(2, shapes=(), inertial=InertialSpec(1.0, (0.1, 0.0, 0.0))))  # a point mass off the axis
    moved = link(2, shapes=())
    check_spec(replace(moved, joints=tuple(replace(j, armature=1.0) for j in moved.joints)))
    check_spec(shape(kind="rounded_box", size=(0.1, 0.1, 0.1, 0.02)))


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (replace(ROBOT, links=()), "robot 'toy': expected at least one link"),
        (replace(ROBOT, gravity=(0.0, 0.0, NAN)), "robot 'toy': gravity: expected finite"),
        (link(1, name="a"), "link 'a': expected names that differ"),
        (joint(1, name="ja"), "joint 'ja': expected names that differ"),
        (joint(0, parent="c"), r"the joints form a cycle \('.*' -> '.*' -> '.*'\)"),
        (joint(0, parent="a"), r"link '.': the joints form a cycle \('ja'\)"),
        (joint(2, child="b"), "link 'b': expected one joint that carries it, got 'jb' and 'jc'"),
        (replace(ROBOT, joints=ROBOT.joints[:2], actuators=()), "link 'c': expected a joint that carries it"),
        (joint(2, parent="z"), "joint 'jc': parent: expected a link, got 'z'"),
        (joint(2, kind="planar"), "joint 'jc': kind: expected one of"),
        (joint(2, axis=(0.0, 0.0, 0.0)), "joint 'jc': axis"),
        (joint(2, damping=-1.0), "joint 'jc': damping: expected a number >= 0"),
        (joint(2, position=(NAN, 0.0, 0.0)), "joint 'jc': position: expected finite"),
        (joint(2, rotation=(0.0, 0.0, 0.0, 2.0)), "joint 'jc': rotation: expected a unit quaternion"),
        (joint(1, lower=2.0), "joint 'jb': expected lower <= upper"),
        (link(2, shapes=(), inertial=InertialSpec(-1.0)), "link 'c': mass: expected a number >= 0, got -1"),
        (link(2, inertial=InertialSpec(1.0, inertia=((1, 2, 0), (0, 1, 0), (0, 0, 1)))), "link 'c': inertia: expected a sym"),
        (link(2, inertial=InertialSpec(0.0, inertia=((1, 0, 0), (0, 1, 0), (0, 0, 1)))), "link 'c': expected no inertia"),
        (link(2, shapes=()), "joint 'j.': what moves with link '.' has no mass"),
        (link(2, shapes=(), inertial=POINT), "joint 'jc': what moves with link 'c' has no inertia about it"),
        (shape(density=0.0), "joint 'j.': what moves with link '.' has no mass"),
        (shape(density=-1.0), r"link 'c': shape 0 \(sphere\): density"),
        (shape(size=(0.0,)), r"link 'c': shape 0 \(sphere\): expected a volume"),
        (shape(size=(-0.1,)), r"link 'c': shape 0 \(sphere\): expected a volume"),
        (shape(kind="box", size=(1.0, 1.0, 0.0)), r"link 'c': shape 0 \(box\): expected a volume"),
        (shape(size=(0.1, 0.1)), r"link 'c': shape 0 \(sphere\): size: expected 1 numbers, got 2"),
        (shape(kind="cone"), r"link 'c': shape 0 \(cone\): expected one of sphere"),
        (shape(kind="plane", size=()), "a plane has no volume"),
        (shape(kind="mesh", size=(1.0, 1.0, 1.0), file="gone.obj"), r"link 'c': shape 0 \(mesh\): mesh file 'gone.obj'"),
        (shape(kind="rounded_box", size=(0.1, 0.1, 0.1, 0.2)), "edge radius within"),
        (motor(joint="z"), "actuator 'm': joint: expected one of ja, jb, jc, got 'z'"),
        (motor(gear="2"), "actuator 'm': gear: expected a number, got '2'"),
        (joint(2, axis=(0.0, 1.0)), "joint 'jc': axis: expected 3 numbers"),
        (joint(2, position=None), "joint 'jc': position: expected 3 numbers, got None"),
        (shape(size=0.1), "link 'c': shape 0: size: expected a list of numbers, got 0.1"),
        (link(2, inertial=InertialSpec(1.0, inertia=(1.0, 1.0, 1.0))), "link 'c': inertial: inertia: expected 3 rows"),
        (motor(kind="muscle"), "actuator 'm': kind"),
        (motor(limit=-1.0), "actuator 'm': limit"),
    ],
)
def test_bad_descriptions_are_named(spec: RobotSpec, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        check_spec(spec)
    assert "\n" not in str(caught.value)


def test_an_actuator_of_a_free_joint_is_unsupported() -> None:
    with pytest.raises(Unsupported, match="actuator 'm': expected a revolute or prismatic joint, got the free joint 'ja'"):
        check_spec(motor(joint="ja"))


def inside(kind: str, size: tuple[float, ...], points: np.ndarray) -> np.ndarray:
    x, y, z = np.abs(points).T
    if kind == "box":
        return (x < size[0]) & (y < size[1]) & (z < size[2])
    if kind == "ellipsoid":
        return ((points / size) ** 2).sum(axis=1) < 1.0
    if kind == "cylinder":
        return (np.hypot(x, y) < size[0]) & (z < size[1])
    if kind == "rounded_box":
        beyond = np.maximum(np.abs(points) - np.array(size[:3]) + size[3], 0.0)
        return (beyond**2).sum(axis=1) < size[3] ** 2
    height = size[1] if kind == "capsule" else 0.0
    return x**2 + y**2 + np.maximum(z - height, 0.0) ** 2 < size[0] ** 2


@pytest.mark.parametrize(
    ("kind", "size", "bound"),
    [
        ("sphere", (0.3,), (0.3, 0.3, 0.3)),
        ("capsule", (0.2, 0.3), (0.2, 0.2, 0.5)),
        ("cylinder", (0.2, 0.3), (0.2, 0.2, 0.3)),
        ("box", (0.1, 0.2, 0.3), (0.1, 0.2, 0.3)),
        ("ellipsoid", (0.1, 0.2, 0.3), (0.1, 0.2, 0.3)),
        ("rounded_box", (0.1, 0.2, 0.3, 0.08), (0.1, 0.2, 0.3)),
    ],
)
def test_mass_of_solids_against_samples(kind: str, size: tuple[float, ...], bound: tuple[float, ...]) -> None:
    grid = [(np.arange(80) + 0.5) / 40.0 - 1.0] * 3
    points = np.stack(np.meshgrid(*grid, indexing="ij"), axis=-1).reshape(-1, 3) * bound
    held = points[inside(kind, size, points)]
    cell = 8.0 * np.prod(bound) / len(points)
    assert volume(ShapeSpec(kind, size)) == pytest.approx(len(held) * cell, rel=5e-3)
    if kind == "rounded_box":
        return
    turn = Rotation.from_euler("xyz", (0.3, -0.5, 1.0))
    solid = ShapeSpec(kind, size, (1.0, 2.0, 3.0), tuple(turn.as_quat()), density=500.0)
    own = inertial_of_shapes((solid,))
    world = turn.apply(held)
    squares = 500.0 * cell * world.T @ world
    inertia = np.trace(squares) * np.eye(3) - squares
    assert own.center_of_mass == pytest.approx((1.0, 2.0, 3.0))
    np.testing.assert_allclose(own.inertia, inertia, atol=8e-3 * np.trace(inertia))
