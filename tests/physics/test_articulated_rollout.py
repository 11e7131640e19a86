"""Motions of trees against closed forms and accurate integrations: values and derivatives."""

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.special import ellipe, ellipk
from torch import Tensor

from dvc.errors import UserError
from dvc.records import State
from physics.articulated_rollout import ArticulatedRollout
from physics.articulation import FREE, PRISMATIC, REVOLUTE, Linkage, Topology
from tests.physics.trees import plain_linkage, tree_of

G = 9.81
STEP = 1e-30j  # complex step


def leaf(value: float) -> Tensor:
    return torch.tensor(value, requires_grad=True)


def roll(
    tree: Topology, q: Tensor, v: Tensor, linkage: Linkage, gravity: Tensor, dt: float, steps: int, integrator: str, per=20
):
    rollout = ArticulatedRollout(
        tree, frame_rate=1.0 / (per * dt), frame_count=steps // per, substeps=per, integrator=integrator
    )
    return rollout(State(q, v), linkage, gravity)


def down(g: Tensor) -> Tensor:
    return torch.stack([torch.zeros(()), torch.zeros(()), -g])[None]


def gradients(value: Tensor, leaves: dict[str, Tensor]) -> dict[str, float]:
    found = torch.autograd.grad(value, list(leaves.values()), retain_graph=True)
    return {name: float(g) for name, g in zip(leaves, found, strict=True)}


def reference(rate, start, parameters: dict[str, float], time: float):
    """End state and its derivatives in the parameters, by complex steps through an integration to 1e-12."""

    def end(values):
        y = np.asarray(start(values), complex)
        n = len(y)

        def real(t, z):
            d = rate(z[:n] + 1j * z[n:] * 1e-30, values)
            return np.concatenate([d.real, d.imag * 1e30])

        z = solve_ivp(real, (0, time), np.concatenate([y.real, y.imag * 1e30]), method="DOP853", rtol=1e-12, atol=1e-13).y[
            :, -1
        ]
        return z[:n], z[n:]

    value, _ = end(parameters)
    return value, {name: end(parameters | {name: parameters[name] + STEP})[1] for name in parameters}


def pendulum_rate(y, p):
    inertia = p["m"] * p["L"] ** 2 * (1 + p["k"])
    return np.array([y[1], (-p["m"] * p["g"] * p["L"] * np.sin(y[0]) - p["b"] * y[1]) / inertia])


def pendulum(p: dict[str, Tensor]) -> tuple[Topology, Linkage]:
    tree = tree_of([REVOLUTE], [-1])
    com = torch.stack([torch.zeros(()), torch.zeros(()), -p["L"]])[None, None]
    inertia = (p["k"] * p["m"] * p["L"] ** 2) * torch.eye(3)[None, None]
    return tree, plain_linkage(
        tree, mass=p["m"].reshape(1, 1), center_of_mass=com, inertia=inertia, damping=p["b"].reshape(1, 1)
    )


@pytest.mark.parametrize(
    ("integrator", "dt", "k", "b"), [("rk4", 1e-3, 0.0, 0.0), ("rk4", 1e-3, 1 / 3, 0.2), ("implicit", 5e-4, 0.0, 0.0)]
)
def test_pendulum(integrator, dt, k, b):
    values = {"L": 1.0, "th0": 1.0, "w0": 0.0, "g": G, "m": 1.0, "k": k, "b": b}
    exact, slopes = reference(pendulum_rate, lambda p: [p["th0"], p["w0"]], values, 3.0)
    p = {name: leaf(value) for name, value in values.items()}
    tree, linkage = pendulum(p)
    path = roll(tree, p["th0"].reshape(1, 1), p["w0"].reshape(1, 1), linkage, down(p["g"]), dt, round(3.0 / dt), integrator)
    ends = {0: path.coordinates[0, -1, 0], 1: path.rates[0, -1, 0]}
    for i, end in ends.items():
        assert abs(end.item() - exact[i]) < 1e-3 * abs(exact[i])
        for name, g in gradients(end, p).items():
            if name == "m" and b == 0.0:
                assert abs(g) < 1e-6
            else:
                bound = 2e-3 if integrator == "rk4" else 1e-2  # the semi-implicit step is of first order
                assert abs(g - slopes[name][i]) < bound * abs(slopes[name][i]), name


def test_period_of_a_pendulum():
    p = {"L": leaf(1.0), "th0": leaf(1.0), "g": leaf(G), "m": torch.tensor(1.0), "k": torch.tensor(0.0), "b": torch.tensor(0.0)}
    m = np.sin(0.5) ** 2
    period = 4 * np.sqrt(1.0 / G) * ellipk(m)
    slope = 4 * np.sqrt(1.0 / G) * (ellipe(m) - (1 - m) * ellipk(m)) / (2 * m * (1 - m)) * np.sin(0.5) * np.cos(0.5)
    tree, linkage = pendulum(p)
    path = roll(tree, p["th0"].reshape(1, 1), torch.zeros(1, 1), linkage, down(p["g"]), 1e-3, 2160, "rk4", per=10)
    v = path.rates[0, :, 0].double()
    n = int(((v[:-1] > 0) & (v[1:] <= 0)).nonzero()[-1])  # it comes back: the crossing of the cubic through four nodes
    times, part = [0.01 * i for i in range(n - 1, n + 3)], v[n - 1 : n + 3]
    t = times[1] + 0.005
    for _ in range(4):
        others = [[b for b in times if b != a] for a in times]
        at, beside = (
            sum(float(np.prod([(x - b) / (a - b) for b in rest])) * y for a, rest, y in zip(times, others, part, strict=True))
            for x in (t, t + 1e-5)
        )
        crossing = t - at / ((beside - at).item() / 1e-5)  # Newton's step carries the derivative
        t = crossing.item()
    assert abs(t - period) < 1e-4 * period
    found = gradients(crossing, {name: p[name] for name in ("L", "g", "th0")})
    expected = {"L": period / 2.0, "g": -period / (2 * G), "th0": slope}
    for name, exact in expected.items():
        assert abs(found[name] - exact) < 1e-3 * abs(exact), name


def double_rate(y, p):
    a, b, wa, wb = y
    d, m = a - b, p["m1"] + p["m2"]
    top = np.array([[m * p["L1"], p["m2"] * p["L2"] * np.cos(d)], [p["L1"] * np.cos(d), p["L2"]]])
    right = np.array(
        [
            -p["m2"] * p["L2"] * wb**2 * np.sin(d) - m * p["g"] * np.sin(a),
            p["L1"] * wa**2 * np.sin(d) - p["g"] * np.sin(b),
        ]
    )
    return np.concatenate([y[2:], np.linalg.solve(top, right)])


def test_double_pendulum():
    values = {"L1": 1.0, "L2": 0.7, "m1": 1.0, "m2": 0.5, "th1": 1.2, "th2": -0.4, "g": G}
    exact, slopes = reference(double_rate, lambda p: [p["th1"], p["th2"], 0, 0], values, 2.0)
    p = {name: leaf(value) for name, value in values.items()}
    tree = tree_of([REVOLUTE, REVOLUTE], [-1, 0])
    zero = torch.zeros(())
    # a positive angle moves the bob to +x: the axis is -y
    com = torch.stack([torch.stack([zero, zero, -p["L1"]]), torch.stack([zero, zero, -p["L2"]])])[None]
    place = torch.stack([torch.zeros(3), torch.stack([zero, zero, -p["L1"]])])[None]
    linkage = plain_linkage(
        tree,
        mass=torch.stack([p["m1"], p["m2"]])[None],
        center_of_mass=com,
        position=place,
        axis=torch.tensor([0.0, -1.0, 0.0]).expand(1, 2, 3),
    )
    q = torch.stack([p["th1"], p["th2"] - p["th1"]])[None]
    path = roll(tree, q, torch.zeros(1, 2), linkage, down(p["g"]), 5e-4, 4000, "rk4")
    a, b = path.coordinates[0, -1, 0], path.coordinates[0, -1].sum()
    x = path.positions[0, -1, 1, 0] + p["L2"] * torch.sin(b)
    z = path.positions[0, -1, 1, 2] - p["L2"] * torch.cos(b)

    def tip(y, v):
        return np.array(
            [v["L1"] * np.sin(y[0]) + v["L2"] * np.sin(y[1]), -v["L1"] * np.cos(y[0]) - v["L2"] * np.cos(y[1]), y[0], y[1]]
        )

    truth = tip(exact, values)
    for i, found in enumerate((x, z, a, b)):
        assert abs(found.item() - truth[i]) < 2e-3 * abs(truth[i])
        scale = max(abs(tip(exact + STEP * slopes[n], values | {n: values[n] + STEP}).imag[i] / 1e-30) for n in values)
        for name, g in gradients(found, p).items():
            slope = tip(exact + STEP * slopes[name], values | {name: values[name] + STEP}).imag[i] / 1e-30
            assert abs(g - slope) < 1e-2 * max(abs(slope), 1e-2 * scale), name


def top_rate(y, p):
    w, s, u = y[:3], y[3], y[4:]
    turn = np.array(
        [
            (p["I2"] - p["I3"]) * w[1] * w[2] / p["I1"],
            (p["I3"] - p["I1"]) * w[2] * w[0] / p["I2"],
            (p["I1"] - p["I2"]) * w[0] * w[1] / p["I3"],
        ]
    )
    cross = np.array([u[1] * w[2] - u[2] * w[1], u[2] * w[0] - u[0] * w[2], u[0] * w[1] - u[1] * w[0]])
    return np.concatenate([turn, [-0.5 * (u * w).sum()], 0.5 * (s * w + cross)])


def test_top_without_torque():
    values = {"I1": 1.0, "I2": 2.0, "I3": 3.0, "w1": 0.1, "w2": 2.0, "w3": 0.2}
    exact, slopes = reference(top_rate, lambda p: [p["w1"], p["w2"], p["w3"], 1, 0, 0, 0], values, 2.0)
    p = {name: leaf(value) for name, value in values.items()}
    tree = tree_of([FREE], [-1])
    linkage = plain_linkage(tree, inertia=torch.diag(torch.stack([p["I1"], p["I2"], p["I3"]]))[None, None])
    v = torch.cat([torch.zeros(3), torch.stack([p["w1"], p["w2"], p["w3"]])])[None]
    q = torch.tensor([[0.0, 0, 0, 0, 0, 0, 1]])
    path = roll(tree, q, v, linkage, torch.zeros(1, 3), 1e-3, 2000, "rk4")
    found = torch.cat([path.rates[0, -1, 3:], path.coordinates[0, -1, 6:7], path.coordinates[0, -1, 3:6]])
    for i in range(7):
        assert abs(found[i].item() - exact[i]) < 1e-3 * max(abs(exact[i]), 0.1)
        scale = max(abs(slopes[name][i]) for name in values)
        for name, g in gradients(found[i], p).items():
            assert abs(g - slopes[name][i]) < 5e-3 * max(abs(slopes[name][i]), 0.05 * scale), (i, name)


@pytest.mark.slow
def test_top_keeps_its_angular_momentum_and_energy_for_ten_seconds():
    tree = tree_of([FREE], [-1])
    moments = torch.tensor([1.0, 2.0, 3.0])
    linkage = plain_linkage(tree, inertia=torch.diag(moments)[None, None])
    q, v = torch.tensor([[0.0, 0, 0, 0, 0, 0, 1]]), torch.tensor([[0.0, 0, 0, 0.1, 2.0, 0.2]])
    path = roll(tree, q, v, linkage, torch.zeros(1, 3), 1e-3, 10_000, "rk4")
    body = path.rates[0, :, 3:].double() * moments
    u, s = path.coordinates[0, :, 3:6].double(), path.coordinates[0, :, 6:].double()
    turn = 2 * torch.linalg.cross(u, body)
    momentum = body + s * turn + torch.linalg.cross(u, turn)
    energy = 0.5 * (path.rates[0, :, 3:].double() ** 2 * moments).sum(-1)
    assert float((momentum - momentum[0]).norm(dim=-1).max() / momentum[0].norm()) < 1e-4
    assert float((energy / energy[0] - 1.0).abs().max()) < 1e-3


def slider(k: Tensor, m: Tensor, c: Tensor) -> tuple[Topology, Linkage]:
    tree = tree_of([PRISMATIC], [-1])
    shape = (1, 1)
    return tree, plain_linkage(tree, mass=m.reshape(shape), stiffness=k.reshape(shape), damping=c.reshape(shape))


def test_mass_on_a_spring():
    p = {"k": leaf(100.0), "m": leaf(1.0), "c": leaf(0.5), "x0": leaf(0.1), "v0": leaf(0.0)}

    def closed(v):
        a, w = v["c"] / (2 * v["m"]), np.sqrt(v["k"] / v["m"] - (v["c"] / (2 * v["m"])) ** 2 + 0j)
        b = (v["v0"] + a * v["x0"]) / w
        x = np.exp(-a) * (v["x0"] * np.cos(w) + b * np.sin(w))
        return np.array([x, -a * x + np.exp(-a) * w * (b * np.cos(w) - v["x0"] * np.sin(w))])

    values = {name: t.item() for name, t in p.items()}
    tree, linkage = slider(p["k"], p["m"], p["c"])
    path = roll(tree, p["x0"].reshape(1, 1), p["v0"].reshape(1, 1), linkage, torch.zeros(1, 3), 1e-3, 1000, "rk4")
    for i, end in enumerate((path.coordinates[0, -1, 0], path.rates[0, -1, 0])):
        exact = closed(values)[i].real
        assert abs(end.item() - exact) < 1e-3 * abs(exact)
        for name, g in gradients(end, p).items():
            slope = closed(values | {name: values[name] + STEP})[i].imag / 1e-30
            assert abs(g - slope) < 2e-3 * abs(slope), name


def test_semi_implicit_euler_is_exact_to_rounding():
    p = {"k": leaf(100.0), "m": leaf(1.0), "x0": leaf(0.1), "v0": leaf(0.0)}
    n, dt = 1000, 1e-3

    def closed(v):
        w = v["k"] / v["m"]
        step = np.array([[1 - dt * dt * w, dt], [-dt * w, 1]], complex)
        return np.linalg.matrix_power(step, n) @ np.array([v["x0"], v["v0"]], complex)

    values = {name: t.item() for name, t in p.items()}
    tree, linkage = slider(p["k"], p["m"], torch.zeros(()))
    path = roll(tree, p["x0"].reshape(1, 1), p["v0"].reshape(1, 1), linkage, torch.zeros(1, 3), dt, n, "symplectic")
    for i, end in enumerate((path.coordinates[0, -1, 0], path.rates[0, -1, 0])):
        exact = closed(values)[i].real
        assert abs(end.item() - exact) < 2e-5 * abs(exact)
        for name, g in gradients(end, p).items():
            slope = closed(values | {name: values[name] + STEP})[i].imag / 1e-30
            assert abs(g - slope) < 1e-4 * abs(slope), name


def test_free_fall_is_exact_to_rounding():
    p = {"z0": leaf(1.0), "v0": leaf(0.0), "g": leaf(G)}
    n, dt = 600, 1e-3
    tree = tree_of([FREE], [-1])
    zero = torch.zeros(())
    q = torch.stack([zero, zero, p["z0"], zero, zero, zero, zero + 1])[None]
    v = torch.stack([zero, zero, p["v0"], zero, zero, zero])[None]
    path = roll(tree, q, v, plain_linkage(tree, inertia=0.1 * torch.eye(3)[None, None]), down(p["g"]), dt, n, "implicit")
    z, speed = path.coordinates[0, -1, 2], path.rates[0, -1, 2]
    fall = dt * dt * n * (n + 1) / 2
    assert abs(z.item() - (1.0 - G * fall)) < 1e-5 and abs(speed.item() + n * dt * G) < 1e-5 * n * dt * G
    for end, expected in ((z, {"z0": 1.0, "v0": n * dt, "g": -fall}), (speed, {"z0": 0.0, "v0": 1.0, "g": -n * dt})):
        for name, g in gradients(end, p).items():
            assert abs(g - expected[name]) <= 1e-5 * abs(expected[name]), name


def hanging_chain(links: int, length: float = 0.1) -> tuple[Topology, Linkage]:
    tree = tree_of([REVOLUTE] * links, list(range(-1, links - 1)))
    arm = torch.tensor([0.0, 0.0, -length]).expand(1, links, 3)
    place = torch.cat([torch.zeros(1, 1, 3), arm[:, 1:]], dim=1)
    rod = torch.diag(torch.tensor([1.0, 1.0, 0.05])) * (length**2 / 12.0)
    return tree, plain_linkage(tree, center_of_mass=0.5 * arm, position=place, inertia=rod.expand(1, links, 3, 3))


@pytest.mark.slow
@pytest.mark.parametrize("integrator", ["implicit", "rk4"])
def test_chain_of_twenty_links_swings_for_ten_seconds(integrator):
    tree, linkage = hanging_chain(20)
    q = torch.zeros(1, 20)
    q[0, 0] = 1.0
    path = roll(tree, q, torch.zeros(1, 20), linkage, down(torch.tensor(G)), 1e-3, 10_000, integrator, per=20)
    turned = torch.cumsum(path.coordinates[0].double(), dim=1)  # angles to the vertical: all axes are parallel
    spin = torch.cumsum(path.rates[0].double(), dim=1)
    step = torch.stack([-torch.sin(turned), -torch.cos(turned)], dim=-1) * 0.1
    speed = torch.stack([-torch.cos(turned), torch.sin(turned)], dim=-1) * 0.1 * spin[..., None]
    middle = torch.cumsum(step, 1) - 0.5 * step
    moving = torch.cumsum(speed, 1) - 0.5 * speed
    energy = (G * middle[..., 1] + 0.5 * (moving**2).sum(-1) + 0.5 * 0.01 / 12 * spin**2).sum(1)
    swing = float((G * 0.05 * (1 - np.cos(1.0)) * torch.arange(1, 40, 2).double()).sum())  # energy above hanging straight
    drift = float((energy - energy[0]).abs().max()) / swing
    print(f"{integrator}: energy drift {drift:.2e}")
    assert torch.isfinite(path.coordinates).all()
    assert drift < (1e-2 if integrator == "rk4" else 0.2)


class Push(torch.nn.Module):
    def forward(self, coordinates: Tensor, rates: Tensor, time: float) -> Tensor:
        return -2.0 * coordinates[:, :1] - 0.1 * rates[:, :1]


def test_a_controller_is_called_once_a_frame_and_has_gradients():
    tree = tree_of([REVOLUTE], [-1], [(0, 0)])
    linkage = plain_linkage(tree, center_of_mass=torch.tensor([[[0.0, 0.0, -1.0]]]), gear=torch.ones(1, 1))
    q = torch.tensor([[0.3]], requires_grad=True)
    closed = ArticulatedRollout(tree, frame_rate=100.0, frame_count=5, substeps=4, controller=Push())
    path = closed(State(q, torch.zeros(1, 1)), linkage)
    x, v, held = q, torch.zeros(1, 1), []
    for _ in range(5):
        held.append(Push()(x, v, 0.0))
        one = ArticulatedRollout(tree, frame_rate=100.0, frame_count=1, substeps=4)(
            State(x, v), linkage, controls=held[-1][:, None]
        )
        x, v = one.coordinates[:, -1], one.rates[:, -1]
    assert torch.equal(x, path.coordinates[:, -1])
    a, b = (torch.autograd.grad(t.sum(), q)[0] for t in (x, path.coordinates[:, -1]))
    assert torch.allclose(a, b) and abs(float(a)) > 0.1
    open_loop = ArticulatedRollout(tree, frame_rate=100.0, frame_count=5, substeps=4, chunk=3)
    again = open_loop(State(q, torch.zeros(1, 1)), linkage, controls=torch.stack(held, dim=1))
    assert torch.allclose(again.coordinates, path.coordinates, atol=1e-6)


def test_parameters_of_one_world_serve_many_and_many_serve_one_state():
    tree, linkage = hanging_chain(3)
    gravity = torch.tensor([[0.0, 0.0, -G], [0.0, 0.0, -1.6]])
    rollout = ArticulatedRollout(tree, frame_rate=50.0, frame_count=4)
    state = State(torch.full((1, 3), 0.4), torch.zeros(1, 3))
    both = rollout(state, linkage, gravity)
    moon = rollout(state, linkage, gravity[1:])
    assert both.positions.shape == (2, 5, 3, 3) and torch.equal(both.coordinates[1:], moon.coordinates)


def test_link_velocities_are_the_derivative_of_positions():
    tree, linkage = hanging_chain(3)
    rollout = ArticulatedRollout(tree, frame_rate=1000.0, frame_count=20, substeps=1, integrator="rk4")
    path = rollout(State(torch.tensor([[0.5, -0.3, 0.2]]), torch.tensor([[1.0, 2.0, -1.0]])), linkage)
    differences = (path.positions[:, 2:] - path.positions[:, :-2]) / (2 * path.interval)
    assert torch.allclose(differences, path.velocities[:, 1:-1], atol=2e-3)


@pytest.mark.parametrize(
    ("options", "match"),
    [({"integrator": "euler"}, "integrator: expected one of implicit"), ({"substeps": 1.5}, "substeps: expected a whole")],
)
def test_a_wrong_setting_is_named(options, match):
    with pytest.raises(UserError, match=match):
        ArticulatedRollout(hanging_chain(2)[0], **({"frame_rate": 10.0, "frame_count": 2} | options))


def test_a_wrong_shape_is_named():
    tree, linkage = hanging_chain(2)
    rollout = ArticulatedRollout(tree, frame_rate=10.0, frame_count=2)
    state = State(torch.zeros(1, 2), torch.zeros(1, 2))
    with pytest.raises(UserError, match=r"state.position: expected shape \(world, 2\)"):
        rollout(State(torch.zeros(1, 3), torch.zeros(1, 2)), linkage)
    with pytest.raises(UserError, match=r"wrenches: expected shape \(world, 2, 2, 6\)"):
        rollout(state, linkage, wrenches=torch.zeros(1, 3, 2, 6))
    with pytest.raises(UserError, match=r"mass: expected shape \(world, 2\), got \(1, 3\)"):
        rollout(state, hanging_chain(3)[1])


def test_a_control_that_is_no_number_is_named_and_not_clamped():
    tree = tree_of([REVOLUTE], [-1], [(0, 0)])
    rollout = ArticulatedRollout(tree, frame_rate=10.0, frame_count=2)
    state = State(torch.zeros(1, 1), torch.zeros(1, 1))
    with pytest.raises(UserError, match="controls: expected numbers, got NaN"):
        rollout(state, plain_linkage(tree), controls=torch.full((1, 1, 1), torch.nan))
