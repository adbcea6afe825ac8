"""Messages that wait to be sent to one client, and the reason why a connection ends."""

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
from livedrag.server.settings import Settings

MAX_WAITING = 2000
"""Messages that may wait for one client."""


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
    """Ends a connection with a close code; ``error`` is sent to the client before."""

    def __init__(self, code: int, error: ErrorMessage) -> None:
        super().__init__(error.message)
        self.code = code
        self.error = error


class Outbox:
    """Messages for one client: reliable ones in order, of volatile ones the latest of each kind.

    Args:
        max_bytes: of all messages that wait; with more the connection ends.
    """

    def __init__(self, metrics: Metrics | None = None, max_bytes: int = Settings.max_unsent_bytes) -> None:
        self._metrics = metrics if metrics is not None else Metrics()
        self._max_bytes = max_bytes
        self._waiting: dict[object, bytes] = {}
        self._bytes = 0  # of those that wait
        self._frame: Frame | None = None  # the latest, waiting or sent
        self._presences: Presences | None = None  # waiting
        self._unacknowledged: dict[int, float] = {}  # when each was decoded
        self._next = 0
        self._changed = asyncio.Event()
        self._disconnect: Disconnect | None = None
        self._dismissed = asyncio.Event()

    def put(self, message: ServerMessage, packed: bytes | None = None) -> None:
        """Queue a message; ``packed`` is its encoding, if it is known already."""
        if self._dismissed.is_set():
            return
        key: object = type(message)
        if isinstance(message, Presences) and self._presences is not None:  # each has only what has changed
            message, packed = Presences(people={**self._presences.people, **message.people}), None
        if isinstance(message, VOLATILE):
            replaced = self._waiting.pop(key, b"")  # the new one goes to the end, behind what it depends on
            self._bytes -= len(replaced)
            if replaced and key is Frame:
                self._metrics.frames.labels("replaced").inc()
        else:
            key = self._next = self._next + 1
        if isinstance(message, Frame):
            self._frame = message
        elif isinstance(message, Presences):
            self._presences = message
        packed = packed if packed is not None else encode(message)
        self._waiting[key] = packed
        self._bytes += len(packed)
        self._changed.set()
        self._check_size()

    def _check_size(self) -> None:
        if len(self._waiting) > MAX_WAITING:
            text = f"this client has not read {MAX_WAITING} messages"
        elif self._bytes > self._max_bytes:
            text = f"this client has not read {self._bytes} bytes, the limit is {self._max_bytes}"
        else:
            return
        self.dismiss(Disconnect(Close.TIMED_OUT, ErrorMessage(reason="timed_out", message=text)))

    def dismiss(self, disconnect: Disconnect) -> None:
        """End the connection, without waiting for the client to read what is queued."""
        self._disconnect = self._disconnect or disconnect
        self._dismissed.set()
        self._waiting.clear()
        self._bytes = 0

    async def dismissed(self) -> None:
        """Wait until the connection is ended. Raises the `Disconnect`."""
        await self._dismissed.wait()
        assert self._disconnect is not None
        raise self._disconnect

    def acknowledge(self, frame: int) -> None:
        """The client has shown or dropped a frame, which returns one credit."""
        decoded = self._unacknowledged.pop(frame, None)
        if decoded is not None:
            self._metrics.frames.labels("acknowledged").inc()
            self._metrics.frame_age.observe(max(0.0, time.time() - decoded))
        self._changed.set()

    async def get(self) -> bytes:
        """Wait for the next message that may be sent."""
        while (packed := self.take()) is None:
            self._changed.clear()
            await self._changed.wait()
        return packed

    def take(self) -> bytes | None:
        """The next message that may be sent now, if any."""
        for key in self._waiting:
            if key is Frame and len(self._unacknowledged) >= FRAME_CREDITS:
                continue
            if key is Frame and self._frame is not None:
                self._unacknowledged[self._frame.frame] = self._frame.time
                self._metrics.frames.labels("sent").inc()
            if key is Presences:
                self._presences = None
            packed = self._waiting.pop(key)
            self._bytes -= len(packed)
            return packed
        return None
