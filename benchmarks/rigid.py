"""Pendulum chains of 1, 5, 20 links x 1, 64, 1024 worlds, forward + backward, against Newton in the same run.

    python benchmarks/rigid.py [--links 1 5 20] [--worlds 1 64 1024] [--difftaichi FOLDER] [--memory]

One task for all: links of 0.1 m and 1 kg on parallel axes, let go at 0.1 rad a joint, 10 frames of 10 steps of 1 ms; the loss
is the sum of the squared joint angles at the end, its gradient goes to the initial angles and to all masses. Throughput in
link-steps/s (links x worlds x steps / time of forward + backward), the best of several runs taken in turn.

Newton's solvers SemiImplicit (maximal coordinates: joints are stiff springs) and Featherstone (the same reduced coordinates as
ours) run with the same step on the same device, all steps on one tape: as they run by themselves, launched from Python ("as it
is"), and with launches and adjoints captured by us once and replayed ("captured"), which Newton's examples do on CUDA only.
Beside the times stands each method's d loss / d mass of the last link, for Newton next to central differences of its own loss
(in the smallest number of worlds). "Ours, phases" is the same step as one kernel a phase instead of one for all substeps.

`--difftaichi` names the folder `examples` of a clone of github.com/taichi-dev/difftaichi (and needs `pip install taichi`); its
rigid_body.py then runs beside the smallest case, without controller and ground: one body on one joint to a large one, its own
loss and step. It is planar, has one world, and its joint is a spring with the relative velocity projected out: only the
throughput compares. `--memory` prints the growth of resident memory with the horizon in place of the table.
Prints tables; writes nothing. Exits with 1 where ours is below ten times the throughput of Newton as it is.
"""

import argparse
import itertools
import math
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # geometry.py of this folder is not the package geometry

import numpy as np
import torch
import warp as wp

import dvc.warp_op
from dvc.records import State
from dvc.trace import start_warp
from physics.articulated_rollout import ArticulatedRollout
from physics.articulation import FAR, REVOLUTE, Linkage, Topology

FRAMES, STEPS, DT = 10, 10, 1e-3
LENGTH = 0.1
ANGLE = 0.1
REPEATS = 5
SLOW = 3.0  # [s]; what takes longer is timed once
LONGEST = 60.0  # [s]; what would take longer is not run
REQUIRED = 10.0
ROD = (LENGTH**2 / 12.0, LENGTH**2 / 12.0, LENGTH**2 / 240.0)
INERTIA = np.diag(ROD).flatten().tolist()


class Run(NamedTuple):
    """One way to do the task: call it for the loss; `slope` is d loss / d mass of the last link, summed over worlds."""

    go: Callable[[], float]
    slope: Callable[[], float]
    note: str = ""


def chain(links: int) -> tuple[Topology, Linkage]:
    names = tuple(f"link {i}" for i in range(links))
    tree = Topology("chain", names, names, tuple(range(-1, links - 1)), (REVOLUTE,) * links)
    arm = torch.tensor([0.0, 0.0, -LENGTH]).expand(1, links, 3)
    none, no_drive = torch.zeros(1, links), torch.zeros(1, 0)
    linkage = Linkage(
        torch.ones(1, links), 0.5 * arm, torch.diag(torch.tensor(ROD)).expand(1, links, 3, 3),
        torch.cat([torch.zeros(1, 1, 3), arm[:, 1:]], dim=1), torch.tensor([0.0, 0.0, 0.0, 1.0]).expand(1, links, 4),
        torch.tensor([0.0, 1.0, 0.0]).expand(1, links, 3), none, none, none - FAR, none + FAR, *(none for _ in range(5)),
        none + 1e-2, *(no_drive for _ in range(6)),
    )  # fmt: skip
    return tree, linkage


def ours(
    links: int, worlds: int, device: str, frames: int = FRAMES, chunk: int | None = None, fused: bool | None = None
) -> Run:
    tree, linkage = chain(links)
    linkage = Linkage(*(t.to(device) for t in linkage))
    horizon = {"frame_rate": 1.0 / (DT * STEPS), "frame_count": frames, "substeps": STEPS}
    rollout = ArticulatedRollout(tree, **horizon, chunk=chunk, fused=fused)
    q = torch.full((worlds, links), ANGLE, device=device, requires_grad=True)
    mass = torch.ones(worlds, links, device=device, requires_grad=True)
    zero = torch.zeros(worlds, links, device=device)
    found: dict[str, float] = {}

    def go() -> float:
        q.grad = mass.grad = None
        end = rollout(State(q, zero), linkage._replace(mass=mass)).coordinates[:, -1]
        loss = (end**2).sum()
        loss.backward()
        found["slope"] = float(mass.grad[:, -1].sum())  # type: ignore[index]
        return float(loss.detach())

    return Run(go, lambda: found["slope"])


@wp.kernel
def squares(q: wp.array(dtype=float), loss: wp.array(dtype=float)):
    i = wp.tid()
    wp.atomic_add(loss, 0, q[i] * q[i])


def newton_model(links: int, worlds: int, device: str, mass: float = 1.0) -> Any:
    import newton

    one = newton.ModelBuilder(gravity=(0.0, 0.0, -9.81))
    joints = []
    for i in range(links):
        last = mass if i == links - 1 else 1.0
        body = one.add_link(mass=last, com=wp.vec3(0.0, 0.0, -0.5 * LENGTH), inertia=wp.mat33(*INERTIA))
        place = wp.transform((0.0, 0.0, -LENGTH if i else 0.0), wp.quat_identity())
        joint = one.add_joint_revolute(
            i - 1, body, parent_xform=place, axis=(0.0, 1.0, 0.0), limit_lower=-1e6, limit_upper=1e6, limit_ke=0.0,
            limit_kd=0.0, armature=0.0, target_ke=0.0, target_kd=0.0, friction=0.0,
        )  # fmt: skip
        joints.append(joint)
    one.add_articulation(joints)
    builder = newton.ModelBuilder(gravity=(0.0, 0.0, -9.81))
    builder.replicate(one, worlds)
    model = builder.finalize(device=device, requires_grad=True)
    model.joint_q.assign(np.full(links * worlds, ANGLE, np.float32))
    model.joint_q.requires_grad = True
    return model


def newton(name: str, links: int, worlds: int, device: str, captured: bool, mass: float = 1.0) -> Run:
    """The whole task on one tape."""
    import newton as nt

    model = newton_model(links, worlds, device, mass)
    kind = {"SemiImplicit": nt.solvers.SolverSemiImplicit, "Featherstone": nt.solvers.SolverFeatherstone}[name]
    solver = kind(model, angular_damping=0.0)
    states = [model.state(requires_grad=True) for _ in range(FRAMES * STEPS + 1)]
    control = model.control()
    loss = wp.zeros(1, dtype=float, device=device, requires_grad=True)
    end = wp.zeros(links * worlds, dtype=float, device=device, requires_grad=True)
    end_rate = wp.zeros(links * worlds, dtype=float, device=device, requires_grad=True)
    tape = wp.Tape()

    def forward() -> None:
        loss.zero_()
        nt.eval_fk(model, model.joint_q, model.joint_qd, states[0])
        for before, after in itertools.pairwise(states):
            before.clear_forces()
            solver.step(before, after, control, None, DT)
        if name == "Featherstone":
            wp.launch(squares, links * worlds, [states[-1].joint_q], [loss], device=device)
        else:
            nt.eval_ik(model, states[-1], end, end_rate)
            wp.launch(squares, links * worlds, [end], [loss], device=device)

    def record() -> None:
        with tape:
            forward()
        tape.backward(loss)

    def eager() -> float:
        tape.reset()
        tape.zero()
        record()
        return float(loss.numpy()[0])

    def slope() -> float:
        return float(model.body_mass.grad.numpy().reshape(worlds, links)[:, -1].sum())

    if not captured:
        return Run(eager, slope, "as it is")
    try:
        record()  # compiles
        tape.reset()
        tape.zero()
        with wp.ScopedCapture(device=device, force_module_load=False) as capture:
            record()
    except Exception as error:
        return Run(eager, slope, f"as it is ({type(error).__name__} when captured)")

    def replay() -> float:
        tape.zero()
        wp.capture_launch(capture.graph)
        return float(loss.numpy()[0])

    return Run(replay, slope, "captured")


def difftaichi(folder: str) -> Run:
    """DiffTaichi's own program, as it stands: fields, kernels and loop are its; controller, contact and window are left out."""
    import importlib

    import taichi as ti

    class NoWindow:
        def __init__(self, *args: Any, **options: Any):
            pass

    ti.GUI = NoWindow
    sys.path.append(folder)
    sys.argv = ["rigid_body.py", "0", "train"]
    program: Any = importlib.import_module("rigid_body")
    program.steps = FRAMES * STEPS + 1
    program.nn1 = program.nn2 = program.collide = lambda step: None
    half = 0.5 * LENGTH
    bodies = [([0.5, 0.8], [10.0, 10.0], 0.0), ([0.5, 0.8 - half], [0.1 * half, half], ANGLE)]
    program.setup_robot(bodies, [(0, 1, [0.0, 0.0], [0.0, half], -1, 15, 0.0)], 1)

    def go() -> float:
        program.clear_states()
        with ti.ad.Tape(program.loss):
            program.forward(visualize=False)
        return float(program.loss[None])

    return Run(go, lambda: math.nan, "another model")


def on_one_thread(run: Run) -> Run:
    def go() -> float:
        dvc.warp_op.default_threads = 1
        try:
            return run.go()
        finally:
            dvc.warp_op.default_threads = None

    return run._replace(go=go)


def best_times(runs: dict[str, Run]) -> dict[str, float]:
    times = dict.fromkeys(runs, math.inf)
    slow = set()
    for name, run in runs.items():
        start = time.perf_counter()
        run.go()
        if time.perf_counter() - start > SLOW:
            slow.add(name)
    for repeat in range(REPEATS):
        for name, run in runs.items():
            if name in slow and repeat:
                continue
            start = time.perf_counter()
            run.go()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            times[name] = min(times[name], time.perf_counter() - start)
    return times


def memory_table(links: int = 20, worlds: int = 64) -> None:
    """Growth of resident memory with the horizon, each in a process of its own."""
    print(f"\nmemory, {links} links x {worlds} worlds, {STEPS} steps a frame")
    for frames in (1, 10, 100, 400):
        child = os.fork()
        if child == 0:
            ours(links, worlds, "cpu", frames=1).go()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            ours(links, worlds, "cpu", frames=frames).go()
            more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
            print(f"  {frames:4d} frames  {more:8.1f} MB more", flush=True)
            os._exit(0)
        os.waitpid(child, 0)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--links", type=int, nargs="+", default=[1, 5, 20])
    parser.add_argument("--worlds", type=int, nargs="+", default=[1, 64, 1024])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--difftaichi", metavar="FOLDER")
    parser.add_argument("--memory", action="store_true")
    given = parser.parse_args(sys.argv[1:] if argv is None else argv)
    if given.memory:
        memory_table()
        return 0
    start_warp()
    try:
        import newton as peer

        print(f"Newton {peer.__version__}, Warp {wp.config.version}, device {given.device}, {torch.get_num_threads()} threads")
    except ImportError as error:
        peer = None
        print(f"Newton cannot be imported ({error}): ours alone; remedy: pip install newton")
    missed = 0
    print("links worlds  method                         ms      link-steps/s   ratio   loss        d/dmass  differences  ")
    for links in given.links:
        last: dict[str, float] = {}  # seconds a world of the run before
        for worlds in sorted(given.worlds):
            runs = {"ours": ours(links, worlds, given.device), "ours, 1 thread": ours(links, worlds, given.device)}
            if peer is not None:
                for name in ("SemiImplicit", "Featherstone"):
                    for label, captured in ((name, False), (f"{name}, captured", True)):
                        expected = last.get(label, 0.0) * worlds
                        if expected > LONGEST:
                            print(f"{links:5d} {worlds:6d}  {label:24s} not run: it would take about {expected:.0f} s a call")
                        else:
                            runs[label] = newton(name, links, worlds, given.device, captured)
            runs["ours, 1 thread"] = on_one_thread(runs["ours, 1 thread"])
            runs["ours, phases"] = ours(links, worlds, given.device, chunk=FRAMES, fused=False)
            if given.difftaichi and links * worlds == 1:
                runs["DiffTaichi"] = difftaichi(given.difftaichi)
            times = best_times(runs)
            last |= {name: t / worlds for name, t in times.items()}
            work = links * worlds * FRAMES * STEPS
            base = times["ours"]
            for name, run in runs.items():
                loss, slope = run.go(), run.slope()
                differences = ""
                if name in ("SemiImplicit", "Featherstone") and worlds == min(given.worlds):
                    ends = [newton(name, links, worlds, given.device, True, 1.0 + s * 0.05).go() / worlds for s in (1.0, -1.0)]
                    differences = f"{(ends[0] - ends[1]) / 0.1:12.4g}"
                ratio = times[name] / base
                print(
                    f"{links:5d} {worlds:6d}  {name:24s} {1e3 * times[name]:10.2f} {work / times[name]:15.3g} {ratio:7.1f}   "
                    f"{loss / worlds:<10.6f} {slope / worlds:9.4g} {differences:12s} {run.note}",
                    flush=True,
                )
                if name in ("SemiImplicit", "Featherstone") and ratio < REQUIRED:
                    missed = 1
    return missed


if __name__ == "__main__":
    sys.exit(main())
