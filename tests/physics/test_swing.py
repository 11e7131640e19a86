"""Angles in which a user thinks against vectors written down by hand."""

import math

import pytest
import torch

from dvc.gradient_check import gradient_check
from physics.swing import ParticleStart, PendulumArm, PendulumWall, RevoluteStart, SphericalStart
from tests.physics.scenes import assert_certified, rotate, scalar

DOWN = torch.tensor([[0.0, 0.0, -1.0]])


def direction(angle: float, depth: float) -> torch.Tensor:
    """R_x(depth) R_y(-angle) (0, 0, -1), multiplied out."""
    return torch.tensor([[math.sin(angle), math.sin(depth) * math.cos(angle), -math.cos(depth) * math.cos(angle)]])


@pytest.mark.parametrize("angle, depth", [(0.0, 0.0), (0.6, 0.0), (0.0, 0.4), (-0.7, 0.3)])
def test_the_string_points_where_the_two_angles_say(angle: float, depth: float) -> None:
    state = SphericalStart()(scalar(angle), scalar(0.0), scalar(depth), scalar(0.0))
    torch.testing.assert_close(rotate(state.position, DOWN), direction(angle, depth), atol=1e-6, rtol=0.0)
    torch.testing.assert_close(state.position.norm(dim=-1), torch.ones(1))


@pytest.mark.parametrize("rate, depth_rate", [(1.0, 0.0), (0.0, 1.0), (0.7, -0.4)])
def test_the_rates_are_the_derivatives_of_the_angles(rate: float, depth_rate: float) -> None:
    angle, depth, h = 0.5, -0.3, 1e-3
    state = SphericalStart()(scalar(angle), scalar(rate), scalar(depth), scalar(depth_rate))
    velocity = torch.linalg.cross(rotate(state.position, state.velocity), rotate(state.position, DOWN))
    numeric = (direction(angle + h * rate, depth + h * depth_rate) - direction(angle - h * rate, depth - h * depth_rate)) / (
        2 * h
    )
    torch.testing.assert_close(velocity, numeric, atol=1e-4, rtol=0.0)
    spin = (rotate(state.position, state.velocity) * direction(angle, depth)).sum()
    turned = SphericalStart()(scalar(angle + h * rate), scalar(0.0), scalar(depth + h * depth_rate), scalar(0.0)).position
    rate_of_change = (turned - state.position) / h
    w, q = state.velocity[0], state.position[0]
    exact = 0.5 * torch.cat([q[3] * w + torch.linalg.cross(q[:3], w), -(q[:3] @ w)[None]])
    torch.testing.assert_close(rate_of_change[0], exact, atol=2e-3, rtol=0.0)
    assert math.isfinite(float(spin))


def test_gradients_of_the_starts_and_the_wall() -> None:
    inputs = [torch.tensor([x], requires_grad=True) for x in (0.5, 0.7, -0.3, 0.4)]
    assert_certified(gradient_check(lambda *x: tuple(SphericalStart()(*x)), inputs, ["angle", "rate", "depth", "depth rate"]))
    assert_certified(gradient_check(lambda *x: tuple(PendulumWall()(*x)), inputs, ["length", "radius", "angle", "yaw"]))


def test_the_wall_is_where_the_ball_touches_it_at_its_angle() -> None:
    length, radius, angle = scalar(0.5), scalar(0.03), scalar(-0.2)
    wall = PendulumWall()(length, radius, angle, scalar(0.0))
    touching = 0.5 * direction(-0.2, 0.0)
    assert float(wall.offset - (wall.normal * touching).sum()) == pytest.approx(0.03, abs=1e-6)
    assert float(PendulumWall()(length, radius, angle, scalar(0.3)).normal.norm()) == pytest.approx(1.0)


def test_the_other_starts_only_reshape() -> None:
    assert RevoluteStart()(torch.zeros(3), torch.zeros(1)).velocity.shape == (3, 1)
    assert ParticleStart()(torch.zeros(3, 3), torch.ones(1, 3)).velocity.shape == (3, 3)
    torch.testing.assert_close(PendulumArm()(torch.tensor([0.5, 0.7])), torch.tensor([[0.0, 0.0, -0.5], [0.0, 0.0, -0.7]]))
