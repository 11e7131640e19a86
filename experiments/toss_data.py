r"""Measured tosses of a cube: files, units, the first contact, the state before it, and the length scale seen in free flight.

The tosses are those of Pfrommer, Halm and Posa, "ContactNets" (CoRL 2020): position and orientation of an acrylic cube, 148
samples/s, from the hand's release until it rests. The inertia of a cube is a multiple of the identity, so that in the air

    p(t) = p0 + v0 t - s g t^2 / 2 e_z,    R(t) = R0 exp([w] t)

with w constant in the body's axes as well as in the world's. s is the scale of the tracking's lengths: measured = s * true. It
multiplies gravity as it multiplies every other length, and is left out by whoever trusts the tracking.

Positions here are as measured: half-widths times NOMINAL_HALF_WIDTH, not divided by s.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from dvc.data import SCHEME, find
from dvc.errors import UserError

Array = NDArray[np.float64]

NOMINAL_HALF_WIDTH = 0.0524  # [m]
SAMPLE_RATE = 148.0  # [1/s]
GRAVITY = 9.81  # [m/s^2]
COLUMNS = 19  # position 3, quaternion wxyz 4, velocity 3, angular velocity 3, control 6
WINDOW = 5  # samples from which the next one is foretold
POSITION_JUMP, ROTATION_JUMP = 2.5e-4, 4.0e-3  # [m], [rad] of a sample from what was foretold: contact perhaps
SURE_POSITION, SURE_ROTATION = 1.0e-3, 1.2e-2  # [m], [rad] of the next sample: contact indeed
HUBER = 2.0  # robust deviations beyond which a residual weighs less
PASSES = 10  # of reweighting


class Toss(NamedTuple):
    """One toss; sample k is at the time k / SAMPLE_RATE."""

    name: str
    position: Array  # [m] as measured, z up, the ground near z = 0, (sample, 3)
    orientation: Array  # x, y, z, w, body to world, without jumps of sign, (sample, 4)
    velocity: Array  # [m/s] as the file has it: backward differences, (sample, 3)
    angular_velocity: Array  # [rad/s] in the body's axes, (sample, 3)

    @property
    def samples(self) -> int:
        return len(self.position)


class FlightState(NamedTuple):
    """The state at one sample of the free flight, from all samples of the flight."""

    sample: int
    position: Array  # [m] as measured, (3,)
    orientation: Array  # x, y, z, w, (4,)
    velocity: Array  # [m/s] as measured, (3,)
    angular_velocity: Array  # [rad/s], body's axes, (3,)
    position_rms: float  # [m] of the fit
    rotation_rms: float  # [rad]


def toss_folder(path_or_name: str | Path) -> Path:
    """`data:NAME` is a folder item, anything else the path of a folder. Raises: UserError where there is none."""
    text = str(path_or_name)
    folder = find(text[len(SCHEME) :]) if text.startswith(SCHEME) else Path(text).expanduser()
    if not folder.is_dir():
        got = "a file" if folder.is_file() else "nothing there"
        raise UserError(f"tosses {text!r}: expected a folder of NUMBER.pt files, got {got}; remedy: correct the path")
    return folder.absolute()


def read_toss(path: Path) -> Toss:
    """A file as published: a tensor (1, sample, 19), lengths in half-widths, quaternion w first.

    Raises: UserError for a file that is not such a tensor, has too few samples, or holds what is no number or no rotation.
    """
    where = f"toss {str(path)!r}"
    try:
        raw = torch.load(path, weights_only=True, map_location="cpu")
    except Exception as error:  # torch raises whatever its unpickler meets
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:80]
        raise UserError(f"{where}: expected a tensor saved by torch, got what cannot be read as one ({reason})") from error
    got = tuple(raw.shape) if isinstance(raw, torch.Tensor) else type(raw).__name__
    if not isinstance(raw, torch.Tensor) or raw.dim() != 3 or raw.shape[0] != 1 or raw.shape[2] != COLUMNS:
        raise UserError(f"{where}: expected a tensor of shape (1, sample, {COLUMNS}), got {got}")
    if raw.shape[1] <= WINDOW + 1:
        raise UserError(f"{where}: expected at least {WINDOW + 2} samples, got {raw.shape[1]}")
    if not raw.is_floating_point():
        raise UserError(f"{where}: expected floating-point numbers, got {raw.dtype}")
    rows: Array = raw[0].detach().double().numpy()[:, :13]
    bad = ~np.isfinite(rows).all(1)
    if bad.any():
        raise UserError(f"{where}: expected finite numbers, got {int(bad.sum())} bad samples, the first is {int(bad.argmax())}")
    norm = np.linalg.norm(rows[:, 3:7], axis=1)
    if (abs(norm - 1.0) > 0.05).any():
        worst = int(abs(norm - 1.0).argmax())
        raise UserError(
            f"{where}: expected unit quaternions in columns 3 to 6, got a norm of {norm[worst]:.3g} at sample {worst}"
        )
    q = rows[:, [4, 5, 6, 3]] / norm[:, None]
    signs = np.where((q[1:] * q[:-1]).sum(1) < 0.0, -1.0, 1.0)
    q[1:] *= np.cumprod(signs)[:, None]
    h = NOMINAL_HALF_WIDTH
    return Toss(path.stem, h * rows[:, :3], q, h * rows[:, 7:10], rows[:, 10:13].copy())


def _number(path: Path) -> tuple[int, str]:
    return (int(path.stem), "") if path.stem.isdecimal() else (-1, path.stem)


def read_tosses(folder: str | Path, names: Sequence[str | int] | None = None) -> list[Toss]:
    """The tosses of a folder in the order of their numbers, or those named, in the order given.

    Raises: UserError for a missing or empty folder, a name that is not there or twice there, and as `read_toss`.
    """
    place = toss_folder(folder)
    paths = {path.stem: path for path in sorted(place.glob("*.pt"), key=_number)}
    if not paths:
        raise UserError(f"tosses {str(folder)!r}: expected a folder of NUMBER.pt files, got none in {place}")
    wanted = list(paths) if names is None else [str(name) for name in names]
    missing = [name for name in wanted if name not in paths]
    if missing or len(set(wanted)) < len(wanted) or not wanted:
        got = f"{', '.join(missing)} that are not there" if missing else "none, or one twice"
        raise UserError(f"tosses {str(folder)!r}: expected names of {place}, each once, got {got}")
    return [read_toss(paths[name]) for name in wanted]


def forecast_jumps(toss: Toss) -> tuple[Array, Array]:
    """How far each sample from WINDOW on is from what the WINDOW samples before it foretell: [m], [rad], (sample - WINDOW,).

    Position: a line and gravity (a window is so short that the scale of gravity moves the forecast by 0.05 mm); orientation: a
    constant angular velocity.
    """
    t = (np.arange(WINDOW) - WINDOW) / SAMPLE_RATE
    forecast = np.linalg.pinv(np.stack([np.ones(WINDOW), t], axis=1))[0]  # the fitted line at t = 0, from the window's samples
    drop = np.outer(t**2, [0.0, 0.0, 0.5 * GRAVITY])
    jumps, turns = [], []
    for k in range(WINDOW, toss.samples):
        jumps.append(float(np.linalg.norm(toss.position[k] - forecast @ (toss.position[k - WINDOW : k] + drop))))
        reference = Rotation.from_quat(toss.orientation[k - 1]).inv()
        vectors = (reference * Rotation.from_quat(toss.orientation[k - WINDOW : k + 1])).as_rotvec()
        turns.append(float(np.linalg.norm(vectors[-1] - forecast @ vectors[:-1])))
    return np.array(jumps), np.array(turns)


def first_contact(toss: Toss) -> int:
    """The first sample that free flight does not explain, where the next sample is further off still.

    The second condition passes over the hand's last touch and single bad samples. A contact within the first WINDOW samples
    cannot be seen. Raises: UserError where the flight never ends.
    """
    jumps, turns = forecast_jumps(toss)
    perhaps = (jumps > POSITION_JUMP) | (turns > ROTATION_JUMP)
    sure = (jumps > SURE_POSITION) | (turns > SURE_ROTATION)
    found = perhaps[:-1] & sure[1:]
    if not found.any():
        raise UserError(f"toss {toss.name}: expected a contact, got free flight in all {toss.samples} samples")
    return WINDOW + int(found.argmax())


def _robust(design: Array, values: Array) -> tuple[Array, Array]:
    """Coefficients (unknown, column) of values (row, column) and the rows' weights: Huber's, by reweighting."""
    weight = np.ones(len(values))
    for _ in range(PASSES):
        root = np.sqrt(weight)[:, None]
        solution = np.asarray(np.linalg.lstsq(root * design, root * values, rcond=None)[0], np.float64)
        size = np.linalg.norm(values - design @ solution, axis=1)
        deviation = 1.4826 * float(np.median(size)) + 1e-12
        weight = np.minimum(1.0, HUBER * deviation / np.maximum(size, 1e-300))
    return solution, weight


def _turned(rotation: Rotation, rate: Array, t: Array, design: Array, left: Array) -> tuple[Rotation, Array]:
    """One step towards R0 exp([w] t): what is left, seen from the axes at t = 0, is fitted by a turn and a rate."""
    back = Rotation.from_rotvec(np.outer(t, rate))
    turn, _ = _robust(design, back.apply(left))
    return rotation * Rotation.from_rotvec(turn[0]), rate + turn[1]


def flight_state(toss: Toss, scale: float = 1.0, contact: int | None = None, at: int | None = None) -> FlightState:
    """The state at sample `at` (the last of the flight), from samples before the first contact only.

    Arguments: scale: s; contact: sample of the first contact (None: it is looked for).
    Raises: UserError where fewer than 3 samples are before the contact, `at` is not among them, or scale is not above 0.
    """
    contact = first_contact(toss) if contact is None else int(contact)
    last = contact - 1
    at = last if at is None else int(at)
    if not 3 <= contact <= toss.samples or not 0 <= at <= last:
        raise UserError(
            f"toss {toss.name}: expected a contact from sample 3 to {toss.samples} and `at` before it, got {contact} and {at}"
        )
    if not scale > 0.0:
        raise UserError(f"toss {toss.name}: expected a scale above 0, got {scale}")
    t = (np.arange(contact) - at) / SAMPLE_RATE
    design = np.stack([np.ones(contact), t], axis=1)
    values = toss.position[:contact] + t[:, None] ** 2 * np.array([0.0, 0.0, 0.5 * scale * GRAVITY])
    line, _ = _robust(design, values)
    position_rms = float(np.sqrt(((values - design @ line) ** 2).sum(1).mean()))
    measured = Rotation.from_quat(toss.orientation[:contact])
    rate = np.median((measured[:-1].inv() * measured[1:]).as_rotvec(), axis=0) * SAMPLE_RATE
    rotation = measured[at]
    for _ in range(3):  # Gauss-Newton; the body turns about one axis, so that a change of rate adds where it is small
        left = ((rotation * Rotation.from_rotvec(np.outer(t, rate))).inv() * measured).as_rotvec()
        rotation, rate = _turned(rotation, rate, t, design, left)
    left = ((rotation * Rotation.from_rotvec(np.outer(t, rate))).inv() * measured).as_rotvec()
    quaternion = rotation.as_quat()
    if quaternion @ toss.orientation[at] < 0.0:
        quaternion = -quaternion
    return FlightState(at, line[0], quaternion, line[1], rate, position_rms, float(np.sqrt((left**2).sum(1).mean())))


def flight_scale(tosses: Sequence[Toss], contacts: Sequence[int] | None = None) -> tuple[float, float]:
    """The scale s that gravity shows in free flight, one for all tosses, and its standard error.

    Each toss has its own height and rise; residuals weigh alike, beyond HUBER deviations less.
    Raises: UserError for no tosses, and as `first_contact`.
    """
    if not tosses:
        raise UserError("flight_scale: expected at least one toss, got none")
    counts = [first_contact(toss) for toss in tosses] if contacts is None else [int(c) for c in contacts]
    rows = sum(counts)
    design, values, row = np.zeros((rows, 2 * len(tosses) + 1)), np.zeros((rows, 1)), 0
    for n, (toss, count) in enumerate(zip(tosses, counts, strict=True)):
        t, part = np.arange(count) / SAMPLE_RATE, slice(row, row + count)
        t = t - t.mean()
        design[part, 2 * n], design[part, 2 * n + 1], design[part, -1] = 1.0, t, -0.5 * GRAVITY * t**2
        values[part, 0] = toss.position[:count, 2]
        row += count
    if rows <= design.shape[1]:
        raise UserError(f"flight_scale: expected more than {design.shape[1]} samples of free flight, got {rows}")
    solution, weight = _robust(design, values)
    left = (values - design @ solution)[:, 0]
    variance = float((weight * left**2).sum()) / (rows - design.shape[1])
    normal = design.T @ (weight[:, None] * design)
    return float(solution[-1, 0]), float(np.sqrt(variance * np.linalg.inv(normal)[-1, -1]))
