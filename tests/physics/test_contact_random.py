"""A thousand random scenes: no NaN, and directional derivatives agree with differences wherever those agree with each other.

Ten families of scenes, each with its tree, shapes and 100 worlds of random numbers: free bodies of all kinds upon each other on
sloping ground, chains of all joints that fall on it, points of a mesh and a ball in a bowl that is a grid of distances.

Differences are taken at h and h / 2, and again at h / 4 and h / 8, fixed beforehand. Two pairs are needed because a switch (a
face, a contact that sets in) on one side of both steps of a pair lets them agree on a wrong number, and because forces that
set in like d^1.5 make differences converge like sqrt(h) only. A scene is judged where both pairs agree to 1 % and rounding is
below 1 % of the last difference; the derivative must then be that to 2 %, rounding granted, in every scene.
"""

import pytest
import torch
from torch import Tensor

from dvc.records import SdfGrid, State
from physics.articulation import Topology
from physics.contact_scene import ContactScene, Shape
from tests.physics.contact_scenes import GROUND, rollout
from tests.physics.test_contact_scene import bowl
from tests.physics.trees import plain_linkage, tree_of

WORLDS = 100
STEPS = (2e-3, 1e-3, 5e-4, 2.5e-4)
ROUNDING = 1e-7  # of an output in float32
SPHERE = ("sphere", (0.08,))
CAPSULE = ("capsule", (0.06, 0.05))
BOX = ("box", (0.08, 0.05, 0.06))
ROUNDED = ("rounded_box", (0.08, 0.05, 0.06, 0.02))
ELLIPSOID = ("ellipsoid", (0.08, 0.05, 0.06))
CYLINDER = ("cylinder", (0.06, 0.05))
TWO = tree_of([1, 1], [-1, -1])
CHAIN = tree_of([1, 2, 4, 3], [-1, 0, 1, 1])  # free, revolute, spherical, prismatic
ARM = tree_of([2, 4, 1], [-1, 0, -1])  # an arm above a free body
CLOUD = 14
FAMILIES = {
    "spheres and boxes": (TWO, (SPHERE, BOX)),
    "boxes": (TWO, (BOX, ROUNDED)),
    "bars": (TWO, (("box", (0.15, 0.03, 0.03)), ("box", (0.03, 0.15, 0.03)))),
    "capsules": (TWO, (CAPSULE, ("capsule", (0.1, 0.04)))),
    "capsules and boxes": (TWO, (BOX, CAPSULE)),
    "cylinders": (TWO, (BOX, CYLINDER)),
    "ellipsoids": (TWO, (ELLIPSOID, SPHERE)),
    "chains": (CHAIN, (BOX, CAPSULE, SPHERE, ROUNDED)),
    "arms": (ARM, (CAPSULE, SPHERE, BOX)),
    "points in a grid": (TWO, (("points", (0.1,)), SPHERE)),
}


def scene_of(name: str) -> ContactScene:
    tree, kinds = FAMILIES[name]
    base = Shape("grid", -1, (0.9,)) if "grid" in name else GROUND
    shapes = [Shape(kind, i, size, point_count=CLOUD if kind == "points" else 0) for i, (kind, size) in enumerate(kinds)]
    return ContactScene(tree, [base, *shapes])


def values_of(name: str, seed: int) -> dict[str, Tensor]:
    tree, _ = FAMILIES[name]
    n = len(tree.links)
    g = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(WORLDS, *shape, generator=g)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(WORLDS, *shape, generator=g)

    values = {
        "offset": 0.02 * random(n, 3),
        "rates": random(tree.rate_count) * 0.7,
        "mass": uniform(0.5, 1.5, n),
        "inertia": uniform(2e-3, 4e-3, n),
        "friction": uniform(0.1, 0.8),
        "stiffness": uniform(3.0, 4.0),  # log10
        "dissipation": uniform(0.1, 1.0),
        "width": uniform(0.02, 0.1),
        "ground": torch.zeros(WORLDS, n + 1, 3),
        "slope": 0.15 * random(2),
        "pose": random(tree.coordinate_count),
    }
    if "grid" in name:
        values["points"] = torch.nn.functional.normalize(random(CLOUD, 3), dim=2) * uniform(0.05, 0.09, CLOUD, 1)
        values["bowl"] = torch.zeros(WORLDS, 4)
    return values


def pose(tree: Topology, v: Tensor) -> Tensor:
    """Free bodies one above the other, their turns and other joints as random."""
    parts, level = [], 0
    for kind, j in zip(tree.kinds, tree.first_coordinates, strict=True):
        if kind == 1:
            place = torch.tensor([0.04 * level, 0.0, 0.12 + 0.15 * level])
            parts += [place + 0.03 * v[:, j : j + 3], torch.nn.functional.normalize(v[:, j + 3 : j + 7], dim=1)]
            level += 1
        elif kind == 4:
            parts.append(torch.nn.functional.normalize(v[:, j : j + 4], dim=1))
        else:
            parts.append((0.3 if kind == 2 else 0.02) * v[:, j : j + 1])
    return torch.cat(parts, dim=1)


def end(name: str, scene: ContactScene, v: dict[str, Tensor]) -> Tensor:
    tree = scene.tree
    n = len(tree.links)
    place = torch.zeros(WORLDS, n, 3)
    for i, (kind, parent) in enumerate(zip(tree.kinds, tree.parents, strict=True)):
        if kind != 1:
            place[:, i, 0 if parent >= 0 else 2] = 0.15 if parent >= 0 else 0.35
    linkage = plain_linkage(
        tree, mass=v["mass"], inertia=v["inertia"][..., None, None] * torch.eye(3), position=place,
        center_of_mass=0.5 * v["offset"], damping=torch.full((1, tree.rate_count), 1e-3),
    )  # fmt: skip
    turn = torch.zeros(WORLDS, n + 1, 4)
    turn[..., 3] = 1.0
    tilt = torch.cat([v["slope"], torch.zeros(WORLDS, 1), torch.ones(WORLDS, 1)], dim=1)
    turn = torch.cat([torch.nn.functional.normalize(tilt, dim=1)[:, None], turn[:, 1:]], dim=1)
    numbers = scene.numbers(
        friction=v["friction"], stiffness=10.0 ** v["stiffness"], dissipation=v["dissipation"], width=v["width"],
        position=v["ground"], rotation=turn,
    )  # fmt: skip
    extra: dict = {}
    if "grid" in name:
        grid = bowl(13)
        x = torch.linspace(-0.5, 0.5, 13)
        waves = torch.stack([torch.sin(3.0 * x + i) for i in range(4)])
        field = torch.einsum("wk,kx,ky->wxy", v["bowl"], waves, waves)[..., None]
        extra = {"points": v["points"], "grid": SdfGrid(grid.values + 0.05 * field, grid.origin, grid.spacing)}
    motion = rollout(scene, 0.12, 1e-3)(State(pose(tree, v["pose"]), v["rates"]), linkage, numbers, **extra)
    weights = torch.sin(torch.arange(float(tree.coordinate_count)) + 1.0)
    return (motion.coordinates[:, -1].double() * weights).sum(-1)


def measured(name: str, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Values, whether every gradient is finite, directional derivatives by reverse mode, differences (step, world)."""
    scene, values = scene_of(name), values_of(name, seed)
    leaves = {key: tensor.clone().requires_grad_() for key, tensor in values.items()}
    output = end(name, scene, leaves)
    output.sum().backward()
    g = torch.Generator().manual_seed(seed + 1000)
    scale = {"inertia": 1e-3, "ground": 0.05, "offset": 0.02, "width": 0.05, "slope": 0.1, "points": 0.02}
    way = {key: scale.get(key, 0.5) * torch.randn(t.shape, generator=g) for key, t in values.items()}

    def by_world(t: Tensor) -> Tensor:
        return t.reshape(WORLDS, -1)

    analytic = sum(by_world(leaf.grad.double() * way[key]).sum(1) for key, leaf in leaves.items())
    finite = torch.stack([by_world(leaf.grad).isfinite().all(1) for leaf in leaves.values()]).all(0)
    numeric = []
    with torch.no_grad():
        for h in STEPS:
            up, down = (end(name, scene, {k: t + sign * h * way[k] for k, t in values.items()}) for sign in (1.0, -1.0))
            numeric.append((up - down) / (2 * h))
    return output.detach(), finite & output.detach().isfinite(), analytic, torch.stack(numeric)


def judged(name: str, seed: int) -> tuple[int, int, int]:
    """Scenes with a NaN, excluded ones, those that disagree."""
    output, finite, analytic, numeric = measured(name, seed)
    agree = (numeric[0::2] - numeric[1::2]).abs() <= 1e-2 * numeric[1::2].abs()
    rounding = ROUNDING * output.abs() / STEPS[-1]
    smooth = agree.all(0) & (rounding <= 1e-2 * numeric[-1].abs())
    wrong = smooth & ((analytic - numeric[-1]).abs() > 2e-2 * numeric[-1].abs() + rounding)
    counts = int((~finite).sum()), int((~smooth).sum()), int(wrong.sum())
    print(f"{name}: {WORLDS} scenes, {counts[0]} with NaN, {counts[1]} excluded, {counts[2]} disagree")
    return counts


@pytest.mark.slow
def test_a_thousand_random_scenes():
    counts = torch.tensor([judged(name, seed) for seed, name in enumerate(FAMILIES)])
    nan, excluded, wrong = counts.sum(0).tolist()
    total = WORLDS * len(FAMILIES)
    print(f"{total} scenes: {nan} with NaN, {excluded} excluded ({100 * excluded / total:.1f} %), {wrong} disagree")
    assert total == 1000
    assert nan == 0
    assert excluded < 0.3 * total
    assert wrong == 0


@pytest.mark.slow
@pytest.mark.parametrize("name", ["boxes", "points in a grid"])
def test_a_hundred_random_scenes(name):
    nan, excluded, wrong = judged(name, list(FAMILIES).index(name))
    assert nan == 0 and excluded < 0.3 * WORLDS and wrong == 0
