"""DeviceSeconds: how much device time each room has had since the server started."""

from __future__ import annotations

from collections.abc import Iterable

from livedrag.server.metrics import DeviceStats

MAX_ROOMS = 10_000
"""Rooms in memory; of more, those that have waited longest are forgotten."""


class DeviceSeconds:
    """Adds up what workers report, each time from the last moment that a room came onto their device."""

    def __init__(self) -> None:
        self._total: dict[str, float] = {}
        self._seen: dict[tuple[str, str], float] = {}  # by worker and room, in the latest report

    def note(self, workers: Iterable[DeviceStats]) -> None:
        """Take in a report; to be called about as often as workers report."""
        seen: dict[tuple[str, str], float] = {}
        for worker in workers:
            for room, seconds in worker.rooms.items():
                before = self._seen.get((worker.worker, room), 0.0)
                # Less than before: it has left the device and come back.
                added = seconds - before if seconds >= before else seconds
                self._total[room] = self._total.pop(room, 0.0) + added
                seen[worker.worker, room] = seconds
        self._seen = seen
        while len(self._total) > MAX_ROOMS:
            del self._total[next(iter(self._total))]

    def of(self, room: str) -> float:
        """Seconds of device time of a room."""
        return self._total.get(room, 0.0)
