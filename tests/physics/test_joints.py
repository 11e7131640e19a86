"""Bodies on a joint against an independent integrator, closed forms and conservation laws."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.special import ellipk
from torch import Tensor

from dvc.records import Bodies, State
from physics.bodies import FAR_AWAY, Forces, Revolute, Spherical
from tests.physics.scenes import GRAVITY, ball_on_string, node_times, rollout, rotate, scalar, swing_in_plane

LENGTH, MASS, RADIUS = 0.57, 0.05, 0.03
SWING = {"angle": 0.9, "rate": -0.7, "length": LENGTH, "mass": MASS, "gravity": GRAVITY, "damping": 0.15, "quadratic_drag": 0.2}


def twin_swing(
    times: np.ndarray,
    angle: float,
    rate: float,
    length: float,
    mass: float,
    gravity: float,
    damping: float,
    quadratic_drag: float,
) -> np.ndarray:
    """Angle of a ball on a string (moment of inertia of the ball included), by a high-order method with tight tolerance."""
    inertia = mass * length**2 + 0.4 * mass * RADIUS**2

    def derivative(_: float, y: np.ndarray) -> tuple[float, float]:
        theta, omega = y
        drag = mass * quadratic_drag * length**3 * abs(omega) * omega
        return omega, -(mass * gravity * length * math.sin(theta) + drag) / inertia - damping * omega

    solved = solve_ivp(derivative, (0.0, times[-1]), (angle, rate), method="DOP853", rtol=1e-10, atol=1e-12, t_eval=times)
    return solved.y[0]


def swing(kind: str, leaves: dict[str, Tensor], **options):
    forward = rollout(kind, **options)
    return forward(
        swing_in_plane(kind, leaves["angle"], leaves["rate"]),
        ball_on_string(leaves["length"], leaves["mass"], RADIUS),
        leaves["gravity"],
        damping=leaves["damping"],
        quadratic_drag=leaves["quadratic_drag"],
    )


@pytest.mark.parametrize("kind", ["revolute", "spherical"])
def test_a_swing_of_three_seconds_agrees_with_an_independent_integrator_in_value_and_derivative(kind: str) -> None:
    leaves = {name: torch.tensor([value], requires_grad=True) for name, value in SWING.items()}
    motion = swing(kind, leaves, frames=90)
    times = node_times(motion).numpy()
    exact = twin_swing(times, **SWING)
    np.testing.assert_allclose(motion.angles[0].detach().double(), exact, atol=3e-5)
    gradients = torch.autograd.grad(motion.angles[0, -1], list(leaves.values()))
    for name, gradient in zip(leaves, gradients, strict=True):
        step = 1e-4 * abs(SWING[name])
        plus, minus = (twin_swing(times, **{**SWING, name: SWING[name] + sign * step})[-1] for sign in (1, -1))
        assert float(gradient) == pytest.approx((plus - minus) / (2.0 * step), rel=1e-3, abs=1e-3), name


@pytest.mark.parametrize("kind", ["revolute", "spherical"])
@pytest.mark.parametrize("amplitude", [0.2, 1.2, 2.5])
def test_the_period_is_the_elliptic_integral(kind: str, amplitude: float) -> None:
    inertia_per_mass = LENGTH**2 + 0.4 * RADIUS**2
    period = 4.0 * ellipk(math.sin(amplitude / 2.0) ** 2) * math.sqrt(inertia_per_mass / (GRAVITY * LENGTH))
    motion = rollout(kind, frames=40, frame_rate=40 / period)(
        swing_in_plane(kind, scalar(amplitude), scalar(0.0)), ball_on_string(scalar(LENGTH), MASS, RADIUS), scalar(GRAVITY)
    )
    assert float(motion.angles[0, -1]) == pytest.approx(amplitude, abs=2e-5)
    assert float(motion.angles[0, 160]) == pytest.approx(-amplitude, abs=2e-5)
    assert float(motion.angles[0, 80]) == pytest.approx(0.0, abs=1e-4)


@pytest.mark.parametrize("kind", ["revolute", "spherical"])
def test_energy_is_conserved_over_ten_seconds(kind: str) -> None:
    bodies, gravity = ball_on_string(scalar(LENGTH), MASS, RADIUS), scalar(GRAVITY)
    motion = rollout(kind, frames=300)(swing_in_plane(kind, scalar(1.4), scalar(0.5)), bodies, gravity)
    z = motion.positions[0, :, 2].double()
    speed = (motion.positions[0, 2:] - motion.positions[0, :-2]).double().norm(dim=-1) / (2.0 * motion.interval)
    # central differences of a circular motion see the chord
    energy = GRAVITY * z[1:-1] + 0.5 * speed**2 * (1.0 + 0.4 * RADIUS**2 / LENGTH**2)
    first, last = float(energy[:240].mean()), float(energy[-240:].mean())
    assert last == pytest.approx(first, abs=2e-3 * GRAVITY * LENGTH)


def test_a_spherical_joint_in_a_plane_is_a_revolute_joint() -> None:
    leaves = {name: torch.tensor([value]) for name, value in SWING.items()}
    flat, full = (swing(kind, leaves, frames=60) for kind in ("revolute", "spherical"))
    torch.testing.assert_close(flat.positions, full.positions, atol=2e-5, rtol=0.0)
    torch.testing.assert_close(flat.orientations, full.orientations, atol=5e-5, rtol=0.0)


@pytest.mark.parametrize("axis", [(0.0, -1.0, 0.0), (1.0, 0.0, 0.0), (0.6, 0.8, 0.0)])
def test_a_revolute_joint_turns_about_its_axis(axis: tuple[float, float, float]) -> None:
    """Turning the axis about the vertical turns the motion with it."""
    motion = rollout(Revolute(axis), frames=20)(
        State(scalar(0.5)[None], scalar(0.3)[None]), ball_on_string(scalar(LENGTH)), scalar(GRAVITY)
    )
    a = torch.tensor(axis)
    torch.testing.assert_close(motion.positions[0] @ a, torch.zeros(161), atol=1e-6, rtol=0.0)
    reference = rollout("revolute", frames=20)(
        State(scalar(0.5)[None], scalar(0.3)[None]), ball_on_string(scalar(LENGTH)), scalar(GRAVITY)
    )
    sideways = torch.linalg.cross(a, torch.tensor([0.0, 0.0, -1.0]))
    torch.testing.assert_close(motion.positions[0] @ sideways, reference.positions[0, :, 0], atol=1e-5, rtol=0.0)


@pytest.mark.parametrize("angle", [0.3, 1.1])
def test_a_conical_pendulum_goes_round_at_its_height_and_rate(angle: float) -> None:
    """W^2 = g / (L cos a) for a body that turns with its string: the ball's own inertia drops out."""
    turn = math.sqrt(GRAVITY / (LENGTH * math.cos(angle)))
    q = torch.tensor([[0.0, math.sin(-angle / 2.0), 0.0, math.cos(angle / 2.0)]])
    inverse = q * torch.tensor([-1.0, -1.0, -1.0, 1.0])
    rate = rotate(inverse, torch.tensor([[0.0, 0.0, turn]]))
    motion = rollout("spherical", frames=60)(State(q, rate), ball_on_string(scalar(LENGTH), MASS, RADIUS), scalar(GRAVITY))
    t = node_times(motion)
    s, c = LENGTH * math.sin(angle), LENGTH * math.cos(angle)
    expected = torch.stack([s * torch.cos(turn * t), s * torch.sin(turn * t), torch.full_like(t, -c)], -1)
    torch.testing.assert_close(motion.positions[0].double(), expected, atol=1e-4, rtol=0.0)


@pytest.mark.parametrize("kind", ["revolute", "spherical"])
def test_mass_does_not_change_a_swing(kind: str) -> None:
    """Inertia, weight and drag are all proportional to it."""
    leaves = {name: torch.tensor([value]) for name, value in SWING.items()}
    leaves["mass"] = torch.tensor([0.05, 5.0], requires_grad=True)
    motion = swing(kind, leaves, frames=60)
    torch.testing.assert_close(motion.positions[0], motion.positions[1], atol=2e-5, rtol=0.0)
    (gradient,) = torch.autograd.grad(motion.positions[:, -1, 0].sum(), leaves["mass"])
    torch.testing.assert_close(gradient * leaves["mass"].detach(), torch.zeros(2), atol=2e-4, rtol=0.0)


def test_the_error_falls_with_the_fourth_power_of_the_step() -> None:
    leaves = {name: torch.tensor([value]) for name, value in SWING.items()}
    leaves["quadratic_drag"] = torch.zeros(1)  # |v| v has no second derivative where the ball turns round
    exact = twin_swing(np.linspace(0.0, 1.5, 2), **{**SWING, "quadratic_drag": 0.0})[-1]
    errors = [
        abs(float(swing("revolute", leaves, frames=6, frame_rate=4.0, substeps=n).angles[0, -1]) - exact) for n in (2, 4, 8)
    ]
    orders = [math.log2(a / b) for a, b in itertools.pairwise(errors)]
    assert min(orders) > 3.5, (errors, orders)


@pytest.mark.parametrize("damping", [0.0, 0.4])
def test_a_free_body_keeps_its_angular_momentum_and_energy(damping: float) -> None:
    """Torque-free tumbling about the middle axis; damping is a decay of the joint's velocity, so of the momentum."""
    inertia = torch.diag(torch.tensor([0.02, 0.03, 0.05]))[None]
    body = Bodies(scalar(1.0), torch.zeros(1, 3), inertia)
    kind = Spherical()
    motion_start = torch.tensor([[0.1, 0.2, 0.3, 0.9273618, 0.3, 4.0, 0.2]])
    motion_start[:, :4] /= motion_start[:, :4].norm()
    none = torch.zeros(1)
    forces = Forces(
        torch.tensor([[0.0, 0.0, -GRAVITY]]),
        scalar(damping),
        none,
        none,
        none,
        none,
        torch.tensor([[1.0, 0.0, 0.0]]),
        scalar(FAR_AWAY),
    )
    states, *_ = kind.step(motion_start, kind.pack(body, forces, torch.zeros(1, 3), 1), interval=1e-3, steps=3000)
    q, w = states[0, :, :4], states[0, :, 4:]
    momentum = rotate(q, w @ inertia[0])
    fade = torch.exp(-damping * torch.arange(3001) * 1e-3)[:, None]
    torch.testing.assert_close(momentum, momentum[:1] * fade, atol=3e-5, rtol=0.0)
    energy = 0.5 * ((w @ inertia[0]) * w).sum(-1)
    torch.testing.assert_close(energy, energy[:1] * fade[:, 0] ** 2, atol=2e-5, rtol=0.0)
    assert float(w[:, 1].min()) < 0.0 or damping > 0.0, "a body that spins about its middle axis turns over"
    torch.testing.assert_close(q.norm(dim=-1), torch.ones(3001), atol=1e-6, rtol=0.0)


@pytest.mark.parametrize("kind", ["revolute", "spherical"])
def test_a_torque_turns_a_body_at_its_share_of_the_inertia(kind: str) -> None:
    class Twist(torch.nn.Module):
        def forward(self, observation: Tensor, time: float) -> Tensor:
            return torch.tensor([[0.0, -0.02, 0.0]])

    bodies = ball_on_string(scalar(LENGTH), MASS, RADIUS)
    motion = rollout(kind, frames=15, controller=Twist())(
        swing_in_plane(kind, scalar(0.2), scalar(0.0)), bodies, torch.zeros(1)
    )
    inertia = MASS * (LENGTH**2 + 0.4 * RADIUS**2)
    assert float(motion.angles[0, -1]) == pytest.approx(0.2 + 0.5 * 0.02 / inertia * 0.25, rel=1e-4)
