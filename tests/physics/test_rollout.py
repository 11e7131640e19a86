"""A roll-out is the same however it is cut up: chunks, frames with a controller, worlds, horizons."""

import pytest
import torch
from torch import Tensor, nn

from dvc.errors import UserError
from dvc.records import State, Trajectory, Wall
from learned.residual_force import ResidualForce
from physics.bodies import Revolute
from physics.rollout import Rollout
from tests.physics.scenes import FLOOR, GRAVITY, ball_on_string, point_body, rollout, scalar, swing_in_plane, vertical

KINDS = ["particle", "revolute", "spherical"]


def go(kind: str, a: Tensor, b: Tensor, e: Tensor, **options) -> Trajectory:
    """A motion with impacts: a ball above a floor, or a pendulum beside a wall; start and restitution are (world,)."""
    forward = rollout(kind, frames=30, **options)
    if kind == "particle":
        return forward(vertical(a, b), point_body(), scalar(GRAVITY), FLOOR, restitution=e)
    wall = Wall(torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([0.05]))
    return forward(swing_in_plane(kind, -a, b), ball_on_string(scalar(0.5)), scalar(GRAVITY), wall, restitution=e)


def start(worlds: int = 1) -> list[Tensor]:
    return [torch.linspace(a, a + 0.2, worlds).requires_grad_() for a in (0.4, 0.3, 0.6)]


def gradients(motion: Trajectory, leaves: list[Tensor]) -> tuple[Tensor, ...]:
    weights = torch.linspace(0.2, 1.0, motion.positions.shape[1])[:, None]
    return torch.autograd.grad((motion.positions * weights).sum() + motion.impact_speed.sum(), leaves)


class Zero(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, float]] = []

    def forward(self, observation: Tensor, time: float) -> Tensor:
        self.seen.append((observation.detach().clone(), time))
        return torch.zeros(observation.shape[0], 3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("chunk", [1, 7])
def test_chunks_change_neither_values_nor_gradients(kind: str, chunk: int) -> None:
    whole_leaves, cut_leaves = start(2), start(2)
    whole, cut = go(kind, *whole_leaves), go(kind, *cut_leaves, chunk=chunk)
    assert int((whole.impact_fraction >= 0.0).sum()) >= 2
    for name in ("positions", "orientations", "impact_fraction", "impact_position", "impact_speed", "angles"):
        assert torch.equal(getattr(whole, name), getattr(cut, name)), name
    for a, b in zip(gradients(whole, whole_leaves), gradients(cut, cut_leaves), strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_worlds_are_separate_runs(kind: str) -> None:
    together = start(3)
    motion = go(kind, *together)
    combined = gradients(motion, together)
    for world in range(3):
        alone = [leaf.detach()[world : world + 1].requires_grad_() for leaf in start(3)]
        single = go(kind, *alone)
        assert torch.equal(single.positions[0], motion.positions[world])
        assert torch.equal(single.impact_fraction[0], motion.impact_fraction[world])
        for a, b in zip(gradients(single, alone), combined, strict=True):
            torch.testing.assert_close(a[0], b[world], atol=1e-4, rtol=1e-4)


def test_a_world_axis_of_any_argument_is_taken() -> None:
    gravity = torch.tensor([9.0, 10.0], requires_grad=True)
    motion = rollout(frames=10)(vertical(scalar(1.0), scalar(0.0)), point_body(), gravity, damping=scalar(0.0))
    assert motion.positions.shape == (2, 81, 3)
    torch.testing.assert_close(motion.positions[:, -1, 2], 1.0 - 0.5 * gravity.detach() / 9.0, atol=1e-5, rtol=1e-5)
    with pytest.raises(ValueError, match="world axes differ"):
        rollout(frames=10)(vertical(torch.ones(3), torch.zeros(3)), point_body(), gravity)


@pytest.mark.parametrize("kind", KINDS)
def test_a_controller_is_asked_once_a_frame_for_what_is_there(kind: str) -> None:
    controller = Zero()
    forward = rollout(kind, frames=30, controller=controller)
    state = vertical(scalar(0.4), scalar(0.3)) if kind == "particle" else swing_in_plane(kind, scalar(-0.4), scalar(0.3))
    body = point_body() if kind == "particle" else ball_on_string(scalar(0.5))
    motion = forward(state, body, scalar(GRAVITY))
    assert len(controller.seen) == 30
    times = [time for _, time in controller.seen]
    assert times == pytest.approx([(k - 0.5) / 30.0 for k in range(30)], abs=1e-6)
    for k, (observation, _) in enumerate(controller.seen):
        torch.testing.assert_close(observation[0, :3], motion.positions[0, 8 * k], atol=1e-6, rtol=0.0)
        if k > 0:
            speed = (motion.positions[0, 8 * k + 1] - motion.positions[0, 8 * k - 1]) / (2.0 * motion.interval)
            torch.testing.assert_close(observation[0, 3:], speed, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_a_residual_that_starts_at_zero_is_the_analytic_run_and_can_learn(kind: str) -> None:
    analytic = go(kind, *start(2))
    residual = ResidualForce(0.1)
    hybrid = go(kind, *start(2), controller=residual)
    assert torch.equal(analytic.positions, hybrid.positions)
    assert torch.equal(analytic.impact_fraction, hybrid.impact_fraction)
    hybrid.positions.square().sum().backward()
    last = residual.network.layers[-1]
    assert float(last.weight.grad.abs().max()) > 0.0 and float(last.bias.grad.abs().max()) > 0.0


def test_a_residual_learns_a_drag_that_the_model_leaves_out() -> None:
    leaves = torch.tensor([2.0, 2.5, 3.0]), torch.tensor([0.0, 2.0, 4.0])
    truth = rollout(frames=20)(vertical(*leaves), point_body(), scalar(GRAVITY), damping=scalar(1.0)).positions
    residual = ResidualForce(5.0, typical=(2.0, 4.0), hidden=(8,))
    forward = rollout(frames=20, controller=residual)
    optimizer = torch.optim.Adam(residual.parameters(), lr=0.02)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = (forward(vertical(*leaves), point_body(), scalar(GRAVITY)).positions - truth).square().mean()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert min(losses[-5:]) < 0.02 * losses[0], losses[::10]


def test_a_horizon_is_the_beginning_of_the_window() -> None:
    forward = rollout(frames=30)
    arguments = vertical(scalar(0.4), scalar(0.3)), point_body(), scalar(GRAVITY), FLOOR
    whole = forward(*arguments, restitution=scalar(0.6))
    part = forward(*arguments, restitution=scalar(0.6), frames=12)
    assert part.frame_count == 12 and part.positions.shape == (1, 97, 3)
    assert torch.equal(part.positions, whole.positions[:, :97])
    assert forward(*arguments, frames=100).frame_count == 30
    with pytest.raises(UserError, match="horizon"):
        forward(*arguments, frames=0)


def test_the_window_starts_half_a_frame_before_its_first_exposure() -> None:
    forward = Rollout("particle", frame_rate=30.0, first_frame=13, last_frame=20, substeps=4)
    motion = forward(vertical(scalar(0.0), scalar(1.0)), point_body(), torch.zeros(1))
    assert motion.start == pytest.approx(12.5 / 30.0)
    assert (motion.frame_count, motion.substeps, motion.interval) == (7, 4, pytest.approx(1.0 / 120.0))
    middle_of_first = motion.start + 2 * motion.interval
    assert middle_of_first == pytest.approx(13.0 / 30.0)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (
            {"kind": "triple", "frame_rate": 30.0, "last_frame": 3},
            "Rollout.kind: expected one of particle, spherical, revolute, got 'triple'",
        ),
        ({"frame_rate": 30.0, "last_frame": 3, "substeps": 3}, "Rollout.substeps: expected an even number .*, got 3"),
        ({"frame_rate": 0.0, "last_frame": 3}, "Rollout.frame_rate: expected a positive number, got 0.0"),
        (
            {"frame_rate": 30.0, "last_frame": 3, "first_frame": 3},
            "Rollout.last_frame - first_frame: expected a positive number, got 0",
        ),
        ({"frame_rate": 30.0, "last_frame": 3, "chunk": 0}, "Rollout.chunk"),
    ],
)
def test_wrong_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Rollout(**arguments)


def test_an_axis_that_is_not_a_unit_vector_is_refused() -> None:
    with pytest.raises(UserError, match="unit vector"):
        Revolute((0.0, 2.0, 0.0))


def test_a_state_in_the_wall_frame_has_the_angle_from_gravity() -> None:
    motion = rollout("spherical", frames=2)(
        swing_in_plane("spherical", torch.tensor([-0.4]), torch.zeros(1)), ball_on_string(scalar(0.5)), scalar(GRAVITY)
    )
    assert float(motion.angles[0, 0]) == pytest.approx(-0.4, rel=1e-6)
    assert State(*swing_in_plane("spherical", torch.tensor([-0.4]), torch.zeros(1))).position.shape == (1, 4)
