"""render/import_obj.py, import_mtl.py: what OBJ and MTL files hold arrives, the rest in one line."""

import math
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from dvc.errors import Unsupported, UserError
from dvc.records import Film, Mesh
from geometry.mesh_io import read_mesh
from geometry.obj_uv import read_obj_uv
from render.camera import LookAtCamera
from render.image_file import write_png
from render.import_obj import read_obj_scene
from render.path_render import PathRender
from render.render_file import RenderFile
from render.response import srgb_inverse
from render.scene import CONDUCTOR, DIFFUSE, Body, Material, PointLight, Scene, Texture
from tests.render.gltf_files import CUBE_SIDES

FILM = Film(32, 24, 0.0, 0.0, 32, 24, 1.0)
EIGHT = np.random.default_rng(3).integers(0, 256, (4, 8, 3), dtype=np.uint8)
CORNERS = [(x, y, z) for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)]
VERTICES = "".join(f"v {x} {y} {z}\n" for x, y, z in CORNERS)
ZIGZAG = "v 0 0 0\nv 1 1 0\nv 2 0 0\nv 3 1 0\nv 3 1.2 0\nv 2 .2 0\nv 1 1.2 0\nv 0 .2 0\nf 1 2 3 4 5 6 7 8\n"
SQUARE = "v 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\n"


def cube_quads(first: str = "") -> str:
    """Six quads with the whole image on each, some with negative numbers."""
    lines = [VERTICES, "vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1\n", first]
    for side, ((a, b), axis, sign) in enumerate(CUBE_SIDES):
        words = []
        for number, (p, q) in enumerate(((-1, -1), (1, -1), (1, 1), (-1, 1))):
            point = [0.0, 0.0, 0.0]
            point[axis], point[a], point[b] = 0.5 * sign, 0.5 * p, 0.5 * q
            place = CORNERS.index(tuple(point))
            words.append(f"{place - 8}/{number - 4}" if side % 2 else f"{place + 1}/{number + 1}")
        lines.append(f"f {' '.join(words)}\n")
    return "".join(lines)


def written(folder: Path, obj: str, mtl: str | None = None) -> Path:
    if mtl is not None:
        (folder / "paint box.mtl").write_text(mtl)
        obj = "mtllib paint box.mtl\n" + obj
    (folder / "model.obj").write_text(obj)
    write_png(folder / "photo.png", srgb_inverse(torch.from_numpy(EIGHT / np.float32(255.0))))
    return folder / "model.obj"


def quiet(path: Path, **more: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_obj_scene(path, **more)


def material(folder: Path, statements: str, **more: Any) -> Material:
    obj = "usemtl paint\n" + cube_quads()
    return read_obj_scene(written(folder, obj, f"newmtl paint\n{statements}"), **more).materials["paint"]


def test_a_cube_shows_what_the_same_scene_by_hand_shows(tmp_path: Path) -> None:
    obj = cube_quads("o box\nusemtl paint\n")
    model = quiet(written(tmp_path, obj, "newmtl paint\nKd 0.9 0.8 0.7\nillum 1\nmap_Kd -clamp on photo.png\n"))
    assert model.names == ["box"] and not model.cameras and not model.lights
    points, faces = read_mesh(tmp_path / "model.obj")  # the reader of plain meshes: another implementation
    uv = read_obj_uv(tmp_path / "model.obj")
    assert uv is not None
    image = srgb_inverse(torch.from_numpy(EIGHT / np.float32(255.0)))
    paint = Material(torch.tensor([[0.9, 0.8, 0.7]]), two_sided=True, albedo_texture=Texture(image[None], "clamp"))
    by_hand = Body(Mesh(torch.from_numpy(points)[None], torch.from_numpy(faces).int()), "paint", torch.from_numpy(uv))
    camera = LookAtCamera(32, 24)(torch.tensor([[1.6, -2.0, 1.2]]), torch.zeros(1, 3), fov=torch.tensor([0.7]))
    lights = [PointLight(torch.tensor([[2.0, -3.0, 4.0]]), torch.full((1, 3), 60.0))]
    render = PathRender(samples=8, depth=3)
    expected = render(Scene([by_hand], {"paint": paint}, lights), camera, FILM, seed=5)
    found = render(Scene(model.bodies, model.materials, lights), camera, FILM, seed=5)
    assert float(expected.amax()) > 0.3 and float((found - expected).abs().amax()) <= 1e-6 * float(expected.amax())


def test_parts_units_and_axes(tmp_path: Path) -> None:
    obj = (
        SQUARE + "o first thing\nusemtl red\nf 1 2 3\nusemtl blue\nf 1 3 4\n"
        "o second\nv 0 0 5\nusemtl red\nf 1 2 -1\no first thing\nf 4 \\\n 1 5\n"
    )
    model = quiet(
        written(tmp_path, obj, "newmtl red\nKd 1 0 0\nnewmtl blue\nKd 0 0 1\nnewmtl unused\nd 0.5\n"), unit="cm", up="y"
    )
    assert model.names == ["first thing (red)", "first thing (blue)", "second"] and set(model.materials) == {"red", "blue"}
    assert [len(body.mesh.faces) for body in model.bodies] == [2, 1, 1]
    assert torch.allclose(model.bodies[2].mesh.vertices[0, 2], torch.tensor([0.0, -0.05, 0.0]))  # (0, 0, 5) cm, y up
    assert model.bodies[0].mesh.vertices.shape[1] == 5 and model.materials["red"].two_sided


def area(body: Body) -> float:
    a, b, c = body.mesh.vertices[0][body.mesh.faces.long()].unbind(1)
    return float(torch.linalg.cross(b - a, c - a)[:, 2].sum()) / 2.0  # with its sign


@pytest.mark.parametrize("turn", range(5))
def test_polygons_become_fans_also_where_they_are_concave(tmp_path: Path, turn: int) -> None:
    points = [(0, 0), (2, 0), (2, 2), (1, 0.5), (0, 2)]  # an M: one corner points inwards
    order = [str((k + turn) % 5 + 1) for k in range(5)]
    obj = "".join(f"v {x} {y} 0\n" for x, y in points) + f"f {' '.join(order)}\n"
    with pytest.warns(UserWarning, match="without a material"):
        (body,) = read_obj_scene(written(tmp_path, obj)).bodies
    a, b, c = body.mesh.vertices[0][body.mesh.faces.long()].unbind(1)
    assert len(body.mesh.faces) == 3 and area(body) == pytest.approx(2.5)
    assert bool((torch.linalg.cross(b - a, c - a)[:, 2] > 0.0).all())  # nothing is covered twice


def test_phong_and_physical_materials(tmp_path: Path) -> None:
    plain = material(tmp_path, "Kd 0.2 0.3 0.4\nKa 1 1 1\nNi 1.45\nd 1.0\nillum 1\nKs 0.5 0.5 0.5\nNs 250\n")
    assert plain.kind == DIFFUSE and torch.allclose(plain.albedo, torch.tensor([[0.2, 0.3, 0.4]])) and plain.emission is None
    with pytest.warns(UserWarning, match="exponent Ns"):
        shiny = material(tmp_path, "Kd 0 0 0\nKs 0.8 0.7 0.6\nNs 48\nillum 2\n")
    assert shiny.kind == CONDUCTOR and not shiny.schlick and float(shiny.alpha) == pytest.approx(0.2)
    assert torch.allclose(shiny.albedo, torch.tensor([[0.8, 0.7, 0.6]]))
    with pytest.warns(UserWarning, match=r"\(Ks\) are left out"):
        assert material(tmp_path, "Kd 0.1 0.1 0.1\nKs 0.4 0.4 0.4\nNs 1\n").kind == DIFFUSE
    with pytest.warns(UserWarning, match=r"\(Kd\) below a tenth"):
        assert material(tmp_path, "Kd 0.05 0.05 0.05\nKs 0.9 0.9 0.9\nillum 3\n").kind == CONDUCTOR
    metal = material(tmp_path, "Kd 0.9 0.6 0.3\nPm 1\nPr 0.5\nKs 0.5 0.5 0.5\nillum 3\n")
    assert metal.kind == CONDUCTOR and metal.schlick and float(metal.alpha) == pytest.approx(0.25)
    with pytest.warns(UserWarning, match="front side only"):
        lamp = material(tmp_path, "Kd 0 0 0\nKe 5 4 3\n")
    with pytest.warns(UserWarning, match="Tr 1 without d"):
        assert material(tmp_path, "Kd 1 1 1\nTr 1.0\nillum 2\n").kind == DIFFUSE
    assert lamp.emission is not None and lamp.emission.tolist() == [[5.0, 4.0, 3.0]]


def test_maps_are_srgb_but_for_roughness(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Kd 0 beside a map counts as 1"):
        textured = material(tmp_path, "Kd 0 0 0\nmap_Kd photo.png\n")
    values = EIGHT / 255
    expected = np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    assert textured.albedo.tolist() == [[1.0] * 3] and textured.albedo_texture is not None
    assert np.allclose(textured.albedo_texture.image[0].numpy(), expected, atol=1e-6)
    cv2.imwrite(str(tmp_path / "rough.png"), np.array([[51, 102]], np.uint8))
    rough = material(tmp_path, "Kd 1 1 1\nPm 1\nmap_Pr -s 1 1 1 rough.png\n")
    assert rough.alpha_texture is not None
    assert torch.allclose(float(rough.alpha) * rough.alpha_texture.image.flatten(), torch.tensor([0.04, 0.16]), atol=1e-6)
    with pytest.warns(UserWarning, match="front side only"):
        glow = material(tmp_path, "Kd 0 0 0\nKe 2 2 2\nmap_Ke photo.png\n")
    assert glow.emission_texture is not None and glow.albedo_texture is None


def test_gradient_reaches_vertices_and_texture_of_a_model(tmp_path: Path) -> None:
    model = read_obj_scene(written(tmp_path, cube_quads("usemtl paint\n"), "newmtl paint\nKd 1 1 1\nmap_Kd photo.png\n"))
    body, paint = model.bodies[0], model.materials["paint"]
    vertices = body.mesh.vertices.clone().requires_grad_()
    texels = paint.albedo_texture.image.clone().requires_grad_()
    scene = Scene(
        [body._replace(mesh=body.mesh._replace(vertices=vertices))],
        {"paint": paint._replace(albedo_texture=Texture(texels))},
        [PointLight(torch.tensor([[2.0, -3.0, 4.0]]), torch.full((1, 3), 60.0))],
    )  # fmt: skip
    camera = LookAtCamera(32, 24)(torch.tensor([[1.6, -2.0, 1.2]]), torch.zeros(1, 3), fov=torch.tensor([0.7]))
    image = PathRender(samples=64, depth=2)(scene, camera, FILM)
    image.sum().backward()
    assert float((texels.grad * texels).sum()) == pytest.approx(float(image.detach().sum()), rel=0.02)  # linear in the texture
    assert bool(torch.isfinite(vertices.grad).all()) and float(vertices.grad.abs().amax()) > 0.0


def test_a_scene_file_imports_it(tmp_path: Path) -> None:
    written(tmp_path, cube_quads("usemtl paint\n"), "newmtl paint\nKd 0.5 0.5 0.5\nbump photo.png\n")
    scene = tmp_path / "scene.yaml"
    scene.write_text(
        "import: {file: model.obj, unit: 2, up: z, leave_out: [normal map]}\n"
        "camera: {position: [0, -6, 0], target: [0, 0, 0], fov: 30}\nfilm: {width: 16, height: 12}\nenvironment: 1.0\n"
        "render: {samples: 4, depth: 2}\n"
    )
    with pytest.warns(UserWarning, match="normal map left out"):
        RenderFile(str(scene), out=str(tmp_path / "a.npz"), aov="mask", progress=False).run()
    mask = np.load(tmp_path / "a.npz")["mask"]
    size = 2.0 / (2.0 * 5.0 * math.tan(math.radians(15.0))) * 16.0  # 2 m across, 5 m away, on 16 px
    assert float(mask.sum()) == pytest.approx(size**2, rel=0.03)
    scene.write_text(scene.read_text().replace("camera: {position: [0, -6, 0], target: [0, 0, 0], fov: 30}\n", ""))
    with pytest.raises(UserError, match=r"camera: expected the name of a camera of the file, \(there are none\), got nothing"):
        RenderFile(str(scene), out=str(tmp_path / "b.npz")).run()


@pytest.mark.parametrize(
    ("statements", "feature"),
    [
        ("d 0.5\n", "transparency"),
        ("Tr 0.5\n", "transparency"),
        ("map_d photo.png\n", "transparency"),
        ("illum 7\n", "transparency"),
        ("illum 10\n", "illumination model"),
        ("Pc 0.5\n", "illumination model"),
        ("map_Bump -bm 0.2 photo.png\n", "normal map"),
        ("refl -type sphere photo.png\n", "reflection map"),
        ("map_Kd -s 2 2 2 photo.png\n", "texture option"),
        ("map_Kd -imfchan r photo.png\n", "texture option"),
        ("Pm 0.5\n", "mixed metalness"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line_or_left_out_by_name(tmp_path: Path, statements: str, feature: str) -> None:
    with pytest.raises(Unsupported) as error:
        material(tmp_path, statements)
    assert feature in str(error.value) and "leave_out" in str(error.value) and "\n" not in str(error.value)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        material(tmp_path, statements, leave_out=[feature])
    assert any(f"{feature} left out" in str(entry.message) for entry in said)


@pytest.mark.parametrize(
    ("obj", "mtl", "expected"),
    [
        (SQUARE + "f 1 2\n", None, "line 5: expected a face of at least 3 corners, got 2"),
        (SQUARE + "f 1\n", None, "line 5: expected a face of at least 3 corners, got 1"),
        (SQUARE + "f 1 2 9\n", None, "line 5: expected numbers of v in 1..4, got 9"),
        (SQUARE + "f 1 2 -5\n", None, "line 5: expected numbers of a vertex or face, got 'f 1 2 -5'"),
        (SQUARE + "f 1 2 0\n", None, "line 5: expected numbers of a vertex or face"),
        (SQUARE + "f 1 2 x\n", None, "line 5: expected numbers of a vertex or face"),
        (SQUARE + "f /1 2 3\n", None, "line 5: expected numbers of a vertex or face"),
        (SQUARE + "f 1/1 2/1 3/1\n", None, "line 5: expected numbers of vt in 1..0, got 1"),
        ("v 0 0\n", None, "line 1: expected numbers of a vertex or face"),
        (SQUARE + "v 0 0 nan\nf 1 2 5\n", None, "expected finite vertices"),
        (SQUARE, None, "expected at least one face, got none"),
        ("", None, "expected at least one face, got none"),
        (SQUARE + "f 1 1 2\n", None, "expected faces with an area, got none with one"),
        (ZIGZAG, None, "expected a polygon that a fan of triangles covers, got 8 corners"),
        ("mtllib none.mtl\n" + SQUARE, None, "line 1: expected the material file"),
        (SQUARE + "usemtl red\nf 1 2 3\n", None, "line 5: expected a material of (there are none"),
        (SQUARE + "usemtl rad\nf 1 2 3\n", "newmtl red\n", "got 'rad'; did you mean 'red'?"),
        (SQUARE + "usemtl red\nf 1 2 3\n", "Kd 1 1 1\n", "line 1: expected newmtl first"),
        (SQUARE + "usemtl red\nf 1 2 3\n", "newmtl red\nKd 1 x 1\n", "Kd: expected 3 numbers of at least 0"),
        (SQUARE + "usemtl red\nf 1 2 3\n", "newmtl red\nKd 1 2 1\n", "expected 3 numbers from 0 to 1"),
        (SQUARE + "usemtl red\nf 1 2 3\n", "newmtl red\nKd -1 2 1\n", "Kd: expected 3 numbers of at least 0"),
        (SQUARE + "usemtl red\nf 1 2 3\n", "newmtl red\nmap_Kd none.png\n", "map_Kd: image file"),
        (SQUARE + "usemtl red\nf 1 2 3\n", "newmtl red\nmap_Kd -clamp on\n", "expected the name of an image"),
        (SQUARE + "usemtl red\nf 1 2 3\n", "newmtl red\nmap_Kd photo.png\n", "line 7: expected texture coordinates"),
    ],
)  # fmt: skip
def test_broken_files_are_refused_in_one_line(tmp_path: Path, obj: str, mtl: str | None, expected: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(UserError) as error:
            read_obj_scene(written(tmp_path, obj, mtl))
    assert expected in str(error.value) and "\n" not in str(error.value), str(error.value)


def test_curves_spectra_lines_and_missing_files(tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match="surf is not supported"):
        read_obj_scene(written(tmp_path, SQUARE + "surf 0 1 0 1 1 2 3 4\n"))
    with pytest.raises(Unsupported, match="spectral"):
        material(tmp_path, "Kd spectral file.rfl\n")
    with pytest.raises(Unsupported, match="points and lines"):
        read_obj_scene(written(tmp_path, SQUARE + "f 1 2 3\nl 1 2\n"))
    missing = written(tmp_path, "mtllib none.mtl\n" + SQUARE + "usemtl red\nf 1 2 3\n")
    with pytest.warns(UserWarning, match="material file left out"):
        assert list(read_obj_scene(missing, leave_out=["material file"]).materials) == ["red"]
    with pytest.raises(UserError, match="expected a file, found none"):
        read_obj_scene(tmp_path / "none.obj")
    with pytest.warns(UserWarning, match="not understood"):
        read_obj_scene(written(tmp_path, SQUARE + "f 1 2 3\nnonsense\n"))
