r"""How an image changes because shadows move: rims of surfaces between what is seen and what lights it.

For a fixed light point y, the shadow's border of an edge is a curve on the film: a point e of the edge, the receiver's point x
where the line from y through e goes on to, and its film point x(s) = P(x). So each fixed y gives a boundary term like that of
`render.primary_boundary`, with the light that x receives from y as the jump, and they are integrated over y: a lamp's points
are fixed on their triangles, as in `render.lights`, point lights and directions are what they are.

Whatever does not come from lamps and lights (`sources` = 1) arrives from directions, which are fixed: for each, the radiance
that an edge hides from x jumps between that of its near face and that of what lies beyond, path traced. So does the
environment's.

The samples begin at the edge and the light, and are connected to the receiver, and from there to the camera, straight or by way
of other surfaces (`render.boundary_walk`), which only few miss. With a readout skew the time depends on where the film sees the
border, as in `render.film_curve`. Left out are curves where surfaces cut through each other.
"""

import warp as wp

from render.boundary_side import seen_face
from render.boundary_walk import (
    MOST_HOPS,
    draw_hops,
    hop_share,
    pull_point,
    pull_walk,
    unsampled_emission,
)
from render.bsdf import bsdf_cos
from render.camera_projection import film_velocity, weighted_film
from render.edge_guide import EdgeDraw, cell_of, guided_place
from render.edge_sampling import CREASE, add_edge_gradient, choose_edge, lattice
from render.film_curve import (
    READOUT_STEPS,
    jump_weight,
    landing_at,
    outer_normal,
    readout_slope,
    splat_jump,
)
from render.gradient_sink import Sink, deposit
from render.intersector import Intersector
from render.lights import add_light_gradient
from render.path_adjoint import add_time_gradient
from render.path_radiance import radiance
from render.scene_data import FilmPlan, SceneNumbers, SceneTables, moment_at, sample_time
from render.shadow_border import (
    Border,
    border_at,
    border_drift,
    border_velocity,
    light_past,
    light_ray_along,
    radiance_past,
    seen_along,
    source_groups,
)

# of additive sequences, 2^32 times: time, choice of a lamp, its point or a direction (the plastic number's, Roberts 2018),
# direction of the first hop (square roots of 3 and 7)
STEPS = wp.constant(
    wp.types.vector(length=6, dtype=wp.uint32)(1359893120, 2654435769, 3242174889, 2447445414, 3144134278, 2773480762)
)
HEIGHTS, TURNS = wp.constant(4), wp.constant(8)  # cells of directions that are drawn with the edges


@wp.kernel(enable_backward=False)
def shadow_boundary_kernel(
    scene: SceneNumbers,
    tables: SceneTables,
    film: FilmPlan,
    tracer: Intersector,
    seed: wp.array(dtype=int),
    view: int,
    first: int,
    draw: EdgeDraw,
    sources: int,
    adjoint: wp.array3d(dtype=wp.vec3),
    refused: wp.array(dtype=int),
    sink: Sink,
    derivative: wp.array3d(dtype=wp.vec3),
):
    """Samples first, first + 1, ... of `draw.count` of one view; sources: 0 lamps and lights, 1 directions."""
    index = wp.tid() + first
    world = view / film.views_per_world
    salt = seed[view] + 0x5BD1E995 + sources + 0x1F123BB5 * draw.round
    state = wp.rand_init(salt, view * draw.count + index)
    place, guided = guided_place(draw, index, wp.randf(state))
    # the rest is drawn evenly over any run of samples: additive sequences, each with one random shift for all
    shifts = wp.rand_init(salt, -1 - view)
    u = lattice(index, STEPS[0], wp.randu(shifts)) - 0.5
    most = film.depth - 2
    if sources == 1 and unsampled_emission(tables) == 0:
        most = film.depth - 3
    most = wp.min(most, MOST_HOPS)
    if most < 0:
        return
    hops, place = draw_hops(most, place)
    u0 = lattice(index, STEPS[1], wp.randu(shifts))
    u1 = lattice(index, STEPS[2], wp.randu(shifts))
    u2 = lattice(index, STEPS[3], wp.randu(shifts))
    first_hop = wp.vec2(lattice(index, STEPS[4], wp.randu(shifts)), lattice(index, STEPS[5], wp.randu(shifts)))
    if sources == 1:
        cell, place = cell_of(place, HEIGHTS * TURNS)
        u1 = (float(cell // TURNS) + u1) / float(HEIGHTS)
        u2 = (float(cell % TURNS) + u2) / float(TURNS)
    else:
        cell, place = cell_of(place, source_groups(tables))
        u0 = (float(cell) + u0) / float(source_groups(tables))
    chosen, s, density = choose_edge(draw.sums, place)
    density = density * guided
    if density <= 0.0:
        return
    camera = scene.cameras[view]
    readout = scene.readout[view]

    # 1. the place of the border, and when it is seen
    steps = int(1)
    if (readout[0] != 0.0 or readout[1] != 0.0) and scene.positions.shape[2] > 1:
        steps = READOUT_STEPS
    border = Border()
    border.at = film.frame * 0.5
    step = float(0.0)
    for _step in range(steps):
        before = border.at
        time = sample_time(film, scene.exposure[view], readout, before, u)
        moment = moment_at(scene.positions.shape[2], film.node_interval, time)
        border = border_at(
            scene, tables, film, tracer, view, world, moment, sources, chosen, s, u0, u1, u2, hops,
            first_hop, wp.rand_init(int(state), 4),
        )  # fmt: skip
        if border.found == 0:
            return
        step = wp.length(border.at - before)
    at = border.at
    determinant = float(1.0)
    if steps > 1:
        drift = border_drift(scene, tables, view, world, border, film.node_interval)
        determinant = 1.0 - wp.dot(readout_slope(film, readout), film_velocity(border.last, drift, camera))
    landing = landing_at(film, camera, view, adjoint, derivative, refused, border.last, at, determinant, step)
    if landing.counts == 0:
        return

    # 2. whether the camera sees it
    seen = border.walk.last
    wi = seen_along(scene, tables, tracer, view, world, border.moment, seen, border.last, border.eye)
    if wp.dot(wi, wi) == 0.0:
        return

    # 3. the jump of what arrives at the camera: the outer side's less the inner's
    source = border.source
    receiver = border.receiver
    direction = border.direction
    through = border.walk.throughput
    receiver_wi = wi
    if hops > 0:
        receiver_wi = border.walk.first_wi
        arrival = wp.vec3(border.walk.directions[hops, 0], border.walk.directions[hops, 1], border.walk.directions[hops, 2])
        through = wp.cw_mul(
            through,
            bsdf_cos(seen.kind, seen.two_sided, seen.schlick, seen.albedo, seen.alpha, seen.normal, wi, -arrival),
        )
    if wp.dot(through, through) == 0.0:
        return
    lit = wp.vec3(0.0, 0.0, 0.0)
    if sources == 0:
        lit = light_past(
            scene, tables, tracer, view, world, border.moment, source, receiver, border.x, receiver_wi, border.beside, border.o,
            direction, border.parallel,
        )  # fmt: skip
    else:
        toward = -direction
        f = bsdf_cos(
            receiver.kind, receiver.two_sided, receiver.schlick, receiver.albedo, receiver.alpha, receiver.normal, receiver_wi,
            toward,
        )  # fmt: skip
        if wp.dot(f, f) == 0.0:
            return
        e = border.e
        near, seen_at = seen_face(scene, tables, view, world, border.moment, border.sight.near_face, e)
        near_seed = wp.rand_init(int(state), 1)
        inner = radiance(
            scene, tables, film, tracer, view, world, border.moment, near, seen_at - toward, toward, 2 + hops, 0, near_seed
        )
        outer = wp.vec3(0.0, 0.0, 0.0)
        if border.sight.kind == CREASE:
            far, seen_at = seen_face(scene, tables, view, world, border.moment, border.sight.far_face, e)
            outer = radiance(
                scene, tables, film, tracer, view, world, border.moment, far, seen_at - toward, toward, 2 + hops, 0, near_seed
            )
        else:
            outer = radiance_past(
                scene, tables, film, tracer, view, world, border.moment, border.beside, toward, 2 + hops,
                wp.rand_init(int(state), 2),
            )  # fmt: skip
        lit = wp.cw_mul(f, outer - inner)
    lit = wp.cw_mul(lit, through)
    if wp.dot(lit, lit) == 0.0:
        return

    # 4. the weight, and the gradient of weight . film point
    edge = border.edge
    along = border_velocity(scene, tables, view, world, border, film.node_interval, edge.b - edge.a)
    outwards = border_velocity(scene, tables, view, world, border, film.node_interval, border.sight.outward)
    normal = outer_normal(film_velocity(border.last, along, camera), film_velocity(border.last, outwards, camera))
    if wp.length(normal) == 0.0:
        return
    jump = -lit
    share = density * float(draw.count) * determinant * hop_share(hops, most)
    weight = normal * (jump_weight(scene, film, view, adjoint, landing, jump, 0) * source.weight / share)
    sink.slot = wp.tid() % sink.totals.shape[0]
    g_last, g_camera, _w = wp.grad(weighted_film)(border.last, camera, weight)
    deposit(sink, sink.numbers.cameras, view, g_camera)
    g_x, at_blend = pull_walk(scene, tables, sink, view, world, border.moment, border.walk, g_last)
    g_o, g_d, g_blend = pull_point(
        scene, tables, sink, view, world, border.moment, border.walk.kinds[0], border.walk.indices[0], receiver, border.o,
        border.d, border.x, g_x,
    )  # fmt: skip
    at_blend += g_blend
    _l, ga, gb, gc, _u, _v, g_e, _wo, _wd = wp.grad(light_ray_along)(
        source.kind, source.a, source.b, source.c, source.u, source.v, border.e, g_o, g_d
    )
    at_blend += add_edge_gradient(
        scene, tables, sink, view, world, border.moment, edge.instance, chosen, g_e * (1.0 - s), g_e * s
    )
    nothing = wp.vec3(0.0, 0.0, 0.0)
    if sources == 0:
        at_blend += add_light_gradient(
            scene,
            tables,
            sink,
            view,
            world,
            border.moment,
            source.kind,
            source.index,
            source.u,
            source.v,
            direction,
            ga,
            gb,
            gc,
            nothing,
        )
    add_time_gradient(sink, film, view, at, u, at_blend)
    splat_jump(scene, film, sink, view, index, adjoint, derivative, landing, jump, 0)
