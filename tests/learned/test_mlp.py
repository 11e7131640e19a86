"""A network that starts as zero, and what it learns from there."""

import pytest
import torch
from torch import nn

from dvc.errors import UserError
from dvc.gradient_check import gradient_check
from learned.mlp import ACTIVATIONS, MLP
from tests.physics.scenes import assert_certified


@pytest.mark.parametrize("hidden", [(), (8,), (16, 16)])
@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_it_starts_as_the_zero_function_and_its_last_layer_has_a_gradient(activation: str, hidden: tuple[int, ...]) -> None:
    network = MLP(3, 2, hidden, activation)
    x = torch.randn(5, 4, 3)
    y = network(x)
    assert y.shape == (5, 4, 2) and torch.equal(y, torch.zeros_like(y))
    y.sum().backward()
    last = network.layers[-1]
    assert float(last.bias.grad.abs().min()) > 0.0 and float(last.weight.grad.abs().max()) > 0.0


def test_a_seed_fixes_the_weights_whatever_the_global_generator_does() -> None:
    torch.manual_seed(1)
    a = MLP(3, 2, zero_start=False, seed=4)
    torch.manual_seed(2)
    b, c = MLP(3, 2, zero_start=False, seed=4), MLP(3, 2, zero_start=False, seed=5)
    x = torch.randn(7, 3)
    assert torch.equal(a(x), b(x)) and not torch.equal(a(x), c(x))
    assert 0.1 < float(a(torch.randn(1000, 3)).detach().std()) < 3.0


def test_it_is_a_chain_of_layers() -> None:
    network = MLP(3, 2, (4,), "tanh", zero_start=False)
    first, _, last = network.layers
    x = torch.randn(7, 3)
    twin = torch.tanh(x @ first.weight.T + first.bias) @ last.weight.T + last.bias
    torch.testing.assert_close(network(x), twin)
    assert isinstance(network, nn.Module) and len(list(network.parameters())) == 4


def test_its_gradient_agrees_with_differences() -> None:
    network = MLP(3, 2, zero_start=False)
    assert_certified(
        gradient_check(network, [torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).requires_grad_()], ["x"])
    )


def test_it_learns_a_function() -> None:
    network = MLP(1, 1, (16,))
    x = torch.linspace(-2.0, 2.0, 64)[:, None]
    optimizer = torch.optim.Adam(network.parameters(), lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        loss = (network(x) - torch.sin(2.0 * x)).square().mean()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.01


def test_an_unknown_activation_is_named() -> None:
    with pytest.raises(UserError, match=r"MLP\.activation: expected one of tanh, silu, softplus, relu, got 'gelu'"):
        MLP(1, 1, activation="gelu")
