"""The parts of a glTF 2.0 file by number: JSON, accessors as arrays, images as arrays; .gltf with buffers beside it, or .glb.

glTF 2.0 specification, sections 3.6 (buffers, accessors), 3.8.3 (images) and 4 (GLB). The standard library reads the JSON and
numpy the buffers: that is all there is to the container, so no further library is asked for, and every error has its line.
"""

import base64
import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from dvc.errors import Unsupported, UserError
from geometry.gltf_check import COMPRESSED, parse_glb, read_buffer
from render.imported import Notes

COMPONENTS = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
LENGTHS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
KNOWN = (
    "KHR_lights_punctual", "KHR_materials_emissive_strength", "KHR_materials_ior", "KHR_materials_specular",
    "KHR_materials_variants", "KHR_mesh_quantization", "KHR_texture_transform",
)  # fmt: skip


class GltfFile:
    """A file that is open.

    Raises: UserError, one line, for a file that is missing, truncated or no glTF 2.0; Unsupported for meshes that are
        compressed and for extensions that it requires and that are not known, unless they are left out.
    """

    def __init__(self, path: Path, notes: Notes):
        self.path, self.name, self.notes = path, notes.name, notes
        if not path.is_file():
            got = "a folder" if path.is_dir() else "none"
            raise UserError(f"{self.name}: expected a file, found {got}; remedy: check the path")
        if path.suffix.lower() not in (".gltf", ".glb"):
            raise UserError(f"{self.name}: expected .gltf or .glb, got {path.suffix or 'no ending'!r}")
        content = path.read_bytes()
        try:
            tree, self.binary = parse_glb(self.name, content) if path.suffix.lower() == ".glb" else (json.loads(content), None)
            if not isinstance(tree, dict):
                raise ValueError("no object")
        except UserError:
            raise
        except (ValueError, RecursionError) as problem:
            raise UserError(
                f"{self.name}: expected the JSON of a glTF, got none ({str(problem)[:60]}); empty, truncated or no glTF"
            ) from None
        self.tree: dict[str, Any] = tree
        version = str(tree.get("asset", {}).get("version", "none"))
        if version.split(".")[0] != "2":
            raise UserError(f"{self.name}: expected glTF version 2, got {version}; remedy: convert it")
        for extension in tree.get("extensionsRequired", []):
            if extension in COMPRESSED:
                raise Unsupported(f"{self.name}: {extension} is not supported; remedy: export without compression")
            if extension not in KNOWN:
                notes.absent(extension, "extensionsRequired")
        self._buffers: dict[int, bytes] = {}
        self._images: dict[int, np.ndarray] = {}

    def entry(self, kind: str, number: Any, where: str) -> dict[str, Any]:
        """Entry `number` of one of the lists of the file ("nodes", "meshes", ...)."""
        entries = self.tree.get(kind, [])
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(entries):
            raise UserError(f"{self.name}: {where}: expected a number in 0..{len(entries) - 1} of {kind}, got {number!r}")
        return entries[number]

    def accessor(self, number: Any, where: str, length: int) -> np.ndarray:
        """The numbers of an accessor: float64 (count, length), or int64 where they are whole and not normalised."""
        given = self.entry("accessors", number, where)
        place = f"{self.name}: {where}: accessor {number}"
        if "sparse" in given or "bufferView" not in given:
            raise Unsupported(f"{place}: sparse accessors are not supported; remedy: export without them")
        dtype = np.dtype(COMPONENTS[given["componentType"]])
        found = LENGTHS.get(given["type"])
        if found is None or not (found == length or (length == 0 and found in (3, 4))):
            raise UserError(f"{place}: expected {length or '3 or 4'} numbers each, got {given['type']}")
        content = self._view(given["bufferView"], place)
        size, stride = found * dtype.itemsize, self.entry("bufferViews", given["bufferView"], place).get("byteStride", 0)
        stride, offset, count = stride or size, given.get("byteOffset", 0), given["count"]
        needed = offset + (count - 1) * stride + size if count else 0
        if min(offset, stride, count) < 0 or needed > len(content):
            raise UserError(f"{place}: expected {needed} bytes, got a view of {len(content)}; truncated or damaged")
        raw = np.ndarray((count, found), dtype, content, offset, (stride, dtype.itemsize))
        if dtype.kind == "f":
            return raw.astype(np.float64)
        if not given.get("normalized", False):
            return raw.astype(np.int64)
        largest = 2.0 ** (8 * dtype.itemsize - (dtype.kind == "i")) - 1.0
        return np.maximum(raw / largest, -1.0)

    def _view(self, number: Any, where: str) -> bytes:
        view = self.entry("bufferViews", number, where)
        which, start, length = view["buffer"], view.get("byteOffset", 0), view["byteLength"]
        if which not in self._buffers:
            self._buffers[which] = read_buffer(
                self.name, self.path, which, self.entry("buffers", which, where), self.binary if which == 0 else None
            )
        content = self._buffers[which]
        if min(start, length) < 0 or start + length > len(content):
            raise UserError(f"{where}: expected {start + length} bytes of buffer {which}, got {len(content)}; truncated")
        return content[start : start + length]

    def image(self, number: Any, where: str) -> np.ndarray:
        """Stored values over their largest, float32 (row, column, 1, 3 or 4), red first."""
        if number not in self._images:
            self._images[number] = self._read_image(number, where)
        return self._images[number]

    def _read_image(self, number: Any, where: str) -> np.ndarray:
        given = self.entry("images", number, where)
        uri = given.get("uri")
        if uri is None:
            content = self._view(given["bufferView"], f"{self.name}: {where}: image {number}")
        elif uri.startswith("data:"):
            content = base64.b64decode(uri.split(",", 1)[1])
        else:
            beside = self.path.parent / unquote(uri)
            if not beside.is_file():
                raise UserError(f"{self.name}: {where}: expected the image {uri!r} beside it, found none")
            content = beside.read_bytes()
        import cv2

        stored = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) if content else None
        if stored is None or stored.dtype not in (np.uint8, np.uint16):
            raise UserError(f"{self.name}: {where}: expected image {number} as PNG or JPEG, got what cannot be read")
        values = stored.reshape(*stored.shape[:2], -1) / np.float32(255 if stored.dtype == np.uint8 else 65535)
        order = {1: [0], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[values.shape[2]]  # blue first to OpenCV
        return np.ascontiguousarray(values[..., order])
