"""Which triangles of a mesh pass through one another: pairs that share no vertex and have a point in common.

A bounding-volume hierarchy gives candidate pairs. Two triangles that are not in one plane meet if an edge of one meets the
other, which the signs of volumes decide (Segura and Feito 2001; Guigue and Devillers 2003 for the predicates):

    edge pq crosses abc  <=>  [abcp] and [abcq] have opposite signs, and [pqab], [pqbc], [pqca] have one sign;

in one plane they meet if two edges cross or a vertex of one lies in the other. Volumes are taken in float64 from differences
of float32 vertices, so that signs are right but for near-ties below 1e-15 of the triangles' size cubed; touching counts.
Vertices at equal positions count as one vertex: seams of a mesh whose vertices were split do not intersect there.

This is a query: it has no gradient.
"""

import torch
import warp as wp
from torch import Tensor

from dvc.errors import UserError
from dvc.records import Mesh
from dvc.warp_op import scratch, warp_op
from geometry.mesh_topology import require_indices


@wp.func
def volume(a: wp.vec3d, b: wp.vec3d, c: wp.vec3d, d: wp.vec3d) -> wp.float64:
    return wp.dot(wp.cross(b - a, c - a), d - a)


@wp.func
def one_sign(x: wp.float64, y: wp.float64, z: wp.float64) -> bool:
    zero = wp.float64(0.0)
    return (x >= zero and y >= zero and z >= zero) or (x <= zero and y <= zero and z <= zero)


@wp.func
def edge_meets_triangle(p: wp.vec3d, q: wp.vec3d, a: wp.vec3d, b: wp.vec3d, c: wp.vec3d) -> bool:
    """Whether pq meets abc, where p and q are not both in its plane."""
    zero = wp.float64(0.0)
    over = volume(a, b, c, p)
    under = volume(a, b, c, q)
    if (over > zero and under > zero) or (over < zero and under < zero) or (over == zero and under == zero):
        return False
    return one_sign(volume(p, q, a, b), volume(p, q, b, c), volume(p, q, c, a))


@wp.func
def side(a: wp.vec3d, b: wp.vec3d, p: wp.vec3d, n: wp.vec3d) -> wp.float64:
    return wp.dot(wp.cross(b - a, p - a), n)


@wp.func
def between(a: wp.float64, b: wp.float64, c: wp.float64, d: wp.float64) -> bool:
    """Whether the intervals ab and cd overlap."""
    return wp.min(a, b) <= wp.max(c, d) and wp.min(c, d) <= wp.max(a, b)


@wp.func
def edges_meet(a: wp.vec3d, b: wp.vec3d, c: wp.vec3d, d: wp.vec3d, n: wp.vec3d) -> bool:
    """Whether ab and cd, in the plane with normal n, have a point in common."""
    zero = wp.float64(0.0)
    if not (between(a[0], b[0], c[0], d[0]) and between(a[1], b[1], c[1], d[1]) and between(a[2], b[2], c[2], d[2])):
        return False
    s = side(a, b, c, n)
    t = side(a, b, d, n)
    u = side(c, d, a, n)
    v = side(c, d, b, n)
    apart = (s > zero and t > zero) or (s < zero and t < zero) or (u > zero and v > zero) or (u < zero and v < zero)
    return not apart


@wp.func
def inside(p: wp.vec3d, a: wp.vec3d, b: wp.vec3d, c: wp.vec3d, n: wp.vec3d) -> bool:
    return one_sign(side(a, b, p, n), side(b, c, p, n), side(c, a, p, n))


@wp.func
def coplanar_meet(a: wp.mat33d, b: wp.mat33d, n: wp.vec3d) -> bool:
    """Triangles as rows of matrices, both in the plane with normal n."""
    meet = inside(a[0], b[0], b[1], b[2], n) or inside(b[0], a[0], a[1], a[2], n)
    for i in range(3):
        for j in range(3):
            meet = meet or edges_meet(a[i], a[(i + 1) % 3], b[j], b[(j + 1) % 3], n)
    return meet


@wp.func
def triangles_meet(a: wp.mat33d, b: wp.mat33d) -> bool:
    """Triangles as rows of matrices. Two that both have no area never meet."""
    zero = wp.float64(0.0)
    n = wp.cross(a[1] - a[0], a[2] - a[0])
    m = wp.cross(b[1] - b[0], b[2] - b[0])
    whole = a  # one with an area, and the other
    other = b
    if wp.dot(n, n) == zero:
        if wp.dot(m, m) == zero:
            return False
        whole = b
        other = a
        n = m
    o = whole[0]
    if wp.dot(other[0] - o, n) == zero and wp.dot(other[1] - o, n) == zero and wp.dot(other[2] - o, n) == zero:
        return coplanar_meet(a, b, n)
    meet = bool(False)
    for i in range(3):
        meet = meet or edge_meets_triangle(a[i], a[(i + 1) % 3], b[0], b[1], b[2])
        meet = meet or edge_meets_triangle(b[i], b[(i + 1) % 3], a[0], a[1], a[2])
    return meet


@wp.func
def corners(vertices: wp.array2d(dtype=wp.vec3), faces: wp.array2d(dtype=int), world: int, face: int) -> wp.mat33:
    return wp.matrix_from_rows(
        vertices[world, faces[face, 0]], vertices[world, faces[face, 1]], vertices[world, faces[face, 2]]
    )


@wp.kernel(enable_backward=False)
def bounds_kernel(
    vertices: wp.array2d(dtype=wp.vec3),
    faces: wp.array2d(dtype=int),
    world: int,
    lower: wp.array(dtype=wp.vec3),
    upper: wp.array(dtype=wp.vec3),
):
    face = wp.tid()
    t = corners(vertices, faces, world, face)
    lower[face] = wp.min(t[0], wp.min(t[1], t[2]))
    upper[face] = wp.max(t[0], wp.max(t[1], t[2]))


@wp.kernel(enable_backward=False)
def pairs_kernel(
    tree: wp.uint64,
    vertices: wp.array2d(dtype=wp.vec3),
    faces: wp.array2d(dtype=int),
    world: int,
    lower: wp.array(dtype=wp.vec3),
    upper: wp.array(dtype=wp.vec3),
    counts: wp.array2d(dtype=int),
    hit: wp.array2d(dtype=int),
):
    face = wp.tid()
    mine = corners(vertices, faces, world, face)
    a = wp.mat33d()
    for i in range(3):
        a[i] = wp.vec3d(wp.float64(mine[i][0]), wp.float64(mine[i][1]), wp.float64(mine[i][2]))
    query = wp.bvh_query_aabb(tree, lower[face], upper[face])
    candidate = wp.int32(0)
    while wp.bvh_query_next(query, candidate):
        if candidate > face:
            theirs = corners(vertices, faces, world, candidate)
            shared = bool(False)
            for i in range(3):
                for j in range(3):
                    shared = shared or faces[face, i] == faces[candidate, j] or mine[i] == theirs[j]
            if not shared:
                b = wp.mat33d()
                for i in range(3):
                    b[i] = wp.vec3d(wp.float64(theirs[i][0]), wp.float64(theirs[i][1]), wp.float64(theirs[i][2]))
                if triangles_meet(a, b):
                    counts[world, face] = counts[world, face] + 1
                    hit[world, face] = 1
                    hit[world, candidate] = 1


@warp_op(shared=("faces",), capture=False, enable_backward=False)
def self_intersections_op(vertices: wp.array2d(dtype=wp.vec3), faces: wp.array2d(dtype=int)):
    """vertices (world, vertex, 3), faces (face, 3) -> counts (world, face) of pairs with a later face, hit (world, face)."""
    count = faces.shape[0]
    lower, upper = scratch((count,), wp.vec3), scratch((count,), wp.vec3)
    counts, hit = scratch((vertices.shape[0], count), int), scratch((vertices.shape[0], count), int)
    for world in range(vertices.shape[0]):
        wp.launch(bounds_kernel, count, inputs=[vertices, faces, world], outputs=[lower, upper])
        tree = wp.Bvh(lower, upper)
        wp.launch(pairs_kernel, count, inputs=[tree.id, vertices, faces, world, lower, upper], outputs=[counts, hit])
    return counts, hit


def _query(name: str, mesh: Mesh) -> tuple[Tensor, Tensor]:
    require_indices(name, mesh.faces, mesh.vertices)
    bad = ~torch.isfinite(mesh.vertices).all(-1)
    if bool(bad.any()):
        world, vertex = bad.nonzero()[0].tolist()
        raise UserError(f"{name}: expected finite vertices, got {mesh.vertices[world, vertex].tolist()} at vertex {vertex}")
    return self_intersections_op(mesh.vertices.detach(), mesh.faces)


def self_intersection_count(mesh: Mesh) -> Tensor:
    """How many pairs of triangles that share no vertex meet, int64, (world,). No gradient.

    Two triangles without area never count; neighbours folded on one another share a vertex and do not count.
    Raises: UserError for vertices that are not finite.
    """
    return _query("self_intersection_count", mesh)[0].sum(1, dtype=torch.int64)


def self_intersecting_faces(mesh: Mesh) -> Tensor:
    """Faces that take part in such a pair, bool, (world, face). No gradient. Raises: as `self_intersection_count`."""
    return _query("self_intersecting_faces", mesh)[1] > 0
