"""Whether a PLY file holds what its header promises: Open3D's reader returns what it could read of one that ends early."""

import struct
from pathlib import Path
from typing import NamedTuple

from dvc.errors import UserError

SIZES = {"char": 1, "uchar": 1, "int8": 1, "uint8": 1, "short": 2, "ushort": 2, "int16": 2, "uint16": 2}
SIZES |= {"int": 4, "uint": 4, "int32": 4, "uint32": 4, "float": 4, "float32": 4, "double": 8, "float64": 8}
CODES = {"char": "b", "uchar": "B", "int8": "b", "uint8": "B", "short": "h", "ushort": "H", "int16": "h", "uint16": "H"}
CODES |= {"int": "i", "uint": "I", "int32": "i", "uint32": "I"}
LONGEST_HEADER = 1 << 20


class Element(NamedTuple):
    """An element of the header; a property is (type,) or (type of the count, type of the items)."""

    name: str
    rows: int
    properties: list[tuple[str, ...]]


def check_ply_length(name: str, path: Path) -> None:
    """Raises: UserError for a header that is not one, rows that are missing or cut off, words that are no numbers, and faces of
    fewer than three vertices."""
    content = path.read_bytes()
    end = content.find(b"end_header", 0, LONGEST_HEADER)
    start = content.find(b"\n", end) + 1
    if not content.startswith(b"ply") or end < 0 or start == 0:
        raise UserError(
            f"{name}: expected a PLY header from 'ply' to 'end_header', got {content[:20]!r}; not a PLY, or truncated"
        )
    layout, elements = _header(name, content[:end].decode("latin-1").split("\n"))
    if layout == "ascii":
        _check_words(name, elements, content[start:].split(b"\n"))
    else:
        _check_bytes(name, elements, content, start, "<" if layout == "binary_little_endian" else ">")


def _header(name: str, lines: list[str]) -> tuple[str, list[Element]]:
    layout, elements = "", list[Element]()
    for line in lines[1:]:
        words = line.split()
        try:
            if words[:1] == ["format"]:
                layout = words[1]
            elif words[:1] == ["element"]:
                elements.append(Element(words[1], int(words[2]), []))
            elif words[:2] == ["property", "list"]:
                elements[-1].properties.append((words[2], words[3]))
                SIZES[words[3]], CODES[words[2]]
            elif words[:1] == ["property"]:
                elements[-1].properties.append((words[1],))
                SIZES[words[1]]
        except (IndexError, ValueError, KeyError):
            raise UserError(f"{name}: expected a line of a PLY header, got {line.strip()[:60]!r}") from None
    if layout not in ("ascii", "binary_little_endian", "binary_big_endian"):
        raise UserError(f"{name}: expected an ASCII or binary PLY, got the format {layout!r}")
    return layout, elements


def _short(name: str, element: Element, row: int) -> UserError:
    return UserError(f"{name}: expected {element.rows} rows of {element.name!r}, the file ends in row {row}: truncated")


def _check_face(name: str, element: Element, row: int, count: int) -> None:
    if element.name == "face" and count < 3:
        raise UserError(f"{name}: face {row}: expected at least three vertices, got {count}")


def _check_words(name: str, elements: list[Element], lines: list[bytes]) -> None:
    rows = (line.split() for line in lines if line.strip())
    for element in elements:
        for row in range(element.rows):
            words = next(rows, None)
            if words is None:
                raise _short(name, element, row)
            counts = []
            try:
                at = 0
                for kinds in element.properties:
                    if len(kinds) == 1:
                        float(words[at])
                        at += 1
                    else:
                        count = int(words[at])
                        [float(words[at + 1 + i]) for i in range(count)]
                        at += 1 + count
                        counts.append(count)
            except IndexError:
                raise _short(name, element, row) from None
            except ValueError:
                raise UserError(
                    f"{name}: {element.name} {row}: expected numbers, got {b' '.join(words).decode('latin-1')[:60]!r}"
                ) from None
            for count in counts:
                _check_face(name, element, row, count)


def _check_bytes(name: str, elements: list[Element], content: bytes, at: int, order: str) -> None:
    for element in elements:
        if all(len(kinds) == 1 for kinds in element.properties):
            stride = sum(SIZES[kinds[0]] for kinds in element.properties)
            if at + element.rows * stride > len(content):
                raise _short(name, element, (len(content) - at) // stride)
            at += element.rows * stride
            continue
        counters = [(struct.Struct(order + CODES[kinds[0]]), SIZES[kinds[1]]) if len(kinds) == 2 else None
                    for kinds in element.properties]  # fmt: skip
        for row in range(element.rows):
            for kinds, counter in zip(element.properties, counters):
                if counter is None:
                    at += SIZES[kinds[0]]
                    continue
                if at + counter[0].size > len(content):
                    raise _short(name, element, row)
                (count,) = counter[0].unpack_from(content, at)
                _check_face(name, element, row, count)
                at += counter[0].size + count * counter[1]
            if at > len(content):
                raise _short(name, element, row)
