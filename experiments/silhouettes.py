"""Silhouettes drawn from formulas and from letters, as coverage of pixels."""

import math

import numpy as np
import torch
from torch import Tensor

from dvc.errors import UserError

FINER = 8  # rows and columns that a pixel is drawn with
DRAWN = 512  # pixels a side of the drawing from which a shape is cut out
SHAPES = ("disc", "heart", "star", "moon")


def silhouette(name: str, pixels: int, height: float = 0.6) -> Tensor:
    """Coverage of each pixel of a square picture by a silhouette in its middle, in [0, 1], (row, column).

    name: one of `SHAPES`, or a capital letter; height: of the silhouette, over the picture's. Raises: UserError for other
        names.
    """
    drawing = _letter(name) if len(name) == 1 and name.isascii() and name.isupper() else _shape(name)
    rows, columns = np.nonzero(drawing)
    shape = torch.from_numpy(drawing[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].astype(np.float32))
    size = max(1, round(pixels * FINER * height))
    width = min(pixels * FINER, max(1, round(size * shape.shape[1] / shape.shape[0])))
    shape = torch.nn.functional.interpolate(shape[None, None], (size, width), mode="bilinear", align_corners=False)[0, 0]
    fine = torch.zeros(pixels * FINER, pixels * FINER)
    top, left = (pixels * FINER - size) // 2, (pixels * FINER - width) // 2
    fine[top : top + size, left : left + width] = (shape > 0.5).float()
    return fine.reshape(pixels, FINER, pixels, FINER).mean(dim=(1, 3))


def _letter(name: str) -> np.ndarray:
    import cv2

    drawing = np.zeros((DRAWN, DRAWN), np.uint8)
    cv2.putText(drawing, name, (DRAWN // 8, 7 * DRAWN // 8), cv2.FONT_HERSHEY_DUPLEX, 14.0, 255, 70, cv2.LINE_AA)
    return drawing > 127


def _shape(name: str) -> np.ndarray:
    axis = (np.arange(DRAWN) + 0.5) / DRAWN * 2.6 - 1.3
    x, y = axis[None, :], -axis[:, None]
    if name == "disc":
        return x * x + y * y < 1.0
    if name == "heart":
        return (x * x + y * y - 1.0) ** 3 < x * x * y**3
    if name == "moon":
        return (x * x + y * y < 1.0) & ((x - 0.5) ** 2 + y * y > 0.64)
    if name == "star":  # a pentagram: in all but at most one of five half-planes
        angles = 0.5 * math.pi + 2.0 * math.pi * np.arange(5) / 5.0
        inside = sum((x * np.cos(a) + y * np.sin(a) < math.cos(0.4 * math.pi)).astype(int) for a in angles)
        return inside >= 4
    raise UserError(f"silhouette: expected one of {', '.join(SHAPES)}, or a capital letter, got {name!r}")
