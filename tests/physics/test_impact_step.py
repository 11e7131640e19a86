"""Impacts at their time of impact: event times and states in closed form, with exact derivatives, and rest without buzzing."""

import cmath

import numpy as np
import pytest
import torch
from torch import Tensor

from dvc.gradient_check import gradient_check
from dvc.records import State, Wall
from physics.bodies import Forces, Spherical
from tests.physics.scenes import (
    FLOOR,
    GRAVITY,
    assert_certified,
    ball_on_string,
    node_times,
    point_body,
    rollout,
    scalar,
    swing_in_plane,
    vertical,
)


def bounce(height: Tensor, speed: Tensor, gravity: Tensor, restitution: Tensor, *, frames: int, substeps: int = 8, **options):
    forward = rollout(frames=frames, substeps=substeps)
    return forward(vertical(height, speed), point_body(), gravity, FLOOR, restitution=restitution, **options)


# -- without gravity ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("substeps", [2, 8, 30])
def test_a_bounce_without_gravity_has_the_sign_of_minus_restitution(substeps: int) -> None:
    """z = e (-v0 t - h0) after the bounce, so dz/dh0 = -e, dz/dv0 = -e t, dz/de = -v0 t - h0."""
    h0, v0, e = (torch.tensor([x], requires_grad=True) for x in (0.53, -1.7, 0.8))
    motion = bounce(h0, v0, torch.zeros(1), e, frames=30, substeps=substeps)
    z = motion.positions[0, -1, 2]
    assert float(z.detach()) == pytest.approx(0.8 * (1.7 - 0.53), rel=1e-5)
    gradients = [float(g) for g in torch.autograd.grad(z, [h0, v0, e])]
    assert gradients == pytest.approx([-0.8, -0.8, 1.7 - 0.53], rel=1e-4)


def test_the_impact_is_kept_with_its_time_place_and_speed() -> None:
    h0, v0 = torch.tensor([0.53], requires_grad=True), torch.tensor([-1.7], requires_grad=True)
    motion = bounce(h0, v0, torch.zeros(1), scalar(0.8), frames=30)
    (interval,) = torch.nonzero(motion.impact_fraction[0].detach() >= 0.0)[:, 0].tolist()
    time = (interval + motion.impact_fraction[0, interval]) * motion.interval
    assert float(time.detach()) == pytest.approx(0.53 / 1.7, rel=1e-5)
    gradients = [float(g) for g in torch.autograd.grad(time, [h0, v0], retain_graph=True)]
    assert gradients == pytest.approx([1.0 / 1.7, 0.53 / 1.7**2], rel=1e-4)
    assert float(motion.impact_speed[0, interval].detach()) == pytest.approx(1.7, rel=1e-5)
    place = motion.impact_position[0, interval, 2]
    assert float(place.detach()) == pytest.approx(0.0, abs=1e-6)
    assert [float(g) for g in torch.autograd.grad(place, [h0, v0])] == pytest.approx([0.0, 0.0], abs=1e-5)


def test_a_bounce_loses_tangential_speed_only_by_its_own_fraction() -> None:
    loss = torch.tensor([0.3], requires_grad=True)
    start = State(torch.tensor([[0.0, 0.0, 0.5]]), torch.tensor([[2.0, -1.0, -1.0]]))
    motion = rollout(frames=30)(start, point_body(), torch.zeros(1), FLOOR, restitution=scalar(0.6), tangential_loss=loss)
    end = motion.positions[0, -1]
    expected = [2.0 * (0.5 + 0.7 * 0.5), -1.0 * (0.5 + 0.7 * 0.5), 0.6 * 0.5]
    assert end.detach().tolist() == pytest.approx(expected, rel=1e-5)
    assert float(torch.autograd.grad(end[0], loss)[0]) == pytest.approx(-2.0 * 0.5, rel=1e-4)


@pytest.mark.parametrize("speed, kept", [(0.5, 0.75), (1.0, 0.7), (2.0, 0.6), (9.0, 0.0)])
def test_restitution_is_linear_in_the_incoming_speed_and_never_negative(speed: float, kept: float) -> None:
    v0 = torch.tensor([-speed], requires_grad=True)
    slope = torch.tensor([-0.1], requires_grad=True)
    height = 0.5 * speed  # half a second to the floor, half a second away from it
    motion = bounce(scalar(height), v0, torch.zeros(1), scalar(0.7), frames=30, restitution_slope=slope)
    z = motion.positions[0, -1, 2]
    assert float(z.detach()) == pytest.approx(kept * speed * 0.5, rel=1e-4, abs=1e-5)
    gradient = float(torch.autograd.grad(z, slope)[0])
    assert gradient == pytest.approx((speed - 1.0) * speed * 0.5 if kept > 0.0 else 0.0, rel=1e-3, abs=1e-5)


def test_a_radius_moves_the_wall_towards_the_ball() -> None:
    radius = torch.tensor([0.1], requires_grad=True)
    motion = bounce(scalar(0.6), scalar(-1.0), torch.zeros(1), scalar(0.5), frames=30, radius=radius)
    z = motion.positions[0, -1, 2]
    assert float(z.detach()) == pytest.approx(0.1 + 0.5 * 0.5, rel=1e-5)
    assert float(torch.autograd.grad(z, radius)[0]) == pytest.approx(1.5, rel=1e-4)


# -- under gravity -----------------------------------------------------------------------------------------------------
def bouncing_height(t: float, height: complex, speed: complex, gravity: complex, restitution: complex) -> complex:
    """Height of a ball thrown above a floor; complex arguments give exact derivatives (the count of bounces is fixed)."""
    down = cmath.sqrt(speed * speed + 2.0 * gravity * height)
    landed = (speed + down) / gravity
    if t < landed.real:
        return height + speed * t - 0.5 * gravity * t * t
    up = restitution * down
    while t >= (landed + 2.0 * up / gravity).real:
        landed = landed + 2.0 * up / gravity
        up = restitution * up
    flown = t - landed
    return up * flown - 0.5 * gravity * flown * flown


@pytest.mark.parametrize("frames", [5, 20, 32, 45, 57])
def test_a_bouncing_ball_agrees_with_its_event_times_and_their_derivatives(frames: int) -> None:
    values = {"height": 1.1, "speed": 0.7, "gravity": GRAVITY, "restitution": 0.82}
    leaves = {name: torch.tensor([value], requires_grad=True) for name, value in values.items()}
    motion = bounce(*leaves.values(), frames=frames)
    z = motion.positions[0, :, 2]
    exact = np.array([bouncing_height(t, **values).real for t in node_times(motion).tolist()])
    np.testing.assert_allclose(z.detach().double(), exact, atol=2e-4)
    gradients = torch.autograd.grad(z[-1], list(leaves.values()))
    for name, gradient in zip(leaves, gradients, strict=True):
        shifted = {**values, name: values[name] + 1e-20j}
        derivative = bouncing_height(float(node_times(motion)[-1]), **shifted).imag / 1e-20
        assert float(gradient) == pytest.approx(derivative, rel=3e-3, abs=1e-4), name


def test_the_number_of_substeps_does_not_change_a_bouncing_ball() -> None:
    coarse, fine = (bounce(scalar(1.1), scalar(0.7), scalar(GRAVITY), scalar(0.82), frames=45, substeps=n) for n in (2, 32))
    torch.testing.assert_close(coarse.positions[:, ::2], fine.positions[:, ::32], atol=2e-4, rtol=0.0)


# -- rest --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("restitution", [0.0, 0.5, 0.9])
def test_a_ball_on_the_floor_comes_to_rest_without_falling_through_or_buzzing(restitution: float) -> None:
    motion = bounce(scalar(0.02), scalar(0.0), scalar(GRAVITY), scalar(restitution), frames=300)
    z = motion.positions[0, :, 2]
    assert float(z.min()) > -1e-5
    assert float(z[1200:].abs().max()) < 1e-5


@pytest.mark.parametrize("kind", ["revolute", "spherical"])
@pytest.mark.parametrize("restitution", [0.0, 0.6])
def test_a_pendulum_against_a_wall_comes_to_rest_without_falling_through_or_buzzing(kind: str, restitution: float) -> None:
    """The wall stands where the string hangs at -0.2 rad, so that gravity holds the ball against it."""
    length, wall = torch.tensor([0.5]), Wall(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([0.5]) * torch.sin(scalar(-0.2)))
    forward = rollout(kind, frames=300)
    motion = forward(
        swing_in_plane(kind, scalar(-0.3), scalar(0.0)),
        ball_on_string(length),
        scalar(GRAVITY),
        wall,
        restitution=scalar(restitution),
    )
    gap = wall.offset - motion.positions[0, :, 0]
    assert float(gap.min()) > -1e-5
    assert float(gap[1200:].abs().max()) < 1e-5
    assert float(motion.positions[0, :, 1].abs().max()) < 1e-5
    torch.testing.assert_close(motion.positions[0].norm(dim=-1), torch.full((2401,), 0.5), atol=1e-5, rtol=0.0)


def test_a_ball_at_rest_slides_without_friction_and_follows_its_wall() -> None:
    offset = torch.tensor([0.0], requires_grad=True)
    wall = Wall(FLOOR.normal, offset)
    start = State(torch.zeros(1, 3), torch.tensor([[0.4, 0.0, 0.0]]))
    motion = rollout(frames=60)(
        start, point_body(), scalar(GRAVITY), wall, restitution=scalar(0.5), tangential_loss=scalar(0.5)
    )
    assert motion.positions[0, -1].detach().tolist() == pytest.approx([0.8, 0.0, 0.0], abs=1e-4)
    assert float(torch.autograd.grad(motion.positions[0, -1, 2], offset)[0]) == pytest.approx(-1.0, rel=1e-4)


def test_a_ball_at_rest_leaves_when_it_is_pulled_away() -> None:
    motion = bounce(scalar(0.0), scalar(0.0), scalar(-1.0), scalar(0.5), frames=30)
    assert float(motion.positions[0, -1, 2]) == pytest.approx(0.5, rel=1e-4)


# -- behind the wall ---------------------------------------------------------------------------------------------------
def test_a_ball_that_starts_behind_the_wall_moves_freely_and_still_has_a_gradient() -> None:
    height, speed = torch.tensor([-0.4], requires_grad=True), torch.tensor([1.0], requires_grad=True)
    motion = bounce(height, speed, torch.zeros(1), scalar(0.5), frames=30)
    z = motion.positions[0, -1, 2]
    assert float(z.detach()) == pytest.approx(0.6, rel=1e-5)
    assert not bool((motion.impact_fraction >= 0.0).any())
    assert [float(g) for g in torch.autograd.grad(z, [height, speed])] == pytest.approx([1.0, 1.0], rel=1e-5)


def test_a_ball_that_comes_out_from_behind_the_wall_bounces_when_it_returns() -> None:
    motion = bounce(scalar(-0.2), scalar(3.0), scalar(GRAVITY), scalar(0.5), frames=40)
    struck = torch.nonzero(motion.impact_fraction[0] >= 0.0)[:, 0]
    assert len(struck) >= 1
    assert float(motion.positions[0, struck[0] :, 2].min()) > -1e-4


@pytest.mark.parametrize("height", [0.0, -2e-8, -5e-5])
def test_a_ball_that_starts_on_the_wall_and_moves_into_it_strikes_at_once(height: float) -> None:
    """Rounding may put the start a little behind the wall: the strike counts all the same."""
    motion = bounce(scalar(height), scalar(-1.0), torch.zeros(1), scalar(0.5), frames=30)
    assert float(motion.positions[0, -1, 2]) == pytest.approx(0.5, rel=1e-3)
    assert float(motion.impact_fraction[0, 0]) == pytest.approx(0.0, abs=1e-6)
    assert float(motion.impact_fraction[0, 0]) >= 0.0
    assert float(motion.impact_speed[0, 0]) == pytest.approx(1.0)


# -- impacts on a joint ------------------------------------------------------------------------------------------------
def strike(w0: Tensor, inertia: Tensor, restitution: float, loss: float, arm: Tensor) -> tuple[Tensor, Tensor]:
    """Angular velocity of a body on a spherical joint just before and after it meets a wall, without gravity."""
    kind, none = Spherical(), torch.zeros(1)
    wall = Wall(torch.tensor([[1.0, 0.0, 0.0]]), arm[:, 0] + 1e-4)
    bodies = ball_on_string(torch.ones(1))._replace(center_of_mass=arm, inertia=inertia)
    forces = Forces(torch.zeros(1, 3), none, none, scalar(restitution), none, scalar(loss), wall.normal, wall.offset)
    start = torch.cat([torch.tensor([[0.0, 0.0, 0.0, 1.0]]), w0], dim=1)
    interval = 1.5e-4
    states, at_wall, fraction, _ = kind.step(start, kind.pack(bodies, forces, torch.zeros(1, 3), 1), interval=interval, steps=1)
    assert float(fraction[0, 0]) > 0.0
    return at_wall[0, 0, 4:], states[0, 1, 4:]


def test_an_impact_on_a_joint_reflects_the_normal_and_slows_the_tangential_motion() -> None:
    """With one moment of inertia across the arm, the speed along the wall's own swing direction and across it decouple."""
    arm = torch.tensor([[0.0, 0.0, -1.0]])
    before, after = strike(torch.tensor([[0.5, -1.2, 0.0]]), torch.diag(torch.tensor([0.3, 0.3, 0.1]))[None], 0.7, 0.25, arm)
    v_before, v_after = (torch.linalg.cross(w, arm[0]) for w in (before, after))
    assert float(v_before[0]) > 0.0
    assert float(v_after[0]) == pytest.approx(-0.7 * float(v_before[0]), rel=1e-3)
    assert float(v_after[1]) == pytest.approx(0.75 * float(v_before[1]), rel=1e-3)
    assert float(v_after[2]) == pytest.approx(0.0, abs=1e-3)


@pytest.mark.parametrize("seed", range(6))
def test_an_impact_on_a_joint_never_gains_energy(seed: int) -> None:
    random = np.random.default_rng(seed)
    root = random.normal(size=(3, 3)) * 0.3
    inertia = torch.tensor(root @ root.T + 0.05 * np.eye(3), dtype=torch.float32)[None]
    arm = torch.tensor(random.normal(size=(1, 3)), dtype=torch.float32)
    w = torch.tensor(random.normal(size=(1, 3)), dtype=torch.float32)
    if float(torch.linalg.cross(w, arm)[0, 0]) < 0.0:
        w = -w
    w = w / torch.linalg.cross(w, arm)[0, 0]  # 1 m/s into the wall, which is met after 0.1 ms
    mass = ball_on_string(torch.ones(1)).mass
    about_pivot = inertia[0] + mass * ((arm[0] @ arm[0]) * torch.eye(3) - torch.outer(arm[0], arm[0]))

    def energy(rate: Tensor) -> float:
        return float(0.5 * rate @ about_pivot @ rate)

    for restitution, loss in ((1.0, 0.0), (0.6, 0.0), (0.6, 0.5), (0.0, 1.0)):
        before, after = strike(w, inertia, restitution, loss, arm)
        normal_after = float(torch.linalg.cross(after, arm[0])[0])
        kept = energy(after) / energy(before)
        assert kept <= 1.0 + 1e-4
        assert normal_after == pytest.approx(-restitution, abs=0.02)
        if restitution == 1.0:
            assert kept == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("kind", ["revolute", "spherical"])
def test_gradient_of_every_input_of_a_swing_that_strikes_a_wall(kind: str) -> None:
    forward = rollout(kind, frames=24)
    names = [
        "angle",
        "rate",
        "length",
        "mass",
        "gravity",
        "damping",
        "quadratic_drag",
        "restitution",
        "restitution_slope",
        "tangential_loss",
        "yaw",
        "offset",
        "radius",
    ]

    def swing(angle, rate, length, mass, gravity, damping, drag, e, slope, loss, yaw, offset, radius):
        state = swing_in_plane(kind, angle, rate)
        if kind == "spherical":  # out of the plane, so that tangential motion is lost
            state = state._replace(velocity=state.velocity + torch.tensor([[0.4, 0.0, 0.2]]))
        normal = torch.stack([torch.cos(yaw), torch.sin(yaw), torch.zeros_like(yaw)], -1)
        motion = forward(
            state, ball_on_string(length, mass), gravity, Wall(normal, offset), radius, damping, drag, e, slope, loss
        )
        struck = (motion.impact_fraction.detach() >= 0.0).float()
        return (
            motion.positions,
            motion.orientations,
            motion.impact_position,
            motion.impact_speed,
            motion.impact_fraction * struck,
        )

    inputs = [torch.tensor([x]) for x in (-0.5, 0.8, 0.5, 0.05, GRAVITY, 0.2, 0.1, 0.7, -0.05, 0.2, 0.2, 0.02, 0.03)]
    motion = swing(*inputs)
    assert int((motion[4] > 0.0).sum()) == 1
    rows = gradient_check(swing, [t.requires_grad_() for t in inputs], names, steps=(1e-2, 3e-3, 1e-3, 3e-4, 1e-4))
    assert_certified(rows)
