"""How much memory a device has beside the model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from livedrag.server.device.worker import memory
from livedrag.server.device.worker.faults import is_device_fault, is_out_of_memory
from livedrag.server.device.worker.memory import memory_of

GIB = 2**30
MEMINFO = "MemTotal:       32000000 kB\nMemFree:         1000000 kB\nMemAvailable:   16777216 kB\n"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """16 GiB are free, and no container limits them; returns the folder of its files."""
    (tmp_path / "meminfo").write_text(MEMINFO)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("0\n")
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    return tmp_path


def test_sessions_get_half_of_what_is_free_unless_the_operator_says_otherwise(machine: Path) -> None:
    found = memory_of(torch.device("cpu"), 0)
    assert found.total == int(0.9 * 16 * GIB)
    assert found.sessions == found.total // 2
    assert memory_of(torch.device("cpu"), 3 * GIB).sessions == 3 * GIB
    assert memory_of(torch.device("cpu"), 0, workers=2).total == found.total // 2


def test_the_limit_of_a_container_counts(machine: Path) -> None:
    (machine / "memory.max").write_text(f"{6 * GIB}\n")
    (machine / "memory.current").write_text(f"{2 * GIB}\n")
    assert memory_of(torch.device("cpu"), 0).total == int(0.9 * 4 * GIB)


def test_without_linux_files_all_memory_of_the_machine_counts(machine: Path) -> None:
    for path in machine.iterdir():
        path.unlink()
    assert memory_of(torch.device("cpu"), 0).total > GIB


@pytest.fixture
def returned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whose unused memory has been returned."""
    devices: list[str] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: devices.append("cuda"))
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: devices.append("mps"))
    return devices


def test_unused_memory_is_returned_to_the_device_that_is_there(
    returned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for cuda, mps in ((True, False), (False, True), (False, False)):
        monkeypatch.setattr(torch.cuda, "is_available", lambda cuda=cuda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda mps=mps: mps)
        memory.free_memory()
    assert returned == ["cuda", "mps"]


def test_apples_gpus_run_out_of_memory_with_a_plain_error() -> None:
    error = RuntimeError("MPS backend out of memory (MPS allocated: 8.89 GB, max allowed: 9.07 GB). Tried to ...")
    assert is_out_of_memory(error)
    assert not is_device_fault(error)
