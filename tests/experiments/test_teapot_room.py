"""A teapot in a room: shape and errors as defined, a loss without noise, a small descent, the certificate, refusals."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.errors import InstantiationException
from hydra.utils import instantiate

from dvc.errors import UserError
from dvc.gradient_check import certified, format_table
from dvc.recorder import Recorder
from experiments.known_objects import teapot
from experiments.teapot_pictures import HALF, POT, rotation
from experiments.teapot_room import ERRORS, NAMES, TeapotRoom, shown
from geometry.mesh_topology import mesh_topology, require_outward

SMALL = ("task.width=32", "task.height=24", "task.target_samples=48", "task.texture.size=8")
SHORT = "task.phases=[{name: all, steps: 3, level: 1, samples: 4, lr: 0.05, last_lr: 0.02}]"


def job(*overrides: str) -> TeapotRoom:
    with initialize_config_module("configs", version_base="1.3"):
        config = compose("run", overrides=["experiment=teapot_room", *SMALL, *overrides])
    return instantiate(config.task, _convert_="all")


@pytest.fixture(scope="module")
def small() -> TeapotRoom:
    task = job()
    task.prepare()
    return task


def test_the_teapot_is_closed_of_the_given_length_and_turns() -> None:
    mesh = teapot(POT)
    require_outward("teapot", mesh.vertices, mesh.faces)
    assert bool((mesh_topology(mesh.faces).edges[:, 2:4] >= 0).all())
    x, y, z = mesh.vertices[0].unbind(-1)
    assert float(x.max() - x.min()) == pytest.approx(POT, rel=1e-5) and float(y.abs().max()) < 0.75 * float(x.abs().max())
    assert float(z.max()) > 1.2 * float(-z.min())  # the knob
    assert len(mesh.vertices[0]) - len(mesh.faces) // 2 == 0  # V - E + F of a closed surface with one handle
    turn = rotation(torch.tensor([[0.0, 0.0, math.pi / 2]]))[0]
    assert torch.allclose(turn @ torch.tensor([1.0, 0.0, 0.0]), torch.tensor([0.0, 1.0, 0.0]), atol=1e-6)
    with pytest.raises(UserError, match="length above 0"):
        teapot(0.0)


def test_everything_hangs_free_at_the_first_guess_and_in_truth() -> None:
    """Where surfaces cut through each other the gradient leaves out the curve: neither teapot nor lamp touches a wall."""
    task = job()
    for values in (task.truth, {name: task.parameters[name]().detach() for name in NAMES}):
        scene = task.pictures.scene(**values)
        for body in scene.bodies[-2:]:
            points = body.mesh.vertices[0]
            assert float(points[:, :2].abs().max()) < HALF - 0.01 and 0.02 < float(points[:, 2].min()) < 0.79


def test_errors_as_defined(small: TeapotRoom) -> None:
    assert all(value < 1e-3 for name, (value, _) in small.errors(small.truth).items() if not name.endswith("db"))
    off = {
        "place": small.truth["place"] + torch.tensor([[0.003, 0.0, 0.004]]), "roughness": 1.1 * small.truth["roughness"],
        "texture": small.truth["texture"] + 0.01, "lamp_place": small.truth["lamp_place"] + torch.tensor([[0.0, 0.02, 0.0]]),
        "lamp_colour": 0.9 * small.truth["lamp_colour"],
    }  # fmt: skip
    x, y, z = small.truth["turn"][0].tolist()
    longer = math.radians(2.0) / math.sqrt(x * x + y * y + z * z)
    errors = {n: v for n, (v, _) in small.errors({**small.truth, **off, "turn": small.truth["turn"] * (1.0 + longer)}).items()}
    assert errors == pytest.approx(
        {
            "pose_error_mm": 5.0, "pose_error_deg": 2.0, "roughness_error_rel": 0.1, "texture_rms": 0.01,
            "texture_psnr_db": 40.0, "light_position_error_mm": 20.0, "light_colour_error_rel": 0.1,
        }, rel=1e-3,
    )  # fmt: skip


def test_the_loss_does_not_see_the_noise_of_the_renders() -> None:
    """At the truth it is that of the targets' own noise, of which there is little here, though each render is far from them."""
    task = job("task.target_samples=512", "task.noise=0")
    task.prepare()
    phase = {"level": 0, "samples": 4}
    far = [float(task.pipeline(["loss"], context=task.context(phase, k))["loss"].detach()) for k in range(3)]
    task.pipeline.set_values(task.truth)
    values = [task.pipeline(["loss", "pictures"], context=task.context(phase, k)) for k in range(10, 22)]
    near = np.array([float(v["loss"].detach()) for v in values])
    halves = [v["pictures"].detach().chunk(2)[0] for v in values]
    plain = [float(task.loss.weighted(one - task.targets, 0).square().mean()) for one in halves]
    assert abs(near.mean()) < 4.0 * near.std() / len(near) ** 0.5 + 0.02 * np.mean(plain)
    assert abs(near.mean()) < 0.1 * np.mean(plain) and min(far) > 5.0 * abs(near.mean())


def test_three_steps_and_what_is_left_behind(tmp_path: Path) -> None:
    task = job(SHORT, "task.views=2")
    with Recorder(tmp_path / "run", {}, wandb="disabled", show_progress=False) as recorder:
        metrics = {name: metric.value for name, metric in task.run(recorder).metrics.items()}
    assert set(metrics) == {*ERRORS, *(f"start_{name}" for name in ERRORS), "seconds"}
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 3 and rows[-1]["loss"] < rows[0]["loss"] and "texture" not in rows[0]["parameters"]
    assert metrics["light_position_error_mm"] < metrics["start_light_position_error_mm"]
    kept = np.load(tmp_path / "run" / "pictures.npz")
    assert kept["targets"].shape == (2, 24, 32, 3) and kept["found"].shape == kept["clean"].shape == (3, 24, 32, 3)
    seen = [shown(torch.from_numpy(kept[name]), float(kept["clean"].mean())).numpy() for name in ("found", "clean")]
    assert -10.0 * np.log10(np.square(seen[0][-1] - seen[1][-1]).mean()) == pytest.approx(metrics["psnr_heldout_db"], abs=1e-3)
    rms = np.sqrt(np.square(kept["found_texture"] - kept["true_texture"]).mean())
    assert rms == pytest.approx(metrics["texture_rms"], rel=1e-4)
    assert (tmp_path / "run" / "pictures.png").is_file() and (tmp_path / "run" / "textures.png").is_file()


@pytest.mark.slow
def test_a_short_descent_recovers_all_together(tmp_path: Path) -> None:
    phases = (
        "task.phases=["
        "{name: light, steps: 30, level: 1, samples: 16, lr: 0.1, last_lr: 0.06, train: [lamp_place, lamp_colour, texture]},"
        "{name: all, steps: 60, level: 1, samples: 16, lr: 0.06, last_lr: 0.03},"
        "{name: fine, steps: 60, level: 0, samples: 8, lr: 0.03, last_lr: 0.004}]"
    )
    task = job(phases)
    with Recorder(tmp_path / "run", {}, wandb="disabled", show_progress=False) as recorder:
        metrics = {name: metric.value for name, metric in task.run(recorder).metrics.items()}
    assert metrics["psnr_heldout_db"] > metrics["start_psnr_heldout_db"] + 8.0
    for name in ("pose_error_mm", "pose_error_deg", "roughness_error_rel", "light_position_error_mm", "light_colour_error_rel",
                 "texture_rms"):  # fmt: skip
        assert metrics[name] < 0.5 * metrics[f"start_{name}"], (name, metrics)


@pytest.mark.slow
def test_the_certificate_holds(small: TeapotRoom) -> None:
    rows = small.check()
    assert len(rows) == 3 + 3 + 1 + 12 + 3 + 3 and certified(rows), format_table(rows)


def test_what_is_refused_in_one_line() -> None:
    for overrides, message in (
        (("~task.truth.turn",), "truth: expected lamp_colour, lamp_place, place, roughness, turn"),
        (("task.truth.lamp_place=[0.0,1.0]",), "truth.lamp_place: expected shape"),
        (("task.truth.roughness=nan",), "truth.roughness: expected finite"),
        (("task.truth.roughness=rough",), "truth.roughness: expected a number"),
        (("task.views=5",), "views: expected 1 to 4, got 5"),
        (("+task.rates.rug=2.0",), "rates: expected factors above 0"),
        (("task.rates.lamp_place=[1.0,2.0]",), "rates: expected factors above 0"),
        (("task.phases=[]",), "phases: expected at least one"),
        (("task.phases.0.steps=0",), "phases: expected name, steps"),
        (("task.phases.0.train=[lamp]",), "no unknown 'lamp'"),
        (("task.phases.0.level=4",), "divides 32 x 24"),
        (("+task.expected.pose=1",), "expected names of pose_error_mm"),
        (("task.noise=-1",), "noise from 0"),
    ):
        with pytest.raises(InstantiationException, match=message):
            job(*overrides)
