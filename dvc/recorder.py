"""`Recorder`: what a run leaves behind in its directory, and what it shows while it works.

The directory holds `config.yaml`, `run.log` (notes), `metrics.jsonl` (one line a step, on the disk as soon as it is known),
`checkpoints/`, what the task saves (tables, arrays, images, videos) and, once finished, `result.json`, `pipeline.txt`,
`pipeline.mmd`, plots and `report.html`. A line of `metrics.jsonl` is
{"step", "phase", "loss", "parameters": {name: value}, ...} and holds nothing that depends on the clock, so that a run that
was interrupted and resumed leaves the same file as one that was not. A number that is not finite is written as null.
"""

import contextlib
import csv
import io
import json
import math
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dvc.atomic_file import write_error, write_file
from dvc.checkpoint import load_checkpoint, save_checkpoint
from dvc.errors import UserError
from dvc.progress import Progress
from dvc.result import Result
from dvc.wandb_log import WandbLog

CHECKPOINTS = "checkpoints"
_INTERRUPTED_SECONDS = 3.0  # how long a run that ends without a result waits for wandb's last rows
_SAVED = "saved.txt"  # names of what the task saved, so that a new run in the same directory removes that and nothing else
_OWN_FILES = ("metrics.jsonl", "run.log", "result.json", "report.html", "pipeline.txt", "pipeline.mmd", _SAVED)
_OWN_PLOTS = ("loss.png", "parameters.png", "angles.png")


def _plain(value: Any) -> Any:
    """Plain Python values for JSON and YAML; numbers that are not finite become None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


def _plain_config(config: Any) -> dict[str, Any]:
    if type(config).__module__.startswith("omegaconf"):
        from omegaconf import OmegaConf

        config = OmegaConf.to_container(config, resolve=True)
    if not isinstance(config, Mapping):
        raise UserError(f"config: expected settings by name, got {type(config).__name__}")
    return _plain(config)


class Recorder:
    """Writes a run's directory and shows its progress.

    Arguments:
        directory: created when missing. Without `resume`, what an earlier run left there is removed.
        config: the run's settings (a Mapping, or OmegaConf's).
        wandb: "offline", "online" (offline without a login) or "disabled".
        show_progress: a bar on a terminal, a line every ten seconds elsewhere; False: neither.
        resume: go on from the last good checkpoint, if there is one: see `restored`.
    Raises: UserError when the directory cannot be written.

    `restored` is the state of the checkpoint that the run goes on from, or None. A recorder is also a context manager: it
    gives the terminal back when the run ends, in whatever way.
    """

    def __init__(
        self,
        directory: Path | str,
        config: Mapping[str, Any],
        *,
        wandb: str = "offline",
        show_progress: bool = True,
        resume: bool = False,
    ):
        self.directory = Path(directory).absolute()
        self.restored: dict[str, Any] | None = None
        self._progress = Progress(shown=show_progress)
        self._closed = self._wandb_ended = False
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise write_error(self.directory, error) from error
        plain = _plain_config(config)
        kept = self._restore() if resume else self._start_afresh()
        self._metrics = self._open_metrics(kept)
        self._write_config(plain)
        self._wandb = WandbLog(self.directory, plain, wandb, self.note)

    # -- start --------------------------------------------------------------------------------------------------------
    def _start_afresh(self) -> int:
        if not (self.directory / "metrics.jsonl").exists():
            return 0
        try:
            saved = self.directory / _SAVED
            names = saved.read_text(encoding="utf-8").splitlines() if saved.exists() else []
            for name in {*_OWN_FILES, *_OWN_PLOTS, *(Path(name).name for name in names if name)}:
                (self.directory / name).unlink(missing_ok=True)
            shutil.rmtree(self.directory / CHECKPOINTS, ignore_errors=True)
        except OSError as error:
            raise write_error(self.directory, error) from error
        self.note(f"{self.directory} held an earlier run; it is replaced")
        return 0

    def _restore(self) -> int:
        """Load the checkpoint; how many bytes of `metrics.jsonl` belong to the steps before it."""
        content = load_checkpoint(self.directory / CHECKPOINTS, self.note)
        if content is None:
            self.note(f"no checkpoint in {self.directory}: the run starts from its beginning")
            return 0
        if not {"state", "metrics_bytes"} <= content.keys():
            raise UserError(f"{self.directory / CHECKPOINTS}: not the checkpoint of a run; remedy: start the run afresh")
        self.restored = content["state"]
        return int(content["metrics_bytes"])

    def _open_metrics(self, kept: int) -> int:
        """A file descriptor at the end of the lines to keep. Unbuffered: each line is one write."""
        path = self.directory / "metrics.jsonl"
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            size = os.fstat(handle).st_size
            if size < kept:
                self.note(f"{path} is shorter than at the checkpoint: its last steps are missing")
            os.ftruncate(handle, min(kept, size))
            os.lseek(handle, 0, os.SEEK_END)
        except OSError as error:
            raise write_error(path, error) from error
        self._metrics_size = min(kept, size)
        return handle

    def _write_config(self, plain: dict[str, Any]) -> None:
        import yaml

        write_file(self.directory / "config.yaml", yaml.safe_dump(plain, sort_keys=False, allow_unicode=True))

    # -- while it runs ------------------------------------------------------------------------------------------------
    def total(self, steps: int | None) -> None:
        """How many steps the whole run will have, those before a resume included."""
        self._progress.total(steps)

    def step(self, step: int, loss: float, phase: str, parameters: Mapping[str, Any], **scalars: Any) -> None:
        """Record a step that is done.

        Arguments:
            step: its number in the whole run, the first is 1, never going back.
            loss, phase: its loss, and the name of the phase that it belongs to.
            parameters: name -> value in its unit; a number, or a list.
            scalars: more numbers of this step.
        Raises: UserError when the disk is full.
        """
        numbers, extra, loss = _plain(parameters), _plain(scalars), float(loss)
        row = {"step": int(step), "phase": phase, "loss": _plain(loss), "parameters": numbers, **extra}
        self._append((json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n").encode())
        self._progress.step(int(step), loss, phase, numbers)
        self._wandb.row(int(step), {"loss": row["loss"], "phase": phase, **numbers, **extra})

    def _append(self, line: bytes) -> None:
        """Write one line, all of it or nothing of it."""
        try:
            written = os.write(self._metrics, line)
            while written < len(line):  # a short write is how a full disk announces itself; the next one raises
                written += os.write(self._metrics, line[written:])
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._metrics, self._metrics_size)
            raise write_error(self.directory / "metrics.jsonl", error, "the steps before this one are kept") from error
        self._metrics_size += len(line)

    def note(self, text: str) -> None:
        """A line to the terminal and to `run.log`."""
        self._progress.note(text)
        with contextlib.suppress(OSError), open(self.directory / "run.log", "a", encoding="utf-8") as file:
            file.write(text + "\n")

    def checkpoint(self, state: dict[str, Any]) -> Path:
        """Save what a resumed run needs: tensors, numbers, text, and lists, tuples and dicts of them.

        It stands for the steps recorded so far: a run resumed from it drops later lines of `metrics.jsonl`.
        Raises: UserError when the disk is full (the last good checkpoint stays readable) or a value cannot be saved.
        """
        with contextlib.suppress(OSError):
            os.fsync(self._metrics)
        return save_checkpoint(self.directory / CHECKPOINTS, {"metrics_bytes": self._metrics_size, "state": state})

    # -- what a task saves --------------------------------------------------------------------------------------------
    def _path(self, name: str, suffix: str) -> Path:
        if not name or "/" in name or "\\" in name or name.startswith("."):
            raise UserError(f"file name: expected a plain name, got {name!r}")
        name = name if name.endswith(suffix) else name + suffix
        with contextlib.suppress(OSError), open(self.directory / _SAVED, "a", encoding="utf-8") as file:
            file.write(name + "\n")
        return self.directory / name

    def save_table(self, name: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
        """Write NAME.csv. Raises: UserError for a row whose length is not the header's."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(header)
        for index, row in enumerate(rows):
            if len(row) != len(header):
                raise UserError(f"table {name!r}, row {index}: expected {len(header)} cells, got {len(row)}")
            writer.writerow([cell.item() if hasattr(cell, "item") else cell for cell in row])
        return write_file(self._path(name, ".csv"), text.getvalue())

    def save_arrays(self, name: str, **arrays: Any) -> Path:
        """Write NAME.npz from arrays or tensors. `angles` with time, model and, at will, observed and strikes is plotted."""
        import numpy as np

        content = io.BytesIO()
        plain = {key: np.asarray(a.detach().cpu() if hasattr(a, "detach") else a) for key, a in arrays.items()}
        np.savez_compressed(content, **plain)  # type: ignore[arg-type]
        return write_file(self._path(name, ".npz"), content.getvalue())

    def save_video(self, name: str, frames: Any, fps: float) -> Path:
        """Write NAME.mp4 from frames, uint8 RGB, shape (frame, height, width, 3). `overlay` leads the report."""
        from dvc.video import write_video

        return write_video(self._path(name, ".mp4"), frames, fps)

    def save_image(self, name: str, array: Any) -> Path:
        """Write NAME.png; it is shown in the report.

        array: shape (height, width) or (height, width, 3), RGB; uint8, or numbers of which [0, 1] is shown.
        """
        import cv2
        import numpy as np

        image = np.asarray(array.detach().cpu() if hasattr(array, "detach") else array)
        if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3) or 0 in image.shape:
            raise UserError(f"image {name!r}: expected shape (height, width) or (height, width, 3), got {image.shape}")
        if image.dtype != np.uint8:
            if not np.isfinite(image).all():
                raise UserError(f"image {name!r}: expected finite numbers, got {np.count_nonzero(~np.isfinite(image))} others")
            image = (np.clip(image, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
        good, content = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1] if image.ndim == 3 else image))
        if not good:
            raise UserError(f"image {name!r}: could not be written as PNG, shape {image.shape}")
        return write_file(self._path(name, ".png"), content.tobytes())

    # -- end ----------------------------------------------------------------------------------------------------------
    def finish(self, result: Result, pipeline: Any = None) -> Path:
        """Write `result.json`, the plots and `report.html`; the path of the report.

        pipeline: a `Pipeline`; its table, its graph and its parameters' bounds and units go into the report.
        """
        from dvc.plots import plot_run
        from dvc.report import build_report

        self._progress.stop()
        result.write(self.directory / "result.json")
        self._wandb.end(_scalars(result))
        bounds, units = {}, {name: estimate.unit for name, estimate in result.parameters.items()}
        if pipeline is not None:
            write_file(self.directory / "pipeline.txt", pipeline.describe() + "\n")
            write_file(self.directory / "pipeline.mmd", pipeline.mermaid() + "\n")
            for name, parameter in pipeline.declared().items():
                bounds[name] = (_plain(parameter.lower), _plain(parameter.upper))
                units.setdefault(name, parameter.unit)
        try:
            plot_run(self.directory, bounds, units)
        except OSError as error:
            raise write_error(self.directory, error) from error
        report = build_report(self.directory)
        self._wandb.join()
        self._wandb_ended = True
        self.close()
        return report

    def close(self, *, failed: bool = False) -> None:
        """Give the terminal back and close the files. `finish` does it; call it when a run ends without a result."""
        if self._closed:
            return
        self._closed = True
        self._progress.stop()
        if not self._wandb_ended:
            self._wandb.end(exit_code=int(failed))
            self._wandb.join(_INTERRUPTED_SECONDS)
        with contextlib.suppress(OSError):
            os.close(self._metrics)

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        self.close(failed=kind is not None)


def _scalars(result: Result) -> dict[str, float]:
    """The single numbers of a result, for wandb's summary."""
    values = {name: estimate.value for name, estimate in result.parameters.items()}
    values |= {f"metric/{name}": metric.value for name, metric in result.metrics.items()}
    return {name: value for name, value in values.items() if not isinstance(value, list)}
