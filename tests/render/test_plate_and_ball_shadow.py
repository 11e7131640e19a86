"""Boundary terms against differences: plates behind edges under every filter, shadows of balls, a lamp at a grazing angle."""

import pytest
import torch

from dvc.errors import Unsupported
from dvc.records import Mesh, SdfGrid, Shutter
from render.path_render import PathRender
from render.scene import Ball, Body, DirectionalLight, Material, Plane, Poses, Scene, SdfBody
from tests.render.ray_scenes import agree, both_modes, difference, film, from_above, quad, reverse_mode, row, weights

SIZE = 8
PLATE = torch.rand(1, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(0))
FLOOR = Plane(torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]]), "floor")
MATERIALS = {"solid": Material((0.0, 0, 0)), "floor": Material((0.5, 0.5, 0.5)), "sdf": Material((0.5, 0.6, 0.7))}
SUN = DirectionalLight(row(1, 0, -1), row(3, 3, 3))


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["quad", "ball"])
@pytest.mark.parametrize(("name", "size"), [("box", 0.5), ("box", 1.0), ("tent", 1.0), ("gaussian", 0.5)])
def test_plate_behind_an_edge(name: str, size: float, shape: str):
    """The plate is one number a pixel: a filter that reaches into neighbours weighs each with its own."""
    shining = {"m": Material(row(0, 0, 0), emission=row(1, 1, 1))}

    def build(p):
        shift = p[0] * torch.tensor([1.0, 0.3, 0.0])
        patch = quad((0.1, 0.05, 0), (0.5, 0.2, 0), (-0.2, 0.5, 0))
        body = Body(Mesh(patch.vertices + shift, patch.faces), "m")
        if shape == "ball":
            body = Ball(row(0.1, 0.05, 0) + shift, torch.tensor([0.5]), "m")
        return {"scene": Scene([body], shining), "camera": from_above(SIZE), "plate": PLATE}

    of_filter = {"depth": 1, "pixel_filter": name, "filter_size": size}
    r, r_error, f, f_error = both_modes(PathRender(512, boundary_samples=16384, **of_filter), build, torch.zeros(1), SIZE, 4)
    d, d_error = difference(PathRender(8192, **of_filter), build, torch.zeros(1), SIZE, 0.02, 4)
    agree(r, r_error, d, d_error, slack=0.005)
    agree(f, f_error, d, d_error, slack=0.005)


def test_shadow_of_a_moving_ball_through_a_readout():
    """Only the shadow is on the film; its rows are read one after the other."""

    def build(p):
        still = torch.tensor([0.0, 0, 0, 1]).expand(1, 2, 4)
        poses = Poses(torch.tensor([[[-2.1, -0.2, 2.0], [-1.9, 0.3, 2.0]]]), still)
        ball = Ball(p[0] * row(1, 0.4, 0), torch.tensor([0.3]), "solid", poses)
        shutter = Shutter(torch.tensor([0.3]), row(0.5, 0.5) + p[1] * row(1, 0.5))
        return {"scene": Scene([ball, FLOOR], MATERIALS, [SUN]), "camera": from_above(SIZE), "shutter": shutter}

    render = PathRender(128, 2, boundary_samples=8192)
    r, r_error, f, f_error = both_modes(render, build, torch.zeros(2), SIZE, 4)
    d, d_error = difference(PathRender(2048, 2), build, torch.zeros(2), SIZE, 0.05, 8)
    agree(r, r_error, d, d_error, slack=0.01)
    agree(f, f_error, d, d_error, slack=0.01)


@pytest.mark.slow
def test_shadow_of_a_ball_on_an_sdf():
    axis = torch.linspace(-0.8, 0.8, 17)
    nodes = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1)
    grid = SdfGrid((nodes.norm(dim=-1) - 0.6)[None], torch.tensor([-0.8, -0.8, -0.8]), 0.1)

    def build(p):
        ball = Ball(row(-1.4, 0.1, 1.6) + p[0] * row(1, 0.4, 0), torch.tensor([0.3]) + p[1:2], "solid")
        return {"scene": Scene([ball, SdfBody(grid, "sdf")], MATERIALS, [SUN]), "camera": from_above(32)}

    r, r_error, f, f_error = both_modes(PathRender(9, 2, boundary_samples=8192), build, torch.zeros(2), 32, 4)
    d, d_error = difference(PathRender(128, 2), build, torch.zeros(2), 32, 0.05, 8)
    agree(r, r_error, d, d_error, slack=0.02)
    agree(f, f_error, d, d_error, slack=0.02)


@pytest.mark.slow
def test_a_ball_that_shines_alone():
    """Nothing is sampled as a lamp: its light comes by bounces only, and the gradient is there all the same."""

    def build(p):
        ball = Ball(row(1.6, 0.2, 0.8) + p[0] * row(1, 0, 0.5), torch.tensor([0.5]), "shining")
        materials = {**MATERIALS, "shining": Material((0.0, 0, 0), emission=row(3, 2, 1))}
        return {"scene": Scene([ball, FLOOR], materials), "camera": from_above(SIZE)}

    r, r_error, f, f_error = both_modes(PathRender(2048, 2, boundary_samples=16384), build, torch.zeros(1), SIZE, 4)
    d, d_error = difference(PathRender(16384, 2), build, torch.zeros(1), SIZE, 0.1, 4)
    agree(r, r_error, d, d_error, slack=0.02)
    agree(f, f_error, d, d_error, slack=0.02)


@pytest.mark.slow
def test_a_lamp_that_shines_at_a_grazing_angle():
    """A strip that hangs upright beside the film lights the floor along its own plane: by quadrature, value and derivative."""
    tilt = 0.01
    lamp = torch.tensor([[-1.2, -0.8, 0.05], [-1.2, 0.8, 0.05], [1.2, 0.8, 0.05 + 2.4 * tilt], [1.2, -0.8, 0.05 + 2.4 * tilt]])
    lamp = Mesh((lamp + torch.tensor([-2.4, 0.0, 0.0]))[None], torch.tensor([[0, 1, 2], [0, 2, 3]], dtype=torch.int32))
    size, albedo = 4, 0.6

    def build(p):
        floor = quad((0, 0, 0), (1.2, 0, 0), (0, 1.2, 0))
        floor = Mesh(floor.vertices + p[0] * torch.tensor([0.0, 0.0, 1.0]), floor.faces)
        materials = {"floor": Material((albedo,) * 3), "lamp": Material((0.0, 0, 0), emission=row(1, 1, 1))}
        return {"scene": Scene([Body(floor, "floor"), Body(lamp, "lamp")], materials), "camera": from_above(size)}

    a, b, c = lamp.vertices[0, 0].double(), lamp.vertices[0, 1].double(), lamp.vertices[0, 3].double()
    s, t = torch.meshgrid(*[(torch.arange(96, dtype=torch.float64) + 0.5) / 96] * 2, indexing="ij")
    y = a + s[..., None] * (c - a) + t[..., None] * (b - a)
    normal = torch.linalg.cross(b - a, c - a)
    area, normal = float(normal.norm()), normal / normal.norm()
    height = torch.zeros((), dtype=torch.float64, requires_grad=True)
    fine = 16
    x = (torch.arange(size * fine, dtype=torch.float64) + 0.5) / (0.5 * size * fine) - 1.0
    rows = []
    for place in x:
        places = torch.stack([place.expand(len(x)), x, height.expand(len(x))], dim=1)
        way = y.reshape(-1, 1, 3) - places
        square = (way**2).sum(dim=2)
        rows.append((way[..., 2] * (-(way * normal).sum(dim=2)).clamp_min(0.0) / square**2).mean(dim=0))
    shown = torch.stack(rows, dim=1).flip(0) * area * albedo / torch.pi  # rows downwards, columns to the right
    w = weights(size).double().mean(dim=2).repeat_interleave(fine, 0).repeat_interleave(fine, 1)
    truth = (w * shown).mean()
    (slope,) = torch.autograd.grad(truth, height)
    with torch.no_grad():
        given = build(torch.zeros(1))
        image = PathRender(16384, 2)(given["scene"], given["camera"], film(size))[0]
    assert float((weights(size) * image).mean()) == pytest.approx(float(truth), rel=0.01)
    r, r_error = reverse_mode(PathRender(4096, 2), build, torch.zeros(1), size, 6)
    agree(r, r_error, [float(slope)], 0.0, slack=0.01)


def test_a_ball_that_outruns_the_readout_is_refused():
    """Its outline crosses the film faster than the columns are read: no place and time belong to most of it."""
    poses = Poses(torch.tensor([[[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]]], requires_grad=True), torch.tensor([[[0.0, 0, 0, 1]] * 2]))
    ball = Ball(row(0, 0, 0), torch.tensor([0.2]), "m", poses)
    scene = Scene([ball], {"m": Material(row(0, 0, 0), emission=row(1, 1, 1))})
    for readout in (0.12, 0.5):
        shutter = Shutter(torch.zeros(1), row(readout, 0.0))
        shown = PathRender(4, 1)(scene, from_above(SIZE), film(SIZE), shutter, frame_interval=0.1, node_interval=0.1)
        with pytest.raises(Unsupported, match="outrun"):
            shown.sum().backward()
