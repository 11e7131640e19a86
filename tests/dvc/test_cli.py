"""dvc/cli.py: what a user types, what comes back, and which exit status. In one process wherever that is enough."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dvc.cli import main

TASK = '''
from dvc.errors import UserError
from dvc.gradient_check import CheckRow
from dvc.parameter import Parameter
from dvc.pipeline import Pipeline
from dvc.result import Estimate, Metric, Result


class Toy:
    """Walks towards its target, one unit a step."""

    def __init__(self, steps: int = 2, target: float = 1.5, fail: str = ""):
        if target < 0:
            raise UserError(f"target: expected a positive number, got {target}")
        self.steps, self.target, self.fail = steps, target, fail
        self.pipeline = Pipeline({"length": Parameter(1.0, 0.1, 5.0, "m")})

    def run(self, recorder):
        recorder.total(self.steps)
        first = recorder.restored["step"] + 1 if recorder.restored else 0
        for step in range(first, self.steps):
            recorder.step(step, 1.0 / (step + 1), "descend", {"length": float(step)})
            recorder.checkpoint({"step": step})
            if self.fail == "interrupt" and step == 1 and first == 0:
                raise KeyboardInterrupt
            if self.fail == "bug":
                raise RuntimeError("a bug")
        length = Estimate(self.target, self.target - 0.1, self.target + 0.1, "m", False)
        return Result("a toy", {"length": length}, {"first": Metric(float(first), "", None, None)})

    def check(self):
        return [CheckRow("length", "parameter", 1.0, 1.0, 0.0, 1e-3, self.fail != "check", "")]
'''

CONFIGS = {
    "toy.yaml": "name: toy\nclaim: a toy is recovered\ntask: {_target_: toy_task.Toy, steps: 2, target: 1.5, fail: ''}\n",
    "experiment/heir.yaml": "# @package _global_\ndefaults:\n  - toy\n  - _self_\nname: heir\ntask: {steps: 3}\n",
    "experiment/no_header.yaml": "name: no_header\ntask: {_target_: toy_task.Toy}\n",
    "broken.yaml": "name: broken\ntask: {_target_: a: b}\n",
    "wrong_class.yaml": "name: wrong_class\ntask: {_target_: toy_task.Toyy}\n",
    "wrong_module.yaml": "name: wrong_module\ntask: {_target_: no_such_module.Toy}\n",
    "wrong_argument.yaml": "name: wrong_argument\ntask: {_target_: toy_task.Toy, stps: 3}\n",
    "unset.yaml": "name: unset\ntask: {_target_: toy_task.Toy, steps: '???'}\n",
    "no_task.yaml": "name: no_task\n",
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder: a task of the user's own, and its configurations in mine/."""
    (tmp_path / "mine" / "experiment").mkdir(parents=True)
    (tmp_path / "toy_task.py").write_text(TASK)
    for name, text in CONFIGS.items():
        (tmp_path / "mine" / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DIFFVC_TRACEBACK", raising=False)
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path
    sys.modules.pop("toy_task", None)


Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(folder: Path, capfd: pytest.CaptureFixture[str]) -> Call:
    """Run a command; its exit status, its output and its errors."""

    def run(*arguments: str, own: bool = True) -> tuple[int, str, str]:
        capfd.readouterr()
        status = main([*arguments, *(["--config-dir", "mine"] if own else [])])
        return status, *capfd.readouterr()

    return run


QUIET = ("wandb.mode=disabled", "progress=false")


def only_run(folder: Path, name: str) -> Path:
    (found,) = (folder / "runs" / name).iterdir()
    return found


# -- running ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "steps"), [("toy", 2), ("heir", 3)])
def test_run_of_ones_own_yaml(call: Call, folder: Path, name: str, steps: int) -> None:
    status, output, errors = call("run", f"experiment={name}", "task.target=2.5", *QUIET)
    assert (status, errors) == (0, "")
    directory = only_run(folder, name)
    assert output.splitlines()[-1] == f"report: {directory / 'report.html'}" and "length" in output
    assert json.loads((directory / "result.json").read_text())["parameters"]["length"]["value"] == 2.5
    assert len((directory / "metrics.jsonl").read_text().splitlines()) == steps
    assert sorted(p.name for p in folder.iterdir() if p.name != "__pycache__") == ["mine", "runs", "toy_task.py"]
    assert not list(folder.rglob(".hydra")) and not list(folder.rglob("*.log"))


def test_sweep(call: Call, folder: Path) -> None:
    status, output, errors = call("run", "experiment=toy", "task.target=1.0,2.0", *QUIET, "--multirun")
    assert (status, errors) == (0, "")
    sweep = only_run(folder, "toy")
    values = [json.loads((sweep / n / "result.json").read_text())["parameters"]["length"]["value"] for n in ("0", "1")]
    assert values == [1.0, 2.0] and output.count("report: ") == 2
    assert not (folder / "multirun").exists() and not (folder / "outputs").exists()


def test_failed_run_of_a_sweep_is_named_and_the_others_finish(call: Call, folder: Path) -> None:
    status, output, errors = call("run", "experiment=toy", "task.target=-1.0,2.0", *QUIET, "-m")
    assert status == 2 and errors.count("\n") == 1
    assert "run 0 (" in errors and "target: expected a positive number" in errors
    assert output.count("report: ") == 1


def test_out_chooses_the_folder(call: Call, folder: Path) -> None:
    assert call("run", "experiment=toy", "out=there", *QUIET)[0] == 0
    assert (folder / "there" / "report.html").exists() and not (folder / "runs").exists()


def test_interrupted_run_is_resumed_with_its_settings(call: Call, folder: Path) -> None:
    status, output, errors = call("run", "experiment=toy", "task.fail=interrupt", "task.steps=4", "out=there", *QUIET)
    assert status == 130 and "Traceback" not in errors and "resume=" in output + errors
    status, output, errors = call("run", "resume=there", "seed=3", own=False)
    assert status == 2 and "seed=3" in errors and errors.count("\n") == 1
    status, output, errors = call("run", "resume=there", "threads=1", own=False)
    assert (status, errors) == (0, "")
    result = json.loads((folder / "there" / "result.json").read_text())
    assert result["metrics"]["first"]["value"] == 2.0
    steps = [json.loads(line)["step"] for line in (folder / "there" / "metrics.jsonl").read_text().splitlines()]
    assert steps == [0, 1, 2, 3]


def test_report_and_describe_and_check(call: Call, folder: Path) -> None:
    assert call("run", "experiment=toy", "out=there", *QUIET)[0] == 0
    (folder / "there" / "report.html").unlink()
    status, output, _ = call("report", "there", own=False)
    assert status == 0 and "length" in output and (folder / "there" / "report.html").exists()
    assert "Parameter" in call("describe", "experiment=toy")[1]
    assert call("describe", "experiment=toy", "--mermaid")[1].startswith("flowchart")
    assert "target: 2.5" in call("describe", "experiment=toy", "--config", "task.target=2.5")[1]
    status, output, _ = call("check", "experiment=toy")
    assert status == 0 and "1 checked, 0 failed" in output
    status, output, _ = call("check", "experiment=toy", "task.fail=check")
    assert status == 1 and "1 failed: length" in output
    assert not (folder / "runs").exists()


# -- what goes wrong --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["rnu"], "did you mean 'run'"),
        (["run"], "expected experiment=NAME"),
        (["run", "toy"], "did you mean experiment=toy?"),
        (["run", "experiment=tyo"], "no experiment 'tyo'; did you mean 'toy'?"),
        (["run", "experimnt=toy"], "did you mean experiment="),
        (["run", "experiment=toy,heir"], "add --multirun"),
        (["run", "experiment=toy", "task.stps=3"], "no setting 'task.stps'; did you mean 'task.steps'?"),
        (["run", "experiment=toy", "sed=3"], "no setting 'sed'; did you mean 'seed'?"),
        (["run", "experiment=toy", "steps=3"], "did you mean 'task.steps'?"),
        (["run", "experiment=toy", "sed=3,4", "-m"], "did you mean 'seed'?"),
        (["run", "experiment=toy", "task.steps==3"], "task.steps==3"),
        (["run", "experiment=toy", "seed=many"], "seed: expected a whole number"),
        (["run", "experiment=toy", "wandb.mode=on"], "wandb.mode: expected offline, online or disabled, got"),
        (["run", "experiment=toy", "device=abacus"], "device: expected"),
        (["run", "experiment=toy", "device=cuda:99"], "remedy: device=cpu"),
        (["run", "experiment=toy", "task.target=-1"], "target: expected a positive number, got -1"),
        (["run", "experiment=toy", "out=toy_task.py"], "toy_task.py"),
        (["run", "experiment=no_header"], "# @package _global_"),
        (["run", "experiment=no_task"], "task"),
        (["run", "experiment=unset"], "'task.steps' has no value"),
        (["run", "experiment=broken"], "line 2"),
        (["run", "experiment=wrong_class"], "toy_task.Toyy"),
        (["run", "experiment=wrong_module"], "No module named 'no_such_module'"),
        (["run", "experiment=wrong_argument"], "did you mean 'steps'?"),
        (["run", "experiment=toy", "--multirn"], "--multirn"),
        (["run", "resume=nowhere"], "expected the folder of a run"),
        (["check", "experiment=tyo"], "did you mean 'toy'?"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_input_is_one_line(call: Call, folder: Path, arguments: list[str], expected: str) -> None:
    status, output, errors = call(*arguments)
    assert status == 2
    assert errors.startswith("diffvc: error: ") and errors.count("\n") == 1 and expected in errors
    assert "Traceback" not in output + errors
    if "-m" not in arguments:  # (a sweep has left its multirun.yaml by then)
        assert not (folder / "runs").exists()  # not even an empty folder


def test_wrong_places(call: Call, folder: Path) -> None:
    for arguments, expected in (
        (["list", "--config-dir", "nowhere"], "expected a folder"),
        (["report", "nowhere"], "nowhere"),
        (["report", "mine"], "result.json"),
        (["data", "fitch"], "fetch"),
        (["data", "fetch", "no_such_item"], "expected one of"),
    ):
        status, _, errors = call(*arguments, own=False)
        assert status == 2 and errors.count("\n") == 1 and expected in errors


def test_name_that_is_taken_is_refused(call: Call, folder: Path) -> None:
    (folder / "mine" / "heir.yaml").write_text("name: heir\n")
    status, _, errors = call("list")
    assert status == 2 and "is taken" in errors


def test_bug_leaves_its_traceback_in_the_run_and_on_request(call: Call, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    status, output, errors = call("run", "experiment=toy", "task.fail=bug", "out=there", *QUIET)
    assert status == 2 and "unexpected RuntimeError: a bug" in errors and "Traceback" not in output + errors
    assert "RuntimeError: a bug" in (folder / "there" / "traceback.txt").read_text()
    assert "Traceback" in call("run", "experiment=toy", "task.fail=bug", "out=there", *QUIET, "--traceback")[2]
    monkeypatch.setenv("DIFFVC_TRACEBACK", "1")
    assert "Traceback" in call("run", "experiment=tyo")[2]


# -- what needs nothing computed --------------------------------------------------------------------------------------
def test_list_and_help(call: Call) -> None:
    status, output, _ = call("list")
    assert status == 0 and "a toy is recovered" in output and "(states no claim)" in output and "unreadable" in output
    lines = {line.split()[0]: line for line in output.splitlines() if line.strip()}
    assert "a toy is recovered" in lines["heir"]  # inherited
    for command in ([], ["run"], ["list"], ["check"], ["describe"], ["report"], ["data"]):
        status, output, errors = call(*command, "--help", own=False)
        assert (status, errors) == (0, "") and output.startswith("usage: diffvc")
    assert call("data", own=False)[0] == 0
    assert call(own=False)[0] == 2


def test_help_and_list_import_nothing_heavy() -> None:
    program = (
        "import sys; from dvc.cli import main; "
        "main(['--help']); main(['run', '--help']); main(['list']); "
        "print('heavy:', sorted({'torch', 'warp', 'hydra', 'omegaconf', 'numpy', 'matplotlib', 'wandb'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_first_compilation_is_announced_once(capfd: pytest.CaptureFixture[str]) -> None:
    import dvc.warp_op
    from dvc.cli_hydra import _announce_compilation

    before = getattr(dvc.warp_op, "on_compile", None)
    try:
        _announce_compilation()
        dvc.warp_op.on_compile("module a")
        dvc.warp_op.on_compile("module b")
    finally:
        dvc.warp_op.on_compile = before
    errors = capfd.readouterr().err
    assert errors.count("\n") == 1 and "compiling kernels for the first time" in errors
