"""Views of a shape of clay from all around, under two coloured lights and a dim sky: what `shape_from_images` looks at."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dvc.records import Camera, Film, Mesh
from render.camera import LookAtCamera
from render.path_render import PathRender
from render.scene import Body, DirectionalLight, Material, Scene

CLAY, SKY = 0.75, 0.3
WARM, COOL = ((-0.5, 0.7, -0.5), (2.4, 1.7, 1.0)), ((0.6, -0.6, 0.45), (0.9, 1.6, 2.4))  # direction, irradiance
DISTANCE = 1.5  # of the cameras from the middle, over the diagonal
FILLED = 0.92  # share of the film that the shape spans at most


def directions(count: int, turn: float = 0.0) -> Tensor:
    """Points spread evenly over the unit sphere, on a spiral of the golden angle that begins at `turn` [rad]: (count, 3)."""
    k = torch.arange(count, dtype=torch.float32) + 0.5
    z, angle = 1.0 - 2.0 * k / count, math.pi * (3.0 - math.sqrt(5.0)) * k + turn
    r = torch.sqrt(1.0 - z * z)
    return torch.stack([r * torch.cos(angle), r * torch.sin(angle), z], dim=-1)


def cameras_around(shape: Mesh, count: int, pixels: int, turn: float = 0.0) -> Camera:
    """Pinholes that look at the middle of the shape's box and whose common angle of view holds all of it."""
    points = shape.vertices[0].detach()
    low, high = points.amin(0), points.amax(0)
    middle, diagonal = 0.5 * (low + high), float((high - low).norm())
    way = directions(count, turn)
    look = LookAtCamera(pixels, pixels)
    camera = look(middle + DISTANCE * diagonal * way, middle.expand(count, 3), focal=torch.ones(count))
    seen = (points[None] - camera.position[:, None]) @ camera.rotation.transpose(1, 2)
    widest = float((seen[..., :2].abs() / seen[..., 2:]).max())
    return camera._replace(focal=torch.full((count,), 0.5 * FILLED * pixels / widest))


class ClayViews(nn.Module):
    """Pictures of a shape from all cameras, in one call of the renderer.

    Arguments: camera, one row a view; pixels: of the square film, in the camera's units; columns: film pixels a side; samples:
        paths a film pixel; apart: a call for each source of light, and their sum: the same picture, but without the noise
        of choosing one of them, which is most of it, at three times the cost.
    Forward: mesh of one world; seed; chosen: views, int64 (chosen,), None: all -> linear radiance (chosen, columns, columns,
        3), black where there is no shape.
    Gradient: that of `PathRender` of direct light (depth 2), boundaries of the silhouettes and shadows included.
    """

    def __init__(self, camera: Camera, pixels: int, columns: int, samples: int, apart: bool = False):
        super().__init__()
        self.camera, self.apart = camera, bool(apart)
        self.film = Film(pixels, pixels, 0.0, 0.0, int(columns), int(columns), columns / pixels)
        self.render = PathRender(samples=samples, depth=2)

    def forward(self, mesh: Mesh, seed: int = 0, chosen: Tensor | None = None) -> Tensor:
        camera, film = self.camera, self.film
        if chosen is not None:
            camera = camera._replace(**{name: getattr(camera, name)[chosen] for name in ("position", "rotation", "focal")})
        bodies, clay, sky = [Body(mesh, "clay")], {"clay": Material((CLAY, CLAY, CLAY))}, torch.full((1, 3), SKY)
        lights = [DirectionalLight(*(torch.tensor([row]) for row in light)) for light in (WARM, COOL)]
        scenes = [Scene(bodies, clay, lights, sky)]
        if self.apart:
            scenes = [*(Scene(bodies, clay, [light]) for light in lights), Scene(bodies, clay, environment=sky)]
        plate = torch.zeros(1, film.rows, film.columns, 3)
        parts = [self.render(scene, camera, film, seed=3 * int(seed) + k, plate=plate) for k, scene in enumerate(scenes)]
        return torch.stack(parts).sum(0)


def contact_sheet(rows: Sequence[Tensor]) -> Tensor:
    """Rows of pictures (view, row, column, 3), linear, as one picture for a screen."""
    return torch.cat([torch.cat(list(row), dim=1) for row in rows]).clamp(0.0, 1.0) ** (1.0 / 2.2)
