"""experiments/toss_data.py: what is read, what is refused, and what flights with known numbers give back."""

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from dvc.errors import UserError
from experiments.toss_data import (
    GRAVITY,
    NOMINAL_HALF_WIDTH,
    SAMPLE_RATE,
    Toss,
    first_contact,
    flight_scale,
    flight_state,
    read_toss,
    read_tosses,
)

SCALE, CONTACT, SAMPLES = 0.97, 14, 40


def toss(seed: int, noise: float = 0.0, contact: int = CONTACT, samples: int = SAMPLES) -> tuple[Toss, dict]:
    """Flight from known numbers to the sample before `contact`; then the velocity turns round and the rate changes."""
    rng = np.random.default_rng(seed)
    velocity, rate = np.array([*rng.uniform(-1, 1, 2), -0.5]), rng.uniform(-5, 5, 3)
    start, rotation = rng.uniform(0.1, 0.3, 3), Rotation.random(random_state=seed)
    t = np.arange(samples) / SAMPLE_RATE
    drop = np.array([0.0, 0.0, -0.5 * SCALE * GRAVITY])
    after = np.maximum(t - (contact - 1) / SAMPLE_RATE, 0.0)
    position = start + np.outer(t, velocity) + np.outer(t**2, drop) + np.outer(after, [0.0, 0.0, 1.5])
    turned = rotation * Rotation.from_rotvec(np.outer(t, rate)) * Rotation.from_rotvec(np.outer(after, [8.0, 0.0, 0.0]))
    position = position + noise * rng.normal(size=position.shape)
    turned = turned * Rotation.from_rotvec(10.0 * noise * rng.normal(size=position.shape))
    q = turned.as_quat()
    signs = np.cumprod(np.where((q[1:] * q[:-1]).sum(1) < 0.0, -1.0, 1.0))
    q[1:] *= signs[:, None]
    at = (contact - 1) / SAMPLE_RATE
    truth = {
        "position": start + at * velocity + at**2 * drop,
        "velocity": velocity + 2.0 * at * drop,
        "rotation": rotation * Rotation.from_rotvec(at * rate),
        "rate": rate,
    }
    return Toss(str(seed), position, q, np.gradient(position, axis=0), np.tile(rate, (samples, 1))), truth


def rows(one: Toss) -> torch.Tensor:
    """As upstream writes it."""
    h = NOMINAL_HALF_WIDTH
    parts = [one.position / h, one.orientation[:, [3, 0, 1, 2]], one.velocity / h, one.angular_velocity]
    return torch.tensor(np.concatenate([*parts, np.zeros((one.samples, 6))], axis=1))[None]


def test_a_file_is_read_back_in_metres_and_without_jumps_of_sign(tmp_path):
    one, _ = toss(3)
    raw = rows(one)
    raw[0, 5:9, 3:7] *= -1.0
    torch.save(raw, tmp_path / "3.pt")
    got = read_toss(tmp_path / "3.pt")
    assert got.name == "3" and got.samples == SAMPLES
    for name in ("position", "orientation", "velocity", "angular_velocity"):
        assert np.allclose(getattr(got, name), getattr(one, name), atol=1e-12), name


def test_a_tensor_that_was_saved_with_gradient_is_read(tmp_path):
    raw = rows(toss(0)[0])
    torch.save(torch.nn.Parameter(raw), tmp_path / "1.pt")
    torch.save(raw, tmp_path / "2.pt")
    one, other = read_tosses(tmp_path)
    assert (one.position == other.position).all() and (one.orientation == other.orientation).all()


def test_tosses_are_in_the_order_of_their_numbers(tmp_path):
    for seed in (100, 9, 20):
        torch.save(rows(toss(seed)[0]), tmp_path / f"{seed}.pt")
    assert [one.name for one in read_tosses(tmp_path)] == ["9", "20", "100"]
    assert [one.name for one in read_tosses(tmp_path, [100, "9"])] == ["100", "9"]


def changed(row: int, column: int, value: float) -> torch.Tensor:
    raw = rows(toss(0)[0])
    raw[0, row, column] = value
    return raw


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: changed(7, 2, float("nan")), "expected finite numbers, got 1 bad samples, the first is 7"),
        (lambda: changed(7, 11, float("inf")), "expected finite numbers"),
        (lambda: changed(7, 3, 3.0), "expected unit quaternions"),
        (lambda: rows(toss(0)[0])[0], r"expected a tensor of shape \(1, sample, 19\), got \(40, 19\)"),
        (lambda: rows(toss(0)[0])[..., :13], r"got \(1, 40, 13\)"),
        (lambda: rows(toss(0)[0])[:, :3], "expected at least 7 samples, got 3"),
        (lambda: {"a": 1}, "got dict"),
        (lambda: rows(toss(0)[0]).long(), "floating-point"),
    ],
)
def test_bad_content_is_one_line(tmp_path, content, message):
    torch.save(content(), tmp_path / "5.pt")
    with pytest.raises(UserError, match=message) as caught:
        read_tosses(tmp_path)
    assert "5.pt" in str(caught.value) and "\n" not in str(caught.value)


def test_bad_folders_and_names_are_one_line(tmp_path):
    with pytest.raises(UserError, match="nothing there"):
        read_tosses(tmp_path / "nope")
    with pytest.raises(UserError, match="got none in"):
        read_tosses(tmp_path)
    (tmp_path / "1.pt").write_bytes(b"no tensor")
    with pytest.raises(UserError, match=r"1.pt.*cannot be read"):
        read_tosses(tmp_path)
    with pytest.raises(UserError, match="a file"):
        read_tosses(tmp_path / "1.pt")
    with pytest.raises(UserError, match="2 that are not there"):
        read_tosses(tmp_path, [1, 2])
    for names in ([1, 1], []):
        with pytest.raises(UserError, match="none, or one twice"):
            read_tosses(tmp_path, names)


class Payload:
    def __reduce__(self):
        return (print, ("it ran",))


def test_a_file_that_would_run_code_is_refused(tmp_path, capsys):
    torch.save(Payload(), tmp_path / "1.pt")
    with pytest.raises(UserError, match="cannot be read"):
        read_tosses(tmp_path)
    assert "it ran" not in capsys.readouterr().out


@pytest.mark.parametrize("contact", [6, 14, 30])
@pytest.mark.parametrize("seed", range(6))
def test_the_first_contact_is_found(seed, contact):
    one, _ = toss(seed, noise=3e-5, contact=contact)
    assert first_contact(one) == contact


def test_one_bad_sample_is_no_contact():
    one, _ = toss(1)
    one.position[9] += [0.0, 0.0, 5e-4]
    assert first_contact(one) == CONTACT


def test_flight_without_end_is_refused():
    one, _ = toss(1, contact=SAMPLES + 2)
    with pytest.raises(UserError, match="expected a contact, got free flight in all 40 samples"):
        first_contact(one)


@pytest.mark.parametrize("seed", range(6))
def test_the_state_before_contact_is_the_true_one(seed):
    one, truth = toss(seed)
    got = flight_state(one, SCALE)
    assert got.sample == CONTACT - 1 and got.position_rms < 1e-9 and got.rotation_rms < 1e-6
    assert np.allclose(got.position, truth["position"], atol=1e-9) and np.allclose(got.velocity, truth["velocity"], atol=1e-7)
    assert (Rotation.from_quat(got.orientation).inv() * truth["rotation"]).magnitude() < 1e-6
    assert np.allclose(got.angular_velocity, truth["rate"], atol=1e-5)


def test_nothing_after_the_contact_is_used():
    one, _ = toss(2, noise=3e-5)
    other = Toss(*(getattr(one, name).copy() if name != "name" else one.name for name in Toss._fields))
    other.position[CONTACT:] += 1.0
    other.orientation[CONTACT:] = [0.0, 0.0, 0.0, 1.0]
    for a, b in zip(flight_state(one, SCALE, CONTACT), flight_state(other, SCALE, CONTACT), strict=True):
        assert np.array_equal(a, b)


def test_a_bad_sample_weighs_little():
    one, truth = toss(4, noise=1e-5)
    one.position[4] += 0.02
    got = flight_state(one, SCALE, CONTACT)
    assert np.abs(got.position - truth["position"]).max() < 5e-4


def test_the_scale_of_gravity_is_recovered_within_its_error():
    tosses = [toss(seed, noise=5e-5)[0] for seed in range(12)]
    scale, error = flight_scale(tosses)
    assert abs(scale - SCALE) < 4.0 * error and error < 0.02
    exact, _ = flight_scale([toss(seed)[0] for seed in range(3)])
    assert abs(exact - SCALE) < 1e-6


def test_what_cannot_be_fitted_is_refused():
    one, _ = toss(0)
    with pytest.raises(UserError, match="at least one toss"):
        flight_scale([])
    with pytest.raises(UserError, match="more than 3 samples"):
        flight_scale([one], [3])
    with pytest.raises(UserError, match="expected a contact from sample 3"):
        flight_state(one, 1.0, contact=2)
    with pytest.raises(UserError, match="`at` before it"):
        flight_state(one, 1.0, contact=9, at=9)
    with pytest.raises(UserError, match="scale above 0"):
        flight_state(one, 0.0, contact=9)


@pytest.mark.data("cube_toss")
def test_measured_tosses():
    tosses = read_tosses("data:cube_toss")
    contacts = [first_contact(one) for one in tosses]
    assert len(tosses) == 40 and min(contacts) == 7 and max(contacts) == 22
    scale, error = flight_scale(tosses, contacts)
    assert abs(scale - 0.978) < 0.006 and error < 0.001
    corners = SCALE * NOMINAL_HALF_WIDTH * np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    for one, contact in zip(tosses, contacts, strict=True):
        state = flight_state(one, scale, contact)
        assert state.position_rms < 4e-4 and state.rotation_rms < 5e-3, one.name
        given = np.median(one.angular_velocity[:contact], axis=0)
        assert np.linalg.norm(state.angular_velocity - given) < 0.1, one.name
        lowest = (Rotation.from_quat(one.orientation[contact]).apply(corners))[:, 2].min() + one.position[contact, 2]
        assert -5e-3 < lowest < 5e-3, one.name
