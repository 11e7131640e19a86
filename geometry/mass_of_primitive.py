"""Mass properties of single primitives in closed form, about their centre, axis of revolution z.

    ellipsoid  V = 4/3 pi a b c,   integral of x^2 = V a^2 / 5
    box        V = 8 a b c,        x^2: V a^2 / 3
    cylinder   V = 2 pi r^2 h,     x^2: V r^2 / 4,                z^2: V h^2 / 3
    torus      V = 2 pi^2 R r^2,   x^2: V (R^2 / 2 + 3/8 r^2),    z^2: V r^2 / 4
    capsule    the cylinder and two half balls, B = 4/3 pi r^3:  x^2: + B r^2 / 5,  z^2: + B (h^2 + 3/4 h r + r^2 / 5)

(standard tables). Uniform scales multiply lengths, the pose turns and moves the result.
"""

import math

import torch
from torch import Tensor

from dvc.errors import Unsupported
from dvc.records import Bodies, expand_worlds, world_count
from geometry.moments import bodies_of
from geometry.sdf_shapes import ShapeList, rotate


def closed_moments(kind: str, size: Tensor) -> tuple[Tensor, Tensor]:
    """Volume (world,) and the integrals of x^2, y^2, z^2 (world, 3) of a primitive with sizes (world, 4)."""
    a, b, c = size[:, :3].unbind(1)
    if kind in ("sphere", "ellipsoid"):
        axes = torch.stack([a, a, a] if kind == "sphere" else [a, b, c], dim=1)
        v = 4.0 / 3.0 * math.pi * axes.prod(1)
        return v, v[:, None] * axes**2 / 5.0
    if kind == "box":
        v = 8.0 * a * b * c
        return v, v[:, None] * size[:, :3] ** 2 / 3.0
    if kind in ("cylinder", "capsule"):
        rod, ball = 2.0 * math.pi * b**2 * a, 4.0 / 3.0 * math.pi * b**3
        across, along = rod * b**2 / 4.0, rod * a**2 / 3.0
        if kind == "capsule":
            across = across + ball * b**2 / 5.0
            along = along + ball * (a**2 + 0.75 * a * b + b**2 / 5.0)
        return rod + (ball if kind == "capsule" else 0.0), torch.stack([across, across, along], dim=1)
    if kind == "torus":
        v = 2.0 * math.pi**2 * a * b**2
        across = v * (a**2 / 2.0 + 3.0 / 8.0 * b**2)
        return v, torch.stack([across, across, v * b**2 / 4.0], dim=1)
    raise Unsupported(f"mass_of_primitive: no closed form for {kind!r}; remedy: geometry.mass_of_sdf, which samples it")


def mass_of_primitive(shape: ShapeList, density: Tensor) -> Bodies:
    """Mass properties of a list of one primitive; density [kg/m^3] (world,). The inertia is about the centre of mass.

    Gradient: complete, to sizes, position, rotation, scale and density.
    Raises: Unsupported for several primitives, and for rounded boxes, tapered capsules, planes and half-spaces.
    """
    if len(shape.kinds) != 1:
        raise Unsupported(f"mass_of_primitive: no closed form for {len(shape.kinds)} primitives; remedy: geometry.mass_of_sdf")
    volume, diagonal = closed_moments(shape.kinds[0], shape.sizes[:, 0].double())
    q = shape.rotations[:, 0].double()
    square = (q * q).sum(1, keepdim=True)
    unit = torch.where(square < 1e-20, q.new_tensor([0.0, 0.0, 0.0, 1.0]), q * square.clamp_min(1e-20).rsqrt())
    eye = torch.eye(3, dtype=q.dtype, device=q.device)
    axes = torch.stack([rotate(unit, e.expand(len(unit), 3)) for e in eye], dim=2)
    second = (axes * diagonal[:, None]) @ axes.mT
    worlds = world_count(volume, density)
    size = shape.scales[:, 0].double()
    volume, second, size, center, density = (
        expand_worlds(t, worlds) for t in (volume, second, size, shape.positions[:, 0], density)
    )
    # moments about the centre in units of the scale: the lengths are the primitive's own
    reach = volume.detach().abs().pow(1.0 / 3.0).clamp_min(1e-30)
    zero = torch.zeros_like(center, dtype=torch.float64)
    return bodies_of(volume / reach**3, zero, second / reach[:, None, None] ** 5, reach * size, center, density, zero)
