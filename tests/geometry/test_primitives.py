import pytest
import torch

from dvc.errors import UserError
from geometry.primitives import Box, Sphere


def test_shapes_keep_their_sizes():
    radius, half = torch.tensor([0.1, 0.2]), torch.rand(2, 3)
    assert Sphere()(radius).radius is radius
    assert Box()(half).half_extents is half


@pytest.mark.parametrize(("stage", "size"), [(Sphere(), torch.ones(1, 3)), (Box(), torch.ones(3))])
def test_wrong_shape_names_the_argument(stage, size):
    with pytest.raises(UserError, match="expected shape"):
        stage(size)
