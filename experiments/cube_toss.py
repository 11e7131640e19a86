r"""Measured tosses of a cube: friction, stiffness, dissipation, length scale and side from thirty; others are predicted.

The cube is a rigid box with its mass spread evenly; the ground is z = 0; contact is the compliant one of `physics.contact_law`.
All fitted tosses are worlds of one rollout; residuals are those of `cube_motion` (poses from the first contact on, heights
before it, heights at rest), summed with a robust penalty and made small by Gauss and Newton's method over a growing span of
samples. The tracking's lengths are not trusted: measured = scale * true, and gravity tells the metre. Initial states come from
samples before the first contact only, in fitted and in predicted tosses alike, and are not refined.

Forces of contact are found relative to the mass (0.37 kg, nominal). Stiffness is known from below only, since a bounce lasts a
sample or less: far higher values, with all else fitted anew (`loss_profile`), explain the tosses as well, and intervals hold
those of them that were tried. Many tosses end in another way after the least change (the cube tips over or does not).

    diffvc run experiment=cube_toss
    diffvc run experiment=cube_toss mode=predict fitted=RUN_DIR tosses=DIR

The second predicts every NUMBER.pt in DIR with the numbers of a finished run; nothing is fitted.

Metrics, over tosses that were not fitted, see `cube_scores`: `position_error_sides`, `rotation_error_deg`, `penetration_mm`
(`penetration_measured_mm`: the same of the measured poses, with the fitted scale and side); `naive_error_sides`: ballistic
flight with nominal numbers that stops where a corner meets the ground; `fitted_*`: over fitted tosses; `flight_scale`: the
scale from the flights of fitted tosses alone. `tosses.csv`: these by toss. `stiffness_profile.csv`: stiffness against loss,
with what the other numbers were then. `predictions.npz`, with sample 0 that of the first contact and NaN beyond a toss's end:

    toss, contact, samples, unfitted      (toss,): the file, its sample of first contact, samples from there on, not fitted
    time                                  [s] since first contact, (sample,)
    measured_position, predicted_position           [m] as measured, (toss, sample, 3)
    measured_orientation, predicted_orientation     x, y, z, w, (toss, sample, 4)
    start_position, start_velocity, start_orientation, start_angular_velocity     state one sample before contact, lengths as
        measured, angular velocity in the body's axes [m, m/s, rad/s], (toss, 3 or 4)
    scale, side, nominal_side             (), the last two in m
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dvc.atomic_file import write_file
from dvc.errors import UserError
from dvc.gradient_check import CheckRow, check_parameters
from dvc.losses import Objective, term
from dvc.optimize import Phase, check_phases, optimize
from dvc.parameter import Parameter
from dvc.parameter_vector import ParameterVector
from dvc.pipeline import Pipeline
from dvc.plots import plot_time
from dvc.result import Estimate, Metric, Result
from dvc.uncertainty import estimate, intervals
from experiments.cube_motion import CubeMotion, FlightMisfit, Flights, PoseMisfit, RestMisfit, flights_of
from experiments.cube_scores import Pose, Score, measured_pose, naive_pose, score
from experiments.loss_profile import loss_profile, widened
from experiments.toss_data import NOMINAL_HALF_WIDTH, SAMPLE_RATE, first_contact, flight_scale, read_tosses
from physics.robot import Robot

NAMES = ("friction", "stiffness", "exponent", "dissipation", "width", "scale", "side")  # of parameters, besides the robot's
MODEL = "model.json"  # what a prediction needs of a run
ALL_SAMPLES = 1_000_000
PLOTTED = 3
POSITION_BOUND, SCALE, SCALE_BOUND = 0.35, 0.978, 0.006


class CubeToss:
    """The job "fit a cube's contact from some tosses, predict others".

    Arguments:
        tosses: a folder of NUMBER.pt files, or `data:NAME`. unfitted: names of those that are not fitted; all others are.
        robot: one body on a free joint, with the parameter `side`; parameters: NAMES, and those of the robot.
        phases: see `dvc.optimize`; span: samples after first contact in the loss, where a phase's context has no other; the
        uncertainty and the certificate are those of this span, which the last phase should have.
        mode: "fit", or "predict": all tosses with the numbers of the run in the folder `fitted`.
        sigma [m], turn_sigma [rad], robust, weight: of poses, `weight` is the share of samples that count as independent;
        flight_sigma, rest_sigma [m]. stiffness_profile: values at which all else is fitted anew, see `loss_profile`.
        substeps: a sample.
    """

    def __init__(
        self,
        *,
        robot: Robot,
        parameters: Mapping[str, Parameter],
        phases: Sequence[Phase],
        tosses: str = "data:cube_toss",
        unfitted: Sequence[int | str] = (),
        mode: str = "fit",
        fitted: str | None = None,
        span: int = 45,
        sigma: float = 0.01,
        turn_sigma: float = 0.15,
        robust: float = 3.0,
        weight: float = 0.05,
        flight_sigma: float = 1e-4,
        rest_sigma: float = 3e-4,
        stiffness_profile: Sequence[float] = (),
        substeps: int = 16,
        worlds_at_once: int = 16,
        claim: str = "",
    ):
        positive = {"span": span, "sigma": sigma, "turn_sigma": turn_sigma, "flight_sigma": flight_sigma,
                    "rest_sigma": rest_sigma, "weight": weight, "substeps": substeps}  # fmt: skip
        for name, value in positive.items():
            if not value > 0:
                raise UserError(f"CubeToss.{name}: expected a positive number, got {value!r}")
        if mode not in ("fit", "predict"):
            raise UserError(f"mode: expected fit or predict, got {mode!r}")
        if (mode == "predict") != (fitted is not None):
            need = "fitted=RUN_DIR with mode=predict" if fitted is None else "no `fitted` with mode=fit"
            raise UserError(f"fitted: expected {need}, got {fitted!r}; remedy: mode=predict fitted=RUN_DIR tosses=DIR")
        for name in NAMES:
            if name not in parameters or "side" not in robot.parameters_by_name:
                raise UserError(
                    f"CubeToss: expected the parameters {', '.join(NAMES)}, and `side` in the robot's, got {name} not"
                )
        self.robot, self.parameters, self.phases, self.claim = robot, dict(parameters), list(phases), claim
        self.sigmas, self.worlds_at_once = (sigma, turn_sigma, flight_sigma, rest_sigma), int(worlds_at_once)
        self.context, self.stiffness_profile = {"span": int(span)}, [float(value) for value in stiffness_profile]
        self.model = None if fitted is None else read_model(fitted)
        self.substeps = int(substeps if self.model is None else self.model["substeps"])
        self.tosses = read_tosses(tosses)
        self.contacts = [first_contact(toss) for toss in self.tosses]
        names = [toss.name for toss in self.tosses]
        apart = set(names) if mode == "predict" else {str(name) for name in unfitted}
        if not apart <= set(names):
            raise UserError(
                f"unfitted: expected names of tosses, got {', '.join(sorted(apart - set(names)))} that are not there"
            )
        self.unfitted = [name in apart for name in names]
        if mode == "fit" and (not any(self.unfitted) or sum(self.unfitted) > len(names) - 3):
            raise UserError(f"unfitted: expected at least one toss, and 3 to fit, got {sum(self.unfitted)} of {len(names)}")
        self.chosen = [i for i, is_apart in enumerate(self.unfitted) if is_apart == (mode == "predict")]
        self.objective = Objective(
            {"pose": term("pose", robust=robust, weight=weight), "flight": term("flight", robust=robust), "rest": term("rest")}
        )
        self.flights = flights_of([self.tosses[i] for i in self.chosen], [self.contacts[i] for i in self.chosen])
        self.pipeline = self._pipeline(self.flights)
        self.vector = ParameterVector(self.pipeline)
        check_phases(self.phases, self.objective, self.vector)
        if self.model is not None:
            self._adopt(self.model["values"])

    def _pipeline(self, flights: Flights) -> Pipeline:
        sigma, turn_sigma, flight_sigma, rest_sigma = self.sigmas
        stages: dict[str, nn.Module] = {
            **self.parameters,
            "linkage": self.robot,
            "motion": CubeMotion(self.robot.topology, flights, self.substeps),
            "pose": PoseMisfit(flights, sigma, turn_sigma),
            "flight": FlightMisfit(flights, flight_sigma),
            "rest": RestMisfit(flights, rest_sigma),
        }
        wiring = {
            "linkage": {name: name for name in self.parameters if name in self.robot.parameters_by_name},
            "motion": {name: name for name in ("linkage", *NAMES)} | {"span": "$span"},
            "pose": {"motion": "motion"},
            "flight": {"scale": "scale"},
            "rest": {name: name for name in ("linkage", "stiffness", "exponent", "scale", "side")},
        }
        return Pipeline(stages, wiring)

    # -- run ----------------------------------------------------------------------------------------------------------
    def run(self, recorder: Any) -> Result:
        """Fit and measure the uncertainty, or take the numbers of a run; then predict."""
        estimates = self._fit(recorder) if self.model is None else self.model["estimates"]
        values = {n: p().detach().tolist() for n, p in self.parameters.items()}
        model = {"substeps": self.substeps, "values": values, "estimates": Result("", estimates).to_json()["parameters"]}
        write_file(recorder.directory / MODEL, json.dumps(model, indent=2) + "\n")
        return Result(self.claim, estimates, self._predict(recorder))

    def _fit(self, recorder: Any) -> dict[str, Estimate]:
        recorder.total(sum(p.steps for p in self.phases))

        def on_step(step: int, phase: str, x: Tensor, loss: Tensor) -> None:
            best = int(torch.argmin(loss))
            values = {n: v[0].tolist() for n, v in self.vector.values(x[best : best + 1].detach()).items()}
            recorder.step(step, float(loss[best]), phase, values)

        fit = optimize(
            self.pipeline, self.objective, self.phases, context=self.context, on_step=on_step,
            checkpoint=recorder.checkpoint, restored=recorder.restored, on_retire=recorder.note,
        )  # fmt: skip
        recorder.note("measuring the uncertainty")
        x, clusters = fit.x[0], torch.arange(len(self.chosen))  # every toss is a cluster
        unsure = estimate(self.pipeline, self.objective, x, clusters, context=self.context, worlds_at_once=self.worlds_at_once)
        found = {}
        for name, (value, low, high) in intervals(self.vector, x, unsure).items():
            weak = bool(unsure.weak[self.vector.slices[name]].any())
            found[name] = Estimate(value.tolist(), low.tolist(), high.tolist(), self.vector.parameters[name].unit, weak)
        if not self.stiffness_profile:
            return found
        recorder.note("holding the stiffness at other values")
        profile = loss_profile(self.pipeline, self.objective, x, "stiffness", self.stiffness_profile, self.context)
        columns = self.vector.values(profile.x)
        rows = [[float(loss), *(float(columns[n][k]) for n in columns)] for k, loss in enumerate(profile.loss)]
        recorder.save_table("stiffness_profile", ["loss", *columns], [[f"{value:.6g}" for value in row] for row in rows])
        return widened(found, self.vector, profile, float(fit.loss[0]), unsure.quantile)

    def _adopt(self, values: Mapping[str, list[float]]) -> None:
        """The numbers of a run in place of this one's."""
        if set(values) != set(self.parameters):
            raise UserError(f"fitted: expected a run with the parameters {', '.join(self.parameters)}, got {', '.join(values)}")
        self.pipeline.set_values({name: torch.tensor(value) for name, value in values.items()})

    def predicted(self, indices: Sequence[int]) -> list[Pose]:
        """Paths of tosses from first contact on, from their states before it."""
        flights = flights_of([self.tosses[i] for i in indices], [self.contacts[i] for i in indices])
        with torch.no_grad():
            pipeline = self._pipeline(flights).to(self.parameters["scale"].raw.device)
            paths = pipeline(["motion"], context={"span": ALL_SAMPLES})["motion"]
        position, orientation = (t[0].double().cpu().numpy() for t in paths)
        counts = [self.tosses[i].samples - self.contacts[i] for i in indices]
        return [Pose(p[:n], q[:n]) for p, q, n in zip(position, orientation, counts, strict=True)]

    def _predict(self, recorder: Any) -> dict[str, Metric]:
        everyone = range(len(self.tosses))
        scale, side, friction = (float(self.parameters[name]().detach()) for name in ("scale", "side", "friction"))
        paths = self.predicted(everyone)
        for toss, path in zip(self.tosses, paths, strict=True):
            if not (np.isfinite(path.position).all() and np.isfinite(path.orientation).all()):
                raise UserError(f"toss {toss.name}: its prediction is not finite; remedy: more substeps, or another fit")
        seen = [measured_pose(toss, contact) for toss, contact in zip(self.tosses, self.contacts, strict=True)]
        ours = [score(path, pose, scale, side) for path, pose in zip(paths, seen, strict=True)]
        nominal = 2.0 * NOMINAL_HALF_WIDTH
        naive = [
            score(naive_pose(toss, contact), pose, 1.0, nominal)
            for toss, contact, pose in zip(self.tosses, self.contacts, seen, strict=True)
        ]
        theirs = [score(pose, pose, scale, side) for pose in seen]
        self._save(recorder, paths, seen, ours, naive)

        def mean(scores: Sequence[Score], name: str, apart: bool = True) -> float:
            return float(np.mean([getattr(s, name) for s, u in zip(scores, self.unfitted, strict=True) if u == apart]))

        error, from_flight = mean(ours, "position"), flight_scale([self.tosses[i] for i in self.chosen])[0]
        metrics = {
            "position_error_sides": Metric(error, "", f"< {POSITION_BOUND}", error < POSITION_BOUND),
            "rotation_error_deg": Metric(mean(ours, "rotation"), "deg"),
            "penetration_mm": Metric(mean(ours, "penetration"), "mm"),
            "scale": Metric(scale, "", f"{SCALE} +- {SCALE_BOUND}", abs(scale - SCALE) <= SCALE_BOUND),
            "friction": Metric(friction),
            "side_m": Metric(side, "m"),
            "penetration_measured_mm": Metric(mean(theirs, "penetration"), "mm"),
            "naive_error_sides": Metric(mean(naive, "position")),
            "naive_rotation_error_deg": Metric(mean(naive, "rotation"), "deg"),
            "flight_scale": Metric(from_flight),
        }
        if not all(self.unfitted):
            metrics["fitted_position_error_sides"] = Metric(mean(ours, "position", False))
            metrics["fitted_rotation_error_deg"] = Metric(mean(ours, "rotation", False), "deg")
        return metrics

    def _save(
        self, recorder: Any, paths: Sequence[Pose], seen: Sequence[Pose], ours: Sequence[Score], naive: Sequence[Score]
    ) -> None:
        """The raw artefacts, and pictures of the best, the middle and the worst of the predictions."""
        header = ["toss", "fitted", "contact", "samples", "position_error_sides", "rotation_error_deg", "penetration_mm"]
        rows = [
            [toss.name, int(not apart), contact, len(path.position), *(f"{v:.6f}" for v in mine), f"{other.position:.6f}"]
            for toss, apart, contact, path, mine, other in zip(
                self.tosses, self.unfitted, self.contacts, paths, ours, naive, strict=True
            )
        ]
        recorder.save_table("tosses", [*header, "naive_error_sides"], rows)
        longest = max(len(path.position) for path in paths)

        def padded(parts: Sequence[np.ndarray]) -> np.ndarray:
            return np.stack([np.pad(p, ((0, longest - len(p)), (0, 0)), constant_values=np.nan) for p in parts])

        flights = flights_of(self.tosses, self.contacts)
        scale, side = (float(self.parameters[name]().detach()) for name in ("scale", "side"))
        time = np.arange(longest) / SAMPLE_RATE
        recorder.save_arrays(
            "predictions", toss=np.array([toss.name for toss in self.tosses]), contact=np.array(self.contacts),
            samples=np.array([len(path.position) for path in paths]), unfitted=np.array(self.unfitted), time=time,
            measured_position=padded([p.position for p in seen]), predicted_position=padded([p.position for p in paths]),
            measured_orientation=padded([p.orientation for p in seen]),
            predicted_orientation=padded([p.orientation for p in paths]),
            start_position=flights.position[:, 0] + scale * flights.position[:, 1],
            start_velocity=flights.velocity[:, 0] + scale * flights.velocity[:, 1],
            start_orientation=flights.orientation, start_angular_velocity=flights.rate,
            scale=scale, side=side, nominal_side=2.0 * NOMINAL_HALF_WIDTH,
        )  # fmt: skip
        order = sorted((i for i, apart in enumerate(self.unfitted) if apart), key=lambda i: ours[i].position)
        for i in {order[round(k)] for k in np.linspace(0, len(order) - 1, PLOTTED)}:
            name = f"toss_{self.tosses[i].name}.png"
            t = time[: len(paths[i].position)]
            plot_time(recorder.directory / name, t, paths[i].position, seen[i].position, label="x, y, z as measured [m]")

    def check(self) -> list[CheckRow]:
        """Certificate of the loss over `span` samples in every parameter."""
        return check_parameters(self.pipeline, self.objective, self.context, worlds_at_once=self.worlds_at_once)


def read_model(run_dir: str | Path) -> dict[str, Any]:
    """What a finished run wrote: substeps, values of all parameters and estimates, by these names.

    Raises: UserError where the folder is none of such a run, or its model.json is damaged.
    """
    path = Path(run_dir).expanduser() / MODEL
    if not path.is_file():
        got = "a folder without it" if path.parent.is_dir() else "no such folder"
        raise UserError(f"fitted: expected the folder of a finished run of cube_toss (with {MODEL}), {str(run_dir)!r} is {got}")
    try:
        model = json.loads(path.read_text(encoding="utf-8"))
        estimates = {name: Estimate(**entry) for name, entry in model["estimates"].items()}
        Result("", estimates)  # checks them
        values = {name: [float(v) for v in value] for name, value in model["values"].items()}
        return {"substeps": int(model["substeps"]), "values": values, "estimates": estimates}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:80]
        raise UserError(f"fitted: expected numbers of a run in {path}, got what cannot be read as such ({reason})") from error
