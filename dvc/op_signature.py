"""The signature of an op: what its annotations declare, and what is said when a call does not keep to it.

A positional argument annotated `wp.array2d(dtype=wp.vec3)` takes a torch tensor (a, b, 3): the axes of the array followed by
those of its element. The leading axis is the world axis, unless the argument is shared.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import warp as wp

from dvc.errors import UserError


@dataclass(frozen=True)
class Argument:
    """One positional argument of an op."""

    name: str
    dtype: type  # Warp dtype of an element: float32, vec3, mat33, ...
    rank: int  # axes of the Warp array
    element_shape: tuple[int, ...]  # trailing axes of the torch tensor
    torch_dtype: torch.dtype
    shared: bool  # without a world axis
    seed: bool

    @property
    def is_float(self) -> bool:
        return self.torch_dtype == torch.float32


def element_shape(dtype: Any) -> tuple[int, ...]:
    """() of a scalar, (3,) of a vec3 or (4,) of a quat, (3, 3) of a mat33."""
    return tuple(getattr(dtype, "_shape_", ()))


def is_float32(dtype: Any) -> bool:
    return getattr(dtype, "_wp_scalar_type_", dtype) in (wp.float32, float)


def is_float(dtype: Any) -> bool:
    """Whether an array of this dtype can carry a gradient, in whatever precision."""
    return getattr(dtype, "_wp_scalar_type_", dtype) in (wp.float16, wp.float32, wp.float64, float)


class OpSignature:
    """Arguments and static options of the op whose body is `body`."""

    def __init__(self, body: Callable, name: str, shared: Iterable[str], seeds: Iterable[str]):
        self.name = name
        self.signature = inspect.signature(body)
        shared, seeds = _names("shared", shared), _names("seeds", seeds)
        annotations = _annotations(body)
        arguments, self.defaults, self.static_names = [], {}, []
        for key, parameter in self.signature.parameters.items():
            if parameter.kind is parameter.KEYWORD_ONLY:
                self.static_names.append(key)
                if parameter.default is not parameter.empty:
                    self.defaults[key] = parameter.default
            elif parameter.kind is parameter.POSITIONAL_OR_KEYWORD:
                arguments.append(_argument(name, key, annotations.get(key), key in shared, key in seeds))
            else:
                raise UserError(f"{name}.{key}: expected named arguments, got {parameter}; remedy: name each argument")
        self.arguments: tuple[Argument, ...] = tuple(arguments)
        if not arguments:
            raise UserError(f"{name}: expected at least one positional argument (a Warp array), got none")
        known = {argument.name for argument in arguments}
        for option, names in (("shared", shared), ("seeds", seeds)):
            if names - known:
                unknown = sorted(names - known)
                raise UserError(f"{name}: {option} names {unknown}, expected some of {sorted(known)}; remedy: correct the name")
        for argument in arguments:
            if argument.seed and argument.is_float:
                raise UserError(f"{name}.{argument.name}: a seed is an integer array, got {wp.types.type_repr(argument.dtype)}")

    def bind(self, args: tuple, options: dict) -> tuple[tuple, dict]:
        """Positional arguments in order and all static options, defaults filled in."""
        if len(args) != len(self.arguments) or any(option not in self.static_names for option in options):
            try:
                bound = self.signature.bind(*args, **options)
            except TypeError as error:
                raise UserError(f"{self.name}: {error}; expected {self.name}{self._usage()}") from None
            bound.apply_defaults()
            return bound.args, dict(bound.kwargs)
        options = {**self.defaults, **options}
        missing = [key for key in self.static_names if key not in options]
        if missing:
            raise UserError(f"{self.name}: missing static option {missing[0]!r}; expected {self.name}{self._usage()}")
        return args, {key: options[key] for key in self.static_names}

    def _usage(self) -> str:
        options = [f"{key}={self.defaults[key]!r}" if key in self.defaults else key for key in self.static_names]
        return f"({', '.join([a.name for a in self.arguments] + (['*'] + options if options else []))})"

    def check_options(self, options: dict) -> None:
        for key, value in options.items():
            if isinstance(value, (torch.Tensor, wp.array)) or type(value).__module__ == "numpy":
                raise UserError(
                    f"{self.name}.{key}: a static option decides which code runs, got {type(value).__name__}; "
                    "remedy: make it a positional argument, an array"
                )
            try:
                hash(value)
            except TypeError:
                raise UserError(
                    f"{self.name}.{key}: expected a hashable static option, got {type(value).__name__}; remedy: pass a tuple"
                ) from None

    def check_tensors(self, tensors: tuple) -> int:
        """Check every tensor; return the number of worlds (1 where every argument is shared)."""
        for argument, tensor in zip(self.arguments, tensors):
            self._check_tensor(argument, tensor)
        first = self.arguments[0]
        for argument, tensor in zip(self.arguments, tensors):
            if tensor.device != tensors[0].device:
                raise UserError(
                    f"{self.name}.{argument.name}: is on {tensor.device}, {first.name} on {tensors[0].device}; "
                    f"expected one device; remedy: {argument.name}.to({str(tensors[0].device)!r})"
                )
        worlds, holder = 1, None
        for argument, tensor in zip(self.arguments, tensors):
            size = 1 if argument.shared else tensor.shape[0]
            if size == 1 or size == worlds:
                continue
            if holder is not None:
                raise UserError(
                    f"{self.name}: {holder[0].name} has shape {tuple(holder[1].shape)} and {argument.name} has shape "
                    f"{tuple(tensor.shape)}: expected equal leading (world) sizes, or 1 to share it, got {worlds} and {size}; "
                    f"remedy: expand one of them, or declare it @warp_op(shared=...) if it has no world axis"
                )
            worlds, holder = size, (argument, tensor)
        return worlds

    def _check_tensor(self, argument: Argument, tensor: Any) -> None:
        where = f"{self.name}.{argument.name}"
        axes = argument.rank + len(argument.element_shape)
        if not isinstance(tensor, torch.Tensor):
            remedy = (
                "torch.tensor(...), or make it a keyword-only static option"
                if isinstance(tensor, (int, float))
                else "torch.as_tensor"
            )
            raise UserError(
                f"{where}: expected a tensor of {axes} axes, got {type(tensor).__name__} {_short(tensor)}; remedy: {remedy}"
            )
        if tensor.dtype != argument.torch_dtype:
            convert = {torch.float32: ".float()", torch.int32: ".int()", torch.bool: ".bool()"}
            remedy = convert.get(argument.torch_dtype, f".to({argument.torch_dtype})")
            raise UserError(
                f"{where}: expected dtype {argument.torch_dtype}, got {tensor.dtype}; remedy: {argument.name}{remedy}"
            )
        if tensor.device.type not in ("cpu", "cuda") or tensor.layout is not torch.strided:
            raise UserError(f"{where}: expected a dense tensor on cpu or cuda, got {tensor.layout} on {tensor.device}")
        shape = tuple(tensor.shape)
        trailing = shape[len(shape) - len(argument.element_shape) :] if argument.element_shape else ()
        if len(shape) != axes or trailing != argument.element_shape:
            leading = [f"n{axis}" for axis in range(argument.rank)]
            if not argument.shared:
                leading[0] = "world"
            expected = ", ".join(leading + [str(n) for n in argument.element_shape])
            raise UserError(
                f"{where}: expected shape ({expected}{',' if axes == 1 else ''}) for {argument.rank} axes of "
                f"{wp.types.type_repr(argument.dtype)}, got {shape}; remedy: add or remove axes"
            )


def _names(option: str, names: Iterable[str]) -> set[str]:
    if isinstance(names, str):
        raise UserError(f"warp_op.{option}: expected a tuple of argument names, got the string {names!r}; remedy: ({names!r},)")
    return set(names)


def _annotations(body: Callable) -> dict[str, Any]:
    annotations = dict(getattr(body, "__annotations__", {}))
    if any(isinstance(value, str) for value in annotations.values()):
        scope = inspect.getclosurevars(body).nonlocals
        annotations = typing.get_type_hints(body, localns=dict(scope))
    return annotations


def _argument(op: str, name: str, annotation: Any, shared: bool, seed: bool) -> Argument:
    dtype, rank = getattr(annotation, "dtype", None), getattr(annotation, "ndim", None)
    if not isinstance(rank, int) or rank < 1 or not isinstance(dtype, type):
        raise UserError(f"{op}.{name}: expected an annotation such as wp.array2d(dtype=wp.vec3), got {annotation!r}")
    dtype = {float: wp.float32, int: wp.int32, bool: wp.bool}.get(dtype, dtype)
    try:
        torch_dtype = wp.dtype_to_torch(getattr(dtype, "_wp_scalar_type_", dtype))
    except Exception:
        raise UserError(f"{op}.{name}: expected an array of scalars, vectors, matrices or quaternions, got {dtype}") from None
    if torch_dtype.is_floating_point and torch_dtype != torch.float32:
        raise UserError(f"{op}.{name}: expected float32 (the precision everywhere), got an annotation of {torch_dtype}")
    return Argument(name, dtype, rank, element_shape(dtype), torch_dtype, shared, seed)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 40 else text[:37] + "..."


def typed(value: Any) -> Any:
    """A dictionary key that tells 1, 1.0 and True apart, and 0.0 from -0.0."""
    if type(value) is tuple:
        return tuple([typed(item) for item in value])
    return type(value), repr(value) if value == 0.0 and type(value) is float else value
