"""Figures, as they come, and the limits of time that they are taken in."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TextIO


@dataclass(frozen=True)
class Figure:
    """One figure.

    Args:
        name: of what was measured.
        value: None if it was not.
        unit: of the value.
        aim: in words.
        note: why there is no value, or how it was measured.
    """

    name: str
    value: float | None
    unit: str
    aim: str = ""
    note: str = ""


class OutOfTimeError(Exception):
    """The time of the whole run is up."""


class Report:
    """Prints figures, and writes them as lines of JSON, as they come.

    Args:
        file: to write to, if any.
        seconds: after which no further part begins.
    """

    def __init__(self, file: TextIO | None, seconds: float) -> None:
        self._file, self._end, self._began = file, time.monotonic() + seconds, time.monotonic()
        self.values: dict[str, float] = {}

    def measure(self, name: str, unit: str, take: Callable[[], float], aim: str = "", note: str = "") -> None:
        """Note one more figure, or why it could not be taken: the figures after it are still worth having."""
        try:
            self.add(Figure(name, take(), unit, aim, note))
        except OutOfTimeError:
            raise
        except Exception as error:
            self.fail(name, error)

    def fail(self, name: str, error: Exception) -> None:
        """Note why something was not measured."""
        lines = str(error).splitlines() or [""]
        self.add(Figure(name, None, "", note=f"failed: {type(error).__name__}: {lines[0]}"))

    def add(self, figure: Figure) -> None:
        """Note one more figure."""
        if figure.value is not None:
            self.values[figure.name] = figure.value
        shown = "-" if figure.value is None else f"{figure.value:.4g} {figure.unit}"
        sys.stdout.write(f"| {figure.name} | {shown} | {figure.aim} | {figure.note} |\n")
        sys.stdout.flush()
        if self._file is not None:
            self._file.write(json.dumps({**dataclasses.asdict(figure), "at": round(self.elapsed, 1)}) + "\n")
            self._file.flush()

    def ratio(self, name: str, of: str, to: str, aim: str) -> None:
        """Note how two figures compare, if both are there."""
        if of in self.values and to in self.values:
            self.add(Figure(name, self.values[of] / self.values[to], "times", aim))

    @property
    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    @property
    def seconds_left(self) -> float:
        """Until no further part begins."""
        return self._end - time.monotonic()


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Within this block, raise `OutOfTimeError` after so many seconds, where the system has such an alarm."""

    def stop(*_: object) -> None:
        raise OutOfTimeError("the time for all parts is up")

    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
