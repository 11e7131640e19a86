"""Cases of dual marching cubes: which crossed edges of a cube belong to the same patch of surface, made by code.

Corner c of a cell is at (c & 1, c >> 1 & 1, c >> 2 & 1); bit c of its case is set where the field is negative there. Edge
4 a + m + 2 n runs along axis a from the corner that has m on axis a + 1 and n on axis a + 2 (modulo 3); face 2 a + s is the
side s of axis a. On a face whose signs alternate, the two arcs of the surface may cut off its negative or its positive corners:
cells on both sides must agree. Here they cut off the negative ones. A patch is a cycle of arcs and becomes one vertex
(Nielson 2004). In some cases both arcs of such a face are of one patch; where that is so on both sides of the face, an edge
would have four faces, and there, on both sides, the arcs cut off the positive corners instead (Wenger 2013). No case has two
such faces and turning one always splits the patch; both are checked when the tables are made.
"""

import functools
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

CORNERS = np.array([[c >> a & 1 for a in range(3)] for c in range(8)])


class PatchTables(NamedTuple):
    """Row `case`, or `256 + case` for a cell whose `double_face` is turned."""

    patch: Tensor  # int64 (512, 12): the patch of each edge, -1 where it is not crossed
    patches: Tensor  # int64 (512,): number of patches
    double_face: Tensor  # int64 (256,): the face both of whose arcs are of one patch, or -1


def _edge_corners() -> list[tuple[int, int]]:
    pairs = []
    for a in range(3):
        b, c = (a + 1) % 3, (a + 2) % 3
        for index in range(4):
            low = (index & 1) << b | (index >> 1) << c
            pairs.append((low, low | 1 << a))
    return pairs


EDGE_CORNERS = _edge_corners()


def _arcs(case: int, turned: int) -> list[list[tuple[int, int]]]:
    """For each face, the pairs of edges that an arc joins."""
    crossed = [e for e, (c, d) in enumerate(EDGE_CORNERS) if (case >> c & 1) != (case >> d & 1)]
    arcs = []
    for face in range(6):
        axis, side = face >> 1, face & 1
        on_face = {c for c in range(8) if (c >> axis & 1) == side}
        edges = [e for e in crossed if set(EDGE_CORNERS[e]) <= on_face]
        if len(edges) == 4:
            cut_off = [c for c in on_face if (case >> c & 1) != (face == turned)]
            arcs.append([tuple(e for e in edges if c in EDGE_CORNERS[e]) for c in cut_off])
        else:
            arcs.append([tuple(edges)] if edges else [])
    return arcs  # type: ignore[return-value]


def _patches(arcs: list[list[tuple[int, int]]]) -> list[int]:
    patch = [-1] * 12
    count = 0
    joined = [arc for face in arcs for arc in face]
    for start in range(12):
        if patch[start] >= 0 or not any(start in arc for arc in joined):
            continue
        open_edges = [start]
        while open_edges:
            edge = open_edges.pop()
            patch[edge] = count
            open_edges += [e for arc in joined if edge in arc for e in arc if patch[e] < 0]
        count += 1
    return patch


def _doubles(arcs: list[list[tuple[int, int]]], patch: list[int]) -> list[int]:
    return [face for face, pair in enumerate(arcs) if len(pair) == 2 and patch[pair[0][0]] == patch[pair[1][0]]]


@functools.cache
def patch_tables(device: torch.device) -> PatchTables:
    """The tables on a device; made once."""
    rows: list[list[int]] = []
    double_face = []
    for case in range(256):
        arcs = _arcs(case, -1)
        rows.append(_patches(arcs))
        doubles = _doubles(arcs, rows[-1])
        if len(doubles) > 1:
            raise AssertionError(f"case {case}: two faces have both arcs in one patch")
        double_face.append(doubles[0] if doubles else -1)
    for case in range(256):
        arcs = _arcs(case, double_face[case])
        rows.append(_patches(arcs))
        if double_face[case] in _doubles(arcs, rows[-1]):
            raise AssertionError(f"case {case}: turning the face does not split the patch")
    patch = torch.tensor(rows, device=device)
    return PatchTables(patch, patch.amax(dim=1) + 1, torch.tensor(double_face, device=device))
