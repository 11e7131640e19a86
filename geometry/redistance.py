"""Redistancing: the signed distance to the zero set of any grid field, at every node, with gradient to the field.

    d(x) = sign(f(x)) |x - y|,   y = argmin |x - y| subject to f(y) = 0,   f the tricubic interpolant of the values

1. Where the sign changes along a grid edge, Newton steps from the crossing find the root of f: a seed beside both nodes.
2. Seeds are handed along the lines of the grid, six directions in turn: every node keeps the nearest it has seen (vector
   distance transform, Danielsson 1980, by line sweeps as in Tsai 2002). A node then knows about where its closest point is.
3. Newton's method (Saye 2014) makes it exact: with the multiplier m = (x - y) . g / |g|^2, g and H the gradient and Hessian
   of f at y, T a basis of the tangent plane,

    step = -f g / |g|^2 + T z,    T^T (1 + m H) T z = T^T (x - y + (1 + m H) f g / |g|^2)

   It is accepted where it converges to a root no farther than the seed; elsewhere (kinks, the rim) the seed stays.

The topology is found without gradient. By the implicit function theorem the zero set moves by -df(y) / |g| along its normal, so

    dd(x) = df(y) / |g(y)|,   df(y) = sum over taps of w_ijk(y) dV_ijk

which is what reverse mode gives. |grad d| = 1 as of any distance, to second order when measured by central differences away
from the medial axis; the zero set of d lies within second order of that of f (tests hold the numbers).
"""

import torch
import warp as wp
from torch import Tensor, nn

from dvc.errors import UserError
from dvc.records import SdfGrid
from dvc.warp_op import scratch, warp_op
from geometry.sdf_grid import grid_hessian, grid_nodes, grid_sample, require_grid, sample_sdf

ROUNDS = 3  # of the six sweeps
ROOT_STEPS = wp.constant(8)  # Newton steps to the root on a grid edge's crossing
STATIONARY_STEPS = wp.constant(12)  # Newton steps to the closest point
LARGEST_STEP = wp.constant(2.0)  # cells
LEAST_CURVATURE = wp.constant(1.0e-4)  # determinant below which the minimum is not sharp
CONVERGED = wp.constant(1.0e-3)  # cells, the last step of an accepted solve
AT_ROOT = wp.constant(2.0e-4)  # cells, distance |f| / |g| of an accepted solve to the zero set
UNKNOWN = wp.constant(1.0e8)  # cells, a coordinate of "no seed"


@wp.func
def inside_box(u: wp.vec3, values: wp.array4d(dtype=float)):
    last = wp.vec3(float(values.shape[1] - 1), float(values.shape[2] - 1), float(values.shape[3] - 1))
    return wp.min(wp.max(u, wp.vec3()), last)


@wp.func
def crossing(values: wp.array4d(dtype=float), w: int, x: wp.vec3, v: float, toward: wp.vec3, other: float):
    """Root of the interpolant on the grid edge from x (value v) along `toward` (value `other` there), by bisected Newton."""
    low = float(0.0)
    high = float(1.0)
    t = v / (v - other)
    for _step in range(ROOT_STEPS):
        s = grid_sample(values, w, x + t * toward, 1)
        if (s[0] > 0.0) == (v > 0.0):
            low = t
        else:
            high = t
        slope = s[1] * toward[0] + s[2] * toward[1] + s[3] * toward[2]
        next = low - 1.0
        if slope != 0.0:
            next = t - s[0] / slope
        if next <= low or next >= high:
            next = 0.5 * (low + high)
        t = next
    return x + t * toward


@wp.kernel(enable_backward=False)
def find_seeds(values: wp.array4d(dtype=float), seeds: wp.array4d(dtype=wp.vec3)):
    """For a node beside a change of sign, the nearest root on its grid edges, in units of the grid."""
    w, i, j, k = wp.tid()
    v = values[w, i, j, k]
    x = wp.vec3(float(i), float(j), float(k))
    best = wp.vec3(UNKNOWN, UNKNOWN, UNKNOWN)
    if v == 0.0:
        best = x
    else:
        for axis in range(3):
            for end in range(2):
                toward = wp.vec3()
                toward[axis] = float(2 * end - 1)
                a = i + int(toward[0])
                b = j + int(toward[1])
                c = k + int(toward[2])
                inner = a >= 0 and b >= 0 and c >= 0
                if inner and a < values.shape[1] and b < values.shape[2] and c < values.shape[3]:
                    other = values[w, a, b, c]
                    if (other > 0.0) != (v > 0.0) and other != 0.0:
                        y = crossing(values, w, x, v, toward, other)
                        if wp.length_sq(y - x) < wp.length_sq(best - x):
                            best = y
    seeds[w, i, j, k] = best


@wp.kernel(enable_backward=False)
def sweep(axis: int, forward: int, seeds: wp.array4d(dtype=wp.vec3)):
    """Hand seeds along the lines of one axis in one direction, in place: a line belongs to one thread."""
    w, a, b = wp.tid()
    count = seeds.shape[1 + axis]
    for step in range(1, count):
        n = wp.where(forward == 1, step, count - 1 - step)
        m = wp.where(forward == 1, n - 1, n + 1)
        i = wp.where(axis == 0, n, a)
        j = wp.where(axis == 1, n, wp.where(axis == 0, a, b))
        k = wp.where(axis == 2, n, b)
        x = wp.vec3(float(i), float(j), float(k))
        given = seeds[w, wp.where(axis == 0, m, i), wp.where(axis == 1, m, j), wp.where(axis == 2, m, k)]
        if wp.length_sq(given - x) < wp.length_sq(seeds[w, i, j, k] - x):
            seeds[w, i, j, k] = given


@wp.func
def stationary_step(x: wp.vec3, y: wp.vec3, value: float, g: wp.vec3, hessian: wp.mat33):
    """One Newton step of y: to the linearised zero set, and along it to where x - y is normal to it."""
    square = wp.dot(g, g)
    to_root = g * (-value / square)
    multiplier = wp.dot(x - y, g) / square
    axis = wp.vec3(0.0, 0.0, 1.0)
    if g[2] * g[2] > 0.5 * square:
        axis = wp.vec3(1.0, 0.0, 0.0)
    t = wp.normalize(wp.cross(g, axis))
    b = wp.normalize(wp.cross(g, t))
    curved = wp.identity(n=3, dtype=float) + multiplier * hessian
    ct = curved * t
    cb = curved * b
    tt = wp.dot(t, ct)
    tb = wp.dot(t, cb)
    bb = wp.dot(b, cb)
    p = wp.dot(t, x - y) - wp.dot(ct, to_root)
    q = wp.dot(b, x - y) - wp.dot(cb, to_root)
    determinant = tt * bb - tb * tb
    if determinant > LEAST_CURVATURE and tt + bb > 0.0:
        return to_root + t * ((bb * p - tb * q) / determinant) + b * ((tt * q - tb * p) / determinant)
    return to_root + 0.5 * (t * wp.dot(t, x - y) + b * wp.dot(b, x - y))  # no minimum near: downhill


@wp.func
def closest_root(values: wp.array4d(dtype=float), w: int, x: wp.vec3, seed: wp.vec3):
    """The closest point of the zero set to x, from a seed on it."""
    y = inside_box(seed, values)
    moved = float(1.0)
    s = grid_sample(values, w, y, 1)
    for _step in range(STATIONARY_STEPS):
        g = wp.vec3(s[1], s[2], s[3])
        if moved > 0.1 * CONVERGED and wp.dot(g, g) > 1.0e-20:
            step = stationary_step(x, y, s[0], g, grid_hessian(values, w, y, 1))
            size = wp.length(step)
            if size > LARGEST_STEP:
                step = step * (LARGEST_STEP / size)
            y = inside_box(y + step, values)
            moved = wp.min(size, LARGEST_STEP)
            s = grid_sample(values, w, y, 1)
    slope = wp.length(wp.vec3(s[1], s[2], s[3]))
    rooted = wp.abs(s[0]) <= AT_ROOT * slope and slope > 1.0e-10
    if moved <= CONVERGED and rooted and wp.length(y - x) <= wp.length(seed - x) + AT_ROOT:
        return y
    return seed


@wp.kernel(enable_backward=False)
def refine_slab(
    slab: wp.array(dtype=wp.vec2i),
    seeds: wp.array3d(dtype=wp.vec3),
    values: wp.array4d(dtype=float),
    closest: wp.array3d(dtype=wp.vec3),
):
    s, j, k = wp.tid()
    x = wp.vec3(float(slab[s][1]), float(j), float(k))
    closest[s, j, k] = closest_root(values, slab[s][0], x, seeds[s, j, k])


@warp_op(threads=None, enable_backward=False)
def seeds_op(values: wp.array4d(dtype=float), *, rounds: int):
    """values (world, nx, ny, nz) -> the nearest known root of each node, in units of the grid."""
    seeds = scratch(values.shape, wp.vec3, zero=False, requires_grad=False)
    wp.launch(find_seeds, values.shape, inputs=[values], outputs=[seeds])
    sizes = values.shape
    lines = ((sizes[2], sizes[3]), (sizes[1], sizes[3]), (sizes[1], sizes[2]))
    for _ in range(rounds):
        for axis in range(3):
            for forward in (1, 0):
                wp.launch(sweep, (sizes[0], *lines[axis]), inputs=[axis, forward], outputs=[seeds])
    return seeds


@warp_op(shared=("values",), threads=None, enable_backward=False, verify=False)
def closest_op(slab: wp.array(dtype=wp.vec2i), seeds: wp.array3d(dtype=wp.vec3), values: wp.array4d(dtype=float)):
    """World and x number of each slab (slab, 2), seeds (slab, ny, nz, 3), values -> closest points (slab, ny, nz, 3)."""
    closest = scratch(seeds.shape, wp.vec3, zero=False, requires_grad=False)
    wp.launch(refine_slab, seeds.shape, inputs=[slab, seeds, values], outputs=[closest])
    return closest


def closest_on_zero_set(grid: SdfGrid) -> Tensor:
    """The nearest point [m] of the zero set to each node, (world, nx, ny, nz, 3). A query: no gradient.

    Raises: UserError for a world whose values have one sign or are all zero, or are not finite.
    """
    require_grid("redistance", grid)
    values = grid.values.detach()
    if not bool(torch.isfinite(values).all()):
        raise UserError("redistance.grid: expected finite values, got NaN or infinity")
    flat = values.flatten(1)
    one_sign = (flat > 0.0).all(dim=1) | (flat < 0.0).all(dim=1) | (flat == 0.0).all(dim=1)
    if bool(one_sign.any()):
        raise UserError(
            f"redistance.grid: expected values of both signs, got one sign in world {int(one_sign.nonzero()[0])}; "
            "remedy: a grid that contains the surface"
        )
    worlds, nx = values.shape[:2]
    # scaled to a slope near one: thresholds are in cells, and tiny or huge fields keep their digits
    values = values / flat.abs().amax(dim=1)[:, None, None, None]
    seeds = seeds_op(values.contiguous(), rounds=ROUNDS)
    order = torch.cat([torch.arange(0, nx, 2), torch.arange(1, nx, 2)]).to(values.device)
    slab = torch.stack(torch.meshgrid(torch.arange(worlds, device=values.device), order, indexing="ij"), -1).reshape(-1, 2)
    parts = closest_op(slab.to(torch.int32).contiguous(), seeds[slab[:, 0], slab[:, 1]].contiguous(), values.contiguous())
    closest = torch.empty_like(seeds)
    closest[slab[:, 0], slab[:, 1]] = parts
    return grid.origin + grid.spacing * closest


def redistance(grid: SdfGrid) -> SdfGrid:
    """The signed distance to the zero set of a field: same grid, same signs, same zero set.

    grid: values (world, nx, ny, nz), any field that is negative inside; its zero set should be resolved, a few cells between
    sheets, and away from the grid's rim (beyond which there is no surface to be near).
    Gradient: to the values, by the implicit function theorem (above). It leaves out changes of topology and of which sheet
        is the nearest; where the field's own gradient at the closest point vanishes (a sheet that just appears), it is zero.
    Raises: UserError for a world whose values have one sign or are all zero, or are not finite.
    """
    with torch.no_grad():
        closest = closest_on_zero_set(grid)
        nodes = grid_nodes(grid.origin, grid.spacing, tuple(grid.values.shape[1:]))  # type: ignore[arg-type]
        distance = torch.linalg.norm(closest.flatten(1, 3) - nodes, dim=-1).reshape(grid.values.shape)
        distance = torch.where(grid.values < 0.0, -distance, distance)
    if not (grid.values.requires_grad and torch.is_grad_enabled()):
        return grid._replace(values=distance)
    at_root, slope = sample_sdf(grid, closest.flatten(1, 3), "cubic")
    size = torch.linalg.norm(slope.detach(), dim=-1)
    least = 1e-6 * grid.values.detach().abs().amax(dim=(1, 2, 3))[:, None] / grid.spacing
    moved = torch.where(size > least, at_root / torch.maximum(size, least).clamp_min(1e-37), torch.zeros_like(at_root))
    moved = (moved - moved.detach()).reshape(distance.shape)
    return grid._replace(values=distance + moved)


class Redistance(nn.Module):
    """Stage: SdfGrid -> SdfGrid of signed distances to the same zero set. Gradient and errors: see `redistance`."""

    def forward(self, grid: SdfGrid) -> SdfGrid:
        return redistance(grid)
