"""Shapes of robots become shapes that touch."""

from dataclasses import replace

import pytest
import torch

from dvc.errors import Unsupported
from physics.articulation import topology
from physics.contact_scene import ContactScene
from physics.robot import Robot
from physics.robot_contacts import robot_shapes
from physics.robot_import import read_robot
from physics.robot_spec import JointSpec, LinkSpec, RobotSpec, ShapeSpec
from tests.physics.contact_scenes import rollout

BALL = ShapeSpec("sphere", (0.05,), position=(0.1, 0.0, 0.0), friction=0.7)
ROD = ShapeSpec("capsule", (0.02, 0.1), collides=False)
JOINTS = (JointSpec("root", "free", None, "trunk"), JointSpec("hip", "revolute", "trunk", "leg", axis=(0.0, 1.0, 0.0)))


def test_a_robot_falls_on_its_shapes():
    links = (LinkSpec("trunk", (ShapeSpec("box", (0.1, 0.1, 0.05)),)), LinkSpec("leg", (BALL, ROD)))
    spec = RobotSpec("hopper", links, JOINTS, ground=(ShapeSpec("plane"),))
    tree = topology(spec)
    shapes, friction = robot_shapes(spec, tree)
    assert [shape.kind for shape in shapes] == ["half_space", "box", "sphere"] and friction == (None, None, 0.7)
    robot = Robot(spec=spec)
    scene = ContactScene(robot.topology, shapes)
    state = robot.start()
    state = state._replace(position=state.position + torch.tensor([[0.0, 0.0, 0.3] + [0.0] * 5]))
    motion = rollout(scene, 1.0, 1e-3)(state, robot(), scene.numbers(stiffness=1e6))
    assert 0.04 < float(motion.coordinates[0, -1, 2]) < 0.12
    assert float(motion.rates[0, -1].abs().max()) < 0.5


def test_a_mesh_that_collides_is_named():
    links = (LinkSpec("trunk", (ShapeSpec("mesh", (1.0, 1.0, 1.0), file="trunk.obj"),)), LinkSpec("leg", (BALL,)))
    spec = RobotSpec("hopper", links, JOINTS)
    with pytest.raises(Unsupported, match="link 'trunk': a mesh that collides"):
        robot_shapes(spec, topology(spec))


@pytest.mark.data("newton_quadruped")
def test_a_quadruped_with_cylinders_falls_and_lies():
    """Without a drive, and its joints without damping: the trunk, a cylinder, lies down, the legs still swing."""
    spec = replace(read_robot("data:newton_quadruped", base="free"), ground=(ShapeSpec("plane"),))
    robot = Robot(spec=spec)
    shapes, _ = robot_shapes(spec, robot.topology)
    assert sum(shape.kind == "cylinder" for shape in shapes) >= 4
    scene = ContactScene(robot.topology, shapes)
    state = robot.start()
    state = state._replace(position=state.position + torch.tensor([[0.0, 0.0, 0.5] + [0.0] * (state.position.shape[1] - 3)]))
    motion = rollout(scene, 1.5, 5e-4)(state, robot(), scene.numbers(stiffness=1e5, dissipation=1.0))
    assert bool(motion.coordinates.isfinite().all())
    assert 0.08 < float(motion.coordinates[0, -1, 2]) < 0.2
    assert float(motion.rates[0, -1, :6].abs().max()) < 1.0
