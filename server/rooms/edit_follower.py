"""What happens in a room's run, for a script that waits for its end."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TYPE_CHECKING

from livedrag.server.document.protocol import Ended, ErrorMessage, Frame, Points, Progress, ServerMessage

if TYPE_CHECKING:
    from livedrag.server.rooms.room import LiveRoom

MAX_POINTS = 10_000
"""Iterations whose points wait for a script that does not read."""

RunMessage = Progress | Points | Frame | ErrorMessage | Ended


class EditFollower:
    """Follows a room, which stays open meanwhile; use it as a context manager.

    Progress and previews are volatile: of each only the latest waits. Points wait for every iteration.
    """

    def __init__(self, room: LiveRoom) -> None:
        self._room = room
        self._latest: dict[type, RunMessage] = {}
        self._points: deque[Points] = deque(maxlen=MAX_POINTS)
        self._changed = asyncio.Event()
        self._closed = False

    def __enter__(self) -> EditFollower:
        self._room.followers.add(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._room.unfollow(self)

    def take(self, message: ServerMessage) -> None:
        """The room has sent a message to everyone."""
        if isinstance(message, Points):
            self._points.append(message)
        elif isinstance(message, Progress | Frame | ErrorMessage | Ended):
            self._latest[type(message)] = message
        else:
            return
        self._changed.set()

    def close(self) -> None:
        """The room is closed or deleted: nothing more comes."""
        self._closed = True
        self._changed.set()

    async def messages(self, pause: float) -> AsyncIterator[RunMessage | None]:
        """Until the end of the run or of the room; None after each ``pause``, in seconds, without a message."""
        while True:
            try:
                await asyncio.wait_for(self._changed.wait(), pause)
            except TimeoutError:
                yield None
                continue
            self._changed.clear()
            end = self._latest.pop(Ended, None)
            waiting = [*self._points, *self._latest.values()]
            self._points.clear()
            self._latest.clear()
            for message in waiting:
                yield message
            if end is not None:
                yield end
            if end is not None or self._closed:
                return
