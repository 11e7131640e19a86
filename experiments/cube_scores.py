"""How far predicted tosses are from measured ones, and a naive prediction to compare with.

All samples from the first contact on count alike within a toss, then tosses count alike:

    position     |predicted - measured| / side, lengths as measured, side = 2 NOMINAL_HALF_WIDTH (the unit of the files)
    rotation     angle between predicted and measured orientation [deg]
    penetration  how far the predicted cube's lowest corner is below the ground [mm], true lengths
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from experiments.toss_data import GRAVITY, NOMINAL_HALF_WIDTH, SAMPLE_RATE, Toss, flight_state

Array = NDArray[np.float64]

CORNERS = np.array([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])


class Pose(NamedTuple):
    """A path; sample 0 is that of the first contact."""

    position: Array  # as measured [m], (sample, 3)
    orientation: Array  # x, y, z, w, (sample, 4)


class Score(NamedTuple):
    """Means over the samples of one toss."""

    position: float  # [sides]
    rotation: float  # [deg]
    penetration: float  # [mm]


def measured_pose(toss: Toss, contact: int) -> Pose:
    return Pose(toss.position[contact:], toss.orientation[contact:])


def lowest_corner(path: Pose, scale: float, side: float) -> Array:
    """Height of the lowest corner of a cube of this true side, true lengths [m], (sample,)."""
    turned = Rotation.from_quat(path.orientation).as_matrix()[:, 2] @ CORNERS.T  # z of corners of half-width 1
    return path.position[:, 2] / scale + 0.5 * side * turned.min(1)


def score(predicted: Pose, measured: Pose, scale: float, side: float) -> Score:
    """One toss; `scale` and `side` are for the penetration of the predicted cube."""
    off = np.linalg.norm(predicted.position - measured.position, axis=1) / (2.0 * NOMINAL_HALF_WIDTH)
    turn = (Rotation.from_quat(predicted.orientation).inv() * Rotation.from_quat(measured.orientation)).magnitude()
    below = np.maximum(0.0, -lowest_corner(predicted, scale, side))
    return Score(float(off.mean()), float(np.degrees(turn).mean()), 1e3 * float(below.mean()))


def naive_pose(toss: Toss, contact: int) -> Pose:
    """Ballistic flight with nominal side and scale from the same initial state, stopped where a corner meets the ground."""
    start = flight_state(toss, 1.0, contact)
    t = np.arange(1, toss.samples - contact + 1) / SAMPLE_RATE
    position = start.position + np.outer(t, start.velocity) - np.outer(t**2, [0.0, 0.0, 0.5 * GRAVITY])
    turns = Rotation.from_quat(start.orientation) * Rotation.from_rotvec(np.outer(t, start.angular_velocity))
    path = Pose(position, turns.as_quat())
    below = lowest_corner(path, 1.0, 2.0 * NOMINAL_HALF_WIDTH) <= 0.0
    stop = int(below.argmax()) if below.any() else len(t) - 1
    path.position[stop:], path.orientation[stop:] = path.position[stop], path.orientation[stop]
    return path
