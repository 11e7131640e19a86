import math

import pytest
import torch
from torch import Tensor

from dvc.errors import UserError
from dvc.records import Bodies, BoxShape, Mesh, SphereShape
from geometry.mass_properties import MassProperties
from geometry.mesh import BoxMesh, SphereMesh, TriangleMesh, box_mesh

STAGE = MassProperties()
TETRAHEDRON = torch.tensor([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]], dtype=torch.int32)


def reference(mesh: Mesh, density: Tensor) -> Bodies:
    """A plain float64 twin: signed tetrahedra from the origin."""
    p, rho = mesh.vertices.double(), density.double()
    a, b, c = (p[:, mesh.faces[:, i].long()] for i in range(3))
    v = (a * torch.linalg.cross(b, c)).sum(-1) / 6
    s = a + b + c
    volume = v.sum(1)
    center = (v[..., None] * s / 4).sum(1) / volume[:, None]
    outer = sum(x[..., :, None] * x[..., None, :] for x in (a, b, c, s))
    second = (v[..., None, None] * outer / 20).sum(1) - volume[:, None, None] * center[:, :, None] * center[:, None, :]
    trace = second.diagonal(dim1=1, dim2=2).sum(-1)[:, None, None]
    return Bodies(rho * volume, center, rho[:, None, None] * (trace * torch.eye(3, dtype=torch.float64) - second))


def test_box():
    half = torch.tensor([[0.1, 0.2, 0.3]])
    bodies = STAGE(BoxShape(half), torch.tensor([500.0]), torch.tensor([[1.0, 2.0, 3.0]]))
    mass = 500 * 8 * 0.1 * 0.2 * 0.3
    assert float(bodies.mass[0]) == pytest.approx(mass)
    assert bodies.center_of_mass[0].tolist() == [1.0, 2.0, 3.0]
    diagonal = [mass / 3 * (y * y + z * z) for y, z in ((0.2, 0.3), (0.3, 0.1), (0.1, 0.2))]
    assert torch.allclose(bodies.inertia[0], torch.diag(torch.tensor(diagonal)), rtol=1e-5)


def test_sphere():
    bodies = STAGE(SphereShape(torch.tensor([0.2, 0.4])), torch.tensor([1000.0]))
    mass = 1000 * 4 / 3 * math.pi * 0.4**3
    assert float(bodies.mass[1]) == pytest.approx(mass, rel=1e-5)
    assert torch.allclose(bodies.inertia[1], 0.4 * mass * 0.16 * torch.eye(3), rtol=1e-5)
    assert bodies.center_of_mass.tolist() == [[0.0] * 3] * 2


def test_box_mesh_equals_the_box_shape():
    half, density = torch.tensor([[0.1, 0.2, 0.3], [0.3, 0.1, 0.1]]), torch.tensor([700.0])
    for mesh_value, shape_value in zip(STAGE(BoxMesh()(half), density), STAGE(BoxShape(half), density), strict=True):
        assert torch.allclose(mesh_value, shape_value, rtol=1e-4, atol=1e-6)


def test_tetrahedron():
    """The corner tetrahedron with legs 1: volume 1/6, centre 1/4, about the centre I_xx = 2 (1/60 - 1/96)."""
    vertices = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]])
    bodies = STAGE(Mesh(vertices, TETRAHEDRON), torch.ones(1))
    assert float(bodies.mass[0]) == pytest.approx(1 / 6, rel=1e-5)
    assert torch.allclose(bodies.center_of_mass[0], torch.full((3,), 0.25), rtol=1e-5)
    # integral of x^2 is 1/60 and of x y 1/120; less mass / 16 for the centre
    expected = torch.full((3, 3), -(1 / 120 - 1 / 96)).fill_diagonal_(2 * (1 / 60 - 1 / 96))
    assert torch.allclose(bodies.inertia[0], expected, rtol=1e-4)


def test_icosphere_converges_to_the_sphere():
    errors = []
    for subdivisions in (2, 3, 4):
        bodies = STAGE(SphereMesh(subdivisions)(torch.tensor([0.5])), torch.tensor([2.0]))
        exact = STAGE(SphereShape(torch.tensor([0.5])), torch.tensor([2.0]))
        ratios = bodies.mass / exact.mass, bodies.inertia[0, 0, 0] / exact.inertia[0, 0, 0]
        errors.append([abs(float(ratio) - 1.0) for ratio in ratios])
    for coarse, fine in ((0, 1), (1, 2)):
        for quantity in (0, 1):
            assert errors[coarse][quantity] / errors[fine][quantity] == pytest.approx(4.0, rel=0.1)


def test_mesh_far_from_its_origin_keeps_its_accuracy():
    mesh = SphereMesh(3)(torch.tensor([0.05]))
    far = Mesh(mesh.vertices + 4.0, mesh.faces)
    near, moved = STAGE(mesh, torch.tensor([1000.0])), STAGE(far, torch.tensor([1000.0]))
    assert torch.allclose(moved.center_of_mass, near.center_of_mass + 4.0, atol=1e-6)
    assert torch.allclose(moved.inertia, near.inertia, rtol=1e-3, atol=1e-7)


def lumpy() -> Tensor:
    noise = torch.randn(2, 42, 3, generator=torch.Generator().manual_seed(1))
    return SphereMesh(1)(torch.tensor([0.4, 0.5])).vertices + 0.05 * noise


CUBE = TriangleMesh(vertices=box_mesh()[0], faces=box_mesh()[1])
CASES = {
    "sphere radius": (lambda x: STAGE(SphereShape(x), torch.tensor([900.0]), torch.ones(1, 3)), torch.tensor([0.3, 0.5])),
    "box half extents": (lambda x: STAGE(BoxShape(x), torch.tensor([900.0])), torch.tensor([[0.3, 0.2, 0.1]])),
    "density": (lambda x: STAGE(BoxShape(torch.tensor([[0.3, 0.2, 0.1]])), x), torch.tensor([900.0, 400.0])),
    "offset": (lambda x: STAGE(SphereShape(torch.tensor([0.3])), torch.ones(1), x), torch.tensor([[0.3, -0.2, 0.1]])),
    "mesh vertices": (lambda x: STAGE(Mesh(x, SphereMesh(1).faces), torch.tensor([900.0])), lumpy()),
    "mesh density": (lambda x: STAGE(Mesh(lumpy(), SphereMesh(1).faces), x), torch.tensor([900.0, 400.0])),
    "mesh offset": (lambda x: STAGE(Mesh(lumpy(), SphereMesh(1).faces), torch.ones(1), x), torch.rand(2, 3)),
    "mesh scale": (lambda x: STAGE(CUBE(x, torch.full((1, 3), 0.3)), torch.ones(1)), torch.tensor([0.4])),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_gradient_at_several_steps(name):
    """Directional derivative against central differences; the best of the steps must agree to 0.1 %."""
    function, start = CASES[name]
    generator = torch.Generator().manual_seed(3)
    direction = torch.randn(start.shape, generator=generator)
    weights = [torch.randn(value.shape, generator=generator) for value in function(start)]
    # each output in units of its own size, so that none drowns another
    scales = [value.detach().abs().max().clamp_min(1e-3) for value in function(start)]

    def loss(x: Tensor) -> Tensor:
        return sum((w * value.double() / s).sum() for w, value, s in zip(weights, function(x), scales, strict=True))

    x = start.clone().requires_grad_()
    loss(x).backward()
    analytic = float((x.grad * direction).sum())
    size = float(start.abs().max())
    errors = []
    for step in (1e-2 * size, 3e-3 * size, 1e-3 * size):
        numeric = float(loss(start + step * direction) - loss(start - step * direction)) / (2 * step)
        errors.append(abs(analytic - numeric) / abs(numeric))
    assert min(errors) < 1e-3, errors


def test_mesh_equals_its_float64_twin_in_both_directions():
    vertices = lumpy().requires_grad_()
    density = torch.tensor([900.0, 400.0], requires_grad=True)
    faces = SphereMesh(1).faces
    results = []
    for function in (lambda: STAGE(Mesh(vertices, faces), density), lambda: reference(Mesh(vertices, faces), density)):
        vertices.grad = density.grad = None
        bodies = function()
        weights = [torch.linspace(-1, 2, value.numel()).reshape(value.shape) for value in bodies]
        sum((w * value).sum() for w, value in zip(weights, bodies, strict=True)).backward()
        results.append([*(value.detach().double() for value in bodies), vertices.grad.double(), density.grad.double()])
    for ours, twin in zip(*results, strict=True):
        assert torch.allclose(ours, twin, rtol=1e-4, atol=1e-4 * float(twin.abs().max()))


def test_open_mesh_is_refused():
    with pytest.raises(UserError, match="3 border edges"):
        STAGE(Mesh(torch.rand(1, 4, 3), TETRAHEDRON[:3]), torch.ones(1))


def test_inward_faces_are_refused():
    vertices = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]])
    with pytest.raises(UserError, match="positive volume"):
        STAGE(Mesh(vertices, TETRAHEDRON.flip(1).contiguous()), torch.ones(1))


def test_other_shapes_are_refused():
    with pytest.raises(UserError, match="expected SphereShape, BoxShape, Mesh, TetMesh or SdfGrid, got Tensor"):
        STAGE(torch.ones(1), torch.ones(1))


@pytest.mark.parametrize("factor", [-1.0, float("nan")])
def test_bad_vertices_are_refused_after_good_ones_of_the_same_faces(factor):
    vertices, faces = (torch.from_numpy(x) for x in box_mesh())
    assert float(STAGE(Mesh(vertices[None], faces), torch.ones(1)).mass) == pytest.approx(8.0)
    with pytest.raises(UserError, match="positive volume"):
        STAGE(Mesh(vertices[None] * torch.tensor([factor, 1.0, 1.0]), faces), torch.ones(1))
