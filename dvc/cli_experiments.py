"""Which experiments there are: the YAML files of the package, and those of a folder of the user's own.

Read with a plain YAML parser, so that `diffvc list` needs neither Hydra nor torch.
"""

import difflib
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from dvc.errors import UserError

COMMON = "run"  # configs/run.yaml: what every run has


class Experiment(NamedTuple):
    """A YAML that can be run."""

    name: str
    path: Path
    plain: bool  # it lies in the user's folder itself, not in its experiment/


def nearest(name: str, known: Iterable[str]) -> str:
    """ "; did you mean 'x'?", or nothing where no known name is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def packaged_folder() -> Path:
    """The folder of the configurations that come with the package."""
    spec = find_spec("configs")
    if spec is None or spec.origin is None:
        raise UserError("the package's configurations are missing; remedy: install diffvc again")
    return Path(spec.origin).parent


def _stems(folder: Path) -> dict[str, Path]:
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def experiments(config_dir: Path | None = None) -> dict[str, Experiment]:
    """Experiment by name: the package's, then those of `config_dir` (its experiment/NAME.yaml and NAME.yaml).

    Raises: UserError for a folder that does not exist and for a name that is taken twice.
    """
    packaged = packaged_folder()
    found = {name: Experiment(name, path, False) for name, path in _stems(packaged / "experiment").items()}
    if config_dir is None or config_dir.resolve() == packaged.resolve():
        return found
    if not config_dir.is_dir():
        raise UserError(f"--config-dir: expected a folder, got {str(config_dir)!r}, which does not exist")
    own = [Experiment(name, path, False) for name, path in _stems(config_dir / "experiment").items()]
    own += [Experiment(name, path, True) for name, path in _stems(config_dir).items() if name != COMMON]
    for entry in own:
        if entry.name in found:
            taken = found[entry.name].path
            raise UserError(f"{entry.path}: the experiment name {entry.name!r} is taken by {taken}; remedy: rename the file")
        found[entry.name] = entry
    return found


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as a dict. Raises: UserError, with line and column, where it cannot be read."""
    import yaml

    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UserError(f"{path}{where}: not YAML: {error.problem}") from error
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read: {str(error).splitlines()[0]}") from error
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected settings by name, got {type(content).__name__}")
    return content


def claim_of(name: str, known: dict[str, Experiment]) -> str:
    """The claim that an experiment states, or inherits from the experiments that it starts from."""
    content = read_yaml(known[name].path)
    if content.get("claim"):
        return " ".join(str(content["claim"]).split())
    parents = [entry for entry in content.get("defaults") or [] if isinstance(entry, str) and entry in known and entry != name]
    for parent in reversed(parents):
        return claim_of(parent, {n: e for n, e in known.items() if n != name})
    return "(states no claim)"


def checked_experiment(name: str, known: dict[str, Experiment]) -> Experiment:
    """The experiment of this name, readable, and placed at the root of the configuration.

    Raises: UserError for an unknown name (with the nearest one), for YAML that cannot be read, and for a file in
        experiment/ that lacks the line that places it at the root.
    """
    if name not in known:
        raise UserError(f"no experiment {name!r}{nearest(name, known)}; known experiments: {', '.join(known) or 'none'}")
    entry = known[name]
    read_yaml(entry.path)
    if not entry.plain and not _at_root(entry.path):
        raise UserError(f"{entry.path}: expected '# @package _global_' as its first line; remedy: add that line")
    return entry


def _at_root(path: Path) -> bool:
    lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
    head = [line for line in lines if line][:5]
    return any(line.startswith("#") and line.lstrip("# ").split() == ["@package", "_global_"] for line in head)
