"""A registry with one room in it, for tests of rooms without sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Future
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from livedrag.server.access.password import Caller
from livedrag.server.document.protocol import (
    VERSION,
    AddDrag,
    ClientMessage,
    Document,
    Edit,
    Hello,
    Picture,
    ServerMessage,
    decode_server,
)
from livedrag.server.rooms.outbox import Outbox
from livedrag.server.rooms.registry import RoomRegistry
from livedrag.server.rooms.room import LiveRoom
from livedrag.server.rooms.session import RoomSession
from livedrag.server.settings import Settings
from livedrag.server.storage import Store, StoreError
from tests.fake_clock import FakeClock
from tests.quiet import QuietEngine, png


@dataclass
class OpenRoom:
    """A room with a drag in it, and a registry whose clock stands still."""

    registry: RoomRegistry
    engine: QuietEngine
    clock: FakeClock
    id: str
    hello: Hello
    sessions: list[RoomSession] = field(default_factory=list)

    async def join(self, **changes: Any) -> RoomSession:
        fields = {name: getattr(self.hello, name) for name in self.hello.__struct_fields__}
        session = await self.registry.join(self.id, Hello(**{**fields, **changes}), Outbox(), Caller())
        self.sessions.append(session)
        return session

    async def room(self) -> LiveRoom:
        return await self.registry.open(self.id)

    async def leave_all(self) -> None:
        for session in self.sessions:
            session.room.leave(session)
        self.sessions.clear()
        await self.settle()

    async def advance(self, seconds: float) -> None:
        """Let time pass, and wait for what happens then."""
        await self.settle()
        self.clock.advance(seconds)
        await self.settle()

    async def settle(self) -> None:
        await settle(self.registry, self.clock)


@asynccontextmanager
async def open_room(folder: Path, **settings: Any) -> AsyncIterator[OpenRoom]:
    async with open_registry(folder, **settings) as (registry, engine, clock):
        room, hello = await new_room(registry)
        opened = OpenRoom(registry, engine, clock, room, hello)
        session = await opened.join()
        send(session, Edit(op_id="o1", base=0, op=AddDrag(id="d1", handle=(10.0, 10.0), target=(30.0, 20.0))))
        yield opened


@asynccontextmanager
async def open_registry(folder: Path, **settings: Any) -> AsyncIterator[tuple[RoomRegistry, QuietEngine, FakeClock]]:
    engine, clock = QuietEngine(), FakeClock()
    with Store(folder) as store:
        async with RoomRegistry(Settings(data_dir=folder, **settings), store, engine, clock) as registry:
            yield registry, engine, clock


async def new_room(registry: RoomRegistry) -> tuple[str, Hello]:
    picture = Picture(sha256=registry.store.put_picture(png()), width=64, height=48)
    room, secret = await registry.create(Document(picture=picture))
    return room, Hello(version=VERSION, secret=secret, name="Ada")


def send(session: RoomSession, message: ClientMessage) -> None:
    session.room.receive(session, message)


def received(session: RoomSession) -> list[ServerMessage]:
    """What the client has been sent since the last call."""
    return [decode_server(packed) for packed in iter(session.outbox.take, None)]


async def settle(registry: RoomRegistry, clock: FakeClock) -> None:
    """Wait until all is saved and published, and every background task waits for the clock or for an edit."""
    still = 0
    async with asyncio.timeout(60):
        while still < 3:  # what one thing causes begins in the next turn
            await asyncio.wrap_future(registry.store.barrier())
            await asyncio.sleep(0.001)
            waiting = clock.sleeping + sum(len(room.run._edited._waiters) for room in registry.rooms.values())
            still = still + 1 if len(registry.tasks.running()) == waiting else 0


def disk_full(*_: object) -> Future[Any]:
    """In place of a method of the store."""
    failing: Future[Any] = Future()
    failing.set_exception(StoreError("nothing could be saved: disk full"))
    return failing
