r"""Tosses of a cube as worlds of one rollout, and the three residuals from which its numbers are found.

With s the scale of the tracking's lengths (measured = s * true), a the true side, k and n stiffness and exponent of contact:

    pose     from the state at the last sample of the flight to sample k: (s p_k - measured) / sigma_p, and the turn between
             predicted and measured orientation, 2 sin(angle / 2) along its axis, / sigma_r
    flight   the part of z_i + s g t_i^2 / 2, samples before contact, that no line z0 + v t explains, / sigma_f: gravity fixes s
    rest     s (a / 2 - d) - height at rest, / sigma_h, where four corners carry the weight, m g = 4 k d^n

The flight's line is eliminated, not fitted beside the rest (variable projection: Golub and Pereyra 1973). The initial state is
that of `toss_data.flight_state`; it depends on s as the line through a parabola does, and hence is taken linear in s.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from dvc.errors import UserError
from dvc.records import State
from experiments.toss_data import GRAVITY, SAMPLE_RATE, Toss, first_contact, flight_state
from physics.articulation import Linkage, Topology
from physics.contact_scene import ContactRollout, ContactScene, Shape

SCALES = (0.96, 1.0)  # between which the initial state is taken linear
STILL = 5  # samples at the end of a toss
STILL_SPEED, STILL_TILT = 0.03, 2.0  # [m/s], [deg]: at rest on a face where both are below


class Flights(NamedTuple):
    """Tosses as tensors; lengths as measured. Frame k is sample contact + k; frames beyond the end of a toss have no weight."""

    position: Tensor  # at the last sample of the flight for scale 0, and its slope in the scale [m], (toss, 2, 3)
    velocity: Tensor  # likewise [m/s], (toss, 2, 3)
    orientation: Tensor  # x, y, z, w, (toss, 4)
    rate: Tensor  # [rad/s], body's axes, (toss, 3)
    seen_position: Tensor  # [m], (toss, frame, 3)
    seen_orientation: Tensor  # (toss, frame, 4)
    seen: Tensor  # 1 where there is a sample, (toss, frame)
    heights: Tensor  # of the flight without their line, for scale 0 and the slope [m], (toss, sample, 2)
    rest: Tensor  # height at rest [m], and 1 where the toss ends on a face, (toss, 2)


def _tensor(values: object) -> Tensor:
    return torch.from_numpy(np.asarray(values, np.float64)).float()


def _padded(parts: Sequence[np.ndarray], fill: Sequence[float]) -> Tensor:
    length = max(map(len, parts))
    return _tensor([np.concatenate([part, np.tile(fill, (length - len(part), 1))]) for part in parts])


def _without_line(toss: Toss, contact: int) -> np.ndarray:
    """Heights before the contact, and g t^2 / 2, without the part that a line explains, (contact, 2)."""
    t = np.arange(contact) / SAMPLE_RATE
    t = t - t.mean()
    values = np.stack([toss.position[:contact, 2], 0.5 * GRAVITY * t**2], axis=1)
    line = np.stack([np.ones(contact), t], axis=1)
    return values - line @ np.linalg.lstsq(line, values, rcond=None)[0]


def _rest(toss: Toss) -> tuple[float, float]:
    """Height of the centre over the last samples, and 1 where it is still then, flat on a face."""
    last = toss.position[-STILL - 1 :]
    speed = float(np.linalg.norm(np.diff(last, axis=0), axis=1).max()) * SAMPLE_RATE
    x, y, z, w = toss.orientation[-1]
    up = np.abs([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]).max()  # along the nearest body axis
    still = speed < STILL_SPEED and up > np.cos(np.radians(STILL_TILT))
    return float(np.mean(last[1:, 2])), float(still)


def flights_of(tosses: Sequence[Toss], contacts: Sequence[int] | None = None) -> Flights:
    """Tosses as worlds; only samples before the first contact enter the initial state. Raises: UserError as `first_contact`."""
    counts = [first_contact(toss) for toss in tosses] if contacts is None else list(contacts)
    low, high = ([flight_state(toss, scale, c) for toss, c in zip(tosses, counts, strict=True)] for scale in SCALES)
    linear = []
    for name in ("position", "velocity"):
        one, two = (np.array([getattr(state, name) for state in states]) for states in (low, high))
        slope = (two - one) / (SCALES[1] - SCALES[0])
        linear.append(_tensor(np.stack([one - SCALES[0] * slope, slope], axis=1)))
    after = [(toss.position[c:], toss.orientation[c:]) for toss, c in zip(tosses, counts, strict=True)]
    return Flights(
        linear[0], linear[1], _tensor([s.orientation for s in high]), _tensor([s.angular_velocity for s in high]),
        _padded([p for p, _ in after], [0.0] * 3), _padded([q for _, q in after], [0.0, 0.0, 0.0, 1.0]),
        _padded([np.ones((len(p), 1)) for p, _ in after], [0.0])[..., 0],
        _padded([_without_line(toss, c) for toss, c in zip(tosses, counts, strict=True)], [0.0, 0.0]),
        _tensor([_rest(toss) for toss in tosses]),
    )  # fmt: skip


class CubePaths(NamedTuple):
    """Poses at the samples from the first contact on; lengths as measured."""

    position: Tensor  # [m], (world, toss, frame, 3)
    orientation: Tensor  # x, y, z, w, (world, toss, frame, 4)


class CubeMotion(nn.Module):
    """Every toss moved by every candidate's cube, on a half space below z = 0.

    Arguments: tree: one body on a free joint; flights; substeps a sample.
    Forward: linkage; friction; stiffness [N/m^exponent]; exponent; dissipation [s/m]; width [m/s] of friction (all of
    `physics.contact_law`); scale; side [m]: each (world,); span: samples -> CubePaths of that many samples, or of all that
    there are where they are fewer.
    Gradient: complete but for the switches of contact (`ContactRollout`). The motion is chaotic: over 100 samples and several
    bounces the gradient is that of one path, and no guide; 45 samples serve.
    """

    position: Tensor
    velocity: Tensor
    orientation: Tensor
    rate: Tensor

    def __init__(self, tree: Topology, flights: Flights, substeps: int):
        super().__init__()
        if (tree.coordinate_count, tree.rate_count) != (7, 6):
            raise UserError(f"cube: expected one body on a free joint, got {tree.coordinate_count} coordinates")
        for name in ("position", "velocity", "orientation", "rate"):
            self.register_buffer(name, getattr(flights, name), persistent=False)
        self.tree, self.frames, self.substeps = tree, flights.seen.shape[1], int(substeps)
        self.scene = ContactScene(tree, [Shape("half_space"), Shape("box", 0, (1.0, 1.0, 1.0))])
        self.rollouts: dict[int, ContactRollout] = {}

    def rollout(self, frames: int) -> ContactRollout:
        if frames not in self.rollouts:
            self.rollouts[frames] = ContactRollout(
                self.tree, self.scene, frame_rate=SAMPLE_RATE, frame_count=frames, substeps=self.substeps
            )
        return self.rollouts[frames]

    def forward(
        self, linkage: Linkage, friction: Tensor, stiffness: Tensor, exponent: Tensor, dissipation: Tensor, width: Tensor,
        scale: Tensor, side: Tensor, span: int,
    ) -> CubePaths:  # fmt: skip
        worlds = max(len(t) for t in (*linkage, friction, stiffness, exponent, dissipation, width, scale, side))
        count = len(self.rate)

        def each(t: Tensor) -> Tensor:  # of the tosses of a candidate
            return t if len(t) == 1 else t.repeat_interleave(count, dim=0)

        s = scale.expand(worlds)[:, None, None]
        place, velocity = ((t[:, 0] + s * t[:, 1]) / s for t in (self.position, self.velocity))
        turn, rate = (t.expand(worlds, -1, -1) for t in (self.orientation, self.rate))
        state = State(torch.cat([place, turn], -1).flatten(0, 1), torch.cat([velocity, rate], -1).flatten(0, 1))
        half = (0.5 * each(side))[:, None].expand(-1, 3)
        numbers = self.scene.numbers(
            friction=each(friction), stiffness=each(stiffness), exponent=each(exponent), dissipation=each(dissipation),
            width=each(width), size=[None, half],
        )  # fmt: skip
        path = self.rollout(min(span, self.frames))(state, Linkage(*map(each, linkage)), numbers)
        poses = path.coordinates[:, 1:].unflatten(0, (worlds, count))
        return CubePaths(poses[..., :3] * s[..., None], poses[..., 3:])


class PoseMisfit(nn.Module):
    """Predicted against measured poses, (world, toss, frame, 6): positions / sigma [m], turns / turn_sigma [rad].

    A turn is 2 sin(angle / 2) along its axis: smooth, but where two orientations are half a turn apart.
    """

    seen_position: Tensor
    seen_orientation: Tensor
    seen: Tensor

    def __init__(self, flights: Flights, sigma: float, turn_sigma: float):
        super().__init__()
        for name in ("seen_position", "seen_orientation", "seen"):
            self.register_buffer(name, getattr(flights, name), persistent=False)
        self.sigma, self.turn_sigma = float(sigma), float(turn_sigma)

    def forward(self, motion: CubePaths) -> Tensor:
        frames = motion.position.shape[2]
        p, q, seen = (t[:, :frames] for t in (self.seen_position, self.seen_orientation, self.seen))
        v, w = motion.orientation[..., :3], motion.orientation[..., 3:]
        u, c = q[..., :3].expand_as(v), q[..., 3:]
        turn = v * c - u * w - torch.linalg.cross(u, v)  # vector part of conj(seen) * predicted
        sign = torch.where((w * c + (u * v).sum(-1, keepdim=True)) < 0.0, -2.0, 2.0)
        return torch.cat([(motion.position - p) / self.sigma, turn * sign / self.turn_sigma], -1) * seen[..., None]


class FlightMisfit(nn.Module):
    """Heights before contact against the parabola of gravity, (world, toss, sample)."""

    heights: Tensor

    def __init__(self, flights: Flights, sigma: float):
        super().__init__()
        self.register_buffer("heights", flights.heights, persistent=False)
        self.sigma = float(sigma)

    def forward(self, scale: Tensor) -> Tensor:
        return (self.heights[..., 0] + scale[:, None, None] * self.heights[..., 1]) / self.sigma


class RestMisfit(nn.Module):
    """Height at rest, (world, toss, 1); tosses that do not end on a face have no weight."""

    rest: Tensor

    def __init__(self, flights: Flights, sigma: float):
        super().__init__()
        self.register_buffer("rest", flights.rest, persistent=False)
        self.sigma = float(sigma)

    def forward(self, linkage: Linkage, stiffness: Tensor, exponent: Tensor, scale: Tensor, side: Tensor) -> Tensor:
        depth = (linkage.mass[:, 0] * GRAVITY / (4.0 * stiffness)) ** (1.0 / exponent)
        height = scale * (0.5 * side - depth)
        return ((height[:, None] - self.rest[:, 0]) * self.rest[:, 1] / self.sigma)[..., None]
