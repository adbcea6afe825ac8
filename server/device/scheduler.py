"""Scheduler: whose turn it is on a device, and how long those wait who have no place on it yet.

It measures nothing and knows no clock: whoever gives the turns says how long they took.
"""

from __future__ import annotations

import enum
from bisect import insort
from collections.abc import Collection, Mapping, Sequence

BACKGROUND_EVERY = 4
"""One of so many turns goes to the background, where something waits there: it is slowed down, not starved."""
HASTE = 0.5
"""Seconds of device time that a room may be ahead of the least and still go first after an edit."""


class Rank(enum.IntEnum):
    """What the next step of a room is for. Fitting is the background, first for those who wait for it."""

    RUN = 0
    FITTING = 1
    PREPARING = 2


class Scheduler:
    """Shares a device's time among rooms, one step at a time."""

    def __init__(self) -> None:
        self._spent: dict[str, float] = {}
        self._hurried: set[str] = set()
        self._foreground = 0  # turns since the background had one

    @property
    def spent(self) -> Mapping[str, float]:
        """Seconds of device time by room; a newcomer begins with those of the room that it found least ahead."""
        return self._spent

    def enter(self, room: str, present: Collection[str]) -> None:
        """A room has work from now on, beside those present: it neither waits for its turn nor has saved up time."""
        others = [self._spent[other] for other in present if other != room and other in self._spent]
        self._spent[room] = max(self._spent.get(room, 0.0), min(others, default=0.0))

    def leave(self, room: str) -> None:
        """A room has left the device."""
        self._spent.pop(room, None)
        self._hurried.discard(room)

    def hurry(self, room: str) -> None:
        """Somebody has edited something and looks for what comes of it: the room's next step of a run goes first."""
        self._hurried.add(room)

    def choose(self, ready: Mapping[str, Rank]) -> str:
        """The room whose turn it is, of those that are ready; there must be one."""
        foreground = [room for room, rank in ready.items() if rank == Rank.RUN]
        background = [room for room, rank in ready.items() if rank != Rank.RUN]
        if background and (not foreground or self._foreground >= BACKGROUND_EVERY - 1):
            self._foreground = 0
            return min(background, key=lambda room: (ready[room], self._spent[room]))
        self._foreground += 1
        least = min(self._spent[room] for room in foreground)
        hurried = [room for room in foreground if room in self._hurried and self._spent[room] <= least + HASTE]
        chosen = min(hurried or foreground, key=lambda room: self._spent[room])
        self._hurried.discard(chosen)
        return chosen

    def charge(self, room: str, seconds: float) -> None:
        """A turn is over."""
        self._spent[room] += seconds


def seconds_for(steps: Mapping[str, int], pace: Mapping[str, float]) -> float | None:
    """What the steps of each stage take together, at a pace of seconds a step; None where one is not known yet."""
    if any(count and stage not in pace for stage, count in steps.items()):
        return None
    return sum(count * pace[stage] for stage, count in steps.items() if count)


def wait(running: Sequence[float], ahead: Sequence[float]) -> float:
    """Seconds until there is a place for whoever comes after those ahead.

    Args:
        running: seconds of device time that each run with a place still needs; they share the device equally.
        ahead: seconds that each of those needs who get a place before, the first one first.
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
