"""Options and seeds of `PathRender`: whole numbers where whole numbers are meant, each wrong one in one line."""

import numpy as np
import pytest
import torch

from dvc.errors import UserError
from render.path_render import PathRender
from render.scene import Ball, Material, Scene
from tests.render.ray_scenes import film, from_above

SCENE = Scene([Ball((0, 0, 0), 0.5, "m")], {"m": Material()}, environment=1.0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"samples": 1.5}, "PathRender.samples: expected a whole number of at least 1, got 1.5"),
        ({"samples": "8"}, "PathRender.samples: expected a whole number of at least 1, got '8'"),
        ({"samples": True}, "PathRender.samples: expected a whole number"),
        ({"depth": 0}, "PathRender.depth: expected a whole number of at least 1, got 0"),
        ({"gradient_samples": 2.0}, "PathRender.gradient_samples: expected a whole number"),
        ({"roulette_depth": -1}, "PathRender.roulette_depth: expected a whole number of at least 1, got -1"),
        ({"boundary_samples": (1, 2)}, r"boundary_samples: expected one whole number, three, or None, got \(1, 2\)"),
        ({"boundary_samples": "a"}, "boundary_samples: expected a whole number of at least 0, got 'a'"),
        ({"boundary_samples": -1}, "boundary_samples: expected a whole number of at least 0, got -1"),
        ({"boundary_samples": 4.5}, "boundary_samples: expected a whole number of at least 0, got 4.5"),
        ({"boundary_samples": (1, 2, "c")}, r"boundary_samples\[2\]: expected a whole number"),
        ({"side_offset": "far"}, "side_offset: expected a positive number of at most 0.5, got 'far'"),
        ({"side_offset": float("nan")}, "side_offset: expected a positive number"),
        ({"meshes": torch.ones(2)}, r"meshes: expected bool, got Tensor of shape \(2,\)"),
        ({"pixel_filter": ["box"]}, r"pixel_filter: expected str, got \['box'\]"),
        ({"pixel_filter": "tent", "filter_size": "wide"}, "filter_size: expected a positive number, got 'wide'"),
    ],
)
def test_options_that_are_none(options: dict, words: str) -> None:
    with pytest.raises(UserError, match=words):
        PathRender(**options)


@pytest.mark.parametrize(
    ("seed", "words"),
    [
        (2**40, r"seed: expected a whole number from -2147483648 to 2147483647, got 1099511627776"),
        (None, "seed: expected a whole number from .*, got None"),
        (1.5, "seed: expected a whole number from .*, got 1.5"),
        (torch.tensor([1, 2, 3], dtype=torch.int32), r"int32 of shape \(1,\), one a view, got torch.int32 of shape \(3,\)"),
        (torch.tensor([1.0]), "got torch.float32"),
        (torch.tensor([2**40]), "seed: expected whole numbers from -2147483648 to 2147483647, got 1099511627776"),
    ],
)
def test_seeds_that_are_none(seed, words: str) -> None:
    with pytest.raises(UserError, match=words):
        PathRender(samples=1)(SCENE, from_above(2), film(2), seed=seed)


@pytest.mark.parametrize("interval", [0.0, float("inf"), "1", torch.tensor(1.0, requires_grad=True)])
def test_intervals_that_are_none(interval) -> None:
    with pytest.raises(UserError, match=r"PathRender.node_interval: expected a"):
        PathRender(samples=1)(SCENE, from_above(2), film(2), node_interval=interval)


def test_seeds_of_every_kind_agree() -> None:
    images = [
        PathRender(samples=np.int64(2))(SCENE, from_above(4), film(4), seed=seed)
        for seed in (7, np.int64(7), torch.tensor(7), torch.tensor([7]), torch.tensor([7], dtype=torch.int32))
    ]
    assert all(torch.equal(image, images[0]) for image in images)
