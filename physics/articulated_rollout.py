"""`ArticulatedRollout`: the motion of a tree of rigid bodies over frames, differentiable in everything it is given.

Frame k ends at the time (k + 1) / frame_rate; frame 0 begins with the initial state. Each call of the step op covers `chunk`
frames; between calls only states are kept, so that memory grows with frames and not with substeps.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dvc.errors import UserError
from dvc.records import State, expand_worlds, world_count
from physics.articulated_step import INTEGRATORS, articulated_step
from physics.articulation import Linkage, Topology, pack, tables
from physics.kinematics import motion_of
from physics.rollout_check import require_counts, require_loads, require_numbers, require_rate, require_shape
from physics.windows import calls, carried, check_window

CHUNK_STEPS = 128  # accelerations a call of the step op, at most, where each is some launches (CUDA)
CHUNK_BYTES = 64 * 2**20


class ArticulatedTrajectory(NamedTuple):
    """A tree's motion at the beginning and at the end of each frame: node 0 is the initial state."""

    coordinates: Tensor  # (world, frame + 1, nq), see physics.articulation
    rates: Tensor  # (world, frame + 1, nv)
    positions: Tensor  # of the links' frames [m], (world, frame + 1, link, 3)
    orientations: Tensor  # link to world, (world, frame + 1, link, 4)
    velocities: Tensor  # of the links' origins [m/s], (world, frame + 1, link, 3)
    spins: Tensor  # angular velocities, world axes [rad/s], (world, frame + 1, link, 3)
    interval: float  # between nodes [s]


class ArticulatedRollout(nn.Module):
    """Steps a tree of bodies through frames.

    Arguments:
        tree: Topology (of `Robot.topology`). frame_rate [1/s], frame_count, substeps a frame.
        integrator: "implicit" (springs, limits, damping, dry friction and gains at the end of the step), "symplectic" (all of
            them at its beginning: semi-implicit Euler) or "rk4" (smooth systems: free bodies, pendulums).
        chunk: frames a call of the step op, which keeps the states of its substeps (not fused: also the factors of their mass
            matrices, and a long call takes long to trace). None: as many as fit in 64 MB and, not fused, in 128 substeps.
        fused: one kernel for all substeps of a call, and one for its adjoint, or some kernels for each substep: the same step
            and gradient; None: fused on the CPU, where it is measured to be faster (benchmarks/rigid.py), not on CUDA.
        window: frames after which the gradient through the state is cut (truncated windows); None: never.
        controller: optional module `(coordinates (world, nq), rates (world, nv), time) -> controls (world, actuator)`, called
            at the beginning of each frame.
    Forward: state: State(coordinates (world, nq), rates (world, nv)); linkage; gravity [m/s^2] (world, 3); controls (world,
        frame or 1, actuator), held for a frame; wrenches (world, frame or 1, link, 6): force through the centre of mass [N] and
        torque [N m], world axes. Each world axis may be 1 -> ArticulatedTrajectory.
    Gradient: complete, of the discrete motion, without `window`; with it, biased: the derivative leaves out what reaches a
        frame through the state at the beginning of its window (`physics.windows`), so that it does not grow with the horizon.
        Memory and time stay those of the whole horizon. The motion has corners where a control or an actuator's force meets
        its bound; there the gradient is that of the side on which the step ends. A control beyond its bound has the gradient
        zero, which is its derivative.
    Raises: UserError for an unknown integrator, a horizon or rate that is not positive, shapes that do not fit the tree,
        controls that are NaN.
    """

    def __init__(
        self,
        tree: Topology,
        *,
        frame_rate: float,
        frame_count: int,
        substeps: int = 8,
        integrator: str = "implicit",
        chunk: int | None = None,
        window: int | None = None,
        controller: nn.Module | None = None,
        fused: bool | None = None,
    ):
        super().__init__()
        if integrator not in INTEGRATORS:
            raise UserError(f"ArticulatedRollout.integrator: expected one of {', '.join(INTEGRATORS)}, got {integrator!r}")
        require_rate("ArticulatedRollout", frame_rate)
        require_counts("ArticulatedRollout", frame_count=frame_count, substeps=substeps, chunk=chunk)
        check_window("ArticulatedRollout.window", window)
        self.tree, self.integrator, self.controller, self.window = tree, integrator, controller, window
        self.frame_rate, self.frame_count = float(frame_rate), int(frame_count)
        self.substeps, self.chunk, self.fused = int(substeps), None if chunk is None else int(chunk), fused
        self.tables = tables(tree)

    def extra_repr(self) -> str:
        steps = f"{self.frame_count} frames at {self.frame_rate:g} 1/s, {self.substeps} substeps"
        return f"{self.tree.name!r}, {steps}, {self.integrator}"

    def forward(
        self,
        state: State,
        linkage: Linkage,
        gravity: Tensor | None = None,
        controls: Tensor | None = None,
        wrenches: Tensor | None = None,
    ) -> ArticulatedTrajectory:
        tree, q, v = self.tree, state.position, state.velocity
        require_shape("ArticulatedRollout.state.position", q, (tree.coordinate_count,))
        require_shape("ArticulatedRollout.state.velocity", v, (tree.rate_count,))
        drives, links = len(tree.actuators), len(tree.links)
        gravity = q.new_tensor([[0.0, 0.0, -9.81]]) if gravity is None else gravity
        if self.controller is not None and controls is not None:
            raise UserError("ArticulatedRollout.controls: expected None because a controller was given, got a tensor")
        controls = q.new_zeros(1, 1, drives) if controls is None else controls
        wrenches = q.new_zeros(1, 1, links, 6) if wrenches is None else wrenches
        require_shape("ArticulatedRollout.gravity", gravity, (3,))
        require_loads("ArticulatedRollout", tree, self.frame_count, controls, wrenches)
        packed = pack(tree, linkage)
        worlds = world_count(q, v, gravity, controls, wrenches, *packed)
        q, v = expand_worlds(q, worlds), expand_worlds(v, worlds)
        tables_here = tuple(t.to(q.device) for t in self.tables)
        coordinates, rates = [q[:, None]], [v[:, None]]
        fused = not q.is_cuda if self.fused is None else self.fused
        chunk = 1 if self.controller is not None else self.chunk or self._chunk(worlds, fused)
        for done, frames in calls(self.frame_count, chunk, self.window):
            q, v = carried(done, self.window, q, v)
            if self.controller is not None:
                controls = self.controller(q, v, done / self.frame_rate)
                require_shape("ArticulatedRollout.controller", controls, (drives,))
                require_numbers("ArticulatedRollout.controller", controls)
                controls = controls[:, None]
            now = [t if t.shape[1] == 1 else t[:, done : done + frames] for t in (controls, wrenches)]
            next_q, next_v = articulated_step(
                q, v, *packed, *now, gravity, *tables_here,
                integrator=self.integrator, dt=1.0 / (self.frame_rate * self.substeps), substeps=self.substeps, frames=frames,
                fused=fused,
            )  # fmt: skip
            coordinates.append(next_q)
            rates.append(next_v)
            q, v = next_q[:, -1], next_v[:, -1]
        all_q, all_v = torch.cat(coordinates, dim=1), torch.cat(rates, dim=1)
        motion = motion_of(all_q, all_v, packed[0], tables_here[0])
        return ArticulatedTrajectory(
            all_q, all_v, motion.positions, motion.orientations, motion.velocities, motion.spins, 1.0 / self.frame_rate
        )

    def _chunk(self, worlds: int, fused: bool) -> int:
        nodes = self.substeps * (4 if self.integrator == "rk4" else 1)
        rates = self.tree.rate_count
        numbers = self.tree.coordinate_count + 2 * rates if fused else rates * (rates + 6)
        chunk = CHUNK_BYTES // max(1, 4 * worlds * numbers * nodes)
        return max(1, min(chunk, self.frame_count if fused else CHUNK_STEPS // nodes))
