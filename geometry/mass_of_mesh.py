"""Moments of a closed triangle mesh by the divergence theorem: a signed sum of tetrahedra (o, a, b, c), one a face.

    V = a . (b x c) / 6,   integral of x = V (a + b + c) / 4,
    integral of x x^T = V (a a^T + b b^T + c c^T + s s^T) / 20   with s = a + b + c,

vertices counted from o, their mean (Tonon, "Explicit exact formulas for the 3-D tetrahedron inertia tensor", 2004).
"""

import torch
import warp as wp
from torch import Tensor

from dvc.records import Bodies, Mesh
from dvc.warp_op import scratch, warp_op
from geometry.moments import bodies_of_rows, held_frame, moment_row, moments_vector, placed

BLOCK = 4096  # larger meshes are filled up to multiples of it: extracted ones come in many sizes, and each would be traced


@wp.kernel
def mesh_moments_kernel(
    vertices: wp.array2d(dtype=wp.vec3),
    faces: wp.array2d(dtype=int),
    origin: wp.array(dtype=wp.vec3),
    reach: wp.array(dtype=float),
    rows: wp.array2d(dtype=moments_vector),
):
    world, face = wp.tid()
    a = placed(vertices[world, faces[face, 0]], origin[world], reach[world])
    b = placed(vertices[world, faces[face, 1]], origin[world], reach[world])
    c = placed(vertices[world, faces[face, 2]], origin[world], reach[world])
    v = wp.dot(a, wp.cross(b, c)) / wp.float64(6.0)
    s = a + b + c
    rows[world, face] = moment_row(v, s, wp.outer(a, a) + wp.outer(b, b) + wp.outer(c, c) + wp.outer(s, s))


@warp_op(shared=("faces",), threads=None)
def mesh_moments(
    vertices: wp.array2d(dtype=wp.vec3),
    faces: wp.array2d(dtype=int),
    origin: wp.array(dtype=wp.vec3),
    reach: wp.array(dtype=float),
):
    """vertices (world, vertex, 3), faces (face, 3), origin (world, 3), reach (world,) -> rows (world, face, 10)."""
    rows = scratch((vertices.shape[0], faces.shape[0]), moments_vector)
    wp.launch(mesh_moments_kernel, rows.shape, inputs=[vertices, faces, origin, reach], outputs=[rows])
    return rows


def mass_of_mesh(mesh: Mesh, density: Tensor, offset: Tensor) -> Bodies:
    """Bodies of a closed mesh; density [kg/m^3] (world,), offset [m] (world, 3). Not checked: `MassProperties` does.

    Gradient: complete, to vertices, density and offset.
    """
    origin, reach = held_frame(mesh.vertices)
    vertices, faces = _filled_up(mesh)
    return bodies_of_rows(mesh_moments(vertices, faces, origin, reach), reach, origin, density, offset)


def _filled_up(mesh: Mesh) -> Mesh:
    """The same solid, of fewer different sizes: copies of the first vertex, and faces without area on it."""
    vertices, faces = mesh
    if len(faces) <= BLOCK // 4:
        return mesh
    copies = vertices[:, :1].expand(-1, -vertices.shape[1] % BLOCK, -1)
    return Mesh(torch.cat([vertices, copies], 1), torch.cat([faces, faces.new_zeros(-len(faces) % BLOCK, 3)]))
