"""Union, intersection and difference of solids given by distances, sharp or with a smooth blend.

With a, b distances and k the blend radius, h = max(k - |a - b|, 0) / k:

    smooth minimum  m = min(a, b) - k h^2 / 4           (quadratic; Quilez, "Smooth minimum", 2013)
    union m(a, b),   intersection -m(-a, -b),   difference -m(-a, b);   k = 0: the sharp minimum.

The gradient of m is (1 - h/2) grad a + h/2 grad b (a the lesser): a convex combination, so a blend of functions that change at
most as fast as the point moves does so too, and never over-estimates the distance to its own surface. m <= min(a, b): a smooth
union only adds material and a smooth intersection or difference only removes it, at most k / 4 along the normal.
"""

import torch
import warp as wp

from dvc.errors import UserError
from geometry.sdf_shapes import Number, ShapeList, as_number, common, shape_tensors

OPERATIONS = ("union", "intersection", "difference")


@wp.func
def smooth_minimum(low: wp.vec4, high: wp.vec4, k: float) -> wp.vec4:
    """(value, gradient) where low[0] <= high[0]."""
    gap = high[0] - low[0]
    if gap >= k:
        return low
    h = (k - gap) / k
    g = low + (high - low) * (0.5 * h)
    return wp.vec4(low[0] - 0.25 * k * h * h, g[1], g[2], g[3])


@wp.func
def blended(operation: int, a: wp.vec4, b: wp.vec4, k: float) -> wp.vec4:
    """(value, gradient) of the solid that the operation (its place in OPERATIONS) makes of two."""
    left = wp.where(operation == 0, 1.0, -1.0)
    right = wp.where(operation == 1, -1.0, 1.0)
    x = a * left
    y = b * right
    if x[0] <= y[0]:
        return smooth_minimum(x, y, k) * left
    return smooth_minimum(y, x, k) * left


def joined(operation: str, a: ShapeList, b: ShapeList, radius: Number = 0.0) -> ShapeList:
    """Two solids as one list, joined by an operation at its last node."""
    if operation not in OPERATIONS:
        raise UserError(f"operation: expected one of {', '.join(OPERATIONS)}, got {operation!r}")
    if not isinstance(radius, torch.Tensor) and not 0.0 <= float(radius) < float("inf"):
        raise UserError(f"{operation}.radius: expected a finite number of at least 0, got {radius}")
    tensors = common([*shape_tensors(a), *shape_tensors(b), as_number(f"{operation}.radius", radius)])
    left, right, last = tensors[:5], tensors[5:10], tensors[10][:, None]
    shapes, blends = (len(a.kinds), len(b.kinds)), (len(a.blends), len(b.blends))
    count = sum(shapes)

    def node_of_a(i: int) -> int:
        return i if i < shapes[0] else i + shapes[1]

    def node_of_b(i: int) -> int:
        return i + shapes[0] if i < shapes[1] else i + shapes[0] + blends[0]

    program = [(name, node_of_a(i), node_of_a(j)) for name, i, j in a.blends]
    program += [(name, node_of_b(i), node_of_b(j)) for name, i, j in b.blends]
    roots = node_of_a(shapes[0] + blends[0] - 1), node_of_b(shapes[1] + blends[1] - 1)
    sizes, positions, rotations, scales, radii = (torch.cat(pair, dim=1) for pair in zip(left, right, strict=True))
    radii = torch.cat([radii, last], dim=1)
    assert len(program) == sum(blends) and max(roots) < count + sum(blends)
    program.append((operation, *roots))
    return ShapeList(a.kinds + b.kinds, sizes, positions, rotations, scales, tuple(program), radii)


def _fold(operation: str, shapes: tuple[ShapeList, ...], radius: Number) -> ShapeList:
    if not shapes:
        raise UserError(f"{operation}: expected at least one shape, got none")
    for shape in shapes:
        if not isinstance(shape, ShapeList):
            kind = type(shape).__name__
            raise UserError(f"{operation}: expected shapes as separate arguments, got a {kind}; remedy: {operation}(*shapes)")
    whole = shapes[0]
    for shape in shapes[1:]:
        whole = joined(operation, whole, shape, radius)
    return whole


def union(*shapes: ShapeList) -> ShapeList:
    """What is in any of the shapes. Inside, where they overlap, the depth is under-estimated."""
    return _fold("union", shapes, 0.0)


def intersection(*shapes: ShapeList) -> ShapeList:
    """What is in all of the shapes. Outside, near edges that it makes, the distance is under-estimated."""
    return _fold("intersection", shapes, 0.0)


def difference(*shapes: ShapeList) -> ShapeList:
    """What is in the first shape and in none of the others."""
    return _fold("difference", shapes, 0.0)


def smooth_union(*shapes: ShapeList, radius: Number) -> ShapeList:
    """Union with fillets. radius [m] (world,): surfaces closer than it are blended; blended two at a time, from the left."""
    return _fold("union", shapes, radius)


def smooth_intersection(*shapes: ShapeList, radius: Number) -> ShapeList:
    """Intersection with rounded edges. radius [m] (world,); two at a time, from the left."""
    return _fold("intersection", shapes, radius)


def smooth_difference(*shapes: ShapeList, radius: Number) -> ShapeList:
    """The first shape less the others, with rounded edges. radius [m] (world,)."""
    return _fold("difference", shapes, radius)
