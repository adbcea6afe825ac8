"""DeviceWorker: owns one device and the sessions on it, and shares its time among the rooms.

It advances one session by one step at a time: of those that have work, the one with the least device time so far.
Between two steps it looks for commands. Plain calls go in, records come out; it knows neither sockets nor an event
loop, and no other module of the server imports the editor.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import logging
import os
import queue
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.connection import Connection
from typing import IO, TypeVar

import msgspec
import numpy as np
import torch
from PIL import Image

from editor import (
    PRESETS,
    Diffusion,
    Drag,
    DragSession,
    DragSettings,
    DragStep,
    EditorError,
    FitStep,
    MaskError,
    Point,
    RenderStep,
)
from server.engine import (
    AnyCommand,
    AnyEvent,
    Change,
    Complained,
    Finished,
    FrameFormat,
    Goal,
    Grip,
    LoadFailed,
    Pictured,
    Ready,
    Reported,
    Rewind,
    Start,
    Stop,
)
from server.engine_local import WorkerOptions
from server.protocol import LIVE_SETTINGS, ModelInfo, Outcome, Points, Progress, Setting, Stage

log = logging.getLogger(__name__)

T = TypeVar("T")

OWN_SETTINGS: Mapping[str, Setting] = {"preset": "", "seed": 0, "preview_every": 4, "preview_side": 256}
"""Settings of the service beside those of `DragSettings`; an empty preset stands for the model's own defaults."""
OWN_RANGES: Mapping[str, tuple[float, float]] = {
    "seed": (0, 2**31 - 1),
    "preview_every": (1, 10_000),
    "preview_side": (32, 1024),
}
"""The least and the largest value of those of them that are numbers."""
MOST_ASLEEP = 64
"""Sessions kept on disk beside those on the device."""
NICENESS = 5
"""How far the worker steps back for the web process."""
QUALITY = 80
"""Of previews, out of 100."""


@dataclass
class Stopwatch:
    """Times the steps of one stage, in seconds."""

    stage: Stage
    began: float = field(default_factory=time.monotonic)
    latest: float = 0.0

    def progress(self, run: str, step: int, steps: int, loss: float | None = None) -> Progress:
        """How far the stage is; ``step`` of ``steps`` are done."""
        self.latest = time.monotonic()
        seconds = self.latest - self.began
        left = seconds / step * (steps - step) if step else None
        return Progress(
            run=run, stage=self.stage, step=step, steps=steps, seconds=seconds, seconds_left=left, loss=loss
        )


@dataclass
class Asleep:
    """A session that has left the device: its snapshot, the goal it had followed, and whether it is to be rewound."""

    snapshot: IO[bytes]
    goal: Goal
    rewind: bool = False


@dataclass
class Job:
    """One room's session and what it is doing; ``spent`` in seconds of device time."""

    goal: Goal
    session: DragSession | None = None
    asleep: Asleep | None = None
    built_of: object = None
    run: str = ""
    steps: Iterator[None] | None = None
    stopping: bool = False
    iterations: int = 0
    has_picture: bool = False
    spent: float = 0.0
    used: float = 0.0


class DeviceWorker:
    """One device, its model and its sessions.

    Args:
        model: loaded on the device.
        tell: takes every event; called from the thread that calls `advance`.
        sessions: most sessions on the device; the one that has been idle for longest is put to sleep on disk first,
            and goes on from there when its room presses Drag again.
    """

    def __init__(self, model: Diffusion, tell: Callable[[AnyEvent], None], *, sessions: int = 16) -> None:
        self._model = model
        self._tell = tell
        self._sessions = sessions
        self._jobs: dict[str, Job] = {}

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
            job.steps = None
            self._forget(job)
        self._jobs.clear()

    def obey(self, command: AnyCommand) -> None:
        """Take a command; most of what it causes happens in `advance`."""
        room = command.goal.room if isinstance(command, Start | Change) else command.room
        try:
            self._obey(command)
        except EditorError as error:
            self._tell(Complained(room=room, message=str(error)))
        except Exception as error:
            log.exception("a command of room %s could not be followed", room)
            self._tell(
                Complained(room=room, message=f"something unexpected went wrong: {type(error).__name__}: {error}")
            )

    def _obey(self, command: AnyCommand) -> None:
        match command:
            case Start(goal=goal):
                self._start(command, goal)
            case Change(goal=goal):
                job = self._jobs.get(goal.room)
                if job is not None and job.steps is not None:
                    self._follow(job, goal)
            case Stop(room=room, run=run):
                job = self._jobs.get(room)
                if job is not None and job.run == run:
                    job.stopping = True
            case Rewind(room=room):
                job = self._jobs.get(room)
                if job is not None and job.session is not None:
                    self._rewind(job, job.session)
                elif job is not None and job.asleep is not None:
                    job.asleep.rewind = True

    def _rewind(self, job: Job, session: DragSession) -> None:
        session.reset()
        for id in session.drags:  # the next run puts them down where the room has them
            session.remove_drag(id)
        job.goal = msgspec.structs.replace(job.goal, drags={})
        job.has_picture = False

    def advance(self) -> None:
        """Do one step of the session whose turn it is."""
        ready = [job for job in self._jobs.values() if job.steps is not None]
        if not ready:
            return
        job = min(ready, key=lambda job: job.spent)
        assert job.steps is not None
        began = time.monotonic()
        try:
            next(job.steps)
        except StopIteration:
            job.steps = None
        except EditorError as error:
            log.info("run %s in room %s failed: %s", job.run, job.goal.room, error)
            self._finish(job, "failed", message=str(error))
        except Exception as error:
            log.exception("run %s in room %s failed unexpectedly", job.run, job.goal.room)
            self._finish(job, "failed", message=f"something unexpected went wrong: {type(error).__name__}: {error}")
            self._forget(job)  # its state cannot be relied on
        job.used = time.monotonic()
        job.spent += job.used - began

    def _start(self, start: Start, goal: Goal) -> None:
        job = self._jobs.setdefault(goal.room, Job(goal))
        others = [other.spent for other in self._jobs.values() if other.steps is not None and other is not job]
        if others:
            job.spent = max(job.spent, min(others))  # a newcomer neither waits for its turn nor has saved up time
        job.run, job.stopping, job.iterations = start.run, False, 0
        job.steps = self._work(job, start, goal)
        job.used = time.monotonic()
        self._make_room()

    def _make_room(self) -> None:
        """Keep no more sessions on the device, and on disk, than there may be."""
        on_device = [job for job in self._jobs.values() if job.session is not None or job.steps is not None]
        idle = sorted((job for job in on_device if job.steps is None), key=lambda job: job.used)
        for job in idle[: max(0, len(on_device) - self._sessions)]:
            self._put_to_sleep(job)
        gone = sorted(
            (job for job in self._jobs.values() if job.session is None and job.steps is None), key=lambda job: job.used
        )
        for job in gone[: max(0, len(gone) - MOST_ASLEEP)]:
            log.info("forgetting the session of room %s", job.goal.room)
            self._forget(job)
            del self._jobs[job.goal.room]

    def _put_to_sleep(self, job: Job) -> None:
        """Move a session from the device to disk; where that cannot be, it is forgotten."""
        assert job.session is not None
        log.info("the idle session of room %s leaves the device", job.goal.room)
        asleep = None
        try:
            with contextlib.ExitStack() as stack:
                file = stack.enter_context(
                    tempfile.TemporaryFile()
                )  # nameless: gone with this process, however it ends
                file.write(job.session.snapshot())
                stack.pop_all()
                asleep = Asleep(file, job.goal)
        except (OSError, EditorError) as error:
            log.warning("the session of room %s could not be kept: %s", job.goal.room, error)
        self._forget(job)
        job.asleep = asleep

    def _wake(self, job: Job, picture: Image.Image) -> None:
        """Bring a session back from disk; where that cannot be, there is none."""
        asleep, job.asleep = job.asleep, None
        assert asleep is not None
        try:
            with asleep.snapshot as file:
                file.seek(0)
                job.session = DragSession.restore(self._model, picture, file.read())
        except (OSError, EditorError) as error:
            log.warning("the session of room %s did not come back: %s", job.goal.room, error)
            return
        job.goal = asleep.goal
        if asleep.rewind:
            self._rewind(job, job.session)

    def _forget(self, job: Job) -> None:
        if job.session is not None:
            job.session.close()
        if job.asleep is not None:
            job.asleep.snapshot.close()
        job.session = job.asleep = None

    def _work(self, job: Job, start: Start, goal: Goal) -> Generator[None, None, None]:
        """One run, step by step."""
        watch = Stopwatch("loading")
        self._report(job, watch.progress(job.run, 0, 1))
        yield
        self._open(job, start.picture, goal if job.goal.seq < goal.seq else job.goal)
        self._report(job, watch.progress(job.run, 1, 1))
        yield
        session = job.session
        assert session is not None
        with closed(session.prepare()) as preparation:
            for step in preparation:
                stage: Stage = "fitting" if isinstance(step, FitStep) else "inverting"
                if watch.stage != stage:
                    watch = Stopwatch(stage, watch.latest)
                loss = step.loss if isinstance(step, FitStep) else None
                self._report(job, watch.progress(job.run, step.step, step.steps, loss))
                yield
                if job.stopping:
                    break
        if job.stopping:
            self._finish(job, "stopped")
            return
        outcome = yield from self._drag(job, session)
        yield from self._render(job, session, outcome)

    def _drag(self, job: Job, session: DragSession) -> Generator[None, None, Outcome]:
        """Drag until it ends; returns the outcome."""
        outcome: Outcome = "exhausted"
        watch = Stopwatch("dragging")
        before = session.iteration
        with closed(session.drag(preview_every=_whole(job.goal, "preview_every"))) as iterations:
            for step in iterations:
                job.iterations = step.iteration - before
                self._report(
                    job,
                    Points(
                        run=job.run,
                        iteration=job.iterations,
                        handles={id: (point.x, point.y) for id, point in step.handles.items()},
                        distances=step.distances,
                        loss=step.loss,
                    ),
                )
                most = self._settings(job.goal).max_iterations
                self._report(job, watch.progress(job.run, job.iterations, max(most, job.iterations), step.loss))
                self._show(job, session, "dragging", step)
                yield
                if step.arrived:
                    outcome = "arrived"
                if job.stopping:
                    outcome = "stopped"
                if outcome != "exhausted" or not session.drags:
                    break
        return outcome

    def _render(self, job: Job, session: DragSession, outcome: Outcome) -> Generator[None, None, None]:
        """Render what there is and end the run. A stop leaves the last picture, if there is one."""
        if outcome == "stopped" and job.iterations == 0:
            self._finish(job, outcome)
            return
        already_stopping = job.stopping
        watch = Stopwatch("rendering")
        with closed(session.render(preview_every=_whole(job.goal, "preview_every"))) as steps:
            for step in steps:
                self._report(job, watch.progress(job.run, step.step, step.steps))
                self._show(job, session, "rendering", step)
                yield
                if job.stopping and not already_stopping and job.has_picture:
                    self._finish(job, "stopped")
                    return
        self._finish(job, outcome, picture=_png(session.result()))

    def _open(self, job: Job, picture: bytes, goal: Goal) -> None:
        """Give the job a session that fits the goal: the one it has, if that was prepared in the same way."""
        _mask(goal.mask)
        settings = self._settings(goal)
        fixed = {name: value for name, value in settings.as_dict().items() if name not in LIVE_SETTINGS}
        built_of = (hashlib.sha256(picture).digest(), goal.prompt, _whole(goal, "seed"), fixed)
        opened = Image.open(io.BytesIO(picture)).convert("RGB")
        if job.asleep is not None and job.built_of == built_of:
            self._wake(job, opened)
        if job.session is None or job.built_of != built_of:
            self._forget(job)
            job.session = DragSession(
                self._model,
                opened,
                prompt=goal.prompt,
                settings=settings,
                seed=_whole(goal, "seed"),
            )
            job.built_of, job.has_picture = built_of, False
            job.goal = msgspec.structs.replace(goal, drags={}, mask=None)
        self._follow(job, goal)

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

    def _report(self, job: Job, record: Progress | Points) -> None:
        self._tell(Reported(room=job.goal.room, record=record))

    def _show(self, job: Job, session: DragSession, stage: Stage, step: DragStep | RenderStep) -> None:
        """Send a preview where the step has one."""
        picture = session.preview(step, longest_side=_whole(job.goal, "preview_side"))
        if picture is None:
            return
        self._tell(
            Pictured(
                room=job.goal.room,
                run=job.run,
                stage=stage,
                iteration=job.iterations,
                format=job.goal.format,
                width=picture.width,
                height=picture.height,
                time=time.time(),
                data=_compressed(picture, job.goal.format),
            )
        )

    def _finish(self, job: Job, outcome: Outcome, *, picture: bytes | None = None, message: str | None = None) -> None:
        job.steps = None
        job.has_picture = job.has_picture or picture is not None
        drags = job.session.drags if job.session is not None else {}
        self._tell(
            Finished(
                room=job.goal.room,
                run=job.run,
                outcome=outcome,
                iterations=job.iterations,
                seq=job.goal.seq,
                tracked={id: (drag.handle.x, drag.handle.y) for id, drag in drags.items()},
                picture=picture,
                message=message,
            )
        )


def changes(
    session: DragSession, before: Goal, goal: Goal, settings: Mapping[str, Setting]
) -> Iterator[Callable[[], None]]:
    """What to call so that a session that followed one goal follows the next; ``settings`` are those that differ."""
    for id in session.drags.keys() - goal.drags.keys():
        yield partial(session.remove_drag, id)
    for id, grip in goal.drags.items():
        yield from _drag_changes(session, id, before.drags.get(id), grip)
    if goal.mask != before.mask:
        yield lambda: session.set_mask(_mask(goal.mask))
    if settings:
        yield partial(session.change, settings)


def _drag_changes(session: DragSession, id: str, old: Grip | None, new: Grip) -> Iterator[Callable[[], None]]:
    drag = Drag(Point(*new.handle), Point(*new.target))
    if old is None or id not in session.drags:
        yield partial(session.add_drag, id, drag)
        return
    grabbed = (old.handle, old.grabbed) != (new.handle, new.grabbed)
    aimed = old.target != new.target
    if grabbed and aimed:  # one after the other, the handle could come to lie on the old target
        yield partial(session.remove_drag, id)
        yield partial(session.add_drag, id, drag)
    elif grabbed:
        yield partial(session.grab, id, drag.handle)
    elif aimed:
        yield partial(session.aim, id, drag.target)


@contextlib.contextmanager
def closed(steps: Iterator[T]) -> Iterator[Iterator[T]]:
    """Close a generator on the way out, so that stopping it takes effect at once."""
    try:
        yield steps
    finally:
        if isinstance(steps, Generator):
            steps.close()


def _mask(png: bytes | None) -> np.ndarray | None:
    """``(H, W)``, nonzero may change. Raises `MaskError` where nothing may, in words for somebody in a room."""
    mask = None if png is None else np.asarray(Image.open(io.BytesIO(png)).convert("L"))
    if mask is not None and not mask.any():
        raise MaskError("the mask lets nothing change: paint a region or clear the mask")
    return mask


def _whole(goal: Goal, name: str) -> int:
    return int(goal.settings.get(name, OWN_SETTINGS[name]))


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def _compressed(picture: Image.Image, format: FrameFormat) -> bytes:
    buffer = io.BytesIO()
    if format == "webp":
        picture.save(buffer, "WEBP", quality=QUALITY, method=0)
    else:
        picture.save(buffer, "JPEG", quality=QUALITY)
    return buffer.getvalue()


def serve(connection: Connection, options: WorkerOptions) -> None:
    """Load the model, then obey what comes through the pipe until it ends. The process's main function."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches all of the terminal's processes; the parent says when
    logging.basicConfig(level=options.log_level.upper(), format="%(asctime)s worker %(levelname)s %(message)s")
    step_back(options.threads)
    commands: queue.SimpleQueue[AnyCommand] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(connection, commands), name="commands", daemon=True).start()

    def tell(event: AnyEvent) -> None:
        with contextlib.suppress(OSError):  # the parent is gone, and this process in a moment
            connection.send_bytes(msgspec.msgpack.encode(event))

    try:
        model = Diffusion.load(options.model, device=options.device or None)
    except EditorError as error:
        tell(LoadFailed(message=str(error)))
        return
    worker = DeviceWorker(model, tell, sessions=options.sessions)
    tell(Ready(model=worker.info))
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
