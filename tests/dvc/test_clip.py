"""Clip: from a file to frames at several resolutions, and where each pixel comes from."""

import math

import numpy as np
import pytest
import torch

import dvc.data
from dvc import UserError
from dvc.clip import Band, Clip, background_plate, plain_backdrop
from dvc.data import DataUnavailable
from dvc.video import write_video

WIDTH, HEIGHT, COUNT = 160, 120, 12
RADIUS = 4.0


def wall(dx: float = 0.0, dy: float = 0.0) -> np.ndarray:
    """A grey wall with some structure, shifted, float (row, column, 3) in [0, 1]."""
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    x, y = x - dx, y - dy
    value = (
        0.45
        + 0.09 * np.sin(0.15 * x + 0.09 * y) * np.cos(0.11 * y)
        + 0.07 * np.sin(0.27 * x - 0.2 * y)
        + 0.05 * np.cos(0.3 * y)
    )
    return np.repeat(value[..., None], 3, axis=2)


def with_dot(image: np.ndarray, x: float, y: float) -> np.ndarray:
    """A soft red dot centred at continuous pixel (x, y)."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    amount = 0.5 * np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * RADIUS**2))
    return image + amount[..., None] * np.array([1.0, -0.5, -0.5])


def to_bytes(image: np.ndarray) -> np.ndarray:
    return np.clip(255 * image + 0.5, 0, 255).astype(np.uint8)


def track(count: int = COUNT) -> np.ndarray:
    """Where the dot is, at sub-pixels, (frame, 2): it crosses the region and never stays."""
    k = np.arange(count)
    return np.stack([40.3 + 6.37 * k, 55.7 + 9.1 * np.sin(0.5 * k)], -1)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    frames = np.stack([to_bytes(with_dot(wall(), *p)) for p in track()])
    return str(write_video(tmp_path_factory.mktemp("clip") / "dot.mp4", frames, 30.0))


REGION = (24, 26, 132, 94)
LEVELS = ({"scale": 0.125, "pad": 16}, {"scale": 0.25}, {"scale": 1 / 3, "pad": 5}, {"scale": 1.0})


def centres(dots: Clip, empty: Clip, level: int) -> np.ndarray:
    """Where the dot is at a level, in full pixels, (frame, 2): the first moments of the difference, without a threshold."""
    film = dots(level).film
    mass = (
        (dots(level).images - empty(level).images)[0].double() @ torch.tensor([1.0, -0.5, -0.5], dtype=torch.float64)
    ).numpy()
    x = film.left + (np.arange(film.columns) + 0.5) / film.scale
    y = film.top + (np.arange(film.rows) + 0.5) / film.scale
    total = mass.sum((1, 2))
    return np.stack([(mass.sum(1) @ x) / total, (mass.sum(2) @ y) / total], -1)


def loaded(frames: list[np.ndarray], levels, stabilize: bool = False) -> Clip:
    clip = Clip(None, 0, len(frames), REGION, levels, frame_rate=30.0, size=(WIDTH, HEIGHT))
    clip.load(np.stack([to_bytes(f) for f in frames]), stabilize=stabilize)
    return clip


def test_levels_and_their_films(path):
    clip = Clip(path, 0, COUNT, REGION, LEVELS, stabilize=False)
    assert clip.available and clip.frame_rate == 30.0 and (clip.width, clip.height) == (WIDTH, HEIGHT)
    for i, (step, pad) in enumerate([(8, 16), (4, 0), (3, 5), (1, 0)]):
        frames, film = clip(i), clip(i).film
        assert (film.width, film.height, film.left, film.top) == (WIDTH, HEIGHT, 24 - pad, 26 - pad)
        assert film.scale == pytest.approx(1 / step)
        assert film.columns == math.ceil((108 + 2 * pad) / step) and film.rows == math.ceil((68 + 2 * pad) / step)
        assert frames.images.shape == (1, COUNT, film.rows, film.columns, 3) and frames.background.shape == (
            film.rows,
            film.columns,
            3,
        )
        assert frames.images.dtype == torch.float32 and frames.images.min() >= 0.0 and frames.images.max() <= 1.0
    assert clip(1, 5).images.shape[1] == 5 and clip(1, 500).images.shape[1] == COUNT and clip(1, None).images.shape[1] == COUNT


def in_the_picture(points: np.ndarray) -> np.ndarray:
    """Whether the dot's tails are inside the region."""
    left, top, right, bottom = REGION
    margin = 4.5 * RADIUS
    return (points > [left + margin, top + margin]).all(1) & (points < [right - margin, bottom - margin]).all(1)


@pytest.mark.parametrize("level", range(len(LEVELS)))
def test_a_dot_is_found_where_it_is(level):
    clip, empty = loaded([with_dot(wall(), *p) for p in track()], LEVELS), loaded([wall()] * COUNT, LEVELS)
    inside = in_the_picture(track())
    assert inside.sum() >= 5
    error = (centres(clip, empty, level) - track())[inside]
    assert np.abs(error.mean(0)).max() < 0.05
    # a grey step of the coarsest level is as much as 64 steps of a pixel: there a single frame is less certain
    assert np.abs(error).max() < (0.05 if level else 0.2), error


def test_a_pixel_of_a_level_is_the_mean_of_its_pixels(path):
    clip = Clip(path, 0, COUNT, REGION, LEVELS, stabilize=False)
    video = np.random.default_rng(0).integers(0, 255, (2, HEIGHT, WIDTH, 3)).astype(np.uint8)
    clip.load(video, stabilize=False)
    block = video[1, 26 - 16 + 8 : 26 - 16 + 16, 24 - 16 + 24 : 24 - 16 + 32].reshape(-1, 3).mean(0)
    assert np.allclose(clip(0).images[0, 1, 1, 3].numpy() * 255, block, atol=0.51)
    assert np.array_equal((clip(3).images[0, 1] * 255).round().numpy(), video[1, 26:94, 24:132])


def test_the_plate_does_not_show_the_dot(path):
    exact = wall()[REGION[1] : REGION[3], REGION[0] : REGION[2]]
    exact = exact.reshape(len(exact) // 2, 2, exact.shape[1] // 2, 2, 3).mean((1, 3))
    clip = loaded([with_dot(wall(), *p) for p in track()], ({"scale": 0.5},))
    assert np.abs(clip().background.numpy() - exact).max() < 0.01
    compressed = Clip(path, 0, COUNT, REGION, ({"scale": 0.5},), stabilize=False)
    assert np.abs(compressed().background.numpy() - exact).max() < 0.1  # the codec blurs colours into their neighbours
    assert np.abs(compressed().background.numpy() - exact).mean() < 0.01
    assert np.abs(clip().images[0].numpy() - exact).max() > 0.3


def test_a_plate_behind_something_that_stays_long():
    crops = np.full((40, 8, 8, 3), 90, np.uint8)
    crops[:18, 2:6, 2:6] = (250, 20, 20)  # nearly half of the time
    crops += np.random.default_rng(0).integers(0, 4, crops.shape).astype(np.uint8)
    assert np.abs(background_plate(crops) * 255 - 91.5).max() < 3.0
    assert np.isfinite(background_plate(crops[:1])).all()


def test_a_window_of_the_file(path):
    whole, part = (Clip(path, a, b, REGION, ({"scale": 1.0},), stabilize=False) for a, b in ((0, COUNT), (3, 9)))
    assert torch.equal(part().images, whole().images[:, 3:9])


@pytest.mark.parametrize(("changes", "message"), [
    ({"last": COUNT + 5}, "has 12 frames"),
    ({"first": 20, "last": 25}, "has 12 frames"),
    ({"first": 5, "last": 5}, "0 <= first < last"),
    ({"first": -1}, "0 <= first < last"),
    ({"region": (0, 0, WIDTH + 1, 50)}, "Clip.region"),
    ({"region": (-3, 0, 50, 50)}, "Clip.region"),
    ({"region": (50, 20, 40, 50)}, "Clip.region"),
    ({"region": (50, 20, 50, 50)}, "Clip.region"),
    ({"region": (50, 20, 60)}, "Clip.region"),
    ({"region": (50, math.nan, 60, 70)}, "Clip.region"),
    ({"levels": ({"scale": 0.3},)}, "expected 1, 1/2, 1/3"),
    ({"levels": ({"scale": 2.0},)}, "expected 1, 1/2, 1/3"),
    ({"levels": ({"scale": 0.0},)}, "expected 1, 1/2, 1/3"),
    ({"levels": ({"size": 0.5},)}, r"Clip.levels\[0\]"),
    ({"levels": ()}, "Clip.levels"),
    ({"frame_rate": -1.0}, "Clip.frame_rate"),
    ({"path": "nowhere.mp4"}, "nowhere.mp4"),
    ({"path": None, "frame_rate": 30.0}, "Clip.size"),
    ({"path": None, "size": (160, 120)}, "Clip.frame_rate"),
])  # fmt: skip
def test_what_is_refused(path, changes, message):
    arguments = {"path": path, "first": 0, "last": COUNT, "region": REGION, "stabilize": False} | changes
    with pytest.raises(UserError, match=message) as caught:
        Clip(**arguments)
    assert "\n" not in str(caught.value)


def test_a_level_that_is_not_there(path):
    with pytest.raises(UserError, match="level: expected 0 to 3, got 4"):
        Clip(path, 0, COUNT, REGION, LEVELS, stabilize=False)(4)


def test_a_text_file_is_no_video(tmp_path):
    (tmp_path / "a.mp4").write_text("hello")
    with pytest.raises(UserError, match="cannot be opened as a video"):
        Clip(str(tmp_path / "a.mp4"), 0, 2, REGION)


# -- a camera that moves ----------------------------------------------------------------------------------------------
def test_a_shake_is_taken_out_and_put_back():
    shifts = np.array([[0.0, 0.0], [1.3, -0.8], [2.4, 0.5], [0.9, 1.7], [-1.1, 0.6]])
    dots = track(5)
    frames = [with_dot(wall(*s), *(p + s)) for s, p in zip(shifts, dots, strict=True)]
    clip = loaded(frames, ({"scale": 1.0},), stabilize=True)
    empty = loaded([wall(*s) for s in shifts], ({"scale": 1.0},), stabilize=True)
    there = dots + shifts[2]  # the middle frame is the reference
    inside = in_the_picture(there)
    assert inside.sum() >= 3
    assert np.abs(centres(clip, empty, 0) - there)[inside].max() < 0.1
    assert np.abs(clip.to_original(there) - (dots + shifts)).max() < 0.1
    plain = loaded(frames, ({"scale": 1.0},))
    assert np.array_equal(plain.to_original(there), there)


# -- no data ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def no_data(monkeypatch, tmp_path):
    def refuse(*_):
        raise OSError("no network in tests")

    monkeypatch.delenv("DIFFVC_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dvc.data, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(dvc.data, "_download", refuse)


def test_a_missing_item_leaves_the_clip_empty_where_it_may(no_data):
    clip = Clip("data:pendulum_wall", 0, 30, (45, 440, 345, 600), frame_rate=29.9, size=(360, 640))
    assert not clip.available and "pendulum_wall" in clip.why_empty and (clip.width, clip.height) == (360, 640)
    assert clip().images.shape[1] == 1
    band = clip(Band(440, 600))
    assert band.film.scale == 1.0 and band.background.shape == (160, 360, 3)
    assert np.allclose(band.background.numpy(), plain_backdrop(360, 640)[440:600])
    with pytest.raises(DataUnavailable, match="pendulum_wall"):
        Clip("data:pendulum_wall", 0, 30, (45, 440, 345, 600))
    with pytest.raises(UserError, match="expected one of pendulum_wall"):
        Clip("data:pendulum", 0, 30, (45, 440, 345, 600), frame_rate=29.9, size=(360, 640))


def test_a_plate_behind_a_thing_that_stays():
    """A red thing covers the pixel in 70 of 100 frames; its colour tells which of the two is the plate."""
    rng = np.random.default_rng(0)
    crops = np.full((100, 3, 4, 3), 120.0) + rng.normal(0.0, 1.5, (100, 3, 4, 3))
    crops[30:, 1, 2] = np.array([200.0, 40.0, 30.0]) + rng.normal(0.0, 1.5, (70, 3))
    crops = np.round(crops).astype(np.uint8)
    with_color, without = background_plate(crops, [1.0, -1.0, 0.0]), background_plate(crops)
    assert np.abs(with_color * 255.0 - 120.0).max() < 1.0
    assert np.abs(without * 255.0 - 120.0)[1, 2].max() > 50.0


def test_beyond_the_frame_there_is_only_the_plate():
    """Padding must not repeat the noise of the frame's border, frame by frame."""
    rng = np.random.default_rng(0)
    video = rng.integers(90, 160, (6, HEIGHT, WIDTH, 3)).astype(np.uint8)
    clip = Clip(None, 0, 6, REGION, [{"scale": 0.5, "pad": 400}], frame_rate=24.0, size=(WIDTH, HEIGHT))
    clip.load(video, stabilize=False)
    frames = clip(0)
    x = frames.film.left + (np.arange(frames.film.columns) + 0.5) / frames.film.scale
    beyond = (x < 0) | (x > WIDTH)
    assert beyond.any() and not beyond.all()
    difference = (frames.images[0] - frames.background).abs()
    assert float(difference[:, :, beyond].max()) == 0.0
    assert float(difference[:, :, ~beyond].max()) > 0.01


def test_a_clip_that_is_to_be_rendered():
    clip = Clip(None, 0, 4, REGION, LEVELS, frame_rate=24.0, size=(WIDTH, HEIGHT))
    assert not clip.available and clip.frame_rate == 24.0
    clip.load(np.stack([to_bytes(with_dot(wall(), *p)) for p in track(4)]), stabilize=False)
    assert clip(1).images.shape[1] == 4
