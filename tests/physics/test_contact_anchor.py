"""Friction that sticks: no creep below the cone, sliding at it, stiffness, gradients through anchors and over chunks."""

import math

import numpy as np
import pytest
import torch
import warp as wp
from torch import Tensor

from dvc.errors import UserError
from physics.contact_anchor import ROUND, anchored_force, anchored_slope
from physics.contact_law import material_vector
from physics.contact_scene import ContactScene, Shape
from tests.physics.contact_scenes import GROUND, ONE, box_linkage, free_state, rollout
from tests.physics.test_contact_step import close, gradient_rows, leaf
from tests.physics.trees import plain_linkage

HALF = torch.tensor([[0.05, 0.05, 0.05]])
BOX = ContactScene(ONE, [GROUND, Shape("box", 0, (0.05, 0.05, 0.05))])

wp.init()


@wp.kernel
def law_kernel(
    gaps: wp.array(dtype=float), normals: wp.array(dtype=wp.vec3), velocities: wp.array(dtype=wp.vec3),
    stretches: wp.array(dtype=wp.vec3), forces: wp.array(dtype=wp.vec3), slopes: wp.array(dtype=wp.mat33),
):  # fmt: skip
    i = wp.tid()
    m = material_vector(1.0e4, 1.5, 0.5, 0.6, 1.0e-3)
    grip = wp.vec2(1.0e4, 5.0e-3)
    forces[i] = anchored_force(m, gaps[i], normals[i], velocities[i], 1.0e-3, stretches[i], grip)
    slopes[i] = anchored_slope(m, gaps[i], normals[i], velocities[i], 1.0e-3, 0.0, stretches[i], grip)


def twin(gap, n, u, z):
    h, mu, stiffness, damping, bend = 1e-3, 0.6, 1e4, 5e-3, 0.25
    d, y = -(gap + h * n @ u), 1.0 - 0.5 * n @ u
    f = 1e4 * max(d, 0.0) ** 1.5 * (y if y > bend else max(y + bend, 0.0) ** 2 / (4 * bend))
    if f == 0.0:
        return np.zeros(3)
    x = z + (h + damping) * u
    x = (x - n * (n @ x)) / (mu * f / stiffness)
    size, r = np.linalg.norm(x), float(ROUND)
    psi = size if size < 1 - r else 1.0 if size > 1 + r else size - (size - 1 + r) ** 2 / (4 * r)
    return n * f - mu * f * psi * x / size


def test_the_law_and_its_slope_agree_with_the_twin():
    rng = np.random.default_rng(0)
    count = 300
    n = rng.normal(size=(count, 3))
    n /= np.linalg.norm(n, axis=1, keepdims=True)
    gap, u, z = rng.uniform(-5e-3, 1e-3, count), 1e-2 * rng.normal(size=(count, 3)), 1e-5 * rng.normal(size=(count, 3))
    arrays = [
        wp.array(np.asarray(a, np.float32), dtype=t, device="cpu")
        for a, t in ((gap, float), (n, wp.vec3), (u, wp.vec3), (z, wp.vec3))
    ]
    force, slope = wp.zeros(count, dtype=wp.vec3, device="cpu"), wp.zeros(count, dtype=wp.mat33, device="cpu")
    wp.launch(law_kernel, count, arrays, [force, slope], device="cpu")
    for i in range(count):
        want = twin(gap[i], n[i], u[i], z[i])
        assert np.abs(force.numpy()[i] - want).max() <= 1e-4 * (np.abs(want).max() + 1e-3)
        numeric = [(twin(gap[i], n[i], u[i] + e, z[i]) - twin(gap[i], n[i], u[i] - e, z[i])) / 2e-8 for e in 1e-8 * np.eye(3)]
        assert np.abs(slope.numpy()[i] - np.stack(numeric, axis=1)).max() <= 5e-3 * np.abs(numeric).max() + 1e-3


def slope_motion(share: float, time: float, friction: float = 0.5, scene: ContactScene = BOX):
    angle = math.atan(share * friction)
    gravity = 9.81 * torch.tensor([[math.sin(angle), 0.0, -math.cos(angle)]])
    state = free_state(torch.tensor([[0.0, 0.0, 0.05]]), torch.zeros(1, 6))
    numbers = scene.numbers(stiffness=1e6, friction=friction)
    return rollout(scene, time, 1e-3, anchors=True)(state, box_linkage(HALF), numbers, gravity), angle


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_a_box_on_an_incline_does_not_creep(share):
    """Displaced while the load comes on, and then still for nine seconds."""
    motion, _ = slope_motion(share, 10.0)
    x = motion.coordinates[0, :, 0]
    assert abs(float(x[-1] - x[100])) < 1e-6
    assert 0.0 < float(x[-1]) < 1e-3
    assert float(motion.rates[0, 200:].abs().max()) < 1e-4
    load = 9.81 * math.sin(math.atan(share * 0.5))  # of a body of 1 kg on four contacts
    assert float(motion.anchors[0].norm(dim=-1).sum()) == pytest.approx(load / 1e4, rel=1e-2)


@pytest.mark.parametrize("share", [0.97, 1.01, 1.5])
def test_the_cone_holds(share):
    motion, angle = slope_motion(share, 3.0)
    gain = float(motion.rates[0, -1, 0] - motion.rates[0, -101, 0])
    want = max(9.81 * (math.sin(angle) - 0.5 * math.cos(angle)), 0.0)
    assert abs(gain - want) < 0.02 * abs(want) + 1e-5


def test_a_sliding_block_stops_where_coulomb_says_and_stays():
    v0, mu = leaf(2.0), leaf(0.4)
    zero = torch.zeros(1)
    state = free_state(torch.tensor([[0.0, 0.0, 0.05]]), torch.stack([v0, zero, zero, zero, zero, zero], 1))
    scene = ContactScene(ONE, [GROUND, Shape("box", 0, (0.1, 0.1, 0.02))])
    state = state._replace(position=torch.tensor([[0.0, 0.0, 0.02, 0.0, 0.0, 0.0, 1.0]]))
    numbers = scene.numbers(friction=mu, stiffness=1e7)
    motion = rollout(scene, 1.5, 1e-3, anchors=True)(state, box_linkage(torch.tensor([[0.1, 0.1, 0.02]])), numbers)
    x = motion.coordinates[0, -1, 0]
    x.backward()
    close(x, 2.0 / (0.4 * 9.81), 5e-3)
    close(v0.grad, 2.0 / (0.4 * 9.81), 1e-2)
    close(mu.grad, -2.0 / (0.4**2 * 9.81), 1e-2)
    assert float(motion.rates[0, -1].detach().abs().max()) < 1e-5


def test_a_motion_in_two_parts_is_the_whole():
    """Anchors go from one motion to the next, values and gradients."""
    angle = math.atan(0.4)
    gravity = 9.81 * torch.tensor([[math.sin(angle), 0.0, -math.cos(angle)]])

    def whole(mu: Tensor, parts: int) -> Tensor:
        state = free_state(torch.tensor([[0.0, 0.0, 0.0499]]), torch.zeros(1, 6))
        stretch, numbers = None, BOX.numbers(stiffness=1e5, friction=mu)
        for _ in range(parts):
            motion = rollout(BOX, 0.12 / parts, 1e-3, anchors=True)(
                state, box_linkage(HALF), numbers, gravity, grip=torch.tensor([[1e3, 5e-3]]), stretch=stretch
            )
            state = state._replace(position=motion.coordinates[:, -1], velocity=motion.rates[:, -1])
            stretch = motion.anchors
        return motion.coordinates[0, -1, 0]

    results = []
    for parts in (1, 3):
        mu = leaf(0.5)
        x = whole(mu, parts)
        x.backward()
        results.append((float(x.detach()), float(mu.grad)))
    assert results[0] == pytest.approx(results[1], rel=1e-4)
    h = 1e-2
    numeric = float(whole(torch.tensor([0.5 + h]), 1) - whole(torch.tensor([0.5 - h]), 1)) / (2 * h)
    assert results[0][1] == pytest.approx(numeric, rel=2e-2) and abs(numeric) > 1e-4


def shaken(values: dict[str, Tensor]) -> Tensor:
    """A box thrown on sloping ground, where it slips and sticks."""
    unit = torch.nn.functional.normalize
    worlds = values["position"].shape[0]
    state = free_state(values["position"], values["rates"], unit(values["turn"], dim=1))
    tilt = torch.stack([unit(values["tilt"], dim=1), torch.tensor([[0.0, 0.0, 0.0, 1.0]]).expand(worlds, 4)], dim=1)
    numbers = BOX.numbers(
        stiffness=values["stiffness"][:, 0] * 1e4, friction=values["friction"][:, 0], size=[None, values["half"]], rotation=tilt
    )
    linkage = plain_linkage(ONE, mass=values["mass"], inertia=3e-3 * torch.eye(3).expand(worlds, 1, 3, 3))
    motion = rollout(BOX, 0.15, 1e-3, anchors=True)(state, linkage, numbers, grip=values["grip"] * torch.tensor([1e3, 1e-2]))
    weights = torch.sin(torch.arange(7.0) + 1.0)
    return (motion.coordinates[:, -1] * weights).sum(-1)


SHAKEN = {
    "position": [0.0, 0.0, 0.056], "turn": [0.03, 0.05, 0.1, 1.0], "rates": [0.4, 0.1, -0.5, 0.5, -0.3, 0.4],
    "half": [0.05, 0.06, 0.05], "mass": [1.0], "stiffness": [0.5], "friction": [0.6], "tilt": [0.05, 0.08, 0.0, 1.0],
    "grip": [0.5, 1.0],
}  # fmt: skip


def test_gradients_agree_with_differences():
    rows = gradient_rows(shaken, SHAKEN, list(SHAKEN))
    assert all(row.passed for row in rows), [row for row in rows if not row.passed]
    assert sum("excluded" in row.note for row in rows) <= 0.3 * len(rows)
    assert sum(row.analytic != 0.0 for row in rows) > 0.8 * len(rows)


def test_errors():
    state = free_state(torch.tensor([[0.0, 0.0, 0.05]]), torch.zeros(1, 6))
    with pytest.raises(UserError, match="grip and stretch with anchors=True only"):
        rollout(BOX, 0.02, 1e-3)(state, box_linkage(HALF), BOX.numbers(), grip=torch.ones(1, 2))
    with pytest.raises(UserError, match="a stiffness above 0"):
        rollout(BOX, 0.02, 1e-3, anchors=True)(state, box_linkage(HALF), BOX.numbers(), grip=torch.zeros(1, 2))
