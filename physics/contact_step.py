r"""Time steps of a tree of rigid bodies with contacts: one captured op for the substeps of some frames.

    R(a) = 0 with joint forces and contacts at the end,  v+ = v + dt a,  q+ = q (+) dt v+     (as physics.articulated_step)

Where shapes touch is taken at the start of a step and the gap is moved on by its own velocity (linearly implicit): forces are
smooth functions of v+. A body that is not in a tree is a link on a free joint. Forward: a detached search
(`physics.broad_phase`, `physics.contacts`, `physics.contact_newton`). Adjoint, from the last step to the first: multipliers
-A^-T da, then the adjoint of RNEA and of the attached contacts with them, so that gradients follow gaps, normals and arms.
"""

from typing import Any, NamedTuple

import warp as wp

from dvc.warp_op import require_capacity, save, scratch, warp_op
from physics.articulation import actuator_vector, dof_vector, link_vector
from physics.broad_phase import FEW, BroadPhase
from physics.contact_anchor import (
    anchor_kernel,
    first_anchor_kernel,
    forget_kernel,
    last_anchor_kernel,
    stretch_kernel,
)
from physics.contact_law import material_vector
from physics.contact_newton import contact_newton_kernel
from physics.contact_shapes import shape_vector
from physics.contacts import contact_jacobian_kernel, find_kernel, push_kernel, touch_kernel, twist_kernel
from physics.mass_matrix import mass_matrix_kernel
from physics.pivoted_lu import pivoted_multiplier_kernel
from physics.state_update import frames_kernel, start_kernel
from physics.step_launches import (
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


class Scene(NamedTuple):
    """The inputs of the op that describe shapes."""

    shape_numbers: wp.array
    points: wp.array
    values: wp.array
    frame: wp.array
    shapes: wp.array
    features: wp.array
    slots: wp.array
    grips: wp.array


class Touching(NamedTuple):
    """Contacts of the present node; `found`, `count`, `order` and `anchors` are kept by node."""

    found: wp.array
    count: wp.array
    order: wp.array
    ends: wp.array
    turns: wp.array
    places: wp.array
    turning: wp.array
    moving: wp.array
    gaps: wp.array
    normals: wp.array
    arms_a: wp.array
    arms_b: wp.array
    materials: wp.array
    stretches: wp.array
    anchors: wp.array


def _touching(worlds: int, nodes: int, slots: int, rates: int, capacity: int, anchors: int) -> Touching:
    def array(shape: tuple[int, ...], dtype: Any, grad: bool = True) -> wp.array:
        return scratch((worlds, *shape), dtype, zero=False, requires_grad=grad)

    contacts = (capacity,)
    return Touching(
        found=array((nodes, capacity), wp.vec3i, False),
        count=array((nodes,), wp.int32, False),
        order=array((nodes, rates), wp.int32, False),
        ends=array((1, rates), float),
        turns=array((slots,), wp.quat),
        places=array((slots,), wp.vec3),
        turning=array((slots,), wp.vec3),
        moving=array((slots,), wp.vec3),
        gaps=array(contacts, float),
        normals=array(contacts, wp.vec3),
        arms_a=array(contacts, wp.vec3),
        arms_b=array(contacts, wp.vec3),
        materials=array(contacts, material_vector),
        stretches=array(contacts, wp.vec3),
        anchors=array((nodes + 1, anchors), wp.vec3),
    )


def _twist(given: Given, work: Work, at: Touching, s: int, h: float) -> tuple:
    inputs = [work.rates, work.accelerations, given.links, given.tree, work.motions, work.arms, s, h]
    return twist_kernel, given.first.shape[0], inputs, [at.ends, at.turns, at.places, at.turning, at.moving]


def _touch(scene: Scene, at: Touching, s: int) -> tuple:
    inputs = [*scene[:5], at.found, at.count, s, at.turns, at.places]
    return touch_kernel, at.gaps.shape, inputs, [at.gaps, at.normals, at.arms_a, at.arms_b, at.materials]


def _push(scene: Scene, work: Work, at: Touching, s: int, h: float) -> tuple:
    inputs = [
        scene.shapes, at.found, at.count, s, h, at.gaps, at.normals, at.arms_a, at.arms_b, at.materials,
        at.stretches, scene.grips, at.turning, at.moving,
    ]  # fmt: skip
    return push_kernel, at.gaps.shape, inputs, [work.loads]


def _stretch(scene: Scene, at: Touching, s: int) -> tuple:
    return stretch_kernel, at.gaps.shape, [at.anchors, scene.slots, at.found, at.count, s], [at.stretches]


def _drag(scene: Scene, at: Touching, s: int, h: float) -> tuple:
    inputs = [
        scene.shapes, scene.slots, at.found, at.count, s, h, at.gaps, at.normals, at.arms_a, at.arms_b, at.materials,
        at.stretches, scene.grips, at.turning, at.moving,
    ]  # fmt: skip
    return anchor_kernel, at.gaps.shape, inputs, [at.anchors]


def _launch(launch: tuple, adjoint: bool = False) -> None:
    kernel, dim, inputs, outputs = launch
    (run_adjoint if adjoint else run)(dim, (kernel, inputs, outputs))


@warp_op(shared=("frame", "shapes", "features", "slots", "tree", "dofs", "drives"), threads=None, trace_limit=24)
def contact_step(
    first: wp.array2d(dtype=float),
    first_rates: wp.array2d(dtype=float),
    links: wp.array2d(dtype=link_vector),
    dof_numbers: wp.array2d(dtype=dof_vector),
    actuators: wp.array2d(dtype=actuator_vector),
    controls: wp.array3d(dtype=float),
    wrenches: wp.array3d(dtype=wp.spatial_vector),
    gravity: wp.array(dtype=wp.vec3),
    shape_numbers: wp.array2d(dtype=shape_vector),
    points: wp.array2d(dtype=wp.vec3),
    values: wp.array4d(dtype=float),
    frame: wp.array(dtype=wp.vec4),
    shapes: wp.array2d(dtype=int),
    features: wp.array2d(dtype=int),
    slots: wp.array2d(dtype=int),
    grips: wp.array(dtype=wp.vec2),
    first_anchors: wp.array2d(dtype=wp.vec3),
    tree: wp.array2d(dtype=int),
    dofs: wp.array2d(dtype=int),
    drives: wp.array2d(dtype=int),
    *,
    dt: float,
    substeps: int,
    frames: int,
    pair_capacity: int,
    contact_capacity: int,
):
    """States at the ends of `frames` frames: coordinates (world, frame, nq), rates (world, frame, nv); at each substep the
    number of contacts near (world, substep) and the last change of a rate in Newton's method, relative (world, substep); the
    anchors at the end (world, slot).

    Anchors: none where `first_anchors` has no slots; grips are then zero."""
    given = Given(first, first_rates, links, dof_numbers, actuators, controls, wrenches, gravity, tree, dofs, drives)
    scene = Scene(shape_numbers, points, values, frame, shapes, features, slots, grips)
    worlds, nodes, rates = first.shape[0], frames * substeps, dofs.shape[0]
    work = work_arrays(worlds, nodes + 1, tree.shape[0], first.shape[1], rates)
    sockets = first_anchors.shape[1]
    at = _touching(worlds, nodes, tree.shape[0] + 1, rates, contact_capacity, sockets)
    save(work=work, at=at)
    broad = BroadPhase(worlds, shapes.shape[0], pair_capacity, first.device, shapes.shape[0] > FEW)
    detached = detached_arrays(worlds, tree.shape[0] + 1, rates)
    jacobian = scratch((worlds, contact_capacity, rates), wp.vec3, zero=False, requires_grad=False)
    remainder = scratch((worlds, nodes), float, zero=False, requires_grad=False)
    most = scratch(worlds, wp.int32, requires_grad=False)
    require_capacity(most, pair_capacity, "pairs of shapes near each other")
    require_capacity(at.count, contact_capacity, "contacts")
    run(worlds, (start_kernel, [first, first_rates], [work.coordinates, work.rates]))
    if sockets:
        wp.launch(first_anchor_kernel, first_anchors.shape, [first_anchors], [at.anchors])
    else:
        at.stretches.zero_()
    for s in range(nodes):
        run(worlds, outward_launch(given, work, s, s // substeps))
        wp.launch(
            mass_matrix_kernel, worlds,
            [links, dof_numbers, tree, dofs, work.motions, work.arms, work.loads], list(detached[:6]),
        )  # fmt: skip
        _launch(_twist(given, work, at, s, dt))
        motion = [at.turns, at.places, at.turning, at.moving]
        broad.launch(shape_numbers, shapes, features, motion, dt)
        wp.launch(most_kernel, worlds, [broad.count], [most])
        wp.launch(
            find_kernel, worlds,
            [*scene[:6], broad.near, broad.count, *motion, s, dt],
            [at.found, at.count],
        )  # fmt: skip
        _launch(_touch(scene, at, s))
        if sockets:
            _launch(_stretch(scene, at, s))
        wp.launch(
            contact_jacobian_kernel, at.gaps.shape,
            [shapes, at.found, at.count, s, tree, dofs, detached.axes, at.places, at.arms_a, at.arms_b], [jacobian],
        )  # fmt: skip
        wp.launch(
            contact_newton_kernel, worlds,
            [
                work.coordinates, work.rates, links, dof_numbers, actuators, controls, tree, drives, detached.bias,
                detached.matrix, at.count, at.gaps, at.normals, at.materials,
                at.stretches, grips, jacobian, s, s // substeps, dt,
            ],
            [
                work.residual, detached.step, detached.before, detached.slopes, work.accelerations, work.factors, at.order,
                remainder,
            ],
        )  # fmt: skip
        for update in update_launches(work, tree, "implicit", s, dt):
            run(worlds, update)
        if sockets:
            _launch(_twist(given, work, at, s, dt))  # velocities at the end
            wp.launch(forget_kernel, first_anchors.shape, [s], [at.anchors])
            _launch(_drag(scene, at, s, dt))
    coordinates = scratch((worlds, frames, first.shape[1]), float, zero=False, requires_grad=True)
    ends = scratch((worlds, frames, rates), float, zero=False, requires_grad=True)
    wp.launch(frames_kernel, (worlds, frames), [work.coordinates, work.rates, substeps], [coordinates, ends])
    anchors = scratch(first_anchors.shape, wp.vec3, zero=False, requires_grad=True)
    if sockets:
        wp.launch(last_anchor_kernel, first_anchors.shape, [at.anchors, nodes], [anchors])
    return coordinates, ends, at.count, remainder, anchors


@wp.kernel(enable_backward=False)
def most_kernel(count: wp.array(dtype=int), most: wp.array(dtype=int)):
    w = wp.tid()
    most[w] = wp.max(most[w], count[w])


@contact_step.adjoint
def _(inputs: Any, outputs: Any, saved: Any, *, dt: float, substeps: int, frames: int) -> None:
    given = Given(**{name: getattr(inputs, name) for name in Given._fields})
    scene = Scene(**{name: getattr(inputs, name) for name in Scene._fields})
    work, at = saved.work, saved.at
    worlds, anchored = given.first.shape[0], inputs.first_anchors.shape
    last = (last_anchor_kernel, anchored, [at.anchors, frames * substeps], [outputs[4]])
    if anchored[1]:
        _launch(last, adjoint=True)
    else:
        at.stretches.zero_()
    ends = [work.coordinates, work.rates, substeps]
    _launch((frames_kernel, (worlds, frames), ends, list(outputs)[:2]), adjoint=True)
    for s in reversed(range(frames * substeps)):
        for update in update_launches(work, given.tree, "implicit", s, dt):
            _launch((update[0], worlds, *update[1:]), adjoint=True)
        outward, inward = outward_launch(given, work, s, s // substeps), inward_launch(given, work, s, s // substeps, dt)
        twist, touch, push = _twist(given, work, at, s, dt), _touch(scene, at, s), _push(scene, work, at, s, dt)
        run(worlds, outward)
        _launch(twist)
        _launch(touch)
        if anchored[1]:
            _launch(_stretch(scene, at, s))
            _launch(_drag(scene, at, s, dt), adjoint=True)
            _launch(twist, adjoint=True)  # what the anchors ask of the accelerations, before these are solved for
        wp.launch(pivoted_multiplier_kernel, worlds, [work.factors, at.order, work.accelerations.grad, s], [work.residual.grad])
        _launch(push)
        run(worlds, inward)
        _launch((inward[0], worlds, *inward[1:]), adjoint=True)
        _launch(push, adjoint=True)
        if anchored[1]:
            _launch(_stretch(scene, at, s), adjoint=True)
        _launch(touch, adjoint=True)
        _launch(twist, adjoint=True)
        _launch((outward[0], worlds, *outward[1:]), adjoint=True)
    if anchored[1]:
        _launch((first_anchor_kernel, anchored, [inputs.first_anchors], [at.anchors]), adjoint=True)
    _launch((start_kernel, worlds, [given.first, given.first_rates], [work.coordinates, work.rates]), adjoint=True)
