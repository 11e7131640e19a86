"""physics/mjcf_import.py against MuJoCo itself: masses, centres, inertias, poses, anchors and axes of the compiled model."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from dvc.errors import Unsupported, UserError
from physics.robot_import import read_robot
from physics.robot_mass import inertial_of_link
from physics.robot_spec import RobotSpec
from tests.physics.robot_poses import poses

mujoco = pytest.importorskip("mujoco")

GYMNASIUM = ["ant", "half_cheetah", "hopper", "walker2d"]
EXACT = 1e-6

# Every kind of joint, anchors off the body's origin, several joints in one body, `ref`, classes, degrees, Euler angles.
ZOO = """<mujoco model="zoo"><compiler angle="degree"/>
<option gravity="0 0.1 -3"/>
<default><joint damping="0.3" armature="0.01"/><geom density="700" friction="0.6 0.1 0.1"/>
  <default class="stiff"><joint stiffness="4" springref="10"/></default></default>
<worldbody>
  <geom name="floor" type="plane" size="1 1 1" pos="0 0 -0.1" euler="0 5 0"/>
  <geom name="step" type="box" size="0.1 0.2 0.3" pos="3 0 0"/>
  <body name="drone" pos="1 2 3" euler="10 20 30"><freejoint name="fly"/>
    <geom type="ellipsoid" size="0.1 0.2 0.3" pos="0.1 0 0" euler="0 30 0"/><geom type="box" size="0.1 0.2 0.05" mass="0.7"/>
    <body name="arm" pos="0.1 0.2 0.3" euler="40 0 0">
      <joint name="slide" type="slide" axis="1 1 0" pos="0.2 0 0" ref="0.3" range="-1 2" frictionloss="0.2"/>
      <joint name="first" class="stiff" axis="0 1 1" pos="0.1 0.2 0.3" ref="25" range="-50 80"/>
      <joint name="second" axis="1 0 0.5" pos="-0.3 0 0.1"/>
      <geom type="capsule" fromto="0 0 0 0.4 0.1 0" size="0.05"/>
      <body name="hand" pos="0 0 0.4"><joint name="ball" type="ball" pos="0 0.1 0"/>
        <geom type="cylinder" size="0.05 0.2" euler="0 90 0" contype="0" conaffinity="0"/>
        <body name="tip" pos="0 0.3 0"><geom size="0.04" contype="4" conaffinity="2"/></body>
      </body>
    </body>
  </body>
  <body name="given" pos="0 0 1"><inertial mass="2" pos="0.1 0 0" fullinertia="0.2 0.3 0.25 0.01 0.02 0.03"/>
    <joint name="swing" pos="0 0 0.5" ref="15"/><geom size="0.1"/></body>
</worldbody>
<actuator>
  <motor name="torque" joint="first" gear="20" ctrlrange="-1 2" forcerange="-3 3"/>
  <position name="servo" joint="second" kp="30" kv="2" gear="-2" ctrlrange="-1 4"/>
  <velocity name="speed" joint="slide" kv="5"/>
  <general name="same" joint="swing" gaintype="fixed" gainprm="7" biastype="none"/>
  <motor name="on_ball" joint="ball"/>
  <position name="slow" joint="swing" kp="1" timeconst="0.2"/>
</actuator></mujoco>"""


def written(folder: Path, text: str) -> Path:
    path = folder / "robot.xml"
    path.write_text(text)
    return path


def compiled(path: Path):
    """MuJoCo's own model; from_xml_path would leave a log of its warnings in the folder that the tests run in."""
    return mujoco.MjSpec.from_file(str(path)).compile()


def body_frame(spec: RobotSpec, frames: dict, name: str, anchor: np.ndarray) -> np.ndarray:
    frame = frames[name].copy()
    frame[:3, 3] -= frame[:3, :3] @ anchor
    return frame


def agree(path: Path, seed: int) -> None:
    """Compare a description with the model at ten random configurations."""
    spec = read_robot(path)
    model = compiled(path)
    state = mujoco.MjData(model)
    draw = np.random.default_rng(seed)
    links = {link.name: link for link in spec.links}
    joints = {joint.name: joint for joint in spec.joints}
    total = 0.0
    last_anchor = {0: np.zeros(3)}
    for body in range(1, model.nbody):
        numbers = range(model.body_jntadr[body], model.body_jntadr[body] + model.body_jntnum[body])
        turning = bool(numbers) and model.jnt_type[numbers[-1]] in (1, 3)
        last_anchor[body] = model.jnt_pos[numbers[-1]] if turning else np.zeros(3)
        # The name of a body without one is the importer's.
        own = inertial_of_link(links[model.body(body).name or f"body{body}"])
        turn = Rotation.from_quat(np.roll(model.body_iquat[body], -1)).as_matrix()
        inertia = turn @ np.diag(model.body_inertia[body]) @ turn.T
        np.testing.assert_allclose(own.mass, model.body_mass[body], rtol=EXACT)
        np.testing.assert_allclose(own.center_of_mass, model.body_ipos[body] - last_anchor[body], atol=EXACT)
        np.testing.assert_allclose(own.inertia, inertia, atol=EXACT * np.trace(inertia))
        total += own.mass
    assert total == pytest.approx(model.body_mass.sum(), rel=EXACT)
    assert (
        sum(link.inertial is not None and link.inertial.mass == 0.0 for link in spec.links) == len(spec.links) - model.nbody + 1
    )

    for _ in range(10):
        state.qpos[:] = draw.uniform(-1.5, 1.5, model.nq)
        coordinates: dict[str, object] = {}
        for number in range(model.njnt):
            joint, address = joints[model.joint(number).name], model.jnt_qposadr[number]
            if joint.kind in ("revolute", "prismatic"):
                coordinates[joint.name] = state.qpos[address]
                continue
            at = address if joint.kind == "spherical" else address + 3
            state.qpos[at : at + 4] /= np.linalg.norm(state.qpos[at : at + 4])
            turn = Rotation.from_quat(np.roll(state.qpos[at : at + 4], -1))
            if joint.kind == "free":  # zero is the pose of the file
                drawn = Rotation.from_quat(joint.rotation)
                coordinates[joint.name] = (drawn.inv().apply(state.qpos[address:at] - joint.position), drawn.inv() * turn)
            else:
                coordinates[joint.name] = turn
        mujoco.mj_forward(model, state)
        frames = poses(spec, coordinates)
        for body in range(1, model.nbody):
            frame = body_frame(spec, frames, model.body(body).name or f"body{body}", last_anchor[body])
            np.testing.assert_allclose(frame[:3, 3], state.xpos[body], atol=EXACT)
            np.testing.assert_allclose(frame[:3, :3], state.xmat[body].reshape(3, 3), atol=EXACT)
        for number in range(model.njnt):
            joint = joints[model.joint(number).name]
            child = frames[joint.child]
            if joint.kind in ("revolute", "prismatic"):
                np.testing.assert_allclose(child[:3, :3] @ joint.axis, state.xaxis[number], atol=EXACT)
            if joint.kind in ("revolute", "spherical"):
                np.testing.assert_allclose(child[:3, 3], state.xanchor[number], atol=EXACT)
        shapes = {}
        for body in range(1, model.nbody):
            name = model.body(body).name or f"body{body}"
            for shape, geom in zip(links[name].shapes, range(model.body_geomadr[body], model.ngeom)):
                shapes[geom] = frames[name] @ np.append(shape.position, 1.0)
                turn = frames[name][:3, :3] @ Rotation.from_quat(shape.rotation).as_matrix()
                np.testing.assert_allclose(turn, state.geom_xmat[geom].reshape(3, 3), atol=EXACT)
                np.testing.assert_allclose(shapes[geom][:3], state.geom_xpos[geom], atol=EXACT)


@pytest.mark.data(*(f"gymnasium_{name}" for name in GYMNASIUM))
@pytest.mark.filterwarnings("ignore:.*settotalmass")
@pytest.mark.parametrize("name", GYMNASIUM)
def test_robots_of_gymnasium(name: str) -> None:
    from dvc import data

    path = data.find(f"gymnasium_{name}", download=False)
    agree(path, 1)
    spec = read_robot(f"data:gymnasium_{name}")
    real = [link for link in spec.links if link.inertial is None or link.inertial.mass]
    assert all(link.inertial is None for link in real), "masses come from shapes and densities"
    assert len(spec.ground) == 1 and spec.ground[0].kind == "plane" and spec.actuators


def test_zoo_of_joints(tmp_path: Path) -> None:
    agree(written(tmp_path, ZOO), 2)


def test_zoo_of_values(tmp_path: Path) -> None:
    spec = read_robot(written(tmp_path, ZOO))
    links, joints = {link.name: link for link in spec.links}, {joint.name: joint for joint in spec.joints}
    assert spec.name == "zoo" and spec.gravity == (0.0, 0.1, -3.0)
    kinds = [joint.kind for joint in spec.joints]
    assert kinds == ["free", "prismatic", "revolute", "revolute", "spherical", "fixed", "revolute"]
    first = joints["first"]
    np.testing.assert_allclose([first.lower, first.upper, first.rest, first.start], np.deg2rad([-50.0, 80.0, 10.0, 25.0]))
    assert (first.stiffness, first.damping, first.armature) == (4.0, 0.3, 0.01)
    assert (joints["slide"].friction, joints["slide"].lower, joints["slide"].upper) == (0.2, -1.0, 2.0)
    assert joints["second"].lower is None and joints["second"].stiffness == 0.0
    assert links["given"].inertial.mass == 2.0 and links["drone"].inertial is None
    assert [shape.kind for shape in links["drone"].shapes] == ["ellipsoid", "box"]
    assert links["drone"].shapes[1].density == pytest.approx(0.7 / (8 * 0.1 * 0.2 * 0.05))
    assert links["arm"].shapes[0].density == pytest.approx(700.0) and links["arm"].shapes[0].friction == 0.6
    assert not links["hand"].shapes[0].collides and (links["tip"].shapes[0].category, links["tip"].shapes[0].mask) == (4, 2)
    assert [shape.kind for shape in spec.ground] == ["plane", "box"]
    by_name = {actuator.name: actuator for actuator in spec.actuators}
    torque, servo = by_name["torque"], by_name["servo"]
    assert (torque.kind, torque.gear, torque.lower, torque.upper, torque.limit) == ("torque", 20.0, -1.0, 2.0, 60.0)
    assert (servo.kind, servo.kp, servo.kd, servo.lower, servo.upper) == ("position", 120.0, 8.0, -2.0, 0.5)
    assert (by_name["speed"].kind, by_name["speed"].kd) == ("velocity", 5.0)
    assert (by_name["same"].kind, by_name["same"].gear) == ("torque", 7.0)
    text = "\n".join(spec.not_understood)
    assert "on_ball" in text and "slow" in text and "on_ball" not in by_name and "slow" not in by_name


def test_torque_of_actuators_is_mujocos(tmp_path: Path) -> None:
    path = written(tmp_path, ZOO)
    spec, model = read_robot(path), compiled(path)
    model.actuator_forcelimited[:] = 0
    state = mujoco.MjData(model)
    state.qpos[:7] = [1, 2, 3, 1, 0, 0, 0]
    draw = np.random.default_rng(3)
    for actuator in spec.actuators:
        number, joint = model.actuator(actuator.name).id, model.joint(actuator.joint)
        q, rate, control = draw.uniform(-0.4, 0.4, 3)
        state.ctrl[:], state.qvel[:] = 0.0, 0.0
        state.qpos[joint.qposadr[0]], state.qvel[joint.dofadr[0]] = q, rate
        gear = model.actuator_gear[number][0]
        # A servo's control is about the joint's own coordinate here, and gear times that in MuJoCo.
        state.ctrl[number] = control if actuator.kind == "torque" else control * gear
        mujoco.mj_forward(model, state)
        own = {
            "torque": actuator.gear * control,
            "position": actuator.kp * (control - q) - actuator.kd * rate,
            "velocity": actuator.kd * (control - rate),
        }[actuator.kind]
        force = state.actuator_force[number] * gear
        assert own == pytest.approx(force, rel=1e-9), actuator.name


LEFT_OUT = """<mujoco><option wind="1 0 0"><flag contact="disable"/></option>
<custom><numeric name="n" data="1"/></custom>
<worldbody><light pos="0 0 1"/>
  <body name="a" gravcomp="1"><joint name="j" margin="0.1"/>
    <geom name="g" size="0.1" condim="4" solref="0.02 1"/><site name="s"/></body>
  <body name="b"><joint name="k"/><geom size="0.1"/></body>
</worldbody>
<contact><exclude body1="a" body2="b"/></contact>
<tendon><fixed name="t"><joint joint="j" coef="1"/></fixed></tendon>
<equality><joint joint1="j" joint2="k"/></equality>
<actuator><motor name="pull" tendon="t"/></actuator>
<sensor><jointpos joint="j"/><jointpos joint="k"/></sensor>
<keyframe><key qpos="0 0"/></keyframe></mujoco>"""


def test_what_is_left_out_is_listed(tmp_path: Path) -> None:
    spec = read_robot(written(tmp_path, LEFT_OUT))
    lines = list(spec.not_understood)
    for start in (
        "<option> wind: 1",
        "<flag> contact: 1",
        "<custom> numeric: 1 (n)",
        "<light>: 1",
        "<body> gravcomp: 1 (a)",
        "<joint> margin: 1 (j)",
        "<geom> condim: 1 (g)",
        "<geom> solref: 1 (g)",
        "<site>: 1 (s)",
        "<contact> exclude: 1",
        "<tendon> fixed: 1 (t)",
        "<equality> joint: 1",
        "<sensor> jointpos: 2",
        "<keyframe> key: 1",
        "<actuator> on a tendon, site or body: 1 (pull)",
    ):
        assert sum(line.startswith(start) for line in lines) == 1, (start, lines)
    assert not spec.actuators and all("\n" not in line for line in lines)


def test_mesh_lies_where_its_file_says(tmp_path: Path) -> None:
    corners = np.array([[0, 0, 0], [0.3, 0, 0], [0, 0.2, 0], [0, 0, 0.5]])
    faces = "f 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"
    (tmp_path / "solid.obj").write_text("".join("v {} {} {}\n".format(*corner) for corner in corners) + faces)
    text = """<mujoco><asset><mesh name="solid" file="solid.obj" scale="2 1 1"/></asset><worldbody>
    <body name="a"><joint name="j" pos="0.1 0 0"/><geom type="mesh" mesh="solid" pos="1 2 3" euler="10 20 30"/></body>
    </worldbody></mujoco>"""
    path = written(tmp_path, text)
    agreed, model = read_robot(path), compiled(path)
    (shape,) = agreed.links[0].shapes
    assert shape.kind == "mesh" and shape.size == (2.0, 1.0, 1.0) and not shape.massive and Path(shape.file).is_file()
    own = Rotation.from_quat(shape.rotation).apply(corners * shape.size) + shape.position + [0.1, 0.0, 0.0]
    turn = Rotation.from_quat(np.roll(model.geom_quat[0], -1))
    theirs = turn.apply(model.mesh_vert) + model.geom_pos[0]
    for corner in own:
        assert np.abs(theirs - corner).max(axis=1).min() < EXACT
    assert agreed.links[0].inertial.mass == pytest.approx(model.body_mass[1])


def bad(body: str, extra: str = "") -> str:
    return f'<mujoco>{extra}<worldbody>\n<body name="arm">{body}</body></worldbody></mujoco>'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (bad('<joint name="j"/>\n<foo/>\n<geom size="1"/>'), r"body 'arm'.*unrecognized element.*foo"),
        (bad('<joint name="j"/>\n<geom size="1" mass="-1"/>'), r"body 'arm'.*negative"),
        (bad('<joint name="j"/><inertial mass="-1" pos="0 0 0" diaginertia="1 1 1"/>'), r"'arm'.*mass"),
        (bad('<joint name="j"/>'), r"'arm'.*mass and inertia"),
        (bad('<joint name="j"/>\n<geom size="0"/>'), r"body 'arm'.*size 0 must be positive"),
        (bad('<joint name="j" damping="nan"/><geom size="1"/>'), r"joint 'j': damping of <joint>: NaN"),
        (bad('<joint name="j" axis="0 0 0"/><geom size="1"/>'), r"'j'.*axis"),
        (bad('<joint name="j"/><joint name="j"/><geom size="1"/>'), r"repeated name 'j'"),
        (
            bad('<joint/><geom type="mesh" mesh="m"/>', '<asset><mesh name="m" file="gone.stl"/></asset>'),
            r"link 'arm': mesh 'm': expected a file, got nothing at .*gone\.stl",
        ),
    ],
)
def test_bad_input_is_one_line(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as caught:
        read_robot(written(tmp_path, text))
    assert "\n" not in str(caught.value) and "robot.xml" in str(caught.value)


def test_mesh_without_a_file_is_unsupported(tmp_path: Path) -> None:
    points = '<asset><mesh name="m" vertex="0 0 0 1 0 0 0 1 0 0 0 1"/></asset>'
    with pytest.raises(Unsupported, match=r"'arm'.*without a file"):
        read_robot(written(tmp_path, bad('<joint/><geom type="mesh" mesh="m"/>', points)))
