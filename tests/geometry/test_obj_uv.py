"""geometry/obj_uv.py: texture coordinates in the order of read_mesh's faces."""

from pathlib import Path

import numpy as np
import pytest

from dvc.errors import UserError
from geometry.mesh_io import read_mesh
from geometry.obj_uv import read_obj_uv

QUAD = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nv 2 0 0\nvt 0 0\nvt 1 0\nvt 1 1\nvt 0 1 0\nvt 0.25 0.5\n"


def write(folder: Path, text: str) -> Path:
    path = folder / "shape.obj"
    path.write_text(text)
    return path


def test_polygons_become_the_fans_of_read_mesh(tmp_path: Path) -> None:
    path = write(tmp_path, QUAD + "f 1/1 2/2 3/3 4/4\nf 2/5/1 5/-4 3/2\n")
    _, faces = read_mesh(path)
    uv = read_obj_uv(path)
    assert uv is not None and uv.dtype == np.float32 and uv.shape == (len(faces), 3, 2)
    assert uv.tolist() == [[[0, 0], [1, 0], [1, 1]], [[0, 0], [1, 1], [0, 1]], [[0.25, 0.5], [1, 0], [1, 0]]]


@pytest.mark.data("spot")
def test_real_mesh() -> None:
    from dvc.data import find

    uv = read_obj_uv(find("spot"))
    assert uv is not None and len(uv) == len(read_mesh(find("spot"))[1])
    assert uv.min() > -0.1 and uv.max() < 1.1


def test_none_where_there_are_none(tmp_path: Path) -> None:
    assert read_obj_uv(write(tmp_path, QUAD + "f 1 2 3\nf 1//1 2//1 3//1\n")) is None


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("f 1/1 2/2 3/3\nf 1 2 3\n", "line 12: expected texture coordinates at every face"),
        ("f 1/1 2/2 3/9\n", "expected texture coordinates 1..5, got 1..9"),
        ("f 1/1 2/x 3/3\n", "line 11: expected texture coordinates"),
        ("vt one 2\nf 1/1 2/2 3/3\n", "line 11: expected texture coordinates"),
        ("vt nan 2\nf 1/1 2/2 3/6\n", "finite"),
    ],
)
def test_bad_files_are_refused(tmp_path: Path, lines: str, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        read_obj_uv(write(tmp_path, QUAD + lines))
    with pytest.raises(UserError, match="expected a file"):
        read_obj_uv(tmp_path / "none.obj")
