"""dvc/data.py: an item that is a folder of files, checked by one sha256."""

import hashlib
from pathlib import Path

import pytest

from dvc import data
from dvc.errors import UserError

CONTENT = {"2.pt": b"two", "1.pt": b"one"}
LISTING = "".join(f"{hashlib.sha256(content).hexdigest()}  {name}\n" for name, content in CONTENT.items())
ITEM = data.Item(
    "tosses", "toys/tosses", "https://example.invalid/tosses", hashlib.sha256(LISTING.encode()).hexdigest(), "MIT", "two files",
    tuple(CONTENT),
)  # fmt: skip


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(data, "_ITEMS", (ITEM,))
    monkeypatch.setattr(data, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setenv("DIFFVC_DATA", str(tmp_path / "variable"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(folder: Path, first: bytes = CONTENT["1.pt"]) -> Path:
    path = folder / ITEM.path
    path.mkdir(parents=True)
    for name, content in (CONTENT | {"1.pt": first}).items():
        (path / name).write_bytes(content)
    return path


def test_a_whole_folder_is_found_and_others_in_it_do_not_matter(place: Path) -> None:
    expected = put(place / "variable")
    (expected / "README").write_text("more")
    assert data.find("tosses", download=False) == expected
    assert data.status()[0].path == expected


def test_a_changed_file_is_refused(place: Path) -> None:
    put(place / "variable", b"another")
    with pytest.raises(UserError, match=r"tosses.*expected sha256.*10 bytes.*delete the folder"):
        data.find("tosses", download=False)


def test_a_folder_with_a_file_missing_is_not_it(place: Path) -> None:
    (put(place / "variable") / "1.pt").unlink()
    with pytest.raises(data.DataUnavailable, match="not in"):
        data.find("tosses", download=False)
    whole = put(place / "cache")
    assert data.find("tosses", download=False) == whole


@pytest.mark.parametrize("good", [True, False])
def test_every_file_is_fetched_and_the_whole_is_checked(place: Path, monkeypatch: pytest.MonkeyPatch, good: bool) -> None:
    import pooch

    def deliver(url: str, known_hash: None, fname: str, path: Path, **options: object) -> str:
        assert url == f"{ITEM.url}/{fname}"
        path.mkdir(parents=True, exist_ok=True)
        (path / fname).write_bytes(CONTENT[fname] if good else b"something else")
        return str(path / fname)

    monkeypatch.setattr(pooch, "retrieve", deliver)
    if good:
        assert data.find("tosses") == place / "cache" / ITEM.path
    else:
        with pytest.raises(UserError, match=r"^data item 'tosses'.*expected sha256.*remedy"):
            data.find("tosses")


@pytest.mark.data("cube_toss")
def test_the_tosses_are_what_they_should_be() -> None:
    folder = data.find("cube_toss", download=False)
    assert len(data.item("cube_toss").files) == 40 and all(
        (folder / name).stat().st_size for name in data.item("cube_toss").files
    )
