"""Moments of a tetrahedral mesh: the sum over (a, b, c, d) of those of the tetrahedra.

With s = a + b + c + d, counted from a point o:

    V = (b - a) . ((c - a) x (d - a)) / 6,   integral of x = V s / 4,
    integral of x x^T = V (a a^T + b b^T + c c^T + d d^T + s s^T) / 20

(Tonon, "Explicit exact formulas for the 3-D tetrahedron inertia tensor", 2004). o is the mean vertex. An inverted tetrahedron
counts negative.
"""

import warp as wp
from torch import Tensor

from dvc.records import Bodies, TetMesh
from dvc.warp_op import scratch, warp_op
from geometry.mesh_topology import require_indices
from geometry.moments import bodies_of_rows, held_frame, moment_row, moments_vector, placed


@wp.kernel
def tet_moments_kernel(
    vertices: wp.array2d(dtype=wp.vec3),
    tets: wp.array2d(dtype=int),
    origin: wp.array(dtype=wp.vec3),
    reach: wp.array(dtype=float),
    rows: wp.array2d(dtype=moments_vector),
):
    world, tet = wp.tid()
    a = placed(vertices[world, tets[tet, 0]], origin[world], reach[world])
    b = placed(vertices[world, tets[tet, 1]], origin[world], reach[world])
    c = placed(vertices[world, tets[tet, 2]], origin[world], reach[world])
    d = placed(vertices[world, tets[tet, 3]], origin[world], reach[world])
    v = wp.dot(b - a, wp.cross(c - a, d - a)) / wp.float64(6.0)
    s = a + b + c + d
    squares = wp.outer(a, a) + wp.outer(b, b) + wp.outer(c, c) + wp.outer(d, d) + wp.outer(s, s)
    rows[world, tet] = moment_row(v, s, squares)


@wp.kernel
def tet_volumes_kernel(vertices: wp.array2d(dtype=wp.vec3), tets: wp.array2d(dtype=int), volumes: wp.array2d(dtype=float)):
    world, tet = wp.tid()
    a = vertices[world, tets[tet, 0]]
    b = vertices[world, tets[tet, 1]] - a
    c = vertices[world, tets[tet, 2]] - a
    d = vertices[world, tets[tet, 3]] - a
    volumes[world, tet] = wp.dot(b, wp.cross(c, d)) / 6.0


@warp_op(shared=("tets",), threads=None)
def tet_moments(
    vertices: wp.array2d(dtype=wp.vec3),
    tets: wp.array2d(dtype=int),
    origin: wp.array(dtype=wp.vec3),
    reach: wp.array(dtype=float),
):
    """vertices (world, vertex, 3), tets (tet, 4), origin (world, 3), reach (world,) -> rows (world, tet, 10)."""
    rows = scratch((vertices.shape[0], tets.shape[0]), moments_vector)
    wp.launch(tet_moments_kernel, rows.shape, inputs=[vertices, tets, origin, reach], outputs=[rows])
    return rows


@warp_op(shared=("tets",), threads=None)
def tet_volumes_op(vertices: wp.array2d(dtype=wp.vec3), tets: wp.array2d(dtype=int)):
    """vertices (world, vertex, 3), tets (tet, 4) -> (world, tet)."""
    volumes = scratch((vertices.shape[0], tets.shape[0]), float)
    wp.launch(tet_volumes_kernel, volumes.shape, inputs=[vertices, tets], outputs=[volumes])
    return volumes


def tet_volumes(mesh: TetMesh) -> Tensor:
    """Signed volumes of the tetrahedra [m^3], (world, tet); negative where inverted. Gradient: complete, to the vertices."""
    require_indices("tet_volumes", mesh.tets, mesh.vertices)
    return tet_volumes_op(mesh.vertices, mesh.tets)


def mass_of_tetrahedra(mesh: TetMesh, density: Tensor, offset: Tensor) -> Bodies:
    """Bodies of a tetrahedral mesh; density [kg/m^3] (world,), offset [m] (world, 3).

    Gradient: complete, to vertices, density and offset.
    """
    require_indices("mass_of_tetrahedra", mesh.tets, mesh.vertices)
    origin, reach = held_frame(mesh.vertices)
    return bodies_of_rows(tet_moments(mesh.vertices, mesh.tets, origin, reach), reach, origin, density, offset)
