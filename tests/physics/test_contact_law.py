"""The force of one contact against a float64 twin: value, derivative, smoothness, never pulling."""

import numpy as np
import pytest
import warp as wp
from hypothesis import given, settings
from hypothesis import strategies as st

from physics.contact_law import BEND, contact_force, contact_slope, material_vector

wp.init()


@wp.kernel
def law_kernel(
    materials: wp.array(dtype=material_vector),
    gaps: wp.array(dtype=float),
    normals: wp.array(dtype=wp.vec3),
    velocities: wp.array(dtype=wp.vec3),
    h: float,
    secant: float,
    forces: wp.array(dtype=wp.vec3),
    slopes: wp.array(dtype=wp.mat33),
):
    i = wp.tid()
    forces[i] = contact_force(materials[i], gaps[i], normals[i], velocities[i], h)
    slopes[i] = contact_slope(materials[i], gaps[i], normals[i], velocities[i], h, secant)


def law(m, gap, n, u, h, secant=0.0):
    count = len(gap)
    force, slope = wp.zeros(count, dtype=wp.vec3, device="cpu"), wp.zeros(count, dtype=wp.mat33, device="cpu")
    given_arrays = [
        wp.array(np.asarray(a, np.float32), dtype=t, device="cpu")
        for a, t in ((m, material_vector), (gap, float), (n, wp.vec3), (u, wp.vec3))
    ]
    wp.launch(law_kernel, count, [*given_arrays, h, secant], [force, slope], device="cpu")
    return force.numpy().copy(), slope.numpy().copy()


def twin(m, gap, n, u, h):
    k, p, c, mu, width = m
    along = n @ u
    d = -(gap + h * along)
    y = 1.0 - c * along
    bend = float(BEND)
    ramp = y if y > bend else (max(y + bend, 0.0) ** 2 / (4.0 * bend))
    f = k * max(d, 0.0) ** p * ramp
    across = u - n * along
    return n * f - mu * f * across / np.sqrt(across @ across + width * width)


def cases(count, seed):
    rng = np.random.default_rng(seed)
    m = np.stack([rng.uniform(1e3, 1e5, count), rng.uniform(1.5, 2.5, count), rng.uniform(0, 2, count),
                  rng.uniform(0, 1, count), rng.uniform(1e-3, 1e-1, count)], axis=1)  # fmt: skip
    n = rng.normal(size=(count, 3))
    n /= np.linalg.norm(n, axis=1, keepdims=True)
    return m, rng.uniform(-0.02, 0.005, count), n, rng.normal(size=(count, 3)), 1e-3


def test_force_and_slope_agree_with_the_twin():
    m, gap, n, u, h = cases(200, 0)
    force, slope = law(m, gap, n, u, h)
    for i in range(len(gap)):
        want = twin(m[i], gap[i], n[i], u[i], h)
        assert np.abs(force[i] - want).max() <= 1e-4 * (np.abs(want).max() + 1e-3)
        step = 1e-6
        columns = [
            (twin(m[i], gap[i], n[i], u[i] + e, h) - twin(m[i], gap[i], n[i], u[i] - e, h)) / (2 * step)
            for e in step * np.eye(3)
        ]
        numeric = np.stack(columns, axis=1)
        assert np.abs(slope[i] - numeric).max() <= 2e-3 * np.abs(numeric).max() + 1e-3


def test_the_secant_is_a_damper_of_the_same_strength():
    m, gap, n, u, h = cases(50, 1)
    force, slope = law(m, gap, n, u, h, secant=1.0)
    for f, a, normal, velocity in zip(force, slope, n, u, strict=True):
        across = velocity - normal * (normal @ velocity)
        tangential = f - normal * (normal @ f)
        assert np.allclose(a @ across, tangential, rtol=1e-3, atol=1e-3 * (1.0 + np.abs(f).max()))


@settings(max_examples=200, deadline=None)
@given(
    st.floats(-0.1, 0.1), st.floats(-10, 10), st.floats(-10, 10), st.floats(0, 10), st.floats(0, 2), st.floats(1e-4, 1e-1)
)  # fmt: skip
def test_it_never_pulls_and_stays_in_the_cone(gap, along, across, dissipation, friction, width):
    force, slope = law(
        [[1e4, 1.5, dissipation, friction, width]], [gap], [[0.0, 0.0, 1.0]], [[across, 0.0, along]], 1e-3
    )  # fmt: skip
    assert np.isfinite(force).all() and np.isfinite(slope).all()
    assert force[0, 2] >= 0.0
    assert abs(force[0, 0]) <= friction * force[0, 2] * (1.0 + 1e-5)
    assert force[0, 0] * across <= 0.0


@pytest.mark.parametrize("dissipation", [0.0, 1.0])
def test_the_force_sets_in_without_a_kink(dissipation):
    gaps = np.array([1e-4, 1e-6, 0.0, -1e-8, -1e-6, -1e-4])
    count = len(gaps)
    m = np.tile([1e5, 1.5, dissipation, 0.5, 1e-3], (count, 1))
    _, slope = law(m, gaps, np.tile([0.0, 0.0, 1.0], (count, 1)), np.tile([0.3, 0.0, 0.0], (count, 1)), 1e-3)
    size = np.abs(slope).max(axis=(1, 2))
    assert (size[:3] == 0.0).all()
    assert size[3] < 0.05 * size[5] and size[4] < 0.2 * size[5]  # like the square root of the depth: no jump
