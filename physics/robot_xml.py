"""Robot files as XML: what is wrong with a file before its format matters, and the list of what an importer left out."""

import math
import re
import xml.etree.ElementTree as ElementTree
import xml.parsers.expat as expat
from pathlib import Path
from xml.etree.ElementTree import Element

from dvc.errors import UserError

LOOKS = "for looks only"
# Attributes that hold names: "nan" is a name there.
_TEXT = frozenset({"name", "class", "childclass", "model", "file", "filename", "joint", "body", "link", "mesh", "content_type"})
_PLACES_SHOWN = 3


class LeftOut:
    """What an importer met and left out: equal entries are counted, and become one line."""

    def __init__(self) -> None:
        self._places: dict[tuple[str, str], list[str]] = {}

    def add(self, what: str, why: str, place: str = "") -> None:
        """Note `what` (an element or attribute), met at `place` (a link or joint), and why it does not count."""
        self._places.setdefault((what, why), []).append(place)

    def lines(self) -> tuple[str, ...]:
        """A line for each kind, what is for looks only last."""
        entries = sorted(self._places.items(), key=lambda entry: entry[0][1] == LOOKS)
        return tuple(f"{what}: {_count(places)}; {why}" for (what, why), places in entries)


def _count(places: list[str]) -> str:
    named = list(dict.fromkeys(place for place in places if place))
    if not named:
        return str(len(places))
    shown = ", ".join(named[:_PLACES_SHOWN]) + (", ..." if len(named) > _PLACES_SHOWN else "")
    return f"{len(places)} ({shown})"


def read_xml(path: Path) -> Element:
    """The root element of a file.

    Raises: UserError, one line, where the file is missing, empty or malformed, or where a number in it is NaN.
    """
    if not path.is_file():
        got = "a folder" if path.is_dir() else "nothing there"
        raise UserError(f"robot file {path}: expected a file, got {got}; remedy: correct the path")
    text = path.read_bytes()
    if not text.strip():
        raise UserError(f"robot file {path}: expected URDF, MJCF or DiffHand's XML, got an empty file")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(f"robot file {path}: malformed XML: {error}") from error
    _refuse_nan(root, path, "")
    return root


def label(element: Element) -> str:
    """How an element is called in a message: `link 'arm'`, or its tag where it has no name."""
    name = element.get("name")
    return f"{element.tag} {name!r}" if name else f"<{element.tag}>"


def _refuse_nan(element: Element, path: Path, place: str) -> None:
    place = label(element) if element.get("name") else place
    for key, value in element.attrib.items():
        if key not in _TEXT and "nan" in re.split(r"[\s,]+", value.lower()):
            raise UserError(f"robot file {path}: {place or label(element)}: {key} of <{element.tag}>: NaN in {value!r}")
    for child in element:
        _refuse_nan(child, path, place)


def numbers(element: Element, key: str, count: int, place: str) -> tuple[float, ...]:
    """The `count` numbers of an attribute. Raises: UserError that names `place`."""
    text = element.get(key)
    words = [] if text is None else text.replace(",", " ").split()
    try:
        values = tuple(float(word) for word in words)
    except ValueError:
        values = ()
    if len(values) != count or any(math.isnan(value) for value in values):
        expected = "a number" if count == 1 else f"{count} numbers"
        raise UserError(f"{place}: {key} of <{element.tag}>: expected {expected}, got {text!r}")
    return values


def place_of_line(path: Path, line: int, tag: str = "", name: str = "") -> str:
    """The innermost named body, link or joint around what begins in a line of a file (with a tag or a name, where given)."""
    stack: list[tuple[str, str]] = []
    found: list[list[tuple[str, str]]] = []
    parser = expat.ParserCreate()

    def start(element: str, attributes: dict[str, str]) -> None:
        called = attributes.get("name", "")
        stack.append((element, called))
        if parser.CurrentLineNumber == line and tag in ("", element) and name in ("", called):
            found.append(list(stack))

    def end(element: str) -> None:
        stack.pop()

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.Parse(path.read_bytes(), True)
    for element, called in reversed(found[-1] if found else []):
        if called and element in ("body", "link", "joint"):
            return f"{element} {called!r}"
    return ""
