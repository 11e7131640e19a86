"""The loop that a surface descends in, coarse to fine: a mesh or a grid of distances, with large steps.

Every phase begins with unknowns of its own, made from the surface that the phase before has left: `build(surface, phase)` gives
a pipeline whose stage `shape` is a `FreeMesh` or a `FreeGrid` and whose output `loss` descends. The length of a step falls to a
tenth within a phase, by a cosine.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dvc.errors import UserError
from dvc.pipeline import Pipeline
from dvc.records import Mesh
from geometry.free_grid import FreeGrid
from geometry.large_steps import AdamUniform

LAST_SHARE = 0.1  # of the step's length, at the end of a phase
PHASE = ("steps", "lr", "nodes", "columns")


def checked_phases(name: str, phases: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Phases with the fields of `PHASE`, or UserError."""
    if not phases or any(set(p) != set(PHASE) or p["steps"] < 1 or not p["lr"] > 0.0 for p in phases):
        raise UserError(f"{name}.phases: expected a list of {{{', '.join(PHASE)}}}, steps from 1 and lr above 0")
    return [dict(p) for p in phases]


def descend_surface(
    recorder: Any, name: str, surface: Mesh, phases: Sequence[Mapping[str, float]],
    build: Callable[[Mesh, Mapping[str, float]], Pipeline], context: Callable[[int, int], Mapping[str, Any]], diagonal: float,
        *,
    done: int = 0, redistance_every: int = 10,
) -> tuple[Mesh, float, Pipeline]:  # fmt: skip
    """Descend from `surface`; the surface in the end, the seconds that it took, and the last phase's pipeline.

    context(phase number, step): what the pipeline is called with; diagonal [m]: phases' lr are shares of it; done: steps
    recorded so far; redistance_every: steps after which a grid's values are made distances again.
    Raises: UserError where a gradient is not finite.
    """
    begun = time.perf_counter()
    for index, phase in enumerate(phases):
        pipeline = build(surface, phase)
        shape: Any = pipeline.stages["shape"]
        first = float(phase["lr"]) * diagonal
        optimizer = AdamUniform([shape.u], lr=first)
        for k in range(int(phase["steps"])):
            fallen = 0.5 * (1.0 + math.cos(math.pi * k / phase["steps"]))
            optimizer.param_groups[0]["lr"] = first * (LAST_SHARE + (1.0 - LAST_SHARE) * fallen)
            loss: Tensor = pipeline(["loss"], context=dict(context(index, k)))["loss"].sum()
            optimizer.zero_grad()
            loss.backward()
            if shape.u.grad is None or not bool(torch.isfinite(shape.u.grad).all()):
                raise UserError("gradient of 'shape.u' is not finite; remedy: a smaller lr")
            optimizer.step()
            if isinstance(shape, FreeGrid) and (k + 1) % redistance_every == 0:
                shape.redistance()
            done += 1
            recorder.step(done, float(loss.detach()), f"{name}, {int(phase['nodes'])} nodes", {})
        with torch.no_grad():
            surface = shape()
    return surface, time.perf_counter() - begun, pipeline
