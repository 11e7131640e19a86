"""Where a point lands on the film, and which ray a film point looks along: kernel functions shared by the renderers.

With the camera's own coordinates c = R (p - o) (x right, y down, z forward), the film point in full-resolution pixels is

    pinhole       x = center + focal d(c_x / c_z, c_y / c_z)      d: lens distortion (render/distortion.py)
    orthographic  x = center + focal (c_x, c_y)

Film points are measured from the top left corner of the top left pixel (see `dvc.records.Camera`).

Two sets of functions. `film_of`, `film_velocity`, `undistort`, `ray_of`, `origin_of` take the whole camera as one vector
(`pack_camera`) and know distortion and two focal lengths: `wp.grad` of the differentiable ones gives the derivative by all of
the camera's numbers at once. `project` and what follows take single numbers, one focal length, and no distortion.

A ray is found in two steps: `undistort` solves for the point of the image plane without gradient; `ray_of` and `origin_of`
correct that solution by one Newton step with gradient, so that their derivative is that of the implicit function. They take
the rotation's transpose for its inverse, so derivatives by its nine numbers are meant along rotations.
"""

import torch
import warp as wp
from torch import Tensor

from dvc.errors import Unsupported, UserError
from dvc.records import Camera, Film, expand_worlds
from render.distortion import distort, distort_jacobian, newton_step, require_invertible, undistort_point, vec5
from render.reversible import reversible

NEAR = wp.constant(1.0e-6)  # a pinhole does not see points closer than this in front of it [m]
SAME_POINT = wp.constant(0.01)  # far above the error of `undistort`, far below the way across a fold

CAMERA_NUMBERS = 22
# 0-2 position [m], 3-11 rotation (world to camera, row by row), 12-13 focal x, y [px] or [px/m], 14-15 center [px],
# 16-20 distortion k1, k2, p1, p2, k3, 21 orthographic (0 or 1, no gradient)
camera_vector = wp.types.vector(length=CAMERA_NUMBERS, dtype=float)


@reversible
@wp.func
def position_of(camera: camera_vector):
    """World position of the camera [m]."""
    return wp.vec3(camera[0], camera[1], camera[2])


@reversible
@wp.func
def distortion_of(camera: camera_vector):
    return vec5(camera[16], camera[17], camera[18], camera[19], camera[20])


@reversible
@wp.func
def turned_to_camera(v: wp.vec3, camera: camera_vector):
    """A world direction in the camera's own axes."""
    return wp.vec3(
        camera[3] * v[0] + camera[4] * v[1] + camera[5] * v[2],
        camera[6] * v[0] + camera[7] * v[1] + camera[8] * v[2],
        camera[9] * v[0] + camera[10] * v[1] + camera[11] * v[2],
    )


@reversible
@wp.func
def turned_to_world(v: wp.vec3, camera: camera_vector):
    """A direction in the camera's own axes, in world axes."""
    return wp.vec3(
        camera[3] * v[0] + camera[6] * v[1] + camera[9] * v[2],
        camera[4] * v[0] + camera[7] * v[1] + camera[10] * v[2],
        camera[5] * v[0] + camera[8] * v[1] + camera[11] * v[2],
    )


@wp.func
def depth_of(point: wp.vec3, camera: camera_vector):
    """Depth of a world point [m]: how far in front of the camera's plane it is."""
    return turned_to_camera(point - position_of(camera), camera)[2]


@wp.func
def axis_of(camera: camera_vector):
    """World direction in which the camera looks."""
    return wp.vec3(camera[9], camera[10], camera[11])


@reversible
@wp.func
def film_of(point: wp.vec3, camera: camera_vector):
    """Film point of a world point [px]; a pinhole needs the point in front of it (`depth_of` above `NEAR`)."""
    c = turned_to_camera(point - position_of(camera), camera)
    n = wp.vec2(c[0], c[1])
    if camera[21] == 0.0:
        n = distort(wp.vec2(c[0] / c[2], c[1] / c[2]), distortion_of(camera))
    return wp.vec2(camera[14] + camera[12] * n[0], camera[15] + camera[13] * n[1])


@wp.func
def film_velocity(point: wp.vec3, velocity: wp.vec3, camera: camera_vector):
    """Velocity on the film [px/s] of a world point that moves with `velocity` [m/s]: the derivative of `film_of`."""
    v = turned_to_camera(velocity, camera)
    if camera[21] != 0.0:
        return wp.vec2(camera[12] * v[0], camera[13] * v[1])
    c = turned_to_camera(point - position_of(camera), camera)
    n = wp.vec2(c[0] / c[2], c[1] / c[2])
    x = (v[0] - n[0] * v[2]) / c[2]
    y = (v[1] - n[1] * v[2]) / c[2]
    j = distort_jacobian(n, distortion_of(camera))
    return wp.vec2(camera[12] * (j[0] * x + j[1] * y), camera[13] * (j[1] * x + j[2] * y))


@reversible
@wp.func
def on_image_plane(film: wp.vec2, camera: camera_vector):
    """Film point in units of the focal length, from the principal point: still distorted."""
    return wp.vec2((film[0] - camera[14]) / camera[12], (film[1] - camera[15]) / camera[13])


@wp.func
def undistort(film: wp.vec2, camera: camera_vector):
    """Point of the image plane at depth 1 (orthographic: in metres) that is seen at a film point, without gradient.

    See `render.distortion.undistort_point` for what is solved and when it converges.
    """
    d = on_image_plane(film, camera)
    if camera[21] != 0.0:
        return d
    return undistort_point(d, distortion_of(camera))


@wp.func
def unfolded(point: wp.vec3, film: wp.vec2, camera: camera_vector):
    """Whether the film sees a world point at film = film_of(point), a point of the film (or near it).

    A polynomial lens that is monotone over the film may fold over beyond it, and then puts points that lie far outside the view
    back onto the film, where no ray sees them. Whoever projects points that no ray has found must ask.
    """
    if camera[21] != 0.0:
        return True
    c = turned_to_camera(point - position_of(camera), camera)
    n = wp.vec2(c[0] / c[2], c[1] / c[2])
    return wp.length(undistort(film, camera) - n) < SAME_POINT * (1.0 + wp.length(n))


@reversible
@wp.func
def ray_of(film: wp.vec2, camera: camera_vector, undistorted: wp.vec2):
    """Unit world direction in which a film point looks; `undistorted` comes from `undistort` for the same arguments."""
    if camera[21] != 0.0:
        return turned_to_world(wp.vec3(0.0, 0.0, 1.0), camera)
    n = newton_step(undistorted, on_image_plane(film, camera), distortion_of(camera))
    return turned_to_world(wp.normalize(wp.vec3(n[0], n[1], 1.0)), camera)


@wp.func
def ray_found(film: wp.vec2, camera: camera_vector, undistorted: wp.vec2):
    """`ray_of` without gradient: a lens that does not distort leaves nothing to correct."""
    k = distortion_of(camera)
    if camera[21] == 0.0 and k[0] == 0.0 and k[1] == 0.0 and k[2] == 0.0 and k[3] == 0.0 and k[4] == 0.0:
        return turned_to_world(wp.normalize(wp.vec3(undistorted[0], undistorted[1], 1.0)), camera)
    return ray_of(film, camera, undistorted)


@reversible
@wp.func
def origin_of(film: wp.vec2, camera: camera_vector, undistorted: wp.vec2, start: float):
    """World point where the ray of a film point starts: the pinhole, or, without perspective, at the depth `start` [m]."""
    if camera[21] == 0.0:
        return position_of(camera)
    n = on_image_plane(film, camera)
    return position_of(camera) + turned_to_world(wp.vec3(n[0], n[1], start), camera)


@reversible
@wp.func
def weighted_film(point: wp.vec3, camera: camera_vector, weight: wp.vec2):
    """weight . film point: the pseudo-loss of a boundary term, for `wp.grad`."""
    return wp.dot(weight, film_of(point, camera))


@reversible
@wp.func
def weighted_ray(
    film: wp.vec2,
    camera: camera_vector,
    undistorted: wp.vec2,
    start: float,
    origin_weight: wp.vec3,
    direction_weight: wp.vec3,
):
    """origin_weight . origin + direction_weight . direction: carries the adjoint of a ray to the camera by `wp.grad`."""
    origin = origin_of(film, camera, undistorted, start)
    return wp.dot(origin_weight, origin) + wp.dot(direction_weight, ray_of(film, camera, undistorted))


def pack_camera(camera: Camera, views: int, film: Film | None = None) -> Tensor:
    """The numbers of each view's camera in the order of `camera_vector`, with gradient: (view, 22), float32.

    Args:
        camera: fields with a row for all views or one a world (views are ordered world by world, frame by frame); position and
            rotation may have a frame axis behind the world axis.
        views: world x frame.
        film: where given, it is checked that the distortion is monotone over the film.
    Raises: UserError for shapes that do not fit, numbers that are not finite, focal lengths that are not positive, or a
        distortion that folds over; Unsupported for an orthographic camera with distortion.
    """
    focal = camera.focal if camera.focal.dim() == 2 else camera.focal[..., None].expand(*camera.focal.shape, 2)
    fields = {"position": camera.position, "rotation": camera.rotation, "focal": focal, "center": camera.center}
    if camera.distortion is None:
        fields["distortion"] = camera.center.new_zeros(1, 5)
    elif camera.orthographic:
        raise Unsupported("camera.distortion: an orthographic camera has none; remedy: leave it out, or use a pinhole")
    else:
        fields["distortion"] = camera.distortion
    trailing = {"position": (3,), "rotation": (3, 3), "focal": (2,), "center": (2,), "distortion": (5,)}
    columns = [_per_view(name, value, trailing[name], views) for name, value in fields.items()]
    columns.append(columns[0].new_full((views, 1), float(camera.orthographic)))
    packed = torch.cat(columns, dim=1).float().contiguous()
    numbers = packed.detach()
    if not bool(torch.isfinite(numbers).all() & (numbers[:, 12:14] > 0.0).all()):
        _refuse(fields)
    if film is not None and camera.distortion is not None:
        k, f, c = numbers[:, 16:21], numbers[:, 12:14], numbers[:, 14:16]
        low = numbers.new_tensor([film.left, film.top])
        high = low + numbers.new_tensor([film.columns / film.scale, film.rows / film.scale])
        distinct = torch.unique(torch.cat([k, (low - c) / f, (high - c) / f], dim=1), dim=0)
        require_invertible("camera.distortion", distinct[:, :5], distinct[:, 5:])
    return packed


def _per_view(name: str, value: Tensor, trailing: tuple[int, ...], views: int) -> Tensor:
    """(view, n) from one row for all, one a world, or (position and rotation) one a world and frame."""
    shape = tuple(value.shape)
    moving = name in ("position", "rotation") and len(shape) == len(trailing) + 2
    lead = shape[: len(shape) - len(trailing)]
    if shape[len(lead) :] != trailing or len(lead) != (2 if moving else 1) or 0 in lead or views % lead[-1] or views % lead[0]:
        raise UserError(
            f"camera.{name}: expected shape (world, {', '.join(map(str, trailing))}) with worlds that divide {views} views"
            f"{', or with a frame axis behind world' if name in ('position', 'rotation') else ''}, got {shape}"
        )
    rows = value.reshape(*lead, -1)
    if moving:
        worlds = views // lead[1]
        if lead[0] not in (1, worlds):
            raise UserError(f"camera.{name}: expected {views} views = worlds x frames, got shape {shape}")
        return expand_worlds(rows, worlds).flatten(0, 1)
    return rows if lead[0] == views else rows.repeat_interleave(views // lead[0], dim=0)


def _refuse(fields: dict[str, Tensor]) -> None:
    for name, value in fields.items():
        if not bool(torch.isfinite(value.detach()).all()):
            raise UserError(f"camera.{name}: expected finite numbers, got {value.detach().flatten()[:12].tolist()}")
    least = float(fields["focal"].detach().min())
    raise UserError(f"camera.focal: expected positive numbers, got {least:.6g}")


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
