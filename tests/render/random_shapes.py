"""Random numbers that move along random directions, and random shapes: what `tests.render.random_scenes` is made of."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from geometry.mesh import box_mesh, icosphere

REACH = 0.36  # largest radius of a body [m]
MESHES = ("box", "ball of 20 faces", "ball of 80 faces", "quad", "tetrahedron", "triangles")

Number = Callable[[Tensor], Tensor]


class Draw:
    """Random numbers, and the list of those that move."""

    def __init__(self, seed: int):
        self.rng = np.random.default_rng(seed)
        self.names: list[str] = []
        self.steps: list[float] = []
        self.moving: list[bool] = []  # whether what is seen moves, not only how bright it is
        self.columns: dict[int, int] = {}

    def uniform(self, low: float, high: float, *shape: int) -> Tensor:
        return torch.tensor(self.rng.uniform(low, high, shape), dtype=torch.float32)

    def number(self, low: float, high: float) -> float:
        return float(self.rng.uniform(low, high))

    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def choose(self, options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def normal(self, *shape: int) -> Tensor:
        return torch.tensor(self.rng.standard_normal(shape), dtype=torch.float32)

    def add(self, name: str, base: Tensor, direction: Tensor, step: float, moving: bool) -> Number:
        """A number (world, *base.shape) of the scene. The direction is scaled so that its largest entry is 1."""
        index = len(self.names)
        self.names.append(name)
        self.steps.append(step)
        self.moving.append(moving)
        direction = direction / direction.abs().max()

        def value(t: Tensor) -> Tensor:
            column = self.columns.get(index)
            if column is None:
                return base[None]
            return base + t[:, column].reshape(-1, *[1] * base.dim()) * direction

        return value

    def shine(self, name: str, base: Tensor, step: float = 0.02) -> Number:
        """Something of which brightness depends smoothly: moves relative to its size."""
        return self.add(name, base, self.normal(*base.shape) * base, step * float(base.abs().max()), False)


def turned(draw: Draw) -> Tensor:
    q, r = np.linalg.qr(draw.rng.standard_normal((3, 3)))
    q = q * np.sign(np.diag(r))
    return torch.tensor(q * np.sign(np.linalg.det(q)), dtype=torch.float32)


def rectangle(draw: Draw, normal: Tensor, half: Tensor) -> Tensor:
    """Four corners about the origin, facing along `normal`, turned at random about it."""
    n = normal / normal.norm()
    u = torch.linalg.cross(n, draw.normal(3))
    u = u / u.norm()
    v = torch.linalg.cross(n, u)
    return torch.stack(
        [-u * half[0] - v * half[1], u * half[0] - v * half[1], u * half[0] + v * half[1], -u * half[0] + v * half[1]]
    )


QUAD = torch.tensor([[0, 1, 2], [0, 2, 3]], dtype=torch.int32)


def shape_of(draw: Draw, kind: str) -> tuple[Tensor, Tensor]:
    """Vertices about the origin within REACH, and faces."""
    if kind == "box":
        points, faces = map(torch.from_numpy, box_mesh())
        half = draw.uniform(0.5, 1.0, 3)
        return points * half * (REACH / half.norm()) @ turned(draw).T, faces
    if kind.startswith("ball"):
        points, faces = icosphere(0 if "20" in kind else 1)
        return torch.tensor(points, dtype=torch.float32) * draw.number(0.22, REACH) @ turned(draw).T, torch.tensor(faces).int()
    if kind == "quad":
        half = draw.uniform(0.15, 0.25, 2)
        return rectangle(draw, draw.normal(3), half), QUAD
    if kind == "tetrahedron":
        points = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) * (REACH / math.sqrt(3.0))
        faces = torch.tensor([[0, 1, 2], [0, 3, 1], [0, 2, 3], [1, 3, 2]], dtype=torch.int32)
        return points * draw.uniform(0.7, 1.0, 3) @ turned(draw).T, faces
    points = torch.zeros(0, 3)  # triangles that do not touch
    for side in (-1.0, 1.0):
        corner = torch.tensor([[1.0, 0, 0], [-0.5, 0.866, 0], [-0.5, -0.866, 0]]) * draw.uniform(0.12, 0.17, 3, 1)
        points = torch.cat([points, corner @ turned(draw).T + torch.tensor([0.0, 0.0, 0.18 * side])])
    return points @ turned(draw).T, torch.arange(6, dtype=torch.int32).reshape(2, 3)
