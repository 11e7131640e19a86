"""What a new user gets wrong: one line with the key, what was expected and what came, exit status 2, nothing begun."""

import filecmp
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dvc.cli import main
from dvc.cli_settings import check_settings, list_keys
from dvc.errors import UserError
from dvc.video import write_video

THROW = """
defaults:
  - projectile_video
  - _self_
name: throw
claim: a ball is thrown
last_frame: 8
task:
  starts: 1
  segments: 4
  checkpoint_every: 1
  final: {level: 0, horizon: null}
  final_terms: [moments]
  phases:
    - _target_: dvc.optimize.Phase
      name: first
      terms: [moments]
      context: {horizon: 4, level: 0}
      train: [position]
      steps: 2
    - _target_: dvc.optimize.Phase
      name: last
      terms: [moments]
      context: {horizon: null, level: 0}
      train: [velocity]
      steps: 2
      survivors: 1
"""
STAGES = """
import torch


class Broken(torch.nn.Module):
    def __init__(self, size: int = 1):
        super().__init__()
        raise ValueError("the size is odd")


class NotANumber(torch.nn.Module):
    def forward(self, x):
        return x * float("nan")


class Crashes(torch.nn.Module):
    def forward(self, x):
        raise RuntimeError("a bug")


class Half(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 1.0

    @staticmethod
    def backward(ctx, gradient):
        return 0.5 * gradient


class WrongGradient(torch.nn.Module):
    def forward(self, x):
        return Half.apply(x)
"""
QUIET = ("wandb.mode=disabled", "progress=false", "out=here")
STAGE, WIRE, PHASE = "task.pipeline.stages.", "task.pipeline.wiring.", "task.phases.0."


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with a tiny experiment, stages of the user's own, and clips that are none."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "throw.yaml").write_text(THROW)
    (tmp_path / "user_stages.py").write_text(STAGES)
    (tmp_path / "text.mp4").write_text("not a video")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DIFFVC_TRACEBACK", raising=False)
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    sys.modules.pop("user_stages", None)


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(folder: Path, capfd: pytest.CaptureFixture[str]) -> Call:
    def run(command: str, *overrides: str, quiet: Sequence[str] = QUIET) -> tuple[int, str, str]:
        capfd.readouterr()
        status = main([command, "experiment=throw", "--config-dir", "mine", *overrides, *quiet])
        return status, *capfd.readouterr()

    return run


def assert_one_line(answer: tuple[int, str, str], *expected: str) -> None:
    status, output, errors = answer
    lines = [line for line in errors.splitlines() if not line.startswith("compiling kernels")]
    assert status == 2 and len(lines) == 1 and lines[0].startswith("diffvc: error: ")
    assert "Traceback" not in output + errors
    for text in expected:
        assert text in lines[0]


# -- values -----------------------------------------------------------------------------------------------------------
@pytest.mark.slow
@pytest.mark.parametrize(("override", "expected"), [
    ("frame_rate=0", "frame_rate: expected a positive number, got 0"),
    ("frame_rate=nan", "frame_rate: expected a finite number, got nan"),
    ("frame_rate=inf", "frame_rate: expected a finite number, got inf"),
    ("frame_rate=null", "motion.frame_rate: expected a number, got null"),
    ("first_frame=1.5", "clip.first: expected a whole number, got 1.5"),
    ("last_frame=ten", "clip.last: expected a whole number, got 'ten'"),
    ("clip=5", "clip.path: expected text or null, got 5"),
    (STAGE + "blur.initial=0", "blur: initial: expected a value strictly inside its bounds"),
    (STAGE + "blur.initial=nan", "blur.initial: expected a finite number, got nan"),
    (STAGE + "blur.initial=.nan", "blur.initial: expected a number or a list of numbers, got '.nan'"),
    (STAGE + "blur.lower=9", "blur: bounds: expected lower < upper, got 9.0 and 5.0"),
    (STAGE + "blur.lower=5.0", "blur: bounds: expected lower < upper, got 5.0 and 5.0"),
    (STAGE + "picture.exposure_samples=0", "exposure_samples: expected at least 1, got 0"),
    (STAGE + "picture.exposure_samples=2.5", "picture.exposure_samples: expected a whole number, got 2.5"),
    (STAGE + "motion.substeps=0", "Rollout.substeps: expected a positive number, got 0"),
    (STAGE + "motion.substeps=nan", "motion.substeps: expected a whole number, got nan"),
    (STAGE + "pixels.sigma=0", "sigma > 0"),
    (STAGE + "moments.color=[nan,1,0]", "moments.color[0]: expected a finite number, got nan"),
    (STAGE + "clip.levels=[{scale: 0}]", "levels[0].scale: expected 1, 1/2, 1/3, ..., got 0"),
    (STAGE + "clip.levels=[{scale: abc}]", "clip.levels[0].scale: expected a number, got 'abc'"),
    (STAGE + "clip.levels=[{scale: 0.25, pad: -999}]", "levels[0].pad: expected a number of pixels from 0"),
    (STAGE + "clip.region=[0,0,480,999]", "Clip.region: expected left < right within 0..480"),
    (STAGE + "clip.region=null", "clip.region: expected a list of numbers, got null"),
    (STAGE + "clip.size=[480]", "Clip.size: expected (width, height) in pixels, got [480]"),
    ("+" + PHASE + "lr=0", "phase 'first': lr is not an option of optimizer 'gauss_newton'"),
    ("+" + PHASE + "options={momentum: 0.5}", "phase 'first': options is not an option of"),
    (PHASE + "steps=1.5", "task.phases[0].steps: expected a whole number, got 1.5"),
    (PHASE + "steps=-1", "expected steps >= 0"),
    ("+" + PHASE + "refresh=0", "expected refresh and worlds_at_once >= 1"),
    (PHASE + "name=null", "task.phases[0].name: expected text, got null"),
    (PHASE + "terms=moments", "task.phases[0].terms: expected a list or null, got 'moments'"),
    ("seed=abc", "seed: expected a whole number from 0"),
    ("seed=true", "seed: expected a whole number from 0"),
    ("seed=99999999999999999999", "seed: expected a whole number from 0"),
    ("claim=null", "claim: expected text, got None"),
    ("task.starts=abc", "task.starts: expected a whole number, got 'abc'"),
    ("task.checkpoint_every=0", "checkpoint_every: expected at least 1, got 0"),
])  # fmt: skip
def test_values(call: Call, folder: Path, override: str, expected: str) -> None:
    assert_one_line(call("run", override), expected)
    assert not (folder / "here").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("overrides", "expected"), [
    (["sed=1"], "did you mean 'seed'?"),
    (["task.start=1"], "did you mean 'task.starts'?"),
    ([STAGE + "blurr.initial=1"], "did you mean 'task.pipeline.stages.blur'?"),
    ([STAGE + "blur.intial=1"], "did you mean 'task.pipeline.stages.blur.initial'?"),
    ([PHASE + "step=1"], "did you mean 'task.phases[0].steps'?"),
    (["task.phases.7.steps=1"], "task.phases.7.steps: no such item"),
    (["+" + STAGE + "blur.intial=1"], "did you mean 'initial'?"),
    ([STAGE + "blur._target_=dvc.Paramter"], "stages.blur: _target_ 'dvc.Paramter' cannot be imported"),
    ([STAGE + "blur._target_=dvc.errors"], "task.pipeline.stages.blur: Expected a callable target"),
    (["~" + STAGE + "blur", "+" + STAGE + "blur={_target_: user_stages.Broken}"],
     "stages.blur: user_stages.Broken cannot be made: ValueError: the size is odd"),
    (["~" + STAGE + "blur", "+" + STAGE + "blur={_target_: user_stages.Broken, size: big}"],
     "stages.blur.size: expected a whole number, got 'big'"),
    ([WIRE + "body.shape=bal"], "wiring of 'body'.shape: no stage 'bal'; did you mean 'ball'?; known names: "),
    (["+" + WIRE + "body.shap=ball"], "wiring of 'body': no argument 'shap'; did you mean 'shape'?"),
    ([WIRE + "ball.radius=body"], "expected no cycle, got ball -> body -> ball"),
    ([WIRE + "ball=null"], "task.pipeline.wiring.ball: expected settings by name, got null"),
    ([PHASE + "terms=[moment]"], "phase 'first': no term 'moment'; terms: moments, pixels"),
    (["task.phases.1.train=[velocty]"], "phase 'last': no declared parameter 'velocty'; did you mean 'velocity'?"),
    (["+task.phases.1.optimizer=adm"], "phase 'last': optimizer: expected gauss_newton or one of torch.optim"),
    ([PHASE + "context.horizon=0"], "phase 'first': context: horizon: expected a number of frames from 1"),
    ([PHASE + "context.horizon=-3"], "phase 'first': context: horizon: expected a number of frames from 1"),
    (["task.phases.1.context.level=9"], "phase 'last': context: level: expected 0 to 1, got 9"),
    (["+" + PHASE + "context.horizn=3"], "the wiring has no $horizn; did you mean 'horizon'?"),
    (["task.final.level=full"], "final: level: expected 0 to 1, got 'full'"),
    (["~task.final", "+task.final={level: 0}"], "final: expected a value of 'horizon'"),
    (["task.final.horizon=2"], "segments: expected at least 3"),
    (["task.final_terms=[pixl]"], "final_terms: no term 'pixl'; did you mean 'pixels'?"),
    (["task.terms.pixels.residual=pixl"], "no stage 'pixl'; did you mean 'pixels'?"),
    (["task.phases.1.name=first"], "phases: expected different names, got 'first' twice"),
    (["task.phases=[]"], "number of phases: expected at least 1, got 0"),
    (["+task.names={track: trak}"], "no stage 'trak'"),
    (["+task.names={clip: clp}"], "names.clip: no stage 'clp'; did you mean 'clip'?"),
])  # fmt: skip
def test_names(call: Call, folder: Path, overrides: list[str], expected: str) -> None:
    assert_one_line(call("run", *overrides), expected)
    assert not (folder / "here").exists()


# -- clips ------------------------------------------------------------------------------------------------------------
@pytest.fixture
def clips(folder: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 255, (12, 320, 480, 3), np.uint8)
    write_video("noise.mp4", frames, 60.0)
    Path("cut.mp4").write_bytes(Path("noise.mp4").read_bytes()[:20000])
    Path("empty.mp4").touch()
    Path("a_folder.mp4").mkdir()


@pytest.mark.slow
@pytest.mark.usefixtures("clips")
@pytest.mark.parametrize(("overrides", "expected"), [
    (["clip=nowhere.mp4"], "expected a file, got nothing there"),
    (["clip=empty.mp4"], "is empty (0 bytes)"),
    (["clip=text.mp4"], "cannot be opened as a video"),
    (["clip=cut.mp4"], "cut"),
    (["clip=a_folder.mp4"], "expected a file, got a folder"),
    (["clip=noise.mp4", "last_frame=13"], "has 12 frames (0 to 11), asked for 0 to 13"),
    (["clip=noise.mp4", "first_frame=8"], "expected 0 <= first < last, got 8 and 8"),
    (["clip=noise.mp4", "last_frame=2"], "segments: expected at least 3"),
])  # fmt: skip
def test_clips(call: Call, overrides: list[str], expected: str) -> None:
    assert_one_line(call("describe", *overrides), expected)


@pytest.mark.parametrize(("overrides", "expected"), [
    ([STAGE + "position.initial=[-9.0,0.0,0.0]"],
     "first guess: expected the model's ball inside the 480x320 frame, got pixel (-"),
    (["clip=still.mp4"], "clip: expected something that moves and that term 'moments' sees, got nothing in any frame"),
    (["+" + STAGE + "bent={_target_: user_stages.NotANumber}", "+" + WIRE + "bent={x: damping}", WIRE + "motion.damping=bent"],
     "first guess: expected finite numbers, got others from stage 'bent'"),
    (["+" + STAGE + "bent={_target_: user_stages.Crashes}", "+" + WIRE + "bent={x: damping}", WIRE + "motion.damping=bent"],
     "stage 'bent': unexpected RuntimeError: a bug"),
    ([WIRE + "ball.radius=clip"], "stage 'ball': "),
    (["+" + PHASE + "optimizer=adam", "+" + PHASE + "options={betas: [2, 3]}"], "phase 'first': Invalid beta parameter"),
])  # fmt: skip
def test_first_guess(call: Call, folder: Path, overrides: list[str], expected: str) -> None:
    write_video("still.mp4", np.full((8, 320, 480, 3), 128, np.uint8), 60.0)
    assert_one_line(call("run", *overrides), expected)
    assert not (folder / "here" / "metrics.jsonl").read_text() and not (folder / "here" / "checkpoints").exists()


@pytest.mark.slow
def test_three_frames_are_a_clip(call: Call, folder: Path) -> None:
    status, _, _ = call("run", "last_frame=3", "task.segments=3")
    assert status == 0 and (folder / "here" / "result.json").is_file()


# -- places -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("out", "expected"), [
    ("text.mp4", "text.mp4: File exists; out=DIR chooses the folder of a run; remedy: a file is in the way"),
    ("text.mp4/deeper", "Not a directory"),
    ("/proc/nowhere", "cannot write /proc/nowhere: No such file or directory"),
    ("", "out: expected a folder, got ''"),
    ("null", "out: expected a folder, got 'null'"),
])  # fmt: skip
def test_out(call: Call, folder: Path, out: str, expected: str) -> None:
    before = sorted(path.name for path in folder.iterdir())
    assert_one_line(call("run", f"out={out}", quiet=QUIET[:2]), expected)
    assert sorted(path.name for path in folder.iterdir() if path.name != "__pycache__") == before


def test_resume_of_what_is_no_run(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for given in ("nowhere", "mine", "text.mp4", ""):
        capfd.readouterr()
        assert_one_line((main(["run", f"resume={given}"]), *capfd.readouterr()), "resume: expected the folder of a run")


@pytest.mark.slow
def test_full_disk_says_how_to_go_on(call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dvc.checkpoint import _keep_as_previous

    written = []

    def full(path: Path) -> None:
        written.append(path)
        if len(written) == 3:
            raise OSError(28, "No space left on device")
        _keep_as_previous(path)

    with monkeypatch.context() as patch:
        patch.setattr("dvc.checkpoint._keep_as_previous", full)
        answer = call("run")
    assert_one_line(answer, "No space left on device", "the last good checkpoint stays readable")
    assert f"go on with: diffvc run resume={folder / 'here'}" in answer[1]
    assert main(["run", "resume=here"]) == 0
    assert call("run", quiet=(*QUIET[:2], "out=whole"))[0] == 0
    assert_same(folder / "here", folder / "whole")


def assert_same(run: Path, whole: Path) -> None:
    for name in ("result.json", "metrics.jsonl", "track.csv"):
        assert filecmp.cmp(run / name, whole / name, shallow=False), name


@pytest.mark.slow
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_killed_run_ends_as_a_whole_one(call: Call, folder: Path, rows: int) -> None:
    """SIGKILL once so many steps are recorded, in a process of its own."""
    assert call("run", quiet=(*QUIET[:2], "out=whole"))[0] == 0
    command = [sys.executable, "-m", "dvc.cli", "run", "experiment=throw", "--config-dir", "mine", *QUIET]
    source = str(Path(__file__).parents[2])
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": source})
    metrics, until = folder / "here" / "metrics.jsonl", time.monotonic() + 120.0
    while not metrics.exists() or metrics.read_bytes().count(b"\n") < rows:
        assert time.monotonic() < until and process.poll() in (None, 0)
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    while not (folder / "here" / "config.yaml").exists():  # killed before anything was there to go on from
        assert rows == 0
        return
    assert main(["run", "resume=here", "progress=false"]) == 0
    assert_same(folder / "here", folder / "whole")


# -- the certificate --------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_check_finds_a_wrong_gradient(call: Call) -> None:
    wires = ("+" + WIRE + "bent={x: velocity}", WIRE + "start.velocity=bent")
    status, output, _ = call("check", "+" + STAGE + "bent={_target_: user_stages.WrongGradient}", *wires)
    assert status == 1 and "failed: moments/velocity[0]" in output


# -- dvc/cli_settings.py ----------------------------------------------------------------------------------------------
def build(
    size: int, rate: float | None = None, boxes: Sequence[Sequence[float]] = (), names: Mapping[str, Any] | None = None
) -> None:
    """Something that a setting may name."""


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.setattr("dvc.cli_errors.located", lambda name: build)
    return {"_target_": "here.build"}


@pytest.mark.parametrize("given", [
    {"size": 3, "rate": 2, "boxes": [[1, 2.0]], "names": {"a": "b"}},
    {"size": {"_target_": "other"}, "rate": None, "boxes": []},
    {"unknown": "left to the constructor"},
])  # fmt: skip
def test_what_fits(target: dict[str, Any], given: dict[str, Any]) -> None:
    check_settings({**target, **given})


@pytest.mark.parametrize(("given", "expected"), [
    ({"size": 3.0}, "task.a.size: expected a whole number, got 3.0"),
    ({"size": True}, "task.a.size: expected a whole number, got True"),
    ({"rate": "fast"}, "task.a.rate: expected a number or null, got 'fast'"),
    ({"boxes": [[1, "x"]]}, r"task.a.boxes\[0\]\[1\]: expected a number, got 'x'"),
    ({"boxes": 3}, "task.a.boxes: expected a list, got 3"),
    ({"names": [1]}, "task.a.names: expected settings by name or null"),
    ({"unknown": [{"b": float("inf")}]}, r"task.a.unknown\[0\].b: expected a finite number, got inf"),
])  # fmt: skip
def test_what_does_not_fit(target: dict[str, Any], given: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        check_settings({"a": {**target, **given}})


def test_items_of_lists_are_named() -> None:
    assert list_keys({"phases": [{"terms": ["a"]}]})["task.phases0"] == "task.phases[0]"
