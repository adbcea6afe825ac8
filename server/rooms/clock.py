"""The time, as the rooms see it."""

from __future__ import annotations

import asyncio
import time


class Clock:
    """The time; tests have one that they can advance."""

    def now(self) -> float:
        """Seconds since the epoch."""
        return time.time()

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
