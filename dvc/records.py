"""Records: the nouns that flow between stages.

Every record is a NamedTuple of tensors (static counts are plain ints), in SI units, float32, with a leading world axis:
many scenes, starts or designs at once. World frame: right-handed, z up. Quaternions are (x, y, z, w), body to world.
"""

from typing import NamedTuple

from torch import Tensor

from dvc.errors import UserError


class Mesh(NamedTuple):
    """Triangle mesh. `faces` is shared by all worlds; faces are counter-clockwise seen from outside."""

    vertices: Tensor  # [m], (world, vertex, 3)
    faces: Tensor  # int32, (face, 3)


class TetMesh(NamedTuple):
    """Tetrahedral mesh. `tets` is shared by all worlds; (b - a) . ((c - a) x (d - a)) > 0 for every (a, b, c, d)."""

    vertices: Tensor  # [m], (world, vertex, 3)
    tets: Tensor  # int32, (tet, 4)


class SdfGrid(NamedTuple):
    """Signed distances (negative inside) at the nodes of a regular grid; node (i, j, k) is at `origin + spacing (i, j, k)`."""

    values: Tensor  # [m], (world, nx, ny, nz)
    origin: Tensor  # [m], (3,), shared by all worlds
    spacing: float  # [m]


class SphereShape(NamedTuple):
    """Solid sphere centred at the body's origin."""

    radius: Tensor  # [m], (world,)


class BoxShape(NamedTuple):
    """Solid box centred at the body's origin, axes along the body's."""

    half_extents: Tensor  # [m], (world, 3)


class Bodies(NamedTuple):
    """Mass properties of one rigid body a world, in the body frame."""

    mass: Tensor  # [kg], (world,)
    center_of_mass: Tensor  # [m], (world, 3)
    inertia: Tensor  # about the centre of mass [kg m^2], (world, 3, 3)


class State(NamedTuple):
    """Generalised position and velocity of a body.

    particle: position [m] (world, 3), velocity [m/s] (world, 3);
    revolute: angle [rad] (world, 1), rate [rad/s] (world, 1);
    spherical: unit quaternion (world, 4), angular velocity in body axes [rad/s] (world, 3).
    """

    position: Tensor
    velocity: Tensor


class Wall(NamedTuple):
    """A plane. The gap of a point x is `offset - normal . x`."""

    normal: Tensor  # unit, into the wall, (world, 3)
    offset: Tensor  # [m], (world,)


class Trajectory(NamedTuple):
    """A body's motion, sampled at `frame_count * substeps + 1` equidistant nodes.

    Node i is at the time `start + i * interval`; frame k is exposed around node `(k + 1/2) * substeps`.
    An impact inside interval i is kept exactly: `impact_fraction[i]` in [0, 1] says where in the interval (-1: none),
    `impact_position[i]` where the body was. Sampling between nodes is linear and passes through the impact.
    """

    positions: Tensor  # body origin [m], (world, node, 3)
    orientations: Tensor  # unit quaternions, (world, node, 4)
    impact_fraction: Tensor  # (world, node - 1)
    impact_position: Tensor  # [m], (world, node - 1, 3)
    impact_speed: Tensor  # incoming normal speed [m/s], 0 where there is none, (world, node - 1)
    angles: Tensor  # signed angle of the position from gravity, positive towards the wall [rad], (world, node)
    start: float  # time of node 0 [s]
    interval: float  # node spacing [s]
    frame_count: int
    substeps: int  # intervals a frame


class Film(NamedTuple):
    """The part of the frame that is rendered, and how finely. Static: it changes the size of images, not their meaning."""

    width: int  # full frame [px]
    height: int
    left: float  # region in pixels of the full frame; may reach beyond it
    top: float
    columns: int  # film pixels
    rows: int
    scale: float  # film pixels per pixel of the full frame


class Camera(NamedTuple):
    """Camera in the world; x to the right, y down, z forward in the camera's own axes.

    Pixels: (0, 0) is the top left corner of the top left pixel of the full-resolution frame, x to the right, y down.
    A camera that moves has position and rotation with a frame axis behind the world axis.
    """

    position: Tensor  # [m], (world, 3)
    rotation: Tensor  # world to camera, (world, 3, 3)
    focal: Tensor  # [px] (pinhole) or [px/m] (orthographic), (world,), or (world, 2) along x and y
    center: Tensor  # principal point [px], (world, 2)
    orthographic: bool
    distortion: Tensor | None = None  # k1, k2, p1, p2, k3 of a pinhole's lens (`render.distortion`), (world, 5)


class Shutter(NamedTuple):
    """When a pixel sees the scene: `t = frame time + readout . (x / width - 1/2, y / height - 1/2) + exposure * interval * u`.

    u runs over [-1/2, 1/2]. A positive readout along x means that the right of the frame is read out later.
    """

    exposure: Tensor  # fraction of the frame interval, (world,)
    readout: Tensor  # readout time across the whole frame along x and y [s], (world, 2)


class Frames(NamedTuple):
    """Images, linear in the values of the clip, in [0, 1]."""

    images: Tensor  # (world, frame, row, column, 3)
    background: Tensor  # the plate at the same resolution, (row, column, 3)
    film: Film


def world_count(*tensors: Tensor) -> int:
    """The common number of worlds of tensors whose leading axis is 1 or that number."""
    counts = {int(t.shape[0]) for t in tensors} - {1}
    if len(counts) > 1:
        shapes = ", ".join(str(tuple(t.shape)) for t in tensors)
        raise UserError(f"world axes differ: expected 1 or one common count, got shapes {shapes}")
    return counts.pop() if counts else 1


def expand_worlds(tensor: Tensor, worlds: int) -> Tensor:
    """Broadcast a leading world axis of 1 to `worlds`."""
    return tensor if tensor.shape[0] == worlds else tensor.expand(worlds, *tensor.shape[1:])
