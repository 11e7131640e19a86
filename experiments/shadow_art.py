r"""The shape of an occluder from its shadows alone: a sphere is deformed until its shadows on two walls are given silhouettes.

    loss = mean over walls and pyramid levels l of  mean |P_l(I - T)|^2,      T_k = A_k (1 - m_k) + B_k

with m_k the silhouettes and A, B as in `experiments.shadow_room`. The cameras do not see the occluder: all gradient comes by
way of shadow boundaries (`render.shadow_boundary`). Only vertices at the rim of a shadow receive any, and large steps (Nicolet,
Jacobson and Jakob 2021) carry it on to the others; before every phase the mesh is triangulated anew. The loss is a square for
the reason given in `experiments.shape_from_images`. Shadow art: Mitra and Pauly 2009.

Command: `diffvc run experiment=shadow_art` (`task.silhouettes=[L,T]`: letters).

Metrics: `shadow_iou`: intersection over union of shadows (half the light or more is missing) and silhouettes, the mean of both
walls; `rmse`: of the pictures [W/(m^2 sr)]; `*_before`: the same of the sphere; `seconds`: of the descent. Artefacts:
`mesh.ply` (metres, z up), `shadows.npz`, pictures.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dvc.errors import UserError
from dvc.gradient_check import CheckRow
from dvc.pipeline import Pipeline
from dvc.records import Mesh
from dvc.result import Metric, Result
from experiments.clay_views import contact_sheet
from experiments.mesh_pictures import shaded
from experiments.rendered_check import check_pictures, ramp, ways_of
from experiments.shadow_room import MAGNIFIED, SEEN, ShadowRoom, shadow_of
from experiments.silhouettes import silhouette
from experiments.surface_descent import checked_phases, descend_surface
from geometry.free_mesh import FreeMesh
from geometry.grid_remesh import remesh_by_grid
from geometry.mesh import icosphere
from geometry.mesh_io import write_mesh
from geometry.self_intersections import self_intersection_count
from render.image_losses import multiscale_loss

MEASURED_SAMPLES = 64
CHECKED_COLUMNS = 24
HEIGHT = 0.6  # of a silhouette, over the picture's


class PictureMatch(nn.Module):
    """Multi-scale squared difference of images (view, row, column, 3) from fixed targets -> loss (1,)."""

    def __init__(self, targets: Tensor, levels: int):
        super().__init__()
        self.targets, self.levels = targets, int(levels)

    def forward(self, images: Tensor) -> Tensor:
        return multiscale_loss(images, self.targets, norm="l2", levels=self.levels).mean()[None]


class ShadowArt:
    """The job "these shadows".

    Arguments:
        silhouettes: of the wall y and the wall x, see `experiments.silhouettes`.
        phases: each {steps, lr, nodes, columns}: lr over the sphere's diameter; nodes: an axis of the grid that the mesh is
            triangulated with; columns: film pixels a side.
        samples, edge_samples: paths a film pixel and light, shadow boundary samples a wall and light; levels: of the pyramid.
        smoothness: lambda; pixels: a side of the pictures that are measured.
    """

    def __init__(
        self,
        *,
        silhouettes: Sequence[str],
        phases: Sequence[Mapping[str, float]],
        samples: int = 2,
        edge_samples: int = 4096,
        levels: int = 4,
        smoothness: float = 8.0,
        pixels: int = 128,
        least_iou: float = 0.95,
        seed: int = 0,
        claim: str = "",
    ):
        if len(silhouettes) != 2:
            raise UserError(f"ShadowArt.silhouettes: expected two, one a wall, got {list(silhouettes)}")
        self.silhouettes, self.phases = list(silhouettes), checked_phases("ShadowArt", phases)
        self.samples, self.edge_samples, self.levels = int(samples), int(edge_samples), int(levels)
        self.smoothness, self.pixels, self.least_iou = float(smoothness), int(pixels), float(least_iou)
        self.seed, self.claim = int(seed), claim
        self.radius = 0.8 * HEIGHT * SEEN / MAGNIFIED
        self.pipeline = self._pipeline(self.sphere(), self.phases[0])

    def sphere(self) -> Mesh:
        """Where the descent begins."""
        vertices, faces = icosphere(4)
        return Mesh(self.radius * torch.from_numpy(vertices)[None], torch.from_numpy(faces).int())

    def masks(self, columns: int) -> Tensor:
        """The silhouettes, (wall, row, column)."""
        return torch.stack([silhouette(name, columns, HEIGHT) for name in self.silhouettes])

    def _pipeline(self, surface: Mesh, phase: Mapping[str, float]) -> Pipeline:
        columns = int(phase["columns"])
        room = ShadowRoom(columns, self.samples, self.edge_samples)
        own, other = ShadowRoom(columns, MEASURED_SAMPLES, 0).without_occluder(9000 + self.seed)
        mesh = remesh_by_grid(surface, int(phase["nodes"]))
        stages = {
            "shape": FreeMesh(mesh.vertices[0].numpy(), mesh.faces.numpy(), self.smoothness),
            "walls": room,
            "loss": PictureMatch(own * (1.0 - self.masks(columns)[..., None]) + other, self.levels),
        }
        return Pipeline(stages, {"walls": {"mesh": "shape", "seed": "$seed"}, "loss": {"images": "walls"}})

    def run(self, recorder: Any) -> Result:
        """Measure the sphere's shadows, descend, measure again."""
        recorder.total(int(sum(p["steps"] for p in self.phases)))
        room, masks = ShadowRoom(self.pixels, MEASURED_SAMPLES, 0), self.masks(self.pixels)
        own, other = room.without_occluder(9500)
        goal = own * (1.0 - masks[..., None]) + other

        def measured(mesh: Mesh, seed: int) -> tuple[Tensor, float, float]:
            with torch.no_grad():
                images = room(mesh, seed=seed)
            dark, wanted = shadow_of(images, own, other) > 0.5, masks > 0.5
            iou = (dark & wanted).flatten(1).sum(1) / (dark | wanted).flatten(1).sum(1)
            return images, float(iou.mean()), float((images - goal).square().mean().sqrt())

        before, iou_before, rmse_before = measured(self.sphere(), 9600)
        mesh, seconds, self.pipeline = descend_surface(
            recorder, "shadows", self.sphere(), self.phases, self._pipeline,
            lambda phase, step: {"seed": 1_000_000 * self.seed + 100_000 * phase + step}, 2.0 * self.radius,
        )  # fmt: skip
        after, iou, rmse = measured(mesh, 9700)
        crossings = int(self_intersection_count(mesh)[0])
        recorder.note(
            f"shadows: intersection over union {iou_before:.3f} -> {iou:.3f}, rmse {rmse_before:.4f} -> {rmse:.4f}, "
            f"{mesh.faces.shape[0]} faces, {crossings} self-intersections, {seconds:.0f} s"
        )
        write_mesh(recorder.directory / "mesh.ply", mesh.vertices, mesh.faces)
        recorder.save_arrays("shadows", target=goal, before=before, after=after, own=own, other=other, masks=masks)
        recorder.save_image("shadows", contact_sheet([goal, before, after]))
        sides = [shaded(mesh, yaw=yaw, pitch=-0.2) for yaw in (0.0, 0.8, 1.5708)]
        recorder.save_image("shape", np.concatenate(sides, axis=1))
        metrics = {
            "shadow_iou": Metric(iou, "1", f"> {self.least_iou:g}", iou > self.least_iou),
            "rmse": Metric(rmse, "W/(m^2 sr)", f"< {rmse_before:.3g}", rmse < rmse_before),
            "shadow_iou_before": Metric(iou_before, "1"),
            "rmse_before": Metric(rmse_before, "W/(m^2 sr)"),
            "self_intersections": Metric(crossings, "1"),
            "seconds": Metric(seconds, "s"),
        }
        return Result(self.claim, {}, metrics)

    def check(self) -> list[CheckRow]:
        """Certificate of the pictures, under a ramp: growth of the sphere along each axis."""
        room, start = ShadowRoom(CHECKED_COLUMNS, 16, 16_000), self.sphere()

        def value(vertices: Tensor, seed: int) -> Tensor:
            return (room(Mesh(vertices, start.faces), seed=seed) * ramp(CHECKED_COLUMNS)).sum()

        return check_pictures(value, start.vertices, ways_of(start.vertices / self.radius), 0.05 * self.radius, "shape")
