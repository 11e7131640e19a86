"""The fused step of a tree: one kernel for all substeps of a call, one for its adjoint, and the memory that they share."""

from typing import Any, NamedTuple

import warp as wp

from dvc.warp_op import scratch
from physics.fused_adjoint import fused_adjoint_kernel
from physics.fused_forward import fused_forward_kernel
from physics.lane_tree import work_size
from physics.lanes import LANES
from physics.step_launches import Given

ALIGNMENT = 16  # floats by which the kernels may move the start of their memory


class Fused(NamedTuple):
    """What the adjoint needs of the forward pass."""

    numbers: list[Any]  # step, end of step, Runge-Kutta, substeps, frames, size of work memory
    work: wp.array
    history: wp.array  # coordinates, rates and accelerations of each node, in lanes
    blocks: int


def fused_forward(given: Given, integrator: str, dt: float, substeps: int, frames: int) -> tuple[wp.array, wp.array, Fused]:
    """Coordinates and rates at the ends of frames, and what the adjoint needs."""
    worlds, coordinate_count = given.first.shape
    rate_count, links, actuators = given.dofs.shape[0], given.tree.shape[0], given.drives.shape[0]
    stages = 4 if integrator == "rk4" else 1
    lanes = LANES if given.first.device.is_cpu else 1
    blocks = -(-worlds // lanes)
    size = work_size(links, rate_count, actuators, coordinate_count, stages)
    kept = (frames * substeps * stages + 1) * (coordinate_count + 2 * rate_count)
    work = scratch(blocks * lanes * size + ALIGNMENT, float, zero=False, requires_grad=False)
    history = scratch(blocks * lanes * kept + ALIGNMENT, float, zero=False, requires_grad=False)
    coordinates = scratch((worlds, frames, coordinate_count), float, zero=False, requires_grad=True)
    rates = scratch((worlds, frames, rate_count), float, zero=False, requires_grad=True)
    numbers = [dt, dt if integrator == "implicit" else 0.0, int(stages == 4), substeps, frames, size]
    wp.launch(fused_forward_kernel, blocks, [*given, *numbers, work], [history, coordinates, rates])
    return coordinates, rates, Fused(numbers, work, history, blocks)


def fused_adjoint(given: Given, fused: Fused, outputs: Any) -> None:
    """Adds to the gradients of everything given."""
    inputs = [given.first, *given[2:], *fused.numbers, fused.work, fused.history, *(output.grad for output in outputs)]
    gradients = [array.grad for array in given[:8]]
    wp.launch(fused_adjoint_kernel, fused.blocks, inputs, gradients)
