"""`VideoFit`: recover the parameters of a pipeline from a clip. Explore, descend, measure the uncertainty, report.

What is special about a scene stands in its YAML; which numbers are read off the motion, in a list of readouts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from dvc.clip import Clip
from dvc.errors import UserError
from dvc.gradient_check import CheckRow, check_parameters, check_weights
from dvc.losses import Objective, Term
from dvc.optimize import Fit, Phase, optimize
from dvc.parameter_vector import ParameterVector
from dvc.pipeline import Pipeline
from dvc.result import Estimate, Metric, Result
from dvc.synthesize import render_clip
from dvc.uncertainty import Uncertainty, derived_interval, estimate, intervals


@dataclass(frozen=True)
class Derived:
    """A number that is not a parameter but is reported like one: an output of the pipeline, one number a world."""

    output: str
    unit: str = ""


class Readout(Protocol):
    """Reads metrics (and artefacts) off the answer."""

    def __call__(self, task: "VideoFit", recorder: Any, fit: Fit, estimates: Mapping[str, Estimate]) -> dict[str, Metric]: ...


class VideoFit:
    """The job "parameters from a video".

    Arguments:
        pipeline; terms: the objective; phases: see `dvc.optimize`.
        starts: random starts beside the first guess, drawn from the parameters' `explore` boxes with `seed`.
        first_guess: whether the YAML's own values are one of the starts.
        final: context of the last word: uncertainty, pictures, metrics (horizon, level).
        segments: number of clusters of frames for the uncertainty.
        derived: name -> Derived.
        names: outputs of the pipeline that this job shows: clip, picture, track, motion.
        readouts: add metrics to the result.
        rendered: where the clip has to be rendered by the pipeline itself: {truth: {parameter: value}, noise}.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        terms: Mapping[str, Term],
        phases: Sequence[Phase],
        *,
        claim: str = "",
        starts: int = 0,
        first_guess: bool = True,
        seed: int = 0,
        final: Mapping[str, Any],
        final_terms: Sequence[str] | None = None,
        segments: int = 12,
        derived: Mapping[str, Derived] | None = None,
        names: Mapping[str, str] | None = None,
        readouts: Sequence[Readout] = (),
        rendered: Mapping[str, Any] | None = None,
        worlds_at_once: int = 16,
        checkpoint_every: int = 5,
    ):
        if starts < 0 or (starts == 0 and not first_guess):
            raise UserError(f"starts: expected at least one start, got {starts} random ones and first_guess={first_guess}")
        self.pipeline, self.objective, self.phases, self.claim = pipeline, Objective(terms), list(phases), claim
        self.starts, self.first_guess, self.seed, self.final = int(starts), bool(first_guess), int(seed), dict(final)
        self.final_terms = list(terms) if final_terms is None else list(final_terms)
        self.segments, self.derived, self.worlds_at_once = int(segments), dict(derived or {}), int(worlds_at_once)
        self.names = {"clip": "clip", "picture": "picture", "track": "ball_track", "motion": "motion", **(names or {})}
        self.checkpoint_every, self.readouts, self.rendered = int(checkpoint_every), list(readouts), dict(rendered or {})
        self.vector = ParameterVector(pipeline)
        clip = pipeline.stages[self.names["clip"]]
        if not isinstance(clip, Clip):
            raise UserError(f"names.clip: expected a dvc.clip.Clip, got {type(clip).__name__}")
        self.clip = clip

    # -- the run ------------------------------------------------------------------------------------------------------
    @property
    def context(self) -> dict[str, Any]:
        """Context values that every evaluation has."""
        return {"seed": 0, **self.final}

    def start_points(self) -> Tensor:
        """Unbounded starts, (world, size): the first guess (if wanted), then random ones."""
        generator = torch.Generator().manual_seed(self.seed)
        rows = [self.vector.gather()[:1]] if self.first_guess else []
        if self.starts:
            rows.append(self.vector.sample(self.starts, generator))
        return torch.cat(rows)

    def check_first_guess(self) -> None:
        """Raises UserError where the first guess puts the ball outside the frame or the model cannot be evaluated."""
        with torch.no_grad():
            values = self.pipeline([self.names["track"], f"{self.names['clip']}.film"], context={**self.context, "horizon": 1})
        track, film = values[self.names["track"]][0, 0], values[f"{self.names['clip']}.film"]
        inside = bool(torch.isfinite(track).all()) and 0.0 <= track[0] <= film.width and 0.0 <= track[1] <= film.height
        if not inside:
            raise UserError(
                f"first guess: expected the model's ball inside the {film.width}x{film.height} frame, got pixel "
                f"({float(track[0]):.0f}, {float(track[1]):.0f}); remedy: first guesses of pivot, angle or length in pixels"
            )

    def optimize(self, recorder: Any) -> Fit:
        """Run the phases, with progress and checkpoints."""
        steps = sum(p.steps for p in self.phases)
        recorder.total(steps)

        def on_step(step: int, phase: str, x: Tensor, loss: Tensor) -> None:
            best = int(torch.argmin(loss))
            values = {n: v[0].tolist() for n, v in self.vector.values(x[best : best + 1].detach()).items()}
            recorder.step(step, float(loss[best]), phase, values)

        return optimize(
            self.pipeline, self.objective, self.phases, starts=self.start_points(), context=self.context, on_step=on_step,
            checkpoint=recorder.checkpoint, checkpoint_every=self.checkpoint_every, restored=recorder.restored,
            on_retire=recorder.note,
        )  # fmt: skip

    def clusters(self) -> Tensor:
        """Segment of each frame, equal lengths."""
        frames = int(self.outputs([f"{self.names['clip']}.images"])[f"{self.names['clip']}.images"].shape[1])
        return (torch.arange(frames) * self.segments) // frames

    def outputs(self, names: Sequence[str]) -> dict[str, Any]:
        """Pipeline outputs at the answer, without gradient."""
        with torch.no_grad():
            return self.pipeline(list(names), context=self.context)

    def uncertainty(self, x: Tensor) -> Uncertainty:
        """See `dvc.uncertainty`."""
        objective = Objective({n: self.objective.terms[n] for n in self.final_terms})
        return estimate(self.pipeline, objective, x, self.clusters(), context=self.context, worlds_at_once=self.worlds_at_once)

    def estimates(self, x: Tensor, unsure: Uncertainty) -> dict[str, Estimate]:
        """Declared and derived parameters with their intervals."""
        found: dict[str, Estimate] = {}
        for name, (value, low, high) in intervals(self.vector, x, unsure).items():
            weak = bool(unsure.weak[self.vector.slices[name]].any())
            found[name] = Estimate(value.tolist(), low.tolist(), high.tolist(), self.vector.parameters[name].unit, weak)
        outputs = [d.output for d in self.derived.values()]
        if outputs:
            halves = derived_interval(self.pipeline, self.vector, x, unsure, outputs, self.context, self.worlds_at_once)
            for name, d in self.derived.items():
                value, half = halves[d.output]
                if not bool(torch.isfinite(value).all() and torch.isfinite(half).all()):
                    continue  # not defined at the answer (too few strikes, say); the run reports what is missing
                found[name] = Estimate(value.tolist(), (value - half).tolist(), (value + half).tolist(), d.unit, False)
        return found

    def save_artefacts(self, recorder: Any, found: Mapping[str, Estimate]) -> None:
        """Track, angles and the overlay (real | model | difference)."""
        n = self.names
        out = self.outputs([n["clip"], n["picture"], n["track"], n["motion"]])
        track = out[n["track"]][0].double().numpy()
        pixels = self.clip.to_original(track)
        first = self.clip.first
        recorder.save_table("track", ["frame", "x", "y"], [[first + i, f"{x:.3f}", f"{y:.3f}"] for i, (x, y) in enumerate(pixels)])
        motion = out[n["motion"]]
        time = motion.start + motion.interval * np.arange(motion.angles.shape[1])
        inside = motion.impact_fraction[0] >= 0.0
        strikes = time[:-1][inside.numpy()] + (motion.impact_fraction[0][inside] * motion.interval).numpy()
        recorder.save_arrays("angles", time=time, model=motion.angles[0].numpy(), strikes=strikes)
        recorder.save_video("overlay", overlay(out[n["clip"]].images[0], out[n["picture"]].images[0]), self.clip.frame_rate)

    def prepare(self, recorder: Any) -> None:
        """Render the clip where there is none, and say so."""
        if self.clip.available:
            return
        recorder.note(f"NO CLIP: {self.clip.why_empty}")
        recorder.note("Simulating and rendering a clip with known parameters instead; what follows recovers THAT one.")
        generator = torch.Generator().manual_seed(self.seed + 1)
        truth, noise = self.rendered.get("truth", {}), float(self.rendered.get("noise", 0.01))
        video = render_clip(self.pipeline, truth, clip=self.names["clip"], picture=self.names["picture"], context=self.context,
                            noise=noise, generator=generator)  # fmt: skip
        self.clip.load(video, stabilize=False)
        recorder.save_video("clip", video, self.clip.frame_rate)

    def run(self, recorder: Any) -> Result:
        """Explore, descend, measure, report."""
        self.prepare(recorder)
        self.check_first_guess()
        fit = self.optimize(recorder)
        recorder.note("measuring the uncertainty")
        unsure = self.uncertainty(fit.x[0])
        found = self.estimates(fit.x[0], unsure)
        recorder.note(
            f"{unsure.residual_count} residuals tell as much as {unsure.effective_samples:.0f} independent ones "
            f"({unsure.clusters} segments)"
        )
        metrics = {
            "loss": Metric(float(fit.loss[0])),
            "effective_samples": Metric(round(unsure.effective_samples, 1)),
        }
        for name in self.derived.keys() - found.keys():
            recorder.note(f"{name} is left out of the result: it is not defined at the answer")
        for readout in self.readouts:
            metrics |= readout(self, recorder, fit, found)
        metrics |= self.truth_metrics(found)
        self.save_artefacts(recorder, found)
        return Result(self.claim, found, metrics)

    def truth_metrics(self, found: Mapping[str, Estimate]) -> dict[str, Metric]:
        """Where the clip was rendered: the relative error of every number that was set."""
        if self.clip.available:
            return {}
        metrics = {}
        for name, value in self.rendered.get("truth", {}).items():
            error = np.abs(np.asarray(found[name].value, float) - np.asarray(value, float)).max()
            metrics[f"error/{name}"] = Metric(float(error), found[name].unit)
        return metrics

    # -- the certificate ----------------------------------------------------------------------------------------------
    def check(self) -> list[CheckRow]:
        """Gradient certificate of each term that the phases use, in the context where it is used."""
        rows: list[CheckRow] = []
        seen: set[tuple[str, Any]] = set()
        for phase in self.phases:
            for name in phase.terms or list(self.objective.terms):
                context = {**self.context, **phase.context}
                key = (name, context.get("level"))
                if key in seen:
                    continue
                seen.add(key)
                objective = Objective({name: self.objective.terms[name]})
                for row in check_parameters(self.pipeline, objective, context, worlds_at_once=self.worlds_at_once):
                    rows.append(row._replace(name=f"{name}/{row.name}"))
                if phase.weights:
                    rows += [row._replace(name=f"{name}/{row.name}") for row in check_weights(self.pipeline, objective, context)]
        return rows


def overlay(real: Tensor, model: Tensor, width: int = 960) -> np.ndarray:
    """real | model | difference (times 3, around grey), uint8 (frame, row, column, 3), enlarged to about `width` pixels."""
    difference = 0.5 + 1.5 * (model - real)
    rows = torch.cat([real, model, difference], dim=2).clamp(0.0, 1.0)
    factor = max(1, round(width / rows.shape[2]))
    rows = rows.repeat_interleave(factor, dim=1).repeat_interleave(factor, dim=2)
    return (rows * 255.0 + 0.5).to(torch.uint8).numpy()
