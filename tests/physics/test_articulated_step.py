"""Steps of trees of bodies: against a slow twin, gradients against differences, random trees."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from dvc.gradient_check import format_table, gradient_check
from physics.articulated_step import articulated_step
from physics.articulation import Linkage, Topology, pack_actuators, pack_dofs, pack_links, tables
from tests.physics.trees import mass_and_bias, moved_on, random_linkage, random_state, tree_of

MIXED = tree_of([1, 2, 4, 3, 0, 2], [-1, 0, 1, 0, 2, 4], [(1, 0), (3, 1), (5, 2)])  # every kind of joint and actuator
GRAVITY = torch.tensor([[0.3, -0.2, -9.81]])


def step(
    tree: Topology, q: Tensor, v: Tensor, linkage: Linkage, gravity: Tensor, controls: Tensor, wrenches: Tensor, **options
):
    packed = pack_links(linkage), pack_dofs(linkage), pack_actuators(linkage)
    settings = {"integrator": "implicit", "dt": 5e-3, "substeps": 3, "frames": 2} | options
    return articulated_step(q, v, *packed, controls, wrenches, gravity, *tables(tree), **settings)


def given_for(tree: Topology, seed: int, worlds: int = 1) -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(seed)
    controls = 0.5 * torch.randn(worlds, 2, len(tree.actuators), generator=g)
    return controls, torch.randn(worlds, 2, len(tree.links), 6, generator=g)


def without_laws(linkage: Linkage) -> Linkage:
    """No springs, limits, friction, actuators."""
    names = ("stiffness", "limit_stiffness", "limit_damping", "damping", "friction", "gear", "kp", "kd")
    none = {name: torch.zeros_like(getattr(linkage, name)) for name in names}
    return linkage._replace(**none)


@pytest.mark.parametrize("seed", range(6))
def test_accelerations_of_random_trees_agree_with_float64_jacobians(seed):
    rng = np.random.default_rng(seed)
    kinds, parents = [1], [-1]
    for b in range(1, 7):
        kinds.append(int(rng.choice([0, 2, 3, 4])))
        parents.append(int(rng.integers(-1, b)))
    tree = tree_of(kinds, parents)
    linkage = without_laws(random_linkage(tree, seed))
    q, v = random_state(tree, seed + 50)
    controls, wrenches = given_for(tree, seed)
    dt = 1e-2
    new_q, new_v = step(tree, q, v, linkage, GRAVITY, controls, wrenches, dt=dt, substeps=1, frames=1)
    numbers = [t[0].double().numpy() for t in (q, v, GRAVITY, wrenches[:, 0])]
    h, c = mass_and_bias(tree, linkage, *numbers)
    a = np.linalg.solve(h + np.diag(linkage.armature[0].double().numpy()), -c)
    after = numbers[1] + dt * a
    assert np.abs(new_v[0, 0].numpy() - after).max() < 1e-4 * (1.0 + np.abs(dt * a).max())
    assert np.abs(new_q[0, 0].numpy() - moved_on(tree, numbers[0], after, dt)).max() < 1e-5


def residual_at_the_end(
    tree: Topology, linkage: Linkage, q: Tensor, v: Tensor, new_v: Tensor, u: Tensor, wrench: Tensor, dt: float
):
    """What the implicit step must have made zero: joints of one degree of freedom, in float64, laws from their equations."""
    numbers = [t[0].double().numpy() for t in (q, v, GRAVITY, wrench)]
    link = {name: getattr(linkage, name)[0].double().numpy() for name in Linkage._fields}
    h, c = mass_and_bias(tree, linkage, *numbers)
    end = new_v[0].double().numpy()
    a = (end - numbers[1]) / dt
    tau = -link["armature"] * a - link["damping"] * end
    tau -= link["friction"] * end / np.sqrt(end**2 + link["friction_width"] ** 2)
    place = moved_on(tree, numbers[0], end, dt)

    def ramp(x):
        w, t = 1e-2, np.clip(x / 1e-2, 0.0, 1.0)
        return np.where(x > w, x - w / 2, w * (t**3 - t**4 / 2)), 3 * t**2 - 2 * t**3

    for b in range(len(tree.links)):
        i, x = tree.first_rates[b], place[tree.first_coordinates[b]]
        (low, in_low), (high, in_high) = ramp(link["lower"][b] - x), ramp(x - link["upper"][b])
        tau[i] += link["stiffness"][b] * (link["rest"][b] - x) + link["limit_stiffness"][b] * (low - high)
        tau[i] -= link["limit_damping"][b] * (in_low + in_high) * end[i]
    for m, (b, kind) in enumerate(zip(tree.actuator_links, tree.actuator_kinds, strict=True)):
        i, x = tree.first_rates[b], place[tree.first_coordinates[b]]
        control = np.clip(u[0, m].item(), link["control_lower"][m], link["control_upper"][m])
        force = (
            link["gear"][m] * control,
            link["kp"][m] * (control - x) - link["kd"][m] * end[i],
            link["kd"][m] * (control - end[i]),
        )[kind]
        tau[i] += np.clip(force, -link["force_limit"][m], link["force_limit"][m])
    return np.abs(h @ a + c - tau).max() / np.abs(c).max()


@pytest.mark.parametrize("seed", range(4))
def test_implicit_step_balances_springs_limits_friction_and_actuators_at_its_end(seed):
    tree = tree_of([2, 3, 2, 2], [-1, 0, 1, 0], [(0, 0), (1, 1), (2, 2), (3, 1)])
    linkage = random_linkage(tree, seed)
    linkage = linkage._replace(
        limit_stiffness=100 * linkage.limit_stiffness, kp=50 * linkage.kp, friction_width=1e-3 * linkage.friction_width
    )
    if seed == 3:
        linkage = linkage._replace(force_limit=0.05 * linkage.force_limit)
    q, v = random_state(tree, seed + 9, speed=3.0)
    controls, wrenches = given_for(tree, seed)
    dt = 2e-2
    _, new_v = step(tree, q, v, linkage, GRAVITY, controls, wrenches, dt=dt, substeps=1, frames=1)
    assert residual_at_the_end(tree, linkage, q, v, new_v[:, 0], controls[:, 0], wrenches[:, 0], dt) < 1e-4


@pytest.mark.parametrize("integrator", ["implicit", "symplectic", "rk4"])
def test_gradient_of_every_input_of_a_tree_with_every_joint(integrator):
    linkage = random_linkage(MIXED, 3)
    q, v = random_state(MIXED, 4)
    controls, wrenches = given_for(MIXED, 5)
    inputs = [q, v, GRAVITY, controls, wrenches, *linkage]
    names = ["coordinates", "rates", "gravity", "controls", "wrenches", *Linkage._fields]
    inputs = [t.clone().requires_grad_(True) for t in inputs]

    def function(*values):
        return step(MIXED, values[0], values[1], Linkage(*values[5:]), *values[2:5], integrator=integrator)

    rows = gradient_check(function, inputs, names)
    zero = {row.name for row in rows if row.analytic == 0.0}
    assert all(row.passed and not row.note.startswith("excluded") for row in rows), "\n" + format_table(rows)
    assert zero <= {"lower", "control_lower", "control_upper", "force_limit"}, "\n" + format_table(rows)


def test_gradient_of_bounds_that_are_met_and_of_limits():
    tree = tree_of([2, 3, 4, 2], [-1, 0, 1, 2], [(0, 0), (1, 1), (3, 2), (3, 0)])
    linkage = random_linkage(tree, 3)
    a = torch.tensor([[-3.0, -3.0, 3.0, 2.0]])
    linkage = linkage._replace(
        control_lower=torch.tensor([[-1.0, -1.0, -1.0, -1.0]]),
        control_upper=torch.tensor([[1.0, 1.0, 1.0, 1.0]]),
        force_limit=torch.tensor([[9.0, 0.1, 9.0, 0.4]]),
        lower=torch.full((1, 4), -0.4),
        upper=torch.full((1, 4), 0.4),
    )
    q, v = random_state(tree, 4)
    q[:, 0], q[:, 1], q[:, -1] = 0.6, -0.5, 0.7
    q[:, 2:6] = torch.nn.functional.normalize(torch.tensor([[0.3, 0.2, -0.1, 1.0]]), dim=1)
    _, wrenches = given_for(tree, 5)
    fields = ["lower", "upper", "limit_stiffness", "limit_damping", "control_lower", "control_upper", "force_limit"]
    inputs = [getattr(linkage, name).clone().requires_grad_(True) for name in fields]

    def function(*values):
        now = linkage._replace(**dict(zip(fields, values, strict=True)))
        return step(tree, q, v, now, GRAVITY, a[:, None], wrenches)

    rows = gradient_check(function, inputs, fields)
    assert all(row.passed and row.analytic != 0.0 and not row.note for row in rows), "\n" + format_table(rows)


def test_worlds_are_independent_and_shared_inputs_sum_their_gradients():
    linkage = random_linkage(MIXED, 3)
    q, v = random_state(MIXED, 4, worlds=3)
    controls, wrenches = given_for(MIXED, 5)
    mass = linkage.mass.clone().requires_grad_(True)
    together = step(MIXED, q, v, linkage._replace(mass=mass), GRAVITY, controls, wrenches)
    weights = torch.randn(together[1].shape, generator=torch.Generator().manual_seed(0))
    (shared,) = torch.autograd.grad((together[1] * weights).sum(), mass)
    repeated = linkage.mass.expand(3, -1).clone().requires_grad_(True)
    each = [
        step(MIXED, q[w : w + 1], v[w : w + 1], linkage._replace(mass=repeated[w : w + 1]), GRAVITY, controls, wrenches)
        for w in range(3)
    ]
    assert torch.equal(together[1], torch.cat([e[1] for e in each]))
    (apart,) = torch.autograd.grad(sum((e[1] * weights[w]).sum() for w, e in enumerate(each)), repeated)
    assert torch.allclose(shared[0], apart.sum(0), rtol=1e-4, atol=1e-5)


def test_frames_in_one_call_are_the_same_as_frame_by_frame():
    linkage = random_linkage(MIXED, 3)
    q, v = random_state(MIXED, 4)
    controls, wrenches = given_for(MIXED, 5)
    both = step(MIXED, q, v, linkage, GRAVITY, controls, wrenches)
    one = step(MIXED, q, v, linkage, GRAVITY, controls[:, :1], wrenches[:, :1], frames=1)
    two = step(MIXED, one[0][:, 0], one[1][:, 0], linkage, GRAVITY, controls[:, 1:], wrenches[:, 1:], frames=1)
    assert torch.allclose(both[0][:, 1], two[0][:, 0], atol=1e-6) and torch.allclose(both[1][:, 1], two[1][:, 0], atol=1e-5)


@pytest.mark.filterwarnings("ignore:articulated_step. traced")  # every tree has its own shapes
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(st.tuples(st.sampled_from([0, 2, 3, 4]), st.integers(-1, 20)), min_size=0, max_size=3),
    st.booleans(),
    st.integers(0, 10_000),
    st.sampled_from(["implicit", "rk4"]),
)
def test_random_trees_have_no_nan_and_the_derivative_along_a_line_agrees(rows, floats, seed, integrator):
    kinds, parents = [1 if floats else 2], [-1]
    for kind, parent in rows:
        parents.append(min(parent, len(kinds) - 1))
        kinds.append(kind)
    drives = [(b, seed % 3) for b, kind in enumerate(kinds) if kind in (2, 3)][:1]
    tree = tree_of(kinds, parents, drives)
    linkage = random_linkage(tree, seed)
    if seed % 5 == 0:  # a joint whose spin and place are exactly zero
        q, v = random_state(tree, seed, speed=0.0)
    else:
        q, v = random_state(tree, seed, speed=3.0)
    controls, wrenches = given_for(tree, seed)
    inputs = [t.clone().requires_grad_(True) for t in (q, v, controls, wrenches, *linkage)]
    g = torch.Generator().manual_seed(seed)
    along = [torch.randn(t.shape, generator=g) * (float(t.detach().abs().mean()) if t.numel() else 0.0) for t in inputs]
    weights: list[Tensor] = []

    def loss(values):
        out = step(tree, values[0], values[1], Linkage(*values[4:]), GRAVITY, *values[2:4], integrator=integrator, substeps=2)
        if not weights:
            weights.extend(torch.randn(o.shape, generator=g).double() for o in out)
        return sum((o.double() * w).sum() for o, w in zip(out, weights, strict=True))

    value = loss(inputs)
    gradients = torch.autograd.grad(value, inputs)
    assert torch.isfinite(value) and all(torch.isfinite(t).all() for t in gradients)
    slope = float(sum((g.double() * d).sum() for g, d in zip(gradients, along, strict=True)))
    with torch.no_grad():
        differences = []
        for h in (1e-3, 5e-4):
            ends = [loss([t + s * h * d for t, d in zip(inputs, along, strict=True)]).item() for s in (1.0, -1.0)]
            differences.append((ends[0] - ends[1]) / (2 * h))
    size = max(abs(differences[1]), abs(slope))
    if abs(differences[0] - differences[1]) < 0.01 * size:  # smooth at this place
        noise = 1e-6 * abs(value.item()) / 5e-4 + 1e-3
        assert abs(slope - differences[1]) < 0.02 * size + noise
