"""Losses between sets of points and surfaces that need no correspondence: chamfer, point to surface, normal consistency.

    chamfer(X, Y) = mean_i |x_i - y_n(i)|^p + mean_j |y_j - x_m(j)|^p,   p = 1 (plain) or 2 (squared),   n, m nearest
    normal consistency = mean_i (1 - n_i . m_n(i))

Fan, Su and Guibas 2017 (A Point Set Generation Network). The nearest neighbours are found without gradient and the distances
recomputed with it: the neighbour is constant almost everywhere, so that this is the derivative wherever there is one. Where
two neighbours are equally near the loss has a kink, and the gradient is that of the one found.
"""

import torch
import warp as wp
from torch import Tensor

from dvc.errors import UserError
from dvc.records import Mesh, expand_worlds, world_count
from dvc.warp_op import scratch, warp_op
from geometry.closest_points import MeshTrees, closest_points
from geometry.nearest_points import PointTree, nearest_points


@wp.kernel(enable_backward=False)
def distance_kernel(
    points: wp.array2d(dtype=wp.vec3),
    targets: wp.array2d(dtype=wp.vec3),
    index: wp.array2d(dtype=wp.int64),
    squared: int,
    distance: wp.array2d(dtype=float),
):
    w, i = wp.tid()
    square = wp.length_sq(points[w, i] - targets[w, int(index[w, i])])
    distance[w, i] = wp.where(squared == 1, square, wp.sqrt(square))


@wp.kernel(enable_backward=False)
def distance_adjoint(
    points: wp.array2d(dtype=wp.vec3),
    targets: wp.array2d(dtype=wp.vec3),
    index: wp.array2d(dtype=wp.int64),
    squared: int,
    gradient: wp.array2d(dtype=float),
    to_points: wp.array2d(dtype=wp.vec3),
    to_targets: wp.array2d(dtype=wp.vec3),
):
    w, i = wp.tid()
    j = int(index[w, i])
    d = points[w, i] - targets[w, j]
    factor = 2.0 * gradient[w, i]
    if squared == 0:
        length = wp.length(d)
        factor = wp.where(length > 0.0, gradient[w, i] / wp.max(length, 1.0e-30), 0.0)
    to_points[w, i] = to_points[w, i] + factor * d
    wp.atomic_add(to_targets, w, j, -factor * d)


@warp_op(threads=None)
def matched_distance_op(
    points: wp.array2d(dtype=wp.vec3), targets: wp.array2d(dtype=wp.vec3), index: wp.array2d(dtype=wp.int64), *, squared: bool
):
    """points (world, point, 3), targets (world, target, 3), index (world, point) -> distances (world, point)."""
    distance = scratch(points.shape, float)
    wp.launch(distance_kernel, points.shape, [points, targets, index, int(squared)], [distance])
    return distance


@matched_distance_op.adjoint(recompute=False)
def _(inputs, outputs, *, squared):
    wp.launch(
        distance_adjoint,
        inputs.points.shape,
        [inputs.points, inputs.targets, inputs.index, int(squared), outputs.grad],
        [inputs.points.grad, inputs.targets.grad],
    )


def matched_distance(points: Tensor, targets: Tensor, index: Tensor, squared: bool = False) -> Tensor:
    """Distance [m] of each point to the target that `index` names, or its square [m^2]: (world, point).

    Args: points, targets [m] (world, point, 3) and (world, target, 3), index (world, point); worlds of one are repeated.
    Gradient: complete, to points and targets. At distance zero, where the plain distance has a kink, it is zero.
    Raises: UserError for shapes that do not match, an index that names no target.
    """
    _require_points("matched_distance.points", points)
    _require_points("matched_distance.targets", targets)
    if index.shape[-1:] != points.shape[1:2] or index.dim() != 2:
        raise UserError(f"matched_distance.index: expected shape (world, {points.shape[1]}), got {tuple(index.shape)}")
    if points.shape[1] == 0:
        raise UserError("matched_distance.points: expected at least one point, got none")
    low, high = int(index.min()), int(index.max())
    if low < 0 or high >= targets.shape[1]:
        raise UserError(f"matched_distance.index: expected numbers in 0..{targets.shape[1] - 1}, got {low}..{high}")
    worlds = world_count(points, targets, index)
    pairs = [expand_worlds(t, worlds) for t in (points, targets, index.long())]
    return matched_distance_op(*pairs, squared=bool(squared))


def chamfer(first: Tensor, second: Tensor, squared: bool = False) -> Tensor:
    """Chamfer distance of two sets of points, (world,): the mean distance from each to the other, both directions added.

    Args:
        first, second: [m], (world, point, 3) each; the numbers of points may differ, a world axis of one is repeated.
        squared: means of squared distances [m^2] (smooth where sets touch, led by the farthest points) in place of plain
            distances [m]. Half the plain one is the mean over both directions.
    Gradient: to both sets, complete but for the change of the neighbour. Coincident points: zero.
    Raises: UserError for another shape, an empty set, coordinates that are not finite.
    """
    a, b = PointTree(first, "chamfer.first"), PointTree(second, "chamfer.second")
    forth = nearest_points(a, b).nearest
    back = nearest_points(b, a).nearest
    worlds = world_count(first, second)
    first, second = expand_worlds(first, worlds), expand_worlds(second, worlds)
    there = matched_distance_op(first, second, forth, squared=bool(squared))
    return there.mean(dim=1) + matched_distance_op(second, first, back, squared=bool(squared)).mean(dim=1)


def point_to_surface(points: Tensor, mesh: Mesh, squared: bool = False, trees: MeshTrees | None = None) -> Tensor:
    """Distance [m] of each point to a surface, or its square [m^2]: (world, point).

    Args: points [m] (world, point, 3); a mesh, which may be open; `MeshTrees` of the same vertices, when asked repeatedly.
    Gradient: to points and vertices, complete but for the change of the nearest face. On the surface, where the plain
        distance has a kink, its gradient is that on the outer side of the face, and that of the square is zero.
    Raises: UserError as `closest_points`, and for no points.
    """
    _require_points("point_to_surface.points", points)
    if points.shape[1] == 0:
        raise UserError("point_to_surface.points: expected at least one point, got none")
    distance = closest_points(mesh, points, trees).distance
    return distance.square() if squared else distance


def normal_consistency(normals: Tensor, other: Tensor, index: Tensor, oriented: bool = True) -> Tensor:
    """Mean of 1 - n . m over pairs of unit normals, (world,): 0 where all agree, 2 where all are opposite.

    Args:
        normals, other: (world, point, 3), (world, other point, 3), unit; a normal that is zero counts 1.
        index: (world, point), the match of each, `nearest_points(...).nearest` say.
        oriented: False takes |n . m|, for normals whose sign means nothing; at n . m = 0 its gradient is zero.
    Gradient: complete, to both sets of normals; none to the points that were matched.
    Raises: UserError for shapes that do not match, an index that names no normal, no points.
    """
    _require_points("normal_consistency.normals", normals)
    _require_points("normal_consistency.other", other)
    if index.dim() != 2 or index.shape[1] != normals.shape[1] or index.shape[1] == 0:
        expected = f"(world, {normals.shape[1]}) with at least one point"
        raise UserError(f"normal_consistency.index: expected shape {expected}, got {tuple(index.shape)}")
    low, high = int(index.min()), int(index.max())
    if low < 0 or high >= other.shape[1]:
        raise UserError(f"normal_consistency.index: expected numbers in 0..{other.shape[1] - 1}, got {low}..{high}")
    worlds = world_count(normals, other, index)
    normals, other, index = (expand_worlds(t, worlds) for t in (normals, other, index.long()))
    cosine = (normals * torch.gather(other, 1, index[..., None].expand(-1, -1, 3))).sum(dim=-1)
    return 1.0 - (cosine if oriented else cosine.abs()).mean(dim=1)


def _require_points(name: str, points: Tensor) -> None:
    if points.dim() != 3 or points.shape[2] != 3:
        raise UserError(f"{name}: expected shape (world, point, 3), got {tuple(points.shape)}")
