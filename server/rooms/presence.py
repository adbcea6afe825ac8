"""The cursors and selections of the people in a room, sent in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from livedrag.server.document.protocol import PRESENCE_RATE, PersonPresence, Presences


class PresenceBoard:
    """The latest presence of each person.

    Args:
        broadcast: sends what has changed to everyone, at most `PRESENCE_RATE` times a second.
    """

    def __init__(self, broadcast: Callable[[Presences], None]) -> None:
        self.people: dict[str, PersonPresence] = {}
        self._broadcast = broadcast
        self._changed: dict[str, PersonPresence | None] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._last_broadcast = 0.0

    def update(self, person: str, presence: PersonPresence) -> None:
        self.people[person] = presence
        self._schedule(person, presence)

    def remove(self, person: str) -> None:
        if self.people.pop(person, None) is not None:
            self._schedule(person, None)

    def _schedule(self, person: str, presence: PersonPresence | None) -> None:
        self._changed[person] = presence
        if self._timer is None:
            loop = asyncio.get_running_loop()
            due = max(loop.time(), self._last_broadcast + 1 / PRESENCE_RATE)
            self._timer = loop.call_at(due, self._flush)

    def _flush(self) -> None:
        self._timer, self._last_broadcast = None, asyncio.get_running_loop().time()
        changed, self._changed = self._changed, {}
        self._broadcast(Presences(people=changed))
