r"""The gradient of an objective by forward sensitivities, and the choice between them and reverse mode.

    dL/dp = sum_i w_i rho'(r_i) / 2  dr_i/dp,     dr_i/dp = (r_i(x + h e_p) - r_i(x - h e_p)) / (2 h)

Two worlds a parameter, all with the seeds of the point itself (`dvc.jvp`), and no tape: memory does not grow with the
horizon. Residuals are differenced as r(x +- h e_p) - r(x), weighted and summed in double precision, so that what stays of
rounding is that of single residuals and of x +- h itself in float32: eps |r| / (h |dr/dp|), some 1e-4 at h = 1e-3. The
truncation error is h^2 / 6 d^3r/dp^3 / (dr/dp), small on smooth motions, of order (h s)^2 where the motion grows s-fold over
the horizon: chaotic motions want a smaller h, and beyond some horizon nothing helps (`dvc.horizon`). Measured on a double
pendulum over 1 s, relative to reverse mode: 5e-5 at h = 1e-2, 5e-4 at 1e-3, 2e-3 at 3e-4. Priors are differentiated exactly.
A cut of the gradient inside a stage (`physics.windows`) is not seen: this is the full derivative.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from dvc.errors import UserError
from dvc.jvp import jvp_of
from dvc.losses import influence

if TYPE_CHECKING:
    from dvc.descent import Problem

MODES = ("reverse", "forward", "auto")
AGREEMENT = 0.01  # forward is not chosen where it differs from reverse mode by more


def forward_gradient(
    problem: "Problem", x: Tensor, alive: Tensor, active: Sequence[int], step: float = 1e-3, worlds_at_once: int = 16
) -> tuple[Tensor, Tensor, Tensor]:
    """What `Problem.gradient` returns, by central differences of residuals.

    Arguments: x (world, size); alive (world,); active: numbers of x that move, the others have the gradient zero; step h.
    Returns: loss (world,; infinite where retired), gradient (world, size), which worlds are finite.
    """
    loss, gradient = torch.full_like(x[:, 0], torch.inf), torch.zeros_like(x)
    here = x.detach()
    leaf = here.clone().requires_grad_(True)
    priors, values = problem.priors(leaf), problem.evaluate(here)
    value = problem.objective.loss(values, None if priors is None else priors.detach()).expand(len(x))
    good = alive & torch.isfinite(value)
    if priors is not None and priors.requires_grad:
        (gradient,) = torch.autograd.grad(0.5 * (priors * priors).sum(), leaf)
        gradient = gradient * torch.isin(torch.arange(x.shape[1]), torch.as_tensor(list(active)))
    directions = torch.eye(x.shape[1])[list(active)]
    for w in torch.nonzero(good)[:, 0].tolist():
        change = weighted_change(problem, {n: v[w : w + 1] if len(v) == len(x) else v[:1] for n, v in values.items()})
        rows = jvp_of(change, here[w], directions, torch.full((len(directions),), step), worlds_at_once)["loss"]
        gradient[w, list(active)] += rows.to(gradient.dtype)
    good = good & torch.isfinite(gradient).all(dim=1)
    loss = torch.where(good, value, loss)
    return loss, torch.where(good[:, None], gradient, torch.zeros_like(gradient)), good


def weighted_change(problem: "Problem", values: Mapping[str, Tensor]) -> Callable[[Tensor], dict[str, Tensor]]:
    """(world, size) -> {"loss": (world,)}: how the residuals differ from `values` (1, ...), weighted so that the derivative
    where they are these values is that of the loss's terms. Double precision."""
    at_base = {name: value.double() for name, value in values.items()}
    terms = problem.objective.terms.values()
    weights = [t.weight * influence(at_base[t.residual], t.robust) * at_base[t.residual] for t in terms]

    def change(points: Tensor) -> dict[str, Tensor]:
        values = problem.evaluate(points)
        parts = [
            ((values[t.residual].double() - at_base[t.residual]) * w).flatten(1).sum(1)
            for t, w in zip(terms, weights, strict=True)
        ]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return {"loss": total.expand(len(points)) if len(total) != len(points) else total}

    return change


class GradientChoice(NamedTuple):
    """How a phase takes its gradient. Kept in the checkpoint: a resumed run does not measure again."""

    mode: str  # "reverse" or "forward"
    why: str


def choose_gradient(problem: "Problem", x: Tensor, alive: Tensor) -> GradientChoice:
    """Measure one gradient each way at x (world, size) and take the faster one; forward only where both agree to `AGREEMENT`.

    Each is called twice, since the first call traces; the second one's time counts. Times vary from run to run, so two runs may
    choose differently where both ways take about as long; they then differ by the error of the differences.
    Raises: UserError where no world has a finite gradient.
    """
    found = {}
    for mode, gradient in (("reverse", problem.reverse), ("forward", problem.forward)):
        gradient(x, alive)
        begin = time.perf_counter()
        _, slopes, good = gradient(x, alive)
        found[mode] = (time.perf_counter() - begin, slopes * problem.mask, good)
    (reverse_time, reverse, reverse_good), (forward_time, forward, forward_good) = found["reverse"], found["forward"]
    both = reverse_good & forward_good
    if not bool((reverse_good | forward_good).any()):
        raise UserError("gradient: auto: no start has a finite gradient; remedy: bounds, first guesses, a shorter horizon")
    size = float(torch.linalg.vector_norm(reverse[both].double()))
    apart = float(torch.linalg.vector_norm((forward - reverse)[both].double()))
    error = apart / size if size > 0.0 else (math.inf if apart > 0.0 else 0.0)
    times = f"{1e3 * forward_time:.3g} ms forward, {1e3 * reverse_time:.3g} ms reverse; they differ by {error:.1e}"
    if not bool(both.equal(reverse_good)):
        return GradientChoice("reverse", f"differences are not finite where reverse mode is; {times}")
    if error > AGREEMENT:
        return GradientChoice("reverse", f"differences with step {problem.step:g} are not exact enough; {times}")
    return GradientChoice("forward" if forward_time < reverse_time else "reverse", times)
