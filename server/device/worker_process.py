"""WorkerProcess: a device worker in a child process, at the other end of a pipe.

The worker is named by a string and imported by the child alone, so that this process never loads torch.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Literal, Protocol

import msgspec

from livedrag.server.device.messages import AnyCommand, AnyEvent, EventHandler

log = logging.getLogger(__name__)

WORKER = "livedrag.server.device.worker.main:serve"
FINISH_SECONDS = 4.0
"""That a worker that ends has to write its checkpoints."""
EXIT_SECONDS = FINISH_SECONDS + 1
"""That a worker has to end by itself before it is killed."""


class WorkerOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker needs to know when it starts.

    Args:
        model: reference of the model, or its name in ``models``.
        model_config: folder with the tokenizer of a checkpoint.
        vae: autoencoder that replaces the model's own.
        lora: LoRAs on the model, each ``PATH[:WEIGHT]``.
        models: folder in which names are looked up.
        device: torch device, several separated by commas, or ``all`` for all of Nvidia's; empty: the best.
        threads: of each worker on a CPU; 0: as many as there are cores, shared by the workers.
        sessions: on a device at most.
        memory: bytes that the sessions on a device may hold; 0: half of what the device has beside the model.
        workers: that share a device.
        caps: largest values of settings, by name, below the editor's own.
        checkpoints_dir: a folder or URL where sessions are stored; empty: in a folder that is deleted with the engine.
        server: id of the server that has left it there, see `CheckpointFiles.mark`; empty: it is not checked.
        checkpoint_every: iterations of a run between two checkpoints.
        hang: seconds without a step after which a worker that has work is killed and started again; 0: never.
        tiny: folder or hub id of a tiny autoencoder for previews.
        preview_quality: of the previews; empty: what the device has the time for.
        metadata: whether results say how they were made.
        share_passes: whether rooms share passes of the UNet; ``auto``: where that is measured to be faster.
        cuda_graphs: whether passes run from CUDA graphs on GPUs.
    """

    model: str
    model_config: str = ""
    vae: str = ""
    lora: tuple[str, ...] = ()
    models: str = ""
    device: str = ""
    threads: int = 0
    sessions: int = 16
    memory: int = 0
    workers: int = 1
    caps: dict[str, int] = {}
    checkpoints_dir: str = ""
    server: str = ""
    checkpoint_every: int = 10
    hang: float = 300.0
    tiny: str = ""
    preview_quality: Literal["", "latent", "tiny", "full"] = ""
    metadata: bool = True
    share_passes: Literal["auto", "never"] = "auto"
    cuda_graphs: bool = True
    log_level: str = "info"
    log_format: str = "text"


class WorkerConnection(Protocol):
    """A worker's end of its connection, such as a pipe."""

    def recv_bytes(self) -> bytes:
        """The next command, packed; empty: the worker has to end. Raises `EOFError`, `OSError`: the engine is gone."""

    def send_bytes(self, event: bytes, /) -> None:
        """Send a packed event. Raises `OSError` if the engine is gone."""


class WorkerProcess:
    """One child process. Commands wait in a thread of their own, so that a worker that hangs blocks no caller."""

    def __init__(self, process: BaseProcess, connection: Connection) -> None:
        self._process = process
        self._connection = connection
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="engine-sender")

    @classmethod
    async def spawn(
        cls, worker: str, options: WorkerOptions, on_event: EventHandler, on_exit: Callable[[], None]
    ) -> WorkerProcess:
        """Start a process; its events and its exit are reported on this event loop.

        Args:
            worker: names a function ``module:name`` of (connection, options).

        Raises:
            OSError: no process can be started.
        """
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(
            target=run_worker, args=(worker, theirs, options), name="livedrag-worker", daemon=True
        )
        await asyncio.to_thread(_start, process)
        theirs.close()
        arguments = (process, ours, asyncio.get_running_loop(), on_event, on_exit)
        threading.Thread(target=_read_events, args=arguments, name="engine-reader", daemon=True).start()
        return cls(process, ours)

    @property
    def pid(self) -> int | None:
        return self._process.pid

    @property
    def ending(self) -> str:
        """How it has ended, for people."""
        return f"stopped (exit code {self._process.exitcode})"

    def send(self, command: AnyCommand) -> None:
        """Send a command; lost if the process is gone. One that is still loading the model reads it later."""
        self._sender.submit(_send, self._connection, msgspec.msgpack.encode(command))

    def kill(self) -> None:
        """End it at once."""
        self._process.kill()

    def forget(self) -> None:
        """It has ended: free what belongs to it."""
        self._sender.shutdown(wait=False)

    async def end(self) -> None:
        """Ask it to end, and make sure that it does."""
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        self._sender.submit(_send, self._connection, b"")
        self._sender.shutdown(wait=False)  # one that hangs reads nothing; what waits for it ends when it is killed
        self._process.join(EXIT_SECONDS)
        if self._process.is_alive():
            log.warning("the worker %s did not end within %g s and is killed", self.pid, EXIT_SECONDS)
            self._process.kill()
            self._process.join()


def run_worker(worker: str, connection: WorkerConnection, options: WorkerOptions) -> None:
    """What a worker's process runs: import the worker by its name and let it serve."""
    # OpenMP's threads otherwise spin while they wait for each other: beside any other busy process, be it a browser,
    # steps then take more than ten times as long. It is read when torch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    module, _, name = worker.partition(":")
    getattr(importlib.import_module(module), name)(connection, options)


def _start(process: BaseProcess) -> None:
    """Start a process that Ctrl-C, which reaches all of a terminal's processes, does not interrupt while it imports."""
    if not hasattr(signal, "pthread_sigmask"):
        process.start()
        return
    resource_tracker.ensure_running()  # starting it unblocks the signal
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # which the child inherits
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _read_events(
    process: BaseProcess,
    connection: Connection,
    loop: asyncio.AbstractEventLoop,
    on_event: EventHandler,
    on_exit: Callable[[], None],
) -> None:
    """The reader thread of one process: pass its events to the event loop until it ends."""
    decoder = msgspec.msgpack.Decoder(AnyEvent)
    with contextlib.suppress(RuntimeError):  # the loop is closed: the engine is gone
        with connection, contextlib.suppress(EOFError, OSError):
            while True:
                event: AnyEvent = decoder.decode(connection.recv_bytes())
                loop.call_soon_threadsafe(on_event, event)
        process.join()
        loop.call_soon_threadsafe(on_exit)


def _send(connection: Connection, packed: bytes) -> None:
    with contextlib.suppress(OSError):  # the worker is gone; the reader thread reports it
        connection.send_bytes(packed)
