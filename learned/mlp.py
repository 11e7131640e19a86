"""A multilayer perceptron that starts as the zero function."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from dvc.errors import UserError

ACTIVATIONS = {"tanh": nn.Tanh, "silu": nn.SiLU, "softplus": nn.Softplus, "relu": nn.ReLU}


class MLP(nn.Module):
    """(..., inputs) -> (..., outputs).

    Arguments: inputs, outputs: widths; hidden: widths between; activation: tanh, silu, softplus or relu (smooth ones keep
        the pipeline differentiable twice where finite differences look at it); zero_start: the last layer starts at zero,
        so that a pipeline with this network inside starts as the pipeline without it; seed: of the other layers.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        hidden: Sequence[int] = (32, 32),
        activation: str = "tanh",
        *,
        zero_start: bool = True,
        seed: int = 0,
    ):
        super().__init__()
        if activation not in ACTIVATIONS:
            raise UserError(f"MLP.activation: expected one of {', '.join(ACTIVATIONS)}, got {activation!r}")
        generator = torch.Generator().manual_seed(seed)
        layers: list[nn.Module] = []
        widths = [int(inputs), *map(int, hidden)]
        for a, b in itertools.pairwise(widths):
            layers += [nn.Linear(a, b), ACTIVATIONS[activation]()]
        layers.append(nn.Linear(widths[-1], int(outputs)))
        self.layers = nn.Sequential(*layers)
        with torch.no_grad():
            for layer in self.layers:
                if isinstance(layer, nn.Linear):
                    layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) / layer.in_features**0.5)
                    layer.bias.zero_()
            if zero_start:
                self.layers[-1].weight.zero_()  # type: ignore[union-attr,operator]

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)
