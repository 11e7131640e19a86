"""What `diffvc run`, `check`, `horizon` and `describe` do once there is something to compute: Hydra composes, the task runs.

Hydra's own entry point is used, so that its overrides, sweepers and launchers work as documented; its errors are passed
on to `dvc.cli`, which prints them in one line, and its folders are set to runs/NAME/TIME (configs/run.yaml).
"""

import os
import random
import re
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from dvc.atomic_file import write_error
from dvc.cli_errors import one_line
from dvc.cli_experiments import COMMON, Experiment, read_yaml
from dvc.cli_settings import check_settings, list_keys
from dvc.errors import UserError

# What may differ when an interrupted run goes on: nothing that changes its numbers.
RUNTIME_KEYS = ("progress", "threads", "wandb.mode", "wandb.project")
MOST_THREADS = 8


# -- composition ------------------------------------------------------------------------------------------------------
def with_configuration(
    action: Callable[[Any], Any],
    overrides: Sequence[str],
    *,
    config_dir: Path | None = None,
    plain: Sequence[Experiment] = (),
    multirun: bool = False,
) -> None:
    """Call `action` with the composed configuration: once, or once a combination of a sweep.

    Arguments:
        overrides: Hydra's, as typed.
        config_dir: a folder whose YAML files are found besides the package's.
        plain: experiments that lie in that folder itself; they are offered as experiment=NAME too.
    Raises: Hydra's and OmegaConf's exceptions, and whatever `action` raises.
    """
    import hydra
    from hydra.core.config_store import ConfigStore
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf
    from yaml import YAMLError

    store = ConfigStore.instance()
    options = [] if config_dir is None else ["--config-dir", str(config_dir)]
    options += ["--multirun"] if multirun else []
    process, failures = os.getpid(), []

    def guarded(cfg: Any) -> None:
        # Hydra would print a line of its own for each exception. In the processes of a launcher (SLURM) it must see them.
        try:
            action(cfg)
        except Exception as error:
            if os.getpid() != process:
                raise
            failures.append(error)

    try:
        for entry in plain:
            with suppress(YAMLError):  # the chosen one was read before; a broken neighbour does not matter
                store.store(name=entry.name, node=OmegaConf.load(entry.path), group="experiment", package="_global_")
        with _hydra_surroundings([*overrides, *options]):
            hydra.main(config_path="pkg://configs", config_name=COMMON, version_base="1.3")(guarded)()
    except OSError as error:  # those of the action do not come here: Hydra could not make the run's folder
        if error.filename is None:
            raise
        raise write_error(error.filename, error, "out=DIR chooses the folder of a run") from error
    finally:
        store.repo.pop("experiment", None)
        GlobalHydra.instance().clear()
    if len(failures) > 1:
        raise UserError(f"{len(failures)} runs failed; the first: {one_line(failures[0])}") from failures[0]
    if failures:
        raise failures[0]


@contextmanager
def _hydra_surroundings(arguments: list[str]) -> Iterator[None]:
    """Hydra reads sys.argv, and hands its exceptions on only where HYDRA_FULL_ERROR is 1."""
    argv, full = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = ["diffvc", *arguments], "1"
    try:
        yield
    finally:
        sys.argv = argv
        if full is None:
            del os.environ["HYDRA_FULL_ERROR"]
        else:
            os.environ["HYDRA_FULL_ERROR"] = full


def keys(node: Any, prefix: str = "") -> Iterator[str]:
    """All keys of nested settings, dotted; items of lists as a[0]."""
    for name, value in node.items() if isinstance(node, Mapping) else ():
        yield f"{prefix}{name}"
        yield from keys(value, f"{prefix}{name}.")
    for index, item in enumerate(node) if isinstance(node, list) else ():
        yield from keys(item, f"{prefix[:-1]}[{index}].")


def settings(cfg: Any) -> dict[str, Any]:
    """The configuration as plain values, interpolations resolved, and `device` the one that is there.

    Raises: UserError for a wrong common setting.
    """
    from omegaconf import OmegaConf

    cfg.device = _chosen_device(cfg.device)
    plain: Any = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    _check(isinstance(plain.get("task"), dict) and "_target_" in plain["task"], "task", "a _target_", plain.get("task"))
    for key in ("name", "claim"):
        _check(isinstance(plain[key], str), key, "text", plain[key])
    seed = plain["seed"]
    _check(type(seed) is int and 0 <= seed < 2**63, "seed", "a whole number from 0 to 2^63 - 1", seed)
    threads = plain["threads"]
    _check(threads is None or (type(threads) is int and threads > 0), "threads", "a whole number or null", threads)
    _check(isinstance(plain["progress"], bool), "progress", "true or false", plain["progress"])
    _check(isinstance(plain["wandb"], dict), "wandb", "mode and project", plain["wandb"])
    mode = plain["wandb"].get("mode")
    _check(mode in ("offline", "online", "disabled"), "wandb.mode", "offline, online or disabled", mode)
    return plain


def _check(right: bool, name: str, expected: str, got: Any) -> None:
    if not right:
        raise UserError(f"{name}: expected {expected}, got {got!r}")


# -- the task ---------------------------------------------------------------------------------------------------------
def _chosen_device(wanted: Any) -> str:
    """A device that is there, by its name in torch."""
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(str(wanted))
    except RuntimeError as error:
        raise UserError(f"device: expected auto, cpu, cuda or cuda:N, got {wanted!r}") from error
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device: {wanted!r} is not there ({torch.cuda.device_count()} CUDA devices found); remedy: device=cpu")
    return str(device)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _announce_compilation() -> None:
    """Say once that kernels are being compiled: the first run on a machine is otherwise silent for up to a minute."""
    import dvc.warp_op

    said = False

    def say(text: str) -> None:
        nonlocal said
        if not said:
            said = True
            print(f"compiling kernels for the first time on this machine, up to a minute ... ({text})", file=sys.stderr)

    dvc.warp_op.on_compile = say


def prepared_task(plain: dict[str, Any]) -> Any:
    """The task, made from its `_target_` once seeds and threads are set, its pipeline on the device."""
    import numpy as np
    import torch
    from hydra.errors import InstantiationException
    from hydra.utils import instantiate

    check_settings(plain["task"])
    torch.set_num_threads(plain["threads"] or min(_cores(), MOST_THREADS))
    random.seed(plain["seed"])
    np.random.seed(plain["seed"] % 2**32)
    torch.manual_seed(plain["seed"])
    _announce_compilation()
    try:
        task = instantiate(plain["task"], _convert_="all")
    except InstantiationException as error:
        names = list_keys(plain["task"], "")
        error.args = (re.sub(r"(?<=full_key: )\S+", lambda key: _without_dot(names, key.group()), str(error)),)
        raise
    if plain["device"] != "cpu":
        task.pipeline.to(plain["device"])
    return task


def _without_dot(names: Mapping[str, str], key: str) -> str:
    return names.get(f".{key}", f".{key}")[1:]


def execute(plain: dict[str, Any], directory: Path, *, resume: bool = False) -> None:
    """Run the task in a directory, and print its table and the path of the report."""
    from dvc.recorder import CHECKPOINTS, Recorder

    plain["out"] = str(directory)
    task = prepared_task(plain)
    recorder = Recorder(directory, plain, wandb=plain["wandb"]["mode"], show_progress=plain["progress"], resume=resume)
    with recorder:
        try:
            result = task.run(recorder)
            report = recorder.finish(result, pipeline=task.pipeline)
        except KeyboardInterrupt:
            recorder.note(f"interrupted; go on with: diffvc run resume={directory}")
            raise
        except UserError as error:
            if isinstance(error.__cause__, OSError) and (directory / CHECKPOINTS).exists():  # a full disk
                recorder.note(f"go on with: diffvc run resume={directory}")
            raise
        except Exception:
            path = directory / "traceback.txt"
            path.write_text(traceback.format_exc(), encoding="utf-8")
            recorder.note(f"stopped by an error; its traceback is in {path}")
            raise
    print(result.table())
    print(f"report: {report}")


# -- actions ----------------------------------------------------------------------------------------------------------
def run(cfg: Any) -> None:
    """Action of `diffvc run`."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    here = HydraConfig.get()
    directory = Path(here.runtime.output_dir)
    sweep = here.mode == RunMode.MULTIRUN
    title = f"run {here.job.num} ({', '.join(here.overrides.task)})" if sweep else ""
    try:
        if sweep:
            print(f"{title}: {directory}")
        execute(settings(cfg), directory)
    except Exception as error:
        if not sweep:
            raise
        raise UserError(f"{title}: {one_line(error)}") from error
    finally:
        _remove_empty(directory)


def _remove_empty(directory: Path) -> None:
    """Remove the folders of a run that left nothing in them: runs/NAME/TIME, runs/NAME, runs."""
    for folder in (directory, *list(directory.parents)[:2]):
        try:
            folder.rmdir()
        except OSError:
            return


def resume(run_dir: Path, overrides: Sequence[str]) -> None:
    """Go on with an interrupted run, from its last checkpoint, with the settings that it was started with."""
    import yaml
    from omegaconf import OmegaConf

    path = run_dir / "config.yaml"
    if not path.is_file():
        raise UserError(f"resume: expected the folder of a run (with config.yaml), got {str(run_dir)!r}")
    read_yaml(path)  # its errors name line and column
    cfg: Any = OmegaConf.load(path)
    for override in overrides:
        key, _, value = override.partition("=")
        if key == "experiment" and value == cfg.get("name"):
            continue
        if key not in RUNTIME_KEYS:
            raise UserError(
                f"resume: the settings are those of {path}, {override!r} cannot change them; "
                f"remedy: leave it out (allowed: {', '.join(RUNTIME_KEYS)}), or start a new run"
            )
        OmegaConf.update(cfg, key, yaml.safe_load(value))
    execute(settings(cfg), run_dir.absolute(), resume=True)


def check(cfg: Any) -> bool:
    """Action of `diffvc check`: print the table of gradient checks; whether all passed."""
    from dvc.gradient_check import MOST_EXCLUDED, certified, format_table

    rows = prepared_task(settings(cfg)).check()
    failed = [row.name for row in rows if not row.passed]
    print(format_table(rows))
    if not rows:
        raise UserError(f"{cfg.name}: its check() returned no rows: nothing was checked")
    print(f"{len(rows)} checked, {len(failed)} failed" + (f": {', '.join(failed)}" if failed else ""))
    if not failed and not certified(rows):
        print(f"failed: more than {MOST_EXCLUDED:.0%} of the rows are excluded, which says nothing about the gradient")
    return certified(rows)


def horizon(cfg: Any, horizons: Sequence[int] | None, directory: Path) -> None:
    """Action of `diffvc horizon`: print the table of gradients against the horizon; its CSV and plot go to a folder."""
    from dvc.horizon import format_report, save_report

    task = prepared_task(settings(cfg))
    if not callable(getattr(type(task), "horizon", None)):
        raise UserError(f"{cfg.name}: its task has no horizon: {type(task).__name__} declares no method `horizon`")
    try:
        report = task.horizon(horizons)
        print(format_report(report))
        table, plot = save_report(report, directory)
    except OSError as error:
        raise write_error(directory, error) from error
    print(f"table: {table}\nplot: {plot}")


def describe(cfg: Any, *, mermaid: bool) -> None:
    """Action of `diffvc describe`: print the pipeline."""
    plain = settings(cfg)
    pipeline = prepared_task(plain).pipeline
    if mermaid:
        print(pipeline.mermaid())
    else:
        print(f"{plain['name']}: {plain['claim']}\n")
        print(pipeline.describe())
