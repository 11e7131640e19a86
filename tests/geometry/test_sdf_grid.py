import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dvc.errors import UserError
from dvc.gradient_check import format_table, gradient_check
from dvc.records import SdfGrid
from geometry.sdf_grid import SdfSampler, grid_nodes, resample, sample_sdf, sdf_normal

ORIGIN, SPACING = torch.tensor([-0.3, 0.1, 0.2]), 0.25


def field(function, shape=(7, 6, 8), spacing=SPACING):
    nodes = grid_nodes(ORIGIN, spacing, shape)
    return SdfGrid(function(nodes).reshape(1, *shape), ORIGIN, spacing)


def points_in(grid, count=200, seed=0, margin=0.0):
    generator = torch.Generator().manual_seed(seed)
    size = grid.spacing * (torch.tensor(grid.values.shape[1:]) - 1.0)
    return grid.origin + size * (margin + (1 - 2 * margin) * torch.rand(1, count, 3, generator=generator))


def twin(values, units, cubic):
    """One world, sum over taps in torch."""

    def weights(f):
        if not cubic:
            return torch.stack([0 * f, 1 - f, f, 0 * f], -1)
        return 0.5 * torch.stack([-f + 2 * f**2 - f**3, 2 - 5 * f**2 + 3 * f**3, f + 4 * f**2 - 3 * f**3, f**3 - f**2], -1)

    padded = values
    for axis in range(3):  # linear extrapolation by one node on each side
        first, last = padded.narrow(axis, 0, 1), padded.narrow(axis, padded.shape[axis] - 1, 1)
        second, before = padded.narrow(axis, 1, 1), padded.narrow(axis, padded.shape[axis] - 2, 1)
        padded = torch.cat([2 * first - second, padded, 2 * last - before], axis)
    cell = torch.stack([units[:, i].detach().floor().clamp(0, values.shape[i] - 2) for i in range(3)], 1).long()
    w = [weights(units[:, i] - cell[:, i]) for i in range(3)]
    total = 0.0
    for a in range(4):
        for b in range(4):
            for c in range(4):
                total = total + w[0][:, a] * w[1][:, b] * w[2][:, c] * padded[cell[:, 0] + a, cell[:, 1] + b, cell[:, 2] + c]
    return total


@pytest.mark.parametrize("method", ["linear", "cubic"])
def test_reproduces_what_it_should(method):
    """linear: trilinear functions; cubic: quadratics away from the rim."""

    def function(x):
        return 0.3 + x[..., 0] * x[..., 1] - 2 * x[..., 2] + (x[..., 0] ** 2 if method == "cubic" else 0.0)

    grid = field(function)
    points = points_in(grid, margin=0.2 if method == "cubic" else 0.0)
    points.requires_grad_()
    value, gradient = sample_sdf(grid, points, method)
    (expected,) = torch.autograd.grad(function(points).sum(), points)
    assert torch.allclose(value, function(points), atol=2e-5)
    assert torch.allclose(gradient, expected, atol=2e-4)
    assert torch.allclose(sdf_normal(grid, points, method).norm(dim=-1), torch.ones(1, 200), atol=1e-5)


@pytest.mark.parametrize("method", ["linear", "cubic"])
def test_against_a_torch_twin(method):
    values = torch.randn(1, 5, 4, 6, generator=torch.Generator().manual_seed(1))
    grid = SdfGrid(values.requires_grad_(), ORIGIN, SPACING)
    points = points_in(grid).requires_grad_()
    value, gradient = sample_sdf(grid, points, method)
    expected = twin(values[0].double(), ((points[0] - ORIGIN) / SPACING).double(), method == "cubic")
    assert torch.allclose(value[0].double(), expected, atol=2e-5)
    weight = torch.randn(200, generator=torch.Generator().manual_seed(2)).double()
    expected_gradients = torch.autograd.grad((expected * weight).sum(), (values, points), create_graph=True)
    got = torch.autograd.grad((value[0].double() * weight).sum(), (values, points), retain_graph=True)
    for a, b in zip(got, expected_gradients):
        assert torch.allclose(a, b, atol=1e-4)
    # the second output, and its derivatives, against double backward of the twin
    slope = torch.autograd.grad(expected.sum(), points, create_graph=True)[0]
    assert torch.allclose(gradient, slope, atol=1e-3)
    direction = torch.randn(points.shape, generator=torch.Generator().manual_seed(3))
    wanted = torch.autograd.grad((slope * direction).sum(), (values, points))
    got = torch.autograd.grad((gradient * direction).sum(), (values, points))
    for a, b in zip(got, wanted):
        assert torch.allclose(a, b, atol=1e-3 * float(b.abs().max()))


def test_cubic_is_continuously_differentiable():
    grid = SdfGrid(torch.randn(1, 6, 6, 6), torch.zeros(3), 1.0)
    nodes = torch.tensor([[2.0, 2.3, 3.6], [3.0, 1.2, 2.5], [1.0, 2.0, 4.0]])[None]
    _, left = sample_sdf(grid, nodes - 1e-4, "cubic")
    _, right = sample_sdf(grid, nodes + 1e-4, "cubic")
    assert torch.allclose(left, right, atol=5e-3)


@pytest.mark.parametrize("method", ["linear", "cubic"])
def test_gradient_of_every_input_inside_and_outside(method):
    generator = torch.Generator().manual_seed(4)
    grid = field(lambda x: (x - torch.tensor([0.4, 0.7, 1.1])).norm(dim=-1) - 0.35)
    inside, far = points_in(grid, 6, seed=5), points_in(grid, 6, seed=6)
    far[..., 1] -= 2.0
    for points in (inside, far):

        def run(values, points):
            return sample_sdf(SdfGrid(values, ORIGIN, SPACING), points, method)

        inputs = (grid.values.clone().requires_grad_(), points.clone().requires_grad_())
        rows = gradient_check(run, inputs, ("values", "points"), steps=(1e-2, 3e-3, 1e-3, 3e-4, 1e-4))
        assert all(row.passed for row in rows), format_table(rows)
        assert not any(row.note.startswith("excluded") for row in rows), format_table(rows)
    assert generator is not None


def test_outside_is_continuous_and_never_too_far():
    """Sphere inside the box: outside values are below the true distance, above zero, and meet those of the rim."""
    centre, radius = torch.tensor([0.0, 0.0, 0.0]), 0.5
    grid = SdfGrid((grid_nodes(torch.full((3,), -1.0), 0.1, (21, 21, 21)).norm(dim=-1) - radius).reshape(1, 21, 21, 21),
                   torch.full((3,), -1.0), 0.1)  # fmt: skip
    points = 6.0 * (torch.rand(1, 2000, 3, generator=torch.Generator().manual_seed(7)) - 0.5)
    points = points[:, (points.abs() > 1.0).any(dim=-1)[0]]
    value, gradient = sample_sdf(grid, points, "cubic")
    true = (points - centre).norm(dim=-1) - radius
    assert bool((value <= true + 1e-4).all()) and bool((value > 0.3 * true).all())
    assert bool((gradient.norm(dim=-1) <= 1.01).all())
    rim = torch.tensor([[[1.0, 0.3, -0.4]]])
    step = torch.tensor([1e-5, 0.0, 0.0])
    inner, outer = sample_sdf(grid, rim - step)[0], sample_sdf(grid, rim + step)[0]
    assert torch.allclose(inner, outer, atol=1e-4)


def test_solid_beyond_the_rim_ends_there():
    grid = SdfGrid(torch.full((1, 3, 3, 3), -0.2), torch.zeros(3), 0.5)
    value, gradient = sample_sdf(grid, torch.tensor([[[1.5, 0.5, 0.5], [1.1, 0.5, 0.5], [0.5, 0.5, 0.5]]]))
    assert value[0].tolist() == pytest.approx([0.3, -0.1, -0.2])
    assert torch.allclose(gradient[0], torch.tensor([[1.0, 0, 0], [1.0, 0, 0], [0.0, 0, 0]]))


def test_resample_and_worlds():
    grid = field(lambda x: x[..., 0] - 2 * x[..., 1] + x[..., 2])
    grid = grid._replace(values=torch.cat([grid.values, 2 * grid.values]).requires_grad_())
    other = resample(grid, ORIGIN + 0.05, 0.13, (5, 4, 6))
    expected = grid_nodes(ORIGIN + 0.05, 0.13, (5, 4, 6)) @ torch.tensor([1.0, -2.0, 1.0])
    assert torch.allclose(other.values.flatten(1), torch.cat([expected, 2 * expected]), atol=1e-5)
    other.values[1].sum().backward()
    assert float(grid.values.grad[0].abs().max()) == 0.0
    assert float(grid.values.grad[1].sum()) == pytest.approx(120.0, rel=1e-5)


def test_stage_and_no_points():
    grid = field(lambda x: x[..., 0])
    assert SdfSampler("cubic")(grid, torch.zeros(1, 0, 3))["gradient"].shape == (1, 0, 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda g, p: (g, p[0], "linear"), "expected shape \\(world, point, 3\\)"),
        (lambda g, p: (g, p, "quintic"), "expected one of linear, cubic"),
        (lambda g, p: (g, p * float("nan"), "linear"), "expected finite points"),
        (lambda g, p: (g._replace(values=g.values[0]), p, "linear"), "expected values \\(world, nx, ny, nz\\)"),
        (lambda g, p: (g._replace(spacing=0.0), p, "linear"), "expected a positive spacing"),
    ],
)
def test_errors_are_one_clear_line(change, words):
    grid = field(lambda x: x[..., 0])
    with pytest.raises(UserError, match=words) as caught:
        sample_sdf(*change(grid, points_in(grid, 3)))
    assert "\n" not in str(caught.value)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.floats(-5, 5, width=32), min_size=12, max_size=12),
    st.lists(st.floats(-2, 2, width=32), min_size=18, max_size=18),
    st.sampled_from(["linear", "cubic"]),
)
def test_never_nan(values, points, method):
    """Random and degenerate values (all zero, for one), points on nodes, on the rim and far away."""
    grid = SdfGrid(torch.tensor(values).reshape(1, 2, 2, 3).requires_grad_(), torch.zeros(3), 0.5)
    x = torch.tensor(points).reshape(1, 6, 3).requires_grad_()
    value, gradient = sample_sdf(grid, x, method)
    normal = sdf_normal(grid, x, method)
    (value.sum() + gradient.sum() + normal.sum()).backward()
    for t in (value, gradient, normal, x.grad, grid.values.grad):
        assert bool(torch.isfinite(t).all())
