"""Cage deformation: points follow a coarse closed mesh around them through mean value coordinates.

Ju, Schaefer and Warren, "Mean value coordinates for closed triangular meshes", 2005. For a point x and a cage triangle with
unit vectors u_i towards its corners at distances d_i, N_i = u_j x u_k, theta_i the angle between u_j and u_k,

    m = 1/2 sum_i theta_i N_i / |N_i|        (the mean vector, eq. 8),
    w_i = N_i . m / (d_i det[u_1 u_2 u_3])   (eq. 10),      coordinate of corner i: w_i summed over triangles, over the total.

Near the plane of a triangle det goes to zero. Its absolute value is kept above 1e-9, which gives Ju's three cases without a
branch: in the plane, outside the triangle, m is zero too and so are the weights; inside it, and on an edge, these weights
outgrow all others and are the barycentric coordinates. Kernels work in float64. A point within 1e-6 of the cage's size of a
cage vertex has that vertex's coordinate one; there coordinates have a kink and the gradient is zero.
"""

from collections.abc import Sequence

import numpy as np
import torch
import warp as wp
from torch import Tensor, nn

from dvc.errors import UserError
from dvc.records import Mesh, expand_worlds, world_count
from dvc.warp_op import scratch, warp_op
from geometry.mesh_topology import mesh_topology

LEAST_DETERMINANT = wp.constant(wp.float64(1.0e-9))
SMALL = wp.constant(wp.float64(1.0e-20))
ON_VERTEX = 1e-6  # distance over the cage's size


@wp.func
def doubled(v: wp.vec3) -> wp.vec3d:
    return wp.vec3d(wp.float64(v[0]), wp.float64(v[1]), wp.float64(v[2]))


@wp.func
def arc(n: wp.vec3d, cosine: wp.float64) -> wp.vec3d:
    """theta n / |n| for the angle theta whose sine is |n|; zero where it has no direction."""
    square = wp.dot(n, n)
    result = n
    if square >= SMALL:
        sine = wp.sqrt(square)
        result = n * (wp.atan2(sine, cosine) / sine)
    elif cosine < wp.float64(0.0):
        result = n * wp.float64(0.0)
    return result


@wp.kernel
def weights_kernel(
    points: wp.array2d(dtype=wp.vec3),
    cage: wp.array2d(dtype=wp.vec3),
    faces: wp.array2d(dtype=int),
    shift: wp.array(dtype=float),
    weights: wp.array3d(dtype=float),
):
    world, point, face = wp.tid()
    i = faces[face, 0]
    j = faces[face, 1]
    k = faces[face, 2]
    x = doubled(points[world, point])
    size = wp.float64(shift[world])
    a = (doubled(cage[world, i]) - x) / size
    b = (doubled(cage[world, j]) - x) / size
    c = (doubled(cage[world, k]) - x) / size
    aa = wp.dot(a, a)
    bb = wp.dot(b, b)
    cc = wp.dot(c, c)
    if wp.min(aa, wp.min(bb, cc)) >= wp.float64(1.0e-12):
        da = wp.sqrt(aa)
        db = wp.sqrt(bb)
        dc = wp.sqrt(cc)
        a = a / da
        b = b / db
        c = c / dc
        na = wp.cross(b, c)
        nb = wp.cross(c, a)
        nc = wp.cross(a, b)
        m = wp.float64(0.5) * (arc(na, wp.dot(b, c)) + arc(nb, wp.dot(c, a)) + arc(nc, wp.dot(a, b)))
        det = wp.dot(a, na)
        if wp.abs(det) < LEAST_DETERMINANT:
            det = wp.where(det < wp.float64(0.0), -LEAST_DETERMINANT, LEAST_DETERMINANT)
        wp.atomic_add(weights, world, point, i, float(wp.dot(na, m) / (da * det)))
        wp.atomic_add(weights, world, point, j, float(wp.dot(nb, m) / (db * det)))
        wp.atomic_add(weights, world, point, k, float(wp.dot(nc, m) / (dc * det)))


@warp_op(shared=("faces",), threads=None)
def mean_value_weights_op(
    points: wp.array2d(dtype=wp.vec3),
    cage: wp.array2d(dtype=wp.vec3),
    faces: wp.array2d(dtype=int),
    size: wp.array(dtype=float),
):
    """points (world, point, 3), cage (world, vertex, 3), faces (face, 3), size (world,) -> weights (world, point, vertex)."""
    weights = scratch((points.shape[0], points.shape[1], cage.shape[1]), float)
    shape = (points.shape[0], points.shape[1], faces.shape[0])
    wp.launch(weights_kernel, shape, inputs=[points, cage, faces, size], outputs=[weights])
    return weights


def mean_value_coordinates(points: Tensor, cage: Mesh) -> Tensor:
    """Mean value coordinates of points [m] (world, point, 3) in a closed cage, (world, point, cage vertex).

    They add up to one, reproduce linear functions, inside and outside the cage, and may be negative in a concave cage.
    Gradient: complete, to points and cage vertices, away from the cage's surface; on it the component along the normal has a
    kink, and at its vertices the gradient is zero.
    Raises: UserError for an open cage, points of another shape, and values that are not finite.
    """
    border = mesh_topology(cage.faces).border_count
    if border:
        raise UserError(f"mean_value_coordinates.cage: expected a closed mesh, got {border} border edges; remedy: close it")
    if points.dim() != 3 or points.shape[2] != 3:
        raise UserError(f"mean_value_coordinates.points: expected shape (world, point, 3), got {tuple(points.shape)}")
    for name, value in (("points", points), ("cage", cage.vertices)):
        if not bool(torch.isfinite(value).all()):
            raise UserError(f"mean_value_coordinates.{name}: expected finite positions, got others")
    worlds = world_count(points, cage.vertices)
    points, corners = expand_worlds(points, worlds), expand_worlds(cage.vertices, worlds)
    fixed = corners.detach()
    size = (fixed.amax(1) - fixed.amin(1)).norm(dim=1).clamp_min(1e-12)
    weights = mean_value_weights_op(points, corners, cage.faces, size)
    distance, nearest = torch.cdist(points.detach().double(), fixed.double()).min(2, keepdim=True)
    at_vertex = distance <= 2.0 * ON_VERTEX * size[:, None, None]
    total = weights.sum(2, keepdim=True)
    # outside, the total is negative; it is zero nowhere but for a cage without volume
    lost = at_vertex | (total.detach().abs() <= 1e-6 * weights.detach().abs().amax(2, keepdim=True).clamp_min(1e-30))
    one = torch.zeros_like(weights).scatter(2, nearest, 1.0)
    return torch.where(lost, one, weights / torch.where(lost, 1.0, total))


class CageDeform(nn.Module):
    """Points that follow a cage.

    Arguments: vertices (vertex, 3): the mesh at rest [m]; faces (face, 3): its faces; cage_vertices (c, 3), cage_faces (f, 3):
        the closed cage at rest. The coordinates are computed once: vertex times c float32.
    Forward: cage vertices [m] (world, c, 3) -> Mesh. The cage at rest gives the mesh at rest (to rounding).
    Gradient: complete, to the cage's vertices. To differentiate in the rest shapes, call `mean_value_coordinates`.
    Raises: UserError for shapes that are not these, an open cage, and what `mean_value_coordinates` raises.
    """

    coordinates: Tensor
    faces: Tensor

    def __init__(
        self,
        vertices: Tensor | np.ndarray | Sequence[Sequence[float]],
        faces: Tensor | np.ndarray | Sequence[Sequence[int]],
        cage_vertices: Tensor | np.ndarray | Sequence[Sequence[float]],
        cage_faces: Tensor | np.ndarray | Sequence[Sequence[int]],
    ):
        super().__init__()
        rest, cage = (torch.as_tensor(x, dtype=torch.float32) for x in (vertices, cage_vertices))
        corners, triangles = (torch.as_tensor(x, dtype=torch.int32).contiguous() for x in (cage_faces, faces))
        for name, value in (("vertices", rest), ("cage_vertices", cage), ("faces", triangles), ("cage_faces", corners)):
            if value.dim() != 2 or value.shape[1] != 3 or len(value) == 0:
                raise UserError(f"CageDeform.{name}: expected shape (count, 3), got {tuple(value.shape)}")
        if int(corners.min()) < 0 or int(corners.max()) >= len(cage):
            raise UserError(f"CageDeform.cage_faces: expected vertex numbers in 0..{len(cage) - 1}, got {int(corners.max())}")
        with torch.no_grad():
            coordinates = mean_value_coordinates(rest.detach()[None], Mesh(cage.detach()[None], corners))[0]
        self.register_buffer("coordinates", coordinates.contiguous(), persistent=False)
        self.register_buffer("faces", triangles, persistent=False)

    def forward(self, cage: Tensor) -> Mesh:
        if cage.dim() != 3 or cage.shape[1:] != (self.coordinates.shape[1], 3):
            raise UserError(f"CageDeform.cage: expected shape (world, {self.coordinates.shape[1]}, 3), got {tuple(cage.shape)}")
        return Mesh(self.coordinates @ cage, self.faces)
