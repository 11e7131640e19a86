import math

import numpy as np
import pytest
import torch

from dvc import data
from dvc.errors import Unsupported, UserError
from dvc.records import Mesh
from geometry.mesh import box_mesh, icosphere
from geometry.mesh_edit import decimate, repair, subdivide
from geometry.mesh_io import flat_faces, read_mesh
from geometry.mesh_normals import face_areas
from geometry.mesh_topology import mesh_topology, require_outward

pytest.importorskip("open3d")


def record(vertices: np.ndarray, faces: np.ndarray) -> Mesh:
    return Mesh(torch.from_numpy(np.asarray(vertices, np.float32))[None], torch.from_numpy(np.asarray(faces, np.int32)))


def test_midpoints_keep_the_shape():
    mesh = record(*box_mesh())
    fine = subdivide(mesh, 2)
    assert len(fine.faces) == 16 * 12 and mesh_topology(fine.faces).border_count == 0
    assert float(face_areas(fine).sum()) == pytest.approx(24.0, rel=1e-6)
    require_outward("fine", fine.vertices, fine.faces)


def test_loop_smooths():
    fine = subdivide(record(*box_mesh()), 3, "loop")
    assert mesh_topology(fine.faces).border_count == 0
    radii = fine.vertices[0].norm(dim=1)
    assert float(radii.max()) < 1.4 and float(radii.max() / radii.min()) < 1.5  # the corners were at 1.73


def test_decimation_keeps_a_sphere_round_and_closed():
    coarse = decimate(record(*icosphere(4)), 500)
    assert len(coarse.faces) <= 500 and mesh_topology(coarse.faces).border_count == 0
    assert float((coarse.vertices.norm(dim=2) - 1).abs().max()) < 0.05
    assert decimate(coarse, 10_000) is coarse


def test_repair_of_a_split_box_with_its_faces_turned_and_rubbish_in_it():
    vertices, faces = box_mesh()
    split = vertices[faces].reshape(-1, 3)
    corners = np.arange(36).reshape(-1, 3)
    corners[::2] = corners[::2, ::-1]
    split = np.concatenate([split, [[9, 9, 9], [0, 0, 0], [0.5, 0, 0], [1, 0, 0]]])
    corners = np.concatenate([corners, corners[3:4], [[37, 38, 39], [0, 0, 1]]])
    done = repair(record(split, corners))
    assert len(done.mesh.faces) == 12 and mesh_topology(done.mesh.faces).border_count == done.border_edges == 0
    require_outward("box", done.mesh.vertices, done.mesh.faces)
    assert (done.merged_vertices, done.dropped_faces, done.unused_vertices, done.turned) == (28, 3, 4, True)
    again = repair(done.mesh)
    assert again[1:] == (0, 0, 0, False, 0, 0) and torch.equal(again.mesh.vertices, done.mesh.vertices)


def test_repair_merges_what_is_near():
    vertices, faces = box_mesh()
    split = vertices[faces].reshape(-1, 3) + 1e-4 * np.random.default_rng(0).normal(size=(36, 3))
    assert repair(record(split, np.arange(36).reshape(-1, 3))).border_edges == 36
    done = repair(record(split, np.arange(36).reshape(-1, 3)), merge_distance=1e-2)
    assert len(done.mesh.vertices[0]) == 8 and done.border_edges == 0


def test_repair_fills_a_hole():
    vertices, faces = icosphere(2)
    done = repair(record(vertices, faces[5:]), fill_holes=True)
    assert done.border_edges == 0 and done.filled_faces > 0
    require_outward("sphere", done.mesh.vertices, done.mesh.faces)
    assert float(done.mesh.vertices.norm(dim=2).max()) < 1.0001 and float(face_areas(done.mesh).sum()) < 4 * math.pi


def test_repair_fills_holes_that_touch_at_a_vertex():
    vertices, faces = icosphere(2)
    around = np.flatnonzero((faces == 0).any(1))
    done = repair(record(vertices, np.delete(faces, around[[0, 2]], axis=0)), fill_holes=True)
    assert done.border_edges == 0 and done.filled_faces in (2, 6)  # two triangles, or one fan around a loop of six
    assert mesh_topology(done.mesh.faces).border_count == 0
    assert repair(record(vertices, faces[5:])).border_edges > 0


@pytest.mark.slow
@pytest.mark.data("stanford_bunny")
def test_bunny_is_closed_by_repair_and_decimated():
    bunny = record(*read_mesh(data.find("stanford_bunny")))
    assert mesh_topology(bunny.faces).border_count > 0
    done = repair(bunny, fill_holes=True)
    assert mesh_topology(done.mesh.faces).border_count == done.border_edges == 0
    require_outward("bunny", done.mesh.vertices, done.mesh.faces)
    small = decimate(done.mesh, 4000)
    assert len(small.faces) <= 4000 and not flat_faces(small.vertices[0].numpy(), small.faces.numpy()).any()
    before, after = (float(face_areas(m).sum()) for m in (done.mesh, small))
    assert math.isclose(before, after, rel_tol=0.02)


@pytest.mark.parametrize("function", [subdivide, lambda m: decimate(m, 8), repair], ids=["subdivide", "decimate", "repair"])
def test_what_is_refused(function):
    mesh = record(*box_mesh())
    with pytest.raises(Unsupported, match="no gradient through a change of topology; remedy"):
        function(Mesh(mesh.vertices.clone().requires_grad_(), mesh.faces))
    with pytest.raises(Unsupported, match=r"expected one world.*got \(2, 8, 3\)"):
        function(Mesh(mesh.vertices.repeat(2, 1, 1), mesh.faces))
    with pytest.raises(UserError, match=r"expected vertex numbers in 0..7, got 0..77"):
        function(Mesh(mesh.vertices, torch.where(mesh.faces == 7, 77, mesh.faces)))
    with pytest.raises(UserError, match="expected finite vertices"):
        function(Mesh(mesh.vertices * float("nan"), mesh.faces))


def test_wrong_arguments_are_named():
    mesh = record(*box_mesh())
    with pytest.raises(UserError, match="times: expected at least 0"):
        subdivide(mesh, -1)
    with pytest.raises(UserError, match="expected 'midpoint' or 'loop'"):
        subdivide(mesh, 1, "butterfly")
    with pytest.raises(UserError, match="face_count: expected at least 4, got 3"):
        decimate(mesh, 3)
    with pytest.raises(UserError, match="merge_distance: expected a number from 0, got -1"):
        repair(mesh, -1.0)
    with pytest.raises(UserError, match="expected faces with an area, got none of 1"):
        repair(record(np.array([[0, 0, 0], [1, 0, 0], [2, 0, 0]]), np.array([[0, 1, 2]])))
    band = np.array([[0, 1, 2], [1, 3, 2], [2, 3, 4], [3, 5, 4], [4, 5, 1], [5, 0, 1]])
    ring = np.array([[math.cos(a), math.sin(a), z] for a, z in ((0, 0), (0, 1), (2, 0), (2, 1), (4, 0), (4, 1))])
    with pytest.raises(Unsupported, match="cannot be oriented"):
        repair(record(ring, band))
