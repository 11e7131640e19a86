r"""What is seen where nothing is met: one radiance from everywhere, times a panorama where there is one.

A panorama is an image over all directions (latitude and longitude, z up): row 0 at the zenith, the middle column along +x, and,
seen from inside, +y to its left,

    u = 1/2 - atan2(d_y, d_x) / (2 pi),        v = 1 - acos(d_z) / pi        (texture coordinates, `render.textures`).

It is sampled by its texels' share of what it sends: the bilinear interpolant's integral over the texel, times the texel's solid
angle, and a little for black ones, which may want a gradient; evenly within a texel (Pharr, Jakob, Humphreys 2016, section
14.2.4). Its density in solid angle is p(texel) width height / (2 pi^2 sin theta).

Gradient: to texels and factor; to the direction of a camera's ray by `add_sky_gradient`, jumping from cell to cell as that of a
texture does. Densities are detached.
"""

import math

import torch
import warp as wp
from torch import Tensor

from render.gradient_sink import Sink, deposit, deposit_texture
from render.reversible import calls_gradients, reversible
from render.scene_data import SceneNumbers, SceneTables
from render.textures import lookup

TO_TEXELS = wp.constant(2.0 * math.pi * math.pi)
LEAST_SINE = wp.constant(1.0e-6)
EVENLY = 0.02  # share of the samples that goes to all directions alike


@wp.func
def has_panorama(tables: SceneTables):
    return tables.sky_cdf.shape[1] > 0


@wp.func
def panorama_of(tables: SceneTables):
    """Its place among the textures: the last one."""
    return tables.textures.table.shape[0] - 1


@reversible
@wp.func
def sky_uv(d: wp.vec3):
    """Texture coordinates of a direction of any length."""
    z = wp.clamp(d[2] / wp.length(d), -1.0, 1.0)
    return wp.vec2(0.5 - wp.atan2(d[1], d[0]) / (2.0 * wp.PI), 1.0 - wp.acos(z) / wp.PI)


@reversible
@wp.func
def sky_uv_along(d: wp.vec3, weight: wp.vec2):
    return wp.dot(weight, sky_uv(d))


@wp.func
def inside_rows(tables: SceneTables, uv: wp.vec2):
    """The same between the centres of the first and the last row: beyond them a panorama goes on as it is, not at its other
    end."""
    half = 0.5 / float(tables.textures.table[panorama_of(tables), 1])
    return wp.vec2(uv[0], wp.clamp(uv[1], half, 1.0 - half))


@wp.func(inline=False)
def panorama_value(scene: SceneNumbers, tables: SceneTables, world: int, d: wp.vec3):
    uv = inside_rows(tables, sky_uv(d))
    return lookup(tables.textures, scene.texels, world, panorama_of(tables), uv)


@wp.func
def sky_radiance(scene: SceneNumbers, tables: SceneTables, world: int, d: wp.vec3):
    """Radiance that comes against a ray along d from beyond everything."""
    value = scene.environment[world]
    if has_panorama(tables):
        value = wp.cw_mul(value, panorama_value(scene, tables, world, d))
    return value


@calls_gradients
@wp.func
def add_sky_gradient(scene: SceneNumbers, tables: SceneTables, sink: Sink, world: int, d: wp.vec3, g: wp.vec3):
    """Adds the gradient g of `sky_radiance`; returns that of d."""
    d_bar = wp.vec3(0.0, 0.0, 0.0)
    if has_panorama(tables):
        deposit(sink, sink.numbers.environment, world, wp.cw_mul(g, panorama_value(scene, tables, world, d)))
        free = sky_uv(d)
        uv = inside_rows(tables, free)
        at_uv = deposit_texture(scene, tables, sink, world, panorama_of(tables), uv, wp.cw_mul(g, scene.environment[world]))
        if uv[1] != free[1]:
            at_uv = wp.vec2(at_uv[0], 0.0)
        g_d, _w = wp.grad(sky_uv_along)(d, at_uv)
        d_bar = g_d
    else:
        deposit(sink, sink.numbers.environment, world, g)
    return d_bar


@wp.func
def share_of(tables: SceneTables, world: int, row: int, column: int):
    """Probability of a texel: of its row, and of it among those of its row."""
    last = tables.sky_cdf.shape[2] - 1
    of_row = tables.sky_cdf[world, row, last]
    if row > 0:
        of_row -= tables.sky_cdf[world, row - 1, last]
    own = tables.sky_cdf[world, row, column]
    if column > 0:
        own -= tables.sky_cdf[world, row, column - 1]
    return of_row * own


@wp.func
def panorama_density(tables: SceneTables, world: int, d: wp.vec3):
    """Density of `sample_panorama` in solid angle [1/sr]."""
    rows = tables.sky_cdf.shape[1]
    columns = tables.sky_cdf.shape[2] - 1
    uv = sky_uv(d)
    row = wp.clamp(int((1.0 - uv[1]) * float(rows)), 0, rows - 1)
    column = wp.clamp(int(uv[0] * float(columns)), 0, columns - 1)
    sine = wp.sqrt(wp.max(0.0, 1.0 - d[2] * d[2]))
    return share_of(tables, world, row, column) * float(rows * columns) / (TO_TEXELS * wp.max(sine, LEAST_SINE))


@wp.func
def sample_panorama(tables: SceneTables, world: int, u0: float, u1: float):
    """A unit direction for u0, u1 in [0, 1)."""
    rows = tables.sky_cdf.shape[1]
    columns = tables.sky_cdf.shape[2] - 1
    row = int(0)
    high = int(rows - 1)
    while row < high:
        middle = (row + high) // 2
        if tables.sky_cdf[world, middle, columns] > u0:
            high = middle
        else:
            row = middle + 1
    low_end = float(0.0)
    if row > 0:
        low_end = tables.sky_cdf[world, row - 1, columns]
    down = (u0 - low_end) / wp.max(tables.sky_cdf[world, row, columns] - low_end, 1.0e-20)
    column = int(0)
    high = int(columns - 1)
    while column < high:
        middle = (column + high) // 2
        if tables.sky_cdf[world, row, middle] > u1:
            high = middle
        else:
            column = middle + 1
    left_end = float(0.0)
    if column > 0:
        left_end = tables.sky_cdf[world, row, column - 1]
    across = (u1 - left_end) / wp.max(tables.sky_cdf[world, row, column] - left_end, 1.0e-20)
    theta = wp.PI * (float(row) + wp.clamp(down, 0.0, 1.0)) / float(rows)
    phi = 2.0 * wp.PI * (0.5 - (float(column) + wp.clamp(across, 0.0, 1.0)) / float(columns))
    return wp.vec3(wp.sin(theta) * wp.cos(phi), wp.sin(theta) * wp.sin(phi), wp.cos(theta))


def panorama_cdf(image: Tensor) -> Tensor:
    """(world, row, column, 3) -> (world, row, column + 1), without gradient: running shares of the texels of each row, in the
    last column those of the rows."""
    bright = image.detach().double().clamp_min(0.0).mean(dim=3)
    rows = bright.shape[1]
    for dim in (1, 2):  # the interpolant's integral over a texel
        before, after = bright.roll(1, dim), bright.roll(-1, dim)
        if dim == 1:
            before[:, 0], after[:, -1] = bright[:, 0], bright[:, -1]
        bright = 0.125 * before + 0.75 * bright + 0.125 * after
    ends = torch.cos(torch.linspace(0.0, math.pi, rows + 1, dtype=torch.float64, device=image.device))
    solid = (ends[:-1] - ends[1:])[None, :, None].expand_as(bright)
    sent = bright * solid
    total = sent.sum(dim=(1, 2), keepdim=True)
    even = solid / solid.sum(dim=(1, 2), keepdim=True)
    share = torch.where(total > 0.0, (1.0 - EVENLY) * sent / total.clamp_min(1e-300) + EVENLY * even, even)
    of_row = share.sum(dim=2, keepdim=True)
    within, down = torch.cumsum(share / of_row, dim=2), torch.cumsum(of_row, dim=1)
    within[:, :, -1], down[:, -1] = 1.0, 1.0
    return torch.cat([within, down], dim=2).float()
