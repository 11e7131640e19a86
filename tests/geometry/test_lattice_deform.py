import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dvc.errors import UserError
from dvc.gradient_check import certified, format_table, gradient_check
from dvc.records import Mesh
from geometry.lattice_deform import LatticeDeform, bernstein, cubic_bspline
from geometry.mesh import icosphere

LOWER, UPPER = (-1.1, -1.2, -1.3), (1.3, 1.2, 1.1)
CASES = {"bernstein": (4, 2, 3), "bspline": (4, 6, 5)}


def sphere(worlds: int = 1) -> Mesh:
    vertices, faces = icosphere(1)
    return Mesh(torch.from_numpy(vertices).repeat(worlds, 1, 1), torch.from_numpy(faces))


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(2))


def test_bernstein_by_hand():
    s = torch.linspace(0, 1, 11)
    expected = torch.stack([math.comb(4, i) * s**i * (1 - s) ** (4 - i) for i in range(5)], 1)
    assert torch.allclose(bernstein(s, 5), expected, atol=1e-6)


def test_bspline_is_smooth_and_local():
    s = torch.linspace(0, 1, 4001, dtype=torch.float64)
    weights = cubic_bspline(s, 8)
    assert torch.allclose(weights.sum(1), torch.ones(4001, dtype=torch.float64)) and float(weights.min()) >= 0
    assert ((weights > 0).sum(1) <= 4).all()
    second = (weights[2:] - 2 * weights[1:-1] + weights[:-2]) * 4000.0**2
    assert float((second[1:] - second[:-1]).abs().max()) < 0.2  # no jump: the third derivative is 125 at most


@pytest.mark.parametrize("basis", CASES)
def test_linear_displacements_move_linearly(basis):
    """Displacing every control point by A p + b maps x to x + A x + b: translations, rotations and stretches are exact."""
    lattice = LatticeDeform(LOWER, UPPER, CASES[basis], basis)
    a, b = 0.3 * noise(2, 3, 3), noise(2, 3)
    moves = torch.einsum("wab,ijkb->wijka", a, lattice.nodes) + b[:, None, None, None]
    mesh = sphere()
    expected = mesh.vertices + mesh.vertices @ a.mT + b[:, None]
    assert torch.allclose(lattice(mesh, moves).vertices, expected, atol=1e-5)
    assert torch.equal(lattice(mesh, torch.zeros_like(moves)).vertices[0], mesh.vertices[0])


@pytest.mark.parametrize("basis", CASES)
def test_equal_to_the_plain_sum(basis):
    lattice = LatticeDeform(LOWER, UPPER, CASES[basis], basis)
    function = bernstein if basis == "bernstein" else cubic_bspline
    moves, mesh = noise(2, *lattice.counts, 3), sphere(2)
    got = lattice(mesh, moves).vertices
    for world, vertex in ((0, 5), (1, 17)):
        s = (mesh.vertices[world, vertex] - lattice.lower) / lattice.extent
        expected = mesh.vertices[world, vertex].clone()
        bases = [function(s[axis], n) for axis, n in enumerate(lattice.counts)]
        for i, x in enumerate(bases[0]):
            for j, y in enumerate(bases[1]):
                for k, z in enumerate(bases[2]):
                    expected += x * y * z * moves[world, i, j, k]
        assert torch.allclose(got[world, vertex], expected, atol=1e-5)


@pytest.mark.parametrize("basis", CASES)
def test_gradient_at_several_steps(basis):
    lattice = LatticeDeform(LOWER, UPPER, CASES[basis], basis)
    mesh = sphere(2)
    rows = gradient_check(
        lambda v, d: lattice(Mesh(v, mesh.faces), d).vertices,
        [mesh.vertices.requires_grad_(), (0.2 * noise(2, *lattice.counts, 3)).requires_grad_()],
        ["vertices", "displacements"],
    )
    assert certified(rows) and not any(row.note for row in rows), format_table(rows)


def test_points_outside_move_as_the_nearest_point_of_the_box():
    lattice = LatticeDeform((0, 0, 0), (1, 1, 1), (3, 3, 3))
    moves = noise(1, 3, 3, 3, 3)
    faces = torch.tensor([[0, 1, 2]], dtype=torch.int32)
    outside = Mesh(torch.tensor([[[2.0, 0.5, 0.5], [-1.0, 3.0, 0.2], [0.4, 0.4, -5.0]]]), faces)
    nearest = Mesh(outside.vertices.clamp(0, 1), faces)
    assert torch.allclose(
        lattice(outside, moves).vertices - outside.vertices, lattice(nearest, moves).vertices - nearest.vertices, atol=1e-6
    )


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    basis=st.sampled_from(list(CASES)),
    place=st.sampled_from([-1e6, -1.1, 0.0, 1.3, 1e6]),
    flat=st.booleans(),
)
def test_bad_meshes_have_finite_values_and_gradients(seed, basis, place, flat):
    generator = torch.Generator().manual_seed(seed)
    lattice = LatticeDeform(LOWER, UPPER, CASES[basis], basis)
    vertices = torch.randn(4, 12, 3, generator=generator)
    vertices[..., int(torch.randint(3, (1,), generator=generator))] = place
    vertices = (vertices[:, :1].expand(-1, 12, -1) if flat else vertices).clone().requires_grad_()
    moves = torch.randn(4, *lattice.counts, 3, generator=generator, requires_grad=True)
    moved = lattice(Mesh(vertices, torch.tensor([[0, 1, 2]], dtype=torch.int32)), moves).vertices
    (moved**2).sum().backward()
    assert all(torch.isfinite(x).all() for x in (moved, vertices.grad, moves.grad))


def test_wrong_arguments_are_named():
    with pytest.raises(UserError, match="expected a lower corner below the upper"):
        LatticeDeform((0, 0, 0), (1, 1, 0))
    with pytest.raises(UserError, match="counts: expected three numbers from 4"):
        LatticeDeform(LOWER, UPPER, (4, 4, 3), "bspline")
    with pytest.raises(UserError, match="expected 'bernstein' or 'bspline'"):
        LatticeDeform(LOWER, UPPER, basis="nurbs")
    with pytest.raises(UserError, match=r"displacements: expected shape \(world, 4, 4, 4, 3\), got \(1, 3\)"):
        LatticeDeform(LOWER, UPPER)(sphere(), torch.zeros(1, 3))
