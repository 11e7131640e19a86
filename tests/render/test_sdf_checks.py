"""render/sdf_checks.py: values that are no distances."""

import pytest
import torch

from dvc.errors import UserError
from dvc.records import SdfGrid
from render import value_checks
from render.path_render import PathRender
from render.scene import Material, Scene, SdfBody
from render.sdf_checks import slope_at_surface
from tests.render.ray_scenes import film, perspective

N = 17
SPACING = 2.0 / (N - 1)
AXIS = torch.linspace(-1, 1, N)
NODES = torch.stack(torch.meshgrid(AXIS, AXIS, AXIS, indexing="ij"), dim=-1)
BALL = (NODES.norm(dim=-1) - 0.6)[None]


def grid(values: torch.Tensor) -> SdfGrid:
    return SdfGrid(values, torch.full((3,), -1.0), SPACING)


def shown(values: torch.Tensor) -> torch.Tensor:
    scene = Scene([SdfBody(grid(values), "m")], {"m": Material()}, environment=1.0)
    return PathRender(samples=2, depth=2)(scene, perspective((0, -3, 1), (0, 0, 0), 50, 6), film(6))


@pytest.mark.parametrize("scale", [0.2, 1.0, 7.0])
def test_slope_of_a_scaled_ball(scale: float) -> None:
    assert abs(slope_at_surface(grid(scale * BALL)) / scale - 1.0) < 0.02
    assert abs(slope_at_surface(grid(scale * (NODES[None, ..., 1] - 0.03))) / scale - 1.0) < 1e-4  # one axis alone changes


def test_squares_and_what_has_no_surface() -> None:
    squares = (NODES.square().sum(dim=-1) - 0.36)[None]
    assert abs(slope_at_surface(grid(squares)) - 1.2) < 0.06  # 2 r
    assert slope_at_surface(grid(-torch.ones(1, 3, 3, 3))) is None
    changed = BALL.clone()
    kept = grid(changed)
    before = slope_at_surface(kept)
    changed *= 2.0
    assert abs(slope_at_surface(kept) / before - 2.0) < 1e-4


def test_values_that_are_no_distances(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(value_checks, "_said", set())
    exact = shown(BALL)
    assert torch.allclose(shown(0.3 * BALL), exact, atol=1e-3)  # a picture is right all the same
    for scale, slope in ((0.01, "0.0099"), (5.0, "4.9")):
        with pytest.raises(
            UserError, match=rf"expected signed distances, .* got a median slope of {slope}\d*; remedy: geometry"
        ):
            shown(scale * BALL)
    with pytest.raises(UserError, match=r"median slope of 0.09"):
        shown((0.1 * BALL).requires_grad_())
    with pytest.warns(UserWarning, match=r"median slope of 0.39.*: the gradient of outlines and shadows may be off.*said once"):
        shown((0.4 * BALL).requires_grad_())
