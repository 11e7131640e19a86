"""The path tracer and its gradients beside Mitsuba's llvm variant, in one run on the same scenes, threads and sample counts.

    python benchmarks/render.py [edges] [cornell] [meshes] [--repeats 5] [--seeds 12]

Without a name it runs all three, 256 x 256 pixels, 16 samples:
  edges    d loss / d translation of an icosphere of 5120 triangles (diffuse, in a constant environment, direct light); the loss
           is a weighted sum of the pixels. Every point of it shows albedo times the environment, so the derivative is an
           integral along the outline, known exactly. Mitsuba: `prb_projective` without samples for indirect boundaries, which
           this scene has none of (with them it takes several times as long for the same error). Ours is told so, too, and its
           gradient takes 32768 edge samples and one path a pixel (the image 16): its error is still below Mitsuba's.
  cornell  the Cornell box (36 triangles, depth 8, next-event estimation and multiple importance sampling, Russian roulette from
           the fifth vertex): the image, and d mean(image^2) / d albedos. Mitsuba: `path` and `prb`.
  meshes   the image of that box with a bumpy torus of 10,000, 100,000 and 1,000,000 triangles in it.
Each variant is called as a user calls it: from tensors to image or gradient, trees included. They take turns; each one's
fastest time counts. "Equal time" is the error of Mitsuba's gradient over ours if both were given the same time (error falls as
1 / sqrt(time)). Images and gradients of both are compared, so that a wrong one cannot time well.

Mitsuba: `pip install mitsuba==3.9.1`, and LLVM's shared library, which pip does not bring: on Debian or Ubuntu
`apt-get install libllvm19` (or another version from 8 on; DRJIT_LIBLLVM_PATH names one that is not found by itself). Prints
tables; writes nothing. Exits with 1 where a requirement is missed.
"""

import argparse
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # geometry.py of this folder is not the package geometry

import numpy as np
import torch
from scipy.spatial import ConvexHull

from benchmarks.render_variants import BOX_VIEW, SIZE, Mitsuba, Ours, Shape, View, bumpy_torus, cornell_box
from geometry.mesh import icosphere

DEPTH = 8
EDGE_TIME, PRIMAL_TIME, BACKWARD_TIME, MESH_TIME = 0.1, 1.0, 0.6, 1.5  # required: ours over Mitsuba's, at most
BACKWARD_OVER_PRIMAL = 2.75
EDGE_SAMPLES: dict[str, Any] = {"gradient_samples": 1, "boundary_samples": (32768, 0, 0)}
ALBEDO, LIGHT = 0.25, 1.5  # of the icosphere and its environment
CENTER = np.array([0.1, -0.05, 0.0])


def in_turn(variants: dict[str, Callable[[int], Any]], repeats: int, warm: int = 2) -> dict[str, np.ndarray]:
    """Least times of each; a variant returns seconds (or several)."""
    times: dict[str, list] = {name: [] for name in variants}
    for turn in range(repeats + warm):
        for name, run in variants.items():
            taken = run(turn)
            if turn >= warm:  # the first calls compile
                times[name].append(taken)
    return {name: np.min(np.array(taken), axis=0) for name, taken in times.items()}


def seconds(function: Callable, *arguments: Any) -> float:
    begin = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - begin


class Report:
    """Lines of "what, measured, required"; counts what is missed."""

    missed = 0

    def line(self, what: str, value: float, limit: float | None = None, unit: str = "") -> None:
        verdict = ""
        if limit is not None:
            self.missed += value > limit
            verdict = f"   required: at most {limit:g}{unit}  {'ok' if value <= limit else 'MISSED'}"
        print(f"  {what:58s}{value:10.4g}{unit}{verdict}", flush=True)


# ---------------------------------------------------------------- an icosphere's translation


def outline_derivative(vertices: np.ndarray, faces: np.ndarray, view: View, weights: np.ndarray) -> np.ndarray:
    """d sum(weights * image) / d translation, by the integral of weight times normal velocity along the convex outline."""
    local = vertices - np.array(view.eye)
    film = SIZE / 2 + view.focal * np.stack([local[:, 0] / -local[:, 2], local[:, 1] / local[:, 2]], axis=1)
    hull = ConvexHull(film)
    known = {
        tuple(sorted(pair)) for face in faces.tolist() for pair in ((face[0], face[1]), (face[1], face[2]), (face[2], face[0]))
    }
    total = np.zeros(3)
    s = ((np.arange(4000) + 0.5) / 4000)[:, None]
    for (ia, ib), (nx, ny, _) in zip(hull.simplices, hull.equations, strict=True):
        assert tuple(sorted((int(ia), int(ib)))) in known, "the outline is not made of edges"
        a, b = film[ia], film[ib]
        at = a * (1 - s) + b * s
        # the point of the edge that is seen there: 1 / depth is linear along the film
        depth = 1.0 / ((1 - s[:, 0]) / -local[ia, 2] + s[:, 0] / -local[ib, 2])
        x, y = (at[:, 0] - SIZE / 2) / view.focal, -(at[:, 1] - SIZE / 2) / view.focal
        inside = np.floor(at).astype(int)
        jump = weights[inside[:, 1], inside[:, 0]].sum(axis=1) * (ALBEDO - 1.0) * LIGHT
        step = np.linalg.norm(b - a) / len(s) * view.focal / depth
        for k, (vx, vy) in enumerate(((np.ones_like(x), 0 * x), (0 * x, -np.ones_like(x)), (x, -y))):
            total[k] += (jump * (nx * vx + ny * vy) * step).sum()
    return total


def edges(report: Report, repeats: int, seeds: int) -> None:
    sphere, faces = icosphere(4)
    shape = Shape(0.8 * sphere + CENTER, faces, (ALBEDO,) * 3)
    view = View((0.0, 0.0, 3.0), 45.0)
    ramp = np.mgrid[0:SIZE, 0:SIZE] / SIZE
    weights = np.repeat((0.5 + ramp[1] + 2.0 * ramp[0] ** 2)[..., None], 3, axis=2).astype(np.float32)
    exact = outline_derivative(shape.vertices, faces, view, weights)
    mine, theirs = Ours([shape], view, 2, LIGHT, **EDGE_SAMPLES), Mitsuba([shape], view, 2, LIGHT)
    factor = torch.tensor(weights)
    found: dict[str, list[np.ndarray]] = {"ours": [], "theirs": []}

    def ours(seed: int) -> float:
        begin = time.perf_counter()
        shift = torch.zeros(3, requires_grad=True)
        (mine.image(seed, shift) * factor).sum().backward()
        taken = time.perf_counter() - begin
        found["ours"].append(shift.grad.numpy().copy())  # type: ignore[union-attr]
        return taken

    def peer(seed: int) -> float:
        taken, gradient = theirs.shift_gradient(weights, seed)
        found["theirs"].append(gradient)
        return taken

    images = {"our image": partial(seconds, mine.image), "image": partial(seconds, theirs.image)}
    times = in_turn({"ours": ours, "theirs": peer, **images}, repeats)
    for _ in range(max(0, seeds - len(found["ours"]))):
        ours(len(found["ours"]))
    error = {n: np.sqrt(np.mean([((g - exact) ** 2).sum() for g in gs])) / np.linalg.norm(exact) for n, gs in found.items()}
    print(f"edges: icosphere of {len(faces)} triangles, d loss / d translation = {exact.round(2)} exactly")
    report.line("our image", times["our image"], unit=" s")
    report.line("Mitsuba's image", times["image"], unit=" s")
    report.line("our image and gradient", times["ours"], unit=" s")
    report.line("Mitsuba's image and gradient", times["theirs"], unit=" s")
    report.line("  ours / Mitsuba", times["ours"] / times["theirs"], EDGE_TIME, "x")
    report.line("error of one run, ours", 100 * error["ours"], unit=" %")
    report.line("error of one run, Mitsuba's", 100 * error["theirs"], unit=" %")
    report.line("  ours / Mitsuba", error["ours"] / error["theirs"], 1.0, "x")
    equal = error["theirs"] / error["ours"] * np.sqrt(times["theirs"] / times["ours"])
    report.line("equal time: Mitsuba's error / ours", equal, unit="x")


# ---------------------------------------------------------------- the Cornell box


def compare_images(report: Report, mine: Ours, theirs: Mitsuba, count: int) -> None:
    """Means of `count` images each: their difference is within the noise."""
    a = np.stack([mine.image(seed).numpy() for seed in range(count)])
    b = np.stack([theirs.image(seed) for seed in range(count)])
    report.line("mean of our image / of Mitsuba's - 1, absolute", abs(a.mean() / b.mean() - 1.0), 0.005)
    noise = (a.var(axis=0, ddof=1).mean() + b.var(axis=0, ddof=1).mean()) / count
    difference = ((a.mean(axis=0) - b.mean(axis=0)) ** 2).mean()
    report.line("RMS difference of the images over their noise", np.sqrt(difference / noise), 1.1)
    report.line("noise of our image over Mitsuba's", a.std(axis=0).mean() / b.std(axis=0).mean(), 1.05)


def cornell(report: Report, repeats: int, seeds: int) -> None:
    shapes = cornell_box()
    mine, theirs = Ours(shapes, BOX_VIEW, DEPTH), Mitsuba(shapes, BOX_VIEW, DEPTH)
    found: dict[str, list[np.ndarray]] = {"ours": [], "theirs": []}

    def ours(seed: int) -> tuple[float, float]:
        for albedo in mine.albedos:
            albedo.requires_grad_(True).grad = None
        begin = time.perf_counter()
        loss = mine.image(seed).square().mean()
        middle = time.perf_counter()
        loss.backward()
        end = time.perf_counter()
        found["ours"].append(np.concatenate([albedo.grad.numpy() for albedo in mine.albedos]))  # type: ignore[union-attr]
        for albedo in mine.albedos:
            albedo.requires_grad_(False)
        return middle - begin, end - middle

    def peer(seed: int) -> tuple[float, float]:
        primal, backward, gradient = theirs.albedo_gradient(seed)
        found["theirs"].append(gradient)
        return primal, backward

    print(f"cornell: {sum(len(s.faces) for s in shapes)} triangles, depth {DEPTH}")
    compare_images(report, mine, theirs, 4)
    times = in_turn(
        {
            "our image": partial(seconds, mine.image),
            "image": partial(seconds, theirs.image),
            "ours": ours,
            "theirs": peer,
        },
        repeats,
    )
    for _ in range(max(0, seeds - len(found["ours"]))):
        ours(len(found["ours"]))
        peer(len(found["theirs"]))
    a, b = np.stack(found["ours"]), np.stack(found["theirs"])
    shift = (a.mean(axis=0) - b.mean(axis=0)) / np.sqrt((a.var(axis=0, ddof=1) + b.var(axis=0, ddof=1)) / len(a) + 1e-30)
    report.line("our image", times["our image"], unit=" s")
    report.line("Mitsuba's image", times["image"], unit=" s")
    report.line("  ours / Mitsuba", times["our image"] / times["image"], PRIMAL_TIME, "x")
    report.line("our gradient, without the image", times["ours"][1], unit=" s")
    report.line("Mitsuba's gradient, without the image", times["theirs"][1], unit=" s")
    report.line("  ours / Mitsuba", times["ours"][1] / times["theirs"][1], BACKWARD_TIME, "x")
    report.line(
        "  image and gradient together, ours / Mitsuba", times["ours"].sum() / times["theirs"].sum(), BACKWARD_TIME, "x"
    )
    report.line("our gradient over our image", times["ours"][1] / times["our image"], BACKWARD_OVER_PRIMAL, "x")
    report.line("our image and gradient over our image", times["ours"].sum() / times["our image"], BACKWARD_OVER_PRIMAL, "x")
    report.line("Mitsuba's image and gradient over its image", times["theirs"].sum() / times["image"], unit="x")
    report.line("means of the gradients, RMS difference in standard errors", np.sqrt((shift[:-1] ** 2).mean()), 2.0)
    a, b = a[:, :-1], b[:, :-1]  # the black lamp: Mitsuba leaves its gradient, which is large and noisy, at zero
    noise = [np.linalg.norm(g.std(axis=0, ddof=1)) / np.linalg.norm(g.mean(axis=0)) for g in (a, b)]
    report.line("error of one run of our gradient", 100 * noise[0], unit=" %")
    report.line("error of one run of Mitsuba's", 100 * noise[1], unit=" %")
    equal = noise[1] / noise[0] * np.sqrt(times["theirs"].sum() / times["ours"].sum())
    report.line("equal time: Mitsuba's error / ours", equal, unit="x")


# ---------------------------------------------------------------- large meshes


def meshes(report: Report, repeats: int, seeds: int) -> None:
    room = [shape for i, shape in enumerate(cornell_box()) if i not in (3, 4)]
    for rows, columns in ((50, 100), (160, 313), (500, 1000)):
        vertices, faces = bumpy_torus(rows, columns)
        shapes = [Shape(vertices, faces, (0.5, 0.6, 0.7)), *room]
        mine, theirs = Ours(shapes, BOX_VIEW, DEPTH), Mitsuba(shapes, BOX_VIEW, DEPTH)
        print(f"meshes: torus of {len(faces)} triangles in the box, depth {DEPTH}")
        begin = seconds(mine.image, 0)
        compare_images(report, mine, theirs, 2)
        times = in_turn({"ours": partial(seconds, mine.image), "theirs": partial(seconds, theirs.image)}, repeats)
        report.line("our first image (trees are built)", begin, unit=" s")
        report.line("our image", times["ours"], unit=" s")
        report.line("Mitsuba's image", times["theirs"], unit=" s")
        report.line("  ours / Mitsuba", times["ours"] / times["theirs"], MESH_TIME, "x")


PARTS = {"edges": edges, "cornell": cornell, "meshes": meshes}


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", help=f"among {', '.join(PARTS)}")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=12, help="runs over which errors are averaged")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.parts if name not in PARTS]
    if unknown:
        raise SystemExit(f"render.py: expected names among {', '.join(PARTS)}, got {', '.join(unknown)}")
    report = Report()
    for name in arguments.parts or PARTS:
        PARTS[name](report, arguments.repeats, arguments.seeds)
    return int(report.missed > 0)


if __name__ == "__main__":
    sys.exit(main())
