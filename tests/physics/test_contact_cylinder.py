"""Cylinders: depth of the lowest point, rolling, standing and lying on others, gradients."""

import math

import pytest
import torch
from torch import Tensor

from dvc.errors import Unsupported
from physics.contact_scene import ContactScene, Shape
from tests.physics.contact_scenes import GROUND, ONE, free_state, rest_depth, rollout
from tests.physics.test_contact_scene import TWO
from tests.physics.test_contact_step import close, gradient_rows, leaf
from tests.physics.trees import plain_linkage

SIZE = (0.1, 0.06)  # half length, radius
LYING = [0.0, 0.5**0.5, 0.0, 0.5**0.5]  # z goes along x
BODY = plain_linkage(ONE, inertia=(4e-3 * torch.eye(3))[None, None])
PAIR = plain_linkage(TWO, mass=torch.ones(1, 2), inertia=(4e-3 * torch.eye(3)).expand(1, 2, 3, 3))
SCENE = ContactScene(ONE, [GROUND, Shape("cylinder", 0, SIZE)])


def tilted(angle: Tensor, spin: float = 0.3) -> Tensor:
    """Turned by `spin` about its axis, then by `angle` from the vertical, (world, 4)."""
    c, s = torch.cos(0.5 * angle), torch.sin(0.5 * angle)
    a, b = math.cos(0.5 * spin), math.sin(0.5 * spin)
    return torch.stack([s * a, -s * b, c * b, c * a], dim=1)


def test_a_tilted_cylinder_is_as_deep_as_its_lowest_point():
    angle = torch.linspace(0.2, 1.5, 14)
    depth, k, dt = 2e-3, 1e3, 1e-5
    height = SIZE[0] * torch.cos(angle) + SIZE[1] * torch.sin(angle) - depth
    state = free_state(torch.stack([0 * angle, 0 * angle, height], 1), torch.zeros(14, 6), tilted(angle))
    motion = rollout(SCENE, dt, dt, 1)(state, BODY, SCENE.numbers(stiffness=k, friction=0.0), torch.zeros(1, 3))
    force = motion.rates[:, -1, 2] / dt
    upper = (depth - 2 * SIZE[0] * torch.cos(angle)).clamp_min(0.0)  # the other rim, where it almost lies
    assert torch.allclose(force, k * (depth**1.5 + upper**1.5), rtol=1e-2)


def test_it_slips_until_it_rolls_and_rolls_without_a_bump():
    """v_f = 2 v0 / 3 for I = m r^2 / 2; its height stays."""
    v0, zero = leaf(1.0), torch.zeros(1)
    inertia = torch.diag(torch.tensor([0.004, 0.004, 0.5 * SIZE[1] ** 2]))[None, None]
    depth = rest_depth(9.81 / 2, 1e6)
    state = free_state(
        torch.tensor([[0.0, 0.0, SIZE[1] - depth]]), torch.stack([zero, v0, zero, zero, zero, zero], 1), torch.tensor([LYING])
    )
    motion = rollout(SCENE, 1.5, 1e-3)(state, plain_linkage(ONE, inertia=inertia), SCENE.numbers(stiffness=1e6, friction=0.3))
    close(motion.rates[0, -1, 1], 2.0 / 3.0, 5e-3)
    motion.rates[0, -1, 1].backward()
    close(v0.grad, 2.0 / 3.0, 1e-2)
    turned = float(motion.coordinates[0, -1, 1].detach()) / SIZE[1]
    assert turned > 12.0  # twice around
    height = motion.coordinates[0, 20:, 2].detach()
    assert float(height.max() - height.min()) < 1e-6


@pytest.mark.parametrize(
    ("below", "above", "height", "contacts"),
    [
        (Shape("box", 0, (0.2, 0.2, 0.05)), Shape("cylinder", 1, SIZE), 0.2, 8),
        (Shape("box", 0, (0.2, 0.2, 0.05)), Shape("cylinder", 1, SIZE, rotation=tuple(LYING)), 0.16, 2),
        (Shape("box", 0, (0.05, 0.2, 0.05)), Shape("cylinder", 1, SIZE, rotation=tuple(LYING)), 0.16, 2),  # over two edges
        (Shape("cylinder", 0, (0.05, 0.2)), Shape("sphere", 1, (0.1,)), 0.2, 1),
        (Shape("cylinder", 0, (0.05, 0.2)), Shape("cylinder", 1, SIZE), 0.2, 8),
        (Shape("cylinder", 0, (0.05, 0.2)), Shape("box", 1, (0.06, 0.06, 0.1)), 0.2, 4),
        (Shape("cylinder", 0, (0.05, 0.2)), Shape("capsule", 1, (0.1, 0.06), rotation=tuple(LYING)), 0.16, 2),
    ],
)  # fmt: skip
def test_bodies_rest_on_bodies(below, above, height, contacts):
    scene = ContactScene(TWO, [GROUND, below, above])
    place = torch.tensor([[0.0, 0.0, 0.05, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, height, 0.0, 0.0, 0.0, 1.0]])
    state = free_state(place[:, :3], torch.zeros(1, 12))._replace(position=place)
    motion = rollout(scene, 2.0, 1e-3)(state, PAIR, scene.numbers(stiffness=1e5, dissipation=1.0))
    end = motion.coordinates[0, -1]
    apart = float(end[9] - end[2])
    assert abs(apart - (height - 0.05 - rest_depth(9.81 / contacts, 1e5))) < 3e-5
    assert float((end[7:9] - end[:2]).abs().max()) < 1e-4
    assert float(motion.rates[0, -1].abs().max()) < 1e-3


def tumbled(values: dict[str, Tensor]) -> Tensor:
    """A cylinder falls beside and on a free box."""
    worlds = values["first"].shape[0]
    scene = ContactScene(TWO, [GROUND, Shape("box", 0, (0.1, 0.1, 0.05)), Shape("cylinder", 1, SIZE)])
    unit = torch.nn.functional.normalize
    position = torch.cat([values["first"], torch.tensor([[0.0, 0.0, 0.0, 1.0]]).expand(worlds, 4), values["second"],
                          unit(values["turn"], dim=1)], 1)  # fmt: skip
    state = free_state(values["first"], values["rates"])._replace(position=position)
    numbers = scene.numbers(
        size=[None, values["box"], values["size"]], stiffness=values["stiffness"][:, 0] * 1e4,
        friction=values["friction"][:, 0], width=0.05,
    )  # fmt: skip
    linkage = plain_linkage(TWO, mass=values["mass"], inertia=4e-3 * torch.eye(3).expand(worlds, 2, 3, 3))
    weights = torch.sin(torch.arange(14.0) + 1.0)
    return (rollout(scene, 0.1, 1e-3)(state, linkage, numbers).coordinates[:, -1] * weights).sum(-1)


TUMBLED = {
    "first": [0.0, 0.0, 0.049], "second": [0.02, 0.03, 0.2], "rates": [0.0] * 6 + [0.3, 0.2, -0.8, 1.0, -0.5, 0.7],
    "box": [0.1, 0.1, 0.05], "size": [0.1, 0.06], "mass": [1.0, 0.7], "stiffness": [0.5], "friction": [0.4],
}  # fmt: skip


@pytest.mark.parametrize("turn", [[0.04, 0.02, 0.1, 1.0], [0.3, 0.4, 0.1, 0.6], [0.02, 0.7, 0.02, 0.7]])
def test_gradients_agree_with_differences(turn):
    values = TUMBLED | {"turn": turn}
    if turn[1] > 0.5:
        values["second"] = [0.02, 0.03, 0.162]
    rows = gradient_rows(tumbled, values, list(values))
    assert all(row.passed for row in rows), [row for row in rows if not row.passed]
    assert sum("excluded" in row.note for row in rows) <= 0.3 * len(rows)
    assert sum(row.analytic != 0.0 for row in rows) > 0.8 * len(rows)


def test_what_has_no_contact_is_named():
    with pytest.raises(Unsupported, match="contact between cylinder and ellipsoid"):
        ContactScene(TWO, [Shape("ellipsoid", 0, (0.1, 0.1, 0.1)), Shape("cylinder", 1, SIZE)])
