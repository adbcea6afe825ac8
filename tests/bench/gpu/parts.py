"""All parts, in the order of their importance, each within what is left of the time."""

from __future__ import annotations

import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from livedrag.editor import Diffusion
from tests.bench.gpu.bench import Bench, Extent, free
from tests.bench.gpu.edit import service, steps, whole_edit
from tests.bench.gpu.iteration import builtin, compiled, contiguous, iterations
from tests.bench.gpu.report import Figure, Report, time_limit
from tests.bench.gpu.rooms import memory, rooms
from tests.bench.model import BENCHES, build

GRACE = 8.0
"""Seconds after the last part may begin, in which what has begun must end."""


@dataclass(frozen=True)
class Part:
    """What is measured together.

    Args:
        run: measures and reports.
        seconds: that it takes on an H100, estimated: it does not begin if less time is left.
        needs_builtin: whether it is of the built-in model.
    """

    run: Callable[[Bench], None]
    seconds: float
    needs_builtin: bool = False


PARTS = {
    "iteration": Part(lambda bench: iterations(bench.report, bench.model, bench.watch), 25),
    "rooms": Part(rooms, 15),
    "steps": Part(steps, 25),
    "edit": Part(whole_edit, 20),
    "memory": Part(memory, 5),
    "channels_last": Part(contiguous, 5),
    "service": Part(service, 30, needs_builtin=True),
    "built-in": Part(builtin, 20, needs_builtin=True),
    "torch.compile": Part(compiled, 90),
}
"""By name, the most important first."""


def measure(report: Report, extent: Extent, *, tiny: bool, only: Sequence[str] = ()) -> None:
    """All parts, or some, as far as there is time."""
    sys.stdout.write("| what | measured | aim | note |\n|--|--:|--|--|\n")
    model = build(BENCHES["tiny" if tiny else "full"])
    report.add(Figure("device", None, "", note=_describe(model)))
    bench = Bench(report, model, extent, tiny)
    for name, part in PARTS.items():
        if (only and name not in only) or (tiny and part.needs_builtin):
            continue
        needed = min(part.seconds, 1.0) if tiny else part.seconds
        if report.seconds_left < needed:
            note = f"not measured: takes about {needed:.0f} s; --only {name!r} measures it alone"
            report.add(Figure(name, None, "", note=note))
            continue
        try:
            with time_limit(report.seconds_left + GRACE):
                part.run(bench)
        except Exception as error:  # the parts after it are still worth having
            report.fail(name, error)
        free(model)


def _describe(model: Diffusion) -> str:
    name = torch.cuda.get_device_name(model.device) if model.device.type == "cuda" else platform.machine()
    return f"{name}, torch {torch.__version__}, {model.name}, {model.dtype}".replace("torch.", "", 1)
