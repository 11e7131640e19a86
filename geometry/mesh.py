"""Triangle meshes with gradient to their size: `vertices = offset + scale * base`, a scale for each axis."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import warp as wp
from torch import Tensor, nn

from dvc.errors import UserError
from dvc.records import Mesh, world_count
from dvc.warp_op import scratch, warp_op
from geometry.mesh_io import check_vertices_and_faces, flat_faces, read_mesh, refuse_flat
from geometry.mesh_topology import require_outward


@wp.kernel
def place_kernel(
    base: wp.array(dtype=wp.vec3),
    scale: wp.array(dtype=wp.vec3),
    offset: wp.array(dtype=wp.vec3),
    vertices: wp.array2d(dtype=wp.vec3),
):
    world, vertex = wp.tid()
    vertices[world, vertex] = offset[world] + wp.cw_mul(scale[world], base[vertex])


@warp_op(shared=("base",))
def place_vertices(base: wp.array(dtype=wp.vec3), scale: wp.array(dtype=wp.vec3), offset: wp.array(dtype=wp.vec3)):
    """base (vertex, 3), scale (world, 3), offset (world, 3) -> vertices (world, vertex, 3)."""
    vertices = scratch((scale.shape[0], base.shape[0]), wp.vec3)
    wp.launch(place_kernel, vertices.shape, inputs=[base, scale, offset], outputs=[vertices])
    return vertices


def check_mesh(name: str, vertices: np.ndarray, faces: np.ndarray) -> tuple[Tensor, Tensor]:
    """Vertices (vertex, 3) float32 and faces (face, 3) int32, or a UserError that says what is wrong with them."""
    check_vertices_and_faces(name, vertices, faces)
    refuse_flat(name, flat_faces(vertices, faces))
    topology_faces = torch.from_numpy(np.ascontiguousarray(faces, np.int32))
    points = torch.from_numpy(np.ascontiguousarray(vertices, np.float32))
    require_outward(name, points[None], topology_faces)
    return points, topology_faces


class _ScaledMesh(nn.Module):
    base: Tensor
    faces: Tensor

    def __init__(self, base: Tensor, faces: Tensor):
        super().__init__()
        self.register_buffer("base", base)
        self.register_buffer("faces", faces)

    def _place(self, scale: Tensor, offset: Tensor | None) -> Mesh:
        offset = scale.new_zeros(1, 3) if offset is None else offset
        worlds = world_count(scale, offset)
        return Mesh(place_vertices(self.base, scale.expand(worlds, 3), offset.expand(worlds, 3)), self.faces)


class TriangleMesh(_ScaledMesh):
    """A mesh from a file or from arrays, scaled and moved.

    Arguments: path of an .obj file (.ply, .stl, .glb and .gltf need Open3D), or vertices (vertex, 3) [m] with faces (face, 3),
        wound counter-clockwise seen from outside. unit, up: what the file's numbers mean, as `geometry.mesh_io.read_mesh`
        takes them (default: metres and z up; glTF: metres and y up, turned to z up).
    Forward: scale (world,), offset [m] (world, 3) or none -> Mesh with vertices `scale * file's + offset`.
    Raises: UserError for a file that is missing, empty or unreadable, vertices that are not finite, faces without
        area, a closed mesh wound inwards; Unsupported for an edge of more than two faces.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        vertices: Sequence[Sequence[float]] | Tensor | np.ndarray | None = None,
        faces: Sequence[Sequence[int]] | Tensor | np.ndarray | None = None,
        unit: str | float | None = None,
        up: str | None = None,
    ):
        if (path is None) == (vertices is None) or (vertices is None) != (faces is None):
            raise UserError("TriangleMesh: expected either a path, or vertices and faces; remedy: give one of the two")
        if path is None and (unit is not None or up is not None):
            raise UserError(
                "TriangleMesh: unit and up belong to a path; expected vertices in metres, z up; remedy: leave them out"
            )
        if path is not None:
            name, (points, triangles) = str(path), read_mesh(path, unit, up)
        else:
            name, points, triangles = "TriangleMesh", _array(vertices, np.float32), _array(faces, np.int64)
        super().__init__(*check_mesh(name, points, triangles))

    def forward(self, scale: Tensor, offset: Tensor | None = None) -> Mesh:
        return self._place(_column("TriangleMesh.scale", scale), offset)


class SphereMesh(_ScaledMesh):
    """An icosphere: vertices on the sphere, 20 * 4^subdivisions faces inside it.

    Forward: radius [m] (world,) -> Mesh.
    """

    def __init__(self, subdivisions: int = 3):
        if not 0 <= int(subdivisions) <= 7:
            raise UserError(f"SphereMesh.subdivisions: expected 0 to 7, got {subdivisions}")
        super().__init__(*check_mesh("SphereMesh", *icosphere(int(subdivisions))))

    def forward(self, radius: Tensor) -> Mesh:
        return self._place(_column("SphereMesh.radius", radius), None)


class BoxMesh(_ScaledMesh):
    """A box of twelve triangles.

    Forward: half_extents [m] (world, 3) -> Mesh.
    """

    def __init__(self) -> None:
        super().__init__(*check_mesh("BoxMesh", *box_mesh()))

    def forward(self, half_extents: Tensor) -> Mesh:
        if half_extents.dim() != 2 or half_extents.shape[1] != 3:
            raise UserError(f"BoxMesh.half_extents: expected shape (world, 3), got {tuple(half_extents.shape)}")
        return self._place(half_extents, None)


def _column(name: str, value: Tensor) -> Tensor:
    if value.dim() != 1:
        raise UserError(f"{name}: expected shape (world,), got {tuple(value.shape)}; remedy: one number a world")
    return value[:, None].expand(-1, 3)


def _array(value: object, dtype: type) -> np.ndarray:
    return np.asarray(value.detach().cpu() if isinstance(value, Tensor) else value, dtype)


def box_mesh() -> tuple[np.ndarray, np.ndarray]:
    """The cube [-1, 1]^3: vertices (8, 3), faces (12, 3). Vertex 4x + 2y + z has the signs of the bits x, y, z."""
    vertices = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float32)
    quads = ((0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3))
    faces = [face for a, b, c, d in quads for face in ((a, b, c), (a, c, d))]
    return vertices, np.array(faces, np.int32)


def icosphere(subdivisions: int) -> tuple[np.ndarray, np.ndarray]:
    """A unit sphere from an icosahedron whose faces are split in four `subdivisions` times: vertices and faces."""
    g = (1.0 + 5.0**0.5) / 2.0
    corners = [(-1, g, 0), (1, g, 0), (-1, -g, 0), (1, -g, 0), (0, -1, g), (0, 1, g)]
    corners += [(0, -1, -g), (0, 1, -g), (g, 0, -1), (g, 0, 1), (-g, 0, -1), (-g, 0, 1)]
    vertices = np.array(corners) / np.hypot(1.0, g)
    faces = np.array(
        [[0, 11, 5], [0, 5, 1], [0, 1, 7], [0, 7, 10], [0, 10, 11], [1, 5, 9], [5, 11, 4], [11, 10, 2], [10, 7, 6], [7, 1, 8]]
        + [[3, 9, 4], [3, 4, 2], [3, 2, 6], [3, 6, 8], [3, 8, 9], [4, 9, 5], [2, 4, 11], [6, 2, 10], [8, 6, 7], [9, 8, 1]]
    )
    for _ in range(subdivisions):
        sides = np.sort(faces[:, [[0, 1], [1, 2], [2, 0]]].reshape(-1, 2), axis=1)
        pairs, index = np.unique(sides, axis=0, return_inverse=True)
        middle = vertices[pairs].sum(axis=1)
        middle /= np.linalg.norm(middle, axis=1, keepdims=True)
        ab, bc, ca = (len(vertices) + index.reshape(-1, 3)).T
        vertices = np.concatenate([vertices, middle])
        a, b, c = faces.T
        faces = np.concatenate([np.stack(t, axis=1) for t in ((a, ab, ca), (ab, b, bc), (ca, bc, c), (ab, bc, ca))])
    return vertices.astype(np.float32), faces.astype(np.int32)
