"""Launches of a kernel over parts of an image: on the CPU, where a launch runs on one thread, the parts are shared by threads.

Part i is done by thread i mod threads, in order, and each thread may have arrays of its own to add to: which are summed in
the order of threads, so that runs repeat for the same number of threads. On a GPU one launch does a view's whole image.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import warp as wp

from render.precompile import load_together

TILES_PER_THREAD = 24
SMALLEST_TILE = 64
LARGEST_LAUNCH = 1 << 20

_pool: ThreadPoolExecutor | None = None


def _forget_pool() -> None:
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def thread_count(device: Any) -> int:
    """Threads that launches are shared by."""
    return 1 if device.is_cuda else max(1, min(torch.get_num_threads(), os.cpu_count() or 1))


def launch_parts(kernel: Any, views: int, items: int, arguments: Callable[[int, int, int], list], device: Any) -> None:
    """Launch `kernel` over items 0..items of each view, in parts.

    arguments(thread, view, first): the inputs of one launch, whose thread k works on item first + k; the kernel's parameter
    `first` alone differs between the parts of a view.
    """
    threads = thread_count(device)
    size = LARGEST_LAUNCH if device.is_cuda else max(SMALLEST_TILE, -(-items * views // (threads * TILES_PER_THREAD)))
    parts = [(view, first, min(size, items - first)) for view in range(views) for first in range(0, items, size)]
    load_together([kernel], device)

    def run(thread: int) -> None:
        command: Any = None  # a launch takes long to prepare: one serves all parts of a view
        inputs: list = []  # kept as long as it is launched
        served = -1
        for view, first, count in parts[thread::threads]:
            if view != served:
                inputs, served = arguments(thread, view, first), view
                command = wp.launch(kernel, count, inputs=inputs, device=device, record_cmd=True)
            else:
                command.set_param_by_name("first", first)
                command.set_dim(count)
            command.launch()

    if threads == 1 or len(parts) == 1:
        for thread in range(threads):
            run(thread)
        return
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(max_workers=max(1, (os.cpu_count() or 1) - 1), thread_name_prefix="tiles")
    futures = [_pool.submit(run, thread) for thread in range(1, threads)]
    try:
        run(0)
    finally:
        for future in futures:
            future.exception()
    for future in futures:
        future.result()
