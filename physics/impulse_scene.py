r"""`ImpulseRollout`: the motion of bodies that strike each other with restitution, at their times of impact.

    scene = ContactScene(tree, [Shape("half_space"), Shape("sphere", 0, (0.1,))])
    rollout = ImpulseRollout(tree, scene, frame_rate=100, frame_count=50, substeps=10)
    motion = rollout(state, linkage, impulse_numbers(scene, restitution=0.8, friction=mu))

The second mode of contact beside `physics.contact_scene`: no stiffness, exact restitution, bodies that stick do not creep.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dvc.errors import Unsupported, UserError
from dvc.records import SdfGrid, State, expand_worlds, world_count
from physics.articulation import Linkage, Topology, pack, tables
from physics.contact_scene import ContactScene
from physics.impulse_step import impulse_step
from physics.rollout_check import require_counts, require_loads, require_numbers, require_rate, require_shape

CHUNK_SEGMENTS = 16  # segments a call of the step op
MOST_PAIRS, MOST_CONTACTS, MOST_TOUCHING = 4096, 512, 24
GRAVITY = 9.81  # [m/s^2], by which the default rest speed is measured


def impulse_numbers(
    scene: ContactScene,
    *,
    restitution: Tensor | float = 0.5,
    friction: Tensor | float = 0.5,
    size: Sequence[Tensor | None] | None = None,
    position: Tensor | None = None,
    rotation: Tensor | None = None,
) -> Tensor:
    """(world, shape, 16) for ImpulseRollout. Restitution and friction: a number, (world,) or (world, shape); those of a pair
    are the means of its shapes'. The rest as in ContactScene.numbers; restitution takes the place of dissipation there and
    a stiffness of 1 shows the share of a contact.

    Raises: UserError for a restitution outside [0, 1] and as ContactScene.numbers.
    """
    most = float(restitution.detach().amax()) if isinstance(restitution, Tensor) else float(restitution)
    least = float(restitution.detach().amin()) if isinstance(restitution, Tensor) else float(restitution)
    if not 0.0 <= least <= most <= 1.0:
        raise UserError(f"impulse_numbers.restitution: expected 0 to 1, got {least:.4g} to {most:.4g}")
    return scene.numbers(
        stiffness=1.0, dissipation=restitution, friction=friction, size=size, position=position, rotation=rotation
    )


class ImpulseTrajectory(NamedTuple):
    """Motion at the beginning and at the end of each frame: node 0 is the initial state."""

    coordinates: Tensor  # (world, frame + 1, nq), see physics.articulation
    rates: Tensor  # (world, frame + 1, nv)
    impacts: Tensor  # (world, frame), int32; contacts that strike together count once
    remainder: Tensor  # of the impulses' equations, relative to the speeds there, (world, segment), without gradient
    interval: float  # between nodes [s]


class ImpulseRollout(nn.Module):
    """Steps a tree of bodies with impacts through frames.

    Arguments:
        tree; scene; frame_rate [1/s], frame_count, substeps a frame.
        most_impacts: room for impacts in one frame of one world, each of which costs a segment in all frames.
        most_touching: room for contacts that rest, or strike together, in one world.
        rest_speed [m/s]: slower contacts rest (no restitution, no time of impact); up to twice that restitution sets in. None:
            2 g / (frame_rate substeps), the speed at which a hop lasts four substeps, so that bounces that get smaller end.
        skin [m]: contacts closer than this where something strikes are struck with it.
        pair_capacity, contact_capacity: as in ContactRollout; chunk: frames a call of the step op.
    Forward: (state, linkage, numbers, gravity, controls, wrenches, points, grid) -> ImpulseTrajectory, as ContactRollout;
        `numbers` of `impulse_numbers`.

    Flights under constant forces are exact, others of second order; of first order with forces that depend on velocities and
    while something rests on the joints in question.

    Gradient: of the initial state, masses and inertias, sizes and places of shapes, restitution, friction, gravity, all numbers
    of the linkage, controls, wrenches and points; exact derivatives of the discrete motion, times of impact included. It leaves
    out what has no derivative: changes of which contacts strike and in which order, grazing, switches between rest and flight
    and between sticking and sliding, which face or edge a point is nearest to. It also leaves out gaps within the skin of
    contacts that are struck along with the first one, how a feature's share (`contact_edges`, `contact_rims`) varies (here a
    feature counts where its share is at least one half, and may appear inside another body: then it is pushed out no faster
    than rest_speed), and the changes of the contacts' small compliances (1e-7 of an impact's; where something rests 1e-2 along
    and 1e-4 across the normal).
    `remainder` is where to look whether the impulses were found: above 1e-6 their gradient is that of an approximation.
    Raises: UserError for shapes, and where there is not enough room; Unsupported for a gradient to a grid's values.
    """

    def __init__(
        self, tree: Topology, scene: ContactScene, *, frame_rate: float, frame_count: int, substeps: int = 10,
        most_impacts: int = 6, most_touching: int | None = None, rest_speed: float | None = None, skin: float = 1.0e-6,
        pair_capacity: int | None = None, contact_capacity: int | None = None, chunk: int | None = None,
    ):  # fmt: skip
        super().__init__()
        require_rate("ImpulseRollout", frame_rate)
        require_counts(
            "ImpulseRollout", frame_count=frame_count, substeps=substeps, most_impacts=most_impacts,
            most_touching=most_touching, pair_capacity=pair_capacity, contact_capacity=contact_capacity, chunk=chunk,
        )  # fmt: skip
        rest_speed = 2.0 * GRAVITY / (frame_rate * substeps) if rest_speed is None else rest_speed
        for name, value in (("rest_speed", rest_speed), ("skin", skin)):
            if not value > 0:
                raise UserError(f"ImpulseRollout.{name}: expected a positive number, got {value!r}")
        self.tree, self.scene = tree, scene
        self.frame_rate, self.frame_count, self.substeps = float(frame_rate), int(frame_count), int(substeps)
        self.rest_speed, self.skin, self.most_impacts = float(rest_speed), float(skin), int(most_impacts)
        pairs = int(((scene.features + scene.features.T) > 0).triu().sum())
        self.pair_capacity = pair_capacity or max(1, min(pairs, MOST_PAIRS))
        self.contact_capacity = contact_capacity or max(1, min(int(scene.features.sum()), MOST_CONTACTS))
        self.most_touching = most_touching or min(self.contact_capacity, MOST_TOUCHING)
        self.chunk = (
            int(chunk) if chunk else max(1, min(CHUNK_SEGMENTS // (self.substeps + self.most_impacts), self.frame_count))
        )
        self.tables = tables(tree)

    def forward(
        self,
        state: State,
        linkage: Linkage,
        numbers: Tensor,
        gravity: Tensor | None = None,
        controls: Tensor | None = None,
        wrenches: Tensor | None = None,
        points: Tensor | None = None,
        grid: SdfGrid | None = None,
    ) -> ImpulseTrajectory:
        tree, scene, q, v = self.tree, self.scene, state.position, state.velocity
        require_shape("ImpulseRollout.state.position", q, (tree.coordinate_count,))
        require_shape("ImpulseRollout.state.velocity", v, (tree.rate_count,))
        gravity = q.new_tensor([[0.0, 0.0, -GRAVITY]]) if gravity is None else gravity
        controls = q.new_zeros(1, 1, len(tree.actuators)) if controls is None else controls
        wrenches = q.new_zeros(1, 1, len(tree.links), 6) if wrenches is None else wrenches
        needs_grid = any(shape.kind == "grid" for shape in scene.shapes)
        if needs_grid != (grid is not None) or (scene.point_count > 0) != (points is not None):
            raise UserError("ImpulseRollout: expected points and a grid where the scene has such shapes, and only there")
        if grid is not None and grid.values.requires_grad:
            raise Unsupported(
                "ImpulseRollout.grid: no gradient to an SDF grid's values; remedy: detach them, or points of a mesh"
            )
        points = q.new_zeros(1, 0, 3) if points is None else points
        values = q.new_zeros(1, 2, 2, 2) if grid is None else grid.values
        frame = q.new_tensor([[0.0, 0.0, 0.0, 1.0]])
        if grid is not None:
            frame = torch.cat([grid.origin, grid.origin.new_tensor([grid.spacing])])[None]
        for name, tensor, inner in (
            ("gravity", gravity, (3,)), ("numbers", numbers, (len(scene.shapes), 16)),
            ("points", points, (scene.point_count, 3)),
        ):  # fmt: skip
            require_shape(f"ImpulseRollout.{name}", tensor, inner)
            require_numbers(f"ImpulseRollout.{name}", tensor)
        require_loads("ImpulseRollout", tree, self.frame_count, controls, wrenches)
        packed = pack(tree, linkage)
        worlds = world_count(q, v, gravity, controls, wrenches, numbers, points, values, *packed)
        q, v = expand_worlds(q, worlds), expand_worlds(v, worlds)
        shared = [t.to(q.device) for t in (scene.table, scene.features, *self.tables)]
        parts: list[list[Tensor]] = [[q[:, None]], [v[:, None]], [], []]
        done = 0
        while done < self.frame_count:
            frames = min(self.chunk, self.frame_count - done)
            now = [t if t.shape[1] == 1 else t[:, done : done + frames] for t in (controls, wrenches)]
            outputs = impulse_step(
                q, v, *packed, *now, gravity, numbers, points, values, frame, *shared,
                dt=1.0 / (self.frame_rate * self.substeps), substeps=self.substeps, frames=frames, rest_speed=self.rest_speed,
                skin=self.skin, most_impacts=self.most_impacts, most_touching=self.most_touching,
                pair_capacity=self.pair_capacity, contact_capacity=self.contact_capacity,
            )  # fmt: skip
            for part, output in zip(parts, outputs, strict=True):
                part.append(output)
            q, v = outputs[0][:, -1], outputs[1][:, -1]
            done += frames
        x, rates, impacts, remainder = (torch.cat(part, dim=1) for part in parts)
        return ImpulseTrajectory(x, rates, impacts, remainder, 1.0 / self.frame_rate)
