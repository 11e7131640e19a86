r"""A measured double pendulum with two motors: lengths, masses, inertias and friction from one run, another one predicted.

The rig hangs from its shoulder; q1 is the shoulder's angle from hanging straight down, q2 the elbow's. The torques that the
motors report drive the model. Many short windows of the fitted run are the worlds of one rollout (multiple shooting): each
begins with the smoothed measurement, sum over windows and samples of rho((q - q_measured) / sigma) is made small by Gauss and
Newton's method.

What such data determine are not the masses one by one. In a plane, with g known, they are (Khalil and Dombre, "Modeling,
identification and control of robots", 2002, base parameters)

    upper_moment   m1 r1 + m2 l1                   upper_total   I1 + m1 r1^2 + m2 l1^2 + J
    lower_moment   m2 r2                           lower_total   I2 + m2 r2^2
    l1, J (armature of the elbow), friction

with inertias about centres of mass. These are what is fitted, which keeps the descent well conditioned. Masses are known from
priors alone and marked weak; centres and inertias of the links follow from both (derived). The length beyond the elbow has no
influence on any angle and is not identified. J holds the coupling that a rotor at the elbow has with the shoulder, too:
-n I_r in M_12 is the same as n I_r less in lower_total and n I_r more in both J.

Command: `diffvc run experiment=double_pendulum_rig`. Metrics: `prediction_rms_rad`: both joints' angles over the first seconds
of the run that was not fitted, from its first measured state, with the torques as measured; `prediction_rms_authors_rad`: the
same with the model and the numbers of those who built the rig (`double_pendulum_authors`). `swing_*`: the same from just before
the motors are switched off. `trajectory.csv`, `swing.csv`: time, measured, ours, authors'; `rms_over_time.csv`: how errors
grow; `parameters.csv`: our numbers and the authors'.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.signal import savgol_filter
from torch import Tensor, nn

from dvc.data import resolve
from dvc.errors import UserError
from dvc.gradient_check import CheckRow, check_parameters
from dvc.losses import Objective, term
from dvc.optimize import Phase, check_phases, optimize
from dvc.parameter import Parameter
from dvc.parameter_vector import ParameterVector
from dvc.pipeline import Pipeline
from dvc.plots import plot_time
from dvc.records import State
from dvc.result import Estimate, Metric, Result
from dvc.uncertainty import derived_interval, estimate, intervals
from experiments.double_pendulum_authors import AuthorsModel, read_numbers
from physics.articulated_rollout import ArticulatedRollout
from physics.articulation import Linkage, Topology
from physics.robot import Robot

COLUMNS = ("time", "pos1", "pos2", "vel1", "vel2", "tau1", "tau2")
SMOOTHING = 11  # samples, of the cubic that gives the states at which windows begin
BEFORE_RELEASE = 0.1  # [s]
GROWTH = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0)  # [s]
CHUNK = 25  # frames a call of the step op
CHECKED = 4  # windows of the certificate


class RigRun(NamedTuple):
    """A measured run, evenly sampled."""

    time: np.ndarray  # [s], (sample,)
    angles: np.ndarray  # as measured [rad], (sample, 2)
    smooth: np.ndarray  # of a sliding cubic [rad], (sample, 2)
    rates: np.ndarray  # of the same cubic [rad/s], (sample, 2)
    torques: np.ndarray  # that the motors report [N m], (sample, 2)

    @property
    def frame_rate(self) -> float:
        return (len(self.time) - 1) / float(self.time[-1] - self.time[0])

    @property
    def release(self) -> int:
        """First sample of the torque that stays zero to the end; the last sample where there is none."""
        driven = np.nonzero(np.abs(self.torques).max(1) > 0.0)[0]
        return min(int(driven[-1]) + 1 if len(driven) else 0, len(self.time) - 1)


def read_run(path: Path | str) -> RigRun:
    """A CSV file with the columns time [s], pos1, pos2 [rad], vel1, vel2 [rad/s], tau1, tau2 [N m].

    Raises: UserError for missing columns, numbers that are not finite, fewer than 50 samples, uneven sampling.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        head, body = [name.strip() for name in rows[0]], np.array(rows[1:], dtype=np.float64)
        table = np.stack([body[:, head.index(name)] for name in COLUMNS], axis=1)
    except (OSError, ValueError, IndexError, UnicodeDecodeError) as error:
        raise UserError(f"run {str(path)!r}: expected a CSV with the columns {', '.join(COLUMNS)}, got {error}") from None
    if len(table) < 50 or not np.isfinite(table).all():
        raise UserError(f"run {str(path)!r}: expected at least 50 samples of finite numbers, got {len(table)} rows, or NaN")
    steps = np.diff(table[:, 0])
    if not steps.min() > 0.0 or steps.max() > 1.1 * steps.min():
        raise UserError(
            f"run {str(path)!r}: expected samples at even times, got steps from {steps.min():.4g} to {steps.max():.4g} s; "
            "remedy: interpolate to an even rate first"
        )
    angles, interval = table[:, 1:3], float(steps.mean())
    smooth = savgol_filter(angles, SMOOTHING, 3, axis=0)
    rates = savgol_filter(angles, SMOOTHING, 3, deriv=1, delta=interval, axis=0)
    return RigRun(table[:, 0] - table[0, 0], angles, smooth, rates, table[:, 5:7])


class Windows(NamedTuple):
    """Pieces of a run, each a world."""

    angles: Tensor  # at the beginning [rad], (window, 2)
    rates: Tensor  # likewise [rad/s], (window, 2)
    torques: Tensor  # held for a frame [N m], (window, frame, 2)
    observed: Tensor  # [rad], (window, frame + 1, 2)


def windows_of(run: RigRun, starts: Sequence[int], frames: int) -> Windows:
    """Windows of `frames` frames that begin at these samples."""

    def cut(values: np.ndarray, extra: int) -> Tensor:
        return torch.from_numpy(np.stack([values[s : s + frames + extra] for s in starts])).float()

    first = list(starts)
    angles, rates = (torch.from_numpy(values[first]).float() for values in (run.smooth, run.rates))
    return Windows(angles, rates, cut(run.torques, 0), cut(run.angles, 1))


class RigMotion(nn.Module):
    """Every window moved by every candidate's linkage.

    Arguments: tree; windows; frame_rate [1/s]; substeps.
    Forward: linkage of worlds (candidates of the parameters) -> angles [rad], (world, window, frame + 1, 2).
    Gradient: complete, to the linkage.
    """

    angles: Tensor
    rates: Tensor
    torques: Tensor

    def __init__(self, tree: Topology, windows: Windows, frame_rate: float, substeps: int):
        super().__init__()
        for name, tensor in windows._asdict().items():
            self.register_buffer(name, tensor, persistent=False)
        frames = windows.torques.shape[1]
        chunk = min(CHUNK, frames)
        self.rollout = ArticulatedRollout(tree, frame_rate=frame_rate, frame_count=frames, substeps=substeps, chunk=chunk)

    def forward(self, linkage: Linkage) -> Tensor:
        worlds, count = max(t.shape[0] for t in linkage), self.angles.shape[0]
        if worlds > 1:
            linkage = Linkage(*(t if t.shape[0] == 1 else t.repeat_interleave(count, dim=0) for t in linkage))
        start = State(self.angles.repeat(worlds, 1), self.rates.repeat(worlds, 1))
        path = self.rollout(start, linkage, controls=self.torques.repeat(worlds, 1, 1))
        return path.coordinates.unflatten(0, (worlds, count))


class AngleMisfit(nn.Module):
    """(model - measured) / sigma at every `every`-th sample after the first, (world, window, sample, 2)."""

    observed: Tensor

    def __init__(self, observed: Tensor, every: int, sigma: float):
        super().__init__()
        self.register_buffer("observed", observed, persistent=False)
        self.every, self.sigma = int(every), float(sigma)

    def forward(self, angles: Tensor) -> Tensor:
        return (angles - self.observed)[:, :, self.every :: self.every] / self.sigma


class LinkNumbers(NamedTuple):
    """What follows from base numbers and masses, (world,)."""

    upper_center: Tensor  # distance of the centre of mass from the joint [m]
    lower_center: Tensor
    upper_inertia: Tensor  # about it [kg m^2]
    lower_inertia: Tensor


class LinkParameters(nn.Module):
    """Centres and inertias of both links, from their Linkage."""

    def forward(self, linkage: Linkage) -> LinkNumbers:
        down, turning = -linkage.center_of_mass[..., 2], linkage.inertia[..., 1, 1]
        return LinkNumbers(down[:, 0], down[:, 1], turning[:, 0], turning[:, 1])


DERIVED_UNITS = {"upper_center": "m", "lower_center": "m", "upper_inertia": "kg m^2", "lower_inertia": "kg m^2"}


def rms(difference: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(difference))))


class DoublePendulumRig:
    """The job "identify the rig from one run, predict another".

    Arguments:
        fitted, unfitted: paths of runs, or `data:NAME`. authors: YAML with the numbers of `AuthorsModel`, or null.
        robot: with two revolute joints and two torque actuators, shoulder and upper first; parameters: of the robot.
        window, stride [s]: length of a window, and between their beginnings; every: samples between residuals;
        sigma [rad], robust: scale of the residuals and of the penalty. phases: see `dvc.optimize`. horizon [s]: predicted.
    """

    def __init__(
        self,
        *,
        fitted: str,
        unfitted: str,
        robot: Robot,
        parameters: Mapping[str, Parameter],
        phases: Sequence[Phase],
        authors: str | None = None,
        window: float = 0.4,
        stride: float = 0.2,
        every: int = 10,
        sigma: float = 0.01,
        robust: float = 3.0,
        substeps: int = 4,
        horizon: float = 2.0,
        worlds_at_once: int = 16,
        claim: str = "",
    ):
        for name, value in {"window": window, "stride": stride, "every": every, "sigma": sigma, "horizon": horizon}.items():
            if not value > 0:
                raise UserError(f"DoublePendulumRig.{name}: expected a positive number, got {value!r}")
        self.fitted, self.unfitted, self.claim = read_run(resolve(fitted)), read_run(resolve(unfitted)), claim
        self.robot, self.phases, self.horizon, self.substeps = robot, list(phases), float(horizon), int(substeps)
        self.worlds_at_once, self.every, self.sigma = int(worlds_at_once), int(every), float(sigma)
        self.authors = None if authors is None else AuthorsModel(read_numbers(resolve(authors)))
        tree = robot.topology
        if (tree.coordinate_count, tree.actuator_links) != (2, (0, 1)):
            raise UserError(
                "DoublePendulumRig.robot: expected two joints of one degree of freedom, each with a torque actuator"
            )
        rate = self.fitted.frame_rate
        frames, step, last = round(window * rate), max(1, round(stride * rate)), len(self.fitted.time) - 1
        starts = range(0, last - frames + 1, step)
        if len(starts) < 3 or frames < every:
            raise UserError(
                f"DoublePendulumRig.window: expected 3 or more windows of {every} or more samples in {last / rate:.3g} s, got "
                f"{len(starts)} of {frames}"
            )
        self.windows = windows_of(self.fitted, starts, frames)
        self.parameters = dict(parameters)
        self.objective = Objective({"angles": term("misfit", robust=robust)})
        self.pipeline = self._pipeline(self.windows)
        self.vector = ParameterVector(self.pipeline)
        check_phases(self.phases, self.objective, self.vector)

    def _pipeline(self, windows: Windows) -> Pipeline:
        stages: dict[str, nn.Module] = {
            **self.parameters,
            "linkage": self.robot,
            "links": LinkParameters(),
            "motion": RigMotion(self.robot.topology, windows, self.fitted.frame_rate, self.substeps),
            "misfit": AngleMisfit(windows.observed, self.every, self.sigma),
        }
        wiring = {
            "linkage": {name: name for name in self.parameters},
            "links": {"linkage": "linkage"},
            "motion": {"linkage": "linkage"},
            "misfit": {"angles": "motion"},
        }
        return Pipeline(stages, wiring)

    def predicted(self, run: RigRun, first: int, frames: int) -> np.ndarray:
        """Angles (frame + 1, 2) from the smoothed measurement at a sample, with the torques as measured."""
        motion = RigMotion(self.robot.topology, windows_of(run, [first], frames), run.frame_rate, self.substeps)
        with torch.no_grad():
            return motion(self.pipeline(["linkage"])["linkage"])[0, 0].double().numpy()

    def authors_predicted(self, run: RigRun, first: int, frames: int) -> np.ndarray | None:
        """The same with the authors' model."""
        if self.authors is None:
            return None
        torques = run.torques[first : first + frames]
        return self.authors.path(run.smooth[first], run.rates[first], torques, 1.0 / run.frame_rate)

    def run(self, recorder: Any) -> Result:
        """Fit, measure the uncertainty, predict."""
        recorder.total(sum(p.steps for p in self.phases))

        def on_step(step: int, phase: str, x: Tensor, loss: Tensor) -> None:
            best = int(torch.argmin(loss))
            values = {n: v[0].tolist() for n, v in self.vector.values(x[best : best + 1].detach()).items()}
            recorder.step(step, float(loss[best]), phase, values)

        fit = optimize(
            self.pipeline, self.objective, self.phases, on_step=on_step, checkpoint=recorder.checkpoint,
            restored=recorder.restored, on_retire=recorder.note,
        )  # fmt: skip
        recorder.note("measuring the uncertainty")
        estimates = self.estimates(fit.x[0])
        with torch.no_grad():
            left = self.pipeline(["misfit"])["misfit"].double().numpy() * self.sigma
        metrics = {"fitted_windows_rms_rad": Metric(rms(left), "rad")}
        growth: list[list[Any]] = []
        run, release = self.unfitted, self.unfitted.release
        early = max(0, release - round(BEFORE_RELEASE * run.frame_rate))
        metrics |= self._compare(recorder, "", "trajectory", 0, growth)
        if 0 < early < len(run.time) - 2:
            metrics |= self._compare(recorder, "swing_", "swing", early, growth)
        recorder.save_table("rms_over_time", ["start_s", "span_s", "ours_rms_rad", "authors_rms_rad"], growth)
        if self.authors is not None:
            theirs = self.authors.base()
            rows = [[n, e.value, e.low, e.high, e.unit, theirs[n]] for n, e in estimates.items() if n in theirs]
            recorder.save_table("parameters", ["name", "value", "low", "high", "unit", "authors"], rows)
        return Result(self.claim, estimates, metrics)

    def _compare(self, recorder: Any, prefix: str, name: str, first: int, growth: list) -> dict[str, Metric]:
        run = self.unfitted
        frames = len(run.time) - 1 - first
        counted = min(frames, round(self.horizon * run.frame_rate))
        frames = min(frames, max(counted, round(GROWTH[-1] * run.frame_rate)))
        measured, time = run.angles[first : first + frames + 1], run.time[first : first + frames + 1]
        ours, theirs = self.predicted(run, first, frames), self.authors_predicted(run, first, frames)
        for span in GROWTH:
            k = round(span * run.frame_rate)
            if k <= frames:
                other = "" if theirs is None else rms((theirs - measured)[1 : k + 1])
                growth.append([f"{time[0]:.3f}", span, rms((ours - measured)[1 : k + 1]), other])
        header = ["time", "measured_1", "measured_2", "ours_1", "ours_2"] + (
            [] if theirs is None else ["authors_1", "authors_2"]
        )
        columns = np.column_stack([time, measured, ours] + ([] if theirs is None else [theirs]))
        recorder.save_table(name, header, [[f"{value:.6f}" for value in row] for row in columns])
        plot_time(recorder.directory / f"{name}_ours.png", time, ours, measured)
        mine = rms((ours - measured)[1 : counted + 1])
        if theirs is None:
            return {f"{prefix}prediction_rms_rad": Metric(mine, "rad")}
        plot_time(recorder.directory / f"{name}_authors.png", time, theirs, measured)
        other = rms((theirs - measured)[1 : counted + 1])
        return {
            f"{prefix}prediction_rms_rad": Metric(mine, "rad", f"< {other:.4g}, the authors'", mine < other),
            f"{prefix}prediction_rms_authors_rad": Metric(other, "rad"),
        }

    def estimates(self, x: Tensor) -> dict[str, Estimate]:
        """Fitted and derived numbers with their intervals: windows are the clusters."""
        count, context = self.windows.angles.shape[0], {"seed": 0}
        unsure = estimate(
            self.pipeline, self.objective, x, torch.arange(count), context=context, worlds_at_once=self.worlds_at_once
        )
        found = {}
        for name, (value, low, high) in intervals(self.vector, x, unsure).items():
            weak = bool(unsure.weak[self.vector.slices[name]].any())
            found[name] = Estimate(value.tolist(), low.tolist(), high.tolist(), self.vector.parameters[name].unit, weak)
        outputs = [f"links.{name}" for name in DERIVED_UNITS]
        halves = derived_interval(self.pipeline, self.vector, x, unsure, outputs, context, self.worlds_at_once)
        for name, unit in DERIVED_UNITS.items():
            value, half, weakly = halves[f"links.{name}"]
            low, high = value - half, value + half
            found[name] = Estimate(value.tolist(), low.tolist(), high.tolist(), unit, bool(weakly.any()))
        return found

    def check(self) -> list[CheckRow]:
        """Certificate of the loss of a few windows in every parameter."""
        few = torch.linspace(0, self.windows.angles.shape[0] - 1, CHECKED).round().long()
        pipeline = self._pipeline(Windows(*(t[few] for t in self.windows)))
        return check_parameters(pipeline, self.objective, {"seed": 0}, worlds_at_once=self.worlds_at_once)
