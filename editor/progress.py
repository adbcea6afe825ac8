"""What the commands say while they work: progress bars, laps of time, memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TypeVar

Step = TypeVar("Step")
Value = TypeVar("Value")


class Clock:
    """Times the parts of a command, in seconds.

    Attributes:
        laps: by part.
    """

    def __init__(self) -> None:
        self._start = self._last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """A part has ended."""
        now = time.perf_counter()
        self.laps[name], self._last = now - self._last, now

    def total(self) -> float:
        """Since the beginning."""
        return time.perf_counter() - self._start


def peak_memory_mb() -> float:
    """Of this process, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def with_progress(
    steps: Iterable[Step], stage: str, total: int | None, describe: Callable[[Step], str] | None = None
) -> Iterator[Step]:
    """The steps, with a progress bar if standard error is a terminal."""
    from tqdm.auto import tqdm

    with tqdm(total=total, desc=f"{stage:<10}", unit="step", disable=not sys.stderr.isatty(), file=sys.stderr) as bar:
        for step in steps:
            if describe is not None:
                bar.set_postfix_str(describe(step), refresh=False)
            bar.update()
            yield step


def returned(steps: Generator[object, None, Value]) -> Value:
    """Take all steps of a generator; returns what it returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            value: Value = end.value
            return value
