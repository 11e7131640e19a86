"""Cameras against projections worked out by hand."""

import math

import pytest
import torch

from dvc.gradient_check import gradient_check
from dvc.records import Camera
from render.camera import (
    AnchoredCamera,
    CameraShutter,
    DriftingCamera,
    MetresFromPixels,
    OrthographicCamera,
    PinholeCamera,
    project,
    rotation_from_angles,
)
from tests.physics.scenes import assert_certified, scalar


def one(camera: Camera, *point: float) -> list[float]:
    return project(camera, torch.tensor([point]))[0].tolist()


def test_a_pinhole_that_looks_along_y_divides_by_depth() -> None:
    camera = PinholeCamera((320.0, 240.0))(torch.tensor([[0.5, -2.0, 1.0]]), scalar(600.0))
    assert one(camera, 0.5, 0.0, 1.0) == pytest.approx([320.0, 240.0])
    assert one(camera, 0.7, 0.0, 1.1) == pytest.approx([320.0 + 600.0 * 0.1, 240.0 - 600.0 * 0.05])
    assert one(camera, 0.7, 2.0, 1.1) == pytest.approx([320.0 + 600.0 * 0.05, 240.0 - 600.0 * 0.025])


def test_without_perspective_depth_does_not_count() -> None:
    camera = OrthographicCamera()(torch.tensor([[100.0, 50.0]]), scalar(200.0))
    for depth in (-3.0, 0.0, 5.0):
        assert one(camera, 0.1, depth, 0.2) == pytest.approx([120.0, 10.0])


def test_each_angle_turns_the_view_as_its_name_says() -> None:
    def seen(point: list[float], **angles: float) -> list[float]:
        camera = PinholeCamera((0.0, 0.0))(
            torch.zeros(1, 3), scalar(100.0), **{name: scalar(value) for name, value in angles.items()}
        )
        return one(camera, *point)

    a = 0.3
    # positive yaw turns the view to the left, positive pitch downwards: what lies there is in the middle
    assert seen([-math.sin(a), math.cos(a), 0.0], yaw=a) == pytest.approx([0.0, 0.0], abs=1e-4)
    assert seen([0.0, math.cos(a), -math.sin(a)], pitch=a) == pytest.approx([0.0, 0.0], abs=1e-4)
    # roll turns the picture about the principal point: (x, y) -> (x cos - y sin, x sin + y cos)
    assert seen([0.2, 1.0, 0.0], roll=a) == pytest.approx([20.0 * math.cos(a), 20.0 * math.sin(a)], abs=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_rotations_are_rotations(seed: int) -> None:
    pitch, roll, yaw = torch.randn(3, 5, generator=torch.Generator().manual_seed(seed))
    rotation = rotation_from_angles(pitch, roll, yaw)
    torch.testing.assert_close(rotation @ rotation.transpose(1, 2), torch.eye(3).expand(5, 3, 3), atol=1e-5, rtol=0.0)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(5))
    torch.testing.assert_close(
        rotation_from_angles(*torch.zeros(3, 1))[0], torch.tensor([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])
    )


ANGLES = [{}, {"pitch": 0.2, "roll": -0.3, "yaw": 0.1}]


@pytest.mark.parametrize("angles", ANGLES)
def test_an_anchored_camera_shows_the_origin_at_its_anchor_and_lengths_as_they_span(angles: dict[str, float]) -> None:
    turned = {name: scalar(value) for name, value in angles.items()}
    camera = AnchoredCamera((180.0, 320.0))(
        torch.tensor([[302.0, 108.0]]), scalar(440.0), scalar(0.57), scalar(560.0), **turned
    )
    assert one(camera, 0.0, 0.0, 0.0) == pytest.approx([302.0, 108.0], abs=1e-3)
    for axis in range(2):  # metres along the picture's own axes
        along = camera.rotation[0, axis] * 0.57
        moved = torch.tensor(one(camera, *along.tolist())) - torch.tensor([302.0, 108.0])
        expected = torch.zeros(2)
        expected[axis] = 440.0
        torch.testing.assert_close(moved, expected, atol=2e-3, rtol=0.0)


def test_the_metric_length_changes_the_scale_and_not_the_picture() -> None:
    stage = AnchoredCamera((180.0, 320.0))
    directions = torch.randn(1, 6, 3, generator=torch.Generator().manual_seed(1)) * 0.3
    pictures = []
    for length in (0.3, 0.6):
        camera = stage(torch.tensor([[302.0, 108.0]]), scalar(440.0), scalar(length), scalar(560.0), roll=scalar(0.1))
        pictures.append(project(camera, directions * length))
    torch.testing.assert_close(pictures[0], pictures[1], atol=1e-2, rtol=0.0)


def test_worlds_of_any_argument_are_taken() -> None:
    camera = AnchoredCamera((180.0, 320.0))(
        torch.tensor([[302.0, 108.0]]), torch.tensor([400.0, 440.0]), scalar(0.57), scalar(560.0)
    )
    torch.testing.assert_close(
        project(camera, torch.zeros(2, 3)), torch.tensor([[302.0, 108.0]]).expand(2, 2), atol=1e-3, rtol=0.0
    )
    points = torch.randn(2, 4, 5, 3, generator=torch.Generator().manual_seed(0)) * 0.1
    together = project(camera, points)
    assert together.shape == (2, 4, 5, 2)
    for world in range(2):
        alone = AnchoredCamera((180.0, 320.0))(
            torch.tensor([[302.0, 108.0]]), torch.tensor([400.0, 440.0])[world : world + 1], scalar(0.57), scalar(560.0)
        )
        torch.testing.assert_close(project(alone, points[world : world + 1])[0], together[world])


def anchored() -> Camera:
    return AnchoredCamera((180.0, 320.0))(
        torch.tensor([[302.0, 108.0]]), scalar(440.0), scalar(0.57), scalar(560.0), roll=scalar(0.1)
    )


def test_a_camera_that_drifts_keeps_the_origin_and_scales_and_turns_the_rest() -> None:
    distance, roll = torch.tensor([[0.0, 0.1, 0.2]]), torch.tensor([[0.0, 0.2]])
    drifting = DriftingCamera(9)(anchored(), distance, roll)
    assert drifting.position.shape == (1, 9, 3) and drifting.rotation.shape == (1, 9, 3, 3)
    origin = project(drifting, torch.zeros(1, 9, 3))
    torch.testing.assert_close(origin, torch.tensor([302.0, 108.0]).expand(1, 9, 2), atol=2e-3, rtol=0.0)
    offset = anchored().rotation[0, 0] * 0.1
    seen = project(drifting, offset.expand(1, 9, 3)) - origin
    torch.testing.assert_close(seen[0, 0], project(anchored(), offset[None])[0] - origin[0, 0], atol=1e-3, rtol=0.0)
    # the way to the origin grows linearly, by a fifth in the end, and the picture turns by 0.2 about it
    size = 0.1 * 440.0 / 0.57 / (1.0 + 0.2 * torch.arange(9) / 8.0)
    turn = 0.2 * torch.arange(9) / 8.0
    expected = torch.stack([size * torch.cos(turn), size * torch.sin(turn)], -1)
    torch.testing.assert_close(seen[0], expected, atol=0.05, rtol=0.0)
    part = DriftingCamera(9)(anchored(), distance, roll, frames=4)
    assert torch.equal(part.position, drifting.position[:, :4])


def test_gradient_of_a_drift() -> None:
    stage = DriftingCamera(9)
    inputs = [torch.tensor([[0.02, 0.1, -0.1]]), torch.tensor([[0.05, 0.2]])]
    rows = gradient_check(
        lambda *x: project(stage(anchored(), *x), torch.full((1, 9, 3), 0.2)),
        [t.requires_grad_() for t in inputs],
        ["distance", "roll"],
    )
    assert_certified(rows)


def test_metres_from_pixels() -> None:
    assert float(MetresFromPixels()(scalar(20.0), scalar(400.0), scalar(0.5))) == pytest.approx(0.025)


def test_a_shutter_without_readout_opens_everywhere_at_once() -> None:
    assert CameraShutter()(torch.tensor([0.4, 0.5])).readout.tolist() == [[0.0, 0.0], [0.0, 0.0]]
    assert CameraShutter()(scalar(0.4), readout_y=scalar(0.01)).readout.tolist() == [[0.0, pytest.approx(0.01)]]
    assert CameraShutter()(scalar(0.4), torch.tensor([0.01, 0.02])).readout.shape == (2, 2)


POINTS = torch.tensor([[[0.1, 0.2, -0.3], [-0.2, 0.1, -0.5]]])


def test_gradient_of_every_argument_of_an_anchored_camera() -> None:
    stage = AnchoredCamera((180.0, 320.0))
    inputs = [torch.tensor([[302.0, 108.0]]), *(torch.tensor([x]) for x in (440.0, 0.57, 560.0, 0.2, -0.3, 0.1)), POINTS]
    names = ["anchor", "span", "length", "focal", "pitch", "roll", "yaw", "points"]
    rows = gradient_check(lambda *x: project(stage(*x[:-1]), x[-1]), [t.clone().requires_grad_() for t in inputs], names)
    assert_certified(rows)


def test_gradient_of_every_argument_of_a_pinhole_and_an_orthographic_camera() -> None:
    stage = PinholeCamera((320.0, 240.0))
    inputs = [
        torch.tensor([[0.1, -1.5, 0.2]]),
        *(torch.tensor([x]) for x in (600.0, 0.2, -0.3, 0.1)),
        torch.tensor([[300.0, 250.0]]),
        POINTS,
    ]
    names = ["position", "focal", "pitch", "roll", "yaw", "center", "points"]
    assert_certified(
        gradient_check(lambda *x: project(stage(*x[:-1]), x[-1]), [t.clone().requires_grad_() for t in inputs], names)
    )
    flat = OrthographicCamera()
    inputs = [torch.tensor([[32.0, 24.0]]), *(torch.tensor([x]) for x in (100.0, 0.2, -0.3, 0.1)), POINTS]
    names = ["anchor", "scale", "pitch", "roll", "yaw", "points"]
    assert_certified(
        gradient_check(lambda *x: project(flat(*x[:-1]), x[-1]), [t.clone().requires_grad_() for t in inputs], names)
    )
