"""Distances of primitives and of lists of them: exactness, bounds, gradients."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dvc.errors import UserError
from dvc.gradient_check import certified, format_table, gradient_check
from geometry.sdf_blend import (
    difference,
    intersection,
    joined,
    smooth_difference,
    smooth_intersection,
    smooth_union,
    union,
)
from geometry.sdf_evaluate import LEAST_TILED, sdf_distance, sdf_value_and_gradient, sdf_value_and_normal
from geometry.sdf_shapes import (
    KINDS,
    ShapeList,
    box,
    capsule,
    cylinder,
    ellipsoid,
    half_space,
    moved,
    plane,
    primitive,
    rounded_box,
    scaled,
    sphere,
    tapered_capsule,
    torus,
)

SIZES = {
    "sphere": (0.5,),
    "ellipsoid": (0.3, 0.5, 0.8),
    "box": (0.3, 0.5, 0.7),
    "rounded_box": (0.3, 0.5, 0.7, 0.1),
    "capsule": (0.5, 0.2),
    "tapered_capsule": (0.5, 0.35, 0.15),
    "cylinder": (0.5, 0.3),
    "torus": (0.6, 0.2),
    "plane": (0.1,),
    "half_space": (),
}
POINTS = torch.rand(1, 400, 3, generator=torch.Generator().manual_seed(0)) * 3 - 1.5


def profile_surface(kind: str) -> np.ndarray:
    """Dense boundary points (rho, z) of the solids of revolution."""
    t = np.linspace(0, 1, 4001)
    half = math.pi * t
    if kind == "sphere":
        return np.stack([0.5 * np.sin(half), 0.5 * np.cos(half)], 1)
    if kind == "torus":
        return np.stack([0.6 + 0.2 * np.cos(2 * half), 0.2 * np.sin(2 * half)], 1)
    if kind == "cylinder":
        side = np.stack([np.full_like(t, 0.3), t - 0.5], 1)
        return np.concatenate([side, *(np.stack([0.3 * t, np.full_like(t, z)], 1) for z in (-0.5, 0.5))])
    low, high = (0.2, 0.2) if kind == "capsule" else (0.35, 0.15)
    angle = math.asin((low - high) / 1.0)  # of the tangent's normal above the plane z = 0
    up = angle + (math.pi / 2 - angle) * t
    down = angle - (math.pi / 2 + angle) * t
    normal = np.array([math.cos(angle), math.sin(angle)])
    ends = np.array([0, -0.5]) + low * normal, np.array([0, 0.5]) + high * normal
    return np.concatenate(
        [
            np.stack([high * np.cos(up), 0.5 + high * np.sin(up)], 1),
            np.stack([low * np.cos(down), -0.5 + low * np.sin(down)], 1),
            ends[0] + t[:, None] * (ends[1] - ends[0]),
        ]
    )


@pytest.mark.parametrize("kind", ["sphere", "capsule", "tapered_capsule", "cylinder", "torus"])
def test_solids_of_revolution_against_brute_force(kind):
    """The least distance to dense points of the profile, in the half plane (rho, z); the sign by gradient-free tests below."""
    p = POINTS[0].double().numpy()
    q = np.stack([np.hypot(p[:, 0], p[:, 1]), p[:, 2]], 1)
    truth = np.linalg.norm(q[:, None] - profile_surface(kind)[None], axis=2).min(1)
    d = sdf_distance(primitive(kind, *SIZES[kind]), POINTS)[0].double().numpy()
    assert np.abs(np.abs(d) - truth).max() < 1e-3 and np.abs(np.abs(d) - truth).mean() < 2e-5


def ellipsoid_truth(p: np.ndarray, r: np.ndarray) -> np.ndarray:
    """Bisection in double precision, a way of its own."""
    low, high = np.full(len(p), -(r.min() ** 2)), np.full(len(p), 100.0)
    for _ in range(200):
        t = 0.5 * (low + high)
        above = ((r * p / (t[:, None] + r**2)) ** 2).sum(1) > 1
        low, high = np.where(above, t, low), np.where(above, high, t)
    y = r**2 * p / (t[:, None] + r**2)
    return np.where(((p / r) ** 2).sum(1) < 1, -1, 1) * np.linalg.norm(p - y, axis=1)


@pytest.mark.parametrize("radii", [(0.3, 0.5, 0.8), (0.5, 0.5, 0.2), (0.4, 0.4, 0.4), (1.0, 0.01, 0.3)])
def test_ellipsoid_against_bisection_and_brute_force(radii):
    r = np.array(radii)
    truth = ellipsoid_truth(POINTS[0].double().numpy(), r)
    d = sdf_distance(ellipsoid(radii), POINTS)[0].double().numpy()
    assert np.abs(d - truth).max() < 2e-6
    z = np.linspace(-1, 1, 400)
    angle = np.linspace(0, 2 * np.pi, 800)
    unit = np.stack([np.sqrt(1 - z**2)[:, None] * np.cos(angle), np.sqrt(1 - z**2)[:, None] * np.sin(angle)], -1)
    surface = (np.concatenate([unit, np.broadcast_to(z[:, None, None], (400, 800, 1))], -1) * r).reshape(-1, 3)
    brute = [np.linalg.norm(surface - x, axis=1).min() for x in POINTS[0, :30].double().numpy()]
    assert np.abs(np.abs(d[:30]) - brute).max() < 2e-2 * max(radii)


def test_ellipsoid_where_the_closest_point_is_not_unique():
    """Inside, on the plane across the shortest axis: p = 0 is min(r) deep; on it the depth has a closed form."""
    x = torch.tensor([[[0.0, 0, 0], [0.2, 0, 0], [0.0, 0.1, 0], [-0.2, 0.1, 0]]])
    d = sdf_distance(ellipsoid((0.8, 0.5, 0.3)), x)[0]
    assert float(d[0]) == pytest.approx(-0.3, rel=1e-6)
    u = 0.2 * 0.8 / (0.64 - 0.09)
    assert float(d[1]) == pytest.approx(-math.hypot(0.2 - 0.8 * u, 0.3 * math.sqrt(1 - u * u)), rel=1e-5)
    shifted = sdf_distance(ellipsoid((0.8, 0.5, 0.3)), x + torch.tensor([0, 0, 1e-6]))[0]
    assert torch.allclose(d, shifted, atol=2e-6)


@pytest.mark.parametrize("rounding", [0.0, 0.1])
def test_boxes_against_brute_force(rounding):
    h = np.array([0.3, 0.5, 0.7]) - rounding
    p = POINTS[0].double().numpy()
    closest = np.clip(p, -h, h)
    outside = np.linalg.norm(p - closest, axis=1)
    inside = (h - np.abs(p)).min(1)
    truth = np.where(outside > 0, outside, -inside) - rounding
    shape = rounded_box((0.3, 0.5, 0.7), rounding) if rounding else box((0.3, 0.5, 0.7))
    assert np.abs(sdf_distance(shape, POINTS)[0].double().numpy() - truth).max() < 1e-6


def test_flat_solids_and_signs():
    p = torch.tensor([[[0.3, 0.2, 0.5], [1.0, 2.0, -0.4]]])
    assert sdf_distance(half_space(), p)[0].tolist() == pytest.approx([0.5, -0.4])
    assert sdf_distance(plane(0.1), p)[0].tolist() == pytest.approx([0.4, 0.3])
    assert sdf_distance(plane(), p)[0].tolist() == pytest.approx([0.5, 0.4])
    for kind in ("sphere", "ellipsoid", "box", "rounded_box", "capsule", "tapered_capsule", "cylinder"):
        assert float(sdf_distance(primitive(kind, *SIZES[kind]), torch.zeros(1, 1, 3))) < 0
    assert float(sdf_distance(torus(0.6, 0.2), torch.tensor([[[0.6, 0.0, 0.0]]]))) == pytest.approx(-0.2)
    # a ball inside the other: only the larger is seen
    assert float(sdf_distance(tapered_capsule(0.1, 0.5, 0.1), torch.tensor([[[0.0, 0.0, 1.0]]]))) == pytest.approx(0.6)


def body(worlds: int = 2) -> ShapeList:
    """One of each kind, joined in every way."""
    g = torch.Generator().manual_seed(5)
    shapes = []
    for kind, sizes in SIZES.items():
        if kind == "half_space":
            shape: ShapeList = half_space()
        else:
            shape = primitive(kind, *(0.5 * s * (1 + 0.1 * torch.rand(worlds, generator=g)) for s in sizes))
        shape = scaled(shape, 1 + 0.2 * torch.rand(worlds, generator=g))
        quaternion = torch.randn(worlds, 4, generator=g)
        shapes.append(moved(shape, torch.rand(worlds, 3, generator=g) - 0.5, quaternion))
    a = smooth_union(*shapes[:4], radius=torch.tensor([0.15]).repeat(worlds))
    b = smooth_difference(union(*shapes[4:6]), shapes[6], radius=0.1)
    c = smooth_intersection(union(shapes[7], shapes[0]), shapes[9], radius=0.2)
    return union(a, b, difference(c, shapes[8]), intersection(shapes[1], shapes[2]))


def twin(shape: ShapeList, points: torch.Tensor) -> torch.Tensor:
    """Plain torch: primitives one at a time from the op, poses and blends written again."""
    nodes = []
    for i, kind in enumerate(shape.kinds):
        q = shape.rotations[:, i].double()
        x, y, z, w = (q / q.norm(dim=1, keepdim=True)).unbind(1)
        columns = [
            [1 - 2 * (y * y + z * z), 2 * (x * y + z * w), 2 * (x * z - y * w)],
            [2 * (x * y - z * w), 1 - 2 * (x * x + z * z), 2 * (y * z + x * w)],
            [2 * (x * z + y * w), 2 * (y * z - x * w), 1 - 2 * (x * x + y * y)],
        ]
        rotation = torch.stack([torch.stack(c, 1) for c in columns], 2)
        s = shape.scales[:, i, None].double()
        local = (points.double() - shape.positions[:, None, i]) @ rotation / s[..., None]
        nodes.append(
            s * sdf_distance(primitive(kind, *shape.sizes[:, i, : len(KINDS[kind])].unbind(1)), local.float()).double()
        )
    for i, (name, a, b) in enumerate(shape.blends):
        k = shape.radii[:, i, None].double()
        signs = {"union": (1, 1), "intersection": (-1, -1), "difference": (-1, 1)}[name]
        x, y = signs[0] * nodes[a], signs[1] * nodes[b]
        h = torch.relu(k - (x - y).abs()) / k.clamp_min(1e-9)
        nodes.append(signs[0] * (torch.minimum(x, y) - k * h * h / 4))
    return nodes[-1]


def test_a_list_equals_its_float64_twin():
    shape = body()
    assert len(shape.kinds) == 13 and len(shape.blends) == 12
    points = POINTS.repeat(2, 1, 1)
    assert torch.allclose(sdf_distance(shape, points).double(), twin(shape, points), atol=2e-6)


def test_tiles_and_worlds_change_nothing():
    shape, single = body(1), []
    points = torch.rand(1, LEAST_TILED + 37, 3, generator=torch.Generator().manual_seed(2)) * 3 - 1.5
    points.requires_grad_()
    for part in (points, points.repeat(2, 1, 1)):
        d = sdf_distance(shape, part)
        single.append((d[:1], torch.autograd.grad(d[0].square().sum(), points)[0]))
    for a, b in zip(*single, strict=True):
        assert torch.allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_of_each_primitive(kind):
    """Every size, the pose, the scale and the points; distance and normal."""
    names = ["points", "position", "rotation", "scale", *KINDS[kind]]
    g = torch.Generator().manual_seed(3)
    inputs = [POINTS[:, :60].clone(), torch.rand(1, 3, generator=g), torch.randn(1, 4, generator=g), torch.tensor([1.3])]
    inputs += [torch.tensor([s]) for s in SIZES[kind]]

    def function(points, position, rotation, scale, *sizes):
        return sdf_value_and_normal(moved(scaled(primitive(kind, *sizes), scale), position, rotation), points)

    # where the normal jumps there is no gradient: only points whose surroundings look one way
    near = inputs[0] + 0.06 * torch.randn(40, 1, 1, 3, generator=g)
    shape = moved(scaled(primitive(kind, *inputs[4:]), inputs[3]), inputs[1], inputs[2])
    looks = sdf_value_and_normal(shape, near.reshape(1, -1, 3))[1].reshape(40, -1, 3)
    calm = (looks * looks[:1]).sum(-1).min(0).values > 0.5
    assert int(calm.sum()) > 15
    inputs[0] = inputs[0][:, calm]
    rows = gradient_check(function, [t.requires_grad_() for t in inputs], names)
    assert certified(rows), format_table(rows)
    assert not any(row.note.startswith("excluded") for row in rows), format_table(rows)


@pytest.mark.parametrize("operation", ["union", "intersection", "difference"])
def test_gradient_of_each_blend(operation):
    def function(points, radius, first, second, place):
        return sdf_value_and_normal(joined(operation, sphere(first), moved(capsule(0.4, second), place), radius), points)

    inputs = [
        POINTS[:, :60].clone(),
        torch.tensor([0.6]),
        torch.tensor([0.5]),
        torch.tensor([0.3]),
        torch.tensor([[0.4, 0.1, 0.2]]),
    ]
    rows = gradient_check(function, [t.requires_grad_() for t in inputs], ["points", "radius", "first", "second", "place"])
    assert certified(rows), format_table(rows)


def test_gradient_of_a_whole_body_equals_that_of_its_float64_twin():
    shape, results = body(), []
    tensors = [shape.sizes, shape.positions, shape.rotations, shape.scales, shape.radii.clamp_min(0.05), POINTS.repeat(2, 1, 1)]
    for function in (sdf_distance, twin):
        leaves = [t.detach().clone().requires_grad_() for t in tensors]
        d = function(ShapeList(shape.kinds, *leaves[:4], shape.blends, leaves[4]), leaves[5])
        results.append(torch.autograd.grad(d.double().square().sum(), leaves))
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()))


def special_points(sizes: tuple, generator: np.random.Generator) -> np.ndarray:
    """Centres, axes, corners, points on surfaces, far points, and the same a hair away."""
    marks = np.array([0.0, 0.0, *sizes, *(-s for s in sizes), 1.0, 50.0])
    p = marks[generator.integers(0, len(marks), (48, 3))]
    p[24:] += generator.normal(size=(24, 3)) * 10.0 ** generator.integers(-9, 0, (24, 1))
    return p.astype(np.float32)


@settings(max_examples=260, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    kinds=st.tuples(st.sampled_from(list(KINDS)), st.sampled_from(list(KINDS))),
    operation=st.sampled_from(["union", "intersection", "difference"]),
    radius=st.sampled_from([0.0, 0.05, 1.0]),
    exponent=st.integers(-3, 2),
)
def test_finite_and_never_over_estimating(seed, kinds, operation, radius, exponent):
    """Four worlds of two shapes a case: finite values and gradients, |grad| <= 1, |d(p) - d(q)| <= |p - q|, also in normals."""
    g = np.random.default_rng(seed)
    unit = 10.0**exponent
    shapes, sizes = [], ()
    for kind in kinds:
        count = len(KINDS[kind])
        values = np.sort(g.choice([0.05, 0.2, 0.2, 0.5, 1.0], count))[::-1] * unit  # descending: tube < ring, rounding < side
        sizes = sizes or tuple(values)
        tensors = [torch.full((4,), float(v)).requires_grad_() for v in values]
        rotation = torch.zeros(4, 4) if g.random() < 0.1 else torch.from_numpy(g.normal(size=(4, 4)).astype(np.float32))
        place = torch.zeros(4, 3) if g.random() < 0.5 else torch.from_numpy(unit * g.normal(size=(4, 3)).astype(np.float32))
        leaves = (place.requires_grad_(), rotation.requires_grad_())
        shapes.append(
            (moved(primitive(kind, *tensors), *leaves) if g.random() < 0.7 else primitive(kind, *tensors), tensors, leaves)
        )
    k = torch.full((4,), radius * unit).requires_grad_()
    shape = joined(operation, shapes[0][0], shapes[1][0], k)
    points = torch.from_numpy(np.stack([special_points(sizes, g) for _ in range(4)])).requires_grad_()
    d, gradient = sdf_value_and_gradient(shape, points)
    normal = sdf_value_and_normal(shape, points)[1]
    leaves = [points, k, *(t for _, tensors, pose in shapes for t in (*tensors, *pose))]
    through = torch.autograd.grad(d.sum(), leaves, retain_graph=True, allow_unused=True)
    curved = torch.autograd.grad(normal.sum() + gradient.sum(), leaves, allow_unused=True)
    for value in (d, gradient, normal, *(t for t in (*through, *curved) if t is not None)):
        assert torch.isfinite(value).all()
    assert float(gradient.detach().norm(dim=-1).max()) <= 1 + 1e-5
    assert float(through[0].norm(dim=-1).max()) <= 1 + 1e-5
    p, v = points.detach().double(), d.detach().double()
    gap = (v[:, :, None] - v[:, None, :]).abs() - torch.cdist(p, p)
    assert float(gap.max()) <= 1e-5 * max(unit, float(p.abs().max()))


def test_distance_is_a_lower_bound_of_blended_solids():
    """No point of the surface (a sign change) lies nearer than |d|: random points within |d| have the sign of d."""
    shape = smooth_difference(
        smooth_union(sphere(0.5), moved(box((0.3, 0.3, 0.3)), (0.5, 0, 0)), radius=0.3), capsule(1.0, 0.2), radius=0.2
    )
    d = sdf_distance(shape, POINTS)
    direction = torch.randn(1, 400, 64, 3, generator=torch.Generator().manual_seed(4))
    step = 0.999 * d.abs()[..., None, None] * direction / direction.norm(dim=-1, keepdim=True)
    near = sdf_distance(shape, (POINTS[:, :, None] + step).reshape(1, -1, 3)).reshape(1, 400, 64)
    assert bool((near * d[..., None] >= -1e-6).all())


def test_smooth_blends_contain_or_are_contained():
    a, b = sphere(0.5), moved(sphere(0.4), (0.5, 0, 0))
    for smooth, sharp, sign in (
        (smooth_union, union, -1),
        (smooth_intersection, intersection, 1),
        (smooth_difference, difference, 1),
    ):
        change = sign * (sdf_distance(smooth(a, b, radius=0.2), POINTS) - sdf_distance(sharp(a, b), POINTS))
        assert float(change.min()) >= -1e-6 and 0.0 < float(change.max()) <= 0.2 / 4 + 1e-6


def test_moving_and_scaling_a_blend_moves_and_scales_its_distance():
    shape = smooth_union(sphere(0.5), moved(box((0.3, 0.2, 0.1)), (0.4, 0, 0), (0.1, 0.2, 0.3, 0.9)), radius=0.3)
    half = math.sqrt(0.5)
    turned = moved(scaled(shape, 2.0), (1.0, 2.0, 3.0), (0.0, 0.0, half, half))  # a quarter turn about z
    x, y, z = POINTS.unbind(-1)
    places = 2 * torch.stack([-y, x, z], -1) + torch.tensor([1.0, 2.0, 3.0])
    assert torch.allclose(sdf_distance(turned, places), 2 * sdf_distance(shape, POINTS), atol=3e-6)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: primitive("cone", 1.0), "expected one of sphere, .*got 'cone'"),
        (lambda: primitive("capsule", 1.0), "expected 2 sizes"),
        (lambda: sphere(-1.0), "finite radius of at least 0, got -1.0"),
        (lambda: box((1.0, 2.0)), "expected 3 numbers"),
        (lambda: scaled(sphere(1.0), 0.0), "above 0, got 0.0"),
        (lambda: moved(sphere(1.0), (0, 0, 0), (1, 0, 0)), "expected 4 numbers"),
        (lambda: smooth_union(sphere(1.0), sphere(1.0), radius=-1.0), "at least 0, got -1.0"),
        (lambda: union(), "at least one shape"),
        (lambda: joined("xor", sphere(1.0), sphere(1.0)), "got 'xor'"),
        (lambda: sphere(torch.ones(2, 2)), "shape .world,"),
        (lambda: sdf_distance(sphere(1.0), torch.zeros(3)), "expected shape .world, point, 3"),
        (lambda: union(sphere(torch.ones(2)), sphere(torch.ones(3))), "world axes differ"),
    ],
)
def test_wrong_input_is_one_clear_error(build, message):
    with pytest.raises(UserError, match=message):
        build()


@pytest.mark.gpu
def test_equal_on_the_gpu():
    shape = body()
    on_gpu = shape._replace(
        **{name: getattr(shape, name).cuda() for name in ("sizes", "positions", "rotations", "scales", "radii")}
    )
    points = POINTS.repeat(2, 1, 1)
    assert torch.allclose(sdf_distance(on_gpu, points.cuda()).cpu(), sdf_distance(shape, points), atol=1e-5)
    assert torch.allclose(
        sdf_distance(cylinder(0.4, 0.2), POINTS.cuda()).cpu(), sdf_distance(cylinder(0.4, 0.2), POINTS), atol=1e-5
    )


def test_a_vector_of_numbers_and_tensors_keeps_gradients_and_worlds():
    x = torch.tensor([0.2, 0.3], requires_grad=True)
    distance = sdf_distance(moved(box((x, 0.1, 0.1)), (0.5 * x, 0.0, 0.0)), torch.tensor([[[1.0, 0.0, 0.0]]]))
    assert torch.allclose(distance, torch.tensor([[0.7], [0.55]]))
    assert torch.autograd.grad(distance.sum(), x)[0].tolist() == [-1.5, -1.5]


@pytest.mark.parametrize(
    "build",
    [
        lambda: box((-1.0, 1.0, 1.0)),
        lambda: box((math.nan, 1.0, 1.0)),
        lambda: ellipsoid((0.0, 0.1, 0.1)),
        lambda: rounded_box((0.1, 0.1, -0.1), 0.0),
        lambda: moved(sphere(0.1), (math.nan, 0.0, 0.0)),
        lambda: union([sphere(0.1), sphere(0.2)]),
    ],
)
def test_wrong_constants_and_lists_are_refused(build):
    with pytest.raises(UserError, match="expected"):
        build()
