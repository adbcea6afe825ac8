"""LocalEngine: a device worker in a child process for each device, watched and started again when it dies or hangs.

The worker is named by a string and imported by the child alone, so that this process never loads torch.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Literal

import msgspec
from msgspec.structs import replace

from livedrag.server.device.engine import (
    AnyCommand,
    AnyEvent,
    CommandFailed,
    Engine,
    EngineError,
    EventHandler,
    Generate,
    LoadFailed,
    PreparationProgress,
    Prepare,
    Ready,
    ReleaseSession,
    ResetSession,
    RunFinished,
    RunProgress,
    Seek,
    SeekCompleted,
    SessionReleased,
    SessionReset,
    Start,
    StatsReported,
    StepStarted,
    Stop,
    UpdateRun,
    WorkerRestarted,
    WorkerRestarting,
    room_of,
)
from livedrag.server.document.protocol import XY, EngineState, ModelInfo, Points
from livedrag.server.metrics import DeviceStats, EngineStats

log = logging.getLogger(__name__)

WORKER = "livedrag.server.device.worker:serve"
PATIENCE = 5.0
"""Seconds that a worker has to leave before it is killed."""
PAUSES = (0.2, 1.0, 5.0, 30.0)
"""Seconds before the first, second, ... restart in a row; the last goes on."""
SETTLED = 60.0
"""Seconds after which a worker that dies has done so for another reason than the last time."""
LOADING = 600.0
"""Seconds that a worker that was started again has to load its model, which is on this machine by then."""
GPUS = Path("/proc/driver/nvidia/gpus")
"""Has an entry for each of Nvidia's devices, where their driver is loaded."""


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker needs to know when it starts.

    Args:
        model: reference of the model.
        device: torch device, several with commas between them, or ``all`` for all of Nvidia's; empty: the best.
        threads: of each worker on a CPU; 0: as many as there are cores, shared by the workers.
        sessions: most sessions on a device.
        memory: bytes that the sessions on a device may hold; 0: no limit.
        checkpoints_dir: where sessions are kept; empty: in a folder that goes with the engine.
        checkpoint_every: iterations of a run between two checkpoints.
        hang: seconds without a step after which a worker that has work is started again; 0: never.
        tiny: folder or hub id of a tiny autoencoder for previews.
        preview_quality: of the previews; empty: what the device has the time for.
    """

    model: str
    device: str = ""
    threads: int = 0
    sessions: int = 16
    memory: int = 0
    checkpoints_dir: str = ""
    checkpoint_every: int = 10
    hang: float = 300.0
    tiny: str = ""
    preview_quality: Literal["", "latent", "tiny", "full"] = ""
    log_level: str = "info"
    log_format: str = "text"


@dataclass(eq=False)
class Task:
    """What a room is having done, as it would have to be asked for again.

    Args:
        command: with the room's latest desired.
        stop: that has been asked for.
        iterations, tracked: how far the run is, and where its content is.
        blamed: the worker has died in a step of this run before.
    """

    command: Start | Prepare | Generate
    stop: Stop | None = None
    iterations: int = 0
    tracked: dict[str, XY] = field(default_factory=dict)
    blamed: bool = False

    @property
    def run(self) -> str:
        """Empty for a preparation."""
        match self.command:
            case Start(run=run) | Generate(room=run):
                return run
        return ""

    @property
    def seq(self) -> int:
        """Of the desired that it follows."""
        return 0 if isinstance(self.command, Generate) else self.command.desired.seq

    def again(self) -> list[AnyCommand]:
        """The commands by which a new worker goes on with it."""
        if not isinstance(self.command, Start):
            return [self.command]
        return [replace(self.command, resume=True), *([self.stop] if self.stop else [])]


@dataclass(eq=False)
class WorkerProcess:
    """One device's worker, as this process sees it.

    Args:
        waiting: commands for the next process, while there is none.
        deaths: in a row; ``restarts`` are all of them.
        stepping: the run whose step it is doing, empty for a preparation; None while it has nothing to do.
        heard: when it was last heard of, was started, or began to have something to do.
        fault: why it was killed; empty where it was not.
    """

    options: WorkerOptions
    first: asyncio.Future[ModelInfo]
    sender: ThreadPoolExecutor
    process: BaseProcess | None = None
    connection: Connection | None = None
    waiting: list[AnyCommand] = field(default_factory=list)
    state: EngineState = "starting"
    stepping: str | None = None
    heard: float = 0.0
    ready_at: float = 0.0
    fault: str = ""
    deaths: int = 0
    restarts: int = 0
    restart: asyncio.Task[None] | None = None
    stats: DeviceStats = DeviceStats()  # noqa: RUF009 - it is frozen

    @property
    def device(self) -> str:
        return self.options.device


class LocalEngine(Engine):
    """Device workers in processes of their own.

    A room has its place on one of them as long as its session is there. What is under way when a worker dies is asked
    for again of the next one, which goes on from the checkpoints; a run in whose steps it dies twice has failed.
    """

    def __init__(self, options: WorkerOptions, worker: str = WORKER) -> None:
        """Nothing starts yet; ``worker`` names a function ``module:name`` of (connection, options)."""
        self._options = options
        self._worker = worker
        self._workers: list[WorkerProcess] = []
        self._tasks: dict[str, Task] = {}
        self._seeks: dict[str, Seek] = {}  # not answered yet, as are these:
        self._rewinds: dict[str, ResetSession] = {}
        self._forgets: dict[str, ReleaseSession] = {}
        self._places: dict[str, WorkerProcess] = {}
        self._closing = False
        self._watching: asyncio.Task[None] | None = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self.state = "starting"

    @property
    def pid(self) -> int | None:
        """The process id of the first device's worker, if there is one."""
        process = self._workers[0].process if self._workers else None
        return process.pid if process else None

    async def start(self, on_event: EventHandler) -> ModelInfo:
        self._tell = on_event
        self._loop = asyncio.get_running_loop()
        options = self._options
        if not options.checkpoints_dir:
            self._temporary = tempfile.TemporaryDirectory(prefix="livedrag-")
            options = replace(options, checkpoints_dir=self._temporary.name)
        names = devices(options.device, os.environ.get("CUDA_VISIBLE_DEVICES"))
        for index, name in enumerate(names):
            first: asyncio.Future[ModelInfo] = self._loop.create_future()
            theirs = replace(options, device=name, threads=options.threads or share_of_cores(names))
            sender = ThreadPoolExecutor(1, thread_name_prefix=f"engine-sender-{index}")
            self._workers.append(WorkerProcess(theirs, first, sender))
        for worker in self._workers:
            await self._spawn(worker)
        info, *_ = await asyncio.gather(*(worker.first for worker in self._workers))
        self._watching = self._loop.create_task(self._watch())
        return info

    def submit(self, command: AnyCommand) -> None:
        room = room_of(command)
        if isinstance(command, Prepare) and room in self._tasks and self._tasks[room].run:
            return  # the run prepares it
        worker = self._place(room)
        if isinstance(command, Start | Prepare | Generate) and not self._is_busy(worker):
            worker.heard = time.monotonic()
        self._note(room, command)
        self._submit(worker, command)

    def stats(self) -> EngineStats:
        return EngineStats(
            devices=tuple(
                replace(worker.stats, device=worker.device, state=worker.state, restarts=worker.restarts)
                for worker in self._workers
            )
        )

    async def close(self) -> None:
        self._closing = True
        for task in (self._watching, *(worker.restart for worker in self._workers)):
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        await asyncio.gather(*(asyncio.to_thread(_end, worker) for worker in self._workers))
        if self._temporary is not None:
            self._temporary.cleanup()

    # Rooms and what they have done -----------------------------------------------------------------------------------

    def _place(self, room: str) -> WorkerProcess:
        """The worker that has the room, else the one with the least to do."""
        if room not in self._places:
            self._places[room] = min(self._workers, key=self._load)
        return self._places[room]

    def _load(self, worker: WorkerProcess) -> tuple[bool, int, int]:
        rooms = self._rooms(worker)
        running = sum(room in self._tasks and bool(self._tasks[room].run) for room in rooms)
        return (worker.state != "ready", running, len(rooms))

    def _rooms(self, worker: WorkerProcess) -> tuple[str, ...]:
        return tuple(room for room, place in self._places.items() if place is worker)

    def _is_busy(self, worker: WorkerProcess) -> bool:
        runs = any(room in self._tasks and self._tasks[room].run for room in self._rooms(worker))
        return runs or worker.stepping is not None

    def _note(self, room: str, command: AnyCommand) -> None:
        """Remember what would have to be asked for again."""
        task = self._tasks.get(room)
        match command:
            case Seek():
                self._seeks[room] = command
            case ResetSession():
                self._rewinds[room] = command
        match command:
            case Start() | Prepare() | Generate():
                self._tasks[room] = Task(command)
            case UpdateRun(desired=desired) | Seek(desired=desired) if task is not None and not isinstance(
                task.command, Generate
            ):
                task.command = replace(task.command, desired=desired)
            case Stop(run=run) if task is not None and task.run == run:
                task.stop = command
            case ReleaseSession(wipe=wipe):
                self._forgets[room] = command
                self._tasks.pop(room, None)
                self._seeks.pop(room, None)
                if wipe:
                    self._rewinds.pop(room, None)

    def _submit(self, worker: WorkerProcess, command: AnyCommand) -> None:
        if worker.connection is None:
            worker.waiting.append(command)
        else:  # one that is still loading reads its commands already
            worker.sender.submit(_send, worker.connection, msgspec.msgpack.encode(command))

    # Processes -------------------------------------------------------------------------------------------------------

    async def _spawn(self, worker: WorkerProcess) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=run_worker, args=(self._worker, theirs, worker.options), name="livedrag-worker", daemon=True
        )
        await asyncio.to_thread(process.start)
        theirs.close()
        worker.heard = time.monotonic()
        worker.process, worker.connection, worker.fault, worker.stepping = process, ours, "", None
        waiting, worker.waiting = worker.waiting, []
        for command in waiting:
            self._submit(worker, command)
        threading.Thread(target=self._listen, args=(worker, process, ours), name="engine-reader", daemon=True).start()

    def _listen(self, worker: WorkerProcess, process: BaseProcess, connection: Connection) -> None:
        """The reader thread of one process: hand on its events until it is gone."""
        decoder = msgspec.msgpack.Decoder(AnyEvent)
        with connection, contextlib.suppress(EOFError, OSError):
            while True:
                event: AnyEvent = decoder.decode(connection.recv_bytes())
                self._on_loop(self._received, worker, process, event)
        process.join()
        self._on_loop(self._died, worker, process)

    def _on_loop(self, call: Callable[..., None], *arguments: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            self._loop.call_soon_threadsafe(call, *arguments)

    def _received(self, worker: WorkerProcess, process: BaseProcess, event: AnyEvent) -> None:
        worker.heard = time.monotonic()
        match event:
            case Ready(model=model):
                log.info("the worker of device %r is ready with model %s", worker.device, model.name)
                restarted = worker.state == "restarting"
                worker.state, worker.ready_at = "ready", worker.heard
                self._look()
                if restarted:
                    self._tell(WorkerRestarted(device=worker.device, rooms=self._rooms(worker)))
                if not worker.first.done():
                    worker.first.set_result(model)
            case LoadFailed(message=message):
                if not worker.first.done():
                    worker.first.set_exception(EngineError(message))
                else:
                    log.error("the worker could not load the model again: %s", message)
            case StepStarted(run=run):
                worker.stepping = run
            case StatsReported(stats=stats):
                worker.stats = stats
                if not stats.running + stats.queued:
                    worker.stepping = None
            case SessionReset(room=room):
                self._rewinds.pop(room, None)
            case SessionReleased(room=room, requested=requested):
                if requested:
                    self._forgets.pop(room, None)
                pending = (self._tasks, self._seeks, self._rewinds, self._forgets)
                if self._places.get(room) is worker and not any(room in those for those in pending):
                    del self._places[room]
            case RunFinished(room=room, run=run):
                task = self._tasks.get(room)
                if task is not None and task.run == run:
                    del self._tasks[room]
                    self._tell(event)
            case PreparationProgress(room=room, stage="ready" | "failed"):
                if room in self._tasks and not self._tasks[room].run:
                    del self._tasks[room]
                self._tell(event)
            case SeekCompleted(room=room, moment=moment) | CommandFailed(room=room, moment=int(moment)):
                if room in self._seeks and self._seeks[room].moment == moment:
                    del self._seeks[room]
                self._tell(event)
            case RunProgress(room=room, record=Points(run=run) as points):
                task = self._tasks.get(room)
                if task is not None and task.run == run:
                    task.iterations, task.tracked = points.iteration, points.handles
                self._tell(event)
            case _:
                self._tell(event)

    def _look(self) -> None:
        """See how the workers are together: the engine is ready where one of them is."""
        states = {worker.state for worker in self._workers}
        self.state = next(state for state in ("ready", "restarting", "starting") if state in states)

    def _died(self, worker: WorkerProcess, process: BaseProcess) -> None:
        if self._closing or process is not worker.process:
            return
        worker.connection = None
        code = process.exitcode
        if not worker.first.done():
            worker.first.set_exception(EngineError(f"the worker stopped while loading the model (exit code {code})"))
        if worker.state == "starting":
            return  # the very first start failed, and whoever waits for it knows
        now = time.monotonic()
        settled = worker.state == "ready" and now - worker.ready_at >= SETTLED
        worker.deaths = 0 if settled else worker.deaths
        why = worker.fault or f"stopped (exit code {code})"
        log.error("the worker %s of device %r %s and is started again", process.pid, worker.device, why)
        culprit = None if worker.state == "restarting" else worker.stepping
        worker.state = "restarting"
        self._look()
        worker.restarts += 1
        rooms = self._rooms(worker)
        message = f"the device's worker {why} and is started again"
        self._tell(WorkerRestarting(message=message, device=worker.device, rooms=rooms))
        worker.waiting = self._asked_again(rooms, culprit, settled=settled, why=why) + worker.waiting
        pause = PAUSES[min(worker.deaths, len(PAUSES) - 1)]
        worker.deaths += 1
        worker.restart = self._loop.create_task(self._respawn(worker, pause))

    def _asked_again(self, rooms: tuple[str, ...], culprit: str | None, *, settled: bool, why: str) -> list[AnyCommand]:
        """What the next worker has to do; ends the run in whose step the worker has died again."""
        commands: list[AnyCommand] = []
        for room in rooms:  # what a room was asked for before it began what it has under way comes first
            commands.extend(those[room] for those in (self._forgets, self._rewinds) if room in those)
            task = self._tasks.get(room)
            if task is None:
                continue
            guilty = bool(task.run) and task.run == culprit
            if guilty and task.blamed and not settled:
                del self._tasks[room]
                self._tell(
                    RunFinished(
                        room=room,
                        run=task.run,
                        outcome="failed",
                        iterations=task.iterations,
                        seq=task.seq,
                        tracked=task.tracked,
                        message=f"the device's worker {why} in this run, twice: other settings may work",
                    )
                )
                continue
            task.blamed = guilty or (task.blamed and not settled)
            commands.extend(task.again())
        return commands + [self._seeks[room] for room in rooms if room in self._seeks]

    async def _respawn(self, worker: WorkerProcess, pause: float) -> None:
        while True:
            await asyncio.sleep(pause)
            try:
                await self._spawn(worker)
            except OSError as error:
                log.error("the worker of device %r cannot be started: %s", worker.device, error)
                pause = PAUSES[-1]
            else:
                return

    async def _watch(self) -> None:
        """Kill workers that have work, or to load the model again, and do nothing; the rest follows from their deaths.

        The first load has no bound: it may have to download the model, and whoever started the server watches it.
        """
        hang = self._options.hang
        while hang:
            await asyncio.sleep(min(hang, LOADING) / 4)
            for worker in self._workers:
                if worker.process is None or worker.connection is None or worker.fault:
                    continue
                silent = time.monotonic() - worker.heard
                if worker.state == "ready" and self._is_busy(worker) and silent > hang:
                    worker.fault = f"did nothing for {hang:g} s"
                elif worker.state == "restarting" and silent > LOADING:
                    worker.fault = f"did not load the model within {LOADING:g} s"
                if worker.fault:
                    log.error("the worker of device %r %s and is killed", worker.device, worker.fault)
                    worker.process.kill()


def devices(wanted: str, visible: str | None, gpus: Path = GPUS) -> list[str]:
    """The torch devices to use.

    Args:
        wanted: names with commas between them, ``all``, or empty for the best there is.
        visible: what ``CUDA_VISIBLE_DEVICES`` says, if anything.
        gpus: folder with an entry for each of Nvidia's devices.
    """
    if wanted != "all":
        return [name.strip() for name in wanted.split(",") if name.strip()] or [""]
    if visible is not None:
        count = len([name for name in visible.split(",") if name.strip()])
    else:
        count = len(os.listdir(gpus)) if gpus.is_dir() else 0
    return [f"cuda:{index}" for index in range(count)] or [""]


def share_of_cores(names: list[str]) -> int:
    """Threads of each worker; 0 where it may have all cores."""
    on_cpu = sum(name.startswith("cpu") for name in names)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // on_cpu) if on_cpu > 1 else 0


def run_worker(worker: str, connection: Connection, options: WorkerOptions) -> None:
    """What the child process runs: import the worker by its name and let it serve."""
    # OpenMP's threads otherwise spin while they wait for each other: beside any other busy process, be it a browser,
    # steps then take more than ten times as long. It is read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    module, _, name = worker.partition(":")
    getattr(importlib.import_module(module), name)(connection, options)


def _end(worker: WorkerProcess) -> None:
    """Let a worker leave, and see that it does."""
    process, connection = worker.process, worker.connection
    if connection is not None:
        worker.sender.submit(_send, connection, b"")  # nothing more to do
    worker.sender.shutdown(wait=False)  # one that hangs takes nothing; what waits for it ends when it is killed
    if process is None or connection is None:
        return
    process.join(PATIENCE)
    if process.is_alive():
        log.warning("the worker %s did not leave within %g s and is killed", process.pid, PATIENCE)
        process.kill()
        process.join()


def _send(connection: Connection, packed: bytes) -> None:
    with contextlib.suppress(OSError):  # the worker is gone; the reader thread tells
        connection.send_bytes(packed)
