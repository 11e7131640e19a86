"""Borders that run along each other: walls made of separate quads, meshes whose vertices were never welded.

Two borders at one place are one edge of a picture, a fold between their two faces; taken as two borders they would count twice.
"""

import numpy as np
import torch
from torch import Tensor

from dvc.errors import Unsupported

TOLERANCE = 1.0e-6  # of the scene's extent: how far apart borders may lie that count as one


def pair_borders(edges: Tensor, vertices: Tensor, instances: Tensor) -> Tensor:
    """Join pairs of borders into folds: (edge, 6) -> (fewer, 8); columns 6 and 7 are the second border's ends, or -1.

    vertices: (world, vertex, 3); instances: of the faces, (face,). Only borders of one instance are joined, and only where they
    lie together in every world. A border of zero length has no part in it.
    Raises: Unsupported where three or more borders run along each other.
    """
    rows = torch.cat([edges, torch.full_like(edges[:, :2], -1)], dim=1)
    borders = torch.nonzero(edges[:, 3] < 0)[:, 0].cpu().numpy()
    if len(borders) < 2:
        return rows
    from scipy.spatial import cKDTree  # takes long to import

    table = rows.cpu().numpy().copy()
    points = vertices.detach().double().cpu().numpy()
    owner = instances.cpu().numpy()[table[borders, 2]]
    ends = points[:, table[borders, :2]]  # (world, border, 2, 3)
    extent = float(np.ptp(ends[0].reshape(-1, 3), axis=0).max())
    near = TOLERANCE * extent
    pairs = cKDTree(ends[0].mean(axis=1)).query_pairs(2.0 * near, output_type="ndarray")
    i, j = pairs[:, 0], pairs[:, 1]
    long = np.linalg.norm(ends[0, :, 1] - ends[0, :, 0], axis=1) > near
    keep = (owner[i] == owner[j]) & long[i] & long[j]
    i, j = i[keep], j[keep]
    same = np.abs(ends[:, i] - ends[:, j]).max(axis=(0, 2, 3)) <= near
    turned = np.abs(ends[:, i] - ends[:, j, ::-1]).max(axis=(0, 2, 3)) <= near
    i, j, turned = i[same | turned], j[same | turned], turned[same | turned]
    if not len(i):
        return rows
    uses = np.bincount(np.concatenate([i, j]), minlength=len(borders))
    if uses.max() > 1:
        at = ends[0, int(np.argmax(uses))].mean(axis=0).round(4).tolist()
        raise Unsupported(
            f"Scene.bodies: expected at most two borders of faces along each other, got {uses.max() + 1} at {at}, whose "
            "gradient would count too often; remedy: weld their vertices, or leave out one of the faces"
        )
    first, second = borders[i], borders[j]
    table[first, 3], table[first, 5] = table[second, 2], table[second, 4]
    table[first, 6] = np.where(turned, table[second, 1], table[second, 0])
    table[first, 7] = np.where(turned, table[second, 0], table[second, 1])
    rest = np.setdiff1d(np.arange(len(table)), second)
    return torch.from_numpy(np.ascontiguousarray(table[rest])).to(edges.device)
