"""Checkpoints: round trip, damage, and a disk that fills up (simulated, limited and real)."""

import errno
import os
import resource
import subprocess
import sys
import textwrap

import pytest
import torch

from dvc.checkpoint import load_checkpoint, read_checkpoint, save_checkpoint
from dvc.errors import UserError


def state(step: int, size: int = 1000) -> dict:
    return {"step": step, "x": torch.full((size,), float(step)), "seen": [1, 2.5, "a", None, True], "inner": {"t": (1, 2)}}


def files(directory) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_round_trip_and_the_one_before(tmp_path):
    assert load_checkpoint(tmp_path) is None
    for step in (1, 2, 3):
        path = save_checkpoint(tmp_path / "c", state(step))
    assert files(tmp_path / "c") == ["last.pt", "previous.pt"]
    loaded = load_checkpoint(tmp_path / "c")
    assert loaded["step"] == 3 and torch.equal(loaded["x"], state(3)["x"])
    assert loaded["seen"] == state(3)["seen"] and loaded["inner"] == {"t": (1, 2)}
    assert read_checkpoint(path.with_name("previous.pt"))["step"] == 2
    assert torch.load(path, weights_only=True)["step"] == 3  # plain torch reads it too


def test_the_form_of_an_optimisers_state_survives(tmp_path):
    moments = {0: {"step": torch.tensor(3.0), "exp_avg": torch.arange(3.0)}}
    adam = {"state": moments, "param_groups": [{"lr": 0.1, "betas": (0.9, 0.999), "params": [0], "fused": None}]}
    save_checkpoint(tmp_path, {"adam": adam, "random": torch.get_rng_state(), "seed": 1 << 100, "type": torch.float32})
    again = load_checkpoint(tmp_path)
    assert torch.equal(again["adam"]["state"][0].pop("exp_avg"), moments[0].pop("exp_avg"))
    assert again["adam"] == adam and again["seed"] == 1 << 100 and again["type"] == torch.float32


@pytest.mark.parametrize("bad", [{"f": print}, {"a": [object()]}, {"a": {"b": {1, 2}}}, {object(): 1}])
def test_what_could_not_be_read_back_is_refused(tmp_path, bad):
    with pytest.raises(UserError, match="checkpoint: state"):
        save_checkpoint(tmp_path, bad)
    assert not files(tmp_path)


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def empty(path):
    path.write_bytes(b"")


def garbage(path):
    path.write_bytes(b"not a checkpoint at all")


def flip_one_number(path):
    """One wrong byte in a tensor: torch alone loads it without a word."""
    content = bytearray(path.read_bytes())
    at = bytes(content).find(torch.full((8,), 2.0).numpy().tobytes())
    assert at > 0
    content[at + 3] ^= 0x01
    path.write_bytes(bytes(content))


@pytest.mark.parametrize("damage", [cut, empty, garbage, flip_one_number])
def test_a_damaged_last_falls_back_on_the_previous(tmp_path, damage):
    save_checkpoint(tmp_path, state(1))
    save_checkpoint(tmp_path, state(2))
    damage(tmp_path / "last.pt")
    notes: list[str] = []
    assert load_checkpoint(tmp_path, notes.append)["step"] == 1
    assert len(notes) == 1 and "damaged" in notes[0] and "previous.pt" in notes[0] and "\n" not in notes[0]
    save_checkpoint(tmp_path, state(3))
    assert load_checkpoint(tmp_path)["step"] == 3


def test_both_damaged_is_one_line(tmp_path):
    save_checkpoint(tmp_path, state(1))
    save_checkpoint(tmp_path, state(2))
    garbage(tmp_path / "last.pt")
    cut(tmp_path / "previous.pt")
    with pytest.raises(UserError, match="no readable checkpoint") as caught:
        load_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_file_with_code_in_it_is_not_run(tmp_path):
    torch.save({"f": os.system}, tmp_path / "last.pt")
    with pytest.raises(UserError, match="damaged or no checkpoint"):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("call", ["fsync", "replace", "link"])
def test_a_full_disk_keeps_the_last_good_one(tmp_path, monkeypatch, call):
    save_checkpoint(tmp_path, state(1))
    save_checkpoint(tmp_path, state(2))

    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(UserError, match=r"No space left.*stays readable.*remedy") as caught:
            save_checkpoint(tmp_path, state(3))
    assert "\n" not in str(caught.value)
    assert files(tmp_path) == ["last.pt", "previous.pt"]
    assert load_checkpoint(tmp_path)["step"] == 2
    save_checkpoint(tmp_path, state(4))
    assert load_checkpoint(tmp_path)["step"] == 4


def test_without_hard_links_the_previous_one_is_renamed(tmp_path, monkeypatch):
    def no_links(*arguments, **options):
        raise OSError(errno.EPERM, "no hard links here")

    monkeypatch.setattr(os, "link", no_links)
    for step in (1, 2):
        save_checkpoint(tmp_path, state(step))
    assert load_checkpoint(tmp_path)["step"] == 2 and read_checkpoint(tmp_path / "previous.pt")["step"] == 1


@pytest.mark.slow
def test_a_real_limit_on_file_sizes(tmp_path):
    """The operating system refuses to write more: a portable stand-in for a disk that fills up while writing."""
    child = textwrap.dedent(
        """
        import resource, signal, sys, torch
        from dvc.checkpoint import save_checkpoint
        from dvc.errors import UserError
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        save_checkpoint(sys.argv[1], {"step": 1, "x": torch.ones(1000)})
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
        try:
            save_checkpoint(sys.argv[1], {"step": 2, "x": torch.ones(1_000_000)})
        except UserError as error:
            print(error)
        """
    )
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY
    done = subprocess.run([sys.executable, "-c", child, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "File too large" in done.stdout and done.stdout.count("\n") == 1
    assert files(tmp_path) == ["last.pt"]
    assert load_checkpoint(tmp_path)["step"] == 1


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB."""
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        pytest.skip("mounting a small file system needs root on Linux")
    place = tmp_path / "disk"
    place.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"mount is not permitted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_disk_that_is_really_full(small_disk):
    save_checkpoint(small_disk, state(1))
    save_checkpoint(small_disk, state(2))
    with pytest.raises(UserError, match=r"No space left on device.*stays readable"):
        save_checkpoint(small_disk, state(3, size=200_000))
    assert files(small_disk) == ["last.pt", "previous.pt"]
    assert load_checkpoint(small_disk)["step"] == 2
    save_checkpoint(small_disk, state(4))
    assert load_checkpoint(small_disk)["step"] == 4


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        save_checkpoint(tmp_path / "file", state(1))
