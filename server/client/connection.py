"""Connection: a WebSocket to one room that reconnects, resumes and sends again what had no answer."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake

from livedrag.server.client.replica import Answer, Gap, Replica
from livedrag.server.document.protocol import (
    FINAL_CLOSES,
    VERSION,
    ClientMessage,
    Ping,
    Request,
    ServerMessage,
    Welcome,
    decode_server,
    encode,
)

log = logging.getLogger(__name__)

BACKOFF_SECONDS = (0.1, 0.3, 1.0, 3.0, 5.0)
"""Before the first, second, ... attempt to reconnect, plus or minus a half; the last one repeats."""
CONNECT_SECONDS = 10.0

Receive = Callable[[ServerMessage, Answer | None], Awaitable[None]]
"""Takes a message, and the same one again if it answers a pending request."""


class Connection:
    """A connection to a room, with a replica of its document.

    Attributes:
        socket: the current WebSocket.
        welcome: the server's answer to the latest ``hello``.
        count: of successful connections.
    """

    welcome: Welcome
    socket: ClientConnection

    def __init__(
        self, address: str, room: str, *, headers: Mapping[str, str], hello: Mapping[str, Any], receive: Receive
    ) -> None:
        parts = urlsplit(address)
        self.replica = Replica()
        self.count = 0
        self._url = f"{'wss' if parts.scheme == 'https' else 'ws'}://{parts.netloc}{parts.path}/ws/{room}"
        self._room = room
        self._headers = headers
        self._hello = hello
        self._receive = receive

    async def open(self) -> None:
        """Connect, wait until the replica is up to date, then send what had no answer."""
        self.socket = await connect(
            self._url,
            subprotocols=[VERSION],
            max_size=None,
            compression=None,
            proxy=None,
            open_timeout=CONNECT_SECONDS,
            additional_headers=self._headers,
        )
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self.send(self.replica.hello(**self._hello))
                while not self.replica.connected:
                    await self._take(decode_server(await self.socket.recv()))
        except BaseException:
            await self.socket.close()
            raise
        self.count += 1
        for request in self.replica.resend():
            await self.send(request)

    async def stay(self, *, reconnect: bool) -> Exception:
        """Receive messages, and reconnect as long as it makes sense; returns why it ended."""
        try:
            end = await self._receive_all()
            while reconnect and _close_code(end) not in FINAL_CLOSES:
                end = await self._reconnect(end)
        except Exception as error:  # such as a message of another protocol: the next one would be no better
            end = error
        self.replica.lose()
        self.socket.transport.abort()
        return end

    async def request(self, request: Request) -> None:
        """Send a request now or, without a connection, after the next one is made."""
        self.replica.ask(request)
        if self.replica.connected:
            with contextlib.suppress(ConnectionClosed):  # it is sent again over the next one
                await self.send(request)

    async def send(self, message: ClientMessage) -> None:
        """Send a message over the current connection. Raises `ConnectionClosed`."""
        await self.socket.send(encode(message))

    async def close(self) -> None:
        await self.socket.close()

    async def _reconnect(self, end: Exception) -> Exception:
        """Try to connect until it succeeds, then receive; returns why this ended."""
        failures = 0
        while True:
            log.info("the connection of room %s broke (%s): reconnecting", self._room, end)
            pause = BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)]
            await asyncio.sleep(pause * random.uniform(0.5, 1.5))
            try:
                await self.open()
            except (ConnectionClosed, InvalidHandshake, Gap, OSError, TimeoutError) as error:
                failures, end = failures + 1, error
                if _close_code(end) in FINAL_CLOSES:
                    return end
            else:
                return await self._receive_all()

    async def _receive_all(self) -> Exception:
        """Receive messages while the connection lasts, and send heartbeats; returns why it ended."""
        heartbeat = asyncio.create_task(self._send_heartbeats())
        try:
            while True:
                async with asyncio.timeout(self.welcome.deadline):
                    packed = await self.socket.recv()
                await self._take(decode_server(packed))
        except (ConnectionClosed, Gap, TimeoutError) as end:
            self.socket.transport.abort()  # closing would wait for a peer that may be gone
            return end
        finally:
            self.replica.lose()
            heartbeat.cancel()
            await asyncio.gather(heartbeat, return_exceptions=True)

    async def _send_heartbeats(self) -> None:
        with contextlib.suppress(ConnectionClosed):
            while True:
                await asyncio.sleep(self.welcome.heartbeat)
                await self.send(Ping(time=asyncio.get_running_loop().time()))

    async def _take(self, message: ServerMessage) -> None:
        answer = self.replica.receive(message)
        if isinstance(message, Welcome):
            self.welcome = message
        await self._receive(message, answer)


def _close_code(end: Exception) -> int | None:
    return end.rcvd.code if isinstance(end, ConnectionClosed) and end.rcvd else None
