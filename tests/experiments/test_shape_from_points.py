"""Points become a closed surface: from a mesh and from a user's file, with what is wrong in such files said in one line."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dvc.errors import UserError
from dvc.recorder import Recorder
from dvc.records import Mesh
from experiments.shape_from_points import ShapeFromPoints, noisy_points, pictured, read_points, write_points
from geometry.mesh import icosphere
from geometry.mesh_io import read_mesh, write_mesh


@pytest.fixture
def ellipsoid(tmp_path: Path) -> Path:
    vertices, faces = icosphere(4)
    return write_mesh(tmp_path / "ellipsoid.obj", vertices * np.array([1.0, 0.6, 0.8], np.float32), faces, up="z")


def job(**settings) -> ShapeFromPoints:
    given = {"count": 6000, "cells": 32, "noise": 0.01, "poisson_depths": (5,), "poisson_trims": (0.0, 0.02)}
    return ShapeFromPoints(**{**given, **settings})


def outcome(task: ShapeFromPoints, folder: Path) -> dict:
    with Recorder(folder, {}, wandb="disabled", show_progress=False) as recorder:
        return task.run(recorder).metrics


@pytest.mark.slow
def test_an_ellipsoid_from_its_points(ellipsoid: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("experiments.shape_from_points.MEASURED_POINTS", 20_000)
    task = job(target=str(ellipsoid))
    metrics = outcome(task, tmp_path / "run")
    assert metrics["chamfer_rel"].value < 0.25 * 0.01  # a quarter of the noise
    assert metrics["chamfer_rel"].passed is (metrics["chamfer_rel"].value < metrics["poisson_chamfer_rel"].value)
    assert metrics["chamfer_rel"].passed and metrics["closed"].passed
    assert metrics["normal_error_deg"].value < 6.0 and metrics["poisson_normal_error_deg"].value > 0.0
    assert metrics["least_angle_deg"].value > 5.0 > metrics["cubes_least_angle_deg"].value
    vertices, _ = read_mesh(tmp_path / "run" / "mesh.ply")
    assert np.abs(vertices).max(axis=0) == pytest.approx([1.0, 0.6, 0.8], abs=0.05)
    points, normals = read_points(tmp_path / "run" / "points.ply", "z")
    assert torch.equal(points, task.points) and torch.equal(normals, task.normals)
    names = {"poisson.ply", "angles.csv", "poisson.csv", "sdf.npz", "points_truth_mesh_poisson.png"}
    assert names <= {path.name for path in (tmp_path / "run").iterdir()}
    assert task.pipeline.stages["sdf"].values.shape[1:] == task.levels.shapes[-1]  # what was fitted is in the pipeline
    assert float(task.pipeline(["loss"])["loss"].detach()) < 3.0


@pytest.mark.slow
def test_noise_is_found_and_drawn_as_said(ellipsoid: Path, tmp_path: Path) -> None:
    task = job(target=str(ellipsoid), noise=0.02)

    class Quiet:
        def note(self, text: str) -> None: ...

    misfit = task.choose(Quiet())
    assert misfit.point_noise / task.diagonal == pytest.approx(0.02, rel=0.15)
    vertices, faces = icosphere(3)
    mesh = Mesh(torch.from_numpy(vertices)[None], torch.from_numpy(faces).int())
    clean, _ = noisy_points(mesh, 4000, 0.0, 0.0, 1)
    points, normals = noisy_points(mesh, 4000, 0.01, 10.0, 1)
    off = (points - clean).square().mean().sqrt()
    tilt = torch.rad2deg(torch.acos((normals * torch.nn.functional.normalize(clean, dim=1)).sum(1).clamp(-1, 1)))
    assert float(off) == pytest.approx(0.01 * 2.0 * 3.0**0.5, rel=0.05)
    assert float(tilt.square().mean().sqrt()) == pytest.approx(10.0, rel=0.1)


@pytest.mark.slow
def test_points_of_ones_own(ellipsoid: Path, tmp_path: Path) -> None:
    drawn = job(target=str(ellipsoid))
    turned = (
        drawn.points[:, [0, 2, 1]] * torch.tensor([1.0, 1.0, -1.0]),
        drawn.normals[:, [0, 2, 1]] * torch.tensor([1.0, 1.0, -1.0]),
    )
    path = write_points(tmp_path / "own.ply", *turned)
    task = job(points=str(path), up="y")
    torch.testing.assert_close(task.points, drawn.points)
    torch.testing.assert_close(task.normals, drawn.normals)
    metrics = outcome(task, tmp_path / "run")
    assert "chamfer_rel" not in metrics and metrics["closed"].passed
    assert 0.5 * 0.01 < metrics["residual_rel"].value < 1.2 * 0.01
    assert (tmp_path / "run" / "mesh.ply").is_file() and not (tmp_path / "run" / "poisson.ply").exists()


def test_files_and_numbers_that_are_refused(ellipsoid: Path, tmp_path: Path) -> None:
    points, normals = job(target=str(ellipsoid)).points, job(target=str(ellipsoid)).normals
    bad = points.clone()
    bad[5] = float("nan")
    for name, cloud, message in (
        ("nan", (bad, normals), "expected finite points and normals, got 1 that are not, the first is point 5"),
        ("few", (points[:300], normals[:300]), "points: expected at least 500, got 300"),
        ("flat", (points, torch.zeros_like(normals)), "got 6000 of length zero"),
    ):
        with pytest.raises(UserError, match=message):
            job(points=str(write_points(tmp_path / f"{name}.ply", *cloud)))
    plain = tmp_path / "plain.ply"
    plain.write_text(
        "ply\nformat ascii 1.0\nelement vertex 1\nproperty float x\nproperty float y\nproperty float z\nend_header\n1 2 3\n"
    )
    with pytest.raises(UserError, match=r"expected points with normals .*, got points without normals"):
        job(points=str(plain))
    short = tmp_path / "short.ply"
    short.write_bytes(write_points(tmp_path / "whole.ply", points, normals).read_bytes()[:-40])
    with pytest.raises(UserError, match=r"short\.ply"):
        job(points=str(short))
    with pytest.raises(UserError, match=r"expected a \.ply"):
        job(points=str(ellipsoid))
    with pytest.raises(UserError, match="expected a target or points, got neither"):
        job()
    for settings in ({"count": 10}, {"noise": -1.0}, {"normal_noise_deg": 90.0}, {"cells": 8}, {"poisson_depths": ()}):
        with pytest.raises(UserError, match="ShapeFromPoints"):
            job(target=str(ellipsoid), **settings)


def test_a_mesh_that_the_renderer_refuses_is_drawn_as_points() -> None:
    corners = torch.tensor([[[0.0, 0, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0], [-1, -1, 0]]])
    fan = Mesh(corners, torch.tensor([[0, 1, 2], [0, 1, 3], [0, 1, 4]], dtype=torch.int32))
    image = pictured(fan, fan)
    assert image.dtype == np.uint8 and 0.01 < (image < 255).any(axis=2).mean() < 0.9


def test_the_certificate_holds(ellipsoid: Path) -> None:
    rows = job(target=str(ellipsoid)).check()
    assert [row.name for row in rows] == ["sdf.values"] and all(row.passed for row in rows), rows


@pytest.mark.slow
@pytest.mark.data("stanford_bunny")
def test_the_bunny_is_nearer_than_with_poisson(tmp_path: Path) -> None:
    task = job(
        target="data:stanford_bunny",
        up="y",
        count=20_000,
        cells=96,
        noise=0.004,
        poisson_depths=(6, 7),
        poisson_trims=(0.0, 0.01),
    )
    metrics = outcome(task, tmp_path / "run")
    assert metrics["chamfer_rel"].passed and metrics["closed"].passed and metrics["slivers_share"].value < 1e-3
