"""A traced op is the same function as its body, however often and in whatever order it is called and differentiated."""

import copy
import pickle

import pytest
import torch
import torch.utils.checkpoint

from dvc.errors import Unsupported
from tests.dvc import warp_op_examples as examples
from tests.dvc.warp_op_examples import Moments, moments, moments_twin, noise, pendulum, pendulum_twin, square

WORLDS = 6


def start(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    angle, rate = torch.randn(2, WORLDS, generator=generator)
    length = torch.rand(WORLDS, generator=generator) + 0.5
    return angle.requires_grad_(), rate.requires_grad_(), length.requires_grad_()


def gradients(step, frames: int) -> tuple[torch.Tensor, ...]:
    angle, rate, length = leaves = start()
    total = torch.zeros(())
    for frame in range(frames):
        angle, rate = step(angle, rate, length, dt=0.02)
        total = total + (angle * (frame + 1)).sum() + rate.square().sum()
    return total.detach(), *torch.autograd.grad(total, leaves)


@pytest.mark.parametrize("frames", [1, 2, 25])
def test_many_calls_before_one_backward(frames):
    for got, expected in zip(gradients(pendulum, frames), gradients(pendulum_twin, frames)):
        torch.testing.assert_close(got, expected, rtol=2e-4, atol=2e-4)


def test_segments_of_calls_under_torch_checkpoint():
    def segment(angle, rate, length, dt):
        for _ in range(5):
            angle, rate = pendulum(angle, rate, length, dt=dt)
        return angle, rate

    def step(*leaves, dt):
        return torch.utils.checkpoint.checkpoint(segment, *leaves, dt, use_reentrant=False)

    for got, expected in zip(gradients(step, 4), gradients(lambda *leaves, dt: segment(*leaves, dt), 4)):
        assert torch.equal(got, expected)


def test_outputs_are_not_the_shared_work_arrays():
    first = square(torch.tensor([1.0, 2.0]))
    second = square(torch.tensor([3.0, 4.0]))
    assert first.tolist() == [1.0, 4.0] and second.tolist() == [9.0, 16.0]


def test_backward_in_another_order_than_forward():
    xs = [torch.full((3,), float(value), requires_grad=True) for value in (1, 2, 3)]
    ys = [square(x) for x in xs]
    for index in (1, 0, 2):
        ys[index].sum().backward()
    assert [x.grad[0].item() for x in xs] == [2.0, 4.0, 6.0]


def test_named_tuple_integers_booleans_and_vectors():
    points = torch.randn(2, 5, 3, requires_grad=True)
    weights = torch.randn(5, requires_grad=True)
    flip = torch.tensor([True, False, True, False, False])
    result = moments(points, weights, flip)
    assert isinstance(result, Moments)
    assert result.count.dtype == torch.int32 and result.count.tolist() == [5, 5] and not result.count.requires_grad
    expected = moments_twin(points, weights, flip)
    torch.testing.assert_close(result.total, expected)
    seed = torch.randn(2, 3)
    for got, wanted in zip(
        torch.autograd.grad(result.total, (points, weights), seed), torch.autograd.grad(expected, (points, weights), seed)
    ):
        torch.testing.assert_close(got, wanted)


def test_seed_and_time_are_read_at_every_call():
    x, time = torch.ones(4, requires_grad=True), torch.zeros(4)
    first = noise(x, time, torch.full((4,), 1, dtype=torch.int32))
    other_seed = noise(x, time, torch.full((4,), 2, dtype=torch.int32))
    later = noise(x, time + 1.0, torch.full((4,), 1, dtype=torch.int32))
    assert not torch.equal(first, other_seed)
    torch.testing.assert_close(later, first + 1.0)
    # x is 1, hence the gradient in x is the factor itself: backward repeats the seed and the time of its own call
    torch.testing.assert_close(torch.autograd.grad(first.sum(), x)[0], first.detach())
    torch.testing.assert_close(torch.autograd.grad(later.sum(), x)[0], later.detach())


def test_input_edited_in_place_is_noticed():
    x = torch.ones(3, requires_grad=True)
    y = x * 2.0
    z = square(y)
    y += 1.0
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        z.sum().backward()


def test_retain_graph_and_two_backward_calls():
    x = torch.tensor([3.0, 5.0], requires_grad=True)
    y = square(x)
    once = torch.autograd.grad(y.sum(), x, retain_graph=True)[0]
    square(torch.tensor([1.0, 1.0], requires_grad=True))  # takes the work arrays over
    twice = torch.autograd.grad(y.sum(), x, retain_graph=True)[0]
    thrice = torch.autograd.grad(y.sum(), x)[0]
    assert once.tolist() == twice.tolist() == thrice.tolist() == [6.0, 10.0]
    with pytest.raises(RuntimeError, match="second time"):
        y.sum().backward()


@pytest.mark.parametrize("kind", ["stride 0", "transposed", "absent"])
def test_incoming_gradients_of_every_layout(kind):
    angle, rate, length = start(1)
    got = pendulum(angle, rate, length, dt=0.1)
    expected = pendulum_twin(angle, rate, length, 0.1)
    if kind == "stride 0":
        seeds = (torch.ones(()).expand(WORLDS), torch.full((1,), 2.0).expand(WORLDS))
    elif kind == "transposed":
        seeds = tuple(torch.randn(WORLDS, 2).T)
        assert not seeds[0].is_contiguous()
    else:
        got, expected, seeds = got[1:], expected[1:], (torch.randn(WORLDS),)
    leaves = (angle, rate, length)
    for a, b in zip(torch.autograd.grad(got, leaves, seeds), torch.autograd.grad(expected, leaves, seeds)):
        torch.testing.assert_close(a, b)


def test_non_contiguous_input():
    x = torch.randn(2, 8)[0, ::2].requires_grad_()
    assert not x.is_contiguous()
    (grad,) = torch.autograd.grad(square(x).sum(), x)
    torch.testing.assert_close(grad, 2.0 * x.detach())


def test_one_world_is_repeated_and_its_gradient_summed():
    angle, rate, _ = start(2)
    length = torch.tensor([0.8], requires_grad=True)
    seeds = torch.randn(2, WORLDS).unbind()
    got = torch.autograd.grad(pendulum(angle, rate, length, dt=0.1), (angle, length), seeds)
    wanted = torch.autograd.grad(pendulum_twin(angle, rate, length, 0.1), (angle, length), seeds)
    assert got[1].shape == (1,)
    for a, b in zip(got, wanted):
        torch.testing.assert_close(a, b)
    again = torch.autograd.grad(pendulum(angle, rate, length, dt=0.1), (angle, length), seeds)
    assert all(torch.equal(a, b) for a, b in zip(got, again)), "a repeated run differs in its last bits"


def test_without_gradients_nothing_is_saved():
    x = torch.ones(7, requires_grad=True)
    with torch.no_grad():
        y = square(x)
    assert y.grad_fn is None and not y.requires_grad
    assert square(torch.ones(7)).grad_fn is None
    (calls,) = [calls for calls in square._by_key.values() if calls.output_shapes == [(7,)]]
    assert calls.traces[0].input_gradients == [None]
    assert calls.traces[0].run.arrays[0].grad is None


def test_traced_in_inference_mode_and_used_outside():
    with torch.inference_mode():
        assert square(torch.full((19,), 2.0)).sum() == 4.0 * 19
    assert square(torch.full((19,), 3.0)).sum() == 9.0 * 19


def test_gradient_only_where_asked():
    angle, rate, length = start(3)
    out = pendulum(angle.detach(), rate.detach(), length, dt=0.1)[0]
    out.sum().backward()
    assert length.grad is not None and angle.grad is None


def test_a_call_saves_its_inputs_only():
    saved = []
    angle, rate, length = start(4)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t.numel()) or t, lambda t: t):
        pendulum(angle, rate, length, dt=0.01, substeps=50)
    assert saved == [WORLDS] * 3


def test_query_has_no_gradient_and_rebuilds_its_tree():
    points = torch.tensor([[0.0, 0.0, 0.0], [0.3, 0.0, 0.0], [5.0, 0.0, 0.0]], requires_grad=True)
    assert examples.overlaps(points).tolist() == [2, 2, 1]
    near = points.detach() * 0.01
    assert examples.overlaps(near).tolist() == [3, 3, 3]
    assert examples.overlaps(points).grad_fn is None


def test_a_double_precision_array_inside_carries_the_gradient():
    x = torch.tensor([0.5, -2.0, 3.0], requires_grad=True)
    y = examples.square_in_double(x)
    y.sum().backward()
    torch.testing.assert_close(y.detach(), x.detach() ** 2 + 1.0)
    torch.testing.assert_close(x.grad, 2.0 * x.detach())


def test_a_double_precision_output_is_refused():
    with pytest.raises(Unsupported, match=r"double_output: output is .*float64, expected float32"):
        examples.double_output(torch.ones(3, requires_grad=True))


def test_double_backward_is_refused_with_a_reason():
    x = torch.ones(3, requires_grad=True)
    (grad,) = torch.autograd.grad(square(x).sum(), x, create_graph=True)
    assert grad.tolist() == [2.0, 2.0, 2.0]
    with pytest.raises(Unsupported, match="square: second derivatives"):
        grad.sum().backward()


def test_torch_func_and_forward_mode_are_refused_with_a_reason():
    with pytest.raises(Unsupported, match=r"square: torch\.func"):
        torch.func.grad(lambda x: square(x).sum())(torch.ones(3))
    with pytest.raises(Unsupported, match=r"square: torch\.func"):
        torch.func.vmap(square)(torch.ones(2, 3))
    with torch.autograd.forward_ad.dual_level(), pytest.raises(Unsupported, match="square: forward-mode"):
        square(torch.autograd.forward_ad.make_dual(torch.ones(3, requires_grad=True), torch.ones(3)))


def test_no_world_at_all():
    x = torch.zeros(0, requires_grad=True)
    y = square(x)
    y.sum().backward()
    assert y.shape == (0,) and x.grad.shape == (0,)


def test_an_op_can_be_copied_and_pickled():
    assert copy.deepcopy(pendulum) is pendulum
    assert pickle.loads(pickle.dumps(pendulum)) is pendulum
    assert pendulum.__name__ == "pendulum" and repr(pendulum) == "<warp_op pendulum>"


def test_arguments_by_name_and_defaults():
    angle, rate, length = start(5)
    by_name = pendulum(length=length, angle=angle, rate=rate, dt=0.1)[0]
    assert torch.equal(by_name, pendulum(angle, rate, length, substeps=5, dt=0.1)[0])
    assert not torch.equal(by_name, pendulum(angle, rate, length, substeps=6, dt=0.1)[0])


def test_torch_compile_leaves_the_op_alone():
    angle, rate, length = start(6)

    def step(a, b, c):
        return pendulum(a * 1.0, b, c, dt=0.1)[0] * 2.0

    expected = step(angle, rate, length)
    compiled = torch.compile(step, backend="eager")(angle, rate, length)
    assert torch.equal(compiled, expected)
    (grad,) = torch.autograd.grad(compiled.sum(), length)
    torch.testing.assert_close(grad, torch.autograd.grad(expected.sum(), length)[0])


@pytest.mark.gpu
def test_follows_the_current_stream():
    if not torch.cuda.is_available():
        pytest.skip("torch finds no CUDA device")
    x = torch.arange(1000.0, device="cuda", requires_grad=True)
    expected = x.detach() ** 2
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        y = square(x)
        (grad,) = torch.autograd.grad(y.sum(), x)
    torch.cuda.current_stream().wait_stream(side)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(square(x), expected)
    torch.testing.assert_close(grad, 2.0 * x.detach())
