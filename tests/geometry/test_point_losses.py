import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dvc.errors import UserError
from dvc.gradient_check import certified, format_table, gradient_check
from dvc.records import Mesh
from geometry.mesh import icosphere
from geometry.nearest_points import nearest_points
from geometry.point_losses import chamfer, matched_distance, normal_consistency, point_to_surface


def cloud(worlds: int, count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(worlds, count, 3, generator=torch.Generator().manual_seed(seed))


def twin(first: torch.Tensor, second: torch.Tensor, squared: bool) -> torch.Tensor:
    """Chamfer by all pairs."""
    squares = (first[:, :, None] - second[:, None]).square().sum(-1)
    distances = squares if squared else squares.sqrt()
    return distances.amin(2).mean(1) + distances.amin(1).mean(1)


def sphere(worlds: int = 1) -> Mesh:
    vertices, faces = icosphere(1)
    return Mesh(torch.from_numpy(vertices).repeat(worlds, 1, 1), torch.from_numpy(faces))


def test_chamfer_by_hand():
    first = torch.tensor([[[0.0, 0, 0], [1.0, 0, 0]]])
    second = torch.tensor([[[0.0, 0, 2.0]]])
    far = 5.0**0.5
    assert float(chamfer(first, second)) == pytest.approx((2.0 + far) / 2 + 2.0)
    assert float(chamfer(first, second, squared=True)) == pytest.approx((4.0 + 5.0) / 2 + 4.0)


@pytest.mark.parametrize("squared", [True, False])
@pytest.mark.parametrize("shift", [0.0, 6.0])
def test_chamfer_equal_to_the_float64_twin_in_both_directions(squared, shift):
    a, b = cloud(2, 90), cloud(2, 130, 1) + shift
    results = []
    for function, kind in ((chamfer, torch.float32), (twin, torch.float64)):
        x, y = a.to(kind).requires_grad_(), b.to(kind).requires_grad_()
        value = function(x, y, squared)
        results.append([value, *torch.autograd.grad((value * torch.tensor([1.0, -2.0])).sum(), (x, y))])
    for mine, theirs in zip(*results, strict=True):
        assert torch.allclose(mine.double(), theirs, rtol=1e-5, atol=1e-6)


def test_chamfer_repeats_one_world():
    a, b = cloud(1, 20).requires_grad_(), cloud(3, 30, 1)
    value = chamfer(a, b)
    value.sum().backward()
    assert torch.allclose(value, twin(a, b, False), rtol=1e-5) and a.grad.shape == a.shape


# few points, far apart: neighbours do not change within the differences' steps
@pytest.mark.parametrize("squared", [True, False])
def test_chamfer_gradient_at_several_steps(squared):
    rows = gradient_check(
        lambda x, y: chamfer(x, y, squared),
        [5.0 * cloud(2, 12, 3).requires_grad_(), 5.0 * cloud(2, 9, 4).requires_grad_()],
        ["first", "second"],
        steps=(3e-3, 1e-3, 3e-4, 1e-4),
    )
    assert certified(rows) and not any(row.note for row in rows), format_table(rows)


@pytest.mark.parametrize("squared", [True, False])
def test_matched_distance_gradient_at_several_steps(squared):
    index = torch.randint(0, 9, (2, 12), generator=torch.Generator().manual_seed(0))
    inputs = [cloud(2, 12, 3).requires_grad_(), cloud(2, 9, 4).requires_grad_()]
    rows = gradient_check(lambda x, y: matched_distance(x, y, index, squared), inputs, ["points", "targets"])
    assert certified(rows) and not any(row.note for row in rows), format_table(rows)


def test_coincident_points_have_a_zero_gradient():
    a = cloud(1, 50)
    for squared in (True, False):
        x, y = a.clone().requires_grad_(), a.clone().requires_grad_()
        value = chamfer(x, y, squared)
        value.sum().backward()
        assert float(value.detach()) == 0.0 and float(x.grad.abs().max()) == 0.0 and float(y.grad.abs().max()) == 0.0


def test_one_step_of_the_right_length_lands_on_the_other_set():
    # x_i and y_i are each other's nearest, so that d/dx_i of the squared chamfer is 4 (x_i - y_i) / n
    lattice = torch.cartesian_prod(*[torch.arange(6.0)] * 3)[None]
    a = (lattice + 0.2 * (torch.rand(1, 216, 3, generator=torch.Generator().manual_seed(0)) - 0.5)).requires_grad_()
    b = lattice[:, torch.randperm(216, generator=torch.Generator().manual_seed(1))]
    chamfer(a, b, squared=True).sum().backward()
    assert torch.allclose(a.detach() - 54.0 * a.grad, lattice, atol=1e-5)


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 10_000), st.booleans(), st.sampled_from([0.0, 1e-20, 1e-3, 1e6]))
def test_values_and_gradients_are_finite(first, second, seed, squared, scale):
    x = (cloud(1, first, seed).round() * scale).requires_grad_()
    y = (cloud(1, second, seed + 1).round() * scale).requires_grad_()
    value = chamfer(x, y, squared)
    value.sum().backward()
    for t in (value, x.grad, y.grad):
        assert bool(torch.isfinite(t).all())


@pytest.mark.parametrize("bad", [torch.zeros(1, 0, 3), torch.full((1, 3, 3), float("nan")), torch.zeros(3, 3)])
def test_bad_sets_are_named(bad):
    with pytest.raises(UserError, match=r"chamfer\.first"):
        chamfer(bad, cloud(1, 3))
    with pytest.raises(UserError, match=r"chamfer\.second"):
        chamfer(cloud(1, 3), bad)
    with pytest.raises(UserError, match="point"):
        point_to_surface(bad, sphere())


def test_bad_matches_are_named():
    with pytest.raises(UserError, match=r"0\.\.3, got 0\.\.4"):
        matched_distance(cloud(1, 5), cloud(1, 4), torch.arange(5)[None])
    with pytest.raises(UserError, match=r"index.*shape"):
        matched_distance(cloud(1, 5), cloud(1, 4), torch.zeros(1, 4, dtype=torch.long))
    with pytest.raises(UserError, match=r"0\.\.3, got -1\.\.3"):
        normal_consistency(cloud(1, 5), cloud(1, 4), torch.arange(-1, 4)[None])
    with pytest.raises(UserError, match=r"index.*shape"):
        normal_consistency(cloud(1, 5), cloud(1, 4), torch.zeros(5, dtype=torch.long))


def test_point_to_a_plane_is_its_height():
    plane = Mesh(torch.tensor([[[-9.0, -9, 0], [9, -9, 0], [0, 9, 0]]]), torch.tensor([[0, 1, 2]], dtype=torch.int32))
    points = torch.tensor([[[0.0, 0, 2], [1, 0, -3], [0, 1, 0.5]]], requires_grad=True)
    distance = point_to_surface(points, plane)
    assert torch.allclose(distance, torch.tensor([[2.0, 3.0, 0.5]]))
    assert torch.allclose(torch.autograd.grad(distance.sum(), points)[0][0, :, 2], torch.tensor([1.0, -1.0, 1.0]))
    assert torch.allclose(point_to_surface(points, plane, squared=True), torch.tensor([[4.0, 9.0, 0.25]]))


@pytest.mark.parametrize("squared", [True, False])
def test_point_to_surface_gradient_at_several_steps(squared):
    mesh = sphere(2)
    points = 3.0 * cloud(2, 15, 7).sign() + 0.3 * cloud(2, 15, 8)
    rows = gradient_check(
        lambda x, v: point_to_surface(x, Mesh(v, mesh.faces), squared),
        [points.requires_grad_(), mesh.vertices.requires_grad_()],
        ["points", "vertices"],
        steps=(3e-3, 1e-3, 3e-4, 1e-4),
    )
    assert certified(rows), format_table(rows)


def test_points_on_the_surface_and_flat_faces_are_finite():
    mesh = sphere()
    vertices = mesh.vertices.clone()
    vertices[:, 5] = vertices[:, 11]
    for squared in (True, False):
        v, x = vertices.clone().requires_grad_(), vertices.clone().requires_grad_()
        value = point_to_surface(x, Mesh(v, mesh.faces), squared)
        value.sum().backward()
        assert float(value.detach().abs().max()) < 1e-6
        assert bool(torch.isfinite(v.grad).all()) and bool(torch.isfinite(x.grad).all())


def test_normal_consistency_by_hand():
    up, down = torch.tensor([[[0.0, 0, 1]]]), torch.tensor([[[0.0, 0, -1], [1.0, 0, 0], [0.0, 0, 1]]])
    for index, oriented, expected in ((0, True, 2.0), (0, False, 0.0), (1, True, 1.0), (2, True, 0.0)):
        assert float(normal_consistency(up, down, torch.tensor([[index]]), oriented)) == expected


@pytest.mark.parametrize("oriented", [True, False])
def test_normal_consistency_gradient_at_several_steps(oriented):
    a, b = cloud(2, 12, 5), cloud(2, 10, 6)
    index = nearest_points(a, b).nearest
    rows = gradient_check(
        lambda m, n: normal_consistency(m, n, index, oriented), [a.requires_grad_(), b.requires_grad_()], ["normals", "other"]
    )
    assert certified(rows), format_table(rows)
