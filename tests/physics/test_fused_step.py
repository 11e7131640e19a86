"""The fused step against the step of one kernel a phase, and what lanes must not do: depend on their neighbours."""

import pytest
import torch

from physics.articulation import REVOLUTE, Linkage, pack_links, tables
from physics.kinematics import motion_of
from tests.physics.test_articulated_step import GRAVITY, MIXED, given_for, step
from tests.physics.trees import plain_linkage, random_linkage, random_state, tree_of

BRANCHED = tree_of([1, 2, 2, 0, 4, 2, 3, 2, 2], [-1, 0, 1, 0, 3, 4, 0, 0, 7], [(2, 1), (8, 0)])
ROOTS = tree_of([2, 2, 3, 4, 2], [-1, 0, -1, 2, 3])  # two trees in one
FIXED = tree_of([0, 0, 2], [-1, 0, 1])


def both(tree, worlds, seed, weights_seed=0, **options):
    """Outputs and gradients of every input, by the phases and fused."""
    linkage = random_linkage(tree, seed, worlds)
    q, v = random_state(tree, seed + 1, worlds, speed=2.0)
    controls, wrenches = given_for(tree, seed + 2, worlds)
    found = []
    for fused in (False, True):
        inputs = [t.clone().requires_grad_(True) for t in (q, v, GRAVITY, controls, wrenches, *linkage)]
        outputs = step(tree, *inputs[:2], Linkage(*inputs[5:]), *inputs[2:5], fused=fused, **options)
        g = torch.Generator().manual_seed(weights_seed)
        loss = sum((o * torch.randn(o.shape, generator=g)).sum() for o in outputs)
        found.append(([o.detach() for o in outputs], torch.autograd.grad(loss, inputs)))
    return found


@pytest.mark.parametrize("integrator", ["implicit", "symplectic", "rk4"])
@pytest.mark.parametrize(
    ("tree", "worlds"), [(MIXED, 1), (BRANCHED, 3), (ROOTS, 8), (FIXED, 19)], ids=["mixed", "branched", "roots", "fixed"]
)
def test_values_and_gradients_are_those_of_the_step_by_phases(tree, worlds, integrator):
    (values, gradients), (fused_values, fused_gradients) = both(tree, worlds, 3, integrator=integrator)
    for name, a, b in zip(("coordinates", "rates"), values, fused_values, strict=True):
        assert float((a - b).abs().max()) < 2e-5 * (1.0 + float(a.abs().max())), name
    names = ["coordinates", "rates", "gravity", "controls", "wrenches", *Linkage._fields]
    for name, a, b in zip(names, gradients, fused_gradients, strict=True):
        if a.numel():
            assert float((a - b).abs().max()) < 1e-3 * float(a.abs().max()) + 1e-5, name
    assert sum(float(g.abs().sum()) > 0.0 for g in fused_gradients) > 12


def test_a_world_does_not_depend_on_the_worlds_in_the_lanes_beside_it():
    worlds = 11
    linkage, (q, v) = random_linkage(MIXED, 3, worlds), random_state(MIXED, 4, worlds, speed=3.0)
    controls, wrenches = given_for(MIXED, 5, worlds)
    for t in (linkage.friction, linkage.stiffness, linkage.limit_stiffness):
        t[::2] = 0.0
    q[4, 7] = 5e4  # an angle without limits
    together = step(MIXED, q, v, linkage, GRAVITY, controls, wrenches, fused=True)
    for w in (0, 5, 10):
        one = [t[w : w + 1] for t in (q, v, controls, wrenches)]
        alone = step(MIXED, *one[:2], Linkage(*(t[w : w + 1] for t in linkage)), GRAVITY, *one[2:], fused=True)
        assert all(torch.equal(a[w : w + 1], b) for a, b in zip(together, alone, strict=True))
    q[5] = float("nan")
    broken = step(MIXED, q, v, linkage, GRAVITY, controls, wrenches, fused=True)
    rest = [w for w in range(worlds) if w != 5]
    assert bool(broken[1][5].isnan().any())
    assert all(torch.equal(a[rest], b[rest]) for a, b in zip(together, broken, strict=True))


@pytest.mark.parametrize("angle", [0.0, 1e-4, 0.79, 1.57079633, 3.1, -40.0, 6.1e3, -3.3e4])
def test_sine_and_cosine_of_any_angle(angle):
    """A free swing of no length of time ends where it began; its acceleration is g sin(angle) / length."""
    tree = tree_of([REVOLUTE], [-1])
    linkage = plain_linkage(tree, center_of_mass=torch.tensor([[[0.0, 0.0, -1.0]]]))
    q = torch.tensor([[angle]])
    none = torch.zeros(1, 1, 0), torch.zeros(1, 1, 1, 6)
    options = {"dt": 1e-6, "substeps": 1, "frames": 1, "integrator": "symplectic"}
    _, v = step(tree, q, torch.zeros(1, 1), linkage, torch.tensor([[0.0, 0.0, -10.0]]), *none, fused=True, **options)
    exact = -10.0 * torch.sin(q.double())
    assert float((v[0, 0].double() / 1e-6 - exact).abs().max()) < 2e-5


def test_a_chain_of_20_links_agrees_with_the_phases_over_100_steps():
    tree = tree_of([REVOLUTE] * 20, list(range(-1, 19)))
    linkage = random_linkage(tree, 1, 9)
    q, v = random_state(tree, 2, 9, speed=0.2)
    controls, wrenches = given_for(tree, 3)
    runs = [
        step(tree, q, v, linkage, GRAVITY, controls, 0.0 * wrenches, dt=1e-3, substeps=50, frames=2, fused=fused)
        for fused in (False, True)
    ]
    places = [motion_of(*run, pack_links(linkage), tables(tree).tree).positions for run in runs]
    assert float((places[0] - places[1]).abs().max()) < 1e-3
