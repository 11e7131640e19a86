"""The bridge against an eager Warp tape on one rollout: time of forward + backward, overhead of a call, memory.

    python benchmarks/bridge.py

Pendulum, semi-implicit Euler, 64 worlds, one launch a substep. Both compute the gradient of the final angles in the length.
Prints a table; writes nothing.
"""

import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable

import torch
import warp as wp

from dvc.trace import start_warp
from dvc.warp_op import scratch, warp_op

WORLDS = 64
SUBSTEPS = 20  # a frame
DT = 5e-4
REPEATS = 9


@wp.kernel
def pendulum_kernel(
    angle: wp.array(dtype=float),
    rate: wp.array(dtype=float),
    length: wp.array(dtype=float),
    dt: float,
    next_angle: wp.array(dtype=float),
    next_rate: wp.array(dtype=float),
):
    world = wp.tid()
    r = rate[world] - dt * 9.81 / length[world] * wp.sin(angle[world])
    next_angle[world] = angle[world] + dt * r
    next_rate[world] = r


@warp_op
def frame(
    angle: wp.array(dtype=float), rate: wp.array(dtype=float), length: wp.array(dtype=float), *, dt: float, substeps: int
):
    for _ in range(substeps):
        next_angle, next_rate = scratch(angle.shape, float), scratch(angle.shape, float)
        wp.launch(pendulum_kernel, angle.shape, [angle, rate, length, dt], [next_angle, next_rate])
        angle, rate = next_angle, next_rate
    return angle, rate


def start() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.linspace(0.2, 1.2, WORLDS), torch.zeros(WORLDS), torch.linspace(0.5, 1.5, WORLDS)


def captured(substeps: int) -> tuple[float, float, torch.Tensor]:
    """Seconds forward, seconds backward, gradient, with one op call a frame."""
    angle, rate, length = start()
    length.requires_grad_()
    begin = time.perf_counter()
    for _ in range(substeps // SUBSTEPS):
        angle, rate = frame(angle, rate, length, dt=DT, substeps=SUBSTEPS)
    middle = time.perf_counter()
    angle.sum().backward()
    return middle - begin, time.perf_counter() - middle, length.grad


class TapeRollout:
    """The same rollout as launches on one tape; its arrays are allocated once, outside the measurement."""

    def __init__(self, substeps: int):
        angle, rate, length = (wp.from_torch(t) for t in start())
        self.length = wp.clone(length, requires_grad=True)
        self.angles = [wp.clone(angle, requires_grad=True)]
        self.rates = [wp.clone(rate, requires_grad=True)]
        for _ in range(substeps):
            self.angles.append(wp.zeros(WORLDS, requires_grad=True))
            self.rates.append(wp.zeros(WORLDS, requires_grad=True))

    def __call__(self) -> tuple[float, float, torch.Tensor]:
        tape = wp.Tape()
        begin = time.perf_counter()
        with tape:
            for (a, r), (b, s) in zip(zip(self.angles, self.rates), zip(self.angles[1:], self.rates[1:])):
                wp.launch(pendulum_kernel, WORLDS, [a, r, self.length, DT], [b, s])
        middle = time.perf_counter()
        self.angles[-1].grad.fill_(1.0)
        tape.backward()
        end = time.perf_counter()
        gradient = wp.to_torch(self.length.grad).clone()
        tape.zero()
        return middle - begin, end - middle, gradient


def medians(*rollouts: Callable[[], tuple[float, float, torch.Tensor]]) -> list[tuple[float, float, torch.Tensor]]:
    """Median times of each, run in turn so that a busy machine is busy for both."""
    for rollout in rollouts:
        rollout()
    runs = [[rollout() for rollout in rollouts] for _ in range(REPEATS)]
    return [
        (statistics.median(run[i][0] for run in runs), statistics.median(run[i][1] for run in runs), runs[0][i][2])
        for i in range(len(rollouts))
    ]


def call_overhead(calls: int = 3000) -> tuple[float, float, float]:
    """Microseconds of one call with three inputs of 64 numbers and one launch: no gradient, with gradient, backward."""
    angle, rate, length = start()
    result = []
    for needs in (False, True):
        length.requires_grad_(needs)
        frame(angle, rate, length, dt=DT, substeps=1)
        best = float("inf")
        for _ in range(5):
            begin = time.perf_counter()
            for _ in range(calls // 5):
                frame(angle, rate, length, dt=DT, substeps=1)
            best = min(best, (time.perf_counter() - begin) / (calls // 5))
        result.append(best * 1e6)
    best = float("inf")
    for _ in range(5):
        outputs = [frame(angle, rate, length, dt=DT, substeps=1)[0] for _ in range(calls // 5)]
        seed = torch.ones(WORLDS)
        begin = time.perf_counter()
        for output in outputs:
            torch.autograd.grad(output, length, seed)
        best = min(best, (time.perf_counter() - begin) / (calls // 5))
    return result[0], result[1], best * 1e6


def work_array_bytes(op: object) -> int:
    """Bytes of inputs, work arrays and their gradients over all traces of an op."""
    total = 0
    for calls in op._by_key.values():  # type: ignore[attr-defined]
        for trace in calls.traces:
            arrays = [*trace.run.arrays, *(made for _, made in trace.run.frame.made)]
            total += sum(a.capacity * (2 if a.grad is not None else 1) for a in arrays)
    return total


def memory(kind: str, substeps: int) -> None:
    """Run one rollout in this process and print what it needed (called in a process of its own)."""
    torch.set_num_threads(1)
    captured(SUBSTEPS)
    TapeRollout(1)()
    tracemalloc.start()
    saved = 0

    def count(tensor: torch.Tensor) -> torch.Tensor:
        nonlocal saved
        saved += tensor.numel() * tensor.element_size()
        return tensor

    if kind == "tape":
        rollout = TapeRollout(substeps)
        rollout()
        work = sum(2 * a.capacity for a in [*rollout.angles, *rollout.rates])
    else:
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            captured(substeps)
        work = work_array_bytes(frame)
    print(work, saved, tracemalloc.get_traced_memory()[1])


def main() -> None:
    start_warp()
    print(f"pendulum, {WORLDS} worlds, {SUBSTEPS} substeps a frame, one launch a substep; medians of {REPEATS} runs")
    print(
        f"{'substeps':>9} | {'tape: forward + backward':>26} | {'warp_op: forward + backward':>28} | ratio | gradient differs"
    )
    for substeps in (200, 2000):
        tape, op = medians(TapeRollout(substeps), lambda substeps=substeps: captured(substeps))
        ratio = (tape[0] + tape[1]) / (op[0] + op[1])
        difference = float((tape[2] - op[2]).abs().max() / tape[2].abs().max())
        print(
            f"{substeps:9d} | {tape[0] * 1e3:9.1f} + {tape[1] * 1e3:6.1f} ms       | {op[0] * 1e3:9.1f} + {op[1] * 1e3:6.1f} ms"
            f"         | {ratio:5.1f} | {difference:.1e}"
        )
    plain, differentiated, backward = call_overhead()
    print(
        f"\none call, 3 inputs: {plain:.0f} us without gradient, {differentiated:.0f} us with; its backward {backward:.0f} us"
    )

    print(
        "\nmemory [kB], one process each. `work`: states and gradients held by Warp; `saved`: inputs held by torch, which grow"
    )
    print("with frames (less with torch.utils.checkpoint over segments of frames); `python`: peak of Python objects.")
    print("Substeps a frame are held: the work arrays of an op grow with the substeps inside it.")
    print(
        f"{'substeps':>9} {'frames':>7} | {'tape: work':>10} {'python':>8} | {'warp_op: work':>13} {'saved':>8} {'python':>8}"
    )
    for substeps in (500, 2000, 8000):
        row = []
        for kind in ("tape", "warp_op"):
            command = [sys.executable, __file__, kind, str(substeps)]
            row.append(
                [int(n) / 1e3 for n in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()]
            )
        (tape_work, _, tape_python), (work, saved, python) = row
        print(
            f"{substeps:9d} {substeps // SUBSTEPS:7d} | {tape_work:10.0f} {tape_python:8.0f} | "
            f"{work:13.0f} {saved:8.0f} {python:8.0f}"
        )


if __name__ == "__main__":
    if len(sys.argv) == 3:
        start_warp()
        memory(sys.argv[1], int(sys.argv[2]))
    else:
        main()
