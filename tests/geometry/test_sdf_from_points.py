"""A grid fitted to points: its terms against their definitions, its minimum against a dense solve, its holes closed."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dvc.errors import UserError
from dvc.gradient_check import gradient_check
from dvc.records import SdfGrid
from geometry.isosurface import extract_isosurface
from geometry.mesh_topology import mesh_topology
from geometry.sdf_from_points import (
    FreeSdf,
    PointMisfit,
    curvature_energy,
    drop_unsupported,
    fit_sdf,
    grid_levels,
    prolong,
    restrict,
    sphere_start,
)
from geometry.sdf_grid import grid_nodes, sample_sdf


def sphere(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    normals = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))
    normals = torch.nn.functional.normalize(normals, dim=1)
    return normals.clone(), normals


def grid_of(values: torch.Tensor, spacing: float = 0.3) -> SdfGrid:
    return SdfGrid(values, torch.tensor([-1.0, -0.9, -1.1]), spacing)


def random_grid(seed: int, worlds: int = 1) -> SdfGrid:
    return grid_of(torch.randn(worlds, 7, 6, 8, generator=torch.Generator().manual_seed(seed)))


def test_curvature_of_linear_and_quadratic_fields() -> None:
    origin, h, shape = torch.tensor([0.1, -0.2, 0.3]), 0.25, (7, 6, 5)
    x, y, z = grid_nodes(origin, h, shape)[0].unbind(dim=1)
    linear = SdfGrid((1.0 + x - 2.0 * y + 3.0 * z).reshape(1, *shape), origin, h)
    assert float(curvature_energy(linear)) < 1e-8
    bent = SdfGrid(torch.stack([x * x, y * z]).reshape(2, *shape), origin, h)
    # |H|^2 is 4 where the three-point difference exists, and 2 (yz and zy) in every cell's face
    torch.testing.assert_close(
        curvature_energy(bent), h**3 * torch.tensor([4.0 * 5 * 6 * 5, 2.0 * 7 * 5 * 4]), rtol=1e-4, atol=0.0
    )


def test_curvature_is_the_sum_of_its_differences() -> None:
    values = random_grid(0).values[0].double().numpy()
    total = 0.0
    for i in range(3):
        v = np.moveaxis(values, i, 0)
        total += ((v[2:] - 2 * v[1:-1] + v[:-2]) ** 2).sum()
        for j in range(i + 1, 3):
            total += 2.0 * (np.diff(np.diff(values, axis=i), axis=j) ** 2).sum()
    assert float(curvature_energy(random_grid(0))) == pytest.approx(total / 0.3, rel=1e-5)


def test_gradients() -> None:
    points, normals = sphere(60)
    misfit = PointMisfit(0.5 * points, normals, 0.1, 0.3, 0.01)
    for function in (curvature_energy, misfit):
        start = random_grid(1, worlds=2)
        rows = gradient_check(
            lambda v, f=function, g=start: f(g._replace(values=v)), [start.values.requires_grad_()], ["values"]
        )
        assert all(row.passed for row in rows), rows


def test_finer_grids_keep_quadratics_and_restriction_is_the_transpose() -> None:
    shape = (5, 6, 4)
    x, y, z = grid_nodes(torch.zeros(3), 1.0, shape)[0].reshape(*shape, 3).unbind(dim=3)
    fine = grid_nodes(torch.zeros(3), 0.5, (9, 11, 7))[0].reshape(9, 11, 7, 3).unbind(dim=3)
    field = lambda x, y, z: x * x + 0.5 * y * z - z + 2.0  # noqa: E731
    inner = slice(2, -2)
    torch.testing.assert_close(
        prolong(field(x, y, z)[None])[0, inner, inner, inner], field(*fine)[inner, inner, inner], rtol=1e-5, atol=1e-5
    )
    a, b = torch.randn(2, *shape), torch.randn(2, 9, 11, 7)
    assert float((prolong(a) * b).sum()) == pytest.approx(float((a * restrict(b)).sum()), rel=1e-3, abs=1e-3)


def test_the_minimum_is_that_of_a_dense_solve() -> None:
    points, normals = sphere(80)
    misfit = PointMisfit(points, normals, 0.02, 0.3, 0.02)
    levels = grid_levels(points, 12, margin=0.2)
    assert len(levels.shapes) == 2 and levels.shapes[1] == tuple(2 * n - 1 for n in levels.shapes[0])
    small = levels._replace(spacings=levels.spacings[:1], shapes=levels.shapes[:1])
    shape = small.shapes[0]
    count = math.prod(shape)
    units = SdfGrid(torch.eye(count).reshape(count, *shape), small.origin, small.spacings[0])
    matrix = misfit.gradient(units, 0.0)[0].reshape(count, count).double()
    torch.testing.assert_close(matrix, matrix.T, rtol=1e-3, atol=1e-3 * float(matrix.abs().max()))
    zero = units._replace(values=torch.zeros(1, *shape))
    assert torch.allclose(misfit.diagonal_of(zero).flatten().double(), matrix.diagonal(), rtol=1e-4)
    exact = torch.linalg.solve(matrix, -misfit.gradient(zero)[0].flatten().double()).float().reshape(1, *shape)
    losses = []
    found = fit_sdf(misfit, small, steps=0, last_steps=300, tolerance=1e-5, on_step=lambda level, loss: losses.append(loss))
    torch.testing.assert_close(found.values, exact, rtol=0.0, atol=2e-3)
    least = float(misfit(zero._replace(values=exact)))
    assert float(misfit(found)) == pytest.approx(least, rel=1e-4) and losses[-1] == pytest.approx(least, rel=1e-3)
    assert losses == sorted(losses, reverse=True)


def test_coarse_grids_make_the_fine_one_quick() -> None:
    points, normals = sphere(2000)
    sizes = torch.tensor([1.0, 0.5, 0.3])
    misfit = PointMisfit(points * sizes, torch.nn.functional.normalize(normals / sizes, dim=1), 0.01, 0.1, 1e-3)
    levels = grid_levels(misfit.points[0], 24)
    finest = levels._replace(spacings=levels.spacings[-1:], shapes=levels.shapes[-1:])
    steps: list[int] = []
    quick = float(misfit(fit_sdf(misfit, levels, last_steps=15, on_step=lambda level, loss: steps.append(level))))
    alone = float(misfit(fit_sdf(misfit, finest, last_steps=15)))
    least = float(misfit(fit_sdf(misfit, levels, steps=300, last_steps=200, tolerance=1e-5)))
    assert steps.count(len(levels.shapes) - 1) <= 15
    assert quick < 1.05 * least and alone - least > 2.0 * (quick - least)


def test_a_sphere_with_noise_and_a_hole() -> None:
    points, normals = sphere(6000)
    kept = points[:, 2] < 0.8
    points, normals = points[kept], normals[kept]
    noise = 0.03 * torch.randn(points.shape, generator=torch.Generator().manual_seed(1))
    misfit = PointMisfit(points + noise, normals, 0.03, 0.1, 3e-3)
    grid, turned = drop_unsupported(fit_sdf(misfit, grid_levels(points, 48)), points)
    mesh = extract_isosurface(grid, border="close")[0]
    radius = mesh.vertices[0].norm(dim=1)
    assert mesh_topology(mesh.faces).border_count == 0 and turned == 0
    seen = mesh.vertices[0, :, 2] < 0.75
    assert float((radius[seen] - 1.0).square().mean().sqrt()) < 0.3 * 0.03  # the noise is averaged out
    assert float((radius[~seen] - 1.0).abs().max()) < 0.1  # and the hole closed near where the sphere was
    noise_found, _ = misfit.residuals(grid)
    assert noise_found == pytest.approx(0.03, rel=0.1)


def test_weights_of_zero_leave_points_out() -> None:
    points, normals = sphere(200)
    weights = (torch.arange(200) % 2).float()
    grid = sphere_start(points, *(x[0] if i else x for i, x in enumerate(grid_levels(points, 8))))
    one = PointMisfit(points, normals, 0.1, 0.3, 0.01, weights)
    other = PointMisfit(points[1::2], normals[1::2], 0.1, 0.3, 0.01)
    torch.testing.assert_close(one.data_loss(grid), other.data_loss(grid))
    assert one.residuals(grid) == pytest.approx(other.residuals(grid), rel=1e-4)


def test_regions_without_points_change_sign() -> None:
    points, _ = sphere(500)
    levels = grid_levels(points, 24, margin=0.5)
    grid = sphere_start(points, levels.origin, levels.spacings[-1], levels.shapes[-1])
    torn = grid.values.clone()
    torn[0, :3, :3, :3] = -0.1  # inside, at the rim
    middle = tuple(n // 2 for n in torn.shape[1:])
    torn[0, middle[0], middle[1], middle[2]] = 0.2  # a bubble
    mended, turned = drop_unsupported(grid._replace(values=torn), points)
    assert turned == 2 and bool(((mended.values < 0.0) == (grid.values < 0.0)).all())
    same, turned = drop_unsupported(grid, points)
    assert turned == 0 and torch.equal(same.values, grid.values)


def test_a_free_grid_is_its_values() -> None:
    grid = random_grid(2)
    free = FreeSdf(grid)
    assert [name for name, _ in free.named_parameters()] == ["values"] and torch.equal(free().values, grid.values)
    curvature_energy(free()).sum().backward()
    assert free.values.grad is not None and float(free.values.grad.abs().max()) > 0.0


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["cloud", "plane", "line", "repeated", "two", "flipped"]), st.floats(-3, 3))
def test_bad_clouds_give_finite_grids(seed: int, kind: str, power: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(64, 3, generator=generator)
    normals = torch.randn(64, 3, generator=generator)
    if kind in ("plane", "line"):
        points[:, 2 if kind == "plane" else 1 :] = 0.0
    elif kind == "repeated":
        points = points[torch.zeros(64, dtype=torch.long).index_fill(0, torch.tensor([0]), 1)]
    elif kind == "two":
        points, normals = points[torch.arange(64) % 2], normals[:1].expand(64, 3)
    elif kind == "flipped":
        points, normals = points[:32].repeat(2, 1), torch.cat([normals[:32], -normals[:32]])
    points = points * 10.0**power
    misfit = PointMisfit(points, normals, 0.01 * 10.0**power, 0.3, 1e-3)
    grid = fit_sdf(misfit, grid_levels(points, 8), last_steps=20)
    assert bool(torch.isfinite(grid.values).all())
    value, slope = sample_sdf(grid, points[None])
    assert bool(torch.isfinite(value).all() and torch.isfinite(slope).all())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p, n: (p[:49], n[:49]), "expected at least 50 points, got 49"),
        (lambda p, n: (p, n[:50]), r"expected points and normals of one shape \(point, 3\), got \(60, 3\) and \(50, 3\)"),
        (lambda p, n: (p.index_fill(0, torch.tensor([7]), math.nan), n), "1 that are not, the first is point 7"),
        (lambda p, n: (p, n.index_fill(0, torch.tensor([3]), math.inf)), "1 that are not, the first is point 3"),
        (lambda p, n: (p, n.index_fill(0, torch.tensor([3, 4]), 0.0)), "got 2 of length zero"),
        (lambda p, n: (torch.zeros_like(p), n), "expected points with an extent"),
    ],
)
def test_clouds_that_are_refused(change, message: str) -> None:
    with pytest.raises(UserError, match=message):
        PointMisfit(*change(*sphere(60)), 0.1, 0.1, 0.1)


def test_numbers_that_are_refused() -> None:
    points, normals = sphere(60)
    for values, name in (((0.0, 1.0, 1.0), "point_noise"), ((1.0, math.nan, 1.0), "normal_noise"), ((1, 1, -1), "smoothness")):
        with pytest.raises(UserError, match=rf"PointMisfit\.{name}: expected a positive number"):
            PointMisfit(points, normals, *values)
    for weights in (torch.zeros(60), -torch.ones(60), torch.ones(59), torch.full((60,), math.nan)):
        with pytest.raises(UserError, match=r"PointMisfit\.weights: expected 60 numbers from 0"):
            PointMisfit(points, normals, 0.1, 0.1, 0.1, weights)
    with pytest.raises(UserError, match="expected cells from 6 and a margin"):
        grid_levels(points, 4)
    with pytest.raises(UserError, match="expected cells from 6 and a margin"):
        grid_levels(points, 16, margin=0.0)
