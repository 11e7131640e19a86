"""A learned load: zero at the start, in its own units, and without state."""

import torch

from learned.residual_force import ResidualForce


def test_it_starts_at_zero_for_any_observation() -> None:
    load = ResidualForce(2.0)(torch.randn(4, 6), 0.3)
    assert load.shape == (4, 3) and torch.equal(load, torch.zeros(4, 3))


def test_it_is_a_scaled_function_of_the_state_in_typical_units() -> None:
    residual = ResidualForce(2.0, typical=(0.5, 4.0))
    torch.nn.init.normal_(residual.network.layers[-1].weight, generator=torch.Generator().manual_seed(0))
    observation = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    inputs = torch.cat([observation[:, :3] / 0.5, observation[:, 3:] / 4.0], dim=1)
    torch.testing.assert_close(residual(observation, 0.0), 2.0 * residual.network(inputs))
    assert torch.equal(residual(observation, 0.0), residual(observation, 9.0)), "it does not depend on time"


def test_the_typical_units_are_no_weights_and_stay_out_of_checkpoints() -> None:
    residual = ResidualForce(1.0)
    assert all(name.startswith("network.") for name, _ in residual.named_parameters())
    assert all(name.startswith("network.") for name in residual.state_dict())


def test_the_same_seed_gives_the_same_residual() -> None:
    a, b = ResidualForce(1.0, seed=3), ResidualForce(1.0, seed=3)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))
