"""Hub: rooms that nobody is in are not kept, pictures are prepared, runs go on, and what the disk refuses is told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from server.connection import Outbox
from server.engine import Finished, Forget, Prepare, Start
from server.exchange import Visitor
from server.hall import Hall, Seat
from server.hub import Hub, UnknownRoom
from server.protocol import (
    VERSION,
    AddDrag,
    AddStroke,
    Document,
    Edit,
    Hello,
    MoveDrag,
    Picture,
    Rejected,
    ServerMessage,
    SetPrompt,
    SetSettings,
    Snapshot,
    Started,
    StartRun,
    Stroke,
    decode_server,
)
from server.settings import Settings
from server.store import Store, StoreError
from tests.quiet import QuietEngine, png


class Sitting:
    """Somebody in a room with a drag in it."""

    def __init__(self, hub: Hub, engine: QuietEngine, room: str, hello: Hello) -> None:
        self.hub, self.engine, self.room, self.hello = hub, engine, room, hello

    async def sit(self) -> Seat:
        return await self.hub.join(self.room, self.hello, Outbox(), Visitor())


@asynccontextmanager
async def sitting(folder: Path) -> AsyncIterator[Sitting]:
    engine = QuietEngine()
    with Store(folder) as store:
        async with Hub(Settings(data_dir=folder), store, engine) as hub:
            picture = Picture(sha256=store.put_picture(png()), width=64, height=48)
            room, secret = await hub.create(Document(picture=picture))
            sits = Sitting(hub, engine, room, Hello(version=VERSION, secret=secret, name="Ada"))
            seat = await sits.sit()
            seat.receive(Edit(op_id="o1", base=0, op=AddDrag(id="d1", handle=(10.0, 10.0), target=(30.0, 20.0))))
            yield sits


async def settled(hub: Hub) -> None:
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
            assert again.room.grabbed("d1") == 2, "else the next run would put the handle down anew"

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
            sits.engine.tell(Finished(room=sits.room, run=run, outcome="arrived", iterations=1, seq=1, tracked={}))
            await settled(sits.hub)
            again = await sits.hub.open(sits.room)
            assert again is not hall
            assert again.document.run is not None
            assert (again.document.run.outcome, again.document.run.interrupted) == ("arrived", False)

    asyncio.run(story())


def told(seat: Seat) -> list[ServerMessage]:
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


async def everybody_leaves(hub: Hub, hall: Hall) -> None:
    for seat in list(hall.seats.values()):
        hub.leave(seat)
    await settled(hub)


def asked(engine: QuietEngine, kind: type) -> list[Any]:
    return [command for command in engine.commands.queue if isinstance(command, kind)]


def test_the_session_leaves_the_device_when_nobody_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.hub.LINGER", 0.3)

    async def story() -> None:
        async with sitting(tmp_path) as sits:
            hall = await sits.hub.open(sits.room)
            await everybody_leaves(sits.hub, hall)
            await sits.sit()  # somebody has come back
            await asyncio.sleep(0.5)
            assert asked(sits.engine, Forget) == []
            await everybody_leaves(sits.hub, await sits.hub.open(sits.room))
            await asyncio.sleep(0.5)
            assert asked(sits.engine, Forget) == [Forget(room=sits.room, wipe=False)]

    asyncio.run(story())


def test_a_picture_is_prepared_once_for_many_changes_and_not_during_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.hub.PREPARE_PAUSE", 0.1)

    async def story() -> None:
        async with sitting(tmp_path) as sits:
            seat = await sits.sit()
            for number in range(5):
                seat.receive(Edit(op_id=f"p{number}", base=1, op=SetPrompt(prompt=str(number))))
            await asyncio.sleep(0.4)
            (prepare,) = asked(sits.engine, Prepare)
            assert prepare.goal.prompt == "4"
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
            async with Hub(Settings(data_dir=tmp_path), store, engine) as hub:
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
    monkeypatch.setattr("server.hub.HOUSEKEEPING_SECONDS", 0.05)

    async def story() -> None:
        engine = QuietEngine()
        with Store(tmp_path) as store:
            async with Hub(Settings(data_dir=tmp_path, room_days=1e-6), store, engine) as hub:  # a tenth of a second
                picture = Picture(sha256=store.put_picture(png()), width=64, height=48)
                used, secret = await hub.create(Document(picture=picture))
                await hub.join(used, Hello(version=VERSION, secret=secret), Outbox(), Visitor())
                left, _ = await hub.create(Document(picture=picture))
                await asyncio.sleep(0.5)
                assert asked(engine, Forget) == [Forget(room=left, wipe=True)]
                with pytest.raises(UnknownRoom, match=left):
                    await hub.open(left)
                assert (await hub.open(used)).seats

    asyncio.run(story())


def test_a_full_disk_is_told_and_the_room_is_as_the_disk_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story() -> None:
        async with sitting(tmp_path) as sits:
            seat = await sits.sit()
            await settled(sits.hub)

            def full(*_: object) -> Future[None]:
                failing: Future[None] = Future()
                failing.set_exception(StoreError("nothing could be saved: disk full"))
                return failing

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
