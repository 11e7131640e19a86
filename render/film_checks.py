"""Whether a film is one, and fits into memory: said before anything is allocated."""

import os

import torch

from dvc.errors import UserError
from dvc.records import Film
from render.value_checks import real_number, require_kind, whole_number

MOST_PIXELS = 2**31 - 1  # kernels count pixels in 32 bits
FARTHEST = 1.0e9  # pixels
COPIES = 2  # of the image: what the kernel writes and what the caller gets
LOOKED_AT = 1 << 28  # bytes; less always fits


def check_film(film: Film) -> None:
    """Raises: UserError for sizes that are not positive, or rows and columns that are not whole numbers."""
    require_kind("film", film, Film, "Film(width, height, left, top, columns, rows, scale)")
    for name in ("rows", "columns"):
        value = getattr(film, name)
        if isinstance(value, (int, float)) and not 0.0 < value < float("inf"):
            raise UserError(f"Film.{name}: expected a positive number, got {value}")
        whole_number(f"Film.{name}", int(value) if isinstance(value, float) and value.is_integer() else value, 1)
    for name in ("width", "height", "scale"):
        real_number(f"Film.{name}", getattr(film, name), 0.0, FARTHEST)
    for name in ("left", "top"):
        real_number(f"Film.{name}", getattr(film, name), -FARTHEST, FARTHEST)


def check_memory(rows: int, columns: int, views: int, device: torch.device, copies: int = COPIES) -> None:
    """Raises: UserError where `copies` of the images (view, row, column, 3) do not fit into what memory is free."""
    pixels = int(rows) * int(columns)
    size = f"{columns} x {rows} pixels" + (f" in {views} views" if views > 1 else "")
    if pixels * views > MOST_PIXELS:
        raise UserError(f"Film: expected at most {MOST_PIXELS} pixels, got {size}; remedy: a smaller film, or parts of it")
    needed = 12 * copies * pixels * views
    if needed < LOOKED_AT:
        return
    free = free_memory(device)
    if free is not None and needed > free:
        raise UserError(
            f"Film: expected images that fit into {free / 1e9:.1f} GB of free memory, got {size}, which take "
            f"{needed / 1e9:.1f} GB; remedy: a smaller film, or parts of it (left, top, columns, rows)"
        )


def free_memory(device: torch.device) -> int | None:
    """Bytes, or None where the system does not tell."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch, for what comes next
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None
