"""Slot: one place for a worker on a machine of the cluster. It starts workers there, one after another."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from livedrag.server.device.engine import EngineError
from livedrag.server.device.messages import AnyCommand, EventHandler
from livedrag.server.device.ray.cluster import Cluster, Node
from livedrag.server.device.ray.hub import Connection, Hub
from livedrag.server.device.ray.wire import LEASE_SECONDS
from livedrag.server.device.worker_process import EXIT_SECONDS, FINISH_SECONDS, WorkerOptions

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 30.0
"""After which the log says that a worker is still not there."""
END_SECONDS = LEASE_SECONDS + FINISH_SECONDS + 1
"""After which a worker that the server sends nothing any more has certainly ended."""


@dataclass(eq=False)
class Slot:
    """A GPU, or some CPUs, of a node.

    Args:
        id: of the worker, unique in the cluster.
        resources: that it takes, such as ``{"GPU": 1}``.
        prefix: of the names of its actors, which tells them from those of another server.
    """

    cluster: Cluster
    hub: Hub
    node: Node
    id: str
    resources: Mapping[str, int]
    worker: str
    options: WorkerOptions
    prefix: str
    _starts: int = 0
    _gone: asyncio.Task[None] | None = field(default=None, repr=False)  # done once the last worker's process has gone

    async def spawn(self, on_event: EventHandler, on_exit: Callable[[], None]) -> RayWorker:
        """Start a worker, as soon as the one before has gone and the resources are free. Raises `OSError`."""
        if self._gone is not None:
            await self._gone
        self._starts += 1
        name = f"{self.prefix}/{self.id}/{self._starts}"
        endpoint = self.hub.expect(name)
        actor: Any = None
        try:
            actor = await self.cluster.start_actor(
                name, self.node.id, self.resources, self.worker, self.options, endpoint
            )
            connection = await self._connection(name, actor)
        except BaseException as error:
            if actor is not None:
                self.cluster.kill(actor)
            if isinstance(error, Exception) and not isinstance(error, OSError):
                raise OSError(f"Ray cannot start it: {error}") from error
            raise
        finally:
            self.hub.forget(name)
        worker = RayWorker(self, actor, connection, on_exit)
        connection.serve(on_event, worker.on_lost)
        return worker

    async def _connection(self, name: str, actor: Any) -> Connection:
        """The connection of a worker that was started. Raises `OSError` where it cannot start."""
        connected = asyncio.ensure_future(self.hub.connection(name))
        failed = asyncio.ensure_future(self.cluster.fails(actor))
        try:
            done: set[asyncio.Future[Any]] = set()
            while not done:
                done, _ = await asyncio.wait(
                    {connected, failed}, timeout=PATIENCE_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                if not done:
                    log.warning("worker %s has not started yet: its node may lack free %s", self.id, self.resources)
            if connected in done:
                return connected.result()
            raise OSError(failed.result())
        finally:
            connected.cancel()
            failed.cancel()

    def ended(self, worker: RayWorker) -> asyncio.Task[None]:
        """A worker has ended as far as one knows: make sure of it before the next one starts."""
        self._gone = asyncio.get_running_loop().create_task(self._make_sure(worker))
        return self._gone

    def close(self) -> None:
        """Start no more workers here."""
        if self._gone is not None:
            self._gone.cancel()

    async def _make_sure(self, worker: RayWorker) -> None:
        """Wait until a worker's process has gone: Ray may call an actor dead whose process lives on.

        It is killed on its node. If the node does not answer, the worker ends by itself: it may have heard of this
        server until now, waits for `LEASE_SECONDS`, and writes its checkpoints in `FINISH_SECONDS`.
        """
        self.cluster.kill(worker.actor)
        process = worker.connection.process
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(END_SECONDS):
                if process is not None and await self.cluster.end_process(self.node.id, process):
                    return
                await asyncio.Event().wait()
        log.warning("node %s does not say whether worker %s has ended; by now it has", self.node.name, self.id)


class RayWorker:
    """A worker that has connected."""

    def __init__(self, slot: Slot, actor: Any, connection: Connection, on_exit: Callable[[], None]) -> None:
        self.actor, self.connection = actor, connection
        self._slot, self._on_exit = slot, on_exit
        self.ending = "stopped"
        self._waiting: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Of its process on its machine, once known."""
        return self.connection.process.pid if self.connection.process else None

    def send(self, command: AnyCommand) -> None:
        """Send a command; lost if the connection is."""
        self.connection.send(command)

    def kill(self) -> None:
        """End it at once."""
        self.connection.lose("was killed")

    def forget(self) -> None:
        """Nothing is left of it here."""

    async def end(self) -> None:
        """Ask it to end, and make sure that it does."""
        await self.connection.end(EXIT_SECONDS)
        self._slot.ended(self)

    def on_lost(self, how: str) -> None:
        """Its connection is lost. A process that has closed it is gone; one that is silent may write to disk still."""
        self.ending = how
        gone = self._slot.ended(self)
        if how == "stopped":
            self._on_exit()
        else:
            self._waiting = asyncio.get_running_loop().create_task(self._exit_after(gone))

    async def _exit_after(self, gone: asyncio.Task[None]) -> None:
        await gone
        self._on_exit()


def resources_of(node: Node, device: str, cpus: int) -> list[Mapping[str, int]]:
    """What the workers of a node take: one for each GPU, or for so many CPUs.

    Args:
        device: ``cuda`` or ``cpu``.
        cpus: of each worker on a CPU; 0: all of the node's.
    """
    if device == "cuda":
        return [{"GPU": 1}] * node.gpus
    each = cpus or node.cpus
    return [{"CPU": each}] * (node.cpus // each if each else 0)


def device_of(nodes: list[Node], wanted: str, cpus: int, name: str) -> str:
    """``cuda`` or ``cpu``: what the workers of a cluster use.

    Args:
        wanted: as set; empty or ``all``: its GPUs if it has any.
        name: of the cluster, for people.

    Raises:
        EngineError: it has none of them.
    """
    if wanted not in ("", "all", "cpu", "cuda"):
        raise EngineError(f"--device {wanted!r} cannot be chosen with --engine ray: use cuda, cpu, or leave it out")
    gpus = any(node.gpus for node in nodes)
    if wanted == "cuda" and not gpus:
        raise EngineError(f"--device cuda: {name} has no GPU; use --device cpu, or join a node that has one")
    device = "cuda" if gpus and wanted != "cpu" else "cpu"
    if not any(resources_of(node, device, cpus) for node in nodes):
        sizes = ", ".join(f"{node.name} {node.cpus}" for node in nodes) or "none"
        raise EngineError(f"{name} has no node with {cpus or 1} CPUs (nodes and CPUs: {sizes}): lower --ray-cpus")
    return device
