import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dvc.errors import UserError
from dvc.gradient_check import certified, format_table, gradient_check
from dvc.records import Mesh
from geometry.cage_deform import CageDeform, mean_value_coordinates
from geometry.mesh import box_mesh, icosphere


def cage(worlds: int = 1, shake: float = 0.0) -> Mesh:
    vertices, faces = icosphere(1)
    noise = torch.randn(worlds, 42, 3, generator=torch.Generator().manual_seed(1))
    return Mesh(torch.from_numpy(vertices) + shake * noise, torch.from_numpy(faces))


def points(worlds: int = 1, count: int = 60, spread: float = 0.4) -> torch.Tensor:
    return spread * torch.randn(worlds, count, 3, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("spread", [0.3, 3.0])
def test_linear_functions_are_reproduced_inside_and_outside(spread):
    mesh, x = cage(2, 0.05), points(2, spread=spread)
    coordinates = mean_value_coordinates(x, mesh)
    assert torch.allclose(coordinates.sum(2), torch.ones(2, 60), atol=1e-5)
    assert torch.allclose(coordinates @ mesh.vertices, x, atol=1e-4 * spread)


def test_inside_a_convex_cage_they_are_positive():
    assert float(mean_value_coordinates(points(spread=0.25), cage()).min()) > 0.0


def test_symmetry_at_the_centre_of_an_octahedron():
    vertices = torch.tensor([[[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]]])
    faces = torch.tensor([[0, 2, 4], [2, 1, 4], [1, 3, 4], [3, 0, 4], [2, 0, 5], [1, 2, 5], [3, 1, 5], [0, 3, 5]]).int()
    assert torch.allclose(mean_value_coordinates(torch.zeros(1, 1, 3), Mesh(vertices, faces)), torch.full((1, 1, 6), 1 / 6))


def test_definition_by_an_integral_over_the_sphere():
    """w = integral of phi / |p - x| over directions (eq. 3): rays from the point, by Monte Carlo in float64."""
    vertices, faces = box_mesh()
    v = vertices.astype(np.float64) * [1.0, 0.8, 0.6] + 0.1 * np.random.default_rng(1).normal(size=(8, 3))
    x = np.array([0.2, -0.1, 0.15])
    rays = np.random.default_rng(0).normal(size=(200_000, 3))
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    weights = np.zeros(8)
    for face in faces:
        corners = (v[face] - x).T
        bary = np.linalg.solve(corners, rays.T).T  # ray = corners bary, up to its length
        hit = (bary > 0).all(1)
        weights[face] += (bary[hit] / bary[hit].sum(1, keepdims=True) * bary[hit].sum(1, keepdims=True)).sum(0)
    expected = weights / weights.sum()
    mesh = Mesh(torch.from_numpy(v.astype(np.float32))[None], torch.from_numpy(faces))
    got = mean_value_coordinates(torch.from_numpy(x.astype(np.float32))[None, None], mesh)[0, 0]
    assert np.allclose(got.numpy(), expected, atol=3e-3)


def test_on_the_cage_they_are_barycentric():
    mesh = cage(1, 0.05)
    corners = mesh.vertices[0, mesh.faces[7].long()]
    bary = torch.tensor([[0.2, 0.3, 0.5], [0.5, 0.5, 0.0], [0.0, 0.25, 0.75], [1.0, 0.0, 0.0]])
    found = mean_value_coordinates((bary @ corners)[None], mesh)[0]
    assert torch.allclose(found[:, mesh.faces[7].long()], bary, atol=2e-5)
    assert torch.allclose(found @ mesh.vertices[0], bary @ corners, atol=1e-5)
    flat = Mesh(torch.from_numpy(box_mesh()[0])[None], torch.from_numpy(box_mesh()[1]))  # in the plane of other faces
    x = torch.tensor([[[1.0, 0.25, -0.5], [1.0, 3.0, 0.2], [1.0, 1.0, 0.3], [2.0, 1.0, 1.0]]])
    assert torch.allclose(mean_value_coordinates(x, flat) @ flat.vertices, x, atol=1e-5)


def test_gradient_at_several_steps():
    mesh, x = cage(2, 0.05), points(2, 20, 0.3)
    rows = gradient_check(
        lambda p, c: mean_value_coordinates(p, Mesh(c, mesh.faces)),
        [x.requires_grad_(), mesh.vertices.requires_grad_()],
        ["points", "cage"],
    )
    assert certified(rows) and not any(row.note for row in rows), format_table(rows)


def test_deformation_follows_the_cage():
    vertices, faces = icosphere(2)
    mesh = cage()
    stage = CageDeform(0.5 * vertices, faces, 1.5 * mesh.vertices[0], mesh.faces)
    rest = stage(1.5 * mesh.vertices).vertices[0]
    assert torch.allclose(rest, 0.5 * torch.from_numpy(vertices), atol=1e-5)
    a, b = torch.randn(3, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([1.0, 2.0, 3.0])
    moved = stage(1.5 * mesh.vertices @ a + b)
    assert torch.allclose(moved.vertices[0], rest @ a + b, atol=1e-4) and moved.faces.tolist() == faces.tolist()
    rows = gradient_check(lambda c: stage(c).vertices, [cage(3, 0.1).vertices.requires_grad_()], ["cage"])
    assert certified(rows) and not any(row.note for row in rows), format_table(rows)


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    kind=st.sampled_from(["random", "flat", "line", "point", "merged", "tiny", "huge"]),
    where=st.sampled_from(["inside", "vertex", "edge", "face", "plane", "far"]),
)
def test_bad_cages_and_points_have_finite_values_and_gradients(seed, kind, where):
    generator = np.random.default_rng(seed)
    base, faces = box_mesh()
    corners = base[None] + 0.2 * generator.normal(size=(4, 8, 3))
    if kind == "flat":
        corners[..., 2] = 0.5
    elif kind == "line":
        corners[..., 1:] = 0.5
    elif kind == "point":
        corners[:] = corners[:, :1]
    elif kind == "merged":
        corners = corners[:, generator.integers(0, 8, 8)]
    corners = corners * {"tiny": 1e-8, "huge": 1e8}.get(kind, 1.0)
    bary = generator.dirichlet([1, 1, 1], size=(4, 6))
    if where == "vertex":
        bary = np.eye(3)[generator.integers(0, 3, (4, 6))]
    elif where == "edge":
        bary[..., 0] = 0.0
    elif where == "plane":
        bary[..., 0] -= 3.0
    x = np.einsum("wpi,wic->wpc", bary / bary.sum(2, keepdims=True), corners[:, faces[generator.integers(0, 12)]])
    if where == "inside":
        x = 0.3 * x
    elif where == "far":
        x = 1e4 * x
    leaf_points = torch.from_numpy(x.astype(np.float32)).requires_grad_()
    leaf_cage = torch.from_numpy(corners.astype(np.float32)).requires_grad_()
    found = mean_value_coordinates(leaf_points, Mesh(leaf_cage, FACES))
    assert torch.isfinite(found).all()
    (found * torch.linspace(-1, 2, found.numel()).reshape(found.shape)).sum().backward()
    assert torch.isfinite(leaf_points.grad).all() and torch.isfinite(leaf_cage.grad).all()


FACES = torch.from_numpy(box_mesh()[1])


def test_wrong_arguments_are_named():
    vertices, faces = box_mesh()
    with pytest.raises(UserError, match="expected a closed mesh, got 3 border edges"):
        CageDeform(vertices, faces, vertices, faces[1:])
    with pytest.raises(UserError, match=r"points: expected shape \(world, point, 3\), got \(4, 3\)"):
        mean_value_coordinates(torch.zeros(4, 3), cage())
    with pytest.raises(UserError, match="points: expected finite"):
        mean_value_coordinates(torch.full((1, 2, 3), float("nan")), cage())
    with pytest.raises(UserError, match=r"cage: expected shape \(world, 8, 3\), got \(1, 7, 3\)"):
        CageDeform(vertices * 0.5, faces, vertices, faces)(torch.zeros(1, 7, 3))
    with pytest.raises(UserError, match=r"cage_faces: expected vertex numbers in 0..7, got 8"):
        CageDeform(vertices, faces, vertices, faces + 1)
