"""Hub: where rooms, people, the store and the engine meet. It decides nothing about the document: `Room` does.

An operation goes through the room, then to disk, and only then to everybody and to the engine. Since the store commits
in order, records reach people in order.
"""

from __future__ import annotations

import asyncio
import io
import logging
import secrets
import time
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from msgspec.structs import replace
from PIL import Image

from server.connection import Farewell, Outbox
from server.engine import (
    AnyEvent,
    Change,
    Complained,
    Engine,
    Finished,
    FrameFormat,
    Goal,
    Grip,
    Lost,
    Pictured,
    Reported,
    Rewind,
    Start,
    Stop,
)
from server.mask import lets_nothing_change, rasterise, to_png
from server.protocol import (
    FRAME_CREDITS,
    VERSION,
    ClientMessage,
    Close,
    DocRecord,
    Document,
    Edit,
    Edited,
    Ended,
    Fault,
    Frame,
    Hello,
    MaskLayer,
    ModelInfo,
    MostAllowed,
    People,
    Person,
    Points,
    Progress,
    Raster,
    Rejected,
    Reset,
    Role,
    ServerMessage,
    Snapshot,
    Started,
    StartRun,
    Stopping,
    StopRun,
    WasReset,
    Welcome,
    encode,
)
from server.room import Refused, Room, digest, fold
from server.settings import Settings
from server.store import Link, Saved, Store, StoreError

log = logging.getLogger(__name__)

LINGER = 60.0
"""Seconds after which a room that was opened without anybody sitting down in it is closed again."""


class UnknownRoom(Exception):
    """There is no room by that id."""


class WrongSecret(Exception):
    """The secret opens nothing here."""


@dataclass(frozen=True)
class DrawnMask:
    """Layers and what they look like: a PNG, or None if everything may change; ``frozen`` if nothing may."""

    layers: tuple[MaskLayer, ...] = ()
    png: bytes | None = None
    frozen: bool = False


@dataclass(eq=False)
class Seat:
    """One connected person in one room."""

    hub: Hub
    hall: Hall
    id: str
    name: str
    role: Role
    formats: tuple[str, ...]
    outbox: Outbox

    def receive(self, message: ClientMessage) -> None:
        """Do what somebody asks for, or tell them why not."""
        self.hub.receive(self, message)


@dataclass(eq=False)
class Hall:
    """A room that is open: who is in it, and what those who come late should see of the run."""

    room: Room
    instance: str
    roles: dict[str, Role]
    document: Document  # what is on disk and has been told: the room itself may be ahead
    seq: int
    seats: dict[str, Seat] = field(default_factory=dict)
    latest: dict[type, Progress | Points | Frame] = field(default_factory=dict)
    edited: asyncio.Event = field(default_factory=asyncio.Event)  # the engine has not heard of it yet
    stopping: bool = False
    started: bool = False  # the engine has heard of the run
    mask: DrawnMask = field(default_factory=DrawnMask)
    steering: asyncio.Task[None] | None = None


class Hub:
    """All rooms of this server."""

    def __init__(self, settings: Settings, store: Store, engine: Engine) -> None:
        self.settings = settings
        self.store = store
        self.engine = engine
        self.model: ModelInfo | None = None
        self._halls: dict[str, Hall] = {}
        self._opening = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._frames = 0

    async def __aenter__(self) -> Hub:
        """Start the engine. Raises `EngineError`."""
        self.model = await self.engine.start(self._hear)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.engine.close()

    # Rooms -----------------------------------------------------------------------------------------------------------

    async def create(self, document: Document) -> tuple[str, str]:
        """Make a room, whose pictures are in the store already; returns its id and its owner's secret."""
        room, secret = secrets.token_urlsafe(9), secrets.token_urlsafe(24)
        link = Link(secrets.token_urlsafe(6), digest(secret), "owner", time.time())
        await asyncio.wrap_future(self.store.create(room, document, [link]))
        return room, secret

    async def open(self, room: str) -> Hall:
        """A room from memory or disk. Raises `UnknownRoom`."""
        if room not in self._halls:
            async with self._opening:
                if room not in self._halls:
                    opened, saved = await self._load(room)
                    hall = Hall(opened, saved.instance, saved.roles, opened.document, opened.seq)
                    self._halls[room] = hall
                    asyncio.get_running_loop().call_later(LINGER, self._close_if_empty, hall)
        return self._halls[room]

    def _close_if_empty(self, hall: Hall) -> None:
        """Forget a room in which nobody sits and nothing runs; all of it is on disk, or on its way there."""
        if not hall.seats and not hall.room.running and self._is_open(hall):
            del self._halls[hall.room.id]

    def _is_open(self, hall: Hall) -> bool:
        """Whether this is the room's hall still: one that was closed while something waited must change nothing."""
        return self._halls.get(hall.room.id) is hall

    async def _load(self, room: str) -> tuple[Room, Saved]:
        saved = await asyncio.wrap_future(self.store.load(room))
        if saved is None:
            raise UnknownRoom(f"there is no room {room!r}: make one with a picture")
        assert self.model is not None
        opened = Room(room, saved.base, self.model, seq=saved.base_seq, records=saved.records)
        run = opened.document.run
        if run is not None and run.outcome is None:  # the machine stopped under it
            opened.document = replace(opened.document, run=replace(run, interrupted=True))
        return opened, saved

    async def enter(self, room: str, secret: str) -> tuple[Hall, Role]:
        """A room for somebody who has a secret of it. Raises `UnknownRoom`, `WrongSecret`."""
        hall = await self.open(room)
        role = hall.roles.get(digest(secret))
        if role is None:
            raise WrongSecret(f"this secret does not open room {room!r}: use the whole link, with what follows its '#'")
        return hall, role

    async def mask_png(self, hall: Hall) -> bytes | None:
        """The mask as a PNG, white may change; None if everything may."""
        return (await self._drawn_mask(hall)).png

    async def _drawn_mask(self, hall: Hall) -> DrawnMask:
        """The mask as the room has it when this returns."""
        while hall.mask.layers is not hall.room.document.mask:  # and again, if somebody has painted meanwhile
            layers, picture = hall.room.document.mask, hall.room.document.picture
            hall.mask = await asyncio.to_thread(self._draw_mask, layers, (picture.width, picture.height))
        return hall.mask

    def _draw_mask(self, layers: tuple[MaskLayer, ...], size: tuple[int, int]) -> DrawnMask:
        if not layers:
            return DrawnMask(layers)
        mask = rasterise(layers, size, self._mask)
        return DrawnMask(layers, to_png(mask), frozen=lets_nothing_change(mask))

    def _mask(self, sha256: str) -> Image.Image:
        return Image.open(io.BytesIO(self.store.get_picture(sha256)))

    # People ----------------------------------------------------------------------------------------------------------

    async def join(self, room: str, hello: Hello, outbox: Outbox) -> Seat:
        """Let somebody in: they get the document and what there is to see of a run."""
        try:
            hall, role = await self.enter(room, hello.secret)
        except UnknownRoom as error:
            raise Farewell(Close.UNKNOWN_ROOM, Fault(reason="unknown_room", message=str(error))) from None
        except WrongSecret as error:
            raise Farewell(Close.WRONG_SECRET, Fault(reason="wrong_secret", message=str(error))) from None
        assert self.model is not None
        name = hello.name.strip() or f"Guest {len(hall.seats) + 1}"
        seat = Seat(self, hall, secrets.token_urlsafe(6), name, role, hello.formats, outbox)
        outbox.put(
            Welcome(
                version=VERSION,
                room=room,
                instance=hall.instance,
                you=seat.id,
                person=seat.id,
                role=role,
                limits=MostAllowed(upload_bytes=self.settings.max_upload_bytes, pixels=self.settings.max_pixels),
                model=self.model,
                heartbeat=self.settings.heartbeat,
                deadline=self.settings.deadline,
                frame_credits=FRAME_CREDITS,
            )
        )
        outbox.put(Snapshot(seq=hall.seq, document=hall.document))
        hall.seats[seat.id] = seat
        self._announce(hall)
        for record in hall.latest.values():
            _show(seat, record)
        return seat

    def leave(self, seat: Seat) -> None:
        """Somebody has gone."""
        if seat.hall.seats.pop(seat.id, None) is not None:
            self._announce(seat.hall)
            self._close_if_empty(seat.hall)

    def _announce(self, hall: Hall) -> None:
        people = {
            seat.id: Person(name=seat.name, colour="#1f77b4", role=seat.role, here=True) for seat in hall.seats.values()
        }
        self._broadcast(hall, People(people=people))

    def _broadcast(self, hall: Hall, message: ServerMessage) -> None:
        packed = encode(message)
        for seat in hall.seats.values():
            _show(seat, message, packed)

    # Operations ------------------------------------------------------------------------------------------------------

    def receive(self, seat: Seat, message: ClientMessage) -> None:
        """Do what somebody in a room asks for, or tell them why not."""
        room, by = seat.hall.room, seat.id
        match message:
            case Edit():
                self._operate(seat, message.op_id, lambda: room.edit(by, message))
            case StartRun() if room.document.mask and seat.role != "viewer":
                self._keep(self._start(seat, message))
            case StartRun():
                self._operate(seat, message.op_id, lambda: room.start(by, message, secrets.token_urlsafe(6)))
            case StopRun():
                self._operate(seat, message.op_id, lambda: room.stop(by, message))
            case Reset():
                self._operate(seat, message.op_id, lambda: room.reset(by, message))
            case _:
                pass  # between the connection and its client

    async def _start(self, seat: Seat, message: StartRun) -> None:
        """Press Drag in a room with a mask, which has to be drawn to know whether it lets anything change."""
        hall = seat.hall
        try:
            frozen = (await self._drawn_mask(hall)).frozen
        except (OSError, StoreError, ValueError):
            frozen = False  # the run will meet the same fault, and say so to everybody
        if not self._is_open(hall):
            return  # everybody has left; whoever pressed sends it again when they are back
        run = secrets.token_urlsafe(6)
        self._operate(seat, message.op_id, lambda: hall.room.start(seat.id, message, run, frozen=frozen))

    async def load_mask(self, hall: Hall, op_id: str, raster: Raster) -> DocRecord:
        """Replace the mask by a loaded one; returns the record when it is on disk. Raises `StoreError`."""
        hall = await self.open(hall.room.id)  # it may have been closed while the mask was on its way
        known = hall.room.known(op_id)
        if known is not None:
            await asyncio.wrap_future(self.store.barrier())
            return known
        record = hall.room.load_mask("", op_id, raster)
        await asyncio.wrap_future(self._commit(hall, record))
        return record

    def _operate(self, seat: Seat, op_id: str, operate: Callable[[], DocRecord]) -> None:
        hall = seat.hall
        if seat.role == "viewer":
            seat.outbox.put(
                Rejected(op_id=op_id, reason="forbidden", message="your link is for viewing: ask for one to edit")
            )
            return
        known = hall.room.known(op_id)
        if known is not None:  # sent again: the answer got lost, or has yet to come
            saved = asyncio.wrap_future(self.store.barrier())
            saved.add_done_callback(lambda _: seat.outbox.put(known))
            return
        try:
            record = operate()
        except Refused as refusal:
            seat.outbox.put(Rejected(op_id=op_id, reason=refusal.reason, message=str(refusal)))
            return
        self._commit(hall, record, seat)

    def _commit(self, hall: Hall, record: DocRecord, seat: Seat | None = None) -> Future[None]:
        """Save a record, then tell everybody."""
        saving = self.store.append(hall.room.id, record, hall.room.document)

        def saved(saving: asyncio.Future[None]) -> None:
            error = None if saving.cancelled() else saving.exception()
            if error is None:
                self._publish(hall, record)
            else:
                self._unsaved(hall, record, seat, error)

        asyncio.wrap_future(saving).add_done_callback(saved)
        return saving

    def _unsaved(self, hall: Hall, record: DocRecord, seat: Seat | None, error: BaseException) -> None:
        """The disk refused: go back to what is on it, and tell."""
        log.error("record %d of room %s was not saved: %s", record.seq, hall.room.id, error)
        if seat is not None and not isinstance(record, Ended):
            seat.outbox.put(Rejected(op_id=record.op_id, reason="invalid", message=f"this was not saved: {error}"))
        self._keep(self._reload(hall))

    async def _reload(self, hall: Hall) -> None:
        was_running = hall.room.running
        hall.room, _ = await self._load(hall.room.id)
        room = hall.room
        if was_running and room.document.run is not None and room.document.run.interrupted:
            room.document = replace(room.document, run=replace(room.document.run, interrupted=False))
        hall.document, hall.seq = room.document, room.seq
        self._broadcast(hall, Snapshot(seq=hall.seq, document=hall.document))

    def _publish(self, hall: Hall, record: DocRecord) -> None:
        """A record is on disk: tell everybody, and the engine where it concerns a run."""
        hall.document, hall.seq = fold(hall.document, record), record.seq
        self._broadcast(hall, record)
        match record:
            case Started(run=run):
                hall.latest.clear()
                hall.stopping, hall.started = False, False
                hall.edited.clear()
                if hall.room.runs(run.id):  # else the worker was lost meanwhile, which has ended the run already
                    hall.steering = self._keep(self._steer(hall, run.id))
            case Edited():
                hall.edited.set()
            case Stopping():
                hall.stopping = True
                if hall.started and hall.document.run is not None:
                    self.engine.submit(Stop(room=hall.room.id, run=hall.document.run.id))
            case WasReset():
                self.engine.submit(Rewind(room=hall.room.id))
            case Ended():
                hall.latest.clear()
                if hall.steering is not None:
                    hall.steering.cancel()
                self._close_if_empty(hall)

    # Runs ------------------------------------------------------------------------------------------------------------

    async def _steer(self, hall: Hall, run: str) -> None:
        """Begin a run on the engine, and tell it of every edit until the run has ended."""
        try:
            await self._follow(hall, run)
        except (OSError, StoreError, ValueError) as error:
            log.exception("run %s in room %s cannot be steered", run, hall.room.id)
            if hall.room.runs(run):
                self._commit(hall, hall.room.end("failed", message=f"the room's pictures cannot be read: {error}"))

    async def _follow(self, hall: Hall, run: str) -> None:
        room = hall.room
        picture = await asyncio.to_thread(self.store.get_picture, room.document.picture.sha256)
        goal = await self._goal(hall)
        if not hall.room.runs(run):
            return  # over before it began: the worker was lost
        self.engine.submit(Start(run=run, picture=picture, goal=goal))
        hall.started = True
        if hall.stopping:
            self.engine.submit(Stop(room=room.id, run=run))
        while True:
            await hall.edited.wait()
            hall.edited.clear()
            goal = await self._goal(hall)
            if not hall.room.runs(run):
                return
            self.engine.submit(Change(goal=goal))

    async def _goal(self, hall: Hall) -> Goal:
        mask = await self.mask_png(hall)
        room, document = hall.room, hall.room.document
        return Goal(
            room=room.id,
            seq=room.seq,
            prompt=document.prompt,
            settings=document.settings,
            drags={
                id: Grip(handle=drag.handle, target=drag.target, grabbed=room.grabbed(id))
                for id, drag in document.drags.items()
            },
            mask=mask,
            format=frame_format([seat.formats for seat in hall.seats.values()]),
        )

    def _hear(self, event: AnyEvent) -> None:
        """The engine tells something."""
        if isinstance(event, Lost):
            for running in [hall for hall in self._halls.values() if hall.room.running]:
                self._lost(running, event.message)
            return
        if not isinstance(event, Reported | Pictured | Complained | Finished):
            return
        hall = self._halls.get(event.room)
        if hall is None:
            return  # nobody is there any more
        if isinstance(event, Complained):
            self._broadcast(hall, Fault(reason="editor", message=event.message))
            return
        about = event.record.run if isinstance(event, Reported) else event.run
        if not hall.room.runs(about):
            return  # of a run that is over for this room
        match event:
            case Reported(record=record):
                self._volatile(hall, record)
            case Pictured():
                self._volatile(hall, self._frame(event))
            case Finished():
                self._keep(self._end(hall, event))

    def _frame(self, event: Pictured) -> Frame:
        self._frames += 1
        return Frame(
            frame=self._frames,
            run=event.run,
            stage=event.stage,
            iteration=event.iteration,
            format=event.format,
            width=event.width,
            height=event.height,
            time=event.time,
            data=event.data,
        )

    def _volatile(self, hall: Hall, record: Progress | Points | Frame) -> None:
        hall.latest[type(record)] = record
        self._broadcast(hall, record)

    async def _end(self, hall: Hall, event: Finished) -> None:
        """Save the picture of a run, then its end."""
        outcome, message, sha256 = event.outcome, event.message, None
        if event.picture is not None:
            try:
                sha256 = await asyncio.to_thread(self.store.put_picture, event.picture)
            except StoreError as error:
                outcome, message = "failed", f"the result could not be saved: {error}"
        if not hall.room.runs(event.run):
            return  # the worker died meanwhile, which has ended this run already; another may have begun
        record = hall.room.end(
            outcome,
            iterations=event.iterations,
            tracked=event.tracked,
            seen=event.seq,
            sha256=sha256,
            message=message,
        )
        self._commit(hall, record)

    def _lost(self, hall: Hall, message: str) -> None:
        """The worker is gone, and with it the latent: all content is back where it was."""
        tracked: Mapping[str, Any] = {id: drag.handle for id, drag in hall.room.document.drags.items()}
        self._commit(hall, hall.room.end("failed", tracked=tracked, message=f"{message}. Press Drag to begin anew."))

    def _keep(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something of our own until the hub closes; what goes wrong in it is logged."""
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            log.error("a task of the hub failed", exc_info=task.exception())


def frame_format(wishes: list[tuple[str, ...]]) -> FrameFormat:
    """The picture format that everybody in a room can show, WebP if they can."""
    return "webp" if all("webp" in wish for wish in wishes) else "jpeg"


def _show(seat: Seat, message: ServerMessage, packed: bytes | None = None) -> None:
    """Send a message, unless it is a picture that this client cannot show."""
    if not isinstance(message, Frame) or message.format in seat.formats:
        seat.outbox.put(message, packed)
