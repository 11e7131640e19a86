"""Mass properties of a solid given by signed distances: smooth quadrature on a regular grid.

    integral over the solid of f  ~  spacing^3  sum over nodes of f(x) H(-d(x) / spacing),    H = S - S'' / 6,

S the integral of the cubic B-spline B (support +-2 cells), S'' = B'. A smooth step moves the volume by half its second moment
times the change of area; B has the moment 1/3, which the term -S''/6 takes away. The transform of B vanishes at the grid's
frequencies, so that faces along the grid leave no error, others little (for regularised steps on level sets see Tornberg and
Engquist, "Numerical approximations of singular source terms", 2004). The error falls with the second power of the spacing or
faster; that of the derivative in a size is larger (1.3 % at a reach of 9 cells for a cylinder along the grid and centred on it,
0.1 % for one that is not). H lies a little outside [0, 1] next to the surface.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from dvc.errors import UserError
from dvc.records import Bodies, SdfGrid, expand_worlds, world_count
from geometry.moments import bodies_of
from geometry.sdf_evaluate import sdf_distance
from geometry.sdf_shapes import ShapeList

SUPPORT = 2.0  # cells on either side of the surface over which occupancy goes from 1 to 0

Distance = Callable[[Tensor], Tensor]  # points (world, point, 3) -> (world, point)


class _Occupancy(torch.autograd.Function):
    """H(s), with its derivative B(s) - B''(s) / 6, piecewise polynomials in a = |s|."""

    @staticmethod
    def forward(ctx: object, s: Tensor) -> Tensor:
        ctx.save_for_backward(s)  # type: ignore[attr-defined]
        a = s.abs().clamp_max(SUPPORT)
        rest = 2.0 - a
        inner = 1.0 / 2.0 + a * (2.0 / 3.0 + a * a * (a / 8.0 - 1.0 / 3.0)) + a * (1.0 / 3.0 - a / 4.0)
        outer = 1.0 - rest**4 / 24.0 + rest**2 / 12.0
        upper = torch.where(a < 1.0, inner, outer)
        return torch.where(s < 0.0, 1.0 - upper, upper)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: object, gradient: Tensor) -> Tensor:
        (s,) = ctx.saved_tensors  # type: ignore[attr-defined]
        a = s.abs().clamp_max(SUPPORT)
        rest = 2.0 - a
        inner = 2.0 / 3.0 - a * a + a**3 / 2.0 + (2.0 - 3.0 * a) / 6.0
        outer = rest**3 / 6.0 - rest / 6.0
        return gradient * torch.where(a < 1.0, inner, outer)


def occupancy(distance: Tensor, spacing: float) -> Tensor:
    """Share of the solid at each node, from distances and the grid's spacing, both [m]: 1 inside, 0 outside, smooth between."""
    return _Occupancy.apply(distance / (-spacing))


def mass_of_grid(grid: SdfGrid, density: Tensor) -> Bodies:
    """Mass properties of the solid inside an SdfGrid of one density [kg/m^3] (world,), the inertia about the centre of mass.

    Gradient: complete, to grid values and density (origin and spacing are static here).
    Error: second order in the spacing; see the module. Values should be distances within two cells of the surface.
    Raises: UserError for a solid that is empty or comes within two cells of the grid's border.
    """
    values, h = grid.values, float(grid.spacing)
    if values.dim() != 4 or min(values.shape[1:]) < 2:
        shape = tuple(values.shape)
        raise UserError(f"mass_of_grid.values: expected shape (world, nx, ny, nz), at least 2 each, got {shape}")
    share = occupancy(values, h)
    with torch.no_grad():
        sides = [values.select(axis, end) for axis in (1, 2, 3) for end in (0, -1)]
        nearest = min(float(side.min()) for side in sides)
        least = float(share.sum((1, 2, 3)).min())
    if not nearest >= SUPPORT * h * (1.0 - 1e-4):
        raise UserError(
            f"mass_of_grid: expected at least {SUPPORT * h:.4g} m (two cells) to the solid on the grid's border, "
            f"got {nearest:.4g}; remedy: a larger box around the solid, or a solid that is bounded"
        )
    if not least > 0.0:
        raise UserError(f"mass_of_grid: expected a solid in every world, got {least:.3g} occupied cells; remedy: a finer grid")
    # coordinates in cells from the middle of the grid, sums in double precision: neither far origins nor long sums cost digits
    counts = values.shape[1:]
    x, y, z = (torch.arange(n, device=values.device, dtype=torch.float64) - 0.5 * (n - 1) for n in counts)
    of_xy, of_yz, of_xz = (share.sum(axis, dtype=torch.float64) for axis in (3, 1, 2))
    of_x, of_y, of_z = of_xy.sum(2), of_xy.sum(1), of_yz.sum(1)
    volume, first = of_x.sum(1), torch.stack([of_x @ x, of_y @ y, of_z @ z], dim=1)
    xx, yy, zz = of_x @ (x * x), of_y @ (y * y), of_z @ (z * z)
    xy, yz, zx = (of_xy @ y) @ x, (of_yz @ z) @ y, (of_xz @ z) @ x
    second = torch.stack([xx, xy, zx, xy, yy, yz, zx, yz, zz], dim=1).reshape(-1, 3, 3)
    half = 0.5 * h * torch.tensor([n - 1 for n in counts], dtype=torch.float64, device=values.device)
    worlds = world_count(values, density)
    volume, first, second, density = (expand_worlds(t, worlds) for t in (volume, first, second, density))
    origin = (grid.origin.double() + half).expand(worlds, 3)
    cell = torch.full_like(volume, h)
    return bodies_of(volume, first, second, cell, origin, density, torch.zeros_like(origin))


def grid_points(
    lower: Sequence[float], upper: Sequence[float], cells: int, device: torch.device | str
) -> tuple[Tensor, tuple, float]:
    """Nodes of a grid of cubes over a box, `cells` along its longest side: points (1, node, 3), counts, spacing."""
    low, high = [float(v) for v in lower], [float(v) for v in upper]
    if len(low) != 3 or len(high) != 3 or not all(-float("inf") < a < b < float("inf") for a, b in zip(low, high, strict=True)):
        raise UserError(f"box: expected three lower bounds below three upper ones, got {low} and {high}")
    if int(cells) < 4:
        raise UserError(f"cells: expected at least 4, got {cells}")
    spacing = max(b - a for a, b in zip(low, high, strict=True)) / int(cells)
    counts = tuple(int(-(-(b - a) // spacing)) + 1 if (b - a) / spacing % 1.0 > 1e-6 else round((b - a) / spacing) + 1
                   for a, b in zip(low, high, strict=True))  # fmt: skip
    axes = [a + spacing * torch.arange(n, device=device, dtype=torch.float64) for a, n in zip(low, counts, strict=True)]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(1, -1, 3)
    return points.float(), counts, spacing


def mass_of_sdf(
    sdf: SdfGrid | ShapeList | Distance,
    density: Tensor,
    *,
    lower: Sequence[float] | None = None,
    upper: Sequence[float] | None = None,
    cells: int = 64,
) -> Bodies:
    """Mass properties of a solid given by an SdfGrid, a ShapeList or a function.

    A function takes points (1, point, 3) and returns distances (world, point).

    density: [kg/m^3], (world,). lower, upper: [m], a box with at least two cells of room around the solid; `cells` along its
    longest side (for an SdfGrid, which has its own nodes, none of the three is taken). Work grows with cells^3.
    Gradient: complete, to all that the distances depend on, and to the density; the box is static.
    Raises: UserError, see `mass_of_grid`.
    """
    if isinstance(sdf, SdfGrid):
        if lower is not None or upper is not None:
            raise UserError("mass_of_sdf: expected no box for an SdfGrid, which has its own; remedy: leave lower and upper out")
        return mass_of_grid(sdf, density)
    if lower is None or upper is None:
        raise UserError("mass_of_sdf: expected a box around the solid, got none; remedy: give lower and upper")
    points, counts, spacing = grid_points(lower, upper, cells, density.device)
    distance = sdf_distance(sdf, points) if isinstance(sdf, ShapeList) else sdf(points)
    if distance.dim() != 2 or distance.shape[1] != points.shape[1]:
        raise UserError(f"sdf: expected distances of shape (world, {points.shape[1]}), got {tuple(distance.shape)}")
    return mass_of_grid(SdfGrid(distance.unflatten(1, counts), points[0, 0], spacing), density)


class SdfMass(nn.Module):
    """Mass properties of a solid of one density, given by distances.

    Arguments: lower, upper: [m], a box around the solid; cells along its longest side. None for an SdfGrid.
    Forward: sdf: SdfGrid or ShapeList (or a function of points); density [kg/m^3] (world,) -> Bodies.
    Gradient and errors: see `mass_of_sdf`.
    """

    def __init__(self, lower: Sequence[float] | None = None, upper: Sequence[float] | None = None, cells: int = 64):
        super().__init__()
        self.lower, self.upper, self.cells = lower, upper, cells

    def forward(self, sdf: SdfGrid | ShapeList, density: Tensor) -> Bodies:
        return mass_of_sdf(sdf, density, lower=self.lower, upper=self.upper, cells=self.cells)
