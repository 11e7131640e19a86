"""Pictures of a teapot that hangs in a closed room above a rug, lit by one lamp: what `teapot_room` looks at.

Walls, floor, the teapot's shape and reflectance, and the cameras are known. Therefore a darker rug under a brighter lamp is
another picture: the lamp's light comes by way of known walls, too. No picture shows the lamp itself.
"""

import torch
from torch import Tensor, nn

from dvc.errors import UserError
from dvc.records import Camera, Film, Mesh
from experiments.known_objects import board, teapot
from experiments.photographs import film_at
from render.camera import LookAtCamera
from render.path_render import PathRender
from render.scene import CONDUCTOR, Body, Material, Scene, Texture

HALF, HEIGHT = 0.5, 0.8  # of the room [m]
LAMP = 0.12  # half a side of the lamp, which shines downwards [m]
RUG, PILE = 0.4, 0.005  # half a side of the rug, and its height above the floor [m]
POT = 0.36  # length of the teapot [m]
SILVER = (0.9, 0.85, 0.75)
WALLS = {"white": (0.7, 0.7, 0.7), "red": (0.65, 0.15, 0.12), "green": (0.15, 0.55, 0.18)}
EYES = ((-0.4, -0.42, 0.55), (0.42, -0.42, 0.42), (0.42, 0.4, 0.6), (-0.42, 0.42, 0.5))  # where pictures are taken from [m]
HELD_OUT = ((0.0, -0.46, 0.35),)  # and where another is
AIM = (0.02, 0.02, 0.13)
FOCAL = 0.62  # over the picture's width


def rotation(vector: Tensor) -> Tensor:
    """Rotation matrices (world, 3, 3) of rotation vectors [rad] (world, 3)."""
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.linalg.matrix_exp(torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).unflatten(-1, (3, 3)))


def _quad(a: tuple, b: tuple, c: tuple, d: tuple) -> Mesh:
    return Mesh(torch.tensor([[a, b, c, d]]), torch.tensor([[0, 1, 2], [0, 2, 3]], dtype=torch.int32))


def room() -> list[Body]:
    """Floor, ceiling and four walls, seen from inside: left red, right green, all others white."""
    w, h = HALF, HEIGHT
    return [
        Body(_quad((-w, -w, 0.0), (w, -w, 0.0), (w, w, 0.0), (-w, w, 0.0)), "white"),
        Body(_quad((-w, -w, h), (-w, w, h), (w, w, h), (w, -w, h)), "white"),
        Body(_quad((-w, w, 0.0), (w, w, 0.0), (w, w, h), (-w, w, h)), "white"),
        Body(_quad((w, -w, 0.0), (-w, -w, 0.0), (-w, -w, h), (w, -w, h)), "white"),
        Body(_quad((-w, -w, 0.0), (-w, w, 0.0), (-w, w, h), (-w, -w, h)), "red"),
        Body(_quad((w, w, 0.0), (w, -w, 0.0), (w, -w, h), (w, w, h)), "green"),
    ]


def cameras(eyes: tuple[tuple[float, float, float], ...], width: int, height: int) -> Camera:
    """Pinholes at `eyes` [m] that look at the teapot."""
    count = len(eyes)
    target, focal = torch.tensor([AIM]).expand(count, 3), torch.full((count,), FOCAL * width)
    return LookAtCamera(width, height)(torch.tensor(eyes), target, focal=focal)


class TeapotPictures(nn.Module):
    """Pictures of one world.

    Arguments: width, height: of a picture [px]; depth: see `PathRender`.
    Forward: place [m] of the teapot, turn: its rotation vector [rad], (1, 3); roughness: GGX alpha (1,); texture: albedo of
        the rug (1, row, column, 3); lamp_place [m], lamp_colour: radiance [W/(m^2 sr)], (1, 3); camera: a row a picture; level:
        the resolution is 1 / 2^level; samples: paths a film pixel at this level; seed: the first picture's, each has its own
        -> linear radiance (picture, row, column, 3).
    Gradient: to all six.
    """

    def __init__(self, width: int, height: int, depth: int):
        super().__init__()
        self.film, self.depth = Film(width, height, 0.0, 0.0, width, height, 1.0), int(depth)
        self.pot = teapot(POT)
        self.lamp = _quad((-LAMP, -LAMP, 0.0), (-LAMP, LAMP, 0.0), (LAMP, LAMP, 0.0), (LAMP, -LAMP, 0.0))
        self.room = room()
        rug, self.rug_uv = board(RUG, RUG)
        self.rug = Mesh(rug.vertices + torch.tensor([0.0, 0.0, PILE]), rug.faces)

    def scene(
        self, place: Tensor, turn: Tensor, roughness: Tensor, texture: Tensor, lamp_place: Tensor, lamp_colour: Tensor
    ) -> Scene:  # fmt: skip
        materials = {name: Material(colour) for name, colour in WALLS.items()}
        materials["rug"] = Material((1.0, 1.0, 1.0), albedo_texture=Texture(texture, "clamp"))
        materials["lamp"] = Material((0.0, 0.0, 0.0), emission=lamp_colour)
        materials["pot"] = Material(SILVER, CONDUCTOR, roughness)
        pot = Mesh(self.pot.vertices @ rotation(turn).transpose(1, 2) + place[:, None], self.pot.faces)
        lamp = Mesh(self.lamp.vertices + lamp_place[:, None], self.lamp.faces)
        return Scene([*self.room, Body(self.rug, "rug", self.rug_uv), Body(lamp, "lamp"), Body(pot, "pot")], materials)

    def forward(
        self, place: Tensor, turn: Tensor, roughness: Tensor, texture: Tensor, lamp_place: Tensor, lamp_colour: Tensor,
        camera: Camera, level: int, samples: int, seed: int,
    ) -> Tensor:  # fmt: skip
        if len(place) != 1:
            raise UserError(f"TeapotPictures.place: expected one world, got {len(place)}")
        scene = self.scene(place, turn, roughness, texture, lamp_place, lamp_colour)
        seeds = torch.arange(len(camera.position), dtype=torch.int32) + seed
        return PathRender(samples=samples, depth=self.depth)(scene, camera, film_at(self.film, level), seed=seeds)
