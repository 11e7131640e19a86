"""The gradient of 2 parameters over 1 s to 60 s by reverse mode and by forward sensitivities: time, memory, agreement.

    python benchmarks/long_horizon.py [--links 1 5] [--seconds 1 5 20 60]

Chains of links of 0.1 m and 1 kg on parallel axes, let go at 0.3 rad a joint, viscous joints of 0.05 N m s/rad, steps of
2 ms, 100 frames/s; residuals: all joint angles at all frames, less those of other parameters. The parameters are the scale of
all masses and the joints' damping, or the first alone. After a call that traces, each way is called twice: the least time and
the largest memory. Memory is the growth of the peak of resident memory over the call (Linux; "-" elsewhere). Differences
are relative to reverse mode. Prints a table; writes nothing.
"""

import argparse
import ctypes
import gc
import itertools
import sys
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # geometry.py of this folder is not the package geometry

import torch
from torch import Tensor, nn

from dvc import Parameter, Pipeline
from dvc.descent import Problem
from dvc.losses import Objective, Term
from dvc.parameter_vector import ParameterVector
from dvc.records import State
from physics.articulated_rollout import ArticulatedRollout
from physics.articulation import FAR, REVOLUTE, Linkage, Topology

FRAME_RATE, SUBSTEPS = 100.0, 5
LENGTH, ANGLE = 0.1, 0.3
STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Chain(nn.Module):
    """Angles of a chain (world, node, link), less those at mass scale 1.2 and damping 0.06 N m s/rad."""

    def __init__(self, links: int, seconds: float):
        super().__init__()
        names = tuple(f"link {i}" for i in range(links))
        self.tree = Topology("chain", names, names, tuple(range(-1, links - 1)), (REVOLUTE,) * links)
        self.rollout = ArticulatedRollout(
            self.tree, frame_rate=FRAME_RATE, frame_count=round(seconds * FRAME_RATE), substeps=SUBSTEPS
        )
        with torch.no_grad():
            self.observed = self.angles(torch.tensor([1.2]), torch.tensor([0.06]))

    def angles(self, mass: Tensor, damping: Tensor) -> Tensor:
        links = len(self.tree.links)
        arm = torch.tensor([0.0, 0.0, -LENGTH]).expand(1, links, 3)
        rod = torch.diag(torch.tensor([LENGTH**2 / 12.0, LENGTH**2 / 12.0, LENGTH**2 / 240.0]))
        none, drive = torch.zeros(1, links), torch.zeros(1, 0)
        linkage = Linkage(
            mass[:, None].expand(-1, links), 0.5 * arm, mass[:, None, None, None] * rod.expand(1, links, 3, 3),
            torch.cat([torch.zeros(1, 1, 3), arm[:, 1:]], dim=1), torch.tensor([0.0, 0.0, 0.0, 1.0]).expand(1, links, 4),
            torch.tensor([0.0, 1.0, 0.0]).expand(1, links, 3), none, none, none - FAR, none + FAR, none, none, none,
            damping[:, None].expand(-1, links), none, none + 1e-2, *(drive for _ in range(6)),
        )  # fmt: skip
        return self.rollout(State(torch.full((1, links), ANGLE), none), linkage).coordinates

    def forward(self, mass: Tensor, damping: Tensor) -> Tensor:
        return self.angles(mass, damping) - self.observed


def problem(links: int, seconds: float, parameters: int) -> Problem:
    stages = {"mass": Parameter(1.0, 0.1, 5.0), "damping": Parameter(0.05, 0.0, 1.0), "r": Chain(links, seconds)}
    pipeline = Pipeline(stages, {"r": {"mass": "mass", "damping": "damping"}})
    return Problem(pipeline, Objective({"r": Term("r")}), ParameterVector(pipeline), {}, torch.tensor([1.0, parameters - 1.0]))


def status(key: str) -> float:
    """A line of the kernel's account of this process [MB]."""
    return next(float(line.split()[1]) / 1024.0 for line in STATUS.read_text().splitlines() if line.startswith(key))


def measured(gradient, x: Tensor) -> tuple[float, float | None, Tensor]:
    """Seconds, MB and gradient of one call."""
    gc.collect()
    before = None
    if STATUS.exists() and CLEAR.exists():
        ctypes.CDLL(None).malloc_trim(0)
        CLEAR.write_text("5")  # the peak starts anew
        before = status("VmRSS")
    begin = time.perf_counter()
    _, slope, _ = gradient(x, torch.ones(1, dtype=torch.bool))
    taken = time.perf_counter() - begin
    return taken, None if before is None else max(0.0, status("VmHWM") - before), slope


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--links", type=int, nargs="+", default=[1, 5])
    parser.add_argument("--seconds", type=float, nargs="+", default=[1.0, 5.0, 20.0, 60.0])
    parser.add_argument("--parameters", type=int, nargs="+", default=[1, 2], choices=[1, 2])
    given = parser.parse_args(sys.argv[1:] if argv is None else argv)
    print(f"device cpu, {torch.get_num_threads()} threads")
    print("                               gradient [ms]           peak memory [MB]")
    print("links  parameters  time [s]   reverse   forward   ratio    reverse   forward   difference")
    for links, seconds, parameters in itertools.product(given.links, given.seconds, given.parameters):
        p = problem(links, seconds, parameters)
        x = p.vector.gather()
        ways = {"reverse": p.reverse, "forward": p.forward}
        for gradient in ways.values():  # traces
            gradient(x, torch.ones(1, dtype=torch.bool))
        found = {name: [measured(gradient, x) for _ in range(2)] for name, gradient in ways.items()}
        taken = {name: min(f[0] for f in runs) for name, runs in found.items()}
        memory = {name: "-" if runs[0][1] is None else f"{max(f[1] or 0.0 for f in runs):.1f}" for name, runs in found.items()}
        reverse, forward = found["reverse"][0][2].double(), found["forward"][0][2].double()
        error = float(((forward - reverse) * p.mask).norm() / (reverse * p.mask).norm())
        ms = {name: 1e3 * t for name, t in taken.items()}
        print(
            f"{links:5d}  {parameters:10d}  {seconds:8g}  {ms['reverse']:8.1f}  {ms['forward']:8.1f}  "
            f"{ms['reverse'] / ms['forward']:6.2f}   {memory['reverse']:>8s}  {memory['forward']:>8s}  {error:11.1e}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
