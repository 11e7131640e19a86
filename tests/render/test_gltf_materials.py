"""render/gltf_materials.py, imported_material.py: materials and textures of a glTF file arrive."""

import base64
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from dvc.errors import UserError
from dvc.records import Film
from render.import_gltf import read_gltf_scene
from render.imported import film_camera
from render.path_render import PathRender
from render.scene import CONDUCTOR, Scene
from tests.render.gltf_files import EIGHT, Gltf, cube, diffuse, png, quiet


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
