"""Hall: a room that is open, who sits in it, and what those who come late should see. It tells, and decides nothing."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from livedrag.server.document.document import RoomDocument
from livedrag.server.document.members import Members
from livedrag.server.document.protocol import (
    PRESENCE_RATE,
    ClientMessage,
    DocRecord,
    Document,
    Edited,
    EngineReport,
    Frame,
    History,
    MaskLayer,
    Moments,
    People,
    Person,
    PersonPresence,
    Points,
    Prepared,
    Presences,
    Progress,
    Role,
    SeekMoment,
    ServerMessage,
    encode,
)
from livedrag.server.rooms.outbox import Outbox

RESUMED = 1000
"""Records that somebody who comes back is sent at most; who has missed more gets a snapshot."""


@dataclass(frozen=True)
class RasterisedMask:
    """Layers and what they look like: a PNG, or None if everything may change; ``frozen`` if nothing may."""

    layers: tuple[MaskLayer, ...] = ()
    png: bytes | None = None
    frozen: bool = False


class House(Protocol):
    """What a seat needs of the hub."""

    def count(self, seat: RoomSession, message: ClientMessage) -> None:
        """Count what comes in. Raises `Farewell` where it is too much."""

    def receive(self, seat: RoomSession, message: ClientMessage) -> None:
        """Do what somebody asks for, or tell them why not."""


@dataclass(eq=False)
class RoomSession:
    """One connection of a person to one room; ``link`` is the id of the link that they came by."""

    house: House
    hall: LiveRoom
    id: str
    person: str
    link: str
    address: str
    formats: tuple[str, ...]
    outbox: Outbox

    @property
    def role(self) -> Role:
        """What its person may do now."""
        return self.hall.guests.role(self.person) or "viewer"

    def count(self, message: ClientMessage) -> None:
        """Count what comes in. Raises `Farewell` where it is too much."""
        self.house.count(self, message)

    def receive(self, message: ClientMessage) -> None:
        """Do what somebody asks for, or tell them why not."""
        self.house.receive(self, message)

    def show(self, message: ServerMessage, packed: bytes | None = None) -> None:
        """Send a message, unless it is a picture that this client cannot show."""
        if not isinstance(message, Frame) or message.format in self.formats:
            self.outbox.put(message, packed)


@dataclass(eq=False)
class LiveRoom:
    """An open room. ``document`` at ``seq`` is what is on disk and has been told: the room itself may be ahead.

    Attributes:
        log: the latest records that have been told, up to ``seq``.
        latest: of what is volatile about a run, the latest of each kind.
        thumbnails: WebP pictures of the moments, by id.
        seeking: who has asked for a moment that the engine has not answered for yet, by person and operation.
        edited: the engine has not heard of the latest edit yet.
        started: the engine has heard of the run; ``resuming``: it was interrupted before.
        format: of the previews that the engine was asked for last.
        rasterising: held while the mask is rasterised.
    """

    room: RoomDocument
    instance: str
    guests: Members
    document: Document
    seq: int
    log: deque[DocRecord]
    engine: EngineReport
    moments: Moments | None = None
    thumbnails: dict[int, bytes] = field(default_factory=dict)
    seats: dict[str, RoomSession] = field(default_factory=dict)
    latest: dict[type, Progress | Points | Frame | Prepared] = field(default_factory=dict)
    seeking: dict[int, dict[tuple[str, str], tuple[RoomSession, SeekMoment]]] = field(default_factory=dict)
    pointing: dict[str, PersonPresence] = field(default_factory=dict)
    edited: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: bool = False
    started: bool = False
    resuming: bool = False
    format: str = ""
    mask: RasterisedMask = field(default_factory=RasterisedMask)
    rasterising: asyncio.Lock = field(default_factory=asyncio.Lock)
    steering: asyncio.Task[None] | None = None
    preparing: asyncio.Task[None] | None = None
    _histories: dict[str, History] = field(default_factory=dict)
    _pointed: dict[str, PersonPresence | None] = field(default_factory=dict)
    _batch: asyncio.TimerHandle | None = None
    _batched: float = 0.0

    @property
    def here(self) -> set[str]:
        """The people in the room."""
        return {seat.person for seat in self.seats.values()}

    @property
    def editors(self) -> set[str]:
        """The people who have edited what is still in the log."""
        return {record.by for record in self.log if isinstance(record, Edited)}

    def of(self, person: str) -> list[RoomSession]:
        """The seats of a person."""
        return [seat for seat in self.seats.values() if seat.person == person]

    def tell(self, message: ServerMessage, seats: Iterable[RoomSession] | None = None) -> None:
        """Send a message to everybody, or to some."""
        told = list(self.seats.values() if seats is None else seats)
        packed = encode(message) if told else b""
        for seat in told:
            seat.show(message, packed)

    def people(self) -> People:
        """Who is here, and who has edited what is still in the log."""
        here, edited, members = self.here, self.editors, self.guests.members
        people = {
            person: Person(name=member.name, colour=member.colour, role=member.role or "viewer", here=person in here)
            for person, member in members.items()
            if person in here or person in edited
        }
        return People(people=people)

    def saved(self, op_id: str) -> DocRecord | None:
        """The record that an operation was accepted with, if it is on disk and has been told."""
        record = self.room.known(op_id)
        return record if record is not None and record.seq <= self.seq else None

    def missed(self, since: int) -> list[DocRecord] | None:
        """The records after ``since``; None where only a snapshot helps."""
        run = self.document.run
        oldest = self.seq - len(self.log)
        if not oldest <= since <= self.seq or self.seq - since > RESUMED or (run is not None and run.interrupted):
            return None  # that a run was interrupted is in no record
        return [record for record in self.log if record.seq > since]

    def tell_histories(self, people: Iterable[str]) -> None:
        """Tell people what their undo and redo would be about, where that has changed."""
        for person in people:
            undo, redo = self.room.history(person)
            history = History(undo=undo, redo=redo)
            if self._histories.get(person) != history:
                self._histories[person] = history
                self.tell(history, self.of(person))

    def history(self, person: str) -> History:
        """What somebody who comes in is told of their undo and redo."""
        undo, redo = self.room.history(person)
        self._histories[person] = History(undo=undo, redo=redo)
        return self._histories[person]

    def point(self, person: str, pointing: PersonPresence | None) -> None:
        """Somebody points elsewhere, or has gone: everybody is told, with what else happens within a moment."""
        if pointing is None:
            if self.pointing.pop(person, None) is None:
                return
        else:
            self.pointing[person] = pointing
        self._pointed[person] = pointing
        if self._batch is None:
            loop = asyncio.get_running_loop()
            self._batch = loop.call_at(max(loop.time(), self._batched + 1 / PRESENCE_RATE), self._tell_pointing)

    def _tell_pointing(self) -> None:
        self._batch, self._batched = None, asyncio.get_running_loop().time()
        pointed, self._pointed = self._pointed, {}
        self.tell(Presences(people=pointed))

    def keep(self, moments: Moments, thumbnails: dict[int, bytes]) -> None:
        """The timeline has changed; ``thumbnails`` are new ones."""
        there = {moment.id for moment in moments.moments}
        self.thumbnails = {id: picture for id, picture in {**self.thumbnails, **thumbnails}.items() if id in there}
        self.moments = moments
        self.tell(moments)
