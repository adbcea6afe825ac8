"""DeviceWorker: owns one device and the sessions on it, and shares its time among the rooms.

It advances one session by one step at a time; `scheduler` says whose turn it is. Between two steps it looks for
commands. Plain calls go in, records come out; it knows neither sockets nor an event loop. `runs` says what is done in a
room, `sessions` what it is done with; of the server these, `jobs` and this module alone import the editor.
"""

from __future__ import annotations

import contextlib
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

import msgspec
import torch

from livedrag.editor import Diffusion, EditorError
from livedrag.editor.drag.preview import Quality
from livedrag.server.device.checkpoints import Checkpoints
from livedrag.server.device.engine import (
    AnyCommand,
    AnyEvent,
    CommandFailed,
    DesiredState,
    Generate,
    LoadFailed,
    PreparationProgress,
    Prepare,
    Ready,
    ReleaseSession,
    ResetSession,
    Seek,
    SeekCompleted,
    SessionReleased,
    SessionReset,
    Start,
    StatsReported,
    StepStarted,
    Stop,
    UpdateRun,
    room_of,
)
from livedrag.server.device.job import Job
from livedrag.server.device.local import WorkerOptions
from livedrag.server.device.model_info import model_info
from livedrag.server.device.scheduler import Scheduler, seconds_for, wait
from livedrag.server.device.sessions import Sessions
from livedrag.server.device.stages import RunStages
from livedrag.server.document.protocol import ModelInfo, Progress
from livedrag.server.logs import configure
from livedrag.server.metrics import DeviceStats

log = logging.getLogger(__name__)

NICENESS = 5
"""How far the worker steps back for the web process."""
QUEUE_APART = 2.0
"""Seconds between two tellings of a place in the queue that has not changed."""
STATS_APART = 1.0
"""Seconds between two tellings of the statistics."""
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
        self._most, self._memory = sessions, memory
        self._sessions = Sessions(model, checkpoints, tell)
        self._runs = RunStages(self._sessions, tell, every=every, quality=quality)
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
        return model_info(self._model)

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
        room = room_of(command)
        moment = command.moment if isinstance(command, Seek) else None
        try:
            self._obey(command)
        except EditorError as error:
            self._tell(CommandFailed(room=room, message=str(error), moment=moment))
        except Exception as error:
            log.exception("a command of room %s could not be followed", room)
            self._tell(CommandFailed(room=room, message=unexpected(error), moment=moment))

    def _obey(self, command: AnyCommand) -> None:
        match command:
            case Start(desired=desired):
                self._start(self._jobs.setdefault(desired.room, Job(desired)), command)
            case Prepare(desired=desired):
                try:
                    self._prepare_alone(command)
                except EditorError:  # whoever presses Drag is told
                    self._tell(PreparationProgress(room=desired.room, stage="failed", step=0, steps=1))
            case UpdateRun(desired=desired):
                job = self._jobs.get(desired.room)
                if job is not None and job.steps is not None:
                    self._sessions.follow(job, desired)
                    self._scheduler.hurry(desired.room)
            case Stop(room=room, run=run):
                job = self._jobs.get(room)
                if job is not None and job.run == run:
                    job.stopping = True
                    if job.steps is not None and not job.placed:  # it has done nothing yet, and need not wait for that
                        self._runs.finish(job, "stopped")
                        if job.session is None:
                            self._leave(job)
            case Seek(desired=desired):
                self._seek(command)
            case ResetSession(room=room):
                try:
                    self._rewind(room)
                finally:
                    self._tell(SessionReset(room=room))
            case Generate():
                self._generate(command)
            case ReleaseSession(room=room, wipe=wipe):
                self._forget(room, wipe=wipe)

    def _start(self, job: Job, start: Start) -> None:
        self._stop_steps(job)
        job.run, job.stopping, job.sought, job.retried = start.run, False, False, False
        job.iterations = job.branched_at = 0
        job.unkept = False
        self._ask(job, partial(self._runs.run, job, start))

    def _generate(self, generate: Generate) -> None:
        desired = DesiredState(
            room=generate.room, seq=0, prompt=generate.generation.prompt, settings={}, drags={}, format=generate.format
        )
        job = self._jobs.setdefault(generate.room, Job(desired, run=generate.room, generation=generate.generation))
        self._ask(job, partial(self._runs.generation, job, generate))

    def _prepare_alone(self, prepare: Prepare) -> None:
        desired = prepare.desired
        job = self._jobs.get(desired.room)
        if job is not None and job.steps is not None and job.run:
            return
        built_of = self._sessions.built_of(prepare.picture.sha256, desired)
        if self._sessions.has_moved(desired.room, job) and built_of != self._sessions.built_of_last(desired.room, job):
            # It would be lost to the preparation: whoever presses Drag decides that.
            self._tell(PreparationProgress(room=desired.room, stage="failed", step=0, steps=1))
            return
        job = self._jobs.setdefault(desired.room, Job(desired))
        self._stop_steps(job)
        job.run, job.stopping, job.retried = "", False, False
        self._ask(job, partial(self._runs.preparation, job, prepare))

    def _ask(self, job: Job, again: Callable[[], Iterator[None]]) -> None:
        """Give a job something to do, as soon as there is a place for it."""
        present = [other.room for other in self._jobs.values() if other.active]
        self._scheduler.enter(job.room, present)
        job.again, job.steps, job.stage, job.left = again, again(), "queued", {}
        job.placed, job.asked, job.queue_told = False, time.monotonic(), (-1, 0.0)
        self._find_places()

    def _seek(self, seek: Seek) -> None:
        desired = seek.desired
        job = self._jobs.get(desired.room)
        if job is not None and job.session is not None:
            self._sessions.go_to(job, job.session, seek.moment, desired)
            tracked = {id: (drag.handle.x, drag.handle.y) for id, drag in job.session.drags.items()}
            self._sessions.keep(job)
            self._tell(SeekCompleted(room=desired.room, moment=seek.moment, tracked=tracked))
            self._sessions.tell_timeline(job)
        else:
            self._sessions.seek_on_disk(seek.moment, desired)

    def _rewind(self, room: str) -> None:
        job = self._jobs.get(room)
        if job is not None and job.session is not None:
            self._sessions.put_back(job, job.session)
            self._sessions.keep(job)
            self._sessions.tell_timeline(job)
        else:
            self._sessions.rewind_on_disk(room)

    def _forget(self, room: str, *, wipe: bool) -> None:
        job = self._jobs.get(room)
        if job is not None:
            self._stop_steps(job)
            if not wipe and job.session is not None:
                self._sessions.keep(job)
            self._remove(job)
        if wipe:
            self._checkpoints.wipe(room)
        self._tell(SessionReleased(room=room, requested=True))

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
            self._tell(StatsReported(stats=self.stats()))

    def _step(self, job: Job) -> None:
        assert job.steps is not None
        self._tell(StepStarted(room=job.room, run=job.run))
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
        """Let those who wait onto the device, in the order in which they came, runs before preparations.

        First those whose session is there: nobody else can have their places before they have done what they wait for.
        """
        queue = self._queue()
        for job in queue:
            job.placed = job.session is not None
        for job in queue:
            if not job.placed and not self._find_place(job):
                break
            job.placed = True

    def _queue(self) -> list[Job]:
        waiting = [job for job in self._jobs.values() if job.steps is not None and not job.placed]
        return sorted(waiting, key=lambda job: (job.rank, job.asked))

    def _find_place(self, job: Job) -> bool:
        """Whether there is a place; idle sessions leave for anybody, preparations for runs."""
        while True:
            here = [other for other in self._jobs.values() if other.session is not None or other.active]
            if not here or (len(here) < self._most and self._fits_beside(here)):
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
            self._sessions.keep(job)
            self._drop(job)
        job.again, job.steps, job.placed, job.asked = again, again(), False, asked

    def _put_to_sleep(self, job: Job) -> None:
        """Move a session from the device to disk; where that cannot be, it is forgotten."""
        log.info("the idle session of room %s leaves the device", job.room)
        self._sessions.keep(job)
        self._leave(job)

    def _leave(self, job: Job) -> None:
        self._remove(job)
        self._tell(SessionReleased(room=job.room))

    def _remove(self, job: Job) -> None:
        self._drop(job)
        self._jobs.pop(job.room, None)
        self._scheduler.leave(job.room)
        self._used.pop(job.room, None)

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
            self._runs.report(
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
            whole_run = self._steps_of(job)
        except EditorError:
            return None  # it will fail as soon as it begins
        stages = list(whole_run)
        if job.stage in stages:
            whole_run = {stage: whole_run[stage] for stage in stages[stages.index(job.stage) :]} | job.left
        return seconds_for(whole_run, self._pace)

    def _steps_of(self, job: Job) -> dict[str, int]:
        """The steps of each stage of a run from its beginning. Raises `EditorError`."""
        if job.generation is not None:
            return {"generating": job.generation.ddim_steps}
        settings = self._sessions.settings(job.desired)
        generation = self._sessions.matches_generation(job.desired)
        return {
            "generating": settings.ddim_steps if generation else 0,
            "fitting": settings.lora_steps,
            "inverting": 0 if generation else settings.levels_inverted,
            "dragging": settings.max_iterations,
            "rendering": 2 * settings.levels_inverted,
        }

    def _fail(self, job: Job, message: str) -> None:
        if job.run:
            self._runs.finish(job, "failed", message=message)
            return
        self._stop_steps(job)
        self._tell(PreparationProgress(room=job.room, stage="failed", step=0, steps=1))


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
