"""Recorder: its files, resuming, what it shows, full disks, W&B without a login, and what it costs."""

import csv
import json
import math
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

from dvc.errors import UserError
from dvc.parameter import Parameter
from dvc.pipeline import Pipeline
from dvc.plots import read_metrics
from dvc.recorder import Recorder
from dvc.result import Estimate, Metric, Result

RESULT = Result("It works", {"length": Estimate(0.5, 0.4, 0.6, "m")}, {"error": Metric(0.01, "", "< 0.1", True)})


def recorder(directory: Path, **options) -> Recorder:
    return Recorder(directory, {"name": "x"}, **{"wandb": "disabled", "show_progress": False, **options})


def take_steps(run: Recorder, first: int, last: int, stop_after: int | None = None) -> None:
    for step in range(first, last + 1):
        run.step(step, math.exp(-step / 7), "explore" if step < 5 else "descend", {"length": 0.5 + 0.01 * step}, rate=1 / step)
        if step % 4 == 0:
            run.checkpoint({"step": step, "x": torch.tensor([float(step)])})
        if step == stop_after:
            return


def test_a_run_leaves_all_its_files(tmp_path):
    class Square(nn.Module):
        def forward(self, length):
            return length**2

    pipeline = Pipeline({"length": Parameter(0.5, 0.2, 0.9, "m"), "square": Square()}, {"square": {"length": "length"}})
    run = recorder(tmp_path / "a" / "run")
    assert run.restored is None
    run.total(12)
    take_steps(run, 1, 12)
    run.note("a note")
    run.save_table("strikes", ["strike", "time [s]"], [[1, 0.5], [2, torch.tensor(1.5)]])
    run.save_arrays(
        "angles", time=np.arange(5) / 5, model=torch.arange(5), observed=np.array([0, 1, np.nan, 3, 4]), strikes=[0.3]
    )
    run.save_video("overlay", np.zeros((3, 16, 16, 3), np.uint8), 25)
    run.save_image("mask", np.linspace(0, 1, 64).reshape(8, 8))
    report = run.finish(RESULT, pipeline)
    assert report == tmp_path / "a" / "run" / "report.html"
    names = {path.name for path in report.parent.iterdir()}
    assert names >= {"config.yaml", "metrics.jsonl", "run.log", "result.json", "report.html", "overlay.mp4", "strikes.csv"}
    assert names >= {"angles.npz", "angles.png", "loss.png", "parameters.png", "mask.png", "pipeline.txt", "pipeline.mmd"}
    assert not [name for name in names if "tmp" in name]
    assert sorted(os.listdir(report.parent / "checkpoints")) == ["last.pt", "previous.pt"]
    assert Result.read(report.parent / "result.json") == RESULT
    assert list(csv.reader((report.parent / "strikes.csv").open())) == [["strike", "time [s]"], ["1", "0.5"], ["2", "1.5"]]
    rows = read_metrics(report.parent / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 13))
    assert rows[3] == {"step": 4, "phase": "explore", "loss": math.exp(-4 / 7), "parameters": {"length": 0.54}, "rate": 0.25}
    assert "a note" in (report.parent / "run.log").read_text()


def test_each_line_is_on_the_disk_at_once(tmp_path):
    run = recorder(tmp_path)
    run.step(1, 1.0, "descend", {"length": torch.tensor(0.5), "tilt": np.array([1.0, 2.0])})
    run.step(2, math.nan, "descend", {"length": math.inf})
    first, second = (json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert first["parameters"] == {"length": 0.5, "tilt": [1.0, 2.0]}
    assert second["loss"] is None and second["parameters"] == {"length": None}
    run.close()


@pytest.mark.parametrize("stop_after", [4, 5, 7, 10])
def test_a_resumed_run_leaves_the_same_metrics(tmp_path, stop_after):
    whole = recorder(tmp_path / "whole")
    take_steps(whole, 1, 12)
    whole.close()
    killed = recorder(tmp_path / "killed")
    take_steps(killed, 1, 12, stop_after)
    with open(tmp_path / "killed" / "metrics.jsonl", "a") as file:
        file.write('{"step": 99, "lo')  # and then the power went
    again = recorder(tmp_path / "killed", resume=True)
    assert again.restored["step"] == stop_after // 4 * 4
    assert torch.equal(again.restored["x"], torch.tensor([float(again.restored["step"])]))
    take_steps(again, again.restored["step"] + 1, 12)
    again.close()
    assert (tmp_path / "killed" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()


def test_a_damaged_checkpoint_costs_only_the_steps_since_the_one_before(tmp_path):
    run = recorder(tmp_path)
    take_steps(run, 1, 12)
    run.close()
    before = (tmp_path / "metrics.jsonl").read_bytes()
    last = tmp_path / "checkpoints" / "last.pt"
    last.write_bytes(last.read_bytes()[:100])
    again = recorder(tmp_path, resume=True)
    assert again.restored["step"] == 8
    assert "previous.pt" in (tmp_path / "run.log").read_text()
    take_steps(again, 9, 12)
    again.close()
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_resume_without_a_checkpoint_says_so_and_starts(tmp_path, capsys):
    run = recorder(tmp_path, resume=True)
    assert run.restored is None and "no checkpoint" in capsys.readouterr().out
    run.close()


def test_a_new_run_replaces_the_old_one_and_nothing_else(tmp_path, capsys):
    run = recorder(tmp_path)
    take_steps(run, 1, 4)
    run.save_image("mask", np.zeros((4, 4)))
    run.finish(RESULT)
    (tmp_path / "mine.png").write_bytes(b"the user's")
    again = recorder(tmp_path)
    assert "replaced" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"config.yaml", "metrics.jsonl", "run.log", "mine.png"}
    assert again.restored is None and (tmp_path / "metrics.jsonl").read_bytes() == b""
    again.close()


def test_config_is_written_as_plain_yaml(tmp_path):
    from omegaconf import OmegaConf

    config = OmegaConf.create({"name": "größe", "task": {"steps": 5, "double": "${task.steps}", "nothing": None}})
    Recorder(tmp_path, config, wandb="disabled", show_progress=False).close()
    text = (tmp_path / "config.yaml").read_text(encoding="utf-8")
    assert yaml.safe_load(text) == {"name": "größe", "task": {"steps": 5, "double": 5, "nothing": None}}
    assert "größe" in text


def test_progress_lines_without_a_terminal(tmp_path, capsys, monkeypatch):
    run = recorder(tmp_path, show_progress=True)
    run.total(100)
    now = [0.0]
    monkeypatch.setattr("dvc.progress.time.monotonic", lambda: now[0])
    for step in range(1, 61):
        now[0] += 0.5
        run.step(step, 1.0 / step, "descend", {"length": 0.5, "tilt": [1, 2]})
    run.close()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4  # at once, after 10 and 20 s, and the last one
    assert lines[0].startswith("step 1/100  descend  loss 1  length 0.5")
    assert "step 41/100" in lines[2] and lines[2].endswith("ETA 0:30")
    assert lines[3].startswith("step 60/100")


def test_silent_when_told_so_but_notes_are_shown(tmp_path, capsys):
    run = recorder(tmp_path)
    take_steps(run, 1, 20)
    assert capsys.readouterr() == ("", "")
    run.note("the clip was not found [red]")
    assert capsys.readouterr().out == "the clip was not found [red]\n"
    run.close()


def test_a_bar_on_a_terminal(tmp_path, monkeypatch):
    import io

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    with recorder(tmp_path, show_progress=True) as run:
        run.total(20)
        take_steps(run, 1, 20)
        run.note("said above the bar")
    shown = screen.getvalue()
    for word in ("descend", "20/20", "loss", "length", "ETA", "said above the bar", "\x1b[?25h"):
        assert word in shown


def test_the_terminal_is_given_back_after_an_error(tmp_path):
    with pytest.raises(RuntimeError), recorder(tmp_path) as run:
        take_steps(run, 1, 2)
        raise RuntimeError("the task failed")
    assert len(read_metrics(tmp_path / "metrics.jsonl")) == 2


def test_a_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*remedy"):
        recorder(tmp_path / "file" / "run")


def test_wrong_use_is_one_line(tmp_path):
    with pytest.raises(UserError, match="expected one of offline, online, disabled"):
        recorder(tmp_path, wandb="sometimes")
    run = recorder(tmp_path)
    with pytest.raises(UserError, match="row 1: expected 2 cells, got 3"):
        run.save_table("t", ["a", "b"], [[1, 2], [1, 2, 3]])
    with pytest.raises(UserError, match="expected a plain name"):
        run.save_table("../t", ["a"], [])
    with pytest.raises(UserError, match="expected finite numbers"):
        run.save_image("i", np.full((4, 4), np.nan))
    with pytest.raises(UserError, match="expected shape"):
        run.save_image("i", np.zeros((4, 4, 2)))
    run.close()


def test_a_full_disk_leaves_whole_lines(tmp_path):
    """A limit on the size of files stands in for a disk that fills up in the middle of a line."""
    child = textwrap.dedent(
        """
        import resource, signal, sys
        from dvc.errors import UserError
        from dvc.recorder import Recorder
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        run = Recorder(sys.argv[1], {}, wandb="disabled", show_progress=False)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
        try:
            for step in range(1, 100):
                run.step(step, 1.0, "descend", {"length": 0.5})
        except UserError as error:
            print(step, error)
        """
    )
    done = subprocess.run([sys.executable, "-c", child, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "cannot write" in done.stdout and done.stdout.count("\n") == 1
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert len(lines) == int(done.stdout.split()[0]) - 1 > 0
    assert all(json.loads(line)["loss"] == 1.0 for line in lines)


def test_a_step_costs_less_than_a_millisecond(tmp_path):
    run = recorder(tmp_path, show_progress=True)
    parameters = {f"parameter_{k}": float(k) for k in range(8)}
    start = time.perf_counter()
    for step in range(1, 501):
        run.step(step, 1.0, "descend", parameters, gradient=0.1)
    assert (time.perf_counter() - start) / 500 < 1e-3
    run.close()


WANDB_RUN = """
import sys, time
from dvc.recorder import Recorder
from dvc.result import Result
start = time.perf_counter()
run = Recorder(sys.argv[1], {"name": "x"}, wandb=sys.argv[2], show_progress=False)
made = time.perf_counter() - start
for step in range(1, 21):
    run.step(step, 1.0 / step, "descend", {"length": 0.5})
run.finish(Result("c"))
print("made", made)
"""


def wandb_run(directory: Path, mode: str, **environment: str) -> subprocess.CompletedProcess:
    clean = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    home = directory / "home"
    home.mkdir()
    options = {"capture_output": True, "text": True, "timeout": 60, "stdin": subprocess.DEVNULL}
    clean |= {"HOME": str(home), "NETRC": str(home / "netrc"), **environment}
    return subprocess.run([sys.executable, "-c", WANDB_RUN, str(directory / "run"), mode], env=clean, **options)


@pytest.mark.slow
def test_wandb_online_without_a_login_logs_offline(tmp_path):
    done = wandb_run(tmp_path, "online")
    assert done.returncode == 0, done.stderr
    assert "no login found, logging offline" in done.stdout and done.stderr == ""
    assert float(done.stdout.split()[-1]) < 0.5  # seconds that the start of wandb costs a run
    stored = list((tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(stored) == 1 and stored[0].stat().st_size > 500
    assert not list((tmp_path / "home").rglob("*wandb*"))


def test_a_broken_wandb_is_one_line(tmp_path):
    broken = tmp_path / "modules"
    broken.mkdir()
    (broken / "wandb.py").write_text("raise RuntimeError('broken\\nin two lines')")
    path = os.pathsep.join([str(broken), os.environ.get("PYTHONPATH", "")])
    done = wandb_run(tmp_path, "offline", PYTHONPATH=path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "wandb: switched off (broken)"
    assert (tmp_path / "run" / "report.html").exists()
