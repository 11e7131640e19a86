"""Chains of capsules whose lengths, radii and densities are inputs: one that swings, one that walks. Each gives a distance.

swing   hangs from the world by revolute joints about y, let go at `angle` a joint; distance: x of its free end
walk    lies on the ground on a free joint, its joints follow a travelling wave by PD; distance: way of its first link along x
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from dvc.records import State
from physics.articulated_rollout import ArticulatedRollout
from physics.articulation import Linkage
from physics.contact_scene import ContactRollout, ContactScene, Shape
from physics.robot import Robot

TURNED = (0.0, math.sqrt(0.5), 0.0, math.sqrt(0.5))  # the capsule's axis z along x


def chain_robot(links: int, *, free: bool, damping: float = 0.0, kp: float = 0.0, kd: float = 0.0) -> Robot:
    """Capsules end to end along x; parameters length0, radius0, density0, length1, ...; driven by position where kp > 0."""
    names = [f"link{i}" for i in range(links)]
    shapes = {
        name: {"shapes": [{"kind": "capsule", "size": [f"radius{i}", f"length{i} / 2"], "position": [f"length{i} / 2", 0, 0],
                           "rotation": list(TURNED), "density": f"density{i}"}]}
        for i, name in enumerate(names)
    }  # fmt: skip
    joints = {
        f"joint{i}": {"kind": "free" if free and i == 0 else "revolute", "parent": names[i - 1] if i else None, "child": name,
                      "axis": [0, 1, 0], "position": [f"length{i - 1}" if i else 0, 0, 0],
                      "damping": damping if i or not free else 0.0}
        for i, name in enumerate(names)
    }  # fmt: skip
    motors = {f"motor{i}": {"joint": f"joint{i}", "kind": "position", "kp": kp, "kd": kd} for i in range(1, links) if kp > 0.0}
    defaults = {
        f"{name}{i}": value for i in range(links) for name, value in (("length", 0.1), ("radius", 0.02), ("density", 1e3))
    }
    return Robot(shapes, joints, motors, parameters=defaults, name="chain")


def numbered(**values: Tensor) -> dict[str, Tensor]:
    """length (world, link) and the like -> length0 (world,), length1, ..."""
    return {f"{name}{i}": column for name, value in values.items() for i, column in enumerate(value.unbind(dim=1))}


class SwingingChain(nn.Module):
    """Arguments: links; seconds; angle [rad] of the first joint below the horizontal, and of each of the others against the one
    before; step [s].

    Forward: length, radius [m], density [kg/m^3], each (world, link) -> distance [m] (world,). Gradient: complete.
    """

    def __init__(self, links: int, seconds: float = 1.0, angle: float = 0.4, step: float = 2e-3):
        super().__init__()
        self.robot = chain_robot(links, free=False)
        self.links, self.angle, self.step = int(links), float(angle), float(step)
        frames = max(1, round(seconds / (10 * step)))
        self.rollout = ArticulatedRollout(
            self.robot.topology, frame_rate=1.0 / (10 * step), frame_count=frames, substeps=10, integrator="rk4"
        )

    def linkage(self, length: Tensor, radius: Tensor, density: Tensor) -> Linkage:
        return self.robot(**numbered(length=length, radius=radius, density=density))

    def start(self) -> Tensor:
        """Joint angles at the start, (1, link)."""
        return torch.full((1, self.links), self.angle)

    def forward(self, length: Tensor, radius: Tensor, density: Tensor) -> Tensor:
        q = self.start().to(length)
        motion = self.rollout(State(q, torch.zeros_like(q)), self.linkage(length, radius, density))
        x, _y, z, w = motion.orientations[:, -1, -1].unbind(dim=-1)
        return motion.positions[:, -1, -1, 0] + length[:, -1] * (w * w + x * x - z * z - _y * _y)  # R e_x along x


class WalkingChain(nn.Module):
    """Arguments: links; seconds; amplitude [rad], frequency [1/s] and lag [rad] of the wave; kp [N m/rad], kd [N m s/rad];
    friction; width [m/s] over which friction is smoothed; stiffness [N/m^1.5] of the contact; substeps a frame of 1/60 s.

    Forward and gradient as `SwingingChain`; the gradient holds contact forces, live normals and the touching shapes' sizes.
    """

    def __init__(self, links: int, seconds: float = 1.0, amplitude: float = 0.5, frequency: float = 1.5, lag: float = 1.2,
                 kp: float = 3.0, kd: float = 0.1, friction: float = 0.8, width: float = 0.05, stiffness: float = 2e4,
                 substeps: int = 16):  # fmt: skip
        super().__init__()
        self.robot = chain_robot(links, free=True, damping=0.01, kp=kp, kd=kd)
        self.links = int(links)
        self.material: dict[str, Any] = {"friction": friction, "width": width, "stiffness": stiffness}
        capsules = [Shape("capsule", i, (0.05, 0.02), (0.05, 0.0, 0.0), TURNED) for i in range(links)]
        self.scene = ContactScene(self.robot.topology, [Shape("half_space"), *capsules])
        frames = max(1, round(60 * seconds))
        self.rollout = ContactRollout(self.robot.topology, self.scene, frame_rate=60.0, frame_count=frames, substeps=substeps)
        t = torch.arange(frames)[:, None] / 60.0
        wave = torch.sin(2.0 * math.pi * frequency * t - lag * torch.arange(1, links))
        self.register_buffer("controls", (amplitude * wave * (4.0 * t).clamp(max=1.0))[None], persistent=False)

    def forward(self, length: Tensor, radius: Tensor, density: Tensor) -> Tensor:
        worlds = len(length)
        middle = nn.functional.pad(0.5 * length[..., None], (0, 2))
        numbers = self.scene.numbers(
            size=[None, *torch.stack([0.5 * length, radius], dim=-1).unbind(dim=1)],
            position=torch.cat([length.new_zeros(worlds, 1, 3), middle], dim=1),
            **self.material,
        )
        q, v = self.robot.start(worlds)
        q = torch.cat([q[:, :2], radius[:, :1], q[:, 3:]], dim=1)
        linkage = self.robot(**numbered(length=length, radius=radius, density=density))
        motion = self.rollout(State(q, v), linkage, numbers, controls=self.controls)
        return motion.coordinates[:, -1, 0] - q[:, 0]
