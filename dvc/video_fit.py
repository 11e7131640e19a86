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
from dvc.horizon import HorizonReport, pipeline_report, spread_horizons
from dvc.losses import Objective, Term
from dvc.optimize import Fit, Phase, check_phases, optimize
from dvc.parameter_vector import ParameterVector
from dvc.pipeline import Pipeline, did_you_mean
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
        least_one = {"worlds_at_once": worlds_at_once, "checkpoint_every": checkpoint_every, "number of phases": len(phases)}
        for name, value in least_one.items():
            if value < 1:
                raise UserError(f"{name}: expected at least 1, got {value}")
        if starts < 0 or (starts == 0 and not first_guess):
            raise UserError(f"starts: expected at least one start, got {starts} random ones and first_guess={first_guess}")
        self.pipeline, self.objective, self.phases, self.claim = pipeline, Objective(terms), list(phases), claim
        self.starts, self.first_guess, self.seed, self.final = int(starts), bool(first_guess), int(seed), dict(final)
        self.final_terms = list(terms) if final_terms is None else list(final_terms)
        self.segments, self.derived, self.worlds_at_once = int(segments), dict(derived or {}), int(worlds_at_once)
        self.names = {"clip": "clip", "picture": "picture", "track": "ball_track", "motion": "motion", **(names or {})}
        self.checkpoint_every, self.readouts, self.rendered = int(checkpoint_every), list(readouts), dict(rendered or {})
        self.vector = ParameterVector(pipeline)
        if self.names["clip"] not in pipeline.stages:
            raise UserError(f"names.clip: no stage {self.names['clip']!r}{did_you_mean(self.names['clip'], pipeline.stages)}")
        clip = pipeline.stages[self.names["clip"]]
        if not isinstance(clip, Clip):
            raise UserError(f"names.clip: expected a dvc.clip.Clip, got {type(clip).__name__}")
        self.clip = clip
        self._check_settings()

    def _check_settings(self) -> None:
        """What would otherwise fail in the last phase, or after it, when all the work is done."""
        check_phases(self.phases, self.objective, self.vector)
        for name in self.final_terms:
            if name not in self.objective.terms:
                raise UserError(f"final_terms: no term {name!r}{did_you_mean(name, self.objective.terms)}")
        outputs = [*self.names.values(), *self.objective.outputs, *(d.output for d in self.derived.values())]
        stages = self.pipeline.needed(outputs)
        used = [s[1:] for name in stages for s in self.pipeline.wiring.get(name, {}).values() if s.startswith("$")]
        for name in used:
            if name not in self.context:
                raise UserError(
                    f"final: expected a value of {name!r}, as the wiring uses it, got none; remedy: final.{name}=..."
                )
        self._check_context("final", self.final)
        for phase in self.phases:
            self._check_context(f"phase {phase.name!r}: context", phase.context)
        frames = min(self.clip.last - self.clip.first, self.final.get("horizon") or self.clip.last)
        if min(self.segments, frames) < 3:
            raise UserError(
                f"segments: expected at least 3, of at least one frame each, for the uncertainty, got {self.segments} segments "
                f"and {frames} frames; remedy: a longer window, or a longer final.horizon"
            )

    def _check_context(self, where: str, context: Mapping[str, Any]) -> None:
        wired = {s[1:] for inputs in self.pipeline.wiring.values() for s in inputs.values() if s.startswith("$")}
        for name in context:
            if name not in wired:
                raise UserError(f"{where}: the wiring has no ${name}{did_you_mean(name, wired)}")
        level, horizon = context.get("level", 0), context.get("horizon")
        if level not in range(len(self.clip.levels)):
            raise UserError(f"{where}: level: expected 0 to {len(self.clip.levels) - 1}, got {level!r}")
        if horizon is not None and (type(horizon) is not int or horizon < 1):
            raise UserError(f"{where}: horizon: expected a number of frames from 1, or null for all, got {horizon!r}")

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
        wanted = self.pipeline.needed([self.names["track"], self.names["clip"], *self.objective.outputs])
        derived = [d.output for d in self.derived.values()]
        with torch.no_grad():
            values = self.pipeline([*wanted, *derived], context={**self.context, "horizon": 1})
        for stage in wanted:
            parts = values[stage] if isinstance(values[stage], tuple) else (values[stage],)
            if not all(bool(torch.isfinite(part).all()) for part in parts if isinstance(part, Tensor)):
                raise UserError(
                    f"first guess: expected finite numbers, got others from stage {stage!r} (the first that has them); "
                    "remedy: that stage, or first guesses of what feeds it"
                )
        track, film = values[self.names["track"]][0, 0], values[self.names["clip"]].film
        inside = bool(torch.isfinite(track).all()) and 0.0 <= track[0] <= film.width and 0.0 <= track[1] <= film.height
        if not inside:
            raise UserError(
                f"first guess: expected the model's ball inside the {film.width}x{film.height} frame, got pixel "
                f"({float(track[0]):.0f}, {float(track[1]):.0f}); remedy: first guesses of pivot, angle or length in pixels"
            )

    def check_clip(self) -> None:
        """Raises UserError where a term sees nothing in any of the frames that the phases show it."""
        widest: dict[tuple[str, Any], dict[str, Any]] = {}
        for phase in self.phases:
            context = {**self.context, **phase.context}
            for name in phase.terms or list(self.objective.terms):
                before = widest.setdefault((name, context.get("level")), context).get("horizon")
                if before is not None and (context.get("horizon") or self.clip.last) > before:
                    widest[name, context.get("level")] = context
        for (name, _), context in widest.items():
            residual = self.objective.terms[name].residual
            with torch.no_grad():
                seen = bool((self.pipeline([residual], context=context)[residual] != 0.0).any())
            if not seen:
                raise UserError(
                    f"clip: expected something that moves and that term {name!r} sees, got nothing in any frame; "
                    f"remedy: the window, Clip.region, or the settings of stage {residual!r} (its colour and threshold)"
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
            is_weak = bool(unsure.weak[self.vector.slices[name]].any())
            found[name] = Estimate(value.tolist(), low.tolist(), high.tolist(), self.vector.parameters[name].unit, is_weak)
        outputs = [d.output for d in self.derived.values()]
        if outputs:
            halves = derived_interval(self.pipeline, self.vector, x, unsure, outputs, self.context, self.worlds_at_once)
            for name, d in self.derived.items():
                value, half, weak = halves[d.output]
                if not bool(torch.isfinite(value).all() and torch.isfinite(half).all()):
                    continue  # not defined at the answer (too few strikes, say); the run reports what is missing
                low, high = value - half, value + half
                found[name] = Estimate(value.tolist(), low.tolist(), high.tolist(), d.unit, bool(weak.any()))
        return found

    def save_artefacts(self, recorder: Any, found: Mapping[str, Estimate]) -> None:
        """Track, angles and the overlay (real | model | difference)."""
        n = self.names
        out = self.outputs([n["clip"], n["picture"], n["track"], n["motion"]])
        track = out[n["track"]][0].double().numpy()
        pixels = self.clip.to_original(track)
        first = self.clip.first
        recorder.save_table(
            "track", ["frame", "x", "y"], [[first + i, f"{x:.3f}", f"{y:.3f}"] for i, (x, y) in enumerate(pixels)]
        )
        motion = out[n["motion"]]
        time = motion.start + motion.interval * np.arange(motion.angles.shape[1])
        inside = motion.impact_fraction[0] >= 0.0
        strikes = time[:-1][inside.numpy()] + (motion.impact_fraction[0][inside] * motion.interval).numpy()
        recorder.save_arrays("angles", time=time, model=motion.angles[0].numpy(), strikes=strikes)
        recorder.save_video("overlay", overlay(out[n["clip"]].images[0], out[n["picture"]].images[0]), self.clip.frame_rate)

    def prepare(self) -> np.ndarray | None:
        """Render the clip where there is none: its frames, uint8 (frame, row, column, 3), or None."""
        if self.clip.available:
            return None
        generator = torch.Generator().manual_seed(self.seed + 1)
        truth, noise = self.rendered.get("truth", {}), float(self.rendered.get("noise", 0.01))
        video = render_clip(self.pipeline, truth, clip=self.names["clip"], picture=self.names["picture"], context=self.context,
                            noise=noise, generator=generator)  # fmt: skip
        self.clip.load(video, stabilize=False)
        return video

    def run(self, recorder: Any) -> Result:
        """Explore, descend, measure, report."""
        if not self.clip.available:
            recorder.note(f"NO CLIP: {self.clip.why_empty}")
            recorder.note("Simulating and rendering a clip with known parameters instead; what follows recovers THAT one.")
        video = self.prepare()
        if video is not None:
            recorder.save_video("clip", video, self.clip.frame_rate)
        self.check_first_guess()
        self.check_clip()
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
        self.prepare()
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
                    rows += [
                        row._replace(name=f"{name}/{row.name}") for row in check_weights(self.pipeline, objective, context)
                    ]
        return rows

    def horizon(self, horizons: Sequence[int] | None = None) -> HorizonReport:
        """Gradients against the horizon [frames], of what the last phase with a horizon of its own sees and moves.

        horizons: None: eight, up to the whole window. Raises: UserError where no phase has a horizon.
        """
        phases = [phase for phase in self.phases if phase.context.get("horizon") is not None]
        if not phases:
            raise UserError("horizon: expected a phase with `context: {horizon: ...}`, got none")
        self.prepare()
        phase, frames = phases[-1], self.clip.last - self.clip.first
        terms = phase.terms or list(self.objective.terms)
        return pipeline_report(
            self.pipeline, Objective({n: self.objective.terms[n] for n in terms}), {**self.context, **phase.context},
            spread_horizons(frames) if horizons is None else horizons, train=phase.train, interval=1.0 / self.clip.frame_rate,
            worlds_at_once=self.worlds_at_once,
        )  # fmt: skip


def overlay(real: Tensor, model: Tensor, width: int = 960) -> np.ndarray:
    """real | model | difference (times 3, around grey), uint8 (frame, row, column, 3), enlarged to about `width` pixels."""
    difference = 0.5 + 1.5 * (model - real)
    rows = (torch.cat([real, model, difference], dim=2).clamp(0.0, 1.0) * 255.0 + 0.5).to(torch.uint8)
    factor = max(1, round(width / rows.shape[2]))
    return rows.repeat_interleave(factor, dim=1).repeat_interleave(factor, dim=2).numpy()
