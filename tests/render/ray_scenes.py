"""Small scenes for the ray tracer, and exact pictures of polygons in double precision."""

import numpy as np
import torch
from torch import Tensor

from dvc.records import Camera, Film, Mesh
from geometry.mesh import box_mesh, icosphere
from render.camera import LookAtCamera
from render.path_render import PathRender

DOWN = torch.tensor([[[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]]])  # a camera that looks along -z, y up on the film


def row(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float32)


def quad(center: tuple, along_u: tuple, along_v: tuple) -> Mesh:
    """A rectangle with half axes u and v, facing u x v."""
    c, u, v = (torch.tensor(x, dtype=torch.float32) for x in (center, along_u, along_v))
    corners = torch.stack([c - u - v, c + u - v, c + u + v, c - u + v])
    return Mesh(corners[None], torch.tensor([[0, 1, 2], [0, 2, 3]], dtype=torch.int32))


def box(half: float | tuple) -> Mesh:
    vertices, faces = box_mesh()
    return Mesh(torch.tensor(vertices)[None] * torch.tensor(half), torch.tensor(faces))


def ball_mesh(subdivisions: int, radius: float) -> Mesh:
    vertices, faces = icosphere(subdivisions)
    return Mesh(radius * torch.tensor(vertices, dtype=torch.float32)[None], torch.tensor(faces, dtype=torch.int32))


def inside_out(mesh: Mesh) -> Mesh:
    return Mesh(mesh.vertices, mesh.faces.flip(1).contiguous())


def film(size: int) -> Film:
    return Film(size, size, 0.0, 0.0, size, size, 1.0)


def from_above(size: int, width: float = 2.0, height: float = 5.0) -> Camera:
    """Orthographic, over the square of the given width about the origin."""
    middle = 0.5 * size
    return Camera(row(0.0, 0.0, height), DOWN, torch.tensor([size / width]), row(middle, middle), True)


def perspective(position: tuple, target: tuple, fov: float, size: int) -> Camera:
    return LookAtCamera(size, size)(row(*position), row(*target), fov=torch.tensor([np.radians(fov)], dtype=torch.float32))


def clip(polygon: list[Tensor], axis: int, limit: float, sign: float) -> list[Tensor]:
    """The part of a convex polygon where sign (x_axis - limit) >= 0 (Sutherland and Hodgman)."""
    kept = []
    for p, q in zip(polygon, polygon[1:] + polygon[:1]):
        a, b = sign * (p[axis] - limit), sign * (q[axis] - limit)
        if a >= 0:
            kept.append(p)
        if (a >= 0) != (b >= 0):
            kept.append(p + (q - p) * (a / (a - b)))
    return kept


def coverage(polygon: Tensor, size: int) -> Tensor:
    """Share of each pixel that a convex polygon (corner, 2) on the film covers, exactly: (row, column), differentiable."""
    values = []
    for y in range(size):
        strip = clip(clip(list(polygon), 1, y, 1.0), 1, y + 1, -1.0)
        for x in range(size):
            part = clip(clip(strip, 0, x, 1.0), 0, x + 1, -1.0)
            area = polygon.new_zeros(())
            for p, q in zip(part, part[1:] + part[:1]):
                area = area + 0.5 * (p[0] * q[1] - p[1] * q[0])
            values.append(area.abs())
    return torch.stack(values).reshape(size, size)


def weights(size: int) -> Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.rand(size, size, 3, generator=generator) + 0.3


def mean_and_error(values: list) -> tuple[np.ndarray, np.ndarray]:
    array = np.array(values, np.float64)
    return array.mean(axis=0), array.std(axis=0, ddof=1) / np.sqrt(len(array))


def reverse_mode(render: PathRender, build, value: Tensor, size: int, seeds: int) -> tuple:
    """Gradient of the weighted mean of the image by reverse mode: mean and error."""
    w, found = weights(size), []
    for seed in range(seeds):
        leaf = value.clone().requires_grad_(True)
        given = build(leaf)
        shown = render(given["scene"], given["camera"], film(size), given.get("shutter"), seed=seed, plate=given.get("plate"))
        (w * shown[0]).mean().backward()
        found.append(leaf.grad.numpy().copy())
    return mean_and_error(found)


def both_modes(render: PathRender, build, value: Tensor, size: int, seeds: int, **call) -> tuple:
    """Gradient of the weighted mean of the image by reverse mode, and by forward mode along each axis: means and errors."""
    w = weights(size)
    reverse, forward = [], []
    for seed in range(seeds):
        leaf = value.clone().requires_grad_(True)
        given = build(leaf)
        shown = render(
            given["scene"], given["camera"], film(size), given.get("shutter"), seed=seed, plate=given.get("plate"), **call
        )
        (w * shown[0]).mean().backward()
        reverse.append(leaf.grad.numpy().copy())
        along = []
        for axis in torch.eye(len(value)):
            moved = render.derivative(build, value, axis, film=film(size), seed=seed, **call)
            along.append(float((w * moved[0]).mean()))
        forward.append(along)
    return *mean_and_error(reverse), *mean_and_error(forward)


def difference(render: PathRender, build, value: Tensor, size: int, step: float, seeds: int, **call) -> tuple:
    """Central differences of the weighted mean, the same seeds on both sides: means and errors, for each axis."""
    w = weights(size).double()
    rows = []
    for seed in range(seeds):
        slopes = []
        for axis in torch.eye(len(value)):
            sides = []
            for sign in (1.0, -1.0):
                given = build(value + sign * step * axis)
                with torch.no_grad():
                    shown = render(
                        given["scene"], given["camera"], film(size), given.get("shutter"), seed=7000 + seed,
                        plate=given.get("plate"), **call,
                    )  # fmt: skip
                sides.append(float((w * shown[0].double()).mean()))
            slopes.append((sides[0] - sides[1]) / (2.0 * step))
        rows.append(slopes)
    return mean_and_error(rows)


def agree(found: np.ndarray, found_error: np.ndarray, truth: np.ndarray, truth_error: np.ndarray | float, slack: float = 0.0):
    """Within four standard errors, which are small."""
    truth = np.asarray(truth, np.float64)
    error = np.sqrt(found_error**2 + np.asarray(truth_error) ** 2)
    scale = np.abs(truth).max()
    assert np.all(np.abs(found - truth) <= 4.0 * error + slack * scale + 1e-7), f"{found} +- {found_error}, truth {truth}"
    assert np.all(error <= 0.06 * scale + 1e-7), f"errors {error} are too large to tell, truth {truth}"
