"""The zero set of an SDF grid as a closed triangle mesh, with gradients to the grid's values: manifold dual marching cubes.

A cell has one vertex for each patch of surface in it (`geometry.isosurface_tables`; Nielson 2004, Wenger 2013); each grid edge
whose ends differ in sign gives a quad of the vertices of its four cells, split by the diagonal whose smallest angle is larger.
So the mesh is closed, oriented, and a manifold at every edge and vertex, whatever the values. With c_e the zero of edge e by
linear interpolation, a vertex is

    x = mean of c_e over its patch             (smoothing = 0, and always in cells of several patches)
    x = y - f(y) grad f(y) / |grad f(y)|^2     (otherwise; f the trilinear interpolant)

where y was relaxed: towards the mean of its neighbours along the tangent plane, back to f = 0, and never far out of its cell
(constrained elastic surface nets, Gibson 1998, on the zero set instead of near it). y is found without gradient; the last step,
with gradient, is the implicit function theorem: dx . n = -df / |grad f|, and no motion along the surface.
"""

import torch
from torch import Tensor, nn

from dvc.errors import UserError
from dvc.records import Mesh, SdfGrid
from geometry.isosurface_tables import CORNERS, PatchTables, patch_tables

SMALLEST = 1e-18  # a value nearer to zero counts as zero, and zero as outside; keeps gradients finite
ROOM = 0.25  # how far a vertex may leave its cell [cells]
STEP = 0.7  # share of the way to the mean of the neighbours
STEEP = 0.1  # least |grad f| of a vertex that is projected, as a share of the largest corner value of its cell
ON_SURFACE = 1e-3  # farthest from f = 0 that a relaxed vertex may end up [cells]; otherwise it is the mean of its zeros


def extract_isosurface(grid: SdfGrid, smoothing: int = 10, border: str = "raise") -> list[Mesh]:
    """Closed meshes of {f = 0}, one a world since their faces differ, wound outwards (the field is negative inside).

    Args:
        grid: values [m] (world, nx, ny, nz), origin [m] (3,), spacing [m]. Any continuous field will do.
        smoothing: relaxation steps; 0 leaves every vertex at the mean of its zeros.
        border: where nodes at the rim are inside: "raise", or "close": a node layer of the largest absolute value is added
            around the grid, and the surface closes within half a cell outside it.
    Returns: Mesh(vertices [m] (1, vertex, 3), faces int32 (face, 3)) for each world.
    Gradient: of the vertices to values and origin. With smoothing = 0 it is the derivative of the positions as they are.
        Otherwise it is that of the surface: it has the motion along the normal and leaves out that along the surface
        (a volume's derivative loses a share of second order in the spacing: 0.1 % of a
        ball of 13 cells); in cells of several patches it is the mean's. Left out always:
        changes of topology, and the values of the layer added by "close".
    Raises: UserError for wrong shapes, values that are not finite, a world without a surface, an inside that reaches the rim.
    """
    values = _require_grid(grid, smoothing, border)
    origin = grid.origin.to(values.device)
    if border == "close":
        ring = values.detach().abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(SMALLEST)
        padded = ring.expand(-1, *(n + 2 for n in values.shape[1:])).clone()
        padded[:, 1:-1, 1:-1, 1:-1] = values
        values, origin = padded, origin - grid.spacing
    return [_extract(values[w], origin, grid.spacing, smoothing, w) for w in range(values.shape[0])]


class ExtractIsosurface(nn.Module):
    """Stage of `extract_isosurface`: grid -> list of meshes, one a world."""

    def __init__(self, smoothing: int = 10, border: str = "raise"):
        super().__init__()
        self.smoothing, self.border = smoothing, border

    def forward(self, grid: SdfGrid) -> list[Mesh]:
        return extract_isosurface(grid, self.smoothing, self.border)


def _require_grid(grid: SdfGrid, smoothing: int, border: str) -> Tensor:
    values = grid.values
    if values.ndim != 4 or min(values.shape[1:]) < 2:
        raise UserError(
            f"isosurface.values: expected shape (world, nx, ny, nz) of at least 2 nodes an axis, got {tuple(values.shape)}"
        )
    if grid.origin.shape != (3,) or not grid.spacing > 0.0:
        raise UserError(
            f"isosurface: expected origin of shape (3,) and a positive spacing, got {tuple(grid.origin.shape)}, {grid.spacing}"
        )
    if smoothing < 0 or border not in ("raise", "close"):
        raise UserError(f"isosurface: expected smoothing >= 0 and border 'raise' or 'close', got {smoothing} and {border!r}")
    if not bool(torch.isfinite(values.detach()).all()):
        raise UserError("isosurface.values: expected finite values, got NaN or infinity; remedy: check the field's source")
    return values


def _extract(values: Tensor, origin: Tensor, spacing: float, smoothing: int, world: int) -> Mesh:
    with torch.no_grad():
        inside = values < -SMALLEST
        cells, row, first, vertex_cell, alone = _cell_vertices(inside, world)
        quads, low, axis = _quads(inside, cells, row, first, patch_tables(values.device))
    mean = _mean_of_zeros(values, quads, low, axis, len(vertex_cell))
    units = mean
    if smoothing > 0:
        base = _nodes_of(vertex_cell, tuple(n - 1 for n in values.shape))
        with torch.no_grad():
            relaxed, good = _relax(values.detach(), mean.detach(), base, quads, alone, smoothing)
        field, slope = _trilinear(values, relaxed)
        slope = slope.detach()
        steep = (slope * slope).sum(dim=1, keepdim=True).clamp_min(STEEP * STEEP)
        units = torch.where(good[:, None], relaxed - field[:, None] * slope / steep, mean)
    with torch.no_grad():
        start_inside = inside.reshape(-1)[low]
        points = units.detach()
        faces = _split(points, torch.where(start_inside[:, None], quads, quads.flip(1)))
    return Mesh((origin + spacing * units)[None], faces)


def _cell_vertices(inside: Tensor, world: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Each cell's place among the crossed, and of these: table row, first vertex; of vertices: cell, is it alone."""
    rim = torch.zeros((), dtype=torch.bool, device=inside.device)
    for a in range(3):
        rim = rim | inside.select(a, 0).any() | inside.select(a, -1).any()
    if bool(rim):
        raise UserError(
            f"isosurface of world {world}: expected an inside that ends before the grid's rim, got nodes of the rim inside; "
            "remedy: a larger grid, or border='close'"
        )
    bits = inside.to(torch.uint8)
    for a in range(3):  # bit c of a cell's case, c = x + 2 y + 4 z
        bits = bits.narrow(a, 0, bits.shape[a] - 1) | (bits.narrow(a, 1, bits.shape[a] - 1) << (1 << a))
    shape = bits.shape
    case = bits.reshape(-1)
    crossed = ((case != 0) & (case != 255)).nonzero()[:, 0]
    if len(crossed) == 0:
        raise UserError(
            f"isosurface of world {world}: expected negative and positive values, got no change of sign; "
            "remedy: a finer grid or another field"
        )
    tables = patch_tables(inside.device)
    row = case[crossed].long()
    face = tables.double_face[row]
    doubtful = (face >= 0).nonzero()[:, 0]
    if len(doubtful):
        side = face[doubtful]
        strides = torch.tensor([shape[1] * shape[2], shape[2], 1], device=inside.device)
        # the rim is outside: a cell whose face is double has a neighbour there
        neighbour = crossed[doubtful] + strides[side >> 1] * (2 * (side & 1) - 1)
        turned = tables.double_face[case[neighbour].long()] == (side ^ 1)
        row[doubtful] += 256 * turned.long()
    count = tables.patches[row]
    first = torch.cumsum(count, 0) - count
    cells = torch.full((case.numel(),), -1, dtype=torch.int32, device=inside.device)
    cells[crossed] = torch.arange(len(crossed), dtype=torch.int32, device=inside.device)
    return cells, row, first, crossed.repeat_interleave(count), (count == 1).repeat_interleave(count)


def _quads(inside: Tensor, cells: Tensor, row: Tensor, first: Tensor, tables: PatchTables) -> tuple[Tensor, Tensor, Tensor]:
    """Vertices (quad, 4) around each crossed edge, counter-clockwise seen from its far end; its near node (flat); its axis."""
    shape = inside.shape
    cell_strides = ((shape[1] - 1) * (shape[2] - 1), shape[2] - 1, 1)
    quads, low, axes = [], [], []
    for a in range(3):
        b, c = (a + 1) % 3, (a + 2) % 3
        count = shape[a] - 1
        crossed = inside.narrow(a, 0, count) != inside.narrow(a, 1, count)
        flat = crossed.reshape(-1).nonzero()[:, 0]
        node = _nodes_of(flat, tuple(crossed.shape))
        corner = node[:, 0] * cell_strides[0] + node[:, 1] * cell_strides[1] + node[:, 2] * cell_strides[2]
        around = []
        for m, n in ((1, 1), (0, 1), (0, 0), (1, 0)):  # the cell reaches back by m and n: there the edge has that position
            at = cells[corner - m * cell_strides[b] - n * cell_strides[c]].long()
            around.append(first[at] + tables.patch[row[at], 4 * a + m + 2 * n])
        quads.append(torch.stack(around, dim=1))
        low.append((node[:, 0] * shape[1] + node[:, 1]) * shape[2] + node[:, 2])
        axes.append(torch.full_like(flat, a))
    return torch.cat(quads), torch.cat(low), torch.cat(axes)


def _nodes_of(flat: Tensor, shape: tuple[int, ...]) -> Tensor:
    return torch.stack([flat // (shape[1] * shape[2]), flat // shape[2] % shape[1], flat % shape[2]], dim=1)


def _mean_of_zeros(values: Tensor, quads: Tensor, low: Tensor, axis: Tensor, count: int) -> Tensor:
    """Mean of the zeros of each vertex's patch [cells], (vertex, 3), with gradient."""
    strides = torch.tensor([values.shape[1] * values.shape[2], values.shape[2], 1], device=values.device)
    flat = values.reshape(-1)
    near, far = flat[low], flat[low + strides[axis]]
    near_inside = near < -SMALLEST
    a = torch.where(near_inside, -near, near).clamp_min(0.0)
    b = torch.where(near_inside, far, -far).clamp_min(0.0)
    scale = torch.maximum(a, b).detach()  # one of them is inside, so above SMALLEST
    a, b = a / scale, b / scale
    fraction = a / (a + b)
    along = nn.functional.one_hot(axis, 3).to(values.dtype)
    zeros = _nodes_of(low, tuple(values.shape)) + fraction[:, None] * along
    number = torch.bincount(quads.reshape(-1), minlength=count).to(values.dtype)
    total = torch.zeros(count, 3, dtype=values.dtype, device=values.device)
    for corner in range(4):
        total = total.index_add(0, quads[:, corner], zeros)
    return total / number[:, None]


def _trilinear(values: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """Value (vertex,) and gradient (vertex, 3) of the interpolant at x [cells], in units of the cell's largest value."""
    _, ny, nz = values.shape
    limit = torch.tensor([n - 2 for n in values.shape], dtype=x.dtype, device=x.device)
    base = torch.minimum(x.floor().clamp_min(0.0), limit)
    u, v, w = (x - base).unbind(dim=1)
    low = (base.long() * torch.tensor([ny * nz, nz, 1], device=x.device)).sum(dim=1)
    offsets = (CORNERS[:, 0] * ny + CORNERS[:, 1]) * nz + CORNERS[:, 2]
    corners = values.reshape(-1)[torch.from_numpy(offsets).to(x.device)[:, None] + low]
    corners = corners / corners.detach().abs().amax(dim=0).clamp_min(SMALLEST)
    slope_u = corners[1::2] - corners[0::2]
    at_u = corners[0::2] + u * slope_u
    slope_v = at_u[1::2] - at_u[0::2]
    at_uv = at_u[0::2] + v * slope_v
    slope_w = at_uv[1] - at_uv[0]
    su = slope_u[0::2] + v * (slope_u[1::2] - slope_u[0::2])
    slope = torch.stack([su[0] + w * (su[1] - su[0]), slope_v[0] + w * (slope_v[1] - slope_v[0]), slope_w], dim=1)
    return at_uv[0] + w * slope_w, slope


def _relax(values: Tensor, mean: Tensor, base: Tensor, quads: Tensor, alone: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Places (vertex, 3) [cells] near f = 0 that are spread out evenly, and which of them are fit to be projected."""
    number = torch.bincount(quads.reshape(-1), minlength=len(mean)).to(mean.dtype)[:, None] * 2.0
    low, high = base - ROOM, base + (1.0 + ROOM)
    free = alone[:, None]
    x = mean
    for step in range(steps + 3):  # the last three only project
        value, slope = _trilinear(values, x)
        square = (slope * slope).sum(dim=1, keepdim=True).clamp_min(STEEP * STEEP)
        moved = x - value[:, None] * slope / square
        if step < steps:
            around = x[quads]
            sides = around.roll(1, dims=1) + around.roll(-1, dims=1)  # along each quad: each neighbour comes twice
            pull = torch.zeros_like(x).index_add_(0, quads.reshape(-1), sides.reshape(-1, 3)) / number - x
            moved = moved + STEP * (pull - (pull * slope).sum(dim=1, keepdim=True) * slope / square)
        x = torch.where(free, torch.minimum(torch.maximum(moved, low), high), mean)
    value, slope = _trilinear(values, x)
    square = (slope * slope).sum(dim=1)
    good = alone & (square > STEEP * STEEP) & (value.abs() < ON_SURFACE * square.sqrt())
    return torch.where(good[:, None], x, mean), good


def _split(points: Tensor, quads: Tensor) -> Tensor:
    """Two triangles a quad, int32: by the diagonal whose smallest angle is larger, and that does not fold the quad."""
    p = points[quads]
    cut = [_worst(p, order) for order in ((0, 1, 2, 0, 2, 3), (1, 2, 3, 1, 3, 0))]
    first = (cut[0] <= cut[1])[:, None]
    one = torch.where(first, quads[:, [0, 1, 2]], quads[:, [1, 2, 3]])
    two = torch.where(first, quads[:, [0, 2, 3]], quads[:, [1, 3, 0]])
    return torch.stack([one, two], dim=1).reshape(-1, 3).int()


def _worst(p: Tensor, order: tuple[int, ...]) -> Tensor:
    """Largest cosine in two triangles of a quad, more where they fold."""
    normals, cosines = [], []
    for triangle in (order[:3], order[3:]):
        a, b, c = (p[:, i] for i in triangle)
        sides = [nn.functional.normalize(v, dim=1, eps=1e-12) for v in (b - a, c - b, a - c)]
        cosines += [-(sides[i] * sides[i - 1]).sum(dim=1) for i in range(3)]
        normals.append(torch.linalg.cross(b - a, c - a))
    fold = (normals[0] * normals[1]).sum(dim=1) <= 0.0
    return torch.stack(cosines).amax(dim=0) + 2.0 * fold
