"""`AovRender`: the stage that renders what the camera's rays meet, each image with its gradient."""

import warnings
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dvc.records import Camera, Film, Shutter
from render.aov import render_aovs
from render.camera_projection import pack_camera
from render.edge_guide import wanted_motion
from render.material_checks import require_unlit
from render.path_op import NUMBERS, TABLES
from render.path_render import PathRender, edge_counts, step_back
from render.scene import Ball, Body, Plane, Scene, SdfBody
from render.scene_packing import ordered_bodies
from render.value_checks import real_number, whole_number

COPIES = 7  # of three channels a pixel: all images together, as `render.film_checks` counts


class Aovs(NamedTuple):
    """Images of what a camera sees. Where it meets nothing all are 0 (instance: -1): a pixel is the mean over the pixel filter
    with nothing counting as 0, and x / mask is the mean over what is hit."""

    depth: Tensor  # along the camera's axis [m], (view, row, column)
    position: Tensor  # in the world [m], (view, row, column, 3)
    normal: Tensor  # of the surface's front (counter-clockwise side, outside of balls), in world axes, (view, row, column, 3)
    albedo: Tensor  # after texture and vertex lookup; of a conductor: its specular reflectance, (view, row, column, 3)
    mask: Tensor  # share of the pixel in which something is hit, (view, row, column)
    motion: Tensor  # on the film [px of the full frame], x to the right, y down, (view, row, column, 2)
    instance: Tensor  # number in Scene.bodies of what the pixel's centre shows, int32, without gradient, (view, row, column)


class AovRender(nn.Module):
    """Renders depth, position, normal, albedo, mask, motion and instance: see `Aovs`.

    Arguments:
        samples: rays a film pixel.
        pixel_filter, filter_size: "box", "tent" or "gaussian", see render.pixel_filter.
        motion_time: time over which motion is measured [s], from the moment of each sample on; None: the exposure. With the
            nodes' interval it is the motion to the next node. Beyond the last node the last interval goes on.
        boundary_samples: edge samples a view; None: a quarter of the rays.
        side_offset, meshes: as for PathRender.
    forward: scene; camera; film; shutter; seed; frame_interval, node_interval [s], as for PathRender.
    Returns: Aovs. Motion is that of the surface's point, carried by its body's poses, while the camera stands still; 0 on
        bodies without poses, and where the point goes behind the camera.
    Gradient: to all geometry, poses, camera, shutter, albedo, textures and vertex values, noisy and unbiased, with
        silhouettes, borders and creases. Left out: jumps of the albedo along seams of texture coordinates and between faces
        of one plane, curves where surfaces cut through each other, the horizon of planes, textures' coordinates; instance has
        none.
    """

    def __init__(
        self, samples: int = 16, *, pixel_filter: str = "box", filter_size: float | None = None,
        motion_time: float | None = None, boundary_samples: int | tuple[int, int, int] | None = None, side_offset: float = 0.01,
        meshes: bool = False,
    ):  # fmt: skip
        super().__init__()
        self.motion_time = -1.0 if motion_time is None else real_number("AovRender.motion_time", motion_time, 0.0, unit=" [s]")
        whole_number("AovRender.samples", samples, 1)
        boundary_samples = edge_counts("AovRender.boundary_samples", boundary_samples)
        self.paths = PathRender(
            samples, 1, pixel_filter=pixel_filter, filter_size=filter_size, boundary_samples=boundary_samples,
            side_offset=side_offset, meshes=meshes,
        )  # fmt: skip

    def forward(
        self,
        scene: Scene,
        camera: Camera,
        film: Film,
        shutter: Shutter | None = None,
        seed: int | Tensor = 0,
        frame_interval: float = 1.0,
        node_interval: float = 1.0,
    ) -> Aovs:
        given, numbers, packed = self.paths.pack(scene, camera, film, shutter, None, COPIES)
        scene, camera = given.scene, given.camera
        require_unlit(scene)
        wanted = wanted_motion(ordered_bodies(scene.bodies), numbers)
        options = self.paths.options(packed, scene, film, frame_interval, node_interval, wanted)
        options["film"] += (("motion_time", self.motion_time),)
        form, position, normal, albedo, motion, found = render_aovs(
            *(numbers[name] for name in NUMBERS), self.paths.seeds(seed, packed.views, camera),
            *(packed.tables[name] for name in TABLES), **options,
        )  # fmt: skip
        empty = torch.nonzero(form.detach()[..., 1].flatten(1).amax(dim=1) == 0.0)[:, 0]
        if len(empty):
            warnings.warn(f"AovRender: view {int(empty[0])} ({len(empty)} of {len(form)}) sees no body", stacklevel=2)
        body_of = _body_numbers(scene, found.device)
        instance = torch.where(found >= 0, body_of[found.long().clamp_min(0)], found)
        depth = form[..., 0]
        if camera.orthographic:  # measured from the camera's own plane, from which the rays have stepped back
            depth = depth - step_back(packed, pack_camera(camera, packed.views, film)) * form[..., 1]
        return Aovs(depth, position, normal, albedo, form[..., 1], motion[..., :2], instance)


def _body_numbers(scene: Scene, device: torch.device) -> Tensor:
    """Number in Scene.bodies of each face, sphere and SDF, in the order in which they are packed."""
    number_of = {id(body): number for number, body in enumerate(scene.bodies)}
    ordered = [body for kind in (Body, Plane, Ball, SdfBody) for body in ordered_bodies(scene.bodies) if isinstance(body, kind)]
    counts = [len(body.mesh.faces) if isinstance(body, Body) else 1 for body in ordered]
    numbers = torch.tensor([number_of[id(body)] for body in ordered], dtype=torch.int32, device=device)
    return numbers.repeat_interleave(torch.tensor(counts, device=device))
