"""Arrays of the step op with impacts: states and switches by node, which its adjoint reads, and work arrays of one segment."""

from typing import Any, NamedTuple

import warp as wp

from dvc.warp_op import scratch
from physics.contact_law import material_vector


class Scene(NamedTuple):
    """The inputs of the op that describe shapes."""

    shape_numbers: wp.array
    points: wp.array
    values: wp.array
    frame: wp.array
    shapes: wp.array
    features: wp.array


class Pose(NamedTuple):
    """Of the links, by slot."""

    turns: wp.array
    places: wp.array
    turning: wp.array
    moving: wp.array


class Touch(NamedTuple):
    """Of the contacts."""

    gaps: wp.array
    normals: wp.array
    arms_a: wp.array
    arms_b: wp.array
    materials: wp.array


class Cone(NamedTuple):
    """Work arrays of the cone problem, in double precision."""

    response: wp.array
    coupling: wp.array
    normals: wp.array
    scalars: wp.array
    start: wp.array
    solution: wp.array
    states: wp.array
    matrix: wp.array
    vectors: wp.array
    knowns: wp.array


class Listed(NamedTuple):
    """Contacts of one cone problem, by node."""

    contacts: wp.array
    count: wp.array
    impulses: wp.array
    states: wp.array


class Flight(NamedTuple):
    """States and switches by node, and work arrays of one segment."""

    found: wp.array
    count: wp.array
    coordinates: wp.array
    before: wp.array
    change: wp.array
    left: wp.array
    done: wp.array
    share: wp.array
    pushed: wp.array
    hit: wp.array
    time: wp.array
    reference: wp.array
    remainder: wp.array
    rest: Listed
    strike: Listed
    begins: Pose
    ends: Pose
    nears: Pose
    strikes: Pose
    changes: Pose
    start_touch: Touch
    near_touch: Touch
    strike_touch: Touch
    near: wp.array
    near_rates: wp.array
    end_rates: wp.array
    length: wp.array
    modes: wp.array
    jacobian: wp.array
    sizes: wp.array
    rows: wp.array
    loads: wp.array
    residual: wp.array
    axes: wp.array
    lines: wp.array
    chain: wp.array
    mass: wp.array
    right: wp.array
    cone: Cone


def flight_arrays(worlds: int, nodes: int, links: int, coordinates: int, rates: int, capacity: int, most: int) -> Flight:
    def array(shape: tuple[int, ...], dtype: Any = float, grad: bool = True) -> wp.array:
        return scratch((worlds, *shape), dtype, zero=False, requires_grad=grad)

    def integers(*shape: int) -> wp.array:
        return array(shape, wp.int32, False)

    def doubles(*shape: int) -> wp.array:
        return array(shape, wp.float64, False)

    def pose() -> Pose:
        slots = (links + 1,)
        return Pose(array(slots, wp.quat), array(slots, wp.vec3), array(slots, wp.vec3), array(slots, wp.vec3))

    def touching() -> Touch:
        normals, arms_a, arms_b = (array((capacity,), wp.vec3) for _ in range(3))
        return Touch(array((capacity,)), normals, arms_a, arms_b, array((capacity,), material_vector))

    def listed() -> Listed:
        return Listed(integers(nodes, most), integers(nodes), array((nodes, most), wp.vec3, False), integers(nodes, most))

    cone = Cone(
        doubles(3 * most, rates), doubles(3 * most, 3 * most), doubles(3 * most), doubles(most, 5), doubles(3 * most),
        doubles(3 * most), integers(most), doubles(3 * most, 3 * most), doubles(3, 3 * most), doubles(3 * most),
    )  # fmt: skip
    return Flight(
        array((nodes, capacity), wp.vec3i, False), integers(nodes), array((nodes + 1, coordinates)), array((nodes + 1, rates)),
        array((nodes, rates)), array((nodes + 1,)), integers(nodes + 1), array((nodes,), float, False),
        integers(nodes, links), integers(nodes), array((nodes,), float, False), array((nodes,), float, False),
        array((nodes,), float, False), listed(), listed(), pose(), pose(), pose(), pose(), pose(),
        touching(), touching(), touching(), array((1, coordinates)), array((1, rates)), array((1, rates)), array(()),
        integers(capacity), array((capacity, rates), wp.vec3, False), array((most,), wp.vec3, False), array((most,), wp.vec3),
        array((links + 1,), wp.spatial_vector), array((rates,)), array((rates,), wp.vec3, False),
        array((rates,), wp.vec3, False), integers(rates), doubles(rates, rates), array((rates,), float, False), cone,
    )  # fmt: skip
