"""One moving mesh over a plate, lit from one direction: what the tests of moving bodies render."""

import math

import torch
from torch import Tensor

from dvc.records import Camera, Film, Mesh, Shutter
from geometry.mesh_topology import mesh_topology
from render.path_render import PathRender
from render.scene import Body, DirectionalLight, Material, Poses, Scene


def mesh_image(
    mesh: Mesh, positions: Tensor, orientations: Tensor, camera: Camera, shutter: Shutter, plate: Tensor, film: Film,
    color: Tensor, light: Tensor | None = None, frame_interval: float = 1.0, node_interval: float = 1.0, seed: int = 0,
    samples: int = 64, edge_samples: int = 64, side_offset: float = 0.01,
) -> Tensor:  # fmt: skip
    """Images (view, row, column, 3). light (., 3): towards the light, any length; None: the body shines by itself."""
    lights = [] if light is None else [DirectionalLight(-light, torch.full_like(light, math.pi))]
    black = torch.zeros_like(color)
    clay = Material(black, emission=color) if light is None else Material(color, two_sided=True)
    scene = Scene([Body(mesh, "clay", poses=Poses(positions, orientations))], {"clay": clay}, lights)
    count = edge_samples * len(mesh_topology(mesh.faces).edges)
    render = PathRender(
        samples, 1 if light is None else 2, boundary_samples=(count, count, 0), side_offset=side_offset
    )  # fmt: skip
    return render(scene, camera, film, shutter, seed, plate[None], frame_interval=frame_interval, node_interval=node_interval)
