"""Materials of a `Scene` as the arrays that kernels take; their textures, and values at vertices."""

from collections.abc import Sequence

import torch
from torch import Tensor

from dvc.errors import Unsupported, UserError
from dvc.records import expand_worlds
from render.ggx import LEAST_ALPHA
from render.scene import CONDUCTOR, DIFFUSE, Ball, Body, Material, Scene, SdfBody
from render.textures import pack_textures

KINDS = {DIFFUSE: 0, CONDUCTOR: 1}


def check_materials(scene: Scene) -> tuple[dict[str, Material], dict[str, int]]:
    rows = {name: i for i, name in enumerate(scene.materials)}
    for number, body in enumerate(scene.bodies):
        material = getattr(body, "material", None)
        if material not in rows:
            raise UserError(
                f"Scene.bodies[{number}].material: expected one of {', '.join(rows) or '(no materials)'}, got {material!r}"
            )
        chosen = scene.materials[material]
        textures = (chosen.albedo_texture, chosen.alpha_texture, chosen.emission_texture)
        if any(t is not None for t in textures):
            if isinstance(body, (Ball, SdfBody)):
                raise Unsupported(
                    f"Scene.bodies[{number}]: a ball or an SDF has no texture coordinates; remedy: a mesh (icosphere)"
                )
            if isinstance(body, Body) and body.uv is None:
                raise UserError(
                    f"Scene.bodies[{number}].uv: expected coordinates (face, 3, 2), as material {material!r} has a texture, "
                    "got none; remedy: give uv, or take the texture away"
                )
    for name, material in scene.materials.items():
        if material.kind not in KINDS:
            raise UserError(f"Scene.materials[{name!r}].kind: expected one of {', '.join(KINDS)}, got {material.kind!r}")
    return dict(scene.materials), rows


def number_rows(name: str, value: Tensor | Sequence[float] | float, inner: int, worlds: int, device: torch.device) -> Tensor:
    tensor = value if isinstance(value, Tensor) else torch.tensor([value], dtype=torch.float32, device=device)
    if inner == 1 and tensor.dim() == 1:
        tensor = tensor[:, None]
    if tensor.dim() != 2 or tensor.shape[1] != inner:
        expected = "(world,)" if inner == 1 else f"(world, {inner})"
        raise UserError(f"{name}: expected shape {expected}, got {tuple(tensor.shape)}")
    if not bool(torch.isfinite(tensor.detach()).all()):
        raise UserError(f"{name}: expected finite numbers, got {tensor.detach().flatten()[:6].tolist()}")
    return expand_worlds(tensor, worlds)


def pack_materials(
    names: list[str], materials: dict[str, Material], meshes: list[Body], worlds: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    rows, table, wraps = [], [], []
    images: list[Tensor] = []
    for name in names:
        m, where = materials[name], f"Scene.materials[{name!r}]"
        emission = m.emission if m.emission is not None else (0.0, 0.0, 0.0)
        if m.emission is None and m.emission_texture is not None:
            raise UserError(
                f"{where}.emission: expected a constant beside emission_texture, got none; remedy: emission=(1, 1, 1)"
            )
        alpha = number_rows(f"{where}.alpha", m.alpha, 1, worlds, device)
        if m.kind == CONDUCTOR:
            least = float(alpha.detach().min())
            if m.alpha_texture is not None:
                least *= float(m.alpha_texture.image.detach().min())
            factors = [b.vertex_alpha for b in meshes if b.material == name and b.vertex_alpha is not None]
            if factors:
                least *= min(float(factor.detach().min()) for factor in factors)
            if not least >= float(LEAST_ALPHA):
                raise UserError(
                    f"{where}.alpha: expected a roughness of {float(LEAST_ALPHA):.4g} or more, got {least:.4g}, whose gradient "
                    "would be zero; remedy: a larger one"
                )
        parts = (
            number_rows(f"{where}.albedo", m.albedo, 3, worlds, device),
            alpha,
            number_rows(f"{where}.emission", emission, 3, worlds, device),
        )
        rows.append(torch.cat(parts, dim=1))
        places = []
        for texture in (m.albedo_texture, m.alpha_texture, m.emission_texture):
            places.append(len(images) if texture is not None else -1)
            if texture is not None:
                images.append(texture.image)
                wraps.append(texture.wrap)
        bits = 0
        for body in meshes:
            if body.material == name:
                given = (body.vertex_albedo, body.vertex_alpha, body.vertex_emission)
                bits |= sum(1 << slot for slot, value in enumerate(given) if value is not None)
        table.append([KINDS[m.kind], int(m.two_sided), int(m.schlick), *places, bits, int(m.emission is not None)])
    texels, texture_table = torch.zeros(worlds, 0, 3, device=device), torch.zeros(0, 5, dtype=torch.int32, device=device)
    if images:
        texels, texture_table = pack_textures(images, wraps)
        texels = expand_worlds(texels, worlds)
    return torch.stack(rows, dim=1), torch.tensor(table, dtype=torch.int32, device=device), texels, texture_table


def pack_vertex_values(names: list[str], meshes: list[Body], vertices: Tensor, material_table: Tensor) -> Tensor:
    """(world, 3, vertex, 3), or without vertices where there are no such values."""
    if not bool((material_table[:, 6] != 0).any()):
        return vertices.new_zeros(vertices.shape[0], 3, 0, 3)
    parts = []
    for number, body in enumerate(meshes):
        count = body.mesh.vertices.shape[1]
        slots = []
        for field in ("vertex_albedo", "vertex_alpha", "vertex_emission"):
            value = getattr(body, field)
            if value is None:
                value = vertices.new_ones(1, count, 3)
            if value.dim() == 2:
                value = value[..., None].expand(-1, -1, 3)
            if tuple(value.shape[1:]) != (count, 3):
                raise UserError(
                    f"Scene.bodies[{number}].{field}: expected one row for each of {count} vertices, got {tuple(value.shape)}"
                )
            slots.append(expand_worlds(value, vertices.shape[0]))
        parts.append(torch.stack(slots, dim=1))
    rest = vertices.shape[1] - sum(p.shape[2] for p in parts)
    parts.append(vertices.new_ones(vertices.shape[0], 3, rest, 3))
    return torch.cat(parts, dim=2)
