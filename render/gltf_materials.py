"""Materials of a glTF 2.0 file (specification, section 3.9), their textures, and what those ask of texture coordinates.

Taken: metallic-roughness with all its textures (see `render.imported_material`), emission with KHR_materials_emissive_strength,
double sides, KHR_texture_transform, samplers that repeat, mirror or clamp. The occlusion texture is not needed, as light is
traced. Colours of textures are sRGB and become linear; roughness (green) and metalness (blue) are linear as they stand.
"""

from typing import Any, NamedTuple

import numpy as np
import torch

from dvc.errors import UserError
from render.gltf_file import GltfFile
from render.imported import Notes, unique_name
from render.imported_material import Finish, checked, material_of
from render.response import srgb_inverse
from render.scene import Material, Texture

WRAP_MODES = {10497: "repeat", 33648: "mirror", 33071: "clamp"}
NEAREST = (9728, 9984, 9986)  # filters
HARMLESS = ("KHR_materials_emissive_strength", "KHR_materials_ior", "KHR_materials_specular", "KHR_materials_volume",
            "KHR_materials_dispersion")  # fmt: skip
OFF_AT_ZERO = {  # extensions that do nothing while this factor is 0, which it is where it is left out
    "KHR_materials_transmission": "transmissionFactor", "KHR_materials_clearcoat": "clearcoatFactor",
    "KHR_materials_sheen": "sheenColorFactor", "KHR_materials_iridescence": "iridescenceFactor",
    "KHR_materials_anisotropy": "anisotropyStrength",
}  # fmt: skip


class Coordinates(NamedTuple):
    """uv of the file, (0, 0) at the top left, becomes matrix uv + offset."""

    channel: int
    matrix: tuple[tuple[float, float], tuple[float, float]]
    offset: tuple[float, float]

    def of(self, uv: np.ndarray) -> np.ndarray:
        """Ours, (0, 0) at the bottom left."""
        moved = uv @ np.array(self.matrix).T + np.array(self.offset)
        return np.stack([moved[..., 0], 1.0 - moved[..., 1]], axis=-1)


AS_STORED = Coordinates(0, ((1.0, 0.0), (0.0, 1.0)), (0.0, 0.0))


class GltfMaterials:
    """Materials by number, read when a mesh asks for them; None is the specification's default, a rough white metal."""

    def __init__(self, file: GltfFile, notes: Notes):
        self.file, self.notes = file, notes
        self.materials: dict[str, Material] = {}
        self._read: dict[int | None, tuple[str, Coordinates | None]] = {}

    def name_and_coordinates(self, number: int | None, where: str) -> tuple[str, Coordinates | None]:
        """Name of a material in `materials`, and the texture coordinates that it needs, if any."""
        if number not in self._read:
            given = {} if number is None else self.file.entry("materials", number, where)
            wanted = str(given.get("name", "default" if number is None else f"material {number}"))
            name = unique_name(wanted, self.materials)
            place = f"material {name!r}"
            used: list[Coordinates] = []
            material = material_of(self.notes, place, self._finish(given, place, used))
            self.materials[name] = material
            textured = any(isinstance(value, Texture) for value in material)
            self._read[number] = name, self._joint(place, used) if textured else None
        return self._read[number]

    def _finish(self, given: dict[str, Any], place: str, used: list[Coordinates]) -> Finish:
        extensions = given.get("extensions", {})
        for name, extension in extensions.items():
            strength = np.asarray(extension.get(OFF_AT_ZERO[name], 0.0)) if name in OFF_AT_ZERO else np.ones(1)
            if name not in HARMLESS and bool((strength != 0.0).any()):
                self.notes.absent(name, place)
        if "normalTexture" in given:
            self.notes.absent("normal map", place)
        pbr = given.get("pbrMetallicRoughness", {})
        colour = checked(f"{self.file.name}: {place}: baseColorFactor", pbr.get("baseColorFactor", [1, 1, 1, 1]), 4, 1.0)
        colour_values = self._texture(pbr.get("baseColorTexture"), place, used)
        if given.get("alphaMode", "OPAQUE") != "OPAQUE":
            least = float(colour[3])
            if colour_values is not None and colour_values[0].shape[2] == 4:
                least *= float(colour_values[0][..., 3].min())
            if least < (float(given.get("alphaCutoff", 0.5)) if given["alphaMode"] == "MASK" else 1.0):
                self.notes.absent("transparency", place)
        metalness = checked(f"{self.file.name}: {place}: metallicFactor", pbr.get("metallicFactor", 1.0), 1, 1.0)[0]
        roughness = checked(f"{self.file.name}: {place}: roughnessFactor", pbr.get("roughnessFactor", 1.0), 1, 1.0)[0]
        surface_used = used if metalness > 0.0 else []  # what is no metal has no use for them
        surface_values = self._texture(pbr.get("metallicRoughnessTexture"), place, surface_used)
        emission = checked(f"{self.file.name}: {place}: emissiveFactor", given.get("emissiveFactor", [0, 0, 0]), 3)
        strength = extensions.get("KHR_materials_emissive_strength", {}).get("emissiveStrength", 1.0)
        emission = emission * checked(f"{self.file.name}: {place}: emissiveStrength", strength, 1)
        glowing = bool((emission > 0.0).any())
        specular = extensions.get("KHR_materials_specular", {}).get("specularFactor", 1.0)
        return Finish(
            colour[:3], float(metalness), float(roughness), emission,
            _colours(colour_values), _channel(surface_values, 2), _channel(surface_values, 1),
            _colours(self._texture(given.get("emissiveTexture"), place, used)) if glowing else None,
            bool(given.get("doubleSided", False)), specular != 0.0,
        )  # fmt: skip

    def _texture(self, info: dict[str, Any] | None, place: str, used: list[Coordinates]) -> tuple[np.ndarray, str] | None:
        """Stored values and wrap of a texture, or None where there is none."""
        if info is None:
            return None
        texture = self.file.entry("textures", info["index"], place)
        sampler = self.file.entry("samplers", texture["sampler"], place) if "sampler" in texture else {}
        wraps = [WRAP_MODES[sampler.get(key, 10497)] for key in ("wrapS", "wrapT")]
        if wraps[0] != wraps[1]:
            self.notes.absent("wraps", f"{place}: wrapS {wraps[0]}, wrapT {wraps[1]}")
        if sampler.get("magFilter") in NEAREST:
            self.notes.approximate("textures with the nearest texel are bilinear", place)
        if "source" not in texture:
            got = ", ".join(texture.get("extensions", {})) or "none"
            raise UserError(f"{self.file.name}: {place}: expected a texture with a PNG or JPEG, got {got}")
        moved = info.get("extensions", {}).get("KHR_texture_transform", {})
        angle, (x, y) = float(moved.get("rotation", 0.0)), map(float, moved.get("scale", [1.0, 1.0]))
        cos, sin = float(np.cos(angle)), float(np.sin(angle))
        offset = tuple(map(float, moved.get("offset", [0.0, 0.0])))
        # counter-clockwise where v points down, as the extension's text and example have it (its GLSL turns the other way)
        matrix = ((cos * x, sin * y), (-sin * x, cos * y))
        used.append(Coordinates(int(moved.get("texCoord", info.get("texCoord", 0))), matrix, (offset[0], offset[1])))
        return self.file.image(texture["source"], place), wraps[0]

    def _joint(self, place: str, used: list[Coordinates]) -> Coordinates:
        """A body has one set of coordinates."""
        if len(set(used)) > 1:
            self.notes.absent("texture coordinates", f"{place}: {len(set(used))} sets or transforms of coordinates")
        return used[0]


def _colours(found: tuple[np.ndarray, str] | None) -> Texture | None:
    if found is None:
        return None
    values, wrap = found
    return Texture(srgb_inverse(torch.from_numpy(np.ascontiguousarray(values[..., :3]))[None]), wrap)


def _channel(found: tuple[np.ndarray, str] | None, channel: int) -> Texture | None:
    if found is None:
        return None
    values, wrap = found
    one = values[..., min(channel, values.shape[2] - 1), None] if values.shape[2] < 3 else values[..., channel, None]
    return Texture(torch.from_numpy(np.ascontiguousarray(one))[None], wrap)
