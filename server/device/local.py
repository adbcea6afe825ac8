"""LocalEngine: a device worker in a child process for each device of this machine."""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
import time
from collections.abc import Callable
from functools import partial

from msgspec.structs import replace

from livedrag.server.device.devices import devices, share_of_cores
from livedrag.server.device.messages import EventHandler
from livedrag.server.device.pool import WorkerPool
from livedrag.server.device.supervisor import Supervisor
from livedrag.server.device.worker_process import WORKER, WorkerOptions, WorkerProcess
from livedrag.server.document.protocol import ModelInfo


class LocalEngine(WorkerPool):
    """Shares the rooms among the devices of this machine. When a worker dies, its rooms wait for the next one."""

    _rooms_wait = True

    def __init__(
        self, options: WorkerOptions, worker: str = WORKER, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Nothing starts yet.

        Args:
            worker: names a function ``module:name`` of (connection, options).
            clock: by which workers hang, in seconds.
        """
        super().__init__(options.hang, clock)
        self._options = options
        self._worker = worker
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    async def start(self, on_event: EventHandler) -> ModelInfo:
        self._emit = on_event
        options = self._options
        if not options.checkpoints_dir:
            self._temporary = tempfile.TemporaryDirectory(prefix="livedrag-")
            options = replace(options, checkpoints_dir=self._temporary.name)
        names = devices(options.device, os.environ.get("CUDA_VISIBLE_DEVICES"))
        threads = options.threads or share_of_cores(names)
        for index, name in enumerate(names):
            mine = replace(options, device=name, threads=threads, workers=names.count(name))
            spawn = partial(WorkerProcess.spawn, self._worker, mine)
            self._supervise(f"{index}:{name}" if name else f"{index}", name, spawn, node=socket.gethostname())
        info, *_ = await asyncio.gather(*(supervisor.start() for supervisor in self._supervisors))
        self._watching = asyncio.get_running_loop().create_task(self._watch())
        return info

    async def close(self) -> None:
        await super().close()
        if self._temporary is not None:
            self._temporary.cleanup()

    def _supervisor_for(self, room: str) -> Supervisor | None:
        """The least loaded one that is ready, or of all of them if none is."""
        open = [one for one in self._supervisors if not one.draining]
        return self._least_loaded([one for one in open if one.state == "ready"] or open, room)
