import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dvc import data
from dvc.errors import UserError
from dvc.gradient_check import format_table, gradient_check
from dvc.records import Mesh
from geometry.mesh import box_mesh, icosphere
from geometry.mesh_io import read_mesh
from geometry.mesh_to_sdf import MeshToSdf, grid_around, mesh_to_sdf
from geometry.sdf_grid import grid_nodes
from geometry.winding_number import winding_number_by_faces


def mesh_of(vertices, faces):
    return Mesh(torch.as_tensor(np.asarray(vertices, np.float32))[None], torch.as_tensor(np.asarray(faces, np.int32)))


def test_box_is_exact():
    grid = mesh_to_sdf(mesh_of(*box_mesh()), torch.tensor([-1.62, -1.62, -1.62]), 0.27, (13, 13, 13))
    x = grid_nodes(grid.origin, grid.spacing, (13, 13, 13)).abs() - 1.0
    expected = x.clamp_min(0.0).norm(dim=-1) + x.amax(dim=-1).clamp_max(0.0)
    assert torch.allclose(grid.values.reshape(1, -1), expected, atol=3e-6)


def test_sphere_converges_at_second_order():
    errors = []
    for subdivisions in (2, 3):
        mesh = mesh_of(*icosphere(subdivisions))
        grid = mesh_to_sdf(mesh, *grid_around(mesh, 16, 0.2))
        true = grid_nodes(grid.origin, grid.spacing, (16, 16, 16)).norm(dim=-1) - 1.0
        errors.append(float((grid.values.reshape(1, -1) - true).abs().max()))
    assert errors[1] < errors[0] / 3.5


def test_gradient_to_the_vertices_of_two_worlds():
    vertices, faces = icosphere(1)
    generator = torch.Generator().manual_seed(0)
    start = torch.tensor(vertices)[None] * torch.tensor([1.0, 0.8])[:, None, None]
    start = start + 0.05 * torch.randn(start.shape, generator=generator)
    origin = torch.tensor([-1.31, -1.27, -1.33])

    def run(leaf):
        values = mesh_to_sdf(Mesh(leaf, torch.tensor(faces)), origin, 0.37, (8, 8, 8)).values
        return values * (values > -0.3)  # deep inside are kinks

    rows = gradient_check(run, (start.requires_grad_(),), ("vertices",), steps=(3e-3, 1e-3, 3e-4))
    assert all(row.passed for row in rows), format_table(rows)
    assert not any(row.note for row in rows), format_table(rows)


def test_moving_a_mesh_moves_its_distances():
    """Along x, the sum of gradients is minus the field's slope: -1 straight ahead of a box."""
    mesh = mesh_of(*box_mesh())
    leaf = mesh.vertices.requires_grad_()
    grid = mesh_to_sdf(Mesh(leaf, mesh.faces), torch.tensor([1.5, -0.13, -0.11]), 0.2, (2, 2, 2))
    (gradient,) = torch.autograd.grad(grid.values.sum(), leaf)
    assert gradient.sum(dim=(0, 1)).tolist() == pytest.approx([-8.0, 0.0, 0.0], abs=1e-5)


def test_opening_keeps_its_sign():
    """A box without its lid: inside stays inside, and its mouth is where the winding number is a half."""
    vertices, faces = box_mesh()
    mesh = mesh_of(vertices, [f for f in faces if not (vertices[f][:, 2] > 0).all()])
    grid = mesh_to_sdf(mesh, torch.tensor([0.01, 0.02, -1.53]), 0.1, (2, 2, 30))
    inside = grid.values[0, 0, 0] < 0.0
    nodes = grid_nodes(grid.origin, grid.spacing, (2, 2, 30))
    expected = winding_number_by_faces(mesh, nodes).reshape(2, 2, 30)[0, 0] > 0.5
    assert torch.equal(inside, expected) and 15 < int(inside.sum()) < 25


@pytest.mark.slow
@pytest.mark.data("stanford_bunny", "suzanne")
@pytest.mark.parametrize("name", ["stanford_bunny", "suzanne"])
def test_signs_of_open_scans(name):
    """Against the exact winding number, on a sample: every sign right beyond a hundredth of a cell from the surface."""
    mesh = mesh_of(*read_mesh(data.find(name, download=False)))
    grid = mesh_to_sdf(mesh, *grid_around(mesh, 40))
    nodes = grid_nodes(grid.origin, grid.spacing, (40, 40, 40))
    chosen = torch.randperm(nodes.shape[1], generator=torch.Generator().manual_seed(1))[:120]
    exact = winding_number_by_faces(Mesh(mesh.vertices.double(), mesh.faces), nodes[:, chosen].double())[0]
    values = grid.values.flatten()[chosen]
    clear = (values.abs() > 0.01 * grid.spacing) & ((exact - 0.5).abs() > 2e-3)
    assert int(clear.sum()) > 110
    assert torch.equal(values[clear] < 0.0, exact[clear] > 0.5)
    slope = torch.stack(list(torch.gradient(grid.values[0], spacing=grid.spacing))).norm(dim=0)
    assert float(slope.median()) == pytest.approx(1.0, abs=0.02)


def test_stage_is_the_function():
    mesh = mesh_of(*icosphere(1))
    origin, spacing, shape = grid_around(mesh, 6)
    stage = MeshToSdf(tuple(origin.tolist()), spacing, shape)
    assert torch.equal(stage(mesh).values, mesh_to_sdf(mesh, origin, spacing, shape).values)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda m: mesh_to_sdf(m, torch.zeros(2), 0.1, (4, 4, 4)), "expected origin of shape \\(3,\\)"),
        (lambda m: mesh_to_sdf(m, torch.zeros(3), 0.1, (4, 4, 1)), "three axes of at least 2"),
        (lambda m: mesh_to_sdf(m, torch.zeros(3), 0.0, (4, 4, 4)), "expected a positive length"),
        (lambda m: mesh_to_sdf(m._replace(vertices=m.vertices[0]), torch.zeros(3), 0.1, (4, 4, 4)), "\\(world, vertex, 3\\)"),
        (lambda m: grid_around(m, 1), "expected resolution >= 2"),
        (lambda m: grid_around(m._replace(vertices=0 * m.vertices)), "expected a mesh with an extent"),
    ],
)
def test_errors_are_one_clear_line(call, words):
    with pytest.raises(UserError, match=words) as caught:
        call(mesh_of(*box_mesh()))
    assert "\n" not in str(caught.value)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 1.0, -1.0, 0.5, 1e-7, 1.0000001]), min_size=18, max_size=18),
    st.lists(st.integers(0, 5), min_size=12, max_size=12),
)
def test_degenerate_meshes_never_give_nan(vertices, faces):
    mesh = mesh_of(np.array(vertices).reshape(6, 3), np.array(faces).reshape(4, 3))
    leaf = mesh.vertices.requires_grad_()
    values = mesh_to_sdf(Mesh(leaf, mesh.faces), torch.full((3,), -1.0), 0.5, (5, 5, 5)).values
    values.sum().backward()
    assert bool(torch.isfinite(values).all()) and bool(torch.isfinite(leaf.grad).all())
    plain = mesh_to_sdf(Mesh(leaf.detach(), mesh.faces), torch.full((3,), -1.0), 0.5, (5, 5, 5)).values
    assert torch.allclose(values.detach(), plain, atol=1e-6)
