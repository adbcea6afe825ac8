"""RayEngine: a device worker on each GPU of a Ray cluster, or on each slot of CPUs."""

from __future__ import annotations

import asyncio
import logging
import secrets
import tempfile
import time
from collections.abc import Callable, Mapping

from msgspec.structs import replace

from livedrag.server.device.checkpoint_files import open_files
from livedrag.server.device.engine import EngineError
from livedrag.server.device.messages import EventHandler
from livedrag.server.device.model_names import base_name
from livedrag.server.device.placement import moves
from livedrag.server.device.pool import WorkerPool
from livedrag.server.device.ray.cluster import Cluster, ClusterLost, Node
from livedrag.server.device.ray.hub import Hub, Tls
from livedrag.server.device.ray.slot import Slot, device_of, resources_of
from livedrag.server.device.supervisor import Supervisor
from livedrag.server.device.worker_process import WORKER, WorkerOptions
from livedrag.server.document.protocol import ModelInfo
from livedrag.server.metrics import DeviceStats

log = logging.getLogger(__name__)

POLL_SECONDS = 2.0
"""Between two looks at the cluster's nodes."""
LOST_SECONDS = 12.0
"""Without an answer from the head after which the cluster is given up, and its devices are freed: two failed looks."""
REBALANCE_SECONDS = 10.0
RETRY_SECONDS = 60.0
"""After which a node that could not load the model is tried again."""


class RayEngine(WorkerPool):
    """Shares the rooms among the workers of a cluster, whose nodes may come and go.

    Args:
        address: of the cluster; empty: one on this machine that ends with this process.
        cpus: of each worker on a CPU; 0: all of its node's.
        host, port: where workers connect to this process; empty and 0: this machine's address, any port.
        tls: with which they do; None: without.
        worker: names a function ``module:name`` of (connection, options).
        clock: by which workers hang, in seconds.
    """

    _rooms_wait = False  # their checkpoints are where all workers reach them

    def __init__(
        self,
        options: WorkerOptions,
        *,
        address: str = "",
        cpus: int = 0,
        host: str = "",
        port: int = 0,
        tls: Tls | None = None,
        worker: str = WORKER,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(options.hang, clock)
        self._options, self._worker, self._cpus = options, worker, cpus
        self._host, self._port, self._tls = host, port, tls
        self._cluster = Cluster(address)
        self._prefix = f"livedrag-{secrets.token_hex(4)}"
        self._slots: dict[str, Slot] = {}
        self._bringing_up: dict[str, asyncio.Task[None]] = {}
        self._errors: dict[str, str] = {}
        self._device = ""
        self._hub: Hub | None = None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    # The engine ------------------------------------------------------------------------------------------------------

    async def start(self, on_event: EventHandler) -> ModelInfo:
        """Join the cluster and start its workers; returns once the first one is ready."""
        self._emit = on_event
        self._info: asyncio.Future[ModelInfo] = asyncio.get_running_loop().create_future()
        try:
            return await self._start()
        except BaseException:
            await self.close()
            raise

    async def _start(self) -> ModelInfo:
        if not self._options.checkpoints_dir:
            self._temporary = tempfile.TemporaryDirectory(prefix="livedrag-")
            self._options = replace(self._options, checkpoints_dir=self._temporary.name)
        self._options = replace(self._options, server=secrets.token_hex(16))
        await asyncio.to_thread(lambda: open_files(self._options.checkpoints_dir).mark(self._options.server))
        await self._cluster.join()
        self._hub = hub = Hub(self._host or self._cluster.host, self._port, self._tls)
        await hub.start()
        log.info("workers connect to %s%s", hub.address, "" if self._tls else ", without TLS")
        try:
            nodes = await self._cluster.nodes()
        except ClusterLost as error:
            raise EngineError(str(error)) from error
        self._device = device_of(nodes, self._options.device, self._cpus, self._cluster.name)
        self._follow(nodes)
        info = await self._info
        self._watching = asyncio.get_running_loop().create_task(self._watch())
        return info

    async def close(self) -> None:
        """End the workers, and leave the cluster."""
        for task in self._bringing_up.values():
            task.cancel()
        await asyncio.gather(*self._bringing_up.values(), return_exceptions=True)
        await super().close()
        for slot in self._slots.values():
            slot.close()
        if self._hub is not None:
            self._hub.close()
        await self._cluster.leave()
        if self._temporary is not None:
            self._temporary.cleanup()

    def _stats_of(self, one: Supervisor) -> DeviceStats:
        return replace(super()._stats_of(one), error=self._errors.get(one.worker, ""))

    # Rooms -----------------------------------------------------------------------------------------------------------

    def _supervisor_for(self, room: str) -> Supervisor | None:
        return self._least_loaded(filter(self._takes_rooms, self._supervisors), room)

    def _rebalance(self) -> None:
        """Let idle rooms move, so that the workers have about as much to do."""
        by_id = {one.worker: one for one in self._supervisors if self._takes_rooms(one)}
        models = {room: base_name(choice) for room, choice in self._models.items()}
        for move in moves([self._load(one) for one in by_id.values()], models):
            if move.room not in self._moving:
                log.info("the idle room %s moves from worker %s to %s", move.room, move.source, move.destination)
                self._move(move.room, by_id[move.destination])

    # Workers ---------------------------------------------------------------------------------------------------------

    def _follow(self, nodes: list[Node]) -> None:
        """Start workers on nodes that have joined, and drain or forget those of nodes that leave."""
        there = {node.id: node for node in nodes}
        for supervisor in list(self._supervisors):
            node = there.get(self._slots[supervisor.worker].node.id)
            if node is None and supervisor.state != "ready":
                log.info("node %s has left", supervisor.node)
                self._remove(supervisor)
            elif node is not None and node.draining:
                self._drain(supervisor)
        here = {one.worker for one in self._supervisors}
        for id, slot in list(self._slots.items()):
            if slot.node.id not in there and id not in here:
                del self._slots[id]
        for node in nodes:
            if not node.draining:
                for index, resources in enumerate(resources_of(node, self._device, self._cpus)):
                    if f"{node.name}/{index}" not in self._slots:
                        self._add(node, f"{node.name}/{index}", resources)

    def _add(self, node: Node, id: str, resources: Mapping[str, int]) -> None:
        assert self._hub is not None
        threads = self._options.threads or resources.get("CPU", 0)
        options = replace(self._options, device=self._device, threads=threads, workers=1)
        slot = Slot(self._cluster, self._hub, node, id, resources, self._worker, options, self._prefix)
        self._slots[id] = slot
        supervisor = self._supervise(id, self._device, slot.spawn, node=node.name)
        self._bringing_up[id] = asyncio.get_running_loop().create_task(self._bring_up(supervisor))

    async def _bring_up(self, supervisor: Supervisor) -> None:
        """Start a worker, until its model is loaded; a node that cannot load it is reported and tried again later."""
        while True:
            try:
                info = await supervisor.start()
            except (EngineError, OSError) as error:
                log.error("worker %s takes no rooms: %s", supervisor.worker, error)
                self._errors[supervisor.worker] = str(error)
                self._check_first()
                await asyncio.sleep(RETRY_SECONDS)
            else:
                self._errors.pop(supervisor.worker, None)
                if not self._info.done():
                    self._info.set_result(info)
                elif info != self._info.result():
                    self._errors[supervisor.worker] = "its model differs from that of the other workers"
                    log.error("worker %s takes no rooms: %s", supervisor.worker, self._errors[supervisor.worker])
                    self._drain(supervisor)
                    return
                log.info(
                    "worker %s is ready on node %s, process %s", supervisor.worker, supervisor.node, supervisor.pid
                )
                return

    def _check_first(self) -> None:
        """The engine cannot start if no worker can."""
        if not self._info.done() and self._errors.keys() >= {one.worker for one in self._supervisors}:
            named = [f"{id}: {error}" for id, error in self._errors.items()]
            text = next(iter(self._errors.values())) if len(named) == 1 else f"no worker can start: {'; '.join(named)}"
            self._info.set_exception(EngineError(text))

    def _remove(self, supervisor: Supervisor) -> None:
        super()._remove(supervisor)
        self._errors.pop(supervisor.worker, None)
        self._bringing_up.pop(supervisor.worker).cancel()

    # The cluster -----------------------------------------------------------------------------------------------------

    async def _watch(self) -> None:
        seen = balanced = time.monotonic()
        while True:
            await asyncio.sleep(POLL_SECONDS)
            self.check_workers()
            try:
                self._follow(await self._cluster.nodes())
                seen = time.monotonic()
            except ClusterLost as error:
                log.warning("%s", error)
                if time.monotonic() - seen > LOST_SECONDS:
                    await self._rejoin()
                    seen = time.monotonic()
            if time.monotonic() - balanced > REBALANCE_SECONDS:
                balanced = time.monotonic()
                self._rebalance()

    async def _rejoin(self) -> None:
        """The head is gone: free the devices, and wait until there is a cluster again."""
        log.error("%s does not answer: its workers are ended", self._cluster.name)
        for supervisor in self._supervisors:
            supervisor.give_up("was ended because the cluster's head does not answer")
        while True:
            await self._cluster.leave()
            try:
                await self._cluster.join()
            except EngineError as error:
                log.warning("%s", error)
                await asyncio.sleep(POLL_SECONDS)
            else:
                log.info("%s is joined again", self._cluster.name)
                return
