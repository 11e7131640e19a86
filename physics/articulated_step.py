r"""Time steps of a tree of rigid bodies: one captured op for the substeps of some frames.

    symplectic  R(a) = 0 with tau at the start of the step (h = 0 in R);    v+ = v + dt a,  q+ = q (+) dt v+
    implicit    R(a) = 0 with tau at its end: springs, limits, damping, dry friction and gains cannot blow up
    rk4         the classical method of fourth order on (q, v), quaternions as four numbers, made unit length at the end

(+) is the exponential map for quaternions. The forward pass solves R(a) = 0 in detached kernels (`physics.mass_matrix`). The
adjoint goes from the last node to the first: adjoint of the update; multipliers -A^-T da; RNEA once more at the solution
(`physics.inverse_dynamics`) and its adjoint, seeded with them. Work arrays of a node are used by all; only states and factors
are kept by node, and only until the op is called again: memory grows with calls.

Contact belongs between the launches of `_accelerate` and of the adjoint that are marked so there.
"""

from typing import Any, NamedTuple

import warp as wp

from dvc.warp_op import save, scratch, warp_op
from physics.articulation import actuator_vector, dof_vector, link_vector
from physics.inverse_dynamics import inward_kernel, motion_vector, outward_kernel
from physics.joint_forces import exponential
from physics.kinematics import FREE_JOINT, SPHERICAL_JOINT, has_quaternion, is_single, unit_quaternion
from physics.lu_factors import transpose_solve_kernel
from physics.mass_matrix import mass_matrix_kernel, newton_kernel

INTEGRATORS = ("implicit", "symplectic", "rk4")


@wp.func
def turned(x: wp.array3d(dtype=float), w: int, s: int, j: int, spin: wp.vec3, dt: float):
    """The quaternion at coordinate j, normalised, turned by spin for dt."""
    q = unit_quaternion(x[w, s, j], x[w, s, j + 1], x[w, s, j + 2], x[w, s, j + 3]) * exponential(spin * dt)
    return unit_quaternion(q[0], q[1], q[2], q[3])


@wp.func
def quaternion_rate(x: wp.array3d(dtype=float), v: wp.array3d(dtype=float), w: int, s: int, j: int, i: int):
    """q' = q (w, 0) / 2 at node s."""
    q = wp.quat(x[w, s, j], x[w, s, j + 1], x[w, s, j + 2], x[w, s, j + 3])
    return q * wp.quat(0.5 * v[w, s, i], 0.5 * v[w, s, i + 1], 0.5 * v[w, s, i + 2], 0.0)


@wp.kernel
def start_kernel(
    first: wp.array2d(dtype=float), first_rates: wp.array2d(dtype=float), x: wp.array3d(dtype=float), v: wp.array3d(dtype=float)
):
    w = wp.tid()
    for j in range(first.shape[1]):
        x[w, 0, j] = first[w, j]
    for i in range(first_rates.shape[1]):
        v[w, 0, i] = first_rates[w, i]


@wp.kernel
def update_kernel(
    a: wp.array3d(dtype=float),
    tree: wp.array2d(dtype=int),
    s: int,
    dt: float,
    x: wp.array3d(dtype=float),
    v: wp.array3d(dtype=float),
):
    """Node s to s + 1 by the accelerations at s."""
    w = wp.tid()
    for i in range(v.shape[2]):
        v[w, s + 1, i] = v[w, s, i] + dt * a[w, s, i]
    for b in range(tree.shape[0]):
        kind = tree[b, 1]
        j = tree[b, 2]
        i = tree[b, 3]
        if kind == SPHERICAL_JOINT:
            ball = turned(x, w, s, j, wp.vec3(v[w, s + 1, i], v[w, s + 1, i + 1], v[w, s + 1, i + 2]), dt)
            for k in range(4):
                x[w, s + 1, j + k] = ball[k]
        elif kind == FREE_JOINT:
            body = turned(x, w, s, j + 3, wp.vec3(v[w, s + 1, i + 3], v[w, s + 1, i + 4], v[w, s + 1, i + 5]), dt)
            for k in range(3):
                x[w, s + 1, j + k] = x[w, s, j + k] + dt * v[w, s + 1, i + k]
            for k in range(4):
                x[w, s + 1, j + 3 + k] = body[k]
        elif kind > 0:
            x[w, s + 1, j] = x[w, s, j] + dt * v[w, s + 1, i]


@wp.kernel
def stage_kernel(
    a: wp.array3d(dtype=float),
    tree: wp.array2d(dtype=int),
    first: int,
    last: int,
    dt: float,
    x: wp.array3d(dtype=float),
    v: wp.array3d(dtype=float),
):
    """A stage of Runge-Kutta: node last + 1 is `first` moved on for dt by the rates at `last`."""
    w = wp.tid()
    for i in range(v.shape[2]):
        v[w, last + 1, i] = v[w, first, i] + dt * a[w, last, i]
    for b in range(tree.shape[0]):
        kind = tree[b, 1]
        j = tree[b, 2]
        i = tree[b, 3]
        if kind == SPHERICAL_JOINT:
            ball = quaternion_rate(x, v, w, last, j, i)
            for k in range(4):
                x[w, last + 1, j + k] = x[w, first, j + k] + dt * ball[k]
        elif kind == FREE_JOINT:
            body = quaternion_rate(x, v, w, last, j + 3, i + 3)
            for k in range(3):
                x[w, last + 1, j + k] = x[w, first, j + k] + dt * v[w, last, i + k]
            for k in range(4):
                x[w, last + 1, j + 3 + k] = x[w, first, j + 3 + k] + dt * body[k]
        elif kind > 0:
            x[w, last + 1, j] = x[w, first, j] + dt * v[w, last, i]


@wp.kernel
def close_kernel(
    a: wp.array3d(dtype=float),
    tree: wp.array2d(dtype=int),
    s: int,
    dt: float,
    x: wp.array3d(dtype=float),
    v: wp.array3d(dtype=float),
):
    """Node s + 4 from the four stages s to s + 3."""
    w = wp.tid()
    h = dt / 6.0
    for i in range(v.shape[2]):
        v[w, s + 4, i] = v[w, s, i] + h * (a[w, s, i] + 2.0 * a[w, s + 1, i] + 2.0 * a[w, s + 2, i] + a[w, s + 3, i])
    for b in range(tree.shape[0]):
        kind = tree[b, 1]
        j = tree[b, 2]
        i = tree[b, 3]
        linear = int(0)
        if kind == FREE_JOINT:
            linear = 3
        elif is_single(kind):
            linear = 1
        for k in range(linear):
            x[w, s + 4, j + k] = x[w, s, j + k] + h * (
                v[w, s, i + k] + 2.0 * v[w, s + 1, i + k] + 2.0 * v[w, s + 2, i + k] + v[w, s + 3, i + k]
            )
        if has_quaternion(kind):
            k1 = quaternion_rate(x, v, w, s, j + linear, i + linear)
            k2 = quaternion_rate(x, v, w, s + 1, j + linear, i + linear)
            k3 = quaternion_rate(x, v, w, s + 2, j + linear, i + linear)
            k4 = quaternion_rate(x, v, w, s + 3, j + linear, i + linear)
            g = (k1 + k2 * 2.0 + k3 * 2.0 + k4) * h
            m = j + linear
            q = unit_quaternion(x[w, s, m] + g[0], x[w, s, m + 1] + g[1], x[w, s, m + 2] + g[2], x[w, s, m + 3] + g[3])
            for k in range(4):
                x[w, s + 4, m + k] = q[k]


@wp.kernel
def frames_kernel(
    x: wp.array3d(dtype=float),
    v: wp.array3d(dtype=float),
    nodes: int,
    coordinates: wp.array3d(dtype=float),
    rates: wp.array3d(dtype=float),
):
    """The nodes at the ends of frames, `nodes` apart."""
    w, f = wp.tid()
    for j in range(x.shape[2]):
        coordinates[w, f, j] = x[w, (f + 1) * nodes, j]
    for i in range(v.shape[2]):
        rates[w, f, i] = v[w, (f + 1) * nodes, i]


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


def _work(worlds: int, nodes: int, links: int, coordinates: int, rates: int) -> Work:
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


def _outward(given: Given, work: Work, s: int, frame: int) -> tuple:
    inputs = [
        work.coordinates, work.rates, work.accelerations, given.links, given.tree, given.gravity, given.wrenches, s, frame
    ]  # fmt: skip
    outputs = [work.motions, work.arms, work.loads]
    return outward_kernel, inputs, outputs


def _inward(given: Given, work: Work, s: int, frame: int, h: float) -> tuple:
    inputs = [
        work.coordinates, work.rates, work.accelerations, given.links, given.dof_numbers, given.actuators, given.controls,
        given.tree, given.drives, s, frame, h, work.motions, work.arms,
    ]  # fmt: skip
    return inward_kernel, inputs, [work.loads, work.residual]


def _run(worlds: int, launch: tuple) -> None:
    kernel, inputs, outputs = launch
    wp.launch(kernel, worlds, inputs, outputs)


def _adjoint(worlds: int, launch: tuple) -> None:
    kernel, inputs, outputs = launch
    gradients = [[item.grad if isinstance(item, wp.array) else item for item in items] for items in (inputs, outputs)]
    wp.launch(kernel, worlds, inputs, outputs, adj_inputs=gradients[0], adj_outputs=gradients[1], adjoint=True)


def _updates(work: Work, tree: wp.array, integrator: str, first: int, dt: float) -> list[tuple]:
    """The launches that end each node of a substep, one a node."""
    states = [work.coordinates, work.rates]
    if integrator != "rk4":
        return [(update_kernel, [work.accelerations, tree, first, dt], states)]
    stages: list[tuple] = [
        (stage_kernel, [work.accelerations, tree, first, first + k, part * dt], states)
        for k, part in enumerate((0.5, 0.5, 1.0))
    ]
    return [*stages, (close_kernel, [work.accelerations, tree, first, dt], states)]


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
):
    """States at the ends of `frames` frames: coordinates (world, frame, nq), rates (world, frame, nv)."""
    given = Given(first, first_rates, links, dof_numbers, actuators, controls, wrenches, gravity, tree, dofs, drives)
    worlds, stages = first.shape[0], 4 if integrator == "rk4" else 1
    nodes = substeps * stages
    work = _work(worlds, frames * nodes + 1, tree.shape[0], first.shape[1], first_rates.shape[1])
    save(work=work)
    _run(worlds, (start_kernel, [first, first_rates], [work.coordinates, work.rates]))
    detached = _detached(worlds, tree.shape[0] + 1, dofs.shape[0])
    for step in range(frames * substeps):
        for k, update in enumerate(_updates(work, tree, integrator, step * stages, dt)):
            _accelerate(given, work, detached, step * stages + k, step // substeps, dt if integrator == "implicit" else 0.0)
            _run(worlds, update)
    coordinates = scratch((worlds, frames, first.shape[1]), float, zero=False, requires_grad=True)
    rates = scratch((worlds, frames, first_rates.shape[1]), float, zero=False, requires_grad=True)
    wp.launch(frames_kernel, (worlds, frames), [work.coordinates, work.rates, nodes], [coordinates, rates])
    return coordinates, rates


class Detached(NamedTuple):
    """Arrays of the solution that never carry a gradient."""

    composite_mass: wp.array
    first_moment: wp.array
    second_moment: wp.array
    axes: wp.array
    bias: wp.array
    matrix: wp.array
    contact: wp.array
    contact_matrix: wp.array
    step: wp.array
    before: wp.array
    slopes: wp.array


def _detached(worlds: int, slots: int, rates: int) -> Detached:
    def array(shape: tuple[int, ...], dtype: Any = float) -> wp.array:
        return scratch((worlds, *shape), dtype, zero=False, requires_grad=False)

    return Detached(
        array((slots,)), array((slots,), wp.vec3), array((slots,), wp.mat33), array((rates,), wp.vec3), array((rates,)),
        array((rates, rates)), array((0,)), array((0, 0)), array((rates,)), array((rates,)), array((rates,)),
    )  # fmt: skip


def _accelerate(given: Given, work: Work, detached: Detached, s: int, frame: int, h: float) -> None:
    """Accelerations and factors of A at node s."""
    worlds = given.first.shape[0]
    _run(worlds, _outward(given, work, s, frame))
    wp.launch(
        mass_matrix_kernel, worlds,
        [given.links, given.dof_numbers, given.tree, given.dofs, work.motions, work.arms, work.loads],
        list(detached[:6]),
    )  # fmt: skip
    # Contact: here `contact` (world, nv) and `contact_matrix` (world, nv, nv), its linearisation at the present accelerations
    # tau_contact(a) = contact + contact_matrix a, are filled, and this launch is repeated until they stay
    wp.launch(
        newton_kernel, worlds,
        [
            work.coordinates, work.rates, given.links, given.dof_numbers, given.actuators, given.controls, given.tree,
            given.drives, detached.bias, detached.matrix, detached.contact, detached.contact_matrix, s, frame, h,
        ],
        [work.residual, detached.step, detached.before, detached.slopes, work.accelerations, work.factors],
    )  # fmt: skip


@articulated_step.adjoint
def _(inputs: Any, outputs: Any, saved: Any, *, integrator: str, dt: float, substeps: int, frames: int) -> None:
    given = Given(**{name: getattr(inputs, name) for name in Given._fields})
    work: Work = saved.work
    worlds, stages = given.first.shape[0], 4 if integrator == "rk4" else 1
    ends = [work.coordinates, work.rates, substeps * stages]
    wp.launch(
        frames_kernel, (worlds, frames), ends, list(outputs),
        adj_inputs=[ends[0].grad, ends[1].grad, ends[2]], adj_outputs=[o.grad for o in outputs], adjoint=True,
    )  # fmt: skip
    for step in reversed(range(frames * substeps)):
        updates = list(enumerate(_updates(work, given.tree, integrator, step * stages, dt)))
        for k, update in reversed(updates):
            s, frame, h = step * stages + k, step // substeps, dt if integrator == "implicit" else 0.0
            _adjoint(worlds, update)
            wp.launch(transpose_solve_kernel, worlds, [work.factors, work.accelerations.grad, s], [work.residual.grad])
            outward, inward = _outward(given, work, s, frame), _inward(given, work, s, frame, h)
            _run(worlds, outward)
            # Contact: here a kernel adds the wrenches about the links' origins, at v + h a, to work.loads
            _run(worlds, inward)
            _adjoint(worlds, inward)
            # Contact: here its adjoint
            _adjoint(worlds, outward)
    _adjoint(worlds, (start_kernel, [given.first, given.first_rates], [work.coordinates, work.rates]))
