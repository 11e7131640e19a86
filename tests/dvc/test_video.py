"""Video files: round trip, colours against the standard's formula, rotation, and every kind of file that is no clip."""

import errno
import os
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from dvc.errors import UserError
from dvc.video import read_video, write_video


def smooth_clip(frames: int = 12, height: int = 48, width: int = 64) -> np.ndarray:
    """Colours that change slowly, moving down a row a frame."""
    k, y, x = np.ogrid[0:frames, 0:height, 0:width]
    down, right = 2 * np.pi * (y - k) / height, 2 * np.pi * x / width
    channels = (
        127 + 100 * np.sin(right) + 0 * down,
        127 + 90 * np.cos(down) * np.ones_like(right),
        120 + 80 * np.sin(down + right),
    )
    return np.stack(channels, axis=-1).round().astype(np.uint8)


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """12 frames of 48 x 64 at 29.921 a second."""
    return write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", smooth_clip(), 29.921)


def test_round_trip_keeps_count_size_rate_and_colours(clip):
    frames, fps = read_video(clip)
    assert frames.shape == (12, 48, 64, 3) and frames.dtype == np.uint8
    assert fps == pytest.approx(29.921, abs=1e-9)
    difference = frames.astype(float) - smooth_clip()
    assert np.abs(difference).mean() < 3.0
    assert np.abs(difference.mean(axis=(0, 1, 2))).max() < 1.0
    assert [path.name for path in clip.parent.iterdir()] == [clip.name]


def test_a_range_is_the_same_as_a_slice(clip):
    whole, _ = read_video(clip)
    part, _ = read_video(clip, 3, 8)
    rest, _ = read_video(clip, 9)
    assert np.array_equal(part, whole[3:8]) and np.array_equal(rest, whole[9:])


@pytest.mark.parametrize("colour", [(255, 255, 255), (0, 0, 0), (128, 128, 128), (255, 0, 0), (0, 255, 0), (30, 60, 220)])
def test_flat_colours_survive_and_luma_is_that_of_bt709(tmp_path, colour):
    import av

    frames = np.empty((2, 32, 32, 3), np.uint8)
    frames[:] = colour
    path = write_video(tmp_path / "flat.mp4", frames, 25)
    assert np.abs(read_video(path)[0].astype(int) - frames).max() <= 2
    with av.open(str(path)) as container:
        luma = next(container.decode(video=0)).to_ndarray()[16, 16]
    expected = 16 + 219 / 255 * np.dot((0.2126, 0.7152, 0.0722), colour)
    assert abs(luma - expected) <= 1


@pytest.mark.parametrize(
    ("matrix", "full", "weights"),
    [(5, False, (0.299, 0.587, 0.114)), (5, True, (0.299, 0.587, 0.114)), (1, True, (0.2126, 0.7152, 0.0722))],
)
def test_the_range_and_matrix_that_a_file_names_are_honoured(tmp_path, matrix, full, weights):
    """A file whose luma and chroma were computed here, by the standard's formula."""
    import av

    colour = np.array([200.0, 80.0, 40.0])
    luma = np.dot(weights, colour)
    blue, red = (colour[2] - luma) / (2 * (1 - weights[2])), (colour[0] - luma) / (2 * (1 - weights[0]))
    levels = (luma, 128 + blue, 128 + red) if full else (16 + 219 / 255 * luma, 128 + 224 / 255 * blue, 128 + 224 / 255 * red)
    path = tmp_path / "named.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width = stream.height = 32
        stream.pix_fmt = "yuvj420p" if full and matrix == 5 else "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = matrix, 2 if full else 1
        planes = np.concatenate(
            [np.full((32, 32), round(levels[0])), np.full((8, 32), round(levels[1])), np.full((8, 32), round(levels[2]))]
        )
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(planes.astype(np.uint8), format="yuv420p")
            frame.colorspace, frame.color_range = matrix, 2 if full else 1
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert np.abs(read_video(path)[0][1, 16, 16] - colour).max() <= 3


def turned_copy(clip: Path, path: Path) -> Path:
    """The clip with a track matrix that asks for a quarter turn clockwise, as phones write it.

    ISO 14496-12: x' = a x + c y + tx, y' = b x + d y + ty with (a, b, c, d) = (0, 1, -1, 0).
    """
    content = bytearray(clip.read_bytes())
    at = content.find(b"tkhd") + 4 + 40  # version 0: the matrix follows 40 bytes of other fields
    one, zero, minus = (0x10000).to_bytes(4, "big"), bytes(4), (-0x10000).to_bytes(4, "big", signed=True)
    unit = (0x40000000).to_bytes(4, "big")
    assert content[at : at + 36] == one + zero * 3 + one + zero * 3 + unit
    content[at : at + 36] = zero + one + zero + minus + zero * 2 + (48 << 16).to_bytes(4, "big") + zero + unit
    path.write_bytes(content)
    return path


def test_a_turned_clip_is_read_upright(clip, tmp_path):
    upright, _ = read_video(turned_copy(clip, tmp_path / "turned.mp4"))
    assert upright.shape == (12, 64, 48, 3)
    assert np.array_equal(upright, np.rot90(read_video(clip)[0], -1, axes=(1, 2)))


def test_odd_sizes_are_padded_by_the_last_line(tmp_path):
    frames, _ = read_video(write_video(tmp_path / "odd.mp4", smooth_clip(3, 33, 47), 10))
    assert frames.shape == (3, 34, 48, 3)
    assert np.abs(frames[:, :33, :47].astype(float) - smooth_clip(3, 33, 47)).mean() < 4.0


def test_without_libx264_another_codec_is_used(tmp_path, monkeypatch):
    import av

    monkeypatch.setattr(av, "codecs_available", {"mpeg4"})
    path = write_video(tmp_path / "other.mp4", smooth_clip(), 25)
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "mpeg4"
    assert np.abs(read_video(path)[0].astype(float) - smooth_clip()).mean() < 5.0


def sound_only(path: Path) -> Path:
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate, frame.time_base = 44100, Fraction(1, 44100)
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing", "no video at .*remedy"),
        ("empty", "is empty"),
        ("directory", "is a directory"),
        ("text", "not a video"),
        ("sound", "no video stream .*audio"),
        ("beheaded", "no video stream .*a whole video file"),
        ("tail missing", r"\(not a video, or cut off\)"),
    ],
)
def test_what_is_no_clip_is_refused_in_one_line(tmp_path, clip, kind, words):
    path = tmp_path / "x.mp4"
    if kind == "empty":
        path.write_bytes(b"")
    elif kind == "directory":
        path.mkdir()
    elif kind == "text":
        path.write_text("hello " * 100)
    elif kind == "sound":
        sound_only(path)
    elif kind == "beheaded":
        path.write_bytes(clip.read_bytes()[:300])
    elif kind == "tail missing":  # where the index of frames stands last, as phones write it
        content = clip.read_bytes()
        index, data = content.find(b"moov") - 4, content.find(b"mdat") - 4
        path.write_bytes(content[:index] + content[data:])
    with pytest.raises(UserError, match=words) as caught:
        read_video(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_a_clip_that_is_cut_off_says_how_much_is_there(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (40, 48, 64, 3), dtype=np.uint8)
    whole = write_video(tmp_path / "whole.mp4", noise, 25)
    path = tmp_path / "cut.mp4"
    path.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(UserError, match=r"cut off or damaged: only [0-9]+ of 40 frames") as caught:
        read_video(path)
    assert "\n" not in str(caught.value)
    assert read_video(path, 0, 3)[0].shape[0] == 3
    with pytest.raises(UserError, match="cut off"):
        read_video(path, 0, 39)


@pytest.mark.parametrize(("first", "last"), [(0, 13), (12, None), (5, 100), (40, 50)])
def test_a_range_beyond_the_clip_says_how_many_frames_there_are(clip, first, last):
    with pytest.raises(UserError, match="has 12 frames"):
        read_video(clip, first, last)


@pytest.mark.parametrize(("first", "last"), [(-1, None), (5, 5), (6, 2), (0, 2.5), (True, None)])
def test_a_range_without_sense_is_refused(clip, first, last):
    with pytest.raises(UserError, match="expected"):
        read_video(clip, first, last)


@pytest.mark.parametrize(
    ("frames", "words"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), "expected uint8"),
        (np.zeros((8, 8, 3), np.uint8), "expected uint8 of shape"),
        (np.zeros((0, 8, 8, 3), np.uint8), "at least one frame"),
    ],
)
def test_wrong_frames_are_refused(tmp_path, frames, words):
    with pytest.raises(UserError, match=words):
        write_video(tmp_path / "x.mp4", frames, 25)
    with pytest.raises(UserError, match="fps"):
        write_video(tmp_path / "x.mp4", smooth_clip(), float("nan"))
    assert not list(tmp_path.iterdir())


def test_a_full_disk_keeps_the_old_video(tmp_path, monkeypatch):
    path = write_video(tmp_path / "x.mp4", smooth_clip(), 25)
    before = path.read_bytes()

    def full(*arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match="No space left"):
        write_video(path, smooth_clip(5), 25)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


def test_a_clip_too_big_for_memory_is_refused(clip, monkeypatch):
    monkeypatch.setattr("dvc.video._BYTES_AT_MOST", 48 * 64 * 3 * 5)
    with pytest.raises(UserError, match=r"GiB.*first and last"):
        read_video(clip)
    assert len(read_video(clip, 4, 8)[0]) == 4


@pytest.mark.slow
@pytest.mark.data("pendulum_wall")
def test_the_pendulum_clip():
    from dvc.data import find

    path = find("pendulum_wall", download=False)
    frames, fps = read_video(path)
    assert frames.shape == (334, 640, 360, 3) and fps == pytest.approx(29.921)
    assert np.array_equal(read_video(path, 100, 103)[0], frames[100:103])
