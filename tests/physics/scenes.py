"""Short ways to say what moves in a test. All tensors are float32 with a leading world axis of one unless given more."""

import torch
from torch import Tensor

from dvc.gradient_check import CheckRow, format_table
from dvc.records import Bodies, State, Trajectory, Wall
from physics.bodies import _rotate
from physics.rollout import Rollout
from physics.swing import PendulumArm, RevoluteStart, SphericalStart

GRAVITY = 9.81
FLOOR = Wall(torch.tensor([[0.0, 0.0, -1.0]]), torch.zeros(1))
NO_SPIN_INERTIA = torch.eye(3)[None] * 1e-4


def scalar(value: float | Tensor) -> Tensor:
    """(world,) from a number; tensors pass."""
    return value if isinstance(value, Tensor) else torch.tensor([float(value)])


def point_body(mass: float | Tensor = 1.0) -> Bodies:
    return Bodies(scalar(mass), torch.zeros(1, 3), NO_SPIN_INERTIA)


def ball_on_string(length: Tensor, mass: Tensor | float = 0.05, radius: float = 0.03) -> Bodies:
    """A solid ball at the end of a string without mass."""
    mass = scalar(mass)
    inertia = (0.4 * radius**2) * mass[:, None, None] * torch.eye(3)
    return Bodies(mass, PendulumArm()(length), inertia)


def vertical(height: Tensor, speed: Tensor) -> State:
    """A particle above the origin that moves up and down; both (world,)."""
    zero = torch.zeros_like(height)
    return State(torch.stack([zero, zero, height], -1), torch.stack([zero, zero, speed], -1))


def rollout(kind: object = "particle", *, frames: int, frame_rate: float = 30.0, substeps: int = 8, **options) -> Rollout:
    return Rollout(kind, frame_rate=frame_rate, last_frame=frames, substeps=substeps, **options)


def node_times(trajectory: Trajectory) -> Tensor:
    """Seconds since the first node, in double precision."""
    return torch.arange(trajectory.positions.shape[1], dtype=torch.float64) * trajectory.interval


def swing_in_plane(kind: str, angle: Tensor, rate: Tensor) -> State:
    zero = torch.zeros_like(angle)
    return RevoluteStart()(angle, rate) if kind == "revolute" else SphericalStart()(angle, rate, zero, zero)


def rotate(q: Tensor, v: Tensor) -> Tensor:
    return _rotate(q, v)


def assert_certified(rows: list[CheckRow], *, excluded: int = 0) -> None:
    """Every gradient agrees with differences, none is zero by mistake, and no more than `excluded` are not smooth."""
    left_out = [row.name for row in rows if row.note.startswith("excluded")]
    assert all(row.passed for row in rows) and len(left_out) <= excluded, "\n" + format_table(rows)
