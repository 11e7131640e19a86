"""ParameterVector: flat view and back."""

import pytest
import torch

from dvc import Parameter, Pipeline, UserError
from dvc.parameter_vector import ParameterVector


def pipeline() -> Pipeline:
    return Pipeline({
        "a": Parameter(1.0, 0.0, 2.0),
        "known": Parameter(3.0, fixed=True),
        "b": Parameter([1.0, 2.0], explore=[[0.0, 1.0], [2.0, 3.0]]),
    })  # fmt: skip


def test_names_labels_and_slices():
    vector = ParameterVector(pipeline())
    assert vector.names == ["a", "b"] and vector.labels == ["a", "b[0]", "b[1]"] and vector.size == 3
    assert ParameterVector(pipeline(), ["b", "a"]).labels == ["b[0]", "b[1]", "a"]
    with pytest.raises(UserError, match="no declared parameter 'known'"):
        ParameterVector(pipeline(), ["known"])


def test_split_and_join_are_inverse_and_carry_gradient():
    vector = ParameterVector(pipeline())
    x = torch.randn(5, 3, requires_grad=True)
    parts = vector.split(x)
    assert parts["a"].shape == (5,) and parts["b"].shape == (5, 2)
    assert torch.equal(vector.join(parts), x)
    vector.values(x)["b"].sum().backward()
    assert torch.equal(x.grad, torch.tensor([[0.0, 1.0, 1.0]]).expand(5, 3))


def test_gather_and_scatter():
    graph = pipeline()
    vector = ParameterVector(graph)
    x = torch.tensor([[0.3, 4.0, 5.0], [-0.3, 6.0, 7.0]])
    vector.scatter(x)
    assert torch.equal(vector.gather(), x)
    assert torch.allclose(graph(["b"])["b"], vector.values(x)["b"])
    graph.stages["a"].set_worlds(torch.tensor([1.0]))  # one world is shared by both
    assert vector.gather()[:, 0].tolist() == [0.0, 0.0]


def test_random_starts():
    vector = ParameterVector(pipeline())
    x = vector.sample(50, torch.Generator().manual_seed(1))
    values = vector.values(x)
    assert torch.allclose(values["a"], torch.ones(50)) and values["b"].std(0).min() > 0.1
    assert (values["b"] > torch.tensor([-1e-5, 1.0 - 1e-5])).all() and (values["b"] < torch.tensor([2.00001, 3.00001])).all()
