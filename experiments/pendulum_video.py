"""A real pendulum's physics, recovered from its video, end to end.

Claim: length, losses at the wall, damping, wall angle, start, ball, shutter and camera of a pendulum that strikes a wall,
from the pixels of a hand-held phone clip. Command: `diffvc run experiment=pendulum_video`.

Definitions: `length` [m] from the pivot to the ball's centre; `speed_ratio`: geometric mean over strikes k = 2..9 of the
incoming normal speed at strike k + 1 over that at strike k, air included; `wall_angle` [rad]: signed angle of the string
from gravity at contact, positive towards the wall; `strike_times` [s] from the middle of the exposure of frame 0.
"""

import math
from collections.abc import Mapping
from typing import Any

from dvc.optimize import Fit
from dvc.result import Estimate, Metric
from dvc.video_fit import VideoFit


class SwingReadout:
    """Strike times and counts, from the stage named `strikes`. Arguments: least: strikes that the window must hold."""

    def __init__(self, strikes: str = "strikes", least: int = 10):
        self.strikes, self.least = strikes, int(least)

    def __call__(self, task: VideoFit, recorder: Any, fit: Fit, estimates: Mapping[str, Estimate]) -> dict[str, Metric]:
        found = task.outputs([self.strikes])[self.strikes]
        count = int(found.number[0])
        if count < self.least:
            recorder.note(f"strikes: expected at least {self.least} in the fitted window, got {count}; remedy: a longer window")
        if count == 0:
            return {"strikes": Metric(0, "1", f">= {self.least}", self.least == 0)}
        times, speeds = found.times[0, :count], found.speeds[0, :count]
        recorder.save_table(
            "strikes",
            ["strike", "time_s", "incoming_speed_m_s"],
            [[k + 1, f"{t:.5f}", f"{v:.5f}"] for k, (t, v) in enumerate(zip(times.tolist(), speeds.tolist(), strict=True))],
        )
        metrics = {
            "strike_times": Metric(times.tolist(), "s"),
            "strikes": Metric(count, "1", f">= {self.least}", count >= self.least),
        }
        ratio = float(found.speed_ratio[0])
        return metrics | ({"speed_ratio": Metric(ratio, "1")} if math.isfinite(ratio) else {})
