"""A `Scene` as the arrays that kernels take: numbers with gradient, and tables that are remembered while their meshes live.

Order of faces: bodies that do not move, then one instance after the other, planes last.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad

from dvc.errors import Unsupported, UserError
from dvc.records import Camera, Film, Shutter, expand_worlds, world_count
from geometry.mesh_topology import mesh_topology, require_indices
from geometry.sdf_grid import require_grid
from render.border_pairs import pair_borders
from render.material_packing import check_materials, number_rows, pack_materials, pack_vertex_values
from render.scene import Ball, Body, DirectionalLight, Material, Plane, PointLight, Poses, Scene, SdfBody

LIGHT_KINDS = {PointLight: 1, DirectionalLight: 2}
DIMMEST = 1.0e-3  # share of the brightest lamp's radiance that every lamp is sampled with at least


class PackedScene(NamedTuple):
    numbers: dict[str, Tensor]
    tables: dict[str, Tensor]
    views: int
    instances: int
    tree_faces: int


def pack_scene(scene: Scene, camera: Camera, shutter: Shutter | None, plate: Tensor | None, film: Film) -> PackedScene:
    """Raises: UserError where something does not fit, naming it; Unsupported for what cannot be rendered."""
    if not scene.bodies:
        raise UserError("Scene.bodies: expected at least one body, got none; remedy: add one, an empty scene shows nothing")
    materials, rows = check_materials(scene)
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
    worlds = _worlds(scene)
    views = _views(moving, camera, shutter, plate, worlds)
    device = camera.position.device
    empty = torch.zeros(1, 0, 3, device=device)

    vertices, faces, face_table, uvs, edges = [empty], [], [], [], []
    first_vertex = first_face = 0
    for number, body in enumerate(meshes):
        name = f"Scene.bodies[{number}]"
        points, triangles = body.mesh
        _check_mesh(name, body, points, triangles)
        vertices.append(points)
        faces.append(triangles.to(torch.int32) + first_vertex)
        table = torch.tensor([instance_of.get(id(body), 0), rows[body.material]], dtype=torch.int32, device=device)
        face_table.append(table.expand(len(triangles), 2))
        uvs.append(body.uv if body.uv is not None else torch.zeros(len(triangles), 3, 2, device=device))
        if len(triangles):
            own = _edges_of(name, triangles).to(device)
            shift = torch.tensor([first_vertex] * 2 + [first_face] * 2 + [first_vertex] * 2, dtype=torch.int32, device=device)
            edges.append(torch.where(own >= 0, own + shift, own))
        first_vertex += points.shape[1]
        first_face += len(triangles)
    tree_faces = first_face
    for plane in planes:
        vertices.append(plane.corners)
        faces.append(torch.tensor([[0, 1, 2]], dtype=torch.int32, device=device) + first_vertex)
        face_table.append(torch.tensor([[0, rows[plane.material]]], dtype=torch.int32, device=device))
        uvs.append(torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]], device=device))
        first_vertex += 3
        first_face += 1
    _check_lamps(scene.materials, meshes)
    all_vertices = torch.cat([expand_worlds(v, worlds) for v in vertices], dim=1)
    faces_of = torch.cat(faces) if faces else torch.zeros(0, 3, dtype=torch.int32, device=device)
    table_of = torch.cat(face_table) if face_table else torch.zeros(0, 2, dtype=torch.int32, device=device)

    names = list(scene.materials)
    numbers, material_table, texels, texture_table = pack_materials(names, materials, meshes, worlds, device)
    values = pack_vertex_values(names, meshes, all_vertices, material_table)
    emissive = material_table[:, 7] != 0
    lamps = torch.nonzero(emissive[table_of[:tree_faces, 1].long()])[:, 0].to(torch.int32)
    positions, orientations = _poses(moving, views, device)
    lights, light_kinds = _lights(scene.lights, worlds, device)
    exposure, readout = _shutter(shutter, views, device)
    environment = scene.environment if scene.environment is not None else torch.zeros(1, 3, device=device)
    spheres = [torch.cat([expand_worlds(b.center, worlds), expand_worlds(b.radius[:, None], worlds)], dim=1) for b in balls]
    sphere_table = [[instance_of.get(id(b), 0), rows[b.material]] for b in balls]
    float_arrays = {
        "vertices": all_vertices, "positions": positions, "orientations": orientations, "exposure": exposure,
        "readout": readout, "materials": numbers, "texels": texels, "vertex_values": values,
        "spheres": torch.stack(spheres, dim=1) if spheres else torch.zeros(worlds, 0, 4, device=device),
        "sdf": _distances(solids, worlds, device), "lights": lights, "environment": expand_worlds(environment, worlds),
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
        "texture_table": texture_table,
    }  # fmt: skip
    float_arrays = {name: array.float().contiguous() for name, array in float_arrays.items()}
    _check_numbers(float_arrays, balls, planes)
    if edges and any(map(_has_derivative, [*float_arrays.values(), *camera])):
        tables["edges"] = pair_borders(torch.cat(edges), all_vertices, table_of[:, 0])
    tables = {name: array.contiguous() for name, array in tables.items()}
    return PackedScene(float_arrays, tables, views, 1 + len(moving), tree_faces)


def _has_derivative(value: object) -> bool:
    """Whether edges matter: an image alone has no use for them, and pairing their borders takes time."""
    return isinstance(value, Tensor) and (value.requires_grad or forward_ad.unpack_dual(value).tangent is not None)


def _distances(solids: list[SdfBody], worlds: int, device: torch.device) -> Tensor:
    if not solids:
        return torch.zeros(worlds, 0, 0, 0, device=device)
    grid = solids[0].grid
    require_grid("Scene: SdfBody.grid", grid)
    if grid.origin.requires_grad:
        raise Unsupported("Scene: SdfBody.grid.origin: no gradient; remedy: detach it, and move the body by poses")
    if not bool(torch.isfinite(grid.origin).all()):
        raise UserError(f"Scene: SdfBody.grid.origin: expected finite numbers, got {grid.origin.tolist()}")
    if not bool(torch.isfinite(grid.values.detach()).all()):
        raise UserError("Scene: SdfBody.grid.values: expected finite distances, got NaN or infinity")
    if not bool((grid.values.detach() < 0.0).flatten(1).any(dim=1).all()):
        raise UserError(
            "Scene: SdfBody.grid.values: expected a solid (values below 0), got none; remedy: distances are negative inside"
        )
    return expand_worlds(grid.values, worlds)


def _sdf_frame(solids: list[SdfBody], device: torch.device) -> Tensor:
    parts = [torch.cat([b.grid.origin.detach(), b.grid.origin.new_tensor([b.grid.spacing])]) for b in solids]
    return parts[0].to(device) if parts else torch.zeros(0, device=device)


def ordered_bodies(bodies: Sequence) -> list:
    """Meshes that do not move, meshes that move, then planes and balls."""

    def rank(body: object) -> int:
        if isinstance(body, Body):
            return 0 if body.poses is None else 1
        if isinstance(body, (Plane, Ball, SdfBody)):
            return 2
        raise UserError(f"Scene.bodies: expected Body, Ball, Plane or SdfBody, got {type(body).__name__}")

    return sorted(bodies, key=rank)


def _worlds(scene: Scene) -> int:
    tensors: list[Tensor] = []
    for body in scene.bodies:
        tensors += [body.mesh.vertices] if isinstance(body, Body) else []
        tensors += [t for t in body if isinstance(t, Tensor)] if isinstance(body, (Ball, Plane)) else []
        tensors += [body.grid.values] if isinstance(body, SdfBody) else []
    for material in scene.materials.values():
        tensors += [t for t in (material.albedo, material.alpha, material.emission) if isinstance(t, Tensor)]
        tensors += [t.image for t in material if isinstance(t, tuple) and hasattr(t, "image")]
    for light in scene.lights:
        tensors += list(light)
    if scene.environment is not None:
        tensors.append(scene.environment)
    return world_count(*tensors)


def _views(moving: list, camera: Camera, shutter: Shutter | None, plate: Tensor | None, worlds: int) -> int:
    counts = {worlds, int(camera.focal.shape[0])}
    lead = camera.position.shape[:-1]
    counts.add(int(torch.Size(lead).numel()))
    counts |= {int(b.poses.positions.shape[0]) for b in moving}
    if shutter is not None:
        counts |= {int(shutter.exposure.shape[0]), int(shutter.readout.shape[0])}
    if plate is not None:
        counts.add(int(plate.shape[0]))
    if 0 in counts:
        raise UserError("PathRender: expected leading axes of at least one world or view, got an empty one")
    views = max(counts)
    if any(views % count for count in counts):
        raise UserError(
            f"PathRender: expected leading axes that divide the views, got {sorted(counts)}; remedy: one row for all, "
            "one a world, or one a view"
        )
    return views


def _rows(name: str, tensor: Tensor, views: int) -> Tensor:
    """One row a view from one for all, one a world, or one a view."""
    count = tensor.shape[0]
    if count == 0 or views % count:
        raise UserError(f"{name}: expected a leading axis that divides {views} views, got shape {tuple(tensor.shape)}")
    return tensor if count == views else tensor.repeat_interleave(views // count, dim=0)


def _check_mesh(name: str, body: Body, points: Tensor, triangles: Tensor) -> None:
    if points.dim() != 3 or points.shape[2] != 3:
        raise UserError(f"{name}.mesh.vertices: expected shape (world, vertex, 3), got {tuple(points.shape)}")
    if triangles.dim() != 2 or triangles.shape[1] != 3 or len(triangles) == 0:
        raise UserError(f"{name}.mesh.faces: expected shape (face, 3) with at least one face, got {tuple(triangles.shape)}")
    require_indices(f"{name}.mesh.faces", triangles, points)
    finite = torch.isfinite(points.detach()).all(dim=(0, 2))
    if not bool(finite.all()):
        raise UserError(
            f"{name}.mesh.vertices: expected finite numbers, got {int((~finite).sum())} vertices that are not, the first is "
            f"number {int(torch.nonzero(~finite)[0])}"
        )
    if body.uv is not None and tuple(body.uv.shape) != (len(triangles), 3, 2):
        raise UserError(f"{name}.uv: expected shape ({len(triangles)}, 3, 2), one for each corner, got {tuple(body.uv.shape)}")
    if body.uv is not None and not bool(torch.isfinite(body.uv.detach()).all()):
        raise UserError(f"{name}.uv: expected finite texture coordinates, got NaN or infinity")
    if body.uv is not None and body.uv.requires_grad:
        raise Unsupported(f"{name}.uv: no gradient to texture coordinates; remedy: detach them, or move the texture's content")


def _check_lamps(materials: Mapping[str, Material], meshes: list[Body]) -> None:
    """Every lamp has an area: one without would be left out without a word."""
    for number, body in enumerate(meshes):
        if materials[body.material].emission is None:
            continue
        a, b, c = (body.mesh.vertices.detach()[:, body.mesh.faces.long()[:, k]] for k in range(3))
        if not bool((torch.linalg.cross(b - a, c - a).norm(dim=2).sum(dim=1) > 0.0).all()):
            raise UserError(
                f"Scene.bodies[{number}]: expected a lamp with an area, got zero area; remedy: take its emission away, or give "
                "it a size"
            )


def _edges_of(name: str, triangles: Tensor) -> Tensor:
    try:
        return mesh_topology(triangles).edges
    except (UserError, Unsupported) as error:
        raise type(error)(f"{name}.mesh.faces: {error}") from None


def _check_numbers(arrays: dict[str, Tensor], balls: list[Ball], planes: list[Plane]) -> None:
    """What the checks by name have let pass."""
    for name, array in arrays.items():
        if not bool(torch.isfinite(array.detach()).all()):
            bad = int((~torch.isfinite(array.detach())).sum())
            raise UserError(f"Scene ({name}): expected finite numbers, got {bad} of {array.numel()} that are not")
    turns = arrays["orientations"].detach()
    if turns.numel() and not bool((turns.norm(dim=-1) > 0.0).all()):
        raise UserError("Scene.bodies.poses.orientations: expected quaternions, got one of zero length")
    for ball in balls:
        if not bool((ball.radius.detach() > 0.0).all()):
            raise UserError(f"Ball.radius: expected positive numbers, got {float(ball.radius.detach().min()):.4g}")
    for plane in planes:
        a, b, c = plane.corners.detach().unbind(1)
        if not bool((torch.linalg.cross(b - a, c - a).norm(dim=1) > 0.0).all()):
            raise UserError(f"Plane.corners: expected points that span a plane, got {plane.corners.detach()[0].tolist()}")


def _poses(moving: list, views: int, device: torch.device) -> tuple[Tensor, Tensor]:
    if not moving:
        return torch.zeros(views, 0, 1, 3, device=device), torch.zeros(views, 0, 1, 4, device=device)
    nodes = {int(b.poses.positions.shape[1]) for b in moving}
    if len(nodes) > 1:
        raise UserError(f"Scene.bodies.poses: expected the same number of nodes for all bodies, got {sorted(nodes)}")
    parts: tuple[list[Tensor], list[Tensor]] = ([], [])
    for number, body in enumerate(moving):
        poses: Poses = body.poses
        shape = tuple(poses.positions.shape)
        if len(shape) != 3 or shape[1] < 1 or shape[2] != 3 or tuple(poses.orientations.shape[1:]) != (shape[1], 4):
            raise UserError(
                f"Scene.bodies.poses ({number}): expected positions (view, node, 3) and orientations (view, node, 4) with "
                f"at least one node, got "
                f"{shape} and {tuple(poses.orientations.shape)}"
            )
        parts[0].append(_rows("Scene.bodies.poses.positions", poses.positions, views))
        parts[1].append(_rows("Scene.bodies.poses.orientations", poses.orientations, views))
    return torch.stack(parts[0], dim=1), torch.stack(parts[1], dim=1)


def _lights(lights: Sequence[PointLight | DirectionalLight], worlds: int, device: torch.device) -> tuple[Tensor, Tensor]:
    rows, kinds = [], []
    for number, light in enumerate(lights):
        if type(light) not in LIGHT_KINDS:
            raise UserError(f"Scene.lights[{number}]: expected PointLight or DirectionalLight, got {type(light).__name__}")
        parts = [
            number_rows(f"Scene.lights[{number}].{f}", v, 3, worlds, device) for f, v in zip(light._fields, light, strict=True)
        ]
        if isinstance(light, DirectionalLight) and not bool((parts[0].detach().norm(dim=1) > 0).all()):
            raise UserError(f"Scene.lights[{number}].direction: expected a direction, got zero length")
        rows.append(torch.cat(parts, dim=1))
        kinds.append(LIGHT_KINDS[type(light)])
    packed = torch.stack(rows, dim=1) if rows else torch.zeros(worlds, 0, 6, device=device)
    return packed, torch.tensor(kinds, dtype=torch.int32, device=device)


def _shutter(shutter: Shutter | None, views: int, device: torch.device) -> tuple[Tensor, Tensor]:
    if shutter is None:
        return torch.zeros(views, device=device), torch.zeros(views, 2, device=device)
    return _rows("shutter.exposure", shutter.exposure, views), _rows("shutter.readout", shutter.readout, views)


def _plate(plate: Tensor | None, views: int, film: Film, device: torch.device) -> Tensor:
    if plate is None:
        return torch.zeros(views, 0, 0, 3, device=device)
    if plate.dim() != 4 or tuple(plate.shape[1:]) != (film.rows, film.columns, 3):
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
