"""An asymmetric body is hollowed and tilted so that it spins as a top, by gradients of mass properties through geometry.

    minimise over depths D and tilt   (I_a^2 + I_b^2) / I_c^2 + g_c (l M)^2 + g_u (1 - cos |tilt|)   (geometry.spin_objective)
    subject to   centre of mass on the axis,   axis principal,   I_a, I_b below a margin of I_c

with the cavity {phi + t(D) < 0} (geometry.hollow_body); g_u keeps the body as upright as its inertia allows. It turns about
`pivot`, a point of it on the axis; a peg with a round end, part of the outer surface, reaches from there down to the contact
point. (A top stands on one point under its centre of mass. Spot's own points of that kind have axes near that of the smallest
moment, 64 degrees or more from that of the largest, too far for any cavity.) The peg is as short as it can be while the body
may lean by `lean_deg` before it touches the ground.

1. Search: many starts (worlds), which differ in tilt; Adam on the smooth quadrature of the hollow body on a coarse grid, under
   a rising penalty for the constraints, then Newton's method with the least change of the unknowns, which makes the four
   constraints zero. The peg's mass is left out. The end with the lowest objective goes on.
2. Polish: the surfaces of body with peg and of cavity are extracted from a fine grid, and Newton's method makes the
   constraints zero for exactly these meshes.

Command: `diffvc run experiment=spinning_top`. Metrics, from the two files as written (mass of outer less mass of inner, uniform
density; lengths over the body's diagonal): `axis_angle_deg` between z and the axis of the largest moment about the centre of
mass; `com_offset_rel` and `com_height_rel`: centre of mass from the axis and over the contact point; `inertia_ratio`: the
larger horizontal moment over the vertical one, `stable` where below one; `wall_rel`: least distance between the surfaces;
`mass_rel` over the solid's. `before_*`: the solid body, upright on its peg; `solid_*`: solid, in the pose found. Artefacts:
`outer.stl`, `inner.stl` (metres, z up, spin axis z, contact point at the origin), pictures (solid upright; top; cut open;
cavity).
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dvc.data import resolve
from dvc.errors import UserError
from dvc.gradient_check import CheckRow, compare
from dvc.losses import Objective, term
from dvc.optimize import Phase, optimize
from dvc.parameter import Parameter
from dvc.pipeline import Pipeline
from dvc.records import Mesh, SdfGrid
from dvc.result import Metric, Result
from experiments.mesh_pictures import shaded
from geometry.hollow_body import HollowMass, InnerOffset, cavity_mesh, least_wall, mass_between
from geometry.isosurface import extract_isosurface
from geometry.mesh import TriangleMesh
from geometry.mesh_io import read_mesh, write_mesh
from geometry.mesh_to_sdf import mesh_to_sdf
from geometry.mesh_topology import mesh_topology
from geometry.redistance import redistance
from geometry.sdf_evaluate import sdf_distance
from geometry.sdf_grid import grid_nodes, sample_sdf
from geometry.sdf_shapes import moved, tapered_capsule
from geometry.spin_objective import SpinObjective, axis_angle, clear_height, half_sine, spin_terms, tilt_rotation

YAW, PITCH = 0.6, 0.25  # [rad], of the eye
VIEWER = (math.sin(YAW), -math.cos(YAW), 0.0)  # horizontal, towards the eye
SMOOTHING = 0  # of extracted surfaces: their gradient is that of the positions as they are
CHECK_CELLS = 64  # of the certificate's grid
CHECK_STEPS = (0.3, 0.1, 0.03, 0.01)  # of the unbounded unknown that moves most
ROOM = 4  # cells of a grid around what it holds
TILT_SCALE = 0.2  # rad, the step of a tilt that matters
EXACT = 2e-6  # constraints below this are rounding
ROUGH = 1e-4  # constraints of the quadrature below this hold
LARGEST_STEP = 1.0  # of an unbounded unknown, in one Newton step
NEWTON_STEPS = 15


class Spin(NamedTuple):
    """How a top spins, measured on its meshes."""

    angle_deg: float
    offset: float
    height: float
    ratio: float
    mass: float


class SpinningTop:
    """The job "this body becomes a top".

    Arguments:
        target: path of a mesh, or `data:NAME`; up: its upward axis. It may have small holes; what is made is closed.
        wall: least thickness, softness: s of the offset, peg: radius of the peg's round end (twice that at the pivot), all over
            the diagonal. lean_deg: how far the top may lean before more than the peg touches the ground.
        pivot: the point of the body on the spin axis [m], z up; default: the middle of its bounding box.
        lattice: control points an axis; cells, fine_cells: of the grids of search and polish along the longest side.
        starts: how many, spread over tilts up to `most_tilt_deg`; phases: each {steps, lr, penalty} of the search;
        tries: how many of the best ends are polished until one spins stably; weights: of `SpinObjective`: inertia, height,
            upright, margin, firmness.
    """

    def __init__(
        self,
        *,
        target: str,
        phases: Sequence[Mapping[str, float]],
        up: str = "y",
        wall: float = 0.01,
        softness: float = 0.03,
        peg: float = 0.012,
        lean_deg: float = 5.0,
        pivot: Sequence[float] | None = None,
        lattice: int = 10,
        cells: int = 48,
        fine_cells: int = 128,
        starts: int = 16,
        most_tilt_deg: float = 100.0,
        tries: int = 3,
        weights: Mapping[str, float] | None = None,
        most_angle_deg: float = 0.5,
        most_offset: float = 1e-3,
        seed: int = 0,
        claim: str = "",
    ):
        if not phases or any(set(p) != {"steps", "lr", "penalty"} or p["steps"] < 1 for p in phases):
            raise UserError("SpinningTop.phases: expected a list of {steps, lr, penalty}, steps from 1")
        if not (0.0 < wall < 0.2 and 0.0 < peg < 0.1 and starts >= 1 and tries >= 1):
            raise UserError(
                "SpinningTop: expected wall below 0.2 and peg below 0.1 of the diagonal, starts and tries from 1, "
                f"got {wall}, {peg}, {starts}, {tries}"
            )
        self.body: Mesh = TriangleMesh(resolve(target), up=up)(torch.ones(1))
        self.open = mesh_topology(self.body.faces).border_count > 0
        points = self.body.vertices[0]
        self.low, self.high = points.amin(0), points.amax(0)
        self.diagonal = float((self.high - self.low).norm())
        self.pivot = 0.5 * (self.low + self.high) if pivot is None else torch.tensor([float(x) for x in pivot])
        self.points = points - self.pivot
        self.wall, self.peg, self.lean = wall * self.diagonal, peg * self.diagonal, math.radians(lean_deg)
        self.fine_cells, self.tries, self.claim, self.seed = int(fine_cells), int(tries), claim, int(seed)
        self.most_angle, self.most_offset = float(most_angle_deg), float(most_offset)
        coarse = self._sdf(self.low, self.high, int(cells))
        self._require_inside(coarse)
        spacing = (self.high - self.low).max().item() / self.fine_cells
        # extracted surfaces lie up to an eighth of a cell squared times the curvature inside the body's
        least = self.wall + 0.2 * spacing
        offset = InnerOffset(self.low.tolist(), self.high.tolist(), lattice, least, softness * self.diagonal)
        hollow = HollowMass(coarse, offset)
        with torch.no_grad():
            solid = float(hollow.outer.double().sum()) * hollow.spacing**3
        spin = SpinObjective(points, self.pivot, self.diagonal, solid, lean=self.lean, **(weights or {}))
        depth = Parameter([0.0] * offset.size, unit="m", scale=softness * self.diagonal)
        tilt = Parameter([0.0, 0.0], unit="rad", scale=TILT_SCALE)
        self.offset, self.phases, self.tilts = offset, [dict(p) for p in phases], self._tilts(starts, most_tilt_deg)
        self.pipeline = Pipeline(
            {"depth": depth, "tilt": tilt, "hollow": hollow, "spin": spin},
            {"hollow": {"depth": "depth"}, "spin": {"bodies": "hollow", "tilt": "tilt", "penalty": "$penalty"}},
        )

    # -- set-up ---------------------------------------------------------------------------------------------------------
    def _sdf(self, low: Tensor, high: Tensor, cells: int) -> SdfGrid:
        spacing = float((self.high - self.low).max()) / cells
        shape = tuple(int(n) + 1 + 2 * ROOM for n in ((high - low) / spacing).ceil().tolist())
        origin = 0.5 * (low + high) - 0.5 * spacing * (torch.tensor(shape) - 1.0)
        grid = mesh_to_sdf(self.body, origin, spacing, shape)  # type: ignore[arg-type]
        return redistance(grid) if self.open else grid  # over an opening there is no distance to the surface that closes it

    def _require_inside(self, grid: SdfGrid) -> None:
        deep = -float(sample_sdf(grid, self.pivot[None, None])[0])
        if not deep > self.peg:
            raise UserError(
                f"SpinningTop.pivot: expected a point at least {self.peg:.4g} m inside the body, got {self.pivot.tolist()} at "
                f"{deep:.4g} m; remedy: give pivot, a point of the body through which the axis shall pass"
            )

    @staticmethod
    def _tilts(count: int, most_deg: float) -> Tensor:
        """Tilts [rad] (count, 2), spread evenly over the directions (a Fibonacci spiral)."""
        share = (torch.arange(count) + 0.5) / count
        angle = torch.acos(1.0 - (1.0 - math.cos(math.radians(most_deg))) * share)
        turn = math.pi * (1.0 + math.sqrt(5.0)) * torch.arange(count)
        return torch.stack([angle * torch.cos(turn), angle * torch.sin(turn)], dim=1)

    # -- meshes ---------------------------------------------------------------------------------------------------------
    def _height(self, tilt: Tensor) -> Tensor:
        return clear_height(self.points, tilt_rotation(tilt), self.lean)

    def fine_grid(self, tilts: Tensor, cells: int | None = None) -> SdfGrid:
        """The body's distances on a grid that also holds the pegs of tilts (tilt, 2)."""
        with torch.no_grad():
            up = tilt_rotation(tilts)[:, 2]  # the vertical, in the body's frame
            ends = self.pivot - up * self._height(tilts)[:, None]
        low, high = ends.amin(0) - self.peg, ends.amax(0) + self.peg
        return self._sdf(torch.minimum(low, self.low), torch.maximum(high, self.high), cells or self.fine_cells)

    def with_peg(self, grid: SdfGrid, tilt: Tensor) -> SdfGrid:
        """Distances to the body and its peg; tilt (1, 2). Gradient: to the tilt."""
        height = self._height(tilt)
        up = tilt_rotation(tilt)[:, 2]
        half = 0.5 * (height - self.peg)
        sine = half_sine(tilt)[:, None]
        turn = torch.cat(
            [-tilt * sine, torch.zeros_like(sine), (0.5 * (tilt * tilt).sum(1, keepdim=True).clamp_min(1e-12).sqrt()).cos()], 1
        )
        peg = moved(tapered_capsule(half, self.peg, 2.0 * self.peg), self.pivot - up * half[:, None], turn)
        shape: tuple[int, int, int] = tuple(grid.values.shape[1:])  # type: ignore[assignment]
        distance = sdf_distance(peg, grid_nodes(grid.origin, grid.spacing, shape)).reshape(-1, *shape)
        return grid._replace(values=torch.minimum(grid.values, distance))

    def _placed(self, mesh: Mesh, tilt: Tensor) -> Mesh:
        vertices = (mesh.vertices - self.pivot) @ tilt_rotation(tilt).mT
        up = torch.tensor([0.0, 0.0, 1.0])
        return Mesh(vertices + self._height(tilt)[:, None, None] * up, mesh.faces)

    def top(self, grid: SdfGrid, tilt: Tensor, depth: Tensor | None = None) -> tuple[Mesh, Mesh | None]:
        """Outer and inner surface, contact point at the origin; depth None: solid. Gradient: to tilt and depth."""
        outer = self._placed(extract_isosurface(self.with_peg(grid, tilt), SMOOTHING)[0], tilt)
        inner = None if depth is None else cavity_mesh(self.offset(grid, depth), SMOOTHING)
        return outer, None if inner is None else self._placed(inner, tilt)

    def spin(self, outer: Mesh, inner: Mesh | None) -> Spin:
        """Measures of a top, from its meshes."""
        with torch.no_grad():
            bodies = mass_between(outer, inner, torch.ones(1))
            terms = spin_terms(bodies, self.diagonal)
            return Spin(
                math.degrees(float(axis_angle(bodies.inertia))), float(terms.offset.norm()), float(terms.height),
                float(terms.largest), float(bodies.mass),
            )  # fmt: skip

    # -- descent --------------------------------------------------------------------------------------------------------
    def search(self, recorder: Any) -> Tensor:
        """Ends of all starts (world, size), unbounded unknowns: constraints hold in the quadrature, best objective first."""
        phases = [
            Phase(f"penalty {p['penalty']:g}", "adam", int(p["steps"]), lr=float(p["lr"]), schedule="cosine",
                  context={"penalty": float(p["penalty"])}) for p in self.phases
        ]  # fmt: skip
        declared = self.pipeline.declared()
        depth = declared["depth"].to_raw(declared["depth"].initial).expand(len(self.tilts), -1)
        starts = torch.cat([depth, declared["tilt"].to_raw(self.tilts)], dim=1)

        def on_step(step: int, phase: str, x: Tensor, loss: Tensor) -> None:
            recorder.step(step, float(loss.min()), phase, {})

        fit = optimize(self.pipeline, Objective({"spin": term("spin")}), phases, starts=starts, on_step=on_step)
        if not bool(fit.alive.any()):
            raise UserError("SpinningTop: every start was retired, its loss was not finite; remedy: a smaller lr")
        x, size = project(self.rough_constraints, fit.x[fit.alive])
        with torch.no_grad():
            objective = self.pipeline(["spin"], context={"penalty": 0.0}, raw=self._raw(x))["spin"].square().sum(1)
        order = torch.argsort(objective + torch.where(size < ROUGH, 0.0, 1e3 * size))  # those that fail come last
        return x[order]

    def _raw(self, x: Tensor) -> dict[str, Tensor]:
        return {"depth": x[:, :-2], "tilt": x[:, -2:]}

    def values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Depths [m] (world, count^3) and tilts [rad] (world, 2) of unbounded unknowns (world, size)."""
        declared = self.pipeline.declared()
        return declared["depth"].to_value(x[:, :-2]), declared["tilt"].to_value(x[:, -2:])

    def rough_constraints(self, x: Tensor) -> Tensor:
        """Centre of mass off the axis and products of inertia (world, 4) by quadrature, without the peg."""
        spin: SpinObjective = self.pipeline.stages["spin"]  # type: ignore[assignment]
        bodies = self.pipeline(["hollow"], raw=self._raw(x))["hollow"]
        terms = spin_terms(spin.placed(bodies, self.values(x)[1]), self.diagonal)
        return torch.cat([terms.offset, terms.products], dim=1)

    def constraints(self, grid: SdfGrid, x: Tensor) -> Tensor:
        """The same (1, 4) of the extracted meshes of one world, with the peg."""
        depth, tilt = self.values(x)
        terms = spin_terms(mass_between(*self.top(grid, tilt, depth), torch.ones(1)), self.diagonal)
        return torch.cat([terms.offset, terms.products], dim=1)

    def polish(self, x: Tensor, note: Any = None) -> tuple[SdfGrid, Tensor, Tensor]:
        """The constraints of the meshes made zero, from x (1, size): the fine grid, depth (1, count^3) and tilt (1, 2)."""
        tilt = self.values(x)[1]
        grid = self.fine_grid(torch.cat([tilt, torch.zeros_like(tilt)]))
        x, _ = project(lambda leaf: self.constraints(grid, leaf), x, note)
        return grid, *self.values(x)

    def run(self, recorder: Any) -> Result:
        """Search, polish, write, measure what was written."""
        begun = time.perf_counter()
        recorder.total(sum(int(p["steps"]) for p in self.phases))
        found = None
        for x in self.search(recorder)[: self.tries].split(1):
            grid, depth, tilt = self.polish(x, recorder.note)
            with torch.no_grad():
                outer, inner = self.top(grid, tilt, depth)
            spin = self.spin(outer, inner)
            recorder.note(f"tilt {math.degrees(float(tilt.norm())):.1f}, axis off by {spin.angle_deg:.2g} degrees")
            if inner is not None and (found is None or spin.angle_deg < found[0]):
                found = spin.angle_deg, grid, depth, tilt, outer, inner
            if inner is not None and spin.angle_deg < self.most_angle and spin.offset < self.most_offset:
                break
        if found is None:
            raise UserError("SpinningTop: expected a cavity, all vanished; remedy: a thinner wall, or more fine_cells")
        _, grid, depth, tilt, outer, inner = found
        return self._result(recorder, grid, depth, tilt, outer, inner, time.perf_counter() - begun)

    # -- outcome --------------------------------------------------------------------------------------------------------
    def _result(
        self, recorder: Any, grid: SdfGrid, depth: Tensor, tilt: Tensor, outer: Mesh, inner: Mesh, seconds: float
    ) -> Result:
        files = [recorder.directory / name for name in ("outer.stl", "inner.stl")]
        for path, mesh in zip(files, (outer, inner), strict=True):
            write_mesh(path, mesh.vertices, mesh.faces)
        outer, inner = (read_surface(path) for path in files)
        with torch.no_grad():
            upright = self.top(grid, torch.zeros_like(tilt))[0]
            views = [upright, outer, self._cut(grid, tilt, depth), inner]
        found, solid, before = self.spin(outer, inner), self.spin(outer, None), self.spin(upright, None)
        recorder.save_image("top", np.concatenate([shaded(m, YAW, PITCH, outer) for m in views], axis=1))
        wall = least_wall(outer, inner) / self.diagonal
        stable = found.ratio < 1.0
        metrics = {
            "axis_angle_deg": Metric(found.angle_deg, "deg", f"< {self.most_angle:g}", found.angle_deg < self.most_angle),
            "com_offset_rel": Metric(found.offset, "1", f"< {self.most_offset:g}", found.offset < self.most_offset),
            "com_height_rel": Metric(found.height, "1"),
            "stable": Metric(int(stable), "1", "1", stable),
            "inertia_ratio": Metric(found.ratio, "1", "< 1", stable),
            "wall_rel": Metric(wall, "1", f">= {self.wall / self.diagonal:g}", wall >= self.wall / self.diagonal),
            "mass_rel": Metric(found.mass / solid.mass, "1"),
            "tilt_deg": Metric(math.degrees(float(tilt.norm())), "deg"),
            "diagonal": Metric(self.diagonal, "m"),
            "seconds": Metric(seconds, "s"),
        }
        for name, spin in (("before", before), ("solid", solid)):
            metrics[f"{name}_axis_angle_deg"] = Metric(spin.angle_deg, "deg")
            metrics[f"{name}_com_offset_rel"] = Metric(spin.offset, "1")
            metrics[f"{name}_com_height_rel"] = Metric(spin.height, "1")
            metrics[f"{name}_inertia_ratio"] = Metric(spin.ratio, "1")
        return Result(self.claim, {}, metrics)

    def _cut(self, grid: SdfGrid, tilt: Tensor, depth: Tensor) -> Mesh:
        """The half of the top behind a vertical plane through the axis, seen by `shaded` from the side that is cut."""
        outer, cavity = self.with_peg(grid, tilt).values, self.offset(grid, depth).values
        shape: tuple[int, int, int] = tuple(grid.values.shape[1:])  # type: ignore[assignment]
        toward = tilt_rotation(tilt)[0].T @ torch.tensor(VIEWER)
        plane = (grid_nodes(grid.origin, grid.spacing, shape) - self.pivot) @ toward
        half = torch.maximum(torch.maximum(outer, -cavity), plane.reshape(1, *shape))
        return self._placed(extract_isosurface(grid._replace(values=half), SMOOTHING)[0], tilt)

    def check(self) -> list[CheckRow]:
        """Certificate of the meshes' constraints through the whole chain, on a coarse grid, in depths and tilt.

        Each moves along the gradient itself: in a random direction a thousand depths cancel, and what is left drowns in the
        jumps that a change of the mesh's topology makes.
        """
        tilt = self.tilts[len(self.tilts) // 2 :][:1]
        grid = self.fine_grid(tilt, CHECK_CELLS)
        depth = 0.3 * torch.randn(1, self.offset.size, generator=torch.Generator().manual_seed(self.seed))
        x = torch.cat([depth, self.pipeline.declared()["tilt"].to_raw(tilt)], dim=1).detach().requires_grad_(True)
        r = self.constraints(grid, x)[0]
        parts = {"depth": torch.zeros_like(x[0]), "tilt": torch.zeros_like(x[0])}
        parts["depth"][:-2], parts["tilt"][-2:] = 1.0, 1.0
        rows = []
        for i, name in enumerate(("com x", "com y", "I_xz", "I_yz")):
            gradient = torch.autograd.grad(r[i], x, retain_graph=True)[0][0]
            for part, mask in parts.items():
                way = gradient * mask / (gradient * mask).abs().max().clamp_min(1e-12)
                with torch.no_grad():
                    numeric = [
                        float(self.constraints(grid, x + h * way)[0, i] - self.constraints(grid, x - h * way)[0, i]) / (2.0 * h)
                        for h in CHECK_STEPS
                    ]
                analytic = float((gradient * way).double().sum())
                rows.append(compare(analytic, numeric, CHECK_STEPS, 1.0, f"{part}, {name}", "parameter"))
        return rows


def project(constraints: Callable[[Tensor], Tensor], x: Tensor, note: Any = None) -> tuple[Tensor, Tensor]:
    """Newton's method with the least change: x (world, size) at which constraints (world, n) vanish, and what is left (world,).

    x <- x - J^T (J J^T)^-1 r,   J by reverse mode, one pass a constraint; steps are cut at `LARGEST_STEP`
    """
    best, least = x.detach(), torch.full_like(x[:, 0], torch.inf)
    x = x.detach()
    for step in range(NEWTON_STEPS + 1):
        leaf = x.clone().requires_grad_(True)
        r = constraints(leaf)
        size = r.detach().norm(dim=1)
        if note is not None:
            note(f"constraints of the meshes: {float(size.max()):.2e}")
        better = size < least
        best, least = torch.where(better[:, None], x, best), torch.where(better, size, least)
        if step == NEWTON_STEPS or bool((least < EXACT).all()):
            break
        count = r.shape[1]
        rows = [torch.autograd.grad(r[:, i].sum(), leaf, retain_graph=i < count - 1)[0] for i in range(count)]
        jacobian = torch.stack(rows, dim=1).double()
        square = jacobian @ jacobian.mT
        square = square + 1e-9 * square.diagonal(dim1=1, dim2=2).mean(1)[:, None, None] * torch.eye(count)  # of full rank
        change = -(jacobian.mT @ torch.linalg.solve(square, r.detach().double()[..., None]))[..., 0]
        x = x + (change * (LARGEST_STEP / change.abs().amax(1, keepdim=True).clamp_min(LARGEST_STEP))).to(x.dtype)
    return best, least


def read_surface(path: Path) -> Mesh:
    """A mesh file of one world, tiny faces kept."""
    vertices, faces = read_mesh(path, degenerate="keep")
    return Mesh(torch.from_numpy(vertices)[None], torch.from_numpy(faces.astype(np.int32)))
