r"""Mass, centre of mass and inertia of links, from their solids and densities inside the graph.

A solid of volume V and second moments D about its own axes, turned by R and centred at c, gives its link

    m = sum rho V,    m c_link = sum rho V c,    S = sum rho (R D R^T + V c c^T),
    C = S - m c_link c_link^T,    I = tr(C) 1 - C

(parallel axes). Sums in double precision. A rounded box of half extents e and edge radius r is a box of half extents a = e - r,
six slabs, twelve quarter cylinders and eight eighths of a ball: with the disk and ball moved by a,

    V   = 8 abc + 8 r (ab + bc + ca) + 2 pi r^2 (a + b + c) + 4/3 pi r^3
    x^2 : 8 bc e^3/3 + 8 r (ab + ac) a^2/3 + 2 pi r^2 a^3/3 + 4 (b + c) (pi r^2 a^2/2 + 4/3 a r^3 + pi r^4/8)
          + 4/3 pi r^3 a^2 + pi a r^4 + 4/15 pi r^5
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dvc.records import Bodies, expand_worlds
from geometry.mass_of_primitive import closed_moments
from physics.articulation import unit

COLUMNS = {"sphere": 1, "capsule": 2, "cylinder": 2, "box": 3, "ellipsoid": 3, "rounded_box": 4}
"""Kinds of solid with closed forms, and how many sizes they have."""


class Solids(NamedTuple):
    """Solids of one kind on links of a tree."""

    kind: str  # a key of COLUMNS
    sizes: Tensor  # [m], as in ShapeSpec, (world, solid, number of sizes)
    positions: Tensor  # in the link's frame [m], (world, solid, 3)
    rotations: Tensor  # solid to link, (world, solid, 4)
    densities: Tensor  # [kg/m^3], (world, solid)
    links: Tensor  # int64, (solid,)


def solid_moments(kind: str, sizes: Tensor) -> tuple[Tensor, Tensor]:
    """Volumes (n,) and second moments (n, 3) of solids with sizes (n, count), in the order of ShapeSpec."""
    if kind == "rounded_box":
        r = sizes[:, 3:]
        a = sizes[:, :3] - r
        b, c = a.roll(-1, 1), a.roll(-2, 1)
        r1 = r[:, 0]
        volume = 8.0 * a.prod(1) + 8.0 * r1 * (a * b).sum(1) + 2.0 * math.pi * r1**2 * a.sum(1) + 4.0 / 3.0 * math.pi * r1**3
        second = (
            8.0 / 3.0 * b * c * (a + r) ** 3
            + 8.0 / 3.0 * r * (b + c) * a**3
            + 2.0 / 3.0 * math.pi * r**2 * a**3
            + 4.0 * (b + c) * (0.5 * math.pi * r**2 * a**2 + 4.0 / 3.0 * a * r**3 + math.pi * r**4 / 8.0)
            + 4.0 / 3.0 * math.pi * r**3 * a**2
            + math.pi * a * r**4
            + 4.0 / 15.0 * math.pi * r**5
        )
        return volume, second
    if kind in ("capsule", "cylinder"):
        sizes = sizes.flip(1)  # the closed forms take the half length first
    columns = [sizes, sizes.new_ones(len(sizes), 3 - sizes.shape[1])] if sizes.shape[1] < 3 else [sizes]
    return closed_moments(kind, torch.cat(columns, dim=1))


def mass_of_links(groups: Sequence[Solids], links: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mass (world, link), centre of mass (world, link, 3) and inertia about it (world, link, 3, 3).

    Gradient: complete, to sizes, poses and densities. A link without solids has no mass and no inertia.
    """
    worlds = max(max(t.shape[0] for t in group[1:5]) for group in groups)
    first = groups[0].sizes
    mass = first.new_zeros(worlds, links, dtype=torch.float64)
    moment = first.new_zeros(worlds, links, 3, dtype=torch.float64)
    second = first.new_zeros(worlds, links, 3, 3, dtype=torch.float64)
    for kind, *tensors, owner in groups:
        sizes, positions, rotations, densities = (t.double().expand(worlds, *t.shape[1:]) for t in tensors)
        volume, diagonal = solid_moments(kind, sizes.flatten(0, 1))
        volume, diagonal = volume.reshape(worlds, -1), diagonal.reshape(worlds, -1, 3)
        axes = matrices(unit(rotations))
        spread = (axes * diagonal[..., None, :]) @ axes.mT + volume[..., None, None] * positions[..., :, None] * positions[
            ..., None, :
        ]
        weight = densities * volume
        mass = mass.index_add(1, owner, weight)
        moment = moment.index_add(1, owner, weight[..., None] * positions)
        second = second.index_add(1, owner, densities[..., None, None] * spread)
    safe = torch.where(mass == 0.0, 1.0, mass)
    center = moment / safe[..., None]
    spread = second - mass[..., None, None] * center[..., :, None] * center[..., None, :]
    eye = torch.eye(3, dtype=mass.dtype, device=mass.device)
    inertia = spread.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None] * eye - spread
    return mass.float(), center.float(), inertia.float()


def with_body(mass: Tensor, center: Tensor, inertia: Tensor, link: int, body: Bodies) -> tuple[Tensor, Tensor, Tensor]:
    """The same with one more body on a link, given in the link's frame, by parallel axes."""
    worlds = max(mass.shape[0], body.mass.shape[0])
    mass, center, inertia = (expand_worlds(t, worlds) for t in (mass, center, inertia))
    m, c, i = (expand_worlds(t, worlds) for t in body)
    total = mass[:, link] + m
    share = (m / torch.where(total == 0.0, 1.0, total))[:, None]
    apart = c - center[:, link]
    eye = torch.eye(3, device=c.device)
    spread = (apart * apart).sum(1)[:, None, None] * eye - apart[:, :, None] * apart[:, None, :]
    joined = inertia[:, link] + i + (mass[:, link, None] * share)[..., None] * spread
    owner = torch.tensor([link], device=c.device)
    return (
        mass.index_copy(1, owner, total[:, None]),
        center.index_copy(1, owner, (center[:, link] + share * apart)[:, None]),
        inertia.index_copy(1, owner, joined[:, None]),
    )


def matrices(q: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) of unit quaternions (..., 4)."""
    x, y, z, w = q.unbind(-1)
    rows = [
        1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y),
        2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x),
        2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y),
    ]  # fmt: skip
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))
