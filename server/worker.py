"""DeviceWorker: owns one device and the sessions on it, and shares its time among the rooms.

It advances one session by one step at a time; `scheduler` says whose turn it is. Between two steps it looks for
commands. Plain calls go in, records come out; it knows neither sockets nor an event loop, and no other module of the
server but `jobs` imports the editor.

What a session is goes to disk as it is made, so that a session may leave the device at any time, and another process
can go on with it: see `checkpoints`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import logging
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Literal

import msgspec
import torch
from PIL import Image

from editor import (
    PRESETS,
    Diffusion,
    DragSession,
    DragSettings,
    DragStep,
    EditorError,
    FitStep,
    RenderStep,
)
from editor.preview import Quality
from server.checkpoints import CheckpointError, Checkpoints
from server.engine import (
    AnyCommand,
    AnyEvent,
    Change,
    Complained,
    DeviceStats,
    Finished,
    Forget,
    Goal,
    Kept,
    Left,
    LoadFailed,
    MomentInfo,
    Pictured,
    Prepare,
    Preparing,
    Ready,
    Reported,
    Rewind,
    Seek,
    Sought,
    Start,
    Stepping,
    Stop,
    Timed,
)
from server.engine_local import WorkerOptions
from server.jobs import (
    MOST_KEPT_SIDE,
    OWN_RANGES,
    OWN_SETTINGS,
    BuiltOf,
    Job,
    Shown,
    Stopwatch,
    changes,
    closed,
    compressed,
    digest_of,
    grips_of,
    places,
    png,
    read_mask,
    shrunk,
    whole,
    without_drags,
)
from server.logs import configure
from server.protocol import LIVE_SETTINGS, ModelInfo, Outcome, Points, Progress, Stage
from server.scheduler import Scheduler, seconds_for, wait

log = logging.getLogger(__name__)

NICENESS = 5
"""How far the worker steps back for the web process."""
TIMELINES_APART = 0.5
"""Least seconds between two tellings of one room's timeline."""
QUEUE_APART = 2.0
"""Seconds between two tellings of a place in the queue that has not changed."""
STATS_APART = 1.0
"""Seconds between two tellings of the statistics."""
FITTING_KEPT = 20.0
"""Seconds of preparing a picture after which what is done is kept: no more than that is lost when the worker dies."""
RECENT = 0.2
"""How much the latest step counts in the pace of its stage."""


class DeviceWorker:
    """One device, its model and its sessions.

    Args:
        model: loaded on the device.
        tell: takes every event; called from the thread that calls `advance`.
        checkpoints: where sessions are kept.
        sessions: most sessions on the device: idle ones leave for those that have work, and where none is idle, rooms
            wait for a place.
        memory: bytes that the sessions on the device may hold together, likewise; 0: as many as there are.
        every: iterations of a run between two of its checkpoints.
        quality: of the previews; by default what the device has the time for.
        clock: by which steps are charged, in seconds.
    """

    def __init__(
        self,
        model: Diffusion,
        tell: Callable[[AnyEvent], None],
        checkpoints: Checkpoints,
        *,
        sessions: int = 16,
        memory: int = 0,
        every: int = 10,
        quality: Quality | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model = model
        self._tell = tell
        self._checkpoints = checkpoints
        self._sessions, self._memory, self._every, self._quality = sessions, memory, every, quality
        self._clock = clock
        self._jobs: dict[str, Job] = {}
        self._scheduler = Scheduler()
        self._pace: dict[str, float] = {}
        self._used: dict[str, float] = {}  # seconds of device time by room; the scheduler's begin elsewhere
        self._steps: dict[str, int] = {}
        self._seconds: dict[str, float] = {}
        self._stats_told = 0.0

    @property
    def info(self) -> ModelInfo:
        """What people should know of the model."""
        defaults = DragSettings.resolve(None, self._model.defaults, {}).as_dict()
        ranges = {
            entry.name: (float(entry.metadata["low"]), float(entry.metadata["high"]))
            for entry in dataclasses.fields(DragSettings)
            if "low" in entry.metadata
        }
        return ModelInfo(
            name=self._model.name,
            kind=self._model.kind,
            settings={**defaults, **OWN_SETTINGS},
            presets=list(PRESETS),
            ranges={**ranges, **OWN_RANGES},
        )

    @property
    def busy(self) -> bool:
        """Whether any session has work."""
        return any(job.steps is not None for job in self._jobs.values())

    def close(self) -> None:
        """Forget all sessions; the model is as it was."""
        for job in self._jobs.values():
            self._drop(job)
        self._jobs.clear()

    # Commands --------------------------------------------------------------------------------------------------------

    def obey(self, command: AnyCommand) -> None:
        """Take a command; most of what it causes happens in `advance`."""
        room = command.room if isinstance(command, Stop | Rewind | Forget) else command.goal.room
        moment = command.moment if isinstance(command, Seek) else None
        try:
            self._obey(command)
        except EditorError as error:
            self._tell(Complained(room=room, message=str(error), moment=moment))
        except Exception as error:
            log.exception("a command of room %s could not be followed", room)
            self._tell(Complained(room=room, message=unexpected(error), moment=moment))

    def _obey(self, command: AnyCommand) -> None:
        match command:
            case Start(goal=goal):
                self._start(self._jobs.setdefault(goal.room, Job(goal)), command)
            case Prepare(goal=goal):
                try:
                    self._prepare_alone(command)
                except EditorError:  # whoever presses Drag is told
                    self._tell(Preparing(room=goal.room, stage="failed", step=0, steps=1))
            case Change(goal=goal):
                job = self._jobs.get(goal.room)
                if job is not None and job.steps is not None:
                    self._follow(job, goal)
                    self._scheduler.hurry(goal.room)
            case Stop(room=room, run=run):
                job = self._jobs.get(room)
                if job is not None and job.run == run:
                    job.stopping = True
                    if job.steps is not None and not job.placed:  # it has done nothing yet, and need not wait for that
                        self._finish(job, "stopped")
                        if job.session is None:
                            self._leave(job)
            case Seek(goal=goal):
                self._seek(command)
            case Rewind(room=room):
                self._rewind(room)
            case Forget(room=room, wipe=wipe):
                self._forget(room, wipe=wipe)

    def _start(self, job: Job, start: Start) -> None:
        self._stop_steps(job)
        job.run, job.stopping, job.sought, job.retried = start.run, False, False, False
        job.iterations = job.branched_at = 0
        job.unkept = False
        self._ask(job, partial(self._run, job, start))

    def _prepare_alone(self, prepare: Prepare) -> None:
        goal = prepare.goal
        job = self._jobs.get(goal.room)
        if job is not None and job.steps is not None and job.run:
            return
        digest = digest_of(prepare.picture)
        if self._has_moved(goal.room) and self._built_of(digest, goal) != self._built_of_last(goal.room):
            self._tell(Preparing(room=goal.room, stage="ready", step=1, steps=1))
            return
        job = self._jobs.setdefault(goal.room, Job(goal))
        self._stop_steps(job)
        job.run, job.stopping, job.retried = "", False, False
        self._ask(job, partial(self._preparation, job, prepare))

    def _has_moved(self, room: str) -> bool:
        """Whether a run has moved the content of a room, and so left something to lose."""
        job = self._jobs.get(room)
        if job is not None and job.session is not None:
            return len(job.session.timeline) > 1
        checkpoint = self._checkpoints.newest(room)
        return checkpoint is not None and len(checkpoint.moments) > 1

    def _built_of_last(self, room: str) -> BuiltOf | None:
        """What the room's last session was built of, be it on the device or on disk."""
        job = self._jobs.get(room)
        if job is not None and job.session is not None:
            return job.built_of
        checkpoint = self._checkpoints.newest(room)
        return None if checkpoint is None else self._built_of(checkpoint.picture, checkpoint.goal)

    def _ask(self, job: Job, again: Callable[[], Iterator[None]]) -> None:
        """Give a job something to do, as soon as there is a place for it."""
        present = [other.room for other in self._jobs.values() if other.active]
        self._scheduler.enter(job.room, present)
        job.again, job.steps, job.stage, job.left = again, again(), "queued", {}
        job.placed, job.asked, job.queue_told = False, time.monotonic(), (-1, 0.0)
        self._find_places()

    def _seek(self, seek: Seek) -> None:
        goal = seek.goal
        job = self._jobs.get(goal.room)
        if job is not None and job.session is not None:
            self._go_to(job, job.session, seek.moment, goal)
            tracked = {id: (drag.handle.x, drag.handle.y) for id, drag in job.session.drags.items()}
            self._keep(job)
            self._tell(Sought(room=goal.room, moment=seek.moment, tracked=tracked))
            self._tell_timeline(job)
            return
        checkpoint = self._checkpoints.newest(goal.room)
        known = {moment.info.id: moment for moment in checkpoint.moments} if checkpoint else {}
        if checkpoint is None or seek.moment not in known:
            raise EditorError(f"moment {seek.moment} is not on the timeline: it may have been thinned away")
        put_down = {id: grip.handle for id, grip in goal.drags.items()}
        there = {} if known[seek.moment].info.parent is None else known[seek.moment].tracked
        self._checkpoints.amend(
            goal.room,
            msgspec.structs.replace(checkpoint, sought=seek.moment, current=seek.moment, goal=goal, rewound=False),
        )
        tracked = {id: there.get(id, place) for id, place in put_down.items()}
        self._tell(Sought(room=goal.room, moment=seek.moment, tracked=tracked))
        moments = [moment.info for moment in checkpoint.moments]
        self._tell(Kept(room=goal.room, moments=moments, current=seek.moment))

    def _go_to(self, job: Job, session: DragSession, moment: int, goal: Goal) -> None:
        """Put the content where it was at a moment; then what the goal has otherwise. Raises `EditorError`."""
        session.seek(moment)
        job.goal = msgspec.structs.replace(job.goal, drags=grips_of(session, goal))
        self._follow(job, goal)
        job.sought, job.branched_at = True, job.iterations

    def _rewind(self, room: str) -> None:
        job = self._jobs.get(room)
        if job is not None and job.session is not None:
            self._put_back(job, job.session)
            self._keep(job)
            self._tell_timeline(job)
            return
        checkpoint = self._checkpoints.newest(room)
        if checkpoint is not None:
            moments = [moment.info for moment in checkpoint.moments]
            first = moments[0].id if moments else None
            self._checkpoints.amend(
                room, msgspec.structs.replace(checkpoint, rewound=True, sought=None, current=first, has_picture=False)
            )
            self._tell(Kept(room=room, moments=moments, current=first))

    def _put_back(self, job: Job, session: DragSession) -> None:
        session.reset()
        for id in session.drags:  # the next run puts them down where the room has them
            session.remove_drag(id)
        job.goal = msgspec.structs.replace(job.goal, drags={})
        job.has_picture = False

    def _forget(self, room: str, *, wipe: bool) -> None:
        job = self._jobs.get(room)
        if job is not None:
            self._stop_steps(job)
            if not wipe and job.session is not None:
                self._keep(job)
            self._leave(job)
        if wipe:
            self._checkpoints.wipe(room)

    # Turns -----------------------------------------------------------------------------------------------------------

    def advance(self) -> None:
        """Do one step of the session whose turn it is."""
        self._find_places()
        ready = {job.room: job.rank for job in self._jobs.values() if job.active}
        if ready:
            self._step(self._jobs[self._scheduler.choose(ready)])
        self._tell_queue()
        now = time.monotonic()
        if now - self._stats_told >= STATS_APART or not self.busy:
            self._stats_told = now
            self._tell(Timed(stats=self.stats()))

    def _step(self, job: Job) -> None:
        assert job.steps is not None
        self._tell(Stepping(room=job.room, run=job.run))
        began = self._clock()
        try:
            next(job.steps)
            job.retried = job.retried and job.stage == "loading"  # opening again is not yet having got over it
        except StopIteration:
            job.steps = None
        except EditorError as error:
            log.info("run %s in room %s failed: %s", job.run, job.room, error)
            self._fail(job, str(error))
        except Exception as error:
            if out_of_memory(error):
                self._out_of_memory(job, error)
            elif device_fault(error):
                raise  # nothing works in this process any more: the engine starts another one
            else:
                log.exception("run %s in room %s failed unexpectedly", job.run, job.room)
                self._drop(job)  # its state cannot be relied on: the last checkpoint's counts
                self._fail(job, unexpected(error))
        self._count(job, self._clock() - began)
        job.used = time.monotonic()
        if job.session is None and job.steps is None:
            self._leave(job)

    def _count(self, job: Job, seconds: float) -> None:
        stage = job.stage
        self._scheduler.charge(job.room, seconds)
        self._used[job.room] = self._used.get(job.room, 0.0) + seconds
        self._steps[stage] = self._steps.get(stage, 0) + 1
        self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds
        self._pace[stage] = (1 - RECENT) * self._pace.get(stage, seconds) + RECENT * seconds

    def stats(self) -> DeviceStats:
        """What the device has done and holds."""
        return DeviceStats(
            state="ready",
            sessions=sum(job.session is not None for job in self._jobs.values()),
            running=sum(job.active for job in self._jobs.values()),
            queued=sum(job.steps is not None and not job.placed for job in self._jobs.values()),
            steps=self._steps,
            seconds=self._seconds,
            rooms=dict(self._used),
            memory_bytes=self._held(),
        )

    def _held(self) -> int:
        return sum(job.session.nbytes for job in self._jobs.values() if job.session is not None)

    def _out_of_memory(self, job: Job, error: Exception) -> None:
        """Free what idle sessions hold and try again, once; then the run fails, alone."""
        idle = [other for other in self._jobs.values() if other.idle and other is not job]
        for other in idle:
            self._put_to_sleep(other)
        free_memory()
        if job.retried or job.again is None:
            log.warning("run %s in room %s does not fit into the device's memory: %s", job.run, job.room, error)
            self._fail(job, NO_MEMORY)
            self._drop(job)
            free_memory()
            return
        log.warning("the memory is full; %d idle sessions have left it, and run %s tries again", len(idle), job.run)
        job.retried = True
        job.steps = job.again()

    # Places on the device --------------------------------------------------------------------------------------------

    def _find_places(self) -> None:
        """Let those who wait onto the device, in the order in which they came, runs before preparations."""
        for job in self._queue():
            if not self._find_place(job):
                break
            job.placed = True

    def _queue(self) -> list[Job]:
        waiting = [job for job in self._jobs.values() if job.steps is not None and not job.placed]
        return sorted(waiting, key=lambda job: (job.rank, job.asked))

    def _find_place(self, job: Job) -> bool:
        """Whether there is a place; idle sessions leave for anybody, preparations for runs."""
        if job.session is not None:
            return True
        while True:
            here = [other for other in self._jobs.values() if other.session is not None or other.active]
            if not here or (len(here) < self._sessions and self._fits_beside(here)):
                return True
            idle = [other for other in here if other.idle]
            preparing = [other for other in here if other.active and not other.run] if job.run else []
            if idle:
                self._put_to_sleep(min(idle, key=lambda other: other.used))
            elif preparing:
                self._postpone(max(preparing, key=lambda other: other.asked))
            else:
                return False

    def _fits_beside(self, here: list[Job]) -> bool:
        """Whether one more session fits into the memory that there is for them; it is taken for an average one."""
        if not self._memory:
            return True
        held = [job.session.nbytes for job in here if job.session is not None]
        return not held or sum(held) + sum(held) / len(held) <= self._memory

    def _postpone(self, job: Job) -> None:
        """Take a preparation off the device; it goes on when there is a place again."""
        again, asked = job.again, job.asked
        assert again is not None
        self._stop_steps(job)
        if job.session is not None:
            self._keep(job)
            self._drop(job)
        job.again, job.steps, job.placed, job.asked = again, again(), False, asked

    def _put_to_sleep(self, job: Job) -> None:
        """Move a session from the device to disk; where that cannot be, it is forgotten."""
        log.info("the idle session of room %s leaves the device", job.room)
        self._keep(job)
        self._leave(job)

    def _leave(self, job: Job) -> None:
        self._drop(job)
        self._jobs.pop(job.room, None)
        self._scheduler.leave(job.room)
        self._used.pop(job.room, None)
        self._tell(Left(room=job.room))

    def _drop(self, job: Job) -> None:
        self._stop_steps(job)
        if job.session is not None:
            job.session.close()
        job.session = None

    def _stop_steps(self, job: Job) -> None:
        if isinstance(job.steps, Generator):
            job.steps.close()
        job.steps, job.placed = None, False

    def _tell_queue(self) -> None:
        """Tell runs that wait how many are before them, and for how long that will be."""
        queue = [job for job in self._queue() if job.run]
        now = time.monotonic()
        if not any(now - job.queue_told[1] >= QUEUE_APART or job.queue_told[0] != i for i, job in enumerate(queue)):
            return
        running = [self._needs(job) for job in self._jobs.values() if job.active and job.run]
        for ahead, job in enumerate(queue):
            job.queue_told = (ahead, now)
            needs = [*running, *(self._needs(other) for other in queue[:ahead])]
            known = [seconds for seconds in needs if seconds is not None]
            self._report(
                job,
                Progress(
                    run=job.run,
                    stage="queued",
                    step=ahead,
                    steps=len(queue),
                    seconds=now - job.asked,
                    seconds_left=wait(known[: len(running)], known[len(running) :])
                    if len(known) == len(needs)
                    else None,
                ),
            )

    def _needs(self, job: Job) -> float | None:
        """Seconds of device time to the end of a run, if it makes all of its iterations; None: not known yet."""
        try:
            settings = self._settings(job.goal)
        except EditorError:
            return None  # it will fail as soon as it begins
        whole_run = {
            "fitting": settings.lora_steps,
            "inverting": settings.levels_inverted,
            "dragging": settings.max_iterations,
            "rendering": 2 * settings.levels_inverted,
        }
        stages = list(whole_run)
        if job.stage in stages:
            whole_run = {stage: whole_run[stage] for stage in stages[stages.index(job.stage) :]} | job.left
        return seconds_for(whole_run, self._pace)

    # What a job does -------------------------------------------------------------------------------------------------

    def _run(self, job: Job, start: Start) -> Generator[None, None, None]:
        """One run, step by step; where it was begun before, it goes on from there."""
        watch = self._stage(job, "loading", 1)
        self._report(job, watch.progress(job.run, 0, 1))
        yield
        session = self._open(job, start.picture, start.goal, resume=start.run if start.resume else None)
        self._report(job, watch.progress(job.run, 1, 1))
        yield
        with closed(self._prepare(job, session)) as preparation:
            for record in preparation:
                self._report(job, record)
                yield
                if job.stopping:
                    break
        if job.stopping and not session.prepared:
            self._finish(job, "stopped")
            return
        while True:
            job.sought = False
            outcome: Outcome = "stopped" if job.stopping else (yield from self._drag(job, session))
            nothing_new = outcome == "stopped" and job.iterations == 0
            picture = None if job.sought or nothing_new else (yield from self._render(job, session))
            if not job.sought:
                break
        self._finish(job, outcome, picture=picture)

    def _preparation(self, job: Job, prepare: Prepare) -> Generator[None, None, None]:
        """Fit and invert without a run, step by step."""
        session = self._open(job, prepare.picture, prepare.goal)
        for record in self._prepare(job, session):
            stage: Literal["fitting", "inverting"] = "fitting" if record.stage == "fitting" else "inverting"
            left = record.seconds_left
            self._tell(Preparing(room=job.room, stage=stage, step=record.step, steps=record.steps, seconds_left=left))
            yield
        self._tell(Preparing(room=job.room, stage="ready", step=1, steps=1))

    def _prepare(self, job: Job, session: DragSession) -> Iterator[Progress]:
        """Prepare a session as far as it is not; tells how far that is, step by step."""
        watch: Stopwatch | None = None
        if session.prepared:
            return
        job.kept = time.monotonic()
        with closed(session.prepare()) as preparation:
            for step in preparation:
                stage: Stage = "fitting" if isinstance(step, FitStep) else "inverting"
                if watch is None or watch.stage != stage:
                    watch = self._stage(job, stage, step.steps - step.step + 1, since=watch)
                job.left = {stage: step.steps - step.step}
                if time.monotonic() - job.kept >= FITTING_KEPT:
                    self._keep(job)
                loss = step.loss if isinstance(step, FitStep) else None
                yield watch.progress(job.run, step.step, step.steps, loss)
        self._show_unedited(job, session)
        self._keep(job)
        self._tell_timeline(job)

    def _drag(self, job: Job, session: DragSession) -> Generator[None, None, Outcome]:
        """Drag until it ends, or somebody goes elsewhere on the timeline; returns the outcome."""
        outcome: Outcome = "exhausted"
        watch = self._stage(job, "dragging", self._settings(job.goal).max_iterations)
        self._show_unedited(job, session)
        before = session.iteration
        taken = job.iterations - job.branched_at
        with closed(session.drag(whole(job.goal, "preview_every"), taken)) as iterations:
            for step in iterations:
                moved = step.iteration != before
                job.iterations += moved
                most = job.branched_at + self._settings(job.goal).max_iterations
                job.left = {"dragging": max(0, most - job.iterations)}
                self._tell_iteration(job, session, step, watch, max(most, job.iterations))
                if moved and job.iterations % self._every == 0:
                    self._keep(job)
                yield
                before = session.iteration
                if job.sought or job.stopping:
                    break
                if step.arrived:
                    outcome = "arrived"
                if not session.drags:
                    break
        self._keep(job)
        return "stopped" if job.stopping else outcome

    def _tell_iteration(self, job: Job, session: DragSession, step: DragStep, watch: Stopwatch, most: int) -> None:
        self._report(
            job,
            Points(
                run=job.run,
                iteration=job.iterations,
                handles=places(step.handles),
                distances=step.distances,
                loss=step.loss,
            ),
        )
        self._report(job, watch.progress(job.run, job.iterations, most, step.loss))
        self._show(job, session, "dragging", step)
        self._tell_timeline(job, at_most_so_often=True)

    def _render(self, job: Job, session: DragSession) -> Generator[None, None, bytes | None]:
        """Render what there is, unless somebody goes elsewhere on the timeline meanwhile.

        A stop leaves the last picture, if there is one.
        """
        already_stopping = job.stopping
        watch = self._stage(job, "rendering", session.render_steps)
        with closed(session.render(preview_every=whole(job.goal, "preview_every"))) as steps:
            for step in steps:
                job.left = {"rendering": step.steps - step.step}
                self._report(job, watch.progress(job.run, step.step, step.steps))
                self._show(job, session, "rendering", step)
                yield
                if job.sought or (job.stopping and not already_stopping and job.has_picture):
                    return None
        return png(session.result())

    def _stage(self, job: Job, stage: Stage, steps: int, since: Stopwatch | None = None) -> Stopwatch:
        job.stage, job.left = stage, {stage: steps}
        return Stopwatch(stage) if since is None else Stopwatch(stage, since.latest)

    # Sessions --------------------------------------------------------------------------------------------------------

    def _open(self, job: Job, picture: bytes, goal: Goal, resume: str | None = None) -> DragSession:
        """Give the job a session that fits the goal: the one that it has, or the one on disk, or a new one.

        Args:
            resume: the run whose iterations go on being counted.
        """
        goal = goal if job.session is None or job.goal.seq < goal.seq else job.goal
        read_mask(goal.mask)
        settings = self._settings(goal)
        built_of = self._built_of(digest_of(picture), goal)
        moments = self._moments_so_far(job)
        if job.session is not None and job.built_of != built_of:
            job.session.close()
            job.session = None
        if job.session is None:
            latest = job.goal if job.goal.seq > goal.seq else goal  # edited while it waited
            opened = Image.open(io.BytesIO(picture)).convert("RGB")
            if not self._restore(job, opened, built_of, resume):
                seed = whole(goal, "seed")
                job.session = DragSession(self._model, opened, prompt=goal.prompt, settings=settings, seed=seed)
                job.session.timeline.begin_at(moments)
                job.goal, job.has_picture = without_drags(goal), False
                job.checkpoint, job.shown, job.told_thumbnails = None, Shown(), set()
            job.built_of, goal = built_of, latest
        session = job.session
        assert session is not None
        self._follow(job, goal)
        return session

    def _moments_so_far(self, job: Job) -> int:
        """A number above those of all moments of the room: what they looked like may be in browsers' caches."""
        if job.session is not None:
            return 1 + max((moment.index for moment in job.session.timeline), default=-1)
        checkpoint = self._checkpoints.newest(job.room)
        return 1 + max((moment.info.id for moment in checkpoint.moments), default=-1) if checkpoint else 0

    def _built_of(self, picture: str, goal: Goal) -> BuiltOf:
        settings = self._settings(goal).as_dict()
        fixed = {name: value for name, value in settings.items() if name not in LIVE_SETTINGS}
        return BuiltOf(picture, goal.prompt, whole(goal, "seed"), fixed)

    def _restore(self, job: Job, picture: Image.Image, built_of: BuiltOf, resume: str | None) -> bool:
        """Take up the session that is on disk, if it was built in the same way; whether there is one."""
        room = job.room
        for checkpoint, parts in self._checkpoints.load(room):
            try:
                if self._built_of(checkpoint.picture, checkpoint.goal) != built_of:
                    return False
                session = DragSession.restore(self._model, picture, tensors_of(parts))
                thumbnails = self._checkpoints.pictures(room, checkpoint, "thumbnails")
                frames = self._checkpoints.pictures(room, checkpoint, "frames")
            except (EditorError, CheckpointError, OSError) as error:
                log.warning("a checkpoint of room %s cannot be used: %s", room, error)
                continue
            times = {moment.info.id: moment.info.time for moment in checkpoint.moments}
            tracked = {moment.info.id: moment.tracked for moment in checkpoint.moments}
            job.session, job.shown, job.told_thumbnails = session, Shown(times, tracked, thumbnails, frames), set()
            job.goal, job.checkpoint, job.has_picture = checkpoint.goal, checkpoint, checkpoint.has_picture
            if resume is not None and resume == checkpoint.run:
                job.iterations, job.branched_at = checkpoint.iterations, checkpoint.branched_at
            if checkpoint.rewound:
                self._put_back(job, session)
            elif checkpoint.sought is not None:
                session.seek(checkpoint.sought)
                job.goal = msgspec.structs.replace(job.goal, drags=grips_of(session, job.goal))
                job.branched_at = job.iterations
            self._tell_timeline(job)
            return True
        return False

    def _keep(self, job: Job) -> None:
        """Write a checkpoint. Where the disk refuses, the room is told, once a run, and goes on without."""
        if job.session is None:
            return
        job.kept = time.monotonic()
        try:
            checkpoint, parts = job.to_checkpoint()
            job.checkpoint = self._checkpoints.save(job.room, checkpoint, parts, before=job.checkpoint)
        except OSError as error:
            log.error("no checkpoint of room %s could be written: %s", job.room, error)
            if not job.unkept:
                message = f"what is done here could not be kept on disk and would not survive a restart: {error}"
                self._tell(Complained(room=job.room, message=message))
            job.unkept = True

    def _follow(self, job: Job, goal: Goal) -> None:
        """Make the session's points, mask and settings those of the goal; complain of what cannot be followed."""
        before, job.goal = job.goal, goal
        if job.session is None:
            return
        try:
            old, new = self._settings(before).as_dict(), self._settings(goal).as_dict()
        except EditorError as error:
            self._tell(Complained(room=goal.room, message=str(error)))
            job.goal = msgspec.structs.replace(goal, settings=before.settings)
            old = new = {}
        changed = {name: value for name, value in new.items() if value != old[name]}
        for change in changes(job.session, before, goal, changed):
            try:
                change()
            except EditorError as error:
                self._tell(Complained(room=goal.room, message=str(error)))
        if not goal.drags:
            job.stopping = True

    def _settings(self, goal: Goal) -> DragSettings:
        overrides = {name: value for name, value in goal.settings.items() if name not in OWN_SETTINGS}
        return DragSettings.resolve(str(goal.settings.get("preset", "")) or None, self._model.defaults, overrides)

    # What is told ----------------------------------------------------------------------------------------------------

    def _report(self, job: Job, record: Progress | Points) -> None:
        self._tell(Reported(room=job.room, record=record))

    def _show(self, job: Job, session: DragSession, stage: Stage, step: DragStep | RenderStep) -> None:
        """Send a preview where the step has one, and keep it for its moment on the timeline."""
        side = whole(job.goal, "preview_side")
        picture = session.preview(step, longest_side=side, quality=self._quality)
        if picture is None:
            return
        data = compressed(picture, job.goal.format)
        self._tell(
            Pictured(
                room=job.room,
                run=job.run,
                stage=stage,
                iteration=job.iterations,
                format=job.goal.format,
                width=picture.width,
                height=picture.height,
                time=time.time(),
                data=data,
            )
        )
        if stage == "dragging":
            kept = shrunk(picture, MOST_KEPT_SIDE)
            self._keep_picture(job, session, data if kept is picture else compressed(kept, job.goal.format))

    def _show_unedited(self, job: Job, session: DragSession) -> None:
        """The first moment of a timeline looks like the uploaded picture."""
        current = session.timeline.current
        if current is None or session.timeline[current].parent is not None or current in job.shown.thumbnails:
            return
        small = shrunk(session.picture, min(whole(job.goal, "preview_side"), MOST_KEPT_SIDE))
        session.timeline.show(small)
        self._keep_picture(job, session, compressed(small, "webp"))

    def _keep_picture(self, job: Job, session: DragSession, data: bytes) -> None:
        current = session.timeline.current
        assert current is not None
        thumbnail = session.timeline[current].thumbnail
        if thumbnail is not None:
            job.shown.thumbnails[current] = compressed(thumbnail, "webp")
        job.shown.frames[current] = data

    def _tell_timeline(self, job: Job, *, at_most_so_often: bool = False) -> None:
        """Tell what is on the timeline, where that has changed."""
        now = time.monotonic()
        if job.session is None or (at_most_so_often and now - job.told_at < TIMELINES_APART):
            return
        moments: list[MomentInfo] = [moment.info for moment in job.moments()]
        current = job.session.timeline.current
        if not moments or (moments, current) == job.told:
            return
        here = {moment.id for moment in moments}
        new = {id: data for id, data in job.shown.thumbnails.items() if id in here - job.told_thumbnails}
        job.told, job.told_at = (moments, current), now
        job.told_thumbnails |= new.keys()
        self._tell(Kept(room=job.room, moments=moments, current=current, thumbnails=new))

    def _fail(self, job: Job, message: str) -> None:
        if job.run:
            self._finish(job, "failed", message=message)
            return
        self._stop_steps(job)
        self._tell(Preparing(room=job.room, stage="failed", step=0, steps=1))

    def _finish(self, job: Job, outcome: Outcome, *, picture: bytes | None = None, message: str | None = None) -> None:
        job.steps, job.placed = None, False
        job.has_picture = job.has_picture or picture is not None
        self._keep(job)
        self._tell_timeline(job)
        drags = job.session.drags if job.session is not None else {}
        self._tell(
            Finished(
                room=job.room,
                run=job.run,
                outcome=outcome,
                iterations=job.iterations,
                seq=job.goal.seq,
                tracked={id: (drag.handle.x, drag.handle.y) for id, drag in drags.items()},
                picture=picture,
                message=message,
            )
        )


NO_MEMORY = (
    "the device has no memory left for this picture, also not after idle rooms had left it: "
    "try again when fewer rooms are busy, or without reference_control"
)


def unexpected(error: Exception) -> str:
    """What people are told of a fault of ours."""
    return f"something unexpected went wrong: {type(error).__name__}: {error}"


def out_of_memory(error: Exception) -> bool:
    """Whether the device had no memory left; a CPU and Apple's GPU say so in words alone."""
    said = str(error)
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and ("out of memory" in said or "can't allocate memory" in said)
    )


def device_fault(error: Exception) -> bool:
    """Whether the device has stopped working for this process, as CUDA's do after a fault in a kernel."""
    return isinstance(error, RuntimeError) and "CUDA error" in str(error)


def free_memory() -> None:
    """Give back what the allocator holds without need."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def tensors_of(parts: dict[str, bytes]) -> dict[str, bytes]:
    """Those parts of a checkpoint that are the session's own."""
    return {name: data for name, data in parts.items() if not name.startswith(("thumbnails-", "frames-"))}


def serve(connection: Connection, options: WorkerOptions) -> None:
    """Load the model, then obey what comes through the pipe until it ends. The process's main function."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches all of the terminal's processes; the parent says when
    configure(options.log_level, options.log_format)
    step_back(options.threads)
    commands: queue.SimpleQueue[AnyCommand] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, commands), name="commands", daemon=True).start()

    def tell(event: AnyEvent) -> None:
        with contextlib.suppress(OSError):  # the parent is gone, and this process in a moment
            connection.send_bytes(msgspec.msgpack.encode(event))

    try:
        model = Diffusion.load(options.model, device=options.device or None, tiny=options.tiny or None)
    except EditorError as error:
        tell(LoadFailed(message=str(error)))
        return
    if options.preview_quality == "tiny" and model.tiny is None:
        tell(
            LoadFailed(
                message="previews of the quality 'tiny' need a tiny autoencoder and this model has none: name one"
            )
        )
        return
    worker = DeviceWorker(
        model,
        tell,
        Checkpoints(Path(options.checkpoints_dir)),
        sessions=options.sessions,
        memory=options.memory,
        every=options.checkpoint_every,
        quality=options.preview_quality or None,
    )
    tell(Ready(model=worker.info, device=options.device))
    while True:
        if not worker.busy:
            worker.obey(commands.get())
        with contextlib.suppress(queue.Empty):
            while True:
                worker.obey(commands.get_nowait())
        worker.advance()


def step_back(threads: int) -> None:
    """Leave the web process room to breathe: be nicer than it, and take no more threads than there are cores."""
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(threads or cores)


def _listen(connection: Connection, commands: queue.SimpleQueue[AnyCommand]) -> None:
    """Queue commands; leave at once when the parent says so or is gone, whatever the device is doing."""
    decoder = msgspec.msgpack.Decoder(AnyCommand)
    try:
        while packed := connection.recv_bytes():
            commands.put(decoder.decode(packed))
    except (EOFError, OSError):
        pass
    finally:
        os._exit(0)
