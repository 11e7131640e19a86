"""Pairs found through the hierarchy are those of all pairs, and so is the motion."""

import pytest
import torch

import physics.contact_step
from dvc.errors import UserError
from physics.contact_scene import ContactScene, Shape
from tests.physics.contact_scenes import GROUND, free_state, rollout
from tests.physics.trees import plain_linkage, tree_of

COUNT = 12
TREE = tree_of([1] * COUNT, [-1] * COUNT)
LINKAGE = plain_linkage(TREE, mass=torch.ones(1, COUNT), inertia=(0.004 * torch.eye(3)).expand(1, COUNT, 3, 3))
SCENE = ContactScene(TREE, [GROUND, *[Shape("sphere", i, (0.1,)) for i in range(COUNT)]])


def heap(worlds: int, **capacities: int):
    g = torch.Generator().manual_seed(0)
    place = 0.5 * torch.rand(worlds, COUNT, 3, generator=g) + torch.tensor([0.0, 0.0, 0.1])
    upright = torch.tensor([0.0, 0.0, 0.0, 1.0]).expand(worlds, COUNT, 4)
    position = torch.cat([place, upright], 2).reshape(worlds, 7 * COUNT).requires_grad_()
    state = free_state(place[:, 0], torch.zeros(worlds, 6 * COUNT))._replace(position=position)
    motion = rollout(SCENE, 0.1, 2.5e-3, 4, **capacities)(state, LINKAGE, SCENE.numbers(stiffness=1e4))
    motion.coordinates[:, -1].sum().backward()
    return motion, position.grad


def test_the_hierarchy_finds_the_same_contacts(monkeypatch):
    plain, plain_gradient = heap(3)
    assert int(plain.contacts.max()) > 5
    monkeypatch.setattr(physics.contact_step, "FEW", 2)
    physics.contact_step.contact_step.clear()
    found, gradient = heap(3)
    physics.contact_step.contact_step.clear()
    assert torch.equal(plain.contacts, found.contacts)
    assert torch.allclose(plain.coordinates, found.coordinates, atol=1e-4)
    assert torch.allclose(plain_gradient, gradient, rtol=2e-2, atol=1e-2 * float(plain_gradient.abs().max()))


def test_too_little_room_is_an_error():
    with pytest.raises(UserError, match="expected at most 3 pairs of shapes near each other"):
        heap(1, pair_capacity=3)
