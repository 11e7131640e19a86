"""A moving rigid mesh in front of a background plate, ray traced, with gradients that include its silhouettes and creases.

Each film pixel is the mean of `samples` rays, each at its own place in the pixel (a box filter one film pixel wide) and its
own time in the exposure, so that motion blur and readout skew come out of the same average. A ray that misses sees the plate.

The gradient has two parts that are added. Interior: the faces that rays hit are found detached and shaded again attached
(`render.mesh_hits.shade`). Boundary: `render.edge_gradient`. Its samples are independent of those of the image, so that a
nonlinear loss of the image is not biased by shared noise.

Not covered, here and in the gradient: shadows, more than one instance, a mesh that cuts through itself, textures.
"""

from collections.abc import Iterable

import warp as wp

from dvc.errors import Unsupported
from dvc.warp_op import scratch, warp_op
from render.edge_gradient import edge_adjoint
from render.mesh_hits import (
    FilmPlan,
    MeshTrees,
    MeshViews,
    build_trees,
    face_radiance,
    facing_of,
    film_point,
    film_sample,
    find_boxes,
    look,
    outside,
    pose_at,
    sample_time,
    shade,
)


@wp.kernel
def reverse_shade(out: wp.array(dtype=float)):
    """Never launched: see `render.edge_gradient.reverse_edge_point`."""
    v = wp.vec3(1.0)
    q = wp.quat_identity()
    out[0] = shade(v, v, v, q, q, 0.5, v, 0.5, 1.0)


@wp.func
def pixel_shift(film: FilmPlan, seed: int, view: int, row: int, column: int):
    """Random shift of a pixel's sample sequence."""
    state = wp.rand_init(seed, (view * film.height + row) * film.width + column)
    return wp.vec3(wp.randf(state), wp.randf(state), wp.randf(state))


@wp.kernel(enable_backward=False)
def render_views(
    views: MeshViews,
    film: FilmPlan,
    faces: wp.array2d(dtype=int),
    trees: MeshTrees,
    boxes: wp.array(dtype=wp.vec4i),
    seed: wp.array(dtype=int),
    samples: int,
    images: wp.array3d(dtype=wp.vec3),
):
    view, row, column = wp.tid()
    if outside(boxes[view], row, column):
        images[view, row, column] = views.plate[row, column]
        return
    world = view / film.views_per_world
    shift = pixel_shift(film, seed[view], view, row, column)
    total = wp.vec3()
    for k in range(samples):
        sample = film_sample(shift, k)
        at = film_point(film, row, column, sample)
        pose = pose_at(views, film, view, sample_time(film, views.exposure[view], views.readout[view], at, sample[2] - 0.5))
        hit = look(views, film, trees, view, pose, at)
        if hit.result:
            total += face_radiance(views, faces, view, world, hit.face, pose, facing_of(hit.sign))
        else:
            total += views.plate[row, column]
    images[view, row, column] = total / float(samples)


@wp.kernel(enable_backward=False)
def interior_adjoint(
    views: MeshViews,
    film: FilmPlan,
    faces: wp.array2d(dtype=int),
    trees: MeshTrees,
    boxes: wp.array(dtype=wp.vec4i),
    seed: wp.array(dtype=int),
    image_adjoint: wp.array3d(dtype=wp.vec3),
    samples: int,
    grads: MeshViews,
):
    """Adds the gradient of the shading at the hits, with the hits held fixed, to `grads`."""
    view, row, column = wp.tid()
    adjoint = image_adjoint[view, row, column] / float(samples)
    if wp.dot(adjoint, adjoint) == 0.0:
        return
    if outside(boxes[view], row, column):
        wp.atomic_add(grads.plate, row, column, image_adjoint[view, row, column])
        return
    world = view / film.views_per_world
    shift = pixel_shift(film, seed[view] + 0x1B873593, view, row, column)
    color = views.color[view]
    ambient = views.ambient[view]
    for k in range(samples):
        sample = film_sample(shift, k)
        at = film_point(film, row, column, sample)
        u = sample[2] - 0.5
        pose = pose_at(views, film, view, sample_time(film, views.exposure[view], views.readout[view], at, u))
        hit = look(views, film, trees, view, pose, at)
        if not hit.result:
            wp.atomic_add(grads.plate, row, column, adjoint)
            continue
        ia = faces[hit.face, 0]
        ib = faces[hit.face, 1]
        ic = faces[hit.face, 2]
        a = views.vertices[world, ia]
        b = views.vertices[world, ib]
        c = views.vertices[world, ic]
        q0 = views.orientations[view, pose.node]
        q1 = views.orientations[view, pose.next]
        facing = facing_of(hit.sign)
        brightness = shade(a, b, c, q0, q1, pose.blend, views.light[view], ambient, facing)
        wp.atomic_add(grads.color, view, adjoint * brightness)
        if ambient == 1.0:
            # an emissive body: only `ambient` itself still depends on the cosine
            lit = shade(a, b, c, q0, q1, pose.blend, views.light[view], 0.0, facing)
            wp.atomic_add(grads.ambient, view, wp.dot(adjoint, color) * (1.0 - lit))
            continue
        ga, gb, gc, gq0, gq1, gblend, glight, gambient, _gfacing = wp.grad(shade)(
            a, b, c, q0, q1, pose.blend, views.light[view], ambient, facing
        )
        scale = wp.dot(adjoint, color)
        wp.atomic_add(grads.vertices, world, ia, ga * scale)
        wp.atomic_add(grads.vertices, world, ib, gb * scale)
        wp.atomic_add(grads.vertices, world, ic, gc * scale)
        wp.atomic_add(grads.light, view, glight * scale)
        wp.atomic_add(grads.ambient, view, gambient * scale)
        wp.atomic_add(grads.orientations, view, pose.node, gq0 * scale)
        if pose.next != pose.node:
            wp.atomic_add(grads.orientations, view, pose.next, gq1 * scale)
            gtime = gblend * scale / film.node_interval
            skew = wp.vec2(at[0] / film.frame[0] - 0.5, at[1] / film.frame[1] - 0.5)
            wp.atomic_add(grads.exposure, view, gtime * film.frame_interval * u)
            wp.atomic_add(grads.readout, view, skew * gtime)


_FIELDS = ("vertices", "positions", "orientations", "camera_position", "camera_rotation", "focal", "center", "exposure",
           "readout", "color", "light", "ambient", "plate")  # fmt: skip


def _mesh_views(arrays: Iterable[wp.array]) -> MeshViews:
    """A `MeshViews` from its arrays in the order of its fields."""
    views = MeshViews()
    for name, array in zip(_FIELDS, arrays, strict=True):
        setattr(views, name, array)
    return views


def _search(views: MeshViews, faces: wp.array, film: FilmPlan) -> tuple[MeshTrees, wp.array, list[wp.Mesh]]:
    """Search trees, the film rectangle of each view, and what keeps the trees alive."""
    trees, meshes = build_trees(views.vertices, faces)
    count = views.positions.shape[0]
    boxes = wp.zeros(count, dtype=wp.vec4i, device=faces.device)
    wp.launch(find_boxes, count, inputs=[views, film, trees], outputs=[boxes], device=faces.device)
    return trees, boxes, meshes


def _film_plan(
    plate: wp.array, views: int, worlds: int, frame: tuple, origin: tuple, scale: float, intervals: tuple, orthographic: bool
) -> FilmPlan:
    film = FilmPlan()
    film.height, film.width = plate.shape
    film.frame, film.origin = wp.vec2(*frame), wp.vec2(*origin)
    film.scale, film.orthographic = scale, int(orthographic)
    film.frame_interval, film.node_interval = intervals
    film.views_per_world = views // worlds
    return film


@warp_op(capture=False, shared=("vertices", "plate", "faces", "edges"), seeds=("seed",))
def render_mesh(
    vertices: wp.array2d(dtype=wp.vec3),
    positions: wp.array2d(dtype=wp.vec3),
    orientations: wp.array2d(dtype=wp.quat),
    camera_position: wp.array(dtype=wp.vec3),
    camera_rotation: wp.array(dtype=wp.mat33),
    focal: wp.array(dtype=float),
    center: wp.array(dtype=wp.vec2),
    exposure: wp.array(dtype=float),
    readout: wp.array(dtype=wp.vec2),
    color: wp.array(dtype=wp.vec3),
    light: wp.array(dtype=wp.vec3),
    ambient: wp.array(dtype=float),
    seed: wp.array(dtype=int),
    plate: wp.array2d(dtype=wp.vec3),
    faces: wp.array2d(dtype=int),
    edges: wp.array2d(dtype=int),
    *,
    frame: tuple,
    origin: tuple,
    scale: float,
    intervals: tuple,
    orthographic: bool,
    samples: int,
    edge_samples: int,
    side_offset: float,
    closed: bool,
):
    """Images (view, row, column). The leading axis is the view; the meshes (world, vertex) each serve a run of views."""
    views = positions.shape[0]
    film = _film_plan(plate, views, vertices.shape[0], frame, origin, scale, intervals, orthographic)
    images = scratch((views, *plate.shape), wp.vec3)
    rows = _mesh_views(
        (vertices, positions, orientations, camera_position, camera_rotation, focal, center, exposure, readout, color, light,
         ambient, plate)
    )  # fmt: skip
    trees, boxes, _alive = _search(rows, faces, film)
    wp.launch(render_views, images.shape, inputs=[rows, film, faces, trees, boxes, seed, samples], outputs=[images])
    return images


@render_mesh.adjoint(recompute=False)
def _render_mesh_adjoint(
    inputs, outputs, *, frame, origin, scale, intervals, orthographic, samples, edge_samples, side_offset, closed
):
    faces, edges, views = inputs.faces, inputs.edges, inputs.positions.shape[0]
    film = _film_plan(inputs.plate, views, inputs.vertices.shape[0], frame, origin, scale, intervals, orthographic)
    arrays = [getattr(inputs, name) for name in _FIELDS]
    rows, grads = _mesh_views(arrays), _mesh_views(array.grad for array in arrays)
    adjoint = outputs.grad
    trees, boxes, _alive = _search(rows, faces, film)
    refused = wp.zeros(1, dtype=int)
    wp.launch(
        interior_adjoint, adjoint.shape, inputs=[rows, film, faces, trees, boxes, inputs.seed, adjoint, samples],
        outputs=[grads],
    )  # fmt: skip
    wp.launch(
        edge_adjoint, (views, edges.shape[0], edge_samples),
        inputs=[rows, film, faces, edges, trees, inputs.seed, adjoint, edge_samples, int(closed), side_offset],
        outputs=[grads, refused],
    )  # fmt: skip
    count = int(refused.numpy()[0])
    if count:
        raise Unsupported(
            f"MeshRender: expected a mesh that moves on the film slower than the readout, got {count} edge samples that "
            "outrun it; remedy: a smaller readout skew or a slower motion"
        )
