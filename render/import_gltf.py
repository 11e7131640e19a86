"""`read_gltf_scene`: bodies, materials, cameras and lights of a glTF 2.0 file (.gltf, .glb).

Source: Khronos glTF 2.0 specification (sections 3.5 scenes and nodes, 3.7 meshes, 3.10 cameras), KHR_lights_punctual. Metres;
y up becomes z up: (x, y, z) -> (x, -z, y). Nodes' transforms are baked into vertices, those that mirror turn the faces over; a
mesh that several nodes show is several bodies. A camera looks along its node's -z with +y up, the node's scale left out. How
materials are taken: `render.imported_material`.

Units: candela, lux and candela per square metre count as W/sr, W/m^2 and W/(m^2 sr): all the light of a file has the same
factor, which exposure takes back.

What is refused (`Unsupported`, unless named in `leave_out`): normal maps, transparency, metalness between 0 and 1, spot lights,
skins, morph targets that are not at rest, points and lines, textures of one material with different coordinates or with two
wraps, extensions that change what is seen. Always: compressed meshes, sparse accessors, images other than PNG and JPEG.
What is shown approximately is said once a file: flat shading, diffuse materials without their reflection, animations at rest,
lights without their range, one-sided open surfaces black from behind. Near and far planes of cameras are not needed.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dvc.errors import Unsupported, UserError
from render.gltf_file import GltfFile
from render.gltf_materials import AS_STORED, GltfMaterials
from render.imported import Imported, ImportedCamera, Notes, imported_body, unique_name
from render.imported_material import checked
from render.scene import Body, DirectionalLight, PointLight

TO_Z_UP = np.array([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, -1.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
TRIANGLES, STRIP, FAN = 4, 5, 6
LIGHTS = "KHR_lights_punctual"


def read_gltf_scene(path: str | Path, leave_out: Sequence[str] = ()) -> Imported:
    """What a glTF file shows: the nodes of its scene, or all where it names none.

    Arguments: leave_out: features and extensions to go without in place of an error, see `render.imported.FEATURES`.
    Raises: UserError, one line, for a file that is missing or malformed; Unsupported for what is not there.
    """
    path = Path(path)
    notes = Notes(f"glTF file {str(path)!r}", leave_out)
    try:
        found = _Reader(GltfFile(path, notes), notes).read()
    except (UserError, Unsupported):
        raise
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, OverflowError) as problem:
        what = f"{type(problem).__name__}: {str(problem)[:60]}".splitlines()[0]
        raise UserError(
            f"{notes.name}: expected a glTF 2.0 whose parts refer to one another, got a broken one ({what})"
        ) from None
    notes.warn()
    return found


class _Reader:
    def __init__(self, file: GltfFile, notes: Notes):
        self.file, self.notes, self.materials = file, notes, GltfMaterials(file, notes)
        self.bodies: dict[str, Body] = {}
        self.lights: list[PointLight | DirectionalLight] = []
        self.cameras: dict[str, ImportedCamera] = {}

    def read(self) -> Imported:
        if self.file.tree.get("animations"):
            self.notes.approximate("animations are left out, shown: the pose at rest", "animations")
        seen: set[int] = set()
        waiting = [(root, TO_Z_UP) for root in reversed(self._roots())]
        while waiting:
            number, above = waiting.pop()
            node = self.file.entry("nodes", number, "nodes")
            if number in seen:
                raise UserError(f"{self.file.name}: node {number}: expected one parent, got two or a circle")
            seen.add(number)
            pose = above @ _local(f"{self.file.name}: node {number}", node)
            self._take(number, node, pose)
            waiting += [(child, pose) for child in reversed(node.get("children", []))]
        if not self.bodies:
            raise UserError(f"{self.file.name}: expected at least one mesh in its scene, got none")
        used = {body.material for body in self.bodies.values()}
        materials = {name: material for name, material in self.materials.materials.items() if name in used}
        return Imported(list(self.bodies.values()), list(self.bodies), materials, self.lights, self.cameras)

    def _roots(self) -> list[int]:
        if self.file.tree.get("scenes"):
            return self.file.entry("scenes", self.file.tree.get("scene", 0), "scene").get("nodes", [])
        nodes = self.file.tree.get("nodes", [])
        below = {child for node in nodes for child in node.get("children", [])}
        return [number for number in range(len(nodes)) if number not in below]

    def _take(self, number: int, node: dict[str, Any], pose: np.ndarray) -> None:
        name = str(node.get("name", f"node {number}"))
        extensions = node.get("extensions", {})
        for extension in extensions:
            if extension != LIGHTS:
                self.notes.absent(extension, name)
        if "mesh" in node:
            if "skin" in node:
                self.notes.absent("skin", name)
            self._mesh(name, node, pose)
        if "camera" in node:
            given = self.file.entry("cameras", node["camera"], name)
            chosen = unique_name(str(node.get("name", given.get("name", f"camera {node['camera']}"))), self.cameras)
            self.cameras[chosen] = _camera(f"{self.file.name}: camera {chosen!r}", given, pose)
        if LIGHTS in extensions:
            self._light(name, extensions[LIGHTS]["light"], pose)

    def _mesh(self, name: str, node: dict[str, Any], pose: np.ndarray) -> None:
        mesh = self.file.entry("meshes", node["mesh"], name)
        weights = np.asarray(node.get("weights", mesh.get("weights", [0.0])), np.float64)
        for part, primitive in enumerate(mesh["primitives"]):
            where = name if len(mesh["primitives"]) == 1 else f"{name} part {part}"
            if primitive.get("targets") and bool((weights != 0.0).any()):
                self.notes.absent("morph targets", where)
            for extension in primitive.get("extensions", {}):
                if extension == "KHR_materials_variants":
                    self.notes.approximate("of materials' variants the one without a name is shown", where)
                else:
                    self.notes.absent(extension, where)
            mode = primitive.get("mode", TRIANGLES)
            if mode not in (TRIANGLES, STRIP, FAN):
                self.notes.absent("points and lines", where)
                continue
            body = self._primitive(where, primitive, mode, pose)
            if body is not None:
                self.bodies[unique_name(where, self.bodies)] = body

    def _primitive(self, where: str, primitive: dict[str, Any], mode: int, pose: np.ndarray) -> Body | None:
        attributes = primitive["attributes"]
        points = self.file.accessor(attributes["POSITION"], where, 3)
        corners = self._indices(where, primitive, len(points))
        if mode == TRIANGLES:
            if len(corners) % 3:
                raise UserError(f"{self.file.name}: {where}: expected triangles, got {len(corners)} corners")
            faces = corners.reshape(-1, 3)
        else:
            steps = np.arange(max(0, len(corners) - 2))
            rows = [steps, steps + 1 + steps % 2, steps + 2 - steps % 2] if mode == STRIP else [steps + 1, steps + 2, 0 * steps]
            faces = corners[np.stack(rows, axis=1)]
        if len(faces) == 0:
            raise UserError(f"{self.file.name}: {where}: expected at least one triangle, got none")
        material, coordinates = self.materials.name_and_coordinates(primitive.get("material"), where)
        uv = normals = colours = None
        if coordinates is None and "TEXCOORD_0" in attributes:
            coordinates = AS_STORED  # for textures to come
        if coordinates is not None:
            wanted = f"TEXCOORD_{coordinates.channel}"
            if wanted not in attributes:
                raise UserError(
                    f"{self.file.name}: {where}: expected {wanted}, as material {material!r} has a texture, got none"
                )
            uv = coordinates.of(self._values(attributes[wanted], where, 2, len(points)))[faces]
        if "NORMAL" in attributes:
            normals = self._values(attributes["NORMAL"], where, 3, len(points)) @ np.linalg.pinv(pose[:3, :3])
        if "COLOR_0" in attributes:
            colours = self._values(attributes["COLOR_0"], where, 0, len(points))[:, :3]
            if bool((colours == 1.0).all()):
                colours = None
        if np.linalg.det(pose[:3, :3]) < 0.0:
            faces, uv = faces[:, ::-1], None if uv is None else uv[:, ::-1]
        two_sided = self.materials.materials[material].two_sided
        return imported_body(
            self.notes, where, material, points @ pose[:3, :3].T + pose[:3, 3], faces, uv, colours,
            None if normals is None else normals[faces], not two_sided,
        )  # fmt: skip

    def _indices(self, where: str, primitive: dict[str, Any], count: int) -> np.ndarray:
        if "indices" not in primitive:
            return np.arange(count)
        found = self.file.accessor(primitive["indices"], where, 1)[:, 0]
        if found.dtype.kind != "i" or (len(found) and (found.min() < 0 or found.max() >= count)):
            raise UserError(f"{self.file.name}: {where}: expected vertex numbers in 0..{count - 1}, got {found.max(initial=0)}")
        return found

    def _values(self, number: Any, where: str, length: int, count: int) -> np.ndarray:
        found = self.file.accessor(number, where, length).astype(np.float64)
        if len(found) != count:
            raise UserError(f"{self.file.name}: {where}: expected {count} values in accessor {number}, got {len(found)}")
        return found

    def _light(self, where: str, number: Any, pose: np.ndarray) -> None:
        lights = self.file.tree.get("extensions", {}).get(LIGHTS, {}).get("lights", [])
        if not isinstance(number, int) or not 0 <= number < len(lights):
            raise UserError(f"{self.file.name}: {where}: expected a light in 0..{len(lights) - 1}, got {number!r}")
        given = lights[number]
        name = f"{self.file.name}: {where}: light"
        intensity = checked(f"{name}.color", given.get("color", [1, 1, 1]), 3) * checked(
            f"{name}.intensity", given.get("intensity", 1.0), 1
        )
        strength = torch.tensor(intensity, dtype=torch.float32)[None]
        if "range" in given:
            self.notes.approximate("lights reach beyond their range", where)
        if given["type"] == "point":
            self.lights.append(PointLight(torch.tensor(pose[:3, 3], dtype=torch.float32)[None], strength))
        elif given["type"] == "directional":
            direction = _unit(name, -pose[:3, 2])
            self.lights.append(DirectionalLight(torch.tensor(direction, dtype=torch.float32)[None], strength))
        elif given["type"] == "spot":
            self.notes.absent("spot light", where)
        else:
            raise UserError(f"{name}.type: expected point, directional or spot, got {given['type']!r}")


def _local(name: str, node: dict[str, Any]) -> np.ndarray:
    """A node's matrix, or T R S; float64 (4, 4)."""
    if "matrix" in node:
        pose = np.array(node["matrix"], np.float64).reshape(4, 4).T
    else:
        x, y, z, w = _quaternion(name, node.get("rotation", [0.0, 0.0, 0.0, 1.0]))
        rotation = np.array([
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ])  # fmt: skip
        pose = np.eye(4)
        pose[:3, :3] = rotation * np.array(node.get("scale", [1.0, 1.0, 1.0]), np.float64).reshape(3)
        pose[:3, 3] = np.array(node.get("translation", [0.0, 0.0, 0.0]), np.float64).reshape(3)
    if not np.isfinite(pose).all() or not (pose[3] == (0.0, 0.0, 0.0, 1.0)).all():
        raise UserError(f"{name}: expected a transform of finite numbers with the last row 0, 0, 0, 1, got {pose.tolist()}")
    return pose


def _quaternion(name: str, values: Any) -> np.ndarray:
    found = np.array(values, np.float64).reshape(4)
    if not abs(np.linalg.norm(found) - 1.0) < 1e-2:
        raise UserError(f"{name}.rotation: expected a unit quaternion (x, y, z, w), got {values}")
    return found / np.linalg.norm(found)


def _unit(name: str, direction: np.ndarray) -> np.ndarray:
    length = float(np.linalg.norm(direction))
    if not length > 0.0:
        raise UserError(f"{name}: expected a node whose scale is not 0, got one without direction")
    return direction / length


def _camera(name: str, given: dict[str, Any], pose: np.ndarray) -> ImportedCamera:
    forward = _unit(name, -pose[:3, 2])
    right = _unit(name, np.cross(forward, _unit(name, pose[:3, 1])))
    rotation = torch.tensor(np.stack([right, np.cross(forward, right), forward]), dtype=torch.float32)[None]
    position = torch.tensor(pose[:3, 3], dtype=torch.float32)[None]
    orthographic = given["type"] == "orthographic"
    aspect: float | None
    lens = given[given["type"]] if given["type"] in ("perspective", "orthographic") else {}
    if orthographic:
        half, width = abs(float(lens["ymag"])), abs(float(lens["xmag"]))
        aspect = width / half if half > 0.0 else 0.0
    else:
        angle, aspect = float(lens["yfov"]), lens.get("aspectRatio")
        half = float(np.tan(0.5 * angle)) if 0.0 < angle < np.pi else 0.0
    if not (0.0 < half < np.inf) or (aspect is not None and not 0.0 < aspect < np.inf):
        raise UserError(f"{name}: expected an angle of view below 180 degrees, or a width and height above 0, got {lens}")
    return ImportedCamera(position, rotation, half, None if aspect is None else float(aspect), orthographic)
