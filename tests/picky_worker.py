"""The quiet worker, which the first process that gets here cannot be: it reports that it has no model."""

from __future__ import annotations

import contextlib
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec

from livedrag.server.device.messages import LoadFailed
from livedrag.server.device.worker_process import WorkerOptions
from tests import quiet_worker


def serve(connection: Connection, options: WorkerOptions) -> None:
    """Fail in one process, serve in all others."""
    with contextlib.suppress(FileExistsError):
        (Path(options.checkpoints_dir) / "refused").touch(exist_ok=False)
        connection.send_bytes(msgspec.msgpack.encode(LoadFailed(message="no model is here")))
        return
    quiet_worker.serve(connection, options)
