"""Edges that cross edges and shafts: gaps against a search over separating axes, rest, gradients, smooth ends."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from physics.contact_scene import ContactScene, Shape
from tests.physics.contact_scenes import GROUND, ONE, box_linkage, free_state, rest_depth, rollout
from tests.physics.test_contact_scene import PAIR, TWO
from tests.physics.test_contact_step import gradient_rows
from tests.physics.trees import plain_linkage, rotation

TURNED = (math.sin(math.pi / 8), 0.0, 0.0, math.cos(math.pi / 8))  # by 45 degrees about x: an edge along x is on top
LYING = (0.0, 0.5**0.5, 0.0, 0.5**0.5)  # z goes along x
STIFFNESS = 1e5


def forces(scene: ContactScene, position: Tensor, stiffness: float = 1e3) -> Tensor:
    """Force on the first of two free bodies of 1 kg, at rest, without friction, (world, 3)."""
    dt = 1e-5
    state = free_state(position[:, :3], torch.zeros(position.shape[0], 12))._replace(position=position)
    numbers = scene.numbers(stiffness=stiffness, friction=0.0, dissipation=0.0)
    return rollout(scene, dt, dt, 1)(state, PAIR, numbers, torch.zeros(1, 3)).rates[:, -1, :3] / dt


def separation(size: np.ndarray, place: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[float, int, np.ndarray]:
    """The greatest gap of two boxes of one size over the 15 separating axes, which axis, and it, from b to a."""
    axes = [*a.T, *b.T, *[np.cross(x, y) for x in a.T for y in b.T]]
    gaps = []
    for i, x in enumerate(axes):
        n = x / max(np.linalg.norm(x), 1e-9)
        n *= np.sign(n @ -place)
        axes[i] = n
        reach = np.abs(a.T @ n) @ size + np.abs(b.T @ n) @ size
        gaps.append(n @ -place - reach if np.linalg.norm(x) > 0.3 else -1e9)
    best = int(np.argmax(gaps))
    return gaps[best], best, axes[best]


def test_crossing_edges_have_the_gap_of_the_separating_axis():
    """Two boxes in random poses, moved until they overlap by a millimetre, with an edge against an edge."""
    size, depth = np.array([0.1, 0.08, 0.06]), 1e-3
    rng = np.random.default_rng(0)
    places, normals = [], []
    while len(places) < 20:
        q = rng.normal(size=(2, 4))
        q /= np.linalg.norm(q, axis=1, keepdims=True)
        a, b = rotation(q[0]), rotation(q[1])
        way = rng.normal(size=3)
        place = 0.3 * way / np.linalg.norm(way)
        for _ in range(30):  # along the axis of the greatest gap until that is -depth
            gap, axis, n = separation(size, place, a, b)
            place = place + n * (gap + depth)
            if abs(gap + depth) < 1e-7:
                break
        if axis < 6 or abs(gap + depth) > 1e-6:
            continue
        ca = -(a @ (np.sign(a.T @ n) * size))  # the corner of a farthest along -n, in an edge along axis i of a
        cb = place + b @ (np.sign(b.T @ n) * size)
        i, j = divmod(axis - 6, 3)
        s, t, _ = np.linalg.solve(np.stack([a[:, i], -b[:, j], n], axis=1), cb - ca)
        inside = size[i] - abs(s - np.sign(a[:, i] @ n) * size[i]), size[j] - abs(t + np.sign(b[:, j] @ n) * size[j])
        leaning = [np.sort(abs(turn.T @ n))[1] for turn in (a, b)]  # of the faces beside the edge, the one farther from n
        if min(inside) < 0.02 or min(leaning) < 0.1:
            continue  # corners, or the next edge, are felt too
        places.append(np.concatenate([np.zeros(3), q[0], place, q[1]]))
        normals.append(n)
    scene = ContactScene(TWO, [Shape("box", 0, tuple(size)), Shape("box", 1, tuple(size))])
    force = forces(scene, torch.tensor(np.array(places), dtype=torch.float32))
    want = 1e3 * depth**1.5 * torch.tensor(np.array(normals), dtype=torch.float32)
    assert torch.allclose(force, want, atol=2e-2 * 1e3 * depth**1.5)


@pytest.mark.parametrize(("kind", "rounding"), [("box", ()), ("rounded_box", (0.005,))])
@pytest.mark.parametrize("turn", [0.0, 0.6])
def test_crossed_bars_rest_on_each_other(kind, rounding, turn):
    """Four crossings carry the upper bar: the depth of each is that of a quarter of its weight."""
    half = [[0.2, 0.03, 0.02], [0.03, 0.2, 0.02]]
    scene = ContactScene(TWO, [GROUND, *[Shape(kind, i, (*h, *rounding)) for i, h in enumerate(half)]])
    inertia = torch.stack([box_linkage(torch.tensor([h]), 1.0 / (8 * math.prod(h))).inertia[0, 0] for h in half])
    linkage = plain_linkage(TWO, mass=torch.ones(1, 2), inertia=inertia[None])
    c, s = math.cos(0.5 * turn), math.sin(0.5 * turn)
    place = torch.tensor([[0.0, 0.0, 0.02, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.06, 0.0, 0.0, s, c]])
    state = free_state(place[:, :3], torch.zeros(1, 12))._replace(position=place)
    motion = rollout(scene, 2.0, 1e-3)(state, linkage, scene.numbers(stiffness=STIFFNESS))
    end = motion.coordinates[0, -1]
    apart = float(end[9] - end[2])
    assert abs(apart - (0.04 - rest_depth(9.81 / 4, STIFFNESS))) < 2e-5
    assert float((end[7:9] - end[:2]).abs().max()) < 1e-4
    assert float(motion.rates[0, -1].abs().max()) < 1e-4


def test_a_yoke_hangs_on_an_edge_and_a_capsule_lies_on_two():
    """A box whose weight is below it is balanced across an edge; a capsule's shaft lies on two edges."""
    ridge = Shape("box", -1, (0.2, 0.05, 0.05), rotation=TURNED)
    top = 0.05 * math.sqrt(2.0)
    plate = ContactScene(ONE, [ridge, Shape("box", 0, (0.03, 0.2, 0.01))])
    yoke = plain_linkage(ONE, center_of_mass=torch.tensor([[[0.0, 0.0, -0.1]]]), inertia=(0.01 * torch.eye(3))[None, None])
    state = free_state(torch.tensor([[0.0, 0.0, top + 0.01]]), torch.zeros(1, 6))
    motion = rollout(plate, 3.0, 1e-3)(state, yoke, plate.numbers(stiffness=STIFFNESS, dissipation=2.0))
    end = motion.coordinates[0, -1]
    assert abs(float(end[2]) - (top + 0.01 - rest_depth(9.81 / 2, STIFFNESS))) < 2e-5
    assert float(end[:2].norm()) < 1e-4 and float(motion.rates[0, -1].abs().max()) < 1e-3
    rails = [Shape("box", -1, (0.2, 0.05, 0.05), (0.0, y, 0.0), TURNED) for y in (-0.1, 0.1)]
    across = (0.5**0.5, 0.0, 0.0, 0.5**0.5)  # z goes along -y
    rod = ContactScene(ONE, [*rails, Shape("capsule", 0, (0.2, 0.02), rotation=across)])
    state = free_state(torch.tensor([[0.0, 0.0, top + 0.02]]), torch.zeros(1, 6))
    linkage = plain_linkage(ONE, inertia=(0.01 * torch.eye(3))[None, None])
    motion = rollout(rod, 3.0, 1e-3)(state, linkage, rod.numbers(stiffness=STIFFNESS, dissipation=2.0))
    end = motion.coordinates[0, -1]
    assert abs(float(end[2]) - (top + 0.02 - rest_depth(9.81 / 2, STIFFNESS))) < 2e-5
    assert float(end[:2].norm()) < 1e-4 and float(motion.rates[0, -1].abs().max()) < 1e-3


def test_equal_boxes_have_corners_only():
    """In a stack every crossing is at an end or between parallel edges: the stiffness is that of four corners."""
    scene = ContactScene(TWO, [Shape("box", i, (0.05, 0.05, 0.05)) for i in range(2)])
    depth = 1e-3
    upright = [0.0, 0.0, 0.0, 1.0]
    place = torch.tensor([[0.0, 0.0, 0.1 - depth, *upright, 0.0, 0.0, 0.0, *upright]])
    force = forces(scene, place)[0]
    assert abs(float(force[2]) - 8 * 1e3 * depth**1.5) < 1e-4 * float(force[2])  # those of either box
    assert float(force[:2].abs().max()) < 1e-6


def test_the_force_is_smooth_where_a_crossing_passes_an_end():
    """A bar slides along an edge until its own edges are beyond the end: the slope of the force has no jump."""
    scene = ContactScene(TWO, [Shape("box", 0, (0.03, 0.2, 0.02)), Shape("box", 1, (0.1, 0.03, 0.02))])
    x = torch.linspace(0.0685, 0.0715, 1501)
    position = torch.zeros(len(x), 14)
    position[:, 0], position[:, 2] = x, 0.04 - 2e-4  # less than the rounding of corners
    position[:, 6] = position[:, 13] = 1.0
    force = forces(scene, position)[:, 2].double()
    whole = 4 * 1e3 * 2e-4**1.5
    assert float(force[0]) == pytest.approx(whole, rel=1e-2)  # four crossings
    assert float(force[-1]) == pytest.approx(whole, rel=1e-2)  # two crossings, two corners of the other bar
    step = float(x[1] - x[0])
    slope = (force[1:] - force[:-1]) / step
    assert float((slope[1:] - slope[:-1]).abs().max()) < 0.1 * float(slope.abs().max())
    assert float(force.max()) < 2.05 * float(force[0])


def crossed(values: dict[str, Tensor]) -> Tensor:
    """A bar falls across another, which is free too; every number of it."""
    worlds = values["first"].shape[0]
    scene = ContactScene(TWO, [GROUND, Shape("box", 0, (0.2, 0.03, 0.02)), Shape("rounded_box", 1, (0.03, 0.2, 0.02, 0.004))])
    unit = torch.nn.functional.normalize
    position = torch.cat([values["first"], unit(values["turn"], dim=1), values["second"], unit(values["other"], dim=1)], 1)
    state = free_state(values["first"], values["rates"])._replace(position=position)
    numbers = scene.numbers(
        size=[None, values["half"], values["rounded"]], stiffness=values["stiffness"][:, 0] * 1e4,
        friction=values["friction"][:, 0], width=0.05,
    )  # fmt: skip
    inertia = torch.diag(torch.tensor([1.0, 1.0, 1.0])) * 5e-3
    linkage = plain_linkage(TWO, mass=values["mass"], inertia=inertia.expand(worlds, 2, 3, 3))
    weights = torch.sin(torch.arange(14.0) + 1.0)
    return (rollout(scene, 0.08, 1e-3)(state, linkage, numbers).coordinates[:, -1] * weights).sum(-1)


CROSSED = {
    "first": [0.0, 0.0, 0.018], "turn": [0.0, 0.0, 0.05, 1.0], "second": [0.02, 0.05, 0.061], "other": [0.03, 0.02, 0.1, 1.0],
    "rates": [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.3, 0.2, -0.8, 1.0, -0.5, 0.7], "half": [0.2, 0.03, 0.02],
    "rounded": [0.03, 0.2, 0.02, 0.004], "mass": [1.0, 0.7], "stiffness": [0.5], "friction": [0.4],
}  # fmt: skip


def test_gradients_of_crossing_bars_agree_with_differences():
    rows = gradient_rows(crossed, CROSSED, list(CROSSED))
    assert all(row.passed for row in rows), [row for row in rows if not row.passed]
    assert sum("excluded" in row.note for row in rows) <= 0.3 * len(rows)
    assert sum(row.analytic != 0.0 for row in rows) > 0.8 * len(rows)


def rolled(values: dict[str, Tensor]) -> Tensor:
    """A capsule falls on two edges and rolls."""
    rails = [Shape("box", -1, (0.2, 0.05, 0.05), rotation=TURNED) for _ in range(2)]
    scene = ContactScene(ONE, [*rails, Shape("capsule", 0, (0.2, 0.03))])
    worlds = values["place"].shape[0]
    unit = torch.nn.functional.normalize
    place = torch.zeros(worlds, 3, 3)
    place[:, 0, 1], place[:, 1, 1] = -values["apart"][:, 0], values["apart"][:, 0]
    state = free_state(values["place"], values["rates"], unit(values["turn"], dim=1))
    numbers = scene.numbers(
        size=[values["half"], None, values["capsule"]], position=place, stiffness=values["stiffness"][:, 0] * 1e4, width=0.05
    )
    linkage = plain_linkage(ONE, inertia=5e-3 * torch.eye(3).expand(worlds, 1, 3, 3))
    weights = torch.sin(torch.arange(7.0) + 1.0)
    return (rollout(scene, 0.15, 1e-3)(state, linkage, numbers).coordinates[:, -1] * weights).sum(-1)


ROLLED = {
    "place": [0.01, 0.02, 0.11], "turn": [0.7, 0.1, 0.05, 0.7], "rates": [0.3, 0.1, -0.8, 0.2, 0.5, 0.7],
    "half": [0.2, 0.05, 0.05], "capsule": [0.2, 0.03], "apart": [0.09], "stiffness": [0.5],
}  # fmt: skip


def test_gradients_of_a_capsule_on_edges_agree_with_differences():
    rows = gradient_rows(rolled, ROLLED, list(ROLLED))
    assert all(row.passed for row in rows), [row for row in rows if not row.passed]
    assert sum("excluded" in row.note for row in rows) <= 0.3 * len(rows)
    assert sum(row.analytic != 0.0 for row in rows) > 0.6 * len(rows)
