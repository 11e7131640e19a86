"""Projection and rays of the whole camera against a twin in double precision, with distortion, and by `wp.grad`."""

import numpy as np
import pytest
import torch
import warp as wp
from torch import Tensor

from dvc import Unsupported, UserError
from dvc.gradient_check import gradient_check
from dvc.records import Camera, Film
from render.camera import project, rotation_from_angles
from render.camera_projection import (
    CAMERA_NUMBERS,
    camera_vector,
    depth_of,
    film_of,
    film_velocity,
    origin_of,
    pack_camera,
    ray_of,
    undistort,
    unfolded,
    weighted_film,
    weighted_ray,
)
from tests.physics.scenes import assert_certified

WIDTH, HEIGHT = 640, 480
FILM = Film(WIDTH, HEIGHT, 0.0, 0.0, WIDTH, HEIGHT, 1.0)
STRONG = (-0.28, 0.07, 0.004, -0.003, 0.01)
LENSES = {
    "none": (0.0, 0.0, 0.0, 0.0, 0.0),
    "barrel": STRONG,
    "pincushion": (0.35, 0.1, -0.005, 0.006, 0.05),
    "tangential": (0.02, 0.0, 0.03, -0.025, 0.0),
    "moustache": (-0.2, 0.25, 0.0, 0.002, -0.03),
}


@wp.kernel(enable_backward=False)
def look_and_back(
    films: wp.array(dtype=wp.vec2),
    camera: wp.array(dtype=camera_vector),
    distance: wp.array(dtype=float),
    start: float,
    undistorted: wp.array(dtype=wp.vec2),
    origins: wp.array(dtype=wp.vec3),
    directions: wp.array(dtype=wp.vec3),
    back: wp.array(dtype=wp.vec2),
    depths: wp.array(dtype=float),
):
    # forward calls of every function first: the reverse that `wp.grad` needs below must exist all the same
    i = wp.tid()
    u = undistort(films[i], camera[i])
    undistorted[i] = u
    origins[i] = origin_of(films[i], camera[i], u, start)
    directions[i] = ray_of(films[i], camera[i], u)
    point = origins[i] + distance[i] * directions[i]
    back[i] = film_of(point, camera[i])
    depths[i] = depth_of(point, camera[i])


@wp.kernel(enable_backward=False)
def film_gradients(
    points: wp.array(dtype=wp.vec3),
    velocities: wp.array(dtype=wp.vec3),
    camera: wp.array(dtype=camera_vector),
    weights: wp.array(dtype=wp.vec2),
    by_point: wp.array(dtype=wp.vec3),
    by_camera: wp.array(dtype=camera_vector),
    velocity: wp.array(dtype=wp.vec2),
):
    i = wp.tid()
    gp, gc, _gw = wp.grad(weighted_film)(points[i], camera[i], weights[i])
    by_point[i] = gp
    by_camera[i] = gc
    velocity[i] = film_velocity(points[i], velocities[i], camera[i])


@wp.kernel(enable_backward=False)
def ray_gradients(
    films: wp.array(dtype=wp.vec2),
    camera: wp.array(dtype=camera_vector),
    start: float,
    origin_weights: wp.array(dtype=wp.vec3),
    direction_weights: wp.array(dtype=wp.vec3),
    by_film: wp.array(dtype=wp.vec2),
    by_camera: wp.array(dtype=camera_vector),
    by_solution: wp.array(dtype=wp.vec2),
):
    i = wp.tid()
    u = undistort(films[i], camera[i])
    gf, gc, gu, _gs, _go, _gd = wp.grad(weighted_ray)(films[i], camera[i], u, start, origin_weights[i], direction_weights[i])
    by_film[i] = gf
    by_camera[i] = gc
    by_solution[i] = gu


@wp.kernel(enable_backward=False)
def ask_for_folds(
    points: wp.array(dtype=wp.vec3),
    camera: wp.array(dtype=camera_vector),
    films: wp.array(dtype=wp.vec2),
    seen: wp.array(dtype=int),
):
    i = wp.tid()
    films[i] = film_of(points[i], camera[i])
    seen[i] = 1
    if not unfolded(points[i], films[i], camera[i]):
        seen[i] = 0


def array(values: np.ndarray, dtype: type) -> wp.array:
    return wp.array(np.ascontiguousarray(values, dtype=np.float32), dtype=dtype, device="cpu")


def a_camera(lens: tuple[float, ...] = STRONG, orthographic: bool = False) -> Camera:
    rotation = rotation_from_angles(torch.tensor([0.3]), torch.tensor([-0.2]), torch.tensor([0.5]))
    focal = torch.tensor([[60.0, 55.0]]) if orthographic else torch.tensor([[520.0, 480.0]])
    distortion = None if orthographic else torch.tensor([lens])
    return Camera(torch.tensor([[0.4, -2.0, 0.7]]), rotation, focal, torch.tensor([[310.0, 252.0]]), orthographic, distortion)


def film_points(count: int, seed: int = 0) -> np.ndarray:
    inside = np.random.default_rng(seed).uniform((0, 0), (WIDTH, HEIGHT), (count, 2))
    inside[:5] = [(0, 0), (WIDTH, 0), (0, HEIGHT), (WIDTH, HEIGHT), (310, 252)]
    return inside.astype(np.float32).astype(np.float64)


def film_twin(point: np.ndarray, camera: np.ndarray) -> np.ndarray:
    """film_of in double precision, written out anew. point (..., 3), camera (..., 22)."""
    rotation = camera[..., 3:12].reshape(*camera.shape[:-1], 3, 3)
    c = np.einsum("...ij,...j->...i", rotation, point - camera[..., :3])
    x, y = np.moveaxis(c[..., :2] / np.where(camera[..., 21:] > 0, 1.0, c[..., 2:]), -1, 0)
    k1, k2, p1, p2, k3 = np.moveaxis(camera[..., 16:21], -1, 0)
    r = np.hypot(x, y)
    radial = 1 + k1 * r**2 + k2 * r**4 + k3 * r**6
    xd = x * radial + 2 * p1 * x * y + p2 * (r**2 + 2 * x**2)
    yd = y * radial + p1 * (r**2 + 2 * y**2) + 2 * p2 * x * y
    return camera[..., 14:16] + camera[..., 12:14] * np.stack([xd, yd], -1)


def ray_twin(film: np.ndarray, camera: np.ndarray, start: float) -> tuple[np.ndarray, np.ndarray]:
    """Origin and direction in double precision; the lens is inverted by continuation in its strength."""
    target = (film - camera[..., 14:16]) / camera[..., 12:14]
    flat = np.concatenate([np.zeros_like(camera[..., :12]), np.ones_like(target), np.zeros_like(target)], -1)
    plane = np.concatenate([flat, camera[..., 16:21], np.zeros_like(target[..., :1])], -1)
    plane[..., [3, 7, 11]] = 1.0
    u = target.copy()
    for strength in (0.5, 1.0):
        plane[..., 16:21] = strength * camera[..., 16:21]
        for _ in range(6):
            h = 1e-6
            at = film_twin(np.concatenate([u, np.ones_like(u[..., :1])], -1), plane)
            columns = []
            for axis in range(2):
                step = np.zeros(3)
                step[axis] = h
                n = np.concatenate([u, np.ones_like(u[..., :1])], -1)
                columns.append((film_twin(n + step, plane) - film_twin(n - step, plane)) / (2 * h))
            u = u - np.linalg.solve(np.stack(columns, -1), (at - target)[..., None])[..., 0]
    rotation = camera[..., 3:12].reshape(*camera.shape[:-1], 3, 3)
    seen = camera[..., 21:] == 0
    n = np.concatenate([u, np.ones_like(u[..., :1])], -1)
    n = np.where(seen, n / np.linalg.norm(n, axis=-1, keepdims=True), [0.0, 0.0, 1.0])
    offset = np.concatenate([target, np.full_like(target[..., :1], start)], -1)
    origin = camera[..., :3] + np.where(seen, 0.0, np.einsum("...ji,...j->...i", rotation, offset))
    return origin, np.einsum("...ji,...j->...i", rotation, n)


def packed(camera: Camera, count: int) -> np.ndarray:
    return pack_camera(camera, count, FILM).double().numpy()


def shoot(film: np.ndarray, camera: np.ndarray, distance: np.ndarray, start: float = 0.25) -> list[np.ndarray]:
    n = len(film)
    outputs = [wp.zeros(n, dtype=t, device="cpu") for t in (wp.vec2, wp.vec3, wp.vec3, wp.vec2, float)]
    inputs = [array(film, wp.vec2), array(camera, camera_vector), array(distance, float), start]
    wp.launch(look_and_back, n, inputs, outputs, device="cpu")
    return [o.numpy().copy() for o in outputs]


CASES = [*((name, False) for name in LENSES), ("none", True)]


@pytest.mark.parametrize("lens,orthographic", CASES)
def test_a_ray_comes_back_to_its_film_point(lens: str, orthographic: bool) -> None:
    film = film_points(400)
    camera = packed(a_camera(LENSES[lens], orthographic), len(film))
    distance = np.random.default_rng(1).uniform(0.5, 6.0, len(film))
    _, origins, directions, back, depths = shoot(film, camera, distance)
    assert np.abs(back - film).max() < 1e-3
    assert np.abs(np.linalg.norm(directions, axis=-1) - 1).max() < 1e-6
    assert (depths > 0).all()
    origin, direction = ray_twin(film, camera, 0.25)
    assert np.abs(origins - origin).max() < 1e-5 and np.abs(directions - direction).max() < 2e-6


@pytest.mark.parametrize("lens,orthographic", CASES)
def test_gradient_of_the_film_point_by_every_number(lens: str, orthographic: bool) -> None:
    rng = np.random.default_rng(2)
    film = film_points(40)
    camera = packed(a_camera(LENSES[lens], orthographic), len(film))
    camera = camera.astype(np.float32).astype(np.float64)
    origin, direction = ray_twin(film, camera, 0.25)
    points = (origin + rng.uniform(1.0, 4.0, (len(film), 1)) * direction).astype(np.float32).astype(np.float64)
    weights = rng.normal(size=(len(film), 2)).astype(np.float32).astype(np.float64)
    velocities = rng.normal(size=(len(film), 3)).astype(np.float32).astype(np.float64)
    n = len(film)
    outputs = [wp.zeros(n, dtype=t, device="cpu") for t in (wp.vec3, camera_vector, wp.vec2)]
    inputs = [array(points, wp.vec3), array(velocities, wp.vec3), array(camera, camera_vector), array(weights, wp.vec2)]
    wp.launch(film_gradients, n, inputs, outputs, device="cpu")
    by_point, by_camera, velocity = (o.numpy().copy() for o in outputs)
    for h in (1e-4, 1e-5, 1e-6):
        moved = (film_twin(points + h * velocities, camera) - film_twin(points - h * velocities, camera)) / (2 * h)
        np.testing.assert_allclose(velocity, moved, rtol=1e-4, atol=2e-3)
        for axis in range(3):
            step = h * np.eye(3)[axis]
            change = (film_twin(points + step, camera) - film_twin(points - step, camera)) / (2 * h)
            np.testing.assert_allclose(by_point[:, axis], (weights * change).sum(-1), rtol=1e-4, atol=5e-3)
        for number in range(CAMERA_NUMBERS - 1):
            if orthographic and 16 <= number < 21:
                assert not by_camera[:, number].any()
                continue
            step = h * np.eye(CAMERA_NUMBERS)[number]
            change = (film_twin(points, camera + step) - film_twin(points, camera - step)) / (2 * h)
            exact = (weights * change).sum(-1)
            assert orthographic or np.abs(exact).max() > 0
            np.testing.assert_allclose(by_camera[:, number], exact, rtol=2e-4, atol=1e-5 * np.abs(exact).max() + 1e-6)


@pytest.mark.parametrize("lens,orthographic", CASES)
def test_gradient_of_a_ray_by_every_number(lens: str, orthographic: bool) -> None:
    rng = np.random.default_rng(3)
    film = film_points(40)
    n = len(film)
    camera = packed(a_camera(LENSES[lens], orthographic), n).astype(np.float32).astype(np.float64)
    w_origin, w_direction = rng.normal(size=(2, n, 3)).astype(np.float32).astype(np.float64)
    outputs = [wp.zeros(n, dtype=t, device="cpu") for t in (wp.vec2, camera_vector, wp.vec2)]
    inputs = [array(film, wp.vec2), array(camera, camera_vector), 0.25, array(w_origin, wp.vec3), array(w_direction, wp.vec3)]
    wp.launch(ray_gradients, n, inputs, outputs, device="cpu")
    by_film, by_camera, by_solution = (o.numpy().copy() for o in outputs)
    assert np.abs(by_solution).max() < 1e-4  # Newton's step forgets where it started

    def loss(film: np.ndarray, camera: np.ndarray) -> np.ndarray:
        origin, direction = ray_twin(film, camera, 0.25)
        return (w_origin * origin + w_direction * direction).sum(-1)

    for h in (1e-4, 1e-5):
        for axis in range(2):
            step = h * 100 * np.eye(2)[axis]
            exact = (loss(film + step, camera) - loss(film - step, camera)) / (200 * h)
            np.testing.assert_allclose(by_film[:, axis], exact, rtol=1e-3, atol=2e-5 * np.abs(exact).max() + 1e-12)
        for number in range(CAMERA_NUMBERS - 1):
            if orthographic and 16 <= number < 21:
                assert not by_camera[:, number].any()
                continue
            step = h * np.eye(CAMERA_NUMBERS)[number]
            exact = (loss(film, camera + step) - loss(film, camera - step)) / (2 * h)
            np.testing.assert_allclose(
                by_camera[:, number], exact, rtol=1e-3, atol=1e-4 * np.abs(exact).max() + 1e-9, err_msg=str(number)
            )


@pytest.mark.parametrize("lens,orthographic", CASES)
def test_what_a_ray_has_found_is_unfolded(lens: str, orthographic: bool) -> None:
    film = film_points(300)
    camera = packed(a_camera(LENSES[lens], orthographic), len(film))
    _, origins, directions, _, _ = shoot(film, camera, np.ones(len(film)))
    outputs = [wp.zeros(len(film), dtype=t, device="cpu") for t in (wp.vec2, int)]
    inputs = [array(origins + 3 * directions, wp.vec3), array(camera, camera_vector)]
    wp.launch(ask_for_folds, len(film), inputs, outputs, device="cpu")
    assert outputs[1].numpy().all()


def test_a_point_that_the_lens_folds_back_onto_the_film_is_noticed() -> None:
    """k1 = -0.28 alone folds at r = 1.09: a point at 57 degrees, r = 1.55, is put where one at 29 degrees is seen."""
    lens = torch.tensor([[-0.28, 0.0, 0.0, 0.0, 0.0]])
    camera = Camera(torch.zeros(1, 3), torch.eye(3)[None], torch.tensor([600.0]), torch.tensor([[320.0, 240.0]]), False, lens)
    points = np.array([(r * np.cos(a), r * np.sin(a), 1.0) for a in (0.0, 0.3, 3.0) for r in (0.2, 0.5, 0.55, 1.55, 1.6, 1.7)])
    outputs = [wp.zeros(len(points), dtype=t, device="cpu") for t in (wp.vec2, int)]
    inputs = [array(points, wp.vec3), array(packed(camera, len(points)), camera_vector)]
    wp.launch(ask_for_folds, len(points), inputs, outputs, device="cpu")
    film, seen = (o.numpy() for o in outputs)
    assert (film > 0).all() and (film < (WIDTH, HEIGHT)).all()  # all of them land on the film
    assert seen.reshape(3, 6).tolist() == [[1, 1, 1, 0, 0, 0]] * 3


@pytest.mark.parametrize("lens", [name for name in LENSES if name != "none"])
def test_the_torch_projection_is_the_kernels(lens: str) -> None:
    film = film_points(200)
    camera = a_camera(LENSES[lens])
    distance = np.random.default_rng(1).uniform(0.5, 6.0, len(film))
    _, origins, directions, _, _ = shoot(film, packed(camera, len(film)), distance)
    points = torch.from_numpy(origins + distance[:, None].astype(np.float32) * directions)[None]
    assert float((project(camera, points)[0].double() - torch.from_numpy(film)).abs().max()) < 2e-3


def test_gradient_of_the_torch_projection_and_of_packing() -> None:
    at = a_camera()
    assert at.distortion is not None
    inputs = [at.position, at.rotation, at.focal, at.center, at.distortion]
    names = ["position", "rotation", "focal", "center", "distortion"]
    points = at.position + (torch.tensor([[0.2, -0.3, 1.5], [-0.4, 0.2, 2.0]]) @ at.rotation[0])

    def seen(position: Tensor, rotation: Tensor, focal: Tensor, center: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
        camera = Camera(position, rotation, focal, center, False, lens)
        return project(camera, points[None]), pack_camera(camera, 3)

    rows = gradient_check(seen, [t.clone().requires_grad_() for t in inputs], names)
    assert_certified(rows)


def test_packing_orders_views_world_by_world() -> None:
    position = torch.arange(12.0).reshape(2, 2, 3)
    rotation = torch.eye(3).expand(2, 3, 3)
    camera = Camera(position, rotation, torch.tensor([100.0, 200.0]), torch.zeros(1, 2), False)
    rows = pack_camera(camera, 4)
    assert rows.shape == (4, CAMERA_NUMBERS)
    torch.testing.assert_close(rows[:, :3], position.reshape(4, 3))
    assert rows[:, 12].tolist() == rows[:, 13].tolist() == [100.0, 100.0, 200.0, 200.0]
    assert not rows[:, 16:].any()
    one_world = camera._replace(position=position[:1])
    torch.testing.assert_close(pack_camera(one_world, 4)[:, :3], position[:1].repeat(2, 1, 1).reshape(4, 3))


def test_what_cannot_be_a_camera_is_refused() -> None:
    camera = a_camera()
    with pytest.raises(Unsupported, match="orthographic"):
        pack_camera(camera._replace(orthographic=True), 1)
    with pytest.raises(UserError, match=r"camera\.position: expected shape \(world, 3\).*got \(3,\)"):
        pack_camera(camera._replace(position=torch.zeros(3)), 1)
    with pytest.raises(UserError, match=r"camera\.focal: expected positive"):
        pack_camera(camera._replace(focal=torch.tensor([-3.0])), 1)
    with pytest.raises(UserError, match=r"camera\.rotation: expected finite"):
        pack_camera(camera._replace(rotation=camera.rotation * torch.nan), 1)
    with pytest.raises(UserError, match=r"folds over"):
        pack_camera(camera._replace(distortion=torch.tensor([[-0.8, 0.0, 0.0, 0.0, 0.0]])), 1, FILM)
    folded = pack_camera(camera._replace(distortion=torch.tensor([[-0.8, 0.0, 0.0, 0.0, 0.0]])), 50)
    film = film_points(50)
    assert all(np.isfinite(x).all() for x in shoot(film, folded.numpy(), np.ones(50)))
