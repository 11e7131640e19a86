"""The simple path tracer against `PathRender`: images and interior gradients of every number; and against differences."""

import numpy as np
import pytest
import torch

from dvc.errors import Unsupported, UserError
from dvc.records import Camera, SdfGrid
from render.path_render import PathRender
from render.scene import Ball, Body, Material, PointLight, Poses, Scene, SdfBody
from render.simple_path import SimplePathRender
from tests.render.random_scenes import random_scene
from tests.render.ray_scenes import box, film, from_above, perspective, quad, row
from tests.render.simple_scenes import FILM, SCENES, WEIGHTS, SimpleScene, camera_of, estimates, lit

ROUNDING = 1.0e-5  # of a gradient's size: single precision
LARGEST_Z = 5.5  # of a few hundred, from 16 estimates each
NOISY = 0.4  # standard error over size beyond which agreement says nothing
MATERIAL = {  # numbers that move nothing, whose gradient `PathRender` sweeps without geometry
    "room": ("wall albedo", "wall colours", "block albedo", "emission", "lamp colours", "lamp albedo"),
    "gloss": ("floor albedo", "wall albedo", "floor alpha", "wall alpha", "rough", "emission", "sky"),
    "textured": ("repeat", "mirror", "clamp", "rough", "shine", "albedo", "lamp albedo", "alpha", "emission", "sky"),
    "lit": ("albedo", "slab albedo", "alpha"),
    "outdoors": ("albedo", "slab albedo", "alpha", "panorama", "factor", "emission"),
    "round": ("albedo", "glossy albedo", "alpha", "tiles", "glow", "wall glow", "sky"),
}

pytestmark = pytest.mark.filterwarnings("ignore:PathRender. the gradient leaves out", "ignore:PathRender. view")


@pytest.fixture(autouse=True)
def _one_thread():
    """Arrays are small: threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def compare(simple: dict[str, np.ndarray], fast: dict[str, np.ndarray]) -> None:
    """Each entry of each array within its standard error, and the errors small enough to say something."""
    squares = []
    for name, ours in simple.items():
        theirs = fast[name]
        size = np.sqrt((theirs.mean(axis=0) ** 2).mean())
        errors = [np.sqrt(part.var(axis=0, ddof=1) / len(part)) for part in (ours, theirs)]
        for error in errors:
            assert 0.0 < np.sqrt((error**2).mean()) < NOISY * size, f"{name}: {size} +- {error} says nothing"
        z = (ours.mean(axis=0) - theirs.mean(axis=0)) / (np.hypot(*errors) + ROUNDING * size)
        assert np.abs(z).max() < LARGEST_Z, f"{name}, entry {np.abs(z).argmax()}: {z}"
        squares.append((z**2).mean())
    assert np.mean(squares) < 3.0, dict(zip(simple, squares))


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENES)
def test_image_and_gradient_of_every_number(name: str):
    scene = SCENES[name]()
    simple = estimates(SimplePathRender(64, scene.depth), scene, 1)
    compare(simple, estimates(PathRender(256, scene.depth, boundary_samples=0), scene, 2))
    still = estimates(PathRender(256, scene.depth), scene, 3, MATERIAL[name])
    compare({key: simple[key] for key in still}, still)


@pytest.mark.slow
@pytest.mark.parametrize("number", [1, 14, 26, 32, 39])
def test_random_scenes(number: int):
    drawn = random_scene(number)

    def build(numbers: dict[str, torch.Tensor]) -> tuple[Scene, Camera]:
        given = drawn.build(numbers["all"])
        return given["scene"], given["camera"]

    scene = SimpleScene({"all": torch.zeros(1, len(drawn.names))}, build, drawn.depth, drawn.film, drawn.weights)
    samples = 4096 // drawn.weights[..., 0].numel()
    simple = estimates(SimplePathRender(samples, scene.depth), scene, 1)
    compare(simple, estimates(PathRender(4 * samples, scene.depth, boundary_samples=0), scene, 2))


@pytest.mark.parametrize("name", SCENES)
def test_gradient_is_the_limit_of_differences(name: str):
    """Bounces evenly over the sphere, the same random numbers: along a random direction of each number."""
    scene, step = SCENES[name](), 1.0e-6
    render = SimplePathRender(4, scene.depth, uniform_directions=True)
    generator = torch.Generator().manual_seed(1)

    def loss(numbers: dict[str, torch.Tensor]) -> torch.Tensor:
        return (render(*scene.build(numbers), FILM, seed=3) * WEIGHTS).mean()

    start = {key: value.double().requires_grad_(True) for key, value in scene.numbers.items()}
    gradients = dict(zip(start, torch.autograd.grad(loss(start), list(start.values()))))
    for key, value in start.items():
        way = torch.randn(value.shape, generator=generator, dtype=torch.float64)
        with torch.no_grad():
            slope = (loss({**start, key: value + step * way}) - loss({**start, key: value - step * way})) / (2.0 * step)
        exact = float((gradients[key] * way).sum())
        assert float(slope) == pytest.approx(exact, rel=1e-6, abs=1e-10), key
        assert exact != 0.0, key


def test_a_surface_under_an_even_sky_is_exact():
    """Cosine over density is the same for all directions: albedo times radiance, without noise; and its derivatives."""
    albedo, sky = row(0.2, 0.5, 0.8).requires_grad_(True), row(1.0, 2.0, 3.0).requires_grad_(True)
    floor = quad((0, 0, 0), (9, 0, 0), (0, 9, 0))
    scene = Scene([Body(floor, "floor")], {"floor": Material(albedo)}, environment=sky)
    image = SimplePathRender(3, depth=2)(scene, from_above(4), film(4))
    expected = albedo.double() * sky.double()
    torch.testing.assert_close(image, expected[:, None, None].expand(1, 4, 4, 3), rtol=1e-12, atol=0.0)
    found = torch.autograd.grad(image.mean(dim=(0, 1, 2)).sum(), (albedo, sky))
    torch.testing.assert_close(found, (sky.detach(), albedo.detach()))


def test_inside_of_a_ball_is_seen():
    """A point light in the middle of a ball whose inside reflects: the same radiance everywhere, with one bounce twice."""
    intensity, radius = 3.0, 2.0
    ball = Ball(row(0.5, 0.0, 1.0), torch.tensor([radius]), "m")
    light = PointLight(row(0.5, 0.0, 1.0), row(intensity, intensity, intensity))
    scene = Scene([ball], {"m": Material((0.5, 0.5, 0.5), two_sided=True)}, [light])
    camera = perspective((0.7, 0.1, 0.8), (0.0, 1.0, 0.5), 70.0, 4)
    direct = 0.5 / np.pi * intensity / radius**2
    for depth, factor in ((2, 1.0), (3, 1.5), (5, 1.875)):
        image = SimplePathRender(2, depth)(scene, camera, film(4))
        torch.testing.assert_close(image, torch.full_like(image, factor * direct), rtol=1e-6, atol=0.0)


def test_views_are_worlds_and_cameras():
    """One world seen by two cameras, and two worlds seen by one: as rendered one by one by `PathRender`, and of its shape."""
    scene = lit()
    moved = {key: value.repeat(2, *[1] * (value.dim() - 1)) for key, value in scene.numbers.items()}
    moved["camera.position"][1, 0] += 0.3
    moved["albedo"][1] *= 0.5
    for wide in ("camera.position", "albedo"):
        numbers = {**scene.numbers, wide: moved[wide]}
        simple = SimplePathRender(256, 2)(*scene.build(numbers), FILM)
        fast = PathRender(1024, 2)(*scene.build(numbers), FILM)
        assert simple.shape == fast.shape and simple.dtype == torch.float64
        for view in range(2):
            means = [float(images[view].mean()) for images in (simple, fast)]
            assert means[0] == pytest.approx(means[1], rel=0.02)
        assert abs(float(simple[0].mean() / simple[1].mean()) - 1.0) > 0.04


def test_what_is_absent_is_refused():
    scene = lit()
    shown, camera = scene.build(scene.numbers)
    cube, grid = box(0.3), SdfGrid(torch.linspace(-1, 1, 64).reshape(1, 4, 4, 4), torch.zeros(3), 0.1)
    turn = Poses(torch.zeros(1, 1, 3), row(0.0, 0.0, 0.0, 1.0)[:, None])
    render = SimplePathRender(1)
    for body in (SdfBody(grid, "diffuse"), Body(cube, "diffuse", poses=turn)):
        with pytest.raises(Unsupported, match=r"bodies\[3\]"):
            render(shown._replace(bodies=[*shown.bodies, body]), camera, FILM)
    with pytest.raises(Unsupported, match="frame axis"):
        render(shown, camera._replace(position=camera.position[:, None]), FILM)
    with pytest.raises(UserError, match="monotone"):
        render(shown, camera_of({**scene.numbers, "camera.distortion": row(-9.0, 0.0, 0.0, 0.0, 0.0)}), FILM)
    with pytest.raises(UserError, match=r"radius: expected positive"):
        render(shown._replace(bodies=[Ball(row(0, 0, 0), torch.tensor([-1.0]), "diffuse")]), camera, FILM)
    with pytest.raises(UserError, match=r"SimplePathRender\.depth"):
        SimplePathRender(1, 0)
