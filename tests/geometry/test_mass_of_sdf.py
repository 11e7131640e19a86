"""Mass of distances: converging at second order, gradients to every parameter."""

import math

import numpy as np
import pytest
import torch

from dvc.errors import UserError
from dvc.gradient_check import certified, format_table, gradient_check
from dvc.records import Bodies, SdfGrid
from geometry.mass_of_sdf import SdfMass, grid_points, mass_of_sdf, occupancy
from geometry.mass_properties import MassProperties
from geometry.sdf_blend import smooth_union
from geometry.sdf_evaluate import sdf_distance
from geometry.sdf_shapes import ShapeList, box, capsule, ellipsoid, moved, sphere

RHO = torch.tensor([700.0])
BOX = {"lower": (-1.2, -1.2, -1.2), "upper": (1.2, 1.2, 1.2)}


def capsule_truth(h: float, r: float) -> tuple[float, tuple[float, float, float]]:
    """Half length h: a cylinder and two half balls, whose centres lie 3/8 r beyond its ends."""
    rod, ball = 2 * math.pi * r**2 * h, 4 / 3 * math.pi * r**3
    axial = rod * r**2 / 2 + ball * 0.4 * r**2
    across = rod * (r**2 / 4 + h**2 / 3) + ball * (0.4 * r**2 + h**2 + 0.75 * h * r)
    return rod + ball, (across, across, axial)


def ellipsoid_truth(a: float, b: float, c: float) -> tuple[float, tuple[float, float, float]]:
    v = 4 / 3 * math.pi * a * b * c
    return v, (v / 5 * (b * b + c * c), v / 5 * (c * c + a * a), v / 5 * (a * a + b * b))


def box_truth(a: float, b: float, c: float) -> tuple[float, tuple[float, float, float]]:
    v = 8 * a * b * c
    return v, (v / 3 * (b * b + c * c), v / 3 * (c * c + a * a), v / 3 * (a * a + b * b))


SOLIDS = {
    "sphere": (sphere(0.6), ellipsoid_truth(0.6, 0.6, 0.6)),
    "capsule": (capsule(0.4, 0.35), capsule_truth(0.4, 0.35)),
    "ellipsoid": (ellipsoid((0.7, 0.5, 0.4)), ellipsoid_truth(0.7, 0.5, 0.4)),
    "box": (box((0.5, 0.4, 0.6)), box_truth(0.5, 0.4, 0.6)),
}


def errors_of(shape: ShapeList, truth: tuple, cells: int) -> float:
    """Root mean square of the errors of volume, centre and inertia over twelve places on the grid (worlds)."""
    places = (torch.rand(12, 3, generator=torch.Generator().manual_seed(1)) - 0.5) * 0.2
    bodies = mass_of_sdf(moved(shape, places), RHO, cells=cells, **BOX)
    volume, inertia = truth
    expected = 700 * torch.diag(torch.tensor(inertia))
    errors = torch.cat(
        [
            (bodies.mass / (700 * volume) - 1)[:, None],
            bodies.center_of_mass - places,
            ((bodies.inertia - expected) / expected.max()).flatten(1),
        ],
        dim=1,
    )
    return float(errors.square().sum(1).mean().sqrt())


@pytest.mark.parametrize("name", SOLIDS)
def test_second_order(name):
    """From 16 to 64 cells the error falls by at least 4^2, less what single places scatter; and it is small."""
    shape, truth = SOLIDS[name]
    coarse, fine = errors_of(shape, truth, 16), errors_of(shape, truth, 64)
    assert math.log(coarse / fine, 4) > 1.8, (coarse, fine)
    assert fine < (1e-3 if name == "box" else 5e-4)  # at edges the distance bends


def test_occupancy_is_a_smooth_step_without_second_moment():
    s = torch.linspace(-3, 3, 60001, dtype=torch.float64, requires_grad=True)
    h = occupancy(s, 0.5)  # two cells are one length
    (kernel,) = torch.autograd.grad(h.sum(), s)
    h = h.detach()
    assert float(h[0]) == 1.0 and float(h[-1]) == 0.0 and float(h[30000]) == pytest.approx(0.5)
    step = 6 / 60000
    assert torch.allclose(kernel[1:-1], (h[2:] - h[:-2]).detach() / (2 * step), atol=1e-3)
    moments = [float((-kernel * s.detach() ** n).sum() * step) for n in range(3)]
    assert moments == pytest.approx([1.0, 0.0, 0.0], abs=1e-6)


def test_a_grid_a_list_and_a_function_agree_far_from_the_origin():
    shape = moved(ellipsoid((0.7, 0.5, 0.4)), (100.0, -50.0, 20.0), (0.1, 0.2, 0.3, 0.9))
    around = {"lower": (98.8, -51.2, 18.8), "upper": (101.2, -48.8, 21.2), "cells": 32}
    ours = mass_of_sdf(shape, RHO, **around)
    function = mass_of_sdf(lambda points: sdf_distance(shape, points), RHO, **around)
    points, counts, spacing = grid_points(around["lower"], around["upper"], 32, "cpu")
    grid = SdfGrid(sdf_distance(shape, points).unflatten(1, counts), points[0, 0], spacing)
    stage = MassProperties()(grid, RHO, torch.ones(1, 3))
    module = SdfMass(around["lower"], around["upper"], 32)(shape, RHO)
    for other in (function, stage._replace(center_of_mass=stage.center_of_mass - 1), module):
        for a, b in zip(ours, other, strict=True):
            assert torch.allclose(a, b, rtol=1e-5, atol=1e-5 * float(a.abs().max()))
    near = mass_of_sdf(moved(shape, (-100.0, 50.0, -20.0)), RHO, cells=32, **BOX)
    assert torch.allclose(ours.inertia, near.inertia, rtol=1e-3, atol=1e-2)
    assert torch.allclose(ours.center_of_mass, torch.tensor([100.0, -50.0, 20.0]), atol=2e-4)


def test_uneven_boxes_have_cubic_cells():
    points, counts, spacing = grid_points((0, 0, 0), (1.0, 0.5, 0.3), 10, "cpu")
    assert counts == (11, 6, 4) and spacing == pytest.approx(0.1)
    assert np.allclose(points[0, -1].numpy(), [1.0, 0.5, 0.3])
    assert grid_points((0, 0, 0), (1.0, 0.5, 0.33), 10, "cpu")[1] == (11, 6, 5)


def test_gradient_to_every_parameter():
    """Size, place, rotation, scale, blend radius and density, against differences."""

    def function(radii, radius, place, rotation, blend, density) -> Bodies:
        shape = smooth_union(ellipsoid(radii), moved(capsule(0.3, radius), place, rotation), radius=blend)
        return mass_of_sdf(shape, density, cells=24, **BOX)

    inputs = [
        torch.tensor([[0.6, 0.4, 0.3]]),
        torch.tensor([0.2]),
        torch.tensor([[0.4, 0.1, 0.2]]),
        torch.tensor([[0.1, 0.4, 0.2, 0.9]]),
        torch.tensor([0.3]),
        torch.tensor([2.0]),
    ]
    names = ["radii", "radius", "place", "rotation", "blend", "density"]
    rows = gradient_check(function, [t.requires_grad_() for t in inputs], names)
    assert certified(rows) and not any(row.note.startswith("excluded") for row in rows), format_table(rows)


def test_gradients_of_analytic_solids():
    """dm / dr of a sphere is its area; of a capsule's half length twice its cross-section; within 1 % of the truth."""
    radius = torch.tensor([0.6], requires_grad=True)
    mass = mass_of_sdf(sphere(radius), torch.ones(1), cells=32, **BOX).mass
    assert float(torch.autograd.grad(mass.sum(), radius)[0]) == pytest.approx(4 * math.pi * 0.36, rel=1e-3)
    # a cylinder along the grid is the worst case of the derivative: 1.3 % at 32 cells
    half, r = torch.tensor([0.4], requires_grad=True), torch.tensor([0.35], requires_grad=True)
    mass = mass_of_sdf(capsule(half, r), torch.ones(1), cells=64, **BOX).mass
    of_half, of_r = torch.autograd.grad(mass.sum(), (half, r))
    assert float(of_half) == pytest.approx(2 * math.pi * 0.35**2, rel=1e-2)
    assert float(of_r) == pytest.approx(4 * math.pi * 0.35 * 0.4 + 4 * math.pi * 0.35**2, rel=1e-2)


def test_gradient_to_grid_values():
    points, counts, spacing = grid_points(BOX["lower"], BOX["upper"], 12, "cpu")
    values = sdf_distance(ellipsoid((0.6, 0.5, 0.4)), points).unflatten(1, counts).requires_grad_()
    rows = gradient_check(
        lambda v: MassProperties()(SdfGrid(v, points[0, 0], spacing), torch.ones(1)),
        [values],
        ["values"],
        steps=(1e-2, 3e-3, 1e-3),
    )
    assert certified(rows), format_table(rows)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: mass_of_sdf(sphere(1.1), RHO, **BOX, cells=8), "two cells"),
        (lambda: mass_of_sdf(moved(sphere(0.1), (9.0, 0, 0)), RHO, **BOX, cells=8), "a solid in every world"),
        (lambda: mass_of_sdf(sphere(0.5), RHO), "expected a box around the solid"),
        (lambda: mass_of_sdf(sphere(0.5), RHO, lower=(0, 0, 0), upper=(1, 1, 0)), "three lower bounds below"),
        (lambda: mass_of_sdf(sphere(0.5), RHO, **BOX, cells=2), "at least 4"),
        (lambda: mass_of_sdf(lambda p: p[..., 0].sum(1), RHO, **BOX, cells=8), "distances of shape"),
        (lambda: mass_of_sdf(SdfGrid(torch.ones(1, 3, 3), torch.zeros(3), 0.1), RHO), "expected shape .world, nx, ny, nz"),
        (lambda: mass_of_sdf(SdfGrid(torch.ones(1, 3, 3, 3), torch.zeros(3), 0.1), RHO, **BOX), "expected no box"),
    ],
)
def test_wrong_input_is_one_clear_error(call, message):
    with pytest.raises(UserError, match=message):
        call()
