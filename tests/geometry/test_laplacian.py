import math

import numpy as np
import pytest
import torch

from dvc.errors import UserError
from dvc.gradient_check import certified, format_table, gradient_check
from dvc.records import Mesh
from geometry.laplacian import (
    combinatorial_matrix,
    cotangent_laplacian,
    cotangent_matrix,
    cotangents,
    vertex_areas,
)
from geometry.mesh import icosphere
from geometry.mesh_normals import face_areas


def sphere(subdivisions: int, radius: float = 1.0) -> Mesh:
    vertices, faces = icosphere(subdivisions)
    return Mesh(radius * torch.from_numpy(vertices)[None], torch.from_numpy(faces))


def lumpy() -> Mesh:
    base = sphere(1)
    noise = torch.randn(2, 42, 3, generator=torch.Generator().manual_seed(4))
    return Mesh(base.vertices + 0.1 * noise, base.faces)


def flat_patch() -> tuple[Mesh, torch.Tensor]:
    """An uneven triangulation of a square in a tilted plane, and which vertices lie inside."""
    n = 6
    generator = torch.Generator().manual_seed(0)
    grid = torch.stack(torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij"), -1).reshape(-1, 2).float()
    inside = ((grid > 0) & (grid < n - 1)).all(1)
    grid[inside] += 0.25 * torch.randn(int(inside.sum()), 2, generator=generator)
    plane = torch.tensor([[1.0, 0.2, 0.3], [-0.1, 0.9, 0.5]])
    corner = torch.tensor([[i * n + j for j in range(n - 1)] for i in range(n - 1)]).reshape(-1)
    faces = torch.cat(
        [torch.stack([corner, corner + n, corner + 1], 1), torch.stack([corner + 1, corner + n, corner + n + 1], 1)]
    )
    return Mesh((grid @ plane)[None], faces.int()), inside


def test_equilateral_and_right_corners():
    vertices = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0.5, math.sqrt(0.75), 0]], [[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]])
    faces = torch.tensor([[0, 1, 2]], dtype=torch.int32)
    expected = torch.tensor([[[1 / math.sqrt(3)] * 3], [[0.0, 1.0, 1.0]]])
    assert torch.allclose(cotangents(Mesh(vertices, faces)), expected, atol=1e-6)
    areas = vertex_areas(Mesh(vertices, faces), "voronoi")
    assert torch.allclose(areas[1], torch.tensor([0.25, 0.125, 0.125]))  # the right corner, where both rules agree
    obtuse = torch.tensor([[[0.0, 0, 0], [2, 0, 0], [-1, 1, 0]]])
    assert torch.allclose(vertex_areas(Mesh(obtuse, faces), "voronoi"), torch.tensor([[0.5, 0.25, 0.25]]))


def test_linear_functions_are_harmonic_in_a_plane():
    mesh, inside = flat_patch()
    assert float(cotangent_laplacian(mesh)[:, inside].abs().max()) < 2e-5
    assert float(cotangent_laplacian(mesh, torch.ones(1, 36, 2)).abs().max()) == 0.0


def test_laplacian_of_the_positions_is_the_gradient_of_the_area():
    mesh = lumpy()
    vertices = mesh.vertices.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(face_areas(Mesh(vertices, mesh.faces)).sum(), vertices)
    assert torch.allclose(cotangent_laplacian(mesh), gradient, atol=1e-5)


def test_mean_curvature_of_a_sphere():
    """L x / A = 2 H n: on a sphere of radius 2 the mean curvature is 1/2."""
    for subdivisions in (2, 3, 4):
        mesh = sphere(subdivisions, 2.0)
        flow, areas = cotangent_laplacian(mesh), vertex_areas(mesh, "voronoi")
        curvature = 0.5 * flow.norm(dim=-1) / areas
        assert float((flow * mesh.vertices).sum(-1).min()) > 0.0
        # exact on a sphere: the circumcentric areas are a third of the change of volume along the radius
        assert torch.allclose(curvature, torch.full_like(curvature, 0.5), rtol=2e-4)


@pytest.mark.parametrize("kind", ["barycentric", "voronoi"])
def test_areas_add_up(kind):
    mesh = lumpy()
    areas = vertex_areas(mesh, kind)
    assert float(areas.min()) > 0.0
    assert torch.allclose(areas.sum(1), face_areas(mesh).sum(1), rtol=1e-5)


def test_matrix_and_its_application_agree():
    mesh, values = lumpy(), torch.randn(2, 42, 4, generator=torch.Generator().manual_seed(2))
    applied = cotangent_laplacian(mesh, values)
    for world in range(2):
        matrix = cotangent_matrix(mesh, world)
        assert np.allclose(matrix @ values[world].double().numpy(), applied[world].numpy(), atol=1e-4)
        assert np.linalg.eigvalsh(matrix.toarray())[0] > -1e-6 and abs(matrix - matrix.T).max() == 0.0


def test_combinatorial_matrix():
    matrix = combinatorial_matrix(sphere(1).faces, 42).toarray()
    assert (matrix.sum(1) == 0).all() and (matrix == matrix.T).all()
    assert sorted(set(np.diag(matrix))) == [5.0, 6.0] and matrix.diagonal().sum() == 2 * 120
    assert (np.linalg.eigvalsh(matrix) > -1e-9).all()


@pytest.mark.parametrize(
    "function",
    [cotangents, cotangent_laplacian, vertex_areas, lambda m: vertex_areas(m, "voronoi")],
    ids=["cotangents", "laplacian", "barycentric", "voronoi"],
)
def test_gradient_to_the_vertices(function):
    mesh = lumpy()
    rows = gradient_check(lambda v: function(Mesh(v, mesh.faces)), [mesh.vertices.requires_grad_()], ["vertices"])
    assert certified(rows) and not rows[0].note, format_table(rows)


def test_gradient_to_the_values_and_shared_worlds():
    mesh = lumpy()
    values = torch.randn(1, 42, 3, generator=torch.Generator().manual_seed(3), requires_grad=True)
    rows = gradient_check(
        lambda v, x: cotangent_laplacian(Mesh(v, mesh.faces), x),
        [mesh.vertices.requires_grad_(), values],
        ["vertices", "values"],
    )
    assert certified(rows) and not any(row.note for row in rows), format_table(rows)


def test_wrong_arguments_are_named():
    with pytest.raises(UserError, match=r"expected shape \(world, 42, channel\), got \(1, 41, 3\)"):
        cotangent_laplacian(lumpy(), torch.zeros(1, 41, 3))
    with pytest.raises(UserError, match=r"vertex numbers in 0..40, got 0..41"):
        combinatorial_matrix(sphere(1).faces, 41)
    with pytest.raises(UserError, match="expected 'barycentric' or 'voronoi'"):
        vertex_areas(lumpy(), "cells")
