"""`RenderFile`: what `diffvc render` does: a scene file becomes pictures, in passes, so that progress shows."""

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import dvc.warp_op
from dvc.atomic_file import replacing, write_error
from dvc.cli_experiments import nearest
from dvc.errors import UserError
from dvc.progress import duration_text
from dvc.records import Camera, Film
from dvc.trace import announced_compilation, start_warp
from render.aov_render import AovRender, Aovs
from render.film_checks import check_memory
from render.image_file import write_exr, write_png
from render.path_render import PathRender
from render.scene import Scene
from render.scene_file import LARGEST_FILM, SceneFile, read_scene

KINDS = (".png", ".exr", ".npz")
PASS = 64  # samples a pixel of one pass
LINE_SECONDS = 10.0
COPIES = 4  # of the image in memory: the sum, and those of a pass


class RenderFile:
    """Renders a scene file to image files.

    Arguments:
        scene: the YAML file.
        out: files to write, one or several separated by commas: .png (8 bits, exposed, sRGB curve), .exr (32-bit floats,
            linear), .npz (arrays by name, linear). None: NAME.png in the current folder.
        samples, depth, exposure: paths a pixel, vertices of a path, stops of the PNG; None: as in the scene file.
        width, height: of the picture [px]; None: as in the scene file. One alone keeps the film's proportions.
        aov: names of further images (depth, position, normal, albedo, mask, motion, instance), a list or separated by commas:
            further channels of an EXR, arrays of an NPZ, and files NAME_depth.png beside a PNG, scaled to be looked at.
        seed: of the random numbers. device: "cpu", "cuda", .... progress: whether passes are shown.
    Raises: UserError, one line, for whatever does not fit.
    """

    def __init__(
        self, scene: str, out: str | None = None, samples: int | None = None, depth: int | None = None, seed: int = 0,
        width: int | None = None, height: int | None = None, exposure: float | None = None,
        aov: str | Sequence[str] | None = None, device: str = "cpu", progress: bool = True,
    ):  # fmt: skip
        self.path = Path(scene)
        self.outputs = _outputs(out, self.path.stem)
        self.aovs = _aov_names(aov)
        for name, value in (("samples", samples), ("depth", depth), ("width", width), ("height", height)):
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise UserError(f"{name}: expected a whole number of at least 1, got {value!r}")
        if not isinstance(seed, int) or not 0 <= seed < 2**31:
            raise UserError(f"seed: expected a whole number from 0 to 2^31 - 1, got {seed!r}")
        self.samples, self.depth, self.seed, self.width, self.height = samples, depth, seed, width, height
        self.exposure, self.device, self.progress = exposure, torch.device(device), bool(progress)

    def run(self) -> list[Path]:
        """Render, write the files, print a line for each; returns their paths."""
        start_warp()
        file = read_scene(self.path)
        film = scaled_film(file.film, self.width, self.height)
        check_memory(film.rows, film.columns, 1, self.device, COPIES)
        scene, camera = _moved(file.scene, self.device), _moved(file.camera, self.device)
        samples = self.samples or file.samples
        stops = file.exposure if self.exposure is None else float(self.exposure)
        started = time.monotonic()
        with torch.no_grad(), announced_compilation("render", dvc.warp_op.on_compile):
            image = self._image(file, scene, camera, film, samples)
            further = self._further(file, scene, camera, film, samples) if self.aovs else {}
        paths = [path for out in self.outputs for path in _write(out, image, further, stops)]
        taken = duration_text(time.monotonic() - started)
        print(f"{film.columns} x {film.rows} px, {samples} samples, depth {self.depth or file.depth}, {taken}")
        if "instance" in further:
            print("instance: " + ", ".join(f"{i} {name}" for i, name in enumerate(file.names)))
        for path in paths:
            print(f"image: {path}")
        return paths

    def _image(self, file: SceneFile, scene: Scene, camera: Camera, film: Film, samples: int) -> Tensor:
        """Mean of passes with seeds of their own, (row, column, 3)."""
        parts = [PASS] * (samples // PASS) + ([samples % PASS] if samples % PASS else [])
        total = torch.zeros(film.rows, film.columns, 3, device=self.device)
        show = _Passes(len(parts), self.progress)
        for number, count in enumerate(parts):
            renderer = PathRender(
                count, self.depth or file.depth, roulette_depth=file.roulette_depth, pixel_filter=file.pixel_filter,
                filter_size=file.filter_size,
            )  # fmt: skip
            total += renderer(scene, camera, film, seed=_pass_seed(self.seed, number))[0] * (count / samples)
            show(number + 1)
        return total

    def _further(self, file: SceneFile, scene: Scene, camera: Camera, film: Film, samples: int) -> dict[str, Tensor]:
        renderer = AovRender(min(samples, PASS), pixel_filter=file.pixel_filter, filter_size=file.filter_size)
        found: Aovs = renderer(scene, camera, film, seed=self.seed)
        return {name: getattr(found, name)[0] for name in self.aovs}


def _pass_seed(seed: int, number: int) -> int:
    """The seed of a pass; that of the first is the user's."""
    return (seed + 0x2545F491 * number) % 2**31


def _outputs(out: str | None, stem: str) -> list[Path]:
    paths = [Path(part.strip()).expanduser() for part in (out or f"{stem}.png").split(",")]
    for path in paths:
        if path.suffix.lower() not in KINDS:
            raise UserError(f"out: expected a file ending with {', '.join(KINDS)}, got {str(path)!r}")
        if not path.parent.is_dir():
            raise UserError(f"out: no folder {str(path.parent)!r}; remedy: make it, or choose another")
    return paths


def _aov_names(aov: str | Sequence[str] | None) -> list[str]:
    names = [part.strip() for part in (aov.split(",") if isinstance(aov, str) else aov or [])]
    for name in names:
        if name not in Aovs._fields:
            raise UserError(f"aov: no image {name!r}{nearest(name, Aovs._fields)}; known: {', '.join(Aovs._fields)}")
    return list(dict.fromkeys(names))


def scaled_film(film: Film, width: int | None, height: int | None) -> Film:
    """The same frame with as many pixels as asked for."""
    if width is None and height is None:
        return film
    scale = width / film.width if width is not None else height / film.height  # type: ignore[operator]
    columns, rows = (max(1, round(size * scale)) for size in (film.width, film.height))
    if height is not None and height != rows:
        raise UserError(
            f"width, height: expected the film's proportions ({film.width} x {film.height}), got {width} x {height}; "
            f"remedy: give one of them, or change `film` in the scene file"
        )
    if max(columns, rows) > LARGEST_FILM:
        raise UserError(f"width, height: expected at most {LARGEST_FILM} pixels a side, got {columns} x {rows}")
    return film._replace(columns=columns, rows=rows, scale=scale)


def _moved(record: Any, device: torch.device) -> Any:
    """All tensors of nested records on a device."""
    if isinstance(record, Tensor):
        return record.to(device)
    if isinstance(record, Mapping):
        return {name: _moved(entry, device) for name, entry in record.items()}
    if isinstance(record, tuple) and hasattr(record, "_fields"):
        return type(record)(*(_moved(entry, device) for entry in record))
    if isinstance(record, list):
        return [_moved(entry, device) for entry in record]
    return record


class _Passes:
    """Says how far the passes are: in one line on a terminal, every ten seconds elsewhere."""

    def __init__(self, count: int, shown: bool):
        self.count, self.shown, self.live = count, shown and count > 1, sys.stderr.isatty()
        self.started = self.said = time.monotonic()

    def __call__(self, done: int) -> None:
        now = time.monotonic()
        if not self.shown or not (self.live or now - self.said > LINE_SECONDS):
            return
        self.said = now
        left = duration_text((now - self.started) / done * (self.count - done))
        end = "\n" if not self.live or done == self.count else ""
        print(f"{chr(13) if self.live else ''}pass {done} of {self.count}, {left} left ", end=end, file=sys.stderr, flush=True)


def _write(out: Path, image: Tensor, further: dict[str, Tensor], stops: float) -> list[Path]:
    suffix = out.suffix.lower()
    if suffix == ".exr":
        return [write_exr(out, image, further)]
    if suffix == ".npz":
        arrays: dict[str, Any] = {name: value.cpu().numpy() for name, value in {"image": image, **further}.items()}
        try:
            with replacing(out) as temporary, temporary.open("wb") as file:
                np.savez_compressed(file, **arrays)
        except OSError as error:
            raise write_error(out, error) from error
        return [out]
    paths = [write_png(out, image, stops)]
    for name, value in further.items():
        path = out.with_name(f"{out.stem}_{name}.png")
        paths.append(write_png(path, PICTURES[name](value.float()), linear=name != "albedo"))
    return paths


def _spread(value: Tensor) -> Tensor:
    """From the first to the last percentile; what shows nothing stays 0."""
    value = value if value.dim() == 3 else value[..., None]
    seen = value[(value != 0.0).any(dim=-1)]
    if not len(seen):
        return torch.zeros_like(value)
    some = seen[:: max(1, len(seen) // 100_000)]
    low, high = torch.quantile(some, torch.tensor([0.01, 0.99], device=some.device), dim=0)
    share = ((value - low) / (high - low).clamp_min(1e-12)).clamp(0.0, 1.0)
    return torch.where((value != 0.0).any(dim=-1, keepdim=True), share, torch.zeros_like(share))


def _coloured(value: Tensor) -> Tensor:
    """A colour for each number from 0 on, black for -1: hues by the golden angle."""
    hue = (value * 0.618034) % 1.0
    colours = torch.stack([(hue * 6.0 - k).sub(3.0).abs().sub(1.0).clamp(0.0, 1.0) for k in (0.0, 2.0, 4.0)], dim=-1)
    return torch.where((value >= 0.0)[..., None], 0.25 + 0.7 * colours, torch.zeros_like(colours))


def _arrows(value: Tensor) -> Tensor:
    """Motion about middle grey: red to the right, green downwards, full at the largest."""
    largest = value.abs().max().clamp_min(1e-12)
    return torch.cat([0.5 + 0.5 * value / largest, torch.full_like(value[..., :1], 0.5)], dim=-1)


PICTURES: dict[str, Callable[[Tensor], Tensor]] = {
    "depth": _spread,
    "position": _spread,
    "normal": lambda value: 0.5 + 0.5 * value,
    "albedo": lambda value: value,
    "mask": lambda value: value[..., None],
    "motion": _arrows,
    "instance": _coloured,
}
