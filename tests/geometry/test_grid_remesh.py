"""A new triangulation: the same surface, closed, even, without folds."""

import pytest
import torch

from dvc.errors import Unsupported
from dvc.records import Mesh
from geometry.grid_remesh import remesh_by_grid
from geometry.mesh import icosphere
from geometry.mesh_quality import angle_statistics
from geometry.mesh_topology import mesh_topology
from geometry.self_intersections import self_intersection_count


def ball(center: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Mesh:
    vertices, faces = icosphere(4)
    return Mesh(torch.from_numpy(vertices)[None] + torch.tensor(center), torch.from_numpy(faces).int())


def test_a_squeezed_triangulation_of_a_ball_becomes_even():
    mesh = ball()
    z = mesh.vertices[..., 2:] ** 3  # most vertices crowd at the equator; the surface is the ball
    ring = mesh.vertices[..., :2] / mesh.vertices[..., :2].norm(dim=-1, keepdim=True).clamp_min(1e-6)
    crowded = Mesh(torch.cat([ring * (1.0 - z * z).clamp_min(0.0).sqrt(), z], dim=-1), mesh.faces)
    new = remesh_by_grid(crowded, 32)
    assert torch.allclose(new.vertices.norm(dim=-1), torch.tensor(1.0), atol=0.02)
    assert mesh_topology(new.faces).border_count == 0 and not new.vertices.requires_grad
    assert float(angle_statistics(new).minimum) > 2.0 * float(angle_statistics(crowded).minimum)


def test_two_balls_that_overlap_become_one_surface():
    first, second = ball(), ball((0.9, 0.0, 0.0))
    both = Mesh(
        torch.cat([first.vertices, second.vertices], dim=1), torch.cat([first.faces, second.faces + first.vertices.shape[1]])
    )
    assert int(self_intersection_count(both)[0]) > 0
    new = remesh_by_grid(both, 40)
    assert int(self_intersection_count(new)[0]) == 0 and mesh_topology(new.faces).border_count == 0
    edges = mesh_topology(new.faces).edges.shape[0]
    assert new.vertices.shape[1] - edges + new.faces.shape[0] == 2  # Euler's number of one ball


def test_worlds_are_refused():
    mesh = ball()
    with pytest.raises(Unsupported, match="one world"):
        remesh_by_grid(Mesh(mesh.vertices.expand(2, -1, -1), mesh.faces), 16)
