"""How many rooms should share a pass: as many as gives each the most passes a second, as measured on this device."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable
from statistics import median

TRIES = 2
"""Passes of a size that are measured before another one is tried."""
LATEST = 8
"""Measurements of a size that count, the latest ones."""
MAX_ROOMS = 8
"""Of one pass: more gain little, and need memory."""


class GroupSizes:
    """Measured seconds per room of passes of 1, 2, 4 and 8 rooms; it has no clock.

    A larger size is tried when it is possible for the first time, unless half of it was not worth it.

    Args:
        warm_ups: first passes of a size, which do not count.
    """

    def __init__(self, warm_ups: int = 1) -> None:
        self._warm_ups = warm_ups
        self._measured: dict[tuple[Hashable, int], deque[float]] = defaultdict(lambda: deque(maxlen=LATEST))
        self._passes: dict[tuple[Hashable, int], int] = defaultdict(int)
        self._limits: dict[Hashable, int] = {}

    def best(self, bucket: Hashable, rooms: int) -> int:
        """The size of the next group, at most ``rooms``.

        Args:
            bucket: what passes have in common that can be shared, and compared.
            rooms: that could share it, at least 1.
        """
        size, best = 1, 1
        while size <= min(rooms, self._limits.get(bucket, MAX_ROOMS)):
            if self._passes[bucket, size] < self._warm_ups + TRIES:
                return size
            if size > 1 and self._seconds(bucket, size) >= self._seconds(bucket, best):
                break
            best, size = size, 2 * size
        return best

    def measure(self, bucket: Hashable, size: int, seconds: float) -> None:
        """The passes of an iteration of so many rooms have taken so long, together."""
        self._passes[bucket, size] += 1
        if self._passes[bucket, size] > self._warm_ups:
            self._measured[bucket, size].append(seconds / size)

    def forbid(self, bucket: Hashable, size: int) -> None:
        """A pass of a group of this size failed, most likely for lack of memory: smaller ones from now on."""
        self._limits[bucket] = max(1, size // 2)

    def _seconds(self, bucket: Hashable, size: int) -> float:
        """Per room."""
        return median(self._measured[bucket, size])
