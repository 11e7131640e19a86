"""The calls of one signature: slices of worlds, each with its own trace, replayed in turn or by several threads."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
import warp as wp
from torch import Tensor

from dvc.errors import UserError
from dvc.op_body import Run, process_lock
from dvc.op_signature import is_float32
from dvc.trace import Trace, check_capacities, input_arrays, on_stream, torch_stream, view
from dvc.trace_check import check_trace

_pool: ThreadPoolExecutor | None = None
clock = itertools.count()


def _forget_pool() -> None:
    global _pool
    _pool = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_pool)


def _run_together(jobs: Sequence[Callable[[], None]]) -> None:
    """Run the jobs, all but the last in the thread pool; wait for all, then raise the first error."""
    global _pool
    if _pool is None:
        _pool = ThreadPoolExecutor(max_workers=max(1, (os.cpu_count() or 1) - 1), thread_name_prefix="warp_op")
    futures = [_pool.submit(job) for job in jobs[:-1]]
    try:
        jobs[-1]()
    finally:
        for future in futures:
            future.exception()
    for future in futures:
        future.result()


class Call:
    """One call of an op, told apart from all others."""

    __slots__ = ("outputs",)

    def __init__(self) -> None:
        self.outputs: Sequence[tuple] = ()  # of an eager call: shape, dtype and differentiability of each


class TracedCalls:
    """The traces of one signature. `lock` is held by the call whose values are in the work arrays."""

    def __init__(self, op: Any, tensors: tuple[Tensor, ...], options: dict, needs: Sequence[bool], worlds: int, slices: int):
        self.op, self.options, self.needs, self.worlds = op, options, needs, worlds
        self.lock = threading.Lock()
        self.holds: Call | None = None  # the call whose forward pass the work arrays hold
        self.used = next(clock)
        self.raw_keys: list[Any] = []
        self.per_world = [not argument.shared for argument in op.signature.arguments]
        self.broadcast = [world and t.shape[0] != worlds for world, t in zip(self.per_world, tensors)]
        bounds = [index * worlds // slices for index in range(slices + 1)]
        self.slices = list(itertools.pairwise(bounds))
        self.traces: list[Trace] = []
        checked = set()
        for first, last in self.slices:
            part, shapes = self.part(tensors, first, last), self._shapes(tensors, last - first)
            trace = Trace(op, part, shapes, options, needs)
            if op.verify and last - first not in checked:
                check_trace(op, trace, part, shapes, options)
                checked.add(last - first)
            self.traces.append(trace)
        trace = self.traces[0]
        self.rebuild = trace.run.rebuild
        self.differentiable = trace.differentiable
        self.output_shapes = [tuple(output.shape) for output in trace.output_views]
        if slices > 1:
            for name, output in zip(trace.run.output_names, trace.output_views):
                if output.dim() == 0 or output.shape[0] != self.slices[0][1]:
                    raise UserError(
                        f"{op.name}: {name} has shape {tuple(output.shape)}, expected a leading world axis of "
                        f"{self.slices[0][1]} because worlds are split over threads; remedy: @warp_op(threads=1)"
                    )
            self.output_shapes = [(worlds, *shape[1:]) for shape in self.output_shapes]

    def _shapes(self, tensors: Sequence[Tensor], worlds: int) -> list[tuple[int, ...]]:
        return [(worlds, *t.shape[1:]) if world else tuple(t.shape) for t, world in zip(tensors, self.per_world)]

    def part(self, tensors: Sequence[Tensor], first: int, last: int) -> list[Tensor]:
        """The tensors of worlds first..last; shared ones and those with one world as they are."""
        if last - first == self.worlds:
            return list(tensors)
        return [
            t if broadcast or not world else t[first:last]
            for t, world, broadcast in zip(tensors, self.per_world, self.broadcast)
        ]

    def forward(self, tensors: Sequence[Tensor], call: Call) -> list[Tensor]:
        """Outputs, as new tensors. Gradient mode is off."""
        with self.lock:
            self.holds = None
            if len(self.traces) == 1:
                trace = self.traces[0]
                trace.forward(tensors)
                outputs = [output.clone() for output in trace.output_views]
            else:
                outputs = [view.new_empty(shape) for view, shape in zip(self.traces[0].output_views, self.output_shapes)]
                _run_together([self._forward_job(index, tensors, outputs) for index in range(len(self.traces))])
            self.holds = call
        return outputs

    def _forward_job(self, index: int, tensors: Sequence[Tensor], outputs: Sequence[Tensor]) -> Callable[[], None]:
        def job() -> None:
            with torch.no_grad():
                (first, last), trace = self.slices[index], self.traces[index]
                trace.forward(self.part(tensors, first, last))
                for output, work in zip(outputs, trace.output_views):
                    output[first:last].copy_(work)

        return job

    def backward(self, tensors: Sequence[Tensor], gradients: Sequence[Tensor | None], call: Call) -> list[Tensor | None]:
        """Gradients of the inputs, as new tensors. Gradient mode is off."""
        with self.lock:
            given = None if self.holds is call else tensors
            self.holds = None
            if len(self.traces) == 1:
                trace = self.traces[0]
                trace.backward(given, gradients)
                results = [
                    None if g is None else (g.sum(0, keepdim=True) if broadcast else g.clone())
                    for g, broadcast in zip(trace.input_gradients, self.broadcast)
                ]
            else:
                results = self._sliced_backward(given, gradients)
            if not self.traces[0].run.frame.runs_adjoints:
                self.holds = call
        return results

    def _sliced_backward(self, given: Sequence[Tensor] | None, gradients: Sequence[Tensor | None]) -> list[Tensor | None]:
        def job(index: int) -> Callable[[], None]:
            def run() -> None:
                with torch.no_grad():
                    first, last = self.slices[index]
                    part = None if given is None else self.part(given, first, last)
                    self.traces[index].backward(part, [None if g is None else g[first:last] for g in gradients])

            return run

        _run_together([job(index) for index in range(len(self.traces))])
        results: list[Tensor | None] = []
        for index, needed in enumerate(self.needs):
            parts = [trace.input_gradients[index] for trace in self.traces] if needed else []
            if not needed:
                results.append(None)
            elif self.per_world[index]:
                whole = torch.cat(parts)  # type: ignore[arg-type]
                results.append(whole.sum(0, keepdim=True) if self.broadcast[index] else whole)
            else:  # slices are added in their order, so that runs repeat
                total = parts[0].clone()  # type: ignore[union-attr]
                for part in parts[1:]:
                    total += part  # type: ignore[operator]
                results.append(total)
        return results

    def check(self, tensors: Sequence[Tensor]) -> None:
        """Compare the replay of these very inputs with an eager run."""
        with self.lock, process_lock:
            self.holds = None
            for (first, last), trace in zip(self.slices, self.traces):
                part = self.part(tensors, first, last)
                check_trace(self.op, trace, part, self._shapes(tensors, last - first), self.options, perturb=False)


class EagerCalls:
    """The calls of one signature of an op that is not captured: every call runs the body, and backward runs it again."""

    def __init__(self, op: Any, tensors: tuple[Tensor, ...], options: dict, needs: Sequence[bool], worlds: int):
        self.op, self.options, self.needs, self.worlds = op, options, needs, worlds
        self.used = next(clock)
        self.raw_keys: list[Any] = []
        self.broadcast = [not a.shared and t.shape[0] != worlds for a, t in zip(op.signature.arguments, tensors)]
        self.rebuild: Callable[[list], Any] = tuple
        self.differentiable: list[bool] = []
        self.device = wp.device_from_torch(tensors[0].device)

    def _run(self, tensors: Sequence[Tensor], needs: Sequence[bool]) -> Run:
        full = [t.detach().expand(self.worlds, *t.shape[1:]) if b else t for t, b in zip(tensors, self.broadcast)]
        arrays = input_arrays(self.op, [t.shape for t in full], self.device, needs, full)
        return Run(self.op, arrays, self.options, self.device, any(needs))

    def forward(self, tensors: Sequence[Tensor], call: Call) -> list[Tensor]:
        with process_lock, on_stream(torch_stream(tensors[0].device)):
            run = self._run(tensors, [False] * len(tensors))
            run.forward()
            check_capacities(run)
        self.rebuild = run.rebuild
        self.differentiable = [is_float32(output.dtype) and id(output) not in run.frame.frozen for output in run.outputs]
        call.outputs = [(output.shape, output.dtype, differs) for output, differs in zip(run.outputs, self.differentiable)]
        outputs, seen = [], {array.ptr for array in run.arrays}
        for output in run.outputs:  # an output that is an input, or is returned twice, is copied
            outputs.append(view(output).clone() if output.ptr in seen else view(output))
            seen.add(output.ptr)
        return outputs

    def backward(self, tensors: Sequence[Tensor], gradients: Sequence[Tensor | None], call: Call) -> list[Tensor | None]:
        with process_lock, on_stream(torch_stream(tensors[0].device)):
            run = self._run(tensors, self.needs)
            if self.op.adjoint_recompute:
                run.forward()
            else:
                run.assume_outputs(call.outputs, self.rebuild)
            run.prepare_backward()
            for output, gradient in zip(run.outputs, gradients):
                if gradient is not None and output.grad is not None and output.size:
                    view(output.grad).add_(gradient)
            run.backward()
        found = [view(array.grad) if needed else None for array, needed in zip(run.arrays, self.needs)]
        return [g.sum(0, keepdim=True) if g is not None and broadcast else g for g, broadcast in zip(found, self.broadcast)]
