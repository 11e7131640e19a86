"""Random scenes of everything that is declared: the gradient of every number against central differences.

A dozen scenes by default; DIFFVC_SCENES=300 takes so many, for an hour or more (`benchmarks.random_scenes` keeps results).
"""

import os

import pytest
import torch

from tests.render.random_scenes import random_scene
from tests.render.scene_derivatives import LIMIT, Comparison, compare_scene, recheck

# of all kinds, quick, and whole: what is known to be wrong is found by the others
A_DOZEN = (23, 36, 42, 43, 55, 72, 84, 100, 111, 120, 134, 145)
SCENES = range(int(os.environ["DIFFVC_SCENES"])) if "DIFFVC_SCENES" in os.environ else A_DOZEN
SAMPLES = 64

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:PathRender. the gradient leaves out", "ignore:PathRender. view"),
]


def beyond(number: int, rows: list[Comparison]) -> list[Comparison]:
    """What differs by more than three standard errors, and twice again with other seeds, more samples and smaller steps:
    differences of pictures that jump have long tails."""
    scene = random_scene(number)
    for attempt in range(2):
        rows = [recheck(scene, row, SAMPLES, 2.0, attempt=attempt) for row in rows if abs(row.z) > LIMIT and not row.silent]
    return [row for row in rows if abs(row.z) > LIMIT]


@pytest.mark.parametrize("number", SCENES)
def test_every_number_agrees_with_differences(number: int):
    rows = compare_scene(random_scene(number), SAMPLES, most=1, seed=number)
    counted = [row for row in rows if not row.silent]
    assert len(counted) >= 3
    assert sum(row.z**2 for row in counted if abs(row.z) < 6.0) < 3.0 * len(counted)
    assert sum(row.error <= 0.1 * max(abs(row.expected), row.scale) for row in counted) >= 0.5 * len(counted)
    assert beyond(number, rows) == []


@pytest.mark.parametrize(
    ("boundary_samples", "wrong"),
    [((4096, 0, 0), {"lamp.vertices", "point.position", "beam.direction"}), ((0, 4096, 4096), {"floor.vertices"})],
)
def test_a_gradient_without_shadows_or_outlines_is_noticed(boundary_samples: tuple, wrong: set):
    names = ["lamp.vertices", "point.position", "beam.direction", "floor.vertices"]
    scene = random_scene(3, simple=True)
    rows = compare_scene(scene, SAMPLES, most=2, names=names, boundary_samples=boundary_samples)
    assert {row.name for row in rows if abs(row.z) > 2.0 * LIMIT} == wrong


def test_scenes_are_what_their_number_says():
    for number in range(40):
        first, second = random_scene(number), random_scene(number)
        t = 0.01 * torch.ones(1, len(first.names))
        assert first.words == second.words and first.names == second.names
        for one, other in zip(first.build(t)["camera"][:4], second.build(t)["camera"][:4]):
            assert torch.equal(one, other)
        assert float(first.weights.sum()) == pytest.approx(1.0, rel=1e-5)
