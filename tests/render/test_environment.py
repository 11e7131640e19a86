"""Panoramas: where a direction looks up, sampling against density, light of a known sky, and gradients against differences."""

import math

import numpy as np
import pytest
import torch
import warp as wp

from dvc.errors import UserError
from dvc.records import Camera, Film, Mesh
from render.environment import panorama_cdf, panorama_density, sample_panorama, sky_uv
from render.image_file import write_exr
from render.path_render import PathRender
from render.scene import Body, EnvironmentMap, Material, Scene
from render.scene_data import SceneTables
from render.scene_file import read_scene
from render.simple_path import sky
from tests.render.ray_scenes import box, film, mean_and_error, perspective, quad


@wp.kernel(enable_backward=False)
def look(d: wp.array(dtype=wp.vec3), uv: wp.array(dtype=wp.vec2)):
    uv[wp.tid()] = sky_uv(d[wp.tid()])


@wp.kernel(enable_backward=False)
def draw(tables: SceneTables, u: wp.array(dtype=wp.vec2), d: wp.array(dtype=wp.vec3), density: wp.array(dtype=float)):
    i = wp.tid()
    d[i] = sample_panorama(tables, 0, u[i][0], u[i][1])
    density[i] = panorama_density(tables, 0, d[i])


def bright(rows: int = 8, seed: int = 0) -> torch.Tensor:
    image = torch.rand(1, rows, 2 * rows, 3, generator=torch.Generator().manual_seed(seed))
    image[0, 1, 3] = 50.0
    image[0, rows - 2 :] = 0.0
    return image


def facing(image: torch.Tensor, rotation: torch.Tensor | None = None, factor: object = 1.0) -> dict:
    """A camera at the origin that sees the panorama alone, by default along +x; a speck lies behind it."""
    speck = quad((-2.0, 0.0, 0.0), (0.0, 0.1, 0.0), (0.0, 0.0, 0.1))
    turn = torch.tensor([[[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]]]) if rotation is None else rotation
    camera = Camera(torch.zeros(1, 3), turn, torch.tensor([16.0]), torch.tensor([[8.0, 8.0]]), False)
    scene = Scene([Body(speck, "speck")], {"speck": Material()}, [], EnvironmentMap(image, factor))
    return {"scene": scene, "camera": camera}


def test_where_directions_look_up():
    d = np.array([[1, 0, 0], [0, 2, 0], [0, -1, 0], [0, 0, 3], [0, 0, -1]], np.float32)
    uv = wp.empty(len(d), dtype=wp.vec2)
    wp.launch(look, len(d), [wp.array(d, dtype=wp.vec3)], [uv])
    found = uv.numpy()
    np.testing.assert_allclose(found[:3], [[0.5, 0.5], [0.25, 0.5], [0.75, 0.5]], atol=1e-6)
    np.testing.assert_allclose(found[3:, 1], [1.0, 0.0], atol=1e-6)


def test_a_camera_sees_it_upright_and_not_mirrored():
    rows, columns = torch.meshgrid(torch.arange(32.0), torch.arange(64.0), indexing="ij")
    image = torch.stack([rows, columns, torch.zeros_like(rows)], dim=-1)[None]
    picture = PathRender(64, 1)(**facing(image), film=film(16))[0]
    assert float(picture[2, 8, 0]) < float(picture[13, 8, 0])  # the zenith's row 0 is above
    assert float(picture[8, 2, 1]) < float(picture[8, 13, 1])  # left of the picture's middle stays left


def test_sampling_follows_its_density():
    tables = SceneTables()
    tables.sky_cdf = wp.from_torch(panorama_cdf(bright()).contiguous())
    count = 400_000
    u = torch.rand(count, 2, generator=torch.Generator().manual_seed(1))
    d, density = wp.empty(count, dtype=wp.vec3), wp.empty(count, dtype=float)
    wp.launch(draw, count, [tables, wp.from_torch(u, dtype=wp.vec2)], [d, density])
    directions, p = d.numpy(), density.numpy()
    assert np.allclose(np.linalg.norm(directions, axis=1), 1.0, atol=1e-5) and (p > 0.0).all()
    # 1 / p over any cell of equal solid angles is its solid angle
    z, phi = directions[:, 2], np.arctan2(directions[:, 1], directions[:, 0])
    cell = np.minimum((z + 1.0) * 3, 5).astype(int) * 6 + np.minimum((phi / np.pi + 1.0) * 3, 5).astype(int)
    weights = 1.0 / p / count
    found = np.bincount(cell, weights, 36)
    error = np.sqrt(np.bincount(cell, weights**2, 36))
    z_score = (found - 4.0 * np.pi / 36) / error
    assert np.abs(z_score).max() < 4.5 and (z_score**2).mean() < 2.0


def test_an_even_panorama_is_an_even_environment():
    floor = quad((0, 0, 0), (2.0, 0, 0), (0, 2.0, 0))
    camera, materials = perspective((0.0, -1.0, 1.0), (0.0, 0.0, 0.0), 60.0, 8), {"m": Material((0.8, 0.5, 0.2))}
    pictures = [
        PathRender(256, 3)(Scene([Body(floor, "m")], materials, [], sky), camera, film(8))
        for sky in ((0.5, 0.7, 0.9), EnvironmentMap(torch.full((1, 4, 8, 3), 2.0), (0.25, 0.35, 0.45)))
    ]
    torch.testing.assert_close(pictures[0].mean(dim=(1, 2)), pictures[1].mean(dim=(1, 2)), rtol=5e-3, atol=0.0)


def test_a_floor_under_a_bright_part_is_lit_by_its_integral():
    """Irradiance of the horizontal floor, by quadrature over the interpolant."""
    image = bright(8)
    floor = quad((0, 0, 0), (5.0, 0, 0), (0, 5.0, 0))
    scene = Scene([Body(floor, "m")], {"m": Material((1.0, 1.0, 1.0))}, [], EnvironmentMap(image))
    picture = PathRender(4096, 2)(scene, perspective((0.0, 0.1, 1.0), (0.0, 0.0, 0.0), 20.0, 4), film(4))
    theta, phi = (torch.arange(400) + 0.5) / 400 * math.pi / 2, (torch.arange(1600) + 0.5) / 1600 * 2 * math.pi
    t, p = torch.meshgrid(theta.double(), phi.double(), indexing="ij")
    d = torch.stack([t.sin() * p.cos(), t.sin() * p.sin(), t.cos()], dim=-1).reshape(-1, 3)

    class World:
        panorama, environment = image[0].double(), torch.ones(3, dtype=torch.float64)

    values = sky(World, d)  # type: ignore[arg-type]
    weight = (t.sin() * t.cos()).reshape(-1, 1) * (math.pi / 2 / 400) * (2 * math.pi / 1600)
    expected = (values * weight).sum(0) / math.pi
    torch.testing.assert_close(picture.mean(dim=(0, 1, 2)).double(), expected, rtol=5e-3, atol=0.0)


def test_gradients_of_texels_factor_and_turn_against_differences():
    image = bright(8, 3).clamp_max(1.0)

    def picture(numbers: torch.Tensor) -> torch.Tensor:
        """numbers: a factor, a change of the texels, and a turn of the camera about z."""
        c, s = numbers[2].cos(), numbers[2].sin()
        zero, one = torch.zeros(()), torch.ones(())
        turn = torch.stack([torch.stack([s, -c, zero]), torch.stack([zero, zero, -one]), torch.stack([c, s, zero])])
        pattern = torch.cos(torch.arange(128.0)).reshape(1, 8, 16, 1)
        given = facing(image + numbers[1] * pattern.abs(), turn[None], numbers[0])
        return PathRender(2048, 1, boundary_samples=0)(**given, film=film(16), seed=4)[0]

    weights = torch.linspace(0.0, 1.0, 16)[None, :, None]
    start = torch.tensor([0.8, 0.1, 0.05])
    leaf = start.clone().requires_grad_(True)
    (picture(leaf) * weights).sum().backward()
    for k, step in enumerate((1e-2, 1e-2, 4e-3)):
        sides = [(picture(start + sign * step * torch.eye(3)[k]).double() * weights).sum() for sign in (1.0, -1.0)]
        assert float(leaf.grad[k]) == pytest.approx(float(sides[0] - sides[1]) / (2.0 * step), rel=0.01)


def test_forward_mode_agrees_with_reverse_mode():
    image, way = bright(4, 5).clamp_max(2.0), torch.rand(1, 4, 8, 3, generator=torch.Generator().manual_seed(6))
    floor = quad((0, 0, 0), (2.0, 0, 0), (0, 2.0, 0))
    camera = perspective((0.0, -1.0, 1.0), (0.0, 0.0, 0.2), 60.0, 6)

    def build(t: torch.Tensor) -> dict:
        sky = EnvironmentMap(image + t * way, (0.5, 0.6, 0.7))
        return {"scene": Scene([Body(floor, "m")], {"m": Material((0.8, 0.5, 0.2))}, [], sky), "camera": camera}

    render = PathRender(512, 3)
    forward = render.derivative(build, torch.zeros(()), film=film(6), seed=1).mean()
    t = torch.zeros((), requires_grad=True)
    render(**build(t), film=film(6), seed=2).mean().backward()
    assert float(t.grad) == pytest.approx(float(forward), rel=0.02)


def test_from_a_scene_file(tmp_path):
    write_exr(tmp_path / "sky.exr", bright(4)[0])
    (tmp_path / "scene.yaml").write_text(
        "camera: {position: [0, -2, 1], target: [0, 0, 0], fov: 40}\nfilm: {width: 8, height: 8}\n"
        "materials: {m: {}}\nbodies: [{box: [1, 1, 1], material: m}]\nenvironment: {file: sky.exr, factor: 0.5}\n"
    )
    found = read_scene(tmp_path / "scene.yaml").scene.environment
    assert isinstance(found, EnvironmentMap) and float(found.factor[0, 0]) == 0.5
    torch.testing.assert_close(found.image, bright(4))


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.ones(1, 4, 4, 3), "twice as many columns as rows"),
        (torch.full((1, 4, 8, 3), float("nan")), "finite"),
        (-torch.ones(1, 4, 8, 3), "at least 0"),
        (torch.ones(4, 8, 3), "expected shape"),
    ],
)
def test_what_is_no_panorama(image: torch.Tensor, message: str):
    with pytest.raises(UserError, match=message):
        PathRender(1, 1)(**facing(image), film=Film(16, 16, 0.0, 0.0, 16, 16, 1.0))


@pytest.mark.slow
def test_shadows_of_a_bright_sky_move():
    """All boundaries: a block between a floor and a panorama, against differences."""
    block, floor = box(0.35), quad((0, 0, 0), (1.5, 0, 0), (0, 1.5, 0))
    camera = perspective((0.3, -2.2, 1.4), (0.0, 0.0, 0.3), 60.0, 8)
    image = bright(4).clamp_max(20.0)

    def build(t: torch.Tensor) -> dict:
        moved = block.vertices + torch.stack([t, 0.5 * t, 0.4 + 0.0 * t])
        bodies = [Body(Mesh(moved, block.faces), "m"), Body(floor, "m")]
        return {"scene": Scene(bodies, {"m": Material((0.8, 0.6, 0.4))}, [], EnvironmentMap(image)), "camera": camera}

    weights = torch.linspace(0.2, 1.0, 8)[None, :, None]
    found, expected = [], []
    for seed in range(12):
        t = torch.zeros((), requires_grad=True)
        (PathRender(512, 2)(**build(t), film=film(8), seed=seed)[0] * weights).sum().backward()
        found.append(float(t.grad))
        with torch.no_grad():
            finer = PathRender(8192, 2)
            sides = [finer(**build(torch.tensor(s * 0.05)), film=film(8), seed=100 + seed)[0] for s in (1.0, -1.0)]
        expected.append(float(((sides[0] - sides[1]).double() * weights).sum()) / 0.1)
    (a, a_error), (b, b_error) = mean_and_error(found), mean_and_error(expected)
    error = math.hypot(float(a_error), float(b_error))
    assert error < 0.06 * abs(b) and abs(a - b) < 4.0 * error, (a, a_error, b, b_error)
