"""Solids built from primitives: a list of shapes, their poses and a tree of blends, all of it tensors with gradients.

    arm = moved(capsule(half_length, radius), position=(0.3, 0.0, 0.0))
    body = smooth_union(ellipsoid((0.2, 0.1, 0.1)), arm, radius=0.05)
    distance = sdf_distance(body, points)                          # geometry.sdf_evaluate

A size is a number or a tensor: of shape () or (world,) for one number, (3,) or (world, 3) for a vector. Lengths in metres,
quaternions (x, y, z, w), body to world (normalised where they are used). Primitives are centred at their origin; bodies of
revolution have the axis z. How nodes are joined is in geometry.sdf_blend.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dvc.errors import UserError
from dvc.records import expand_worlds, world_count

# the columns of `sizes` that each kind uses; a kind's number is its place here and in sdf_distances
KINDS: dict[str, tuple[str, ...]] = {
    "sphere": ("radius",),
    "ellipsoid": ("radius x", "radius y", "radius z"),
    "box": ("half extent x", "half extent y", "half extent z"),
    "rounded_box": ("half extent x", "half extent y", "half extent z", "rounding"),
    "capsule": ("half length", "radius"),
    "tapered_capsule": ("half length", "radius at -z", "radius at +z"),
    "cylinder": ("half length", "radius"),
    "torus": ("ring radius", "tube radius"),
    "plane": ("half thickness",),
    "half_space": (),
}
SIZE_COUNT = 4

Number = float | Tensor
Vector = Sequence[Number] | Tensor


class ShapeList(NamedTuple):
    """Primitives and how they are joined.

    The first nodes are the primitives, node `len(kinds) + i` is blend i, the last node is the solid. Sizes that a kind does not
    use are ignored. `scales` are uniform, about the primitive's origin.
    """

    kinds: tuple[str, ...]  # static, one a primitive
    sizes: Tensor  # [m], (world, primitive, 4), columns as in KINDS
    positions: Tensor  # [m], (world, primitive, 3)
    rotations: Tensor  # quaternions, primitive to world, (world, primitive, 4)
    scales: Tensor  # (world, primitive)
    blends: tuple[tuple[str, int, int], ...]  # static: operation, left node, right node
    radii: Tensor  # blend radii [m], 0: sharp, (world, blend)


def as_number(name: str, value: Number) -> Tensor:
    """(world,), from a number or a tensor."""
    tensor = value if isinstance(value, Tensor) else torch.tensor(float(value))
    if tensor.dim() > 1:
        raise UserError(f"{name}: expected a number or shape (world,), got shape {tuple(tensor.shape)}")
    return tensor.reshape(-1)


def as_vector(name: str, value: Vector, count: int = 3, least: float = -math.inf) -> Tensor:
    """(world, count), from a tensor or a sequence of numbers and tensors, whose numbers are finite and at least `least`."""
    if isinstance(value, Tensor):
        tensor = value
    elif len(value) != count:
        raise UserError(f"{name}: expected {count} numbers or shape (world, {count}), got {len(value)} numbers")
    else:
        for number in value:
            if not isinstance(number, Tensor) and not (least <= float(number) and abs(float(number)) < math.inf):
                bound = "" if least == -math.inf else f" of at least {least:g}"
                raise UserError(f"{name}: expected finite numbers{bound}, got {number}")
        tensor = torch.stack(common([as_number(name, number) for number in value]), dim=1)
    if tensor.dim() not in (1, 2) or tensor.shape[-1] != count:
        raise UserError(f"{name}: expected {count} numbers or shape (world, {count}), got shape {tuple(tensor.shape)}")
    return tensor.reshape(-1, count)


def common(tensors: Sequence[Tensor]) -> list[Tensor]:
    """The same tensors on one device (constants follow) with one number of worlds."""
    device = next((t.device for t in tensors if t.device.type != "cpu"), tensors[0].device)
    worlds = world_count(*tensors)
    return [expand_worlds(t.to(device), worlds) for t in tensors]


def primitive(kind: str, *sizes: Number) -> ShapeList:
    """One primitive by name, with the sizes that KINDS lists, at the origin.

    Raises: UserError for an unknown kind, another count of sizes, or a constant size that is negative or not finite.
    """
    if kind not in KINDS:
        raise UserError(f"shape: expected one of {', '.join(KINDS)}, got {kind!r}")
    names = KINDS[kind]
    if len(sizes) != len(names):
        raise UserError(f"{kind}: expected {len(names)} sizes ({', '.join(names)}), got {len(sizes)}")
    for name, value in zip(names, sizes, strict=True):
        if not isinstance(value, Tensor) and not 0.0 <= float(value) < float("inf"):
            raise UserError(f"{kind}: expected a finite {name} of at least 0, got {value}")
    # a size that is not used is one, so that nothing divides by it
    columns = [as_number(f"{kind} {name}", value) for name, value in zip(names, sizes, strict=True)] or [torch.ones(1)]
    columns = common(columns)
    worlds = columns[0].shape[0]
    table = torch.stack([*columns, *[torch.ones_like(columns[0])] * (SIZE_COUNT - len(columns))], dim=1)
    new = table.detach().new_zeros
    identity = torch.cat([new(worlds, 1, 3), new(worlds, 1, 1) + 1.0], dim=2)
    return ShapeList((kind,), table[:, None], new(worlds, 1, 3), identity, new(worlds, 1) + 1.0, (), new(worlds, 0))


def sphere(radius: Number) -> ShapeList:
    """Ball of a radius."""
    return primitive("sphere", radius)


def ellipsoid(radii: Vector) -> ShapeList:
    """Semi-axes along x, y, z; all above zero."""
    if not isinstance(radii, Tensor) and any(not isinstance(r, Tensor) and float(r) == 0.0 for r in radii):
        raise UserError(f"ellipsoid.radii: expected numbers above 0, got {tuple(radii)}")
    return primitive("ellipsoid", *as_vector("ellipsoid.radii", radii, least=0.0).unbind(1))


def box(half_extents: Vector) -> ShapeList:
    """Half the edge lengths along x, y, z."""
    return primitive("box", *as_vector("box.half_extents", half_extents, least=0.0).unbind(1))


def rounded_box(half_extents: Vector, rounding: Number) -> ShapeList:
    """A box whose edges are rounded; the half extents include the rounding, which is at most the least of them."""
    extents = as_vector("rounded_box.half_extents", half_extents, least=0.0)
    return primitive("rounded_box", *extents.unbind(1), rounding)


def capsule(half_length: Number, radius: Number) -> ShapeList:
    """All points within the radius of the segment from -half_length to half_length along z."""
    return primitive("capsule", half_length, radius)


def tapered_capsule(half_length: Number, radius_low: Number, radius_high: Number) -> ShapeList:
    """Convex hull of two balls, centred at -half_length and half_length on z."""
    return primitive("tapered_capsule", half_length, radius_low, radius_high)


def cylinder(half_length: Number, radius: Number) -> ShapeList:
    """Axis z, flat ends."""
    return primitive("cylinder", half_length, radius)


def torus(ring: Number, tube: Number) -> ShapeList:
    """All points within `tube` of the circle with the radius `ring` in the plane z = 0."""
    return primitive("torus", ring, tube)


def plane(half_thickness: Number = 0.0) -> ShapeList:
    """The sheet |z| <= half_thickness; at zero the distance is unsigned."""
    return primitive("plane", half_thickness)


def half_space() -> ShapeList:
    """Everything below z = 0."""
    return primitive("half_space")


def rotate(rotation: Tensor, vector: Tensor) -> Tensor:
    """Unit quaternions (..., 4) applied to vectors (..., 3)."""
    axis, w = rotation[..., :3], rotation[..., 3:]
    turn = 2.0 * torch.linalg.cross(axis, vector)
    return vector + w * turn + torch.linalg.cross(axis, turn)


def compose(outer: Tensor, inner: Tensor) -> Tensor:
    """The quaternion that turns by `inner`, then by `outer`, (..., 4)."""
    a, aw, b, bw = outer[..., :3], outer[..., 3:], inner[..., :3], inner[..., 3:]
    return torch.cat([aw * b + bw * a + torch.linalg.cross(a, b), aw * bw - (a * b).sum(-1, keepdim=True)], dim=-1)


def moved(shape: ShapeList, position: Vector = (0.0, 0.0, 0.0), rotation: Vector | None = None) -> ShapeList:
    """The solid turned by a quaternion (x, y, z, w) about the origin, then shifted.

    The quaternion is made unit length with gradient; one shorter than 1e-10 counts as no rotation.
    """
    given = as_vector("moved.position", position)
    quaternion = as_vector("moved.rotation", (0.0, 0.0, 0.0, 1.0) if rotation is None else rotation, 4)
    sizes, positions, rotations, scales, radii, given, quaternion = common([*shape_tensors(shape), given, quaternion])
    if rotation is not None:
        square = (quaternion * quaternion).sum(-1, keepdim=True)
        identity = torch.zeros_like(quaternion) + quaternion.new_tensor([0.0, 0.0, 0.0, 1.0])
        unit = torch.where(square < 1e-20, identity, quaternion * square.clamp_min(1e-20).rsqrt())[:, None]
        unit = unit.expand(-1, len(shape.kinds), -1)
        positions, rotations = rotate(unit, positions), compose(unit, rotations)
    return ShapeList(shape.kinds, sizes, positions + given[:, None], rotations, scales, shape.blends, radii)


def scaled(shape: ShapeList, factor: Number) -> ShapeList:
    """The solid scaled about the origin by a factor above zero; blend radii scale with it."""
    if not isinstance(factor, Tensor) and not 0.0 < float(factor) < float("inf"):
        raise UserError(f"scaled.factor: expected a finite number above 0, got {factor}")
    sizes, positions, rotations, scales, radii, f = common([*shape_tensors(shape), as_number("scaled.factor", factor)])
    f = f[:, None]
    return ShapeList(shape.kinds, sizes, positions * f[..., None], rotations, scales * f, shape.blends, radii * f)


def shape_tensors(shape: ShapeList) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Sizes, positions, rotations, scales, radii."""
    return shape.sizes, shape.positions, shape.rotations, shape.scales, shape.radii
