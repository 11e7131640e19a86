"""Trees from one call serve the next: the same picture as by new trees, and never two users of one."""

import numpy as np
import pytest
import torch
import warp as wp

from dvc.records import Mesh
from geometry.mesh import icosphere
from render import forest_cache
from render.forest_cache import borrow_forest, forget_forests, give_back
from render.path_render import PathRender
from render.scene import Body, Material, Scene
from tests.render.ray_scenes import film, from_above, row

SPHERE, FACES = icosphere(2)
POINTS = torch.tensor(SPHERE, dtype=torch.float32)[None]
TRIANGLES = torch.tensor(FACES, dtype=torch.int32)


@pytest.fixture(autouse=True)
def no_trees():
    forget_forests()
    yield
    forget_forests()


def arrays(points: torch.Tensor, triangles: torch.Tensor = TRIANGLES) -> tuple:
    owner = torch.zeros(len(triangles), dtype=torch.int32)
    return wp.from_torch(points.contiguous(), dtype=wp.vec3), wp.from_torch(triangles), wp.from_torch(owner), 1


def picture(points: torch.Tensor) -> torch.Tensor:
    scene = Scene([Body(Mesh(points, TRIANGLES), "m")], {"m": Material(row(0.5, 0.6, 0.7))}, environment=row(1, 1, 1))
    return PathRender(samples=4, depth=3)(scene, from_above(16), film(16))


def test_pictures_of_refitted_trees():
    bent = 0.7 * POINTS + 0.2 * torch.sin(5.0 * POINTS.roll(1, dims=2))
    picture(POINTS)
    found = picture(bent)  # by the first one's trees
    assert len(forest_cache._kept) == 1
    forget_forests()
    torch.testing.assert_close(found, picture(bent), rtol=1e-5, atol=1e-6)


def test_vertices_that_a_user_changes_in_place():
    points = POINTS.clone()
    first = picture(points)
    points.mul_(0.5)
    found = picture(points)
    assert float((found - first).abs().max()) > 0.1
    forget_forests()
    torch.testing.assert_close(found, picture(points), rtol=1e-5, atol=1e-6)


def test_lent_to_one_user_at_a_time():
    one, other = borrow_forest(*arrays(POINTS)), borrow_forest(*arrays(POINTS))
    assert one is not other
    give_back(one)
    give_back(other)
    assert borrow_forest(*arrays(POINTS)) is other
    assert borrow_forest(*arrays(POINTS)) is one


def test_other_faces_have_other_trees():
    kept = borrow_forest(*arrays(POINTS))
    give_back(kept)
    turned = TRIANGLES.roll(1, dims=1).contiguous()
    assert borrow_forest(*arrays(POINTS, turned)) is not kept


def test_built_anew_where_neighbours_have_moved_apart():
    kept = borrow_forest(*arrays(POINTS))
    give_back(kept)
    shuffled = POINTS[:, torch.randperm(POINTS.shape[1], generator=torch.Generator().manual_seed(1))]
    again = borrow_forest(*arrays(shuffled))
    assert again is kept and again.holder.rebuild_count == 1
    np.testing.assert_array_equal(again.vertices.numpy(), shuffled.numpy())


def test_the_oldest_are_let_go():
    held = [borrow_forest(*arrays(POINTS, TRIANGLES[i:].contiguous())) for i in range(forest_cache.MOST_KEPT + 2)]
    for kept in held:
        give_back(kept)
    assert forest_cache._kept == held[2:]
