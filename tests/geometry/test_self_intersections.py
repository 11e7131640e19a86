import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dvc import data
from dvc.errors import UserError
from dvc.records import Mesh
from geometry.mesh import icosphere
from geometry.mesh_io import read_mesh
from geometry.self_intersections import self_intersecting_faces, self_intersection_count


def soup(*triangles) -> Mesh:
    points = np.array(triangles, np.float32).reshape(1, -1, 3)
    return Mesh(torch.from_numpy(points), torch.arange(points.shape[1], dtype=torch.int32).reshape(-1, 3))


FLOOR = ((0, 0, 0), (4, 0, 0), (0, 4, 0))


@pytest.mark.parametrize(
    ("other", "meets"),
    [
        (((1, 1, -1), (1, 1, 1), (2, 1, 1)), True),  # an edge pierces it
        (((1, 1, 1), (2, 1, 1), (1, 2, 2)), False),  # above it
        (((9, 9, -1), (9, 9, 1), (8, 9, 1)), False),  # beside it
        (((5, 5, -1), (5, 5, 1), (-5, -5, 1)), True),  # it is pierced by the other's edge
        (((1, 1, 0), (1, 2, 3), (2, 1, 3)), True),  # a vertex touches
        (((1, 1, 0), (2, 1, 0), (1, 2, 0)), True),  # in its plane, inside
        (((3, 3, 0), (5, 3, 0), (3, 5, 0)), False),  # in its plane, outside
        (((-1, 1, 0), (5, 1, 0), (5, 2, 0)), True),  # in its plane, edges cross
        (((1, 1, -1), (1, 1, 1), (1, 1, 1)), True),  # a segment through it
        (((1, 1, 1), (1, 1, 1), (1, 1, 1)), False),  # a point above
    ],
)
def test_pairs_by_hand(other, meets):
    for mesh in (soup(FLOOR, other), soup(other, FLOOR)):
        assert int(self_intersection_count(mesh)) == int(meets)
        assert self_intersecting_faces(mesh).tolist() == [[meets, meets]]
    turned = Mesh(mesh.vertices @ torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(0)))[0], mesh.faces)
    if not any(z == 0 for _, _, z in other):  # turning rounds what lies in one plane
        assert int(self_intersection_count(turned)) == int(meets)


def test_neighbours_and_split_seams_do_not_count():
    vertices, faces = icosphere(2)
    whole = Mesh(torch.from_numpy(vertices)[None], torch.from_numpy(faces))
    split = Mesh(
        whole.vertices[:, whole.faces.reshape(-1).long()], torch.arange(3 * len(faces), dtype=torch.int32).reshape(-1, 3)
    )
    assert int(self_intersection_count(whole)) == 0
    assert int(self_intersection_count(split)) == 0


@pytest.mark.slow
def test_two_spheres_meet_in_a_ring_in_one_world_only():
    vertices, faces = icosphere(2)
    points = torch.from_numpy(
        np.stack([np.concatenate([vertices, vertices + [d, 0.07, 0.03]]) for d in (0.9, 3.0)]).astype("f4")
    )
    mesh = Mesh(points, torch.from_numpy(np.concatenate([faces, faces + len(vertices)])))
    count, hit = self_intersection_count(mesh), self_intersecting_faces(mesh)
    assert int(count[0]) > 10 and int(count[1]) == 0 and not hit[1].any()
    ring = points[0][mesh.faces[hit[0]].long()].mean(1)
    assert float((ring[:, 0] - 0.45).abs().max()) < 0.4
    assert int(count[0]) == brute_force(mesh)


def brute_force(mesh: Mesh) -> int:
    """A twin by linear algebra: every edge of one against the plane of the other, barycentric coordinates of the hit."""
    points, faces = mesh.vertices[0].double().numpy(), mesh.faces.numpy()
    total = 0
    for f, g in itertools.combinations(range(len(faces)), 2):
        if set(faces[f]) & set(faces[g]):
            continue
        total += any(pierces(points[faces[s]], points[faces[t]]) for s, t in ((f, g), (g, f)))
    return total


def pierces(s: np.ndarray, t: np.ndarray) -> bool:
    if (s.max(0) < t.min(0)).any() or (t.max(0) < s.min(0)).any():
        return False
    normal = np.cross(t[1] - t[0], t[2] - t[0])
    for i in range(3):
        p, q = s[i], s[(i + 1) % 3]
        rise = (q - p) @ normal
        if rise == 0:
            continue
        at = (t[0] - p) @ normal / rise
        if 0 <= at <= 1:
            x = np.linalg.lstsq(np.stack([t[1] - t[0], t[2] - t[0]], 1), p + at * (q - p) - t[0], rcond=None)[0]
            if x.min() >= 0 and x.sum() <= 1:
                return True
    return False


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), turn=st.integers(0, 5))
def test_random_soups_equal_the_twin(seed, turn):
    generator = np.random.default_rng(seed)
    points = generator.normal(size=(1, 36, 3)).astype(np.float32)
    mesh = Mesh(torch.from_numpy(points), torch.arange(36, dtype=torch.int32).reshape(-1, 3))
    count = int(self_intersection_count(mesh))
    assert count == brute_force(mesh)
    order = torch.from_numpy(generator.permutation(12))
    assert int(self_intersection_count(Mesh(mesh.vertices, mesh.faces[order].roll(turn, 1).contiguous()))) == count


def disjoint(s: np.ndarray, t: np.ndarray) -> bool:
    """Exact for integers: two triangles with an area are apart iff an axis separates them (normals, crossed edges)."""
    edges = [np.roll(x, -1, 0) - x for x in (s, t)]
    normals = [np.cross(e[0], e[1]) for e in edges]
    axes = [*normals, *(np.cross(a, b) for a in edges[0] for b in edges[1])]
    axes += [np.cross(n, e) for n, es in zip(normals, edges) for e in es]
    return any((s @ a).max() < (t @ a).min() or (t @ a).max() < (s @ a).min() for a in axes)


@pytest.mark.slow
@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 2**31 - 1), size=st.integers(2, 5))
def test_lattice_soups_that_touch_and_share_planes_equal_an_exact_twin(seed, size):
    points = np.random.default_rng(seed).integers(-size, size + 1, (10, 3, 3))
    points = points[np.abs(np.cross(points[:, 1] - points[:, 0], points[:, 2] - points[:, 0])).sum(1) > 0]
    count = 0
    for s, t in itertools.combinations(points, 2):
        shared = (s[:, None] == t[None]).all(2).any()
        count += not shared and not disjoint(s, t)
    if len(points):
        faces = torch.arange(3 * len(points), dtype=torch.int32).reshape(-1, 3)
        mesh = Mesh(torch.from_numpy(points.astype(np.float32)).reshape(1, -1, 3), faces)
        assert int(self_intersection_count(mesh)) == count


@pytest.mark.data("spot")
def test_spot_and_a_turned_spot_meet_as_open3d_finds():
    open3d = pytest.importorskip("open3d")
    vertices, faces = read_mesh(data.find("spot"))
    mesh = Mesh(torch.from_numpy(vertices)[None], torch.from_numpy(faces).int())
    assert int(self_intersection_count(mesh)) == 0
    both = np.concatenate([vertices, 0.9 * vertices[:, [2, 0, 1]] + np.float32([0.11, 0.07, 0.03])]).astype(np.float32)
    both_faces = np.concatenate([faces, faces + len(vertices)])
    ours = int(self_intersection_count(Mesh(torch.from_numpy(both)[None], torch.from_numpy(both_faces).int())))
    theirs = open3d.geometry.TriangleMesh(
        open3d.utility.Vector3dVector(both.astype(np.float64)), open3d.utility.Vector3iVector(both_faces)
    ).get_self_intersecting_triangles()
    assert ours > 100 and ours == len(theirs)


def test_points_that_are_not_finite_are_refused():
    mesh = soup(FLOOR)
    mesh.vertices[0, 1, 2] = float("nan")
    with pytest.raises(UserError, match="expected finite vertices"):
        self_intersection_count(mesh)
