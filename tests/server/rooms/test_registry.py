"""RoomRegistry: rooms open and close, expire, and refuse connections when the disk fails."""

from __future__ import annotations

import asyncio
import gc
import weakref
from pathlib import Path

import pytest

from livedrag.server.access.password import Caller
from livedrag.server.device.messages import ReleaseSession, RunFinished, Start, WorkerRestarted, WorkerRestarting
from livedrag.server.document.memory import POINT_BYTES
from livedrag.server.document.protocol import (
    VERSION,
    AddStroke,
    Close,
    Edit,
    EngineReport,
    Hello,
    MoveDrag,
    StartRun,
    Stroke,
)
from livedrag.server.errors import UnknownRoom
from livedrag.server.rooms.admission import MAX_MEMBERS
from livedrag.server.rooms.outbox import Disconnect, Outbox
from livedrag.server.rooms.registry import DAY, HOUSEKEEPING_SECONDS, LINGER_SECONDS
from livedrag.server.rooms.room import LiveRoom
from tests.open_room import disk_full, new_room, open_registry, open_room, received, send, settle


def test_a_room_that_everyone_has_left_is_read_from_disk_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_room(tmp_path) as opened:
            session = await opened.join()
            send(session, Edit(op_id="o2", base=1, op=MoveDrag(id="d1", handle=(12.0, 12.0))))
            room = session.room
            for session in opened.sessions:
                assert await opened.room() is room
                room.leave(session)
            again = await opened.room()
            assert again is not room
            assert (again.document, again.seq) == (room.draft.document, room.draft.seq)
            assert again.draft.handle_version("d1") == 2, "else the next run would place the handle again"

    asyncio.run(scenario())


def test_a_room_with_a_run_stays_open_until_its_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_room(tmp_path) as opened:
            session = await opened.join()
            send(session, StartRun(op_id="go"))
            room = session.room
            await opened.leave_all()
            run = opened.engine.submitted(Start)[-1].run
            assert await opened.room() is room
            opened.engine.tell(RunFinished(room=opened.id, run=run, outcome="arrived", iterations=1, seq=1, tracked={}))
            await opened.settle()
            again = await opened.room()
            assert again is not room
            assert again.document.run is not None
            assert (again.document.run.outcome, again.document.run.interrupted) == ("arrived", False)

    asyncio.run(scenario())


def test_the_session_leaves_the_device_when_no_one_comes_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_room(tmp_path) as opened:
            await opened.leave_all()
            await opened.advance(LINGER_SECONDS / 2)
            await opened.join()
            await opened.advance(2 * LINGER_SECONDS)
            assert opened.engine.submitted(ReleaseSession) == []
            await opened.leave_all()
            await opened.advance(LINGER_SECONDS)
            assert opened.engine.submitted(ReleaseSession) == [ReleaseSession(room=opened.id, wipe=False)]

    asyncio.run(scenario())


def test_a_room_that_no_one_joins_closes_after_a_while(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_room(tmp_path) as opened:
            await opened.leave_all()
            room = await opened.room()
            await opened.advance(LINGER_SECONDS)
            assert room.closed
            assert not opened.registry.rooms

    asyncio.run(scenario())


def test_a_room_that_is_joined_and_left_again_and_again_leaves_nothing_behind(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_room(tmp_path) as opened:
            await opened.leave_all()
            rooms: weakref.WeakSet[LiveRoom] = weakref.WeakSet()
            for number in range(600):
                session = await opened.join(name=f"Guest {number}")
                rooms.add(session.room)
                session.room.leave(session)
                opened.sessions.clear()
                del session
            await opened.settle()
            gc.collect()
            assert len(rooms) <= 1
            assert len(opened.registry.tasks.running()) <= 3
            assert not opened.registry.rooms

    asyncio.run(scenario())


def test_one_open_room_that_many_join_and_leave_stays_small(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_room(tmp_path) as opened:
            room = await opened.room()
            for number in range(600):
                session = await opened.join(name=f"Guest {number}")
                room.leave(session)
            assert len(room.members.members) <= MAX_MEMBERS + 1
            assert len(room._histories) <= 2
            assert len(room.sessions) == 1
            assert len(opened.registry.tasks.running()) <= 4

    asyncio.run(scenario())


def test_unused_rooms_close_early_if_they_take_much_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stroke = Stroke(id="s", mode="paint", radius=4.0, points=[(5.0, 5.0)] * 1000)
    monkeypatch.setattr("livedrag.server.rooms.registry.MAX_UNUSED_BYTES", 3 * 1000 * POINT_BYTES)

    async def scenario() -> None:
        async with open_registry(tmp_path) as (registry, _, clock):
            ids = []
            for _ in range(5):
                room_id, hello = await new_room(registry)
                session = await registry.join(room_id, hello, Outbox(), Caller())
                send(session, Edit(op_id="o1", base=0, op=AddStroke(stroke=stroke)))
                await settle(registry, clock)
                session.room.leave(session)
                ids.append(room_id)
            for room_id in ids:
                await registry.open(room_id)
            assert list(registry.rooms) == ids[2:]

    asyncio.run(scenario())


def test_unused_rooms_are_deleted_but_never_while_someone_is_in(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_registry(tmp_path, room_days=1) as (registry, engine, clock):
            used, hello = await new_room(registry)
            await registry.join(used, hello, Outbox(), Caller())
            unused, _ = await new_room(registry)
            await settle(registry, clock)
            clock.advance(DAY - HOUSEKEEPING_SECONDS)
            await settle(registry, clock)
            assert engine.submitted(ReleaseSession) == []
            clock.advance(2 * HOUSEKEEPING_SECONDS)
            await settle(registry, clock)
            assert engine.submitted(ReleaseSession) == [ReleaseSession(room=unused, wipe=True)]
            with pytest.raises(UnknownRoom, match=unused):
                await registry.open(unused)
            assert (await registry.open(used)).sessions

    asyncio.run(scenario())


def test_a_run_saved_while_its_room_is_deleted_does_not_reach_the_engine(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_room(tmp_path) as opened:
            session = await opened.join()
            await opened.settle()
            send(session, StartRun(op_id="go"))
            await opened.registry.delete(session.room)
            await opened.settle()
            assert opened.engine.submitted(ReleaseSession) == [ReleaseSession(room=opened.id, wipe=True)]
            assert opened.engine.submitted(Start) == []

    asyncio.run(scenario())


def test_a_full_disk_asks_to_reconnect_later_but_a_cookie_still_opens_the_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with open_room(tmp_path) as opened:
            registry = opened.registry
            cookie = await registry.admission.give_cookie(Caller())
            await registry.admission.enter(opened.id, Caller(cookie=cookie), opened.hello.secret)
            monkeypatch.setattr("livedrag.server.access.credentials.TOUCH_SECONDS", -1.0)
            with monkeypatch.context() as patched:
                patched.setattr(registry.store, "save_session", disk_full)
                await registry.join(opened.id, Hello(version=VERSION), Outbox(), Caller(cookie=cookie))
            monkeypatch.setattr(registry.store, "find_session", disk_full)
            with pytest.raises(Disconnect, match="disk full") as caught:
                await registry.join(opened.id, opened.hello, Outbox(), Caller(cookie="unknown yet"))
            assert (caught.value.code, caught.value.error.reason) == (Close.GOING_AWAY, "not_saved")

    asyncio.run(scenario())


def test_a_restarting_worker_is_reported_to_the_rooms_on_its_device(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_room(tmp_path) as opened:
            session = await opened.join()
            received(session)
            opened.engine.tell(WorkerRestarting(message="it died", device="d", rooms=("another",)))
            opened.engine.tell(WorkerRestarting(message="it died", device="d", rooms=(opened.id,)))
            opened.engine.tell(WorkerRestarted(device="d", rooms=(opened.id,)))
            await opened.settle()
            assert [m.state for m in received(session) if isinstance(m, EngineReport)] == ["ready"]
            opened.engine.tell(WorkerRestarting(message="it died", device="d", rooms=("another",)))
            await opened.settle()
            assert [m for m in received(session) if isinstance(m, EngineReport)] == []

    asyncio.run(scenario())


def test_a_room_shows_that_it_restarts_until_its_own_work_has_another_worker(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_room(tmp_path) as opened:
            session = await opened.join()
            received(session)
            opened.engine.tell(WorkerRestarting(message="it died", device="d", rooms=(opened.id, "another")))
            opened.engine.tell(WorkerRestarted(device="d", rooms=("another",)))
            await opened.settle()
            assert [m.state for m in received(session) if isinstance(m, EngineReport)] == ["restarting"]
            late = await opened.join()
            assert [m.state for m in received(late) if isinstance(m, EngineReport)] == ["restarting"]
            opened.engine.tell(WorkerRestarted(device="e", rooms=(opened.id,)))
            await opened.settle()
            assert [m.state for m in received(session) if isinstance(m, EngineReport)] == ["ready"]

    asyncio.run(scenario())


@pytest.mark.parametrize("own", [False, True], ids=["elsewhere", "there"])
def test_without_any_worker_all_rooms_restart_until_there_is_one(own: bool, tmp_path: Path) -> None:
    async def scenario() -> None:
        async with open_room(tmp_path) as opened:
            session = await opened.join()
            rooms = (opened.id if own else "another",)
            received(session)
            opened.engine.state = "restarting"
            opened.engine.tell(WorkerRestarting(message="it died", device="d", rooms=rooms))
            await opened.settle()
            assert [m.state for m in received(session) if isinstance(m, EngineReport)] == ["restarting"]
            opened.engine.state = "ready"
            opened.engine.tell(WorkerRestarted(device="d"))
            await opened.settle()
            assert [m.state for m in received(session) if isinstance(m, EngineReport)] == ["ready"]

    asyncio.run(scenario())
