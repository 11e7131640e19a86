"""Checkpoints that survive a full disk, a crash while writing and a damaged file.

`last.pt` is the newest one and `previous.pt` the one before. A new one is written beside them and takes its name over
only once it is on the disk, so that at every moment one good checkpoint can be read. The files are those of `torch.save`
and are read with `weights_only=True`: tensors and plain Python values, no code. Each is a zip archive whose checksums
are compared before it is used (torch itself does not compare them).
"""

import contextlib
import errno
import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dvc.atomic_file import replacing, write_error
from dvc.errors import UserError

LAST, PREVIOUS = "last.pt", "previous.pt"


def _refuse_unreadable(value: Any, name: str) -> None:
    """A checkpoint that could not be read back is refused before it is written."""
    import torch

    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, (str, int, float, bool, tuple)):
                raise UserError(f"checkpoint: {name} has a key of type {type(key).__name__}; expected text or a number")
            _refuse_unreadable(item, f"{name}[{key!r}]")
    elif isinstance(value, (list, tuple)) and type(value) in (list, tuple, torch.Size):
        for index, item in enumerate(value):
            _refuse_unreadable(item, f"{name}[{index}]")
    elif not (value is None or type(value) in (bool, int, float, str) or isinstance(value, (torch.Tensor, torch.dtype))):
        raise UserError(
            f"checkpoint: {name} is of type {type(value).__name__}; expected tensors, numbers, text, lists, tuples and dicts; "
            "remedy: convert it with torch.as_tensor, float() or str()"
        )


def save_checkpoint(directory: Path | str, state: dict[str, Any]) -> Path:
    """Write `last.pt`; the one that was there becomes `previous.pt`.

    Arguments:
        directory: where the two files live; created when missing.
        state: tensors, numbers, text, and lists, tuples and dicts of them.
    Raises: UserError for a value that could not be read back, or when the disk is full or cannot be written; the last good
        checkpoint then stays readable and no temporary file is left.
    """
    import torch

    path = Path(directory) / LAST
    _refuse_unreadable(state, "state")
    content = io.BytesIO()
    torch.save(state, content)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            with open(temporary, "wb") as file:
                file.write(content.getbuffer())
                file.flush()
                os.fsync(file.fileno())
            _keep_as_previous(path)
    except OSError as error:
        kept = "the last good checkpoint stays readable" if path.exists() else "no checkpoint has been written"
        raise write_error(path, error, kept) from error
    return path


def _keep_as_previous(path: Path) -> None:
    """Give the present checkpoint its second name. With a hard link `last.pt` never misses; without, it does for a moment."""
    if not path.exists():
        return
    previous, link = path.with_name(PREVIOUS), path.with_name(f".{PREVIOUS}.{os.getpid()}.tmp")
    try:
        link.unlink(missing_ok=True)
        os.link(path, link)
        os.replace(link, previous)
    except OSError as error:
        with contextlib.suppress(OSError):
            link.unlink()
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV):
            raise
        os.replace(path, previous)


def read_checkpoint(path: Path | str) -> dict[str, Any]:
    """One checkpoint file, tensors on the CPU. Raises: UserError when it is missing or damaged."""
    import torch

    path = Path(path)
    if not path.is_file():
        raise UserError(f"no checkpoint at {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise UserError(f"checkpoint {path} is damaged: the checksum of {damaged} differs")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, zipfile.BadZipFile, RuntimeError, EOFError, pickle.UnpicklingError, ValueError, KeyError) as error:
        if isinstance(error, UserError):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"checkpoint {path} is damaged or no checkpoint: {reason}") from error
    if not isinstance(state, dict):
        raise UserError(f"checkpoint {path}: expected a dict, got {type(state).__name__}")
    return state


def load_checkpoint(directory: Path | str, note: Callable[[str], None] | None = None) -> dict[str, Any] | None:
    """The newest good checkpoint of a run, or None when there is none at all.

    Arguments:
        directory: where `last.pt` and `previous.pt` live.
        note: told in one line when `last.pt` could not be used and `previous.pt` was.
    Raises: UserError when there are checkpoints and none can be read.
    """
    paths = [Path(directory) / name for name in (LAST, PREVIOUS)]
    problems: list[str] = []
    for path in paths:
        if not path.exists():
            continue
        try:
            state = read_checkpoint(path)
        except UserError as error:
            problems.append(str(error))
            continue
        if problems and note is not None:
            note(f"{problems[0]}; going on from {path.name}")
        return state
    if problems:
        raise UserError(f"no readable checkpoint in {directory}: {'; '.join(problems)}; remedy: start the run afresh")
    return None
