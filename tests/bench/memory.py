"""Peak memory of an iteration, each case in a process of its own (measurement 5).

On a CPU it is the highest resident set, which counts what the allocator holds, less that of the process before it made
the model; on CUDA what torch has allocated. Loading and preparing are over before the watch begins.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import multiprocessing
import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch

from tests.bench.clock import Clock
from tests.bench.drag import WITH, WITHOUT, Scene
from tests.bench.model import BENCHES, Bench, build, take_all_cores
from tests.bench.table import MIB, Row

PAGE = 4096
REFERENCE = f"reference {WITHOUT}, weights requiring grad"
CASES = {
    REFERENCE: None,
    f"reference {WITHOUT}, weights frozen": None,
    "bare pass": None,
    f"ours {WITHOUT}, previews included": 0.6,
    f"ours {WITH}, previews included": 0.6,
}
"""By case, the share of the reference's memory that is aimed at."""


def measure(bench: Bench) -> list[Row]:
    """Peaks, with the model and without. To be called while this process holds no model: two may not fit."""
    # The server of forks loads torch once for all of them; CUDA does not survive a fork.
    can_fork = "forkserver" in multiprocessing.get_all_start_methods() and not torch.cuda.is_available()
    method = "forkserver" if can_fork else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(["tests.bench.memory"])
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as processes:
        peaks = dict(zip(CASES, processes.map(peak, [bench.name] * len(CASES), CASES), strict=True))
    rows = []
    for case, aim in CASES.items():
        if case != REFERENCE:
            (total, above), (total_reference, above_reference) = peaks[case], peaks[REFERENCE]
            rows.append(Row(5, f"{case}: peak with the model", total, REFERENCE, total_reference, aim, MIB))
            rows.append(Row(5, f"{case}: peak above the model", above, REFERENCE, above_reference, unit=MIB))
    return rows


def peak(name: str, case: str) -> tuple[float, float]:
    """Highest memory of an iteration in MiB: above the process without a model, and above the prepared model."""
    take_all_cores()
    empty = _held()
    model = build(BENCHES[name])
    clock = Clock(model.device)
    masked = WITH in case
    scene = Scene(model, clock, [masked])
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)
    held = _held(model.device)
    _forget_peak(model.device)
    if case.startswith("ours"):
        scene.ours(1, masked=masked)
    elif case.startswith("reference"):
        # Where weights require grad, their gradients stay: the second iteration has both them and its own graph.
        grad = case == REFERENCE
        scene.reference(2 if grad else 1, masked=False, weights_require_grad=grad, settled=False)
    else:
        scene.bare(1)
    highest = _peak(model.device)
    base = 0 if model.device.type == "cuda" else empty
    return max(PAGE, highest - base) / 2**20, max(PAGE, highest - held) / 2**20


def _held(device: torch.device | None = None) -> int:
    if device is not None and device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return _status("VmRSS") or _largest_ever()


def _forget_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # VmHWM starts anew


def _peak(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _status("VmHWM") or _largest_ever()


def _status(field: str) -> int:
    """Bytes of a field of the process's status; 0 where there is no such file."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    return 0


def _largest_ever() -> int:
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest if sys.platform == "darwin" else largest * 1024
