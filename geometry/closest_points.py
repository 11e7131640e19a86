"""Closest points of a triangle mesh: a search tree for each world, queries on every core, distances with gradient.

    d(x) = |x - y|,   y = sum_i b_i v_i  the closest point, on face f with barycentrics b

The face and the barycentrics are found without gradient. By the envelope theorem (y is stationary on the mesh) the first
derivative of d is that of |x - sum_i b_i v_i| with b held fixed:  dd/dx = n,  dd/dv_i = -b_i n,  n = (x - y) / d.
Closest point on a triangle by Voronoi regions: Ericson, Real-Time Collision Detection (2005), 5.1.5.
"""

from typing import NamedTuple

import torch
import warp as wp
from torch import Tensor

from dvc.errors import UserError
from dvc.op_body import process_lock
from dvc.records import Mesh, expand_worlds, world_count
from dvc.trace import start_warp
from dvc.warp_op import scratch, warp_op

FARTHEST = wp.constant(1.0e18)  # [m], the bound of a search that knows nothing
SMALLEST = wp.constant(1.0e-30)  # below it a squared length or an area counts as zero
PASSED_OVER = 1e-6  # Warp's query leaves out faces whose |normal| over the sum of squared edges is less
CHUNK = 4096  # points of one unit of work


class ClosestPoints(NamedTuple):
    """Where a mesh is nearest to points."""

    face: Tensor  # int32, (world, point)
    barycentric: Tensor  # weights of the face's three vertices, without gradient, (world, point, 3)
    distance: Tensor  # [m], >= 0, with gradient to vertices and points, (world, point)


@wp.func
def segment_fraction(p: wp.vec3, a: wp.vec3, b: wp.vec3):
    """Where on the segment from a to b the closest point lies, in [0, 1]."""
    d = b - a
    square = wp.dot(d, d)
    return wp.where(square > SMALLEST, wp.clamp(wp.dot(p - a, d) / wp.max(square, SMALLEST), 0.0, 1.0), 0.0)


@wp.func
def closest_barycentric(p: wp.vec3, a: wp.vec3, b: wp.vec3, c: wp.vec3):
    """Barycentrics of the triangle's closest point. A triangle without area is the nearest of its edges."""
    ab = b - a
    ac = c - a
    n = wp.cross(ab, ac)
    area = wp.dot(n, n)
    if area > 1.0e-12 * wp.dot(ab, ab) * wp.dot(ac, ac) and area > SMALLEST:
        ap = p - a
        v = wp.dot(wp.cross(ap, ac), n) / area
        w = wp.dot(wp.cross(ab, ap), n) / area
        if v >= 0.0 and w >= 0.0 and v + w <= 1.0:
            return wp.vec3(1.0 - v - w, v, w)
    s = segment_fraction(p, a, b)
    best = wp.vec3(1.0 - s, s, 0.0)
    least = wp.length_sq(p - a - s * ab)
    s = segment_fraction(p, a, c)
    square = wp.length_sq(p - a - s * ac)
    if square < least:
        least = square
        best = wp.vec3(1.0 - s, 0.0, s)
    s = segment_fraction(p, b, c)
    square = wp.length_sq(p - b - s * (c - b))
    if square < least:
        best = wp.vec3(0.0, 1.0 - s, s)
    return best


@wp.func
def face_distance(tree: wp.uint64, face: int, p: wp.vec3):
    """Distance of p to one face of a tree."""
    mesh = wp.mesh_get(tree)
    a = mesh.points[mesh.indices[3 * face]]
    b = mesh.points[mesh.indices[3 * face + 1]]
    c = mesh.points[mesh.indices[3 * face + 2]]
    k = closest_barycentric(p, a, b, c)
    return wp.length(p - (k[0] * a + k[1] * b + k[2] * c))


@wp.func
def nearest_face(tree: wp.uint64, slivers: wp.array(dtype=int), p: wp.vec3, guess: int):
    """The face nearest to p. The distance to the face `guess` (-1: none) bounds the search."""
    bound = FARTHEST
    if guess >= 0:
        bound = face_distance(tree, guess, p)
    found = wp.mesh_query_point_no_sign(tree, p, bound)
    nearest = wp.where(found.result, found.face, guess)  # nothing nearer than the guess: the guess
    if slivers[0] < 0:
        return nearest
    least = FARTHEST
    if nearest >= 0:
        least = face_distance(tree, nearest, p)
    for i in range(slivers.shape[0]):
        if slivers[i] >= 0:
            distance = face_distance(tree, slivers[i], p)
            if distance < least:
                least = distance
                nearest = slivers[i]
    return nearest


@wp.kernel(enable_backward=False)
def search_points(
    trees: wp.array(dtype=wp.int64),
    points: wp.array2d(dtype=wp.vec3),
    slivers: wp.array(dtype=int),
    face: wp.array2d(dtype=int),
):
    chunk, i = wp.tid()
    face[chunk, i] = nearest_face(wp.uint64(trees[chunk]), slivers, points[chunk, i], -1)


@wp.kernel(enable_backward=False)
def search_lines(
    trees: wp.array(dtype=wp.int64),
    corner: wp.array(dtype=wp.vec3),
    spacing: wp.array(dtype=float),
    slivers: wp.array(dtype=int),
    face: wp.array3d(dtype=int),
    distance: wp.array3d(dtype=float),
):
    """Nodes of one grid line in turn: the face of the last node, read back, bounds the search of the next."""
    slab, j = wp.tid()
    tree = wp.uint64(trees[slab])
    h = spacing[0]
    for k in range(face.shape[2]):
        p = corner[slab] + wp.vec3(0.0, float(j), float(k)) * h
        near = nearest_face(tree, slivers, p, wp.where(k > 0, face[slab, j, wp.max(k - 1, 0)], -1))
        face[slab, j, k] = near
        if near >= 0:
            distance[slab, j, k] = face_distance(tree, near, p)


@warp_op(threads=None, enable_backward=False, verify=False, shared=("slivers",))
def search_points_op(trees: wp.array(dtype=wp.int64), points: wp.array2d(dtype=wp.vec3), slivers: wp.array(dtype=int)):
    """Trees' addresses (chunk,), points (chunk, point, 3), faces that the trees pass over -> the nearest faces."""
    face = scratch(points.shape, int, zero=False)
    wp.launch(search_points, points.shape, inputs=[trees, points, slivers], outputs=[face])
    return face


@warp_op(threads=None, enable_backward=False, verify=False, shared=("spacing", "slivers"))
def search_lines_op(
    trees: wp.array(dtype=wp.int64),
    corner: wp.array(dtype=wp.vec3),
    spacing: wp.array(dtype=float),
    slivers: wp.array(dtype=int),
    *,
    lines: int,
    nodes: int,
):
    """Trees' addresses (slab,), corners (slab, 3), spacing (1,), slivers -> nearest faces and distances (slab, line, node)."""
    face = scratch((corner.shape[0], lines, nodes), int, zero=False)
    distance = scratch((corner.shape[0], lines, nodes), float, requires_grad=False)
    wp.launch(search_lines, (corner.shape[0], lines), inputs=[trees, corner, spacing, slivers], outputs=[face, distance])
    return face, distance


@wp.func
def outward(vertices: wp.array2d(dtype=wp.vec3), faces: wp.array2d(dtype=int), w: int, f: int, x: wp.vec3, sign: float):
    """Barycentrics of the closest point of face f, and the unit direction in which the signed distance grows."""
    a = vertices[w, faces[f, 0]]
    b = vertices[w, faces[f, 1]]
    c = vertices[w, faces[f, 2]]
    k = closest_barycentric(x, a, b, c)
    # x - y from differences to one vertex, which keeps the digits of a mesh far from the origin
    d = (x - a) - k[1] * (b - a) - k[2] * (c - a)
    n = wp.cross(b - a, c - a)
    length = wp.length(d)
    size = wp.max(wp.length(b - a), wp.length(c - a))
    direction = wp.vec3()  # on a face without area the direction is not defined: zero
    if length > 1.0e-6 * size and length > 0.0:
        direction = d * (sign / length)
    elif wp.length(n) > 0.0:
        direction = n / wp.length(n)
    return k, direction, length


@wp.kernel(enable_backward=False)
def attach_kernel(
    vertices: wp.array2d(dtype=wp.vec3),
    points: wp.array2d(dtype=wp.vec3),
    faces: wp.array2d(dtype=int),
    face: wp.array2d(dtype=int),
    sign: wp.array2d(dtype=float),
    distance: wp.array2d(dtype=float),
    barycentric: wp.array2d(dtype=wp.vec3),
):
    w, i = wp.tid()
    k, _direction, length = outward(vertices, faces, w, face[w, i], points[w, i], sign[w, i])
    distance[w, i] = sign[w, i] * length
    barycentric[w, i] = k


@wp.kernel(enable_backward=False)
def attach_adjoint(
    vertices: wp.array2d(dtype=wp.vec3),
    points: wp.array2d(dtype=wp.vec3),
    faces: wp.array2d(dtype=int),
    face: wp.array2d(dtype=int),
    sign: wp.array2d(dtype=float),
    gradient: wp.array2d(dtype=float),
    to_vertices: wp.array2d(dtype=wp.vec3),
    to_points: wp.array2d(dtype=wp.vec3),
):
    w, i = wp.tid()
    g = gradient[w, i]
    if g != 0.0:
        f = face[w, i]
        k, direction, _length = outward(vertices, faces, w, f, points[w, i], sign[w, i])
        to_points[w, i] = to_points[w, i] + g * direction
        for corner in range(3):
            wp.atomic_add(to_vertices, w, faces[f, corner], direction * (-g * k[corner]))


@warp_op(shared=("faces",), threads=None)
def attach_distance(
    vertices: wp.array2d(dtype=wp.vec3),
    points: wp.array2d(dtype=wp.vec3),
    faces: wp.array2d(dtype=int),
    face: wp.array2d(dtype=int),
    sign: wp.array2d(dtype=float),
):
    """Signed distance (world, point) to given faces, with gradient, and barycentrics (world, point, 3), without.

    vertices (world, vertex, 3), points (world, point, 3), faces (face, 3), face and sign (world, point). Gradient to
    vertices and points; none to the sign. At distance zero the direction is the face's normal.
    """
    distance = scratch(points.shape, float)
    barycentric = scratch(points.shape, wp.vec3, requires_grad=False)
    wp.launch(attach_kernel, points.shape, [vertices, points, faces, face, sign], [distance, barycentric])
    return distance, barycentric


@attach_distance.adjoint(recompute=False)
def _(inputs, outputs):
    wp.launch(
        attach_adjoint,
        inputs.points.shape,
        [inputs.vertices, inputs.points, inputs.faces, inputs.face, inputs.sign, outputs[0].grad],
        [inputs.vertices.grad, inputs.points.grad],
    )


class MeshTrees:
    """Search trees of a mesh, one a world, of its vertices as they are now; build anew when they move.

    Raises: UserError for faces that name no vertex, and vertices that are not finite.
    """

    def __init__(self, mesh: Mesh):
        vertices, faces = mesh.vertices.detach(), mesh.faces
        require_mesh("MeshTrees", mesh)
        start_warp()
        self.worlds, self.vertex_count, self.face_count = *vertices.shape[:2], faces.shape[0]
        with process_lock, torch.no_grad():
            self.slivers = _slivers(vertices, faces)
            indices = faces.to(torch.int32).contiguous().flatten()
            device = wp.device_from_torch(vertices.device)
            self._meshes = []  # the trees, which live as long as this object
            for world in range(self.worlds):
                points = wp.clone(wp.from_torch(vertices[world].contiguous(), dtype=wp.vec3), device=device)
                self._meshes.append(wp.Mesh(points=points, indices=wp.clone(wp.from_torch(indices), device=device)))
        self.ids = torch.tensor([mesh.id for mesh in self._meshes], dtype=torch.int64, device=vertices.device)


def require_mesh(name: str, mesh: Mesh) -> None:
    """A UserError unless the mesh has vertices (world, vertex, 3), faces (face, 3) of them, and finite numbers."""
    vertices, faces = mesh.vertices, mesh.faces
    if vertices.dim() != 3 or vertices.shape[2] != 3:
        raise UserError(f"{name}: expected vertices of shape (world, vertex, 3), got {tuple(vertices.shape)}")
    if faces.dim() != 2 or faces.shape[1] != 3 or faces.shape[0] == 0:
        raise UserError(f"{name}: expected faces of shape (face, 3) with at least one face, got {tuple(faces.shape)}")
    low, high = int(faces.min()), int(faces.max())
    if low < 0 or high >= vertices.shape[1]:
        raise UserError(f"{name}: expected vertex numbers in 0..{vertices.shape[1] - 1}, got {low}..{high}")
    if not bool(torch.isfinite(vertices).all()):
        raise UserError(f"{name}: expected finite vertices, got NaN or infinity; remedy: remove such vertices")


def _slivers(vertices: Tensor, faces: Tensor) -> Tensor:
    """Faces that Warp's query passes over in some world, int32, filled up with -1 to a power of two (few shapes are traced).

    It leaves out a face whose |normal| / (sum of squared edges) is under 1e-6. They are compared one by one, and a mesh that
    consists of them is slow.
    """
    a, b, c = vertices[:, faces.long()].unbind(dim=2)
    squares = sum((e * e).sum(dim=-1) for e in (b - a, c - a, c - b))
    normal = torch.linalg.norm(torch.linalg.cross(b - a, c - a), dim=-1)
    index = (~(normal > 2.0 * PASSED_OVER * squares)).any(dim=0).nonzero()[:, 0].to(torch.int32)
    room = 1 << max(0, (len(index) - 1).bit_length())
    return torch.cat([index, index.new_full((max(room, 1) - len(index),), -1)])


def closest_faces(trees: MeshTrees, points: Tensor) -> Tensor:
    """Nearest face of each of the points (world, point, 3): int32 (world, point). A query without gradient."""
    worlds, count = world_count(trees.ids, points), points.shape[1]
    if count == 0:
        return torch.zeros(worlds, 0, dtype=torch.int32, device=points.device)
    chunks = -(-count // CHUNK)
    size = -(-count // chunks)
    size += -size % 64  # few shapes are traced
    padded = torch.cat([points.detach(), points.detach()[:, -1:].expand(-1, chunks * size - count, 3)], dim=1)
    padded = expand_worlds(padded, worlds).reshape(worlds * chunks, size, 3)
    ids = trees.ids.expand(worlds)[:, None].expand(worlds, chunks).reshape(-1)
    face = search_points_op(ids.contiguous(), padded.contiguous(), trees.slivers)
    return face.reshape(worlds, chunks * size)[:, :count].contiguous()


def closest_points(mesh: Mesh, points: Tensor, trees: MeshTrees | None = None) -> ClosestPoints:
    """The mesh's closest point to each of the points.

    Args:
        mesh: vertices [m] (world, vertex, 3), faces (face, 3); open, self-intersecting or degenerate faces are welcome.
        points: [m], (world, point, 3); a world axis of one is repeated.
        trees: `MeshTrees` of the same vertices, when they are asked more than once.
    Returns: ClosestPoints. `distance` has gradient to vertices and points; the face is held (no gradient through where the
        nearest face changes), and at distance zero the derivative is that of the distance on the face's outer side.
    Raises: UserError for points or vertices that are not finite, wrong shapes, trees of another number of worlds,
        vertices or faces.
    """
    if points.dim() != 3 or points.shape[2] != 3:
        raise UserError(f"closest_points.points: expected shape (world, point, 3), got {tuple(points.shape)}")
    if not bool(torch.isfinite(points).all()):
        raise UserError("closest_points.points: expected finite points, got NaN or infinity")
    trees = MeshTrees(mesh) if trees is None else trees
    if trees.worlds != mesh.vertices.shape[0]:
        raise UserError(f"closest_points.trees: expected {mesh.vertices.shape[0]} worlds, got {trees.worlds}")
    counts, asked = (mesh.vertices.shape[1], mesh.faces.shape[0]), (trees.vertex_count, trees.face_count)
    if counts != asked:
        raise UserError(f"closest_points.trees: expected those of {counts} vertices and faces, got of {asked}; remedy: rebuild")
    worlds = world_count(mesh.vertices, points)
    face = require_found("closest_points", closest_faces(trees, points))
    vertices, points = expand_worlds(mesh.vertices, worlds), expand_worlds(points, worlds)
    sign = torch.ones(face.shape, device=points.device)
    distance, barycentric = attach_distance(vertices, points, mesh.faces.int(), face, sign)
    return ClosestPoints(face, barycentric, distance)


def require_found(name: str, face: Tensor) -> Tensor:
    """The faces, or a UserError where the search found none (-1)."""
    if face.numel() and int(face.min()) < 0:
        raise UserError(f"{name}: expected a face near every point, found none for some; remedy: scale the mesh to metres")
    return face
