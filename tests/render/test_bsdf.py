"""Materials by kind: sides, furnace, reciprocity, sampling of the diffuse one, and the gradient of all against differences."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from render.bsdf import CONDUCTOR, DIFFUSE
from tests.render.bsdf_twin import (
    direction,
    dot,
    evaluate,
    frame,
    gradients,
    mirrored,
    sample,
    scattered,
    slope_bins,
    twin_cos,
    unit,
)

KINDS = (DIFFUSE, CONDUCTOR)
UP = np.array([0.0, 0.0, 1.0])
STEPS = (1e-2, 1e-3, 1e-4)
SAMPLES = 50_000


def rounded(v: np.ndarray) -> np.ndarray:
    return v.astype(np.float32).astype(float)


def sphere_points(count: int, seed: int) -> np.ndarray:
    return rounded(unit(np.random.default_rng(seed).normal(size=(count, 3))))


@pytest.mark.parametrize("two_sided", [0, 1])
@pytest.mark.parametrize("kind", KINDS)
def test_value_is_that_of_the_twin_on_all_sides(kind: int, two_sided: int) -> None:
    n, wi, wo = sphere_points(4000, 0), sphere_points(4000, 1), sphere_points(4000, 2)
    alpha = rounded(np.random.default_rng(3).uniform(0.05, 1.0, 4000))
    albedo = np.array([0.25, 0.5, 1.0])
    value, pdf = evaluate(kind, wi, wo, alpha=alpha, n=n, two_sided=two_sided, albedo=albedo)
    expected = twin_cos(kind, two_sided, 0, albedo, alpha, n, wi, wo)
    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-7)
    lit = (dot(n, wi) * dot(n, wo) > 0.0) & ((dot(n, wi) > 0.0) | bool(two_sided))
    assert ((value > 0.0).all(1) == lit).all() and ((pdf > 0.0) == lit).all()
    assert lit.mean() == pytest.approx(0.5 if two_sided else 0.25, abs=0.05)


@pytest.mark.parametrize("kind", KINDS)
def test_two_sided_back_is_the_front(kind: int) -> None:
    n, wi, wo = sphere_points(500, 0), sphere_points(500, 1), sphere_points(500, 2)
    front = evaluate(kind, wi, wo, n=n, two_sided=1)
    back = evaluate(kind, wi, wo, n=-n, two_sided=1)
    np.testing.assert_array_equal(front[0], back[0])
    np.testing.assert_array_equal(front[1], back[1])


@pytest.mark.parametrize("two_sided", [0, 1])
def test_white_diffuse_furnace_is_exactly_white(two_sided: int) -> None:
    for i, n in enumerate(sphere_points(6, 4)):
        wi = rounded(unit(frame(n) @ direction(np.array(0.6), np.array(1.0)) * (-1.0 if two_sided and i % 2 else 1.0)))
        wo = sample(DIFFUSE, wi, 20_000, i, n=n, two_sided=two_sided)
        value, pdf = evaluate(DIFFUSE, wi, wo, n=n, two_sided=two_sided)
        kept = pdf > 0.0
        assert kept.mean() > 0.9999
        np.testing.assert_allclose(value[kept, 0] / pdf[kept], 1.0, rtol=1e-6)


@pytest.mark.parametrize("two_sided", [0, 1])
def test_white_conductor_furnace_from_both_sides(two_sided: int) -> None:
    h, area = slope_bins(0.3, 24, 24, 8)
    n = rounded(unit(np.array([0.3, -0.5, 0.7])))
    wi = direction(np.array(0.4), np.array(2.0))
    wo, jacobian = mirrored(wi, h)
    exact = float((twin_cos(1, 0, 0, np.ones(3), np.float64(0.3), UP, wi, wo)[..., 0] * jacobian * area).sum())
    for side in (1.0, -1.0):
        seen = rounded(frame(n) @ wi * side)
        drawn = sample(CONDUCTOR, seen, SAMPLES, 1, alpha=0.3, n=n, two_sided=two_sided)
        value, pdf = evaluate(CONDUCTOR, seen, drawn, alpha=0.3, n=n, two_sided=two_sided)
        weight = np.where(pdf > 0.0, value[:, 0] / np.maximum(pdf, 1e-30), 0.0)
        if side > 0.0 or two_sided:
            assert abs(weight.mean() - exact) < 4.5 * weight.std() / np.sqrt(SAMPLES) + 1e-4
            assert 0.8 < exact < 0.82
        else:
            assert (value == 0.0).all() and (pdf == 0.0).all()


def test_diffuse_samples_follow_the_density_by_chi_square() -> None:
    rings, sectors = 12, 16
    nodes, weights = np.polynomial.legendre.leggauss(6)
    cosine = ((np.arange(rings)[:, None] + 0.5 + 0.5 * nodes) / rings).reshape(-1)
    angle = (np.arange(sectors) + 0.5) * (2.0 * np.pi / sectors)
    for i, n in enumerate(np.concatenate([[UP, -UP], sphere_points(6, 5)])):
        axes, wi = frame(n), rounded(unit(n + 0.8 * frame(n)[:, 0]))
        wo = direction(cosine[:, None], angle) @ axes.T
        _, pdf = evaluate(DIFFUSE, wi, wo, n=n)
        by_ring = (pdf.reshape(rings, 6, sectors) * weights[:, None]).sum(1) / (2 * rings) * (2.0 * np.pi / sectors)
        assert by_ring.sum() == pytest.approx(1.0, abs=1e-6)
        expected = by_ring.reshape(-1) * SAMPLES
        local = sample(DIFFUSE, wi, SAMPLES, 50 + i, n=n) @ axes
        sector = np.floor(np.arctan2(local[:, 1], local[:, 0]) % (2.0 * np.pi) / (2.0 * np.pi) * sectors).astype(int) % sectors
        ring = np.clip((local[:, 2] * rings).astype(int), 0, rings - 1)
        counted = np.bincount(ring * sectors + sector, minlength=rings * sectors)
        statistic = ((counted - expected) ** 2 / expected).sum()
        assert chi2.sf(statistic, rings * sectors - 1) > 0.01 / 8, i


above = st.tuples(st.floats(0.02, 1.0), st.floats(0.0, 6.28))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(KINDS), st.integers(0, 1), st.floats(0.05, 1.0), above, above)
def test_reciprocity(kind: int, schlick: int, alpha: float, first: tuple, second: tuple) -> None:
    wi, wo = (rounded(direction(np.array(c), np.array(phi))) for c, phi in (first, second))
    there, _ = evaluate(kind, wi, wo, alpha=alpha, schlick=schlick, albedo=(0.3, 0.6, 0.9))
    back, _ = evaluate(kind, wo, wi, alpha=alpha, schlick=schlick, albedo=(0.3, 0.6, 0.9))
    np.testing.assert_allclose(there / wo[2], back / wi[2], rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(KINDS), st.floats(0.05, 1.0), above, above, st.integers(0, 10**6))
def test_turning_everything_changes_nothing(kind: int, alpha: float, first: tuple, second: tuple, seed: int) -> None:
    wi, wo = (direction(np.array(c), np.array(phi)) for c, phi in (first, second))
    turn, _ = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    value, pdf = evaluate(kind, wi, wo, alpha=alpha)
    turned = evaluate(kind, turn @ wi, turn @ wo, alpha=alpha, n=turn @ UP)
    # near grazing a cosine has few digits
    np.testing.assert_allclose(turned[0], value, rtol=3e-4)
    np.testing.assert_allclose(turned[1], pdf, rtol=3e-4)


def pairs(kind: int, alpha: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    if kind == CONDUCTOR:
        return scattered(alpha, count, 11)
    rng = np.random.default_rng(12)
    wi, wo = (direction(rng.uniform(0.01, 1.0, count), rng.uniform(0, 6.28, count)) for _ in range(2))
    return rounded(wi), rounded(wo)


def worst_gradient_error(
    kind: int, two_sided: int, schlick: int, alpha: float, n: np.ndarray, wi: np.ndarray, wo: np.ndarray, step: float
) -> dict[str, float]:
    """Largest error of each gradient against central differences of the twin, relative to the gradient's size."""
    count = len(wi)
    rng = np.random.default_rng(6)
    inputs = {
        "albedo": rounded(rng.uniform(0.1, 0.9, (count, 3))), "alpha": np.full(count, float(np.float32(alpha))), "n": n,
        "wi": wi, "wo": wo,
    }  # fmt: skip
    weight = rounded(rng.normal(size=(count, 3)))
    found = gradients(kind, two_sided, schlick, **inputs, weight=weight)

    def loss(**changed: np.ndarray) -> np.ndarray:
        return dot(weight, twin_cos(kind, two_sided, schlick, **(inputs | changed)))

    np.testing.assert_allclose(found["value"], loss(), rtol=1e-3, atol=1e-3 * np.abs(loss()).mean())
    worst = {}
    for name, x in inputs.items():
        if name == "albedo":
            h = np.full(count, 0.1 * step)
        elif kind == DIFFUSE or name in ("n", "alpha"):
            h = np.full(count, alpha * step)
        else:  # how far a direction moves until the lobe's half vector has moved by alpha
            h = 0.5 * alpha * step * np.linalg.norm(wi + wo, axis=-1)
        errors, sizes = np.zeros(count), np.abs(loss()) + 1e-6
        for _ in range(3):
            if name == "alpha":
                sides, along = [loss(alpha=x + sign * h) for sign in (1, -1)], np.ones(count)
                found_along, sizes = found[name], np.maximum(sizes, np.abs(loss()) / alpha)
            else:
                along = rng.normal(size=(count, 3))
                along = unit(along if name == "albedo" else np.cross(along, x))  # directions stay on the unit sphere
                moved = [x + sign * h[:, None] * along for sign in (1, -1)]
                sides = [loss(**{name: v if name == "albedo" else unit(v)}) for v in moved]
                found_along = dot(found[name], along)
            differences = (sides[0] - sides[1]) / (2.0 * h)
            errors, sizes = np.maximum(errors, np.abs(differences - found_along)), np.maximum(sizes, np.abs(differences))
        worst[name] = float(np.max(errors / sizes))
    return worst


@pytest.mark.parametrize("two_sided", [0, 1])
@pytest.mark.parametrize(
    ("kind", "alpha", "schlick"),
    [(DIFFUSE, 0.5, 0), *((CONDUCTOR, alpha, schlick) for alpha in (0.002, 0.05, 0.3, 1.0) for schlick in (0, 1))],
)
def test_gradient_of_every_input_agrees_with_differences(kind: int, alpha: float, schlick: int, two_sided: int) -> None:
    wi, wo = pairs(kind, alpha, 800)
    turn = frame(unit(np.array([0.4, -0.2, 0.6])))
    n = np.tile(rounded(turn @ UP), (len(wi), 1)) * (-1.0 if two_sided else 1.0)
    wi, wo = rounded(wi @ turn.T), rounded(wo @ turn.T)
    inside = (np.abs(dot(n, wi)) > 0.02) & (np.abs(dot(n, wo)) > 0.02)  # no difference crosses the horizon
    assert inside.sum() > 200
    for step in STEPS:
        worst = worst_gradient_error(kind, two_sided, schlick, alpha, n[inside], wi[inside], wo[inside], step)
        bound = 10.0 * step * step + 2e-5 + 2e-5 / alpha
        assert max(worst.values()) < bound, (step, worst)


EDGES = {
    "head on": (UP, UP),
    "back to the viewer": (direction(np.array(0.4), np.array(1.0)), direction(np.array(0.4), np.array(1.0))),
    "mirror": (direction(np.array(0.3), np.array(1.0)), direction(np.array(0.3), np.array(1.0 + np.pi))),
    "grazing viewer": (direction(np.array(1e-4), np.array(0.0)), UP),
    "grazing light": (UP, direction(np.array(1e-4), np.array(0.0))),
    "both grazing": (direction(np.array(1e-6), np.array(0.0)), direction(np.array(1e-6), np.array(3.0))),
    "opposite": (direction(np.array(1e-7), np.array(0.0)), direction(np.array(1e-7), np.array(np.pi))),
    "on the horizon": (np.array([1.0, 0.0, 0.0]), np.array([-1.0, 0.0, 0.0])),
    "exactly opposite": (np.array([0.6, 0.0, 0.8]), np.array([-0.6, 0.0, -0.8])),
}


@pytest.mark.parametrize("case", EDGES)
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_ever_not_finite(kind: int, case: str) -> None:
    wi, wo = (np.tile(rounded(v), (7, 1)) for v in EDGES[case])
    alphas = np.array([-1.0, 0.0, 1e-3, 1e-2, 0.3, 1.0, 2.0])
    everywhere = np.ones((7, 3))
    for schlick, two_sided in ((0, 0), (1, 0), (1, 1)):
        found = gradients(kind, two_sided, schlick, 0.5 * everywhere, alphas, UP * everywhere, wi, wo, everywhere)
        for name, gradient in found.items():
            assert np.isfinite(gradient).all(), (schlick, name, gradient)


@pytest.mark.parametrize("case", ["head on", "back to the viewer", "mirror", "grazing light"])
@pytest.mark.parametrize("schlick", [0, 1])
def test_gradient_agrees_with_differences_where_directions_coincide(schlick: int, case: str) -> None:
    wi, wo = (np.tile(rounded(v), (4, 1)) for v in EDGES[case])
    for alpha in (0.1, 0.5, 1.0):
        worst = worst_gradient_error(CONDUCTOR, 0, schlick, alpha, np.tile(UP, (4, 1)), wi, wo, 1e-5)
        assert max(worst.values()) < 2e-4, (alpha, worst)


def test_gradient_is_zero_only_where_the_value_does_not_change() -> None:
    wi, wo = (np.tile(rounded(v), (3, 1)) for v in EDGES["mirror"])
    everywhere = np.ones((3, 3))
    found = gradients(
        CONDUCTOR, 0, 0, everywhere, np.array([5e-4, 2e-3, 0.3]), UP * everywhere, wi, wo, np.array([[1.0, 0.5, 2.0]] * 3)
    )
    assert found["alpha"][0] == 0.0 and (found["alpha"][1:] < 0.0).all()  # below the least alpha; a peak gets lower
    behind = gradients(CONDUCTOR, 0, 0, everywhere, np.full(3, 0.3), -UP * everywhere, wi, wo, np.array([[1.0, 0.5, 2.0]] * 3))
    assert all((gradient == 0.0).all() for gradient in behind.values())
