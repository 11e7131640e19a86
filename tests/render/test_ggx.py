"""The rough conductor: values, densities, energy and sampling against double precision, quadrature and chi-square."""

import numpy as np
import pytest
from scipy.stats import chi2

from render.bsdf import CONDUCTOR
from tests.render.bsdf_twin import (
    bin_of,
    direction,
    dot,
    evaluate,
    frame,
    mirrored,
    sample,
    scattered,
    slope_bins,
    twin_cos,
    twin_distribution,
    twin_masking,
    twin_pdf,
    unit,
)

ALPHAS = (0.001, 0.01, 0.05, 0.2, 0.5, 1.0)
COSINES = (1.0, 0.9, 0.5, 0.1, 0.01)
UP = np.array([0.0, 0.0, 1.0])
WHITE = np.ones(3)
SAMPLES = 50_000
RINGS, SECTORS, FINE = 12, 16, 8
FALSE_ALARM = 0.01  # of all chi-square tests together


def view(cosine: float) -> np.ndarray:
    return direction(np.array(cosine), np.array(0.7)).astype(np.float32).astype(float)


@pytest.mark.parametrize("schlick", [0, 1])
@pytest.mark.parametrize("alpha", ALPHAS)
def test_value_and_density_agree_with_the_formulas_in_double_precision(alpha: float, schlick: int) -> None:
    wi, wo = scattered(alpha, 4000, 1)
    albedo = np.array([0.2, 0.55, 0.95])
    value, pdf = evaluate(CONDUCTOR, wi, wo, alpha=alpha, schlick=schlick, albedo=albedo)
    expected = twin_cos(1, 0, schlick, albedo, np.float64(np.float32(alpha)), UP[None], wi, wo)
    density = twin_pdf(1, np.float64(np.float32(alpha)), UP[None], wi, wo)
    assert len(wi) > 1000 and (expected > 0).all()
    # a half vector is rounded by 6e-8, which alpha divides
    bound = 4e-6 + 3e-6 / alpha
    assert np.abs(value / expected - 1.0).max() < bound
    assert np.abs(pdf / density - 1.0).max() < bound


@pytest.mark.parametrize("alpha", ALPHAS)
def test_head_on_the_share_that_is_reflected_is_known(alpha: float) -> None:
    # all facets are seen, and those up to 45 degrees reflect upwards: their share of D cos is 1 / (1 + alpha^2)
    known = 1.0 / (1.0 + alpha**2)
    h, area = slope_bins(alpha, 48, 4, FINE)
    wo, jacobian = mirrored(UP, h)
    _, pdf = evaluate(CONDUCTOR, UP, wo, alpha=alpha)
    assert float((pdf.reshape(area.shape) * jacobian * area).sum()) == pytest.approx(known, abs=4e-3)
    above = float((sample(CONDUCTOR, UP, SAMPLES, 3, alpha=alpha)[:, 2] > 0.0).mean())
    assert abs(above - known) <= 4.5 * np.sqrt(known * (1.0 - known) / SAMPLES) + 1.0 / SAMPLES
    # the twin itself: D cos integrates to one, and masking is what makes visible facets fill the view (Heitz 2014, eq. 23)
    assert float((twin_distribution(alpha, h[..., 2]) * h[..., 2] * area).sum()) == pytest.approx(1.0, abs=1e-9)
    h, area = slope_bins(alpha, 24, 24, FINE)
    for cosine in COSINES:
        wi = view(cosine)
        visible = twin_masking(alpha, wi[2]) * np.maximum(dot(wi, h), 0.0) * twin_distribution(alpha, h[..., 2])
        assert float((visible * area).sum()) == pytest.approx(wi[2], rel=1e-3)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_density_integrates_to_the_share_of_samples_that_is_reflected(alpha: float) -> None:
    h, area = slope_bins(alpha, 24, 24, FINE)
    for i, cosine in enumerate(COSINES):
        wi = view(cosine)
        wo, jacobian = mirrored(wi, h)
        _, pdf = evaluate(CONDUCTOR, wi, wo, alpha=alpha)
        integral = float((pdf.reshape(area.shape) * jacobian * area).sum())
        above = float((sample(CONDUCTOR, wi, SAMPLES, i, alpha=alpha)[:, 2] > 0.0).mean())
        deviation = np.sqrt(max(above * (1.0 - above), 1e-4) / SAMPLES)
        assert abs(above - integral) < 4.5 * deviation + 1e-3, (cosine, above, integral)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_white_surface_keeps_the_energy_of_the_integral_and_no_more(alpha: float) -> None:
    h, area = slope_bins(alpha, 24, 24, FINE)
    for i, cosine in enumerate(COSINES):
        wi = view(cosine)
        wo, jacobian = mirrored(wi, h)
        exact = float((twin_cos(1, 0, 0, WHITE, np.float64(alpha), UP, wi, wo)[..., 0] * jacobian * area).sum())
        wo = sample(CONDUCTOR, wi, SAMPLES, 20 + i, alpha=alpha)
        value, pdf = evaluate(CONDUCTOR, wi, wo, alpha=alpha)
        weight = np.where(pdf > 0.0, value[:, 0] / np.maximum(pdf, 1e-30), 0.0)
        error = weight.std() / np.sqrt(SAMPLES)
        assert abs(weight.mean() - exact) < 4.5 * error + 1e-3, (cosine, weight.mean(), exact)
        assert weight.max() < 1.0 + 2e-6 and 0.3 < exact < 1.0 + 1e-5
        if alpha == min(ALPHAS) and cosine >= 0.1:  # nearly a mirror
            assert exact > 0.999


@pytest.mark.parametrize("alpha", ALPHAS)
def test_weight_of_a_sample_is_at_most_the_reflectance(alpha: float) -> None:
    albedo = np.array([0.3, 0.6, 0.9])
    for i, cosine in enumerate((*COSINES, 1e-4)):
        wi = view(cosine)
        wo = sample(CONDUCTOR, wi, 5000, 40 + i, alpha=alpha)
        value, pdf = evaluate(CONDUCTOR, wi, wo, alpha=alpha, albedo=albedo)
        assert np.isfinite(wo).all() and np.isfinite(value).all() and np.isfinite(pdf).all()
        assert np.abs(np.linalg.norm(wo, axis=1) - 1.0).max() < 3e-7
        above = wo[:, 2] > 0.0
        assert ((pdf > 0.0) == above).all() and ((value > 0.0).all(1) == above).all()
        weight = value[above] / pdf[above, None]
        assert (weight <= albedo * (1.0 + 2e-6)).all() and (weight > 0.0).all()


def chi_square(alpha: float, wi: np.ndarray, n: np.ndarray, seed: int, two_sided: int, of_alpha: float) -> tuple[float, int]:
    """Statistic and degrees of freedom of samples for `alpha` against the density for `of_alpha`."""
    axes = frame(n if dot(n, wi) > 0.0 else -n)  # of the side that wi sees
    h, area = slope_bins(alpha, RINGS, SECTORS, 2 * FINE)
    wo, jacobian = mirrored(wi, h @ axes.T)
    _, pdf = evaluate(CONDUCTOR, wi, wo, alpha=of_alpha, n=n, two_sided=two_sided)
    expected = (pdf.reshape(area.shape) * jacobian * area).sum(-1).reshape(-1) * SAMPLES
    drawn = sample(CONDUCTOR, wi, SAMPLES, seed, alpha=alpha, n=n, two_sided=two_sided)
    above = drawn @ axes[:, 2] > 0.0
    bins = bin_of(alpha, unit(wi + drawn[above]) @ axes, RINGS, SECTORS)
    counted = np.bincount(bins, minlength=RINGS * SECTORS).astype(float)
    expected, counted = np.append(expected, SAMPLES - expected.sum()), np.append(counted, SAMPLES - above.sum())
    order = np.argsort(expected)
    expected, counted = expected[order], counted[order]
    few = np.searchsorted(np.cumsum(expected), 20.0) + 1  # rare bins together
    expected = np.append(expected[few:], expected[:few].sum())
    counted = np.append(counted[few:], counted[:few].sum())
    return float(((counted - expected) ** 2 / np.maximum(expected, 1e-9)).sum()), len(expected) - 1


CASES = [(alpha, cosine) for alpha in ALPHAS for cosine in COSINES]


def test_samples_follow_the_density_by_chi_square() -> None:
    rng = np.random.default_rng(5)
    for i, (alpha, cosine) in enumerate(CASES):
        n = unit(rng.normal(size=3)) if i % 2 else UP
        wi = frame(n) @ view(cosine) * (-1.0 if i % 4 == 3 else 1.0)  # some from behind
        n, wi = n.astype(np.float32).astype(float), wi.astype(np.float32).astype(float)
        statistic, freedom = chi_square(alpha, wi, n, 100 + i, 1, alpha)
        p = chi2.sf(statistic, freedom)
        assert p > FALSE_ALARM / len(CASES), (alpha, cosine, statistic, freedom)


def test_chi_square_sees_a_density_that_is_a_twentieth_too_rough() -> None:
    statistic, freedom = chi_square(0.2, view(0.5), UP, 7, 0, 0.21)
    assert chi2.sf(statistic, freedom) < 1e-6


def test_schlick_is_the_albedo_head_on_and_white_at_grazing() -> None:
    albedo = np.array([0.1, 0.4, 0.8])
    wi = view(0.6)
    plain, _ = evaluate(CONDUCTOR, wi, wi, alpha=0.7, albedo=albedo)
    head_on, _ = evaluate(CONDUCTOR, wi, wi, alpha=0.7, albedo=albedo, schlick=1)
    np.testing.assert_allclose(head_on, plain, rtol=1e-6)
    low, opposite = direction(np.array(1e-3), np.array(0.0)), direction(np.array(1e-3), np.array(np.pi))
    white, _ = evaluate(CONDUCTOR, low, opposite, alpha=0.7)
    grazing, _ = evaluate(CONDUCTOR, low, opposite, alpha=0.7, albedo=albedo, schlick=1)
    np.testing.assert_allclose(grazing, white, rtol=6e-3)


def test_alpha_below_the_least_one_is_the_least_one() -> None:
    wi = view(0.6)
    wo, _ = mirrored(wi, UP)
    least, _ = evaluate(CONDUCTOR, wi, wo, alpha=1e-3)
    below, _ = evaluate(CONDUCTOR, wi, wo, alpha=0.0)
    assert (least == below).all() and np.isfinite(least).all() and least.min() > 1e4
