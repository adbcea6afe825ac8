"""Hub: rooms that nobody is in are not kept, pictures are prepared, runs go on, and what the disk refuses is told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

import livedrag.server.storage.writer
from livedrag.server.access.credentials import Visitor
from livedrag.server.device.engine import (
    CommandFailed,
    MomentInfo,
    Prepare,
    ReleaseSession,
    RunFinished,
    Seek,
    Start,
    Stop,
    TimelineChanged,
    UpdateRun,
)
from livedrag.server.device.engine import SeekCompleted as EngineSought
from livedrag.server.document.protocol import (
    VERSION,
    AddDrag,
    AddStroke,
    Close,
    Document,
    Edit,
    Edited,
    Hello,
    MaskLayer,
    MoveDrag,
    Picture,
    Raster,
    Rejected,
    Seeked,
    SeekMoment,
    ServerMessage,
    SetPrompt,
    SetSettings,
    Snapshot,
    Started,
    StartRun,
    Stroke,
    decode_server,
)
from livedrag.server.errors import UnknownRoom
from livedrag.server.rooms.outbox import Disconnect, Outbox
from livedrag.server.rooms.registry import RoomRegistry
from livedrag.server.rooms.room import LiveRoom, RasterisedMask, RoomSession
from livedrag.server.settings import Settings
from livedrag.server.storage import Store, StoreError
from tests.quiet import QuietEngine, png


class Sitting:
    """Somebody in a room with a drag in it."""

    def __init__(self, hub: RoomRegistry, engine: QuietEngine, room: str, hello: Hello) -> None:
        self.hub, self.engine, self.room, self.hello = hub, engine, room, hello

    async def sit(self) -> RoomSession:
        return await self.hub.join(self.room, self.hello, Outbox(), Visitor())


@asynccontextmanager
async def sitting(folder: Path) -> AsyncIterator[Sitting]:
    engine = QuietEngine()
    with Store(folder) as store:
        async with RoomRegistry(Settings(data_dir=folder), store, engine) as hub:
            picture = Picture(sha256=store.put_picture(png()), width=64, height=48)
            room, secret = await hub.create(Document(picture=picture))
            sits = Sitting(hub, engine, room, Hello(version=VERSION, secret=secret, name="Ada"))
            seat = await sits.sit()
            seat.receive(Edit(op_id="o1", base=0, op=AddDrag(id="d1", handle=(10.0, 10.0), target=(30.0, 20.0))))
            yield sits


async def settled(hub: RoomRegistry) -> None:
    """Wait until all is saved and told, and threads are back."""
    for _ in range(5):
        await asyncio.wrap_future(hub.store.barrier())
        await asyncio.sleep(0.02)


def test_a_room_that_everybody_has_left_is_read_from_disk_again(tmp_path: Path) -> None:
    async def story() -> None:
        async with sitting(tmp_path) as sits:
            seat = await sits.sit()
            seat.receive(Edit(op_id="o2", base=1, op=MoveDrag(id="d1", handle=(12.0, 12.0))))
            hall = seat.hall
            for other in list(hall.seats.values()):
                assert await sits.hub.open(sits.room) is hall
                sits.hub.leave(other)
            again = await sits.hub.open(sits.room)
            assert again is not hall
            assert (again.room.document, again.room.seq) == (hall.room.document, hall.room.seq)
            assert again.room.handle_version("d1") == 2, "else the next run would put the handle down anew"

    asyncio.run(story())


def test_a_room_in_which_something_runs_stays_until_its_end(tmp_path: Path) -> None:
    async def story() -> None:
        async with sitting(tmp_path) as sits:
            seat = await sits.sit()
            seat.receive(StartRun(op_id="go"))
            hall = seat.hall
            for other in list(hall.seats.values()):
                sits.hub.leave(other)
            run = (await asyncio.to_thread(sits.engine.expect, Start, sits.room)).run
            assert await sits.hub.open(sits.room) is hall
            sits.engine.tell(RunFinished(room=sits.room, run=run, outcome="arrived", iterations=1, seq=1, tracked={}))
            await settled(sits.hub)
            again = await sits.hub.open(sits.room)
            assert again is not hall
            assert again.document.run is not None
            assert (again.document.run.outcome, again.document.run.interrupted) == ("arrived", False)

    asyncio.run(story())


def told(seat: RoomSession) -> list[ServerMessage]:
    return [decode_server(packed) for packed in iter(seat.outbox.take, None)]


def test_a_run_that_is_asked_for_twice_while_the_mask_is_drawn_starts_once(tmp_path: Path) -> None:
    async def story() -> None:
        async with sitting(tmp_path) as sits:
            seat = await sits.sit()
            stroke = Stroke(id="s", mode="paint", radius=4.0, points=[(5.0, 5.0)])
            seat.receive(Edit(op_id="paint", base=1, op=AddStroke(stroke=stroke)))
            seat.receive(StartRun(op_id="go"))
            seat.receive(StartRun(op_id="go"))  # as after a reconnect
            await settled(sits.hub)
            answers = [message for message in told(seat) if isinstance(message, Started | Rejected)]
            assert [type(answer) for answer in answers] == [Started, Started]
            assert answers[0] == answers[1]
            assert len(asked(sits.engine, Start)) == 1

    asyncio.run(story())


async def everybody_leaves(hub: RoomRegistry, hall: LiveRoom) -> None:
    for seat in list(hall.seats.values()):
        hub.leave(seat)
    await settled(hub)


def asked(engine: QuietEngine, kind: type) -> list[Any]:
    return [command for command in engine.commands.queue if isinstance(command, kind)]


def test_the_session_leaves_the_device_when_nobody_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("livedrag.server.rooms.registry.LINGER", 0.3)

    async def story() -> None:
        async with sitting(tmp_path) as sits:
            hall = await sits.hub.open(sits.room)
            await everybody_leaves(sits.hub, hall)
            await sits.sit()  # somebody has come back
            await asyncio.sleep(0.5)
            assert asked(sits.engine, ReleaseSession) == []
            await everybody_leaves(sits.hub, await sits.hub.open(sits.room))
            await asyncio.sleep(0.5)
            assert asked(sits.engine, ReleaseSession) == [ReleaseSession(room=sits.room, wipe=False)]

    asyncio.run(story())


def test_a_picture_is_prepared_once_for_many_changes_and_not_during_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("livedrag.server.rooms.registry.PREPARE_PAUSE", 0.1)

    async def story() -> None:
        async with sitting(tmp_path) as sits:
            seat = await sits.sit()
            for number in range(5):
                seat.receive(Edit(op_id=f"p{number}", base=1, op=SetPrompt(prompt=str(number))))
            await asyncio.sleep(0.4)
            (prepare,) = asked(sits.engine, Prepare)
            assert prepare.desired.prompt == "4"
            seat.receive(Edit(op_id="live", base=1, op=SetSettings(settings={"max_iterations": 7})))
            seat.receive(StartRun(op_id="go"))
            await asyncio.sleep(0.3)
            assert len(asked(sits.engine, Prepare)) == 1
            assert len(asked(sits.engine, Start)) == 1

    asyncio.run(story())


def test_an_interrupted_run_goes_on_from_its_checkpoint_under_its_own_id(tmp_path: Path) -> None:
    async def first() -> tuple[str, Hello, str]:
        async with sitting(tmp_path) as sits:
            seat = await sits.sit()
            seat.receive(StartRun(op_id="go"))
            await settled(sits.hub)
            start = await asyncio.to_thread(sits.engine.expect, Start, sits.room)
            assert not start.resume
            return sits.room, sits.hello, start.run

    async def second(room: str, hello: Hello, run: str) -> None:
        engine = QuietEngine()
        with Store(tmp_path) as store:
            async with RoomRegistry(Settings(data_dir=tmp_path), store, engine) as hub:
                hall = await hub.open(room)
                returning = msgspec.structs.replace(hello, since=2, of=hall.instance)
                seat = await hub.join(room, returning, Outbox(), Visitor())
                (snapshot,) = [message for message in told(seat) if isinstance(message, Snapshot)]
                assert snapshot.document.run is not None
                assert (snapshot.document.run.id, snapshot.document.run.interrupted) == (run, True)
                seat.receive(StartRun(op_id="on"))
                await settled(hub)
                start = await asyncio.to_thread(engine.expect, Start, room)
                assert (start.run, start.resume) == (run, True)
                assert hall.document.run is not None
                assert not hall.document.run.interrupted

    asyncio.run(second(*asyncio.run(first())))


def test_rooms_that_nobody_uses_are_deleted_but_never_under_somebody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("livedrag.server.rooms.registry.HOUSEKEEPING_SECONDS", 0.05)

    async def story() -> None:
        engine = QuietEngine()
        with Store(tmp_path) as store:
            async with RoomRegistry(
                Settings(data_dir=tmp_path, room_days=1e-6), store, engine
            ) as hub:  # a tenth of a second
                picture = Picture(sha256=store.put_picture(png()), width=64, height=48)
                used, secret = await hub.create(Document(picture=picture))
                await hub.join(used, Hello(version=VERSION, secret=secret), Outbox(), Visitor())
                left, _ = await hub.create(Document(picture=picture))
                await asyncio.sleep(0.5)
                assert asked(engine, ReleaseSession) == [ReleaseSession(room=left, wipe=True)]
                with pytest.raises(UnknownRoom, match=left):
                    await hub.open(left)
                assert (await hub.open(used)).seats

    asyncio.run(story())


def full(*_: object) -> Future[Any]:
    failing: Future[Any] = Future()
    failing.set_exception(StoreError("nothing could be saved: disk full"))
    return failing


def test_a_full_disk_is_told_and_the_room_is_as_the_disk_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with sitting(tmp_path) as sits:
            seat = await sits.sit()
            await settled(sits.hub)

            told(seat)  # what came before
            with monkeypatch.context() as patched:
                patched.setattr(sits.hub.store, "append", full)
                seat.receive(Edit(op_id="lost", base=1, op=SetPrompt(prompt="lost")))
                await settled(sits.hub)
            heard = told(seat)
            (rejected,) = [message for message in heard if isinstance(message, Rejected)]
            assert (rejected.op_id, "disk full" in rejected.message) == ("lost", True)
            (snapshot,) = [message for message in heard if isinstance(message, Snapshot)]
            assert (snapshot.seq, snapshot.document.prompt) == (1, "")
            seat.receive(Edit(op_id="kept", base=1, op=SetPrompt(prompt="kept")))
            await settled(sits.hub)
            assert (seat.hall.seq, seat.hall.document.prompt) == (2, "kept")

    asyncio.run(story())


def test_a_drag_that_was_not_saved_leaves_an_interrupted_run_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def first() -> tuple[str, Hello]:
        async with sitting(tmp_path) as sits:
            seat = await sits.sit()
            seat.receive(StartRun(op_id="go"))
            await settled(sits.hub)
            return sits.room, sits.hello

    async def second(room: str, hello: Hello) -> None:
        engine = QuietEngine()
        with Store(tmp_path) as store:
            async with RoomRegistry(Settings(data_dir=tmp_path), store, engine) as hub:
                seat = await hub.join(room, hello, Outbox(), Visitor())
                with monkeypatch.context() as patched:
                    patched.setattr(store, "append", full)
                    seat.receive(StartRun(op_id="refused"))
                    await settled(hub)
                assert not seat.hall.room.running, "nothing would ever end it"
                seat.receive(StartRun(op_id="on"))
                await settled(hub)
                assert [start.resume for start in asked(engine, Start)] == [True]

    asyncio.run(second(*asyncio.run(first())))


def test_what_the_disk_refuses_during_a_run_the_engine_drops_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with sitting(tmp_path) as sits:
            seat = await sits.sit()
            seat.receive(StartRun(op_id="go"))
            await settled(sits.hub)
            with monkeypatch.context() as patched:
                patched.setattr(sits.hub.store, "append", full)
                seat.receive(Edit(op_id="lost", base=1, op=MoveDrag(id="d1", target=(40.0, 40.0))))
                await settled(sits.hub)
            assert seat.hall.room.running, "the run has nothing to do with it"
            (change,) = asked(sits.engine, UpdateRun)
            assert change.desired.drags["d1"].target == (30.0, 20.0)

    asyncio.run(story())


def test_an_edit_sent_again_while_the_disk_refuses_it_is_not_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with sitting(tmp_path) as sits:
            seat = await sits.sit()
            await settled(sits.hub)
            told(seat)
            monkeypatch.setattr(sits.hub.store, "append", full)
            lost = Edit(op_id="lost", base=1, op=SetPrompt(prompt="lost"))
            seat.receive(lost)
            seat.receive(lost)
            with pytest.raises(StoreError, match="lost"):
                await sits.hub.load_mask(seat.hall, seat.person, "lost", Raster(id="lost", sha256="a" * 64))
            await settled(sits.hub)
            answers = [type(message) for message in told(seat) if isinstance(message, Edited | Rejected)]
            assert answers == [Rejected, Rejected]

    asyncio.run(story())


def test_a_run_that_is_saved_goes_on_though_the_edit_after_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with sitting(tmp_path) as sits:
            seat = await sits.sit()
            await settled(sits.hub)
            commit = livedrag.server.storage.writer.commit

            def slowly(*given: Any) -> None:
                time.sleep(0.05)
                commit(*given)

            with monkeypatch.context() as patched:
                patched.setattr(livedrag.server.storage.writer, "commit", slowly)
                seat.receive(StartRun(op_id="go"))
                patched.setattr(sits.hub.store, "append", full)  # its answer comes before that of the start
                seat.receive(Edit(op_id="lost", base=1, op=MoveDrag(id="d1", target=(50.0, 40.0))))
                await settled(sits.hub)
            assert [m.op_id for m in told(seat) if isinstance(m, Rejected)] == ["lost"]
            assert seat.hall.room.running
            assert not asked(sits.engine, Stop)
            seat.receive(Edit(op_id="kept", base=1, op=MoveDrag(id="d1", target=(40.0, 40.0))))
            await settled(sits.hub)
            assert asked(sits.engine, UpdateRun)[-1].desired.drags["d1"].target == (40.0, 40.0), "it is steered still"

    asyncio.run(story())


async def with_moments(sits: Sitting) -> RoomSession:
    seat = await sits.sit()
    moments = [MomentInfo(id=id, parent=id - 1 if id else None, iteration=id, time=1.0) for id in range(2)]
    sits.engine.tell(TimelineChanged(room=sits.room, moments=moments, current=1))
    await settled(sits.hub)
    told(seat)
    return seat


def test_who_seeks_again_over_a_new_connection_is_answered_there(tmp_path: Path) -> None:
    async def story() -> None:
        async with sitting(tmp_path) as sits:
            gone = await with_moments(sits)
            gone.receive(SeekMoment(op_id="back", moment=0))
            await settled(sits.hub)
            again = await sits.sit()
            sits.hub.leave(gone)
            again.receive(SeekMoment(op_id="back", moment=0))
            await settled(sits.hub)
            sits.engine.tell(CommandFailed(room=sits.room, message="thinned away", moment=0))
            await settled(sits.hub)
            assert len(asked(sits.engine, Seek)) == 1
            assert [m.op_id for m in told(again) if isinstance(m, Rejected)] == ["back"]
            assert not [m for m in told(gone) if isinstance(m, Rejected)]

    asyncio.run(story())


def test_a_moment_that_is_reached_late_is_where_the_room_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("livedrag.server.rooms.registry.SEEK_SECONDS", 0.05)

    async def story() -> None:
        async with sitting(tmp_path) as sits:
            seat = await with_moments(sits)
            seat.receive(SeekMoment(op_id="back", moment=0))
            await asyncio.sleep(0.2)
            assert [m.reason for m in told(seat) if isinstance(m, Rejected)] == ["busy"]
            sits.engine.tell(EngineSought(room=sits.room, moment=0, tracked={"d1": (11.0, 11.0)}))
            await settled(sits.hub)
            assert (seat.hall.document.moment, seat.hall.document.drags["d1"].tracked) == (0, (11.0, 11.0))
            assert [m.op_id for m in told(seat) if isinstance(m, Seeked)] == ["back"]

    asyncio.run(story())


def test_a_full_disk_is_a_reason_to_come_back_later_and_a_cookie_opens_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with sitting(tmp_path) as sits:
            hub = sits.hub
            cookie = await hub.doors.give_cookie(Visitor())
            await hub.doors.enter(sits.room, Visitor(cookie=cookie), sits.hello.secret)
            monkeypatch.setattr("livedrag.server.access.credentials.TOUCH_SECONDS", -1.0)
            with monkeypatch.context() as patched:
                patched.setattr(hub.store, "save_session", full)
                await hub.join(sits.room, Hello(version=VERSION), Outbox(), Visitor(cookie=cookie))
            monkeypatch.setattr(hub.store, "find_session", full)
            with pytest.raises(Disconnect, match="disk full") as caught:
                await hub.join(sits.room, sits.hello, Outbox(), Visitor(cookie="unknown yet"))
            assert (caught.value.code, caught.value.fault.reason) == (Close.GOING_AWAY, "not_saved")

    asyncio.run(story())


def test_who_comes_late_and_shows_only_jpeg_gets_previews(tmp_path: Path) -> None:
    async def story() -> None:
        async with sitting(tmp_path) as sits:
            seat = await sits.sit()
            seat.receive(StartRun(op_id="go"))
            await settled(sits.hub)
            assert [start.desired.format for start in asked(sits.engine, Start)] == ["webp"]
            await sits.hub.join(sits.room, msgspec.structs.replace(sits.hello, formats=("jpeg",)), Outbox(), Visitor())
            await settled(sits.hub)
            assert [change.desired.format for change in asked(sits.engine, UpdateRun)] == ["jpeg"]
            await sits.sit()
            await settled(sits.hub)
            assert len(asked(sits.engine, UpdateRun)) == 1, "who shows both needs nothing"

    asyncio.run(story())


def test_a_run_that_cannot_be_steered_ends_here_and_on_the_engine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with sitting(tmp_path) as sits:
            seat = await sits.sit()
            seat.receive(StartRun(op_id="go"))
            await settled(sits.hub)

            def broken(*_: object) -> None:
                raise MemoryError("no memory for this mask")

            monkeypatch.setattr(sits.hub, "_rasterise_mask", broken)
            stroke = Stroke(id="s", mode="paint", radius=4.0, points=[(5.0, 5.0)])
            seat.receive(Edit(op_id="paint", base=1, op=AddStroke(stroke=stroke)))
            await settled(sits.hub)
            run = seat.hall.document.run
            assert run is not None
            assert run.outcome == "failed"
            assert [stop.run for stop in asked(sits.engine, Stop)] == [run.id]

    asyncio.run(story())


def test_a_mask_is_drawn_once_for_all_who_wait_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with sitting(tmp_path) as sits:
            seat = await sits.sit()
            stroke = Stroke(id="s", mode="paint", radius=4.0, points=[(5.0, 5.0)])
            seat.receive(Edit(op_id="paint", base=1, op=AddStroke(stroke=stroke)))
            await settled(sits.hub)
            drawn: list[object] = []
            draw = sits.hub._rasterise_mask

            def slow(layers: tuple[MaskLayer, ...], size: tuple[int, int]) -> RasterisedMask:
                drawn.append(layers)
                time.sleep(0.05)
                return draw(layers, size)

            monkeypatch.setattr(sits.hub, "_rasterise_mask", slow)
            seat.hall.mask = RasterisedMask()
            masks = await asyncio.gather(*(sits.hub.mask_png(seat.hall) for _ in range(5)))
            assert (len(set(masks)), len(drawn)) == (1, 1)

    asyncio.run(story())
