"""Gradients of every input of a roll-out with impacts against differences; the cone problem; errors in one line."""

import numpy as np
import pytest
import torch
import warp as wp
from torch import Tensor

import dvc.warp_op
from dvc.errors import UserError
from dvc.gradient_check import compare
from physics.contact_scene import ContactScene, Shape
from physics.impulse_scene import ImpulseRollout, impulse_numbers
from physics.impulse_solve import cone_impulses
from tests.physics.contact_scenes import GROUND, ONE, box_linkage, free_state
from tests.physics.impulse_scenes import rollout
from tests.physics.trees import plain_linkage, tree_of

STEPS = (1e-2, 3e-3, 1e-3, 3e-4)


def gradient_rows(function, values: dict[str, list[float]]) -> list:
    leaves = {name: torch.tensor([value], requires_grad=True) for name, value in values.items()}
    output = function(leaves)
    output.sum().backward()
    cells = [(name, i) for name, value in values.items() for i in range(len(value))]
    sizes = {cell: max(abs(values[cell[0]][cell[1]]), 0.1) for cell in cells}
    count = 2 * len(STEPS) * len(cells)
    moved = {name: torch.tensor([value]).repeat(count, 1) for name, value in values.items()}
    for k, (name, i) in enumerate(cells):
        for j, h in enumerate(STEPS):
            moved[name][2 * (k * len(STEPS) + j), i] += h * sizes[name, i]
            moved[name][2 * (k * len(STEPS) + j) + 1, i] -= h * sizes[name, i]
    with torch.no_grad():
        outputs = function(moved).double().reshape(len(cells), len(STEPS), 2)
    rows = []
    for k, (name, i) in enumerate(cells):
        numeric = [float(outputs[k, j, 0] - outputs[k, j, 1]) / (2 * h) for j, h in enumerate(STEPS)]
        analytic = float(leaves[name].grad[0, i]) * sizes[name, i]
        rows.append(compare(analytic, numeric, STEPS, float(output.detach().abs().max()), f"{name}[{i}]", "op"))
    return rows


TOSS = {
    "position": [0.0, 0.0, 0.12], "rotation": [0.3, 0.2, 0.1, 0.9], "velocity": [1.0, 0.3, -1.0], "spin": [2.0, -4.0, 1.5],
    "half": [0.05, 0.06, 0.04], "density": [4.0], "friction": [0.3], "restitution": [0.5], "ground": [0.0, 0.0, 0.0],
    "tilt": [0.02, 0.01, 0.0, 1.0], "gravity": [0.3, 0.1, -9.81],
}  # fmt: skip


def toss(values: dict[str, Tensor]) -> Tensor:
    """A box thrown on the ground, with several impacts; every number it depends on, (world, n)."""
    scene = ContactScene(ONE, [GROUND, Shape("box", 0, (0.05, 0.05, 0.05))])
    turn = torch.nn.functional.normalize(values["rotation"], dim=-1)
    state = free_state(values["position"], torch.cat([values["velocity"], values["spin"]], 1))
    state = state._replace(position=torch.cat([values["position"], turn], 1))
    worlds = turn.shape[0]
    place = torch.stack([values["ground"], torch.zeros(worlds, 3)], dim=1)
    tilt = torch.stack([values["tilt"], torch.tensor([[0.0, 0.0, 0.0, 1.0]]).expand(worlds, 4)], dim=1)
    numbers = impulse_numbers(
        scene, restitution=values["restitution"][:, 0], friction=values["friction"][:, 0], size=[None, values["half"]],
        position=place, rotation=tilt,
    )  # fmt: skip
    linkage = box_linkage(values["half"], values["density"][:, 0] * 100.0)
    motion = rollout(scene, 0.12, 1e-3)(state, linkage, numbers, values["gravity"])
    weights = torch.tensor([1.0, -0.7, 2.0, 0.3, -0.4, 0.5, 0.6])
    return (motion.coordinates[:, -1].double() * weights).sum(-1)


CHAIN = {
    "angles": [0.5, 0.4, -0.6], "rates": [1.0, -1.0, 2.0], "mass": [1.0, 0.7, 0.5], "inertia": [0.02, 0.01, 0.01],
    "center": [0.1, 0.12, 0.08], "length": [0.3, 0.3], "damping": [0.02, 0.03, 0.01], "stiffness": [0.3, 0.2, 0.5],
    "armature": [0.01, 0.02, 0.01], "radius": [0.05], "friction": [0.4], "restitution": [0.6], "ground": [-0.58],
    "wrench": [0.5],
}  # fmt: skip


def chain(values: dict[str, Tensor], time: float = 0.3) -> Tensor:
    """Three links that hang on the world; the last one's tip strikes the ground and slides."""
    tree = tree_of([2, 2, 2], [-1, 0, 1])
    scene = ContactScene(tree, [GROUND, Shape("sphere", 2, (0.05,), position=(0.2, 0.0, 0.0))])
    worlds = values["mass"].shape[0]
    zero = torch.zeros(worlds, 3)
    lengths = torch.cat([torch.zeros(worlds, 1), values["length"]], 1)
    linkage = plain_linkage(
        tree, mass=values["mass"], center_of_mass=torch.stack([values["center"], zero, zero], 2),
        inertia=values["inertia"][..., None, None] * torch.eye(3), position=torch.stack([lengths, zero, zero], 2),
        damping=values["damping"], stiffness=values["stiffness"], armature=values["armature"],
    )  # fmt: skip
    level = torch.cat([torch.zeros(worlds, 2), values["ground"]], 1)
    tip = torch.tensor([[0.2, 0.0, 0.0]]).expand(worlds, 3)
    numbers = impulse_numbers(
        scene, restitution=values["restitution"][:, 0], friction=values["friction"][:, 0], size=[None, values["radius"]],
        position=torch.stack([level, tip], 1),
    )  # fmt: skip
    state = free_state(torch.zeros(1, 3), values["rates"])._replace(position=values["angles"])
    pull = torch.nn.functional.pad(values["wrench"], (2, 3))[:, None, None].expand(-1, 1, 3, 6)
    motion = rollout(scene, time, 1e-3)(state, linkage, numbers, wrenches=pull)
    chain.impacts, chain.rates = motion.impacts, motion.rates  # type: ignore[attr-defined]
    return (motion.coordinates[:, -1].double() * torch.tensor([1.0, -0.7, 0.4])).sum(-1)


@pytest.mark.parametrize(("function", "values"), [(toss, TOSS), (chain, CHAIN)], ids=["toss", "chain"])
def test_gradients_agree_with_differences(function, values):
    rows = gradient_rows(function, values)
    assert all(row.passed for row in rows), [row for row in rows if not row.passed]
    assert sum("excluded" in row.note for row in rows) <= 0.3 * len(rows)
    assert sum(row.analytic != 0.0 for row in rows) > 0.8 * len(rows)
    if function is chain:
        assert int(chain.impacts.sum(1).min()) >= 1  # type: ignore[attr-defined]


def test_a_chain_that_came_to_rest_on_the_ground_has_the_gradient_of_its_equilibrium():
    """Damped joints with springs: where it lies depends on the ground and the springs, no more on how it came there."""
    values = CHAIN | {"damping": [0.4, 0.6, 0.2], "wrench": [-0.5]}
    leaves = {name: torch.tensor([value], requires_grad=True) for name, value in values.items()}
    chain(leaves, 4.0).sum().backward()
    assert int(chain.impacts.sum()) >= 3  # type: ignore[attr-defined]
    assert float(chain.rates[0, -1].detach().abs().max()) < 1e-3  # type: ignore[attr-defined]
    assert float(leaves["rates"].grad.abs().max()) < 2e-3
    for name in ("ground", "length", "mass", "stiffness"):
        ends = []
        for h in (1e-2, -1e-2):
            moved = {n: torch.tensor([value]) for n, value in values.items()}
            moved[name][0, 0] += h
            with torch.no_grad():
                ends.append(float(chain(moved, 4.0)))
        got, want = float(leaves[name].grad[0, 0]), (ends[0] - ends[1]) / 2e-2
        assert abs(got - want) < 1e-2 * abs(want) + 1e-3, (name, got, want)


def test_the_replay_is_an_eager_run(monkeypatch):
    monkeypatch.setattr(dvc.warp_op, "debug_verify", True)
    leaves = {name: torch.tensor([value], requires_grad=True) for name, value in TOSS.items()}
    toss(leaves).sum().backward()


@wp.kernel(enable_backward=False)
def solve_kernel(
    counts: wp.array(dtype=int), coupling: wp.array3d(dtype=wp.float64), normals: wp.array2d(dtype=wp.float64),
    scalars: wp.array3d(dtype=wp.float64), start: wp.array2d(dtype=wp.float64), impulses: wp.array2d(dtype=wp.float64),
    states: wp.array2d(dtype=int), matrix: wp.array3d(dtype=wp.float64), vectors: wp.array3d(dtype=wp.float64),
    left: wp.array(dtype=wp.float64),
):  # fmt: skip
    w = wp.tid()
    left[w] = cone_impulses(w, counts[w], coupling, normals, scalars, start, impulses, states, matrix, vectors)


def test_random_cone_problems_are_solved():
    """Up to eight contacts on twelve degrees of freedom: complementarity, the cone and the maximal dissipation hold."""
    rng = np.random.default_rng(0)
    worlds, most = 200, 8
    coupling, normals = np.zeros((worlds, 3 * most, 3 * most)), np.zeros((worlds, 3 * most))
    scalars, start = np.zeros((worlds, most, 5)), np.zeros((worlds, 3 * most))
    counts = rng.integers(1, most + 1, worlds)
    for w, m in enumerate(counts):
        jacobian = rng.normal(size=(3 * m, 12))
        coupling[w, : 3 * m, : 3 * m] = jacobian @ jacobian.T
        start[w, : 3 * m] = jacobian @ rng.normal(size=12)
        for c in range(m):
            n = rng.normal(size=3)
            normals[w, 3 * c : 3 * c + 3] = n / np.linalg.norm(n)
            trace = np.trace(coupling[w, 3 * c : 3 * c + 3, 3 * c : 3 * c + 3])
            scalars[w, c] = rng.uniform(0.0, 0.5), rng.uniform(0.0, 1.0), 1e-6 * trace, 1e-6 * trace, 1.0 / trace
    given = [wp.array(x, dtype=wp.float64) for x in (coupling, normals, scalars, start)]
    impulses, left = wp.zeros((worlds, 3 * most), dtype=wp.float64), wp.zeros(worlds, dtype=wp.float64)
    states = wp.zeros((worlds, most), dtype=wp.int32)
    matrix = wp.zeros((worlds, 3 * most, 3 * most), dtype=wp.float64)
    vectors = wp.zeros((worlds, 3, 3 * most), dtype=wp.float64)
    wp.launch(solve_kernel, worlds, [wp.array(counts, dtype=wp.int32), *given], [impulses, states, matrix, vectors, left])
    solved = left.numpy() < 1e-8
    assert solved.mean() > 0.97  # strong friction between several contacts may have no solution
    kinds = set()
    for w in np.flatnonzero(solved):
        m = counts[w]
        p = impulses.numpy()[w, : 3 * m]
        u = start[w, : 3 * m] + coupling[w, : 3 * m, : 3 * m] @ p
        for c in range(m):
            n, part, speed = normals[w, 3 * c : 3 * c + 3], p[3 * c : 3 * c + 3], u[3 * c : 3 * c + 3]
            b, mu, soft, _, r = scalars[w, c]
            pn, gap = n @ part, n @ speed - b + soft * (n @ part)
            assert pn > -1e-7 * r and gap > -1e-6 and abs(min(pn / r, gap)) < 1e-6
            pt, slip = part - n * pn, speed - n * (n @ speed)
            slip = slip + soft * pt
            assert np.linalg.norm(pt) <= mu * pn + 1e-7 * r
            assert abs(pt @ slip + mu * pn * np.linalg.norm(slip)) < 1e-5 * r
            kinds.add(int(states.numpy()[w, c]))
    assert kinds == {0, 1, 2}


def test_errors_are_one_line():
    scene = ContactScene(ONE, [GROUND, Shape("sphere", 0, (0.1,))])
    with pytest.raises(UserError, match="restitution: expected 0 to 1"):
        impulse_numbers(scene, restitution=1.5)
    with pytest.raises(UserError, match="skin"):
        ImpulseRollout(ONE, scene, frame_rate=100, frame_count=1, skin=0.0)
    run = ImpulseRollout(ONE, scene, frame_rate=100, frame_count=1)
    state = free_state(torch.tensor([[0.0, 0.0, 0.2]]), torch.zeros(1, 6))
    with pytest.raises(UserError, match="gravity: expected shape"):
        run(state, box_linkage(torch.full((1, 3), 0.1)), impulse_numbers(scene), torch.zeros(1, 2))


def test_too_many_impacts_in_a_frame_are_said():
    """A ball between two walls."""
    walls = [GROUND, Shape("half_space", position=(0.0, 0.0, 0.21), rotation=(1.0, 0.0, 0.0, 0.0))]
    scene = ContactScene(ONE, [*walls, Shape("sphere", 0, (0.1,))])
    state = free_state(torch.tensor([[0.0, 0.0, 0.105]]), torch.tensor([[0.0, 0.0, 4.0, 0.0, 0.0, 0.0]]))
    linkage, numbers = box_linkage(torch.full((1, 3), 0.1)), impulse_numbers(scene, restitution=1.0)
    with pytest.raises(UserError, match=r"at most 2 impacts in a frame \(most_impacts\), got 3"):
        ImpulseRollout(ONE, scene, frame_rate=50, frame_count=1, most_impacts=2)(state, linkage, numbers)
    motion = ImpulseRollout(ONE, scene, frame_rate=50, frame_count=1, most_impacts=9)(state, linkage, numbers)
    assert int(motion.impacts[0, 0]) == 8
