import copy
import pickle

import numpy as np
import pytest
import torch

from dvc import data
from dvc.errors import UserError
from dvc.gradient_check import certified, format_table, gradient_check
from dvc.records import Mesh
from geometry.laplacian import combinatorial_matrix
from geometry.large_steps import AdamUniform, LargeSteps
from geometry.mesh import icosphere
from geometry.mesh_io import read_mesh
from geometry.self_intersections import self_intersection_count

SOLVERS = ["direct", "cg"]


def sphere(subdivisions: int) -> Mesh:
    vertices, faces = icosphere(subdivisions)
    return Mesh(torch.from_numpy(vertices)[None], torch.from_numpy(faces))


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(7))


@pytest.mark.parametrize("solver", SOLVERS)
def test_round_trip(solver):
    """Exact to float32: what is left is the rounding of u, which the solve does not enlarge (its eigenvalues are <= 1)."""
    mesh = sphere(3)
    vertices = mesh.vertices + 0.3 * noise(2, 642, 3)
    stage = LargeSteps(mesh.faces, 642, 19.0, solver)
    tolerance = 3e-6 if solver == "direct" else 1e-4
    assert float((stage(stage.to_parameters(vertices)) - vertices).abs().max()) < tolerance
    assert float((stage.to_parameters(stage(vertices)) - vertices).abs().max()) < 100 * tolerance


@pytest.mark.parametrize("solver", SOLVERS)
def test_value_and_gradient_equal_the_dense_solve(solver):
    mesh = sphere(2)
    stage = LargeSteps(mesh.faces, 162, 30.0, solver)
    dense = torch.from_numpy(np.eye(162) + 30.0 * combinatorial_matrix(mesh.faces, 162).toarray())
    u, weight = noise(3, 162, 3).requires_grad_(), noise(3, 162, 3).flip(0)
    (stage(u) ** 2 * weight).sum().backward()
    twin = u.detach().double().requires_grad_()
    solved = torch.linalg.solve(dense, twin)
    (solved**2 * weight).sum().backward()
    assert torch.allclose(stage(u).double(), solved, atol=3e-6)
    assert torch.allclose(u.grad.double(), twin.grad, atol=3e-6 * float(twin.grad.abs().max()) + 1e-6)


@pytest.mark.parametrize("solver", SOLVERS)
def test_gradient_at_several_steps(solver):
    mesh = sphere(1)
    stage = LargeSteps(mesh.faces, 42, 5.0, solver)
    rows = gradient_check(stage, [noise(2, 42, 3).requires_grad_()], ["u"])
    rows += gradient_check(stage.to_parameters, [noise(2, 42, 3).requires_grad_()], ["vertices"])
    assert certified(rows) and not any(row.note for row in rows), format_table(rows)


def test_second_derivatives():
    mesh = sphere(0)
    stage = LargeSteps(mesh.faces, 12, 5.0)
    u = noise(1, 12, 3).double().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: stage(x) ** 2, u)


def test_constants_stay_and_zero_smoothness_is_the_identity():
    mesh = sphere(1)
    shifted = torch.tensor([1.0, -2.0, 3.0]).expand(1, 42, 3)
    assert torch.allclose(LargeSteps(mesh.faces, 42, 50.0)(shifted), shifted, atol=1e-5)
    assert torch.equal(LargeSteps(mesh.faces, 42, 0.0)(mesh.vertices), mesh.vertices)


def descend(target: torch.Tensor, mesh: Mesh, large: bool, steps: int, lr: float) -> tuple[int, float]:
    """A sphere drawn towards sparse points by its nearest vertices: noisy, uneven gradients as silhouettes give them."""
    stage = LargeSteps(mesh.faces, mesh.vertices.shape[1], 19.0 if large else 0.0)
    u = stage.to_parameters(mesh.vertices).detach().requires_grad_()
    optimizer = AdamUniform([u], lr=lr) if large else torch.optim.Adam([u], lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        vertices = stage(u)
        fixed = vertices.detach()[0]
        nearest = ((fixed * fixed).sum(1) - 2.0 * target[0] @ fixed.T).argmin(1)
        distance = (target[0] - vertices[0, nearest]).square().sum(1).mean()
        distance.backward()
        optimizer.step()
    return int(self_intersection_count(Mesh(stage(u).detach(), mesh.faces))), float(distance.detach())


def test_plain_descent_tangles_where_large_steps_do_not():
    mesh = sphere(3)
    generator = torch.Generator().manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(1, 400, 3, generator=generator), dim=-1)
    target = directions * torch.tensor([2.5, 0.4, 0.4])
    tangled, plain_distance = descend(target, mesh, False, 100, 0.05)
    smooth, distance = descend(target, mesh, True, 100, 0.3)
    assert smooth == 0 and tangled > 100, (smooth, tangled)
    assert distance < 0.6 * plain_distance, (distance, plain_distance)


def test_adam_uniform_keeps_the_direction_and_the_worlds_apart():
    x = torch.zeros(2, 4, 3, requires_grad=True)
    gradient = noise(2, 4, 3)
    gradient[1] *= 1e6
    x.grad = gradient
    AdamUniform([x], lr=0.1).step()
    for world in range(2):
        expected = -0.1 * gradient[world] / gradient[world].abs().max()
        assert torch.allclose(x[world], expected, rtol=1e-4)


def test_adam_uniform_without_a_gradient_moves_nothing():
    x = torch.ones(1, 2, 3, requires_grad=True)
    x.grad = torch.zeros(1, 2, 3)
    AdamUniform([x]).step()
    assert torch.equal(x, torch.ones(1, 2, 3))


@pytest.mark.data("spot")
def test_degenerate_geometry_changes_nothing_since_only_faces_count():
    vertices, faces = read_mesh(data.find("spot"))
    stage = LargeSteps(torch.from_numpy(faces).int(), len(vertices))
    u = stage.to_parameters(torch.zeros(1, len(vertices), 3)).requires_grad_()
    stage(u).sum().backward()
    assert torch.isfinite(u.grad).all() and torch.allclose(u.grad, torch.ones_like(u), atol=1e-5)


@pytest.mark.parametrize("solver", SOLVERS)
def test_copies_and_pickles_after_a_solve(solver):
    stage = LargeSteps(sphere(0).faces, 12, 5.0, solver)
    expected = stage(noise(1, 12, 3))
    for other in (copy.deepcopy(stage), pickle.loads(pickle.dumps(stage))):
        assert torch.equal(other(noise(1, 12, 3)), expected)


def test_wrong_arguments_are_named():
    mesh = sphere(0)
    with pytest.raises(UserError, match="smoothness: expected a finite number from 0, got -1"):
        LargeSteps(mesh.faces, 12, -1.0)
    with pytest.raises(UserError, match="expected 'direct', 'cg' or none, got 'lu'"):
        LargeSteps(mesh.faces, 12, solver="lu")
    with pytest.raises(UserError, match=r"forward: expected shape \(world, 12, 3\), got \(1, 11, 3\)"):
        LargeSteps(mesh.faces, 12)(torch.zeros(1, 11, 3))
    with pytest.raises(UserError, match="lr > 0"):
        AdamUniform([torch.zeros(1, requires_grad=True)], lr=0.0)
    with pytest.raises(UserError, match="conjugate gradients: expected finite numbers"):
        LargeSteps(mesh.faces, 12, solver="cg")(torch.full((1, 12, 3), float("nan")))
