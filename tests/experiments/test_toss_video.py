"""A cube from its video: nodes and frames, derivatives, a step that helps, known numbers that come back (simulated toss)."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.errors import InstantiationException
from hydra.utils import instantiate

from dvc.gradient_check import certified, format_table
from dvc.recorder import Recorder
from experiments.toss_pictures import frame_nodes
from experiments.toss_video import SHOWN, TossVideo

SMALL = ("tosses=null", "task.width=48", "task.height=36", "task.clip_samples=32", "task.samples=4", "task.frames=8",
         "task.phases.0.context.level=1", "task.phases.1.context.level=1", "task.phases.2.context={level: 0, horizon: 8}",
         "task.level=0")  # fmt: skip


def job(*overrides: str) -> TossVideo:
    with initialize_config_module("configs", version_base="1.3"):
        config = compose("run", overrides=["experiment=toss_video", *SMALL, *overrides])
    return instantiate(config.task, _convert_="all")


@pytest.fixture(scope="module")
def small() -> TossVideo:
    task = job()
    task.prepare()
    return task


def test_frames_have_the_samples_before_at_and_after_their_middle() -> None:
    nodes = frame_nodes(torch.arange(9.0)[None, :, None])
    assert nodes[0, :, :, 0].tolist() == [[0, 1, 2], [2, 3, 4], [4, 5, 6], [6, 7, 8]]


def test_the_true_numbers_give_the_measured_path(small: TossVideo) -> None:
    values = {name: torch.tensor([small.truth[name]]) for name in SHOWN}
    values |= {name: torch.tensor(small.flight[name])[None].float() for name in ("velocity", "spin")}
    start = small.vector.gather()
    try:
        small.pipeline.set_values(values)
        scores = small.scores(small.vector.gather()[0])
        assert scores["position_rms_mm"][0] < 0.5 and scores["rotation_rms_deg"][0] < 0.5, scores
        assert scores["velocity_error_m_s"][0] < 1e-5 and scores["side_m"][0] == pytest.approx(small.truth["side"])
        off = (small._look() - small.misfit.observed[0]).std()
        assert float(off) < 1.6 * small.noise  # the sensor's noise, and that of few samples
    finally:
        small.vector.scatter(start)
    assert float((small._look() - small.misfit.observed[0]).std()) > 3.0 * small.noise


@pytest.mark.slow
def test_derivative_images_and_reverse_mode_agree(small: TossVideo) -> None:
    """Through contact, poses and pixels; contracted with the same residuals, within what several seeds scatter."""
    context, x, every = {**small.context, "level": 1, "horizon": 6}, small.vector.gather()[0], torch.ones(small.vector.size)
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
    assert bool((off < 5.0 * spread + 0.03 * two.mean(0).abs()).all()), torch.stack([one.mean(0), two.mean(0), spread])
    assert bool((two.mean(0).abs() > 0).all())


@pytest.mark.slow
def test_known_numbers_come_back_from_pixels(tmp_path: Path) -> None:
    task = job("task.samples=8")
    with Recorder(tmp_path / "run", {}, wandb="disabled", show_progress=False) as recorder:
        result = task.run(recorder)
    m = {name: metric.value for name, metric in result.metrics.items()}
    assert abs(m["error/side"]) < 0.002 and abs(m["error/friction"]) < 0.1
    assert m["velocity_error_m_s"] < 0.05 < m["start_velocity_error_m_s"]
    assert m["position_rms_mm"] < 4.0 < m["start_position_rms_mm"]
    assert set(result.parameters) == {*SHOWN, "velocity", "spin"}
    assert {"friction_from_poses", "dissipation_from_poses", "side_m_from_poses"} <= m.keys()
    kept = np.load(tmp_path / "run" / "paths.npz")
    off = np.linalg.norm(kept["found_position"] - kept["measured_position"], axis=1)
    assert 1e3 * np.sqrt((off**2).mean()) == pytest.approx(m["position_rms_mm"], rel=1e-3)
    assert all((tmp_path / "run" / name).is_file() for name in ("clip.mp4", "overlay.mp4", "frames.png"))


@pytest.mark.slow
def test_the_certificate_holds(small: TossVideo) -> None:
    rows = small.check()
    assert len(rows) == small.vector.size and certified(rows), format_table(rows)


def test_what_is_refused_in_one_line() -> None:
    for overrides, message in (
        (("task.frames=60",), "expected a clip within toss simulated"),
        (("task.lead=200",), "expected a clip within toss simulated"),
        (("~task.parameters.scale",), "parameters: expected friction"),
    ):
        with pytest.raises(InstantiationException, match=message):
            job(*overrides)
