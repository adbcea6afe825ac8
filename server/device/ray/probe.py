"""Prints what answers at a Ray address, as JSON. A process of its own: Ray's client may end the one that it is in.

Usage: python -m livedrag.server.device.ray.probe ADDRESS
"""

from __future__ import annotations

import importlib
import json
import platform
import sys
from typing import Any

import msgspec


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """The cluster's versions, this machine's, and the addresses of the nodes that are alive."""

    ray: str
    python: str
    own_ray: str
    own_python: str
    nodes: list[str]


def probe(address: str) -> Found:
    """Ask the cluster. Raises what Ray raises."""
    ray: Any = importlib.import_module("ray")
    client = importlib.import_module("ray._raylet").GcsClient(address=address)
    packed = client.internal_kv_get(b"CLUSTER_METADATA", namespace=b"cluster", timeout=10)
    about = json.loads(packed)
    nodes = client.get_all_node_info(timeout=10).values()
    return Found(
        ray=about["ray_version"],
        python=about["python_version"],
        own_ray=ray.__version__,
        own_python=platform.python_version(),
        nodes=[node.node_manager_address for node in nodes if node.state == 0],
    )


if __name__ == "__main__":
    sys.stdout.write(msgspec.json.encode(probe(sys.argv[1])).decode())
