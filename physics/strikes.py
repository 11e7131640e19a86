"""What is read off a motion with impacts: when they are, how fast, and what is kept from one to the next."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dvc.errors import UserError
from dvc.records import Trajectory


class StrikeList(NamedTuple):
    """The first strikes of each world; NaN where a world has fewer."""

    times: Tensor  # [s], from the middle of the clip's frame 0, (world, strike)
    speeds: Tensor  # incoming normal speed [m/s], (world, strike)
    speed_ratio: Tensor  # geometric mean of speed(k + 1) / speed(k) over the chosen k, (world,)
    number: Tensor  # strikes in the window, (world,)


class Strikes(nn.Module):
    """Arguments: first, last: the strikes k (counted from 1) whose ratio speed(k + 1) / speed(k) is averaged.

    Gradient: of times and speeds, through the time of impact.
    """

    def __init__(self, first: int = 2, last: int = 9):
        super().__init__()
        if not 1 <= first <= last:
            raise UserError(f"Strikes: expected 1 <= first <= last, got {first} and {last}")
        self.first, self.last = int(first), int(last)

    def forward(self, trajectory: Trajectory) -> StrikeList:
        fraction = trajectory.impact_fraction
        is_strike = fraction.detach() >= 0.0
        count = is_strike.sum(1)
        most = max(int(count.max()), self.last + 1)
        order = torch.argsort((~is_strike).to(torch.int8), dim=1, stable=True)[:, :most]
        there = torch.gather(is_strike, 1, order)
        times = trajectory.start + (order + torch.gather(fraction, 1, order)) * trajectory.interval
        speeds = torch.gather(trajectory.impact_speed, 1, order)
        times = torch.where(there, times, torch.full_like(times, torch.nan))
        ratio = speeds.new_full((speeds.shape[0],), torch.nan)
        enough = count > self.last
        if bool(enough.any()):  # so there are columns enough, too
            safe = torch.where(there, speeds, torch.ones_like(speeds))
            span = self.last + 1 - self.first
            mean = torch.exp((torch.log(safe[:, self.last]) - torch.log(safe[:, self.first - 1])) / span)
            ratio = torch.where(enough, mean, ratio)
        return StrikeList(times, torch.where(there, speeds, torch.full_like(speeds, torch.nan)), ratio, count)
