r"""Time steps of a tree of rigid bodies: one captured op for the substeps of some frames.

    symplectic  R(a) = 0 with tau at the start of the step (h = 0 in R);    v+ = v + dt a,  q+ = q (+) dt v+
    implicit    R(a) = 0 with tau at its end: springs, limits, damping, dry friction and gains cannot blow up
    rk4         the classical method of fourth order on (q, v), quaternions as four numbers, made unit length at the end

(+) is the exponential map for quaternions. `fused` (None: on the CPU) runs all substeps in one kernel and their adjoint in
another: `physics.fused_step`. Otherwise each substep is some launches, the form below, which steps with contacts share and
against which the fused one is checked.

The forward pass solves R(a) = 0 in detached kernels (`physics.mass_matrix`). The adjoint goes from the last node to the first:
adjoint of the update; multipliers -A^-T da; RNEA once more at the solution (`physics.inverse_dynamics`) and its adjoint, seeded
with them. Work arrays of a node are used by all; only states and factors are kept by node, and only until the op is called
again: memory grows with calls.

With contacts: `physics.contact_step`, on the same launches.
"""

from typing import Any

import warp as wp

from dvc.warp_op import save, scratch, warp_op
from physics.articulation import actuator_vector, dof_vector, link_vector
from physics.fused_step import fused_adjoint, fused_forward
from physics.lu_factors import transpose_solve_kernel
from physics.mass_matrix import mass_matrix_kernel, newton_kernel
from physics.state_update import frames_kernel, start_kernel
from physics.step_launches import (
    Detached,
    Given,
    Work,
    detached_arrays,
    inward_launch,
    outward_launch,
    run,
    run_adjoint,
    update_launches,
    work_arrays,
)

INTEGRATORS = ("implicit", "symplectic", "rk4")


@warp_op(shared=("tree", "dofs", "drives"), threads=None, trace_limit=24)
def articulated_step(
    first: wp.array2d(dtype=float),
    first_rates: wp.array2d(dtype=float),
    links: wp.array2d(dtype=link_vector),
    dof_numbers: wp.array2d(dtype=dof_vector),
    actuators: wp.array2d(dtype=actuator_vector),
    controls: wp.array3d(dtype=float),
    wrenches: wp.array3d(dtype=wp.spatial_vector),
    gravity: wp.array(dtype=wp.vec3),
    tree: wp.array2d(dtype=int),
    dofs: wp.array2d(dtype=int),
    drives: wp.array2d(dtype=int),
    *,
    integrator: str,
    dt: float,
    substeps: int,
    frames: int,
    fused: bool | None = None,
):
    """States at the ends of `frames` frames: coordinates (world, frame, nq), rates (world, frame, nv)."""
    given = Given(first, first_rates, links, dof_numbers, actuators, controls, wrenches, gravity, tree, dofs, drives)
    if _is_fused(fused, first):
        coordinates, rates, kept = fused_forward(given, integrator, dt, substeps, frames)
        save(kept=kept)
        return coordinates, rates
    worlds, stages = first.shape[0], 4 if integrator == "rk4" else 1
    nodes = substeps * stages
    work = work_arrays(worlds, frames * nodes + 1, tree.shape[0], first.shape[1], first_rates.shape[1])
    save(work=work)
    run(worlds, (start_kernel, [first, first_rates], [work.coordinates, work.rates]))
    detached = detached_arrays(worlds, tree.shape[0] + 1, dofs.shape[0])
    for step in range(frames * substeps):
        for k, update in enumerate(update_launches(work, tree, integrator, step * stages, dt)):
            _accelerate(given, work, detached, step * stages + k, step // substeps, dt if integrator == "implicit" else 0.0)
            run(worlds, update)
    coordinates = scratch((worlds, frames, first.shape[1]), float, zero=False, requires_grad=True)
    rates = scratch((worlds, frames, first_rates.shape[1]), float, zero=False, requires_grad=True)
    wp.launch(frames_kernel, (worlds, frames), [work.coordinates, work.rates, nodes], [coordinates, rates])
    return coordinates, rates


def _is_fused(asked: bool | None, first: wp.array) -> bool:
    return first.device.is_cpu if asked is None else asked


def _accelerate(given: Given, work: Work, detached: Detached, s: int, frame: int, h: float) -> None:
    """Accelerations and factors of A at node s."""
    worlds = given.first.shape[0]
    run(worlds, outward_launch(given, work, s, frame))
    wp.launch(
        mass_matrix_kernel, worlds,
        [given.links, given.dof_numbers, given.tree, given.dofs, work.motions, work.arms, work.loads],
        list(detached[:6]),
    )  # fmt: skip
    wp.launch(
        newton_kernel, worlds,
        [
            work.coordinates, work.rates, given.links, given.dof_numbers, given.actuators, given.controls, given.tree,
            given.drives, detached.bias, detached.matrix, s, frame, h,
        ],
        [work.residual, detached.step, detached.before, detached.slopes, work.accelerations, work.factors],
    )  # fmt: skip


@articulated_step.adjoint
def _(
    inputs: Any, outputs: Any, saved: Any, *, integrator: str, dt: float, substeps: int, frames: int, fused: bool | None
) -> None:
    given = Given(**{name: getattr(inputs, name) for name in Given._fields})
    if _is_fused(fused, given.first):
        fused_adjoint(given, saved.kept, outputs)
        return
    work: Work = saved.work
    worlds, stages = given.first.shape[0], 4 if integrator == "rk4" else 1
    ends = [work.coordinates, work.rates, substeps * stages]
    wp.launch(
        frames_kernel, (worlds, frames), ends, list(outputs),
        adj_inputs=[ends[0].grad, ends[1].grad, ends[2]], adj_outputs=[o.grad for o in outputs], adjoint=True,
    )  # fmt: skip
    for step in reversed(range(frames * substeps)):
        updates = list(enumerate(update_launches(work, given.tree, integrator, step * stages, dt)))
        for k, update in reversed(updates):
            s, frame, h = step * stages + k, step // substeps, dt if integrator == "implicit" else 0.0
            run_adjoint(worlds, update)
            wp.launch(transpose_solve_kernel, worlds, [work.factors, work.accelerations.grad, s], [work.residual.grad])
            outward, inward = outward_launch(given, work, s, frame), inward_launch(given, work, s, frame, h)
            run(worlds, outward)
            run(worlds, inward)
            run_adjoint(worlds, inward)
            run_adjoint(worlds, outward)
    run_adjoint(worlds, (start_kernel, [given.first, given.first_rates], [work.coordinates, work.rates]))
