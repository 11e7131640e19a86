"""The gradient certificate: reverse mode against central differences, at several step sizes.

A row passes where the two agree within the tolerance at a step whose rounding is small (`SHARP`); steps at which the
differences are mostly noise are not asked, since there anything would pass. Rounding is read off the scatter at the smallest
steps. Where no step is sharp, the one with the least error (rounding and the change between neighbouring steps) decides, and
that error is granted. A gradient of zero passes only if the differences are zero within their error, and the row says so. A
number at which differences at neighbouring steps never agree to `SMOOTH` is not smooth there (a strike enters or leaves the
window): it is reported as excluded, and the certificate fails if that happens to more than `MOST_EXCLUDED` of the rows.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dvc.descent import Problem
from dvc.losses import Objective
from dvc.parameter_vector import ParameterVector
from dvc.pipeline import Pipeline

STEPS = (3e-2, 1e-2, 3e-3, 1e-3, 3e-4, 1e-4)
TOLERANCE = 0.02
SMOOTH = 0.02
MOST_EXCLUDED = 0.3
ROUNDING = 3e-7  # relative error of a float32 loss that is a long sum
LEAST_ROUNDING, MOST_ROUNDING = 6e-8, 3e-6  # what may be read off the scatter of the differences
PRECISE_SHARE = 0.3  # of that error, where the sum is taken in double precision
SHARP = 0.01  # differences whose rounding is below this share decide


class CheckRow(NamedTuple):
    """One number of the certificate."""

    name: str
    kind: str  # "parameter" or "op"
    analytic: float
    numeric: float
    error: float  # relative, at the best step
    step: float
    passed: bool
    note: str = ""


def compare(analytic: float, numeric: Sequence[float], steps: Sequence[float], scale: float, name: str, kind: str) -> CheckRow:
    """Judge one gradient against differences at falling steps; `scale` is the size of the differenced function."""
    if not math.isfinite(analytic):
        return CheckRow(name, kind, analytic, numeric[-1], float("nan"), steps[-1], False, "not finite")
    # the scatter at the smallest steps shows the rounding; how much of it can be rounding is limited
    scatter = abs(numeric[-1] - numeric[-2]) * steps[-1] if len(steps) > 1 else 0.0
    noise = min(max(scatter, LEAST_ROUNDING * scale), MOST_ROUNDING * scale)
    sharp: list[CheckRow] = []
    blunt: list[tuple[float, CheckRow]] = []  # the differences' error, the verdict
    for i, (d, h) in enumerate(zip(numeric, steps, strict=True)):
        changes = [abs(d - numeric[j]) for j in (i - 1, i + 1, i + 2) if 0 <= j < len(steps)]
        slack = 2.0 * noise / h
        if min(changes, default=abs(d)) > SMOOTH * abs(d) + max(slack, 2.0 * ROUNDING * scale / h):
            continue
        size = max(abs(d), abs(analytic))
        error = abs(analytic - d) / size if size > 0.0 else 0.0
        if slack <= SHARP * size:
            agrees, note = abs(analytic - d) <= TOLERANCE * size + slack, ""
        else:
            slack = max(slack, 2.0 * ROUNDING * scale / h) + max(changes, default=abs(d))
            agrees = abs(analytic - d) <= TOLERANCE * size + slack
            note = "within the differences' error" if slack > 0.5 * size else ""
        if analytic == 0.0:
            note = "zero, as are the differences" if agrees else "zero, but the differences are not"
        row = CheckRow(name, kind, analytic, d, error, h, agrees, note)
        if slack <= SHARP * size:
            sharp.append(row)
        blunt.append((slack, row))
    if not blunt:
        return CheckRow(name, kind, analytic, numeric[-1], float("nan"), steps[-1], True, "excluded: not smooth here")
    least = min(slack for slack, _ in blunt)
    asked = sharp or [row for slack, row in blunt if slack <= 1.5 * least]
    return max(asked, key=lambda row: (row.passed, -row.error))


def precise_loss(problem: Problem, x: Tensor) -> Tensor:
    """The loss (world,) with its sums taken in double precision: what is left is the rounding of single residuals."""
    values = {name: value.double() for name, value in problem.evaluate(x).items()}
    priors = problem.priors(x)
    loss = problem.objective.loss(values, None if priors is None else priors.double()).detach()
    return loss.expand(x.shape[0])


def check_parameters(
    pipeline: Pipeline, objective: Objective, context: Mapping[str, Any], x: Tensor | None = None, worlds_at_once: int = 16
) -> list[CheckRow]:
    """Every declared parameter of a pipeline, every element of it, through the whole graph to the loss."""
    vector = ParameterVector(pipeline)
    problem = Problem(pipeline, objective, vector, context)
    point = vector.gather()[:1] if x is None else x[None]
    leaf = point.clone().requires_grad_(True)  # not Problem.gradient: it would hide what is not finite
    loss = problem.loss(leaf)
    loss.sum().backward()
    gradient = torch.zeros_like(point) if leaf.grad is None else leaf.grad
    loss = loss.detach()
    eye = torch.eye(vector.size)
    differences = torch.zeros(len(STEPS), vector.size)
    for i, h in enumerate(STEPS):
        worlds = torch.cat([point + h * eye, point - h * eye])
        losses = torch.cat([precise_loss(problem, part) for part in worlds.split(worlds_at_once)])
        differences[i] = ((losses[: vector.size] - losses[vector.size :]) / (2.0 * h)).float()
    rows, scale = [], PRECISE_SHARE * float(loss[0].abs())
    for j, label in enumerate(vector.labels):
        rows.append(compare(float(gradient[0, j]), differences[:, j].tolist(), STEPS, scale, label, "parameter"))
    return rows


def check_weights(
    pipeline: Pipeline, objective: Objective, context: Mapping[str, Any], generator: torch.Generator | None = None
) -> list[CheckRow]:
    """Learned weights, one random direction a tensor."""
    problem = Problem(pipeline, objective, ParameterVector(pipeline), context)
    point = problem.vector.gather()[:1]
    for weight in pipeline.weights().values():
        weight.grad = None
    loss = problem.loss(point)
    loss.sum().backward()
    loss = loss.detach()
    rows = []
    for name, weight in pipeline.weights().items():
        direction = torch.randn(weight.shape, generator=generator)
        analytic = 0.0 if weight.grad is None else float((weight.grad * direction).sum())
        numeric, kept = [], weight.detach().clone()
        for h in STEPS:
            sides = []
            for sign in (1.0, -1.0):
                with torch.no_grad():
                    weight.copy_(kept + sign * h * direction)
                sides.append(float(precise_loss(problem, point)[0]))
            numeric.append((sides[0] - sides[1]) / (2.0 * h))
        with torch.no_grad():
            weight.copy_(kept)
        rows.append(compare(analytic, numeric, STEPS, PRECISE_SHARE * float(loss[0].abs()), name, "weights"))
    return rows


def gradient_check(
    function: Any,
    inputs: Sequence[Tensor],
    names: Sequence[str] | None = None,
    *,
    steps: Sequence[float] = STEPS,
    seed: int = 0,
    kind: str = "op",
) -> list[CheckRow]:
    """Directional derivative of one function of tensors, an op for instance, in each differentiable input.

    The outputs are contracted with fixed random weights, each input moves along a fixed random direction (relative to
    its own size). Inputs that do not require a gradient stay.
    """
    generator = torch.Generator().manual_seed(seed)
    leaves = [t.detach().clone().requires_grad_(t.requires_grad) for t in inputs]

    def contracted(values: Sequence[Tensor]) -> Tensor:
        outputs = function(*values)
        tensors = outputs if isinstance(outputs, tuple) else (outputs,)
        weights = torch.Generator().manual_seed(seed + 1)
        parts = [
            (t.double() * torch.randn(t.shape, generator=weights, dtype=torch.float64)).flatten()
            for t in tensors
            if t.is_floating_point()
        ]
        return torch.cat(parts)

    terms = contracted(leaves)
    total = terms.sum()
    # rounding grows with the terms: the sum itself may cancel
    scale = max(float(total.detach().abs()), float(terms.detach().norm())) + 1e-12
    gradients = torch.autograd.grad(total, [t for t in leaves if t.requires_grad], allow_unused=True)
    names = [f"input {i}" for i in range(len(leaves))] if names is None else list(names)
    rows, taken = [], iter(gradients)
    for i, leaf in enumerate(leaves):
        if not leaf.requires_grad:
            continue
        g = next(taken)
        size = float(leaf.detach().abs().mean()) or 1.0
        direction = torch.randn(leaf.shape, generator=generator) * size
        analytic = 0.0 if g is None else float((g.double() * direction).sum())
        numeric = []
        for h in steps:
            with torch.no_grad():
                sides = [
                    float(contracted([*leaves[:i], leaf + s * h * direction, *leaves[i + 1 :]]).sum()) for s in (1.0, -1.0)
                ]
            numeric.append((sides[0] - sides[1]) / (2.0 * h))
        rows.append(compare(analytic, numeric, steps, scale, names[i], kind))
    return rows


def certified(rows: Sequence[CheckRow]) -> bool:
    """Whether all rows pass and few enough are excluded."""
    excluded = sum(row.note.startswith("excluded") for row in rows)
    return all(row.passed for row in rows) and excluded <= MOST_EXCLUDED * max(1, len(rows))


def format_table(rows: Sequence[CheckRow]) -> str:
    """The certificate as text, with the excluded share at the end."""
    head = ("", "kind", "reverse mode", "differences", "rel. error", "step", "")
    body = [
        (
            r.name,
            r.kind,
            f"{r.analytic:.5g}",
            f"{r.numeric:.5g}",
            f"{r.error:.1e}",
            f"{r.step:.0e}",
            ("pass" if r.passed else "FAIL") + (f" ({r.note})" if r.note else ""),
        )
        for r in rows
    ]
    widths = [max(len(row[i]) for row in [head, *body]) for i in range(7)]
    lines = [
        "  ".join(
            cell.ljust(w) if i in (0, 1, 6) else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [head, *body]
    ]
    excluded = sum(r.note.startswith("excluded") for r in rows)
    failed = sum(not r.passed for r in rows)
    share = f"{100.0 * excluded / max(1, len(rows)):.0f} %, at most {100 * MOST_EXCLUDED:.0f} %"
    lines.append(f"{len(rows)} gradients, {failed} failed, {excluded} excluded, not smooth or too noisy ({share})")
    return "\n".join(lines)
