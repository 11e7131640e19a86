r"""The ops of the path tracer: images, their gradient, and their derivative along a direction.

The gradient is the sum of an interior part (`render.path_adjoint`) and of boundary parts (`render.primary_boundary`,
`render.shadow_boundary`), each with random numbers of its own, independent of those of the image: a nonlinear loss of the
image is not biased by shared noise. Forward mode runs the same kernels, see `render.gradient_sink`.
"""

import warnings
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import torch
import warp as wp

from dvc.errors import Unsupported
from dvc.warp_op import scratch, warp_op
from render.ball_boundary import ball_primary_kernel
from render.ball_shadow import ball_shadow_kernel
from render.camera_projection import camera_vector
from render.edge_guide import EdgeDraw, guided_draws, random_direction
from render.edge_sampling import film_importance_kernel, fold_importance_kernel
from render.gradient_sink import FORWARD, PILOT, REVERSE, Sink
from render.intersector import Tracers
from render.material_adjoint import material_kernel
from render.path_adjoint import interior_kernel
from render.path_radiance import render_kernel
from render.path_trace import PathVertex
from render.precompile import load_together
from render.primary_boundary import primary_boundary_kernel
from render.scene_data import FilmPlan, SceneNumbers, SceneTables, light_vector, material_vector
from render.sdf_boundary import sdf_boundary_kernel
from render.shadow_boundary import shadow_boundary_kernel
from render.textures import TextureTable
from render.tiles import LARGEST_LAUNCH, launch_parts, thread_count

NUMBERS = ("cameras", "vertices", "positions", "orientations", "exposure", "readout", "materials", "texels", "vertex_values",
           "spheres", "sdf", "lights", "environment", "plate")  # fmt: skip
TABLES = ("faces", "face_table", "corner_uv", "material_table", "sphere_table", "planes", "lamps", "lamp_cdf", "light_kinds",
          "edges", "sdf_frame", "sdf_table", "sky_cdf", "texture_table")  # fmt: skip
PER_VIEW = ("cameras", "positions", "orientations", "exposure", "readout", "plate")
SHARED = tuple(name for name in (*NUMBERS, *TABLES) if name not in PER_VIEW)
BAND = 0.25  # width of the band about an SDF's outline, see render.sdf_boundary
MOST_OUTRUN, FEW_OUTRUN = 1.0e-3, 4  # share of the edge samples, and how many of them may always
OUTRUN = (
    "PathRender: expected bodies and shadows that move on the film slower than the readout, got {} of {} edge samples that "
    "outrun it; remedy: a smaller readout skew or a slower motion"
)


def _numbers(arrays: dict[str, wp.array]) -> SceneNumbers:
    numbers = SceneNumbers()
    for name in NUMBERS:
        setattr(numbers, name, arrays[name])
    return numbers


class PathJob:
    """What all passes have in common."""

    def __init__(self, inputs: Any, *, film: tuple, instances: int, tree_faces: int, has_environment: bool, meshes: bool):
        self.views = inputs.cameras.shape[0]
        self.device = inputs.vertices.device
        self.scene = _numbers({name: getattr(inputs, name) for name in NUMBERS})
        self.tables = SceneTables()
        for name in TABLES[:-1]:
            setattr(self.tables, name, getattr(inputs, name))
        self.tables.textures = TextureTable()
        self.tables.textures.table = inputs.texture_table
        self.tables.has_environment = int(has_environment)
        self.film = FilmPlan()
        for name, value in film:
            setattr(self.film, name, wp.vec2(*value) if isinstance(value, tuple) else value)
        self.film.views_per_world = self.views // inputs.vertices.shape[0]
        self.pixels = self.film.width * self.film.height
        self.seed, self.edges, self.balls = inputs.seed, inputs.edges.shape[0], inputs.sphere_table.shape[0]
        self.interior: Any = interior_kernel if self.film.moves else material_kernel
        self.has_sdf = inputs.sdf_table.shape[0] > 0
        self.tracers = Tracers(inputs.vertices, inputs.faces, inputs.face_table, instances, tree_faces, meshes)
        self.common = [self.scene, self.tables, self.film, self.tracers.tracer, self.seed]

    def differentiate(
        self, sinks: list[Sink], pilots: list[Sink], derivatives: list[wp.array], adjoint: wp.array, boundary_samples: tuple,
        side_offset: float,
    ) -> None:  # fmt: skip
        """Runs interior and boundary passes into the sinks and (forward mode) images of the threads."""
        load_together(self.kernels(boundary_samples), self.device)
        views, device, common = self.views, self.device, self.common
        slots = self.pixels if device.is_cuda else 1
        history = [wp.empty((slots, self.film.depth), dtype=PathVertex, device=device) for _ in sinks]
        launch_parts(
            self.interior, views, self.pixels,
            lambda t, view, first: [*common, view, first, slots, adjoint, history[t], sinks[t], derivatives[0]], device,
        )  # fmt: skip
        self.boundaries(sinks, pilots, derivatives, adjoint, boundary_samples, side_offset)

    def kernels(self, boundary_samples: tuple) -> list:
        """What `differentiate` launches."""
        found: list[Any] = [self.interior]
        if self.edges and any(boundary_samples):
            found += [film_importance_kernel] + [primary_boundary_kernel] * bool(boundary_samples[0])
            found += [shadow_boundary_kernel] * any(boundary_samples[1:])
        if self.balls and any(boundary_samples):
            found += [ball_primary_kernel] + [ball_shadow_kernel] * any(boundary_samples[1:])
        if self.has_sdf and any(boundary_samples):
            found.append(sdf_boundary_kernel)
        return found

    def boundaries(
        self, sinks: list[Sink], pilots: list[Sink], derivatives: list[wp.array], adjoint: wp.array, boundary_samples: tuple,
        side_offset: float,
    ) -> None:  # fmt: skip
        """Runs the passes over edges and outlines of what `film.shows` says; the pilots' sinks serve `render.edge_guide`."""
        refused = [wp.zeros(1, dtype=int, device=self.device) for _ in sinks]
        if self.edges:
            self._edges(sinks, pilots, derivatives, adjoint, boundary_samples, side_offset, refused)
        if self.balls:
            self._balls(sinks, derivatives, adjoint, boundary_samples, refused)
        if self.has_sdf and any(boundary_samples):
            shadows = int(any(boundary_samples[1:]))
            launch_parts(
                sdf_boundary_kernel, self.views, self.pixels,
                lambda t, view, first: [*self.common, view, first, BAND, shadows, adjoint, sinks[t], derivatives[t]],
                self.device,
            )  # fmt: skip
        total = sum(int(array.numpy()[0]) for array in refused)
        drawn = self.views * sum(boundary_samples)
        if total > max(MOST_OUTRUN * drawn, FEW_OUTRUN):
            raise Unsupported(OUTRUN.format(total, drawn))
        if total:
            warnings.warn(f"{OUTRUN.format(total, drawn)}; the gradient leaves them out", stacklevel=2)

    def _edges(
        self, sinks: list[Sink], pilots: list[Sink], derivatives: list[wp.array], adjoint: wp.array, counts: tuple,
        side_offset: float, refused: list[wp.array],
    ) -> None:  # fmt: skip
        ignored = [wp.zeros(1, dtype=int, device=self.device) for _ in sinks]

        def seen(into: list[Sink], out: list[wp.array], t: int, view: int, first: int, draw: EdgeDraw) -> list:
            return [*self.common, view, first, draw, side_offset, adjoint, out[t], into[t], derivatives[t]]

        def hidden(sources: int, into: list[Sink], out: list[wp.array], t: int, view: int, first: int, draw: EdgeDraw) -> list:
            return [*self.common, view, first, draw, sources, adjoint, out[t], into[t], derivatives[t]]

        passes: list[tuple[int, Any, Any, Callable]] = [
            (counts[0], primary_boundary_kernel, film_importance_kernel, seen),
            (counts[1], shadow_boundary_kernel, fold_importance_kernel, partial(hidden, 0)),
            (counts[2], shadow_boundary_kernel, fold_importance_kernel, partial(hidden, 1)),
        ]
        for count, kernel, importance, inputs in passes:
            if not count:
                continue
            sums = [self._sums(importance, view) for view in range(self.views)]
            draws = guided_draws(kernel, sums, count, pilots, partial(inputs, pilots, ignored), self.device)

            def of_estimate(t: int, view: int, first: int, inputs: Callable = inputs, draws: list[EdgeDraw] = draws) -> list:
                return inputs(sinks, refused, t, view, first, draws[view])

            launch_parts(kernel, self.views, count, of_estimate, self.device)

    def _balls(
        self, sinks: list[Sink], derivatives: list[wp.array], adjoint: wp.array, counts: tuple, refused: list[wp.array]
    ) -> None:
        each = [-(-count // self.balls) for count in counts]
        common, primary = self.common, each[0]
        if primary:
            launch_parts(
                ball_primary_kernel, self.views, primary * self.balls,
                lambda t, view, first: [*common, view, first, primary, adjoint, refused[t], sinks[t], derivatives[t]],
                self.device,
            )  # fmt: skip
        for sources, count in enumerate(each[1:]):
            if not count:
                continue

            def of_balls(t: int, view: int, first: int, sources: int = sources, count: int = count) -> list:
                return [*common, view, first, count, sources, adjoint, refused[t], sinks[t], derivatives[t]]

            launch_parts(ball_shadow_kernel, self.views, count * self.balls, of_balls, self.device)

    def sinks(self, arrays: list[dict[str, wp.array]], mode: int) -> list[Sink]:
        """One for each thread; mode: REVERSE, FORWARD or PILOT."""
        made = []
        for own in arrays:
            sink = Sink()
            sink.numbers, sink.forward = _numbers(own), int(mode)
            sink.totals = wp.zeros(LARGEST_LAUNCH if self.device.is_cuda else 1, dtype=float, device=self.device)
            made.append(sink)
        return made

    def _sums(self, kernel: Any, view: int) -> wp.array:
        """Running sums of the edges' importance, in double precision."""
        importance = wp.empty(self.edges, dtype=float, device=self.device)
        wp.launch(
            kernel, self.edges, inputs=[self.scene, self.tables, self.film, view], outputs=[importance], device=self.device
        )
        return wp.from_torch(torch.cumsum(wp.to_torch(importance).double(), 0))


@warp_op(capture=False, seeds=("seed",), shared=SHARED)
def render_paths(
    cameras: wp.array(dtype=camera_vector),
    vertices: wp.array2d(dtype=wp.vec3),
    positions: wp.array3d(dtype=wp.vec3),
    orientations: wp.array3d(dtype=wp.quat),
    exposure: wp.array(dtype=float),
    readout: wp.array(dtype=wp.vec2),
    materials: wp.array2d(dtype=material_vector),
    texels: wp.array2d(dtype=wp.vec3),
    vertex_values: wp.array3d(dtype=wp.vec3),
    spheres: wp.array2d(dtype=wp.vec4),
    sdf: wp.array4d(dtype=float),
    lights: wp.array2d(dtype=light_vector),
    environment: wp.array(dtype=wp.vec3),
    plate: wp.array3d(dtype=wp.vec3),
    seed: wp.array(dtype=int),
    faces: wp.array2d(dtype=int),
    face_table: wp.array2d(dtype=int),
    corner_uv: wp.array2d(dtype=wp.vec2),
    material_table: wp.array2d(dtype=int),
    sphere_table: wp.array2d(dtype=int),
    planes: wp.array(dtype=int),
    lamps: wp.array(dtype=int),
    lamp_cdf: wp.array2d(dtype=float),
    light_kinds: wp.array(dtype=int),
    edges: wp.array2d(dtype=int),
    sdf_frame: wp.array(dtype=float),
    sdf_table: wp.array(dtype=int),
    sky_cdf: wp.array3d(dtype=float),
    texture_table: wp.array2d(dtype=int),
    *,
    film: tuple,
    instances: int,
    tree_faces: int,
    has_environment: bool,
    meshes: bool,
    boundary_samples: tuple,
    side_offset: float,
    wanted: tuple,
):
    """Images (view, row, column, 3). The leading axis is the view; worlds serve a run of views each."""
    job = PathJob(
        SimpleNamespace(**locals()), film=film, instances=instances, tree_faces=tree_faces, has_environment=has_environment,
        meshes=meshes,
    )  # fmt: skip
    load_together([render_kernel, *(job.kernels(boundary_samples) if wanted else ())], job.device)
    images = scratch((job.views, job.film.height, job.film.width), wp.vec3, zero=False)
    launch_parts(render_kernel, job.views, job.pixels, lambda t, view, first: [*job.common, view, first, images], job.device)
    return images


@render_paths.adjoint(recompute=False)
def _render_paths_adjoint(
    inputs, outputs, *, film, instances, tree_faces, has_environment, meshes, boundary_samples, side_offset, wanted
):
    job = PathJob(inputs, film=film, instances=instances, tree_faces=tree_faces, has_environment=has_environment, meshes=meshes)
    own = [{name: getattr(inputs, name).grad for name in NUMBERS}]
    own += [{name: wp.zeros_like(array) for name, array in own[0].items()} for _ in range(thread_count(job.device) - 1)]
    nothing = wp.empty((0, 0, 0), dtype=wp.vec3, device=job.device)
    pilots = job.sinks([random_direction(own[0], wanted)] * len(own), PILOT)
    job.differentiate(job.sinks(own, REVERSE), pilots, [nothing] * len(own), outputs.grad, boundary_samples, side_offset)
    for arrays in own[1:]:
        for name, array in arrays.items():
            if array.size:
                wp.to_torch(own[0][name], requires_grad=False).add_(wp.to_torch(array, requires_grad=False))


@warp_op(capture=False, seeds=("seed",), enable_backward=False,
         shared=(*SHARED, *(f"d_{name}" for name in NUMBERS if name not in PER_VIEW)))  # fmt: skip
def derive_paths(
    cameras: wp.array(dtype=camera_vector),
    vertices: wp.array2d(dtype=wp.vec3),
    positions: wp.array3d(dtype=wp.vec3),
    orientations: wp.array3d(dtype=wp.quat),
    exposure: wp.array(dtype=float),
    readout: wp.array(dtype=wp.vec2),
    materials: wp.array2d(dtype=material_vector),
    texels: wp.array2d(dtype=wp.vec3),
    vertex_values: wp.array3d(dtype=wp.vec3),
    spheres: wp.array2d(dtype=wp.vec4),
    sdf: wp.array4d(dtype=float),
    lights: wp.array2d(dtype=light_vector),
    environment: wp.array(dtype=wp.vec3),
    plate: wp.array3d(dtype=wp.vec3),
    seed: wp.array(dtype=int),
    faces: wp.array2d(dtype=int),
    face_table: wp.array2d(dtype=int),
    corner_uv: wp.array2d(dtype=wp.vec2),
    material_table: wp.array2d(dtype=int),
    sphere_table: wp.array2d(dtype=int),
    planes: wp.array(dtype=int),
    lamps: wp.array(dtype=int),
    lamp_cdf: wp.array2d(dtype=float),
    light_kinds: wp.array(dtype=int),
    edges: wp.array2d(dtype=int),
    sdf_frame: wp.array(dtype=float),
    sdf_table: wp.array(dtype=int),
    sky_cdf: wp.array3d(dtype=float),
    texture_table: wp.array2d(dtype=int),
    d_cameras: wp.array(dtype=camera_vector),
    d_vertices: wp.array2d(dtype=wp.vec3),
    d_positions: wp.array3d(dtype=wp.vec3),
    d_orientations: wp.array3d(dtype=wp.quat),
    d_exposure: wp.array(dtype=float),
    d_readout: wp.array(dtype=wp.vec2),
    d_materials: wp.array2d(dtype=material_vector),
    d_texels: wp.array2d(dtype=wp.vec3),
    d_vertex_values: wp.array3d(dtype=wp.vec3),
    d_spheres: wp.array2d(dtype=wp.vec4),
    d_sdf: wp.array4d(dtype=float),
    d_lights: wp.array2d(dtype=light_vector),
    d_environment: wp.array(dtype=wp.vec3),
    d_plate: wp.array3d(dtype=wp.vec3),
    *,
    film: tuple,
    instances: int,
    tree_faces: int,
    has_environment: bool,
    meshes: bool,
    boundary_samples: tuple,
    side_offset: float,
    wanted: tuple,
):
    """Derivative of the images while every number moves along its d_: (view, row, column, 3)."""
    given = SimpleNamespace(**locals())
    job = PathJob(given, film=film, instances=instances, tree_faces=tree_faces, has_environment=has_environment, meshes=meshes)
    images = scratch((job.views, job.film.height, job.film.width), wp.vec3, requires_grad=False)
    threads = thread_count(job.device)
    direction = {name: getattr(given, f"d_{name}") for name in NUMBERS}
    derivatives = [images] + [wp.zeros_like(images) for _ in range(threads - 1)]
    nothing = wp.empty((0, 0, 0), dtype=wp.vec3, device=job.device)
    sinks, pilots = (job.sinks([direction] * threads, mode) for mode in (FORWARD, PILOT))
    job.differentiate(sinks, pilots, derivatives, nothing, boundary_samples, side_offset)
    for part in derivatives[1:]:
        wp.to_torch(images, requires_grad=False).add_(wp.to_torch(part, requires_grad=False))
    return images
