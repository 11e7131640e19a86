"""Points on a mesh, drawn uniformly by area, with gradient to the vertices.

    face f with probability A_f / sum A,   b = (1 - sqrt(u), sqrt(u) (1 - v), sqrt(u) v),   x = sum_i b_i v_i

(Osada et al. 2002, Shape Distributions, eq. 1). Faces and barycentrics b are drawn without gradient; points and normals are
then recomputed from the vertices with it. What this leaves out: the density. A face that grows receives more samples, and the
derivative of an integral over the surface has a term from that, which a mean over these samples does not: its value is right,
its gradient is that of samples carried along with their faces. Weight by areas (`geometry.mesh_normals`) where that matters.
"""

from typing import NamedTuple

import torch
import warp as wp
from torch import Tensor

from dvc.errors import UserError
from dvc.records import Mesh, expand_worlds, world_count
from dvc.warp_op import scratch, warp_op
from geometry.closest_points import require_mesh
from geometry.mesh_normals import TINY, face_cross, face_geometry


class SurfaceSamples(NamedTuple):
    """Points on a surface. Points and normals carry gradient to the vertices."""

    points: Tensor  # [m], (world, sample, 3)
    normals: Tensor  # of the faces, unit, (world, sample, 3)
    face: Tensor  # int32, (world, sample)
    barycentric: Tensor  # weights of the face's three vertices, without gradient, (world, sample, 3)


@wp.kernel(enable_backward=False)
def draw_kernel(seed: wp.array(dtype=int), numbers: wp.array2d(dtype=wp.vec4)):
    world, i = wp.tid()
    state = wp.rand_init(seed[world], i)
    numbers[world, i] = wp.vec4(wp.randf(state), wp.randf(state), wp.randf(state), wp.randf(state))


@wp.kernel
def attach_kernel(
    vertices: wp.array2d(dtype=wp.vec3),
    faces: wp.array2d(dtype=int),
    face: wp.array2d(dtype=int),
    barycentric: wp.array2d(dtype=wp.vec3),
    points: wp.array2d(dtype=wp.vec3),
    normals: wp.array2d(dtype=wp.vec3),
):
    world, s = wp.tid()
    i = faces[face[world, s], 0]
    j = faces[face[world, s], 1]
    k = faces[face[world, s], 2]
    b = barycentric[world, s]
    points[world, s] = b[0] * vertices[world, i] + b[1] * vertices[world, j] + b[2] * vertices[world, k]
    c = face_cross(vertices, world, i, j, k)
    square = wp.dot(c, c)
    if not (square < TINY):  # NaN goes on
        normals[world, s] = c / wp.sqrt(square)


@warp_op(threads=None, enable_backward=False, seeds=("seed",))
def draw_numbers(seed: wp.array(dtype=int), *, count: int):
    """seed (world,) -> numbers uniform in [0, 1), (world, count, 4)."""
    numbers = scratch((seed.shape[0], count), wp.vec4, zero=False)
    wp.launch(draw_kernel, numbers.shape, [seed], [numbers])
    return numbers


@warp_op(shared=("faces",), threads=None)
def attach_samples(
    vertices: wp.array2d(dtype=wp.vec3),
    faces: wp.array2d(dtype=int),
    face: wp.array2d(dtype=int),
    barycentric: wp.array2d(dtype=wp.vec3),
):
    """vertices (world, vertex, 3), faces (face, 3), face (world, sample), barycentric (world, sample, 3) -> points, normals."""
    points, normals = scratch(face.shape, wp.vec3), scratch(face.shape, wp.vec3)
    wp.launch(attach_kernel, face.shape, [vertices, faces, face, barycentric], [points, normals])
    return points, normals


def sample_surface(mesh: Mesh, count: int, seed: Tensor) -> SurfaceSamples:
    """Points drawn uniformly by area from the faces of a mesh.

    Args:
        mesh: vertices [m] (world, vertex, 3), faces (face, 3); faces without area are never drawn.
        count: samples a world.
        seed: integers, (world,) or (1,); the same seed gives the same numbers, also to worlds that have equal ones. Change
            it from step to step of a descent.
    Gradient: of points and normals to the vertices, with faces and barycentrics held. It leaves out the change of the density
        of samples, as the top of this file says.
    Raises: UserError for wrong shapes, vertices that are not finite, a world whose faces have no area, a count below 1.
    """
    require_mesh("sample_surface", mesh)
    if not isinstance(count, int) or count < 1:
        raise UserError(f"sample_surface.count: expected at least 1, got {count!r}")
    if seed.dim() != 1 or seed.is_floating_point():
        raise UserError(f"sample_surface.seed: expected integers of shape (world,), got {seed.dtype} {tuple(seed.shape)}")
    worlds = world_count(mesh.vertices, seed)
    vertices = expand_worlds(mesh.vertices, worlds)
    with torch.no_grad():
        face, barycentric = _draw(vertices.detach(), mesh.faces, count, seed)
    points, normals = attach_samples(vertices, mesh.faces, face, barycentric)
    return SurfaceSamples(points, normals, face, barycentric)


def _draw(vertices: Tensor, faces: Tensor, count: int, seed: Tensor) -> tuple[Tensor, Tensor]:
    areas = face_geometry(vertices, faces)[1].double()
    total = areas.cumsum(dim=1)
    if not bool((total[:, -1] > 0.0).all()):
        world = int((total[:, -1] > 0.0).logical_not().nonzero()[0])
        raise UserError(f"sample_surface.mesh: expected faces with an area, got none in world {world}")
    numbers = draw_numbers(seed.to(device=vertices.device, dtype=torch.int32), count=count)
    numbers = expand_worlds(numbers, vertices.shape[0])
    # two float32 numbers make one of 48 bits: one alone does not resolve the areas of a million faces
    chosen = (numbers[..., 0].double() + numbers[..., 3].double() * 2.0**-24) * total[:, -1:]
    face = torch.searchsorted(total, chosen.contiguous(), right=True).clamp_max(faces.shape[0] - 1)
    # rounding may name a face without area at the end: take the last one that has area up to there
    filled = torch.where(areas > 0.0, torch.arange(faces.shape[0], device=areas.device), -1).cummax(dim=1).values
    face = torch.gather(filled, 1, face).clamp_min(0)
    root, v = numbers[..., 1].sqrt(), numbers[..., 2]
    barycentric = torch.stack([1.0 - root, root * (1.0 - v), root * v], dim=-1)
    return face.to(torch.int32), barycentric
