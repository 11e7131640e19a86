"""Directional derivatives over the world axis.

Each direction costs two worlds of one batched forward pass: f(x + h d) - f(x - h d) over 2 h (or one world, against
f(x)). For few parameters and many residuals this is cheaper than reverse mode, which gives one residual at a time. Both sides
share the seeds.
Truncation error O(h^2); rounding error about eps |f| / h: `h` is given per direction, so that badly scaled parameters
can each have their own.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dvc.parameter_vector import ParameterVector
from dvc.pipeline import Pipeline

Evaluate = Callable[[Tensor], dict[str, Tensor]]


def evaluator(pipeline: Pipeline, vector: ParameterVector, outputs: Sequence[str], context: Mapping[str, Any]) -> Evaluate:
    """The function (world, size) unbounded values -> outputs (world, ...), without gradient."""

    @torch.no_grad()
    def evaluate(x: Tensor) -> dict[str, Tensor]:
        return pipeline(list(outputs), context=context, raw=vector.split(x))

    return evaluate


def jvp_of(
    evaluate: Evaluate,
    base: Tensor,
    directions: Tensor,
    step: Tensor,
    worlds_at_once: int = 16,
    at_base: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """Differences of `evaluate` at `base` (size,) along `directions` (d, size), steps (d,) -> output -> (d, ...).

    Central ones; forward ones, at half the cost and with an error O(h), where the values `at_base` (1, ...) are given.
    """
    pieces: dict[str, list[Tensor]] = {}
    at_once = max(1, worlds_at_once if at_base is not None else worlds_at_once // 2)
    for i in range(0, len(directions), at_once):
        d, h = directions[i : i + at_once], step[i : i + at_once, None]
        n, sides = len(d), 2 if at_base is None else 1
        values = evaluate(torch.cat([base + h * d, base - h * d]) if at_base is None else base + h * d)
        for name, value in values.items():
            if value.shape[0] != sides * n:  # the output does not depend on the parameters
                value = value.expand(sides * n, *value.shape[1:])
            scale = h.reshape(-1, *([1] * (value.dim() - 1)))
            other = value[n:] if at_base is None else at_base[name]
            pieces.setdefault(name, []).append((value[:n] - other) / (sides * scale))
    return {name: torch.cat(parts) for name, parts in pieces.items()}


class Jacobian(NamedTuple):
    """Derivatives of one output, only the columns that some direction changes.

    A picture changes where its body is and nowhere else: leaving the rest out saves most of the memory.
    """

    columns: Tensor  # sorted flat indices into one world's output, (n,)
    rows: Tensor  # (d, n)

    def on(self, columns: Tensor) -> Tensor:
        """Rows on another sorted set of columns that holds this one."""
        full = self.rows.new_zeros(len(self.rows), len(columns))
        full[:, torch.searchsorted(columns, self.columns)] = self.rows
        return full


class _Gathered:
    """Rows that arrive in blocks; columns are added as they turn out to change."""

    def __init__(self) -> None:
        self.known: Tensor | None = None
        self.columns: list[Tensor] = []
        self.blocks: list[Tensor] = []

    def add(self, block: Tensor) -> None:
        changed = (block != 0.0).any(dim=0)
        new = changed if self.known is None else changed & ~self.known
        self.known = changed if self.known is None else self.known | changed
        self.columns.append(torch.nonzero(new)[:, 0])
        self.blocks.append(block[:, torch.cat(self.columns)])

    def finish(self) -> Jacobian:
        columns = torch.cat(self.columns)
        rows = self.blocks[0].new_zeros(sum(len(block) for block in self.blocks), len(columns))
        at = 0
        for block in self.blocks:
            rows[at : at + len(block), : block.shape[1]] = block
            at += len(block)
        order = torch.argsort(columns)
        return Jacobian(columns[order], rows[:, order])


def jacobians_of(
    evaluate: Evaluate,
    base: Tensor,
    directions: Tensor,
    step: Tensor,
    worlds_at_once: int = 16,
    at_base: Mapping[str, Tensor] | None = None,
) -> dict[str, Jacobian]:
    """Like `jvp_of`, for outputs that mostly do not change: output -> Jacobian."""
    gathered: dict[str, _Gathered] = {}
    at_once = max(1, worlds_at_once if at_base is not None else worlds_at_once // 2)
    for i in range(0, len(directions), at_once):
        part = jvp_of(evaluate, base, directions[i : i + at_once], step[i : i + at_once], worlds_at_once, at_base)
        for name, value in part.items():
            gathered.setdefault(name, _Gathered()).add(value.flatten(1))
    return {name: rows.finish() for name, rows in gathered.items()}


def jvp(
    pipeline: Pipeline,
    directions: Mapping[str, Tensor],
    outputs: Sequence[str],
    *,
    context: Mapping[str, Any] | None = None,
    step: float = 1e-3,
    worlds_at_once: int = 16,
) -> dict[str, Tensor]:
    """Derivatives of pipeline outputs along directions in the space of unbounded parameters.

    Arguments: directions: name -> (d, *shape), all with the same d; parameters that are not named stay fixed.
    Returns: output -> (d, ...).
    """
    vector = ParameterVector(pipeline, directions.keys())
    joined = vector.join(directions)
    evaluate = evaluator(pipeline, vector, outputs, context or {})
    return jvp_of(evaluate, vector.gather()[0], joined, torch.full((len(joined),), float(step)), worlds_at_once)
