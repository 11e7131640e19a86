"""Any exception in one line: what was wrong, where, and what to do. Hydra's and OmegaConf's included."""

import importlib
import inspect
import re
from collections.abc import Callable, Iterable, Iterator

from dvc.cli_experiments import nearest
from dvc.errors import Unsupported, UserError


def one_line(error: BaseException, known_keys: Callable[[], Iterable[str]] | None = None) -> str:
    """One line for the user.

    Arguments:
        known_keys: called only where an unknown key was given; all keys of the configuration, dotted.
    """
    chain = list(_chain(error))
    stage = " ".join(f"{note}:" for note in getattr(error, "__notes__", ()) if note.startswith("stage "))
    return f"{stage} {_line(error, chain, known_keys)}" if stage else _line(error, chain, known_keys)


def _line(error: BaseException, chain: list[BaseException], known_keys: Callable[[], Iterable[str]] | None) -> str:
    for cause in chain:
        key = re.match(r"Key '[^']*' is not in struct", str(cause))
        full_key = re.search(r"full_key: (\S+)", str(cause))
        if key and full_key:
            return _unknown_key(full_key.group(1), known_keys)
    if type(error).__name__ == "InstantiationException":
        return _failed_target(error, chain)
    for cause in chain:
        if isinstance(cause, (UserError, Unsupported)):
            return _joined(str(error if isinstance(error, (UserError, Unsupported)) else cause))
    if type(error).__module__.split(".")[0] in ("hydra", "omegaconf"):
        return _configuration_error(error)
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, (OSError, MemoryError)):
        return _joined(str(error) or type(error).__name__)
    text = _joined(str(error), limit=300)
    return f"unexpected {type(error).__name__}{': ' if text else ''}{text} (add --traceback to see where)"


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An exception and what it was raised from, outermost first."""
    current: BaseException | None = error
    seen: list[BaseException] = []
    while current is not None and all(current is not before for before in seen):
        yield current
        seen.append(current)
        current = current.__cause__


def _joined(text: str, limit: int = 2000) -> str:
    line = " ".join(part.strip() for part in text.splitlines() if part.strip())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def _unknown_key(key: str, known_keys: Callable[[], Iterable[str]] | None) -> str:
    known = list(known_keys()) if known_keys is not None else []
    hint = nearest(key, known)
    if not hint:  # the right name in the wrong place: steps for task.steps
        ends = [name for name in known if name.split(".")[-1] == key.split(".")[-1]]
        hint = f"; did you mean {ends[0]!r}?" if ends else nearest(key.split(".")[-1], [n for n in known if "." not in n])
    return f"no setting {key!r}{hint} (`diffvc describe experiment=NAME --config` prints all; +{key}=... adds a new one)"


def _configuration_error(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    key = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("full_key:")), "")
    dropped = ("full_key:", "object_type=", "See https", "Available options", "set env var", "reference_type=")
    kept = [line for line in lines if not line.startswith(dropped)][:2]
    text = _joined(" ".join(kept)) or type(error).__name__
    if type(error).__name__ == "OverrideParseException":
        return f"{lines[0]}: expected key=value in Hydra's grammar; remedy: quote special characters, 'key=\"a value\"'"
    lost_item = re.match(r"Error merging override (\S+?)=", text)
    if lost_item:
        name = lost_item.group(1)
        return f"{name}: no such item; remedy: items of a list are counted from 0; `diffvc describe ... --config` prints them"
    missing = re.match(r"Missing mandatory value: (\S+)", text)
    if missing:
        name = key or missing.group(1)
        return f"the setting {name!r} has no value; remedy: {name}=..., or set it in the experiment's YAML"
    return text if not key or key in text else f"{key}: {text}"


def _failed_target(error: BaseException, chain: list[BaseException]) -> str:
    """A `_target_` that cannot be found or refuses its arguments."""
    text = str(error)
    where = re.search(r"full_key: (\S+)", text)
    target = re.search(r"target '([^']+)'", text)
    prefix = f"task.{where.group(1)}: " if where else "task: "
    name = target.group(1) if target else "_target_"
    if len(chain) == 1:  # a target that is no class or function
        return prefix + _joined(text.splitlines()[0])
    lost = text.startswith("Error locating target")
    cause = next((item for item in chain if isinstance(item, UserError)), chain[-1 if lost else 1])
    if isinstance(cause, UserError):
        return _joined(f"{prefix}{cause}")
    detail = _joined(str(cause), limit=300)
    if lost:
        hint = _nearest_target(name)
        return f"{prefix}_target_ {name!r} cannot be imported: {type(cause).__name__}: {detail}{hint}"
    wrong = re.search(r"unexpected keyword argument '([^']+)'", detail)
    hint = _nearest_argument(name, wrong.group(1)) if wrong else ""
    return f"{prefix}{name} cannot be made: {type(cause).__name__}: {detail}{hint}"


def located(dotted: str) -> object | None:
    """What a dotted name stands for, or None."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found: object = importlib.import_module(".".join(parts[:count]))
        except Exception:
            continue
        for part in parts[count:]:
            found = getattr(found, part, None)
        return found
    return None


def _nearest_target(dotted: str) -> str:
    parent, _, last = dotted.rpartition(".")
    owner = located(parent) if parent else None
    hint = nearest(last, [n for n in vars(owner) if not n.startswith("_")]) if owner is not None else ""
    return hint or "; a module of your own must lie in the current folder, in --config-dir or on PYTHONPATH"


def _nearest_argument(dotted: str, wrong: str) -> str:
    try:
        known = [name for name in inspect.signature(located(dotted)).parameters if name != "self"]  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return ""
    return f"{nearest(wrong, known)}; known arguments: {', '.join(known)}"
