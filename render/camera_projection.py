"""Where a point lands on the film, and which ray a film point looks along: kernel functions shared by the renderers.

With the camera's own coordinates c = R (p - o) (x right, y down, z forward), the film point in full-resolution pixels is

    pinhole       x = center + focal (c_x, c_y) / c_z
    orthographic  x = center + focal (c_x, c_y)

Film points are measured from the top left corner of the top left pixel (see `dvc.records.Camera`).
"""

import warp as wp

NEAR = wp.constant(1.0e-6)  # a pinhole does not see points closer than this in front of it [m]


@wp.func
def to_camera(point: wp.vec3, position: wp.vec3, rotation: wp.mat33):
    """World point to the camera's own coordinates [m]."""
    return rotation * (point - position)


@wp.func
def project(point: wp.vec3, position: wp.vec3, rotation: wp.mat33, focal: float, center: wp.vec2, orthographic: int):
    """Film point of a world point [px]; a pinhole needs the point in front of it."""
    c = to_camera(point, position, rotation)
    scale = focal
    if orthographic == 0:
        scale = focal / c[2]
    return wp.vec2(center[0] + scale * c[0], center[1] + scale * c[1])


@wp.func
def project_direction(
    point: wp.vec3, direction: wp.vec3, position: wp.vec3, rotation: wp.mat33, focal: float, orthographic: int
):
    """Velocity on the film [px/s] of a world point that moves with `direction` [m/s]: the derivative of `project`."""
    d = rotation * direction
    scale = focal
    if orthographic == 0:
        c = to_camera(point, position, rotation)
        scale = focal / c[2]
        d = d - c * (d[2] / c[2])
    return wp.vec2(scale * d[0], scale * d[1])


@wp.func
def ray_origin(
    film: wp.vec2, position: wp.vec3, rotation: wp.mat33, focal: float, center: wp.vec2, orthographic: int, start: float
):
    """World point where the ray of a film point starts: the pinhole, or, without perspective, at the depth `start` [m]."""
    if orthographic == 0:
        return position
    c = wp.vec3((film[0] - center[0]) / focal, (film[1] - center[1]) / focal, start)
    return position + wp.transpose(rotation) * c


@wp.func
def ray_direction(film: wp.vec2, rotation: wp.mat33, focal: float, center: wp.vec2, orthographic: int):
    """Unit world direction in which a film point looks."""
    c = wp.vec3(0.0, 0.0, 1.0)
    if orthographic == 0:
        c = wp.normalize(wp.vec3((film[0] - center[0]) / focal, (film[1] - center[1]) / focal, 1.0))
    return wp.transpose(rotation) * c
