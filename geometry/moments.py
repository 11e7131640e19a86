"""From the moments of a solid to its mass, centre of mass and inertia.

With volume V, first moment f and second moment S = integral of x x^T, all about a point o near the solid:

    m = rho V,    c = o + f / V,    C = S - f f^T / V,    I = rho (tr(C) 1 - C).

Contributions of faces or tetrahedra are counted from the mean vertex o in units of the solid's reach, computed and summed in
double precision and rounded to float32 once each between, so that the vertices' own rounding is what is left, for a solid far
from its origin too. o and the reach are held: the result does not depend on them.
"""

import torch
import warp as wp
from torch import Tensor

from dvc.records import Bodies

moments_vector = wp.types.vector(length=10, dtype=float)
# layout: 0 volume, 1-3 first moment x y z, 4-9 second moment xx yy zz yz zx xy

LEAST_VOLUME = 1e-8  # of the cube of the reach; a solid with less counts as one without volume


@wp.func
def placed(vertex: wp.vec3, origin: wp.vec3, reach: float) -> wp.vec3d:
    """(vertex - origin) / reach, in double precision."""
    s = wp.float64(1.0) / wp.float64(reach)
    return wp.vec3d(
        (wp.float64(vertex[0]) - wp.float64(origin[0])) * s,
        (wp.float64(vertex[1]) - wp.float64(origin[1])) * s,
        (wp.float64(vertex[2]) - wp.float64(origin[2])) * s,
    )


@wp.func
def moment_row(volume: wp.float64, sum: wp.vec3d, squares: wp.mat33d) -> moments_vector:
    """Of one tetrahedron: its volume V, the sum s of its corners, the sum of the outer products of corners and s."""
    w = volume / wp.float64(4.0)
    m = squares * (volume / wp.float64(20.0))
    return moments_vector(
        wp.float32(volume), wp.float32(w * sum[0]), wp.float32(w * sum[1]), wp.float32(w * sum[2]), wp.float32(m[0, 0]),
        wp.float32(m[1, 1]), wp.float32(m[2, 2]), wp.float32(m[1, 2]), wp.float32(m[2, 0]), wp.float32(m[0, 1]),
    )  # fmt: skip


def held_frame(vertices: Tensor) -> tuple[Tensor, Tensor]:
    """Mean vertex (world, 3) and reach (world,): the largest distance from it along an axis. Without a gradient."""
    points = vertices.detach()
    origin = points.double().mean(1).to(points.dtype)
    reach = (points - origin[:, None]).abs().amax((1, 2))
    return origin, torch.where(reach > 0.0, reach, 1.0)


def bodies_of(
    volume: Tensor, first: Tensor, second: Tensor, reach: Tensor, origin: Tensor, density: Tensor, offset: Tensor
) -> Bodies:
    """Bodies from double-precision moments about `origin` (world, 3), in units of `reach` (world,).

    volume (world,), first (world, 3), second (world, 3, 3), density (world,), offset (world, 3). A solid without volume has its
    mass, no inertia and its centre at the origin, and a gradient of the mass and the offset alone.
    """
    length, rho = reach.double(), density.double()
    flat = volume.abs() <= LEAST_VOLUME
    safe = torch.where(flat, 1.0, volume)
    center = torch.where(flat[:, None], 0.0, first / safe[:, None])
    second = torch.where(flat[:, None, None], 0.0, second - first[:, :, None] * center[:, None, :])
    trace = second.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    inertia = (rho * length**5)[:, None, None] * (trace * torch.eye(3, dtype=second.dtype, device=second.device) - second)
    center = origin.double() + length[:, None] * center + offset.double()
    return Bodies(*(t.to(density.dtype) for t in (rho * length**3 * volume, center, 0.5 * (inertia + inertia.mT))))


def bodies_of_rows(rows: Tensor, reach: Tensor, origin: Tensor, density: Tensor, offset: Tensor) -> Bodies:
    """Bodies from the moments (world, tetrahedron, 10) of tetrahedra."""
    m = rows.sum(1, dtype=torch.float64)
    second = m[:, [4, 9, 8, 9, 5, 7, 8, 7, 6]].reshape(-1, 3, 3)
    return bodies_of(m[:, 0], m[:, 1:4], second, reach, origin, density, offset)
