import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dvc.errors import UserError
from dvc.gradient_check import format_table, gradient_check
from dvc.records import SdfGrid
from geometry.redistance import Redistance, closest_on_zero_set, redistance
from geometry.sdf_grid import grid_nodes, sample_sdf

CENTRE, RADIUS = torch.tensor([0.03, -0.02, 0.05]), 0.55


def distorted_sphere(n, worlds=1):
    """A field with a sphere as its zero set whose slope varies by a factor of three, and the true distance."""
    spacing, origin = 2.0 / (n - 1), torch.full((3,), -1.0)
    x = grid_nodes(origin, spacing, (n, n, n))
    r = (x - CENTRE).norm(dim=-1)
    field = (r * r - RADIUS**2) * (1.5 + 0.7 * torch.sin(3.0 * x[..., 0]))
    return SdfGrid(field.reshape(1, n, n, n).repeat(worlds, 1, 1, 1), origin, spacing), (r - RADIUS).reshape(1, n, n, n)


def slopes(values, spacing):
    """Lengths of central differences at inner nodes."""
    x = [values.roll(-1, axis) - values.roll(1, axis) for axis in (0, 1, 2)]
    return (torch.stack(x).norm(dim=0) / (2.0 * spacing))[2:-2, 2:-2, 2:-2]


def test_distance_and_slope_converge():
    """The error of the distance falls at third order, that of |grad d| = 1 at second; 0.02 cells and 3 % at 33 nodes."""
    errors, slope_errors = [], []
    for n in (17, 33):
        grid, true = distorted_sphere(n)
        values = redistance(grid).values
        away = (true > 0.15 - RADIUS)[0]  # not the centre, where the distance has its kink
        errors.append(float((values - true).abs()[0][away].max()))
        slope_errors.append(float((slopes(values[0], grid.spacing) - 1.0).abs()[(true[0].abs() < 0.3)[2:-2, 2:-2, 2:-2]].max()))
    assert errors[1] < 0.02 * 2.0 / 32 and errors[1] < errors[0] / 6.0
    assert slope_errors[1] < 0.035 and slope_errors[1] < slope_errors[0] / 3.0


def test_zero_set_stays_to_second_order():
    """Where the field is zero, so is the distance: the shift falls at least by four when cells are halved."""
    shifts = []
    for n in (17, 33):
        grid, _ = distorted_sphere(n)
        direction = torch.nn.functional.normalize(torch.randn(1, 500, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
        x = CENTRE + RADIUS * direction
        for _ in range(5):  # onto the root of the interpolant
            value, gradient = sample_sdf(grid, x, "cubic")
            x = x - gradient * (value / (gradient * gradient).sum(-1))[..., None]
        shifts.append(float(sample_sdf(redistance(grid), x, "cubic")[0].abs().max()))
    assert shifts[1] < 0.01 * 2.0 / 32 and shifts[1] < shifts[0] / 4.0


def test_plane_is_exact_and_a_distance_stays():
    origin, spacing = torch.zeros(3), 0.1
    x = grid_nodes(origin, spacing, (9, 10, 11))
    normal = torch.nn.functional.normalize(torch.tensor([1.0, 2.0, -0.5]), dim=0)
    plane = (x @ normal - 0.43).reshape(1, 9, 10, 11)
    once = redistance(SdfGrid(7.0 * plane, origin, spacing)).values
    inner = (slice(None), slice(2, -2), slice(2, -2), slice(2, -2))
    near = plane[inner].abs() < 0.15  # farther nodes have their closest point beyond the rim
    assert torch.allclose(once[inner][near], plane[inner][near], atol=1e-5)


def test_closest_points_lie_on_the_zero_set():
    grid, _ = distorted_sphere(21)
    y = closest_on_zero_set(grid)
    assert float(((y - CENTRE).norm(dim=-1) - RADIUS).abs().max()) < 0.02 * grid.spacing


@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_gradient_to_the_field(scale):
    grid, true = distorted_sphere(13)
    values = (scale * grid.values).requires_grad_()
    away = (true > 0.2 - RADIUS).float()

    def run(values):
        return redistance(grid._replace(values=values)).values * away

    rows = gradient_check(run, (values,), ("values",), steps=(3e-3, 1e-3, 3e-4))
    assert all(row.passed for row in rows), format_table(rows)
    assert not any(row.note for row in rows), format_table(rows)


def test_gradient_of_an_offset():
    """Adding c to a distance field moves every distance by c; scaling a field moves none."""
    grid, true = distorted_sphere(17)
    values = grid.values.clone().requires_grad_()
    offset = torch.zeros(1, requires_grad=True)
    scale = torch.ones(1, requires_grad=True)
    exact = SdfGrid((true + offset) * scale, grid.origin, grid.spacing)
    moved = redistance(exact).values
    count = moved.numel()
    by_offset, by_scale = torch.autograd.grad(moved.sum(), (offset, scale))
    assert float(by_offset) == pytest.approx(count, rel=5e-3)
    assert abs(float(by_scale)) < 1e-3 * count * grid.spacing
    assert values.grad is None


def test_worlds_are_apart_and_the_stage_is_the_function():
    grid, _ = distorted_sphere(13, worlds=2)
    shifted = torch.stack([grid.values[0], grid.values[1] + 0.2])
    both = Redistance()(grid._replace(values=shifted)).values
    alone = redistance(grid._replace(values=shifted[1:])).values
    assert torch.equal(both[1:], alone) and not torch.equal(both[0], both[1])


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (torch.ones(1, 3, 3, 3), "expected values of both signs, got one sign in world 0"),
        (torch.full((1, 3, 3, 3), float("nan")), "expected finite values"),
        (torch.ones(3, 3, 3), "expected values \\(world, nx, ny, nz\\)"),
    ],
)
def test_errors_are_one_clear_line(values, words):
    with pytest.raises(UserError, match=words) as caught:
        redistance(SdfGrid(values, torch.zeros(3), 1.0))
    assert "\n" not in str(caught.value)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from([-2.0, -1.0, -1e-30, 0.0, 1e-30, 1e-3, 1.0, 3.0]), min_size=48, max_size=48),
    st.sampled_from([1e-20, 1.0, 1e20]),
)
def test_never_nan(values, scale):
    """Rough fields with zeros, flat places and single nodes: finite values of the right sign, finite gradients."""
    field = (torch.tensor(values) * scale).reshape(1, 4, 3, 4)
    field[0, 0, 0, 0], field[0, 1, 1, 1] = scale, -scale
    field.requires_grad_()
    moved = redistance(SdfGrid(field, torch.zeros(3), 0.5)).values
    moved.sum().backward()
    assert bool(torch.isfinite(moved).all()) and bool(torch.isfinite(field.grad).all())
    assert bool((moved * field.detach().sign() >= 0.0).all())
    assert float(moved.detach().abs().max()) <= 0.5 * 5.0


def test_a_field_of_zeros_is_refused():
    with pytest.raises(UserError, match="both signs"):
        redistance(SdfGrid(torch.zeros(1, 5, 5, 5), torch.zeros(3), 0.1))
