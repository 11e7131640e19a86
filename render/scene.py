"""What a ray-traced scene is made of: records of tensors, every one of which may carry gradient.

    scene = Scene(
        bodies=[Body(mesh, "clay"), Body(lamp, "glow")],
        materials={"clay": Material(albedo=red), "glow": Material(emission=light)},
    )
    images = PathRender(samples=16, depth=4)(scene, camera, film)

Leading axes are worlds; poses have views (world x frame), ordered world by world. Constants, typed `Numbers`, may come without
their world axis, as a tensor or as plain numbers, and a colour as one number: they serve all worlds.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from dvc.records import Mesh, SdfGrid

Numbers = Tensor | Sequence[float] | float
DIFFUSE, CONDUCTOR = "diffuse", "conductor"


class Texture(NamedTuple):
    """An image over uv in [0, 1]^2, (0, 0) at its bottom left corner; row 0 is the top. Bilinear; texel centres are inside."""

    image: Tensor  # (world, height, width, 1 or 3)
    wrap: str = "repeat"  # or "mirror", "clamp"


class Material(NamedTuple):
    """Reflection and emission of a surface. A parameter is the product of constant, texture and vertex values (of the body).

    kind "diffuse": albedo / pi. "conductor": rough mirror, GGX, separable Smith masking; albedo is its specular reflectance,
    the same at all angles, or that at normal incidence where `schlick` is set. One-sided unless `two_sided`: dark from behind.
    """

    albedo: Numbers = (0.5, 0.5, 0.5)  # (world, 3), in [0, 1]
    kind: str = DIFFUSE
    alpha: Numbers = 0.3  # roughness, (world,)
    emission: Numbers | None = None  # radiance on the front side [W/(m^2 sr)], (world, 3)
    two_sided: bool = False
    schlick: bool = False
    albedo_texture: Texture | None = None
    alpha_texture: Texture | None = None
    emission_texture: Texture | None = None


class Poses(NamedTuple):
    """Where a rigid body is: at equidistant nodes about the middle of each view's frame (see PathRender.node_interval)."""

    positions: Tensor  # [m], (view, node, 3)
    orientations: Tensor  # quaternions (x, y, z, w), body to world, any length, (view, node, 4)


class Body(NamedTuple):
    """A triangle mesh, in the world's frame, or in its own where it has poses."""

    mesh: Mesh
    material: str
    uv: Tensor | None = None  # of the corners, (face, 3, 2); without gradient
    poses: Poses | None = None
    vertex_albedo: Tensor | None = None  # (world, vertex, 3)
    vertex_alpha: Tensor | None = None  # (world, vertex)
    vertex_emission: Tensor | None = None  # (world, vertex, 3)


class Ball(NamedTuple):
    """A sphere. Without texture; what it emits is seen, but is not sampled as a light."""

    center: Numbers  # [m], (world, 3)
    radius: Numbers  # [m], (world,)
    material: str
    poses: Poses | None = None


class Plane(NamedTuple):
    """An endless plane through three points, counter-clockwise seen from its front; uv (0, 0), (1, 0), (0, 1) there."""

    corners: Numbers  # [m], (world, 3, 3)
    material: str


class SdfBody(NamedTuple):
    """The solid inside the zero set of a grid of signed distances, in the world's frame, or in its own where it has poses.

    Shapes of `geometry.sdf_shapes` are evaluated on a grid first (`geometry.sdf_stage`), with gradient. Without texture; what
    it emits is seen, but is not sampled as a light.
    """

    grid: SdfGrid  # gradient to its values, none to origin and spacing
    material: str
    poses: Poses | None = None


class PointLight(NamedTuple):
    position: Numbers  # [m], (world, 3)
    intensity: Numbers  # [W/sr], (world, 3)


class DirectionalLight(NamedTuple):
    direction: Numbers  # in which the light travels, any length, (world, 3)
    irradiance: Numbers  # on a surface that faces it [W/m^2], (world, 3)


class EnvironmentMap(NamedTuple):
    """Light from far away, seen from inside: row 0 at the zenith (+z), the middle column along +x, +y to its left.

    A picture of twice as many columns as rows, of any size. Bright parts are sampled as lights (`render.environment`).
    """

    image: Tensor  # radiance [W/(m^2 sr)], (world, height, width, 3)
    factor: Numbers = 1.0  # by which it is multiplied, (world, 3)


class Scene(NamedTuple):
    bodies: Sequence[Body | Ball | Plane | SdfBody]
    materials: Mapping[str, Material]
    lights: Sequence[PointLight | DirectionalLight] | None = ()
    environment: Numbers | EnvironmentMap | None = None  # radiance from everywhere, (world, 3), or from each direction
