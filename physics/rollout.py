"""`Rollout`: the motion of one body over the frames of a clip, differentiable in everything it is given.

Node i of the trajectory is at `(first_frame - 1/2) / frame_rate + i / (frame_rate * substeps)`: the window starts half a
frame before the middle of its first exposure, which is where the initial state holds.
"""

from typing import Any

import torch
from torch import Tensor, nn

from dvc.errors import UserError
from dvc.records import Bodies, State, Trajectory, Wall, world_count
from physics.bodies import FAR_AWAY, KINDS, Forces
from physics.windows import calls, carried, check_window


class Rollout(nn.Module):
    """Steps a body through `frames` frames.

    Arguments:
        kind: "particle", "spherical", "revolute", or an object with the interface `physics.bodies.Kind`.
        frame_rate [1/s]; first_frame, last_frame: window [first, last) in frames of the clip.
        substeps: steps a frame (Runge-Kutta of fourth order; 8 is ample for a pendulum of 0.5 m at 30 frames/s).
        chunk: frames a call of the step op, without a controller. With one it is called once a frame.
        window: frames after which the gradient through the state is cut (truncated windows); None: never.
        controller: optional module `(observation (world, 6), time) -> load (world, 3)`: observation is the position
            [m] and velocity [m/s] of the centre of mass; load is a force [N] or a torque about the pivot [N m], world
            axes, held for a frame. This is where a learned residual goes.
    Forward: see the arguments; each has a leading world axis. Returns a Trajectory.
    Raises: UserError for a kind that is not known or a horizon below one frame.
    Gradient: exact for the discrete motion, times of impact included; leaves out changes in the number of impacts. With
        `window` it is biased: it leaves out what reaches a frame through its window's first state (`physics.windows`).
    """

    def __init__(
        self,
        kind: Any = "spherical",
        *,
        frame_rate: float,
        last_frame: int,
        first_frame: int = 0,
        substeps: int = 8,
        chunk: int = 1000,
        window: int | None = None,
        controller: nn.Module | None = None,
    ):
        super().__init__()
        if isinstance(kind, str) and kind not in KINDS:
            raise UserError(f"Rollout.kind: expected one of {', '.join(KINDS)}, got {kind!r}")
        for name, value in (
            ("frame_rate", frame_rate),
            ("last_frame - first_frame", last_frame - first_frame),
            ("substeps", substeps),
            ("chunk", chunk),
        ):
            if not value > 0:
                raise UserError(f"Rollout.{name}: expected a positive number, got {value!r}")
        check_window("Rollout.window", window)
        self.kind = KINDS[kind]() if isinstance(kind, str) else kind
        if substeps % 2:
            raise UserError(f"Rollout.substeps: expected an even number (a node in the middle of each frame), got {substeps}")
        self.frame_rate, self.first_frame, self.frame_count = (
            float(frame_rate),
            int(first_frame),
            int(last_frame) - int(first_frame),
        )
        self.substeps, self.chunk, self.window, self.controller = int(substeps), int(chunk), window, controller

    def forward(
        self,
        state: State,
        bodies: Bodies,
        gravity: Tensor,
        wall: Wall | None = None,
        radius: Tensor | None = None,
        damping: Tensor | None = None,
        quadratic_drag: Tensor | None = None,
        restitution: Tensor | None = None,
        restitution_slope: Tensor | None = None,
        tangential_loss: Tensor | None = None,
        frames: int | None = None,
    ) -> Trajectory:
        """gravity [m/s^2] (world,) acts along -z; radius [m] (world,) of the ball that meets the wall."""
        count = self.frame_count if frames is None else min(int(frames), self.frame_count)
        if count < 1:
            raise UserError(f"Rollout: expected a horizon of at least one frame, got {frames!r}")
        none = torch.zeros_like(gravity)

        def or_none(value: Tensor | None) -> Tensor:
            return none if value is None else value

        if wall is None:
            normal, offset = gravity.new_tensor([[1.0, 0.0, 0.0]]), gravity.new_tensor([FAR_AWAY])
        else:
            normal, offset = wall.normal, wall.offset - or_none(radius)
        acceleration = torch.stack([none, none, -gravity], dim=-1)
        forces = Forces(
            acceleration=acceleration,
            damping=or_none(damping),
            quadratic_drag=or_none(quadratic_drag),
            restitution=or_none(restitution),
            restitution_slope=or_none(restitution_slope),
            tangential_loss=or_none(tangential_loss),
            wall_normal=normal,
            wall_offset=offset,
        )
        x = self.kind.state_vector(state)
        worlds = world_count(x, bodies.mass, bodies.center_of_mass, *forces)
        return self._roll(x.expand(worlds, -1), bodies, forces, worlds, count)

    def _roll(self, x: Tensor, bodies: Bodies, forces: Forces, worlds: int, count: int) -> Trajectory:
        interval = 1.0 / (self.frame_rate * self.substeps)
        start = (self.first_frame - 0.5) / self.frame_rate
        load = x.new_zeros(1, 3)
        parameters = self.kind.pack(bodies, forces, load, worlds) if self.controller is None else None
        frames_a_call = self.chunk if self.controller is None else 1
        pieces: list[tuple[Tensor, ...]] = []
        for done, frames in calls(count, frames_a_call, self.window):
            (x,) = carried(done, self.window, x)
            if self.controller is not None:
                load = self.controller(self._observe(x, bodies), start + done / self.frame_rate)
                parameters = self.kind.pack(bodies, forces, load, worlds)
            states, at_wall, fraction, speed = self.kind.step(x, parameters, interval=interval, steps=frames * self.substeps)
            pieces.append((states if not pieces else states[:, 1:], at_wall, fraction, speed))
            x = states[:, -1]
        states, at_wall, fraction, speed = (
            torch.cat(part, dim=1) if len(pieces) > 1 else part[0] for part in zip(*pieces, strict=True)
        )
        positions, orientations = self.kind.place(states, bodies)
        at_impact, _ = self.kind.place(at_wall, bodies)
        along = (positions * forces.wall_normal[:, None]).sum(-1)
        angles = torch.atan2(along, -positions[..., 2])
        return Trajectory(positions, orientations, fraction, at_impact, speed, angles, start, interval, count, self.substeps)

    def _observe(self, x: Tensor, bodies: Bodies) -> Tensor:
        position, q = self.kind.place(x, bodies)
        return torch.cat([position, self.kind.velocity(x, position, q)], dim=-1)
