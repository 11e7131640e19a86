"""A ball before a camera, in few words, and the picture of it by brute force."""

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, uniform_filter
from torch import Tensor

from dvc.records import Camera, Film, Shutter, Trajectory
from render.camera import OrthographicCamera, PinholeCamera
from render.sphere_stage import SphereRender

FRAME_RATE = 30.0
SOFT = 0.5  # lens blur [film px] with which point samples of the filtered picture add up to its integral


def scalar(value: float | Tensor) -> Tensor:
    """(world,) from a number; tensors pass."""
    return value if isinstance(value, Tensor) else torch.tensor([float(value)])


def motion(nodes: Tensor, substeps: int = 2, fraction: Tensor | None = None, at_impact: Tensor | None = None) -> Trajectory:
    """A trajectory through given nodes (world, node, 3)."""
    worlds, count = nodes.shape[:2]
    none = torch.full((worlds, count - 1), -1.0)
    turn = torch.tensor([0.0, 0.0, 0.0, 1.0]).expand(worlds, count, 4)
    fraction = none if fraction is None else fraction
    at_impact = torch.zeros(worlds, count - 1, 3) if at_impact is None else at_impact
    return Trajectory(
        nodes,
        turn,
        fraction,
        at_impact,
        torch.zeros_like(none),
        nodes[..., 0],
        -0.5 / FRAME_RATE,
        1.0 / (FRAME_RATE * substeps),
        (count - 1) // substeps,
        substeps,
    )


def moving(middle: Tensor, velocity: Tensor | None = None, substeps: int = 2, frames: int = 1) -> Trajectory:
    """A straight motion; `middle` (world, 3) is where the ball is in the middle of the first frame, `velocity` [m/s]."""
    velocity = torch.zeros_like(middle) if velocity is None else velocity
    t = (torch.arange(frames * substeps + 1) / substeps - 0.5) / FRAME_RATE
    return motion(middle[:, None] + t[None, :, None] * velocity[:, None], substeps)


def still(worlds: int = 1, exposure: float = 0.0) -> Shutter:
    return Shutter(torch.full((worlds,), exposure), torch.zeros(worlds, 2))


def orthographic(scale: float = 100.0, anchor: tuple[float, float] = (32.0, 24.0)) -> Camera:
    return OrthographicCamera()(torch.tensor([anchor]), scalar(scale))


def pinhole(focal: float = 600.0, center: tuple[float, float] = (320.0, 240.0), **angles: float) -> Camera:
    position = torch.tensor([[0.0, -1.5, 0.0]])
    return PinholeCamera(center)(position, scalar(focal), **{name: scalar(value) for name, value in angles.items()})


def coverage(
    trajectory: Trajectory,
    radius: float | Tensor,
    camera: Camera,
    shutter: Shutter,
    film: Film,
    *,
    samples: int = 1,
    blur: float | None = None,
    seed: int = 0,
) -> Tensor:
    """How much of each film pixel the ball covers, (world, frame, row, column): a white ball without shading on black.

    `blur` [px]: by default SOFT film pixels.
    """
    blur = SOFT / film.scale if blur is None else blur
    white = torch.ones(1, 3)
    black = torch.zeros(film.rows, film.columns, 3)
    stage = SphereRender(samples)
    frames = stage(
        trajectory,
        scalar(radius),
        camera,
        shutter,
        black,
        film,
        white,
        torch.tensor([[0.0, -1.0, 0.0]]),
        scalar(1.0),
        scalar(blur),
        seed=seed,
    )
    return frames.images[..., 0]


def film_of(
    columns: int, rows: int, *, step: float = 1.0, left: float = 0.0, top: float = 0.0, width: int = 640, height: int = 480
) -> Film:
    """`step` full pixels a film pixel."""
    return Film(width, height, left, top, columns, rows, 1.0 / step)


def pixel_centres(film: Film) -> tuple[Tensor, Tensor]:
    """Full-frame x (column,) and y (row,) of the film pixels' centres."""
    step = 1.0 / film.scale
    return film.left + (torch.arange(film.columns) + 0.5) * step, film.top + (torch.arange(film.rows) + 0.5) * step


def centroid(image: Tensor, film: Film) -> tuple[float, float]:
    """Centre of mass of one coverage image (row, column), in full pixels."""
    x, y = pixel_centres(film)
    image = image.detach().double()
    return float((image.sum(0) * x).sum() / image.sum()), float((image.sum(1) * y).sum() / image.sum())


def brute_force(
    film: Film,
    centres: np.ndarray,
    radius: float,
    camera: Camera,
    color: np.ndarray,
    cap_color: np.ndarray,
    cap_axis: np.ndarray,
    light: np.ndarray,
    ambient: float,
    background: np.ndarray,
    blur: float,
    fine: int = 15,
) -> np.ndarray:
    """The picture as its definition says it: rays on a fine grid, hard visibility, box and lens, a mean over `centres`.

    The filter is the pixel's square convolved with the Gaussian of the lens. (row, column, 3).
    """
    step, margin = 1.0 / film.scale, 6
    rotation, eye = camera.rotation[0].double().numpy(), camera.position[0].double().numpy()
    focal, (cx, cy) = float(camera.focal[0]), camera.center[0].tolist()
    columns, rows = ((n + 2 * margin) * fine for n in (film.columns, film.rows))
    x = film.left + ((np.arange(columns) + 0.5) / fine - margin) * step
    y = film.top + ((np.arange(rows) + 0.5) / fine - margin) * step
    px, py = np.meshgrid((x - cx) / focal, (y - cy) / focal)
    zero = np.zeros_like(px)
    if camera.orthographic:
        start, ray = np.stack([px, py, zero - 100.0], -1), np.broadcast_to([0.0, 0.0, 1.0], (*px.shape, 3))
    else:
        start, ray = np.zeros((*px.shape, 3)), np.stack([px, py, zero + 1.0], -1)
        ray = ray / np.linalg.norm(ray, axis=-1, keepdims=True)
    seen, mask = np.zeros((*px.shape, 3)), np.zeros(px.shape)
    for centre in centres:
        c = rotation @ (centre - eye)
        along = ((c - start) * ray).sum(-1)
        root = along**2 - ((c - start) ** 2).sum(-1) + radius**2
        hit = (root > 0.0) & (along > 0.0)
        point = start + ray * (along - np.sqrt(np.maximum(root, 0.0)))[..., None]
        normal = ((point - c) / radius) @ rotation
        blend = (0.5 * (1.0 + normal @ cap_axis))[..., None] ** 2
        albedo = color + (cap_color - color) * blend
        shade = ambient + (1.0 - ambient) * np.maximum(normal @ (light / np.linalg.norm(light)), 0.0)
        seen += albedo * shade[..., None] * hit[..., None] / len(centres)
        mask += hit / len(centres)
    seen, mask = uniform_filter(seen, (fine, fine, 1)), uniform_filter(mask, fine)  # the pixel's square
    sigma = blur * film.scale * fine
    seen, mask = gaussian_filter(seen, (sigma, sigma, 0.0), truncate=6.0), gaussian_filter(mask, sigma, truncate=6.0)
    at = slice(margin * fine + fine // 2, -margin * fine, fine)
    return seen[at, at] + background * (1.0 - mask[at, at])[..., None]
