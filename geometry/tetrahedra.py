"""Tetrahedra of the inside of a field: isosurface stuffing (Labelle and Shewchuk 2007) on a body-centred cubic lattice.

The lattice is the nodes of a cubic grid and the centres of its cells; its tetrahedra have two long edges (1 spacing) and four
short ones (sqrt(3)/2). Along an edge pq whose ends differ in sign the field is zero at the cut point

    c = p + t (q - p),   t = f_p / (f_p - f_q).

1. A lattice point with a cut point nearer than `ALPHA` of the edge moves to the nearest such cut point, and is on the surface.
2. The rest of the cut points split the tetrahedra that carry them (`geometry.stuffing_stencils`).

Inside, the mesh is the lattice (dihedral angles 60 and 90 degrees); at the surface the paper proves angles between 10.78 and
164.74 degrees for these ALPHA, whatever the values. Every inside face has two tetrahedra. Moving a point may pinch the surface
where the field is resolved badly: such points are left where they are, so that the surface is always a manifold; their cut
points are kept `KEEP` of an edge away, and the bound does not hold there. What came out is reported by
`geometry.mesh_quality.angle_statistics`.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor, nn

from dvc.errors import UserError
from dvc.records import SdfGrid, TetMesh
from geometry.sdf_grid import grid_nodes
from geometry.stuffing_stencils import Cuts, Ints, fill

ALPHA = (0.41189, 0.24999)  # of short and of long edges; Labelle and Shewchuk 2007, section 3.3
KEEP = 0.05  # at a point that must not move: t becomes KEEP + (1 - 2 KEEP) t
SMALLEST = 1e-18  # a value nearer to zero counts as zero, and zero as outside; keeps gradients finite


def isosurface_stuffing(grid: SdfGrid) -> list[TetMesh]:
    """Tetrahedra of {f < 0}, one mesh a world, on the lattice of the grid's nodes and cell centres (mean of the eight nodes).

    Args: grid: values [m] (world, nx, ny, nz), origin [m] (3,), spacing [m]: the length of the long edges. For larger or
        smaller tetrahedra resample the grid (`geometry.sdf_grid`).
    Returns: TetMesh(vertices [m] (1, vertex, 3), tets int32 (tet, 4)) for each world, positively oriented.
    Gradient: of the vertices on the surface to the values: that of their cut points along their lattice edges, exact. Inner
        vertices are lattice points, and constant; all move with the origin. Changes of topology (which points move where, which
        edges are cut) are left out.
    Raises: UserError for wrong shapes, values that are not finite, a world without an inside, an inside that is not at least
        one cell away from the grid's rim.
    """
    values = grid.values
    if values.ndim != 4 or min(values.shape[1:]) < 4:
        raise UserError(
            f"isosurface_stuffing.values: expected shape (world, nx, ny, nz), 4 nodes or more each, got {tuple(values.shape)}"
        )
    centres = values
    for axis in range(1, 4):
        count = centres.shape[axis] - 1
        centres = 0.5 * (centres.narrow(axis, 0, count) + centres.narrow(axis, 1, count))
    return _stuff_worlds(values, centres, grid.origin, grid.spacing)


def stuff_field(
    field: Callable[[Tensor], Tensor], origin: Tensor, spacing: float, shape: tuple[int, int, int]
) -> list[TetMesh]:
    """Like `isosurface_stuffing`, of a field that is evaluated at the lattice points themselves.

    Args: field: points [m] (1, point, 3) -> signed distances [m] (world, point), any differentiable torch function;
        origin [m] (3,), spacing [m], shape: the grid whose nodes and cell centres are the lattice.
    Raises: as `isosurface_stuffing`, and UserError where the field returns another shape.
    """
    if origin.shape != (3,) or len(shape) != 3 or min(shape) < 4:
        raise UserError(
            f"stuff_field: expected origin of shape (3,) and three axes of at least 4 nodes, got {tuple(origin.shape)}, {shape}"
        )
    cells = tuple(n - 1 for n in shape)
    parts = []
    for start, counts in ((origin, shape), (origin + 0.5 * spacing, cells)):
        points = grid_nodes(start, spacing, counts).reshape(1, -1, 3)  # type: ignore[arg-type]
        values = field(points)
        if values.ndim != 2 or values.shape[1] != points.shape[1]:
            raise UserError(
                f"stuff_field.field: expected values of shape (world, {points.shape[1]}), got {tuple(values.shape)}"
            )
        parts.append(values.reshape(-1, *counts))
    return _stuff_worlds(parts[0], parts[1], origin, spacing)


class IsosurfaceStuffing(nn.Module):
    """Stage of `isosurface_stuffing`: grid -> list of tetrahedral meshes, one a world."""

    def forward(self, grid: SdfGrid) -> list[TetMesh]:
        return isosurface_stuffing(grid)


def _stuff_worlds(corners: Tensor, centres: Tensor, origin: Tensor, spacing: float) -> list[TetMesh]:
    if origin.shape != (3,) or not spacing > 0.0:
        raise UserError(
            f"isosurface_stuffing: expected origin of shape (3,) and a positive spacing, got {tuple(origin.shape)}, {spacing}"
        )
    flat = torch.cat([corners.flatten(1), centres.flatten(1)], dim=1)
    if not bool(torch.isfinite(flat.detach()).all()):
        raise UserError("isosurface_stuffing.values: expected finite values, got NaN or infinity; remedy: check the field")
    shape = tuple(corners.shape[1:])
    places = np.concatenate([_lattice(shape, 0.0), _lattice(tuple(n - 1 for n in shape), 0.5)])
    meshes = []
    for world in range(flat.shape[0]):
        _require_room(flat[world].detach(), shape, world)
        host = flat[world].detach().double().cpu().numpy()
        tets, starts, ends, held = _topology(host, places, shape)
        device = flat.device
        place = torch.from_numpy(places.astype(np.float32)).to(device)
        a, b = torch.from_numpy(starts).to(device), torch.from_numpy(ends).to(device)
        t = _fraction(flat[world], a, b)
        t = torch.where(torch.from_numpy(held).to(device), KEEP + (1.0 - 2.0 * KEEP) * t, t)
        points = place[a] + t[:, None] * (place[b] - place[a])
        vertices = origin.to(device) + spacing * points
        meshes.append(TetMesh(vertices[None], torch.from_numpy(tets.astype(np.int32)).to(device)))
    return meshes


def _fraction(values: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Where along a -> b the field is zero; 0 where a = b, an inner point. Safe at zero values."""
    fa, fb = values[a], values[b]
    inside = fa < -SMALLEST
    near = torch.where(inside, -fa, fa).clamp_min(0.0)
    far = torch.where(inside, fb, -fb).clamp_min(0.0)
    scale = torch.maximum(near, far).detach()
    same = a == b
    near, far, scale = (torch.where(same, c, x) for c, x in ((0.0, near), (1.0, far), (1.0, scale)))
    near, far = near / scale, far / scale
    return near / (near + far)


def _lattice(shape: tuple[int, ...], shift: float) -> NDArray[np.float64]:
    return np.stack(np.meshgrid(*(np.arange(n) + shift for n in shape), indexing="ij"), axis=-1).reshape(-1, 3)


def _require_room(values: Tensor, shape: tuple[int, ...], world: int) -> None:
    inside = values < -SMALLEST
    if not bool(inside.any()):
        raise UserError(
            f"isosurface_stuffing of world {world}: expected negative values inside, got none; remedy: a finer lattice"
        )
    count = int(np.prod(shape))
    for part in (inside[:count].reshape(shape), inside[count:].reshape([n - 1 for n in shape])):
        rim = torch.ones_like(part)
        rim[1:-1, 1:-1, 1:-1] = False
        if bool((part & rim).any()):
            raise UserError(
                f"isosurface_stuffing of world {world}: expected an inside that is a cell away from the grid's rim, got points "
                "of the outermost layer inside; remedy: a larger grid"
            )


def _lattice_tets(inside: NDArray[np.bool_], shape: tuple[int, ...]) -> Ints:
    """Positively oriented lattice tetrahedra with an inside point: two cell centres across a face, and an edge of the face."""
    nodes = np.arange(int(np.prod(shape))).reshape(shape)
    cells = nodes.size + np.arange(int(np.prod([n - 1 for n in shape]))).reshape([n - 1 for n in shape])
    out = []
    for a in range(3):
        b, c = (a + 1) % 3, (a + 2) % 3
        low, high = (np.take(cells, np.arange(s, cells.shape[a] - 1 + s), axis=a).reshape(-1) for s in (0, 1))

        def corner(m: int, n: int, a: int = a, b: int = b, c: int = c) -> Ints:
            part = np.take(nodes, np.arange(1, shape[a] - 1), axis=a)
            part = np.take(part, np.arange(m, shape[b] - 1 + m), axis=b)
            return np.take(part, np.arange(n, shape[c] - 1 + n), axis=c).reshape(-1)

        ring = [corner(0, 0), corner(1, 0), corner(1, 1), corner(0, 1)]
        for i in range(4):
            tets = np.stack([low, high, ring[i], ring[(i + 1) % 4]], axis=1)
            out.append(tets[inside[tets].any(axis=1)])
    return np.concatenate(out)


def _topology(values: NDArray, places: NDArray, shape: tuple[int, ...]) -> tuple[Ints, Ints, Ints, NDArray[np.bool_]]:
    """Tetrahedra (tet, 4) of vertices numbered anew, and of each vertex: its edge (start, end; equal: inner), was it held."""
    inside = values < -SMALLEST
    all_tets = _lattice_tets(inside, shape)
    pairs = np.concatenate([all_tets[:, [i, j]] for i in range(4) for j in range(i + 1, 4)])
    pairs = np.sort(pairs[inside[pairs[:, 0]] != inside[pairs[:, 1]]], axis=1)
    keys = np.unique(pairs[:, 0] * len(values) + pairs[:, 1])
    low, high = keys // len(values), keys % len(values)
    near, far = np.abs(values[low]), np.abs(values[high])
    fraction = near / (near + far)
    corner_count = int(np.prod(shape))
    forbidden = np.zeros(len(values), bool)
    while True:
        moved_to = _moves(low, high, fraction, forbidden, places, corner_count)
        moved = moved_to >= 0
        sign = np.where(moved, 0, np.where(inside, 1, -1))
        live = ~moved[low] & ~moved[high]
        held = forbidden[low] | forbidden[high]
        kept = np.where(held, KEEP + (1.0 - 2.0 * KEEP) * fraction, fraction)
        cut_places = places[low] + kept[:, None] * (places[high] - places[low])
        now = places.copy()
        now[moved] = cut_places[moved_to[moved]]
        cuts = Cuts(low[live], high[live], now, cut_places[live], corner_count)
        tets = fill(all_tets, sign, cuts)
        pinched = pinched_vertices(tets)
        if len(pinched) == 0:
            break
        lattice = pinched[pinched < len(values)]
        guilty = lattice[moved[lattice]]
        if len(guilty) == 0:  # take what is moved around them
            near_by = np.unique(tets[np.isin(tets, pinched).any(axis=1)])
            near_by = near_by[near_by < len(values)]
            guilty = near_by[moved[near_by]]
        if len(guilty) == 0:
            raise AssertionError("isosurface_stuffing: a pinched surface without moved points")
        forbidden[guilty] = True
    used, numbered = np.unique(tets, return_inverse=True)
    starts, ends, was_held = used.copy(), used.copy(), np.zeros(len(used), bool)
    on_lattice = used < len(values)
    edge = np.full(len(used), -1)
    edge[on_lattice] = moved_to[used[on_lattice]]
    edge[~on_lattice] = np.flatnonzero(live)[used[~on_lattice] - len(values)]
    on = edge >= 0
    starts[on], ends[on], was_held[on] = low[edge[on]], high[edge[on]], held[edge[on]]
    return numbered.reshape(tets.shape), starts, ends, was_held


def _moves(low: Ints, high: Ints, fraction: NDArray, forbidden: NDArray, places: NDArray, corner_count: int) -> Ints:
    """For each lattice point the edge to whose cut point it moves, or -1. Four classes without edges in them take turns."""
    half = (2.0 * places).astype(np.int64) // 2
    colour = half.sum(axis=1) % 2 + 2 * (np.arange(len(places)) >= corner_count)
    long = (low >= corner_count) == (high >= corner_count)
    alpha = np.where(long, ALPHA[1], ALPHA[0])
    length = np.where(long, 1.0, np.sqrt(0.75))
    moved_to = np.full(len(places), -1)
    for turn in range(4):
        live = (moved_to[low] < 0) & (moved_to[high] < 0)
        points, edges, distances = [], [], []
        for end, share in ((low, fraction), (high, 1.0 - fraction)):
            chosen = np.flatnonzero(live & (share < alpha) & (colour[end] == turn) & ~forbidden[end])
            points.append(end[chosen])
            edges.append(chosen)
            distances.append((share * length)[chosen])
        point, edge = np.concatenate(points), np.concatenate(edges)
        order = np.lexsort((edge, np.concatenate(distances), point))
        first = np.unique(point[order], return_index=True)[1]
        moved_to[point[order][first]] = edge[order][first]
    return moved_to


def boundary_faces(tets: Ints) -> Ints:
    """Faces (face, 3) of one tetrahedron only, counter-clockwise seen from outside."""
    faces = np.concatenate([tets[:, [1, 2, 3]], tets[:, [0, 3, 2]], tets[:, [0, 1, 3]], tets[:, [0, 2, 1]]])
    count = int(tets.max()) + 1
    a, b, c = np.sort(faces, axis=1).T
    key = (
        (a * count + b) * count + c if count < 2_000_000 else np.unique(np.stack([a, b, c], 1), axis=0, return_inverse=True)[1]
    )
    _, first, number = np.unique(key, return_index=True, return_counts=True)
    return faces[first[number == 1]]


def pinched_vertices(tets: Ints) -> Ints:
    """Vertices at which the surface of the tetrahedra is not a manifold: an edge of other than two faces, or several fans."""
    faces = boundary_faces(tets)
    count = int(faces.max()) + 1
    corner = np.arange(faces.size).reshape(faces.shape)
    start, end = faces.reshape(-1), np.roll(faces, -1, axis=1).reshape(-1)
    at_start, at_end = corner.reshape(-1), np.roll(corner, -1, axis=1).reshape(-1)
    key = np.minimum(start, end) * count + np.maximum(start, end)
    order = np.argsort(key, kind="stable")
    unique, first, number = np.unique(key[order], return_index=True, return_counts=True)
    bad = unique[number != 2]
    one, two = order[first[number == 2]], order[first[number == 2] + 1]
    # the two half-edges run against each other: the start of one is the end of the other
    rows = np.concatenate([at_start[one], at_end[one]])
    columns = np.concatenate([at_end[two], at_start[two]])
    graph = coo_matrix((np.ones(len(rows), np.int8), (rows, columns)), shape=(faces.size, faces.size))
    _, fan = connected_components(graph, directed=False)
    vertex_of_fan = np.unique(np.stack([fan, start], axis=1), axis=0)[:, 1]
    fans = np.bincount(vertex_of_fan, minlength=count)
    return np.unique(np.concatenate([bad // count, bad % count, np.flatnonzero(fans > 1)]))
