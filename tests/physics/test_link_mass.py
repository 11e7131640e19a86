"""Mass properties of links: against sampling, and gradients."""

import numpy as np
import pytest
import torch

from dvc.gradient_check import format_table, gradient_check
from dvc.records import Bodies
from physics.link_mass import COLUMNS, Solids, mass_of_links, solid_moments, with_body

SIZES = {
    "sphere": [0.3], "capsule": [0.2, 0.4], "cylinder": [0.3, 0.2], "box": [0.2, 0.3, 0.4], "ellipsoid": [0.2, 0.3, 0.4],
    "rounded_box": [0.3, 0.25, 0.4, 0.15],
}  # fmt: skip


def inside(kind: str, size: list[float], x: np.ndarray) -> np.ndarray:
    flat = np.hypot(x[:, 0], x[:, 1])
    if kind == "sphere":
        return (x**2).sum(1) < size[0] ** 2
    if kind == "capsule":
        return flat**2 + np.maximum(abs(x[:, 2]) - size[1], 0.0) ** 2 < size[0] ** 2
    if kind == "cylinder":
        return (flat < size[0]) & (abs(x[:, 2]) < size[1])
    if kind == "ellipsoid":
        return ((x / size) ** 2).sum(1) < 1.0
    edge = size[3] if kind == "rounded_box" else 0.0
    return (np.maximum(abs(x) - (np.array(size[:3]) - edge), 0.0) ** 2).sum(1) <= edge**2


@pytest.mark.parametrize("kind", COLUMNS)
def test_closed_forms_agree_with_sampling(kind):
    n = 120
    axis = (np.arange(n) + 0.5) / n * 1.4 - 0.7
    x = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    x = x + (np.random.default_rng(0).random(x.shape) - 0.5) * 1.4 / n
    x = x[inside(kind, SIZES[kind], x)]
    cell = (1.4 / n) ** 3
    volume, second = solid_moments(kind, torch.tensor([SIZES[kind]], dtype=torch.float64))
    assert abs(float(volume[0]) - len(x) * cell) < 3e-3 * float(volume[0])
    assert np.allclose(second[0].numpy(), (x**2).sum(0) * cell, rtol=5e-3)


def groups(sizes, positions, rotations, densities):
    owner = torch.tensor([0, 2])
    return [
        Solids("capsule", sizes[:, :, :2], positions[:, :2], rotations[:, :2], densities[:, :2], owner),
        Solids("box", sizes[:, :, 2:], positions[:, 2:], rotations[:, 2:], densities[:, 2:], torch.tensor([2, 2])),
    ]


def test_gradients_and_parallel_axes():
    g = torch.Generator().manual_seed(0)
    tensors = [
        0.1 + torch.rand(1, 2, 5, generator=g), torch.randn(1, 4, 3, generator=g), torch.randn(1, 4, 4, generator=g),
        1.0 + torch.rand(1, 4, generator=g),
    ]  # fmt: skip
    mass, _, inertia = mass_of_links(groups(*tensors), 3)
    assert mass[0, 1] == 0.0 and not inertia[0, 1].any()
    assert torch.allclose(inertia, inertia.mT) and (torch.linalg.eigvalsh(inertia[0, [0, 2]]) > 0).all()
    tensors = [t.requires_grad_(True) for t in tensors]
    rows = gradient_check(lambda *t: mass_of_links(groups(*t), 3), tensors, ["sizes", "positions", "rotations", "densities"])
    assert all(row.passed and row.analytic for row in rows), "\n" + format_table(rows)


def test_two_halves_of_a_box_are_the_box():
    whole = Solids("box", torch.tensor([[[0.4, 0.2, 0.3]]]), torch.zeros(1, 1, 3), torch.tensor([[[0.0, 0, 0, 1]]]),
                   torch.ones(1, 1), torch.tensor([0]))  # fmt: skip
    half = whole._replace(sizes=torch.tensor([[[0.2, 0.2, 0.3]]]))
    left = mass_of_links([half._replace(positions=torch.tensor([[[-0.2, 0.0, 0.0]]]))], 1)
    right = mass_of_links([half._replace(positions=torch.tensor([[[0.2, 0.0, 0.0]]]))], 1)
    joined = with_body(*left, 0, Bodies(*(t[:, 0] for t in right)))
    for a, b in zip(joined, mass_of_links([whole], 1), strict=True):
        assert torch.allclose(a, b, atol=1e-7)
