"""A new triangulation of a closed surface, even and free of self-intersections, by way of a grid of signed distances.

mesh -> signed distances at the nodes of a grid around it (`geometry.mesh_to_sdf`) -> dual marching cubes, relaxed along the
surface (`geometry.isosurface`). Triangles get about a cell's size; what is thinner than a cell is lost; folded and overlapping
parts become one surface, by the winding number.
"""

import torch

from dvc.errors import Unsupported
from dvc.records import Mesh
from geometry.isosurface import extract_isosurface
from geometry.mesh_to_sdf import grid_around, mesh_to_sdf


@torch.no_grad()
def remesh_by_grid(mesh: Mesh, resolution: int, margin: float = 0.1, smoothing: int = 10) -> Mesh:
    """The surface of one world's mesh, triangulated anew; vertices [m] (1, vertex, 3).

    resolution: nodes an axis of the cubic grid; margin: free space on each side, as a share of the longest side; smoothing:
    relaxation steps of the vertices.
    Gradient: none, the result is a constant. Raises: Unsupported for several worlds, whose faces would differ; UserError for a
    resolution below 2, and where nothing is left of the surface.
    """
    if mesh.vertices.shape[0] != 1:
        raise Unsupported(
            f"remesh_by_grid: expected one world, vertices (1, vertex, 3), got {tuple(mesh.vertices.shape)}; "
            "remedy: call it for each world"
        )
    return extract_isosurface(mesh_to_sdf(mesh, *grid_around(mesh, resolution, margin)), smoothing)[0]
