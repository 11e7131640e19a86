"""The launches of one segment of `physics.impulse_step`: those that its adjoint runs backwards, and the cone problems."""

from typing import NamedTuple

import warp as wp

from physics.contacts import contact_jacobian_kernel, touch_kernel
from physics.impulse_arrays import Flight, Pose, Scene, Touch
from physics.impulse_mass import axes_kernel, strike_mass_kernel
from physics.impulse_motion import add_kernel, arrive_kernel, middle_kernel, near_kernel, pose_kernel, time_kernel
from physics.impulse_rest import ends_kernel, rest_problem_kernel, rest_push_kernel, rest_rows_kernel
from physics.impulse_strike import (
    gather_kernel,
    momentum_kernel,
    strike_problem_kernel,
    strike_push_kernel,
    strike_rows_kernel,
)
from physics.step_launches import Given, Work, run, run_adjoint


class Options(NamedTuple):
    """Static numbers of the op."""

    dt: float
    substeps: int
    nodes: int  # segments a frame
    rest_speed: float
    skin: float

    def fresh(self, s: int) -> int:
        """Whether a frame begins at node s + 1."""
        return int((s + 1) % self.nodes == 0)


class Segment:
    """The launches of one segment: (kernel, dim, inputs, outputs)."""

    def __init__(self, given: Given, scene: Scene, work: Work, at: Flight, o: Options, s: int):
        self.given, self.scene, self.work, self.at, self.o, self.s = given, scene, work, at, o, s
        self.frame = s // o.nodes
        self.worlds = given.first.shape[0]

    def pose(self, x: wp.array, v: wp.array, at: int, moving_at: int, out: Pose) -> tuple:
        return pose_kernel, self.worlds, [x, v, self.given.links, self.given.tree, at, moving_at], list(out)

    def touch(self, pose: Pose, out: Touch) -> tuple:
        at = self.at
        inputs = [*self.scene[:5], at.found, at.count, self.s, pose.turns, pose.places]
        return touch_kernel, out.gaps.shape, inputs, list(out)

    def begin(self) -> list[tuple]:
        """Pose and contacts at the start."""
        at = self.at
        pose = self.pose(at.coordinates, self.work.rates, self.s, self.s, at.begins)
        return [pose, self.touch(at.begins, at.start_touch)]

    def middle(self) -> tuple:
        at = self.at
        inputs = [at.coordinates, self.work.rates, at.left, at.share, self.given.tree, self.s]
        return middle_kernel, self.worlds, inputs, [self.work.coordinates]

    def rest(self) -> list[tuple]:
        """What the contacts that rest add to the residual, and their rows."""
        at, s, touch = self.at, self.s, self.at.start_touch
        listed, shapes = at.rest, self.scene.shapes
        ends = (ends_kernel, self.worlds, [self.work.rates, self.work.accelerations, at.left, s], [at.end_rates])
        pose = self.pose(at.coordinates, at.end_rates, s, 0, at.ends)
        rows = (
            rest_rows_kernel, at.rows.shape,
            [
                shapes, at.found, listed.contacts, listed.count, listed.states, listed.impulses, at.sizes, s, self.o.dt,
                self.o.rest_speed, *touch, at.ends.turning, at.ends.moving,
            ],
            [at.rows],
        )  # fmt: skip
        push = (
            rest_push_kernel, at.rows.shape,
            [shapes, at.found, listed.contacts, listed.count, listed.impulses, at.left, s, touch.arms_a, touch.arms_b],
            [self.work.loads],
        )  # fmt: skip
        return [ends, pose, rows, push]

    def near(self) -> list[tuple]:
        """Pose and contacts at the detached time of impact."""
        at, s = self.at, self.s
        inputs = [at.coordinates, self.work.rates, self.work.accelerations, at.pushed, self.given.tree, at.time, s]
        near = (near_kernel, self.worlds, inputs, [at.near, at.near_rates])
        return [near, self.pose(at.near, at.near_rates, 0, 0, at.nears), self.touch(at.nears, at.near_touch)]

    def arrive(self) -> list[tuple]:
        """The attached time of impact and the state there."""
        at, s, touch = self.at, self.s, self.at.near_touch
        time = (
            time_kernel, self.worlds,
            [
                self.scene.shapes, at.found, at.hit, at.time, at.done, at.reference, *touch[:4], at.nears.turning,
                at.nears.moving, s, self.o.dt, self.o.substeps, self.o.fresh(s),
            ],
            [at.left, at.length],
        )  # fmt: skip
        inputs = [at.coordinates, self.work.rates, self.work.accelerations, at.pushed, self.given.tree, at.length, s]
        return [time, (arrive_kernel, self.worlds, inputs, [at.coordinates, at.before])]

    def meet(self) -> list[tuple]:
        """Pose and contacts where something strikes."""
        at, s = self.at, self.s
        return [self.pose(at.coordinates, at.before, s + 1, s + 1, at.strikes), self.touch(at.strikes, at.strike_touch)]

    def strike(self) -> list[tuple]:
        """The attached residual of the impact and its rows."""
        at, s, touch, given = self.at, self.s, self.at.strike_touch, self.given
        listed, shapes = at.strike, self.scene.shapes
        pose = self.pose(at.coordinates, at.change, s + 1, s, at.changes)
        rows = (
            strike_rows_kernel, at.rows.shape,
            [
                shapes, at.found, listed.contacts, listed.count, listed.states, listed.impulses, at.sizes, s,
                self.o.rest_speed, *touch[1:], at.strikes.turning, at.strikes.moving, at.changes.turning, at.changes.moving,
            ],
            [at.rows],
        )  # fmt: skip
        momentum = (
            momentum_kernel, self.worlds,
            [listed.count, s, given.links, given.tree, at.changes.turns, at.changes.turning, at.changes.moving], [at.loads],
        )  # fmt: skip
        push = (
            strike_push_kernel, at.rows.shape,
            [shapes, at.found, listed.contacts, listed.count, listed.impulses, s, touch.arms_a, touch.arms_b], [at.loads],
        )  # fmt: skip
        gather = (
            gather_kernel, self.worlds,
            [
                listed.count, s, given.links, given.dof_numbers, given.tree, at.changes.turns, at.changes.places, at.change,
            ],
            [at.loads, at.residual],
        )  # fmt: skip
        return [pose, rows, momentum, push, gather]

    def add(self) -> tuple:
        return add_kernel, self.worlds, [self.at.before, self.at.change, self.s], [self.work.rates]

    def jacobian(self, pose: Pose, touch: Touch) -> None:
        at = self.at
        wp.launch(
            contact_jacobian_kernel, touch.gaps.shape,
            [
                self.scene.shapes, at.found, at.count, self.s, self.given.tree, self.given.dofs, at.axes, pose.places,
                touch.arms_a, touch.arms_b,
            ],
            [at.jacobian],
        )  # fmt: skip

    def rest_problem(self) -> None:
        at, cone, touch, given = self.at, self.at.cone, self.at.start_touch, self.given
        wp.launch(axes_kernel, self.worlds, [given.links, given.tree, at.begins.turns], [at.axes])
        self.jacobian(at.begins, touch)
        wp.launch(
            rest_problem_kernel, self.worlds,
            [
                at.rest.contacts, at.rest.count, self.s, self.o.dt, self.o.rest_speed, touch.gaps, touch.normals,
                touch.materials, at.jacobian, self.work.factors,
            ],
            [at.right, cone.response, cone.coupling, cone.normals, cone.scalars, at.sizes],
        )  # fmt: skip

    def strike_problem(self) -> None:
        at, cone, touch, given = self.at, self.at.cone, self.at.strike_touch, self.given
        wp.launch(
            strike_mass_kernel, self.worlds,
            [at.hit, self.s, given.links, given.dof_numbers, given.tree, given.dofs, at.strikes.turns, at.strikes.places],
            [at.axes, at.lines, at.chain, at.mass],
        )  # fmt: skip
        self.jacobian(at.strikes, touch)
        wp.launch(
            strike_problem_kernel, self.worlds,
            [
                at.before, at.strike.contacts, at.strike.count, self.s, self.o.rest_speed, touch.normals, touch.materials,
                at.jacobian, at.mass,
            ],
            [cone.response, cone.coupling, cone.normals, cone.scalars, at.sizes, cone.start],
        )  # fmt: skip


def launch(given: tuple, adjoint: bool = False) -> None:
    kernel, dim, inputs, outputs = given
    (run_adjoint if adjoint else run)(dim, (kernel, inputs, outputs))


def launch_all(launches: list[tuple]) -> None:
    for one in launches:
        launch(one)


def adjoint_all(launches: list[tuple]) -> None:
    for one in reversed(launches):
        launch(one, adjoint=True)
