import pytest
import torch

from dvc.errors import UserError
from dvc.parameter import Parameter
from dvc.pipeline import Pipeline
from geometry.sdf_blend import smooth_union
from geometry.sdf_evaluate import sdf_distance
from geometry.sdf_shapes import capsule, ellipsoid, moved, scaled
from geometry.sdf_stage import SdfDistance, SdfShapes

POINTS = torch.rand(1, 200, 3, generator=torch.Generator().manual_seed(0)) * 3 - 1.5


def test_stage_in_a_pipeline():
    solid = {
        "smooth_union": [
            {"ellipsoid": [[0.3, 0.2, 0.2]]},
            {"capsule": ["length", 0.05], "position": "shoulder", "rotation": [0, 1, 0, 1], "scale": 1.5},
        ],
        "radius": 0.1,
    }

    class Points(torch.nn.Module):
        def forward(self):
            return POINTS

    stages = {"length": Parameter(0.3, 0.1, 1.0), "shoulder": Parameter([0.2, 0.0, 0.1]), "points": Points()}
    wiring = {"solid": {"length": "length", "shoulder": "shoulder"}, "sdf": {"shape": "solid", "points": "points"}}
    pipeline = Pipeline({**stages, "solid": SdfShapes(solid), "sdf": SdfDistance()}, wiring)
    d = pipeline(["sdf.distance"])["sdf.distance"]
    arm = moved(scaled(capsule(0.3, 0.05), 1.5), (0.2, 0.0, 0.1), (0.0, 1.0, 0.0, 1.0))
    assert torch.allclose(d, sdf_distance(smooth_union(ellipsoid((0.3, 0.2, 0.2)), arm, radius=0.1), POINTS), atol=1e-6)
    d.sum().backward()
    gradients = [p.grad for p in pipeline.parameters()]
    assert len(gradients) == 2 and all(bool((g != 0).all()) for g in gradients)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SdfShapes({"cone": [1]}), "expected one of sphere"),
        (lambda: SdfShapes({"sphere": [1], "colour": 3}), "no setting 'colour'"),
        (lambda: SdfShapes({"smooth_union": [{"sphere": [1]}]}), "expected a radius"),
        (lambda: SdfShapes({"sphere": ["r"]})(), "expected the inputs r, got none"),
        (lambda: SdfShapes({"capsule": [1]})(), "expected the sizes half length, radius"),
    ],
)
def test_wrong_settings_are_one_clear_error(build, message):
    with pytest.raises(UserError, match=message):
        build()
