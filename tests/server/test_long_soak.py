"""Everything at once: people edit in thirty rooms while a tenth of the clients try to exhaust the server."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil
import pytest
from websockets.exceptions import ConnectionClosed

from livedrag.server.client import Client, NewRoom, OperationRejected, create_room
from livedrag.server.document.protocol import AddDrag, MoveDrag
from tests.conftest import find_free_port
from tests.hostile import ATTACKS, LARGE, Attacker, attacking
from tests.quiet import png
from tests.server.test_long_traffic import percentile
from tests.traffic import serving_traffic

SECONDS = float(os.environ.get("SOAK_SECONDS", "120"))
ROOMS, CLIENTS, HOSTILE = 30, 4, 12
"""The hostile clients are in the first rooms, one in each, so that each attack is made twice."""
PAUSE = 2.0
"""Seconds between two edits of one person."""
ACK_SECONDS = 0.25
"""Within which 95 % of the other people's edits must be acknowledged."""
MEMORY_MIB = 700
"""Of the web process."""
STOP_SECONDS = 10.0
"""Within which the server must end after SIGTERM, under attack, too."""


@contextlib.contextmanager
def sampling_memory(process: subprocess.Popen[bytes]) -> Iterator[list[float]]:
    """Resident MiB of a process, ten times a second, as long as it is running."""
    samples: list[float] = []
    done = threading.Event()

    def sample() -> None:
        memory = psutil.Process(process.pid)
        while not done.wait(0.1) and process.poll() is None:
            samples.append(memory.memory_info().rss / 2**20)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield samples
    finally:
        done.set()
        thread.join()


async def enter(stack: contextlib.AsyncExitStack, address: str, room: NewRoom, people: int) -> list[Client]:
    """People in a room, each with a drag, until the stack is closed."""
    clients = []
    for number in range(people):
        joining = Client.join(address, room.id, room.secret, name=f"P{number}", remember=2)
        client = await stack.enter_async_context(joining)
        await client.edit(AddDrag(id=f"d{number}", handle=(1, 1), target=(50, 40)))
        clients.append(client)
    return clients


async def edit_until(client: Client, drag: str, until: float, times: list[float]) -> None:
    """Move a drag now and then; adds the seconds until each acknowledgement to ``times``."""
    chance = random.Random(f"{client.room} {drag}")
    await asyncio.sleep(PAUSE * chance.random())
    while time.monotonic() < until:
        with contextlib.suppress(ConnectionClosed):  # a cursor is not sent again, an edit is
            await client.point((chance.uniform(0, 60), 5.0), tool="points")
        began = time.monotonic()
        await move(client, MoveDrag(id=drag, target=(chance.uniform(10, 60), 10)))
        times.append(time.monotonic() - began)
        await asyncio.sleep(PAUSE * chance.uniform(0.5, 1.5))


async def move(client: Client, edit: MoveDrag) -> None:
    """Make an edit, and repeat it if the server asks for that after a reconnection."""
    while True:
        try:
            await client.edit(edit)
        except OperationRejected as error:
            if error.reason != "stale":
                raise
        else:
            return


async def expect_equal_replicas(address: str, room: NewRoom, clients: Sequence[Client]) -> None:
    """Everyone's document becomes that of the server, which a newcomer receives."""
    async with Client.join(address, room.id, room.secret, remember=2) as newcomer:
        async with asyncio.timeout(30):
            for client in clients:
                while client.seq < newcomer.seq:
                    await client.wait(object, since=client.count)
        assert all(client.document == newcomer.document for client in clients)
        assert len(newcomer.document.drags) == len(clients)


def report(text: str) -> None:
    sys.stdout.write(f"{text}\n")


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives the loopback interface many addresses")
def test_a_tenth_of_the_clients_cannot_exhaust_the_server(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    port = find_free_port()
    address = f"http://127.0.0.1:{port}"
    kinds = list(ATTACKS)
    times: list[float] = []

    async def story(server: subprocess.Popen[bytes]) -> float:
        """Returns the seconds from SIGTERM to the end."""
        pictures = [png(*LARGE) if number < HOSTILE else png() for number in range(ROOMS)]
        rooms = [await asyncio.to_thread(create_room, address, picture) for picture in pictures]
        attackers = [
            Attacker(kinds[number % len(kinds)], port, f"127.0.0.{number + 2}", rooms[number])
            for number in range(HOSTILE)
        ]
        async with contextlib.AsyncExitStack() as stack:
            groups = [
                await enter(stack, address, room, CLIENTS - (number < HOSTILE)) for number, room in enumerate(rooms)
            ]
            for group in groups[HOSTILE::2]:
                await group[0].run()  # its previews go to all of them
            with attacking(attackers) as rounds:
                until = time.monotonic() + SECONDS
                await asyncio.gather(
                    *(edit_until(client, f"d{n}", until, times) for group in groups for n, client in enumerate(group))
                )
            report(
                f"attacks {rounds}\n{len(times)} edits of others in {SECONDS:g} s: p50 {percentile(times, 50):.3f} s, "
                f"p95 {percentile(times, 95):.3f} s, longest {max(times):.3f} s"
            )
            assert all(rounds.values()), "an attack was not made"
            await asyncio.sleep(2)  # what the attackers sent last may still be waiting
            for room, group in zip(rooms, groups, strict=True):
                await expect_equal_replicas(address, room, group)
            with attacking(attackers):
                await asyncio.sleep(6)
                began = time.monotonic()
                server.terminate()
                await asyncio.to_thread(server.wait, 120)
                return time.monotonic() - began

    caplog.set_level(logging.INFO, "livedrag.server.client")
    with (
        serving_traffic(tmp_path / "data", port, rate_limits=1) as server,
        sampling_memory(server) as memory,
    ):
        stopped = asyncio.run(story(server))
    report(f"memory at most {max(memory):.0f} MiB; ended {stopped:.2f} s after SIGTERM")
    assert "Traceback" not in (tmp_path / "data.log").read_text()
    assert percentile(times, 95) <= ACK_SECONDS
    assert max(memory) < MEMORY_MIB
    assert stopped < STOP_SECONDS
