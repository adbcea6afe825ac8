"""Limits on connections, below the application: how many there are, how long they may be silent, how many frames.

uvicorn's protocols are extended here because it bounds neither: a connection that never sends a request stays, and
asyncio logs every connection that it cannot accept once the process is out of file descriptors.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import time
from collections import Counter

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from websockets.frames import Frame

from livedrag.server.access.rate_limits import Buckets, network_of
from livedrag.server.settings import Rate, Settings
from livedrag.server.web.websocket_protocol import WebSocketProtocol

log = logging.getLogger(__name__)

HEAD_SECONDS = 10.0
"""How long a client may take for the head of a request, from the connection or its first byte on."""
BODY_SECONDS = 30.0
"""How long a client may send nothing of a body that it has announced."""
FRAME_RATE = Rate(100, 1000)
"""Control frames and fragments of one WebSocket: those that the application does not see."""
MAX_FRAGMENTS = 1000
"""Of one message."""
OTHER_FILES = 200
"""File descriptors that are left for all but connections."""
LOG_SECONDS = 60.0


class ConnectionLimits:
    """Counts connections, in all and by address.

    Args:
        total: of all addresses.
        per_address: of one, except for proxies, behind which many clients are.
    """

    def __init__(self, total: int, per_address: int, proxies: tuple[str, ...] = ()) -> None:
        self._total = total
        self._per_address = per_address
        self._proxies = proxies
        self._open = Counter[str]()
        self._logged = -LOG_SECONDS

    def add(self, address: str) -> bool:
        """Count a new connection; False, without counting it, if there are too many."""
        network = network_of(address)
        if self._open.total() >= self._total:
            self._log("max_connections", self._total)
        elif self._open[network] >= self._per_address and address not in self._proxies and "*" not in self._proxies:
            self._log("max_connections_per_address", self._per_address)
        else:
            self._open[network] += 1
            return True
        return False

    def remove(self, address: str) -> None:
        """Forget a connection that was counted."""
        network = network_of(address)
        self._open[network] -= 1
        if not self._open[network]:
            del self._open[network]

    def _log(self, setting: str, limit: int) -> None:
        """One line a minute, or an attack would fill the disk with them."""
        if time.monotonic() - self._logged >= LOG_SECONDS:
            self._logged = time.monotonic()
            log.warning("refusing connections: %d are open, the most allowed (%s)", limit, setting)


class Config(uvicorn.Config):
    """uvicorn's configuration, with limits on connections and pings by the server.

    Frames are not compressed by the protocol, since they are compressed pictures.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        super().__init__(
            app,
            http=HTTPConnection,
            ws=WebSocketConnection,
            ws_per_message_deflate=False,
            ws_max_size=16 * settings.max_message_bytes,  # beyond our own limit, whose error says more
            ws_ping_interval=settings.heartbeat,
            ws_ping_timeout=settings.deadline - settings.heartbeat,
            proxy_headers=bool(settings.trusted_proxies),
            forwarded_allow_ips=list(settings.trusted_proxies),
            lifespan="off",
            log_config=None,
            access_log=settings.log_level == "debug",
            server_header=False,
            timeout_graceful_shutdown=3,
        )
        total = min(settings.max_connections, max(1, _max_files() - OTHER_FILES))
        self.limits = ConnectionLimits(total, settings.max_connections_per_address, settings.trusted_proxies)


class HTTPConnection(H11Protocol):
    """An HTTP connection that must not be silent where a request is expected."""

    config: Config
    _address: str | None = None  # once it is counted
    _deadline: asyncio.TimerHandle | None = None
    _awaiting_head = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Count the connection, or refuse it."""
        super().connection_made(transport)
        address = self.client[0] if self.client else ""
        if self.config.limits.add(address):
            self._address = address
            self._watch()
        else:
            transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take bytes; those of a head are not in time for ever."""
        super().data_received(data)
        self._watch()

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        """Hand over to `WebSocketConnection`, which counts the connection itself."""
        self._forget()
        super().handle_websocket_upgrade(event)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._forget()
        super().connection_lost(exc)

    def _watch(self) -> None:
        """Set the deadline that belongs to what the client must send next, if it must."""
        if self._address is None:
            return
        awaiting_head = self.conn.their_state is h11.IDLE
        if awaiting_head and self._awaiting_head:
            return  # a byte now and then does not move the deadline
        self._unwatch()
        self._awaiting_head = awaiting_head
        if awaiting_head or self.conn.their_state is h11.SEND_BODY:
            seconds = HEAD_SECONDS if awaiting_head else BODY_SECONDS
            self._deadline = self.loop.call_later(seconds, self._expire)

    def _expire(self) -> None:
        if self.flow.read_paused:  # it is the application that does not read
            self._awaiting_head = False
            self._watch()
        else:
            self.transport.abort()

    def _unwatch(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline, self._awaiting_head = None, False

    def _forget(self) -> None:
        self._unwatch()
        if self._address is not None:
            self.config.limits.remove(self._address)
            self._address = None


class WebSocketConnection(WebSocketProtocol):
    """A WebSocket whose control frames and fragments are counted: the application sees whole messages only."""

    config: Config
    _address: str | None = None  # once it is counted
    _frames: Buckets | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection, or refuse it."""
        super().connection_made(transport)
        address = self.client[0] if self.client else ""
        if self.config.limits.add(address):
            self._address, self._frames = address, Buckets(FRAME_RATE)
        else:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        if self._address is not None:
            self.config.limits.remove(self._address)
            self._address = None
        super().connection_lost(exc)

    def handle_ping(self) -> None:
        """Answer a ping, unless there are too many."""
        if self._is_frame_allowed():
            super().handle_ping()

    def handle_pong(self, event: Frame) -> None:
        """Take a pong, unless there are too many."""
        if self._is_frame_allowed():
            super().handle_pong(event)

    def handle_cont(self, event: Frame) -> None:
        """Take a fragment of a message, unless there are too many."""
        if self._is_frame_allowed(len(self.frames) < MAX_FRAGMENTS):
            super().handle_cont(event)

    def _is_frame_allowed(self, allowed: bool = True) -> bool:
        if allowed and self._frames is not None and not self._frames.take("", self.loop.time()):
            return True
        if not self.transport.is_closing():
            log.info("closing a connection with too many control frames or fragments")
            self.transport.abort()
        return False


def _max_files() -> int:
    """Raise the limit of file descriptors as far as this process may; returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (OSError, ValueError):  # macOS has a hard limit that cannot be set
        return soft
    return hard if hard != resource.RLIM_INFINITY else 2**20
