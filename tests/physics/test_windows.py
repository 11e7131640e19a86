"""Truncated windows: how calls are cut, and the derivative that is left, against recursions in numpy and against restarts."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dvc.errors import UserError
from dvc.records import State
from physics.articulated_rollout import ArticulatedRollout
from physics.articulation import REVOLUTE
from physics.contact_scene import ContactScene, Shape
from physics.rollout import Rollout
from physics.windows import calls, carried
from tests.physics.contact_scenes import GROUND, ONE, box_linkage, free_state
from tests.physics.contact_scenes import rollout as contact_rollout
from tests.physics.scenes import point_body, scalar, vertical
from tests.physics.trees import plain_linkage, tree_of

G, RATE, SUBSTEPS, FRAMES = 9.81, 50.0, 4, 12
DT = 1.0 / (RATE * SUBSTEPS)
ANGLE, DAMPING = 1.2, 0.4
PENDULUM = tree_of([REVOLUTE], [-1])


@given(st.integers(1, 60), st.integers(1, 20), st.none() | st.integers(1, 70))
def test_calls_cover_every_frame_once_and_no_call_crosses_a_border(count, chunk, window):
    parts = list(calls(count, chunk, window))
    assert [first + i for first, frames in parts for i in range(frames)] == list(range(count))
    assert all(1 <= frames <= chunk for _, frames in parts)
    if window is not None:
        assert all(first // window == (first + frames - 1) // window for first, frames in parts)
        (t,) = carried(window, window, torch.ones(1, requires_grad=True))
        assert not t.requires_grad
    (t,) = carried(0, window, torch.ones(1, requires_grad=True))
    assert t.requires_grad


def swing(window: int | None, chunk: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Angles at the ends of frames (frame,), with the leaves: first angle and damping."""
    angle, damping = torch.tensor([[ANGLE]], requires_grad=True), torch.tensor([[DAMPING]], requires_grad=True)
    linkage = plain_linkage(PENDULUM, center_of_mass=torch.tensor([[[0.0, 0.0, -1.0]]]), damping=damping)
    rollout = ArticulatedRollout(
        PENDULUM, frame_rate=RATE, frame_count=FRAMES, substeps=SUBSTEPS, integrator="symplectic", chunk=chunk, window=window
    )
    return rollout(State(angle, torch.zeros(1, 1)), linkage).coordinates[0, 1:, 0], angle, damping


def swing_twin(window: int) -> tuple[np.ndarray, np.ndarray]:
    """The symplectic steps of the pendulum in double precision, and their sensitivities, set to zero where a window begins."""
    state = np.array([ANGLE, 0.0])
    slopes = np.array([[1.0, 0.0], [0.0, 0.0]])  # rows: angle and rate; columns: first angle and damping
    angles, rows = [], []
    for frame in range(FRAMES):
        if frame and frame % window == 0:
            slopes = np.zeros((2, 2))
        for _ in range(SUBSTEPS):
            q, v = state
            rate = v + DT * (-G * np.sin(q) - DAMPING * v)
            d_rate = slopes[1] + DT * (-G * np.cos(q) * slopes[0] - DAMPING * slopes[1] - np.array([0.0, v]))
            slopes = np.stack([slopes[0] + DT * d_rate, d_rate])
            state = np.array([q + DT * rate, rate])
        angles.append(state[0])
        rows.append(slopes[0])
    return np.array(angles), np.array(rows)


@pytest.mark.parametrize(("window", "chunk"), [(1, None), (3, 2), (5, None), (12, 5), (40, None), (None, None)])
def test_pendulum_has_exactly_the_truncated_derivative(window, chunk):
    weights = np.linspace(1.0, -0.4, FRAMES)
    expected, slopes = swing_twin(window or FRAMES)
    angles, angle, damping = swing(window, chunk)
    np.testing.assert_allclose(angles.detach().numpy(), expected, atol=2e-5)
    found = torch.autograd.grad((angles * torch.tensor(weights, dtype=torch.float32)).sum(), [angle, damping])
    np.testing.assert_allclose([float(f) for f in found], weights @ slopes, rtol=2e-4, atol=2e-5)


def test_a_window_biases_the_gradient_and_a_window_over_the_horizon_does_not():
    full, cut, over = (torch.autograd.grad(angles.sum(), [a, d]) for angles, a, d in (swing(None), swing(3), swing(FRAMES)))
    for i in range(2):
        assert abs(float(cut[i] - full[i])) > 0.2 * abs(float(full[i]))
        assert float(over[i]) == pytest.approx(float(full[i]), rel=1e-5)


@pytest.mark.parametrize("window", [2, 7, 30])
def test_particle_with_damping_has_exactly_the_truncated_derivative(window):
    c, height, frames, per = 0.7, 1.5, 10, 4
    dt = 1.0 / (30.0 * per)
    damping, first = torch.tensor([c], requires_grad=True), torch.tensor([height], requires_grad=True)
    path = Rollout("particle", frame_rate=30.0, last_frame=frames, substeps=per, window=window)(
        vertical(first, torch.tensor([2.0])), point_body(), scalar(G), damping=damping
    )

    def rate(y: np.ndarray) -> np.ndarray:  # height, speed, and the derivatives of both in damping and first height
        return np.array([y[1], -G - c * y[1], y[3], -y[1] - c * y[3], y[5], -c * y[5]])

    y, rows = np.array([height, 2.0, 0.0, 0.0, 1.0, 0.0]), []
    for i in range(frames * per):  # Runge-Kutta's derivative is Runge-Kutta of the derivatives
        if i and i % (window * per) == 0:
            y = np.append(y[:2], np.zeros(4))
        a = rate(y)
        b = rate(y + 0.5 * dt * a)
        d = rate(y + 0.5 * dt * b)
        y = y + dt / 6.0 * (a + 2.0 * b + 2.0 * d + rate(y + dt * d))
        rows.append(y)
    table = np.array(rows)
    heights = path.positions[0, 1:, 2]
    np.testing.assert_allclose(heights.detach().numpy(), table[:, 0], atol=1e-5)
    found = torch.autograd.grad(heights.sum(), [damping, first])
    np.testing.assert_allclose([float(f[0]) for f in found], [table[:, 2].sum(), table[:, 4].sum()], rtol=1e-4, atol=1e-4)


def test_a_sliding_box_has_the_gradient_of_its_windows_begun_anew():
    half = torch.tensor([[0.05, 0.05, 0.05]])
    scene = ContactScene(ONE, [GROUND, Shape("box", 0, (0.05, 0.05, 0.05))])
    start = free_state(torch.tensor([[0.0, 0.0, 0.0499]]), torch.tensor([[1.0, 0.3, 0.0, 0.0, 0.0, 0.0]]))

    def gradient(state: State, time: float, window: int | None) -> tuple[float, Tensor, Tensor]:
        friction = torch.tensor([0.4], requires_grad=True)
        motion = contact_rollout(scene, time, 1e-3, window=window)(state, box_linkage(half), scene.numbers(friction=friction))
        motion.coordinates[0, 1:, :2].sum().backward()
        return float(friction.grad), motion.coordinates[:, -1].detach(), motion.rates[:, -1].detach()

    whole, part, over = (gradient(start, 0.08, window)[0] for window in (None, 2, 8))
    assert over == pytest.approx(whole, rel=1e-4)
    state, total = start, 0.0
    for _ in range(4):
        one, q, v = gradient(state, 0.02, None)
        state, total = State(q, v), total + one
    assert part == pytest.approx(total, rel=1e-4) and abs(part - whole) > 0.2 * abs(whole)


def test_a_controller_at_a_border_sees_the_state_without_its_past():
    seen: list[bool] = []

    class Watch(torch.nn.Module):
        def forward(self, q, v, time):
            seen.append(q.requires_grad)
            return q.new_zeros(1, 0)

    rollout = ArticulatedRollout(PENDULUM, frame_rate=RATE, frame_count=6, substeps=2, controller=Watch(), window=3)
    linkage = plain_linkage(PENDULUM, center_of_mass=torch.tensor([[[0.0, 0.0, -1.0]]]))
    rollout(State(torch.tensor([[ANGLE]], requires_grad=True), torch.zeros(1, 1)), linkage)
    assert seen == [True, True, True, False, False, False]


@pytest.mark.parametrize("window", [0, -2, 1.5, True])
def test_windows_that_are_refused(window):
    with pytest.raises(UserError, match=r"Rollout.window: expected a number of frames from 1, or None .*, got"):
        Rollout("particle", frame_rate=30.0, last_frame=4, window=window)
    with pytest.raises(UserError, match=r"ArticulatedRollout\.window"):
        ArticulatedRollout(PENDULUM, frame_rate=30.0, frame_count=4, window=window)
