"""Which face of a moving rigid mesh a film point sees at a given time, and how bright that face is.

The mesh stays in its own frame, where its search tree is built once for its vertices; the ray is carried into that frame
with the pose of the sample's time. Between two nodes the position is linear in time and the orientation is the normalised
linear blend of the two quaternions (the shorter way round); outside the node window the first or last interval is extended.

Shading is diffuse with face normals, lit from one direction: with the unit face normal n, turned towards the viewer, and the
unit vector l to the light, `radiance = color (ambient + (1 - ambient) max(0, n . l))`. `ambient = 1` gives an emissive body.

Queries carry no gradient: a face is found detached, its shading is recomputed attached (`shade`).
"""

import warp as wp

from render.camera_projection import ray_direction, ray_origin, to_camera

FAR = wp.constant(1.0e6)  # longest ray [m]
R3_COLUMN = wp.constant(wp.uint32(3518319155))  # powers of 0.8191725 (1 / the real root of x^4 = x + 1), times 2^32
R3_ROW = wp.constant(wp.uint32(2882110345))
R3_TIME = wp.constant(wp.uint32(2360945575))
UNIT = wp.constant(1.0 / 4294967296.0)  # 2^-32


@wp.struct
class MeshViews:
    """What a view shows, one row a view. A second instance of the same layout collects the gradients."""

    vertices: wp.array2d(dtype=wp.vec3)  # [m], (world, vertex)
    positions: wp.array2d(dtype=wp.vec3)  # of the mesh's origin at the nodes [m], (view, node)
    orientations: wp.array2d(dtype=wp.quat)  # mesh to world, (view, node)
    camera_position: wp.array(dtype=wp.vec3)  # [m], (view,)
    camera_rotation: wp.array(dtype=wp.mat33)  # world to camera, (view,)
    focal: wp.array(dtype=float)  # [px] or [px/m], (view,)
    center: wp.array(dtype=wp.vec2)  # [px], (view,)
    exposure: wp.array(dtype=float)  # fraction of the frame interval, (view,)
    readout: wp.array(dtype=wp.vec2)  # [s per frame width, s per frame height], (view,)
    color: wp.array(dtype=wp.vec3)  # (view,)
    light: wp.array(dtype=wp.vec3)  # towards the light, any length, (view,)
    ambient: wp.array(dtype=float)  # (view,)
    plate: wp.array2d(dtype=wp.vec3)  # (film row, film column)


@wp.struct
class MeshTrees:
    """The search tree of each world's mesh."""

    ids: wp.array(dtype=wp.uint64)  # (world,)
    reach: wp.array(dtype=float)  # distance of the farthest vertex from the mesh's origin [m], (world,)


@wp.struct
class FilmPlan:
    """The film and the clock of a view: numbers that do not change from call to call."""

    origin: wp.vec2  # full-resolution pixel at the film's top left corner
    scale: float  # film pixels per full-resolution pixel
    frame: wp.vec2  # full-resolution frame width and height [px]
    height: int
    width: int
    frame_interval: float  # [s]
    node_interval: float  # [s]
    orthographic: int
    views_per_world: int


@wp.struct
class Pose:
    """A rigid pose at one time, and where that time lies between two nodes."""

    position: wp.vec3
    orientation: wp.quat
    node: int  # left node
    next: int  # right node (the same one when there is only one)
    blend: float  # 0 at the left node, 1 at the right one


@wp.func
def sample_time(film: FilmPlan, exposure: float, readout: wp.vec2, at: wp.vec2, u: float):
    """Time of a film point from the middle of its frame [s]; u in [-1/2, 1/2] is the place in the exposure."""
    skew = wp.vec2(at[0] / film.frame[0] - 0.5, at[1] / film.frame[1] - 0.5)
    return wp.dot(readout, skew) + exposure * film.frame_interval * u


@wp.func
def blend_orientation(q0: wp.quat, q1: wp.quat, blend: float):
    """Normalised linear blend of two quaternions, the shorter way round."""
    sign = 1.0
    if wp.dot(q0, q1) < 0.0:
        sign = -1.0
    return wp.normalize(q0 * (1.0 - blend) + q1 * (sign * blend))


@wp.func
def pose_at(views: MeshViews, film: FilmPlan, view: int, time: float):
    nodes = views.positions.shape[1]
    pose = Pose()
    if nodes == 1:
        pose.node = 0
        pose.next = 0
        pose.blend = 0.0
    else:
        place = time / film.node_interval + 0.5 * float(nodes - 1)
        pose.node = wp.clamp(int(wp.floor(place)), 0, nodes - 2)
        pose.next = pose.node + 1
        pose.blend = place - float(pose.node)
    p0 = views.positions[view, pose.node]
    p1 = views.positions[view, pose.next]
    pose.position = p0 + (p1 - p0) * pose.blend
    pose.orientation = blend_orientation(views.orientations[view, pose.node], views.orientations[view, pose.next], pose.blend)
    return pose


@wp.func
def shade(
    a: wp.vec3, b: wp.vec3, c: wp.vec3, q0: wp.quat, q1: wp.quat, blend: float, light: wp.vec3, ambient: float, facing: float
):
    """Brightness of a face with corners a, b, c; `facing` is 1 or -1 and turns the normal towards the viewer."""
    n = wp.quat_rotate(blend_orientation(q0, q1, blend), wp.normalize(wp.cross(b - a, c - a)))
    cosine = facing * wp.dot(n, wp.normalize(light))
    return ambient + (1.0 - ambient) * wp.max(0.0, cosine)


@wp.func
def face_radiance(views: MeshViews, faces: wp.array2d(dtype=int), view: int, world: int, face: int, pose: Pose, facing: float):
    """Radiance of one face of the mesh at a pose."""
    brightness = shade(
        views.vertices[world, faces[face, 0]],
        views.vertices[world, faces[face, 1]],
        views.vertices[world, faces[face, 2]],
        views.orientations[view, pose.node],
        views.orientations[view, pose.next],
        pose.blend,
        views.light[view],
        views.ambient[view],
        facing,
    )
    return views.color[view] * brightness


@wp.func
def ray_start(views: MeshViews, film: FilmPlan, trees: MeshTrees, view: int, pose: Pose):
    """Depth [m] in front of which the mesh cannot be: where rays without perspective start."""
    depth = to_camera(pose.position, views.camera_position[view], views.camera_rotation[view])[2]
    return depth - 1.01 * trees.reach[view / film.views_per_world]


@wp.func
def look(views: MeshViews, film: FilmPlan, trees: MeshTrees, view: int, pose: Pose, at: wp.vec2):
    """The nearest face along the ray of a film point (full-resolution px), in the mesh's frame."""
    rotation = views.camera_rotation[view]
    focal = views.focal[view]
    center = views.center[view]
    start = ray_start(views, film, trees, view, pose)
    origin = ray_origin(at, views.camera_position[view], rotation, focal, center, film.orthographic, start)
    direction = ray_direction(at, rotation, focal, center, film.orthographic)
    return wp.mesh_query_ray(
        trees.ids[view / film.views_per_world],
        wp.quat_rotate_inv(pose.orientation, origin - pose.position),
        wp.quat_rotate_inv(pose.orientation, direction),
        FAR,
    )


@wp.func
def widen(box: wp.vec4, views: MeshViews, film: FilmPlan, view: int, place: wp.vec3, reach: float):
    """A film rectangle (least x, least y, greatest x, greatest y) [px], grown to hold a ball of radius `reach` at `place`."""
    c = to_camera(place, views.camera_position[view], views.camera_rotation[view])
    at = wp.vec2(c[0], c[1]) * views.focal[view]
    spread = wp.vec2(reach, reach) * views.focal[view]
    if film.orthographic == 0:
        if c[2] < 1.01 * reach:
            return wp.vec4(-FAR, -FAR, FAR, FAR)
        # |(c_x + d_x) / (c_z + d_z) - c_x / c_z| <= |d| |(c_x, c_z)| / (c_z (c_z - |d|))
        depth = c[2] * (c[2] - reach)
        at = at / c[2]
        spread = wp.vec2(wp.length(wp.vec2(c[0], c[2])), wp.length(wp.vec2(c[1], c[2]))) * (views.focal[view] * reach / depth)
    at += views.center[view]
    return wp.vec4(
        wp.min(box[0], at[0] - spread[0]), wp.min(box[1], at[1] - spread[1]),
        wp.max(box[2], at[0] + spread[0]), wp.max(box[3], at[1] + spread[1]),
    )  # fmt: skip


@wp.kernel(enable_backward=False)
def find_boxes(views: MeshViews, film: FilmPlan, trees: MeshTrees, boxes: wp.array(dtype=wp.vec4i)):
    """Film rectangle outside which each view shows the plate at every time: first column and row, end column and row."""
    view = wp.tid()
    reach = 1.01 * trees.reach[view / film.views_per_world]
    # the earliest and latest times of the film, where the motion may go on beyond its nodes
    corner = film.origin + wp.vec2(float(film.width), float(film.height)) / film.scale
    x = wp.max(wp.abs(film.origin[0] / film.frame[0] - 0.5), wp.abs(corner[0] / film.frame[0] - 0.5))
    y = wp.max(wp.abs(film.origin[1] / film.frame[1] - 0.5), wp.abs(corner[1] / film.frame[1] - 0.5))
    late = wp.abs(views.readout[view][0]) * x + wp.abs(views.readout[view][1]) * y
    late += 0.5 * wp.abs(views.exposure[view]) * film.frame_interval
    box = wp.vec4(FAR, FAR, -FAR, -FAR)
    box = widen(box, views, film, view, pose_at(views, film, view, late).position, reach)
    box = widen(box, views, film, view, pose_at(views, film, view, -late).position, reach)
    for node in range(views.positions.shape[1]):
        box = widen(box, views, film, view, views.positions[view, node], reach)
    boxes[view] = wp.vec4i(
        int(wp.clamp(wp.floor((box[0] - film.origin[0]) * film.scale), 0.0, float(film.width))),
        int(wp.clamp(wp.floor((box[1] - film.origin[1]) * film.scale), 0.0, float(film.height))),
        int(wp.clamp(wp.ceil((box[2] - film.origin[0]) * film.scale), 0.0, float(film.width))),
        int(wp.clamp(wp.ceil((box[3] - film.origin[1]) * film.scale), 0.0, float(film.height))),
    )


@wp.func
def outside(box: wp.vec4i, row: int, column: int):
    return column < box[0] or row < box[1] or column >= box[2] or row >= box[3]


@wp.func
def film_sample(shift: wp.vec3, sample: int):
    """Point `sample` of a three-dimensional additive recurrence (Roberts 2018, R3), shifted: column, row, time in [0, 1).

    The products wrap around in 32-bit integers, which keeps their fractions exact for any count.
    """
    k = wp.uint32(sample)
    x = float(k * R3_COLUMN) * UNIT
    y = float(k * R3_ROW) * UNIT
    z = float(k * R3_TIME) * UNIT
    return wp.vec3(wp.frac(shift[0] + x), wp.frac(shift[1] + y), wp.frac(shift[2] + z))


@wp.func
def film_point(film: FilmPlan, row: int, column: int, sample: wp.vec3):
    """Full-resolution pixel of a sample inside a film pixel."""
    x = film.origin[0] + (float(column) + sample[0]) / film.scale
    y = film.origin[1] + (float(row) + sample[1]) / film.scale
    return wp.vec2(x, y)


@wp.func
def facing_of(sign: float):
    """Whether a ray met the outward side (1) or the inward side (-1) of a face, from `mesh_query_ray`'s sign."""
    return wp.where(sign > 0.0, 1.0, -1.0)


@wp.kernel(enable_backward=False)
def measure_reach(vertices: wp.array2d(dtype=wp.vec3), reach: wp.array(dtype=float)):
    world, vertex = wp.tid()
    wp.atomic_max(reach, world, wp.length(vertices[world, vertex]))


def build_trees(vertices: wp.array, faces: wp.array) -> tuple[MeshTrees, list[wp.Mesh]]:
    """A search tree for each world's vertices (world, vertex); keep the list alive as long as the trees are used."""
    worlds = vertices.shape[0]
    with wp.ScopedDevice(vertices.device):
        flat = faces.flatten()
        meshes = [wp.Mesh(points=wp.clone(vertices[world], requires_grad=False), indices=flat) for world in range(worlds)]
        trees = MeshTrees()
        trees.ids = wp.array([mesh.id for mesh in meshes], dtype=wp.uint64)
        trees.reach = wp.zeros(worlds, dtype=float)
        wp.launch(measure_reach, vertices.shape, inputs=[vertices], outputs=[trees.reach])
    return trees, meshes
