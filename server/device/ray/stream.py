"""Stream: a connected socket, with TLS or without, on which one thread may send while another one receives."""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import threading
import time

AT_ONCE = 2**16
"""Bytes that are received at once, if so many have come."""


class Stream:
    """Blocks like a socket, but never holds its lock while it waits: an SSL object must not be used by two threads.

    Args:
        connection: connected; its TLS handshake is done.
    """

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self._socket = connection
        self._received = bytearray()
        self._lock = threading.Lock()

    def receive(self, size: int, seconds: float) -> bytes:
        """Exactly so many bytes. Raises `OSError` where the other end is gone, or silent for so many seconds.

        What has come beyond them is kept for the next call: each call of the system lets other threads run first.
        """
        while len(self._received) < size:
            part = self._receive_some(max(AT_ONCE, size - len(self._received)), time.monotonic() + seconds)
            if not part:
                raise ConnectionResetError("the other end has closed the connection")
            self._received += part
        wanted = bytes(self._received[:size])
        del self._received[:size]
        return wanted

    def _receive_some(self, most: int, deadline: float) -> bytes:
        """What has come, at least a byte of it; empty: the other end has closed the connection."""
        while True:
            try:
                with self._lock:
                    return self._socket.recv(min(most, 2**20))
            except (BlockingIOError, ssl.SSLWantReadError):
                self._wait(select.POLLIN, deadline)
            except ssl.SSLWantWriteError:
                self._wait(select.POLLOUT, deadline)

    def send(self, data: bytes, seconds: float) -> None:
        """All of these bytes. Raises `OSError` where the other end is gone, or takes nothing for so many seconds."""
        left = memoryview(data)
        while left:
            deadline = time.monotonic() + seconds
            while True:
                try:
                    with self._lock:
                        sent = self._socket.send(left)
                except (BlockingIOError, ssl.SSLWantWriteError):
                    self._wait(select.POLLOUT, deadline)
                except ssl.SSLWantReadError:
                    self._wait(select.POLLIN, deadline)
                else:
                    break
            left = left[sent:]

    def close(self) -> None:
        """Close it; both ends notice."""
        with self._lock:
            with contextlib.suppress(OSError):  # the other end is gone already
                self._socket.shutdown(socket.SHUT_RDWR)  # wakes threads that wait
            self._socket.close()

    def _wait(self, for_what: int, deadline: float) -> None:
        number = self._socket.fileno()
        if number < 0:
            raise ConnectionResetError("this end has closed the connection")
        waiting = select.poll()
        waiting.register(number, for_what)
        if not waiting.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise TimeoutError("the other end is silent")
