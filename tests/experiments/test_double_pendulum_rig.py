"""Identification of a double pendulum: known numbers come back, the authors' plant is ours, bad runs are refused."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException
from hydra.utils import instantiate

from dvc.errors import UserError
from dvc.recorder import Recorder
from dvc.records import State
from experiments.double_pendulum_authors import AuthorsModel
from experiments.double_pendulum_rig import DoublePendulumRig, read_run, rms
from physics.articulated_rollout import ArticulatedRollout
from tests.experiments.rig_runs import TRUTH, rig_settings, robot_of_settings, simulated, write_run

AUTHORS = {
    "I1": 0.053, "I2": 0.024, "Ir": 7.7e-5, "b1": 0.001, "b2": 0.002, "cf1": 0.09, "cf2": 0.08, "g": 9.81, "gr": 6.0, "l1": 0.3,
    "m1": 0.56, "m2": 0.6, "r1": 0.3, "r2": 0.18,
}  # fmt: skip


def job(fitted: Path, unfitted: Path, *overrides: str) -> DoublePendulumRig:
    paths = (f"task.fitted={fitted}", f"task.unfitted={unfitted}", "task.authors=null")
    return instantiate(rig_settings(*paths, *overrides), _convert_="all")


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Path, Path]:
    robot = robot_of_settings()
    return (
        write_run(tmp_path / "fitted.csv", *simulated(robot, 6.0, seed=1)),
        write_run(tmp_path / "unfitted.csv", *simulated(robot, 3.0, seed=2), seed=1),
    )


@pytest.mark.slow
def test_known_numbers_come_back_and_another_run_is_predicted(runs: tuple[Path, Path], tmp_path: Path) -> None:
    task = job(*runs)
    with Recorder(tmp_path / "run", {}, wandb="disabled", show_progress=False) as recorder:
        result = task.run(recorder)
    found, truth = result.parameters, TRUTH
    told = ("upper_length", "upper_moment", "lower_moment", "upper_total", "lower_total", "upper_friction", "lower_friction")
    for name in (*told, "armature", "upper_damping", "lower_damping"):
        e = found[name]
        assert abs(e.value - truth[name]) < 0.1 * truth[name], (name, e, truth[name])
        assert abs(e.value - truth[name]) < max(1.5 * (e.high - e.low) / 2, 0.005 * truth[name]), (name, e, truth[name])
        assert not e.weak, name
    assert found["upper_mass"].weak and found["lower_mass"].weak  # motion does not tell them
    assert result.metrics["prediction_rms_rad"].value < 0.03  # of angles of several radians
    with open(tmp_path / "run" / "trajectory.csv", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    count = round(2.0 * 200)
    off = [float(r[f"ours_{j}"]) - float(r[f"measured_{j}"]) for r in rows[1 : count + 1] for j in (1, 2)]
    assert rms(np.array(off)) == pytest.approx(result.metrics["prediction_rms_rad"].value, rel=1e-2, abs=2e-6)


@pytest.mark.slow
def test_the_certificate_holds(runs: tuple[Path, Path]) -> None:
    rows = job(*runs, "task.sigma=0.05").check()  # a wider penalty: a loss with less curvature
    assert {row.name for row in rows} == set(TRUTH)
    told = [row for row in rows if "mass" not in row.name]
    assert all(row.passed for row in told) and sum(bool(row.note) for row in told) <= 2, rows
    most = max(abs(row.analytic) for row in told)  # masses: zero where the base numbers are given, but for rounding
    assert all(max(abs(row.analytic), abs(row.numeric)) < 1e-4 * most for row in rows if row not in told), rows


def test_the_authors_plant_is_ours_with_their_numbers() -> None:
    """Our tree with the base numbers that theirs amount to, without dry friction: one motion."""
    model = AuthorsModel(AUTHORS | {"cf1": 0.0, "cf2": 0.0})
    values = model.base() | {"upper_mass": AUTHORS["m1"], "lower_mass": AUTHORS["m2"]}
    values |= {"upper_friction": 0.0, "lower_friction": 0.0}
    robot = robot_of_settings()
    rollout = ArticulatedRollout(robot.topology, frame_rate=200.0, frame_count=160, substeps=4, integrator="rk4", chunk=8)
    torques = np.stack([np.sin(np.arange(160) / 9.0), 0.4 * np.cos(np.arange(160) / 14.0)], axis=1)
    linkage = robot(**{name: torch.tensor([value]) for name, value in values.items()})
    start = State(torch.tensor([[0.7, -0.4]]), torch.tensor([[0.5, 1.0]]))
    ours = rollout(start, linkage, controls=torch.from_numpy(torques).float()[None]).coordinates[0].double().numpy()
    theirs = model.path(np.array([0.7, -0.4]), np.array([0.5, 1.0]), torques, 1.0 / 200.0)
    assert np.abs(theirs - theirs[0]).max() > 0.5 and np.abs(ours - theirs).max() < 2e-4


def test_the_authors_friction_is_an_arc_tangent() -> None:
    model, zero = AuthorsModel(AUTHORS), np.zeros(2)
    slow, none = (model.acceleration(zero, np.array([v, 0.0]), zero) for v in (0.01, 0.0))
    free = AuthorsModel(AUTHORS | {"cf1": 0.0}).acceleration(zero, np.array([0.01, 0.0]), zero)
    push = AUTHORS["cf1"] * math.atan(1.0)
    held = AuthorsModel(AUTHORS | {"cf1": 0.0}).acceleration(zero, np.array([0.01, 0.0]), np.array([-push, 0.0]))
    assert np.allclose(none, 0.0) and np.allclose(slow, held) and not np.allclose(slow, free)
    with pytest.raises(UserError, match="'gr' is missing"):
        AuthorsModel({k: v for k, v in AUTHORS.items() if k != "gr"})


def test_runs_that_are_refused(tmp_path: Path) -> None:
    t = np.arange(100) / 200.0
    good = write_run(tmp_path / "good.csv", np.stack([np.sin(3 * t), np.cos(3 * t)], 1), np.ones((99, 2)), noise=0.0)
    run = read_run(good)
    assert run.frame_rate == pytest.approx(200.0) and run.release == 99
    assert np.allclose(run.rates[:, 0], 3 * np.cos(3 * t), atol=2e-3)
    text = good.read_text().splitlines()
    for name, lines, message in (
        ("columns", [line.rsplit(",", 1)[0] for line in text], "expected a CSV with the columns time, pos1"),
        ("gap", text[:30] + text[40:], "expected samples at even times"),
        ("short", text[:20], "expected at least 50 samples"),
        ("nan", [*text[:50], text[50].replace(text[50].split(",")[1], "nan"), *text[51:]], "or NaN"),
        ("words", [text[0], *(["a,b,c,d,e,f,g"] * 60)], "expected a CSV"),
        ("empty", [], "expected a CSV"),
    ):
        path = tmp_path / f"{name}.csv"
        path.write_text("\n".join(lines))
        with pytest.raises(UserError, match=message):
            read_run(path)
    with pytest.raises(InstantiationException, match="expected 3 or more windows"):
        job(good, good)
    with pytest.raises(InstantiationException, match="sigma: expected a positive"):
        job(good, good, "task.sigma=0")


@pytest.mark.slow
@pytest.mark.data("double_pendulum_060143", "double_pendulum_060329", "double_pendulum_model_2_0")
def test_the_rig_is_predicted_better_than_with_its_builders_numbers(tmp_path: Path) -> None:
    task = instantiate(rig_settings(), _convert_="all")
    with Recorder(tmp_path / "run", {}, wandb="disabled", show_progress=False) as recorder:
        metrics = task.run(recorder).metrics
    assert metrics["prediction_rms_rad"].passed and metrics["prediction_rms_rad"].value < 0.05
