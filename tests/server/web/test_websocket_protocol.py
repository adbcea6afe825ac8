"""Connections end even if their clients never read."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from websockets.client import ClientProtocol
from websockets.protocol import State
from websockets.uri import parse_uri

from livedrag.server.client import Client, NewRoom, create_room
from livedrag.server.document.protocol import VERSION, AddStroke, ClearMask, Hello, Stroke, encode
from livedrag.server.settings import MIB, Rate
from tests.quiet import png, quiet_server

UNLIMITED = Rate(0, 0)
POINTS = [(float(number % 60), 5.5) for number in range(2000)]


@contextmanager
def client_that_never_reads(address: str, room: NewRoom) -> Iterator[socket.socket]:
    host = urlsplit(address)
    protocol = ClientProtocol(parse_uri(f"ws://{host.netloc}/ws/{room.id}"))
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((host.hostname, host.port))
        protocol.send_request(protocol.connect())
        connection.sendall(b"".join(protocol.data_to_send()))
        while protocol.state is State.CONNECTING:
            protocol.receive_data(connection.recv(4096))
        protocol.send_binary(encode(Hello(version=VERSION, secret=room.secret)))
        connection.sendall(b"".join(protocol.data_to_send()))
        yield connection


async def send_much(address: str, room: NewRoom) -> None:
    """Have the server send some 11 MB to everyone in the room."""
    async with Client.join(address, room.id, room.secret) as client:
        for number in range(20):
            await client.edit(AddStroke(stroke=Stroke(id=f"s{number}", mode="paint", radius=3.0, points=POINTS)))
        for _ in range(15):
            await client.edit(ClearMask())
            await client.undo()
        await client.edit(ClearMask())


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def closes(before: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while descriptors() > before and time.monotonic() < deadline:
        time.sleep(0.1)
    return descriptors() <= before


def test_a_client_that_never_reads_is_cut_off(tmp_path: Path) -> None:
    with quiet_server(tmp_path, heartbeat=1.0, deadline=3.0, rate_strokes=UNLIMITED) as (address, _):
        room = create_room(address, png())
        before = descriptors()
        with client_that_never_reads(address, room):
            asyncio.run(send_much(address, room))
            assert closes(before + 1, 20), "the server's end of the connection stays open"


def test_a_client_that_answers_pings_but_reads_too_slowly_is_cut_off(tmp_path: Path) -> None:
    settings = {"heartbeat": 100.0, "deadline": 300.0, "max_unsent_bytes": 4 * MIB, "rate_strokes": UNLIMITED}
    with quiet_server(tmp_path, **settings) as (address, _):
        room = create_room(address, png())
        before = descriptors()
        with client_that_never_reads(address, room):
            asyncio.run(send_much(address, room))
            assert closes(before + 1, 20), "the server's end of the connection stays open"
