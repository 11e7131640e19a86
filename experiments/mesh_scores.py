"""How near two surfaces are, in shares of the target's size."""

import torch

from dvc.records import Mesh
from geometry.point_losses import point_to_surface
from geometry.surface_samples import sample_surface

MEASURED_POINTS = 100_000


def diagonal_of(mesh: Mesh) -> float:
    """Of the box around the first world's vertices [m]."""
    points = mesh.vertices[0].detach()
    return float((points.amax(0) - points.amin(0)).norm())


@torch.no_grad()
def chamfer_rel(mesh: Mesh, target: Mesh) -> float:
    """Mean of both directions of the distance from points drawn on one surface to the other, over the target's diagonal."""
    here = sample_surface(mesh, MEASURED_POINTS, torch.tensor([7])).points
    there = sample_surface(target, MEASURED_POINTS, torch.tensor([8])).points
    way = point_to_surface(here, target).mean() + point_to_surface(there, mesh).mean()
    return 0.5 * float(way) / diagonal_of(target)
