r"""Edges of triangle meshes as places where a picture may jump: which are chosen, and what kind they are seen from a direction.

Seen along a direction, an edge is a *rim* (a border, or a fold with both faces on one side of it: what lies beyond it shows on
the other) or a *crease* (both faces show, with different normals). Everything else does not jump. That is read off where the
faces' other corners are, so it does not ask for faces that are wound alike.

Edges are drawn with the density of an importance, by its cumulative sum; the remainder of the draw is the place along the edge,
so that n draws are stratified over all edges together.
"""

import warp as wp

from render.camera_projection import NEAR, depth_of, film_of
from render.gradient_sink import Sink
from render.placing import add_vertex_gradient, corner, to_world
from render.reversible import calls_gradients
from render.scene_data import FilmPlan, Moment, SceneNumbers, SceneTables, moment_at

NOTHING, RIM, CREASE = wp.constant(0), wp.constant(1), wp.constant(2)
FLAT = wp.constant(1.0e-6)  # sine of the angle between two faces below which they are one plane
CREASE_SHARE = wp.constant(0.25)  # importance of a crease over that of a rim
PAINTED_SHARE = wp.constant(0.5)  # angle [rad] that stands for a flat edge between materials
OFF_FILM_SHARE = wp.constant(0.02)  # importance of edges that the film does not see in the middle of the exposure


@wp.struct
class Edge:
    """An edge in the world at a moment."""

    a: wp.vec3
    b: wp.vec3
    c0: wp.vec3  # the opposite corner of face 0
    c1: wp.vec3
    n0: wp.vec3  # unit normals
    n1: wp.vec3
    face0: int
    face1: int  # -1: border
    instance: int
    painted: int  # whether the faces may differ although they are one plane: by material or texture


@wp.struct
class Sight:
    """What an edge is, seen along a direction."""

    kind: int
    near_face: int
    far_face: int  # of a crease
    outward: (
        wp.vec3
    )  # unit, perpendicular to edge and direction; away from the faces of a rim, from near to far face of a crease


@wp.func
def unit_normal(a: wp.vec3, b: wp.vec3, c: wp.vec3):
    raw = wp.cross(b - a, c - a)
    return raw / wp.max(wp.length(raw), 1.0e-30)


@wp.func
def painted_apart(tables: SceneTables, face0: int, face1: int):
    """Whether two faces have different materials, or one with a texture, which may have a seam."""
    first = tables.face_table[face0, 1]
    found = int(0)
    if first != tables.face_table[face1, 1]:
        found = 1
    for slot in range(3):
        if tables.material_table[first, 3 + slot] >= 0:
            found = 1
    return found


@wp.func
def edge_at(scene: SceneNumbers, tables: SceneTables, view: int, world: int, moment: Moment, index: int):
    edge = Edge()
    edge.face0 = tables.edges[index, 2]
    edge.face1 = tables.edges[index, 3]
    edge.instance = tables.face_table[edge.face0, 0]
    edge.a = to_world(scene, view, moment, edge.instance, scene.vertices[world, tables.edges[index, 0]])
    edge.b = to_world(scene, view, moment, edge.instance, scene.vertices[world, tables.edges[index, 1]])
    edge.c0 = to_world(scene, view, moment, edge.instance, scene.vertices[world, tables.edges[index, 4]])
    edge.n0 = unit_normal(
        corner(scene, tables, view, world, moment, edge.face0, 0), corner(scene, tables, view, world, moment, edge.face0, 1),
        corner(scene, tables, view, world, moment, edge.face0, 2),
    )  # fmt: skip
    edge.c1 = edge.c0
    edge.n1 = edge.n0
    if edge.face1 >= 0:
        edge.painted = painted_apart(tables, edge.face0, edge.face1)
        edge.c1 = to_world(scene, view, moment, edge.instance, scene.vertices[world, tables.edges[index, 5]])
        edge.n1 = unit_normal(
            corner(scene, tables, view, world, moment, edge.face1, 0),
            corner(scene, tables, view, world, moment, edge.face1, 1),
            corner(scene, tables, view, world, moment, edge.face1, 2),
        )
    return edge


@wp.func
def sight_of(edge: Edge, point: wp.vec3, toward: wp.vec3):
    """What the edge is at `point`, seen along `toward`."""
    sight = Sight()
    sight.kind = NOTHING
    sight.near_face = edge.face0
    across = wp.cross(toward, edge.b - edge.a)
    length = wp.length(across)
    if length <= 1.0e-6 * wp.length(toward) * wp.length(edge.b - edge.a):
        return sight
    across = across / length
    to0 = edge.c0 - point
    to1 = edge.c1 - point
    side0 = wp.dot(across, to0)
    side1 = wp.dot(across, to1)
    if edge.face1 < 0:
        sight.kind = RIM
        sight.outward = across * wp.where(side0 > 0.0, -1.0, 1.0)
    elif side0 * side1 < 0.0:
        if edge.painted != 0 or wp.length(wp.cross(edge.n0, edge.n1)) > FLAT:
            sight.kind = CREASE
            sight.far_face = edge.face1
            sight.outward = across * wp.where(side1 > side0, 1.0, -1.0)
    else:
        sight.kind = RIM
        side = wp.where(wp.abs(side0) > wp.abs(side1), side0, side1)
        sight.outward = across * wp.where(side > 0.0, -1.0, 1.0)
        along = wp.normalize(edge.b - edge.a)
        deeper = toward - along * wp.dot(toward, along)
        # how fast each face falls back behind the edge: the near one falls back less
        if wp.dot(to1, deeper) * wp.abs(side0) < wp.dot(to0, deeper) * wp.abs(side1):
            sight.near_face = edge.face1
    return sight


@calls_gradients
@wp.func
def add_edge_gradient(
    scene: SceneNumbers, tables: SceneTables, sink: Sink, view: int, world: int, moment: Moment, instance: int, index: int,
    g_a: wp.vec3, g_b: wp.vec3,
):  # fmt: skip
    """Adds gradients at an edge's ends; half of them where a second mesh's border runs. Returns that of the blend."""
    share = float(1.0)
    at_blend = float(0.0)
    if tables.edges[index, 6] >= 0:
        share = 0.5
        at_blend += add_vertex_gradient(scene, tables, sink, view, world, moment, instance, tables.edges[index, 6], g_a * share)
        at_blend += add_vertex_gradient(scene, tables, sink, view, world, moment, instance, tables.edges[index, 7], g_b * share)
    at_blend += add_vertex_gradient(scene, tables, sink, view, world, moment, instance, tables.edges[index, 0], g_a * share)
    at_blend += add_vertex_gradient(scene, tables, sink, view, world, moment, instance, tables.edges[index, 1], g_b * share)
    return at_blend


@wp.kernel(enable_backward=False)
def film_importance_kernel(
    scene: SceneNumbers, tables: SceneTables, film: FilmPlan, view: int, importance: wp.array(dtype=float)
):
    """Length on the film in the middle of the exposure, less where the edge is not likely to matter."""
    index = wp.tid()
    world = view / film.views_per_world
    camera = scene.cameras[view]
    moment = moment_at(scene.positions.shape[2], film.node_interval, 0.0)
    edge = edge_at(scene, tables, view, world, moment, index)
    diagonal = wp.length(film.frame)
    length = diagonal
    share = float(1.0)
    if camera[21] != 0.0 or (depth_of(edge.a, camera) > NEAR and depth_of(edge.b, camera) > NEAR):
        at_a = film_of(edge.a, camera)
        at_b = film_of(edge.b, camera)
        length = wp.min(wp.length(at_b - at_a), diagonal)
        low = wp.min(at_a, at_b)
        high = wp.max(at_a, at_b)
        end = film.origin + wp.vec2(float(film.width), float(film.height)) / film.scale
        if high[0] < film.origin[0] or high[1] < film.origin[1] or low[0] > end[0] or low[1] > end[1]:
            share = OFF_FILM_SHARE
    toward = wp.vec3(camera[9], camera[10], camera[11])
    if camera[21] == 0.0:
        toward = 0.5 * (edge.a + edge.b) - wp.vec3(camera[0], camera[1], camera[2])
    sight = sight_of(edge, 0.5 * (edge.a + edge.b), toward)
    if sight.kind == CREASE:
        share = share * CREASE_SHARE
    elif sight.kind == NOTHING:
        share = share * wp.where(scene.positions.shape[2] > 1, OFF_FILM_SHARE, 0.0)
    importance[index] = length * share


@wp.kernel(enable_backward=False)
def fold_importance_kernel(
    scene: SceneNumbers, tables: SceneTables, film: FilmPlan, view: int, importance: wp.array(dtype=float)
):
    """Length times the angle of the fold: the share of directions from which the edge is a rim."""
    index = wp.tid()
    world = view / film.views_per_world
    edge = edge_at(scene, tables, view, world, moment_at(scene.positions.shape[2], film.node_interval, 0.0), index)
    angle = float(wp.PI)
    if edge.face1 >= 0:
        along = wp.normalize(edge.b - edge.a)
        to0 = edge.c0 - edge.a
        to1 = edge.c1 - edge.a
        to0 = wp.normalize(to0 - along * wp.dot(to0, along))
        to1 = wp.normalize(to1 - along * wp.dot(to1, along))
        angle = wp.acos(wp.clamp(-wp.dot(to0, to1), -1.0, 1.0))
        if wp.length(wp.cross(edge.n0, edge.n1)) <= FLAT and wp.dot(to0, to1) < 0.0:
            angle = wp.where(edge.painted != 0, PAINTED_SHARE, 0.0)
    importance[index] = wp.length(edge.b - edge.a) * angle


@wp.func
def choose_edge(sums: wp.array(dtype=wp.float64), u: wp.float64):
    """Edge, place along it in [0, 1], and the density of both together, for u in [0, 1)."""
    last = sums.shape[0] - 1
    total = sums[last]
    place = u * total
    low = int(0)
    high = int(last)
    while low < high:
        middle = (low + high) // 2
        if sums[middle] > place:
            high = middle
        else:
            low = middle + 1
    before = wp.float64(0.0)
    if low > 0:
        before = sums[low - 1]
    own = sums[low] - before
    s = float(0.5)
    density = float(0.0)
    if own > wp.float64(0.0):
        s = wp.clamp(float((place - before) / own), 0.0, 1.0)
        density = float(own / total)
    return low, s, density


@wp.func
def stratum(index: int, count: int, jitter: float):
    """Point of stratum `index` of `count` in [0, 1)."""
    return wp.min((float(index) + jitter) / float(count), 0.99999994)


@wp.func
def lattice(index: int, step: wp.uint32, shift: wp.uint32):
    """Point `index` in [0, 1) of an additive sequence: `step` / 2^32 is irrational to within rounding, `shift` is random."""
    return float((wp.uint32(index) * step + shift) >> wp.uint32(8)) * (1.0 / 16777216.0)
