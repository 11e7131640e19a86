"""The motion of a hand-held camera, estimated from the background: one rigid image motion (shift and turn) a frame.

Enhanced correlation coefficient maximisation (Evangelidis and Psarakis, 2008), through OpenCV, on a mask that leaves out
where things move. Each frame starts from its neighbour's answer, outwards from the reference frame.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from dvc.errors import UserError

MIN_CORRELATION = 0.9


def identity_motions(count: int) -> np.ndarray:
    """Motions of a camera on a tripod, (frame, 2, 3)."""
    return np.tile(np.eye(2, 3, dtype=np.float64), (count, 1, 1))


def background_motions(frames: np.ndarray, moving: Sequence[Sequence[float]], reference: int | None = None, scale: float = 0.5) -> np.ndarray:
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
        raise UserError("stabilize: expected at least 10 % of the frame outside the moving boxes; remedy: make `moving` smaller")
    size = (round(width * scale), round(height * scale))
    mask = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)

    def shrink(frame: np.ndarray) -> np.ndarray:
        return cv2.resize(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)

    still = shrink(frames[reference])
    criteria = (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 50, 1e-5)

    def sweep(order: range) -> list[tuple[int, np.ndarray]]:
        warp, found = np.eye(2, 3, dtype=np.float32), []
        for k in order:
            try:
                correlation, warp = cv2.findTransformECC(still, shrink(frames[k]), warp.copy(), cv2.MOTION_EUCLIDEAN, criteria, mask, 5)
            except cv2.error as error:
                raise UserError(f"stabilize: frame {k} could not be matched to frame {reference} ({error.code}); remedy: `stabilize: false` or other boxes") from None
            if correlation < MIN_CORRELATION:
                raise UserError(
                    f"stabilize: expected a background correlation of at least {MIN_CORRELATION} with frame {reference}, "
                    f"got {correlation:.3f} at frame {k}; remedy: `stabilize: false`, or list what moves in `moving`"
                )
            found.append((k, warp.copy()))
        return found

    with ThreadPoolExecutor(2) as pool:
        halves = pool.map(sweep, (range(reference, count), range(reference - 1, -1, -1)))
        found = sorted((item for half in halves for item in half), key=lambda item: item[0])
    motions = np.stack([warp for _, warp in found]).astype(np.float64)
    motions[:, :, 2] /= scale
    # the pixel centre convention: OpenCV's coordinates are at pixel centres of the small image, ours at corners of the large
    half = np.array([0.5, 0.5]) / scale
    motions[:, :, 2] += half - np.einsum("kij,j->ki", motions[:, :, :2], half)
    return motions


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
    return cv2.warpAffine(frame, matrix, (width, height), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE)
