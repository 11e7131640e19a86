"""Where a body's centre is seen in each frame: the mean over its exposure, at the time when its pixel is read out."""

import torch
from torch import Tensor, nn

from dvc.records import Camera, Film, Shutter, Trajectory, expand_worlds, world_count
from render.camera import project
from render.sphere_stage import frame_windows

READOUT_ITERATIONS = 8  # each shrinks the error by the readout times the speed, in frames: a tenth for a fast ball


class CentreTrack(nn.Module):
    """trajectory, camera, shutter, film -> pixels of the full frame, (world, frame, 2).

    The readout skew makes the time depend on the pixel: solved by fixed-point iteration (the skew is small against the
    time in which the body crosses the frame). Positions are linear between nodes. Arguments: samples: times an exposure.
    """

    def __init__(self, samples: int = 9):
        super().__init__()
        self.samples = int(samples)

    def forward(self, trajectory: Trajectory, camera: Camera, shutter: Shutter, film: Film) -> Tensor:
        nodes, _, _ = frame_windows(trajectory)
        worlds = world_count(nodes, *camera[:4], *shutter)
        nodes = expand_worlds(nodes, worlds)
        middle, last = trajectory.substeps, nodes.shape[2] - 1
        u = (torch.arange(self.samples, device=nodes.device) + 0.5) / self.samples - 0.5
        spread = shutter.exposure[:, None, None] * trajectory.substeps * u
        late = torch.zeros(worlds, trajectory.frame_count, 1, device=nodes.device)
        pixels = nodes.new_zeros(0)
        for _ in range(READOUT_ITERATIONS):
            s = (middle + late + spread).clamp(0.0, last - 1e-3)
            i = torch.nan_to_num(s.detach()).floor().long()  # an index; what is not finite stays so in a
            index = i[..., None].expand(*i.shape, 3)
            a = (s - i)[..., None]
            position = torch.gather(nodes, 2, index) * (1.0 - a) + torch.gather(nodes, 2, index + 1) * a
            pixels = project(camera, position).mean(dim=2)
            skew = shutter.readout[:, None] * (pixels / pixels.new_tensor([film.width, film.height]) - 0.5)
            late = skew.sum(-1, keepdim=True) / trajectory.interval
        return pixels
