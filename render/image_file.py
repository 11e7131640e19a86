"""Images from files and to files: PNG, JPEG and EXR in; PNG, EXR and NPZ out.

Linear values inside. A file of 8 or 16 bits holds values of the sRGB curve unless it is said to be linear (roughness, masks);
EXR is linear, float32, written losslessly compressed (ZIP).
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dvc.atomic_file import replacing, write_error, write_file
from dvc.errors import UserError
from render.response import FilmResponse, srgb_inverse
from render.value_checks import shown

EIGHT_BIT = (".png", ".jpg", ".jpeg")
SUFFIXES = {1: ("V",), 2: ("U", "V"), 3: ("X", "Y", "Z")}  # of EXR channels


def read_image(path: str | Path, linear: bool = False) -> Tensor:
    """Linear values, float32 (row, column, 1 or 3), row 0 at the top; an alpha channel is left out.

    Arguments: linear: the numbers of a PNG or JPEG file, over 255 or 65535, are linear as they stand; else sRGB is undone.
    Raises: UserError for a file that is missing, of another kind, or cannot be read, and for values that are not finite.
    """
    path = Path(path)
    name = f"image file {str(path)!r}"
    suffix = path.suffix.lower()
    if suffix not in (*EIGHT_BIT, ".exr"):
        raise UserError(f"{name}: expected one of {', '.join((*EIGHT_BIT, '.exr'))}, got {suffix or 'no ending'!r}")
    if not path.is_file():
        raise UserError(f"{name}: expected a file, found {'a folder' if path.is_dir() else 'none'}; remedy: check the path")
    if suffix == ".exr":
        return _read_exr(name, path)
    import cv2

    stored = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED) if path.stat().st_size else None
    if stored is None or stored.dtype not in (np.uint8, np.uint16):
        raise UserError(f"{name}: expected an image of 8 or 16 bits, got what cannot be read; remedy: convert it to PNG")
    values = stored.reshape(*stored.shape[:2], -1)
    values = values[..., 2::-1] if values.shape[2] >= 3 else values[..., :1]  # files are blue, green, red to OpenCV
    image = torch.from_numpy(np.ascontiguousarray(values, np.float32) / np.float32(255 if stored.dtype == np.uint8 else 65535))
    return image if linear else srgb_inverse(image)


def _read_exr(name: str, path: Path) -> Tensor:
    import OpenEXR

    try:
        with OpenEXR.File(str(path), separate_channels=True) as file:
            channels = {key: np.asarray(channel.pixels, np.float32) for key, channel in file.channels().items()}
    except RuntimeError as error:
        raise UserError(f"{name}: expected an EXR image, got what cannot be read: {str(error).splitlines()[0]}") from None
    wanted = "RGB" if all(key in channels for key in "RGB") else "Y"
    if not all(key in channels for key in wanted):
        raise UserError(f"{name}: expected channels R, G, B or Y, got {', '.join(channels)}")
    image = torch.from_numpy(np.stack([channels[key] for key in wanted], axis=-1))
    if not bool(torch.isfinite(image).all()):
        raise UserError(f"{name}: expected finite values, got some that are not")
    return image


def write_png(path: str | Path, image: Tensor, stops: float = 0.0, linear: bool = False) -> Path:
    """Write (row, column, 1 or 3) as a PNG of 8 bits: exposed by 2^stops, through the sRGB curve unless linear, cut to [0, 1].

    Raises: UserError for values that are not finite, and where the file cannot be written.
    """
    path = Path(path)
    _check(path, image)
    response = FilmResponse("linear" if linear else "srgb", clip=True)
    values = response(image.detach().cpu().float()[None], torch.tensor([float(stops)]))[0]
    stored = (values.numpy() * 255.0 + 0.5).astype(np.uint8)
    import cv2

    _, content = cv2.imencode(".png", stored[..., ::-1] if stored.shape[2] == 3 else stored[..., 0])
    return write_file(path, content.tobytes())


def write_exr(path: str | Path, image: Tensor, layers: Mapping[str, Tensor] | None = None) -> Path:
    """Write (row, column, 3), linear, as an EXR of 32-bit floats: R, G, B; and layers (row, column[, 1 to 3]) as name.V, or
    name.X, name.Y, ....

    Raises: UserError for values that are not finite, and where the file cannot be written.
    """
    import OpenEXR

    path = Path(path)
    channels = {"RGB": _check(path, image)}
    for name, layer in (layers or {}).items():
        values = _check(path, layer if layer.dim() == 3 else layer[..., None])
        for i, suffix in enumerate(SUFFIXES[values.shape[2]]):
            channels[f"{name}.{suffix}"] = np.ascontiguousarray(values[..., i])
    header = {"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}
    try:
        with replacing(path) as temporary, OpenEXR.File(header, channels) as file:
            file.write(str(temporary))
    except RuntimeError as error:  # OpenEXR's own, without a number
        raise UserError(f"cannot write {path}: {str(error).splitlines()[0]}; remedy: check the folder and the disk") from None
    except OSError as error:
        raise write_error(path, error) from error
    return path


def _check(path: Path, image: Tensor) -> np.ndarray:
    if not isinstance(image, Tensor) or image.dim() != 3 or image.shape[2] not in SUFFIXES or 0 in image.shape:
        raise UserError(
            f"{path}: expected an image (row, column, channel) of 1 to 3 channels, got {shown(image)}; remedy: image[0]"
        )
    bad = ~torch.isfinite(image.detach())
    if bool(bad.any()):
        raise UserError(f"{path}: expected an image of finite numbers, got {int(bad.sum())} that are not")
    return np.ascontiguousarray(image.detach().cpu().float().numpy())
