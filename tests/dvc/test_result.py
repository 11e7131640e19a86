"""Results: what is refused, the JSON form, the text table."""

import json
import math

import numpy as np
import pytest
import torch

from dvc.errors import UserError
from dvc.result import Estimate, Metric, Result, interval_text, number_text


def example() -> Result:
    return Result(
        "A clip gives the length",
        {
            "length": Estimate(0.5712, 0.5590, 0.5834, "m"),
            "restitution": Estimate(0.801, 0.76, 0.88),
            "mass": Estimate(0.2, 0.01, 0.9, "kg", True),
            "tilt": Estimate([0.01, 0.02], [0.0, 0.0], [0.1, 0.1], "rad"),
        },
        {"error": Metric(0.0123, "", "< 0.02", True), "period": Metric(1.6, "s", 1.5, False), "time": Metric(3, "s")},
    )


def test_json_round_trip_keeps_everything(tmp_path):
    result = example()
    path = result.write(tmp_path / "result.json")
    data = json.loads(path.read_text())
    assert set(data) == {"claim", "parameters", "metrics"}
    assert data["parameters"]["mass"] == {"value": 0.2, "low": 0.01, "high": 0.9, "unit": "kg", "weak": True}
    assert data["metrics"]["period"] == {"value": 1.6, "unit": "s", "expected": 1.5, "pass": False}
    assert data["metrics"]["time"]["pass"] is None
    assert Result.read(path) == result == Result.from_json(result.to_json())
    assert not result.passed
    assert list(tmp_path.iterdir()) == [path]


def test_tensors_and_arrays_become_plain_numbers():
    result = Result(
        "c",
        {"x": Estimate(torch.tensor([1.0, 2.0]), np.array([0.5, 1.5]), [1.5, 2.5], "m", np.bool_(True))},
        {"m": Metric(np.float32(0.5), passed=np.bool_(True)), "n": Metric(torch.tensor(2.0))},
    )
    assert json.loads(json.dumps(result.to_json()))["parameters"]["x"]["value"] == [1.0, 2.0]
    assert result.metrics["m"].passed is True and result.parameters["x"].weak is True


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, None, "1", True, [], [1.0, [2.0]], [1.0, math.nan]])
def test_a_value_that_is_no_finite_number_is_refused_by_name(bad):
    with pytest.raises(UserError, match=r"parameters\.length\.value"):
        Result("c", {"length": Estimate(bad, 0.0, 1.0)})
    with pytest.raises(UserError, match=r"metrics\.error\.value"):
        Result("c", {}, {"error": Metric(bad)})


@pytest.mark.parametrize(
    ("estimate", "words"),
    [
        (Estimate(2.0, 0.0, 1.0), "low <= value <= high"),
        (Estimate([1.0, 5.0], [0.0, 0.0], [2.0, 2.0]), "low <= value <= high"),
        (Estimate(1.0, math.nan, 2.0), r"length\.low"),
        (Estimate([1.0], [0.0, 0.0], [2.0]), "one shape"),
        (Estimate(1.0, 0.0, 2.0, weak=1), "true or false"),
        (Estimate(1.0, 0.0, 2.0, unit=None), r"length\.unit"),
    ],
)
def test_wrong_estimates_are_refused(estimate, words):
    with pytest.raises(UserError, match=words) as caught:
        Result("c", {"length": estimate})
    assert "length" in str(caught.value) and "\n" not in str(caught.value)


def test_a_change_after_construction_is_checked_when_written(tmp_path):
    result = example()
    result.parameters["length"].value = math.nan
    with pytest.raises(UserError, match=r"length\.value"):
        result.write(tmp_path / "result.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot read"),
        ("[]", "expected entries by name"),
        ('{"claim": "c", "metrics": {}}', "'parameters' is missing"),
        ('{"claim": "c", "metrics": {}, "parameters": {}, "colour": 1}', "unknown entry 'colour'"),
        ('{"claim": "c", "metrics": {"e": {"value": NaN}}, "parameters": {}}', r"metrics\.e\.value"),
        ('{"claim": "c", "metrics": {}, "parameters": {"x": {"value": 1, "low": 0}}}', "'high' is missing"),
    ],
)
def test_a_damaged_file_is_one_clear_line(tmp_path, text, words):
    path = tmp_path / "result.json"
    path.write_text(text)
    with pytest.raises(UserError, match=words) as caught:
        Result.read(path)
    assert "result.json" in str(caught.value)


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(UserError, match="no result at"):
        Result.read(tmp_path / "result.json")


def test_table_shows_intervals_flags_and_verdicts():
    lines = example().table().splitlines()
    find = lambda name: next(line for line in lines if line.startswith(name))  # noqa: E731
    assert "0.571 ± 0.012" in find("length") and find("length").endswith("m")
    assert "[0.760, 0.880]" in find("restitution")
    assert find("mass").endswith("weak")
    assert "[0.01, 0.02] from [0, 0] to [0.1, 0.1]" in find("tilt")
    assert find("error").split() == ["error", "0.0123", "<", "0.02", "pass"]
    assert find("period").endswith("FAIL") and find("time").endswith("-")


def test_number_texts_are_compact():
    assert number_text(0.123456) == "0.1235" and number_text(3) == "3"
    assert number_text([float(i) for i in range(64)]) == "[0, 1, ..., 63] (64)"
    assert number_text([[1, 2], [3, 4]]) == "[1, 2, 3, 4] (2 x 2)"
    assert interval_text(Estimate(2e7, 1e7, 3e7)) == "2e+07 ± 1e+07"
    assert interval_text(Estimate(3e-7, 2e-7, 4e-7)) == "3e-07 ± 1e-07"
    assert interval_text(Estimate(1.0, 1.0, 1.0)) == "1"
    assert interval_text(Estimate(-9.81, -9.82, -9.80)) == "-9.810 ± 0.010"
