"""A hollow body: the offset keeps the wall, masses have closed forms, gradients agree with differences, cavities may vanish."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dvc.errors import UserError
from dvc.gradient_check import gradient_check
from dvc.records import Bodies, Mesh, SdfGrid
from geometry.hollow_body import HollowMass, InnerOffset, cavity_mesh, least_wall, mass_between, without
from geometry.mass_of_mesh import mass_of_mesh
from geometry.mesh import icosphere
from geometry.mesh_topology import mesh_topology
from geometry.sdf_grid import grid_nodes

RADIUS, WALL, SOFT = 0.5, 0.1, 0.05


def ball_grid(nodes: int = 41, side: float = 1.4) -> SdfGrid:
    spacing = side / (nodes - 1)
    origin = torch.tensor([-0.5 * side + 0.013, -0.5 * side, -0.5 * side])
    points = grid_nodes(origin, spacing, (nodes, nodes, nodes))
    return SdfGrid((points.norm(dim=-1) - RADIUS).reshape(1, nodes, nodes, nodes), origin, spacing)


def offset(count: int = 5) -> InnerOffset:
    return InnerOffset([-RADIUS] * 3, [RADIUS] * 3, count, WALL, SOFT)


def depth_of(thickness: float) -> float:
    """The depth that gives an offset."""
    return SOFT * math.log(math.expm1((thickness - WALL) / SOFT))


def shell(outer: float, inner: float) -> tuple[float, float]:
    """Mass and moment of inertia of a ball with a concentric ball taken out, density 1."""
    return 4 / 3 * math.pi * (outer**3 - inner**3), 8 / 15 * math.pi * (outer**5 - inner**5)


def test_a_constant_depth_is_a_constant_offset_with_the_mass_of_a_shell():
    grid, offsets = ball_grid(), offset()
    depth = torch.full((2, offsets.size), depth_of(0.2))
    cavity = offsets(grid, depth)
    assert torch.allclose(cavity.values - grid.values, torch.tensor(0.2), atol=1e-6)
    mass, inertia = shell(RADIUS, RADIUS - 0.2)
    bodies = HollowMass(grid, offsets)(depth, torch.tensor([3.0]))
    assert bodies.mass.tolist() == pytest.approx([3.0 * mass] * 2, rel=2e-3)
    assert bodies.center_of_mass.abs().max() < 1e-4
    assert torch.allclose(bodies.inertia[1], 3.0 * inertia * torch.eye(3), atol=4e-3 * 3.0 * inertia)
    outer, inner = cavity_mesh(grid), cavity_mesh(offsets(grid, depth[:1]))
    assert outer is not None and inner is not None
    found = mass_between(outer, inner, torch.ones(1))
    assert found.mass.item() == pytest.approx(mass, rel=5e-3)
    assert torch.allclose(found.inertia[0], inertia * torch.eye(3), atol=8e-3 * inertia)


def test_a_body_without_another_is_that_of_their_parts():
    """A ball of radius 2 at the origin without one of radius 1 at x = 1/2: closed forms by Steiner's theorem."""

    def ball(radius: float, x: float) -> Bodies:
        mass = 4 / 3 * math.pi * radius**3
        inertia = 0.4 * mass * radius**2 * torch.eye(3)[None]
        return Bodies(torch.tensor([mass]), torch.tensor([[x, 0.0, 0.0]]), inertia)

    outer, inner = ball(2.0, 0.0), ball(1.0, 0.5)
    found = without(outer, inner)
    m_o, m_i = outer.mass.item(), inner.mass.item()
    c = -0.5 * m_i / (m_o - m_i)
    assert found.mass.item() == pytest.approx(m_o - m_i, rel=1e-6)
    assert found.center_of_mass[0].tolist() == pytest.approx([c, 0.0, 0.0], abs=1e-7)
    around = 0.4 * (4.0 * m_o - m_i) + m_o * c**2 - m_i * (0.5 - c) ** 2
    expected = torch.diag(torch.tensor([0.4 * (4.0 * m_o - m_i), around, around]))
    assert torch.allclose(found.inertia[0], expected, rtol=1e-5, atol=1e-4)
    with pytest.raises(UserError, match="less mass inside"):
        without(inner, outer)


def test_a_depth_beyond_the_body_leaves_it_solid_and_gives_no_cavity():
    grid, offsets = ball_grid(), offset()
    depth = torch.full((1, offsets.size), 2.0 * RADIUS, requires_grad=True)
    bodies = HollowMass(grid, offsets)(depth)
    assert bodies.mass.item() == pytest.approx(shell(RADIUS, 0.0)[0], rel=2e-3)
    gradient = torch.autograd.grad(bodies.inertia.sum() + bodies.mass.sum(), depth)[0]
    assert torch.isfinite(gradient).all()
    assert cavity_mesh(offsets(grid, depth)) is None


def test_a_cavity_may_be_in_two_pieces():
    grid, offsets = ball_grid(61), offset(9)
    x = torch.linspace(-1.0, 1.0, 9)[:, None, None].expand(9, 9, 9)
    depth = torch.where(x.abs() < 0.1, 1.0, -0.2).reshape(1, -1)
    mesh = cavity_mesh(offsets(grid, depth))
    assert mesh is not None and mesh_topology(mesh.faces).border_count == 0
    faces = mesh.faces.long()
    euler = mesh.vertices.shape[1] - len(mesh_topology(mesh.faces).edges) + len(faces)
    assert euler == 4  # two spheres
    one, zero = torch.ones(1), torch.zeros(1, 3)
    assert mass_of_mesh(mesh, one, zero).center_of_mass.abs().max() < 0.01


def test_gradients_agree_with_differences():
    grid, offsets = ball_grid(31), offset()
    hollow = HollowMass(grid, offsets)
    generator = torch.Generator().manual_seed(0)
    depth = (0.05 * torch.randn(1, offsets.size, generator=generator) + 0.08).requires_grad_(True)
    density = torch.tensor([1.3], requires_grad=True)
    rows = gradient_check(lambda *x: tuple(hollow(*x)), (depth, density), ("depth", "density"))
    rows += gradient_check(lambda d, v: offsets(SdfGrid(v, grid.origin, grid.spacing), d).values,
                           (depth, grid.values.clone().requires_grad_(True)), ("offset's depth", "grid"))  # fmt: skip
    leaves = [torch.tensor([2.0]), torch.rand(1, 3), 3.0 * torch.eye(3)[None] + 0.1, torch.tensor([0.7]), torch.rand(1, 3),
              0.2 * torch.eye(3)[None]]  # fmt: skip
    leaves = [t.requires_grad_(True) for t in leaves]
    rows += gradient_check(
        lambda *t: tuple(without(Bodies(*t[:3]), Bodies(*t[3:]))), leaves, [f"without {i}" for i in range(6)]
    )
    assert all(row.passed and row.analytic != 0.0 for row in rows), rows


def test_the_meshes_mass_has_the_gradient_of_differences_in_the_depths():
    grid, offsets = ball_grid(), offset()
    outer = cavity_mesh(grid)
    assert outer is not None
    depth = (0.05 * torch.randn(1, offsets.size, generator=torch.Generator().manual_seed(1)) + 0.05).requires_grad_(True)

    def bodies(d: torch.Tensor) -> tuple[torch.Tensor, ...]:
        inner = cavity_mesh(offsets(grid, d))
        assert inner is not None
        return tuple(mass_between(outer, inner, torch.ones(1)))

    rows = gradient_check(bodies, [depth], ["depth"])
    assert all(row.passed for row in rows), rows


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.0, 30.0))
def test_the_wall_holds_and_nothing_is_nan_whatever_the_depths(seed: int, size: float):
    grid, offsets = ball_grid(25), offset(6)
    depth = (size * torch.randn(1, offsets.size, generator=torch.Generator().manual_seed(seed))).requires_grad_(True)
    cavity = offsets(grid, depth)
    assert (cavity.values >= grid.values + WALL - 1e-6).all()
    bodies = HollowMass(grid, offsets)(depth)
    gradient = torch.autograd.grad(sum(t.sum() for t in bodies), depth)[0]
    assert all(torch.isfinite(t).all() for t in (*bodies, gradient))
    mesh = cavity_mesh(cavity)
    if mesh is not None:
        assert mesh_topology(mesh.faces).border_count == 0
        assert (mesh.vertices.norm(dim=-1) < RADIUS - WALL + 0.1 * grid.spacing).all()


def test_the_wall_between_two_spheres_and_one_that_sticks_out():
    vertices, faces = icosphere(3)
    ball = Mesh(torch.from_numpy(vertices)[None], torch.from_numpy(faces))
    assert least_wall(ball, Mesh(0.7 * ball.vertices, ball.faces)) == pytest.approx(0.3, abs=0.01)
    assert least_wall(ball, Mesh(0.7 * ball.vertices + 0.2, ball.faces)) < 0.0
    assert mass_between(ball, None, torch.ones(1)).mass.item() == pytest.approx(4 / 3 * math.pi, rel=0.02)


def test_wrong_arguments_are_refused_by_name():
    grid = ball_grid(21)
    with pytest.raises(UserError, match="count from 4"):
        InnerOffset([0.0] * 3, [1.0] * 3, 3, 0.1, 0.1)
    with pytest.raises(UserError, match="lower corner"):
        InnerOffset([0.0] * 3, [1.0, 0.0, 1.0], 5, 0.1, 0.1)
    with pytest.raises(UserError, match=r"\(world, 125\)"):
        offset()(grid, torch.zeros(1, 7))
    with pytest.raises(UserError, match="room around"):
        HollowMass(grid._replace(values=grid.values - 0.3), offset())
    with pytest.raises(UserError, match="one world"):
        HollowMass(grid._replace(values=grid.values.expand(2, -1, -1, -1)), offset())
    with pytest.raises(UserError, match="one world"):
        cavity_mesh(grid._replace(values=grid.values.expand(2, -1, -1, -1)))
