"""Shape of triangles and tetrahedra: their angles, the least and largest, shares of bad ones, histograms.

    triangle: angle between its sides u, v:               atan2(|u x v|, u . v)
    tetrahedron, dihedral angle at the edge e:            atan2(|m x n|, m . n),   m = e x (c - a), n = e x (d - a)

Computed in double precision. A triangle or tetrahedron without extent has the angles 0 or 180, never NaN.
"""

import itertools
from typing import NamedTuple

import torch
from torch import Tensor

from dvc.errors import UserError
from dvc.records import Mesh, TetMesh


class AngleStatistics(NamedTuple):
    """Angles [degrees] of all worlds of a mesh together."""

    angles: int  # how many
    minimum: float
    maximum: float
    share_under_10: float  # of the cells (triangles, tetrahedra): those whose least angle is under 10
    share_under_20: float
    histogram: Tensor  # share of the angles in 18 bins of 10 degrees, (18,)


def triangle_angles(mesh: Mesh) -> Tensor:
    """Angles [degrees] at the corners, float64 (world, face, 3). Without gradient."""
    corners = _corners("triangle_angles", mesh.vertices, mesh.faces, 3)
    angles = []
    for i in range(3):
        u, v = corners[(i + 1) % 3] - corners[i], corners[(i + 2) % 3] - corners[i]
        angles.append(_angle(u, v))
    return torch.stack(angles, dim=-1)


def dihedral_angles(mesh: TetMesh) -> Tensor:
    """Dihedral angles [degrees] at the edges ab, ac, ad, bc, bd, cd, float64 (world, tet, 6). Without gradient."""
    corners = _corners("dihedral_angles", mesh.vertices, mesh.tets, 4)
    angles = []
    for i, j in itertools.combinations(range(4), 2):
        k, m = (n for n in range(4) if n not in (i, j))
        edge = corners[j] - corners[i]
        angles.append(
            _angle(torch.linalg.cross(edge, corners[k] - corners[i]), torch.linalg.cross(edge, corners[m] - corners[i]))
        )
    return torch.stack(angles, dim=-1)


def angle_statistics(mesh: Mesh | TetMesh) -> AngleStatistics:
    """Statistics of the triangles' angles of a Mesh, of the dihedral angles of a TetMesh."""
    angles = triangle_angles(mesh) if isinstance(mesh, Mesh) else dihedral_angles(mesh)
    least = angles.amin(dim=-1)
    bins = (angles / 10.0).long().clamp(0, 17).reshape(-1)
    return AngleStatistics(
        angles.numel(),
        float(least.min()),
        float(angles.max()),
        float((least < 10.0).double().mean()),
        float((least < 20.0).double().mean()),
        torch.bincount(bins, minlength=18).double() / angles.numel(),
    )


def _angle(u: Tensor, v: Tensor) -> Tensor:
    return torch.rad2deg(torch.atan2(torch.linalg.norm(torch.linalg.cross(u, v), dim=-1), (u * v).sum(dim=-1)))


def _corners(name: str, vertices: Tensor, cells: Tensor, size: int) -> list[Tensor]:
    if vertices.ndim != 3 or vertices.shape[2] != 3 or cells.ndim != 2 or cells.shape[1] != size or len(cells) == 0:
        raise UserError(
            f"{name}: expected vertices (world, vertex, 3) and at least one cell of (cell, {size}), "
            f"got {tuple(vertices.shape)} and {tuple(cells.shape)}"
        )
    points = vertices.detach().double()
    return [points[:, cells[:, i].long()] for i in range(size)]
