"""Reading and writing triangle meshes: OBJ here; PLY, STL, GLB and glTF through Open3D.

Vertices come in metres with z up, which is what the whole system uses. What a file's numbers mean is said by the caller, as
`unit` and `up`; nothing is guessed from the numbers. glTF and GLB are in metres and y-up by their standard, and that is their
default; OBJ, PLY and STL say nothing, and by default their numbers are taken as they are, metres with z up.

| format | vertices that are equal become one | polygons | notes |
|---|---|---|---|
| .obj | no | cut into fans | needs no Open3D; `o`, `g`, `vn`, `vt`, materials are ignored |
| .ply | no | cut into fans | ASCII and binary |
| .stl | yes: a file repeats them for every face | - | ASCII and binary; written binary |
| .glb, .gltf | yes: a file repeats them at seams | - | the whole scene, node transforms applied; .gltf has a .bin beside it |

float32 vertices come back bit for bit (in metres; another unit rounds once). STL and glTF change the order of vertices.
A file that ends early is refused where that can be known: always in PLY, STL, GLB and glTF; an OBJ whose last line is whole
looks complete.
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor

from dvc.atomic_file import write_error, write_file
from dvc.errors import UserError
from geometry.gltf_check import check_gltf
from geometry.ply_length import check_ply_length

FLATTEST_FACE = 1e-7  # least height over length of a face that still has a normal in float32
UNITS = {"m": 1.0, "dm": 0.1, "cm": 0.01, "mm": 0.001, "um": 1e-6, "in": 0.0254, "ft": 0.3048}  # [m]
# the file's axes that become x, y, z, and their signs: rotations, so that faces keep their side
UP_AXES = {"z": ((0, 1, 2), (1, 1, 1)), "y": ((0, 2, 1), (1, -1, 1)), "x": ((1, 2, 0), (1, 1, 1))}
STANDARD = {".glb": ("m", "y"), ".gltf": ("m", "y"), ".obj": ("m", "z"), ".ply": ("m", "z"), ".stl": ("m", "z")}
REPEATING = (".stl", ".glb", ".gltf")

Degenerate = Literal["refuse", "drop", "keep"]


def read_mesh(
    path: str | Path, unit: str | float | None = None, up: str | None = None, degenerate: Degenerate = "refuse"
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices [m], float32 (vertex, 3), z up, and faces int64 (face, 3) of a mesh file.

    Arguments: unit: what one unit of the file is, "m", "cm", "mm", "in", ... or a number [m]; up: the file's upward axis,
        "x", "y" or "z". None: metres and y for glTF and GLB (their standard), metres and z for the others (as they are).
        degenerate: what to do with faces without area (height below 1e-7 of the longest edge, a vertex named twice):
        "refuse" the file, "drop" them, or "keep" them.
    Raises: UserError, one line, for a file that is missing, empty, truncated or malformed, of an unknown format, without
        faces, with vertices that are not finite or faces that name vertices which do not exist, for degenerate faces, and
        where Open3D is needed and cannot be loaded.
    """
    path = Path(path)
    name = f"mesh file {str(path)!r}"
    if not path.is_file():
        got = "a folder" if path.is_dir() else "none"
        raise UserError(f"{name}: expected a file, found {got}; remedy: check the path")
    suffix = _suffix(name, path)
    metres, (axes, signs) = file_convention(name, suffix, unit, up)
    if degenerate not in ("refuse", "drop", "keep"):
        raise UserError(f"{name}: degenerate: expected 'refuse', 'drop' or 'keep', got {degenerate!r}")
    if path.stat().st_size == 0:
        raise UserError(f"{name}: expected vertices and faces, got 0 and 0: the file is empty")
    vertices, faces = _read_obj(name, path) if suffix == ".obj" else _read_with_open3d(name, path, suffix)
    if len(vertices) == 0 or len(faces) == 0:
        reason = "" if suffix == ".obj" else f": empty, truncated or not {suffix[1:].upper()}"
        raise UserError(f"{name}: expected vertices and faces, got {len(vertices)} and {len(faces)}{reason}")
    check_vertices_and_faces(name, vertices, faces)
    if suffix in REPEATING:
        vertices, faces = _merge_equal(vertices, faces)
    if degenerate != "keep":
        flat = flat_faces(vertices, faces)
        if degenerate == "refuse":
            refuse_flat(name, flat)
        faces = faces[~flat]
        if len(faces) == 0:
            raise UserError(f"{name}: expected faces with an area, got none with one")
    scaled = vertices.astype(np.float64) * metres if metres != 1.0 else vertices
    moved = np.ascontiguousarray(scaled[:, axes] * np.array(signs, scaled.dtype), np.float32)
    check_vertices_and_faces(f"{name} in metres", moved, faces)
    return moved, faces


def write_mesh(
    path: str | Path,
    vertices: np.ndarray | Tensor,
    faces: np.ndarray | Tensor,
    unit: str | float | None = None,
    up: str | None = None,
) -> Path:
    """Write a mesh of one world: vertices [m] (vertex, 3) or (1, vertex, 3), z up; faces (face, 3).

    Arguments: unit, up: what the file's numbers shall mean, as in `read_mesh`. The file does not say so (but glTF).
    The file appears whole or not at all. Degenerate faces are written as they are.
    Raises: UserError for vertices that are not finite, faces that name vertices which do not exist, an unknown format, a
        place that cannot be written, and where Open3D is needed and cannot be loaded.
    """
    path = Path(path)
    name = f"mesh file {str(path)!r}"
    suffix = _suffix(name, path)
    metres, (axes, signs) = file_convention(name, suffix, unit, up)
    points, triangles = (np.asarray(x.detach().cpu() if isinstance(x, Tensor) else x) for x in (vertices, faces))
    if points.ndim == 3 and points.shape[0] == 1:
        points = points[0]
    check_vertices_and_faces(name, points, triangles)
    moved = np.empty(points.shape, np.float64)
    moved[:, axes] = points * np.array(signs, np.float64) / metres
    with np.errstate(over="ignore"):  # what overflows is refused by name
        stored = moved.astype(np.float32)
    check_vertices_and_faces(f"{name} in its own unit", stored, triangles)
    if not path.parent.is_dir():
        raise UserError(f"cannot write {path}: no folder {str(path.parent)!r}; remedy: make it, or choose another")
    if path.is_dir():
        raise UserError(f"cannot write {path}: it is a folder; remedy: choose another name")
    if suffix == ".obj":
        numbers: list = (triangles.astype(np.int64) + 1).tolist()
        lines = ["v {:.9g} {:.9g} {:.9g}\n".format(*point) for point in stored]
        lines += ["f {} {} {}\n".format(*corners) for corners in numbers]
        return write_file(path, "".join(lines))
    return _write_with_open3d(name, path, stored, triangles)


def check_vertices_and_faces(name: str, vertices: np.ndarray, faces: np.ndarray) -> None:
    """Shapes, finite vertices and vertex numbers in range. Raises: UserError that says which is wrong."""
    if vertices.ndim != 2 or vertices.shape[1] != 3 or len(vertices) == 0:
        raise UserError(f"{name}: expected vertices of shape (vertex, 3), got {vertices.shape}")
    if faces.ndim != 2 or faces.shape[1] != 3 or len(faces) == 0:
        raise UserError(f"{name}: expected faces of shape (face, 3) with at least one face, got {faces.shape}")
    bad = ~np.isfinite(vertices).all(axis=1)
    if bad.any():
        raise UserError(f"{name}: expected finite vertices, got {vertices[bad][0].tolist()} at vertex {int(np.argmax(bad))}")
    if faces.min() < 0 or faces.max() >= len(vertices):
        raise UserError(
            f"{name}: expected vertex numbers in 0..{len(vertices) - 1}, got {int(faces.min())}..{int(faces.max())}"
        )


def flat_faces(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Faces without an area, bool (face,): height below `FLATTEST_FACE` of the longest edge."""
    a, b, c = (vertices[faces[:, i]].astype(np.float64) for i in range(3))
    length = np.max([np.linalg.norm(p - q, axis=1) for p, q in ((a, b), (b, c), (c, a))], axis=0)
    return np.linalg.norm(np.cross(b - a, c - a), axis=1) <= FLATTEST_FACE * length**2


def refuse_flat(name: str, flat: np.ndarray) -> None:
    """Raises: UserError where a face is flat."""
    if flat.any():
        raise UserError(
            f"{name}: expected faces with an area, got {int(flat.sum())} without, the first is face {int(np.argmax(flat))}; "
            "remedy: remove degenerate faces"
        )


def _suffix(name: str, path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix not in STANDARD:
        raise UserError(f"{name}: expected one of {', '.join(STANDARD)}, got {suffix or 'no ending'!r}; remedy: convert it")
    return suffix


def file_convention(name: str, suffix: str, unit: str | float | None, up: str | None) -> tuple[float, tuple]:
    """Metres of one unit of the file, and an entry of `UP_AXES`. Raises: UserError for a unit or an axis that is not known."""
    unit = STANDARD[suffix][0] if unit is None else unit
    up = STANDARD[suffix][1] if up is None else up
    if up not in UP_AXES:
        raise UserError(f"{name}: up: expected 'x', 'y' or 'z', got {up!r}")
    if isinstance(unit, str):
        if unit not in UNITS:
            raise UserError(f"{name}: unit: expected one of {', '.join(UNITS)} or a number of metres, got {unit!r}")
        return UNITS[unit], UP_AXES[up]
    if isinstance(unit, bool) or not isinstance(unit, (int, float)) or not 0.0 < unit < float("inf"):
        raise UserError(f"{name}: unit: expected a positive number of metres, got {unit!r}")
    return float(unit), UP_AXES[up]


def _merge_equal(vertices: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Vertices at the same position become one, in the order in which they first appear; -0 is 0."""
    vertices = vertices + np.float32(0.0)
    _, first, inverse = np.unique(vertices, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return vertices[first[order]], rank[inverse.reshape(-1)][faces]


def _read_obj(name: str, path: Path) -> tuple[np.ndarray, np.ndarray]:
    vertices: list[list[float]] = []
    faces: list[list[int]] = []
    with path.open(encoding="utf-8-sig", errors="replace") as lines:  # a byte order mark would hide the first vertex
        for number, line in enumerate(lines, start=1):
            words = line.split("#")[0].split()
            if not words or words[0] not in ("v", "f"):
                continue
            try:
                if words[0] == "v":
                    vertices.append([float(word) for word in words[1:4]])
                    expected = len(vertices[-1]) == 3
                else:
                    corners = [int(word.split("/")[0]) for word in words[1:]]
                    expected = len(corners) >= 3 and 0 not in corners
                    corners = [corner - 1 if corner > 0 else len(vertices) + corner for corner in corners]
                    faces += [[corners[0], corners[i], corners[i + 1]] for i in range(1, len(corners) - 1)]
            except ValueError:
                expected = False
            if not expected:
                raise UserError(f"{name}, line {number}: expected numbers of a vertex or face, got {line.strip()[:60]!r}")
    with np.errstate(over="ignore"):  # what overflows is refused by name
        return np.array(vertices, np.float64).reshape(-1, 3).astype(np.float32), np.array(faces, np.int64).reshape(-1, 3)


def load_open3d(name: str) -> Any:
    """The module open3d. Raises: UserError that names what to install where it cannot be loaded."""
    try:
        import open3d
    except (ImportError, OSError) as problem:
        raise UserError(
            f"{name}: expected Open3D, which is needed for everything but .obj, got {str(problem).splitlines()[0][:120]}; "
            "remedy: pip install open3d, and the system's libusb-1.0.so.0 and libGL.so.1 "
            "(apt-get install libusb-1.0-0 libgl1), or convert to .obj"
        ) from None
    return open3d


def _read_with_open3d(name: str, path: Path, suffix: str) -> tuple[np.ndarray, np.ndarray]:
    open3d = load_open3d(name)
    if suffix == ".ply":
        check_ply_length(name, path)  # Open3D returns the part that it could read
    elif suffix == ".stl":
        _check_stl_end(name, path)  # and here too
    else:
        check_gltf(name, path)  # and drops faces that name vertices which do not exist
    with open3d.utility.VerbosityContextManager(open3d.utility.VerbosityLevel.Error):
        mesh = open3d.io.read_triangle_mesh(str(path))  # an empty mesh where it fails
    # indices are used by nobody before they are checked: some of Open3D's functions would read out of bounds
    with np.errstate(over="ignore"):
        return np.asarray(mesh.vertices).astype(np.float32), np.asarray(mesh.triangles).astype(np.int64)


def _check_stl_end(name: str, path: Path) -> None:
    """Raises: UserError for an ASCII file without its last line; a binary one says how long it is."""
    content = path.read_bytes()
    binary = len(content) >= 84 and len(content) == 84 + 50 * int.from_bytes(content[80:84], "little")
    if not binary and content.lstrip()[:5].lower() == b"solid":
        last = content.rstrip().splitlines()[-1].strip()
        if not last.lower().startswith(b"endsolid"):
            raise UserError(
                f"{name}: expected 'endsolid' in the last line, got {last.decode('latin-1')[:60]!r}: the file is truncated"
            )


def _write_with_open3d(name: str, path: Path, vertices: np.ndarray, faces: np.ndarray) -> Path:
    """Through a folder beside the target: a .gltf comes with a .bin whose name it holds."""
    open3d = load_open3d(name)
    # the legacy writer's GLB has a buffer that is too short for its views
    mesh = open3d.t.geometry.TriangleMesh(
        open3d.core.Tensor(np.ascontiguousarray(vertices, np.float32)),
        open3d.core.Tensor(np.ascontiguousarray(faces, np.int32)),
    )
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            target = Path(folder) / (path.stem + path.suffix.lower())
            with open3d.utility.VerbosityContextManager(open3d.utility.VerbosityLevel.Error):
                done = open3d.t.io.write_triangle_mesh(str(target), mesh)
            if not done or not target.is_file() or target.stat().st_size == 0:
                raise UserError(f"cannot write {path}: Open3D wrote no file; remedy: check the folder and the disk")
            companion = target.with_suffix(".bin")
            if companion.is_file():
                os.replace(companion, path.with_suffix(".bin"))
            shutil.move(target, path)
    except OSError as error:
        raise write_error(path, error) from error
    return path
