"""Solid primitives, centred at their own origin with axes along the body's."""

from torch import Tensor, nn

from dvc.errors import UserError
from dvc.records import BoxShape, SphereShape


class Sphere(nn.Module):
    """A solid sphere.

    Forward: radius [m] (world,) -> SphereShape.
    Raises: UserError when the radius has another shape.
    """

    def forward(self, radius: Tensor) -> SphereShape:
        if radius.dim() != 1:
            raise UserError(f"Sphere.radius: expected shape (world,), got {tuple(radius.shape)}; remedy: one radius a world")
        return SphereShape(radius)


class Box(nn.Module):
    """A solid box.

    Forward: half_extents [m] (world, 3), half the edge lengths along x, y, z -> BoxShape.
    Raises: UserError when the half extents have another shape.
    """

    def forward(self, half_extents: Tensor) -> BoxShape:
        if half_extents.dim() != 2 or half_extents.shape[1] != 3:
            raise UserError(
                f"Box.half_extents: expected shape (world, 3), got {tuple(half_extents.shape)}; remedy: three lengths a world"
            )
        return BoxShape(half_extents)
