"""What `render.simple_path` sees: one world of a scene as plain tensors in double precision, and the rays of its camera."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dvc.errors import Unsupported
from dvc.records import Camera, Film
from render.distortion import distort_points
from render.scene import CONDUCTOR, Ball, Body, EnvironmentMap, Plane, PointLight, Scene, Texture

NEWTON_STEPS = 20
LENS_ERROR = 1.0e-9  # of a point before the last step, in focal lengths; the step squares it


class World(NamedTuple):
    """One world of a scene. Things are faces, then planes (faces that go on for ever), then balls."""

    corners: Tensor  # (face, 3, 3)
    endless: Tensor  # whether a face is a plane, (face,)
    centers: Tensor  # (ball, 3)
    radii: Tensor  # (ball,)
    material: Tensor  # (thing,)
    uv: Tensor  # (thing, corner, 2)
    factors: Tensor  # vertex values of albedo, alpha, emission, (3, thing, corner, 3)
    lamps: Tensor  # faces that emit, (lamp,)
    numbers: Tensor  # of materials: albedo, alpha (three times), emission, (3, material, 3)
    textures: list[tuple[int, int, Tensor, str]]  # slot of `numbers`, material, image (row, column, 3), wrap
    conductor: Tensor  # (material,), as what follows
    two_sided: Tensor
    schlick: Tensor
    lights: list[tuple[bool, Tensor, Tensor]]  # whether it is a point; position or direction; intensity or irradiance
    environment: Tensor  # (3,)
    panorama: Tensor | None  # (row, column, 3)


def gather(scene: Scene, view: int, views: int, device: torch.device) -> World:
    """The world that a view shows, in double precision, with gradient to the scene's tensors."""

    def pick(value: Tensor | Sequence[float] | float) -> Tensor:
        if isinstance(value, Tensor):
            return value[view * len(value) // views].double()
        return torch.tensor(value, dtype=torch.float64, device=device)

    names, materials = list(scene.materials), list(scene.materials.values())
    nothing = torch.zeros(0, 3, dtype=torch.float64, device=device)
    corners, uvs, factors = [nothing[:, None].expand(0, 3, 3)], [], []
    owners: list[int] = []  # materials of things
    lamps: list[int] = []
    meshes = [b for b in scene.bodies if isinstance(b, Body)]
    planes = [b for b in scene.bodies if isinstance(b, Plane)]
    balls = [b for b in scene.bodies if isinstance(b, Ball)]
    for body in meshes:
        faces = body.mesh.faces.long()
        vertices = pick(body.mesh.vertices)
        if scene.materials[body.material].emission is not None:
            lamps += [len(owners) + i for i in range(len(faces))]
        owners += [names.index(body.material)] * len(faces)
        corners.append(vertices[faces])
        uvs.append(body.uv.double() if body.uv is not None else torch.zeros(len(faces), 3, 2, device=device).double())
        given = [pick(v) if v is not None else None for v in (body.vertex_albedo, body.vertex_alpha, body.vertex_emission)]
        whole = [torch.ones_like(vertices) if v is None else v.reshape(len(vertices), -1).expand(-1, 3) for v in given]
        factors.append(torch.stack(whole)[:, faces])
    rest = len(planes) + len(balls)
    owners += [names.index(b.material) for b in planes] + [names.index(b.material) for b in balls]
    corners += [pick(b.corners)[None] for b in planes]
    uvs.append(torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]], device=device).double().expand(rest, 3, 2))
    factors.append(torch.ones(3, rest, 3, 3, device=device).double())
    parameters = [
        (pick(m.albedo), pick(m.alpha).expand(3), pick(m.emission if m.emission is not None else (0.0, 0.0, 0.0)))
        for m in materials
    ]
    textures = [
        (slot, number, pick(texture.image).expand(-1, -1, 3), texture.wrap)
        for number, m in enumerate(materials)
        for slot, texture in enumerate((m.albedo_texture, m.alpha_texture, m.emission_texture))
        if isinstance(texture, Texture)
    ]
    sky, panorama = scene.environment, None
    if isinstance(sky, EnvironmentMap):
        panorama, sky = sky.image, sky.factor
    all_corners = torch.cat(corners)
    return World(
        corners=all_corners, endless=torch.arange(len(all_corners), device=device) >= len(all_corners) - len(planes),
        centers=torch.stack([pick(b.center) for b in balls]) if balls else nothing,
        radii=torch.stack([pick(b.radius) for b in balls]) if balls else nothing[:, 0],
        material=torch.tensor(owners, device=device), uv=torch.cat(uvs), factors=torch.cat(factors, dim=1),
        lamps=torch.tensor(lamps, dtype=torch.long, device=device),
        numbers=torch.stack([torch.stack(row) for row in zip(*parameters)]), textures=textures,
        conductor=torch.tensor([m.kind == CONDUCTOR for m in materials], device=device),
        two_sided=torch.tensor([m.two_sided for m in materials], device=device),
        schlick=torch.tensor([m.schlick for m in materials], device=device),
        lights=[(isinstance(light, PointLight), pick(light[0]), pick(light[1])) for light in scene.lights or ()],
        environment=pick(sky if sky is not None else (0.0, 0.0, 0.0)),
        panorama=pick(panorama) if panorama is not None else None,
    )  # fmt: skip


def camera_rays(camera: Camera, film: Film, offsets: Tensor, view: int, views: int) -> tuple[Tensor, Tensor]:
    """Origins and unit directions (ray, 3) through film points; `offsets` (row, column, sample, 2) from pixels' corners."""
    fields = (camera.position, camera.rotation, camera.focal, camera.center)
    position, rotation, focal, center = (field[view * len(field) // views].double() for field in fields)
    rows, columns = (torch.arange(n, device=offsets.device) for n in (film.rows, film.columns))
    corner = torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1)[:, :, None]
    on_film = (corner + offsets).reshape(-1, 2) / film.scale + offsets.new_tensor([film.left, film.top])
    plane = (on_film - center) / focal
    zero, one = torch.zeros_like(plane[:, :1]), torch.ones_like(plane[:, :1])
    if camera.orthographic:
        d = torch.cat([zero, zero, one], dim=1) @ rotation
        return position + torch.cat([plane, zero], dim=1) @ rotation, d / d.norm(dim=1, keepdim=True)
    if camera.distortion is not None:
        plane = undistorted(plane, camera.distortion[view * len(camera.distortion) // views].double())
    d = torch.cat([plane, one], dim=1) @ rotation  # a rotation in single precision turns unit vectors into almost unit ones
    return position.expand(len(plane), 3), d / d.norm(dim=1, keepdim=True)


def undistorted(target: Tensor, coefficients: Tensor) -> Tensor:
    """n with distort(n) = target, by Newton's method; the gradient is that of the last step, the implicit function's."""
    n = target.detach()
    for _ in range(NEWTON_STEPS):
        leaf = n.detach().requires_grad_(True)
        with torch.enable_grad():
            x, y = distort_points(leaf, coefficients.detach()).unbind(-1)
            rows = [torch.autograd.grad(part.sum(), leaf, retain_graph=True)[0] for part in (x, y)]
        leaf = leaf.detach()
        n = leaf - torch.linalg.solve(torch.stack(rows, dim=1), distort_points(leaf, coefficients) - target)
        if float((n.detach() - leaf).abs().max()) < LENS_ERROR:
            return n
    raise Unsupported("SimplePathRender: camera.distortion is too strong for plain Newton steps; remedy: a weaker one")


def plain(value: Any) -> Any:
    """A record whose tensors are single precision and have no gradient, for the checks of packing."""
    if isinstance(value, Tensor):
        return value.detach().float() if value.is_floating_point() else value
    if isinstance(value, Mapping):
        return {key: plain(part) for key, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(plain, value))
    return [plain(part) for part in value] if isinstance(value, (list, tuple)) else value
