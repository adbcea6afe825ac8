"""Streams: connected sockets, without TLS or with it, on which one thread may send while another one receives."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

AT_ONCE = 2**16
"""Bytes that are received at once, if so many have come."""


class Stream:
    """A connected socket.

    Args:
        connection: connected.
        seconds: after which `receive` and `send` give up, if nothing comes or is taken meanwhile.
    """

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._socket = connection
        self._received = bytearray()
        self.set_timeout(seconds)

    def set_timeout(self, seconds: float) -> None:
        """After which `receive` and `send` give up. No thread may be in one of them."""
        self._socket.settimeout(seconds)

    def receive(self, size: int) -> bytes:
        """Exactly so many bytes. Raises `OSError` where the other end is gone or silent.

        What has come beyond them is kept for the next call: each call of the system lets other threads run first.
        """
        while len(self._received) < size:
            part = self._receive_some(min(max(AT_ONCE, size - len(self._received)), 2**20))
            if not part:
                raise ConnectionResetError("the other end has closed the connection")
            self._received += part
        wanted = bytes(self._received[:size])
        del self._received[:size]
        return wanted

    def send(self, data: bytes) -> None:
        """All of these bytes. Raises `OSError` where the other end is gone, or takes nothing."""
        left = memoryview(data)
        while left:
            left = left[self._send_some(left) :]

    def close(self) -> None:
        """Close it; both ends notice."""
        with contextlib.suppress(OSError):  # the other end is gone already
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes threads that wait
        self._socket.close()

    def _receive_some(self, most: int) -> bytes:
        """What has come, at least a byte of it; empty: the other end has closed the connection."""
        return self._socket.recv(most)

    def _send_some(self, data: memoryview) -> int:
        """Send some of these bytes; returns how many."""
        return self._socket.send(data)


class TlsStream(Stream):
    """The same with TLS, whose handshake is done. An SSL object must not be used by two threads: a lock is held in each
    use of it, and never while one waits."""

    def __init__(self, connection: ssl.SSLSocket, seconds: float) -> None:
        self._lock = threading.Lock()
        super().__init__(connection, seconds)
        connection.setblocking(False)

    def set_timeout(self, seconds: float) -> None:
        self._seconds = seconds

    def close(self) -> None:
        with self._lock:
            super().close()

    def _receive_some(self, most: int) -> bytes:
        return self._when_ready(lambda: self._socket.recv(most))

    def _send_some(self, data: memoryview) -> int:
        return self._when_ready(lambda: self._socket.send(data))

    def _when_ready(self, use: Callable[[], T]) -> T:
        """Use the socket once it is ready: TLS may have to write before one can read, and the other way round."""
        deadline = time.monotonic() + self._seconds
        while True:
            try:
                with self._lock:
                    return use()
            except ssl.SSLWantReadError:
                self._wait(select.POLLIN, deadline)
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT, deadline)

    def _wait(self, for_what: int, deadline: float) -> None:
        number = self._socket.fileno()
        if number < 0:
            raise ConnectionResetError("this end has closed the connection")
        waiting = select.poll()
        waiting.register(number, for_what)
        if not waiting.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise TimeoutError("the other end is silent")
