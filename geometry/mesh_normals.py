"""Normals and areas of faces, normals of vertices, differentiable in the vertices.

With c = (v1 - v0) x (v2 - v0):  area A = |c| / 2,  face normal n = c / |c|;
vertex normal = sum of w_f n_f over the faces around it, made unit length, where w is the face's angle at the vertex
(Thuermer and Wuethrich 1998, independent of how a flat region is cut) or its area (Gouraud 1971, smoother gradient).

A face counts as degenerate when |c|^2 < 1e-28 m^4, its area below 5e-15 m^2 (powers of it in the gradient would leave float32):
its area and normal are zero, and so is every gradient of these. A vertex whose normals cancel has the normal zero.
"""

from typing import Literal

import warp as wp
from torch import Tensor

from dvc.errors import UserError
from dvc.records import Mesh
from dvc.warp_op import scratch, warp_op
from geometry.mesh_topology import require_indices

TINY = wp.constant(1.0e-28)  # [m^4], least |c|^2 of a face that has a normal


@wp.func
def face_cross(vertices: wp.array2d(dtype=wp.vec3), world: int, i: int, j: int, k: int) -> wp.vec3:
    """(v_j - v_i) x (v_k - v_i): twice the area along the normal."""
    return wp.cross(vertices[world, j] - vertices[world, i], vertices[world, k] - vertices[world, i])


@wp.kernel
def face_kernel(
    vertices: wp.array2d(dtype=wp.vec3),
    faces: wp.array2d(dtype=int),
    normals: wp.array2d(dtype=wp.vec3),
    areas: wp.array2d(dtype=float),
):
    world, face = wp.tid()
    c = face_cross(vertices, world, faces[face, 0], faces[face, 1], faces[face, 2])
    square = wp.dot(c, c)
    if not (square < TINY):  # NaN goes on
        twice = wp.sqrt(square)
        normals[world, face] = c / twice
        areas[world, face] = 0.5 * twice


@wp.kernel
def vertex_sum_kernel(
    vertices: wp.array2d(dtype=wp.vec3),
    faces: wp.array2d(dtype=int),
    by_angle: int,
    sums: wp.array2d(dtype=wp.vec3),
):
    world, face = wp.tid()
    c = face_cross(vertices, world, faces[face, 0], faces[face, 1], faces[face, 2])
    square = wp.dot(c, c)
    if not (square < TINY):  # NaN goes on
        twice = wp.sqrt(square)
        if by_angle == 1:
            for corner in range(3):
                p = vertices[world, faces[face, corner]]
                a = vertices[world, faces[face, (corner + 1) % 3]] - p
                b = vertices[world, faces[face, (corner + 2) % 3]] - p
                wp.atomic_add(sums, world, faces[face, corner], c * (wp.atan2(twice, wp.dot(a, b)) / twice))
        else:
            for corner in range(3):
                wp.atomic_add(sums, world, faces[face, corner], c)


@wp.kernel
def unit_kernel(sums: wp.array2d(dtype=wp.vec3), normals: wp.array2d(dtype=wp.vec3)):
    world, vertex = wp.tid()
    s = sums[world, vertex]
    square = wp.dot(s, s)
    if not (square < TINY):  # NaN goes on
        normals[world, vertex] = s / wp.sqrt(square)


@warp_op(shared=("faces",), threads=None)
def face_geometry(vertices: wp.array2d(dtype=wp.vec3), faces: wp.array2d(dtype=int)):
    """vertices (world, vertex, 3), faces (face, 3) -> normals (world, face, 3), areas (world, face)."""
    shape = (vertices.shape[0], faces.shape[0])
    normals, areas = scratch(shape, wp.vec3), scratch(shape, float)
    wp.launch(face_kernel, shape, inputs=[vertices, faces], outputs=[normals, areas])
    return normals, areas


@warp_op(shared=("faces",), threads=None)
def vertex_normals_op(vertices: wp.array2d(dtype=wp.vec3), faces: wp.array2d(dtype=int), *, by_angle: bool):
    """vertices (world, vertex, 3), faces (face, 3) -> normals (world, vertex, 3)."""
    sums, normals = scratch(vertices.shape, wp.vec3), scratch(vertices.shape, wp.vec3)
    shape = (vertices.shape[0], faces.shape[0])
    wp.launch(vertex_sum_kernel, shape, inputs=[vertices, faces, int(by_angle)], outputs=[sums])
    wp.launch(unit_kernel, vertices.shape, inputs=[sums], outputs=[normals])
    return normals


def face_normals(mesh: Mesh) -> Tensor:
    """Unit normals of the faces, (world, face, 3); zero, with a zero gradient, for a degenerate face.

    Gradient: complete, to the vertices.
    """
    require_indices("face_normals", mesh.faces, mesh.vertices)
    return face_geometry(mesh.vertices, mesh.faces)[0]


def face_areas(mesh: Mesh) -> Tensor:
    """Areas of the faces [m^2], (world, face). The gradient at zero area, where the area has a kink, is zero."""
    require_indices("face_areas", mesh.faces, mesh.vertices)
    return face_geometry(mesh.vertices, mesh.faces)[1]


def vertex_normals(mesh: Mesh, weighting: Literal["angle", "area"] = "angle") -> Tensor:
    """Unit normals at the vertices, (world, vertex, 3); zero where no face gives one.

    Gradient: complete, to the vertices.
    Raises: UserError for another weighting.
    """
    if weighting not in ("angle", "area"):
        raise UserError(f"vertex_normals.weighting: expected 'angle' or 'area', got {weighting!r}")
    require_indices("vertex_normals", mesh.faces, mesh.vertices)
    return vertex_normals_op(mesh.vertices, mesh.faces, by_angle=weighting == "angle")
