"""Requests of clients: each becomes a record, or is rejected; one that is sent again is answered again."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from livedrag.server.access.rate_limits import RateLimited
from livedrag.server.document.checks import Refused
from livedrag.server.document.protocol import (
    DocRecord,
    Drag,
    Edit,
    EditFurther,
    Picture,
    Raster,
    Redo,
    Rejected,
    Request,
    Reset,
    RestoreRun,
    SeekMoment,
    SetModel,
    SetTitle,
    StartRun,
    StopRun,
    Undo,
    tag_of,
)
from livedrag.server.errors import ServiceError
from livedrag.server.rooms.run_control import obstacle
from livedrag.server.rooms.session import RoomSession
from livedrag.server.rooms.stroke_budget import StrokeBudget
from livedrag.server.settings import MIB
from livedrag.server.storage import StoreError

if TYPE_CHECKING:
    from livedrag.server.rooms.room import LiveRoom


class RequestHandler:
    """Answers the requests to one room."""

    def __init__(self, room: LiveRoom) -> None:
        self._room = room
        self._services = room.services
        self._strokes = StrokeBudget(room.services.settings.rate_strokes, room.services.clock)

    def handle(self, session: RoomSession, request: Request) -> None:
        """Check whether the person may do this now, then do it."""
        try:
            self._services.rate_limits.check_person(session.person, tag_of(request))
            if session.role == "viewer":
                raise Refused("forbidden", "your link is view only: ask for one to edit")
            self._strokes.check(request)
            if not isinstance(request, StopRun):
                self.check_writable()
        except RateLimited as error:
            self._services.metrics.rejects.labels(error.setting).inc()
            session.outbox.put(Rejected(op_id=request.op_id, reason="slow_down", message=str(error)))
        except Refused as refusal:
            self.reject(session, request.op_id, refusal)
        else:
            self._execute(session, request)

    def check_writable(self) -> None:
        """Raise `Refused` if the room is damaged, or as large as it may become."""
        if self._room.damage:
            raise Refused("damaged", self._room.damage)
        limit, size = self._services.settings.max_room_bytes, self._services.store.sizes.get(self._room.id)
        if limit and size > limit:
            raise Refused(
                "too_many",
                f"this room uses {size / MIB:.1f} MiB on the server, the limit is {limit / MIB:.1f} MiB: "
                "export it, or continue in a new room with its result",
            )

    def _execute(self, session: RoomSession, request: Request) -> None:
        draft, by = self._room.draft, session.person
        match request:
            case Edit(op=SetModel() as op):
                if not self._answered_before(session, request.op_id):
                    self._room.models.request(session, request, op)
            case Edit():
                self.apply(session, request.op_id, lambda: draft.edit(by, request))
            case Undo():
                self.apply(session, request.op_id, lambda: draft.undo(by, request, partial(obstacle, self._room)))
            case Redo():
                self.apply(session, request.op_id, lambda: draft.redo(by, request, partial(obstacle, self._room)))
            case EditFurther():
                self.apply(session, request.op_id, lambda: draft.edit_further(by, request))
            case RestoreRun():
                room = self._room
                self.apply(
                    session,
                    request.op_id,
                    lambda: draft.restore_run(by, request, room.timeline.has, partial(obstacle, room)),
                )
            case StartRun() if draft.document.mask:
                self._services.tasks.start(self._start_with_mask(session, request))
            case StartRun():
                self.apply(session, request.op_id, lambda: draft.start(by, request, new_run_id()))
            case StopRun():
                self.apply(session, request.op_id, lambda: draft.stop(by, request))
            case Reset():
                self.apply(session, request.op_id, lambda: draft.reset(by, request))
            case SeekMoment() if not self._answered_before(session, request.op_id):
                self._services.tasks.start(self._room.timeline.seek(session, request))

    def apply(self, session: RoomSession, op_id: str, operate: Callable[[], DocRecord]) -> None:
        """Do an operation and commit its record, or reject it."""
        if self._answered_before(session, op_id):
            return
        try:
            record = operate()
        except Refused as refusal:
            self.reject(session, op_id, refusal)
            if refusal.reason == "stale":  # and forgotten, if it was an undo
                self._room.send_histories()
        else:
            self._strokes.spend(record)
            self._room.commit(record, session)

    def reject(self, session: RoomSession, op_id: str, refusal: Refused) -> None:
        """Answer a request with a refusal."""
        self._services.metrics.rejects.labels(refusal.reason).inc()
        session.outbox.put(Rejected(op_id=op_id, reason=refusal.reason, message=str(refusal)))

    async def load_mask(self, by: str, op_id: str, raster: Raster) -> DocRecord:
        """Replace the mask by an uploaded one; returns the record once it is on disk. Raises `StoreError`."""
        return await self._commit_once(op_id, lambda: [self._room.draft.load_mask(by, op_id, raster)])

    async def replace_picture(self, by: str, op_id: str, picture: Picture) -> DocRecord:
        """Edit another picture; returns the record once it is on disk. Raises `Refused`, `StoreError`."""
        return await self._commit_once(op_id, lambda: [self._room.draft.replace_picture(by, op_id, picture)])

    async def start(self, by: str) -> DocRecord:
        """Press Drag, for a script; returns the record once it is on disk. Raises `Refused`, `StoreError`."""
        self.check_writable()
        frozen = bool(self._room.draft.document.mask) and (await self._room.mask.current()).frozen
        draft, request = self._room.draft, StartRun(op_id=secrets.token_urlsafe(12))
        return await self._commit_once(request.op_id, lambda: [draft.start(by, request, new_run_id(), frozen=frozen)])

    async def rename(self, by: str, title: str) -> None:
        """Give the room a title, as an edit. Raises `Refused`, `StoreError`."""
        draft, op_id = self._room.draft, secrets.token_urlsafe(12)
        edit = Edit(op_id=op_id, base=draft.seq, op=SetTitle(title=title))
        await self._commit_once(op_id, lambda: [draft.edit(by, edit)])

    async def _commit_once(self, op_id: str, operate: Callable[[], Sequence[DocRecord]]) -> DocRecord:
        """Do an operation unless it was done before; returns its first record once all are on disk."""
        if self._room.draft.known(op_id) is None:
            records = operate()
            *_, saving = [self._room.commit(record) for record in records]
            await asyncio.wrap_future(saving)
            return records[0]
        await asyncio.wrap_future(self._services.store.barrier())
        published = self._room.log.published(op_id)
        if published is None:
            raise StoreError(f"operation {op_id!r} was not saved: send it again")
        return published

    async def keep_preview(self, by: str, op_id: str, sha256: str, drags: Mapping[str, Drag]) -> DocRecord:
        """Keep the quick preview as the result; returns the record of its start once both are on disk.

        Raises:
            Refused: a run is under way, or there is nothing to drag.
            StoreError: it was not saved.
        """
        draft = self._room.draft
        return await self._commit_once(op_id, lambda: draft.keep_preview(by, op_id, new_run_id(), sha256, drags))

    async def _start_with_mask(self, session: RoomSession, request: StartRun) -> None:
        """Start a run in a room with a mask, which has to be rasterised to see whether anything is editable."""
        try:
            frozen = (await self._room.mask.current()).frozen
        except (OSError, ServiceError, ValueError):
            frozen = False  # the run will fail with the same error, and report it to everyone
        if self._room.closed:
            return  # the client sends it again when it reconnects
        draft = self._room.draft
        self.apply(session, request.op_id, lambda: draft.start(session.person, request, new_run_id(), frozen=frozen))

    def _answered_before(self, session: RoomSession, op_id: str) -> bool:
        """Whether this operation was accepted before; its answer is then sent again once it is on disk."""
        if self._room.draft.known(op_id) is None:
            return False

        def answer(barrier: asyncio.Future[None]) -> None:
            barrier.exception()  # retrieved; the log knows what is on disk
            published = self._room.log.published(op_id)
            if published is not None:
                session.outbox.put(published)
            else:
                self.reject(session, op_id, Refused("invalid", "this was not saved: do it again"))

        asyncio.wrap_future(self._services.store.barrier()).add_done_callback(answer)
        return True


def new_run_id() -> str:
    return secrets.token_urlsafe(6)
