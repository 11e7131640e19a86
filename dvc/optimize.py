"""`optimize`: phases of descent, from many random starts to one answer.

A phase fixes what is looked at (terms, resolution, horizon), what moves, and how. Going through them in order gives
*explore then descend* (many worlds, a short horizon, coarse pictures; then the best ones, the whole clip, finer
pictures) and the *growing horizon* on long clips. Every step can be resumed: the state is numbers only.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dvc.descent import GaussNewtonDescent, Problem, TorchDescent, torch_optimizers
from dvc.errors import UserError
from dvc.forward_gradient import MODES, GradientChoice, choose_gradient
from dvc.losses import Objective
from dvc.parameter_vector import ParameterVector
from dvc.pipeline import Pipeline, did_you_mean

# options that mean something to one kind of descent only, with their defaults
TORCH_ONLY: Mapping[str, Any] = {"lr": 0.02, "schedule": "constant", "options": {}}
GAUSS_NEWTON_ONLY: Mapping[str, Any] = {"refresh": 2, "tolerance": 1e-3, "worlds_at_once": 16}


@dataclass(frozen=True)
class Phase:
    """One phase.

    Arguments: optimizer: gauss_newton, or a name of torch.optim (adam, lbfgs, ...); steps: at most; terms: names of
        the objective's terms (None: all); train: names of declared parameters that move (None: all); weights: whether
        learned weights move; context: values for "$name" in the wiring (horizon, level, ...); lr (0.02), schedule
        ("constant" | "cosine"), options: for torch optimisers only; refresh (2), tolerance (1e-3), worlds_at_once (16): for
        gauss_newton only; survivors: how many of the best worlds go on from here. gradient: "reverse", "forward" (central
        differences over worlds, two a parameter and no tape: cheaper for few parameters over long horizons; errors in
        `dvc.forward_gradient`) or "auto" (both are measured when the phase begins; the faster one, where they agree);
        difference_step (1e-3): of those differences, in unbounded numbers.
    """

    name: str = "descend"
    optimizer: str = "gauss_newton"
    steps: int = 20
    terms: Sequence[str] | None = None
    train: Sequence[str] | None = None
    weights: bool = False
    context: Mapping[str, Any] = field(default_factory=dict)
    lr: float | None = None
    schedule: str = "constant"
    options: Mapping[str, Any] = field(default_factory=dict)
    refresh: int | None = None
    tolerance: float | None = None
    worlds_at_once: int | None = None
    survivors: int | None = None
    gradient: str = "reverse"
    difference_step: float = 1e-3

    def __post_init__(self) -> None:
        not_its_own = TORCH_ONLY if self.optimizer == "gauss_newton" else GAUSS_NEWTON_ONLY
        for name in not_its_own:
            if getattr(self, name) not in (None, {}, "constant"):
                raise UserError(
                    f"phase {self.name!r}: {name} is not an option of optimizer {self.optimizer!r}; remedy: leave it out"
                )
        lr, refresh, at_once = self.setting("lr"), self.setting("refresh"), self.setting("worlds_at_once")
        if self.steps < 0 or lr <= 0 or not math.isfinite(lr):
            raise UserError(f"phase {self.name!r}: expected steps >= 0 and lr > 0, got {self.steps} and {lr}")
        if refresh < 1 or at_once < 1 or not self.setting("tolerance") >= 0.0:
            raise UserError(
                f"phase {self.name!r}: expected refresh and worlds_at_once >= 1 and tolerance >= 0, "
                f"got {refresh}, {at_once} and {self.tolerance}"
            )
        if self.survivors is not None and self.survivors < 1:
            raise UserError(f"phase {self.name!r}: survivors: expected at least 1, got {self.survivors}")
        if self.gradient not in MODES:
            raise UserError(f"phase {self.name!r}: gradient: expected one of {', '.join(MODES)}, got {self.gradient!r}")
        if self.gradient == "forward" and self.weights:
            raise UserError(
                f"phase {self.name!r}: gradient: forward moves declared parameters only, got weights: true; remedy: reverse"
            )
        if not 0.0 < self.difference_step < 1.0:
            raise UserError(
                f"phase {self.name!r}: difference_step: expected a number between 0 and 1, got {self.difference_step}"
            )
        if self.schedule not in ("constant", "cosine"):
            raise UserError(f"phase {self.name!r}: schedule: expected constant or cosine, got {self.schedule!r}")

    def setting(self, name: str) -> Any:
        """An option of one kind of descent, or its default."""
        value = getattr(self, name)
        return {**TORCH_ONLY, **GAUSS_NEWTON_ONLY}[name] if value is None else value


class Fit(NamedTuple):
    """Where the descent ended; worlds sorted, best first."""

    x: Tensor  # unbounded values, (world, size)
    loss: Tensor  # of the last phase, (world,)
    alive: Tensor  # (world,); False: retired because its loss or gradient was not finite
    steps: int  # in all
    explored: Tensor | None = None  # x of all starts, where worlds were first dropped
    explored_loss: Tensor | None = None
    # phase -> {"x": best unbounded values (size,), "weights": learned weights, "gradient": how taken, and why} at its end
    ends: Mapping[str, Any] = {}


OnStep = Callable[[int, str, Tensor, Tensor], None]


def _schedule(phase: Phase) -> Callable[[int], float] | None:
    if phase.schedule == "constant":
        return None
    return lambda i: 0.5 * (1.0 + math.cos(math.pi * i / max(1, phase.steps)))


def check_phases(phases: Sequence[Phase], objective: Objective, vector: ParameterVector) -> None:
    """Raises: UserError for a name in any phase that does not exist: in the last one as early as in the first."""
    names = [phase.name for phase in phases]
    for name in names:
        if names.count(name) > 1:
            raise UserError(f"phases: expected different names, got {name!r} twice; remedy: rename one")
    for phase in phases:
        title = f"phase {phase.name!r}"
        for name in phase.terms or ():
            if name not in objective.terms:
                raise UserError(f"{title}: no term {name!r}; terms: {', '.join(objective.terms)}")
        for name in phase.train or ():
            if name not in vector.names:
                raise UserError(f"{title}: no declared parameter {name!r}{did_you_mean(name, vector.names)}")
        if phase.terms is not None and not phase.terms:
            raise UserError(f"{title}: expected at least one term, got none; terms: {', '.join(objective.terms)}")
        if phase.optimizer == "gauss_newton" and phase.weights:
            raise UserError(f"{title}: gauss_newton moves declared parameters only; remedy: optimizer: adam")
        if not (vector.names if phase.train is None else phase.train) and not phase.weights:
            raise UserError(f"{title}: nothing to train; remedy: name parameters in `train`, or `weights: true`")
        if phase.optimizer != "gauss_newton" and phase.optimizer.lower() not in torch_optimizers():
            raise UserError(
                f"{title}: optimizer: expected gauss_newton or one of torch.optim ({', '.join(sorted(torch_optimizers()))}), "
                f"got {phase.optimizer!r}"
            )


def _subset(objective: Objective, names: Sequence[str] | None) -> Objective:
    return objective if names is None else Objective({n: objective.terms[n] for n in names})


def _descent(
    pipeline: Pipeline, objective: Objective, vector: ParameterVector, phase: Phase, context: Mapping[str, Any], x: Tensor
):
    train = set(vector.names if phase.train is None else phase.train)
    active = torch.zeros(vector.size)
    for name in train:
        active[vector.slices[name]] = 1.0
    problem = Problem(
        pipeline, _subset(objective, phase.terms), vector, {**context, **phase.context}, active,
        step=phase.difference_step, worlds_at_once=phase.worlds_at_once or GAUSS_NEWTON_ONLY["worlds_at_once"],
    )  # fmt: skip
    if phase.optimizer == "gauss_newton":
        return problem, GaussNewtonDescent(
            problem, x.shape[0], active, phase.setting("refresh"), phase.setting("worlds_at_once"), phase.setting("tolerance")
        )
    weights = pipeline.weights() if phase.weights else {}
    try:
        return problem, TorchDescent(
            problem, x, active, phase.optimizer, phase.setting("lr"), weights, phase.options, _schedule(phase)
        )
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise UserError(f"phase {phase.name!r}: {error}; remedy: lr and options as torch.optim takes them") from error


def _choice(phase: Phase, problem: Problem, x: Tensor, alive: Tensor) -> GradientChoice:
    if phase.gradient != "auto":
        return GradientChoice(phase.gradient, "as asked")
    if phase.weights:
        return GradientChoice("reverse", "learned weights move")
    return choose_gradient(problem, x, alive)


def select(x: Tensor, loss: Tensor, alive: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best `count` living worlds, best first; fails where none is alive."""
    if not bool(alive.any()):
        raise UserError(
            "optimize: every start was retired because its loss or gradient was not finite; remedy: bounds, first guesses"
        )
    order = torch.argsort(torch.where(alive, loss, torch.inf))[:count]
    return x[order], loss[order], alive[order]


def optimize(
    pipeline: Pipeline,
    objective: Objective,
    phases: Sequence[Phase],
    *,
    starts: Tensor | None = None,
    context: Mapping[str, Any] | None = None,
    on_step: OnStep | None = None,
    checkpoint: Callable[[dict[str, Any]], None] | None = None,
    checkpoint_every: int = 5,
    restored: Mapping[str, Any] | None = None,
    on_retire: Callable[[str], None] | None = None,
) -> Fit:
    """Descend through the phases.

    Arguments: starts: unbounded values (world, size) in the order of `ParameterVector(pipeline)`; None: the current
        ones. on_step(step, phase, x, loss) after every step. checkpoint(state) and `restored`: see `dvc.checkpoint`; a run
        that goes on from a checkpoint takes the same steps as one that was never stopped. on_retire(text): a line for the
        notes of the run: a start that was retired, and how a phase takes its gradient where it is not plain reverse mode.
    Returns: Fit; the best world is also written into the pipeline's parameters.
    """
    vector = ParameterVector(pipeline)
    check_phases(phases, objective, vector)
    x = vector.gather() if starts is None else starts.clone()
    alive = torch.ones(x.shape[0], dtype=torch.bool)
    loss = torch.full((x.shape[0],), torch.inf)
    done_steps, first_phase, inner = 0, 0, None
    explored: tuple[Tensor | None, Tensor | None] = (None, None)
    ends: dict[str, Any] = {}
    if restored is not None:
        if restored["names"] != vector.names:
            raise UserError("resume: the checkpoint's parameters are not the pipeline's; remedy: the settings it was made with")
        x, alive, loss = restored["x"].clone(), restored["alive"].clone(), restored["loss"].clone()
        done_steps, first_phase, inner = restored["step"], restored["phase"], restored["inner"]
        explored, ends = restored["explored"], dict(restored["ends"])
        pipeline.load_state_dict(restored["weights"], strict=False)
    for index, phase in enumerate(phases):
        if index < first_phase:
            continue
        problem, descent = _descent(pipeline, objective, vector, phase, context or {}, x)
        start = 0
        if inner is not None:
            start = inner["start"]
            descent.load_state_dict(inner["state"])
            choice = GradientChoice(*inner.get("gradient", ("reverse", "as asked")))  # not in older checkpoints
            inner = None
        else:
            choice = _choice(phase, problem, x, alive) if phase.steps else GradientChoice("none", "no steps")
            if phase.gradient != "reverse":
                if on_retire is not None:
                    on_retire(f"{phase.name}: gradient: {choice.mode} ({choice.why})")
                if checkpoint is not None and phase.steps:  # from here on a resumed run makes the same choice
                    state = _state(pipeline, vector, x, loss, alive, done_steps, index, explored, ends)
                    checkpoint({**state, "inner": {"start": 0, "state": descent.state_dict(), "gradient": tuple(choice)}})
        problem.mode = choice.mode
        for k in range(start, phase.steps):
            was = alive
            step, alive = descent.step(x, alive)
            x, loss = step.x, step.loss
            done_steps += 1
            lost = torch.nonzero(was & ~alive)[:, 0].tolist()
            if lost and on_retire is not None:
                on_retire(f"{phase.name}: start {lost} retired, its loss or gradient is not finite")
            if not bool(alive.any()):
                break
            if on_step is not None:
                on_step(done_steps, phase.name, x, torch.where(alive, loss, torch.inf))
            last = step.done or k + 1 == phase.steps
            if checkpoint is not None and (done_steps % checkpoint_every == 0) and not last:
                state = _state(pipeline, vector, x, loss, alive, done_steps, index, explored, ends)
                checkpoint({**state, "inner": {"start": k + 1, "state": descent.state_dict(), "gradient": tuple(choice)}})
            if step.done:
                break
        if phase.optimizer != "gauss_newton" or phase.steps == 0:
            loss = problem.loss_only(x)
        alive = alive & torch.isfinite(loss)
        if explored[0] is None and phase.survivors is not None and phase.survivors < x.shape[0]:
            explored = (x.clone(), torch.where(alive, loss, torch.inf))
        x, loss, alive = select(x, loss, alive, x.shape[0] if phase.survivors is None else phase.survivors)
        weights = {n: w.detach().clone() for n, w in pipeline.weights().items()}
        ends[phase.name] = {"x": x[0].clone(), "weights": weights, "gradient": f"{choice.mode} ({choice.why})"}
        if checkpoint is not None:
            checkpoint(_state(pipeline, vector, x, loss, alive, done_steps, index + 1, explored, ends))
    x, loss, alive = select(x, loss, alive, x.shape[0])
    vector.scatter(x[:1])
    return Fit(x, loss, alive, done_steps, *explored, ends)


def _state(
    pipeline: Pipeline,
    vector: ParameterVector,
    x: Tensor,
    loss: Tensor,
    alive: Tensor,
    step: int,
    phase: int,
    explored: tuple[Tensor | None, Tensor | None],
    ends: Mapping[str, Any],
) -> dict[str, Any]:
    weights = {f"stages.{name}": tensor.detach().clone() for name, tensor in pipeline.weights().items()}
    return {"x": x, "loss": loss, "alive": alive, "step": step, "phase": phase, "inner": None, "explored": explored,
            "ends": ends, "names": list(vector.names), "weights": weights}  # fmt: skip
