"""LocalEngine: a device worker in a child process for each device of this machine."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import tempfile
import time
from collections.abc import Callable

from msgspec.structs import replace

from livedrag.server.device.devices import devices, share_of_cores
from livedrag.server.device.engine import (
    AnyCommand,
    AnyEvent,
    DrainRefused,
    Engine,
    EventHandler,
    Generate,
    LoadFailed,
    Prepare,
    Ready,
    ReleaseSession,
    SessionReleased,
    SessionReset,
    Start,
    StatsReported,
    StepStarted,
    WorkerRestarted,
    WorkerRestarting,
    room_of,
)
from livedrag.server.device.pending import PendingCommands
from livedrag.server.device.supervisor import LOAD_SECONDS, Death, Supervisor
from livedrag.server.device.worker_process import WORKER, WorkerOptions
from livedrag.server.document.protocol import EngineState, ModelInfo
from livedrag.server.metrics import EngineStats

log = logging.getLogger(__name__)


class LocalEngine(Engine):
    """Shares the rooms among the devices of this machine.

    A room stays on one device as long as its session is there or a command of it has no answer. What is under way when
    a worker dies is submitted to the next one; a run in whose steps a worker dies twice has failed.
    """

    def __init__(
        self, options: WorkerOptions, worker: str = WORKER, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Nothing starts yet.

        Args:
            worker: names a function ``module:name`` of (connection, options).
            clock: by which workers hang, in seconds.
        """
        self._options = options
        self._worker = worker
        self._clock = clock
        self._supervisors: list[Supervisor] = []
        self._pending = PendingCommands()
        self._places: dict[str, Supervisor] = {}
        self._node = socket.gethostname()
        self._draining: set[Supervisor] = set()
        self._ending: set[asyncio.Task[None]] = set()  # workers that are drained
        self._watching: asyncio.Task[None] | None = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    @property
    def pid(self) -> int | None:
        """The process id of the first device's worker, if there is one."""
        return self._supervisors[0].pid if self._supervisors else None

    async def start(self, on_event: EventHandler) -> ModelInfo:
        self._emit = on_event
        options = self._options
        if not options.checkpoints_dir:
            self._temporary = tempfile.TemporaryDirectory(prefix="livedrag-")
            options = replace(options, checkpoints_dir=self._temporary.name)
        names = devices(options.device, os.environ.get("CUDA_VISIBLE_DEVICES"))
        threads = options.threads or share_of_cores(names)
        self._supervisors = [
            Supervisor(
                replace(options, device=name, threads=threads, workers=names.count(name)),
                self._worker,
                self._receive,
                self._on_death,
                self._clock,
                id=f"{index}:{name}" if name else f"{index}",
            )
            for index, name in enumerate(names)
        ]
        info, *_ = await asyncio.gather(*(supervisor.start() for supervisor in self._supervisors))
        self._watching = asyncio.get_running_loop().create_task(self._watch())
        return info

    def submit(self, command: AnyCommand) -> None:
        room = room_of(command)
        if isinstance(command, Prepare) and self._pending.run_of(room):
            return  # the run prepares the picture
        supervisor = self._place(room)
        if isinstance(command, Start | Prepare | Generate) and not self._is_busy(supervisor):
            supervisor.expect_steps()
        self._pending.add(command)
        supervisor.submit(command)

    def stats(self) -> EngineStats:
        return EngineStats(
            devices=tuple(
                replace(
                    one.stats,
                    worker=one.worker,
                    node=self._node,
                    device=one.device,
                    draining=one in self._draining,
                    state=one.state,
                    restarts=one.restarts,
                )
                for one in self._supervisors
            )
        )

    def drain(self, worker: str) -> None:
        """Idle rooms leave at once, those with work when it has ended; then the worker ends."""
        found = next((one for one in self._supervisors if one.worker == worker), None)
        if found is None:
            super().drain(worker)
        elif all(one is found or one in self._draining for one in self._supervisors):
            text = f"worker {worker!r} is the only one that takes rooms: it cannot be drained. Stop the server instead"
            raise DrainRefused(text)
        elif found not in self._draining:
            log.info("worker %r drains: it gets no more rooms", worker)
            self._draining.add(found)
            for room in self._rooms(found):
                self._release_if_idle(room)
            self._end_if_drained(found)

    async def close(self) -> None:
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        await asyncio.gather(*(supervisor.close() for supervisor in self._supervisors), *self._ending)
        if self._temporary is not None:
            self._temporary.cleanup()

    def _place(self, room: str) -> Supervisor:
        """The device that has the room, else the one with the least to do."""
        if room not in self._places:
            taking = [one for one in self._supervisors if one not in self._draining]
            self._places[room] = min(taking, key=self._load)
        return self._places[room]

    def _release_if_idle(self, room: str) -> None:
        if not self._pending.has(room):
            self.submit(ReleaseSession(room=room))

    def _end_if_drained(self, supervisor: Supervisor) -> None:
        """End the worker if it is draining and no room is left on it."""
        if supervisor in self._draining and not self._rooms(supervisor):
            log.info("worker %r is drained, and ends", supervisor.worker)
            self._draining.discard(supervisor)
            self._supervisors.remove(supervisor)
            self.state = _combined({one.state for one in self._supervisors})
            self._ending.add(ending := asyncio.get_running_loop().create_task(supervisor.close()))
            ending.add_done_callback(self._ending.discard)

    def _load(self, supervisor: Supervisor) -> tuple[bool, int, int]:
        rooms = self._rooms(supervisor)
        running = sum(bool(self._pending.run_of(room)) for room in rooms)
        return (supervisor.state != "ready", running, len(rooms))

    def _rooms(self, supervisor: Supervisor) -> tuple[str, ...]:
        return tuple(room for room, place in self._places.items() if place is supervisor)

    def _is_busy(self, supervisor: Supervisor) -> bool:
        return supervisor.stepping or any(self._pending.run_of(room) for room in self._rooms(supervisor))

    def _receive(self, supervisor: Supervisor, event: AnyEvent) -> None:
        if not self._pending.receive(event):
            return  # of a run that has ended otherwise
        self.state = _combined({one.state for one in self._supervisors})
        match event:
            case Ready() if supervisor.restarts:
                self._emit(WorkerRestarted(device=supervisor.device, rooms=self._rooms(supervisor)))
            case SessionReleased(room=room):
                if self._places.get(room) is supervisor and not self._pending.has(room):
                    del self._places[room]
            case Ready() | LoadFailed() | StepStarted() | StatsReported() | SessionReset():
                pass  # the engine's own
            case _:
                self._emit(event)
        if supervisor in self._draining and not isinstance(event, StatsReported | StepStarted):
            for room in self._rooms(supervisor):
                self._release_if_idle(room)
            self._end_if_drained(supervisor)

    def _on_death(self, supervisor: Supervisor, death: Death) -> list[AnyCommand]:
        """Report it, and end the run in whose steps a worker has died again."""
        self.state = _combined({one.state for one in self._supervisors})
        rooms = self._rooms(supervisor)
        message = f"the device's worker {death.reason} and is restarted"
        self._emit(WorkerRestarting(message=message, device=supervisor.device, rooms=rooms))
        for room in rooms:
            failed = self._pending.fail_suspect(room, death.suspect, settled=death.settled)
            if failed is not None:
                reason = f"the device's worker {death.reason} in this run, twice: try other settings"
                self._emit(failed.failed(reason))
        return self._pending.replay(rooms)

    def check_workers(self) -> None:
        """Kill workers that hang while running or reloading; what follows from that is `_on_death`."""
        for supervisor in self._supervisors:
            supervisor.check(busy=self._is_busy(supervisor))

    async def _watch(self) -> None:
        hang = self._options.hang
        while hang:
            await asyncio.sleep(min(hang, LOAD_SECONDS) / 4)
            self.check_workers()


def _combined(states: set[EngineState]) -> EngineState:
    """An engine is ready if one of its devices is."""
    return "ready" if "ready" in states else "restarting" if "restarting" in states else "starting"
