"""The static tree: order, and one clear line for every tree that is none."""

import dataclasses
import math

import pytest
import torch

from dvc.errors import Unsupported, UserError
from physics.articulation import FREE, REVOLUTE, SPHERICAL, check_linkage, tables, topology
from physics.robot_spec import ActuatorSpec, JointSpec, LinkSpec, RobotSpec
from tests.physics.trees import plain_linkage, random_linkage, tree_of


def robot(joints, links="abc", actuators=()):
    return RobotSpec("arm", tuple(LinkSpec(name) for name in links), tuple(joints), tuple(actuators))


def joint(name, parent, child, kind="revolute", **fields):
    return JointSpec(name, kind, parent, child, **fields)


GOOD = [joint("j1", "c", "a"), joint("j2", None, "c", "free"), joint("j3", "a", "b", "spherical")]


def test_parents_come_first_and_coordinates_follow_the_order():
    tree = topology(robot(GOOD, actuators=[ActuatorSpec("m", "j1", "position")]))
    assert tree.links == ("c", "a", "b") and tree.parents == (-1, 0, 1) and tree.joints == ("j2", "j1", "j3")
    assert tree.kinds == (FREE, REVOLUTE, SPHERICAL)
    assert tree.first_coordinates == (0, 7, 8) and tree.first_rates == (0, 6, 7)
    assert (tree.coordinate_count, tree.rate_count) == (12, 10)
    assert tree.actuator_links == (1,) and tree.actuator_kinds == (1,)
    rows = tables(tree)
    assert rows.tree.tolist() == [[0, 1, 0, 0], [1, 2, 7, 6], [2, 4, 8, 7]]
    assert rows.dofs[:, 1].tolist() == [1, 1, 1, 0, 0, 0, 0, 0, 0, 0] and rows.drives.tolist() == [[1, 1]]


@pytest.mark.parametrize(
    ("joints", "match"),
    [
        (
            [joint("j1", "b", "a"), joint("j2", "a", "b"), joint("j3", None, "c")],
            r"link 'a': the joints form a cycle \('j2' -> 'j1'\)",
        ),
        (
            [joint("j1", "a", "a"), joint("j2", None, "b"), joint("j3", None, "c")],
            r"link 'a': the joints form a cycle \('j1'\)",
        ),
        ([*GOOD, joint("j4", None, "b")], "link 'b': expected one joint that carries it, got 'j3' and 'j4'"),
        (GOOD[:2], "link 'b': expected a joint that carries it"),
        ([*GOOD[:2], joint("j3", "x", "b")], "joint 'j3': parent: expected a link, got 'x'"),
        ([*GOOD[:2], joint("j3", "a", "b", "planar")], "joint 'j3': kind: expected one of fixed, free.*got 'planar'"),
        ([*GOOD[:2], joint("j1", "a", "b")], "joint 'j1': expected names that differ"),
        ([joint(f"j{n}", None, n, "fixed") for n in "abc"], "at least one joint that moves"),
    ],
)
def test_what_is_no_tree_is_named(joints, match):
    with pytest.raises(UserError, match=match) as caught:
        topology(robot(joints))
    assert "\n" not in str(caught.value)


def test_a_free_joint_below_a_link_is_unsupported():
    with pytest.raises(Unsupported, match="joint 'j3': a free joint hangs on the world, got the parent 'a'"):
        topology(robot([*GOOD[:2], joint("j3", "a", "b", "free")]))


@pytest.mark.parametrize(
    ("drive", "error", "match"),
    [
        (ActuatorSpec("m", "x"), UserError, "actuator 'm': joint: expected one of j1, j2, j3, got 'x'"),
        (
            ActuatorSpec("m", "j1", "muscle"),
            UserError,
            "actuator 'm': kind: expected one of torque, position, velocity, got 'muscle'",
        ),
        (ActuatorSpec("m", "j3"), Unsupported, "actuator 'm': .* got the spherical joint 'j3'"),
    ],
)
def test_a_wrong_actuator_is_named(drive, error, match):
    with pytest.raises(error, match=match):
        topology(robot(GOOD, actuators=[drive]))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"mass": torch.tensor([[1.0, -0.1]])}, "link 'link 1' has the mass -0.1 kg"),
        ({"mass": torch.tensor([[1.0, float("nan")]])}, "link 'link 1' has the mass nan kg"),
        ({"mass": torch.tensor([[1.0, 0.0]])}, "joint 'joint 1' moves link 'link 1' and what hangs on it, which have no mass"),
        ({"damping": torch.tensor([[0.0, -1.0]])}, "joint 'joint 1': damping -1, expected at least 0"),
        ({"position": torch.full((1, 2, 3), math.nan)}, "joint 'joint 0': position: expected finite"),
        ({"inertia": torch.full((1, 2, 3, 3), math.inf)}, "link 'link 0': inertia: expected finite"),
        ({"friction": torch.ones(1, 2), "friction_width": torch.zeros(1, 2)}, "friction_width: expected a number above 0"),
        ({"lower": torch.tensor([[0.0, 2.0]]), "upper": torch.ones(1, 2)}, "joint 'joint 1': expected lower <= upper"),
        ({"position": torch.zeros(1, 3, 3)}, r"position: expected shape \(world, 2, 3\), got \(1, 3, 3\)"),
        ({"armature": torch.zeros(1, 3)}, r"armature: expected shape \(world, 2\), got \(1, 3\)"),
    ],
)
def test_numbers_that_cannot_be_stepped_are_named(change, match):
    tree = tree_of([REVOLUTE, REVOLUTE], [-1, 0])
    with pytest.raises(UserError, match=match):
        check_linkage(tree, plain_linkage(tree, **change))


def test_a_massless_link_may_carry_others_and_an_armature_may_stand_for_mass():
    tree = tree_of([REVOLUTE, REVOLUTE], [-1, 0])
    check_linkage(tree, plain_linkage(tree, mass=torch.tensor([[0.0, 1.0]])))
    check_linkage(tree, plain_linkage(tree, mass=torch.tensor([[1.0, 0.0]]), armature=torch.tensor([[0.0, 0.1]])))
    check_linkage(tree, random_linkage(tree, 0, worlds=3))


def test_the_description_is_not_changed():
    spec = robot(GOOD)
    before = dataclasses.asdict(spec)
    topology(spec)
    assert dataclasses.asdict(spec) == before


def test_rates_on_the_way_to_the_root_pass_over_fixed_links_and_come_in_runs():
    tree = tree_of([1, 0, 2, 2, 4], [-1, 0, 1, 0, 2])
    rows = tables(tree).dofs
    assert rows[:, 2].tolist() == [-1, 0, 1, 2, 3, 4, 5, 5, 6, 8, 9]
    assert rows[:, 3].tolist() == [0, 0, 0, 0, 0, 0, 0, 7, 8, 8, 8]
