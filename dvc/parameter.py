"""`Parameter`: a stage without inputs, whose bound is a bijection.

The optimiser sees an unbounded number `raw` of order one. With both bounds the physical value is
`lower + (upper - lower) * sigmoid(raw)`, with one bound `lower + exp(raw)` or `upper - exp(raw)`, without bounds
`initial + scale * raw`. A parameter has shape (world, *shape); one world (the default) is shared by all worlds.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dvc.errors import UserError

_TINY = 1e-30  # a value that was rounded onto its bound keeps a finite unbounded number


def _numbers(value: float | Sequence[float], name: str) -> Tensor:
    try:
        return torch.as_tensor(value if isinstance(value, (int, float)) else list(value), dtype=torch.float32)
    except (TypeError, ValueError) as error:
        raise UserError(f"{name}: expected a number or a list of numbers, got {value!r}") from error


class Parameter(nn.Module):
    """A named unknown: first guess, bounds, unit and, where the data say little, a prior.

    Arguments:
        initial: first guess, in physical units; a number or a list (then the parameter is a vector).
        lower, upper: open bounds, in physical units; scalars, or one an element. None: unbounded on that side.
        unit: SI unit, for reports.
        prior_std: standard deviation of a Gaussian prior around `prior_mean` (default: `initial`), in physical units;
            it enters the objective as the residual (value - mean) / std.
        explore: (low, high) box from which random starts are drawn; None: starts keep the first guess.
        scale: step of an unbounded parameter that matters, in physical units.
        fixed: keep the first guess (not optimised, not reported).
    Returns: (world, *shape) tensor in physical units; shape () for a number.
    Raises: UserError for NaN, an empty interval or a first guess outside its bounds.
    """

    initial: Tensor
    prior_mean: Tensor
    lower: Tensor | None
    upper: Tensor | None
    prior_std: Tensor | None

    def __init__(
        self,
        initial: float | Sequence[float],
        lower: float | Sequence[float] | None = None,
        upper: float | Sequence[float] | None = None,
        unit: str = "",
        *,
        prior_std: float | Sequence[float] | None = None,
        prior_mean: float | Sequence[float] | None = None,
        explore: Sequence[float] | None = None,
        scale: float = 1.0,
        fixed: bool = False,
    ):
        super().__init__()
        guess = _numbers(initial, "initial")
        self.shape, self.unit, self.fixed = tuple(guess.shape), unit, fixed
        self.lower = None if lower is None else _numbers(lower, "lower")
        self.upper = None if upper is None else _numbers(upper, "upper")
        self.scale = float(scale)
        self.initial = guess
        self.explore = None if explore is None else tuple(_numbers(bound, "explore") for bound in explore)
        self.prior_std = None if prior_std is None else _numbers(prior_std, "prior_std")
        self.prior_mean = guess if prior_mean is None else _numbers(prior_mean, "prior_mean")
        self._check()
        self.raw = nn.Parameter(self.to_raw(guess)[None].clone(), requires_grad=not fixed)

    def _check(self) -> None:
        if self.explore is not None and len(self.explore) != 2:
            raise UserError(f"explore: expected (low, high), got {len(self.explore)} entries")
        low, high = self.explore or (None, None)
        named = {"initial": self.initial, "lower": self.lower, "upper": self.upper, "prior_std": self.prior_std,
                 "prior_mean": self.prior_mean, "explore": low, "explore (high)": high}  # fmt: skip
        for name, value in named.items():
            if value is None:
                continue
            if not bool(torch.isfinite(value).all()):
                raise UserError(
                    f"{name}: expected finite numbers, got {value.tolist()}; remedy: give numbers in {self.unit or 'its unit'}"
                )
            if tuple(value.shape) not in ((), self.shape):
                raise UserError(
                    f"{name}: expected one number or the shape of initial {self.shape}, got shape {tuple(value.shape)}"
                )
        if self.lower is not None and self.upper is not None and not bool((self.lower < self.upper).all()):
            raise UserError(f"bounds: expected lower < upper, got {self.lower.tolist()} and {self.upper.tolist()}")
        low_ok = self.lower is None or bool((self.initial > self.lower).all())
        if not low_ok or not (self.upper is None or bool((self.initial < self.upper).all())):
            least = "-inf" if self.lower is None else self.lower.tolist()
            most = "inf" if self.upper is None else self.upper.tolist()
            raise UserError(
                f"initial: expected a value strictly inside its bounds ({least}, {most}), got {self.initial.tolist()}; "
                "remedy: move the first guess or widen the bounds"
            )
        if self.prior_std is not None and not bool((self.prior_std > 0).all()):
            raise UserError(f"prior_std: expected positive numbers, got {self.prior_std.tolist()}")
        if low is not None and high is not None:
            ordered = bool((low <= high).all()) and self._inside(low) and self._inside(high)
            if not ordered:
                raise UserError(
                    f"explore: expected low <= high, both within the bounds, got {low.tolist()} and {high.tolist()}"
                )
        if not math.isfinite(self.scale) or self.scale <= 0.0:
            raise UserError(f"scale: expected a positive number, got {self.scale}")

    def _inside(self, value: Tensor) -> bool:
        """Whether all values are finite and within the closed bounds."""
        low_ok = self.lower is None or bool((value >= self.lower).all())
        return bool(torch.isfinite(value).all()) and low_ok and (self.upper is None or bool((value <= self.upper).all()))

    @property
    def size(self) -> int:
        """How many numbers one world has."""
        return max(1, math.prod(self.shape))

    def to_raw(self, value: Tensor) -> Tensor:
        """The unbounded number of a physical value inside the bounds."""
        if self.lower is not None and self.upper is not None:
            return torch.log((value - self.lower).clamp(min=_TINY)) - torch.log((self.upper - value).clamp(min=_TINY))
        if self.lower is not None:
            return torch.log((value - self.lower).clamp(min=_TINY))
        if self.upper is not None:
            return torch.log((self.upper - value).clamp(min=_TINY))
        return (value - self.initial) / self.scale

    def to_value(self, raw: Tensor) -> Tensor:
        """The physical value of an unbounded number."""
        if self.lower is not None and self.upper is not None:
            return self.lower + (self.upper - self.lower) * torch.sigmoid(raw)
        if self.lower is not None:
            return self.lower + torch.exp(raw)
        if self.upper is not None:
            return self.upper - torch.exp(raw)
        return self.initial + self.scale * raw

    def forward(self) -> Tensor:
        return self.to_value(self.raw)

    def set_worlds(self, values: Tensor) -> None:
        """Replace the value by one a world, (world, *shape), or (1, *shape) for a shared one. Physical units.

        Raises: UserError for a wrong shape and for a value that is not finite or outside the bounds.
        """
        device, dtype = self.raw.device, self.raw.dtype
        if values.dim() == 0 or tuple(values.shape[1:]) != self.shape:
            raise UserError(f"value: expected shape (world, {', '.join(map(str, self.shape))}), got {tuple(values.shape)}")
        if not self._inside(values.detach().cpu()):
            raise UserError(f"value: expected finite numbers within the bounds of {self.extra_repr()}, got {values.tolist()}")
        self.raw = nn.Parameter(self.to_raw(values.to(device, dtype)).detach().clone(), requires_grad=not self.fixed)

    def sample(self, worlds: int, generator: torch.Generator) -> Tensor:
        """Random starts, (world, *shape): uniform in the `explore` box, or the first guess where there is none."""
        if self.explore is None:
            return self.initial.expand(worlds, *self.shape).clone()
        low, high = self.explore
        return low + (high - low) * torch.rand((worlds, *self.shape), generator=generator)

    def prior_residual(self, value: Tensor) -> Tensor | None:
        """(value - mean) / std, shape (world, size), or None without a prior."""
        if self.prior_std is None:
            return None
        return ((value - self.prior_mean) / self.prior_std).reshape(value.shape[0], -1)

    def extra_repr(self) -> str:
        return f"initial={self.initial.tolist()}, unit={self.unit!r}, worlds={self.raw.shape[0]}, fixed={self.fixed}"
