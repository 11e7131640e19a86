"""Where a pendulum starts and where its wall is, in the angles that a user thinks in.

World: z up, the wall towards +x, y away from the camera; the pivot is the origin. The string's direction is
R_x(depth_angle) R_y(-angle) (0, 0, -1): `angle` from gravity towards the wall, `depth_angle` out of the swing plane.
"""

import torch
from torch import Tensor, nn

from dvc.records import State, Wall


class SphericalStart(nn.Module):
    """angle, depth_angle [rad], rate, depth_rate [rad/s], each (world,) -> State of a body on a spherical joint."""

    def forward(self, angle: Tensor, rate: Tensor, depth_angle: Tensor, depth_rate: Tensor) -> State:
        angle, rate, depth_angle, depth_rate = torch.broadcast_tensors(angle, rate, depth_angle, depth_rate)
        s, c = torch.sin(-0.5 * angle), torch.cos(0.5 * angle)
        ds, dc = torch.sin(0.5 * depth_angle), torch.cos(0.5 * depth_angle)
        quaternion = torch.stack([ds * c, dc * s, ds * s, dc * c], dim=-1)  # R_x R_y, scalar last
        sin, cos = torch.sin(angle), torch.cos(angle)
        velocity = torch.stack([depth_rate * cos, -rate, -depth_rate * sin], dim=-1)  # R_y^T (depth_rate, 0, 0) + (0, -rate, 0)
        return State(quaternion, velocity)


class RevoluteStart(nn.Module):
    """angle [rad] and rate [rad/s], each (world,) -> State of a body on a revolute joint."""

    def forward(self, angle: Tensor, rate: Tensor) -> State:
        angle, rate = torch.broadcast_tensors(angle, rate)
        return State(angle[:, None], rate[:, None])


class ParticleStart(nn.Module):
    """position [m] and velocity [m/s], each (world, 3) -> State of a particle."""

    def forward(self, position: Tensor, velocity: Tensor) -> State:
        return State(*torch.broadcast_tensors(position, velocity))


class PendulumArm(nn.Module):
    """length [m] (world,) -> where the ball's centre sits in the pendulum's body frame, (world, 3): (0, 0, -length)."""

    def forward(self, length: Tensor) -> Tensor:
        zero = torch.zeros_like(length)
        return torch.stack([zero, zero, -length], dim=-1)


class PendulumWall(nn.Module):
    """The vertical wall that a ball meets when its string makes `angle` with gravity.

    length, radius [m], angle [rad] and yaw [rad] (turn of the wall's normal about the vertical, towards depth), (world,).
    """

    def forward(self, length: Tensor, radius: Tensor, angle: Tensor, yaw: Tensor) -> Wall:
        offset = length * torch.sin(angle) + radius
        normal = torch.stack([torch.cos(yaw), torch.sin(yaw), torch.zeros_like(yaw)], dim=-1)
        return Wall(normal, offset)
