"""What is read off the impacts of a motion."""

import math

import pytest
import torch

from dvc.errors import UserError
from physics.strikes import Strikes
from tests.physics.scenes import FLOOR, GRAVITY, point_body, rollout, scalar, vertical


def motion(restitution: torch.Tensor, frames: int = 60, **options):
    worlds = restitution.shape[0]
    start = vertical(torch.full((worlds,), 1.0), torch.zeros(worlds))
    return rollout(frames=frames, **options)(start, point_body(), scalar(GRAVITY), FLOOR, restitution=restitution)


def test_times_speeds_and_their_ratio_are_those_of_a_bouncing_ball() -> None:
    e = torch.tensor([0.8, 0.7], requires_grad=True)
    strikes = Strikes(first=1, last=2)(motion(e))
    fall, speed = math.sqrt(2.0 / GRAVITY), math.sqrt(2.0 * GRAVITY)
    for world, kept in enumerate((0.8, 0.7)):
        assert int(strikes.number[world]) >= 3
        expected = [fall, fall * (1 + 2 * kept), fall * (1 + 2 * kept + 2 * kept**2)]
        assert (strikes.times[world, :3].detach() + 0.5 / 30.0).tolist() == pytest.approx(expected, rel=1e-4)
        assert strikes.speeds[world, :3].tolist() == pytest.approx([speed, speed * kept, speed * kept**2], rel=1e-4)
        assert float(strikes.speed_ratio[world].detach()) == pytest.approx(kept, rel=1e-4)
    (gradient,) = torch.autograd.grad(strikes.times[:, 1].sum(), e, retain_graph=True)
    torch.testing.assert_close(gradient, torch.full((2,), 2.0 * fall), atol=1e-3, rtol=1e-3)
    (gradient,) = torch.autograd.grad(strikes.speed_ratio.sum(), e)
    torch.testing.assert_close(gradient, torch.ones(2), atol=1e-3, rtol=1e-3)


def test_a_world_with_fewer_strikes_is_filled_with_nan_and_its_gradient_is_finite() -> None:
    e = torch.tensor([0.9, 0.0], requires_grad=True)
    strikes = Strikes(first=1, last=2)(motion(e))
    assert bool(torch.isnan(strikes.times[1, 3:]).all()) and bool(torch.isnan(strikes.speed_ratio[1]))
    (gradient,) = torch.autograd.grad(strikes.times[0, 1] + strikes.speeds[0, 2], e)
    assert bool(torch.isfinite(gradient).all()) and float(gradient[0]) > 0.0


def test_a_short_window_has_no_ratio() -> None:
    strikes = Strikes(first=2, last=9)(motion(scalar(0.8), frames=2, substeps=2))
    assert int(strikes.number[0]) == 0 and bool(torch.isnan(strikes.speed_ratio[0]))


def test_the_chosen_strikes_are_counted_from_one() -> None:
    with pytest.raises(UserError, match="1 <= first <= last"):
        Strikes(first=0, last=3)
