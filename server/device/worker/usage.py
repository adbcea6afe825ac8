"""DeviceUsage: what the steps on a device have taken so far, and what those to come will take."""

from __future__ import annotations

from collections.abc import Mapping

from livedrag.server.device.worker.scheduler import seconds_for

SMOOTHING = 0.2
"""Weight of the latest step in the pace of its stage."""


class DeviceUsage:
    """Counts steps and seconds since the worker began."""

    def __init__(self) -> None:
        self.steps: dict[str, int] = {}
        self.seconds: dict[str, float] = {}
        self.seconds_of_room: dict[str, float] = {}
        self._pace: dict[str, float] = {}

    def add(self, room: str, stage: str, seconds: float) -> None:
        """A step of this stage has taken so long."""
        self.seconds_of_room[room] = self.seconds_of_room.get(room, 0.0) + seconds
        self.steps[stage] = self.steps.get(stage, 0) + 1
        self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds
        self._pace[stage] = (1 - SMOOTHING) * self._pace.get(stage, seconds) + SMOOTHING * seconds

    def leave(self, room: str) -> None:
        """A room has left the device."""
        self.seconds_of_room.pop(room, None)

    def estimate(self, steps: Mapping[str, int]) -> float | None:
        """Seconds for so many steps of each stage; None until a step of each stage has been timed."""
        return seconds_for(steps, self._pace)
