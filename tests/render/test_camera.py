"""Cameras against projections worked out by hand."""

import math

import pytest
import torch
from torch import Tensor

from dvc import Unsupported, UserError
from dvc.gradient_check import gradient_check
from dvc.records import Camera
from render.camera import (
    AnchoredCamera,
    CameraShutter,
    DriftingCamera,
    LookAtCamera,
    MetresFromPixels,
    OrthographicCamera,
    PinholeCamera,
    project,
    require_undistorted,
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


def test_a_camera_that_looks_at_a_point_sees_it_in_the_middle() -> None:
    position, target = torch.tensor([[1.0, -2.0, 1.5], [0.3, 4.0, -1.0]]), torch.tensor([[0.2, 0.4, 0.1]])
    camera = LookAtCamera(320, 200)(position, target, fov=torch.tensor([0.8]))
    torch.testing.assert_close(project(camera, target.expand(2, 3)), torch.tensor([[160.0, 100.0]]).expand(2, 2))
    rotation = camera.rotation
    torch.testing.assert_close(rotation @ rotation.transpose(1, 2), torch.eye(3).expand(2, 3, 3), atol=1e-6, rtol=0.0)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(2))
    above = project(camera, target.expand(2, 3) + torch.tensor([0.0, 0.0, 0.1]))
    assert (above[:, 1] < 99.0).all() and float((above[:, 0] - 160.0).abs().max()) < 1e-3
    turned = LookAtCamera(320, 200)(position, target, focal=torch.tensor([300.0]), roll=torch.tensor([0.3]))
    above = project(turned, target.expand(2, 3) + torch.tensor([0.0, 0.0, 0.1])) - torch.tensor([160.0, 100.0])
    torch.testing.assert_close(torch.atan2(above[:, 0], -above[:, 1]), torch.full((2,), 0.3), atol=1e-4, rtol=0.0)


def test_a_look_at_camera_follows_the_definition_by_rays() -> None:
    """Film point (x, y) looks along forward + (1 - 2x/W) tan(fov/2) left + (1 - 2y/H) tan(fov/2) (H/W) up'."""
    width, height, fov = 64, 48, 0.7
    position, target, up = (
        torch.tensor([v], dtype=torch.float64) for v in ([2.0, 1.5, 3.0], [0.1, 0.2, -0.3], [0.0, 1.0, 0.0])
    )
    forward = torch.nn.functional.normalize(target - position)
    left = torch.nn.functional.normalize(torch.linalg.cross(up, forward))
    upward = torch.linalg.cross(forward, left)
    camera = LookAtCamera(width, height)(position, target, fov=torch.tensor([fov], dtype=torch.float64), up=up)
    for x, y in ((0.0, 0.0), (64.0, 48.0), (10.5, 40.25)):
        slope = math.tan(fov / 2)
        ray = forward + (1 - 2 * x / width) * slope * left + (1 - 2 * y / height) * slope * (height / width) * upward
        assert project(camera, position + 2.5 * ray)[0].tolist() == pytest.approx([x, y], abs=1e-9)


def test_gradient_of_every_argument_of_a_look_at_camera() -> None:
    stage = LookAtCamera(320, 200)
    position, target, up = (torch.tensor([v]) for v in ([1.0, -2.0, 1.5], [0.2, 0.4, 0.1], [0.1, 0.2, 1.0]))
    inputs = [position, target, torch.tensor([0.8]), up, torch.tensor([0.3]), torch.tensor([[-0.2, 0.05, 0.004, -0.003, 0.01]])]
    names = ["position", "target", "fov", "up", "roll", "distortion"]

    def seen(position: Tensor, target: Tensor, fov: Tensor, up: Tensor, roll: Tensor, distortion: Tensor) -> Tensor:
        return project(stage(position, target, fov, up=up, roll=roll, distortion=distortion), POINTS)

    assert_certified(gradient_check(seen, [t.clone().requires_grad_() for t in inputs], names))


def test_a_look_at_camera_without_a_direction_is_refused() -> None:
    stage = LookAtCamera(320, 200)
    with pytest.raises(UserError, match="look_at: expected position, target and up that span a plane"):
        stage(torch.tensor([[0.0, 0.0, 1.0]]), torch.zeros(1, 3), fov=scalar(0.8))
    with pytest.raises(UserError, match="either fov or focal"):
        stage(torch.tensor([[0.0, 1.0, 1.0]]), torch.zeros(1, 3))


def test_a_pinhole_takes_two_focal_lengths_and_distortion() -> None:
    k = torch.tensor([[-0.2, 0.05, 0.01, -0.02, 0.03]])
    camera = PinholeCamera((320.0, 240.0))(torch.zeros(1, 3), torch.tensor([[600.0, 500.0]]), distortion=k)
    x, y = 0.25, -0.125  # r^2 = 5/64
    r2 = x * x + y * y
    radial = 1 - 0.2 * r2 + 0.05 * r2**2 + 0.03 * r2**3
    expected = [
        320 + 600 * (x * radial + 2 * 0.01 * x * y - 0.02 * (r2 + 2 * x * x)),
        240 + 500 * (y * radial + 0.01 * (r2 + 2 * y * y) - 2 * 0.02 * x * y),
    ]
    assert one(camera, 0.5, 2.0, 0.25) == pytest.approx(expected, abs=1e-4)


def test_renderers_without_distortion_say_so() -> None:
    camera = PinholeCamera((320.0, 240.0))(torch.zeros(1, 3), scalar(600.0))
    require_undistorted("here", camera)
    with pytest.raises(Unsupported, match="here: distortion"):
        require_undistorted("here", camera._replace(distortion=torch.zeros(1, 5)))
    with pytest.raises(Unsupported, match="here: two focal lengths"):
        require_undistorted("here", camera._replace(focal=torch.ones(1, 2)))


def test_a_camera_of_plain_numbers() -> None:
    usual = LookAtCamera(64, 48)(torch.tensor([[1.5, -3.0, 2.0]]), torch.tensor([[0.0, 0.0, 0.3]]), fov=torch.tensor([0.9]))
    plain = LookAtCamera(64, 48)((1.5, -3, 2), [0, 0, 0.3], fov=0.9, up=torch.tensor([0.0, 0.0, 2.0]), roll=0.0)
    for one, other in zip(usual, plain):
        assert one is other or torch.allclose(torch.as_tensor(one), torch.as_tensor(other), atol=1e-6)
    with pytest.raises(UserError, match=r"LookAtCamera.target: expected shape \(world, 3\), got \(2,\)"):
        LookAtCamera(64, 48)((1.5, -3, 2), (0, 0), fov=0.9)
    with pytest.raises(UserError, match=r"LookAtCamera.fov: expected numbers, as a tensor or plain ones, got 'wide'"):
        LookAtCamera(64, 48)((1.5, -3, 2), (0, 0, 0), fov="wide")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"position": torch.zeros(1, 2)}, "LookAtCamera.position: expected shape"),
        ({"distortion": torch.zeros(1, 4)}, "LookAtCamera.distortion: expected shape"),
        ({"up": torch.zeros(1, 3, dtype=torch.bool)}, "LookAtCamera.up: expected float32"),
    ],
)
def test_tensors_that_are_no_camera(given: dict, message: str) -> None:
    numbers = {"position": torch.tensor([[0.0, -3.0, 1.0]]), "target": torch.zeros(1, 3), "fov": torch.tensor([0.8]), **given}
    with pytest.raises(UserError, match=message):
        LookAtCamera(320, 200)(numbers.pop("position"), numbers.pop("target"), **numbers)
