"""The descent from a sphere to a surface: its loss falls, its certificate holds, its result states what the claim needs."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dvc.recorder import Recorder
from experiments.sphere_to_spot import SphereToMesh
from geometry.mesh import icosphere
from geometry.mesh_io import read_mesh, write_mesh


@pytest.fixture
def ellipsoid(tmp_path: Path) -> Path:
    vertices, faces = icosphere(3)
    return write_mesh(tmp_path / "ellipsoid.obj", vertices * np.array([1.0, 0.6, 0.8], np.float32), faces, up="z")


def job(target: Path | str, **settings) -> SphereToMesh:
    phases = [{"steps": 60, "lr": 0.02}, {"steps": 30, "lr": 0.01}]
    given = {"phases": phases, "subdivisions": 2, "samples": 2000, "up": "z", "smoothness": 3.0}
    return SphereToMesh(target=str(target), **{**given, **settings})


@pytest.mark.slow
def test_a_sphere_becomes_an_ellipsoid(ellipsoid: Path, tmp_path: Path) -> None:
    task = job(ellipsoid, most_chamfer=0.01)
    with torch.no_grad():
        before = task.chamfer(task.pipeline(["mesh"])["mesh"])
    with Recorder(tmp_path / "run", {}, wandb="disabled", show_progress=False) as recorder:
        metrics = task.run(recorder).metrics
    assert before > 0.05 and metrics["chamfer_rel"].value < 0.2 * before
    assert metrics["chamfer_rel"].passed is True and metrics["self_intersections"].value == 0
    assert {"plain_chamfer_rel", "plain_self_intersections", "seconds"} <= metrics.keys()
    vertices, faces = read_mesh(tmp_path / "run" / "mesh.ply")
    assert faces.shape == (20 * 4**3, 3) and np.abs(vertices).max() == pytest.approx(1.0, abs=0.1)


def test_the_certificate_holds(ellipsoid: Path) -> None:
    rows = job(ellipsoid).check()
    assert [row.name for row in rows] == ["mesh.u"] and all(row.passed for row in rows), rows


@pytest.mark.data("spot")
def test_two_steps_towards_spot_lower_the_loss() -> None:
    task = job("data:spot", phases=[{"steps": 2, "lr": 0.02}], up="y")
    before = float(task.pipeline(["loss"], context={"seed": 3})["loss"].detach())

    class Quiet:
        def step(self, *arguments: object) -> None: ...

    task._descend(Quiet(), "large steps", task.smoothness)
    assert float(task.pipeline(["loss"], context={"seed": 3})["loss"].detach()) < before
