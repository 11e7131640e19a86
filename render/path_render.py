"""`PathRender`: the stage that renders a scene by path tracing, with gradients that include boundaries."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from dvc.errors import UserError
from dvc.records import Camera, Film, Shutter
from render.camera_projection import pack_camera
from render.edge_guide import MOVING, wanted_motion
from render.film_checks import COPIES, check_film, check_memory
from render.material_checks import require_emission
from render.path_op import NUMBERS, TABLES, derive_paths, render_paths
from render.pixel_filter import filter_option
from render.scene import Ball, Body, Plane, Scene, SdfBody
from render.scene_checks import Given, check_given
from render.scene_packing import PackedScene, ordered_bodies, pack_scene
from render.value_checks import real_number, require_kind, shown, whole_number


def _warn_black(images: Tensor) -> None:
    """An image without light is right where it is meant, and a riddle otherwise."""
    dark = torch.nonzero(images.detach().flatten(1).abs().amax(dim=1) == 0.0)[:, 0]
    if len(dark):
        warnings.warn(
            f"PathRender: view {int(dark[0])} ({len(dark)} of {images.shape[0]}) is black: it sees nothing that emits or is "
            "lit; "
            "look for a camera inside a body or behind one-sided faces, no light, a depth of 1 without lamps",
            stacklevel=3,
        )


def step_back(packed: PackedScene, cameras: Tensor) -> float:
    """Distance [m] by which cameras without perspective step back so that the whole scene lies in front of them."""
    numbers, frame = packed.numbers, packed.tables["sdf_frame"]
    parts = [numbers["vertices"], numbers["positions"], cameras[:, :3]]
    extents = [float(part.detach().norm(dim=-1).amax()) for part in parts if part.numel()]
    spheres = numbers["spheres"].detach()
    if spheres.numel():
        extents.append(float((spheres[..., :3].norm(dim=-1) + spheres[..., 3]).amax()))
    if frame.numel():
        extents.append(float(frame[:3].norm() + frame[3] * sum(numbers["sdf"].shape[1:])))
    return 1.1 * sum(extents)


def edge_counts(name: str, given: int | Sequence[int] | None) -> tuple[int, int, int] | None:
    """Samples for primary visibility, for lamps and lights, for directions."""
    if given is None:
        return None
    if isinstance(given, (tuple, list)):
        if len(given) != 3:
            raise UserError(f"{name}: expected one whole number, three, or None, got {shown(given)}")
        first, second, third = (whole_number(f"{name}[{i}]", count, 0) for i, count in enumerate(given))
        return first, second, third
    return (whole_number(name, given, 0),) * 3


BUILT = {"scene", "camera", "shutter", "plate"}

_warned: set[str] = set()


def _warn_left_out(scene: Scene, depth: int) -> None:
    """Says once what the gradient of a moving scene lacks."""
    kinds = {type(body) for body in scene.bodies}
    if depth >= 3 and kinds & {Ball, SdfBody} and "outlines" not in _warned:
        _warned.add("outlines")
        warnings.warn(
            "PathRender: the gradient leaves out the outlines and shadows of balls and SDFs that are seen by way of other "
            "surfaces (depth 3 and more); those of meshes are in; said once",
            stacklevel=4,
        )


class PathRender(nn.Module):
    """Renders a scene by path tracing, with gradient to everything in it.

    Arguments:
        samples: paths a film pixel.
        depth: 1 shows emission only, 2 adds direct light, 3 one bounce, and so on.
        roulette_depth: from which vertex on a path may end by chance; None: never.
        pixel_filter, filter_size: "box", "tent" or "gaussian", see render.pixel_filter.
        boundary_samples: edge samples a view for primary visibility, for the shadows of lamps and lights, and for what the
            environment and other surfaces light; None: a quarter, half and half as many as there are paths in the gradient.
        side_offset: how far beside an edge the ray behind it looks, as a fraction of a film pixel or of the edge on the film.
        gradient_samples: paths a film pixel of the gradient, which are others than the image's; None: as many.
        meshes: cast rays with Warp's meshes in place of our own trees (slower; to check against).
    forward: scene; camera (pinhole or orthographic, with distortion; one row for all views, one a world, or one a view); film;
        shutter: exposure and readout, None: an instant; seed: int, or int32 (view,); plate (view or 1, row, column, 3): what
        the camera sees where it meets nothing, in place of the environment; frame_interval, node_interval [s].
    Returns: images, linear radiance, (view, row, column, 3).
    Gradient: to all tensors of scene, camera, shutter and plate, noisy and unbiased but for what is left out: outlines and
        shadows of balls and SDFs that are seen by way of other surfaces (those of meshes are in), textures' coordinates,
        curves where surfaces cut through each other, the horizon of planes, the step of the rays that look beside edges
        (`side_offset`).
    """

    def __init__(
        self, samples: int = 16, depth: int = 2, *, roulette_depth: int | None = None, pixel_filter: str = "box",
        filter_size: float | None = None, boundary_samples: int | tuple[int, int, int] | None = None,
        side_offset: float = 0.01, meshes: bool = False, gradient_samples: int | None = None,
    ):  # fmt: skip
        super().__init__()
        self.samples = whole_number("PathRender.samples", samples, 1)
        self.depth = whole_number("PathRender.depth", depth, 1)
        self.gradient_samples = (
            self.samples if gradient_samples is None else whole_number("PathRender.gradient_samples", gradient_samples, 1)
        )
        self.roulette_depth = (
            self.depth + 1 if roulette_depth is None else whole_number("PathRender.roulette_depth", roulette_depth, 1)
        )
        self.side_offset = real_number("PathRender.side_offset", side_offset, 0.0, 0.5)
        require_kind("PathRender.meshes", meshes, bool)
        require_kind("PathRender.pixel_filter", pixel_filter, str)
        self.meshes = meshes
        size = None if filter_size is None else real_number("PathRender.filter_size", filter_size, 0.0)
        self.filter = filter_option("PathRender.pixel_filter", pixel_filter, size)
        self.boundary_samples = edge_counts("PathRender.boundary_samples", boundary_samples)

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
        given, numbers, packed = self.pack(scene, camera, film, shutter, plate)
        if self.depth == 1:
            require_emission(given.scene)
        wanted = wanted_motion(ordered_bodies(given.scene.bodies), numbers)
        images = render_paths(
            *(numbers[name] for name in NUMBERS), self.seeds(seed, packed.views, given.camera),
            *(packed.tables[name] for name in TABLES),
            **self.options(packed, given.scene, film, frame_interval, node_interval, wanted),
        )  # fmt: skip
        _warn_black(images)
        return images

    def derivative(
        self, build: Callable[[Tensor], dict[str, Any]], value: Tensor, direction: Tensor | None = None, *, film: Film,
        seed: int | Tensor = 0, frame_interval: float = 1.0, node_interval: float = 1.0,
    ) -> Tensor:  # fmt: skip
        """Derivative of the image while `value` moves along `direction` (ones): (view, row, column, 3), noisy, unbiased as
        the gradient.

        build(value) -> {"scene": Scene, "camera": Camera, "shutter": ..., "plate": ...}, made by torch alone (forward-mode
        differentiation passes through it; ops of Warp refuse it).
        """
        require_kind("PathRender.derivative.value", value, Tensor, "torch.tensor(...)")
        along = torch.ones_like(value) if direction is None else direction
        require_kind("PathRender.derivative.direction", along, Tensor, "torch.tensor(...)")
        alike = along.shape == value.shape and along.dtype == value.dtype and along.device == value.device
        if not (alike and value.is_floating_point() and bool(torch.isfinite(along).all())):
            raise UserError(
                f"PathRender.derivative.direction: expected finite numbers as value has, float of shape {tuple(value.shape)}, "
                f"got {along.dtype} of shape {tuple(along.shape)}"
            )
        with torch.no_grad(), forward_ad.dual_level():
            built = build(forward_ad.make_dual(value.detach(), along.detach()))
            if not isinstance(built, Mapping) or not {"scene", "camera"} <= built.keys() <= BUILT:
                raise UserError(
                    "PathRender.derivative.build: expected {'scene': ..., 'camera': ...} and perhaps shutter and plate, got "
                    f"{', '.join(map(str, built)) if isinstance(built, Mapping) else shown(built)}"
                )
            given, numbers, packed = self.pack(built["scene"], built["camera"], film, built.get("shutter"), built.get("plate"))
            if self.depth == 1:
                require_emission(given.scene)
            parts = {name: forward_ad.unpack_dual(tensor) for name, tensor in numbers.items()}
            primal = {name: part.primal.contiguous() for name, part in parts.items()}
            tangent = {
                name: torch.zeros_like(primal[name]) if part.tangent is None else part.tangent.contiguous()
                for name, part in parts.items()
            }
            if all(part.tangent is None for part in parts.values()):
                raise UserError(
                    "PathRender.derivative: expected a build(value) that depends on its value, got one that does not"
                )
            wanted = tuple((name, None) for name in MOVING if parts[name].tangent is not None)
            seeds = self.seeds(seed, packed.views, given.camera)
            tables = [forward_ad.unpack_dual(packed.tables[name]).primal.contiguous() for name in TABLES]
        return derive_paths(
            *(primal[name] for name in NUMBERS), seeds, *tables, *(tangent[name] for name in NUMBERS),
            **self.options(packed, given.scene, film, frame_interval, node_interval, wanted),
        )  # fmt: skip

    def pack(
        self, scene: Scene, camera: Camera, film: Film, shutter: Shutter | None, plate: Tensor | None, copies: int = COPIES
    ) -> tuple[Given, dict[str, Tensor], PackedScene]:
        """What is rendered, checked; the numbers that carry gradient, cameras among them; and the rest of what kernels take."""
        check_film(film)
        given = check_given(scene, camera, shutter, plate)
        packed = pack_scene(given, film)
        check_memory(film.rows, film.columns, packed.views, given.camera.position.device, copies)
        cameras = pack_camera(given.camera, packed.views, film)
        if camera.orthographic:  # the picture does not change when the camera steps back along its axis
            back = step_back(packed, cameras)
            cameras = torch.cat([cameras[:, :3] - back * cameras[:, 9:12], cameras[:, 3:]], dim=1)
        return given, {"cameras": cameras, **packed.numbers}, packed

    @staticmethod
    def seeds(seed: int | Tensor, views: int, camera: Camera) -> Tensor:
        """One seed a view, int32 (view,). Raises: UserError for what is no seed of 32 bits, or another number of them."""
        name, low, high = "PathRender.seed", -(2**31), 2**31 - 1
        if not isinstance(seed, Tensor):
            seed = torch.tensor([whole_number(name, seed, low, high)], dtype=torch.int32)
        if seed.dtype not in (torch.int32, torch.int64, torch.int16) or seed.dim() > 1 or seed.numel() not in (1, views):
            raise UserError(
                f"{name}: expected an int, or int32 of shape ({views},), one a view, got {seed.dtype} of shape "
                f"{tuple(seed.shape)}"
            )
        if seed.dtype == torch.int64 and not bool(((seed >= low) & (seed <= high)).all()):
            raise UserError(f"{name}: expected whole numbers from {low} to {high}, got {int(seed.min())} to {int(seed.max())}")
        return seed.to(device=camera.position.device, dtype=torch.int32).expand(views).contiguous()

    def options(
        self, packed: PackedScene, scene: Scene, film: Film, frame_interval: float, node_interval: float, wanted: tuple
    ) -> dict[str, Any]:
        """What the ops take by name; wanted: see `render.edge_guide.wanted_motion`."""
        frame_interval = real_number("PathRender.frame_interval", frame_interval, 0.0, unit=" of seconds")
        node_interval = real_number("PathRender.node_interval", node_interval, 0.0, unit=" of seconds")
        plan = (
            ("origin", (float(film.left), float(film.top))), ("frame", (float(film.width), float(film.height))),
            ("scale", float(film.scale)), ("height", int(film.rows)), ("width", int(film.columns)),
            ("filter_kind", self.filter[0]), ("filter_size", self.filter[1]), ("frame_interval", frame_interval),
            ("node_interval", node_interval), ("samples", self.samples),
            ("gradient_samples", self.gradient_samples), ("moves", int(bool(wanted))), ("depth", self.depth),
            ("roulette_depth", self.roulette_depth),
        )  # fmt: skip
        return {
            "film": plan, "instances": packed.instances, "tree_faces": packed.tree_faces, "meshes": self.meshes,
            "has_environment": scene.environment is not None, "side_offset": self.side_offset,
            "boundary_samples": self._boundary(film, scene) if wanted else (0, 0, 0), "wanted": wanted,
        }  # fmt: skip

    def _boundary(self, film: Film, scene: Scene) -> tuple[int, int, int]:
        """Samples for primary visibility, for lamps and lights, for directions."""
        _warn_left_out(scene, self.depth)
        given = self.boundary_samples
        if given is None:
            paths = int(film.rows * film.columns * self.gradient_samples)
            given = (max(1024, paths // 4), max(1024, paths // 2), max(1024, paths // 2))
        primary, shadow, indirect = given
        if self.depth < 2:
            shadow = indirect = 0
        lamps = any(isinstance(b, Body) and scene.materials[b.material].emission is not None for b in scene.bodies)
        lit = bool(scene.lights) or lamps
        if not lit:
            shadow = 0
        others = [b for b in scene.bodies if isinstance(b, (Ball, Plane, SdfBody))]  # emit, but are not sampled as lamps
        glows = any(scene.materials[b.material].emission is not None for b in others)
        if self.depth < 3 and scene.environment is None and not glows:
            indirect = 0
        return primary, shadow, indirect
