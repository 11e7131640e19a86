"""A double pendulum as those who built the measured rig model it, in double precision and apart from our own dynamics."""

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dvc.errors import UserError

AUTHORS_STEPS = 8  # of Runge-Kutta, a sample


class AuthorsModel:
    """The plant of those who built the rig, in double precision: their numbers, their law of friction.

    M q'' = u - C q' + G - b q' - cf arctan(100 q'), inertias about the joints, rotors I_r behind the gear n:
    n^2 I_r + I_r, -n I_r and n^2 I_r in M. Source: github.com/dfki-ric-underactuated-lab/double_pendulum, model/plant.py.
    """

    NAMES = ("I1", "I2", "Ir", "b1", "b2", "cf1", "cf2", "g", "gr", "l1", "m1", "m2", "r1", "r2")

    def __init__(self, numbers: Mapping[str, float]):
        missing = [name for name in self.NAMES if name not in numbers]
        if missing:
            raise UserError(f"authors: expected the numbers {', '.join(self.NAMES)}, {missing[0]!r} is missing")
        self.n = {name: float(numbers[name]) for name in self.NAMES}

    def acceleration(self, q: np.ndarray, v: np.ndarray, torque: np.ndarray) -> np.ndarray:
        n = self.n
        h, moment = n["m2"] * n["l1"] * n["r2"], n["m1"] * n["r1"] + n["m2"] * n["l1"]
        rotor = n["gr"] * n["Ir"]
        m11 = n["I1"] + n["I2"] + n["m2"] * n["l1"] ** 2 + 2 * h * math.cos(q[1]) + n["gr"] * rotor + n["Ir"]
        m12, m22 = n["I2"] + h * math.cos(q[1]) - rotor, n["I2"] + n["gr"] * rotor
        sine, below = math.sin(q[1]), n["m2"] * n["r2"] * n["g"] * math.sin(q[0] + q[1])
        right1 = torque[0] + h * sine * (2 * v[0] * v[1] + v[1] ** 2) - moment * n["g"] * math.sin(q[0]) - below
        right2 = torque[1] - h * sine * v[0] ** 2 - below
        right1 -= n["b1"] * v[0] + n["cf1"] * math.atan(100.0 * v[0])
        right2 -= n["b2"] * v[1] + n["cf2"] * math.atan(100.0 * v[1])
        det = m11 * m22 - m12 * m12
        return np.array([(m22 * right1 - m12 * right2) / det, (m11 * right2 - m12 * right1) / det])

    def path(self, q: np.ndarray, v: np.ndarray, torques: np.ndarray, interval: float) -> np.ndarray:
        """Angles (sample + 1, 2), torques (sample, 2) held between samples; Runge-Kutta of fourth order."""
        q, v, h, angles = q.astype(float), v.astype(float), interval / AUTHORS_STEPS, [q.astype(float)]
        for torque in torques:
            for _ in range(AUTHORS_STEPS):
                a1 = self.acceleration(q, v, torque)
                v2 = v + 0.5 * h * a1
                a2 = self.acceleration(q + 0.5 * h * v, v2, torque)
                v3 = v + 0.5 * h * a2
                a3 = self.acceleration(q + 0.5 * h * v2, v3, torque)
                v4 = v + h * a3
                a4 = self.acceleration(q + h * v3, v4, torque)
                q, v = q + h / 6 * (v + 2 * v2 + 2 * v3 + v4), v + h / 6 * (a1 + 2 * a2 + 2 * a3 + a4)
            angles.append(q)
        return np.stack(angles)

    def base(self) -> dict[str, float]:
        """Their numbers as ours: base numbers, elbow armature, dry friction at speed (cf pi / 2)."""
        n = self.n
        rotor = n["gr"] * n["Ir"]
        return {
            "upper_length": n["l1"], "upper_moment": n["m1"] * n["r1"] + n["m2"] * n["l1"], "lower_moment": n["m2"] * n["r2"],
            "upper_total": n["I1"] + n["m2"] * n["l1"] ** 2 + n["gr"] * rotor + n["Ir"] + rotor, "lower_total": n["I2"] - rotor,
            "armature": n["gr"] * rotor + rotor, "upper_damping": n["b1"], "lower_damping": n["b2"],
            "upper_friction": 0.5 * math.pi * n["cf1"], "lower_friction": 0.5 * math.pi * n["cf2"],
        }  # fmt: skip


def read_numbers(path: Path) -> dict[str, float]:
    """The numbers of a YAML file, by name. Raises: UserError for another content."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return {str(name): float(value) for name, value in content.items()}
    except (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError):
        raise UserError(f"authors {str(path)!r}: expected a YAML file of numbers by name") from None
