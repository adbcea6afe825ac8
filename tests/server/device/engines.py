"""The engines under test: workers on this machine, or on the nodes of a Ray cluster."""

from __future__ import annotations

import importlib
import importlib.util
import os
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from livedrag.server.device.local import LocalEngine
from livedrag.server.device.pool import WorkerPool
from livedrag.server.device.worker_process import WORKER, WorkerOptions

with_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="the extra 'ray' is not installed")
"""Importing it to see whether it is there would fix its settings, which `make_cluster` makes."""
QUIET = "tests.quiet_worker:serve"


class Engines(ABC):
    """Makes engines of one kind.

    Attributes:
        killed: how one says that a worker was killed.
        kills: of a test that kills as many workers as it has time for.
    """

    killed: str
    kills: int

    @abstractmethod
    def engine(
        self,
        options: WorkerOptions,
        worker: str = WORKER,
        workers: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> WorkerPool:
        """An engine with so many workers."""

    def builtin(self, *, model: str = "builtin", worker: str = WORKER, workers: int = 1, **options: Any) -> WorkerPool:
        return self.engine(WorkerOptions(model=model, **options), worker, workers)

    def quiet(self, clock: Callable[[], float] = time.monotonic, workers: int = 1, **options: Any) -> WorkerPool:
        return self.engine(WorkerOptions(model="quiet", **options), QUIET, workers, clock)


class LocalEngines(Engines):
    """All of their devices are the CPU."""

    killed = "exit code -9"
    kills = 8

    def engine(
        self,
        options: WorkerOptions,
        worker: str = WORKER,
        workers: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> WorkerPool:
        return LocalEngine(replace(options, device=",".join(["cpu"] * workers)), worker, clock)


class RayEngines(Engines):
    """Their workers are on the two nodes of the cluster that `make_cluster` starts."""

    killed = "stopped"
    kills = 3  # Ray takes its time to start another one; `ray/test_service.py` kills ten

    def __init__(self, cluster: Any) -> None:
        self.cluster = cluster

    def engine(
        self,
        options: WorkerOptions,
        worker: str = WORKER,
        workers: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> WorkerPool:
        from livedrag.server.device.ray.engine import RayEngine

        threads = options.threads or 1
        return RayEngine(
            replace(options, device="cpu", threads=threads),
            address=self.cluster.address,
            cpus=CPUS_FOR[workers],
            worker=worker,
            clock=clock,
        )


NODES = (5, 4)
"""CPUs of each node, as far as Ray knows."""
CPUS_FOR = {1: 5, 2: 4, 4: 2}
"""CPUs of a worker, by how many workers these nodes have then."""


def make_cluster() -> Any:
    """Start a cluster of two nodes with little of everything. It asks for a token."""
    from livedrag.server.device.ray.cluster import ENVIRONMENT, STORE_BYTES

    os.environ.update(ENVIRONMENT)
    own = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32), "RAY_enable_metrics_collection": "0"}
    own["RAY_raylet_start_wait_time_s"] = "180"  # the machine may be busy with other tests
    os.environ.update({name: value for name, value in own.items() if name not in os.environ})
    utils = importlib.import_module("ray.cluster_utils")
    little = {"object_store_memory": STORE_BYTES, "include_dashboard": False}
    cluster = utils.Cluster(initialize_head=True, head_node_args={"num_cpus": NODES[0], **little})
    for cpus in NODES[1:]:
        cluster.add_node(num_cpus=cpus, object_store_memory=STORE_BYTES)
    return cluster
