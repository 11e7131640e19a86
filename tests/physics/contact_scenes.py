"""Bodies and scenes for the tests of contact."""

import math

import torch
from torch import Tensor

from dvc.records import State
from physics.articulation import Linkage
from physics.contact_scene import ContactRollout, ContactScene, Shape
from tests.physics.trees import plain_linkage, tree_of

ONE = tree_of([1], [-1])
GROUND = Shape("half_space")
DOWN = torch.tensor([[0.0, 0.0, -9.81]])


def box_linkage(half: Tensor, density: Tensor | float = 1000.0) -> Linkage:
    """One free box; half extents (world, 3)."""
    s = half * half
    mass = torch.as_tensor(density) * 8.0 * half.prod(-1)
    diagonal = torch.stack([s[:, 1] + s[:, 2], s[:, 0] + s[:, 2], s[:, 0] + s[:, 1]], -1)
    inertia = mass[:, None, None] / 3.0 * torch.diag_embed(diagonal)
    return plain_linkage(ONE, mass=mass[:, None], inertia=inertia[:, None])


def ball_linkage(radius: Tensor, density: Tensor | float = 1000.0) -> Linkage:
    """One free ball; radius (world,)."""
    mass = torch.as_tensor(density) * (4.0 / 3.0 * math.pi) * radius**3
    inertia = (0.4 * mass * radius * radius)[:, None, None] * torch.eye(3)
    return plain_linkage(ONE, mass=mass[:, None], inertia=inertia[:, None])


def free_state(position: Tensor, velocity: Tensor, rotation: Tensor | None = None) -> State:
    """position (world, 3), velocity (world, 6)."""
    upright = torch.tensor([[0.0, 0.0, 0.0, 1.0]]) if rotation is None else rotation
    return State(torch.cat([position, upright.expand(position.shape[0], 4)], dim=1), velocity)


def rest_depth(load: float, stiffness: float, exponent: float = 1.5) -> float:
    """Penetration at which one contact carries `load`."""
    return (load / stiffness) ** (1.0 / exponent)


def rollout(scene: ContactScene, time: float, dt: float, substeps: int = 10, **options: int) -> ContactRollout:
    frames = round(time / (dt * substeps))
    return ContactRollout(scene.tree, scene, frame_rate=1.0 / (dt * substeps), frame_count=frames, substeps=substeps, **options)
