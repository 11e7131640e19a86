"""Two processes under DistributedDataParallel, half of the worlds each, give the gradients of one process with all worlds."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
WORLDS = 8


def build() -> torch.nn.Module:
    from tests.dvc.warp_op_examples import pendulum

    class Swing(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.policy = torch.nn.Linear(2, 1)
            self.length = torch.nn.Parameter(torch.tensor([0.8]))

        def forward(self, angle: torch.Tensor, rate: torch.Tensor) -> torch.Tensor:
            for _ in range(4):
                rate = rate + 0.1 * self.policy(torch.stack([angle, rate], dim=-1))[:, 0]
                angle, rate = pendulum(angle, rate, self.length, dt=0.02)
            return angle.square().mean()

    return Swing()


def data() -> tuple[torch.Tensor, torch.Tensor]:
    angle, rate = torch.randn(2, WORLDS, generator=torch.Generator().manual_seed(3))
    return angle, rate


def worker(rank: int, port: str, folder: str) -> None:
    import torch.distributed as dist

    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    model = torch.nn.parallel.DistributedDataParallel(build())
    half = slice(rank * WORLDS // 2, (rank + 1) * WORLDS // 2)
    for _ in range(2):  # twice: traced, then replayed
        model.zero_grad()
        model(*(values[half] for values in data())).backward()
    torch.save([p.grad for p in model.parameters()], Path(folder) / f"{rank}.pt")
    dist.barrier()  # nobody leaves while another still talks to it
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    model = build()
    model(*data()).backward()  # also compiles the kernels before two processes want them
    expected = [p.grad for p in model.parameters()]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), port, str(tmp_path)], env=environment, stderr=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    try:
        errors = [process.communicate(timeout=120)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], errors
    for rank in range(2):
        for got, wanted in zip(torch.load(tmp_path / f"{rank}.pt"), expected):
            assert wanted.abs().max() > 1e-4
            torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-7)


if __name__ == "__main__":
    worker(int(sys.argv[1]), sys.argv[2], sys.argv[3])
