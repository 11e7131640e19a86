import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

import geometry.nearest_points as module
from dvc.errors import UserError
from geometry.nearest_points import PointTree, nearest_points


def cloud(worlds: int, count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(worlds, count, 3, generator=torch.Generator().manual_seed(seed))


def brute(queries: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Least squared distances in float64."""
    return (queries.double()[:, :, None] - points.double()[:, None]).square().sum(-1).amin(-1)


def assert_nearest(queries: torch.Tensor, points: torch.Tensor) -> None:
    found = nearest_points(queries, points)
    worlds = max(queries.shape[0], points.shape[0])
    queries, points = queries.expand(worlds, -1, -1), points.expand(worlds, -1, -1)
    at = torch.gather(points, 1, found.nearest[..., None].expand(-1, -1, 3))
    least = brute(queries, points)
    size = 1e-30 + 2e-6 * least
    assert found.nearest.shape == queries.shape[:2] and found.nearest.dtype == torch.int64
    assert bool(((queries.double() - at.double()).square().sum(-1) <= least + size).all())
    assert bool(((found.square.double() - least).abs() <= size).all())


@pytest.mark.parametrize("count", [1, 2, 24, 25, 26, 51, 700, 1500])
@pytest.mark.parametrize("shift", [0.0, 0.5, 20.0])
def test_equal_to_brute_force(count, shift):
    assert_nearest(cloud(2, 300), cloud(2, count, 1) + torch.tensor([shift, 0.0, 0.0]))


def test_one_world_is_repeated_on_either_side():
    assert_nearest(cloud(1, 100), cloud(3, 80, 1))
    assert_nearest(cloud(3, 100), cloud(1, 80, 1))


def test_large_sets_equal_to_a_tree_in_double_precision():
    for shift in (0.0, 3.0):
        queries, points = cloud(1, 20_000), cloud(1, 30_000, 1) + torch.tensor([0.0, shift, 0.0])
        theirs = cKDTree(points[0].double().numpy()).query(queries[0].double().numpy())[0]
        assert np.allclose(nearest_points(queries, points).square[0].sqrt().numpy(), theirs, rtol=2e-6, atol=1e-12)


def test_trees_may_be_reused_and_answer_as_the_points_do():
    a, b = cloud(2, 200), cloud(2, 150, 1)
    tree_a, tree_b = PointTree(a), PointTree(b)
    assert torch.equal(nearest_points(tree_a, tree_b).nearest, nearest_points(a, b).nearest)
    assert torch.equal(nearest_points(b, tree_a).nearest, nearest_points(tree_b, tree_a).nearest)


@pytest.mark.parametrize("group", [1, 2, 8])
def test_groups_and_runs_as_on_either_device(group, monkeypatch):
    monkeypatch.setattr(module, "GROUP_CPU", group)
    monkeypatch.setattr(module, "RUN_CPU", 8)
    assert_nearest(cloud(2, 600), cloud(2, 500, 1))


def test_a_shape_has_itself_as_nearest_points():
    points = cloud(2, 500)
    assert torch.equal(nearest_points(points, points).nearest, torch.arange(500).expand(2, -1))


def test_far_outliers_and_far_from_the_origin():
    points = cloud(1, 2000)
    points[0, 0] = 1e6  # all the others fall into few cells of the curve
    assert_nearest(cloud(1, 300, 2), points)
    assert_nearest(cloud(1, 300, 2) + 1e4, cloud(1, 300, 3) + 1e4)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 40), st.integers(0, 10_000), st.sampled_from(["same", "line", "lattice", "twice", "tiny", "huge"]))
def test_degenerate_sets(count, seed, kind):
    points, queries = cloud(1, count, seed), cloud(1, 37, seed + 1)
    if kind == "same":
        points = points[:, :1].expand(-1, count, -1)
    elif kind == "line":
        points = points * torch.tensor([1.0, 0.0, 0.0])
    elif kind == "lattice":
        points, queries = points.round(), queries.round()
    elif kind == "twice":
        points = torch.cat([points, points], dim=1)
    elif kind == "tiny":
        points = points * 1e-12
    else:
        points, queries = points * 1e12, queries * 1e12
    assert_nearest(queries, points)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (torch.zeros(5, 3), "shape"),
        (torch.zeros(1, 5, 2), "shape"),
        (torch.zeros(1, 0, 3), "at least one point"),
        (torch.full((1, 5, 3), float("nan")), "finite"),
        (torch.tensor([[[0.0, 0, 0], [float("inf"), 0, 0]]]), "finite"),
        (torch.full((1, 5, 3), 1e25), "finite"),
        (torch.zeros(1, 5, 3, dtype=torch.float64), "float32"),
    ],
)
def test_bad_sets_are_named(points, message):
    good = cloud(1, 4)
    for call, name in ((lambda: nearest_points(points, good), "queries"), (lambda: nearest_points(good, points), "points")):
        with pytest.raises(UserError, match=rf"{name}.*{message}"):
            call()


def test_worlds_must_agree():
    with pytest.raises(UserError, match="world axes differ"):
        nearest_points(cloud(2, 4), cloud(3, 4))


@pytest.mark.gpu
def test_on_cuda():
    a, b = cloud(2, 3000), cloud(2, 2500, 1)
    ours = nearest_points(a.cuda(), b.cuda())
    assert torch.allclose(ours.square.cpu(), nearest_points(a, b).square, rtol=1e-5)
