"""Is the replay of a trace the same function as its body?

After tracing, forward and backward are replayed on a second, perturbed input and compared with an eager run of the body on
fresh arrays under a plain tape. What a trace froze (a Python random number, a value read on the host, a torch or NumPy call
in the body, which a capture does not record) differs between the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dvc.errors import TraceMismatch
from dvc.op_body import Run
from dvc.trace import CapacityExceeded, Trace, input_arrays, on_stream, view

PERTURBATION = 1e-3  # relative
TOLERANCE = 1e-5  # of the largest value; a CPU replay repeats the eager run exactly
CUDA_TOLERANCE = 1e-2  # most that is granted to the order of atomics, measured as the spread of two eager runs


def perturbed(op: Any, tensors: Sequence[Tensor], shapes: Sequence[Sequence[int]]) -> list[Tensor]:
    """Inputs with every float moved a little, seeds moved by one and other integers and booleans as they are."""
    generator = torch.Generator().manual_seed(0)
    result = []
    for argument, tensor, shape in zip(op.signature.arguments, tensors, shapes):
        value = tensor.detach().expand(tuple(shape)).clone()
        if argument.seed:
            value += 1
        elif argument.is_float and value.numel():
            step = (torch.rand(value.shape, generator=generator) * 0.5 + 0.5).to(value.device)
            size = value.abs()
            largest = float(size[size.isfinite()].max()) if bool(size.isfinite().any()) else 0.0
            size = torch.where(size == 0.0, largest or 1.0, size)
            value += PERTURBATION * step * size
        result.append(value)
    return result


def eager(
    op: Any, tensors: Sequence[Tensor], options: dict, needs: Sequence[bool], device: Any, gradients: Any
) -> tuple[list, list]:
    """Outputs and input gradients of the body on fresh arrays, nothing captured."""
    arrays = input_arrays(op, [tensor.shape for tensor in tensors], device, needs, tensors)
    run = Run(op, arrays, options, device, any(needs))
    run.forward()
    outputs = [view(output).clone() for output in run.outputs]
    if not any(needs):
        return outputs, [None] * len(arrays)
    run.prepare_backward()
    for output, gradient in zip(run.outputs, gradients):
        if output.grad is not None and gradient is not None and output.size:
            view(output.grad).add_(gradient)
    run.backward()
    return outputs, [view(array.grad).clone() if needed else None for array, needed in zip(arrays, needs)]


def check_trace(
    op: Any, trace: Trace, tensors: Sequence[Tensor], shapes: Sequence[Sequence[int]], options: dict, perturb: bool = True
) -> None:
    """Raise TraceMismatch where the replay differs from an eager run; the caller holds the process lock."""
    with torch.no_grad(), on_stream(trace.stream):
        values = perturbed(op, tensors, shapes) if perturb else [t.detach().expand(tuple(s)) for t, s in zip(tensors, shapes)]
        generator = torch.Generator().manual_seed(1)
        gradients = [
            torch.randn(output.shape, generator=generator).to(output.device) if differentiable else None
            for output, differentiable in zip(trace.output_views, trace.differentiable)
        ]
        if perturb and trace.run.frame.capacities:
            try:
                trace.forward(values)
            except CapacityExceeded:  # other data may need more room: these very inputs, then
                values = [t.detach().expand(tuple(s)) for t, s in zip(tensors, shapes)]
        wanted = eager(op, values, options, trace.needs, trace.device, gradients)
        again = eager(op, values, options, trace.needs, trace.device, gradients) if trace.device.is_cuda else wanted
        trace.forward(values)
        outputs = [output.clone() for output in trace.output_views]
        inputs: list[Tensor | None] = [None] * len(values)
        if any(trace.needs):
            trace.backward(values, gradients)
            inputs = [None if gradient is None else gradient.clone() for gradient in trace.input_gradients]
    for name, got, expected, repeat in zip(trace.run.output_names, outputs, wanted[0], again[0]):
        _compare(op.name, name, got, expected, repeat)
    for argument, gradient, expected, repeat in zip(op.signature.arguments, inputs, wanted[1], again[1]):
        if gradient is not None:
            _compare(op.name, f"the gradient of {argument.name!r}", gradient, expected, repeat)


def _compare(op: str, name: str, got: Tensor, expected: Tensor, repeat: Tensor) -> None:
    if got.shape != expected.shape:
        found = f"shape {tuple(got.shape)} in place of {tuple(expected.shape)}"
    else:
        same = (got == expected) | ((got != got) & (expected != expected))
        if bool(same.all()):
            return
        if not got.dtype.is_floating_point:
            found = f"{int((~same).sum())} of {same.numel()} values"
        else:
            size = expected[expected.isfinite()].abs()
            largest = float(size.max()) if size.numel() else 0.0
            spread = (repeat - expected).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0).abs()
            tolerance = TOLERANCE * largest + min(4.0 * float(spread.max()), CUDA_TOLERANCE * largest)
            difference = (got - expected).abs()
            if bool((same | (difference <= tolerance)).all()):
                return
            found = f"up to {float(difference[~same].max()):.3g} where the largest value is {largest:.3g}"
    raise TraceMismatch(
        f"{op}: {name} differs between the traced op and an eager run of its body ({found}): the body depends on something "
        "that is neither an input nor a static option (a Python random number or clock, a value read on the host, a torch or "
        "NumPy call); remedy: make it an array input, or @warp_op(capture=False)"
    )
