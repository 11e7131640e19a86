r"""A thrown cube from its video: friction, dissipation, side and the twist it was thrown with, through physics and pixels.

The clip is ray traced from the poses of one toss as they were measured (or of a simulated toss, where there is no data): a
blotched cube over a blotched board, its shadow, motion blur over most of each frame, noise. One graph leads to the loss:

    twist, side, friction, dissipation -> contact (`ContactRollout`) -> poses at three nodes a frame -> ray tracer -> pixels

and the gradient comes back all the way, over silhouettes, shadow and texture, through the bounces. Steps are those of
`picture_newton`: the renderer's derivative images along the motion's derivatives. Resolution and horizon grow from phase to
phase. The same unknowns from the same wrong start are also fitted to the measured poses (`dvc.optimize`). The pose at
the first frame, the stiffness (known from below only, see `cube_toss`) and the length scale are given.

Command: `diffvc run experiment=toss_video`. Metrics, each with that of the fit from poses, `*_from_poses`, beside it:
`friction`, `dissipation`, `side_m`; `velocity_error_m_s`, `spin_error_rad_s`: of the twist, from that of the measured flight;
`position_rms_mm`, `rotation_rms_deg`: of the path found, from the measured one; `start_*`: of the first guess. For a
simulated toss also `error/NAME`, the difference from the true number. Artefacts: `clip.mp4`,
`overlay.mp4` (clip | found | difference), `frames.png` (clip | first guess | found), `paths.npz` (time, measured, found
and from_poses: position [m] and orientation).
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from dvc.data import DataUnavailable
from dvc.descent import Problem
from dvc.errors import UserError
from dvc.gradient_check import CheckRow
from dvc.jvp import evaluator, jvp_of
from dvc.losses import Objective, term
from dvc.optimize import Phase, check_phases, optimize
from dvc.parameter import Parameter
from dvc.parameter_vector import ParameterVector
from dvc.pipeline import Pipeline
from dvc.records import Film
from dvc.result import Estimate, Metric, Result
from dvc.uncertainty import intervals
from dvc.video_fit import overlay
from experiments.cube_motion import CubePaths, PoseMisfit, flights_of
from experiments.photographs import PhotographMisfit, picture_rows
from experiments.picture_newton import active_numbers, check_newton, descend, rendered_uncertainty
from experiments.rendered_check import check_rendered
from experiments.toss_data import SAMPLE_RATE, Toss, first_contact, flight_state, read_tosses
from experiments.toss_pictures import SAMPLES_A_FRAME, ThrownCube, TossClip
from physics.robot import Robot
from render.camera import LookAtCamera

NAMES = ("friction", "stiffness", "exponent", "dissipation", "width", "scale", "side")  # of parameters, besides the robot's
SHOWN = ("friction", "dissipation", "side")
DIFFERENCE = 1e-3  # of the motion's derivatives, in unbounded numbers
SIMULATED_FRAMES = 40
THROWN = {
    "position": [0.0, 0.0, 0.16],
    "orientation": [0.32, 0.21, 0.1, 0.92],
    "velocity": [0.5, 0.3, 0.1],
    "spin": [3.0, -2.0, 1.0],
}


class Product(nn.Module):
    """one (world,), other (world,) -> their product."""

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        return one * other


class TossVideo:
    """The job "what cube was this, and how was it thrown".

    Arguments:
        tosses, toss: a folder of NUMBER.pt files, or `data:NAME`, and the number of one; where there is no such data a toss is
            simulated with `truth`, values of parameters. truth["side"] is that of the rendered cube in any case.
        robot, parameters: as in `CubeToss`. start_off: how far the first guess of velocity [m/s] and spin [rad/s] is off.
        level: resolution of the uncertainty and of the pictures that are saved, 1 / 2^level.
        phases: of the fit from pixels; context: level (resolution 1 / 2^level) and horizon (frames of 1/74 s); pose_phases: of
            that from poses.
        lead: samples before the first contact at which the clip begins; frames: of the clip.
        width, height [px]; exposure: fraction of a frame; samples, clip_samples: paths a pixel; noise, sigma: of a pixel.
    """

    def __init__(
        self,
        *,
        robot: Robot,
        parameters: Mapping[str, Parameter],
        phases: Sequence[Phase],
        pose_phases: Sequence[Phase],
        truth: Mapping[str, float],
        start_off: Mapping[str, Sequence[float]],
        tosses: str | None = "data:cube_toss",
        toss: int | str = 0,
        lead: int = 7,
        frames: int = 14,
        width: int = 96,
        height: int = 72,
        exposure: float = 0.8,
        samples: int = 8,
        clip_samples: int = 64,
        noise: float = 0.02,
        sigma: float = 0.025,
        substeps: int = 16,
        level: int = 0,
        seed: int = 0,
        claim: str = "",
    ):
        for name in NAMES:
            if name not in parameters:
                raise UserError(f"TossVideo.parameters: expected {', '.join(NAMES)}, got {', '.join(parameters)}")
        self.robot, self.phases, self.pose_phases, self.claim, self.seed = (
            robot,
            list(phases),
            list(pose_phases),
            claim,
            int(seed),
        )
        self.truth, self.noise, self.clip_samples = {n: float(v) for n, v in truth.items()}, float(noise), int(clip_samples)
        self.substeps, self.frames = int(substeps), int(frames)
        self.parameters = dict(parameters)
        self.why_simulated = ""
        try:
            if tosses is None:
                raise DataUnavailable("no tosses were asked for")
            self.toss = read_tosses(tosses, [toss])[0]
        except DataUnavailable as error:
            self.why_simulated = str(error).splitlines()[0]
            self.toss = self._simulated()
        contact = first_contact(self.toss)
        begin = contact - int(lead)
        if begin < 3 or begin + SAMPLES_A_FRAME * self.frames >= self.toss.samples:
            raise UserError(
                f"TossVideo: expected a clip within toss {self.toss.name}, got samples {begin} to "
                f"{begin + SAMPLES_A_FRAME * self.frames} of {self.toss.samples}; remedy: another toss, lead or frames"
            )
        self.begin = begin
        scale = float(self.parameters["scale"]().detach())
        flight = flight_state(self.toss, scale, contact, begin)
        self.flight = {"velocity": flight.velocity / scale, "spin": flight.angular_velocity}
        for name, size, unit in (("velocity", 0.2, "m/s"), ("spin", 2.0, "rad/s")):
            start = (self.flight[name] + np.asarray(start_off[name], float)).tolist()
            self.parameters[name] = Parameter(start, scale=size, unit=unit)
        place, turn = (torch.from_numpy(np.asarray(v)).float()[None] for v in (flight.position, flight.orientation))
        self.motion = ThrownCube(robot.topology, place, turn, substeps)
        self.measured = self._measured_paths()
        self.picture = self._clip(width, height, exposure, samples)
        self.misfit = PhotographMisfit(sigma, 1)
        seen = flights_of([self.toss], [begin])
        stages: dict[str, nn.Module] = {
            **self.parameters, "linkage": robot, "size": Product(), "motion": self.motion, "picture": self.picture,
            "pixels": self.misfit, "poses": PoseMisfit(seen, 0.002, 0.02),
        }  # fmt: skip
        wiring = {
            "linkage": {name: name for name in self.parameters if name in robot.parameters_by_name},
            "size": {"one": "side", "other": "scale"},
            "motion": {name: name for name in ("linkage", *NAMES, "velocity", "spin")} | {"horizon": "$horizon"},
            "picture": {"paths": "motion", "size": "size", "level": "$level", "seed": "$seed"},
            "pixels": {"images": "picture", "level": "$level"},
            "poses": {"motion": "motion"},
        }
        self.pipeline = Pipeline(stages, wiring)
        self.objective, self.pose_objective = (
            Objective({"pixels": term("pixels")}),
            Objective({"poses": term("poses", robust=3.0)}),
        )
        self.vector = ParameterVector(self.pipeline)
        self.context = {"level": int(level), "seed": self.seed, "horizon": self.frames}
        check_phases(self.phases, self.objective, self.vector)
        check_newton(self.phases)
        check_phases(self.pose_phases, self.pose_objective, self.vector)

    def _simulated(self) -> Toss:
        """A toss with the true numbers, sampled as measured ones are."""
        values = {n: torch.tensor([self.truth.get(n, float(p().detach()))]) for n, p in self.parameters.items()}
        start = {name: torch.tensor([value]) for name, value in THROWN.items()}
        turn = start["orientation"] / start["orientation"].norm()
        thrown = ThrownCube(self.robot.topology, start["position"], turn, self.substeps)
        linkage = self.robot(**{n: v for n, v in values.items() if n in self.robot.parameters_by_name})
        numbers = {name: values[name] for name in NAMES}
        with torch.no_grad():
            path = thrown(linkage, **numbers, velocity=start["velocity"], spin=start["spin"], horizon=SIMULATED_FRAMES)
        p, q = (t[0, 0].double().numpy() for t in path)
        turns = Rotation.from_quat(q)
        rate = np.vstack([(turns[:-1].inv() * turns[1:]).as_rotvec() * SAMPLE_RATE, np.zeros(3)])
        return Toss("simulated", p, q, np.diff(p, axis=0, prepend=p[:1]) * SAMPLE_RATE, rate)

    def _measured_paths(self) -> CubePaths:
        window = slice(self.begin, self.begin + SAMPLES_A_FRAME * self.frames + 1)
        p, q = (
            torch.from_numpy(np.asarray(t[window])).float()[None, None] for t in (self.toss.position, self.toss.orientation)
        )
        return CubePaths(p, q)

    def _clip(self, width: int, height: int, exposure: float, samples: int) -> TossClip:
        middle = self.measured.position[0, 0].mean(0)
        target = torch.stack([middle[0], middle[1], 0.6 * middle[2]])[None]
        place = target + torch.tensor([[0.25, -0.62, 0.42]])
        camera = LookAtCamera(width, height)(place, target, fov=torch.tensor([0.62]))
        film = Film(width, height, 0.0, 0.0, width, height, 1.0)
        return TossClip(camera, film, (float(middle[0]), float(middle[1])), exposure, samples)

    def prepare(self) -> Tensor:
        """Render the clip from the measured poses: (frame, row, column, 3)."""
        generator = torch.Generator().manual_seed(1000 + self.seed)
        size = torch.tensor([self.truth["side"]]) * self.parameters["scale"]().detach()
        with torch.no_grad():
            clean = self.picture.at(self.clip_samples)(self.measured, size, 0, 1_000_003 + self.seed)[0]
        clip = clean + self.noise * torch.randn(clean.shape, generator=generator)
        self.misfit.observe(clip)
        return clip

    # -- run ----------------------------------------------------------------------------------------------------------
    def run(self, recorder: Any) -> Result:
        """Render, fit to poses, fit to pixels from the same start, measure the uncertainty, compare."""
        if self.why_simulated:
            recorder.note(f"NO TOSS: {self.why_simulated}")
            recorder.note("Simulating one with known numbers instead; what follows recovers THOSE.")
        self.prepare()
        start = self.vector.gather()
        first = self._look()
        recorder.total(sum(p.steps for p in (*self.phases, *self.pose_phases)))
        done = 0

        def step(phase: Phase, x: Tensor, loss: float) -> None:
            nonlocal done
            done += 1
            values = {n: v[0].tolist() for n, v in self.vector.values(x.reshape(1, -1)).items()}
            recorder.step(done, loss, phase.name, values)

        named = {phase.name: phase for phase in self.pose_phases}
        from_poses = optimize(
            self.pipeline, self.pose_objective, self.pose_phases, starts=start, context=self.context,
            on_step=lambda _, phase, x, loss: step(named[phase], x[0].detach(), float(loss[0])),
        ).x[0]  # fmt: skip
        x = start[0]
        for index, phase in enumerate(self.phases):
            context, active = {**self.context, **phase.context}, active_numbers(self.vector, phase)
            problem_at, columns = partial(self._problem, context), partial(self.columns, context, active)
            x, _ = descend(
                problem_at, columns, x, active, phase.steps, 100_000 * (index + 1) + self.seed, partial(step, phase)
            )  # fmt: skip
        self.vector.scatter(x[None])
        recorder.note("measuring the uncertainty")
        every = torch.ones(self.vector.size)
        problem_at, columns = partial(self._problem, self.context), partial(self.columns, self.context, every)
        unsure = rendered_uncertainty(problem_at, "pixels", columns, x, (11 + self.seed, 1211 + self.seed))
        found = {}
        for name, (value, low, high) in intervals(self.vector, x, unsure).items():
            weak = bool(unsure.weak[self.vector.slices[name]].any())
            found[name] = Estimate(value.tolist(), low.tolist(), high.tolist(), self.vector.parameters[name].unit, weak)
        metrics = {}
        for name, point, suffix in ((("found"), x, ""), ("poses", from_poses, "_from_poses"), ("start", start[0], "")):
            for metric, (number, unit) in self.scores(point).items():
                metrics[f"start_{metric}" if name == "start" else metric + suffix] = Metric(number, unit)
        if self.why_simulated:
            for name in SHOWN:
                off = float(self.vector.values(x[None])[name]) - self.truth[name]
                metrics[f"error/{name}"] = Metric(off, self.parameters[name].unit)
        self._save(recorder, first, x, from_poses)
        return Result(self.claim, found, metrics)

    def scores(self, x: Tensor) -> dict[str, tuple[float, str]]:
        """Metrics of the unbounded numbers x (size,): name -> (value, unit)."""
        values = {name: value[0].double().numpy() for name, value in self.vector.values(x[None]).items()}
        path = self._path(x)
        p, q = (t[0, 0].double().numpy() for t in path)
        seen_p, seen_q = (t[0, 0].double().numpy() for t in self.measured)
        turn = (Rotation.from_quat(q).inv() * Rotation.from_quat(seen_q)).magnitude()
        return {
            "friction": (float(values["friction"]), "1"),
            "dissipation": (float(values["dissipation"]), "s/m"),
            "side_m": (float(values["side"]), "m"),
            "velocity_error_m_s": (float(np.linalg.norm(values["velocity"] - self.flight["velocity"])), "m/s"),
            "spin_error_rad_s": (float(np.linalg.norm(values["spin"] - self.flight["spin"])), "rad/s"),
            "position_rms_mm": (1e3 * float(np.sqrt(((p - seen_p) ** 2).sum(1).mean())), "mm"),
            "rotation_rms_deg": (float(np.degrees(np.sqrt((turn**2).mean()))), "deg"),
        }

    def _path(self, x: Tensor) -> CubePaths:
        with torch.no_grad():
            path: CubePaths = self.pipeline(["motion"], context=self.context, raw=self.vector.split(x[None]))["motion"]
        return path

    def _look(self) -> Tensor:
        with torch.no_grad():
            return self.pipeline(["picture"], context=self.context)["picture"][0]

    def _problem(self, context: Mapping[str, Any], seed: int) -> Problem:
        return Problem(self.pipeline, self.objective, self.vector, {**context, "seed": seed})

    def columns(self, context: Mapping[str, Any], active: Tensor, x: Tensor, seed: int) -> Tensor:
        """Derivatives of the pixels' residuals by each unbounded number, (size, frame, value): the motion's by differences, the
        renderer's along them by forward mode; zero where not active."""
        outputs = ["motion.position", "motion.orientation", "size"]
        evaluate = evaluator(self.pipeline, self.vector, outputs, context)
        base = evaluate(x[None])
        moving = torch.nonzero(active)[:, 0]
        steps = torch.full((len(moving),), DIFFERENCE)
        along = jvp_of(evaluate, x, torch.eye(self.vector.size)[moving], steps)
        value = torch.cat([base[name].flatten() for name in outputs])
        directions = torch.cat([along[name].reshape(len(moving), -1) for name in outputs], dim=1)
        samples = base["motion.position"].shape[2]

        def given(v: Tensor) -> tuple[CubePaths, Tensor]:
            p, q, size = v.split([3 * samples, 4 * samples, 1])
            return CubePaths(p.reshape(1, 1, samples, 3), q.reshape(1, 1, samples, 4)), size

        level = context["level"]
        rows = [
            self.misfit.change(self.picture.derivative(given, value, direction, level, seed), level)[0]
            for direction in directions
        ]
        columns = torch.zeros(self.vector.size, *rows[0].shape)
        columns[moving] = torch.stack(rows)
        return columns

    def _save(self, recorder: Any, first: Tensor, x: Tensor, from_poses: Tensor) -> None:
        last, clip = self._look(), self.misfit.observed[self.context["level"]]
        rate = SAMPLE_RATE / SAMPLES_A_FRAME / 10  # shown ten times slower
        whole = (self.misfit.observed[0].clamp(0.0, 1.0) * 255.0 + 0.5).to(torch.uint8)
        shown = whole.repeat_interleave(4, 1).repeat_interleave(4, 2)
        recorder.save_video("clip", shown.numpy(), rate)
        recorder.save_video("overlay", overlay(clip.clamp(0.0, 1.0), last.clamp(0.0, 1.0)), rate)
        chosen = torch.linspace(0, len(clip) - 1, 5).round().long()
        recorder.save_image(
            "frames", picture_rows([images[chosen] for images in (clip, first, last)], 2 * 2 ** self.context["level"])
        )
        arrays = {"measured": self.measured, "found": self._path(x), "from_poses": self._path(from_poses)}
        parts = {f"{name}_{field}": getattr(path, field)[0, 0] for name, path in arrays.items() for field in path._fields}
        time = np.arange(SAMPLES_A_FRAME * self.frames + 1) / SAMPLE_RATE
        recorder.save_arrays("paths", time=time, toss=np.array(self.toss.name), begin=self.begin, **parts)

    def check(self) -> list[CheckRow]:
        """Certificate of the pixels at the first guess, see `rendered_check`; in the second phase's resolution and horizon, by
        which the cube has struck the table."""
        self.prepare()
        context = {**self.context, **self.phases[min(1, len(self.phases) - 1)].context}
        return check_rendered(self.pipeline, "pixels", context)
