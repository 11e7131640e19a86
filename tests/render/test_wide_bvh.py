import numpy as np
import pytest
import warp as wp
from hypothesis import given, settings
from hypothesis import strategies as st

from dvc.errors import UserError
from geometry.mesh import box_mesh, icosphere
from render import wide_bvh, wide_bvh_cut
from render.wide_bvh import FAR, Forest, any_in_tree, closest_in_tree
from render.wide_bvh_build import ForestHolder, build_forest, refit_forest


@wp.func_native(wide_bvh.query_source(any_hit=False, scalar=True))
def closest_by_lanes(
    nodes: wp.array(dtype=float),
    rows: wp.array(dtype=float),
    row_faces: wp.array(dtype=int),
    root: int,
    origin: wp.vec3,
    direction: wp.vec3,
    t_max: float,
) -> wp.vec4: ...


@wp.func_native(wide_bvh.query_source(any_hit=True, scalar=True))
def any_by_lanes(
    nodes: wp.array(dtype=float), rows: wp.array(dtype=float), root: int, origin: wp.vec3, direction: wp.vec3, t_max: float
) -> bool: ...


@wp.kernel(enable_backward=False)
def trace(
    forest: Forest,
    instance: int,
    origins: wp.array2d(dtype=wp.vec3),
    directions: wp.array2d(dtype=wp.vec3),
    t_max: float,
    faces: wp.array2d(dtype=int),
    hits: wp.array2d(dtype=wp.vec3),
    blocked: wp.array2d(dtype=bool),
):
    world, ray = wp.tid()
    root = forest.roots[world, instance]
    hit = closest_in_tree(forest, root, origins[world, ray], directions[world, ray], t_max)
    faces[world, ray] = hit.face
    hits[world, ray] = wp.vec3(hit.t, hit.u, hit.v)
    blocked[world, ray] = any_in_tree(forest, root, origins[world, ray], directions[world, ray], t_max)


@wp.kernel(enable_backward=False)
def trace_by_lanes(
    forest: Forest,
    instance: int,
    origins: wp.array2d(dtype=wp.vec3),
    directions: wp.array2d(dtype=wp.vec3),
    t_max: float,
    faces: wp.array2d(dtype=int),
    hits: wp.array2d(dtype=wp.vec3),
    blocked: wp.array2d(dtype=bool),
):
    world, ray = wp.tid()
    root = forest.roots[world, instance]
    o = origins[world, ray]
    d = directions[world, ray]
    hit = closest_by_lanes(forest.nodes, forest.rows, forest.row_faces, root, o, d, t_max)
    faces[world, ray] = wp.cast(hit[1], int)
    hits[world, ray] = wp.vec3(hit[0], hit[2], hit[3])
    blocked[world, ray] = any_by_lanes(forest.nodes, forest.rows, root, o, d, t_max)


@wp.kernel
def distance_ahead(forest: Forest, origins: wp.array(dtype=wp.vec3), distances: wp.array(dtype=float)):
    i = wp.tid()
    hit = closest_in_tree(forest, forest.roots[0, 0], origins[i], wp.vec3(0.0, 0.0, 1.0), 10.0)
    distances[i] = hit.t


def shoot(holder: ForestHolder, origins, directions, t_max=1e9, instance=0, kernel=trace):
    """Faces (world, ray), t, u, v (world, ray, 3), whether anything is hit (world, ray)."""
    o = np.ascontiguousarray(origins, np.float32)
    d = np.ascontiguousarray(directions, np.float32)
    o, d = (x[None] if x.ndim == 2 else x for x in (o, d))
    faces, hits, blocked = (
        wp.empty(o.shape[:2], dtype=int),
        wp.empty(o.shape[:2], dtype=wp.vec3),
        wp.empty(o.shape[:2], dtype=bool),
    )
    wp.launch(kernel, o.shape[:2], [holder.forest, instance, wp.array(o, dtype=wp.vec3), wp.array(d, dtype=wp.vec3), t_max],
              [faces, hits, blocked])  # fmt: skip
    faces, hits, blocked = faces.numpy(), hits.numpy(), blocked.numpy()
    assert np.array_equal(blocked, faces >= 0) and (hits[..., 0] == FAR)[faces < 0].all() and np.isfinite(hits).all()
    return faces, hits, blocked


def forest(vertices, faces, instances=None, instance_count=1) -> ForestHolder:
    v = np.ascontiguousarray(vertices, np.float32)
    instances = np.zeros(len(faces), np.int32) if instances is None else instances
    return build_forest(
        wp.array(v[None] if v.ndim == 2 else v, dtype=wp.vec3), wp.array(np.asarray(faces, np.int32).reshape(-1, 3), dtype=int),
        wp.array(np.asarray(instances, np.int32), dtype=int), instance_count,
    )  # fmt: skip


def brute(vertices, faces, o, d, t_max=1e9):
    """t (ray, face) in float64 by Cramer's rule, inf where a face is missed; and by how much (barycentric) at least."""
    v = np.asarray(vertices, np.float64)[faces]
    o, d = np.asarray(o, np.float64)[:, None], np.asarray(d, np.float64)[:, None]
    e, f = v[:, 1] - v[:, 0], v[:, 2] - v[:, 0]
    with np.errstate(all="ignore"):
        p = np.cross(d, f[None])
        det = (e[None] * p).sum(-1)
        s = o - v[:, 0][None]
        u = (s * p).sum(-1) / det
        q = np.cross(s, e[None])
        w = (d * q).sum(-1) / det
        t = (f[None] * q).sum(-1) / det
        inside = np.minimum(np.minimum(u, w), 1.0 - u - w)
        inside = np.where(np.isfinite(inside), inside, -1.0)
    return np.where((inside >= 0) & (t > 0) & (t < t_max), t, np.inf), np.where(t > 0, inside, -1.0)


def soup(count: int, seed: int, size: float = 0.3):
    rng = np.random.default_rng(seed)
    v = (rng.uniform(-1, 1, (count, 1, 3)) + rng.normal(size=(count, 3, 3)) * size).astype(np.float32)
    return v.reshape(-1, 3), np.arange(3 * count, dtype=np.int32).reshape(-1, 3)


def some_rays(count: int, seed: int):
    rng = np.random.default_rng(seed)
    d = rng.normal(size=(count, 3)) * 10.0 ** rng.uniform(-3, 3, (count, 1))
    return rng.uniform(-1.5, 1.5, (count, 3)).astype(np.float32), d.astype(np.float32)


CUBE, CUBE_FACES = box_mesh()


def assert_as_brute_force(vertices, faces, o, d, t_max=1e9, kernel=trace):
    found, hits, _ = shoot(forest(vertices, faces), o, d, t_max, kernel=kernel)
    found, hits = found[0], hits[0].astype(np.float64)
    t, inside = brute(vertices, faces, o, d, t_max)
    clear = np.abs(inside).min(axis=1) > 1e-4  # rays that pass an edge by far less may go either way
    assert clear.mean() > 0.5 or len(faces) > 1000
    nearest = t.min(axis=1)
    assert ((found >= 0) == np.isfinite(nearest))[clear].all()
    ok = (found >= 0) & clear
    corners = np.asarray(vertices, np.float64)[np.asarray(faces)[found[ok]]]
    d = np.asarray(d, np.float64)[ok]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(d, axis=1)
    cosine = np.abs((d * normal).sum(axis=1)) / (lengths * np.linalg.norm(normal, axis=1))
    tolerance = 3e-6 * max(np.abs(vertices).max(), np.abs(o).max()) / cosine  # of a position
    assert (np.abs(hits[ok, 0] - nearest[ok]) * lengths <= tolerance).all()
    u, v = hits[ok, 1, None], hits[ok, 2, None]
    points = (1 - u - v) * corners[:, 0] + u * corners[:, 1] + v * corners[:, 2]
    assert (np.abs(points - (o[ok] + d * nearest[ok, None])).max(axis=1) <= tolerance).all()


@pytest.mark.parametrize("kernel", [trace, trace_by_lanes])
@pytest.mark.parametrize("count", [1, 7, 8, 9, 36, 64, 300, 1500])
def test_equal_to_brute_force(count, kernel):
    assert_as_brute_force(*soup(count, count), *some_rays(1000, 1), kernel=kernel)


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 60), seed=st.integers(0, 1000), scale=st.sampled_from([1e-4, 1.0, 1e5]),
       size=st.sampled_from([0.02, 0.3, 3.0]), t_max=st.sampled_from([0.5, 1e9]))  # fmt: skip
def test_any_soup_is_equal_to_brute_force(count, seed, scale, size, t_max):
    v, f = soup(count, seed, size)
    o, d = some_rays(200, seed)
    assert_as_brute_force(v * np.float32(scale), f, o * np.float32(scale), d * np.float32(scale), t_max)


def at_features(vertices, faces, count, rng):
    """Points on the mesh: inside faces, exactly on edges (rounded), exactly at vertices."""
    corners = vertices[faces[rng.integers(len(faces), size=count)]].astype(np.float64)
    w = rng.dirichlet([1, 1, 1], size=count)
    kind = rng.integers(3, size=count)
    w[kind == 1, 2] = 0
    w[kind == 2] = [1, 0, 0]
    return (corners * (w / w.sum(axis=1, keepdims=True))[..., None]).sum(axis=1)


@pytest.mark.parametrize("kernel", [trace, trace_by_lanes])
@pytest.mark.parametrize("shift", [0.0, 30.0])
@pytest.mark.parametrize("level", [-1, 0, 4])
def test_no_ray_leaks_through_edges_and_vertices(level, shift, kernel):
    """A million rays from inside closed meshes, two thirds of them aimed at edges and vertices."""
    rng = np.random.default_rng(3)
    v, f = (CUBE, CUBE_FACES) if level < 0 else icosphere(level)
    v = v + np.float32(shift)
    count = 200_000 if kernel is trace else 20_000
    holder = forest(v, f)
    for _ in range(5):
        o = (rng.uniform(-0.4, 0.4, (count, 3)) + shift).astype(np.float32)
        o[: count // 8] = shift  # along axes and diagonals
        d = (at_features(v, f, count, rng) - o).astype(np.float32)
        found, hits, _ = shoot(holder, o, d, kernel=kernel)
        assert (found >= 0).all(), f"{(found < 0).sum()} of {count} rays leaked"
        assert np.allclose(hits[..., 0], 1.0, atol=1e-4 * (1 + shift))


@pytest.mark.parametrize("distance", [3.0, 1e3, 1e5])
def test_no_ray_from_afar_leaks(distance):
    rng = np.random.default_rng(5)
    v, f = icosphere(3)
    target = at_features(v, f, 200_000, rng)
    away = target + 0.8 * rng.normal(size=target.shape) * np.linalg.norm(target, axis=1, keepdims=True) / 3**0.5
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    keep = (away * target).sum(axis=1) > 0.3  # rays that miss an edge by rounding still meet the sphere
    o = (target + distance * away)[keep].astype(np.float32)
    found, _, _ = shoot(forest(v, f), o, (target[keep] - o).astype(np.float32))
    assert keep.mean() > 0.5 and (found >= 0).all()


@pytest.mark.parametrize("shift", [0.0, 100.0])
@pytest.mark.parametrize("distance", [2.0, 1e3])
def test_the_offset_in_the_docstring_keeps_rays_off_their_own_face(distance, shift):
    rng = np.random.default_rng(6)
    v, f = icosphere(2)
    v = v + np.float32(shift)
    holder = forest(v, f)
    o = rng.normal(size=(100_000, 3))
    o = (shift + distance * o / np.linalg.norm(o, axis=1, keepdims=True)).astype(np.float32)
    d = (shift + rng.uniform(-0.5, 0.5, o.shape) - o).astype(np.float32)
    face, hits, _ = shoot(holder, o, d)
    assert (face >= 0).all()
    a, b, c = (v[f[face[0], k]].astype(np.float64) for k in range(3))
    normal = np.cross(b - a, c - a)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    point = o.astype(np.float64) + d * hits[0, :, :1]
    largest = max(np.abs(o).max(), np.abs(v).max())
    assert np.abs(((point - a) * normal).sum(axis=1)).max() < 3e-7 * (largest + distance)
    out = rng.normal(size=o.shape)
    out *= np.sign((out * normal).sum(axis=1, keepdims=True))
    start = (point + 1e-5 * max(largest, distance) * normal).astype(np.float32)
    assert not shoot(holder, start, out)[2].any()  # the sphere is convex: nothing is in the way


def test_a_kernel_with_a_backward_pass_may_ask():
    holder = forest(CUBE, CUBE_FACES)
    o = wp.array(np.zeros((1, 3), np.float32), dtype=wp.vec3, requires_grad=True)
    distance = wp.zeros(1, dtype=float, requires_grad=True)
    with wp.Tape() as tape:
        wp.launch(distance_ahead, 1, [holder.forest, o], [distance])
    tape.backward(grads={distance: wp.ones(1, dtype=float)})
    assert distance.numpy()[0] == 1.0 and (o.grad.numpy() == 0).all()


def test_rays_along_the_axes_meet_flat_boxes():
    v, f = CUBE, CUBE_FACES
    o = np.zeros((6, 3), np.float32)
    d = np.concatenate([np.eye(3), -np.eye(3)]).astype(np.float32)
    found, hits, _ = shoot(forest(v, f), np.concatenate([o, o]), np.concatenate([d, d + np.float32(-0.0)]))
    assert (found >= 0).all() and (hits[..., 0] == 1.0).all()
    # within the plane of a face, beside the others' planes: the far wall is met
    o = np.array([[-0.5, 1.0, 0.25]], np.float32)
    found, hits, _ = shoot(forest(v, f), o, np.array([[1.0, 0, 0]], np.float32))
    assert found[0, 0] >= 0 and np.isclose(hits[0, 0, 0], 1.5)


def test_degenerate_faces_are_never_met_and_nan_is_no_hit():
    v = np.array([[0, 0, 0], [1, 1, 1], [3, 3, 3], [0.1, 0.2, 0.3], [0.4, 0.7, 1.0], [1.3, 2.2, 3.1],
                  [np.nan, 0, 0], [0, 1, 0], [1, 0, 0], [np.inf, 1, 1], [1e30, 0, 0],
                  [0, 0, 2], [1, 0, 2], [0, 1, 2]], np.float32)  # fmt: skip
    f = np.array([[0, 1, 2], [0, 0, 1], [1, 1, 1], [3, 4, 5], [6, 7, 8], [9, 7, 8], [10, 7, 8], [11, 12, 13]], np.int32)
    holder = forest(v, f)
    rng = np.random.default_rng(0)
    targets = at_features(np.nan_to_num(v, nan=0.0, posinf=3.0).clip(-3, 3), f, 20_000, rng)
    o = rng.uniform(-2, 2, targets.shape).astype(np.float32)
    for kernel in (trace, trace_by_lanes):
        found, _, _ = shoot(holder, o, (targets - o).astype(np.float32), kernel=kernel)
        assert set(np.unique(found)) == {-1, 7}
        strange = np.array([[np.nan, 0, 1], [0, 0, 0], [np.inf, 0, 1], [1e-40, 0, 0]], np.float32)
        inside = np.tile(np.float32([0.2, 0.2, 1]), (4, 1))
        assert (shoot(holder, inside, strange, kernel=kernel)[0] == -1).all()
        assert (shoot(holder, strange[[0, 2]], inside[:2], kernel=kernel)[0] == -1).all()
        assert (shoot(holder, inside[:1], [[0, 0, 1]], np.nan, kernel=kernel)[0] == -1).all()
        assert (shoot(holder, inside[:1], [[0, 0, 1]], 0.999, kernel=kernel)[0] == -1).all()  # t < t_max
        assert (shoot(holder, inside[:1], [[0, 0, 1]], 1.001, kernel=kernel)[0] == 7).all()
        assert (shoot(holder, [[0.2, 0.2, 2.001]], [[0, 0, 1]], kernel=kernel)[0] == -1).all()  # t > 0


def test_worlds_and_instances_have_trees_of_their_own():
    v, f = soup(400, 5)
    worlds = np.stack([v, v[::-1] + np.float32(0.5), v * np.float32(2)])
    instance = np.random.default_rng(1).integers(0, 3, len(f))
    instance[instance == 1] = 3  # instance 1 has no faces
    holder = forest(worlds, f, instance, 4)
    o, d = some_rays(3 * 500, 2)
    o, d = o.reshape(3, 500, 3), d.reshape(3, 500, 3)
    for i in range(4):
        found, hits, _ = shoot(holder, o, d, instance=i)
        for world in range(3):
            mine = np.flatnonzero(instance == i)
            if not len(mine):
                assert (found[world] == -1).all() and (holder.forest.roots.numpy()[world, i] == -1)
                continue
            alone, hits_alone, _ = shoot(forest(worlds[world], f[mine]), o[world], d[world])
            assert np.array_equal(np.where(alone[0] >= 0, mine[alone[0]], -1), found[world])
            assert np.array_equal(hits_alone[0], hits[world])


def test_a_refit_is_as_good_as_a_new_forest():
    v, f = icosphere(3)
    holder = forest(v, f)
    o, d = some_rays(5000, 4)
    for step in range(1, 6):
        moved = (v * (1 + 0.05 * step * np.sin(3 * v[:, [1, 2, 0]]))).astype(np.float32)
        assert not refit_forest(holder, wp.array(moved[None], dtype=wp.vec3))
        expected = shoot(forest(moved, f), o, d)
        found = shoot(holder, o, d)
        assert np.array_equal(expected[0], found[0]) and np.array_equal(expected[1], found[1])
    assert holder.rebuild_count == 0


def test_a_forest_that_has_come_apart_is_built_anew():
    v, f = soup(2000, 7, 0.05)
    holder = forest(v, f)
    fresh = v[np.random.default_rng(0).permutation(2000)[:, None] * 3 + np.arange(3)].reshape(-1, 3)
    o, d = some_rays(2000, 4)
    assert refit_forest(holder, wp.array(fresh[None], dtype=wp.vec3))
    assert holder.rebuild_count == 1
    assert np.array_equal(shoot(holder, o, d)[0], shoot(forest(fresh, f), o, d)[0])


def test_faces_that_become_finite_come_back_and_others_go():
    v, f = soup(50, 8)
    o, d = some_rays(3000, 4)
    broken = v.copy()
    broken[0:3] = np.nan
    holder = forest(broken, f)
    assert len(holder.left_out) == 1 and 0 not in shoot(holder, o, d)[0]
    refit_forest(holder, wp.array(v[None], dtype=wp.vec3))
    assert holder.rebuild_count == 1 and np.array_equal(shoot(holder, o, d)[0], shoot(forest(v, f), o, d)[0])
    refit_forest(holder, wp.array(broken[None], dtype=wp.vec3))
    assert np.array_equal(shoot(holder, o, d)[0], shoot(forest(broken, f), o, d)[0])


def test_faces_in_one_place_and_a_ladder_of_sizes():
    """Cuts that the heuristic cannot find, and trees that would grow very deep."""
    v, f = soup(1, 0)
    many = np.tile(f, (3000, 1))
    assert (shoot(forest(v, many), *some_rays(500, 0))[0] >= 0).sum() == (shoot(forest(v, f), *some_rays(500, 0))[0] >= 0).sum()
    scale = 2.0 ** np.arange(0, -100, -0.125)
    v = (np.array([[1, 0, 0], [1, 1, 0], [1, 0, 1]]) * scale[:, None, None]).astype(np.float32).reshape(-1, 3)
    f = np.arange(len(v), dtype=np.int32).reshape(-1, 3)
    found, _, _ = shoot(forest(v, f), [[2.0, 0.1, 0.1], [-1.0, 1e-4, 1e-4]], [[-1.0, 0, 0], [1.0, 0, 0]])
    assert found[0, 0] == 0 and found[0, 1] > 50


def test_no_faces_and_wrong_ones():
    v = np.zeros((3, 3), np.float32)
    assert (forest(v, np.zeros((0, 3)), instance_count=2).forest.roots.numpy() == -1).all()
    assert (forest(v * np.nan, [[0, 1, 2]]).forest.roots.numpy() == -1).all()
    with pytest.raises(UserError, match="faces: expected vertices from 0 to 2"):
        forest(v, [[0, 1, 3]])
    with pytest.raises(UserError, match="face_instance"):
        forest(v, [[0, 1, 2]], [1])


def test_large_forests_are_short_of_the_stack():
    assert wide_bvh.STACK_SIZE > (wide_bvh.WIDTH - 1) * (wide_bvh_cut.DEPTH_LIMIT + 27) + wide_bvh.WIDTH
