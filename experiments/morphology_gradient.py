"""Do distances that a chain swings and walks have the right gradient in its shape? Every link's length, radius and density.

Each number's derivative by reverse mode stands beside central differences over the world axis at several steps (in the
unbounded coordinates of the parameters) and, for the swinging chain, beside what Newton's Featherstone solver returns for the
same numbers (where the extra `bench` is installed). Command: `diffvc run experiment=morphology_gradient`.

Metrics: `swing_worst_error`, `walk_worst_error`: largest relative difference between reverse mode and differences;
`*_excluded`: share of the numbers whose differences do not settle; `swing_distance`, `walk_distance`;
`newton_zero_gradients`: how many of Newton's are exactly zero, `newton_worst_error`. Artefact: `gradients.csv`.
"""

from typing import Any

import torch
from torch import Tensor

from dvc.errors import UserError
from dvc.gradient_check import CheckRow, check_parameters, compare
from dvc.jvp import evaluator, jvp_of
from dvc.losses import Objective, term
from dvc.parameter_vector import ParameterVector
from dvc.pipeline import Pipeline
from dvc.result import Metric, Result
from experiments.chain_motion import SwingingChain

MOTIONS = ("swing", "walk")
STEPS = (3e-2, 1e-2, 3e-3, 1e-3)  # of the unbounded numbers


class MorphologyGradient:
    """The job "gradients of distance in a chain's shape".

    Arguments: pipeline: parameters `length`, `radius`, `density`, each of one number a link, and stages `swing` and `walk`
        that map them to a distance; most_error: largest relative difference that passes; compare_newton; seed; claim.
    """

    def __init__(
        self, *, pipeline: Pipeline, most_error: float = 0.02, compare_newton: bool = True, seed: int = 0, claim: str = ""
    ):
        self.pipeline, self.most_error, self.seed, self.claim = pipeline, float(most_error), int(seed), claim
        self.compare_newton, self.vector = bool(compare_newton), ParameterVector(pipeline)
        self.objective = Objective({motion: term(residual=motion) for motion in MOTIONS})

    def gradients(self, motion: str) -> tuple[float, list[CheckRow]]:
        """Distance [m], and for each number its two derivatives, with respect to the unbounded number."""
        x = self.vector.gather()[:1].clone().requires_grad_()
        distance = self.pipeline([motion], raw=self.vector.split(x))[motion]
        (analytic,) = torch.autograd.grad(distance.sum(), x)
        evaluate = evaluator(self.pipeline, self.vector, [motion], {})
        eye = torch.eye(self.vector.size)
        differences = [
            jvp_of(evaluate, x[0].detach(), eye, torch.full((self.vector.size,), h), 2 * self.vector.size)[motion]
            for h in STEPS
        ]
        scale = abs(float(distance.detach()))
        rows = [
            compare(float(analytic[0, i]), [float(d[i]) for d in differences], STEPS, scale, f"{motion}/{label}", "parameter")
            for i, label in enumerate(self.vector.labels)
        ]
        return float(distance.detach()), rows

    def run(self, recorder: Any) -> Result:
        """Both motions, and Newton's answer to the first."""
        recorder.total(len(MOTIONS) + 1)
        metrics: dict[str, Metric] = {}
        table: list[list[str]] = []
        newton = self._newton(recorder)
        for done, motion in enumerate(MOTIONS):
            distance, rows = self.gradients(motion)
            counted = [row for row in rows if not row.note.startswith("excluded")]
            worst = max((row.error for row in counted), default=float("nan"))
            passed = bool(counted) and all(row.passed for row in counted) and worst < self.most_error
            metrics[f"{motion}_worst_error"] = Metric(worst, "1", f"< {self.most_error:g}", passed)
            metrics[f"{motion}_excluded"] = Metric(
                1.0 - len(counted) / len(rows), "1", "<= 0.3", len(counted) >= 0.7 * len(rows)
            )
            metrics[f"{motion}_distance"] = Metric(distance, "m")
            other = newton if motion == "swing" else None
            for i, row in enumerate(rows):
                theirs = "" if other is None else f"{other[i]:.6g}"
                table.append([row.name, f"{row.analytic:.6g}", f"{row.numeric:.6g}", f"{row.error:.2e}", theirs, row.note])
            if other is not None:
                zero = sum(value == 0.0 for value in other)
                errors = [abs(v - row.numeric) / max(abs(row.numeric), 1e-30) for v, row in zip(other, rows, strict=True)]
                metrics["newton_zero_gradients"] = Metric(zero, "1")
                metrics["newton_worst_error"] = Metric(max(errors), "1")
            recorder.step(done + 1, worst, motion, {})
        recorder.save_table("gradients", ["number", "reverse_mode", "differences", "relative_error", "newton", "note"], table)
        for line in table:
            recorder.note("  ".join(f"{cell:>14}" for cell in line).rstrip())
        return Result(self.claim, {}, metrics)

    def _newton(self, recorder: Any) -> list[float] | None:
        """Newton's derivatives with respect to the unbounded numbers, in the order of the labels."""
        if not self.compare_newton:
            return None
        from experiments.newton_chain import newton_gradient

        raw = {name: p.raw.detach()[:1].clone().requires_grad_() for name, p in self.vector.parameters.items()}
        values = {name: self.vector.parameters[name].to_value(r) for name, r in raw.items()}
        chain = self.pipeline.stages["swing"]
        assert isinstance(chain, SwingingChain)
        try:
            distance, found = newton_gradient(chain, values["length"], values["radius"], values["density"])
        except UserError as error:
            recorder.note(f"without Newton: {error}")
            return None
        recorder.note(f"Newton's Featherstone solver swings to {distance:.4f} m")
        pulled: Tensor = sum((values[n] * g).sum() for n, g in zip(("length", "radius", "density"), found, strict=True))  # type: ignore[assignment]
        slopes = torch.autograd.grad(pulled, [raw[name] for name in self.vector.names])
        return torch.cat([slope.flatten() for slope in slopes]).tolist()

    def check(self) -> list[CheckRow]:
        """Certificate of both distances in every number."""
        return check_parameters(self.pipeline, self.objective, {})
