"""The devices of this machine, found without loading torch."""

from __future__ import annotations

import os
from pathlib import Path

GPUS = Path("/proc/driver/nvidia/gpus")
"""Has an entry for each of Nvidia's devices, where their driver is loaded."""


def devices(wanted: str, visible: str | None, gpus: Path = GPUS) -> list[str]:
    """The torch devices to use.

    Args:
        wanted: names separated by commas, ``all``, or empty for the best there is.
        visible: the value of ``CUDA_VISIBLE_DEVICES``, if it is set.
        gpus: folder with an entry for each of Nvidia's devices.
    """
    if wanted != "all":
        return [name.strip() for name in wanted.split(",") if name.strip()] or [""]
    if visible is not None:
        count = len([name for name in visible.split(",") if name.strip()])
    else:
        count = len(os.listdir(gpus)) if gpus.is_dir() else 0
    return [f"cuda:{index}" for index in range(count)] or [""]


def share_of_cores(names: list[str]) -> int:
    """Threads of each worker; 0 where it may have all cores."""
    on_cpu = sum(name.startswith("cpu") for name in names)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // on_cpu) if on_cpu > 1 else 0
