"""A worker that Ctrl-C reaches while it is imported, and that reports whether it is still there."""

from __future__ import annotations

import os
import signal
from multiprocessing.connection import Connection

import msgspec

from livedrag.server.device.messages import LoadFailed
from livedrag.server.device.worker_process import WorkerOptions

os.kill(os.getpid(), signal.SIGINT)


def serve(connection: Connection, options: WorkerOptions) -> None:
    """Send an event, and end."""
    connection.send_bytes(msgspec.msgpack.encode(LoadFailed(message="still here")))
