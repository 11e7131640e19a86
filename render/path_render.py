r"""Ray-traced images of a scene with gradients that include boundaries: the op and the stage.

The gradient is the sum of an interior part (`render.path_adjoint`) and of boundary parts (`render.primary_boundary`,
`render.shadow_boundary`), each with random numbers of its own, independent of those of the image: a nonlinear loss of the
image is not biased by shared noise.
"""

import warnings
from types import SimpleNamespace
from typing import Any

import torch
import warp as wp
from torch import Tensor, nn

from dvc.errors import Unsupported, UserError
from dvc.records import Camera, Film, Shutter
from dvc.warp_op import scratch, warp_op
from render.camera_projection import camera_vector, pack_camera
from render.edge_sampling import film_importance_kernel, fold_importance_kernel
from render.intersector import Tracers
from render.path_adjoint import PathVertex, interior_kernel
from render.path_radiance import render_kernel
from render.pixel_filter import filter_option
from render.primary_boundary import primary_boundary_kernel
from render.scene import Scene
from render.scene_data import FilmPlan, SceneNumbers, SceneTables, light_vector, material_vector
from render.scene_packing import pack_scene
from render.shadow_boundary import shadow_boundary_kernel
from render.textures import TextureTable
from render.tiles import launch_parts, thread_count

NUMBERS = ("vertices", "positions", "orientations", "cameras", "exposure", "readout", "materials", "texels", "vertex_values",
           "spheres", "lights", "environment", "plate")  # fmt: skip
TABLES = ("faces", "face_table", "corner_uv", "material_table", "sphere_table", "planes", "lamps", "lamp_cdf", "light_kinds",
          "edges")  # fmt: skip
OUTRUN = (
    "PathRender: expected bodies that move on the film slower than the readout, got {} edge samples that outrun it; "
    "remedy: a smaller readout skew or a slower motion"
)


def _numbers(arrays: dict[str, wp.array]) -> SceneNumbers:
    numbers = SceneNumbers()
    for name in NUMBERS:
        setattr(numbers, name, arrays[name])
    return numbers


def _tables(arrays: Any, has_environment: bool) -> SceneTables:
    tables = SceneTables()
    for name in TABLES:
        setattr(tables, name, getattr(arrays, name))
    tables.textures = TextureTable()
    tables.textures.table = arrays.texture_table
    tables.has_environment = int(has_environment)
    return tables


def _film_plan(film: tuple, views: int, worlds: int) -> FilmPlan:
    plan = FilmPlan()
    for name, value in film:
        setattr(plan, name, wp.vec2(*value) if isinstance(value, tuple) else value)
    plan.views_per_world = views // worlds
    return plan


class _Job:
    """What the forward and the backward pass have in common."""

    def __init__(self, inputs: Any, film: tuple, instances: int, tree_faces: int, has_environment: bool, meshes: bool):
        self.views = inputs.cameras.shape[0]
        self.scene = _numbers({name: getattr(inputs, name) for name in NUMBERS})
        self.tables = _tables(inputs, has_environment)
        self.film = _film_plan(film, self.views, inputs.vertices.shape[0])
        self.device = inputs.vertices.device
        self.tracers = Tracers(inputs.vertices, inputs.faces, inputs.face_table, instances, tree_faces, meshes)
        self.pixels = self.film.width * self.film.height


@warp_op(
    capture=False, seeds=("seed",),
    shared=("vertices", "materials", "texels", "vertex_values", "spheres", "lights", "environment", "faces", "face_table",
            "corner_uv", "material_table", "sphere_table", "planes", "lamps", "lamp_cdf", "light_kinds", "edges",
            "texture_table"),
)  # fmt: skip
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
    texture_table: wp.array2d(dtype=int),
    *,
    film: tuple,
    instances: int,
    tree_faces: int,
    has_environment: bool,
    boundary_samples: tuple,
    side_offset: float,
    meshes: bool,
):
    """Images (view, row, column, 3). The leading axis is the view; worlds serve a run of views each."""
    job = _Job(SimpleNamespace(**locals()), film, instances, tree_faces, has_environment, meshes)
    images = scratch((job.views, job.film.height, job.film.width), wp.vec3, zero=False)
    launch_parts(
        render_kernel, job.views, job.pixels,
        lambda thread, view, first: [job.scene, job.tables, job.film, job.tracers.tracer, seed, view, first, images],
        job.device,
    )  # fmt: skip
    return images


@render_paths.adjoint(recompute=False)
def _render_paths_adjoint(
    inputs, outputs, *, film, instances, tree_faces, has_environment, boundary_samples, side_offset, meshes
):
    job = _Job(inputs, film, instances, tree_faces, has_environment, meshes)
    adjoint, device, views = outputs.grad, job.device, job.views
    threads = thread_count(device)
    own = [{name: getattr(inputs, name).grad for name in NUMBERS}]
    own += [{name: wp.zeros_like(array) for name, array in own[0].items()} for _ in range(threads - 1)]
    grads = [_numbers(arrays) for arrays in own]
    slots = job.pixels if device.is_cuda else 1
    history = [wp.empty((slots, job.film.depth), dtype=PathVertex, device=device) for _ in range(threads)]
    common = [job.scene, job.tables, job.film, job.tracers.tracer, inputs.seed]
    launch_parts(
        interior_kernel, views, job.pixels,
        lambda thread, view, first: [*common, view, first, slots, adjoint, history[thread], grads[thread]], device,
    )  # fmt: skip
    refused = [wp.zeros(1, dtype=int, device=device) for _ in range(threads)]
    edges = inputs.edges.shape[0]
    primary, shadow, indirect = boundary_samples
    if edges and primary:
        sums = [_sums(film_importance_kernel, job, view, edges) for view in range(views)]
        launch_parts(
            primary_boundary_kernel, views, primary,
            lambda thread, view, first: [
                *common, view, first, primary, side_offset, sums[view], adjoint, refused[thread], grads[thread]
            ],
            device,
        )  # fmt: skip
    if edges and (shadow or indirect):
        sums = [_sums(fold_importance_kernel, job, view, edges) for view in range(views)]
        for sources, count in ((0, shadow), (1, indirect)):
            if count:
                launch_parts(
                    shadow_boundary_kernel, views, count,
                    lambda thread, view, first, sources=sources, count=count: [
                        *common, view, first, count, sources, sums[view], adjoint, refused[thread], grads[thread]
                    ],
                    device,
                )  # fmt: skip
    for arrays in own[1:]:
        for name, array in arrays.items():
            if array.size:
                wp.to_torch(own[0][name], requires_grad=False).add_(wp.to_torch(array, requires_grad=False))
    count = sum(int(array.numpy()[0]) for array in refused)
    if count:
        raise Unsupported(OUTRUN.format(count))


def _sums(kernel: Any, job: _Job, view: int, edges: int) -> wp.array:
    """Running sums of the edges' importance, in double precision."""
    importance = wp.empty(edges, dtype=float, device=job.device)
    wp.launch(kernel, edges, inputs=[job.scene, job.tables, job.film, view], outputs=[importance], device=job.device)
    return wp.from_torch(torch.cumsum(wp.to_torch(importance).double(), 0))


class PathRender(nn.Module):
    """Renders a scene by path tracing, with gradient to everything in it.

    Arguments:
        samples: paths a film pixel.
        depth: 1 shows emission only, 2 adds direct light, 3 one bounce, and so on.
        roulette_depth: from which vertex on a path may end by chance; None: never.
        pixel_filter, filter_size: "box", "tent" or "gaussian", see render.pixel_filter.
        boundary_samples: edge samples a view for primary visibility, for the shadows of lamps and lights, and for what the
            environment and other surfaces light; None: as many as `samples` a film pixel, at most a quarter of them for each.
        side_offset: how far beside an edge the ray behind it looks, as a fraction of a film pixel or of the edge on the film.
        meshes: cast rays with Warp's meshes in place of our own trees (slower; to check against).
    forward: scene; camera (pinhole or orthographic, with distortion; one row for all views, one a world, or one a view); film;
        shutter: exposure and readout, None: an instant; seed: int, or int32 (view,); plate (view or 1, row, column, 3): what the camera
        sees where it meets nothing, in place of the environment; frame_interval, node_interval [s].
    Returns: images, linear radiance, (view, row, column, 3).
    Gradient: to all tensors of scene, camera, shutter and plate, noisy and unbiased but for what is left out: edges that are seen by way of
        more than one surface, silhouettes of balls in shadows and reflections, textures' coordinates, curves where surfaces cut
        through each other, the step of the rays that look beside edges (`side_offset`).
    """

    def __init__(
        self, samples: int = 16, depth: int = 2, *, roulette_depth: int | None = None, pixel_filter: str = "box",
        filter_size: float | None = None, boundary_samples: int | tuple[int, int, int] | None = None,
        side_offset: float = 0.01, meshes: bool = False,
    ):  # fmt: skip
        super().__init__()
        for name, value in (("samples", samples), ("depth", depth)):
            if int(value) < 1:
                raise UserError(f"PathRender.{name}: expected at least 1, got {value}")
        if not 0.0 < side_offset <= 0.5:
            raise UserError(f"PathRender.side_offset: expected a fraction in (0, 0.5], got {side_offset}")
        self.samples, self.depth, self.side_offset, self.meshes = int(samples), int(depth), float(side_offset), bool(meshes)
        self.roulette_depth = int(roulette_depth) if roulette_depth is not None else self.depth + 1
        self.filter = filter_option("PathRender.pixel_filter", pixel_filter, filter_size)
        self.boundary_samples = boundary_samples

    def forward(
        self,
        scene: Scene,
        camera: Camera,
        film: Film,
        shutter: Shutter | None = None,
        seed: int | Tensor = 0,
        plate: Tensor | None = None,
        frame_interval: float = 1.0,
        node_interval: float = 1.0,
    ) -> Tensor:
        packed = pack_scene(scene, camera, shutter, plate, film)
        cameras = pack_camera(camera, packed.views, film)
        seeds = seed if isinstance(seed, Tensor) else torch.tensor([int(seed)], dtype=torch.int32)
        seeds = seeds.to(device=cameras.device, dtype=torch.int32).expand(packed.views).contiguous()
        numbers = packed.numbers
        moves = (
            any(
                numbers[name].requires_grad
                for name in ("vertices", "positions", "orientations", "exposure", "readout", "spheres", "lights")
            )
            or cameras.requires_grad
        )
        options = (
            ("origin", (float(film.left), float(film.top))), ("frame", (float(film.width), float(film.height))),
            ("scale", float(film.scale)), ("height", int(film.rows)), ("width", int(film.columns)),
            ("filter_kind", self.filter[0]), ("filter_size", self.filter[1]), ("frame_interval", float(frame_interval)),
            ("node_interval", float(node_interval)), ("samples", self.samples), ("depth", self.depth),
            ("roulette_depth", self.roulette_depth),
        )  # fmt: skip
        return render_paths(
            cameras, *(numbers[name] for name in NUMBERS if name != "cameras"), seeds,
            *(packed.tables[name] for name in (*TABLES, "texture_table")),
            film=options, instances=packed.instances, tree_faces=packed.tree_faces,
            has_environment=scene.environment is not None,
            boundary_samples=self._boundary(film, scene) if moves else (0, 0, 0),
            side_offset=self.side_offset, meshes=self.meshes,
        )  # fmt: skip

    def _boundary(self, film: Film, scene: Scene) -> tuple[int, int, int]:
        """Samples for primary visibility, for lamps and lights, for directions."""
        given = self.boundary_samples
        if given is None:
            given = max(1024, int(film.rows * film.columns * self.samples) // 4)
        primary, shadow, indirect = (given, given, given) if isinstance(given, int) else given
        if self.depth < 2:
            shadow = indirect = 0
        lit = bool(scene.lights) or any(m.emission is not None for m in scene.materials.values())
        if not lit:
            shadow = 0
        if self.depth < 3 and scene.environment is None:
            indirect = 0
        return int(primary), int(shadow), int(indirect)
