"""How the image of a flat-shaded mesh changes because its edges move: explicit sampling of edges.

A pixel is the mean of the radiance over its square. Where the radiance jumps across a curve, moving the curve adds

    d loss = integral over the curve  h (L_minus - L_plus)  N . dx  ds

to the derivative of a loss (Li et al. 2018, "Differentiable Monte Carlo ray tracing through edge sampling"): x(s) is the
curve on the film, N = perp(dx/ds) its normal times its length element, L_plus the radiance on the side that N points to,
and h the loss's derivative by the image, convolved with the pixel filter, at x. The filter is a box one film pixel wide, so h
is the adjoint of the pixel that x lies in over the pixel's area.

Three kinds of edges jump: folds (one face towards the viewer, one away: the silhouette), borders (one face only), and creases
(both faces seen, of different brightness). For folds and borders a ray just outside tells what lies behind.

A point a + s (b - a) of an edge, at the place u in the exposure, is seen at x = P(s, t(x)): with a readout skew the
time depends on where it lands. The equation is solved by fixed-point iteration. Its derivative is (1 - P_t t_x')^-1 (P_theta +
P_t t_theta), and perp(B v) = det(B) B^-T perp(v), so the integrand is `h jump perp(P_s) / det . (P_theta + P_t t_theta)` with
det = 1 - t_x' . P_t: the gradient of `weight . P` with the weight held fixed. One derivative of one projected point therefore
serves vertices, poses, camera and shutter alike.

Not covered: curves where a mesh cuts through itself. A pose that outruns the readout (det <= 0) is counted in `refused`.
"""

import warp as wp

from render.camera_projection import NEAR, project, project_direction, to_camera
from render.mesh_hits import (
    FilmPlan,
    MeshTrees,
    MeshViews,
    Pose,
    blend_orientation,
    face_radiance,
    facing_of,
    look,
    pose_at,
    ray_start,
    sample_time,
)

GOLDEN = wp.constant(0.6180339887)
READOUT_STEPS = wp.constant(6)  # fixed-point steps for the row-time relation; each gains a factor 1 - det
SMALLEST_DETERMINANT = wp.constant(0.05)
FLAT = wp.constant(1.0e-6)  # sine of the angle between two faces below which they are one plane


@wp.func
def edge_point_on_film(
    a: wp.vec3,
    b: wp.vec3,
    s: float,
    p0: wp.vec3,
    p1: wp.vec3,
    q0: wp.quat,
    q1: wp.quat,
    blend: float,
    camera_position: wp.vec3,
    camera_rotation: wp.mat33,
    focal: float,
    center: wp.vec2,
    orthographic: int,
    weight: wp.vec2,
):
    """weight . film point of the edge point a + s (b - a): the pseudo-loss whose gradient is taken."""
    point = p0 + (p1 - p0) * blend + wp.quat_rotate(blend_orientation(q0, q1, blend), a + (b - a) * s)
    return wp.dot(weight, project(point, camera_position, camera_rotation, focal, center, orthographic))


@wp.kernel
def reverse_edge_point(out: wp.array(dtype=float)):
    """Never launched. Warp 1.19 leaves the reverse of nested functions empty, so that `wp.grad` is silently zero, when other
    code of the module has called them before; a kernel with a backward pass makes sure that they are there."""
    v = wp.vec3(1.0)
    q = wp.quat_identity()
    out[0] = edge_point_on_film(v, v, 0.5, v, v, q, q, 0.5, v, wp.mat33(), 1.0, wp.vec2(), 0, wp.vec2())


@wp.func
def velocity_of(views: MeshViews, film: FilmPlan, view: int, pose: Pose, point: wp.vec3):
    """World velocity [m/s] of a point given in the mesh's frame."""
    q0 = views.orientations[view, pose.node]
    q1 = views.orientations[view, pose.next]
    if wp.dot(q0, q1) < 0.0:
        q1 = -q1
    mixed = q0 * (1.0 - pose.blend) + q1 * pose.blend
    rate = q1 - q0
    q = wp.normalize(mixed)
    rate = (rate - q * wp.dot(q, rate)) / wp.length(mixed)
    spin = rate * wp.quat_inverse(q)
    omega = wp.vec3(2.0 * spin[0], 2.0 * spin[1], 2.0 * spin[2])
    linear = views.positions[view, pose.next] - views.positions[view, pose.node]
    return (linear + wp.cross(omega, wp.quat_rotate(q, point))) / film.node_interval


@wp.func
def face_normal(vertices: wp.array2d(dtype=wp.vec3), faces: wp.array2d(dtype=int), world: int, face: int):
    a = vertices[world, faces[face, 0]]
    return wp.normalize(wp.cross(vertices[world, faces[face, 1]] - a, vertices[world, faces[face, 2]] - a))


@wp.kernel(enable_backward=False)
def edge_adjoint(
    views: MeshViews,
    film: FilmPlan,
    faces: wp.array2d(dtype=int),
    edges: wp.array2d(dtype=int),
    trees: MeshTrees,
    seed: wp.array(dtype=int),
    image_adjoint: wp.array3d(dtype=wp.vec3),
    samples: int,
    closed: int,
    side_offset: float,
    grads: MeshViews,
    refused: wp.array(dtype=int),
):
    """Adds the boundary gradient of sample k of one edge in one view to `grads`."""
    view, edge, k = wp.tid()
    world = view / film.views_per_world
    ia = edges[edge, 0]
    ib = edges[edge, 1]
    face0 = edges[edge, 2]
    face1 = edges[edge, 3]
    a = views.vertices[world, ia]
    b = views.vertices[world, ib]
    camera_position = views.camera_position[view]
    camera_rotation = views.camera_rotation[view]
    focal = views.focal[view]
    center = views.center[view]
    exposure = views.exposure[view]
    readout = views.readout[view]

    # 1. a point of the edge, a place in the exposure, and where the film sees it
    state = wp.rand_init(seed[view] + 0x3C6EF372, view * edges.shape[0] + edge)
    shift = wp.randf(state)
    s = (float(k) + wp.randf(wp.rand_init(int(state), k))) / float(samples)
    u = wp.frac(shift + float(k) * GOLDEN) - 0.5
    local = a + (b - a) * s
    at = film.frame * 0.5
    pose = Pose()
    point = wp.vec3()
    steps = 1
    if readout[0] != 0.0 or readout[1] != 0.0:
        steps = READOUT_STEPS
    for _step in range(steps):
        time = sample_time(film, exposure, readout, at, u)
        pose = pose_at(views, film, view, time)
        point = pose.position + wp.quat_rotate(pose.orientation, local)
        if film.orthographic == 0 and to_camera(point, camera_position, camera_rotation)[2] <= NEAR:
            return
        at = project(point, camera_position, camera_rotation, focal, center, film.orthographic)
    determinant = 1.0
    if steps > 1:
        velocity = velocity_of(views, film, view, pose, local)
        drift = project_direction(point, velocity, camera_position, camera_rotation, focal, film.orthographic)
        determinant = 1.0 - readout[0] / film.frame[0] * drift[0] - readout[1] / film.frame[1] * drift[1]
        if determinant < SMALLEST_DETERMINANT:
            wp.atomic_add(refused, 0, 1)
            return
    column = int(wp.floor((at[0] - film.origin[0]) * film.scale))
    row = int(wp.floor((at[1] - film.origin[1]) * film.scale))
    if column < 0 or column >= film.width or row < 0 or row >= film.height:
        return
    adjoint = image_adjoint[view, row, column]
    if wp.dot(adjoint, adjoint) == 0.0:
        return

    # 2. which kind of edge it is, seen from this eye
    eye = wp.quat_rotate_inv(pose.orientation, camera_position - pose.position)
    toward = local - eye
    if film.orthographic != 0:
        axis = wp.transpose(camera_rotation) * wp.vec3(0.0, 0.0, 1.0)
        depth = to_camera(point, camera_position, camera_rotation)[2] - ray_start(views, film, trees, view, pose)
        toward = wp.quat_rotate_inv(pose.orientation, axis) * depth
        eye = local - toward
    distance = wp.length(toward)
    toward = toward / distance
    n0 = face_normal(views.vertices, faces, world, face0)
    facing0 = facing_of(-wp.dot(n0, toward))
    facing1 = facing0
    crease = 0
    near_face = face0
    near_facing = facing0
    c0 = views.vertices[world, edges[edge, 4]]
    c1 = c0
    if face1 >= 0:
        n1 = face_normal(views.vertices, faces, world, face1)
        facing1 = facing_of(-wp.dot(n1, toward))
        c1 = views.vertices[world, edges[edge, 5]]
        if facing0 == facing1:
            crease = 1
            if closed != 0 and facing0 < 0.0:
                return
            if wp.length(wp.cross(n0, n1)) < FLAT:
                return
        else:
            convex = wp.dot(n0, c1 - a) < 0.0
            if closed != 0 and not convex:
                return
            if convex != (facing0 > 0.0):
                near_face = face1
                near_facing = facing1

    # 3. the edge's normal on the film, and the radiance on both sides of it
    along = project_direction(
        point, wp.quat_rotate(pose.orientation, b - a), camera_position, camera_rotation, focal, film.orthographic
    )
    length = wp.length(along)
    if length < 1.0e-9:
        return
    normal = wp.vec2(along[1], -along[0]) / length
    into0 = project_direction(
        point, wp.quat_rotate(pose.orientation, c0 - local), camera_position, camera_rotation, focal, film.orthographic
    )
    into1 = project_direction(
        point, wp.quat_rotate(pose.orientation, c1 - local), camera_position, camera_rotation, focal, film.orthographic
    )
    side0 = wp.dot(normal, into0)
    side1 = wp.dot(normal, into1)
    slack = 1.0e-4 * distance + 1.0e-2 * wp.length(b - a)
    inner = face_radiance(views, faces, view, world, near_face, pose, near_facing)
    outer = wp.vec3()
    side = facing_of(side0 - side1)
    if crease != 0:
        hit = wp.mesh_query_ray(trees.ids[world], eye, toward, distance - slack)
        if hit.result and hit.face != face0 and hit.face != face1:
            return
        outer = face_radiance(views, faces, view, world, face1, pose, facing1)
    else:
        side = facing_of(side1)
        if wp.abs(side0) > wp.abs(side1):
            side = facing_of(side0)
        offset = wp.max(side_offset * wp.min(1.0 / film.scale, length), 1.0e-6 * focal)
        behind = look(views, film, trees, view, pose, at - normal * (side * offset))
        outer = views.plate[row, column]
        if behind.result:
            if behind.t < distance - slack:
                return
            outer = face_radiance(views, faces, view, world, behind.face, pose, facing_of(behind.sign))

    # 4. the weight, and the gradient of weight . film point
    jump = wp.dot(outer - inner, adjoint) * side  # (minus side) - (plus side); the near face is on the plus side if side > 0
    weight = normal * (jump * length * film.scale * film.scale / (float(samples) * determinant))
    ga, gb, _gs, gp0, gp1, gq0, gq1, gblend, gposition, grotation, gfocal, gcenter, _go, _gw = wp.grad(edge_point_on_film)(
        a,
        b,
        s,
        views.positions[view, pose.node],
        views.positions[view, pose.next],
        views.orientations[view, pose.node],
        views.orientations[view, pose.next],
        pose.blend,
        camera_position,
        camera_rotation,
        focal,
        center,
        film.orthographic,
        weight,
    )
    wp.atomic_add(grads.vertices, world, ia, ga)
    wp.atomic_add(grads.vertices, world, ib, gb)
    wp.atomic_add(grads.positions, view, pose.node, gp0)
    wp.atomic_add(grads.orientations, view, pose.node, gq0)
    if pose.next != pose.node:
        wp.atomic_add(grads.positions, view, pose.next, gp1)
        wp.atomic_add(grads.orientations, view, pose.next, gq1)
        gtime = gblend / film.node_interval
        skew = wp.vec2(at[0] / film.frame[0] - 0.5, at[1] / film.frame[1] - 0.5)
        wp.atomic_add(grads.exposure, view, gtime * film.frame_interval * u)
        wp.atomic_add(grads.readout, view, skew * gtime)
    wp.atomic_add(grads.camera_position, view, gposition)
    wp.atomic_add(grads.camera_rotation, view, grotation)
    wp.atomic_add(grads.focal, view, gfocal)
    wp.atomic_add(grads.center, view, gcenter)
