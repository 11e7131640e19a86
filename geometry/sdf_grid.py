"""Values and gradients of an SDF grid anywhere: trilinear (C0) or tricubic Catmull-Rom (C1), and resampling.

    s(x) = sum over taps of w_i(u) w_j(v) w_k(t) V_ijk,   (u, v, t) = (x - origin) / spacing

linear: w = (1 - f, f). cubic: Catmull and Rom 1974, Keys 1981 with a = -1/2: it passes through the values and reproduces
quadratics; at the rim the missing tap is extrapolated linearly, 2 V_0 - V_1. The gradient is that of the interpolant itself.
Outside the grid's box, with c the nearest point of the box and e = |x - c|,

    s(x) = sqrt(s(c)^2 + e^2)  where s(c) >= 0,      s(c) + e  where s(c) < 0 (a solid that reaches the rim ends there).

It is continuous; and where the whole surface lies inside the box, the first never exceeds the true distance, because the angle
at c between x and any point of a convex box is not acute.
"""

import torch
import warp as wp
from torch import Tensor, nn

from dvc.errors import UserError
from dvc.records import SdfGrid, world_count
from dvc.warp_op import scratch, warp_op

METHODS = ("linear", "cubic")
CHUNK = 4096  # points of one unit of work
RIM = 1e-6  # in cells; a point nearer than that to the box counts as in it


@wp.func
def tap_weights(f: float, cubic: int, order: int):
    """Weights of the taps -1, 0, 1, 2 at the fraction f of a cell: of the value, its first or second derivative."""
    if cubic == 0:
        if order == 0:
            return wp.vec4(0.0, 1.0 - f, f, 0.0)
        if order == 1:
            return wp.vec4(0.0, -1.0, 1.0, 0.0)
        return wp.vec4()
    if order == 0:
        return 0.5 * wp.vec4(
            f * (-1.0 + f * (2.0 - f)),
            2.0 + f * f * (-5.0 + 3.0 * f),
            f * (1.0 + f * (4.0 - 3.0 * f)),
            f * f * (f - 1.0),
        )
    if order == 1:
        return 0.5 * wp.vec4(-1.0 + f * (4.0 - 3.0 * f), f * (-10.0 + 9.0 * f), 1.0 + f * (8.0 - 9.0 * f), f * (3.0 * f - 2.0))
    return wp.vec4(2.0 - 3.0 * f, 9.0 * f - 5.0, 4.0 - 9.0 * f, 3.0 * f - 1.0)


@wp.func
def rim_weights(w: wp.vec4, cell: int, count: int):
    """Weights in which a tap beyond the grid is replaced by its linear extrapolation."""
    a = w[0]
    b = w[1]
    c = w[2]
    d = w[3]
    if cell == 0:
        b += 2.0 * a
        c -= a
        a = 0.0
    if cell == count - 2:
        c += 2.0 * d
        b -= d
        d = 0.0
    return wp.vec4(a, b, c, d)


@wp.func
def cell_of(u: float, count: int):
    return wp.clamp(int(wp.floor(u)), 0, count - 2)


@wp.func
def axis_weights(u: float, count: int, cubic: int, order: int):
    cell = cell_of(u, count)
    return rim_weights(tap_weights(u - float(cell), cubic, order), cell, count)


@wp.func
def grid_sample(values: wp.array4d(dtype=float), world: int, u: wp.vec3, cubic: int):
    """Value and gradient in units of the grid; u is in the box."""
    nx = values.shape[1]
    ny = values.shape[2]
    nz = values.shape[3]
    x0 = axis_weights(u[0], nx, cubic, 0)
    y0 = axis_weights(u[1], ny, cubic, 0)
    z0 = axis_weights(u[2], nz, cubic, 0)
    x1 = axis_weights(u[0], nx, cubic, 1)
    y1 = axis_weights(u[1], ny, cubic, 1)
    z1 = axis_weights(u[2], nz, cubic, 1)
    i = cell_of(u[0], nx) - 1
    j = cell_of(u[1], ny) - 1
    k = cell_of(u[2], nz) - 1
    out = wp.vec4()
    for a in range(1 - cubic, 3 + cubic):
        for b in range(1 - cubic, 3 + cubic):
            row = float(0.0)
            slope = float(0.0)
            for c in range(1 - cubic, 3 + cubic):
                v = values[world, wp.clamp(i + a, 0, nx - 1), wp.clamp(j + b, 0, ny - 1), wp.clamp(k + c, 0, nz - 1)]
                row += z0[c] * v
                slope += z1[c] * v
            out += wp.vec4(x0[a] * y0[b] * row, x1[a] * y0[b] * row, x0[a] * y1[b] * row, x0[a] * y0[b] * slope)
    return out


@wp.func
def grid_hessian(values: wp.array4d(dtype=float), world: int, u: wp.vec3, cubic: int):
    """Second derivatives in units of the grid, inside a cell."""
    nx = values.shape[1]
    ny = values.shape[2]
    nz = values.shape[3]
    x0 = axis_weights(u[0], nx, cubic, 0)
    y0 = axis_weights(u[1], ny, cubic, 0)
    z0 = axis_weights(u[2], nz, cubic, 0)
    x1 = axis_weights(u[0], nx, cubic, 1)
    y1 = axis_weights(u[1], ny, cubic, 1)
    z1 = axis_weights(u[2], nz, cubic, 1)
    x2 = axis_weights(u[0], nx, cubic, 2)
    y2 = axis_weights(u[1], ny, cubic, 2)
    z2 = axis_weights(u[2], nz, cubic, 2)
    i = cell_of(u[0], nx) - 1
    j = cell_of(u[1], ny) - 1
    k = cell_of(u[2], nz) - 1
    diagonal = wp.vec3()
    other = wp.vec3()  # yz, zx, xy
    for a in range(1 - cubic, 3 + cubic):
        for b in range(1 - cubic, 3 + cubic):
            for c in range(1 - cubic, 3 + cubic):
                v = values[world, wp.clamp(i + a, 0, nx - 1), wp.clamp(j + b, 0, ny - 1), wp.clamp(k + c, 0, nz - 1)]
                diagonal += v * wp.vec3(x2[a] * y0[b] * z0[c], x0[a] * y2[b] * z0[c], x0[a] * y0[b] * z2[c])
                other += v * wp.vec3(x0[a] * y1[b] * z1[c], x1[a] * y0[b] * z1[c], x1[a] * y1[b] * z0[c])
    return wp.mat33(
        diagonal[0], other[2], other[1], other[2], diagonal[1], other[0], other[1], other[0], diagonal[2]
    )  # fmt: skip


@wp.kernel(enable_backward=False)
def sample_kernel(
    values: wp.array4d(dtype=float),
    units: wp.array2d(dtype=wp.vec3),
    world: wp.array(dtype=int),
    cubic: int,
    value: wp.array2d(dtype=float),
    gradient: wp.array2d(dtype=wp.vec3),
):
    chunk, i = wp.tid()
    s = grid_sample(values, world[chunk], units[chunk, i], cubic)
    value[chunk, i] = s[0]
    gradient[chunk, i] = wp.vec3(s[1], s[2], s[3])


@wp.kernel(enable_backward=False)
def sample_adjoint(
    values: wp.array4d(dtype=float),
    units: wp.array2d(dtype=wp.vec3),
    world: wp.array(dtype=int),
    cubic: int,
    to_value: wp.array2d(dtype=float),
    to_gradient: wp.array2d(dtype=wp.vec3),
    to_values: wp.array4d(dtype=float),
    to_units: wp.array2d(dtype=wp.vec3),
):
    chunk, p = wp.tid()
    g = to_value[chunk, p]
    h = to_gradient[chunk, p]
    if g != 0.0 or wp.dot(h, h) != 0.0:
        w = world[chunk]
        u = units[chunk, p]
        nx = values.shape[1]
        ny = values.shape[2]
        nz = values.shape[3]
        s = grid_sample(values, w, u, cubic)
        pull = g * wp.vec3(s[1], s[2], s[3]) + grid_hessian(values, w, u, cubic) * h
        to_units[chunk, p] = to_units[chunk, p] + pull
        x0 = axis_weights(u[0], nx, cubic, 0)
        y0 = axis_weights(u[1], ny, cubic, 0)
        z0 = axis_weights(u[2], nz, cubic, 0)
        x1 = axis_weights(u[0], nx, cubic, 1)
        y1 = axis_weights(u[1], ny, cubic, 1)
        z1 = axis_weights(u[2], nz, cubic, 1)
        i = cell_of(u[0], nx) - 1
        j = cell_of(u[1], ny) - 1
        k = cell_of(u[2], nz) - 1
        for a in range(1 - cubic, 3 + cubic):
            for b in range(1 - cubic, 3 + cubic):
                flat = g * x0[a] * y0[b] + h[0] * x1[a] * y0[b] + h[1] * x0[a] * y1[b]
                for c in range(1 - cubic, 3 + cubic):
                    share = flat * z0[c] + h[2] * x0[a] * y0[b] * z1[c]
                    if share != 0.0:
                        wp.atomic_add(
                            to_values,
                            w,
                            wp.clamp(i + a, 0, nx - 1),
                            wp.clamp(j + b, 0, ny - 1),
                            wp.clamp(k + c, 0, nz - 1),
                            share,
                        )


@warp_op(shared=("values",), threads=None)
def sample_op(values: wp.array4d(dtype=float), units: wp.array2d(dtype=wp.vec3), world: wp.array(dtype=int), *, cubic: bool):
    """values (world, nx, ny, nz), points in units of the grid (chunk, point, 3), each chunk's world -> value and gradient."""
    value, gradient = scratch(units.shape, float), scratch(units.shape, wp.vec3)
    wp.launch(sample_kernel, units.shape, inputs=[values, units, world, int(cubic)], outputs=[value, gradient])
    return value, gradient


@sample_op.adjoint(recompute=False)
def _(inputs, outputs, *, cubic):
    wp.launch(
        sample_adjoint,
        inputs.units.shape,
        [inputs.values, inputs.units, inputs.world, int(cubic), outputs[0].grad, outputs[1].grad],
        [inputs.values.grad, inputs.units.grad],
    )


def require_grid(name: str, grid: SdfGrid) -> None:
    """A UserError unless the record has values (world, nx, ny, nz), an origin (3,) and a positive spacing."""
    if grid.values.dim() != 4 or min(grid.values.shape[1:]) < 2:
        raise UserError(f"{name}: expected values (world, nx, ny, nz), at least 2 an axis, got {tuple(grid.values.shape)}")
    if grid.origin.shape != (3,):
        raise UserError(f"{name}: expected an origin of shape (3,), got {tuple(grid.origin.shape)}")
    if not grid.spacing > 0.0:
        raise UserError(f"{name}: expected a positive spacing, got {grid.spacing}")


def _inside_samples(values: Tensor, units: Tensor, cubic: bool) -> tuple[Tensor, Tensor]:
    """`sample_op` of points (world, point, 3) in the box, cut into chunks for the threads."""
    worlds, count = world_count(values, units), units.shape[1]
    if count == 0:
        return units.new_zeros(worlds, 0), units.new_zeros(worlds, 0, 3)
    chunks = -(-count // CHUNK)
    size = -(-count // chunks)
    size += -size % 64  # few shapes are traced
    units = units.expand(worlds, count, 3)
    padded = torch.cat([units, units[:, -1:].detach().expand(-1, chunks * size - count, 3)], dim=1)
    world = torch.arange(worlds, device=units.device) * (values.shape[0] > 1)
    world = world.to(torch.int32).repeat_interleave(chunks)
    value, gradient = sample_op(values, padded.reshape(-1, size, 3), world, cubic=cubic)
    return value.reshape(worlds, -1)[:, :count], gradient.reshape(worlds, -1, 3)[:, :count]


def sample_sdf(grid: SdfGrid, points: Tensor, method: str = "linear") -> tuple[Tensor, Tensor]:
    """Value [m] (world, point) and gradient (world, point, 3) of a grid at points [m] (world, point, 3).

    method: "linear" (trilinear, C0) or "cubic" (Catmull-Rom, C1). Outside the box: see the top of this file.
    Gradient: of both outputs to `grid.values` and `points`; of the second, inside a cell only (it jumps between cells when
        linear, and its derivative jumps when cubic). None to origin and spacing.
    Raises: UserError for wrong shapes, an unknown method, points that are not finite.
    """
    require_grid("sample_sdf", grid)
    if method not in METHODS:
        raise UserError(f"sample_sdf.method: expected one of {', '.join(METHODS)}, got {method!r}")
    if points.dim() != 3 or points.shape[2] != 3:
        raise UserError(f"sample_sdf.points: expected shape (world, point, 3), got {tuple(points.shape)}")
    if not bool(torch.isfinite(points).all()):
        raise UserError("sample_sdf.points: expected finite points, got NaN or infinity")
    units = (points - grid.origin) / grid.spacing
    last = torch.tensor([n - 1.0 for n in grid.values.shape[1:]], device=points.device)
    clamped = torch.minimum(units.clamp_min(0.0), last)
    value, gradient = _inside_samples(grid.values, clamped, method == "cubic")
    gradient = gradient / grid.spacing
    beyond = units - clamped
    beyond = torch.where(beyond.abs() > RIM, beyond, torch.zeros_like(beyond))
    if not bool((beyond != 0.0).any()):
        return value, gradient
    return _extend(value, gradient, beyond.expand_as(gradient) * grid.spacing)


def _extend(value: Tensor, gradient: Tensor, beyond: Tensor) -> tuple[Tensor, Tensor]:
    """Values and gradients outside the box, from those at its nearest point and the vector from there."""
    out = (beyond != 0.0).any(dim=-1)
    safe = torch.where(out[..., None], beyond, torch.ones_like(beyond))
    away = torch.linalg.norm(safe, dim=-1)
    direction = safe / away[..., None]
    along = torch.where(beyond == 0.0, gradient, torch.zeros_like(gradient))
    positive = value >= 0.0
    lifted = torch.where(positive, value, torch.zeros_like(value))
    root = torch.sqrt(lifted * lifted + away * away)
    far = torch.where(positive, root, value + away)
    inner = torch.where(positive, lifted / root, torch.ones_like(value))
    outer = torch.where(positive, away / root, torch.ones_like(value))
    slope = along * inner[..., None] + direction * outer[..., None]
    return torch.where(out, far, value), torch.where(out[..., None], slope, gradient)


def sdf_normal(grid: SdfGrid, points: Tensor, method: str = "linear") -> Tensor:
    """Unit gradient (world, point, 3), zero where the gradient is. Arguments and gradient: see `sample_sdf`."""
    _, gradient = sample_sdf(grid, points, method)
    square = (gradient * gradient).sum(dim=-1, keepdim=True)
    return gradient * torch.where(square > 1e-24, square.clamp_min(1e-24).rsqrt(), torch.zeros_like(square))


def grid_nodes(origin: Tensor, spacing: float, shape: tuple[int, int, int]) -> Tensor:
    """Positions of a grid's nodes [m], (1, nx * ny * nz, 3)."""
    axes = [origin[i] + spacing * torch.arange(n, device=origin.device) for i, n in enumerate(shape)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(1, -1, 3)


def resample(grid: SdfGrid, origin: Tensor, spacing: float, shape: tuple[int, int, int], method: str = "linear") -> SdfGrid:
    """The field at the nodes of another grid, whose values have gradient to those of `grid`.

    origin [m] (3,), spacing [m], shape: of the new grid; method and what holds outside: see `sample_sdf`. Coarser grids are
    not filtered beforehand.
    """
    target = SdfGrid(grid.values.new_zeros(1, *shape), origin.detach(), float(spacing))
    require_grid("resample", target)
    value, _ = sample_sdf(grid, grid_nodes(target.origin, target.spacing, shape), method)
    return SdfGrid(value.reshape(-1, *shape), target.origin, target.spacing)


class SdfSampler(nn.Module):
    """Stage: an SDF grid at points.

    Arguments: method, "linear" or "cubic".
    Forward: grid: SdfGrid, points [m] (world, point, 3) -> {"value": [m] (world, point), "gradient": (world, point, 3)}.
    """

    def __init__(self, method: str = "linear"):
        super().__init__()
        if method not in METHODS:
            raise UserError(f"SdfSampler.method: expected one of {', '.join(METHODS)}, got {method!r}")
        self.method = method

    def forward(self, grid: SdfGrid, points: Tensor) -> dict[str, Tensor]:
        value, gradient = sample_sdf(grid, points, self.method)
        return {"value": value, "gradient": gradient}
