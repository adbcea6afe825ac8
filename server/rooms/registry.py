"""Hub: where rooms, people, the store and the engine meet. It decides nothing about the document: `RoomDocument` does.

An operation goes through the room, then to disk, and only then to everybody and to the engine. Since the store commits
in order, records reach people in order.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from types import TracebackType
from typing import Any

from msgspec.structs import replace
from PIL import Image

from livedrag.server.access.credentials import Credentials, PasswordRequired, Visitor
from livedrag.server.access.rate_limits import RateLimited, RateLimits
from livedrag.server.device.checkpoints import Checkpoints
from livedrag.server.device.engine import (
    AnyEvent,
    CommandFailed,
    DesiredState,
    Engine,
    FrameFormat,
    PictureRef,
    PlacedDrag,
    PreparationProgress,
    Prepare,
    PreviewReady,
    ReleaseSession,
    ResetSession,
    RunFinished,
    RunProgress,
    Seek,
    SeekCompleted,
    Start,
    Stop,
    TimelineChanged,
    UpdateRun,
    WorkerRestarted,
    WorkerRestarting,
)
from livedrag.server.document.checks import Refused
from livedrag.server.document.document import MAX_KNOWN, RoomDocument
from livedrag.server.document.fold import fold
from livedrag.server.document.members import AccessDenied, Members, is_script
from livedrag.server.document.protocol import (
    FRAME_CREDITS,
    VERSION,
    AckFrame,
    ClientMessage,
    Close,
    DocRecord,
    Document,
    Edit,
    Edited,
    Ended,
    EngineReport,
    ErrorMessage,
    Frame,
    Hello,
    MaskLayer,
    ModelInfo,
    Moment,
    Moments,
    PersonPresence,
    Ping,
    Points,
    Prepared,
    Presence,
    Presences,
    Progress,
    Raster,
    Redo,
    Rejected,
    Rename,
    Request,
    Reset,
    Restore,
    Resumed,
    RoomLimits,
    SeekMoment,
    SetPrompt,
    SetSettings,
    Snapshot,
    Started,
    StartRun,
    Stopping,
    StopRun,
    Undo,
    WasReset,
    Welcome,
    tag_of,
)
from livedrag.server.errors import UnknownRoom
from livedrag.server.images.animation import find_encoder
from livedrag.server.images.mask import lets_nothing_change, rasterise, to_png
from livedrag.server.metrics import Metrics
from livedrag.server.rooms.admission import Admission, keep_quietly, new_link
from livedrag.server.rooms.generation import Generations
from livedrag.server.rooms.outbox import Disconnect, Outbox
from livedrag.server.rooms.room import LiveRoom, RasterisedMask, RoomSession
from livedrag.server.settings import Settings
from livedrag.server.storage import SavedRoom, Store, StoreError

log = logging.getLogger(__name__)

LINGER = 60.0
"""Seconds after which a room in which nobody sits any more leaves the memory, or its session the device."""
PREPARE_PAUSE = 0.3
"""Seconds without a change of prompt or settings after which the picture is prepared anew."""
SEEK_SECONDS = 60.0
"""How long a moment may be sought."""
GOODBYE_SECONDS = 1.0
"""How long people have to hear that the server stops."""
HOUSEKEEPING_SECONDS = 3600.0
DAY = 86_400.0


class RoomRegistry:
    """All rooms of this server."""

    def __init__(self, settings: Settings, store: Store, engine: Engine) -> None:
        self.settings = settings
        self.store = store
        self.engine = engine
        self.limits = RateLimits(settings)
        self.metrics = Metrics()
        self.doors = Admission(store, Credentials(store, settings.password), self.limits, self.open)
        self.checkpoints = Checkpoints(settings.data_dir / "checkpoints")
        self.generations = Generations(settings, engine, self.metrics)
        self.most = RoomLimits(
            upload_bytes=settings.max_upload_bytes,
            pixels=settings.max_pixels,
            drags=settings.max_drags,
            prompt=settings.max_prompt,
            message_bytes=settings.max_message_bytes,
        )
        self.model: ModelInfo | None = None
        self.encoder: str | None = None
        self._halls: dict[str, LiveRoom] = {}
        self._opening = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._frames = 0
        self._all_gone = asyncio.Event()
        self.metrics.gauge("livedrag_rooms_open", "Rooms in memory.", lambda: len(self._halls))
        self.metrics.gauge(
            "livedrag_people", "People in rooms.", lambda: sum(len(h.here) for h in self._halls.values())
        )
        self.metrics.gauge("livedrag_connections", "Open connections.", lambda: len(self._seats()))
        self.metrics.watch_engine(engine.stats)

    async def __aenter__(self) -> RoomRegistry:
        """Start the engine. Raises `EngineError`."""
        self.model, self.encoder = await asyncio.gather(self.engine.start(self._hear), asyncio.to_thread(find_encoder))
        self._keep(self._clean_up())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.engine.close()

    @property
    def capabilities(self) -> tuple[str, ...]:
        """What this server can do, or asks for, beside what every one does."""
        there = {"password": bool(self.settings.password), "mp4": self.encoder is not None}
        return tuple(name for name, is_there in there.items() if is_there)

    async def say_goodbye(self) -> None:
        """The server stops: let everybody go, who then know that they may come back."""
        self.generations.close()
        fault = ErrorMessage(reason="going_away", message="the server stops; come back in a moment")
        for seat in self._seats():
            seat.outbox.dismiss(Disconnect(Close.GOING_AWAY, fault))
        if self._seats():
            self._all_gone.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._all_gone.wait(), GOODBYE_SECONDS)

    def _seats(self) -> list[RoomSession]:
        return [seat for hall in self._halls.values() for seat in hall.seats.values()]

    # Rooms -----------------------------------------------------------------------------------------------------------

    async def create(self, document: Document) -> tuple[str, str]:
        """Make a room, whose pictures are in the store already; returns its id and its owner's secret."""
        room, (link, secret) = secrets.token_urlsafe(9), new_link("owner")
        await asyncio.wrap_future(self.store.create(room, document, [link]))
        return room, secret

    async def open(self, room: str) -> LiveRoom:
        """A room from memory or disk. Raises `UnknownRoom`."""
        if room not in self._halls:
            async with self._opening:
                if room not in self._halls:
                    self._halls[room] = hall = await self._read(room)
                    asyncio.get_running_loop().call_later(LINGER, self._close_if_empty, hall)
        return self._halls[room]

    async def delete(self, hall: LiveRoom) -> None:
        """Delete a room with all that is kept of it, and let everybody in it go."""
        deleting = self.store.delete(hall.room.id)
        self._halls.pop(hall.room.id, None)
        self._stop_tasks(hall)
        self.engine.submit(ReleaseSession(room=hall.room.id, wipe=True))
        fault = ErrorMessage(reason="room_deleted", message="an owner has deleted this room")
        for seat in hall.seats.values():
            seat.outbox.dismiss(Disconnect(Close.ROOM_DELETED, fault))
        await asyncio.wrap_future(deleting)

    async def _clean_up(self) -> None:
        """Now and then, delete the rooms and forget the cookies that nobody has used for long."""
        while True:
            now = time.time()
            try:
                await asyncio.wrap_future(self.store.expire_sessions(now - self.settings.session_days * DAY))
                if self.settings.room_days:
                    before = now - self.settings.room_days * DAY
                    for room in await asyncio.wrap_future(self.store.expire(before, set(self._halls))):
                        log.info("nobody has used this room for long: deleted", extra={"room": room})
                        self.engine.submit(ReleaseSession(room=room, wipe=True))
            except StoreError as error:
                log.error("old rooms could not be deleted: %s", error)
            await asyncio.sleep(HOUSEKEEPING_SECONDS)

    def _close_if_empty(self, hall: LiveRoom) -> None:
        """Forget a room in which nobody sits and nothing runs; all of it is on disk, or on its way there."""
        if not hall.seats and not hall.room.running and self._is_open(hall):
            del self._halls[hall.room.id]
            self._stop_tasks(hall)
            asyncio.get_running_loop().call_later(LINGER, self._put_away, hall.room.id)

    def _put_away(self, room: str) -> None:
        """Nobody has come back: the session may leave the device."""
        if room not in self._halls:
            self.engine.submit(ReleaseSession(room=room))

    def _stop_tasks(self, hall: LiveRoom) -> None:
        for task in (hall.steering, hall.preparing):
            if task is not None:
                task.cancel()

    def _is_open(self, hall: LiveRoom) -> bool:
        """Whether this is the room's hall still: one that was closed while something waited must change nothing."""
        return self._halls.get(hall.room.id) is hall

    async def _read(self, room: str) -> LiveRoom:
        opened, saved = await self._load(room)
        hall = LiveRoom(
            room=opened,
            instance=saved.instance,
            guests=Members(room, saved.links, saved.members),
            document=opened.document,
            seq=opened.seq,
            log=deque((r for r in saved.records if r.seq > saved.base_seq), maxlen=MAX_KNOWN),
            engine=EngineReport(state=self.engine.state),
        )
        kept = await asyncio.to_thread(self.checkpoints.load_timeline, room)
        if kept is not None:
            hall.keep(to_moments(kept, hall), kept.thumbnails)
        return hall

    async def _load(self, room: str) -> tuple[RoomDocument, SavedRoom]:
        saved = await asyncio.wrap_future(self.store.load(room))
        if saved is None:
            raise UnknownRoom(room)
        assert self.model is not None
        opened = RoomDocument(room, saved.base, self.model, seq=saved.base_seq, records=saved.records, limits=self.most)
        run = opened.document.run
        if run is not None and run.outcome is None:  # the machine stopped under it
            opened.document = replace(opened.document, run=replace(run, interrupted=True))
        return opened, saved

    async def mask_png(self, hall: LiveRoom) -> bytes | None:
        """The mask as a PNG, white may change; None if everything may."""
        return (await self._rasterised_mask(hall)).png

    async def _rasterised_mask(self, hall: LiveRoom) -> RasterisedMask:
        """The mask as the room has it when this returns."""
        async with hall.rasterising:  # once, however many wait for it
            while hall.mask.layers is not hall.room.document.mask:  # and again, if somebody has painted meanwhile
                layers, picture = hall.room.document.mask, hall.room.document.picture
                hall.mask = await asyncio.to_thread(self._rasterise_mask, layers, (picture.width, picture.height))
            return hall.mask

    def _rasterise_mask(self, layers: tuple[MaskLayer, ...], size: tuple[int, int]) -> RasterisedMask:
        if not layers:
            return RasterisedMask(layers)
        mask = rasterise(layers, size, self._mask)
        return RasterisedMask(layers, to_png(mask), frozen=lets_nothing_change(mask))

    def _mask(self, sha256: str) -> Image.Image:
        return Image.open(io.BytesIO(self.store.get_picture(sha256)))

    # People ----------------------------------------------------------------------------------------------------------

    async def join(self, room: str, hello: Hello, outbox: Outbox, visitor: Visitor) -> RoomSession:
        """Let somebody in: they get the document, or what they have missed of it, and what there is to see of a run."""
        try:
            hall = await self.open(room)
            person = await self.doors.identify(hall, hello, visitor)
            hall = await self.open(room)
            member, link = hall.guests.admit(person, hello.secret, time.time())
        except UnknownRoom as error:
            raise Disconnect(Close.UNKNOWN_ROOM, ErrorMessage(reason="unknown_room", message=str(error))) from None
        except RateLimited as error:
            self.metrics.rejects.labels(error.setting).inc()
            raise Disconnect(Close.TOO_MANY, ErrorMessage(reason="too_many", message=str(error))) from None
        except PasswordRequired as error:
            raise Disconnect(Close.PASSWORD, ErrorMessage(reason="password", message=str(error))) from None
        except AccessDenied as error:
            code = Close.REMOVED if error.reason == "removed" else Close.WRONG_SECRET
            raise Disconnect(code, ErrorMessage(reason=error.reason, message=str(error))) from None
        except StoreError as error:
            log.error("nobody can come in: %s", error, extra={"room": room})
            text = f"the server cannot read or keep what it needs to: {error}"
            raise Disconnect(Close.GOING_AWAY, ErrorMessage(reason="not_saved", message=text)) from None
        if link is not None:
            keep_quietly(self.store.save_link(room, link))
        name = hello.name.strip() or member.name or f"Guest {len(hall.guests.members)}"
        if name != member.name:
            self.doors.rename(hall, person, name)
        seat = RoomSession(
            house=self,
            hall=hall,
            id=secrets.token_urlsafe(6),
            person=person,
            link=member.link,
            address=visitor.address,
            formats=hello.formats,
            outbox=outbox,
        )
        self._greet(seat, hello)
        hall.seats[seat.id] = seat
        hall.tell(hall.people())
        if hall.started and hall.room.running and hall.format != frame_format(hall):
            hall.edited.set()  # else they would see nothing until the next edit
        if len(hall.seats) == 1:
            self._prepare_soon(hall)
        return seat

    def _greet(self, seat: RoomSession, hello: Hello) -> None:
        assert self.model is not None
        hall, outbox = seat.hall, seat.outbox
        outbox.put(
            Welcome(
                version=VERSION,
                room=hall.room.id,
                instance=hall.instance,
                you=seat.id,
                person=seat.person,
                role=seat.role,
                model=self.model,
                capabilities=self.capabilities,
                limits=self.most,
                base=self.settings.base_path,
                heartbeat=self.settings.heartbeat,
                deadline=self.settings.deadline,
                frame_credits=FRAME_CREDITS,
            )
        )
        missed = hall.missed(hello.since) if hello.since is not None and hello.of == hall.instance else None
        if missed is None:
            outbox.put(Snapshot(seq=hall.seq, document=hall.document))
        else:
            assert hello.since is not None
            outbox.put(Resumed(seq=hello.since))
            for record in missed:
                outbox.put(record)
        outbox.put(hall.engine)
        outbox.put(hall.history(seat.person))
        if hall.moments is not None:
            outbox.put(hall.moments)
        if hall.pointing:
            outbox.put(Presences(people=dict(hall.pointing)))
        for latest in hall.latest.values():
            seat.show(latest)

    def leave(self, seat: RoomSession) -> None:
        """Somebody has gone."""
        hall = seat.hall
        if hall.seats.pop(seat.id, None) is None:
            return
        if not hall.of(seat.person):
            hall.point(seat.person, None)
        hall.tell(hall.people())
        self._close_if_empty(hall)
        if not self._seats():
            self._all_gone.set()

    # Operations ------------------------------------------------------------------------------------------------------

    def count(self, seat: RoomSession, message: ClientMessage) -> None:
        """Count what comes in. Raises `Disconnect` where it is more than anybody needs."""
        try:
            self.limits.check_address(seat.address, "message")
            if isinstance(message, Ping | AckFrame | Hello):
                self.limits.check_person(seat.person, tag_of(message))
        except RateLimited as error:
            self.metrics.rejects.labels(error.setting).inc()
            raise Disconnect(Close.TOO_MANY, ErrorMessage(reason="too_many", message=str(error))) from None

    def receive(self, seat: RoomSession, message: ClientMessage) -> None:
        """Do what somebody in a room asks for, or tell them why not."""
        match message:
            case Presence() | Rename():
                with contextlib.suppress(RateLimited):  # the next one will tell
                    self.limits.check_person(seat.person, tag_of(message))
                    self._show(seat, message)
            case Hello() | AckFrame() | Ping():
                pass  # between the connection and its client
            case _:
                self._request(seat, message)

    def _show(self, seat: RoomSession, message: Presence | Rename) -> None:
        hall = seat.hall
        if isinstance(message, Presence):
            pointing = PersonPresence(
                cursor=message.cursor, selected=message.selected, tool=message.tool, busy=message.busy
            )
            hall.point(seat.person, pointing)
        elif message.name.strip():
            self.doors.rename(hall, seat.person, message.name.strip())
            hall.tell(hall.people())

    def _request(self, seat: RoomSession, message: Request) -> None:
        hall, by = seat.hall, seat.person
        room = hall.room
        try:
            self.limits.check_person(by, tag_of(message))
            if seat.role == "viewer":
                raise Refused("forbidden", "your link is for viewing: ask for one to edit")
        except RateLimited as error:
            self.metrics.rejects.labels(error.setting).inc()
            seat.outbox.put(Rejected(op_id=message.op_id, reason="slow_down", message=str(error)))
            return
        except Refused as refusal:
            self._reject(seat, message.op_id, refusal)
            return
        match message:
            case _ if self._answers_again(seat, message):
                pass
            case Edit():
                self._operate(seat, message, lambda: room.edit(by, message))
            case Undo():
                self._operate(seat, message, lambda: room.undo(by, message))
            case Redo():
                self._operate(seat, message, lambda: room.redo(by, message))
            case StartRun() if room.document.mask:
                self._keep(self._start(seat, message))
            case StartRun():
                self._operate(seat, message, lambda: room.start(by, message, secrets.token_urlsafe(6)))
            case StopRun():
                self._operate(seat, message, lambda: room.stop(by, message))
            case Reset():
                self._operate(seat, message, lambda: room.reset(by, message))
            case SeekMoment():
                self._keep(self._seek(seat, message))

    async def _start(self, seat: RoomSession, message: StartRun) -> None:
        """Press Drag in a room with a mask, which has to be drawn to know whether it lets anything change."""
        hall = seat.hall
        try:
            frozen = (await self._rasterised_mask(hall)).frozen
        except (OSError, StoreError, ValueError):
            frozen = False  # the run will meet the same fault, and say so to everybody
        if not self._is_open(hall):
            return  # everybody has left; whoever pressed sends it again when they are back
        run = secrets.token_urlsafe(6)
        self._operate(seat, message, lambda: hall.room.start(seat.person, message, run, frozen=frozen))

    async def load_mask(self, hall: LiveRoom, by: str, op_id: str, raster: Raster) -> DocRecord:
        """Replace the mask by a loaded one; returns the record when it is on disk. Raises `StoreError`."""
        hall = await self.open(hall.room.id)  # it may have been closed while the mask was on its way
        if hall.room.known(op_id) is not None:
            await asyncio.wrap_future(self.store.barrier())
            known = hall.saved(op_id)
            if known is None:
                raise StoreError(f"operation {op_id!r} was not saved: send it again")
            return known
        record = hall.room.load_mask(by, op_id, raster)
        await asyncio.wrap_future(self._commit(hall, record))
        return record

    def _answers_again(self, seat: RoomSession, message: Request) -> bool:
        """Whether it was sent again, because the answer got lost or has yet to come; then it is answered once more."""
        if seat.hall.room.known(message.op_id) is None:
            return False

        def answer(barrier: asyncio.Future[None]) -> None:
            barrier.exception()  # whatever it says: what is on disk, and has been told, the hall knows
            known = seat.hall.saved(message.op_id)
            if known is not None:
                seat.outbox.put(known)
            else:
                self._reject(seat, message.op_id, Refused("invalid", "this was not saved: do it again"))

        asyncio.wrap_future(self.store.barrier()).add_done_callback(answer)
        return True

    def _operate(self, seat: RoomSession, message: Request, operate: Callable[[], DocRecord]) -> None:
        if self._answers_again(seat, message):  # it may have come twice while the mask was drawn
            return
        try:
            record = operate()
        except Refused as refusal:
            self._reject(seat, message.op_id, refusal)
            return
        self._commit(seat.hall, record, seat)

    def _reject(self, seat: RoomSession, op_id: str, refusal: Refused) -> None:
        self.metrics.rejects.labels(refusal.reason).inc()
        seat.outbox.put(Rejected(op_id=op_id, reason=refusal.reason, message=str(refusal)))

    def _commit(self, hall: LiveRoom, record: DocRecord, seat: RoomSession | None = None) -> Future[None]:
        """Save a record, then tell everybody."""
        accepted = time.monotonic()
        if isinstance(record, Edited) and is_script(record.by) and record.by in hall.guests.members:
            # Whoever has edited keeps their name.
            keep_quietly(self.store.save_member(hall.room.id, hall.guests.members[record.by]))
        saving = self.store.append(hall.room.id, record, hall.room.document)

        def saved(saving: asyncio.Future[None]) -> None:
            error = None if saving.cancelled() else saving.exception()
            if error is None:
                self.metrics.save_seconds.observe(time.monotonic() - accepted)
                self.metrics.operations.labels(tag_of(record.op if isinstance(record, Edited) else record)).inc()
                self._publish(hall, record)
            elif self._is_open(hall):
                self._unsaved(hall, record, seat, error)

        asyncio.wrap_future(saving).add_done_callback(saved)
        return saving

    def _unsaved(self, hall: LiveRoom, record: DocRecord, seat: RoomSession | None, error: BaseException) -> None:
        """The disk refused: go back to what is on it, and tell."""
        log.error("record %d was not saved: %s", record.seq, error, extra={"room": hall.room.id})
        if seat is not None and not isinstance(record, Ended):
            seat.outbox.put(Rejected(op_id=record.op_id, reason="invalid", message=f"this was not saved: {error}"))
        self._keep(self._reload(hall))

    async def _reload(self, hall: LiveRoom) -> None:
        refused = hall.room
        room, _ = await self._load(hall.room.id)
        if hall.room is not refused:
            return  # it was read again for another record, and may be ahead of what is read here
        last = hall.document.run
        # A run goes on if people were told of it and nothing ends it: one whose start was refused never began.
        goes_on = refused.running and last is not None and last.outcome is None and not last.interrupted
        if goes_on and room.document.run is not None and room.document.run.interrupted:
            room.document = replace(room.document, run=replace(room.document.run, interrupted=False))
        hall.room, hall.document, hall.seq = room, room.document, room.seq
        if room.running:
            hall.edited.set()  # the engine may have heard of what was refused
        elif hall.steering is not None:
            hall.steering.cancel()
        hall.tell(Snapshot(seq=hall.seq, document=hall.document))
        hall.tell_histories(hall.here)

    def _publish(self, hall: LiveRoom, record: DocRecord) -> None:
        """A record is on disk: tell everybody, and the engine where it concerns a run."""
        last = hall.document.run
        hall.document, hall.seq = fold(hall.document, record), record.seq
        hall.log.append(record)
        hall.tell(record)
        if isinstance(record, Edited):
            hall.tell_histories(hall.here)
        match record:
            case Started(run=run):
                hall.latest.clear()
                hall.stopping, hall.started = False, False
                hall.resuming = last is not None and last.id == run.id and last.interrupted
                hall.edited.clear()
                if hall.room.runs(run.id):
                    hall.steering = self._keep(self._steer(hall, run.id))
            case Edited(op=op):
                hall.edited.set()
                if prepares_anew(op, hall.room.model):
                    self._prepare_soon(hall)
            case Stopping():
                hall.stopping = True
                if hall.started and hall.document.run is not None:
                    self.engine.submit(Stop(room=hall.room.id, run=hall.document.run.id))
            case WasReset():
                self.engine.submit(ResetSession(room=hall.room.id))
            case Ended(run=run):
                self.metrics.runs.labels(str(run.outcome)).inc()
                hall.latest.clear()
                if hall.steering is not None:
                    hall.steering.cancel()
                self._close_if_empty(hall)

    # Runs ------------------------------------------------------------------------------------------------------------

    async def _steer(self, hall: LiveRoom, run: str) -> None:
        """Begin a run on the engine, and tell it of every edit until the run has ended."""
        try:
            await self._follow(hall, run)
        except Exception as error:
            log.exception("a run cannot be steered", extra={"room": hall.room.id, "run": run})
            if not hall.room.runs(run):
                return
            message = "something unexpected went wrong; the server's log has the details"
            if isinstance(error, OSError | StoreError | ValueError):
                message = f"the room's pictures cannot be read: {error}"
            self._commit(hall, hall.room.end("failed", message=message))
            if hall.started:
                self.engine.submit(Stop(room=hall.room.id, run=run))

    async def _follow(self, hall: LiveRoom, run: str) -> None:
        room = hall.room
        picture = self._picture(room)
        desired = await self._desired_state(hall)
        if not hall.room.runs(run):
            return  # over before it began
        self.engine.submit(Start(run=run, picture=picture, desired=desired, resume=hall.resuming))
        hall.started, hall.format = True, desired.format
        if hall.stopping:
            self.engine.submit(Stop(room=room.id, run=run))
        while True:
            await hall.edited.wait()
            hall.edited.clear()
            desired = await self._desired_state(hall)
            if not hall.room.runs(run):
                return
            self.engine.submit(UpdateRun(desired=desired))
            hall.format = desired.format

    def _picture(self, room: RoomDocument) -> PictureRef:
        """The uploaded picture, for a worker to read. Raises `StoreError`."""
        sha256 = room.document.picture.sha256
        return PictureRef(sha256=sha256, path=str(self.store.picture_path(sha256).absolute()))

    async def _desired_state(self, hall: LiveRoom) -> DesiredState:
        mask = await self.mask_png(hall)
        room, document = hall.room, hall.room.document
        return DesiredState(
            room=room.id,
            seq=room.seq,
            prompt=document.prompt,
            settings=document.settings,
            drags={
                id: PlacedDrag(handle=drag.handle, target=drag.target, handle_version=room.handle_version(id))
                for id, drag in document.drags.items()
            },
            mask=mask,
            format=frame_format(hall),
            generation=document.picture.generation,
        )

    def _prepare_soon(self, hall: LiveRoom) -> None:
        """Have the picture prepared, so that a run finds it done, once nothing has changed for a moment."""
        if hall.preparing is not None:
            hall.preparing.cancel()
        hall.preparing = self._keep(self._prepare(hall))

    async def _prepare(self, hall: LiveRoom) -> None:
        await asyncio.sleep(PREPARE_PAUSE)
        try:
            picture = self._picture(hall.room)
            desired = await self._desired_state(hall)
        except (OSError, StoreError, ValueError) as error:
            log.error("a picture cannot be prepared: %s", error, extra={"room": hall.room.id})
            return  # whoever presses Drag is told
        if not hall.room.running and self._is_open(hall):
            self.engine.submit(Prepare(picture=picture, desired=desired))

    async def _seek(self, seat: RoomSession, message: SeekMoment) -> None:
        """Ask the engine for a moment; what it answers is a record, or a refusal."""
        hall, asked, key = seat.hall, (seat, message), (seat.person, message.op_id)
        moments = {moment.id for moment in hall.moments.moments} if hall.moments is not None else set()
        if message.moment not in moments:
            there = ", ".join(map(str, sorted(moments)[:20])) or "none"
            text = f"moment {message.moment} is not on the timeline (it may have been thinned away): there are {there}"
            self._reject(seat, message.op_id, Refused("unknown", text))
            return
        text = f"moment {message.moment} could not be reached: the device is busy or its worker restarts, try again"
        waiting = hall.seeking.setdefault(message.moment, {})
        under_way = key in waiting
        waiting[key] = asked  # where it was sent again over a new connection, it is answered there
        try:
            if not under_way:
                desired = await self._desired_state(hall)
                if self._is_open(hall):
                    self.engine.submit(Seek(moment=message.moment, desired=desired))
        except (OSError, StoreError, ValueError) as error:
            log.error("a moment cannot be sought: %s", error, extra={"room": hall.room.id})
            latest, _ = waiting.pop(key, asked)
            self._reject(latest, message.op_id, Refused("busy", text))
            return
        await asyncio.sleep(SEEK_SECONDS)
        if hall.seeking.get(message.moment, {}).get(key) is asked:  # and stays there: the engine may go there yet
            self._reject(seat, message.op_id, Refused("busy", text))

    def _sought(self, hall: LiveRoom, event: SeekCompleted) -> None:
        for seat, message in hall.seeking.pop(event.moment, {}).values():
            self._operate(
                seat,
                message,
                lambda by=seat.person, m=message: hall.room.seek(by, m, event.tracked),  # type: ignore[misc]
            )

    def _hear(self, event: AnyEvent) -> None:
        """The engine tells something."""
        if isinstance(event, WorkerRestarting | WorkerRestarted):
            self._restarted(event)
            return
        if self.generations.hear(event):
            return
        if not isinstance(
            event,
            RunProgress
            | PreviewReady
            | CommandFailed
            | RunFinished
            | PreparationProgress
            | TimelineChanged
            | SeekCompleted,
        ):
            return
        hall = self._halls.get(event.room)
        if hall is None:
            return  # nobody is there any more
        match event:
            case CommandFailed(moment=moment, message=message):
                asked = hall.seeking.pop(moment, {}) if moment is not None else {}
                for seat, seek in asked.values():
                    self._reject(seat, seek.op_id, Refused("unknown", message))
                if not asked:
                    hall.tell(ErrorMessage(reason="editor", message=message))
            case PreparationProgress(stage=stage, step=step, steps=steps, seconds_left=left):
                if not hall.room.running:
                    self._volatile(hall, Prepared(stage=stage, step=step, steps=steps, seconds_left=left))
            case TimelineChanged(thumbnails=thumbnails):
                hall.keep(to_moments(event, hall), thumbnails)
            case SeekCompleted():
                self._sought(hall, event)
            case RunProgress(record=record) if hall.room.runs(record.run):
                self._volatile(hall, record)
            case PreviewReady(run=run) if hall.room.runs(run):
                self._volatile(hall, self._frame(event))
            case RunFinished(run=run) if hall.room.runs(run):
                self._keep(self._end(hall, event))

    def _restarted(self, event: WorkerRestarting | WorkerRestarted) -> None:
        """A device's worker is away, or back: tell the rooms that have something on it, or would have."""
        for hall in self._halls.values():
            if isinstance(event, WorkerRestarting) and (hall.room.id in event.rooms or self.engine.state != "ready"):
                hall.engine = EngineReport(state="restarting", message=event.message)
            elif isinstance(event, WorkerRestarted) and (hall.room.id in event.rooms or self.engine.state == "ready"):
                hall.engine = EngineReport(state="ready")
            else:
                continue
            hall.tell(hall.engine)

    def _frame(self, event: PreviewReady) -> Frame:
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

    def _volatile(self, hall: LiveRoom, record: Progress | Points | Frame | Prepared) -> None:
        hall.latest[type(record)] = record
        hall.tell(record)

    async def _end(self, hall: LiveRoom, event: RunFinished) -> None:
        """Save the picture of a run, then its end."""
        outcome, message, sha256 = event.outcome, event.message, None
        if event.picture is not None:
            try:
                sha256 = await asyncio.to_thread(self.store.put_picture, event.picture)
            except StoreError as error:
                outcome, message = "failed", f"the result could not be saved: {error}"
        if not hall.room.runs(event.run) or not self._is_open(hall):
            return  # ended otherwise meanwhile, or deleted
        record = hall.room.end(
            outcome,
            iterations=event.iterations,
            tracked=event.tracked,
            seen=event.seq,
            sha256=sha256,
            message=message,
        )
        self._commit(hall, record)

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


def to_moments(kept: TimelineChanged, hall: LiveRoom) -> Moments:
    """The timeline as people are told of it."""
    run = hall.document.run
    return Moments(
        run=run.id if run is not None and run.outcome is None else None,
        moments=[
            Moment(id=m.id, parent=m.parent, iteration=m.iteration, time=m.time, thumbnail=m.thumbnail)
            for m in kept.moments
        ],
        current=kept.current,
    )


def prepares_anew(op: object, model: ModelInfo) -> bool:
    """Whether the preparation of a picture depends on what an operation changes."""
    match op:
        case SetPrompt():
            return True
        case Restore(prompt=str()):
            return True
        case SetSettings(settings=settings) | Restore(settings=settings):
            return not settings.keys() <= {*model.live}
    return False


def frame_format(hall: LiveRoom) -> FrameFormat:
    """The picture format that everybody in a room can show, WebP if they can."""
    return "webp" if all("webp" in seat.formats for seat in hall.seats.values()) else "jpeg"
