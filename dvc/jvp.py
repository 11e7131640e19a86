"""Directional derivatives over the world axis.

Each direction costs two worlds of one batched forward pass: f(x + h d) - f(x - h d) over 2 h (or one world, against
f(x)). For few parameters and many residuals this is cheaper than reverse mode, which gives one residual at a time. Both sides
share the seeds.
Truncation error O(h^2); rounding error about eps |f| / h: `h` is given per direction, so that badly scaled parameters
can each have their own.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
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
    for block in _blocks(evaluate, base, directions, step, worlds_at_once, at_base):
        for name, value in block.items():
            pieces.setdefault(name, []).append(value)
    return {name: torch.cat(parts) for name, parts in pieces.items()}


def _blocks(
    evaluate: Evaluate,
    base: Tensor,
    directions: Tensor,
    step: Tensor,
    worlds_at_once: int,
    at_base: Mapping[str, Tensor] | None,
) -> Iterator[dict[str, Tensor]]:
    """Differences along a few directions at a time. Every call has the same number of worlds, so that one trace of each op
    serves them all: what lacks in the last one is filled up with its last direction."""
    sides = 2 if at_base is None else 1
    calls = -(-len(directions) // max(1, worlds_at_once // sides))
    n = -(-len(directions) // max(1, calls))
    for i in range(0, len(directions), max(1, n)):
        chosen = torch.arange(i, i + n).clamp(max=len(directions) - 1)
        kept = min(n, len(directions) - i)
        d, h = directions[chosen], step[chosen, None]
        values = evaluate(torch.cat([base + h * d, base - h * d]) if at_base is None else base + h * d)
        differences = {}
        for name, value in values.items():
            if value.shape[0] != sides * n:  # the output does not depend on the parameters
                value = value.expand(sides * n, *value.shape[1:])
            scale = h.reshape(-1, *([1] * (value.dim() - 1)))
            other = value[n:] if at_base is None else at_base[name]
            differences[name] = ((value[:n] - other) / (sides * scale))[:kept]
        yield differences


class Jacobian(NamedTuple):
    """Derivatives of one output, only the columns that some direction changes.

    A picture changes where its body is and nowhere else: leaving the rest out saves most of the memory.
    """

    columns: Tensor  # sorted flat indices into one world's output, (n,)
    rows: Tensor  # (d, n)

    def on(self, columns: Tensor) -> Tensor:
        """Rows on another sorted set of columns; zero where no direction changes one."""
        full = self.rows.new_zeros(len(self.rows), len(columns))
        mine = torch.isin(self.columns, columns, assume_unique=True)
        full[:, torch.searchsorted(columns, self.columns[mine])] = self.rows[:, mine]
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
        columns, order = torch.sort(torch.cat(self.columns))
        place = torch.argsort(order)
        rows = self.blocks[0].new_zeros(sum(len(block) for block in self.blocks), len(columns))
        at = 0
        while self.blocks:
            block = self.blocks.pop(0)
            rows[at : at + len(block), place[: block.shape[1]]] = block
            at += len(block)
        return Jacobian(columns, rows)


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
    for block in _blocks(evaluate, base, directions, step, worlds_at_once, at_base):
        for name, value in block.items():
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
