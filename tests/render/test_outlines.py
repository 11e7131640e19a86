"""Outlines and shadows of balls and of SDF grids: areas on the film of an orthographic camera, whose derivatives are exact."""

import math

import pytest
import torch

from dvc.records import Camera, Film, SdfGrid
from render.path_render import PathRender
from render.scene import Ball, DirectionalLight, Material, Plane, Scene, SdfBody

RADIUS, HEIGHT, PIXELS, ACROSS = 0.3, 1.0, 24, 4.0  # [m], [m], of the film, its width [m]
FILM = Film(PIXELS, PIXELS, 0.0, 0.0, PIXELS, PIXELS, 1.0)
SCALE = PIXELS / ACROSS
DOWN = Camera(
    torch.tensor([[0.3, 0.0, 5.0]]), torch.tensor([[[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]]]),
    torch.tensor([SCALE]), torch.tensor([[PIXELS / 2, PIXELS / 2]]), True,
)  # fmt: skip
FLOOR = Plane(torch.tensor([[[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]]), "floor")
NODES = 25


def solid(kind: str, radius: torch.Tensor, x: torch.Tensor):
    """A black ball, or the same as a grid of distances."""
    zero = torch.zeros(())
    if kind == "ball":
        return Ball(torch.stack([x, zero, zero + HEIGHT])[None], radius[None], "solid")
    side = 1.1
    axes = torch.linspace(-side / 2, side / 2, NODES)
    nodes = torch.stack(torch.meshgrid(axes, axes, axes, indexing="ij"), dim=-1)
    distance = (nodes - torch.stack([x, zero, zero])).norm(dim=-1) - radius
    origin = torch.tensor([-side / 2, -side / 2, HEIGHT - side / 2])
    return SdfBody(SdfGrid(distance[None], origin, side / (NODES - 1)), "solid")


def emissive(kind: str):
    def build(numbers: torch.Tensor) -> dict:
        body = solid(kind, numbers[0], numbers[1])
        materials = {"solid": Material((0.0, 0.0, 0.0), emission=torch.tensor([[0.9, 0.6, 0.3]]))}
        return {"scene": Scene([body], materials, environment=torch.tensor([[0.1, 0.1, 0.1]])), "camera": DOWN}

    return build


def shadowing(kind: str):
    """Light at 45 degrees: the shadow is an ellipse beside the solid."""

    def build(numbers: torch.Tensor) -> dict:
        light = DirectionalLight(torch.tensor([[1.0, 0.0, -1.0]]), torch.tensor([[3.0, 3.0, 3.0]]))
        materials = {"solid": Material((0.0, 0.0, 0.0)), "floor": Material((0.5, 0.5, 0.5))}
        return {"scene": Scene([solid(kind, numbers[0], numbers[1]), FLOOR], materials, [light]), "camera": DOWN}

    return build


def area_sum(image: torch.Tensor) -> torch.Tensor:
    """Integral over the film [W/sr]."""
    return image.sum(dim=(0, 1, 2)) / SCALE**2


@pytest.mark.parametrize("kind, tolerance", [("ball", 0.005), ("sdf", 0.03)])
def test_the_outline_grows_with_the_radius_and_moves_with_the_centre(kind, tolerance):
    start = torch.tensor([RADIUS, 0.0])
    render = PathRender(samples=256, depth=1)
    jump = torch.tensor([0.8, 0.5, 0.2])
    image = render(**emissive(kind)(start), film=FILM, seed=3)
    expected = 0.1 * ACROSS**2 + jump * math.pi * RADIUS**2
    torch.testing.assert_close(area_sum(image), expected, rtol=3e-3, atol=0.0)
    slopes = [
        torch.stack(
            [area_sum(render.derivative(emissive(kind), start, torch.tensor(along), film=FILM, seed=seed)) for seed in range(4)]
        ).mean(0)
        for along in ([1.0, 0.0], [0.0, 1.0])
    ]
    torch.testing.assert_close(slopes[0], jump * 2.0 * math.pi * RADIUS, rtol=tolerance, atol=0.0)
    assert slopes[1].abs().max() < 0.1 * jump.max() * 2.0 * RADIUS * math.pi  # what one side wins, the other loses


@pytest.mark.parametrize("kind, tolerance", [("ball", 0.01), ("sdf", 0.04)])
def test_the_shadow_grows_with_the_radius(kind, tolerance):
    start = torch.tensor([RADIUS, 0.0])
    floor = 0.5 / math.pi * 3.0 * math.cos(math.pi / 4)
    dark = math.pi * RADIUS**2 * (1.0 + math.sqrt(2.0))
    render = PathRender(samples=128, depth=2)
    image = render(**shadowing(kind)(start), film=FILM, seed=1)
    torch.testing.assert_close(area_sum(image)[0].item(), floor * (ACROSS**2 - dark), rtol=2e-3, atol=0.0)
    slope = torch.stack(
        [
            area_sum(render.derivative(shadowing(kind), start, torch.tensor([1.0, 0.0]), film=FILM, seed=seed))[0]
            for seed in range(4)
        ]
    ).mean()
    assert slope.item() == pytest.approx(-floor * 2.0 * math.pi * RADIUS * (1.0 + math.sqrt(2.0)), rel=tolerance)


@pytest.mark.parametrize("kind", ["ball", "sdf"])
def test_reverse_mode_is_the_same_as_forward_mode(kind):
    """Same random numbers in both modes: the same sum, in another order."""
    weights = torch.rand(1, PIXELS, PIXELS, 3, generator=torch.Generator().manual_seed(0))
    start = torch.tensor([RADIUS, 0.05], requires_grad=True)
    render = PathRender(samples=16, depth=2, boundary_samples=2000)
    image = render(**shadowing(kind)(start), film=FILM, seed=5)
    (reverse,) = torch.autograd.grad((weights * image).sum(), start)
    forward = torch.stack(
        [
            (weights * render.derivative(shadowing(kind), start.detach(), torch.tensor(along), film=FILM, seed=5)).sum()
            for along in ([1.0, 0.0], [0.0, 1.0])
        ]
    )
    torch.testing.assert_close(reverse, forward, rtol=2e-3, atol=2e-3 * float(forward.abs().max()))
