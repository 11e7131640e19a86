"""render/import_gltf.py, imported.py, import_file.py: nodes, meshes, cameras and lights of a glTF file arrive."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from dvc.errors import UserError
from dvc.records import Film, Mesh
from render.camera import LookAtCamera, project
from render.import_gltf import read_gltf_scene
from render.imported import film_camera
from render.path_render import PathRender
from render.render_file import RenderFile
from render.response import srgb_inverse
from render.scene import Body, DirectionalLight, Material, PointLight, Scene, Texture
from tests.render.gltf_files import EIGHT, Gltf, cube, diffuse, quiet

FILM = Film(32, 24, 0.0, 0.0, 32, 24, 1.0)
HALF_TURN = math.sqrt(0.5)


def z_up(points: np.ndarray) -> torch.Tensor:
    return torch.tensor(np.stack([points[:, 0], -points[:, 2], points[:, 1]], axis=1))


def lit(model: Any) -> Scene:
    return Scene(
        model.bodies, model.materials, [*model.lights, PointLight(torch.tensor([[2.0, -3.0, 4.0]]), torch.full((1, 3), 60.0))]
    )


def camera() -> Any:
    return LookAtCamera(32, 24)(torch.tensor([[1.6, -2.0, 1.2]]), torch.zeros(1, 3), fov=torch.tensor([0.7]))


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


def test_vertices_stay_apart_where_joined_ones_would_make_edges_of_four_faces(tmp_path: Path) -> None:
    points, faces, _ = cube()
    made = Gltf()
    twice = np.concatenate([points, points + np.array([1.0, 1.0, 0.0], np.float32)])  # two cubes that share an edge
    material = made.material(**diffuse([0.5, 0.5, 0.5]))
    made.node(mesh=made.mesh(twice, np.concatenate([faces, faces + 24]), material))
    model = quiet(made.write(tmp_path / "two.glb"))
    assert model.bodies[0].mesh.vertices.shape == (1, 48, 3)
    assert float(PathRender(samples=4, depth=2)(lit(model), camera(), FILM).amax()) > 0.0


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
