"""Serving: listening sockets, uvicorn, and an orderly end."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
from collections.abc import Callable

import uvicorn

from livedrag.server.device.engine import Engine
from livedrag.server.errors import LivedragError
from livedrag.server.metrics import named_device
from livedrag.server.rooms.registry import RoomRegistry
from livedrag.server.settings import Settings
from livedrag.server.storage.store import Store
from livedrag.server.web.app import create_app
from livedrag.server.web.connections import Config

log = logging.getLogger(__name__)

UNAVAILABLE = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
"""Errors for an address of a family that this machine does not have."""


class ListenError(LivedragError):
    """The server cannot listen on its address."""


async def serve(settings: Settings, engine: Engine, *, started: Callable[[str, Server], None]) -> None:
    """Serve until a signal, or until `Server.should_exit`.

    Args:
        started: called once with the address and the server, when both the model and the port are ready.

    Raises:
        ListenError: the port is taken.
        StoreError: the data directory cannot be used.
        CheckpointsUrlError: no checkpoints can be stored where they should be.
        EngineError: the model cannot be loaded.
    """
    if "*" in settings.trusted_proxies:
        log.warning(
            "TRUSTED_PROXIES=* believes every client's X-Forwarded-For: anyone can pretend to be any address, "
            "which evades every limit by address. Name the proxy's address instead, unless nothing else can connect"
        )
    with contextlib.ExitStack() as stack:
        listeners = [stack.enter_context(listener) for listener in listen(settings.host, settings.port)]
        store = stack.enter_context(
            Store(settings.data_dir, max_bytes=settings.max_disk, checkpoints_url=settings.checkpoints_url)
        )
        async with RoomRegistry(settings, store, engine) as registry:
            host, port = listeners[0].getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            server = Server(Config(create_app(registry), settings), registry)
            for worker in engine.workers():
                log.info("worker %s: %s of node %s", worker.worker, named_device(worker.device), worker.node)
            started(f"http://{shown}:{port}", server)
            await server.serve(sockets=listeners)


def listen(host: str, port: int) -> list[socket.socket]:
    """Listening sockets at all addresses of a host; ``::`` includes every IPv4 address. Raises `ListenError`."""
    listeners: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = dict.fromkeys((family, str(address[0])) for family, *_, address in found)
        if host == "::":
            addresses[socket.AF_INET, "0.0.0.0"] = None
        for family, address in addresses:
            chosen = listeners[0].getsockname()[1] if listeners else port  # port 0: the same free one for all
            try:
                listeners.append(socket.create_server((address, chosen), family=family, backlog=128))
            except OSError as error:
                if error.errno not in UNAVAILABLE or len(addresses) == 1:
                    raise
        if not listeners:
            raise OSError(errno.EADDRNOTAVAIL, "this machine has none of its addresses")
        return listeners
    except OSError as error:
        for listener in listeners:
            listener.close()
        reason = (error.strerror or str(error)).partition(" (while")[0]  # `create_server` names the address again
        text = f"cannot listen on {host}, port {port}: {reason}. Choose others with --host and --port"
        raise ListenError(text) from error


class Server(uvicorn.Server):
    """uvicorn that does not raise a signal again once it has stopped: the caller has more to close."""

    def __init__(self, config: uvicorn.Config, registry: RoomRegistry) -> None:
        super().__init__(config)
        self._registry = registry

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell clients that they may reconnect, then close their connections."""
        await self._registry.disconnect_all()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: object) -> None:
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True
