"""Images of moving meshes: area, blur, readout, worlds, an exact scene."""

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dvc.errors import Unsupported
from dvc.records import Camera, Film, Mesh, Shutter
from geometry.mesh import BoxMesh, SphereMesh, TriangleMesh
from render.camera import rotation_from_angles
from tests.render.moving_bodies import mesh_image

FILM = Film(64, 48, 0.0, 0.0, 64, 48, 1.0)
ALONG_Y = torch.tensor([[[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]])
UPRIGHT = torch.tensor([[[0.0, 0, 0, 1]]])


def camera(orthographic: bool = True, position: tuple[float, float, float] = (0.0, -2.0, 0.0), focal: float = 40.0) -> Camera:
    return Camera(torch.tensor([position]), ALONG_Y, torch.tensor([focal]), torch.tensor([[32.3, 23.8]]), orthographic)


def shutter(exposure: float = 0.0, readout: tuple[float, float] = (0.0, 0.0)) -> Shutter:
    return Shutter(torch.tensor([exposure]), torch.tensor([readout]))


def silhouette(
    mesh: Mesh, positions: Tensor, view: Camera, when: Shutter, samples: int = 256, film: Film = FILM, **rest: float
) -> Tensor:
    """Coverage of each film pixel, (view, row, column)."""
    orientations = UPRIGHT.expand(*positions.shape[:2], 4)
    white, plate = torch.ones(1, 3), torch.zeros(film.rows, film.columns, 3)
    return mesh_image(mesh, positions, orientations, view, when, plate, film, white, samples=samples, **rest)[..., 0]


def test_box_area():
    mesh = BoxMesh()(torch.tensor([[0.3, 0.2, 0.25]]))
    area = silhouette(mesh, torch.zeros(1, 1, 3), camera(), shutter()).sum()
    assert float(area) == pytest.approx(4 * 0.3 * 0.25 * 40.0**2, rel=2e-3)


def test_sphere_area_in_perspective():
    """A sphere of radius r at distance d is seen as a disc of radius f r / sqrt(d^2 - r^2) around the axis."""
    mesh = SphereMesh(4)(torch.tensor([0.4]))
    area = silhouette(mesh, torch.zeros(1, 1, 3), camera(False, focal=70.0), shutter()).sum()
    assert float(area) == pytest.approx(math.pi * (70.0 * 0.4) ** 2 / (4.0 - 0.16), rel=3e-3)


def test_exposure_blurs_along_the_motion():
    """Half the frame interval at 2 m/s and 40 px/m smears a box 0.4 m wide over another 40 px/s * interval."""
    mesh = BoxMesh()(torch.full((1, 3), 0.2))
    moving = torch.tensor([[[-0.1, 0.0, 0.0], [0.1, 0.0, 0.0]]])
    rows = {"frame_interval": 0.1, "node_interval": 0.1}
    sharp = silhouette(mesh, moving, camera(), shutter(0.0), **rows)[0]
    blurred = silhouette(mesh, moving, camera(), shutter(0.5), **rows)[0]
    assert float(blurred.sum()) == pytest.approx(float(sharp.sum()), rel=3e-3)
    x = torch.arange(64) + 0.5 - 32.3
    spread = [float((x**2 * c.sum(0)).sum() / c.sum()) for c in (sharp, blurred)]
    assert spread[1] - spread[0] == pytest.approx((40.0 * 2.0 * 0.05) ** 2 / 12.0, rel=0.05)


def test_readout_shifts_late_rows():
    """The right of the frame is seen later: a body at x (from the middle, over the width) has moved on by v readout x."""
    mesh = BoxMesh()(torch.tensor([[0.05, 0.05, 0.2]]))
    moving = torch.tensor([[[0.5, 0.0, -0.1], [0.5, 0.0, 0.1]]])
    seen = silhouette(mesh, moving, camera(), shutter(0.0, (0.02, 0.0)), frame_interval=0.1, node_interval=0.1)[0]
    y = torch.arange(48) + 0.5 - 23.8
    x_share = (32.3 + 20.0) / 64.0 - 0.5
    expected = -40.0 * 2.0 * 0.02 * x_share
    assert float((y[:, None] * seen).sum() / seen.sum()) == pytest.approx(expected, abs=0.03)


def test_region_and_scale_are_a_coarser_crop():
    mesh = SphereMesh(2)(torch.tensor([0.3]))
    whole = silhouette(mesh, torch.zeros(1, 1, 3), camera(), shutter(), 256)[0]
    crop = Film(64, 48, left=16.0, top=8.0, columns=16, rows=16, scale=0.5)
    part = silhouette(mesh, torch.zeros(1, 1, 3), camera(), shutter(), 1024, crop)[0]
    means = whole[8:40, 16:48].reshape(16, 2, 16, 2).mean(dim=(1, 3))
    assert torch.allclose(part, means, atol=0.02)


def test_views_take_the_mesh_and_camera_of_their_world():
    radius = torch.tensor([0.2, 0.3], requires_grad=True)
    view = camera()._replace(focal=torch.tensor([40.0, 30.0]))
    ball = SphereMesh(3)(radius)
    turn = rotation_from_angles(torch.tensor([0.3]), torch.zeros(1), torch.tensor([0.4]))[0]  # no face is seen edge-on
    ball = ball._replace(vertices=ball.vertices @ turn.T)
    seen = silhouette(ball, torch.zeros(6, 1, 3), view, shutter())
    areas = seen.sum(dim=(1, 2))
    expected = torch.tensor([math.pi * (0.2 * 40) ** 2] * 3 + [math.pi * (0.3 * 30) ** 2] * 3)
    assert torch.allclose(areas, expected, rtol=2e-2)
    areas[3:].sum().backward()
    assert float(radius.grad[0]) == 0.0
    assert float(radius.grad[1]) == pytest.approx(3 * 2 * math.pi * 0.3 * 30**2, rel=3e-2)


def test_seeds_are_independent_and_repeatable():
    mesh, still = SphereMesh(1)(torch.tensor([0.3])), torch.zeros(1, 1, 3)
    first, again, other = (silhouette(mesh, still, camera(), shutter(), 4, seed=s) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def truth() -> Path:
    """Folder of the exact scene: $DIFFVC_TRUTH, or `truth` beside $DIFFVC_DATA."""
    beside = Path(os.environ.get("DIFFVC_DATA", "data")).parent / "truth"
    path = Path(os.environ.get("DIFFVC_TRUTH", beside)) / "render"
    if not (path / "s1_exact.npz").is_file():
        pytest.skip("exact scene: set DIFFVC_TRUTH to the folder that holds render/s1_exact.npz")
    return path


@pytest.mark.slow
def test_exact_scene_of_a_moving_silhouette():
    """An emissive faceted ball moves in x over a constant plate; the exact answer comes from clipped polygons."""
    folder = truth()
    scene, exact = np.load(folder / "s1_silhouette.npz"), np.load(folder / "s1_exact.npz")
    mesh = TriangleMesh(vertices=scene["obj_v"], faces=scene["obj_f"])(torch.ones(1))
    looking = torch.tensor([[[1.0, 0, 0], [0, -1, 0], [0, 0, -1]]])
    focal = torch.tensor([32.0 / math.tan(math.radians(20.0))])
    view = Camera(torch.tensor([[0.0, 0, 4]]), looking, focal, torch.tensor([[32.0, 32.0]]), False)
    film, color = Film(64, 64, 0.0, 0.0, 64, 64, 1.0), torch.tensor([[0.8, 0.5, 0.2]])
    plate = torch.tensor([0.1, 0.2, 0.4]).expand(64, 64, 3).contiguous()

    def render(views: int, samples: int, edge_samples: int) -> tuple[Tensor, Tensor]:
        positions = torch.zeros(views, 1, 3, requires_grad=True)
        orientations = UPRIGHT.expand(views, 1, 4)
        return positions, mesh_image(
            mesh, positions, orientations, view, shutter(), plate, film, color, samples=samples, edge_samples=edge_samples
        )

    _, image = render(1, 512, 1)
    assert relative_rms(image[0].detach().numpy(), exact["primal"]) < 2e-3
    # one view a pixel that changes: its gradient alone reaches that view's position
    pixels = torch.from_numpy(np.argwhere(np.abs(exact["grad"]).sum(-1) > 0))
    positions, images = render(len(pixels), 1, 128)
    images[torch.arange(len(pixels)), pixels[:, 0], pixels[:, 1], 0].sum().backward()
    gradient = np.zeros((64, 64))
    gradient[pixels[:, 0], pixels[:, 1]] = positions.grad[:, 0, 0].numpy()
    assert relative_rms(gradient, exact["grad"][..., 0]) < 0.015


def relative_rms(value: np.ndarray, expected: np.ndarray) -> float:
    return float(np.sqrt(((value - expected) ** 2).sum() / (expected**2).sum()))


def test_motion_that_outruns_the_readout_is_refused():
    mesh = BoxMesh()(torch.full((1, 3), 0.2))
    moving = torch.tensor([[[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]], requires_grad=True)
    seen = silhouette(mesh, moving, camera(), shutter(0.0, (0.5, 0.0)), frame_interval=0.1, node_interval=0.1)
    with pytest.raises(Unsupported, match="outrun"):
        seen.sum().backward()
