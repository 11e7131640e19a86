"""Meshes of a scene: of a size that rays of float32 meet, of faces that are there once; the edges that a gradient needs."""

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from dvc.errors import Unsupported, UserError
from dvc.records import Mesh
from geometry.mesh_topology import mesh_topology, require_indices
from render.value_checks import Intake, plain, require_kind

FARTHEST = 1.0e8  # coordinates [m]: areas of larger ones overflow
SMALLEST = 3.0e-5  # extent over 1 m + the distance from the origin: rays set off from surfaces by about 1e-6 of that
FLATTEST = 1.0e-7  # height of a face over its longest edge: nothing meets flatter ones (`render.wide_bvh`)
LOOKED_AT = 1024  # faces; all of them where these are flat
FAR = f"coordinates up to {FARTHEST:g} m"
SMALL = f"an extent of at least {SMALLEST:g} of (1 m + the distance from the origin), which float32 resolves"
NEARER = "another unit of length, or the scene nearer to the origin"
LARGER = f"give it a size, {NEARER}"

_twins: WeakIdKeyDictionary = WeakIdKeyDictionary()


def check_mesh(intake: Intake, name: str, mesh: Mesh, away: Tensor | float = 0.0) -> Mesh:
    """away: how far poses carry it from the origin [m]."""
    require_kind(f"{name}.mesh", mesh, Mesh, "Mesh(vertices, faces)")
    vertices = intake.array(f"{name}.mesh.vertices", mesh.vertices, ("world", "vertex", 3), limited=False)
    faces = mesh.faces
    require_kind(f"{name}.mesh.faces", faces, Tensor, "torch.as_tensor(faces, dtype=torch.int32)")
    if faces.dim() != 2 or faces.shape[1] != 3 or len(faces) == 0:
        raise UserError(f"{name}.mesh.faces: expected shape (face, 3) with at least one face, got {tuple(faces.shape)}")
    if faces.dtype.is_floating_point or faces.dtype.is_complex or faces.dtype == torch.bool:
        raise UserError(f"{name}.mesh.faces: expected int32, got {faces.dtype}; remedy: .int()")
    if faces.device != intake.device:
        raise UserError(f"{name}.mesh.faces: expected a tensor on {intake.device}, as {intake.owner} is, got {faces.device}")
    require_indices(f"{name}.mesh.faces", faces, vertices)
    points = plain(vertices)
    low, high = points.amin(dim=1), points.amax(dim=1)
    ends = torch.stack([low, high])
    intake.bound(f"{name}.mesh.vertices", ends, -FARTHEST, FARTHEST, FAR, NEARER, of=points)
    extent = (high - low).amax(dim=1) / (
        1.0 + torch.maximum(ends.abs().amax(dim=(0, 2)), torch.as_tensor(away, device=points.device))
    )
    intake.bound(f"{name}.mesh", extent, SMALLEST, expected=SMALL, remedy=LARGER)
    intake.bound(
        f"{name}.mesh", _heights(points, faces[:: -(-len(faces) // LOOKED_AT)]), FLATTEST,
        expected=f"a face with an area, {FLATTEST:g} as high as its longest edge or more",
        remedy="move its vertices apart, or leave it out",
        pardon=lambda: bool((_heights(points, faces) >= FLATTEST).all()),
    )  # fmt: skip
    return Mesh(vertices, faces)


def _heights(points: Tensor, faces: Tensor) -> Tensor:
    """Of the least flat face of each world: twice its area over the square of its longest edge."""
    a, b, c = points[:, faces.long()].unbind(2)
    longest = torch.stack([b - a, c - b, a - c]).square().sum(dim=-1).amax(dim=0)
    double_area = torch.linalg.cross(b - a, c - a).abs().amax(dim=-1)
    return (double_area / longest.clamp_min(1.0e-36)).amax(dim=1)


def mesh_edges(name: str, faces: Tensor) -> Tensor:
    """Edges (edge, 6), `geometry.mesh_topology`.

    Raises: UserError for faces that are there twice or are wound against their neighbours, Unsupported for edges of more than
    two faces: each of its edges is sampled once, between the two faces beside it.
    """
    try:
        return mesh_topology(faces).edges
    except (UserError, Unsupported) as error:
        why = "where geometry, poses, lights, camera or shutter want a gradient"
        same, _ = twin_faces(faces)
        if same is not None:
            raise UserError(
                f"{name}.mesh.faces: expected each face once {why}, got face {same[0]} again as face {same[1]}; remedy: leave "
                "duplicate faces out"
            ) from None
        raise type(error)(f"{name}.mesh.faces: {error} (needed {why})") from None


def check_twins(name: str, faces: Tensor, lamp: bool, two_sided: bool) -> None:
    """Faces of the same three vertices do no harm to a picture but where they shine twice, or where both sides are one."""
    same, turned = twin_faces(faces)
    if lamp and (same or turned):
        first, second = same or turned or (0, 0)
        raise UserError(
            f"{name}.mesh.faces: expected each face of a lamp once, got face {first} again as face {second}, which would shine "
            "twice; remedy: leave duplicate faces out"
        )
    if turned is not None and not two_sided:
        raise UserError(
            f"{name}.mesh.faces: expected one face at a place, got face {turned[0]} again as face {turned[1]}, turned round: "
            "which one is seen would be chance; remedy: leave it out, and two_sided=True of its material"
        )


def twin_faces(faces: Tensor) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    """The first pair of faces of the same vertices, wound alike and wound oppositely; remembered while `faces` lives."""
    if faces.is_inference():  # has no version
        return _find_twins(faces.cpu().numpy().astype(np.int64))
    entry = _twins.get(faces)
    if entry is None or entry[0] != faces._version:
        entry = _twins[faces] = faces._version, _find_twins(faces.detach().cpu().numpy().astype(np.int64))
    return entry[1]


def _find_twins(faces: np.ndarray) -> tuple[tuple[int, int] | None, tuple[int, int] | None]:
    ordered = np.sort(faces, axis=1)
    order = np.lexsort(ordered.T)
    rows = ordered[order]
    twin = np.flatnonzero((rows[1:] == rows[:-1]).all(axis=1) & (rows[1:, 0] < rows[1:, 1]) & (rows[1:, 1] < rows[1:, 2]))
    if not len(twin):
        return None, None
    pairs = np.sort(np.stack([order[twin], order[twin + 1]], axis=1), axis=1)
    cyclic = [np.roll(faces, shift, axis=1) for shift in range(3)]
    alike = np.any([(turn[pairs[:, 0]] == faces[pairs[:, 1]]).all(axis=1) for turn in cyclic], axis=0)
    found = []
    for kind in (alike, ~alike):
        at = pairs[kind]
        found.append((int(at[at[:, 1].argmin(), 0]), int(at[:, 1].min())) if len(at) else None)
    return found[0], found[1]
