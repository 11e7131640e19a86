"""Trees for the tests of articulated dynamics: given by numbers, random, and a slow twin in float64."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from physics.articulation import FAR, FREE, PRISMATIC, RATES, REVOLUTE, SPHERICAL, Linkage, Topology


def tree_of(kinds: list[int], parents: list[int], drives: list[tuple[int, int]] = ()) -> Topology:  # type: ignore[assignment]
    names = tuple(f"link {i}" for i in range(len(kinds)))
    joints = tuple(f"joint {i}" for i in range(len(kinds)))
    acts = tuple(f"drive {i}" for i in range(len(drives)))
    links, ways = tuple(d[0] for d in drives), tuple(d[1] for d in drives)
    return Topology("test", names, joints, tuple(parents), tuple(kinds), acts, links, ways)


def plain_linkage(tree: Topology, **fields: Any) -> Linkage:
    """Unit masses, no springs, limits or friction; fields override."""
    n, v, a = len(tree.links), tree.rate_count, len(tree.actuators)
    values: dict[str, Tensor] = {
        "mass": torch.ones(1, n),
        "center_of_mass": torch.zeros(1, n, 3),
        "inertia": 1e-9 * torch.eye(3).expand(1, n, 3, 3),
        "position": torch.zeros(1, n, 3),
        "rotation": torch.tensor([0.0, 0.0, 0.0, 1.0]).expand(1, n, 4),
        "axis": torch.tensor([0.0, 1.0, 0.0]).expand(1, n, 3),
        "lower": torch.full((1, n), -FAR),
        "upper": torch.full((1, n), FAR),
        "friction_width": torch.full((1, v), 1e-2),
        "control_lower": torch.full((1, a), -FAR),
        "control_upper": torch.full((1, a), FAR),
        "force_limit": torch.full((1, a), FAR),
    }
    for name in Linkage._fields:
        per_rate = name in ("armature", "damping", "friction")
        values.setdefault(name, torch.zeros(1, v if per_rate else a if name in ("gear", "kp", "kd") else n))
    return Linkage(**(values | fields))


def random_linkage(tree: Topology, seed: int, worlds: int = 1) -> Linkage:
    """All features at once, of order one."""
    g = torch.Generator().manual_seed(seed)
    n, v, a = len(tree.links), tree.rate_count, len(tree.actuators)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(worlds, *shape, generator=g)

    root = torch.randn(worlds, n, 3, 3, generator=g) * 0.1
    return Linkage(
        uniform(0.5, 1.5, n),
        uniform(-0.3, 0.3, n, 3),
        root @ root.mT + 0.02 * torch.eye(3),
        uniform(-0.5, 0.5, n, 3),
        torch.randn(worlds, n, 4, generator=g),
        torch.randn(worlds, n, 3, generator=g),
        uniform(1.0, 5.0, n),
        uniform(-0.5, 0.5, n),
        uniform(-1.0, -0.5, n),
        uniform(0.5, 1.0, n),
        uniform(20.0, 50.0, n),
        uniform(0.1, 0.5, n),
        uniform(0.01, 0.1, v),
        uniform(0.05, 0.2, v),
        uniform(0.05, 0.3, v),
        uniform(0.1, 0.2, v),
        uniform(0.5, 1.5, a),
        uniform(1.0, 5.0, a),
        uniform(0.1, 0.5, a),
        uniform(-2.0, -1.5, a),
        uniform(1.5, 2.0, a),
        uniform(20.0, 30.0, a),
    )


def random_state(tree: Topology, seed: int, worlds: int = 1, speed: float = 1.0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    parts = []
    for kind in tree.kinds:
        if kind == FREE:
            parts += [
                torch.randn(worlds, 3, generator=g),
                torch.nn.functional.normalize(torch.randn(worlds, 4, generator=g), dim=1),
            ]
        elif kind == SPHERICAL:
            turn = torch.cat([0.4 * torch.randn(worlds, 3, generator=g), torch.ones(worlds, 1)], dim=1)
            parts.append(torch.nn.functional.normalize(turn, dim=1))
        elif kind in (REVOLUTE, PRISMATIC):
            parts.append(0.5 * torch.randn(worlds, 1, generator=g))
    return torch.cat(parts, dim=1), speed * torch.randn(worlds, tree.rate_count, generator=g)


# -- the twin: float64 NumPy, generalized accelerations from Jacobians (no recursion over forces) ------------------------
def rotation(q: np.ndarray) -> np.ndarray:
    x, y, z, w = q / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def about(axis: np.ndarray, angle: float) -> np.ndarray:
    k = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def jacobians(tree: Topology, link: dict[str, np.ndarray], q: np.ndarray) -> list[tuple]:
    """Of each link: orientation, centre of mass, Jacobians (3, nv) of its velocity and of its spin."""
    nv = tree.rate_count
    frames: list[tuple] = []
    for b, kind in enumerate(tree.kinds):
        axis = link["axis"][b] / np.linalg.norm(link["axis"][b])
        turn0, place0, lin0, ang0 = (
            (np.eye(3), np.zeros(3), np.zeros((3, nv)), np.zeros((3, nv))) if tree.parents[b] < 0 else frames[tree.parents[b]]
        )
        i, j = tree.first_rates[b], tree.first_coordinates[b]
        place = place0 + turn0 @ link["position"][b]
        turn = turn0 @ rotation(link["rotation"][b])
        lin, ang = np.zeros((3, nv)), ang0.copy()
        if kind == PRISMATIC:
            place = place + turn @ axis * q[j]
        if kind == FREE:
            place = place + q[j : j + 3]
        for d in range(nv):
            lin[:, d] = lin0[:, d] + np.cross(ang0[:, d], place - place0)
        if kind == REVOLUTE:
            ang[:, i] += turn @ axis
            turn = turn @ about(axis, q[j])
        if kind == PRISMATIC:
            lin[:, i] += turn @ axis
        if kind == SPHERICAL:
            turn = turn @ rotation(q[j : j + 4])
            ang[:, i : i + 3] += turn
        if kind == FREE:
            turn = turn @ rotation(q[j + 3 : j + 7])
            lin[:, i : i + 3] += np.eye(3)
            ang[:, i + 3 : i + 6] += turn
        frames.append((turn, place, lin, ang))
    result = []
    for b, (turn, place, lin, ang) in enumerate(frames):
        c = turn @ link["center_of_mass"][b]
        moved = lin.copy()
        for d in range(nv):
            moved[:, d] += np.cross(ang[:, d], c)
        result.append((turn, place + c, moved, ang))
    return result


def moved_on(tree: Topology, q: np.ndarray, v: np.ndarray, dt: float) -> np.ndarray:
    """q (+) dt v."""
    q = q.copy()
    for b, kind in enumerate(tree.kinds):
        i, j = tree.first_rates[b], tree.first_coordinates[b]
        if kind == FREE:
            q[j : j + 3] += dt * v[i : i + 3]
            i, j = i + 3, j + 3
        if kind in (FREE, SPHERICAL):
            x = dt * v[i : i + 3]
            angle = np.linalg.norm(x)
            e = np.append(0.5 * x * np.sinc(0.5 * angle / np.pi), np.cos(0.5 * angle))
            p = q[j : j + 4].copy()
            q[j : j + 3] = p[3] * e[:3] + e[3] * p[:3] + np.cross(p[:3], e[:3])
            q[j + 3] = p[3] * e[3] - p[:3] @ e[:3]
        elif RATES[kind] == 1:
            q[j] += dt * v[i]
    return q


def mass_and_bias(
    tree: Topology, linkage: Linkage, q: np.ndarray, v: np.ndarray, gravity: np.ndarray, wrenches: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """H and c with H a + c = tau, from Jacobians and their differences along v."""
    link = {name: getattr(linkage, name)[0].double().numpy() for name in Linkage._fields[:6]}
    now = jacobians(tree, link, q)
    e = 1e-6
    after, before = (jacobians(tree, link, moved_on(tree, q, v, s * e)) for s in (1.0, -1.0))
    h, c = np.zeros((tree.rate_count,) * 2), np.zeros(tree.rate_count)
    for b, (turn, _, lin, ang) in enumerate(now):
        inertia = turn @ link["inertia"][b] @ turn.T
        lin_rate = (after[b][2] - before[b][2]) @ v / (2 * e)
        ang_rate = (after[b][3] - before[b][3]) @ v / (2 * e)
        spin = ang @ v
        h += link["mass"][b] * lin.T @ lin + ang.T @ inertia @ ang
        c += lin.T @ (link["mass"][b] * (lin_rate - gravity) - wrenches[b, :3])
        c += ang.T @ (inertia @ ang_rate + np.cross(spin, inertia @ spin) - wrenches[b, 3:])
    return h, c
