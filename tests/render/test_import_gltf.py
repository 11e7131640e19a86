"""render/import_gltf.py, gltf_file.py, gltf_materials.py, imported.py: what a glTF file holds arrives, the rest in one line."""

import base64
import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from dvc.errors import Unsupported, UserError
from dvc.records import Film, Mesh
from render.camera import LookAtCamera, project
from render.import_gltf import read_gltf_scene
from render.imported import film_camera
from render.path_render import PathRender
from render.render_file import RenderFile
from render.response import srgb_inverse
from render.scene import CONDUCTOR, Body, DirectionalLight, Material, PointLight, Scene, Texture
from tests.render.gltf_files import Gltf, cube, diffuse, png

FILM = Film(32, 24, 0.0, 0.0, 32, 24, 1.0)
HALF_TURN = math.sqrt(0.5)
EIGHT = np.random.default_rng(3).integers(0, 256, (4, 8, 3), dtype=np.uint8)  # a texture without symmetry


def z_up(points: np.ndarray) -> torch.Tensor:
    return torch.tensor(np.stack([points[:, 0], -points[:, 2], points[:, 1]], axis=1))


def lit(model: Any, light: torch.Tensor | None = None) -> Scene:
    return Scene(
        model.bodies, model.materials, [*model.lights, PointLight(torch.tensor([[2.0, -3.0, 4.0]]), torch.full((1, 3), 60.0))]
    )


def camera() -> Any:
    return LookAtCamera(32, 24)(torch.tensor([[1.6, -2.0, 1.2]]), torch.zeros(1, 3), fov=torch.tensor([0.7]))


def quiet(path: Path, **more: Any) -> Any:
    """The model, and no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_gltf_scene(path, **more)


@pytest.mark.parametrize("file", ["cube.glb", "cube.gltf", "beside.gltf"])
def test_a_cube_shows_what_the_same_scene_by_hand_shows(tmp_path: Path, file: str) -> None:
    made = Gltf()
    texture = made.texture(EIGHT, wrapS=33071, wrapT=33071)
    material = made.material(name="paint", **diffuse([0.9, 0.8, 0.7], pbr={"baseColorTexture": texture}))
    made.node(name="box", mesh=made.cube(material))
    model = quiet(made.write(tmp_path / file, file == "beside.gltf"))
    assert model.names == ["box"] and list(model.materials) == ["paint"]
    assert model.bodies[0].mesh.vertices.shape == (1, 8, 3)  # 24 in the file
    points, faces, uv = cube()
    image = srgb_inverse(torch.from_numpy(EIGHT.astype(np.float32) / 255.0))
    paint = Material(torch.tensor([[0.9, 0.8, 0.7]]), albedo_texture=Texture(image[None], "clamp"))
    corners = torch.tensor(np.stack([uv[:, 0], 1.0 - uv[:, 1]], axis=1))[torch.tensor(faces.astype(np.int64))]
    by_hand = Body(Mesh(z_up(points)[None], torch.tensor(faces.astype(np.int32))), "paint", corners)
    render = PathRender(samples=8, depth=3)
    expected = render(lit(model)._replace(bodies=[by_hand], materials={"paint": paint}), camera(), FILM, seed=5)
    found = render(lit(model), camera(), FILM, seed=5)
    assert float(expected.amax()) > 0.3 and float((found - expected).abs().amax()) <= 1e-6 * float(expected.amax())


def test_gradient_reaches_vertices_and_texture_of_a_model(tmp_path: Path) -> None:
    made = Gltf()
    material = made.material(name="paint", **diffuse([1, 1, 1], pbr={"baseColorTexture": made.texture(EIGHT)}))
    made.node(mesh=made.cube(material))
    model = quiet(made.write(tmp_path / "cube.glb"))
    body, paint = model.bodies[0], model.materials["paint"]
    render = PathRender(samples=64, depth=2)

    def total(shift: torch.Tensor, gain: torch.Tensor) -> torch.Tensor:
        moved = body._replace(mesh=body.mesh._replace(vertices=body.mesh.vertices + shift * torch.tensor([1.0, 0.0, 0.0])))
        painted = paint._replace(albedo_texture=paint.albedo_texture._replace(image=paint.albedo_texture.image * gain))
        scene = Scene([moved], {"paint": painted}, lit(model).lights)
        return (render(scene, camera(), FILM, seed=1) * torch.linspace(0.0, 1.0, 32)[:, None]).sum()

    shift, gain = torch.zeros(1, requires_grad=True), torch.ones(1, requires_grad=True)
    gradients = torch.autograd.grad(total(shift, gain), [shift, gain])
    with torch.no_grad():
        step = 0.02
        by_shift = (total(shift + step, gain) - total(shift - step, gain)) / (2 * step)
        by_gain = total(shift, gain)  # linear in the texture at depth 2
    assert float(gradients[0]) == pytest.approx(float(by_shift), rel=0.05)
    assert float(gradients[1]) == pytest.approx(float(by_gain), rel=0.02)


def test_nodes_turn_scale_mirror_and_follow_their_parents(tmp_path: Path) -> None:
    made = Gltf()
    mesh = made.cube()
    inner = made.node(False, name="inner", mesh=mesh, translation=[1.0, 0.0, 0.0], scale=[2.0, 1.0, -1.0])
    turn = [0.0, 0.0, HALF_TURN, HALF_TURN]  # a quarter about z
    made.node(name="outer", mesh=mesh, rotation=turn, translation=[0.0, 0.0, 5.0], children=[inner])
    made.node(name="by matrix", mesh=mesh, matrix=[1, 0, 0, 0, 0, 2, 0, 0, 0, 0, 3, 0, 7, 8, 9, 1])
    model = quiet(made.write(tmp_path / "nodes.glb"))
    assert model.names == ["outer", "inner", "by matrix"]
    points, _, _ = cube()
    points = points.astype(np.float64)
    rotation = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    outer = points @ rotation.T + [0.0, 0.0, 5.0]
    inner_points = (points * [2.0, 1.0, -1.0] + [1.0, 0.0, 0.0]) @ rotation.T + [0.0, 0.0, 5.0]
    matrix = points * [1.0, 2.0, 3.0] + [7.0, 8.0, 9.0]
    for body, expected in zip(model.bodies, (outer, inner_points, matrix)):
        found = body.mesh.vertices[0].numpy()
        wanted = np.unique(z_up(expected).numpy().round(5), axis=0)
        assert np.allclose(np.unique(found.round(5), axis=0), wanted, atol=1e-5)
        centre = found.mean(axis=0)
        a, b, c = (body.mesh.vertices[0] - torch.tensor(centre))[body.mesh.faces.long()].unbind(1)
        assert float((a * torch.linalg.cross(b, c)).sum()) > 0.0  # outwards, mirrored or not


numbers = st.floats(-2.0, 2.0, allow_subnormal=False)
sizes = st.floats(0.25, 3.0).flatmap(lambda size: st.sampled_from([size, -size]))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.tuples(*[numbers] * 4), st.tuples(*[sizes] * 3), st.tuples(*[numbers] * 3)), min_size=1, max_size=4)
)
def test_a_chain_of_nodes_is_the_product_of_its_matrices(tmp_path: Path, chain: list) -> None:
    """T R S one below the other, and as one matrix by SciPy's rotations; volumes stay positive however often it is mirrored."""
    made, whole = Gltf(), np.eye(4)
    below = made.node(False, mesh=made.cube(made.material(**diffuse([1, 1, 1]))))
    for above, (turn, scale, move) in reversed(list(enumerate(chain))):
        rotation = np.array(turn) + [0.0, 0.0, 0.0, 3.0]  # never near 0
        rotation /= np.linalg.norm(rotation)
        local = np.eye(4)
        local[:3, :3] = Rotation.from_quat(rotation).as_matrix() @ np.diag(scale)
        local[:3, 3] = move
        whole = local @ whole
        below = made.node(above == 0, children=[below], rotation=rotation.tolist(), scale=list(scale), translation=list(move))
    made.node(matrix=whole.T.flatten().tolist(), mesh=0)
    first, second = read_gltf_scene(made.write(tmp_path / "chain.gltf")).bodies
    size = float(first.mesh.vertices.abs().max())
    assert torch.allclose(first.mesh.vertices, second.mesh.vertices, atol=1e-5 * max(size, 1.0))
    assert torch.equal(first.mesh.faces, second.mesh.faces)
    a, b, c = (first.mesh.vertices[0].double() - first.mesh.vertices[0].double().mean(0))[first.mesh.faces.long()].unbind(1)
    volume = float((a * torch.linalg.cross(b, c)).sum()) / 6.0
    assert volume == pytest.approx(abs(np.linalg.det(whole[:3, :3])), rel=1e-3)


def test_a_perspective_camera_sees_points_where_its_matrix_puts_them(tmp_path: Path) -> None:
    made = Gltf()
    made.node(mesh=made.cube(made.material(**diffuse([0.5, 0.5, 0.5]))))
    made.tree["cameras"] = [{"type": "perspective", "perspective": {"yfov": 0.6, "znear": 0.1, "aspectRatio": 4.0 / 3.0}}]
    turn = [math.sin(0.2), 0.0, 0.0, math.cos(0.2)]
    inner = made.node(False, name="eye", camera=0, rotation=turn, scale=[3.0, 3.0, 3.0])  # the scale is not the camera's
    made.node(translation=[0.5, -1.0, 6.0], children=[inner])
    model = quiet(made.write(tmp_path / "camera.gltf"))
    found = film_camera(model.cameras["eye"], Film(640, 480, 0.0, 0.0, 640, 480, 1.0))
    points = np.array([[0.0, 0.0, 0.0], [0.4, 0.3, -2.0], [-1.0, 0.8, 1.0]])
    cos, sin = math.cos(0.4), math.sin(0.4)
    to_eye = np.array([[1, 0, 0], [0, cos, sin], [0, -sin, cos]])  # the node's rotation, transposed
    seen = (points - [0.5, -1.0, 6.0]) @ to_eye.T
    lens = np.stack([seen[:, 0] / -seen[:, 2] / math.tan(0.3) / (4.0 / 3.0), seen[:, 1] / -seen[:, 2] / math.tan(0.3)], axis=1)
    pixels = np.stack(
        [320 + 320 * lens[:, 0], 240 - 240 * lens[:, 1]], axis=1
    )  # the viewport transform of normalised coordinates
    assert np.allclose(project(found, z_up(points)[None].float())[0].numpy(), pixels, atol=2e-3)
    wide = film_camera(model.cameras["eye"], Film(1000, 480, 0.0, 0.0, 1000, 480, 1.0))
    tall = film_camera(model.cameras["eye"], Film(640, 1000, 0.0, 0.0, 640, 1000, 1.0))
    assert float(wide.focal) == pytest.approx(float(found.focal)) and float(tall.focal) == pytest.approx(float(found.focal))


def test_an_orthographic_camera_has_its_size(tmp_path: Path) -> None:
    made = Gltf()
    made.node(mesh=made.cube(made.material(**diffuse([0.5, 0.5, 0.5]))))
    made.tree["cameras"] = [{"type": "orthographic", "orthographic": {"xmag": 2.0, "ymag": 1.5, "znear": 0.1, "zfar": 9.0}}]
    made.node(camera=0, translation=[0.0, 0.0, 4.0])
    model = quiet(made.write(tmp_path / "camera.gltf"))
    found = film_camera(model.cameras["camera 0"], FILM)
    assert found.orthographic and float(found.focal) == pytest.approx(8.0)  # 24 px for 3 m
    points = z_up(np.array([[2.0, 1.5, 0.0], [-2.0, -1.5, 1.0]]))[None].float()
    assert torch.allclose(project(found, points), torch.tensor([[[32.0, 0.0], [0.0, 24.0]]]), atol=1e-4)
    scene = lit(model)
    image = PathRender(samples=16, depth=2)(scene, found, FILM)
    covered = (image[0].amax(dim=2) > 0.0).float()
    assert float(covered.sum()) == 64.0 and bool((covered[8:16, 12:20] == 1.0).all())  # a cube of 1 m


def test_lights_come_with_their_nodes(tmp_path: Path) -> None:
    made = Gltf()
    made.node(mesh=made.cube(made.material(**diffuse([0.5, 0.5, 0.5]))))
    lights = [
        {"type": "point", "intensity": 5.0, "color": [1.0, 0.5, 0.0]},
        {"type": "directional", "intensity": 2.0},
    ]
    made.tree["extensions"] = {"KHR_lights_punctual": {"lights": lights}}
    made.node(translation=[1.0, 2.0, 3.0], extensions={"KHR_lights_punctual": {"light": 0}})
    made.node(rotation=[-HALF_TURN, 0, 0, HALF_TURN], scale=[2, 2, 2], extensions={"KHR_lights_punctual": {"light": 1}})
    point, sun = quiet(made.write(tmp_path / "lights.gltf")).lights
    assert isinstance(point, PointLight) and point.position.tolist() == [[1.0, -3.0, 2.0]]
    assert point.intensity.tolist() == [[5.0, 2.5, 0.0]]
    assert isinstance(sun, DirectionalLight) and torch.allclose(sun.direction, torch.tensor([[0.0, 0.0, -1.0]]), atol=1e-6)
    assert sun.irradiance.tolist() == [[2.0] * 3]


def test_metal_roughness_emission_and_colours_arrive(tmp_path: Path) -> None:
    made = Gltf()
    surface = np.zeros((2, 2, 3), np.uint8)
    surface[..., 1], surface[..., 2] = [[51, 102], [153, 204]], 255  # roughness 0.2 .. 0.8, metal
    metal = made.material(name="metal", doubleSided=True, pbrMetallicRoughness={
        "baseColorFactor": [0.9, 0.6, 0.3, 1.0], "roughnessFactor": 0.5,
        "metallicRoughnessTexture": made.texture(surface, wrapS=33648, wrapT=33648),
    })  # fmt: skip
    glow = made.material(name="glow", **diffuse(
        [0, 0, 0], emissiveFactor=[1.0, 0.5, 0.0], emissiveTexture=made.texture(EIGHT),
        extensions={"KHR_materials_emissive_strength": {"emissiveStrength": 4.0}},
    ))  # fmt: skip
    points, faces, _ = cube()
    colours = np.random.default_rng(0).integers(0, 256, (24, 4), dtype=np.uint8)
    made.node(mesh=made.cube(metal))
    made.node(mesh=made.cube(glow))
    plain = made.material(name="plain", **diffuse([1, 1, 1]))
    made.node(mesh=made.mesh(points, faces, plain, COLOR_0=made.add(colours, normalized=True)))
    model = quiet(made.write(tmp_path / "materials.glb"))
    metal, glow = model.materials["metal"], model.materials["glow"]
    assert metal.kind == CONDUCTOR and metal.schlick and metal.two_sided and not glow.two_sided
    alpha = float(metal.alpha) * metal.alpha_texture.image[0, :, :, 0]
    assert torch.allclose(alpha, (0.5 * torch.tensor([[0.2, 0.4], [0.6, 0.8]])) ** 2, atol=1e-6)
    assert metal.alpha_texture.wrap == "mirror" and torch.allclose(metal.albedo, torch.tensor([[0.9, 0.6, 0.3]]))
    assert glow.emission.tolist() == [[4.0, 2.0, 0.0]]
    expected = np.where(EIGHT / 255 <= 0.04045, EIGHT / 255 / 12.92, ((EIGHT / 255 + 0.055) / 1.055) ** 2.4)
    assert np.allclose(glow.emission_texture.image[0].numpy(), expected, atol=1e-6)
    body = model.bodies[2]
    assert body.mesh.vertices.shape[1] == 24  # colours differ where points are the same
    corners = body.vertex_albedo[0][body.mesh.faces.long()]
    assert np.allclose(corners.numpy(), colours[faces.astype(int)][..., :3] / 255, atol=1e-6)


def specified_radiance(
    base: np.ndarray, roughness: float, metal: bool, n: np.ndarray, v: np.ndarray, light: np.ndarray
) -> np.ndarray:
    """Radiance under an irradiance of 1: the formulas of the specification's appendix B.3, term by term."""
    h = (v + light) / np.linalg.norm(v + light)
    nl, nv, nh, vh = n @ light, n @ v, n @ h, v @ h
    if not metal:
        return base / math.pi * nl
    alpha = roughness**2
    distribution = alpha**2 / (math.pi * (nh**2 * (alpha**2 - 1) + 1) ** 2)
    visibility = 1.0 / np.prod([x + math.sqrt(alpha**2 + (1 - alpha**2) * x**2) for x in (nl, nv)])
    return (base + (1 - base) * (1 - vh) ** 5) * visibility * distribution * nl


@pytest.mark.parametrize("metal", [True, False])
def test_surfaces_reflect_as_the_specification_says(tmp_path: Path, metal: bool) -> None:
    """A square in the plane z = 0 of the file, a sun of irradiance 3, an orthographic camera: one number, known exactly."""
    made = Gltf()
    base = np.array([0.9, 0.6, 0.3])
    pbr = {"baseColorFactor": [*base, 1.0], "metallicFactor": float(metal), "roughnessFactor": 0.6}
    paint = made.material(**diffuse([1, 1, 1], pbr=pbr), doubleSided=True)
    square = np.array([[-9, -9, 0], [9, -9, 0], [9, 9, 0], [-9, 9, 0]], np.float32)
    made.node(mesh=made.mesh(square, np.array([0, 1, 2, 0, 2, 3], np.uint8), paint))
    made.tree["extensions"] = {"KHR_lights_punctual": {"lights": [{"type": "directional", "intensity": 3.0}]}}
    made.tree["cameras"] = [{"type": "orthographic", "orthographic": {"xmag": 1.0, "ymag": 1.0, "znear": 0.0, "zfar": 99.0}}]
    angles = {"light": 0.7, "eye": -0.9}  # about y: both look along -z, turned
    for name, angle in angles.items():
        turned = {"name": name, "rotation": [0.0, math.sin(0.5 * angle), 0.0, math.cos(0.5 * angle)]}
        away = [4.0 * math.sin(angle), 0.0, 4.0 * math.cos(angle)]
        more = {"extensions": {"KHR_lights_punctual": {"light": 0}}} if name == "light" else {"camera": 0}
        made.node(translation=away, **turned, **more)
    model = quiet(made.write(tmp_path / "plane.gltf"))
    scene = Scene(model.bodies, model.materials, model.lights)
    film = Film(4, 4, 0.0, 0.0, 4, 4, 1.0)
    image = PathRender(samples=2, depth=2)(scene, film_camera(model.cameras["eye"], film), film)
    light, eye = (np.array([math.sin(angle), 0.0, math.cos(angle)]) for angle in angles.values())
    expected = 3.0 * specified_radiance(base, 0.6, metal, np.array([0.0, 0.0, 1.0]), eye, light)
    assert np.allclose(image[0].numpy(), expected, rtol=2e-5)


def test_images_beside_and_within_and_names_that_repeat(tmp_path: Path) -> None:
    made = Gltf()
    for uri in ("an%20image.png", "data:image/png;base64," + base64.b64encode(png(EIGHT)).decode()):
        made.tree["images"].append({"uri": uri})
        made.tree["textures"].append({"source": len(made.tree["images"]) - 1})
        texture = {"index": len(made.tree["textures"]) - 1}
        made.node(
            name="box", mesh=made.cube(made.material(name="paint", **diffuse([1, 1, 1], pbr={"baseColorTexture": texture})))
        )
    path = made.write(tmp_path / "model.gltf")
    with pytest.raises(UserError, match=r"expected the image 'an%20image\.png' beside it, found none"):
        read_gltf_scene(path)
    (tmp_path / "an image.png").write_bytes(png(EIGHT))
    model = quiet(path)
    assert model.names == ["box", "box 2"] and list(model.materials) == ["paint", "paint 2"]
    first, second = (material.albedo_texture for material in model.materials.values())
    assert torch.equal(first.image, second.image) and first.image.shape == (1, 4, 8, 3)


def test_vertices_stay_apart_where_joined_ones_would_make_edges_of_four_faces(tmp_path: Path) -> None:
    points, faces, _ = cube()
    made = Gltf()
    twice = np.concatenate([points, points + np.array([1.0, 1.0, 0.0], np.float32)])  # two cubes that share an edge
    material = made.material(**diffuse([0.5, 0.5, 0.5]))
    made.node(mesh=made.mesh(twice, np.concatenate([faces, faces + 24]), material))
    model = quiet(made.write(tmp_path / "two.glb"))
    assert model.bodies[0].mesh.vertices.shape == (1, 48, 3)
    assert float(PathRender(samples=4, depth=2)(lit(model), camera(), FILM).amax()) > 0.0


def test_coordinates_are_moved_as_the_extension_says(tmp_path: Path) -> None:
    """The example of KHR_texture_transform: the lower left quadrant of the image, turned clockwise by a quarter."""
    made = Gltf()
    moved = {"offset": [0, 1], "rotation": math.pi / 2, "scale": [0.5, 0.5]}
    texture = {**made.texture(EIGHT), "extensions": {"KHR_texture_transform": moved}}
    made.node(mesh=made.cube(made.material(**diffuse([1, 1, 1], pbr={"baseColorTexture": texture}))))
    uv = quiet(made.write(tmp_path / "moved.gltf")).bodies[0].uv
    assert uv.amin(dim=(0, 1)).tolist() == pytest.approx([0.0, 0.0], abs=1e-6)
    assert uv.amax(dim=(0, 1)).tolist() == pytest.approx([0.5, 0.5], abs=1e-6)
    _, faces, stored = cube()
    top_left = (stored[faces.astype(int)] == [0.0, 0.0]).all(axis=2)  # of the square that is covered
    assert torch.allclose(uv[torch.from_numpy(top_left)], torch.tensor([0.0, 0.0]), atol=1e-6)  # shows the bottom left


def test_strips_fans_and_bare_triangles(tmp_path: Path) -> None:
    square = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 1, 0]], np.float32)
    for mode, order in ((5, [0, 1, 2, 3]), (6, [0, 1, 3, 2]), (4, None)):
        made = Gltf()
        points = square if order is not None else square[[0, 1, 2, 1, 3, 2]]
        made.node(mesh=made.mesh(points, None if order is None else np.array(order, np.uint8)))
        made.tree["meshes"][0]["primitives"][0]["mode"] = mode
        with pytest.warns(UserWarning, match="not closed"):
            (body,) = read_gltf_scene(made.write(tmp_path / f"{mode}.glb")).bodies
        a, b, c = body.mesh.vertices[0][body.mesh.faces.long()].unbind(1)
        normals = torch.linalg.cross(b - a, c - a)
        assert torch.allclose(normals, torch.tensor([[0.0, -1.0, 0.0]] * 2)) and body.mesh.vertices.shape[1] == 4


def test_a_scene_file_imports_it_and_names_its_camera(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    made = Gltf()
    made.node(name="box", mesh=made.cube(made.material(name="paint", **diffuse([0.5, 0.5, 0.5]))))
    made.tree["cameras"] = [{"type": "perspective", "perspective": {"yfov": 0.6, "znear": 0.1}}]
    made.node(name="eye", camera=0, translation=[0.0, 0.0, 4.0])
    made.write(tmp_path / "model.glb")
    scene = tmp_path / "scene.yaml"
    scene.write_text(
        "import: model.glb\nfilm: {width: 16, height: 12}\nenvironment: 1.0\nrender: {samples: 4, depth: 2}\n"
        "bodies: [{plane: 1.0, material: paint, position: [0, 0, -0.5]}]\n"
    )
    for camera_line in ("", "camera: eye\n", "camera: {position: [0, -4, 0], target: [0, 0, 0], fov: 40}\n"):
        scene.write_text(scene.read_text() + camera_line)
        RenderFile(str(scene), out=str(tmp_path / "a.npz"), aov="instance", progress=False).run()
        assert "0 box, 1 body 0" in capsys.readouterr().out
        shown = np.load(tmp_path / "a.npz")
        assert shown["instance"][6, 8] == 0 and 0.0 < float(shown["image"][6, 8, 0]) < 1.0
        scene.write_text(scene.read_text().replace(camera_line, "") if camera_line else scene.read_text())
    for wrong, expected in (
        ("import: model.glb\ncamera: Eye\n", "expected the name of a camera of the file, 'eye', got 'Eye'"),
        ("import: none.glb\n", "expected a file, found none"),
        ("import: model.stl\n", "import.file: expected one of .obj, .gltf, .glb"),
        ("import: {file: model.glb, up: z}\n", "import.up: expected none"),
        ("import: {file: model.glb, leave_out: [norml map]}\n", "got 'norml map'; did you mean 'normal map'?"),
        ("camera: eye\nmaterials: {}\nbodies: []\n", "camera: expected settings by name"),
    ):
        scene.write_text(wrong)
        with pytest.raises(UserError) as error:
            RenderFile(str(scene), out=str(tmp_path / "b.png")).run()
        assert expected in str(error.value) and "\n" not in str(error.value)


def with_material(**given: Any) -> Gltf:
    made = Gltf()
    made.node(name="box", mesh=made.cube(made.material(name="paint", **given)))
    return made


def with_texture(values: np.ndarray, slot: str = "baseColorTexture", sampler: Any = None, **more: Any) -> Gltf:
    made = Gltf()
    pbr = {"pbr": {slot: made.texture(values, **(sampler or {}))}}
    made.node(name="box", mesh=made.cube(made.material(name="paint", **{**diffuse([1, 1, 1], **pbr), **more})))
    return made


def with_node(**given: Any) -> Gltf:
    made = with_material(**diffuse([1, 1, 1]))
    made.tree["nodes"][0].update(given)
    return made


def with_primitive(**given: Any) -> Gltf:
    made = with_material(**diffuse([1, 1, 1]))
    made.tree["meshes"][0]["primitives"][0].update(given)
    return made


def two_transforms() -> Gltf:
    made = Gltf()
    moved = {**made.texture(EIGHT), "extensions": {"KHR_texture_transform": {"scale": [2, 2]}}}
    given = diffuse([1, 1, 1], pbr={"baseColorTexture": made.texture(EIGHT)}, emissiveFactor=[1, 1, 1], emissiveTexture=moved)
    made.node(name="box", mesh=made.cube(made.material(name="paint", **given)))
    return made


def spot() -> Gltf:
    made = with_node(extensions={"KHR_lights_punctual": {"light": 0}})
    made.tree["extensions"] = {"KHR_lights_punctual": {"lights": [{"type": "spot", "spot": {}}]}}
    return made


HALF_METAL = np.full((2, 2, 3), 128, np.uint8)
SEEN_THROUGH = np.full((2, 2, 4), 128, np.uint8)


@pytest.mark.parametrize(
    ("made", "feature"),
    [
        (with_material(normalTexture={"index": 0}), "normal map"),
        (with_material(alphaMode="BLEND", pbrMetallicRoughness={"baseColorFactor": [1, 1, 1, 0.5]}), "transparency"),
        (with_texture(SEEN_THROUGH, alphaMode="BLEND"), "transparency"),
        (with_material(pbrMetallicRoughness={"metallicFactor": 0.5}), "mixed metalness"),
        (with_texture(HALF_METAL, "metallicRoughnessTexture", pbrMetallicRoughness={
            "metallicRoughnessTexture": {"index": 0}}), "mixed metalness"),
        (with_material(extensions={"KHR_materials_transmission": {"transmissionFactor": 1}}), "KHR_materials_transmission"),
        (with_material(extensions={"KHR_materials_unlit": {}}), "KHR_materials_unlit"),
        (with_texture(EIGHT, sampler={"wrapS": 33071}), "wraps"),
        (two_transforms(), "texture coordinates"),
        (with_node(skin=0), "skin"),
        (with_primitive(targets=[{}], **{"extras": 1}), None),
        (with_node(weights=[0.5]), None),
        (spot(), "spot light"),
    ],
)  # fmt: skip
def test_what_is_not_there_is_refused_in_one_line_or_left_out_by_name(tmp_path: Path, made: Gltf, feature: str | None) -> None:
    path = made.write(tmp_path / "model.glb")
    if feature is None:  # morph targets at rest, weights without targets
        read_gltf_scene(path)
        return
    with pytest.raises(Unsupported) as error:
        read_gltf_scene(path)
    assert feature in str(error.value) and "leave_out" in str(error.value) and "\n" not in str(error.value)
    with pytest.warns(UserWarning, match=f"{feature} left out"):
        assert len(read_gltf_scene(path, leave_out=[feature]).bodies) == 1


def test_morph_targets_points_and_extensions_are_refused(tmp_path: Path) -> None:
    made = with_primitive(targets=[{}])
    made.tree["nodes"][0]["weights"] = [0.5]
    lines = with_material(**diffuse([1, 1, 1]))
    lines.tree["meshes"][0]["primitives"].append({**lines.tree["meshes"][0]["primitives"][0], "mode": 1})
    required = with_material(**diffuse([1, 1, 1]))
    required.tree["extensionsRequired"] = ["EXT_something"]
    for file, feature in ((made, "morph targets"), (lines, "points and lines"), (required, "EXT_something")):
        path = file.write(tmp_path / "model.gltf")
        with pytest.raises(Unsupported, match=feature):
            read_gltf_scene(path)
        with pytest.warns(UserWarning, match=f"{feature} left out"):
            assert len(read_gltf_scene(path, leave_out=[feature]).bodies) == 1
    required.tree["extensionsRequired"] = ["KHR_draco_mesh_compression"]
    with pytest.raises(Unsupported, match="export without compression"):
        read_gltf_scene(required.write(tmp_path / "draco.glb"))
    sparse = with_material(**diffuse([1, 1, 1]))
    sparse.tree["accessors"][0]["sparse"] = {}
    with pytest.raises(Unsupported, match="sparse"):
        read_gltf_scene(sparse.write(tmp_path / "sparse.glb"))


def test_extensions_that_are_off_and_opaque_blending_pass(tmp_path: Path) -> None:
    off = {"KHR_materials_clearcoat": {"clearcoatFactor": 0.0}, "KHR_materials_transmission": {}}
    quiet(with_material(**diffuse([1, 1, 1], extensions=off)).write(tmp_path / "off.glb"))
    opaque = np.full((2, 2, 4), 255, np.uint8)
    quiet(with_texture(opaque, alphaMode="BLEND").write(tmp_path / "opaque.glb"))


def test_what_is_approximate_is_said(tmp_path: Path) -> None:
    points, faces, _ = cube()
    made = Gltf()
    smooth = made.add((points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32))
    made.node(name="ball", mesh=made.mesh(points, faces, made.material(**diffuse([1, 1, 1])), NORMAL=smooth))
    made.tree["animations"] = [{}]
    texts = said(made.write(tmp_path / "a.glb"))
    assert any("shaded flat (ball)" in text for text in texts) and any("animations" in text for text in texts)
    flat = Gltf()
    normals = flat.add(
        np.repeat([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0], [0, 0, 1], [0, 0, -1]], 4, axis=0).astype(np.float32)
    )
    mesh = flat.mesh(points, faces, flat.material(**diffuse([1, 1, 1])), NORMAL=normals)
    flat.node(scale=[1.0, -2.0, 3.0], children=[flat.node(False, mesh=mesh, rotation=[0.2, 0.4, 0.4, 0.8])])
    quiet(flat.write(tmp_path / "b.glb"))
    assert any(
        "without the reflection" in t
        for t in said(with_material(pbrMetallicRoughness={"metallicFactor": 0}).write(tmp_path / "c.glb"))
    )
    worn = with_material(pbrMetallicRoughness={"metallicFactor": 0.95})
    assert any("within 0.1 of 0 or 1" in t for t in said(worn.write(tmp_path / "f.glb")))
    mirror = with_material(pbrMetallicRoughness={"roughnessFactor": 0})
    assert any("roughness below" in t for t in said(mirror.write(tmp_path / "d.glb")))
    double = with_material(doubleSided=True, **diffuse([1, 1, 1], emissiveFactor=[1, 1, 1]))
    assert any("front side only" in t for t in said(double.write(tmp_path / "e.glb")))


def said(path: Path) -> list[str]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        read_gltf_scene(path)
    return [str(entry.message) for entry in found]


def spoilt(change: Any) -> Gltf:
    made = with_material(**diffuse([1, 1, 1]))
    change(made.tree)
    return made


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda tree: tree["meshes"][0]["primitives"][0].update(indices=99), "accessor"),
        (lambda tree: tree["nodes"][0].update(mesh=-1), "expected a number in 0..0 of meshes, got -1"),
        (lambda tree: tree["nodes"][0].update(children=[0]), "node 0: expected one parent"),
        (lambda tree: tree["nodes"][0].update(children=[7]), "of nodes, got 7"),
        (lambda tree: tree["nodes"][0].update(matrix=[1, 2]), "broken one"),
        (lambda tree: tree["nodes"][0].update(rotation=[0, 0, 0, 0]), "expected a unit quaternion"),
        (lambda tree: tree["nodes"][0].update(translation=[0, 0, float("nan")]), "finite"),
        (lambda tree: tree["accessors"][0].update(count=10**9), "truncated or damaged"),
        (lambda tree: tree["accessors"][1].update(type="VEC2"), "expected 3 numbers each, got VEC2"),
        (lambda tree: tree["accessors"][0].update(componentType=1), "broken one (KeyError: 1)"),
        (lambda tree: tree["accessors"][0].update(count=2), "expected 24 values"),
        (lambda tree: tree["bufferViews"][0].update(byteLength=10**9), "truncated"),
        (lambda tree: tree["bufferViews"][0].update(buffer=3), "of buffers, got 3"),
        (lambda tree: tree.update(scene=4), "of scenes, got 4"),
        (lambda tree: tree.update(scenes=[{"nodes": []}]), "expected at least one mesh"),
        (lambda tree: tree.update(asset={"version": "1.0"}), "expected glTF version 2, got 1.0"),
        (lambda tree: tree["materials"][0]["pbrMetallicRoughness"].update(baseColorFactor=[2, 0, 0, 1]), "from 0 to 1"),
        (lambda tree: tree["materials"][0]["pbrMetallicRoughness"].update(baseColorTexture={"index": 0}), "of textures"),
        (lambda tree: tree["materials"][0].update(emissiveFactor=["a"]), "expected 3 numbers"),
        (lambda tree: tree["meshes"][0].update(primitives=3), "broken one"),
    ],
)  # fmt: skip
def test_broken_files_are_refused_in_one_line(tmp_path: Path, change: Any, expected: str) -> None:
    with pytest.raises(UserError) as error:
        read_gltf_scene(spoilt(change).write(tmp_path / "model.gltf"))
    assert expected in str(error.value) and "\n" not in str(error.value) and "model.gltf" in str(error.value), str(error.value)


def test_damaged_bytes_are_refused_in_one_line(tmp_path: Path) -> None:
    points, faces, _ = cube()
    high, missing, uncoordinated, bad_image = Gltf(), with_material(**diffuse([1, 1, 1])), Gltf(), with_texture(EIGHT)
    high.node(mesh=high.mesh(points, faces + 20))
    missing.write(tmp_path / "missing.gltf", beside=True)
    (tmp_path / "its buffer.bin").unlink()
    paint = uncoordinated.material(name="paint", **diffuse([1, 1, 1], pbr={"baseColorTexture": uncoordinated.texture(EIGHT)}))
    uncoordinated.node(mesh=uncoordinated.mesh(points, faces, paint))
    view = bad_image.tree["bufferViews"][bad_image.tree["images"][0]["bufferView"]]
    start = view["byteOffset"]
    bad_image.content = bad_image.content[:start] + b"x" * view["byteLength"] + bad_image.content[start + view["byteLength"] :]
    whole = with_material(**diffuse([1, 1, 1])).write(tmp_path / "whole.glb").read_bytes()
    (tmp_path / "short.glb").write_bytes(whole[:-40])
    (tmp_path / "empty.glb").write_bytes(b"")
    (tmp_path / "text.gltf").write_text("{")
    (tmp_path / "list.gltf").write_text(json.dumps([1]))
    (tmp_path / "other.png").write_bytes(png(EIGHT))
    for path, expected in (
        (high.write(tmp_path / "high.glb"), "expected vertex numbers in 0..23, got 43"),
        (tmp_path / "missing.gltf", "expected its buffer 'its%20buffer.bin' beside it, found none"),
        (uncoordinated.write(tmp_path / "bare.glb"), "expected TEXCOORD_0, as material 'paint' has a texture"),
        (bad_image.write(tmp_path / "image.glb"), "expected image 0 as PNG or JPEG"),
        (tmp_path / "short.glb", "truncated"),
        (tmp_path / "empty.glb", "truncated"),
        (tmp_path / "text.gltf", "expected the JSON of a glTF"),
        (tmp_path / "list.gltf", "expected the JSON of a glTF"),
        (tmp_path / "none.glb", "expected a file, found none"),
        (tmp_path, "found a folder"),
        (tmp_path / "other.png", "expected .gltf or .glb"),
    ):
        with pytest.raises(UserError) as error:
            read_gltf_scene(path)
        assert expected in str(error.value) and "\n" not in str(error.value), str(error.value)
