"""A mesh whose vertices are unknowns, held in the coordinates of large steps.

x = (I + lambda L)^-1 u (Nicolet, Jacobson and Jakob 2021, eq. 10): descent moves u; lambda = 0 moves the vertices themselves.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from dvc.errors import UserError
from dvc.records import Mesh
from geometry.large_steps import LargeSteps
from geometry.mesh import check_mesh, icosphere


def split_faces(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every face cut in four at the middles of its edges: vertices (vertex, 3) and faces (face, 3)."""
    sides = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
    pairs, index = np.unique(sides, axis=0, return_inverse=True)
    ab, bc, ca = (len(vertices) + index.reshape(-1, 3)).T
    a, b, c = faces.T
    parts = [np.stack(t, axis=1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))]
    return np.concatenate([vertices, vertices[pairs].mean(axis=1)]), np.concatenate(parts).astype(np.int32)


class FreeMesh(nn.Module):
    """One mesh whose vertices all move.

    Arguments: vertices [m] (vertex, 3) and faces (face, 3), closed or open; smoothness: lambda, from 0.
    Forward: () -> Mesh of one world. The unknowns `u` [m] (1, vertex, 3) are weights of the pipeline.
    Gradient: complete, to u.
    """

    faces: Tensor  # (face, 3)

    def __init__(self, vertices: Sequence[Sequence[float]] | np.ndarray, faces: Sequence[Sequence[int]] | np.ndarray,
                 smoothness: float = 19.0):  # fmt: skip
        super().__init__()
        points, topology = check_mesh("FreeMesh", np.asarray(vertices, np.float32), np.asarray(faces, np.int64))
        self.register_buffer("faces", topology, persistent=False)
        self.steps = LargeSteps(topology, len(points), smoothness)
        self.u = nn.Parameter(self.steps.to_parameters(points[None]))

    def forward(self) -> Mesh:
        return Mesh(self.steps(self.u), self.faces)

    def set_vertices(self, vertices: Tensor) -> None:
        """Move the mesh to vertices [m] (1, vertex, 3)."""
        with torch.no_grad():
            self.u.copy_(self.steps.to_parameters(vertices))

    def refined(self, smoothness: float) -> "FreeMesh":
        """The same surface with every face cut in four."""
        with torch.no_grad():
            vertices = self().vertices[0].cpu().numpy()
        return FreeMesh(*split_faces(vertices, self.faces.cpu().numpy()), smoothness=smoothness)


def free_sphere(center: Sequence[float], radius: float, subdivisions: int, smoothness: float = 19.0) -> FreeMesh:
    """An icosphere of radius [m] about a centre [m], as a `FreeMesh`."""
    if not 0.0 < radius < float("inf"):
        raise UserError(f"free_sphere.radius: expected a positive number, got {radius}")
    vertices, faces = icosphere(subdivisions)
    return FreeMesh(radius * vertices + np.asarray(center, np.float32), faces, smoothness=smoothness)
