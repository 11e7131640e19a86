"""experiments/loss_profile.py against the closed form of a sum of squares."""

import pytest
import torch
from torch import Tensor, nn

from dvc.losses import Objective, term
from dvc.optimize import Phase, optimize
from dvc.parameter import Parameter
from dvc.parameter_vector import ParameterVector
from dvc.pipeline import Pipeline
from dvc.result import Estimate
from experiments.loss_profile import loss_profile, widened


class Misfit(nn.Module):
    """a + b = 3 within 1, b = 1 within 0.5."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        a, b = torch.broadcast_tensors(a, b)
        return torch.stack([a + b - 3.0, (b - 1.0) / 0.5], dim=1)


def fitted() -> tuple[Pipeline, Objective, Tensor, float]:
    stages = {"a": Parameter(0.5, unit="1"), "b": Parameter(0.2, unit="1"), "misfit": Misfit()}
    pipeline = Pipeline(stages, {"misfit": {"a": "a", "b": "b"}})
    objective = Objective({"both": term("misfit")})
    fit = optimize(pipeline, objective, [Phase(steps=10)])
    return pipeline, objective, fit.x[0], float(fit.loss[0])


def test_the_others_are_where_the_closed_form_has_them() -> None:
    pipeline, objective, x, loss = fitted()
    profile = loss_profile(pipeline, objective, x, "a", [4.0, 1.0, 2.5], {})
    assert torch.allclose(profile.values, torch.tensor([1.0, 2.5, 4.0])) and loss < 1e-6
    b = ParameterVector(pipeline).values(profile.x)["b"]
    # with a held, (b - (3 - a)) / 1 and (b - 1) / 0.5 weigh 1 to 4; variance of a: 1 + 0.25
    assert torch.allclose(b, (3.0 - profile.values + 4.0) / 5.0, atol=1e-3)
    assert torch.allclose(profile.loss, (profile.values - 2.0) ** 2 / 2.5, atol=1e-4)
    assert torch.equal(ParameterVector(pipeline).gather()[0], x)


def test_intervals_hold_what_is_not_excluded() -> None:
    pipeline, objective, x, loss = fitted()
    profile = loss_profile(pipeline, objective, x, "a", [-1.0, 1.0, 4.0, 5.0], {})
    narrow = {name: Estimate(value, value - 0.1, value + 0.1, "1") for name, value in (("a", 2.0), ("b", 1.0))}
    wide = widened(narrow, ParameterVector(pipeline), profile, loss, 2.0)  # |a - 2| < 2 sqrt(1.25) = 2.24
    assert (wide["a"].low, wide["a"].high) == pytest.approx((1.0, 4.0), abs=1e-5)
    assert (wide["b"].low, wide["b"].high) == pytest.approx((0.6, 1.2), abs=1e-3)
    assert widened(narrow, ParameterVector(pipeline), profile, loss, 0.1) == narrow
