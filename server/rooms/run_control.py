"""The run of one room: when the engine prepares the picture, starts, updates and stops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from livedrag.server.device.messages import (
    DesiredState,
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
    Start,
    Stop,
    UpdateRun,
)
from livedrag.server.document.protocol import (
    BaseReplaced,
    Content,
    DocRecord,
    Document,
    Edited,
    Ended,
    Frame,
    ModelChoice,
    ModelInfo,
    Operation,
    Points,
    Prepared,
    Progress,
    Raster,
    Restore,
    SetModel,
    SetPrompt,
    SetSettings,
    Started,
    Stopping,
    WasReset,
)
from livedrag.server.errors import ServiceError
from livedrag.server.rooms.session import preview_format
from livedrag.server.storage import StoreError

if TYPE_CHECKING:
    from livedrag.server.rooms.room import LiveRoom

log = logging.getLogger(__name__)

PREPARE_PAUSE = 0.3
"""Seconds without a change of the prompt or a setting before the picture is prepared."""


@dataclass(frozen=True)
class Idle:
    """Nothing runs."""


@dataclass(frozen=True)
class WillPrepare:
    """The picture will be prepared unless something changes or a run starts."""


@dataclass(frozen=True)
class Starting:
    """The start of a run is saved, but not sent to the engine yet: its mask has to be rasterised first.

    ``resume``: it was interrupted before. ``stop``: Stop was pressed meanwhile.
    """

    run: str
    resume: bool
    stop: bool = False


@dataclass(frozen=True)
class Running:
    """The engine has the run, and sends previews in ``format``."""

    run: str
    format: FrameFormat


@dataclass(frozen=True)
class Ending:
    """Stop was sent to the engine; it still renders the result, and follows edits until then."""

    run: str
    format: FrameFormat


RunState = Idle | WillPrepare | Starting | Running | Ending


class RunControl:
    """The run of one room, or the preparation of its picture.

    Attributes:
        latest: the latest volatile message of each kind about the run, for people who join.
    """

    def __init__(self, room: LiveRoom) -> None:
        self.state: RunState = Idle()
        self.latest: dict[type, Progress | Points | Frame | Prepared] = {}
        self._room = room
        self._engine = room.services.engine
        self._edited = asyncio.Event()  # the engine has not got the latest edit
        self._task: asyncio.Task[None] | None = None  # of the current state
        self._restoring: asyncio.Task[None] | None = None  # sends the engine where to go back to
        self._frames = 0

    # What happens in the room ----------------------------------------------------------------------------------------

    def follow(self, record: DocRecord, before: Document) -> None:
        """React to a record that was published; ``before`` is the document before it."""
        if self._room.closed:
            return
        match record:
            case Started(run=run):
                previous = before.run
                self.latest.clear()
                self._edited.clear()
                if self._room.draft.runs(run.id):
                    resume = previous is not None and previous.id == run.id and previous.interrupted
                    self._enter(Starting(run.id, resume), self._drive(run.id))
            case Edited(op=Restore(content=Content() as content) as op):
                self._restore(content, before)
                if needs_preparation(op, self._room.draft.model):
                    self.prepare_soon()
            case BaseReplaced():
                self._leave_picture()
            case Edited(op=op):
                self._edited.set()
                if needs_preparation(op, self._room.draft.model):
                    self.prepare_soon()
            case Stopping():
                self._stop()
            case WasReset():
                self._engine.submit(ResetSession(room=self._room.id))
            case Ended():
                self.latest.clear()
                self._enter(Idle())

    def on_join(self) -> None:
        """Someone has joined: they may need another preview format; the first person has the picture prepared."""
        match self.state:
            case Running(format=format) | Ending(format=format):
                if format != preview_format(self._room.sessions.values()):
                    self._edited.set()
        if len(self._room.sessions) == 1:
            self.prepare_soon()

    def on_revert(self) -> None:
        """The document was reverted to what is on disk."""
        if self._room.draft.running:
            self._edited.set()  # the engine may have got what was reverted
        elif not isinstance(self.state, WillPrepare):
            self._enter(Idle())

    def close(self) -> None:
        self._enter(Idle())

    def prepare_soon(self) -> None:
        """Prepare the picture once nothing has changed for `PREPARE_PAUSE`, so that a run finds it prepared."""
        if isinstance(self.state, Idle | WillPrepare):
            self._enter(WillPrepare(), self._prepare())

    def _enter(self, state: RunState, work: Coroutine[Any, Any, None] | None = None) -> None:
        if self._task is not None:
            self._task.cancel()
        self.state = state
        self._task = self._room.services.tasks.start(work) if work is not None else None

    def on_switch_refused(self) -> None:
        """Another model was not loaded: the picture is prepared as it was."""
        last = self.latest.get(Prepared)
        if isinstance(last, Prepared) and last.stage == "loading" and not self._room.draft.running:
            del self.latest[Prepared]
            self.prepare_soon()

    # Commands to the engine ------------------------------------------------------------------------------------------

    async def _prepare(self) -> None:
        room = self._room
        await room.services.clock.sleep(PREPARE_PAUSE)
        await self._restored()
        try:
            desired, picture = await desired_state(room), picture_of(room)
        except (OSError, ServiceError, ValueError) as error:  # pressing Drag will report it
            log.error("cannot prepare a picture: %s", error, extra={"room": room.id})
        else:
            if not room.draft.running and not room.closed:
                self._engine.submit(Prepare(picture=picture, desired=desired))
        self.state = Idle()

    async def _drive(self, run: str) -> None:
        """Start a run on the engine, and send it every edit until it has ended."""
        try:
            await self._start(run)
            while self._room.draft.runs(run):
                await self._edited.wait()
                self._edited.clear()
                await self._update(run)
        except Exception as error:
            log.exception("a run cannot continue", extra={"room": self._room.id, "run": run})
            self._fail(run, error)

    async def _start(self, run: str) -> None:
        await self._restored()
        desired = await desired_state(self._room)
        if not self._room.draft.runs(run) or not isinstance(self.state, Starting):
            return  # it has ended meanwhile
        starting, self.state = self.state, Running(run, desired.format)
        picture = picture_of(self._room)
        self._engine.submit(Start(run=run, picture=picture, desired=desired, resume=starting.resume))
        if starting.stop:
            self._stop()

    async def _update(self, run: str) -> None:
        desired = await desired_state(self._room)
        if self._room.draft.runs(run) and isinstance(self.state, Running | Ending):
            self._engine.submit(UpdateRun(desired=desired))
            self.state = replace(self.state, format=desired.format)

    def _leave_picture(self) -> None:
        """The room has another picture: its session goes to disk, in case that is undone."""
        self._room.timeline.clear()
        self.latest.clear()
        self._engine.submit(ReleaseSession(room=self._room.id))
        self.prepare_soon()

    def _restore(self, content: Content, before: Document) -> None:
        """Have the engine go where the content was before a run, a jump, a reset or a change of the base picture."""
        picture = None
        if content.picture.sha256 != before.picture.sha256:
            picture = content.picture.sha256
            self._leave_picture()
        self.latest.clear()
        if content.moment is None:
            self._engine.submit(ResetSession(room=self._room.id, picture=picture))
        else:
            self._restoring = self._room.services.tasks.start(self._return_to(content.moment, picture))

    async def _return_to(self, moment: int, picture: str | None) -> None:
        try:
            desired = await desired_state(self._room)
        except (OSError, ServiceError, ValueError) as error:  # pressing Drag will report it
            log.error("cannot go back to a moment: %s", error, extra={"room": self._room.id})
            return
        if not self._room.closed:
            self._engine.submit(Seek(moment=moment, desired=desired, picture=picture))

    async def _restored(self) -> None:
        """Wait until the engine has been sent where to go back to."""
        if self._restoring is not None:
            await asyncio.wait([self._restoring])

    def _stop(self) -> None:
        match self.state:
            case Starting():
                self.state = replace(self.state, stop=True)
            case Running(run=run, format=format) | Ending(run=run, format=format):
                self._engine.submit(Stop(room=self._room.id, run=run))
                self.state = Ending(run, format)

    def _fail(self, run: str, error: Exception) -> None:
        if not self._room.draft.runs(run):
            return
        message = "an unexpected error occurred; see the server's log"
        if isinstance(error, OSError | StoreError | ValueError):
            message = f"the pictures of this room cannot be read: {error}"
        self._room.commit(self._room.draft.end("failed", message=message))
        if isinstance(self.state, Running | Ending):
            self._engine.submit(Stop(room=self._room.id, run=run))

    # Events from the engine ------------------------------------------------------------------------------------------

    def on_event(self, event: RunProgress | PreviewReady | RunFinished | PreparationProgress) -> None:
        """Take in an event of the run or the preparation; events of an earlier run are ignored."""
        draft = self._room.draft
        match event:
            case PreparationProgress():
                if not draft.running:
                    self._publish(
                        Prepared(
                            stage=event.stage,
                            step=event.step,
                            steps=event.steps,
                            seconds_left=event.seconds_left,
                            ignored_prompt=event.ignored_prompt,
                            unknown=event.unknown,
                        )
                    )
            case RunProgress(record=record) if draft.runs(record.run):
                self._publish(record)
            case PreviewReady(run=run) if draft.runs(run):
                self._frames += 1
                self._publish(to_frame(event, self._frames))
            case RunFinished(run=run) if draft.runs(run):
                self._room.services.tasks.start(self._end(event))

    def _publish(self, message: Progress | Points | Frame | Prepared) -> None:
        self.latest[type(message)] = message
        self._room.broadcast(message)

    async def _end(self, event: RunFinished) -> None:
        """Save the picture of a run, then its end."""
        outcome, message, sha256 = event.outcome, event.message, None
        if event.picture is not None:
            try:
                sha256 = await asyncio.to_thread(self._room.services.store.put_picture, event.picture)
            except StoreError as error:
                outcome, message = "failed", f"the result could not be saved: {error}"
        if self._room.draft.runs(event.run) and not self._room.closed:
            record = self._room.draft.end(
                outcome,
                iterations=event.iterations,
                tracked=event.tracked,
                lost=event.lost,
                seen=event.seq,
                sha256=sha256,
                moment=event.moment,
                message=message,
            )
            self._room.commit(record)


async def desired_state(room: LiveRoom) -> DesiredState:
    """What the engine's session of a room should be. Raises `OSError`, `ServiceError` or `ValueError`."""
    mask = await room.mask.current()
    draft, document = room.draft, room.draft.document
    return DesiredState(
        room=room.id,
        seq=draft.seq,
        prompt=document.prompt,
        settings=document.settings,
        drags={
            id: PlacedDrag(handle=drag.handle, target=drag.target, handle_version=draft.handle_version(id))
            for id, drag in document.drags.items()
        },
        mask=mask.png,
        pins=document.pins,
        format=preview_format(room.sessions.values()),
        generation=document.picture.generation,
        model=document.model,
    )


def obstacle(room: LiveRoom, content: Content) -> str:
    """Why this content cannot be restored in a room any more; empty if it can."""
    store, document = room.services.store, room.draft.document
    files = {content.picture.sha256} | ({content.result.sha256} if content.result else set())
    if not all(store.pictures.path(sha256).exists() for sha256 in files):
        return "the picture before that is no longer stored"
    kept = content.run is not None and content.run.outcome == "kept"
    if content.moment is None and content.tracked and not kept:
        return "it is not known where the content was before that"  # a run of an older version
    same_picture = content.picture.sha256 == document.picture.sha256
    if content.moment is not None and same_picture and not room.timeline.has(content.moment):
        return "the timeline no longer has the step before that"
    return ""


def picture_of(room: LiveRoom) -> PictureRef:
    """The uploaded picture of a room, for the engine. Raises `StoreError` if it is missing."""
    sha256 = room.document.picture.sha256
    return PictureRef(sha256=sha256, path=str(room.services.store.picture_path(sha256)))


def needs_preparation(op: Operation | Raster | Restore, model: ModelInfo) -> bool:
    """Whether an operation changes what the preparation of a picture depends on."""
    match op:
        case SetPrompt() | Restore(prompt=str()) | SetModel() | Restore(model=ModelChoice()):
            return True
        case SetSettings(settings=settings) | Restore(settings=settings):
            return not settings.keys() <= {*model.live}
    return False


def to_frame(event: PreviewReady, number: int) -> Frame:
    """A preview as clients get it."""
    return Frame(
        frame=number,
        run=event.run,
        stage=event.stage,
        iteration=event.iteration,
        format=event.format,
        width=event.width,
        height=event.height,
        time=event.time,
        data=event.data,
    )
