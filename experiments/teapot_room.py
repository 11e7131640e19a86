r"""A teapot in a closed room, from one to four pictures under global illumination: its pose and roughness, the texture of
the rug under it, and the place and colour of the lamp, all together.

Light reaches the pictures by way of up to `depth` - 1 surfaces, so that everything moves everything: the lamp is seen by its
highlight on the teapot, by shadows and by how bright the walls are, the rug directly and in the teapot. Adam descends on

    loss = mean over levels l of  mean P_l(w (A - T)) P_l(w (B - T)),     w = 1 / (T_4 + mean T / 2)

(`render.image_losses.unbiased_l2`) of two renders A and B of few samples each, with new seeds at every step: value and
gradient are those of the picture without noise. T are the noisy pictures, T_4 their brightness in blocks of 4 x 4 pixels:
errors count by their share of the light. P_l are the levels of a pyramid: the noise of the picture enters the gradient times
that of its derivative, and means of pixels have less of both.

Phases go from coarse film pixels to fine ones. In the first the teapot keeps still until the light is about right; else it
turns to make up for what the light lacks, and stays turned. The answer is the mean over the last phase's second half.
The descent is local and its gradient noisy: it can end at a wrong turn (as it did with one seed where the second phase was
shorter and coarser). The metrics tell: the bounds of `expected` do not hold then.

Command: `diffvc run experiment=teapot_room` (`task.views=1`: from one picture).

Metrics: `pose_error_mm`, `pose_error_deg` of the teapot; `roughness_error_rel`; `texture_rms` and `texture_psnr_db` (peak 1) of
the rug's albedo; `light_position_error_mm`; `light_colour_error_rel`, of the vector; `psnr_heldout_db`, `psnr_fitted_db`: of
pictures as they are shown (exposed, cut off at 1, to the power of 1 / 2.2), in many samples, from a place that no fitted
picture was taken from, and from those that were; `start_*`: the same of the first guess; `seconds` of the descent. Artefacts:
`pictures.npz` (targets with and without noise, first guess and answer from all places, and all numbers), `pictures.png` (true,
first guess, found, from above; the last column was not fitted), `textures.png` (true, found), `metrics.jsonl`.
"""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from dvc.errors import UserError
from dvc.gradient_check import CheckRow
from dvc.parameter import Parameter
from dvc.parameter_vector import ParameterVector
from dvc.pipeline import Pipeline, did_you_mean
from dvc.records import Camera
from dvc.result import Metric, Result
from experiments.known_objects import blotches
from experiments.photographs import film_at, picture_rows
from experiments.rendered_check import check_rendered
from experiments.teapot_pictures import EYES, HELD_OUT, TeapotPictures, cameras, rotation
from render.image_losses import image_pyramid, psnr, unbiased_l2

NAMES = ("place", "turn", "roughness", "texture", "lamp_place", "lamp_colour")
ERRORS = (
    "pose_error_mm", "pose_error_deg", "roughness_error_rel", "texture_rms", "texture_psnr_db", "light_position_error_mm",
    "light_colour_error_rel", "psnr_fitted_db", "psnr_heldout_db",
)  # fmt: skip
PHASE = ("name", "steps", "level", "samples", "lr", "last_lr")
PYRAMID = 3  # levels of the loss, below the resolution of the phase
BETAS = (0.9, 0.95)  # of Adam: squares of gradients are remembered for some twenty steps, since phases are short
CHECKED_SAMPLES, CHECKED_STEP = 16, 0.15
DIM = 0.5  # what is added to the brightness that errors are divided by, over the mean brightness
SHOWN = 0.45  # mean of what is shown, before the power


def shown(images: Tensor, mean: float) -> Tensor:
    """As on a screen, in [0, 1]; mean: brightness [W/(m^2 sr)] of the true pictures."""
    return (SHOWN / mean * images).clamp(0.0, 1.0) ** (1.0 / 2.2)


def checked_phases(phases: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Phases with the fields of `PHASE`, and `train` where not all unknowns move, or UserError."""
    for phase in phases:
        good = set(phase) - {"train"} == set(PHASE) and phase["steps"] >= 1 and phase["samples"] >= 1 and phase["level"] >= 0
        if not good or not phase["lr"] >= phase["last_lr"] > 0.0:
            raise UserError(
                f"TeapotRoom.phases: expected {', '.join(PHASE)} and perhaps train, steps and samples from 1 and "
                f"lr >= last_lr > 0, got {dict(phase)}"
            )
        for name in phase.get("train", ()):
            if name not in NAMES:
                raise UserError(f"TeapotRoom.phases: train: no unknown {name!r}{did_you_mean(name, NAMES)}")
    if not phases:
        raise UserError("TeapotRoom.phases: expected at least one, got none")
    return [dict(phase) for phase in phases]


def _numbers(name: str, value: Any) -> Tensor:
    try:
        tensor = torch.tensor(value, dtype=torch.float32)
    except (TypeError, ValueError) as error:
        raise UserError(f"TeapotRoom.{name}: expected a number or a list of numbers, got {value!r}") from error
    if not bool(torch.isfinite(tensor).all()):
        raise UserError(f"TeapotRoom.{name}: expected finite numbers, got {tensor.tolist()}")
    return tensor


class TwoRenderLoss(nn.Module):
    """images: all views of one render and then all of another, level -> the loss (1,); see the module."""

    def __init__(self) -> None:
        super().__init__()
        self.targets: list[Tensor] = []  # by level
        self.weights: list[Tensor] = []

    def observe(self, targets: Tensor, levels: int) -> None:
        """targets (view, row, column, 3)."""
        self.targets = image_pyramid(targets, levels)
        blocks = image_pyramid(targets.mean(dim=-1, keepdim=True), 3)[2].clamp(min=0.0) + DIM * targets.mean()
        self.weights = []
        for target in self.targets:
            spread = functional.interpolate(1.0 / blocks.permute(0, 3, 1, 2), size=target.shape[1:3])
            self.weights.append(spread.permute(0, 2, 3, 1))

    def weighted(self, images: Tensor, level: int) -> Tensor:
        """images by w."""
        if not self.targets:
            raise UserError("TwoRenderLoss: expected targets, got none yet; remedy: prepare() of the task")
        return images * self.weights[level]

    def forward(self, images: Tensor, level: int) -> Tensor:
        one, other = (self.weighted(half, level) for half in images.chunk(2))
        return unbiased_l2(one, other, self.weighted(self.targets[level], level), levels=PYRAMID).mean()[None]


class Difference(nn.Module):
    """images, level -> w (images - target) of the first render in blocks of 4 x 4, (1, value): for the certificate."""

    def __init__(self, loss: TwoRenderLoss):
        super().__init__()
        self.loss = [loss]

    def forward(self, images: Tensor, level: int) -> Tensor:
        loss = self.loss[0]
        off = images[: len(loss.targets[level])] - loss.targets[level]
        return image_pyramid(loss.weighted(off, level), PYRAMID)[-1].flatten()[None]


class TeapotRoom:
    """The job "what hangs in this room, what lies on its floor, and what lights it".

    Arguments:
        parameters: NAMES but texture, whose first guess is grey; truth: the same names, in physical units; texture: {size,
            seed} of `blotches`.
        phases: each {name, steps, level, samples, lr, last_lr, train}: film pixels are 2^level as large; samples: paths a film
            pixel, of each of the two renders; lr falls to last_lr geometrically, in unbounded numbers; train: NAMES that move,
            left out: all.
        rates: factors of lr by name, one or one a number; 1 where left out.
        views: from 1 to 4; width, height [px]; depth: see `PathRender`; target_samples: of the pictures, and of what is
            compared in the end; noise: of the sensor, standard deviation over the mean brightness.
        expected: bounds of metrics, of those in dB from below.
    """

    def __init__(
        self,
        *,
        parameters: Mapping[str, Parameter],
        truth: Mapping[str, Any],
        texture: Mapping[str, int],
        phases: Sequence[Mapping[str, Any]],
        rates: Mapping[str, float] | None = None,
        views: int = 3,
        width: int = 64,
        height: int = 48,
        depth: int = 4,
        target_samples: int = 512,
        noise: float = 0.01,
        expected: Mapping[str, float] | None = None,
        seed: int = 0,
        claim: str = "",
    ):
        self.expected = {name: float(bound) for name, bound in (expected or {}).items()}
        if not set(self.expected) <= set(ERRORS):
            raise UserError(f"TeapotRoom.expected: expected names of {', '.join(ERRORS)}, got {', '.join(self.expected)}")
        numbers = set(NAMES) - {"texture"}
        for given, which in ((parameters, "parameters"), (truth, "truth")):
            if set(given) != numbers:
                raise UserError(f"TeapotRoom.{which}: expected {', '.join(sorted(numbers))}, got {', '.join(sorted(given))}")
        if not 1 <= views <= len(EYES):
            raise UserError(f"TeapotRoom.views: expected 1 to {len(EYES)}, got {views}")
        self.rates = {name: _numbers(f"rates.{name}", rate) for name, rate in (rates or {}).items()}
        self.phases, self.seed, self.claim = checked_phases(phases), int(seed), claim
        self.levels = 1 + max(int(phase["level"]) for phase in self.phases)
        if not noise >= 0.0 or target_samples < 1:
            raise UserError(f"TeapotRoom: expected noise from 0 and target_samples from 1, got {noise} and {target_samples}")
        self.noise, self.target_samples = float(noise), int(target_samples)
        self.truth = {name: _numbers(f"truth.{name}", value)[None] for name, value in truth.items()}
        self.truth["texture"] = blotches(int(texture["size"]), int(texture["seed"]), 4)
        grey = torch.full(self.truth["texture"].shape[1:], 0.5).tolist()
        self.parameters = {**parameters, "texture": Parameter(grey, lower=0.0, upper=1.0, unit="1")}
        for name, value in self.truth.items():
            shape = self.parameters[name].shape
            if tuple(value.shape[1:]) != shape:
                raise UserError(f"TeapotRoom.truth.{name}: expected shape {shape}, got {tuple(value.shape[1:])}")
        for name, rate in self.rates.items():
            if name not in NAMES or tuple(rate.shape) not in ((), self.parameters[name].shape) or not bool((rate > 0.0).all()):
                raise UserError(
                    f"TeapotRoom.rates: expected factors above 0 of {', '.join(NAMES)}, one or one a number, "
                    f"got {name}: {rate.tolist()}"
                )
        self.pictures, self.loss = TeapotPictures(width, height, depth), TwoRenderLoss()
        film_at(self.pictures.film, self.levels - 1)  # a level that does not divide the film is refused here
        self.fitted, self.twice = cameras(EYES[:views], width, height), cameras(EYES[:views] * 2, width, height)
        self.heldout = cameras(HELD_OUT, width, height)
        self.pipeline = self._pipeline(self.parameters)
        self.vector = ParameterVector(self.pipeline)

    def _pipeline(self, parameters: Mapping[str, nn.Module]) -> Pipeline:
        stages: dict[str, nn.Module] = {
            **parameters, "pictures": self.pictures, "loss": self.loss, "difference": Difference(self.loss),
        }  # fmt: skip
        seen = {name: f"${name}" for name in ("level", "samples", "seed", "camera")}
        wiring = {
            "pictures": {**{name: name for name in NAMES}, **seen},
            "loss": {"images": "pictures", "level": "$level"},
            "difference": {"images": "pictures", "level": "$level"},
        }
        return Pipeline(stages, wiring)

    def context(self, phase: Mapping[str, Any], step: int) -> dict[str, Any]:
        """What the pipeline is called with at a step of the run: seeds are used once."""
        seed = 1_000_000 * self.seed + step * len(self.twice.position)
        return {"level": int(phase["level"]), "samples": int(phase["samples"]), "camera": self.twice, "seed": seed}

    def prepare(self) -> Tensor:
        """Take the pictures; returns them without the sensor's noise, (view, row, column, 3)."""
        clean = self.look(self.truth, self.fitted, 500_003)
        generator = torch.Generator().manual_seed(self.seed)
        self.targets = clean + self.noise * float(clean.mean()) * torch.randn(clean.shape, generator=generator)
        self.loss.observe(self.targets, self.levels)
        return clean

    @torch.no_grad()
    def look(self, values: Mapping[str, Tensor], camera: Camera, seed: int) -> Tensor:
        """In many samples."""
        return self.pictures(**values, camera=camera, level=0, samples=self.target_samples, seed=1_000_000 * self.seed + seed)

    def descend(self, recorder: Any) -> float:
        """Adam on all unknowns, which are set to the answer; the seconds that it took."""
        begun, done = time.perf_counter(), 0
        x = self.vector.gather()
        for phase in self.phases:
            steps, train = int(phase["steps"]), phase.get("train", NAMES)
            active = torch.zeros(1, self.vector.size)
            for name in train:
                active[:, self.vector.slices[name]] = self.rates.get(name, torch.ones(())).flatten()
            u = torch.zeros_like(x).requires_grad_(True)  # of which all move by about lr
            optimizer = torch.optim.Adam([u], lr=phase["lr"], betas=BETAS)
            late: list[Tensor] = []
            for k in range(steps):
                optimizer.param_groups[0]["lr"] = phase["lr"] * (phase["last_lr"] / phase["lr"]) ** (k / max(1, steps - 1))
                raw = self.vector.split(x + active * u)
                loss = self.pipeline(["loss"], context=self.context(phase, done), raw=raw)["loss"].sum()
                optimizer.zero_grad()
                loss.backward()
                for name, place in self.vector.slices.items():
                    if u.grad is None or not bool(torch.isfinite(u.grad[:, place]).all()):
                        raise UserError(f"gradient of {name!r} is not finite; remedy: a smaller lr")
                optimizer.step()
                done += 1
                late = [*late, x + active * u.detach()][-(steps + 1) // 2 :]
                values = self.vector.values(late[-1])
                told = {name: value[0].tolist() for name, value in values.items() if name != "texture"}
                recorder.step(done, float(loss.detach()), phase["name"], told)
            x = late[-1]
        self.vector.scatter(torch.stack(late).mean(0))
        return time.perf_counter() - begun

    # -- run ----------------------------------------------------------------------------------------------------------
    def run(self, recorder: Any) -> Result:
        """Take the pictures, descend from the wrong room, compare."""
        recorder.total(sum(int(phase["steps"]) for phase in self.phases))
        clean = torch.cat([self.prepare(), self.look(self.truth, self.heldout, 500_103)])
        first = {name: self.parameters[name]().detach() for name in NAMES}
        seen_first, before = self._errors(first, clean)
        recorder.note("start: " + ", ".join(f"{name} {value:.3g} {unit}" for name, (value, unit) in before.items()))
        seconds = self.descend(recorder)
        found = {name: self.parameters[name]().detach() for name in NAMES}
        seen_found, after = self._errors(found, clean)
        recorder.note("found: " + ", ".join(f"{name} {value:.3g} {unit}" for name, (value, unit) in after.items()))
        metrics = {name: self._judged(name, value, unit) for name, (value, unit) in after.items()}
        metrics |= {f"start_{name}": Metric(value, unit) for name, (value, unit) in before.items()}
        metrics["seconds"] = Metric(seconds, "s")
        mean = float(clean.mean())
        recorder.save_image("pictures", picture_rows([shown(t, mean) for t in (clean, seen_first, seen_found)], 4))
        recorder.save_image("textures", picture_rows([torch.cat([self.truth["texture"], found["texture"]])], 16))
        recorder.save_arrays(
            "pictures", targets=self.targets, clean=clean, first=seen_first, found=seen_found,
            **{f"true_{name}": value[0] for name, value in self.truth.items()},
            **{f"found_{name}": value[0] for name, value in found.items()},
        )  # fmt: skip
        return Result(self.claim, {}, metrics)

    def _judged(self, name: str, value: float, unit: str) -> Metric:
        if name not in self.expected:
            return Metric(value, unit)
        bound, above = self.expected[name], unit == "dB"
        return Metric(value, unit, f"{'>' if above else '<'} {bound:g}", value > bound if above else value < bound)

    def _errors(self, values: Mapping[str, Tensor], clean: Tensor) -> tuple[Tensor, dict[str, tuple[float, str]]]:
        """Pictures from the fitted views and from the one held out, and errors: name -> (value, unit)."""
        images = torch.cat([self.look(values, self.fitted, 500_203), self.look(values, self.heldout, 500_303)])
        mean = float(clean.mean())
        scores = psnr(shown(images, mean), shown(clean, mean))
        return images, {
            **self.errors(values),
            "psnr_fitted_db": (float(scores[:-1].mean()), "dB"),
            "psnr_heldout_db": (float(scores[-1]), "dB"),
        }

    def errors(self, values: Mapping[str, Tensor]) -> dict[str, tuple[float, str]]:
        """Of numbers against the true ones: name -> (value, unit)."""
        off = {name: (values[name] - self.truth[name]).flatten() for name in NAMES}
        chord = float((rotation(values["turn"]) - rotation(self.truth["turn"])).norm()) / 8.0**0.5  # sin of half the angle
        rms = float(off["texture"].square().mean().sqrt())
        return {
            "pose_error_mm": (1e3 * float(off["place"].norm()), "mm"),
            "pose_error_deg": (math.degrees(2.0 * math.asin(min(1.0, chord))), "deg"),
            "roughness_error_rel": (abs(float(off["roughness"] / self.truth["roughness"])), "1"),
            "texture_rms": (rms, "1"),
            "texture_psnr_db": (-20.0 * math.log10(max(rms, 1e-9)), "dB"),
            "light_position_error_mm": (1e3 * float(off["lamp_place"].norm()), "mm"),
            "light_colour_error_rel": (float(off["lamp_colour"].norm() / self.truth["lamp_colour"].norm()), "1"),
        }

    def check(self) -> list[CheckRow]:
        """Certificate of the pictures at the first guess, with a rug of 2 x 2 colours; see `rendered_check`."""
        self.prepare()
        colours = torch.tensor([[[0.5, 0.4, 0.6], [0.6, 0.5, 0.4]], [[0.4, 0.6, 0.5], [0.3, 0.5, 0.7]]])
        rug = Parameter(colours.tolist(), lower=0.0, upper=1.0)
        pipeline = self._pipeline({**self.parameters, "texture": rug})
        phase = {"level": 0, "samples": CHECKED_SAMPLES}
        context = {**self.context(phase, 0), "camera": self.fitted}
        return check_rendered(pipeline, "difference", context, step=CHECKED_STEP)
