"""LocalEngine: the real worker in its own process, which is watched."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
from msgspec.structs import replace

from server.engine import (
    AnyEvent,
    Change,
    EngineError,
    Finished,
    Forget,
    Grip,
    Prepare,
    Preparing,
    Reported,
    Restarted,
    Restarting,
    Start,
)
from server.engine_local import LocalEngine, WorkerOptions, devices
from server.protocol import Points
from tests.test_worker import GOAL, PICTURE, SHORT

T = TypeVar("T")


class Ear:
    """Hears the events of an engine."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[AnyEvent] = asyncio.Queue()
        self.heard: list[AnyEvent] = []

    async def expect(self, kind: type[T], wanted: Callable[[T], bool] = lambda _: True) -> T:
        """The next event of a kind."""
        async with asyncio.timeout(60):
            while True:
                event = await self.events.get()
                self.heard.append(event)
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


def iteration(event: Reported, least: int = 1) -> bool:
    return isinstance(event.record, Points) and event.record.iteration >= least


def kill(engine: LocalEngine, how: signal.Signals = signal.SIGKILL) -> None:
    assert engine.pid is not None
    os.kill(engine.pid, how)


def test_the_worker_runs_elsewhere_and_ends_with_the_engine() -> None:
    async def story() -> None:
        engine = LocalEngine(WorkerOptions(model="builtin"))
        async with running(engine) as ear:
            assert engine.state == "ready"
            assert engine.pid not in (None, os.getpid())
            engine.submit(Start(run="r1", picture=PICTURE, goal=GOAL))
            await ear.expect(Finished)
            (device,) = engine.stats().devices
            assert (device.state, device.restarts, device.sessions) == ("ready", 0, 1)
            assert device.steps["fitting"] == GOAL.settings["lora_steps"]
            worker = engine.pid
        assert worker is not None
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)

    asyncio.run(story())


def test_a_run_goes_on_when_its_worker_is_killed_and_ends_exactly_once() -> None:
    async def story() -> None:
        engine = LocalEngine(WorkerOptions(model="builtin", checkpoint_every=2))
        goal = replace(GOAL, settings={**SHORT, "max_iterations": 12})
        async with running(engine) as ear:
            engine.submit(Start(run="r1", picture=PICTURE, goal=goal))
            await ear.expect(Reported, lambda event: iteration(event, 5))
            kill(engine)
            restarting = await ear.expect(Restarting)
            assert ("exit code -9" in restarting.message, restarting.rooms) == (True, ("a",))
            state: str = engine.state
            assert state == "restarting"
            aimed = {"d1": Grip(handle=(30, 30), target=(30, 60))}
            engine.submit(Change(goal=replace(goal, seq=2, drags=aimed)))  # waits for the next worker
            ear.heard.clear()
            ended = await ear.expect(Finished)
            assert (ended.run, ended.outcome, ended.iterations, ended.seq) == ("r1", "exhausted", 12, 2)
            later = next(event for event in ear.heard if isinstance(event, Reported) and iteration(event))
            assert iteration(later, 5), "it went on from its fourth iteration or a later one"
            assert sum(isinstance(event, Restarted) for event in ear.heard) == 1
            engine.submit(Start(run="r2", picture=PICTURE, goal=replace(goal, seq=3, drags=aimed)))
            assert (await ear.expect(Finished)).run == "r2"
            assert [event.run for event in ear.heard if isinstance(event, Finished)] == ["r1", "r2"]
            assert (engine.state, engine.stats().devices[0].restarts) == ("ready", 1)

    asyncio.run(story())


def test_a_worker_that_hangs_is_killed_and_the_run_goes_on() -> None:
    async def story() -> None:
        engine = LocalEngine(WorkerOptions(model="builtin", checkpoint_every=1, hang=4))
        async with running(engine) as ear:
            engine.submit(Start(run="r1", picture=PICTURE, goal=GOAL))
            await ear.expect(Reported, iteration)
            kill(engine, signal.SIGSTOP)
            assert "did nothing for 4 s" in (await ear.expect(Restarting)).message
            assert (await ear.expect(Finished)).outcome == "exhausted"

    asyncio.run(story())


def test_a_run_in_which_the_worker_dies_twice_has_failed_and_others_go_on() -> None:
    async def story() -> None:
        engine = LocalEngine(WorkerOptions(model="builtin"), worker="tests.test_engine:serve_a_deadly_room")
        async with running(engine) as ear:
            engine.submit(Start(run="r1", picture=PICTURE, goal=replace(GOAL, room="deadly")))
            engine.submit(Start(run="r2", picture=PICTURE, goal=GOAL))
            ended = [await ear.expect(Finished), await ear.expect(Finished)]
            outcomes = {event.room: (event.run, event.outcome) for event in ended}
            assert outcomes == {"deadly": ("r1", "failed"), "a": ("r2", "exhausted")}
            assert any("exit code 7" in (event.message or "") for event in ended)
            assert engine.stats().devices[0].restarts == 2

    asyncio.run(story())


def serve_a_deadly_room(connection: Connection, options: WorkerOptions) -> None:
    """The real worker, but that the process ends when the room called deadly begins to drag."""
    from server import worker

    drag = worker.DeviceWorker._drag

    def deadly(self: worker.DeviceWorker, job: Any, session: Any) -> Any:
        if job.room == "deadly":
            os._exit(7)
        return drag(self, job, session)

    worker.DeviceWorker._drag = deadly  # type: ignore[method-assign]
    worker.serve(connection, options)


def test_rooms_are_shared_among_the_devices() -> None:
    async def story() -> None:
        engine = LocalEngine(WorkerOptions(model="builtin", device="cpu,cpu"))
        goals = [replace(GOAL, room=room) for room in ("a", "b")]
        async with running(engine) as ear:
            for goal in goals:
                engine.submit(Start(run=goal.room, picture=PICTURE, goal=goal))
            await ear.expect(Reported)
            kill(engine)
            restarting = await ear.expect(Restarting)
            assert (restarting.rooms, engine.state) == (("a",), "ready"), "the other device goes on"
            ended = [await ear.expect(Finished), await ear.expect(Finished)]
            assert {(event.room, event.outcome) for event in ended} == {("a", "exhausted"), ("b", "exhausted")}
            assert [device.sessions for device in engine.stats().devices] == [1, 1]
            engine.submit(Forget(room="b"))
            engine.submit(Start(run="c", picture=PICTURE, goal=replace(GOAL, room="c")))
            await ear.expect(Finished)
            assert [sorted(device.rooms) for device in engine.stats().devices] == [["a"], ["c"]]

    asyncio.run(story())


def test_a_preparation_is_taken_up_again_by_the_next_worker() -> None:
    async def story() -> None:
        engine = LocalEngine(WorkerOptions(model="builtin"))
        goal = replace(GOAL, drags={}, settings={**SHORT, "lora_steps": 8})
        async with running(engine) as ear:
            engine.submit(Prepare(picture=PICTURE, goal=goal))
            await ear.expect(Preparing, lambda event: event.step > 3)
            kill(engine)
            await ear.expect(Restarted)
            await ear.expect(Preparing, lambda event: event.stage == "ready")

    asyncio.run(story())


def test_the_worker_leaves_when_the_engine_is_killed() -> None:
    code = """
import asyncio
from server.engine_local import LocalEngine, WorkerOptions

async def main():
    engine = LocalEngine(WorkerOptions(model="builtin"))
    await engine.start(print)
    print(engine.pid, flush=True)
    await asyncio.sleep(60)

if __name__ == "__main__":
    asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 10
    while psutil.pid_exists(worker) and psutil.Process(worker).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, "the worker is still there"
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("wanted", "visible", "expected"),
    [
        ("", None, [""]),
        ("cuda:1", None, ["cuda:1"]),
        ("cuda:0, cuda:1", None, ["cuda:0", "cuda:1"]),
        ("all", "4,7", ["cuda:0", "cuda:1"]),
        ("all", None, ["cuda:0", "cuda:1", "cuda:2"]),
        ("all", "", [""]),
    ],
)
def test_devices_by_name(wanted: str, visible: str | None, expected: list[str], tmp_path: Path) -> None:
    for gpu in ("0000:01", "0000:02", "0000:03"):
        (tmp_path / gpu).mkdir()
    assert devices(wanted, visible, tmp_path) == expected


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
