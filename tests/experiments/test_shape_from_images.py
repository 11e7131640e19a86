"""A shape from its pictures: the cameras, the certificate, and small descents of a mesh and of a grid of distances."""

from pathlib import Path

import numpy as np
import pytest
import torch

from dvc.errors import UserError
from dvc.recorder import Recorder
from experiments.clay_views import cameras_around, directions
from experiments.mesh_scores import chamfer_rel
from experiments.rendered_check import check_pictures
from experiments.shape_from_images import ShapeFromImages
from geometry.mesh import icosphere
from geometry.mesh_io import read_mesh, write_mesh
from render.camera import project


@pytest.fixture
def ellipsoid(tmp_path: Path) -> Path:
    vertices, faces = icosphere(3)
    return write_mesh(tmp_path / "ellipsoid.obj", vertices * np.array([1.0, 0.6, 0.8], np.float32), faces, up="z")


def job(target: Path | str, **settings) -> ShapeFromImages:
    phases = [{"steps": 16, "lr": 0.03, "nodes": 16, "columns": 16}, {"steps": 8, "lr": 0.01, "nodes": 20, "columns": 24}]
    given = {"up": "z", "views": 8, "views_a_step": 4, "heldout_views": 3, "pixels": 24, "levels": 3, "smoothness": 5.0}
    return ShapeFromImages(target=str(target), **{**given, "phases": phases, **settings})


def test_the_cameras_see_all_of_the_shape(ellipsoid: Path):
    task = job(ellipsoid)
    camera = cameras_around(task.target, 12, 48)
    pixels = project(camera, task.target.vertices.expand(12, -1, -1))
    assert float(pixels.min()) > 0.0 and float(pixels.max()) < 48.0
    assert float(pixels.max()) - float(pixels.min()) > 0.85 * 48.0
    assert float(directions(200).mean(0).abs().max()) < 0.02


@pytest.mark.slow
def test_the_certificate_holds(ellipsoid: Path):
    rows = job(ellipsoid).check()
    assert len(rows) == 3 and all(row.passed for row in rows), rows


def test_a_certificate_tells_a_wrong_gradient():
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            return 2.0 * g

    def value(x, seed, op):
        return (op(x) * torch.randn(x.shape, generator=torch.Generator().manual_seed(seed)).mul(0.1).add(1.0)).sum()

    x, ways = torch.ones(50), {"all": torch.ones(50)}
    assert check_pictures(lambda x, seed: value(x, seed, lambda y: y), x, ways, 0.1, "x")[0].passed
    assert not check_pictures(lambda x, seed: value(x, seed, Twice.apply), x, ways, 0.1, "x")[0].passed


@pytest.mark.slow
@pytest.mark.parametrize("representation", ["mesh", "sdf"])
def test_a_sphere_becomes_an_ellipsoid(ellipsoid: Path, tmp_path: Path, representation: str):
    task = job(ellipsoid, representations=[representation], most_chamfer=0.02)
    before = chamfer_rel(task.sphere(), task.target)
    with Recorder(tmp_path / "run", {}, wandb="disabled", show_progress=False) as recorder:
        metrics = task.run(recorder).metrics
    assert {"chamfer_rel", "psnr_heldout_db", "seconds"} <= metrics.keys()
    assert metrics["chamfer_rel"].value < 0.6 * before and metrics["start_chamfer_rel"].value == pytest.approx(before)
    assert metrics["psnr_heldout_db"].value > metrics["start_psnr_heldout_db"].value + 1.0
    vertices, faces = read_mesh(tmp_path / "run" / f"{representation}.ply")
    saved = np.load(tmp_path / "run" / "views.npz")
    assert len(faces) > 100 and np.isfinite(vertices).all() and saved[representation].shape == saved["target"].shape


@pytest.mark.slow
def test_both_in_one_run_have_names_of_their_own(ellipsoid: Path, tmp_path: Path):
    phases = [{"steps": 1, "lr": 0.01, "nodes": 12, "columns": 8}]
    task = job(ellipsoid, phases=phases, representations=["mesh", "sdf"])
    with Recorder(tmp_path / "run", {}, wandb="disabled", show_progress=False) as recorder:
        metrics = task.run(recorder).metrics
    names = {"chamfer_rel", "psnr_heldout_db", "seconds", "self_intersections"}
    assert names | {f"sdf_{name}" for name in names} | {"start_psnr_heldout_db", "start_chamfer_rel"} == set(metrics)


def test_what_it_refuses(ellipsoid: Path):
    for wrong, match in (
        ({"phases": []}, "phases"), ({"representations": ["cloud"]}, "representations"), ({"views_a_step": 9}, "views_a_step"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=match):
            job(ellipsoid, **wrong)


@pytest.mark.slow
@pytest.mark.data("spot")
def test_two_steps_towards_spot_lower_the_loss():
    phases = [{"steps": 6, "lr": 0.02, "nodes": 20, "columns": 24}]
    task = job("data:spot", phases=phases, up="y", representations=["mesh"])
    before = chamfer_rel(task.sphere(), task.target)

    class Quiet:
        def step(self, *arguments: object) -> None: ...

    mesh, _ = task._descend(Quiet(), "mesh", 0)
    assert chamfer_rel(mesh, task.target) < before
