"""Laplacians of a triangle mesh and the areas that belong to its vertices, differentiable in the vertices.

Cotangent Laplacian (Pinkall and Polthier 1993), positive semidefinite:

    (L x)_i = sum_j w_ij (x_i - x_j),   w_ij = (cot alpha_ij + cot beta_ij) / 2,

alpha and beta the angles across the edge ij. L applied to the positions is the gradient of the total area.
Combinatorial Laplacian: the same with w_ij = 1 for every edge.
Areas: barycentric, a third of each face around the vertex; or mixed Voronoi (Meyer et al. 2003, section 3.3):
(|ij|^2 cot beta + |ik|^2 cot gamma) / 8 in a face without an obtuse angle, else A/2 at the obtuse corner and A/4 at the others.

A corner whose angle is below 1e-5 rad, or above pi less that, has the cotangent of that angle with sides of the same length,
so that |cot| <= 1e5; a corner with a side shorter than 1e-12 m has the cotangent zero. Nothing here is NaN for finite vertices.
"""

from typing import Literal

import numpy as np
import torch
import warp as wp
from scipy import sparse
from torch import Tensor

from dvc.errors import UserError
from dvc.records import Mesh, expand_worlds, world_count
from dvc.warp_op import scratch, warp_op
from geometry.mesh_normals import TINY, face_cross
from geometry.mesh_topology import mesh_topology, require_indices

SMALLEST_SINE = wp.constant(1.0e-5)
SHORT = wp.constant(1.0e-24)  # [m^2], least square of a side that has a direction


@wp.func
def corner_cotangent(p: wp.vec3, q: wp.vec3, r: wp.vec3) -> float:
    """Cotangent of the angle at p."""
    a = q - p
    b = r - p
    aa = wp.dot(a, a)
    bb = wp.dot(b, b)
    cotangent = float(0.0)
    if aa >= SHORT and bb >= SHORT:
        u = a / wp.sqrt(aa)
        v = b / wp.sqrt(bb)
        n = wp.cross(u, v)
        square = wp.dot(n, n)
        if square >= SMALLEST_SINE * SMALLEST_SINE:
            cotangent = wp.dot(u, v) / wp.sqrt(square)
        else:
            cotangent = wp.dot(u, v) / SMALLEST_SINE
    return cotangent


@wp.kernel
def cotangent_kernel(vertices: wp.array2d(dtype=wp.vec3), faces: wp.array2d(dtype=int), cotangents: wp.array2d(dtype=wp.vec3)):
    world, face = wp.tid()
    a = vertices[world, faces[face, 0]]
    b = vertices[world, faces[face, 1]]
    c = vertices[world, faces[face, 2]]
    cotangents[world, face] = wp.vec3(corner_cotangent(a, b, c), corner_cotangent(b, c, a), corner_cotangent(c, a, b))


@wp.kernel
def apply_kernel(
    cotangents: wp.array2d(dtype=wp.vec3),
    faces: wp.array2d(dtype=int),
    values: wp.array3d(dtype=float),
    result: wp.array3d(dtype=float),
):
    world, face, channel = wp.tid()
    cotangent = cotangents[world, face]
    for corner in range(3):
        j = faces[face, (corner + 1) % 3]
        k = faces[face, (corner + 2) % 3]
        flux = 0.5 * cotangent[corner] * (values[world, j, channel] - values[world, k, channel])
        wp.atomic_add(result, world, j, channel, flux)
        wp.atomic_add(result, world, k, channel, -flux)


@wp.kernel
def vertex_area_kernel(
    vertices: wp.array2d(dtype=wp.vec3), faces: wp.array2d(dtype=int), voronoi: int, areas: wp.array2d(dtype=float)
):
    world, face = wp.tid()
    n = face_cross(vertices, world, faces[face, 0], faces[face, 1], faces[face, 2])
    square = wp.dot(n, n)
    if not (square < TINY):  # NaN goes on
        twice = wp.sqrt(square)
        v0 = vertices[world, faces[face, 0]]
        v1 = vertices[world, faces[face, 1]]
        v2 = vertices[world, faces[face, 2]]
        obtuse = wp.where(wp.dot(v2 - v1, v0 - v1) < 0.0, 1, wp.where(wp.dot(v0 - v2, v1 - v2) < 0.0, 2, -1))
        obtuse = wp.where(wp.dot(v1 - v0, v2 - v0) < 0.0, 0, obtuse)
        for corner in range(3):
            i = faces[face, corner]
            p = vertices[world, i]
            q = vertices[world, faces[face, (corner + 1) % 3]]
            r = vertices[world, faces[face, (corner + 2) % 3]]
            if voronoi == 0:
                wp.atomic_add(areas, world, i, twice / 6.0)
            elif obtuse == corner:
                wp.atomic_add(areas, world, i, 0.25 * twice)
            elif obtuse >= 0:
                wp.atomic_add(areas, world, i, 0.125 * twice)
            else:
                across_r = wp.dot(q - p, q - p) * wp.dot(p - r, q - r)
                across_q = wp.dot(r - p, r - p) * wp.dot(p - q, r - q)
                wp.atomic_add(areas, world, i, 0.125 * (across_r + across_q) / twice)


@warp_op(shared=("faces",), threads=None)
def cotangents_op(vertices: wp.array2d(dtype=wp.vec3), faces: wp.array2d(dtype=int)):
    """vertices (world, vertex, 3), faces (face, 3) -> cotangents (world, face, 3)."""
    cotangents = scratch((vertices.shape[0], faces.shape[0]), wp.vec3)
    wp.launch(cotangent_kernel, cotangents.shape, inputs=[vertices, faces], outputs=[cotangents])
    return cotangents


@warp_op(shared=("faces",), threads=None)
def cotangent_apply_op(vertices: wp.array2d(dtype=wp.vec3), faces: wp.array2d(dtype=int), values: wp.array3d(dtype=float)):
    """vertices (world, vertex, 3), faces (face, 3), values (world, vertex, channel) -> L values."""
    cotangents = scratch((vertices.shape[0], faces.shape[0]), wp.vec3)
    result = scratch(values.shape, float)
    wp.launch(cotangent_kernel, cotangents.shape, inputs=[vertices, faces], outputs=[cotangents])
    shape = (*cotangents.shape, values.shape[2])
    wp.launch(apply_kernel, shape, inputs=[cotangents, faces, values], outputs=[result])
    return result


@warp_op(shared=("faces",), threads=None)
def vertex_areas_op(vertices: wp.array2d(dtype=wp.vec3), faces: wp.array2d(dtype=int), *, voronoi: bool):
    """vertices (world, vertex, 3), faces (face, 3) -> areas (world, vertex)."""
    areas = scratch(vertices.shape, float)
    shape = (vertices.shape[0], faces.shape[0])
    wp.launch(vertex_area_kernel, shape, inputs=[vertices, faces, int(voronoi)], outputs=[areas])
    return areas


def cotangents(mesh: Mesh) -> Tensor:
    """Cotangents of the angles at the corners of the faces, (world, face, corner). Gradient: complete, to the vertices."""
    require_indices("cotangents", mesh.faces, mesh.vertices)
    return cotangents_op(mesh.vertices, mesh.faces)


def cotangent_laplacian(mesh: Mesh, values: Tensor | None = None) -> Tensor:
    """The cotangent Laplacian applied to values (world, vertex, channel), default the positions: the same shape.

    It is integrated over each vertex's cell: divide by `vertex_areas` for the pointwise operator; of the positions that is
    2 H n, the mean curvature normal.
    Gradient: complete, to the vertices (through the weights) and to the values.
    Raises: UserError for values of another number of vertices.
    """
    values = mesh.vertices if values is None else values
    if values.dim() != 3 or values.shape[1] != mesh.vertices.shape[1]:
        raise UserError(
            f"cotangent_laplacian.values: expected shape (world, {mesh.vertices.shape[1]}, channel), got {tuple(values.shape)}"
        )
    worlds = world_count(mesh.vertices, values)
    require_indices("cotangent_laplacian", mesh.faces, mesh.vertices)
    return cotangent_apply_op(expand_worlds(mesh.vertices, worlds), mesh.faces, expand_worlds(values, worlds))


def vertex_areas(mesh: Mesh, kind: Literal["barycentric", "voronoi"] = "barycentric") -> Tensor:
    """The area that belongs to each vertex [m^2], (world, vertex); their sum is the mesh's area.

    Gradient: complete, to the vertices; the mixed Voronoi area has kinks where an angle is right.
    Raises: UserError for another kind.
    """
    if kind not in ("barycentric", "voronoi"):
        raise UserError(f"vertex_areas.kind: expected 'barycentric' or 'voronoi', got {kind!r}")
    require_indices("vertex_areas", mesh.faces, mesh.vertices)
    return vertex_areas_op(mesh.vertices, mesh.faces, voronoi=kind == "voronoi")


def combinatorial_matrix(faces: Tensor, vertex_count: int) -> sparse.csr_matrix:
    """The combinatorial Laplacian, (vertex, vertex), float64: degrees on the diagonal, -1 for each edge.

    Raises: UserError for a face that names a vertex beyond `vertex_count`, and what `mesh_topology` raises.
    """
    if int(faces.max()) >= vertex_count or int(faces.min()) < 0:
        raise UserError(
            f"combinatorial_matrix.faces: expected vertex numbers in 0..{vertex_count - 1}, "
            f"got {int(faces.min())}..{int(faces.max())}"
        )
    edges = mesh_topology(faces).edges.cpu().numpy()
    return _assemble(edges[:, 0], edges[:, 1], np.ones(len(edges)), vertex_count)


def cotangent_matrix(mesh: Mesh, world: int = 0) -> sparse.csr_matrix:
    """The cotangent Laplacian of one world, (vertex, vertex), float64, without a gradient: for solves and eigenvalues."""
    with torch.no_grad():
        weights = 0.5 * cotangents(Mesh(mesh.vertices[world : world + 1], mesh.faces))[0].double().cpu().numpy()
    faces = mesh.faces.cpu().numpy()
    return _assemble(faces[:, [1, 2, 0]].ravel(), faces[:, [2, 0, 1]].ravel(), weights.ravel(), mesh.vertices.shape[1])


def _assemble(start: np.ndarray, end: np.ndarray, weights: np.ndarray, count: int) -> sparse.csr_matrix:
    off = sparse.coo_matrix((-weights, (start, end)), (count, count)).tocsr()
    off = off + off.T
    return (off - sparse.diags(np.asarray(off.sum(axis=1)).ravel())).tocsr()
