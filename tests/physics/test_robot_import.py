"""physics/robot_import.py: which reader a file gets, and files that are none."""

import sys
from pathlib import Path

import pytest

from dvc.errors import UserError
from physics.robot_import import read_robot


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "expected a file, got nothing there"),
        (b"", "got an empty file"),
        (b"  \n", "got an empty file"),
        (b"<robot><link></robot>", "malformed XML"),
        (b"\xff\xfe\x00", "malformed XML"),
        (b"not xml", "malformed XML"),
        (b"<sdf/>", r"<robot> \(URDF\).* got <sdf>"),
        (b"<mujoco/>", "at least one link"),
    ],
)
def test_files_that_are_no_robots(content: bytes | None, message: str, tmp_path: Path) -> None:
    if content == b"<mujoco/>":
        pytest.importorskip("mujoco")
    path = tmp_path / "robot.xml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_robot(path)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)


def test_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="got a folder"):
        read_robot(tmp_path)


@pytest.mark.parametrize(
    ("module", "text"),
    [
        ("mujoco", '<mujoco><worldbody><body><joint/><geom size="1"/></body></worldbody></mujoco>'),
        ("yourdfpy", '<robot name="r"><link name="a"/></robot>'),
    ],
)
def test_missing_package_is_named(module: str, text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    path = tmp_path / "robot.xml"
    path.write_text(text)
    with pytest.raises(UserError, match=rf"needs {module}.*pip install 'diffvc\[robots\]'"):
        read_robot(path)
