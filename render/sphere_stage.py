"""`SphereRender`: the stage that turns a trajectory of a ball into the frames of a clip."""

import torch
from torch import Tensor, nn

from dvc.errors import UserError
from dvc.records import Camera, Film, Frames, Shutter, Trajectory, expand_worlds, world_count
from render.camera import require_undistorted
from render.sphere import render_sphere


def frame_windows(trajectory: Trajectory) -> tuple[Tensor, Tensor, Tensor]:
    """Nodes each frame may see: its own and half a frame on either side.

    Returns positions (world, frame, node, 3), impact fractions (world, frame, node - 1) and impact positions
    (..., node - 1, 3); node `substeps` of a window is the middle of its exposure. Before the first and after the last
    node the motion is continued in a straight line.
    """
    n, margin = trajectory.substeps, trajectory.substeps // 2
    x = trajectory.positions
    steps = torch.arange(margin, 0, -1, device=x.device, dtype=x.dtype)[None, :, None]
    before = x[:, :1] - steps * (x[:, 1:2] - x[:, :1])
    after = x[:, -1:] + steps.flip(1) * (x[:, -1:] - x[:, -2:-1])
    nodes = torch.cat([before, x, after], dim=1).unfold(1, n + 2 * margin + 1, n).transpose(2, 3)
    none = trajectory.impact_fraction.new_full((x.shape[0], margin), -1.0)
    fraction = torch.cat([none, trajectory.impact_fraction, none], dim=1).unfold(1, n + 2 * margin, n)
    zero = trajectory.impact_position.new_zeros(x.shape[0], margin, 3)
    impact = torch.cat([zero, trajectory.impact_position, zero], dim=1).unfold(1, n + 2 * margin, n).transpose(2, 3)
    return nodes, fraction, impact


class SphereRender(nn.Module):
    """Renders a ball over a background plate.

    Arguments: exposure_samples: per-sample times a frame.
    Forward: trajectory; radius [m] (world,); camera; shutter; background (row, column, 3) and film from the clip;
        color, cap_color (world, 3): albedo of the ball and of its pole towards the pivot; light (world, 3): direction
        towards the light, world axes (normalised here); ambient (world,) in [0, 1]; blur (world,): standard deviation
        of the lens and of the codec [px of the full frame]; seed: 0 for strata middles, else random times per seed.
    Returns: Frames with images (world, frame, row, column, 3).
    Gradient: see `render.sphere_sample`; complete for one ball that nothing hides.
    Raises: Unsupported for a camera with distortion or two focal lengths.
    """

    def __init__(self, exposure_samples: int = 8):
        super().__init__()
        if exposure_samples < 1:
            raise UserError(f"SphereRender.exposure_samples: expected at least 1, got {exposure_samples}")
        self.exposure_samples = int(exposure_samples)

    def forward(
        self,
        trajectory: Trajectory,
        radius: Tensor,
        camera: Camera,
        shutter: Shutter,
        background: Tensor,
        film: Film,
        color: Tensor,
        light: Tensor,
        ambient: Tensor,
        blur: Tensor,
        cap_color: Tensor | None = None,
        seed: int = 0,
    ) -> Frames:
        require_undistorted("SphereRender.camera", camera)
        nodes, fraction, impact = frame_windows(trajectory)
        cap = color if cap_color is None else cap_color
        towards_light = light / torch.linalg.norm(light, dim=-1, keepdim=True)
        per_world = [
            radius,
            camera.position,
            camera.rotation,
            camera.focal,
            camera.center,
            shutter.exposure,
            shutter.readout,
            blur,
            color,
            cap,
        ]
        worlds = world_count(nodes, *per_world, towards_light, ambient)
        frames = trajectory.frame_count

        def views(value: Tensor, frame_axis: bool = False) -> Tensor:
            value = expand_worlds(value, worlds)
            return (value if frame_axis else value[:, None].expand(worlds, frames, *value.shape[1:])).flatten(0, 1)

        middle = nodes[:, :, trajectory.substeps]
        axis = -middle / torch.sqrt((middle * middle).sum(-1, keepdim=True) + 1e-12)
        axis = expand_worlds(axis, worlds).flatten(0, 1)
        # each frame has its own stream; worlds share it, so that differences between worlds are free of its noise
        streams = (torch.arange(frames, dtype=torch.int64) + 1) * 7919 + int(seed) * 104729
        seeds = (streams % 2147483629 + 1 if seed else torch.zeros(frames)).to(nodes.device, torch.int32).repeat(worlds)
        images = render_sphere(
            *(expand_worlds(t, worlds).flatten(0, 1) for t in (nodes, fraction, impact)),
            views(radius), views(camera.position, camera.position.dim() == 3),
            views(camera.rotation, camera.rotation.dim() == 4),
            *(views(t) for t in per_world[3:]), axis, views(towards_light), views(ambient), seeds, background,
            torch.tensor([[film.left, film.top]], device=nodes.device),
            orthographic=camera.orthographic, samples=self.exposure_samples, frame_size=(float(film.width), float(film.height)),
            frame_nodes=float(trajectory.substeps), interval=trajectory.interval, middle=float(trajectory.substeps),
            step=1.0 / film.scale,
        )  # fmt: skip
        return Frames(images.unflatten(0, (worlds, frames)), background, film)
