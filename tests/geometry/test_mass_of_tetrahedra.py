"""Mass of meshes and tetrahedra to 1e-5 in float32, also far from the origin; degenerate solids."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dvc.gradient_check import certified, format_table, gradient_check
from dvc.records import Bodies, Mesh, TetMesh
from geometry.mass_of_mesh import mass_of_mesh
from geometry.mass_of_tetrahedra import tet_volumes
from geometry.mass_properties import MassProperties, volume
from geometry.mesh import box_mesh, icosphere

STAGE = MassProperties()
RHO = torch.tensor([700.0])


def fan(vertices: torch.Tensor, faces: torch.Tensor) -> TetMesh:
    """A star-shaped mesh as tetrahedra around its mean vertex."""
    center = vertices.mean(1, keepdim=True)
    tets = torch.cat([torch.full((len(faces), 1), vertices.shape[1], dtype=torch.int32), faces], dim=1)
    return TetMesh(torch.cat([vertices, center], dim=1), tets)


def lumpy(worlds: int = 2, subdivisions: int = 1) -> Mesh:
    vertices, faces = icosphere(subdivisions)
    noise = torch.randn(worlds, len(vertices), 3, generator=torch.Generator().manual_seed(1))
    return Mesh(torch.from_numpy(vertices) * torch.tensor([0.5, 0.3, 1.0]) + 0.02 * noise, torch.from_numpy(faces))


def reference(vertices: torch.Tensor, tets: torch.Tensor, density: float) -> Bodies:
    """Plain float64: every tetrahedron about its own centre, then the parallel axis theorem."""
    p = vertices.double()[:, tets.long()]
    v = torch.linalg.det(p[:, :, 1:] - p[:, :, :1]) / 6
    c = p.mean(2)
    q = p - c[:, :, None]
    m = v.sum(1)
    center = (v[..., None] * c).sum(1) / m[:, None]
    own = torch.einsum("wtia,wtib->wtab", q, q) / 20
    r = c - center[:, None]
    second = (v[..., None, None] * (own + r[..., :, None] * r[..., None, :])).sum(1)
    trace = second.diagonal(dim1=1, dim2=2).sum(1)[:, None, None]
    return Bodies(density * m, center, density * (trace * torch.eye(3, dtype=torch.float64) - second))


def relative(ours: Bodies, truth: Bodies) -> float:
    """The largest of the relative errors of mass and inertia, and the centre's error in units of the solid's reach."""
    reach = (truth.inertia.diagonal(dim1=1, dim2=2).amax(1) / truth.mass).sqrt()
    errors = [
        ((ours.mass.double() - truth.mass) / truth.mass).abs().max(),
        ((ours.center_of_mass.double() - truth.center_of_mass).abs().amax(1) / reach).max(),
        ((ours.inertia.double() - truth.inertia).abs().amax((1, 2)) / truth.inertia.abs().amax((1, 2))).max(),
    ]
    return max(float(error) for error in errors)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e3])
def test_a_box_of_two_kinds_is_exact(scale):
    vertices, faces = box_mesh()
    half = torch.tensor([0.1, 0.2, 0.3]) * scale
    mesh = Mesh((torch.from_numpy(vertices) * half)[None], torch.from_numpy(faces))
    m = 700.0 * 8 * float(half.double().prod())
    x, y, z = (half.double() ** 2).tolist()
    inertia = torch.diag(torch.tensor([y + z, z + x, x + y], dtype=torch.float64) * m / 3)[None]
    truth = Bodies(torch.tensor([m], dtype=torch.float64), torch.zeros(1, 3, dtype=torch.float64), inertia)
    for shape in (mesh, fan(*mesh)):
        assert relative(STAGE(shape, RHO), truth) < 1e-6


def test_a_regular_tetrahedron():
    """Edge a: V = a^3 / (6 sqrt 2), I = m a^2 / 20 about every axis."""
    vertices = torch.tensor([[[1.0, 1, 1], [-1, -1, 1], [-1, 1, -1], [1, -1, -1]]])  # edge 2 sqrt 2
    tets = torch.tensor([[0, 1, 3, 2]], dtype=torch.int32)
    if float(tet_volumes(TetMesh(vertices, tets))) < 0:
        tets = torch.tensor([[0, 1, 2, 3]], dtype=torch.int32)
    bodies = STAGE(TetMesh(vertices, tets), RHO)
    m = 700.0 * 8 / 3
    truth = Bodies(
        torch.tensor([m]).double(), torch.zeros(1, 3).double(), (m * 8 / 20 * torch.eye(3, dtype=torch.float64))[None]
    )
    assert relative(bodies, truth) < 1e-6
    assert float(volume(TetMesh(vertices, tets))) == pytest.approx(8 / 3, rel=1e-6)


def test_ellipsoid_mesh_converges():
    errors = []
    for subdivisions in (3, 4):
        vertices, faces = icosphere(subdivisions)
        r = torch.tensor([0.5, 0.3, 0.2])
        bodies = STAGE(Mesh((torch.from_numpy(vertices) * r)[None], torch.from_numpy(faces)), RHO)
        m = 700 * 4 / 3 * math.pi * 0.5 * 0.3 * 0.2
        inertia = torch.diag(torch.tensor([0.13, 0.29, 0.34], dtype=torch.float64) * m / 5)[None]
        errors.append(relative(bodies, Bodies(torch.tensor([m]).double(), torch.zeros(1, 3).double(), inertia)))
    assert errors[0] / errors[1] == pytest.approx(4.0, rel=0.1)


@pytest.mark.parametrize("distance", [0.0, 10.0, 1000.0])
def test_far_from_the_origin_the_vertices_rounding_is_all(distance):
    mesh = lumpy(2, 3)
    far = Mesh(mesh.vertices + distance * torch.tensor([1.0, -0.7, 0.3]), mesh.faces)
    solid = fan(*far)
    truth = reference(solid.vertices, solid.tets, 700.0)
    for shape in (far, solid):
        bodies = STAGE(shape, RHO)
        # the centre itself is rounded to float32
        rounded = bodies._replace(center_of_mass=truth.center_of_mass) if distance else bodies
        assert relative(rounded, truth) < 1e-5
        assert float((bodies.center_of_mass.double() - truth.center_of_mass).abs().max()) <= 1e-7 * (1 + distance)


def test_many_faces_lose_nothing():
    mesh = lumpy(1, 6)  # 82k faces
    solid = fan(*mesh)
    truth = reference(solid.vertices, solid.tets, 700.0)
    assert relative(STAGE(mesh, RHO), truth) < 1e-6 and relative(STAGE(solid, RHO), truth) < 1e-6


@pytest.mark.parametrize("distance", [0.0, 20.0])
def test_gradients_equal_those_of_the_float64_twin(distance):
    mesh = lumpy()
    solid = fan(mesh.vertices + distance, mesh.faces)
    gradients = []
    for function in (lambda v: STAGE(TetMesh(v, solid.tets), RHO), lambda v: reference(v, solid.tets, 700.0)):
        vertices = solid.vertices.clone().requires_grad_()
        bodies = function(vertices)
        weights = [torch.linspace(-1, 2, value.numel()).reshape(value.shape).double() for value in bodies]
        sum((w * value.double()).sum() for w, value in zip(weights, bodies, strict=True)).backward()
        gradients.append(vertices.grad)
    assert torch.allclose(*gradients, rtol=1e-3, atol=1e-4 * float(gradients[1].abs().max()))


def test_gradient_at_several_steps():
    solid = fan(*lumpy())
    rows = gradient_check(
        lambda v, rho, offset: STAGE(TetMesh(v, solid.tets), rho, offset),
        [solid.vertices.requires_grad_(), torch.tensor([3.0, 5.0], requires_grad=True), torch.rand(2, 3, requires_grad=True)],
        ["vertices", "density", "offset"],
    )
    rows += gradient_check(lambda v: tet_volumes(TetMesh(v, solid.tets)), [solid.vertices], ["volumes"])
    mesh = lumpy()
    rows += gradient_check(
        lambda v: mass_of_mesh(Mesh(v, mesh.faces), torch.ones(2), torch.zeros(2, 3)),
        [mesh.vertices.requires_grad_()],
        ["mesh"],
    )
    assert certified(rows), format_table(rows)


@settings(max_examples=260, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    kind=st.sampled_from(["point", "line", "plane", "merged", "lattice", "random"]),
    exponent=st.integers(-8, 4),
)
def test_solids_without_volume_stay_finite(seed, kind, exponent):
    """Four worlds a case: flat, thin and inverted solids stay finite, gradients too, as meshes and tetrahedra."""
    g = np.random.default_rng(seed)
    points = g.normal(size=(4, 12, 3))
    if kind == "point":
        points[:] = points[:, :1]
    elif kind == "line":
        points = points[..., :1] * g.normal(size=3)
    elif kind == "plane":
        points[..., 2] = 0.25
    elif kind == "merged":
        points = points[:, g.integers(0, 12, 12)]
    elif kind == "lattice":
        points = np.round(points)
    vertices = torch.from_numpy((points * 10.0**exponent).astype(np.float32))
    faces = torch.from_numpy(icosphere(0)[1])
    tets = torch.from_numpy(g.integers(0, 12, (20, 4)).astype(np.int32))
    one, zero = torch.ones(4, requires_grad=True), torch.zeros(4, 3)
    for function in (lambda v: mass_of_mesh(Mesh(v, faces), one, zero), lambda v: STAGE(TetMesh(v, tets), one)):
        leaf = vertices.clone().requires_grad_()
        bodies = function(leaf)
        gradients = torch.autograd.grad(sum(value.sum() for value in bodies), [leaf, one])
        for value in (*bodies, *gradients):
            assert torch.isfinite(value).all()
