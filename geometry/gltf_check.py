"""Whether a GLB or glTF file is whole: the importer behind Open3D drops faces that name vertices which do not exist.

glTF 2.0 specification, sections 3.6 (buffers, views, accessors), 3.7.2 (meshes) and 4 (GLB).
"""

import base64
import json
import struct
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np

from dvc.errors import UserError

INDEX_TYPES = {5121: np.uint8, 5123: np.uint16, 5125: np.uint32}
FLOAT = 5126
TRIANGLES = 4
COMPRESSED = ("KHR_draco_mesh_compression", "EXT_meshopt_compression")


def check_gltf(name: str, path: Path) -> None:
    """Raises: UserError for a file that is truncated or no glTF 2.0, buffers that are missing or short, compressed meshes,
    primitives that are not triangles, and faces that name vertices which do not exist."""
    content = path.read_bytes()
    try:
        tree, binary = parse_glb(name, content) if path.suffix.lower() == ".glb" else (json.loads(content), None)
        if not isinstance(tree, dict):
            raise ValueError("no object")
    except ValueError as problem:
        if isinstance(problem, UserError):
            raise
        raise UserError(
            f"{name}: expected the JSON of a glTF, got none ({str(problem)[:60]}); empty, truncated or no glTF"
        ) from None
    try:
        _check_meshes(name, path, tree, binary)
    except (KeyError, IndexError, TypeError, AttributeError, ValueError) as problem:
        if isinstance(problem, UserError):
            raise
        what = f"{type(problem).__name__}: {str(problem)[:60]}".splitlines()[0]
        raise UserError(f"{name}: expected a glTF 2.0 whose parts refer to one another, got a broken one ({what})") from None


def parse_glb(name: str, content: bytes) -> tuple[Any, bytes | None]:
    """The JSON and the binary chunk of a GLB.

    Raises: UserError for a file that is truncated or none; ValueError for its JSON.
    """
    if len(content) < 20 or content[:4] != b"glTF":
        raise UserError(f"{name}: expected a GLB, which begins with 'glTF', got {content[:4]!r}; empty, truncated or no GLB")
    version, length, first, kind = struct.unpack_from("<III4s", content, 4)
    if version != 2:
        raise UserError(f"{name}: expected glTF version 2, got {version}; remedy: convert it")
    if length > len(content) or 20 + first > length or kind != b"JSON":
        raise UserError(f"{name}: expected {length} bytes as its header says, got {len(content)}; empty, truncated or no GLB")
    tree = json.loads(content[20 : 20 + first])
    at = 20 + first
    if at + 8 > length:
        return tree, None
    size, kind = struct.unpack_from("<I4s", content, at)
    if kind != b"BIN\0" or at + 8 + size > length:
        raise UserError(f"{name}: expected a binary chunk of {size} bytes, got {length - at - 8}; truncated")
    return tree, content[at + 8 : at + 8 + size]


def _check_meshes(name: str, path: Path, tree: dict, binary: bytes | None) -> None:
    compressed = [e for e in tree.get("extensionsRequired", []) if e in COMPRESSED]
    if compressed:
        raise UserError(f"{name}: expected a mesh that is not compressed, got {compressed[0]}; remedy: decompress it")
    buffers = [read_buffer(name, path, i, buffer, binary) for i, buffer in enumerate(tree.get("buffers", []))]
    for m, mesh in enumerate(tree.get("meshes", [])):
        for primitive in mesh["primitives"]:
            mode = primitive.get("mode", TRIANGLES)
            if mode != TRIANGLES:
                raise UserError(
                    f"{name}: mesh {m}: expected triangles (mode 4), got mode {mode}; remedy: triangulate, drop others"
                )
            positions = tree["accessors"][_index(primitive["attributes"]["POSITION"])]
            if positions["componentType"] != FLOAT or positions["type"] != "VEC3":
                raise UserError(f"{name}: mesh {m}: expected positions of three floats, got {positions['type']}")
            _span(name, tree, buffers, positions, 12)
            if "indices" not in primitive:
                continue
            accessor = tree["accessors"][_index(primitive["indices"])]
            dtype = np.dtype(INDEX_TYPES[accessor["componentType"]]).newbyteorder("<")
            found = _span(name, tree, buffers, accessor, dtype.itemsize)
            if found is None or not accessor["count"]:
                continue
            highest = int(np.frombuffer(found, dtype, _index(accessor["count"])).max())
            if highest >= positions["count"]:
                raise UserError(f"{name}: mesh {m}: expected vertex numbers in 0..{positions['count'] - 1}, got {highest}")


def _index(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"expected a number from 0, got {value!r}")
    return value


def read_buffer(name: str, path: Path, number: int, buffer: dict, binary: bytes | None) -> bytes:
    """The bytes of buffer `number`, in the file itself or beside it. Raises: UserError where they are missing or too few."""
    uri = buffer.get("uri")
    if uri is None:
        content = binary
    elif uri.startswith("data:"):
        content = base64.b64decode(uri.split(",", 1)[1])
    else:
        beside = path.parent / unquote(uri)
        if not beside.is_file():
            raise UserError(f"{name}: expected its buffer {uri!r} beside it, found none; remedy: put the file there")
        content = beside.read_bytes()
    if content is None or len(content) < buffer["byteLength"]:
        got = 0 if content is None else len(content)
        raise UserError(f"{name}: buffer {number}: expected {buffer['byteLength']} bytes, got {got}; truncated")
    return content


def _span(name: str, tree: dict, buffers: list[bytes], accessor: dict, size: int) -> bytes | None:
    """The bytes of a packed accessor; None where they are sparse or have gaps, which the importer reads itself."""
    if "bufferView" not in accessor:
        return None
    view = tree["bufferViews"][_index(accessor["bufferView"])]
    content = buffers[_index(view["buffer"])]
    start = _index(view.get("byteOffset", 0))
    stride = _index(view.get("byteStride", size))
    offset, count = _index(accessor.get("byteOffset", 0)), _index(accessor["count"])
    needed = offset + (count - 1) * stride + size if count else 0
    if needed > _index(view["byteLength"]) or start + view["byteLength"] > len(content):
        raise UserError(
            f"{name}: expected {needed} bytes of an accessor, got a view of {view['byteLength']}; truncated or damaged"
        )
    return content[start + offset : start + needed] if stride == size and "sparse" not in accessor else None
