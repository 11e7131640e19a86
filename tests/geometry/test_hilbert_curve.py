import torch

from geometry.hilbert_curve import curve_order


def lattice(size: int) -> torch.Tensor:
    line = torch.arange(size)
    points = torch.cartesian_prod(line, line, line)
    return points[torch.randperm(len(points), generator=torch.Generator().manual_seed(size))][None]


def test_the_curve_steps_from_a_cell_to_a_neighbour():
    # centres of the cells of a grid of 2^k: on a Hilbert curve, and on no curve with jumps, each step has length one
    for size in (2, 4, 8, 16):
        points = lattice(size) + 0.5
        order = curve_order(points, torch.zeros(1, 3), torch.tensor([float(size)]))
        assert order.dtype == torch.int32 and torch.equal(order[0].long().sort().values, torch.arange(size**3))
        steps = points[0][order[0].long()].diff(dim=0).abs().sum(1)
        assert torch.equal(steps, torch.ones(size**3 - 1))


def test_worlds_have_their_own_cubes_and_any_size():
    points = torch.cat([lattice(4) + 0.5, 1e4 * (lattice(4) + 0.5) - 7e3])
    low, side = torch.tensor([[0.0] * 3, [-7e3] * 3]), torch.tensor([4.0, 4e4])
    order = curve_order(points, low, side)
    assert torch.equal(order[0], order[1])
    assert torch.equal(curve_order(points[:, :1], low, torch.zeros(2)), torch.zeros(2, 1, dtype=torch.int32))
