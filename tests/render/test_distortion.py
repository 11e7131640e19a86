"""Lens distortion: OpenCV's numbers, the inverse over random lenses, and the check that refuses lenses that fold."""

import numpy as np
import pytest
import torch
import warp as wp
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from dvc import UserError
from dvc.gradient_check import gradient_check
from render.distortion import LEAST_STRETCH, distort, distort_points, least_stretch, require_invertible, undistort_point, vec5
from tests.physics.scenes import assert_certified

STRONG = (-0.28, 0.07, 0.004, -0.003, 0.01)


@wp.kernel(enable_backward=False)
def invert(
    d: wp.array2d(dtype=wp.vec2),
    k: wp.array(dtype=vec5),
    u: wp.array2d(dtype=wp.vec2),
    again: wp.array2d(dtype=wp.vec2),
):
    i, j = wp.tid()
    u[i, j] = undistort_point(d[i, j], k[i])
    again[i, j] = distort(u[i, j], k[i])


def inverse(d: np.ndarray, k: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    inputs = [
        wp.array(d.astype(np.float32), dtype=wp.vec2, device="cpu"),
        wp.array(k.astype(np.float32), dtype=vec5, device="cpu"),
    ]
    outputs = [wp.zeros(d.shape[:2], dtype=wp.vec2, device="cpu") for _ in range(2)]
    wp.launch(invert, d.shape[:2], inputs, outputs, device="cpu")
    return outputs[0].numpy().copy(), outputs[1].numpy().copy()


def test_distorted_points_are_opencv_s() -> None:
    cv2 = pytest.importorskip("cv2")
    points = np.random.default_rng(0).uniform(-0.6, 0.6, (50, 2))
    k = np.array(STRONG)
    expected, _ = cv2.projectPoints(np.c_[points, np.ones(50)], np.zeros(3), np.zeros(3), np.eye(3), k)
    ours = distort_points(torch.from_numpy(points), torch.from_numpy(k))
    np.testing.assert_allclose(ours.numpy(), expected[:, 0], rtol=1e-12, atol=1e-14)


def test_gradient_of_distorted_points() -> None:
    inputs = [torch.rand(1, 6, 2, generator=torch.Generator().manual_seed(0)) - 0.5, torch.tensor([[STRONG]])]
    rows = gradient_check(distort_points, [t.requires_grad_() for t in inputs], ["points", "coefficients"])
    assert_certified(rows)


def random_lenses(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients (lens, 5), many of them too strong, and film corners (lens, 4)."""
    rng = np.random.default_rng(seed)
    k = rng.normal(size=(count, 5)) * np.array([0.4, 0.3, 0.03, 0.03, 0.2]) * rng.random((count, 1)) * 1.5
    half, center = rng.uniform(0.3, 1.2, (count, 2)), rng.normal(size=(count, 2)) * 0.1
    return k, np.concatenate([center - half, center + half], -1)


def plain(u: np.ndarray, k: np.ndarray) -> np.ndarray:
    """d(u) of points (lens, point, 2) for coefficients (lens, 5), double precision."""
    return distort_points(torch.from_numpy(u), torch.from_numpy(k)[:, None]).numpy()


def solution(d: np.ndarray, k: np.ndarray) -> np.ndarray:
    """d(u) = d by following the ray from the axis in 30 steps, double precision, numerical Jacobian."""
    u, h = np.zeros(d.shape), 1e-6
    for i in range(1, 31):
        for _ in range(2 if i < 30 else 5):
            xx, yx = np.moveaxis(plain(u + [h, 0], k) - plain(u - [h, 0], k), -1, 0) / (2 * h)
            xy, yy = np.moveaxis(plain(u + [0, h], k) - plain(u - [0, h], k), -1, 0) / (2 * h)
            rx, ry = np.moveaxis(plain(u, k) - d * (i / 30), -1, 0)
            u = u - np.stack([yy * rx - xy * ry, xx * ry - yx * rx], -1) / (xx * yy - xy * yx)[..., None]
    return u


def test_every_film_point_of_an_accepted_lens_is_found() -> None:
    k, corners = random_lenses(400, 0)
    stretch = least_stretch(k, corners)
    accepted = stretch >= LEAST_STRETCH
    assert 0.4 < accepted.mean() < 0.8
    k, corners = k[accepted], corners[accepted]
    places = np.random.default_rng(1).random((len(k), 24, 2))
    places[:, :4] = [(0, 0), (0, 1), (1, 0), (1, 1)]
    d = (corners[:, None, :2] + places * (corners[:, None, 2:] - corners[:, None, :2])).astype(np.float32).astype(np.float64)
    u, again = inverse(d, k)
    assert np.abs(again - d).max() < 3e-5
    # where the lens is nearly singular the same residual leaves a larger error
    error = np.linalg.norm(u - solution(d, k), axis=-1).max(1)
    assert (error * np.minimum(1.0, stretch[accepted]) < 1e-4).all()


def test_a_lens_behind_whose_fold_newton_is_caught() -> None:
    """From the axis the first full step lands beyond the fold, where the residual is small and the map monotone again."""
    k = np.array([[0.34714322, 0.04063819, 0.00374691, 0.00565981, -0.10711883]])
    d = np.array([[[0.73473402, 1.04814521]]])
    u, again = inverse(d, k)
    np.testing.assert_allclose(u, solution(d, k), atol=2e-5)
    np.testing.assert_allclose(again, d, atol=2e-5)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(st.tuples(*[st.floats(-0.6, 0.6)] * 2, *[st.floats(-0.05, 0.05)] * 2, st.floats(-0.3, 0.3)), st.floats(0.2, 1.0))
def test_the_check_agrees_with_a_fine_search_for_folds(k: tuple[float, ...], half: float) -> None:
    """The determinant's minimum over the region that the film sees, by a fine grid of the undistorted plane."""
    stretch = float(least_stretch(np.array([k]), np.array([[-half, -half, half, half]]))[0])
    assume(np.isfinite(stretch))
    border = np.linspace(-half, half, 15)
    d = np.stack(np.meshgrid(border, border), -1).reshape(1, -1, 2)
    u = torch.from_numpy(solution(d, np.array([k]))).requires_grad_()
    seen = distort_points(u, torch.tensor([[k]], dtype=torch.float64))
    (by_x,) = torch.autograd.grad(seen[..., 0].sum(), u, retain_graph=True)
    (by_y,) = torch.autograd.grad(seen[..., 1].sum(), u)
    determinant = float((by_x[..., 0] * by_y[..., 1] - by_x[..., 1] * by_y[..., 0]).min())
    # rays sample the film: what they miss between them is small
    assert stretch - 0.05 <= determinant <= 1.0 and stretch <= determinant + 0.1


def test_lenses_that_fold_are_refused_and_give_no_nan() -> None:
    corners = torch.tensor([[-0.6, -0.45, 0.6, 0.45]])
    require_invertible("camera.distortion", torch.tensor([STRONG]), corners)
    with pytest.raises(UserError, match=r"camera\.distortion: expected a distortion monotone over the film, got .*camera 1"):
        require_invertible("camera.distortion", torch.tensor([STRONG, (-0.8, 0, 0, 0, 0)]), corners.expand(2, 4))
    with pytest.raises(UserError, match="expected finite coefficients"):
        require_invertible("camera.distortion", torch.full((1, 5), torch.nan), corners)
    d = np.random.default_rng(0).uniform(-3, 3, (4, 200, 2))
    folds = np.array([(-0.8, 0, 0, 0, 0), (-2.0, 1.0, 0.2, 0.3, -5.0), (0, 0, 1.0, 1.0, 0), (5.0, -9.0, 0, 0, 0.1)])
    assert all(np.isfinite(x).all() for x in inverse(d, folds))
