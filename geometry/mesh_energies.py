"""Edges of a mesh with their lengths and dihedral angles, and the energies that keep a mesh smooth and even.

Dihedral angle of an edge e with unit face normals n0, n1 on either side:

    theta = atan2(e / |e| . (n0 x n1), n0 . n1),   in (-pi, pi], 0 where flat, positive where the mesh is convex

(atan2 has the right gradient at 0, where acos has none). Bending energy of discrete shells (Grinspun et al. 2003, section 3):

    E = sum over edges of (theta - theta_rest)^2 |e| / h,   h = a third of the mean height of the two faces over the edge,

so that the weight is 3 |e|^2 / (A0 + A1), taken on the rest shape. Edge-length energy (same paper):

    E = sum over edges of (|e| - |e|_rest)^2 / |e|_rest.

Border edges bend at no cost. An edge shorter than 1e-12 m, or beside a face of less than 5e-15 m^2, has the angle zero with
a zero gradient. A length below 1e-12 m is zero, and so is its gradient there.
"""

import torch
import warp as wp
from torch import Tensor

from dvc.errors import UserError
from dvc.records import Mesh, expand_worlds, world_count
from dvc.warp_op import scratch, warp_op
from geometry.laplacian import SHORT
from geometry.mesh_normals import TINY, face_cross
from geometry.mesh_topology import mesh_topology, require_indices

FLATTEST = wp.constant(1.0e-6)  # least area of two faces over |e|^2 that a bending weight reckons with
SHORTEST = 1e-3  # least rest length that a weight reckons with, in mean rest lengths


@wp.func
def edge_angle(vertices: wp.array2d(dtype=wp.vec3), world: int, i: int, j: int, k: int, m: int) -> float:
    """Dihedral angle over the edge from i to j, face 0 is (i, j, k), face 1 is (j, i, m)."""
    c0 = face_cross(vertices, world, i, j, k)
    c1 = face_cross(vertices, world, j, i, m)
    e = vertices[world, j] - vertices[world, i]
    s0 = wp.dot(c0, c0)
    s1 = wp.dot(c1, c1)
    s = wp.dot(e, e)
    angle = float(0.0)
    if not (s0 < TINY or s1 < TINY or s < SHORT):  # NaN goes on
        n0 = c0 / wp.sqrt(s0)
        n1 = c1 / wp.sqrt(s1)
        angle = wp.atan2(wp.dot(e / wp.sqrt(s), wp.cross(n0, n1)), wp.dot(n0, n1))
    return angle


@wp.func
def guarded_length(v: wp.vec3, least: float) -> float:
    square = wp.dot(v, v)
    length = float(0.0)
    if square >= least:
        length = wp.sqrt(square)
    return length


@wp.kernel
def angle_kernel(vertices: wp.array2d(dtype=wp.vec3), edges: wp.array2d(dtype=int), angles: wp.array2d(dtype=float)):
    world, edge = wp.tid()
    if edges[edge, 3] >= 0:
        angles[world, edge] = edge_angle(vertices, world, edges[edge, 0], edges[edge, 1], edges[edge, 4], edges[edge, 5])


@wp.kernel
def length_kernel(vertices: wp.array2d(dtype=wp.vec3), edges: wp.array2d(dtype=int), lengths: wp.array2d(dtype=float)):
    world, edge = wp.tid()
    lengths[world, edge] = guarded_length(vertices[world, edges[edge, 1]] - vertices[world, edges[edge, 0]], SHORT)


@wp.kernel
def bending_weight_kernel(vertices: wp.array2d(dtype=wp.vec3), edges: wp.array2d(dtype=int), weights: wp.array2d(dtype=float)):
    world, edge = wp.tid()
    if edges[edge, 3] >= 0:
        i = edges[edge, 0]
        j = edges[edge, 1]
        e = vertices[world, j] - vertices[world, i]
        square = wp.dot(e, e)
        if square >= SHORT:
            first = guarded_length(face_cross(vertices, world, i, j, edges[edge, 4]), TINY)
            second = guarded_length(face_cross(vertices, world, j, i, edges[edge, 5]), TINY)
            weights[world, edge] = 3.0 * square / wp.max(0.5 * (first + second), FLATTEST * square)


@warp_op(shared=("edges",), threads=None)
def dihedral_angles_op(vertices: wp.array2d(dtype=wp.vec3), edges: wp.array2d(dtype=int)):
    """vertices (world, vertex, 3), edges (edge, 6) of mesh_topology -> angles (world, edge)."""
    angles = scratch((vertices.shape[0], edges.shape[0]), float)
    wp.launch(angle_kernel, angles.shape, inputs=[vertices, edges], outputs=[angles])
    return angles


@warp_op(shared=("edges",), threads=None)
def edge_lengths_op(vertices: wp.array2d(dtype=wp.vec3), edges: wp.array2d(dtype=int)):
    """vertices (world, vertex, 3), edges (edge, 6) -> lengths (world, edge)."""
    lengths = scratch((vertices.shape[0], edges.shape[0]), float)
    wp.launch(length_kernel, lengths.shape, inputs=[vertices, edges], outputs=[lengths])
    return lengths


@warp_op(shared=("edges",), threads=None)
def bending_weights_op(vertices: wp.array2d(dtype=wp.vec3), edges: wp.array2d(dtype=int)):
    """vertices (world, vertex, 3), edges (edge, 6) -> 3 |e|^2 / (A0 + A1), zero on the border, (world, edge)."""
    weights = scratch((vertices.shape[0], edges.shape[0]), float)
    wp.launch(bending_weight_kernel, weights.shape, inputs=[vertices, edges], outputs=[weights])
    return weights


def mesh_edges(mesh: Mesh) -> Tensor:
    """Vertices at the ends of the edges, int32, (edge, 2), in the order of every quantity (world, edge) here."""
    return mesh_topology(mesh.faces).edges[:, :2]


def edge_lengths(mesh: Mesh) -> Tensor:
    """Lengths of the edges [m], (world, edge). Gradient: complete, to the vertices; zero at zero length."""
    require_indices("edge_lengths", mesh.faces, mesh.vertices)
    return edge_lengths_op(mesh.vertices, mesh_topology(mesh.faces).edges)


def dihedral_angles(mesh: Mesh) -> Tensor:
    """Angles between the faces at each edge [rad], (world, edge): 0 flat, positive convex, zero on the border.

    Gradient: complete, to the vertices; at +-pi, where the faces are folded on one another, the value jumps by 2 pi and the
    gradient is that of either side, which is the same.
    Raises: what `mesh_topology` raises for faces that are no oriented manifold.
    """
    require_indices("dihedral_angles", mesh.faces, mesh.vertices)
    return dihedral_angles_op(mesh.vertices, mesh_topology(mesh.faces).edges)


def bending_energy(mesh: Mesh, rest: Mesh | None = None) -> Tensor:
    """Bending energy of discrete shells [rad^2], (world,). It does not change when mesh and rest are scaled.

    Arguments: rest: the shape without stress, the same faces; None: flat, the weights taken on the mesh itself.
    The angle's difference from rest is taken the short way round, in [-pi, pi].
    Gradient: complete, to the vertices of both.
    Raises: UserError for a rest shape of another number of vertices; what `mesh_topology` raises.
    """
    require_indices("bending_energy", mesh.faces, mesh.vertices)
    edges = mesh_topology(mesh.faces).edges
    angles = dihedral_angles_op(mesh.vertices, edges)
    if rest is not None:
        _same_vertices("bending_energy", mesh, rest)
        bend = angles - dihedral_angles_op(rest.vertices, edges)
        angles = bend - 2.0 * torch.pi * torch.round(bend.detach() / (2.0 * torch.pi))
    weights = bending_weights_op(mesh.vertices if rest is None else rest.vertices, edges)
    return (weights * angles * angles).sum(1)


def edge_length_energy(mesh: Mesh, rest: Mesh | Tensor) -> Tensor:
    """Energy of stretched edges [m], (world,).

    Arguments: rest: the shape without stress, the same faces; or the length that every edge should have [m], (world,).
        Rest lengths below a thousandth of their mean are weighted as if they had that length.
    Gradient: complete, to the vertices and to rest.
    Raises: UserError for a rest shape of another number of vertices, and for lengths of another shape.
    """
    require_indices("edge_length_energy", mesh.faces, mesh.vertices)
    edges = mesh_topology(mesh.faces).edges
    lengths = edge_lengths_op(mesh.vertices, edges)
    if isinstance(rest, Mesh):
        _same_vertices("edge_length_energy", mesh, rest)
        target = edge_lengths_op(rest.vertices, edges)
    elif rest.dim() == 1:
        target = rest[:, None]
    else:
        raise UserError(f"edge_length_energy.rest: expected a Mesh or lengths of shape (world,), got {tuple(rest.shape)}")
    worlds = world_count(lengths, target)
    lengths, target = expand_worlds(lengths, worlds), expand_worlds(target, worlds)
    least = (SHORTEST * target.mean(1, keepdim=True)).clamp_min(1e-18)
    return ((lengths - target) ** 2 / torch.maximum(target, least)).sum(1)


def _same_vertices(name: str, mesh: Mesh, rest: Mesh) -> None:
    world_count(mesh.vertices, rest.vertices)
    if mesh.vertices.shape[1] != rest.vertices.shape[1]:
        raise UserError(
            f"{name}.rest: expected {mesh.vertices.shape[1]} vertices as in the mesh, got {rest.vertices.shape[1]}; "
            "remedy: give the rest shape of the same faces"
        )
