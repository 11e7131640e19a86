r"""Textures: any number of images of different sizes in one flat array, looked up bilinearly.

    value = (1 - a) (1 - b) t00 + a (1 - b) t10 + (1 - a) b t01 + a b t11

uv = (0, 0) is the bottom left corner of an image and (1, 1) the top right one, as in OBJ; images are stored with row 0 at the
top. So texel (row j, column i) has its centre at u = (i + 1/2) / width, v = 1 - (j + 1/2) / height. (Mitsuba's `bitmap` has v
= 0 in the top row; its OBJ reader turns v over, its PLY reader does not.) Outside [0, 1]^2 an image is repeated, mirrored at
its edges, or goes on with its outermost texels (`clamp`).

The gradient to uv is that within a cell between texel centres; it jumps from cell to cell.
"""

from collections.abc import Sequence

import torch
import warp as wp
from torch import Tensor

from dvc.errors import UserError
from render.reversible import reversible

WRAPS = ("repeat", "mirror", "clamp")
REPEAT, MIRROR, CLAMP = wp.constant(0), wp.constant(1), wp.constant(2)  # places in WRAPS


@wp.struct
class TextureTable:
    table: wp.array2d(dtype=int)  # width, height, first texel, channels (1 or 3), wrap, (texture, 5)


@wp.struct
class Footprint:
    """The four texels about a point, as places in the flat array, and where the point lies between their centres."""

    i00: int
    i10: int  # right of it
    i01: int  # below it
    i11: int
    fraction: wp.vec2  # columns, rows


@wp.func
def wrapped(index: int, size: int, wrap: int):
    """The texel that stands for column or row `index`, which may be any integer."""
    result = wp.clamp(index, 0, size - 1)
    if wrap == REPEAT:
        result = index % size
        if result < 0:
            result += size
    elif wrap == MIRROR:
        period = 2 * size
        result = index % period
        if result < 0:
            result += period
        if result >= size:
            result = period - 1 - result
    return result


@wp.func
def texel_footprint(table: TextureTable, texture: int, uv: wp.vec2):
    width = table.table[texture, 0]
    height = table.table[texture, 1]
    first = table.table[texture, 2]
    wrap = table.table[texture, 4]
    x = uv[0] * float(width) - 0.5
    y = (1.0 - uv[1]) * float(height) - 0.5
    column = int(wp.floor(x))
    row = int(wp.floor(y))
    left = wrapped(column, width, wrap)
    right = wrapped(column + 1, width, wrap)
    upper = first + width * wrapped(row, height, wrap)
    lower = first + width * wrapped(row + 1, height, wrap)
    result = Footprint()
    result.i00 = upper + left
    result.i10 = upper + right
    result.i01 = lower + left
    result.i11 = lower + right
    result.fraction = wp.vec2(x - wp.floor(x), y - wp.floor(y))
    return result


@reversible
@wp.func
def texture_value(t00: wp.vec3, t10: wp.vec3, t01: wp.vec3, t11: wp.vec3, fraction: wp.vec2):
    """Differentiable in the texels and the fraction."""
    a = fraction[0]
    b = fraction[1]
    return (t00 * (1.0 - a) + t10 * a) * (1.0 - b) + (t01 * (1.0 - a) + t11 * a) * b


@wp.func(inline=False)
def lookup(table: TextureTable, texels: wp.array2d(dtype=wp.vec3), world: int, texture: int, uv: wp.vec2):
    """Value of a texture at uv; a texture of one channel has it three times. Its gradient: `add_texture_gradient`."""
    at = texel_footprint(table, texture, uv)
    return texture_value(
        texels[world, at.i00], texels[world, at.i10], texels[world, at.i01], texels[world, at.i11], at.fraction
    )


@wp.func
def add_texture_gradient(
    table: TextureTable, texels: wp.array2d(dtype=wp.vec3), grads_texels: wp.array2d(dtype=wp.vec3), world: int, texture: int,
    uv: wp.vec2, g: wp.vec3,
):  # fmt: skip
    """Adds the gradient g of `lookup` to that of the texels; returns that of uv."""
    at = texel_footprint(table, texture, uv)
    a = at.fraction[0]
    b = at.fraction[1]
    wp.atomic_add(grads_texels, world, at.i00, g * ((1.0 - a) * (1.0 - b)))
    wp.atomic_add(grads_texels, world, at.i10, g * (a * (1.0 - b)))
    wp.atomic_add(grads_texels, world, at.i01, g * ((1.0 - a) * b))
    wp.atomic_add(grads_texels, world, at.i11, g * (a * b))
    return uv_gradient(table, texels, world, texture, uv, g)


@wp.func
def uv_gradient(table: TextureTable, texels: wp.array2d(dtype=wp.vec3), world: int, texture: int, uv: wp.vec2, g: wp.vec3):
    """The gradient of g . `lookup` in uv."""
    at = texel_footprint(table, texture, uv)
    a = at.fraction[0]
    b = at.fraction[1]
    t00 = texels[world, at.i00]
    t10 = texels[world, at.i10]
    t01 = texels[world, at.i01]
    t11 = texels[world, at.i11]
    to_right = (t10 - t00) * (1.0 - b) + (t11 - t01) * b
    to_below = (t01 - t00) * (1.0 - a) + (t11 - t10) * a
    return wp.vec2(
        float(table.table[texture, 0]) * wp.dot(g, to_right),
        -float(table.table[texture, 1]) * wp.dot(g, to_below),  # v points up, rows go down
    )


def pack_textures(textures: Sequence[Tensor], wraps: Sequence[str]) -> tuple[Tensor, Tensor]:
    """All textures of a scene in one array, and the table that says where each one lies.

    Arguments:
        textures: images (world, height, width, 1 or 3), row 0 at the top, linear values; a world axis of one serves all worlds.
        wraps: "repeat", "mirror" or "clamp", one a texture.
    Returns: texels (world, texel, 3), float32, one channel written three times; table (texture, 5), int32, which is
        `TextureTable.table`.
    Gradient: to every texture, through torch.
    Raises: UserError where there is no texture, a shape or type does not fit, a texture is empty, or a wrap is not known.
    """
    if len(textures) == 0:
        raise UserError("pack_textures.textures: expected at least one texture, got none; remedy: leave the call out")
    if isinstance(wraps, str) or len(wraps) != len(textures):
        given = repr(wraps) if isinstance(wraps, str) else str(len(wraps))
        raise UserError(f"pack_textures.wraps: expected one wrap for each of {len(textures)} textures, got {given}")
    worlds = max(t.shape[0] if t.dim() == 4 else 1 for t in textures)
    parts, rows, first = [], [], 0
    for i, (texture, wrap) in enumerate(zip(textures, wraps)):
        name = f"pack_textures.textures[{i}]"
        if texture.dim() != 4 or texture.shape[3] not in (1, 3):
            raise UserError(f"{name}: expected shape (world, height, width, 1 or 3), got {tuple(texture.shape)}")
        if texture.numel() == 0:
            raise UserError(f"{name}: expected at least one texel, got shape {tuple(texture.shape)}")
        if texture.dtype != torch.float32:
            raise UserError(f"{name}: expected float32, got {texture.dtype}; remedy: .float(), divided by 255 for bytes")
        if texture.device != textures[0].device:
            raise UserError(f"{name}: expected device {textures[0].device} as the first one, got {texture.device}")
        if texture.shape[0] not in (1, worlds):
            raise UserError(f"{name}: expected 1 or {worlds} worlds, got {texture.shape[0]}")
        if wrap not in WRAPS:
            raise UserError(f"pack_textures.wraps[{i}]: expected one of {', '.join(WRAPS)}, got {wrap!r}")
        height, width, channels = texture.shape[1:]
        parts.append(texture.reshape(texture.shape[0], height * width, channels).expand(worlds, -1, 3))
        rows.append((width, height, first, channels, WRAPS.index(wrap)))
        first += height * width
    return torch.cat(parts, dim=1), torch.tensor(rows, dtype=torch.int32, device=textures[0].device)
