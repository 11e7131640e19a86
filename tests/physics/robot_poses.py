"""Poses of a described robot's links in float64, written apart from the package's own code: products of 4x4 matrices."""

import numpy as np
from scipy.spatial.transform import Rotation

from physics.robot_spec import RobotSpec


def matrix(position: object, turn: Rotation) -> np.ndarray:
    result = np.eye(4)
    result[:3, :3], result[:3, 3] = turn.as_matrix(), position
    return result


def poses(spec: RobotSpec, coordinates: dict[str, object]) -> dict[str | None, np.ndarray]:
    """Each link's frame in the world, (4, 4). Coordinates: a number for a sliding or turning joint, a Rotation for a spherical
    one, (position, Rotation) for a free one."""
    found: dict[str | None, np.ndarray] = {None: np.eye(4)}
    joints = list(spec.joints)
    while joints:
        joint = joints.pop(0)
        if joint.parent not in found:
            joints.append(joint)
            continue
        move, turn = np.zeros(3), Rotation.identity()
        value = coordinates.get(joint.name, 0.0)
        if joint.kind == "prismatic":
            move = value * np.array(joint.axis)
        elif joint.kind == "revolute":
            turn = Rotation.from_rotvec(value * np.array(joint.axis))
        elif joint.kind == "spherical":
            turn = value
        elif joint.kind == "free" and value != 0.0:
            move, turn = value
        frame = matrix(joint.position, Rotation.from_quat(joint.rotation))
        found[joint.child] = found[joint.parent] @ frame @ matrix(move, turn)
    return found
