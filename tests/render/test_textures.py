"""Bilinear textures against padded images in double precision, with gradients to texels and uv; packing and its errors."""

import numpy as np
import pytest
import torch
import warp as wp
from hypothesis import given, settings
from hypothesis import strategies as st

from dvc import UserError
from dvc.trace import start_warp
from render.reversible import reversible
from render.textures import (
    WRAPS,
    TextureTable,
    add_texture_gradient,
    lookup,
    pack_textures,
    texel_footprint,
    texture_value,
)

PADDING = {"repeat": "wrap", "mirror": "symmetric", "clamp": "edge"}  # NumPy's names
SIZES = ((1, 1), (1, 4), (5, 1), (3, 7), (8, 8), (2, 2))  # height, width


@wp.kernel(enable_backward=False)
def lookup_kernel(
    table: TextureTable, texels: wp.array2d(dtype=wp.vec3), texture: int, uvs: wp.array(dtype=wp.vec2),
    weights: wp.array(dtype=wp.vec3), values: wp.array2d(dtype=wp.vec3), by_texels: wp.array2d(dtype=wp.vec3),
    by_uv: wp.array2d(dtype=wp.vec2),
):  # fmt: skip
    world, i = wp.tid()
    values[world, i] = lookup(table, texels, world, texture, uvs[i])
    by_uv[world, i] = add_texture_gradient(table, texels, by_texels, world, texture, uvs[i], weights[i])


@reversible
@wp.func
def weighted_value(t00: wp.vec3, t10: wp.vec3, t01: wp.vec3, t11: wp.vec3, fraction: wp.vec2, weight: wp.vec3):
    return wp.dot(weight, texture_value(t00, t10, t01, t11, fraction))


@wp.kernel(enable_backward=False)
def grad_kernel(
    table: TextureTable, texels: wp.array2d(dtype=wp.vec3), texture: int, uvs: wp.array(dtype=wp.vec2),
    weights: wp.array(dtype=wp.vec3), by_texels: wp.array2d(dtype=wp.vec3), by_uv: wp.array2d(dtype=wp.vec2),
):  # fmt: skip
    world, i = wp.tid()
    at = texel_footprint(table, texture, uvs[i])
    t00 = texels[world, at.i00]
    t10 = texels[world, at.i10]
    t01 = texels[world, at.i01]
    t11 = texels[world, at.i11]
    g00, g10, g01, g11, gf, _w = wp.grad(weighted_value)(t00, t10, t01, t11, at.fraction, weights[i])
    wp.atomic_add(by_texels, world, at.i00, g00)
    wp.atomic_add(by_texels, world, at.i10, g10)
    wp.atomic_add(by_texels, world, at.i01, g01)
    wp.atomic_add(by_texels, world, at.i11, g11)
    width = float(table.table[texture, 0])
    height = float(table.table[texture, 1])
    by_uv[world, i] = wp.vec2(width * gf[0], -height * gf[1])


def images(worlds: int = 2, channels: int = 3, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(worlds, h, w, channels, generator=generator) for h, w in SIZES]


def placed(table: torch.Tensor, texels: torch.Tensor) -> tuple[TextureTable, wp.array]:
    start_warp()
    where = TextureTable()
    where.table = wp.from_torch(table)
    return where, wp.from_torch(texels.detach().contiguous(), dtype=wp.vec3)


def look(
    table: torch.Tensor, texels: torch.Tensor, texture: int, uv: np.ndarray, weight: np.ndarray | None = None,
    by_grad: bool = False,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Values (world, point, 3), and the gradients of sum(weight . value) to texels and uv."""
    where, numbers = placed(table, texels)
    worlds, count = texels.shape[0], len(uv)
    weight = np.zeros((count, 3)) if weight is None else weight
    values = wp.zeros((worlds, count), dtype=wp.vec3, device="cpu")
    by_texels = wp.zeros(numbers.shape, dtype=wp.vec3, device="cpu")
    by_uv = wp.zeros((worlds, count), dtype=wp.vec2, device="cpu")
    inputs = [
        where, numbers, texture, wp.array(uv.astype(np.float32), dtype=wp.vec2, device="cpu"),
        wp.array(weight.astype(np.float32), dtype=wp.vec3, device="cpu"),
    ]  # fmt: skip
    if by_grad:
        wp.launch(grad_kernel, (worlds, count), inputs=inputs, outputs=[by_texels, by_uv], device="cpu")
    else:
        wp.launch(lookup_kernel, (worlds, count), inputs=inputs, outputs=[values, by_texels, by_uv], device="cpu")
    return values.numpy().astype(float), by_texels.numpy().astype(float), by_uv.numpy().astype(float)


def twin(image: np.ndarray, wrap: str, uv: np.ndarray, times: int = 4) -> np.ndarray:
    """image (height, width, channel) looked up at uv (., 2), |uv| < times, in an image padded by copies of itself."""
    height, width, _ = image.shape
    big = np.pad(image, ((times * height,) * 2, (times * width,) * 2, (0, 0)), mode=PADDING[wrap])
    x = uv[:, 0] * width - 0.5 + times * width
    y = (1.0 - uv[:, 1]) * height - 0.5 + times * height
    i, j = np.floor(x).astype(int), np.floor(y).astype(int)
    a, b = (x - i)[:, None], (y - j)[:, None]
    top = (1.0 - a) * big[j, i] + a * big[j, i + 1]
    return (1.0 - b) * top + b * ((1.0 - a) * big[j + 1, i] + a * big[j + 1, i + 1])


def points_inside_cells(height: int, width: int, count: int, seed: int) -> np.ndarray:
    """uv in [-2, 3]^2 in single precision, off the lines between texel centres."""
    rng = np.random.default_rng(seed)
    column, row = rng.integers(-2 * width, 3 * width, count), rng.integers(-2 * height, 3 * height, count)
    u = (column + 0.5 + rng.uniform(0.05, 0.95, count)) / width
    v = (row + 0.5 + rng.uniform(0.05, 0.95, count)) / height
    return np.stack([u, v], -1).astype(np.float32).astype(float)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("wrap", WRAPS)
def test_values_and_gradients_agree_with_the_padded_image(wrap: str, channels: int) -> None:
    textures = images(channels=channels)
    texels, table = pack_textures(textures, [wrap] * len(textures))
    rng = np.random.default_rng(1)
    for k, (height, width) in enumerate(SIZES):
        uv = points_inside_cells(height, width, 200, k)
        weight = rng.normal(size=(200, 3)).astype(np.float32).astype(float)
        values, by_texels, by_uv = look(table, texels, k, uv, weight)
        first = int(table[k, 2])
        elsewhere = np.ones(by_texels.shape[1], bool)
        elsewhere[first : first + height * width] = False
        assert (by_texels[:, elsewhere] == 0.0).all()
        for world in range(2):
            image = np.broadcast_to(textures[k][world].numpy().astype(float), (height, width, 3))
            np.testing.assert_allclose(values[world], twin(image, wrap, uv), atol=3e-6)
            for step in (1e-2, 1e-3, 1e-4):  # linear within a cell
                for axis, size in ((0, width), (1, height)):
                    shift = np.eye(2)[axis] * step / size
                    sides = [twin(image, wrap, uv + sign * shift) for sign in (1, -1)]
                    difference = ((sides[0] - sides[1]) * weight).sum(-1) / (2.0 * step / size)
                    np.testing.assert_allclose(by_uv[world, :, axis], difference, atol=3e-5 * size)
            # linear in the texels: one direction at any step
            along = rng.normal(size=(height, width, 3))
            for step in (1.0, 1e-3):
                sides = [twin(image + sign * step * along, wrap, uv) for sign in (1, -1)]
                difference = ((sides[0] - sides[1]) * weight).sum() / (2.0 * step)
                found = (by_texels[world, first : first + height * width] * along.reshape(-1, 3)).sum()
                assert found == pytest.approx(difference, abs=1e-4)


def test_gradient_by_hand_is_that_of_texture_value() -> None:
    textures = images()
    texels, table = pack_textures(textures, ["mirror"] * len(textures))
    uv = points_inside_cells(3, 7, 300, 2)
    weight = np.random.default_rng(3).normal(size=(300, 3))
    _, by_texels, by_uv = look(table, texels, 3, uv, weight)
    _, texels_by_grad, uv_by_grad = look(table, texels, 3, uv, weight, by_grad=True)
    assert np.abs(by_uv).max() > 1.0
    np.testing.assert_allclose(by_texels, texels_by_grad, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(by_uv, uv_by_grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("wrap", WRAPS)
def test_uv_counts_from_the_bottom_left_and_texels_have_their_value_at_their_centre(wrap: str) -> None:
    image = torch.arange(6.0).reshape(1, 2, 3, 1)  # 0 1 2 above 3 4 5
    texels, table = pack_textures([image], [wrap])
    uv = np.array([[(i + 0.5) / 3, 1.0 - (j + 0.5) / 2] for j in range(2) for i in range(3)])
    values, _, _ = look(table, texels, 0, uv)
    np.testing.assert_allclose(values[0, :, 0], np.arange(6.0), atol=1e-5)
    corners = look(table, texels, 0, np.array([[1e-4, 1e-4], [1 - 1e-4, 1 - 1e-4]]))[0][0, :, 0]
    bottom_left, top_right = {"repeat": (2.5, 2.5), "mirror": (3.0, 2.0), "clamp": (3.0, 2.0)}[wrap]
    np.testing.assert_allclose(corners, (bottom_left, top_right), atol=5e-3)


coordinate = st.floats(-3.0, 3.0, width=32)


@settings(max_examples=50, deadline=None)
@given(st.sampled_from(WRAPS), st.integers(0, len(SIZES) - 1), st.lists(st.tuples(coordinate, coordinate), min_size=1))
def test_value_stays_among_the_texels_and_a_constant_image_is_constant(wrap: str, k: int, points: list) -> None:
    textures = images(worlds=1)
    textures[k] = torch.full_like(textures[k], 0.625)
    texels, table = pack_textures(textures, [wrap] * len(SIZES))
    uv = np.array(points)
    np.testing.assert_allclose(look(table, texels, k, uv)[0], 0.625, rtol=3e-7)
    other = (k + 1) % len(SIZES)
    values, inside = look(table, texels, other, uv)[0], textures[other].numpy()
    assert (values >= inside.min((0, 1, 2)) - 1e-6).all() and (values <= inside.max((0, 1, 2)) + 1e-6).all()
    height, width = SIZES[other]
    np.testing.assert_allclose(values[0], twin(inside[0].astype(float), wrap, uv), atol=4e-6 * max(height, width))


def test_far_and_broken_coordinates_stay_inside_the_image() -> None:
    uv = np.array([[1e9, -1e9], [np.inf, 0.5], [np.nan, np.nan], [-3e38, 3e38]])
    for wrap in WRAPS:
        texels, table = pack_textures(images(worlds=1), [wrap] * len(SIZES))
        where, _ = placed(table, texels)
        for k, (height, width) in enumerate(SIZES):
            found = wp.zeros(len(uv) * 4, dtype=int, device="cpu")
            points = wp.array(uv.astype(np.float32), dtype=wp.vec2, device="cpu")
            wp.launch(footprint_kernel, len(uv), inputs=[where, k, points], outputs=[found], device="cpu")
            first = int(table[k, 2])
            assert found.numpy().min() >= first and found.numpy().max() < first + height * width


@wp.kernel(enable_backward=False)
def footprint_kernel(table: TextureTable, texture: int, uvs: wp.array(dtype=wp.vec2), found: wp.array(dtype=int)):
    i = wp.tid()
    at = texel_footprint(table, texture, uvs[i])
    found[4 * i] = at.i00
    found[4 * i + 1] = at.i10
    found[4 * i + 2] = at.i01
    found[4 * i + 3] = at.i11


def test_packing_places_textures_one_after_the_other_and_hands_their_gradient_back() -> None:
    one = torch.rand(1, 2, 3, 1, requires_grad=True)  # shared by both worlds
    two = torch.rand(2, 4, 5, 3, requires_grad=True)
    texels, table = pack_textures([one, two], ["clamp", "repeat"])
    assert texels.shape == (2, 26, 3) and texels.dtype == torch.float32
    assert table.dtype == torch.int32 and table.tolist() == [[3, 2, 0, 1, 2], [5, 4, 6, 3, 0]]
    torch.testing.assert_close(texels[1, :6], one[0].reshape(6, 1).expand(6, 3))
    torch.testing.assert_close(texels[1, 6:], two[1].reshape(20, 3))
    weight = torch.randn(2, 26, 3)
    (weight * texels).sum().backward()
    assert one.grad is not None and two.grad is not None
    torch.testing.assert_close(one.grad[0, :, :, 0].reshape(-1), weight[:, :6].sum((0, 2)))
    torch.testing.assert_close(two.grad.reshape(2, 20, 3), weight[:, 6:])


GOOD = torch.rand(2, 3, 4, 3)


@pytest.mark.parametrize(
    ("textures", "wraps", "said"),
    [
        ([], [], "expected at least one texture"),
        ([GOOD], ["repeat", "clamp"], "expected one wrap for each of 1 textures, got 2"),
        ([GOOD], "repeat", "expected one wrap for each of 1 textures, got 'repeat'"),
        ([GOOD], ["black"], r"wraps\[0\]: expected one of repeat, mirror, clamp, got 'black'"),
        ([GOOD, GOOD[0]], ["clamp"] * 2, r"textures\[1\]: expected shape \(world, height, width, 1 or 3\), got \(3, 4, 3\)"),
        ([GOOD[..., :2]], ["clamp"], "1 or 3"),
        ([GOOD[:, :0]], ["clamp"], "at least one texel"),
        ([GOOD.double()], ["clamp"], "expected float32"),
        ([(GOOD * 255).byte()], ["clamp"], "divided by 255"),
        ([GOOD, GOOD[:1].repeat(3, 1, 1, 1)], ["clamp"] * 2, "expected 1 or 3 worlds, got 2"),
        ([GOOD, GOOD.to("meta")], ["clamp"] * 2, "expected device cpu"),
    ],
)
def test_wrong_textures_are_named(textures: list, wraps: list, said: str) -> None:
    with pytest.raises(UserError, match=said):
        pack_textures(textures, wraps)
