r"""Shapes and materials of a scene as tensors with gradient, and `ContactRollout`: the motion of bodies that touch.

    scene = ContactScene([Shape("half_space"), Shape("box", link=0)])
    rollout = ContactRollout(tree, scene, frame_rate=100, frame_count=50, substeps=10)
    motion = rollout(state, linkage, scene.numbers(size=[None, half_extents], friction=mu))

Frame k ends at the time (k + 1) / frame_rate.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dvc.errors import Unsupported, UserError
from dvc.records import SdfGrid, State, expand_worlds, world_count
from geometry.sdf_grid import require_grid
from physics.articulation import Linkage, Topology, pack, tables, unit
from physics.contact_shapes import KINDS, pair_features
from physics.contact_step import contact_step
from physics.rollout_check import require_counts, require_loads, require_numbers, require_rate, require_shape
from physics.windows import calls, carried, check_window

SIZES = {
    "sphere": 1,
    "ellipsoid": 3,
    "box": 3,
    "rounded_box": 4,
    "capsule": 2,
    "cylinder": 2,
    "half_space": 0,
    "grid": 1,
    "points": 1,
}
CHUNK_STEPS = 64  # substeps a call of the step op
MOST_PAIRS, MOST_CONTACTS = 4096, 512
GRIP = (1.0e4, 5.0e-3)  # [N/m], [s], of anchors
MOST_AT_ONCE = 24  # features of one shape against another, but for points


class Shape(NamedTuple):
    """A shape on a link; link -1 is the world.

    size [m], as in geometry.sdf_distances: sphere (radius), capsule and cylinder (half length, radius), axis z; box (half
    extents), rounded_box (half extents with the rounding, rounding), ellipsoid (semi-axes), half_space (), solid below z = 0;
    grid and points (radius of a ball about the shape's origin that holds it). `point_count` is that of a "points" shape. Two
    shapes may touch where a bit of one's category is set in the other's mask, one way round or both.
    """

    kind: str
    link: int = -1
    size: tuple[float, ...] = ()
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    rotation: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)
    point_count: int = 0
    category: int = 1
    mask: int = 1


class ContactScene:
    """Which shapes there are and which may touch; and the packing of their numbers.

    Shapes of one link do not touch each other, nor do those of links that are joined to each other (`joined=True` lets them).
    Raises: UserError for unknown kinds, links or sizes; Unsupported for a pair of shapes whose kinds have no contact
    (`contact_shapes.pair_features`), where masks let them touch, and for several grids.
    """

    def __init__(self, tree: Topology, shapes: Sequence[Shape], joined: bool = False):
        self.tree, self.shapes = tree, tuple(shapes)
        if not self.shapes:
            raise UserError("ContactScene: expected at least one shape, got none")
        table, first = [], 0
        for n, shape in enumerate(self.shapes):
            where = f"ContactScene: shape {n}"
            if shape.kind not in KINDS:
                raise UserError(f"{where}: expected one of {', '.join(KINDS)}, got {shape.kind!r}")
            if not -1 <= shape.link < len(tree.links):
                raise UserError(f"{where}: expected a link from -1 to {len(tree.links) - 1}, got {shape.link}")
            if len(shape.size) != SIZES[shape.kind]:
                raise UserError(f"{where}: a {shape.kind} has {SIZES[shape.kind]} sizes, got {len(shape.size)}")
            if any(not s > 0.0 for s in shape.size):
                raise UserError(f"{where}: expected sizes above 0, got {shape.size}")
            if (shape.kind == "points") != (shape.point_count > 0):
                raise UserError(
                    f"{where}: expected a count of points for kind 'points' and for no other, got {shape.point_count}"
                )
            table.append((shape.link + 1, KINDS[shape.kind], first))
            first += shape.point_count
        if sum(shape.kind == "grid" for shape in self.shapes) > 1:
            raise Unsupported("ContactScene: one SDF grid a scene; remedy: points of a mesh, or primitives, for the others")
        self.point_count = first
        features = torch.zeros(len(table), len(table), dtype=torch.int32)
        for a, one in enumerate(self.shapes):
            for b, other in enumerate(self.shapes[:a]):
                if self._may_touch(one, other, joined):
                    ab, ba = pair_features(one.kind, other.kind, (one.point_count, other.point_count))
                    features[a, b], features[b, a] = ab, ba
        self.table, self.features = torch.tensor(table, dtype=torch.int32), features
        ends = features.flatten().cumsum(0, dtype=torch.int32)
        self.slots = ends.reshape_as(features) - features  # of the anchors of each pair

    def _may_touch(self, a: Shape, b: Shape, joined: bool) -> bool:
        if a.link == b.link or not (a.category & b.mask or b.category & a.mask):
            return False
        below = [s.link for s in (a, b) if s.link >= 0 and self._body(s.link) < 0]
        if below and len(below) == sum(s.link >= 0 for s in (a, b)):
            return False  # both are part of the world
        if joined:
            return True
        parents = self.tree.parents
        return not any(x >= 0 and y >= 0 and parents[x] == y for x, y in ((a.link, b.link), (b.link, a.link)))

    def _body(self, link: int) -> int:
        """The nearest link at or above `link` whose joint moves; -1: none."""
        while link >= 0 and self.tree.kinds[link] == 0:
            link = self.tree.parents[link]
        return link

    def numbers(
        self,
        *,
        stiffness: Tensor | float = 1.0e5,
        exponent: Tensor | float = 1.5,
        dissipation: Tensor | float = 0.5,
        friction: Tensor | float = 0.5,
        width: Tensor | float = 1.0e-3,
        size: Sequence[Tensor | None] | None = None,
        position: Tensor | None = None,
        rotation: Tensor | None = None,
    ) -> Tensor:
        """(world, shape, 16), laid out as `contact_shapes.shape_vector`.

        Materials: a number, (world,) or (world, shape): stiffness [N/m^exponent], exponent (at least 1.5), dissipation [s/m],
        friction, width [m/s] of the velocity over which friction is smoothed. size: a tensor (world, sizes) or None for each
        shape; position (world, shape, 3), rotation (world, shape, 4) in the links' frames; None: as in the shapes.
        Raises: UserError for shapes, sizes that are not above 0, and materials below their least values.
        """
        count = len(self.shapes)
        given = [
            t for t in (stiffness, exponent, dissipation, friction, width, position, rotation, *(size or ())) if t is not None
        ]
        device = next((t.device for t in given if isinstance(t, Tensor)), torch.device("cpu"))

        def own(values: list) -> Tensor:
            return torch.tensor([values], dtype=torch.float32, device=device)

        if size is not None and len(size) != count:
            raise UserError(f"ContactScene.numbers.size: expected {count} entries, one a shape, got {len(size)}")
        sizes = []
        for n, shape in enumerate(self.shapes):
            one = size[n] if size is not None else None
            if one is None:
                one = own(list(shape.size) + [0.0] * (4 - len(shape.size)))
            else:
                require_shape(f"ContactScene.numbers.size[{n}]", one, (SIZES[shape.kind],))
                if not bool((one.detach() > 0.0).all()):
                    got = one.detach().amin(0).tolist()
                    raise UserError(f"ContactScene.numbers.size[{n}]: expected sizes above 0 of the {shape.kind}, got {got}")
            sizes.append(nn.functional.pad(one, (0, 4 - one.shape[1])))
        for name, part, inner in (("position", position, 3), ("rotation", rotation, 4)):
            if part is not None:
                require_shape(f"ContactScene.numbers.{name}", part, (count, inner))
        worlds = world_count(*sizes)
        parts = [torch.stack([expand_worlds(s, worlds) for s in sizes], dim=1)]
        parts.append(own([s.position for s in self.shapes]) if position is None else position)
        parts.append(unit(own([s.rotation for s in self.shapes]) if rotation is None else rotation))
        names = ("stiffness", "exponent", "dissipation", "friction", "width")
        for name, value in zip(names, (stiffness, exponent, dissipation, friction, width), strict=True):
            t = torch.as_tensor(value, dtype=torch.float32, device=device)
            if t.dim() < 2:
                t = t.reshape(-1, 1).expand(-1, count)
            least = {"exponent": 1.5, "width": 1e-9}.get(name, 0.0)
            if t.dim() != 2 or t.shape[1] != count:
                raise UserError(
                    f"ContactScene.numbers.{name}: expected a number, (world,) or (world, {count}), got {tuple(t.shape)}"
                )
            if not bool((t.detach() >= least).all()):
                raise UserError(f"ContactScene.numbers.{name}: expected at least {least:g}, got {float(t.detach().amin()):.4g}")
            parts.append(t[..., None])
        worlds = world_count(*parts)
        return torch.cat([expand_worlds(part, worlds) for part in parts], dim=-1)


class ContactTrajectory(NamedTuple):
    """Motion at the beginning and at the end of each frame: node 0 is the initial state."""

    coordinates: Tensor  # (world, frame + 1, nq), see physics.articulation
    rates: Tensor  # (world, frame + 1, nv)
    contacts: Tensor  # near pairs of feature and shape, (world, substep), int32
    remainder: Tensor  # last change of a rate in Newton's method, relative, (world, substep), without gradient
    interval: float  # between nodes [s]
    anchors: Tensor | None = None  # [m], displacements from the anchors at the end, (world, slot, 3); see ContactRollout


class ContactRollout(nn.Module):
    """Steps a tree of bodies with contacts through frames.

    Arguments: tree; scene; frame_rate [1/s], frame_count, substeps a frame; pair_capacity and contact_capacity: room for pairs
    of shapes and for contacts near each other in one world (None: for all that there can be, at most 4096 and 512);
    chunk: frames a call of the step op; window: frames after which the gradient through the state is cut (None: never).

    forward(state, linkage, numbers, gravity, controls, wrenches, points, grid, grip, stretch) -> ContactTrajectory. `numbers`
    of ContactScene.numbers; points [m] (world, point, 3) in the frames of their shapes, one after the other; grid: SdfGrid;
    with anchors: grip (world, 2), the tangential stiffness [N/m] of a contact and its damping time [s] (None: GRIP), and
    stretch (world, slot, 3), the displacements to start with, `anchors` of an earlier motion (None: zero).

    Gradient: of all inputs, the grid's values and origin included, not its spacing; it leaves out the switches: which face or
    edge a point is nearest to; with `window` also what reaches a frame through its window's first state (`physics.windows`).
    Errors: UserError for shapes, and where there is not enough room for contacts.
    """

    def __init__(
        self, tree: Topology, scene: ContactScene, *, frame_rate: float, frame_count: int, substeps: int = 1,
        pair_capacity: int | None = None, contact_capacity: int | None = None, chunk: int | None = None,
        window: int | None = None, anchors: bool = False,
    ):  # fmt: skip
        super().__init__()
        require_rate("ContactRollout", frame_rate)
        require_counts(
            "ContactRollout", frame_count=frame_count, substeps=substeps, chunk=chunk, pair_capacity=pair_capacity,
            contact_capacity=contact_capacity,
        )  # fmt: skip
        check_window("ContactRollout.window", window)
        self.tree, self.scene, self.window = tree, scene, window
        self.frame_rate, self.frame_count, self.substeps = float(frame_rate), int(frame_count), int(substeps)
        pairs = int(((scene.features + scene.features.T) > 0).triu().sum())
        self.pair_capacity = pair_capacity or max(1, min(pairs, MOST_PAIRS))
        at_once = scene.features.clamp_max(MOST_AT_ONCE)  # of the crossings of two boxes few can be near
        points = torch.tensor([shape.point_count for shape in scene.shapes], dtype=torch.int32)
        most = int(torch.maximum(at_once, points[:, None] * (scene.features > 0)).sum())
        self.contact_capacity = contact_capacity or max(1, min(most, MOST_CONTACTS))
        self.chunk = int(chunk) if chunk else max(1, min(CHUNK_STEPS // self.substeps, self.frame_count))
        self.tables, self.anchors = tables(tree), bool(anchors)

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
        grip: Tensor | None = None,
        stretch: Tensor | None = None,
    ) -> ContactTrajectory:
        tree, scene, q, v = self.tree, self.scene, state.position, state.velocity
        require_shape("ContactRollout.state.position", q, (tree.coordinate_count,))
        require_shape("ContactRollout.state.velocity", v, (tree.rate_count,))
        gravity = q.new_tensor([[0.0, 0.0, -9.81]]) if gravity is None else gravity
        controls = q.new_zeros(1, 1, len(tree.actuators)) if controls is None else controls
        wrenches = q.new_zeros(1, 1, len(tree.links), 6) if wrenches is None else wrenches
        needs_grid = any(shape.kind == "grid" for shape in scene.shapes)
        if needs_grid != (grid is not None) or (scene.point_count > 0) != (points is not None):
            raise UserError("ContactRollout: expected points and a grid where the scene has such shapes, and only there")
        if grid is not None:
            require_grid("ContactRollout.grid", grid)
        points = q.new_zeros(1, 0, 3) if points is None else points
        values = q.new_zeros(1, 2, 2, 2) if grid is None else grid.values
        frame = q.new_tensor([[0.0, 0.0, 0.0, 1.0]])
        if grid is not None:
            frame = torch.cat([grid.origin, grid.origin.new_tensor([grid.spacing])])[None]
        if not self.anchors and not (grip is None and stretch is None):
            raise UserError("ContactRollout: expected grip and stretch with anchors=True only")
        slots = int(scene.features.sum()) if self.anchors else 0
        stretch = q.new_zeros(1, slots, 3) if stretch is None else stretch
        grip = q.new_tensor([GRIP if self.anchors else (0.0, 0.0)]) if grip is None else grip
        require_shape("ContactRollout.grip", grip, (2,))
        if self.anchors and not bool((grip.detach()[..., 0] > 0.0).all() and (grip.detach()[..., 1:] >= 0.0).all()):
            raise UserError(f"ContactRollout.grip: expected a stiffness above 0 and a time of at least 0, got {grip.tolist()}")
        for name, tensor, inner in (
            ("gravity", gravity, (3,)), ("numbers", numbers, (len(scene.shapes), 16)),
            ("points", points, (scene.point_count, 3)), ("stretch", stretch, (slots, 3)),
        ):  # fmt: skip
            require_shape(f"ContactRollout.{name}", tensor, inner)
            require_numbers(f"ContactRollout.{name}", tensor)
        require_loads("ContactRollout", tree, self.frame_count, controls, wrenches)
        packed = pack(tree, linkage)
        worlds = world_count(q, v, gravity, controls, wrenches, numbers, points, values, grip, stretch, *packed)
        q, v, stretch = (expand_worlds(t, worlds) for t in (q, v, stretch))
        shared = [t.to(q.device) for t in (scene.table, scene.features, scene.slots)]
        tree_tables = [t.to(q.device) for t in self.tables]
        coordinates, rates = [q[:, None]], [v[:, None]]
        contacts: list[Tensor] = []
        remainders: list[Tensor] = []
        for done, frames in calls(self.frame_count, self.chunk, self.window):
            q, v, stretch = carried(done, self.window, q, v, stretch)
            now = [t if t.shape[1] == 1 else t[:, done : done + frames] for t in (controls, wrenches)]
            next_q, next_v, near, left, stretch = contact_step(
                q, v, *packed, *now, gravity, numbers, points, values, frame, *shared, grip, stretch, *tree_tables,
                dt=1.0 / (self.frame_rate * self.substeps), substeps=self.substeps, frames=frames,
                pair_capacity=self.pair_capacity, contact_capacity=self.contact_capacity,
            )  # fmt: skip
            for parts, part in ((coordinates, next_q), (rates, next_v), (contacts, near), (remainders, left)):
                parts.append(part)
            q, v = next_q[:, -1], next_v[:, -1]
        c, r, n, e = (torch.cat(parts, dim=1) for parts in (coordinates, rates, contacts, remainders))
        return ContactTrajectory(c, r, n, e, 1.0 / self.frame_rate, stretch if self.anchors else None)
