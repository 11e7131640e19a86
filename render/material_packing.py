"""Materials of a `Scene` as the arrays that kernels take; their textures, and values at vertices."""

from collections.abc import Mapping

import torch
from torch import Tensor

from dvc.records import expand_worlds
from render.material_checks import KINDS
from render.scene import Body, Material
from render.textures import pack_textures
from render.value_checks import checked


def pack_materials(
    materials: Mapping[str, Material], meshes: list[Body], worlds: int, device: torch.device, panorama: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of checked materials: numbers (world, material, 7), table (material, 8), texels and the table of textures, of which the
    environment's panorama is the last."""
    rows, table, wraps = [], [], []
    images: list[Tensor] = []
    for name, m in materials.items():
        emission = m.emission if m.emission is not None else torch.zeros(1, 3, device=device)
        parts = [m.albedo, checked(m.alpha)[:, None], emission]
        rows.append(torch.cat([expand_worlds(checked(part), worlds) for part in parts], dim=1))
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
    if panorama is not None:
        images.append(panorama)
        wraps.append("repeat")
    texels, texture_table = torch.zeros(worlds, 0, 3, device=device), torch.zeros(0, 5, dtype=torch.int32, device=device)
    if images:
        texels, texture_table = pack_textures(images, wraps)
        texels = expand_worlds(texels, worlds)
    return torch.stack(rows, dim=1), torch.tensor(table, dtype=torch.int32, device=device), texels, texture_table


def pack_vertex_values(meshes: list[Body], vertices: Tensor) -> Tensor:
    """(world, 3, vertex, 3), or without vertices where there are no such values."""
    if not any(value is not None for b in meshes for value in (b.vertex_albedo, b.vertex_alpha, b.vertex_emission)):
        return vertices.new_zeros(vertices.shape[0], 3, 0, 3)
    parts = []
    for body in meshes:
        count = body.mesh.vertices.shape[1]
        slots = []
        for value in (body.vertex_albedo, body.vertex_alpha, body.vertex_emission):
            if value is None:
                value = vertices.new_ones(1, count, 3)
            if value.dim() == 2:
                value = value[..., None].expand(-1, -1, 3)
            slots.append(expand_worlds(value, vertices.shape[0]))
        parts.append(torch.stack(slots, dim=1))
    rest = vertices.shape[1] - sum(p.shape[2] for p in parts)
    parts.append(vertices.new_ones(vertices.shape[0], 3, rest, 3))
    return torch.cat(parts, dim=2)
