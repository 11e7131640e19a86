"""Distance and normal of a list of shapes at points, with gradients to every size, pose, scale, blend radius and point.

For a primitive with rotation R, position c and scale s:  d(x) = s f(R^T (x - c) / s),  grad d = R grad f;  then the blends, one
launch each, from node to node: every node has its own row of values, since the adjoint needs all of them.
Parameters are copied to one row per block of points first: their gradients are summed per block and then over blocks, which
keeps float32 sums of millions of terms accurate and keeps threads of a GPU from adding to one address.
"""

import torch
import warp as wp
from torch import Tensor

from dvc.errors import UserError
from dvc.warp_op import scratch, warp_op
from geometry.sdf_blend import OPERATIONS, blended
from geometry.sdf_distances import primitive_distance
from geometry.sdf_shapes import KINDS, ShapeList, common, shape_tensors

BLOCK = wp.constant(256)  # points that share a row of parameters
CHUNK = 1 << 22  # node values at once; more points are done in turns
TILES = 8  # parts of a lone world on the CPU, which threads take in turn
LEAST_TILED = 4096  # points
LEAST_SQUARE = wp.constant(1.0e-20)  # of a quaternion; a shorter one counts as no rotation
LEAST_NORMAL = 1e-12  # square of a gradient below which the normal is not made unit length


@wp.kernel
def prepare_kernel(
    sizes: wp.array2d(dtype=wp.vec4),
    positions: wp.array2d(dtype=wp.vec3),
    rotations: wp.array2d(dtype=wp.vec4),
    scales: wp.array2d(dtype=float),
    block_sizes: wp.array3d(dtype=wp.vec4),
    block_positions: wp.array3d(dtype=wp.vec3),
    block_rotations: wp.array3d(dtype=wp.mat33),
    block_scales: wp.array3d(dtype=float),
):
    world, block, leaf = wp.tid()
    block_sizes[world, block, leaf] = sizes[world, leaf]
    block_positions[world, block, leaf] = positions[world, leaf]
    block_scales[world, block, leaf] = scales[world, leaf]
    q = rotations[world, leaf]
    square = wp.dot(q, q)
    if square >= LEAST_SQUARE:
        t = 2.0 / square
        x = q[0]
        y = q[1]
        z = q[2]
        w = q[3]
        block_rotations[world, block, leaf] = wp.mat33(
            1.0 - t * (y * y + z * z), t * (x * y - z * w), t * (x * z + y * w),
            t * (x * y + z * w), 1.0 - t * (x * x + z * z), t * (y * z - x * w),
            t * (x * z - y * w), t * (y * z + x * w), 1.0 - t * (x * x + y * y),
        )  # fmt: skip
    else:
        block_rotations[world, block, leaf] = wp.mat33(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


@wp.kernel
def prepare_radii_kernel(radii: wp.array2d(dtype=float), block_radii: wp.array3d(dtype=float)):
    world, block, blend = wp.tid()
    block_radii[world, block, blend] = radii[world, blend]


@wp.kernel
def primitive_kernel(
    kinds: wp.array(dtype=int),
    sizes: wp.array3d(dtype=wp.vec4),
    positions: wp.array3d(dtype=wp.vec3),
    rotations: wp.array3d(dtype=wp.mat33),
    scales: wp.array3d(dtype=float),
    points: wp.array2d(dtype=wp.vec3),
    nodes: wp.array3d(dtype=wp.vec4),
):
    world, leaf, point = wp.tid()
    block = point / BLOCK
    r = rotations[world, block, leaf]
    s = scales[world, block, leaf]
    local = wp.transpose(r) * (points[world, point] - positions[world, block, leaf]) / s
    d = primitive_distance(kinds[leaf], sizes[world, block, leaf], local)
    n = r * wp.vec3(d[1], d[2], d[3])
    nodes[world, leaf, point] = wp.vec4(s * d[0], n[0], n[1], n[2])


@wp.kernel
def blend_kernel(
    blends: wp.array2d(dtype=int),
    radii: wp.array3d(dtype=float),
    blend: int,
    leaf_count: int,
    nodes: wp.array3d(dtype=wp.vec4),
):
    world, point = wp.tid()
    a = nodes[world, blends[blend, 1], point]
    b = nodes[world, blends[blend, 2], point]
    k = radii[world, point / BLOCK, blend]
    nodes[world, leaf_count + blend, point] = blended(blends[blend, 0], a, b, k)


@wp.kernel
def root_kernel(
    root: int,
    nodes: wp.array3d(dtype=wp.vec4),
    distances: wp.array2d(dtype=float),
    gradients: wp.array2d(dtype=wp.vec3),
):
    world, point = wp.tid()
    d = nodes[world, root, point]
    distances[world, point] = d[0]
    gradients[world, point] = wp.vec3(d[1], d[2], d[3])


@warp_op(shared=("kinds", "blends"), threads=None, trace_limit=24)
def shape_values(
    sizes: wp.array2d(dtype=wp.vec4),
    positions: wp.array2d(dtype=wp.vec3),
    rotations: wp.array2d(dtype=wp.vec4),
    scales: wp.array2d(dtype=float),
    radii: wp.array2d(dtype=float),
    points: wp.array2d(dtype=wp.vec3),
    kinds: wp.array(dtype=int),
    blends: wp.array2d(dtype=int),
    *,
    blend_count: int,
):
    """The tensors of a ShapeList and points (world, point, 3) -> distances (world, point), gradients (world, point, 3).

    radii and blends have at least one row, of which `blend_count` count.
    """
    worlds, leaves = sizes.shape
    count = points.shape[1]
    blocks = (count + 255) // 256
    rows = (worlds, blocks, leaves)
    prepared = scratch(rows, wp.vec4), scratch(rows, wp.vec3), scratch(rows, wp.mat33), scratch(rows, float)
    wp.launch(prepare_kernel, rows, inputs=[sizes, positions, rotations, scales], outputs=list(prepared))
    nodes = scratch((worlds, leaves + blend_count, count), wp.vec4)
    wp.launch(primitive_kernel, (worlds, leaves, count), inputs=[kinds, *prepared, points], outputs=[nodes])
    if blend_count:
        block_radii = scratch((worlds, blocks, blend_count), float)
        wp.launch(prepare_radii_kernel, block_radii.shape, inputs=[radii], outputs=[block_radii])
        for blend in range(blend_count):
            wp.launch(blend_kernel, (worlds, count), inputs=[blends, block_radii, blend, leaves], outputs=[nodes])
    distances, gradients = scratch((worlds, count), float), scratch((worlds, count), wp.vec3)
    wp.launch(root_kernel, (worlds, count), inputs=[leaves + blend_count - 1, nodes], outputs=[distances, gradients])
    return distances, gradients


def sdf_value_and_gradient(shape: ShapeList, points: Tensor) -> tuple[Tensor, Tensor]:
    """Distances [m] (world, point), negative inside, and their gradients in the points (world, point, 3).

    points: [m], (world, point, 3); one world of shapes or of points serves all worlds of the other. The length of the gradient
    is at most 1, so that |distance| never exceeds the true distance to the solid's surface; it is 1, and the distance exact,
    for single primitives and outside of sharp unions of them (see sdf_distances and sdf_blend for what falls short).
    Gradient: complete for both outputs, to sizes, poses, scales, radii and points. Where shapes swap, and on kinks (axes,
    centres, inner diagonals), it is one-sided or zero; the jump itself has no gradient.
    Raises: UserError for points of another shape.
    """
    if points.dim() != 3 or points.shape[2] != 3:
        raise UserError(f"points: expected shape (world, point, 3), got {tuple(points.shape)}")
    if len(shape.blends) != len(shape.kinds) - 1:
        raise UserError(
            f"shape: expected {len(shape.kinds) - 1} blends for {len(shape.kinds)} primitives, got {len(shape.blends)}"
        )
    tensors = [t.to(points.device) for t in common(shape_tensors(shape))]
    worlds, count = max(tensors[0].shape[0], points.shape[0]), points.shape[1]
    if count == 0:
        return points.new_zeros(worlds, 0), points.new_zeros(worlds, 0, 3)
    if not shape.blends:
        tensors[4] = tensors[3].detach().new_zeros(tensors[3].shape[0], 1)
    program = [(OPERATIONS.index(name), left, right) for name, left, right in shape.blends] or [(0, 0, 0)]
    kinds = torch.tensor([list(KINDS).index(kind) for kind in shape.kinds], dtype=torch.int32, device=points.device)
    blends = torch.tensor(program, dtype=torch.int32, device=points.device)

    def values(part: Tensor) -> tuple[Tensor, Tensor]:
        inputs = [t.contiguous() for t in (*tensors, part)]
        return shape_values(*inputs, kinds, blends, blend_count=len(shape.blends))

    def tiled(part: Tensor) -> tuple[Tensor, Tensor]:
        """A lone world's points as several worlds, which threads share."""
        n = part.shape[1]
        if worlds > 1 or n < LEAST_TILED or part.device.type != "cpu":
            return values(part)
        filled = -(-n // TILES) * TILES
        if filled > n:
            part = torch.cat([part, part[:, -1:].expand(-1, filled - n, -1)], dim=1)
        d, g = values(part.reshape(TILES, -1, 3))
        return d.reshape(1, -1)[:, :n], g.reshape(1, -1, 3)[:, :n]

    chunk = max(LEAST_TILED, CHUNK // (worlds * (len(shape.kinds) + len(shape.blends))))
    if count <= chunk:
        return tiled(points)
    parts = [tiled(part) for part in points.split(chunk, dim=1)]
    return torch.cat([d for d, _ in parts], dim=1), torch.cat([g for _, g in parts], dim=1)


def sdf_distance(shape: ShapeList, points: Tensor) -> Tensor:
    """Signed distances [m] of points (world, point, 3) to a solid, (world, point); see `sdf_value_and_gradient`."""
    return sdf_value_and_gradient(shape, points)[0]


def sdf_value_and_normal(shape: ShapeList, points: Tensor) -> tuple[Tensor, Tensor]:
    """Signed distances [m] (world, point) and outward unit normals (world, point, 3) at points (world, point, 3).

    Both have gradients, so that a normal turns with the shape that it belongs to. On an axis or at a centre the normal may be
    zero; see `sdf_value_and_gradient`.
    """
    d, g = sdf_value_and_gradient(shape, points)
    return d, g * (g * g).sum(-1, keepdim=True).clamp_min(LEAST_NORMAL).rsqrt()
