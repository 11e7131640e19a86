"""Directional derivatives against torch's."""

import pytest
import torch
from torch import nn

from dvc import Parameter, Pipeline
from dvc.jvp import evaluator, jvp, jvp_of
from dvc.parameter_vector import ParameterVector


class Waves(nn.Module):
    calls: list[int]

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, a, b):
        self.calls.append(max(len(a), len(b)))
        t = torch.linspace(0.0, 1.0, 7)
        return torch.sin(a[:, None] * t) + b[:, :1] * t**2 + b[:, 1:] * a[:, None]


class Constant(nn.Module):
    def forward(self):
        return torch.ones(1, 4)


def toy() -> Pipeline:
    parameters = {"a": Parameter(1.3, 0.2, 3.0), "b": Parameter([0.5, -0.7], scale=2.0)}
    return Pipeline({**parameters, "waves": Waves(), "still": Constant()}, {"waves": {"a": "a", "b": "b"}})


def exact(pipeline: Pipeline, x: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    vector = ParameterVector(pipeline)

    def function(v):
        return pipeline(["waves"], raw=vector.split(v[None]))["waves"][0]

    return torch.stack([torch.autograd.functional.jvp(function, x, d)[1] for d in directions])


def test_against_autograd():
    pipeline = toy()
    vector = ParameterVector(pipeline)
    directions = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    found = jvp(pipeline, vector.split(directions), ["waves"])["waves"]
    assert found.shape == (5, 7)
    assert torch.allclose(found, exact(pipeline, vector.gather()[0], directions), atol=2e-3)


def test_parameters_that_are_not_named_stay():
    pipeline = toy()
    only_b = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    found = jvp(pipeline, {"b": only_b}, ["waves"])["waves"]
    full = torch.cat([torch.zeros(2, 1), only_b], dim=1)
    assert torch.allclose(found, exact(pipeline, ParameterVector(pipeline).gather()[0], full), atol=2e-3)


def test_each_direction_has_its_own_step():
    pipeline = toy()
    vector = ParameterVector(pipeline)
    x, eye = vector.gather()[0], torch.eye(3)
    evaluate = evaluator(pipeline, vector, ["waves"], {})
    steps = torch.tensor([0.5, 1e-3, 1e-2])
    found = jvp_of(evaluate, x, eye, steps, 16)["waves"]
    for i, h in enumerate(steps):
        high, low = (evaluate((x + s * h * eye[i])[None])["waves"][0] for s in (1.0, -1.0))
        assert torch.allclose(found[i], (high - low) / (2 * h), atol=1e-5)
    small = jvp_of(evaluate, x, eye, torch.full((3,), 1e-3), 16)["waves"]
    assert (found[0] - small[0]).abs().max() > 0.005  # the long step shows its truncation


@pytest.mark.parametrize("at_once", [1, 2, 3, 4, 100])
def test_the_size_of_chunks_does_not_matter(at_once):
    pipeline = toy()
    vector = ParameterVector(pipeline)
    evaluate = evaluator(pipeline, vector, ["waves"], {})
    directions, steps = torch.eye(3), torch.tensor([1e-2, 2e-3, 5e-3])
    whole = jvp_of(evaluate, vector.gather()[0], directions, steps, 1000)["waves"]
    pipeline.stages["waves"].calls.clear()
    parts = jvp_of(evaluate, vector.gather()[0], directions, steps, at_once)["waves"]
    assert torch.allclose(whole, parts, atol=1e-6)
    assert max(pipeline.stages["waves"].calls) <= max(2, at_once) and len(set(pipeline.stages["waves"].calls)) == 1


def test_outputs_that_do_not_depend_on_parameters_have_zero_derivatives():
    found = jvp(toy(), {"a": torch.ones(2)}, ["still", "waves"])
    assert found["still"].shape == (2, 4) and found["still"].abs().max() == 0.0 and found["waves"].abs().max() > 0.0


def test_no_tape_is_kept():
    assert not jvp(toy(), {"a": torch.ones(1)}, ["waves"])["waves"].requires_grad
