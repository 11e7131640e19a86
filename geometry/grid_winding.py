"""Generalised winding number at the nodes of a grid, nearly as cheap as that of a closed mesh.

The border of a mesh, as a chain of directed edges, is a cycle. A cone over it (each border edge joined to one apex) closes
the mesh, and winding numbers add:

    w(mesh) = w(mesh + cone) - w(cone)

The first term is an integer: the signed crossings of a ray from the node with the closed surface. Rays run along the grid's z
lines, so each face marks the lines that it covers once and a running sum along z does all nodes. The second is smooth, and
its few faces are summed by `geometry.winding_number` (the identity is that of Martens and Bessmeltsev 2025, who close by the
border's integral instead). A face covers a line by the crossings of its edges with the half-line y = const, x > x0: an
edge's crossing is decided in one place for both of its faces, so that no line slips through between them.
"""

import torch
import warp as wp
from torch import Tensor

from dvc.records import Mesh
from dvc.warp_op import scratch, warp_op
from geometry.closest_points import require_mesh
from geometry.sdf_grid import grid_nodes
from geometry.winding_number import WindingTree, wind_points_op


@wp.func
def edge_crossing(a: wp.vec3, b: wp.vec3, ia: int, ib: int, x: float, y: float):
    """1 or -1 where the edge from a to b crosses the half-line from (x, y) towards +x upwards or downwards, else 0."""
    up = wp.int32(0)
    if a[1] <= y and b[1] > y:
        up = 1
    elif b[1] <= y and a[1] > y:
        up = -1
    if up == 0:
        return 0
    # always from the lower vertex number: both faces of an edge compute the same
    low = wp.where(ia < ib, a, b)
    high = wp.where(ia < ib, b, a)
    side = (high[0] - low[0]) * (y - low[1]) - (high[1] - low[1]) * (x - low[0])
    upwards = (up == 1) == (ia < ib)
    if (upwards and side >= 0.0) or (not upwards and side < 0.0):
        return up
    return 0


@wp.kernel(enable_backward=False)
def mark_crossings(
    vertices: wp.array2d(dtype=wp.vec3), faces: wp.array2d(dtype=int), sign: wp.array(dtype=int), change: wp.array4d(dtype=int)
):
    """`change[w, i, j, k]` is what a face adds to the winding number of the nodes 0..k-1 of the line (i, j)."""
    w, f = wp.tid()
    ia = faces[f, 0]
    ib = faces[f, 1]
    ic = faces[f, 2]
    a = vertices[w, ia]
    b = vertices[w, ib]
    c = vertices[w, ic]
    low = wp.min(wp.min(a, b), c)
    high = wp.max(wp.max(a, b), c)
    n = wp.cross(b - a, c - a)
    last = change.shape[3] - 1
    for i in range(int(wp.max(wp.ceil(low[0]), 0.0)), int(wp.min(wp.floor(high[0]), float(change.shape[1] - 1))) + 1):
        for j in range(int(wp.max(wp.ceil(low[1]), 0.0)), int(wp.min(wp.floor(high[1]), float(change.shape[2] - 1))) + 1):
            x = float(i)
            y = float(j)
            turns = edge_crossing(a, b, ia, ib, x, y) + edge_crossing(b, c, ib, ic, x, y) + edge_crossing(c, a, ic, ia, x, y)
            if turns != 0:
                z = (low[2] + high[2]) * 0.5
                if n[2] != 0.0:
                    z = wp.clamp(a[2] - (n[0] * (x - a[0]) + n[1] * (y - a[1])) / n[2], low[2], high[2])
                k = int(wp.clamp(wp.ceil(z), 0.0, float(last)))
                wp.atomic_add(change, w, i, j, k, turns * sign[f])


@wp.kernel(enable_backward=False)
def sum_crossings(change: wp.array4d(dtype=int), winding: wp.array4d(dtype=float)):
    """Running sum from the far end of each line; `change` has one place more than the line has nodes."""
    w, i, j = wp.tid()
    total = wp.int32(0)
    for back in range(winding.shape[3]):
        k = winding.shape[3] - 1 - back
        total += change[w, i, j, k + 1]
        winding[w, i, j, k] = float(total)


@warp_op(shared=("faces", "sign"), threads=None, enable_backward=False, verify=False)
def count_crossings(
    vertices: wp.array2d(dtype=wp.vec3), faces: wp.array2d(dtype=int), sign: wp.array(dtype=int), *, shape: tuple
):
    """Vertices in units of the grid (world, vertex, 3), closed faces (face, 3), their multiplicities -> integers, as floats."""
    worlds = vertices.shape[0]
    change = scratch((worlds, shape[0], shape[1], shape[2] + 1), int)
    winding = scratch((worlds, *shape), float, zero=False, requires_grad=False)
    wp.launch(mark_crossings, (worlds, faces.shape[0]), inputs=[vertices, faces, sign], outputs=[change])
    wp.launch(sum_crossings, (worlds, shape[0], shape[1]), inputs=[change], outputs=[winding])
    return winding


def border_chain(vertices: Tensor, faces: Tensor) -> tuple[Tensor, Tensor]:
    """The border of a mesh: directed edges (edge, 2) of vertex numbers, and how often each is walked (edge,) >= 1.

    vertices (vertex, 3), faces (face, 3). Vertices at the same place count as one, so that a mesh cut along a texture
    seam is closed. An edge walked as often in one direction as in the other is no border.
    """
    _, place = torch.unique(vertices, dim=0, return_inverse=True)
    representative = torch.empty(int(place.max()) + 1, dtype=torch.long, device=vertices.device)
    representative[place] = torch.arange(len(vertices), device=vertices.device)
    corners = place[faces.long()]
    start, end = corners.flatten(), corners.roll(-1, dims=1).flatten()
    forward = torch.where(start < end, 1, -1) * (start != end)
    key = torch.minimum(start, end) * len(vertices) + torch.maximum(start, end)
    keys, index = torch.unique(key, return_inverse=True)
    times = torch.zeros_like(keys).index_add_(0, index, forward)
    keys, times = keys[times != 0], times[times != 0]
    low, high = representative[keys // len(vertices)], representative[keys % len(vertices)]
    back = times < 0
    return torch.stack([torch.where(back, high, low), torch.where(back, low, high)], dim=1), times.abs()


def cone_over(vertices: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
    """A cone over each connected part of a border: apexes (part, 3), and faces (edge, 3), apex p numbered vertex count + p.

    The faces walk every border edge backwards, so that mesh and cones together are closed.
    """
    label = torch.arange(len(vertices), device=vertices.device)
    while len(edges):  # the least vertex number of each part spreads, and jumps
        least = torch.minimum(label[edges[:, 0]], label[edges[:, 1]])
        wider = label.scatter_reduce(0, edges.flatten(), least.repeat_interleave(2), "amin")
        wider = wider[wider]
        if torch.equal(wider, label):
            break
        label = wider
    parts, part = torch.unique(label[edges[:, 0]], return_inverse=True)
    total = vertices.new_zeros(len(parts), 3).index_add_(0, part, vertices[edges[:, 0]])
    apex = total / torch.bincount(part, minlength=len(parts))[:, None].clamp_min(1)
    return apex, torch.stack([edges[:, 1], edges[:, 0], len(vertices) + part], dim=1)


def grid_winding_number(mesh: Mesh, origin: Tensor, spacing: float, shape: tuple, accuracy: float = 3.0) -> Tensor:
    """Generalised winding number at the nodes `origin + spacing (i, j, k)`: (world, nx, ny, nz). A query: no gradient.

    mesh: vertices [m] (world, vertex, 3), faces (face, 3), counter-clockwise from outside; origin [m] (3,); spacing [m].
    accuracy: see `geometry.winding_number.winding_number`; it matters near holes only.
    Exact to rounding for a closed mesh, except that a node nearer to the surface than about 1e-6 of the grid's size may get
    either side's number. Slower where the border has as many edges as there are faces (a soup of triangles).
    Raises: UserError for wrong shapes or vertices that are not finite.
    """
    require_mesh("grid_winding_number", mesh)
    with torch.no_grad():
        return torch.cat([_one_world(v, mesh.faces, origin, spacing, tuple(shape), accuracy) for v in mesh.vertices.detach()])


def _one_world(vertices: Tensor, faces: Tensor, origin: Tensor, spacing: float, shape: tuple, accuracy: float) -> Tensor:
    edges, times = border_chain(vertices, faces)
    if len(edges) > faces.shape[0]:  # hardly any face has a neighbour: there is nothing to gain
        return _tree_sum(vertices, faces, torch.ones_like(faces[:, 0]), origin, spacing, shape, accuracy)
    _, place = torch.unique(vertices, dim=0, return_inverse=True)
    representative = torch.empty_like(place)
    representative[place] = torch.arange(len(vertices), device=place.device)
    joined = representative[place][faces.long()]
    apex, cone = cone_over(vertices, edges)
    closed = torch.cat([joined, cone]).to(torch.int32)
    sign = torch.cat([torch.ones_like(joined[:, 0]), times]).to(torch.int32)
    points = torch.cat([vertices, apex])
    whole = count_crossings((((points - origin) / spacing)[None]).contiguous(), closed, sign, shape=shape)
    if not len(edges):
        return whole
    return whole - _tree_sum(points, cone, times, origin, spacing, shape, accuracy)


def _tree_sum(
    vertices: Tensor, faces: Tensor, times: Tensor, origin: Tensor, spacing: float, shape: tuple, accuracy: float
) -> Tensor:
    """Winding number of some faces, each counted `times`, at every node."""
    faces = faces.repeat_interleave(times.long(), dim=0)
    tree = WindingTree(Mesh(vertices[None], faces))
    nodes = grid_nodes(origin, spacing, shape).reshape(shape[0], -1, 3) / tree.scale
    world = torch.zeros(shape[0], dtype=torch.int32, device=vertices.device)
    limit = torch.full((1,), float(accuracy), device=vertices.device)
    return wind_points_op(nodes, world, tree.nodes, tree.corners, tree.first_face, limit).reshape(1, *shape)
