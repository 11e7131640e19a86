r"""The gradient against the horizon: how its norm grows, how far it can be trusted, and how fast the motion forgets.

At each horizon T the gradient g(T) of a loss comes from reverse mode, and once more from central differences over worlds at
falling steps (`dvc.gradient_check`). A number whose two values disagree, or where differences at no step agree with their
neighbours (the loss is not smooth at any step that float32 can resolve), is counted against the horizon. The *useful*
horizon is the longest one up to which none is. |g| is fitted by both

    log |g(T)| = a + lambda T        (exponential)              log |g(T)| = a + n log T        (a power)

over the useful horizons, least squares; the better fit names the growth. lambda [1/s] estimates the largest Lyapunov exponent
of the motion where it is positive and the loss looks at the end of the motion (a sum over time lags a little behind), for
then |g| is led by |ds(T)/ds(0)| ~ exp(lambda T) (Metz et al. 2021, "Gradients are not all you need"). It is a finite-time
estimate: its error bar is that of the fit alone.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dvc.atomic_file import write_file
from dvc.errors import UserError
from dvc.gradient_check import PRECISE_SHARE, CheckRow, compare, precise_loss
from dvc.losses import Objective
from dvc.parameter_vector import ParameterVector
from dvc.pipeline import Pipeline
from dvc.plots import plot_growth

HORIZON_STEPS = (1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
LEAST_POINTS = 4  # horizons in a fit
Loss = Callable[[Tensor, int], Tensor]


class Growth(NamedTuple):
    """How the norm of the gradient depends on the horizon."""

    kind: str  # "exponential" or "power"
    rate: float  # lambda [1/s], negative where it decays
    rate_error: float  # standard error of the fit
    power: float  # n
    constant: float  # a of the better fit

    def norm(self, seconds: np.ndarray) -> np.ndarray:
        """The fitted norm."""
        return np.exp(self.constant + (self.rate * seconds if self.kind == "exponential" else self.power * np.log(seconds)))


class HorizonReport(NamedTuple):
    """Gradients of one loss at rising horizons."""

    labels: list[str]  # numbers of x
    horizons: list[int]
    seconds: np.ndarray  # (horizon,)
    losses: np.ndarray  # (horizon,)
    rows: list[list[CheckRow]]  # at each horizon, one a number of x
    useful: int | None  # None: not even the first one
    growth: Growth | None  # None: fewer than LEAST_POINTS useful horizons whose gradient is not zero

    def norms(self, which: str = "analytic") -> np.ndarray:
        """|g| (horizon,), of reverse mode ("analytic") or of differences ("numeric")."""
        return np.array([math.sqrt(sum(getattr(r, which) ** 2 for r in rows)) for rows in self.rows])


def verdict(rows: Sequence[CheckRow]) -> str:
    """ "agree", or what is wrong and with which number."""
    for row in rows:
        if not math.isfinite(row.analytic):
            return f"not finite: {row.name}"
        if not row.passed:
            return f"disagree: {row.name}"
        if row.note.startswith("excluded"):
            return f"not smooth: {row.name}"
    if all(row.note == "within the differences' error" for row in rows):
        return "unsure: lost in the differences' error"
    return "agree"


def fit_growth(seconds: np.ndarray, norms: np.ndarray) -> Growth | None:
    """The better of both fits, or None for fewer than LEAST_POINTS norms above zero."""
    kept = np.isfinite(norms) & (norms > 0.0) & (seconds > 0.0)
    t, y = seconds[kept], np.log(norms[kept])
    if len(t) < LEAST_POINTS:
        return None
    fits = {}
    for kind, at in (("exponential", t), ("power", np.log(t))):
        design = np.stack([np.ones_like(at), at], axis=1)
        answer = np.linalg.lstsq(design, y, rcond=None)[0]
        left = float(((y - design @ answer) ** 2).sum())
        spread = float(((at - at.mean()) ** 2).sum())
        fits[kind] = (left, answer, math.sqrt(left / (len(t) - 2) / spread))
    kind = min(fits, key=lambda k: fits[k][0])
    _, exponential, error = fits["exponential"]
    return Growth(kind, float(exponential[1]), error, float(fits["power"][1][1]), float(fits[kind][1][0]))


def horizon_report(
    loss: Loss,
    x: Tensor,
    horizons: Sequence[int],
    *,
    labels: Sequence[str] | None = None,
    interval: float = 1.0,
    steps: Sequence[float] = HORIZON_STEPS,
    worlds_at_once: int = 16,
    precise: Loss | None = None,
) -> HorizonReport:
    """Gradients of `loss(x (world, size), horizon) -> (world,)` at x (size,).

    Arguments: horizons: rising whole numbers; interval [s] of one of them; steps: of the differences, falling; precise: the
        same loss with less rounding, for the differences.
    Raises: UserError for horizons that do not rise, a loss of another shape, one that is not finite at the first horizon.
    """
    horizons = list(horizons)
    if not horizons or any(type(h) is not int or h < 1 for h in horizons) or sorted(set(horizons)) != horizons:
        raise UserError(f"horizons: expected rising whole numbers from 1, got {horizons}")
    if not (interval > 0.0 and math.isfinite(interval)):
        raise UserError(f"interval: expected a number of seconds above 0, got {interval}")
    if len(steps) < 3 or sorted(steps, reverse=True) != list(steps) or not steps[-1] > 0.0:
        raise UserError(f"steps: expected at least three falling numbers above 0, got {list(steps)}")
    if x.dim() != 1 or not len(x):
        raise UserError(f"x: expected shape (size,) of at least one number, got {tuple(x.shape)}")
    names = [f"x[{i}]" for i in range(len(x))] if labels is None else list(labels)
    if len(names) != len(x):
        raise UserError(f"labels: expected {len(x)}, got {len(names)}")
    losses: list[float] = []
    table: list[list[CheckRow]] = []
    for horizon in horizons:
        leaf = x.detach()[None].clone().requires_grad_(True)
        value = loss(leaf, horizon)
        if tuple(value.shape) != (1,):
            raise UserError(f"loss: expected shape (world,), got {tuple(value.shape)} for one world at horizon {horizon}")
        (slope,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True) if value.requires_grad else (None,)
        gradient = torch.zeros_like(leaf) if slope is None else slope
        if not table and not bool(torch.isfinite(value.detach()).all()):
            raise UserError(f"loss: expected a finite number at horizon {horizon}, got {float(value.detach())}")
        losses.append(float(value.detach()))
        numeric = _differences(precise or loss, x.detach(), horizon, steps, worlds_at_once)
        scale = (1.0 if precise is None else PRECISE_SHARE) * abs(losses[-1])
        slopes = zip(gradient[0].tolist(), numeric.T.tolist(), names, strict=True)
        table.append([compare(g, d, steps, scale, name, "parameter") for g, d, name in slopes])
    count = 0
    while count < len(table) and verdict(table[count]) == "agree":
        count += 1
    seconds = interval * np.array(horizons, float)
    report = HorizonReport(names, horizons, seconds, np.array(losses), table, horizons[count - 1] if count else None, None)
    return report._replace(growth=fit_growth(seconds[:count], report.norms()[:count]))


@torch.no_grad()
def _differences(loss: Loss, x: Tensor, horizon: int, steps: Sequence[float], at_once: int) -> Tensor:
    """(step, size). All steps in few calls with the same number of worlds, so that one trace of each op serves them all."""
    eye = torch.eye(len(x))
    worlds = torch.cat([x + side * h * eye for h in steps for side in (1.0, -1.0)])
    calls = -(-len(worlds) // at_once)
    filled = torch.cat([worlds, worlds[-1:].expand(-len(worlds) % calls, -1)])
    values = torch.cat([loss(part, horizon).double() for part in filled.chunk(calls)])[: len(worlds)]
    sides = values.reshape(len(steps), 2, len(x))
    return ((sides[:, 0] - sides[:, 1]) / (2.0 * torch.tensor(steps, dtype=torch.float64)[:, None])).float()


def pipeline_report(
    pipeline: Pipeline,
    objective: Objective,
    context: Mapping[str, Any],
    horizons: Sequence[int],
    *,
    name: str = "horizon",
    train: Sequence[str] | None = None,
    interval: float = 1.0,
    worlds_at_once: int = 16,
) -> HorizonReport:
    """The report of an objective at the pipeline's present values, with the horizon in the context value `name`.

    Arguments: train: declared parameters (None: all). Raises: UserError where nothing is wired to `$name`.
    """
    from dvc.descent import Problem

    wired = {source[1:] for inputs in pipeline.wiring.values() for source in inputs.values() if source.startswith("$")}
    if name not in wired:
        raise UserError(f"horizon: no stage is wired to ${name}; context values: {', '.join(sorted(wired)) or 'none'}")
    vector = ParameterVector(pipeline, train)

    def problem(horizon: int) -> Problem:
        return Problem(pipeline, objective, vector, {**context, name: horizon})

    return horizon_report(
        lambda x, h: problem(h).loss(x), vector.gather()[0], horizons, labels=vector.labels, interval=interval,
        worlds_at_once=worlds_at_once, precise=lambda x, h: precise_loss(problem(h), x),
    )  # fmt: skip


def spread_horizons(longest: int, count: int = 8) -> list[int]:
    """Rising whole numbers from about a sixteenth of the longest to it, evenly spaced in their logarithms."""
    shortest = max(1, longest // 16)
    return sorted({round(h) for h in np.geomspace(shortest, longest, count)})


# -- what is left behind ----------------------------------------------------------------------------------------------
def format_report(report: HorizonReport) -> str:
    """The table and two lines that say what follows from it."""
    head = ("horizon", "time [s]", "loss", "|gradient|", "|differences|", "rel. error", "")
    body = []
    for i, rows in enumerate(report.rows):
        reverse, numeric = report.norms()[i], report.norms("numeric")[i]
        apart = math.sqrt(sum((r.analytic - r.numeric) ** 2 for r in rows))
        size = max(reverse, numeric)
        body.append((
            str(report.horizons[i]), f"{report.seconds[i]:.4g}", f"{report.losses[i]:.5g}", f"{reverse:.4g}",
            f"{numeric:.4g}", f"{apart / size if size > 0.0 else 0.0:.1e}", verdict(rows),
        ))  # fmt: skip
    widths = [max(len(row[i]) for row in [head, *body]) for i in range(7)]
    lines = [
        "  ".join(cell.rjust(w) for cell, w in zip(row[:6], widths, strict=False)) + f"  {row[6]}" for row in [head, *body]
    ]
    return "\n".join([line.rstrip() for line in lines] + summary(report))


def summary(report: HorizonReport) -> list[str]:
    """Useful horizon and growth, in words."""
    if report.useful is None:
        return [f"no useful horizon: at {report.horizons[0]} already {verdict(report.rows[0])}"]
    at = float(report.seconds[report.horizons.index(report.useful)])
    end = ", the longest one asked" if report.useful == report.horizons[-1] else ""
    lines = [f"useful horizon: {report.useful} ({at:.4g} s){end}"]
    g = report.growth
    if g is None:
        return [*lines, f"growth: not fitted, fewer than {LEAST_POINTS} useful horizons with a gradient that is not zero"]
    rate = f"{g.rate:+.3g} +- {g.rate_error:.2g} 1/s"
    if g.kind == "power":
        return [*lines, f"growth: like a power of the time, {g.power:+.2g} (an exponential fits worse, at {rate})"]
    what = "an estimate of the largest Lyapunov exponent" if g.rate > 2.0 * g.rate_error else "no exponential growth"
    return [*lines, f"growth: exp({rate} t), {what}"]


def save_report(report: HorizonReport, directory: Path | str) -> tuple[Path, Path]:
    """Write `horizon.csv` (one line a horizon and number of x) and `horizon.png` into a folder; their paths."""
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["horizon,time_s,loss,parameter,gradient,differences,relative_error,step,verdict"]
    for i, rows in enumerate(report.rows):
        for r in rows:
            word = verdict([r]).partition(":")[0]
            label = f'"{r.name}"' if "," in r.name else r.name
            lines.append(
                f"{report.horizons[i]},{report.seconds[i]:.9g},{report.losses[i]:.9g},{label},{r.analytic:.9g},{r.numeric:.9g},"
                f"{r.error:.3e},{r.step:g},{word}"
            )
    table = write_file(folder / "horizon.csv", "\n".join(lines) + "\n")
    fitted = None
    if report.growth is not None and report.useful is not None:
        inside = np.array(report.horizons) <= report.useful
        fitted = np.where(inside, report.growth.norm(report.seconds), np.nan)
    until = None if report.useful is None else float(report.seconds[report.horizons.index(report.useful)])
    parts = np.abs(np.array([[r.analytic for r in rows] for rows in report.rows]))
    norms = {"reverse mode": report.norms(), "differences": report.norms("numeric")}
    return table, plot_growth(folder / "horizon.png", report.seconds, norms, parts, fitted, until)
