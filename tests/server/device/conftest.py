"""The engines that tests of this package run over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.server.device.engines import Engines, LocalEngines, RayEngines, make_cluster, on_request, with_ray


@pytest.fixture(scope="session")
def cluster() -> Iterator[Any]:
    """A Ray cluster of two nodes on this machine, which all tests share: they leave it as they found it."""
    cluster = make_cluster()
    yield cluster
    cluster.shutdown()


@pytest.fixture(scope="session")
def ray_engines(cluster: Any) -> RayEngines:
    """Engines on that cluster."""
    return RayEngines(cluster)


@pytest.fixture(params=["local", pytest.param("ray", marks=[pytest.mark.long, with_ray, on_request])])
def engines(request: pytest.FixtureRequest) -> Engines:
    """Engines of each kind."""
    if request.param == "local":
        return LocalEngines()
    engines: RayEngines = request.getfixturevalue("ray_engines")
    return engines
