"""Every kind of number of a scene: reverse mode, forward mode, and differences of the image, which all agree.

Steps are along fixed directions; a difference's two images share their random numbers.
"""

import math

import pytest
import torch

from dvc.errors import Unsupported
from dvc.records import Mesh, Shutter
from render.path_render import PathRender
from render.scene import Ball, Body, DirectionalLight, Material, Plane, PointLight, Poses, Scene, Texture
from tests.render.ray_scenes import (
    agree,
    both_modes,
    box,
    coverage,
    difference,
    film,
    from_above,
    mean_and_error,
    perspective,
    quad,
    row,
    weights,
)

SIZE = 8
GENERATOR = torch.Generator().manual_seed(5)
IMAGE = torch.rand(1, 4, 5, 3, generator=GENERATOR) + 0.2
COLOURS = torch.rand(1, 8, 3, generator=GENERATOR) + 0.3
WAY = {name: torch.randn(shape, generator=GENERATOR) for name, shape in {
    "vertices": (1, 8, 3), "positions": (1, 2, 3), "orientations": (1, 2, 4), "image": (1, 4, 5, 3), "colours": (1, 8, 3),
    "three": (1, 3), "other": (1, 3), "five": (1, 5), "plate": (1, SIZE, SIZE, 3),
}.items()}  # fmt: skip
UV = torch.tensor([[[0.1, 0.1], [0.9, 0.1], [0.9, 0.9]], [[0.1, 0.1], [0.9, 0.9], [0.1, 0.9]]])
PLATE = torch.rand(1, SIZE, SIZE, 3, generator=GENERATOR)


def scene_of(moved: dict[str, torch.Tensor]) -> dict:
    """Everything at once: `moved` says by how much each kind of number has gone along its direction."""

    def by(name: str, way: str = "three") -> torch.Tensor | float:
        return moved[name] * WAY[way] if name in moved else 0.0

    cube = box(0.35)
    cube = Mesh(cube.vertices + by("vertices", "vertices"), cube.faces)
    ends = torch.tensor([[[-0.05, 0.1, 0.6], [0.15, 0.05, 0.7]]]) + by("positions", "positions")
    turns = torch.tensor([[[0.1, 0.2, 0.1, 1.0], [0.15, 0.2, 0.3, 1.0]]]) + by("orientations", "orientations")
    floor = Mesh(quad((0, 0, 0), (2, 0, 0), (0, 2, 0)).vertices, quad((0, 0, 0), (2, 0, 0), (0, 2, 0)).faces)
    lamp = quad((0.5, 0.4, 2.4), (0.5, 0, 0), (0, -0.5, 0))
    bodies = [
        Body(floor, "floor", uv=UV), Body(Mesh(lamp.vertices + by("lamp"), lamp.faces), "lamp"),
        Body(cube, "clay", poses=Poses(ends, turns), vertex_albedo=COLOURS + by("colours", "colours")),
        Plane(torch.tensor([[[0.0, 3.0, 0.0], [1.0, 3.0, 0.0], [0.0, 3.0, 1.0]]]), "floor2"),
    ]  # fmt: skip
    alpha = torch.tensor([0.35]) + moved.get("alpha", 0.0)
    materials = {
        "floor": Material(row(0.6, 0.5, 0.7) + by("albedo"), kind="conductor", alpha=alpha, schlick=True,
                          albedo_texture=Texture(IMAGE + by("image", "image"), "mirror")),
        "floor2": Material(row(0.4, 0.5, 0.3)), "clay": Material(row(0.7, 0.6, 0.5) + by("albedo", "other"), two_sided=True),
        "lamp": Material(row(0, 0, 0), emission=row(9, 8, 7) + by("emission")),
    }  # fmt: skip
    lights = [
        PointLight(row(-1.0, -0.6, 2.0) + by("light"), row(3, 4, 3) + by("intensity")),
        DirectionalLight(row(0.4, 0.3, -1.0) + by("direction"), row(0.8, 0.7, 0.9) + by("irradiance")),
    ]
    camera = perspective((0.4, -2.8, 2.2), (0.0, 0.1, 0.4), 42.0, SIZE)
    tilt = moved["rotation"] if "rotation" in moved else torch.zeros(1)
    one, zero = torch.ones_like(tilt), torch.zeros_like(tilt)
    turn = torch.stack([torch.cat([one, -tilt, zero]), torch.cat([tilt, one, -tilt]), torch.cat([zero, tilt, one])])
    turn = turn / torch.sqrt(1.0 + tilt * tilt)
    grow = 1.0 + moved.get("focal", 0.0)
    camera = camera._replace(
        position=camera.position + by("position"), rotation=turn @ camera.rotation, focal=camera.focal * grow,
        center=camera.center + (moved["center"] * torch.tensor([[1.0, 0.5]]) if "center" in moved else 0.0),
        distortion=row(-0.08, 0.02, 0.01, -0.01, 0.0) + by("distortion", "five"),
    )  # fmt: skip
    opened = torch.tensor([0.5]) + moved.get("exposure", 0.0)
    skew = row(0.1, 0.2) + (moved["readout"] * torch.tensor([[1.0, 0.7]]) if "readout" in moved else 0.0)
    return {
        "scene": Scene(bodies, materials, lights, row(0.3, 0.4, 0.6) + by("sky")), "camera": camera,
        "shutter": Shutter(opened, skew),
    }  # fmt: skip


SMOOTH = ["albedo", "alpha", "emission", "image", "colours", "intensity", "irradiance", "sky"]
MOVING = ["vertices", "positions", "orientations", "lamp", "light", "direction", "position", "focal", "center", "distortion",
          "exposure", "readout"]  # fmt: skip


def check(names: list[str], samples: int, truth_samples: int, step: float, depth: int = 3) -> None:
    def build(p):
        return scene_of({name: p[i : i + 1] for i, name in enumerate(names)})

    value = torch.zeros(len(names))
    r, r_error, f, f_error = both_modes(PathRender(samples=samples, depth=depth), build, value, SIZE, 6)
    d, d_error = difference(PathRender(samples=truth_samples, depth=depth), build, value, SIZE, step, 4)
    for k, name in enumerate(names):
        for found, error in ((r, r_error), (f, f_error)):
            spread = math.hypot(error[k], d_error[k])
            assert abs(found[k] - d[k]) <= 4.5 * spread + 0.01 * abs(d[k]), (
                f"{name}: {found[k]} +- {error[k]}, differences {d[k]} +- {d_error[k]}"
            )
        assert r_error[k] <= 0.3 * abs(d[k]) + 2e-3, f"{name}: {r[k]} +- {r_error[k]} says little"


@pytest.mark.slow
def test_numbers_that_move_nothing():
    check(SMOOTH, 128, 512, 0.02)


@pytest.mark.slow
@pytest.mark.parametrize("names", [MOVING[:4], MOVING[4:8], MOVING[8:]])
def test_numbers_that_move(names: list[str]):
    check(names, 512, 8192, 0.02)


def test_plate():
    """What the camera sees past everything, linear in the plate: exact."""
    panel = quad((0.4, 0.0, 0.0), (0.35, 0, 0), (0, 2.0, 0))
    scene = Scene([Body(panel, "m")], {"m": Material(row(0, 0, 0), emission=row(1, 1, 1))})

    def build(p):
        return {"scene": scene, "camera": from_above(SIZE), "plate": PLATE + p * WAY["plate"]}

    truth = float((weights(SIZE) * WAY["plate"][0])[:, :4].sum()) / (3 * SIZE * SIZE)
    hidden = (0.05 + 1.0) * 4.0 - 4.0  # film columns left of the panel, in its first column; the last is right of it
    column = (weights(SIZE) * WAY["plate"][0]).sum(dim=(0, 2)) / (3 * SIZE * SIZE)
    truth += float(column[4]) * hidden + float(column[7]) * (8.0 - (0.75 + 1.0) * 4.0)
    r, r_error, f, f_error = both_modes(PathRender(samples=64, depth=1), build, torch.zeros(1), SIZE, 4)
    agree(r, r_error, [truth], 0.0, slack=0.02)
    agree(f, f_error, [truth], 0.0, slack=0.02)


@pytest.mark.slow
def test_ball_of_which_the_inside_is_seen():
    """Centre and radius of a glossy ball that fills the picture: shading alone, without outlines."""

    def build(p):
        ball = Ball(row(0.0, 0.0, 0.0) + torch.stack([p[0], p[0] * 0, p[1]]), torch.ones(1) + p[2:3], "m")
        material = Material(row(0.8, 0.7, 0.6), kind="conductor", alpha=0.4)
        return {"scene": Scene([ball], {"m": material}, [PointLight(row(1.0, -0.5, 3.0), row(20, 20, 20))]),
                "camera": from_above(SIZE, width=0.8)}  # fmt: skip

    value = torch.zeros(3)
    r, r_error, f, f_error = both_modes(PathRender(samples=64, depth=2), build, value, SIZE, 4)
    d, d_error = difference(PathRender(samples=256, depth=2), build, value, SIZE, 0.01, 3)
    agree(r, r_error, d, d_error, slack=5e-3)
    agree(f, f_error, d, d_error, slack=5e-3)


@pytest.mark.slow
def test_error_falls_with_the_root_of_samples():
    """The gradient of a shadow and an outline that grow converges to the exact number, without a floor, below 0.3 %."""
    panel = quad((0.3, 0.0, 0.8), (0.3, 0, 0), (0, 0.4, 0))
    middle = torch.tensor([0.3, 0.0, 0.8])
    floor = quad((0, 0, 0), (5, 0, 0), (0, 5, 0))
    materials = {"floor": Material(row(0.6, 0.6, 0.6)), "panel": Material(row(0, 0, 0), emission=row(0.5, 0.5, 0.5))}

    def build(p):
        moved = Mesh(middle + (panel.vertices - middle) * (1.0 + p[0]), panel.faces)
        sun = DirectionalLight(row(-0.9, 0.0, -1.0), row(4, 4, 4))
        return {"scene": Scene([Body(floor, "floor"), Body(moved, "panel")], materials, [sun]), "camera": from_above(SIZE)}

    p = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    corners = middle[:2].double() + (panel.vertices[0, :, :2] - middle[:2]).double() * (1.0 + p[0])
    on_film = [torch.stack([(c[:, 0] + 1) * SIZE / 2, (1 - c[:, 1]) * SIZE / 2], dim=1) for c in (
        corners, corners + torch.tensor([-0.72, 0.0]).double())]  # fmt: skip
    panel_share, shadow_share = (coverage(c, SIZE) for c in on_film)
    bright = 4.0 * 0.6 / math.pi / math.sqrt(1.81)
    image = 0.5 * panel_share + bright * (1.0 - panel_share - shadow_share)  # they do not overlap
    # emission of the panel also lights nothing below it: it faces the camera
    (weights(SIZE).double().mean(dim=2) * image).mean().backward()
    truth = float(p.grad)
    errors = []
    for count in (512, 4096, 32768):
        render = PathRender(samples=4, depth=2, boundary_samples=(count, count, 0))
        slopes = []
        for seed in range(32):
            leaf = torch.zeros(1, requires_grad=True)
            given = build(leaf)
            shown = render(given["scene"], given["camera"], film(SIZE), seed=seed)
            (weights(SIZE) * shown[0]).mean().backward()
            slopes.append(float(leaf.grad))
        mean, error = mean_and_error(slopes)
        errors.append(float(error) / abs(truth))
        assert abs(float(mean) - truth) <= 4.0 * float(error) + 5e-4 * abs(truth)
    assert errors[-1] < 0.003
    assert errors[1] < 0.55 * errors[0] and errors[2] < 0.55 * errors[1]


def test_texture_coordinates_have_no_gradient_and_say_so():
    body = Body(quad((0, 0, 0), (1, 0, 0), (0, 1, 0)), "m", uv=UV.clone().requires_grad_())
    with pytest.raises(Unsupported, match="texture coordinates"):
        PathRender()(Scene([body], {"m": Material(albedo_texture=Texture(IMAGE))}), from_above(SIZE), film(SIZE))
