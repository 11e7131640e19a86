"""What the body of an op may call, and one run of that body on given Warp arrays.

`scratch`, `save` and `keep` speak to the run in progress. Their results are remembered by call order: when a trace runs its
body again, the same arrays come back, so that a captured graph and its adjoint refer to the same memory.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import warp as wp

from dvc.errors import Unsupported, UserError
from dvc.op_signature import is_float, is_float32

process_lock = threading.RLock()  # held while a tape or a capture of ours is active, and during eager runs
_current = threading.local()


class OpTape(wp.Tape):
    """A tape of the bridge, told apart from one that a user opened."""


class Frame:
    """The objects that one run of a body made, in call order."""

    def __init__(self, name: str, device: Any, differentiates: bool, grad_by_default: bool):
        self.name = name
        self.device = device
        self.differentiates = differentiates  # False: no array needs a gradient
        self.grad_by_default = grad_by_default and differentiates
        self.made: list[tuple[Any, Any]] = []  # (what was asked for, the object)
        self.frozen: set[int] = set()  # ids of arrays that were declared requires_grad=False
        self.runs_adjoints = False  # a hand-written adjoint may overwrite what the forward run left
        self.capacities: dict[int, tuple[wp.array, int, str]] = {}  # counts that must not exceed what was allocated
        self.alive: list[Any] = []  # what the launches of inlined ops refer to
        self.saved: dict[str, Any] = {}
        self.cursor = 0

    def take(self, asked: Any, make: Callable[[], Any]) -> tuple[Any, bool]:
        """The object at this place in the call order, and whether it is a new one."""
        place = self.cursor
        self.cursor += 1
        if place == len(self.made):
            self.made.append((asked, make()))
            return self.made[place][1], True
        if self.made[place][0] != asked:
            raise UserError(
                f"{self.name}: the body asked for {self.made[place][0]} in its first run and for {asked} in the next; "
                "expected the same calls of scratch() and keep() in each run; remedy: decide by static options only"
            )
        return self.made[place][1], False


def current_frame() -> Frame | None:
    return getattr(_current, "frame", None)


class _Entered:
    """Makes a frame the current one of this thread."""

    def __init__(self, frame: Frame | None):
        self.frame = frame

    def __enter__(self) -> None:
        self.previous = current_frame()
        _current.frame = self.frame

    def __exit__(self, *exception: Any) -> None:
        _current.frame = self.previous


def _frame_of(caller: str) -> Frame:
    frame = current_frame()
    if frame is None:
        raise UserError(f"{caller}: expected a call inside the body of a @warp_op, got one outside; remedy: wp.zeros")
    return frame


def scratch(shape: int | tuple[int, ...], dtype: Any, *, zero: bool = True, requires_grad: bool | None = None) -> wp.array:
    """A work or output array of the op that is running.

    It is zero at the start of every replay (`zero=False` leaves what the last replay wrote, for arrays that are wholly
    overwritten). By default an array of floats of any precision carries a gradient when the op is being differentiated on the
    tape; `requires_grad=False` cuts the gradient off there, and an output so declared is not differentiable.
    """
    frame = _frame_of("scratch")
    shape = (shape,) if isinstance(shape, int) else tuple(int(n) for n in shape)
    wanted = (frame.grad_by_default if requires_grad is None else requires_grad and frame.differentiates) and is_float(dtype)
    array, new = frame.take(
        ("scratch", shape, dtype, wanted), lambda: wp.zeros(shape, dtype=dtype, device=frame.device, requires_grad=wanted)
    )
    if new and requires_grad is False:
        frame.frozen.add(id(array))
    if zero and not new:
        array.zero_()
    return array


def require_capacity(count: wp.array, capacity: int, what: str) -> None:
    """State that no element of `count` (int32), which the body's kernels write, may exceed `capacity`.

    For sizes that depend on data: arrays are allocated for `capacity` items, kernels count all of them and store those that
    fit, and the op raises after any replay in which the count was larger. `what` names the items ("contacts"). Places are
    counted out in a kernel without a backward pass, which would count them again, and kept in an array.
    """
    if not isinstance(count, wp.array) or count.dtype is not wp.int32:
        raise UserError(f"require_capacity({what!r}): expected an int32 array of counts, got {type(count).__name__}")
    _frame_of("require_capacity").capacities[id(count)] = (count, int(capacity), what)


def save(**objects: Any) -> None:
    """Hand arrays (or any object) of the forward run to the hand-written adjoint, which receives them as `saved`."""
    _frame_of("save").saved.update(objects)


def keep(make: Callable[[], Any]) -> Any:
    """`make()` in the first run of the body, the same object in later ones; it lives as long as the trace.

    For `wp.Bvh`, `wp.HashGrid` and the like, whose addresses a captured graph holds without keeping them alive. Refit or
    rebuild them after this call: that is recorded (`wp.Mesh.refit` is not, on the CPU).
    """
    return _frame_of("keep").take("keep", make)[0]


def flatten(name: str, returned: Any) -> tuple[list[wp.array], list[str], Callable[[list], Any]]:
    """Arrays that a body returned, their names, and what builds the same structure of other objects."""
    if isinstance(returned, wp.array):
        return [returned], ["output"], lambda items: items[0]
    if isinstance(returned, (tuple, list)) and returned and all(isinstance(item, wp.array) for item in returned):
        fields = getattr(returned, "_fields", None)
        if fields is not None:
            return list(returned), [f"output {field!r}" for field in fields], type(returned)._make  # type: ignore[union-attr]
        return list(returned), [f"output {index}" for index in range(len(returned))], tuple
    got = f"({', '.join(type(item).__name__ for item in returned)})" if isinstance(returned, tuple) else type(returned).__name__
    raise UserError(f"{name}: expected the body to return a Warp array, or a tuple or NamedTuple of them, got {got}")


class Run:
    """A body on given arrays: `forward`, then any number of `backward` passes."""

    def __init__(self, op: Any, arrays: list[wp.array], options: dict, device: Any, differentiates: bool):
        self.op, self.arrays, self.options, self.device = op, arrays, options, device
        self.frame = Frame(op.name, device, differentiates, grad_by_default=op.adjoint_body is None)
        self.frame.runs_adjoints = op.adjoint_body is not None
        self.tape: OpTape | None = None  # also what keeps every array of the launches alive
        self.outputs: list[wp.array] = []
        self.output_names: list[str] = []
        self.rebuild: Callable[[list], Any] = tuple
        self._launches: list = []
        self._gradients: list[wp.array] = []

    def forward(self) -> None:
        """Run the body; the caller holds the process lock."""
        self.frame.cursor, self.frame.saved = 0, {}
        self.tape = OpTape()
        with wp.ScopedDevice(self.device), _Entered(self.frame), self.tape:
            returned = self.op.body(*self.arrays, **self.options)
        self.outputs, self.output_names, self.rebuild = flatten(self.op.name, returned)
        for output, name in zip(self.outputs, self.output_names):
            if is_float(output.dtype) and not is_float32(output.dtype) and id(output) not in self.frame.frozen:
                raise Unsupported(
                    f"{self.op.name}: {name} is {wp.types.type_repr(output.dtype)}, expected float32, which gradients flow "
                    "through; remedy: convert it in the last kernel, or scratch(..., requires_grad=False)"
                )
        self._forward_cursor = self.frame.cursor

    def assume_outputs(self, outputs: Sequence[tuple], rebuild: Callable[[list], Any]) -> None:
        """In place of `forward`, for an adjoint that reads the gradients of the outputs but not their values."""
        self.tape, self.rebuild = OpTape(), rebuild
        self.outputs = [wp.zeros(shape, dtype=dtype, device=self.device) for shape, dtype, _ in outputs]
        self.frame.frozen = {id(array) for array, (_, _, differentiable) in zip(self.outputs, outputs) if not differentiable}
        self._forward_cursor = 0

    def prepare_backward(self) -> None:
        """Give the outputs their gradients and list what is zeroed before each backward pass."""
        assert self.tape is not None
        if self.op.adjoint_body is not None:
            for output in self.outputs:
                give_gradient(self.op.name, output, self.frame)
        else:
            self._launches, self.tape.launches = self.tape.launches, _differentiable(self.op.name, self.tape.launches)
        for launch in self.tape.launches:
            if not callable(launch):
                for argument in [*launch[3], *launch[4]]:
                    self.tape.get_adjoint(argument)
        arrays = [*self.arrays, *self.outputs, *(made for _, made in self.frame.made), *self.tape.gradients]
        found = {}
        for array in arrays:
            grad = array.grad if isinstance(array, wp.array) else None
            while grad is not None and not grad.is_contiguous and grad._ref is not None:
                grad = grad._ref  # of a view: only whole arrays can be zeroed in a capture
            if grad is not None and grad.size:
                found[grad.ptr, grad.shape, grad.strides] = grad
        self._gradients = list(found.values())

    def zero_gradients(self) -> None:
        for gradient in self._gradients:
            gradient.zero_()

    def backward(self) -> None:
        """Add to the gradients of the arrays, from the gradients of the outputs."""
        assert self.tape is not None
        self.frame.cursor = self._forward_cursor
        with wp.ScopedDevice(self.device), _Entered(self.frame):
            if self.op.adjoint_body is None:
                self.tape.backward()
            else:
                inputs = SimpleNamespace(**{a.name: array for a, array in zip(self.op.signature.arguments, self.arrays)})
                self.op.adjoint_body(inputs, self.rebuild(self.outputs), SimpleNamespace(**self.frame.saved), self.options)


def give_gradient(name: str, output: wp.array, frame: Frame) -> None:
    """The gradient through which a hand-written adjoint receives what flows into an output."""
    if output.grad is None and is_float32(output.dtype) and id(output) not in frame.frozen:
        if not output.is_contiguous:
            raise UserError(
                f"{name}: returns a strided view without a gradient, expected a whole array because the op has a hand-written "
                "adjoint; remedy: scratch(..., requires_grad=True) for the array that is viewed"
            )
        output.requires_grad = True


def _differentiable(name: str, launches: list) -> list:
    """Launches without those of kernels declared enable_backward=False, which must not write to an array with a gradient."""
    kept = []
    for launch in launches:
        if not callable(launch):
            kernel = launch[0]
            enabled = kernel.options.get("enable_backward")
            if enabled is None:
                enabled = kernel.module.options.get("enable_backward")
            if enabled is False:
                if any(isinstance(array, wp.array) and array.grad is not None for array in launch[4]):
                    raise UserError(
                        f"{name}: kernel {kernel.key!r} is declared enable_backward=False, yet writes an array that carries a "
                        "gradient, which would silently be zero; remedy: scratch(..., requires_grad=False), or enable it"
                    )
                continue
        kept.append(launch)
    return kept


def run_inlined(op: Any, args: tuple, options: dict) -> Any:
    """An op called with Warp arrays inside the body of another: its body runs in the outer op's trace."""
    outer = current_frame()
    if outer is None:
        raise UserError(
            f"{op.name}: expected torch tensors, got Warp arrays outside the body of another op; remedy: wp.to_torch, "
            "or call it inside a @warp_op"
        )
    args, options = op.signature.bind(args, options)
    custom = op.adjoint_body is not None or not op.enable_backward
    if not (custom and outer.differentiates):
        return op.body(*args, **options)
    runtime = wp._src.context.runtime
    tape, runtime.tape = runtime.tape, None
    keep_launches = OpTape()
    before = outer.differentiates, outer.grad_by_default, outer.saved
    outer.differentiates, outer.grad_by_default, outer.saved = op.enable_backward, False, {}
    try:
        with keep_launches:
            returned = op.body(*args, **options)
        saved = outer.saved
    finally:
        runtime.tape = tape
        outer.differentiates, outer.grad_by_default, outer.saved = before
    outer.alive.append(keep_launches)
    if tape is None or not op.enable_backward:
        return returned
    outputs, _, _ = flatten(op.name, returned)
    for output in outputs:
        give_gradient(op.name, output, outer)
    inputs = SimpleNamespace()
    for argument, array in zip(op.signature.arguments, args):
        if argument.is_float and array.grad is None:  # the adjoint may add to every float input: give it a spare gradient
            spare = scratch(array.shape, array.dtype, requires_grad=False)
            array = wp.array(
                ptr=array.ptr, dtype=array.dtype, shape=array.shape, strides=array.strides, device=array.device, grad=spare
            )
        setattr(inputs, argument.name, array)
    named = SimpleNamespace(**saved)

    def backward() -> None:
        op.adjoint_body(inputs, returned, named, options)

    touched = [array for array in [*args, *outputs] if array.grad is not None and array.size]
    outer.runs_adjoints = True
    tape.record_func(backward, touched)
    return returned
