"""What a ray-traced picture is made from, as it was given, brought to tensors of one form or refused in one line.

Checks of all but the camera's lens and the counts of views are made here, once a call, before anything is computed: behind it
all tensors are float32 (faces int32 or int64), on one device, with their world axis, finite and within their limits. Values are
compared with their limits in one transfer.

A tensor that wants a gradient and would get zero whatever the picture (the roughness of a diffuse material, a shutter before
what stands still) is refused, too; for a material that no body uses it is said once.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dvc.errors import Unsupported, UserError
from dvc.records import Camera, Shutter
from render.material_checks import check_material, check_use, limit_roughness
from render.mesh_checks import FAR, FARTHEST, NEARER, SMALLEST, check_mesh, check_twins
from render.scene import Ball, Body, DirectionalLight, EnvironmentMap, Material, Plane, PointLight, Poses, Scene, SdfBody
from render.sdf_checks import check_distances, check_grid
from render.value_checks import LIGHT, POSITIVE, Intake, plain, require_kind, wants

COLOUR: dict[str, Any] = {**LIGHT, "grey": True}
PLACE: dict[str, Any] = {"least": -FARTHEST, "most": FARTHEST, "expected": FAR, "remedy": NEARER}
SMALL_BALL = f"at least {0.5 * SMALLEST:g} of (1 m + the distance from the origin), which float32 resolves"
NO_ROTATION = 1.0e-2
FLATTEST_PLANE = 1.0e-6  # sine of the angle between its sides


class Given(NamedTuple):
    """What is rendered, checked."""

    scene: Scene
    camera: Camera
    shutter: Shutter | None
    plate: Tensor | None
    worlds: int


def check_given(
    scene: Scene, camera: Camera, shutter: Shutter | None, plate: Tensor | None, dtype: torch.dtype = torch.float32
) -> Given:
    """Raises: UserError, one line, for whatever does not fit; Unsupported for what cannot be rendered."""
    require_kind("scene", scene, Scene, "Scene(bodies, materials)")
    require_kind("camera", camera, Camera, "call a stage of render.camera")
    device, owner = _device(scene, camera)
    intake = Intake(device, owner, dtype)
    camera = _camera(intake, camera)
    if not isinstance(scene.bodies, Sequence) or not scene.bodies:
        raise UserError("Scene.bodies: expected at least one body, got none; remedy: add one, an empty scene shows nothing")
    require_kind("Scene.materials", scene.materials, Mapping, 'materials={"name": Material()}')
    for number, body in enumerate(scene.bodies):
        require_kind(f"Scene.bodies[{number}]", body, (Body, Ball, Plane, SdfBody), "Body(mesh, material) for a mesh")
    materials = {name: check_material(intake, name, value) for name, value in scene.materials.items()}
    bodies = [_body(intake, f"Scene.bodies[{number}]", body, materials) for number, body in enumerate(scene.bodies)]
    listed = () if scene.lights is None else scene.lights
    require_kind("Scene.lights", listed, Sequence, "a list of lights, none: []")
    lights = [_light(intake, f"Scene.lights[{number}]", light) for number, light in enumerate(listed)]
    environment = None
    if scene.environment is not None:
        environment = _environment(intake, scene.environment)
    shutter = _shutter(intake, shutter)
    if plate is not None:
        plate = intake.array("PathRender.plate", plate, ("view", "row", "column", 3), image=True)
    worlds = intake.world_count()
    check_use(materials, bodies)
    limit_roughness(intake, materials, bodies)
    _refuse_still_shutter(shutter, bodies)
    intake.settle()
    return Given(Scene(bodies, materials, lights, environment), camera, shutter, plate, worlds)


def check_solids(bodies: Sequence, differentiated: bool) -> None:
    """What remains when it is known whether geometry wants a gradient."""
    for body in bodies:
        if isinstance(body, SdfBody):
            check_distances("SdfBody.grid", body.grid, differentiated)


def _device(scene: Scene, camera: Camera) -> tuple[torch.device, str]:
    """Where everything has to be: where the first tensor is."""
    for name, value in zip(camera._fields, camera):
        if isinstance(value, Tensor):
            return value.device, f"camera.{name}"
    for body in scene.bodies if isinstance(scene.bodies, Sequence) else ():
        for value in [*getattr(body, "mesh", ()), *getattr(body, "grid", ()), *body] if isinstance(body, tuple) else ():
            if isinstance(value, Tensor):
                return value.device, "the first body"
    return torch.device("cpu"), "the scene"


def _camera(intake: Intake, camera: Camera) -> Camera:
    """Position and rotation may have a frame axis behind that of worlds; `pack_camera` compares the axes with the views."""
    inner = {"position": (3,), "rotation": (3, 3), "center": (2,), "distortion": (5,)}
    fields: dict[str, Tensor] = {}
    for name, trailing in inner.items():
        value = getattr(camera, name)
        if name == "distortion" and value is None:
            continue
        fields[name] = intake.row(f"camera.{name}", value, trailing)
    focal = intake.floats("camera.focal", camera.focal)
    if focal.dim() > 2 or (focal.dim() == 2 and focal.shape[1] != 2):
        raise UserError(f"camera.focal: expected shape (world,), or (world, 2) along x and y, got {tuple(focal.shape)}")
    if not isinstance(camera.focal, Tensor) and focal.numel() > 1 and focal.dim() == 1:
        raise UserError("camera.focal: expected a number or a tensor, got several numbers; remedy: [[x, y]] for two lengths")
    require_kind("camera.orthographic", camera.orthographic, bool)
    turns = plain(fields["rotation"])
    off = turns @ turns.transpose(-1, -2) - torch.eye(3, device=turns.device, dtype=turns.dtype)
    what = "a rotation matrix (world to camera, by rows)"
    wide: dict[str, Any] = {
        "remedy": "orthonormal rows with determinant 1, as the stages of render.camera make them",
        "of": turns,
    }
    intake.bound("camera.rotation", off.abs(), most=NO_ROTATION, expected=f"{what}, R R^T within {NO_ROTATION:g} of 1", **wide)
    intake.bound(
        "camera.rotation", torch.linalg.det(turns), 0.0, expected=f"{what}, not its mirror image: determinant 1", **wide
    )
    intake.bound("camera.position", fields["position"], **PLACE)
    return camera._replace(focal=focal[None] if focal.dim() == 0 else focal, **fields)  # type: ignore[arg-type]


def _body(intake: Intake, name: str, body: Body | Ball | Plane | SdfBody, materials: dict[str, Material]) -> Any:
    if not isinstance(body.material, str) or body.material not in materials:
        got = repr(body.material) if isinstance(body.material, str) else type(body.material).__name__
        raise UserError(
            f"{name}.material: expected one of {', '.join(map(str, materials)) or '(no materials)'}, got {got}; "
            "remedy: the name of an entry of Scene.materials"
        )
    material = materials[body.material]
    if isinstance(body, Plane):
        corners = intake.constant(f"{name}.corners", body.corners, (3, 3), **PLACE)
        a, b, c = plain(corners).unbind(1)
        sides = (b - a).norm(dim=1) * (c - a).norm(dim=1)
        sine = torch.linalg.cross(b - a, c - a).norm(dim=1) / sides.clamp_min(1.0e-30)
        intake.bound(
            f"{name}.corners", sine, FLATTEST_PLANE, expected="points that span a plane: a sine of their angle above 1e-6"
        )
        return body._replace(corners=corners)
    poses = _poses(intake, f"{name}.poses", body.poses)
    away = 0.0 if poses is None or not poses.positions.numel() else plain(poses.positions).abs().amax()
    if isinstance(body, SdfBody):
        return body._replace(grid=check_grid(intake, f"{name}.grid", body.grid), poses=poses)
    if isinstance(body, Ball):
        center = intake.constant(f"{name}.center", body.center, (3,), **PLACE)
        radius = intake.constant(
            f"{name}.radius",
            body.radius,
            (),
            least=POSITIVE,
            most=FARTHEST,
            expected=f"positive numbers of at most {FARTHEST:g} m",
        )
        size = plain(radius) / (1.0 + plain(center).norm(dim=1) + away)
        intake.bound(f"{name}.radius", size, 0.5 * SMALLEST, expected=SMALL_BALL, remedy=NEARER)
        return body._replace(center=center, radius=radius, poses=poses)
    mesh = check_mesh(intake, name, body.mesh, away)
    check_twins(name, mesh.faces, material.emission is not None, material.two_sided)
    count, fields = mesh.vertices.shape[1], {}
    for field, last in (("albedo", (3,)), ("alpha", ()), ("emission", (3,))):
        value = getattr(body, f"vertex_{field}")
        if value is not None:
            fields[f"vertex_{field}"] = intake.array(f"{name}.vertex_{field}", value, ("world", count, *last), **LIGHT)
    uv = body.uv
    if uv is not None:
        uv = intake.array(f"{name}.uv", uv, (len(mesh.faces), 3, 2))
        if wants(uv):
            raise Unsupported(
                f"{name}.uv: no gradient to texture coordinates; remedy: detach them, or move the texture's content"
            )
    return body._replace(mesh=mesh, uv=uv, poses=poses, **fields)  # type: ignore[arg-type]


def _poses(intake: Intake, name: str, poses: Poses | None) -> Poses | None:
    if poses is None:
        return None
    require_kind(name, poses, Poses, "Poses(positions, orientations)")
    positions = intake.array(f"{name}.positions", poses.positions, ("view", "node", 3), **PLACE)
    orientations = intake.array(f"{name}.orientations", poses.orientations, ("view", positions.shape[1], 4))
    lengths = plain(orientations).norm(dim=-1)
    intake.bound(
        f"{name}.orientations", lengths, 1.0e-12, 1.0e12, "quaternions, none of zero length: lengths from 1e-12 to 1e12"
    )
    return Poses(positions, orientations)


def _light(intake: Intake, name: str, light: Any) -> PointLight | DirectionalLight:
    require_kind(name, light, (PointLight, DirectionalLight))
    if isinstance(light, PointLight):
        place = {**PLACE, "remedy": "a DirectionalLight for what is far away"}
        return PointLight(
            intake.constant(f"{name}.position", light.position, (3,), **place),
            intake.constant(f"{name}.intensity", light.intensity, (3,), **COLOUR),
        )
    direction = intake.constant(f"{name}.direction", light.direction, (3,))
    length = plain(direction).norm(dim=1)
    intake.bound(f"{name}.direction", length, 1.0e-12, 1.0e12, "a direction, of any length from 1e-12 to 1e12")
    return DirectionalLight(direction, intake.constant(f"{name}.irradiance", light.irradiance, (3,), **COLOUR))


def _environment(intake: Intake, given: Any) -> Tensor | EnvironmentMap:
    if not isinstance(given, EnvironmentMap):
        return intake.constant("Scene.environment", given, (3,), **COLOUR)
    image = intake.array("Scene.environment.image", given.image, ("world", "height", "width", 3), image=True, **LIGHT)
    if image.shape[2] != 2 * image.shape[1]:
        raise UserError(
            "Scene.environment.image: expected twice as many columns as rows (all of latitude and longitude), got shape "
            f"{tuple(image.shape)}; remedy: a panorama, resampled where it has another shape"
        )
    return EnvironmentMap(image, intake.constant("Scene.environment.factor", given.factor, (3,), **COLOUR))


def _shutter(intake: Intake, shutter: Shutter | None) -> Shutter | None:
    if shutter is None:
        return None
    require_kind("shutter", shutter, Shutter, "Shutter(exposure, readout)")
    return Shutter(
        intake.constant("shutter.exposure", shutter.exposure, (), axis="view"),
        intake.constant("shutter.readout", shutter.readout, (2,), axis="view"),
    )


def _refuse_still_shutter(shutter: Shutter | None, bodies: Sequence) -> None:
    if shutter is None or any(
        b.poses is not None and b.poses.positions.shape[1] > 1 for b in bodies if not isinstance(b, Plane)
    ):
        return
    for name, value in zip(shutter._fields, shutter):
        if wants(value):
            raise UserError(
                f"shutter.{name}: expected a body that moves (poses of two nodes or more), as it wants a gradient, got none: "
                "it would be zero; remedy: detach it, or give a body poses"
            )
