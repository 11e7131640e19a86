import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dvc import data
from dvc.errors import UserError
from dvc.gradient_check import format_table, gradient_check
from dvc.records import Mesh
from geometry.grid_winding import border_chain, cone_over, grid_winding_number
from geometry.mesh import box_mesh, icosphere
from geometry.mesh_io import read_mesh
from geometry.sdf_grid import grid_nodes
from geometry.winding_number import WindingTree, winding_number, winding_number_by_faces


def mesh_of(vertices, faces, dtype=np.float32):
    return Mesh(torch.as_tensor(np.asarray(vertices, dtype))[None], torch.as_tensor(np.asarray(faces, np.int32)))


def open_sphere(subdivisions=3, above=0.6):
    """A sphere without its cap."""
    vertices, faces = icosphere(subdivisions)
    return mesh_of(vertices, faces[(vertices[faces][:, :, 2] < above).any(axis=1)])


def cloud(count, size=3.0, seed=0):
    return size * (torch.rand(1, count, 3, generator=torch.Generator().manual_seed(seed)) - 0.5)


def test_box_by_hand():
    mesh = mesh_of(*box_mesh())
    points = torch.tensor([[[0.0, 0.1, 0.2], [0.9, 0.9, -0.9], [1.1, 0.0, 0.0], [9.0, 9.0, 9.0]]])
    for found in (winding_number(mesh, points), winding_number_by_faces(mesh, points)):
        assert torch.allclose(found, torch.tensor([[1.0, 1.0, 0.0, 0.0]]), atol=1e-4)


def test_half_of_a_box_halves_at_its_middle():
    """From the centre of a cube, one face covers a sixth of the sphere."""
    vertices, faces = box_mesh()
    assert float(winding_number(mesh_of(vertices, faces[:2]), torch.zeros(1, 1, 3))) == pytest.approx(1 / 6, abs=1e-5)


def test_fast_sum_against_the_exact_one():
    """A sphere with a hole: the error falls with the accuracy, and is under 0.01 at 2 and 0.002 at 3."""
    mesh, points = open_sphere(4), cloud(500)
    exact = winding_number_by_faces(Mesh(mesh.vertices.double(), mesh.faces), points.double())
    tree = WindingTree(mesh)
    errors = [float((winding_number(mesh, points, a, tree) - exact).abs().max()) for a in (1.2, 2.0, 3.0)]
    assert errors[1] < 0.01 and errors[2] < 0.002 and errors[0] > errors[1] > errors[2]


def test_series_is_of_third_order():
    """One cluster alone: its worst error over the directions falls by 2^5 (a dipole's value by 2^2) when distances double."""
    vertices, faces = icosphere(1)
    mesh = mesh_of(vertices * 0.1, faces[:16])
    mesh = mesh._replace(vertices=mesh.vertices - mesh.vertices[:, mesh.faces.long()].mean(dim=(1, 2)))
    tree = WindingTree(mesh)
    directions = torch.nn.functional.normalize(cloud(200), dim=-1)
    errors = []
    for distance in (0.3, 0.6):
        points = distance * directions
        exact = winding_number_by_faces(Mesh(mesh.vertices.double(), mesh.faces), points.double())
        errors.append(float((winding_number(mesh, points, 1.0, tree) - exact).abs().max() / exact.abs().max()))
    assert errors[0] < 0.2 and errors[1] < errors[0] / 5.0


def test_exact_sum_is_differentiable():
    mesh = open_sphere(1, above=0.2)
    points = cloud(20, size=0.8, seed=1).requires_grad_()
    rows = gradient_check(
        lambda v, p: winding_number_by_faces(Mesh(v, mesh.faces), p),
        (mesh.vertices.requires_grad_(), points),
        ("vertices", "points"),
        steps=(1e-2, 3e-3, 1e-3),
    )
    assert all(row.passed for row in rows), format_table(rows)


def test_border_and_cone_close_a_mesh():
    mesh = open_sphere()
    edges, times = border_chain(mesh.vertices[0], mesh.faces)
    apex, cone = cone_over(mesh.vertices[0], edges)
    assert len(apex) == 1 and bool((times == 1).all()) and torch.equal(edges[:, 0].sort().values, edges[:, 1].sort().values)
    closed = torch.cat([mesh.faces.long(), cone])
    none, _ = border_chain(torch.cat([mesh.vertices[0], apex]), closed)
    assert len(none) == 0


def test_seam_is_no_border():
    """A box whose faces have vertices of their own, at the same places."""
    vertices, faces = box_mesh()
    edges, _ = border_chain(torch.tensor(vertices[faces].reshape(-1, 3)), torch.arange(36).reshape(12, 3))
    assert len(edges) == 0


@pytest.mark.slow
@pytest.mark.parametrize("mesh", [mesh_of(*icosphere(2)), open_sphere(), mesh_of(*box_mesh())], ids=["closed", "open", "box"])
def test_grid_against_the_exact_sum(mesh):
    """Nodes of the box mesh lie on its faces and edges: those are left out, all others must be right."""
    origin, spacing, shape = torch.tensor([-1.5, -1.5, -1.5]), 0.25, (13, 13, 13)
    got = grid_winding_number(mesh, origin, spacing, shape).reshape(1, -1)
    nodes = grid_nodes(origin, spacing, shape)
    exact = winding_number_by_faces(Mesh(mesh.vertices.double(), mesh.faces), nodes.double())
    off = (nodes.abs().amax(dim=-1) - 1.0).abs() > 1e-3
    assert float((got - exact)[off].abs().max()) < 2e-3


def test_grid_with_flipped_doubled_and_loose_faces():
    """Every chain of faces has a border that a cone closes."""
    generator = np.random.default_rng(0)
    vertices, faces = icosphere(2)
    faces = np.concatenate([faces[:200], faces[:40], faces[200:260, ::-1]])
    loose = generator.normal(size=(10, 3, 3)) * 0.5
    mesh = mesh_of(
        np.concatenate([vertices, loose.reshape(-1, 3)]),
        np.concatenate([faces, len(vertices) + np.arange(30).reshape(10, 3)]),
    )
    origin, spacing, shape = torch.tensor([-1.43, -1.41, -1.45]), 0.31, (10, 9, 11)
    got = grid_winding_number(mesh, origin, spacing, shape).reshape(1, -1)
    exact = winding_number_by_faces(Mesh(mesh.vertices.double(), mesh.faces), grid_nodes(origin, spacing, shape).double())
    assert float((got - exact).abs().max()) < 3e-3


def test_grid_of_a_soup_and_of_two_worlds():
    """Triangles without neighbours are summed by the tree; each world has its own border."""
    soup = mesh_of(np.random.default_rng(1).normal(size=(60, 3)), np.arange(60).reshape(20, 3))
    both = Mesh(torch.cat([soup.vertices, 1.1 * soup.vertices]), soup.faces)
    origin, shape = torch.tensor([-1.43, -1.41, -1.45]), (7, 7, 7)
    got = grid_winding_number(both, origin, 0.4, shape)
    nodes = grid_nodes(origin, 0.4, shape).double()
    exact = winding_number_by_faces(Mesh(both.vertices.double(), both.faces), nodes.expand(2, -1, 3))
    assert float((got.reshape(2, -1) - exact).abs().max()) < 3e-3


@pytest.mark.slow
@pytest.mark.data("stanford_bunny", "suzanne")
@pytest.mark.parametrize("name", ["stanford_bunny", "suzanne"])
def test_open_scans(name):
    """The fast sum and the grid's against the exact sum, on a sample of nodes."""
    mesh = mesh_of(*read_mesh(data.find(name, download=False)))
    low, high = mesh.vertices[0].amin(dim=0), mesh.vertices[0].amax(dim=0)
    spacing = float((high - low).max()) / 28.0
    origin, shape = low - spacing, (31, 31, 31)
    nodes = grid_nodes(origin, spacing, shape)
    chosen = torch.randperm(nodes.shape[1], generator=torch.Generator().manual_seed(0))[:80]
    exact = winding_number_by_faces(Mesh(mesh.vertices.double(), mesh.faces), nodes[:, chosen].double())
    fast = winding_number(mesh, nodes[:, chosen])
    on_grid = grid_winding_number(mesh, origin, spacing, shape).reshape(1, -1)[:, chosen]
    assert float((fast - exact).abs().max()) < 0.01
    assert float((on_grid - exact).abs().max()) < 2e-3


@pytest.mark.parametrize(
    ("points", "accuracy", "words"),
    [
        (torch.zeros(3), 2.0, "expected shape \\(world, point, 3\\)"),
        (torch.full((1, 1, 3), float("nan")), 2.0, "expected finite points"),
        (torch.zeros(1, 1, 3), 0.5, "expected at least 1 radius"),
    ],
)
def test_errors_are_one_clear_line(points, accuracy, words):
    with pytest.raises(UserError, match=words) as caught:
        winding_number(mesh_of(*box_mesh()), points, accuracy)
    assert "\n" not in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 1.0, -1.0, 0.5, 1e-7, 1.0000001]), min_size=18, max_size=18),
    st.lists(st.integers(0, 5), min_size=12, max_size=12),
)
def test_degenerate_meshes_never_give_nan(vertices, faces):
    mesh = mesh_of(np.array(vertices).reshape(6, 3), np.array(faces).reshape(4, 3))
    origin, shape = torch.tensor([-1.03, -1.51, -0.49]), (4, 4, 4)
    points = torch.cat([grid_nodes(origin, 0.5, shape), torch.zeros(1, 1, 3), mesh.vertices], dim=1)
    leaf, x = mesh.vertices.clone().requires_grad_(), points.clone().requires_grad_()
    exact = winding_number_by_faces(Mesh(leaf, mesh.faces), x)
    exact.sum().backward()
    for t in (winding_number(mesh, points), grid_winding_number(mesh, origin, 0.5, shape), exact, leaf.grad, x.grad):
        assert bool(torch.isfinite(t).all())


@pytest.mark.parametrize("scale", [1e-9, 1e6, 1e8])
def test_scale_does_not_matter(scale):
    vertices, faces = icosphere(2)
    points = cloud(300, 20.0)
    one = winding_number(mesh_of(vertices, faces[:200]), points)
    assert torch.allclose(winding_number(mesh_of(vertices * scale, faces[:200]), points * scale), one, atol=1e-5)
