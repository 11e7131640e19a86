r"""A sphere becomes a given shape by gradient descent on rendered views alone: pixels, silhouettes and cast shadows.

    loss = mean over views and levels l of  mean |P_l(I - T)|^2,      P_l the l-th level of a pyramid of means

T are `views` pictures of the target, I those of the unknown shape, noisy. The square is taken because its gradient is unbiased
here: the renderer's backward pass draws samples of its own, so that E[(I - T) dI] = (E I - T) E dI (`render.image_losses`); the
coarse levels pull silhouettes that do not overlap yet. Two representations, each coarse to fine, descend with large steps
(Nicolet, Jacobson and Jakob 2021): the vertices of a mesh, which is triangulated anew by way of a distance grid before every
phase, and the values of a grid of signed distances, whose isosurface is rendered.

Command: `diffvc run experiment=shape_from_images` (the armadillo: `target=data:armadillo_low_res`).

Metrics: `chamfer_rel`: mean of both directions of the distance from points drawn on one surface to the other, over the target's
diagonal; `psnr_heldout_db`: of views that were not fitted, both rendered with many samples, the mean of their dB; `seconds`: of
the descent; `sdf_*`: the same of the grid. Artefacts: `mesh.ply`, `sdf.ply` (metres, z up), `views.npz`, pictures.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dvc.data import resolve
from dvc.errors import UserError
from dvc.gradient_check import CheckRow
from dvc.pipeline import Pipeline
from dvc.records import Mesh, SdfGrid
from dvc.result import Metric, Result
from experiments.clay_views import ClayViews, cameras_around, contact_sheet
from experiments.mesh_pictures import shaded
from experiments.mesh_scores import chamfer_rel, diagonal_of
from experiments.rendered_check import check_pictures, ramp, ways_of
from experiments.surface_descent import checked_phases, descend_surface
from geometry.free_grid import FreeGrid
from geometry.free_mesh import FreeMesh
from geometry.grid_remesh import remesh_by_grid
from geometry.mesh import TriangleMesh, icosphere
from geometry.mesh_io import write_mesh
from geometry.mesh_to_sdf import mesh_to_sdf
from geometry.self_intersections import self_intersection_count
from render.image_losses import multiscale_loss, psnr

MESH, SDF = "mesh", "sdf"
ROOM = 0.15  # free space on each side of the target in the grid of distances, over its longest side
MEASURED_SAMPLES = 64
CHECKED_VIEWS, CHECKED_COLUMNS = 3, 24
SHOWN = 6  # held-out views in the pictures


class ViewMatch(nn.Module):
    """Multi-scale squared difference of pictures from those of the target.

    Arguments: targets (view, row, column, 3); levels: of the pyramid.
    Forward: images (chosen, row, column, 3), chosen (chosen,) or none for all -> loss (1,).
    """

    def __init__(self, targets: Tensor, levels: int):
        super().__init__()
        self.targets, self.levels = targets, int(levels)

    def forward(self, images: Tensor, chosen: Tensor | None = None) -> Tensor:
        targets = self.targets if chosen is None else self.targets[chosen]
        return multiscale_loss(images, targets, norm="l2", levels=self.levels).mean()[None]


class ShapeFromImages:
    """The job "this shape from pictures of it".

    Arguments:
        target: path of a closed mesh, or `data:NAME`; up: its upward axis.
        representations: of mesh and sdf, which to descend with; the first gives the metrics without a prefix.
        phases: each {steps, lr, nodes, columns}: lr is the first step's length over the diagonal, it falls to a tenth, by a
            cosine; nodes: an axis of the grid that the surface is triangulated with, or that holds the distances; columns:
            film pixels a side.
        views, views_a_step, heldout_views: cameras; how many are rendered in one step, and how many measure.
        pixels: a side of the held-out pictures; samples, target_samples: paths a film pixel; levels: of the pyramid.
        smoothness, grid_smoothness: lambda of mesh and grid; grid_lr_share: the grid's lr over the mesh's; redistance_every:
            steps of the grid; radius: of the sphere, over the diagonal.
    """

    def __init__(
        self,
        *,
        target: str,
        phases: Sequence[Mapping[str, float]],
        up: str = "y",
        representations: Sequence[str] = (MESH, SDF),
        views: int = 24,
        views_a_step: int = 12,
        heldout_views: int = 9,
        pixels: int = 96,
        samples: int = 2,
        target_samples: int = 16,
        levels: int = 4,
        smoothness: float = 8.0,
        grid_smoothness: float = 2.0,
        grid_lr_share: float = 2.0,
        redistance_every: int = 10,
        radius: float = 0.2,
        most_chamfer: float = 0.005,
        most_seconds: float = 180.0,
        seed: int = 0,
        claim: str = "",
    ):
        if not representations or set(representations) - {MESH, SDF}:
            raise UserError(f"ShapeFromImages.representations: expected some of mesh, sdf, got {list(representations)}")
        if not 1 <= views_a_step <= views:
            raise UserError(f"ShapeFromImages.views_a_step: expected 1 to {views}, got {views_a_step}")
        self.target = TriangleMesh(resolve(target), up=up)(torch.ones(1))
        self.diagonal = diagonal_of(self.target)
        self.phases, self.representations = checked_phases("ShapeFromImages", phases), list(representations)
        self.pixels, self.samples, self.target_samples, self.levels = (
            int(pixels),
            int(samples),
            int(target_samples),
            int(levels),
        )
        self.cameras = cameras_around(self.target, int(views), self.pixels)
        self.heldout = cameras_around(self.target, int(heldout_views), self.pixels, turn=1.0)
        self.views, self.views_a_step, self.redistance_every = int(views), int(views_a_step), int(redistance_every)
        self.smoothness, self.grid_smoothness, self.radius = float(smoothness), float(grid_smoothness), float(radius)
        self.grid_lr_share = float(grid_lr_share)
        self.most_chamfer, self.most_seconds = float(most_chamfer), float(most_seconds)
        self.seed, self.claim = int(seed), claim
        self._targets: dict[int, Tensor] = {}
        self.pipeline = self._pipeline(self._shape(self.representations[0], self.sphere(), self.phases[0]), self.phases[0])

    def sphere(self) -> Mesh:
        """Where the descent begins."""
        points = self.target.vertices[0]
        middle = 0.5 * (points.amin(0) + points.amax(0))
        vertices, faces = icosphere(4)
        return Mesh(middle + self.radius * self.diagonal * torch.from_numpy(vertices)[None], torch.from_numpy(faces).int())

    def _shape(self, representation: str, surface: Mesh, phase: Mapping[str, float]) -> FreeMesh | FreeGrid:
        """The unknowns of a phase, which begins at `surface`."""
        if representation == MESH:
            mesh = remesh_by_grid(surface, int(phase["nodes"]))
            return FreeMesh(mesh.vertices[0].numpy(), mesh.faces.numpy(), self.smoothness)
        return FreeGrid(self._distances(surface, int(phase["nodes"])), self.grid_smoothness)

    def _distances(self, surface: Mesh, nodes: int) -> SdfGrid:
        points = self.target.vertices[0]
        low, high = points.amin(0), points.amax(0)
        side = float((high - low).max()) * (1.0 + 2.0 * ROOM)
        with torch.no_grad():
            return mesh_to_sdf(surface, 0.5 * (low + high) - 0.5 * side, side / (nodes - 1), (nodes, nodes, nodes))

    def _pipeline(self, shape: FreeMesh | FreeGrid, phase: Mapping[str, float]) -> Pipeline:
        columns = int(phase["columns"])
        stages = {
            "shape": shape,
            "views": ClayViews(self.cameras, self.pixels, columns, self.samples),
            "loss": ViewMatch(self._pictures(columns), self.levels),
        }
        wiring = {
            "views": {"mesh": "shape", "seed": "$seed", "chosen": "$chosen"},
            "loss": {"images": "views", "chosen": "$chosen"},
        }
        return Pipeline(stages, wiring)

    def _pictures(self, columns: int) -> Tensor:
        """The target from the cameras."""
        if columns not in self._targets:
            with torch.no_grad():
                render = ClayViews(self.cameras, self.pixels, columns, self.target_samples, apart=True)
                self._targets[columns] = render(self.target, seed=777_000 + self.seed)
        return self._targets[columns]

    def run(self, recorder: Any) -> Result:
        """Descend with each representation; measure on views that were not fitted."""
        recorder.total(sum(p["steps"] for p in self.phases) * len(self.representations))
        metrics: dict[str, Metric] = {}
        render = ClayViews(self.heldout, self.pixels, self.pixels, MEASURED_SAMPLES, apart=True)
        with torch.no_grad():
            goal, start = render(self.target, seed=1), render(self.sphere(), seed=2)
        pictures = {"target": goal, "start": start}
        for number, representation in enumerate(self.representations):
            mesh, seconds = self._descend(recorder, representation, number * sum(int(p["steps"]) for p in self.phases))
            with torch.no_grad():
                images = render(mesh, seed=3)
            pictures[representation] = images
            chamfer, ratio = chamfer_rel(mesh, self.target), float(psnr(images, goal).mean())
            crossings = int(self_intersection_count(mesh)[0])
            recorder.note(
                f"{representation}: chamfer {chamfer:.3%} of the diagonal, held-out views {ratio:.1f} dB, "
                f"{mesh.faces.shape[0]} faces, {crossings} self-intersections, {seconds:.0f} s"
            )
            write_mesh(recorder.directory / f"{representation}.ply", mesh.vertices, mesh.faces)
            recorder.save_image(f"{representation}_views", contact_sheet([goal[:SHOWN], images[:SHOWN]]))
            sides = [shaded(m, frame=self.target) for m in (self.target, mesh)]
            recorder.save_image(f"{representation}_shape", np.concatenate(sides, axis=1))
            prefix = "" if number == 0 else f"{representation}_"
            metrics[f"{prefix}chamfer_rel"] = Metric(chamfer, "1", f"< {self.most_chamfer:g}", chamfer < self.most_chamfer)
            metrics[f"{prefix}psnr_heldout_db"] = Metric(ratio, "dB")
            metrics[f"{prefix}seconds"] = Metric(seconds, "s", f"< {self.most_seconds:g}", seconds < self.most_seconds)
            metrics[f"{prefix}self_intersections"] = Metric(crossings, "1")
        metrics["start_psnr_heldout_db"] = Metric(float(psnr(start, goal).mean()), "dB")
        metrics["start_chamfer_rel"] = Metric(chamfer_rel(self.sphere(), self.target), "1")
        recorder.save_arrays("views", **pictures, position=self.heldout.position, rotation=self.heldout.rotation)
        return Result(self.claim, {}, metrics)

    def _descend(self, recorder: Any, representation: str, done: int) -> tuple[Mesh, float]:
        for phase in self.phases:
            self._pictures(int(phase["columns"]))
        generator = torch.Generator().manual_seed(self.seed)

        def context(phase: int, step: int) -> dict[str, Any]:
            chosen = torch.randperm(self.views, generator=generator)[: self.views_a_step].sort().values
            return {"seed": 1_000_000 * self.seed + 100_000 * phase + step, "chosen": chosen}

        share = self.grid_lr_share if representation == SDF else 1.0
        mesh, seconds, self.pipeline = descend_surface(
            recorder, representation, self.sphere(), self.phases,
            lambda surface, phase: self._pipeline(self._shape(representation, surface, phase), phase), context,
            share * self.diagonal, done=done, redistance_every=self.redistance_every,
        )  # fmt: skip
        return mesh, seconds

    def check(self) -> list[CheckRow]:
        """Certificate of the pictures, under a ramp: growth of the sphere along each axis."""
        camera = cameras_around(self.target, CHECKED_VIEWS, self.pixels)
        views, start = ClayViews(camera, self.pixels, CHECKED_COLUMNS, 8, apart=True), self.sphere()
        size = self.radius * self.diagonal

        def value(vertices: Tensor, seed: int) -> Tensor:
            return (views(Mesh(vertices, start.faces), seed=seed) * ramp(CHECKED_COLUMNS)).sum()

        ways = ways_of((start.vertices - start.vertices.mean(1, keepdim=True)) / size)
        return check_pictures(value, start.vertices, ways, 0.05 * size, "shape")
