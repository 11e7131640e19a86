"""The gradient of a rendered ball against central differences, one argument at a time: silhouette and inside together."""

import pytest
import torch
from torch import Tensor

from dvc.gradient_check import gradient_check
from dvc.records import Camera, Shutter
from render.sphere_stage import SphereRender
from tests.physics.scenes import assert_certified
from tests.render.sphere_scenes import film_of, motion, moving, orthographic, pinhole, scalar, still

pytestmark = pytest.mark.filterwarnings("ignore:render_sphere. traced")  # many small films on purpose

NAMES = [
    "nodes",
    "impact fraction",
    "impact position",
    "radius",
    "camera position",
    "rotation",
    "focal",
    "center",
    "exposure",
    "readout",
    "blur",
    "color",
    "cap color",
    "light",
    "ambient",
    "background",
]
FILM = film_of(32, 24, step=4.0, left=256.0, top=192.0)


def arguments(camera: Camera) -> list[Tensor]:
    """A ball that turns round in the middle of its exposure: three frames of four intervals, one impact."""
    generator = torch.Generator().manual_seed(2)
    t = torch.linspace(-1.0, 1.0, 13)
    x = 0.05 - 0.06 * (t + 0.15).abs()
    nodes = torch.stack([x, 0.02 * t, 0.03 * t + 0.01], -1)[None] + 0.2
    fraction, at_impact = torch.full((1, 12), -1.0), torch.zeros(1, 12, 3)
    fraction[0, 5], at_impact[0, 5] = 0.1, torch.tensor([0.05, -0.003, 0.0055]) + 0.2
    plate = 0.5 + 0.2 * torch.rand(FILM.rows, FILM.columns, 3, generator=generator)
    return [
        nodes,
        fraction,
        at_impact,
        torch.tensor([0.035]),
        camera.position,
        camera.rotation,
        camera.focal,
        camera.center,
        torch.tensor([0.7]),
        torch.tensor([[0.009, -0.012]]),
        torch.tensor([2.0]),
        torch.tensor([[0.8, 0.3, 0.2]]),
        torch.tensor([[0.3, 0.6, 0.9]]),
        torch.tensor([[-0.3, -0.8, 0.5]]),
        torch.tensor([0.4]),
        plate,
    ]


def centred(camera: Camera) -> Camera:
    """The same camera, looking so that the ball at (0.2, 0.2, 0.2) is in the middle of the film."""
    middle = torch.tensor([320.0, 240.0])
    seen = (camera.rotation @ (torch.full((1, 3), 0.2) - camera.position)[..., None])[..., 0]
    at = camera.focal[:, None] * (seen[:, :2] if camera.orthographic else seen[:, :2] / seen[:, 2:])
    return camera._replace(center=middle - at)


@pytest.mark.parametrize("seed", [0, 3])
@pytest.mark.parametrize(
    "camera", [orthographic(400.0), pinhole(600.0, pitch=0.1, roll=0.2, yaw=-0.05)], ids=["orthographic", "pinhole"]
)
def test_gradient_of_every_input(camera: Camera, seed: int) -> None:
    camera = centred(camera)
    stage = SphereRender(6)

    def render(
        nodes,
        fraction,
        at_impact,
        radius,
        position,
        rotation,
        focal,
        center,
        exposure,
        readout,
        blur,
        color,
        cap,
        light,
        ambient,
        background,
    ) -> Tensor:
        seen_by = Camera(position, rotation, focal, center, camera.orthographic)
        trajectory = motion(nodes, 4, fraction, at_impact)
        return stage(
            trajectory,
            radius,
            seen_by,
            Shutter(exposure, readout),
            background,
            FILM,
            color,
            light,
            ambient,
            blur,
            cap,
            seed=seed,
        ).images

    inputs = arguments(camera)
    images = render(*inputs)
    plate = inputs[-1]
    assert float((images - plate).abs().amax(dim=(2, 3, 4)).min()) > 0.2, "the ball is seen in every frame"
    # steps are relative to an input's size, and a principal point of 300 px moves by a film pixel at 1e-2: finer ones
    rows = gradient_check(
        render,
        [t.clone().requires_grad_(name != "impact fraction") for name, t in zip(NAMES, inputs, strict=True)],
        NAMES,
        steps=(3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5),
    )
    assert_certified(rows)
    zero = {row.name for row in rows if row.analytic == 0.0}
    assert not zero


def test_gradient_of_the_time_of_an_impact() -> None:
    """Alone, because a difference must not take the marks of intervals without impact below or above -1."""
    camera = centred(pinhole(600.0))
    inputs = arguments(camera)
    film, stage = FILM, SphereRender(16)

    def render(at: Tensor) -> Tensor:
        fraction = torch.cat([inputs[1][:, :5], at[:, None], inputs[1][:, 6:]], dim=1)
        return stage(
            motion(inputs[0], 4, fraction, inputs[2] + torch.tensor([0.02, 0.0, 0.0])),
            inputs[3],
            camera,
            Shutter(torch.tensor([1.0]), inputs[9]),
            inputs[-1],
            film,
            inputs[11],
            inputs[13],
            inputs[14],
            inputs[10],
        ).images

    assert_certified(
        gradient_check(render, [torch.tensor([0.43], requires_grad=True)], ["fraction"], steps=(1e-2, 3e-3, 1e-3, 3e-4))
    )


def test_the_gradient_of_a_picture_moves_a_ball_to_where_it_is() -> None:
    """A first-order method recovers place, size and speed from a start a radius away."""
    camera, film = orthographic(100.0, (32.0, 24.0)), film_of(64, 48)
    plate, color, light = torch.zeros(48, 64, 3), torch.tensor([[0.8, 0.3, 0.2]]), torch.tensor([[-0.3, -0.8, 0.5]])
    stage = SphereRender(6)

    def picture(place: Tensor, radius: Tensor, velocity: Tensor) -> Tensor:
        return stage(
            moving(place, velocity), radius, camera, still(exposure=0.8), plate, film, color, light, scalar(0.4), scalar(2.0)
        ).images

    truth = [torch.tensor([[0.04, 0.0, 0.03]]), torch.tensor([0.07]), torch.tensor([[3.0, 0.0, -1.0]])]
    target = picture(*truth)
    leaves = [torch.tensor([[-0.02, 0.0, 0.0]]), torch.tensor([0.05]), torch.tensor([[2.0, 0.0, 0.5]])]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    optimizer = torch.optim.Adam([{"params": leaf, "lr": lr} for leaf, lr in zip(leaves, (4e-3, 2e-3, 0.1), strict=True)])
    for step in range(150):
        if step == 100:
            for group in optimizer.param_groups:
                group["lr"] *= 0.1
        optimizer.zero_grad()
        (picture(*leaves) - target).square().mean().backward()
        optimizer.step()
    assert float((leaves[0] - truth[0]).detach()[0, ::2].abs().max()) < 1e-3
    assert float((leaves[1] - truth[1]).detach().abs()) < 1e-3
    assert float((leaves[2] - truth[2]).detach()[0, ::2].abs().max()) < 0.15
