"""Materials of model files as the renderer's own: a diffuse surface or a rough conductor.

glTF's metal is ours: D of GGX with alpha = roughness^2, the separable masking of Smith, Schlick's Fresnel term with the base
colour at normal incidence (glTF 2.0 specification, appendix B.3). So metalness 1 is taken exactly, metalness 0 as the diffuse
part of glTF's dielectric, without its reflection of 4 % at the surface (exactly where `specular` says that there is none).

| what | how |
|---|---|
| metalness 1 | exact; alpha textures are squared texel by texel, so that between texels the blend is one of alpha |
| metalness 0 | diffuse part; the surface's own reflection is left out (said once) |
| within 0.1 of 0 or 1, by number and by texel | as that (said once from 0.02 on) |
| between | Unsupported; left out: the nearer of the two on average |
| roughness below 0.032 | the least alpha of the renderer (said once) |
| emission of a two-sided material | on the front side only (said once) |
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dvc.errors import UserError
from render.imported import Notes
from render.scene import CONDUCTOR, DIFFUSE, Material, Texture

LEAST_ALPHA = 1.01e-3  # `render.ggx.LEAST_ALPHA`, and some room for rounding
PURE, NEARLY = 0.02, 0.1  # how far from 0 or 1 metalness counts as such, without and with a word (5 and 25 of 255)


class Finish(NamedTuple):
    """A material as glTF describes it; textures are linear, those of one number have one channel."""

    colour: np.ndarray  # (3,)
    metalness: float = 0.0
    roughness: float = 1.0
    emission: np.ndarray | None = None  # (3,)
    colour_image: Texture | None = None
    metalness_image: Texture | None = None
    roughness_image: Texture | None = None
    emission_image: Texture | None = None
    two_sided: bool = False
    specular: bool = True  # whether what is not metal reflects at its surface


def checked(name: str, values: object, count: int, most: float = np.inf) -> np.ndarray:
    """`count` numbers from 0 to `most`, float64 (count,). Raises: UserError."""
    try:
        found = np.array(values, np.float64).reshape(-1)
    except (TypeError, ValueError):
        found = np.zeros(0)
    if len(found) != count or not ((found >= 0.0) & (found <= most) & np.isfinite(found)).all():
        bounds = f"from 0 to {most:g}" if most < np.inf else "of at least 0"
        raise UserError(f"{name}: expected {count} number{'s' if count > 1 else ''} {bounds}, got {values!r}")
    return found


def material_of(notes: Notes, where: str, finish: Finish) -> Material:
    """Raises: UserError for numbers out of range; Unsupported for metalness that is neither 0 nor 1 (see the module)."""
    name = f"{notes.name}: {where}"
    colour = checked(f"{name}: colour", finish.colour, 3, 1.0)
    kind = CONDUCTOR if _is_metal(notes, where, finish) else DIFFUSE
    emission, emission_image = None, None
    if finish.emission is not None and bool((np.asarray(finish.emission) != 0.0).any()):
        emission = _row(checked(f"{name}: emission", finish.emission, 3))
        emission_image = finish.emission_image
        if finish.two_sided:
            notes.approximate("emission of two-sided materials is on the front side only", where)
    if kind == DIFFUSE:
        if finish.specular:
            notes.approximate("diffuse materials are without the reflection at their surface", where)
        return Material(
            _row(colour), DIFFUSE, emission=emission, two_sided=finish.two_sided, albedo_texture=finish.colour_image,
            emission_texture=emission_image,
        )  # fmt: skip
    alpha, alpha_image = _alpha(notes, where, float(checked(f"{name}: roughness", finish.roughness, 1, 1.0)[0]), finish)
    return Material(
        _row(colour), CONDUCTOR, torch.tensor([alpha]), emission, finish.two_sided, True, finish.colour_image, alpha_image,
        emission_image,
    )  # fmt: skip


def _row(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))[None]


def _is_metal(notes: Notes, where: str, finish: Finish) -> bool:
    factor = float(checked(f"{notes.name}: {where}: metalness", finish.metalness, 1, 1.0)[0])
    low = high = mean = factor
    if finish.metalness_image is not None:
        values = finish.metalness_image.image * factor
        low, high, mean = float(values.min()), float(values.max()), float(values.mean())
    impurity = min(high, 1.0 - low)
    if impurity > NEARLY:
        notes.absent("mixed metalness", where)
    elif impurity > PURE:
        notes.approximate("metalness within 0.1 of 0 or 1 counts as that", where)
    return mean > 0.5


def _alpha(notes: Notes, where: str, roughness: float, finish: Finish) -> tuple[float, Texture | None]:
    """alpha = roughness^2, as constant times texture."""
    alpha, texture = roughness**2, finish.roughness_image
    least = alpha * (float(texture.image.min()) ** 2 if texture is not None else 1.0)
    if least < LEAST_ALPHA:
        notes.approximate("roughness below 0.032 is taken as that", where)
    if texture is None or alpha < LEAST_ALPHA:
        return max(alpha, LEAST_ALPHA), None
    return alpha, texture._replace(image=(texture.image**2).clamp_min(LEAST_ALPHA / alpha))
