"""`import:` of a scene file: a model with its materials, lights and cameras.

    import: room.glb                                   # or {file: room.obj, up: y, unit: cm, leave_out: [normal map]}
    camera: Camera                                     # by name; the file's only one where the section is left out

Materials, bodies and lights of the scene file come besides; a material of the same name takes the place of the imported one.
"""

from pathlib import Path
from typing import Any

from dvc.errors import UserError
from dvc.records import Camera, Film
from render.import_gltf import read_gltf_scene
from render.import_obj import read_obj_scene
from render.imported import Imported, chosen_camera, film_camera
from render.scene_values import items, section, text


def read_import(where: str, value: Any, folder: Path) -> Imported:
    """The model that a section names; an empty one without section. Raises: UserError, Unsupported, as the readers."""
    if value is None:
        return Imported([], [], {}, [], {})
    given = {"file": value} if isinstance(value, str) else value
    section(where, given, ("file", "unit", "up", "leave_out"), ["file"])
    path = folder / Path(text(f"{where}.file", given["file"])).expanduser()
    leave_out = [text(f"{where}.leave_out[{i}]", entry) for i, entry in enumerate(items(where, given.get("leave_out")))]
    if path.suffix.lower() == ".obj":
        return read_obj_scene(path, given.get("unit"), given.get("up"), leave_out)
    if path.suffix.lower() in (".glb", ".gltf"):
        for key in ("unit", "up"):
            if key in given:
                raise UserError(f"{where}.{key}: expected none, since glTF is in metres and y up; remedy: leave it out")
        return read_gltf_scene(path, leave_out)
    raise UserError(f"{where}.file: expected one of .obj, .gltf, .glb, got {path.suffix or 'no ending'!r}")


def imported_camera(where: str, value: Any, model: Imported, film: Film) -> Camera:
    """A camera of the model by its name; without name the only one. Raises: UserError."""
    wanted = None if value is None else text(where, value)
    return film_camera(chosen_camera(where, model.cameras, wanted), film)
