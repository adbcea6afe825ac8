"""A clock that tests advance, in place of waiting."""

from __future__ import annotations

import asyncio
import time

from livedrag.server.rooms.clock import Clock


class FakeClock(Clock):
    """Starts at the real time and stands still until `advance`."""

    def __init__(self) -> None:
        self._now = time.time()
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def now(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        sleeper = (self._now + seconds, asyncio.get_running_loop().create_future())
        self._sleepers.append(sleeper)
        try:
            await sleeper[1]
        finally:
            self._sleepers.remove(sleeper)

    @property
    def sleeping(self) -> int:
        """How many tasks wait for the clock."""
        return len(self._sleepers)

    def advance(self, seconds: float) -> None:
        """Let time pass; what sleeps until then continues when the event loop runs."""
        self._now += seconds
        for due, woken in self._sleepers:
            if due <= self._now and not woken.done():
                woken.set_result(None)
