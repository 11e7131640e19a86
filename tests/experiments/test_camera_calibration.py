"""Calibration from photographs: derivatives agree, errors are as defined, a camera that is a little wrong is mended."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.errors import InstantiationException
from hydra.utils import instantiate

from dvc.gradient_check import certified, format_table
from dvc.recorder import Recorder
from experiments.camera_calibration import NAMES, CameraCalibration
from render.camera import project

SMALL = ("task.width=48", "task.height=36", "task.photograph_samples=32", "task.samples=4", "task.truth.focal=50",
         "task.parameters.focal.initial=57")  # fmt: skip


def job(*overrides: str) -> CameraCalibration:
    with initialize_config_module("configs", version_base="1.3"):
        config = compose("run", overrides=["experiment=camera_calibration", *SMALL, *overrides])
    return instantiate(config.task, _convert_="all")


@pytest.fixture(scope="module")
def small() -> CameraCalibration:
    task = job()
    task.prepare()
    return task


def test_errors_as_defined(small: CameraCalibration) -> None:
    start = small.vector.gather()
    try:
        small.pipeline.set_values(small.truth)
        assert all(value < 1e-4 for value, unit in small.errors().values()), small.errors()
        small.pipeline.set_values({"focal": 1.02 * small.truth["focal"]})
        assert small.errors()["focal_error_rel"][0] == pytest.approx(0.02, rel=1e-3)
        seen = project(small.cameras(**small.truth), small.points[None].expand(3, -1, -1)) - torch.tensor([24.0, 18.0])
        assert small.errors()["reprojection_rms_px"][0] == pytest.approx(
            0.02 * float(seen.square().sum(-1).mean().sqrt()), rel=1e-3
        )
        moved = small.truth["distortion"] + torch.tensor([[0.1, 0.0, 0.0, 0.0, 0.0]])
        small.pipeline.set_values({"focal": small.truth["focal"], "distortion": moved})
        r = np.hypot(24.0, 18.0) / float(small.truth["focal"])
        assert small.errors()["distortion_error_px"][0] == pytest.approx(0.1 * r**3 * float(small.truth["focal"]), rel=1e-3)
        turned = small.truth["angles"] + torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.1, 0.0], [0.0, 0.0, 0.0]])
        small.pipeline.set_values({"angles": turned, "position": small.truth["position"] + 0.01})
        assert small.errors()["rotation_error_deg"][0] == pytest.approx(np.degrees(0.1), rel=1e-3)
        assert small.errors()["position_error_m"][0] == pytest.approx(0.01 * 3**0.5, rel=1e-3)
    finally:
        small.vector.scatter(start)


@pytest.mark.slow
def test_derivative_images_and_reverse_mode_agree(small: CameraCalibration) -> None:
    """Contracted with the same residuals, within what several seeds scatter."""
    context, x, every = {**small.context, "level": 1}, small.vector.gather()[0], torch.ones(small.vector.size)
    fixed = small._problem(context, 5).evaluate(x[None])["pixels"][0]
    ahead, back = [], []
    for seed in range(20, 25):
        ahead.append(torch.einsum("pcv,cv->p", small.columns(context, every, x, seed), fixed))
        leaf = x[None].clone().requires_grad_(True)
        values = small.pipeline(["pixels"], context={**context, "seed": seed}, raw=small.vector.split(leaf))
        (values["pixels"][0] * fixed).sum().backward()
        back.append(leaf.grad[0])
    one, two = torch.stack(ahead), torch.stack(back)
    spread = torch.hypot(one.std(0), two.std(0)) / 5**0.5
    off = (one.mean(0) - two.mean(0)).abs()
    assert bool((off < 5.0 * spread + 0.02 * two.mean(0).abs()).all()), torch.stack([one.mean(0), two.mean(0), spread])
    assert bool((two.mean(0).abs() > 0).all())
    some = small.columns(context, (torch.arange(small.vector.size) < 2).float(), x, 20)
    assert float(some[2:].abs().max()) == 0.0 and bool((some[:2].abs().amax((1, 2)) > 0).all())


@pytest.mark.slow
def test_a_wrong_camera_is_mended_and_the_artefacts_tell(tmp_path: Path) -> None:
    near = ["task.parameters.focal.initial=52", "task.parameters.position.initial=${task.truth.position}",
            "task.phases.0.steps=2", "task.phases.1.steps=2", "task.phases.2.steps=4", "task.phases.3.steps=4"]  # fmt: skip
    task = job(*near, "task.tiles=3", "task.samples=8")
    with Recorder(tmp_path / "run", {}, wandb="disabled", show_progress=False) as recorder:
        result = task.run(recorder)
    metrics = {name: metric.value for name, metric in result.metrics.items()}
    assert metrics["reprojection_rms_px"] < 0.3 and metrics["start_reprojection_rms_px"] > 1.5
    assert metrics["rotation_error_deg"] < 0.5 * metrics["start_rotation_error_deg"]
    assert set(result.parameters) == set(NAMES)
    assert metrics["inside_intervals"] >= 0.4  # three tiles of eight samples: rough intervals
    kept = np.load(tmp_path / "run" / "photographs.npz")
    assert kept["photographs"].shape == kept["found"].shape == (3, 36, 48, 3)
    assert np.abs(kept["found"] - kept["photographs"]).mean() < 0.04
    assert (tmp_path / "run" / "photographs.png").is_file() and (tmp_path / "run" / "difference.png").is_file()


@pytest.mark.slow
def test_the_certificate_holds(small: CameraCalibration) -> None:
    rows = small.check()
    assert len(rows) == small.vector.size and certified(rows), format_table(rows)


def test_what_is_refused_in_one_line() -> None:
    for overrides, message in (
        (("~task.truth.focal",), "truth: expected focal, distortion, position, angles"),
        (("task.truth.position=[[0.0,0.0,1.0]]",), "truth.position: expected shape"),
        (("task.sigma=0",), "sigma above 0"),
        (("+task.phases.0.refresh=3",), "phase 'pose': refresh is not looked at"),
    ):
        with pytest.raises(InstantiationException, match=message):
            job(*overrides)
