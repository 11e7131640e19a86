"""The track of a ball against the centre of mass of its picture."""

import pytest
import torch

from dvc.gradient_check import gradient_check
from dvc.records import Camera, Shutter
from render.track import CentreTrack
from tests.physics.scenes import assert_certified
from tests.render.sphere_scenes import centroid, coverage, film_of, moving, orthographic, pinhole, scalar, still

pytestmark = pytest.mark.filterwarnings("ignore:render_sphere. traced")  # many small films on purpose

FILM = film_of(160, 120, step=4.0)


@pytest.mark.parametrize("readout", [(0.0, 0.0), (0.02, 0.0), (0.0, -0.02), (-0.015, 0.02)])
@pytest.mark.parametrize("velocity", [(0.0, 0.0, 0.0), (2.0, 0.0, 1.0), (-3.0, 0.0, 2.0)])
def test_the_track_is_the_centre_of_mass_of_a_straight_motion(velocity: tuple, readout: tuple) -> None:
    camera = orthographic(400.0, (320.0, 240.0))
    trajectory = moving(torch.tensor([[0.2, 0.0, 0.12]]), torch.tensor([velocity]), frames=2)
    shutter = Shutter(scalar(0.7), torch.tensor([readout]))
    track = CentreTrack()(trajectory, camera, shutter, FILM)
    assert track.shape == (1, 2, 2)
    images = coverage(trajectory, 0.06, camera, shutter, FILM, samples=16)[0]
    for frame in range(2):
        assert track[0, frame].tolist() == pytest.approx(centroid(images[frame], FILM), abs=0.05)


def test_the_track_of_a_fast_ball_far_from_the_middle_is_still_that_of_its_picture() -> None:
    """It crosses the frame in 0.3 s, a tenth of which the readout takes."""
    camera, film = orthographic(400.0, (360.0, 240.0)), film_of(180, 160, step=4.0, width=720)
    trajectory = moving(torch.tensor([[0.6, 0.0, 0.1]]), torch.tensor([[6.0, 0.0, -1.0]]))
    shutter = Shutter(scalar(0.7), torch.tensor([[0.03, 0.01]]))
    image = coverage(trajectory, 0.06, camera, shutter, film, samples=16)[0, 0]
    assert CentreTrack()(trajectory, camera, shutter, film)[0, 0].tolist() == pytest.approx(centroid(image, film), abs=0.05)


def test_the_track_of_a_distant_ball_is_that_of_a_pinhole_picture() -> None:
    """A sphere's picture lies a little outwards of its centre's: the smaller the ball, the less."""
    camera = pinhole(600.0)
    trajectory = moving(torch.tensor([[0.1, 0.2, -0.05]]), torch.tensor([[1.5, 0.0, 1.0]]))
    shutter = Shutter(scalar(0.7), torch.tensor([[0.01, 0.01]]))
    track = CentreTrack()(trajectory, camera, shutter, FILM)[0, 0]
    image = coverage(trajectory, 0.03, camera, shutter, FILM, samples=16)[0, 0]
    assert track.tolist() == pytest.approx(centroid(image, FILM), abs=0.1)


def test_worlds_are_separate_tracks_whichever_argument_has_them() -> None:
    trajectory = moving(torch.tensor([[0.2, 0.0, 0.12]]), torch.tensor([[2.0, 0.0, 1.0]]))
    readouts = torch.tensor([[0.02, 0.0], [0.0, 0.02]])
    camera = orthographic(400.0, (320.0, 240.0))
    together = CentreTrack()(trajectory, camera, Shutter(scalar(0.7), readouts), FILM)
    assert together.shape == (2, 1, 2)
    for world in range(2):
        alone = CentreTrack()(trajectory, camera, Shutter(scalar(0.7), readouts[world : world + 1]), FILM)
        torch.testing.assert_close(alone[0], together[world])
    centers = torch.tensor([[320.0, 240.0], [300.0, 230.0]])
    moved = CentreTrack()(trajectory, camera._replace(center=centers), still(), FILM)
    torch.testing.assert_close(moved[1] - moved[0], torch.tensor([[-20.0, -10.0]]), atol=1e-3, rtol=0.0)


def test_gradient_of_every_argument() -> None:
    camera = pinhole(600.0, pitch=0.1, roll=0.2)

    def track(middle, velocity, position, rotation, focal, center, exposure, readout):
        seen_by = Camera(position, rotation, focal, center, False)
        # curved, so that the exposure counts
        trajectory = moving(middle, velocity, substeps=4, frames=2)
        bent = trajectory.positions + 0.05 * torch.sin(40.0 * trajectory.positions)
        return CentreTrack()(trajectory._replace(positions=bent), seen_by, Shutter(exposure, readout), FILM)

    names = ["middle", "velocity", "position", "rotation", "focal", "center", "exposure", "readout"]
    inputs = [
        torch.tensor([[0.2, 0.1, 0.12]]),
        torch.tensor([[2.0, 0.3, 1.0]]),
        camera.position,
        camera.rotation,
        camera.focal,
        camera.center,
        torch.tensor([0.7]),
        torch.tensor([[0.01, 0.02]]),
    ]
    assert_certified(gradient_check(track, [t.clone().requires_grad_() for t in inputs], names))
