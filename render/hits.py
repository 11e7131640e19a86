"""What a ray meets first. Found without gradient, attached afterwards: `hit_point` and `hit_normal` are differentiated by
wp.grad.

Rays are carried into the frame of each instance, whose search tree is built once for its vertices. Planes (faces that go on for
ever) and spheres are few: they are tried one by one.
"""

import warp as wp

from render.intersector import Intersector, any_in_instance, closest_in_instance
from render.placing import carried_ray, corner, to_world
from render.reversible import reversible
from render.scene_data import FACE, MISSED, PLANE, SDF, SPHERE, Hit, Moment, SceneNumbers, SceneTables
from render.sdf_hits import march_sdf, sdf_ray

FAR = wp.constant(1.0e30)
NEAR_ORIGIN = wp.constant(0.1)  # [m], added to that size: at the origin, what is rounded is the way from the camera
OFFSET = wp.constant(3.0e-5)  # of the coordinates' size: how far a new ray starts from the surface that it leaves


@wp.func
def offset_origin(x: wp.vec3, n: wp.vec3, direction: wp.vec3):
    """A point beside the surface, on the side that `direction` leaves to."""
    size = wp.max(wp.max(wp.abs(x[0]), wp.abs(x[1])), wp.abs(x[2])) + NEAR_ORIGIN
    side = wp.where(wp.dot(n, direction) >= 0.0, OFFSET, -OFFSET)
    return x + n * (side * size)


@wp.func
def sphere_root(o: wp.vec3, d: wp.vec3, center: wp.vec3, radius: float):
    """First positive distance along a ray, or FAR; and 1 where the ray enters, -1 where it leaves from inside."""
    dd = wp.dot(d, d)
    to_center = center - o
    middle = wp.dot(to_center, d) / dd
    off = to_center - d * middle
    under = (radius * radius - wp.dot(off, off)) / dd
    t = float(FAR)
    side = float(1.0)
    if under > 0.0:
        half = wp.sqrt(under)
        if middle - half > 0.0:
            t = middle - half
        elif middle + half > 0.0:
            t = middle + half
            side = float(-1.0)
    return t, side


@wp.func
def plane_root(o: wp.vec3, d: wp.vec3, a: wp.vec3, b: wp.vec3, c: wp.vec3):
    n = wp.cross(b - a, c - a)
    across = wp.dot(n, d)
    t = float(FAR)
    if across != 0.0:
        root = wp.dot(n, a - o) / across
        if root > 0.0:
            t = root
    return t


@reversible
@wp.func
def barycentric(p: wp.vec3, a: wp.vec3, b: wp.vec3, c: wp.vec3):
    """Weights (u, v) of b and c at the point of the plane nearest to p."""
    e1 = b - a
    e2 = c - a
    r = p - a
    d11 = wp.dot(e1, e1)
    d12 = wp.dot(e1, e2)
    d22 = wp.dot(e2, e2)
    r1 = wp.dot(r, e1)
    r2 = wp.dot(r, e2)
    det = d11 * d22 - d12 * d12
    return wp.vec2((d22 * r1 - d12 * r2) / det, (d11 * r2 - d12 * r1) / det)


@wp.func
def has_others(tables: SceneTables):
    """Whether there are shapes that are not in search trees."""
    return tables.planes.shape[0] + tables.sphere_table.shape[0] + tables.sdf_table.shape[0] > 0


@wp.func(inline=False)
def closest_of_others(
    scene: SceneNumbers, tables: SceneTables, view: int, world: int, moment: Moment, o: wp.vec3, d: wp.vec3, before: Hit
):
    """`before`, or a hit of a plane, sphere or SDF that is nearer."""
    hit = before
    for i in range(tables.planes.shape[0]):
        face = tables.planes[i]
        a = corner(scene, tables, view, world, moment, face, 0)
        b = corner(scene, tables, view, world, moment, face, 1)
        c = corner(scene, tables, view, world, moment, face, 2)
        t = plane_root(o, d, a, b, c)
        if t < hit.t:
            uv = barycentric(o + d * t, a, b, c)
            hit.kind = PLANE
            hit.index = face
            hit.t = t
            hit.u = uv[0]
            hit.v = uv[1]
    for i in range(tables.sphere_table.shape[0]):
        ball = scene.spheres[world, i]
        center = to_world(scene, view, moment, tables.sphere_table[i, 0], wp.vec3(ball[0], ball[1], ball[2]))
        t, side = sphere_root(o, d, center, ball[3])
        if t < hit.t:
            hit.kind = SPHERE
            hit.index = i
            hit.t = t
            hit.u = side
            hit.v = 0.0
    if tables.sdf_table.shape[0] > 0:
        start = sdf_ray(scene, tables, view, moment, o, 1)
        along = sdf_ray(scene, tables, view, moment, d, 0)
        passed = march_sdf(scene, tables, world, start, along, hit.t)
        if passed.t < hit.t:
            hit.kind = SDF
            hit.index = 0
            hit.t = passed.t
            hit.u = 0.0
            hit.v = 0.0
    return hit


@wp.func(inline=False)
def blocked_by_others(
    scene: SceneNumbers, tables: SceneTables, view: int, world: int, moment: Moment, o: wp.vec3, d: wp.vec3, t_max: float
):
    for i in range(tables.planes.shape[0]):
        face = tables.planes[i]
        t = plane_root(
            o, d, corner(scene, tables, view, world, moment, face, 0), corner(scene, tables, view, world, moment, face, 1),
            corner(scene, tables, view, world, moment, face, 2),
        )  # fmt: skip
        if t < t_max:
            return True
    for i in range(tables.sphere_table.shape[0]):
        ball = scene.spheres[world, i]
        center = to_world(scene, view, moment, tables.sphere_table[i, 0], wp.vec3(ball[0], ball[1], ball[2]))
        t, _side = sphere_root(o, d, center, ball[3])
        if t < t_max:
            return True
    if tables.sdf_table.shape[0] > 0:
        start = sdf_ray(scene, tables, view, moment, o, 1)
        along = sdf_ray(scene, tables, view, moment, d, 0)
        found = march_sdf(scene, tables, world, start, along, t_max)
        if found.t < t_max:
            return True
    return False


@wp.func
def closest(
    scene: SceneNumbers, tables: SceneTables, tracer: Intersector, view: int, world: int, moment: Moment, o: wp.vec3, d: wp.vec3
):
    """The first hit of the ray o + t d, t > 0."""
    hit = Hit()
    hit.kind = MISSED
    hit.t = FAR
    for instance in range(tracer.instances):
        start = o
        along = d
        if instance > 0:
            start, along = carried_ray(scene.positions, scene.orientations, view, moment, instance, o, d)
        found = closest_in_instance(tracer, world, instance, start, along, hit.t)
        if found.face >= 0:
            hit.kind = FACE
            hit.index = found.face
            hit.t = found.t
            hit.u = found.u
            hit.v = found.v
    if has_others(tables):
        hit = closest_of_others(scene, tables, view, world, moment, o, d, hit)
    return hit


@wp.func
def blocked(
    scene: SceneNumbers, tables: SceneTables, tracer: Intersector, view: int, world: int, moment: Moment, o: wp.vec3,
    d: wp.vec3, t_max: float,
):  # fmt: skip
    """Whether anything is hit before t_max."""
    for instance in range(tracer.instances):
        start = o
        along = d
        if instance > 0:
            start, along = carried_ray(scene.positions, scene.orientations, view, moment, instance, o, d)
        if any_in_instance(tracer, world, instance, start, along, t_max):
            return True
    if has_others(tables):
        return blocked_by_others(scene, tables, view, world, moment, o, d, t_max)
    return False


@reversible
@wp.func
def hit_point(kind: int, o: wp.vec3, d: wp.vec3, a: wp.vec3, b: wp.vec3, c: wp.vec3):
    """Where the ray o + t d meets the surface: a face or plane with corners a, b, c; or a sphere with centre a, radius b_0,
    entered (c_0 = 1) or left (c_0 = -1)."""
    t = float(0.0)
    if kind == SPHERE:
        dd = wp.dot(d, d)
        to_center = a - o
        middle = wp.dot(to_center, d) / dd
        off = to_center - d * middle
        t = middle - c[0] * wp.sqrt(wp.max(b[0] * b[0] - wp.dot(off, off), 1.0e-12 * b[0] * b[0]) / dd)
    else:
        n = wp.cross(b - a, c - a)
        t = wp.dot(n, a - o) / wp.dot(n, d)
    return o + d * t


@reversible
@wp.func
def hit_normal(kind: int, x: wp.vec3, a: wp.vec3, b: wp.vec3, c: wp.vec3):
    """Unit normal: of a face, on the side where its corners run counter-clockwise; of a sphere, outwards."""
    n = wp.vec3(0.0, 0.0, 1.0)
    if kind == SPHERE:
        n = (x - a) / wp.length(x - a)
    else:
        raw = wp.cross(b - a, c - a)
        n = raw / wp.length(raw)
    return n
