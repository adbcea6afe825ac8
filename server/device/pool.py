"""WorkerPool: what the engines share. Rooms are placed on supervised workers, stay, move away, and survive deaths."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import ClassVar

from msgspec.structs import replace

from livedrag.server.device.engine import DrainRefused, Engine
from livedrag.server.device.messages import (
    AnyCommand,
    AnyEvent,
    EventHandler,
    Generate,
    LoadFailed,
    LoadModel,
    Prepare,
    Ready,
    ReleaseSession,
    Seek,
    SessionReleased,
    SessionReset,
    Start,
    StatsReported,
    StepStarted,
    UpdateRun,
    WorkerRestarted,
    WorkerRestarting,
    room_of,
)
from livedrag.server.device.model_names import base_name
from livedrag.server.device.pending import PendingCommands
from livedrag.server.device.placement import WorkerLoad, worker_for
from livedrag.server.device.supervisor import LOAD_SECONDS, Death, Spawn, Supervisor
from livedrag.server.document.protocol import EngineState, ModelChoice
from livedrag.server.metrics import DeviceStats, EngineStats

log = logging.getLogger(__name__)


class WorkerPool(Engine):
    """Shares the rooms among workers.

    A room stays on one worker as long as its session is there or a command of it has no answer. What is under way when
    a worker dies is submitted to the next one; a run in whose steps a worker dies twice has failed. A room that moves
    leaves its worker as a checkpoint; what was under way continues on another one.

    Args:
        hang: seconds without a step after which a worker that has work is killed; 0: never.
        clock: by which workers hang, in seconds.
    """

    def __init__(self, hang: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._hang, self._clock = hang, clock
        self._supervisors: list[Supervisor] = []
        self._pending = PendingCommands()
        self._places: dict[str, Supervisor] = {}
        self._models: dict[str, ModelChoice] = {}  # by room, where it is not the server's own; for placement
        self._moving: dict[str, Supervisor | None] = {}  # where rooms go that leave their worker; None: not chosen yet
        self._unplaced: dict[str, None] = {}  # rooms that wait for a worker, the first one first
        self._resuming: set[str] = set()  # rooms whose worker died, until another one has reported something of them
        self._ending: set[asyncio.Task[None]] = set()  # workers that have left
        self._watching: asyncio.Task[None] | None = None

    # What the kinds of engines do differently ------------------------------------------------------------------------

    @abstractmethod
    def _supervisor_for(self, room: str) -> Supervisor | None:
        """A worker for a room that has none; None: it has to wait for one."""

    _rooms_wait: ClassVar[bool]
    """Whether the rooms of a worker that died wait for its successor; else they continue on other workers."""

    def _supervise(self, id: str, device: str, spawn: Spawn, *, node: str) -> Supervisor:
        """Take a worker into the pool; its first start is the caller's."""
        supervisor = Supervisor(
            id, device, spawn, self._receive, self._on_death, node=node, hang=self._hang, clock=self._clock
        )
        self._supervisors.append(supervisor)
        return supervisor

    # The engine ------------------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int | None:
        """The process id of the first worker, if there is one."""
        return self._supervisors[0].pid if self._supervisors else None

    def submit(self, command: AnyCommand) -> None:
        """Send a command to the room's worker; the answer comes as events."""
        room = room_of(command)
        if isinstance(command, Prepare) and self._pending.run_of(room):
            return  # the run prepares the picture
        self._pending.add(command)
        if isinstance(command, Start | Prepare | UpdateRun | Seek):
            self._note_model(room, command.desired.model)
        elif isinstance(command, LoadModel):
            self._note_model(room, command.model)
        if room in self._moving:
            return  # the next worker is sent what has no answer by then
        supervisor = self._place(room)
        if supervisor is None:
            self._unplaced[room] = None
            return
        if isinstance(command, Start | Prepare | Generate) and not self._is_busy(supervisor, but=room):
            supervisor.expect_steps()
        supervisor.submit(command)

    def stats(self) -> EngineStats:
        """Statistics of each device, at most a second old."""
        return EngineStats(devices=tuple(map(self._stats_of, self._supervisors)))

    def _stats_of(self, one: Supervisor) -> DeviceStats:
        return replace(
            one.stats,
            worker=one.worker,
            device=one.device,
            node=one.node,
            state=one.state,
            restarts=one.restarts,
            draining=one.draining,
        )

    def drain(self, worker: str) -> None:
        """Take a worker out of service; see `Engine.drain`. Rooms that run continue on others from where they are."""
        found = next((one for one in self._supervisors if one.worker == worker), None)
        if found is None:
            super().drain(worker)
        elif all(one is found or one.draining for one in self._supervisors):
            text = f"worker {worker!r} is the only one that takes rooms: it cannot be drained. Stop the server instead"
            raise DrainRefused(text)
        else:
            self._drain(found)

    async def close(self) -> None:
        """End the workers. Sessions stay on disk as of their last checkpoints."""
        if self._watching is not None:
            self._watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._watching
        await asyncio.gather(*(supervisor.close() for supervisor in self._supervisors), *self._ending)

    # Places ----------------------------------------------------------------------------------------------------------

    def _place(self, room: str) -> Supervisor | None:
        """The worker that has the room, else a new one for it."""
        if room not in self._places:
            found = self._supervisor_for(room)
            if found is None:
                return None
            self._places[room] = found
        return self._places[room]

    def _least_loaded(self, supervisors: Iterable[Supervisor], room: str) -> Supervisor | None:
        by_id = {one.worker: one for one in supervisors}
        model = base_name(self._models.get(room, ModelChoice()))
        chosen = worker_for([self._load(one) for one in by_id.values()], room=room, model=model)
        return None if chosen is None else by_id[chosen]

    def _note_model(self, room: str, choice: ModelChoice) -> None:
        if choice == ModelChoice():
            self._models.pop(room, None)
        else:
            self._models[room] = choice

    def _load(self, supervisor: Supervisor) -> WorkerLoad:
        rooms = [room for room in self._rooms(supervisor) if not self._pending.is_leaving(room)]
        steps = supervisor.stats.steps.get("dragging", 0)
        missing = {choice for choice in set(self._models.values()) if not supervisor.can_load(choice)}
        return WorkerLoad(
            worker=supervisor.worker,
            node=supervisor.node,
            models=frozenset(supervisor.stats.models),
            unable=frozenset(room for room, choice in self._models.items() if choice in missing),
            active=tuple(room for room in rooms if self._pending.has(room)),
            idle=tuple(room for room in rooms if not self._pending.has(room)),
            step_seconds=supervisor.stats.seconds.get("dragging", 0.0) / steps if steps else 0.0,
            draining=supervisor.draining,
        )

    def _takes_rooms(self, supervisor: Supervisor) -> bool:
        return supervisor.state == "ready" and not supervisor.draining

    def _rooms(self, supervisor: Supervisor) -> tuple[str, ...]:
        return tuple(room for room, place in self._places.items() if place is supervisor)

    def _is_busy(self, supervisor: Supervisor, but: str = "") -> bool:
        rooms = self._rooms(supervisor)
        return supervisor.stepping or any(self._pending.run_of(room) for room in rooms if room != but)

    # Moving ----------------------------------------------------------------------------------------------------------

    def _drain(self, supervisor: Supervisor) -> None:
        if supervisor.draining:
            return
        log.info("worker %s drains: its rooms move to others", supervisor.worker)
        supervisor.draining = True
        for room in self._rooms(supervisor):
            if not self._pending.is_generation(room):  # it could not be continued, and ends soon
                self._move(room)
        self._check_drained(supervisor)

    def _move(self, room: str, destination: Supervisor | None = None) -> None:
        """Let a room leave its worker, as a checkpoint; `_on_left` continues elsewhere."""
        if room not in self._moving:
            self._moving[room] = destination
            self._places[room].submit(ReleaseSession(room=room))

    def _on_left(self, room: str) -> None:
        """A room that moves has left its worker."""
        source, destination = self._places.pop(room), self._moving.pop(room)
        if destination is not None and self._takes_rooms(destination):
            self._places[room] = destination
        if self._pending.has(room):
            self._continue((room,))
        else:
            self._emit(SessionReleased(room=room))
        self._check_drained(source)

    def _continue(self, rooms: Iterable[str]) -> None:
        """Send what has no answer yet to the rooms' workers, or to new ones; if there is none, they wait for one."""
        for room in rooms:
            supervisor = self._place(room)
            if supervisor is None:
                self._unplaced[room] = None
                continue
            self._unplaced.pop(room, None)
            if not self._is_busy(supervisor, but=room):
                supervisor.expect_steps()
            for command in self._pending.replay((room,)):
                supervisor.submit(command)

    def _check_drained(self, supervisor: Supervisor) -> None:
        if supervisor.draining and not self._rooms(supervisor):
            log.info("worker %s is drained, and ends", supervisor.worker)
            self._remove(supervisor)

    def _remove(self, supervisor: Supervisor) -> None:
        """Take a worker out of the pool, and end it."""
        if supervisor in self._supervisors:
            self._supervisors.remove(supervisor)
            self._update_state()
            ending = asyncio.get_running_loop().create_task(supervisor.close())
            self._ending.add(ending)
            ending.add_done_callback(self._ending.discard)

    # Events ----------------------------------------------------------------------------------------------------------

    def _receive(self, supervisor: Supervisor, event: AnyEvent) -> None:
        if isinstance(event, SessionReleased) and event.requested and event.room in self._moving:
            self._on_left(event.room)
            return
        if not self._pending.receive(event):
            return  # of a run that has ended otherwise
        self._check_resumed(supervisor, event)
        before = self.state
        self._update_state()
        match event:
            case Ready(catalog=catalog):
                self.catalog = catalog
                waiting = tuple(self._unplaced)
                self._resuming.difference_update(waiting)
                self._continue(waiting)
                if supervisor.restarts or waiting or before == "restarting":
                    self._emit(WorkerRestarted(device=supervisor.device, rooms=self._rooms(supervisor)))
            case SessionReleased(room=room):
                if self._places.get(room) is supervisor and not self._pending.has(room) and room not in self._moving:
                    del self._places[room]
                    self._models.pop(room, None)
                    self._check_drained(supervisor)
                self._emit(event)
            case LoadFailed() | StepStarted() | StatsReported() | SessionReset():
                pass  # the engine's own
            case _:
                self._emit(event)

    def _on_death(self, supervisor: Supervisor, death: Death) -> list[AnyCommand]:
        """Report it, and end the run in whose steps a worker has died again."""
        self._update_state()
        rooms = self._rooms(supervisor)
        for room in rooms:
            self._moving.pop(room, None)  # it has left now
        message = f"the device's worker {death.reason} and is restarted"
        self._emit(WorkerRestarting(message=message, device=supervisor.device, rooms=rooms))
        for room in rooms:
            failed = self._pending.fail_suspect(room, death.suspect, settled=death.settled)
            if failed is not None:
                reason = f"the device's worker {death.reason} in this run, twice: try other settings"
                self._emit(failed.failed(reason))
        if self._rooms_wait and not supervisor.draining:
            return self._pending.replay(rooms)
        for room in rooms:
            del self._places[room]
        working = tuple(room for room in rooms if self._pending.has(room))
        idle = tuple(room for room in rooms if not self._pending.has(room))
        self._resuming.difference_update(idle)
        self._resuming.update(working)
        self._continue(working)
        if self.state == "ready" and idle:
            self._emit(WorkerRestarted(device=supervisor.device, rooms=idle))
        self._check_drained(supervisor)
        return []

    def _check_resumed(self, supervisor: Supervisor, event: AnyEvent) -> None:
        """Report a room that another worker has taken over once it works on it."""
        room = getattr(event, "room", "")
        if room in self._resuming and self._places.get(room) is supervisor:
            self._resuming.discard(room)
            self._emit(WorkerRestarted(device=supervisor.device, rooms=(room,)))

    def _update_state(self) -> None:
        self.state = combined({one.state for one in self._supervisors})

    # Hanging workers -------------------------------------------------------------------------------------------------

    def check_workers(self) -> None:
        """Kill workers that hang while running or reloading; what follows from that is `_on_death`."""
        for supervisor in self._supervisors:
            supervisor.check(busy=self._is_busy(supervisor))

    async def _watch(self) -> None:
        while self._hang:
            await asyncio.sleep(min(self._hang, LOAD_SECONDS) / 4)
            self.check_workers()

    _emit: EventHandler


def combined(states: set[EngineState]) -> EngineState:
    """An engine is ready if one of its devices is."""
    return "ready" if "ready" in states else "restarting" if "restarting" in states else "starting"
