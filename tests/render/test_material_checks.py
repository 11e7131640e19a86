"""render/material_checks.py: numbers and textures of materials, and gradients that nothing would feed."""

import warnings

import pytest
import torch

from dvc.errors import Unsupported, UserError
from render import value_checks
from render.aov_render import AovRender
from render.path_render import PathRender
from render.scene import Ball, Body, Material, PointLight, Scene, Texture
from tests.render.ray_scenes import film, from_above, quad, row

FLOOR = quad((0, 0, 0), (30, 0, 0), (0, 30, 0))
UV = torch.tensor([[[0.0, 0], [1, 0], [1, 1]], [[0, 0], [1, 1], [0, 1]]])
WHITE = torch.ones(1, 2, 2, 3)


def shown(material: Material, **body) -> torch.Tensor:
    scene = Scene([Body(FLOOR, "m", **body)], {"m": material}, environment=row(1, 1, 1))
    return PathRender(samples=2, depth=2)(scene, from_above(2), film(2))


def wanting(*shape: int) -> torch.Tensor:
    return torch.full(shape, 0.5, requires_grad=True)


@pytest.mark.parametrize(
    ("material", "words"),
    [
        (None, r"materials\['m'\]: expected Material, got None; remedy: Material"),
        ({"albedo": 0.5}, r"materials\['m'\]: expected Material, got dict"),
        (Material(albedo=(0.5, -0.1, 0.5)), r"albedo: expected numbers of at least 0, got -0.1; remedy: .*clamp"),
        (Material(albedo=None), "albedo: expected numbers, as a tensor or plain ones, got None"),
        (Material(albedo=(0.5, 0.5)), r"albedo: expected shape \(world, 3\), got \(0.5, 0.5\)"),
        (Material(albedo=torch.tensor([[255, 0, 0]], dtype=torch.uint8)), "albedo: expected float32, got torch.uint8"),
        (Material(emission=-1.0), "emission: expected numbers of at least 0, got -1"),
        (Material(emission=(float("nan"), 0.0, 0.0)), "emission: expected finite numbers, got 1 of 3"),
        (Material(kind=["diffuse"]), "kind: expected one of diffuse, conductor"),
        (Material(two_sided="no"), "two_sided: expected bool, got 'no'"),
        (Material(kind="conductor", alpha=torch.ones(1, 3)), r"alpha: expected shape \(world,\)"),
        (Material(kind="conductor", alpha=float("nan")), "alpha: expected finite"),
        (Material(kind="conductor", alpha=0.0), "roughness of 0.001 or more.*got 0"),
        (
            Material(albedo_texture=WHITE),
            r"albedo_texture: expected Texture, got Tensor of shape \(1, 2, 2, 3\); remedy: Texture",
        ),
        (Material(albedo_texture=Texture(WHITE.to(torch.uint8))), "albedo_texture.image: expected float32.*over 255"),
        (Material(albedo_texture=Texture(WHITE.long())), "albedo_texture.image: expected float32, got torch.int64"),
        (Material(albedo_texture=Texture(WHITE[0])), r"image: expected shape \(world, height, width, 3\), got \(2, 2, 3\)"),
        (Material(albedo_texture=Texture(WHITE[..., :2])), "image: expected 1 or 3 channels"),
        (Material(albedo_texture=Texture(-WHITE)), "albedo_texture.image: expected numbers of at least 0, got -1"),
        (Material(albedo_texture=Texture(WHITE * float("nan"))), "albedo_texture.image: expected finite numbers, got 12 of 12"),
        (Material(albedo_texture=Texture(WHITE, None)), "wrap: expected one of repeat, mirror, clamp, got None"),
        (Material(alpha_texture=Texture(WHITE)), "alpha_texture: expected none, since the material is diffuse"),
        (Material(alpha=wanting(1)), "alpha: expected no gradient, since the material is diffuse"),
        (Material(emission_texture=Texture(WHITE)), "emission: expected a constant beside emission_texture"),
    ],
)
def test_materials_that_are_none(material, words: str) -> None:
    with pytest.raises((UserError, Unsupported), match=words) as caught:
        shown(material, uv=UV)
    assert "\n" not in str(caught.value)


def test_values_at_vertices_that_nothing_asks_for() -> None:
    with pytest.raises(UserError, match="vertex_alpha: expected none, since its material 'm' is diffuse"):
        shown(Material(), vertex_alpha=torch.ones(1, 4))
    with pytest.raises(UserError, match="vertex_emission: expected none, since its material 'm' has no emission"):
        shown(Material(), vertex_emission=torch.ones(1, 4, 3))
    lit = shown(Material(0.0, emission=0.5), vertex_emission=torch.ones(1, 4, 3))
    assert torch.allclose(lit, torch.full_like(lit, 0.5))


@pytest.mark.parametrize("field", ["albedo", "emission", "albedo_texture"])
def test_a_material_of_no_body_has_no_gradient(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(value_checks, "_said", set())
    value = wanting(1, 3) if field != "albedo_texture" else Texture(wanting(1, 2, 2, 3))
    scene = Scene([Ball((0, 0, 0), 1.0, "m")], {"m": Material(), "spare": Material(**{field: value})}, environment=1.0)
    with torch.no_grad(), warnings.catch_warnings():  # none is asked for
        warnings.simplefilter("error")
        PathRender(samples=2)(scene, from_above(2), film(2))
    with pytest.warns(UserWarning, match=r"materials\['spare'\]: expected a body of this material"):
        PathRender(samples=2)(scene, from_above(2), film(2))


def test_emission_alone_has_no_gradient_of_what_reflects() -> None:
    light = PointLight((0, 0, 2), wanting(1, 3))
    for material, lights in ((Material(wanting(1, 3), emission=1.0), []), (Material(0.5, emission=1.0), [light])):
        scene = Scene([Body(FLOOR, "m")], {"m": material}, lights)
        with pytest.raises(UserError, match=r"PathRender.depth: expected at least 2, as Scene\S+ wants a gradient, got 1"):
            PathRender(samples=2, depth=1)(scene, from_above(2), film(2))
        PathRender(samples=2, depth=2)(scene, from_above(2), film(2))
        with torch.no_grad():
            PathRender(samples=2, depth=1)(scene, from_above(2), film(2))


def test_depth_and_normals_show_no_light() -> None:
    for material, sky in ((Material(0.5, emission=wanting(1, 3)), None), (Material(0.5), wanting(1, 3))):
        scene = Scene([Body(FLOOR, "m")], {"m": material}, [], sky)
        with pytest.raises(UserError, match=r"AovRender: expected gradients to shapes.*got Scene\S+ which wants one"):
            AovRender(samples=2)(scene, from_above(2), film(2))
    scene = Scene([Body(FLOOR, "m")], {"m": Material(wanting(1, 3))})
    assert AovRender(samples=2)(scene, from_above(2), film(2)).albedo.requires_grad


def test_roughness_is_that_of_each_world() -> None:
    alpha, values = torch.tensor([0.5, 0.01]), torch.stack([torch.full((4,), 0.02), torch.ones(4)])
    shown(Material((0.9, 0.9, 0.9), "conductor", alpha), vertex_alpha=values)


def test_more_light_than_arrives_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(value_checks, "_said", set())
    with pytest.warns(UserWarning, match="albedo: expected an albedo of at most 1.*got 1.5; said once"):
        image = shown(Material((1.5, 0.5, 0.5)))
    assert torch.allclose(image[..., 0], torch.full_like(image[..., 0], 1.5), rtol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shown(Material((1.5, 0.5, 0.5)))
