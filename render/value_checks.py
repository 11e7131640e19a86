"""Values that a stage is given: brought to one shape and type, or refused in one line; numbers are looked at all together.

A constant is a number or a few for each world. It may come as a tensor with the world axis, and where the number of axes leaves
no doubt, without it, or as plain numbers: then it serves all worlds. Integers are taken as floats, but for bytes, and integers
in images, which may count from 0 to 1 or to 255. Arrays (vertices, images, poses) are tensors of exactly the shape expected.
"""

import math
import operator
import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad

from dvc.errors import UserError

POSITIVE = 1.0e-45  # the least positive float32
LARGEST = 3.4e38
NONE = -1.0e-5  # of light and reflectance: rounding leaves no more below 0
LIGHT: dict[str, Any] = {"least": NONE, "expected": "numbers of at least 0"}
MOST = 2**31 - 1


class _Limit(NamedTuple):
    name: str
    looked_at: Tensor  # its least and greatest number are compared
    least: float
    most: float
    expected: str
    remedy: str
    of: Tensor  # what the message is about
    pardon: Callable[[], bool] | None  # a closer look before it is refused
    soft: bool  # said once, not refused


def wants(value: object) -> bool:
    """Whether a derivative by this value is asked for: reverse mode, or a tangent of forward mode."""
    if not isinstance(value, Tensor):
        return False
    return (value.requires_grad and torch.is_grad_enabled()) or forward_ad.unpack_dual(value).tangent is not None


def checked(value: object) -> Tensor:
    """For type checkers: what has come through the checks is a tensor."""
    assert isinstance(value, Tensor)
    return value


def plain(value: Tensor) -> Tensor:
    """The numbers alone, without gradient or tangent."""
    return forward_ad.unpack_dual(value).primal.detach()


def shown(value: object) -> str:
    """A value in a message: short, on one line."""
    if isinstance(value, (Tensor, np.ndarray)):
        return f"{type(value).__name__} of shape {tuple(value.shape)}"
    if value is None or isinstance(value, (bool, int, float, str)) or (isinstance(value, (tuple, list)) and len(value) < 8):
        text = " ".join(repr(value).split())
        return text if len(text) < 60 and "tensor" not in text else type(value).__name__
    return type(value).__name__


def require_kind(name: str, value: object, kind: type | tuple[type, ...], remedy: str = "") -> None:
    if kind is bool and isinstance(value, np.bool_):
        return
    if not isinstance(value, kind):
        kinds = kind if isinstance(kind, tuple) else (kind,)
        wanted = " or ".join(
            [", ".join(k.__name__ for k in kinds[:-1]), kinds[-1].__name__] if kinds[1:] else [kinds[0].__name__]
        )
        raise UserError(f"{name}: expected {wanted}, got {shown(value)}{f'; remedy: {remedy}' if remedy else ''}")


def whole_number(name: str, value: Any, least: int, most: int = MOST) -> int:
    """An int; no float, text or bool."""
    truth = isinstance(value, (bool, np.bool_)) or (isinstance(value, Tensor) and value.dtype == torch.bool)
    try:
        found = None if truth else operator.index(value)
    except TypeError:
        found = None
    if found is None or not least <= found <= most:
        bounds = (
            f"of at least {least}"
            if most == MOST and (found is None or found < least) and least >= 0
            else f"from {least} to {most}"
        )
        raise UserError(f"{name}: expected a whole number {bounds}, got {shown(value)}")
    return found


def real_number(name: str, value: Any, least: float = -math.inf, most: float = math.inf, unit: str = "") -> float:
    """A number above `least` and at most `most`, in float32 too; a tensor only where no gradient is lost."""
    if wants(value):
        raise UserError(f"{name}: expected a number without gradient, got a tensor that wants one; remedy: detach it")
    try:
        truth = isinstance(value, (bool, str)) or (
            isinstance(value, Tensor) and (value.dtype == torch.bool or value.dtype.is_complex)
        )
        found = math.nan if truth else float(value)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        found = math.nan
    if not (abs(found) <= LARGEST and least < found <= most and not 0.0 < abs(found) < POSITIVE):
        limits = f" of at most {most:g}" if most < math.inf else ""
        kind = "a positive number" if least == 0.0 else f"a number above {least:g}"
        if least == -most:
            kind, limits = "a finite number", f" from {least:g} to {most:g}" if most < math.inf else ""
        raise UserError(f"{name}: expected {kind}{limits}{unit}, got {shown(value)}")
    return found


class Intake:
    """Takes in the values of one call by name. `settle` compares all numbers with their limits, in one transfer.

    Arguments: device: where all tensors have to be. owner: what it is the device of, for messages. dtype: of all tensors.
    """

    def __init__(self, device: torch.device, owner: str, dtype: torch.dtype = torch.float32):
        self.device, self.owner, self.dtype = device, owner, dtype
        self.worlds: list[tuple[str, int]] = []
        self.limits: list[_Limit] = []

    def floats(self, name: str, value: Any, image: bool = False) -> Tensor:
        """A tensor of the same numbers, with their gradient."""
        if not isinstance(value, Tensor):
            value = self._made(name, value)
        if value.device != self.device:
            raise UserError(
                f"{name}: expected a tensor on {self.device}, as {self.owner} is, got one on {value.device}; "
                f"remedy: .to({str(self.device)!r})"
            )
        if value.layout is not torch.strided:
            raise UserError(f"{name}: expected a dense tensor, got {value.layout}; remedy: .to_dense()")
        if value.dtype == self.dtype:
            return value
        if value.dtype == torch.bool or value.dtype.is_complex:
            raise UserError(f"{name}: expected float32, got {value.dtype}")
        if value.dtype == torch.uint8 or (image and not value.dtype.is_floating_point):
            raise UserError(
                f"{name}: expected float32, got {value.dtype}, of which 255 or 1 may be white; remedy: .float(), over 255 for "
                "bytes (and linear: render.response.srgb_inverse)"
            )
        return value.to(self.dtype)

    def _made(self, name: str, value: Any) -> Tensor:
        try:
            return _tensor_of(value, self.device).to(self.device)
        except (TypeError, ValueError, RuntimeError):
            raise UserError(f"{name}: expected numbers, as a tensor or plain ones, got {shown(value)}") from None

    def row(self, name: str, value: Any, inner: tuple[int, ...], axis: str = "world") -> Tensor:
        """(..., *inner), with a leading axis where there was none."""
        found = self.floats(name, value)
        shape = tuple(found.shape)
        if shape[len(shape) - len(inner) :] != inner or 0 in shape:
            raise UserError(f"{name}: expected shape ({_words((axis, *inner))}), got {shape}")
        return found[None] if len(shape) == len(inner) else found

    def constant(
        self, name: str, value: Any, inner: tuple[int, ...], *, grey: bool = False, axis: str = "world",
        **limits: Any,
    ) -> Tensor:  # fmt: skip
        """(world, *inner). grey: one number serves all of `inner`."""
        found = self.floats(name, value)
        if grey and found.dim() == 0:
            found = found.expand(inner)
        if found.dim() == len(inner):
            found = found[None]
        self._shape(name, found, (axis, *inner), value)
        return self.bound(name, found, **limits)

    def array(
        self, name: str, value: Any, shape: Sequence[int | str], *, image: bool = False,
        limited: bool = True, **limits: Any,
    ) -> Tensor:  # fmt: skip
        """A tensor of exactly this shape; words stand for any size of at least one."""
        if not isinstance(value, Tensor):
            remedy = "torch.as_tensor(...)" if isinstance(value, np.ndarray) else "a tensor"
            raise UserError(f"{name}: expected a tensor ({_words(shape)}), got {shown(value)}; remedy: {remedy}")
        found = self.floats(name, value, image)
        self._shape(name, found, shape, value)
        return self.bound(name, found, **limits) if limited else found

    def _shape(self, name: str, found: Tensor, shape: Sequence[int | str], given: Any) -> None:
        sizes = tuple(found.shape)
        if len(sizes) != len(shape) or any(n != m if isinstance(m, int) else n < 1 for n, m in zip(sizes, shape)):
            remedy = ""
            if isinstance(given, Tensor) and given.dim() + 1 == len(shape) and shape[0] in ("world", "view"):
                remedy = f"; remedy: the {shape[0]} axis in front, [None]"
            got = tuple(given.shape) if isinstance(given, (Tensor, np.ndarray)) else shown(given)
            empty = " with none of them empty" if 0 in sizes else ""
            raise UserError(f"{name}: expected shape ({_words(shape)}){empty}, got {got}{remedy}")
        if shape[0] == "world":
            self.worlds.append((name, sizes[0]))

    def bound(
        self, name: str, value: Tensor, least: float = -LARGEST, most: float = LARGEST, expected: str = "finite numbers",
        remedy: str = "", of: Tensor | None = None, pardon: Callable[[], bool] | None = None, soft: bool = False,
    ) -> Tensor:  # fmt: skip
        """Remembers the limits of numbers; NaN keeps to none. of: what the message counts in place of `value`."""
        if value.numel():
            looked_at = plain(value)
            counted = looked_at if of is None else plain(of)
            self.limits.append(_Limit(name, looked_at, least, most, expected, remedy, counted, pardon, soft))
        return value

    def world_count(self) -> int:
        """The common number of worlds. Raises: UserError that names two that differ."""
        many = [(name, count) for name, count in self.worlds if count != 1]
        for name, count in many:
            if count != many[0][1]:
                raise UserError(f"{name}: expected 1 or {many[0][1]} worlds, as {many[0][0]} has, got {count}")
        return many[0][1] if many else 1

    def settle(self) -> None:
        """Raises: UserError for the first value that does not keep to its limits."""
        if not self.limits:
            return
        ends = torch.stack([end for limit in self.limits for end in torch.aminmax(limit.looked_at)]).tolist()
        for limit, low, high in zip(self.limits, ends[::2], ends[1::2]):
            if (limit.least <= low and high <= limit.most) or (limit.pardon is not None and limit.pardon()):
                continue
            if not limit.soft:
                raise UserError(_refusal(limit, low, high))
            warn_once((limit.name, limit.expected), _refusal(limit, low, high))
        self.limits.clear()


_said: set[Hashable] = set()


def warn_once(key: Hashable, message: str) -> None:
    """A warning that an optimisation does not repeat with every step."""
    if key not in _said:
        _said.add(key)
        warnings.warn(f"{message}; said once", stacklevel=2)


def _refusal(limit: _Limit, low: float, high: float) -> str:
    bad = ~torch.isfinite(limit.of)
    remedy = f"; remedy: {limit.remedy}" if limit.remedy else ""
    if bool(bad.any()):
        first = torch.nonzero(bad)[0].tolist() if limit.of.dim() else 0
        return (
            f"{limit.name}: expected finite numbers, got {int(bad.sum())} of {bad.numel()} that are not, the first at {first}"
        )
    return f"{limit.name}: expected {limit.expected}, got {low if low < limit.least else high:.4g}{remedy}"


def _words(shape: Sequence[int | str]) -> str:
    return ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")


def _tensor_of(value: Any, device: torch.device) -> Tensor:
    """Numbers, or sequences of numbers and tensors, with the tensors' gradient."""
    if isinstance(value, Tensor):
        return value.double()
    if isinstance(value, (tuple, list)):
        if any(isinstance(item, (Tensor, tuple, list)) for item in value):
            return torch.stack([_tensor_of(item, device) for item in value])
        if any(isinstance(item, (str, bool)) for item in value):
            raise TypeError
    elif isinstance(value, (str, bool)):
        raise TypeError
    elif isinstance(value, (np.ndarray, np.generic)):
        return torch.as_tensor(value)
    return torch.tensor(value, dtype=torch.float64, device=device)
