import math

import pytest
import torch

from dvc.errors import UserError
from dvc.gradient_check import certified, format_table, gradient_check
from dvc.records import Mesh
from geometry.mesh import box_mesh, icosphere
from geometry.mesh_energies import bending_energy, dihedral_angles, edge_length_energy, edge_lengths, mesh_edges
from geometry.mesh_topology import mesh_topology

HINGE = torch.tensor([[0, 1, 2], [1, 0, 3]], dtype=torch.int32)


def hinge(angle: torch.Tensor) -> Mesh:
    """Two triangles over the x axis; `angle` (world,) is how far the second is bent down, so that the ridge is convex."""
    zero, one = torch.zeros_like(angle), torch.ones_like(angle)
    rows = [
        torch.stack([zero, zero, zero], 1),
        torch.stack([one, zero, zero], 1),
        torch.stack([0.3 * one, 0.7 * one, zero], 1),
        torch.stack([0.6 * one, -0.9 * torch.cos(angle), -0.9 * torch.sin(angle)], 1),
    ]
    return Mesh(torch.stack(rows, 1), HINGE)


def ridge(mesh: Mesh) -> int:
    return int((mesh_topology(mesh.faces).edges[:, 3] >= 0).nonzero()[0])


def lumpy(seed: int = 5) -> Mesh:
    vertices, faces = icosphere(1)
    noise = torch.randn(2, 42, 3, generator=torch.Generator().manual_seed(seed))
    return Mesh(torch.from_numpy(vertices) + 0.05 * noise, torch.from_numpy(faces))


@pytest.mark.parametrize("angle", [-3.1, -1.0, -1e-4, 0.0, 1e-5, 0.5, math.pi / 2, 3.0])
def test_angle_of_a_hinge_and_its_derivative(angle):
    """The angle is what it was bent by, sign included, and its derivative is one, at flat edges as well."""
    bent = torch.tensor([angle], requires_grad=True)
    mesh = hinge(bent)
    found = dihedral_angles(mesh)[0, ridge(mesh)]
    assert float(found.detach()) == pytest.approx(angle, abs=1e-6)
    found.backward()
    assert float(bent.grad) == pytest.approx(1.0, rel=1e-5)


@pytest.mark.parametrize("angle", [0.0, 0.7, math.pi])
def test_gradient_is_the_analytic_one(angle):
    """d theta / d opposite vertex = -|e| c / |c|^2 for c = 2 A n (Bridson et al. 2003), also flat and folded."""
    mesh = hinge(torch.tensor([angle]))
    vertices = mesh.vertices.detach().requires_grad_()
    dihedral_angles(Mesh(vertices, HINGE))[0, ridge(mesh)].backward()
    v = vertices.detach()[0].double()
    for corner, (i, j) in ((2, (0, 1)), (3, (1, 0))):
        c = torch.linalg.cross(v[j] - v[i], v[corner] - v[i])
        expected = -(v[j] - v[i]).norm() * c / (c @ c)
        assert torch.allclose(vertices.grad[0, corner].double(), expected, atol=1e-5), (vertices.grad[0, corner], expected)
    assert float(vertices.grad.sum(1).abs().max()) < 1e-5


def test_box_has_right_angles():
    vertices, faces = box_mesh()
    mesh = Mesh(torch.from_numpy(vertices)[None] * torch.tensor([1.0, 2.0, 3.0]), torch.from_numpy(faces))
    angles = dihedral_angles(mesh)[0].sort().values
    assert torch.allclose(angles, torch.tensor([0.0] * 6 + [math.pi / 2] * 12), atol=1e-6)
    lengths = edge_lengths(mesh)[0]
    a, b = mesh_edges(mesh).long().T
    assert torch.allclose(lengths, (mesh.vertices[0, b] - mesh.vertices[0, a]).norm(dim=1))


def test_border_has_the_angle_zero():
    mesh = hinge(torch.tensor([0.5]))
    assert (dihedral_angles(mesh)[0] != 0).sum() == 1


def test_total_mean_curvature_of_a_sphere():
    """sum of |e| theta / 2 is the integral of the mean curvature, 4 pi r (Steiner); Willmore-like energy is near constant."""
    energies = []
    for subdivisions in (2, 3, 4):
        vertices, faces = icosphere(subdivisions)
        mesh = Mesh(0.5 * torch.from_numpy(vertices)[None], torch.from_numpy(faces))
        total = float((edge_lengths(mesh) * dihedral_angles(mesh)).sum() / 2)
        assert total == pytest.approx(4 * math.pi * 0.5, rel=0.06 / 4 ** (subdivisions - 2))
        energies.append(float(bending_energy(mesh)))
    assert energies[2] == pytest.approx(energies[1], rel=0.02)
    scaled = Mesh(7.0 * mesh.vertices, mesh.faces)
    assert float(bending_energy(scaled)) == pytest.approx(energies[2], rel=1e-4)


def test_energies_by_hand():
    """One hinge: weight 3 |e|^2 / (A0 + A1) = 3 / (0.35 + 0.45)."""
    bent, rest = hinge(torch.tensor([0.9, 0.3])), hinge(torch.tensor([0.4]))
    assert torch.allclose(bending_energy(bent), 3 / 0.8 * torch.tensor([0.81, 0.09]), rtol=1e-5)
    assert torch.allclose(bending_energy(bent, rest), 3 / 0.8 * torch.tensor([0.25, 0.01]), rtol=1e-4)
    twice = Mesh(2 * bent.vertices, HINGE)
    lengths = edge_lengths(bent)
    assert torch.allclose(edge_length_energy(twice, bent), lengths.sum(1), rtol=1e-5)
    expected = ((lengths - 0.5) ** 2 / 0.5).sum(1)
    assert torch.allclose(edge_length_energy(bent, torch.tensor([0.5])), expected, rtol=1e-5)


def test_bend_is_taken_the_short_way_round():
    folded, other = hinge(torch.tensor([3.0])), hinge(torch.tensor([-3.0]))
    expected = 3 / 0.8 * (2 * math.pi - 6.0) ** 2
    assert float(bending_energy(folded, other)) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    "function",
    [
        lambda m, r: dihedral_angles(m) + 0.0 * r.vertices.sum(),
        lambda m, r: edge_lengths(m) + 0.0 * r.vertices.sum(),
        lambda m, r: bending_energy(m) + 0.0 * r.vertices.sum(),
        bending_energy,
        edge_length_energy,
    ],
    ids=["angles", "lengths", "bending", "bending from rest", "stretch"],
)
def test_gradient_at_several_steps(function):
    mesh, rest = lumpy(5), lumpy(6)
    rows = gradient_check(
        lambda v, r: function(Mesh(v, mesh.faces), Mesh(r, mesh.faces)),
        [mesh.vertices.requires_grad_(), rest.vertices.requires_grad_()],
        ["vertices", "rest"],
    )
    assert certified(rows) and all(row.note in ("", "zero, as are the differences") for row in rows), format_table(rows)


def test_gradient_to_a_length_that_every_edge_should_have():
    mesh = lumpy()
    rows = gradient_check(lambda x: edge_length_energy(mesh, x), [torch.tensor([0.3, 0.5], requires_grad=True)], ["length"])
    assert certified(rows) and not rows[0].note, format_table(rows)


def test_bending_descent_flattens_a_strip():
    bent = hinge(torch.tensor([1.2])).vertices.detach().requires_grad_()
    optimizer = torch.optim.SGD([bent], lr=0.02)
    for _ in range(100):
        optimizer.zero_grad()
        bending_energy(Mesh(bent, HINGE)).sum().backward()
        optimizer.step()
    assert float(dihedral_angles(Mesh(bent, HINGE)).abs().max()) < 0.01


def test_other_rest_shapes_are_refused():
    with pytest.raises(UserError, match="expected 4 vertices as in the mesh, got 42"):
        bending_energy(hinge(torch.tensor([0.5])), lumpy())
    with pytest.raises(UserError, match="expected 4 vertices as in the mesh, got 42"):
        edge_length_energy(hinge(torch.tensor([0.5])), lumpy())
    with pytest.raises(UserError, match=r"expected a Mesh or lengths of shape \(world,\)"):
        edge_length_energy(hinge(torch.tensor([0.5])), torch.ones(1, 5))
