"""Two walls at a right angle, a light before each, and between them an occluder that the cameras see by its shadows only.

Each wall has a camera, which looks at it from between it and the occluder. Light k throws the occluder's shadow on wall k
alone; on the other wall it is as if there was no occluder. So the picture of wall k is  A_k V_k + B_k,  V_k the visibility of
light k, A_k and B_k the pictures of one light and of the other without the occluder.
"""

import torch
from torch import Tensor, nn

from dvc.records import Camera, Film, Mesh
from render.camera import LookAtCamera
from render.path_render import PathRender
from render.scene import Body, Material, Plane, PointLight, Scene

WALL, LIGHT, EYE = 1.6, 5.0, 0.9  # distances of wall, light and camera from the occluder's middle [m]
SEEN = 1.0  # half a side of the square of wall in a picture [m]
INTENSITY = 110.0
COLOURS = ((1.0, 0.72, 0.45), (0.45, 0.72, 1.0))
MAGNIFIED = (LIGHT + WALL) / LIGHT  # a shadow's size over the occluder's, about


def room_scene(mesh: Mesh | None, light: int) -> Scene:
    """Walls y = WALL and x = WALL, one of the lights, and the occluder."""
    walls = [
        [[-1.0, WALL, -1.0], [1.0, WALL, -1.0], [-1.0, WALL, 1.0]],
        [[WALL, 1.0, -1.0], [WALL, -1.0, -1.0], [WALL, 1.0, 1.0]],
    ]
    bodies: list = [Plane(torch.tensor([corners]), "wall") for corners in walls]
    if mesh is not None:
        bodies.append(Body(mesh, "occluder"))
    place = torch.tensor([[[0.0, -LIGHT, 0.0], [-LIGHT, 0.0, 0.0]][light]])
    lights = [PointLight(place, INTENSITY * torch.tensor([COLOURS[light]]))]
    return Scene(bodies, {"wall": Material((0.8, 0.8, 0.8)), "occluder": Material((0.5, 0.5, 0.5))}, lights)


class ShadowRoom(nn.Module):
    """Pictures of the walls: the sum of those by either light, since a path that had to choose one would bring noise with it.

    Arguments: columns: film pixels a side; samples: paths a film pixel and light; edge_samples: of shadow boundaries, a wall
        and light.
    Forward: mesh of the occluder, one world, or None; seed -> linear radiance (wall, row, column, 3).
    Gradient: to the mesh, by the borders of its shadows alone.
    """

    def __init__(self, columns: int, samples: int, edge_samples: int):
        super().__init__()
        eyes = torch.tensor([[0.0, EYE, 0.0], [EYE, 0.0, 0.0]])
        focal = torch.full((2,), 0.5 * columns * (WALL - EYE) / SEEN)
        self.camera: Camera = LookAtCamera(columns, columns)(eyes, 2.0 * eyes, focal=focal)
        self.film = Film(columns, columns, 0.0, 0.0, columns, columns, 1.0)
        self.render = PathRender(samples=samples, depth=2, boundary_samples=(0, int(edge_samples), 0))

    def forward(self, mesh: Mesh | None, seed: int = 0) -> Tensor:
        return self.by_light(mesh, 0, seed) + self.by_light(mesh, 1, seed)

    def by_light(self, mesh: Mesh | None, light: int, seed: int = 0) -> Tensor:
        """What light 0 or 1 shows alone."""
        return self.render(room_scene(mesh, light), self.camera, self.film, seed=2 * int(seed) + light)

    @torch.no_grad()
    def without_occluder(self, seed: int = 0) -> tuple[Tensor, Tensor]:
        """A and B: each wall by its own light, and by the other's."""
        first, second = self.by_light(None, 0, seed), self.by_light(None, 1, seed)
        return torch.stack([first[0], second[1]]), torch.stack([second[0], first[1]])


def shadow_of(images: Tensor, own: Tensor, other: Tensor) -> Tensor:
    """Share of the own light that is missing, (wall, row, column): 1 - V."""
    return 1.0 - ((images - other) * own).sum(-1) / (own * own).sum(-1)
