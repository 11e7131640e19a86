"""An error names the op and the argument, what was expected, what came, and the remedy."""

import numpy as np
import pytest
import torch
import warp as wp

from dvc.errors import UserError
from dvc.warp_op import keep, require_capacity, save, scratch, warp_op
from tests.dvc.warp_op_examples import moments, noise, pendulum, square

X = torch.ones(3)
POINTS, WEIGHTS, FLIP = torch.ones(2, 4, 3), torch.ones(4), torch.zeros(4, dtype=torch.bool)
CALLS = {
    "float64": (
        lambda: square(X.double()),
        r"square\.x: expected dtype torch\.float32, got torch\.float64; remedy: x\.float\(\)",
    ),
    "int64": (
        lambda: noise(X, X, torch.ones(3, dtype=torch.int64)),
        r"noise\.seed: expected dtype torch\.int32, got torch\.int64.*\.int\(\)",
    ),
    "bool": (lambda: moments(POINTS, WEIGHTS, FLIP.float()), r"moments\.flip: expected dtype torch\.bool"),
    "python float": (
        lambda: pendulum(X, X, 0.5, dt=0.1),
        r"pendulum\.length: expected a tensor of 1 axes, got float 0\.5; remedy: torch\.tensor",
    ),
    "python float first": (lambda: square(0.5), r"square\.x: expected a tensor"),
    "numpy": (lambda: square(np.ones(3, np.float32)), r"square\.x: expected a tensor of 1 axes, got ndarray"),
    "rank": (lambda: square(torch.ones(3, 2)), r"square\.x: expected shape \(world,\) .*, got \(3, 2\)"),
    "element": (
        lambda: moments(torch.ones(2, 4, 2), WEIGHTS, FLIP),
        r"moments\.points: expected shape \(world, n1, 3\) .*vec3.*\(2, 4, 2\)",
    ),
    "worlds": (
        lambda: pendulum(X, X, torch.ones(2), dt=0.1),
        r"pendulum: angle has shape \(3,\) and length has shape \(2,\): .*got 3 and 2; remedy: expand",
    ),
    "missing tensor": (lambda: pendulum(X, X, dt=0.1), r"pendulum: missing a required argument: 'length'"),
    "missing option": (lambda: pendulum(X, X, X), r"pendulum: missing static option 'dt'; expected pendulum\(angle, rate"),
    "unknown option": (lambda: pendulum(X, X, X, dt=0.1, steps=3), r"pendulum: got an unexpected keyword argument 'steps'"),
    "tensor option": (lambda: pendulum(X, X, X, dt=torch.tensor(0.1)), r"pendulum\.dt: a static option .*got Tensor"),
    "list option": (
        lambda: pendulum(X, X, X, dt=[0.1]),
        r"pendulum\.dt: expected a hashable static option, got list; remedy: pass a tuple",
    ),
    "meta device": (lambda: square(X.to("meta")), r"square\.x: expected a dense tensor on cpu or cuda"),
    "sparse": (lambda: square(torch.ones(17).to_sparse()), r"square\.x: expected a dense tensor"),
    "warp array": (lambda: square(wp.ones(3)), r"square: expected torch tensors, got Warp arrays outside"),
    "scratch outside": (lambda: scratch(3, float), r"scratch: expected a call inside the body"),
    "save outside": (lambda: save(x=1), r"save: expected a call inside"),
    "keep outside": (lambda: keep(lambda: 1), r"keep: expected a call inside"),
}  # fmt: skip


@pytest.mark.parametrize("case", CALLS)
def test_wrong_call(case):
    call, message = CALLS[case]
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def without_annotation(x):
    return x


def half(x: wp.array(dtype=wp.float64)):
    return x


def no_argument(*, dt: float):
    return None


def variadic(*xs: wp.array(dtype=float)):
    return None


def returns_number(x: wp.array(dtype=float)):
    return 1.0


DECLARATIONS = {
    "without annotation": (
        lambda: warp_op(without_annotation),
        r"without_annotation\.x: expected an annotation such as wp\.array2d",
    ),
    "float64": (lambda: warp_op(half), r"half\.x: expected float32"),
    "no argument": (lambda: warp_op(no_argument), r"no_argument: expected at least one positional"),
    "variadic": (lambda: warp_op(variadic), r"variadic\.xs: expected named arguments"),
    "shared": (lambda: warp_op(square.body, shared=("y",)), r"square: shared names \['y'\], expected some of \['x'\]"),
    "string": (lambda: warp_op(square.body, shared="x"), r"warp_op\.shared: expected a tuple of argument names"),
    "float seed": (lambda: warp_op(square.body, seeds=("x",)), r"square\.x: a seed is an integer array"),
    "return": (lambda: warp_op(returns_number)(X), r"returns_number: expected the body to return a Warp array.*got float"),
}  # fmt: skip


@pytest.mark.parametrize("case", DECLARATIONS)
def test_wrong_declaration(case):
    declare, message = DECLARATIONS[case]
    with pytest.raises(UserError, match=message):
        declare()


def test_annotations_as_strings_and_in_every_spelling():
    def spelled(
        a: "wp.array(dtype=float)",
        b: "wp.array2d[wp.vec3]",
        c: wp.array(dtype=wp.mat33, ndim=3),
        d: wp.array3d(dtype=int),
        e: wp.array[wp.quat],
    ):
        return a

    arguments = warp_op(spelled).signature.arguments
    assert [(a.rank, a.element_shape, a.torch_dtype) for a in arguments] == [
        (1, (), torch.float32),
        (2, (3,), torch.float32),
        (3, (3, 3), torch.float32),
        (3, (), torch.int32),
        (1, (4,), torch.float32),
    ]


@wp.kernel(enable_backward=False)
def find_positive(x: wp.array2d(dtype=float), count: wp.array(dtype=int), place: wp.array2d(dtype=int)):
    w = wp.tid()
    for i in range(x.shape[1]):
        place[w, i] = -1
        if x[w, i] > 0.0:
            place[w, i] = wp.atomic_add(count, w, 1)


@wp.kernel
def less_one(x: wp.array2d(dtype=float), difference: wp.array2d(dtype=float)):
    w, i = wp.tid()
    difference[w, i] = x[w, i] - 1.0


@wp.kernel
def keep_found(x: wp.array2d(dtype=float), place: wp.array2d(dtype=int), kept: wp.array2d(dtype=float)):
    w, i = wp.tid()
    if place[w, i] >= 0 and place[w, i] < kept.shape[1]:
        kept[w, place[w, i]] = x[w, i]


@pytest.mark.parametrize(("capture", "threads"), [(True, 1), (True, 2), (False, 1)])
def test_more_items_than_the_capacity_raise(capture, threads):
    @warp_op(capture=capture, threads=threads)
    def positive(x: wp.array2d(dtype=float), *, capacity: int):
        count = scratch((x.shape[0],), wp.int32)
        place = scratch(x.shape, wp.int32)
        kept = scratch((x.shape[0], capacity), wp.float32)
        require_capacity(count, capacity, "positive numbers")
        wp.launch(find_positive, x.shape[0], [x], [count, place])
        wp.launch(keep_found, x.shape, [x, place], [kept])
        return kept

    x = torch.tensor([[1.0, -1.0, 2.0, -1.0], [-1.0, -1.0, -1.0, 3.0]], requires_grad=True)
    kept = positive(x, capacity=2)
    assert kept.tolist() == [[1.0, 2.0], [3.0, 0.0]]
    kept.sum().backward()
    assert x.grad.tolist() == [[1.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]]
    with pytest.raises(UserError, match="positive: expected at most 2 positive numbers, got 4; remedy: a larger capacity"):
        positive(x.detach().abs(), capacity=2)
    assert positive(x, capacity=2).tolist() == [[1.0, 2.0], [3.0, 0.0]]  # it is sound afterwards
    with pytest.raises(UserError, match="expected at most 1 positive numbers, got 2"):
        positive(x, capacity=1)


def test_the_check_on_trace_may_need_more_room_than_the_call():
    """It moves every number upwards, past the bound of 1 here; the call itself counts none."""

    @warp_op
    def above_one(x: wp.array2d(dtype=float)):
        count = scratch((x.shape[0],), wp.int32)
        place = scratch(x.shape, wp.int32)
        beyond = scratch(x.shape, wp.float32)
        require_capacity(count, 1, "numbers above one")
        wp.launch(less_one, x.shape, [x], [beyond])
        wp.launch(find_positive, x.shape[0], [beyond], [count, place])
        return beyond

    x = torch.ones(1, 4)
    assert above_one(x).tolist() == [[0.0] * 4]
    with pytest.raises(UserError, match="expected at most 1 numbers above one, got 4"):
        above_one(x + 0.5)


@pytest.mark.gpu
def test_devices_must_agree():
    with pytest.raises(UserError, match=r"pendulum\.rate: is on cuda:0, angle on cpu"):
        pendulum(X, X.cuda(), X, dt=0.1)
