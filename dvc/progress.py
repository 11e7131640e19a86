"""What a run shows while it works: a bar on a terminal, a plain line every ten seconds elsewhere, nothing when told so."""

import atexit
import sys
import time
from collections import deque
from collections.abc import Mapping
from typing import Any

_LINE_SECONDS = 10.0
_DRAW_SECONDS = 0.1
_PARAMETERS_AT_MOST = 4


def print_line(text: str) -> None:
    """Print a line; characters that the terminal's encoding lacks are replaced, never an error."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding), flush=True)


def duration_text(seconds: float) -> str:
    """Hours, minutes and seconds: 1:02:03, or 2:03."""
    minutes, rest = divmod(round(max(0.0, seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Progress:
    """A run's progress.

    Arguments:
        shown: False shows nothing (notes are still printed: they are what the user must know).
    The time left is that of the last half minute's pace: the steps of a run's phases differ in cost.
    """

    def __init__(self, *, shown: bool = True):
        self._shown, self._live = shown, shown and sys.stdout.isatty()
        self._bar: Any = None
        self._task: Any = None
        self._total: int | None = None
        self._drawn = self._line = -float("inf")
        self._pace: deque[tuple[float, int]] = deque(maxlen=300)
        self._undrawn: tuple[Any, ...] | None = None

    def total(self, steps: int | None) -> None:
        """How many steps there will be, of the whole run; it may end earlier."""
        self._total = steps
        if self._bar is not None:
            self._bar.update(self._task, total=steps)

    def step(self, step: int, loss: float, phase: str, parameters: Mapping[str, Any]) -> None:
        """Step number `step` (the first is 1) is done."""
        if not self._shown:
            return
        now = time.monotonic()
        wait, before = (_DRAW_SECONDS, self._drawn) if self._live else (_LINE_SECONDS, self._line)
        if now - before < wait and step != self._total:
            self._undrawn = (step, loss, phase, parameters)
            return
        self._drawn = self._line = now
        self._draw(now, step, loss, phase, parameters)

    def _draw(self, now: float, step: int, loss: float, phase: str, parameters: Mapping[str, Any]) -> None:
        self._undrawn = None
        self._pace.append((now, step))
        while len(self._pace) > 2 and now - self._pace[0][0] > 3 * _LINE_SECONDS:
            self._pace.popleft()
        text = "  ".join(
            f"{name} {value:.4g}"
            for name, value in list(parameters.items())[:_PARAMETERS_AT_MOST]
            if isinstance(value, (int, float))
        )
        if self._live:
            self._bar = self._bar or self._new_bar()
            self._bar.update(
                self._task, completed=step, description=phase, loss=f"{loss:.4g}", values=text, left=self._left(step)
            )
        else:
            of = f"/{self._total}" if self._total else ""
            print_line(f"step {step}{of}  {phase}  loss {loss:.4g}  {text}  ETA {self._left(step)}")

    def _left(self, step: int) -> str:
        (start, first), (end, last) = self._pace[0], self._pace[-1]
        if self._total is None or last <= first:
            return "-"
        return duration_text(max(0, self._total - step) * (end - start) / (last - first))

    def _new_bar(self) -> Any:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        columns = (
            TextColumn("{task.description}", markup=False, style="bold"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]}", markup=False),
            TextColumn("{task.fields[values]}", markup=False, style="dim"),
            TextColumn("ETA {task.fields[left]}", markup=False),
        )
        bar = Bar(*columns, console=Console(file=sys.stdout), refresh_per_second=8)
        self._task = bar.add_task("", total=self._total, loss="-", values="", left="-")
        bar.start()
        atexit.register(self.stop)  # a run that ends without a word would leave the cursor hidden
        return bar

    def note(self, text: str) -> None:
        """A line above the bar, whether or not progress is shown."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            print_line(text)

    def stop(self) -> None:
        """Show the last step and give the terminal back. May be called twice."""
        if self._undrawn is not None:
            self._draw(time.monotonic(), *self._undrawn)
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
            atexit.unregister(self.stop)
        self._live = False
