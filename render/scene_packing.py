"""A `Scene` as the arrays that kernels take: numbers with gradient, and tables.

Order of faces: bodies that do not move, then one instance after the other, planes last.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from dvc.errors import Unsupported, UserError
from dvc.records import Camera, Film, Shutter, expand_worlds
from render.border_pairs import pair_borders
from render.edge_guide import MOVING
from render.environment import panorama_cdf
from render.material_packing import pack_materials, pack_vertex_values
from render.mesh_checks import mesh_edges
from render.scene import Ball, Body, DirectionalLight, EnvironmentMap, Plane, PointLight, Poses, SdfBody
from render.scene_checks import Given, check_solids
from render.value_checks import checked, wants

LIGHT_KINDS = {PointLight: 1, DirectionalLight: 2}
DIMMEST = 1.0e-3  # share of the brightest lamp's radiance that every lamp is sampled with at least


class PackedScene(NamedTuple):
    numbers: dict[str, Tensor]
    tables: dict[str, Tensor]
    views: int
    instances: int
    tree_faces: int


def pack_scene(given: Given, film: Film) -> PackedScene:
    """Of what `render.scene_checks` has checked.

    Raises: UserError where leading axes do not fit, or edges are wanted of faces that have none; Unsupported for what cannot be
    rendered.
    """
    scene, camera, shutter, plate, worlds = given
    rows = {name: row for row, name in enumerate(scene.materials)}
    bodies = ordered_bodies(scene.bodies)
    meshes = [b for b in bodies if isinstance(b, Body)]
    planes = [b for b in bodies if isinstance(b, Plane)]
    balls = [b for b in bodies if isinstance(b, Ball)]
    solids = [b for b in bodies if isinstance(b, SdfBody)]
    if len(solids) > 1:
        raise Unsupported(
            "Scene.bodies: one SdfBody a scene; remedy: join their grids, or make meshes of the others (isosurface)"
        )
    movable: list[Body | Ball | SdfBody] = [*meshes, *balls, *solids]
    moving = [b for b in movable if b.poses is not None]
    instance_of = {id(b): i + 1 for i, b in enumerate(moving)}
    views = _views(moving, camera, shutter, plate, worlds)
    device = camera.position.device
    empty = torch.zeros(1, 0, 3, device=device)

    vertices, faces, face_table, uvs = [empty], [], [], []
    first_vertex = first_face = 0
    for body in meshes:
        points, triangles = body.mesh
        vertices.append(points)
        faces.append(triangles.to(torch.int32) + first_vertex)
        table = torch.tensor([instance_of.get(id(body), 0), rows[body.material]], dtype=torch.int32, device=device)
        face_table.append(table.expand(len(triangles), 2))
        uvs.append(body.uv if body.uv is not None else torch.zeros(len(triangles), 3, 2, device=device))
        first_vertex += points.shape[1]
        first_face += len(triangles)
    tree_faces = first_face
    for plane in planes:
        vertices.append(checked(plane.corners))
        faces.append(torch.tensor([[0, 1, 2]], dtype=torch.int32, device=device) + first_vertex)
        face_table.append(torch.tensor([[0, rows[plane.material]]], dtype=torch.int32, device=device))
        uvs.append(torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]], device=device))
        first_vertex += 3
        first_face += 1
    all_vertices = torch.cat([expand_worlds(v, worlds) for v in vertices], dim=1)
    faces_of = torch.cat(faces) if faces else torch.zeros(0, 3, dtype=torch.int32, device=device)
    table_of = torch.cat(face_table) if face_table else torch.zeros(0, 2, dtype=torch.int32, device=device)

    panorama = scene.environment if isinstance(scene.environment, EnvironmentMap) else None
    environment = panorama.factor if panorama is not None else scene.environment
    sky = checked(environment) if environment is not None else torch.zeros(1, 3, device=device)
    numbers, material_table, texels, texture_table = pack_materials(
        scene.materials, meshes, worlds, device, None if panorama is None else panorama.image
    )
    values = pack_vertex_values(meshes, all_vertices)
    emissive = material_table[:, 7] != 0
    lamps = torch.nonzero(emissive[table_of[:tree_faces, 1].long()])[:, 0].to(torch.int32)
    positions, orientations = _poses(moving, views, device)
    lights, light_kinds = _lights(scene.lights, worlds, device)
    exposure, readout = _shutter(shutter, views, device)
    spheres = [
        torch.cat([expand_worlds(checked(b.center), worlds), expand_worlds(checked(b.radius)[:, None], worlds)], dim=1)
        for b in balls
    ]
    sphere_table = [[instance_of.get(id(b), 0), rows[b.material]] for b in balls]
    float_arrays = {
        "vertices": all_vertices, "positions": positions, "orientations": orientations, "exposure": exposure,
        "readout": readout, "materials": numbers, "texels": texels, "vertex_values": values,
        "spheres": torch.stack(spheres, dim=1) if spheres else torch.zeros(worlds, 0, 4, device=device),
        "sdf": expand_worlds(solids[0].grid.values, worlds) if solids else torch.zeros(worlds, 0, 0, 0, device=device),
        "lights": lights, "environment": expand_worlds(sky, worlds),
        "plate": _plate(plate, views, film, device),
    }  # fmt: skip
    tables = {
        "faces": faces_of, "face_table": table_of,
        "corner_uv": torch.cat(uvs) if uvs else torch.zeros(0, 3, 2, device=device),
        "material_table": material_table,
        "sphere_table": torch.tensor(sphere_table, dtype=torch.int32, device=device).reshape(-1, 2),
        "planes": torch.arange(tree_faces, first_face, dtype=torch.int32, device=device),
        "lamps": lamps,
        "lamp_cdf": _lamp_cdf(all_vertices.detach(), faces_of, table_of, lamps, numbers.detach(), values.detach()),
        "light_kinds": light_kinds,
        "edges": torch.zeros(0, 8, dtype=torch.int32, device=device),
        "sdf_frame": _sdf_frame(solids, device),
        "sdf_table": torch.tensor(
            [n for b in solids for n in (instance_of.get(id(b), 0), rows[b.material])], dtype=torch.int32, device=device
        ),
        "sky_cdf": (
            torch.zeros(worlds, 0, 0, device=device)
            if panorama is None
            else expand_worlds(panorama_cdf(panorama.image), worlds)
        ),
        "texture_table": texture_table,
    }  # fmt: skip
    float_arrays = {name: array.float().contiguous() for name, array in float_arrays.items()}
    differentiated = any(wants(float_arrays[name]) for name in MOVING if name != "cameras") or any(map(wants, camera))
    check_solids(scene.bodies, differentiated)
    if meshes and differentiated:  # a picture has no use for edges, nor have colours
        tables["edges"] = pair_borders(_edges(given, meshes, device), all_vertices, table_of[:, 0])
    tables = {name: array.contiguous() for name, array in tables.items()}
    return PackedScene(float_arrays, tables, views, 1 + len(moving), tree_faces)


def _edges(given: Given, meshes: list[Body], device: torch.device) -> Tensor:
    """Edges of all meshes, (edge, 6), in numbers of the scene's vertices and faces."""
    number_of = {id(body): number for number, body in enumerate(given.scene.bodies)}
    edges, first_vertex, first_face = [], 0, 0
    for body in meshes:
        own = mesh_edges(f"Scene.bodies[{number_of[id(body)]}]", body.mesh.faces).to(device)
        shift = torch.tensor([first_vertex] * 2 + [first_face] * 2 + [first_vertex] * 2, dtype=torch.int32, device=device)
        edges.append(torch.where(own >= 0, own + shift, own))
        first_vertex += body.mesh.vertices.shape[1]
        first_face += len(body.mesh.faces)
    return torch.cat(edges)


def _sdf_frame(solids: list[SdfBody], device: torch.device) -> Tensor:
    parts = [torch.cat([b.grid.origin, b.grid.origin.new_tensor([b.grid.spacing])]) for b in solids]
    return parts[0] if parts else torch.zeros(0, device=device)


def ordered_bodies(bodies: Sequence) -> list:
    """Meshes that do not move, meshes that move, then planes and balls."""

    def rank(body: object) -> int:
        if isinstance(body, Body):
            return 0 if body.poses is None else 1
        return 2

    return sorted(bodies, key=rank)


def _views(moving: list, camera: Camera, shutter: Shutter | None, plate: Tensor | None, worlds: int) -> int:
    counts = {"worlds": worlds, "camera.focal": int(camera.focal.shape[0])}
    for name, own in (("position", 1), ("rotation", 2)):
        shape = getattr(camera, name).shape
        counts[f"camera.{name}"] = int(torch.Size(shape[: len(shape) - own]).numel())
    for name in ("center", "distortion"):
        value = getattr(camera, name)
        counts[f"camera.{name}"] = 1 if value is None else int(value.shape[0])
    for body in moving:
        for name, value in zip(body.poses._fields, body.poses):
            counts[f"poses.{name}"] = max(int(value.shape[0]), counts.get(f"poses.{name}", 1))
    if shutter is not None:
        counts |= {f"shutter.{name}": int(value.shape[0]) for name, value in zip(shutter._fields, shutter)}
    if plate is not None:
        counts["plate"] = int(plate.shape[0])
    if 0 in counts.values():
        raise UserError("PathRender: expected leading axes of at least one world or view, got an empty one")
    views = max(counts.values())
    if any(views % count for count in counts.values()):
        raise UserError(
            f"PathRender: expected leading axes that divide the {views} views, got "
            f"{', '.join(f'{name} {count}' for name, count in counts.items() if count > 1)}; remedy: one row for all, one a "
            "world, or one a view"
        )
    return views


def _rows(name: str, tensor: Tensor, views: int) -> Tensor:
    """One row a view from one for all, one a world, or one a view."""
    count = tensor.shape[0]
    if count == 0 or views % count:
        raise UserError(f"{name}: expected a leading axis that divides {views} views, got shape {tuple(tensor.shape)}")
    return tensor if count == views else tensor.repeat_interleave(views // count, dim=0)


def _poses(moving: list, views: int, device: torch.device) -> tuple[Tensor, Tensor]:
    if not moving:
        return torch.zeros(views, 0, 1, 3, device=device), torch.zeros(views, 0, 1, 4, device=device)
    nodes = {int(b.poses.positions.shape[1]) for b in moving}
    if len(nodes) > 1:
        raise UserError(f"Scene.bodies.poses: expected the same number of nodes for all bodies, got {sorted(nodes)}")
    parts: tuple[list[Tensor], list[Tensor]] = ([], [])
    for body in moving:
        poses: Poses = body.poses
        parts[0].append(_rows("Scene.bodies.poses.positions", poses.positions, views))
        parts[1].append(_rows("Scene.bodies.poses.orientations", poses.orientations, views))
    return torch.stack(parts[0], dim=1), torch.stack(parts[1], dim=1)


def _lights(lights: Sequence[PointLight | DirectionalLight] | None, worlds: int, device: torch.device) -> tuple[Tensor, Tensor]:
    rows = [torch.cat([expand_worlds(checked(part), worlds) for part in light], dim=1) for light in lights or ()]
    kinds = [LIGHT_KINDS[type(light)] for light in lights or ()]
    packed = torch.stack(rows, dim=1) if rows else torch.zeros(worlds, 0, 6, device=device)
    return packed, torch.tensor(kinds, dtype=torch.int32, device=device)


def _shutter(shutter: Shutter | None, views: int, device: torch.device) -> tuple[Tensor, Tensor]:
    if shutter is None:
        return torch.zeros(views, device=device), torch.zeros(views, 2, device=device)
    return _rows("shutter.exposure", shutter.exposure, views), _rows("shutter.readout", shutter.readout, views)


def _plate(plate: Tensor | None, views: int, film: Film, device: torch.device) -> Tensor:
    if plate is None:
        return torch.zeros(views, 0, 0, 3, device=device)
    if tuple(plate.shape[1:]) != (film.rows, film.columns, 3):
        raise UserError(
            f"PathRender.plate: expected shape (view, {film.rows}, {film.columns}, 3), got {tuple(plate.shape)}; remedy: "
            "resample the plate to the film"
        )
    return _rows("PathRender.plate", plate, views)


def _lamp_cdf(vertices: Tensor, faces: Tensor, face_table: Tensor, lamps: Tensor, materials: Tensor, values: Tensor) -> Tensor:
    """Cumulative share of each lamp face in the power of all, (world, lamp); no lamp is left out however dim."""
    if len(lamps) == 0:
        return vertices.new_zeros(vertices.shape[0], 0)
    corners = faces[lamps.long()].long()
    a, b, c = (vertices[:, corners[:, k]] for k in range(3))
    area = 0.5 * torch.linalg.cross(b - a, c - a).norm(dim=2)
    radiance = materials[:, face_table[lamps.long(), 1].long(), 4:7].mean(dim=2).clamp_min(0.0)
    if values.shape[2]:
        radiance = radiance * sum(values[:, 2, corners[:, k]].mean(dim=2) for k in range(3)) / 3.0
    brightest = radiance.amax(dim=1, keepdim=True)
    radiance = torch.maximum(radiance, torch.where(brightest > 0.0, DIMMEST * brightest, torch.ones_like(brightest)))
    power = (area * radiance).double()
    total = power.sum(dim=1, keepdim=True)
    cdf = torch.cumsum(power, dim=1) / total
    cdf[:, -1] = 1.0
    return cdf.float()
