"""dvc/data.py: where items are found, and what is refused."""

import hashlib
from pathlib import Path

import pytest

from dvc import data
from dvc.errors import UserError

CONTENT = b"a clip"
ITEM = data.Item("toy", "video/toy.mp4", "https://example.invalid/toy.mp4", hashlib.sha256(CONTENT).hexdigest(), "MIT", "a toy")


@pytest.fixture
def folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Path]:
    """One item, and the three places where it is looked for, all empty."""
    places = {name: tmp_path / name for name in ("variable", "here/data", "cache")}
    for place in places.values():
        place.mkdir(parents=True)
    monkeypatch.setattr(data, "_ITEMS", (ITEM,))
    monkeypatch.setattr(data, "cache_folder", lambda: places["cache"])
    monkeypatch.setenv("DIFFVC_DATA", str(places["variable"]))
    monkeypatch.chdir(tmp_path / "here")
    return places


def put(folder: Path, content: bytes = CONTENT) -> Path:
    path = folder / ITEM.path
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_folders_are_searched_in_order(folders: dict[str, Path]) -> None:
    for place in ("cache", "here/data", "variable"):
        expected = put(folders[place])
        found = data.find("toy", download=False)
        assert found == expected and found.is_absolute()


def test_wrong_content_is_refused(folders: dict[str, Path]) -> None:
    path = put(folders["variable"], b"another clip")
    with pytest.raises(UserError, match=r"toy.*expected sha256.*got.*remedy") as caught:
        data.find("toy")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert data.status()[0].path is None and "sha256" in data.status()[0].problem


def test_missing_item_says_where_it_was_looked_for(folders: dict[str, Path]) -> None:
    with pytest.raises(data.DataUnavailable) as caught:
        data.find("toy", download=False)
    text = str(caught.value)
    assert all(str(folders[place] / ITEM.path) in text for place in ("variable", "cache")) and "data/video/toy.mp4" in text
    assert "\n" not in text and isinstance(caught.value, UserError)


def test_failed_download_is_one_line(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    import pooch

    def refuse(*arguments: object, **options: object) -> None:
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr(pooch, "retrieve", refuse)
    with pytest.raises(
        data.DataUnavailable, match=r"download from https://example.invalid.*ConnectionError: no network"
    ) as caught:
        data.find("toy")
    assert "\n" not in str(caught.value) and "DIFFVC_DATA" in str(caught.value)


def test_download_goes_to_the_cache(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    import pooch

    def deliver(url: str, known_hash: str, fname: str, path: Path, **options: object) -> str:
        assert url == ITEM.url and known_hash == f"sha256:{ITEM.sha256}"
        return str(put(folders["cache"]))

    monkeypatch.setattr(pooch, "retrieve", deliver)
    assert data.find("toy") == folders["cache"] / ITEM.path


def test_resolve(folders: dict[str, Path], tmp_path: Path) -> None:
    own = put(tmp_path)
    expected = put(folders["variable"])
    assert data.resolve(own) == own
    assert data.resolve("data:toy") == expected
    with pytest.raises(UserError, match=r"nope.mp4.*nothing there.*remedy"):
        data.resolve("nope.mp4")
    with pytest.raises(UserError, match="a folder"):
        data.resolve(tmp_path)
    with pytest.raises(UserError, match=r"expected one of toy, got 'tyo'"):
        data.resolve("data:tyo")


def test_items_name_their_origin() -> None:
    for item in data.items():
        assert item.url.startswith("https://raw.githubusercontent.com/") and len(item.url.split("/")[5]) == 40
        assert len(item.sha256) == 64 and item.licence and item.what


@pytest.mark.data("pendulum_wall")
def test_real_clip_is_what_it_should_be() -> None:
    assert data.find("pendulum_wall", download=False).stat().st_size == 324491


@pytest.mark.data("spot", "stanford_bunny", "suzanne", "armadillo_low_res", "armadillo_10k_node", "armadillo_10k_ele")
def test_meshes_are_what_they_should_be() -> None:
    names = ("spot", "stanford_bunny", "suzanne", "armadillo_low_res", "armadillo_10k_node", "armadillo_10k_ele")
    sizes = [data.find(name, download=False).stat().st_size for name in names]
    assert sizes == [330624, 2408417, 49137, 128172, 943853, 1755417]
