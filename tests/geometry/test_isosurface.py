import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dvc.errors import UserError
from dvc.records import Mesh, SdfGrid
from geometry.isosurface import ExtractIsosurface, extract_isosurface
from geometry.mesh_quality import angle_statistics, triangle_angles
from geometry.mesh_topology import mesh_topology
from geometry.sdf_grid import grid_nodes


def sphere_grid(n=24, radius=0.7, center=(0.011, -0.023, 0.007)):
    spacing = 2.0 / (n - 1)
    nodes = grid_nodes(torch.full((3,), -1.0), spacing, (n, n, n)).reshape(1, n, n, n, 3)
    return SdfGrid(torch.linalg.norm(nodes - torch.tensor(center), dim=-1) - radius, torch.full((3,), -1.0), spacing)


def volume(mesh: Mesh):
    a, b, c = (mesh.vertices[0][mesh.faces[:, i].long()].double() for i in range(3))
    return (a * torch.linalg.cross(b, c)).sum() / 6.0


def require_manifold(mesh: Mesh):
    """Every edge has two faces wound alike, every vertex one fan: one cycle of opposite edges."""
    faces = mesh.faces.numpy()
    assert mesh_topology(mesh.faces).border_count == 0  # raises at an edge of more than two faces or opposite windings
    following = {(int(f[i]), int(f[(i + 1) % 3])): int(f[(i + 2) % 3]) for f in faces for i in range(3)}
    degree = np.bincount(faces.reshape(-1), minlength=mesh.vertices.shape[1])
    assert degree.min() >= 3
    start = {int(f[i]): int(f[(i + 1) % 3]) for f in faces for i in range(3)}
    for vertex, first in start.items():
        at, steps = following[vertex, first], 1
        while at != first:
            at, steps = following[vertex, at], steps + 1
        assert steps == degree[vertex]


def closed(values):
    out = torch.ones(tuple(n + 2 for n in values.shape))
    out[1:-1, 1:-1, 1:-1] = values
    return SdfGrid(out[None], torch.zeros(3), 1.0)


@settings(max_examples=120, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1), kind=st.sampled_from(["noise", "steps", "signs", "tiny"]), smoothing=st.sampled_from([0, 3])
)
def test_any_field_gives_a_manifold_and_finite_gradients(seed, kind, smoothing):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(4, 5, 4, generator=generator)
    if kind == "steps":
        values = (values * 1.5).round() * 0.5  # many zeros and equal neighbours
    elif kind == "signs":
        values = values.sign()
    elif kind == "tiny":
        values = values * 10.0 ** (-40.0 * torch.rand(values.shape, generator=generator))
    values[2, 2, 2] = -1.0
    grid = closed(values)
    grid = grid._replace(values=grid.values.requires_grad_())
    mesh = extract_isosurface(grid, smoothing)[0]
    require_manifold(mesh)
    assert torch.isfinite(mesh.vertices).all()
    (mesh.vertices * torch.randn(mesh.vertices.shape, generator=generator)).sum().backward()
    assert torch.isfinite(grid.values.grad).all()


@pytest.mark.parametrize("smoothing", [0, 10])
def test_sphere(smoothing):
    errors = []
    for n in (24, 47):
        mesh = extract_isosurface(sphere_grid(n), smoothing)[0]
        require_manifold(mesh)
        topology = mesh_topology(mesh.faces)
        assert mesh.vertices.shape[1] - len(topology.edges) + len(mesh.faces) == 2
        errors.append(abs(float(volume(mesh)) / (4.0 / 3.0 * np.pi * 0.7**3) - 1.0))
        distance = torch.linalg.norm(mesh.vertices - torch.tensor((0.011, -0.023, 0.007)), dim=-1) - 0.7
        assert float(distance.abs().max()) < 0.6 * (2.0 / (n - 1)) ** 2
    assert float(volume(mesh)) > 0.0 and errors[1] < 0.3 * errors[0]  # second order
    if smoothing:
        assert angle_statistics(mesh).minimum > 25.0


def test_gradient_of_the_positions_without_smoothing():
    grid = sphere_grid(10)
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(grid.values.shape, generator=generator).double()
    base = grid.values.double().requires_grad_()
    mesh = extract_isosurface(grid._replace(values=base), 0)[0]
    weight_of = torch.randn(mesh.vertices.shape, generator=generator).double()
    (mesh.vertices * weight_of).sum().backward()
    analytic = float((base.grad * direction).sum())
    for h in (1e-4, 1e-5, 1e-6):
        sides = [extract_isosurface(grid._replace(values=base.detach() + s * h * direction), 0)[0] for s in (1, -1)]
        assert torch.equal(sides[0].faces, mesh.faces) or sides[0].vertices.shape == mesh.vertices.shape
        numeric = float(((sides[0].vertices - sides[1].vertices) * weight_of).sum()) / (2 * h)
        assert abs(numeric - analytic) < 1e-3 * abs(analytic)


def test_implicit_function_theorem():
    """dx . n = -df / |grad f| at every vertex; and the volume's derivative is that of finite differences."""
    grid = sphere_grid(20)
    base = grid.values.double().requires_grad_()
    mesh = extract_isosurface(grid._replace(values=base), 10)[0]
    normal = torch.nn.functional.normalize(mesh.vertices.detach()[0] - torch.tensor((0.011, -0.023, 0.007)), dim=1)
    (along,) = torch.autograd.grad((mesh.vertices[0] * normal).sum(), base, retain_graph=True)
    assert abs(float(along.sum()) + mesh.vertices.shape[1]) < 0.02 * mesh.vertices.shape[1]  # df = 1 everywhere
    bump = torch.rand(base.shape, generator=torch.Generator().manual_seed(1)).double()
    (slope,) = torch.autograd.grad(volume(mesh), base)
    analytic = float((slope * bump).sum())
    for h in (1e-5, 3e-6):  # small, so that the topology stays; what remains is of second order in the spacing
        sides = [extract_isosurface(grid._replace(values=base.detach() + s * h * bump), 10)[0] for s in (1, -1)]
        assert all(torch.equal(side.faces, mesh.faces) for side in sides)
        assert abs(float(volume(sides[0]) - volume(sides[1])) / (2 * h) - analytic) < 0.01 * abs(analytic)


def test_vertices_move_along_the_normal_as_the_field_rises():
    """What they do in truth, sliding along the surface as well, nears what the gradient says as the grid is refined."""
    errors = []
    for n in (20, 39):
        grid = sphere_grid(n)
        base = grid.values.double()
        mesh = extract_isosurface(grid._replace(values=base), 10)[0]
        normal = torch.nn.functional.normalize(mesh.vertices[0] - torch.tensor((0.011, -0.023, 0.007)), dim=1)
        moved = [extract_isosurface(grid._replace(values=base + s * 1e-5), 10)[0].vertices for s in (1, -1)]
        speed = ((moved[0] - moved[1])[0] / 2e-5 * normal).sum(dim=1)
        errors.append(float((speed + 1.0).abs().median()))
    assert errors[1] < 0.02 and errors[1] < 0.7 * errors[0]


def test_gradient_to_the_origin():
    grid = sphere_grid(10)
    origin = grid.origin.clone().requires_grad_()
    mesh = extract_isosurface(grid._replace(origin=origin))[0]
    mesh.vertices.sum().backward()
    assert torch.allclose(origin.grad, torch.full((3,), float(mesh.vertices.shape[1])))


def test_worlds_have_their_own_faces():
    one, two = sphere_grid(16), sphere_grid(16, radius=0.5)
    meshes = ExtractIsosurface()(SdfGrid(torch.cat([one.values, two.values]), one.origin, one.spacing))
    for mesh, grid in zip(meshes, (one, two)):
        alone = extract_isosurface(grid)[0]
        assert torch.equal(mesh.faces, alone.faces) and torch.allclose(mesh.vertices, alone.vertices, atol=1e-6)
    assert len(meshes[0].faces) > len(meshes[1].faces)


def test_an_inside_at_the_rim_raises_or_is_closed():
    grid = sphere_grid(16, radius=1.2)
    with pytest.raises(UserError, match="ends before the grid's rim"):
        extract_isosurface(grid)
    mesh = extract_isosurface(grid, border="close")[0]
    require_manifold(mesh)
    assert float(mesh.vertices.abs().max()) <= 1.0 + 0.5 * grid.spacing + 1e-5
    full = extract_isosurface(SdfGrid(torch.full((1, 4, 4, 4), -1.0), torch.zeros(3), 1.0), 0, "close")[0]
    assert 27.0 < float(volume(full)) < 64.0  # beyond the nodes, short of half a cell outside them, corners rounded


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (torch.ones(1, 4, 4, 4), "no change of sign"),
        (torch.ones(4, 4, 4), "expected shape"),
        (torch.full((1, 4, 4, 4), float("nan")), "finite"),
    ],
)
def test_wrong_fields(values, says):
    with pytest.raises(UserError, match=says):
        extract_isosurface(SdfGrid(values, torch.zeros(3), 1.0))


def test_wrong_options():
    for options in ({"smoothing": -1}, {"border": "open"}):
        with pytest.raises(UserError, match="smoothing >= 0 and border"):
            extract_isosurface(sphere_grid(8), **options)


def test_angles_of_known_triangles():
    points = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [2, 0, 0], [0, 0, 0]]])
    angles = triangle_angles(Mesh(points, torch.tensor([[0, 1, 2], [0, 1, 3], [0, 0, 4]])))
    assert torch.allclose(angles[0, 0], torch.tensor([90.0, 45.0, 45.0]).double())
    assert torch.allclose(angles[0, 1], torch.tensor([0.0, 180.0, 0.0]).double())
    assert torch.isfinite(angles).all()
