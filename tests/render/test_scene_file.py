"""render/scene_file.py, scene_shapes.py, scene_values.py: what a scene file says, and every wrong one in one line."""

import copy
import math
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml

from dvc.cli_errors import one_line
from dvc.cli_render import scenes
from dvc.errors import UserError
from render.camera import focal_from_fov
from render.image_file import write_png
from render.render_file import RenderFile, scaled_film
from render.scene import Ball, Body, DirectionalLight, Plane, PointLight
from render.scene_file import SECTIONS, SceneFile, read_scene

BASE: dict[str, Any] = {
    "camera": {"position": [0, -3, 0.5], "target": [0, 0, 0], "fov": 40},
    "film": {"width": 32, "height": 24, "filter": "tent"},
    "render": {"samples": 4, "depth": 2, "exposure": 0.5},
    "textures": {
        "checks": {"checker": [2, 2], "colours": [0.1, [0.9, 0.8, 0.7]]},
        "photo": {"file": "photo.png", "wrap": "clamp"},
    },
    "materials": {
        "clay": {"albedo": [0.7, 0.4, 0.3]},
        "tiles": {"albedo_texture": "checks"},
        "brass": {"kind": "conductor", "albedo": 0.9, "alpha": 0.2, "schlick": True},
        "lamp": {"albedo": 0, "emission": 5.0, "two_sided": True},
    },
    "bodies": [
        {"mesh": "tetra.obj", "material": "clay", "position": [1, 0, 0], "rotation": [0, 0, 90], "scale": 2.0},
        {"name": "wall", "rectangle": [2, 1], "material": "tiles"},
        {"box": [1, 2, 3], "material": "tiles", "rotation": [0, 90, 0]},
        {"icosphere": 0.5, "subdivisions": 1, "material": "brass"},
        {"sphere": 0.5, "material": "lamp", "position": [0, 0, 2], "scale": 2},
        {"plane": 0.5, "material": "tiles", "position": [0, 0, -1], "rotation": [90, 0, 0]},
    ],
    "lights": [{"position": [0, 0, 3], "intensity": 10.0}, {"direction": [0, 0, -1], "irradiance": [1, 2, 3]}],
    "environment": 0.1,
}  # fmt: skip


def written(folder: Path, content: Any) -> Path:
    (folder / "tetra.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nv 0 0 1\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n")
    write_png(folder / "photo.png", torch.full((2, 2, 3), 0.5))
    path = folder / "scene.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def changed(**sections: Any) -> dict[str, Any]:
    content = copy.deepcopy(BASE)
    content.update(sections)
    return content


def test_everything_arrives(tmp_path: Path) -> None:
    file = read_scene(written(tmp_path, BASE))
    assert isinstance(file, SceneFile) and (file.samples, file.depth, file.exposure, file.pixel_filter) == (4, 2, 0.5, "tent")
    assert file.names == ["body 0", "wall", *(f"body {i}" for i in range(2, 6))]
    assert [type(body) for body in file.scene.bodies] == [Body, Body, Body, Body, Ball, Plane]
    mesh, wall, box, _, ball, plane = file.scene.bodies
    assert torch.allclose(mesh.mesh.vertices[0, 1], torch.tensor([1.0, 2.0, 0.0]), atol=1e-6)  # x scaled, turned to y, moved
    assert mesh.uv is None and wall.uv.shape == (2, 3, 2)
    assert torch.allclose(box.mesh.vertices[0].amax(0), torch.tensor([1.5, 1.0, 0.5]), atol=1e-6)
    assert set(box.uv.flatten().tolist()) == {0.0, 1.0} and all(len(torch.unique(face, dim=0)) == 3 for face in box.uv)
    assert float(ball.radius) == 1.0
    normal = torch.linalg.cross(plane.corners[0, 1] - plane.corners[0, 0], plane.corners[0, 2] - plane.corners[0, 0])
    assert torch.allclose(normal, torch.tensor([0.0, -0.25, 0.0]), atol=1e-6)
    assert [type(light) for light in file.scene.lights] == [PointLight, DirectionalLight]
    assert file.scene.environment.tolist() == [[pytest.approx(0.1)] * 3]
    assert float(file.camera.focal) == pytest.approx(float(focal_from_fov(torch.tensor(math.radians(40)), 32)))
    assert file.scene.materials["brass"].schlick and file.scene.materials["lamp"].two_sided
    assert file.scene.materials["tiles"].albedo.tolist() == [[1.0, 1.0, 1.0]]


def test_closed_shapes_face_outwards_even_mirrored(tmp_path: Path) -> None:
    bodies = [
        {"mesh": "tetra.obj", "material": "clay", "scale": [1, 1, -1]},
        {"box": [1, 1, 1], "material": "tiles", "scale": -2},
    ]
    for body in read_scene(written(tmp_path, changed(bodies=bodies))).scene.bodies:
        a, b, c = body.mesh.vertices[0][body.mesh.faces.long()].unbind(1)
        assert float((a * torch.linalg.cross(b, c)).sum()) > 0.0  # six times the volume


def test_textures_come_from_files_through_the_srgb_curve(tmp_path: Path) -> None:
    materials = {"photo": {"albedo_texture": "photo", "albedo": 0.5}}
    bodies = [{"rectangle": [1, 1], "material": "photo"}]
    material = read_scene(written(tmp_path, changed(materials=materials, bodies=bodies))).scene.materials["photo"]
    assert material.albedo_texture is not None and material.albedo_texture.wrap == "clamp"
    assert float((material.albedo_texture.image - 0.5).abs().max()) < 3e-3


def test_cameras_of_raw_numbers(tmp_path: Path) -> None:
    raw = {"position": [0, -3, 0], "rotation": [[1, 0, 0], [0, 0, -1], [0, 1, 0]], "focal": [30, 31], "center": [15, 12]}
    camera = read_scene(written(tmp_path, changed(camera=raw | {"distortion": [0.1, 0, 0, 0, 0]}))).camera
    assert camera.focal.tolist() == [[30.0, 31.0]] and camera.distortion.shape == (1, 5) and not camera.orthographic
    raw = {"position": [0, -3, 0], "target": [0, 0, 0], "pixels_per_metre": 10}
    assert read_scene(written(tmp_path, changed(camera=raw))).camera.orthographic


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        (["camera"], {"position": [0, 0, 1]}, "camera: expected exactly one of target, rotation"),
        (["camera", "fov"], 200, "camera.fov: expected a number above 0 and at most 179, got 200"),
        (["camera", "focal"], 10, "camera: expected exactly one of fov, focal, pixels_per_metre, got fov, focal"),
        (["camera", "target"], [0, -3, 0.5], "look_at"),
        (["camera", "positon"], [0, 0, 0], "camera: no key 'positon'; did you mean 'position'?"),
        (["film", "width"], 0, "film.width: expected a whole number of at least 1, got 0"),
        (["film", "width"], 100000, "film: expected at most"),
        (["film", "filter"], "bx", "film.filter: expected one of box, tent, gaussian, got 'bx'; did you mean 'box'?"),
        (["bodys"], [], "scene: no key 'bodys'; did you mean 'bodies'?"),
        (["bodies"], {}, "bodies: expected a list"),
        (["bodies"], [], "expected at least one body"),
        (["bodies", 0, "mesh"], "none.obj", "none.obj': expected a file"),
        (["bodies", 0, "mesh"], "photo.png", "expected one of .glb"),
        (["bodies", 0, "material"], "claay", "bodies[0].material: expected one of brass, clay, lamp, tiles, got 'claay'"),
        (["bodies", 0, "material"], "tiles", "bodies[0] (mesh): expected texture coordinates"),
        (["bodies", 4, "material"], "tiles", "bodies[4] (sphere): expected texture coordinates"),
        (["bodies", 0, "scale"], 0, "bodies[0].scale: expected numbers other than 0"),
        (["bodies", 4, "scale"], [1, 2, 1], "bodies[4].scale: expected one positive number"),
        (["bodies", 1, "box"], [1, 1, 1], "bodies[1]: expected exactly one of mesh, box"),
        (["bodies", 1, "subdivisions"], 2, "bodies[1] (rectangle): no key 'subdivisions'"),
        (["bodies", 2, "box"], [1, -1, 1], "bodies[2].box: expected positive sizes"),
        (["bodies", 3, "subdivisions"], 12, "bodies[3].subdivisions: expected at most 8"),
        (["bodies", 1, "rotation"], "90", "bodies[1].rotation: expected 3 numbers as [0, 0, 0], got '90'"),
        (["materials", "clay", "albedo"], [2, 0, 0], "materials.clay.albedo: expected numbers from 0 to 1"),
        (["materials", "clay", "albedo"], "red", "materials.clay.albedo: expected a number of at least 0, got 'red'"),
        (["materials", "clay", "alpha"], 0.2, "materials.clay.alpha: expected none, since the material is diffuse"),
        (["materials", "clay", "kind"], "glass", "materials.clay.kind: expected one of diffuse, conductor, got 'glass'"),
        (["materials", "brass", "alpha"], 0, "materials.brass.alpha: expected a number above 0"),
        (["materials", "tiles", "albedo_texture"], "cheks", "got 'cheks'; did you mean 'checks'?"),
        (["textures", "photo", "file"], "none.png", "none.png': expected a file, found none"),
        (["textures", "photo", "file"], "tetra.obj", "expected one of .png"),
        (["textures", "photo", "wrap"], "tile", "textures.photo.wrap: expected one of repeat, mirror, clamp"),
        (["textures", "checks", "checker"], [2], "textures.checks.checker: expected [columns, rows]"),
        (["lights", 0, "intensity"], None, "lights[0].intensity: expected a number of at least 0, got nothing"),
        (["lights", 1, "direction"], [0, 0, 0], "lights[1].direction: expected a direction"),
        (["environment"], -1.0, "environment: expected a number of at least 0, got -1.0"),
        (["render", "samples"], 2.5, "render.samples: expected a whole number of at least 1, got 2.5"),
    ],
)  # fmt: skip
def test_wrong_files_are_refused_in_one_line(tmp_path: Path, place: list, value: Any, expected: str) -> None:
    content = copy.deepcopy(BASE)
    node: Any = content
    for key in place[:-1]:
        node = node[key]
    node[place[-1]] = value
    path = written(tmp_path, content)
    with pytest.raises(UserError) as error:
        RenderFile(str(path), out=str(tmp_path / "x.png")).run()
    assert expected in str(error.value) and "\n" not in str(error.value), str(error.value)
    assert not (tmp_path / "x.png").exists()


def test_yaml_that_is_none_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "scene.yaml"
    path.write_text("camera: {position: [0, 0, 1}\n")
    with pytest.raises(UserError, match="line 1"):
        read_scene(path)
    with pytest.raises(UserError, match="expected a file"):
        read_scene(tmp_path / "none.yaml")


@pytest.mark.parametrize("content", ["- a\n", "a: [1,\nb: }", "a:\n\t- b", "? [a, b]\n: c"])
def test_a_file_that_is_no_mapping_ends_the_command_with_one_line(tmp_path: Path, content: str) -> None:
    (tmp_path / "bad.yaml").write_text(content)
    with pytest.raises(UserError) as caught:
        read_scene(tmp_path / "bad.yaml")
    line = one_line(caught.value)
    assert line.count("bad.yaml") == 1 and "\n" not in line


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (
            "camera: {fov: 40}\nfilm: {}\ncamera: {fov: 50}\n",
            "line 3: expected each key once, got 'camera' again (first in line 1)",
        ),
        ("materials:\n  clay: {albedo: 0.5}\n  clay: {albedo: 0.6}\n", "line 3: expected each key once, got 'clay' again"),
        ("materials: {1: {albedo: 0.5}, '1': {albedo: 0.6}}\n", "line 1: expected each key once, got '1' again"),
        ("bodies:\n- sphere: 1\n  material: m\n  sphere: 2\n", "line 4: expected each key once, got 'sphere' again"),
    ],
)
def test_keys_that_are_there_twice_are_named_with_their_lines(tmp_path: Path, content: str, expected: str) -> None:
    path = tmp_path / "scene.yaml"
    needed = {"camera": "{}", "materials": "{}", "bodies": "[]"}
    path.write_text(content + "".join(f"{key}: {value}\n" for key, value in needed.items() if key not in content))
    with pytest.raises(UserError) as caught:
        read_scene(path)
    assert expected in str(caught.value) and "\n" not in str(caught.value) and str(caught.value).count("scene.yaml") == 1


def test_an_anchor_that_is_used_twice_is_no_doubled_key(tmp_path: Path) -> None:
    path = written(tmp_path, {})
    path.write_text(
        "camera: {position: [0, -3, 0.5], target: [0, 0, 0], fov: 40}\nmaterials: {a: &clay {albedo: 0.5}, b: *clay}\n"
        "bodies: [{sphere: 1, material: a}, {sphere: 1, material: b}]\n"
    )
    assert set(read_scene(path).scene.materials) == {"a", "b"}


def test_a_film_that_is_too_large_for_a_command(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="width, height: expected at most 16384 pixels a side, got 100000 x 75000"):
        RenderFile(str(written(tmp_path, BASE)), out=str(tmp_path / "x.png"), width=100000).run()


def test_a_black_picture_is_one_line_of_the_command(tmp_path: Path) -> None:
    dark = changed(lights=[], environment=None, bodies=[{"sphere": 1, "material": "clay"}])
    given = ["render", str(written(tmp_path, dark)), f"out={tmp_path / 'x.png'}", "samples=66", "device=cpu"]
    code = f"import sys; from dvc.cli import entry; sys.argv = ['diffvc', *{given!r}]; entry()"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    (line,) = [line for line in run.stderr.splitlines() if "black" in line]
    assert line.startswith("diffvc: warning: PathRender: view 0 (1 of 1) is black") and ".py:" not in run.stderr
    assert (tmp_path / "x.png").exists()


def test_the_file_of_the_documentation_is_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "rendering.md").read_text()
    (block,) = re.findall(r"```yaml\n(.*?)```", page, flags=re.S)
    path = written(tmp_path, {})
    (tmp_path / "tetra.obj").rename(tmp_path / "bunny.obj")
    cv2.imwrite(str(tmp_path / "wood.jpg"), np.full((4, 4, 3), 128, np.uint8))
    path.write_text(block)
    file = read_scene(path)
    assert len(file.scene.bodies) == 5 and file.names[0] == "bunny" and file.film.columns == 640
    table = page[page.index("| section | keys |") :]
    for section in SECTIONS[1:]:
        assert f"| `{section}` |" in table


def test_films_keep_their_proportions(tmp_path: Path) -> None:
    film = read_scene(written(tmp_path, BASE)).film
    half = scaled_film(film, 16, None)
    assert (half.columns, half.rows, half.scale, half.width) == (16, 12, 0.5, 32)
    assert scaled_film(film, None, 48).columns == 64 and scaled_film(film, 64, 48).rows == 48
    with pytest.raises(UserError, match="proportions"):
        scaled_film(film, 64, 64)


@pytest.mark.parametrize("name", ["cornell_box", "textured"])
def test_scenes_of_the_package_are_read(name: str) -> None:
    assert set(scenes()) >= {"cornell_box", "textured"}
    assert len(read_scene(scenes()[name]).scene.bodies) > 5
