"""The kinds of body a roll-out can step: free particle, revolute joint, spherical joint.

A kind knows how its named quantities are packed for the step op, and where the body is in a given state. The op steps
a whole stretch of motion: one call, one thread a world, states indexed by substep.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
import warp as wp
from torch import Tensor

from dvc.errors import UserError
from dvc.records import Bodies, State, expand_worlds
from dvc.warp_op import scratch, warp_op
from physics.impact_step import impact_kernels
from physics.joints import REVOLUTE, SPHERICAL
from physics.particle import PARTICLE

FAR_AWAY = 1.0e6  # [m], the offset of a wall that is not there


class Forces(NamedTuple):
    """What acts on a body; every tensor has a leading world axis."""

    acceleration: Tensor  # gravity [m/s^2], (world, 3)
    damping: Tensor  # decay rate of the velocity [1/s], (world,)
    quadratic_drag: Tensor  # k in f = -m k |v| v [1/m], (world,)
    restitution: Tensor  # at 1 m/s, (world,)
    restitution_slope: Tensor  # change of restitution with normal speed [s/m], (world,)
    tangential_loss: Tensor  # fraction of tangential velocity lost at an impact, (world,)
    wall_normal: Tensor  # unit, into the wall, (world, 3)
    wall_offset: Tensor  # gap of the body's centre at the origin, radius taken off [m], (world,)


class Kind(Protocol):
    """A kind of body."""

    step: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]

    def pack(self, bodies: Bodies, forces: Forces, load: Tensor, worlds: int) -> Tensor:
        """Parameter vectors; `load` is a force [N] (particle) or a torque about the pivot [N m], world axes, (world, 3)."""

    def place(self, states: Tensor, bodies: Bodies) -> tuple[Tensor, Tensor]:
        """State vectors (world, ..., n) -> position of the centre [m] (..., 3), orientation (..., 4)."""

    def state_vector(self, state: State) -> Tensor:
        """(world, n) state vector of a State."""

    def velocity(self, x: Tensor, position: Tensor, orientation: Tensor) -> Tensor:
        """Velocity of the centre of mass [m/s], (world, 3), of a state vector that was placed."""


def _step_op(name: str, kind: tuple) -> Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]]:
    """The step op of one kind: states at all nodes, state and fraction of each impact, incoming normal speed."""
    state_type, parameter_type = kind[0], kind[-1]

    def step(initial: wp.array(dtype=state_type), parameters: wp.array(dtype=parameter_type), *, interval: float, steps: int):  # type: ignore[valid-type]
        kernels = impact_kernels(*kind)
        worlds = initial.shape[0]
        mode = scratch((worlds, steps), wp.int32, requires_grad=False)
        time = scratch((worlds, steps), wp.float32, requires_grad=False)
        states = scratch((worlds, steps + 1), state_type)
        at_wall = scratch((worlds, steps), state_type)
        fraction = scratch((worlds, steps), wp.float32)
        speed = scratch((worlds, steps), wp.float32)
        wp.launch(kernels.find, worlds, [initial, parameters, interval, steps], [mode, time])
        wp.launch(
            kernels.replay, worlds, [initial, parameters, mode, time, interval, steps], [states, at_wall, fraction, speed]
        )
        return states, at_wall, fraction, speed

    step.__name__ = step.__qualname__ = name
    return warp_op(step, trace_limit=24, threads=None)


def _rotate(q: Tensor, v: Tensor) -> Tensor:
    """Rotate vectors (..., 3) by unit quaternions (..., 4), scalar last."""
    u, s = q[..., :3], q[..., 3:]
    t = 2.0 * torch.linalg.cross(u, v.expand_as(u))
    return v + s * t + torch.linalg.cross(u, t)


def _inertia_about_pivot(bodies: Bodies) -> Tensor:
    """Parallel axis theorem: I_com + m (|c|^2 1 - c c^T), (world, 3, 3)."""
    c = bodies.center_of_mass
    eye = torch.eye(3, dtype=c.dtype, device=c.device)
    shift = (c * c).sum(-1)[:, None, None] * eye - c[:, :, None] * c[:, None, :]
    return bodies.inertia + bodies.mass[:, None, None] * shift


def _columns(worlds: int, *parts: Tensor) -> Tensor:
    return torch.cat([expand_worlds(p if p.dim() == 2 else p[:, None], worlds) for p in parts], dim=1)


def _joint_parts(bodies: Bodies, forces: Forces, load: Tensor) -> tuple[Tensor, ...]:
    """Parameters 0-17, which both kinds of joint share (see `physics.joints`)."""
    mass = bodies.mass[:, None]
    return (
        bodies.center_of_mass,
        mass * forces.acceleration,
        load,
        mass * forces.quadratic_drag[:, None],
        forces.damping,
        forces.restitution,
        forces.restitution_slope,
        forces.tangential_loss,
        forces.wall_normal,
        forces.wall_offset,
    )


def _swung(q: Tensor, bodies: Bodies) -> Tensor:
    """Pivot to centre of mass [m], turned by orientations (world, ..., 4)."""
    arm = bodies.center_of_mass.reshape(-1, *([1] * (q.dim() - 2)), 3)
    return _rotate(q, arm.expand(*q.shape[:-1], 3))


class Particle:
    """A ball without spin that flies freely."""

    step = staticmethod(_step_op("particle_step", PARTICLE))

    def pack(self, bodies: Bodies, forces: Forces, load: Tensor, worlds: int) -> Tensor:
        acceleration = forces.acceleration + load / bodies.mass[:, None]
        return _columns(
            worlds,
            acceleration,
            forces.damping,
            forces.quadratic_drag,
            forces.restitution,
            forces.restitution_slope,
            forces.tangential_loss,
            forces.wall_normal,
            forces.wall_offset,
        )

    def place(self, states: Tensor, bodies: Bodies) -> tuple[Tensor, Tensor]:
        identity = states.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*states.shape[:-1], 4)
        return states[..., :3], identity

    def state_vector(self, state: State) -> Tensor:
        return torch.cat([state.position, state.velocity], dim=-1)

    def velocity(self, x: Tensor, position: Tensor, orientation: Tensor) -> Tensor:
        return x[:, 3:]


class Spherical:
    """A body that turns about a fixed pivot (the world's origin)."""

    step = staticmethod(_step_op("spherical_step", SPHERICAL))

    def pack(self, bodies: Bodies, forces: Forces, load: Tensor, worlds: int) -> Tensor:
        inertia = _inertia_about_pivot(bodies)
        return _columns(
            worlds,
            *_joint_parts(bodies, forces, load),
            inertia.flatten(1),
            torch.linalg.inv(inertia).flatten(1),
        )

    def place(self, states: Tensor, bodies: Bodies) -> tuple[Tensor, Tensor]:
        q = states[..., :4]
        return _swung(q, bodies), q

    def state_vector(self, state: State) -> Tensor:
        return torch.cat([state.position, state.velocity], dim=-1)

    def velocity(self, x: Tensor, position: Tensor, orientation: Tensor) -> Tensor:
        return torch.linalg.cross(_rotate(orientation, x[:, 4:]), position)


class Revolute:
    """A body that turns about a fixed axis through the world's origin.

    Arguments: axis: unit vector in world axes. The centre of mass at angle 0 is the body frame's.
    """

    step = staticmethod(_step_op("revolute_step", REVOLUTE))

    def __init__(self, axis: tuple[float, float, float] = (0.0, -1.0, 0.0)):
        length = sum(a * a for a in axis) ** 0.5
        if not 0.999 < length < 1.001:
            raise UserError(f"Revolute.axis: expected a unit vector, got {axis} of length {length:.4g}")
        self.axis = tuple(float(a) / length for a in axis)

    def pack(self, bodies: Bodies, forces: Forces, load: Tensor, worlds: int) -> Tensor:
        axis = bodies.mass.new_tensor(self.axis)[None]
        about_axis = torch.einsum("i,wij,j->w", axis[0], _inertia_about_pivot(bodies), axis[0])
        return _columns(
            worlds,
            *_joint_parts(bodies, forces, load),
            axis,
            about_axis,
        )

    def place(self, states: Tensor, bodies: Bodies) -> tuple[Tensor, Tensor]:
        half = 0.5 * states[..., :1]
        axis = states.new_tensor(self.axis)
        q = torch.cat([torch.sin(half) * axis, torch.cos(half)], dim=-1)
        return _swung(q, bodies), q

    def state_vector(self, state: State) -> Tensor:
        return torch.cat([state.position, state.velocity], dim=-1)

    def velocity(self, x: Tensor, position: Tensor, orientation: Tensor) -> Tensor:
        return torch.linalg.cross(x[:, 1:] * x.new_tensor(self.axis), position)


KINDS: dict[str, Callable[..., Any]] = {"particle": Particle, "spherical": Spherical, "revolute": Revolute}
