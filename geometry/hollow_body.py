"""A body made hollow by an offset of its signed distances that varies from place to place, and the mass that is left.

    cavity = {x : phi(x) + t(x) < 0},    t(x) = wall + s log(1 + exp(d(x) / s)),
    d(x) = sum_ijk b_i(x) b_j(y) b_k(z) D_ijk        (uniform cubic B-splines on a coarse lattice; D are the unknowns)

phi: the body's signed distance, negative inside. t is at least `wall` everywhere, so that the cavity keeps that wall whatever D
is (up to what the grid's cells leave of phi). Where t is larger than the body is deep there is no cavity: it may fall into
pieces or vanish, and has a gradient while a node of the grid is within two cells of it.

Two ways to the mass that is left, both with gradients to D: `HollowMass`, smooth quadrature on the body's grid for many worlds
at once, and surfaces: `cavity_mesh` and `mass_between`, exact for these meshes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dvc.errors import UserError
from dvc.records import Bodies, Mesh, SdfGrid
from geometry.isosurface import extract_isosurface
from geometry.lattice_deform import cubic_bspline
from geometry.mass_of_mesh import mass_of_mesh
from geometry.mass_of_sdf import SUPPORT, occupancy
from geometry.moments import bodies_of
from geometry.point_losses import point_to_surface
from geometry.sdf_grid import grid_nodes, require_grid
from geometry.winding_number import winding_number

LEAST_MASS = 1e-6  # of the outer body's; what is left must be more


class InnerOffset(nn.Module):
    """The offset t of a cavity, from depths on a lattice.

    Arguments: lower, upper: corners of the lattice's box [m]; beyond it t goes on constantly; count: control points an axis,
        from 4; wall: least offset [m]; softness: s [m], over which the bound is felt.
    Forward: grid: SdfGrid of the body; depth: D [m] (world, count^3) -> SdfGrid whose inside is the cavity (its values are not
        distances: their slope differs from one as t varies).
    Gradient: complete, to depth and grid values. Raises: UserError for wrong arguments and shapes.
    """

    lower: Tensor
    extent: Tensor

    def __init__(self, lower: Sequence[float], upper: Sequence[float], count: int, wall: float, softness: float):
        super().__init__()
        if len(lower) != 3 or len(upper) != 3 or not all(0.0 < b - a < float("inf") for a, b in zip(lower, upper, strict=True)):
            raise UserError(f"InnerOffset: expected a lower corner below the upper one, got {list(lower)} and {list(upper)}")
        if int(count) < 4 or not wall >= 0.0 or not softness > 0.0:
            raise UserError(
                f"InnerOffset: expected count from 4, wall from 0 and softness above 0, got {count}, {wall} and {softness}"
            )
        self.count, self.wall, self.softness = int(count), float(wall), float(softness)
        self.register_buffer("lower", torch.tensor([float(a) for a in lower]), persistent=False)
        self.register_buffer("extent", torch.tensor([float(b) - float(a) for a, b in zip(lower, upper)]), persistent=False)

    @property
    def size(self) -> int:
        """How many depths a world has."""
        return self.count**3

    def forward(self, grid: SdfGrid, depth: Tensor) -> SdfGrid:
        if depth.dim() != 2 or depth.shape[1] != self.size:
            raise UserError(f"InnerOffset.depth: expected shape (world, {self.size}), got {tuple(depth.shape)}")
        require_grid("InnerOffset.grid", grid)
        bases = []
        for axis, nodes in enumerate(grid.values.shape[1:]):
            x = grid.origin[axis] + grid.spacing * torch.arange(nodes, device=depth.device)
            bases.append(cubic_bspline(((x - self.lower[axis]) / self.extent[axis]).clamp(0.0, 1.0), self.count))
        lattice = depth.reshape(-1, self.count, self.count, self.count)
        lattice = torch.einsum("wabc,zc->wabz", lattice, bases[2])
        lattice = torch.einsum("wabz,yb->wayz", lattice, bases[1])
        field = torch.einsum("wayz,xa->wxyz", lattice, bases[0])
        offset = self.wall + self.softness * nn.functional.softplus(field / self.softness)
        return grid._replace(values=grid.values + offset)


class HollowMass(nn.Module):
    """Mass properties of a body without its cavity, by the smooth quadrature of `geometry.mass_of_sdf`.

    Arguments: grid: SdfGrid of the body, one world, with two cells of room around it; offset: InnerOffset.
    Forward: depth [m] (world, count^3), density [kg/m^3] (world,), default 1 -> Bodies. A world without a cavity is solid.
    Gradient: complete, to depth and density; the body is static here.
    Error: second order in the spacing where the wall is at least four cells; thinner walls are smeared, and a cavity
        thinner than that too: good for search, not for a last digit.
    Raises: UserError for a body that comes within two cells of the grid's border, an empty one, or more worlds.
    """

    near: Tensor
    rows: Tensor
    outer: Tensor
    values: Tensor
    middle: Tensor

    def __init__(self, grid: SdfGrid, offset: InnerOffset):
        super().__init__()
        require_grid("HollowMass.grid", grid)
        values, h = grid.values.detach(), float(grid.spacing)
        if values.shape[0] != 1:
            raise UserError(f"HollowMass.grid: expected one world, got {values.shape[0]}")
        rim = min(float(values.select(a, end).min()) for a in (1, 2, 3) for end in (0, -1))
        if not rim >= SUPPORT * h * (1.0 - 1e-4) or not bool((values < 0.0).any()):
            raise UserError(
                f"HollowMass.grid: expected a body inside and two cells ({SUPPORT * h:.4g} m) of room around it, "
                f"got {rim:.4g} m; remedy: a larger grid"
            )
        self.offset, self.spacing = offset, h
        near = (values.reshape(-1) < SUPPORT * h).nonzero()[:, 0]
        counts = torch.tensor(values.shape[1:], device=values.device)
        self.register_buffer("middle", (grid.origin.double() + 0.5 * h * (counts.double() - 1.0)), persistent=False)
        x = (grid_nodes(torch.zeros_like(grid.origin), 1.0, tuple(values.shape[1:]))[0, near].double()  # type: ignore[arg-type]
             - 0.5 * (counts.double() - 1.0))  # cells from the middle  # fmt: skip
        rows = torch.cat([torch.ones_like(x[:, :1]), x, (x[:, :, None] * x[:, None, :]).flatten(1)], dim=1)
        self.register_buffer("near", near, persistent=False)
        self.register_buffer("rows", rows, persistent=False)
        self.register_buffer("values", values, persistent=False)
        self.register_buffer("origin", grid.origin.detach(), persistent=False)
        self.register_buffer("outer", occupancy(values.reshape(-1)[near], h), persistent=False)

    def forward(self, depth: Tensor, density: Tensor | None = None) -> Bodies:
        grid = SdfGrid(self.values, self.origin, self.spacing)  # type: ignore[arg-type]
        cavity = self.offset(grid, depth).values.flatten(1)[:, self.near]
        moments = (self.outer - occupancy(cavity, self.spacing)).double() @ self.rows
        worlds = depth.shape[0]
        density = (depth.new_ones(1) if density is None else density).expand(worlds)
        cell = torch.full_like(moments[:, 0], self.spacing)
        origin = self.middle.expand(worlds, 3)
        second = moments[:, 4:].reshape(-1, 3, 3)
        return bodies_of(moments[:, 0], moments[:, 1:4], second, cell, origin, density, torch.zeros_like(origin))


def cavity_mesh(cavity: SdfGrid, smoothing: int = 10) -> Mesh | None:
    """The closed surface of a cavity of one world, wound outwards (around the void); None where there is no cavity.

    It may have several components. Gradient: see `geometry.isosurface`. Raises: UserError for more worlds, and as
    `extract_isosurface`.
    """
    require_grid("cavity_mesh.cavity", cavity)
    if cavity.values.shape[0] != 1:
        raise UserError(f"cavity_mesh.cavity: expected one world, got {cavity.values.shape[0]}")
    if not bool((cavity.values.detach() < -1e-18).any()):
        return None
    return extract_isosurface(cavity, smoothing)[0]


def without(outer: Bodies, inner: Bodies) -> Bodies:
    """Mass properties of a body from which another, inside it and of the same density, is taken away.

        m = m_o - m_i,   c = (m_o c_o - m_i c_i) / m,   I = I_o - I_i - m_o m_i / m (|e|^2 1 - e e^T),   e = c_o - c_i

    The last term joins both shifts to the common centre. Shapes (world, ...), float32; sums in double precision.
    Gradient: complete. Raises: UserError where nothing is left.
    """
    m_o, m_i = outer.mass.double(), inner.mass.double()
    mass = m_o - m_i
    if not bool((mass > LEAST_MASS * m_o.abs()).all()):
        raise UserError(
            f"without: expected less mass inside than outside, got {inner.mass.tolist()} kg in {outer.mass.tolist()} kg; "
            "remedy: check which mesh is the inner one"
        )
    e = outer.center_of_mass.double() - inner.center_of_mass.double()
    center = inner.center_of_mass.double() + (m_o / mass)[:, None] * e
    square = (e * e).sum(1)[:, None, None] * torch.eye(3, dtype=e.dtype, device=e.device) - e[:, :, None] * e[:, None, :]
    inertia = outer.inertia.double() - inner.inertia.double() - (m_o * m_i / mass)[:, None, None] * square
    return Bodies(*(t.to(outer.mass.dtype) for t in (mass, center, inertia)))


def mass_between(outer: Mesh, inner: Mesh | None, density: Tensor) -> Bodies:
    """Bodies of what lies between two closed meshes, wound outwards, the second inside the first; None: the first is solid.

    density [kg/m^3] (world,). Not checked: that meshes are closed and one is inside the other (`least_wall` tells).
    Gradient: complete, to the vertices of both and density. Raises: UserError where nothing is left.
    """
    zero = density.new_zeros(1, 3)
    whole = mass_of_mesh(outer, density, zero)
    return whole if inner is None else without(whole, mass_of_mesh(inner, density, zero))


def least_wall(outer: Mesh, inner: Mesh) -> float:
    """Least distance [m] between two surfaces of one world, from the vertices of both; negative where a vertex of the inner
    one is not inside the outer one. A measure, without gradient."""
    with torch.no_grad():
        least = min(float(point_to_surface(a.vertices, b).min()) for a, b in ((inner, outer), (outer, inner)))
        inside = bool((winding_number(outer, inner.vertices) > 0.5).all())
    return least if inside else -least
