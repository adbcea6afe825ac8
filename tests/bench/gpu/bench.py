"""What all parts share: how much is done, on which model, and how it is timed."""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from livedrag.editor import Diffusion, Drag, DragSession, Point
from livedrag.editor.models.graphs import Graphs
from tests.bench.drag import STILL
from tests.bench.gpu.report import Report
from tests.bench.model import picture_for, settings_for
from tests.recorders import recorder_for

MIN_REPEATS, MAX_REPEATS = 3, 30
REPEAT_SECONDS = 1.5
"""A case is repeated for so long, within these bounds."""
WARM_UPS = 4
"""Runs before those that count: graphs are recorded in the third run of a kind."""
HEAD_START = 20_000_000
"""Cycles that a device is kept busy, about 10 ms, while the host gives it what is timed."""


@dataclass(frozen=True)
class Extent:
    """How much is done: of a whole edit, and of the longest repetitions."""

    lora_steps: int = 80
    ddim_steps: int = 50
    iterations: int = 40
    rooms: tuple[int, ...] = (1, 2, 4, 8)
    repeat_seconds: float = REPEAT_SECONDS


TINY = Extent(lora_steps=2, ddim_steps=6, iterations=3, rooms=(1, 2), repeat_seconds=0.0)


class Stopwatch:
    """Times work on a device, once it is warm.

    Args:
        device: that is waited for.
        seconds: for which a case is repeated.
    """

    def __init__(self, device: torch.device, seconds: float) -> None:
        self._device, self._seconds = device, seconds

    def milliseconds(self, work: Callable[[], object], warm_ups: int = WARM_UPS) -> float:
        """Of one run of the work, the median."""
        for _ in range(warm_ups):
            work()
        gc.collect()  # not while something is timed
        return 1000 * statistics.median(self.once(work) for _ in self._repeats())

    def milliseconds_in_a_row(self, work: Callable[[], object], warm_ups: int = WARM_UPS) -> float:
        """Of one of several runs, the mean, between which nothing waits for the device but the work itself."""
        for _ in range(warm_ups):
            work()
        gc.collect()
        began, count = self._now(), 0
        for _ in self._repeats():
            work()
            count += 1
        return 1000 * (self._now() - began) / count

    def milliseconds_on_device(self, work: Callable[[], object]) -> float:
        """Of one run of the work, the median; on CUDA without what the host takes to start it."""
        if self._device.type != "cuda":
            return self.milliseconds(work)
        times: list[float] = []
        for _ in self._repeats():
            began, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            torch.cuda._sleep(HEAD_START)
            began.record()
            work()
            end.record()
            end.synchronize()
            times.append(began.elapsed_time(end))
        return statistics.median(times)

    def once(self, work: Callable[[], object]) -> float:
        """Seconds of one run of the work."""
        began = self._now()
        work()
        return self._now() - began

    def _repeats(self) -> Iterator[int]:
        end, count = time.monotonic() + self._seconds, 0
        while count < MIN_REPEATS or (time.monotonic() < end and count < MAX_REPEATS):
            yield count
            count += 1

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


@dataclass(frozen=True)
class Bench:
    """What the parts measure, and how.

    Args:
        report: of all figures.
        model: of Stable Diffusion 1.5's shape, or the tiny one.
        extent: of all parts.
        tiny: whether the script itself is tested.
    """

    report: Report
    model: Diffusion
    extent: Extent
    tiny: bool

    @property
    def watch(self) -> Stopwatch:
        """For the model's device."""
        return Stopwatch(self.model.device, self.extent.repeat_seconds)


def free(model: Diffusion) -> None:
    """Give back what a part has held."""
    if model.graphs is not None:
        model.graphs.clear()
    gc.collect()
    if model.device.type == "cuda":
        torch.cuda.empty_cache()


@contextlib.contextmanager
def graphs_switched(model: Diffusion, *, on: bool, eager_runs: int = 2) -> Iterator[None]:
    """Within this block the model's passes run from graphs, after so many runs of a kind; or none does."""
    before, model.graphs = model.graphs, Graphs(recorder_for(model), eager_runs=eager_runs) if on else None
    try:
        yield
    finally:
        model.graphs = before


def prepared(model: Diffusion, *, masked: bool = True) -> DragSession:
    """A session that is ready to be dragged; its LoRA is not fitted, which makes no difference to speed."""
    settings = settings_for(model, lora_steps=0, ddim_steps=2, latent_lr=STILL, max_iterations=10_000)
    session = DragSession(model, picture_for(model), settings=settings)
    for _ in session.prepare():
        pass
    side = model.native_side
    session.add_drag("a", Drag(Point(side / 4, side / 2), Point(side * 3 / 4, side / 2)))
    left_half = np.zeros((side, side), dtype=bool)
    left_half[:, : side // 2] = True
    session.set_mask(left_half if masked else None)
    return session


def noise_picture(model: Diffusion) -> Tensor:
    side = model.native_side
    return torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0)) * 2 - 1
