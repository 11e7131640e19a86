"""Points in the order in which a Hilbert curve meets them: neighbours in the order are neighbours in space, without jumps.

The cell of a point on a grid of 2^21 cells an axis becomes its place on the curve: Skilling 2004 (Programming the Hilbert
Curve), AxesToTranspose, with masks in place of branches. Bits of the three axes are then interleaved.
"""

import numpy as np
import torch
import warp as wp
from torch import Tensor

from dvc.warp_op import scratch, warp_op

CELLS = float(2**21 - 1)
CHUNK = 512  # points of one unit of work


@wp.func
def spread(cell: wp.uint64):
    """The low 21 bits with two zeros between neighbours."""
    x = cell & wp.uint64(0x1FFFFF)
    x = (x | (x << wp.uint64(32))) & wp.uint64(0x1F00000000FFFF)
    x = (x | (x << wp.uint64(16))) & wp.uint64(0x1F0000FF0000FF)
    x = (x | (x << wp.uint64(8))) & wp.uint64(0x100F00F00F00F00F)
    x = (x | (x << wp.uint64(4))) & wp.uint64(0x10C30C30C30C30C3)
    x = (x | (x << wp.uint64(2))) & wp.uint64(0x1249249249249249)
    return x


@wp.func
def hilbert_code(x0: int, y0: int, z0: int):
    """Place of a cell on the Hilbert curve of 21 bits an axis."""
    x = wp.int32(x0)
    y = wp.int32(y0)
    z = wp.int32(z0)
    for i in range(20):
        bit = 20 - i
        p = (1 << bit) - 1
        x = x ^ (p & -((x >> bit) & 1))
        m = -((y >> bit) & 1)
        t = (x ^ y) & p & ~m
        x = x ^ ((p & m) | t)
        y = y ^ t
        m = -((z >> bit) & 1)
        t = (x ^ z) & p & ~m
        x = x ^ ((p & m) | t)
        z = z ^ t
    y = y ^ x  # Gray code
    z = z ^ y
    t = z ^ (z >> 1)
    t = t ^ (t >> 2)
    t = t ^ (t >> 4)
    t = t ^ (t >> 8)
    t = (t ^ (t >> 16)) >> 1
    high = spread(wp.uint64(x ^ t)) << wp.uint64(2)
    return high | (spread(wp.uint64(y ^ t)) << wp.uint64(1)) | spread(wp.uint64(z ^ t))


@wp.kernel(enable_backward=False)
def code_kernel(
    points: wp.array2d(dtype=wp.vec3),
    low: wp.array(dtype=wp.vec3),
    scale: wp.array(dtype=float),
    code: wp.array2d(dtype=wp.int64),
):
    world, i = wp.tid()
    cell = (points[world, i] - low[world]) * scale[world]
    x = int(wp.clamp(cell[0], 0.0, CELLS))
    y = int(wp.clamp(cell[1], 0.0, CELLS))
    z = int(wp.clamp(cell[2], 0.0, CELLS))
    code[world, i] = wp.int64(hilbert_code(x, y, z))


@warp_op(threads=None, enable_backward=False, verify=False)
def curve_codes(points: wp.array2d(dtype=wp.vec3), low: wp.array(dtype=wp.vec3), scale: wp.array(dtype=float)):
    """points (chunk, point, 3), low (chunk, 3), cells a metre (chunk,) -> codes (chunk, point) int64."""
    code = scratch(points.shape, wp.int64, zero=False)
    wp.launch(code_kernel, points.shape, [points, low, scale], [code])
    return code


def curve_order(points: Tensor, low: Tensor, side: Tensor) -> Tensor:
    """Numbers of the points along the curve, int32 (world, point). A query without gradient.

    Args: points [m] (world, point, 3), the least corner of the cube that holds them (world, 3), its side (world,), >= 0.
    """
    worlds, count = points.shape[:2]
    chunks = -(-count // CHUNK)
    padded = torch.nn.functional.pad(points, (0, 0, 0, chunks * CHUNK - count)).reshape(worlds * chunks, CHUNK, 3)
    scale = (CELLS / side.clamp_min(1e-30)).repeat_interleave(chunks)
    code = curve_codes(padded, low.repeat_interleave(chunks, dim=0), scale).reshape(worlds, -1)[:, :count]
    if code.device.type == "cpu":  # several times as fast as torch.sort there
        return torch.from_numpy(np.argsort(code.numpy(), axis=1).astype(np.int32))
    return torch.sort(code, dim=1).indices.to(torch.int32)
