import numpy as np
import pytest
import torch

from dvc import data
from dvc.errors import Unsupported, UserError
from dvc.records import TetMesh
from geometry.mesh_quality import angle_statistics
from geometry.tetgen_io import read_tetgen
from geometry.tetrahedra import pinched_vertices

NODES = "# a comment\n4 3 0 1\n{0} 0 0 0 1\n{1} 1 0 0 1 # the second\n\n{2} 0 1 0 1\n{3} 0 0 1 1\n"
ELEMENTS = "1 4 1\n{0} {0} {1} {2} {3} 7\n"


def write(folder, nodes, elements, first=1):
    numbers = range(first, first + 4)
    (folder / "a.node").write_text(nodes.format(*numbers))
    (folder / "a.ele").write_text(elements.format(*numbers))
    return folder / "a.node"


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("name", ["a.node", "a.ele"])
def test_one_tetrahedron(tmp_path, first, name):
    write(tmp_path, NODES, ELEMENTS, first)
    vertices, tets = read_tetgen(tmp_path / name)
    assert vertices.dtype == np.float32 and tets.tolist() == [[0, 1, 2, 3]]
    assert vertices.tolist() == [[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]


def test_a_turned_tetrahedron_and_units(tmp_path):
    path = write(tmp_path, NODES, "1 4 0\n{0} {0} {2} {1} {3}\n")
    vertices, tets = read_tetgen(path, unit="mm", up="y")
    a, b, c, d = vertices[tets[0]].astype(float)
    assert np.isclose(np.dot(b - a, np.cross(c - a, d - a)), 1e-9, rtol=1e-5)
    assert np.allclose(vertices[2], [0, 0, 1e-3])  # the file's y is up


@pytest.mark.parametrize(
    ("nodes", "elements", "says"),
    [
        ("", ELEMENTS, "a.node.*empty"),
        (NODES, "# nothing\n", "a.ele.*empty"),
        ("5 3 0 1\n" + NODES.split("\n", 2)[2], ELEMENTS, "expected 5 points, got 4: the file is truncated"),
        ("3 3 0 1\n" + NODES.split("\n", 2)[2], ELEMENTS, "expected 3 points, got 4"),
        (NODES.replace(" 1 0 0 1", " nan 0 0 1"), ELEMENTS, "finite"),
        (NODES.replace(" 1 0 0 1", " 1 0"), ELEMENTS, "expected 5 numbers a line, got 3 in the line of points number 2"),
        (NODES.replace(" 1 0 0 1", " x 0 0 1"), ELEMENTS, "expected numbers"),
        (NODES.replace(" 1 0 0 1", " 1e39 0 0 1"), ELEMENTS, "float32"),
        (NODES.replace("4 3", "4 2"), ELEMENTS, "dimension 3, got 2"),
        (NODES.replace("4 3", "four 3"), ELEMENTS, "first line of integers"),
        (NODES.replace("{3}", "9"), ELEMENTS, "numbered from 0 or 1"),
        (NODES, "1 4 0\n1 1 2 3 5\n", r"expected points 1 to 4, got \[1, 2, 3, 5\]"),
        (NODES, "1 4 0\n1 1 2 3 0\n", "expected points 1 to 4"),
        (NODES, "1 4 0\n1 1 2 3 3\n", "flat"),
        (NODES, "1 4 0\n1 1 2 3 3.5\n", "whole"),
        (NODES, "1 3 0\n1 1 2 3 3\n", "4 points, got 3"),
    ],
)
def test_bad_files_are_one_clear_error(tmp_path, nodes, elements, says):
    path = write(tmp_path, nodes, elements)
    with pytest.raises(UserError, match=says) as caught:
        read_tetgen(path)
    assert "\n" not in str(caught.value)


def test_missing_files_and_ten_points(tmp_path):
    with pytest.raises(UserError, match="expected a file, found none"):
        read_tetgen(tmp_path / "no.node")
    path = write(tmp_path, NODES, "1 10 0\n1 1 2 3 4 1 2 3 4 1 2\n")
    with pytest.raises(Unsupported, match="ten points"):
        read_tetgen(path)
    with pytest.raises(UserError, match="expected a unit"):
        read_tetgen(path, unit="furlong")
    (tmp_path / "a.ele").unlink()
    with pytest.raises(UserError, match=r"a\.ele.*found none"):
        read_tetgen(path)


@pytest.mark.data("armadillo_10k_node", "armadillo_10k_ele")
def test_armadillo():
    vertices, tets = read_tetgen(data.find("armadillo_10k_node"), data.find("armadillo_10k_ele"))
    assert vertices.shape == (14779, 3) and tets.shape == (54855, 4)
    a, b, c, d = vertices.astype(float)[tets].transpose(1, 0, 2)
    volumes = np.einsum("ti,ti->t", b - a, np.cross(c - a, d - a)) / 6.0
    assert volumes.min() > 0.0 and np.isclose(volumes.sum(), 2.37594e5, rtol=1e-5)
    statistics = angle_statistics(TetMesh(torch.from_numpy(vertices)[None], torch.from_numpy(tets).int()))
    assert 0.0 < statistics.minimum < 60.0 and abs(float(statistics.histogram.sum()) - 1.0) < 1e-9
    assert len(pinched_vertices(tets)) == 0
