"""Small ops that the tests of the bridge share; one file, so that their kernels are compiled once."""

from typing import NamedTuple

import torch
import warp as wp
from torch import Tensor

from dvc.warp_op import keep, save, scratch, warp_op

GRAVITY = 9.81


@wp.kernel
def pendulum_kernel(
    angle: wp.array(dtype=float), rate: wp.array(dtype=float), length: wp.array(dtype=float), dt: float,
    next_angle: wp.array(dtype=float), next_rate: wp.array(dtype=float),
):  # fmt: skip
    world = wp.tid()
    r = rate[world] - dt * 9.81 / length[world] * wp.sin(angle[world])
    next_angle[world] = angle[world] + dt * r
    next_rate[world] = r


@wp.kernel
def noise_kernel(x: wp.array(dtype=float), time: wp.array(dtype=float), seed: wp.array(dtype=int), y: wp.array(dtype=float)):
    world = wp.tid()
    state = wp.rand_init(seed[world], world)
    y[world] = x[world] * (wp.randf(state) + time[world])


@wp.kernel
def weighted_kernel(points: wp.array2d(dtype=wp.vec3), weights: wp.array(dtype=float), flip: wp.array(dtype=bool),
                    total: wp.array(dtype=wp.vec3), count: wp.array(dtype=int)):  # fmt: skip
    world, point = wp.tid()
    sign = 1.0 - 2.0 * float(flip[point])
    p = points[world, point]
    wp.atomic_add(total, world, sign * weights[point] * wp.cw_mul(p, p))
    wp.atomic_add(count, world, 1)


@wp.kernel
def square_kernel(x: wp.array(dtype=float), y: wp.array(dtype=float)):
    world = wp.tid()
    y[world] = x[world] * x[world]


@wp.kernel
def widen_kernel(x: wp.array(dtype=float), wide: wp.array(dtype=wp.float64)):
    world = wp.tid()
    wide[world] = wp.float64(x[world]) * wp.float64(x[world])


@wp.kernel
def narrow_kernel(wide: wp.array(dtype=wp.float64), y: wp.array(dtype=float)):
    world = wp.tid()
    y[world] = float(wide[world] + wp.float64(1.0))


@wp.kernel
def accumulate_all_kernel(x: wp.array(dtype=float), y: wp.array(dtype=float)):
    world = wp.tid()
    wp.atomic_add(y, 0, x[world])


@wp.kernel
def scale_kernel(x: wp.array(dtype=float), factor: float, y: wp.array(dtype=float)):
    world = wp.tid()
    y[world] = x[world] * factor


@wp.kernel(enable_backward=False)
def sign_kernel(x: wp.array(dtype=float), y: wp.array(dtype=float)):
    world = wp.tid()
    y[world] = wp.sign(x[world])


@wp.kernel(enable_backward=False)
def square_adjoint_kernel(
    x: wp.array(dtype=float), adjoint: wp.array(dtype=float), factor: float, gradient: wp.array(dtype=float)
):
    world = wp.tid()
    gradient[world] = gradient[world] + factor * x[world] * adjoint[world]


class Moments(NamedTuple):
    total: Tensor
    count: Tensor


@warp_op
def pendulum(
    angle: wp.array(dtype=float), rate: wp.array[float], length: wp.array1d(dtype=float), *, dt: float, substeps: int = 5
):
    for _ in range(substeps):
        next_angle, next_rate = scratch(angle.shape, float), scratch(angle.shape, float)
        wp.launch(pendulum_kernel, angle.shape, [angle, rate, length, dt], [next_angle, next_rate])
        angle, rate = next_angle, next_rate
    return angle, rate


def pendulum_twin(angle: Tensor, rate: Tensor, length: Tensor, dt: float, substeps: int = 5) -> tuple[Tensor, Tensor]:
    for _ in range(substeps):
        rate = rate - dt * GRAVITY / length * torch.sin(angle)
        angle = angle + dt * rate
    return angle, rate


def moments_body(
    points: wp.array2d[wp.vec3], weights: wp.array(dtype=float), flip: wp.array(dtype=bool)
):  # one vector a world, and a count that is not differentiable
    total, count = scratch(points.shape[0], wp.vec3), scratch(points.shape[0], int)
    wp.launch(weighted_kernel, points.shape, [points, weights, flip], [total, count])
    return Moments(total, count)


moments_body.__name__ = "moments"
moments = warp_op(moments_body, shared=("weights", "flip"))
moments_split = warp_op(moments_body, shared=("weights", "flip"), threads=2)


def moments_twin(points: Tensor, weights: Tensor, flip: Tensor) -> Tensor:
    return (torch.where(flip, -weights, weights)[None, :, None] * points**2).sum(1)


@warp_op(seeds=("seed",))
def noise(x: wp.array(dtype=float), time: wp.array(dtype=float), seed: wp.array(dtype=int)):
    y = scratch(x.shape, float)
    wp.launch(noise_kernel, x.shape, [x, time, seed], [y])
    return y


@warp_op
def square(x: wp.array(dtype=float)):
    y = scratch(x.shape, float)
    wp.launch(square_kernel, x.shape, [x], [y])
    return y


@warp_op
def hand_square(x: wp.array(dtype=float), *, factor: float = 2.0):
    """Its adjoint is wrong on purpose unless factor is 2, to tell it from the tape's."""
    y, copy = scratch(x.shape, float), scratch(x.shape, float)
    wp.launch(square_kernel, x.shape, [x], [y])
    wp.copy(copy, x)
    save(x=copy)
    return y


@hand_square.adjoint
def _hand_square_adjoint(inputs, outputs, saved, *, factor):
    part = scratch(inputs.x.shape, float)
    wp.launch(square_adjoint_kernel, inputs.x.shape, [saved.x, outputs.grad, 0.5 * factor], [part])
    wp.launch(square_adjoint_kernel, inputs.x.shape, [saved.x, outputs.grad, 0.5 * factor], [inputs.x.grad])
    wp.launch(add_kernel, inputs.x.shape, [part], [inputs.x.grad])
    saved.x.zero_()  # an adjoint may: the next backward pass of the call runs the forward pass again


@wp.kernel(enable_backward=False)
def add_kernel(part: wp.array(dtype=float), gradient: wp.array(dtype=float)):
    world = wp.tid()
    gradient[world] = gradient[world] + part[world]


@warp_op
def eighth_power(x: wp.array(dtype=float)):
    return square(square(square(x)))


@warp_op
def fourth_power_by_hand(x: wp.array(dtype=float), *, factor: float):
    """The outer square is on the tape, the inner one has a hand-written adjoint."""
    return square(hand_square(x, factor=factor))


@wp.kernel
def nearest_kernel(tree: wp.uint64, x: wp.array(dtype=wp.vec3), count: wp.array(dtype=int)):
    world = wp.tid()
    query = wp.bvh_query_aabb(tree, x[world] - wp.vec3(0.5), x[world] + wp.vec3(0.5))
    found = wp.int32(0)
    hits = wp.int32(0)
    while wp.bvh_query_next(query, found):
        hits += 1
    count[world] = hits


@warp_op(enable_backward=False)
def overlaps(x: wp.array(dtype=wp.vec3)):
    """How many of the points, each a box of edge zero, lie in the unit box around each."""
    tree = keep(lambda: wp.Bvh(wp.clone(x), wp.clone(x)))
    wp.copy(tree.lowers, x)
    wp.copy(tree.uppers, x)
    tree.rebuild()
    count = scratch(x.shape, int)
    wp.launch(nearest_kernel, x.shape, [tree.id, x], [count])
    return count


@warp_op
def square_in_double(x: wp.array(dtype=float)):
    """x^2 + 1 by way of a float64 array."""
    wide, y = scratch(x.shape, wp.float64), scratch(x.shape, float)
    wp.launch(widen_kernel, x.shape[0], [x], [wide])
    wp.launch(narrow_kernel, x.shape[0], [wide], [y])
    return y


@warp_op
def double_output(x: wp.array(dtype=float)):
    """Refused: a float64 output has no gradient."""
    wide = scratch(x.shape, wp.float64)
    wp.launch(widen_kernel, x.shape[0], [x], [wide])
    return wide
