"""Reading triangle meshes: OBJ here, other formats through Open3D."""

from pathlib import Path

import numpy as np

from dvc.errors import UserError


def read_mesh(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Vertices (vertex, 3) and faces (face, 3) of a mesh file; polygons are cut into fans.

    Raises: UserError for a file that is missing, empty, malformed or of a format that nothing here reads.
    """
    if not path.is_file():
        raise UserError(f"mesh file {str(path)!r}: expected a file, found none; remedy: check the path")
    vertices, faces = _read_obj(path) if path.suffix.lower() == ".obj" else _read_with_open3d(path)
    if len(vertices) == 0 or len(faces) == 0:
        raise UserError(f"mesh file {str(path)!r}: expected vertices and faces, got {len(vertices)} and {len(faces)}")
    return vertices, faces


def _read_obj(path: Path) -> tuple[np.ndarray, np.ndarray]:
    vertices: list[list[float]] = []
    faces: list[list[int]] = []
    with path.open(encoding="utf-8", errors="replace") as lines:
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
                    corners = [corner - 1 if corner > 0 else len(vertices) + corner for corner in corners]
                    faces += [[corners[0], corners[i], corners[i + 1]] for i in range(1, len(corners) - 1)]
                    expected = len(corners) >= 3
            except ValueError:
                expected = False
            if not expected:
                raise UserError(
                    f"mesh file {str(path)!r}, line {number}: expected numbers of a vertex or face, got {line.strip()!r}"
                )
    return np.array(vertices, np.float32).reshape(-1, 3), np.array(faces, np.int64).reshape(-1, 3)


def _read_with_open3d(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        import open3d
    except (ImportError, OSError) as problem:
        raise UserError(
            f"mesh file {str(path)!r}: expected .obj, or Open3D to read {path.suffix or 'this format'} ({problem}); "
            "remedy: pip install open3d, with the system libraries libusb-1.0.so.0 and libGL.so.1, or convert to .obj"
        ) from None
    mesh = open3d.io.read_triangle_mesh(path)
    mesh.remove_duplicated_vertices()
    return np.asarray(mesh.vertices, np.float32), np.asarray(mesh.triangles, np.int64)
