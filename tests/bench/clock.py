"""Seconds that the device really took, by case, and taking turns."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence

import torch


class Clock:
    """Collects seconds by case. Work queued on a device is waited for before and after each timing.

    Attributes:
        times: seconds of each repetition, by case.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.times: dict[str, list[float]] = defaultdict(list)

    def now(self) -> float:
        """Seconds, once the device is idle."""
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        elif self._device.type == "mps":
            torch.mps.synchronize()
        return time.perf_counter()

    @contextlib.contextmanager
    def timing(self, case: str) -> Iterator[None]:
        began = self.now()
        yield
        self.times[case].append(self.now() - began)

    def median(self, case: str) -> float:
        return statistics.median(self.times[case])

    def take_turns(self, visits: Sequence[Callable[[], None]], *, rounds: int, warm_up: bool) -> None:
        """Visit each in turn, A B A B, so that what slows the machine slows all; the warm-up does not count."""
        before = {case: len(seconds) for case, seconds in self.times.items()}
        for visit in visits if warm_up else ():
            visit()
        for case, seconds in self.times.items():
            del seconds[before.get(case, 0) :]
        for _ in range(rounds):
            for visit in visits:
                visit()
