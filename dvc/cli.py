"""The command line `diffvc`. torch, Warp and Hydra are imported only once there is something to compute."""

import argparse
import os
import shutil
import sys
import textwrap
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from dvc.cli_errors import one_line
from dvc.cli_experiments import Experiment, checked_experiment, claim_of, experiments, nearest
from dvc.errors import UserError

FAILED_CHECK, WRONG_INPUT, INTERRUPTED = 1, 2, 130

_SETTINGS = """\
settings are given as key=value (Hydra's grammar: +new.key=value, ~removed.key). Those that every experiment has:
  seed=0            device=auto|cpu|cuda     threads=N        out=DIR (default: runs/NAME/TIME)
  progress=true     wandb.mode=offline|online|disabled        wandb.project=diffvc
`diffvc describe experiment=NAME --config` prints all settings of an experiment.
"""
_RUN_EXAMPLES = """
examples:
  diffvc run experiment=pendulum_video
  diffvc run experiment=pendulum_video seed=1 out=/tmp/first
  diffvc run experiment=pendulum_video seed=0,1,2 --multirun
  diffvc run experiment=mine --config-dir my_configs      (my_configs/mine.yaml or my_configs/experiment/mine.yaml)
  diffvc run resume=runs/pendulum_video/TIME              (goes on from the last checkpoint)
"""
_RENDER_SETTINGS = """\
settings, as key=value (those left out are the scene file's):
  out=image.png     .png, .exr or .npz, several separated by commas    samples=N depth=N seed=N
  width=N height=N  one of them keeps the proportions                  exposure=STOPS (of a PNG)
  aov=depth,normal  further images: depth position normal albedo mask motion instance
  device=auto       threads=N progress=true
examples:
  diffvc render cornell_box
  diffvc render textured out=small.png,small.exr width=320 samples=32 aov=depth,normal
"""


class _Parser(argparse.ArgumentParser):
    """Errors in the one form that all errors have."""

    def error(self, message: str) -> Any:
        self.exit(WRONG_INPUT, f"diffvc: error: {message} (see {self.prog} --help)\n")


# -- commands ---------------------------------------------------------------------------------------------------------
def _chosen(options: argparse.Namespace) -> tuple[list[str], list[Experiment]]:
    """The overrides, checked as far as that goes without Hydra, and the experiments that lie in the user's folder itself."""
    known = experiments(options.config_dir)
    given: dict[str, str] = {}
    for override in options.overrides:
        key, sign, value = override.partition("=")
        if not sign and not key.startswith("~"):
            hint = f"; did you mean experiment={key}?" if key in known else ""
            raise UserError(f"settings: expected key=value, got {override!r}{hint}")
        if key == "experiment" and key in given:
            raise UserError(f"experiment: expected it once, got {given[key]!r} and {value!r}; remedy: keep one of them")
        given[key] = value
    if "experiment" not in given:
        close = next((key for key in given if nearest("experiment", [key])), None)
        hint = f"; did you mean experiment= for {close!r}?" if close else ""
        raise UserError(f"expected experiment=NAME, got none{hint}; known experiments: {', '.join(known) or 'none'}")
    sweep = getattr(options, "multirun", False)
    if given.get("out", "runs").strip("'\"") in ("", "null"):
        raise UserError(f"out: expected a folder, got {given['out']!r}; remedy: out=DIR, or leave it out for runs/NAME/TIME")
    names = given["experiment"].split(",") if sweep else [given["experiment"]]
    for name in names:
        if not sweep and "," in name:
            raise UserError(f"experiment: expected one name, got {name!r}; remedy: add --multirun to run several")
        if "(" not in name and ")" not in name:
            checked_experiment(name, known)
    _make_importable(options.config_dir)
    return list(options.overrides), [entry for entry in known.values() if entry.plain]


def _make_importable(config_dir: Path | None) -> None:
    """Let `_target_` name a module in the current folder or beside the user's YAML; installed packages come first."""
    for folder in (Path.cwd(), config_dir):
        if folder is not None and str(folder.resolve()) not in sys.path:
            sys.path.append(str(folder.resolve()))


def _run(options: argparse.Namespace) -> int:
    resumed = [override for override in options.overrides if override.startswith("resume=")]
    folder = resumed[-1].partition("=")[2] if resumed else ""
    if resumed and not folder:
        raise UserError("resume: expected the folder of a run, got nothing; remedy: resume=RUN_DIR")
    if folder and folder != "null":
        if options.multirun:
            raise UserError("resume: expected one run, got --multirun; remedy: resume the runs of a sweep one by one")
        _make_importable(options.config_dir)
        from dvc.cli_hydra import resume

        resume(Path(folder).expanduser(), [override for override in options.overrides if override not in resumed])
        return 0
    overrides, plain = _chosen(options)
    from dvc.cli_hydra import run, with_configuration

    with_configuration(run, overrides, config_dir=options.config_dir, plain=plain, multirun=options.multirun)
    return 0


def _composed(options: argparse.Namespace, action: Callable[[Any], Any]) -> None:
    overrides, plain = _chosen(options)
    from dvc.cli_hydra import with_configuration

    with_configuration(action, [*overrides, "hydra.run.dir=."], config_dir=options.config_dir, plain=plain)


def _check(options: argparse.Namespace) -> int:
    passed = []

    def action(cfg: Any) -> None:
        from dvc.cli_hydra import check

        passed.append(check(cfg))

    _composed(options, action)
    return 0 if all(passed) else FAILED_CHECK


def _horizon(options: argparse.Namespace) -> int:
    try:
        horizons = None if options.horizons is None else [int(part) for part in options.horizons.split(",")]
    except ValueError as error:
        raise UserError(f"--horizons: expected whole numbers as 10,20,40, got {options.horizons!r}") from error

    def action(cfg: Any) -> None:
        from dvc.cli_hydra import horizon

        horizon(cfg, horizons, options.to)

    _composed(options, action)
    return 0


def _describe(options: argparse.Namespace) -> int:
    def action(cfg: Any) -> None:
        if options.config:
            from omegaconf import OmegaConf

            print(OmegaConf.to_yaml(cfg), end="")
            return
        from dvc.cli_hydra import describe

        describe(cfg, mermaid=options.mermaid)

    _composed(options, action)
    return 0


def _known_keys(options: argparse.Namespace) -> Iterable[str]:
    """All keys of the chosen experiment, for suggestions; none where it cannot be composed."""
    found: list[str] = []

    def action(cfg: Any) -> None:
        from omegaconf import OmegaConf

        from dvc.cli_hydra import keys

        found.extend(keys(OmegaConf.to_container(cfg, resolve=False)))

    chosen = [override for override in options.overrides if override.startswith("experiment=")]
    if chosen and "," in chosen[-1]:
        chosen = [chosen[-1].split(",")[0]]
    try:
        _composed(argparse.Namespace(overrides=chosen, config_dir=options.config_dir), action)
    except Exception:  # a suggestion less, no error more
        return []
    return found


def _list(options: argparse.Namespace) -> int:
    known = experiments(options.config_dir)
    if not known:
        print("no experiments")
    width = max(map(len, known), default=0)
    for name in known:
        try:
            claim = claim_of(name, known)
        except UserError as error:
            claim = f"(unreadable: {error})"
        columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
        lines = textwrap.wrap(claim, columns - width - 2) if columns > width + 30 else [claim]
        print(f"{name:<{width}}  " + ("\n" + " " * (width + 2)).join(lines))
    return 0


def _report(options: argparse.Namespace) -> int:
    from dvc.report import build_report
    from dvc.result import Result

    path = build_report(options.run_dir)
    print(Result.read(Path(options.run_dir) / "result.json").table())
    print(f"report: {path}")
    return 0


def _data(options: argparse.Namespace) -> int:
    from dvc import data

    if options.action == "fetch":
        for name in options.names or [item.name for item in data.items()]:
            print(f"{name}: {data.find(name)}")
        return 0
    if options.action is not None:
        raise UserError(f"data: expected `diffvc data` or `diffvc data fetch [NAME]`, got {options.action!r}")
    for row in data.status():
        name = row.item.name
        print(f"{name}: {row.path or row.problem or f'not on this machine; remedy: diffvc data fetch {name}'}")
        print(f"    {row.item.what}\n    {row.item.licence}, {row.item.url}")
    print("looked in: " + ", ".join(f"{label} ({folder})" for label, folder in data.folders()))
    return 0


def _render(options: argparse.Namespace) -> int:
    from dvc.cli_render import render

    render(options.scene, options.overrides)
    return 0


# -- parsing ----------------------------------------------------------------------------------------------------------
def _add_configuration(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="experiment=NAME and settings")
    _add_config_dir(parser)


def _add_config_dir(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config-dir", "-cd", type=Path, metavar="DIR", help="a folder with YAML files of your own")


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    _add_configuration(parser)
    parser.add_argument("--multirun", "-m", action="store_true", help="run every combination of comma-separated values")
    parser.epilog = _SETTINGS + _RUN_EXAMPLES


def _check_arguments(parser: argparse.ArgumentParser) -> None:
    _add_configuration(parser)
    parser.epilog = _SETTINGS + "\nexit status: 0 where every gradient agrees with finite differences, otherwise 1\n"


def _horizon_arguments(parser: argparse.ArgumentParser) -> None:
    _add_configuration(parser)
    parser.add_argument("--horizons", metavar="N,N,...", help="rising numbers of frames (default: eight, up to all)")
    parser.add_argument("--to", type=Path, default=Path("."), metavar="DIR", help="folder for horizon.csv and horizon.png")
    parser.epilog = _SETTINGS + "\nfor experiments whose phases have a horizon, such as pendulum_video\n"


def _describe_arguments(parser: argparse.ArgumentParser) -> None:
    _add_configuration(parser)
    parser.add_argument("--mermaid", action="store_true", help="print a Mermaid flowchart instead of a table")
    parser.add_argument("--config", action="store_true", help="print the composed settings as YAML instead")


def _report_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_dir", metavar="RUN_DIR", help="the folder of a finished run")


def _data_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", metavar="fetch", help="download what is not on this machine")
    parser.add_argument("names", nargs="*", metavar="NAME", help="items to fetch (default: all)")


def _render_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("scene", metavar="SCENE", help="a YAML file, or a scene of the package: cornell_box, textured")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings, see below")
    parser.epilog = _RENDER_SETTINGS


_COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], int], Callable[[argparse.ArgumentParser], None], str]] = {
    "run": (_run, _run_arguments, "run an experiment, print the recovered parameters and the path of the report"),
    "list": (_list, _add_config_dir, "list the experiments with their claims"),
    "check": (_check, _check_arguments, "compare every gradient of an experiment with finite differences"),
    "horizon": (_horizon, _horizon_arguments, "how the gradient grows with the horizon, and how far it can be trusted"),
    "describe": (_describe, _describe_arguments, "print the stages of an experiment and their wiring"),
    "render": (_render, _render_arguments, "render a scene file to PNG, EXR or NPZ"),
    "report": (_report, _report_arguments, "build report.html of a finished run anew"),
    "data": (_data, _data_arguments, "list the data items and where they lie; `diffvc data fetch [NAME]` downloads"),
}


def _usage() -> str:
    rows = "\n".join(f"  {name:<9} {text}" for name, (_, _, text) in _COMMANDS.items())
    return (
        "usage: diffvc COMMAND ...\n\nDifferentiable visual computing: geometry, physics and rendering in one graph "
        f"with gradients.\n\ncommands:\n{rows}\n\n`diffvc COMMAND --help` explains a command. "
        "Every command takes --traceback (or DIFFVC_TRACEBACK=1).\n\nfirst steps:\n"
        "  diffvc list\n  diffvc run experiment=pendulum_video\n"
    )


def _parsed(arguments: Sequence[str]) -> tuple[Callable[[argparse.Namespace], int], argparse.Namespace]:
    """The command and its options. Raises: SystemExit after --help and for wrong options, as argparse does."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage(), end="")
        raise SystemExit(0 if arguments else WRONG_INPUT)
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(f"diffvc {version('diffvc')}")
        raise SystemExit(0)
    name = arguments[0]
    if name not in _COMMANDS:
        raise UserError(f"no command {name!r}{nearest(name, _COMMANDS)}; known commands: {', '.join(_COMMANDS)}")
    command, add_arguments, text = _COMMANDS[name]
    parser = _Parser(prog=f"diffvc {name}", description=text, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    options = parser.parse_intermixed_args(list(arguments[1:]))
    return command, options


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; its exit status: 0, 1 (a check failed), 2 (an error, in one line on stderr) or 130 (interrupted)."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = argparse.Namespace(traceback=False, overrides=[], config_dir=None)
    try:
        command, options = _parsed(arguments)
        return command(options)
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else WRONG_INPUT
    except KeyboardInterrupt:
        print("diffvc: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # `diffvc list | head`: nobody reads on, and that is no error
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except Exception as error:
        if options.traceback or os.environ.get("DIFFVC_TRACEBACK", "0") not in ("", "0"):
            import traceback

            traceback.print_exc()
        print(f"diffvc: error: {one_line(error, lambda: _known_keys(options))}", file=sys.stderr)
        return WRONG_INPUT


def entry() -> None:
    """The console script."""
    warnings.formatwarning = lambda message, *place, **more: f"diffvc: warning: {' '.join(str(message).split())}\n"
    sys.exit(main())


if __name__ == "__main__":
    entry()
