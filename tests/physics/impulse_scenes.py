"""Scenes and references for the tests of impacts."""

import numpy as np
import torch
from scipy.optimize import brentq, fsolve
from torch import Tensor

from physics.contact_scene import ContactScene
from physics.impulse_scene import ImpulseRollout
from tests.physics.trees import rotation

CORNERS = np.array([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])


def rollout(scene: ContactScene, time: float, dt: float, substeps: int = 10, **options: float) -> ImpulseRollout:
    frames = round(time / (dt * substeps))
    return ImpulseRollout(scene.tree, scene, frame_rate=1.0 / (dt * substeps), frame_count=frames, substeps=substeps, **options)


def leaf(value: float) -> Tensor:
    return torch.tensor([value], requires_grad=True)


def close(got: Tensor | float, want: float, tolerance: float, scale: float = 0.0) -> None:
    got = float(got.detach()) if isinstance(got, Tensor) else got
    assert abs(got - want) <= tolerance * max(abs(want), scale), (got, want)


def bouncing(time: float, h0: complex, v0: complex, e: complex, g: complex) -> tuple[complex, complex]:
    """Height and velocity of a point that bounces, in closed form from impact to impact."""
    z, v, left = h0 + 0j, v0 + 0j, time + 0j
    while True:
        fall = (v + np.sqrt(v * v + 2 * g * z)) / g
        if fall.real >= left.real:
            return z + v * left - 0.5 * g * left * left, v - g * left
        v, z, left = -e * (v - g * fall), 0j, left - fall


def cross_matrix(r: np.ndarray) -> np.ndarray:
    return np.array([[0.0, -r[2], r[1]], [r[2], 0.0, -r[0]], [-r[1], r[0], 0.0]])


def impulse_twin(k: np.ndarray, u: np.ndarray, e: float, mu: float) -> np.ndarray:
    """The impulse [N s] at one contact with the normal z, K = J H^-1 J^T, the velocity u before: stick, else slide."""
    wanted = -e * u[2]
    p = np.linalg.solve(k, np.array([-u[0], -u[1], wanted - u[2]]))
    if np.hypot(p[0], p[1]) <= mu * p[2]:
        return p

    def slide(x: np.ndarray) -> np.ndarray:
        pn, angle = x
        p = pn * np.array([mu * np.cos(angle), mu * np.sin(angle), 1.0])
        after = u + k @ p
        return np.array([after[2] - wanted, -after[0] * np.sin(angle) + after[1] * np.cos(angle)])

    starts = [np.arctan2(-u[1], -u[0]) + shift for shift in (0.0, 0.3, -0.3)]
    for start in starts:
        x, _, found, _ = fsolve(slide, [p[2], start], full_output=True, xtol=1e-13)
        p = x[0] * np.array([mu * np.cos(x[1]), mu * np.sin(x[1]), 1.0])
        if found == 1 and (u + k @ p)[:2] @ p[:2] <= 0.0:
            return p
    raise AssertionError("no sliding solution")


def cube_twin(numbers: dict[str, float | np.ndarray], time: float) -> np.ndarray:
    """A cube without gravity that meets z = 0 once with a corner: place, velocity and body spin at `time`, float64."""
    x, v = np.array(numbers["position"], float), np.array(numbers["velocity"], float)
    w, q = np.array(numbers["spin"], float), np.array(numbers["rotation"], float)
    half, mass, inertia = numbers["half"], numbers["mass"], numbers["inertia"]
    turn = rotation(q)

    def turned(t: float) -> np.ndarray:
        angle = np.linalg.norm(w) * t
        k = cross_matrix(w / np.linalg.norm(w))
        return turn @ (np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k)

    def lowest(t: float) -> float:
        return (x + t * v)[2] + half * (CORNERS @ turned(t).T)[:, 2].min()

    meet = brentq(lowest, 0.0, time, xtol=1e-15)
    now = turned(meet)
    r = half * (CORNERS @ now.T)[(CORNERS @ now.T)[:, 2].argmin()]
    spin = now @ w
    k = np.eye(3) / mass - cross_matrix(r) @ cross_matrix(r) / inertia
    p = impulse_twin(k, v + np.cross(spin, r), numbers["restitution"], numbers["friction"])
    after, spin = v + p / mass, spin + np.cross(r, p) / inertia
    return np.concatenate([x + meet * v + (time - meet) * after, after, now.T @ spin])
