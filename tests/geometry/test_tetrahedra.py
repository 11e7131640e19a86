import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dvc.errors import UserError
from dvc.records import Mesh, SdfGrid, TetMesh
from geometry.mesh_quality import angle_statistics, dihedral_angles
from geometry.mesh_topology import mesh_topology
from geometry.sdf_grid import grid_nodes
from geometry.tetrahedra import IsosurfaceStuffing, boundary_faces, isosurface_stuffing, pinched_vertices, stuff_field

CENTER = torch.tensor((0.011, -0.023, 0.007))
PAPER = (10.78, 164.74)  # [degrees]


def ball(points):
    return torch.linalg.norm(points - CENTER.to(points), dim=-1) - 0.6


def ball_grid(n=16):
    spacing = 2.0 / (n - 1)
    values = ball(grid_nodes(torch.full((3,), -1.0), spacing, (n, n, n))).reshape(1, n, n, n)
    return SdfGrid(values, torch.full((3,), -1.0), spacing)


def volumes(mesh: TetMesh):
    a, b, c, d = (mesh.vertices[0][mesh.tets[:, i].long()].double() for i in range(4))
    return ((b - a) * torch.linalg.cross(c - a, d - a)).sum(dim=1) / 6.0


def require_conforming(mesh: TetMesh):
    """All tets positive, every face in one or two of them, the surface closed, wound outwards, of one fan at each vertex."""
    mesh = TetMesh(mesh.vertices.detach(), mesh.tets)
    assert float(volumes(mesh).min()) > 0.0
    tets = mesh.tets.numpy().astype(np.int64)
    faces = np.sort(np.concatenate([np.delete(tets, i, axis=1) for i in range(4)]), axis=1)
    counts = np.unique(faces, axis=0, return_counts=True)[1]
    surface = torch.from_numpy(boundary_faces(tets))
    assert counts.max() <= 2 and (counts == 1).sum() == len(surface)
    assert mesh_topology(surface).border_count == 0
    assert len(pinched_vertices(tets)) == 0
    a, b, c = (mesh.vertices[0][surface[:, i]].double() for i in range(3))
    assert np.isclose(float((a * torch.linalg.cross(b, c)).sum() / 6.0), float(volumes(mesh).sum()), rtol=1e-5)
    assert len(np.unique(tets)) == mesh.vertices.shape[1]


def noise_grid(seed, kind, n=9):
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(1, n, n, n, generator=generator)
    if kind == "steps":
        values = (values * 1.5).round() * 0.5
    elif kind == "smooth":
        values = torch.nn.functional.avg_pool3d(values[None], 3, 1, 1)[0]
    for axis in (1, 2, 3):
        for i in (0, 1, -1, -2):
            values.select(axis, i).fill_(1.0)
    values[0, n // 2, n // 2, n // 2] = -1.0
    return SdfGrid(values, torch.zeros(3), 1.0)


def test_ball():
    errors = []
    for n in (14, 27):
        mesh = isosurface_stuffing(ball_grid(n))[0]
        require_conforming(mesh)
        statistics = angle_statistics(mesh)
        assert statistics.minimum > PAPER[0] and statistics.maximum < PAPER[1]
        errors.append(abs(float(volumes(mesh).sum()) / (4.0 / 3.0 * np.pi * 0.6**3) - 1.0))
    assert errors[1] < 0.35 * errors[0]  # second order


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), kind=st.sampled_from(["noise", "steps", "smooth"]))
def test_any_field_gives_a_conforming_mesh_and_finite_gradients(seed, kind):
    grid = noise_grid(seed, kind)
    grid = grid._replace(values=grid.values.requires_grad_())
    mesh = isosurface_stuffing(grid)[0]
    require_conforming(mesh)
    assert torch.isfinite(dihedral_angles(mesh)).all()
    (mesh.vertices**2).sum().backward()
    assert torch.isfinite(grid.values.grad).all() and bool((grid.values.grad != 0).any())


def test_the_papers_bound_on_white_noise(monkeypatch):
    """Where no point is held, whatever the values."""
    monkeypatch.setattr("geometry.tetrahedra.pinched_vertices", lambda tets: np.zeros(0, np.int64))
    for seed in range(6):
        statistics = angle_statistics(isosurface_stuffing(noise_grid(seed, "noise", 16))[0])
        assert statistics.minimum > PAPER[0] and statistics.maximum < PAPER[1]


def test_gradient_of_the_positions():
    grid = ball_grid(10)
    base = grid.values.double().requires_grad_()
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(base.shape, generator=generator).double()
    mesh = isosurface_stuffing(grid._replace(values=base))[0]
    weight = torch.randn(mesh.vertices.shape, generator=generator).double()
    (mesh.vertices * weight).sum().backward()
    analytic = float((base.grad * direction).sum())
    for h in (1e-5, 1e-6, 1e-7):
        sides = [isosurface_stuffing(grid._replace(values=base.detach() + s * h * direction))[0] for s in (1, -1)]
        assert torch.equal(sides[0].tets, sides[1].tets)
        numeric = float(((sides[0].vertices - sides[1].vertices) * weight).sum()) / (2 * h)
        assert abs(numeric - analytic) < 2e-3 * abs(analytic)


def test_inner_vertices_are_constant_and_the_volume_changes_by_the_area():
    grid = ball_grid(20)
    values = grid.values.clone().requires_grad_()
    origin = grid.origin.clone().requires_grad_()
    mesh = isosurface_stuffing(SdfGrid(values, origin, grid.spacing))[0]
    surface = np.unique(boundary_faces(mesh.tets.numpy().astype(np.int64)))
    inner = np.setdiff1d(np.arange(mesh.vertices.shape[1]), surface)
    slope, shift = torch.autograd.grad(mesh.vertices[:, inner].sum(), (values, origin), retain_graph=True)
    assert float(slope.abs().max()) == 0.0 and torch.allclose(shift, torch.full((3,), float(len(inner))))
    (slope,) = torch.autograd.grad(volumes(mesh).sum(), values)
    assert np.isclose(float(slope.sum()), -4.0 * np.pi * 0.36, rtol=0.02)


def test_a_field_at_the_lattice_points():
    radius = torch.tensor([0.5, 0.6], requires_grad=True)

    def two_balls(points):
        return torch.linalg.norm(points, dim=-1) - radius[:, None]

    meshes = stuff_field(two_balls, torch.full((3,), -1.0), 0.1, (21, 21, 21))
    for mesh, r in zip(meshes, (0.5, 0.6)):
        require_conforming(mesh)
        assert np.isclose(float(volumes(mesh).sum()), 4.0 / 3.0 * np.pi * r**3, rtol=0.02)
    volumes(meshes[1]).sum().backward()
    assert float(radius.grad[0]) == 0.0 and np.isclose(float(radius.grad[1]), 4.0 * np.pi * 0.36, rtol=0.03)
    with pytest.raises(UserError, match="expected values of shape"):
        stuff_field(lambda points: points, torch.zeros(3), 0.1, (5, 5, 5))


def test_worlds():
    grid = ball_grid(12)
    meshes = IsosurfaceStuffing()(grid._replace(values=torch.cat([grid.values, grid.values + 0.1])))
    assert torch.equal(meshes[0].tets, isosurface_stuffing(grid)[0].tets) and len(meshes[1].tets) < len(meshes[0].tets)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        (torch.ones(1, 6, 6, 6), "got none"),
        (-torch.ones(1, 6, 6, 6), "away from the grid's rim"),
        (torch.ones(6, 6, 6), "expected shape"),
        (torch.full((1, 6, 6, 6), float("inf")), "finite"),
    ],
)
def test_wrong_fields(values, says):
    with pytest.raises(UserError, match=says):
        isosurface_stuffing(SdfGrid(values, torch.zeros(3), 1.0))


def test_dihedral_angles_of_known_tetrahedra():
    points = torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 0], [1, 0, 1], [0, 1, 1]]])
    corner, regular = dihedral_angles(TetMesh(points, torch.tensor([[0, 1, 2, 3], [0, 4, 5, 6]])))[0]
    assert torch.allclose(corner.sort()[0], torch.tensor([54.7356] * 3 + [90.0] * 3).double(), atol=1e-3)
    assert torch.allclose(regular, torch.full((6,), 70.5288).double(), atol=1e-3)
    flat = dihedral_angles(TetMesh(points, torch.tensor([[0, 0, 0, 0], [0, 1, 2, 4]])))
    assert torch.isfinite(flat).all()
    with pytest.raises(UserError, match="at least one cell"):
        dihedral_angles(TetMesh(points, torch.zeros(0, 4, dtype=torch.int32)))
    with pytest.raises(UserError, match="at least one cell"):
        angle_statistics(Mesh(points, torch.zeros(0, 3, dtype=torch.int32)))
