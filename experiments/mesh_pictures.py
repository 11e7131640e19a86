"""Shaded pictures of meshes for reports, from the project's own renderer."""

import numpy as np
import torch

from dvc.records import Camera, Film, Mesh, Shutter
from render.camera import rotation_from_angles
from render.mesh_stage import MeshRender

WIDTH, HEIGHT = 360, 300


@torch.no_grad()
def shaded(mesh: Mesh, yaw: float = 0.6, pitch: float = -0.25, frame: Mesh | None = None, samples: int = 8) -> np.ndarray:
    """The first world's mesh from the side, uint8 (row, column, 3); `frame`: the mesh that fills the picture (default: it)."""
    points = mesh.vertices[:1].detach().cpu()
    filling = points[0] if frame is None else frame.vertices[0].detach().cpu()
    low, high = filling.amin(0), filling.amax(0)
    middle, size = 0.5 * (low + high), float((high - low).norm())
    rotation = rotation_from_angles(torch.tensor([pitch]), torch.zeros(1), torch.tensor([yaw]))
    position = middle[None] - 2.0 * size * rotation[:, 2]
    focal = torch.tensor([min(WIDTH, HEIGHT) / size])
    camera = Camera(position, rotation, focal, torch.tensor([[WIDTH / 2, HEIGHT / 2]]), True)
    film = Film(WIDTH, HEIGHT, 0.0, 0.0, WIDTH, HEIGHT, 1.0)
    image = MeshRender(samples=samples)(
        Mesh(points, mesh.faces.cpu()), torch.zeros(1, 1, 3), torch.tensor([[[0.0, 0.0, 0.0, 1.0]]]), camera,
        Shutter(torch.zeros(1), torch.zeros(1, 2)), torch.ones(HEIGHT, WIDTH, 3), film, torch.tensor([[0.75, 0.72, 0.68]]),
        torch.nn.functional.normalize(torch.tensor([[-0.4, -0.6, 0.7]]), dim=-1), torch.tensor([0.35]),
    )  # fmt: skip
    return (image[0].clamp(0.0, 1.0) * 255.0 + 0.5).to(torch.uint8).numpy()
