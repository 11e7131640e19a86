"""Closed forms against integrals in double precision, and against the sampled distances."""

import math

import numpy as np
import pytest
import torch

from dvc.errors import Unsupported
from dvc.gradient_check import certified, format_table, gradient_check
from geometry.mass_of_primitive import mass_of_primitive
from geometry.mass_of_sdf import mass_of_sdf
from geometry.sdf_blend import union
from geometry.sdf_shapes import KINDS, moved, primitive, scaled, sphere

SIZES = {
    "sphere": (0.4,),
    "ellipsoid": (0.5, 0.4, 0.3),
    "box": (0.5, 0.4, 0.3),
    "cylinder": (0.4, 0.3),
    "capsule": (0.4, 0.3),
    "torus": (0.5, 0.2),
}
QUATERNION = (0.1, -0.3, 0.2, 0.9)


def profile(kind: str) -> tuple[float, float, float]:
    """Volume, integrals of x^2 and z^2 of a solid of revolution, by slices of the radius interval at each height."""
    z, w = np.polynomial.legendre.leggauss(400)
    s = SIZES[kind]
    if kind == "torus":  # z = r sin t, so that the ends are smooth
        t = z * math.pi / 2
        z, w = s[1] * np.sin(t), w * math.pi / 2 * s[1] * np.cos(t)
        half = np.sqrt(s[1] ** 2 - z**2)
        inner, outer = s[0] - half, s[0] + half
    elif kind == "cylinder":
        z, w, inner, outer = z * s[0], w * s[0], 0 * z, s[1] + 0 * z
    else:  # the capsule in three pieces
        h, r = s
        z, w = np.concatenate([z * h, h + r * (z + 1) / 2, -h - r * (z + 1) / 2]), np.concatenate([w * h, w * r / 2, w * r / 2])
        inner, outer = 0 * z, np.sqrt(r**2 - np.clip(np.abs(z) - h, 0, None) ** 2)
    area = math.pi * (outer**2 - inner**2)
    return float((w * area).sum()), float((w * math.pi * (outer**4 - inner**4) / 4).sum()), float((w * area * z * z).sum())


@pytest.mark.parametrize("kind", ["cylinder", "capsule", "torus"])
def test_solids_of_revolution_to_1e_5(kind):
    bodies = mass_of_primitive(primitive(kind, *SIZES[kind]), torch.tensor([700.0]))
    v, xx, zz = profile(kind)
    assert float(bodies.mass) == pytest.approx(700 * v, rel=1e-5)
    diagonal = bodies.inertia[0].diagonal().tolist()
    assert diagonal == pytest.approx([700 * (xx + zz), 700 * (xx + zz), 1400 * xx], rel=1e-5)


def test_ellipsoid_and_box_to_1e_5():
    a, b, c = SIZES["box"]
    for kind, v, share in (("ellipsoid", 4 / 3 * math.pi * a * b * c, 5), ("box", 8 * a * b * c, 3)):
        bodies = mass_of_primitive(primitive(kind, *SIZES[kind]), torch.tensor([700.0]))
        expected = [700 * v / share * (p * p + q * q) for p, q in ((b, c), (c, a), (a, b))]
        assert float(bodies.mass) == pytest.approx(700 * v, rel=1e-5)
        assert bodies.inertia[0].diagonal().tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", SIZES)
def test_equal_to_the_sampled_solid_turned_moved_and_scaled(kind):
    shape = moved(scaled(primitive(kind, *SIZES[kind]), 0.9), (0.1, -0.2, 0.05), QUATERNION)
    exact = mass_of_primitive(shape, torch.ones(2))
    sampled = mass_of_sdf(shape, torch.ones(2), lower=(-1.2,) * 3, upper=(1.2,) * 3, cells=64)
    for a, b in zip(exact, sampled, strict=True):
        assert torch.allclose(a, b, rtol=3e-3, atol=3e-3 * float(a.abs().max()))


@pytest.mark.parametrize("kind", SIZES)
def test_gradient_at_several_steps(kind):
    def function(density, position, rotation, scale, *sizes):
        return mass_of_primitive(moved(scaled(primitive(kind, *sizes), scale), position, rotation), density)

    inputs = [torch.tensor([2.0]), torch.tensor([[0.1, 0.2, 0.3]]), torch.tensor([QUATERNION]), torch.tensor([1.2])]
    inputs += [torch.tensor([s]) for s in SIZES[kind]]
    names = ["density", "position", "rotation", "scale", *KINDS[kind]]
    rows = gradient_check(function, [t.requires_grad_() for t in inputs], names)
    assert certified(rows), format_table(rows)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in SIZES])
def test_no_closed_form_is_unsupported(kind):
    with pytest.raises(Unsupported, match=f"no closed form for {kind!r}"):
        mass_of_primitive(primitive(kind, *(0.1 for _ in KINDS[kind])), torch.ones(1))


def test_several_primitives_are_unsupported():
    with pytest.raises(Unsupported, match="no closed form for 2 primitives"):
        mass_of_primitive(union(sphere(1.0), sphere(1.0)), torch.ones(1))
