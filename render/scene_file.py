"""A scene from a YAML file: what `diffvc render` shows, and a starting point for Python.

    camera: {position: [0, -4, 1], target: [0, 0, 0], fov: 40}         # degrees across the width
    film: {width: 256, height: 256}
    materials: {clay: {albedo: [0.7, 0.4, 0.3]}}
    bodies: [{mesh: bunny.obj, material: clay}, {plane: 1.0, material: clay}]
    environment: 1.0

Sections: import (`render.import_file`), camera, film, render, textures, materials, bodies (`render.scene_shapes`), lights,
environment. Lengths in metres, z up, angles in degrees, radiance and reflectance linear; files are looked for beside the YAML.
All keys: docs/rendering.md.
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dvc.cli_experiments import read_yaml
from dvc.errors import Unsupported, UserError
from dvc.records import Camera, Film
from render.camera import LookAtCamera
from render.image_file import read_image
from render.import_file import imported_camera, read_import
from render.procedural_texture import checker, noise
from render.scene import CONDUCTOR, DIFFUSE, DirectionalLight, EnvironmentMap, Material, PointLight, Scene, Texture
from render.scene_shapes import read_body
from render.scene_values import (
    by_name,
    colour,
    items,
    number,
    numbers,
    one_of,
    refuse_doubled_keys,
    section,
    text,
    truth,
    whole,
)
from render.textures import WRAPS

SECTIONS = ("name", "import", "camera", "film", "render", "textures", "materials", "bodies", "lights", "environment")
LARGEST_FILM = 16384  # pixels a side


class SceneFile(NamedTuple):
    """What a scene file holds."""

    scene: Scene
    camera: Camera
    film: Film
    names: list[str]  # of the bodies, in the order of scene.bodies
    pixel_filter: str
    filter_size: float | None
    samples: int
    depth: int
    roulette_depth: int | None
    exposure: float  # of pictures of 8 bits [stops]


def read_scene(path: str | Path) -> SceneFile:
    """Read a scene file.

    Raises: UserError, one line, with the place in the file, for anything that is missing, unknown or of the wrong kind.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"scene {str(path)!r}: expected a file, found {'a folder' if path.is_dir() else 'none'}")
    try:
        return _read(path)
    except (UserError, Unsupported) as error:
        if str(error).startswith(str(path)):
            raise
        raise type(error)(f"{path}: {error}") from error


def _read(path: Path) -> SceneFile:
    given = read_yaml(path)
    imports = isinstance(given, dict) and given.get("import") is not None
    content = section("scene", given, SECTIONS, [] if imports else ["camera", "materials", "bodies"])
    refuse_doubled_keys(path)
    model = read_import("import", content.get("import"), path.parent)
    film, pixel_filter, filter_size = _film(content.get("film", {}))
    view = content.get("camera")
    named = imports and not isinstance(view, dict)
    camera = imported_camera("camera", view, model, film) if named else _camera(view, film)
    textures = {
        name: _texture(f"textures.{name}", value, path.parent)
        for name, value in by_name("textures", content.get("textures")).items()
    }
    own = by_name("materials", content.get("materials"))
    materials = {**model.materials, **{name: _material(f"materials.{name}", value, textures) for name, value in own.items()}}
    listed = items("bodies", content.get("bodies"))
    bodies = [*model.bodies, *(read_body(f"bodies[{i}]", value, materials, path.parent) for i, value in enumerate(listed))]
    names = [*model.names, *(str(value.get("name", f"body {i}")) for i, value in enumerate(listed))]
    lights = [*model.lights] + [_light(f"lights[{i}]", value) for i, value in enumerate(items("lights", content.get("lights")))]
    environment: Tensor | EnvironmentMap | None = None
    if content.get("environment") is not None:
        environment = _environment(content["environment"], path.parent)
    how = section("render", content.get("render", {}), ("samples", "depth", "roulette_depth", "exposure"))
    roulette = how.get("roulette_depth")
    return SceneFile(
        Scene(bodies, materials, lights, environment), camera, film, names, pixel_filter, filter_size,
        whole("render.samples", how.get("samples", 64)), whole("render.depth", how.get("depth", 4)),
        None if roulette is None else whole("render.roulette_depth", roulette),
        number("render.exposure", how.get("exposure", 0.0), -40.0, 40.0),
    )  # fmt: skip


def _film(value: Any) -> tuple[Film, str, float | None]:
    given = section("film", value, ("width", "height", "filter", "filter_size"))
    width, height = (whole(f"film.{key}", given.get(key, 256)) for key in ("width", "height"))
    if max(width, height) > LARGEST_FILM:
        raise UserError(f"film: expected at most {LARGEST_FILM} pixels a side, got {width} x {height}")
    size = given.get("filter_size")
    return (
        Film(width, height, 0.0, 0.0, width, height, 1.0),
        text("film.filter", given.get("filter", "box"), ("box", "tent", "gaussian")),
        None if size is None else number("film.filter_size", size, 0.0, 64.0, above=True),
    )


def _camera(value: Any, film: Film) -> Camera:
    """A look-at camera, or one of raw numbers: rotation (world to camera, by rows), focal and center [px]."""
    where = "camera"
    keys = ("position", "target", "up", "roll", "fov", "focal", "center", "distortion", "rotation", "pixels_per_metre")
    given = section(where, value, keys, ["position"])
    position = numbers(f"{where}.position", given["position"], 3)[None]
    facing = one_of(where, given, ("target", "rotation"))
    lens = one_of(where, given, ("fov", "focal", "pixels_per_metre"))
    wrong = [key for key in ("up", "roll") if key in given] if facing == "rotation" else []
    if wrong:
        raise UserError(f"{where}.{wrong[0]}: expected none beside rotation; remedy: leave it out")
    if lens == "fov":
        angle = number(f"{where}.fov", given["fov"], 0.0, 179.0, above=True)
        focal = torch.tensor([0.5 * film.width / math.tan(math.radians(0.5 * angle))])
    elif isinstance(given[lens], list):
        focal = numbers(f"{where}.{lens}", given[lens], 2)[None]
    else:
        focal = torch.tensor([number(f"{where}.{lens}", given[lens], 0.0, above=True)])
    middle = [0.5 * film.width, 0.5 * film.height]
    center = numbers(f"{where}.center", given.get("center", middle), 2)[None]
    distortion = numbers(f"{where}.distortion", given["distortion"], 5)[None] if "distortion" in given else None
    if facing == "target":
        target = numbers(f"{where}.target", given["target"], 3)[None]
        up = numbers(f"{where}.up", given.get("up", [0, 0, 1]), 3)[None]
        roll = torch.tensor([math.radians(number(f"{where}.roll", given.get("roll", 0.0)))])
        camera = LookAtCamera(film.width, film.height)(
            position, target, focal=focal, up=up, roll=roll, center=center, distortion=distortion
        )
        return camera._replace(orthographic=lens == "pixels_per_metre")
    rows = items(f"{where}.rotation", given["rotation"])
    flat = [entry for row in rows for entry in (row if isinstance(row, list) else [row])]
    rotation = numbers(f"{where}.rotation", flat, 9).reshape(3, 3)
    if float((rotation @ rotation.T - torch.eye(3)).abs().max()) > 1e-3 or float(torch.linalg.det(rotation)) < 0.0:
        raise UserError(f"{where}.rotation: expected a rotation matrix (world to camera, by rows), got {rows}")
    return Camera(position, rotation[None], focal, center, lens == "pixels_per_metre", distortion)


def _texture(where: str, value: Any, folder: Path) -> Texture:
    given = section(where, value, ("file", "checker", "noise", "colours", "wrap", "linear", "octaves", "seed"))
    kind = one_of(where, given, ("file", "checker", "noise"))
    wrap = text(f"{where}.wrap", given.get("wrap", "repeat"), WRAPS)
    if kind == "file":
        section(f"{where} (file)", given, ("file", "wrap", "linear"))
        linear = truth(f"{where}.linear", given.get("linear", False))
        return Texture(read_image(folder / Path(text(f"{where}.file", given["file"])).expanduser(), linear)[None], wrap)
    pair = items(f"{where}.colours", given.get("colours", [0.1, 0.9]))
    if len(pair) != 2:
        raise UserError(f"{where}.colours: expected two colours, got {len(pair)}")
    first, second = (colour(f"{where}.colours[{i}]", entry) for i, entry in enumerate(pair))
    if kind == "checker":
        section(f"{where} (checker)", given, ("checker", "colours", "wrap"))
        columns, rows = (whole(f"{where}.checker", count) for count in _pair(f"{where}.checker", given["checker"]))
        if max(columns, rows) > 128:
            raise UserError(f"{where}.checker: expected at most 128 cells a side, got {columns} x {rows}")
        return Texture(checker(columns, rows, first, second), wrap)
    section(f"{where} (noise)", given, ("noise", "colours", "wrap", "octaves", "seed"))
    cells, octaves = whole(f"{where}.noise", given["noise"]), whole(f"{where}.octaves", given.get("octaves", 4))
    if cells * 2 ** (octaves - 1) > 256:
        raise UserError(f"{where}: expected noise * 2^(octaves - 1) of at most 256, got {cells * 2 ** (octaves - 1)}")
    return Texture(noise(cells, first, second, octaves, seed=whole(f"{where}.seed", given.get("seed", 0), 0)), wrap)


def _environment(value: Any, folder: Path) -> Tensor | EnvironmentMap:
    """A colour, or a panorama from a file with its factor."""
    if not isinstance(value, Mapping):
        return colour("environment", value)[None]
    given = section("environment", value, ("file", "linear", "factor"))
    image = _texture("environment", {key: given[key] for key in ("file", "linear") if key in given}, folder).image
    return EnvironmentMap(image.expand(-1, -1, -1, 3), colour("environment.factor", given.get("factor", 1.0))[None])


def _pair(where: str, value: Any) -> list[Any]:
    found = items(where, value)
    if len(found) != 2:
        raise UserError(f"{where}: expected [columns, rows], got {value!r}")
    return found


def _material(where: str, value: Any, textures: dict[str, Texture]) -> Material:
    slots = ("albedo_texture", "alpha_texture", "emission_texture")
    given = section(where, value, ("kind", "albedo", "alpha", "emission", "two_sided", "schlick", *slots))
    images = {
        slot: textures[text(f"{where}.{slot}", given[slot], list(textures))] for slot in slots if given.get(slot) is not None
    }
    kind = text(f"{where}.kind", given.get("kind", DIFFUSE), (DIFFUSE, CONDUCTOR))
    for key in ("alpha", "alpha_texture", "schlick"):
        if kind == DIFFUSE and key in given:
            raise UserError(f"{where}.{key}: expected none, since the material is diffuse; remedy: kind: conductor")
    # a texture alone is taken as it is
    albedo = colour(f"{where}.albedo", given.get("albedo", 1.0 if "albedo_texture" in images else 0.5))
    if bool((albedo > 1.0).any()):
        raise UserError(f"{where}.albedo: expected numbers from 0 to 1, got {given['albedo']!r}")
    emission: Tensor | None = None
    if given.get("emission") is not None or "emission_texture" in images:
        emission = colour(f"{where}.emission", given.get("emission", 1.0))[None]
    alpha = number(f"{where}.alpha", given.get("alpha", 1.0 if "alpha_texture" in images else 0.3), 0.0, 1.0, above=True)
    return Material(
        albedo[None], kind, torch.tensor([alpha]), emission, truth(f"{where}.two_sided", given.get("two_sided", False)),
        truth(f"{where}.schlick", given.get("schlick", False)), *(images.get(slot) for slot in slots),
    )  # fmt: skip


def _light(where: str, value: Any) -> PointLight | DirectionalLight:
    given = section(where, value, ("position", "intensity", "direction", "irradiance"))
    kind = one_of(where, given, ("position", "direction"))
    if kind == "position":
        section(f"{where} (point light)", given, ("position", "intensity"), ["intensity"])
        place = numbers(f"{where}.position", given["position"], 3)[None]
        return PointLight(place, colour(f"{where}.intensity", given["intensity"])[None])
    section(f"{where} (directional light)", given, ("direction", "irradiance"), ["irradiance"])
    direction = numbers(f"{where}.direction", given["direction"], 3)[None]
    if not bool((direction != 0.0).any()):
        raise UserError(f"{where}.direction: expected a direction, got zeros")
    return DirectionalLight(direction, colour(f"{where}.irradiance", given["irradiance"])[None])
