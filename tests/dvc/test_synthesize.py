"""Clips that a pipeline renders: they show the truth, leave the pipeline as it was, and fit it better than anything else."""

import numpy as np
import pytest
import torch
from torch import nn

from dvc import Parameter, Pipeline, UserError
from dvc.clip import Clip, plain_backdrop
from dvc.gradient_check import certified, check_parameters
from dvc.losses import MomentResidual, Objective, PixelResidual, Term
from dvc.records import Frames
from dvc.synthesize import render_clip

WIDTH, HEIGHT, COUNT = 96, 64, 8
LEVELS = ({"scale": 0.25, "pad": 8}, {"scale": 0.5})


class Dot(nn.Module):
    """A soft dot that moves with a speed [px/frame] over the plate, drawn at the film's resolution."""

    def forward(self, start, speed, glow, background, film, frames=None, seed=0):
        k = torch.arange(COUNT if frames is None else min(frames, COUNT)).float()
        x, y = ((start[:, i, None] + speed[:, i, None] * k)[..., None, None] for i in range(2))
        px = film.left + (torch.arange(film.columns) + 0.5) / film.scale
        py = (film.top + (torch.arange(film.rows) + 0.5) / film.scale)[:, None]
        amount = glow[:, None, None, None] * torch.exp(-((px - x) ** 2 + (py - y) ** 2) / (2 * 5.0**2))
        return Frames(background + amount[..., None] * torch.tensor([1.0, -0.4, -0.4]), background, film)


def toy() -> Pipeline:
    stages = {
        "clip": Clip(None, 3, 3 + COUNT, (16, 12, 88, 60), LEVELS, frame_rate=30.0, size=(WIDTH, HEIGHT)),
        "start": Parameter([30.0, 30.0], 0.0, 90.0),
        "speed": Parameter([2.0, 1.0], scale=3.0), "glow": Parameter(0.3, 0.0, 0.6),
        "known": Parameter(1.0, fixed=True), "picture": Dot(),
        "pixels": PixelResidual(sigma=0.01), "moments": MomentResidual(threshold=0.03, sigma=1.0),
    }  # fmt: skip
    film = {"background": "clip.background", "film": "clip.film", "frames": "$horizon", "seed": "$seed"}
    both = {"model": "picture", "observed": "clip"}
    return Pipeline(stages, {"clip": {"level": "$level", "frames": "$horizon"}, "pixels": both, "moments": both,
                             "picture": {"start": "start", "speed": "speed", "glow": "glow", **film}})  # fmt: skip


TRUTH = {"start": [35.0, 40.0], "speed": [4.5, -1.5], "glow": 0.4}
CONTEXT = {"seed": 0, "level": 1, "horizon": None}


def rendered(pipeline: Pipeline, **settings) -> np.ndarray:
    return render_clip(pipeline, TRUTH, context=CONTEXT, generator=torch.Generator().manual_seed(0), **settings)


def test_frames_show_the_truth_within_the_noise():
    pipeline = toy()
    video = rendered(pipeline, noise=0.01)
    assert video.shape == (COUNT, HEIGHT, WIDTH, 3) and video.dtype == np.uint8
    assert (video[:, :10].astype(float) - 255 * plain_backdrop(WIDTH, HEIGHT)[:10]).std() == pytest.approx(2.55, rel=0.1)
    clean = rendered(pipeline, noise=0.0).astype(float) - 255 * plain_backdrop(WIDTH, HEIGHT)
    red = np.clip(clean[..., 0], 3, None) - 3
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    centres = np.stack([(red * x).sum((1, 2)), (red * y).sum((1, 2))], -1) / red.sum((1, 2))[:, None]
    assert np.allclose(centres, np.array(TRUTH["start"]) + np.arange(COUNT)[:, None] * TRUTH["speed"], atol=0.1)


def test_the_pipeline_is_left_as_it_was():
    pipeline = toy()
    before = {n: p.raw.detach().clone() for n, p in pipeline.declared().items()}
    rendered(pipeline)
    assert all(torch.equal(before[n], p.raw) for n, p in pipeline.declared().items())
    assert not pipeline.stages["clip"].available and pipeline(["clip"], context=CONTEXT)["clip"].images.shape[1] == 1


def test_noise_is_repeatable():
    assert np.array_equal(rendered(toy(), noise=0.02), rendered(toy(), noise=0.02))


@pytest.mark.parametrize("level", [0, 1])
def test_the_truth_explains_the_clip_down_to_the_noise(level):
    pipeline = toy()
    pipeline.stages["clip"].load(rendered(pipeline, noise=0.01), stabilize=False)
    raw = {n: pipeline.declared()[n].to_raw(torch.tensor(v))[None] for n, v in TRUTH.items()}
    context = {**CONTEXT, "level": level}
    with torch.no_grad():
        at_truth = pipeline(["pixels", "moments"], context=context, raw=raw)
        elsewhere = pipeline(["pixels", "moments"], context=context)
    step = (4, 2)[level]
    # one film pixel is the mean of step^2 pixels with noise of 1 sigma each; eight bits and the plate add some
    assert 0.8 / step < at_truth["pixels"].std() < 2.0 / step
    assert at_truth["moments"].abs().max() < 0.5
    assert elsewhere["pixels"].pow(2).sum() > 10 * at_truth["pixels"].pow(2).sum()
    assert elsewhere["moments"].abs().max() > 3.0


@pytest.mark.parametrize("term", ["pixels", "moments"])
def test_certificate(term):
    pipeline = toy()
    pipeline.stages["clip"].load(rendered(pipeline), stabilize=False)
    rows = check_parameters(pipeline, Objective({"r": Term(term, robust=3.0)}), CONTEXT)
    assert [r.name for r in rows] == ["start[0]", "start[1]", "speed[0]", "speed[1]", "glow"] and certified(rows)


@pytest.mark.parametrize(("truth", "message"), [
    ({"sped": [1.0, 1.0]}, "expected the name of a parameter, got 'sped'"),
    ({"picture": 1.0}, "expected the name of a parameter, got 'picture'"),
    ({"glow": 0.7}, "truth of 'glow'"),
    ({"glow": float("nan")}, "truth of 'glow'"),
    ({"speed": 1.0}, "truth of 'speed'"),
])  # fmt: skip
def test_truths_that_are_refused(truth, message):
    with pytest.raises(UserError, match=message):
        render_clip(toy(), truth, context=CONTEXT)


def test_fixed_parameters_may_have_a_truth_of_their_own():
    assert render_clip(toy(), {"known": 2.0}, context=CONTEXT).shape[0] == COUNT
