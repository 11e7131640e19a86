"""Every field of everything that a picture is made from, replaced by what does not belong there: a picture, or one line."""

import functools
import warnings
from typing import Any

import numpy as np
import pytest
import torch

from dvc.errors import Unsupported, UserError
from dvc.records import Camera, Film, Mesh, SdfGrid, Shutter
from render.path_render import PathRender
from render.scene import Ball, Body, DirectionalLight, Material, Plane, PointLight, Poses, Scene, SdfBody, Texture
from tests.render.ray_scenes import film, perspective, quad, row

AXIS = torch.linspace(-0.5, 0.5, 6)
SOLID = torch.stack(torch.meshgrid(AXIS, AXIS, AXIS, indexing="ij"), dim=-1).norm(dim=-1)[None] - 0.3
TURN = torch.tensor([[[0.0, 0.0, 0.0, 1.0]]])
JUNK: tuple[Any, ...] = (
    None, "a", -1, 1.5, float("nan"), 1e30, 2**80, True, {}, [], [[1, 2], [3]], ("a",), object(), Ball,
    np.ones(3), np.array([None]), torch.tensor(0.5), torch.zeros(0), torch.ones(2), torch.ones(2, 3), torch.ones(5, 2, 3),
    torch.ones(1, 1, 1, 1, 1),
    torch.ones(1, 3, dtype=torch.uint8), torch.ones(1, dtype=torch.bool), torch.ones(1, 3, dtype=torch.complex64),
    torch.ones(1, 3).to_sparse(), torch.ones(1, 3, device="meta"), torch.full((1, 3), float("inf")), -torch.ones(1, 3),
    [torch.ones(3), torch.ones(2)],
)  # fmt: skip


@functools.cache
def parts() -> dict[str, Any]:
    poses = Poses(torch.zeros(1, 2, 3), TURN.expand(1, 2, 4))
    return {
        "mesh": quad((0, 0, 0), (3, 0, 0), (0, 3, 0)), "poses": poses, "texture": Texture(torch.ones(1, 2, 2, 3)),
        "body": Body(None, "m", torch.zeros(2, 3, 2), poses, torch.ones(1, 4, 3), torch.ones(1, 4), torch.ones(1, 4, 3)),
        "ball": Ball(row(0, 0, 1), torch.tensor([0.5]), "c"),
        "plane": Plane(torch.tensor([[[0, 1.5, 0], [1, 1.5, 0], [0, 1.5, 1.0]]]), "c"),
        "grid": SdfGrid(SOLID, torch.tensor([1.0, 0.0, 0.0]), 0.2), "solid": SdfBody(None, "c"),
        "material": Material(row(0.5, 0.5, 0.5), "conductor", torch.tensor([0.3]), row(1, 1, 1)),
        "point": PointLight(row(0, 0, 3), row(1, 1, 1)), "sun": DirectionalLight(row(0, 0, -1), row(1, 1, 1)),
        "scene": Scene([], {}, environment=row(1, 1, 1)),
        "camera": perspective((0, -3, 2), (0, 0, 0.3), 40, 4)._replace(distortion=torch.zeros(1, 5)),
        "film": film(4), "shutter": Shutter(torch.tensor([0.5]), row(0, 0)),
        "call": {"plate": torch.zeros(1, 4, 4, 3), "seed": 0, "frame_interval": 1.0, "node_interval": 1.0},
        "options": {
            "samples": 1, "depth": 2, "roulette_depth": None, "pixel_filter": "box", "filter_size": None,
            "boundary_samples": None, "side_offset": 0.01, "meshes": False, "gradient_samples": None,
        },
    }  # fmt: skip


def shown(part: str, field: str, value: Any) -> None:
    """A picture with one field of one part replaced."""

    def made(name: str, **fill: Any) -> Any:
        record = parts()[name]
        change = fill | ({field: value} if name == part else {})
        return record | change if isinstance(record, dict) else record._replace(**change)

    body = made("body", mesh=made("mesh"), poses=made("poses"))
    bodies = [body, made("ball"), made("plane"), made("solid", grid=made("grid"))]
    materials = {"m": made("material", albedo_texture=made("texture")), "c": Material()}
    scene = made("scene", bodies=bodies, materials=materials, lights=[made("point"), made("sun")])
    PathRender(**made("options"))(scene, made("camera"), made("film"), made("shutter"), **made("call"))


@pytest.mark.parametrize("part", list(parts()))
def test_every_field(part: str) -> None:
    record = parts()[part]
    for field in record if isinstance(record, dict) else record._fields:
        for value in JUNK:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    shown(part, field, value)
            except (UserError, Unsupported) as error:
                message = str(error)
                assert "\n" not in message and len(message) < 330, (field, value, message)


def test_the_parts_make_a_picture() -> None:
    assert isinstance(parts()["film"], Film) and isinstance(parts()["mesh"], Mesh) and isinstance(parts()["camera"], Camera)
    shown("none", "none", None)
