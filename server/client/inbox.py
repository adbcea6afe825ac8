"""Inbox: the latest messages of the server, and waiting for the next ones."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from livedrag.server.document.protocol import ServerMessage

Record = TypeVar("Record")


class Inbox:
    """The latest messages, oldest first.

    Attributes:
        messages: at most ``size`` of them.
        count: of all messages so far.
        end: why no more will come.
    """

    def __init__(self, size: int) -> None:
        self.messages: list[ServerMessage] = []
        self.count = 0
        self.end: BaseException | None = None
        self._size = size
        self._changed = asyncio.Condition()

    async def add(self, message: ServerMessage) -> None:
        async with self._changed:
            self.messages.append(message)
            self.count += 1
            del self.messages[: max(0, len(self.messages) - self._size)]
            self._changed.notify_all()

    async def close(self, end: BaseException) -> None:
        """No more messages will come, because of ``end``."""
        async with self._changed:
            self.end = end
            self._changed.notify_all()

    async def wait(self, kind: type[Record], wanted: Callable[[Record], bool], *, since: int) -> Record:
        """The first message of a kind after the first ``since`` messages. Raises `end` if there will be none."""
        async with self._changed:
            while True:
                for message in self.after(since):
                    if isinstance(message, kind) and wanted(message):
                        return message
                if self.end is not None:
                    raise self.end
                since = max(since, self.count)
                await self._changed.wait()

    async def iterate(self, since: int) -> AsyncIterator[ServerMessage]:
        """All messages after the first ``since``, as far as they are still here, and those to come."""
        while True:
            news, since = self.after(since), self.count
            for message in news:
                yield message
            async with self._changed:
                while self.count == since:
                    if self.end is not None:
                        return
                    await self._changed.wait()

    def after(self, since: int) -> list[ServerMessage]:
        """Those of the messages after the first ``since`` that are still here."""
        return self.messages[max(0, since - (self.count - len(self.messages))) :]
