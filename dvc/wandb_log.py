"""Weights & Biases, kept from ever blocking or ending a run.

Importing wandb and starting its service takes two seconds and each row about a millisecond, so all of it happens in one
background thread that is fed by a queue. What goes wrong there is told in one line and otherwise ignored. Without a login
`wandb.init` asks on the terminal, so whether there is one is decided before it is called.
"""

import contextlib
import netrc
import os
import queue
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from dvc.errors import UserError

MODES = ("offline", "online", "disabled")
_SERVER_SECONDS = 10  # after which a server that does not answer is given up, and the run logged offline
_LAST_SECONDS = {"offline": 10.0, "online": 60.0}  # how long the end of a run waits for the last rows to be written or sent


def has_login() -> bool:
    """Whether an API key is at hand: in the environment or in the netrc file that `wandb login` writes."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    own = os.environ.get("WANDB_BASE_URL")
    hosts = [urlsplit(own).netloc] if own else ["api.wandb.ai", "api.forge.coreweave.com"]  # the service has had both names
    named = os.environ.get("NETRC")
    for path in [Path(named)] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]:
        with contextlib.suppress(OSError, netrc.NetrcParseError):
            entries = netrc.netrc(path)
            if any(entries.authenticators(host) for host in hosts):
                return True
    return False


class WandbLog:
    """A run's rows and summary, sent to wandb from a background thread.

    Arguments:
        directory: the run's directory; wandb's files go to its folder `wandb`.
        config: the run's settings, plain values.
        mode: "offline", "online" or "disabled"; "online" without a login becomes "offline", said in a line.
        note: told what went wrong, one line each; called from the background thread too.
    The environment variable WANDB_MODE=disabled switches it off.
    """

    def __init__(self, directory: Path, config: Mapping[str, Any], mode: str, note: Callable[[str], None]):
        if mode not in MODES:
            raise UserError(f"wandb: expected one of {', '.join(MODES)}, got {mode!r}")
        if os.environ.get("WANDB_MODE") == "disabled":
            mode = "disabled"
        if mode == "online" and not has_login():
            note("wandb: no login found, logging offline; remedy: run `wandb login`, or set WANDB_API_KEY")
            mode = "offline"
        self.mode, self._directory, self._config, self._note = mode, directory, dict(config), note
        self._queue: queue.SimpleQueue[tuple[str, Any, int]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        if mode != "disabled":
            self._thread = threading.Thread(target=self._work, name="wandb", daemon=True)
            self._thread.start()

    def row(self, step: int, values: Mapping[str, Any]) -> None:
        """One row of the history; returns at once."""
        if self._thread is not None:
            self._queue.put(("row", values, step))

    def end(self, summary: Mapping[str, float] | None = None, exit_code: int = 0) -> None:
        """No more rows; returns at once. `join` waits for it."""
        if self._thread is not None:
            self._queue.put(("end", dict(summary or {}), exit_code))

    def join(self, seconds: float | None = None) -> None:
        """Wait until everything is written (at most 10 s) or, online, sent (at most 60 s); later is said in a line."""
        if self._thread is not None:
            self._thread.join(_LAST_SECONDS[self.mode] if seconds is None else seconds)
            if self._thread.is_alive():
                self._note("wandb: still busy, not waited for; the last rows may be missing there")

    # -- in the background --------------------------------------------------------------------------------------------
    def _start(self) -> Any:
        import wandb

        settings = wandb.Settings(
            silent=True, console="off", disable_git=True, save_code=False, x_disable_stats=True, init_timeout=_SERVER_SECONDS
        )
        options: dict[str, Any] = {
            "dir": str(self._directory),
            "project": "diffvc",
            "name": self._directory.name,
            "config": self._config,
        }
        if self.mode == "online":
            try:
                return wandb.init(mode="online", settings=settings, **options)
            except Exception as error:
                self._note(f"wandb: the server cannot be used ({_one_line(error)}), logging offline")
                self.mode = "offline"
        return wandb.init(mode="offline", settings=settings, **options)

    def _work(self) -> None:
        # wandb is a convenience: whatever it raises must not end a run, so every kind of error is caught, and told
        try:
            files = self._directory / "wandb"
            files.mkdir(exist_ok=True)
            for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR"):
                os.environ.setdefault(name, str(files / "cache"))
            os.environ.setdefault("WANDB_SILENT", "true")
            run = self._start()
        except Exception as error:
            self._note(f"wandb: switched off ({_one_line(error)})")
            return
        try:
            while True:
                kind, values, number = self._queue.get()
                if kind == "end":
                    run.summary.update(values)
                    run.finish(exit_code=number)
                    return
                run.log(dict(values), step=number)
        except Exception as error:
            self._note(f"wandb: stopped logging ({_one_line(error)})")


def _one_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
