"""DeviceWorker: owns one device and the sessions on it, and shares its time among the rooms.

It advances one room by one step at a time, or several rooms that share passes of the UNet; between two steps it takes
commands. It knows neither sockets nor an event loop: plain calls go in, events come out.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial

from livedrag.editor import Diffusion, EditorError
from livedrag.editor.cost import Memory
from livedrag.editor.settings import Quality
from livedrag.server.device.checkpoints import Checkpoints
from livedrag.server.device.messages import (
    AnyCommand,
    CommandFailed,
    DesiredState,
    EventHandler,
    Generate,
    PreparationProgress,
    Prepare,
    ReleaseSession,
    ResetSession,
    Seek,
    SeekCompleted,
    SessionReleased,
    SessionReset,
    Start,
    StatsReported,
    Stop,
    UpdateRun,
    room_of,
)
from livedrag.server.device.worker.device_room import DeviceRoom, RunCount, Work
from livedrag.server.device.worker.model_catalog import ModelCatalog, Opener
from livedrag.server.device.worker.model_queue import ModelQueue
from livedrag.server.device.worker.models import Models
from livedrag.server.device.worker.previews import Previews
from livedrag.server.device.worker.queue_report import QueueReport
from livedrag.server.device.worker.residency import Residency
from livedrag.server.device.worker.room_settings import NO_CAPS
from livedrag.server.device.worker.room_timeline import tracked_now
from livedrag.server.device.worker.run_reports import RunReports
from livedrag.server.device.worker.scheduler import Scheduler
from livedrag.server.device.worker.session_files import SessionFiles
from livedrag.server.device.worker.sessions import Sessions
from livedrag.server.device.worker.stages import Stages
from livedrag.server.device.worker.step_failures import StepFailures, unexpected
from livedrag.server.device.worker.turns import Turns
from livedrag.server.device.worker.usage import DeviceUsage
from livedrag.server.document.protocol import ModelChoice, ModelInfo
from livedrag.server.metrics import DeviceStats

log = logging.getLogger(__name__)

STATS_SECONDS = 1.0
"""Between two reports of the statistics."""


class DeviceWorker:
    """One device, its models and its sessions.

    Args:
        model: loaded on the device, for rooms that have chosen none.
        on_event: takes every event; called from the thread that calls `advance` and `obey`.
        checkpoints: where sessions are stored.
        sessions: on the device at most.
        memory: of the device; None: no limit.
        caps: largest values of settings, by name, below the editor's own.
        every: iterations of a run between two of its checkpoints.
        metadata: whether results say how they were made.
        quality: of previews; by default what the device has the time for.
        clock: by which steps are charged, in seconds.
        catalog: of the models that rooms may choose; None: only this one.
        open_model: opens one of them.
        wake: called from another thread when one is there: `advance` has to be called then.
        share_passes: whether rooms share passes of the UNet where that is measured to be faster.
    """

    def __init__(
        self,
        model: Diffusion,
        on_event: EventHandler,
        checkpoints: Checkpoints,
        *,
        sessions: int = 16,
        memory: Memory | None = None,
        caps: Mapping[str, int] = NO_CAPS,
        every: int = 10,
        metadata: bool = True,
        quality: Quality | None = None,
        clock: Callable[[], float] = time.monotonic,
        catalog: ModelCatalog | None = None,
        open_model: Opener | None = None,
        wake: Callable[[], None] = lambda: None,
        share_passes: bool = True,
    ) -> None:
        self._models = Models(
            model, catalog=catalog, open=open_model, caps=caps, memory=memory, quality=quality, wake=wake
        )
        self._queue = ModelQueue(self._models, self._try, on_event)
        self._emit = on_event
        self._scheduler = Scheduler()
        self._usage = DeviceUsage()
        self._files = SessionFiles(self._models, checkpoints, on_event)
        self._sessions = Sessions(self._models, self._files, on_event)
        previews = Previews(on_event, quality)
        self._reports = RunReports(self._files, previews, on_event)
        self._stages = Stages(
            self._models,
            self._sessions,
            self._files,
            previews,
            self._reports,
            checkpoint_every=every,
            metadata=metadata,
        )
        self._residency = Residency(
            self._files,
            self._scheduler,
            self._usage,
            on_event,
            max_sessions=sessions,
            max_bytes=memory.sessions if memory else 0,
        )
        self._rooms = self._residency.rooms
        self._turns = Turns(
            self._models,
            self._residency,
            self._scheduler,
            self._usage,
            StepFailures(self._models, self._residency, self._reports, on_event),
            on_event,
            clock=clock,
            share_passes=share_passes,
        )
        self._queue_report = QueueReport(self._models, self._residency, self._usage, self._reports)
        self._stats_reported = 0.0

    @property
    def info(self) -> ModelInfo:
        """What the service and the page know of the model."""
        return self._models.info

    @property
    def busy(self) -> bool:
        """Whether any room has work."""
        return any(room.work is not None for room in self._rooms.values())

    @property
    def loading(self) -> bool:
        """Whether a model is being loaded: `advance` reports how far it is, if it is called."""
        return self._queue.waiting

    @property
    def stats(self) -> DeviceStats:
        """What the device has done and holds."""
        return DeviceStats(
            state="ready",
            sessions=sum(room.session is not None for room in self._rooms.values()),
            running=len(self._residency.active),
            queued=len(self._residency.queue),
            steps=self._usage.steps,
            seconds=self._usage.seconds,
            rooms=dict(self._usage.seconds_of_room),
            memory_bytes=self._residency.held_bytes,
            models=tuple(sorted(self._models.names)),
        )

    def close(self) -> None:
        """Take all rooms off the device; the model is left as it was."""
        for room in list(self._rooms.values()):
            self._residency.remove(room)

    # Commands --------------------------------------------------------------------------------------------------------

    def obey(self, command: AnyCommand) -> None:
        """Take a command; most of what it causes happens in `advance`. It waits if its model is not loaded."""
        self._queue.pass_on(command)

    def _try(self, command: AnyCommand) -> None:
        room = room_of(command)
        moment = command.moment if isinstance(command, Seek) else None
        try:
            self._obey(command)
        except EditorError as error:
            self._emit(CommandFailed(room=room, message=str(error), moment=moment))
        except Exception as error:
            log.exception("a command of room %s failed unexpectedly", room)
            self._emit(CommandFailed(room=room, message=unexpected(error), moment=moment))

    def _obey(self, command: AnyCommand) -> None:
        match command:
            case Start():
                self._start(command)
            case Prepare():
                self._prepare(command)
            case Generate():
                self._generate(command)
            case UpdateRun(desired=desired):
                room = self._rooms.get(desired.room)
                if room is not None and room.work is not None:
                    self._sessions.follow(room, desired)
                    self._scheduler.prioritize(desired.room)
            case Stop():
                self._stop(command)
            case Seek():
                self._seek(command)
            case ResetSession(room=id, picture=picture):
                try:
                    self._reset(id, picture)
                finally:
                    self._emit(SessionReset(room=id))
            case ReleaseSession():
                self._release(command)

    def _start(self, start: Start) -> None:
        room = self._residency.room(start.desired)
        room.save_failed = False
        work = Work(partial(self._stages.run, room, start), run=start.run, resume=start.resume)
        if not work.continues(room.count.run):
            room.count = RunCount(start.run)
        self._residency.give(room, work)

    def _generate(self, generate: Generate) -> None:
        id, generation = generate.room, generate.generation
        desired = DesiredState(room=id, seq=0, prompt=generation.prompt, settings={}, drags={}, format=generate.format)
        room = self._residency.room(desired)
        self._residency.give(
            room, Work(partial(self._stages.generation, room, generate), run=id, generation=generation)
        )

    def _prepare(self, prepare: Prepare) -> None:
        id = prepare.desired.room
        room = self._rooms.get(id)
        if room is not None and room.run:
            return
        if not self._can_prepare(id, room, prepare):
            self._emit(PreparationProgress(room=id, stage="failed", step=0, steps=1))
            return
        room = self._residency.room(prepare.desired)
        self._residency.give(room, Work(partial(self._stages.preparation, room, prepare)))

    def _can_prepare(self, id: str, room: DeviceRoom | None, prepare: Prepare) -> bool:
        """Whether the settings are possible, and no edit would be discarded for another session."""
        try:
            key = self._models.settings(prepare.desired.model).key(prepare.picture.sha256, prepare.desired)
            return self._files.may_make(id, room, key)
        except EditorError:
            return False  # the next `Start` reports it

    def _stop(self, stop: Stop) -> None:
        room = self._rooms.get(stop.room)
        if room is None or room.work is None or room.run != stop.run:
            return
        room.work.stopping = True
        if not room.work.has_place:  # it has done nothing yet, and need not wait for a place
            self._reports.finish(room, "stopped")
            if room.session is None:
                self._residency.release(room)

    def _seek(self, seek: Seek) -> None:
        id = seek.desired.room
        room = self._rooms.get(id)
        if room is None or room.session is None:
            self._files.seek(seek.moment, seek.desired, seek.picture)
            return
        self._sessions.seek(room, room.session, seek.moment, seek.desired)
        self._files.save(room)
        self._emit(SeekCompleted(room=id, moment=seek.moment, tracked=tracked_now(room.session)))
        self._files.report_timeline(room)

    def _reset(self, id: str, picture: str | None) -> None:
        room = self._rooms.get(id)
        if room is None or room.session is None:
            self._files.reset(id, picture)
            return
        self._sessions.reset(room, room.session)
        self._files.save(room)
        self._files.report_timeline(room)

    def _release(self, release: ReleaseSession) -> None:
        room = self._rooms.get(release.room)
        if room is not None:
            room.stop_work()
            if not release.wipe:
                self._files.save(room, leaves=True)
            self._residency.remove(room)
        if release.wipe:
            self._files.wipe(release.room)
        self._emit(SessionReleased(room=release.room, requested=True))

    # Steps -----------------------------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Do one step of the room whose turn it is, and report what has changed."""
        if self._queue.waiting:
            self._queue.advance(self._models_in_use, self._unload)
        self._residency.fill()
        self._turns.take()
        self._queue_report.send()
        now = time.monotonic()
        if now - self._stats_reported >= STATS_SECONDS or not self.busy:
            self._stats_reported = now
            self._emit(StatsReported(stats=self.stats))

    @property
    def _models_in_use(self) -> frozenset[ModelChoice]:
        return frozenset(room.desired.model for room in self._rooms.values() if room.work is not None)

    def _unload(self, model: ModelChoice) -> None:
        """Let the idle sessions of a model leave the device."""
        for room in [room for room in self._rooms.values() if room.idle and room.desired.model == model]:
            self._residency.evict(room)
