"""WorkerPool without processes: what rooms hear of a worker that dies, and which one they get next."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from livedrag.server.device.messages import (
    AnyCommand,
    AnyEvent,
    EventHandler,
    ModelFailed,
    PreparationProgress,
    Prepare,
    Ready,
    RunProgress,
    Start,
    StatsReported,
    StepStarted,
    WorkerRestarted,
    WorkerRestarting,
    room_of,
)
from livedrag.server.device.pool import WorkerPool
from livedrag.server.device.ray.engine import RayEngine
from livedrag.server.device.supervisor import Supervisor
from livedrag.server.device.worker_process import WorkerOptions
from livedrag.server.document.protocol import CatalogEntry, ModelChoice, ModelInfo, Points
from livedrag.server.metrics import DeviceStats
from tests.quiet import MODEL
from tests.server.device.engine_events import quietly
from tests.server.device.workers import PICTURE


class PlayedWorker:
    """A worker without a process: the test says what it reports."""

    pid, ending = 1, "stopped"

    def __init__(self, on_event: EventHandler, on_exit: Callable[[], None]) -> None:
        self.tell, self.die = on_event, on_exit
        self.commands: list[AnyCommand] = []

    def send(self, command: AnyCommand) -> None:
        self.commands.append(command)

    def kill(self) -> None:
        self.die()

    def forget(self) -> None:
        pass

    async def end(self) -> None:
        pass

    def rooms(self) -> list[str]:
        """Those of the commands that it was sent."""
        return [room_of(command) for command in self.commands]


class Pool(WorkerPool):
    """Rooms of a worker that has died go to any other one that is ready, as with a cluster."""

    _rooms_wait = False

    def __init__(self) -> None:
        super().__init__(hang=0)
        self.heard: list[AnyEvent] = []

    async def start(self, on_event: EventHandler) -> ModelInfo:
        self._emit = on_event
        return MODEL

    def _supervisor_for(self, room: str) -> Supervisor | None:
        return self._least_loaded(filter(self._takes_rooms, self._supervisors), room)

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.heard if isinstance(event, kind)]


async def add(engine: WorkerPool, id: str, *catalog: str) -> PlayedWorker:
    """A worker that is ready, with models of these names."""
    spawned: list[PlayedWorker] = []

    async def spawn(on_event: EventHandler, on_exit: Callable[[], None]) -> PlayedWorker:
        spawned.append(PlayedWorker(on_event, on_exit))
        return spawned[-1]

    starting = asyncio.ensure_future(engine._supervise(id, "cpu", spawn, node=id).start())
    await asyncio.sleep(0)
    entries = tuple(CatalogEntry(name=name, kind="model") for name in catalog)
    spawned[0].tell(Ready(model=MODEL, catalog=entries))
    await starting
    return spawned[0]


@asynccontextmanager
async def pool() -> AsyncIterator[Pool]:
    engine = Pool()
    await engine.start(engine.heard.append)
    try:
        yield engine
    finally:
        await engine.close()


def progress(room: str, iteration: int) -> RunProgress:
    record = Points(run=f"run-{room}", iteration=iteration, handles={}, distances={}, loss=0.0)
    return RunProgress(room=room, record=record)


def start(engine: WorkerPool, room: str) -> None:
    engine.submit(Start(run=f"run-{room}", picture=PICTURE, desired=quietly(room)))


def test_a_room_whose_worker_died_restarts_until_another_one_works_on_it() -> None:
    async def story() -> None:
        async with pool() as engine:
            first, second = await add(engine, "first"), await add(engine, "second")
            start(engine, "runs")
            start(engine, "other")
            engine.submit(Prepare(picture=PICTURE, desired=quietly("idle")))
            first.tell(PreparationProgress(room="idle", stage="ready", step=1, steps=1))
            assert (first.rooms(), second.rooms()) == (["runs", "idle"], ["other"])
            first.die()
            assert [event.rooms for event in engine.of(WorkerRestarting)] == [("runs", "idle")]
            assert [event.rooms for event in engine.of(WorkerRestarted)] == [("idle",)], "it has nothing to wait for"
            assert second.rooms() == ["other", "runs"]
            second.tell(progress("other", 1))
            assert len(engine.of(WorkerRestarted)) == 1
            second.tell(StepStarted(room="runs", run="run-runs"))
            second.tell(progress("runs", 1))
            assert [event.rooms for event in engine.of(WorkerRestarted)] == [("idle",), ("runs",)]

    asyncio.run(story())


def test_rooms_without_a_worker_get_the_next_one_in_the_order_in_which_they_came() -> None:
    async def story() -> None:
        async with pool() as engine:
            (await add(engine, "first")).die()
            rooms = [f"room-{number}" for number in range(20)]
            for room in rooms:
                start(engine, room)
            worker = await add(engine, "second")
            assert worker.rooms() == rooms
            assert engine.of(WorkerRestarted)[-1].rooms == tuple(rooms)

    asyncio.run(story())


def test_an_idle_room_moves_to_a_node_with_its_model_and_to_none_that_cannot_load_it() -> None:
    async def story() -> None:
        heard: list[AnyEvent] = []
        engine = RayEngine(WorkerOptions(model="quiet"))
        engine._emit = heard.append
        full = await add(engine, "full", "a.safetensors", "b.safetensors")
        rooms = {"own": "", "a": "a.safetensors", "b": "b.safetensors"}
        for room, name in rooms.items():
            engine.submit(Prepare(picture=PICTURE, desired=quietly(room, model=ModelChoice(name=name))))
            full.tell(PreparationProgress(room=room, stage="ready", step=1, steps=1))
        for room in ("run 1", "run 2"):
            start(engine, room)
        assert full.rooms() == [*rooms, "run 1", "run 2"]
        await add(engine, "lacks both", "c.safetensors")
        has_b = await add(engine, "has b", "b.safetensors")
        has_b.tell(StatsReported(stats=DeviceStats(models=("b.safetensors",))))
        broken = await add(engine, "broken", "a.safetensors")
        broken.tell(ModelFailed(room="x", model=ModelChoice(name="a.safetensors"), message="it is damaged"))
        engine._rebalance()
        assert {room: one and one.worker for room, one in engine._moving.items()} == {
            "own": "lacks both",
            "b": "has b",
        }, "no other worker can load 'a'"
        await asyncio.gather(*(one.close() for one in engine._supervisors))

    asyncio.run(story())
