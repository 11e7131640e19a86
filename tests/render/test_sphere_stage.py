"""Which nodes of a motion each frame sees, and what the stage accepts."""

import pytest
import torch

from dvc.errors import UserError
from render.sphere_stage import SphereRender, frame_windows
from tests.render.sphere_scenes import film_of, motion, moving, orthographic, scalar, still

pytestmark = pytest.mark.filterwarnings("ignore:render_sphere. traced")  # many small films on purpose


def test_a_frame_sees_its_own_nodes_and_half_a_frame_on_either_side() -> None:
    nodes = torch.arange(13.0)[None, :, None].expand(1, 13, 3)  # three frames of four intervals
    fraction = torch.arange(12.0)[None] / 100.0
    windows, fractions, at_impact = frame_windows(motion(nodes, 4, fraction, nodes[:, :12] * 10.0))
    assert windows.shape == (1, 3, 9, 3) and fractions.shape == (1, 3, 8) and at_impact.shape == (1, 3, 8, 3)
    for frame in range(3):
        expected = torch.arange(9.0) + 4 * frame - 2  # straight continuation before the first and after the last node
        torch.testing.assert_close(windows[0, frame, :, 0], expected)
        for i in range(8):
            interval = 4 * frame - 2 + i
            inside = 0 <= interval < 12
            assert float(fractions[0, frame, i]) == pytest.approx(interval / 100.0 if inside else -1.0)
            assert float(at_impact[0, frame, i, 1]) == pytest.approx(10.0 * interval if inside else 0.0)
    middle = windows[0, :, 4, 0]
    torch.testing.assert_close(middle, torch.tensor([2.0, 6.0, 10.0]))


def test_the_cap_is_the_pole_towards_the_pivot() -> None:
    film = film_of(64, 48)
    frames = SphereRender(1)(
        moving(torch.tensor([[0.0, 0.0, -0.3]])),
        scalar(0.1),
        orthographic(100.0, (32.0, -6.0)),
        still(),
        torch.zeros(48, 64, 3),
        film,
        torch.tensor([[1.0, 0.0, 0.0]]),
        torch.tensor([[0.0, -1.0, 0.0]]),
        scalar(1.0),
        scalar(0.3),
        cap_color=torch.tensor([[0.0, 0.0, 1.0]]),
    )
    image = frames.images[0, 0]
    assert image[16, 32].argmax() == 2 and image[32, 32].argmax() == 0, "blue above, towards the pivot; red below"


def test_the_light_is_normalised_and_lights_its_own_side() -> None:
    film = film_of(64, 48)

    def picture(light: list[float]) -> torch.Tensor:
        return SphereRender(1)(
            moving(torch.zeros(1, 3)),
            scalar(0.1),
            orthographic(),
            still(),
            torch.zeros(48, 64, 3),
            film,
            torch.ones(1, 3),
            torch.tensor([light]),
            scalar(0.2),
            scalar(0.3),
        ).images[0, 0, :, :, 0]

    torch.testing.assert_close(picture([1.0, -1.0, 0.0]), picture([3.0, -3.0, 0.0]))
    right = picture([1.0, -1.0, 0.0])
    assert float(right[24, 38]) > 0.9 and float(right[24, 25]) < 0.5
    assert float(picture([0.0, -1.0, 1.0])[18, 32]) > 0.9
    assert float(picture([0.0, 1.0, 0.0])[24, 32]) == pytest.approx(0.2, abs=1e-3)


def test_arguments_with_one_world_go_with_many() -> None:
    film = film_of(64, 48)
    images = SphereRender(1)(
        moving(torch.zeros(1, 3)),
        torch.tensor([0.05, 0.1, 0.15]),
        orthographic(),
        still(),
        torch.zeros(48, 64, 3),
        film,
        torch.ones(1, 3),
        torch.tensor([[0.0, -1.0, 0.0]]),
        scalar(1.0),
        scalar(0.5),
    ).images
    assert images.shape == (3, 1, 48, 64, 3)
    areas = images[..., 0].sum(dim=(1, 2, 3))
    torch.testing.assert_close(areas / areas[0], torch.tensor([1.0, 4.0, 9.0]), atol=0.02, rtol=0.0)
    with pytest.raises(ValueError, match="world axes differ"):
        SphereRender(1)(
            moving(torch.zeros(2, 3)),
            torch.tensor([0.05, 0.1, 0.15]),
            orthographic(),
            still(),
            torch.zeros(48, 64, 3),
            film,
            torch.ones(1, 3),
            torch.tensor([[0.0, -1.0, 0.0]]),
            scalar(1.0),
            scalar(0.5),
        )


def test_no_samples_are_refused() -> None:
    with pytest.raises(UserError, match="exposure_samples"):
        SphereRender(0)
