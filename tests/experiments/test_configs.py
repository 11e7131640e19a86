"""Every experiment's YAML composes as the command line does it, builds, and descends; without data and without a network."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_module
from hydra.utils import instantiate

import dvc.data
from configs import __file__ as packaged
from dvc.data import DataUnavailable
from dvc.optimize import Phase, optimize
from dvc.recorder import Recorder
from dvc.video_fit import VideoFit
from experiments.picture_newton import active_numbers, descend
from geometry.mesh import icosphere
from geometry.mesh_io import write_mesh
from tests.experiments.rig_runs import write_run
from tests.experiments.toss_files import simulated, write_tosses

NAMES = sorted(path.stem for path in (Path(packaged).parent / "experiment").glob("*.yaml"))
FRAMES = 32  # of the clip, in the tests that render one


class Quiet:
    """A recorder that keeps the notes."""

    restored = None

    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)

    def save_video(self, *_):
        pass


@pytest.fixture(autouse=True)
def no_data(monkeypatch, tmp_path):
    """No data folder, no cache, no network."""

    def refuse(item):
        raise OSError("no network in tests")

    monkeypatch.delenv("DIFFVC_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dvc.data, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(dvc.data, "_download", refuse)


def composed(name: str, *overrides: str):
    with initialize_config_module("configs", version_base="1.3"):
        return compose("run", overrides=[f"experiment={name}", *overrides])


VIDEO_FITS = [name for name in NAMES if "first_frame" in composed(name)]


def task_of(name: str, *overrides: str):
    torch.manual_seed(0)
    if "target" in composed(name).task:  # no data here: an ellipsoid stands in for the surface
        vertices, faces = icosphere(3)
        ellipsoid = write_mesh("ellipsoid.obj", vertices * np.array([1.0, 0.6, 0.8], np.float32), faces, up="z")
        overrides = (f"task.target={ellipsoid}", *overrides)
    if name == "double_pendulum_rig":  # a run in which nothing moves
        still = write_run(Path("run.csv"), np.zeros((401, 2)), np.zeros((400, 2)))
        overrides = (f"task.fitted={still}", f"task.unfitted={still}", "task.authors=null", *overrides)
    if name == "cube_toss":
        overrides = (f"tosses={write_tosses(Path('tosses'), simulated(5))}", "task.unfitted=[2]", *overrides)
    return instantiate(composed(name, *overrides).task, _convert_="all")


def fit_of(task) -> VideoFit:
    """The fit of a task: itself, or the one that it repeats."""
    return getattr(task, "fit", task)


def short(name: str) -> list[str]:
    first = composed(name).get("first_frame", 0)
    return [f"last_frame={first + FRAMES}"] if "last_frame" in composed(name) else []


def test_there_are_experiments():
    assert {"pendulum_video", "pendulum_hybrid", "projectile_video"} <= set(VIDEO_FITS) < set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_it_composes_and_builds(name):
    config = composed(name)
    assert config.name == name and len(config.claim) > 20
    task = task_of(name)
    assert callable(task.run) and callable(task.check)
    pipeline = task.pipeline
    assert (
        any(p.requires_grad for p in pipeline.parameters())
        and "stage" in pipeline.describe()
        and pipeline.mermaid().startswith("flowchart")
    )
    for parameter_name, parameter in pipeline.declared().items():
        value = parameter().detach()
        assert torch.isfinite(parameter.raw).all(), parameter_name
        assert parameter.lower is None or (value > parameter.lower).all(), parameter_name
        assert parameter.upper is None or (value < parameter.upper).all(), parameter_name
        assert parameter.unit, parameter_name
        start = parameter.to_raw(parameter.sample(20, torch.Generator().manual_seed(0)))
        assert torch.isfinite(start).all(), parameter_name


@pytest.mark.parametrize("name", VIDEO_FITS)
def test_its_names_are_those_of_the_pipeline(name):
    fit = fit_of(task_of(name))
    for phase in fit.phases:
        assert isinstance(phase, Phase)
        assert set(phase.terms or ()) <= set(fit.objective.terms) and set(phase.train or ()) <= set(fit.pipeline.declared())
    assert set(fit.final_terms) <= set(fit.objective.terms)
    wanted = [
        *fit.objective.outputs,
        *fit.names.values(),
        *(d.output for d in fit.derived.values()),
        *fit.rendered.get("truth", {}),
    ]
    assert fit.pipeline.needed(wanted)
    assert set(fit.final) >= {"level", "horizon"} and not fit.pipeline.stages[fit.names["clip"]].available
    used = {s[1:] for inputs in fit.pipeline.wiring.values() for s in inputs.values() if s.startswith("$")}
    assert all(used <= {*fit.context, *phase.context} for phase in fit.phases)


@pytest.mark.slow
@pytest.mark.parametrize("name", VIDEO_FITS)
def test_two_steps_of_its_first_phase_and_the_loss_falls(name):
    fit = fit_of(task_of(name, *short(name)))
    assert not fit.clip.available
    assert fit.prepare() is not None
    fit.check_first_guess()
    phase = next(p for p in fit.phases if p.steps)
    starts = torch.cat([fit.vector.gather()[:1], fit.vector.sample(1, torch.Generator().manual_seed(0))])
    settings = {k: getattr(phase, k) for k in ("name", "optimizer", "terms", "train", "weights", "context", "lr", "options")}
    losses = []
    for steps in (0, 2):
        found = optimize(fit.pipeline, fit.objective, [Phase(**settings, steps=steps)], starts=starts, context=fit.context)
        losses.append(found.loss)
    assert torch.isfinite(losses[1]).all() and losses[1].min() < losses[0].min() and losses[1].sum() < losses[0].sum()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["camera_calibration", "toss_video"])
def test_two_steps_of_a_ray_traced_fit_and_the_loss_falls(name):
    small = {
        "camera_calibration": ["task.width=48", "task.height=36", "task.photograph_samples=16", "task.truth.focal=50",
                               "task.parameters.focal.initial=57"],
        "toss_video": ["task.width=48", "task.height=36", "task.clip_samples=16", "task.frames=4"],
    }[name]  # fmt: skip
    if name == "toss_video":  # and no phase beyond the clip
        small += [
            f"task.{kind}.{n}.context.horizon=4" for kind, count in (("phases", 3), ("pose_phases", 3)) for n in range(count)
        ]
    task = task_of(name, *small)
    task.prepare()
    context, active = {**task.context, **task.phases[0].context}, active_numbers(task.vector, task.phases[0])
    losses = []
    descend(
        partial(task._problem, context), partial(task.columns, context, active), task.vector.gather()[0], active, 2, 0,
        lambda _, loss: losses.append(loss),
    )  # fmt: skip
    before = float(task._problem(context, 0).loss_only(task.vector.gather()))
    assert len(losses) == 2 and losses[1] < 0.9 * before


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shape_from_images", "shadow_art"])
def test_a_few_steps_of_a_surface_lower_its_loss(name, tmp_path):
    task = task_of(name, "task.phases=[{steps: 3, lr: 0.03, nodes: 16, columns: 16}]", "task.pixels=16")
    with Recorder(tmp_path / "run", {}, wandb="disabled", show_progress=False) as recorder:
        result = task.run(recorder)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for begun, ended in zip(rows[::3], rows[2::3], strict=True):
        assert begun["phase"] == ended["phase"] and ended["loss"] < begun["loss"]
    assert len(rows) == 3 * len(getattr(task, "representations", ["shadows"])) and result.claim == task.claim


def test_data_that_is_missing_is_named_where_nothing_can_be_rendered():
    with pytest.raises(Exception, match="pendulum_wall") as caught:
        task_of("pendulum_video", "task.pipeline.stages.clip.size=null")
    assert isinstance(caught.value.__cause__ or caught.value, DataUnavailable) or "DataUnavailable" in str(caught.value)
    for name, item in (("double_pendulum_rig", "double_pendulum_060143"), ("cube_toss", "cube_toss")):
        with pytest.raises(Exception, match=item) as caught:
            instantiate(composed(name).task, _convert_="all")
        assert isinstance(caught.value.__cause__ or caught.value, DataUnavailable) or "DataUnavailable" in str(caught.value)


@pytest.mark.slow
def test_the_certificate_of_a_small_experiment():
    from dvc.gradient_check import format_table

    task = task_of("projectile_video", "last_frame=12")
    task.prepare()
    rows = task.check()
    assert {row.name.split("/")[0] for row in rows} == {"moments", "pixels"}
    assert all(row.passed for row in rows), format_table(rows)


def test_certificate_of_a_task_whose_clip_is_rendered(tmp_path):
    """`diffvc check` renders the clip first, as `run` does."""
    with initialize_config_module("configs", version_base="1.3"):
        config = compose("run", overrides=["experiment=projectile_video", "last_frame=12", "task.segments=3"])
    task = instantiate(config.task, _convert_="all")
    assert task.prepare() is not None
    frames = task.outputs(["clip"])["clip"].images
    assert frames.shape[1] == 12
