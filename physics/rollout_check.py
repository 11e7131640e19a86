"""What every roll-out asks of its settings and inputs before a kernel sees them: kernels take shapes and counts on trust."""

import math
from numbers import Real

import torch
from torch import Tensor

from dvc.errors import UserError
from physics.articulation import Topology

REQUIRED = ("frame_count", "substeps", "most_impacts")


def require_rate(owner: str, rate: float) -> None:
    """Raises: UserError for a frame rate [1/s] that is no positive number."""
    if not isinstance(rate, Real) or not 0.0 < rate < math.inf:
        raise UserError(f"{owner}.frame_rate: expected a positive number, got {rate!r}")


def require_counts(owner: str, **counts: int | None) -> None:
    """Raises: UserError for a count that is no whole number from 1; those that are not REQUIRED may be None."""
    for name, count in counts.items():
        if (count is not None or name in REQUIRED) and not (
            isinstance(count, Real) and count >= 1 and count == math.floor(count)
        ):
            raise UserError(f"{owner}.{name}: expected a whole number from 1, got {count!r}")


def require_shape(name: str, tensor: Tensor, inner: tuple[int, ...]) -> None:
    """Raises: UserError for what is no tensor of shape (world, *inner), with at least one world."""
    expected = ", ".join(map(str, ("world", *inner)))
    if not isinstance(tensor, Tensor):
        raise UserError(f"{name}: expected a tensor of shape ({expected}), got {type(tensor).__name__}")
    if tensor.dim() != 1 + len(inner) or tuple(tensor.shape[1:]) != inner or tensor.shape[0] == 0:
        raise UserError(f"{name}: expected shape ({expected}), got {tuple(tensor.shape)}")


def require_loads(owner: str, tree: Topology, frames: int, controls: Tensor, wrenches: Tensor) -> None:
    """Raises: UserError for shapes other than (world, frame or 1, actuator) and (world, frame or 1, link, 6), and for controls
    that are NaN, which their bounds would hide."""
    for name, tensor, inner in (("controls", controls, (len(tree.actuators),)), ("wrenches", wrenches, (len(tree.links), 6))):
        held = isinstance(tensor, Tensor) and tensor.dim() > 1 and tensor.shape[1] == 1
        require_shape(f"{owner}.{name}", tensor, (1 if held else frames, *inner))
    require_numbers(f"{owner}.controls", controls)


def require_numbers(name: str, tensor: Tensor) -> None:
    """Raises: UserError for NaN."""
    if bool(torch.isnan(tensor.detach()).any()):
        raise UserError(f"{name}: expected numbers, got NaN")
