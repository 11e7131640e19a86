"""Real clips and data sets by name: where each comes from, its sha256, its licence, and where it lies on this machine.

None of them is part of the project. An item is looked for in `$DIFFVC_DATA`, in `./data` and in the download cache, and
only then fetched from its upstream address. What is found is compared with the sha256 before anybody reads it.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dvc.errors import UserError

SCHEME = "data:"


class DataUnavailable(UserError):
    """An item was neither found on this machine nor could it be downloaded."""


class Item(NamedTuple):
    """A file that somebody else published."""

    name: str
    path: str  # below a data folder
    url: str  # upstream address, with the commit
    sha256: str
    licence: str
    what: str


_ITEMS = (
    Item(
        "pendulum_wall",
        "video/pendulum_wall.mp4",
        "https://raw.githubusercontent.com/necrosskull/opencv_pendulum/92aaf6f3ad3de05701810d5dcfe781f3f84baa85/ball.mp4",
        "cfccacc421d25a15782770deab3d3290d6ee7e86ce8cf70b03fa9eff923bd60c",
        "MIT",
        "phone clip, 360x640, 29.92 frames/s, 334 frames: a ball on a string strikes a wall again and again",
    ),
)


def items() -> list[Item]:
    """Every item that can be asked for by name."""
    return list(_ITEMS)


def item(name: str) -> Item:
    """An item by its name. Raises: UserError for an unknown one."""
    for candidate in _ITEMS:
        if candidate.name == name:
            return candidate
    raise UserError(f"data item: expected one of {', '.join(i.name for i in _ITEMS)}, got {name!r}")


def cache_folder() -> Path:
    """Where downloads are kept: `$XDG_CACHE_HOME/diffvc` or the system's usual place for caches."""
    import pooch

    return Path(pooch.os_cache("diffvc"))


def folders() -> Iterator[tuple[str, Path]]:
    """What a data folder is called in messages, and where it is, in the order of the search."""
    named = os.environ.get("DIFFVC_DATA")
    if named:
        yield "$DIFFVC_DATA", Path(named).expanduser()
    yield "./data", Path("data")
    yield "the download cache", cache_folder()


def file_sha256(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _verified(wanted: Item, path: Path) -> Path:
    try:
        got = file_sha256(path)
    except OSError as error:
        raise UserError(f"data item {wanted.name!r}: cannot read {path}: {error.strerror}") from error
    if got != wanted.sha256:
        raise UserError(
            f"data item {wanted.name!r}: {path}: expected sha256 {wanted.sha256[:12]}..., got {got[:12]}... "
            f"({path.stat().st_size} bytes); remedy: delete the file, or fetch it anew from {wanted.url}"
        )
    return path


def _local(wanted: Item) -> Path | None:
    for _, folder in folders():
        path = folder / wanted.path
        if path.is_file():
            return _verified(wanted, path.absolute())
    return None


def _download(wanted: Item) -> Path:
    import pooch

    path = cache_folder() / wanted.path
    fetched = pooch.retrieve(
        wanted.url,
        known_hash=f"sha256:{wanted.sha256}",
        fname=path.name,
        path=path.parent,
        downloader=pooch.HTTPDownloader(timeout=20),
    )
    return Path(fetched)


def find(name: str, download: bool = True) -> Path:
    """The absolute path of an item whose content was verified.

    Raises: UserError for an unknown name and for a file whose sha256 is wrong; DataUnavailable, with the places that
        were looked at, where it is not on this machine and cannot be downloaded (or `download` is False).
    """
    wanted = item(name)
    path = _local(wanted)
    if path is not None:
        return path
    places = ", ".join(f"{label} ({folder / wanted.path})" for label, folder in folders())
    if not download:
        raise DataUnavailable(f"data item {name!r}: not in {places}; remedy: diffvc data fetch {name}")
    try:
        return _download(wanted)
    except Exception as error:  # requests, urllib3, ssl, OSError, a wrong sha256: all mean that it cannot be had
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:70]
        raise DataUnavailable(
            f"data item {name!r}: not in {places}, and the download from {wanted.url} failed ({reason}); "
            f"remedy: put the file there by hand and set DIFFVC_DATA to the folder above {Path(wanted.path).parent}"
        ) from error


def resolve(path_or_name: str | os.PathLike[str]) -> Path:
    """`data:NAME` is an item; anything else is the path of a file, which must exist.

    Raises: UserError for a missing file, an unknown item or a wrong sha256; DataUnavailable as `find`.
    """
    text = os.fspath(path_or_name)
    if text.startswith(SCHEME):
        return find(text[len(SCHEME) :])
    path = Path(text).expanduser()
    if not path.is_file():
        got = "a folder" if path.is_dir() else "nothing there"
        known = ", ".join(SCHEME + i.name for i in _ITEMS)
        raise UserError(
            f"file {text!r}: expected a file, got {got} (in {Path.cwd()}); remedy: correct the path, or use {known}"
        )
    return path.absolute()


class Status(NamedTuple):
    """Where an item is: `path` is None where it is not on this machine; `problem` says what is wrong with what was found."""

    item: Item
    path: Path | None
    problem: str


def status() -> list[Status]:
    """Every item, and where it lies. Nothing is downloaded."""
    rows = []
    for wanted in _ITEMS:
        try:
            rows.append(Status(wanted, _local(wanted), ""))
        except UserError as error:
            rows.append(Status(wanted, None, str(error)))
    return rows
