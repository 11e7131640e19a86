"""Bodies and textures made by rule, for pictures without any data."""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from dvc.errors import UserError
from dvc.records import Mesh, SdfGrid
from geometry.isosurface import extract_isosurface
from geometry.mesh import box_mesh
from geometry.sdf_blend import smooth_union
from geometry.sdf_evaluate import sdf_distance
from geometry.sdf_grid import grid_nodes
from geometry.sdf_shapes import ellipsoid, moved, sphere, tapered_capsule, torus

FALL = 0.75


def blotches(size: int, seed: int, coarsest: int = 2) -> Tensor:
    """A texture (1, size, size, 3) in (0, 1): random colours at `coarsest`, twice, four times ... the resolution, each
    FALL times as strong as the one before.

    Coarse colours can be matched from far off, fine ones tell exactly where they are. size: a power of two times coarsest.
    """
    generator = torch.Generator().manual_seed(seed)
    total, strength, side = torch.zeros(1, 3, size, size), 1.0, coarsest
    while side <= size:
        colours = strength * (2.0 * torch.rand(1, 3, side, side, generator=generator) - 1.0)
        total = total + functional.interpolate(colours, size=(size, size), mode="bilinear", align_corners=False)
        strength, side = FALL * strength, 2 * side
    return torch.sigmoid(2.0 * total).permute(0, 2, 3, 1).contiguous()


def box(half: tuple[float, float, float], center: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> tuple[Mesh, Tensor]:
    """A box and its texture coordinates (12, 3, 2): a third of the width and half of the height of a texture for each side."""
    vertices, faces = box_mesh()
    points = vertices.astype(np.float64)
    points = points / np.abs(points).max()
    corners = points[faces]  # (12, 3, 3), each coordinate -1 or 1
    uv = np.zeros((len(faces), 3, 2))
    for n, corner in enumerate(corners):
        axis = int(np.abs(corner.sum(0)).argmax())
        plane = np.delete(corner, axis, axis=1)
        cell = np.array([axis, corner[0, axis] > 0.0])
        uv[n] = (cell + 0.5 + 0.45 * plane) / [3.0, 2.0]
    placed = torch.from_numpy(points * np.array(half) + np.array(center)).float()[None]
    return Mesh(placed, torch.from_numpy(np.asarray(faces)).to(torch.int32)), torch.from_numpy(uv).float()


def board(half_x: float, half_y: float) -> tuple[Mesh, Tensor]:
    """A rectangle in the plane z = 0, seen from above, and its texture coordinates (2, 3, 2)."""
    xy = torch.tensor([[-1.0, -1.0], [1.0, -1.0], [1.0, 1.0], [-1.0, 1.0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]], dtype=torch.int32)
    points = torch.cat([xy * torch.tensor([half_x, half_y]), torch.zeros(4, 1)], dim=1)
    return Mesh(points[None], faces), (0.5 + 0.5 * xy)[faces.long()]


@torch.no_grad()
def teapot(length: float, nodes: int = 30) -> Mesh:
    """A closed teapot about its middle, spout towards +x, handle towards -x, knob upwards; vertices [m] (1, vertex, 3).

    The surface of a smooth union of primitives; length [m]: from handle to spout; nodes: of the grid, along it.
    """
    if not length > 0.0 or nodes < 16:
        raise UserError(f"teapot: expected a length above 0 and at least 16 nodes, got {length} and {nodes}")
    lean, upright = 0.4, math.sin(0.25 * math.pi)  # half angles: of the spout from the vertical, of the handle's ring
    solid = smooth_union(
        ellipsoid((0.36, 0.36, 0.26)),
        moved(tapered_capsule(0.17, 0.085, 0.045), (0.42, 0.0, 0.07), (0.0, math.sin(lean), 0.0, math.cos(lean))),
        moved(torus(0.16, 0.04), (-0.38, 0.0, 0.04), (upright, 0.0, 0.0, upright)),
        moved(sphere(0.07), (0.0, 0.0, 0.29)),
        radius=0.05,
    )
    low, high = torch.tensor([-0.66, -0.44, -0.34]), torch.tensor([0.66, 0.44, 0.46])
    spacing = float((high - low).max()) / (nodes - 1)
    rows, columns, layers = (math.ceil(float(extent) / spacing) + 1 for extent in high - low)
    shape = (rows, columns, layers)
    values = sdf_distance(solid, grid_nodes(low, spacing, shape).reshape(1, -1, 3)).reshape(1, *shape)
    mesh = extract_isosurface(SdfGrid(values, low, spacing))[0]
    span = mesh.vertices[..., 0].max() - mesh.vertices[..., 0].min()
    return Mesh(mesh.vertices * (length / span), mesh.faces)
