"""Changing which triangles a mesh has, through Open3D: subdivision, decimation, repair. None of it has a gradient.

Subdivision: each triangle into four, vertices on the edges' middles, or smoothed by Loop's rules (Loop 1987). Decimation: edge
collapses by quadric errors (Garland and Heckbert 1997). Repair: the steps that `repair` names; holes are filled here.

Every function takes a mesh of one world, since worlds share their faces and these steps decide by positions, and returns one
on the same device. Optimise the result's vertices, or go through a cage or lattice whose control points stay.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
import torch

from dvc.errors import Unsupported, UserError
from dvc.records import Mesh
from geometry.mesh_io import check_vertices_and_faces, flat_faces, load_open3d


class Repair(NamedTuple):
    """What a repair did."""

    mesh: Mesh
    merged_vertices: int  # at equal positions, or nearer than asked for
    dropped_faces: int  # without area, double, or beyond two at an edge
    unused_vertices: int
    turned: bool  # windings were made to agree, or turned outwards
    filled_faces: int  # new, in holes
    border_edges: int  # that are left


def subdivide(mesh: Mesh, times: int = 1, method: Literal["midpoint", "loop"] = "midpoint") -> Mesh:
    """Each triangle into 4^times. "midpoint" keeps the shape; "loop" smooths it, borders included.

    Raises: UserError for wrong arguments, more than 2^24 faces, a mesh that is not finite or in range; Unsupported for several
        worlds and for vertices that require a gradient.
    """
    if not 0 <= int(times) <= 12 or len(mesh.faces) * 4 ** int(times) > 1 << 24:
        raise UserError(f"subdivide.times: expected at least 0 and at most {1 << 24} faces in the end, got {times}")
    if method not in ("midpoint", "loop"):
        raise UserError(f"subdivide.method: expected 'midpoint' or 'loop', got {method!r}")
    legacy = _to_open3d("subdivide", mesh)
    done = legacy.subdivide_midpoint(int(times)) if method == "midpoint" else legacy.subdivide_loop(int(times))
    return _from_open3d(done, mesh)


def decimate(mesh: Mesh, face_count: int) -> Mesh:
    """At most `face_count` triangles that keep the shape as well as collapses can; fewer collapses where they would fold it.

    Raises: UserError for fewer than 4 faces asked for, and where Open3D's result has faces without area only; Unsupported as
        `subdivide`.
    """
    if int(face_count) < 4:
        raise UserError(f"decimate.face_count: expected at least 4, got {face_count}")
    if face_count >= len(mesh.faces):
        _one_world("decimate", mesh)
        return mesh
    done = _to_open3d("decimate", mesh).simplify_quadric_decimation(target_number_of_triangles=int(face_count))
    done.remove_unreferenced_vertices()
    if len(done.triangles) == 0:
        raise UserError(f"decimate: expected faces to be left of {len(mesh.faces)}, got none; remedy: repair the mesh first")
    return _from_open3d(done, mesh)


def repair(mesh: Mesh, merge_distance: float = 0.0, fill_holes: bool = False) -> Repair:
    """Merge vertices, drop bad faces, make windings agree and point outwards, fill holes if asked to.

    Arguments: merge_distance: vertices nearer than this become one [m]; 0: those at equal positions. fill_holes: close
        every border loop by a fan around its centre, a new vertex.
    Steps: merge; drop faces without area, double faces, and those beyond two at an edge (the smallest first); wind
    neighbours alike, where the surface can be oriented; turn a closed mesh outwards; fill; drop unused vertices.
    Raises: UserError for a negative distance, and where no face is left; Unsupported as `subdivide`, and for a surface that
        cannot be oriented (a Moebius band).
    """
    if not 0.0 <= merge_distance < float("inf"):
        raise UserError(f"repair.merge_distance: expected a number from 0, got {merge_distance}")
    legacy = _to_open3d("repair", mesh)
    vertices, faces = len(legacy.vertices), len(legacy.triangles)
    if merge_distance > 0.0:
        legacy.merge_close_vertices(merge_distance)
    legacy.remove_duplicated_vertices()
    merged = vertices - len(legacy.vertices)
    points, corners = np.asarray(legacy.vertices).astype(np.float32), np.asarray(legacy.triangles).astype(np.int64)
    flat = flat_faces(points, corners)
    legacy.remove_triangles_by_mask(flat)
    legacy.remove_degenerate_triangles()
    legacy.remove_duplicated_triangles()
    legacy.remove_non_manifold_edges()
    if len(legacy.triangles) == 0:
        raise UserError(f"repair: expected faces with an area, got none of {faces}")
    dropped = faces - len(legacy.triangles)
    before = np.asarray(legacy.triangles).copy()
    if not legacy.orient_triangles():
        raise Unsupported("repair: expected a surface with two sides, got one that cannot be oriented; remedy: cut it")
    filled = 0
    if fill_holes and not legacy.is_edge_manifold(allow_boundary_edges=False):
        filled = _fill_holes(legacy)
    if legacy.is_edge_manifold(allow_boundary_edges=False) and _volume(legacy) < 0.0:
        legacy.triangles = type(legacy.triangles)(np.ascontiguousarray(np.asarray(legacy.triangles)[:, ::-1]))
    kept = np.asarray(legacy.triangles)[: len(before)]
    turned = not all(_same_winding(a, b) for a, b in zip(before.tolist(), kept.tolist()))
    count = len(legacy.vertices)
    legacy.remove_unreferenced_vertices()
    borders = np.asarray(legacy.get_non_manifold_edges(allow_boundary_edges=False)).reshape(-1, 2)
    return Repair(_from_open3d(legacy, mesh), merged, dropped, count - len(legacy.vertices), turned, filled, len(borders))


def _same_winding(a: list[int], b: list[int]) -> bool:
    return b in (a, [a[1], a[2], a[0]], [a[2], a[0], a[1]])


def _volume(legacy: Any) -> float:
    points, corners = np.asarray(legacy.vertices), np.asarray(legacy.triangles)
    a, b, c = (points[corners[:, i]] - points[0] for i in range(3))
    return float(np.einsum("fi,fi->", a, np.cross(b, c)) / 6.0)


def _fill_holes(legacy: Any) -> int:
    """Close every border loop by a fan around its centre, or by one triangle; the number of new faces.

    Not Open3D's own filling: it leaves 18 border edges of the Stanford bunny, and its result refers to freed memory.
    """
    points, corners = np.asarray(legacy.vertices), np.asarray(legacy.triangles)
    count = len(corners)
    for loop in _border_loops(corners):
        if len(loop) == 3:
            corners = np.concatenate([corners, [loop[::-1]]])
            continue
        after = np.roll(loop, -1)
        corners = np.concatenate([corners, np.stack([after, loop, np.full(len(loop), len(points))], 1)])
        points = np.concatenate([points, points[loop].mean(0, keepdims=True)])
    legacy.vertices = type(legacy.vertices)(points)
    legacy.triangles = type(legacy.triangles)(np.ascontiguousarray(corners, np.int32))
    return len(corners) - count


def _border_loops(corners: np.ndarray) -> list[list[int]]:
    """Vertices of the border loops, none twice in one loop, in the direction of the faces beside them."""
    following: dict[int, list[int]] = {}
    sides = {(int(t[i]), int(t[(i + 1) % 3])) for t in corners for i in range(3)}
    for start, end in sorted(sides):
        if (end, start) not in sides:
            following.setdefault(start, []).append(end)
    loops = []
    while following:
        path = [next(iter(following))]
        while path:
            ends = following.get(path[-1])
            if not ends:
                break  # back at the start of a path whose loops were all cut off
            end = ends.pop()
            if not ends:
                del following[path[-1]]
            if end in path:  # a loop within the path: cut it off and go on from where it began
                at = path.index(end)
                loops.append(path[at:])
                del path[at + 1 :]
            else:
                path.append(end)
    return loops


def _one_world(name: str, mesh: Mesh) -> None:
    if mesh.vertices.dim() != 3 or mesh.vertices.shape[0] != 1:
        raise Unsupported(
            f"{name}: expected one world, vertices (1, vertex, 3), got {tuple(mesh.vertices.shape)}: worlds share their faces; "
            "remedy: call it for each world"
        )
    if mesh.vertices.requires_grad and torch.is_grad_enabled():
        raise Unsupported(f"{name}: there is no gradient through a change of topology; remedy: mesh.vertices.detach()")


def _to_open3d(name: str, mesh: Mesh) -> Any:
    _one_world(name, mesh)
    points, corners = mesh.vertices[0].detach().cpu().double().numpy(), mesh.faces.detach().cpu().numpy()
    check_vertices_and_faces(name, points, corners)
    open3d = load_open3d(name)
    return open3d.geometry.TriangleMesh(
        open3d.utility.Vector3dVector(points), open3d.utility.Vector3iVector(np.ascontiguousarray(corners, np.int32))
    )


def _from_open3d(legacy: Any, like: Mesh) -> Mesh:
    points = torch.from_numpy(np.asarray(legacy.vertices).astype(np.float32))[None]
    corners = torch.from_numpy(np.asarray(legacy.triangles).astype(np.int32))
    return Mesh(points.to(like.vertices.device), corners.to(like.faces.device))
