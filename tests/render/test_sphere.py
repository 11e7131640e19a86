"""The picture of a ball against areas in closed form and against brute force."""

import math

import numpy as np
import pytest
import torch

from dvc.records import Camera, Shutter
from render.camera import OrthographicCamera
from render.sphere_stage import SphereRender
from tests.render.sphere_scenes import (
    FRAME_RATE,
    SOFT,
    brute_force,
    centroid,
    coverage,
    film_of,
    motion,
    moving,
    orthographic,
    pinhole,
    pixel_centres,
    scalar,
    still,
)

pytestmark = pytest.mark.filterwarnings("ignore:render_sphere. traced")  # many small films on purpose


# -- areas -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("radius_px", [3.0, 4.4, 10.0])
@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.5, 0.25), (0.13, 0.71)])
def test_without_perspective_the_coverage_adds_up_to_the_area_of_a_disc(radius_px: float, shift: tuple[float, float]) -> None:
    film = film_of(64, 48)
    camera = orthographic(100.0, (32.0 + shift[0], 24.0 + shift[1]))
    image = coverage(moving(torch.zeros(1, 3)), radius_px / 100.0, camera, still(), film)[0, 0]
    assert float(image.double().sum()) == pytest.approx(math.pi * radius_px**2, rel=1e-3)
    assert centroid(image, film) == pytest.approx((32.0 + shift[0], 24.0 + shift[1]), abs=2e-3)


def test_without_lens_blur_the_area_is_right_wherever_the_disc_lies() -> None:
    film = film_of(32, 24)
    for i in range(4):
        for j in range(4):
            camera = orthographic(100.0, (16.0 + i / 4, 12.0 + j / 4))
            area = float(coverage(moving(torch.zeros(1, 3)), 0.05, camera, still(), film, blur=0.0).double().sum())
            assert area == pytest.approx(math.pi * 25.0, rel=1e-3)


def test_a_film_pixel_is_the_mean_of_the_finer_pixels_inside_it() -> None:
    camera = orthographic(100.0, (16.3, 12.7))
    coarse = coverage(moving(torch.zeros(1, 3)), 0.09, camera, still(), film_of(16, 12, step=2.0), blur=0.4)[0, 0]
    fine = coverage(moving(torch.zeros(1, 3)), 0.09, camera, still(), film_of(32, 24), blur=0.4)[0, 0]
    mean = fine.unflatten(0, (-1, 2)).unflatten(2, (-1, 2)).mean((1, 3))
    assert mean.shape == coarse.shape
    assert float((mean - coarse).abs().max()) < 0.012


def ellipse_area(centre: np.ndarray, radius: float, focal: float) -> float:
    """Area of a sphere's picture: the cone of half angle b about a direction at the angle a from the axis cuts an ellipse."""
    distance = np.linalg.norm(centre)
    sine, cosine = radius / distance, math.sqrt(1.0 - (radius / distance) ** 2)
    spread = (centre[2] / distance) ** 2 - sine**2
    return math.pi * focal**2 * (sine * cosine / spread) * (sine / math.sqrt(spread))


@pytest.mark.parametrize("place", [(0.0, 0.0, 0.0), (0.35, 0.0, 0.2), (-0.5, 0.3, -0.38), (0.6, -0.2, 0.0)])
@pytest.mark.parametrize("radius, step", [(0.03, 4.0), (0.03, 1.0), (0.1, 2.0)])
def test_with_perspective_the_coverage_adds_up_to_the_area_of_an_ellipse(place: tuple, radius: float, step: float) -> None:
    camera = pinhole()
    seen = (camera.rotation[0] @ (torch.tensor(place) - camera.position[0])).double().numpy()
    film = film_of(int(960 / step), int(720 / step), step=step, left=-160.0, top=-120.0)
    image = coverage(moving(torch.tensor([place])), radius, camera, still(), film)[0, 0]
    assert float(image.double().sum()) * step**2 == pytest.approx(ellipse_area(seen, radius, 600.0), rel=1e-3)


@pytest.mark.parametrize("blur", [None, 1.5])
def test_motion_blur_and_lens_blur_keep_the_area(blur: float | None) -> None:
    film = film_of(96, 64)
    camera = orthographic(100.0, (48.0, 32.0))
    trajectory = moving(torch.zeros(1, 3), torch.tensor([[9.0, 0.0, 4.0]]))
    image = coverage(trajectory, 0.08, camera, still(exposure=0.9), film, samples=16, blur=blur)[0, 0]
    assert float(image.double().sum()) == pytest.approx(math.pi * 64.0, rel=1e-3)
    assert centroid(image, film) == pytest.approx((48.0, 32.0), abs=5e-3)


def test_a_ball_that_does_not_move_needs_one_sample() -> None:
    film = film_of(64, 48)
    trajectory = moving(torch.tensor([[0.02, 0.0, 0.01]]))
    one, many = (
        coverage(trajectory, 0.1, orthographic(), still(exposure=0.8), film, samples=n, seed=s) for n, s in ((1, 0), (32, 5))
    )
    torch.testing.assert_close(one, many, atol=1e-5, rtol=0.0)


# -- brute force -------------------------------------------------------------------------------------------------------
LOOK = {"color": [0.8, 0.3, 0.2], "cap_color": [0.3, 0.6, 0.9], "light": [-0.3, -0.8, 0.5]}


@pytest.mark.parametrize(
    "camera",
    [orthographic(100.0, (16.3, 12.8)), pinhole(300.0, (23.0, 43.0), pitch=0.1, roll=0.2, yaw=-0.05)],
    ids=["orthographic", "pinhole"],
)
@pytest.mark.parametrize(
    "radius, speed, blur", [(0.03, 0.0, SOFT), (0.06, 0.0, 0.0), (0.06, 0.0, SOFT), (0.04, 1.0, SOFT), (0.06, 2.0, 0.8)]
)
def test_the_picture_is_that_of_brute_force(camera: Camera, radius: float, speed: float, blur: float) -> None:
    film = film_of(32, 24)
    if not camera.orthographic:
        radius = radius * 1.55 / 3.0
    middle, velocity = torch.tensor([[0.012, 0.05, -0.01]]), torch.tensor([[speed, 0.0, -0.7 * speed]])
    background = torch.rand(24, 32, 3, generator=torch.Generator().manual_seed(1))
    background = torch.nn.functional.avg_pool2d(background.permute(2, 0, 1), 5, 1, 2).permute(1, 2, 0).contiguous()
    samples = 8
    look = {name: torch.tensor([value]) for name, value in LOOK.items()}
    frames = SphereRender(samples)(
        moving(middle, velocity),
        scalar(radius),
        camera,
        still(exposure=0.8),
        background,
        film,
        ambient=scalar(0.4),
        blur=scalar(blur),
        **look,
    )
    times = ((np.arange(samples) + 0.5) / samples - 0.5) * 0.8 / FRAME_RATE
    centres = middle.double().numpy() + times[:, None] * velocity.double().numpy()
    towards_pivot = -middle[0].double().numpy() / np.linalg.norm(middle.numpy())
    twin = brute_force(
        film,
        centres if speed else centres[:1],
        radius,
        camera,
        np.array(LOOK["color"]),
        np.array(LOOK["cap_color"]),
        towards_pivot,
        np.array(LOOK["light"]),
        0.4,
        background.double().numpy(),
        blur,
    )
    error = np.abs(frames.images[0, 0].numpy() - twin)
    assert float(error.mean()) < 0.002 and float(np.sqrt((error**2).mean())) < 0.004
    assert float(error.max()) < 0.02  # single pixels at the rim, where the normal turns fastest: they are shaded once


def test_the_coverage_is_that_of_brute_force_within_one_percent() -> None:
    film, none = film_of(32, 24), np.zeros(3)
    for radius, most in ((0.03, 0.02), (0.041, 0.01), (0.08, 0.01)):  # the edge of three film pixels is hardly straight
        place = torch.tensor([[0.003, 0.0, 0.004]])
        image = coverage(moving(place), radius, orthographic(100.0, (16.3, 12.8)), still(), film)[0, 0]
        twin = brute_force(
            film,
            place.double().numpy(),
            radius,
            orthographic(100.0, (16.3, 12.8)),
            none + 1.0,
            none + 1.0,
            np.array([0.0, 0.0, 1.0]),
            np.array([0.0, -1.0, 0.0]),
            1.0,
            np.zeros((24, 32, 3)),
            SOFT,
        )[..., 0]
        assert float(np.abs(image.numpy() - twin).max()) < most


# -- what moves it -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "axis, velocity, readout",
    [
        (0, (6.0, 0.0, 0.0), (0.012, 0.0)),
        (1, (0.0, 0.0, -6.0), (0.0, 0.012)),
        (0, (6.0, 0.0, 0.0), (0.0, 0.012)),
        (1, (0.0, 0.0, 6.0), (-0.01, 0.0)),
    ],
)
def test_readout_shows_a_ball_where_it_is_when_its_pixel_is_read(axis: int, velocity: tuple, readout: tuple) -> None:
    """Far from the middle of the frame the pixel is read `readout (x / width - 1/2)` later."""
    film = film_of(96, 80, left=420.0, top=300.0)
    camera = orthographic(100.0, (468.0, 340.0))
    image = coverage(
        moving(torch.zeros(1, 3), torch.tensor([velocity])), 0.1, camera, Shutter(scalar(0.0), torch.tensor([readout])), film
    )[0, 0]
    v = np.array([velocity[0], -velocity[2]]) * 100.0  # [px/s]
    place = np.array([468.0, 340.0])
    for _ in range(50):
        late = readout[0] * (place[0] / 640.0 - 0.5) + readout[1] * (place[1] / 480.0 - 0.5)
        place = np.array([468.0, 340.0]) + v * late
    moved = place - np.array([468.0, 340.0])
    assert abs(moved[axis]) > 1.0
    assert centroid(image, film) == pytest.approx(tuple(place), abs=0.02)


def test_the_exposure_is_centred_on_the_middle_of_the_frame() -> None:
    film = film_of(64, 48)
    trajectory = moving(torch.tensor([[-0.1, 0.0, 0.0]]), torch.tensor([[6.0, 0.0, 0.0]]), frames=2)
    image = coverage(trajectory, 0.06, orthographic(), still(exposure=0.6), film, samples=8)[0]
    assert centroid(image[0], film)[0] == pytest.approx(22.0, abs=0.01)
    assert centroid(image[1], film)[0] == pytest.approx(42.0, abs=0.01)
    x, _ = pixel_centres(film)
    profile = image[0].double().sum(0)
    spread = float((profile * (x - 22.0) ** 2).sum() / profile.sum())
    streak = 6.0 / FRAME_RATE * 0.6 * 100.0
    assert spread == pytest.approx(36.0 / 4.0 + 1.0 / 12.0 + SOFT**2 + streak**2 / 12.0, rel=4e-3)


def test_an_impact_inside_an_exposure_is_seen() -> None:
    """The ball goes 0.2 m to the right and comes back: without the impact both ends of the exposure would be all there is."""
    film = film_of(80, 48)
    nodes = torch.tensor([[[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    at_impact = torch.tensor([[[0.2, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    struck = motion(nodes, 2, torch.tensor([[0.5, -1.0]]), at_impact)
    unstruck = motion(nodes, 2)
    shutter = still(exposure=1.0)
    a, b = (coverage(m, 0.08, orthographic(), shutter, film, samples=32)[0, 0] for m in (struck, unstruck))
    assert centroid(b, film)[0] == pytest.approx(32.0, abs=1e-2)
    assert centroid(a, film)[0] == pytest.approx(32.0 + 0.5 * 10.0, abs=0.02)
    assert float(a[24, 50]) > 0.05 and float(b[24, 50]) == 0.0


@pytest.mark.parametrize("fraction", [0.0, 1.0, 1e-6])
def test_an_impact_at_the_end_of_an_interval_changes_nothing(fraction: float) -> None:
    film = film_of(64, 48)
    nodes = torch.tensor([[[-0.1, 0.0, 0.0], [0.1, 0.0, 0.0], [-0.1, 0.0, 0.0]]])
    place = nodes[:, :1] if fraction < 0.5 else nodes[:, 1:2]
    with_impact = motion(nodes, 2, torch.tensor([[fraction, -1.0]]), torch.cat([place, torch.zeros(1, 1, 3)], 1))
    a, b = (coverage(m, 0.08, orthographic(), still(exposure=1.0), film, samples=32) for m in (with_impact, motion(nodes, 2)))
    torch.testing.assert_close(a, b, atol=1e-4, rtol=0.0)


# -- where there is no ball --------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "camera, place",
    [
        (orthographic(), (3.0, 0.0, 0.0)),
        (pinhole(), (0.0, -3.0, 0.0)),
        (pinhole(), (0.05, -1.6, 0.02)),
        (pinhole(), (4.0, 0.0, 0.0)),
        (pinhole(), (0.0, -1.5, 0.0)),
        (pinhole(), (5.0, -1.5, 0.0)),
    ],
)
def test_a_ball_that_is_not_on_the_film_leaves_the_plate(camera: Camera, place: tuple[float, float, float]) -> None:
    """Beside it, behind the camera, around it, in its plane: and every gradient is a number."""
    film = film_of(64, 48) if camera.orthographic else film_of(64, 48, step=10.0)
    leaves = [torch.tensor([place]), scalar(0.03), torch.tensor([[9.0, 0.0, 4.0]]), scalar(0.8), torch.rand(48, 64, 3)]
    middle, radius, velocity, exposure, background = (leaf.requires_grad_() for leaf in leaves)
    shutter = Shutter(exposure, torch.tensor([[0.01, 0.01]]))
    frames = SphereRender(4)(
        moving(middle, 0.01 * velocity),
        radius,
        camera,
        shutter,
        background,
        film,
        torch.ones(1, 3) * 0.5,
        torch.tensor([[0.0, -1.0, 1.0]]),
        scalar(0.4),
        scalar(1.0),
    )
    torch.testing.assert_close(frames.images[0, 0].detach(), background.detach(), atol=1e-6, rtol=0.0)
    gradients = torch.autograd.grad(frames.images.sum(), leaves, allow_unused=True)
    assert all(bool(torch.isfinite(g).all()) for g in gradients if g is not None)


def test_a_ball_that_passes_the_camera_is_seen_while_it_is_in_front_and_stays_finite() -> None:
    camera, film = pinhole(), film_of(64, 48, step=10.0)
    middle = torch.tensor([[0.02, -1.3, 0.0]], requires_grad=True)
    trajectory = moving(middle, torch.tensor([[0.0, -20.0, 0.0]]), substeps=8)
    image = coverage(trajectory, 0.03, camera, still(exposure=1.0), film, samples=16)
    assert bool(torch.isfinite(image).all()) and 0.0 <= float(image.detach().min()) <= float(image.detach().max()) <= 1.0 + 1e-5
    assert float(image.detach().sum()) > 1.0
    # what has passed the camera adds nothing
    ahead = [
        coverage(
            moving(torch.tensor([[0.02, -1.3 - 20.0 * (k + 0.5 - 8) / 16 / FRAME_RATE, 0.0]])), 0.03, camera, still(), film
        )
        for k in range(16)
    ]
    instants = torch.stack(ahead).mean(0)  # the streak is smoother than its instants
    assert float((image.detach() - instants).abs().max()) < 0.03
    assert float(image.detach().sum()) == pytest.approx(float(instants.sum()), rel=0.02)
    (gradient,) = torch.autograd.grad(image.sum(), middle)
    assert bool(torch.isfinite(gradient).all())


# -- seeds -------------------------------------------------------------------------------------------------------------
def test_few_samples_show_the_streak_of_many() -> None:
    """A share of the exposure widens the filter along the way: no row of separate discs."""
    film = film_of(64, 48)
    trajectory = moving(torch.zeros(1, 3), torch.tensor([[12.0, 0.0, 6.0]]), frames=2)

    def picture(samples: int) -> torch.Tensor:
        return coverage(trajectory, 0.05, orthographic(), still(exposure=0.9), film, samples=samples)

    assert float((picture(8) - picture(256)).abs().max()) < 0.03
    assert float((picture(16) - picture(256)).abs().max()) < 0.006


def test_seeds() -> None:
    """0 repeats strata middles; others differ from one another; their mean is the picture of many strata."""
    film = film_of(64, 48)
    trajectory = moving(torch.zeros(1, 3), torch.tensor([[12.0, 0.0, 6.0]]), frames=2)

    def picture(seed: int, samples: int = 3) -> torch.Tensor:
        return coverage(trajectory, 0.05, orthographic(), still(exposure=0.9), film, samples=samples, seed=seed)

    assert torch.equal(picture(0), picture(0)) and torch.equal(picture(7), picture(7))
    assert float((picture(7) - picture(8)).abs().max()) > 0.02
    assert float((picture(7) - picture(0)).abs().max()) > 0.02
    mean = torch.stack([picture(seed) for seed in range(1, 301)]).mean(0)
    assert float((mean - picture(0, samples=256)).abs().max()) < 0.04
    assert float((mean - picture(0, samples=256)).abs().mean()) < 2e-3


def test_worlds_share_the_noise_of_a_seed() -> None:
    film = film_of(64, 48)
    trajectory = moving(torch.zeros(2, 3), torch.tensor([[12.0, 0.0, 6.0]]).expand(2, 3), frames=2)
    image = coverage(trajectory, 0.05, orthographic(), still(exposure=0.9), film, samples=3, seed=4)
    assert torch.equal(image[0], image[1])


def test_worlds_are_separate_pictures() -> None:
    film = film_of(64, 48)
    places = torch.tensor([[0.0, 0.0, 0.0], [0.1, 0.0, 0.05], [-0.1, 0.0, 0.1]])
    together = coverage(moving(places), torch.tensor([0.05, 0.06, 0.07]), orthographic(), still(), film)
    for world, radius in enumerate((0.05, 0.06, 0.07)):
        alone = coverage(moving(places[world : world + 1]), radius, orthographic(), still(), film)
        assert torch.equal(alone[0], together[world])


def test_the_film_only_crops_and_coarsens() -> None:
    trajectory, camera = (
        moving(torch.tensor([[0.02, 0.0, 0.01]])),
        OrthographicCamera()(torch.tensor([[32.0, 24.0]]), scalar(100.0)),
    )
    whole = coverage(trajectory, 0.1, camera, still(), film_of(64, 48))[0, 0]
    part = coverage(trajectory, 0.1, camera, still(), film_of(30, 20, left=20.0, top=15.0))[0, 0]
    torch.testing.assert_close(part, whole[15:35, 20:50], atol=1e-6, rtol=0.0)
    coarse = coverage(trajectory, 0.1, camera, still(), film_of(32, 24, step=2.0))[0, 0]
    assert float(coarse.sum()) * 4.0 == pytest.approx(float(whole.sum()), rel=1e-3)
