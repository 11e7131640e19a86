"""Records: the world axis."""

import pytest
import torch

from dvc import UserError
from dvc.records import Camera, Film, Frames, expand_worlds, world_count


def test_world_count():
    one, many = torch.zeros(1, 3), torch.zeros(4)
    assert world_count(one, one) == 1 and world_count(one, many) == 4 and world_count() == 1
    with pytest.raises(UserError, match=r"world axes differ.*\(4,\), \(2, 5\)"):
        world_count(many, torch.zeros(2, 5))


def test_expand_worlds_shares_memory():
    one = torch.arange(3.0)[None]
    assert expand_worlds(one, 4).shape == (4, 3) and expand_worlds(one, 4).data_ptr() == one.data_ptr()
    many = torch.zeros(4, 3)
    assert expand_worlds(many, 4) is many


def test_records_are_tuples_with_names():
    film = Film(640, 480, 0.0, 0.0, 64, 48, 0.1)
    frames = Frames(torch.zeros(1, 2, 48, 64, 3), torch.zeros(48, 64, 3), film)
    images, background, same = frames
    assert images is frames.images and background is frames.background and same.columns == 64
    assert Camera._fields == ("position", "rotation", "focal", "center", "orthographic", "distortion")
    assert Camera(*torch.zeros(4, 1), True).distortion is None
