"""Impacts against closed forms: values and derivatives."""

import math

import numpy as np
import pytest
import torch

from physics.contact_scene import ContactScene, Shape
from physics.impulse_scene import impulse_numbers
from tests.physics.contact_scenes import GROUND, ONE, ball_linkage, box_linkage, free_state
from tests.physics.impulse_scenes import bouncing, close, cube_twin, leaf, rollout
from tests.physics.trees import plain_linkage, tree_of

BALL = ContactScene(ONE, [GROUND, Shape("sphere", 0, (0.1,))])
ZERO = torch.zeros(1)


def test_a_ball_bounces_with_exact_times_of_impact():
    names = {"h0": 1.0, "v0": 0.0, "e": 0.8, "g": 9.81}
    for time in (0.8, 1.5, 2.0):  # after one, two and three impacts
        leaves = {name: leaf(value) for name, value in names.items()}
        h0, v0, e, g = leaves.values()
        state = free_state(torch.stack([ZERO, ZERO, h0 + 0.1], 1), torch.stack([ZERO, ZERO, v0, ZERO, ZERO, ZERO], 1))
        numbers = impulse_numbers(BALL, restitution=e)
        motion = rollout(BALL, time, 1e-3)(state, ball_linkage(torch.tensor([0.1])), numbers, torch.stack([ZERO, ZERO, -g], 1))
        assert int(motion.impacts.sum()) == {0.8: 1, 1.5: 2, 2.0: 3}[time]
        outputs = motion.coordinates[0, -1, 2] - 0.1, motion.rates[0, -1, 2]
        exact = bouncing(time, *names.values())
        for k, output in enumerate(outputs):
            close(output, exact[k].real, 2e-4)
            for name, got in zip(names, torch.autograd.grad(output, list(leaves.values()), retain_graph=True), strict=True):
                moved = names | {name: names[name] + 1e-30j}
                close(got, bouncing(time, *moved.values())[k].imag / 1e-30, 2e-3, scale=0.02)


@pytest.mark.parametrize("substeps", [1, 10])
def test_height_changes_its_sign_at_a_bounce(substeps):
    """Without gravity z = e (-v0 t - h0) after the impact: dz/dh0 = -e, wherever in a substep it falls."""
    for e in (1.0, 0.6):
        h0, v0, restitution = leaf(0.3), leaf(-1.0), leaf(e)
        state = free_state(torch.stack([ZERO, ZERO, h0 + 0.1], 1), torch.stack([ZERO, ZERO, v0, ZERO, ZERO, ZERO], 1))
        run = rollout(BALL, 1.0, 0.7e-2, substeps, rest_speed=1e-3)
        time = run.frame_count / run.frame_rate
        motion = run(
            state, ball_linkage(torch.tensor([0.1])), impulse_numbers(BALL, restitution=restitution), torch.zeros(1, 3)
        )
        z = motion.coordinates[0, -1, 2] - 0.1
        z.backward()
        close(z, e * (time - 0.3), 1e-5)
        close(h0.grad, -e, 1e-4)
        close(v0.grad, -e * time, 1e-4)
        close(restitution.grad, time - 0.3, 1e-4)


def test_a_ball_struck_off_its_centre_spins():
    """A sphere that lands with slip: p = (1 + e) m u_n, friction mu p while it slips, spin r mu p / I."""
    mu, e, radius = leaf(0.2), leaf(0.7), leaf(0.1)
    state = free_state(torch.stack([ZERO, ZERO, radius + 0.05], 1), torch.tensor([[2.0, 0.0, -1.0, 0.0, 0.0, 0.0]]))
    numbers = impulse_numbers(BALL, restitution=e, friction=mu, size=[None, radius[:, None]])
    motion = rollout(BALL, 0.1, 1e-3)(state, ball_linkage(radius), numbers, torch.zeros(1, 3))
    close(motion.rates[0, -1, 0], 2.0 - 0.2 * 1.7, 1e-5)
    close(motion.rates[0, -1, 4], 0.2 * 1.7 / (0.4 * 0.1), 1e-5)
    got = torch.autograd.grad(motion.rates[0, -1, 4], (mu, e, radius))
    for value, want in zip(got, (1.7 / 0.04, 0.2 / 0.04, -0.2 * 1.7 / (0.4 * 0.01)), strict=True):
        close(value, want, 1e-4)


@pytest.mark.parametrize("angle", [0.0, 0.2])
def test_a_sliding_block_stops_where_coulomb_says_and_stays(angle):
    """d = v0^2 / (2 a), a = g (mu cos + sin); the mass does not count."""
    v0, mu, g, theta, density = leaf(2.0), leaf(0.4), leaf(9.81), leaf(angle), leaf(1000.0)
    half = torch.tensor([[0.1, 0.1, 0.02]])
    scene = ContactScene(ONE, [GROUND, Shape("box", 0, (0.1, 0.1, 0.02))])
    gravity = torch.stack([-g * torch.sin(theta), ZERO, -g * torch.cos(theta)], dim=1)
    velocity = torch.stack([v0, ZERO, ZERO, ZERO, ZERO, ZERO], dim=1)
    state = free_state(torch.tensor([[0.0, 0.0, 0.02]]), velocity)
    motion = rollout(scene, 0.7, 1e-3)(state, box_linkage(half, density), impulse_numbers(scene, friction=mu), gravity)
    a = 9.81 * (0.4 * math.cos(angle) + math.sin(angle))
    distance = motion.coordinates[0, -1, 0]
    distance.backward()
    close(distance, 2.0 / a, 5e-3)
    close(v0.grad, 2.0 / a, 1e-2)
    close(mu.grad, -2.0 / a**2 * 9.81 * math.cos(angle), 1e-2)
    close(g.grad, -2.0 / a / 9.81, 1e-2)
    close(theta.grad, -2.0 / a**2 * 9.81 * (math.cos(angle) - 0.4 * math.sin(angle)), 1e-2)
    assert abs(float(density.grad)) * 1000.0 < 1e-4 * float(distance)
    assert abs(float(motion.rates[0, -1, 0])) < 1e-5


def test_a_sphere_slips_until_it_rolls():
    """v_f = (5 v0 + 2 r w0) / 7, x = v0 t* - mu g t*^2 / 2 + v_f (t - t*), t* = 2 (v0 - r w0) / (7 mu g)."""
    v0, w0, mu, g, radius = leaf(2.0), leaf(0.0), leaf(0.3), leaf(9.81), leaf(0.1)
    state = free_state(torch.stack([ZERO, ZERO, radius], 1), torch.stack([v0, ZERO, ZERO, ZERO, w0, ZERO], 1))
    numbers = impulse_numbers(BALL, friction=mu, size=[None, radius[:, None]])
    motion = rollout(BALL, 2.0, 1e-3)(state, ball_linkage(radius), numbers, torch.stack([ZERO, ZERO, -g], 1))
    leaves = (v0, w0, mu, g, radius)

    def x_of(v0: float, w0: float, mu: float, g: float, r: float) -> float:
        stop, end = 2 * (v0 - r * w0) / (7 * mu * g), (5 * v0 + 2 * r * w0) / 7
        return v0 * stop - 0.5 * mu * g * stop**2 + end * (2.0 - stop)

    base = np.array([2.0, 0.0, 0.3, 9.81, 0.1])
    by_x = [(x_of(*(base + d)) - x_of(*(base - d))) / 2e-6 for d in 1e-6 * np.eye(5)]
    cases = (
        (motion.rates[0, -1, 0], 10.0 / 7.0, (5 / 7, 0.2 / 7, 0.0, 0.0, 0.0)),
        (motion.rates[0, -1, 4], 100.0 / 7.0, (50 / 7, 2 / 7, 0.0, 0.0, -1000 / 7)),
        (motion.coordinates[0, -1, 0], x_of(*base), by_x),
    )
    for output, value, slopes in cases:
        close(output, value, 1e-3)
        for got, want in zip(torch.autograd.grad(output, leaves, retain_graph=True), slopes, strict=True):
            close(got, want, 1e-2, scale=0.05)


@pytest.mark.parametrize(
    ("shape", "height"),
    [
        (Shape("box", 0, (0.05, 0.05, 0.05)), 0.05),
        (Shape("sphere", 0, (0.05,)), 0.05),
        (Shape("rounded_box", 0, (0.05, 0.05, 0.05, 0.01)), 0.05),
        (Shape("ellipsoid", 0, (0.05, 0.05, 0.03)), 0.03),
        (Shape("capsule", 0, (0.05, 0.03), rotation=(0.0, 0.5**0.5, 0.0, 0.5**0.5)), 0.03),
    ],
    ids=lambda value: value.kind if isinstance(value, Shape) else "",
)
def test_bodies_rest_for_ten_seconds(shape, height):
    scene = ContactScene(ONE, [GROUND, shape])
    state = free_state(torch.tensor([[0.0, 0.0, height]]), torch.zeros(1, 6))
    motion = rollout(scene, 10.0, 1e-3, 20)(state, box_linkage(torch.tensor([[0.05, 0.05, 0.05]])), impulse_numbers(scene))
    place = motion.coordinates[0]
    assert float((place[:, :3] - place[0, :3]).norm(dim=1).max()) < 1e-5
    assert float(motion.rates[0].abs().max()) < 1e-3  # no buzz
    assert int(motion.impacts.sum()) == 0


def test_a_box_that_is_dropped_comes_to_rest_and_forgets_its_height():
    height, half = leaf(0.12), torch.tensor([[0.05, 0.05, 0.05]], requires_grad=True)
    scene = ContactScene(ONE, [GROUND, Shape("box", 0, (0.05, 0.05, 0.05))])
    state = free_state(torch.stack([ZERO, ZERO, height], 1), torch.zeros(1, 6))
    numbers = impulse_numbers(scene, restitution=0.4, size=[None, half])
    motion = rollout(scene, 1.0, 1e-3)(state, box_linkage(half), numbers)
    assert int(motion.impacts.sum()) >= 3
    close(motion.coordinates[0, -1, 2], 0.05, 1e-4)
    assert float(motion.rates[0, -1].detach().abs().max()) < 1e-4
    motion.coordinates[0, -1, 2].backward()
    assert abs(float(height.grad)) < 1e-3
    close(half.grad[0, 2], 1.0, 1e-3)


@pytest.mark.parametrize("share", [0.5, 0.99, 1.01])
def test_on_an_incline_a_box_sticks_within_the_cone(share):
    friction = 0.5
    angle = math.atan(share * friction)
    scene = ContactScene(ONE, [GROUND, Shape("box", 0, (0.05, 0.05, 0.05))])
    gravity = 9.81 * torch.tensor([[math.sin(angle), 0.0, -math.cos(angle)]])
    state = free_state(torch.tensor([[0.0, 0.0, 0.05]]), torch.zeros(1, 6))
    motion = rollout(scene, 3.0, 1e-3)(
        state, box_linkage(torch.tensor([[0.05, 0.05, 0.05]])), impulse_numbers(scene, friction=friction), gravity
    )
    if share < 1.0:
        assert float(motion.coordinates[0, -1, :2].abs().max()) < 1e-5
    else:
        close(motion.rates[0, -1, 0], 3.0 * 9.81 * (math.sin(angle) - friction * math.cos(angle)), 1e-3)


CUBE = {
    "position": [0.0, 0.0, 0.12], "rotation": [0.3, 0.2, 0.1, 0.9], "velocity": [0.8, 0.3, -1.0], "spin": [2.0, -4.0, 1.5],
    "half": [0.05], "mass": [1.3], "inertia": [2e-3], "friction": [0.2], "restitution": [0.6],
}  # fmt: skip


@pytest.mark.parametrize("friction", [0.1, 0.9], ids=["slides", "sticks"])
def test_a_cube_struck_at_a_corner_against_a_float64_twin(friction):
    """Place, velocity and spin after the impact, and their derivatives in everything, friction and spin included."""
    values = CUBE | {"friction": [friction]}
    leaves = {name: torch.tensor([value], requires_grad=True) for name, value in values.items()}
    scene = ContactScene(ONE, [GROUND, Shape("box", 0, (0.05, 0.05, 0.05))])
    turn = torch.nn.functional.normalize(leaves["rotation"], dim=1)
    state = free_state(leaves["position"], torch.cat([leaves["velocity"], leaves["spin"]], 1))
    state = state._replace(position=torch.cat([leaves["position"], turn], 1))
    linkage = plain_linkage(ONE, mass=leaves["mass"], inertia=leaves["inertia"][..., None, None] * torch.eye(3))
    numbers = impulse_numbers(
        scene, restitution=leaves["restitution"][0], friction=leaves["friction"][0], size=[None, leaves["half"].expand(1, 3)]
    )
    motion = rollout(scene, 0.05, 1e-3)(state, linkage, numbers, torch.zeros(1, 3))
    assert int(motion.impacts.sum()) == 1
    got = torch.cat([motion.coordinates[0, -1, :3], motion.rates[0, -1]])

    def twin(moved: dict[str, list[float]]) -> np.ndarray:
        return cube_twin({name: v if len(v) > 1 else v[0] for name, v in moved.items()}, 0.05)

    want = twin(values)
    assert np.allclose(got.detach().numpy(), want, rtol=1e-4, atol=2e-5)
    weights = torch.sin(torch.arange(9.0) + 1.0) * torch.tensor([10.0, 10.0, 10.0, 1.0, 1.0, 1.0, 0.1, 0.1, 0.1])
    (got * weights).sum().backward()
    for name, value in values.items():
        for i, number in enumerate(value):
            h = 1e-5 * max(abs(number), 1e-2)
            ends = []
            for sign in (1.0, -1.0):
                moved = list(value)
                moved[i] += sign * h
                ends.append(twin(values | {name: moved}) @ weights.double().numpy())
            slope = (ends[0] - ends[1]) / (2 * h)
            close(float(leaves[name].grad[0, i]) * max(abs(number), 0.1), slope * max(abs(number), 0.1), 2e-3, scale=0.05)


def test_a_link_strikes_a_wall():
    """A pendulum of angle q meets the wall x = d: q' turns into -e q'; after it q = q* - e w (t - t*), without gravity."""
    wall_shape = Shape("half_space", rotation=(0.0, -(0.5**0.5), 0.0, 0.5**0.5))
    scene = ContactScene(tree_of([2], [-1]), [wall_shape, Shape("sphere", 0, (0.1,), position=(0.0, 0.0, -1.0))])
    rate, e, arm, wall = leaf(-1.0), leaf(0.7), leaf(1.0), leaf(0.4)
    zero = torch.zeros_like(arm)
    linkage = plain_linkage(
        scene.tree, mass=torch.ones(1, 1), center_of_mass=torch.stack([zero, zero, -arm], 1)[:, None],
        inertia=(0.004 * torch.eye(3)).expand(1, 1, 3, 3),
    )  # fmt: skip
    ball = torch.stack([zero, zero, -arm], 1)
    position = torch.stack([torch.stack([wall, zero, zero], 1), ball], 1)
    numbers = impulse_numbers(scene, restitution=e, friction=0.0, position=position)
    state = free_state(torch.zeros(1, 3), rate[:, None])._replace(position=torch.zeros(1, 1))
    motion = rollout(scene, 0.5, 1e-3)(state, linkage, numbers, torch.zeros(1, 3))
    assert int(motion.impacts.sum()) == 1
    angle = math.asin(0.3)  # of the arm where the ball touches; x = -sin(q) for the axis y
    q = motion.coordinates[0, -1, 0]
    close(abs(float(q.detach())), angle - 0.7 * (0.5 - angle), 1e-4)
    q.backward()
    sign = math.copysign(1.0, float(q.detach()))
    slope = (1 + 0.7) / math.sqrt(1 - 0.09)
    close(e.grad, -sign * (0.5 - angle), 1e-3)
    close(wall.grad, sign * slope, 1e-3)
    close(arm.grad, -sign * slope * 0.3, 1e-3)


def test_two_balls_collide_and_keep_their_momentum():
    two = tree_of([1, 1], [-1, -1])
    scene = ContactScene(two, [Shape("sphere", 0, (0.1,)), Shape("sphere", 1, (0.1,))])
    mass, e = torch.tensor([[1.0, 2.0]], requires_grad=True), leaf(0.5)
    linkage = plain_linkage(two, mass=mass, inertia=(0.004 * torch.eye(3)).expand(1, 2, 3, 3))
    state = free_state(torch.zeros(1, 3), torch.tensor([[1.0, 0, 0, 0, 0, 0, -0.5, 0, 0, 0, 0, 0]]))
    state = state._replace(position=torch.tensor([[0.0, 0, 0, 0, 0, 0, 1, 0.5, 0, 0, 0, 0, 0, 1]]))
    motion = rollout(scene, 0.4, 1e-3)(state, linkage, impulse_numbers(scene, restitution=e), torch.zeros(1, 3))
    v1, v2 = motion.rates[0, -1, 0], motion.rates[0, -1, 6]
    close(v1 + 2.0 * v2, 0.0, 1e-5, scale=1.0)
    close(v2 - v1, 0.5 * 1.5, 1e-5)
    v1.backward()  # v1 = (m1 u1 + m2 u2 - m2 e (u1 - u2)) / (m1 + m2)
    close(e.grad, -2.0 * 1.5 / 3.0, 1e-4)
    close(mass.grad[0, 0], (1.0 - 0.0 + 0.5 - 0.0) / 3.0, 1e-4, scale=1.0)
    close(mass.grad[0, 1], (-0.5 - 0.75 + 0.5) / 3.0, 1e-4, scale=1.0)


def test_a_ball_passes_its_speed_on_to_an_equal_one():
    """Newton's cradle with a gap: the first stops, the second goes on, the third at last."""
    three = tree_of([1, 1, 1], [-1, -1, -1])
    scene = ContactScene(three, [Shape("sphere", b, (0.1,)) for b in range(3)])
    linkage = plain_linkage(three, mass=torch.ones(1, 3), inertia=(0.004 * torch.eye(3)).expand(1, 3, 3, 3))
    place = torch.cat([torch.tensor([[0.25 * b, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]]) for b in range(3)], 1)
    rates = torch.zeros(1, 18)
    rates[0, 0] = 1.0
    state = free_state(torch.zeros(1, 3), rates)._replace(position=place)
    motion = rollout(scene, 0.3, 1e-3)(state, linkage, impulse_numbers(scene, restitution=1.0), torch.zeros(1, 3))
    assert int(motion.impacts.sum()) == 2
    assert np.allclose(motion.rates[0, -1, [0, 6, 12]].numpy(), [0.0, 0.0, 1.0], atol=2e-6)
