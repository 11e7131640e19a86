"""Pixel filters: densities against quadrature and sampling, the convolved adjoint against NumPy."""

from itertools import pairwise

import numpy as np
import pytest
import warp as wp
from scipy import integrate, stats

from dvc import UserError
from render.pixel_filter import DEFAULT_SIZES, FILTERS, adjoint_at, filter_option, filter_reach, filter_sample, filter_value

SIZES = [*DEFAULT_SIZES.items(), ("box", 1.3), ("tent", 2.4), ("gaussian", 0.9)]


@wp.kernel(enable_backward=False)
def evaluate(
    kind: int,
    size: float,
    u: wp.array(dtype=wp.vec2),
    places: wp.array(dtype=wp.vec2),
    offsets: wp.array(dtype=wp.vec2),
    values: wp.array(dtype=float),
    reach: wp.array(dtype=float),
):
    i = wp.tid()
    offsets[i] = filter_sample(kind, size, u[i])
    values[i] = filter_value(kind, size, places[i])
    reach[0] = filter_reach(kind, size)


@wp.kernel(enable_backward=False)
def convolve(
    kind: int,
    size: float,
    image: wp.array3d(dtype=wp.vec3),
    view: wp.array(dtype=int),
    places: wp.array(dtype=wp.vec2),
    out: wp.array(dtype=wp.vec3),
):
    i = wp.tid()
    out[i] = adjoint_at(image, view[i], places[i], kind, size)


def run(kind: str, size: float, u: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    n = len(u)
    inputs = [wp.array(a.astype(np.float32), dtype=wp.vec2, device="cpu") for a in (u, places)]
    offsets, values = wp.zeros(n, dtype=wp.vec2, device="cpu"), wp.zeros(n, dtype=float, device="cpu")
    reach = wp.zeros(1, dtype=float, device="cpu")
    wp.launch(evaluate, n, [FILTERS[kind], size, *inputs], [offsets, values, reach], device="cpu")
    return offsets.numpy().copy(), values.numpy().copy(), float(reach.numpy()[0])


def twin(kind: str, size: float, x: np.ndarray) -> np.ndarray:
    """w_1 in double precision."""
    if kind == "box":
        return ((x >= -size) & (x < size)) / (2 * size)
    if kind == "tent":
        return np.maximum(0, 1 - np.abs(x) / size) / size
    return (np.abs(x) < 4 * size) * stats.truncnorm.pdf(x / size, -4, 4) / size


def reach_of(kind: str, size: float) -> float:
    return 4 * size if kind == "gaussian" else size


@pytest.mark.parametrize("kind,size", SIZES)
def test_a_filter_integrates_to_one_and_is_its_definition(kind: str, size: float) -> None:
    reach = reach_of(kind, size)
    n = 600
    x = (np.arange(n) + 0.5) / n * 2.2 * reach - 1.1 * reach
    places = np.stack(np.meshgrid(x, x), -1).reshape(-1, 2)
    _, values, said = run(kind, size, np.zeros_like(places), places)
    assert said == pytest.approx(reach)
    assert values.sum(dtype=np.float64) * (2.2 * reach / n) ** 2 == pytest.approx(1.0, abs=8e-3 if kind == "box" else 2e-4)
    np.testing.assert_allclose(values, twin(kind, size, places[:, 0]) * twin(kind, size, places[:, 1]), rtol=2e-5, atol=1e-7)
    outside = np.abs(places).max(-1) > reach
    assert not values[outside].any()


@pytest.mark.parametrize("kind,size", SIZES)
def test_samples_are_distributed_like_the_filter(kind: str, size: float) -> None:
    count, bins = 200_000, 24
    u = np.random.default_rng(5).random((count, 2))
    u[:4] = [(0, 0), (1 - 1e-7, 1 - 1e-7), (0.5, 0.5), (1e-7, 0.5)]
    offsets, _, reach = run(kind, size, u, np.zeros_like(u))
    assert np.isfinite(offsets).all() and np.abs(offsets).max() <= reach * (1 + 1e-6)
    assert np.abs(offsets[2]).max() < 1e-7
    edges = np.linspace(-reach, reach, bins + 1)
    fine = [np.linspace(a, b, 201) for a, b in pairwise(edges)]
    share = np.array(
        [integrate.trapezoid(twin(kind, size, np.clip(x, -reach * (1 - 1e-9), reach * (1 - 1e-9))), x) for x in fine]
    )
    expected = count * np.outer(share, share)
    seen, _, _ = np.histogram2d(offsets[:, 0].clip(-reach, reach), offsets[:, 1].clip(-reach, reach), [edges, edges])
    enough = expected > 10
    chi2 = ((seen - expected)[enough] ** 2 / expected[enough]).sum()
    assert stats.chi2.sf(chi2, enough.sum() - 1) > 1e-3
    assert abs(seen[~enough].sum() - expected[~enough].sum()) < 6 * np.sqrt(expected[~enough].sum() + 1)


@pytest.mark.parametrize("kind,size", SIZES)
def test_the_adjoint_at_a_point_is_the_convolution(kind: str, size: float) -> None:
    rng = np.random.default_rng(7)
    rows, columns = 9, 7
    image = rng.normal(size=(2, rows, columns, 3)).astype(np.float32)
    reach = reach_of(kind, size)
    places = rng.uniform((-reach - 1, -reach - 1), (columns + reach + 1, rows + reach + 1), (300, 2)).astype(np.float32)
    places[:6] = [(0, 0), (3, 4), (3.5, 4.5), (0.5, 0.5), (columns, rows), (-reach, 2)]
    view = rng.integers(0, 2, 300).astype(np.int32)
    out = wp.zeros(300, dtype=wp.vec3, device="cpu")
    inputs = [wp.array(image, dtype=wp.vec3), wp.array(view, dtype=int), wp.array(places, dtype=wp.vec2)]
    wp.launch(convolve, 300, [FILTERS[kind], size, *inputs], [out], device="cpu")
    by_row = twin(kind, size, places[:, 1:].astype(np.float64) - (np.arange(rows) + 0.5))
    by_column = twin(kind, size, places[:, :1].astype(np.float64) - (np.arange(columns) + 0.5))
    expected = np.einsum("nr,nc,nrci->ni", by_row, by_column, image[view])
    # where a point lies on the very edge of a box, rounding decides
    clear = np.abs((places[..., None] - 0.5 - reach) % 1 - 0.5).min((-1, -2)) < 0.5 - 1e-4
    clear &= np.abs((places[..., None] - 0.5 + reach) % 1 - 0.5).max((-1, -2)) < 0.5 - 1e-4
    clear |= kind != "box"
    clear |= (kind == "box") & (size == 0.5)
    assert clear.sum() > 250
    np.testing.assert_allclose(out.numpy()[clear], expected[clear], rtol=1e-4, atol=2e-5)


def test_a_box_of_one_pixel_is_the_pixel_s_adjoint() -> None:
    """Every point belongs to one pixel, corners included."""
    image = np.arange(12, dtype=np.float32).reshape(1, 3, 4)[..., None].repeat(3, -1) + 1
    x, y = np.meshgrid(np.arange(0, 4, 0.25), np.arange(0, 3, 0.25))
    places = np.stack([x, y], -1).reshape(-1, 2).astype(np.float32)
    out = wp.zeros(len(places), dtype=wp.vec3, device="cpu")
    view = wp.zeros(len(places), dtype=int, device="cpu")
    inputs = [0, 0.5, wp.array(image, dtype=wp.vec3), view, wp.array(places, dtype=wp.vec2)]
    wp.launch(convolve, len(places), inputs, [out], device="cpu")
    expected = image[0, places[:, 1].astype(int), places[:, 0].astype(int)]
    np.testing.assert_array_equal(out.numpy(), expected)


def test_options_are_checked() -> None:
    assert filter_option("film.filter", "tent") == (1, 1.0)
    assert filter_option("film.filter", "gaussian", 0.7) == (2, 0.7)
    with pytest.raises(UserError, match=r"film\.filter: expected a filter of box, tent, gaussian, got 'mitchell'"):
        filter_option("film.filter", "mitchell")
    with pytest.raises(UserError, match="size between 0 and 64"):
        filter_option("film.filter", "box", 0.0)
