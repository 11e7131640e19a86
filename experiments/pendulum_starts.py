"""Do random starts from a wide box reach the same answer?

The exploration of `pendulum_video` is carried through the whole window with every start, and the starts are compared with
the best one: length within 3 %, speed ratio within 0.015, wall angle within 0.008 rad. Command:
`diffvc run experiment=pendulum_starts`. Expected: at least 8 of 10 agree.
"""

from collections.abc import Mapping
from typing import Any

import torch

from dvc.optimize import Fit
from dvc.result import Estimate, Metric
from dvc.video_fit import VideoFit


class StartsReadout:
    """Counts the starts that agree with the best. Arguments: the tolerances, and how many must agree."""

    def __init__(self, length: float = 0.03, speed_ratio: float = 0.015, wall_angle: float = 0.008, least: int = 8):
        self.length, self.speed_ratio, self.wall_angle, self.least = length, speed_ratio, wall_angle, int(least)

    def __call__(self, task: VideoFit, recorder: Any, fit: Fit, estimates: Mapping[str, Estimate]) -> dict[str, Metric]:
        x = fit.x if fit.explored is None else fit.explored
        losses = fit.loss if fit.explored_loss is None else fit.explored_loss
        with torch.no_grad():
            out = task.pipeline(["length", "wall_angle", "strikes"], context=task.context, raw=task.vector.split(x))
        ratio = out["strikes"].speed_ratio
        best = int(torch.argmin(losses))
        near = (out["length"] / out["length"][best] - 1.0).abs() < self.length
        near &= (out["wall_angle"] - out["wall_angle"][best]).abs() < self.wall_angle
        near &= (ratio - ratio[best]).abs() < self.speed_ratio  # NaN (too few strikes) does not agree
        rows = zip(
            out["length"].tolist(), ratio.tolist(), out["wall_angle"].tolist(), losses.tolist(), near.tolist(), strict=True
        )
        recorder.save_table(
            "starts",
            ["start", "length_m", "speed_ratio", "wall_angle_rad", "loss", "agrees"],
            [[i, f"{a:.4f}", f"{b:.4f}", f"{c:.4f}", f"{d:.2f}", int(e)] for i, (a, b, c, d, e) in enumerate(rows)],
        )
        count = int(near.sum())
        return {
            "starts": Metric(len(x), "1"),
            "starts_agreeing": Metric(count, "1", f">= {self.least}", count >= self.least),
        }
