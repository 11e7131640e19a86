import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dvc.errors import UserError
from dvc.gradient_check import format_table, gradient_check
from dvc.records import Mesh
from geometry.closest_points import MeshTrees, closest_points
from geometry.mesh import box_mesh, icosphere


def mesh_of(vertices, faces):
    return Mesh(torch.as_tensor(np.asarray(vertices, np.float32))[None], torch.as_tensor(np.asarray(faces, np.int32)))


def twin(mesh, points):
    """Distance of points (point, 3) to every face by clamped minimisation over its interior and edges, float64."""
    corners = mesh.vertices[0].double()[mesh.faces.long()]
    x = points.double()[:, None]
    a, b, c = corners[None, :, 0], corners[None, :, 1], corners[None, :, 2]
    best = torch.full((len(points), len(corners)), float("inf"), dtype=torch.float64)
    for p, q in ((a, b), (b, c), (c, a)):
        d = q - p
        t = (((x - p) * d).sum(-1) / (d * d).sum(-1).clamp_min(1e-300)).clamp(0, 1)
        best = torch.minimum(best, (x - p - t[..., None] * d).norm(dim=-1))
    n = torch.linalg.cross(b - a, c - a)
    square = (n * n).sum(-1)
    v = (torch.linalg.cross(x - a, c - a) * n).sum(-1) / square.clamp_min(1e-300)
    w = (torch.linalg.cross(b - a, x - a) * n).sum(-1) / square.clamp_min(1e-300)
    solid = square > 1e-24 * ((b - a) ** 2).sum(-1) * ((c - a) ** 2).sum(-1)  # rounding gives a needle some area
    inside = (v >= 0) & (w >= 0) & (v + w <= 1) & solid
    height = ((x - a) * n).sum(-1).abs() / square.sqrt().clamp_min(1e-300)
    return torch.where(inside, torch.minimum(best, height), best).amin(dim=1)


def test_box_distances_by_hand():
    mesh = mesh_of(*box_mesh())
    points = torch.tensor([[[2.0, 0.3, 0.1], [0.0, 0.0, 0.4], [2.0, 2.0, 0.3], [2.0, 2.0, 2.0], [1.0, 0.2, 0.1]]])
    found = closest_points(mesh, points)
    assert found.distance[0].tolist() == pytest.approx([1.0, 0.6, 2**0.5, 3**0.5, 0.0], abs=1e-6)
    corners = mesh.vertices[0][mesh.faces.long()][found.face[0].long()]
    y = (corners * found.barycentric[0, :, :, None]).sum(dim=1)
    expected = torch.tensor([[1.0, 0.3, 0.1], [0, 0, 1], [1, 1, 0.3], [1, 1, 1], [1, 0.2, 0.1]])
    assert torch.allclose(y, expected, atol=1e-6)
    assert torch.allclose(found.barycentric.sum(dim=-1), torch.ones(1, 5), atol=1e-6)


def test_against_the_sum_over_faces():
    mesh = mesh_of(*icosphere(2))
    points = 3.0 * (torch.rand(1, 300, 3, generator=torch.Generator().manual_seed(0)) - 0.5)
    assert torch.allclose(closest_points(mesh, points).distance[0].double(), twin(mesh, points[0]), atol=2e-6)


def test_worlds_have_their_own_trees():
    vertices, faces = icosphere(1)
    mesh = Mesh(torch.tensor(vertices)[None] * torch.tensor([1.0, 2.0])[:, None, None], torch.tensor(faces))
    points = torch.tensor([[[5.0, 0.0, 0.0]]])
    trees = MeshTrees(mesh)
    first = closest_points(mesh, points, trees).distance
    assert first.shape == (2, 1) and float(first[0] - first[1]) == pytest.approx(1.0, abs=0.1)
    assert torch.equal(first, closest_points(mesh, points, trees).distance)
    moved = mesh._replace(vertices=mesh.vertices + torch.tensor([1.0, 0, 0]))
    assert torch.allclose(closest_points(moved, points).distance, first - 1.0, atol=0.1)


def test_gradient_of_every_input():
    mesh = mesh_of(*icosphere(1))
    points = 2.5 * (torch.rand(2, 40, 3, generator=torch.Generator().manual_seed(3)) - 0.5)
    inputs = (mesh.vertices.repeat(2, 1, 1).requires_grad_(), points.requires_grad_())
    rows = gradient_check(
        lambda v, p: closest_points(Mesh(v, mesh.faces), p).distance, inputs, ("vertices", "points"), steps=(3e-3, 1e-3, 3e-4)
    )
    assert all(row.passed for row in rows), format_table(rows)
    assert not any(row.note for row in rows), format_table(rows)


def test_gradient_on_the_surface_is_the_outward_normal():
    mesh = mesh_of(*box_mesh())
    points = torch.tensor([[[1.0, 0.3, 0.2], [0.1, -1.0, 0.4]]], requires_grad=True)
    closest_points(mesh, points).distance.sum().backward()
    assert torch.allclose(points.grad, torch.tensor([[[1.0, 0, 0], [0, -1.0, 0]]]), atol=1e-6)


@pytest.mark.parametrize(
    ("mesh", "points", "words"),
    [
        (mesh_of(*box_mesh()), torch.zeros(4, 3), "expected shape \\(world, point, 3\\)"),
        (mesh_of(*box_mesh()), torch.full((1, 1, 3), float("inf")), "expected finite points"),
        (mesh_of([[0, 0, 0], [1, 0, 0], [0, 1, float("nan")]], [[0, 1, 2]]), torch.zeros(1, 1, 3), "expected finite vertices"),
        (mesh_of([[0, 0, 0], [1, 0, 0]], [[0, 1, 2]]), torch.zeros(1, 1, 3), "expected vertex numbers in 0..1"),
        (mesh_of([[0, 0, 0]], np.zeros((0, 3))), torch.zeros(1, 1, 3), "at least one face"),
    ],
)
def test_errors_are_one_clear_line(mesh, points, words):
    with pytest.raises(UserError, match=words) as caught:
        closest_points(mesh, points)
    assert "\n" not in str(caught.value)


def test_no_points():
    assert closest_points(mesh_of(*box_mesh()), torch.zeros(1, 0, 3)).distance.shape == (1, 0)


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.sampled_from([0.0, 1.0, -1.0, 0.5, 1e-7, 1.0000001]), min_size=18, max_size=18),
    st.lists(st.integers(0, 5), min_size=12, max_size=12),
    st.lists(st.floats(-2, 2, width=32), min_size=9, max_size=9),
)
def test_degenerate_meshes_are_exact_and_never_nan(vertices, faces, points):
    """Needles, points for faces, coincident vertices: the right distance, finite gradients."""
    mesh = mesh_of(np.array(vertices).reshape(6, 3), np.array(faces).reshape(4, 3))
    leaf = mesh.vertices.requires_grad_()
    x = torch.tensor(points).reshape(1, 3, 3).requires_grad_()
    found = closest_points(Mesh(leaf, mesh.faces), x)
    found.distance.sum().backward()
    for t in (found.distance, found.barycentric, leaf.grad, x.grad):
        assert bool(torch.isfinite(t).all())
    assert torch.allclose(found.distance[0].double(), twin(mesh, x[0].detach()).detach(), atol=3e-6)


def test_trees_of_another_mesh_are_refused():
    mesh, other = (Mesh(*(torch.from_numpy(x) for x in (v[None], f))) for v, f in (icosphere(1), icosphere(2)))
    with pytest.raises(UserError, match="trees: expected those of"):
        closest_points(mesh, torch.zeros(1, 3, 3), MeshTrees(other))


def test_faces_as_files_give_them():
    """Readers return int64."""
    mesh = mesh_of(*box_mesh())
    vertices = mesh.vertices.clone().requires_grad_()
    closest_points(Mesh(vertices, mesh.faces.long()), torch.tensor([[[2.0, 0.3, 0.1]]])).distance.sum().backward()
    assert vertices.grad.abs().sum() > 0.0
