"""A triangle mesh to a grid of signed distances: exact distance, sign by the generalised winding number.

    s(x) = |x - y(x)| (w(x) > 1/2 ? -1 : 1),   y the mesh's closest point (geometry.closest_points), w (geometry.grid_winding)

The sign is right for meshes with holes, self-intersections and flipped or doubled faces as far as the winding number is. Across
an opening it changes where w = 1/2, and there s jumps, since the opening has no surface: fill holes, or redistance
(`geometry.redistance`), where the field must be continuous.
"""

import torch
from torch import Tensor, nn

from dvc.errors import UserError
from dvc.records import Mesh, SdfGrid
from geometry.closest_points import MeshTrees, attach_distance, require_found, require_mesh, search_lines_op
from geometry.grid_winding import grid_winding_number
from geometry.sdf_grid import grid_nodes

INSIDE = 0.5  # winding number above which a point is inside


def grid_around(mesh: Mesh, resolution: int = 128, margin: float = 0.05) -> tuple[Tensor, float, tuple[int, int, int]]:
    """Origin [m] (3,), spacing [m] and shape of a cubic grid around all worlds of a mesh.

    resolution: nodes an axis; margin: free space on each side, as a share of the longest side.
    Raises: UserError for fewer than 2 nodes, a negative margin, a mesh without extent.
    """
    require_mesh("grid_around", mesh)
    if resolution < 2 or margin < 0.0:
        raise UserError(f"grid_around: expected resolution >= 2 and margin >= 0, got {resolution} and {margin}")
    points = mesh.vertices.detach().reshape(-1, 3)
    low, high = points.amin(dim=0), points.amax(dim=0)
    side = float((high - low).max()) * (1.0 + 2.0 * margin)
    if side <= 0.0:
        raise UserError("grid_around.mesh: expected a mesh with an extent, got one point; remedy: give origin and spacing")
    return 0.5 * (low + high) - 0.5 * side, side / (resolution - 1), (resolution, resolution, resolution)


def mesh_to_sdf(mesh: Mesh, origin: Tensor, spacing: float, shape: tuple[int, int, int], accuracy: float = 3.0) -> SdfGrid:
    """Signed distances to a mesh at the nodes `origin + spacing (i, j, k)`, negative inside.

    Args:
        mesh: vertices [m] (world, vertex, 3), faces (face, 3), counter-clockwise from outside; it need not be closed.
        origin, spacing, shape: [m] (3,), [m], nodes an axis; `grid_around` suggests them.
        accuracy: of the winding number near holes, see `geometry.winding_number`.
    Gradient: of the values to the vertices, by the envelope theorem. It leaves out changes of the nearest face (where two
        faces are equally near the value has a kink), and of the sign; origin and spacing are constants.
    Raises: UserError for wrong shapes, vertices that are not finite, a spacing that is not positive.
    """
    require_mesh("mesh_to_sdf", mesh)
    shape = tuple(int(n) for n in shape)  # type: ignore[assignment]
    if origin.shape != (3,) or len(shape) != 3 or min(shape) < 2:
        raise UserError(
            f"mesh_to_sdf: expected origin of shape (3,) and three axes of at least 2 nodes, got {tuple(origin.shape)}, {shape}"
        )
    if not spacing > 0.0:
        raise UserError(f"mesh_to_sdf.spacing: expected a positive length, got {spacing}")
    worlds, device = mesh.vertices.shape[0], mesh.vertices.device
    with torch.no_grad():
        origin = origin.detach().to(device=device, dtype=torch.float32)
        face, distance = _search(MeshTrees(mesh), origin, float(spacing), shape)
        winding = grid_winding_number(mesh, origin, spacing, shape, accuracy)
        sign = torch.where(winding > INSIDE, -1.0, 1.0)
    if not (mesh.vertices.requires_grad and torch.is_grad_enabled()):
        return SdfGrid(distance * sign, origin, float(spacing))
    nodes = grid_nodes(origin, float(spacing), shape).expand(worlds, -1, 3)
    flat = face.reshape(worlds, -1), sign.reshape(worlds, -1)
    values, _ = attach_distance(mesh.vertices, nodes, mesh.faces.int(), *flat)
    return SdfGrid(values.reshape(worlds, *shape), origin, float(spacing))


def _search(trees: MeshTrees, origin: Tensor, spacing: float, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """Nearest faces and distances (world, nx, ny, nz). Slabs of even and odd x go to different threads: equal work."""
    order = torch.cat([torch.arange(0, shape[0], 2), torch.arange(1, shape[0], 2)]).to(origin.device)
    corner = origin.expand(shape[0], 3).clone()
    corner[:, 0] = origin[0] + spacing * order
    step = torch.full((1,), spacing, device=origin.device)
    faces, distances = [], []
    for world in range(trees.worlds):
        ids = trees.ids[world].expand(shape[0]).contiguous()
        face, distance = search_lines_op(ids, corner, step, trees.slivers, lines=shape[1], nodes=shape[2])
        faces.append(torch.empty_like(face).index_copy_(0, order, require_found("mesh_to_sdf", face)))
        distances.append(torch.empty_like(distance).index_copy_(0, order, distance))
    return torch.stack(faces), torch.stack(distances)


class MeshToSdf(nn.Module):
    """Stage: mesh -> SdfGrid on a fixed grid.

    Arguments: origin [m], three numbers; spacing [m]; shape, nodes an axis.
    Forward: mesh: Mesh -> SdfGrid with values (world, nx, ny, nz). Gradient and errors: see `mesh_to_sdf`.
    """

    origin: Tensor

    def __init__(self, origin: tuple[float, float, float], spacing: float, shape: tuple[int, int, int]):
        super().__init__()
        self.register_buffer("origin", torch.tensor([float(x) for x in origin]))
        self.spacing, self.shape = float(spacing), tuple(int(n) for n in shape)

    def forward(self, mesh: Mesh) -> SdfGrid:
        return mesh_to_sdf(mesh, self.origin, self.spacing, self.shape)  # type: ignore[arg-type]
