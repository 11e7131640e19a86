"""`Clip`: a video as a stage. Frames of a window, stabilised, at several resolutions, with the background plate behind them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from dvc.errors import UserError
from dvc.records import Film, Frames
from dvc.stabilize import apply_motion, background_motions, identity_motions, stabilized_crop


def background_plate(crops: np.ndarray, color: Sequence[float] | None = None, most: int = 120) -> np.ndarray:
    """What stands still: a first guess, then the median over the frames near it.

    The first guess is the median over frames; where `color` says which direction in RGB marks the thing, it is the quarter
    of the frames that show least of it, so that a pixel may be covered most of the time. crops: uint8 (frame, row, column,
    3) -> float32 (row, column, 3) in [0, 1]. A pixel that the thing covers in every frame keeps the thing's colour.
    """
    stride = max(1, -(-len(crops) // most))
    stack = torch.from_numpy(crops[::stride]).float()
    if color is None:
        plate, share = stack.median(dim=0).values, 0.5
    else:
        shown = stack @ torch.tensor([float(c) for c in color])
        least = shown.argsort(dim=0)[: max(1, len(stack) // 4), ..., None].expand(-1, -1, -1, 3)
        plate, share = stack.gather(0, least).median(dim=0).values, 0.125
    differs = (stack - plate).abs().amax(dim=-1, keepdim=True)
    spread = torch.quantile(differs, share, dim=0)
    for bound in (6.0, 4.0):  # the mean of what is near takes out the steps of 8 bits, which a median keeps
        kept = torch.where(differs > torch.clamp(spread, min=bound), torch.nan, stack)
        near = kept.nanmedian(dim=0).values if bound == 6.0 else kept.nanmean(dim=0)
        plate = torch.where(torch.isnan(near), plate, near)
        differs = (stack - plate).abs().amax(dim=-1, keepdim=True)
        spread = torch.quantile(differs, share, dim=0)
    return (plate / 255.0).numpy()


def plain_backdrop(width: int, height: int) -> np.ndarray:
    """A wall under soft light, for clips that are rendered: float32 (row, column, 3) in [0, 1]."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    light = 0.45 + 0.12 * np.cos(2.1 * x / width) * np.cos(1.3 * y / height - 0.4)
    texture = 0.015 * np.sin(0.21 * x + 0.05 * y) * np.sin(0.17 * y)
    return ((light + texture)[..., None] * np.array([1.05, 0.98, 0.88], np.float32)).astype(np.float32)


class Band(NamedTuple):
    """Rows [top, bottom) of the whole frame."""

    top: int
    bottom: int


class Clip(nn.Module):
    """Frames [first, last) of a video.

    Arguments:
        path: file, or `data:NAME` for a known data item; None: the clip is rendered by the pipeline itself.
        first, last: window of frames.
        region: (left, top, right, bottom) [px]: where the thing of interest moves; must lie in the frame.
        levels: resolutions, coarse to fine: each {scale: film pixels a pixel, pad: pixels added around the region}.
        color: direction in RGB that marks the thing (for a red one on grey: [1, -1, 0]); needed where it covers some
            pixels for most of the window, so that the plate behind it can be told from it.
        stabilize: estimate the camera's motion from what is outside the region (and outside `moving` boxes).
        frame_rate: replaces the file's [1/s]; needed where the clip is rendered.
        size: (width, height) of a clip that is rendered. With it, a data item that cannot be found or downloaded leaves the
            clip empty (`available` is False) instead of raising: the task then renders one and says so.
    Forward: level (index, or a Band: rows of a plain backdrop at full resolution, to render a clip on), frames (number from
        the first; None: all) -> Frames with images of one world. Values are those of the file, in [0, 1], without
        undoing its response curve.
    Raises: UserError for a file that is no video, a window beyond its end or a region outside the frame.
    """

    def __init__(
        self,
        path: str | None,
        first: int,
        last: int,
        region: Sequence[float],
        levels: Sequence[Mapping[str, float]] = ({"scale": 0.25},),
        *,
        color: Sequence[float] | None = None,
        stabilize: bool = True,
        moving: Sequence[Sequence[float]] = (),
        frame_rate: float | None = None,
        size: Sequence[int] | None = None,
    ):
        super().__init__()
        from dvc.data import DataUnavailable, resolve
        from dvc.video import read_video

        if not 0 <= first < last:
            raise UserError(f"Clip: expected 0 <= first < last, got {first} and {last}")
        if any(len(box) != 4 for box in moving):
            raise UserError(f"Clip.moving: expected boxes (left, top, right, bottom), got {[list(box) for box in moving]}")
        if color is not None and (len(color) != 3 or not np.isfinite(color).all() or not any(color)):
            raise UserError(f"Clip.color: expected three numbers, not all zero, got {list(color)}")
        if size is not None and (len(size) != 2 or not all(v >= 1 for v in size)):
            raise UserError(f"Clip.size: expected (width, height) in pixels, got {list(size)}")
        if not levels:
            raise UserError("Clip.levels: expected at least one {scale, pad}, got none")
        for i, level in enumerate(levels):
            if "scale" not in level or not set(level) <= {"scale", "pad"}:
                raise UserError(f"Clip.levels[{i}]: expected {{scale, pad}}, got {dict(level)}")
        self.path, self.first, self.last = path, int(first), int(last)
        self.region, self.levels, self.moving = [float(v) for v in region], [dict(level) for level in levels], list(moving)
        self.color = None if color is None else [float(c) for c in color]
        self.stabilize, self.why_empty = bool(stabilize), "the configuration asks for a clip that the pipeline renders"
        video, rate = None, frame_rate
        if path is not None:
            try:
                video, rate = read_video(resolve(path), self.first, self.last)
            except DataUnavailable as error:
                if size is None:
                    raise
                self.why_empty = str(error)
        self.frame_rate = float(frame_rate or rate or 0.0)
        if self.frame_rate <= 0.0:
            raise UserError(f"Clip.frame_rate: expected a positive number, got {frame_rate!r}")
        if video is None and size is None:
            raise UserError("Clip.size: expected (width, height) for a clip that is rendered, got none")
        width, height = size if video is None else (video.shape[2], video.shape[1])  # type: ignore[misc]
        self.width, self.height = int(width), int(height)
        self.box = self._checked_region()
        self.available = video is not None
        if video is not None:
            self.load(video, stabilize=self.stabilize)
        else:
            self.load(
                np.repeat((255.0 * plain_backdrop(self.width, self.height)).astype(np.uint8)[None], 1, axis=0), stabilize=False
            )

    def _checked_region(self) -> tuple[int, int, int, int]:
        if len(self.region) != 4 or not np.isfinite(self.region).all():
            raise UserError(f"Clip.region: expected (left, top, right, bottom), got {self.region}")
        left, top, right, bottom = (round(v) for v in self.region)
        if not (0 <= left < right <= self.width and 0 <= top < bottom <= self.height):
            inside = f"left < right within 0..{self.width} and top < bottom within 0..{self.height}"
            raise UserError(f"Clip.region: expected {inside}, got {self.region}")
        return left, top, right, bottom

    def load(self, video: np.ndarray, *, stabilize: bool) -> None:
        """Take the frames of the window, uint8 (frame, row, column, 3)."""
        self.motions = background_motions(video, [self.box, *self.moving]) if stabilize else identity_motions(len(video))
        self.films: list[Film] = []
        for i, level in enumerate(self.levels):
            self._add_level(i, video, **{str(k): float(v) for k, v in level.items()})

    def _add_level(self, index: int, video: np.ndarray, scale: float, pad: float = 0.0) -> None:
        import cv2

        if not 0.0 < scale <= 1.0 or abs(1.0 / scale - round(1.0 / scale)) > 1e-6:
            raise UserError(f"Clip.levels[{index}].scale: expected 1, 1/2, 1/3, ..., got {scale}")
        if not 0.0 <= pad < 1e4:
            raise UserError(f"Clip.levels[{index}].pad: expected a number of pixels from 0, got {pad}")
        step = round(1.0 / scale)
        left, top = self.box[0] - round(pad), self.box[1] - round(pad)
        columns = -(-(self.box[2] + round(pad) - left) // step)
        rows = -(-(self.box[3] + round(pad) - top) // step)
        crops = (
            stabilized_crop(f, m, left, top, columns * step, rows * step) for f, m in zip(video, self.motions, strict=True)
        )
        small = np.stack([cv2.resize(crop, (columns, rows), interpolation=cv2.INTER_AREA) for crop in crops])
        self.films.append(Film(self.width, self.height, float(left), float(top), columns, rows, 1.0 / step))
        plate = background_plate(small, self.color)
        # beyond the frame there is nothing to see: no copies of the border's noise
        x, y = left + (np.arange(columns) + 0.5) * step, top + (np.arange(rows) + 0.5) * step
        beyond = ((y < 0) | (y > self.height))[:, None] | ((x < 0) | (x > self.width))[None]
        plate[beyond] = np.round(plate[beyond] * 255.0) / 255.0
        small[:, beyond] = np.round(plate[beyond] * 255.0).astype(np.uint8)
        self.register_buffer(f"images_{index}", torch.from_numpy(small), persistent=False)
        self.register_buffer(f"plate_{index}", torch.from_numpy(plate), persistent=False)

    def forward(self, level: int | Band = 0, frames: int | None = None) -> Frames:
        if isinstance(level, Band):
            return self._backdrop(level)
        if level not in range(len(self.films)):
            raise UserError(f"Clip level: expected 0 to {len(self.films) - 1}, got {level!r}")
        images = getattr(self, f"images_{level}")
        count = len(images) if frames is None else min(int(frames), len(images))
        return Frames(images[None, :count].float() / 255.0, getattr(self, f"plate_{level}"), self.films[int(level)])

    def _backdrop(self, band: Band) -> Frames:
        plate = torch.from_numpy(plain_backdrop(self.width, self.height)[band.top : band.bottom].copy())
        film = Film(self.width, self.height, 0.0, float(band.top), self.width, len(plate), 1.0)
        return Frames(plate[None, None], plate, film)

    def to_original(self, points: np.ndarray) -> np.ndarray:
        """Pixels of the stabilised frames, (frame, 2), from the first of the window on, -> pixels of the original frames."""
        return np.stack([apply_motion(m, p) for m, p in zip(self.motions, points, strict=False)])

    def extra_repr(self) -> str:
        return f"{self.path!r}, frames [{self.first}, {self.last}), {self.frame_rate:.4g} frames/s, {self.width}x{self.height}"
