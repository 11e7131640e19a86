"""Materials of a scene as they were given: their numbers and textures, and whether anything makes use of them."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from dvc.errors import Unsupported, UserError
from render.ggx import LEAST_ALPHA
from render.scene import CONDUCTOR, DIFFUSE, Ball, Body, Material, Scene, SdfBody, Texture
from render.textures import WRAPS
from render.value_checks import LIGHT, Intake, plain, require_kind, shown, wants, warn_once

KINDS = {DIFFUSE: 0, CONDUCTOR: 1}
SLOTS = ("albedo", "alpha", "emission")
REFLECTANCE = "an albedo of at most 1 (more light leaves than arrives)"
KEPT_IN = "keep it there by a bound on the parameter, or a clamp"


def check_material(intake: Intake, name: str, material: Material) -> Material:
    where = f"Scene.materials[{name!r}]"
    require_kind(where, material, Material, "Material(albedo, ...)")
    if not isinstance(material.kind, str) or material.kind not in KINDS:
        raise UserError(f"{where}.kind: expected one of {', '.join(KINDS)}, got {shown(material.kind)}")
    for flag in ("two_sided", "schlick"):
        require_kind(f"{where}.{flag}", getattr(material, flag), bool)
    light: dict[str, Any] = {**LIGHT, "grey": True, "remedy": KEPT_IN}
    albedo = intake.constant(f"{where}.albedo", material.albedo, (3,), **light)
    intake.bound(f"{where}.albedo", albedo, most=1.0 + 1.0e-6, expected=REFLECTANCE, soft=True)
    alpha = intake.constant(f"{where}.alpha", material.alpha, ())
    emission = material.emission
    if emission is not None:
        emission = intake.constant(f"{where}.emission", emission, (3,), **light)
    elif material.emission_texture is not None:
        raise UserError(f"{where}.emission: expected a constant beside emission_texture, got none; remedy: emission=(1, 1, 1)")
    textures = {f"{slot}_texture": _texture(intake, f"{where}.{slot}_texture", material, slot) for slot in SLOTS}
    found = material._replace(albedo=albedo, alpha=alpha, emission=emission, **textures)  # type: ignore[arg-type]
    if found.kind == DIFFUSE and found.alpha_texture is not None:
        raise UserError(f"{where}.alpha_texture: expected none, since the material is diffuse; remedy: kind='conductor'")
    if found.kind == DIFFUSE and wants(alpha):
        raise UserError(
            f"{where}.alpha: expected no gradient, since the material is diffuse and it would be zero; remedy: detach it, or "
            "kind='conductor'"
        )
    return found


def _texture(intake: Intake, where: str, material: Material, slot: str) -> Texture | None:
    texture = getattr(material, f"{slot}_texture")
    if texture is None:
        return None
    require_kind(where, texture, Texture, "Texture(image)")
    channels = texture.image.shape[3] if getattr(texture.image, "ndim", 0) == 4 else 3
    if channels not in (1, 3):
        raise UserError(f"{where}.image: expected 1 or 3 channels in the last axis, got shape {tuple(texture.image.shape)}")
    image = intake.array(
        f"{where}.image", texture.image, ("world", "height", "width", channels), image=True, remedy="a clamp", **LIGHT,
    )  # fmt: skip
    if not isinstance(texture.wrap, str) or texture.wrap not in WRAPS:
        raise UserError(f"{where}.wrap: expected one of {', '.join(WRAPS)}, got {shown(texture.wrap)}")
    return Texture(image, texture.wrap)


def check_use(materials: Mapping[str, Material], bodies: Sequence) -> None:
    """Bodies fit their materials, and what wants a gradient is used."""
    for number, body in enumerate(bodies):
        material, where = materials[body.material], f"Scene.bodies[{number}]"
        if any(getattr(material, f"{slot}_texture") is not None for slot in SLOTS):
            if isinstance(body, (Ball, SdfBody)):
                raise Unsupported(f"{where}: a ball or an SDF has no texture coordinates; remedy: a mesh (icosphere)")
            if isinstance(body, Body) and body.uv is None:
                raise UserError(
                    f"{where}.uv: expected coordinates (face, 3, 2), as material {body.material!r} has a texture, got none; "
                    "remedy: give uv, or take the texture away"
                )
        if isinstance(body, Body) and body.vertex_alpha is not None and material.kind == DIFFUSE:
            raise UserError(
                f"{where}.vertex_alpha: expected none, since its material {body.material!r} is diffuse; remedy: "
                "kind='conductor', or leave it out"
            )
        if isinstance(body, Body) and body.vertex_emission is not None and material.emission is None:
            raise UserError(
                f"{where}.vertex_emission: expected none, since its material {body.material!r} has no emission, which it is "
                "multiplied with; remedy: emission=(1, 1, 1)"
            )
    used = {body.material for body in bodies}
    for name, material in materials.items():
        values = [getattr(material, slot) for slot in SLOTS] + [
            getattr(getattr(material, f"{slot}_texture"), "image", None) for slot in SLOTS
        ]
        if name not in used and any(map(wants, values)):
            warn_once(
                ("of no body", name),
                f"Scene.materials[{name!r}]: expected a body of this material, since it wants a gradient, got none: it is "
                "zero; remedy: leave the material out, or detach its tensors",
            )


def _wanting(scene: Scene, slots: tuple[str, ...]) -> str | None:
    """The first of the lights, and of these slots of materials and bodies, that wants a gradient."""
    values: dict[str, object] = {}
    for number, light in enumerate(scene.lights or ()):
        values |= {f"Scene.lights[{number}].{field}": value for field, value in zip(light._fields, light)}
    for name, material in scene.materials.items():
        for slot in slots:
            values[f"Scene.materials[{name!r}].{slot}"] = getattr(material, slot)
            values[f"Scene.materials[{name!r}].{slot}_texture"] = getattr(getattr(material, f"{slot}_texture"), "image", None)
    for number, body in enumerate(scene.bodies):
        for slot in slots:
            values[f"Scene.bodies[{number}].vertex_{slot}"] = getattr(body, f"vertex_{slot}", None)
    return next((name for name, value in values.items() if wants(value)), None)


def require_emission(scene: Scene) -> None:
    """Where emission alone is shown, what reflects and lights has no gradient.

    Raises: UserError for what wants one all the same.
    """
    name = _wanting(scene, ("albedo", "alpha"))
    if name is not None:
        raise UserError(
            f"PathRender.depth: expected at least 2, as {name} wants a gradient, got 1, which shows emission alone: it "
            "would be zero; remedy: depth=2, or detach it"
        )


def require_unlit(scene: Scene) -> None:
    """The same where shapes and albedo are shown, which nothing lights."""
    name = _wanting(scene, ("alpha", "emission"))
    sky = scene.environment
    if name is None and any(map(wants, sky if isinstance(sky, tuple) else (sky,))):
        name = "Scene.environment"
    if name is not None:
        raise UserError(
            f"AovRender: expected gradients to shapes, poses, camera or albedo, as nothing else is shown, got {name}, which "
            "wants one: it would be zero; remedy: detach it"
        )


def limit_roughness(intake: Intake, materials: Mapping[str, Material], bodies: Sequence) -> None:
    """The product of constant, texture and vertex values of a conductor's roughness keeps away from 0."""
    for name, material in materials.items():
        if material.kind != CONDUCTOR:
            continue
        least = plain(material.alpha)  # type: ignore[arg-type]
        if material.alpha_texture is not None:
            least = least * plain(material.alpha_texture.image).amin(dim=(1, 2, 3))
        factors = [b.vertex_alpha for b in bodies if isinstance(b, Body) and b.material == name and b.vertex_alpha is not None]
        if factors:
            least = torch.stack([least * plain(factor).amin(dim=1) for factor in factors]).amin(dim=0)
        intake.bound(
            f"Scene.materials[{name!r}].alpha", least, float(LEAST_ALPHA),
            expected=f"a roughness of {float(LEAST_ALPHA):.4g} or more, below which the gradient is zero",
            remedy="a larger one",
        )  # fmt: skip
