"""Values of a scene file, checked one by one: what is wrong is said with the place where it stands."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, tensor

from dvc.cli_experiments import nearest
from dvc.errors import UserError


def section(where: str, value: Any, known: Iterable[str], required: Iterable[str] = ()) -> dict[str, Any]:
    """A mapping with known keys only."""
    known = list(known)
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected settings by name ({', '.join(known)}), got {shown(value)}")
    for key in value:
        if key not in known:
            raise UserError(f"{where}: no key {key!r}{nearest(str(key), known)}; known keys: {', '.join(known)}")
    for key in required:
        if key not in value:
            raise UserError(f"{where}.{key}: expected a value, got none; remedy: add {key}")
    return value


def by_name(where: str, value: Any) -> dict[str, Any]:
    """A mapping of names that the user chooses."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected entries by name, got {shown(value)}")
    return {str(name): entry for name, entry in value.items()}


def items(where: str, value: Any) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise UserError(f"{where}: expected a list, got {shown(value)}")
    return value


def refuse_doubled_keys(path: Path) -> None:
    """YAML keeps the last of two entries of one name without a word.

    Raises: UserError that names the key and its lines.
    """
    import yaml

    root = yaml.compose(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    waiting, seen = [] if root is None else [root], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen or not isinstance(node, yaml.CollectionNode):
            continue
        seen.add(id(node))
        if not isinstance(node, yaml.MappingNode):
            waiting += node.value
            continue
        lines: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            name = str(key.value)
            if name in lines:
                raise UserError(
                    f"{path}, line {line}: expected each key once, got {key.value!r} again (first in line {lines[name]}); "
                    "remedy: leave one out, or rename it"
                )
            lines[name] = line
            waiting.append(value)


def one_of(where: str, value: Mapping[str, Any], choices: Sequence[str]) -> str:
    """The one key of several that is given."""
    given = [key for key in choices if key in value]
    if len(given) != 1:
        raise UserError(f"{where}: expected exactly one of {', '.join(choices)}, got {', '.join(given) or 'none'}")
    return given[0]


def number(where: str, value: Any, least: float = -math.inf, most: float = math.inf, above: bool = False) -> float:
    """A finite number from `least` (or above it) to `most`."""
    found = _number(value)
    if found is None or not (least < found if above else least <= found) or found > most:
        bounds = f" {'above' if above else 'of at least'} {least:g}" if least > -math.inf else ""
        bounds += f"{' and' if bounds else ' of'} at most {most:g}" if most < math.inf else ""
        raise UserError(f"{where}: expected a number{bounds}, got {shown(value)}")
    return found


def whole(where: str, value: Any, least: int = 1) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise UserError(f"{where}: expected a whole number of at least {least}, got {shown(value)}")
    return value


def numbers(where: str, value: Any, count: int) -> Tensor:
    """`count` finite numbers: float32 (count,)."""
    found = [_number(item) for item in value] if isinstance(value, list) else []
    if len(found) != count or None in found:
        raise UserError(f"{where}: expected {count} numbers as [{', '.join('0' * count)}], got {shown(value)}")
    return tensor(found)


def colour(where: str, value: Any) -> Tensor:
    """Three numbers of at least 0, or one for all: float32 (3,)."""
    if not isinstance(value, list):
        return tensor([number(where, value, 0.0)] * 3)
    found = numbers(where, value, 3)
    if bool((found < 0.0).any()):
        raise UserError(f"{where}: expected numbers of at least 0, got {shown(value)}")
    return found


def truth(where: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise UserError(f"{where}: expected true or false, got {shown(value)}")
    return value


def text(where: str, value: Any, choices: Sequence[str] | None = None) -> str:
    if not isinstance(value, str) or (choices is not None and value not in choices):
        expected = f"one of {', '.join(choices) or '(there are none)'}" if choices is not None else "text"
        hint = nearest(value, choices or ()) if isinstance(value, str) else ""
        raise UserError(f"{where}: expected {expected}, got {shown(value)}{hint}")
    return value


def shown(value: Any) -> str:
    if isinstance(value, dict):
        return f"settings by name ({', '.join(map(str, value))})"
    found = "nothing" if value is None else repr(value)
    return found if len(found) < 80 else found[:77] + "..."


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        found = float(value)  # YAML 1.1 takes 1e-3 for text
    except ValueError:
        return None
    return found if math.isfinite(found) else None
