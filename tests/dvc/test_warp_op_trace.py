"""What a trace would silently get wrong is found when it is made, and a failure leaves the bridge usable."""

import itertools
import random
import warnings

import numpy as np
import pytest
import torch
import warp as wp

import dvc.warp_op
from dvc.errors import TraceMismatch, UserError
from dvc.warp_op import keep, scratch, warp_op
from tests.dvc.warp_op_examples import noise_kernel, pendulum, scale_kernel, sign_kernel, square, square_kernel

X = torch.tensor([1.0, 2.0, 3.0])


def scaled(factor):
    """An op whose body multiplies by what `factor(x)` says on the host."""

    def scale(x: wp.array(dtype=float)):
        y = scratch(x.shape, float)
        wp.launch(scale_kernel, x.shape, [x, factor(x)], [y])
        return y

    return scale


def host_read(x: wp.array) -> float:
    return float(x.numpy()[0])


def random_number(x: wp.array) -> float:
    return random.random()


@pytest.mark.parametrize("factor", [host_read, random_number])
def test_value_frozen_by_the_capture_is_caught(factor):
    with pytest.raises(TraceMismatch, match="scale: output differs"):
        warp_op(scaled(factor))(X)
    assert warp_op(scaled(lambda x: 2.0))(X).tolist() == [2.0, 4.0, 6.0]


def test_what_is_frozen_in_the_backward_pass_only_is_caught():
    @warp_op
    def hand(x: wp.array(dtype=float)):
        y = scratch(x.shape, float)
        wp.launch(scale_kernel, x.shape, [x, 2.0], [y])
        return y

    @hand.adjoint
    def _(inputs, outputs):
        wp.launch(scale_kernel, X.shape, [outputs.grad, random.random()], [inputs.x.grad])

    with pytest.raises(TraceMismatch, match="hand: the gradient of 'x' differs"):
        hand(X.clone().requires_grad_())


def test_torch_call_in_the_body_is_caught():
    @warp_op
    def doubled(x: wp.array(dtype=float)):
        y = scratch(x.shape, float)
        wp.launch(square_kernel, x.shape, [x], [y])
        wp.to_torch(y).mul_(2.0)
        return y

    with pytest.raises(TraceMismatch, match="doubled"):
        doubled(X)


def test_frozen_seed_is_caught_where_it_is_named():
    def noisy(x: wp.array(dtype=float), time: wp.array(dtype=float), seed: wp.array(dtype=int)):
        y, frozen = scratch(x.shape, float), scratch(x.shape, int)
        frozen.fill_(int(seed.numpy()[0]))
        wp.launch(noise_kernel, x.shape, [x, time, frozen], [y])
        return y

    with pytest.raises(TraceMismatch, match="noisy"):
        warp_op(noisy, seeds=("seed",))(X, X, torch.ones(3, dtype=torch.int32))


def test_host_data_in_the_body_is_an_error_unless_kept():
    def shifted(x: wp.array(dtype=float), *, kept: bool):
        y = scratch(x.shape, float)
        values = np.array([1.0, 10.0, 100.0], np.float32)
        other = keep(lambda: wp.array(values)) if kept else wp.array(values)
        wp.launch(accumulate_kernel, x.shape, [other], [y])
        wp.launch(accumulate_kernel, x.shape, [x], [y])
        return y

    op = warp_op(shifted)
    with pytest.raises(UserError, match="shifted: makes an array of host data"):
        op(X, kept=False)
    assert op(X, kept=True).tolist() == [2.0, 12.0, 103.0]


def test_stale_work_array_is_caught():
    @warp_op
    def accumulated(x: wp.array(dtype=float)):
        y = scratch(x.shape, float, zero=False)
        wp.launch(accumulate_kernel, x.shape, [x], [y])
        return y

    with pytest.raises(TraceMismatch, match="accumulated"):
        accumulated(X)


@wp.kernel
def accumulate_kernel(x: wp.array(dtype=float), y: wp.array(dtype=float)):
    world = wp.tid()
    wp.atomic_add(y, world, x[world])


def test_not_a_number_equals_itself():
    assert torch.equal(square(torch.tensor([float("nan"), 2.0])).isnan(), torch.tensor([True, False]))
    assert square(torch.tensor([float("inf"), float("nan"), 2.0, 1e30])).tolist()[0] == float("inf")


def test_debug_switch_checks_every_call(monkeypatch):
    factors = iter([2.0] * 4 + [3.0] * 4)
    op = warp_op(scaled(lambda x: next(factors)))
    x = X.clone()
    op(x)  # warm-up, capture and check take three
    monkeypatch.setattr(dvc.warp_op, "debug_verify", True)
    op(x)
    with pytest.raises(TraceMismatch):
        op(x)


def test_exception_while_tracing_leaves_the_bridge_usable():
    runs = itertools.count()

    def failing(x: wp.array(dtype=float), *, at: int):
        y = scratch(x.shape, float)
        wp.launch(square_kernel, x.shape, [x], [y])
        if next(runs) == at:
            raise ZeroDivisionError("in the body")
        return y

    op = warp_op(failing)
    for at in (0, 1):  # in the first run, and inside the capture
        runs = itertools.count()
        with pytest.raises(ZeroDivisionError):
            op(X, at=at)
        assert wp._src.context.runtime.tape is None and not wp.get_device("cpu").is_capturing
        assert op.trace_count == 0
    assert op(X, at=100).tolist() == [1.0, 4.0, 9.0]
    assert square(torch.ones(11)).sum() == 11.0


def test_changing_scratch_calls_are_an_error():
    sizes = itertools.count(3)

    @warp_op
    def growing(x: wp.array(dtype=float)):
        y = scratch(next(sizes), float)
        wp.launch(square_kernel, x.shape, [x], [y])
        return y

    with pytest.raises(UserError, match="growing: the body asked for"):
        growing(X)


def test_active_tape_or_capture_is_an_error():
    square(X)
    with wp.Tape(), pytest.raises(UserError, match=r"square: called while a wp\.Tape is active"):
        square(X)
    with wp.Tape(), pytest.raises(UserError, match="Tape"):
        square(torch.ones(13))
    with wp.ScopedCapture(device="cpu"), pytest.raises(UserError, match="square: called while a graph capture is active"):
        square(X)
    assert square(X).tolist() == [1.0, 4.0, 9.0]


def test_torch_tensors_inside_a_body_are_an_error():
    @warp_op
    def nested(x: wp.array(dtype=float)):
        return square(X)

    with pytest.raises(UserError, match="square: called with torch tensors inside the body"):
        nested(X)


def test_kernel_without_backward_may_not_write_what_carries_a_gradient():
    def signs(x: wp.array(dtype=float), *, cut: bool):
        y = scratch(x.shape, float, requires_grad=False if cut else None)
        wp.launch(sign_kernel, x.shape, [x], [y])
        return y

    op = warp_op(signs)
    x = X.clone().requires_grad_()
    with pytest.raises(UserError, match="signs: kernel 'sign_kernel' is declared enable_backward=False"):
        op(x, cut=False)
    assert op(X, cut=False).tolist() == [1.0, 1.0, 1.0]
    assert not op(x, cut=True).requires_grad


def test_static_options_of_equal_value_and_other_type_are_told_apart():
    seen = []

    @warp_op
    def typed(x: wp.array(dtype=float), *, option):
        seen.append(type(option if not isinstance(option, tuple) else option[0]))
        return square(x)

    for option in (1, 1.0, True, (1,), (1.0,)):
        typed(X, option=option)
        typed(X, option=option)
    assert typed.trace_count == 5 and set(seen) == {int, float, bool}


def test_traces_are_few_and_many_retraces_warn():
    op = warp_op(scaled(lambda x: 2.0), trace_limit=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for size in (1, 2, 1, 3, 1, 4, 1, 5, 1):  # one of size 1 is used all along and stays
            op(torch.ones(size))
    assert op.trace_count == 5 and len(op._by_key) == 3 and len(op._by_raw_key) == 3
    with pytest.warns(
        UserWarning, match=r"scale: traced 6 times, 3 are kept; what changes between calls: x\.shape \(\(1,\), \(2,\)"
    ):
        op(torch.ones(6))


def test_backward_after_its_trace_was_dropped():
    op = warp_op(scaled(lambda x: 2.0), trace_limit=1)
    x = torch.ones(2, requires_grad=True)
    y = op(x)
    with pytest.warns(UserWarning):
        op(torch.ones(3))
    assert torch.autograd.grad(y.sum(), x)[0].tolist() == [2.0, 2.0]


@pytest.mark.slow
def test_compilation_is_announced_once(monkeypatch, tmp_path):
    lines = []
    monkeypatch.setattr(dvc.warp_op, "on_compile", lines.append)

    @wp.kernel(module="unique")
    def fresh_kernel(x: wp.array(dtype=float), y: wp.array(dtype=float)):
        y[wp.tid()] = x[wp.tid()] + 1.0

    @warp_op
    def fresh(x: wp.array(dtype=float)):
        y = scratch(x.shape, float)
        wp.launch(fresh_kernel, x.shape, [x], [y])
        return y

    cache = wp.config.kernel_cache_dir
    wp.config.kernel_cache_dir = str(tmp_path)
    try:
        fresh(X)
        fresh(torch.ones(4))
    finally:
        wp.config.kernel_cache_dir = cache
    assert len(lines) == 1 and lines[0].startswith("fresh: compiling kernels of")


def test_work_arrays_do_not_grow_with_calls():
    angle = torch.zeros(4, requires_grad=True)
    length = torch.ones(4)
    for _ in range(3):
        pendulum(angle, angle, length, dt=0.01)
    (calls,) = [c for c in pendulum._by_key.values() if c.output_shapes[0] == (4,)]
    assert len(calls.traces) == 1 and len(calls.traces[0].run.frame.made) == 2 * 5
