"""Images of the ray tracer against closed forms, and what it says about scenes that cannot be rendered."""

import numpy as np
import pytest
import torch

from dvc.errors import Unsupported, UserError
from dvc.records import Mesh, Shutter
from render.path_render import PathRender
from render.scene import Ball, Body, DirectionalLight, Material, Plane, PointLight, Poses, Scene, Texture
from tests.render.ray_scenes import ball_mesh, box, coverage, film, from_above, inside_out, perspective, quad, row

FLOOR = quad((0, 0, 0), (30, 0, 0), (0, 30, 0))
GLOW = Material(row(0, 0, 0), emission=row(1, 2, 3))


@pytest.mark.parametrize("kind", ["diffuse", "two_sided"])
def test_white_furnace(kind: str):
    """In a closed room that glows with E and reflects a, radiance is E / (1 - a) everywhere."""
    a, e = 0.6, 0.5
    room = box((1.0, 0.8, 0.7))
    bodies = [Body(inside_out(room), "wall"), Body(ball_mesh(1, 0.3), "wall")]
    material = Material(row(a, a, a), emission=row(e, e, e), two_sided=kind == "two_sided")
    camera = perspective((0.0, -0.7, 0.0), (0.2, 1.0, 0.1), 60.0, 8)
    image = PathRender(samples=256, depth=40, roulette_depth=6)(Scene(bodies, {"wall": material}), camera, film(8))
    assert abs(float(image.mean()) / (e / (1.0 - a)) - 1.0) < 0.01
    short = PathRender(samples=64, depth=3)(Scene(bodies, {"wall": material}), camera, film(8))
    assert abs(float(short.mean()) / (e * (1.0 + a + a * a)) - 1.0) < 0.01


def test_lamp_over_a_floor():
    """Irradiance of a rectangular lamp, summed over lamp and floor in double precision."""
    lamp = quad((0.3, 0.1, 1.5), (0.4, 0, 0), (0, -0.5, 0))
    scene = Scene([Body(FLOOR, "floor"), Body(lamp, "lamp")], {"floor": Material(row(0.5, 0.4, 0.3)), "lamp": GLOW})
    camera = from_above(4, height=1.0)._replace(orthographic=False)  # under the lamp; at a depth of 1 m a pinhole sees alike
    image = PathRender(samples=1024, depth=2)(scene, camera, film(4))[0].double().mean(dim=2).numpy() / np.mean([0.5, 0.8, 0.9])
    s = (np.arange(32) + 0.5) / 32 * 2 - 1
    u, v = np.meshgrid(0.3 + 0.4 * s, 0.1 + 0.5 * s)
    x = (np.arange(32) + 0.5) / 16 - 1.0
    px, py = np.meshgrid(x, -x)
    r2 = (u[..., None, None] - px) ** 2 + (v[..., None, None] - py) ** 2 + 1.5**2
    exact = (1.5**2 / r2**2).mean(axis=(0, 1)) * 0.8 * 1.0 / np.pi
    exact = exact.reshape(4, 8, 4, 8).mean(axis=(1, 3))
    assert np.abs(image / exact - 1.0).max() < 0.02
    assert abs(image.mean() / exact.mean() - 1.0) < 0.003


def test_point_directional_and_sky():
    light = PointLight(row(0.2, 0.1, 1.0), row(3, 3, 3))
    sun = DirectionalLight(row(0.5, 0.0, -1.0), row(2, 2, 2))
    materials = {"floor": Material(row(0.5, 0.5, 0.5))}
    camera = from_above(2, width=1e-3)
    for lights, sky, exact in (
        ([light], None, 0.5 / np.pi * 3.0 * 1.0 / (0.05 + 1.0) ** 1.5),
        ([sun], None, 0.5 / np.pi * 2.0 / np.sqrt(1.25)),
        ([], row(0.7, 0.7, 0.7), 0.35),
    ):
        image = PathRender(samples=256, depth=2)(Scene([Body(FLOOR, "floor")], materials, lights, sky), camera, film(2))
        assert abs(float(image.mean()) / exact - 1.0) < 2e-3
    both = Scene([Body(FLOOR, "floor")], materials, [light, sun], row(0.7, 0.7, 0.7))
    total = 0.5 / np.pi * (3.0 / 1.05**1.5 + 2.0 / np.sqrt(1.25)) + 0.35
    assert abs(float(PathRender(samples=4096, depth=2)(both, camera, film(2)).mean()) / total - 1.0) < 0.01


def test_front_and_back():
    panel = quad((0, 0, 0), (5, 0, 0), (0, -5, 0))  # faces down, away from the camera
    sky = row(1.0, 1.0, 1.0)
    one, two = Material(row(0.5, 0.5, 0.5)), Material(row(0.5, 0.5, 0.5), two_sided=True)
    with pytest.warns(UserWarning, match="is black"):
        dark = PathRender(samples=4, depth=2)(Scene([Body(panel, "m")], {"m": one}, environment=sky), from_above(2), film(2))
    assert float(dark.abs().max()) == 0.0
    lit = PathRender(samples=64, depth=2)(Scene([Body(panel, "m")], {"m": two}, environment=sky), from_above(2), film(2))
    assert torch.allclose(lit, torch.full_like(lit, 0.5), rtol=1e-3)


def test_both_intersectors():
    ball = ball_mesh(2, 0.5)
    poses = Poses(row(0.2, 0.0, 0.6)[None], row(0.0, 0.0, 0.3, 1.0)[None])
    bodies = [Body(FLOOR, "floor"), Body(ball, "floor", poses=poses), Ball(row(-0.4, 0.3, 0.3), torch.tensor([0.2]), "metal"),
              Plane(torch.tensor([[[0.0, 1.5, 0.0], [1.0, 1.5, 0.0], [0.0, 1.5, 1.0]]]), "floor")]  # fmt: skip
    materials = {"floor": Material(row(0.6, 0.5, 0.4)), "metal": Material(row(0.9, 0.8, 0.7), kind="conductor", alpha=0.2)}
    scene = Scene(bodies, materials, [PointLight(row(0, -1, 3), row(9, 9, 9))], row(0.3, 0.3, 0.4))
    camera = perspective((0, -3, 2), (0, 0, 0.3), 40, 16)
    ours, theirs = (PathRender(samples=16, depth=4, meshes=meshes)(scene, camera, film(16)) for meshes in (False, True))
    assert float((ours - theirs).abs().mean()) < 1e-3 * float(ours.mean())


@pytest.mark.parametrize("kind", ["box", "tent"])
def test_filters(kind: str):
    """A half plane's edge through a filter: the filter's integral."""
    edge = 0.37  # film pixels right of the middle
    panel = quad((-3.0 + edge / 4.0, 0, 0), (3.0, 0, 0), (0, 5, 0))
    image = PathRender(samples=4096, depth=1, pixel_filter=kind)(Scene([Body(panel, "m")], {"m": GLOW}), from_above(8), film(8))
    s = np.linspace(-1.5, 1.5, 30001)
    density = np.where(np.abs(s) < 0.5, 1.0, 0.0) if kind == "box" else np.maximum(1.0 - np.abs(s), 0.0)
    inside = (np.arange(8)[:, None] + 0.5 + s) < 4.0 + edge
    exact = (inside * density).sum(axis=1) / density.sum()
    assert np.abs(image[0, 4, :, 0].numpy() - exact).max() < 0.01


def test_motion_blur():
    """A panel's edge that runs over the film in the exposure."""
    ends = torch.tensor([[[-3.6, 0.0, 0.0], [-2.4, 0.0, 0.0]]])
    turn = torch.tensor([0.0, 0.0, 0.0, 1.0]).expand(1, 2, 4)
    panel = quad((0, 0, 0), (3.0, 0, 0), (0, 5, 0))
    scene = Scene([Body(panel, "m", poses=Poses(ends, turn))], {"m": GLOW})
    image = PathRender(samples=4096, depth=1)(scene, from_above(8), film(8), Shutter(torch.tensor([0.5]), row(0, 0)))
    times = (np.arange(20000) + 0.5) / 20000 * 0.5 - 0.25
    at = (-3.0 + 1.2 * times + 3.0 + 1.0) * 4.0
    exact = np.clip(at[:, None] - np.arange(8), 0.0, 1.0).mean(axis=0)
    assert np.abs(image[0, 4, :, 0].numpy() - exact).max() < 0.01


def test_textures_and_vertex_values():
    """A linear ramp, once as a texture, once over vertices: pixels show its value in their middle; both multiply."""
    panel = quad((0, 0, 0), (2, 0, 0), (0, 2, 0))
    uv = torch.tensor([[[0.0, 0], [1, 0], [1, 1]], [[0, 0], [1, 1], [0, 1]]])
    ramp = ((torch.arange(64) + 0.5) / 64)[None, None, :, None].expand(1, 4, 64, 3)
    material = Material(row(0, 0, 0), emission=row(2, 2, 2), emission_texture=Texture(ramp, "clamp"))
    body = Body(panel, "m", uv=uv, vertex_emission=torch.tensor([[[0.0] * 3, [1.0] * 3, [1.0] * 3, [0.0] * 3]]))
    image = PathRender(samples=256, depth=1)(Scene([body], {"m": material}), from_above(8), film(8))[0, 3, :, 1].numpy()
    x = 0.25 + (np.arange(8) + 0.5) / 16
    assert np.abs(image - 2.0 * (x**2 + (1 / 16) ** 2 / 12)).max() < 5e-3


def test_perspective_share():
    """What a pinhole sees of a triangle is the polygon of its projected corners."""
    points = torch.tensor([[-0.6, -0.5, 0.3], [0.7, -0.3, 0.0], [0.1, 0.7, 0.5]])
    camera = from_above(8)._replace(position=row(0, 0, 3), focal=torch.tensor([10.0]), orthographic=False)
    mesh = Mesh(points[None], torch.tensor([[0, 1, 2]], dtype=torch.int32))
    image = PathRender(samples=2048, depth=1)(Scene([Body(mesh, "m")], {"m": GLOW}), camera, film(8))[0, ..., 0]
    depth = 3.0 - points[:, 2:].double()
    seen = 4.0 + 10.0 * torch.stack([points[:, 0], -points[:, 1]], dim=1).double() / depth
    assert float((image - coverage(seen, 8)).abs().max()) < 0.01


def _render(scene: Scene, **options) -> torch.Tensor:
    return PathRender(samples=2, depth=2, **options)(scene, from_above(2), film(2))


BAD_POINTS = FLOOR.vertices.clone()
BAD_POINTS[0, 2, 1] = float("nan")
BENT = torch.tensor([[0, 1, 1]], dtype=torch.int32)
TEXTURE = Texture(torch.ones(1, 2, 2, 3))


@pytest.mark.parametrize(
    ("bodies", "material", "lights", "words"),
    [
        ([], Material(), [], "at least one body"),
        ([Body(Mesh(BAD_POINTS, FLOOR.faces), "m")], Material(), [], r"expected finite numbers, got 1 of 12"),
        ([Body(Mesh(FLOOR.vertices, BENT), "m")], Material(), [], r"bodies\[0\].mesh: expected a face with an area"),
        ([Body(Mesh(FLOOR.vertices, torch.tensor([[0, 1, 9]], dtype=torch.int32)), "m")], Material(), [], "vertex numbers"),
        ([Body(FLOOR, "n")], Material(), [], "expected one of m"),
        ([Body(FLOOR, "m")], Material(albedo_texture=TEXTURE), [], "has a texture"),
        ([Ball(row(0, 0, 0), torch.tensor([1.0]), "m")], Material(albedo_texture=TEXTURE), [], "no texture coordinates"),
        ([Body(FLOOR, "m")], Material(kind="glass"), [], "kind: expected one of"),
        ([Body(FLOOR, "m")], Material(kind="conductor", alpha=1e-4), [], "roughness of 0.001 or more"),
        ([Body(FLOOR, "m")], Material(albedo=row(float("inf"), 0, 0)), [], "albedo: expected finite"),
        ([Ball(row(0, 0, 0), torch.tensor([-1.0]), "m")], Material(), [], "radius: expected positive"),
        ([Ball(row(0, float("nan"), 0), torch.tensor([1.0]), "m")], Material(), [], r"bodies\[0\].center: expected finite"),
        ([Plane(torch.zeros(1, 3, 3), "m")], Material(), [], "span a plane"),
        ([Body(FLOOR, "m")], Material(), [DirectionalLight(row(0, 0, 0), row(1, 1, 1))], "expected a direction"),
        ([Body(quad((0, 0, 0), (0, 0, 0), (0, 1, 0)), "m")], Material(emission=row(1, 1, 1)), [], "face with an area"),
        ([Body(FLOOR, "m", poses=Poses(torch.zeros(1, 1, 3), torch.zeros(1, 1, 4)))], Material(), [], "zero length"),
        ([Body(FLOOR, "m", poses=Poses(torch.zeros(1, 0, 3), torch.zeros(1, 0, 4)))], Material(), [], "none of them empty"),
        ([Body(FLOOR, "m", uv=torch.full((2, 3, 2), float("nan")))], Material(), [], "uv: expected finite"),
        ([Body(FLOOR, "m", vertex_alpha=torch.zeros(1, 4))], Material(kind="conductor", alpha=0.5), [], "roughness of 0.001"),
        ([Body(Mesh(torch.zeros(0, 4, 3), FLOOR.faces), "m")], Material(), [], "none of them empty"),
    ],
)  # fmt: skip
def test_what_cannot_be_rendered(bodies, material, lights, words: str):
    with pytest.raises((UserError, Unsupported), match=words) as caught:
        _render(Scene(bodies, {"m": material}, lights))
    assert "\n" not in str(caught.value)


def test_camera_inside_a_wall_says_so():
    scene = Scene([Body(box(9.0), "m")], {"m": Material()}, environment=row(1, 1, 1))
    with pytest.warns(UserWarning, match="camera inside a body"):
        PathRender(samples=2)(scene, perspective((0, -1, 0), (0, 0, 0), 40, 2), film(2))


def test_degenerate_faces_do_no_harm():
    """A face without area among others: nothing meets it, and the gradient stays finite."""
    points = torch.cat(
        [FLOOR.vertices, torch.tensor([[[0.1, 0.1, 0.5], [0.2, 0.2, 0.5], [0.3, 0.3, 0.5]]])], dim=1
    ).requires_grad_()
    faces = torch.cat([FLOOR.faces, torch.tensor([[4, 5, 6]], dtype=torch.int32)])
    image = _render(Scene([Body(Mesh(points, faces), "m")], {"m": Material()}, environment=row(1, 1, 1)))
    assert torch.allclose(image, torch.full_like(image, 0.5), rtol=1e-3)
    image.sum().backward()
    assert bool(torch.isfinite(points.grad).all())


@pytest.mark.parametrize("change", [{"rows": 0}, {"scale": float("nan")}, {"left": float("inf")}, {"width": 0}])
def test_film_that_is_none(change: dict):
    with pytest.raises(UserError, match=f"Film.{next(iter(change))}"):
        PathRender()(Scene([Body(FLOOR, "m")], {"m": Material()}), from_above(4), film(4)._replace(**change))


def test_a_lamp_without_area_beside_another():
    lamp = quad((0, 0, 2), (0, 1, 0), (1, 0, 0))
    none = Mesh(lamp.vertices * 0.0, lamp.faces)
    materials = {"m": Material(), "lamp": Material(emission=row(1, 1, 1))}
    with pytest.raises(UserError, match=r"bodies\[2\].mesh: expected an extent"):
        PathRender()(Scene([Body(FLOOR, "m"), Body(lamp, "lamp"), Body(none, "lamp")], materials), from_above(4), film(4))
