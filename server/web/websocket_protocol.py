"""uvicorn's WebSocket protocol, with an end to every connection."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

ABORT_SECONDS = 3.0
"""How long a client has to read what was sent before its connection was closed."""


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """Aborts a connection some time after closing it.

    Closing alone waits until the client has read everything, and for ever if it never reads.
    """

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self._abort_soon()

    def shutdown(self) -> None:
        super().shutdown()
        self._abort_soon()

    def on_task_complete(self, task: asyncio.Task[None]) -> None:
        super().on_task_complete(task)
        self._abort_soon()

    def _abort_soon(self) -> None:
        if not self.disconnected:
            self.loop.call_later(ABORT_SECONDS, self._abort)

    def _abort(self) -> None:
        if not self.disconnected:
            self.transport.abort()
