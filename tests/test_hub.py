"""Hub: what happens between two steps of the event loop, and that rooms nobody is in are not kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from server.connection import Outbox
from server.engine import Finished, Start
from server.exchange import Visitor
from server.hall import Seat
from server.hub import Hub
from server.protocol import VERSION, AddDrag, Document, Edit, Hello, MoveDrag, Picture, StartRun
from server.settings import Settings
from server.store import Store
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
            sits = Sitting(hub, engine, room, Hello(version=VERSION, secret=secret))
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
