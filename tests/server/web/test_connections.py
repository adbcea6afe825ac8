"""Connections that cost something and do nothing are closed; the others notice nothing."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from livedrag.server.client import Client, create_room
from livedrag.server.document.protocol import SetPrompt
from livedrag.server.web import connections
from livedrag.server.web.connections import ConnectionLimits
from tests.quiet import png, quiet_server

SOON = 0.4


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deadlines that a test can wait for."""
    monkeypatch.setattr(connections, "HEAD_SECONDS", SOON)
    monkeypatch.setattr(connections, "BODY_SECONDS", SOON)


@contextmanager
def connected(address: str, data: bytes = b"") -> Iterator[socket.socket]:
    host, port = address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(data)
        yield connection


def closed_after(connection: socket.socket) -> float:
    """Seconds until the server closes a connection; what it sends before is dropped."""
    began = time.monotonic()
    try:
        while connection.recv(4096):
            pass
    except ConnectionResetError:
        pass
    return time.monotonic() - began


def refused_after(connection: socket.socket, data: bytes, pause: float) -> float:
    """Send the same again and again; seconds until the server takes no more."""
    began = time.monotonic()
    while time.monotonic() - began < 15:
        try:
            connection.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return time.monotonic() - began
        time.sleep(pause)
    raise AssertionError("the server goes on reading")


HEAD = b"POST /api/rooms HTTP/1.1\r\nHost: 127.0.0.1\r\n"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"G",
        HEAD,
        HEAD + b"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 100\r\n\r\n",
        HEAD + b"Content-Type: multipart/form-data; boundary=b\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n--b\r\n\r\n",
    ],
    ids=["nothing", "a byte", "half a head", "no body", "half a body"],
)
def test_a_silent_connection_is_closed(tmp_path: Path, hasty: None, data: bytes) -> None:
    with quiet_server(tmp_path) as (address, _), connected(address, data) as connection:
        assert closed_after(connection) < 10 * SOON


def test_a_second_request_has_a_deadline_too(tmp_path: Path, hasty: None) -> None:
    with quiet_server(tmp_path) as (address, _), connected(address) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 200"
        time.sleep(0.1)
        connection.sendall(b"GET /heal")
        assert closed_after(connection) < 10 * SOON


def test_a_byte_now_and_then_does_not_keep_a_head_open(tmp_path: Path, hasty: None) -> None:
    with quiet_server(tmp_path) as (address, _), connected(address) as connection:
        assert refused_after(connection, b"G", SOON / 4) < 10 * SOON


def test_a_quiet_client_in_a_room_stays(tmp_path: Path, hasty: None) -> None:
    async def story(address: str) -> None:
        room = await asyncio.to_thread(create_room, address, png())
        async with Client.join(address, room.id, room.secret) as client:
            await asyncio.sleep(4 * SOON)
            await client.edit(SetPrompt(prompt="still here"))
            assert client.connections == 1

    with quiet_server(tmp_path) as (address, _):
        asyncio.run(story(address))


@pytest.mark.parametrize("setting", ["max_connections", "max_connections_per_address"])
def test_connections_are_counted_and_refusals_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, setting: str
) -> None:
    with quiet_server(tmp_path, **{setting: 4}) as (address, _), ExitStack() as stack:
        silent = [stack.enter_context(connected(address)) for _ in range(4)]
        for _ in range(20):
            with connected(address) as refused:
                assert closed_after(refused) < 5
        for connection in silent:
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n")
            assert connection.recv(12) == b"HTTP/1.1 200"
            closed_after(connection)
        assert create_room(address, png()).secret
    lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert lines == [f"refusing connections: 4 are open, the most allowed ({setting})"]


def test_a_proxy_may_have_many_connections() -> None:
    limits = ConnectionLimits(total=10, per_address=2, proxies=("10.0.0.1",))
    assert [limits.add("10.0.0.1") for _ in range(5)] == [True] * 5
    assert [limits.add("10.0.0.2") for _ in range(3)] == [True, True, False]
    assert [limits.add(f"2001:db8::{n}") for n in range(3)] == [True, True, False], "one household"
    assert limits.add("10.0.0.3")
    assert not limits.add("10.0.0.4"), "ten in all"
    limits.remove("10.0.0.1")
    assert limits.add("10.0.0.4")


def frame(opcode: int, data: bytes = b"", *, final: bool = True) -> bytes:
    """A masked WebSocket frame."""
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(data))
    return bytes((opcode | (0x80 if final else 0), 0x80 | len(data))) + mask + masked


@pytest.mark.parametrize(
    ("first", "flood"),
    [(b"", frame(9, b"ping")), (b"", frame(10, b"pong")), (frame(2, b"x", final=False), frame(0, final=False))],
    ids=["pings", "pongs", "fragments"],
)
def test_a_flood_of_frames_that_the_application_does_not_see_ends_the_connection(
    tmp_path: Path, first: bytes, flood: bytes
) -> None:
    handshake = (
        b"GET /ws/room HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    with quiet_server(tmp_path) as (address, _), connected(address, handshake) as connection:
        assert connection.recv(12) == b"HTTP/1.1 101"
        connection.sendall(first + flood * 500)
        time.sleep(0.2)
        connection.sendall(flood)  # some are fine
        refused_after(connection, flood * 100, 0.01)
