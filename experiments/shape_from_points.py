"""Points with noise and holes become a closed surface: a signed distance grid is fitted to them, and its zero set extracted.

The grid's values minimise the squared distances at the points, the differences of slope and normals there, and curvature
(`geometry.sdf_from_points`). Noise and smoothness are not set by hand, nor chosen by the truth: a tenth of the points is held
out, the noise is what a first fit leaves at them, and the smoothness is the one whose fit has the least loss at them. Set by
hand: that first guess, the candidates' ratio of 3, the resolution. Screened Poisson reconstruction (Kazhdan and Hoppe 2013, in
Open3D) of the same points and normals stands beside it, at the depth and trimming that come out best when compared with the
truth, which ours never sees. Command: `diffvc run experiment=shape_from_points`.

Metrics: `chamfer_rel`: mean of both directions of the distance from points drawn on one surface to the other, over the target's
diagonal; `normal_error_deg`: mean angle of normals at such pairs; `poisson_*`: the same of Poisson; `closed`: 1 for a closed
2-manifold; `seconds`: of choosing, fitting and extracting; `least_angle_deg`, `slivers_share`: least angle of a triangle, share
of triangles with one under 10 degrees; `cubes_*`: the same of marching cubes on the same grid. Without a target, for a user's
own points, only what needs none. Artefacts: `mesh.ply`, `points.ply`, `poisson.ply` (metres, z up), `angles.csv`,
`poisson.csv`, `sdf.npz`, pictures.
"""

import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dvc.atomic_file import write_file
from dvc.data import resolve
from dvc.errors import Unsupported, UserError
from dvc.gradient_check import CheckRow, gradient_check
from dvc.pipeline import Pipeline
from dvc.records import Mesh, SdfGrid
from dvc.result import Metric, Result
from experiments.mesh_pictures import HEIGHT, WIDTH, shaded
from geometry.closest_points import closest_points
from geometry.isosurface import extract_isosurface
from geometry.mesh_io import UP_AXES, load_open3d, read_mesh, write_mesh
from geometry.mesh_quality import angle_statistics
from geometry.ply_length import check_ply_length
from geometry.sdf_from_points import (
    FreeSdf,
    PointMisfit,
    checked_points,
    drop_unsupported,
    fit_sdf,
    grid_levels,
    sphere_start,
)
from geometry.surface_samples import sample_surface
from render.camera import rotation_from_angles

MEASURED_POINTS = 100_000
LEAST_POINTS = 500
HELD_OUT = 10  # one point in so many
FIRST_NOISE = (0.005, 0.3, 3e-3)  # of points over the diagonal, of normals, and the smoothness that the search starts from
SMOOTHNESS_RATIO, SMOOTHNESS_TRIALS = 3.0, 4  # between candidates; most of them on either side of the start


class ShapeFromPoints:
    """The job "these points are the surface of a body".

    Arguments:
        target: path of a mesh, or `data:NAME`: the truth, and where points are drawn from; open meshes will do. `up`: the
            upward axis of its file and of `points`.
        points: path of a .ply of points with normals (`nx ny nz`, outwards) to use in place of drawn ones; with it the target
            may be null.
        count, noise, normal_noise_deg: of drawn points; standard deviation of each coordinate over the diagonal; rms angle.
        cells: of the grid, along the longest side; a multiple of a power of two.
        poisson_depths, poisson_trims: of the comparison; shares of the vertices of lowest density that are cut away.
    Raises: UserError for files that cannot be used, points without normals, fewer than 500 points, numbers out of range.
    """

    def __init__(
        self,
        *,
        target: str | None = None,
        points: str | None = None,
        up: str = "z",
        count: int = 50_000,
        noise: float = 0.004,
        normal_noise_deg: float = 15.0,
        cells: int = 128,
        poisson_depths: Sequence[int] = (5, 6, 7, 8, 9),
        poisson_trims: Sequence[float] = (0.0, 0.005, 0.01, 0.02, 0.05),
        seed: int = 0,
        claim: str = "",
    ):
        if target is None and points is None:
            raise UserError("ShapeFromPoints: expected a target or points, got neither; remedy: target: data:stanford_bunny")
        if count < LEAST_POINTS or noise < 0.0 or not 0.0 <= normal_noise_deg < 90.0:
            got = f"{count}, {noise} and {normal_noise_deg}"
            raise UserError(f"ShapeFromPoints: expected count from {LEAST_POINTS}, noise from 0, degrees in [0, 90), got {got}")
        if cells < 12:
            raise UserError(f"ShapeFromPoints.cells: expected at least 12, got {cells}")
        if not poisson_depths or not poisson_trims:
            raise UserError("ShapeFromPoints: expected at least one of poisson_depths and of poisson_trims, got none")
        self.claim, self.seed, self.cells = claim, int(seed), int(cells)
        self.depths, self.trims = list(poisson_depths), list(poisson_trims)
        self.target = None
        if target is not None:
            vertices, faces = read_mesh(resolve(target), up=up, degenerate="drop")
            self.target = Mesh(torch.from_numpy(vertices)[None], torch.from_numpy(faces).int())
        if points is not None:
            cloud = read_points(resolve(points), up)
        else:
            assert self.target is not None
            cloud = noisy_points(self.target, int(count), float(noise), float(normal_noise_deg), self.seed)
        self.points, self.normals = checked_points("points", *cloud)
        if len(self.points) < LEAST_POINTS:
            raise UserError(f"points: expected at least {LEAST_POINTS}, got {len(self.points)}; remedy: a denser cloud")
        self.diagonal = diagonal_of(self.points if self.target is None else self.target.vertices[0])
        self.levels = grid_levels(self.points, self.cells)
        first = self.levels.origin, self.levels.spacings[0], self.levels.shapes[0]
        misfit = PointMisfit(self.points, self.normals, FIRST_NOISE[0] * self.diagonal, *FIRST_NOISE[1:])
        self.pipeline = self._pipeline(sphere_start(self.points, *first), misfit)

    def _pipeline(self, grid: SdfGrid, misfit: PointMisfit) -> Pipeline:
        return Pipeline({"sdf": FreeSdf(grid), "loss": misfit}, {"loss": {"grid": "sdf"}})

    def run(self, recorder: Any) -> Result:
        """Choose noise and smoothness, fit, extract; then Poisson, and measure both."""
        recorder.note(f"{len(self.points)} points; grid {' x '.join(map(str, self.levels.shapes[-1]))}")
        write_points(recorder.directory / "points.ply", self.points, self.normals)
        begun, done = time.perf_counter(), 0
        misfit = self.choose(recorder)

        def on_step(level: int, loss: float) -> None:
            nonlocal done
            done += 1
            recorder.step(done, loss, f"grid {' x '.join(map(str, self.levels.shapes[level]))}", {})

        grid, turned = drop_unsupported(fit_sdf(misfit, self.levels, on_step=on_step), self.points)
        mesh = extract_isosurface(grid, border="close")[0]
        seconds = time.perf_counter() - begun
        recorder.note(f"fitted in {seconds:.0f} s; {turned} regions without points turned; {len(mesh.faces)} faces")
        self.pipeline = self._pipeline(grid, misfit)
        write_mesh(recorder.directory / "mesh.ply", mesh.vertices, mesh.faces)
        recorder.save_arrays("sdf", values=grid.values[0], origin=grid.origin, spacing=np.float32(grid.spacing))

        metrics: dict[str, Metric] = {}
        pictures = [dotted(self.points, self.normals, mesh if self.target is None else self.target)]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*traced .* times")  # meshes of many sizes are measured once each
            if self.target is None:
                rms = float(closest_points(mesh, self.points[None]).distance.square().mean().sqrt())
                metrics["residual_rel"] = Metric(rms / self.diagonal, "1")
                pictures.append(shaded(mesh))
            else:
                poisson = self._compare(recorder, mesh, metrics)
                pictures += [pictured(m, self.target) for m in (self.target, mesh, poisson)]
        recorder.save_image("points" if self.target is None else "points_truth_mesh_poisson", side_by_side(pictures))
        manifold = closed_manifold(mesh)
        metrics["closed"] = Metric(int(manifold), "1", 1, manifold)
        metrics["seconds"] = Metric(seconds, "s")
        self._angles(recorder, grid, mesh, metrics)
        return Result(self.claim, {}, metrics)

    def choose(self, recorder: Any) -> PointMisfit:
        """The loss with the noise and smoothness that held-out points ask for, on a grid of twice the spacing."""
        generator = torch.Generator().manual_seed(self.seed + 1)
        held = torch.zeros(len(self.points))
        held[torch.randperm(len(held), generator=generator)[: len(held) // HELD_OUT]] = 1.0
        levels = grid_levels(self.points, self.cells // 2)
        guess = (FIRST_NOISE[0] * self.diagonal, *FIRST_NOISE[1:])

        def loss(weights: Tensor, *settings: float) -> PointMisfit:
            return PointMisfit(self.points, self.normals, *settings, weights)  # type: ignore[call-arg,arg-type,misc]

        point_noise, normal_noise = loss(held, *guess).residuals(fit_sdf(loss(1.0 - held, *guess), levels))
        noise = max(point_noise, 1e-6 * self.diagonal), max(normal_noise, 1e-3)
        recorder.note(f"noise at held-out points: {noise[0] / self.diagonal:.3%} of the diagonal, normals {noise[1]:.2f}")

        def score(power: int) -> float:
            smoothness = FIRST_NOISE[2] * SMOOTHNESS_RATIO**power
            found = float(loss(held, *noise, smoothness).data_loss(fit_sdf(loss(1.0 - held, *noise, smoothness), levels)))
            recorder.note(f"smoothness {smoothness:.1e}: loss at held-out points {found:.4f}")
            return found

        best, least = 0, score(0)
        for way in (1, -1):
            while abs(best + way) <= SMOOTHNESS_TRIALS and (found := score(best + way)) < least:
                best, least = best + way, found
            if best:
                break
        return PointMisfit(self.points, self.normals, *noise, FIRST_NOISE[2] * SMOOTHNESS_RATIO**best)

    def _compare(self, recorder: Any, mesh: Mesh, metrics: dict[str, Metric]) -> Mesh:
        """Errors of our mesh and of Poisson's best one, which is returned; best is what is nearest to the truth."""
        assert self.target is not None
        chamfer, angle = surface_errors(mesh, self.target)
        best: tuple[float, float, Mesh] | None = None
        rows = []
        for depth in self.depths:
            for trim, other in zip(self.trims, poisson_meshes(self.points, self.normals, depth, self.trims), strict=True):
                errors = surface_errors(other, self.target)
                rows.append((depth, trim, len(other.faces), *errors))
                if best is None or errors[0] < best[0]:
                    best = (*errors, other)
        assert best is not None
        recorder.save_table("poisson", ("depth", "trim", "faces", "chamfer_rel", "normal_error_deg"), rows)
        write_mesh(recorder.directory / "poisson.ply", best[2].vertices, best[2].faces)
        depth, trim = min(rows, key=lambda row: row[3])[:2]
        recorder.note(f"chamfer {chamfer:.4%} of the diagonal; Poisson {best[0]:.4%}, best at depth {depth}, trim {trim:g}")
        metrics["chamfer_rel"] = Metric(chamfer, "1", f"< {best[0]:.6f} (Poisson)", chamfer < best[0])
        metrics["poisson_chamfer_rel"] = Metric(best[0], "1")
        metrics["normal_error_deg"] = Metric(angle, "deg")
        metrics["poisson_normal_error_deg"] = Metric(best[1], "deg")
        return best[2]

    def _angles(self, recorder: Any, grid: SdfGrid, mesh: Mesh, metrics: dict[str, Metric]) -> None:
        ours, cubes = angle_statistics(mesh), angle_statistics(marching_cubes(grid))
        metrics["least_angle_deg"] = Metric(ours.minimum, "deg")
        metrics["slivers_share"] = Metric(ours.share_under_10, "1")
        metrics["cubes_least_angle_deg"] = Metric(cubes.minimum, "deg")
        metrics["cubes_slivers_share"] = Metric(cubes.share_under_10, "1")
        rows = [(10 * i, 10 * i + 10, float(a), float(b)) for i, (a, b) in enumerate(zip(ours.histogram, cubes.histogram))]
        recorder.save_table("angles", ("from_deg", "to_deg", "share", "marching_cubes_share"), rows)

    def check(self) -> list[CheckRow]:
        """Certificate of the loss in the grid's values, on the coarsest grid, away from where it starts."""
        misfit: PointMisfit = self.pipeline.stages["loss"]  # type: ignore[assignment]
        start = sphere_start(self.points, self.levels.origin, self.levels.spacings[0], self.levels.shapes[0])
        uneven = torch.randn(start.values.shape, generator=torch.Generator().manual_seed(3))
        values = (start.values + 0.1 * start.spacing * uneven).requires_grad_(True)

        def loss(values: Tensor) -> Tensor:
            return misfit(start._replace(values=values))

        return gradient_check(loss, [values], ["sdf.values"], kind="weights")


def diagonal_of(points: Tensor) -> float:
    """Of the box around points [m] (point, 3)."""
    return float((points.amax(0) - points.amin(0)).norm())


def noisy_points(mesh: Mesh, count: int, noise: float, normal_noise_deg: float, seed: int) -> tuple[Tensor, Tensor]:
    """Points and normals (count, 3) drawn by area from a mesh, with Gaussian noise on both."""
    drawn = sample_surface(mesh, count, torch.tensor([seed + 100]))
    generator = torch.Generator().manual_seed(seed)
    points = drawn.points[0] + noise * diagonal_of(mesh.vertices[0]) * torch.randn(count, 3, generator=generator)
    tilt = float(np.deg2rad(normal_noise_deg)) / 2.0**0.5  # of each of the two components across the normal
    normals = drawn.normals[0] + tilt * torch.randn(count, 3, generator=generator)
    return points, torch.nn.functional.normalize(normals, dim=1)


def read_points(path: Path, up: str) -> tuple[Tensor, Tensor]:
    """Points [m] and normals of a .ply, float32 (point, 3), z up. Raises: UserError."""
    name = f"points file {str(path)!r}"
    if path.suffix.lower() != ".ply" or up not in UP_AXES:
        raise UserError(f"{name}: expected a .ply and up 'x', 'y' or 'z', got {path.suffix!r} and {up!r}")
    check_ply_length(name, path)
    open3d = load_open3d(name)
    with open3d.utility.VerbosityContextManager(open3d.utility.VerbosityLevel.Error):
        cloud = open3d.io.read_point_cloud(str(path))
    if not cloud.has_points() or not cloud.has_normals():
        got = "no points" if not cloud.has_points() else "points without normals"
        raise UserError(
            f"{name}: expected points with normals (x y z nx ny nz), got {got}; remedy: estimate and orient normals"
        )
    axes, signs = UP_AXES[up]
    arrays = [(np.asarray(a)[:, axes] * np.array(signs, np.float64)).astype(np.float32) for a in (cloud.points, cloud.normals)]
    return torch.from_numpy(arrays[0]), torch.from_numpy(arrays[1])


def write_points(path: Path, points: Tensor, normals: Tensor) -> Path:
    """A binary .ply of points with normals."""
    names = "".join(f"property float {name}\n" for name in ("x", "y", "z", "nx", "ny", "nz"))
    head = f"ply\nformat binary_little_endian 1.0\nelement vertex {len(points)}\n{names}end_header\n"
    return write_file(path, head.encode() + torch.cat([points, normals], dim=1).numpy().astype("<f4").tobytes())


def surface_errors(mesh: Mesh, target: Mesh) -> tuple[float, float]:
    """Chamfer over the target's diagonal, and mean angle of normals [degrees], both the mean of the two directions."""
    distances, angles = [], []
    with torch.no_grad():
        for seed, here, there in ((7, mesh, target), (8, target, mesh)):
            drawn = sample_surface(here, MEASURED_POINTS, torch.tensor([seed]))
            found = closest_points(there, drawn.points)
            a, b, c = there.vertices[0][there.faces[found.face[0].long()].long()].unbind(dim=1)
            normals = torch.nn.functional.normalize(torch.linalg.cross(b - a, c - a), dim=1, eps=1e-30)
            angles.append(float(torch.rad2deg(torch.acos((normals * drawn.normals[0]).sum(1).clamp(-1.0, 1.0))).mean()))
            distances.append(float(found.distance.mean()))
    return 0.5 * sum(distances) / diagonal_of(target.vertices[0]), 0.5 * sum(angles)


def poisson_meshes(points: Tensor, normals: Tensor, depth: int, trims: Sequence[float]) -> list[Mesh]:
    """Open3D's screened Poisson reconstruction, with the given shares of vertices of lowest density cut away."""
    open3d = load_open3d("poisson")
    cloud = open3d.geometry.PointCloud()
    cloud.points = open3d.utility.Vector3dVector(points.double().numpy())
    cloud.normals = open3d.utility.Vector3dVector(normals.double().numpy())
    with open3d.utility.VerbosityContextManager(open3d.utility.VerbosityLevel.Error):
        whole, density = open3d.geometry.TriangleMesh.create_from_point_cloud_poisson(cloud, depth=depth)
    density, meshes = np.asarray(density), []
    for trim in trims:
        part = open3d.geometry.TriangleMesh(whole)
        if trim > 0.0:
            part.remove_vertices_by_mask(density < np.quantile(density, trim))
        vertices, faces = np.asarray(part.vertices).astype(np.float32), np.asarray(part.triangles).astype(np.int32)
        meshes.append(Mesh(torch.from_numpy(vertices)[None], torch.from_numpy(faces)))
    return meshes


def marching_cubes(grid: SdfGrid) -> Mesh:
    """Open3D's (VTK's) isosurface of the same grid; it may be open where the surface reaches the rim."""
    open3d = load_open3d("marching cubes")
    volume = open3d.core.Tensor(np.ascontiguousarray(grid.values[0].permute(2, 1, 0).numpy()))
    found = open3d.t.geometry.TriangleMesh.create_isosurfaces(volume, [0.0])
    vertices = torch.from_numpy(found.vertex.positions.numpy().astype(np.float32)) * grid.spacing + grid.origin
    return Mesh(vertices[None], torch.from_numpy(found.triangle.indices.numpy().astype(np.int32)))


def closed_manifold(mesh: Mesh) -> bool:
    """Whether every edge has two faces and the faces at every vertex form one fan."""
    open3d = load_open3d("closed manifold")
    plain = open3d.geometry.TriangleMesh(
        open3d.utility.Vector3dVector(mesh.vertices[0].double().numpy()), open3d.utility.Vector3iVector(mesh.faces.numpy())
    )
    return bool(plain.is_edge_manifold(allow_boundary_edges=False) and plain.is_vertex_manifold())


def pictured(mesh: Mesh, frame: Mesh) -> np.ndarray:
    """`shaded`, or points drawn from a mesh that the renderer does not take (edges of more than two faces)."""
    try:
        return shaded(mesh, frame=frame)
    except Unsupported:
        drawn = sample_surface(mesh, MEASURED_POINTS, torch.tensor([9]))
        return dotted(drawn.points[0], drawn.normals[0], frame)


def dotted(points: Tensor, normals: Tensor, frame: Mesh, yaw: float = 0.6, pitch: float = -0.25) -> np.ndarray:
    """Points seen as `shaded` sees a mesh, uint8 (row, column, 3): near ones over far ones, darker away from the light."""
    low, high = frame.vertices[0].amin(0), frame.vertices[0].amax(0)
    rotation = rotation_from_angles(torch.tensor([pitch]), torch.zeros(1), torch.tensor([yaw]))[0]
    seen = (points - 0.5 * (low + high)) @ rotation.T * (min(WIDTH, HEIGHT) / float((high - low).norm()))
    light = torch.nn.functional.normalize(torch.tensor([-0.4, -0.6, 0.7]), dim=0)
    column, row = (seen[:, 0] + WIDTH / 2).long(), (seen[:, 1] + HEIGHT / 2).long()
    facing = (normals @ rotation.T)[:, 2] < 0.0
    here = facing & (column >= 0) & (column < WIDTH) & (row >= 0) & (row < HEIGHT)
    order = torch.argsort(seen[:, 2], descending=True)
    order = order[here[order]]
    image = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    grey = (60.0 + 150.0 * (normals @ light).clamp_min(0.0)).to(torch.uint8)[order].numpy()
    image[row[order].numpy(), column[order].numpy()] = grey[:, None]
    return image


def side_by_side(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Two a row, white where one is missing."""
    pictures = [*pictures, *([np.full_like(pictures[0], 255)] if len(pictures) % 2 else [])]
    rows = [np.concatenate(pictures[i : i + 2], axis=1) for i in range(0, len(pictures), 2)]
    return np.concatenate(rows, axis=0)
