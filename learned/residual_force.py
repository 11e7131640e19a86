"""A learned force or torque for what the analytic model leaves out, injected into a roll-out's step."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from learned.mlp import MLP


class ResidualForce(nn.Module):
    """load = scale * network((position, velocity) / typical), zero at the start.

    Arguments: scale: size of the load that matters, [N] for a particle, [N m] for a body on a joint; typical: (length
        [m], speed [m/s]) by which the network's inputs are divided; hidden, activation, seed: of the MLP.
    Forward: observation (world, 6): position [m] and velocity [m/s] of the centre of mass, world axes; time [s] (not
        used: the residual is a function of the state) -> (world, 3), held for one frame.
    """

    inverse: Tensor

    def __init__(
        self,
        scale: float,
        typical: Sequence[float] = (1.0, 1.0),
        hidden: Sequence[int] = (16, 16),
        activation: str = "tanh",
        seed: int = 0,
    ):
        super().__init__()
        self.scale = float(scale)
        length, speed = map(float, typical)
        self.register_buffer("inverse", torch.tensor([1.0 / length] * 3 + [1.0 / speed] * 3), persistent=False)
        self.network = MLP(6, 3, hidden, activation, seed=seed)

    def forward(self, observation: Tensor, time: float) -> Tensor:
        return self.scale * self.network(observation * self.inverse)
