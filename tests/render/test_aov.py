"""render/aov.py: depth, position, normal, albedo, mask, motion and instance against closed forms, and their gradients.

A triangle under an orthographic camera and the tent filter has exact sums: with weights linear over the film, the filtered
image sums to the integral of (linear) x (linear) over the projected triangle, boundary included.
"""

import math

import pytest
import torch
from torch import Tensor

from dvc.errors import UserError
from dvc.records import Camera, Film, Mesh, SdfGrid, Shutter
from render.aov_render import AovRender, Aovs
from render.camera import LookAtCamera, rotation_from_angles
from render.scene import Ball, Body, Material, Plane, Poses, Scene, SdfBody, Texture

SIZE = 20
FILM = Film(SIZE, SIZE, 0.0, 0.0, SIZE, SIZE, 1.0)
CHANNELS = ("depth", "position", "normal", "albedo", "mask", "motion")
GREY = {"grey": Material((0.5, 0.4, 0.3))}


def quaternion_rotate(q: Tensor, v: Tensor) -> Tensor:
    q = q / q.norm()
    t = 2.0 * torch.linalg.cross(q[:3].expand_as(v), v)
    return v + q[3] * t + torch.linalg.cross(q[:3].expand_as(v), t)


def inputs() -> dict[str, Tensor]:
    return {
        "vertices": torch.tensor([[-0.6, 0.1, -0.5], [0.7, -0.2, -0.4], [0.1, 0.3, 0.6]]),
        "position": torch.tensor([[0.05, 0.1, -0.1], [0.25, 0.3, 0.1]]),
        "orientation": torch.tensor([[0.05, 0.1, -0.05, 1.0], [0.05, 0.1, -0.05, 1.0]]),
        "camera": torch.tensor([0.1, -2.0, 0.05]),
        "angles": torch.tensor([0.1, 0.2, -0.15]),
        "focal": torch.tensor([9.0]),
        "colours": torch.tensor([[0.9, 0.2, 0.5], [0.1, 0.8, 0.4], [0.5, 0.6, 0.7]]),
        "exposure": torch.tensor([0.4]),
    }


def camera_of(given: dict[str, Tensor]) -> Camera:
    pitch, roll, yaw = given["angles"][:, None]
    return Camera(
        given["camera"][None], rotation_from_angles(pitch, roll, yaw), given["focal"], torch.full((1, 2), SIZE / 2), True
    )


def rendered(given: dict[str, Tensor], seed: int, weight: Tensor) -> Tensor:
    """Weighted sum of every channel, in the order of CHANNELS: (13,)."""
    body = Body(
        Mesh(given["vertices"][None], torch.tensor([[0, 1, 2]], dtype=torch.int32)), "grey",
        poses=Poses(given["position"][None], given["orientation"][None]), vertex_albedo=given["colours"][None],
    )  # fmt: skip
    shutter = Shutter(given["exposure"], torch.zeros(1, 2))
    stage = AovRender(samples=32, pixel_filter="tent", boundary_samples=4096)
    images = stage(Scene([body], {"grey": Material((1.0, 1.0, 1.0))}), camera_of(given), FILM, shutter, seed=seed)
    columns = [(image if image.dim() == 4 else image[..., None]) for image in (getattr(images, name) for name in CHANNELS)]
    return (torch.cat(columns, dim=-1)[0] * weight[..., None]).sum(dim=(0, 1))


def placed_corners(given: dict[str, Tensor], blend: Tensor) -> Tensor:
    turned = quaternion_rotate(given["orientation"][0] * (1.0 - blend) + given["orientation"][1] * blend, given["vertices"])
    return turned + given["position"][0] + (given["position"][1] - given["position"][0]) * blend


def exact(given: dict[str, Tensor], slope: Tensor) -> Tensor:
    """The same sums in closed form, averaged over the exposure by Gauss-Legendre quadrature."""
    nodes = torch.tensor([-math.sqrt(0.6), 0.0, math.sqrt(0.6)]) * 0.5
    total = torch.zeros(13)
    camera = camera_of(given)
    span = given["exposure"][0]  # of two nodes that are one frame apart
    for u, share in zip(nodes, (5 / 18, 8 / 18, 5 / 18)):
        world, later = placed_corners(given, 0.5 + span * u), placed_corners(given, 0.5 + span * u + span)
        seen, seen_later = ((x - camera.position[0]) @ camera.rotation[0].T for x in (world, later))
        film = camera.center[0] + camera.focal[0] * seen[:, :2]
        shift = camera.focal[0] * (seen_later - seen)[:, :2]
        a, b = film[1] - film[0], film[2] - film[0]
        area = 0.5 * (a[0] * b[1] - a[1] * b[0]).abs()
        normal = torch.linalg.cross(world[1] - world[0], world[2] - world[0])
        normals = (normal / normal.norm()).expand(3, 3)
        corners = torch.cat([seen[:, 2:], world, normals, given["colours"], torch.ones(3, 1), shift], dim=1)
        weights = slope[0] + film @ slope[1:]
        total = total + share * area / 12.0 * ((corners * weights[:, None]).sum(0) + corners.sum(0) * weights.sum())
    return total


SLOPE = torch.tensor([0.3, 0.05, -0.03])


def film_weight() -> Tensor:
    centres = torch.arange(SIZE) + 0.5
    return SLOPE[0] + SLOPE[1] * centres[None, :] + SLOPE[2] * centres[:, None]


def test_sums_have_their_exact_values() -> None:
    sums = rendered(inputs(), 0, film_weight())
    assert torch.allclose(sums, exact(inputs(), SLOPE), rtol=2e-2, atol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(inputs()))
def test_gradients_are_the_exact_ones(name: str) -> None:
    """Interior and boundary together, each channel on its own."""
    given = inputs() | {name: inputs()[name].requires_grad_(True)}
    expected = torch.stack([torch.autograd.grad(s, given[name], retain_graph=True)[0] for s in exact(given, SLOPE)])
    found = torch.zeros_like(expected)
    seeds = 4
    for seed in range(seeds):
        sums = rendered(given, seed, film_weight())
        for channel in range(13):
            (gradient,) = torch.autograd.grad(sums[channel], given[name], retain_graph=channel < 12, allow_unused=True)
            found[channel] += gradient / seeds
    error = (found - expected).flatten(1).norm(dim=1)
    size = expected.flatten(1).norm(dim=1)
    assert bool((error < 0.03 * size + 0.01 * float(size.max())).all()), f"{name}: {error.tolist()} of {size.tolist()}"
    assert float(error.norm() / size.norm()) < 0.015


def test_ball_and_plane_have_exact_depth_position_and_normal() -> None:
    """With a filter of a thousandth of a pixel a pixel is a point."""
    camera = LookAtCamera(SIZE, SIZE)(torch.tensor([[0.3, -3.0, 0.4]]), torch.zeros(1, 3), fov=torch.tensor([0.9]))
    corners = torch.tensor([[[0.0, 1.0, 0.0], [1.0, 1.3, 0.0], [0.0, 1.2, 1.0]]])
    ball = Ball(torch.tensor([[0.1, 0.0, -0.2]]), torch.tensor([0.6]), "red")
    scene = Scene([Plane(corners, "grey"), ball], GREY | {"red": Material((0.8, 0.1, 0.2))})
    images = AovRender(samples=1, filter_size=1e-3)(scene, camera, FILM)
    centres = torch.arange(SIZE) + 0.5
    plane = torch.stack(torch.meshgrid(centres, centres, indexing="xy"), dim=-1) - SIZE / 2
    ray = torch.cat([plane / camera.focal, torch.ones(SIZE, SIZE, 1)], dim=-1) @ camera.rotation[0]
    normal = torch.linalg.cross(corners[0, 1] - corners[0, 0], corners[0, 2] - corners[0, 0])
    depth = (corners[0, 0] - camera.position[0]) @ normal / (ray @ normal)  # the ray has depth 1
    to_center = ball.center[0] - camera.position[0]
    squared, along = (ray * ray).sum(-1), ray @ to_center
    root = along**2 - squared * (to_center @ to_center - ball.radius**2)
    hit = root > 0.0
    near = (along - root.clamp_min(0.0).sqrt()) / squared
    depth = torch.where(hit, near, depth)
    position = camera.position[0] + ray * depth[..., None]
    normals = torch.where(hit[..., None], (position - ball.center[0]) / ball.radius, normal / normal.norm())
    inside = (root.abs() > 0.02)[None]  # away from the ball's outline
    assert torch.equal(images.instance[inside], hit.int()[None][inside])
    assert torch.allclose(images.depth[inside], depth[None][inside], atol=2e-3)
    assert torch.allclose(images.position[inside], position[None][inside], atol=2e-3)
    assert torch.allclose(images.normal[inside], normals[None][inside], atol=1e-2)
    assert torch.allclose(images.albedo[inside & hit[None]], torch.tensor([0.8, 0.1, 0.2]), atol=1e-6)
    assert bool((images.mask == 1.0).all())


def ortho(focal: float = 10.0) -> Camera:
    rotation = torch.tensor([[[1.0, 0, 0], [0, 0, -1.0], [0, 1.0, 0]]])
    return Camera(torch.tensor([[0.0, -3.0, 0.0]]), rotation, torch.tensor([focal]), torch.full((1, 2), SIZE / 2), True)


def test_mask_of_a_ball_changes_by_its_circumference() -> None:
    radius = torch.tensor([0.6], requires_grad=True)
    total = torch.zeros(())
    for seed in range(4):
        images = AovRender(samples=32)(Scene([Ball(torch.zeros(1, 3), radius, "grey")], GREY), ortho(), FILM, seed=seed)
        total = total + images.mask.sum() / 4
    (gradient,) = torch.autograd.grad(total, radius)
    assert float(total.detach()) == pytest.approx(math.pi * 0.36 * 100.0, rel=5e-3)
    assert float(gradient) == pytest.approx(2.0 * math.pi * 0.6 * 100.0, rel=1e-2)


@pytest.mark.slow
def test_sums_of_an_sdf_have_their_exact_values_and_derivatives() -> None:
    """A ball of radius r - c from distances that are raised by c, seen at the distance 3."""
    raised = torch.zeros((), requires_grad=True)
    axis = torch.linspace(-0.8, 0.8, 33)
    values = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), dim=-1).norm(dim=-1) - 0.6 + raised
    grid = SdfGrid(values[None], torch.full((3,), -0.8), 0.05)
    wall = Plane(torch.tensor([[[0.0, 2.0, 0.0], [1.0, 2.0, 0.0], [0.0, 2.0, 1.0]]]), "grey")
    scene = Scene([SdfBody(grid, "grey"), wall], GREY)
    depth = torch.zeros(())
    for seed in range(8):  # standard error of the gradient: 0.5 %
        images = AovRender(samples=128)(scene, ortho(), FILM, seed=seed)
        depth = depth + images.depth.sum() / 8
    (gradient,) = torch.autograd.grad(depth, raised)
    # 100 px^2 a square metre: the wall at 5, in front of it a ball, which takes 2 pi r^2 and a half ball off
    assert float(depth.detach()) == pytest.approx(5.0 * SIZE**2 - 100.0 * math.pi * (2.0 * 0.36 + 2.0 / 3.0 * 0.216), rel=2e-3)
    assert float(gradient) == pytest.approx(100.0 * math.pi * (4.0 * 0.6 + 2.0 * 0.36), rel=2e-2)
    assert [int(images.instance[0, 10, column]) for column in (1, 10)] == [1, 0]


def test_a_miss_shows_zero_and_poisons_nothing() -> None:
    vertices = torch.tensor([[[-0.5, 0.0, -0.5], [0.5, 0.0, -0.5], [0.0, 0.0, 0.5]]], requires_grad=True)
    scene = Scene([Body(Mesh(vertices, torch.tensor([[0, 1, 2]], dtype=torch.int32)), "grey")], GREY)
    images = AovRender(samples=4)(scene, ortho(), FILM)
    away = images.mask[0] == 0.0
    assert bool(away.any()) and bool((images.instance[0][0] == -1).all())
    for name in CHANNELS:
        assert bool((getattr(images, name)[0][away] == 0.0).all()), name
    sum((getattr(images, name) ** 2).sum() for name in CHANNELS).backward()
    assert bool(torch.isfinite(vertices.grad).all()) and float(vertices.grad.norm()) > 0.0
    nothing = AovRender(samples=1)(scene, ortho()._replace(position=torch.tensor([[50.0, -3.0, 0.0]])), FILM)
    assert float(nothing.mask.detach().sum()) == 0.0 and float(nothing.depth.detach().abs().max()) == 0.0


def test_motion_is_where_the_point_goes() -> None:
    """A quarter turn about the line of sight to the next node, seen at the first one."""
    half = math.sqrt(0.5)
    poses = Poses(torch.zeros(1, 2, 3), torch.tensor([[[0.0, 0, 0, 1], [0.0, half, 0, half]]]))
    square = torch.tensor([[[-0.6, 0.0, -0.6], [0.6, 0.0, -0.6], [0.6, 0.0, 0.6], [-0.6, 0.0, 0.6]]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]], dtype=torch.int32)
    scene = Scene([Body(Mesh(square, faces), "grey", poses=poses)], GREY)
    # the middle of the frame is half way between the nodes: half a node on is the last one
    images = AovRender(samples=1, filter_size=1e-3, motion_time=0.5)(scene, ortho(), FILM)
    turn = torch.tensor(math.radians(45.0))
    there = torch.stack([turn.cos() * images.position[..., 0] + turn.sin() * images.position[..., 2],
                         -turn.sin() * images.position[..., 0] + turn.cos() * images.position[..., 2]], dim=-1)  # fmt: skip
    expected = 10.0 * torch.stack([there[..., 0] - images.position[..., 0], images.position[..., 2] - there[..., 1]], dim=-1)
    assert float(images.mask.sum()) > 100
    assert torch.allclose(images.motion, expected, atol=2e-3)
    still = AovRender(samples=1, motion_time=0.5)(Scene([Body(Mesh(square, faces), "grey")], GREY), ortho(), FILM)
    assert float(still.motion.abs().max()) == 0.0


def test_instance_is_the_number_in_the_scene() -> None:
    """Whatever the order in which bodies are packed."""
    square = torch.tensor([[[-0.3, 0.0, -0.3], [0.3, 0.0, -0.3], [0.3, 0.0, 0.3], [-0.3, 0.0, 0.3]]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]], dtype=torch.int32)
    poses = Poses(torch.tensor([[[-0.6, 0.0, 0.6]]]), torch.tensor([[[0.0, 0, 0, 1]]]))
    wall = Plane(torch.tensor([[[0.0, 2.0, 0.0], [1.0, 2.0, 0.0], [0.0, 2.0, 1.0]]]), "grey")
    bodies = [wall, Ball(torch.tensor([[0.6, 0.0, 0.6]]), torch.tensor([0.3]), "grey"),
              Body(Mesh(square, faces), "grey", poses=poses), Body(Mesh(square, faces), "grey")]  # fmt: skip
    images = AovRender(samples=1)(Scene(bodies, GREY), ortho(), FILM)
    assert [int(images.instance[0, row, column]) for row, column in ((1, 10), (4, 16), (4, 4), (10, 10))] == [0, 1, 2, 3]
    assert images.instance.dtype == torch.int32 and not images.instance.requires_grad


def test_albedo_of_a_texture_has_its_gradient() -> None:
    texels = torch.rand(1, 2, 2, 3, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
    square = torch.tensor([[[-2.0, 0.0, -2.0], [2.0, 0.0, -2.0], [2.0, 0.0, 2.0], [-2.0, 0.0, 2.0]]])
    corners = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]], dtype=torch.int32)
    material = {"m": Material((0.5, 0.5, 0.5), albedo_texture=Texture(texels))}
    scene = Scene([Body(Mesh(square, faces), "m", uv=corners[faces.long()])], material)
    images = AovRender(samples=16)(scene, ortho(), FILM)
    images.albedo.sum().backward()
    # linear in the texels, whose weights sum to one a point
    assert torch.allclose(texels.grad.sum(dim=(0, 1, 2)), torch.full((3,), 0.5 * SIZE * SIZE), rtol=1e-4)
    assert float((texels.grad * texels).detach().sum()) == pytest.approx(float(images.albedo.detach().sum()), rel=1e-3)


@pytest.mark.slow
def test_gradients_with_distortion_blur_and_skew_agree_with_differences() -> None:
    """A quad that moves, a ball and a wall, through a lens: every channel, four directions."""
    generator = torch.Generator().manual_seed(3)
    quad = torch.tensor([[-0.5, 0.2, -0.5], [0.6, 0.1, -0.4], [0.1, -0.3, 0.6], [-0.6, 0.1, 0.3]])
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]], dtype=torch.int32)
    centres = (torch.arange(SIZE) + 0.5) / SIZE
    across, down = torch.cos(1.0 + 0.7 * torch.arange(13) + 2.5 * centres[None, :, None]), 2.0 * centres[:, None, None]
    weight = torch.sin(2.0 + torch.arange(13) + down) * across

    def sums(p: Tensor, samples: int, seed: int) -> Tensor:
        positions = torch.tensor([[[0.0, 0, 0], [0.2, 0, 0.15]]]) + p[0] * torch.tensor([[[0.3, 0.5, -0.1], [-0.4, 0.2, 0.6]]])
        turns = torch.tensor([[[0.0, 0, 0, 1], [0.1, 0.2, 0.1, 1]]]) + p[1] * torch.tensor(
            [[[0.3, 0.5, -0.1, 0], [-0.4, 0.2, 0.6, 0]]]
        )
        center = torch.tensor([[0.5, 0.5, 0.3]]) + p[2] * torch.tensor([[0.2, -0.5, 0.4]])
        wall = torch.tensor([[[-1.0, 1.5, -1.0], [1, 1.3, -1], [-1, 1.7, 1.0]]])
        camera = LookAtCamera(SIZE, SIZE)(
            torch.tensor([[0.3, -3.0, 0.5]]) + p[3] * torch.tensor([[0.5, 0.3, -0.6]]), torch.tensor([[0.0, 0, 0.1]]),
            focal=torch.tensor([24.0]), distortion=torch.tensor([[0.1, 0.02, 0.01, -0.01, 0.0]]),
        )  # fmt: skip
        bodies = [Body(Mesh(quad[None], faces), "a", poses=Poses(positions, turns)), Ball(center, torch.tensor([0.4]), "b"),
                  Plane(wall, "a")]  # fmt: skip
        scene = Scene(bodies, {"a": Material((0.2, 0.4, 0.6)), "b": Material((0.9, 0.1, 0.1))})
        shutter = Shutter(torch.tensor([0.6]), torch.tensor([[0.1, 0.2]]))
        images: Aovs = AovRender(samples=samples, pixel_filter="gaussian")(scene, camera, FILM, shutter, seed=seed)
        columns = [i if i.dim() == 4 else i[..., None] for i in (getattr(images, name) for name in CHANNELS)]
        return (torch.cat(columns, dim=-1)[0] * weight).mean(dim=(0, 1))

    p = torch.zeros(4, requires_grad=True)
    mix = torch.rand(13, generator=generator) + 0.5
    gradient = torch.zeros(4)
    for seed in range(4):
        gradient += torch.autograd.grad((sums(p, 64, seed) * mix).sum(), p)[0] / 4
    with torch.no_grad():
        for k in range(4):
            step = torch.eye(4)[k] * 0.1
            pairs = [(sums(step, 1024, s) - sums(-step, 1024, s)) / 0.2 for s in range(2)]
            difference = float((torch.stack(pairs).mean(0) * mix).sum())
            assert float(gradient[k]) == pytest.approx(difference, rel=0.02, abs=2e-3), k


def test_a_wrong_time_is_refused() -> None:
    with pytest.raises(UserError, match="motion_time"):
        AovRender(motion_time=-1.0)
