"""Chamfer distance of 2 x 100 000 points, forward + backward, against SciPy's cKDTree and pytorch3d in the same run.

    python benchmarks/chamfer.py

Points on a lumpy sphere of one metre, and in a ball of one metre (volume); the clouds are two samples at one place
(near), or two diameters apart (far).
The peer of SciPy builds both trees, asks both with two workers, and writes the same squared chamfer with torch's indexing.
pytorch3d is timed where it is installed. Medians of several runs taken in turn. Prints a table; writes nothing.
Exits with 1 where a peer is faster.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)  # geometry.py of this folder is not the package geometry

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from geometry.point_losses import chamfer

POINTS = 100_000
DIAMETERS_APART = 2.0
REPEATS = {"near": 7, "far": 3}
WORKERS = 2


def cloud(seed: int, offset: float = 0.0, count: int = POINTS) -> Tensor:
    """Points on a lumpy sphere about one metre across, moved along x: (1, point, 3)."""
    direction = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))
    direction = direction / direction.norm(dim=1, keepdim=True)
    radius = 0.5 * (1.0 + 0.3 * torch.sin(3.0 * direction[:, :1]) * torch.cos(4.0 * direction[:, 1:2]))
    return (radius * direction + torch.tensor([offset, 0.0, 0.0]))[None]


def ball(seed: int, offset: float = 0.0, count: int = POINTS) -> Tensor:
    """Points in a ball one metre across, moved along x: (1, point, 3)."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(count, 3, generator=generator)
    radius = 0.5 * torch.rand(count, 1, generator=generator) ** (1.0 / 3.0)
    return (direction / direction.norm(dim=1, keepdim=True) * radius + torch.tensor([offset, 0.0, 0.0]))[None]


def by_scipy(first: Tensor, second: Tensor) -> Tensor:
    a, b = first[0].detach().numpy(), second[0].detach().numpy()
    tree_a, tree_b = cKDTree(a), cKDTree(b)
    forth = torch.from_numpy(tree_b.query(a, workers=WORKERS)[1].astype(np.int64))
    back = torch.from_numpy(tree_a.query(b, workers=WORKERS)[1].astype(np.int64))
    there = (first[0] - second[0][forth]).square().sum(dim=1).mean()
    return there + (second[0] - first[0][back]).square().sum(dim=1).mean()


def by_pytorch3d() -> Callable[[Tensor, Tensor], Tensor] | None:
    try:
        from pytorch3d.loss import chamfer_distance
    except ImportError:
        return None
    return lambda first, second: chamfer_distance(first, second)[0]


def timed(function: Callable[[Tensor, Tensor], Tensor], first: Tensor, second: Tensor) -> tuple[float, float, Tensor]:
    """Seconds of forward + backward, the value, the gradients."""
    a, b = first.clone().requires_grad_(), second.clone().requires_grad_()
    begin = time.perf_counter()
    value = function(a, b).sum()
    value.backward()
    seconds = time.perf_counter() - begin
    assert a.grad is not None and b.grad is not None
    return seconds, float(value.detach()), torch.cat([a.grad.flatten(), b.grad.flatten()])


def compare(name: str, first: Tensor, second: Tensor, repeats: int) -> dict[str, float]:
    """Median seconds of each, run in turn so that a busy machine is busy for all, and how far values and gradients differ."""
    functions: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "ours": lambda a, b: chamfer(a, b, squared=True),
        "cKDTree": by_scipy,
    }
    peer = by_pytorch3d()
    if peer is not None:
        functions["pytorch3d"] = peer
    timed(functions["ours"], first, second)  # compiles and traces
    runs = [{key: timed(function, first, second) for key, function in functions.items()} for _ in range(repeats)]
    row = {key: statistics.median(run[key][0] for run in runs) for key in functions}
    ours, theirs = runs[0]["ours"], runs[0]["cKDTree"]
    row["value_error"] = abs(ours[1] - theirs[1]) / max(abs(theirs[1]), 1e-30)
    # differs where two neighbours are equally near in float32, which is common from afar
    row["gradient_error"] = float((ours[2] - theirs[2]).norm() / theirs[2].norm())
    print(f"{name:>12}  " + "  ".join(f"{key} {1e3 * row[key]:8.1f} ms" for key in functions), end="  ")
    print("  ".join(f"{key}/ours {row[key] / row['ours']:.2f}" for key in functions if key != "ours"), end="  ")
    print(f"(relative difference: value {row['value_error']:.1e}, gradient {row['gradient_error']:.1e})")
    return row


def main() -> int:
    print(f"chamfer, 2 x {POINTS} points, forward + backward, {torch.get_num_threads()} threads, cKDTree workers={WORKERS}")
    if by_pytorch3d() is None:
        print("pytorch3d: not installed, not timed")
    rows = {}
    for name, offset in (("near", 0.0), ("far", DIAMETERS_APART)):
        rows[name] = compare(name, cloud(0), cloud(1, offset), REPEATS[name])
        name += ", volume"
        rows[name] = compare(name, ball(0), ball(1, offset), REPEATS[name.split(",")[0]])
    met = all(seconds >= row["ours"] for row in rows.values() for key, seconds in row.items() if not key.endswith("_error"))
    print("requirements met" if met else "REQUIREMENTS MISSED")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
