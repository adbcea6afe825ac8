"""Processes of one machine, by pid and start, so that a new process with an old pid is never taken for it."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path


def start_of(pid: int) -> int | None:
    """When a process started, in clock ticks since the machine did; None: it is gone, or a zombie. Linux only."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def end_process(pid: int, started: int, seconds: float = 10.0) -> bool:
    """Kill a process if it is there still, and wait until it has gone. Returns whether it has."""
    deadline = time.monotonic() + seconds
    while start_of(pid) == started:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
