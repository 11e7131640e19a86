"""A mesh of free vertices is its vertices, whatever the smoothness, and stays it when refined."""

import pytest
import torch

from dvc.errors import UserError
from geometry.free_mesh import FreeMesh, free_sphere
from geometry.mesh import box_mesh
from geometry.mesh_topology import mesh_topology


@pytest.mark.parametrize("smoothness", [0.0, 19.0])
def test_the_surface_is_kept(smoothness: float) -> None:
    vertices, faces = box_mesh()
    mesh = FreeMesh(vertices, faces, smoothness)
    assert torch.allclose(mesh().vertices[0], torch.from_numpy(vertices), atol=1e-5)
    finer = mesh.refined(smoothness)()
    assert finer.faces.shape == (48, 3) and mesh_topology(finer.faces).border_count == 0
    assert torch.allclose(finer.vertices[0, :8], torch.from_numpy(vertices), atol=1e-5)
    mesh.set_vertices(2.0 * mesh().vertices.detach())
    assert torch.allclose(mesh().vertices[0], 2.0 * torch.from_numpy(vertices), atol=1e-5)


def test_the_gradient_is_that_of_the_solve() -> None:
    mesh = FreeMesh(*box_mesh(), 5.0)
    weights = torch.randn(1, 8, 3, generator=torch.Generator().manual_seed(0))
    (mesh().vertices * weights).sum().backward()
    dense = torch.linalg.inv(torch.from_numpy(mesh.steps.matrix.toarray()).float())
    torch.testing.assert_close(mesh.u.grad, dense @ weights, rtol=1e-4, atol=1e-5)


def test_a_sphere() -> None:
    vertices = free_sphere([1.0, 2.0, 3.0], 0.5, 3)().vertices[0]
    distance = (vertices - torch.tensor([1.0, 2.0, 3.0])).norm(dim=1)
    torch.testing.assert_close(distance, torch.full_like(distance, 0.5), rtol=1e-4, atol=0.0)
    with pytest.raises(UserError, match=r"free_sphere\.radius: expected a positive number, got 0"):
        free_sphere([0.0, 0.0, 0.0], 0.0, 3)
