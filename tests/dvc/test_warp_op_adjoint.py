"""Hand-written adjoints, ops inside ops, and ops that are not captured."""

import pytest
import torch
import warp as wp

from dvc.errors import UserError
from dvc.warp_op import save, scratch, warp_op
from tests.dvc.warp_op_examples import (
    eighth_power,
    fourth_power_by_hand,
    hand_square,
    moments_body,
    moments_twin,
    scale_kernel,
    square,
    square_adjoint_kernel,
    square_kernel,
)

X = torch.tensor([1.0, 2.0, 3.0])


def leaf() -> torch.Tensor:
    return X.clone().requires_grad_()


@pytest.mark.parametrize("factor", [2.0, 7.0])
def test_hand_written_adjoint_replaces_the_tape(factor):
    x = leaf()
    ys = [hand_square(x * frame, factor=factor) for frame in (1.0, 2.0)]  # the first is recomputed
    assert ys[1].tolist() == [4.0, 16.0, 36.0]
    (grad,) = torch.autograd.grad(ys[0].sum() + 10.0 * ys[1].sum(), x)
    torch.testing.assert_close(grad, factor * X + 40.0 * factor * X)


def test_hand_written_adjoint_of_two_backward_calls():
    x = leaf()
    y = hand_square(x)
    first = torch.autograd.grad(y.sum(), x, retain_graph=True)[0]
    assert torch.equal(first, torch.autograd.grad(y.sum(), x)[0])


def test_ops_inside_an_op_are_inlined():
    x = leaf()
    y = eighth_power(x)
    torch.testing.assert_close(y, X**8)
    torch.testing.assert_close(torch.autograd.grad(y.sum(), x)[0], 8.0 * X**7)
    (calls,) = eighth_power._by_key.values()
    assert len(calls.traces[0].run.frame.made) == 3


@pytest.mark.parametrize("factor", [2.0, 5.0])
def test_an_inlined_op_keeps_its_hand_written_adjoint(factor):
    x = leaf()
    for _ in range(2):
        y = fourth_power_by_hand(x, factor=factor)
        torch.testing.assert_close(y, X**4)
        for _ in range(2):
            (grad,) = torch.autograd.grad(y.sum(), x, retain_graph=True)
            torch.testing.assert_close(grad, 2.0 * X**2 * factor * X)


def two_squares(first: wp.array(dtype=float), second: wp.array(dtype=float)):
    outputs = scratch(first.shape, float), scratch(first.shape, float)
    for x, y in zip((first, second), outputs):
        wp.launch(square_kernel, x.shape, [x], [y])
    save(note="text", first=first)
    return outputs


@pytest.mark.parametrize("capture", [True, False])
def test_adjoint_of_a_tuple_with_an_input_that_needs_no_gradient(capture):
    op = warp_op(two_squares, capture=capture)

    @op.adjoint
    def _(inputs, outputs, saved):
        assert saved.note == "text" and saved.first is inputs.first
        for x, y in zip((inputs.first, inputs.second), outputs):
            wp.launch(square_adjoint_kernel, x.shape, [x, y.grad, 2.0], [x.grad])

    x = leaf()
    a, b = op(x, X)
    assert torch.autograd.grad((a + 3.0 * b).sum(), x)[0].tolist() == [2.0, 4.0, 6.0]
    x = leaf()
    b = op(x, x)[1]
    assert torch.autograd.grad(b.sum(), x)[0].tolist() == [2.0, 4.0, 6.0]


@pytest.mark.parametrize("capture", [True, False])
def test_adjoint_that_does_not_need_the_forward_pass_again(capture):
    runs = []

    @warp_op(capture=capture, verify=False)
    def counted(x: wp.array(dtype=float)):
        runs.append("forward")
        y = scratch(x.shape, float)
        wp.launch(square_kernel, x.shape, [x], [y])
        return y

    @counted.adjoint(recompute=False)
    def _(inputs, outputs):
        runs.append("adjoint")
        wp.launch(square_adjoint_kernel, inputs.x.shape, [inputs.x, outputs.grad, 2.0], [inputs.x.grad])

    x = leaf()
    first, _second = counted(x), counted(x * 2.0)
    runs.clear()
    assert torch.autograd.grad(first.sum(), x)[0].tolist() == [2.0, 4.0, 6.0]
    assert runs == ([] if capture else ["adjoint"])


def test_adjoint_receives_the_options_that_it_names():
    @warp_op
    def scaled(x: wp.array(dtype=float), *, factor: float, unused: str = "", power: int = 1):
        y = scratch(x.shape, float)
        wp.launch(scale_kernel, x.shape, [x, factor**power], [y])
        return y

    @scaled.adjoint
    def _(inputs, outputs, *, power, factor):
        wp.launch(scale_kernel, inputs.x.shape, [outputs.grad, factor**power], [inputs.x.grad])

    x = leaf()
    assert torch.autograd.grad(scaled(x, factor=2.0, power=3).sum(), x)[0].tolist() == [8.0, 8.0, 8.0]
    with pytest.raises(UserError, match=r"scaled\.adjoint: expected \(inputs, outputs"):
        scaled.adjoint(lambda inputs: None)


def test_eager_op_may_read_on_the_host():
    @warp_op(capture=False)
    def positives(x: wp.array(dtype=float)):
        count = int((x.numpy() > 0.0).sum())
        y = scratch(count, float)
        wp.launch(square_kernel, count, [x], [y])
        return y

    x = torch.tensor([1.0, 2.0, -3.0], requires_grad=True)
    first, second = positives(x), positives(x * torch.tensor([1.0, 2.0, -1.0]))
    assert first.tolist() == [1.0, 4.0] and second.tolist() == [1.0, 16.0, 9.0]
    (grad,) = torch.autograd.grad(first.sum() + second.sum(), x)
    assert grad.tolist() == [2.0 + 2.0, 4.0 + 16.0, -6.0]


def test_eager_op_equals_its_twin():
    eager = warp_op(moments_body, capture=False, shared=("weights", "flip"))
    points = torch.randn(3, 4, 3, requires_grad=True)
    weights = torch.randn(4, requires_grad=True)
    flip = torch.tensor([True, False, True, False])
    got, expected = eager(points, weights, flip), moments_twin(points, weights, flip)
    assert not got.count.requires_grad
    torch.testing.assert_close(got.total, expected)
    for a, b in zip(*(torch.autograd.grad(total.square().sum(), (points, weights)) for total in (got.total, expected))):
        torch.testing.assert_close(a, b)


def test_eager_op_repeats_one_world_and_notices_edits():
    @warp_op(capture=False)
    def product(x: wp.array(dtype=float), y: wp.array(dtype=float)):
        return square(x), square(y), x

    x, y = leaf(), torch.tensor([5.0], requires_grad=True)
    doubled = x * 2.0
    a, b, same = product(doubled, y)
    assert b.tolist() == [25.0] * 3 and same.data_ptr() != doubled.data_ptr()
    assert torch.autograd.grad((b + same).sum(), (x, y), retain_graph=True)[1].tolist() == [30.0]
    doubled += 1.0
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        a.sum().backward()


def test_an_input_or_a_view_may_be_returned():
    @warp_op
    def views(x: wp.array2d(dtype=float)):
        y = scratch(x.shape, float)
        wp.copy(y, x)
        return y, y[:, 1], x

    x = torch.randn(3, 2, requires_grad=True)
    for _ in range(2):
        y, column, same = views(x)
        assert torch.equal(y, x) and torch.equal(column, x[:, 1]) and torch.equal(same, x)
        (grad,) = torch.autograd.grad(y.sum() + 10.0 * column.sum() + 100.0 * same.sum(), x)
        assert grad.tolist() == [[101.0, 111.0]] * 3
