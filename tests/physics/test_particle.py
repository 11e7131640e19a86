"""Free particles against closed forms: flight with drag, and the same with derivatives."""

import math

import numpy as np
import pytest
import torch

from dvc.gradient_check import gradient_check
from dvc.records import State, Wall
from tests.physics.scenes import GRAVITY, assert_certified, node_times, point_body, rollout, scalar, vertical


def test_flight_without_drag_is_a_parabola_with_its_derivatives() -> None:
    velocity = torch.tensor([[3.0, -1.0, 4.0]], requires_grad=True)
    gravity = torch.tensor([GRAVITY], requires_grad=True)
    motion = rollout(frames=30)(State(torch.tensor([[0.1, 0.2, 0.3]]), velocity), point_body(), gravity)
    t = node_times(motion).float()
    expected = torch.tensor([0.1, 0.2, 0.3]) + t[:, None] * velocity.detach()
    expected[:, 2] -= 0.5 * GRAVITY * t * t
    torch.testing.assert_close(motion.positions[0].detach(), expected, atol=2e-5, rtol=1e-5)
    dv, dg = torch.autograd.grad(motion.positions[0, -1].sum(), [velocity, gravity])
    torch.testing.assert_close(dv, torch.ones(1, 3), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(dg, torch.tensor([-0.5]), atol=1e-5, rtol=1e-5)


def linear_drag_height(t, height, speed, gravity, damping):
    """v' = -g - c v, solved by hand."""
    fade = (1.0 - np.exp(-damping * t)) / damping
    return height + (speed + gravity / damping) * fade - gravity * t / damping


def test_flight_with_linear_drag_agrees_with_the_closed_form_and_its_derivatives() -> None:
    values = {"height": 2.0, "speed": 5.0, "gravity": GRAVITY, "damping": 0.7}
    leaves = {name: torch.tensor([value], requires_grad=True) for name, value in values.items()}
    motion = rollout(frames=30)(
        vertical(leaves["height"], leaves["speed"]), point_body(), leaves["gravity"], damping=leaves["damping"]
    )
    z = motion.positions[0, :, 2]
    np.testing.assert_allclose(z.detach().double(), linear_drag_height(node_times(motion).numpy(), **values), atol=2e-5)
    gradients = torch.autograd.grad(z[-1], list(leaves.values()))
    for name, gradient in zip(leaves, gradients, strict=True):
        shifted = {**values, name: values[name] + 1e-30j}
        exact = linear_drag_height(1.0, **shifted).imag / 1e-30
        assert float(gradient) == pytest.approx(exact, rel=1e-4, abs=1e-5), name


def quadratic_drag_fall(t, height, gravity, drag):
    """A fall from rest: v = -V tanh(g t / V) with terminal speed V = sqrt(g / k), so z = z0 - ln cosh(g t / V) / k."""
    return height - np.log(np.cosh(np.sqrt(gravity * drag) * t)) / drag


def test_a_fall_with_quadratic_drag_agrees_with_the_closed_form_and_its_derivatives() -> None:
    values = {"height": 20.0, "gravity": GRAVITY, "drag": 0.4}
    leaves = {name: torch.tensor([value], requires_grad=True) for name, value in values.items()}
    motion = rollout(frames=60)(
        vertical(leaves["height"], torch.zeros(1)), point_body(), leaves["gravity"], quadratic_drag=leaves["drag"]
    )
    z = motion.positions[0, :, 2]
    np.testing.assert_allclose(z.detach().double(), quadratic_drag_fall(node_times(motion).numpy(), **values), atol=5e-5)
    terminal = float((z[-2] - z[-1]).detach()) / motion.interval
    assert terminal == pytest.approx(math.sqrt(GRAVITY / 0.4), rel=1e-3)
    gradients = torch.autograd.grad(z[-1], list(leaves.values()))
    for name, gradient in zip(leaves, gradients, strict=True):
        shifted = {**values, name: values[name] + 1e-30j}
        exact = quadratic_drag_fall(2.0, **shifted).imag / 1e-30
        assert float(gradient) == pytest.approx(exact, rel=2e-4), name


def test_a_particle_at_rest_without_forces_stays_and_has_finite_gradients_of_drag() -> None:
    drag = torch.tensor([0.5], requires_grad=True)
    motion = rollout(frames=5)(vertical(scalar(1.0), scalar(0.0)), point_body(), torch.zeros(1), quadratic_drag=drag)
    assert torch.equal(motion.positions, torch.tensor([0.0, 0.0, 1.0]).expand_as(motion.positions))
    (gradient,) = torch.autograd.grad(motion.positions.sum(), drag)
    assert float(gradient) == 0.0


def test_a_force_accelerates_by_its_share_of_the_mass() -> None:
    class Push(torch.nn.Module):
        def forward(self, observation: torch.Tensor, time: float) -> torch.Tensor:
            return torch.tensor([[0.0, 2.0, 0.0]])

    mass = torch.tensor([4.0], requires_grad=True)
    motion = rollout(frames=30, controller=Push())(vertical(scalar(0.0), scalar(0.0)), point_body(mass), torch.zeros(1))
    y = motion.positions[0, -1, 1]
    assert float(y.detach()) == pytest.approx(0.25, rel=1e-5)
    assert float(torch.autograd.grad(y, mass)[0]) == pytest.approx(-0.0625, rel=1e-4)


def test_gradient_of_every_input_of_a_flight_with_an_impact() -> None:
    forward = rollout(frames=24)
    names = [
        "position",
        "velocity",
        "gravity",
        "damping",
        "quadratic_drag",
        "restitution",
        "restitution_slope",
        "tangential_loss",
        "normal",
        "offset",
        "radius",
    ]

    def fly(position, velocity, gravity, damping, drag, e, slope, loss, normal, offset, radius):
        motion = forward(
            State(position, velocity), point_body(), gravity, Wall(normal, offset), radius, damping, drag, e, slope, loss
        )
        struck = (motion.impact_fraction.detach() >= 0.0).float()
        return motion.positions, motion.impact_position, motion.impact_speed, motion.impact_fraction * struck

    inputs = [
        torch.tensor([[0.1, 0.0, 0.9]]),
        torch.tensor([[1.0, 0.5, 0.6]]),
        torch.tensor([GRAVITY]),
        torch.tensor([0.2]),
        torch.tensor([0.1]),
        torch.tensor([0.7]),
        torch.tensor([-0.05]),
        torch.tensor([0.2]),
        torch.tensor([[0.1, 0.0, -0.99498744]]),
        torch.tensor([0.05]),
        torch.tensor([0.03]),
    ]
    motion = fly(*inputs)
    assert int((motion[3] > 0.0).sum()) == 1
    rows = gradient_check(fly, [t.requires_grad_() for t in inputs], names, steps=(3e-2, 1e-2, 3e-3, 1e-3, 3e-4))
    assert_certified(rows)
