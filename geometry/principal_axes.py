"""Principal moments and axes of inertia tensors: I = A diag(moments) A^T.

Derivatives (Magnus, "On differentiating eigenvalues and eigenvectors", 1985): with a_i the axes,

    d moment_i = a_i^T dI a_i,    d a_i = sum over j != i of a_j (a_j^T dI a_i) / (moment_i - moment_j).
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from dvc.errors import UserError

EQUAL = 1e-5  # moments closer than this share of the largest count as equal: float32 tensors do not tell them apart


class PrincipalAxes(NamedTuple):
    """Principal moments of inertia and the axes that belong to them."""

    moments: Tensor  # [kg m^2], ascending, (world, 3)
    axes: Tensor  # unit axes as columns, right-handed, (world, 3, 3)


class _Principal(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, inertia: Tensor) -> tuple[Tensor, Tensor]:
        tensor = inertia.double()
        moments, axes = torch.linalg.eigh(0.5 * (tensor + tensor.mT))
        # signs: the largest component of the first two axes is positive, the third completes a right-handed frame
        largest = axes.gather(1, axes.abs().argmax(dim=1, keepdim=True))
        axes = axes * torch.where(largest < 0.0, -1.0, 1.0)
        axes = torch.cat([axes[..., :2], torch.linalg.cross(axes[..., 0], axes[..., 1])[..., None]], dim=2)
        ctx.save_for_backward(moments, axes)
        return moments.to(inertia.dtype), axes.to(inertia.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, of_moments: Tensor, of_axes: Tensor) -> Tensor:
        moments, axes = ctx.saved_tensors
        gap = moments[:, None, :] - moments[:, :, None]
        equal = gap.abs() <= EQUAL * moments.abs().amax(1)[:, None, None]
        inverse = torch.where(equal, 0.0, 1.0 / torch.where(equal, 1.0, gap))
        inner = inverse * (axes.mT @ of_axes.double()) + torch.diag_embed(of_moments.double())
        gradient = axes @ inner @ axes.mT
        return (0.5 * (gradient + gradient.mT)).to(of_moments.dtype)


def principal_axes(inertia: Tensor) -> PrincipalAxes:
    """Principal moments (world, 3), ascending, and axes (world, 3, 3), as columns, of inertia tensors (world, 3, 3) [kg m^2].

    An axis has no direction of its own: its largest component is made positive, the third axis completes a right-handed frame.
    Where moments are equal (within 1e-5 of the largest), their axes are some orthonormal basis of the plane or space that they
    share. Gradient: of each moment, and of each axis against axes of other moments. What is not defined is left out: how axes
    of equal moments turn into each other has the gradient zero, and single equal moments, of which only the sum is smooth,
    have that of the basis which was chosen. Only the symmetric part of the tensor counts.
    Raises: UserError for another shape or a tensor that is not finite.
    """
    if inertia.dim() != 3 or inertia.shape[1:] != (3, 3):
        raise UserError(f"principal_axes.inertia: expected shape (world, 3, 3), got {tuple(inertia.shape)}")
    if not bool(torch.isfinite(inertia).all()):
        raise UserError(
            "principal_axes.inertia: expected finite tensors, got NaN or infinity; remedy: check the solid's volume"
        )
    return PrincipalAxes(*_Principal.apply(inertia))
