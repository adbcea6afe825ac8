"""Health and metrics."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from livedrag.server.client import Client, OperationRejected, create_room, request
from livedrag.server.document.protocol import (
    AddDrag,
    Ended,
    Frame,
)
from livedrag.server.metrics import DeviceStats, EngineStats
from livedrag.server.settings import Settings
from tests.quiet import QuietEngine, png, quiet_server, serving_in_thread
from tests.server.web.browser import answer


def test_metrics_count_what_happens(tmp_path: Path) -> None:
    with quiet_server(tmp_path / "on") as (address, engine):
        room = create_room(address, png())

        async def story() -> str:
            async with Client.join(address, room.id, room.secret) as client:
                await client.edit(AddDrag(id="d1", handle=(10, 10), target=(30, 20)))
                with pytest.raises(OperationRejected):
                    await client.stop()
                run = (await client.run()).run.id
                engine.show(room.id, run, 1)
                await client.wait(Frame)
                await client.stop()
                await client.wait(Ended)
                return (await asyncio.to_thread(request, address, "GET", "/metrics")).decode()

        shown = asyncio.run(story())
        for line in (
            "livedrag_rooms_open 1.0",
            "livedrag_people 1.0",
            "livedrag_connections 1.0",
            'livedrag_operations_total{type="add_drag"} 1.0',
            'livedrag_operations_total{type="started"} 1.0',
            'livedrag_rejects_total{reason="invalid"} 1.0',
            'livedrag_runs_total{outcome="stopped"} 1.0',
            'livedrag_frames_total{what="sent"} 1.0',
            "livedrag_save_seconds_count 4.0",
        ):
            assert f"\n{line}\n" in shown, line
        assert room.secret not in shown
    with quiet_server(tmp_path / "off", metrics=False) as (address, _):
        assert answer(address, "/metrics")[0] == 404


def test_health_has_the_workers_by_node(tmp_path: Path) -> None:
    class TwoNodes(QuietEngine):
        def stats(self) -> EngineStats:
            one = DeviceStats(worker="a/0", node="a", state="ready")
            return EngineStats(devices=(one, DeviceStats(worker="b/0", node="b", state="ready", draining=True)))

    with serving_in_thread(Settings(data_dir=tmp_path, port=0), TwoNodes(), patience=60) as address:
        health = json.loads(request(address, "GET", "/healthz"))
    assert health["workers"] == {"a": {"ready": 1}, "b": {"draining": 1}}
