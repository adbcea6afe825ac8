"""What an engine reports while a test runs it, and what tests do to its workers."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from msgspec.structs import replace

from livedrag.server.device.messages import AnyEvent, DesiredState, RunFinished, RunProgress
from livedrag.server.device.pool import WorkerPool
from livedrag.server.document.protocol import Points
from tests.conftest import START_SECONDS
from tests.server.device.workers import DESIRED

T = TypeVar("T")


class Listener:
    """Collects the events of an engine."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[AnyEvent] = asyncio.Queue()
        self.heard: list[AnyEvent] = []

    async def expect(self, kind: type[T], wanted: Callable[[T], bool] = lambda _: True, *, fresh: bool = True) -> T:
        """The next event of a kind, or unless it has to be ``fresh`` the last one."""
        if not fresh:
            return [event for event in self.heard if isinstance(event, kind)][-1]
        async with asyncio.timeout(START_SECONDS):
            while True:
                event = await self.events.get()
                self.heard.append(event)
                if isinstance(event, kind) and wanted(event):
                    return event


@asynccontextmanager
async def running(engine: WorkerPool) -> AsyncIterator[Listener]:
    listener = Listener()
    try:
        await engine.start(listener.events.put_nowait)
        await asyncio.to_thread(wait_until, lambda: all(worker.state == "ready" for worker in engine.workers()))
        yield listener
    finally:
        await engine.close()


def kill(engine: WorkerPool, how: signal.Signals = signal.SIGKILL) -> None:
    assert engine.pid is not None
    os.kill(engine.pid, how)


def iteration(event: RunProgress, least: int = 1) -> bool:
    return isinstance(event.record, Points) and event.record.iteration >= least


async def ends(listener: Listener, count: int) -> dict[str, RunFinished]:
    """The ends of so many runs, by room."""
    ended = [await listener.expect(RunFinished) for _ in range(count)]
    return {event.room: event for event in ended}


def quietly(room: str, iterations: int = 5, **changes: Any) -> DesiredState:
    return replace(DESIRED, room=room, settings={"max_iterations": iterations}, **changes)


def wait_until(condition: Callable[[], bool], seconds: float = START_SECONDS) -> None:
    """Poll what another process does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
