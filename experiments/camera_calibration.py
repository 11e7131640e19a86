r"""A camera from a few noisy photographs of a known object: pose of each, focal length, and the distortion of the lens.

The object is a board with a box and a polyhedron on it, all of known shape, colour and light; the photographs are rendered at
known numbers, in several times as many samples, with noise of their own and of the sensor. All photographs share one lens,

    pixel = center + f d(n),   n = (x / z, y / z) in the camera's axes,   d of `render.distortion` (k1, k2, p1, p2, k3),

and each has its own position and angles. The loss is the sum of squares of pixels (rendered - photographed) / sigma at a
resolution that grows from phase to phase. Its gradient is that of the path tracer: through textures and shading inside of
surfaces, through silhouettes, creases and shadows at their edges. What the photographs do not determine (k3, say) has a prior,
and its estimate is marked weak. Command: `diffvc run experiment=camera_calibration`.

Metrics: `focal_error_rel`; `position_error_m`, `rotation_error_deg`: the worst photograph's; `distortion_error_px`: the
largest f |d_found(n) - d_true(n)| over the film; `reprojection_rms_px`: of the object's corners and of points on its
board, over all photographs; `start_*`: the same of the first guess; `inside_intervals`: share of the numbers whose
95 % interval holds the true one. Artefacts: `photographs.npz` (images, noise, the true numbers), `photographs.png`
(photographed, first guess, found, from above), `difference.png` (twice first guess - photographed, twice found - photographed).
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dvc.descent import Problem
from dvc.errors import UserError
from dvc.gradient_check import CheckRow
from dvc.losses import Objective, term
from dvc.optimize import Phase, check_phases
from dvc.parameter import Parameter
from dvc.parameter_vector import ParameterVector
from dvc.pipeline import Pipeline
from dvc.records import Camera, Film, Mesh
from dvc.result import Estimate, Metric, Result
from dvc.uncertainty import intervals
from experiments.known_objects import blotches, board, box
from experiments.photographs import PhotographMisfit, RenderedPhotographs, picture_rows
from experiments.picture_newton import active_numbers, check_newton, descend, rendered_uncertainty
from experiments.rendered_check import check_rendered
from geometry.mesh import icosphere
from render.camera import PinholeCamera, project
from render.distortion import distort_points
from render.scene import Body, Material, PointLight, Scene, Texture

NAMES = ("focal", "distortion", "position", "angles")
POLYHEDRON = (0.07, -0.07, 0.05)  # where its middle is [m]


def known_scene(seed: int = 3) -> tuple[Scene, Tensor]:
    """The object under a lamp, and points of it (point, 3) for the reprojection error [m]."""
    ground, ground_uv = board(0.32, 0.26)
    block, block_uv = box((0.05, 0.04, 0.06), (-0.06, 0.03, 0.06))
    vertices, faces = icosphere(0)
    ball = torch.from_numpy(np.asarray(vertices)).float() * 0.05 + torch.tensor(POLYHEDRON)
    generator = torch.Generator().manual_seed(seed)
    colours = 0.15 + 0.8 * torch.rand(1, len(ball), 3, generator=generator)
    bodies = [
        Body(ground, "ground", ground_uv),
        Body(block, "block", block_uv),
        Body(Mesh(ball[None], torch.from_numpy(np.asarray(faces)).to(torch.int32)), "plain", vertex_albedo=colours),
    ]
    materials = {
        "ground": Material((1.0, 1.0, 1.0), albedo_texture=Texture(blotches(32, seed, 4), "clamp")),
        "block": Material((1.0, 1.0, 1.0), albedo_texture=Texture(blotches(16, seed + 1), "clamp")),
        "plain": Material((1.0, 1.0, 1.0)),
    }
    lamps = [PointLight(torch.tensor([[0.15, -0.5, 0.9]]), torch.tensor([[3.6, 3.6, 3.6]]))]
    x, y = torch.meshgrid(torch.linspace(-0.2, 0.2, 9), torch.linspace(-0.15, 0.15, 7), indexing="ij")
    grid = torch.stack([x, y, torch.zeros_like(x)], dim=-1).reshape(-1, 3)
    return Scene(bodies, materials, lamps), torch.cat([block.vertices[0], ball, grid])


class PhotographCameras(nn.Module):
    """One lens, many places: focal [px] (world,), distortion (world, 5), position [m] and angles (pitch, roll, yaw) [rad]
    (world, photograph, 3) -> Camera, one row a photograph, world by world."""

    def __init__(self, width: int, height: int):
        super().__init__()
        self.pinhole = PinholeCamera((0.5 * width, 0.5 * height))

    def forward(self, focal: Tensor, distortion: Tensor, position: Tensor, angles: Tensor) -> Camera:
        count = position.shape[1]
        worlds = max(len(t) for t in (focal, distortion, position, angles))
        place, turn = (t.expand(worlds, -1, -1).flatten(0, 1) for t in (position, angles))
        return self.pinhole(
            place, focal.expand(worlds).repeat_interleave(count), turn[:, 0], turn[:, 1], turn[:, 2],
            distortion=distortion.expand(worlds, -1).repeat_interleave(count, dim=0),
        )  # fmt: skip


class CameraCalibration:
    """The job "where were these photographs taken from, and through which lens".

    Arguments:
        parameters: NAMES, position and angles with one row a photograph. truth: the same names, of the photographs.
        phases: of `dvc.optimize`, of which name, steps, train and context are used; context: level, the resolution is
            1 / 2^level.
        width, height [px]; samples: paths a pixel; photograph_samples: of the photographs.
        noise: standard deviation of the sensor's; sigma: expected error of a pixel; tiles: along each side of a photograph, the
        clusters of the uncertainty.
    """

    def __init__(
        self,
        *,
        parameters: Mapping[str, Parameter],
        truth: Mapping[str, Any],
        phases: Sequence[Phase],
        width: int = 96,
        height: int = 72,
        samples: int = 8,
        photograph_samples: int = 64,
        noise: float = 0.02,
        sigma: float = 0.025,
        tiles: int = 3,
        seed: int = 0,
        claim: str = "",
    ):
        for given, which in ((parameters, "parameters"), (truth, "truth")):
            if set(given) != set(NAMES):
                raise UserError(f"CameraCalibration.{which}: expected {', '.join(NAMES)}, got {', '.join(given)}")
        self.parameters, self.phases, self.claim, self.seed = dict(parameters), list(phases), claim, int(seed)
        self.truth = {name: torch.tensor(value, dtype=torch.float32)[None] for name, value in truth.items()}
        for name, value in self.truth.items():
            if tuple(value.shape[1:]) != self.parameters[name].shape:
                shape = self.parameters[name].shape
                raise UserError(f"CameraCalibration.truth.{name}: expected shape {shape}, got {tuple(value.shape[1:])}")
        self.count = self.truth["position"].shape[1]
        self.noise, self.photograph_samples = float(noise), int(photograph_samples)
        scene, self.points = known_scene()
        self.cameras = PhotographCameras(width, height)
        self.picture = RenderedPhotographs(scene, Film(width, height, 0.0, 0.0, width, height, 1.0), self.count, samples)
        self.misfit = PhotographMisfit(sigma, tiles)
        stages: dict[str, nn.Module] = {
            **self.parameters, "camera": self.cameras, "picture": self.picture, "pixels": self.misfit,
        }  # fmt: skip
        wiring = {
            "camera": {name: name for name in NAMES},
            "picture": {"camera": "camera", "level": "$level", "seed": "$seed"},
            "pixels": {"images": "picture", "level": "$level"},
        }
        self.pipeline = Pipeline(stages, wiring)
        self.objective = Objective({"pixels": term("pixels")})
        self.vector = ParameterVector(self.pipeline)
        self.context = {"level": 0, "seed": self.seed}
        check_phases(self.phases, self.objective, self.vector)
        check_newton(self.phases)

    def prepare(self) -> Tensor:
        """Take the photographs: (photograph, row, column, 3)."""
        generator = torch.Generator().manual_seed(1000 + self.seed)
        with torch.no_grad():
            clean = self.picture.at(self.photograph_samples)(self.cameras(**self.truth), 0, 1_000_003 + self.seed)[0]
        photographs = clean + self.noise * torch.randn(clean.shape, generator=generator)
        self.misfit.observe(photographs)
        return photographs

    # -- run ----------------------------------------------------------------------------------------------------------
    def run(self, recorder: Any) -> Result:
        """Photograph, calibrate from the wrong camera, measure the uncertainty, compare."""
        photographs = self.prepare()
        first, before = self._look(), self.errors()
        recorder.total(sum(p.steps for p in self.phases))

        x, done = self.vector.gather()[0], 0
        for index, phase in enumerate(self.phases):

            def on_step(x: Tensor, loss: float, phase: Phase = phase) -> None:
                nonlocal done
                done += 1
                values = {n: v[0].tolist() for n, v in self.vector.values(x[None]).items()}
                recorder.step(done, loss, phase.name, values)

            context, active = {**self.context, **phase.context}, active_numbers(self.vector, phase)
            problem_at, columns = partial(self._problem, context), partial(self.columns, context, active)
            x, _ = descend(problem_at, columns, x, active, phase.steps, 100_000 * (index + 1) + self.seed, on_step)
        self.vector.scatter(x[None])
        recorder.note("measuring the uncertainty")
        problem_at, columns = (
            partial(self._problem, self.context),
            partial(self.columns, self.context, torch.ones(self.vector.size)),
        )
        unsure = rendered_uncertainty(problem_at, "pixels", columns, x, (11 + self.seed, 1211 + self.seed))
        found, inside = {}, []
        for name, (value, low, high) in intervals(self.vector, x, unsure).items():
            weak = bool(unsure.weak[self.vector.slices[name]].any())
            found[name] = Estimate(value.tolist(), low.tolist(), high.tolist(), self.vector.parameters[name].unit, weak)
            inside.append(((self.truth[name][0] >= low) & (self.truth[name][0] <= high)).flatten())
        after, last = self.errors(), self._look()
        metrics = {name: Metric(value, unit) for name, (value, unit) in after.items()}
        metrics["inside_intervals"] = Metric(float(torch.cat(inside).float().mean()), "1")
        metrics |= {f"start_{name}": Metric(value, unit) for name, (value, unit) in before.items()}
        recorder.save_arrays(
            "photographs", photographs=photographs, found=last, noise=self.noise,
            **{f"true_{name}": value[0] for name, value in self.truth.items()},
        )  # fmt: skip
        recorder.save_image("photographs", picture_rows([photographs, first, last]))
        recorder.save_image("difference", picture_rows([0.5 + 2.0 * (first - photographs), 0.5 + 2.0 * (last - photographs)]))
        return Result(self.claim, found, metrics)

    def _problem(self, context: Mapping[str, Any], seed: int) -> Problem:
        return Problem(self.pipeline, self.objective, self.vector, {**context, "seed": seed})

    def columns(self, context: Mapping[str, Any], active: Tensor, x: Tensor, seed: int) -> Tensor:
        """Derivatives of the residuals by each unbounded number, (size, tile, value), by forward mode; zero where not active.

        What belongs to one photograph does not move the others, so that all photographs' first coordinates go in one pass.
        """
        level, size = context["level"], self.vector.size
        owner = torch.full((size,), -1)
        for name in ("position", "angles"):
            owner[self.vector.slices[name]] = torch.arange(self.count).repeat_interleave(3)
        place = torch.arange(size)
        group = torch.where(owner < 0, place, place - 3 * owner)  # the number that a photograph's own number goes with
        rows: dict[int, Tensor] = {}
        for first in torch.unique(group[active > 0]).tolist():
            direction = (group == first).float()
            image = self.picture.derivative(lambda value: self._camera_of(value), x, direction, level, seed)
            rows[first] = self.misfit.change(image, level)[0]
        tiles = self.misfit.tiles**2
        columns = torch.zeros(size, *next(iter(rows.values())).shape)
        for j in torch.nonzero(active)[:, 0].tolist():
            own = slice(None) if owner[j] < 0 else slice(int(owner[j]) * tiles, (int(owner[j]) + 1) * tiles)
            columns[j, own] = rows[int(group[j])][own]
        return columns

    def _camera_of(self, x: Tensor) -> Camera:
        return self.cameras(**self.vector.values(x[None]))

    def _look(self) -> Tensor:
        with torch.no_grad():
            return self.pipeline(["picture"], context=self.context)["picture"][0]

    def errors(self) -> dict[str, tuple[float, str]]:
        """Of the current numbers against the true ones: name -> (value, unit)."""
        with torch.no_grad():
            values = {name: self.parameters[name]() for name in NAMES}
            here, there = self.cameras(**values), self.cameras(**self.truth)
            focal, true_focal = float(values["focal"]), float(self.truth["focal"])
            place = (here.position - there.position).norm(dim=1).max()
            chord = (here.rotation - there.rotation).norm(dim=(1, 2)) / 8.0**0.5  # sin of half the angle
            angle = 2.0 * torch.asin(chord.clamp(max=1.0)).max()
            film = self.picture.film
            x, y = torch.meshgrid(torch.linspace(-0.5, 0.5, 41), torch.linspace(-0.5, 0.5, 41), indexing="ij")
            n = torch.stack([x * film.width, y * film.height], dim=-1) / true_focal
            lenses = [distort_points(n, k[0]) for k in (values["distortion"], self.truth["distortion"])]
            off = project(here, self.points[None].expand(self.count, -1, -1)) - project(
                there, self.points[None].expand(self.count, -1, -1)
            )
            return {
                "focal_error_rel": (abs(focal / true_focal - 1.0), "1"),
                "position_error_m": (float(place), "m"),
                "rotation_error_deg": (float(torch.rad2deg(angle)), "deg"),
                "distortion_error_px": (float(true_focal * (lenses[0] - lenses[1]).norm(dim=-1).max()), "px"),
                "reprojection_rms_px": (float(off.square().sum(-1).mean().sqrt()), "px"),
            }

    def check(self) -> list[CheckRow]:
        """Certificate of the loss at the first guess, in the resolution of the first phase; see `rendered_check`."""
        self.prepare()
        return check_rendered(self.pipeline, "pixels", {**self.context, **self.phases[0].context})
