"""`diffvc horizon`: the table it prints, the files it leaves, and what it refuses."""

import sys
from pathlib import Path

import pytest

from dvc.cli import main

TASK = """
import torch
from torch import nn

from dvc import Parameter, Pipeline
from dvc.horizon import pipeline_report
from dvc.losses import Objective, Term


class Growing(nn.Module):
    def forward(self, start, frames: int):
        return start[:, None] * torch.exp(0.1 * torch.arange(frames))


class Explosion:
    def __init__(self):
        self.pipeline = Pipeline({"start": Parameter(0.5), "r": Growing()}, {"r": {"start": "start", "frames": "$horizon"}})

    def horizon(self, horizons=None):
        return pipeline_report(self.pipeline, Objective({"r": Term("r")}), {}, horizons or [10, 20, 30, 40, 50], interval=0.1)


class Still:
    def __init__(self):
        self.pipeline = Pipeline({"start": Parameter(0.5)})
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "mine").mkdir()
    (tmp_path / "growing_task.py").write_text(TASK)
    for name, kind in (("explosion", "Explosion"), ("still", "Still")):
        (tmp_path / "mine" / f"{name}.yaml").write_text(
            f"name: {name}\nclaim: a toy\ntask: {{_target_: growing_task.{kind}}}\n"
        )
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DIFFVC_TRACEBACK", raising=False)
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    sys.modules.pop("growing_task", None)


def call(capfd, *arguments: str) -> tuple[int, str, str]:
    status = main(["horizon", *arguments, "--config-dir", "mine"])
    return status, *capfd.readouterr()


def test_table_and_files(folder, capfd):
    status, output, errors = call(capfd, "experiment=explosion", "--to", "there")
    assert (status, errors) == (0, "")
    assert "useful horizon: 50 (5 s), the longest one asked" in output and "growth: exp(+" in output
    assert (folder / "there" / "horizon.csv").read_text().count("\n") == 6
    assert (folder / "there" / "horizon.png").read_bytes().startswith(b"\x89PNG")
    assert f"plot: {Path('there') / 'horizon.png'}" in output and not (folder / "runs").exists()


def test_chosen_horizons(folder, capfd):
    status, output, _ = call(capfd, "experiment=explosion", "--horizons", "3,6,9")
    assert status == 0 and [line.split()[0] for line in output.splitlines()[1:4]] == ["3", "6", "9"]
    assert (folder / "horizon.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["experiment=still"], "still: its task has no horizon"),
        (["experiment=explosion", "--horizons", "3,x"], "--horizons: expected whole numbers as 10,20,40, got '3,x'"),
        (["experiment=explosion", "--horizons", "9,3"], "horizons: expected rising whole numbers from 1, got [9, 3]"),
        (["experiment=explosion", "--to", "growing_task.py"], "growing_task.py"),
        ([], "expected experiment=NAME"),
    ],
)
def test_what_is_refused_in_one_line(folder, capfd, arguments, message):
    status, _, errors = call(capfd, *arguments)
    assert status == 2 and errors.startswith("diffvc: error: ") and message in errors and errors.count("\n") == 1
