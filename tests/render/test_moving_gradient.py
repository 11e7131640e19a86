"""The gradient of a rendered moving mesh against central differences of renders with many samples, one argument at a time."""

import math

import pytest
import torch
from torch import Tensor

from dvc.records import Camera, Film, Mesh, Shutter
from geometry.mesh import BoxMesh, SphereMesh
from tests.render.moving_bodies import mesh_image

FILM = Film(width=640, height=480, left=160.0, top=96.0, columns=32, rows=24, scale=0.1)
STILL = Shutter(torch.zeros(1), torch.zeros(1, 2))
FRAME_INTERVAL, NODE_INTERVAL = 1.0 / 30.0, 1.0 / 60.0


def turned(axis: list[float], angle: Tensor) -> Tensor:
    """Quaternion (..., 4) of a rotation about an axis by an angle [rad] (...)."""
    direction = torch.tensor(axis) / torch.tensor(axis).norm()
    return torch.cat([torch.sin(angle / 2)[..., None] * direction, torch.cos(angle / 2)[..., None]], dim=-1)


def looking(angle: Tensor) -> Tensor:
    """World-to-camera rotation (view, 3, 3): along +y with z up, then turned about the camera's x axis."""
    one, zero, c, s = torch.ones_like(angle), torch.zeros_like(angle), torch.cos(angle), torch.sin(angle)
    tilt = torch.stack([one, zero, zero, zero, c, -s, zero, s, c], dim=-1).reshape(-1, 3, 3)
    return tilt @ torch.tensor([[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]])


def parameters() -> dict[str, Tensor]:
    """Every argument, with names of its own for what moves the nodes."""
    return {
        "size": torch.tensor([[0.21, 0.16, 0.12]]),
        "position": torch.tensor([[0.05, 0.1, -0.02]]),
        "velocity": torch.tensor([[3.0, 0.5, -2.0]]),
        "angle": torch.tensor([0.7]),
        "spin": torch.tensor([6.0]),
        "camera_position": torch.tensor([[0.0, -1.6, 0.1]]),
        "tilt": torch.tensor([0.05]),
        "focal": torch.tensor([620.0]),
        "center": torch.tensor([[322.0, 236.0]]),
        "exposure": torch.tensor([0.6]),
        "readout": torch.tensor([[0.011, 0.016]]),
        "color": torch.tensor([[0.9, 0.6, 0.3]]),
        "light": torch.tensor([[0.3, -1.0, 0.8]]),
        "plate": 0.5 + 0.1 * torch.rand(FILM.rows, FILM.columns, 3, generator=torch.Generator().manual_seed(5)),
    }


# direction and step of each argument; the step is small against the feature and moves the silhouette by about half a pixel
DIRECTIONS: dict[str, tuple[list[float], float]] = {
    "size": ([1.0, -0.5, 0.8], 0.006),
    "position": ([0.7, 0.4, -0.6], 0.006),
    "velocity": ([0.7, 0.4, 0.9], 0.5),
    "angle": ([1.0], 0.04),
    "spin": ([1.0], 2.0),
    "camera_position": ([0.5, 1.0, 0.4], 0.006),
    "tilt": ([1.0], 0.006),
    "focal": ([1.0], 8.0),
    "center": ([1.0, -0.6], 3.0),
    "exposure": ([1.0], 0.2),
    "readout": ([1.0, 0.7], 0.003),
    "color": ([1.0, -0.5, 0.7], 0.1),
    "light": ([1.0, 0.3, -0.4], 0.05),
}


def body(shape: str, size: Tensor) -> Mesh:
    """box; sphere; pair: a box and a smaller one that hides part of it; shell: a box without the side towards the camera."""
    if shape == "sphere":
        return SphereMesh(2)(size[:, 0])
    box = BoxMesh()(size)
    if shape == "pair":
        second = 0.6 * box.vertices + torch.tensor([0.08, -0.35, 0.1])
        return Mesh(torch.cat([box.vertices, second], dim=1), torch.cat([box.faces, box.faces + 8]))
    return box if shape == "box" else Mesh(box.vertices, box.faces[[i for i in range(12) if i not in (4, 5)]].contiguous())


def image(values: dict[str, Tensor], samples: int, edge_samples: int = 1, seed: int = 0, shape: str = "box",
          orthographic: bool = False, side_offset: float = 0.01) -> Tensor:  # fmt: skip
    size = values["size"]
    mesh = body(shape, size)
    clock = torch.arange(-1.0, 2.0)[None, :] * NODE_INTERVAL
    positions = values["position"][:, None] + values["velocity"][:, None] * clock[..., None]
    orientations = turned([0.4, -0.3, 1.0], values["angle"][:, None] + values["spin"][:, None] * clock)
    focal = values["focal"] * (0.6 if orthographic else 1.0)
    camera = Camera(values["camera_position"], looking(values["tilt"]), focal, values["center"], orthographic)
    return mesh_image(
        mesh, positions, orientations, camera, Shutter(values["exposure"], values["readout"]), values["plate"], FILM,
        values["color"], values["light"], FRAME_INTERVAL, NODE_INTERVAL, seed, samples, edge_samples, side_offset,
    )  # fmt: skip


def weights() -> Tensor:
    """A smooth weight a film pixel and channel: the loss is linear in the image."""
    y, x = torch.meshgrid(torch.linspace(0, 1, FILM.rows), torch.linspace(0, 1, FILM.columns), indexing="ij")
    return torch.stack([torch.sin(5 * x + 1) * torch.cos(4 * y), torch.cos(3 * x - 5 * y), x - 1.3 * y * x + 0.4], dim=-1)


def gradients(seeds: int = 4, edge_samples: int = 512, **options: object) -> dict[str, Tensor]:
    """Gradients of the loss by every argument, one row a seed: (seed, ...)."""
    rows = []
    for seed in range(seeds):
        values = {name: value.clone().requires_grad_() for name, value in parameters().items()}
        (image(values, 64, edge_samples, seed, **options) * weights()).sum().backward()
        rows.append({name: value.grad for name, value in values.items()})
    return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}


def loss(values: dict[str, Tensor], samples: int, **options: object) -> float:
    return float((image(values, samples, **options).double() * weights()).sum())


def difference(name: str, samples: int = 1024, seeds: int = 3, **options: object) -> tuple[float, float]:
    """Central difference with the same random numbers on both sides: mean over seeds, and its standard error."""
    direction, step = DIRECTIONS[name]
    slopes = []
    for seed in range(seeds):
        losses = []
        for sign in (1.0, -1.0):
            values = parameters()
            values[name] = values[name] + sign * step * torch.tensor(direction).reshape(values[name].shape)
            losses.append(loss(values, samples, seed=100 + seed, **options))
        slopes.append((losses[0] - losses[1]) / (2.0 * step))
    return float(torch.tensor(slopes).mean()), float(torch.tensor(slopes).std() / seeds**0.5)


def compare(name: str, rows: Tensor, **options: object) -> None:
    """Directional derivative against differences: 1.5 % and three standard errors, which are small."""
    analytic = (rows.flatten(1) * torch.tensor(DIRECTIONS[name][0])).sum(1)
    numeric, noise = difference(name, **options)
    error = math.hypot(float(analytic.std() / len(rows) ** 0.5), noise)
    assert abs(float(analytic.mean()) - numeric) < 0.015 * abs(numeric) + 3.0 * error
    assert error < 0.2 * abs(numeric)


@pytest.fixture(scope="module")
def box_gradients() -> dict[str, Tensor]:
    return gradients(12)


@pytest.mark.slow
@pytest.mark.parametrize("name", DIRECTIONS)
def test_every_argument_equals_its_finite_difference(name, box_gradients):
    compare(name, box_gradients[name])


def test_plate_gradient_is_the_share_of_the_plate_in_each_pixel(box_gradients):
    values = parameters()
    brighter = {**values, "plate": values["plate"] + 1.0}
    share = image(brighter, 1024) - image(values, 1024)
    assert torch.allclose(box_gradients["plate"].mean(0), share[0] * weights(), atol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["size", "position", "angle", "camera_position", "tilt", "focal", "center", "readout"])
def test_orthographic_camera(name):
    compare(name, gradients(3, orthographic=True)[name], orthographic=True)


@pytest.mark.parametrize("name", ["size", "position"])
def test_sphere_mesh(name):
    compare(name, gradients(2, 64, shape="sphere")[name], shape="sphere")


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["pair", "shell"])
def test_hidden_edges_and_inner_sides(shape):
    rows = gradients(4, shape=shape)
    for name in ("size", "position", "camera_position", "focal", "tilt"):
        compare(name, rows[name], shape=shape)


def test_result_does_not_depend_on_the_side_offset():
    results = [gradients(1, side_offset=offset)["position"].flatten() for offset in (0.0025, 0.01, 0.04)]
    for other in (results[0], results[2]):
        assert float((other - results[1]).norm() / results[1].norm()) < 0.01


def test_open_mesh_has_a_border_gradient():
    """A square facing the camera: its area on the film is (2 half focal)^2, so its derivative by the scale is known."""
    corners = torch.tensor([[-1.0, 0, -1], [1, 0, -1], [1, 0, 1], [-1, 0, 1]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]], dtype=torch.int32)
    scale = torch.tensor([0.2], requires_grad=True)
    mesh = Mesh((corners * scale)[None], faces)
    area = flat_area(mesh)
    area.backward()
    expected = (2 * 0.2 * 50.0) ** 2
    assert float(area.detach()) == pytest.approx(expected, rel=5e-3)
    assert float(scale.grad) == pytest.approx(2 * expected / 0.2, rel=5e-3)


def flat_area(mesh: Mesh) -> Tensor:
    """Film area of a body without shading, seen along +y without perspective, 50 px a metre."""
    film = Film(64, 64, 0.0, 0.0, 64, 64, 1.0)
    camera = Camera(torch.zeros(1, 3), looking(torch.zeros(1)), torch.tensor([50.0]), torch.tensor([[32.3, 31.9]]), True)
    return mesh_image(
        mesh, torch.zeros(1, 1, 3), turned([0, 0, 1.0], torch.zeros(1, 1)), camera, STILL, torch.zeros(64, 64, 3), film,
        torch.ones(1, 3), samples=256, edge_samples=256,
    )[..., 0].sum()  # fmt: skip


def test_crease_of_a_turning_cube():
    """A cube seen edge-on: turned by 45 degrees its outline stands still, and only the crease and the shading move.

    In a window of half width a and height H around the crease x = sqrt(2) f h sin(t) (h half an edge, t the angle from 45
    degrees), with the light at the angle p from the viewer's axis, S = cos(45 -+ (p - t)).
    """
    half, focal, p = 0.3, 50.0, math.radians(30.0)
    film = Film(64, 64, 24.0, 24.0, 16, 16, 1.0)
    center = torch.tensor([[32.0, 32.0]])
    camera = Camera(torch.tensor([[0.0, -2.0, 0.0]]), looking(torch.zeros(1)), torch.tensor([focal]), center, True)
    angle = torch.tensor([math.pi / 4], requires_grad=True)
    light = torch.tensor([[math.sin(p), -math.cos(p), 0.0]])
    pixels = mesh_image(
        BoxMesh()(torch.full((1, 3), half)), torch.zeros(1, 1, 3), turned([0, 0, 1.0], angle[:, None]), camera, STILL,
        torch.zeros(16, 16, 3), film, torch.ones(1, 3), light, samples=256, edge_samples=4096,
    )  # fmt: skip
    pixels[..., 0].sum().backward()
    quarter = math.pi / 4
    right, left = math.cos(quarter - p), math.cos(quarter + p)
    # the near edge, at (0, -sqrt(2) h), moves to +x as the cube turns about +z
    crease = math.sqrt(2.0) * half * focal * (left - right) * 16
    right_rate, left_rate = -math.sin(quarter - p), math.sin(quarter + p)
    shading = 8 * 16 * (right_rate + left_rate)
    assert crease < 0.0
    assert float(pixels[..., 0].detach().sum()) == pytest.approx(8 * 16 * (right + left), rel=2e-3)
    assert float(angle.grad[0]) == pytest.approx(crease + shading, rel=0.01)
