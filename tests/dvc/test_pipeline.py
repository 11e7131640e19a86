"""Pipeline: wiring, its errors, and what is evaluated."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

from dvc import Parameter, Pipeline, UserError


class Lens(NamedTuple):
    focal: Tensor
    size: "Size"


class Size(NamedTuple):
    width: int


class Call(nn.Module):
    """A stage out of a function of x and y."""

    def __init__(self, function: Callable = lambda x, y: x + y):
        super().__init__()
        self.function = function

    def forward(self, x: Tensor, y: Tensor | float = 0.0) -> Tensor:
        return self.function(x, y)


class Explodes(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise AssertionError("this stage was not asked for")


class Horizon(nn.Module):
    def forward(self, x: Tensor, horizon: int) -> Tensor:
        return x * horizon


def lens() -> Call:
    return Call(lambda x, y: Lens(2.0 * x, Size(640)))


def test_the_order_of_declaration_does_not_matter():
    stages = {"total": Call(), "twice": Call(lambda x, y: 2.0 * x), "a": Parameter(3.0), "b": Parameter(4.0)}
    wiring = {"total": {"x": "twice", "y": "b"}, "twice": {"x": "a"}}
    for names in (list(stages), list(reversed(stages))):
        pipeline = Pipeline({n: stages[n] for n in names}, wiring)
        assert pipeline(["total"])["total"].item() == 10.0
        order = pipeline.order
        assert order.index("a") < order.index("twice") < order.index("total")


def test_only_what_is_needed_is_computed():
    pipeline = Pipeline({"a": Parameter(3.0), "bomb": Explodes(), "after": Call(), "b": Call()},
                        {"bomb": {"x": "a"}, "after": {"x": "bomb"}, "b": {"x": "a"}})  # fmt: skip
    assert pipeline(["b"])["b"].item() == 3.0
    assert pipeline.needed(["b"]) == ["a", "b"]
    with pytest.raises(AssertionError):
        pipeline(["after"])
    with pytest.raises(AssertionError):
        pipeline()


def test_fields_of_records_also_nested_and_of_dicts():
    pipeline = Pipeline({"a": Parameter(3.0), "lens": lens(), "b": Call(), "d": Call(lambda x, y: {"left": x})},
                        {"lens": {"x": "a"}, "b": {"x": "lens.focal"}, "d": {"x": "a"}})  # fmt: skip
    out = pipeline(["b", "lens.focal", "lens.size.width", "d.left"])
    assert out["b"].item() == 6.0 and out["lens.focal"].item() == 6.0 and out["lens.size.width"] == 640
    assert out["d.left"].item() == 3.0
    with pytest.raises(UserError, match="no field 'focel'; did you mean 'focal'"):
        pipeline(["lens.focel"])
    with pytest.raises(UserError, match="no field 'index'"):  # a method of tuples, not a field
        pipeline(["lens.index"])
    with pytest.raises(UserError, match="no field 'x'"):
        pipeline(["a.x"])


@pytest.mark.parametrize(("stages", "wiring", "message"), [
    ({"length": Parameter(1.0), "b": Call()}, {"b": {"x": "lenght"}}, "no stage 'lenght'; did you mean 'length'"),
    ({"a": Parameter(1.0), "twice": Call()}, {"twcie": {"x": "a"}}, "no stage 'twcie'; did you mean 'twice'"),
    ({"a": Parameter(1.0), "b": Horizon()}, {"b": {"x": "a", "horizn": "$h"}}, "no argument 'horizn'; did you mean 'horizon'"),
    ({"a": Parameter(1.0), "b": Call()}, {}, "'x' is not wired; remedy: add wiring.b.x"),
    ({"a": Call(), "b": Call()}, {"a": {"x": "b"}, "b": {"x": "a"}}, "no cycle, got a -> b -> a"),
    ({"a": Call()}, {"a": {"x": "a"}}, "no cycle, got a -> a"),
    ({"a": 3.0}, {}, "expected a torch.nn.Module, got float"),
    ({"a.b": Parameter(1.0)}, {}, "without '.'"),
    ({"$a": Parameter(1.0)}, {}, "without '.'"),
    ({"values": Parameter(1.0)}, {}, "taken by torch"),
    ({"a": Parameter(1.0), "b": Call()}, {"b": {"x": "a", "y": 3}}, "expected 'stage'"),
])  # fmt: skip
def test_errors_when_it_is_built(stages, wiring, message):
    with pytest.raises(UserError) as caught:
        Pipeline(stages, wiring)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_context():
    pipeline = Pipeline({"a": Parameter(3.0), "b": Horizon()}, {"b": {"x": "a", "horizon": "$horizon"}})
    assert pipeline(["b"], context={"horizon": 4})["b"].item() == 12.0
    assert pipeline(["a"])["a"].item() == 3.0
    with pytest.raises(UserError, match=r"'\$horizon' was not given; did you mean 'horizn'"):
        pipeline(["b"], context={"horizn": 4})


def test_raw_overrides_with_worlds_leave_the_modules_alone():
    pipeline = Pipeline({"a": Parameter(1.0, 0.0, 2.0), "b": Parameter(4.0), "c": Call()}, {"c": {"x": "a", "y": "b"}})
    raw = torch.tensor([0.0, 100.0, -100.0], requires_grad=True)
    out = pipeline(["c", "a"], raw={"a": raw})
    assert torch.allclose(out["c"], torch.tensor([5.0, 6.0, 4.0])) and out["a"].shape == (3,)
    out["c"].sum().backward()
    assert raw.grad[0].item() == pytest.approx(0.5) and pipeline.stages["a"].raw.grad is None
    assert pipeline(["a"])["a"].tolist() == [1.0]


def test_raw_overrides_of_unknown_parameters_are_errors():
    pipeline = Pipeline({"length": Parameter(1.0), "c": Call()}, {"c": {"x": "length"}})
    for name, hint in (("lenght", "did you mean 'length'"), ("c", "no parameter 'c'")):
        with pytest.raises(UserError, match=hint):
            pipeline(["c"], raw={name: torch.zeros(1)})


def test_unknown_output():
    with pytest.raises(UserError, match="no stage 'lenght'; did you mean 'length'"):
        Pipeline({"length": Parameter(1.0)})(["lenght"])


def test_set_values():
    pipeline = Pipeline({"length": Parameter(1.0, 0.0, 2.0), "c": Call()}, {"c": {"x": "length"}})
    pipeline.set_values({"length": torch.tensor([0.5, 1.5])})
    assert torch.allclose(pipeline(["c"])["c"], torch.tensor([0.5, 1.5]))
    with pytest.raises(UserError, match="did you mean 'length'"):
        pipeline.set_values({"lenght": torch.tensor([0.5])})
    with pytest.raises(UserError, match="expected a Parameter"):
        pipeline.set_values({"c": torch.tensor([0.5])})
    with pytest.raises(UserError, match="'length': value: expected"):
        pipeline.set_values({"length": torch.tensor([2.5])})


def test_declared_and_weights():
    frozen = nn.Linear(1, 1)
    frozen.requires_grad_(False)

    class Learned(nn.Module):
        def __init__(self):
            super().__init__()
            self.net, self.frozen = nn.Linear(2, 1), frozen

        def forward(self):
            return self.net.weight

    pipeline = Pipeline({"g": Parameter(9.81, fixed=True), "a": Parameter(1.0), "net": Learned()})
    assert list(pipeline.declared()) == ["a"]
    assert list(pipeline.weights()) == ["net.net.weight", "net.net.bias"]


def test_gradient_reaches_declared_parameters_through_the_graph():
    pipeline = Pipeline({"a": Parameter(3.0, scale=2.0), "c": Call(lambda x, y: x * x)}, {"c": {"x": "a"}})
    pipeline(["c"])["c"].sum().backward()
    assert pipeline.stages["a"].raw.grad.item() == pytest.approx(12.0)


def test_description():
    pipeline = Pipeline({"b": Horizon(), "a": Parameter(3.0, 0.0, 5.0, "m"), "g": Parameter(9.81, unit="m/s^2", fixed=True)},
                        {"b": {"x": "a", "horizon": "$frames"}})  # fmt: skip
    table = pipeline.describe().splitlines()
    assert [row.split()[0] for row in table] == ["stage", "a", "b", "g"]
    assert "Parameter (0.0, 5.0) [m]" in table[1] and "Horizon" in table[2] and "x=a, horizon=$frames" in table[2]
    assert "Parameter fixed [m/s^2]" in table[3]
    mermaid = pipeline.mermaid().splitlines()
    assert mermaid[0] == "flowchart LR" and "  a --> b" in mermaid and "  a([a])" in mermaid and "  b[b<br/>Horizon]" in mermaid
