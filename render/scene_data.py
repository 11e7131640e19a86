"""What the kernels of the ray tracer read: numbers that carry gradient, tables that do not, and the film.

A view is one image: a world at one frame, seen by one camera. Vertices lie in the frame of their instance; instance 0 is the
world itself and does not move, instance i > 0 has row i - 1 of `positions` and `orientations`, poses at equidistant nodes
about the middle of the view's frame.
"""

import warp as wp

from render.camera_projection import camera_vector
from render.textures import TextureTable

material_vector = wp.types.vector(length=7, dtype=float)  # 0-2 albedo, 3 alpha, 4-6 emission [W/(m^2 sr)]
light_vector = wp.types.vector(length=6, dtype=float)
# point: 0-2 position [m], 3-5 intensity [W/sr]; directional: 0-2 direction of travel, 3-5 irradiance [W/m^2]

MISSED, FACE, SPHERE, PLANE, SDF = (  # kinds of hit
    wp.constant(-1), wp.constant(0), wp.constant(1), wp.constant(2), wp.constant(3)
)  # fmt: skip
LAMP, POINT, DIRECTIONAL, ENVIRONMENT = wp.constant(0), wp.constant(1), wp.constant(2), wp.constant(3)  # kinds of light
ALBEDO, ALPHA, EMISSION = wp.constant(0), wp.constant(1), wp.constant(2)  # slots of a material's textures and vertex values


@wp.struct
class SceneNumbers:
    """A second instance of the same layout collects the gradients."""

    vertices: wp.array2d(dtype=wp.vec3)  # [m], (world, vertex)
    positions: wp.array3d(dtype=wp.vec3)  # of instances [m], (view, instance - 1, node)
    orientations: wp.array3d(dtype=wp.quat)  # instance to world, (view, instance - 1, node)
    cameras: wp.array(dtype=camera_vector)  # (view,)
    exposure: wp.array(dtype=float)  # fraction of the frame interval, (view,)
    readout: wp.array(dtype=wp.vec2)  # [s per frame width, s per frame height], (view,)
    materials: wp.array2d(dtype=material_vector)  # (world, material)
    texels: wp.array2d(dtype=wp.vec3)  # of all textures, (world, texel)
    vertex_values: wp.array3d(dtype=wp.vec3)  # (world, slot, vertex), factors of albedo, alpha and emission
    spheres: wp.array2d(dtype=wp.vec4)  # centre in its instance, radius [m], (world, sphere)
    sdf: wp.array4d(dtype=float)  # signed distances at a grid's nodes [m], (world, nx, ny, nz); size 0: none
    lights: wp.array2d(dtype=light_vector)  # (world, light)
    environment: wp.array(dtype=wp.vec3)  # radiance from everywhere, or the panorama's factor, (world,)
    plate: wp.array3d(dtype=wp.vec3)  # what the camera sees where it meets nothing, (view, row, column); size 0: environment


@wp.struct
class SceneTables:
    faces: wp.array2d(dtype=int)  # (face, 3), ordered by instance
    face_table: wp.array2d(dtype=int)  # instance, material, (face, 2)
    corner_uv: wp.array2d(dtype=wp.vec2)  # (face, 3)
    material_table: wp.array2d(dtype=int)  # see below, (material, 8)
    sphere_table: wp.array2d(dtype=int)  # instance, material, (sphere, 2)
    planes: wp.array(dtype=int)  # faces that go on for ever, which are not in the search trees
    lamps: wp.array(dtype=int)  # faces that emit and are sampled as lights
    lamp_cdf: wp.array2d(dtype=float)  # (world, lamp), ends at 1
    light_kinds: wp.array(dtype=int)  # POINT or DIRECTIONAL, (light,)
    edges: wp.array2d(dtype=int)  # as geometry.mesh_topology, (edge, 6)
    sdf_frame: wp.array(dtype=float)  # origin in its instance and spacing of the SDF grid [m], (4,)
    sdf_table: wp.array(dtype=int)  # its instance and material, (2,); size 0: there is no grid
    sky_cdf: wp.array3d(dtype=float)  # of a panorama, see render.environment, (world, row, column + 1); size 0: there is none
    textures: TextureTable  # the panorama is the last one
    has_environment: int  # whether the environment is sampled as a light


# columns of material_table: 0 kind, 1 two-sided, 2 Schlick, 3-5 textures of albedo, alpha, emission (-1: none),
# 6 bits of the slots that have vertex values, 7 whether it emits


@wp.struct
class FilmPlan:
    """Film, clock and sampling of a call."""

    origin: wp.vec2  # full-resolution pixel at the film's top left corner
    frame: wp.vec2  # full-resolution frame width and height [px]
    scale: float  # film pixels per full-resolution pixel
    height: int
    width: int
    filter_kind: int
    filter_size: float
    frame_interval: float  # [s]
    node_interval: float  # [s]
    views_per_world: int
    samples: int
    gradient_samples: int  # of the gradient's interior part
    moves: int  # whether anything wants gradient that can move on the film, or lights
    depth: int  # 1: emission, 2: and direct light, 3: and one bounce
    roulette_depth: int  # from which vertex on a path may end by chance
    shows: int  # what the image is of: 0 radiance, otherwise a group of render.aov_value
    motion_time: float  # over which motion is measured [s]; below 0: the exposure


@wp.struct
class Moment:
    """A time, as a place between two nodes."""

    node: int
    next: int
    blend: float  # 0 at the left node, 1 at the right one


@wp.struct
class Hit:
    kind: int
    index: int  # face or sphere
    t: float  # along the ray [its length]
    u: float  # barycentric weight of the second corner
    v: float  # of the third


@wp.func
def sample_time(film: FilmPlan, exposure: float, readout: wp.vec2, at: wp.vec2, u: float):
    """Time of a film point from the middle of its frame [s]; u in [-1/2, 1/2] is the place in the exposure."""
    skew = wp.vec2(at[0] / film.frame[0] - 0.5, at[1] / film.frame[1] - 0.5)
    return wp.dot(readout, skew) + exposure * film.frame_interval * u


@wp.func
def moment_at(nodes: int, node_interval: float, time: float):
    moment = Moment()
    if nodes > 1:
        place = time / node_interval + 0.5 * float(nodes - 1)
        moment.node = wp.clamp(int(wp.floor(place)), 0, nodes - 2)
        moment.next = moment.node + 1
        moment.blend = place - float(moment.node)
    return moment


@wp.func
def sample_moment(
    film: FilmPlan, exposure: float, readout: wp.vec2, nodes: int, at: wp.vec2, u: float,
):  # fmt: skip
    """`moment_at` of `sample_time`, which nothing depends on where there is one node."""
    moment = Moment()
    if nodes > 1:
        moment = moment_at(nodes, film.node_interval, sample_time(film, exposure, readout, at, u))
    return moment
