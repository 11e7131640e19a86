import builtins
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dvc import data
from dvc.errors import UserError
from geometry.mesh import TriangleMesh, box_mesh, icosphere
from geometry.mesh_io import STANDARD, read_mesh, write_mesh

FORMATS = sorted(STANDARD)
MERGING = (".stl", ".glb", ".gltf")
PLY = (
    "ply\nformat {}\nelement vertex 4\nproperty float x\nproperty float y\nproperty float z\n"
    "element face {}\nproperty list uchar int vertex_indices\nend_header\n"
)
POINTS = "0 0 0\n1 0 0\n1 1 0\n0 1 1\n"


@pytest.fixture(autouse=True)
def _open3d(request):
    if "without" not in request.node.name:
        pytest.importorskip("open3d")


def lumpy(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    vertices, faces = icosphere(1)
    return vertices + np.random.default_rng(seed).normal(size=vertices.shape).astype(np.float32) * np.float32(0.1), faces


def triangles(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """The corners' positions, face by face, each face rotated to a first corner, sorted: what a mesh is, however numbered."""
    corners = vertices[faces]
    rolled = [min(tuple(map(tuple, np.roll(t, -i, 0))) for i in range(3)) for t in corners.tolist()]
    return np.array(sorted(rolled))


@pytest.mark.parametrize("suffix", FORMATS)
def test_round_trip_is_exact(tmp_path, suffix):
    vertices, faces = lumpy()
    path = write_mesh(tmp_path / f"mesh{suffix}", torch.from_numpy(vertices)[None], torch.from_numpy(faces))
    points, corners = read_mesh(path)
    assert points.dtype == np.float32 and corners.dtype == np.int64
    assert len(points) == len(vertices)  # STL and glTF repeat vertices: they are one again
    assert np.array_equal(triangles(points, corners), triangles(vertices, faces))
    if suffix not in MERGING:
        assert np.array_equal(points, vertices) and np.array_equal(corners, faces)
    assert TriangleMesh(path)(torch.ones(1)).vertices.shape == (1, 42, 3)  # closed and outward still
    extra = [path.with_suffix(".bin")] if suffix == ".gltf" else []
    assert sorted(tmp_path.iterdir()) == sorted([path, *extra])


@pytest.mark.parametrize("suffix", FORMATS)
def test_units_and_up_axis_are_what_the_caller_says(tmp_path, suffix):
    vertices, faces = lumpy()
    path = write_mesh(tmp_path / f"mesh{suffix}", vertices, faces, unit="mm", up="y")
    again, corners = read_mesh(path, unit="mm", up="y")
    assert np.allclose(triangles(again, corners), triangles(vertices, faces), rtol=1e-6, atol=1e-7)
    raw, corners = read_mesh(path, unit="m", up="z")
    turned = 1000 * np.stack([vertices[:, 0], vertices[:, 2], -vertices[:, 1]], 1)  # z up -> y up
    assert np.allclose(triangles(raw, corners), triangles(turned.astype(np.float32), faces), rtol=1e-6)
    assert np.allclose(read_mesh(path, unit=0.001, up="y")[0], again)


def test_gltf_is_y_up_by_its_standard_and_others_are_as_they_are(tmp_path):
    vertices, faces = lumpy()
    heights = {}
    for suffix in FORMATS:
        raw = read_mesh(write_mesh(tmp_path / f"mesh{suffix}", vertices, faces), up="z")[0]
        heights[suffix] = float(raw[:, 1].max())
    assert heights[".glb"] == heights[".gltf"] == float(vertices[:, 2].max())
    assert heights[".obj"] == heights[".ply"] == heights[".stl"] == float(vertices[:, 1].max())


@pytest.mark.parametrize("up", ["x", "y", "z"])
def test_turning_the_up_axis_is_a_rotation(tmp_path, up):
    vertices, faces = box_mesh()
    path = write_mesh(tmp_path / "box.obj", vertices * np.float32([1, 2, 3]), faces, up=up)
    raw = read_mesh(path)[0]
    assert raw["xyz".index(up) == np.arange(3)[None].repeat(len(raw), 0)].max() == 3.0  # the height is along that axis
    mesh = TriangleMesh(path, up=up)(torch.ones(1))  # refuses a mirrored mesh, its volume would be negative
    assert torch.equal(mesh.vertices[0], torch.from_numpy(vertices) * torch.tensor([1.0, 2.0, 3.0]))


def ply(layout: str, faces: list[str] | list[bytes], points: str = POINTS, count: int | None = None) -> bytes:
    head = PLY.format(layout, len(faces) if count is None else count).encode()
    if layout.startswith("ascii"):
        return head + (points + "".join(f"{face}\n" for face in faces)).encode()
    order = "<" if "little" in layout else ">"
    numbers = [float(word) for word in points.split()]
    return head + struct.pack(f"{order}{len(numbers)}f", *numbers) + b"".join(faces)


def packed(order: str, *corners: int) -> bytes:
    return struct.pack(f"{order}B{len(corners)}i", len(corners), *corners)


@pytest.mark.parametrize("layout", ["ascii 1.0", "binary_little_endian 1.0", "binary_big_endian 1.0"])
def test_ply_polygons_become_fans(tmp_path, layout):
    path = tmp_path / "quad.ply"
    order = "<" if "little" in layout else ">"
    faces = ["4 0 1 2 3", "3 0 1 3"] if layout.startswith("ascii") else [packed(order, 0, 1, 2, 3), packed(order, 0, 1, 3)]
    path.write_bytes(ply(layout, faces))
    assert read_mesh(path)[1].tolist() == [[0, 1, 2], [0, 2, 3], [0, 1, 3]]


BAD_PLY = {
    "nothing": (b"", "the file is empty"),
    "header cut": (ply("ascii 1.0", ["3 0 1 2"])[:60], "expected a PLY header"),
    "no such format": (ply("ascii 1.0", ["3 0 1 2"]).replace(b"ascii", b"roman"), "got the format 'roman'"),
    "bad header": (ply("ascii 1.0", ["3 0 1 2"]).replace(b"vertex 4", b"vertex x"), "expected a line of a PLY header"),
    "face row missing": (
        ply("ascii 1.0", ["3 0 1 2"], count=2),
        "expected 2 rows of 'face', the file ends in row 1: truncated",
    ),
    "face row cut": (ply("ascii 1.0", ["3 0 1 2", "3 0 1"]), "ends in row 1: truncated"),
    "vertex row missing": (ply("ascii 1.0", [], points="0 0 0\n1 0 0\n", count=0), "4 rows of 'vertex'.*row 2: truncated"),
    "word": (ply("ascii 1.0", ["3 0 x 2"]), "face 0: expected numbers, got '3 0 x 2'"),
    "two corners": (ply("ascii 1.0", ["2 0 1"]), "face 0: expected at least three vertices, got 2"),
    "out of range": (ply("ascii 1.0", ["3 0 1 9"]), r"expected vertex numbers in 0..3, got 0..9"),
    "negative": (ply("ascii 1.0", ["3 0 1 -1"]), r"expected vertex numbers in 0..3, got -1..1"),
    "nan": (ply("ascii 1.0", ["3 0 1 2"], points=POINTS.replace("1 1 0", "nan 1 0")), "expected finite vertices"),
    "no area": (ply("ascii 1.0", ["3 0 1 1"]), "expected faces with an area, got 1 without, the first is face 0"),
    "points only": (ply("ascii 1.0", []), "expected vertices and faces, got 4 and 0"),
    "binary cut": (ply("binary_little_endian 1.0", [packed("<", 0, 1, 2)] * 2)[:-3], "ends in row 1: truncated"),
    "binary vertices cut": (ply("binary_little_endian 1.0", [], count=0)[:-3], "ends in row 3: truncated"),
}


@pytest.mark.parametrize("case", BAD_PLY)
def test_bad_ply_is_one_clear_line(tmp_path, case):
    content, words = BAD_PLY[case]
    refused(tmp_path / "mesh.ply", content, words)


def refused(path: Path, content: bytes, words: str) -> None:
    path.write_bytes(content)
    with pytest.raises(UserError, match=words) as caught:
        read_mesh(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


@pytest.mark.parametrize("suffix", MERGING)
@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_truncated_binary_files_are_refused(tmp_path, suffix, share):
    vertices, faces = lumpy()
    path = write_mesh(tmp_path / f"mesh{suffix}", vertices, faces)
    content = path.read_bytes()
    refused(path, content[: int(share * len(content))], "empty|truncated")


FACET = "facet normal 0 0 1\nouter loop\nvertex 0 0 0\nvertex 1 0 0\nvertex 0 1 0\nendloop\nendfacet\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (FACET.replace("1 0 0", "nan 0 0"), "expected finite vertices"),
        (FACET.replace("0 1 0", "2 0 0"), "expected faces with an area"),
        ("", "expected vertices and faces, got 0 and 0"),
        (FACET + FACET[:60], "the file is truncated"),
    ],
)
def test_bad_ascii_stl(tmp_path, text, words):
    refused(tmp_path / "mesh.stl", f"solid x\n{text}endsolid x\n".encode() if text != FACET + FACET[:60] else
            f"solid x\n{text}".encode(), words)  # fmt: skip


def glb(edit) -> bytes:
    """A GLB of a tetrahedron whose JSON or numbers were edited."""
    points = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    corners = np.array([[0, 2, 1], [0, 1, 3], [1, 2, 3], [2, 0, 3]], np.uint32)
    tree = {
        "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 1}]}],
        "buffers": [{"byteLength": 96}],
        "bufferViews": [{"buffer": 0, "byteLength": 48}, {"buffer": 0, "byteOffset": 48, "byteLength": 48}],
        "accessors": [{"bufferView": 0, "componentType": 5126, "count": 4, "type": "VEC3", "min": [0, 0, 0], "max": [1, 1, 1]},
                      {"bufferView": 1, "componentType": 5125, "count": 12, "type": "SCALAR"}],
    }  # fmt: skip
    edit(tree, points, corners)
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    binary = points.tobytes() + corners.tobytes()
    chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
    return struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks


def test_glb_of_a_scene_with_a_transform(tmp_path):
    path = tmp_path / "mesh.glb"
    path.write_bytes(glb(lambda tree, points, corners: tree["nodes"][0].update(translation=[5, 0, 0])))
    vertices, faces = read_mesh(path)
    assert vertices[:, 0].min() == 5.0 and len(vertices) == 4 and len(faces) == 4
    assert vertices[:, 2].max() == 1.0 and vertices[:, 1].min() == -1.0  # y up became z up, z became -y


BAD_GLB = {
    "nan": (lambda tree, points, corners: points.__setitem__((1, 0), np.nan), "expected finite vertices"),
    "range": (
        lambda tree, points, corners: corners.__setitem__((1, 1), 77),
        r"mesh 0: expected vertex numbers in 0..3, got 77",
    ),
    "area": (lambda tree, points, corners: corners.__setitem__((1, 1), 0), "expected faces with an area, got 1"),
    "points": (
        lambda tree, points, corners: tree["meshes"][0]["primitives"][0].update(mode=0),
        "expected triangles .mode 4., got",
    ),
    "no mesh": (lambda tree, points, corners: tree.update(meshes=[]), "got 0 and 0"),
    "accessor": (
        lambda tree, points, corners: tree["accessors"][0].update(count=400),
        "expected 4800 bytes of an accessor, got",
    ),
    "buffer": (lambda tree, points, corners: tree["buffers"][0].update(byteLength=400), "expected 400 bytes, got 96"),
    "no view": (lambda tree, points, corners: tree["accessors"][0].update(bufferView=9), "whose parts refer to one another"),
    "compressed": (
        lambda tree, points, corners: tree.update(extensionsRequired=["KHR_draco_mesh_compression"]),
        "expected a mesh that is not compressed",
    ),
}


@pytest.mark.parametrize(("edit", "words"), BAD_GLB.values(), ids=BAD_GLB)
def test_bad_glb(tmp_path, edit, words):
    refused(tmp_path / "mesh.glb", glb(edit), words)


def test_gltf_without_its_buffer(tmp_path):
    path = write_mesh(tmp_path / "mesh.gltf", *lumpy())
    beside = path.with_suffix(".bin")
    content = beside.read_bytes()
    beside.write_bytes(content[:-8])
    refused(path, path.read_bytes(), "expected .* bytes, got .*; truncated")
    beside.unlink()
    refused(path, path.read_bytes(), "expected its buffer 'mesh.bin' beside it, found none")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 0\n", "line 4: expected numbers"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2\n", "line 4: expected numbers"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 -4\n", r"expected vertex numbers in 0..2, got -1..1"),
        ("v 0 0 0\nv 1 0 0\nv 0 1e60 0\nf 1 2 3\n", "expected finite vertices"),
        ("v 0 0 0\nv 1 0 0\nv 0 1 0\nl 1 2 3\n", "expected vertices and faces, got 3 and 0"),
    ],
)
def test_bad_obj(tmp_path, text, words):
    refused(tmp_path / "mesh.obj", text.encode(), words)


def test_what_is_done_with_degenerate_faces(tmp_path):
    path = tmp_path / "mesh.obj"
    path.write_text("v 0 0 0\nv 1 0 0\nv 2 0 0\nv 0 1 0\nf 1 2 4\nf 1 2 3\nf 4 4 1\n")
    with pytest.raises(UserError, match="got 2 without, the first is face 1"):
        read_mesh(path)
    assert read_mesh(path, degenerate="drop")[1].tolist() == [[0, 1, 3]]
    assert len(read_mesh(path, degenerate="keep")[1]) == 3
    with pytest.raises(UserError, match="expected 'refuse', 'drop' or 'keep', got 'fix'"):
        read_mesh(path, degenerate="fix")  # type: ignore[arg-type]
    path.write_text("v 0 0 0\nv 1 0 0\nv 2 0 0\nf 1 2 3\n")
    with pytest.raises(UserError, match="expected faces with an area, got none"):
        read_mesh(path, degenerate="drop")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"unit": "yard"}, "unit: expected one of m, dm, cm"),
        ({"unit": -1.0}, "unit: expected a positive number of metres, got -1.0"),
        ({"unit": True}, "expected a positive number of metres, got True"),
        ({"up": "w"}, "up: expected 'x', 'y' or 'z', got 'w'"),
    ],
)
def test_wrong_units_are_named(tmp_path, options, words):
    path = write_mesh(tmp_path / "mesh.obj", *box_mesh())
    with pytest.raises(UserError, match=words):
        read_mesh(path, **options)
    with pytest.raises(UserError, match=words):
        write_mesh(path, *box_mesh(), **options)


def test_wrong_places_and_endings(tmp_path):
    with pytest.raises(UserError, match="found a folder"):
        read_mesh(tmp_path)
    with pytest.raises(UserError, match=r"expected one of .glb, .*got '.abc'"):
        write_mesh(tmp_path / "mesh.abc", *box_mesh())
    with pytest.raises(UserError, match="no folder"):
        write_mesh(tmp_path / "none" / "mesh.ply", *box_mesh())
    with pytest.raises(UserError, match="unit and up belong to a path"):
        TriangleMesh(vertices=box_mesh()[0], faces=box_mesh()[1], unit="mm")
    with pytest.raises(UserError, match="expected finite vertices"):
        write_mesh(tmp_path / "mesh.ply", np.full((3, 3), np.nan), np.array([[0, 1, 2]]))
    with pytest.raises(UserError, match=r"expected vertex numbers in 0..7, got 0..8"):
        write_mesh(tmp_path / "mesh.ply", box_mesh()[0], np.array([[0, 1, 8]]))
    with pytest.raises(UserError, match="in its own unit: expected finite"):
        write_mesh(tmp_path / "mesh.ply", box_mesh()[0] * 1e35, box_mesh()[1], unit=1e-6)
    assert list(tmp_path.iterdir()) == []


def test_obj_is_read_and_written_without_open3d(tmp_path, monkeypatch):
    original = builtins.__import__

    def refuse(name, *arguments, **options):
        if name.split(".")[0] == "open3d":
            raise OSError("libGL.so.1: cannot open shared object file")
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    assert len(read_mesh(write_mesh(tmp_path / "mesh.obj", *box_mesh()))[1]) == 12
    (tmp_path / "mesh.ply").write_bytes(ply("ascii 1.0", ["3 0 1 2"]))
    for act in (lambda: read_mesh(tmp_path / "mesh.ply"), lambda: write_mesh(tmp_path / "new.ply", *box_mesh())):
        with pytest.raises(UserError, match=r"libGL.so.1: cannot open.*apt-get install libusb-1.0-0 libgl1") as caught:
            act()
        assert "\n" not in str(caught.value)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(suffix=st.sampled_from(FORMATS), seed=st.integers(0, 2**31 - 1), kind=st.sampled_from(["cut", "noise", "shuffle"]))
def test_damaged_files_are_read_or_refused_but_nothing_else(tmp_path, suffix, seed, kind):
    """A file that was cut, or in which bytes changed, is refused with a UserError or gives a mesh that is sound."""
    generator = np.random.default_rng(seed)
    path = tmp_path / f"mesh{suffix}"
    content = bytearray(write_mesh(path, *lumpy()).read_bytes())
    if kind == "cut":
        content = content[: generator.integers(0, len(content))]
    else:
        places = generator.integers(0, len(content), generator.integers(1, 9))
        for place in places:
            content[place] = generator.integers(0, 256) if kind == "noise" else content[generator.integers(0, len(content))]
    path.write_bytes(bytes(content))
    try:
        vertices, faces = read_mesh(path)
    except UserError as error:
        assert "\n" not in str(error)
        return
    assert np.isfinite(vertices).all() and faces.min() >= 0 and faces.max() < len(vertices)


@pytest.mark.data("spot", "stanford_bunny", "suzanne", "armadillo_low_res")
def test_real_meshes():
    sizes = {name: tuple(map(len, read_mesh(data.find(name)))) for name in ("spot", "stanford_bunny", "suzanne")}
    assert sizes == {"spot": (2930, 5856), "stanford_bunny": (35947, 69451), "suzanne": (507, 968)}
    assert tuple(map(len, read_mesh(data.find("armadillo_low_res")))) == (2013, 4022)


def test_ascii_stl_that_ends_early_is_refused(tmp_path):
    facet = "facet normal 0 0 0\nouter loop\nvertex 0 0 0\nvertex 1 0 0\nvertex 0 1 0\nendloop\nendfacet\n"
    path = tmp_path / "half.stl"
    path.write_text("solid half\n" + 2 * facet)
    with pytest.raises(UserError, match="truncated"):
        read_mesh(path)
    path.write_text("solid whole\n" + facet + "endsolid whole\n")
    assert len(read_mesh(path)[1]) == 1


def test_byte_order_mark_does_not_hide_the_first_vertex(tmp_path):
    path = tmp_path / "mark.obj"
    path.write_bytes(b"\xef\xbb\xbfv 5 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 2 3\n")
    assert read_mesh(path)[0].tolist()[0] == [5.0, 0.0, 0.0]


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_folder_is_not_written_into(tmp_path, suffix):
    path = tmp_path / f"folder{suffix}"
    path.mkdir()
    with pytest.raises(UserError, match="folder"):
        write_mesh(path, *lumpy())
    assert not list(path.iterdir())
