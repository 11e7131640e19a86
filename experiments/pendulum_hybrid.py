"""Analytic pendulum or hybrid: do frames that were not fitted get better with a learned residual torque?

Command: `diffvc run experiment=pendulum_hybrid`. The analytic fit (network at zero) ends with the phase `before`; the
hybrid is the end of the run. Both are then rolled on beyond the fitted window, and compared there on the pixels.
"""

from collections.abc import Mapping
from typing import Any

import torch

from dvc.errors import UserError
from dvc.losses import penalty
from dvc.optimize import Fit
from dvc.result import Estimate, Metric
from dvc.video_fit import VideoFit


class HeldOutReadout:
    """Loss on frames that were not fitted, analytic and hybrid.

    Arguments: before: phase at whose end the analytic fit stands; first: first held-out frame of the window; term: which
        term of the objective is compared.
    """

    def __init__(self, before: str, first: int, term: str = "pixels"):
        self.before, self.first, self.term = before, int(first), term

    def __call__(self, task: VideoFit, recorder: Any, fit: Fit, estimates: Mapping[str, Estimate]) -> dict[str, Metric]:
        if self.before not in fit.ends:
            raise UserError(f"HeldOutReadout.before: expected the name of a phase ({', '.join(fit.ends)}), got {self.before!r}")
        analytic, hybrid = self._losses(task, fit.ends[self.before]), self._losses(task, fit.ends[list(fit.ends)[-1]])
        columns = zip(analytic.tolist(), hybrid.tolist(), strict=True)
        rows = [[task.clip.first + i, int(i < self.first), f"{a:.4f}", f"{h:.4f}"] for i, (a, h) in enumerate(columns)]
        recorder.save_table("heldout", ["frame", "fitted", "analytic", "hybrid"], rows)
        fitted = float(hybrid[: self.first].sum() / analytic[: self.first].sum())
        heldout = float(hybrid[self.first :].sum() / analytic[self.first :].sum())
        verdict = "better" if heldout < 1.0 else "not better"
        recorder.note(f"held-out frames got {verdict}: loss hybrid / analytic {heldout:.3f} (fitted frames {fitted:.3f})")
        return {
            "fitted_loss_ratio": Metric(fitted, "1"),
            "heldout_loss_ratio": Metric(heldout, "1", "< 1", heldout < 1.0),
            "heldout_loss_analytic": Metric(float(analytic[self.first :].mean()), "1"),
            "heldout_loss_hybrid": Metric(float(hybrid[self.first :].mean()), "1"),
        }

    def _losses(self, task: VideoFit, end: Mapping[str, Any]) -> torch.Tensor:
        """Loss of every frame of the whole window, (frame,)."""
        kept = {name: weight.detach().clone() for name, weight in task.pipeline.weights().items()}
        term = task.objective.terms[self.term]
        with torch.no_grad():
            _load(task, end["weights"])
            context = {**task.context, "horizon": None}
            residual = task.pipeline([term.residual], context=context, raw=task.vector.split(end["x"][None]))[term.residual]
            _load(task, kept)
            return 0.5 * term.weight * penalty(residual[0], term.robust).flatten(1).sum(1)


def _load(task: VideoFit, weights: Mapping[str, torch.Tensor]) -> None:
    for name, weight in task.pipeline.weights().items():
        weight.copy_(weights[name])
