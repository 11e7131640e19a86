"""Clips that a pipeline renders itself: for a first try without data, and to test what a fit claims."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dvc.clip import Band, Clip
from dvc.errors import UserError
from dvc.parameter import Parameter
from dvc.pipeline import Pipeline

TRUE_EXPOSURE_SAMPLES = 32  # a clip's own blur is finer than what a fit needs
BAND_ROWS = 64


@torch.no_grad()
def render_clip(
    pipeline: Pipeline,
    truth: Mapping[str, Any],
    *,
    clip: str = "clip",
    picture: str = "picture",
    context: Mapping[str, Any],
    noise: float = 0.01,
    seed: int = 1,
    generator: torch.Generator | None = None,
) -> np.ndarray:
    """Frames of the window, uint8 (frame, row, column, 3), as the pipeline sees the true parameters, with pixel noise.

    Arguments: truth: physical values by parameter; parameters that are not named keep their first guess. context: as for
    the pipeline; its level and horizon are replaced. noise: standard deviation of a pixel value, in [0, 1]. The
    pipeline's parameters are left as they were.
    """
    stage = pipeline.stages[clip]
    assert isinstance(stage, Clip)
    raw: dict[str, Tensor] = {}
    for name, value in truth.items():
        parameter = dict(pipeline.stages.items()).get(name)
        if not isinstance(parameter, Parameter):
            raise UserError(
                f"truth: expected the name of a parameter, got {name!r}; parameters: {', '.join(pipeline.declared())}"
            )
        physical = torch.as_tensor(value, dtype=torch.float32)
        raw[name] = parameter.to_raw(physical)[None]
        if tuple(physical.shape) != parameter.shape or not torch.allclose(
            parameter.to_value(raw[name])[0], physical, rtol=1e-3, atol=1e-6
        ):
            raise UserError(f"truth of {name!r}: expected shape {parameter.shape}, within its bounds, got {value}")
    renderer: Any = pipeline.stages[picture]
    usual = getattr(renderer, "exposure_samples", None)
    if usual is not None:
        renderer.exposure_samples = TRUE_EXPOSURE_SAMPLES
    count = stage.last - stage.first
    frames = np.empty((count, stage.height, stage.width, 3), np.uint8)
    try:
        for top in range(0, stage.height, BAND_ROWS):  # in bands, so that no more than one is in memory as floats
            band = Band(top, min(top + BAND_ROWS, stage.height))
            whole = {**context, "level": band, "horizon": count, "seed": seed}
            images = pipeline([picture], context=whole, raw=raw)[picture].images[0]
            for frame, image in zip(frames, images, strict=True):
                noisy = 255.0 * (image + noise * torch.randn(image.shape, generator=generator))
                frame[band.top : band.bottom] = (noisy + 0.5).clamp(0, 255).to(torch.uint8).numpy()
    finally:
        if usual is not None:
            renderer.exposure_samples = usual
    return frames
