"""A sphere becomes a given closed surface by gradient descent on chamfer distance and normals, with large steps.

    loss = mean_i |x_i - y_n(i)|^2 / D^2 + mean_j |y_j - x_m(j)|^2 / D^2 + w (normal consistency of both matches)

over points x drawn anew from the mesh at every step and points y of the target; D is the target's diagonal. Descent moves u,
with x = (I + lambda L)^-1 u (Nicolet, Jacobson and Jakob 2021), coarse to fine: after each phase every face is cut in four.
The same descent on the vertices themselves (lambda = 0) stands beside it. Command: `diffvc run experiment=sphere_to_spot`.

Metrics: `chamfer_rel`: mean of both directions of the distance from points drawn on one surface to the other surface, over
D; `self_intersections`: pairs of triangles that meet; `seconds`: of the descent; `plain_*`: the same for plain descent.
Artefacts: `mesh.ply` (metres, z up), `plain.ply`, pictures.
"""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dvc.data import resolve
from dvc.errors import UserError
from dvc.gradient_check import CheckRow, gradient_check
from dvc.pipeline import Pipeline
from dvc.records import Mesh
from dvc.result import Metric, Result
from experiments.mesh_pictures import shaded
from experiments.mesh_scores import chamfer_rel
from geometry.free_mesh import FreeMesh, free_sphere
from geometry.large_steps import AdamUniform
from geometry.mesh import TriangleMesh
from geometry.mesh_io import write_mesh
from geometry.nearest_points import PointTree, nearest_points
from geometry.point_losses import matched_distance, normal_consistency
from geometry.self_intersections import self_intersection_count
from geometry.surface_samples import sample_surface


class TargetMatch(nn.Module):
    """Residuals between a mesh and a fixed target surface, from points drawn on both.

    Arguments: target: closed mesh of one world; samples: points a side and step; normal_weight: w.
    Forward: mesh, seed (number of the draw) -> loss (1,).
    Gradient: to the mesh's vertices, through points and normals; matches are found without it.
    """

    def __init__(self, target: Mesh, samples: int, normal_weight: float, pool: int = 50_000):
        super().__init__()
        self.target, self.samples, self.normal_weight = target, int(samples), float(normal_weight)
        self.diagonal = float((target.vertices[0].amax(0) - target.vertices[0].amin(0)).norm())
        with torch.no_grad():
            drawn = sample_surface(target, pool, torch.tensor([1]))
        self.points, self.normals = drawn.points, drawn.normals
        self.tree = PointTree(self.points, "target")

    def forward(self, mesh: Mesh, seed: int = 0) -> Tensor:
        drawn = sample_surface(mesh, self.samples, torch.tensor([int(seed) + 2]))
        generator = torch.Generator().manual_seed(int(seed))
        chosen = torch.randint(0, self.points.shape[1], (self.samples,), generator=generator)
        goal, goal_normals = self.points[:, chosen], self.normals[:, chosen]
        tree = PointTree(drawn.points.detach(), "mesh")
        there, back = nearest_points(tree, self.tree).nearest, nearest_points(goal, tree).nearest
        distance = (
            matched_distance(drawn.points, self.points, there, squared=True).mean(1)
            + matched_distance(goal, drawn.points, back, squared=True).mean(1)
        ) / self.diagonal**2
        normals = normal_consistency(drawn.normals, self.normals, there) + normal_consistency(goal_normals, drawn.normals, back)
        return distance + self.normal_weight * normals


class SphereToMesh:
    """The job "a sphere becomes this surface".

    Arguments:
        target: path of a closed mesh, or `data:NAME`; up: its upward axis.
        phases: each {steps, lr}: lr is the first step's length over the diagonal; it falls to a twentieth, by a cosine. Every
            phase after the first starts from the mesh with its faces cut in four.
        subdivisions: of the first icosphere; radius: of it, over the target's diagonal.
        smoothness: lambda; samples, normal_weight: see `TargetMatch`; compare_plain: run lambda = 0, too.
    """

    def __init__(
        self,
        *,
        target: str,
        phases: Sequence[Mapping[str, float]],
        up: str = "y",
        subdivisions: int = 3,
        radius: float = 0.18,
        smoothness: float = 30.0,
        samples: int = 10_000,
        normal_weight: float = 1e-4,
        compare_plain: bool = True,
        most_chamfer: float = 0.005,
        most_seconds: float = 180.0,
        seed: int = 0,
        claim: str = "",
    ):
        if not phases or any(set(p) != {"steps", "lr"} or p["steps"] < 1 or not p["lr"] > 0.0 for p in phases):
            raise UserError("SphereToMesh.phases: expected a list of {steps, lr}, steps from 1 and lr above 0")
        surface = TriangleMesh(resolve(target), up=up)(torch.ones(1))
        self.phases, self.smoothness, self.seed, self.claim = [dict(p) for p in phases], float(smoothness), int(seed), claim
        self.subdivisions, self.radius, self.compare_plain = int(subdivisions), float(radius), bool(compare_plain)
        self.most_chamfer, self.most_seconds = float(most_chamfer), float(most_seconds)
        self.match = TargetMatch(surface, samples, normal_weight)
        self.pipeline = self._pipeline(self._start(self.smoothness))

    def _start(self, smoothness: float) -> FreeMesh:
        points = self.match.points[0]
        middle = points.mean(0).tolist()
        return free_sphere(middle, self.radius * self.match.diagonal, self.subdivisions, smoothness)

    def _pipeline(self, mesh: FreeMesh) -> Pipeline:
        return Pipeline({"mesh": mesh, "loss": self.match}, {"loss": {"mesh": "mesh", "seed": "$seed"}})

    def run(self, recorder: Any) -> Result:
        """Descend with large steps, then plainly; measure both."""
        recorder.total(sum(p["steps"] for p in self.phases) * (2 if self.compare_plain else 1))
        metrics: dict[str, Metric] = {}
        for name in ("large steps", "plain") if self.compare_plain else ("large steps",):
            large = name == "large steps"
            mesh, seconds = self._descend(recorder, name, self.smoothness if large else 0.0)
            chamfer, crossings = self.chamfer(mesh), int(self_intersection_count(mesh)[0])
            recorder.note(f"{name}: chamfer {chamfer:.3%} of the diagonal, {crossings} self-intersections, {seconds:.0f} s")
            write_mesh(recorder.directory / ("mesh.ply" if large else "plain.ply"), mesh.vertices, mesh.faces)
            pictures = [shaded(m, frame=self.match.target) for m in (self.match.target, mesh)]
            recorder.save_image("mesh" if large else "plain", np.concatenate(pictures, axis=1))
            if large:
                metrics["chamfer_rel"] = Metric(chamfer, "1", f"< {self.most_chamfer:g}", chamfer < self.most_chamfer)
                metrics["self_intersections"] = Metric(crossings, "1", "0", crossings == 0)
                metrics["seconds"] = Metric(seconds, "s", f"< {self.most_seconds:g}", seconds < self.most_seconds)
            else:
                metrics["plain_chamfer_rel"] = Metric(chamfer, "1")
                metrics["plain_self_intersections"] = Metric(crossings, "1")
        return Result(self.claim, {}, metrics)

    def _descend(self, recorder: Any, name: str, smoothness: float) -> tuple[Mesh, float]:
        mesh, begun = self._start(smoothness), time.perf_counter()
        done = 0 if smoothness else sum(p["steps"] for p in self.phases)
        for index, phase in enumerate(self.phases):
            mesh = mesh if index == 0 else mesh.refined(smoothness)
            self.pipeline = self._pipeline(mesh)
            first = phase["lr"] * self.match.diagonal
            optimizer = AdamUniform([mesh.u], lr=first)
            for k in range(int(phase["steps"])):
                optimizer.param_groups[0]["lr"] = first * (0.05 + 0.475 * (1.0 + math.cos(math.pi * k / phase["steps"])))
                context = {"seed": 1000 * self.seed + 100_000 * index + k}
                loss: Tensor = self.pipeline(["loss"], context=context)["loss"].sum()
                optimizer.zero_grad()
                loss.backward()
                if mesh.u.grad is None or not bool(torch.isfinite(mesh.u.grad).all()):
                    raise UserError("gradient of 'mesh.u' is not finite; remedy: a smaller lr")
                optimizer.step()
                done += 1
                recorder.step(done, float(loss.detach()), f"{name}, {mesh.faces.shape[0]} faces", {})
        with torch.no_grad():
            return mesh(), time.perf_counter() - begun

    def chamfer(self, mesh: Mesh) -> float:
        """Mean of both directions, over the target's diagonal."""
        return chamfer_rel(mesh, self.match.target)

    def check(self) -> list[CheckRow]:
        """Certificate of the loss in the unknowns."""
        mesh: FreeMesh = self.pipeline.stages["mesh"]  # type: ignore[assignment]

        def loss(u: Tensor) -> Tensor:
            return self.match(Mesh(mesh.steps(u), mesh.faces), seed=5)

        return gradient_check(loss, [mesh.u], ["mesh.u"], kind="weights")
