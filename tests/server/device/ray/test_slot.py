"""What a worker takes of a node."""

from __future__ import annotations

import pytest

from livedrag.server.device.engine import EngineError
from livedrag.server.device.ray.cluster import Node
from livedrag.server.device.ray.slot import device_of, resources_of

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
