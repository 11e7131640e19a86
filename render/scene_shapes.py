"""Bodies of a scene file: shapes and mesh files, scaled, rotated and moved to their place, with texture coordinates.

| key | shape | texture coordinates |
|---|---|---|
| `mesh: FILE` | OBJ, PLY, STL, GLB, glTF, or `data:NAME`; `unit`, `up`, `degenerate`: `geometry.mesh_io` | OBJ: its `vt` |
| `box: [x, y, z]` | sizes of the whole box [m] about its middle | every side shows the whole image |
| `rectangle: [x, y]` | in the plane z = 0 about its middle, its front to +z | the whole image |
| `icosphere: RADIUS` | a sphere of triangles (`subdivisions`, 3) | none |
| `sphere: RADIUS` | an exact sphere | none |
| `plane: TILE` | the endless plane z = 0, its front to +z | an image every TILE metres |

A point x of a shape lands at position + R (scale x), R the rotation by the angles [degrees] about x, then y, then z, as fixed
axes.
"""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dvc.errors import UserError
from dvc.records import Mesh
from geometry.mesh import box_mesh, icosphere
from geometry.mesh_io import flat_faces, read_mesh, refuse_flat
from geometry.obj_uv import read_obj_uv
from render.scene import Ball, Body, Plane
from render.scene_values import number, numbers, one_of, section, text, whole

SHAPES = ("mesh", "box", "rectangle", "icosphere", "sphere", "plane")
PLACING = ("position", "rotation", "scale", "material", "name")
OPTIONS = {"mesh": ("unit", "up", "degenerate"), "icosphere": ("subdivisions",)}


def read_body(where: str, value: Any, materials: dict[str, Any], folder: Path) -> Body | Ball | Plane:
    """One entry of `bodies`.

    Raises: UserError, one line, that names the place and what is wrong.
    """
    every = (*SHAPES, *PLACING, *(key for keys in OPTIONS.values() for key in keys))
    section(where, value, every, ["material"])
    shape = one_of(where, value, SHAPES)
    section(f"{where} ({shape})", value, (shape, *PLACING, *OPTIONS.get(shape, ())))
    material = text(f"{where}.material", value["material"], list(materials))
    textured = [
        key for key, texture in materials[material]._asdict().items() if key.endswith("_texture") and texture is not None
    ]
    scale = _scale(f"{where}.scale", value.get("scale", 1.0))
    rotation = rotation_by_angles(numbers(f"{where}.rotation", value.get("rotation", [0, 0, 0]), 3))
    position = numbers(f"{where}.position", value.get("position", [0, 0, 0]), 3)
    if shape == "sphere":
        if not bool((scale == scale[0]).all() and scale[0] > 0.0):
            raise UserError(
                f"{where}.scale: expected one positive number, got {value['scale']!r}: an exact sphere stays a sphere"
            )
        radius = number(f"{where}.sphere", value["sphere"], 0.0, above=True)
        _refuse_texture(where, shape, material, textured)
        return Ball(position[None], scale[:1] * radius, material)
    if shape == "plane":
        tile = number(f"{where}.plane", value["plane"], 0.0, above=True)
        if not bool((scale > 0.0).all()):
            raise UserError(f"{where}.scale: expected positive numbers for a plane, got {value['scale']!r}; remedy: rotation")
        local = torch.tensor([[0.0, 0.0, 0.0], [tile, 0.0, 0.0], [0.0, tile, 0.0]])
        corners = position + (local * scale) @ rotation.T
        return Plane(corners[None], material)
    points, faces, uv = _shape(where, shape, value, folder)
    if textured and uv is None:
        _refuse_texture(where, shape, material, textured)
    if float(scale.prod()) < 0.0:  # a mirror image: faces keep their side
        faces, uv = faces.flip(1), None if uv is None else uv.flip(1)
    vertices = position + (points * scale) @ rotation.T
    return Body(Mesh(vertices[None], faces), material, uv)


def _refuse_texture(where: str, shape: str, material: str, textured: list[str]) -> None:
    if textured:
        raise UserError(
            f"{where} ({shape}): expected texture coordinates, because the material {material!r} has {textured[0]}, got none; "
            "remedy: an OBJ file with vt, a box, rectangle or plane, or a material without texture"
        )


def rotation_by_angles(degrees: Tensor) -> Tensor:
    """Rotation matrix (3, 3): about x, then y, then z, by angles [degrees]."""
    x, y, z = (math.radians(float(angle)) for angle in degrees)
    about_x = torch.tensor([[1, 0, 0], [0, math.cos(x), -math.sin(x)], [0, math.sin(x), math.cos(x)]], dtype=torch.float64)
    about_y = torch.tensor([[math.cos(y), 0, math.sin(y)], [0, 1, 0], [-math.sin(y), 0, math.cos(y)]], dtype=torch.float64)
    about_z = torch.tensor([[math.cos(z), -math.sin(z), 0], [math.sin(z), math.cos(z), 0], [0, 0, 1]], dtype=torch.float64)
    return (about_z @ about_y @ about_x).float()


def _scale(where: str, value: Any) -> Tensor:
    scale = numbers(where, value, 3) if isinstance(value, list) else torch.tensor([number(where, value)] * 3)
    if bool((scale == 0.0).any()):
        raise UserError(f"{where}: expected numbers other than 0, got {value!r}")
    return scale


def _shape(where: str, shape: str, value: dict[str, Any], folder: Path) -> tuple[Tensor, Tensor, Tensor | None]:
    """Vertices (vertex, 3), faces (face, 3), uv (face, 3, 2) or None."""
    place = f"{where}.{shape}"
    if shape == "mesh":
        return _read_mesh(where, value, folder)
    if shape == "icosphere":
        radius = number(place, value["icosphere"], 0.0, above=True)
        level = whole(f"{where}.subdivisions", value.get("subdivisions", 3), 0)
        if level > 8:
            raise UserError(f"{where}.subdivisions: expected at most 8 (1.3 million faces), got {level}")
        points, faces = map(torch.from_numpy, icosphere(level))
        return points * radius, faces, None
    if shape == "rectangle":
        size = _positive(place, numbers(place, value["rectangle"], 2))
        corners = torch.tensor([[-0.5, -0.5, 0.0], [0.5, -0.5, 0.0], [0.5, 0.5, 0.0], [-0.5, 0.5, 0.0]])
        faces = torch.tensor([[0, 1, 2], [0, 2, 3]], dtype=torch.int32)
        return corners * torch.cat([size, size.new_ones(1)]), faces, (corners[:, :2] + 0.5)[faces.long()]
    size = _positive(place, numbers(place, value["box"], 3))
    points, faces = map(torch.from_numpy, box_mesh())
    corners = points[faces.long()]
    axis = (corners[:, 0] == corners[:, 1]).logical_and(corners[:, 0] == corners[:, 2]).long().argmax(dim=1)
    across = torch.tensor([[1, 2], [0, 2], [0, 1]])[axis]
    uv = corners.gather(2, across[:, None, :].expand(-1, 3, -1)) * 0.5 + 0.5
    return points * (0.5 * size), faces, uv


def _positive(where: str, size: Tensor) -> Tensor:
    if not bool((size > 0.0).all()):
        raise UserError(f"{where}: expected positive sizes, got {size.tolist()}")
    return size


def _read_mesh(where: str, value: dict[str, Any], folder: Path) -> tuple[Tensor, Tensor, Tensor | None]:
    given = text(f"{where}.mesh", value["mesh"])
    if given.startswith("data:"):
        from dvc.data import find

        path = find(given.removeprefix("data:"))
    else:
        path = folder / Path(given).expanduser()
    policy = text(f"{where}.degenerate", value.get("degenerate", "refuse"), ("refuse", "drop"))
    points, faces = read_mesh(path, value.get("unit"), value.get("up"), "keep")
    uv = read_obj_uv(path) if path.suffix.lower() == ".obj" else None
    flat = flat_faces(points, faces)
    if policy == "refuse":
        refuse_flat(f"{where}: mesh file {str(path)!r}", flat)
    if flat.all():
        raise UserError(f"{where}: mesh file {str(path)!r}: expected faces with an area, got none with one")
    corners = None if uv is None else torch.from_numpy(uv[~flat])
    return torch.from_numpy(points), torch.from_numpy(faces[~flat]).int(), corners
