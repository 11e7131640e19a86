"""Texture coordinates of an OBJ file: `vt` lines, and the second number of each corner of an `f` line.

They come for the triangles in the order in which `geometry.mesh_io.read_mesh` gives them where no face is dropped: polygons
are cut into fans in the same way. (0, 0) is the bottom left corner of an image, as OBJ has it.
"""

from pathlib import Path

import numpy as np

from dvc.errors import UserError


def read_obj_uv(path: str | Path) -> np.ndarray | None:
    """Coordinates of the corners, float32 (face, 3, 2); None where the file has no `vt`.

    Raises: UserError, one line, for a file that is missing, lines that cannot be read, and faces of which some have
        coordinates and some have none.
    """
    path = Path(path)
    name = f"mesh file {str(path)!r}"
    if not path.is_file():
        raise UserError(f"{name}: expected a file, found none; remedy: check the path")
    coordinates: list[list[float]] = []
    corners: list[list[int]] = []
    bare = 0  # line of a face without coordinates
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            words = line.split("#")[0].split()
            if not words or words[0] not in ("vt", "f"):
                continue
            try:
                if words[0] == "vt":
                    coordinates.append([float(words[1]), float(words[2]) if len(words) > 2 else 0.0])
                    continue
                parts = [word.split("/") for word in words[1:]]
                if any(len(part) < 2 or part[1] == "" for part in parts):
                    bare = bare or number
                    continue
                numbers = [int(part[1]) for part in parts]
                numbers = [n - 1 if n > 0 else len(coordinates) + n for n in numbers]
                corners += [[numbers[0], numbers[i], numbers[i + 1]] for i in range(1, len(numbers) - 1)]
            except (ValueError, IndexError):
                raise UserError(f"{name}, line {number}: expected texture coordinates, got {line.strip()[:60]!r}") from None
    if not corners:
        return None
    if bare:
        raise UserError(f"{name}, line {bare}: expected texture coordinates at every face, as others have, got none")
    index = np.array(corners, np.int64)
    if index.min() < 0 or index.max() >= len(coordinates):
        raise UserError(
            f"{name}: expected texture coordinates 1..{len(coordinates)}, got {int(index.min()) + 1}..{int(index.max()) + 1}"
        )
    found = np.array(coordinates, np.float32)[index]
    if not np.isfinite(found).all():
        raise UserError(f"{name}: expected finite texture coordinates, got some that are not")
    return found
