"""LocalEngine: one device worker in a child process, watched and started again when it dies.

The worker is named by a string and imported by the child alone, so that this process never loads torch.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import multiprocessing
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import msgspec

from server.engine import AnyCommand, AnyEvent, Engine, EngineError, LoadFailed, Lost, Ready
from server.protocol import ModelInfo

log = logging.getLogger(__name__)

WORKER = "server.worker:serve"
PATIENCE = 5.0
"""Seconds that a worker has to leave before it is killed."""
PAUSES = (0.2, 1.0, 5.0, 30.0)
"""Seconds before the first, second, ... restart in a row; the last goes on."""


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker needs to know when it starts."""

    model: str
    device: str = ""
    threads: int = 0
    sessions: int = 16
    log_level: str = "info"


class LocalEngine(Engine):
    """A device worker in a process of its own."""

    def __init__(self, options: WorkerOptions, worker: str = WORKER) -> None:
        """Nothing starts yet; ``worker`` names a function ``module:name`` of (connection, options)."""
        self._options = options
        self._worker = worker
        self._process: BaseProcess | None = None
        self._connection: Connection | None = None
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="engine-sender")
        self._waiting: list[bytes] = []
        self._deaths = 0
        self._closing = False
        self._restart: asyncio.Task[None] | None = None
        self.state = "starting"

    @property
    def pid(self) -> int | None:
        """The worker's process id, if there is a worker."""
        return self._process.pid if self._process else None

    async def start(self, tell: Callable[[AnyEvent], None]) -> ModelInfo:
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._first: asyncio.Future[ModelInfo] = self._loop.create_future()
        await self._spawn()
        return await self._first

    def submit(self, command: AnyCommand) -> None:
        packed = msgspec.msgpack.encode(command)
        if self._connection is None:
            self._waiting.append(packed)  # for the next worker
        else:  # one that is still loading reads its commands already
            self._sender.submit(_send, self._connection, packed)

    async def close(self) -> None:
        self._closing = True
        if self._restart is not None:
            self._restart.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._restart
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        self._sender.shutdown()
        process, connection = self._process, self._connection
        if process is None or connection is None:
            return
        with contextlib.suppress(OSError):
            connection.send_bytes(b"")  # nothing more to do
        process.join(PATIENCE)
        if process.is_alive():
            log.warning("the worker %s did not leave within %g s and is killed", process.pid, PATIENCE)
            process.kill()
            process.join()

    async def _spawn(self) -> None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=run_worker, args=(self._worker, theirs, self._options), name="livedrag-worker", daemon=True
        )
        await asyncio.to_thread(process.start)
        theirs.close()
        self._process, self._connection = process, ours
        while self._waiting:
            self._sender.submit(_send, ours, self._waiting.pop(0))
        threading.Thread(target=self._listen, args=(process, ours), name="engine-reader", daemon=True).start()

    def _listen(self, process: BaseProcess, connection: Connection) -> None:
        """The reader thread of one worker: hand on its events until it is gone."""
        decoder = msgspec.msgpack.Decoder(AnyEvent)
        with connection, contextlib.suppress(EOFError, OSError):
            while True:
                event: AnyEvent = decoder.decode(connection.recv_bytes())
                self._on_loop(self._received, event)
        process.join()
        self._on_loop(self._died, process)

    def _on_loop(self, call: Callable[..., None], argument: object) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left to tell
            self._loop.call_soon_threadsafe(call, argument)

    def _received(self, event: AnyEvent) -> None:
        match event:
            case Ready(model=model):
                self.state, self._deaths = "ready", 0
                log.info("the worker is ready with model %s", model.name)
                if not self._first.done():
                    self._first.set_result(model)
            case LoadFailed(message=message):
                if not self._first.done():
                    self._first.set_exception(EngineError(message))
                else:
                    log.error("the worker could not load the model again: %s", message)
            case _:
                self._tell(event)

    def _died(self, process: BaseProcess) -> None:
        if self._closing or process is not self._process:
            return
        self._connection = None
        if not self._first.done():
            self._first.set_exception(
                EngineError(f"the worker stopped while loading the model (exit code {process.exitcode})")
            )
        if self.state == "starting":
            return  # the very first start failed, and whoever waits for it knows
        self.state = "restarting"
        log.error("the worker %s died with exit code %s and is started again", process.pid, process.exitcode)
        self._tell(Lost(message=f"the device's worker stopped (exit code {process.exitcode}) and is started again"))
        pause = PAUSES[min(self._deaths, len(PAUSES) - 1)]
        self._deaths += 1
        self._restart = self._loop.create_task(self._respawn(pause))

    async def _respawn(self, pause: float) -> None:
        await asyncio.sleep(pause)
        await self._spawn()


def run_worker(worker: str, connection: Connection, options: WorkerOptions) -> None:
    """What the child process runs: import the worker by its name and let it serve."""
    # OpenMP's threads otherwise spin while they wait for each other: beside any other busy process, be it a browser,
    # steps then take more than ten times as long. It is read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    module, _, name = worker.partition(":")
    getattr(importlib.import_module(module), name)(connection, options)


def _send(connection: Connection, packed: bytes) -> None:
    with contextlib.suppress(OSError):  # the worker is gone; the reader thread tells
        connection.send_bytes(packed)
