"""A task's settings compared with what its constructors say they take, before anything is built.

A constructor's annotations are the specification: `lr: float` refuses 'abc', `steps: int` refuses 2.5, which `int()` would
cut off silently. NaN and infinity are refused everywhere. What an annotation does not say is left to the constructor.
"""

import inspect
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from dvc.errors import UserError

_SCALARS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", types.NoneType: "null"}


def check_settings(node: Any, where: str = "task") -> None:
    """Raises: UserError, with the dotted key, for the first value that its constructor does not take."""
    if isinstance(node, float) and not math.isfinite(node):
        raise UserError(f"{where}: expected a finite number, got {node}")
    if isinstance(node, list):
        for i, item in enumerate(node):
            check_settings(item, f"{where}[{i}]")
    elif isinstance(node, dict):
        hints = _argument_types(node.get("_target_"))
        for key, value in node.items():
            if key in hints:
                _check_value(value, hints[key], f"{where}.{key}")
            check_settings(value, f"{where}.{key}")


def list_keys(node: Any, where: str = "task") -> dict[str, str]:
    """Hydra's name of an item of a list, task.phases0, -> ours, task.phases[0]."""
    found: dict[str, str] = {}
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        name = f"{where}[{key}]" if isinstance(key, int) else f"{where}.{key}"
        if isinstance(node, list):
            found[f"{where}{key}"] = name
        found |= list_keys(value, name)
    return found


def _argument_types(target: Any) -> dict[str, Any]:
    """Annotations of a constructor's arguments; none where it cannot be found (Hydra says why) or says nothing."""
    from dvc.cli_errors import located

    owner = located(target) if isinstance(target, str) else None
    try:
        function = owner.__init__ if inspect.isclass(owner) else owner  # type: ignore[misc]
        hints = typing.get_type_hints(function)
    except Exception:  # no annotations, or ones that cannot be evaluated here
        return {}
    hints.pop("return", None)
    return hints


def _check_value(value: Any, hint: Any, where: str) -> None:
    if _fits(value, hint):
        return
    for choice in _choices(hint):  # the item that is wrong, rather than all that it stands among
        if isinstance(value, dict) and _container(choice) is dict:
            for key, item in value.items():
                _check_value(item, _inside(choice), f"{where}.{key}")
        if isinstance(value, list) and _container(choice) is list:
            for i, item in enumerate(value):
                _check_value(item, _inside(choice), f"{where}[{i}]")
    raise UserError(f"{where}: expected {_text(hint)}, got {'null' if value is None else repr(value)}")


def _choices(hint: Any) -> tuple[Any, ...]:
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if union else (hint,)


def _container(hint: Any) -> type | None:
    kind = typing.get_origin(hint) or hint
    if not isinstance(kind, type) or kind is str:
        return None
    return list if issubclass(kind, Sequence) else dict if issubclass(kind, Mapping) else None


def _inside(hint: Any) -> Any:
    """What a container holds: Sequence[float] -> float, Mapping[str, int] -> int."""
    return (typing.get_args(hint) or (Any,))[-1 if _container(hint) is dict else 0]


def _fits(value: Any, hint: Any) -> bool:
    """Whether a value of a YAML may be what is annotated; yes where that cannot be told."""
    if isinstance(value, dict) and "_target_" in value:
        return True
    if len(_choices(hint)) > 1:
        return any(_fits(value, choice) for choice in _choices(hint))
    if hint in (int, float):
        return isinstance(value, (int, hint)) and not isinstance(value, bool)
    if hint in _SCALARS:
        return isinstance(value, hint)
    container = _container(hint)
    if container is None:
        return True
    if not isinstance(value, (list, dict)) or not isinstance(value, container):
        return False
    items = value.values() if isinstance(value, dict) else value
    inside = _inside(hint)
    numbers = inside in (int, float) or _container(inside) is not None
    return not numbers or all((isinstance(item, list) and inside in (int, float)) or _fits(item, inside) for item in items)


def _text(hint: Any) -> str:
    if len(_choices(hint)) > 1:
        return " or ".join(dict.fromkeys(_text(choice) for choice in _choices(hint)))
    if hint in _SCALARS:
        return _SCALARS[hint]
    container = _container(hint)
    inside = _inside(hint)
    of = f" of {_SCALARS[inside].split()[-1]}s" if inside in (int, float) else ""
    if container is None:
        return f"a {getattr(hint, '__name__', hint)}"
    return f"a list{of}" if container is list else f"settings by name{of and ', numbers'}"
