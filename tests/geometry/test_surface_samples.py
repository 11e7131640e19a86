import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dvc.errors import UserError
from dvc.gradient_check import certified, format_table, gradient_check
from dvc.records import Mesh
from geometry.mesh import box_mesh, icosphere
from geometry.surface_samples import sample_surface

SEED = torch.tensor([3])


def box() -> Mesh:
    vertices, faces = box_mesh()
    return Mesh(torch.from_numpy(vertices)[None], torch.from_numpy(faces))


def sphere(worlds: int = 1, subdivisions: int = 1) -> Mesh:
    vertices, faces = icosphere(subdivisions)
    return Mesh(torch.from_numpy(vertices).repeat(worlds, 1, 1), torch.from_numpy(faces))


def test_faces_are_drawn_by_their_area():
    mesh = Mesh(box().vertices * torch.tensor([1.0, 2.0, 5.0]), box().faces)  # areas of the sides 40, 20, 8
    count = 60_000
    samples = sample_surface(mesh, count, SEED)
    outside = samples.points[0].abs() / torch.tensor([1.0, 2.0, 5.0])
    shares = torch.bincount(outside.argmax(1), minlength=3) / count
    expected = torch.tensor([40.0, 20.0, 8.0]) / 68.0
    assert bool(((shares - expected).abs() < 4.0 * (expected * (1 - expected) / count).sqrt()).all())
    assert float((outside.amax(1) - 1.0).abs().max()) < 1e-5


def test_points_are_uniform_within_a_face():
    triangle = Mesh(torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]]), torch.tensor([[0, 1, 2]], dtype=torch.int32))
    b = sample_surface(triangle, 50_000, SEED).barycentric[0].double()
    assert float((b.mean(0) - 1 / 3).abs().max()) < 4 * math.sqrt(1 / 18 / 50_000)
    assert float(((b * b).mean(0) - 1 / 6).abs().max()) < 4 * math.sqrt(0.04 / 50_000)  # E b^2 = 1/6
    assert float((b[:, 0] * b[:, 1]).mean()) == pytest.approx(1 / 12, abs=2e-3)
    assert bool((b >= 0).all()) and float((b.sum(1) - 1).abs().max()) < 1e-6


def test_normals_are_those_of_the_faces():
    samples = sample_surface(box(), 500, SEED)
    side = samples.points[0].abs().argmax(1, keepdim=True)
    expected = torch.zeros(500, 3).scatter_(1, side, samples.points[0].gather(1, side).sign())
    assert torch.allclose(samples.normals[0], expected, atol=1e-6)


def test_seeds_decide_and_worlds_are_their_own():
    mesh = sphere(2)
    a, b, c = (sample_surface(mesh, 64, torch.tensor(seed)) for seed in ([1, 2], [1, 2], [1, 5]))
    assert torch.equal(a.points, b.points)
    assert torch.equal(a.points[0], c.points[0]) and not torch.equal(a.points[1], c.points[1])
    assert torch.equal(sample_surface(sphere(1), 64, torch.tensor([1, 2])).points, a.points)
    assert torch.equal(*sample_surface(mesh, 64, torch.tensor([7])).points)


def test_gradient_at_several_steps_with_the_draw_held():
    # all faces scale alike under the direction, so that the same faces and barycentrics are drawn at every step
    mesh = sphere()
    scale = torch.tensor([[[1.3]]], requires_grad=True)
    rows = gradient_check(
        lambda s: tuple(sample_surface(Mesh(mesh.vertices * s, mesh.faces), 40, SEED)[:1]), [scale], ["scale"]
    )
    assert certified(rows) and not rows[0].note, format_table(rows)


def test_points_and_normals_to_every_vertex_at_several_steps():
    from geometry.surface_samples import attach_samples

    mesh = sphere(2)
    samples = sample_surface(mesh, 60, torch.tensor([1, 2]))
    rows = gradient_check(
        lambda v: attach_samples(v, mesh.faces, samples.face, samples.barycentric),
        [mesh.vertices.requires_grad_()],
        ["vertices"],
    )
    assert certified(rows) and not rows[0].note, format_table(rows)


def test_equal_to_the_torch_twin_in_both_directions():
    mesh = sphere(2)
    v = mesh.vertices.clone().requires_grad_()
    samples = sample_surface(Mesh(v, mesh.faces), 80, torch.tensor([1, 2]))
    w = mesh.vertices.double().requires_grad_()
    corners = torch.stack([w[i][mesh.faces.long()[samples.face[i].long()]] for i in range(2)])
    points = (samples.barycentric[..., None].double() * corners).sum(2)
    normals = torch.linalg.cross(corners[:, :, 1] - corners[:, :, 0], corners[:, :, 2] - corners[:, :, 0])
    normals = normals / normals.norm(dim=-1, keepdim=True)
    weight = torch.randn(2, 80, 3, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(samples.points.double(), points, atol=1e-6)
    assert torch.allclose(samples.normals.double(), normals, atol=1e-5)
    mine = torch.autograd.grad(((samples.points + samples.normals) * weight).sum(), v)[0]
    theirs = torch.autograd.grad(((points + normals) * weight).sum(), w)[0]
    assert torch.allclose(mine.double(), theirs, rtol=1e-4, atol=1e-4)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.sampled_from([1e-6, 1.0, 1e6]))
def test_degenerate_faces_are_never_drawn(seed, moved, scale):
    mesh = sphere()
    generator = torch.Generator().manual_seed(seed)
    vertices = mesh.vertices.clone() * scale
    to, of = (torch.randint(0, vertices.shape[1], (moved,), generator=generator) for _ in range(2))
    vertices[:, to] = vertices[:, of]  # faces without area
    vertices.requires_grad_()
    samples = sample_surface(Mesh(vertices, mesh.faces), 50, torch.tensor([seed]))
    (samples.points.sum() + samples.normals.sum()).backward()
    assert float((samples.normals.norm(dim=-1) - 1).abs().max()) < 1e-4
    for t in (samples.points, samples.normals, vertices.grad):
        assert bool(torch.isfinite(t).all())


def test_bad_input_is_named():
    with pytest.raises(UserError, match="area"):
        sample_surface(Mesh(torch.zeros(1, 3, 3), torch.tensor([[0, 1, 2]], dtype=torch.int32)), 4, SEED)
    with pytest.raises(UserError, match="finite"):
        sample_surface(Mesh(box().vertices * float("nan"), box().faces), 4, SEED)
    with pytest.raises(UserError, match="count"):
        sample_surface(box(), 0, SEED)
    with pytest.raises(UserError, match="seed"):
        sample_surface(box(), 4, torch.tensor([0.5]))
