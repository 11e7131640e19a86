"""Which faces meet at which edge: what edge sampling and volume integrals need to know about a triangle mesh.

Each undirected edge is one row (start, end, face 0, face 1, opposite 0, opposite 1): the two vertices, the faces on either
side and the vertices of those faces across the edge. Face 1 and opposite 1 are -1 on the border of an open mesh.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from dvc.errors import Unsupported, UserError


class MeshTopology(NamedTuple):
    """Edges of a triangle mesh."""

    edges: Tensor  # int32, (edge, 6)
    border_count: int  # edges with one face; 0 for a closed mesh


_known: WeakIdKeyDictionary = WeakIdKeyDictionary()
_outward: WeakIdKeyDictionary = WeakIdKeyDictionary()
_range: WeakIdKeyDictionary = WeakIdKeyDictionary()


def mesh_topology(faces: Tensor) -> MeshTopology:
    """Edges of a mesh, remembered as long as its `faces` tensor (face, 3) lives unchanged.

    Raises: UserError for a face that names a vertex twice or neighbours that are wound oppositely; Unsupported for an edge of
    more than two faces.
    """
    entry = _known.get(faces)
    if entry is not None and entry[0] == faces._version:
        return entry[1]
    edges, border = _edges(faces.detach().cpu().numpy())
    topology = MeshTopology(torch.from_numpy(edges).to(faces.device), border)
    _known[faces] = (faces._version, topology)
    return topology


def require_indices(name: str, cells: Tensor, vertices: Tensor) -> None:
    """Check that faces or tetrahedra (cell, corner) name vertices (world, vertex, 3) that exist: kernels read where they point.

    The range is remembered as long as `cells` lives unchanged. Raises: UserError for a number that names no vertex.
    """
    if cells.numel() == 0 or vertices.dim() != 3:
        return
    if cells.is_inference():  # has no version
        entry = 0, int(cells.min()), int(cells.max())
    else:
        entry = _range.get(cells)
        if entry is None or entry[0] != cells._version:
            entry = _range[cells] = cells._version, int(cells.min()), int(cells.max())
    if entry[1] < 0 or entry[2] >= vertices.shape[1]:
        raise UserError(f"{name}: expected vertex numbers in 0..{vertices.shape[1] - 1}, got {entry[1]}..{entry[2]}")


def require_outward(name: str, vertices: Tensor, faces: Tensor) -> None:
    """Check once for each `faces` tensor that a closed mesh, vertices (world, vertex, 3), is wound outwards.

    Raises: UserError when its volume is not positive. An open mesh has no outside and passes.
    """
    if _outward.get(faces) == faces._version or mesh_topology(faces).border_count:
        return
    points = vertices.detach()
    a, b, c = (points[:, faces[:, i].long()] - points[:, :1] for i in range(3))
    volume = (a * torch.linalg.cross(b, c)).sum(dim=(1, 2)) / 6.0
    if not bool((volume > 0).all()):
        raise UserError(
            f"{name}: expected a mesh with a positive volume, got {float(volume.min()):.6g} m^3; "
            "remedy: wind the faces counter-clockwise seen from outside"
        )
    _outward[faces] = faces._version


def _edges(faces: np.ndarray) -> tuple[np.ndarray, int]:
    if faces.ndim != 2 or faces.shape[1] != 3 or len(faces) == 0:
        raise UserError(f"faces: expected shape (face, 3) with at least one face, got {faces.shape}")
    same = (faces[:, 0] == faces[:, 1]) | (faces[:, 1] == faces[:, 2]) | (faces[:, 2] == faces[:, 0])
    if same.any():
        first_bad = int(np.argmax(same))
        raise UserError(
            f"face {first_bad}: expected three different vertices, got {faces[first_bad].tolist()}; remedy: remove such faces"
        )
    corner = np.arange(3)
    start, end = faces[:, corner].reshape(-1), faces[:, (corner + 1) % 3].reshape(-1)
    opposite, face = faces[:, (corner + 2) % 3].reshape(-1), np.repeat(np.arange(len(faces)), 3)
    low, high = np.minimum(start, end), np.maximum(start, end)
    order = np.lexsort((high, low))
    first = np.ones(len(order), bool)
    first[1:] = (low[order][1:] != low[order][:-1]) | (high[order][1:] != high[order][:-1])
    begin = np.flatnonzero(first)
    count = np.diff(np.append(begin, len(order)))
    if count.max() > 2:
        at = order[begin[np.argmax(count)]]
        raise Unsupported(
            f"edge ({low[at]}, {high[at]}): expected at most two faces, got {count.max()}; remedy: split the mesh there"
        )
    one = order[begin]
    paired = count == 2
    other = np.where(paired, order[np.minimum(begin + 1, len(order) - 1)], -1)
    flipped = paired & (start[one] == start[other])
    if flipped.any():
        at = one[np.argmax(flipped)]
        raise UserError(
            f"edge ({low[at]}, {high[at]}): expected its two faces to be wound alike, got opposite windings; "
            "remedy: orient all faces counter-clockwise seen from outside"
        )
    edges = np.stack(
        [
            start[one],
            end[one],
            face[one],
            np.where(paired, face[other], -1),
            opposite[one],
            np.where(paired, opposite[other], -1),
        ],
        axis=1,
    )
    return np.ascontiguousarray(edges, np.int32), int((~paired).sum())
