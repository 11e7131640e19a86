"""The gradient of scenes that do not move against the general one, which follows geometry, too: the same paths, twice."""

import torch

from render.path_render import PathRender
from tests.render.ray_scenes import film
from tests.render.test_path_gradient import SIZE, scene_of

NAMES = ["albedo", "alpha", "emission", "image", "colours", "sky"]


def gradients(depth: int, moves: bool) -> torch.Tensor:
    value = torch.zeros(len(NAMES), requires_grad=True)
    given = scene_of({name: value[i : i + 1] for i, name in enumerate(NAMES)})
    camera = given["camera"]
    if moves:
        camera = camera._replace(position=camera.position.clone().requires_grad_(True))
    render = PathRender(samples=8, depth=depth, roulette_depth=3, boundary_samples=0)
    image = render(given["scene"], camera, film(SIZE), given["shutter"], seed=3)
    image.square().mean().backward()
    return value.grad


def test_equal_to_the_general_gradient():
    for depth in (2, 6):
        found, expected = gradients(depth, False), gradients(depth, True)
        assert float(found.abs().min()) > 0.0
        torch.testing.assert_close(found, expected, rtol=2e-3, atol=1e-6)


def test_plate_and_environment():
    """Where the camera meets nothing it sees the plate; bounces go on to the environment."""
    plate = torch.full((1, SIZE, SIZE, 3), 0.5, requires_grad=True)
    found = []
    for moves in (False, True):
        value = torch.zeros(1, requires_grad=True)
        given = scene_of({"sky": value})
        given["scene"] = given["scene"]._replace(bodies=given["scene"].bodies[:3])
        camera = given["camera"]
        if moves:
            camera = camera._replace(position=camera.position.clone().requires_grad_(True))
        plate.grad = None
        PathRender(samples=8, depth=3, boundary_samples=0)(
            given["scene"], camera, film(SIZE), given["shutter"], seed=3, plate=plate
        ).sum().backward()
        found.append((value.grad.clone(), plate.grad.clone()))
    assert float(found[0][1].sum()) > 0.0
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-3, atol=0.0)
    torch.testing.assert_close(found[0][1], found[1][1])
