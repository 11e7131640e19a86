"""A trace: the work arrays of an op for one signature, and the captured graphs of its forward pass and of its adjoint.

    forward    copy the inputs in, replay, copy the outputs out
    backward   zero every gradient, copy the inputs in and replay the forward graph (recomputation: skipped while the work
               arrays still hold the call), add the incoming gradients, replay the adjoint graph

The capture is a CUDA graph on the GPU and Warp's recorded operations on the CPU, where recording does not execute.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import warp as wp
from torch import Tensor
from warp._src import context as warp_context

from dvc.errors import UserError
from dvc.op_body import OpTape, Run, current_frame

_capturing = False  # a capture of ours is active (under the process lock)


def start_warp() -> None:
    """Initialise Warp without its banner, nor the native warning that there is no GPU."""
    if warp_context.runtime is not None:
        return
    if wp.config.log_level == wp.LOG_INFO:
        wp.config.log_level = wp.LOG_WARNING
    if torch.cuda.is_available():
        wp.init()
        return
    sys.stderr.flush()
    stderr = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        wp.init()
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)


def refuse_active_recording(name: str, device: torch.device | None) -> None:
    """Raise where a tape or capture of the user's is active: a replay would not be recorded on it."""
    runtime = warp_context.runtime
    if runtime is None:
        return
    if runtime.tape is not None and not isinstance(runtime.tape, OpTape):
        raise UserError(
            f"{name}: called while a wp.Tape is active, which would not record it; expected none; remedy: leave the tape, "
            "gradients flow through torch"
        )
    if (runtime._apic_capture is not None and not _capturing) or (
        device is not None and device.type == "cuda" and torch.cuda.is_current_stream_capturing()
    ):
        raise UserError(f"{name}: called while a graph capture is active; expected none; remedy: leave the capture")


def torch_stream(device: torch.device) -> Any:
    """Torch's current stream as a Warp stream (None on the CPU)."""
    return wp.stream_from_torch(torch.cuda.current_stream(device)) if device.type == "cuda" else None


def on_stream(stream: Any) -> Any:
    """A scope in which Warp launches on `stream`; nothing on the CPU."""
    return wp.ScopedStream(stream) if stream is not None else contextlib.nullcontext()


@contextlib.contextmanager
def announced_compilation(name: str, on_compile: Callable[[str], None] | None) -> Iterator[None]:
    """Call `on_compile` with one line before a module is compiled that is not in the kernel cache."""
    module_class = warp_context.Module
    compile_module = getattr(module_class, "_compile", None)
    if on_compile is None or compile_module is None:
        yield
        return

    def announcing(
        module: Any, device: Any = None, output_dir: Any = None, output_name: Any = None, *rest: Any, **more: Any
    ) -> Any:
        if not (output_dir and output_name and os.path.exists(os.path.join(output_dir, output_name))):
            on_compile(f"{name}: compiling kernels of {module.name} for {device}")
        return compile_module(module, device, output_dir, output_name, *rest, **more)

    module_class._compile = announcing
    try:
        yield
    finally:
        module_class._compile = compile_module


@contextlib.contextmanager
def _no_host_data() -> Iterator[None]:
    """Refuse arrays made of host data while a body is captured: the copy would be replayed from memory long freed."""
    original = wp.array._init_from_data

    def refusing(array: Any, *args: Any, **options: Any) -> None:
        frame = current_frame()
        if frame is not None:
            raise UserError(
                f"{frame.name}: makes an array of host data while it is traced, expected data in arguments; "
                "remedy: keep(lambda: wp.array(...)) for a constant, an array input for what varies"
            )
        original(array, *args, **options)

    wp.array._init_from_data = refusing
    try:
        yield
    finally:
        wp.array._init_from_data = original


def input_arrays(
    op: Any, shapes: Sequence[Sequence[int]], device: Any, needs: Sequence[bool], tensors: Any = None
) -> list[wp.array]:
    """Warp arrays for the inputs of an op, with gradients where they are needed; views of `tensors` where given."""
    differentiates = any(needs)
    arrays = []
    for index, (argument, shape) in enumerate(zip(op.signature.arguments, shapes)):
        needed = needs[index] or (differentiates and argument.is_float and op.adjoint_body is not None)
        if tensors is None:
            array = wp.zeros(tuple(shape[: argument.rank]), dtype=argument.dtype, device=device, requires_grad=needed)
        else:
            array = wp.from_torch(tensors[index].detach().contiguous(), dtype=argument.dtype, requires_grad=False)
            if needed:
                array.requires_grad = True
        arrays.append(array)
    return arrays


def view(array: wp.array) -> Tensor:
    return wp.to_torch(array, requires_grad=False)


class CapacityExceeded(UserError):
    """The data need more room than an op allocated (`require_capacity`)."""


def check_capacities(run: Run) -> None:
    """Raises: CapacityExceeded where the last forward pass counted more items than were allocated."""
    for count, capacity, what in run.frame.capacities.values():
        largest = int(view(count).max())
        if largest > capacity:
            raise CapacityExceeded(
                f"{run.op.name}: expected at most {capacity} {what}, got {largest}; remedy: a larger capacity"
            )


class Trace:
    """One slice of worlds of one signature. Its work arrays serve one thread at a time."""

    def __init__(
        self, op: Any, tensors: Sequence[Tensor], shapes: Sequence[Sequence[int]], options: dict, needs: Sequence[bool]
    ):
        """Trace the body on `tensors`; the caller holds the process lock."""
        self.needs = needs
        self.stream = torch_stream(tensors[0].device)
        self.device = wp.device_from_torch(tensors[0].device)
        self.recompute = op.adjoint_recompute
        with on_stream(self.stream):
            arrays = input_arrays(op, shapes, self.device, needs)
            self.run = run = Run(op, arrays, options, self.device, any(needs))
            self.input_views = [view(array) for array in arrays]
            self.copy_in(tensors)
            run.forward()  # loads the kernels and allocates the work arrays
            if any(needs) and op.adjoint_body is not None:
                run.prepare_backward()
                run.backward()
        if self.device.is_cuda:
            wp.synchronize_device(self.device)
        check_capacities(run)
        self.forward_graph = self._capture(run.forward)
        self.output_views = [view(output) for output in run.outputs]
        self.differentiable = [False] * len(run.outputs)
        self.output_gradients: list[Tensor | None] = [None] * len(run.outputs)
        self.input_gradients: list[Tensor | None] = [None] * len(arrays)
        if any(needs):
            run.prepare_backward()
            self.zero_graph = self._capture(run.zero_gradients)
            self.adjoint_graph = self._capture(run.backward)
            self.output_gradients = [view(a.grad) if a.grad is not None and a.size else None for a in run.outputs]
            self.input_gradients = [view(a.grad) if needed else None for a, needed in zip(arrays, needs)]
            self.differentiable = [a.grad is not None for a in run.outputs]

    def _capture(self, record: Callable[[], None]) -> wp.Graph:
        global _capturing
        side = wp.Stream(self.device) if self.device.is_cuda else None
        _capturing = True
        try:
            with (
                _no_host_data(),
                on_stream(side),
                wp.ScopedCapture(device=self.device, stream=side, force_module_load=False) as capture,
            ):
                record()
        finally:
            _capturing = False
        return capture.graph

    def copy_in(self, tensors: Sequence[Tensor]) -> None:
        """Copy the inputs into the work arrays; a leading axis of one is repeated for all worlds."""
        for work, tensor in zip(self.input_views, tensors):
            work.copy_(tensor)

    def forward(self, tensors: Sequence[Tensor]) -> None:
        """Replay the forward pass; its results lie in `output_views` until the next replay."""
        for work, tensor in zip(self.input_views, tensors):
            work.copy_(tensor)
        wp.capture_launch(self.forward_graph, self.stream)
        check_capacities(self.run)

    def backward(self, tensors: Sequence[Tensor] | None, gradients: Sequence[Tensor | None]) -> None:
        """Replay the adjoint; its results lie in `input_gradients`. `tensors` is None where the work arrays hold the call."""
        wp.capture_launch(self.zero_graph, self.stream)
        if tensors is not None:
            self.copy_in(tensors)
            if self.recompute:
                wp.capture_launch(self.forward_graph, self.stream)
        for work, gradient in zip(self.output_gradients, gradients):
            if gradient is not None and work is not None:
                work.add_(gradient)
        wp.capture_launch(self.adjoint_graph, self.stream)
