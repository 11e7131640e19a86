"""Gauss-Newton on noisy residuals: the answer, the covariance, what does not move; and objects made by rule."""

import pytest
import torch
from torch import Tensor, nn

from dvc.descent import Problem
from dvc.errors import UserError
from dvc.losses import Objective, term
from dvc.parameter import Parameter
from dvc.parameter_vector import ParameterVector
from dvc.pipeline import Pipeline
from dvc.records import Film
from experiments.known_objects import blotches, board, box
from experiments.photographs import PhotographMisfit, film_at
from experiments.picture_newton import descend, rendered_uncertainty
from experiments.rendered_check import check_rendered
from geometry.mesh_topology import require_outward

CLUSTERS, VALUES = 40, 12


class Curve(nn.Module):
    """(world, cluster, value): a (1 + 0.1 a) u + b v - measured, with noise of the seed, as a renderer has it."""

    def __init__(self, noise: float):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.u, self.v = torch.randn(2, CLUSTERS, VALUES, generator=generator)
        self.sensor = torch.randn(CLUSTERS, VALUES, generator=generator)
        self.noise = noise

    def forward(self, a: Tensor, b: Tensor, seed: int) -> Tensor:
        a, b = a[:, None, None], b[:, None, None]
        mine = self.noise * torch.randn(CLUSTERS, VALUES, generator=torch.Generator().manual_seed(seed))
        return (a * (1.0 + 0.1 * a) * self.u + b * self.v - (2.4 * self.u - 1.0 * self.v)) / 0.05 + self.sensor + mine


def problem(noise: float) -> tuple[Pipeline, ParameterVector, Objective]:
    stages = {"a": Parameter(0.3, unit="m"), "b": Parameter(0.2, unit="m"), "curve": Curve(noise)}
    pipeline = Pipeline(stages, {"curve": {"a": "a", "b": "b", "seed": "$seed"}})
    return pipeline, ParameterVector(pipeline), Objective({"curve": term("curve")})


def columns_of(pipeline: Pipeline, noise: float):
    curve: Curve = pipeline.stages["curve"]  # type: ignore[assignment]

    def columns(x: Tensor, seed: int) -> Tensor:
        exact = torch.stack([(1.06 + 0.2 * x[0]) * curve.u, curve.v]) / 0.05
        return exact + noise * torch.randn(exact.shape, generator=torch.Generator().manual_seed(seed))

    return columns


@pytest.mark.parametrize("noise", [0.0, 0.3])
def test_the_answer_and_its_covariance(noise: float) -> None:
    pipeline, vector, objective = problem(noise)
    columns, active = columns_of(pipeline, 20.0 * noise), torch.ones(2)

    def problem_at(seed: int) -> Problem:
        return Problem(pipeline, objective, vector, {"seed": seed})

    seen: list[float] = []
    x, loss = descend(problem_at, columns, vector.gather()[0], active, 15, 5, lambda _, value: seen.append(value))
    unsure = rendered_uncertainty(problem_at, "curve", columns, x, (1000, 2000))
    exact = columns_of(pipeline, 0.0)(x, 0).flatten(1).double()
    expected = torch.linalg.inv(exact @ exact.T)
    assert float((x - torch.tensor([1.7, -1.2])).abs().max()) < 5.0 * float(expected.diagonal().max().sqrt())
    assert seen[-1] == loss < 0.6 * CLUSTERS * VALUES * (1.0 + noise**2)
    ratio = unsure.covariance.diagonal().double() / expected.diagonal()
    assert bool((ratio > 0.4).all() and (ratio < 2.5).all()) and not unsure.weak.any()
    assert unsure.clusters == CLUSTERS and unsure.residual_count == CLUSTERS * VALUES


def test_what_is_not_active_stays_and_what_is_not_finite_is_said() -> None:
    pipeline, vector, objective = problem(0.0)
    x, _ = descend(
        lambda seed: Problem(pipeline, objective, vector, {"seed": seed}), columns_of(pipeline, 0.0), vector.gather()[0],
        torch.tensor([0.0, 1.0]), 6, 0, lambda *_: None,
    )  # fmt: skip
    assert float(x[0]) == 0.0 and float(x[1]) != 0.0
    with pytest.raises(UserError, match="finite"):
        descend(
            lambda seed: Problem(pipeline, objective, vector, {"seed": seed}), columns_of(pipeline, 0.0),
            torch.tensor([float("nan"), 0.0]), torch.ones(2), 1, 0, lambda *_: None,
        )  # fmt: skip
    with pytest.raises(UserError, match="at least 3 clusters"):
        few = lambda x, seed: columns_of(pipeline, 0.0)(x, seed)[:, :2]  # noqa: E731
        rendered_uncertainty(lambda seed: Problem(pipeline, objective, vector, {"seed": seed}), "curve", few, x, (1, 2))


def test_the_check_passes_a_right_gradient_and_not_a_wrong_one() -> None:
    pipeline, _, _ = problem(0.1)
    assert all(row.passed for row in check_rendered(pipeline, "curve", {}, seeds=4))

    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(context, a):  # type: ignore[no-untyped-def]
            return a.clone()

        @staticmethod
        def backward(context, gradient):  # type: ignore[no-untyped-def]
            return 1.2 * gradient

    class Bent(Curve):
        def forward(self, a: Tensor, b: Tensor, seed: int) -> Tensor:
            return super().forward(Wrong.apply(a), b, seed)

    stages = {"a": Parameter(0.3, unit="m"), "b": Parameter(0.2, unit="m"), "curve": Bent(0.1)}
    rows = check_rendered(Pipeline(stages, {"curve": {"a": "a", "b": "b", "seed": "$seed"}}), "curve", {}, seeds=4)
    assert [row.passed for row in rows] == [False, True]


def test_objects_are_closed_and_their_textures_apart() -> None:
    mesh, uv = box((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
    require_outward("box", mesh.vertices, mesh.faces)
    assert torch.allclose(mesh.vertices[0].amax(0) - mesh.vertices[0].amin(0), torch.tensor([0.2, 0.4, 0.6]))
    assert torch.allclose(mesh.vertices[0].mean(0), torch.tensor([1.0, 2.0, 3.0]))
    cells = (uv.mean(1) * torch.tensor([3.0, 2.0])).floor()
    assert len(torch.unique(cells, dim=0)) == 6 and float(uv.min()) > 0.0 and float(uv.max()) < 1.0
    ground, ground_uv = board(0.5, 0.25)
    assert float(ground.vertices[..., 2].abs().max()) == 0.0 and ground_uv.shape == (2, 3, 2)
    image = blotches(16, 3)
    assert image.shape == (1, 16, 16, 3) and float(image.min()) > 0.0 and float(image.max()) < 1.0
    assert torch.equal(image, blotches(16, 3)) and not torch.equal(image, blotches(16, 4))


def test_residuals_by_tiles_hold_every_pixel_once() -> None:
    misfit, images = PhotographMisfit(0.5, 2), torch.rand(2, 3, 8, 12, 3)
    with pytest.raises(UserError, match="photographs"):
        misfit(images, 0)
    misfit.observe(torch.zeros(3, 8, 12, 3))
    parts = misfit(images, 0)
    assert parts.shape == (2, 12, 4 * 6 * 3) and float(parts.sum()) == pytest.approx(2.0 * float(images.sum()), rel=1e-4)
    assert float(parts[1, 5].sum()) == pytest.approx(
        2.0 * float(images[1, 1, :4, 6:].sum()), rel=1e-4
    )  # top right of the second
    assert misfit(images[:, :, ::2, ::2], 1).shape == (2, 12, 2 * 3 * 3)
    assert film_at(Film(12, 8, 0.0, 0.0, 12, 8, 1.0), 1)[4:] == (6, 4, 0.5)
    with pytest.raises(UserError, match="level"):
        film_at(Film(12, 8, 0.0, 0.0, 12, 8, 1.0), 3)
