"""`Result`: what a run claims, the parameters that it recovered with their intervals, and its metrics.

It is checked when it is made: numbers are finite, intervals hold their value, names and units are text. Its JSON form is
{"claim", "parameters": {name: {"value", "low", "high", "unit", "weak"}},
 "metrics": {name: {"value", "unit", "expected", "pass"}}}.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from dvc.atomic_file import write_file
from dvc.errors import UserError

Number = float | list[Any]  # a number, or nested lists of numbers


def _number(value: Any, name: str) -> Number:
    """A finite number or (nested) list of them; tensors and arrays become lists."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        if not value:
            raise UserError(f"{name}: expected a number or a list of numbers, got an empty list")
        items = [_number(item, f"{name}[{index}]") for index, item in enumerate(value)]
        if len({_shape(item) for item in items}) > 1:
            raise UserError(f"{name}: expected rows of equal length, got {value!r}")
        return items
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UserError(f"{name}: expected a number or a list of numbers, got {value!r} ({type(value).__name__})")
    if not math.isfinite(value):
        raise UserError(f"{name}: expected a finite number, got {value}")
    return value


def _shape(value: Number) -> tuple[int, ...]:
    return (len(value), *_shape(value[0])) if isinstance(value, list) else ()


def _flat(value: Number) -> list[float]:
    return [number for item in value for number in _flat(item)] if isinstance(value, list) else [value]


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise UserError(f"{name}: expected text, got {value!r} ({type(value).__name__})")
    return value


def _truth(value: Any, name: str) -> bool:
    value = value.tolist() if hasattr(value, "tolist") else value  # numpy's and torch's own truth values are meant as such
    if not isinstance(value, bool):
        raise UserError(f"{name}: expected true or false, got {value!r}")
    return value


@dataclass
class Estimate:
    """A recovered parameter: value and interval [low, high] in `unit`; `weak` when the data hardly determine it."""

    value: Number
    low: Number
    high: Number
    unit: str = ""
    weak: bool = False


@dataclass
class Metric:
    """A measured number, what was expected of it (a number or text such as "< 0.02") and whether that was met.

    `passed` is None where nothing was expected.
    """

    value: Number
    unit: str = ""
    expected: Number | str | None = None
    passed: bool | None = None


def _checked_estimate(estimate: Estimate, name: str) -> None:
    estimate.value = _number(estimate.value, f"{name}.value")
    estimate.low = _number(estimate.low, f"{name}.low")
    estimate.high = _number(estimate.high, f"{name}.high")
    _text(estimate.unit, f"{name}.unit")
    estimate.weak = _truth(estimate.weak, f"{name}.weak")
    shapes = [_shape(estimate.low), _shape(estimate.value), _shape(estimate.high)]
    if len(set(shapes)) > 1:
        raise UserError(f"{name}: expected low, value and high of one shape, got {shapes[0]}, {shapes[1]} and {shapes[2]}")
    for low, value, high in zip(_flat(estimate.low), _flat(estimate.value), _flat(estimate.high), strict=True):
        if not low <= value <= high:
            raise UserError(f"{name}: expected low <= value <= high, got {low}, {value}, {high}")


def _checked_metric(metric: Metric, name: str) -> None:
    metric.value = _number(metric.value, f"{name}.value")
    _text(metric.unit, f"{name}.unit")
    if metric.expected is not None and not isinstance(metric.expected, str):
        metric.expected = _number(metric.expected, f"{name}.expected")
    if metric.passed is not None:
        metric.passed = _truth(metric.passed, f"{name}.pass")


@dataclass
class Result:
    """The outcome of a run.

    Arguments:
        claim: one sentence; what the run shows.
        parameters: name -> Estimate, in the order in which they are to be shown.
        metrics: name -> Metric.
    Raises: UserError naming the entry, for a number that is not finite, an interval that does not hold its value, or a
        wrong type.
    """

    claim: str
    parameters: dict[str, Estimate] = field(default_factory=dict)
    metrics: dict[str, Metric] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.check()

    def check(self) -> None:
        """Validate again, for a result that was changed after it was made."""
        _text(self.claim, "claim")
        for kind, entries, expected in (("parameters", self.parameters, Estimate), ("metrics", self.metrics, Metric)):
            if not isinstance(entries, dict):
                raise UserError(f"{kind}: expected a dict by name, got {type(entries).__name__}")
            for name, entry in entries.items():
                _text(name, f"name in {kind}")
                if not isinstance(entry, expected):
                    raise UserError(f"{kind}.{name}: expected {expected.__name__}, got {type(entry).__name__}")
                if isinstance(entry, Estimate):
                    _checked_estimate(entry, f"{kind}.{name}")
                else:
                    _checked_metric(entry, f"{kind}.{name}")

    @property
    def passed(self) -> bool:
        """No metric failed."""
        return all(metric.passed is not False for metric in self.metrics.values())

    # -- JSON ---------------------------------------------------------------------------------------------------------
    def to_json(self) -> dict[str, Any]:
        """The JSON form, as plain Python values."""
        self.check()
        return {
            "claim": self.claim,
            "parameters": {
                name: {"value": e.value, "low": e.low, "high": e.high, "unit": e.unit, "weak": e.weak}
                for name, e in self.parameters.items()
            },
            "metrics": {
                name: {"value": m.value, "unit": m.unit, "expected": m.expected, "pass": m.passed}
                for name, m in self.metrics.items()
            },
        }

    @classmethod
    def from_json(cls, data: Any) -> "Result":
        """Read the JSON form, from plain Python values. Raises: UserError naming a missing, unknown or wrong entry."""
        top = _entries(data, "result", {"claim", "parameters", "metrics"}, set())
        parameters, metrics = {}, {}
        for name, entry in _entries(top["parameters"], "parameters").items():
            item = _entries(entry, f"parameters.{name}", {"value", "low", "high"}, {"unit", "weak"})
            parameters[name] = Estimate(**item)
        for name, entry in _entries(top["metrics"], "metrics").items():
            item = _entries(entry, f"metrics.{name}", {"value"}, {"unit", "expected", "pass"})
            metrics[name] = Metric(item["value"], item.get("unit", ""), item.get("expected"), item.get("pass"))
        return cls(top["claim"], parameters, metrics)

    def write(self, path: Path | str) -> Path:
        """Write the JSON form in one step: the file is the old one or the new one, never half of it."""
        return write_file(path, json.dumps(self.to_json(), indent=2, allow_nan=False, ensure_ascii=False) + "\n")

    @classmethod
    def read(cls, path: Path | str) -> "Result":
        """Read a `result.json`. Raises: UserError when it is missing, not JSON, or not a result."""
        path = Path(path)
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UserError(f"no result at {path}: the run has not finished, or this is not a run directory") from None
        except (OSError, ValueError) as error:
            raise UserError(f"cannot read {path}: {error}") from error
        try:
            return cls.from_json(data)
        except UserError as error:
            raise UserError(f"{path}: {error}") from error

    # -- text ---------------------------------------------------------------------------------------------------------
    def parameter_rows(self) -> list[tuple[str, str, str, str]]:
        """(name, value with its interval, unit, "weak" or "") of each parameter, as text."""
        return [(n, interval_text(e), e.unit, "weak" if e.weak else "") for n, e in self.parameters.items()]

    def metric_rows(self) -> list[tuple[str, str, str, str]]:
        """(name, value with its unit, expected, "pass", "FAIL" or "-") of each metric, as text."""
        rows = []
        for name, metric in self.metrics.items():
            expected = metric.expected if isinstance(metric.expected, str) else "-"
            if metric.expected is not None and not isinstance(metric.expected, str):
                expected = number_text(metric.expected)
            verdict = {True: "pass", False: "FAIL", None: "-"}[metric.passed]
            rows.append((name, f"{number_text(metric.value)} {metric.unit}".rstrip(), expected, verdict))
        return rows

    def table(self) -> str:
        """Both tables as plain text, columns aligned."""
        parts = []
        if self.parameters:
            parts.append(_aligned(("parameter", "value", "unit", ""), self.parameter_rows()))
        if self.metrics:
            parts.append(_aligned(("metric", "value", "expected", "pass"), self.metric_rows()))
        return "\n\n".join(parts) or "(no parameters, no metrics)"


def _entries(data: Any, name: str, required: set[str] | None = None, optional: set[str] | None = None) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise UserError(f"{name}: expected entries by name, got {type(data).__name__}")
    if required is not None:
        missing, unknown = required - data.keys(), data.keys() - required - (optional or set())
        if missing:
            raise UserError(f"{name}: entry {sorted(missing)[0]!r} is missing")
        if unknown:
            raise UserError(
                f"{name}: unknown entry {sorted(unknown)[0]!r}; expected {', '.join(sorted(required | (optional or set())))}"
            )
    return data


def _aligned(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    table = [header, *rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    lines = ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def _decimals(width: float) -> int:
    """Digits after the point that show two digits of an interval's half-width."""
    return max(0, 1 - math.floor(math.log10(width * (1 + 1e-9))))


def number_text(value: Number, digits: int = 4) -> str:
    """A number in a few digits; a list as "[1, 2, 3]", and a long one by its ends and its shape."""
    if not isinstance(value, list):
        return f"{value:.{digits}g}" if not isinstance(value, int) else str(value)
    flat = _flat(value)
    shown = [number_text(number, digits) for number in (flat if len(flat) <= 4 else [*flat[:2], flat[-1]])]
    if len(flat) > 4:
        shown.insert(2, "...")
    shape = f" ({' x '.join(map(str, _shape(value)))})" if len(flat) > 4 or isinstance(value[0], list) else ""
    return f"[{', '.join(shown)}]{shape}"


def interval_text(estimate: Estimate) -> str:
    """A value with its interval: "0.571 ± 0.012" where that is symmetric to 10 %, else "0.571 [0.55, 0.60]".

    Lists read "[..] from [..] to [..]".
    """
    value, low, high = _flat(estimate.value), _flat(estimate.low), _flat(estimate.high)
    half = max((h - lo) / 2 for lo, h in zip(low, high, strict=True))
    if isinstance(estimate.value, list):
        return " ".join((number_text(estimate.value), "from", number_text(estimate.low), "to", number_text(estimate.high)))
    if half == 0.0:
        return number_text(estimate.value)
    tiny, huge = min(half, *(abs(n) for n in (*value, half) if n)) < 1e-4, max(abs(value[0]), half) >= 1e6
    form = (lambda n: f"{n:.3g}") if tiny or huge else (lambda n: f"{n:.{min(_decimals(half), 6)}f}")
    skew = abs((high[0] - value[0]) - (value[0] - low[0])) / (2 * half)
    if skew <= 0.1:
        return f"{form(value[0])} ± {form(half)}"
    return f"{form(value[0])} [{form(low[0])}, {form(high[0])}]"
