"""`@warp_op`: a host function over Warp arrays becomes a differentiable torch function.

    @warp_op
    def integrate(position: wp.array2d(dtype=wp.vec3), stiffness: wp.array(dtype=float), *, dt: float, substeps: int):
        moved = scratch(position.shape, wp.vec3)
        wp.launch(...)
        return moved

    moved = integrate(position, stiffness, dt=1e-3, substeps=20)      # torch tensors

Positional arguments are tensors with a leading world axis (a size of one is repeated; arguments named in `shared` have no
such axis); keyword-only arguments are static options. The body is traced once for each signature: shapes, device, options,
which inputs need gradients. Later calls replay it. A call keeps its inputs only and its backward pass recomputes the forward
pass, so that memory grows with calls, not with launches.

In a traced body: launches, `scratch`, `save`, `keep`, `zero_`, `wp.copy`, other ops. No torch, no NumPy, no reads on the host,
no branch on data. Whatever varies between calls (seed, time, flags) is an array input. What breaks this is found when the op
is traced (see trace_check); an op that needs it says `capture=False`.

Gradients: complete for kernels on the tape; Warp's own rules hold (a local carried through a dynamic loop has none). Second
derivatives and `torch.func` raise Unsupported.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import torch
import warp as wp
from torch import Tensor

from dvc.errors import Unsupported, UserError
from dvc.op_body import current_frame, keep, process_lock, require_capacity, run_inlined, save, scratch
from dvc.op_calls import Call, EagerCalls, TracedCalls, clock
from dvc.op_signature import OpSignature, typed
from dvc.trace import announced_compilation, refuse_active_recording, start_warp

__all__ = ["WarpOp", "keep", "require_capacity", "save", "scratch", "warp_op"]

default_threads: int | None = None  # of ops declared with threads=None; None: torch's threads, at most the machine's
debug_verify: bool = os.environ.get("DIFFVC_DEBUG_VERIFY", "") not in ("", "0")  # compare every call with an eager run
on_compile: Callable[[str], None] | None = None  # called with one line before kernels are compiled


class WarpOp:
    """What `@warp_op` makes of a function. Call it with tensors."""

    def __init__(self, body: Callable, capture: bool, shared: Iterable[str], seeds: Iterable[str], threads: int | None,
                 enable_backward: bool, verify: bool, trace_limit: int):  # fmt: skip
        functools.update_wrapper(self, body)
        self.body = body
        self.name = body.__name__
        self.signature = OpSignature(body, self.name, shared, seeds)
        if threads is not None and (not isinstance(threads, int) or threads < 1):
            raise UserError(f"{self.name}: expected threads=None or at least 1, got {threads!r}")
        self.capture, self.threads, self.enable_backward, self.verify = capture, threads, enable_backward, verify
        self.trace_limit = trace_limit
        self.trace_count = 0
        self.adjoint_body: Callable | None = None
        self.adjoint_recompute = True
        self._by_raw_key: dict[Any, Any] = {}
        self._by_key: dict[Any, Any] = {}
        self._history: deque[dict[str, Any]] = deque(maxlen=2 * trace_limit)

    def __repr__(self) -> str:
        return f"<warp_op {self.name}>"

    def __reduce__(self) -> str:
        return self.body.__qualname__

    def __copy__(self) -> WarpOp:
        return self

    def __deepcopy__(self, memo: Any) -> WarpOp:
        return self

    def adjoint(self, function: Callable | None = None, *, recompute: bool = True) -> Callable:
        """Declare the hand-written adjoint: `def _(inputs, outputs, [saved,] *, options)`.

        It launches kernels that read the gradient of the outputs (`outputs.grad`, or `outputs[i].grad`, `outputs.field.grad`:
        the structure that the body returns) and ADD to `inputs.<name>.grad`, which every float input has and which is zero
        before. `saved` holds what the body handed to `save`; the adjoint may overwrite it. It is captured like the body and
        may call `scratch`, whose arrays carry no gradient in such an op unless asked for. It takes all static options, or
        those that it names.
        `recompute=False` promises that it reads inputs and output gradients only, not the values of outputs or `saved`: the
        forward pass is then not repeated.
        """
        if function is None:
            return functools.partial(self.adjoint, recompute=recompute)
        parameters = inspect.signature(function).parameters.values()
        positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        if len(positional) not in (2, 3):
            raise UserError(
                f"{self.name}.adjoint: expected (inputs, outputs[, saved], *, options), got {len(positional)} positional"
            )
        every = any(p.kind is p.VAR_KEYWORD for p in parameters)
        named = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]

        def adjoint_body(inputs: Any, outputs: Any, saved: Any, options: dict) -> None:
            given = options if every else {name: options[name] for name in named if name in options}
            function(*(inputs, outputs, saved)[: len(positional)], **given)

        self.adjoint_body, self.adjoint_recompute = adjoint_body, recompute
        self.clear()
        return function

    def clear(self) -> None:
        """Forget all traces and free their work arrays."""
        with process_lock:
            self._by_raw_key.clear()
            self._by_key.clear()

    def __call__(self, *args: Any, **options: Any) -> Any:
        if "torch._dynamo" in sys.modules:
            return _without_dynamo()(self, args, options)
        return _call(self, args, options)

    def _calls(self, args: tuple, options: dict, needs_gradient: bool) -> tuple[Any, tuple, bool]:
        """Slow path: check the arguments and find or make the traces."""
        args, options = self.signature.bind(args, options)
        self.signature.check_options(options)
        worlds = self.signature.check_tensors(args)
        needs = [needs_gradient and a.is_float and t.requires_grad for a, t in zip(self.signature.arguments, args)]
        device = args[0].device
        slices = 1
        if self.capture and device.type == "cpu" and not all(a.shared for a in self.signature.arguments):
            slices = max(1, min(_thread_count(self.threads), worlds))
        stream = torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else None
        fields: dict[str, Any] = {f"{a.name}.shape": tuple(t.shape) for a, t in zip(self.signature.arguments, args)}
        fields |= {f"{a.name}.requires_grad": need for a, need in zip(self.signature.arguments, needs)}
        fields |= options | {"device": device, "stream": stream, "threads": slices}
        key = tuple([typed(value) for value in fields.values()])
        calls = self._by_key.get(key)
        if calls is None:
            with process_lock:
                calls = self._by_key.get(key)
                if calls is None:
                    calls = self._trace(args, options, needs, worlds, slices)
                    self._by_key[key] = calls
                    self._note_trace(fields)
        return calls, args, any(needs)

    def _trace(self, tensors: tuple, options: dict, needs: list[bool], worlds: int, slices: int) -> Any:
        start_warp()
        if not self.capture:
            return EagerCalls(self, tensors, options, needs, worlds)
        with torch.inference_mode(False), torch.no_grad(), announced_compilation(self.name, on_compile):
            return TracedCalls(self, tensors, options, needs, worlds, slices)

    def _note_trace(self, fields: dict[str, Any]) -> None:
        while len(self._by_key) > self.trace_limit:
            oldest = min(self._by_key, key=lambda key: self._by_key[key].used)
            for raw in self._by_key.pop(oldest).raw_keys:
                self._by_raw_key.pop(raw, None)
        self.trace_count += 1
        self._history.append(fields)
        if self.capture and self.trace_count == 2 * self.trace_limit:
            seen = {name: list(dict.fromkeys(str(past[name]) for past in self._history)) for name in fields}
            varied = [f"{name} ({', '.join(values[:4])}, ...)" for name, values in seen.items() if len(values) > 1]
            varied.sort(key=lambda text: ".shape" in text or ".requires_grad" in text)  # options first: they are easiest mended
            changes = "; ".join(varied[:3]) + (f"; and {len(varied) - 3} more" if len(varied) > 3 else "")
            warnings.warn(
                f"{self.name}: traced {self.trace_count} times, {self.trace_limit} are kept; what changes between calls: "
                f"{changes}; remedy: make what varies an array input, or use fewer shapes",
                stacklevel=5,
            )


def _thread_count(threads: int | None) -> int:
    if threads is None:
        threads = default_threads
    return threads if threads is not None else max(1, min(torch.get_num_threads(), os.cpu_count() or 1))


def _call(op: WarpOp, args: tuple, options: dict) -> Any:
    """One call: the fast path looks the traces up by a key that is cheap to build."""
    if torch._C._are_functorch_transforms_active():
        raise Unsupported(
            f"{op.name}: torch.func transforms (grad, vmap, jvp, ...) cannot enter Warp kernels; use torch.autograd"
        )
    if args and isinstance(args[0], wp.array):
        return run_inlined(op, args, options)
    if current_frame() is not None:
        raise UserError(f"{op.name}: called with torch tensors inside the body of another op; remedy: pass its Warp arrays")
    needs_gradient = op.enable_backward and torch.is_grad_enabled()
    raw: tuple | None
    try:
        device = args[0].device
        raw = (
            tuple([(t.shape, t.dtype, t.device, t.requires_grad) for t in args]),
            needs_gradient,
            tuple([(name, typed(value)) for name, value in options.items()]) if options else (),
            torch.cuda.current_stream(device).cuda_stream if device.type == "cuda" else None,
            _thread_count(None) if op.threads is None else 0,
        )
        found = op._by_raw_key.get(raw)
    except (AttributeError, TypeError, IndexError):  # not a tensor, not hashable, or given by name: the slow path sees to it
        raw = found = device = None
    refuse_active_recording(op.name, device)
    if found is not None:
        calls, differentiates = found
    else:
        calls, args, differentiates = op._calls(args, options, needs_gradient)
        if raw is not None and len(raw[0]) == len(args):
            op._by_raw_key[raw] = calls, differentiates
            calls.raw_keys.append(raw)
    if debug_verify and op.capture:
        calls.check(args)
    calls.used = next(clock)
    if differentiates:
        outputs = _Bridge.apply(calls, *args)
    else:
        with torch.no_grad():
            outputs = calls.forward(args, Call())
    return calls.rebuild(outputs)


_guarded_call: Callable | None = None


def _without_dynamo() -> Callable:
    """The call as a graph break for torch.compile. Made late: importing Dynamo takes seconds."""
    global _guarded_call
    if _guarded_call is None:
        _guarded_call = torch.compiler.disable(_call, reason="a warp_op runs Warp kernels")
    return _guarded_call


class _Bridge(torch.autograd.Function):
    """Warp's adjoint as a node of torch's graph. It saves the inputs, so that torch notices when one is edited in place."""

    @staticmethod
    def forward(ctx: Any, calls: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.call = call = Call()
        ctx.calls = calls
        outputs = calls.forward(tensors, call)
        ctx.save_for_backward(*tensors)
        ctx.set_materialize_grads(False)
        if not all(calls.differentiable):
            ctx.mark_non_differentiable(*(o for o, differentiable in zip(outputs, calls.differentiable) if not differentiable))
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple:
        calls, tensors = ctx.calls, ctx.saved_tensors
        if all(gradient is None for gradient in gradients):
            return (None,) * (1 + len(tensors))
        create_graph = torch.is_grad_enabled()
        with torch.no_grad():
            results = calls.backward(tensors, gradients, ctx.call)
        if create_graph:
            results = _first_order_only(calls.op.name, results, tensors, gradients)
        return (None, *results)

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        raise Unsupported(
            f"{ctx.calls.op.name}: forward-mode differentiation cannot enter Warp kernels; remedy: use backward()"
        )


class _FirstOrder(torch.autograd.Function):
    """Gradients that say, when differentiated themselves, that this is not supported."""

    @staticmethod
    def forward(ctx: Any, name: str, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.name = name
        return tuple(tensor.clone() for tensor in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple:
        raise Unsupported(f"{ctx.name}: second derivatives (double backward) through a Warp tape are not supported")


def _first_order_only(name: str, results: list, tensors: tuple, gradients: tuple) -> list:
    present = [result for result in results if result is not None]
    causes = [t for t in (*tensors, *gradients) if t is not None and t.requires_grad]
    marked = iter(_FirstOrder.apply(name, len(present), *present, *causes) if present else ())
    return [None if result is None else next(marked) for result in results]


def warp_op(
    function: Callable | None = None,
    *,
    capture: bool = True,
    shared: Iterable[str] = (),
    seeds: Iterable[str] = (),
    threads: int | None = 1,
    enable_backward: bool = True,
    verify: bool = True,
    trace_limit: int = 8,
) -> Any:
    """Make a differentiable torch function of a host function over Warp arrays. Bare, or with options.

    Args:
        capture: False runs the body eagerly at each call (sizes that depend on data, host reads); backward runs it again.
        shared: names of arguments without a world axis (faces, textures, weights).
        seeds: names of integer arguments that the check on trace moves by one (other integers it leaves alone).
        threads: number of threads over which worlds are split on the CPU; None: `default_threads`. Worlds must be independent.
        enable_backward: False declares a query: its outputs carry no gradient.
        verify: compare the replay with an eager run when the op is traced.
        trace_limit: number of signatures whose work arrays are kept.
    """
    if function is None:
        return lambda body: WarpOp(body, capture, shared, seeds, threads, enable_backward, verify, trace_limit)
    return WarpOp(function, capture, shared, seeds, threads, enable_backward, verify, trace_limit)
