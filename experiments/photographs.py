"""Ray-traced pictures of a scene that does not change, and how far they are from photographs."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dvc.errors import UserError
from dvc.records import Camera, Film
from render.image_losses import image_pyramid
from render.path_render import PathRender
from render.scene import Scene


def film_at(film: Film, level: int) -> Film:
    """The same part of the frame with 2^level times larger film pixels. Raises: UserError where that does not divide it."""
    factor = 2**level
    if film.columns % factor or film.rows % factor:
        raise UserError(f"level: expected one at which {factor} divides {film.columns} x {film.rows} pixels, got {level}")
    return film._replace(columns=film.columns // factor, rows=film.rows // factor, scale=film.scale / factor)


class RenderedPhotographs(nn.Module):
    """camera (a row a photograph, world by world), level, seed -> images (world, photograph, row, column, 3).

    Arguments: scene, of one world; film: at level 0; count: photographs a world; samples: paths a pixel at level
        0, at level l 2^l as many; depth: see `PathRender`.
    Gradient: to the camera, see `PathRender`.
    """

    def __init__(self, scene: Scene, film: Film, count: int, samples: int, depth: int = 2):
        super().__init__()
        self.scene, self.film, self.count, self.samples, self.depth = scene, film, int(count), int(samples), int(depth)

    def at(self, samples: int) -> "RenderedPhotographs":
        """The same with another number of samples."""
        return RenderedPhotographs(self.scene, self.film, self.count, samples, self.depth)

    def forward(self, camera: Camera, level: int, seed: int) -> Tensor:
        images = self._render(level)(self.scene, camera, film_at(self.film, level), seed=seed)
        return images.unflatten(0, (-1, self.count))

    def derivative(
        self, camera_of: Callable[[Tensor], Camera], value: Tensor, direction: Tensor, level: int, seed: int
    ) -> Tensor:
        """Derivative of the images while `value` moves along `direction`: as `forward`. camera_of(value) by torch alone."""
        images = self._render(level).derivative(
            lambda moving: {"scene": self.scene, "camera": camera_of(moving)}, value, direction,
            film=film_at(self.film, level), seed=seed,
        )  # fmt: skip
        return images.unflatten(0, (-1, self.count))

    def _render(self, level: int) -> PathRender:
        return PathRender(samples=self.samples * 2**level, depth=self.depth)


class PhotographMisfit(nn.Module):
    """(rendered - photographed) / sigma, (world, tile, value); a photograph has tiles x tiles of them, the
    clusters of the uncertainty.

    At level l each value weighs 2^l times as much: it is the mean of 4^l pixels.
    """

    def __init__(self, sigma: float, tiles: int):
        super().__init__()
        if not sigma > 0.0 or tiles < 1:
            raise UserError(f"PhotographMisfit: expected sigma above 0 and at least one tile, got {sigma} and {tiles}")
        self.sigma, self.tiles = float(sigma), int(tiles)
        self.observed: list[Tensor] = []

    def observe(self, photographs: Tensor) -> None:
        """photographs (photograph, row, column, 3)."""
        levels = 1
        while all(side % 2**levels == 0 for side in photographs.shape[1:3]):
            levels += 1
        self.observed = image_pyramid(photographs, levels)

    def forward(self, images: Tensor, level: int) -> Tensor:
        if not self.observed:
            raise UserError("PhotographMisfit: expected photographs, got none yet; remedy: prepare() of the task")
        return self.change(images - self.observed[level][: images.shape[1]], level)

    def change(self, images: Tensor, level: int) -> Tensor:
        """How the residual changes with the images (world, photograph, row, column, 3)."""
        off = images * (2**level / self.sigma)
        worlds, count, rows, columns, _ = off.shape
        tiles = self.tiles
        if rows % tiles or columns % tiles:
            raise UserError(f"PhotographMisfit.tiles: expected a number that divides {rows} and {columns} pixels, got {tiles}")
        parts = off.reshape(worlds, count, tiles, rows // tiles, tiles, columns // tiles, 3)
        return parts.permute(0, 1, 2, 4, 3, 5, 6).reshape(worlds, count * tiles * tiles, -1)


def picture_rows(rows: list[Tensor], factor: int = 3) -> Tensor:
    """Images (view, row, column, 3) side by side, one row a list entry, enlarged; (row, column, 3)."""
    picture = torch.cat([torch.cat(list(images), dim=1) for images in rows], dim=0)
    return picture.repeat_interleave(factor, dim=0).repeat_interleave(factor, dim=1)
