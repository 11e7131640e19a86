"""What a model file brings (`render.import_gltf`, `render.import_obj`), and what both readers share: notes, bodies, cameras.

Everything comes in the framework's frame: metres, z up, linear colours. One body for each mesh part and material, in the
world's frame, without poses. Vertices at one place become one where the mesh stays a manifold (files repeat them at seams, and
the gradient of an outline needs to know which faces meet); unused vertices and faces without area go.

Nothing is dropped in silence. What cannot be shown raises `Unsupported`, unless the caller names it in `leave_out`; what is
shown approximately, or was left out, is said in one warning for each kind and file.
"""

import warnings
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dvc.cli_experiments import nearest
from dvc.errors import Unsupported, UserError
from dvc.records import Camera, Film, Mesh
from geometry.mesh_io import check_vertices_and_faces, flat_faces
from geometry.mesh_topology import mesh_topology
from render.scene import Body, DirectionalLight, Material, PointLight

SMOOTH = 0.999  # cosine (2.6 degrees) between a corner's normal and its face's below which shading was meant to be smooth
FEATURES = {  # what `leave_out` may name besides extensions of glTF, and what is shown then
    "normal map": "the face's own normals",
    "transparency": "an opaque surface",
    "mixed metalness": "metal or diffuse, whichever is nearer on average",
    "texture coordinates": "all textures of a material with the coordinates of its colour",
    "wraps": "the wrap of the first axis for both",
    "points and lines": "the triangles alone",
    "spot light": "the other lights",
    "skin": "the vertices as they are stored",
    "morph targets": "the vertices as they are stored",
    "illumination model": "diffuse and specular colours by the usual rule",
    "material file": "grey surfaces",
    "texture option": "the texture as it stands",
    "reflection map": "the material without it",
}


class ImportedCamera(NamedTuple):
    """A camera before it has a film; `film_camera` gives it one."""

    position: Tensor  # [m], (1, 3)
    rotation: Tensor  # world to camera, (1, 3, 3)
    half_height: float  # tangent of half the vertical angle of view, or half the height [m] without perspective
    aspect: float | None  # width over height; None: that of the film
    orthographic: bool


class Imported(NamedTuple):
    """`Scene(imported.bodies, imported.materials, imported.lights)` shows it.

    Plain tensors, of one world: what shall have a gradient is replaced by a leaf (`body._replace(mesh=...)`).
    """

    bodies: list[Body]
    names: list[str]  # of the bodies
    materials: dict[str, Material]  # those that bodies use
    lights: list[PointLight | DirectionalLight]
    cameras: dict[str, ImportedCamera]


class Notes:
    """What an import could not take as it stands.

    Arguments: name: of the file. leave_out: what may be left out in place of an error.
    """

    def __init__(self, name: str, leave_out: Sequence[str] = ()):
        if isinstance(leave_out, str):
            leave_out = [leave_out]
        for entry in leave_out:
            if entry not in FEATURES and not (isinstance(entry, str) and "_" in entry):
                raise UserError(
                    f"{name}: leave_out: expected names of extensions or of {', '.join(FEATURES)}, got {entry!r}"
                    f"{nearest(str(entry), FEATURES)}"
                )
        self.name, self.leave_out = name, set(leave_out)
        self.said: dict[str, list[str]] = {}

    def absent(self, feature: str, where: str) -> None:
        """Something that is not there: left out where the caller said so. Raises: Unsupported otherwise."""
        instead = FEATURES.get(feature, "the rest")
        if feature not in self.leave_out:
            raise Unsupported(
                f"{self.name}: {where}: {feature} is not supported; remedy: take it away, or leave_out: [{feature}], which "
                f"shows {instead}"
            )
        self.approximate(f"{feature} left out, shown: {instead}", where)

    def approximate(self, what: str, where: str) -> None:
        places = self.said.setdefault(what, [])
        if where not in places:
            places.append(where)

    def warn(self) -> None:
        """One warning for each kind."""
        for what, places in self.said.items():
            more = f" and {len(places) - 3} more" if len(places) > 3 else ""
            warnings.warn(f"{self.name}: {what} ({', '.join(places[:3])}{more})", stacklevel=3)
        self.said = {}


def unique_name(wanted: str, taken: Sequence[str] | dict) -> str:
    name, number = wanted, 2
    while name in taken:
        name, number = f"{wanted} {number}", number + 1
    return name


def imported_body(
    notes: Notes, where: str, material: str, points: np.ndarray, faces: np.ndarray, uv: np.ndarray | None = None,
    colours: np.ndarray | None = None, normals: np.ndarray | None = None, one_sided: bool = False,
) -> Body | None:  # fmt: skip
    """A body of points [m] (point, 3), faces (face, 3), uv (face, 3, 2), colours (point, 3), normals of corners (face, 3, 3).

    None where no face has an area. Raises: UserError for points that are not finite, or faces that name none.
    """
    name = f"{notes.name}: {where}"
    with np.errstate(over="ignore"):  # what overflows is refused by name
        points = points.astype(np.float32) + np.float32(0.0)  # -0 is 0
    check_vertices_and_faces(name, points, faces)
    if uv is not None and not np.isfinite(uv).all():
        raise UserError(f"{name}: expected finite texture coordinates, got some that are not")
    flat = flat_faces(points, faces)
    if flat.any():
        notes.approximate("faces without area are dropped", f"{where}: {int(flat.sum())} of {len(faces)}")
        if flat.all():
            return None
        faces = faces[~flat]
        uv, normals = (None if a is None else a[~flat] for a in (uv, normals))
    if normals is not None and _is_smooth(points, faces, normals):
        notes.approximate("smooth normals are left out, faces are shaded flat", where)
    points, joined, colours, borders = _joined(points, faces) if colours is None else _joined_with(points, faces, colours)
    if one_sided and borders:
        notes.approximate("one-sided surfaces that are not closed are black from behind, not invisible", where)
    return Body(
        Mesh(torch.from_numpy(points)[None], joined), material,
        None if uv is None else torch.from_numpy(np.ascontiguousarray(uv, np.float32)),
        vertex_albedo=None if colours is None else torch.from_numpy(colours)[None],
    )  # fmt: skip


def _joined(rows: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, Tensor, np.ndarray | None, int]:
    """Used rows only, equal ones joined where faces still meet two by two: positions, faces (int32), colours, border edges."""
    used, inverse = np.unique(faces, return_inverse=True)
    rows, faces = rows[used], inverse.reshape(faces.shape)
    _, first, inverse = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    joined, borders = torch.from_numpy(np.ascontiguousarray(rank[inverse.reshape(-1)][faces], np.int32)), 0
    try:
        borders = mesh_topology(joined).border_count
        rows = rows[first[order]]
    except (UserError, Unsupported):  # as the file has it is the better choice; it may have such edges, too
        joined = torch.from_numpy(np.ascontiguousarray(faces, np.int32))
    colours = np.ascontiguousarray(rows[:, 3:]) if rows.shape[1] > 3 else None
    return np.ascontiguousarray(rows[:, :3]), joined, colours, borders


def _joined_with(
    points: np.ndarray, faces: np.ndarray, colours: np.ndarray
) -> tuple[np.ndarray, Tensor, np.ndarray | None, int]:
    """As `_joined`: points of different colours stay apart, but border edges are those of the points alone."""
    found = _joined(np.concatenate([points, colours.astype(np.float32)], axis=1), faces)
    return *found[:3], _joined(points, faces)[3]


def _is_smooth(points: np.ndarray, faces: np.ndarray, normals: np.ndarray) -> bool:
    a, b, c = (points[faces[:, k]].astype(np.float64) for k in range(3))
    own = np.cross(b - a, c - a)[:, None]
    along = (own * normals).sum(axis=2)
    return bool((along < SMOOTH * np.linalg.norm(own, axis=2) * np.linalg.norm(normals, axis=2)).any())


def film_camera(camera: ImportedCamera, film: Film) -> Camera:
    """The camera of a frame: the whole of what it frames is seen; where the proportions differ, more, without stretching."""
    focal = 0.5 * film.height / camera.half_height
    if camera.aspect is not None:
        focal = min(focal, 0.5 * film.width / (camera.half_height * camera.aspect))
    center = torch.tensor([[0.5 * film.width, 0.5 * film.height]])
    return Camera(camera.position, camera.rotation, torch.tensor([focal]), center, camera.orthographic)


def chosen_camera(name: str, cameras: dict[str, ImportedCamera], wanted: str | None = None) -> ImportedCamera:
    """A camera by its name, or the only one. Raises: UserError."""
    if wanted is None and len(cameras) == 1:
        return next(iter(cameras.values()))
    if wanted not in cameras:
        known = ", ".join(repr(camera) for camera in cameras) or "(there are none)"
        hint = nearest(wanted, cameras) if wanted is not None else ""
        got = "nothing" if wanted is None else repr(wanted)
        raise UserError(f"{name}: expected the name of a camera of the file, {known}, got {got}{hint}")
    return cameras[wanted]
