"""What docs/running.md says of settings and metrics is what there is."""

from __future__ import annotations

import dataclasses
import re

from livedrag.server.metrics import DeviceStats, EngineStats, Metrics
from livedrag.server.settings import Settings
from tests.conftest import ROOT

RUNNING = (ROOT / "docs" / "running.md").read_text()


def test_every_setting_is_described_and_no_other() -> None:
    cells = [row.split("|")[1] for row in RUNNING.splitlines() if row.startswith("| `")]
    described = [name for cell in cells for name in re.findall(r"`([A-Z_]+)`", cell)]
    assert sorted(described) == sorted(field.name.upper() for field in dataclasses.fields(Settings))


def test_the_default_rates_are_those_described() -> None:
    described = dict(re.findall(r"^\| `(RATE_[A-Z]+)` \| `([0-9/]+)` \|", RUNNING, re.MULTILINE))
    settings = Settings()
    for name, rate in described.items():
        assert str(getattr(settings, name.lower())) == rate
    assert len(described) == sum(field.type == "Rate" for field in dataclasses.fields(Settings))


def test_every_metric_is_named() -> None:
    metrics = Metrics()
    metrics.watch_engine(lambda: EngineStats(devices=(DeviceStats(),)))
    for name in re.findall(r"# TYPE (\w+)", metrics.text()):
        assert f"`{name}`" in RUNNING, name


def test_the_tests_that_show_a_promise_are_there() -> None:
    readme = (ROOT / "README.md").read_text()
    promises = readme[readme.index("## What it promises") : readme.index("## In a container")]
    named = re.findall(r"(long )?`(tests/[a-z0-9_/]+\.py)`", promises)
    assert len(named) > 10
    for long, path in named:
        assert ("@pytest.mark.long" in (ROOT / path).read_text()) == bool(long), path
