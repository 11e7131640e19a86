"""Runs of a double pendulum as its rig would write them: simulated with known numbers, for tests without data."""

from pathlib import Path

import numpy as np
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate

from dvc.records import State
from physics.articulated_rollout import ArticulatedRollout
from physics.robot import Robot

TRUTH = {
    "upper_mass": 0.6, "lower_mass": 0.55, "upper_length": 0.3, "upper_moment": 0.297, "lower_moment": 0.0935,
    "upper_total": 0.0945, "lower_total": 0.0239, "armature": 0.004, "upper_damping": 0.02, "lower_damping": 0.01,
    "upper_friction": 0.12, "lower_friction": 0.08,
}  # fmt: skip
RATE = 200.0


def rig_settings(*overrides: str):
    with initialize_config_module("configs", version_base="1.3"):
        return compose("run", overrides=["experiment=double_pendulum_rig", *overrides]).task


def simulated(
    robot: Robot, seconds: float, seed: int, start: tuple[float, float] = (0.0, 0.0)
) -> tuple[np.ndarray, np.ndarray]:
    """Angles (sample + 1, 2) and torques (sample, 2): sines for three quarters of the time, then nothing."""
    generator = np.random.default_rng(seed)
    count = round(seconds * RATE)
    t = np.arange(count) / RATE
    torques = np.zeros((count, 2))
    for joint, size in enumerate((1.2, 0.5)):
        for _ in range(3):
            torques[:, joint] += size * np.sin(2 * np.pi * generator.uniform(0.3, 2.0) * t + generator.uniform(0, 6.3))
    torques[round(0.75 * count) :] = 0.0
    rollout = ArticulatedRollout(robot.topology, frame_rate=RATE, frame_count=count, substeps=8, chunk=16)
    linkage = robot(**{name: torch.tensor([value]) for name, value in TRUTH.items()})
    with torch.no_grad():
        path = rollout(
            State(torch.tensor([start]), torch.zeros(1, 2)), linkage, controls=torch.from_numpy(torques).float()[None]
        )
    return path.coordinates[0].double().numpy(), torques


def write_run(path: Path, angles: np.ndarray, torques: np.ndarray, noise: float = 2e-4, seed: int = 0) -> Path:
    """A CSV as the rig's, with noise on the angles [rad]; the columns of rates hold what nobody reads."""
    angles = angles + noise * np.random.default_rng(seed).standard_normal(angles.shape)
    torques = np.concatenate([torques, torques[-1:]])
    table = np.column_stack([np.arange(len(angles)) / RATE, angles, 0.0 * angles, torques])
    np.savetxt(path, table, delimiter=",", header="time,pos1,pos2,vel1,vel2,tau1,tau2", comments="")
    return path


def robot_of_settings() -> Robot:
    return instantiate(rig_settings().robot, _convert_="all")
