"""The motion of a hand-held camera, estimated from the background: one rigid image motion (shift and turn) a frame.

Least squares over the pixels of the background (Lucas and Kanade, 1981), with a gain and an offset of the exposure:
reference(p) = gain frame(R p + t) + offset, by Gauss-Newton. Pixels where things move are left out of the sums. Each frame
starts from its neighbour's answer, outwards from the reference frame. (OpenCV's findTransformECC was tried: with a mask
its answers are off by up to 0.3 px. Its interpolation is in fixed point, which alone costs 0.08 px: SciPy's is exact.)
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from dvc.errors import UserError

MIN_CORRELATION = 0.9
ITERATIONS = 40
BLUR = 1.0  # standard deviation of the smoothing before images are compared [px of the small image]


def identity_motions(count: int) -> np.ndarray:
    """Motions of a camera on a tripod, (frame, 2, 3)."""
    return np.tile(np.eye(2, 3, dtype=np.float64), (count, 1, 1))


def aligned(still: np.ndarray, image: np.ndarray, mask: np.ndarray, start: np.ndarray) -> tuple[float, np.ndarray]:
    """Turn and shift (angle, x, y) about the middle from `still` to `image`, and the correlation that is reached.

    Arguments: still, image: float32 (row, column), smooth; mask: bool, pixels of `still` that count; start: first guess.
    """
    from scipy.ndimage import map_coordinates, spline_filter

    height, width = still.shape
    y, x = (v.astype(np.float32) for v in np.mgrid[:height, :width])
    x, y = x - 0.5 * (width - 1), y - 0.5 * (height - 1)
    slope_y, slope_x = np.gradient(image)
    spline = spline_filter(image, order=3, output=np.float32)
    motion, correlation = start.astype(np.float64), 0.0
    for _ in range(ITERATIONS):
        c, s = np.cos(motion[0]), np.sin(motion[0])
        u = (c * x - s * y + motion[1] + 0.5 * (width - 1)).astype(np.float32)
        v = (s * x + c * y + motion[2] + 0.5 * (height - 1)).astype(np.float32)
        counts = mask & (u >= 1.0) & (u <= width - 2.0) & (v >= 1.0) & (v <= height - 2.0)
        if counts.sum() < 50:  # too little is left of the background
            return 0.0, motion
        at = [v[counts], u[counts]]
        seen = map_coordinates(spline, at, order=3, prefilter=False, output=np.float64)
        gx, gy = (map_coordinates(m, at, order=1, output=np.float64) for m in (slope_x, slope_y))
        turn = gx * (-s * x - c * y)[counts] + gy * (c * x - s * y)[counts]
        target = still[counts].astype(np.float64)
        columns = np.stack([turn, gx, gy, seen, np.ones_like(seen)])
        normal = columns @ columns.T
        scale = np.sqrt(np.diagonal(normal)) + 1e-12
        solution = np.linalg.lstsq(normal / scale / scale[:, None], columns @ target / scale, rcond=1e-10)[0] / scale
        spread = seen.std() * target.std()
        correlation = float(((seen - seen.mean()) * (target - target.mean())).mean() / spread) if spread > 0.0 else 0.0
        if abs(solution[3]) < 0.1:  # nothing in common
            return correlation, motion
        step = solution[:3] / solution[3]
        radius = 0.5 * max(width, height)
        step = step * min(1.0, 4.0 / max(1e-12, np.abs(step * [radius, 1.0, 1.0]).max()))
        motion = motion + step
        if np.abs(step * [radius, 1.0, 1.0]).max() < 1e-4:
            break
    return correlation, motion


def background_motions(
    frames: np.ndarray, moving: Sequence[Sequence[float]], reference: int | None = None, scale: float = 0.5
) -> np.ndarray:
    """Maps from pixels of the reference frame to pixels of each frame, (frame, 2, 3) float64.

    Arguments: frames: uint8 (frame, row, column, 3); moving: boxes (left, top, right, bottom) [px] to leave out;
        reference: index (default: the middle); scale: at which size the images are compared.
    Raises: UserError where the background does not hold still enough to be matched.
    """
    import cv2

    count, height, width = frames.shape[:3]
    reference = count // 2 if reference is None else reference
    mask = np.full((height, width), 255, np.uint8)
    for left, top, right, bottom in moving:
        mask[max(0, int(top)) : int(bottom), max(0, int(left)) : int(right)] = 0
    if (mask > 0).mean() < 0.1:
        raise UserError(
            "stabilize: expected at least 10 % of the frame outside the moving boxes; remedy: make `moving` smaller"
        )
    size = (round(width * scale), round(height * scale))
    still_there = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)
    reach = round(3.0 * BLUR)  # the smoothing must not carry in what moves, nor what it makes up beyond the border
    ball = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    counted = cv2.erode(still_there, ball, borderType=cv2.BORDER_CONSTANT, borderValue=0) > 0

    def shrink(frame: np.ndarray) -> np.ndarray:
        small = cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32), size, interpolation=cv2.INTER_AREA)
        return cv2.GaussianBlur(small, (0, 0), BLUR)

    still = shrink(frames[reference])

    def sweep(order: range) -> list[tuple[int, np.ndarray]]:
        motion, found = np.zeros(3), []
        for k in order:
            correlation, motion = aligned(still, shrink(frames[k]), counted, motion)
            if not correlation >= MIN_CORRELATION:
                raise UserError(
                    f"stabilize: expected a background correlation of at least {MIN_CORRELATION} with frame {reference}, "
                    f"got {correlation:.3f} at frame {k}; remedy: `stabilize: false`, or list what moves in `moving`"
                )
            found.append((k, motion))
        return found

    with ThreadPoolExecutor(2) as pool:
        halves = pool.map(sweep, (range(reference, count), range(reference - 1, -1, -1)))
        found = sorted((item for half in halves for item in half), key=lambda item: item[0])
    middle = np.array([0.5 * width, 0.5 * height])
    pixel = np.array([width / size[0], height / size[1]])  # of the small image, in pixels of the frame
    return np.stack([_about(middle, angle, np.array(shift) * pixel) for _, (angle, *shift) in found])


def _about(middle: np.ndarray, angle: float, shift: np.ndarray) -> np.ndarray:
    """A turn about a point, and a shift, as a (2, 3) matrix."""
    c, s = np.cos(angle), np.sin(angle)
    rotation = np.array([[c, -s], [s, c]])
    return np.column_stack([rotation, middle + shift - rotation @ middle])


def apply_motion(motion: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Reference pixels (..., 2) -> pixels of the frame with this (2, 3) motion; pixel (0, 0) starts at the corner."""
    return points @ motion[:, :2].T + motion[:, 2]


def stabilized_crop(frame: np.ndarray, motion: np.ndarray, left: int, top: int, width: int, height: int) -> np.ndarray:
    """The part of a frame seen in a box of the reference frame; beyond the frame's border the border is repeated."""
    import cv2

    # crop pixel centre (i + 0.5) -> reference -> frame, in OpenCV's centre coordinates
    matrix = motion.copy()
    shift = np.array([left + 0.5, top + 0.5])
    matrix[:, 2] = matrix[:, 2] + motion[:, :2] @ shift - 0.5
    return cv2.warpAffine(
        frame, matrix, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
    )
