"""``python -m tests.bench.events``: processor time that the web process takes for the events of many workers.

The server, its rooms, its store and its connections are real; the events come from an engine that computes nothing. It
runs in a thread of this process whose processor time is measured by itself, so that clients do not count.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from livedrag.server.client import Client, NewRoom, create_room
from livedrag.server.device.messages import PreviewReady, RunProgress
from livedrag.server.document.protocol import AddDrag, Points
from tests.bench.service import ADDRESS_LIMITS, UNLIMITED
from tests.quiet import QuietEngine, png, quiet_server

PREVIEW_EVERY = 5
"""Of so many events one is a preview; the others say where the points are."""
PREVIEW_BYTES = 6000
"""About a WebP of 256 x 256."""
TICK_SECONDS = 0.01


@dataclass(frozen=True)
class Load:
    """Rooms, each with one person and one run, and the events that reach all of them together in a second."""

    rooms: int
    rate: int
    seconds: float


@dataclass(frozen=True)
class Cost:
    """Seconds of processor time for 1,000 events, and how many events reached the server in a second."""

    load: Load
    seconds: float
    rate: float


LOADS = (Load(10, 1000, 10.0), Load(100, 1000, 10.0), Load(100, 2000, 10.0))


def measure(load: Load) -> Cost:
    """Serve one load."""
    limits = dict.fromkeys(ADDRESS_LIMITS, UNLIMITED)
    with (
        tempfile.TemporaryDirectory() as folder,
        quiet_server(Path(folder), **limits, heartbeat=30.0, deadline=120.0) as (address, engine),
    ):
        (server,) = [thread for thread in threading.enumerate() if thread.name == "server"]
        assert server.ident is not None
        return asyncio.run(_measure(load, address, engine, time.pthread_getcpuclockid(server.ident)))


async def _measure(load: Load, address: str, engine: QuietEngine, clock: int) -> Cost:
    async with AsyncExitStack() as stack:
        rooms: list[tuple[NewRoom, str]] = []
        for _ in range(load.rooms):
            room = await asyncio.to_thread(create_room, address, png())
            client = await stack.enter_async_context(Client.join(address, room.id, room.secret, remember=10))
            await client.edit(AddDrag(id="d1", handle=(10.0, 10.0), target=(30.0, 20.0)))
            rooms.append((room, (await client.run()).run.id))
        before = time.clock_gettime(clock)
        began = time.perf_counter()
        sent = await asyncio.to_thread(_send, engine, rooms, load)
        seconds = time.perf_counter() - began
        return Cost(load, 1000 * (time.clock_gettime(clock) - before) / sent, sent / seconds)


def _send(engine: QuietEngine, rooms: Sequence[tuple[NewRoom, str]], load: Load) -> int:
    """Report events at a steady rate; returns how many."""
    began, sent = time.perf_counter(), 0
    while (passed := time.perf_counter() - began) < load.seconds:
        for number in range(sent, int(passed * load.rate)):
            room, run = rooms[number % len(rooms)]
            iteration = 1 + number // len(rooms)
            if number % PREVIEW_EVERY == 0:
                event: PreviewReady | RunProgress = PreviewReady(
                    room=room.id,
                    run=run,
                    stage="dragging",
                    iteration=iteration,
                    format="webp",
                    width=256,
                    height=256,
                    time=time.time(),
                    data=bytes(PREVIEW_BYTES),
                )
            else:
                points = Points(
                    run=run, iteration=iteration, handles={"d1": (1.0, 2.0)}, distances={"d1": 3.0}, loss=0.1
                )
                event = RunProgress(room=room.id, record=points)
            engine.tell(event)
            sent = number + 1
        time.sleep(TICK_SECONDS)
    return sent


def to_markdown(costs: Sequence[Cost]) -> str:
    """A table."""
    lines = [
        "| rooms, each with a person and a run | events a second | processor time for 1,000 events | of a core |",
        "|--:|--:|--:|--:|",
    ]
    for cost in costs:
        share = cost.seconds * cost.rate / 1000
        lines.append(f"| {cost.load.rooms} | {cost.rate:.0f} | {cost.seconds * 1000:.0f} ms | {share:.0%} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(to_markdown([measure(load) for load in LOADS]))
