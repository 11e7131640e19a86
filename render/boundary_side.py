"""What the camera sees on either side of a boundary."""

import warp as wp

from render.aov_value import RADIANCE, shown_value
from render.hits import barycentric
from render.intersector import Intersector
from render.path_radiance import radiance
from render.placing import corner
from render.scene_data import FACE, MISSED, FilmPlan, Hit, Moment, SceneNumbers, SceneTables

INWARD = wp.constant(1.0e-3)  # of the way to a face's middle


@wp.func
def seen_face(scene: SceneNumbers, tables: SceneTables, view: int, world: int, moment: Moment, face: int, point: wp.vec3):
    """A hit on a face, at t = 1, a little inside from a point of its edge; and that place. On the edge itself, the face that
    meets it there would stand in the way of light."""
    hit = Hit()
    hit.kind = FACE
    hit.index = face
    hit.t = 1.0
    a = corner(scene, tables, view, world, moment, face, 0)
    b = corner(scene, tables, view, world, moment, face, 1)
    c = corner(scene, tables, view, world, moment, face, 2)
    uv = barycentric(point, a, b, c)
    hit.u = wp.clamp(uv[0], 0.0, 1.0)
    hit.v = wp.clamp(uv[1], 0.0, 1.0 - hit.u)
    hit.u += (1.0 / 3.0 - hit.u) * INWARD
    hit.v += (1.0 / 3.0 - hit.v) * INWARD
    return hit, a * (1.0 - hit.u - hit.v) + b * hit.u + c * hit.v


@wp.func
def sees_plate(scene: SceneNumbers, film: FilmPlan, hit: Hit):
    return wp.where(film.shows == RADIANCE and hit.kind == MISSED and scene.plate.shape[1] > 0, 1, 0)


@wp.func
def side_radiance(
    scene: SceneNumbers, tables: SceneTables, film: FilmPlan, tracer: Intersector, view: int, world: int, moment: Moment,
    hit: Hit, o: wp.vec3, d: wp.vec3, seed: wp.uint32,
):  # fmt: skip
    """What the camera sees at a hit, or behind everything: radiance, or what `film.shows` says; 0 for the plate, which is not
    one value but one a pixel (`sees_plate`)."""
    value = wp.vec3(0.0, 0.0, 0.0)
    if film.shows != RADIANCE:
        value = shown_value(scene, tables, film, view, world, moment, hit, o, d)
    elif sees_plate(scene, film, hit) == 0:
        value = radiance(scene, tables, film, tracer, view, world, moment, hit, o, d, 1, 1, seed)
    return value
