"""The objective of a spinning top: its terms against eigenvalues, its rotation against the exponential, its gradients."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dvc.errors import UserError
from dvc.gradient_check import gradient_check
from dvc.records import Bodies
from geometry.spin_objective import SpinObjective, axis_angle, clear_height, spin_terms, tilt_rotation, turned


def body(
    moments: tuple[float, float, float], tilt: torch.Tensor, center: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> Bodies:
    rotation = tilt_rotation(tilt)
    return Bodies(torch.ones(1), torch.tensor([center]), rotation.mT @ torch.diag(torch.tensor(moments)) @ rotation)


@settings(max_examples=200, deadline=None)
@given(st.floats(-4.0, 4.0), st.floats(-4.0, 4.0), st.sampled_from([1.0, 1e-2, 1e-4, 0.0]))
def test_the_rotation_is_the_exponential_of_the_tilt(a: float, b: float, size: float):
    tilt = (size * torch.tensor([[a, b]])).requires_grad_(True)
    cross = torch.tensor([[0.0, 0.0, b], [0.0, 0.0, -a], [-b, a, 0.0]]).double() * size
    found = tilt_rotation(tilt)
    assert torch.allclose(found[0].double(), torch.linalg.matrix_exp(cross), atol=2e-6)
    assert torch.isfinite(torch.autograd.grad((found * torch.arange(9.0).reshape(3, 3)).sum(), tilt)[0]).all()


def test_the_terms_are_those_of_the_principal_moments():
    terms = spin_terms(Bodies(torch.ones(1), torch.tensor([[0.3, -0.4, 2.0]]),
                              torch.tensor([[[2.0, 0.5, 0.0], [0.5, 1.0, 0.0], [0.0, 0.0, 4.0]]])), 2.0)  # fmt: skip
    a, b = torch.linalg.eigvalsh(torch.tensor([[2.0, 0.5], [0.5, 1.0]]))
    assert float((terms.ratios**2).sum()) == pytest.approx(float(a**2 + b**2) / 16.0, rel=1e-6)
    assert terms.largest.item() == pytest.approx(float(b) / 4.0, rel=1e-6)
    assert terms.offset.tolist() == [[pytest.approx(0.15), pytest.approx(-0.2)]] and terms.height.item() == pytest.approx(1.0)
    assert terms.products.tolist() == [[0.0, 0.0]]


def test_an_axis_tilted_by_some_angle_is_found_at_that_angle():
    for degrees in (0.0, 1e-3, 0.4, 30.0, 89.0):
        tilt = math.radians(degrees) * torch.tensor([[0.6, -0.8]])
        assert math.degrees(axis_angle(body((1.0, 1.4, 2.0), tilt).inertia).item()) == pytest.approx(
            degrees, rel=1e-3, abs=1e-4
        )
    assert math.degrees(axis_angle(torch.diag(torch.tensor([3.0, 2.0, 1.0]))[None]).item()) == pytest.approx(90.0)


def test_turning_a_body_by_the_tilt_of_its_axis_makes_the_products_vanish():
    tilt = torch.tensor([[0.5, -0.9]])
    spun = turned(
        body((1.0, 1.4, 2.0), tilt, (0.1, 0.2, 0.3)), tilt_rotation(tilt), torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.7])
    )
    terms = spin_terms(spun, 1.0)
    assert terms.products.abs().max() < 1e-6 and terms.offset.abs().max() < 1e-6
    assert terms.height.item() == pytest.approx(0.7) and terms.largest.item() == pytest.approx(0.7, rel=1e-5)


def test_the_height_clears_the_ground_when_the_top_leans():
    points = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    rotation, lean = tilt_rotation(torch.tensor([[0.3, 0.2]])), 0.15
    height = clear_height(points, rotation, lean)
    placed = points @ rotation[0].T + torch.tensor([0.0, 0.0, float(height)])
    lowest = []
    for turn in torch.linspace(0.0, 2.0 * math.pi, 400):
        leaning = tilt_rotation(lean * torch.stack([turn.cos(), turn.sin()])[None])[0]
        lowest.append(float((placed @ leaning.T)[:, 2].min()))  # about the contact point
    assert min(lowest) == pytest.approx(0.0, abs=2e-3) and min(lowest) > -1e-5
    assert clear_height(points, rotation, 0.0).item() == pytest.approx(float(-(points @ rotation[0].T)[:, 2].min()))


def objective(**weights: float) -> SpinObjective:
    points = torch.tensor([[0.5, 0.1, -0.3], [-0.4, 0.0, -0.2], [0.0, 0.6, 0.3], [0.1, -0.2, 0.4]])
    return SpinObjective(points, torch.tensor([0.05, 0.0, 0.02]), 1.5, 1.2, **weights)


def test_the_loss_is_the_paper_s_objective_and_the_constraints():
    given_ = {"inertia": 2.0, "height": 3.0, "upright": 0.5, "margin": 0.6, "firmness": 7.0}
    stage, tilt = objective(**given_), torch.tensor([[0.3, -0.5]])
    bodies = body((1.0, 1.4, 2.0), torch.tensor([[0.1, 0.2]]), (0.1, 0.0, 0.2))
    terms = spin_terms(stage.placed(bodies, tilt), 1.5)
    expected = (
        2.0 * (terms.ratios**2).sum()
        + 3.0 * (terms.height * 1.0 / 1.2) ** 2
        + 0.5 * (1.0 - math.cos(math.hypot(0.3, 0.5)))
        + 7.0 * (terms.largest - 0.6) ** 2
        + 11.0 * ((terms.offset**2).sum() + (terms.products**2).sum())
    )
    residual = stage(bodies, tilt, penalty=11.0)
    assert residual.shape == (1, 11) and terms.largest.item() > 0.6
    assert float((residual**2).sum()) == pytest.approx(float(expected), rel=1e-5)


def test_gradients_agree_with_differences():
    stage = objective(upright=0.7, margin=0.5)
    generator = torch.Generator().manual_seed(2)
    inertia = torch.eye(3)[None] + 0.2 * torch.randn(2, 3, 3, generator=generator)
    leaves = [torch.tensor([1.1, 0.8]), torch.randn(2, 3, generator=generator), inertia @ inertia.mT,
              torch.tensor([[0.4, -0.3], [0.02, 1.2]])]  # fmt: skip
    leaves = [t.requires_grad_(True) for t in leaves]
    rows = gradient_check(
        lambda m, c, i, t: stage(Bodies(m, c, 0.5 * (i + i.mT)), t, penalty=4.0), leaves, ("mass", "center", "inertia", "tilt")
    )
    rows += gradient_check(lambda i: axis_angle(0.5 * (i + i.mT)), [leaves[2]], ["inertia"])
    assert all(row.passed and row.analytic != 0.0 for row in rows), rows


@settings(max_examples=200, deadline=None)
@given(st.lists(st.floats(0.01, 2.0), min_size=3, max_size=3), st.booleans(), st.floats(-4.0, 4.0))
def test_equal_moments_and_no_tilt_give_no_nan(moments: list[float], equal: bool, turn: float):
    a, b, c = moments
    inertia = torch.diag(torch.tensor([a, a if equal else b, c]))[None].requires_grad_(True)
    tilt = torch.tensor([[0.0, turn if turn > 0.0 else 0.0]]).requires_grad_(True)
    residual = objective(upright=1.0)(Bodies(torch.ones(1), torch.zeros(1, 3), inertia), tilt, penalty=2.0)
    gradients = torch.autograd.grad((residual**2).sum(), (inertia, tilt))
    assert all(torch.isfinite(t).all() for t in (residual, *gradients))


def test_wrong_arguments_are_refused_by_name():
    with pytest.raises(UserError, match="tilt: expected shape"):
        tilt_rotation(torch.zeros(1, 3))
    with pytest.raises(UserError, match="lean"):
        clear_height(torch.zeros(1, 3), torch.eye(3)[None], 1.6)
    with pytest.raises(UserError, match="weights from 0"):
        objective(height=-1.0)
