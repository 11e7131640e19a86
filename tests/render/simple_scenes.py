"""Five small scenes of everything that `render.simple_path` does, as functions of their numbers, and their comparison."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dvc.records import Camera, Film, Mesh
from render.path_render import PathRender
from render.scene import Ball, Body, DirectionalLight, EnvironmentMap, Material, Plane, PointLight, Scene, Texture
from render.simple_path import SimplePathRender
from tests.render.ray_scenes import DOWN, box, inside_out, perspective, quad, row

PIXELS = 6
FILM = Film(2 * PIXELS, 2 * PIXELS, 4.0, 3.0, PIXELS, PIXELS, 0.75)  # a part of the frame, coarser than its pixels
WORLDS = 16  # independent estimates: enough for a standard error
FOLD = torch.tensor(
    [[[0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.12]]]
)  # where flat, a lamp just sees itself
WEIGHTS = 0.2 + torch.rand(PIXELS, PIXELS, 3, generator=torch.Generator().manual_seed(9)).double()
Numbers = dict[str, Tensor]


class SimpleScene(NamedTuple):
    numbers: Numbers  # (1, ...)
    build: Callable[[Numbers], tuple[Scene, Camera]]
    depth: int
    film: Film = FILM
    weights: Tensor = WEIGHTS  # of the pixels, (row, column, 3)


def random(seed: int, *shape: int) -> Tensor:
    return 0.2 + 0.7 * torch.rand(1, *shape, generator=torch.Generator().manual_seed(seed))


def camera_numbers(camera: Camera) -> Numbers:
    fields = {"position": camera.position, "rotation": camera.rotation, "focal": camera.focal, "center": camera.center}
    return {f"camera.{name}": value for name, value in fields.items()}


def camera_of(numbers: Numbers, orthographic: bool = False) -> Camera:
    fields = (numbers[f"camera.{name}"] for name in ("position", "rotation", "focal", "center"))
    return Camera(*fields, orthographic, numbers.get("camera.distortion"))


def room() -> SimpleScene:
    """A closed room, a lamp under its ceiling, a block on its floor: light from everywhere to everywhere."""
    walls, block = inside_out(box(1.0)), box((0.3, 0.25, 0.4))
    lamp = quad((0.1, 0.1, 0.9), (0.35, 0.0, 0.05), (0.0, -0.4, 0.0))
    numbers = {
        "walls": walls.vertices, "block": block.vertices + row(0.2, 0.3, -0.5), "lamp": lamp.vertices + FOLD,
        "wall albedo": random(1, 3), "wall colours": random(2, 8, 3), "block albedo": random(3, 3),
        "emission": 8.0 * random(4, 3), "lamp colours": random(5, 4, 3), "lamp albedo": random(6, 3),
        **camera_numbers(perspective((-0.2, -0.9, 0.1), (0.05, 0.3, -0.2), 80.0, 2 * PIXELS)),
    }  # fmt: skip

    def build(n: Numbers) -> tuple[Scene, Camera]:
        bodies = [
            Body(Mesh(n["walls"], walls.faces), "walls", vertex_albedo=n["wall colours"]),
            Body(Mesh(n["block"], block.faces), "block"),
            Body(Mesh(n["lamp"], lamp.faces), "lamp", vertex_emission=n["lamp colours"]),
        ]
        materials = {
            "walls": Material(n["wall albedo"]), "block": Material(n["block albedo"], two_sided=True),
            "lamp": Material(n["lamp albedo"], emission=n["emission"]),
        }  # fmt: skip
        return Scene(bodies, materials), camera_of(n)

    return SimpleScene(numbers, build, 4)


def gloss() -> SimpleScene:
    """Rough mirrors, with and without Fresnel, one of them two-sided and seen from behind, under a lamp and the sky."""
    floor, wall = quad((0, 0, 0), (1.2, 0, 0), (0, 1.2, 0)), quad((0.0, 1.0, 0.7), (1.1, 0.1, 0), (0.0, -0.2, 0.7))
    lamp = quad((-0.3, -0.2, 1.7), (0.4, 0, 0), (0, -0.4, 0.1))
    numbers = {
        "floor": floor.vertices, "wall": wall.vertices, "lamp": lamp.vertices + FOLD, "floor albedo": 0.2 * random(1, 3),
        "wall albedo": random(2, 3), "floor alpha": torch.tensor([0.45]), "wall alpha": torch.tensor([0.6]),
        "rough": 0.6 + 0.5 * random(3, 4), "emission": 6.0 * random(4, 3), "sky": random(5, 3),
        **camera_numbers(perspective((0.3, -2.4, 0.5), (0.0, 0.0, 0.1), 40.0, 2 * PIXELS)),
    }  # fmt: skip

    def build(n: Numbers) -> tuple[Scene, Camera]:
        bodies = [
            Body(Mesh(n["floor"], floor.faces), "floor"), Body(Mesh(n["wall"], wall.faces), "wall", vertex_alpha=n["rough"]),
            Body(Mesh(n["lamp"], lamp.faces), "lamp"),
        ]  # fmt: skip
        materials = {
            "floor": Material(n["floor albedo"], "conductor", n["floor alpha"], schlick=True),
            "wall": Material(n["wall albedo"], "conductor", n["wall alpha"], two_sided=True),
            "lamp": Material((0.2, 0.3, 0.1), emission=n["emission"]),
        }
        return Scene(bodies, materials, environment=n["sky"]), camera_of(n)

    return SimpleScene(numbers, build, 3)


def textured() -> SimpleScene:
    """Every wrap, far beyond the images, for albedo, roughness and what a lamp emits, seen without perspective."""
    panels = [quad((x, 0.05 * x, 0.1), (0.33, 0, 0.05), (0, 0.9, 0.1)) for x in (-0.7, 0.0, 0.7)]
    lamp = quad((0.3, 1.3, 0.8), (0.5, 0, 0), (0, 0.2, 0.5))
    uv = torch.tensor([[[-1.3, -0.7], [1.9, -1.1], [2.2, 1.6]], [[-1.3, -0.7], [2.2, 1.6], [-0.9, 2.4]]])
    numbers = {
        "repeat": random(1, 4, 3, 3), "mirror": random(2, 3, 5, 3), "clamp": random(3, 3, 2, 1),
        "rough": 0.3 + 0.7 * random(4, 2, 3, 1), "shine": random(5, 3, 2, 3), "albedo": random(6, 3),
        "alpha": torch.tensor([0.9]), "emission": 3.0 * random(7, 3), "panels": torch.cat([p.vertices for p in panels], dim=1),
        "lamp": lamp.vertices + FOLD, "lamp albedo": torch.zeros(1, 3), "sky": random(8, 3),
        **camera_numbers(Camera(row(0.05, 0.1, 0.0), DOWN, row(5.0, 5.5), row(8.1, 6.9), True)),
    }  # fmt: skip

    def build(n: Numbers) -> tuple[Scene, Camera]:
        materials = {
            "repeat": Material(n["albedo"], albedo_texture=Texture(n["repeat"], "repeat")),
            "mirror": Material(n["albedo"], "conductor", n["alpha"], albedo_texture=Texture(n["mirror"], "mirror"),
                               alpha_texture=Texture(n["rough"], "repeat")),
            "clamp": Material(n["albedo"], albedo_texture=Texture(n["clamp"], "clamp"), two_sided=True),
            "lamp": Material(n["lamp albedo"], emission=n["emission"], emission_texture=Texture(n["shine"], "mirror")),
        }  # fmt: skip
        bodies = [
            Body(Mesh(n["panels"][:, 4 * i : 4 * i + 4], panel.faces), name, uv)
            for i, (panel, name) in enumerate(zip(panels, ("repeat", "mirror", "clamp")))
        ]
        bodies.append(Body(Mesh(n["lamp"], lamp.faces), "lamp", uv))
        return Scene(bodies, materials, environment=n["sky"]), camera_of(n, orthographic=True)

    return SimpleScene(numbers, build, 3)


def lit() -> SimpleScene:
    """Two point lights and a direction on diffuse and glossy blocks, through a lens that distorts."""
    block, slab, floor = box(0.35), box((0.2, 0.5, 0.3)), quad((0, 0, 0), (1.5, 0, 0), (0, 1.5, 0))
    numbers = {
        "block": block.vertices + row(-0.4, 0.0, 0.4), "slab": slab.vertices + row(0.5, 0.2, 0.35), "floor": floor.vertices,
        "albedo": random(1, 3), "slab albedo": random(2, 3), "alpha": torch.tensor([0.5]), "lamp": row(-0.8, -1.2, 1.6),
        "intensity": 3.0 * random(3, 3), "near lamp": row(0.1, -0.5, 0.8), "near intensity": random(4, 3),
        "direction": row(0.5, 0.9, -1.4), "irradiance": 2.0 * random(5, 3),
        **camera_numbers(perspective((0.3, -2.2, 1.7), (0.0, 0.0, 0.3), 45.0, 2 * PIXELS)),
        "camera.distortion": row(-0.12, 0.05, 0.02, -0.015, 0.01),
    }  # fmt: skip

    def build(n: Numbers) -> tuple[Scene, Camera]:
        meshes = zip((n["block"], n["slab"], n["floor"]), (block, slab, floor), ("diffuse", "glossy", "diffuse"))
        materials = {
            "diffuse": Material(n["albedo"]), "glossy": Material(n["slab albedo"], "conductor", n["alpha"], schlick=True),
        }  # fmt: skip
        lights = [
            PointLight(n["lamp"], n["intensity"]), DirectionalLight(n["direction"], n["irradiance"]),
            PointLight(n["near lamp"], n["near intensity"]),
        ]  # fmt: skip
        return Scene([Body(Mesh(v, m.faces), name) for v, m, name in meshes], materials, lights), camera_of(n)

    return SimpleScene(numbers, build, 3)


def outdoors() -> SimpleScene:
    """Diffuse and glossy blocks under a panorama with a bright part, and a lamp."""
    block, slab, floor = box(0.35), box((0.2, 0.5, 0.3)), quad((0, 0, 0), (1.5, 0, 0), (0, 1.5, 0))
    shade = quad((0.2, -0.3, 1.9), (0.0, 0.3, 0.0), (0.3, 0.0, 0.0))
    panorama = random(3, 4, 8, 3)
    panorama[0, 1, 5] += 4.0
    panorama[0, 3] = 0.0
    numbers = {
        "block": block.vertices + row(-0.4, 0.0, 0.4), "slab": slab.vertices + row(0.5, 0.2, 0.35), "floor": floor.vertices,
        "albedo": random(1, 3), "slab albedo": random(2, 3), "alpha": torch.tensor([0.4]), "panorama": panorama,
        "factor": random(4, 3), "lamp": shade.vertices, "emission": 3.0 * random(5, 3),
        **camera_numbers(perspective((0.3, -2.2, 1.2), (0.0, 0.0, 0.5), 60.0, 2 * PIXELS)),
    }  # fmt: skip

    def build(n: Numbers) -> tuple[Scene, Camera]:
        shapes, owners = (block, slab, floor, shade), ("diffuse", "glossy", "diffuse", "lamp")
        meshes = zip((n["block"], n["slab"], n["floor"], n["lamp"]), shapes, owners)
        materials = {
            "diffuse": Material(n["albedo"]), "glossy": Material(n["slab albedo"], "conductor", n["alpha"]),
            "lamp": Material(0.2, emission=n["emission"]),
        }  # fmt: skip
        sky = EnvironmentMap(n["panorama"], n["factor"])
        return Scene([Body(Mesh(v, m.faces), name) for v, m, name in meshes], materials, [], sky), camera_of(n)

    return SimpleScene(numbers, build, 3)


def round_things() -> SimpleScene:
    """Caps of balls that stick out of planes, so that no outline and no horizon is near; one glows. Walls without a roof."""
    shell = inside_out(box((1.2, 1.2, 1.0)))
    heights = shell.vertices[0, :, 2]
    shell = Mesh(shell.vertices, shell.faces[~(heights[shell.faces.long()] > 0.0).all(dim=1)])
    numbers = {
        "ball": row(-0.45, 0.05, -0.6, 0.8), "glossy ball": row(0.5, -0.1, -0.55, 0.75),
        "glowing ball": row(0.15, 1.35, 0.4, 0.85),
        "floor": torch.tensor([[[0.0, 0.0, 0.0], [0.8, 0.2, 0.0], [-0.1, 0.9, 0.05]]]),
        "wall": torch.tensor([[[0.0, 0.65, 0.0], [1.0, 0.75, 0.0], [0.0, 0.7, 1.0]]]), "shell": shell.vertices,
        "albedo": random(1, 3), "glossy albedo": random(2, 3), "alpha": torch.tensor([0.5]), "tiles": random(3, 3, 3, 3),
        "glow": 4.0 * random(4, 3), "wall glow": 0.5 * random(5, 3), "lamp": row(-0.65, -0.25, 0.6),
        "intensity": random(6, 3), "near lamp": row(0.3, 0.2, 0.7), "near intensity": random(8, 3),
        "sky": 0.5 * random(7, 3), **camera_numbers(perspective((0.1, -0.7, 2.3), (0.0, 0.2, 0.0), 40.0, 2 * PIXELS)),
    }  # fmt: skip

    def build(n: Numbers) -> tuple[Scene, Camera]:
        balls = zip((n["ball"], n["glossy ball"], n["glowing ball"]), ("diffuse", "glossy", "glow"))
        first, *others = (Ball(numbers[:, :3], numbers[:, 3], material) for numbers, material in balls)
        floor, wall = Plane(n["floor"], "tiles"), Plane(n["wall"], "wall")
        bodies = [first, floor, *others, wall, Body(Mesh(n["shell"], shell.faces), "shell")]
        materials = {
            "diffuse": Material(n["albedo"]), "glossy": Material(n["glossy albedo"], "conductor", n["alpha"]),
            "tiles": Material((0.9, 0.8, 0.7), albedo_texture=Texture(n["tiles"], "mirror")),
            "glow": Material((0.9, 0.8, 0.7), emission=n["glow"]), "wall": Material((0.5, 0.5, 0.5), emission=n["wall glow"]),
            "shell": Material((0.4, 0.5, 0.6)),
        }  # fmt: skip
        lights = [PointLight(n["lamp"], n["intensity"]), PointLight(n["near lamp"], n["near intensity"])]
        return Scene(bodies, materials, lights, n["sky"]), camera_of(n)

    return SimpleScene(numbers, build, 3)


SCENES = {"room": room, "gloss": gloss, "textured": textured, "lit": lit, "outdoors": outdoors, "round": round_things}


def estimates(
    render: PathRender | SimplePathRender, scene: SimpleScene, seed: int, moving: tuple[str, ...] | None = None
) -> dict[str, np.ndarray]:
    """The image, and the gradient of its weighted mean in every number (or those named): (world, ...), independent."""
    names = scene.numbers if moving is None else moving
    leaves = {name: value.repeat(WORLDS, *[1] * (value.dim() - 1)) for name, value in scene.numbers.items()}
    for name in names:
        leaves[name].requires_grad_(True)
    shown, camera = scene.build(leaves)
    images = render(shown, camera, scene.film, seed=seed)
    (images * scene.weights).mean(dim=(1, 2, 3)).sum().backward()
    found = {"image": images.detach()} | {name: leaves[name].grad for name in names}
    return {name: value.double().reshape(WORLDS, -1).numpy() for name, value in found.items()}
