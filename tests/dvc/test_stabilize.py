"""The camera's motion from the background: a synthetic shake is found again, and conventions of pixels hold."""

import cv2
import numpy as np
import pytest

from dvc import UserError
from dvc.stabilize import apply_motion, background_motions, identity_motions, stabilized_crop

WIDTH, HEIGHT = 240, 180


def texture(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """A smooth pattern of a wall, at continuous pixels (0, 0 is a corner), (..., 3) in [0, 1]."""
    waves = [(0.09, 0.05, 0.3), (-0.06, 0.11, 1.0), (0.19, -0.13, 2.0), (0.03, 0.21, 0.7), (0.23, 0.16, 1.9)]
    value = 0.5 + sum(0.09 * np.sin(a * x + b * y + c) for a, b, c in waves)
    return value[..., None] * np.array([1.0, 0.9, 0.8])


def motion(dx: float, dy: float, turn: float, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """Reference pixels -> frame pixels: a turn about the middle, and a shift."""
    c, s = np.cos(turn), np.sin(turn)
    rotation, middle = np.array([[c, -s], [s, c]]), np.array([width / 2, height / 2])
    return np.column_stack([rotation, middle - rotation @ middle + [dx, dy]])


def view(m: np.ndarray, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """The frame of a camera with this motion, uint8, sampled exactly at pixel centres."""
    rows, columns = np.mgrid[:height, :width]
    points = np.stack([columns + 0.5, rows + 0.5], -1)
    reference = (points - m[:, 2]) @ np.linalg.inv(m[:, :2]).T
    return np.clip(255 * texture(reference[..., 0], reference[..., 1]) + 0.5, 0, 255).astype(np.uint8)


def corners(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    return np.array([[0.0, 0.0], [width, 0.0], [0.0, height], [width, height], [width / 2, height / 2]])


def shake(count: int) -> list[np.ndarray]:
    k = np.arange(count) - count // 2
    return [motion(2.7 * np.sin(0.5 * i), 1.9 * np.sin(0.7 * i), 0.012 * np.sin(0.4 * i)) for i in k]


@pytest.mark.parametrize("size", [(WIDTH, HEIGHT), (241, 181)], ids=["even", "odd"])
def test_a_known_shake_is_found(size):
    truth = [motion(2.7 * np.sin(0.5 * i), 1.9 * np.sin(0.7 * i), 0.012 * np.sin(0.4 * i), *size) for i in range(-4, 5)]
    frames = np.stack([view(m, *size) for m in truth])
    found = background_motions(frames, [])
    assert found.shape == (9, 2, 3) and np.allclose(found[4], np.eye(2, 3), atol=1e-3)
    for m, f in zip(truth, found, strict=True):
        error = np.abs(apply_motion(f, corners(*size)) - apply_motion(m, corners(*size))).max()
        assert error < 0.1, error


def test_what_moves_is_left_out():
    truth = shake(7)
    frames = np.stack([view(m) for m in truth])
    boxes = [(45, 65, 185, 115)]
    for k, frame in enumerate(frames):
        cv2.circle(frame, (70 + 15 * k, 90), 22, (255, 0, 0), -1)
    found = background_motions(frames, boxes)
    for m, f in zip(truth, found, strict=True):
        assert np.abs(apply_motion(f, corners()) - apply_motion(m, corners())).max() < 0.1


def test_the_reference_can_be_chosen():
    truth = shake(5)
    found = background_motions(np.stack([view(m) for m in truth]), [], reference=0)
    assert np.allclose(found[0], np.eye(2, 3), atol=1e-3)
    for m, f in zip(truth, found, strict=True):
        back = np.linalg.inv(np.vstack([truth[0], [0, 0, 1]]))
        expected = apply_motion(m, apply_motion(back[:2], corners()))
        assert np.abs(apply_motion(f, corners()) - expected).max() < 0.1


def test_a_crop_shows_the_reference():
    m = motion(2.3, -1.4, 0.01)
    crop = stabilized_crop(view(m), m, 50, 40, 100, 80).astype(float)
    rows, columns = np.mgrid[:80, :100]
    exact = 255 * texture(columns + 50.5, rows + 40.5)
    assert np.abs(crop - exact).max() < 4.0  # bilinear interpolation and eight bits
    still = stabilized_crop(view(motion(0, 0, 0)), np.eye(2, 3), 50, 40, 100, 80)
    assert np.array_equal(still, view(motion(0, 0, 0))[40:120, 50:150])
    over = stabilized_crop(view(motion(0, 0, 0)), np.eye(2, 3), -10, -5, 30, 20)
    assert np.array_equal(over[5:, 10:], view(motion(0, 0, 0))[:15, :20]) and (over[:, :10] == over[:, 10:11]).all()


def test_identity():
    assert identity_motions(3).shape == (3, 2, 3)
    assert np.array_equal(apply_motion(identity_motions(1)[0], corners()), corners())


def test_what_is_refused():
    frames = np.stack([view(motion(0, 0, 0))] * 3)
    with pytest.raises(UserError, match="at least 10 % of the frame"):
        background_motions(frames, [(0, 0, WIDTH, HEIGHT)])
    other = np.random.default_rng(0).integers(0, 255, frames.shape[1:]).astype(np.uint8)
    with pytest.raises(UserError, match=r"stabilize: .*frame 2.*remedy") as caught:
        background_motions(np.stack([frames[0], frames[1], other]), [])
    assert "\n" not in str(caught.value)
