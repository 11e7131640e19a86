"""Scenes: what may touch, shapes against each other, random scenes, errors in one line."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dvc.errors import Unsupported, UserError
from dvc.records import SdfGrid
from physics.contact_scene import ContactRollout, ContactScene, Shape
from tests.physics.contact_scenes import GROUND, ONE, box_linkage, free_state, rollout
from tests.physics.trees import plain_linkage, tree_of

HALF = torch.tensor([[0.05, 0.05, 0.05]])
TWO = tree_of([1, 1], [-1, -1])
PAIR = plain_linkage(TWO, mass=torch.ones(1, 2), inertia=(0.004 * torch.eye(3)).expand(1, 2, 3, 3))


def corners(half: float) -> torch.Tensor:
    return half * torch.tensor([[x, y, z] for x in (-1.0, 1.0) for y in (-1.0, 1.0) for z in (-1.0, 1.0)])[None]


def test_points_of_a_box_move_like_the_box_and_carry_gradient():
    state = free_state(torch.tensor([[0.0, 0.0, 0.07]]), torch.tensor([[0.5, 0.2, 0.0, 1.0, 2.0, -1.0]]))
    box = ContactScene(ONE, [GROUND, Shape("box", 0, (0.05, 0.05, 0.05))])
    cloud = ContactScene(ONE, [GROUND, Shape("points", 0, (0.1,), point_count=8)])
    points = corners(0.05).requires_grad_()
    linkage = box_linkage(HALF)
    first = rollout(box, 0.3, 1e-3)(state, linkage, box.numbers())
    second = rollout(cloud, 0.3, 1e-3)(state, linkage, cloud.numbers(), points=points)
    assert float((first.coordinates - second.coordinates).detach().abs().max()) < 1e-4
    size = HALF.clone().requires_grad_()
    rollout(box, 0.3, 1e-3)(state, linkage, box.numbers(size=[None, size])).coordinates[0, -1, 2].backward()
    second.coordinates[0, -1, 2].backward()
    by_points = (points.grad[0] * corners(1.0)[0]).sum(0)
    assert torch.allclose(by_points, size.grad[0], rtol=2e-2, atol=2e-3 * float(size.grad.abs().max()))


def bowl(nodes: int) -> SdfGrid:
    """The outside of a ball of radius 0.6 about (0, 0, 0.5) is solid."""
    g = torch.linspace(-0.5, 0.5, nodes)
    x, y, z = torch.meshgrid(g, g, g, indexing="ij")
    return SdfGrid((0.6 - torch.sqrt(x**2 + y**2 + (z - 0.5) ** 2))[None], torch.tensor([-0.5, -0.5, -0.5]), 1.0 / (nodes - 1))


def test_a_ball_in_a_bowl_of_a_grid_has_the_gradient_of_differences():
    scene = ContactScene(ONE, [Shape("grid", -1, (0.9,)), Shape("sphere", 0, (0.1,))])
    grid = bowl(25)

    def end(position: torch.Tensor, origin: torch.Tensor) -> torch.Tensor:
        state = free_state(position, torch.zeros(1, 6))
        motion = rollout(scene, 0.25, 1e-3)(
            state, box_linkage(2.0 * HALF), scene.numbers(stiffness=1e5), grid=grid._replace(origin=origin)
        )
        return motion.coordinates[:, -1, :3] @ torch.tensor([1.0, 0.5, 0.3])

    start = torch.tensor([[0.11, 0.055, 0.11]], requires_grad=True)
    origin = grid.origin.clone().requires_grad_()
    end(start, origin).sum().backward()
    h = 3e-4
    moved = h * torch.cat([torch.eye(3), -torch.eye(3)])
    with torch.no_grad():
        outputs = end(start + moved, grid.origin)
    numeric = (outputs[:3] - outputs[3:]) / (2 * h)
    assert torch.allclose(start.grad[0], numeric, rtol=2e-2, atol=5e-3)
    assert torch.allclose(start.grad[0] + origin.grad, torch.tensor([1.0, 0.5, 0.3]), atol=1e-3)  # all moved together


def test_a_grid_carries_gradient_to_its_values():
    """Each value that the ball felt, against differences; and a bowl made of a radius, against differences in the radius."""
    scene = ContactScene(ONE, [Shape("grid", -1, (0.9,)), Shape("sphere", 0, (0.1,))])
    grid = bowl(13)
    start = torch.tensor([[0.11, 0.055, 0.11]])

    def end(values: torch.Tensor) -> torch.Tensor:
        motion = rollout(scene, 0.25, 1e-3)(
            free_state(start, torch.tensor([[0.5, 0.0, 0.0, 0.0, 0.0, 0.0]])), box_linkage(2.0 * HALF),
            scene.numbers(stiffness=1e5), grid=grid._replace(values=values),
        )  # fmt: skip
        return motion.coordinates[:, -1, :3] @ torch.tensor([1.0, 0.5, 0.3])

    values = grid.values.clone().requires_grad_()
    end(values).sum().backward()
    gradient = values.grad[0].flatten()
    felt = gradient.abs().topk(24).indices
    assert int((gradient != 0.0).sum()) < 600  # only the taps near the ball's path
    h = 2e-4
    moved = torch.zeros(len(felt), gradient.numel())
    moved[torch.arange(len(felt)), felt] = h
    moved = moved.reshape(-1, *grid.values.shape[1:])
    with torch.no_grad():
        numeric = (end(grid.values + moved) - end(grid.values - moved)) / (2 * h)
    assert torch.allclose(gradient[felt], numeric, rtol=2e-2, atol=2e-2 * float(gradient.abs().max()))
    h = 3e-4
    with torch.no_grad():
        numeric = (end(grid.values + h) - end(grid.values - h)) / (2 * h)
    assert float((gradient.sum() - numeric[0]).abs()) < 2e-2 * float(numeric[0].abs())


def test_closest_points_of_capsules_are_found():
    """Two crossing capsules, pressed together: their gap against a search over both axes."""
    scene = ContactScene(TWO, [Shape("capsule", 0, (0.2, 0.05)), Shape("capsule", 1, (0.2, 0.05))])
    rng = np.random.default_rng(0)
    s = np.linspace(-0.2, 0.2, 401)
    worlds, place, gaps = 40, [], []
    for _ in range(worlds):
        q = rng.normal(size=(2, 4))
        q /= np.linalg.norm(q, axis=1, keepdims=True)
        x = rng.normal(size=3) * 0.1
        place.append(np.concatenate([np.zeros(3), q[0], x, q[1]]))
        axes = [np.array([2 * (a * c + b * d), 2 * (b * c - a * d), 1 - 2 * (a * a + b * b)]) for a, b, c, d in q]
        first, second = s[:, None] * axes[0], x + s[:, None] * axes[1]
        gaps.append(np.linalg.norm(first[:, None] - second[None], axis=-1).min() - 0.1)
    position = torch.tensor(np.array(place), dtype=torch.float32)
    state = free_state(position[:, :3], torch.zeros(worlds, 12))._replace(position=position)
    dt, stiffness = 1e-5, 1e3
    motion = rollout(scene, dt, dt, 1)(state, PAIR, scene.numbers(stiffness=stiffness, friction=0.0), torch.zeros(1, 3))
    force = motion.rates[:, -1, :3].norm(dim=1) / dt
    depth = torch.tensor(gaps, dtype=torch.float32).neg().clamp_min(0.0)
    assert int((depth > 0.0).sum()) > 5
    assert torch.allclose(force, stiffness * depth**1.5, rtol=2e-2, atol=2e-2)


def test_what_is_joined_or_masked_does_not_touch():
    chain = tree_of([1, 2, 2], [-1, 0, 1])
    shapes = [Shape("sphere", b, (0.1,)) for b in range(3)]
    features = ContactScene(chain, shapes).features
    assert int(features.sum()) == 1 and int(features[2, 0] + features[0, 2]) == 1
    assert int(ContactScene(chain, shapes, joined=True).features.sum()) == 3
    masked = [shapes[0]._replace(category=2, mask=2), shapes[2]]
    assert int(ContactScene(chain, masked).features.sum()) == 0


KINDS = [
    ("sphere", (0.08,)), ("capsule", (0.06, 0.05)), ("box", (0.08, 0.05, 0.06)), ("rounded_box", (0.08, 0.05, 0.06, 0.02)),
    ("ellipsoid", (0.08, 0.05, 0.06)),
]  # fmt: skip
SCENES = {
    (a, b): ContactScene(TWO, [GROUND, Shape(KINDS[a][0], 0, KINDS[a][1]), Shape(KINDS[b][0], 1, KINDS[b][1])])
    for a, b in ((0, 0), (0, 2), (1, 1), (1, 2), (2, 3), (4, 0))
}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(list(SCENES)), st.integers(0, 2**20), st.sampled_from([0.0, 0.05, 0.2]), st.booleans())
def test_random_scenes_have_no_nan(kinds, seed, spread, symmetric):
    scene = SCENES[kinds]
    g = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(4, *shape, generator=g)

    rotation = random(2, 4) if not symmetric else torch.tensor([0.0, 0.0, 0.0, 1.0]).expand(4, 2, 4)
    place = torch.cat([spread * random(2, 3) * (0.0 if symmetric else 1.0) + torch.tensor([0.0, 0.0, 0.1]), rotation], dim=2)
    leaves = {
        "place": place.reshape(4, 14),
        "rates": random(12),
        "friction": torch.rand(4, generator=g),
        "stiffness": 1e4 * (0.1 + torch.rand(4, generator=g)),
        "dissipation": torch.rand(4, generator=g),
        "position": torch.zeros(4, 3, 3),
    }
    leaves = {name: tensor.requires_grad_() for name, tensor in leaves.items()}
    state = free_state(place[:, 0, :3], leaves["rates"])._replace(position=leaves["place"])
    numbers = scene.numbers(**{name: leaves[name] for name in ("friction", "stiffness", "dissipation", "position")})
    motion = rollout(scene, 0.08, 2e-3)(state, PAIR, numbers)
    assert bool(motion.coordinates.isfinite().all()) and bool(motion.rates.isfinite().all())
    (motion.coordinates.sum() + motion.rates.sum()).backward()
    for name, tensor in leaves.items():
        assert bool(tensor.grad.isfinite().all()), name


def test_errors_name_what_is_wrong():
    box = Shape("box", 0, (0.05, 0.05, 0.05))
    with pytest.raises(UserError, match="shape 1: expected one of sphere"):
        ContactScene(ONE, [GROUND, Shape("cone", 0)])
    with pytest.raises(UserError, match="expected a link from -1 to 0, got 3"):
        ContactScene(ONE, [GROUND, box._replace(link=3)])
    with pytest.raises(UserError, match="a box has 3 sizes, got 1"):
        ContactScene(ONE, [GROUND, box._replace(size=(0.1,))])
    with pytest.raises(UserError, match="sizes above 0"):
        ContactScene(ONE, [GROUND, box._replace(size=(0.1, 0.1, -0.1))])
    with pytest.raises(Unsupported, match="ellipsoid and ellipsoid"):
        ContactScene(TWO, [Shape("ellipsoid", 0, (0.1, 0.1, 0.1)), Shape("ellipsoid", 1, (0.1, 0.1, 0.1))])
    with pytest.raises(Unsupported, match="one SDF grid"):
        ContactScene(ONE, [Shape("grid", -1, (1.0,)), Shape("grid", -1, (1.0,))])
    scene = ContactScene(ONE, [GROUND, box])
    with pytest.raises(UserError, match=r"exponent: expected at least 1\.5, got 1"):
        scene.numbers(exponent=1.0)
    with pytest.raises(UserError, match="friction: expected at least 0, got nan"):
        scene.numbers(friction=torch.tensor([float("nan")]))
    with pytest.raises(UserError, match=r"size\[1\]: expected sizes above 0 of the box"):
        scene.numbers(size=[None, torch.tensor([[0.1, 0.1, float("nan")]])])
    state = free_state(torch.tensor([[0.0, 0.0, 0.05]]), torch.zeros(1, 6))
    with pytest.raises(UserError, match=r"wrenches: expected shape \(world, 10, 1, 6\), got \(1, 3, 1, 6\)"):
        run = ContactRollout(ONE, scene, frame_rate=100, frame_count=10)
        run(state, box_linkage(HALF), scene.numbers(), wrenches=torch.zeros(1, 3, 1, 6))
    with pytest.raises(UserError, match="numbers: expected numbers, got NaN"):
        rollout(scene, 0.02, 1e-3)(state, box_linkage(HALF), scene.numbers() * float("nan"))
    with pytest.raises(UserError, match="at most 2 contacts, got 4"):
        rollout(scene, 0.02, 1e-3, contact_capacity=2)(state, box_linkage(HALF), scene.numbers())
    in_grid = ContactScene(ONE, [Shape("grid", -1, (1.0,)), box])
    with pytest.raises(UserError, match=r"ContactRollout\.grid: expected a positive spacing"):
        rollout(in_grid, 0.02, 1e-3)(state, box_linkage(HALF), in_grid.numbers(), grid=bowl(5)._replace(spacing=-1.0))
