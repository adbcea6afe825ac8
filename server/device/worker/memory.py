"""The memory of a device: what there is beside the model, and the share of it that sessions may hold."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from livedrag.editor.cost import Memory
from livedrag.editor.models import devices
from livedrag.editor.models.low_memory import USABLE

SESSIONS = 0.5
"""Share of that for sessions between their steps, where the operator has set none."""
MEMINFO, CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")
"""Where Linux says what memory there is."""


def memory_of(device: torch.device, sessions: int, workers: int = 1) -> Memory:
    """The memory of a device, once the model is loaded.

    Args:
        sessions: bytes for sessions, as set by the operator; 0: `SESSIONS` of what there is.
        workers: that share this device.
    """
    return split(free_bytes(device) // workers, sessions)


def split(free: int, sessions: int = 0) -> Memory:
    """The memory that is counted on where so many bytes are free; ``sessions`` as in `memory_of`."""
    total = int(USABLE * free)
    return Memory(sessions=sessions or int(SESSIONS * total), total=max(total, sessions))


def free_bytes(device: torch.device) -> int:
    """Bytes that this process can still allocate on a device."""
    return min(_free_ram(), _free_in_container()) if device.type == "cpu" else devices.free_bytes(device)


def free_memory() -> None:
    """Return unused memory that torch's allocator holds to the device."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif torch.backends.mps.is_available():
        torch.mps.empty_cache()


def _free_ram() -> int:
    try:
        for line in MEMINFO.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _free_in_container() -> int:
    """What the limit of a container leaves; more than any machine has where there is none."""
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        used = int((CGROUP / "memory.current").read_text())
    except (OSError, ValueError):
        return 2**62
    return 2**62 if limit == "max" else max(0, int(limit) - used)
