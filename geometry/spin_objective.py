"""How well a body spins as a top: where its centre of mass lies, and how its inertia stands to the vertical axis.

A top turns steadily about a vertical axis through its contact point where the centre of mass c lies on the axis and the axis is
a principal axis, and firmly where that is the one of the largest moment and c is low (Baecher, Whiting, Bickel and
Sorkine-Hornung, "Spin-It: Optimizing Moment of Inertia for Spinnable Objects", 2014). With l the height of c, M the mass and
I_c the moment about the axis, a and b the other two,

    minimise  g_c (l M)^2 + g_I ((I_a / I_c)^2 + (I_b / I_c)^2)    subject to  c_x = c_y = 0,  I_xz = I_yz = 0.

On the constraints I_a, I_b are the eigenvalues of the horizontal 2 x 2 block of I, so that the sum is the square of its
Frobenius norm over I_zz: no axes are needed, and nothing is undefined where they coincide. I is about c here.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dvc.errors import UserError
from dvc.records import Bodies
from geometry.principal_axes import principal_axes

SMALL_ANGLE = 1e-6  # square of an angle below which its series is used


class SpinTerms(NamedTuple):
    """What the objective is made of. Lengths over the body's diagonal, moments over the one about the axis."""

    offset: Tensor  # centre of mass from the axis, x and y, (world, 2)
    products: Tensor  # I_xz and I_yz over I_zz, (world, 2)
    ratios: Tensor  # I_xx, I_yy and sqrt(2) I_xy over I_zz: squares sum to (I_a^2 + I_b^2) / I_c^2, (world, 3)
    largest: Tensor  # the larger eigenvalue of the horizontal block over I_zz; below one: stable, (world,)
    height: Tensor  # centre of mass over the contact point, (world,)


def tilt_rotation(tilt: Tensor) -> Tensor:
    """Rotation matrices (world, 3, 3) by the angle |tilt| about the horizontal axis (tilt_x, tilt_y, 0); tilt [rad] (world, 2).

    Rodrigues' formula, smooth at zero. Every direction is tilted upright by some |tilt| <= pi; all tilts of length pi turn
    the body upside down. Gradient: complete.
    """
    if tilt.dim() != 2 or tilt.shape[1] != 2:
        raise UserError(f"tilt: expected shape (world, 2), got {tuple(tilt.shape)}")
    square = (tilt * tilt).sum(1)
    small = square < SMALL_ANGLE
    angle = torch.where(small, torch.ones_like(square), square).sqrt()
    sine = torch.where(small, 1.0 - square / 6.0, angle.sin() / angle)[:, None, None]
    cosine = 2.0 * (half_sine(tilt) ** 2)[:, None, None]  # (1 - cos) / angle^2
    a, b, o = tilt[:, 0], tilt[:, 1], torch.zeros_like(square)
    cross = torch.stack([o, o, b, o, o, -a, -b, a, o], dim=1).reshape(-1, 3, 3)
    return torch.eye(3, dtype=tilt.dtype, device=tilt.device) + sine * cross + cosine * (cross @ cross)


def half_sine(tilt: Tensor) -> Tensor:
    """sin(|tilt| / 2) / |tilt|, smooth at zero, (world,)."""
    square = (tilt * tilt).sum(1)
    small = square < SMALL_ANGLE
    angle = torch.where(small, torch.ones_like(square), square).sqrt()
    return torch.where(small, 0.5 - square / 48.0, (0.5 * angle).sin() / angle)


def clear_height(points: Tensor, rotation: Tensor, lean: float) -> Tensor:
    """Least height (world,) of the pivot over the contact point with which a top may lean by `lean` [rad] and touch nothing.

        h = max over points of  tan(lean) |p_xy| - p_z,   p the point from the pivot, turned

    points [m] (point, 3), from the pivot on the axis; rotation (world, 3, 3). lean = 0: the lowest point touches, the contact
    point is level with it. Gradient: to both, through the point that decides.
    """
    if not 0.0 <= lean < 0.5 * math.pi:
        raise UserError(f"lean: expected an angle from 0 and below pi / 2, got {lean}")
    p = points @ rotation.mT
    out = (p[..., :2] ** 2).sum(-1).clamp_min(1e-24).sqrt()
    return (math.tan(lean) * out - p[..., 2]).amax(1)


def turned(bodies: Bodies, rotation: Tensor, pivot: Tensor, height: Tensor) -> Bodies:
    """A body turned about `pivot` [m] (3,), which comes to (0, 0, height); rotation (world, 3, 3), height [m] (world,)."""
    center = ((bodies.center_of_mass - pivot)[:, None] @ rotation.mT)[:, 0]
    center = torch.cat([center[:, :2], center[:, 2:] + height[:, None]], dim=1)
    mass = bodies.mass.expand(center.shape[0])
    return Bodies(mass, center, rotation @ bodies.inertia @ rotation.mT)


def spin_terms(bodies: Bodies, diagonal: float) -> SpinTerms:
    """Terms of a body that spins about z through the origin, its contact point. diagonal [m]: of the body.

    Gradient: complete, but where the horizontal moments are equal `largest` has that of their mean.
    """
    c, inertia = bodies.center_of_mass, bodies.inertia
    vertical = inertia[:, 2, 2]
    a, b, s = (v / vertical for v in (inertia[:, 0, 0], inertia[:, 1, 1], inertia[:, 0, 1]))
    half = 0.25 * (a - b) ** 2 + s * s
    round_ = half < 1e-14
    spread = torch.where(round_, torch.zeros_like(half), torch.where(round_, torch.ones_like(half), half).sqrt())
    return SpinTerms(
        c[:, :2] / diagonal,
        inertia[:, :2, 2] / vertical[:, None],
        torch.stack([a, b, math.sqrt(2.0) * s], dim=1),
        0.5 * (a + b) + spread,
        c[:, 2] / diagonal,
    )


def axis_angle(inertia: Tensor) -> Tensor:
    """Angle [rad] (world,) in [0, pi / 2] between z and the axis of the largest moment of inertia tensors (world, 3, 3).

    Where the two largest moments are equal their axes, and so the angle, are not defined. Gradient: see `principal_axes`; none
    where the angle is zero, where it has a kink.
    """
    axis = principal_axes(inertia).axes[:, :, 2]
    return torch.atan2(axis[:, :2].norm(dim=1), axis[:, 2].abs())


class SpinObjective(nn.Module):
    """Stage: the objective above as residuals, with the constraints as penalties.

    Arguments:
        points [m] (point, 3): of the body, its hull's suffice; pivot [m] (3,): the point of the body on the axis.
        diagonal [m], mass [kg]: of the solid body; l M is counted in units of their product.
        lean [rad]: see `clear_height`; inertia, height: g_I and g_c; upright: weight of 1 - cos |tilt|, which keeps a pose.
        margin: the larger horizontal moment over that about the axis should stay below it; firmness: weight of the square of
        what exceeds it.
    Forward: bodies, in the body's frame; tilt [rad] (world, 2); penalty: weight of the constraints' squares -> residuals
        (world, 11); the loss is the sum of their squares.
    """

    points: Tensor
    pivot: Tensor

    def __init__(
        self,
        points: Tensor,
        pivot: Tensor,
        diagonal: float,
        mass: float,
        *,
        lean: float = 0.1,
        inertia: float = 1.0,
        height: float = 1.0,
        upright: float = 0.0,
        margin: float = 0.95,
        firmness: float = 100.0,
    ):
        super().__init__()
        if min(inertia, height, upright, firmness) < 0.0 or not margin > 0.0 or not diagonal > 0.0 or not mass > 0.0:
            raise UserError("SpinObjective: expected weights from 0, margin, diagonal and mass above 0")
        self.register_buffer("points", (points - pivot).detach(), persistent=False)
        self.register_buffer("pivot", pivot.detach(), persistent=False)
        self.diagonal, self.mass, self.lean, self.margin = float(diagonal), float(mass), float(lean), float(margin)
        self.inertia, self.height, self.upright, self.firmness = (
            math.sqrt(w) for w in (inertia, height, upright, firmness)
        )  # weights of residuals

    def placed(self, bodies: Bodies, tilt: Tensor) -> Bodies:
        """The body as it spins: contact point at the origin."""
        rotation = tilt_rotation(tilt)
        return turned(bodies, rotation, self.pivot, clear_height(self.points, rotation, self.lean))

    def forward(self, bodies: Bodies, tilt: Tensor, penalty: float = 1.0) -> Tensor:
        terms = spin_terms(self.placed(bodies, tilt), self.diagonal)
        low = (terms.height * bodies.mass / self.mass)[:, None]
        leaning = math.sqrt(2.0) * tilt * half_sine(tilt)[:, None]  # squares sum to 1 - cos |tilt|
        excess = torch.relu(terms.largest - self.margin)[:, None]
        held = math.sqrt(penalty) * torch.cat([terms.offset, terms.products], dim=1)
        return torch.cat(
            [self.inertia * terms.ratios, self.height * low, self.upright * leaning, self.firmness * excess, held], dim=1
        )
