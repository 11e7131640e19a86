"""One phase's way down: a Gauss-Newton step over worlds, or a step of any torch optimiser.

Both see the same `Problem`: the loss a world (world,) as a function of unbounded numbers, with its gradient, by reverse mode
or by forward sensitivities (`dvc.forward_gradient`).
A world whose loss or gradient is not finite is retired: it is masked before any reduction and no longer moves. A
gradient of learned weights that is not finite stops the run and names the weight, since all worlds share it.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dvc import gauss_newton as gn
from dvc.errors import UserError
from dvc.forward_gradient import forward_gradient
from dvc.jvp import evaluator
from dvc.losses import Objective, prior_residuals
from dvc.parameter_vector import ParameterVector
from dvc.pipeline import Pipeline


class Step(NamedTuple):
    """What one step did."""

    x: Tensor  # (world, size)
    loss: Tensor  # (world,), at x
    done: bool  # nothing more to gain


class Problem:
    """Loss and gradient of a pipeline under an objective, in one context.

    Arguments: active: mask (size,) of the numbers that move (None: all); mode: "reverse" or "forward"; step: of the central
        differences of forward mode, in unbounded numbers; worlds_at_once: of theirs.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        objective: Objective,
        vector: ParameterVector,
        context: Mapping[str, Any],
        active: Tensor | None = None,
        *,
        mode: str = "reverse",
        step: float = 1e-3,
        worlds_at_once: int = 16,
    ):
        self.pipeline, self.objective, self.vector, self.context = pipeline, objective, vector, dict(context)
        self.mask = torch.ones(vector.size) if active is None else active
        self.mode, self.step, self.at_once = mode, float(step), int(worlds_at_once)
        self.evaluate = evaluator(pipeline, vector, objective.outputs, context)

    def priors(self, x: Tensor) -> Tensor | None:
        """Prior residuals (world, n)."""
        return prior_residuals(self.pipeline, self.vector.split(x))

    def loss(self, x: Tensor) -> Tensor:
        """(world,), with gradient where x or the weights ask for it."""
        values = self.pipeline(self.objective.outputs, context=self.context, raw=self.vector.split(x))
        loss = self.objective.loss(values, self.priors(x))
        return loss.expand(x.shape[0]) if loss.shape[0] != x.shape[0] else loss

    def loss_only(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            return self.loss(x)

    def gradient(self, x: Tensor, alive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Loss (world,; infinite where retired), gradient (world, size), and which worlds are finite."""
        return self.forward(x, alive) if self.mode == "forward" else self.reverse(x, alive)

    def forward(self, x: Tensor, alive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`gradient` by forward sensitivities: of the numbers that move, not of learned weights."""
        moving = torch.nonzero(self.mask)[:, 0].tolist()
        return forward_gradient(self, x, alive, moving, self.step, self.at_once)

    def reverse(self, x: Tensor, alive: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`gradient` by reverse mode.

        Learned weights get the gradient of the sum over the finite worlds; what they held before is replaced. Where a
        world turns out not to be finite the gradient is taken again without it: its row is replaced by that of a sound
        world and does not count. Masking its loss is not enough, since zero times NaN in its graph is NaN.
        """
        good = alive
        loss, gradient = torch.full_like(x[:, 0], torch.inf), torch.zeros_like(x)
        while bool(good.any()):
            alive = good
            leaf = torch.where(alive[:, None], x.detach(), x.detach()[alive][:1]).clone().requires_grad_(True)
            for weight in self.pipeline.weights().values():
                weight.grad = None
            value = self.loss(leaf)
            finite = alive & torch.isfinite(value.detach())
            torch.where(finite, value, torch.zeros_like(value)).sum().backward()
            gradient = leaf.grad if leaf.grad is not None else torch.zeros_like(x)
            good = finite & torch.isfinite(gradient).all(dim=1)
            loss = torch.where(good, value.detach(), torch.full_like(loss, torch.inf))
            if bool((good == alive).all()):
                break
        return loss, torch.where(good[:, None], gradient, torch.zeros_like(gradient)), good


class GaussNewtonDescent:
    """Gauss-Newton with one trust region a world.

    refresh: every so many steps the curvature is measured anew, in the worlds where it no longer serves.
    """

    def __init__(
        self, problem: Problem, worlds: int, active: Tensor, refresh: int = 2, worlds_at_once: int = 16, tolerance: float = 1e-3
    ):
        self.problem, self.active, self.refresh, self.at_once, self.tolerance = (
            problem,
            active,
            refresh,
            worlds_at_once,
            tolerance,
        )
        self.state = gn.start_state(worlds, problem.vector.size)
        self.count = 0

    def step(self, x: Tensor, alive: Tensor) -> tuple[Step, Tensor]:
        loss, gradient, alive = self.problem.gradient(x, alive)
        moving = alive & (self.state.stalled < 3)
        if self.count % self.refresh == 0:
            self._measure(x, loss, moving & gn.due(self.state, loss))
        accepted = torch.zeros_like(alive)
        best, best_loss, gain = x, loss, torch.zeros_like(loss)
        for _ in range(5):
            delta = gn.proposal(self.state, gradient, self.active)
            trial = x + delta
            trial_loss = self.problem.loss_only(trial)
            promised = gn.predicted_decrease(self.state, gradient, delta).clamp(min=1e-12)
            better = moving & ~accepted & torch.isfinite(trial_loss) & (trial_loss < loss)
            best = torch.where(better[:, None], trial, best)
            best_loss = torch.where(better, trial_loss, best_loss)
            gain = torch.where(better, (loss - trial_loss) / promised, gain)
            accepted = accepted | better
            waiting = moving & ~accepted
            if not bool(waiting.any()):
                break
            self.state = self.state._replace(
                damping=torch.where(waiting, self.state.damping * 5.0, self.state.damping).clamp(max=gn.LARGEST_DAMPING)
            )
        progress = (loss - best_loss) > self.tolerance * torch.clamp(best_loss.abs(), min=1e-12)
        self.state = gn.updated(self.state, accepted, gain, progress)
        self.count += 1
        return Step(best, best_loss, not bool((alive & (self.state.stalled < 3)).any())), alive

    def _measure(self, x: Tensor, loss: Tensor, due: Tensor) -> None:
        curvature, step = self.state.curvature.clone(), self.state.step.clone()
        measured = self.state.measured.clone()
        for w in torch.nonzero(due)[:, 0].tolist():
            a = gn.curvature_at(
                self.problem.evaluate, self.problem.objective, x[w], step[w], self.active, self.problem.priors, self.at_once
            )
            if bool(torch.isfinite(a).all()):
                curvature[w], step[w], measured[w] = a, gn.adapted_step(a), loss[w]
        self.state = self.state._replace(curvature=curvature, step=step, measured=measured)

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, **self.state._asdict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]
        self.state = gn.GaussNewtonState(*(state[f] for f in gn.GaussNewtonState._fields))


def torch_optimizers() -> dict[str, type]:
    """Optimisers of torch.optim, by their names in lower case."""
    base = torch.optim.Optimizer
    return {k.lower(): v for k, v in vars(torch.optim).items() if isinstance(v, type) and issubclass(v, base) and v is not base}


class TorchDescent:
    """Any optimiser of torch.optim over the unbounded numbers and, where asked, the weights of learned stages.

    Worlds are independent under elementwise optimisers (Adam, SGD, RMSprop); L-BFGS takes one world.
    """

    def __init__(
        self,
        problem: Problem,
        x: Tensor,
        active: Tensor,
        name: str,
        lr: float,
        weights: Mapping[str, torch.nn.Parameter],
        options: Mapping[str, Any],
        schedule: Callable[[int], float] | None = None,
    ):
        kinds = torch_optimizers()
        if name.lower() not in kinds:
            raise UserError(
                f"optimizer: expected gauss_newton or one of torch.optim ({', '.join(sorted(kinds))}), got {name!r}"
            )
        if name.lower() == "lbfgs" and x.shape[0] != 1:
            raise UserError(
                f"optimizer lbfgs: expected one world, got {x.shape[0]}; remedy: set survivors: 1 in the phase before"
            )
        self.problem, self.active, self.weights, self.schedule, self.count = problem, active, dict(weights), schedule, 0
        self.x = x.detach().clone().requires_grad_(bool(active.any()))
        groups: list[dict[str, Any]] = [{"params": [self.x], "lr": lr}] if bool(active.any()) else []
        if self.weights:
            groups.append({"params": list(self.weights.values()), "lr": lr})
        if not groups:
            raise UserError("phase: nothing to train; remedy: name parameters in `train` or set `weights: true`")
        if name.lower() == "lbfgs":
            groups = [{"params": [p for g in groups for p in g["params"]], "lr": lr}]
        self.optimizer = kinds[name.lower()](groups, **options)
        self.rates = [g["lr"] for g in self.optimizer.param_groups]

    def step(self, x: Tensor, alive: Tensor) -> tuple[Step, Tensor]:
        with torch.no_grad():
            self.x.copy_(x)
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * (self.schedule(self.count) if self.schedule else 1.0)
        seen: dict[str, Tensor] = {}

        def closure() -> Tensor:
            self.optimizer.zero_grad(set_to_none=True)
            loss, gradient, good = self.problem.gradient(self.x, alive)
            if self.x.requires_grad:
                self.x.grad = gradient * self.active
            for name, weight in self.weights.items():
                if weight.grad is not None and not bool(torch.isfinite(weight.grad).all()):
                    raise UserError(
                        f"gradient of {name!r} is not finite; remedy: a smaller learning rate, or a shorter horizon"
                    )
            seen.setdefault("loss", loss)
            seen["alive"] = good
            return torch.where(good, loss, torch.zeros_like(loss)).sum()

        self.optimizer.step(closure)  # type: ignore[arg-type]
        self.count += 1
        moved = torch.where(seen["alive"][:, None], self.x.detach(), x)
        return Step(moved, seen["loss"], False), alive & seen["alive"]

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]
        self.optimizer.load_state_dict(state["optimizer"])
