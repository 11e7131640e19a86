"""Where gradients go: added to arrays (reverse mode), or multiplied with a direction and summed (forward mode).

A `Sink` holds arrays laid out as the scene's numbers. In reverse mode they collect gradients. In forward mode they hold a
direction in which all numbers move; what would have been added is multiplied with it instead, and `collect` gives the sum: the
derivative of one sample along the direction, of which an image of derivatives is made. Pilots (`render.edge_guide`) keep its
size only.
"""

from typing import Any

import warp as wp

from render.pixel_filter import density_of, end_pixel, filter_reach, first_pixel
from render.scene_data import SceneNumbers, SceneTables
from render.textures import add_texture_gradient, lookup, uv_gradient

REVERSE, FORWARD, PILOT = wp.constant(0), wp.constant(1), wp.constant(2)


@wp.struct
class Sink:
    numbers: SceneNumbers
    forward: int  # REVERSE, FORWARD, or PILOT: as FORWARD, but for the size alone, which goes to `scores`
    totals: wp.array(dtype=float)  # (slot,), of forward mode
    scores: wp.array2d(dtype=float)  # (view, sample), of pilots
    slot: int


@wp.func
def deposit(sink: Sink, target: wp.array(dtype=float), i: int, value: float):
    if sink.forward != 0:
        wp.atomic_add(sink.totals, sink.slot, target[i] * value)
    else:
        wp.atomic_add(target, i, value)


@wp.func
def deposit(sink: Sink, target: wp.array(dtype=Any), i: int, value: Any):  # noqa: F811
    if sink.forward != 0:
        wp.atomic_add(sink.totals, sink.slot, wp.dot(target[i], value))
    else:
        wp.atomic_add(target, i, value)


@wp.func
def deposit(sink: Sink, target: wp.array2d(dtype=Any), i: int, j: int, value: Any):  # noqa: F811
    if sink.forward != 0:
        wp.atomic_add(sink.totals, sink.slot, wp.dot(target[i, j], value))
    else:
        wp.atomic_add(target, i, j, value)


@wp.func
def deposit(sink: Sink, target: wp.array3d(dtype=Any), i: int, j: int, k: int, value: Any):  # noqa: F811
    if sink.forward != 0:
        wp.atomic_add(sink.totals, sink.slot, wp.dot(target[i, j, k], value))
    else:
        wp.atomic_add(target, i, j, k, value)


@wp.func
def deposit(sink: Sink, target: wp.array4d(dtype=float), i: int, j: int, k: int, m: int, value: float):  # noqa: F811
    if sink.forward != 0:
        wp.atomic_add(sink.totals, sink.slot, target[i, j, k, m] * value)
    else:
        wp.atomic_add(target, i, j, k, m, value)


@wp.func
def deposit_texture(
    scene: SceneNumbers, tables: SceneTables, sink: Sink, world: int, texture: int, uv: wp.vec2, g: wp.vec3
):  # fmt: skip
    """The gradient g of a texture's value at uv; returns that of uv."""
    at_uv = wp.vec2(0.0, 0.0)
    if sink.forward != 0:
        at_uv = uv_gradient(tables.textures, scene.texels, world, texture, uv, g)
        moved = lookup(tables.textures, sink.numbers.texels, world, texture, uv)
        wp.atomic_add(sink.totals, sink.slot, wp.dot(moved, g))
    else:
        at_uv = add_texture_gradient(tables.textures, scene.texels, sink.numbers.texels, world, texture, uv, g)
    return at_uv


@wp.func
def collect(sink: Sink):
    """What forward mode has summed since the last call."""
    value = sink.totals[sink.slot]
    sink.totals[sink.slot] = 0.0
    return value


@wp.func
def splat(images: wp.array3d(dtype=wp.vec3), view: int, film: wp.vec2, kind: int, size: float, value: wp.vec3):
    """Adds the value at a film point [film px] to all pixels that feel it: the transpose of pixel_filter.adjoint_at."""
    reach = filter_reach(kind, size)
    for row in range(first_pixel(film[1], reach), end_pixel(film[1], reach, images.shape[1])):
        by_row = density_of(kind, size, film[1] - (float(row) + 0.5))
        for column in range(first_pixel(film[0], reach), end_pixel(film[0], reach, images.shape[2])):
            share = by_row * density_of(kind, size, film[0] - (float(column) + 0.5))
            if share > 0.0:
                wp.atomic_add(images, view, row, column, value * share)


@wp.func
def splat_plate(
    images: wp.array3d(dtype=wp.vec3), plate: wp.array3d(dtype=wp.vec3), view: int, film: wp.vec2, kind: int, size: float,
    value: float,
):  # fmt: skip
    """Adds `value` times each pixel's own plate to the pixels that feel a film point: see pixel_filter.plate_adjoint_at."""
    reach = filter_reach(kind, size)
    for row in range(first_pixel(film[1], reach), end_pixel(film[1], reach, images.shape[1])):
        by_row = density_of(kind, size, film[1] - (float(row) + 0.5))
        for column in range(first_pixel(film[0], reach), end_pixel(film[0], reach, images.shape[2])):
            share = by_row * density_of(kind, size, film[0] - (float(column) + 0.5))
            if share > 0.0:
                wp.atomic_add(images, view, row, column, plate[view, row, column] * (value * share))


@wp.func
def near_film(images: wp.array3d(dtype=wp.vec3), film: wp.vec2, kind: int, size: float):
    """Whether any pixel feels a film point."""
    reach = filter_reach(kind, size)
    return (
        film[0] > -reach and film[1] > -reach
        and film[0] < float(images.shape[2]) + reach and film[1] < float(images.shape[1]) + reach
    )  # fmt: skip
