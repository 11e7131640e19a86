"""Shaded pictures of meshes for reports, from the project's own renderer."""

import math

import numpy as np
import torch

from dvc.records import Camera, Film, Mesh
from render.camera import rotation_from_angles
from render.path_render import PathRender
from render.scene import Body, DirectionalLight, Material, Scene

WIDTH, HEIGHT = 360, 300


@torch.no_grad()
def shaded(mesh: Mesh, yaw: float = 0.6, pitch: float = -0.25, frame: Mesh | None = None, samples: int = 48) -> np.ndarray:
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
    light = DirectionalLight(torch.tensor([[0.4, 0.6, -0.7]]), torch.full((1, 3), 0.8 * math.pi))
    scene = Scene(
        [Body(Mesh(points, mesh.faces.cpu()), "clay")], {"clay": Material((0.75, 0.72, 0.68), two_sided=True)}, [light],
        environment=torch.full((1, 3), 0.35),
    )  # fmt: skip
    image = PathRender(samples=samples, depth=2)(scene, camera, film, plate=torch.ones(1, HEIGHT, WIDTH, 3))
    return (image[0].clamp(0.0, 1.0) * 255.0 + 0.5).to(torch.uint8).numpy()
