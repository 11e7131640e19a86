"""The wheel as a user gets it: configurations inside, tests not, and a run from an empty folder."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = {"dvc", "geometry", "physics", "render", "learned", "configs", "experiments"}


def command(*arguments: object, folder: Path) -> str:
    """Run a command in a folder, as somebody would who has no checkout; its output."""
    surroundings = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "DIFFVC_DATA", "DIFFVC_TRACEBACK")}
    done = subprocess.run(list(map(str, arguments)), cwd=folder, env=surroundings, capture_output=True, text=True)
    assert done.returncode == 0, f"{arguments}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built with the setuptools that is installed (no download).

    Built from a copy: setuptools leaves build/ in the source folder, and takes files from there the next time.
    """
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in (*PACKAGES, "tests"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    command(*pip, "--wheel-dir", folder, source, folder=folder)
    (built,) = folder.glob("diffvc-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a virtual environment with the wheel in it.

    The environment is a real one. Only the heavy dependencies (torch, Warp, ...) come from the environment that runs the
    tests, through a .pth file, because installing them again would take minutes. The project itself is not in there by
    then: a .pth file adds folders, and does not run the .pth of an editable installation that lies in them.
    """
    folder = tmp_path_factory.mktemp("environment")
    command(sys.executable, "-m", "venv", folder, folder=folder)
    python = folder / "bin" / "python"
    command(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, folder=folder)
    ours = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})["purelib"]
    heavy = sysconfig.get_paths()["purelib"]
    (Path(ours) / "heavy_dependencies.pth").write_text(heavy + "\n")
    return folder / "bin"


@pytest.mark.slow
def test_wheel_holds_the_packages_and_the_configurations_and_no_tests(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == PACKAGES
    sources = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml")}
    assert "configs/run.yaml" in sources and sources <= set(names)
    assert not [name for name in names if "test" in name.split("/")[-1]]
    assert [name for name in names if name.endswith("LICENSE")]


@pytest.mark.slow
def test_run_from_an_empty_folder(installed: Path, tmp_path: Path) -> None:
    where = command(installed / "python", "-c", "import dvc; print(dvc.__file__)", folder=tmp_path)
    assert where.startswith(str(installed.parent))
    listed = command(installed / "diffvc", "list", folder=tmp_path)
    for experiment in (ROOT / "configs" / "experiment").glob("*.yaml"):
        assert experiment.stem in listed

    output = command(installed / "diffvc", "run", "experiment=projectile_video", "wandb.mode=disabled", folder=tmp_path)
    report = Path(output.splitlines()[-1].removeprefix("report: "))
    assert report.is_file() and report.is_relative_to(tmp_path / "runs" / "projectile_video")
    result = json.loads((report.parent / "result.json").read_text())
    assert result["metrics"]["gravity_error"]["pass"] is True
    assert (report.parent / "overlay.mp4").stat().st_size > 1000 and (report.parent / "track.csv").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}
