"""Gradients of shadows and of what edges hide from surfaces: exact areas, sums over lamps, and differences."""

import numpy as np
import pytest
import torch

from dvc.records import Camera, Mesh, Shutter
from render.path_render import PathRender
from render.scene import Body, DirectionalLight, Material, PointLight, Poses, Scene
from tests.render.ray_scenes import (
    agree,
    both_modes,
    box,
    coverage,
    difference,
    from_above,
    inside_out,
    perspective,
    quad,
    reverse_mode,
    row,
    weights,
)

SIZE = 8
FLOOR = quad((0, 0, 0), (30, 0, 0), (0, 30, 0))
OCCLUDER = torch.tensor([[1.2, -0.4, 2.0], [2.6, -0.5, 2.2], [2.3, 0.7, 2.5]])  # beside what the camera sees
FACE = torch.tensor([[0, 1, 2]], dtype=torch.int32)
GREY = {"floor": Material(row(0.6, 0.4, 0.2)), "black": Material(row(0, 0, 0), two_sided=True)}


def shadow(points: torch.Tensor, direction: torch.Tensor, height: torch.Tensor) -> torch.Tensor:
    """Where lines along `direction` through points meet the plane z = height, on the film of `from_above`."""
    t = (height - points[:, 2]) / direction[2]
    x, y = points[:, 0] + t * direction[0], points[:, 1] + t * direction[1]
    return torch.stack([(x + 1.0) * SIZE / 2.0, (1.0 - y) * SIZE / 2.0], dim=1)


@pytest.mark.slow
def test_sun():
    """A triangle's shadow: by its vertices, the sun's direction and brightness, the floor's height and albedo."""
    start = torch.cat([OCCLUDER.flatten(), torch.tensor([-0.8, 0.0, -1.0, 0.0, 2.0])])

    def build(p):
        floor = Mesh(FLOOR.vertices + torch.stack([p[12] * 0, p[12] * 0, p[12]]), FLOOR.faces)
        bodies = [Body(floor, "floor"), Body(Mesh(p[:9].reshape(1, 3, 3), FACE), "black")]
        sun = DirectionalLight(p[None, 9:12], p[13:14].expand(1, 3))
        return {"scene": Scene(bodies, GREY, [sun]), "camera": from_above(SIZE)}

    p = start.double().requires_grad_(True)
    lit = 1.0 - coverage(shadow(p[:9].reshape(3, 3), p[9:12], p[12]), SIZE)
    bright = p[13] / np.pi * -p[11] / p[9:12].norm() * torch.tensor([0.6, 0.4, 0.2]).double()
    (weights(SIZE).double() * lit[..., None] * bright).mean().backward()
    r, r_error, f, f_error = both_modes(PathRender(samples=64, depth=2, boundary_samples=(0, 16384, 0)), build, start, SIZE, 8)
    agree(r, r_error, p.grad.numpy(), 0.0, slack=3e-3)
    agree(f, f_error, p.grad.numpy(), 0.0, slack=3e-3)


@pytest.mark.slow
def test_sun_through_a_readout_of_a_moving_occluder():
    """The occluder moves; rows are read one after the other: exact for each row's moment, in the limit of fine rows."""
    start = torch.tensor([0.35, 0.1, 0.4])  # velocity in y over the window, offset, readout

    def build(p):
        square = Mesh(torch.tensor([[[-0.5, -0.5, 0], [0.5, -0.5, 0], [0.5, 0.5, 0], [-0.5, 0.5, 0.0]]]), FLOOR.faces)
        o = torch.zeros_like(p[0])
        a = torch.stack([2.0 + o, p[1] - p[0], 2.0 + o])
        b = torch.stack([2.0 + o, p[1] + p[0], 2.0 + o])
        turn = torch.tensor([0.0, 0.0, 0.0, 1.0]).expand(1, 2, 4)
        poses = Poses(torch.stack([a, b])[None], turn)
        scene = Scene(
            [Body(FLOOR, "floor"), Body(square, "black", poses=poses)], GREY, [DirectionalLight(row(-1, 0, -1), row(3, 3, 3))]
        )
        return {
            "scene": scene,
            "camera": from_above(SIZE),
            "shutter": Shutter(torch.tensor([0.5]), torch.stack([p[2] * 0, p[2]])[None]),
        }

    p = start.double().requires_grad_(True)
    columns = torch.arange(SIZE, dtype=torch.float64)
    x = (torch.clamp(columns + 1.0, max=0.75 * SIZE) - torch.clamp(columns, min=0.25 * SIZE)).clamp_min(0.0)
    moments = 64
    share = torch.zeros(SIZE, dtype=torch.float64)
    for k in range(moments):  # for each place in the exposure, the two borders' rows solve a linear equation
        u = 0.5 * ((k + 0.5) / moments - 0.5)
        lines = []
        for side in (1.0, -1.0):  # y = p1 + 2 p0 t + side / 2 with t = u + p2 (h / SIZE - 1/2), h = (1 - y) SIZE / 2
            lines.append((p[1] + 2 * p[0] * u + 0.5 * side) / (1.0 + p[0] * p[2]))
        top, bottom = ((1.0 - y) * SIZE / 2.0 for y in lines)
        h = torch.arange(SIZE, dtype=torch.float64)
        share = share + (torch.minimum(bottom, h + 1) - torch.maximum(top, h)).clamp_min(0.0) / moments
    lit = 1.0 - share[:, None] * x[None]
    bright = 3.0 / np.pi / np.sqrt(2.0) * torch.tensor([0.6, 0.4, 0.2]).double()
    (weights(SIZE).double() * lit[..., None] * bright).mean().backward()
    r, r_error, f, f_error = both_modes(PathRender(samples=64, depth=2, boundary_samples=(0, 16384, 0)), build, start, SIZE, 8)
    agree(r, r_error, p.grad.numpy(), 0.0, slack=0.01)
    agree(f, f_error, p.grad.numpy(), 0.0, slack=0.01)


@pytest.mark.slow
def test_point_light_and_lamp():
    """Shadows that are not sharp or not parallel, by differences: the occluder and the lights move."""
    ball = torch.tensor([1.1, 0.2, 1.1])

    def build(p):
        occluder = Mesh(torch.tensor([[[0.6, -0.4, 1.0], [1.6, -0.5, 1.2], [1.3, 0.7, 1.4]]]) + p[:3], FACE)
        lamp = quad((2.5, 0.2, 3.0), (0, 0.3, 0), (0.3, 0, 0))
        lamp = Mesh(lamp.vertices + p[3:6], lamp.faces)
        bodies = [Body(FLOOR, "floor"), Body(occluder, "black"), Body(lamp, "lamp")]
        materials = {**GREY, "lamp": Material(row(0, 0, 0), emission=row(20, 15, 10))}
        return {
            "scene": Scene(bodies, materials, [PointLight(row(3.0, -0.5, 3.0) + p[6:9], row(30, 20, 20))]),
            "camera": from_above(SIZE),
        }

    value = torch.zeros(9) + 0.0 * ball.sum()
    r, r_error, f, f_error = both_modes(PathRender(samples=128, depth=2), build, value, SIZE, 8)
    d, d_error = difference(PathRender(samples=2048, depth=2), build, value, SIZE, 0.02, 4)
    agree(r, r_error, d, d_error, slack=0.01)
    agree(f, f_error, d, d_error, slack=0.01)


def test_sky_behind_an_edge():
    """What a wall hides of a bright sky: the floor's light is albedo times the part of the sky that it sees, in closed form."""

    def build(p):  # a long wall along y at x = p: its shadow side is not seen by the camera
        x, top, far, zero = p[0], p[1], torch.full_like(p[0], 15.0), torch.zeros_like(p[0])
        corners = ((x, -far, zero), (x, far, zero), (x, far, top), (x, -far, top))
        wall = Mesh(torch.stack([torch.stack(corner) for corner in corners])[None], FLOOR.faces)
        floor = quad((0, 0, 0), (1.2, 0, 0), (0, 1.2, 0))
        scene = Scene([Body(floor, "floor"), Body(wall, "black")], GREY, environment=row(1.0, 2.0, 1.0))
        return {"scene": scene, "camera": from_above(SIZE)}

    value = torch.tensor([1.7, 1.2])
    p = value.double().requires_grad_(True)
    fine = 16
    x = (torch.arange(SIZE * fine, dtype=torch.float64) + 0.5) / (SIZE * fine) * 2.0 - 1.0
    open_share = 0.5 * (1.0 + (p[0] - x) / torch.sqrt((p[0] - x) ** 2 + p[1] ** 2))  # 1 - form factor of the strip
    shown = open_share.reshape(SIZE, fine).mean(dim=1)[None, :, None] * torch.tensor([0.6, 0.8, 0.2]).double()
    (weights(SIZE).double() * shown.expand(SIZE, SIZE, 3)).mean().backward()
    r, r_error, f, f_error = both_modes(PathRender(samples=64, depth=2, boundary_samples=(0, 0, 32768)), build, value, SIZE, 8)
    agree(r, r_error, p.grad.numpy(), 0.0, slack=0.01)
    agree(f, f_error, p.grad.numpy(), 0.0, slack=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("depth", [3, 4])
def test_moving_cube_under_global_illumination(depth: int):
    """A closed room: direct light, bounces, and shadows that are seen by way of other walls."""
    room = inside_out(box(1.0))
    lamp = quad((0.1, 0.1, 0.95), (0.4, 0, 0), (0, -0.4, 0))
    cube = box(0.3)
    materials = {
        "wall": Material(row(0.7, 0.6, 0.5)), "lamp": Material(row(0, 0, 0), emission=row(8, 7, 6)),
        "cube": Material(row(0.5, 0.6, 0.7)),
    }  # fmt: skip
    camera = perspective((0.0, -0.9, 0.1), (0.0, 0.2, -0.4), 75.0, 16)

    def build(p):
        c, s, o, i = torch.cos(p[1] + 0.7), torch.sin(p[1] + 0.7), torch.zeros_like(p[0]), torch.ones_like(p[0])
        turn = torch.stack([torch.stack([c, -s, o]), torch.stack([s, c, o]), torch.stack([o, o, i])])
        moved = cube.vertices @ turn.T + torch.stack([p[0] - 0.1, o + 0.1, o - 0.5])
        return {
            "scene": Scene([Body(room, "wall"), Body(lamp, "lamp"), Body(Mesh(moved, cube.faces), "cube")], materials),
            "camera": camera,
        }

    value = torch.zeros(2)
    r, r_error = reverse_mode(PathRender(samples=512, depth=depth), build, value, 16, 12)
    d, d_error = difference(PathRender(samples=2048, depth=depth), build, value, 16, 0.02, 8)
    agree(r, r_error, d, d_error, slack=0.005)


@pytest.mark.slow
def test_shadow_seen_by_way_of_a_wall():
    """The camera sees a wall alone, which is lit by a floor on which a shadow moves: exact, by sums over the floor."""
    start = torch.tensor([0.0])
    camera = Camera(
        row(-4.0, 0.0, 1.0),
        torch.tensor([[[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]]]),
        torch.tensor([SIZE / 0.5]),
        row(SIZE / 2, SIZE / 2),
        True,
    )
    wall = quad((1.0, 0.0, 1.0), (0, 0, 1.0), (0, 1.0, 0))  # faces -x
    floor = quad((0.0, 0.0, 0.0), (1.0, 0, 0), (0, 1.0, 0))
    materials = {"white": Material(row(0.8, 0.8, 0.8)), "black": GREY["black"]}

    def build(p):
        x, far, top = p[0], torch.full_like(p[0], 5.0), torch.full_like(p[0], 3.0)
        corners = ((x - 3.0, -far, top), (x, -far, top), (x, far, top), (x - 3.0, far, top))
        roof = Mesh(torch.stack([torch.stack(corner) for corner in corners])[None], floor.faces)
        bodies = [Body(wall, "white"), Body(floor, "white"), Body(roof, "black")]
        return {"scene": Scene(bodies, materials, [DirectionalLight(row(0, 0, -1), row(5, 5, 5))]), "camera": camera}

    # the shadow ends at x = p; dI = - 0.8/pi 5 times the form factor's density of the line x = p, times 0.8
    w = weights(SIZE).double().mean(dim=2)
    total = 0.0
    ys = (np.arange(400) + 0.5) / 400 * 2.0 - 1.0
    for i in range(SIZE):
        for j in range(SIZE):
            z, y = 1.0 - ((i + 0.5) / SIZE - 0.5) * 0.5, -((j + 0.5) / SIZE - 0.5) * 0.5
            r2 = 1.0 + (ys - y) ** 2 + z**2
            line = np.sum(1.0 * z / (np.pi * r2**2)) * (2.0 / 400)
            total += float(w[i, j]) * -0.8 / np.pi * 5.0 * 0.8 * line
    truth = np.array([total / SIZE**2])
    render = PathRender(samples=64, depth=3, boundary_samples=(0, 65536, 0))
    r, r_error, f, f_error = both_modes(render, build, start, SIZE, 24)
    agree(r, r_error, truth, 0.0, slack=0.005)
    agree(f, f_error, truth, 0.0, slack=0.005)
