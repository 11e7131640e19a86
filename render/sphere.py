"""Kernels and op that render a sphere: bounds of what it can touch, then every pixel's exposure samples.

The method, what its gradient holds and what it leaves out stand in `render.sphere_sample`.
"""

import warp as wp

from dvc.warp_op import scratch, warp_op
from render.sphere_sample import (
    LEAST_LENS,
    PIXEL_VARIANCE,
    centre_at,
    drift_on_film,
    sample_node,
    sphere_sample,
    stratum,
)

REACH = wp.constant(4.0)  # filter widths beyond which coverage is 0 or 1


@wp.kernel(enable_backward=False)
def sphere_bounds(
    nodes: wp.array2d(dtype=wp.vec3),
    fraction: wp.array2d(dtype=float),
    impact: wp.array2d(dtype=wp.vec3),
    radius: wp.array(dtype=float),
    camera_position: wp.array(dtype=wp.vec3),
    rotation: wp.array(dtype=wp.mat33),
    focal: wp.array(dtype=float),
    principal: wp.array(dtype=wp.vec2),
    exposure: wp.array(dtype=float),
    readout: wp.array(dtype=wp.vec2),
    blur: wp.array(dtype=float),
    orthographic: int,
    frame_nodes: float,
    interval: float,
    middle: float,
    origin: wp.array(dtype=wp.vec2),
    step: float,
    samples: int,
    columns: int,
    rows: int,
    box: wp.array(dtype=wp.vec4i),
):
    """Film rectangle that the sphere can touch while its view is exposed (first column, first row, end column, end row)."""
    v = wp.tid()
    low = wp.vec2(1.0e9, 1.0e9)
    high = wp.vec2(-1.0e9, -1.0e9)
    late = 0.5 * (wp.abs(readout[v][0]) + wp.abs(readout[v][1])) / interval
    span = 0.5 * exposure[v] * frame_nodes + late + 1.0
    first = wp.max(0, int(middle - span))
    last = wp.min(nodes.shape[1] - 1, int(middle + span) + 1)
    margin = REACH * step * wp.sqrt(PIXEL_VARIANCE + blur[v] * blur[v] / (step * step)) + step
    for i in range(first, last + 1):
        p = nodes[v, i]
        for end in range(2):  # a node, and the impact behind it
            if end == 1:
                p = impact[v, wp.min(i, nodes.shape[1] - 2)]
            if end == 0 or fraction[v, wp.min(i, nodes.shape[1] - 2)] >= 0.0:
                C = rotation[v] * (p - camera_position[v])
                q = wp.vec2(C[0], C[1]) * focal[v]
                reach = radius[v] * focal[v]
                if orthographic == 0:
                    # a sphere nearer than its radius has no silhouette; the widest one that makes sense covers the film
                    depth = wp.max(C[2] - radius[v], 1.0e-3)
                    q = q / wp.max(C[2], 1.0e-3)
                    reach = reach * (1.0 + wp.length(wp.vec2(C[0], C[1])) / depth) / depth
                q = q + principal[v]
                reach += margin
                low = wp.min(low, q - wp.vec2(reach, reach))
                high = wp.max(high, q + wp.vec2(reach, reach))
    widened = (high - low) * (0.7 / float(samples))  # a share of the exposure widens the filter
    low = low - widened
    high = high + widened
    a = (low - origin[0]) / step
    b = (high - origin[0]) / step
    box[v] = wp.vec4i(
        int(wp.clamp(a[0], 0.0, float(columns))),
        int(wp.clamp(a[1], 0.0, float(rows))),
        int(wp.clamp(b[0] + 1.0, 0.0, float(columns))),
        int(wp.clamp(b[1] + 1.0, 0.0, float(rows))),
    )


@wp.func
def may_touch(
    pixel: wp.vec2,
    centre: wp.vec3,
    r: float,
    rotation: wp.mat33,
    focal: float,
    principal: wp.vec2,
    margin: float,
    orthographic: int,
):
    """Whether the sphere's filtered silhouette can reach a pixel: cheap, and never false where it does. No gradient."""
    C = rotation * centre
    reach = r * focal
    q = wp.vec2(C[0], C[1]) * focal
    if orthographic == 0:
        depth = C[2] - r
        if depth <= 0.0:
            return C[2] > 0.0
        q = q / C[2]
        reach = reach * (1.0 + wp.length(wp.vec2(C[0], C[1])) / depth) / depth
    q = q + principal - pixel
    return wp.dot(q, q) < (reach + margin) * (reach + margin)


@wp.kernel
def shade_sphere(
    nodes: wp.array2d(dtype=wp.vec3),
    fraction: wp.array2d(dtype=float),
    impact: wp.array2d(dtype=wp.vec3),
    radius: wp.array(dtype=float),
    camera_position: wp.array(dtype=wp.vec3),
    rotation: wp.array(dtype=wp.mat33),
    focal: wp.array(dtype=float),
    principal: wp.array(dtype=wp.vec2),
    exposure: wp.array(dtype=float),
    readout: wp.array(dtype=wp.vec2),
    blur: wp.array(dtype=float),
    color: wp.array(dtype=wp.vec3),
    cap_color: wp.array(dtype=wp.vec3),
    cap_axis: wp.array(dtype=wp.vec3),
    light: wp.array(dtype=wp.vec3),
    ambient: wp.array(dtype=float),
    seed: wp.array(dtype=int),
    background: wp.array2d(dtype=wp.vec3),
    box: wp.array(dtype=wp.vec4i),
    orthographic: int,
    samples: int,
    frame_size: wp.vec2,
    frame_nodes: float,
    interval: float,
    middle: float,
    origin: wp.array(dtype=wp.vec2),
    step: float,
    images: wp.array3d(dtype=wp.vec3),
):
    v, y, x = wp.tid()
    plate = background[y, x]
    edge = box[v]
    total = wp.vec3()
    if x >= edge[0] and x < edge[2] and y >= edge[1] and y < edge[3]:
        pixel = origin[0] + wp.vec2(float(x) + 0.5, float(y) + 0.5) * step
        lens = wp.max(blur[v] / step, LEAST_LENS)
        share = float(0.0)  # random times need no widening: their mean over seeds is the blur
        if seed[v] == 0:
            share = 0.5 * exposure[v] * frame_nodes / float(samples)
        count = nodes.shape[1]
        for k in range(samples):
            s = sample_node(
                pixel, stratum(seed[v], k, samples), exposure[v], readout[v], frame_size, frame_nodes, interval, middle
            )
            centre = centre_at(nodes, fraction, impact, v, count, s) - camera_position[v]
            before = centre_at(nodes, fraction, impact, v, count, s - share)
            after = centre_at(nodes, fraction, impact, v, count, s + share)
            drift = drift_on_film(rotation[v] * centre, rotation[v] * (after - before), focal[v], step, orthographic)
            margin = REACH * step * wp.sqrt(PIXEL_VARIANCE + lens * lens + wp.dot(drift, drift) / 12.0)
            c = wp.vec4()
            near = may_touch(pixel, centre, radius[v], rotation[v], focal[v], principal[v], margin, orthographic)
            if near:
                c = sphere_sample(
                    pixel,
                    centre,
                    radius[v],
                    rotation[v],
                    focal[v],
                    principal[v],
                    orthographic,
                    step,
                    lens,
                    drift,
                    color[v],
                    cap_color[v],
                    cap_axis[v],
                    light[v],
                    ambient[v],
                )
            total += wp.vec3(c[0], c[1], c[2]) - plate * c[3]
    images[v, y, x] = plate + total / float(samples)


@warp_op(shared=("background", "origin"), seeds=("seed",), threads=None, trace_limit=48)
def render_sphere(
    nodes: wp.array2d(dtype=wp.vec3), fraction: wp.array2d(dtype=float), impact: wp.array2d(dtype=wp.vec3),
    radius: wp.array(dtype=float), camera_position: wp.array(dtype=wp.vec3), rotation: wp.array(dtype=wp.mat33),
    focal: wp.array(dtype=float), principal: wp.array(dtype=wp.vec2), exposure: wp.array(dtype=float),
    readout: wp.array(dtype=wp.vec2), blur: wp.array(dtype=float), color: wp.array(dtype=wp.vec3),
    cap_color: wp.array(dtype=wp.vec3), cap_axis: wp.array(dtype=wp.vec3), light: wp.array(dtype=wp.vec3),
    ambient: wp.array(dtype=float), seed: wp.array(dtype=int), background: wp.array2d(dtype=wp.vec3),
    origin: wp.array(dtype=wp.vec2),
    *, orthographic: bool, samples: int, frame_size: tuple, frame_nodes: float, interval: float, middle: float,
    step: float,
):  # fmt: skip
    """Images (view, row, column) of one sphere; the leading axis of all but the last two inputs is the view.

    Static: `frame_nodes` nodes a frame, `interval` seconds a node, `middle` node coordinate of the frame's middle,
    `step` full pixels a film pixel; `origin`: where the film begins, in full pixels.
    """
    rows, columns = background.shape
    views = nodes.shape[0]
    box = scratch((views,), wp.vec4i, requires_grad=False)
    images = scratch((views, rows, columns), wp.vec3)
    wp.launch(
        sphere_bounds,
        views,
        [
            nodes,
            fraction,
            impact,
            radius,
            camera_position,
            rotation,
            focal,
            principal,
            exposure,
            readout,
            blur,
            int(orthographic),
            frame_nodes,
            interval,
            middle,
            origin,
            step,
            samples,
            columns,
            rows,
        ],
        [box],
    )
    wp.launch(
        shade_sphere,
        (views, rows, columns),
        [
            nodes,
            fraction,
            impact,
            radius,
            camera_position,
            rotation,
            focal,
            principal,
            exposure,
            readout,
            blur,
            color,
            cap_color,
            cap_axis,
            light,
            ambient,
            seed,
            background,
            box,
            int(orthographic),
            samples,
            wp.vec2(*frame_size),
            frame_nodes,
            interval,
            middle,
            origin,
            step,
        ],
        [images],
    )
    return images
