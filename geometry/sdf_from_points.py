"""A signed distance grid from points with normals, noise and holes included: smooth signed distance (Calakli and Taubin 2011).

    L(f) = mean_i f(p_i)^2 / s_p^2 + mean_i |grad f(p_i) - n_i|^2 / s_n^2 + (w / D) integral |H f|^2 dx

f is the trilinear interpolant of the grid's values, H its matrix of second differences, s_p and s_n the noise of points [m] and
of normals, D the diagonal of the points' box and w the smoothness, which is so free of units and of the grid's spacing. Where
there are no points the last term goes on linearly, and that closes holes.

L is quadratic: its minimum is found by conjugate gradients with products taken from reverse mode through the grid sampler,
A v = grad L_0(v), L_0 being L with normals of zero. The system is that of a plate, ill-conditioned as spacing^-4, so that it is
solved coarse to fine, and preconditioned by the sum over all coarser grids l of P_l diag(A_l)^-1 P_l^T (Bramble, Pasciak and
Xu 1990). P_l is tricubic: its functions have bounded curvature, which trilinear ones have not. diag(A_l) is probed: nodes that
are three apart share no point (Curtis, Powell and Reid 1974).
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dvc.errors import UserError
from dvc.records import SdfGrid
from geometry.sdf_grid import grid_nodes, require_grid, sample_sdf

LEAST_POINTS = 50
COARSEST = 6  # least cells of the longest side of the coarsest grid
PAIRS = ((1, 2), (1, 3), (2, 3))


class GridLevels(NamedTuple):
    """Grids of one box, each of half the spacing of the one before."""

    origin: Tensor  # [m], (3,)
    spacings: tuple[float, ...]  # [m]
    shapes: tuple[tuple[int, int, int], ...]


class FreeSdf(nn.Module):
    """An SDF grid whose values are all unknown.

    Arguments: grid: where it starts; its origin and spacing are kept.
    Forward: () -> SdfGrid. The unknowns `values` [m] (world, nx, ny, nz) are weights of the pipeline.
    Gradient: complete, to the values.
    """

    def __init__(self, grid: SdfGrid):
        super().__init__()
        require_grid("FreeSdf.grid", grid)
        self.register_buffer("origin", grid.origin.detach().clone(), persistent=False)
        self.spacing = float(grid.spacing)
        self.values = nn.Parameter(grid.values.detach().clone())

    def forward(self) -> SdfGrid:
        return SdfGrid(self.values, self.origin, self.spacing)  # type: ignore[arg-type]


class _SquaredSecondDifferences(torch.autograd.Function):
    """Sum over a grid of |second differences|^2, mixed ones twice, (world,); the adjoint is gathered with it."""

    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:  # type: ignore[override]
        total, half = values.new_zeros(values.shape[0]), torch.zeros_like(values)
        for axis in (1, 2, 3):
            n = values.shape[axis] - 2
            if n < 1:
                continue
            parts = [values.narrow(axis, k, n) for k in range(3)]
            d = parts[0] + parts[2] - 2.0 * parts[1]
            total += d.square().sum(dim=(1, 2, 3))
            for k, factor in enumerate((1.0, -2.0, 1.0)):
                half.narrow(axis, k, n).add_(d, alpha=factor)
        for a, b in PAIRS:
            n, m = values.shape[a] - 1, values.shape[b] - 1
            corners = [(i, j) for i in (0, 1) for j in (0, 1)]
            v = {(i, j): values.narrow(a, i, n).narrow(b, j, m) for i, j in corners}
            d = v[0, 0] + v[1, 1] - v[0, 1] - v[1, 0]
            total += 2.0 * d.square().sum(dim=(1, 2, 3))
            for i, j in corners:
                half.narrow(a, i, n).narrow(b, j, m).add_(d, alpha=2.0 if i == j else -2.0)
        ctx.save_for_backward(half)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> Tensor:  # type: ignore[override]
        (half,) = ctx.saved_tensors
        return 2.0 * gradient[:, None, None, None] * half


def curvature_energy(grid: SdfGrid) -> Tensor:
    """Integral of |H|^2 over the grid's box [m], (world,): H the second derivatives of the values [1/m], by differences.

    Zero for a field that is linear. Gradient: complete, to the values; second derivatives are not supported.
    Raises: UserError for wrong shapes.
    """
    require_grid("curvature_energy", grid)
    return _SquaredSecondDifferences.apply(grid.values) / grid.spacing  # type: ignore[no-untyped-call]


class PointMisfit(nn.Module):
    """The loss L of a grid, given points with normals.

    Arguments:
        points [m] (point, 3), normals (point, 3) outwards, of unit length; at least 50, with an extent.
        point_noise s_p [m], normal_noise s_n (rms length of the error of a normal), smoothness w.
        weights (point,): of the points in the means, from 0; none: all alike.
    Forward: grid: SdfGrid -> loss (world,).
    Gradient: to the grid's values. None to points and noise, which are data.
    Raises: UserError for wrong shapes, too few points, what is not finite, normals of zero length, numbers not above zero.
    """

    def __init__(self, points: Tensor, normals: Tensor, point_noise: float, normal_noise: float, smoothness: float,
                 weights: Tensor | None = None):  # fmt: skip
        super().__init__()
        points, unit = checked_points("PointMisfit", points, normals)
        for name, value in (("point_noise", point_noise), ("normal_noise", normal_noise), ("smoothness", smoothness)):
            if not 0.0 < value < float("inf"):
                raise UserError(f"PointMisfit.{name}: expected a positive number, got {value}")
        weights = torch.ones_like(points[:, 0]) if weights is None else weights.detach().float()
        if weights.shape != points.shape[:1] or not bool((weights >= 0.0).all() & (weights.sum() > 0.0)):
            raise UserError(
                f"PointMisfit.weights: expected {len(points)} numbers from 0, not all 0, got {tuple(weights.shape)}"
            )
        self.register_buffer("weights", weights / weights.sum(), persistent=False)
        self.register_buffer("points", points[None], persistent=False)
        self.register_buffer("normals", unit[None], persistent=False)
        self.diagonal = float((points.amax(0) - points.amin(0)).norm())
        self.point_noise, self.normal_noise, self.smoothness = float(point_noise), float(normal_noise), float(smoothness)

    def forward(self, grid: SdfGrid) -> Tensor:
        return self.data_loss(grid) + self.smoothness / self.diagonal * curvature_energy(grid)

    def data_loss(self, grid: SdfGrid, normals_weight: float = 1.0) -> Tensor:
        """The first two terms, (world,), of the normals times `normals_weight`."""
        value, slope = sample_sdf(grid, self.points)  # type: ignore[arg-type]
        off = (slope - normals_weight * self.normals).square().sum(dim=2)  # type: ignore[operator]
        return (value.square() / self.point_noise**2 + off / self.normal_noise**2) @ self.weights  # type: ignore[operator]

    def residuals(self, grid: SdfGrid) -> tuple[float, float]:
        """Weighted rms over the points of f / |grad f| [m] and of |grad f - n|: what the noise looks like in this fit."""
        with torch.no_grad():
            value, slope = sample_sdf(grid, self.points)  # type: ignore[arg-type]
            distance = value / slope.norm(dim=2).clamp_min(0.1)
            off = (slope - self.normals).square().sum(dim=2)  # type: ignore[operator]
            rms = torch.stack([distance.square(), off]) @ self.weights  # type: ignore[operator]
            return float(rms[0].sqrt()), float(rms[1].sqrt())

    def gradient(self, grid: SdfGrid, normals_weight: float = 1.0) -> tuple[Tensor, float]:
        """dL/dvalues (world, nx, ny, nz), and L of all worlds; with normals of weight zero, the product A v."""
        with torch.enable_grad():
            values = grid.values.detach().requires_grad_(True)
            at = grid._replace(values=values)
            loss = self.data_loss(at, normals_weight) + self.smoothness / self.diagonal * curvature_energy(at)
            return torch.autograd.grad(loss.sum(), values)[0], float(loss.detach().sum())

    def diagonal_of(self, grid: SdfGrid) -> Tensor:
        """The diagonal of A on a grid, (1, nx, ny, nz)."""
        total = _curvature_diagonal(tuple(grid.values.shape[1:]), grid.values.device)  # type: ignore[arg-type]
        total *= 2.0 * self.smoothness / (self.diagonal * grid.spacing)
        for i, j, k in np.ndindex(3, 3, 3):
            probe = torch.zeros_like(total)
            probe[:, i::3, j::3, k::3] = 1.0
            with torch.enable_grad():
                values = probe.clone().requires_grad_(True)
                product = torch.autograd.grad(self.data_loss(grid._replace(values=values), 0.0).sum(), values)[0]
            total += probe * product
        return total


def checked_points(name: str, points: Tensor, normals: Tensor) -> tuple[Tensor, Tensor]:
    """Points and unit normals, float32 (point, 3). Raises: UserError, see `PointMisfit`."""
    if points.dim() != 2 or points.shape[1] != 3 or normals.shape != points.shape:
        got = f"{tuple(points.shape)} and {tuple(normals.shape)}"
        raise UserError(f"{name}: expected points and normals of one shape (point, 3), got {got}")
    if len(points) < LEAST_POINTS:
        raise UserError(f"{name}: expected at least {LEAST_POINTS} points, got {len(points)}; remedy: a denser cloud")
    bad = ~(torch.isfinite(points).all(dim=1) & torch.isfinite(normals).all(dim=1))
    if bool(bad.any()):
        first = int(bad.nonzero()[0])
        raise UserError(
            f"{name}: expected finite points and normals, got {int(bad.sum())} that are not, the first is point {first}; "
            "remedy: remove them"
        )
    points, length = points.detach().float(), normals.detach().float().norm(dim=1, keepdim=True)
    if bool((length == 0.0).any()):
        count = int((length == 0.0).sum())
        raise UserError(f"{name}: expected normals with a direction, got {count} of length zero; remedy: remove those points")
    extent = (points.amax(0) - points.amin(0)).amax()
    if not bool(extent > 0.0):
        raise UserError(f"{name}: expected points with an extent, got one place; remedy: check the cloud's source")
    return points, normals.detach().float() / length


def _curvature_diagonal(shape: tuple[int, int, int], device: torch.device) -> Tensor:
    """How often a node's value enters second differences, squared factors counted, (1, nx, ny, nz)."""
    total = torch.zeros(1, *shape, device=device)
    for axis in (1, 2, 3):
        n = shape[axis - 1] - 2
        for k, square in enumerate((1.0, 4.0, 1.0)):
            if n > 0:
                total.narrow(axis, k, n).add_(square)
    for a, b in PAIRS:
        for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
            total.narrow(a, i, shape[a - 1] - 1).narrow(b, j, shape[b - 1] - 1).add_(2.0)
    return total


def grid_levels(points: Tensor, cells: int, margin: float = 0.08) -> GridLevels:
    """Grids around points (point, 3): the finest has `cells` cells along the longest side, the others halve them.

    cells: a multiple of a power of two, halved while it is even and at least 6 remain; margin: free space on each side, as a
        share of the longest.
    Raises: UserError for fewer than 6 cells, a margin not above 0.
    """
    if cells < COARSEST or not 0.0 < margin < 10.0:
        raise UserError(f"grid_levels: expected cells from {COARSEST} and a margin in (0, 10), got {cells} and {margin}")
    halvings = 0
    while (cells >> halvings) % 2 == 0 and (cells >> (halvings + 1)) >= COARSEST:
        halvings += 1
    low, high = points.amin(dim=0), points.amax(dim=0)
    sides = (high - low) + 2.0 * margin * (high - low).amax()
    spacing = float(sides.amax()) / (cells >> halvings)
    counts = [max(2, int(np.ceil(float(side) / spacing - 1e-4))) for side in sides]
    origin = 0.5 * (low + high) - 0.5 * spacing * torch.tensor(counts, dtype=torch.float32, device=points.device)
    shapes = tuple(tuple(n * 2**level + 1 for n in counts) for level in range(halvings + 1))
    return GridLevels(origin, tuple(spacing / 2**level for level in range(halvings + 1)), shapes)  # type: ignore[arg-type]


def _refinement(count: int, like: Tensor) -> Tensor:
    """Values at `count` nodes -> values at 2 count - 1 nodes by Catmull-Rom, linear beyond the rim: a matrix."""
    v = torch.eye(count, device=like.device, dtype=like.dtype)
    v = torch.cat([2.0 * v[:1] - v[1:2], v, 2.0 * v[-1:] - v[-2:-1]])
    matrix = torch.empty(2 * count - 1, count, device=like.device, dtype=like.dtype)
    matrix[0::2] = v[1:-1]
    matrix[1::2] = (9.0 * (v[1:-2] + v[2:-1]) - v[:-3] - v[3:]) / 16.0
    return matrix


def prolong(values: Tensor) -> Tensor:
    """Values (world, nx, ny, nz) at the nodes of a grid of half the spacing, tricubic: (world, 2 nx - 1, ...)."""
    for axis in (1, 2, 3):
        values = torch.tensordot(values, _refinement(values.shape[axis], values), dims=([axis], [1])).movedim(-1, axis)
    return values.contiguous()


def restrict(values: Tensor) -> Tensor:
    """The transpose of `prolong`."""
    for axis in (1, 2, 3):
        count = (values.shape[axis] + 1) // 2
        values = torch.tensordot(values, _refinement(count, values), dims=([axis], [0])).movedim(-1, axis)
    return values.contiguous()


def sphere_start(points: Tensor, origin: Tensor, spacing: float, shape: tuple[int, int, int]) -> SdfGrid:
    """Distances to the sphere about the points' middle through their mean distance from it."""
    middle = points.mean(dim=0)
    radius = (points - middle).norm(dim=1).mean()
    distance = (grid_nodes(origin, spacing, shape) - middle).norm(dim=2) - radius
    return SdfGrid(distance.reshape(1, *shape), origin, spacing)


def fit_sdf(misfit: PointMisfit, levels: GridLevels, steps: int = 80, last_steps: int = 25, tolerance: float = 1e-3,
            on_step: Callable[[int, float], None] | None = None) -> SdfGrid:  # fmt: skip
    """The minimum of a `PointMisfit` over grids, coarse to fine.

    Args:
        misfit, levels: the loss and `grid_levels` of its points.
        steps, last_steps: most steps of conjugate gradients on a grid, and on the last one, whose start is good.
        tolerance: a grid is done when the gradient, in the preconditioner's norm, has fallen to this share of that at zero.
        on_step: called after each step with the level and the loss.
    Returns: the finest grid, without gradient. Distances are right near the points; far from them, redistance.
    """
    diagonals: list[Tensor] = []
    with torch.no_grad():
        start = sphere_start(misfit.points[0], levels.origin, levels.spacings[0], levels.shapes[0])  # type: ignore[arg-type,index]
        values = start.values
        for level, spacing in enumerate(levels.spacings):
            values = prolong(values) if level else values
            grid = SdfGrid(values, levels.origin, spacing)
            diagonals.append(misfit.diagonal_of(grid))
            most = last_steps if level == len(levels.shapes) - 1 else steps
            values = _conjugate_gradients(misfit, grid, diagonals, most, tolerance, level, on_step)
    return SdfGrid(values, levels.origin, levels.spacings[-1])


def _precondition(residual: Tensor, diagonals: list[Tensor]) -> Tensor:
    residuals = [residual]
    for _ in diagonals[1:]:
        residuals.append(restrict(residuals[-1]))
    total = residuals[-1] / diagonals[0]
    for coarse, diagonal in zip(reversed(residuals[:-1]), diagonals[1:], strict=True):
        total = prolong(total) + coarse / diagonal
    return total


def _conjugate_gradients(misfit: PointMisfit, grid: SdfGrid, diagonals: list[Tensor], most: int, tolerance: float, level: int,
                         on_step: Callable[[int, float], None] | None) -> Tensor:  # fmt: skip
    values = grid.values
    at_zero, _ = misfit.gradient(grid._replace(values=torch.zeros_like(values)))
    done = tolerance**2 * float((at_zero * _precondition(at_zero, diagonals)).sum())
    gradient, loss = misfit.gradient(grid)
    residual = -gradient
    direction = ahead = _precondition(residual, diagonals)
    size = float((residual * ahead).sum())
    for _ in range(most):
        if size <= done:
            break
        product, _ = misfit.gradient(grid._replace(values=direction), 0.0)
        length = size / float((direction * product).sum())
        values = values + length * direction
        residual = residual - length * product
        loss -= 0.5 * length * size
        if on_step is not None:
            on_step(level, loss)
        ahead = _precondition(residual, diagonals)
        size, before = float((residual * ahead).sum()), size
        direction = ahead + (size / before) * direction
    return values


def drop_unsupported(grid: SdfGrid, points: Tensor, share: float = 5e-4) -> tuple[SdfGrid, int]:
    """Turn the sign of regions of one sign that hold fewer than `share` of the points; and how many were turned.

    Points with noise lie on both sides of their surface. A region without them is an artefact of what was never seen.
    grid: of one world, points [m] (point, 3). Without gradient.
    """
    from scipy import ndimage

    values = grid.values.detach()[0].clone()
    last = torch.tensor(values.shape, device=values.device) - 1
    nodes = torch.minimum(((points - grid.origin) / grid.spacing).round().long().clamp_min(0), last)
    turned = 0
    for sign in (-1.0, 1.0):
        labels, count = ndimage.label((sign * values > 0.0).cpu().numpy())
        label = torch.from_numpy(labels).to(values.device).long()
        held = torch.bincount(label[nodes[:, 0], nodes[:, 1], nodes[:, 2]], minlength=count + 1)
        empty = held < share * len(points)
        empty[0] = False
        values = torch.where(empty[label], -values, values)
        turned += int(empty.sum())
    return grid._replace(values=values[None]), turned
