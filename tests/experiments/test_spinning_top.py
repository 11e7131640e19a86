"""A body becomes a top: its files alone give the numbers of the result, the wall holds, the certificate holds."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from dvc.errors import UserError
from dvc.recorder import Recorder
from experiments.spinning_top import SpinningTop, project, read_surface
from geometry.hollow_body import least_wall
from geometry.mesh import icosphere
from geometry.mesh_io import read_mesh, write_mesh
from geometry.mesh_topology import mesh_topology
from geometry.self_intersections import self_intersection_count


def write_body(path: Path) -> Path:
    """An ellipsoid with a dent on one side and a bump on another: no symmetry, and its axes are not those of the file."""
    vertices, faces = icosphere(3)
    bump = 1.0 + 0.35 * np.exp(-4.0 * ((vertices - [0.6, 0.5, 0.6]) ** 2).sum(1))
    bump -= 0.15 * np.exp(-4.0 * ((vertices - [-0.8, 0.5, -0.3]) ** 2).sum(1))
    return write_mesh(path, (vertices * bump[:, None] * [1.0, 0.55, 0.8]).astype(np.float32), faces, up="z")


@pytest.fixture
def body(tmp_path: Path) -> Path:
    return write_body(tmp_path / "body.obj")


def job(target: Path | str, **settings) -> SpinningTop:
    phases = [{"steps": 40, "lr": 0.2, "penalty": 100.0}]
    small = {"lattice": 5, "cells": 20, "fine_cells": 40, "starts": 4, "wall": 0.03, "peg": 0.02, "up": "z", "tries": 2}
    return SpinningTop(target=str(target), **{"phases": phases, **small, **settings})


def numbers_of_files(folder: Path) -> tuple[float, float, float]:
    """Angle [deg], centre of mass from the axis and its height [m], in NumPy, from signed tetrahedra to the origin."""
    mass, first, second = 0.0, np.zeros(3), np.zeros((3, 3))
    for name, sign in (("outer.stl", 1.0), ("inner.stl", -1.0)):
        mesh = read_surface(folder / name)
        assert mesh_topology(mesh.faces).border_count == 0
        a, b, c = mesh.vertices[0].double().numpy()[mesh.faces.numpy()].transpose(1, 0, 2)
        volume = sign * np.einsum("ij,ij->i", a, np.cross(b, c)) / 6.0
        assert sign * volume.sum() > 0.0
        s = a + b + c
        mass += volume.sum()
        first += volume @ s / 4.0
        second += sum(np.einsum("i,ij,ik->jk", volume, p, p) for p in (a, b, c, s)) / 20.0
    center = first / mass
    spread = second - mass * np.outer(center, center)
    axis = np.linalg.eigh(np.trace(spread) * np.eye(3) - spread)[1][:, 2]
    angle = math.degrees(math.atan2(np.hypot(axis[0], axis[1]), abs(axis[2])))
    return angle, float(np.hypot(center[0], center[1])), float(center[2])


@pytest.mark.slow
def test_a_body_becomes_a_top_and_its_files_give_the_same_numbers(body: Path, tmp_path: Path) -> None:
    task = job(body)
    with Recorder(tmp_path / "run", {}, wandb="disabled", show_progress=False) as recorder:
        metrics = task.run(recorder).metrics
    angle, offset, height = numbers_of_files(tmp_path / "run")
    assert metrics["before_axis_angle_deg"].value > 5.0 and metrics["axis_angle_deg"].value < 0.05
    assert metrics["com_offset_rel"].value < 1e-4 < 1e-3 < metrics["before_com_offset_rel"].value
    assert angle == pytest.approx(metrics["axis_angle_deg"].value, abs=1e-3)
    assert offset / task.diagonal == pytest.approx(metrics["com_offset_rel"].value, abs=1e-6)
    assert height / task.diagonal == pytest.approx(metrics["com_height_rel"].value, rel=1e-4)
    assert metrics["stable"].value == 1 and metrics["inertia_ratio"].value < 1.0
    assert metrics["wall_rel"].value >= 0.03 and 0.05 < metrics["mass_rel"].value < 0.95
    assert all(metric.passed is not False for metric in metrics.values())

    outer = read_surface(tmp_path / "run" / "outer.stl")
    lowest = outer.vertices[0, outer.vertices[0, :, 2].argmin()]
    spacing = float((task.high - task.low).max()) / task.fine_cells
    assert abs(float(lowest[2])) < 0.3 * spacing and float(lowest[:2].norm()) < spacing  # the contact point is the origin
    assert int(self_intersection_count(outer)) == 0
    out, up = outer.vertices[0, :, :2].norm(dim=1), outer.vertices[0, :, 2]
    free = out > 2.5 * task.peg  # all but the peg is clear of the ground by the lean
    assert (up[free] > math.tan(task.lean) * out[free] - 0.5 * spacing).all()


def test_the_search_finds_poses_in_which_the_constraints_hold(body: Path) -> None:
    task = job(body)
    losses: list[float] = []

    class Quiet:
        def step(self, step: int, loss: float, *rest: object) -> None:
            losses.append(loss)

    x = task.search(Quiet())
    assert losses[-1] < losses[0] and torch.isfinite(x).all()
    assert task.rough_constraints(x[:1]).abs().max() < 1e-4


@pytest.mark.slow
def test_the_certificate_holds(body: Path) -> None:
    rows = job(body).check()
    names = ["com x", "com y", "I_xz", "I_yz"]
    assert [row.name for row in rows] == [f"{part}, {name}" for name in names for part in ("depth", "tilt")]
    assert all(row.passed and not row.note for row in rows), rows


def test_the_projection_changes_as_little_as_the_constraints_allow() -> None:
    """Onto a sphere and a plane through its middle; a world that already lies there stays."""

    def constraints(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([(x * x).sum(1) - 1.0, x[:, 0]], dim=1)

    x, left = project(constraints, torch.tensor([[0.1, 1.5, 2.0], [0.0, 0.6, 0.8]]))
    assert left.max() < 2e-6
    assert torch.allclose(x, torch.tensor([[0.0, 0.6, 0.8], [0.0, 0.6, 0.8]]), atol=1e-5)


def test_the_wall_holds_over_an_opening(body: Path, tmp_path: Path) -> None:
    """There the distance to the mesh jumps, and a cavity of these values would break through."""
    vertices, faces = read_mesh(body)
    middle = vertices[faces].mean(axis=1)
    kept = faces[np.linalg.norm(middle - [0.0, 0.0, 0.8], axis=1) > 0.3]
    task = job(write_mesh(tmp_path / "open.obj", vertices, kept, up="z"))
    grid = task.fine_grid(torch.zeros(1, 2))
    thinnest = torch.full((1, task.offset.size), -task.diagonal)
    outer, inner = task.top(grid, torch.zeros(1, 2), thinnest)
    assert inner is not None and mesh_topology(outer.faces).border_count == 0
    assert least_wall(outer, inner) >= 0.95 * task.wall


def test_wrong_settings_are_refused_by_name(body: Path) -> None:
    with pytest.raises(UserError, match="phases"):
        job(body, phases=[])
    with pytest.raises(UserError, match="pivot"):
        job(body, pivot=[2.0, 0.0, 0.0])
    with pytest.raises(UserError, match="wall below"):
        job(body, wall=0.5)


@pytest.mark.data("spot")
def test_a_short_search_on_spot_lowers_the_loss() -> None:
    task = job("data:spot", up="y", phases=[{"steps": 10, "lr": 0.1, "penalty": 100.0}], cells=24)
    losses: list[float] = []

    class Quiet:
        def step(self, step: int, loss: float, *rest: object) -> None:
            losses.append(loss)

    task.search(Quiet())
    assert losses[-1] < losses[0]
