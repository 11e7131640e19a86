"""Cameras: stages that build a `Camera` record; every number is a tensor, so every number may carry a gradient.

World: z up. A camera with pitch = roll = yaw = 0 looks along +y, x to the right, image y along -z.
"""

from typing import Any

import torch
from torch import Tensor, nn

from dvc.errors import Unsupported, UserError
from dvc.records import Camera, Shutter
from render.distortion import distort_points
from render.scene import Numbers
from render.value_checks import Intake


def rotation_from_angles(pitch: Tensor, roll: Tensor, yaw: Tensor) -> Tensor:
    """World-to-camera rotation (world, 3, 3): about the vertical by yaw, then up/down by pitch, then in the image by roll."""
    zero, one = torch.zeros_like(pitch), torch.ones_like(pitch)

    def rows(*values: Tensor) -> Tensor:
        return torch.stack(values, dim=-1).reshape(-1, 3, 3)

    cp, sp = torch.cos(pitch), torch.sin(pitch)
    cy, sy = torch.cos(yaw), torch.sin(yaw)
    about_vertical = rows(cy, sy, zero, -sy, cy, zero, zero, zero, one)
    looking_along_y = rows(one, zero, zero, zero, zero, -one, zero, one, zero)
    about_x = rows(one, zero, zero, zero, cp, -sp, zero, sp, cp)
    return _in_image(roll) @ about_x @ looking_along_y @ about_vertical


def _in_image(roll: Tensor) -> Tensor:
    """Turn of the picture about the principal point, (world, 3, 3)."""
    zero, one, cos, sin = torch.zeros_like(roll), torch.ones_like(roll), torch.cos(roll), torch.sin(roll)
    return torch.stack([cos, -sin, zero, sin, cos, zero, zero, zero, one], dim=-1).reshape(*roll.shape, 3, 3)


def look_at(position: Tensor, target: Tensor, up: Tensor) -> Tensor:
    """World-to-camera rotation (world, 3, 3) of a camera at `position` that sees `target` in its principal point.

    `up` (world, 3), any length, points upwards in the picture. Rows: right = forward x up, down = forward x right, forward.
    Raises UserError where the three leave a direction open.
    """
    forward = target - position
    right = torch.linalg.cross(*torch.broadcast_tensors(forward, up))
    reach = torch.linalg.norm(forward.detach(), dim=-1) * torch.linalg.norm(up.detach(), dim=-1)
    if not bool((torch.linalg.norm(right.detach(), dim=-1) > 1e-6 * reach).all()):
        raise UserError(
            "look_at: expected position, target and up that span a plane, got "
            f"{position.detach().tolist()}, {target.detach().tolist()}, {up.detach().tolist()}; remedy: another `up`"
        )
    forward = torch.nn.functional.normalize(forward, dim=-1).expand_as(right)
    right = torch.nn.functional.normalize(right, dim=-1)
    return torch.stack([right, torch.linalg.cross(forward, right), forward], dim=-2)


def focal_from_fov(fov: Tensor, width: float) -> Tensor:
    """Focal length [px] of a pinhole whose whole angle of view across `width` pixels is fov [rad]."""
    return 0.5 * width / torch.tan(0.5 * fov)


def _rows(owner: str, given: dict[str, tuple[Numbers | None, tuple[int, ...]]]) -> list[Any]:
    """Constants as tensors with a leading axis, on one device; what is not given stays None."""
    device = next((value.device for value, _ in given.values() if isinstance(value, Tensor)), torch.device("cpu"))
    rows: list[Any] = []
    for name, (value, inner) in given.items():
        exact = isinstance(value, Tensor) and value.dtype.is_floating_point  # keeps its precision
        intake = Intake(device, "another argument", value.dtype if exact else torch.float32)  # type: ignore[union-attr]
        rows.append(None if value is None else intake.row(f"{owner}.{name}", value, inner))
    return rows


def _focal(owner: str, focal: Numbers) -> Tensor:
    """(world,), or (world, 2)."""
    if isinstance(focal, Tensor) and focal.dim() == 2:
        return _rows(owner, {"focal": (focal, (2,))})[0]
    return _rows(owner, {"focal": (focal, ())})[0]


class _Angles(nn.Module):
    def _rotation(self, reference: Tensor, pitch: Tensor | None, roll: Tensor | None, yaw: Tensor | None) -> Tensor:
        zero = torch.zeros_like(reference)
        angles = [zero if angle is None else angle for angle in (pitch, roll, yaw)]
        return rotation_from_angles(*torch.broadcast_tensors(*angles))


class PinholeCamera(_Angles):
    """A pinhole camera at a position.

    Arguments: center: principal point [px].
    Forward: position [m] (world, 3), focal [px] (world,) or (world, 2) along x and y, pitch, roll, yaw [rad] (world,),
        center (world, 2) for the constructor's, distortion k1, k2, p1, p2, k3 (world, 5; `render.distortion`) -> Camera.
    """

    def __init__(self, center: tuple[float, float]):
        super().__init__()
        self.center = tuple(map(float, center))

    def forward(
        self,
        position: Tensor,
        focal: Tensor,
        pitch: Tensor | None = None,
        roll: Tensor | None = None,
        yaw: Tensor | None = None,
        center: Tensor | None = None,
        distortion: Tensor | None = None,
    ) -> Camera:
        rotation = self._rotation(focal if focal.dim() == 1 else focal[:, 0], pitch, roll, yaw)
        center = focal.new_tensor(self.center)[None] if center is None else center
        return Camera(position, rotation, focal, center, False, distortion)


class LookAtCamera(nn.Module):
    """A pinhole camera that looks at a point.

    Arguments: width, height: of the whole frame [px]; the principal point is its middle unless one is given.
    Forward: position, target [m] (world, 3); fov: horizontal angle of view [rad] (world,), or focal [px] (world,) or
        (world, 2); up (world, 3), the world's z where left out; roll [rad] (world,): turns the picture as in `PinholeCamera`;
        center [px] (world, 2); distortion (world, 5) -> Camera.
        Constants without their world axis, or plain numbers, serve all worlds.
    """

    def __init__(self, width: int, height: int):
        super().__init__()
        self.width, self.height = int(width), int(height)

    def forward(
        self,
        position: Numbers,
        target: Numbers,
        fov: Numbers | None = None,
        focal: Numbers | None = None,
        up: Numbers | None = None,
        roll: Numbers | None = None,
        center: Numbers | None = None,
        distortion: Numbers | None = None,
    ) -> Camera:
        if (fov is None) == (focal is None):
            raise UserError(f"LookAtCamera: expected either fov or focal, got {'neither' if fov is None else 'both'}")
        given = {
            "position": (position, (3,)), "target": (target, (3,)), "up": (up, (3,)), "roll": (roll, ()), "fov": (fov, ()),
            "center": (center, (2,)), "distortion": (distortion, (5,)),
        }  # fmt: skip
        eye, aim, upwards, turn, angle, middle, lens = _rows("LookAtCamera", given)
        lengths = _focal("LookAtCamera", focal) if focal is not None else focal_from_fov(angle, self.width)
        rotation = look_at(eye, aim, eye.new_tensor([[0.0, 0.0, 1.0]]) if upwards is None else upwards)
        if turn is not None:
            rotation = _in_image(turn) @ rotation
        middle = eye.new_tensor([[0.5 * self.width, 0.5 * self.height]]) if middle is None else middle
        return Camera(eye, rotation, lengths, middle, False, lens)


class AnchoredCamera(_Angles):
    """A pinhole camera, given by what a viewer can point at: where the world's origin is seen, and how large things are there.

    Its distance follows: at the depth of the origin, `length` metres facing the camera span `span` pixels. So the metric
    length changes the motion but not the picture, and the two are recovered independently.

    Arguments: center: principal point [px].
    Forward: anchor [px] (world, 2) pixel of the world's origin; span [px], length [m], focal [px], pitch, roll, yaw [rad],
    each (world,) -> Camera.
    """

    def __init__(self, center: tuple[float, float]):
        super().__init__()
        self.center = tuple(map(float, center))

    def forward(
        self,
        anchor: Tensor,
        span: Tensor,
        length: Tensor,
        focal: Tensor,
        pitch: Tensor | None = None,
        roll: Tensor | None = None,
        yaw: Tensor | None = None,
    ) -> Camera:
        rotation = self._rotation(focal, pitch, roll, yaw)
        center = focal.new_tensor(self.center)[None]
        depth = (focal * length / span)[:, None]
        offset = (anchor - center) / focal[:, None] * depth
        in_camera = torch.cat([offset, depth.expand(offset.shape[0], 1)], dim=-1)
        position = -(rotation.transpose(1, 2) @ in_camera[..., None])[..., 0]
        return Camera(position, rotation, focal, center, False)


class OrthographicCamera(_Angles):
    """A camera without perspective.

    Forward: anchor [px] (world, 2) pixel of the world's origin, pixels_per_metre (world,), angles [rad] -> Camera.
    """

    def forward(
        self,
        anchor: Tensor,
        pixels_per_metre: Tensor,
        pitch: Tensor | None = None,
        roll: Tensor | None = None,
        yaw: Tensor | None = None,
    ) -> Camera:
        rotation = self._rotation(pixels_per_metre, pitch, roll, yaw)
        position = torch.zeros_like(pixels_per_metre)[:, None].expand(-1, 3)
        return Camera(position, rotation, pixels_per_metre, anchor, True)


class MetresFromPixels(nn.Module):
    """pixels [px] (world,) at the depth where `length` metres span `span` pixels -> metres (world,)."""

    def forward(self, pixels: Tensor, span: Tensor, length: Tensor) -> Tensor:
        return pixels / span * length


class CameraShutter(nn.Module):
    """exposure (world,) fraction of the frame interval; readout_x, readout_y [s] (world,) across the frame -> Shutter."""

    def forward(self, exposure: Tensor, readout_x: Tensor | None = None, readout_y: Tensor | None = None) -> Shutter:
        zero = torch.zeros_like(exposure)
        readouts = [zero if readout is None else readout for readout in (readout_x, readout_y)]
        return Shutter(exposure, torch.stack(torch.broadcast_tensors(*readouts), dim=-1))


class DriftingCamera(nn.Module):
    """What is left of a hand-held camera's motion after stabilisation: slow changes of distance and roll about the origin.

    Both are linear between knots that are spread evenly over the window; the world's origin stays at its pixel.

    Arguments: first_frame, last_frame: window [first, last), over which the knots are spread; or frame_count, its length.
    Forward: camera; distance_drift (world, knot): relative change of the distance to the origin; roll_drift (world, knot)
        [rad]; frames: number of frames from the first (None: all) -> Camera with a frame axis.
    """

    def __init__(self, frame_count: int | None = None, *, first_frame: int = 0, last_frame: int | None = None):
        super().__init__()
        if (frame_count is None) == (last_frame is None):
            raise UserError(f"DriftingCamera: expected either frame_count or last_frame, got {frame_count} and {last_frame}")
        self.frame_count = int(frame_count) if last_frame is None else int(last_frame) - int(first_frame)  # type: ignore[arg-type]
        if self.frame_count < 1:
            raise UserError(f"DriftingCamera: expected a window of at least one frame, got {self.frame_count}")

    def forward(self, camera: Camera, distance_drift: Tensor, roll_drift: Tensor, frames: int | None = None) -> Camera:
        count = self.frame_count if frames is None else min(int(frames), self.frame_count)
        distance, roll = (self._between_knots(knots, count) for knots in (distance_drift, roll_drift))
        turn = _in_image(roll)
        origin = -(camera.rotation @ camera.position[..., None])[:, None]
        rotation = turn @ camera.rotation[:, None]
        position = -(rotation.transpose(-1, -2) @ (origin * (1.0 + distance)[..., None, None]))[..., 0]
        return camera._replace(position=position, rotation=rotation)

    def _between_knots(self, knots: Tensor, count: int) -> Tensor:
        last = knots.shape[1] - 1
        at = torch.arange(count, device=knots.device, dtype=knots.dtype) * (last / max(1, self.frame_count - 1))
        i = at.floor().clamp(max=max(0, last - 1)).long()
        a = at - i
        return knots[:, i] * (1.0 - a) + knots[:, torch.clamp(i + 1, max=last)] * a


def project(camera: Camera, points: Tensor) -> Tensor:
    """Pixels (world, ..., 2) of world points [m] (world, ..., 3); with a camera that moves (world, frame, ..., 3)."""

    def against_points(value: Tensor, own: int) -> Tensor:
        """Insert axes behind the leading ones of a camera field with `own` trailing axes."""
        lead = value.dim() - own
        return value.reshape(*value.shape[:lead], *([1] * (points.dim() - 1 - lead)), *value.shape[lead:])

    seen = (against_points(camera.rotation, 2) @ (points - against_points(camera.position, 1))[..., None])[..., 0]
    one_focal = camera.focal.dim() == 1
    focal = against_points(camera.focal, 0)[..., None] if one_focal else against_points(camera.focal, 1)
    plane = seen[..., :2] if camera.orthographic else seen[..., :2] / seen[..., 2:]
    if camera.distortion is not None:
        if camera.orthographic:
            raise Unsupported("camera.distortion: an orthographic camera has none; remedy: leave it out, or use a pinhole")
        plane = distort_points(plane, against_points(camera.distortion, 1))
    return against_points(camera.center, 1) + focal * plane


def require_undistorted(name: str, camera: Camera) -> None:
    """Unsupported where a camera has what renderers with one focal length and straight lines do not know."""
    if camera.distortion is not None:
        raise Unsupported(f"{name}: distortion is not supported here; remedy: a ray traced scene, or distortion=None")
    if camera.focal.dim() != 1:
        raise Unsupported(
            f"{name}: two focal lengths are not supported here, got focal of shape {tuple(camera.focal.shape)}; "
            "remedy: a ray traced scene, or focal of shape (world,)"
        )
