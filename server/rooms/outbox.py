"""What waits to be sent to one client, and why a connection ends."""

from __future__ import annotations

import asyncio
import time

from livedrag.server.document.protocol import (
    FRAME_CREDITS,
    Close,
    EngineReport,
    ErrorMessage,
    Frame,
    History,
    Moments,
    People,
    Points,
    Pong,
    Prepared,
    Presences,
    Progress,
    ServerMessage,
    encode,
)
from livedrag.server.errors import LivedragError
from livedrag.server.metrics import Metrics

MAX_WAITING = 2000
"""Reliable messages that may wait for one client."""


VOLATILE = (
    People,
    Presences,
    History,
    Moments,
    EngineReport,
    Prepared,
    Progress,
    Points,
    Pong,
    Frame,
)


class Disconnect(LivedragError):
    """The connection is to be closed with a code and a reason; ``fault`` is what the client is told before."""

    def __init__(self, code: int, fault: ErrorMessage) -> None:
        super().__init__(fault.message)
        self.code = code
        self.fault = fault


class Outbox:
    """What waits to be sent to one client: reliable messages in order, of volatile ones the latest of each kind."""

    def __init__(self, metrics: Metrics | None = None) -> None:
        self._metrics = metrics if metrics is not None else Metrics()
        self._waiting: dict[object, bytes] = {}
        self._frame: Frame | None = None  # the one that waits, or waited last
        self._presences: Presences | None = None  # those that wait
        self._unacknowledged: dict[int, float] = {}  # when they were decoded
        self._next = 0
        self._changed = asyncio.Event()
        self._farewell: Disconnect | None = None
        self._leaving = asyncio.Event()

    def put(self, message: ServerMessage, packed: bytes | None = None) -> None:
        """Send a message when its turn comes; ``packed`` spares encoding it again for every client."""
        key: object = type(message)
        if isinstance(message, Presences) and self._presences is not None:  # each tells of those who have changed
            message, packed = Presences(people={**self._presences.people, **message.people}), None
        if isinstance(message, VOLATILE):
            replaced = self._waiting.pop(key, None)  # its successor waits in its own place, behind what it depends on
            if replaced is not None and key is Frame:
                self._metrics.frames.labels("replaced").inc()
        else:
            key = self._next = self._next + 1
        if isinstance(message, Frame):
            self._frame = message
        elif isinstance(message, Presences):
            self._presences = message
        self._waiting[key] = packed if packed is not None else encode(message)
        self._changed.set()
        if len(self._waiting) > MAX_WAITING:
            text = f"{MAX_WAITING} messages wait to be read by this client"
            self.dismiss(Disconnect(Close.TIMED_OUT, ErrorMessage(reason="timed_out", message=text)))

    def dismiss(self, farewell: Disconnect) -> None:
        """Let the client go, without waiting for it to take what waits."""
        self._farewell = self._farewell or farewell
        self._leaving.set()

    async def dismissed(self) -> None:
        """Wait for the client to be let go. Raises the `Disconnect`."""
        await self._leaving.wait()
        assert self._farewell is not None
        raise self._farewell

    def acknowledge(self, frame: int) -> None:
        """The client has shown or dropped a frame: one credit back."""
        decoded = self._unacknowledged.pop(frame, None)
        if decoded is not None:
            self._metrics.frames.labels("acknowledged").inc()
            self._metrics.frame_age.observe(max(0.0, time.time() - decoded))
        self._changed.set()

    async def get(self) -> bytes:
        """Wait for what is to be sent next."""
        while (packed := self.take()) is None:
            self._changed.clear()
            await self._changed.wait()
        return packed

    def take(self) -> bytes | None:
        """What is to be sent next, if anything may be sent now."""
        for key in self._waiting:
            if key is Frame and len(self._unacknowledged) >= FRAME_CREDITS:
                continue
            if key is Frame and self._frame is not None:
                self._unacknowledged[self._frame.frame] = self._frame.time
                self._metrics.frames.labels("sent").inc()
            if key is Presences:
                self._presences = None
            return self._waiting.pop(key)
        return None
