"""Cluster: what the engine asks of Ray. Ray is imported when the cluster is joined, and blocking calls have threads."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import logging
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from livedrag.server.device.engine import EngineError
from livedrag.server.device.ray.calls import Calls
from livedrag.server.device.ray.probe import Found
from livedrag.server.device.ray.process import end_process
from livedrag.server.device.ray.wire import Endpoint, ProcessInfo
from livedrag.server.device.worker_process import WorkerOptions
from livedrag.server.errors import LivedragError

log = logging.getLogger(__name__)

NAMESPACE = "livedrag"
INSTALL = "the engine 'ray' needs the extra 'ray': pip install 'livedrag[ray]'"
PROBE_SECONDS = 30.0
JOIN_SECONDS = 180.0
CALL_SECONDS = 10.0
NODES_SECONDS = 6.0
STORE_BYTES = 128 * 2**20
"""Of a local cluster's object store, which holds nothing of ours."""
ENVIRONMENT: Mapping[str, str] = {
    "RAY_worker_niceness": "0",  # else workers run at 15, below everything else on the machine
    "RAY_memory_monitor_refresh_ms": "0",  # else it kills workers when the machine's memory is nearly full
    "RAY_prestart_worker_first_driver": "0",  # else a node begins with an idle process for each CPU
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",  # else a call that comes after the end starts another cluster
    # A client that cannot reach the head for this long ends its process, which is the web server.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "1000000",
}
"""Of the server's process, where they are not set: Ray reads them when it is imported and when it starts processes."""

LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"
"""Set to 0 when Ray is imported, a cluster that it starts listens on loopback alone, on Linux too."""


class ClusterLost(LivedragError):
    """The head of the cluster does not answer."""


@dataclass(frozen=True)
class Node:
    """A machine of the cluster that is alive; ``name`` is unique."""

    id: str
    name: str
    cpus: int
    gpus: int
    draining: bool


class Cluster:
    """A Ray cluster that runs already, or with an empty address one on this machine that ends with this process.

    Args:
        address: as ``host:port``, or ``auto`` for the one of this machine.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        self._lifetime = Calls("ray")
        self._calls = Calls("ray-calls")
        self._killing: set[asyncio.Future[None]] = set()
        self._names: dict[str, str] = {}  # of nodes, by id
        self._ray: Any = None

    async def join(self) -> None:
        """Join it, or start one. Raises `EngineError`."""
        if importlib.util.find_spec("ray") is None:
            raise EngineError(INSTALL)
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        if self._address:
            await self._check()
        elif "RAY_AUTH_MODE" not in os.environ:
            # Its ports are open to everyone on this machine.
            os.environ.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=secrets.token_hex(32))
        try:
            await self._lifetime(self._init, JOIN_SECONDS)
        except TimeoutError as error:
            raise EngineError(f"{self.name} did not answer within {JOIN_SECONDS:g} s") from error
        except Exception as error:
            first = str(error).strip().partition("\n")[0]
            raise EngineError(f"{self.name} cannot be joined: {type(error).__name__}: {first}") from error

    @property
    def name(self) -> str:
        """For people."""
        return f"the Ray cluster at {self._address}" if self._address else "the local Ray cluster"

    def _init(self) -> None:
        shared: dict[str, Any] = {"namespace": NAMESPACE, "log_to_driver": False, "logging_level": logging.ERROR}
        if self._address:
            ray: Any = importlib.import_module("ray")
            ray.init(address=self._address, **shared)
        else:
            before = os.environ.get(LOOPBACK)
            os.environ[LOOPBACK] = "0"
            try:
                ray = importlib.import_module("ray")
                ray.init(address="local", include_dashboard=False, object_store_memory=STORE_BYTES, **shared)
            finally:
                del os.environ[LOOPBACK]  # child processes may join other clusters
                if before is not None:
                    os.environ[LOOPBACK] = before
        self._ray = ray

    async def _check(self) -> None:
        """Raise `EngineError` where Ray's client would wait for minutes, or end this process."""
        address = self._address
        if "://" in address:
            raise EngineError(f"--ray-address {address!r} must be HOST:PORT as `ray start` prints it, or auto")
        if address == "auto":
            address = await asyncio.to_thread(_running_here)
            self._address = address
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise EngineError(f"--ray-address {address!r} must be HOST:PORT as `ray start` prints it, or auto")
        silent = f"no Ray cluster answers at {address}: start one with `ray start --head`, or leave --ray-address out"
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
                writer.close()
        except (OSError, TimeoutError) as error:
            raise EngineError(f"{silent} ({str(error) or 'it is silent'})") from error
        found = await asyncio.to_thread(_probe, address)
        if found is None:
            raise EngineError(silent)
        ours, theirs = (found.own_ray, found.own_python), (found.ray, found.python)
        if ours != theirs:
            raise EngineError(
                f"the cluster at {address} has Ray {theirs[0]} and Python {theirs[1]}, "
                f"this server Ray {ours[0]} and Python {ours[1]}: install the same versions on all machines"
            )
        if not any(map(_is_own, found.nodes)):
            raise EngineError(
                f"this machine is not a node of the cluster at {address}: "
                f"run `ray start --address={address} --num-cpus=0 --num-gpus=0` here first"
            )

    async def nodes(self) -> list[Node]:
        """The machines that are alive. Raises `ClusterLost`."""
        try:
            return await self._calls(self._nodes, NODES_SECONDS)
        except Exception as error:
            self._calls = Calls("ray-calls")  # that one may be stuck
            raise ClusterLost(f"{self.name} does not answer") from error

    def _nodes(self) -> list[Node]:
        # Not `ray.nodes()`: where the head has died, that waits for good, and ends this process if ever another server
        # answers at the head's port.
        protocol = importlib.import_module("ray.core.generated.gcs_pb2")
        client = importlib.import_module("ray._private.worker").global_worker.gcs_client
        found = client.get_all_node_info(timeout=NODES_SECONDS, state_filter=protocol.GcsNodeInfo.ALIVE)
        alive = {node_id.hex(): node for node_id, node in found.items()}
        self._names = names_of({node_id: str(node.node_name) for node_id, node in alive.items()}, self._names)
        return [
            Node(
                id=node_id,
                name=self._names[node_id],
                cpus=int(node.resources_total.get("CPU", 0)),
                gpus=int(node.resources_total.get("GPU", 0)),
                draining=node.state_snapshot.state == protocol.NodeSnapshot.DRAINING,
            )
            for node_id, node in alive.items()
        ]

    async def leave(self) -> None:
        """Leave it; a local one ends."""
        if self._ray is not None:
            try:
                await self._lifetime(self._ray.shutdown, 2 * CALL_SECONDS)
            except Exception as error:
                log.warning("%s cannot be left in order: %s", self.name, error)
                self._lifetime = Calls("ray")

    @property
    def host(self) -> str:
        """An address of this machine by which all nodes reach it: loopback, if there are no others."""
        return str(self._ray.util.get_node_ip_address()) if self._address else "127.0.0.1"

    # Actors ----------------------------------------------------------------------------------------------------------

    async def start_actor(
        self, name: str, node: str, resources: Mapping[str, int], worker: str, options: WorkerOptions, to: Endpoint
    ) -> Any:
        """Start a worker's actor on a node, as soon as the resources are free there; returns its handle."""
        return await self._calls(lambda: self._start(name, node, resources, worker, options, to), CALL_SECONDS)

    def _start(
        self, name: str, node: str, resources: Mapping[str, int], worker: str, options: WorkerOptions, to: Endpoint
    ) -> Any:
        from livedrag.server.device.ray.actor import WorkerActor

        actor = self._ray.remote(WorkerActor).options(
            name=name,
            num_cpus=resources.get("CPU", 0),
            num_gpus=resources.get("GPU", 0),
            max_restarts=0,
            max_task_retries=0,
            scheduling_strategy=_only_on(node),
        )
        return actor.remote(worker, options, to)

    async def fails(self, actor: Any) -> str:
        """Wait until an actor has failed to start; returns why."""
        try:
            await asyncio.wrap_future(actor.__ray_ready__.remote().future())
        except Exception as error:
            lines = str(error).strip().splitlines()  # of a failed start: a traceback
            return lines[-1] if lines and "creation task" in lines[0] else "".join(lines[:1])
        await asyncio.Event().wait()  # it runs
        raise AssertionError

    def kill(self, actor: Any) -> None:
        """Have Ray end an actor. Its process may outlive that."""
        if self._ray is not None and self._ray.is_initialized():
            killing = asyncio.ensure_future(self._kill(actor))
            self._killing.add(killing)
            killing.add_done_callback(self._killing.discard)

    async def _kill(self, actor: Any) -> None:
        try:
            await self._calls(lambda: self._ray.kill(actor, no_restart=True), CALL_SECONDS)
        except Exception as error:
            log.debug("an actor cannot be killed: %s", error)

    async def end_process(self, node: str, process: ProcessInfo) -> bool:
        """Kill a process on a node; whether it has certainly gone. False where the node does not answer."""
        try:
            ended = await self._calls(lambda: self._end_process(node, process), CALL_SECONDS)
            async with asyncio.timeout(2 * CALL_SECONDS):
                return bool(await asyncio.wrap_future(ended.future()))
        except Exception as error:
            log.debug("a process on node %s: %s", node, error)
            return False

    def _end_process(self, node: str, process: ProcessInfo) -> Any:
        task = self._ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=_only_on(node))(end_process)
        return task.remote(process.pid, process.started)


def names_of(wanted: Mapping[str, str], known: Mapping[str, str]) -> dict[str, str]:
    """Names of nodes, by id: the wanted ones, or others that begin so if several nodes want the same.

    Args:
        known: that nodes have already, and keep.
    """
    names = {id: name for id, name in known.items() if id in wanted}
    for id, name in wanted.items():
        if id not in names:
            names[id] = name if name not in names.values() else f"{name}-{id[:8]}"
    return names


def _probe(address: str) -> Found | None:
    """What answers at an address; None: nothing that is Ray."""
    command = [sys.executable, "-m", "livedrag.server.device.ray.probe", address]
    try:
        done = subprocess.run(command, capture_output=True, timeout=PROBE_SECONDS, check=True)
        return msgspec.json.decode(done.stdout, type=Found)
    except (OSError, subprocess.SubprocessError, msgspec.MsgspecError):
        return None


def _only_on(node: str) -> Any:
    strategies = importlib.import_module("ray.util.scheduling_strategies")
    return strategies.NodeAffinitySchedulingStrategy(node, soft=False)


def _running_here() -> str:
    """The address of the cluster that runs on this machine. Raises `EngineError`."""
    services: Any = importlib.import_module("ray._private.services")
    found: list[str] = sorted(services.find_gcs_addresses())
    if len(found) != 1:
        names = ", ".join(found) or "none"
        raise EngineError(f"--ray-address auto needs exactly one Ray cluster on this machine, found {names}: name it")
    return found[0]


def _is_own(address: str) -> bool:
    """Whether an IP address is one of this machine."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True
