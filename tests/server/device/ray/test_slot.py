"""What a worker takes of a node, and when the next one may start there."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from livedrag.server.device.engine import EngineError
from livedrag.server.device.ray import slot as slot_module
from livedrag.server.device.ray.cluster import Cluster, Node
from livedrag.server.device.ray.slot import END_SECONDS, RayWorker, Slot, device_of, resources_of
from livedrag.server.device.ray.wire import LEASE_SECONDS, ProcessInfo
from livedrag.server.device.worker_process import FINISH_SECONDS, WorkerOptions
from tests.server.device.ray.test_link import connected

CPUS = Node(id="1", name="small", cpus=4, gpus=0, draining=False)
GPUS = Node(id="2", name="large", cpus=8, gpus=2, draining=False)


def test_a_worker_for_each_gpu_or_for_so_many_cpus() -> None:
    assert resources_of(GPUS, "cuda", 0) == [{"GPU": 1}, {"GPU": 1}]
    assert resources_of(CPUS, "cuda", 0) == []
    assert resources_of(CPUS, "cpu", 0) == [{"CPU": 4}]
    assert resources_of(GPUS, "cpu", 3) == [{"CPU": 3}, {"CPU": 3}]
    assert resources_of(CPUS, "cpu", 5) == []


@pytest.mark.parametrize(
    ("wanted", "nodes", "device"),
    [("", [CPUS], "cpu"), ("", [CPUS, GPUS], "cuda"), ("all", [GPUS], "cuda"), ("cpu", [GPUS], "cpu")],
)
def test_gpus_are_used_where_there_are_any(wanted: str, nodes: list[Node], device: str) -> None:
    assert device_of(nodes, wanted, 0, "the cluster") == device


@pytest.mark.parametrize(
    ("wanted", "cpus", "message"),
    [
        ("cuda", 0, "--device cuda: the cluster has no GPU"),
        ("cuda:1", 0, "--device 'cuda:1' cannot be chosen with --engine ray"),
        ("cpu", 5, r"the cluster has no node with 5 CPUs \(nodes and CPUs: small 4\): lower --ray-cpus"),
    ],
)
def test_what_the_cluster_lacks_is_named(wanted: str, cpus: int, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        device_of([CPUS], wanted, cpus, "the cluster")


class SilentCluster(Cluster):
    """Its nodes do not answer."""

    def kill(self, actor: Any) -> None:
        pass

    async def end_process(self, node: str, process: ProcessInfo) -> bool:
        return False


def test_a_worker_whose_node_is_silent_has_ended_once_it_must_have_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert END_SECONDS > LEASE_SECONDS + FINISH_SECONDS, "it writes its checkpoints after its lease is over"
    monkeypatch.setattr(slot_module, "END_SECONDS", 0.3)

    async def story() -> None:
        async with connected(tmp_path) as pair:
            slot = Slot(SilentCluster(""), pair.hub, CPUS, "small/0", {"CPU": 4}, "", WorkerOptions(model=""), "test")
            began = time.monotonic()
            await slot.ended(RayWorker(slot, None, pair.connection, print))
            assert time.monotonic() - began >= 0.3

    asyncio.run(story())
