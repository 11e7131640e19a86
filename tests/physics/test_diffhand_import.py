"""physics/diffhand_import.py: units and frames by hand; masses from the closed forms of the format's own program."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dvc.errors import Unsupported, UserError
from physics.robot_import import read_robot
from physics.robot_mass import inertial_of_link
from tests.physics.robot_poses import poses

MODELS = {"pendulum": (1, [0.01]), "double_pendulum": (2, [0.01] * 2), "finger_torque": (3, [0.004, 0.002, 0.001])}
ROBOT = """<redmax model="toy"><option gravity="0 0 -980" unit="{unit}"/><ground pos="0 0 -20" normal="1 0 1"/>
<default><joint damping="50"/><motor P="3"/><ground_contact mu="0.4"/></default>
<robot><link name="one"><joint name="turn" type="revolute" axis="0 2 0" pos="1 2 3" quat="1 0 0 1" lim="-1 2"/>
   <body name="brick" type="cuboid" size="4 2 1" pos="2 0 0" quat="1 0 0 0" density="2"/>
   <link name="two"><joint name="slide" type="prismatic" axis="0 0 1" pos="5 2 3" quat="1 0 0 0" frame="WORLD" lim="-1 2"/>
     <body name="can" type="cylinder" radius="1" length="3" pos="0 0 0" quat="1 0 0 0"/></link>
   <link name="three"><joint name="ball" type="spherical-exp" pos="0 0 1" quat="1 0 0 0" damping="0"/>
     <body name="pill" type="capsule" radius="1" length="3" pos="0 0 0" quat="1 0 0 0"/></link></link></robot>
<actuator><motor joint="turn" ctrl="force" ctrl_range="-100 100"/>
  <motor joint="slide" ctrl="position" ctrl_range="-7 7" D="2"/></actuator>
<contact><ground_contact body="can" kn="1"/></contact></redmax>"""


def written(folder: Path, text: str) -> Path:
    path = folder / "robot.xml"
    path.write_text(text)
    return path


@pytest.mark.data(*(f"diffhand_{name}" for name in MODELS))
@pytest.mark.parametrize("name", MODELS)
def test_robots_of_diffhand(name: str) -> None:
    joints, masses = MODELS[name]
    spec = read_robot(f"data:diffhand_{name}")
    assert [joint.kind for joint in spec.joints] == ["revolute"] * joints
    assert spec.gravity == pytest.approx((0.0, 0.0, -9.8))
    assert [inertial_of_link(link).mass for link in spec.links] == pytest.approx(masses)  # 10 x 1 x 1 cm at 1 g/cm^3 is 10 g
    assert all(joint.damping == pytest.approx(1e-3) for joint in spec.joints)  # 1e4 g cm^2/s
    assert all(a.gear == pytest.approx(1e-2) and (a.lower, a.upper) == (-1.0, 1.0) for a in spec.actuators)  # 1e5 dyn cm
    assert len(spec.actuators) == joints


def test_values_in_si_units(tmp_path: Path) -> None:
    spec = read_robot(written(tmp_path, ROBOT.format(unit="cm-g")))
    one, two, three = spec.links
    turn, slide, ball = spec.joints
    brick = inertial_of_link(one)
    assert brick.mass == pytest.approx(0.016) and brick.center_of_mass == pytest.approx((0.02, 0.0, 0.0))
    np.testing.assert_allclose(np.diag(brick.inertia), 0.016 / 12 * np.array([5, 17, 20]) * 1e-4)
    assert inertial_of_link(two).mass == pytest.approx(np.pi * 3e-3)
    assert inertial_of_link(three).mass == pytest.approx(np.pi * (3 + 4 / 3) * 1e-3)
    assert (turn.lower, turn.upper, turn.damping, turn.axis) == (-1.0, 2.0, pytest.approx(50e-7), (0.0, 1.0, 0.0))
    assert (slide.lower, slide.upper, slide.damping) == (pytest.approx(-0.01), pytest.approx(0.02), pytest.approx(0.05))
    assert ball.kind == "spherical" and ball.damping == 0.0
    torque, servo = spec.actuators
    assert (torque.kind, torque.gear, torque.lower, torque.upper) == ("torque", pytest.approx(1e-5), -1.0, 1.0)
    assert (servo.kind, servo.kp, servo.kd) == ("position", pytest.approx(3e-3), pytest.approx(2e-3))
    assert servo.limit == pytest.approx(7e-5)
    assert [link.shapes[0].collides for link in spec.links] == [False, True, False] and two.shapes[0].friction == 0.4
    normal = Rotation.from_quat(spec.ground[0].rotation).apply([0.0, 0.0, 1.0])
    np.testing.assert_allclose(normal, np.array([1.0, 0.0, 1.0]) / np.sqrt(2.0), atol=1e-12)
    assert any(line.startswith("<ground_contact> kn: 1") for line in spec.not_understood)


def test_frames(tmp_path: Path) -> None:
    spec = read_robot(written(tmp_path, ROBOT.format(unit="cm-g")))
    frames = poses(spec, {"ball": Rotation.identity(), "slide": 0.5})
    quarter = Rotation.from_euler("z", 90, degrees=True)
    np.testing.assert_allclose(frames["one"][:3, :3], quarter.as_matrix(), atol=1e-12)
    np.testing.assert_allclose(frames["two"][:3, :3], np.eye(3), atol=1e-12)  # frame="WORLD"
    np.testing.assert_allclose(frames["two"][:3, 3], [0.05, 0.02, 0.53], atol=1e-12)
    np.testing.assert_allclose(frames["three"][:3, 3], [0.01, 0.02, 0.04], atol=1e-12)


def test_metres_and_kilograms(tmp_path: Path) -> None:
    spec = read_robot(written(tmp_path, ROBOT.format(unit="m-kg")))
    assert inertial_of_link(spec.links[0]).mass == pytest.approx(16.0) and spec.joints[0].damping == 50.0


@pytest.mark.parametrize(
    ("old", "new", "error", "message"),
    [
        ('type="cuboid"', 'type="mesh"', Unsupported, r"link 'one': <body> type"),
        ('type="revolute"', 'type="planar"', Unsupported, r"joint 'turn': type"),
        ('size="4 2 1"', 'size="4 0 1"', UserError, r"link 'one': shape 0 \(box\): expected a volume"),
        ('size="4 2 1"', "", UserError, r"link 'one': size of <body>: expected 3 numbers, got None"),
        ('density="2"', 'density="-2"', UserError, r"link 'one'.*density: expected a number >= 0"),
        ('axis="0 2 0"', 'axis="0 0 0"', UserError, r"joint 'turn': axis"),
        ('unit="cm-g"', 'unit="inch"', UserError, r"unit: expected one of cm-g, m-kg"),
        ('motor joint="turn"', 'motor joint="gone"', UserError, r"motor of joint 'gone'"),
        ('"-100 100"', '"-100 50"', Unsupported, r"motor of joint 'turn': ctrl_range"),
        ('<joint name="turn"', '<joints name="turn"', UserError, r"link 'one': expected a <joint>"),
    ],
)
def test_bad_input_is_one_line(old: str, new: str, error: type[Exception], message: str, tmp_path: Path) -> None:
    text = ROBOT.format(unit="cm-g")
    assert old in text
    with pytest.raises(error, match=message) as caught:
        read_robot(written(tmp_path, text.replace(old, new, 1)))
    assert "\n" not in str(caught.value) and "robot.xml" in str(caught.value)
