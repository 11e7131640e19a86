"""An occluder from its shadows: the room against shadows worked out by hand, the certificate, and a small descent."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from dvc.errors import UserError
from dvc.recorder import Recorder
from dvc.records import Mesh
from experiments.shadow_art import ShadowArt
from experiments.shadow_room import LIGHT, SEEN, WALL, ShadowRoom, shadow_of
from geometry.mesh import icosphere
from geometry.mesh_io import read_mesh

COLUMNS = 32


def job(**settings) -> ShadowArt:
    phases = [{"steps": 12, "lr": 0.06, "nodes": 16, "columns": 24}, {"steps": 12, "lr": 0.04, "nodes": 20, "columns": 32}]
    given = {"silhouettes": ["heart", "disc"], "pixels": COLUMNS, "edge_samples": 2048, "smoothness": 8.0}
    return ShadowArt(**{**given, "phases": phases, **settings})


def ball(radius: float) -> Mesh:
    vertices, faces = icosphere(4)
    return Mesh(radius * torch.from_numpy(vertices)[None], torch.from_numpy(faces).int())


def shadow_area(radius: float) -> float:
    """Of a ball between a point and a plane: the cone of tangents meets the plane in a disc."""
    return math.pi * ((LIGHT + WALL) * math.tan(math.asin(radius / LIGHT))) ** 2


def test_a_ball_s_shadows_have_the_area_of_the_cone_of_tangents():
    room = ShadowRoom(COLUMNS, 64, 0)
    own, other = room.without_occluder()
    with torch.no_grad():
        dark = shadow_of(room(ball(0.5), seed=5), own, other)
    pixel = (2.0 * SEEN / COLUMNS) ** 2
    assert dark.sum(dim=(1, 2)).numpy() * pixel == pytest.approx([shadow_area(0.5)] * 2, rel=0.02)
    assert float(dark[:, 0].abs().max()) < 0.3  # the wall above is lit; what is left is noise


def test_the_gradient_of_the_shadow_s_area_by_the_ball_s_radius():
    """All of it comes from shadow boundaries: nothing else in the pictures depends on the ball."""
    room = ShadowRoom(COLUMNS, 16, 20_000)
    own, other = ShadowRoom(COLUMNS, 64, 0).without_occluder()
    found = []
    for seed in range(4):
        radius = torch.tensor(0.5, requires_grad=True)
        mesh = ball(1.0)
        images = room(Mesh(radius * mesh.vertices, mesh.faces), seed=seed)
        (shadow_of(images, own, other).sum() * (2.0 * SEEN / COLUMNS) ** 2).backward()
        found.append(float(radius.grad))
    h = 1e-3
    expected = 2.0 * (shadow_area(0.5 + h) - shadow_area(0.5 - h)) / (2.0 * h)  # of two walls
    assert np.mean(found) == pytest.approx(expected, rel=0.02)


@pytest.mark.slow
def test_the_certificate_holds():
    rows = job().check()
    assert len(rows) == 3 and all(row.passed for row in rows), rows


@pytest.mark.slow
def test_a_sphere_takes_on_the_shadows(tmp_path: Path):
    task = job(least_iou=0.9)
    with Recorder(tmp_path / "run", {}, wandb="disabled", show_progress=False) as recorder:
        metrics = task.run(recorder).metrics
    assert set(metrics) == {"shadow_iou", "rmse", "shadow_iou_before", "rmse_before", "self_intersections", "seconds"}
    assert metrics["shadow_iou"].value > metrics["shadow_iou_before"].value + 0.03
    assert metrics["rmse"].passed is True and metrics["rmse"].value < 0.8 * metrics["rmse_before"].value
    saved = np.load(tmp_path / "run" / "shadows.npz")
    error = np.sqrt(np.square(saved["after"] - saved["target"]).mean())
    assert error == pytest.approx(metrics["rmse"].value, rel=1e-4)
    assert read_mesh(tmp_path / "run" / "mesh.ply")[1].shape[1] == 3


def test_two_silhouettes_are_wanted():
    with pytest.raises(UserError, match="two, one a wall"):
        job(silhouettes=["heart"])
    with pytest.raises(UserError, match="phases"):
        job(phases=[{"steps": 3, "lr": 0.1}])
