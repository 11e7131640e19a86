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
    """A file that somebody else published, or, with `files`, a folder of them.

    A folder's sha256 is that of the text that `sha256sum` prints for its files, in their order here.
    """

    name: str
    path: str  # below a data folder
    url: str  # upstream address, with the commit
    sha256: str
    licence: str
    what: str
    files: tuple[str, ...] = ()


_TEST_MODELS = (
    "https://raw.githubusercontent.com/alecjacobson/common-3d-test-models/8a4f8642acaf43f9cd7b67858a1502e1055ef202/data"
)
_DIFF_PD = "https://raw.githubusercontent.com/mit-gfx/diff_pd_public/1594aa07a6983ff9a9c107e9f0d83d07fa99c8d1/asset/mesh"
_GYMNASIUM = "https://raw.githubusercontent.com/Farama-Foundation/Gymnasium/53bf3e9a884783eb72ad3fc8b15780914c97c3e1/gymnasium/envs/mujoco/assets"
_NEWTON = (
    "https://raw.githubusercontent.com/newton-physics/newton/41a5392c13b911afc41aacb0e7189c6df63b5fc6/newton/examples/assets"
)
_DIFFHAND = "https://raw.githubusercontent.com/eanswer/DiffHand/c53b5c49c1608293689d83645685df6bcaf19aa6/assets"

_PENDULUM_RIG = (
    "https://raw.githubusercontent.com/dfki-ric-underactuated-lab/double_pendulum/1e8544e67f3da72a51ee52fbbb278e131ce2a43f/data"
)
_RIG_RUNS = f"{_PENDULUM_RIG}/experiment_records/design_A.0/20220812/sys_id"
_RIG_MODELS = f"{_PENDULUM_RIG}/system_identification/identified_parameters/design_A.0"

_CONTACT_NETS = "https://raw.githubusercontent.com/DAIRLab/contact-nets/c3dc21c94577ff4ed99123f0b00bfe57bb2d1d90/data"
_TOSSES = (
    15, 23, 30, 31, 61, 105, 132, 142, 151, 169, 176, 197, 221, 255, 257, 267, 273, 279, 283, 292, 348, 353, 354, 370, 416, 420,
    422, 425, 435, 442, 443, 447, 452, 509, 512, 519, 533, 540, 553, 565,
)  # fmt: skip

_ITEMS = (
    Item(
        "pendulum_wall",
        "video/pendulum_wall.mp4",
        "https://raw.githubusercontent.com/necrosskull/opencv_pendulum/92aaf6f3ad3de05701810d5dcfe781f3f84baa85/ball.mp4",
        "cfccacc421d25a15782770deab3d3290d6ee7e86ce8cf70b03fa9eff923bd60c",
        "MIT",
        "phone clip, 360x640, 29.92 frames/s, 334 frames: a ball on a string strikes a wall again and again",
    ),
    Item(
        "spot",
        "mesh/spot.obj",
        f"{_TEST_MODELS}/spot.obj",
        "0738b5e8608fed74e5e8c7aa8dd0af97b4b74f9f6cbf7aac84cd7e40b2e44a75",
        "as its author states: Keenan Crane's model repository",
        "triangle mesh of a cow, closed, 2930 vertices, 5856 faces",
    ),
    Item(
        "stanford_bunny",
        "mesh/stanford-bunny.obj",
        f"{_TEST_MODELS}/stanford-bunny.obj",
        "1eb35d1e21ce99e5ce911353b6be278990713448dd9e8f5c9387f9de39b32205",
        "Stanford 3D Scanning Repository: research use, credit",
        "triangle mesh of a scanned rabbit, with holes, 35947 vertices, 69451 faces",
    ),
    Item(
        "suzanne",
        "mesh/suzanne.obj",
        f"{_TEST_MODELS}/suzanne.obj",
        "d8684326f9bd8cfc24d3d302c1042fa16f63d2e66e49ed56b413fa20bed271e6",
        "Blender's test model: see upstream",
        "mesh of a monkey's head, open, in several pieces",
    ),
    Item(
        "armadillo_low_res",
        "mesh/armadillo_low_res.obj",
        f"{_DIFF_PD}/armadillo_low_res.obj",
        "815eb4c08d27cf58b5057c4d0c005c26fa32fcd0ab9d4d9e5e75ebb29acd7de7",
        "MIT (repository); model: Stanford 3D Scanning Repository",
        "triangle mesh, closed, coarse",
    ),
    Item(
        "armadillo_10k_node",
        "mesh/armadillo_10k.node",
        f"{_DIFF_PD}/armadillo_10k.node",
        "6a242376f7292ad23e3dc165ea3f2c93e23e43c01eb1492d40c03630d97293dd",
        "MIT (repository); model: Stanford 3D Scanning Repository",
        "vertices of a TetGen mesh, numbered from 1, 14779 vertices",
    ),
    Item(
        "armadillo_10k_ele",
        "mesh/armadillo_10k.ele",
        f"{_DIFF_PD}/armadillo_10k.ele",
        "68e0c74dac242d51e1e34cce603c5d13a0c0b1be3548ee4d87a2914deebe4fb7",
        "MIT (repository); model: Stanford 3D Scanning Repository",
        "tetrahedra of the same mesh, numbered from 1, 54855 tetrahedra",
    ),
    Item(
        "gymnasium_ant",
        "robots/gymnasium_ant.xml",
        f"{_GYMNASIUM}/ant.xml",
        "cd5f83ef0ea35b0969e65d360c5bacd5b74ccaef6b27e4433b5168c605e3e2be",
        "MIT",
        "MJCF: four-legged ant on a free body, 8 turning joints",
    ),
    Item(
        "gymnasium_half_cheetah",
        "robots/gymnasium_half_cheetah.xml",
        f"{_GYMNASIUM}/half_cheetah.xml",
        "11797a5d69e8ac955e89ca6fdd3a0087f1c990094fda401ac51420de1b6c5494",
        "MIT",
        "MJCF: planar cheetah, 9 joints",
    ),
    Item(
        "gymnasium_hopper",
        "robots/gymnasium_hopper.xml",
        f"{_GYMNASIUM}/hopper.xml",
        "3ce93a055ffdcd83c0c701d2400768e40d2cbb9532f3c4ae33377c27f8b39f9e",
        "MIT",
        "MJCF: planar hopper, 6 joints",
    ),
    Item(
        "gymnasium_walker2d",
        "robots/gymnasium_walker2d.xml",
        f"{_GYMNASIUM}/walker2d.xml",
        "ac13373c7ac9003a5311c4704b314ed11149b3dd7600bbc02770487300f9ad2d",
        "MIT",
        "MJCF: planar walker, 9 joints",
    ),
    Item(
        "newton_quadruped",
        "robots/newton_quadruped.urdf",
        f"{_NEWTON}/quadruped.urdf",
        "dcb8d0261a6b3d1d91f86d4b25c9efb847ad62702074ea9339f89562da332304",
        "Apache-2.0",
        "URDF: four-legged robot, 12 turning joints",
    ),
    Item(
        "newton_cartpole",
        "robots/newton_cartpole.urdf",
        f"{_NEWTON}/cartpole.urdf",
        "02c18470061bb2918d11f5bd9d098c89cf8c7ffc094480167da816093778b24f",
        "Apache-2.0",
        "URDF: cart with two poles",
    ),
    Item(
        "diffhand_pendulum",
        "robots/diffhand_pendulum.xml",
        f"{_DIFFHAND}/pendulum.xml",
        "5b5419dd4e3a7b976ae8e624cfd60d23068ba8c2a8235b3cc6ca03d311fe967d",
        "MIT",
        "DiffHand's XML: pendulum, in cm and g",
    ),
    Item(
        "diffhand_double_pendulum",
        "robots/diffhand_double_pendulum.xml",
        f"{_DIFFHAND}/double_pendulum.xml",
        "b4beba516dc04bdba95f85630a0c167857be2fad00bce683925a8ed226454cd3",
        "MIT",
        "DiffHand's XML: double pendulum, in cm and g",
    ),
    Item(
        "diffhand_finger_torque",
        "robots/diffhand_finger_torque.xml",
        f"{_DIFFHAND}/finger_torque.xml",
        "5181f554bed4c8f6127d4f2a4412fa10f29960ba30f9b1c087e053d30b6dbf02",
        "MIT",
        "DiffHand's XML: finger of three links, in cm and g",
    ),
    Item(
        "double_pendulum_060143",
        "pendulum_rig/double_A0_sysid_060143.csv",
        f"{_RIG_RUNS}/20220812-060143-PM_measured.csv",
        "4ce7fd0a842c3f63513443152aa059ec08f0a05847e4757bf8b1fe7009af0d1e",
        "BSD-3-Clause",
        "measured double pendulum, 10 s at 200 samples/s: lifted forwards for 5 s, then let go; angles, rates, torques",
    ),
    Item(
        "double_pendulum_060329",
        "pendulum_rig/double_A0_sysid_060329.csv",
        f"{_RIG_RUNS}/20220812-060329-PM_measured.csv",
        "a8fad4acfc7600c2f09437a720dbc70c2808506ab158b792068a7cdcfbb6abd1",
        "BSD-3-Clause",
        "measured double pendulum, 10 s at 200 samples/s: lifted backwards for 5 s, then let go; angles, rates, torques",
    ),
    Item(
        "double_pendulum_model_2_0",
        "pendulum_rig/double_A0_identified_model_2.0.yml",
        f"{_RIG_MODELS}/model_2.0/model_parameters.yml",
        "2c03ccd07dc64a9d737c1dc5eaa4bc3d51c76f702b6a2164348594de0b35e01e",
        "BSD-3-Clause",
        "parameters of that double pendulum as its builders identified them, with friction",
    ),
    Item(
        "double_pendulum_model_2_1",
        "pendulum_rig/double_A0_identified_model_2.1.yml",
        f"{_RIG_MODELS}/model_2.1/model_parameters.yml",
        "43d14672611ad9cef17e8151d3df18499b140e03106c569490ab9e7a1caa7bef",
        "BSD-3-Clause",
        "parameters of that double pendulum as its builders identified them, without friction",
    ),
    Item(
        "cube_toss",
        "cube_toss/tosses_processed",
        f"{_CONTACT_NETS}/tosses_processed",
        "a4e43ac17e7431615fa503687f6ec46956344c40503c83969b5c6647ad96c002",
        "BSD-3-Clause",
        "40 measured tosses of a cube, 148 samples/s, one file each: position, quaternion, velocities",
        tuple(f"{number}.pt" for number in _TOSSES),
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


def _content(wanted: Item, path: Path) -> tuple[str, int]:
    """The sha256 of an item's file or folder, and its bytes."""
    if not wanted.files:
        return file_sha256(path), path.stat().st_size
    files = [path / name for name in wanted.files]
    listing = "".join(f"{file_sha256(file)}  {file.name}\n" for file in files)
    return hashlib.sha256(listing.encode()).hexdigest(), sum(file.stat().st_size for file in files)


def _verified(wanted: Item, path: Path) -> Path:
    try:
        got, size = _content(wanted, path)
    except OSError as error:
        raise UserError(f"data item {wanted.name!r}: cannot read {error.filename or path}: {error.strerror}") from error
    if got != wanted.sha256:
        raise UserError(
            f"data item {wanted.name!r}: {path}: expected sha256 {wanted.sha256[:12]}..., got {got[:12]}... "
            f"({size} bytes); remedy: delete the {'folder' if wanted.files else 'file'}, or fetch it anew from {wanted.url}"
        )
    return path


def _local(wanted: Item) -> Path | None:
    for _, folder in folders():
        path = folder / wanted.path
        if all((path / name).is_file() for name in wanted.files or ("",)):  # path / "" is path
            return _verified(wanted, path.absolute())
    return None


def _download(wanted: Item) -> Path:
    import pooch

    path = cache_folder() / wanted.path
    if wanted.files:
        for name in wanted.files:  # checked all together
            slow = pooch.HTTPDownloader(timeout=20)
            pooch.retrieve(f"{wanted.url}/{name}", known_hash=None, fname=name, path=path, downloader=slow)
        return _verified(wanted, path)
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
    except UserError:  # a folder whose content is wrong says so itself
        raise
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
