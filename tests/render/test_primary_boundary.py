"""Gradients of what a camera sees of edges, against areas of polygons in pixels, which are exact."""

import numpy as np
import pytest
import torch

from dvc.errors import Unsupported
from dvc.records import Mesh
from render.path_render import PathRender
from render.scene import Body, DirectionalLight, Material, Poses, Scene
from tests.render.ray_scenes import agree, both_modes, box, coverage, film, from_above, perspective, row, weights

SIZE = 8
CORNERS = torch.tensor([[-0.62, -0.53, 0.3], [0.71, -0.31, 0.0], [0.07, 0.66, 0.5]])
FACE = torch.tensor([[0, 1, 2]], dtype=torch.int32)
BRIGHT = (1.0, 2.0, 0.5)


def seen(points: torch.Tensor, position: torch.Tensor, focal: torch.Tensor, center: torch.Tensor) -> torch.Tensor:
    """Film points of a pinhole that looks along -z, in double precision."""
    r = points - position
    return torch.stack([center[0] + focal * r[:, 0] / -r[:, 2], center[1] - focal * r[:, 1] / -r[:, 2]], dim=1)


def test_silhouette_of_a_triangle():
    """Vertices, camera position, focal length, centre: all of a pinhole's picture of a bright triangle before a dim sky."""
    start = torch.cat([CORNERS.flatten(), torch.tensor([0.1, -0.05, 3.0, 10.0, 4.1, 3.9])])

    def build(p):
        mesh = Mesh(p[:9].reshape(1, 3, 3), FACE)
        camera = from_above(SIZE)._replace(position=p[None, 9:12], focal=p[12:13], center=p[None, 13:15], orthographic=False)
        scene = Scene([Body(mesh, "m")], {"m": Material(row(0, 0, 0), emission=row(*BRIGHT))}, environment=row(0.2, 0.1, 0.3))
        return {"scene": scene, "camera": camera}

    p = start.double().requires_grad_(True)
    share = coverage(seen(p[:9].reshape(3, 3), p[9:12], p[12], p[13:15]), SIZE)
    jump = torch.tensor(BRIGHT).double() - torch.tensor([0.2, 0.1, 0.3]).double()
    (weights(SIZE).double() * share[..., None] * jump).mean().backward()
    r, r_error, f, f_error = both_modes(PathRender(samples=64, depth=1, boundary_samples=4096), build, start, SIZE, 8)
    agree(r, r_error, p.grad.numpy(), 0.0, slack=2e-3)
    agree(f, f_error, p.grad.numpy(), 0.0, slack=2e-3)


def two_panels(p: torch.Tensor):
    """A wide and a narrow panel that meet at x = p, one lit, one bright: as two meshes."""
    low, high = torch.full_like(p, -5.0), torch.full_like(p, 5.0)
    z = torch.zeros_like(p)
    left = torch.stack([torch.cat([low, low, z]), torch.cat([p, low, z]), torch.cat([p, high, z]), torch.cat([low, high, z])])
    right = torch.stack(
        [torch.cat([p, low, z]), torch.cat([high, low, z]), torch.cat([high, high, z]), torch.cat([p, high, z])]
    )
    faces = torch.tensor([[0, 1, 2], [0, 2, 3]], dtype=torch.int32)
    materials = {"a": Material(row(0, 0, 0), emission=row(1, 1, 1)), "b": Material(row(0, 0, 0), emission=row(3, 3, 3))}
    bodies = [Body(Mesh(left[None], faces), "a"), Body(Mesh(right[None], faces), "b")]
    return Scene(bodies, materials)


def test_borders_along_each_other_count_once():
    """Two quads share a border: the border's motion changes the picture once, in whichever order they come."""
    value = torch.tensor([0.13])
    build = lambda p: {"scene": two_panels(p), "camera": from_above(SIZE)}  # noqa: E731
    r, r_error, f, f_error = both_modes(PathRender(samples=16, depth=1, boundary_samples=2048), build, value, SIZE, 6)
    column = int((0.13 + 1.0) / 2.0 * SIZE)
    truth = np.array([float(weights(SIZE)[:, column].sum() * (1.0 - 3.0)) * (SIZE / 2.0) / (3 * SIZE * SIZE)])
    agree(r, r_error, truth, 0.0, slack=2e-3)
    agree(f, f_error, truth, 0.0, slack=2e-3)


def test_three_borders_along_each_other_are_refused():
    mesh = Mesh(
        torch.tensor([[[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, -1, 0.5], [0.3, 0.2, 1.0]]]),
        torch.tensor([[0, 1, 2]], dtype=torch.int32),
    )
    others = [Mesh(mesh.vertices, torch.tensor([f], dtype=torch.int32)) for f in ([1, 0, 3], [0, 1, 4])]
    scene = Scene([Body(m, "m") for m in (mesh, *others)], {"m": Material(emission=row(1, 1, 1))})
    with pytest.raises(Unsupported, match="at most two borders"):
        PathRender(depth=1)(scene, from_above(SIZE)._replace(focal=torch.tensor([4.0], requires_grad=True)), film(SIZE))
    PathRender(depth=1)(scene, from_above(SIZE), film(SIZE))  # an image alone has no use for borders


def unwelded(mesh: Mesh) -> Mesh:
    corners = mesh.vertices[:, mesh.faces.long().flatten()]
    return Mesh(corners, torch.arange(corners.shape[1], dtype=torch.int32).reshape(-1, 3))


@pytest.mark.parametrize("weld", [True, False])
def test_creases_of_a_turning_cube(weld: bool):
    """A cube with a brightness on each face (by a sun that lights none of them alike), against differences of areas."""
    base = box(0.45)

    def corners(angle):
        c, s, o, i = torch.cos(angle), torch.sin(angle), torch.zeros_like(angle), torch.ones_like(angle)
        return torch.stack([torch.stack([c, -s, o]), torch.stack([s, c, o]), torch.stack([o, o, i])])

    camera = perspective((0.9, -2.6, 1.7), (0.0, 0.0, 0.0), 30.0, SIZE)

    def build(p):
        turned = base.vertices @ corners(p[0] + 0.3).T
        mesh = Mesh(turned, base.faces)
        scene = Scene([Body(mesh if weld else unwelded(mesh), "m")], {"m": Material(row(0.8, 0.5, 0.3))}, [sun])
        return {"scene": scene, "camera": camera}

    sun = DirectionalLight(row(0.3, 0.8, -0.7), row(3.0, 3.0, 3.0))
    truth = _cube_truth(base, corners, camera)
    r, r_error, f, f_error = both_modes(PathRender(samples=64, depth=2, boundary_samples=8192), build, torch.zeros(1), SIZE, 6)
    agree(r, r_error, truth, 0.0, slack=4e-3)
    agree(f, f_error, truth, 0.0, slack=4e-3)


def _cube_truth(base: Mesh, corners, camera) -> np.ndarray:
    """Derivative of the exact picture: each face that shows is a polygon of one brightness."""
    p = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    v = base.vertices[0].double() @ corners(p[0] + 0.3).T
    rotation, position = camera.rotation[0].double(), camera.position[0].double()
    local = (v - position) @ rotation.T
    points = camera.center[0].double() + camera.focal[0].double() * local[:, :2] / local[:, 2:]
    light = torch.tensor([0.3, 0.8, -0.7]).double()
    light = light / light.norm()
    total = torch.zeros(SIZE, SIZE, 3, dtype=torch.float64)
    for a, b, c in base.faces.long().tolist():
        n = torch.linalg.cross(v[b] - v[a], v[c] - v[a])
        n = n / n.norm()
        if float((n * (position - v[a])).sum()) > 0:
            shade = 3.0 / np.pi * torch.clamp(-(n * light).sum(), min=0.0)
            share = coverage(torch.stack([points[a], points[b], points[c]]), SIZE)
            total = total + share[..., None] * shade * torch.tensor([0.8, 0.5, 0.3]).double()
    (weights(SIZE).double() * total).mean().backward()
    return p.grad.numpy()


@pytest.mark.slow
def test_motion_blur_and_readout():
    """A square that moves across a film which is read out row by row: mean over times, exact by clipping at many of them."""
    from dvc.records import Shutter

    half, speed = 0.37, torch.tensor([0.5])

    def build(p):
        square = Mesh(torch.tensor([[[-half, -half, 0], [half, -half, 0], [half, half, 0], [-half, half, 0.0]]]),
                      torch.tensor([[0, 1, 2], [0, 2, 3]], dtype=torch.int32))  # fmt: skip
        ends = torch.stack([torch.cat([-p[:1], p[1:2], p[1:2] * 0]), torch.cat([p[:1], p[1:2], p[1:2] * 0])])[None]
        turn = torch.tensor([0.0, 0.0, 0.0, 1.0]).expand(1, 2, 4)
        scene = Scene([Body(square, "m", poses=Poses(ends, turn))], {"m": Material(row(0, 0, 0), emission=row(1, 1, 1))})
        shutter = Shutter(torch.tensor([0.6]), torch.stack([p[2] * 0, p[2]])[None])
        return {"scene": scene, "camera": from_above(SIZE), "shutter": shutter}

    value = torch.tensor([float(speed), 0.11, 0.3])

    def moments(p):  # at the time t the square's middle is 2 p0 t; a row is read at readout (y / height - 1/2) + 0.6 u
        steps, fine = 100, 64
        total = torch.zeros(SIZE, SIZE, dtype=torch.float64)
        rows = []
        for y in range(SIZE):
            parts = 0.0
            for k in range(fine):
                height = y + (k + 0.5) / fine
                world_y = -(height - 0.5 * SIZE) * 2.0 / SIZE
                inside = float(abs(world_y - float(p[1].detach())) <= half)
                u = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps - 0.5
                t = p[2] * (height / SIZE - 0.5) + 0.6 * u
                left = (2.0 * p[0] * t - half) * SIZE / 2.0 + 0.5 * SIZE
                right = (2.0 * p[0] * t + half) * SIZE / 2.0 + 0.5 * SIZE
                x = torch.arange(SIZE, dtype=torch.float64)[None]
                share = (torch.minimum(right[:, None], x + 1) - torch.maximum(left[:, None], x)).clamp_min(0.0).mean(dim=0)
                parts = parts + inside * share / fine
            rows.append(parts)
        return total + torch.stack(rows)

    p = value.double().requires_grad_(True)
    (weights(SIZE).double() * moments(p)[..., None]).mean().backward()
    truth = p.grad.numpy()
    r, r_error, f, f_error = both_modes(
        PathRender(samples=64, depth=1, boundary_samples=65536), build, value, SIZE, 8, frame_interval=1.0, node_interval=1.0
    )
    for found, error in ((r, r_error), (f, f_error)):
        agree(found[[0, 2]], error[[0, 2]], truth[[0, 2]], 0.0, slack=0.02)
