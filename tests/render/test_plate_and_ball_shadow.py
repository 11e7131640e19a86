"""Boundary terms against differences: a plate behind an edge under every filter, and shadows of balls."""

import pytest
import torch

from dvc.records import Mesh, SdfGrid, Shutter
from render.path_render import PathRender
from render.scene import Ball, Body, DirectionalLight, Material, Plane, Poses, Scene, SdfBody
from tests.render.ray_scenes import agree, both_modes, difference, from_above, quad, row

SIZE = 8
PLATE = torch.rand(1, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(0))
FLOOR = Plane(torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0]]]), "floor")
MATERIALS = {"solid": Material((0.0, 0, 0)), "floor": Material((0.5, 0.5, 0.5)), "sdf": Material((0.5, 0.6, 0.7))}
SUN = DirectionalLight(row(1, 0, -1), row(3, 3, 3))


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
