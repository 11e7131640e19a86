"""A thrown ball in front of a camera with known pixels per metre: gravity, start and velocity from the pixels.

Claim: the stages of the pendulum, wired by another YAML, recover g. Command: `diffvc run experiment=projectile_video`. The
clip is rendered by the pipeline itself; with a clip of your own, set `clip=FILE`, the window, the size of the frame and
`pixels_per_metre`.
"""

from collections.abc import Mapping
from typing import Any

import torch

from dvc.optimize import Fit
from dvc.result import Estimate, Metric
from dvc.video_fit import VideoFit


class FlightReadout:
    """Highest point of the flight, and how far gravity is from the truth where the clip was rendered.

    Arguments: tolerance: largest relative error of gravity on a clip with known truth.
    """

    def __init__(self, tolerance: float = 0.01):
        self.tolerance = float(tolerance)

    def __call__(self, task: VideoFit, recorder: Any, fit: Fit, estimates: Mapping[str, Estimate]) -> dict[str, Metric]:
        motion = task.outputs([task.names["motion"]])[task.names["motion"]]
        height = motion.positions[0, :, 2]
        top = int(torch.argmax(height))
        metrics = {
            "apex_height": Metric(float(height[top]), "m"),
            "apex_time": Metric(motion.start + top * motion.interval, "s"),
        }
        truth = task.rendered.get("truth", {}).get("gravity")
        if truth is not None and not task.clip.available:
            error = abs(float(estimates["gravity"].value) / float(truth) - 1.0)  # type: ignore[arg-type]
            metrics["gravity_error"] = Metric(error, "1", f"< {self.tolerance}", error < self.tolerance)
        return metrics
