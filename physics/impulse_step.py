r"""Time steps of a tree of rigid bodies with impacts at their time of impact: one captured op for some frames.

A frame has `substeps` substeps and room for `most_impacts` impacts; it is cut into segments, one more for each impact. Worlds
keep their own time: a world without impacts stands still in the segments that it does not need. In a segment

    contacts that touch without approach rest or slide      physics.impulse_rest
    the others fly to the end of the substep or to the      physics.impulse_motion
    first time of impact, whatever comes first
    what touches then strikes                               physics.impulse_strike

Forward everything is found without gradient. Adjoint, from the last segment to the first: multipliers of the impulses and
accelerations at their solutions, then the adjoints of residuals, rows of the contacts, times of impact and poses with them.
"""

from typing import Any

import warp as wp

from dvc.warp_op import require_capacity, save, scratch, warp_op
from physics.articulation import actuator_vector, dof_vector, link_vector
from physics.broad_phase import FEW, BroadPhase
from physics.contact_shapes import shape_vector
from physics.contacts import find_kernel
from physics.impulse_arrays import Scene, flight_arrays
from physics.impulse_motion import reference_kernel
from physics.impulse_rest import rest_multiplier_kernel, rest_solve_kernel
from physics.impulse_search import begin_kernel, impact_count_kernel, search_kernel, sort_kernel
from physics.impulse_segment import Options, Segment, adjoint_all, launch, launch_all
from physics.impulse_strike import strike_list_kernel, strike_multiplier_kernel, strike_solve_kernel
from physics.mass_matrix import mass_matrix_kernel, newton_kernel
from physics.state_update import frames_kernel, start_kernel
from physics.step_launches import (
    Detached,
    Given,
    detached_arrays,
    inward_launch,
    outward_launch,
    run,
    work_arrays,
)


@warp_op(shared=("frame", "shapes", "features", "tree", "dofs", "drives"), threads=None, trace_limit=24)
def impulse_step(
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
    tree: wp.array2d(dtype=int),
    dofs: wp.array2d(dtype=int),
    drives: wp.array2d(dtype=int),
    *,
    dt: float,
    substeps: int,
    frames: int,
    rest_speed: float,
    skin: float,
    most_impacts: int,
    most_touching: int,
    pair_capacity: int,
    contact_capacity: int,
):
    """States at the ends of `frames` frames: coordinates (world, frame, nq), rates (world, frame, nv); the number of impacts
    (world, frame) and the residual of the impulses, relative (world, segment)."""
    given = Given(first, first_rates, links, dof_numbers, actuators, controls, wrenches, gravity, tree, dofs, drives)
    scene = Scene(shape_numbers, points, values, frame, shapes, features)
    o = Options(dt, substeps, substeps + most_impacts, rest_speed, skin)
    worlds, nodes, count, rates = first.shape[0], frames * o.nodes, tree.shape[0], dofs.shape[0]
    work = work_arrays(worlds, nodes + 1, count, first.shape[1], rates)
    at = flight_arrays(worlds, nodes, count, first.shape[1], rates, contact_capacity, most_touching)
    save(work=work, at=at)
    broad = BroadPhase(worlds, shapes.shape[0], pair_capacity, first.device, shapes.shape[0] > FEW)
    detached = detached_arrays(worlds, count + 1, rates)
    most = scratch(worlds, wp.int32, requires_grad=False)
    impacts = scratch((worlds, frames), wp.int32, requires_grad=False)
    require_capacity(most, pair_capacity, "pairs of shapes near each other")
    require_capacity(at.count, contact_capacity, "contacts")
    require_capacity(at.rest.count, most_touching, "contacts that rest (most_touching)")
    require_capacity(at.strike.count, most_touching, "contacts that strike together (most_touching)")
    require_capacity(impacts, most_impacts, "impacts in a frame (most_impacts)")
    run(worlds, (start_kernel, [first, first_rates], [at.coordinates, work.rates]))
    wp.launch(begin_kernel, worlds, [first, dt], [at.left, at.done])
    for s in range(nodes):
        segment = Segment(given, scene, work, at, o, s)
        _find(segment, broad, most)
        _push(segment, detached)
        wp.launch(
            search_kernel, worlds,
            [
                at.coordinates, work.rates, work.accelerations, at.pushed, links, tree, *scene[:5], at.found, at.count,
                at.modes, at.left, s, substeps, o.fresh(s),
            ],
            [at.done, at.near, at.near_rates, *at.nears, at.hit, at.time],
        )  # fmt: skip
        launch_all(segment.near())
        wp.launch(reference_kernel, worlds, [at.hit, s, at.near_touch.gaps], [at.reference])
        launch_all(segment.arrive())
        launch_all(segment.meet())
        _strike(segment)
        launch(segment.add())
        if o.fresh(s):
            wp.launch(impact_count_kernel, worlds, [at.hit, at.done, s + 1 - o.nodes, s + 1, s // o.nodes, substeps], [impacts])
    coordinates = scratch((worlds, frames, first.shape[1]), float, zero=False, requires_grad=True)
    ends = scratch((worlds, frames, rates), float, zero=False, requires_grad=True)
    wp.launch(frames_kernel, (worlds, frames), [at.coordinates, work.rates, o.nodes], [coordinates, ends])
    return coordinates, ends, impacts, at.remainder


@wp.kernel(enable_backward=False)
def most_kernel(count: wp.array(dtype=int), most: wp.array(dtype=int)):
    w = wp.tid()
    most[w] = wp.max(most[w], count[w])


def _find(segment: Segment, broad: BroadPhase, most: wp.array) -> None:
    """Contacts near, and which of them fly, rest or strike."""
    at, scene, o, s = segment.at, segment.scene, segment.o, segment.s
    pose, touch = segment.begin()
    launch(pose)
    broad.launch(scene.shape_numbers, scene.shapes, scene.features, list(at.begins), o.dt)
    wp.launch(most_kernel, segment.worlds, [broad.count], [most])
    wp.launch(
        find_kernel, segment.worlds, [*scene, broad.near, broad.count, *at.begins, s, o.dt], [at.found, at.count]
    )  # fmt: skip
    launch(touch)
    wp.launch(
        sort_kernel, segment.worlds,
        [
            scene.shapes, at.found, at.count, s, o.dt, o.substeps, o.rest_speed, o.skin, *at.start_touch,
            at.begins.turning, at.begins.moving, at.left, at.done,
        ],
        [at.modes, at.rest.contacts, at.rest.count, at.share],
    )  # fmt: skip


def _push(segment: Segment, detached: Detached) -> None:
    """Accelerations, with the contacts that rest."""
    given, work, at, s, cone = segment.given, segment.work, segment.at, segment.s, segment.at.cone
    launch(segment.middle())
    run(segment.worlds, outward_launch(given, work, s, segment.frame))
    wp.launch(
        mass_matrix_kernel, segment.worlds,
        [given.links, given.dof_numbers, given.tree, given.dofs, work.motions, work.arms, work.loads], list(detached[:6]),
    )  # fmt: skip
    wp.launch(
        newton_kernel, segment.worlds,
        [
            work.coordinates, work.rates, given.links, given.dof_numbers, given.actuators, given.controls, given.tree,
            given.drives, detached.bias, detached.matrix, s, segment.frame,
            0.5 * segment.o.dt,
        ],
        [work.residual, detached.step, detached.before, detached.slopes, work.accelerations, work.factors],
    )  # fmt: skip
    segment.rest_problem()
    wp.launch(
        rest_solve_kernel, segment.worlds,
        [
            work.rates, at.left, at.rest.contacts, at.rest.count, s, given.tree, given.dofs, at.jacobian, cone.response,
            cone.coupling, cone.normals, cone.scalars,
        ],
        [
            cone.start, cone.solution, cone.states, cone.matrix, cone.vectors, work.accelerations, at.rest.impulses,
            at.rest.states, at.pushed, at.remainder,
        ],
    )  # fmt: skip


def _strike(segment: Segment) -> None:
    """The change of rates where something strikes."""
    at, s, o, cone = segment.at, segment.s, segment.o, segment.at.cone
    wp.launch(
        strike_list_kernel, segment.worlds, [at.hit, at.count, s, o.skin, at.strike_touch.gaps, at.strike_touch.materials],
        [at.strike.contacts, at.strike.count],
    )  # fmt: skip
    segment.strike_problem()
    wp.launch(
        strike_solve_kernel, segment.worlds,
        [at.strike.count, s, cone.response, cone.coupling, cone.normals, cone.scalars, cone.start],
        [
            cone.solution, cone.states, cone.matrix, cone.vectors, at.change, at.strike.impulses, at.strike.states,
            at.remainder,
        ],
    )  # fmt: skip


@impulse_step.adjoint
def _(
    inputs: Any, outputs: Any, saved: Any, *, dt: float, substeps: int, frames: int, rest_speed: float, skin: float,
    most_impacts: int,
) -> None:  # fmt: skip
    given = Given(**{name: getattr(inputs, name) for name in Given._fields})
    scene = Scene(**{name: getattr(inputs, name) for name in Scene._fields})
    o = Options(dt, substeps, substeps + most_impacts, rest_speed, skin)
    work, at = saved.work, saved.at
    worlds, cone = given.first.shape[0], saved.at.cone
    launch((frames_kernel, (worlds, frames), [at.coordinates, work.rates, o.nodes], list(outputs)[:2]), adjoint=True)
    for s in reversed(range(frames * o.nodes)):
        segment = Segment(given, scene, work, at, o, s)
        launch(segment.add(), adjoint=True)
        launch_all(segment.meet())
        segment.strike_problem()
        wp.launch(
            strike_multiplier_kernel, worlds,
            [
                at.before, at.change, at.strike.contacts, at.strike.count, s, at.jacobian, at.mass, cone.coupling,
                cone.normals, cone.scalars,
            ],
            [
                cone.start, cone.solution, cone.states, cone.matrix, cone.vectors, at.strike.impulses, at.strike.states,
                at.change.grad, cone.response, cone.knowns, at.residual.grad, at.rows.grad,
            ],
        )  # fmt: skip
        strike = segment.strike()
        launch_all(strike)
        adjoint_all(strike)
        adjoint_all(segment.meet())
        near, arrive = segment.near(), segment.arrive()
        launch_all([*near, arrive[0]])
        adjoint_all(arrive)
        adjoint_all(near)
        launch_all(segment.begin())
        run(worlds, outward_launch(given, work, s, segment.frame))
        segment.rest_problem()
        wp.launch(
            rest_multiplier_kernel, worlds,
            [
                work.rates, at.left, at.rest.contacts, at.rest.count, s, work.factors, at.jacobian, cone.coupling,
                cone.normals, cone.scalars,
            ],
            [
                cone.start, cone.solution, cone.states, cone.matrix, cone.vectors, work.accelerations, at.rest.impulses,
                at.rest.states, work.accelerations.grad, at.right, cone.knowns, work.residual.grad, at.rows.grad,
            ],
        )  # fmt: skip
        outward = outward_launch(given, work, s, segment.frame)
        inward = inward_launch(given, work, s, segment.frame, 0.5 * dt)
        rest = segment.rest()
        launch_all(rest)
        run(worlds, inward)
        launch((inward[0], worlds, *inward[1:]), adjoint=True)
        adjoint_all(rest)
        launch((outward[0], worlds, *outward[1:]), adjoint=True)
        adjoint_all([*segment.begin(), segment.middle()])
    launch((start_kernel, worlds, [given.first, given.first_rates], [at.coordinates, work.rates]), adjoint=True)
