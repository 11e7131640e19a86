"""The unknowns of a grid: what they are, their gradient, distances restored between steps."""

import numpy as np
import pytest
import torch

from dvc.errors import Unsupported, UserError
from dvc.gradient_check import gradient_check
from dvc.records import SdfGrid
from geometry.free_grid import FreeGrid
from geometry.large_steps import AdamUniform
from geometry.mesh_topology import mesh_topology
from geometry.sdf_grid import grid_nodes


def ball(nodes: int = 17, radius: float = 0.6) -> SdfGrid:
    origin, spacing = torch.tensor([-1.0, -1.0, -1.0]), 2.0 / (nodes - 1)
    distance = grid_nodes(origin, spacing, (nodes,) * 3).norm(dim=-1) - radius
    return SdfGrid(distance.reshape(1, nodes, nodes, nodes), origin, spacing)


def test_values_solve_the_grid_s_equation():
    """(1 + lambda L) values = u with the Laplacian written out, node by node."""
    n, smoothness = 4, 3.0
    shape = FreeGrid(ball(n), smoothness)
    index = np.arange(n**3).reshape(n, n, n)
    matrix = np.eye(n**3)
    for axis in range(3):
        low, high = (np.take(index, range(k, k + n - 1), axis).ravel() for k in (0, 1))
        for i, j in zip(low, high):
            matrix[[i, j], [i, j]] += smoothness
            matrix[[i, j], [j, i]] -= smoothness
    values = np.linalg.solve(matrix, shape.u.detach().numpy().ravel())
    assert np.allclose(shape.grid().values.detach().numpy().ravel(), values, atol=1e-5)
    assert np.allclose(values, ball(n).values.numpy().ravel(), atol=1e-5)


def test_the_gradient_reaches_the_unknowns():
    shape = FreeGrid(ball(), 2.0)
    rows = gradient_check(lambda u: torch.func.functional_call(_Values(shape), {"shape.u": u}, ()), [shape.u], ["u"])
    assert all(row.passed and not row.note for row in rows), rows


class _Values(torch.nn.Module):
    def __init__(self, shape: FreeGrid):
        super().__init__()
        self.shape = shape

    def forward(self) -> torch.Tensor:
        return self.shape.grid().values


def test_a_ball_grows_by_descent_on_its_volume():
    """The mesh's volume is driven to that of another ball, with distances restored on the way."""
    shape, goal = FreeGrid(ball(), 2.0), 4.0 / 3.0 * np.pi * 0.7**3
    optimizer = AdamUniform([shape.u], lr=0.02)
    for k in range(60):
        mesh = shape()
        a, b, c = (mesh.vertices[0, mesh.faces[:, i].long()] for i in range(3))
        volume = (a * torch.linalg.cross(b, c)).sum() / 6.0
        optimizer.zero_grad()
        (volume - goal).square().backward()
        optimizer.step()
        if k % 10 == 9:
            shape.redistance()
        optimizer.param_groups[0]["lr"] *= 0.95
    radii = shape().vertices[0].norm(dim=-1)
    assert float(volume.detach()) == pytest.approx(goal, rel=0.02)
    assert float(radii.mean()) == pytest.approx(0.7, abs=0.02) and float(radii.std()) < 0.02


def test_distances_are_restored_where_the_surface_is():
    grid = ball()
    shape = FreeGrid(grid._replace(values=3.0 * grid.values), 2.0)
    before = shape().vertices[0].norm(dim=-1)
    shape.redistance()
    assert torch.allclose(shape.grid().values, grid.values, atol=0.02)
    assert float(shape().vertices[0].norm(dim=-1).mean()) == pytest.approx(float(before.mean()), abs=0.01)


def test_a_surface_at_the_rim_closes():
    shape = FreeGrid(ball(radius=1.2), 0.0)
    assert mesh_topology(shape().faces).border_count == 0


def test_what_it_refuses():
    grid = ball(5)
    with pytest.raises(Unsupported, match="one world"):
        FreeGrid(grid._replace(values=grid.values.expand(2, -1, -1, -1)))
    with pytest.raises(UserError, match="smoothness"):
        FreeGrid(grid, -1.0)
