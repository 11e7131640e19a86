"""The table of gradients of a swinging and a walking chain: small ones; Newton's answer where it is installed."""

import csv
import math
from pathlib import Path

import pytest
import torch

from dvc.parameter import Parameter
from dvc.pipeline import Pipeline
from dvc.recorder import Recorder
from experiments.chain_motion import SwingingChain, WalkingChain
from experiments.morphology_gradient import MorphologyGradient


def job(**settings) -> MorphologyGradient:
    shape = {
        "length": Parameter([0.12, 0.1], lower=0.04, upper=0.4, unit="m"),
        "radius": Parameter([0.025, 0.02], lower=0.005, upper=0.1, unit="m"),
        "density": Parameter([1000.0, 800.0], lower=100.0, upper=1e4, unit="kg/m^3"),
    }
    wiring = {name: name for name in shape}
    motions = {"swing": SwingingChain(2, seconds=0.2), "walk": WalkingChain(2, seconds=0.2)}
    return MorphologyGradient(pipeline=Pipeline({**shape, **motions}, dict.fromkeys(motions, wiring)), **settings)


def test_every_number_agrees_with_differences(tmp_path: Path) -> None:
    with Recorder(tmp_path / "run", {}, wandb="disabled", show_progress=False) as recorder:
        metrics = job(compare_newton=False).run(recorder).metrics
    for motion in ("swing", "walk"):
        assert metrics[f"{motion}_worst_error"].value < 0.02 and metrics[f"{motion}_excluded"].passed is True
    with open(tmp_path / "run" / "gradients.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 12 and all(abs(float(row["reverse_mode"])) > 0.0 for row in rows)
    assert {row["number"] for row in rows} >= {"swing/length[0]", "walk/density[1]"}


def test_the_swinging_distance_by_hand() -> None:
    """One rigid rod let go from 0.4 rad below the horizontal: after a short time it has fallen as a rod about its end."""
    chain = SwingingChain(1, seconds=0.1, step=1e-3)
    length, radius = torch.tensor([[0.5]]), torch.tensor([[1e-3]])
    distance = float(chain(length, radius, torch.tensor([[1000.0]])))
    angle, rate = 0.4, 0.0
    for _ in range(100_000):  # 3 g cos(angle) / 2 l
        rate += 1e-6 * 1.5 * 9.81 * math.cos(angle) / 0.5
        angle += 1e-6 * rate
    assert distance == pytest.approx(0.5 * math.cos(angle), rel=5e-3)


@pytest.mark.slow
def test_newton_is_silent_about_radius_and_density(tmp_path: Path) -> None:
    pytest.importorskip("newton", reason="newton is not installed: pip install 'diffvc[bench]'")
    with Recorder(tmp_path / "run", {}, wandb="disabled", show_progress=False) as recorder:
        metrics = job().run(recorder).metrics
    assert metrics["newton_zero_gradients"].value == 4 and metrics["newton_worst_error"].value > 0.5
