"""A thousand random scenes: no NaN, and directional derivatives agree with differences wherever those agree with each other."""

import pytest
import torch

from physics.contact_scene import ContactScene, Shape
from tests.physics.contact_scenes import GROUND, free_state, rollout
from tests.physics.test_contact_scene import KINDS, TWO
from tests.physics.trees import plain_linkage

WORLDS = 125
PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 3), (2, 2), (2, 3), (4, 0))
STEP = 1e-3
ROUNDING = 2e-7  # of an output in float32


def scene_of(a: int, b: int) -> ContactScene:
    return ContactScene(TWO, [GROUND, Shape(KINDS[a][0], 0, KINDS[a][1]), Shape(KINDS[b][0], 1, KINDS[b][1])])


def values_of(seed: int) -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(WORLDS, *shape, generator=g)

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return low + (high - low) * torch.rand(WORLDS, *shape, generator=g)

    return {
        "place": 0.03 * random(2, 3) + torch.tensor([[0.0, 0.0, 0.12], [0.05, 0.0, 0.27]]),
        "rotation": torch.nn.functional.normalize(random(2, 4), dim=2),
        "rates": random(12) * torch.tensor([0.5, 0.5, 0.5, 2.0, 2.0, 2.0]).repeat(2),
        "mass": uniform(0.5, 1.5, 2),
        "inertia": uniform(2e-3, 4e-3, 2),
        "friction": uniform(0.1, 0.8),
        "stiffness": uniform(3.0, 4.0),  # log10
        "dissipation": uniform(0.1, 1.0),
        "width": uniform(0.02, 0.1),
        "ground": torch.zeros(WORLDS, 3, 3),
    }


def end(scene: ContactScene, v: dict[str, torch.Tensor]) -> torch.Tensor:
    position = torch.cat([v["place"], torch.nn.functional.normalize(v["rotation"], dim=2)], 2).reshape(-1, 14)
    state = free_state(position[:, :3], v["rates"])._replace(position=position)
    linkage = plain_linkage(TWO, mass=v["mass"], inertia=v["inertia"][..., None, None] * torch.eye(3))
    numbers = scene.numbers(
        friction=v["friction"], stiffness=10.0 ** v["stiffness"], dissipation=v["dissipation"], width=v["width"],
        position=v["ground"],
    )  # fmt: skip
    motion = rollout(scene, 0.12, 1e-3)(state, linkage, numbers)
    weights = torch.sin(torch.arange(14.0) + 1.0)
    return (motion.coordinates[:, -1].double() * weights).sum(-1)


def judged(seed: int, a: int, b: int) -> tuple[int, int, int, int]:
    """Scenes with a NaN, excluded ones, those that disagree, and those that also do at smaller steps."""
    scene, values = scene_of(a, b), values_of(seed)
    leaves = {name: tensor.clone().requires_grad_() for name, tensor in values.items()}
    output = end(scene, leaves)
    output.sum().backward()
    g = torch.Generator().manual_seed(seed + 1000)
    scale = {"inertia": 1e-3, "ground": 0.05, "place": 0.05, "width": 0.05}
    way = {name: scale.get(name, 0.5) * torch.randn(t.shape, generator=g) for name, t in values.items()}
    analytic = sum((leaf.grad.double() * way[name]).flatten(1).sum(1) if leaf.dim() > 1 else leaf.grad.double() * way[name]
                   for name, leaf in leaves.items())  # fmt: skip
    size = output.detach().abs()

    def differences(h: float) -> torch.Tensor:
        with torch.no_grad():
            outputs = [end(scene, {name: t + sign * h * way[name] for name, t in values.items()}) for sign in (1.0, -1.0)]
        return (outputs[0] - outputs[1]) / (2 * h)

    def off(numeric: torch.Tensor, rounding: float = 0.0) -> torch.Tensor:
        return (analytic - numeric).abs() > 2e-2 * numeric.abs() + rounding

    first, second = differences(STEP), differences(STEP / 2)
    bad = ~(output.detach().isfinite() & analytic.isfinite())
    for leaf in leaves.values():
        bad |= ~leaf.grad.flatten(1).isfinite().all(1) if leaf.dim() > 1 else ~leaf.grad.isfinite()
    agree = (first - second).abs() <= 1e-2 * second.abs()
    wrong = agree & off(second)
    confirmed = wrong
    for h in (
        STEP / 4,
        STEP / 16,
    ):  # a switch within a step, on one side of both differences, makes them agree on a wrong value
        confirmed = confirmed & off(differences(h), ROUNDING * size / h)
    return int(bad.sum()), int((~agree).sum()), int(wrong.sum()), int(confirmed.sum())


@pytest.mark.slow
def test_a_thousand_random_scenes():
    counts = torch.tensor([judged(seed, a, b) for seed, (a, b) in enumerate(PAIRS)])
    nan, excluded, wrong, confirmed = counts.sum(0).tolist()
    total = WORLDS * len(PAIRS)
    print(f"{total} scenes: {nan} with NaN, {excluded} excluded, {wrong} disagree, {confirmed} of them at smaller steps too")
    assert nan == 0
    assert excluded < 0.3 * total
    assert wrong <= 0.01 * total and confirmed == 0
