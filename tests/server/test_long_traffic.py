"""Many rooms at once: all replicas end equal, edits stay quick, and a client that does not read slows down no one."""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import psutil
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from livedrag.server.client import Client, NewRoom, create_room
from livedrag.server.document.protocol import VERSION, AddDrag, Frame, Hello, MoveDrag, encode
from tests.conftest import find_free_port
from tests.quiet import png
from tests.traffic import FRAME_SECONDS, serving_traffic

ROOMS, PEOPLE, SECONDS = 50, 4, 60.0
PAUSE = 1.0
"""Seconds between two edits of one person: all of them together make 200 a second."""
QUICK = 2.0
"""Seconds that an edit may take at the 95th percentile: not the aim, for 200 clients share the machine."""


def percentile(values: Sequence[float], hundredth: int) -> float:
    return statistics.quantiles(values, n=100)[hundredth - 1]


@pytest.mark.long
def test_fifty_rooms_with_four_people_each(tmp_path: Path) -> None:
    port = find_free_port()
    address = f"http://127.0.0.1:{port}"
    times: list[float] = []
    ages: list[float] = []

    async def person(room: NewRoom, number: int, until: float) -> Client:
        """Moves a drag, points at things, and watches; the room's first presses Drag, too."""
        pause = random.Random(f"{room.id} {number}")
        joined = Client.join(address, room.id, room.secret, name=f"P{number}", remember=200)
        client = await joined.__aenter__()
        closing.append(joined)
        await client.edit(AddDrag(id=f"d{number}", handle=(1, 1), target=(50, 40)))
        if number == 0:
            await client.run()
        watching.append(asyncio.create_task(watch(client)))
        while time.monotonic() < until:
            await asyncio.sleep(PAUSE * pause.uniform(0.5, 1.5))
            await client.point((pause.uniform(0, 60), 5.0), tool="points")
            began = time.monotonic()
            await client.edit(MoveDrag(id=f"d{number}", target=(pause.uniform(10, 60), 10)))
            times.append(time.monotonic() - began)
        return client

    async def watch(client: Client) -> None:
        async for message in client.messages():
            if isinstance(message, Frame):
                ages.append(time.time() - message.time)

    async def story() -> None:
        rooms = [await asyncio.to_thread(create_room, address, png()) for _ in range(ROOMS)]
        until = time.monotonic() + SECONDS
        clients = await asyncio.gather(*(person(room, n, until) for room in rooms for n in range(PEOPLE)))
        for first in range(0, len(clients), PEOPLE):
            group = clients[first : first + PEOPLE]
            last = max(client.seq for client in group)
            for client in group:
                while client.seq < last:
                    await client.wait(object, since=client.count)
            async with Client.join(address, group[0].room, group[0].secret) as late:
                assert late.seq == last
                assert all(client.document == late.document for client in group)
                assert len(late.document.drags) == PEOPLE
        assert all(client.connections == 1 for client in clients), "a client was disconnected"
        for task in watching:
            task.cancel()
        for joined in closing:
            await joined.__aexit__(None, None, None)

    closing: list[AbstractAsyncContextManager[Client]] = []
    watching: list[asyncio.Task[None]] = []
    with serving_traffic(tmp_path / "data", port) as server:
        asyncio.run(story())
        memory = psutil.Process(server.pid).memory_info().rss / 2**20
    assert len(times) > ROOMS * PEOPLE * SECONDS / PAUSE / 3
    sys.stdout.write(
        f"{len(times)} edits, p50 {statistics.median(times) * 1000:.0f} ms, p95 {percentile(times, 95) * 1000:.0f} ms; "
        f"{len(ages)} frames, age p95 {percentile(ages, 95) * 1000:.0f} ms; server {memory:.0f} MiB\n"
    )
    assert percentile(times, 95) < QUICK
    assert percentile(ages, 95) < QUICK + FRAME_SECONDS
    log = (tmp_path / "data.log").read_text()
    assert "Traceback" not in log


@pytest.mark.long
def test_who_does_not_read_slows_nobody_and_is_let_go_after_the_deadline(tmp_path: Path) -> None:
    port, deadline = find_free_port(), 6.0
    address = f"http://127.0.0.1:{port}"
    times: list[float] = []
    ages: list[float] = []

    async def stall(room: NewRoom) -> ClientConnection:
        """A client that joins and then reads nothing: no frame is acknowledged, no ping answered."""
        socket = await connect(f"ws://127.0.0.1:{port}/ws/{room.id}", subprotocols=[VERSION], max_queue=1)
        await socket.send(encode(Hello(version=VERSION, secret=room.secret)))
        await socket.recv()
        socket.transport.pause_reading()
        return socket

    async def story() -> None:
        room = await asyncio.to_thread(create_room, address, png())
        async with Client.join(address, room.id, room.secret, remember=100) as client:
            await client.edit(AddDrag(id="d1", handle=(1, 1), target=(50, 40)))
            run = (await client.run()).run.id
            stalled, began = [await stall(room) for _ in range(5)], time.monotonic()
            while time.monotonic() < began + deadline * 2:
                sent = time.monotonic()
                await client.edit(MoveDrag(id="d1", target=(20 + len(times) % 30, 10)))
                times.append(time.monotonic() - sent)
                frame = await client.wait(Frame, lambda frame: frame.run == run, since=client.count - 1)
                ages.append(time.time() - frame.time)
                await asyncio.sleep(0.05)
            for socket in stalled:
                socket.transport.resume_reading()
                frames = await received(socket)
                assert frames == 2, "held back more, or nothing"
            assert client.connections == 1

    async def received(socket: ClientConnection) -> int:
        """How many frames a client was sent before the server disconnected it; the last message must be the end."""
        frames, began = 0, time.monotonic()
        try:
            while True:
                data = await asyncio.wait_for(socket.recv(), 5)
                frames += b"webp" in data[:200] if isinstance(data, bytes) else 0
        except ConnectionClosed:
            assert time.monotonic() - began < 1.0, "the server has only let go now"
            return frames

    with serving_traffic(tmp_path / "data", port, heartbeat=2.0, deadline=deadline):
        asyncio.run(story())
    sys.stdout.write(
        f"{len(times)} edits beside 5 who do not read: p95 {percentile(times, 95) * 1000:.0f} ms; "
        f"frame age p95 {percentile(ages, 95) * 1000:.0f} ms\n"
    )
    assert percentile(times, 95) < 0.25
    assert percentile(ages, 95) < 0.25 + FRAME_SECONDS
