"""Tosses of a cube as upstream writes them: simulated with known numbers, for tests without data."""

import json
from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from scipy.spatial.transform import Rotation

from dvc.records import State
from experiments.cube_toss import MODEL
from experiments.toss_data import NOMINAL_HALF_WIDTH, SAMPLE_RATE, Toss
from physics.contact_scene import ContactRollout, ContactScene, Shape
from physics.robot import Robot

TRUTH = {"friction": 0.22, "stiffness": 2.0e5, "dissipation": 1.5, "scale": 0.97, "side": 0.104}
FIXED = {"mass": 0.37, "exponent": 1.5, "width": 0.01}
FRAMES = 110


def toss_settings(*overrides: str):
    with initialize_config_module("configs", version_base="1.3"):
        return compose("run", overrides=["experiment=cube_toss", *overrides])


def cube() -> Robot:
    return instantiate(toss_settings().task.robot, _convert_="all")


def simulated(count: int, seed: int = 0, noise: float = 0.0, substeps: int = 16) -> list[Toss]:
    """`count` tosses from the hand to rest, measured = scale * true; noise of positions [m], of turns ten times that [rad]."""
    rng = np.random.default_rng(seed)
    turns = Rotation.random(count, random_state=seed).as_quat()
    place = np.column_stack([rng.uniform(-0.2, 0.2, (count, 2)), rng.uniform(0.17, 0.22, count)])
    velocity = np.column_stack(
        [rng.uniform(-0.8, 0.8, (count, 2)), rng.uniform(-0.6, 0.0, count), rng.uniform(-5, 5, (count, 3))]
    )
    robot = cube()
    scene = ContactScene(robot.topology, [Shape("half_space"), Shape("box", 0, (0.5 * TRUTH["side"],) * 3)])
    numbers = scene.numbers(
        friction=TRUTH["friction"], stiffness=TRUTH["stiffness"], dissipation=TRUTH["dissipation"], width=FIXED["width"],
    )  # fmt: skip
    rollout = ContactRollout(robot.topology, scene, frame_rate=SAMPLE_RATE, frame_count=FRAMES, substeps=substeps)
    start = State(torch.from_numpy(np.hstack([place, turns])).float(), torch.from_numpy(velocity).float())
    with torch.no_grad():
        path = rollout(start, robot(side=torch.tensor([TRUTH["side"]])), numbers)
    tosses = []
    for k in range(count):
        x, v = path.coordinates[k].double().numpy(), path.rates[k].double().numpy()
        position = TRUTH["scale"] * x[:, :3] + noise * rng.standard_normal((FRAMES + 1, 3))
        turned = Rotation.from_quat(x[:, 3:]) * Rotation.from_rotvec(10.0 * noise * rng.standard_normal((FRAMES + 1, 3)))
        q = turned.as_quat()
        q[1:] *= np.cumprod(np.where((q[1:] * q[:-1]).sum(1) < 0.0, -1.0, 1.0))[:, None]
        rate = np.diff(position, axis=0, prepend=position[:1]) * SAMPLE_RATE
        tosses.append(Toss(str(k + 1), position, q, rate, v[:, 3:]))
    return tosses


def upstream_rows(toss: Toss) -> torch.Tensor:
    """(1, sample, 19): lengths in half-widths, quaternion w first, control zero."""
    h = NOMINAL_HALF_WIDTH
    parts = [toss.position / h, toss.orientation[:, [3, 0, 1, 2]], toss.velocity / h, toss.angular_velocity]
    return torch.from_numpy(np.concatenate([*parts, np.zeros((toss.samples, 6))], axis=1))[None]


def write_tosses(folder: Path, tosses: list[Toss]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for toss in tosses:
        torch.save(upstream_rows(toss), folder / f"{toss.name}.pt")
    return folder


def write_model(folder: Path, **changes: float) -> Path:
    """A run's folder as `mode=predict` wants it, with the true numbers."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {name: [value] for name, value in (TRUTH | FIXED | changes).items()}
    estimates = {name: {"value": value, "low": value, "high": value} for name, value in (TRUTH | changes).items()}
    text = json.dumps({"substeps": 16, "values": values, "estimates": estimates})
    (folder / MODEL).write_text(text, encoding="utf-8")
    return folder
