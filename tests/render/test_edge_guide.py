"""Importance of edge samples: the map of places, what is wanted, and that guiding changes the noise but not the number."""

import numpy as np
import pytest
import torch
import warp as wp

from dvc.records import Mesh
from render import edge_guide
from render.edge_guide import KEPT, EdgeDraw, cell_of, even_knots, guided_place, moved_knots, random_direction, wanted_motion
from render.edge_sampling import choose_edge, lattice
from render.path_render import PathRender
from render.scene import Ball, Body, DirectionalLight, Material, Plane, Poses, Scene
from tests.render.ray_scenes import coverage, film, from_above, mean_and_error, quad, row, weights


@wp.kernel(enable_backward=False)
def draw_kernel(draw: EdgeDraw, cells: int, edges: wp.array(dtype=int), numbers: wp.array2d(dtype=float)):
    i = wp.tid()
    place, guided = guided_place(draw, i, 0.5)
    cell, rest = cell_of(place, cells)
    chosen, s, density = choose_edge(draw.sums, rest)
    edges[i] = chosen
    numbers[i, 0] = s
    numbers[i, 1] = density * guided
    numbers[i, 2] = float(cell)
    numbers[i, 3] = lattice(i, wp.uint32(2654435769), wp.uint32(12345))


def drawn(importance: list[float], knots: np.ndarray, count: int, cells: int = 1):
    draw = EdgeDraw()
    draw.sums = wp.array(np.cumsum(importance), dtype=wp.float64, device="cpu")
    draw.knots = wp.array(knots, dtype=wp.float64, device="cpu")
    draw.count = count
    edges, numbers = wp.zeros(count, dtype=int, device="cpu"), wp.zeros((count, 4), dtype=float, device="cpu")
    wp.launch(draw_kernel, count, inputs=[draw, cells, edges, numbers], device="cpu")
    return edges.numpy(), numbers.numpy().astype(np.float64)


def test_draws_have_the_density_they_say():
    """The mean of f / density is the sum of f's integrals over the edges, however the knots lie; no sample falls on a zero."""
    importance = [1.0, 0.0, 3.0, 0.5]
    for knots in (even_knots(7), np.concatenate([[0.0], np.sort(np.random.default_rng(1).random(6)), [1.0]])):
        edges, numbers = drawn(importance, knots, 40000, cells=3)
        assert not (edges == 1).any()
        f = np.array([2.0, 100.0, -1.0, 4.0])[edges] * (1.0 + numbers[:, 0]) * (1.0 + numbers[:, 2])
        assert np.mean(f / numbers[:, 1]) == pytest.approx(1.5 * (2.0 - 1.0 + 4.0) * 2.0, rel=1e-3)


def test_lattice_is_even():
    _edges, numbers = drawn([1.0], even_knots(1), 1000)
    gaps = np.diff(np.sort(numbers[:, 3]))
    assert gaps.max() < 2.7 / 1000 and gaps.min() > 0.3 / 1000


def test_knots_go_where_the_size_is_and_keep_a_share_elsewhere():
    knots, shares = even_knots(1024), []
    for _round in range(3):
        where = np.interp((np.arange(4096) + 0.5) / 4096, np.linspace(0.0, 1.0, 1025), knots)
        knots = moved_knots(knots, np.where((where >= 0.5) & (where < 0.53), 1.0, 0.0))
        shares.append(np.ptp(np.interp([0.5, 0.53], knots, np.linspace(0.0, 1.0, 1025))))
        assert np.diff(knots).min() > 0.0
        assert 1.0 / (1024 * np.diff(knots).max()) > 0.9 * KEPT  # no density falls below the share that is kept
    assert 0.3 < shares[0] < shares[1] < shares[2] < 1.0 - 0.9 * KEPT and shares[2] > 0.6
    assert np.array_equal(moved_knots(knots, np.zeros(4096)), even_knots(1024))
    assert np.array_equal(moved_knots(knots, np.full(4096, np.nan)), even_knots(1024))


def test_few_samples_say_little():
    """One large sample among zeros, as of a direction that rarely meets anything, moves few of the others."""
    sizes = np.zeros(4096)
    sizes[2000:2100:25] = 1.0
    density = 1.0 / (1024 * np.diff(moved_knots(even_knots(1024), sizes)))
    assert density.max() < 50.0  # of 192 where the samples were believed


def test_what_is_wanted():
    still, moves = quad((0, 0, 0), (1, 0, 0), (0, 1, 0)), quad((0, 0, 1), (1, 0, 0), (0, 1, 0))
    moves = Mesh(moves.vertices.clone().requires_grad_(True), moves.faces)
    poses = Poses(torch.zeros(1, 2, 3, requires_grad=True), torch.tensor([0.0, 0, 0, 1]).expand(1, 2, 4))
    bodies = [
        Body(still, "m"), Body(moves, "m"), Body(still, "m", poses=poses), Plane(torch.eye(3)[None], "m"),
        Ball(row(0, 0, 3), torch.tensor([1.0]), "m"),
    ]  # fmt: skip
    numbers = {name: torch.zeros(1, 15, 3) for name in edge_guide.MOVING}
    for name in ("vertices", "positions", "cameras"):
        numbers[name].requires_grad_(True)
    wanted = wanted_motion(bodies, numbers)
    assert dict(wanted) == {"cameras": None, "vertices": ((4, 8), (12, 15)), "positions": ((0, 1),)}
    arrays = {name: wp.zeros((1, 15), dtype=wp.vec3, device="cpu") for name in edge_guide.MOVING}
    made = {name: array.numpy() for name, array in random_direction(arrays, wanted).items()}
    assert (made["vertices"][0, 4:8] != 0).all() and not made["vertices"][0, :4].any() and not made["vertices"][0, 8:12].any()
    assert (made["cameras"] != 0).all() and not made["spheres"].any()


def test_a_large_floor_that_does_not_move_costs_no_samples(monkeypatch):
    """A small panel's shadow on a floor with edges a hundred times as long: exact, with little noise; more without guide."""
    panel, floor = quad((1.4, 0.0, 1.0), (0.3, 0, 0), (0, 0.4, 0)), quad((0, 0, 0), (60, 0, 0), (0, 60, 0))
    materials = {"floor": Material(row(0.6, 0.6, 0.6)), "black": Material(row(0, 0, 0))}
    size, middle = 8, torch.tensor([1.4, 0.0, 1.0])

    def slopes(render: PathRender) -> list[float]:
        found = []
        for seed in range(12):
            p = torch.ones(1, requires_grad=True)
            grown = Mesh(middle + (panel.vertices - middle) * p, panel.faces)
            scene = Scene(
                [Body(floor, "floor"), Body(grown, "black")], materials, [DirectionalLight(row(-1, 0, -1), row(4, 4, 4))]
            )
            (weights(size) * render(scene, from_above(size), film(size), seed=seed)[0]).mean().backward()
            found.append(float(p.grad))
        return found

    p = torch.ones(1, dtype=torch.float64, requires_grad=True)
    corners = (panel.vertices[0, :, :2] - middle[:2]).double() * p + torch.tensor([0.4, 0.0]).double()
    share = coverage(torch.stack([(corners[:, 0] + 1) * size / 2, (1 - corners[:, 1]) * size / 2], dim=1), size)
    (-(weights(size).double().mean(dim=2) * share).mean() * 4.0 * 0.6 / np.pi / np.sqrt(2.0)).backward()
    render = PathRender(samples=1, depth=2, boundary_samples=(0, 2048, 0))
    mean, error = mean_and_error(slopes(render))
    assert float(error) < 2e-3 * abs(float(p.grad))
    assert abs(float(mean) - float(p.grad)) < 4.0 * float(error) + 5e-4 * abs(float(p.grad))
    monkeypatch.setattr(edge_guide, "moved_knots", lambda knots, sizes: knots)
    plain, plain_error = mean_and_error(slopes(render))
    assert float(plain_error) > 10.0 * float(error)
    assert abs(float(plain) - float(p.grad)) < 4.0 * float(plain_error)
