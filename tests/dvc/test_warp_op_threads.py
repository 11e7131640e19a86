"""Several threads, inside an op and around it, give the same numbers as one."""

import threading

import pytest
import torch
import warp as wp

import dvc.op_calls
import dvc.warp_op
from dvc.errors import UserError
from dvc.warp_op import scratch, warp_op
from tests.dvc.warp_op_examples import (
    accumulate_all_kernel,
    moments,
    moments_split,
    moments_twin,
    pendulum,
    pendulum_twin,
    square,
)


def leaves(worlds: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(worlds)
    points = torch.randn(worlds, 7, 3, generator=generator, requires_grad=True)
    weights = torch.randn(7, generator=generator, requires_grad=True)
    return points, weights, torch.rand(7, generator=generator) < 0.5


@pytest.mark.parametrize("worlds", [1, 2, 5])
def test_two_threads_equal_one(worlds):
    points, weights, flip = leaves(worlds)
    results = []
    for op in (moments, moments_split, moments_twin):
        totals = []
        for scale in (1.0, 2.0, 3.0):  # the first two are recomputed
            out = op(points * scale, weights, flip)
            totals.append(out if op is moments_twin else out.total)
        loss = sum((index + 1) * total.square().sum() for index, total in enumerate(totals))
        results.append((totals[0].detach(), *torch.autograd.grad(loss, (points, weights))))
    for one, two, twin in zip(*results):
        torch.testing.assert_close(two, one)
        torch.testing.assert_close(two, twin, rtol=1e-4, atol=1e-4)
    (calls,) = [c for c in moments_split._by_key.values() if c.worlds == worlds]
    assert len(calls.traces) == min(2, worlds)


def test_slices_are_added_in_a_fixed_order():
    points, weights, flip = leaves(5)
    runs = []
    for _ in range(5):
        total = moments_split(points, weights, flip).total
        runs.append(torch.cat([g.flatten() for g in torch.autograd.grad(total.sin().sum(), (points, weights))]))
    assert all(torch.equal(run, runs[0]) for run in runs)


def test_one_world_is_repeated_over_slices():
    op = warp_op(pendulum.body, threads=2)
    angle, rate = torch.randn(2, 5).requires_grad_().unbind()
    length = torch.tensor([0.7], requires_grad=True)
    seeds = torch.randn(2, 5).unbind()
    got = torch.autograd.grad(op(angle, rate, length, dt=0.05), (angle, length), seeds)
    expected = torch.autograd.grad(pendulum(angle, rate, length, dt=0.05), (angle, length), seeds)
    assert all(torch.equal(a, b) for a, b in zip(got, expected))


def test_default_number_of_threads(monkeypatch):
    op = warp_op(square.body, threads=None)
    for count in (1, 3):
        monkeypatch.setattr(dvc.warp_op, "default_threads", count)
        assert op(torch.tensor([1.0, 2.0, 3.0])).tolist() == [1.0, 4.0, 9.0]
    assert [len(calls.traces) for calls in op._by_key.values()] == [1, 3]
    with pytest.raises(UserError, match="expected threads=None or at least 1, got 0"):
        warp_op(square.body, threads=0)


def test_output_without_worlds_cannot_be_split():
    @warp_op(threads=2)
    def total(x: wp.array(dtype=float)):
        y = scratch(1, float)
        wp.launch(accumulate_all_kernel, x.shape, [x], [y])
        return y

    with pytest.raises(UserError, match="total: output has shape"):
        total(torch.ones(4))


def test_an_error_in_a_thread_arrives():
    jobs_run = []

    def fail() -> None:
        jobs_run.append("failed")
        raise ZeroDivisionError("in a thread")

    with pytest.raises(ZeroDivisionError):
        dvc.op_calls._run_together([fail, lambda: jobs_run.append("last")])
    assert sorted(jobs_run) == ["failed", "last"]


def test_one_op_in_many_python_threads():
    """Forward and backward of one op, tracing of others and eager ops at the same time."""
    eager = warp_op(square.body, capture=False)
    fresh = [warp_op(square.body) for _ in range(6)]
    errors = []

    def work(number: int) -> None:
        try:
            generator = torch.Generator().manual_seed(number)
            for round_number in range(25):
                angle, rate = torch.randn(2, 6, generator=generator)
                length = (torch.rand(6, generator=generator) + 0.5).requires_grad_()
                got, expected = (angle, rate), (angle, rate)
                for _ in range(3):
                    got = pendulum(*got, length, dt=0.02)
                    expected = pendulum_twin(*expected, length, 0.02)
                grads = [torch.autograd.grad(out[0].sum(), length)[0] for out in (got, expected)]
                torch.testing.assert_close(*grads, rtol=1e-3, atol=1e-5)
                x = torch.randn(3 + number, generator=generator, requires_grad=True)
                for op in (eager, fresh[(number + round_number) % 6]):
                    torch.testing.assert_close(torch.autograd.grad(op(x).sum(), x)[0], 2.0 * x.detach())
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]


def test_grad_mode_of_the_threads_is_their_own():
    x = torch.ones(4, requires_grad=True)
    split = warp_op(square.body, threads=2)
    y = split(x)
    (grad,) = torch.autograd.grad(y.sum(), x)
    assert y.requires_grad and not grad.requires_grad
    assert not any(view.requires_grad for calls in split._by_key.values() for t in calls.traces for view in t.output_views)
