"""What an MJCF file holds and the importer does not use: every element and attribute outside the tables below is listed."""

from pathlib import Path
from xml.etree.ElementTree import Element

from physics.robot_xml import LOOKS, LeftOut, read_xml

_POSE = {"pos", "quat", "axisangle", "xyaxes", "zaxis", "euler"}
_ACTUATOR = {
    "name",
    "class",
    "group",
    "joint",
    "jointinparent",
    "gear",
    "ctrllimited",
    "ctrlrange",
    "forcelimited",
    "forcerange",
}
_ALL = None  # MuJoCo's compiler applies every attribute before the importer reads the result

# Elements whose attributes (those named) end in the description.
_UNDERSTOOD: dict[str, set[str] | None] = {
    "mujoco": {"model"},
    "compiler": _ALL,
    "include": _ALL,
    "replicate": _ALL,
    "attach": _ALL,
    "model": _ALL,
    "frame": _ALL,
    "default": {"class"},
    "option": {"gravity"},
    "flag": {"gravity"},
    "asset": set(),
    "worldbody": set(),
    "actuator": set(),
    "body": {"name", "childclass"} | _POSE,
    "inertial": _ALL,
    "freejoint": {"name", "group", "align"},
    "joint": {"name", "class", "group", "type", "pos", "axis", "limited", "range", "ref", "springref", "springdamper"}
    | {"stiffness", "damping", "armature", "frictionloss"},
    "geom": {
        "name",
        "class",
        "group",
        "type",
        "size",
        "fromto",
        "mass",
        "density",
        "shellinertia",
        "friction",
        "mesh",
        "fitscale",
    }
    | {"contype", "conaffinity"}
    | _POSE,
    "mesh": {"name", "class", "file", "scale", "content_type", "inertia"},
    "motor": _ACTUATOR,
    "position": _ACTUATOR | {"kp", "kv", "dampratio", "inheritrange", "timeconst"},
    "velocity": _ACTUATOR | {"kv"},
    "general": _ACTUATOR | {"gaintype", "gainprm", "biastype", "biasprm", "dyntype", "dynprm"},
}
_LOOKS_ELEMENTS = {"light", "camera", "texture", "material", "skin", "visual", "statistic", "layer"}
_LOOKS_ATTRIBUTES = {"rgba", "material", "user", "smoothnormal", "texcoord", "maxhullvert"}
_WHY = {
    "condim": "contacts have normal and sliding friction forces",
    "solref": "stiffness and damping of contacts and limits are arguments of the simulation",
    "solimp": "stiffness and damping of contacts and limits are arguments of the simulation",
    "solreflimit": "stiffness and damping of limits are arguments of the simulation",
    "solimplimit": "stiffness and damping of limits are arguments of the simulation",
    "solreffriction": "dry friction of joints has its own law",
    "solimpfriction": "dry friction of joints has its own law",
    "margin": "contacts and limits act from touch-down on",
    "gap": "contacts and limits act from touch-down on",
    "timestep": "the caller chooses it",
    "integrator": "the caller chooses it",
    "size": "memory of MuJoCo",
    "site": "marks places and moves nothing",
}
# Sections whose children have no record.
_SECTIONS = {
    "contact": "which pairs touch comes from category and mask alone",
    "equality": "the constraint is not enforced",
    "tendon": "there is no record for it",
    "sensor": "there is no record for it",
    "keyframe": "a start is an argument of the simulation",
    "custom": "MuJoCo does not use it either",
    "extension": "plugins are not run",
    "deformable": "there is no record for it",
}


def census(root: Element, folder: Path, left_out: LeftOut) -> None:
    """Note what the importer does not use; included files (from `folder`) are read too.

    Raises: UserError for an included file that is missing or malformed.
    """
    _visit(root, folder, left_out, "")


def _visit(element: Element, folder: Path, left_out: LeftOut, place: str) -> None:
    tag = element.tag
    if tag == "include":
        _visit(read_xml(folder / element.get("file", "")), folder, left_out, place)
        return
    place = _place(element, place)
    if tag in _SECTIONS:
        for child in element:
            left_out.add(f"<{tag}> {child.tag}", _SECTIONS[tag], child.get("name", ""))
        return
    if tag in _LOOKS_ELEMENTS:
        left_out.add(f"<{tag}>", LOOKS)
        return
    if tag not in _UNDERSTOOD:
        left_out.add(f"<{tag}>", _WHY.get(tag, "there is no record for it"), element.get("name") or place)
        return
    known = _UNDERSTOOD[tag]
    if known is not None:
        for key in (key for key in element.attrib if key not in known):
            looks = key in _LOOKS_ATTRIBUTES
            left_out.add(
                f"<{tag}> {key}", LOOKS if looks else _WHY.get(key, "there is no record for it"), "" if looks else place
            )
    if tag == "geom" and len(element.get("friction", "").split()) > 1:
        left_out.add("<geom> friction beyond its first number", "torsional and rolling friction are not there", place)
    for child in element:
        _visit(child, folder, left_out, place)


def _place(element: Element, place: str) -> str:
    if element.tag == "default":
        return f"default {element.get('class', '')}".strip()
    return element.get("name", "") if element.tag in ("body", "geom", "joint") and element.get("name") else place
