"""Rooms that share passes, and the memory of rooms that take turns."""

from __future__ import annotations

import contextlib
from functools import partial

import torch

from livedrag.editor import Diffusion
from tests.bench import sharing
from tests.bench.clock import Clock
from tests.bench.gpu.bench import WARM_UPS, Bench, free, graphs_switched, prepared
from tests.bench.gpu.report import Figure
from tests.bench.model import BENCHES


def rooms(bench: Bench) -> None:
    """Iterations a second of rooms that share passes, each row with its own LoRA."""
    report, model = bench.report, bench.model
    for count in bench.extent.rooms:  # each by itself: eight may not fit where one does
        clock = Clock(model.device)

        def take(count: int = count, clock: Clock = clock) -> float:
            with graphs_switched(model, on=True, eager_runs=1):
                sharing.measure(model, BENCHES["tiny" if bench.tiny else "full"], clock, (count,), warm_ups=2)
            return count / clock.median(f"{count} together")

        report.measure(_in_a_pass(count), "1/s", take)
        free(model)
    last = bench.extent.rooms[-1]
    name = f"{last} rooms in a pass to one room, iterations a second"
    report.ratio(name, _in_a_pass(last), _in_a_pass(1), "at least 2")


def _in_a_pass(count: int) -> str:
    return f"iterations a second, {count} room{'s' * (count > 1)} in a pass"


def memory(bench: Bench) -> None:
    """Peak of rooms that take turns, with the model and its graphs."""
    if bench.model.device.type != "cuda":
        bench.report.add(Figure("peak memory", None, "GiB", note="measured on CUDA only"))
        return
    for count in (1, bench.extent.rooms[-1]):
        name = f"peak memory, {count} room{'s' * (count > 1)}"
        bench.report.measure(name, "GiB", partial(peak_of, bench.model, count), note="reserved by torch")
        free(bench.model)


def peak_of(model: Diffusion, count: int) -> float:
    """GiB that so many rooms need at their peak."""
    torch.cuda.reset_peak_memory_stats(model.device)
    sessions = [prepared(model) for _ in range(count)]
    for session in sessions:
        with contextlib.closing(session.drag(preview_every=0)) as steps:
            for _ in range(2 * WARM_UPS):
                next(steps)
    peak = torch.cuda.max_memory_reserved(model.device) / 2**30
    for session in sessions:
        session.close()
    return peak
