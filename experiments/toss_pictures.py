"""A thrown cube: its motion from a start that is sought, sampled at nodes about each frame, and its ray-traced clip."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from dvc.records import Camera, Film, Mesh, Shutter, State
from experiments.cube_motion import CubePaths
from experiments.known_objects import blotches, board, box
from experiments.photographs import film_at
from experiments.toss_data import SAMPLE_RATE
from physics.articulation import Linkage, Topology
from physics.contact_scene import ContactRollout, ContactScene, Shape
from render.path_render import PathRender
from render.scene import Body, Material, PointLight, Poses, Scene, Texture

SAMPLES_A_FRAME = 2  # a frame's middle is at sample 2 k + 1, its nodes are the samples 2 k to 2 k + 2


def frame_nodes(samples: Tensor) -> Tensor:
    """(world, sample, n) -> (world, frame, 3, n): the samples before, at and after the middle of each frame."""
    return samples.unfold(1, SAMPLES_A_FRAME + 1, SAMPLES_A_FRAME).transpose(2, 3)


class ThrownCube(nn.Module):
    """One toss from its pose at the first sample.

    Arguments: tree: one body on a free joint; position (3,) [m] as measured; orientation (4,) x, y, z, w; substeps a sample.
    Forward: linkage; friction; stiffness [N/m^exponent]; exponent; dissipation [s/m]; width [m/s]; scale (measured = scale *
        true); side [m]: each (world,); velocity [m/s], true lengths, spin [rad/s] in the body's axes: (world, 3); horizon:
        frames -> CubePaths of 2 horizon + 1 samples of one toss, lengths as measured.
    Gradient: see `ContactRollout`.
    """

    position: Tensor
    orientation: Tensor

    def __init__(self, tree: Topology, position: Tensor, orientation: Tensor, substeps: int):
        super().__init__()
        self.register_buffer("position", position, persistent=False)
        self.register_buffer("orientation", orientation, persistent=False)
        self.tree, self.substeps = tree, int(substeps)
        self.scene = ContactScene(tree, [Shape("half_space"), Shape("box", 0, (1.0, 1.0, 1.0))])
        self.rollouts: dict[int, ContactRollout] = {}

    def forward(
        self, linkage: Linkage, friction: Tensor, stiffness: Tensor, exponent: Tensor, dissipation: Tensor, width: Tensor,
        scale: Tensor, side: Tensor, velocity: Tensor, spin: Tensor, horizon: int,
    ) -> CubePaths:  # fmt: skip
        count = SAMPLES_A_FRAME * int(horizon)
        if count not in self.rollouts:
            self.rollouts[count] = ContactRollout(
                self.tree, self.scene, frame_rate=SAMPLE_RATE, frame_count=count, substeps=self.substeps
            )
        worlds = max(len(t) for t in (friction, stiffness, exponent, dissipation, width, scale, side, velocity, spin))
        s = scale.expand(worlds)[:, None]
        place = torch.cat([self.position / s, self.orientation.expand(worlds, -1)], dim=1)
        twist = torch.cat([velocity.expand(worlds, -1), spin.expand(worlds, -1)], dim=1)
        numbers = self.scene.numbers(
            friction=friction, stiffness=stiffness, exponent=exponent, dissipation=dissipation, width=width,
            size=[None, (0.5 * side)[:, None].expand(-1, 3)],
        )  # fmt: skip
        path = self.rollouts[count](State(place, twist), linkage, numbers).coordinates[:, None]
        return CubePaths(path[..., :3] * s[:, None, None], path[..., 3:])


class TossClip(nn.Module):
    """paths, size [m] (world,) of the cube as measured, level, seed -> images (world, frame, row, column, 3), with motion blur.

    Arguments: camera: one row; film: at level 0; exposure: fraction of the frame interval; samples: paths a
    film pixel. A cube with blotches on a board with blotches, below a lamp, that casts a shadow.
    Gradient: to paths and size, see `PathRender`.
    """

    def __init__(self, camera: Camera, film: Film, middle: tuple[float, float], exposure: float, samples: int):
        super().__init__()
        self.camera, self.film, self.samples = camera, film, int(samples)
        self.shutter = Shutter(torch.tensor([float(exposure)]), torch.zeros(1, 2))
        self.block, self.block_uv = box((0.5, 0.5, 0.5))
        ground, ground_uv = board(0.8, 0.8)
        shift = torch.tensor([*middle, 0.0])
        self.ground = Body(Mesh(ground.vertices + shift, ground.faces), "ground", ground_uv)
        self.materials = {
            "ground": Material((0.55, 0.55, 0.55), albedo_texture=Texture(blotches(16, 21, 4), "clamp")),
            "cube": Material((1.0, 1.0, 1.0), albedo_texture=Texture(blotches(16, 22), "clamp")),
        }
        self.lamp = PointLight((shift + torch.tensor([0.5, -0.6, 1.6]))[None], torch.tensor([[14.0, 14.0, 14.0]]))

    def at(self, samples: int) -> "TossClip":
        """The same with another number of samples."""
        other = TossClip.__new__(TossClip)
        nn.Module.__init__(other)
        other.__dict__.update({k: v for k, v in self.__dict__.items() if not k.startswith("_")}, samples=int(samples))
        return other

    def forward(self, paths: CubePaths, size: Tensor, level: int, seed: int) -> Tensor:
        images = self._render(level)(
            self._scene(paths, size), self.camera, film_at(self.film, level), self.shutter, seed=seed, **self._clock()
        )
        return images.unflatten(0, (paths.position.shape[0], -1))

    def derivative(
        self, given: Callable[[Tensor], tuple[CubePaths, Tensor]], value: Tensor, direction: Tensor, level: int, seed: int
    ) -> Tensor:
        """Derivative of the images while `value` moves along `direction`; given(value) -> paths, size, by torch alone."""
        images = self._render(level).derivative(
            lambda moving: {"scene": self._scene(*given(moving)), "camera": self.camera, "shutter": self.shutter},
            value, direction, film=film_at(self.film, level), seed=seed, **self._clock(),
        )  # fmt: skip
        return images[None]

    def _render(self, level: int) -> PathRender:
        return PathRender(samples=self.samples, depth=2)

    @staticmethod
    def _clock() -> dict[str, float]:
        return {"frame_interval": SAMPLES_A_FRAME / SAMPLE_RATE, "node_interval": 1.0 / SAMPLE_RATE}

    def _scene(self, paths: CubePaths, size: Tensor) -> Scene:
        poses = Poses(frame_nodes(paths.position[:, 0]).flatten(0, 1), frame_nodes(paths.orientation[:, 0]).flatten(0, 1))
        cube = Mesh(self.block.vertices * size[:, None, None], self.block.faces)
        return Scene([self.ground, Body(cube, "cube", self.block_uv, poses)], self.materials, [self.lamp])
