"""Supervisor: keeps one device's worker process alive, and replaces it when it dies or hangs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from livedrag.server.device.engine import EngineError
from livedrag.server.device.messages import (
    AnyCommand,
    AnyEvent,
    EventHandler,
    LoadFailed,
    ModelFailed,
    Ready,
    StatsReported,
    StepStarted,
)
from livedrag.server.device.model_names import offers
from livedrag.server.document.protocol import CatalogEntry, EngineState, ModelChoice, ModelInfo
from livedrag.server.metrics import DeviceStats, named_device

log = logging.getLogger(__name__)

RESTART_PAUSES = (0.2, 1.0, 5.0, 30.0)
"""Seconds before the first, second, ... restart in a row; the last goes on."""
SETTLED_SECONDS = 60.0
"""A worker that dies so long after it was ready has died for another reason than the one before it."""
LOAD_SECONDS = 600.0
"""That a restarted worker has to load its model, which is on this machine by then."""


class Worker(Protocol):
    """A device worker in another process."""

    @property
    def pid(self) -> int | None:
        """Of its process on its machine, once known."""

    @property
    def ending(self) -> str:
        """How it has ended, for people, such as "stopped (exit code -9)"."""

    def send(self, command: AnyCommand) -> None:
        """Send a command; lost if the process is gone. One that is still loading the model reads it later."""

    def kill(self) -> None:
        """End it at once."""

    def forget(self) -> None:
        """It has ended: free what belongs to it."""

    async def end(self) -> None:
        """Ask it to end, and make sure that it does."""


Spawn = Callable[[EventHandler, Callable[[], None]], Awaitable[Worker]]
"""Starts a worker, whose events and exit are reported to these two on the event loop. Raises OSError."""


@dataclass(frozen=True)
class Death:
    """How a worker died.

    Args:
        reason: for people, such as "stopped (exit code -9)".
        suspect: the run in whose step it died; empty: in a preparation; None: it was idle, or loading.
        settled: it has nothing to do with the death before.
    """

    reason: str
    suspect: str | None
    settled: bool


class Supervisor:
    """One device. Commands that come while it has no worker are sent to the next one.

    Args:
        id: of the worker, unique in the engine.
        device: its name.
        spawn: starts a worker.
        hang: seconds without a step after which a worker that has work is killed; 0: never.
        on_event: takes this supervisor and each event, also `Ready` after every start.
        on_death: takes this supervisor and the death; returns the commands that the next worker is sent first.
        node: the machine that it runs on.
        clock: in seconds.
    """

    def __init__(
        self,
        id: str,
        device: str,
        spawn: Spawn,
        on_event: Callable[[Supervisor, AnyEvent], None],
        on_death: Callable[[Supervisor, Death], list[AnyCommand]],
        *,
        node: str = "",
        hang: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.worker, self.device, self.node = id, device, node
        self._named = named_device(device)
        self.draining = False
        self.state: EngineState = "starting"
        self.stats = DeviceStats()
        self.restarts = 0
        self._catalog: tuple[CatalogEntry, ...] = ()
        self._failed: set[ModelChoice] = set()  # what it could not load
        self._spawn_worker, self._hang = spawn, hang
        self._on_event, self._on_death = on_event, on_death
        self._clock = clock
        self._process: Worker | None = None
        self._loaded: asyncio.Future[ModelInfo] | None = None
        self._waiting: list[AnyCommand] = []
        self._stepping: str | None = None  # the run whose step is under way; empty: a preparation; None: idle
        self._heard_at = self._ready_at = 0.0
        self._fault = ""  # why it was killed
        self._deaths = 0  # in a row
        self._restarting: asyncio.Task[None] | None = None
        self._closing = False

    @property
    def pid(self) -> int | None:
        """Of its process, if there is one."""
        return self._process.pid if self._process else None

    @property
    def stepping(self) -> bool:
        """Whether its worker has said that it does something."""
        return self._stepping is not None

    async def start(self) -> ModelInfo:
        """Start the first worker, and wait until it has loaded the model. Raises `EngineError`."""
        self._loaded = asyncio.get_running_loop().create_future()
        await self._spawn()
        return await self._loaded

    def submit(self, command: AnyCommand) -> None:
        """Send a command to the worker, or to the next one."""
        if self._process is None:
            self._waiting.append(command)
        else:
            self._process.send(command)

    def give_up(self, fault: str) -> None:
        """Kill its worker for this reason."""
        if self._process is not None and not self._fault:
            self._fault = fault
            log.error("the worker of %s %s and is killed", self._named, fault)
            self._process.kill()

    def can_load(self, choice: ModelChoice) -> bool:
        """Whether its worker has the files of a model, and has not failed to load it before."""
        return choice not in self._failed and offers(self._catalog, choice)

    def expect_steps(self) -> None:
        """It was idle and has something to do from now on: silence counts from now."""
        self._heard_at = self._clock()

    def check(self, *, busy: bool) -> None:
        """Kill a worker that has work, or has to load the model again, and was silent for too long.

        The first load has no bound: it may have to download the model, and the person who starts the server watches it.
        """
        if self._process is None or self._fault:
            return
        silent, hang = self._clock() - self._heard_at, self._hang
        if self.state == "ready" and busy and 0 < hang < silent:
            self.give_up(f"did nothing for {hang:g} s")
        elif self.state == "restarting" and silent > LOAD_SECONDS:
            self.give_up(f"did not load the model within {LOAD_SECONDS:g} s")

    async def close(self) -> None:
        """End the worker."""
        self._closing = True
        if self._restarting is not None:
            self._restarting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._restarting
        if self._process is not None:
            await self._process.end()

    async def _spawn(self) -> None:
        self._fault, self._stepping = "", None
        process: Worker | None = None
        process = await self._spawn_worker(self._receive, lambda: self._died(process))
        self._process, self._heard_at = process, self._clock()
        waiting, self._waiting = self._waiting, []
        for command in waiting:
            process.send(command)

    def _receive(self, event: AnyEvent) -> None:
        assert self._loaded is not None
        self._heard_at = self._clock()
        match event:
            case Ready(model=model, catalog=catalog):
                self._catalog, self._failed = catalog, set()
                log.info("the worker of %s is ready with model %s", self._named, model.name)
                self.state, self._ready_at = "ready", self._heard_at
                if not self._loaded.done():
                    self._loaded.set_result(model)
            case LoadFailed(message=message) if not self._loaded.done():
                self._loaded.set_exception(EngineError(message))
            case LoadFailed(message=message):
                log.error("the restarted worker could not load the model: %s", message)
            case ModelFailed(model=choice):
                self._failed.add(choice)
            case StepStarted(run=run):
                self._stepping = run
            case StatsReported(stats=stats):
                self.stats = stats
                if not stats.running + stats.queued:
                    self._stepping = None
        self._on_event(self, event)

    def _died(self, process: Worker | None) -> None:
        if self._closing or process is None or process is not self._process:
            return
        assert self._loaded is not None
        self._process = None
        process.forget()
        if not self._loaded.done():
            message = f"the worker {process.ending} while loading the model"
            self._loaded.set_exception(EngineError(message))
        if self.state == "starting":
            return  # the first start failed: `start` raises
        settled = self.state == "ready" and self._clock() - self._ready_at >= SETTLED_SECONDS
        reason = self._fault or process.ending
        log.error("the worker %s of %s %s and is restarted", process.pid, self._named, reason)
        suspect = None if self.state == "restarting" else self._stepping
        self._deaths = 0 if settled else self._deaths
        self.state = "restarting"
        self.restarts += 1
        self._waiting = self._on_death(self, Death(reason, suspect, settled)) + self._waiting
        pause = RESTART_PAUSES[min(self._deaths, len(RESTART_PAUSES) - 1)]
        self._deaths += 1
        self._restarting = asyncio.get_running_loop().create_task(self._respawn(pause))

    async def _respawn(self, pause: float) -> None:
        while True:
            await asyncio.sleep(pause)
            try:
                await self._spawn()
            except OSError as error:
                log.error("the worker of %s cannot be started: %s", self._named, error)
                pause = RESTART_PAUSES[-1]
            else:
                return
