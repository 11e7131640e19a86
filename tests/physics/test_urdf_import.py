"""physics/urdf_import.py: values by hand, poses against yourdfpy's scene, and what is refused."""

from pathlib import Path

import numpy as np
import pytest

from dvc.errors import Unsupported, UserError
from physics.robot_import import read_robot
from tests.physics.robot_poses import poses

yourdfpy = pytest.importorskip("yourdfpy")

ARM = """<robot name="arm">
  <material name="grey"/>
  <link name="base"/>
  <link name="upper">
    <inertial><origin xyz="0.1 0 0" rpy="0 0 1.5707963267948966"/><mass value="2"/>
      <inertia ixx="1" ixy="0" ixz="0" iyy="2" iyz="0" izz="2.5"/></inertial>
    <visual><geometry><teapot/></geometry></visual>
    <collision><origin xyz="0 0 1" rpy="0.3 0.2 0.1"/><geometry><box size="1 2 3"/></geometry></collision>
    <collision><geometry><cylinder radius="0.1" length="0.6"/></geometry></collision>
    <collision><geometry><sphere radius="0.2"/></geometry></collision>
  </link>
  <link name="lower"><inertial><mass value="1"/><inertia ixx="1" ixy="0.1" ixz="0" iyy="1" iyz="0" izz="1"/></inertial></link>
  <link name="finger"><inertial><mass value="1"/><inertia ixx="1" ixy="0" ixz="0" iyy="1" iyz="0" izz="1"/></inertial></link>
  <link name="ball"><inertial><mass value="1"/><inertia ixx="1" ixy="0" ixz="0" iyy="1" iyz="0" izz="1"/></inertial></link>
  <joint name="shoulder" type="revolute"><parent link="base"/><child link="upper"/><origin xyz="1 2 3" rpy="0.1 -0.7 2"/>
    <axis xyz="0 3 4"/><limit lower="-1" upper="2" effort="7" velocity="3"/><dynamics damping="0.5" friction="0.25"/></joint>
  <joint name="elbow" type="continuous"><parent link="upper"/><child link="lower"/><origin xyz="0 0 1"/></joint>
  <joint name="slide" type="prismatic"><parent link="lower"/><child link="finger"/><axis xyz="0 0 -1"/>
    <origin rpy="0 1 0"/><limit lower="0" upper="0.1" effort="1" velocity="1"/><mimic joint="elbow"/></joint>
  <joint name="loose" type="floating"><parent link="lower"/><child link="ball"/></joint>
  <transmission name="drive"/><gazebo reference="upper"/>
</robot>"""
MASS = '<inertial><mass value="1"/><inertia ixx="1" ixy="0" ixz="0" iyy="1" iyz="0" izz="1"/></inertial>'


def written(folder: Path, text: str) -> Path:
    path = folder / "robot.urdf"
    path.write_text(text)
    return path


def agree(path: Path, seed: int) -> None:
    """Compare every link's pose at ten random configurations with yourdfpy's; mimicking joints stand still."""
    spec = read_robot(path)
    scene = yourdfpy.URDF.load(str(path), load_meshes=False)
    draw = np.random.default_rng(seed)
    moving = [joint.name for joint in spec.joints if joint.kind in ("revolute", "prismatic")]
    mimics = {joint.name for joint in scene.robot.joints if joint.mimic is not None}
    for _ in range(10):
        values = {name: 0.0 if name in mimics else float(draw.uniform(-2.0, 2.0)) for name in moving}
        scene.update_cfg(np.array([values[name] for name in scene.actuated_joint_names if name in values]))
        frames = poses(spec, values)
        for link in spec.links:
            np.testing.assert_allclose(frames[link.name], scene.get_transform(link.name), atol=1e-6)


@pytest.mark.data("newton_quadruped", "newton_cartpole")
@pytest.mark.parametrize(("name", "joints", "mass"), [("quadruped", 12, 6.222 + 12 * 2.04), ("cartpole", 3, 1.5)])
def test_robots_of_newton(name: str, joints: int, mass: float) -> None:
    from dvc import data

    agree(data.find(f"newton_{name}", download=False), 4)
    spec = read_robot(f"data:newton_{name}")
    assert sum(joint.kind in ("revolute", "prismatic") for joint in spec.joints) == joints
    assert sum(link.inertial.mass for link in spec.links) == pytest.approx(mass)
    assert read_robot(f"data:newton_{name}", base="free").joints[0].kind == "free"


def test_poses_against_yourdfpy(tmp_path: Path) -> None:
    text = ARM.replace("<visual><geometry><teapot/></geometry></visual>", "").replace('type="floating"', 'type="fixed"')
    agree(written(tmp_path, text.replace('<mimic joint="elbow"/>', "")), 5)


def test_values(tmp_path: Path) -> None:
    spec = read_robot(written(tmp_path, ARM))
    links, joints = {link.name: link for link in spec.links}, {joint.name: joint for joint in spec.joints}
    root, shoulder = spec.joints[0], joints["shoulder"]
    assert (root.kind, root.parent, root.child) == ("fixed", None, "base")
    assert (shoulder.kind, shoulder.lower, shoulder.upper) == ("revolute", -1.0, 2.0)
    assert (shoulder.damping, shoulder.friction, shoulder.axis) == (0.5, 0.25, (0.0, 0.6, 0.8))
    assert joints["elbow"].lower is None and joints["elbow"].axis == (1.0, 0.0, 0.0)
    assert joints["slide"].kind == "prismatic" and joints["loose"].kind == "free"
    assert links["base"].inertial.mass == 0.0 and links["upper"].inertial.center_of_mass == (0.1, 0.0, 0.0)
    np.testing.assert_allclose(links["upper"].inertial.inertia, np.diag([2.0, 1.0, 2.5]), atol=1e-12)
    assert [(shape.kind, shape.size) for shape in links["upper"].shapes] == [
        ("box", (0.5, 1.0, 1.5)),
        ("cylinder", (0.1, 0.3)),
        ("sphere", (0.2,)),
    ]
    assert all(shape.collides and not shape.massive for shape in links["upper"].shapes)
    for start in (
        "<limit> effort: 2 (shoulder, slide)",
        "<limit> velocity: 2",
        "<joint> mimic: 1 (slide)",
        "<transmission>: 1 (drive)",
        "<gazebo>: 1 (upper)",
        "<link> visual: 1 (upper)",
        "<material>: 1",
    ):
        assert sum(line.startswith(start) for line in spec.not_understood) == 1, (start, spec.not_understood)


def test_root_can_be_free(tmp_path: Path) -> None:
    path = written(tmp_path, f'<robot name="r"><link name="a">{MASS}</link></robot>')
    assert read_robot(path).joints[0].kind == "fixed" and read_robot(path, base="free").joints[0].kind == "free"
    with pytest.raises(UserError, match=r"base: expected one of"):
        read_robot(path, base="floating")


def test_mesh_is_found(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "m.obj").write_text("v 0 0 0\n")
    for name in ("parts/m.obj", "package://parts/m.obj", "package://my_robot/parts/m.obj"):
        mesh = f'<collision><geometry><mesh filename="{name}" scale="2 3 4"/></geometry></collision>'
        (shape,) = read_robot(written(tmp_path, f'<robot name="r"><link name="a">{MASS}{mesh}</link></robot>')).links[0].shapes
        assert shape.size == (2.0, 3.0, 4.0) and Path(shape.file) == tmp_path / "parts" / "m.obj"


def two(first: str = MASS, second: str = MASS, joint: str = 'type="continuous"', inside: str = "", more: str = "") -> str:
    return f"""<robot name="r"><link name="a">{first}</link><link name="b">{second}</link>
    <joint name="j" {joint}><parent link="a"/><child link="b"/>{inside}</joint>{more}</robot>"""


BACK = '<joint name="back" type="fixed"><parent link="b"/><child link="a"/></joint>'
TWICE = '<joint name="again" type="fixed"><parent link="a"/><child link="b"/></joint>'
SHAPE = "<collision><geometry>{}</geometry></collision>"


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (two(more=BACK), UserError, r"link 'a': the joints form a cycle \(.*'j'.*"),
        (two(more=TWICE), UserError, r"link 'b': expected one joint that carries it, got 'j' and 'again'"),
        (two(second=MASS.replace('value="1"', 'value="-1"')), UserError, r"link 'b': mass: expected a number >= 0, got -1"),
        (two(second=""), UserError, r"joint 'j': what moves with link 'b' has no mass"),
        (two(second=MASS.replace('"1"', '"0"').replace('"0"', '"1"', 1)), UserError, r"joint 'j'.*'b' has no inertia"),
        (two(second=MASS.replace("<inertia ", "<inertias ")), UserError, r"link 'b': expected <inertia>"),
        (two(second=MASS.replace('ixy="0"', "")), UserError, r"link 'b': ixy of <inertia>: expected a number, got None"),
        (
            two(second=MASS + SHAPE.format('<sphere radius="0"/>')),
            UserError,
            r"link 'b': shape 0 \(sphere\): expected a volume",
        ),
        (two(second=MASS + SHAPE.format('<box size="1 nan 1"/>')), UserError, r"link 'b': size of <box>: NaN"),
        (two(second=MASS + SHAPE.format('<box size="1 1"/>')), UserError, r"link 'b': size of <box>: expected 3 numbers"),
        (two(second=MASS + SHAPE.format("<cone/>")), Unsupported, r"link 'b': <cone>"),
        (
            two(second=MASS + SHAPE.format('<mesh filename="package://x/gone.stl"/>')),
            UserError,
            r"link 'b': mesh 'package://x/gone.stl': expected a file",
        ),
        (two(joint='type="planar"'), Unsupported, r"joint 'j': type: expected .*, got 'planar'"),
        (two(inside='<axis xyz="0 0 0"/>'), UserError, r"joint 'j': axis"),
        (two(joint='type="revolute"', inside='<limit lower="2" upper="1"/>'), UserError, r"joint 'j': expected lower <= upper"),
        (two(more='<link name="c"/>'), UserError, r"one link without a parent, got 'a', 'c'"),
        (two(more='<link name="a"/>'), UserError, r"link 'a': expected names that differ, got this one 2 times"),
        (two().replace('<child link="b"/>', '<child link="z"/>'), UserError, r"'z'|one link without a parent"),
        (two().replace('name="r"', ""), UserError, r"<robot>: expected a name"),
    ],
)
def test_bad_input_is_one_line(text: str, error: type[Exception], message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message) as caught:
        read_robot(written(tmp_path, text))
    assert "\n" not in str(caught.value) and "robot.urdf" in str(caught.value)
