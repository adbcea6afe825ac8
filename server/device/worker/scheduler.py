"""Scheduler: which room takes the next step on a device, and how long a room has to wait for a place on it.

It has no clock and measures nothing: the caller says how long each step took.
"""

from __future__ import annotations

import enum
from bisect import insort
from collections.abc import Collection, Mapping, Sequence

BACKGROUND_EVERY = 4
"""While runs are dragged, one of so many steps is a background step: it is slowed down, not starved."""
MAX_LEAD = 0.5
"""Seconds of device time that a room may be ahead of the others and still go first after an edit."""


class Priority(enum.IntEnum):
    """Of a room's next step. All but `RUN` are the background, in which a run's fitting precedes preparations."""

    RUN = 0
    FITTING = 1
    PREPARATION = 2


class Scheduler:
    """Shares a device's time fairly among rooms, one step at a time; rooms may take a step together."""

    def __init__(self) -> None:
        self._spent: dict[str, float] = {}
        self._latest: dict[str, float] = {}
        self._prioritized: set[str] = set()
        self._since_background = 0  # steps

    @property
    def spent(self) -> Mapping[str, float]:
        """Seconds of device time by room. A room that enters starts at the least of those present."""
        return self._spent

    def enter(self, room: str, present: Collection[str]) -> None:
        """A room has work from now on, beside those present: it neither waits behind them nor has saved up time."""
        others = [self._spent[other] for other in present if other != room and other in self._spent]
        self._spent[room] = max(self._spent.get(room, 0.0), min(others, default=0.0))

    def leave(self, room: str) -> None:
        """A room has left the device."""
        self._spent.pop(room, None)
        self._latest.pop(room, None)
        self._prioritized.discard(room)

    def prioritize(self, room: str) -> None:
        """Its run was edited, and someone is looking for the effect: its next step goes first."""
        self._prioritized.add(room)

    def choose(self, ready: Mapping[str, Priority]) -> str:
        """The room that takes the next step, of those that are ready; there must be one."""
        foreground = [room for room, priority in ready.items() if priority == Priority.RUN]
        background = [room for room, priority in ready.items() if priority != Priority.RUN]
        if background and (not foreground or self._since_background >= BACKGROUND_EVERY - 1):
            self._since_background = 0
            return min(background, key=lambda room: (ready[room], self._spent[room]))
        self._since_background += 1
        least = min(self._spent[room] for room in foreground)
        first = [room for room in foreground if room in self._prioritized and self._spent[room] <= least + MAX_LEAD]
        chosen = min(first or foreground, key=lambda room: self._spent[room])
        self._prioritized.discard(chosen)
        return chosen

    def company(self, chosen: str, others: Collection[str]) -> list[str]:
        """The rooms that may share the step of the chosen one, least time first: none more than a step ahead of it.

        Args:
            chosen: by `choose`.
            others: that could share its step.
        """
        ahead = self._spent[chosen] + self._latest.get(chosen, 0.0)
        return sorted((room for room in others if self._spent[room] <= ahead), key=lambda room: self._spent[room])

    def join(self, company: Collection[str]) -> None:
        """These rooms share the step of the chosen one, which is their next one too."""
        self._prioritized.difference_update(company)

    def charge(self, room: str, seconds: float) -> None:
        """A step of this room has taken so long, or its share of a step that it took with others."""
        self._spent[room] += seconds
        self._latest[room] = seconds


def seconds_for(steps: Mapping[str, int], pace: Mapping[str, float]) -> float | None:
    """Seconds for these steps, by stage, at a pace of seconds a step; None where the pace of one is not known yet."""
    if any(count and stage not in pace for stage, count in steps.items()):
        return None
    return sum(count * pace[stage] for stage, count in steps.items() if count)


def wait(running: Sequence[float], ahead: Sequence[float]) -> float:
    """Seconds until the next in the queue gets a place.

    Args:
        running: seconds of device time that each run with a place still needs; they share the device equally.
        ahead: seconds that each of those ahead in the queue needs, the first one first.
    """
    going, at = sorted(running), 0.0
    for need in (*ahead, 0.0):
        if not going:
            return at
        least = going[0]
        at += least * len(going)
        going = [left - least for left in going[1:]]
        insort(going, need)
    return at
