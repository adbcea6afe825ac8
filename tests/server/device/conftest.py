"""The engines that tests of this package run over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.server.device.engines import Engines, LocalEngines, RayEngines, make_cluster, with_ray

PATIENCE_SECONDS = 120.0
"""Silence after which a worker counts as dead, instead of the usual `DEAD_SECONDS`."""


@pytest.fixture(scope="package")
def cluster() -> Iterator[Any]:
    """A Ray cluster of two nodes, which all tests of this package share: they leave it as they found it."""
    cluster = make_cluster()
    yield cluster
    cluster.shutdown()


@pytest.fixture
def ray_engines(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> RayEngines:
    """Engines on that cluster. They have patience: a busy machine may keep a worker from answering for seconds."""
    monkeypatch.setattr("livedrag.server.device.ray.hub.DEAD_SECONDS", PATIENCE_SECONDS)
    return RayEngines(cluster)


@pytest.fixture(params=["local", pytest.param("ray", marks=[pytest.mark.long, with_ray])])
def engines(request: pytest.FixtureRequest) -> Engines:
    """Engines of each kind."""
    if request.param == "local":
        return LocalEngines()
    engines: RayEngines = request.getfixturevalue("ray_engines")
    return engines
