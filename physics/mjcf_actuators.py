"""MJCF actuators that are a torque, a position servo or a velocity servo on one joint.

MuJoCo: force p = gain u + b0 + b1 l + b2 l' with l = g q for a transmission with gear g; the joint gets g p. So
(gain, b) = (k, 0, 0, 0) is a torque g k u; (kp, 0, -kp, -kv) a position servo with gains g^2 kp, g^2 kv about u / g;
(kv, 0, 0, -kv) a velocity servo with gain g^2 kv about u / g.
"""

import math
from typing import Any

from physics.robot_spec import ActuatorSpec
from physics.robot_xml import LeftOut

_JOINT_TRANSMISSIONS = (0, 1)  # joint, jointinparent
_SLIDE_OR_HINGE = (2, 3)
_REMEDY = "the record has torque, position and velocity on sliding and turning joints"


def read_actuators(model: Any, joint_names: dict[int, str], left_out: LeftOut) -> tuple[ActuatorSpec, ...]:
    """The actuators of a compiled model; those that there is no record for are noted."""
    actuators = []
    names: set[str] = set()
    for number in range(model.nu):
        own = model.actuator(number).name
        joint = int(model.actuator_trnid[number][0])
        on_joint = int(model.actuator_trntype[number]) in _JOINT_TRANSMISSIONS
        if not on_joint or int(model.jnt_type[joint]) not in _SLIDE_OR_HINGE:
            what = "a ball or free joint" if on_joint else "a tendon, site or body"
            left_out.add(f"<actuator> on {what}", _REMEDY, own or f"actuator {number}")
            continue
        name = own or f"{joint_names[joint]}_actuator"
        while name in names:
            name = f"{name}_{number}"
        names.add(name)
        actuator = _reduced(model, number, name, joint_names[joint], left_out)
        if actuator is None:
            left_out.add("<actuator> with its own dynamics or gain", _REMEDY, name)
        else:
            actuators.append(actuator)
    return tuple(actuators)


def _reduced(model: Any, number: int, name: str, joint: str, left_out: LeftOut) -> ActuatorSpec | None:
    if int(model.actuator_dyntype[number]) or int(model.actuator_gaintype[number]) or int(model.actuator_biastype[number]) > 1:
        return None
    gear = float(model.actuator_gear[number][0])
    gain = float(model.actuator_gainprm[number][0])
    b0, b1, b2 = map(float, model.actuator_biasprm[number][:3]) if int(model.actuator_biastype[number]) else (0.0, 0.0, 0.0)
    lower, upper = map(float, model.actuator_ctrlrange[number]) if model.actuator_ctrllimited[number] else (None, None)
    limit = _limit(model, number, name, abs(gear), left_out)
    if (b0, b1, b2) == (0.0, 0.0, 0.0):
        return ActuatorSpec(name, joint, "torque", gear=gear * gain, lower=lower, upper=upper, limit=limit)
    if gear == 0.0 or b0 != 0.0:
        return None
    if lower is not None and upper is not None:
        lower, upper = sorted((lower / gear, upper / gear))
    square = gear * gear
    if gain == -b1 and gain >= 0.0 >= b2:
        return ActuatorSpec(name, joint, "position", kp=square * gain, kd=-square * b2, lower=lower, upper=upper, limit=limit)
    if b1 == 0.0 and gain == -b2 and gain >= 0.0:
        return ActuatorSpec(name, joint, "velocity", kd=square * gain, lower=lower, upper=upper, limit=limit)
    return None


def _limit(model: Any, number: int, name: str, gear: float, left_out: LeftOut) -> float | None:
    if not model.actuator_forcelimited[number]:
        return None
    lower, upper = map(float, model.actuator_forcerange[number])
    if not math.isclose(lower, -upper, rel_tol=1e-9):
        left_out.add("<actuator> forcerange that is not symmetric", "the limit of a torque is the same both ways", name)
        return None
    return gear * upper
