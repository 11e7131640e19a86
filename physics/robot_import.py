"""A robot from a file: URDF, MJCF or DiffHand's XML, told apart by the root element."""

import os
from dataclasses import replace
from pathlib import Path

from dvc import data
from dvc.errors import Unsupported, UserError
from physics.robot_check import check_spec
from physics.robot_spec import RobotSpec
from physics.robot_xml import read_xml

BASES = ("as_in_file", "free")


def read_robot(path: str | os.PathLike[str], *, base: str = "as_in_file") -> RobotSpec:
    """The robot that a file describes; `data:NAME` is an item of `dvc.data`.

    base: "as_in_file" leaves the root as the file says: a URDF's root link is fixed to the world, at its origin, and so is a
    body of an MJCF without a joint. "free" gives every root link that would be fixed a free joint.
    `not_understood` of the result says, a line each, what the file holds and the result does not.

    Raises: UserError, one line, for a file that is missing, empty or malformed and for whatever `check_spec` refuses;
        Unsupported for a joint or shape that there is no record for; both name the file and the link or joint.
    """
    if base not in BASES:
        raise UserError(f"base: expected one of {', '.join(BASES)}, got {base!r}")
    file = (
        data.find(os.fspath(path)[len(data.SCHEME) :]) if os.fspath(path).startswith(data.SCHEME) else Path(path).expanduser()
    )
    root = read_xml(file)
    try:
        spec = _read(file.absolute(), root.tag)
        if base == "free":
            spec = _released(spec)
        check_spec(spec)
    except (UserError, Unsupported) as error:
        raise type(error)(f"robot file {file}: {error}") from error
    return spec


def _read(file: Path, tag: str) -> RobotSpec:
    if tag == "robot":
        from physics.urdf_import import read_urdf

        return read_urdf(file)
    if tag == "mujoco":
        from physics.mjcf_import import read_mjcf

        return read_mjcf(file)
    if tag == "redmax":
        from physics.diffhand_import import read_diffhand

        return read_diffhand(file)
    raise UserError(f"expected <robot> (URDF), <mujoco> (MJCF) or <redmax> (DiffHand) as the root element, got <{tag}>")


def _released(spec: RobotSpec) -> RobotSpec:
    roots = [joint for joint in spec.joints if joint.parent is None]
    if not any(joint.kind == "fixed" for joint in roots):
        held = ", ".join(f"{joint.name!r} ({joint.kind})" for joint in roots)
        raise UserError(f'base="free": expected a root link that is fixed to the world, got root joints {held}')
    free = {joint.name: replace(joint, kind="free") for joint in roots if joint.kind == "fixed"}
    return replace(spec, joints=tuple(free.get(joint.name, joint) for joint in spec.joints))
