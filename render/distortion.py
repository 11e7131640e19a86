r"""Radial-tangential lens distortion: kernel functions, their torch twins, and the check that a lens can be inverted.

A point n = (x, y) of the image plane at depth 1 is moved to

    d(n) = n (1 + k1 r^2 + k2 r^4 + k3 r^6) + (2 p1 x y + p2 (r^2 + 2 x^2),  p1 (r^2 + 2 y^2) + 2 p2 x y),     r^2 = x^2 + y^2

(Brown 1966, "Decentering distortion of lenses"; coefficients in OpenCV's order k1, k2, p1, p2, k3). Its Jacobian is symmetric.

`undistort_point` solves d(u) = d by Newton steps from u = 0 that are halved until the residual falls and the Jacobian keeps
its orientation. Where the lens is monotone from its axis to the point (`require_invertible`), four or five steps reach the
rounding of float32; where it folds over, there may be no solution and the last iterate, a finite number, is returned.
It carries no gradient: `newton_step`, one more step with gradient, has the derivative of the implicit function theorem,
du = J^-1 (dd - (partial of d by the coefficients) dk), and halves the digits that are left wrong.
"""

import torch
import warp as wp
from torch import Tensor

from dvc.errors import UserError
from render.reversible import reversible

vec5 = wp.types.vector(length=5, dtype=float)  # k1, k2, p1, p2, k3

NEWTON_STEPS = wp.constant(30)  # halved steps included
TOLERANCE = wp.constant(2.0e-7)  # of the residual, relative to the point
LEAST_FACTOR = wp.constant(0.01)  # a step that does not help at this fraction never will

LEAST_STRETCH = 0.02  # smallest determinant of d's Jacobian anywhere on the film that is accepted
RAYS, RAY_STEPS, RAY_NEWTON = 96, 24, 4  # where `require_invertible` looks


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
    """The point u with d(u) = d, without gradient; finite for every finite input."""
    if k[0] == 0.0 and k[1] == 0.0 and k[2] == 0.0 and k[3] == 0.0 and k[4] == 0.0:
        return d
    u = wp.vec2(0.0, 0.0)
    error = wp.length_sq(d)
    least = TOLERANCE * TOLERANCE * error
    factor = float(1.0)
    step = int(0)
    while step < NEWTON_STEPS and error > least and factor > LEAST_FACTOR:
        trial = u + factor * (newton_step(u, d, k) - u)
        j = distort_jacobian(trial, k)
        left = wp.length_sq(distort(trial, k) - d)
        if left < error and j[0] > 0.0 and j[0] * j[2] - j[1] * j[1] > 0.0:
            u = trial
            error = left
            factor = wp.min(1.0, 2.0 * factor)
        else:
            factor = 0.5 * factor
        step += 1
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


def _jacobian(points: Tensor, coefficients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x, y = points.unbind(-1)
    k1, k2, p1, p2, k3 = coefficients.unbind(-1)
    r2 = x * x + y * y
    radial = 1.0 + r2 * (k1 + r2 * (k2 + r2 * k3))
    slope = 2.0 * (k1 + r2 * (2.0 * k2 + r2 * 3.0 * k3))
    return (
        radial + slope * x * x + 2.0 * p1 * y + 6.0 * p2 * x,
        slope * x * y + 2.0 * p1 * x + 2.0 * p2 * y,
        radial + slope * y * y + 6.0 * p1 * y + 2.0 * p2 * x,
    )


def least_stretch(coefficients: Tensor, corners: Tensor) -> Tensor:
    """How close a lens comes to folding over on a film: the smallest determinant of d's Jacobian met on the way out.

    Args:
        coefficients: (camera, 5). corners: film corners (left, top, right, bottom) in units of the focal length, measured from
            the principal point, (camera, 4).
    Returns: (camera,); negative infinity where some point of the film has no preimage that is connected to the axis.
    Straight rays on the film from the principal point to its border are followed by continuation, in double precision.
    """
    k = coefficients.detach().double()[:, None]
    left, top, right, bottom = corners.detach().double().unbind(-1)
    t = torch.linspace(0.0, 1.0, RAYS // 4 + 1, dtype=torch.float64, device=k.device)
    along_x = left[:, None] + (right - left)[:, None] * t
    along_y = top[:, None] + (bottom - top)[:, None] * t
    border = torch.cat(
        [
            torch.stack([along_x, top[:, None].expand_as(along_x)], -1),
            torch.stack([along_x, bottom[:, None].expand_as(along_x)], -1),
            torch.stack([left[:, None].expand_as(along_y), along_y], -1),
            torch.stack([right[:, None].expand_as(along_y), along_y], -1),
        ],
        dim=1,
    )
    u = torch.zeros_like(border)
    least = torch.ones(border.shape[:2], dtype=torch.float64, device=k.device)
    lost = torch.zeros_like(least, dtype=torch.bool)
    for i in range(1, RAY_STEPS + 1):
        target = border * (i / RAY_STEPS)
        for _ in range(RAY_NEWTON):
            a, b, c = _jacobian(u, k)
            rx, ry = (distort_points(u, k) - target).unbind(-1)
            determinant = a * c - b * b
            safe = torch.where(determinant.abs() < 1e-9, torch.full_like(determinant, 1e-9), determinant)
            u = u - torch.stack([c * rx - b * ry, a * ry - b * rx], -1) / safe[..., None]
        a, b, c = _jacobian(u, k)
        residual = (distort_points(u, k) - target).norm(dim=-1)
        lost |= ~(residual <= 1e-6 * (1.0 + target.norm(dim=-1))) | (a <= 0.0)
        least = torch.minimum(least, torch.nan_to_num(a * c - b * b, nan=-torch.inf))
    return torch.where(lost, torch.full_like(least, -torch.inf), least).amin(dim=1)


def require_invertible(name: str, coefficients: Tensor, corners: Tensor) -> None:
    """UserError where a lens folds over on its film (see `least_stretch`): a film point would look along two rays, or none."""
    if not bool(torch.isfinite(coefficients.detach()).all()):
        raise UserError(f"{name}: expected finite coefficients k1, k2, p1, p2, k3, got {coefficients.detach().tolist()}")
    least = least_stretch(coefficients, corners)
    worst = int(least.argmin())
    if float(least[worst]) < LEAST_STRETCH:
        k = ", ".join(f"{float(x):.4g}" for x in coefficients.detach()[worst])
        raise UserError(
            f"{name}: expected a distortion monotone over the film, got (k1, k2, p1, p2, k3) = ({k}) of camera {worst}, "
            "which folds over; remedy: weaker distortion, a longer focal length, or bounds on the coefficients"
        )
