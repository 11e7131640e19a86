"""Are the intervals honest? Fit clips with known truth, and count how often the 95 % interval holds it.

Each clip is rendered by the pipeline of another experiment with parameters drawn at random, motion blur and pixel noise;
it is fitted from that experiment's first guess, and its intervals are compared with the truth. Command:
`diffvc run experiment=pendulum_coverage`. Metrics, pooled over clips and over all numbers that are estimated: `coverage`;
`half_width_over_rms_error` (median half-width over RMS error, for each number over the clips, then the median over numbers);
`well_determined_worst` (largest relative error of a number whose half-width is under 5 % of its value; numbers whose
half-width is itself near 5 % err by more than 2 % now and then when their intervals are honest) and beside it
`well_determined_rms` (RMS of those errors).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from dvc.errors import UserError
from dvc.gradient_check import CheckRow
from dvc.parameter import Parameter
from dvc.result import Estimate, Metric, Result
from dvc.synthesize import render_clip
from dvc.video_fit import VideoFit


def draw(parameter: Parameter, box: Sequence[Any] | None, generator: torch.Generator) -> torch.Tensor:
    """A true value: uniform in the box where one is given, else from the prior, else the first guess. Inside the bounds."""
    if box is not None:
        low, high = (torch.as_tensor(b, dtype=torch.float32) for b in box)
        return low + (high - low) * torch.rand(parameter.shape, generator=generator)
    if parameter.prior_std is None:
        return parameter.initial.clone()
    value = parameter.prior_mean + parameter.prior_std * torch.randn(parameter.shape, generator=generator).clamp(-2.0, 2.0)
    if parameter.lower is not None:
        value = torch.maximum(value, parameter.lower + 1e-3 * parameter.prior_std)
    if parameter.upper is not None:
        value = torch.minimum(value, parameter.upper - 1e-3 * parameter.prior_std)
    return value


class Coverage:
    """The job "are the intervals honest".

    Arguments: clips: how many; boxes: parameter -> (low, high) from which truths are drawn (others from their priors);
        noise: of a pixel, in [0, 1]; seed; everything else: of the `VideoFit` that is tested.
    """

    def __init__(
        self,
        *,
        clips: int,
        boxes: Mapping[str, Sequence[Any]],
        noise: float = 0.01,
        seed: int = 0,
        claim: str = "",
        **fit_arguments: Any,
    ):
        fit = VideoFit(seed=seed, claim=claim, **fit_arguments)
        unknown = set(boxes) - set(fit.pipeline.declared())
        if unknown:
            raise UserError(f"Coverage.boxes: no declared parameter {sorted(unknown)[0]!r}")
        if clips < 2:
            raise UserError(f"Coverage.clips: expected at least 2, got {clips}")
        self.fit, self.clips, self.boxes, self.noise, self.seed, self.claim = (
            fit,
            int(clips),
            dict(boxes),
            float(noise),
            int(seed),
            claim,
        )
        self.pipeline = fit.pipeline

    def run(self, recorder: Any) -> Result:
        """Fit every clip; a resumed run goes on with the clip that was not finished."""
        rows: list[dict[str, Any]] = list(recorder.restored["rows"]) if recorder.restored else []
        first_guess = self.fit.vector.gather()[:1]
        recorder.total(self.clips)
        for k in range(len(rows), self.clips):
            generator = torch.Generator().manual_seed(1000 * self.seed + k)
            truth = {n: draw(p, self.boxes.get(n), generator) for n, p in self.pipeline.declared().items()}
            rows.append(self._one(k, truth, first_guess, generator, recorder))
            inside = np.concatenate([r["inside"] for r in rows])
            recorder.step(k + 1, float(rows[-1]["loss"]), f"clip {k}", {"coverage": float(inside.mean())})
            recorder.checkpoint({"rows": rows, "step": k + 1})
        return self._result(rows, recorder)

    def _one(
        self, k: int, truth: Mapping[str, torch.Tensor], first_guess: torch.Tensor, generator: torch.Generator, recorder: Any
    ) -> dict[str, Any]:
        fit, vector = self.fit, self.fit.vector
        vector.scatter(first_guess)
        video = render_clip(self.pipeline, truth, clip=fit.names["clip"], picture=fit.names["picture"], context=fit.context,
                            noise=self.noise, seed=k + 1, generator=generator)  # fmt: skip
        fit.clip.load(video, stabilize=False)
        quiet = _Quiet()
        answer = fit.optimize(quiet)
        found = fit.estimates(answer.x[0], fit.uncertainty(answer.x[0]))
        flat: dict[str, list[float]] = {"value": [], "low": [], "high": [], "truth": []}
        for name in vector.names:
            e: Estimate = found[name]
            for key, item in (("value", e.value), ("low", e.low), ("high", e.high), ("truth", truth[name].tolist())):
                flat[key] += np.ravel(np.asarray(item, float)).tolist()
        low, high, true = (np.array(flat[key]) for key in ("low", "high", "truth"))
        inside = ((low <= true) & (true <= high)).tolist()
        outside = [label for label, is_inside in zip(vector.labels, inside, strict=True) if not is_inside]
        recorder.note(
            f"clip {k}: loss {float(answer.loss[0]):.1f}, {sum(inside)} of {len(inside)} intervals hold the truth"
            + (f"; not {', '.join(outside)}" if outside else "")
        )
        return {"loss": float(answer.loss[0]), "inside": inside, **flat}

    def _result(self, rows: Sequence[Mapping[str, Any]], recorder: Any) -> Result:
        value, low, high, true = (np.array([r[key] for r in rows]) for key in ("value", "low", "high", "truth"))
        labels = self.fit.vector.labels
        inside = (low <= true) & (true <= high)
        half = 0.5 * (high - low)
        error = value - true
        rms = np.sqrt((error**2).mean(axis=0))
        ratio = np.median(half, axis=0) / np.maximum(rms, 1e-12)
        well = half < 0.05 * np.abs(value)
        relative = np.abs(error) / np.maximum(np.abs(true), 1e-12)
        worst = float(relative[well].max()) if well.any() else 0.0
        usual = float(np.sqrt((relative[well] ** 2).mean())) if well.any() else 0.0
        columns = zip(labels, inside.mean(0), rms, np.median(half, axis=0), ratio, strict=True)
        header = ["parameter", "coverage", "rms_error", "median_half_width", "ratio"]
        recorder.save_table(
            "coverage", header, [[label, *(f"{number:.4g}" for number in numbers)] for label, *numbers in columns]
        )
        recorder.save_arrays("coverage", value=value, low=low, high=high, truth=true)
        coverage, typical = float(inside.mean()), float(np.median(ratio))
        metrics = {
            "coverage": Metric(coverage, "1", "0.88 to 0.99", 0.88 <= coverage <= 0.99),
            "half_width_over_rms_error": Metric(typical, "1", "<= 3", typical <= 3.0),
            "well_determined_worst": Metric(worst, "1", "< 0.02", worst < 0.02),
            "well_determined_rms": Metric(usual, "1"),
            "well_determined_share": Metric(float(well.mean()), "1"),
            "clips": Metric(len(rows), "1"),
        }
        return Result(self.claim, {}, metrics)

    def check(self) -> list[CheckRow]:
        """The certificate of the experiment that is tested."""
        return self.fit.check()


class _Quiet:
    """A recorder for the inner fits: nothing is shown, nothing is kept."""

    restored = None

    def total(self, steps: int | None) -> None:
        pass

    def step(self, *args: Any, **kwargs: Any) -> None:
        pass

    def note(self, text: str) -> None:
        pass

    def checkpoint(self, state: Mapping[str, Any]) -> None:
        pass
