"""LocalEngine: the real worker in its own process, which is watched."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import pytest

from server.engine import AnyEvent, EngineError, Finished, Lost, Reported, Start
from server.engine_local import LocalEngine, WorkerOptions
from server.protocol import Points
from tests.test_worker import GOAL, PICTURE

T = TypeVar("T")


class Ear:
    """Hears the events of an engine."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[AnyEvent] = asyncio.Queue()

    async def expect(self, kind: type[T], wanted: Callable[[T], bool] = lambda _: True) -> T:
        """The next event of a kind."""
        async with asyncio.timeout(60):
            while True:
                event = await self.events.get()
                if isinstance(event, kind) and wanted(event):
                    return event


@asynccontextmanager
async def running(engine: LocalEngine) -> AsyncIterator[Ear]:
    ear = Ear()
    try:
        await engine.start(ear.events.put_nowait)
        yield ear
    finally:
        await engine.close()


def test_the_worker_runs_elsewhere_and_comes_back_when_it_dies() -> None:
    async def story() -> None:
        engine = LocalEngine(WorkerOptions(model="builtin"))
        async with running(engine) as ear:
            assert engine.state == "ready"
            assert engine.pid not in (None, os.getpid())
            engine.submit(Start(run="r1", picture=PICTURE, goal=GOAL))
            await ear.expect(Reported, lambda event: isinstance(event.record, Points))
            assert engine.pid is not None
            os.kill(engine.pid, signal.SIGKILL)
            assert "exit code -9" in (await ear.expect(Lost)).message
            state: str = engine.state
            assert state == "restarting"
            engine.submit(Start(run="r2", picture=PICTURE, goal=GOAL))  # waits for the next worker
            ended = await ear.expect(Finished)
            assert (ended.run, ended.outcome) == ("r2", "exhausted")
            assert engine.state == "ready"
            worker = engine.pid
        assert worker is not None
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)

    asyncio.run(story())


def test_an_unknown_model_is_named() -> None:
    async def story() -> None:
        engine = LocalEngine(WorkerOptions(model="no-such-model"))
        with pytest.raises(EngineError, match="'no-such-model'"):
            async with running(engine):
                pass

    asyncio.run(story())


def test_a_worker_that_dies_at_once_is_no_endless_wait() -> None:
    async def story() -> None:
        engine = LocalEngine(WorkerOptions(model="builtin"), worker="os:abort_is_not_here")
        with pytest.raises(EngineError, match="exit code 1"):
            async with running(engine):
                pass

    asyncio.run(story())
