"""Kernels that a call will launch are compiled at the same time, not one after the other when each is first launched."""

import os
from collections.abc import Iterable
from typing import Any

import warp as wp

_asked: set[tuple[str, str]] = set()  # module and device


def load_together(kernels: Iterable[Any], device: Any) -> None:
    """Loads the kernels' modules, as many at a time as there are cores; those that were asked for before are left out."""
    modules = {kernel.module.name: kernel.module for kernel in kernels}
    wanted = [module for name, module in modules.items() if (name, str(device)) not in _asked]
    _asked.update((module.name, str(device)) for module in wanted)
    if wanted:  # as a launch does, for the size of block that a launch takes: `Module.load` by itself compiles for another one
        wp.force_load(device, wanted, max_workers=min(len(wanted), os.cpu_count() or 1))
