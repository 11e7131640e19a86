"""Video files to arrays and back, through FFmpeg (PyAV).

Colours: frames are RGB in full range. A file says by which matrix (BT.601, BT.709) and in which range (limited, full) its
luma and chroma are meant; both are honoured in reading, and a file that does not say is read as BT.601, limited, as FFmpeg
does. Files are written as BT.709, limited range, and say so. Frames are turned upright where the file holds a rotation.
"""

import math
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dvc.atomic_file import replacing, write_error
from dvc.errors import UserError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.stream import VideoStream

_BYTES_AT_MOST = 8 << 30
_HEADER_TOLERANCE = 2  # frames by which a header may overstate a sound clip (edit lists)


def _checked_range(first: int, last: int | None) -> None:
    for name, value in (("first", first), ("last", last)):
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
            raise UserError(f"{name}: expected a frame number >= 0, got {value!r}")
    if last is not None and last <= first:
        raise UserError(f"frames: expected first < last (last is not read), got first={first}, last={last}")


def _open(path: Path) -> "InputContainer":
    import av

    if not path.exists():
        raise UserError(f"no video at {path}; remedy: check the path")
    if path.is_dir():
        raise UserError(f"{path} is a directory; expected a video file")
    try:
        if path.stat().st_size == 0:
            raise UserError(f"{path} is empty (0 bytes); expected a video; remedy: copy or download it again")
        return av.open(str(path))
    except av.error.PermissionError as error:
        raise UserError(f"{path}: no permission to read it") from error
    except (av.error.FFmpegError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{path} cannot be opened as a video (not a video, or cut off): {reason}") from error


def _frames_per_second(stream: "VideoStream", path: Path) -> float:
    rate = stream.average_rate or stream.guessed_rate or stream.base_rate
    if not rate or not math.isfinite(float(rate)) or rate <= 0:
        raise UserError(f"{path} does not say how many frames a second it has; remedy: convert it to mp4 first")
    return float(rate)


def read_video(path: Path | str, first: int = 0, last: int | None = None) -> tuple[np.ndarray, float]:
    """Frames `first` (read) to `last` (not read; None: to the end) of a video file.

    Returns: frames, uint8 RGB, shape (frame, height, width, 3); and the frame rate [1/s], the clip's average one.
    Raises: UserError when the file is missing, empty, a directory, not a video or without a picture stream; when it is cut
        off; when the range reaches beyond the clip; when the frames would need more than 8 GiB.
    """
    import av

    path = Path(path)
    _checked_range(first, last)
    frames: list[np.ndarray] = []
    decoded, fault = 0, ""
    with _open(path) as container:
        if not container.streams.video:
            raise UserError(f"{path} has no video stream (only {_stream_kinds(container)}); expected a whole video file")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        fps, promised = _frames_per_second(stream, path), stream.frames
        _refuse_too_big(path, stream, (last or promised) - first)
        try:
            for frame in container.decode(stream):
                if decoded >= first:
                    frames.append(_upright(frame))
                decoded += 1
                if decoded % 64 == 0:
                    _refuse_too_big(path, stream, len(frames))
                if decoded == last:
                    break
        except (av.error.FFmpegError, OSError) as error:
            fault = getattr(error, "strerror", None) or str(error)
    cut_off = bool(fault) or decoded < promised - _HEADER_TOLERANCE
    if decoded == 0:
        raise UserError(f"{path}: no frame can be decoded{f' ({fault})' if fault else ''}; it is damaged or cut off")
    if cut_off and (last is None or decoded < last):
        of = f" of {promised}" if promised else ""
        raise UserError(
            f"{path} is cut off or damaged: only {decoded}{of} frames can be decoded{f' ({fault})' if fault else ''}; "
            f"remedy: get the whole file, or ask for frames below {decoded}"
        )
    if first >= decoded or (last is not None and last > decoded):
        asked = f"{first} to {last}" if last is not None else f"from {first} on"
        raise UserError(
            f"{path} has {decoded} frames (0 to {decoded - 1}), asked for {asked}; remedy: first < last <= {decoded}"
        )
    return np.stack(frames), fps


def _stream_kinds(container: "InputContainer") -> str:
    return ", ".join(sorted({stream.type for stream in container.streams})) or "no streams at all"


def _refuse_too_big(path: Path, stream: "VideoStream", count: int) -> None:
    size = max(0, count) * stream.width * stream.height * 3
    if size > _BYTES_AT_MOST:
        raise UserError(
            f"{path}: {count} frames of {stream.width} x {stream.height} need {size / 2**30:.0f} GiB, "
            f"expected at most {_BYTES_AT_MOST >> 30}; remedy: ask for fewer with first and last, or scale the clip down"
        )


def _interpolation() -> Any:
    """How chroma is resampled: the exact way, or bilinearly with a PyAV that does not offer it.

    ACCURATE_RND alone makes FFmpeg take a path that is 2 of 255 too dark (white comes out as 253); FULL_CHR_H_INT avoids it.
    """
    from av.video.reformatter import Interpolation

    try:
        return Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
    except (AttributeError, TypeError):
        return Interpolation.BILINEAR


def _upright(frame: Any) -> np.ndarray:
    """One decoded frame as RGB, turned as its display matrix says (quarter turns; others are left alone)."""
    image = frame.to_ndarray(format="rgb24", interpolation=_interpolation())
    turned = getattr(frame, "rotation", 0)  # counter-clockwise, degrees
    turns = round(turned / 90.0)
    if turns % 4 and abs(turned - 90.0 * turns) < 1.0:
        image = np.ascontiguousarray(np.rot90(image, turns))
    return image


def _checked_frames(frames: Any) -> np.ndarray:
    array = np.asarray(frames)
    if array.dtype != np.uint8 or array.ndim != 4 or array.shape[-1] != 3:
        raise UserError(
            f"frames: expected uint8 of shape (frame, height, width, 3), got {array.dtype} of shape {array.shape}; "
            "remedy: images in [0, 1] become (255 * image + 0.5).clip(0, 255).astype('uint8')"
        )
    if 0 in array.shape:
        raise UserError(f"frames: expected at least one frame and one pixel, got shape {array.shape}")
    odd_rows, odd_columns = array.shape[1] % 2, array.shape[2] % 2
    if odd_rows or odd_columns:  # chroma is stored at half the resolution
        array = np.pad(array, ((0, 0), (0, odd_rows), (0, odd_columns), (0, 0)), mode="edge")
    return array


def write_video(path: Path | str, frames: np.ndarray, fps: float) -> Path:
    """Write an mp4 file in one step: H.264 (MPEG-4 part 2 where FFmpeg has no libx264), yuv420p, so that browsers play it.

    Arguments:
        frames: uint8 RGB, shape (frame, height, width, 3); an odd height or width is padded by repeating the last line.
        fps: frame rate [1/s].
    Raises: UserError for a wrong shape, type or rate, or when the file cannot be written; an old file is then kept.
    """
    import av

    path, array = Path(path), _checked_frames(frames)
    if not math.isfinite(fps) or fps <= 0:
        raise UserError(f"fps: expected a positive number, got {fps}")
    try:
        with replacing(path) as temporary:
            _encode(str(temporary), array, Fraction(fps).limit_denominator(10000))
    except (av.error.FFmpegError, OSError) as error:
        if isinstance(error, OSError):
            raise write_error(path, error) from error
        raise UserError(f"cannot write {path}: {error}") from error
    return path


def _encode(path: str, array: np.ndarray, rate: Fraction) -> None:
    import av
    from av.video.reformatter import ColorRange, Colorspace

    codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
    options = {"crf": "18", "preset": "veryfast"} if codec == "libx264" else {"qscale:v": "3"}
    method = _interpolation()
    with av.open(path, "w", format="mp4", options={"movflags": "faststart"}) as container:
        stream = container.add_stream(codec, rate=rate, options=options)
        stream.height, stream.width, stream.pix_fmt = array.shape[1], array.shape[2], "yuv420p"
        context = stream.codec_context
        context.colorspace, context.color_range = Colorspace.ITU709, ColorRange.MPEG
        context.color_primaries = context.color_trc = 1  # BT.709
        for image in array:
            frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709, dst_color_range=ColorRange.MPEG, interpolation=method
            )
            frame.color_range, frame.colorspace = ColorRange.MPEG, Colorspace.ITU709
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
