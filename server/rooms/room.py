"""A room that is open: its sessions, and what is saved and published to them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future

from livedrag.server.access.rate_limits import RateLimited
from livedrag.server.device.messages import (
    CommandFailed,
    ModelFailed,
    ModelLoaded,
    PreparationProgress,
    PreviewReady,
    RunFinished,
    RunProgress,
    SeekCompleted,
    TimelineChanged,
)
from livedrag.server.document.document import RoomDocument
from livedrag.server.document.log_entries import latest_entries
from livedrag.server.document.members import Member, Members, is_script
from livedrag.server.document.protocol import (
    AckFrame,
    ClientMessage,
    Close,
    DocRecord,
    Document,
    Edited,
    Ended,
    EngineReport,
    ErrorMessage,
    Hello,
    History,
    Log,
    People,
    Person,
    PersonPresence,
    Ping,
    Pong,
    Presence,
    Rejected,
    Rename,
    RoomModel,
    ServerMessage,
    Snapshot,
    encode,
    tag_of,
)
from livedrag.server.rooms.background import log_failure
from livedrag.server.rooms.document_log import DocumentLog, damage_text, open_draft
from livedrag.server.rooms.edit_follower import EditFollower
from livedrag.server.rooms.greeting import greeting
from livedrag.server.rooms.mask_cache import MaskCache
from livedrag.server.rooms.model_switch import ModelSwitch
from livedrag.server.rooms.outbox import Disconnect, Outbox
from livedrag.server.rooms.presence import PresenceBoard
from livedrag.server.rooms.requests import RequestHandler
from livedrag.server.rooms.run_control import RunControl
from livedrag.server.rooms.services import Services
from livedrag.server.rooms.session import RoomSession
from livedrag.server.rooms.timeline import Timeline
from livedrag.server.storage import SavedRoom

log = logging.getLogger(__name__)

RoomEvent = (
    RunProgress
    | PreviewReady
    | RunFinished
    | PreparationProgress
    | CommandFailed
    | TimelineChanged
    | SeekCompleted
    | ModelLoaded
    | ModelFailed
)


class LiveRoom:
    """An open room.

    Attributes:
        closed: whether the registry has let it go; it must then change nothing any more.
        followers: scripts that wait for the end of a run.
        engine_report: the state of the room's device.
    """

    def __init__(self, id: str, saved: SavedRoom, services: Services, on_unused: Callable[[LiveRoom], None]) -> None:
        """Open a room as it is on disk.

        Args:
            on_unused: called when the last session has left, and when a run ends.
        """
        self.id = id
        self.services = services
        self.damage = "" if saved.complete else damage_text(saved)
        self.log = DocumentLog(open_draft(id, saved, services), saved)
        self.members = Members(id, saved.links, saved.members)
        self.sessions: dict[str, RoomSession] = {}
        self.mask = MaskCache(services.store, services.rasteriser, lambda: self.draft.document)
        self.presence = PresenceBoard(self.broadcast)
        self.timeline = Timeline(self)
        self.models = ModelSwitch(self)
        self.requests = RequestHandler(self)
        self.run = RunControl(self)
        self.engine_report = EngineReport(state=services.engine.state)
        self.closed = False
        self.followers: set[EditFollower] = set()
        self._on_unused = on_unused
        self._histories: dict[str, History] = {}  # as last sent, by person

    @property
    def draft(self) -> RoomDocument:
        """The document with all accepted edits, of which the latest may not be saved yet."""
        return self.log.draft

    @property
    def document(self) -> Document:
        """The document as it is saved and published."""
        return self.log.document

    @property
    def seq(self) -> int:
        """The number of the last published record."""
        return self.log.seq

    @property
    def in_use(self) -> bool:
        return bool(self.sessions) or bool(self.followers) or self.draft.running

    @property
    def connected(self) -> set[str]:
        """The people in the room."""
        return {session.person for session in self.sessions.values()}

    def sessions_of(self, person: str) -> list[RoomSession]:
        return [session for session in self.sessions.values() if session.person == person]

    def close(self) -> None:
        """Stop what runs in the background; all of the room is on disk, or on its way there."""
        self.closed = True
        self.close_followers()
        self.run.close()

    def close_followers(self) -> None:
        """Scripts need not wait any more."""
        for follower in list(self.followers):
            follower.close()

    def unfollow(self, follower: EditFollower) -> None:
        """A script waits no more."""
        self.followers.discard(follower)
        if not self.closed:
            self._report_unused()

    # Sessions --------------------------------------------------------------------------------------------------------

    def join(self, member: Member, hello: Hello, outbox: Outbox, address: str) -> RoomSession:
        """Add a session of a member, and send it the document, or what it has missed."""
        name = hello.name.strip() or member.name or f"Guest {len(self.members.members)}"
        if name != member.name:
            self.rename(member.person, name)
        session = RoomSession(
            room=self,
            id=secrets.token_urlsafe(6),
            person=member.person,
            link=member.link,
            address=address,
            formats=hello.formats,
            outbox=outbox,
        )
        for message in greeting(self, session, hello):
            session.send(message)
        self.sessions[session.id] = session
        self.broadcast(self.people())
        self.run.on_join()
        return session

    def leave(self, session: RoomSession) -> None:
        """Remove a session."""
        if self.sessions.pop(session.id, None) is None:
            return
        if session.person not in self.connected:
            self.presence.remove(session.person)
            self._histories.pop(session.person, None)
        self.broadcast(self.people())
        self._report_unused()

    def disconnect(self, sessions: Iterable[RoomSession], code: Close, reason: str, message: str) -> None:
        """Close connections."""
        for session in list(sessions):
            session.outbox.dismiss(Disconnect(code, ErrorMessage(reason=reason, message=message)))

    def rename(self, person: str, name: str) -> None:
        """Change the name of a member."""
        member = self.members.rename(person, name)
        if not is_script(person) or person in self.log.editors:
            log_failure(self.services.store.save_member(self.id, member))

    def _report_unused(self) -> None:
        if not self.sessions:
            self._on_unused(self)

    # Messages from clients -------------------------------------------------------------------------------------------

    def receive(self, session: RoomSession, message: ClientMessage) -> None:
        """Handle a message. Raises `Disconnect` for one that ends the connection."""
        self._count(session, message)
        match message:
            case Ping(time=time):
                session.outbox.put(Pong(time=time))
            case AckFrame(frame=frame):
                session.outbox.acknowledge(frame)
            case Presence() | Rename():
                with contextlib.suppress(RateLimited):  # dropped: the next one counts
                    self.services.rate_limits.check_person(session.person, tag_of(message))
                    self._present(session.person, message)
            case Hello():
                text = "'hello' came a second time: only the first message may be 'hello'"
                raise Disconnect(Close.BAD_MESSAGE, ErrorMessage(reason="bad_message", message=text))
            case _:
                self.requests.handle(session, message)

    def _count(self, session: RoomSession, message: ClientMessage) -> None:
        limits = self.services.rate_limits
        try:
            limits.check_address(session.address, "message")
            if isinstance(message, Ping | AckFrame | Hello):
                limits.check_person(session.person, tag_of(message))
        except RateLimited as error:
            self.services.metrics.rejects.labels(error.setting).inc()
            raise Disconnect(Close.TOO_MANY, ErrorMessage(reason="too_many", message=str(error))) from None

    def _present(self, person: str, message: Presence | Rename) -> None:
        if isinstance(message, Presence):
            presence = PersonPresence(
                cursor=message.cursor,
                selected=message.selected,
                tool=message.tool,
                busy=message.busy,
                view=message.view,
            )
            self.presence.update(person, presence)
        elif message.name.strip():
            self.rename(person, message.name.strip())
            self.broadcast(self.people())

    # Messages to clients ---------------------------------------------------------------------------------------------

    def broadcast(self, message: ServerMessage, sessions: Iterable[RoomSession] | None = None) -> None:
        """Send a message to all sessions, or to some."""
        if sessions is None:
            for follower in list(self.followers):
                follower.take(message)
        receivers = list(self.sessions.values() if sessions is None else sessions)
        packed = encode(message) if receivers else b""
        for session in receivers:
            session.send(message, packed)

    def people(self) -> People:
        """Everyone who is in the room or has an edit in the log."""
        connected = self.connected
        shown = connected | self.log.editors
        people = {
            person: Person(
                name=member.name, colour=member.colour, role=member.role or "viewer", here=person in connected
            )
            for person, member in self.members.members.items()
            if person in shown
        }
        return People(people=people)

    def history_of(self, person: str) -> History:
        """What a person can undo and redo."""
        undo, redo = self.draft.history(person)
        self._histories[person] = History(undo=undo, redo=redo)
        return self._histories[person]

    def send_histories(self) -> None:
        """Send people what they can undo and redo, if it has changed."""
        for person in self.connected:
            before = self._histories.get(person)
            if (history := self.history_of(person)) != before:
                self.broadcast(history, self.sessions_of(person))

    # Records ---------------------------------------------------------------------------------------------------------

    def commit(self, record: DocRecord, session: RoomSession | None = None) -> Future[None]:
        """Save an accepted record, then publish it; if that fails, revert the document and tell ``session``."""
        document, accepted = self.draft.document, time.monotonic()
        if isinstance(record, Edited) and is_script(record.by) and record.by in self.members.members:
            log_failure(self.services.store.save_member(self.id, self.members.members[record.by]))
        saving = self.services.store.append(self.id, record, document)

        def saved(saving: asyncio.Future[None]) -> None:
            error = None if saving.cancelled() else saving.exception()
            if error is None:
                self.services.metrics.save_seconds.observe(time.monotonic() - accepted)
                self._publish(record, document)
            elif not self.closed:
                self._not_saved(record, session, error)

        asyncio.wrap_future(saving).add_done_callback(saved)
        return saving

    def _publish(self, record: DocRecord, document: Document) -> None:
        """A record is on disk: send it to everyone, and to the engine if it concerns a run."""
        self.services.metrics.operations.labels(tag_of(record.op if isinstance(record, Edited) else record)).inc()
        before = self.document
        self.log.publish(record, document)
        self.broadcast(record)
        if document.model != before.model:
            self.broadcast(RoomModel(model=self.services.model_of(document)))
        self.send_histories()
        self.run.follow(record, before)
        if isinstance(record, Ended):
            self.services.metrics.runs.labels(str(record.run.outcome)).inc()
            self._report_unused()

    def _not_saved(self, record: DocRecord, session: RoomSession | None, error: BaseException) -> None:
        log.error("record %d was not saved: %s", record.seq, error, extra={"room": self.id})
        if session is not None and not isinstance(record, Ended):
            text = f"this was not saved: {error}"
            session.outbox.put(Rejected(op_id=record.op_id, reason="invalid", message=text))
        self.services.tasks.start(self._revert())

    async def _revert(self) -> None:
        """Return to the document on disk."""
        refused = self.draft
        saved = await asyncio.wrap_future(self.services.store.load(self.id))
        if saved is None or self.draft is not refused:
            return  # deleted, or reverted already because of another record
        self.log.revert(open_draft(self.id, saved, self.services))
        self.run.on_revert()
        self.broadcast(Snapshot(seq=self.seq, document=self.document))
        self.broadcast(Log(entries=latest_entries(reversed(self.log.records))))
        self.broadcast(RoomModel(model=self.services.model_of(self.document)))
        self.send_histories()

    # Events from the engine ------------------------------------------------------------------------------------------

    def on_event(self, event: RoomEvent) -> None:
        """Take in an event about this room."""
        match event:
            case TimelineChanged():
                self.timeline.update(event)
            case SeekCompleted():
                self.timeline.complete(event)
            case ModelLoaded() | ModelFailed():
                self.models.on_event(event)
            case CommandFailed(message=message):
                if not self.timeline.fail(event):
                    self.broadcast(ErrorMessage(reason="editor", message=message))
            case _:
                self.run.on_event(event)

    def report_engine(self, report: EngineReport) -> None:
        """The room's device has stopped or is available again."""
        self.engine_report = report
        self.broadcast(report)
