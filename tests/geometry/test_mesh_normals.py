import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dvc.errors import UserError
from dvc.gradient_check import certified, format_table, gradient_check
from dvc.records import Mesh
from geometry.laplacian import cotangent_laplacian, cotangents, vertex_areas
from geometry.mesh import box_mesh, icosphere
from geometry.mesh_energies import bending_energy, dihedral_angles, edge_length_energy, edge_lengths
from geometry.mesh_normals import face_areas, face_normals, vertex_normals


def box(worlds: int = 1) -> Mesh:
    vertices, faces = box_mesh()
    return Mesh(torch.from_numpy(vertices).repeat(worlds, 1, 1), torch.from_numpy(faces))


def lumpy(worlds: int = 2) -> Mesh:
    vertices, faces = icosphere(1)
    noise = torch.randn(worlds, len(vertices), 3, generator=torch.Generator().manual_seed(1))
    return Mesh(torch.from_numpy(vertices) + 0.1 * noise, torch.from_numpy(faces))


def twin(vertices: torch.Tensor, faces: torch.Tensor, by_angle: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Face normals, areas and vertex normals in plain float64 torch."""
    v = vertices.double()
    a, b, c = (v[:, faces[:, i].long()] for i in range(3))
    cross = torch.linalg.cross(b - a, c - a)
    twice = cross.norm(dim=-1, keepdim=True)
    sums = torch.zeros_like(v)
    for i, (p, q, r) in enumerate(((a, b, c), (b, c, a), (c, a, b))):
        weight = torch.atan2(twice, ((q - p) * (r - p)).sum(-1, keepdim=True)) / twice if by_angle else 1.0
        sums = sums.index_add(1, faces[:, i].long(), cross * weight)
    return cross / twice, 0.5 * twice[..., 0], sums / sums.norm(dim=-1, keepdim=True)


def test_box_by_hand():
    mesh = Mesh(box().vertices * torch.tensor([1.0, 2.0, 3.0]), box().faces)
    assert float(face_areas(mesh).sum()) == pytest.approx(2 * 4 * (1 * 2 + 2 * 3 + 3 * 1))
    normals = face_normals(mesh)[0]
    centres = mesh.vertices[0][mesh.faces.long()].mean(1)
    assert torch.allclose((normals * centres).sum(1).sort().values, torch.tensor([1.0, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]))
    # by angle a corner of a box looks along the diagonal, however its sides are cut; by area it does not
    corner = vertex_normals(box())[0, 7]
    assert torch.allclose(corner, torch.full((3,), 1 / math.sqrt(3)), atol=1e-6)


def test_vertex_normals_of_a_sphere_converge_to_radial_ones():
    """The largest error halves with the edges (it sits where the triangulation is uneven), the mean falls faster."""
    largest = {}
    for weighting in ("angle", "area"):
        errors = []
        for subdivisions in (3, 4, 5):
            vertices, faces = icosphere(subdivisions)
            mesh = Mesh(torch.from_numpy(vertices)[None], torch.from_numpy(faces))
            distance = (vertex_normals(mesh, weighting) - mesh.vertices).norm(dim=-1)
            errors.append((float(distance.max()), float(distance.mean())))
        for coarse, fine in itertools.pairwise(errors):
            assert coarse[0] / fine[0] == pytest.approx(2.0, rel=0.02) and coarse[1] / fine[1] > 2.7, errors
        largest[weighting] = errors[-1][0]
    assert largest["angle"] < 0.5 * largest["area"] < 2e-3


@pytest.mark.parametrize("by_angle", [True, False])
def test_equal_to_the_float64_twin_in_both_directions(by_angle):
    mesh = lumpy()
    vertices = mesh.vertices.clone().requires_grad_()
    ours = Mesh(vertices, mesh.faces)
    results = []
    for values in (
        (face_normals(ours), face_areas(ours), vertex_normals(ours, "angle" if by_angle else "area")),
        twin(vertices, mesh.faces, by_angle),
    ):
        loss = sum((x.double() * torch.sin(torch.arange(x.numel()).reshape(x.shape))).sum() for x in values)
        results.append([*values, torch.autograd.grad(loss, vertices)[0]])
    for mine, theirs in zip(*results, strict=True):
        assert torch.allclose(mine.double(), theirs.double(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("function", [face_normals, face_areas, vertex_normals, lambda m: vertex_normals(m, "area")])
def test_gradient_at_several_steps(function):
    mesh = lumpy()
    rows = gradient_check(lambda v: function(Mesh(v, mesh.faces)), [mesh.vertices.requires_grad_()], ["vertices"])
    assert certified(rows) and not rows[0].note, format_table(rows)


def test_tiny_and_large_meshes_keep_their_normals():
    mesh = lumpy(1)
    expected = face_normals(mesh)
    for scale in (1e-6, 1e7):
        assert torch.allclose(face_normals(Mesh(mesh.vertices * scale, mesh.faces)), expected, atol=1e-5)


def test_other_weighting_is_refused():
    with pytest.raises(UserError, match="expected 'angle' or 'area', got 'size'"):
        vertex_normals(box(), "size")  # type: ignore[arg-type]


QUANTITIES = {
    "face normals": lambda m, r: face_normals(m),
    "face areas": lambda m, r: face_areas(m),
    "vertex normals": lambda m, r: vertex_normals(m),
    "vertex normals by area": lambda m, r: vertex_normals(m, "area"),
    "cotangents": lambda m, r: cotangents(m),
    "laplacian": lambda m, r: cotangent_laplacian(m),
    "barycentric": lambda m, r: vertex_areas(m),
    "voronoi": lambda m, r: vertex_areas(m, "voronoi"),
    "lengths": lambda m, r: edge_lengths(m),
    "angles": lambda m, r: dihedral_angles(m),
    "bending": lambda m, r: bending_energy(m),
    "bending from rest": lambda m, r: bending_energy(m, r),
    "stretch from rest": lambda m, r: edge_length_energy(m, r),
}


@pytest.mark.slow
@settings(max_examples=350, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    kind=st.sampled_from(["merged points", "line", "plane", "lattice", "point", "fold", "slivers", "tiny"]),
    exponent=st.integers(-8, 4),
)
def test_degenerate_meshes_have_finite_values_and_gradients(seed, kind, exponent):
    """Four worlds a case, so more than a thousand bad meshes: every quantity and both gradients are finite."""
    generator = np.random.default_rng(seed)
    base, _ = icosphere(0)
    points = np.repeat(base[None].astype(np.float64), 4, axis=0) + 0.2 * generator.normal(size=(4, 12, 3))
    if kind == "merged points":
        points = points[:, generator.integers(0, 12, 12)]
    elif kind == "line":
        points = points[..., :1] * generator.normal(size=3)
    elif kind == "plane":
        points[..., 2] = 0.25
    elif kind == "lattice":
        points = np.round(points)
    elif kind == "point":
        points[:] = points[:, :1]
    elif kind == "fold":
        points[..., 2] = np.abs(points[..., 2]) * generator.integers(0, 2)
    elif kind == "slivers":
        points[..., 1:] *= 10.0 ** -generator.uniform(3, 12)
    elif kind == "tiny":
        points *= 10.0 ** -generator.uniform(5, 25)
    vertices = torch.from_numpy(np.float32(points * 10.0**exponent)).requires_grad_()
    rest = torch.from_numpy(np.float32(points[:, ::-1].copy())).requires_grad_()
    total = torch.zeros(())
    for name, quantity in QUANTITIES.items():
        value = quantity(Mesh(vertices, FACES), Mesh(rest, FACES))
        assert torch.isfinite(value).all(), name
        weighted = (value * torch.linspace(-1, 2, value.numel()).reshape(value.shape)).sum()
        for gradient in torch.autograd.grad(weighted, (vertices, rest), allow_unused=True):
            assert gradient is None or torch.isfinite(gradient).all(), name
        total = total + weighted.detach()


FACES = torch.from_numpy(icosphere(0)[1])


def test_nan_is_not_hidden():
    vertices = torch.rand(1, 4, 3)
    vertices[0, 0, 0] = float("nan")
    mesh = Mesh(vertices, torch.tensor([[0, 1, 2], [1, 3, 2]], dtype=torch.int32))
    assert face_areas(mesh).isnan().tolist() == [[True, False]]
    assert vertex_normals(mesh)[0].isnan().any(dim=1).tolist() == [True, True, True, False]
