"""Metrics: the text that Prometheus reads, by its own grammar, with the numbers that were counted."""

from __future__ import annotations

import json
import re
from pathlib import Path
from urllib.parse import quote

import pytest

from livedrag.server.client import RequestFailed, create_room, request
from livedrag.server.metrics import DeviceStats, EngineStats, Metrics
from livedrag.server.settings import Rate
from tests.quiet import png, quiet_server

NAME, LABEL = r"[a-zA-Z_:][a-zA-Z0-9_:]*", r'[a-zA-Z_]\w*="(?:[^"\\\n]|\\["\\n])*"'
SAMPLE = re.compile(rf"({NAME}(?:\{{{LABEL}(?:,{LABEL})*\}})?) (-?[0-9.e+-]+|\+Inf)")
HEAD = re.compile(rf"# (HELP {NAME} .+|TYPE {NAME} (counter|gauge|histogram))")


def samples(text: str) -> dict[str, float]:
    """By name and labels; every line must be one that Prometheus can read."""
    found = {}
    assert text.endswith("\n")
    for line in text.splitlines():
        if not HEAD.fullmatch(line):
            match = SAMPLE.fullmatch(line)
            assert match, line
            assert match[1] not in found, f"twice: {line}"
            found[match[1]] = float(match[2])
    return found


def test_what_is_counted_is_shown() -> None:
    metrics = Metrics()
    people = [1, 2, 3]
    metrics.gauge("livedrag_people", "People in rooms.", lambda: len(people))
    metrics.operations.labels("edit").inc()
    metrics.operations.labels("edit").inc()
    metrics.rejects.labels('odd "reason"\\\n').inc()
    metrics.frames.labels("sent").inc(5)
    people.append(4)
    found = samples(metrics.text())
    assert found['livedrag_operations_total{type="edit"}'] == 2
    assert found['livedrag_rejects_total{reason="odd \\"reason\\"\\\\\\n"}'] == 1
    assert found['livedrag_frames_total{what="sent"}'] == 5
    assert found["livedrag_people"] == 4


def test_times_fall_into_buckets_that_add_up() -> None:
    metrics = Metrics()
    for seconds in (0.0005, 0.001, 0.03, 99.0):
        metrics.save_seconds.observe(seconds)
    found = samples(metrics.text())
    name = "livedrag_save_seconds"
    assert found[f'{name}_bucket{{le="0.001"}}'] == 2  # a bound belongs to its bucket
    assert found[f'{name}_bucket{{le="0.05"}}'] == 3
    assert found[f'{name}_bucket{{le="2.5"}}'] == 3
    assert found[f'{name}_bucket{{le="+Inf"}}'] == found[f"{name}_count"] == 4
    assert found[f"{name}_sum"] == pytest.approx(99.0315)
    assert found["livedrag_frame_age_seconds_count"] == 0


def test_devices_are_shown_each_for_itself() -> None:
    metrics = Metrics()
    first = DeviceStats(device="cpu", state="ready", sessions=3, steps={"dragging": 7}, seconds={"dragging": 1.5})
    metrics.watch_engine(lambda: EngineStats(devices=(first, DeviceStats(device="cpu", queued=2, restarts=1))))
    found = samples(metrics.text())
    assert found['livedrag_device_ready{device="0:cpu",node=""}'] == 1
    assert found['livedrag_device_ready{device="1:cpu",node=""}'] == 0
    assert found['livedrag_sessions{device="0:cpu",node=""}'] == 3
    assert found['livedrag_queue{device="1:cpu",node=""}'] == 2
    assert found['livedrag_device_restarts_total{device="1:cpu",node=""}'] == 1
    assert found['livedrag_steps_total{device="0:cpu",node="",stage="dragging"}'] == 7
    assert found['livedrag_step_seconds_total{device="0:cpu",node="",stage="dragging"}'] == 1.5


def test_workers_are_counted_by_node_and_named_by_their_ids() -> None:
    metrics = Metrics()
    workers = (
        DeviceStats(worker="one/0", node="one", state="ready", sessions=2),
        DeviceStats(worker="one/1", node="one", state="ready"),
        DeviceStats(worker="one/2", node="one", state="ready", draining=True),
        DeviceStats(worker="two/0", node="two", state="restarting"),
    )
    metrics.watch_engine(lambda: EngineStats(devices=workers))
    found = samples(metrics.text())
    assert found['livedrag_workers{node="one",state="ready"}'] == 2
    assert found['livedrag_workers{node="one",state="draining"}'] == 1
    assert found['livedrag_workers{node="two",state="restarting"}'] == 1
    assert found['livedrag_sessions{device="one/0",node="one"}'] == 2


def test_every_limit_that_somebody_meets_is_counted(tmp_path: Path) -> None:
    with quiet_server(tmp_path, rate_rooms=Rate(0.001, 1), rate_entries=Rate(0.001, 1)) as (address, _):
        room = create_room(address, png())
        for number in range(2):
            with pytest.raises(RequestFailed) as caught:
                create_room(address, png())
            assert caught.value.status == 429, number
        enter = f"/api/rooms/{room.id}/enter"
        body, headers = json.dumps({"secret": room.secret}).encode(), {"Content-Type": "application/json"}
        request(address, "POST", enter, body, headers)
        with pytest.raises(RequestFailed):
            request(address, "POST", enter, body, headers)
        found = samples(request(address, "GET", "/metrics").decode())
    assert found['livedrag_rejects_total{reason="rate_rooms"}'] == 2
    assert found['livedrag_rejects_total{reason="rate_entries"}'] == 1


def test_metrics_ask_for_the_token_or_the_password(tmp_path: Path) -> None:
    def refused(address: str, **headers: str) -> int:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        try:
            request(address, "GET", "/metrics", None, given)
        except RequestFailed as error:
            return error.status
        return 0

    with quiet_server(tmp_path / "a", password="open sesame") as (address, _):
        assert refused(address) == 401
        assert refused(address, Livedrag_Password="sesame") == 401
        assert refused(address, Livedrag_Password=quote("open sesame")) == 0
    with quiet_server(tmp_path / "b", password="open sesame", metrics_token="t") as (address, _):
        assert refused(address, Livedrag_Password=quote("open sesame")) == 401
        assert refused(address, Authorization="Bearer T") == 401
        assert refused(address, Authorization="Bearer t") == 0
    with quiet_server(tmp_path / "c") as (address, _):
        assert refused(address) == 0
