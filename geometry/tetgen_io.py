"""Tetrahedra from TetGen's files: `name.node` (points) and `name.ele` (tetrahedra), numbered from 0 or from 1.

    .node:  point count, dimension 3, attribute count, marker count;   then   number x y z [attributes] [marker]
    .ele:   tetrahedron count, corners 4, attribute count;             then   number a b c d [attributes]

`#` starts a comment. The number of the first point says whether the files count from 0 or from 1. (Format: Si, TetGen manual,
section 5.2.) TetGen turns some tetrahedra the other way round than `TetMesh`; those are turned.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dvc.errors import Unsupported, UserError
from geometry.mesh_io import UNITS, UP_AXES

FLATTEST = 1e-9  # least volume of a tetrahedron, as a share of its longest edge cubed


def read_tetgen(
    path: str | Path, elements: str | Path | None = None, unit: str | float = "m", up: str = "z"
) -> tuple[np.ndarray, np.ndarray]:
    """Vertices [m], float32 (vertex, 3), z up, and positively oriented tetrahedra int64 (tet, 4) of a pair of TetGen files.

    Args:
        path: the `.node` or the `.ele` file; the other stands beside it, unless `elements` names the `.ele` file.
        unit, up: what the numbers of the file mean, as in `geometry.mesh_io.read_mesh`; nothing is guessed.
    Raises: UserError, one line, for a file that is missing, empty, truncated or malformed, points that are not finite, unknown
        points, flat tetrahedra, an unknown unit or axis; Unsupported for tetrahedra of ten points.
    """
    nodes = Path(path).with_suffix(".node")
    tets_path = Path(elements) if elements is not None else Path(path).with_suffix(".ele")
    scale = UNITS.get(unit) if isinstance(unit, str) else unit
    if scale is None or not np.isfinite(scale) or not scale > 0.0 or up not in UP_AXES:
        raise UserError(
            f"read_tetgen: expected a unit among {', '.join(UNITS)} or a positive number and up x, y or z, "
            f"got {unit!r} and {up!r}"
        )
    points, first = _points(nodes)
    tets = _tets(tets_path, first, len(points))
    axes, signs = UP_AXES[up]
    points = points[:, axes] * np.array(signs, float) * scale
    with np.errstate(over="ignore"):
        vertices = np.ascontiguousarray(points, np.float32)
    if not np.isfinite(vertices).all():
        raise UserError(f"tet file {str(nodes)!r}: expected coordinates that float32 holds, got larger ones")
    return vertices, _oriented(f"tet file {str(tets_path)!r}", vertices, tets)


def _rows(path: Path, kind: str, columns: int) -> tuple[list[int], NDArray[np.float64]]:
    """Header (integers) and the first `columns` numbers of each row."""
    name = f"tet file {str(path)!r}"
    if not path.is_file():
        found = "a folder" if path.is_dir() else "none"
        raise UserError(
            f"{name}: expected a file, found {found}; remedy: check the path, and that the .node and .ele are together"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{name}: expected a text file that can be read, got {error}") from error
    lines = [line for line in (line.split("#", 1)[0].split() for line in text.splitlines()) if line]
    if not lines:
        raise UserError(f"{name}: expected {kind}, got an empty file")
    try:
        header = [int(word) for word in lines[0]]
    except ValueError:
        raise UserError(f"{name}: expected a first line of integers, got {' '.join(lines[0])[:60]!r}") from None
    if len(header) < 2 or header[0] <= 0:
        raise UserError(f"{name}: expected a first line with a positive count of {kind}, got {' '.join(lines[0])[:60]!r}")
    body = lines[1 : 1 + header[0]]
    if len(body) < header[0]:
        raise UserError(f"{name}: expected {header[0]} {kind}, got {len(body)}: the file is truncated")
    if len(lines) > 1 + header[0]:
        raise UserError(f"{name}: expected {header[0]} {kind}, got {len(lines) - 1} lines of them")
    width = len(body[0])
    for i, line in enumerate(body):
        if len(line) != width or len(line) < columns:
            raise UserError(
                f"{name}: expected {max(width, columns)} numbers a line, got {len(line)} in the line of {kind} number {i + 1}"
            )
    try:
        values = np.array([line[:columns] for line in body], dtype=np.float64)
    except ValueError as error:
        raise UserError(f"{name}: expected numbers, got {error}") from None
    if not np.isfinite(values).all():
        bad = int(np.argmin(np.isfinite(values).all(axis=1)))
        raise UserError(f"{name}: expected finite numbers, got {' '.join(body[bad])[:60]!r}")
    return header, values


def _points(path: Path) -> tuple[NDArray[np.float64], int]:
    name = f"tet file {str(path)!r}"
    header, rows = _rows(path, "points", 4)
    if header[1] != 3:
        raise UserError(f"{name}: expected points of dimension 3, got {header[1]}")
    first = int(rows[0, 0])
    if first not in (0, 1) or not np.array_equal(rows[:, 0], np.arange(first, first + len(rows))):
        raise UserError(f"{name}: expected points numbered from 0 or 1 without gaps, got another numbering")
    return rows[:, 1:], first


def _tets(path: Path, first: int, count: int) -> NDArray[np.int64]:
    name = f"tet file {str(path)!r}"
    header, rows = _rows(path, "tetrahedra", 5)
    if header[1] == 10:
        raise Unsupported(f"{name}: tetrahedra of ten points are not supported; remedy: write them without -o2")
    if header[1] != 4:
        raise UserError(f"{name}: expected tetrahedra of 4 points, got {header[1]}")
    if not np.array_equal(rows, np.floor(rows)):
        raise UserError(f"{name}: expected whole point numbers, got fractions")
    tets = rows[:, 1:].astype(np.int64) - first
    if tets.min() < 0 or tets.max() >= count:
        bad = int(np.argmax(((tets < 0) | (tets >= count)).any(axis=1)))
        raise UserError(
            f"{name}: tetrahedron {int(rows[bad, 0])}: expected points {first} to {count - 1 + first}, "
            f"got {(tets[bad] + first).tolist()}"
        )
    return tets


def _oriented(name: str, vertices: NDArray[np.float32], tets: NDArray[np.int64]) -> NDArray[np.int64]:
    corners = vertices.astype(np.float64)[tets]
    edges = corners[:, 1:] - corners[:, :1]
    volumes = np.einsum("ti,ti->t", edges[:, 0], np.cross(edges[:, 1], edges[:, 2])) / 6.0
    longest = np.linalg.norm(corners[:, [0, 0, 0, 1, 1, 2]] - corners[:, [1, 2, 3, 2, 3, 3]], axis=2).max(axis=1)
    flat = np.abs(volumes) <= FLATTEST * longest**3
    if flat.any():
        at = int(np.argmax(flat))
        raise UserError(
            f"{name}: tetrahedron in line {at + 1}: expected a volume, got a flat one; {int(flat.sum())} such in all"
        )
    return np.where((volumes < 0.0)[:, None], tets[:, [0, 1, 3, 2]], tets)
