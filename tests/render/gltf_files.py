"""glTF and OBJ files that tests write: a cube with a corner of its own at every face, and whatever else is asked for."""

import base64
import json
import struct
import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from render.import_gltf import read_gltf_scene

EIGHT = np.random.default_rng(3).integers(0, 256, (4, 8, 3), dtype=np.uint8)  # a texture without symmetry
CUBE_SIDES = (  # outwards, counter-clockwise, by the axis and sign of the side
    ((1, 2), 0, 1), ((2, 1), 0, -1), ((2, 0), 1, 1), ((0, 2), 1, -1), ((0, 1), 2, 1), ((1, 0), 2, -1),
)  # fmt: skip


def cube(half: float = 0.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """24 points, 12 faces, uv of the points with v downwards, as glTF has it: every side shows the whole image."""
    points, uv = [], []
    for (first, second), axis, sign in CUBE_SIDES:
        for a, b in ((-1, -1), (1, -1), (1, 1), (-1, 1)):
            point = [0.0, 0.0, 0.0]
            point[axis], point[first], point[second] = sign * half, a * half, b * half
            points.append(point)
            uv.append([0.5 + 0.5 * a, 0.5 - 0.5 * b])
    faces = [[4 * side + k for k in corners] for side in range(6) for corners in ((0, 1, 2), (0, 2, 3))]
    return np.array(points, np.float32), np.array(faces, np.uint16), np.array(uv, np.float32)


def png(values: np.ndarray) -> bytes:
    """uint8 (row, column[, 3 or 4]), red first."""
    stored = values if values.ndim == 2 else values[..., [2, 1, 0, 3][: values.shape[2]]]
    done, content = cv2.imencode(".png", stored)
    assert done
    return content.tobytes()


class Gltf:
    """A file in the making: `add` puts an array into the one buffer and returns its accessor."""

    def __init__(self) -> None:
        self.content = b""
        self.tree: dict[str, Any] = {
            "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": []}], "nodes": [], "meshes": [], "materials": [],
            "accessors": [], "bufferViews": [], "images": [], "textures": [],
        }  # fmt: skip

    def view(self, content: bytes, **more: Any) -> int:
        self.content += b"\0" * (-len(self.content) % 4)
        entry = {"buffer": 0, "byteOffset": len(self.content), "byteLength": len(content), **more}
        self.tree["bufferViews"].append(entry)
        self.content += content
        return len(self.tree["bufferViews"]) - 1

    def add(self, values: np.ndarray, **more: Any) -> int:
        kinds = {"int8": 5120, "uint8": 5121, "int16": 5122, "uint16": 5123, "uint32": 5125, "float32": 5126}
        length = 1 if values.ndim == 1 else values.shape[1]
        self.tree["accessors"].append({
            "bufferView": self.view(values.tobytes()), "componentType": kinds[values.dtype.name], "count": len(values),
            "type": "SCALAR" if length == 1 else f"VEC{length}", **more,
        })  # fmt: skip
        return len(self.tree["accessors"]) - 1

    def mesh(self, points: np.ndarray, faces: np.ndarray | None, material: int | None = None, **attributes: int) -> int:
        primitive: dict[str, Any] = {"attributes": {"POSITION": self.add(points), **attributes}}
        if faces is not None:
            primitive["indices"] = self.add(faces.reshape(-1))
        if material is not None:
            primitive["material"] = material
        self.tree["meshes"].append({"primitives": [primitive]})
        return len(self.tree["meshes"]) - 1

    def cube(self, material: int | None = None, half: float = 0.5) -> int:
        points, faces, uv = cube(half)
        return self.mesh(points, faces, material, TEXCOORD_0=self.add(uv))

    def material(self, **given: Any) -> int:
        self.tree["materials"].append(given)
        return len(self.tree["materials"]) - 1

    def texture(self, values: np.ndarray, **sampler: int) -> dict[str, int]:
        """uint8 (row, column[, 3 or 4]): what a material's texture refers to."""
        self.tree["images"].append({"bufferView": self.view(png(values)), "mimeType": "image/png"})
        entry = {"source": len(self.tree["images"]) - 1}
        if sampler:
            self.tree.setdefault("samplers", []).append(sampler)
            entry["sampler"] = len(self.tree["samplers"]) - 1
        self.tree["textures"].append(entry)
        return {"index": len(self.tree["textures"]) - 1}

    def node(self, root: bool = True, **given: Any) -> int:
        self.tree["nodes"].append(given)
        if root:
            self.tree["scenes"][0]["nodes"].append(len(self.tree["nodes"]) - 1)
        return len(self.tree["nodes"]) - 1

    def write(self, path: Path, beside: bool = False) -> Path:
        """.glb, or .gltf with the buffer inside or beside it."""
        tree = {key: value for key, value in self.tree.items() if value != []}
        buffer: dict[str, Any] = {"byteLength": len(self.content)}
        if path.suffix == ".gltf":
            if beside:
                buffer["uri"] = "its%20buffer.bin"
                (path.parent / "its buffer.bin").write_bytes(self.content)
            else:
                buffer["uri"] = "data:application/octet-stream;base64," + base64.b64encode(self.content).decode()
            path.write_text(json.dumps({**tree, "buffers": [buffer]}))
            return path
        text = json.dumps({**tree, "buffers": [buffer]}).encode()
        text += b" " * (-len(text) % 4)
        binary = self.content + b"\0" * (-len(self.content) % 4)
        chunks = struct.pack("<I4s", len(text), b"JSON") + text + struct.pack("<I4s", len(binary), b"BIN\0") + binary
        path.write_bytes(struct.pack("<4sII", b"glTF", 2, 12 + len(chunks)) + chunks)
        return path


def diffuse(colour: list[float], **more: Any) -> dict[str, Any]:
    """A material of glTF that is exactly ours: no metal, no reflection at its surface."""
    return {
        "pbrMetallicRoughness": {"baseColorFactor": [*colour, 1.0], "metallicFactor": 0.0, **more.pop("pbr", {})},
        "extensions": {"KHR_materials_specular": {"specularFactor": 0.0}, **more.pop("extensions", {})}, **more,
    }  # fmt: skip


def with_material(**given: Any) -> Gltf:
    made = Gltf()
    made.node(name="box", mesh=made.cube(made.material(name="paint", **given)))
    return made


def with_texture(values: np.ndarray, slot: str = "baseColorTexture", sampler: Any = None, **more: Any) -> Gltf:
    made = Gltf()
    pbr = {"pbr": {slot: made.texture(values, **(sampler or {}))}}
    made.node(name="box", mesh=made.cube(made.material(name="paint", **{**diffuse([1, 1, 1], **pbr), **more})))
    return made


def quiet(path: Path, **more: Any) -> Any:
    """What `read_gltf_scene` reads, and no warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return read_gltf_scene(path, **more)


def said(path: Path) -> list[str]:
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        read_gltf_scene(path)
    return [str(entry.message) for entry in found]
