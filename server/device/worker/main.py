"""The worker's process: loads the model, then passes commands from a pipe to its `DeviceWorker`."""

from __future__ import annotations

import contextlib
import gc
import os
import queue
import signal
import threading
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec
import torch

from livedrag.editor import Diffusion, EditorError
from livedrag.editor.model_options import WantedModel, find_wanted
from livedrag.server.device.checkpoint_files import CheckpointsUrlError
from livedrag.server.device.checkpoints import Checkpoints
from livedrag.server.device.messages import AnyCommand, AnyEvent, LoadFailed, Ready
from livedrag.server.device.worker.background_checkpoints import open_checkpoints
from livedrag.server.device.worker.device_worker import DeviceWorker
from livedrag.server.device.worker.memory import memory_of
from livedrag.server.device.worker.model_catalog import read_catalog
from livedrag.server.device.worker.model_opener import open_apart
from livedrag.server.device.worker_process import FINISH_SECONDS, WorkerOptions
from livedrag.server.logs import configure

LOADING_SECONDS = 1.0
"""Between two looks at a model that is being loaded."""
NICENESS = 5
"""Added to the process's, so that the web process goes first."""


def serve(connection: Connection, options: WorkerOptions) -> None:
    """The process's main function: serve until the pipe ends."""
    if threading.current_thread() is threading.main_thread():
        # Ctrl+C reaches all of the terminal's processes; the parent says when to end.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    configure(options.log_level, options.log_format)
    yield_to_others(options.threads)
    spare_imports()
    commands: queue.SimpleQueue[AnyCommand | None] = queue.SimpleQueue()

    def send(event: AnyEvent) -> None:
        with contextlib.suppress(OSError):  # the parent is gone, and this process in a moment
            connection.send_bytes(msgspec.msgpack.encode(event))

    try:
        checkpoints = open_checkpoints(options.checkpoints_dir)
        arguments = (connection, commands, checkpoints)
        threading.Thread(target=_listen, args=arguments, name="commands", daemon=True).start()
        if options.server:
            checkpoints.files.check_mark(options.server)
        wanted = find(options)
        model = load(options, wanted)
        folder = Path(options.models).expanduser() if options.models else None
        catalog = read_catalog(wanted, folder, options.caps)
    except (EditorError, CheckpointsUrlError) as error:
        send(LoadFailed(message=str(error)))
        return
    worker = DeviceWorker(
        model,
        send,
        checkpoints,
        sessions=options.sessions,
        memory=memory_of(model.device, options.memory, options.workers),
        caps=options.caps,
        every=options.checkpoint_every,
        metadata=options.metadata,
        quality=options.preview_quality or None,
        catalog=catalog,
        open_model=lambda wanted, note: prepared(open_apart(wanted, options.device or None, note), options),
        wake=lambda: commands.put(None),
        share_passes=options.share_passes == "auto",
    )
    send(Ready(model=worker.info, device=options.device, catalog=catalog.entries))
    while True:
        with contextlib.suppress(queue.Empty):
            if not worker.busy:
                obey(worker, commands.get(timeout=LOADING_SECONDS if worker.loading else None))
            while True:
                obey(worker, commands.get_nowait())
        worker.advance()


def obey(worker: DeviceWorker, command: AnyCommand | None) -> None:
    """Take a command; None only wakes the worker."""
    if command is not None:
        worker.obey(command)


def find(options: WorkerOptions) -> WantedModel:
    """What the options name. Raises `EditorError`."""
    return find_wanted(
        options.model,
        config=Path(options.model_config).expanduser() if options.model_config else None,
        vae=options.vae or None,
        loras=options.lora,
        tiny=options.tiny or None,
        models=Path(options.models).expanduser() if options.models else None,
    )


def load(options: WorkerOptions, wanted: WantedModel | None = None) -> Diffusion:
    """Load the model. Raises `EditorError`."""
    model = prepared((wanted or find(options)).open(options.device or None), options)
    if options.preview_quality == "tiny" and model.tiny is None:
        raise EditorError("preview quality 'tiny' needs a tiny autoencoder, and this model has none: name one (TINY)")
    return model


def prepared(model: Diffusion, options: WorkerOptions) -> Diffusion:
    """The model, as the operator wants it to run."""
    if not options.cuda_graphs:
        model.graphs = None
    return model


def spare_imports() -> None:
    """Leave what was imported out of garbage collections.

    A full one otherwise takes a fifth of a second of processor time, in which no other thread gets to run Python, not
    even the one that says that this process lives: on a busy machine, at this priority, for longer than 5 s.
    """
    gc.freeze()


def yield_to_others(threads: int) -> None:
    """Run at a lower priority than the web process, with no more threads than there are cores.

    On Linux this holds for the calling thread and those that it starts, so not for those of a `WorkerLink`.
    """
    if hasattr(os, "nice"):
        os.nice(NICENESS)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(threads or cores)


def _listen(connection: Connection, commands: queue.SimpleQueue[AnyCommand | None], checkpoints: Checkpoints) -> None:
    """Queue commands. When the parent says so or is gone, the process ends, whatever the device is doing."""
    decoder = msgspec.msgpack.Decoder(AnyCommand)
    try:
        while packed := connection.recv_bytes():
            commands.put(decoder.decode(packed))
    except (EOFError, OSError):
        pass
    finally:
        checkpoints.finish(FINISH_SECONDS)
        os._exit(0)
