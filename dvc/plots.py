"""The pictures of a run: loss and parameters over steps, a quantity over time, strips of frames. PNG files, no display."""

import contextlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dvc.atomic_file import replacing
from dvc.errors import UserError

_INK, _GRID, _MODEL, _OBSERVED, _STRIKE = "#24292f", "#d8dee4", "#0b6bcb", "#8a94a0", "#c2410c"
_PHASES = ("#eef4fb", "#fbf3e9", "#eef8ef", "#f6eefa")
_PANELS_AT_MOST = 12


def read_metrics(path: Path | str) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`; a last line that was cut off is left out. Raises: UserError for another bad line."""
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            if not isinstance(row, dict) or "step" not in row:
                raise ValueError("expected an object with a step")
        except ValueError as error:
            if number == len(lines):
                break
            raise UserError(f"{path}, line {number}: {error}; remedy: the file is damaged, run again") from error
        rows.append(row)
    return rows


@contextlib.contextmanager
def _figure(path: Path, size: tuple[float, float], rows: int = 1, columns: int = 1) -> Iterator[Any]:
    """Axes of a new figure, which is written to `path` when the block ends."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=130, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)  # no pyplot: no global state, no display
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.grid(True, color=_GRID, linewidth=0.6)
        axis.set_axisbelow(True)
        axis.tick_params(labelsize=8, colors=_INK, length=3)
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    yield axes
    with replacing(path) as temporary:  # a full disk leaves no half picture
        figure.savefig(temporary, format="png", metadata={"Software": None})


def _phases(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, float, float]]:
    """(name, first step, step of the next phase) of each stretch of equal phase."""
    spans: list[tuple[str, float, float]] = []
    for row in rows:
        name, step = str(row.get("phase", "")), float(row["step"])
        if spans and spans[-1][0] == name:
            spans[-1] = (name, spans[-1][1], step)
        else:
            if spans:
                spans[-1] = (spans[-1][0], spans[-1][1], step)
            spans.append((name, step, step))
    return spans


def _shade(axis: Any, spans: Sequence[tuple[str, float, float]], *, names: bool) -> None:
    if len(spans) < 2:
        return
    for index, (name, start, end) in enumerate(spans):
        axis.axvspan(start, end, color=_PHASES[index % len(_PHASES)], linewidth=0, zorder=0)
        if names:
            axis.text(
                start,
                1.01,
                f" {name}",
                transform=axis.get_xaxis_transform(),
                fontsize=8,
                color=_INK,
                va="bottom",
                parse_math=False,
            )


def _column(rows: Sequence[Mapping[str, Any]], get: Any) -> np.ndarray:
    """One number a row; NaN where there is none."""
    values = [get(row) for row in rows]
    return np.array([np.nan if value is None else float(value) for value in values])


def plot_loss(path: Path | str, rows: Sequence[Mapping[str, Any]]) -> Path:
    """Loss over steps, logarithmic where every loss is positive, the phases shaded. `rows` as in `metrics.jsonl`."""
    path = Path(path)
    steps, loss = _column(rows, lambda r: r["step"]), _column(rows, lambda r: r.get("loss"))
    with _figure(path, (7.2, 3.2)) as axes:
        axis = axes[0, 0]
        spans = _phases(rows)
        _shade(axis, spans, names=True)
        for _, start, end in spans or [("", -math.inf, math.inf)]:  # a jump between phases is no descent: no line across
            inside = (steps >= start) & ((steps < end) | (end == steps[-1]))
            axis.plot(steps[inside], loss[inside], color=_MODEL, linewidth=1.4, marker="." if inside.sum() < 3 else None)
        finite = loss[np.isfinite(loss)]
        if finite.size and (finite > 0).all():
            axis.set_yscale("log")
        axis.set_xlabel("step", fontsize=9)
        axis.set_ylabel("loss", fontsize=9)
    return path


def plot_parameters(
    path: Path | str,
    rows: Sequence[Mapping[str, Any]],
    bounds: Mapping[str, tuple[Any, Any]] | None = None,
    units: Mapping[str, str] | None = None,
) -> Path | None:
    """Each parameter over steps, one panel each (at most 12). Returns None where there are none.

    Arguments:
        rows: as in `metrics.jsonl`; a parameter may be a list (one line an element).
        bounds: name -> (lower, upper), numbers, lists or None; drawn as dashed lines where they are near the curve.
        units: name -> unit, for the label.
    """
    path, bounds, units = Path(path), bounds or {}, units or {}
    names = list(dict.fromkeys(name for row in rows for name in row.get("parameters", {})))
    shown = names[:_PANELS_AT_MOST]
    if not shown:
        return None
    columns = min(3, len(shown))
    count = math.ceil(len(shown) / columns)
    steps, spans = _column(rows, lambda r: r["step"]), _phases(rows)
    with _figure(path, (7.2, 1.9 * count + 0.3), count, columns) as axes:
        for axis in axes.flat[len(shown) :]:
            axis.set_visible(False)
        for axis, name in zip(axes.flat, shown, strict=False):
            _shade(axis, spans, names=False)
            curves = _curves(rows, name)
            axis.plot(steps, curves, color=_MODEL, linewidth=1.3, alpha=1.0 if curves.shape[1] < 4 else 0.5)
            _draw_bounds(axis, curves, bounds.get(name, (None, None)))
            title = f"{name} [{units[name]}]" if units.get(name) else name
            axis.set_title(title, fontsize=9, color=_INK, parse_math=False)
        if len(names) > len(shown):
            axes[-1, 0].set_xlabel(f"step ({len(names) - len(shown)} more parameters not shown)", fontsize=8)
    return path


def _curves(rows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """(step, element); NaN where a row has none."""
    values = [row.get("parameters", {}).get(name) for row in rows]
    width = max((np.size(value) for value in values if value is not None), default=1)
    table = np.full((len(rows), width), np.nan)
    for index, value in enumerate(values):
        if value is not None:
            flat = np.array(value, dtype=float).reshape(-1)
            table[index, : flat.size] = flat
    return table


def _draw_bounds(axis: Any, curves: np.ndarray, limits: tuple[Any, Any]) -> None:
    if not np.isfinite(curves).any():
        return
    low, high = float(np.nanmin(curves)), float(np.nanmax(curves))
    reach = max(high - low, 1e-3 * max(abs(low), abs(high)), 1e-12)
    for limit in limits:
        if limit is None:
            continue
        for value in np.unique(np.array(limit, dtype=float)):
            if low - reach <= value <= high + reach:
                axis.axhline(value, color=_STRIKE, linewidth=1.0, linestyle=(0, (4, 3)))


def plot_time(
    path: Path | str,
    time: np.ndarray,
    model: np.ndarray,
    observed: np.ndarray | None = None,
    strikes: np.ndarray | None = None,
    *,
    label: str = "angle [rad]",
) -> Path:
    """A quantity over time: the model as a line, what was observed as dots, strikes as vertical lines.

    Arguments:
        time: [s], shape (sample,); `observed` may have NaN where nothing was seen.
        model, observed: shape (sample,) or (sample, component).
        strikes: times [s] of impacts, shape (strike,).
    Raises: UserError when the shapes do not fit.
    """
    path, time, model = Path(path), np.asarray(time, float).reshape(-1), np.asarray(model, float)
    for name, values in (("model", model), ("observed", observed)):
        if values is not None and np.shape(values)[:1] != time.shape:
            raise UserError(f"{name}: expected {time.size} samples, one a time, got shape {np.shape(values)}")
    with _figure(path, (7.2, 3.2)) as axes:
        axis = axes[0, 0]
        for index, strike in enumerate(np.asarray(strikes if strikes is not None else [], float).reshape(-1)):
            axis.axvline(strike, color=_STRIKE, linewidth=0.8, alpha=0.6, label="strike" if index == 0 else None)
        if observed is not None:
            seen = axis.plot(time, np.asarray(observed, float), ".", color=_OBSERVED, markersize=4)
            seen[0].set_label("observed")
        lines = axis.plot(time, model, color=_MODEL, linewidth=1.4)
        lines[0].set_label("model")
        axis.set_xlabel("time [s]", fontsize=9)
        axis.set_ylabel(label, fontsize=9)
        axis.legend(fontsize=8, frameon=False, ncols=3, loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2)
    return path


def plot_growth(
    path: Path | str,
    time: np.ndarray,
    norms: Mapping[str, np.ndarray],
    parts: np.ndarray | None = None,
    fit: np.ndarray | None = None,
    until: float | None = None,
    *,
    label: str = "norm of the gradient",
) -> Path:
    """Norms over the horizon, logarithmic: named ones as lines with dots, parts of the first one thin, a fit dashed.

    Arguments: time [s], (horizon,); norms: name -> (horizon,); parts: (horizon, part); fit: (horizon,), NaN where none;
        until: the horizon [s] up to which they are trusted; what lies beyond is shaded.
    """
    path, time = Path(path), np.asarray(time, float)
    colors = [_MODEL, _OBSERVED, _STRIKE]
    with _figure(path, (7.2, 3.6)) as axes:
        axis = axes[0, 0]
        last = float(time[-1])
        if until is None or until < last:
            axis.axvspan(
                time[0] if until is None else until, last, color=_PHASES[1], linewidth=0, zorder=0, label="not trusted"
            )
        for part in () if parts is None else np.where(parts > 0.0, parts, np.nan).T:
            axis.plot(time, part, color=_MODEL, linewidth=0.6, alpha=0.35)
        for index, (name, values) in enumerate(norms.items()):
            style = {"marker": "o", "markersize": 4 - index, "linestyle": "-" if index == 0 else ":"}
            axis.plot(time, np.where(values > 0.0, values, np.nan), color=colors[index % 3], linewidth=1.5, label=name, **style)
        if fit is not None:
            axis.plot(time, fit, color=_INK, linewidth=1.0, linestyle=(0, (4, 3)), label="fit")
        axis.set_yscale("log")
        axis.set_xlabel("horizon [s]", fontsize=9)
        axis.set_ylabel(label, fontsize=9)
        axis.legend(fontsize=8, frameon=False, ncols=4, loc="lower right", bbox_to_anchor=(1.0, 1.0), borderaxespad=0.2)
    return path


def plot_strip(path: Path | str, rows: Mapping[str, np.ndarray], columns: int = 6) -> Path:
    """Frames side by side, one row a name, such as observed, model and residual.

    Arguments:
        rows: name -> frames, shape (frame, height, width) or (frame, height, width, 3), uint8 or in [0, 1]. A row whose
            values go below zero is shown around grey, each row in its own scale.
        columns: how many frames, evenly spaced.
    """
    path = Path(path)
    count = min([columns, *(len(frames) for frames in rows.values())]) if rows else 0
    if count == 0:
        raise UserError("strip: expected at least one row of at least one frame")
    height, width = next(iter(rows.values())).shape[1:3]
    size = (7.2, 7.2 / count * height / width * len(rows) + 0.2)
    with _figure(path, size, len(rows), count) as axes:
        for line, (name, frames) in zip(axes, rows.items(), strict=True):
            frames = np.asarray(frames)
            scale = float(np.abs(frames).max()) or 1.0 if frames.dtype != np.uint8 else 255.0
            signed = frames.dtype != np.uint8 and float(frames.min()) < 0.0
            for axis, index in zip(line, np.linspace(0, len(frames) - 1, count).round().astype(int), strict=True):
                image = frames[index].astype(float)
                image = 0.5 + 0.5 * image / scale if signed else image / max(scale, 1.0)
                axis.imshow(image, cmap="gray", vmin=0.0, vmax=1.0)
                axis.grid(False)
                axis.set(xticks=[], yticks=[])
                for spine in axis.spines.values():
                    spine.set_visible(False)
            line[0].set_ylabel(name, fontsize=9, parse_math=False)
    return path


def plot_run(
    directory: Path | str,
    bounds: Mapping[str, tuple[Any, Any]] | None = None,
    units: Mapping[str, str] | None = None,
) -> list[Path]:
    """Every plot that the files of a run allow: `loss.png`, `parameters.png` and, from `angles.npz`, `angles.png`."""
    directory = Path(directory)
    made: list[Path | None] = []
    if (directory / "metrics.jsonl").exists():
        rows = read_metrics(directory / "metrics.jsonl")
        if rows:
            made.append(plot_loss(directory / "loss.png", rows))
            made.append(plot_parameters(directory / "parameters.png", rows, bounds, units))
    if (directory / "angles.npz").exists():
        with np.load(directory / "angles.npz") as arrays:
            if {"time", "model"} <= set(arrays.files):
                optional = {name: arrays[name] for name in ("observed", "strikes") if name in arrays.files}
                made.append(plot_time(directory / "angles.png", arrays["time"], arrays["model"], **optional))
    return [path for path in made if path is not None]
