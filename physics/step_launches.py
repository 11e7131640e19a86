"""Work arrays of a step op, and the launches that steps with and without contact share."""

from typing import Any, NamedTuple

import warp as wp

from dvc.warp_op import scratch
from physics.inverse_dynamics import inward_kernel, motion_vector, outward_kernel
from physics.state_update import close_kernel, stage_kernel, update_kernel


class Work(NamedTuple):
    """Arrays of one step op. States and factors are kept by node, the rest is written anew at each node."""

    coordinates: wp.array  # (world, node, nq)
    rates: wp.array  # (world, node, nv)
    accelerations: wp.array
    factors: wp.array  # of A, (world, node, nv, nv)
    motions: wp.array  # by slot: 0 the world, b + 1 link b
    arms: wp.array
    loads: wp.array
    residual: wp.array


def work_arrays(worlds: int, nodes: int, links: int, coordinates: int, rates: int) -> Work:
    def array(shape: tuple[int, ...], dtype: Any, grad: bool = True) -> wp.array:
        return scratch((worlds, *shape), dtype, zero=False, requires_grad=grad)

    return Work(
        coordinates=array((nodes, coordinates), float),
        rates=array((nodes, rates), float),
        accelerations=scratch((worlds, nodes, rates), float, requires_grad=True),  # Newton's method starts at zero
        factors=array((nodes, rates, rates), float, False),
        motions=array((links + 1,), motion_vector),
        arms=array((links + 1,), wp.vec3),
        loads=array((links + 1,), wp.spatial_vector),
        residual=array((rates,), float),
    )


class Given(NamedTuple):
    """The inputs of the op."""

    first: wp.array
    first_rates: wp.array
    links: wp.array
    dof_numbers: wp.array
    actuators: wp.array
    controls: wp.array
    wrenches: wp.array
    gravity: wp.array
    tree: wp.array
    dofs: wp.array
    drives: wp.array


def outward_launch(given: Given, work: Work, s: int, frame: int) -> tuple:
    inputs = [
        work.coordinates, work.rates, work.accelerations, given.links, given.tree, given.gravity, given.wrenches, s, frame
    ]  # fmt: skip
    outputs = [work.motions, work.arms, work.loads]
    return outward_kernel, inputs, outputs


def inward_launch(given: Given, work: Work, s: int, frame: int, h: float) -> tuple:
    inputs = [
        work.coordinates, work.rates, work.accelerations, given.links, given.dof_numbers, given.actuators, given.controls,
        given.tree, given.drives, s, frame, h, work.motions, work.arms,
    ]  # fmt: skip
    return inward_kernel, inputs, [work.loads, work.residual]


def run(dim: Any, launch: tuple) -> None:
    """Launch (kernel, inputs, outputs)."""
    kernel, inputs, outputs = launch
    wp.launch(kernel, dim, inputs, outputs)


def run_adjoint(dim: Any, launch: tuple) -> None:
    """The adjoint of the same launch, on the gradients of its arrays."""
    kernel, inputs, outputs = launch
    gradients = [[item.grad if isinstance(item, wp.array) else item for item in items] for items in (inputs, outputs)]
    wp.launch(kernel, dim, inputs, outputs, adj_inputs=gradients[0], adj_outputs=gradients[1], adjoint=True)


def update_launches(work: Work, tree: wp.array, integrator: str, first: int, dt: float) -> list[tuple]:
    """The launches that end each node of a substep, one a node."""
    states = [work.coordinates, work.rates]
    if integrator != "rk4":
        return [(update_kernel, [work.accelerations, tree, first, dt], states)]
    stages: list[tuple] = [
        (stage_kernel, [work.accelerations, tree, first, first + k, part * dt], states)
        for k, part in enumerate((0.5, 0.5, 1.0))
    ]
    return [*stages, (close_kernel, [work.accelerations, tree, first, dt], states)]


class Detached(NamedTuple):
    """Arrays of the solution that never carry a gradient."""

    composite_mass: wp.array
    first_moment: wp.array
    second_moment: wp.array
    axes: wp.array
    bias: wp.array
    matrix: wp.array
    step: wp.array
    before: wp.array
    slopes: wp.array


def detached_arrays(worlds: int, slots: int, rates: int) -> Detached:
    def array(shape: tuple[int, ...], dtype: Any = float) -> wp.array:
        return scratch((worlds, *shape), dtype, zero=False, requires_grad=False)

    return Detached(
        array((slots,)), array((slots,), wp.vec3), array((slots,), wp.mat33), array((rates,), wp.vec3), array((rates,)),
        array((rates, rates)), array((rates,)), array((rates,)), array((rates,)),
    )  # fmt: skip
