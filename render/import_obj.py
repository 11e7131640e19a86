"""`read_obj_scene`: bodies and materials of an OBJ file and of the MTL files that it names.

Source: Wavefront "Advanced Visualizer" manual, appendix B (OBJ) and B1 (MTL, see `render.import_mtl`). One body for each object
or group and material, in the order of their first faces. Polygons are cut into fans from their first corner, or from the first
from which no triangle is turned over. OBJ has neither cameras nor lights; surfaces that emit are lights. Its numbers mean what
`unit` and `up` say; by default metres and z up, as in `geometry.mesh_io`. Surfaces are two-sided, as OBJ has no sides; they
emit on their front. Read here, in plain Python: the readers at hand (Open3D, trimesh) join groups, drop statements, or guess.

Said once a file: smooth normals are not used, colours behind vertices neither; a face without a material is grey (0.5).
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from dvc.cli_experiments import nearest
from dvc.errors import Unsupported, UserError
from geometry.mesh_io import file_convention
from render.import_mtl import mtl_material, read_mtl
from render.imported import Imported, Notes, imported_body, unique_name
from render.scene import Body, Material, Texture

CURVES = ("curv", "curv2", "surf", "cstype", "call")
IGNORED = ("s", "vp", "mg", "bevel", "c_interp", "d_interp", "lod", "shadow_obj", "trace_obj", "maplib", "usemap")
NONE = -1  # a corner without coordinates or normal
NO_MATERIAL = "default"


class _Part(NamedTuple):
    """Faces of one name and material."""

    corners: list[tuple[int, int, int]]  # of vertex, coordinates, normal
    sizes: list[int]  # corners of each polygon
    lines: list[int]


def read_obj_scene(
    path: str | Path, unit: str | float | None = None, up: str | None = None, leave_out: Sequence[str] = ()
) -> Imported:
    """What an OBJ file shows.

    Arguments: unit, up: what its numbers mean, see `geometry.mesh_io.read_mesh`. leave_out: features to go without in place of
        an error, see `render.imported.FEATURES`.
    Raises: UserError, one line, for a file that is missing or malformed; Unsupported for what is not there.
    """
    path = Path(path)
    notes = Notes(f"OBJ file {str(path)!r}", leave_out)
    if not path.is_file():
        got = "a folder" if path.is_dir() else "none"
        raise UserError(f"{notes.name}: expected a file, found {got}; remedy: check the path")
    metres, (axes, signs) = file_convention(notes.name, ".obj", unit, up)
    reader = _Reader(path, notes)
    reader.read()
    with np.errstate(over="ignore"):  # what overflows is refused by name
        points = np.array(reader.rows["v"], np.float64).reshape(-1, 3)[:, axes] * (np.array(signs) * metres)
    normals = np.array(reader.rows["vn"], np.float64).reshape(-1, 3)[:, axes] * np.array(signs, np.float64)
    uvs = np.array(reader.rows["vt"], np.float64).reshape(-1, 2)
    materials: dict[str, Material] = {}
    bodies: dict[str, Body] = {}
    if not reader.parts:
        raise UserError(f"{notes.name}: expected at least one face, got none")
    for (name, material), part in reader.parts.items():
        if material not in materials:
            materials[material] = reader.material(material)
        triangles = _triangles(notes.name, part, points)
        textured = any(isinstance(value, Texture) for value in materials[material])
        bare = triangles[..., 1] == NONE
        if textured and bare.any():
            line = next(line for line, has in zip(part.lines, _polygon_has(part, 1)) if not has)
            raise UserError(
                f"{notes.name}, line {line}: expected texture coordinates, as material {material!r} has a texture, got none"
            )
        body = imported_body(
            notes, name, material, points, triangles[..., 0], None if bare.any() else uvs[triangles[..., 1]], None,
            None if (triangles[..., 2] == NONE).any() else normals[triangles[..., 2]],
        )  # fmt: skip
        if body is not None:
            several = sum(other == name for other, _ in reader.parts) > 1
            bodies[unique_name(f"{name} ({material})" if several else name, bodies)] = body
    notes.warn()
    if not bodies:
        raise UserError(f"{notes.name}: expected faces with an area, got none with one")
    used = {body.material for body in bodies.values()}
    materials = {name: material for name, material in materials.items() if name in used}
    return Imported(list(bodies.values()), list(bodies), materials, [], {})


def _polygon_has(part: _Part, which: int) -> Iterator[bool]:
    at = 0
    for size in part.sizes:
        yield all(corner[which] != NONE for corner in part.corners[at : at + size])
        at += size


class _Reader:
    def __init__(self, path: Path, notes: Notes):
        self.path, self.notes = path, notes
        self.rows: dict[str, list[list[float]]] = {"v": [], "vt": [], "vn": []}
        self.parts: dict[tuple[str, str], _Part] = {}
        self.statements: dict[str, dict[str, list[str]]] = {}
        self.folders: dict[str, Path] = {}
        self.name, self.chosen = self.path.stem, NO_MATERIAL

    def read(self) -> None:
        content = self.path.read_text(encoding="utf-8-sig", errors="replace").replace("\\\r\n", "  ").replace("\\\n", " ")
        for number, line in enumerate(content.splitlines(), start=1):
            words = line.split("#")[0].split()
            if not words:
                continue
            try:
                self._statement(words, number)
            except (UserError, Unsupported):
                raise
            except ValueError:
                raise UserError(
                    f"{self.notes.name}, line {number}: expected numbers of a vertex or face, got {line.strip()[:60]!r}"
                ) from None
        for part in self.parts.values():
            self._check_range(part)

    def _statement(self, words: list[str], number: int) -> None:
        key, rest = words[0], words[1:]
        if key == "v":
            self.rows["v"].append(_floats(rest[:3], 3))
            if len(rest) > 4:
                self.notes.approximate("colours of vertices are left out", "v")
        elif key == "vt":
            self.rows["vt"].append(_floats((rest + ["0"])[:2], 2))
        elif key == "vn":
            self.rows["vn"].append(_floats(rest[:3], 3))
        elif key in ("f", "fo"):
            self._face(rest, number)
        elif key in ("o", "g"):
            self.name = " ".join(rest) or self.path.stem
        elif key == "usemtl":
            self.chosen = " ".join(rest)
            if self.chosen not in self.statements and "material file" not in self.notes.leave_out:
                known = ", ".join(self.statements) or "(there are none; remedy: name their file by mtllib)"
                raise UserError(
                    f"{self.notes.name}, line {number}: expected a material of {known}, got {self.chosen!r}"
                    f"{nearest(self.chosen, self.statements)}"
                )
        elif key == "mtllib":
            self._library(rest, number)
        elif key in ("l", "p"):
            self.notes.absent("points and lines", f"line {number}")
        elif key in CURVES:
            raise Unsupported(f"{self.notes.name}, line {number}: {key} is not supported; remedy: export triangles")
        elif key not in IGNORED:
            self.notes.approximate("lines that are not understood are left out", key[:20])

    def _library(self, rest: list[str], number: int) -> None:
        whole = self.path.parent / " ".join(rest).replace("\\", "/")
        for library in [whole] if whole.is_file() else [self.path.parent / name.replace("\\", "/") for name in rest]:
            if not library.is_file() and "material file" in self.notes.leave_out:
                self.notes.absent("material file", library.name)
                continue
            if not library.is_file():
                raise UserError(
                    f"{self.notes.name}, line {number}: expected the material file {str(library)!r}, found none; remedy: put "
                    "it there, or leave_out: [material file], which shows grey surfaces"
                )
            for name, statements in read_mtl(library, self.notes).items():
                self.statements.setdefault(name, statements)
                self.folders.setdefault(name, library.parent)

    def _face(self, rest: list[str], number: int) -> None:
        if len(rest) < 3:
            raise UserError(f"{self.notes.name}, line {number}: expected a face of at least 3 corners, got {len(rest)}")
        part = self.parts.setdefault((self.name, self.chosen), _Part([], [], []))
        counts = [len(self.rows[key]) for key in ("v", "vt", "vn")]
        for word in rest:
            given = (word.split("/") + ["", ""])[:3]
            v, t, n = (_index(text, count) if text else NONE for text, count in zip(given, counts))
            if v == NONE:
                raise ValueError(word)
            part.corners.append((v, t, n))
        part.sizes.append(len(rest))
        part.lines.append(number)

    def _check_range(self, part: _Part) -> None:
        corners = np.array(part.corners)
        for column, key in enumerate(("v", "vt", "vn")):
            bad = (corners[:, column] >= len(self.rows[key])) | (corners[:, column] < NONE)
            if bad.any():
                polygon = int(np.searchsorted(np.cumsum(part.sizes), int(np.argmax(bad)), side="right"))
                raise UserError(
                    f"{self.notes.name}, line {part.lines[polygon]}: expected numbers of {key} in 1..{len(self.rows[key])}, "
                    f"got {int(corners[np.argmax(bad), column]) + 1}"
                )

    def material(self, name: str) -> Material:
        if name not in self.statements:
            self.notes.approximate("faces without a material are grey", "usemtl")
            return Material(two_sided=True)
        return mtl_material(self.notes, name, self.statements[name], self.folders[name])


def _floats(words: list[str], count: int) -> list[float]:
    if len(words) != count:
        raise ValueError(words)
    return [float(word) for word in words]


def _index(text: str, count: int) -> int:
    number = int(text)
    if number == 0 or number < -count:
        raise ValueError(text)
    return number - 1 if number > 0 else count + number


def _triangles(name: str, part: _Part, points: np.ndarray) -> np.ndarray:
    """Corners of triangles, (face, 3, 3): vertex, coordinates, normal."""
    corners, sizes = np.array(part.corners), np.array(part.sizes)
    starts = np.cumsum(sizes) - sizes
    polygon = np.repeat(np.arange(len(sizes)), sizes - 2)
    step = np.arange(len(polygon)) - np.repeat(np.cumsum(sizes - 2) - (sizes - 2), sizes - 2)
    rows = np.stack([starts[polygon], starts[polygon] + step + 1, starts[polygon] + step + 2], axis=1)
    if (sizes > 3).any():
        for bad in np.unique(polygon[_turned(points[corners[rows, 0]], polygon, len(sizes))]):
            rows[polygon == bad] = _other_fan(name, part.lines[bad], points, corners, starts[bad], sizes[bad])
    return corners[rows]


def _turned(triangles: np.ndarray, polygon: np.ndarray, count: int) -> np.ndarray:
    """Triangles whose normal points against that of their polygon."""
    normal = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    whole = np.zeros((count, 3))
    np.add.at(whole, polygon, normal)
    return (normal * whole[polygon]).sum(axis=1) < -1e-9 * (whole[polygon] ** 2).sum(axis=1)


def _other_fan(name: str, line: int, points: np.ndarray, corners: np.ndarray, start: int, size: int) -> np.ndarray:
    fan = np.stack([np.zeros(size - 2, int), np.arange(1, size - 1), np.arange(2, size)], axis=1)
    for turn in range(1, size):
        rows = start + (fan + turn) % size
        if not _turned(points[corners[rows, 0]], np.zeros(size - 2, int), 1).any():
            return rows
    raise UserError(
        f"{name}, line {line}: expected a polygon that a fan of triangles covers, got {size} corners that none does; remedy: "
        "export triangles"
    )
