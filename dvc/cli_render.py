"""What `diffvc render` does: settings of configs/render.yaml, changed by key=value, and the task that its `_target_` names."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dvc.cli_experiments import nearest, packaged_folder, read_yaml
from dvc.errors import UserError

FILE = "render.yaml"


def scenes() -> dict[str, Path]:
    """Scene files that come with the package, by name."""
    return {path.stem: path for path in sorted((packaged_folder() / "scene").glob("*.yaml"))}


def scene_path(given: str) -> Path:
    """A file, or a scene of the package by its name."""
    path = Path(given).expanduser()
    if path.is_file():
        return path
    known = scenes()
    if given in known:
        return known[given]
    raise UserError(
        f"scene {given!r}: no such file{nearest(given, known)}; scenes of the package: {', '.join(known)}; "
        "remedy: diffvc render FILE.yaml"
    )


def changed_settings(overrides: Sequence[str]) -> dict[str, Any]:
    """The settings of configs/render.yaml with key=value laid over them."""
    import yaml

    settings = read_yaml(packaged_folder() / FILE)
    known = [key for key in settings if not key.startswith("_")]
    for override in overrides:
        key, sign, value = override.partition("=")
        if not sign:
            raise UserError(f"render: expected one scene and settings as key=value, got {override!r} besides")
        if key not in known:
            raise UserError(f"no setting {key!r}{nearest(key, known)}; known settings: {', '.join(known)}")
        try:
            settings[key] = value if key in ("out", "aov") else yaml.safe_load(value)
        except yaml.YAMLError:
            raise UserError(f"{key}: expected a value, got {value!r}") from None
    return settings


def render(given: str, overrides: Sequence[str]) -> None:
    """Render a scene. Raises: UserError, in one line, for whatever does not fit."""
    path, settings = scene_path(given), changed_settings(overrides)
    import torch

    from dvc.cli_errors import located
    from dvc.cli_hydra import MOST_THREADS, _announce_compilation, _chosen_device, _cores
    from dvc.cli_settings import check_settings

    check_settings(settings, "render")
    threads = settings.pop("threads")
    if threads is not None and (type(threads) is not int or threads < 1):
        raise UserError(f"threads: expected a whole number of at least 1 or null, got {threads!r}")
    torch.set_num_threads(threads or min(_cores(), MOST_THREADS))
    settings["device"] = _chosen_device(settings["device"])
    target = settings.pop("_target_")
    task: Any = located(target)
    if task is None:
        raise UserError(f"{FILE}: _target_ {target!r} cannot be imported; remedy: install diffvc again")
    _announce_compilation()
    sys.stdout.flush()
    task(scene=str(path), **settings).run()
