"""render/scene_checks.py: what is taken in whatever form it comes, and what is refused, each in one line that names it."""

from typing import Any

import numpy as np
import pytest
import torch

from dvc.errors import Unsupported, UserError
from dvc.records import Mesh, SdfGrid, Shutter
from render.aov_render import AovRender
from render.path_render import PathRender
from render.scene import Ball, Body, DirectionalLight, Material, Plane, PointLight, Poses, Scene, SdfBody
from tests.render.ray_scenes import box, film, from_above, perspective, quad, row

FLOOR = quad((0, 0, 0), (30, 0, 0), (0, 30, 0))
CAMERA = perspective((0, -3, 2), (0, 0, 0.3), 40, 4)
TURN = torch.tensor([[[0.0, 0.0, 0.0, 1.0]]])
CORNERS = ((0.0, 1.5, 0.0), (1.0, 1.5, 0.0), (0.0, 1.5, 1.0))
AXIS = torch.linspace(-0.5, 0.5, 6)
SOLID = torch.stack(torch.meshgrid(AXIS, AXIS, AXIS, indexing="ij"), dim=-1).norm(dim=-1)[None] - 0.3


def shown(scene: Scene, camera=CAMERA, **call) -> torch.Tensor:
    return PathRender(samples=4, depth=3)(scene, camera, film(4), **call)


def test_constants_in_all_their_forms() -> None:
    """Tensors with and without world axis, plain numbers, one number for a colour, NumPy, integers, double precision."""

    def scene(center: Any, radius: Any, albedo: Any, place: Any, power: Any, sky: Any, corners: Any, alpha: Any) -> Scene:
        return Scene(
            [Body(FLOOR, "m"), Ball(center, radius, "c"), Plane(corners, "m")],
            {"m": Material(albedo), "c": Material(albedo, kind="conductor", alpha=alpha)},
            [PointLight(place, power), DirectionalLight(place, power)],
            sky,
        )

    full = torch.tensor([CORNERS])
    usual = scene(
        row(0, 0, 1), torch.tensor([0.5]), row(1, 1, 1), row(2, 0, 3), row(4, 4, 4), row(1, 1, 1), full, torch.tensor([0.5])
    )
    exact = shown(usual)
    forms = (
        scene(torch.tensor([0.0, 0.0, 1.0]), torch.tensor(0.5), torch.tensor([1.0, 1.0, 1.0]), torch.tensor([2.0, 0, 3]),
              torch.tensor(4.0), torch.tensor(1.0), full[0], torch.tensor(0.5)),
        scene((0, 0, 1), 0.5, 1.0, [2, 0, 3], 4, 1, CORNERS, 0.5),
        scene(np.array([[0, 0, 1]]), np.float64(0.5), np.ones(3), np.array([2.0, 0, 3]), 4.0, np.ones((1, 3)),
              np.array(CORNERS), 0.5),
        scene(torch.tensor([0, 0, 1]), [0.5], torch.ones(1, 3, dtype=torch.float64), row(2, 0, 3).double(), (4, 4, 4),
              torch.ones(1, 3, dtype=torch.int64), full.double(), torch.tensor([0.5]).half()),
    )  # fmt: skip
    for form in forms:
        assert torch.equal(shown(form), exact)
    camera = CAMERA._replace(
        position=tuple(CAMERA.position[0].tolist()),
        rotation=CAMERA.rotation[0].tolist(),
        focal=float(CAMERA.focal),
        center=(2, 2),
    )
    assert torch.equal(shown(usual, camera), exact)
    assert torch.equal(shown(usual, CAMERA._replace(focal=CAMERA.focal[0])), exact)
    assert torch.equal(shown(usual._replace(lights=None)), shown(usual._replace(lights=[])))


def test_a_gradient_reaches_numbers_within_a_tuple() -> None:
    red, radius = torch.tensor(0.4, requires_grad=True), torch.tensor(0.5, requires_grad=True)
    scene = Scene([Ball((0, 0, 0), radius, "m")], {"m": Material((red, 0.3, 0.2))}, environment=1.0)
    shown(scene).sum().backward()
    assert float(red.grad) > 0.0 and float(radius.grad) < 0.0  # it is darker than the sky


BODY, BALL = Body(FLOOR, "m"), Ball((0, 0, 1), 0.5, "m")
NAN = float("nan")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"bodies": [FLOOR]}, r"bodies\[0\]: expected Body, Ball, Plane or SdfBody, got Mesh; remedy: Body\(mesh"),
        ({"bodies": [Body((FLOOR.vertices, FLOOR.faces), "m")]}, r"bodies\[0\].mesh: expected Mesh, got tuple"),
        ({"bodies": [Body(Mesh(FLOOR.vertices.numpy(), FLOOR.faces), "m")]}, "vertices: expected a tensor.*as_tensor"),
        ({"bodies": [Body(Mesh(FLOOR.vertices[0], FLOOR.faces), "m")]}, r"vertex, 3\), got \(4, 3\); remedy: the world"),
        ({"bodies": [Body(Mesh(FLOOR.vertices, FLOOR.faces.float()), "m")]}, "faces: expected int32, got torch.float32"),
        ({"bodies": [Body(Mesh(FLOOR.vertices, FLOOR.faces.tolist()), "m")]}, "faces: expected Tensor, got"),
        ({"bodies": [Body(FLOOR, {"albedo": 1})]}, r"material: expected one of m, got dict; remedy: the name"),
        ({"bodies": [Body(FLOOR, Material(row(1, 1, 1)))]}, r"material: expected one of m, got Material"),
        ({"bodies": [Body(FLOOR, "m", uv=torch.zeros(2, 3, 2, dtype=torch.uint8))]}, "uv: expected float32, got torch.uint8"),
        ({"bodies": [Body(FLOOR, "m", vertex_albedo=torch.ones(4, 3))]}, r"\(world, 4, 3\), got \(4, 3\)"),
        ({"bodies": [BODY, Body(FLOOR, "m", vertex_albedo=torch.ones(3, 4, 3)), Ball(torch.zeros(2, 3), 1.0, "m")]},
         r"bodies\[2\].center: expected 1 or 3 worlds, as Scene.bodies\[1\].vertex_albedo has, got 2"),
        ({"bodies": [Body(FLOOR, "m", vertex_albedo=-torch.ones(1, 4, 3))]}, "vertex_albedo: expected numbers of at least 0"),
        ({"bodies": [Body(FLOOR, "m", poses=(1, 2))]}, r"poses: expected Poses, got \(1, 2\)"),
        ({"bodies": [Body(FLOOR, "m", poses=Poses(torch.zeros(1, 3), TURN))]}, r"positions: expected shape \(view, node, 3\)"),
        ({"bodies": [Body(FLOOR, "m", poses=Poses(torch.zeros(1, 1, 3), 0.0 * TURN))]}, "quaternions, none of zero length"),
        ({"bodies": [Body(FLOOR, "m", poses=Poses(torch.zeros(1, 1, 3), 1e-20 * TURN))]}, "orientations: expected quaternions"),
        ({"bodies": [Body(Mesh(FLOOR.vertices * 1e20, FLOOR.faces), "m")]}, r"coordinates up to 1e\+08 m"),
        ({"bodies": [Body(Mesh(FLOOR.vertices * 0.0, FLOOR.faces), "m")]}, "expected an extent of at least"),
        ({"bodies": [Body(Mesh(FLOOR.vertices * 1e-8, FLOOR.faces), "m")]}, "expected an extent of at least"),
        ({"bodies": [Body(Mesh(FLOOR.vertices * 1e-3 + 1e6, FLOOR.faces), "m")]}, "expected an extent of at least"),
        ({"bodies": [Body(Mesh(FLOOR.vertices * row(1, 0, 0), FLOOR.faces), "m")]}, "expected a face with an area"),
        ({"bodies": [Ball(row(0, 0, 0), torch.ones(1, 1), "m")]}, r"radius: expected shape \(world,\), got \(1, 1\)"),
        ({"bodies": [Ball((0, 0), 1.0, "m")]}, r"center: expected shape \(world, 3\), got \(0, 0\)"),
        ({"bodies": [Ball("here", 1.0, "m")]}, "center: expected numbers, as a tensor or plain ones, got 'here'"),
        ({"bodies": [Ball((0, 0, 0), 1e-30, "m")]}, "radius: expected at least 1.5e-05 of"),
        ({"bodies": [Ball((0, 0, 0), 1e30, "m")]}, r"radius: expected positive numbers of at most 1e\+08 m, got 1e\+30"),
        ({"bodies": [Ball((0, 0, 1e20), 1.0, "m")]}, r"center: expected coordinates up to 1e\+08 m"),
        ({"bodies": [Plane(torch.zeros(3), "m")]}, r"corners: expected shape \(world, 3, 3\), got \(3,\)"),
        ({"bodies": [SdfBody(SOLID, "m")]}, r"grid: expected SdfGrid, got Tensor of shape \(1, 6, 6, 6\)"),
        ({"bodies": [SdfBody(SdfGrid(SOLID[0], torch.zeros(3), 0.2), "m")]}, r"grid.values: expected shape \(world, x, y, z\)"),
        ({"bodies": [SdfBody(SdfGrid(SOLID, torch.zeros(3), NAN), "m")]}, "grid.spacing: expected a positive number"),
        ({"bodies": [SdfBody(SdfGrid(SOLID + 1.0, torch.zeros(3), 0.2), "m")]}, "expected a solid"),
        ({"bodies": [SdfBody(SdfGrid(SOLID, torch.zeros(3, requires_grad=True), 0.2), "m")]}, "origin: no gradient"),
        ({"bodies": [SdfBody(SdfGrid(SOLID, torch.zeros(3), torch.tensor(0.2, requires_grad=True)), "m")]}, "without gradient"),
        ({"bodies": 3}, "Scene.bodies: expected at least one body"),
        ({"materials": [Material()]}, "Scene.materials: expected Mapping, got list"),
        ({"lights": [PointLight((0, 0, 1), -1.0)]}, r"lights\[0\].intensity: expected numbers of at least 0, got -1"),
        ({"lights": [DirectionalLight((0, 0, -1), (1, 1, -1))]}, r"lights\[0\].irradiance: expected numbers of at least 0"),
        ({"lights": [DirectionalLight((0, 0, 0), 1.0)]}, r"lights\[0\].direction: expected a direction"),
        ({"lights": [PointLight((0, 0, 1e30), 1.0)]}, "DirectionalLight for what is far away"),
        ({"lights": 3}, "Scene.lights: expected Sequence, got 3"),
        ({"lights": PointLight((0, 0, 1), 1.0)}, r"lights\[0\]: expected PointLight or DirectionalLight, got \(0, 0, 1\)"),
        ({"environment": row(1, 1, 1).to_sparse()}, "Scene.environment: expected a dense tensor"),
        ({"lights": [BALL]}, r"lights\[0\]: expected PointLight or DirectionalLight, got Ball"),
        ({"environment": (1.0, -0.5, 0.2)}, "Scene.environment: expected numbers of at least 0, got -0.5"),
        ({"environment": "blue"}, "Scene.environment: expected numbers, as a tensor or plain ones, got 'blue'"),
        ({"environment": True}, "Scene.environment: expected numbers, as a tensor or plain ones, got True"),
        ({"environment": torch.tensor([[True, True, True]])}, "Scene.environment: expected float32, got torch.bool"),
        ({"environment": (1e300, 0.0, 0.0)}, "Scene.environment: expected"),
    ],
)  # fmt: skip
def test_scenes_that_are_none(changes: dict, words: str) -> None:
    scene = Scene([BODY], {"m": Material()}, environment=row(1, 1, 1))._replace(**changes)
    with pytest.raises((UserError, Unsupported), match=words) as caught:
        shown(scene)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"position": torch.zeros(2)}, r"camera.position: expected shape \(world, 3\), got \(2,\)"),
        ({"position": (0.0, 0.0, 1e20)}, r"camera.position: expected coordinates up to 1e\+08 m"),
        ({"rotation": 2.0 * CAMERA.rotation}, r"camera.rotation: expected a rotation matrix .*within 0.01 of 1, got 3"),
        ({"rotation": torch.zeros(1, 3, 3)}, "camera.rotation: expected a rotation matrix"),
        ({"rotation": -CAMERA.rotation}, "camera.rotation: expected a rotation matrix.* determinant 1, got -1"),
        ({"rotation": CAMERA.rotation * NAN}, "camera.rotation: expected finite numbers, got 9 of 9"),
        ({"focal": "long"}, "camera.focal: expected numbers"),
        ({"focal": (30.0, 31.0)}, "camera.focal: expected a number or a tensor"),
        ({"focal": torch.ones(1, 3)}, r"camera.focal: expected shape \(world,\), or \(world, 2\)"),
        ({"orthographic": "no"}, "camera.orthographic: expected bool, got 'no'"),
    ],
)
def test_cameras_that_are_none(changes: dict, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        shown(Scene([BODY], {"m": Material()}, environment=1.0), CAMERA._replace(**changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({"scene": [BODY]}, "scene: expected Scene, got list"),
        ({"camera": None}, "camera: expected Camera, got None; remedy: call a stage"),
        ({"shutter": (0.5, 0.0)}, r"shutter: expected Shutter, got \(0.5, 0.0\)"),
        ({"shutter": Shutter(torch.tensor([NAN]), row(0, 0))}, "shutter.exposure: expected finite"),
        ({"plate": torch.zeros(1, 4, 4, 3, dtype=torch.uint8)}, "plate: expected float32, got torch.uint8.*over 255"),
        ({"plate": torch.zeros(1, 4, 4, 3, dtype=torch.int64)}, "plate: expected float32, got torch.int64"),
        (
            {"plate": torch.zeros(4, 4, 3)},
            r"plate: expected shape \(view, row, column, 3\), got \(4, 4, 3\); remedy: the view axis",
        ),
        ({"plate": torch.full((1, 4, 4, 3), NAN)}, "plate: expected finite numbers, got 48 of 48"),
        ({"plate": torch.zeros(1, 4, 5, 3)}, r"plate: expected shape \(view, 4, 4, 3\)"),
    ],
)
def test_calls_that_do_not_fit(call: dict, words: str) -> None:
    given = {"scene": Scene([BODY], {"m": Material()}, environment=1.0), "camera": CAMERA} | call
    with pytest.raises(UserError, match=words):
        shown(given.pop("scene"), given.pop("camera"), **given)


def test_a_shutter_before_what_stands_still_has_no_gradient() -> None:
    scene = Scene([Body(box(0.5), "m", poses=Poses(torch.zeros(1, 1, 3), TURN))], {"m": Material()}, environment=1.0)
    shutter = Shutter(torch.tensor([0.5], requires_grad=True), row(0, 0))
    with pytest.raises(UserError, match=r"shutter.exposure: expected a body that moves"):
        shown(scene, shutter=shutter)
    with torch.no_grad():
        assert float(shown(scene, shutter=shutter).sum()) > 0.0
    still = shutter._replace(exposure=torch.tensor([0.5]))
    assert float(shown(scene, shutter=still).sum()) > 0.0
    ends = torch.tensor([[[-0.3, 0.0, 0.0], [0.3, 0.0, 0.0]]])
    moving = Scene([Body(box(0.5), "m", poses=Poses(ends, TURN.expand(1, 2, 4)))], {"m": Material()}, environment=1.0)
    shown(moving, shutter=shutter)[0, 2, :2].sum().backward()
    assert float(shutter.exposure.grad.abs()) > 0.0


def test_quaternions_have_any_length() -> None:
    turn = torch.tensor([[[0.1, 0.2, 0.3, 0.8]]])
    images = []
    for scale in (1.0, -1.0, 1e-6, 1e6):
        body = Body(box(0.5), "m", poses=Poses(torch.zeros(1, 1, 3), scale * turn))
        images.append(shown(Scene([body], {"m": Material()}, environment=1.0)))
    assert all(torch.allclose(image, images[0], atol=1e-4) for image in images)


def test_a_derivative_of_what_does_not_depend_on_the_value() -> None:
    scene = Scene([BODY], {"m": Material()}, environment=1.0)
    still = {"scene": scene, "camera": from_above(4)}
    for build, direction, words in (
        (lambda value: still, None, "depends on its value"),
        (lambda value: scene, None, "derivative.build: expected .*, got Scene"),
        (lambda value: still | {"seed": 3}, None, "derivative.build: expected .*, got scene, camera, seed"),
        (
            lambda value: still,
            torch.ones(2),
            r"direction: expected finite numbers .* of shape \(1,\), got torch.float32 of shape \(2,\)",
        ),
        (lambda value: still, torch.ones(1) * NAN, "direction: expected finite numbers"),
        (lambda value: still, 1.0, "direction: expected Tensor, got 1.0"),
    ):
        with pytest.raises(UserError, match=words):
            PathRender().derivative(build, torch.ones(1), direction, film=film(4))


def test_images_of_what_is_seen_check_alike() -> None:
    with pytest.raises(UserError, match=r"AovRender.samples: expected a whole number of at least 1, got 0"):
        AovRender(samples=0)
    with pytest.raises(UserError, match=r"bodies\[0\].radius: expected positive"):
        AovRender(samples=1)(Scene([Ball((0, 0, 0), -1.0, "m")], {"m": Material()}), CAMERA, film(4))
    depth = AovRender(samples=1)(Scene([Ball((0, 0, 0), 0.5, "m")], {"m": Material(0.5)}), CAMERA, film(4)).depth
    assert float(depth.max()) > 2.0


def test_what_is_made_in_inference_mode() -> None:
    axes = torch.linspace(-0.5, 0.5, 9)
    nodes = torch.stack(torch.meshgrid(axes, axes, axes, indexing="ij"), dim=-1)
    with torch.inference_mode():
        ball = SdfGrid((nodes.norm(dim=-1) - 0.3)[None], torch.tensor([-0.5, -0.5, -0.5]), 0.125)
        mesh = Mesh(torch.rand(1, 3, 3), torch.tensor([[0, 1, 2]], dtype=torch.int32))
        scene = Scene([SdfBody(ball, "m"), Body(mesh, "m")], {"m": Material(0.5, two_sided=True)}, environment=1.0)
        assert float(PathRender(4)(scene, from_above(4), film(4)).max()) > 0.0


def test_a_body_is_small_beside_its_own_world() -> None:
    faces = torch.tensor([[0, 1, 2]], dtype=torch.int32)
    corner = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    vertices = torch.stack([0.05 * corner, 1000.0 * corner + 5000.0])
    scene = Scene([Body(Mesh(vertices, faces), "m")], {"m": Material(0.5, two_sided=True)}, environment=1.0)
    assert PathRender(1)(scene, from_above(2), film(2)).shape == (2, 2, 2, 3)
