"""What every test has: marks that skip with a reason, and surroundings that leave nothing behind."""

import functools

import pytest


@functools.cache
def _missing_device() -> str:
    import torch

    return "" if torch.cuda.is_available() else "no CUDA device"


@functools.cache
def _missing_item(name: str) -> str:
    from dvc import data
    from dvc.errors import UserError

    try:
        data.find(name, download=False)
    except UserError as error:
        return str(error)
    return ""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `gpu` without a CUDA device, and tests marked `data` without their items, and say why."""
    for test in items:
        if test.get_closest_marker("gpu") and _missing_device():
            test.add_marker(pytest.mark.skip(reason=_missing_device()))
        needs = test.get_closest_marker("data")
        if needs:
            from dvc import data

            missing = [_missing_item(name) for name in needs.args or [item.name for item in data.items()]]
            if any(missing):
                test.add_marker(pytest.mark.skip(reason="; ".join(filter(None, missing))))


@pytest.fixture(autouse=True)
def _quiet_surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No window is opened and nothing is sent to a server by any test."""
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setenv("WANDB_MODE", "offline")
